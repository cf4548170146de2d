//! `$NAME` and `${NAME}`, by the rules of Go's `os.Expand`, which GitLab Runner uses.

use std::borrow::Cow;

/// Replaces every reference in `text` by what `look_up` answers for its name. One pass: what is put in is not looked at again.
pub(crate) fn expand<'a>(text: &'a str, look_up: impl Fn(&str) -> Cow<'a, str>) -> Cow<'a, str> {
    if !text.contains('$') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (reference, width) = reference(after);
        match reference {
            Reference::Name("$") => out.push('$'),
            Reference::Name(name) if is_special(name) => {}
            Reference::Name(name) => out.push_str(&look_up(name)),
            Reference::Malformed => {}
            Reference::None => out.push('$'),
        }
        rest = &after[width..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

enum Reference<'a> {
    Name(&'a str),
    /// `${}` and `${` without an end: eaten.
    Malformed,
    /// A lone dollar sign: kept.
    None,
}

/// The reference at the start of `after`, which follows a dollar sign, and how many bytes it takes.
fn reference(after: &str) -> (Reference<'_>, usize) {
    if let Some(braced) = after.strip_prefix('{') {
        return match braced.find('}') {
            Some(0) => (Reference::Malformed, 2),
            Some(end) => (Reference::Name(&braced[..end]), end + 2),
            None => (Reference::Malformed, 1),
        };
    }
    let Some(first) = after.bytes().next() else { return (Reference::None, 0) };
    if is_special(&after[..after.chars().next().map_or(0, char::len_utf8)]) {
        return (Reference::Name(&after[..1]), 1);
    }
    debug_assert!(!matches!(first, b'{'));
    let width = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    if width == 0 { (Reference::None, 0) } else { (Reference::Name(&after[..width]), width) }
}

fn is_special(name: &str) -> bool {
    matches!(name.as_bytes(), [b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9'])
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("plain", "plain"; "nothing to do")]
    #[test_case("$A-${A}-$AB", "a-a-"; "names end at the first other character, unknown is empty")]
    #[test_case("$$A $$", "$A $"; "two dollars are one")]
    #[test_case("$1x $? $# $* $@ $! $-", "x      "; "special parameters are empty")]
    #[test_case("${} ${A", " A"; "malformed is eaten")]
    #[test_case("5$ $ $é", "5$ $ $é"; "a lone dollar stays")]
    #[test_case("${A:-b}", ""; "defaults are not known")]
    #[test_case("$N", "$A"; "one pass")]
    fn expands_as_os_expand_does(text: &str, expected: &str) {
        let value = expand(text, |name| {
            Cow::Borrowed(match name {
                "A" => "a",
                "N" => "$A",
                _ => "",
            })
        });
        assert_eq!(value, expected);
    }
}
