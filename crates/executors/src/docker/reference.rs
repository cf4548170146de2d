//! Names of images.

/// A reference as users write it, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// Everything before tag and digest.
    pub(crate) name: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

// === impl Reference ===

impl<'a> Reference<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the port of a registry.
        let after_path = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[after_path..].find(':') {
            Some(colon) => (&rest[..after_path + colon], Some(&rest[after_path + colon + 1..])),
            None => (rest, None),
        };
        Self { name, tag, digest }
    }

    /// What the pull call wants as its tag. Without one, an engine fetches every tag of the repository.
    pub(crate) fn tag_or_digest(&self) -> &'a str {
        self.digest.or(self.tag).unwrap_or("latest")
    }

    /// Version of a service: tag, or the digest with its `@`.
    pub(crate) fn version(&self) -> String {
        match (self.tag, self.digest) {
            (Some(tag), _) => tag.to_owned(),
            (None, Some(digest)) => format!("@{digest}"),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Its name as engines show it, without the registry that needs no name.
    pub(crate) fn familiar(&self) -> &'a str {
        let name = self.name.strip_prefix("index.").unwrap_or(self.name);
        match name.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest),
            None => self.name,
        }
    }

    /// The service that the image is: its name without a registry's port.
    pub(crate) fn service(&self) -> String {
        match self.name.split_once('/') {
            Some((host, rest)) => match host.split_once(':') {
                Some((host, _)) => format!("{host}/{rest}"),
                None => self.name.to_owned(),
            },
            None => self.name.to_owned(),
        }
    }

    /// The names by which a service is reached: `/` becomes `__` or `-`.
    pub(crate) fn service_names(&self) -> Vec<String> {
        let name = self.service();
        let (long, short) = (name.replace('/', "__"), name.replace('/', "-"));
        if long == short { vec![long] } else { vec![long, short] }
    }

    /// The reference with a tag, if it names neither tag nor digest.
    pub(crate) fn with_tag(text: &str) -> String {
        let parsed = Reference::parse(text);
        if parsed.tag.is_none() && parsed.digest.is_none() {
            format!("{text}:latest")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("ruby", "ruby", "latest", "latest")]
    #[test_case("ruby:3", "ruby", "3", "3")]
    #[test_case("reg:5000/a/b", "reg:5000/a/b", "latest", "latest"; "a port is no tag")]
    #[test_case("reg:5000/a:1@sha256:ab", "reg:5000/a", "sha256:ab", "1"; "the digest decides")]
    #[test_case("a@sha256:ab", "a", "sha256:ab", "@sha256:ab"; "a digest alone")]
    fn references_are_taken_apart(text: &str, name: &str, pulled: &str, version: &str) {
        let reference = Reference::parse(text);
        assert_eq!((reference.name, reference.tag_or_digest()), (name, pulled));
        assert_eq!(reference.version(), version);
    }

    #[test_case("ruby:3", "ruby")]
    #[test_case("docker.io/library/ruby@sha256:ab", "ruby"; "all in full")]
    #[test_case("index.docker.io/me/x", "me/x"; "another name of it")]
    #[test_case("reg:5000/library/x:1", "reg:5000/library/x"; "another registry")]
    fn names_are_shortened_as_engines_do_it(text: &str, name: &str) {
        assert_eq!(Reference::parse(text).familiar(), name);
    }

    #[test_case("mysql:8", &["mysql"]; "one name")]
    #[test_case("tutum/wordpress", &["tutum__wordpress", "tutum-wordpress"]; "two names")]
    #[test_case("reg.example.com:5000/ns/img:1", &["reg.example.com__ns__img", "reg.example.com-ns-img"]; "a registry")]
    fn services_are_named_after_their_image(text: &str, names: &[&str]) {
        assert_eq!(Reference::parse(text).service_names(), names);
    }
}
