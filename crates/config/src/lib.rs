//! config.toml: every key typed, checked and explained.
