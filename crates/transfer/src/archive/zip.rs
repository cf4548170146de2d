//! Writes zip archives to something that cannot seek.
//!
//! What fits into one piece has its sizes in front; larger files carry them behind (a *data descriptor*), as GitLab Runner's
//! archives always do. zip64 is used where sizes or offsets need it.

use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use chrono::{DateTime, Datelike as _, Timelike as _};

use super::pieces::{self, Content, Method, PIECE};
use super::{ArchiveError, Entry, Kind, Stamp};
use crate::Console;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const ZSTD: u16 = 93;

/// Sizes follow the content.
const DESCRIPTOR: u16 = 1 << 3;
/// The name is UTF-8.
const UTF8: u16 = 1 << 11;

const MADE_ON_UNIX: u16 = 3 << 8;
const VERSION: u16 = 20;
const VERSION_ZIP64: u16 = 45;
const VERSION_ZSTD: u16 = 63;

/// A value that says: look into the zip64 field.
const ELSEWHERE: u32 = u32::MAX;
/// A file above this size gets zip64 sizes: its compressed content may be a little larger than itself.
const LARGE: u64 = 0xf000_0000;

struct Writer<'a> {
    out: &'a mut dyn Write,
    /// Bytes written.
    position: u64,
    /// Records of the central directory so far.
    directory: Vec<u8>,
    records: u64,
    packed_method: u16,
    current: Option<Current>,
}

/// The entry that is being written.
struct Current {
    offset: u64,
    flags: u16,
    method: u16,
    zip64: bool,
    crc: crc32fast::Hasher,
    packed: u64,
    length: u64,
}

/// Little-endian fields.
#[derive(Default)]
struct Record(Vec<u8>);

/// Writes an archive.
pub(super) fn write(
    method: Method,
    root: &Path,
    entries: &[Entry],
    out: &mut dyn Write,
    console: &Console,
) -> Result<(), ArchiveError> {
    let packed_method = match method {
        Method::Deflate(_) => DEFLATED,
        Method::Zstd(_) => ZSTD,
    };
    let mut writer =
        Writer { out, position: 0, directory: Vec::new(), records: 0, packed_method, current: None };
    pieces::each(method, true, root, entries, |piece| {
        let entry = &entries[piece.entry];
        match piece.content {
            Content::Gone => {
                console.warning(&format!("{}: has vanished and is left out", entry.path.display()));
                Ok(())
            }
            content @ (Content::Stored { .. } | Content::Packed { .. }) => {
                writer.piece(entry, piece.first, piece.last, content).map_err(ArchiveError::Write)
            }
        }
    })?;
    writer.finish().map_err(ArchiveError::Write)
}

// === impl Writer ===

impl Writer<'_> {
    fn piece(&mut self, entry: &Entry, first: bool, last: bool, content: Content) -> std::io::Result<()> {
        let (bytes, crc, length, method) = match content {
            Content::Gone => return Ok(()),
            Content::Stored { bytes, crc } => {
                let length = bytes.len() as u64;
                (bytes, crc, length, STORED)
            }
            Content::Packed { bytes, crc, length } => (bytes, crc, length, self.packed_method),
        };
        let mut current = match self.current.take() {
            Some(current) if !first => current,
            Some(_) | None => {
                let mut current = Current {
                    offset: self.position,
                    flags: if std::str::from_utf8(entry.path.as_os_str().as_bytes()).is_ok() {
                        UTF8
                    } else {
                        0
                    },
                    method,
                    zip64: entry.size > LARGE,
                    crc: crc32fast::Hasher::new(),
                    packed: 0,
                    length: 0,
                };
                if last {
                    current.add(&crc, bytes.len() as u64, length);
                } else {
                    current.flags |= DESCRIPTOR;
                }
                self.put(&local_header(entry, &current))?;
                current
            }
        };
        self.put(&bytes)?;
        if current.flags & DESCRIPTOR != 0 {
            current.add(&crc, bytes.len() as u64, length);
        }
        if !last {
            self.current = Some(current);
            return Ok(());
        }
        if current.flags & DESCRIPTOR != 0 {
            self.put(&descriptor(&current))?;
        }
        self.directory.extend(central_record(entry, &current));
        self.records += 1;
        Ok(())
    }

    /// Writes the central directory and its end.
    fn finish(mut self) -> std::io::Result<()> {
        let offset = self.position;
        let directory = std::mem::take(&mut self.directory);
        self.put(&directory)?;
        let size = directory.len() as u64;
        let records = self.records;
        if records >= u64::from(u16::MAX) || offset >= u64::from(ELSEWHERE) || size >= u64::from(ELSEWHERE) {
            let end64 = self.position;
            let mut record = Record::default();
            record.u32(0x0606_4b50).u64(44).u16(MADE_ON_UNIX | VERSION_ZIP64).u16(VERSION_ZIP64);
            record.u32(0).u32(0).u64(records).u64(records).u64(size).u64(offset);
            record.u32(0x0706_4b50).u32(0).u64(end64).u32(1);
            self.put(&record.0)?;
        }
        let count = u16::try_from(records).unwrap_or(u16::MAX);
        let mut record = Record::default();
        record
            .u32(0x0605_4b50)
            .u16(0)
            .u16(0)
            .u16(count)
            .u16(count)
            .u32(clamp(size))
            .u32(clamp(offset))
            .u16(0);
        self.put(&record.0)?;
        self.out.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

// === impl Current ===

impl Current {
    fn add(&mut self, crc: &crc32fast::Hasher, packed: u64, length: u64) {
        self.crc.combine(crc);
        self.packed += packed;
        self.length += length;
    }

    fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    fn version(&self) -> u16 {
        match self.method {
            ZSTD => VERSION_ZSTD,
            _ if self.zip64 => VERSION_ZIP64,
            _ => VERSION,
        }
    }
}

fn local_header(entry: &Entry, current: &Current) -> Vec<u8> {
    let name = name(entry);
    let mut extra = times_and_owner(entry);
    // With sizes behind the content the ones in front are zero, and the zip64 field says how long those behind are.
    let known = current.flags & DESCRIPTOR == 0;
    let (crc, packed, length) =
        if known { (current.crc(), current.packed, current.length) } else { (0, 0, 0) };
    let mut sizes = [clamp(packed), clamp(length)];
    if current.zip64 {
        sizes = [ELSEWHERE; 2];
        let mut field = Record::default();
        field.u16(1).u16(16).u64(length).u64(packed);
        extra.extend(field.0);
    }
    let (time, date) = dos_time(entry.modified);
    let mut record = Record::default();
    record.u32(0x0403_4b50).u16(current.version()).u16(current.flags).u16(current.method);
    record.u16(time).u16(date).u32(crc).u32(sizes[0]).u32(sizes[1]);
    record.u16(clamp16(name.len())).u16(clamp16(extra.len()));
    record.0.extend(name);
    record.0.extend(extra);
    record.0
}

fn descriptor(current: &Current) -> Vec<u8> {
    let mut record = Record::default();
    record.u32(0x0807_4b50).u32(current.crc());
    if current.zip64 {
        record.u64(current.packed).u64(current.length);
    } else {
        record.u32(clamp(current.packed)).u32(clamp(current.length));
    }
    record.0
}

fn central_record(entry: &Entry, current: &Current) -> Vec<u8> {
    let name = name(entry);
    let mut extra = times_and_owner(entry);
    let far = current.offset >= u64::from(ELSEWHERE);
    let mut large = Record::default();
    if current.zip64 {
        large.u64(current.length).u64(current.packed);
    }
    if far {
        large.u64(current.offset);
    }
    if !large.0.is_empty() {
        let mut field = Record::default();
        field.u16(1).u16(clamp16(large.0.len()));
        extra.extend(field.0);
        extra.extend(large.0);
    }
    let sizes = if current.zip64 { [ELSEWHERE; 2] } else { [clamp(current.packed), clamp(current.length)] };
    let version = if far { current.version().max(VERSION_ZIP64) } else { current.version() };
    let (time, date) = dos_time(entry.modified);
    let mut record = Record::default();
    record.u32(0x0201_4b50).u16(MADE_ON_UNIX | version).u16(version);
    record.u16(current.flags).u16(current.method).u16(time).u16(date).u32(current.crc());
    record.u32(sizes[0]).u32(sizes[1]).u16(clamp16(name.len())).u16(clamp16(extra.len()));
    record.u16(0).u16(0).u16(0).u32(attributes(entry)).u32(clamp(current.offset));
    record.0.extend(name);
    record.0.extend(extra);
    record.0
}

fn name(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.as_os_str().as_bytes().to_vec();
    if entry.kind == Kind::Directory {
        name.push(b'/');
    }
    name
}

/// Unix mode in the upper half, the directory bit of DOS in the lower.
fn attributes(entry: &Entry) -> u32 {
    let (kind, dos) = match entry.kind {
        Kind::File => (0o100_000, 0),
        Kind::Directory => (0o040_000, 0x10),
        Kind::Link => (0o120_000, 0),
    };
    (kind | entry.mode & 0o7777) << 16 | dos
}

/// Modification time (`UT`) and owner (`ux`), as Info-ZIP writes them.
fn times_and_owner(entry: &Entry) -> Vec<u8> {
    let mut extra = Record::default();
    if let Ok(seconds) = i32::try_from(entry.modified.seconds) {
        extra.u16(0x5455).u16(5).u8(1).u32(seconds.cast_unsigned());
    }
    extra.u16(0x7875).u16(11).u8(1).u8(4).u32(entry.uid).u8(4).u32(entry.gid);
    extra.0
}

/// Time and date of MS-DOS, in UTC; the years from 1980 to 2107.
fn dos_time(stamp: Stamp) -> (u16, u16) {
    const FIRST: (u16, u16) = (0, 1 << 5 | 1);
    let Some(time) = DateTime::from_timestamp(stamp.seconds, 0) else { return FIRST };
    let Some(year) = time.year().checked_sub(1980).filter(|year| (0..128).contains(year)) else {
        return FIRST;
    };
    let clock = (time.hour() << 11) | (time.minute() << 5) | (time.second() / 2);
    let date = year.cast_unsigned() << 9 | time.month() << 5 | time.day();
    (u16::try_from(clock).unwrap_or(0), u16::try_from(date).unwrap_or(FIRST.1))
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(ELSEWHERE)
}

fn clamp16(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

// === impl Record ===

impl Record {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }
}

const _: () = assert!(PIECE < LARGE, "what fits into one piece needs no zip64 sizes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_times_keep_to_their_range() {
        assert_eq!(dos_time(Stamp { seconds: 0, nanos: 0 }), (0, 33));
        // 2026-01-02 03:04:05
        let stamp = Stamp { seconds: 1_767_323_045, nanos: 0 };
        assert_eq!(dos_time(stamp), (3 << 11 | 4 << 5 | 2, 46 << 9 | 1 << 5 | 2));
        assert_eq!(dos_time(Stamp { seconds: i64::MAX, nanos: 0 }), (0, 33));
    }

    /// A file of 4 GiB and more cannot be made cheaply; its records can.
    #[test]
    fn large_files_have_zip64_sizes_and_far_ones_zip64_offsets() {
        let entry = Entry {
            path: "big".into(),
            kind: Kind::File,
            mode: 0o644,
            size: 5 << 30,
            modified: Stamp::default(),
            uid: 0,
            gid: 0,
        };
        let current = Current {
            offset: 6 << 30,
            flags: DESCRIPTOR | UTF8,
            method: DEFLATED,
            zip64: true,
            crc: crc32fast::Hasher::new(),
            packed: 4 << 30,
            length: 5 << 30,
        };
        let central = central_record(&entry, &current);
        let mut wanted = Record::default();
        wanted.u16(1).u16(24).u64(5 << 30).u64(4 << 30).u64(6 << 30);
        assert!(central.ends_with(&wanted.0));
        assert_eq!(central[20..28], [0xff; 8]);
        assert_eq!(central[42..46], [0xff; 4]);
        assert_eq!(descriptor(&current).len(), 24);
        let mut wanted = Record::default();
        wanted.u16(1).u16(16).u64(0).u64(0);
        assert!(local_header(&entry, &current).ends_with(&wanted.0));
    }
}
