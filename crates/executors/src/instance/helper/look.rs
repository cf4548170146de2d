//! What is on an instance already.

use std::sync::Arc;

use bytes::Bytes;
use job::Helper;

use super::{HelperError, VERSION, output, quote};
use crate::instance::machine::Machine;

/// One look at an instance, by one command.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// `uname -s`.
    pub(super) system: String,
    /// `uname -m`.
    pub(super) machine: String,
    configured: Option<Program>,
    /// Helpers that the login finds, in the order of preference.
    any: Vec<Program>,
    /// SHA-256 and path of those that Drover put there.
    kept: Vec<(String, String)>,
}

/// A program that answers to `--version`.
#[derive(Debug)]
struct Program {
    path: String,
    version: String,
}

/// Reads `d`, the folder; says one thing per line. `digest` is defined by [`DIGEST`].
const LOOK: &str = r#"
echo "system $(uname -s)"
echo "machine $(uname -m)"
say() {
p=$(command -v "$2" 2>/dev/null) || return 0
n=$("$2" --version 2>/dev/null </dev/null) || return 0
echo "$1 $p ${n%%"$l"*}"
}
l='
'
if [ -n "$c" ]; then say configured "$c"; fi
for n in drover-helper drover gitlab-runner-helper gitlab-runner; do say any "$n"; done
for f in "$d"/drover-helper-*; do
if [ -f "$f" ] && [ -x "$f" ] && [ -O "$f" ] && [ ! -L "$f" ]; then echo "kept $(digest <"$f") $f"; fi
done
exit 0
"#;

/// Shell function: the SHA-256 of standard input, by whatever the instance has.
pub(super) const DIGEST: &str = r#"
digest() {
if command -v sha256sum >/dev/null 2>&1; then set -- $(sha256sum)
elif command -v shasum >/dev/null 2>&1; then set -- $(shasum -a 256)
elif command -v openssl >/dev/null 2>&1; then set -- $(openssl dgst -sha256 -r)
else echo "none of sha256sum, shasum and openssl is there to check the helper" >&2; return 1; fi
echo "${1:-}"
}
"#;

/// Shell commands: makes the folder in `d` absolute.
pub(super) const ABSOLUTE: &str = r#"
case $d in "~") d=$HOME ;; "~/"*) d=$HOME/${d#"~/"} ;; /*) ;; *) d=$HOME/$d ;; esac
"#;

// === impl Look ===

impl Look {
    /// Looks for the helper that is configured, for others, and in the folder where Drover puts its own.
    pub(super) async fn at(machine: &Arc<Machine>, command: &str, folder: &str) -> Result<Self, HelperError> {
        let script = format!("c={} d={}\n{ABSOLUTE}{DIGEST}{LOOK}", quote(command), quote(folder));
        let sent = machine.start("sh", Bytes::from(script)).await?;
        Ok(Self::read(&output(sent.process).await?))
    }

    pub(super) fn read(said: &str) -> Self {
        let mut look = Self::default();
        for line in said.lines() {
            let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
            let program = || Program { path: first.to_owned(), version: second.to_owned() };
            match what {
                "system" => look.system = rest.to_owned(),
                "machine" => look.machine = rest.to_owned(),
                "configured" => look.configured = Some(program()),
                "any" => look.any.push(program()),
                "kept" => look.kept.push((first.to_owned(), second.to_owned())),
                _ => {}
            }
        }
        look
    }

    /// The one that Drover put there, if it is this one.
    pub(super) fn kept(&self, digest: &str) -> Option<&str> {
        self.kept.iter().find(|(found, _)| found == digest).map(|(_, path)| path.as_str())
    }

    pub(super) fn configured(&self) -> Option<Helper> {
        self.configured.as_ref().map(Program::helper)
    }

    /// A `drover-helper` of this version, as in an image that was made for it.
    pub(super) fn same_version(&self) -> Option<Helper> {
        let same = |program: &&Program| program.version.trim_end() == format!("drover-helper {VERSION}");
        self.any.iter().find(same).map(Program::helper)
    }

    pub(super) fn any(&self) -> Option<Helper> {
        self.any.first().map(Program::helper)
    }
}

// === impl Program ===

impl Program {
    fn helper(&self) -> Helper {
        // `gitlab-runner` may be a link to `drover`.
        Helper { command: self.path.clone(), is_drover: self.version.starts_with("drover") }
    }
}
