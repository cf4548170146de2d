//! How objects are named: `[<Path>/][runner/<short token>/]project/<project id>/[<two digits>/]<key>`.

use job::CacheKey;

use crate::CacheStoreError;

/// What the names of a runner's objects begin with.
#[derive(Debug, Clone)]
pub(crate) struct Prefix(String);

// === impl Prefix ===

impl Prefix {
    /// GitLab Runner's rule: the part of the runner is left out where runners share their caches.
    pub(crate) fn new(path: Option<&str>, shared: bool, short_token: &str) -> Self {
        let mut parts: Vec<&str> =
            path.unwrap_or_default().split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if !shared {
            parts.extend(["runner", short_token]);
        }
        parts.push("project");
        Self(parts.join("/"))
    }

    /// The object of a key.
    ///
    /// # Errors
    /// [`CacheStoreError::Key`] if the name would leave the project.
    pub(crate) fn object(&self, project: u64, name: &str, hashed: bool) -> Result<String, CacheStoreError> {
        let leaves = name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if leaves {
            return Err(CacheStoreError::Key(name.to_owned()));
        }
        let Self(prefix) = self;
        Ok(match name.get(..2).filter(|_| hashed) {
            Some(digits) => format!("{prefix}/{project}/{digits}/{name}"),
            None => format!("{prefix}/{project}/{name}"),
        })
    }
}

/// Whether keys are stored under their hash: then the stored name is not the readable one.
pub(crate) fn is_hashed(key: &CacheKey) -> bool {
    key.name != key.readable
}

/// A key as the value of a header, which takes printable ASCII only.
pub(crate) fn header_text(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The parts of a path, each percent-encoded as cloud storages sign them.
pub(crate) fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(None, false, "k", false, "runner/abc/project/7/k"; "of one runner")]
    #[test_case(None, true, "k", false, "project/7/k"; "shared")]
    #[test_case(Some("/a//b/"), true, "k/l", false, "a/b/project/7/k/l"; "with a path")]
    #[test_case(Some("p"), false, "0f12", true, "p/runner/abc/project/7/0f/0f12"; "hashed")]
    fn objects_are_named_as_gitlab_runner_names_them(
        path: Option<&str>,
        shared: bool,
        key: &str,
        hashed: bool,
        name: &str,
    ) {
        let prefix = Prefix::new(path, shared, "abc");
        assert_eq!(prefix.object(7, key, hashed).unwrap(), name);
    }

    #[test_case(".."; "up")]
    #[test_case("a/../../8/k"; "up and down")]
    #[test_case("a//b"; "nothing between")]
    #[test_case(""; "nothing")]
    fn a_key_stays_in_its_project(key: &str) {
        let error = Prefix::new(None, true, "abc").object(7, key, false).unwrap_err();
        assert!(matches!(error, CacheStoreError::Key(_)), "{error}");
    }

    #[test]
    fn headers_take_any_key() {
        assert_eq!(header_text("main-ä b%"), "main-%C3%A4%20b%25");
        assert_eq!(encoded("a b/ü+c~d"), "a%20b/%C3%BC%2Bc~d");
    }
}
