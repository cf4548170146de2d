//! Words that a job announces as secret while it runs: lines `::add-mask::<word>`.

/// What begins a line that announces a word.
const ANNOUNCEMENT: &[u8] = b"::add-mask::";
/// A word of more bytes than this is cut; the rest of its line is not shown either.
const LONGEST: usize = 64 * 1024;

/// Takes announcements out of one stream. A line that may become one is held back until that is decided: at most as many bytes as
/// the announcement's first words have.
#[derive(Debug, Default)]
pub struct Announcements {
    state: State,
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// To be shown.
    Text(&'a [u8]),
    /// From here on secret. Empty words are not announced.
    Word(String),
}

#[derive(Debug)]
enum State {
    /// The line so far begins as an announcement does, for this many bytes.
    Beginning(usize),
    /// Inside of a line that is none.
    Line,
    /// Inside of the word.
    Word(Vec<u8>),
}

// === impl Announcements ===

impl Announcements {
    /// Takes one write; hands its parts on in order.
    pub fn push(&mut self, bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        // Bytes of `rest` that are text for certain.
        let mut text = 0;
        while text < rest.len() {
            match &mut self.state {
                State::Line => {
                    let end = rest[text..].iter().position(|byte| *byte == b'\n');
                    let Some(end) = end else { break };
                    text += end + 1;
                    self.state = State::Beginning(0);
                }
                State::Beginning(matched) => {
                    let begun = *matched;
                    let line = &rest[text..];
                    let alike = ANNOUNCEMENT[begun..].iter().zip(line).take_while(|(a, b)| a == b).count();
                    if begun + alike == ANNOUNCEMENT.len() {
                        show(&rest[..text], each);
                        rest = &rest[text + alike..];
                        text = 0;
                        self.state = State::Word(Vec::new());
                    } else if alike == line.len() {
                        *matched += alike;
                        show(&rest[..text], each);
                        return;
                    } else {
                        if begun > 0 {
                            // Nothing of this write is text yet: the line began in an earlier one.
                            each(Piece::Text(&ANNOUNCEMENT[..begun]));
                        }
                        self.state = State::Line;
                    }
                }
                State::Word(word) => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let part = &rest[..end.unwrap_or(rest.len())];
                    word.extend_from_slice(&part[..part.len().min(LONGEST - word.len())]);
                    let Some(end) = end else { return };
                    rest = &rest[end + 1..];
                    announce(word, each);
                    self.state = State::Beginning(0);
                }
            }
        }
        let end = if matches!(self.state, State::Line) { rest.len() } else { text };
        show(&rest[..end], each);
    }

    /// The stream ends: what is held back is decided.
    pub fn finish(&mut self, each: &mut impl FnMut(Piece<'_>)) {
        match std::mem::take(&mut self.state) {
            State::Beginning(matched) => show(&ANNOUNCEMENT[..matched], each),
            State::Word(word) => announce(&word, each),
            State::Line => {}
        }
    }
}

// === impl State ===

impl Default for State {
    fn default() -> Self {
        Self::Beginning(0)
    }
}

fn show(text: &[u8], each: &mut impl FnMut(Piece<'_>)) {
    if !text.is_empty() {
        each(Piece::Text(text));
    }
}

fn announce(word: &[u8], each: &mut impl FnMut(Piece<'_>)) {
    let word = String::from_utf8_lossy(word);
    let word = word.trim();
    if !word.is_empty() {
        each(Piece::Word(word.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("a\n::add-mask::x\nb\n", "a\nb\n", &["x"]; "a line")]
    #[test_case("::add-mask:: two words \r\nb", "b", &["two words"]; "space around a word is not part of it")]
    #[test_case("::add-mask::x", "", &["x"]; "a last line without an end")]
    #[test_case("::add-mask::\n::add-mask::x\n::add-mask::y\n", "", &["x", "y"]; "several, and none")]
    #[test_case(" ::add-mask::x\na::add-mask::y\n", " ::add-mask::x\na::add-mask::y\n", &[]; "only at the beginning of a line")]
    #[test_case("::add-\n::add-mask\n::add-mas", "::add-\n::add-mask\n::add-mas", &[]; "lines that begin alike")]
    #[test_case("::::add-mask::x\n\n\n:", "::::add-mask::x\n\n\n:", &[]; "more alike")]
    fn announcements_are_taken_out_however_the_stream_is_cut(stream: &str, text: &str, words: &[&str]) {
        for size in 1..=stream.len() {
            let mut announcements = Announcements::default();
            let (mut shown, mut announced) = (Vec::new(), Vec::new());
            let mut each = |piece: Piece<'_>| match piece {
                Piece::Text(text) => shown.extend_from_slice(text),
                Piece::Word(word) => announced.push(word),
            };
            for write in stream.as_bytes().chunks(size) {
                announcements.push(write, &mut each);
            }
            announcements.finish(&mut each);
            assert_eq!(std::str::from_utf8(&shown).unwrap(), text, "in pieces of {size}");
            assert_eq!(announced, words, "in pieces of {size}");
        }
    }

    #[test]
    fn a_word_without_an_end_is_cut_and_not_shown() {
        let mut announcements = Announcements::default();
        let (mut shown, mut announced) = (0, Vec::new());
        let mut each = |piece: Piece<'_>| match piece {
            Piece::Text(text) => shown += text.len(),
            Piece::Word(word) => announced.push(word),
        };
        announcements.push(b"::add-mask::", &mut each);
        for _ in 0..100 {
            announcements.push(&[b'x'; 4096], &mut each);
        }
        announcements.finish(&mut each);
        assert_eq!((shown, announced), (0, vec!["x".repeat(LONGEST)]));
    }
}
