//! Variables: their final order, look-up and expansion.

mod expand;
mod predefined;

use std::borrow::Cow;
use std::fmt;

pub(crate) use predefined::assemble;

/// Stands in a value for the folder that the shell starts in, where that is known to the shell alone. No value of a job can
/// hold this character: no process environment can.
pub(crate) const START_DIR: char = '\0';

/// One variable of a job, with its final value. `Debug` shows the value of public, unmasked variables only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variable {
    /// Name.
    pub key: String,
    /// Value; the content if `file` is set.
    pub value: String,
    /// May be passed to service containers.
    pub public: bool,
    /// Added by the runner; may be passed to service containers.
    pub internal: bool,
    /// The shell sees the path of a file that holds the value.
    pub file: bool,
    /// Never shown in the log.
    pub masked: bool,
    /// References in the value are left alone.
    pub raw: bool,
}

/// The variables of a job in final order, expanded. On look-up the later one wins.
#[derive(Clone)]
pub struct Variables {
    list: Box<[Variable]>,
    /// Where in the list the variables are that win, in the order of their names.
    winners: Box<[usize]>,
    temp_dir: String,
}

// === impl Variable ===

impl Variable {
    /// A variable that the runner adds.
    #[must_use]
    pub fn internal(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            public: true,
            internal: true,
            raw: true,
            ..Self::default()
        }
    }

    /// A resolved secret: masked, not expanded.
    #[must_use]
    pub fn secret(key: impl Into<String>, value: impl Into<String>, file: bool) -> Self {
        Self { key: key.into(), value: value.into(), file, masked: true, raw: true, ..Self::default() }
    }

    /// An `environment` entry `KEY=value`; an entry without `=` has an empty value.
    pub(crate) fn from_entry(entry: &str) -> Self {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        Self { key: key.trim().to_owned(), value: without_start(value), internal: true, ..Self::default() }
    }

    /// Whether a POSIX shell can export the variable: the name is a name, and not one that bash refuses to set.
    pub(crate) fn is_exportable(&self) -> bool {
        let mut bytes = self.key.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !matches!(
                self.key.as_str(),
                "BASHOPTS" | "BASH_VERSINFO" | "EUID" | "PPID" | "SHELLOPTS" | "UID"
            )
    }
}

impl From<&job_payload::Variable> for Variable {
    fn from(variable: &job_payload::Variable) -> Self {
        Self {
            key: variable.key.clone(),
            value: without_start(&variable.value),
            public: variable.public,
            internal: false,
            file: variable.file,
            masked: variable.masked,
            raw: variable.raw,
        }
    }
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.public && !self.masked { self.value.as_str() } else { "[hidden]" };
        f.debug_struct("Variable").field("key", &self.key).field("value", &shown).finish_non_exhaustive()
    }
}

// === impl Variables ===

impl Variables {
    /// Expands `list`, which is in final order. References to file variables become paths in `temp_dir`.
    pub(crate) fn new(list: Vec<Variable>, temp_dir: String) -> Self {
        let winners = winners(&list);
        let unexpanded = Self { list: list.into(), winners, temp_dir };
        let values: Vec<Option<String>> = unexpanded
            .list
            .iter()
            .map(|variable| {
                if variable.raw {
                    return None;
                }
                match unexpanded.expand_inside(&variable.value) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(value) => Some(value),
                }
            })
            .collect();
        let mut expanded = unexpanded;
        for (variable, value) in expanded.list.iter_mut().zip(values) {
            if let Some(value) = value {
                variable.value = value;
            }
        }
        expanded
    }

    /// The value that scripts see, or the content of a file variable.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        self.find(key).map(|variable| relative(&variable.value))
    }

    /// The variable that wins under this name.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Variable> {
        let by_key = |index: &usize| self.list[*index].key.as_str().cmp(key);
        self.winners.binary_search_by(by_key).ok().map(|at| &self.list[self.winners[at]])
    }

    /// Changes the runner's own variable of this name, whether a later one overrides it or not.
    pub(crate) fn set_internal(&mut self, key: &str, value: &str) {
        for variable in self.list.iter_mut().filter(|variable| variable.internal && variable.key == key) {
            variable.value = value.to_owned();
        }
    }

    /// The value as a truth: `true` and `1`, in any case.
    #[must_use]
    pub fn is_true(&self, key: &str) -> bool {
        self.find(key).is_some_and(|variable| parse_bool(&variable.value))
    }

    /// Replaces references in `text`; unknown ones become empty. Folders below the shell's first folder stay relative.
    #[must_use]
    pub fn expand<'a>(&'a self, text: &'a str) -> Cow<'a, str> {
        match self.expand_inside(text) {
            Cow::Borrowed(same) => Cow::Borrowed(same),
            Cow::Owned(text) => Cow::Owned(relative(&text).into_owned()),
        }
    }

    /// The winning variable of each name, in final order.
    pub fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.list
            .iter()
            .filter(|variable| self.find(&variable.key).is_some_and(|winner| std::ptr::eq(winner, *variable)))
    }

    /// All variables, those that a later one overrides included.
    pub(crate) fn iter_all(&self) -> impl Iterator<Item = &Variable> {
        self.list.iter()
    }

    /// Those that service containers may see: public ones and the runner's own.
    pub fn for_services(&self) -> impl Iterator<Item = &Variable> {
        self.iter().filter(|variable| variable.public || variable.internal)
    }

    /// Replaces references, keeping the mark of the shell's first folder.
    pub(crate) fn expand_inside<'a>(&'a self, text: &'a str) -> Cow<'a, str> {
        expand::expand(text, |name| match self.find(name) {
            Some(variable) if variable.file => Cow::Owned(self.file_path(name)),
            Some(variable) => Cow::Borrowed(variable.value.as_str()),
            None => Cow::Borrowed(""),
        })
    }

    /// Where the content of a file variable is.
    pub(crate) fn file_path(&self, key: &str) -> String {
        format!("{}/{key}", self.temp_dir)
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

/// The last variable of each name.
fn winners(list: &[Variable]) -> Box<[usize]> {
    let mut winners: Vec<usize> = (0..list.len()).collect();
    // Of equal names the later one comes first, and is the one that stays.
    winners.sort_unstable_by(|one, other| list[*one].key.cmp(&list[*other].key).then(other.cmp(one)));
    winners.dedup_by(|next, kept| list[*next].key == list[*kept].key);
    winners.into()
}

/// GitLab Runner's truth of variables: `true` or `false` in any case, else the integer 1.
pub(crate) fn parse_bool(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.parse::<i64>() == Ok(1)
}

/// The strict form that the runner's own settings use: what Go's `strconv.ParseBool` takes.
pub(crate) fn parse_strict_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A value with the mark of the shell's first folder turned into a relative path.
pub(crate) fn relative(value: &str) -> Cow<'_, str> {
    if !value.contains(START_DIR) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.replace("\0/", "").replace(START_DIR, "."))
}

/// Text from outside, which must not pretend to hold the mark.
fn without_start(value: &str) -> String {
    if value.contains(START_DIR) { value.replace(START_DIR, "") } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_names_the_last_one_wins_where_it_stands() {
        let entries = ["B=1", "A=1", "B=2", "C=$B$A$UNKNOWN", "A=2", "B=3"];
        let list: Vec<Variable> = entries.iter().map(|entry| Variable::from_entry(entry)).collect();
        let variables = Variables::new(list, "/tmp".to_owned());
        let found: Vec<_> = ["A", "B", "C", "D", ""].iter().map(|key| variables.get(key)).collect();
        assert_eq!(found, [Some("2".into()), Some("3".into()), Some("32".into()), None, None]);
        let shown: Vec<_> = variables.iter().map(|variable| (&*variable.key, &*variable.value)).collect();
        assert_eq!(shown, [("C", "32"), ("A", "2"), ("B", "3")]);
        assert_eq!(variables.iter_all().count(), 6);
    }
}
