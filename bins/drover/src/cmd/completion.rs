//! `drover completion`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Exit;

const EXAMPLES: &str = "\
Examples:
  source <(drover completion bash)
  drover completion zsh > ~/.zfunc/_drover
  drover completion fish > ~/.config/fish/completions/drover.fish";

/// Print a script that completes the command line in a shell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionArguments {
    /// The shell.
    shell: Shell,
}

/// Prints the script.
pub(crate) fn completion(options: &CompletionArguments) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "drover", &mut script);
    crate::output::data(&String::from_utf8_lossy(&script).trim_end());
    Exit::Success
}
