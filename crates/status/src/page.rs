//! The document as one page for a browser. It holds no script and loads nothing; it is fetched anew every few seconds.

use crate::document::Document;
use crate::text::text;

/// Seconds after which a browser fetches the page again.
const REFRESH: u32 = 5;

const STYLE: &str = "body{margin:2em;font:14px/1.45 ui-monospace,monospace;color-scheme:light dark}\
pre{margin:0;overflow-x:auto}h1{font-size:1.1em}p{opacity:.7}";

/// The page.
#[must_use]
pub fn page(document: &Document) -> String {
    let manager = &document.manager;
    let title = escaped(&format!("{} {}", manager.name, manager.system_id));
    let body = escaped(&text(document));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<pre>{body}</pre>\n\
         <p>Every {REFRESH} seconds anew. For programs: <a href=\"/status\">/status</a></p>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_named_cannot_become_markup() {
        assert_eq!(
            escaped("<script>alert('\"&')</script>"),
            "&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;"
        );
    }
}
