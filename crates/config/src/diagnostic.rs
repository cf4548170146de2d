//! What is wrong with a file, where, and what to do about it.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file, or the runner entry that the diagnostic names, cannot be used.
    Error,
    /// Works, but hardly as meant.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name of the rule, such as `unknown-key`, for scripts.
    pub rule: &'static str,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The key, such as `runners[0].autoscaler.policy[1].idle_time`; empty for the file as a whole.
    pub key: String,
    /// The runner entry that it concerns, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner: Option<usize>,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line of the file, with secrets replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
}

/// A line of the file, safe to print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The line without its end.
    pub text: String,
    /// First marked character, from 0.
    pub start: usize,
    /// How many characters are marked, at least 1.
    pub length: usize,
}

/// Prints diagnostics for people: plain text, one block each, the file's name in front.
#[derive(Debug)]
pub struct Report<'a> {
    /// The name of the file, as the user knows it.
    pub file: &'a str,
    /// What to print.
    pub diagnostics: &'a [Diagnostic],
}

// === impl Severity ===

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

// === impl Diagnostic ===

impl Diagnostic {
    pub(crate) fn new(
        severity: Severity,
        rule: &'static str,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            rule,
            line: None,
            column: None,
            key: key.into(),
            runner: None,
            message: message.into(),
            hint: None,
            excerpt: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether this is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// One line: `line 12: unknown key ...`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

// === impl Excerpt ===

impl Excerpt {
    /// Replaces the value of the line if there is text in quotes in it.
    pub(crate) fn hide_texts(&mut self) {
        if let Some((name, value)) = self.text.split_once('=')
            && value.contains(['"', '\''])
        {
            self.text = format!("{name}= [hidden]");
        }
    }
}

// === impl Report ===

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let file = self.file;
            match (diagnostic.line, diagnostic.column) {
                (Some(line), Some(column)) => write!(f, "{file}:{line}:{column}: ")?,
                (Some(line), None) => write!(f, "{file}:{line}: ")?,
                (None, _) => write!(f, "{file}: ")?,
            }
            writeln!(f, "{}: {}", diagnostic.severity, diagnostic.message)?;
            if let (Some(line), Some(excerpt)) = (diagnostic.line, &diagnostic.excerpt) {
                let gutter = line.to_string();
                writeln!(f, "  {gutter} | {}", excerpt.text)?;
                let pad = " ".repeat(gutter.len());
                writeln!(f, "  {pad} | {}{}", " ".repeat(excerpt.start), "^".repeat(excerpt.length))?;
            }
            if !diagnostic.key.is_empty() {
                writeln!(f, "  key: {}", diagnostic.key)?;
            }
            if let Some(hint) = &diagnostic.hint {
                writeln!(f, "  hint: {hint}")?;
            }
        }
        Ok(())
    }
}
