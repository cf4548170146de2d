//! Values with a form of their own.

use std::fmt;
use std::ops::Deref;

use secrecy::{ExposeSecret, SecretString};

use crate::diagnostic::{Diagnostic, Severity};
use crate::diff::Change;
use crate::model::PullPolicy;
use crate::read::{Field, KeyPath, Node, Reader, Value, found};
use crate::scalars::owned;
use crate::schema::{Kind, Reload};

/// Texts of the form `NAME=VALUE`. Printing shows the names only, because values are often secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Assignments(Vec<String>);

/// A table whose keys the file's schema does not know, such as `plugin_config`. Printing shows its keys only.
#[derive(Clone, Default, PartialEq)]
pub struct RawTable(toml::Table);

/// A number of bytes, written such as `512m` (units are powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct ByteSize(pub u64);

/// Processors in units of 10⁻⁹, written such as `0.5` or `1/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct NanoCpus(pub i64);

/// Text in which variables of the environment were replaced.
#[derive(Clone)]
pub struct Expanded {
    raw: String,
    value: String,
}

/// The same for secrets: cannot be printed.
#[derive(Clone)]
pub struct ExpandedSecret {
    raw: SecretString,
    value: SecretString,
}

/// `pull_policy`: one policy or a list that is tried in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullPolicies(Vec<PullPolicy>);

// === impl Assignments ===

impl Assignments {
    /// Name and value of each text; a text without `=` has an empty value.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|text| text.split_once('=').unwrap_or((text, "")))
    }
}

impl Deref for Assignments {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl From<Vec<String>> for Assignments {
    fn from(texts: Vec<String>) -> Self {
        Self(texts)
    }
}

impl fmt::Debug for Assignments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs().map(|(name, _)| format!("{name}=[hidden]"))).finish()
    }
}

impl Field for Assignments {
    const KIND: Kind = Kind::Assignments;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        <Vec<String> as Field>::read(value, at, reader).map(Self)
    }

    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>) {
        if self != new {
            changes.push(Change::new(at, reload));
        }
    }
}

// === impl RawTable ===

impl RawTable {
    /// The table.
    #[must_use]
    pub fn get(&self) -> &toml::Table {
        &self.0
    }

    /// The table as a JSON object, the form that plugins take. Dates become strings.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        json(&toml::Value::Table(self.0.clone()))
    }

    /// Whether it has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<toml::Table> for RawTable {
    fn from(table: toml::Table) -> Self {
        Self(table)
    }
}

impl fmt::Debug for RawTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Value for RawTable {
    const KIND: Kind = Kind::Raw;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        match (value.get_ref().as_table(), owned(value.get_ref())) {
            (Some(_), Some(toml::Value::Table(table))) => Some(Self(table)),
            (Some(_), _) => {
                reader.wrong(value, at, &Self::KIND, "found a number that does not fit into 64 bits", None);
                None
            }
            (None, _) => {
                reader.wrong(value, at, &Self::KIND, &format!("found {}", found(value)), None);
                None
            }
        }
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

fn json(value: &toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(value) => (*value).into(),
        toml::Value::Datetime(value) => value.to_string().into(),
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Table(table) => table.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
    }
}

// === impl ByteSize ===

impl ByteSize {
    /// Parses a number with an optional fraction and an optional unit `b`, `k`, `m`, `g`, `t` or `p`, in either case and
    /// with an optional `b` or `ib` after it, as the engine's command line does.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let split = text.find(|c: char| c.is_ascii_alphabetic() || c == ' ').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
        let unit = unit.trim();
        let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
        let shift = match unit {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return None,
        };
        let bytes = number * (1_u64 << shift) as f64;
        (bytes < i64::MAX as f64).then_some(Self(bytes as u64))
    }
}

impl Value for ByteSize {
    const KIND: Kind = Kind::Size;

    fn is_blank(value: &Node<'_>) -> bool {
        value.get_ref().as_str() == Some("")
    }

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(value, at, &Self::KIND)?;
        let size = Self::parse(text);
        if size.is_none() {
            let hint = "write a number and one of the units b, k, m, g";
            reader.wrong(value, at, &Self::KIND, &format!("found \"{text}\""), Some(hint));
        }
        size
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

// === impl NanoCpus ===

impl NanoCpus {
    /// Parses a decimal number or a fraction of two.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
        let numerator: f64 = numerator.trim().parse().ok()?;
        let denominator: f64 = denominator.trim().parse().ok()?;
        let nano = numerator * 1e9 / denominator;
        (nano.is_finite() && nano >= 0.0 && nano < i64::MAX as f64).then_some(Self(nano as i64))
    }
}

impl Value for NanoCpus {
    const KIND: Kind = Kind::Cpus;

    fn is_blank(value: &Node<'_>) -> bool {
        value.get_ref().as_str() == Some("")
    }

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(value, at, &Self::KIND)?;
        let cpus = Self::parse(text);
        if cpus.is_none() {
            reader.wrong(value, at, &Self::KIND, &format!("found \"{text}\""), None);
        }
        cpus
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

// === impl Expanded ===

impl Expanded {
    /// A text that refers to no variable.
    #[must_use]
    pub fn literal(text: impl Into<String>) -> Self {
        let value: String = text.into();
        Self { raw: value.clone(), value }
    }

    /// The text with variables replaced.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.value
    }

    /// The text as it is in the file.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }
}

impl fmt::Debug for Expanded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.value, f)
    }
}

impl Value for Expanded {
    const KIND: Kind = Kind::Expanded;

    fn is_blank(value: &Node<'_>) -> bool {
        value.get_ref().as_str() == Some("")
    }

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let raw = reader.text(value, at, &Self::KIND)?.to_owned();
        let expanded = expand(&raw, value, at, reader);
        Some(Self { raw, value: expanded })
    }

    fn same(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

// === impl ExpandedSecret ===

impl ExpandedSecret {
    /// A secret that refers to no variable.
    #[must_use]
    pub fn literal(secret: SecretString) -> Self {
        Self { raw: secret.clone(), value: secret }
    }

    /// The secret with variables replaced.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        &self.value
    }

    /// Whether the file names a variable and not the secret itself. Saving a new secret would replace the reference.
    #[must_use]
    pub fn is_reference(&self) -> bool {
        self.raw.expose_secret() != self.value.expose_secret()
    }
}

impl fmt::Debug for ExpandedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl Value for ExpandedSecret {
    const KIND: Kind = Kind::ExpandedSecret;

    fn is_blank(value: &Node<'_>) -> bool {
        value.get_ref().as_str() == Some("")
    }

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let raw = reader.text(value, at, &Self::KIND)?.to_owned();
        let expanded = expand(&raw, value, at, reader);
        Some(Self { raw: raw.into(), value: expanded.into() })
    }

    fn same(&self, other: &Self) -> bool {
        self.value.expose_secret() == other.value.expose_secret()
    }
}

/// Replaces `$VAR` and `${VAR}`; a variable that is not set becomes empty, as in GitLab Runner, and is reported. What
/// cannot be a variable, such as `${gitlab.url}`, stays and is reported as an unexpanded template.
fn expand(text: &str, value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, after) = rest.split_at(dollar);
        expanded.push_str(before);
        let after = &after[1..];
        let (name, tail) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, tail)) => (name, tail),
            None => {
                let end =
                    after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        let is_variable = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_variable {
            match reader.variable(name) {
                Some(found) => expanded.push_str(&found),
                None => {
                    let message = format!("variable `{name}` is not set and expands to nothing");
                    let diagnostic =
                        Diagnostic::new(Severity::Warning, "unset-variable", at.as_str(), message);
                    let hint = "set it in the environment of the process, or write the value into the file";
                    reader.report(&value.span(), at, diagnostic.hint(hint));
                }
            }
        } else if !name.is_empty() {
            let message = format!("`${{{name}}}` looks like an unexpanded template");
            let diagnostic = Diagnostic::new(Severity::Warning, "template", at.as_str(), message);
            reader.report(&value.span(), at, diagnostic.hint("render the template before the file is used"));
            expanded.push_str(&rest[dollar..rest.len() - tail.len()]);
        } else {
            expanded.push('$');
        }
        rest = tail;
    }
    expanded.push_str(rest);
    expanded
}

// === impl PullPolicies ===

impl PullPolicies {
    /// The policies in order; empty when none is configured.
    #[must_use]
    pub fn as_slice(&self) -> &[PullPolicy] {
        &self.0
    }
}

impl Field for PullPolicies {
    const KIND: Kind = Kind::OneOrMany(&PullPolicy::KIND);

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        if value.get_ref().as_array().is_some() {
            return <Vec<PullPolicy> as Field>::read(value, at, reader).map(Self);
        }
        <Option<PullPolicy> as Field>::read(value, at, reader).flatten().map(|policy| Self(vec![policy]))
    }

    fn compare(&self, new: &Self, at: &KeyPath, reload: Reload, changes: &mut Vec<Change>) {
        if self != new {
            changes.push(Change::new(at, reload));
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("42m", Some(44_040_192))]
    #[test_case("2g", Some(2_147_483_648))]
    #[test_case("1.5k", Some(1536))]
    #[test_case("64MiB", Some(67_108_864))]
    #[test_case("100", Some(100))]
    #[test_case("ten", None)]
    #[test_case("-1m", None)]
    #[test_case("1x", None)]
    fn sizes_are_powers_of_1024(text: &str, bytes: Option<u64>) {
        assert_eq!(ByteSize::parse(text), bytes.map(ByteSize));
    }

    #[test_case("0.5", Some(500_000_000))]
    #[test_case("1/3", Some(333_333_333))]
    #[test_case("2", Some(2_000_000_000))]
    #[test_case("1/0", None)]
    #[test_case("many", None)]
    fn cpus_are_decimals_or_fractions(text: &str, nano: Option<i64>) {
        assert_eq!(NanoCpus::parse(text), nano.map(NanoCpus));
    }

    #[test]
    fn assignments_print_names_only() {
        let environment = Assignments::from(vec!["TOKEN=s3cret".to_owned(), "FLAG".to_owned()]);
        assert_eq!(format!("{environment:?}"), r#"["TOKEN=[hidden]", "FLAG=[hidden]"]"#);
    }
}
