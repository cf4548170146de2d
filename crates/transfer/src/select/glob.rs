//! Patterns of paths with `*`, `?`, `[...]`, `{a,b}`, `\` and `**`.

/// How many patterns the braces of one pattern may stand for.
const MAX_ALTERNATIVES: usize = 1024;

/// A pattern without braces, cut at its slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

/// What one part of a path has to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// `**`: any number of parts, none included.
    Any,
    /// Exactly this.
    Literal(Vec<u8>),
    /// A match of these.
    Wild(Vec<Token>),
}

/// Of what a part with wild cards is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// This byte.
    Byte(u8),
    /// Any one character.
    One,
    /// Any number of characters.
    Many,
    /// One character of these ranges, or of no range when inverted.
    Class { inverted: bool, ranges: Vec<(char, char)> },
}

/// Reads a pattern; its braces are expanded, so it may become several.
pub(crate) fn parse(text: &str) -> Vec<Pattern> {
    let mut texts = Vec::new();
    expand_braces(text.to_owned(), &mut texts);
    texts.iter().map(|text| Pattern::parse(text)).collect()
}

// === impl Pattern ===

impl Pattern {
    fn parse(text: &str) -> Self {
        let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
        Self(parts.map(Part::parse).collect())
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether a whole path matches, given as its parts.
    pub(crate) fn matches(&self, path: &[&[u8]]) -> bool {
        match_parts(&self.0, path)
    }
}

fn match_parts(parts: &[Part], path: &[&[u8]]) -> bool {
    match parts.split_first() {
        None => path.is_empty(),
        Some((Part::Any, rest)) => (0..=path.len()).any(|skip| match_parts(rest, &path[skip..])),
        Some((part, rest)) => {
            path.split_first().is_some_and(|(first, tail)| part.matches(first) && match_parts(rest, tail))
        }
    }
}

// === impl Part ===

impl Part {
    fn parse(text: &str) -> Self {
        if text == "**" {
            return Self::Any;
        }
        let mut tokens = Vec::new();
        let mut literal = true;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '*' => {
                    literal = false;
                    if tokens.last() != Some(&Token::Many) {
                        tokens.push(Token::Many);
                    }
                }
                '?' => {
                    literal = false;
                    tokens.push(Token::One);
                }
                '[' => match class(rest) {
                    Some((token, tail)) => {
                        literal = false;
                        tokens.push(token);
                        rest = tail;
                    }
                    None => tokens.push(Token::Byte(b'[')),
                },
                '\\' if !rest.is_empty() => {
                    let escaped = rest.chars().next().map_or(0, char::len_utf8);
                    tokens.extend(rest[..escaped].bytes().map(Token::Byte));
                    rest = &rest[escaped..];
                }
                other => tokens.extend(other.encode_utf8(&mut [0; 4]).bytes().map(Token::Byte)),
            }
        }
        if !literal {
            return Self::Wild(tokens);
        }
        let byte = |token: &Token| match token {
            Token::Byte(byte) => Some(*byte),
            Token::One | Token::Many | Token::Class { .. } => None,
        };
        Self::Literal(tokens.iter().filter_map(byte).collect())
    }

    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(text) => text == name,
            Self::Wild(tokens) => match_tokens(tokens, name),
        }
    }
}

/// Matches with one point of return, the last `*`: that is enough, and takes no more than the product of both lengths.
fn match_tokens(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < name.len() || token < tokens.len() {
        let step = match tokens.get(token) {
            Some(Token::Many) => {
                back = Some((token, at));
                token += 1;
                continue;
            }
            Some(Token::Byte(byte)) => (name.get(at) == Some(byte)).then_some(1),
            Some(Token::One) => (at < name.len()).then(|| first_char(&name[at..]).1),
            Some(Token::Class { inverted, ranges }) => (at < name.len())
                .then(|| first_char(&name[at..]))
                .filter(|(c, _)| {
                    ranges.iter().any(|(low, high)| c.is_some_and(|c| (*low..=*high).contains(&c)))
                        != *inverted
                })
                .map(|(_, length)| length),
            None => None,
        };
        match (step, back) {
            (Some(length), _) => {
                token += 1;
                at += length;
            }
            (None, Some((star, from))) if from < name.len() => {
                back = Some((star, from + 1));
                token = star + 1;
                at = from + 1;
            }
            (None, _) => return false,
        }
    }
    true
}

/// The first character and its length; a byte that is no UTF-8 is a character of its own.
fn first_char(bytes: &[u8]) -> (Option<char>, usize) {
    let text = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next().map_or((None, 1), |c| (Some(c), c.len_utf8()))
}

/// Reads what stands behind `[`, up to its `]`.
fn class(text: &str) -> Option<(Token, &str)> {
    let inverted = text.starts_with(['!', '^']);
    let body = if inverted { &text[1..] } else { text };
    let mut ranges = Vec::new();
    let mut chars = body.char_indices().peekable();
    let mut first = true;
    while let Some((at, c)) = chars.next() {
        if c == ']' && !first {
            return Some((Token::Class { inverted, ranges }, &body[at + 1..]));
        }
        first = false;
        let low = if c == '\\' { chars.next()?.1 } else { c };
        let mut ahead = chars.clone();
        let range = (ahead.next().map(|(_, c)| c), ahead.next().map(|(_, c)| c));
        let high = match range {
            (Some('-'), Some(high)) if high != ']' => {
                chars = ahead;
                high
            }
            _ => low,
        };
        ranges.push((low, high));
    }
    None
}

/// Replaces the first brace by each of its alternatives, and so on. A brace without its end is a character like any other.
fn expand_braces(text: String, out: &mut Vec<String>) {
    if out.len() >= MAX_ALTERNATIVES {
        return;
    }
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' => {
                if let Some((alternatives, end)) = alternatives(&text[at + 1..]) {
                    let (head, tail) = (&text[..at], &text[at + 1 + end..]);
                    for alternative in alternatives {
                        expand_braces(format!("{head}{alternative}{tail}"), out);
                    }
                    return;
                }
            }
            _ => {}
        }
        at += 1;
    }
    out.push(text);
}

/// The alternatives of what stands behind `{`, and the place behind its `}`.
fn alternatives(text: &str) -> Option<(Vec<&str>, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut start, mut depth) = (0, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' => depth += 1,
            b'}' if depth == 0 => {
                found.push(&text[start..at]);
                return Some((found, at + 1));
            }
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("a/b.txt", "a/b.txt", true)]
    #[test_case("./a//b.txt", "a/b.txt", true; "dots and doubled slashes")]
    #[test_case("*.txt", "a.txt", true)]
    #[test_case("*.txt", "d/a.txt", false; "a star stays in its directory")]
    #[test_case("*", ".hidden", true; "hidden files too")]
    #[test_case("**/*.txt", "a.txt", true; "two stars may be nothing")]
    #[test_case("**/*.txt", "d/e/a.txt", true)]
    #[test_case("d/**", "d", true)]
    #[test_case("d/**", "d/e/f", true)]
    #[test_case("d/**/f", "d/e/g", false)]
    #[test_case("a**b", "axxb", true; "two stars within a part are one")]
    #[test_case("?.c", "ä.c", true; "one character, not one byte")]
    #[test_case("?.c", "ab.c", false)]
    #[test_case("[a-c]x[!0-9]", "bxq", true)]
    #[test_case("[a-c]x[!0-9]", "bx7", false)]
    #[test_case("[^a]", "a", false)]
    #[test_case("[]x]", "]", true; "a bracket at the start of a class")]
    #[test_case("[ab", "[ab", true; "a bracket without an end")]
    #[test_case("{a,b/c}.o", "b/c.o", true; "alternatives with a slash")]
    #[test_case("x{,.{gz,xz}}", "x.xz", true; "nested alternatives")]
    #[test_case("x{,.{gz,xz}}", "x", true; "empty alternative")]
    #[test_case("{a", "{a", true; "a brace without an end")]
    #[test_case("\\*\\[", "*[", true; "escapes")]
    #[test_case("a*b*c*d", "a1b2c3c4d", true)]
    #[test_case("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false; "no explosion")]
    fn matching(pattern: &str, path: &str, wanted: bool) {
        let parts: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        assert_eq!(parse(pattern).iter().any(|pattern| pattern.matches(&parts)), wanted);
    }

    #[test]
    fn bytes_that_are_no_text_are_matched_by_stars() {
        assert!(parse("a*")[0].matches(&[b"a\xff"]));
        assert!(parse("a?")[0].matches(&[b"a\xff"]));
    }
}
