//! Files cut into pieces, each read and compressed on its own.
//!
//! A piece of a deflate stream that is not the last ends with a flush to a whole byte, so pieces can be put one behind the other;
//! a piece of zstd is a frame of its own, and a stream may have many.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::{ArchiveError, Entry, Kind, ordered};

/// Length of a piece before compression. Files up to this size are compressed in one go.
pub(crate) const PIECE: u64 = 1 << 20;

/// How file content is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Level 0 to 9.
    Deflate(u32),
    /// Level 1 to 22.
    Zstd(i32),
}

/// A compressed piece of an entry.
pub(crate) struct Piece {
    /// Place of the entry in the list.
    pub(crate) entry: usize,
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) content: Content,
}

/// What a piece holds.
pub(crate) enum Content {
    /// The entry has vanished since it was selected.
    Gone,
    /// Bytes as they are: directories (none), links (their target), and pieces that do not get smaller.
    Stored { bytes: Vec<u8>, crc: crc32fast::Hasher },
    /// Compressed bytes.
    Packed { bytes: Vec<u8>, crc: crc32fast::Hasher, length: u64 },
}

/// A piece before its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    entry: usize,
    offset: u64,
    length: u64,
    last: bool,
}

/// Compresses; keeps its tables and its buffer between pieces.
enum Packer {
    Deflate(Box<Compress>, u32),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

/// Reads and compresses all entries and hands their pieces on in order. `keep_small` allows pieces that are whole files to be stored.
pub(crate) fn each(
    method: Method,
    keep_small: bool,
    root: &Path,
    entries: &[Entry],
    mut sink: impl FnMut(Piece) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let threads = ordered::threads();
    let worker = || {
        let mut packer = None;
        let mut buffer = Vec::new();
        move |cut: Cut| {
            let entry = &entries[cut.entry];
            let content = match &mut packer {
                Some(packer) => make(packer, &mut buffer, keep_small, root, entry, cut),
                none => match Packer::new(method) {
                    Ok(fresh) => make(none.insert(fresh), &mut buffer, keep_small, root, entry, cut),
                    Err(source) => Err(ArchiveError::Compress { path: entry.path.clone(), source }),
                },
            }?;
            Ok(Piece { entry: cut.entry, first: cut.offset == 0, last: cut.last, content })
        }
    };
    let window = threads * 4;
    ordered::in_order(cuts(entries), threads, window, worker, |piece: Result<Piece, ArchiveError>| {
        sink(piece?)
    })
}

/// Reads up to `length` bytes at `offset` into `buffer`, less only where the file ends. False if the file has vanished.
pub(crate) fn read(
    root: &Path,
    entry: &Entry,
    offset: u64,
    length: u64,
    buffer: &mut Vec<u8>,
) -> Result<bool, ArchiveError> {
    let failed = |source| ArchiveError::Read { path: entry.path.clone(), source };
    let file = match File::open(root.join(&entry.path)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    let start = buffer.len();
    buffer.resize(start + usize::try_from(length).unwrap_or(usize::MAX), 0);
    let mut filled = start;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + (filled - start) as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    buffer.truncate(filled);
    Ok(true)
}

/// The target of a link; `None` if it has vanished.
pub(crate) fn read_link(root: &Path, entry: &Entry) -> Result<Option<Vec<u8>>, ArchiveError> {
    use std::os::unix::ffi::OsStringExt as _;
    match std::fs::read_link(root.join(&entry.path)) {
        Ok(target) => Ok(Some(target.into_os_string().into_vec())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ArchiveError::Read { path: entry.path.clone(), source }),
    }
}

/// All pieces of all entries.
fn cuts(entries: &[Entry]) -> impl Iterator<Item = Cut> + '_ {
    entries.iter().enumerate().flat_map(|(index, entry)| {
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let count = size.div_ceil(PIECE).max(1);
        (0..count).map(move |number| Cut {
            entry: index,
            offset: number * PIECE,
            length: (size - number * PIECE).min(PIECE),
            last: number + 1 == count,
        })
    })
}

fn make(
    packer: &mut Packer,
    buffer: &mut Vec<u8>,
    keep_small: bool,
    root: &Path,
    entry: &Entry,
    cut: Cut,
) -> Result<Content, ArchiveError> {
    let stored = |bytes: Vec<u8>| {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes);
        Content::Stored { bytes, crc }
    };
    match entry.kind {
        Kind::Directory => return Ok(stored(Vec::new())),
        Kind::Link => return Ok(read_link(root, entry)?.map_or(Content::Gone, stored)),
        Kind::File => {}
    }
    buffer.clear();
    if !read(root, entry, cut.offset, cut.length, buffer)? && cut.offset == 0 {
        return Ok(Content::Gone);
    }
    let whole = keep_small && cut.offset == 0 && cut.last;
    if whole && (buffer.is_empty() || packer.is_store()) {
        return Ok(stored(std::mem::take(buffer)));
    }
    let bytes = packer
        .pack(buffer, cut.last)
        .map_err(|source| ArchiveError::Compress { path: entry.path.clone(), source })?;
    if whole && bytes.len() >= buffer.len() {
        return Ok(stored(std::mem::take(buffer)));
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(buffer);
    Ok(Content::Packed { bytes, crc, length: buffer.len() as u64 })
}

// === impl Packer ===

impl Packer {
    fn new(method: Method) -> io::Result<Self> {
        Ok(match method {
            Method::Deflate(level) => {
                Self::Deflate(Box::new(Compress::new(Compression::new(level), false)), level)
            }
            Method::Zstd(level) => Self::Zstd(Box::new(zstd::bulk::Compressor::new(level)?)),
        })
    }

    fn is_store(&self) -> bool {
        matches!(self, Self::Deflate(_, 0))
    }

    /// Compresses one piece.
    fn pack(&mut self, input: &[u8], last: bool) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(packer) => packer.compress(input),
            Self::Deflate(packer, _) => {
                packer.reset();
                let mut out = Vec::with_capacity(input.len() / 2 + 256);
                let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
                loop {
                    let consumed = usize::try_from(packer.total_in()).unwrap_or(usize::MAX);
                    let status = packer.compress_vec(&input[consumed..], &mut out, flush)?;
                    let all_read = packer.total_in() == input.len() as u64;
                    // Room left over means that nothing more waits to be written.
                    let flushed = all_read && !last && out.len() < out.capacity();
                    if status == Status::StreamEnd || flushed {
                        return Ok(out);
                    }
                    out.reserve(input.len() / 4 + 256);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> Entry {
        Entry {
            path: "f".into(),
            kind: Kind::File,
            mode: 0o644,
            size,
            modified: super::super::Stamp::default(),
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn files_are_cut_without_gaps() {
        let lengths = |size| cuts(&[file(size)]).map(|cut| (cut.length, cut.last)).collect::<Vec<_>>();
        assert_eq!(lengths(0), [(0, true)]);
        assert_eq!(lengths(PIECE), [(PIECE, true)]);
        assert_eq!(lengths(2 * PIECE + 1), [(PIECE, false), (PIECE, false), (1, true)]);
    }

    #[test]
    fn pieces_of_deflate_can_be_put_together() {
        use std::io::Read as _;
        let text: Vec<u8> = (0..200_000_u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        for level in [0, 1, 5, 9] {
            let mut packer = Packer::new(Method::Deflate(level)).unwrap();
            let mut stream = packer.pack(&text[..300_000], false).unwrap();
            stream.extend(packer.pack(&[], false).unwrap());
            stream.extend(packer.pack(&text[300_000..], true).unwrap());
            let mut back = Vec::new();
            flate2::read::DeflateDecoder::new(&stream[..]).read_to_end(&mut back).unwrap();
            assert!(back == text, "level {level}");
        }
    }
}
