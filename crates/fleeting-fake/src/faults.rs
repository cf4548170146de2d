//! What can be made to go wrong.

use std::time::Duration;

use fleeting::GroupError;

/// What one call does in place of working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Has no effect and answers with the error.
    Fail(GroupError),
    /// Has no effect and never answers.
    Hang,
    /// Has its effect, but answers with the error: the answer was lost on the way.
    FailAfterEffect(GroupError),
    /// Has its effect and never answers.
    HangAfterEffect,
}

/// How the next accepted request for an instance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// As set up in the builder.
    Normal,
    /// Runs after so long.
    Takes(Duration),
    /// Is listed as creating for ever.
    NeverFinishes,
    /// Is creating, then timeout after so long.
    FailsAfter(Duration),
    /// Is creating, then gone after so long.
    VanishesAfter(Duration),
    /// Was accepted, and no instance ever appears.
    Lost,
}

/// How far listings lag behind the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// They are true.
    None,
    /// They show the world as it was so long ago.
    Time(Duration),
    /// They show what so many calls earlier would have been true.
    Calls(usize),
}
