//! Words of shell scripts, and what programs say.

/// A text as one word of a POSIX shell, whatever is in it.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The beginning of what a program says: memory is bounded, however much comes.
#[derive(Debug)]
pub(crate) struct Excerpt {
    kept: Vec<u8>,
    most: usize,
}

// === impl Excerpt ===

impl Excerpt {
    /// Keeps so many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most }
    }

    pub(crate) fn add(&mut self, said: &[u8]) {
        let room = self.most - self.kept.len();
        self.kept.extend_from_slice(&said[..said.len().min(room)]);
    }

    /// Nothing more is kept.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() == self.most
    }

    /// What was kept; what is no text is replaced.
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_one_word() {
        for text in ["", "a b", "it's", "'; rm -rf /; '", "$(id) `id` \\"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_text_takes_no_more_room_than_anything_else() {
        let mut excerpt = Excerpt::new(10);
        for _ in 0..4 {
            excerpt.add(&[0xff; 4]);
        }
        assert!(excerpt.is_full());
        assert_eq!(excerpt.text(), "\u{fffd}".repeat(10));
    }
}
