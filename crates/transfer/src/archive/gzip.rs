//! One gzip member per regular file, put one behind the other: GitLab's format for reports.

use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::pieces::{self, Content, Method};
use super::{ArchiveError, Entry, Kind};
use crate::Console;

/// Writes the members.
pub(super) fn write(
    level: u32,
    root: &Path,
    entries: &[Entry],
    out: &mut dyn Write,
    console: &Console,
) -> Result<(), ArchiveError> {
    let files: Vec<Entry> = entries.iter().filter(|entry| entry.kind == Kind::File).cloned().collect();
    let mut crc = crc32fast::Hasher::new();
    let mut length = 0_u64;
    pieces::each(Method::Deflate(level), false, root, &files, |piece| {
        let entry = &files[piece.entry];
        let bytes = match piece.content {
            Content::Gone => {
                console.warning(&format!("{}: has vanished and is left out", entry.path.display()));
                return Ok(());
            }
            Content::Stored { bytes, .. } => bytes,
            Content::Packed { bytes, crc: of_piece, length: of_raw } => {
                crc.combine(&of_piece);
                length += of_raw;
                bytes
            }
        };
        if piece.first {
            out.write_all(&header(entry)).map_err(ArchiveError::Write)?;
        }
        out.write_all(&bytes).map_err(ArchiveError::Write)?;
        if piece.last {
            let crc = std::mem::take(&mut crc).finalize();
            out.write_all(&crc.to_le_bytes()).map_err(ArchiveError::Write)?;
            // The format keeps the length modulo 2^32.
            #[expect(clippy::cast_possible_truncation, reason = "that is what the format asks for")]
            let length = std::mem::take(&mut length) as u32;
            out.write_all(&length.to_le_bytes()).map_err(ArchiveError::Write)?;
        }
        Ok(())
    })
}

/// The head of a member: name is the base name, comment is the path, both ended by a zero byte.
fn header(entry: &Entry) -> Vec<u8> {
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const UNIX: u8 = 3;
    let modified = u32::try_from(entry.modified.seconds).unwrap_or(0);
    let mut head = vec![0x1f, 0x8b, 8, NAME | COMMENT];
    head.extend(modified.to_le_bytes());
    head.extend([0, UNIX]);
    head.extend(text(entry.path.file_name().map_or(&[], |name| name.as_bytes())));
    head.push(0);
    head.extend(text(entry.path.as_os_str().as_bytes()));
    head.push(0);
    head
}

/// gzip's texts are Latin-1; what is not ASCII is percent-encoded after `e:` (GitLab Runner's convention).
fn text(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_ascii() {
        return bytes.to_vec();
    }
    let mut out = b"e:".to_vec();
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            other => out.extend(format!("%{other:02X}").into_bytes()),
        }
    }
    out
}

/// The reverse of [`text`].
pub(crate) fn untext(text: &[u8]) -> Vec<u8> {
    let Some(encoded) = text.strip_prefix(b"e:") else { return text.to_vec() };
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
            }
            (other, _) => {
                out.push(*other);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_ascii_come_back() {
        assert_eq!(text(b"a b.xml"), b"a b.xml");
        assert_eq!(text("ä/b".as_bytes()), b"e:%C3%A4%2Fb");
        for name in ["plain", "über/maß.xml", "100%"] {
            assert_eq!(untext(&text(name.as_bytes())), name.as_bytes());
        }
    }
}
