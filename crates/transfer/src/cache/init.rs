//! `cache-init`: opens the folders of cache volumes to whichever user a job's image has.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::CacheError;

/// Arguments of `cache-init`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct InitArgs {
    /// Folders that everybody may write to
    #[arg(value_name = "PATH", value_parser = crate::flags::path)]
    pub paths: Vec<PathBuf>,
}

/// Lets everybody read and write the folders. Relative ones are below `directory`.
///
/// # Errors
/// [`CacheError::NoPaths`], or [`CacheError::Init`] with the first folder that is not there or not ours.
pub fn init(options: &InitArgs, directory: &Path) -> Result<(), CacheError> {
    if options.paths.is_empty() {
        return Err(CacheError::NoPaths);
    }
    for path in &options.paths {
        std::fs::set_permissions(directory.join(path), Permissions::from_mode(0o777))
            .map_err(|source| CacheError::Init { path: path.clone(), source })?;
    }
    Ok(())
}
