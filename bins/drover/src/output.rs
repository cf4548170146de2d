//! What users read: data on standard output, the rest on standard error.

use std::fmt::Display;
use std::io::Write as _;

/// Prints data, with a line end.
pub(crate) fn data(text: &impl Display) {
    // A closed pipe is the reader's choice.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints something about the data, with a line end.
pub(crate) fn note(text: &impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
