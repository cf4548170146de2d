//! Time and stream number in front of each line, in the form that GitLab takes apart again.

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};

use super::utf8;

/// Bytes in front of each line: `2026-08-22T10:15:30.123456Z 01O ` (a `+` in the last place continues a line).
pub const HEADER_LEN: usize = 32;

/// Bytes of a line without end that are collected before it is broken.
pub const MAX_LINE: usize = 8 * 1024;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Stamps the lines of one stream.
///
/// A line goes out when its end has come. It is broken, and continued by a line marked `+`, when a write ends in text
/// with a carriage return (a progress bar) and when 8 KiB have come without an end, so that memory stays bounded. The
/// time of a line is that of the write with its first byte.
#[derive(Debug)]
pub struct Timestamper {
    /// Header with the time of the last write; its last byte is set when a line begins.
    header: [u8; HEADER_LEN],
    /// Second in the header, since formatting a date for every write is what would cost most.
    second: Option<i64>,
    /// Header and text of the line that has no end yet; empty between lines.
    line: Vec<u8>,
    /// The next line continues the one before.
    continues: bool,
    /// The line that has no end yet holds a carriage return.
    carriage_return: bool,
}

// === impl Timestamper ===

impl Timestamper {
    /// `stream`: 0 for the runner's own lines, 1 for the job, 15 and up for services.
    #[must_use]
    pub fn new(stream: u8, channel: Channel) -> Self {
        let mut header = *b"0000-00-00T00:00:00.000000Z 00O ";
        header[28] = hex_digit(stream >> 4);
        header[29] = hex_digit(stream & 0xf);
        header[30] = match channel {
            Channel::Out => b'O',
            Channel::Err => b'E',
        };
        Self { header, second: None, line: Vec::new(), continues: false, carriage_return: false }
    }

    /// Takes one write and appends the lines that it completes.
    pub fn push(&mut self, now: DateTime<Utc>, bytes: &[u8], out: &mut Vec<u8>) {
        self.set_time(now);
        self.text(bytes, out);
        self.end_of_write(out);
    }

    /// The stream ends: the last line gets an end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.flush_line(out, false);
        }
    }

    pub(super) fn set_time(&mut self, now: DateTime<Utc>) {
        let second = now.timestamp();
        if self.second != Some(second) {
            self.second = Some(second);
            digits(&mut self.header[0..4], now.year().unsigned_abs());
            digits(&mut self.header[5..7], now.month());
            digits(&mut self.header[8..10], now.day());
            digits(&mut self.header[11..13], now.hour());
            digits(&mut self.header[14..16], now.minute());
            digits(&mut self.header[17..19], now.second());
        }
        digits(&mut self.header[20..26], now.timestamp_subsec_micros().min(999_999));
    }

    /// Part of a write.
    pub(super) fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', text) {
            let line = &text[from..=end];
            from = end + 1;
            if self.line.is_empty() && line.len() <= MAX_LINE {
                self.begin_line();
                out.extend_from_slice(&self.header);
                out.extend_from_slice(line);
                self.continues = false;
            } else {
                self.unfinished(&line[..line.len() - 1], out);
                if self.line.is_empty() {
                    self.begin_line();
                    self.line.extend_from_slice(&self.header);
                }
                self.flush_line(out, false);
            }
        }
        self.unfinished(&text[from..], out);
    }

    pub(super) fn end_of_write(&mut self, out: &mut Vec<u8>) {
        if self.carriage_return {
            self.flush_line(out, true);
        }
    }

    /// Text without a line end.
    fn unfinished(&mut self, mut text: &[u8], out: &mut Vec<u8>) {
        while !text.is_empty() {
            if self.line.is_empty() {
                self.begin_line();
                self.line.extend_from_slice(&self.header);
            }
            let room = HEADER_LEN + MAX_LINE - self.line.len();
            let taken = if text.len() < room { text.len() } else { utf8::cut(text, room) };
            let (now, later) = text.split_at(taken);
            self.line.extend_from_slice(now);
            if text.len() >= room {
                self.flush_line(out, true);
            } else {
                self.carriage_return |= memchr::memchr(b'\r', now).is_some();
            }
            text = later;
        }
    }

    fn begin_line(&mut self) {
        self.header[HEADER_LEN - 1] = if self.continues { b'+' } else { b' ' };
    }

    fn flush_line(&mut self, out: &mut Vec<u8>, continues: bool) {
        self.line.push(b'\n');
        out.extend_from_slice(&self.line);
        self.line.clear();
        self.continues = continues;
        self.carriage_return = false;
    }
}

fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const T: &str = "2026-08-22T10:15:30.123456Z 01O";

    #[test_case(&["one\ntwo\n"], &[" one", " two"]; "two lines in one write")]
    #[test_case(&["o", "n", "e\n"], &[" one"]; "one line in three writes")]
    #[test_case(&["one\n\n"], &[" one", " "]; "an empty line")]
    #[test_case(&["end"], &[" end"]; "the last line without an end")]
    #[test_case(&["10%\r", "20%\r", "done\nnext\n"], &[" 10%\r", "+20%\r", "+done", " next"]; "a progress bar")]
    #[test_case(&["a\r\nb\r\n"], &[" a\r", " b\r"]; "line ends of Windows")]
    #[test_case(&["a\r", "\n"], &[" a\r", "+"]; "line end of Windows in two writes")]
    #[test_case(&["x", "y\rz", "w\n"], &[" xy\rz", "+w"]; "a carriage return flushes what came before")]
    fn stamps(writes: &[&str], lines: &[&str]) {
        let expected: String = lines.iter().map(|line| format!("{T}{line}\n")).collect();
        assert_eq!(stamp(writes), expected);
    }

    #[test]
    fn a_long_line_is_broken_between_characters() {
        let text = format!("x{}", "é".repeat(MAX_LINE));
        let expected_first = format!("{T} {}\n", &text[..MAX_LINE - 1]);
        for writes in [vec![text.as_str()], text.split_inclusive("éé").collect()] {
            let log = stamp(&writes);
            assert!(log.starts_with(&expected_first));
            let joined: String = log
                .lines()
                .enumerate()
                .map(|(n, line)| {
                    assert_eq!(&line[31..32], if n == 0 { " " } else { "+" });
                    &line[HEADER_LEN..]
                })
                .collect();
            assert_eq!(joined, text);
        }
    }

    #[test]
    fn a_long_line_with_an_end_ends_once() {
        let log = stamp(&[&format!("{}\nnext\n", "a".repeat(2 * MAX_LINE))]);
        let marks: Vec<&str> = log.lines().map(|line| &line[31..]).collect();
        assert_eq!(marks.len(), 4);
        assert!(marks[0].starts_with(" a") && marks[1].starts_with("+a"));
        assert_eq!(marks[2..], ["+", " next"]);
    }

    #[test]
    fn memory_is_bounded_whatever_the_length_of_a_line() {
        let mut stamper = Timestamper::new(1, Channel::Out);
        let mut out = Vec::new();
        for _ in 0..800 {
            stamper.push(now(), &[b'a'; 65_536], &mut out);
            out.clear();
        }
        assert!(stamper.line.capacity() <= 2 * (HEADER_LEN + MAX_LINE));
    }

    #[test]
    fn streams_and_channels_are_numbered() {
        let mut out = Vec::new();
        Timestamper::new(0x2f, Channel::Err).push(now(), b"x\n", &mut out);
        assert_eq!(out, b"2026-08-22T10:15:30.123456Z 2fE x\n");
    }

    #[test]
    fn time_is_that_of_the_first_byte_of_the_line() {
        let mut out = Vec::new();
        let mut stamper = Timestamper::new(1, Channel::Out);
        stamper.push(now(), b"a", &mut out);
        stamper.push(now() + chrono::TimeDelta::milliseconds(1_000), b"b\nc\n", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-08-22T10:15:30.123456Z 01O ab\n2026-08-22T10:15:31.123456Z 01O c\n"
        );
    }

    fn stamp(writes: &[&str]) -> String {
        let mut out = Vec::new();
        let mut stamper = Timestamper::new(1, Channel::Out);
        for write in writes {
            stamper.push(now(), write.as_bytes(), &mut out);
        }
        stamper.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_787_393_730, 123_456_789).unwrap()
    }
}
