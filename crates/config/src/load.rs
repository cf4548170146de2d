//! Reading a file: syntax, types, rules, in that order.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::capability::{Capabilities, Verdict};
use crate::check;
use crate::diagnostic::{Diagnostic, Report, Severity};
use crate::model::Config;
use crate::read::{KeyPath, Places, Reader, Section, place};
use crate::source::Source;

/// A file that can be used, with what is to be said about it.
#[derive(Clone)]
pub struct Loaded {
    /// The typed file.
    pub config: Config,
    /// Warnings, and errors that concern one runner entry each; in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The text, for the places of later findings. Holds secrets.
    text: String,
    places: Places,
}

/// A file that cannot be used.
#[derive(Debug, Clone)]
pub struct Invalid {
    /// Name of the file in messages.
    pub file: String,
    /// All that is to be said, at least one error among it; in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Why no configuration could be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Reads the text of a file. `file` is its name in messages; `environment` answers for `$VAR` in `url` and `token`.
///
/// # Errors
/// [`Invalid`] on bad syntax, on any value of the wrong type, and on global settings that cannot work, such as
/// `concurrent = 0`. An entry of `[[runners]]` that cannot work is no reason to refuse the others: it is reported in
/// [`Loaded::diagnostics`] and left out by [`Loaded::verdicts`].
pub fn parse(
    text: &str,
    file: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Invalid> {
    // Editors on Windows put a mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(text);
    let table = DeTable::parse(text)
        .map_err(|error| Invalid { file: file.to_owned(), diagnostics: vec![syntax(&source, &error)] })?;

    let mut reader = Reader::new(&source, Config::TABLE, environment);
    let config: Config = reader.section(table.get_ref(), &KeyPath::default());
    let (mut diagnostics, places) = reader.finish();
    let unreadable = diagnostics.iter().any(Diagnostic::is_error);
    // What a rule says about a value that could not be read would only repeat that.
    let broken: Vec<String> =
        diagnostics.iter().filter(|found| found.is_error()).map(|found| found.key.clone()).collect();
    let found = check::check(&config).into_iter().filter(|found| !broken.contains(&found.key)).collect();
    diagnostics.extend(located(found, &source, &places));
    sort(&mut diagnostics);

    if unreadable || diagnostics.iter().any(|found| found.is_error() && found.runner.is_none()) {
        return Err(Invalid { file: file.to_owned(), diagnostics });
    }
    Ok(Loaded { config, diagnostics, text: text.to_owned(), places })
}

/// Reads a file with the environment of the process.
///
/// # Errors
/// [`LoadError`] if it cannot be read, or as [`parse`].
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let file = path.display().to_string();
    let mut loaded = parse(&text, &file, &|name| std::env::var(name).ok())?;
    if loaded.config.runners.iter().any(|runner| runner.token().is_some()) {
        loaded.diagnostics.extend(check::check_own(path));
    }
    Ok(loaded)
}

// === impl Loaded ===

impl Loaded {
    /// For each runner entry whether it can take jobs: refused by an error of its own, or by what this build cannot run.
    #[must_use]
    pub fn verdicts(&self, capabilities: &Capabilities) -> Vec<Verdict> {
        self.config
            .runners
            .iter()
            .enumerate()
            .map(|(index, runner)| {
                let own =
                    self.diagnostics.iter().find(|found| found.is_error() && found.runner == Some(index));
                match own {
                    Some(error) => Verdict::Refused(error.to_string()),
                    None => capabilities.verdict(runner),
                }
            })
            .collect()
    }

    /// Looks at every file that the configuration names, relative paths being taken from `base`, and adds to the
    /// diagnostics what is missing or readable by others. Reads the file system.
    pub fn check_files(&mut self, base: &Path) {
        let source = Source::new(&self.text);
        let found = located(check::check_files(&self.config, base), &source, &self.places);
        self.diagnostics.extend(found);
        sort(&mut self.diagnostics);
    }

    /// Adds an error of a runner entry that whoever runs it has found, at this key below the entry. Says nothing where the same key
    /// has an error already.
    pub fn refuse(
        &mut self,
        runner: usize,
        keys: &[&str],
        rule: &'static str,
        message: impl Into<String>,
        hint: &str,
    ) {
        let entry = KeyPath::default().key("runners").index(runner);
        let at = keys.iter().fold(entry, |at, key| at.key(key));
        let within = |key: &str| {
            key.strip_prefix(at.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.diagnostics.iter().any(|found| found.is_error() && within(&found.key)) {
            return;
        }
        let source = Source::new(&self.text);
        let found = vec![Diagnostic::new(Severity::Error, rule, at.as_str(), message).hint(hint)];
        self.diagnostics.extend(located(found, &source, &self.places));
        sort(&mut self.diagnostics);
    }

    /// Whether anything is to be said at this severity or worse.
    #[must_use]
    pub fn has(&self, severity: Severity) -> bool {
        self.diagnostics.iter().any(|found| found.severity <= severity)
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("config", &self.config)
            .field("diagnostics", &self.diagnostics)
            .finish_non_exhaustive()
    }
}

// === impl Invalid ===

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.diagnostics.iter().filter(|found| found.is_error()).count();
        writeln!(f, "`{}` has {errors} error{}", self.file, if errors == 1 { "" } else { "s" })?;
        write!(f, "{}", Report { file: &self.file, diagnostics: &self.diagnostics })
    }
}

impl std::error::Error for Invalid {}

/// Brings diagnostics into the order of the file; those without a place come first.
fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|found| (found.line, found.column, found.severity));
}

/// Gives each finding the place of its key, or of the nearest table around it.
pub(crate) fn located(found: Vec<Diagnostic>, source: &Source<'_>, places: &Places) -> Vec<Diagnostic> {
    found
        .into_iter()
        .map(|diagnostic| {
            let at = KeyPath::from(diagnostic.key.as_str());
            let mut around = Some(at.clone());
            while let Some(path) = around {
                if let Some(found) = places.get(&path) {
                    let span = &found.value;
                    return place(source, span, &at, diagnostic);
                }
                around = path.parent();
            }
            Diagnostic { runner: diagnostic.runner.or_else(|| at.runner()), ..diagnostic }
        })
        .collect()
}

fn syntax(source: &Source<'_>, error: &toml::de::Error) -> Diagnostic {
    let mut span = error.span().unwrap_or(0..0);
    let line = source.line(source.position(span.start).line);
    let mut diagnostic =
        Diagnostic::new(Severity::Error, "syntax", "", format!("not valid TOML: {}", error.message()));
    let value = line.split_once('=').map(|(_, value)| value.trim());
    if let Some(value) = value.filter(|value| value.starts_with('$')) {
        if let Some(found) = line.find(value) {
            let start = source.start(source.position(span.start).line) + found;
            span = start..start + value.len();
        }
        diagnostic.message = "not valid TOML: the value looks like an unexpanded template".to_owned();
        let hint = if value.starts_with("$$") {
            "render the template before the file is used, or put the value in quotes; `$${...}` is how a template \
             writes `${...}`, which is read from the environment inside of quotes"
        } else {
            "render the template before the file is used, or put the value in quotes: inside of quotes `url` and \
             `token` are read from the environment"
        };
        diagnostic.hint = Some(hint.to_owned());
    } else if error.message().contains("duplicate key") {
        diagnostic.hint = Some("keep one of the two".to_owned());
    } else if value.is_some_and(|value| value.starts_with(|c: char| c.is_ascii_alphabetic())) {
        diagnostic.hint = Some("text must be in quotes".to_owned());
    }
    place(source, &span, &KeyPath::default(), diagnostic)
}
