//! The short form of tokens.

/// Length of a short token.
const SHORT: usize = 9;

/// The part of a token that may be shown: known prefixes removed, then the first nine characters. Used in logs, metrics,
/// build paths, cache paths and `CI_RUNNER_SHORT_TOKEN`, so it has to agree with GitLab Runner's.
#[must_use]
pub fn short_token(token: &str) -> &str {
    let rest = match token.strip_prefix("glrt-") {
        Some(rest) => strip_type(rest),
        None => match strip_type(token) {
            same if same.len() == token.len() => token.strip_prefix("glrtr-").unwrap_or(token),
            stripped => stripped,
        },
    };
    let rest = rest.strip_prefix("glcbt-").unwrap_or(rest);
    let rest = strip_registration_prefix(rest);
    rest.char_indices().nth(SHORT).map_or(rest, |(end, _)| &rest[..end])
}

/// Removes `t1_`, `t2_` or `t3_`.
fn strip_type(token: &str) -> &str {
    ["t1_", "t2_", "t3_"].iter().find_map(|prefix| token.strip_prefix(prefix)).unwrap_or(token)
}

/// Removes `GR` and seven hex digits.
fn strip_registration_prefix(token: &str) -> &str {
    match token.strip_prefix("GR").and_then(|rest| rest.split_at_checked(7)) {
        Some((digits, rest)) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => rest,
        Some(_) | None => token,
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("glrt-abcdefghijkl", "abcdefghi")]
    #[test_case("glrt-t1_abcdefghijkl", "abcdefghi"; "instance runner")]
    #[test_case("glrt-t4_abcdefghijkl", "t4_abcdef"; "unknown type stays")]
    #[test_case("t3_abcdefghijkl", "abcdefghi"; "bare type")]
    #[test_case("glrtr-abcdefghijkl", "abcdefghi"; "registration")]
    #[test_case("GR1348941abcdefghijkl", "abcdefghi"; "legacy registration")]
    #[test_case("GR134894xabcdefghijkl", "GR134894x"; "not hex")]
    #[test_case("glcbt-64_abcdefghijkl", "64_abcdef"; "job token")]
    #[test_case("short", "short")]
    #[test_case("", ""; "empty")]
    #[test_case("äöüäöüäöüäöü", "äöüäöüäöü"; "characters, not bytes")]
    fn short(token: &str, wanted: &str) {
        assert_eq!(short_token(token), wanted);
    }
}
