//! The report as one file that needs nothing else.

use std::fmt::Write as _;

use crate::chart::{self, escape};
use crate::report::Comparison;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#57606a;--line:#d8dee4;--ground:#fff;--card:#f6f8fa}\
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#9aa4ae;--line:#30363d;--ground:#0d1117;--card:#161b22}}\
body{margin:2rem auto;max-width:60rem;padding:0 1rem;font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--ground)}\
h1{font-size:1.6rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}p{max-width:48rem}.faint{color:var(--faint)}\
figure{margin:.5rem 0 1rem;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;overflow-x:auto}\
svg{display:block;width:100%;min-width:40rem;height:auto}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td{white-space:nowrap}th,td{padding:.3rem .9rem .3rem 0;text-align:right;border-bottom:1px solid var(--line)}\
th:first-child{text-align:left;font-weight:normal}thead th{font-weight:600}th.sub{padding-left:1rem;color:var(--faint)}";

/// The page.
pub(crate) fn page(comparison: &Comparison) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>drover simulate</title><style>{STYLE}{}</style></head><body>\n<main>\n<h1>Scaling, simulated</h1>\n",
        chart::STYLE
    );
    let _ = writeln!(
        html,
        "<p class=\"faint\">{}.<br>{}.</p>",
        escape(&comparison.about_jobs()),
        escape(&comparison.about_cloud())
    );
    for note in comparison.notes() {
        let _ = writeln!(html, "<p role=\"note\"><strong>{}</strong></p>", escape(&note));
    }
    table(&mut html, comparison);
    figure(
        &mut html,
        "How long jobs waited",
        "The further to the left and the steeper, the better.",
        &chart::wait_chart(comparison),
    );
    figure(
        &mut html,
        "What it cost",
        "The dashed mark is what no policy can beat.",
        &chart::cost_chart(comparison),
    );
    html.push_str("<h2>Over time</h2>\n<p class=\"faint\">Means; times are UTC.</p>\n");
    for result in &comparison.results {
        let _ = writeln!(html, "<figure>{}</figure>", chart::time_chart(comparison, result));
    }
    html.push_str(BOUNDS);
    html.push_str("</main></body></html>\n");
    html
}

const BOUNDS: &str = "\
<h2>What no policy can beat</h2>\n\
<p><b>Cost, if no job waits:</b> no policy that starts every job in the moment of its creation can cost less with instances of \
this size, price, least boot time and <code>max_use_count</code>, even if it knows the future. Policies that let jobs wait can.</p>\n\
<p><b>Cost, however long jobs wait:</b> no policy can cost less that runs all jobs on such instances.</p>\n\
<p><b>Mean waiting:</b> no policy and no order of the jobs can have a lower mean with as many jobs at once as \
<code>max_instances</code>, <code>limit</code> and <code>concurrent</code> allow, even if instances were free and there before \
they are needed.</p>\n";

fn table(html: &mut String, comparison: &Comparison) {
    html.push_str("<div class=\"scroll\"><table><thead>");
    for (index, (label, cells)) in comparison.rows().into_iter().enumerate() {
        let sub = if label.starts_with(' ') { " class=\"sub\"" } else { "" };
        let tag = if index == 0 { "th scope=\"col\"" } else { "td" };
        let end = if index == 0 { "th" } else { "td" };
        let _ = write!(html, "<tr><th scope=\"row\"{sub}>{}</th>", escape(label.trim()));
        for cell in cells {
            let _ = write!(html, "<{tag}>{}</{end}>", escape(&cell));
        }
        html.push_str("</tr>\n");
        if index == 0 {
            html.push_str("</thead><tbody>");
        }
    }
    html.push_str("</tbody></table></div>\n");
}

fn figure(html: &mut String, title: &str, hint: &str, svg: &str) {
    let _ = write!(html, "<h2>{title}</h2>\n<p class=\"faint\">{hint}</p>\n<figure>{svg}</figure>\n");
}
