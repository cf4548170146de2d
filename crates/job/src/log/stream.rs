//! The whole way of one stream.

use chrono::{DateTime, Utc};

use super::{CompiledMasks, Masker, Timestamper, Utf8Repair};

/// Masks, repairs and stamps one stream. Bytes are copied once, into the output, unless a write ends inside a secret or
/// inside a line.
#[derive(Debug)]
pub struct LogStream {
    masker: Masker,
    repair: Utf8Repair,
    stamper: Option<Timestamper>,
}

// === impl LogStream ===

impl LogStream {
    /// Without a stamper (`FF_TIMESTAMPS` off) bytes are not collected into lines.
    #[must_use]
    pub fn new(masker: Masker, stamper: Option<Timestamper>) -> Self {
        Self { masker, repair: Utf8Repair::default(), stamper }
    }

    /// Masks other phrases from here on; for words that are announced while the job runs. They may only become more: what is held
    /// back for the old ones has to be held back for the new ones.
    pub fn adopt(&mut self, masks: &CompiledMasks) {
        self.masker.adopt(masks);
    }

    /// Takes one write and appends to `out` what the log gets: valid UTF-8, at most about the length of the write, the
    /// line held back before it and a header for each line.
    pub fn push(&mut self, now: DateTime<Utc>, bytes: &[u8], out: &mut Vec<u8>) {
        let Self { masker, repair, stamper } = self;
        match stamper {
            Some(stamper) => {
                stamper.set_time(now);
                masker.push_to(bytes, &mut |shown: &[u8]| {
                    repair.push_to(shown, &mut |text: &[u8]| stamper.text(text, out));
                });
                stamper.end_of_write(out);
            }
            None => masker.push_to(bytes, &mut |shown: &[u8]| repair.push(shown, out)),
        }
    }

    /// The stream ends; all that was held back goes out.
    pub fn finish(&mut self, now: DateTime<Utc>, out: &mut Vec<u8>) {
        let Self { masker, repair, stamper } = self;
        match stamper {
            Some(stamper) => {
                stamper.set_time(now);
                masker.finish_to(&mut |shown: &[u8]| {
                    repair.push_to(shown, &mut |text: &[u8]| stamper.text(text, out));
                });
                repair.finish_to(&mut |text: &[u8]| stamper.text(text, out));
                stamper.finish(out);
            }
            None => {
                masker.finish_to(&mut |shown: &[u8]| repair.push(shown, out));
                repair.finish(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Channel, MaskRules};

    const T: &str = "2026-08-22T10:15:30.000000Z 01E";

    #[test]
    fn a_secret_over_a_carriage_return_write_is_masked_before_lines_are_cut() {
        let log = run(true, &[b"10%\rsec", b"ret\n", b"caf\xc3", b"\xa9 \xff\n"]);
        assert_eq!(log, format!("{T} 10%\r\n{T}+[MASKED]\n{T} caf\u{e9} \u{fffd}\n"));
    }

    #[test]
    fn what_was_held_back_comes_out_at_the_end() {
        assert_eq!(run(true, &[b"secr", b""]), format!("{T} secr\n"));
        assert_eq!(run(true, &[b"secr\xc3"]), format!("{T} secr\u{fffd}\n"));
        assert_eq!(run(true, &[]), "");
    }

    #[test]
    fn without_stamps_bytes_pass_as_they_come() {
        assert_eq!(run(false, &[b"a\r", b"se", b"cret", b"\xe4\xb8", b"\x96 secr"]), "a\r[MASKED]世 secr");
    }

    fn run(stamps: bool, writes: &[&[u8]]) -> String {
        let rules = MaskRules { phrases: vec!["secret".to_owned()], ..MaskRules::default() };
        let stamper = stamps.then(|| Timestamper::new(1, Channel::Err));
        let mut stream = LogStream::new(Masker::new(&rules), stamper);
        let now = DateTime::from_timestamp(1_787_393_730, 0).unwrap();
        let mut out = Vec::new();
        for write in writes {
            stream.push(now, write, &mut out);
        }
        stream.finish(now, &mut out);
        String::from_utf8(out).unwrap()
    }
}
