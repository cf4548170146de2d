//! Where masking has to begin: searches that know when they must wait for more bytes.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind, Span, packed};

/// Result of one search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The leftmost hit, which no further byte can change.
    Hit(Range<usize>),
    /// No hit before this index; the bytes from it on may be the beginning of one. The length of the text: none wait.
    Wait(usize),
}

/// A search over a text that arrives in pieces.
pub(super) trait Find {
    /// The first decided hit at or after `from`. With `last` no more bytes will come and nothing waits.
    fn next(&self, text: &[u8], from: usize, last: bool) -> Next;
}

/// Finds the leftmost, and of these the longest, of many byte strings.
pub(super) struct Needles {
    search: Search,
    /// Sorted and distinct, for looking up what a text may become.
    sorted: Box<[Box<[u8]>]>,
    first_byte: [bool; 256],
    longest: usize,
}

enum Search {
    /// Vector instructions; for the few needles of nearly every job.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
    /// The needles are beyond what an automaton can hold: every byte is a hit, so that nothing leaks.
    Everything,
}

/// Finds `?name=` and `&name=` for the names that carry credentials, in any case.
pub(super) struct UrlParameters;

/// Bytes of needles up to which a table-driven automaton (about 0.5 KiB for each byte) is worth its memory.
const DFA_BYTES: usize = 512;

const PARAMETERS: [&[u8]; 10] = [
    b"private_token",
    b"authenticity_token",
    b"rss_token",
    b"x-amz-signature",
    b"x-amz-credential",
    b"x-amz-security-token",
    b"x-goog-signature",
    b"x-goog-credential",
    b"x-goog-security-token",
    b"sig",
];

// === impl Needles ===

impl Needles {
    /// `None` when there is nothing to find.
    pub(super) fn new<'a>(needles: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut sorted: Vec<Box<[u8]>> =
            needles.into_iter().filter(|n| !n.is_empty()).map(Box::from).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let longest = sorted.iter().map(|needle| needle.len()).max()?;
        let mut first_byte = [false; 256];
        for needle in &sorted {
            first_byte[usize::from(needle[0])] = true;
        }
        Some(Self { search: Search::new(&sorted), sorted: sorted.into(), first_byte, longest })
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.sorted.iter().map(|needle| &**needle)
    }

    /// Start of the longest end of the text, at or after `from`, that is a needle's beginning but not yet the needle.
    fn waiting(&self, text: &[u8], from: usize) -> usize {
        let earliest = from.max(text.len().saturating_sub(self.longest - 1));
        (earliest..text.len())
            .find(|&at| self.first_byte[usize::from(text[at])] && self.may_become_needle(&text[at..]))
            .unwrap_or(text.len())
    }

    fn may_become_needle(&self, beginning: &[u8]) -> bool {
        let at = self.sorted.partition_point(|needle| **needle < *beginning);
        self.sorted[at..]
            .iter()
            .find(|needle| ***needle != *beginning)
            .is_some_and(|needle| needle.starts_with(beginning))
    }
}

impl Find for Needles {
    fn next(&self, text: &[u8], from: usize, last: bool) -> Next {
        match self.search.find(text, from) {
            // No needle that begins at or before this hit reaches beyond the text.
            Some(hit) if last || hit.start + self.longest <= text.len() => Next::Hit(hit),
            Some(hit) => match self.waiting(text, from) {
                waiting if waiting <= hit.start => Next::Wait(waiting),
                _ => Next::Hit(hit),
            },
            None if last => Next::Wait(text.len()),
            None => Next::Wait(self.waiting(text, from)),
        }
    }
}

// === impl Search ===

impl Search {
    fn new(needles: &[Box<[u8]>]) -> Self {
        let packed = packed::Config::new()
            .match_kind(packed::MatchKind::LeftmostLongest)
            .builder()
            .extend(needles)
            .build();
        if let Some(searcher) = packed {
            return Self::Packed(searcher);
        }
        let bytes: usize = needles.iter().map(|needle| needle.len()).sum();
        let kind = if bytes <= DFA_BYTES { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
        let builder = || AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).clone();
        builder()
            .kind(Some(kind))
            .build(needles)
            .or_else(|_| builder().build(needles))
            .map_or(Self::Everything, Self::Automaton)
    }

    fn find(&self, text: &[u8], from: usize) -> Option<Range<usize>> {
        let found = match self {
            Self::Packed(searcher) => searcher.find_in(text, Span { start: from, end: text.len() }),
            Self::Automaton(automaton) => automaton.find(Input::new(text).range(from..)),
            Self::Everything => return (from < text.len()).then_some(from..text.len()),
        };
        found.map(|found| found.range())
    }
}

// === impl UrlParameters ===

impl Find for UrlParameters {
    fn next(&self, text: &[u8], from: usize, last: bool) -> Next {
        for at in memchr::memchr2_iter(b'?', b'&', &text[from..]).map(|at| from + at) {
            let rest = &text[at + 1..];
            if !matches!(
                rest.first(),
                None | Some(b'p' | b'P' | b'a' | b'A' | b'r' | b'R' | b's' | b'S' | b'x' | b'X')
            ) {
                continue;
            }
            for name in PARAMETERS {
                if rest.len() <= name.len() {
                    if !last && name[..rest.len()].eq_ignore_ascii_case(rest) {
                        return Next::Wait(at);
                    }
                } else if rest[name.len()] == b'=' && rest[..name.len()].eq_ignore_ascii_case(name) {
                    return Next::Hit(at..at + 1 + name.len() + 1);
                }
            }
        }
        Next::Wait(text.len())
    }
}
