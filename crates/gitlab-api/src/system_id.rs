//! The identity of one manager.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Name of the file beside the configuration file.
const FILE: &str = ".runner_system_id";
const LENGTH: usize = 12;

/// The identity of one manager: `s_` (derived from the machine) or `r_` (random), and twelve letters or digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SystemId(String);

/// The file with the identity exists and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the system id from `{}`", path.display())]
pub struct SystemIdError {
    path: PathBuf,
    source: std::io::Error,
}

/// The id of this machine, if the system has one.
#[must_use]
pub fn machine_id() -> Option<String> {
    ["/var/lib/dbus/machine-id", "/etc/machine-id"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|id| !id.is_empty())
}

// === impl SystemId ===

impl SystemId {
    /// Reads an identity; surrounding white space is allowed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let rest = text.strip_prefix("s_").or_else(|| text.strip_prefix("r_"))?;
        let fits = rest.len() == LENGTH && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned()))
    }

    /// Derives the identity from the machine's id, which cannot be guessed back: the first 12 hex digits of HMAC-SHA256 with the
    /// machine id as key and `gitlab-runner` as message, so that GitLab sees the manager that it knows. Without a
    /// machine id, or with an empty one, it is made from `random`.
    #[must_use]
    pub fn generate(machine_id: Option<&str>, random: &mut impl rand::Rng) -> Self {
        let derived = machine_id
            .filter(|id| !id.is_empty())
            .and_then(|id| Hmac::<Sha256>::new_from_slice(id.as_bytes()).ok())
            .map(|mac| hex::encode(mac.chain_update(b"gitlab-runner").finalize().into_bytes()));
        match derived {
            Some(digits) => Self(format!("s_{}", &digits[..LENGTH])),
            None => {
                const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
                use rand::RngExt as _;
                let letters = (0..LENGTH).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]));
                Self(format!("r_{}", letters.collect::<String>()))
            }
        }
    }

    /// Reads `.runner_system_id` in the directory of the configuration file, and changes nothing. `None` if it is missing or holds
    /// no identity.
    ///
    /// # Errors
    /// [`SystemIdError`] if the file exists and cannot be read.
    pub fn load(directory: &Path) -> Result<Option<Self>, SystemIdError> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SystemIdError { path, source }),
        }
    }

    /// Reads `.runner_system_id` in the directory of the configuration file. If it is missing or holds no identity, one is
    /// generated and written (directory 0700, file 0600); failing to write is a warning, and the identity holds for this process.
    ///
    /// # Errors
    /// [`SystemIdError`] if the file exists and cannot be read: making a new identity would make a second manager of this one.
    pub fn load_or_create(
        directory: &Path,
        machine_id: Option<&str>,
        random: &mut impl rand::Rng,
    ) -> Result<Self, SystemIdError> {
        let path = directory.join(FILE);
        if let Some(id) = Self::load(directory)? {
            return Ok(id);
        }
        if path.exists() {
            tracing::warn!(path = %path.display(), "the system id file holds no system id and is replaced");
        }
        let id = Self::generate(machine_id, random);
        if let Err(error) = write(directory, &path, &id.0) {
            tracing::warn!(path = %path.display(), %error, "failed to write the system id; it holds until the process ends");
        }
        Ok(id)
    }

    /// The identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes a new file and moves it into place, so that no reader sees half of it.
fn write(directory: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        builder.mode(0o700);
        options.mode(0o600);
    }
    builder.create(directory)?;
    let fresh = directory.join(format!("{FILE}.{}", std::process::id()));
    // A leftover of a process with the same number that died in between.
    let _ = std::fs::remove_file(&fresh);
    let mut file = options.open(&fresh)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn rng() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    #[test]
    fn it_is_derived_from_the_machine_as_gitlab_runner_derives_it() {
        // printf gitlab-runner | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let id = SystemId::generate(Some("0123456789abcdef0123456789abcdef"), &mut rng());
        assert_eq!(id.as_str(), "s_ee3af03959fe");
    }

    #[test]
    fn without_a_machine_id_it_is_random_but_well_formed() {
        let mut random = rng();
        let (one, two) = (SystemId::generate(None, &mut random), SystemId::generate(Some(""), &mut random));
        assert_ne!(one, two);
        assert!(one.as_str().starts_with("r_"));
        assert_eq!(SystemId::parse(one.as_str()), Some(one));
    }

    #[test]
    fn only_the_documented_form_is_an_identity() {
        assert!(SystemId::parse(" s_0123456789aZ\n").is_some());
        for odd in ["", "s_", "s_0123456789a", "s_0123456789abc", "x_0123456789ab", "s_0123456789a-"] {
            assert_eq!(SystemId::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn it_is_written_once_and_only_for_the_owner() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("conf");
        let first = SystemId::load_or_create(&directory, None, &mut rng()).unwrap();
        let again = SystemId::load_or_create(&directory, Some("machine"), &mut rng()).unwrap();
        assert_eq!(first, again);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn looking_for_it_makes_none() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(SystemId::load(home.path()).unwrap(), None);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        let made = SystemId::load_or_create(home.path(), None, &mut rng()).unwrap();
        assert_eq!(SystemId::load(home.path()).unwrap(), Some(made));
    }

    #[test]
    fn a_spoilt_file_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), "nonsense").unwrap();
        let id = SystemId::load_or_create(home.path(), None, &mut rng()).unwrap();
        assert_eq!(std::fs::read_to_string(home.path().join(FILE)).unwrap(), id.as_str());
    }

    #[test]
    fn an_unreadable_file_is_an_error_and_an_unwritable_place_is_not() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(FILE)).unwrap();
        let error = SystemId::load_or_create(home.path(), None, &mut rng()).unwrap_err();
        assert!(error.to_string().starts_with("failed to read the system id from"));
        let nowhere = Path::new("/proc/no-such-place");
        assert!(SystemId::load_or_create(nowhere, None, &mut rng()).is_ok());
    }
}
