//! A file that holds what nobody has read yet.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::inbox::{Piece, Stream};

/// A queue of pieces in an unnamed temporary file: nobody else can open it, and the system frees it when the process ends,
/// however it ends.
#[derive(Debug)]
pub(crate) struct Spill {
    file: Mutex<Positions>,
}

#[derive(Debug)]
struct Positions {
    file: File,
    read: u64,
    written: u64,
}

/// Bytes before each piece: its stream and its length.
const HEADER: usize = 5;

// === impl Spill ===

impl Spill {
    /// Makes the file in `folder`, or in the system's folder for temporary files.
    pub(crate) async fn create(folder: Option<PathBuf>) -> io::Result<Arc<Self>> {
        blocking(move || {
            let file = match folder {
                Some(folder) => tempfile::tempfile_in(folder)?,
                None => tempfile::tempfile()?,
            };
            Ok(Arc::new(Self { file: Mutex::new(Positions { file, read: 0, written: 0 }) }))
        })
        .await
    }

    /// Appends pieces; gives the bytes that the file has grown to.
    pub(crate) async fn append(self: Arc<Self>, pieces: Vec<Piece>) -> io::Result<u64> {
        blocking(move || {
            let mut at = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let end = at.written;
            at.file.seek(SeekFrom::Start(end))?;
            for piece in pieces {
                let mut header = [0; HEADER];
                header[0] = u8::from(piece.stream == Stream::Err);
                // A piece is one SSH packet, far below 4 GiB.
                header[1..]
                    .copy_from_slice(&u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
                at.file.write_all(&header)?;
                at.file.write_all(&piece.bytes)?;
                at.written += (HEADER + piece.bytes.len()) as u64;
            }
            Ok(at.written)
        })
        .await
    }

    /// Takes the oldest pieces back, up to about `limit` bytes.
    pub(crate) async fn take(self: Arc<Self>, limit: usize) -> io::Result<Vec<Piece>> {
        blocking(move || {
            let mut at = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let start = at.read;
            at.file.seek(SeekFrom::Start(start))?;
            let (mut pieces, mut taken) = (Vec::new(), 0);
            while taken < limit && at.read < at.written {
                let mut header = [0; HEADER];
                at.file.read_exact(&mut header)?;
                let [kind, length @ ..] = header;
                let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
                at.file.read_exact(&mut bytes)?;
                at.read += (HEADER + bytes.len()) as u64;
                taken += bytes.len();
                let stream = if kind == 0 { Stream::Out } else { Stream::Err };
                pieces.push(Piece { stream, bytes: Bytes::from(bytes) });
            }
            Ok(pieces)
        })
        .await
    }
}

/// Runs file operations where they may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_come_back_in_order_while_more_are_appended() {
        let piece = |stream, text: &'static str| Piece { stream, bytes: Bytes::from_static(text.as_bytes()) };
        let spill = Spill::create(None).await.unwrap();
        spill.clone().append(vec![piece(Stream::Out, "one"), piece(Stream::Err, "two")]).await.unwrap();

        assert_eq!(spill.clone().take(1).await.unwrap(), [piece(Stream::Out, "one")]);

        spill.clone().append(vec![piece(Stream::Out, "")]).await.unwrap();
        assert_eq!(spill.take(100).await.unwrap(), [piece(Stream::Err, "two"), piece(Stream::Out, "")]);
    }
}
