//! What a running manager says of itself: a local socket, a JSON document and a page.
