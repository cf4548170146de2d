//! From the text of an exec request to a process.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::Machine;

/// Starts the command in a process group of its own, with pipes for all three streams.
///
/// A shell is started only where the text needs one. Text that is a plain list of words means the same to a shell, and
/// is run directly if its first word is a program; builtins and mistakes are not, and go to the shell.
pub(super) fn spawn(machine: &Machine, text: &[u8]) -> io::Result<Child> {
    if let Some((program, words)) = plain_words(text)
        && let Some(path) = look_up(machine, program)
    {
        let mut command = Command::new(path);
        command.arg0(OsStr::from_bytes(program));
        command.args(words.iter().map(|word| OsStr::from_bytes(word)));
        if let Ok(child) = start(machine, command) {
            return Ok(child);
        }
    }
    let mut command = Command::new(&machine.shell);
    command.arg("-c").arg(OsStr::from_bytes(text));
    start(machine, command)
}

fn start(machine: &Machine, mut command: Command) -> io::Result<Child> {
    command
        .env_clear()
        .envs(&machine.environment)
        .current_dir(&machine.dir)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn()
}

/// Splits text that holds nothing with a meaning to shells.
fn plain_words(text: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b" _./:@%+,-=".contains(byte);
    if !text.iter().all(plain) {
        return None;
    }
    let mut words = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let program = words.next().filter(|program| !program.contains(&b'='))?;
    Some((program, words.collect()))
}

/// The program's path, so that the process can be started without a copy of this one (`posix_spawn` does not search in
/// the new environment).
fn look_up(machine: &Machine, program: &[u8]) -> Option<PathBuf> {
    let program = Path::new(OsStr::from_bytes(program));
    if program.is_absolute() {
        return Some(program.to_owned());
    }
    // `./x` is relative to the new working directory.
    if program.components().count() > 1 {
        return None;
    }
    let path = machine.environment.get("PATH")?;
    std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(program)).find(
        |candidate| {
            candidate
                .metadata()
                .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_without_meaning_to_a_shell_is_a_list_of_words() {
        let words = |text: &'static str| {
            plain_words(text.as_bytes()).map(|(program, words)| {
                let mut all = vec![String::from_utf8(program.to_vec()).unwrap()];
                all.extend(words.iter().map(|word| String::from_utf8(word.to_vec()).unwrap()));
                all
            })
        };
        assert_eq!(words("bash").unwrap(), ["bash"]);
        assert_eq!(words("  sh  -e /tmp/a.sh a=b ").unwrap(), ["sh", "-e", "/tmp/a.sh", "a=b"]);
        for text in [
            "",
            " ",
            "a=b sh",
            "echo $HOME",
            "a;b",
            "a|b",
            "a&b",
            "echo 'x'",
            "~/x",
            "*",
            "a\nb",
            "a>b",
            "(a)",
        ] {
            assert_eq!(words(text), None, "{text:?}");
        }
    }
}
