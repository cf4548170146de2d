//! Secrets out of a stream of bytes, wherever the writes split them.

use std::fmt;
use std::sync::Arc;

use super::find::{Find, Needles, Next, UrlParameters};

/// What stands in the log where a secret was.
pub const MASK: &str = "[MASKED]";

/// Token prefixes that GitLab Runner masks by default (`FF_MASK_ALL_DEFAULT_TOKENS`; without it only the first).
pub const DEFAULT_TOKEN_PREFIXES: [&str; 14] = [
    "glpat-",
    "gloas-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glrtr-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "glsoat-",
    "glffct-",
    "_gitlab_session=",
    "gltok-",
];

/// What is secret in a job. `Debug` shows counts only.
#[derive(Clone)]
pub struct MaskRules {
    /// Exact values; white space around them is not part of the secret, empty ones are ignored.
    pub phrases: Vec<String>,
    /// The run of `A-Z a-z 0-9 - . _ =` after such a prefix is secret; the prefix itself is shown.
    pub token_prefixes: Vec<String>,
    /// Whether values of `private_token`, `authenticity_token`, `rss_token`, of `x-amz-` and `x-goog-` with `signature`,
    /// `credential` or `security-token`, and of Azure's `sig` in the query of a URL are secret. GitLab Runner knows the first
    /// three and those of AWS.
    pub url_parameters: bool,
}

/// Rules made ready for searching; cheap to clone, so that all streams of a job share one.
#[derive(Clone)]
pub struct CompiledMasks {
    phrases: Option<Arc<Needles>>,
    url_parameters: bool,
    token_prefixes: Option<Arc<Needles>>,
}

/// Masks one stream: phrases first, then URL parameters, then tokens, as GitLab Runner does.
///
/// Bytes pass without delay unless they may be the beginning of a secret; at most the longest phrase less one byte is
/// held back.
pub struct Masker {
    phrases: Option<Stage<Arc<Needles>>>,
    url_parameters: Option<Stage<UrlParameters>>,
    tokens: Option<Stage<Arc<Needles>>>,
}

/// One search and what it does with its hits.
struct Stage<F> {
    find: F,
    hit: OnHit,
    state: State,
    /// Beginning of a possible hit, shorter than the longest hit.
    held: Vec<u8>,
}

#[derive(Clone, Copy)]
enum OnHit {
    /// The hit is the secret.
    Replace,
    /// The run of such bytes after the hit is the secret.
    MaskRun(fn(u8) -> bool),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Searching,
    /// Just behind a hit; an empty run is not masked.
    BeforeRun,
    InRun,
}

/// How much of a write is copied behind held bytes at a time; bounds memory for writes of any size.
const WINDOW: usize = 16 * 1024;

// === impl MaskRules ===

impl Default for MaskRules {
    /// No phrases, GitLab Runner's default token prefixes, URL parameters.
    fn default() -> Self {
        Self {
            phrases: Vec::new(),
            token_prefixes: DEFAULT_TOKEN_PREFIXES.iter().map(|&prefix| prefix.to_owned()).collect(),
            url_parameters: true,
        }
    }
}

impl fmt::Debug for MaskRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskRules")
            .field("phrases", &self.phrases.len())
            .field("token_prefixes", &self.token_prefixes.len())
            .field("url_parameters", &self.url_parameters)
            .finish()
    }
}

// === impl CompiledMasks ===

impl CompiledMasks {
    /// Builds the search tables.
    #[must_use]
    pub fn new(rules: &MaskRules) -> Self {
        let phrases = rules.phrases.iter().map(|phrase| phrase.trim().as_bytes());
        let prefixes = rules.token_prefixes.iter().map(|prefix| prefix.trim().as_bytes());
        Self {
            phrases: Needles::new(phrases).map(Arc::new),
            url_parameters: rules.url_parameters,
            token_prefixes: Needles::new(prefixes).map(Arc::new),
        }
    }

    /// The same with more phrases.
    #[must_use]
    pub fn with_phrases<'a>(&self, more: impl IntoIterator<Item = &'a str>) -> Self {
        let known = self.phrases.iter().flat_map(|needles| needles.iter());
        let more = more.into_iter().map(|phrase| phrase.trim().as_bytes());
        Self { phrases: Needles::new(known.chain(more)).map(Arc::new), ..self.clone() }
    }

    /// A masker for one stream.
    #[must_use]
    pub fn masker(&self) -> Masker {
        Masker {
            phrases: self.phrases.clone().map(|find| Stage::new(find, OnHit::Replace)),
            url_parameters: self
                .url_parameters
                .then(|| Stage::new(UrlParameters, OnHit::MaskRun(is_url_value))),
            tokens: self.token_prefixes.clone().map(|find| Stage::new(find, OnHit::MaskRun(is_token))),
        }
    }
}

impl fmt::Debug for CompiledMasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledMasks").finish_non_exhaustive()
    }
}

// === impl Masker ===

impl Masker {
    /// A masker for a single stream; for several use [`CompiledMasks`].
    #[must_use]
    pub fn new(rules: &MaskRules) -> Self {
        CompiledMasks::new(rules).masker()
    }

    /// Takes bytes and appends what may be shown of them and of those held back before.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.push_to(bytes, &mut |shown: &[u8]| out.extend_from_slice(shown));
    }

    /// The stream ends: what is held back is shown, masked where it is a whole secret.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.finish_to(&mut |shown: &[u8]| out.extend_from_slice(shown));
    }

    /// Searches for other phrases from here on. What is held back is searched for them, too.
    pub(super) fn adopt(&mut self, masks: &CompiledMasks) {
        let held = self.phrases.take().map(|stage| stage.held).unwrap_or_default();
        self.phrases = masks.phrases.clone().map(|find| Stage { held, ..Stage::new(find, OnHit::Replace) });
    }

    pub(super) fn push_to(&mut self, bytes: &[u8], shown: &mut impl FnMut(&[u8])) {
        let Self { phrases, url_parameters, tokens } = self;
        push(phrases.as_mut(), bytes, &mut |bytes: &[u8]| {
            push(url_parameters.as_mut(), bytes, &mut |bytes: &[u8]| push(tokens.as_mut(), bytes, shown));
        });
    }

    pub(super) fn finish_to(&mut self, shown: &mut impl FnMut(&[u8])) {
        let Self { phrases, url_parameters, tokens } = self;
        if let Some(stage) = phrases {
            stage.finish(&mut |bytes: &[u8]| {
                push(url_parameters.as_mut(), bytes, &mut |bytes: &[u8]| push(tokens.as_mut(), bytes, shown));
            });
        }
        if let Some(stage) = url_parameters {
            stage.finish(&mut |bytes: &[u8]| push(tokens.as_mut(), bytes, shown));
        }
        if let Some(stage) = tokens {
            stage.finish(shown);
        }
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").finish_non_exhaustive()
    }
}

// === impl Stage ===

impl<F: Find> Stage<F> {
    fn new(find: F, hit: OnHit) -> Self {
        Self { find, hit, state: State::Searching, held: Vec::new() }
    }

    fn push(&mut self, mut bytes: &[u8], shown: &mut impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.held.is_empty() {
                let done = self.run(bytes, false, shown);
                self.held.extend_from_slice(&bytes[done..]);
                return;
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(WINDOW));
            let mut text = std::mem::take(&mut self.held);
            text.extend_from_slice(piece);
            let done = self.run(&text, false, shown);
            text.drain(..done);
            self.held = text;
            bytes = rest;
        }
    }

    fn finish(&mut self, shown: &mut impl FnMut(&[u8])) {
        let text = std::mem::take(&mut self.held);
        self.run(&text, true, shown);
    }

    /// Shows what is decided and returns how many bytes that took.
    fn run(&mut self, text: &[u8], last: bool, shown: &mut impl FnMut(&[u8])) -> usize {
        let mut at = 0;
        while at < text.len() {
            match (self.state, self.hit) {
                (State::Searching, on_hit) => match self.find.next(text, at, last) {
                    Next::Wait(waiting) => {
                        emit(&text[at..waiting], shown);
                        return waiting;
                    }
                    Next::Hit(hit) => {
                        match on_hit {
                            OnHit::Replace => {
                                emit(&text[at..hit.start], shown);
                                shown(MASK.as_bytes());
                            }
                            OnHit::MaskRun(_) => {
                                emit(&text[at..hit.end], shown);
                                self.state = State::BeforeRun;
                            }
                        }
                        at = hit.end;
                    }
                },
                (State::BeforeRun | State::InRun, OnHit::MaskRun(is_secret)) => {
                    let run = text[at..].iter().take_while(|&&byte| is_secret(byte)).count();
                    if run > 0 && self.state == State::BeforeRun {
                        shown(MASK.as_bytes());
                        self.state = State::InRun;
                    }
                    at += run;
                    if at < text.len() {
                        self.state = State::Searching;
                    }
                }
                (State::BeforeRun | State::InRun, OnHit::Replace) => self.state = State::Searching,
            }
        }
        at
    }
}

impl<F: Find> Find for Arc<F> {
    fn next(&self, text: &[u8], from: usize, last: bool) -> Next {
        F::next(self, text, from, last)
    }
}

fn push<F: Find>(stage: Option<&mut Stage<F>>, bytes: &[u8], shown: &mut impl FnMut(&[u8])) {
    match stage {
        Some(stage) => stage.push(bytes, shown),
        None => emit(bytes, shown),
    }
}

fn emit(bytes: &[u8], shown: &mut impl FnMut(&[u8])) {
    if !bytes.is_empty() {
        shown(bytes);
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'=')
}

fn is_url_value(byte: u8) -> bool {
    !matches!(byte, b'?' | b'&' | b' ') && !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    #[test_case(&["secret"], "a secret b", "a [MASKED] b"; "a phrase")]
    #[test_case(&["secret", "secretive"], "secretive secretly", "[MASKED] [MASKED]ly"; "the longest of those that begin alike")]
    #[test_case(&["abcdef", "cd"], "abcdef abcdX", "[MASKED] ab[MASKED]X"; "the leftmost even if a shorter one is complete first")]
    #[test_case(&["  padded\n", "", " "], "xpaddedx  x", "x[MASKED]x  x"; "white space around a phrase is not secret")]
    #[test_case(&["aa"], "aaaaa", "[MASKED][MASKED]a"; "hits do not overlap")]
    #[test_case(&["line1\nline2"], "line1\nline2\nline1\n", "[MASKED]\nline1\n"; "a phrase of several lines")]
    #[test_case(&["pässwörd"], "das pässwörd!", "das [MASKED]!"; "beyond ASCII")]
    #[test_case(&[], "http://h/?private_token=abc&x=1", "http://h/?private_token=[MASKED]&x=1"; "a URL parameter")]
    #[test_case(&[], "?a=1&X-Amz-Signature=s/%2B+== next", "?a=1&X-Amz-Signature=[MASKED] next"; "its name in any case")]
    #[test_case(&[], "?rss_token=&authenticity_token=x\n", "?rss_token=&authenticity_token=[MASKED]\n"; "an empty value stays")]
    #[test_case(&[], "?X-Goog-Credential=a%40b&X-Goog-Date=1&X-Goog-Signature=0f", "?X-Goog-Credential=[MASKED]&X-Goog-Date=1&X-Goog-Signature=[MASKED]"; "addresses that Google's storage signs")]
    #[test_case(&[], "?sv=2024&sig=a%2Fb%3D&se=1 &signed=1&sig", "?sv=2024&sig=[MASKED]&se=1 &signed=1&sig"; "addresses that Azure signs")]
    #[test_case(&[], "private_token=abc ?my_private_token=abc", "private_token=abc ?my_private_token=abc"; "only in a query")]
    #[test_case(&[], "glpat-abc.DEF_1=- end", "glpat-[MASKED] end"; "a token prefix")]
    #[test_case(&[], "glpat- glpat-", "glpat- glpat-"; "a bare prefix stays")]
    #[test_case(&[], "_gitlab_session=0123; glrtr-x glrt-y", "_gitlab_session=[MASKED]; glrtr-[MASKED] glrt-[MASKED]"; "other prefixes")]
    #[test_case(&["c/d"], "glpat-abc/d", "glpat-[MASKED][MASKED]"; "a phrase that begins inside a token")]
    #[test_case(&["tok"], "?private_token=tok", "?private_[MASKED]en=[MASKED]"; "a phrase inside a parameter's name")]
    fn masks(phrases: &[&str], text: &str, shown: &str) {
        let rules = rules(phrases);
        // As one write, split at each place, and byte by byte.
        for split in 0..=text.len() {
            let (one, two) = text.as_bytes().split_at(split);
            assert_eq!(mask(&rules, &[one, two]), shown.as_bytes(), "split at {split}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(mask(&rules, &bytes), shown.as_bytes(), "byte by byte");
    }

    #[test]
    fn all_token_prefixes_are_masked() {
        let prefixes: Vec<String> = (0..40).map(|n| format!("custom{n:02}-")).collect();
        let rules = MaskRules { token_prefixes: prefixes.clone(), ..MaskRules::default() };
        for prefix in prefixes {
            let line = format!("{prefix}value ");
            assert_eq!(mask(&rules, &[line.as_bytes()]), format!("{prefix}[MASKED] ").as_bytes());
        }
    }

    #[test]
    fn bytes_that_cannot_be_secret_pass_at_once() {
        let mut masker = Masker::new(&rules(&["secret"]));
        let mut out = Vec::new();
        masker.push(b"prompt> ", &mut out);
        assert_eq!(out, b"prompt> ");
        masker.push(b"sec", &mut out);
        assert_eq!(out, b"prompt> ");
        masker.push(b"ond", &mut out);
        assert_eq!(out, b"prompt> second");
    }

    #[test]
    fn no_more_than_the_longest_phrase_is_held() {
        let phrase = "a".repeat(100);
        let mut masker = Masker::new(&rules(&[&phrase]));
        let mut out = Vec::new();
        for _ in 0..1000 {
            masker.push(b"a", &mut out);
            assert!(masker.phrases.as_ref().unwrap().held.len() < 100);
        }
        assert_eq!(out, MASK.repeat(10).as_bytes());
    }

    #[test]
    fn rules_are_not_printed() {
        let text = format!("{:?} {:?}", rules(&["s3cr3t"]), Masker::new(&rules(&["s3cr3t"])));
        assert!(!text.contains("s3cr3t"), "{text}");
    }

    proptest! {
        /// Over a tiny alphabet, where phrases overlap all the time: any split gives what one write gives, and that is
        /// what leftmost-longest replacing over the whole text gives.
        #[test]
        fn splitting_changes_nothing(
            phrases in proptest::collection::vec("[ab]{1,6}", 1..4),
            pieces in proptest::collection::vec("[abc]{0,9}", 0..12),
        ) {
            let rules = MaskRules { phrases: phrases.clone(), token_prefixes: Vec::new(), url_parameters: false };
            let split: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            let whole = pieces.concat();
            prop_assert_eq!(mask(&rules, &split), naive(&phrases, &whole).into_bytes());
        }

        #[test]
        fn splitting_changes_nothing_for_tokens_and_urls(
            pieces in proptest::collection::vec("(glpat-|gl|pat-|\\?private_|token=|&| |x|X|rss_)", 0..16),
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let whole = pieces.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut <= whole.len()).collect();
            cuts.sort_unstable();
            let mut split: Vec<&[u8]> = Vec::new();
            let mut from = 0;
            for cut in cuts {
                split.push(&whole.as_bytes()[from..cut]);
                from = cut;
            }
            split.push(&whole.as_bytes()[from..]);
            let rules = rules(&["xX"]);
            prop_assert_eq!(mask(&rules, &split), mask(&rules, &[whole.as_bytes()]));
        }
    }

    fn rules(phrases: &[&str]) -> MaskRules {
        MaskRules { phrases: phrases.iter().map(|&p| p.to_owned()).collect(), ..MaskRules::default() }
    }

    fn mask(rules: &MaskRules, writes: &[&[u8]]) -> Vec<u8> {
        let mut masker = Masker::new(rules);
        let mut out = Vec::new();
        for write in writes {
            masker.push(write, &mut out);
        }
        masker.finish(&mut out);
        out
    }

    fn naive(phrases: &[String], mut text: &str) -> String {
        let mut out = String::new();
        while !text.is_empty() {
            match phrases.iter().filter(|phrase| text.starts_with(phrase.as_str())).map(String::len).max() {
                Some(len) => {
                    out.push_str(MASK);
                    text = &text[len..];
                }
                None => {
                    out.push_str(&text[..1]);
                    text = &text[1..];
                }
            }
        }
        out
    }
}
