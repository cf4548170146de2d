//! Where the file is.

use std::path::{Path, PathBuf};

/// The variable that names the file.
const VARIABLE: &str = "CONFIG_FILE";

/// The file to use: `given` on the command line, else what `CONFIG_FILE` says, else GitLab Runner's default for the user.
#[must_use]
pub fn default_path(given: Option<&Path>) -> PathBuf {
    let is_root = nix::unistd::geteuid().is_root();
    resolve_path(given, is_root, &|name| std::env::var(name).ok())
}

/// The same, as a function of its inputs: root has `/etc/gitlab-runner/config.toml`, everyone else
/// `~/.gitlab-runner/config.toml`; without a home it is `config.toml` in the working directory.
fn resolve_path(
    given: Option<&Path>,
    is_root: bool,
    environment: &dyn Fn(&str) -> Option<String>,
) -> PathBuf {
    let named = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(given) = given {
        return given.to_owned();
    }
    if let Some(named) = named(VARIABLE) {
        return named.into();
    }
    if is_root {
        return PathBuf::from("/etc/gitlab-runner/config.toml");
    }
    match named("HOME") {
        Some(home) => PathBuf::from(home).join(".gitlab-runner").join("config.toml"),
        None => PathBuf::from("config.toml"),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(Some("/a.toml"), Some("/b.toml"), true, "/a.toml"; "the command line wins")]
    #[test_case(None, Some("/b.toml"), true, "/b.toml"; "then the variable")]
    #[test_case(None, Some(""), true, "/etc/gitlab-runner/config.toml"; "an empty variable is none")]
    #[test_case(None, None, true, "/etc/gitlab-runner/config.toml"; "root")]
    #[test_case(None, None, false, "/home/ci/.gitlab-runner/config.toml"; "a user")]
    fn the_file_is_found(given: Option<&str>, variable: Option<&str>, root: bool, expected: &str) {
        let environment = |name: &str| match name {
            "CONFIG_FILE" => variable.map(ToOwned::to_owned),
            "HOME" => Some("/home/ci".to_owned()),
            _ => None,
        };
        assert_eq!(resolve_path(given.map(Path::new), root, &environment), PathBuf::from(expected));
    }
}
