//! The picture as a drawing for a page.

use std::fmt::Write as _;

use crate::picture::{Ink, Picture};

/// Size of one character, in pixels.
const CHARACTER: (f64, f64) = (8.0, 18.0);
const MARGIN: f64 = 14.0;

/// Draws a picture of so many columns on a dark ground.
#[expect(clippy::cast_precision_loss, reason = "a picture has some hundred columns")]
pub(crate) fn render(picture: &Picture, columns: usize) -> String {
    let width = columns as f64 * CHARACTER.0 + 2.0 * MARGIN;
    let height = picture.lines.len() as f64 * CHARACTER.1 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#14181f\"/>\n"
    );
    for (row, line) in picture.lines.iter().enumerate() {
        let y = MARGIN + (row as f64 + 0.75) * CHARACTER.1;
        let mut column = 0;
        for span in line {
            let count = span.text.chars().count();
            if !span.text.trim().is_empty() {
                let x = MARGIN + column as f64 * CHARACTER.0;
                let length = count as f64 * CHARACTER.0;
                // The length keeps columns straight whatever the font.
                let _ = writeln!(
                    svg,
                    "<text x=\"{x}\" y=\"{y}\" textLength=\"{length}\" xml:space=\"preserve\" fill=\"{}\"{}>{}</text>",
                    colour(span.ink),
                    if span.ink == Ink::Title { " font-weight=\"bold\"" } else { "" },
                    escaped(&span.text),
                );
            }
            column += count;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn colour(ink: Ink) -> &'static str {
    match ink {
        Ink::Plain => "#d6dbe3",
        Ink::Title => "#ffffff",
        Ink::Faint => "#737d8c",
        Ink::Good => "#7bc77e",
        Ink::Busy => "#63b7d6",
        Ink::Coming => "#e0b35c",
        Ink::Bad => "#e57373",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Span;

    #[test]
    fn text_stands_in_its_column_and_is_escaped() {
        let span = |text: &str, ink| Span { text: text.to_owned(), ink };
        let line = vec![span("a <b>", Ink::Title), span("   ", Ink::Plain), span("c & d", Ink::Bad)];
        let picture = Picture { lines: vec![Vec::new(), line] };
        insta::assert_snapshot!(render(&picture, 20));
    }
}
