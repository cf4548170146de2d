//! `docs/cli.md`, made from the command line itself, so that the two cannot drift apart.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::arguments::Arguments;
use crate::cmd::register;
use crate::failure::Exit;

const INTRODUCTION: &str = "\
# Command line

<!-- Made from the code by `UPDATE_REFERENCE=1 cargo test -p drover reference`. -->

Commands, flags and environment variables have the names of GitLab Runner, so existing scripts and service units work. A
flag wins over its variable, and an empty variable is as good as none. Switches take `--flag=false` too. Data goes to
standard output, everything else to standard error. Tokens are never printed whole.

## Exit codes

| Code | Meaning |
| --- | --- |
";

const DIFFERENCES: &str = "
## Differences from GitLab Runner

| Command | GitLab Runner | Drover |
| --- | --- | --- |
| `list` | prints whole tokens; ends with 0 when the file is no good | prints short tokens; ends with 2 |
| `verify` | takes a GitLab that gives no answer for a good token | says that it cannot tell, and ends with 1 |
| `register` | asks further questions after GitLab has answered | asks everything first, and checks the entry before GitLab hears of it |
| `run` | ends when the file is no good, once it is read at the start | the same, with code 2 and the place in the file; a missing file is waited for |
| `run --user` | chooses the user of the `shell` executor | is taken and has no effect: there is no `shell` executor |
| `run --syslog` | writes to the system log | is taken where standard error leads there (systemd), else refused |
| `lint` | has a schema of its own | is `config check --strict --no-files` |
| `install`, `start`, `stop`, ... | manage a system service | are not there: use the service manager of the system |
| `run-single`, `exec`, `wrapper`, `fleeting` | | are not there; plugins are built in |
";

#[test]
fn the_reference_page_is_what_the_command_line_says() {
    let made = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/cli.md is out of date: run UPDATE_REFERENCE=1 cargo test -p drover reference"
    );
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(page, "| {} | {meaning} |", exit.code());
    }
    let mut root = Arguments::command().term_width(110);
    root.build();
    section(root.clone(), "drover", &mut page);
    commands(&root, "drover", &mut page);
    page.push_str("\n## Flags of `drover register` for sections of the file\n\n");
    page.push_str(
        "They count for executors that read the section. Lists are given by repeating the flag.\n\n",
    );
    page.push_str("| Flag | Variable | Meaning |\n| --- | --- | --- |\n");
    for (long, variable, meaning) in register::section_flags() {
        let _ = writeln!(page, "| `--{long}` | `{variable}` | {} |", meaning.replace('|', "\\|"));
    }
    page.push_str(DIFFERENCES);
    page
}

fn commands(parent: &Command, name: &str, page: &mut String) {
    for command in parent.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("{name} {}", command.get_name());
        if command.has_subcommands() {
            commands(command, &name, page);
        } else {
            // The page has what all commands share once, with the program itself.
            let own = command.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
            section(own, &name, page);
        }
    }
}

fn section(mut command: Command, name: &str, page: &mut String) {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n").trim());
}
