//! How a user's command is announced in the log.

/// What stands in the log above the output of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// An empty line, for a command that is empty.
    Blank,
    /// One line.
    Line(String),
    /// The whole text, in a section that is folded.
    Section(String),
}

/// The announcement of a command, which is trimmed already. `sections`: the text of long ones is shown in a folded section.
pub(crate) fn announce(command: &str, sections: bool) -> Announcement {
    match command.split_once('\n') {
        None if command.is_empty() => Announcement::Blank,
        None => Announcement::Line(format!("$ {command}")),
        Some(_) if sections => Announcement::Section(format!("$ {command}")),
        Some((first, _)) => Announcement::Line(format!("$ {first} # collapsed multi-line command")),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("", true, Announcement::Blank; "empty")]
    #[test_case("make", true, Announcement::Line("$ make".into()); "one line")]
    #[test_case("a\nb", false, Announcement::Line("$ a # collapsed multi-line command".into()); "several lines")]
    #[test_case("a\nb", true, Announcement::Section("$ a\nb".into()); "several lines in a section")]
    fn a_command_is_announced(command: &str, sections: bool, expected: Announcement) {
        assert_eq!(announce(command, sections), expected);
    }
}
