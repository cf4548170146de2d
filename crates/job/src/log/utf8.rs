//! Ill-formed UTF-8 becomes U+FFFD; characters split over two writes stay whole.

/// Makes a stream of bytes valid UTF-8. Holds back at most three bytes, the beginning of a character.
#[derive(Debug, Default)]
pub struct Utf8Repair {
    begun: [u8; 4],
    len: usize,
}

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

// === impl Utf8Repair ===

impl Utf8Repair {
    /// Takes bytes and appends valid UTF-8.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.push_to(bytes, &mut |text: &[u8]| out.extend_from_slice(text));
    }

    /// The stream ends: a character that was begun is replaced.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.finish_to(&mut |text: &[u8]| out.extend_from_slice(text));
    }

    pub(super) fn push_to(&mut self, mut bytes: &[u8], text: &mut impl FnMut(&[u8])) {
        while self.len > 0 {
            let Some((&next, rest)) = bytes.split_first() else { return };
            self.begun[self.len] = next;
            match std::str::from_utf8(&self.begun[..=self.len]) {
                Ok(character) => {
                    text(character.as_bytes());
                    self.len = 0;
                    bytes = rest;
                }
                Err(error) if error.error_len().is_none() => {
                    self.len += 1;
                    bytes = rest;
                }
                // The byte does not belong to the character; it is looked at again on its own.
                Err(_) => {
                    text(REPLACEMENT);
                    self.len = 0;
                }
            }
        }
        while !bytes.is_empty() {
            let error = match std::str::from_utf8(bytes) {
                Ok(valid) => return text(valid.as_bytes()),
                Err(error) => error,
            };
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            if !valid.is_empty() {
                text(valid);
            }
            let Some(bad) = error.error_len() else {
                self.len = rest.len();
                self.begun[..rest.len()].copy_from_slice(rest);
                return;
            };
            text(REPLACEMENT);
            bytes = &rest[bad..];
        }
    }

    pub(super) fn finish_to(&mut self, text: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.len) > 0 {
            text(REPLACEMENT);
        }
    }
}

/// The largest length up to `most` at which `text` can be cut without splitting a character.
pub(super) fn cut(text: &[u8], most: usize) -> usize {
    if most >= text.len() {
        return text.len();
    }
    // Of ill-formed text no more than a character's worth is given up.
    (most.saturating_sub(3)..=most).rev().find(|&at| text[at] & 0xc0 != 0x80).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    #[test_case(b"plain", "plain"; "ascii")]
    #[test_case("grüße, 世界 🚀".as_bytes(), "grüße, 世界 🚀"; "characters of every length")]
    #[test_case(b"a\xffb", "a\u{fffd}b"; "a byte that never occurs")]
    #[test_case(b"a\xe4\xb8b", "a\u{fffd}b"; "a character that was not finished")]
    #[test_case(b"a\xf0\x9f\x9a", "a\u{fffd}"; "the end inside a character")]
    #[test_case(b"\xc3\xc3\xa9", "\u{fffd}\u{e9}"; "a character after one that was not finished")]
    #[test_case(b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"; "a surrogate")]
    fn repairs(bytes: &[u8], text: &str) {
        for split in 0..=bytes.len() {
            let (one, two) = bytes.split_at(split);
            assert_eq!(repair(&[one, two]), text, "split at {split}");
        }
        assert_eq!(repair(&bytes.chunks(1).collect::<Vec<_>>()), text);
    }

    #[test]
    fn whole_characters_pass_at_once() {
        let mut out = Vec::new();
        let mut stage = Utf8Repair::default();
        stage.push("é".as_bytes(), &mut out);
        assert_eq!(out, "é".as_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_what_lossy_conversion_gives(
            pieces in proptest::collection::vec(proptest::collection::vec(
                prop_oneof![any::<u8>(), 0xc0u8..=0xf5, 0x80u8..=0xbf], 0..5), 0..10)
        ) {
            let split: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(repair(&split), String::from_utf8_lossy(&pieces.concat()).into_owned());
        }
    }

    #[test]
    fn cuts_are_between_characters() {
        let text = "aé世🚀".as_bytes();
        let cuts: Vec<usize> = (0..=text.len()).map(|most| cut(text, most)).collect();
        assert_eq!(cuts, [0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10]);
    }

    fn repair(writes: &[&[u8]]) -> String {
        let mut stage = Utf8Repair::default();
        let mut out = Vec::new();
        for write in writes {
            stage.push(write, &mut out);
        }
        stage.finish(&mut out);
        String::from_utf8(out).unwrap()
    }
}
