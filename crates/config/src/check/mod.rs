//! Rules that a file of the right types can still break.

use crate::diagnostic::Diagnostic;
use crate::model::Config;

/// Applies every rule that needs nothing but the file.
pub(crate) fn check(config: &Config) -> Vec<Diagnostic> {
    let _ = config;
    Vec::new()
}
