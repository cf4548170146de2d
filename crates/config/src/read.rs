//! From parsed TOML to typed values, keeping the place of every key and collecting what is wrong instead of stopping.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Severity};
use crate::diff::Change;
use crate::schema::{Kind, Reload, Table};
use crate::source::Source;

/// A parsed value with its place.
pub(crate) type Node<'a> = toml::Spanned<DeValue<'a>>;

/// The path of a key, such as `runners[0].docker.image`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct KeyPath(String);

/// Where a key and its value are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// Places by path.
pub(crate) type Places = BTreeMap<KeyPath, Place>;

/// The entries of one table, under the names of the schema.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    found: Vec<(&'static str, Range<usize>, &'a Node<'a>)>,
}

/// What reading needs and gathers.
pub(crate) struct Reader<'a> {
    source: &'a Source<'a>,
    root: &'static Table,
    environment: &'a dyn Fn(&str) -> Option<String>,
    diagnostics: Vec<Diagnostic>,
    places: Places,
}

/// A table with known keys. Implemented by [`section!`](crate::schema::section).
pub(crate) trait Section: Default {
    /// Its schema.
    const TABLE: &'static Table;

    /// Reads the entries; what cannot be read is reported and left at its default.
    fn read(entries: &Entries<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Self;

    /// Appends every key that differs.
    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>);
}

/// A value that is there.
pub(crate) trait Value: Sized {
    /// Its shape.
    const KIND: Kind;
    /// The schema below it, for tables.
    const TABLE: Option<&'static Table> = None;
    /// Text that says nothing, such as `""`, counts as absent, as it does for GitLab Runner.
    fn is_blank(value: &Node<'_>) -> bool {
        let _ = value;
        false
    }
    /// Reads it; reports and gives `None` when it cannot be read.
    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self>;
    /// Whether nothing changed.
    fn same(&self, other: &Self) -> bool;
    /// Appends what differs.
    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>) {
        if !self.same(new) {
            changes.push(Change::new(at, reload));
        }
    }
}

/// A member of a section: a value that may be absent.
pub(crate) trait Field: Sized {
    /// Shape of the value.
    const KIND: Kind;
    /// The schema below it, for tables and lists of tables.
    const TABLE: Option<&'static Table> = None;
    /// Reads the value; `None` leaves the default.
    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self>;
    /// Appends what differs.
    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>);
}

// === impl KeyPath ===

impl KeyPath {
    /// The path of `name` below this one.
    #[must_use]
    pub(crate) fn key(&self, name: &str) -> Self {
        let bare =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let name = if bare { name.to_owned() } else { format!("{name:?}") };
        if self.0.is_empty() { Self(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of an item of the list at this path.
    #[must_use]
    pub(crate) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The path that holds this one.
    pub(crate) fn parent(&self) -> Option<Self> {
        let cut = self.0.rfind(['.', '['])?;
        self.0.get(..cut).map(|parent| Self(parent.to_owned()))
    }

    /// The table at this path as its header is written, with a preposition: `in [[runners.autoscaler.policy]]`.
    fn within(&self) -> String {
        if self.0.is_empty() {
            return "at the top level".to_owned();
        }
        let mut name = String::with_capacity(self.0.len());
        let mut depth = 0_usize;
        for c in self.0.chars() {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ if depth == 0 => name.push(c),
                _ => {}
            }
        }
        if self.0.ends_with(']') { format!("in [[{name}]]") } else { format!("in [{name}]") }
    }

    /// The runner entry that the path is in.
    pub(crate) fn runner(&self) -> Option<usize> {
        self.0.strip_prefix("runners[")?.split_once(']')?.0.parse().ok()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for KeyPath {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

// === impl Reader ===

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("diagnostics", &self.diagnostics).finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        source: &'a Source<'a>,
        root: &'static Table,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self { source, root, environment, diagnostics: Vec::new(), places: Places::new() }
    }

    pub(crate) fn finish(self) -> (Vec<Diagnostic>, Places) {
        (self.diagnostics, self.places)
    }

    /// The variable's value in the environment that was passed in.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// Reads a whole table.
    pub(crate) fn section<T: Section>(&mut self, table: &DeTable<'_>, at: &KeyPath) -> T {
        let mut found: Vec<(&'static str, Range<usize>, &Node<'_>)> = Vec::new();
        for (name, value) in table {
            let span = name.span();
            let name: &str = name.get_ref();
            let key = match T::TABLE.key(name) {
                Some(key) => key,
                None => match T::TABLE.keys.iter().find(|key| key.name.eq_ignore_ascii_case(name)) {
                    Some(key) => {
                        self.odd_case(&span, at, name, key.name);
                        key
                    }
                    None => {
                        self.unknown(&span, at, name, T::TABLE);
                        continue;
                    }
                },
            };
            if found.iter().any(|(known, ..)| *known == key.name) {
                let diagnostic = Diagnostic::new(
                    Severity::Error,
                    "duplicate-key",
                    at.key(key.name).as_str(),
                    format!("`{}` is set twice {}, in different case", key.name, at.within()),
                );
                self.report(&span, at, diagnostic.hint("keep one of the two"));
                continue;
            }
            self.places.insert(at.key(key.name), Place { key: span.clone(), value: value.span() });
            found.push((key.name, span, value));
        }
        T::read(&Entries { found }, at, self)
    }

    /// The value of a key, if the table has it.
    pub(crate) fn take<'v>(
        &self,
        entries: &Entries<'v>,
        at: &KeyPath,
        name: &str,
    ) -> Option<(KeyPath, &'v Node<'v>)> {
        let (_, _, value) = entries.found.iter().find(|(key, ..)| *key == name)?;
        Some((at.key(name), value))
    }

    /// The text of a string value; anything else is reported against `kind`.
    pub(crate) fn text<'v>(&mut self, value: &'v Node<'_>, at: &KeyPath, kind: &Kind) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let is_scalar =
                matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_));
            let hint = (is_scalar && !kind.is_secret())
                .then(|| format!("put the value in quotes: {} = \"...\"", last(at)));
            self.wrong(value, at, kind, &format!("found {}", found(value)), hint.as_deref());
        }
        text
    }

    /// Reports a value that is not what it should be.
    pub(crate) fn wrong(
        &mut self,
        value: &Node<'_>,
        at: &KeyPath,
        kind: &Kind,
        why: &str,
        hint: Option<&str>,
    ) {
        let message = format!("`{}` must be {}, {why}", last(at), kind.expected());
        let mut diagnostic = Diagnostic::new(Severity::Error, "wrong-type", at.as_str(), message);
        diagnostic.hint = hint.map(ToOwned::to_owned);
        self.report(&value.span(), at, diagnostic);
    }

    /// Adds a diagnostic at a place.
    pub(crate) fn report(&mut self, span: &Range<usize>, at: &KeyPath, diagnostic: Diagnostic) {
        self.diagnostics.push(place(self.source, span, at, diagnostic));
    }

    pub(crate) fn remember(&mut self, at: &KeyPath, span: Range<usize>) {
        self.places.insert(at.clone(), Place { key: span.clone(), value: span });
    }

    fn odd_case(&mut self, span: &Range<usize>, at: &KeyPath, name: &str, known: &str) {
        let message = format!("key `{name}` {} is written `{known}` in the documentation", at.within());
        let diagnostic = Diagnostic::new(Severity::Warning, "key-case", at.key(known).as_str(), message)
            .hint("it is read as meant; rename it so that every tool finds it");
        self.report(span, at, diagnostic);
    }

    fn unknown(&mut self, span: &Range<usize>, at: &KeyPath, name: &str, table: &'static Table) {
        let mut message = format!("unknown key `{name}` {}", at.within());
        let mut hint = None;
        let mut elsewhere = Vec::new();
        self.root.walk(&mut |other| {
            if other.key(name).is_some() && !elsewhere.contains(&other.header) {
                elsewhere.push(other.header);
            }
        });
        if let [first, others @ ..] = elsewhere.as_slice() {
            let owners = others.iter().fold((*first).to_owned(), |list, other| format!("{list} or {other}"));
            hint = Some(format!("`{name}` belongs to {owners}; here it has no effect"));
        } else if let Some(nearest) = nearest(name, table) {
            message.push_str(&format!("; did you mean `{nearest}`?"));
        } else {
            hint =
                Some("it has no effect; remove it or look up its name in docs/configuration.md".to_owned());
        }
        let mut diagnostic =
            Diagnostic::new(Severity::Warning, "unknown-key", at.key(name).as_str(), message);
        diagnostic.hint = hint;
        self.report(span, at, diagnostic);
        // Nobody knows what an unknown key holds: `pasword = "..."` is one.
        if let Some(excerpt) = self.diagnostics.last_mut().and_then(|last| last.excerpt.as_mut()) {
            excerpt.hide_texts();
        }
    }
}

/// Fills in where a diagnostic belongs.
pub(crate) fn place(
    source: &Source<'_>,
    span: &Range<usize>,
    at: &KeyPath,
    mut diagnostic: Diagnostic,
) -> Diagnostic {
    let position = source.position(span.start);
    diagnostic.line = Some(position.line);
    diagnostic.column = Some(position.column);
    diagnostic.excerpt = Some(source.excerpt(span));
    diagnostic.runner = diagnostic.runner.or_else(|| at.runner());
    diagnostic
}

/// The known key that is most like `name`, if any is like it at all.
fn nearest(name: &str, table: &Table) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase().replace('-', "_");
    table
        .keys
        .iter()
        .map(|key| (strsim::jaro_winkler(&lower, &key.name.to_ascii_lowercase().replace('-', "_")), key.name))
        .filter(|(likeness, _)| *likeness >= 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The last part of a path, with its index.
pub(crate) fn last(at: &KeyPath) -> &str {
    at.0.rsplit('.').next().unwrap_or(&at.0)
}

/// What a value is, without showing it.
pub(crate) fn found(value: &Node<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

// === impl Value ===

impl<T: Section> Value for T {
    const KIND: Kind = Kind::Table;
    const TABLE: Option<&'static Table> = Some(<T as Section>::TABLE);

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            let hint = format!("write it as a section of its own: {}", <T as Section>::TABLE.header);
            reader.wrong(value, at, &Kind::Table, &format!("found {}", found(value)), Some(&hint));
            return None;
        };
        Some(reader.section(table, at))
    }

    fn same(&self, other: &Self) -> bool {
        let mut changes = Vec::new();
        Section::compare(self, other, &KeyPath::default(), Reload::Live, &mut changes);
        changes.is_empty()
    }

    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>) {
        Section::compare(self, new, at, reload, changes);
    }
}

// === impl Field ===

impl<T: Value> Field for Option<T> {
    const KIND: Kind = T::KIND;
    const TABLE: Option<&'static Table> = T::TABLE;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        if T::is_blank(value) {
            return None;
        }
        T::read(value, at, reader).map(Some)
    }

    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>) {
        match (self, new) {
            (Some(old), Some(new)) => old.compare(new, at, reload, changes),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => changes.push(Change::new(at, reload)),
        }
    }
}

impl Field for bool {
    const KIND: Kind = Kind::Boolean;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        <Self as Value>::read(value, at, reader)
    }

    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>) {
        Value::compare(self, new, at, reload, changes);
    }
}

impl<T: Value> Field for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);
    const TABLE: Option<&'static Table> = T::TABLE;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            let hint = match T::TABLE {
                Some(table) => format!("write each as {}, with double brackets", table.header),
                None => format!("write it as a list: {} = [...]", last(at)),
            };
            reader.wrong(value, at, &Self::KIND, &format!("found {}", found(value)), Some(&hint));
            return None;
        };
        let mut list = Self::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let at = at.index(index);
            reader.remember(&at, item.span());
            // A broken item keeps its place, so that the indices of the others stay true.
            if let Some(item) = T::read(item, &at, reader) {
                list.push(item);
            }
        }
        Some(list)
    }

    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>) {
        if T::TABLE.is_none() || self.len() != new.len() {
            if self.len() != new.len() || self.iter().zip(new).any(|(old, new)| !old.same(new)) {
                changes.push(Change::new(at, reload));
            }
            return;
        }
        for (index, (old, new)) in self.iter().zip(new).enumerate() {
            old.compare(new, &at.index(index), reload, changes);
        }
    }
}

impl<T: Value> Field for BTreeMap<String, T> {
    const KIND: Kind = Kind::Map(&T::KIND);
    const TABLE: Option<&'static Table> = T::TABLE;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            let hint = format!("write it as a table: {} = {{ \"name\" = ... }}", last(at));
            reader.wrong(value, at, &Self::KIND, &format!("found {}", found(value)), Some(&hint));
            return None;
        };
        let mut map = Self::new();
        for (name, value) in table {
            let at = at.key(name.get_ref());
            reader.places.insert(at.clone(), Place { key: name.span(), value: value.span() });
            if let Some(value) = T::read(value, &at, reader) {
                map.insert(name.get_ref().to_string(), value);
            }
        }
        Some(map)
    }

    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>) {
        let same = self.len() == new.len()
            && self.iter().zip(new).all(|((a, old), (b, new))| a == b && old.same(new));
        if !same {
            changes.push(Change::new(at, reload));
        }
    }
}

/// A list as the value of a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListValue<T>(Vec<T>);

impl<T> std::ops::Deref for ListValue<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Value> Value for ListValue<T> {
    const KIND: Kind = Kind::List(&T::KIND);

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        <Vec<T> as Field>::read(value, at, reader).map(Self)
    }

    fn same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a.same(b))
    }
}
