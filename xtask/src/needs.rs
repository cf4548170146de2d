//! The programs that tests use. A test that needs one and does not find it fails, so they are installed first.

use std::process::Command;

use anyhow::{Result, bail};

use crate::steps::{program, say};

/// Program and the Debian package that has it.
const NEEDS: [(&str, &str); 16] = [
    ("/usr/sbin/sshd", "openssh-server"),
    ("ssh-keygen", "openssh-client"),
    ("git", "git"),
    ("bash", "bash"),
    ("dash", "dash"),
    ("busybox", "busybox"),
    ("ps", "procps"),
    ("zip", "zip"),
    ("unzip", "unzip"),
    ("zstd", "zstd"),
    ("tar", "tar"),
    ("gzip", "gzip"),
    ("script", "bsdutils"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("setpriv", "util-linux"),
];

/// Installs what is missing, where that is possible.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&str> =
        NEEDS.iter().filter(|(name, _)| !present(name)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !present("apt-get") || !root() {
        bail!(
            "the tests need programs that are not installed; as root on Debian: apt-get install {}",
            missing.join(" ")
        );
    }
    say(&format!("installing {}", missing.join(" ")));
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    program("apt-get", &["-qq", "update"], &quiet)?;
    let mut args = vec!["-qq", "install", "--yes", "--no-install-recommends"];
    args.extend(&missing);
    program("apt-get", &args, &quiet)
}

fn present(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .output()
        .is_ok_and(|out| out.status.success())
}

fn root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"))
}
