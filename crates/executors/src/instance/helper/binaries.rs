//! The helpers that the manager has, one for each architecture of instances.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// The name of a helper in the folder of its architecture.
const NAME: &str = "drover-helper";
/// Where packages put them.
const PACKAGED: &str = "/usr/lib/drover/helper";

/// Folders with helpers: `<folder>/<architecture>/drover-helper`.
pub(super) struct Binaries {
    folders: Vec<PathBuf>,
    /// One for machines like this one.
    alike: Option<PathBuf>,
    /// Those that are being uploaded somewhere. Nobody else needs their bytes in memory.
    loaded: Mutex<BTreeMap<PathBuf, (Stamp, Weak<Binary>)>>,
}

/// What tells a file that was replaced from the one before.
type Stamp = (u64, Option<SystemTime>);

/// A helper.
pub(super) struct Binary {
    pub(super) path: PathBuf,
    pub(super) bytes: Bytes,
    /// SHA-256 in hexadecimal digits.
    pub(super) digest: String,
}

// === impl Binaries ===

impl Binaries {
    /// Those beside this program, else those that were installed with it, else those of a package.
    pub(super) fn installed() -> Self {
        let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        let mut folders = Vec::new();
        if let Some(beside) = &beside {
            folders.push(beside.join("helper"));
            folders.extend(beside.parent().map(|prefix| prefix.join("lib/drover/helper")));
        }
        folders.push(PACKAGED.into());
        Self { folders, alike: beside.map(|beside| beside.join(NAME)), loaded: Mutex::default() }
    }

    /// Those below a folder, and no others.
    pub(super) fn below(folder: PathBuf) -> Self {
        Self { folders: vec![folder], alike: None, loaded: Mutex::default() }
    }

    /// The helper for a machine, by what `uname -s` and `uname -m` say there.
    pub(super) async fn load(&self, system: &str, machine: &str) -> std::io::Result<Option<Arc<Binary>>> {
        let Some(path) = self.path(system, machine) else { return Ok(None) };
        let metadata = tokio::fs::metadata(&path).await?;
        let stamp = (metadata.len(), metadata.modified().ok());
        let known = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        if let Some((read, binary)) = known
            && read == stamp
            && let Some(binary) = binary.upgrade()
        {
            return Ok(Some(binary));
        }
        let from = path.clone();
        let reading = tokio::task::spawn_blocking(move || Binary::read(from));
        let binary = Arc::new(reading.await.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)))?);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.insert(path, (stamp, Arc::downgrade(&binary)));
        Ok(Some(binary))
    }

    pub(super) fn path(&self, system: &str, machine: &str) -> Option<PathBuf> {
        let architecture = architecture(system, machine)?;
        let alike = self.alike.as_ref().filter(|_| architecture == std::env::consts::ARCH);
        let of_folders = self.folders.iter().map(|folder| folder.join(&architecture).join(NAME));
        of_folders.chain(alike.cloned()).find(|path| path.is_file())
    }
}

impl fmt::Display for Binaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, folder) in self.folders.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", folder.display())?;
        }
        Ok(())
    }
}

// === impl Binary ===

impl Binary {
    fn read(path: PathBuf) -> std::io::Result<Self> {
        let bytes = std::fs::read(&path)?;
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path, bytes: Bytes::from(bytes), digest })
    }

    /// For people.
    pub(super) fn size(&self) -> String {
        let tenths = self.bytes.len().div_ceil(100_000);
        format!("{}.{} MB", tenths / 10, tenths % 10)
    }
}

/// The folder of a kind of machine: the architecture in Rust's words, after the system if that is not Linux. None for a name
/// that is no name.
fn architecture(system: &str, machine: &str) -> Option<String> {
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !plain(system) || !plain(machine) {
        return None;
    }
    let machine = match machine {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    };
    Some(match system {
        "Linux" => machine.to_owned(),
        system => format!("{}-{machine}", system.to_lowercase()),
    })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("Linux", "x86_64" => Some("x86_64".to_owned()))]
    #[test_case("Linux", "arm64" => Some("aarch64".to_owned()))]
    #[test_case("Linux", "riscv64" => Some("riscv64".to_owned()))]
    #[test_case("Darwin", "arm64" => Some("darwin-aarch64".to_owned()))]
    #[test_case("Linux", "../../etc" => None; "an instance does not choose files")]
    #[test_case("", "" => None; "an instance that said nothing")]
    fn each_kind_of_machine_has_a_folder(system: &str, machine: &str) -> Option<String> {
        architecture(system, machine)
    }
}
