//! The text of a file: positions, and lines that are safe to print.

use std::ops::Range;

use crate::diagnostic::Excerpt;

/// Words in the name of a key or option that make its value a secret.
const SECRET_WORDS: &[&str] = &[
    "token",
    "password",
    "secret",
    "access-key",
    "accesskey",
    "accountkey",
    "privatekey",
    "private-key",
    "dsn",
];

/// How tokens of GitLab begin.
const TOKEN_PREFIXES: &[&str] =
    &["glrt-", "glrtr-", "glpat-", "glcbt-", "glptt-", "gldt-", "glft-", "GR1348941"];
/// Words of this length are keys in some encoding.
const LONG_WORD: usize = 40;
/// What stands in place of a secret.
const HIDDEN: &str = "[hidden]";

/// Position of something in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
}

/// The text of the file with its line index.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

// === impl Source ===

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        Self { text, starts }
    }

    /// Line and column of a byte offset; offsets past the end count as the end.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let offset = self.floor(offset);
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        Position { line, column: column + 1 }
    }

    /// Byte offset of a line's first character.
    pub(crate) fn start(&self, line: usize) -> usize {
        line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(self.text.len())
    }

    /// The line without its end; empty past the end.
    pub(crate) fn line(&self, line: usize) -> &'a str {
        let Some(start) = line.checked_sub(1).and_then(|index| self.starts.get(index)) else { return "" };
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        self.text.get(*start..end).unwrap_or("").trim_end_matches(['\n', '\r'])
    }

    /// The line of a span, with the span marked and secrets replaced.
    pub(crate) fn excerpt(&self, span: &Range<usize>) -> Excerpt {
        let position = self.position(span.start);
        let line = self.line(position.line);
        let start = position.column - 1;
        let marked = self.text.get(self.floor(span.start)..self.floor(span.end)).unwrap_or("");
        let marked = marked.lines().next().unwrap_or("").chars().count().max(1);
        let safe = redact(line);
        let width = safe.chars().count();
        // Characters in front of a replaced value stay where they are, so the mark stays right up to there.
        let start = start.min(width);
        let length = if safe == line { marked } else { marked.min(width.saturating_sub(start)).max(1) };
        Excerpt { text: safe, start, length }
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// Replaces what may be a secret in one line of a file, which need not be valid TOML.
///
/// `name = value` is replaced where the name says so, and so is every `name=value` inside quotes; tokens of GitLab, long
/// encoded texts and passwords in addresses are replaced wherever they are. A value that only refers to a variable stays,
/// because it is what the reader of the message must see.
pub(crate) fn redact(line: &str) -> String {
    if let Some((name, rest)) = line.split_once('=').filter(|(name, _)| is_bare(name.trim())) {
        if is_secret_name(name) && !is_reference(rest.trim()) {
            return format!("{name}= {HIDDEN}");
        }
        return format!("{name}={}", redact_words(&redact_assignments(rest)));
    }
    redact_words(&redact_assignments(line))
}

/// Inside of quotes, and of a list of variables or options: hides every value whose name is telling, and that of every
/// variable.
fn redact_assignments(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            safe.push('"');
        }
        match part.split_once('=') {
            Some((name, value))
                if !index.is_multiple_of(2)
                    && (is_secret_name(name) || is_variable(name))
                    && !is_reference(value) =>
            {
                safe.push_str(name);
                safe.push('=');
                safe.push_str(HIDDEN);
            }
            Some(_) | None => safe.push_str(part),
        }
    }
    safe
}

/// Hides words that are secrets by their form.
fn redact_words(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        let is_token = TOKEN_PREFIXES.iter().any(|prefix| word.starts_with(prefix));
        safe.push_str(if is_token || word.len() >= LONG_WORD { HIDDEN } else { word });
        let gap = tail.find(is_word).unwrap_or(tail.len());
        let (between, tail) = tail.split_at(gap);
        safe.push_str(between);
        rest = tail;
    }
    match safe.split_once("://").map(|(scheme, rest)| (scheme, rest.split_once('@'))) {
        Some((scheme, Some((user, host)))) if !user.contains(['/', '"', ' ']) => {
            format!("{scheme}://{HIDDEN}@{host}")
        }
        Some(_) | None => safe,
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/')
}

/// The name of an environment variable, as opposed to that of a driver's option.
fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Whether the name of a key, option or variable says that its value is a secret.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    SECRET_WORDS.iter().any(|word| name.contains(word))
        && !name.contains("token-obtained")
        && !name.contains("token-expires")
}

/// Whether the text in front of a `=` is a key, perhaps in quotes, and not the middle of a string.
fn is_bare(name: &str) -> bool {
    let quotes = name.matches(['"', '\'']).count();
    !name.is_empty()
        && quotes.is_multiple_of(2)
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '"' | '\''))
}

/// A reference to a variable and nothing else, such as `"$TOKEN"` or `$${TOKEN}`.
fn is_reference(value: &str) -> bool {
    let value = value.trim_matches(['"', '\'']);
    value.starts_with('$')
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '$' | '{' | '}' | '_' | '.'))
        && value.len() < 80
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test]
    fn positions_count_characters_and_lines_from_one() {
        let source = Source::new("a\nüb = 1\n");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(4), Position { line: 2, column: 2 });
        assert_eq!(source.position(999), Position { line: 3, column: 1 });
        assert_eq!(source.line(2), "üb = 1");
    }

    #[test_case("token = \"glrt-abc\"", "token = [hidden]"; "a token")]
    #[test_case("  token = glrt-abc", "  token = [hidden]"; "a token without quotes")]
    #[test_case("  token = $${RUNNER_TOKEN}", "  token = $${RUNNER_TOKEN}"; "a reference stays")]
    #[test_case("SecretKey='x'", "SecretKey= [hidden]"; "a mixed case key")]
    #[test_case("  \"amazonec2-secret-key=XX\",", "  \"amazonec2-secret-key=[hidden]\","; "an option")]
    #[test_case("environment = [\"A=1\", \"b\"]", "environment = [\"A=[hidden]\", \"b\"]"; "a variable")]
    #[test_case("x = \"glpat-abc def\"", "x = \"[hidden] def\""; "a token by its form")]
    #[test_case("MIIEowIBAAKCAQEAvXq+0123456789/abcdefghijkl", "[hidden]"; "a line of a key")]
    #[test_case("url = \"https://me:pass@host/x\"", "url = \"https://[hidden]@host/x\""; "a password in an address")]
    #[test_case("url = \"https://x\"", "url = \"https://x\""; "an ordinary key")]
    fn lines_are_safe_to_print(line: &str, safe: &str) {
        assert_eq!(redact(line), safe);
    }
}
