//! Unpacks gzip members: the reverse of GitLab's format for reports.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use flate2::bufread::GzDecoder;

use super::tree::Tree;
use super::{Attributes, ExtractError, Reader};
use crate::archive::{Stamp, gzip::untext};

/// Unpacks every member into the path that its comment names, or else its name.
pub(super) fn extract(archive: &File, tree: &Tree) -> Result<(), ExtractError> {
    let mut reader = BufReader::with_capacity(128 << 10, Reader::new(archive).map_err(ExtractError::Read)?);
    let mut buffer = Vec::new();
    while !reader.fill_buf().map_err(ExtractError::Read)?.is_empty() {
        let mut member = GzDecoder::new(&mut reader);
        let Some(header) = member.header() else {
            return Err(ExtractError::Corrupt("a gzip member has no header".to_owned()));
        };
        let Some(name) = header.comment().or(header.filename()).filter(|name| !name.is_empty()) else {
            return Err(ExtractError::Corrupt("a gzip member has no name".to_owned()));
        };
        let path = Tree::path(&untext(name))?;
        let modified = (header.mtime() > 0).then(|| Stamp { seconds: header.mtime().into(), nanos: 0 });
        let attributes = Attributes { mode: None, modified, owner: None };
        tree.file(&path, &mut member, attributes, &mut buffer)?;
    }
    Ok(())
}
