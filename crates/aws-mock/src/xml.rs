//! Answers of the query protocol.

use std::fmt::Write as _;

/// A piece of XML that grows.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An element with text.
    pub(crate) fn text(mut self, name: &str, text: impl std::fmt::Display) -> Self {
        let _ = write!(self.0, "<{name}>{}</{name}>", escaped(&text.to_string()));
        self
    }

    /// An element with text, if there is some.
    pub(crate) fn maybe(self, name: &str, text: Option<impl std::fmt::Display>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// An element with elements.
    pub(crate) fn inner(mut self, name: &str, inner: Self) -> Self {
        let _ = write!(self.0, "<{name}>{}</{name}>", inner.0);
        self
    }

    /// A list: `item` is `member` for Auto Scaling and `item` for EC2.
    pub(crate) fn list(mut self, name: &str, item: &str, items: impl IntoIterator<Item = Self>) -> Self {
        let _ = write!(self.0, "<{name}>");
        for inner in items {
            let _ = write!(self.0, "<{item}>{}</{item}>", inner.0);
        }
        let _ = write!(self.0, "</{name}>");
        self
    }

    /// A piece that is written already.
    pub(crate) fn raw(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
