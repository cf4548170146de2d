//! Kinds of tokens.

/// What a runner token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// `glrt-…`: the authentication token of a runner that was created in GitLab. It is verified, never registered,
    /// and only its managers are removed.
    Authentication,
    /// Everything else: a registration token, or the authentication token of a runner that was registered with one.
    Legacy,
}

// === impl TokenKind ===

impl TokenKind {
    /// Tells the kind by the prefix, as GitLab Runner does.
    #[must_use]
    pub fn of(token: &str) -> Self {
        if token.starts_with("glrt-") { Self::Authentication } else { Self::Legacy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_glrt_is_an_authentication_token() {
        assert_eq!(TokenKind::of("glrt-t1_x"), TokenKind::Authentication);
        assert_eq!(TokenKind::of("glrtr-x"), TokenKind::Legacy);
        assert_eq!(TokenKind::of("GR1348941x"), TokenKind::Legacy);
    }
}
