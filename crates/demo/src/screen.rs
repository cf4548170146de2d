//! Where the demonstration is seen: a live picture on a terminal, or one line per event.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use terminal_size::{Height, Width};

use crate::model::{Model, News};
use crate::picture::{self, Picture};

/// Switches to the second screen of the terminal, hides the cursor.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[2J";
/// Undoes that.
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// Where nothing says how large the terminal is.
const SIZE: (u16, u16) = (100, 30);

/// Shows what happens.
pub(crate) enum Screen {
    Live(Live),
    Lines(Box<dyn Write + Send>),
}

/// A picture that is redrawn in place. The terminal is restored when this is dropped.
pub(crate) struct Live {
    out: Box<dyn Write + Send>,
    colours: bool,
    drawn: String,
    size: (u16, u16),
}

// === impl Screen ===

impl Screen {
    /// The live picture where that is possible and wanted, else lines. `data` is true when standard output is for data.
    pub(crate) fn standard(plain: bool, data: bool) -> io::Result<Self> {
        if data {
            return Ok(Self::Lines(Box::new(io::stderr())));
        }
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if plain || dumb || !io::stdout().is_terminal() {
            return Ok(Self::Lines(Box::new(io::stdout())));
        }
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self::Live(Live::enter(Box::new(io::stdout()), colours)?))
    }

    /// Prints news as lines; the live picture shows them in its own way.
    pub(crate) fn tell(&mut self, at: Duration, news: &[News]) -> io::Result<()> {
        let Self::Lines(out) = self else { return Ok(()) };
        for item in news {
            writeln!(out, "{:7.2}  {item}", at.as_secs_f64())?;
        }
        if !news.is_empty() {
            out.flush()?;
        }
        Ok(())
    }

    /// Draws the picture if it looks different from the last one.
    pub(crate) fn draw(&mut self, model: &Model, now: Duration) -> io::Result<()> {
        match self {
            Self::Live(live) => live.draw(model, now),
            Self::Lines(_) => Ok(()),
        }
    }

    /// Restores the terminal and prints a text below.
    pub(crate) fn close(self, text: &str) -> io::Result<()> {
        match self {
            Self::Live(live) => {
                drop(live);
                let mut out = io::stdout();
                writeln!(out, "{text}")?;
                out.flush()
            }
            Self::Lines(mut out) => {
                writeln!(out, "{text}")?;
                out.flush()
            }
        }
    }
}

// === impl Live ===

impl Live {
    fn enter(mut out: Box<dyn Write + Send>, colours: bool) -> io::Result<Self> {
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(Self { out, colours, drawn: String::new(), size: (0, 0) })
    }

    fn draw(&mut self, model: &Model, now: Duration) -> io::Result<()> {
        let size = size();
        let picture = picture::render(model, now, usize::from(size.0), usize::from(size.1));
        let text = in_place(&picture, self.colours);
        if text == self.drawn && size == self.size {
            return Ok(());
        }
        if size != self.size {
            self.out.write_all(b"\x1b[2J")?;
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        self.drawn = text;
        self.size = size;
        Ok(())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Nobody is left to be told that the terminal is gone.
        let _ = self.out.write_all(LEAVE.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// The picture from the upper left corner on, every line cleared behind its text, and everything below.
fn in_place(picture: &Picture, colours: bool) -> String {
    let mut text = String::from("\u{1b}[H");
    let lines = if colours { picture.ansi() } else { picture.text() };
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            text.push_str("\r\n");
        }
        text.push_str(line);
        text.push_str("\u{1b}[K");
    }
    text.push_str("\u{1b}[J");
    text
}

fn size() -> (u16, u16) {
    let known = terminal_size::terminal_size().map(|(Width(width), Height(height))| (width, height));
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (width, height) =
        known.unwrap_or_else(|| (variable("COLUMNS").unwrap_or(SIZE.0), variable("LINES").unwrap_or(SIZE.1)));
    // A terminal without a size says nought.
    (if width == 0 { SIZE.0 } else { width }, if height == 0 { SIZE.1 } else { height })
}
