//! The program as its users have it.

mod run;
mod support;
