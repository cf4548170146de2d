//! Shell expansion of names and paths: the part of POSIX that needs no shell.

/// Expands `$NAME`, `${NAME}` and `${NAME:-word}` with its relatives (`-`, `:+`, `+`) as inside double quotes. A backslash takes the
/// meaning from `$`, `` ` ``, `"` and itself. Unset variables are empty. What is not understood, command substitution above all, stays
/// as it is.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        let here = &rest[at..];
        rest = match here.as_bytes() {
            [b'\\', b'$' | b'`' | b'"' | b'\\', ..] => {
                out.push_str(&here[1..2]);
                &here[2..]
            }
            [b'$', b'{', ..] => match braces(&here[2..], lookup) {
                Some((value, rest)) => {
                    out.push_str(&value);
                    rest
                }
                None => keep(&mut out, here),
            },
            [b'$', ..] => match name(&here[1..]) {
                "" => keep(&mut out, here),
                name => {
                    out.push_str(&lookup(name).unwrap_or_default());
                    &here[1 + name.len()..]
                }
            },
            _ => keep(&mut out, here),
        };
    }
    out.push_str(rest);
    out
}

/// Expands with the environment of this process.
pub(crate) fn expand_env(text: &str) -> String {
    expand(text, &|name| std::env::var(name).ok())
}

/// Takes over one (ASCII) character.
fn keep<'a>(out: &mut String, here: &'a str) -> &'a str {
    out.push_str(&here[..1]);
    &here[1..]
}

/// The name at the start of a text.
fn name(text: &str) -> &str {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(letter) {
        return "";
    }
    let end = text.find(|c: char| !letter(c) && !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

/// Value of what stands behind `${`, and what stands behind its `}`.
fn braces<'a>(text: &'a str, lookup: &dyn Fn(&str) -> Option<String>) -> Option<(String, &'a str)> {
    let name = name(text);
    if name.is_empty() {
        return None;
    }
    let body = &text[name.len()..];
    let end = closing(body)?;
    let (operator, rest) = (&body[..end], &body[end + 1..]);
    let value = lookup(name);
    let filled = value.clone().filter(|value| !value.is_empty());
    let word = |skip: usize| expand(&operator[skip..], lookup);
    let result = match operator.as_bytes() {
        [] => value.unwrap_or_default(),
        [b':', b'-', ..] => filled.unwrap_or_else(|| word(2)),
        [b'-', ..] => value.unwrap_or_else(|| word(1)),
        [b':', b'+', ..] => filled.map(|_| word(2)).unwrap_or_default(),
        [b'+', ..] => value.map(|_| word(1)).unwrap_or_default(),
        _ => return None,
    };
    Some((result, rest))
}

/// Place of the brace that closes.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                at += 1;
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
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

    #[test_case("plain", "plain")]
    #[test_case("$A-${A}-$A_B", "one-one-"; "both forms, and a name is as long as it can be")]
    #[test_case("${NONE:-d}${EMPTY:-d}${A:-d}", "ddone"; "default for unset and empty")]
    #[test_case("${NONE-d}${EMPTY-d}", "d"; "default for unset only")]
    #[test_case("${NONE:-x/${A}/$EMPTY}", "x/one/"; "nested")]
    #[test_case("${A:+yes}${EMPTY:+no}${EMPTY+set}", "yesset"; "alternative")]
    #[test_case("a\\$A \\\\ \\n", "a$A \\ \\n"; "backslashes")]
    #[test_case("$ $1 $(id) ${} ${A", "$ $1 $(id) ${} ${A"; "what is not understood stays")]
    #[test_case("ä$A ö", "äone ö"; "beyond ascii")]
    fn expansion(text: &str, wanted: &str) {
        let lookup = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        assert_eq!(expand(text, &lookup), wanted);
    }
}
