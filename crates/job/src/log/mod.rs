//! The bytes of a job log on their way from a process to the log that GitLab shows: pure, streaming, no I/O.
//!
//! [`LogStream`] is the whole way of one stream: secrets are masked ([`Masker`]), invalid UTF-8 is replaced
//! ([`Utf8Repair`]), lines get time and stream number ([`Timestamper`]). Many streams end in one log, whose size a
//! [`SizeLimit`] bounds. The runner's own words are made by [`runner_line`], [`section_start`] and [`section_end`].
//!
//! ```
//! use drover_job::log::{Channel, CompiledMasks, LogStream, MaskRules, Timestamper};
//!
//! let masks = CompiledMasks::new(&MaskRules { phrases: vec!["hunter2".to_owned()], ..MaskRules::default() });
//! let mut stdout = LogStream::new(masks.masker(), Some(Timestamper::new(1, Channel::Out)));
//! let now = chrono::DateTime::from_timestamp(1_787_393_730, 123_456_000).unwrap();
//! let mut log = Vec::new();
//! stdout.push(now, b"password: hun", &mut log); // a secret may be split over any number of writes
//! stdout.push(now, b"ter2\n", &mut log);
//! stdout.finish(now, &mut log);
//! assert_eq!(String::from_utf8(log).unwrap(), "2026-08-22T10:15:30.123456Z 01O password: [MASKED]\n");
//! ```
//!
//! Differences from GitLab Runner, all visible in a log and none in its format:
//!
//! - every token prefix that the server names is masked; GitLab Runner uses only the shortest 15;
//! - UTF-8 is repaired before lines are cut, so a forced line break never splits a character;
//! - one U+FFFD stands for one ill-formed sequence, not for each of its bytes;
//! - lines that arrive in one write carry the same time, that of the write.
//!
//! Like GitLab Runner each stream is masked on its own: a secret of which one part goes to stdout and the other to
//! stderr is not found. Values that a program re-encodes (base64, URL escapes) are not found either.

mod announced;
mod find;
mod limit;
mod lines;
mod mask;
mod stream;
mod timestamp;
mod utf8;

pub use announced::{Announcements, Piece};
pub use limit::{Admission, SizeLimit, Source};
pub use lines::{LineKind, runner_line, section_end, section_start};
pub use mask::{CompiledMasks, DEFAULT_TOKEN_PREFIXES, MASK, MaskRules, Masker};
pub use stream::LogStream;
pub use timestamp::{Channel, HEADER_LEN, MAX_LINE, Timestamper};
pub use utf8::Utf8Repair;
