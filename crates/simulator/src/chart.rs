//! Pictures as SVG, without scripts.

use std::fmt::Write as _;

use crate::report::{Comparison, Result};
use crate::words::money;

/// Colours that people with any kind of colour vision tell apart (Okabe and Ito), each with a dash of its own.
const STROKES: [(&str, &str); 6] = [
    ("#0072b2", "none"),
    ("#d55e00", "7 3"),
    ("#009e73", "2 2"),
    ("#cc79a7", "9 3 2 3"),
    ("#e69f00", "4 4"),
    ("#56b4e9", "12 4"),
];

const WIDTH: f64 = 860.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const POINTS: usize = 420;

/// Style of the pictures, in the colours of the page, light or dark.
pub(crate) const STYLE: &str = "\
svg{--ink:#1b1f24;--faint:#6a737d;--line:#d8dee4;--ground:#fff;--run:#0072b2;--wait:#d55e00;\
font:13px system-ui,sans-serif}\
@media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--faint:#9aa4ae;--line:#30363d;--ground:#0d1117;--run:#4aa8de;--wait:#f0883e}}\
svg text{fill:var(--ink)}svg .t{fill:var(--faint);font-size:12px}svg .g{stroke:var(--line);fill:none}\
svg .h{font-weight:600}svg .run{fill:var(--run);fill-opacity:.35}svg .wait{fill:var(--wait);fill-opacity:.75}\
svg .inst{fill:none;stroke:var(--ink);stroke-width:1.3}svg .curve{fill:none;stroke-width:2.2}\
svg .bound{stroke:var(--ink);stroke-width:2;stroke-dasharray:3 2}svg .ground{fill:var(--ground)}";

/// The jobs and instances of each setup over time, alone.
pub(crate) fn picture(comparison: &Comparison) -> String {
    let heights = 190.0;
    let total = heights * len(comparison.results.len());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" role=\"img\">\
         <title>Jobs and instances over time</title><style>{STYLE}</style>\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{total}\"/>"
    );
    let most = top(comparison);
    for (index, result) in comparison.results.iter().enumerate() {
        let _ = write!(svg, "<g transform=\"translate(0 {})\">", heights * len(index));
        over_time(&mut svg, comparison, result, most);
        svg.push_str("</g>");
    }
    svg.push_str("</svg>\n");
    svg
}

/// One setup's jobs and instances over time, for a page.
pub(crate) fn time_chart(comparison: &Comparison, result: &Result) -> String {
    let name = escape(&result.figures.name);
    let mut svg = open(&format!("Jobs and instances over time: {name}"), 190.0);
    over_time(&mut svg, comparison, result, top(comparison));
    svg.push_str("</svg>");
    svg
}

/// Which share of the jobs had started after which wait.
pub(crate) fn wait_chart(comparison: &Comparison) -> String {
    let height = 300.0;
    let mut svg = open("Share of the jobs that had started after a wait", height);
    let (top, bottom) = (14.0, height - 46.0);
    let longest = comparison.results.iter().map(|result| result.outcome.percentile(1.0).as_secs_f64());
    let most = longest.fold(60.0, f64::max).log10();
    let x = |seconds: f64| LEFT + (WIDTH - LEFT - RIGHT) * (seconds.max(1.0).log10() / most).clamp(0.0, 1.0);
    let y = |share: f64| bottom - (bottom - top) * share;
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        gridline(&mut svg, y(share), &format!("{} %", share * 100.0));
    }
    for (seconds, label) in [
        (1.0, "1s"),
        (3.0, "3s"),
        (10.0, "10s"),
        (30.0, "30s"),
        (60.0, "1m"),
        (180.0, "3m"),
        (600.0, "10m"),
        (1_800.0, "30m"),
        (3_600.0, "1h"),
        (10_800.0, "3h"),
        (36_000.0, "10h"),
    ] {
        if seconds <= 10_f64.powf(most) {
            label_below(&mut svg, x(seconds), bottom, label);
        }
    }
    let _ = write!(
        svg,
        "<text class=\"t\" x=\"{LEFT}\" y=\"{}\">waited at most (logarithmic)</text>",
        height - 8.0
    );
    for (index, result) in comparison.results.iter().enumerate() {
        let waits = &result.outcome.waits;
        let all = waits.len() + usize::try_from(result.outcome.stuck).unwrap_or(0);
        let mut path = String::new();
        let steps = POINTS.min(waits.len());
        for step in 0..=steps {
            let rank = waits.len() * step / steps.max(1);
            let wait = waits.get(rank.saturating_sub(1)).copied().unwrap_or(0);
            let point = (x(seconds_of(wait)), y(len(rank) / len(all.max(1))));
            push_point(&mut path, step == 0, point);
        }
        let (color, dash) = stroke(index);
        let name = escape(&result.figures.name);
        let _ = write!(
            svg,
            "<path class=\"curve\" d=\"{path}\" stroke=\"{color}\" stroke-dasharray=\"{dash}\"><title>{name}</title></path>"
        );
        let at = bottom - 14.0 - 18.0 * len(comparison.results.len() - 1 - index);
        let _ = write!(
            svg,
            "<path class=\"curve\" d=\"M{} {at}h34\" stroke=\"{color}\" stroke-dasharray=\"{dash}\"/>\
             <text text-anchor=\"end\" x=\"{}\" y=\"{}\">{name}</text>",
            WIDTH - RIGHT - 40.0,
            WIDTH - RIGHT - 48.0,
            at + 4.0
        );
    }
    svg.push_str("</svg>");
    svg
}

/// What each setup costs, beside what no policy can beat.
pub(crate) fn cost_chart(comparison: &Comparison) -> String {
    let row = 44.0;
    let height = row * len(comparison.results.len()) + 30.0;
    let mut svg = open("Cost, and the cost that no policy can beat if no job waits", height);
    let figures = comparison.results.iter().map(|result| &result.figures);
    let most = figures
        .clone()
        .map(|figures| figures.cost_micros.max(figures.bounds.at_once_micros))
        .max()
        .unwrap_or(1)
        .max(1);
    let width = WIDTH - LEFT - RIGHT - 90.0;
    let x = |micros: u64| LEFT + width * micros_of(micros) / micros_of(most);
    for (index, figures) in figures.enumerate() {
        let top = row * len(index);
        let (color, _) = stroke(index);
        let bound = x(figures.bounds.at_once_micros);
        let _ = write!(
            svg,
            "<text x=\"{LEFT}\" y=\"{}\">{}</text><rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"16\" rx=\"3\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text><path class=\"bound\" d=\"M{bound:.1} {}v24\"/>",
            top + 14.0,
            escape(&figures.name),
            top + 20.0,
            x(figures.cost_micros) - LEFT,
            x(figures.cost_micros.max(figures.bounds.at_once_micros)) + 8.0,
            top + 33.0,
            money(figures.cost_micros),
            top + 16.0
        );
    }
    let _ = write!(
        svg,
        "<path class=\"bound\" d=\"M{LEFT} {}v14\"/><text class=\"t\" x=\"{}\" y=\"{}\">least cost of any policy under which no job waits</text>",
        height - 20.0,
        LEFT + 8.0,
        height - 8.0
    );
    svg.push_str("</svg>");
    svg
}

fn over_time(svg: &mut String, comparison: &Comparison, result: &Result, most: f64) {
    let outcome = &result.outcome;
    let (top, bottom) = (34.0, 160.0);
    let slots = f64::from(outcome.slots);
    let (running, waiting, instances) =
        (outcome.running.sampled(POINTS), outcome.waiting.sampled(POINTS), outcome.instances.sampled(POINTS));
    let points = running.len().max(1);
    let x = |index: usize| LEFT + (WIDTH - LEFT - RIGHT) * len(index) / len(points);
    let y = |value: f64| bottom - (bottom - top) * (value / most).min(1.0);
    let at = |series: &[(f64, u32)], index: usize| series.get(index).map_or(0.0, |(mean, _)| *mean);

    let _ = write!(svg, "<text class=\"h\" x=\"{LEFT}\" y=\"16\">{}</text>", escape(&result.figures.name));
    let mut legend = WIDTH - RIGHT - 330.0;
    for (class, label, wide) in
        [("run", "running jobs", 110.0), ("wait", "waiting jobs", 110.0), ("inst", "slots of instances", 0.0)]
    {
        let mark = match class {
            "inst" => format!("<path class=\"inst\" d=\"M{legend} 12h14\"/>"),
            _ => format!("<rect class=\"{class}\" x=\"{legend}\" y=\"6\" width=\"14\" height=\"11\"/>"),
        };
        let _ = write!(svg, "{mark}<text class=\"t\" x=\"{}\" y=\"16\">{label}</text>", legend + 19.0);
        legend += wide;
    }
    for value in ticks(most) {
        gridline(svg, y(value), &format!("{value}"));
    }
    let mut area = |class: &str, low: &dyn Fn(usize) -> f64, high: &dyn Fn(usize) -> f64| {
        let mut path = String::new();
        for index in 0..points {
            push_point(&mut path, index == 0, (x(index), y(high(index))));
            push_point(&mut path, false, (x(index + 1), y(high(index))));
        }
        for index in (0..points).rev() {
            push_point(&mut path, false, (x(index + 1), y(low(index))));
            push_point(&mut path, false, (x(index), y(low(index))));
        }
        let _ = write!(svg, "<path class=\"{class}\" d=\"{path}Z\"/>");
    };
    area("run", &|_| 0.0, &|index| at(&running, index));
    area("wait", &|index| at(&running, index), &|index| at(&running, index) + at(&waiting, index));
    let mut line = String::new();
    for index in 0..points {
        let value = y(at(&instances, index) * slots);
        push_point(&mut line, index == 0, (x(index), value));
        push_point(&mut line, false, (x(index + 1), value));
    }
    let _ = write!(svg, "<path class=\"inst\" d=\"{line}\"/>");
    time_axis(svg, comparison, outcome.running.minutes(), bottom);
}

/// Days, or hours where there are few days.
fn time_axis(svg: &mut String, comparison: &Comparison, minutes: usize, bottom: f64) {
    let start = comparison.start;
    let hours = minutes.div_ceil(60).max(1);
    let step = [1, 2, 3, 6, 12, 24, 48, 168, 720, 2_160]
        .into_iter()
        .find(|step| hours / step <= 12)
        .unwrap_or(8_760);
    let first = start.timestamp().div_euclid(3_600 * step_seconds(step)) + 1;
    for index in 0..=(hours / step) {
        let seconds = (first + i64::try_from(index).unwrap_or(0)) * 3_600 * step_seconds(step);
        let Some(at) = chrono::DateTime::from_timestamp(seconds, 0) else { return };
        let passed = f64::from(u32::try_from((at - start).num_minutes()).unwrap_or(0));
        if passed > len(minutes) {
            return;
        }
        let label = at.format(if step >= 24 { "%a %d %b" } else { "%H:%M" }).to_string();
        let x = LEFT + (WIDTH - LEFT - RIGHT) * passed / len(minutes.max(1));
        if x < WIDTH - RIGHT - 20.0 {
            label_below(svg, x, bottom, &label);
        }
    }
}

fn step_seconds(step: usize) -> i64 {
    i64::try_from(step).unwrap_or(1)
}

/// The largest value of all time charts, so that they can be compared. Rare crowds may be cut off.
fn top(comparison: &Comparison) -> f64 {
    let highest = |result: &Result| {
        let outcome = &result.outcome;
        let (running, waiting) = (outcome.running.sampled(POINTS), outcome.waiting.sampled(POINTS));
        let jobs = running
            .iter()
            .zip(&waiting)
            .map(|((running, _), (waiting, _))| running + waiting)
            .fold(1.0, f64::max);
        let slots = outcome
            .instances
            .sampled(POINTS)
            .iter()
            .map(|(mean, _)| mean * f64::from(outcome.slots))
            .fold(1.0, f64::max);
        jobs.min(3.0 * slots).max(slots)
    };
    comparison.results.iter().map(highest).fold(1.0, f64::max) * 1.05
}

fn ticks(most: f64) -> Vec<f64> {
    let rough = most / 4.0;
    let unit = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * unit).find(|step| *step >= rough);
    let step = step.unwrap_or(unit).max(1.0);
    (0..6).map(|index| step * f64::from(index)).filter(|value| *value <= most).collect()
}

fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
    )
}

fn gridline(svg: &mut String, y: f64, label: &str) {
    let _ = write!(
        svg,
        "<path class=\"g\" d=\"M{LEFT} {y:.1}H{}\"/><text class=\"t\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{label}</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        y + 4.0
    );
}

fn label_below(svg: &mut String, x: f64, bottom: f64, label: &str) {
    let _ = write!(
        svg,
        "<path class=\"g\" d=\"M{x:.1} {bottom}v4\"/><text class=\"t\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{label}</text>",
        bottom + 18.0
    );
}

fn push_point(path: &mut String, first: bool, (x, y): (f64, f64)) {
    let _ = write!(path, "{}{x:.1} {y:.1}", if first { "M" } else { "L" });
}

pub(crate) fn stroke(index: usize) -> (&'static str, &'static str) {
    STROKES.get(index % STROKES.len()).copied().unwrap_or(("currentColor", "none"))
}

/// Text within markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(clippy::cast_precision_loss, reason = "positions in a picture")]
fn len(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "positions in a picture")]
fn micros_of(micros: u64) -> f64 {
    micros as f64
}

fn seconds_of(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}
