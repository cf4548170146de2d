//! One file as it is.

use std::fs::File;
use std::io::{Read as _, Write};
use std::path::Path;

use super::{ArchiveError, Entry, only_file};

const BUFFER: usize = 256 << 10;

/// Writes the only file, exactly as many bytes as it had when it was selected: the length has been announced.
pub(super) fn write(root: &Path, entries: &[Entry], out: &mut dyn Write) -> Result<(), ArchiveError> {
    let entry = only_file(entries)?;
    let failed = |source| ArchiveError::Read { path: entry.path.clone(), source };
    let mut file = File::open(root.join(&entry.path)).map_err(failed)?.take(entry.size);
    let mut buffer = vec![0; BUFFER];
    let mut left = entry.size;
    while left > 0 {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Err(failed(std::io::Error::other("the file has become shorter")));
        }
        out.write_all(&buffer[..count]).map_err(ArchiveError::Write)?;
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}
