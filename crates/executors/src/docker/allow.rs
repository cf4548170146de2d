//! Lists of what jobs may use: `allowed_images`, `allowed_services` and the lists for privileged containers.
//!
//! Patterns are those of GitLab Runner (`doublestar`): `*` and `?` stay within a part of the name, a part that is `**` stands for
//! any number of parts, `{a,b}` and `[a-c]` work, everything else stands for itself. A pattern that begins with `!` forbids what
//! it matches; GitLab's documentation promises that, and GitLab Runner ignores it.

/// More alternatives than a sane pattern has.
const MOST_ALTERNATIVES: usize = 1024;

/// Whether a list allows a name. An empty list allows everything.
pub(crate) fn allows(patterns: &[String], name: &str) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let forbidden =
        patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(|pattern| matches(pattern, name));
    !forbidden
        && patterns.iter().filter(|pattern| !pattern.starts_with('!')).any(|pattern| matches(pattern, name))
}

/// Whether the whole name has the form of the pattern. A pattern that cannot be read matches nothing.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut alternatives = Vec::new();
    if !expand(pattern, &mut alternatives) {
        return false;
    }
    let name: Vec<&str> = name.split('/').collect();
    alternatives.iter().any(|pattern| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        parts(&pattern, &name)
    })
}

/// Writes out `{a,b}`, innermost last. False if braces do not fit or there are too many alternatives.
fn expand(pattern: &str, out: &mut Vec<String>) -> bool {
    let Some(open) = pattern.find('{') else {
        out.push(pattern.to_owned());
        return out.len() <= MOST_ALTERNATIVES;
    };
    let (mut depth, mut commas, mut close) = (0, vec![open], None);
    for (index, byte) in pattern.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    close = Some(index);
                    break;
                }
            }
            b',' if depth == 1 => commas.push(index),
            _ => {}
        }
    }
    let Some(close) = close else { return false };
    commas.push(close);
    commas.windows(2).all(|between| {
        let middle = &pattern[between[0] + 1..between[1]];
        expand(&format!("{}{middle}{}", &pattern[..open], &pattern[close + 1..]), out)
    })
}

fn parts(pattern: &[&str], name: &[&str]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((&"**", rest)) => (0..=name.len()).any(|skipped| parts(rest, &name[skipped..])),
        Some((first, rest)) => {
            name.split_first().is_some_and(|(part, others)| part_matches(first, part) && parts(rest, others))
        }
    }
}

fn part_matches(pattern: &str, part: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let part: Vec<char> = part.chars().collect();
    characters(&pattern, &part)
}

/// One part, with the place of the last `*` to return to: linear in space, and never worse than the product in time.
fn characters(pattern: &[char], part: &[char]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, from));
                at += 1;
                continue;
            }
            Some(_) if from < part.len() => one(&pattern[at..], part[from]),
            None if from == part.len() => return true,
            Some(_) | None => None,
        };
        if let Some(length) = step {
            at += length;
            from += 1;
            continue;
        }
        match star {
            Some((after, taken)) if taken < part.len() => {
                star = Some((after, taken + 1));
                at = after;
                from = taken + 1;
            }
            Some(_) | None => return false,
        }
    }
}

/// Length of the pattern's first element if it matches a character.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern[0] {
        '?' => Some(1),
        '\\' => (*pattern.get(1)? == character).then_some(2),
        '[' => {
            let negated = matches!(pattern.get(1), Some('!' | '^'));
            let start = if negated { 2 } else { 1 };
            let length = pattern.iter().skip(start + 1).position(|c| *c == ']')?;
            let end = start + 1 + length;
            let set = &pattern[start..end];
            let mut found = false;
            let mut index = 0;
            while index < set.len() {
                if index + 2 < set.len() && set[index + 1] == '-' {
                    found |= (set[index]..=set[index + 2]).contains(&character);
                    index += 3;
                } else {
                    found |= set[index] == character;
                    index += 1;
                }
            }
            (found != negated).then_some(end + 1)
        }
        literal => (literal == character).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("ruby:*", "ruby:2.1", true)]
    #[test_case("ruby:*", "ruby", false; "no tag")]
    #[test_case("ruby:*", "ruby@sha256:ab", false; "a digest is no tag")]
    #[test_case("*", "ruby:2.1", true; "one part")]
    #[test_case("*", "a/b", false; "star stays in its part")]
    #[test_case("**/*", "a/b/c:1", true; "any depth")]
    #[test_case("**/*", "a", true; "no depth")]
    #[test_case("**", "", true; "nothing at all")]
    #[test_case("my.reg:5000/*:*", "my.reg:5000/a:1", true; "registry")]
    #[test_case("my.reg:5000/*:*", "my.reg:5000/a/b:1", false; "registry with two levels")]
    #[test_case("my.reg:5000/**", "my.reg:5000/a/b:1", true; "registry with all levels")]
    #[test_case("{ruby,python}:3.[0-4]", "python:3.2", true; "sets")]
    #[test_case("{ruby,python}:3.[0-4]", "python:3.9", false; "outside of a set")]
    #[test_case("{a/b,c}:1", "a/b:1", true; "separator in braces")]
    #[test_case("a?c", "abc", true; "any character")]
    #[test_case("a*b*c", "aXbYbZc", true; "going back")]
    #[test_case("[", "[", false; "an unreadable pattern")]
    fn patterns_match_as_gitlab_runner_matches_them(pattern: &str, name: &str, expected: bool) {
        assert_eq!(matches(pattern, name), expected);
    }

    #[test_case(&[], "anything", true; "an empty list")]
    #[test_case(&["a", "b"], "b", true; "any of them")]
    #[test_case(&["**", "!*/kali*"], "x/kali:1", false; "forbidden")]
    #[test_case(&["**", "!*/kali*"], "x/alpine:1", true; "not forbidden")]
    #[test_case(&["!x"], "y", false; "a list that only forbids allows nothing")]
    fn a_list_allows_what_it_names_and_does_not_forbid(patterns: &[&str], name: &str, expected: bool) {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        assert_eq!(allows(&patterns, name), expected);
    }
}
