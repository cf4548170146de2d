//! The program as its users have it.

mod check;
mod completion;
mod list;
mod register;
mod run;
mod support;
mod unregister;
mod verify;
