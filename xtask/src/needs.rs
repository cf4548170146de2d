//! The programs that tests use. A test that needs one and does not find it fails, so they are installed first.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::steps::{program, say};

/// Program and the Debian package that has it.
const NEEDS: [(&str, &str); 25] = [
    ("/usr/sbin/sshd", "openssh-server"),
    ("ssh-keygen", "openssh-client"),
    ("git", "git"),
    ("git-lfs", "git-lfs"),
    ("bash", "bash"),
    ("dash", "dash"),
    ("busybox", "busybox-static"),
    ("ps", "procps"),
    ("zip", "zip"),
    ("unzip", "unzip"),
    ("zstd", "zstd"),
    ("tar", "tar"),
    ("gzip", "gzip"),
    ("script", "bsdutils"),
    ("python3", "python3"),
    ("flock", "util-linux"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("setpriv", "util-linux"),
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("htpasswd", "apache2-utils"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
];

/// Installs what is missing, where that is possible, and makes the Python environment of the tests.
pub(crate) fn install() -> Result<()> {
    packages()?;
    // target/<profile>/xtask
    let xtask = std::env::current_exe().context("the path of this program is not known")?;
    let target = xtask.ancestors().nth(2).context("this program is not in a target folder")?;
    let folder = target.join("needs/python");
    let folder = folder.to_str().context("the path of the target folder is not UTF-8")?;
    program("sh", &["tests/python.sh", folder], &[])
}

fn packages() -> Result<()> {
    let mut missing: Vec<&str> =
        NEEDS.iter().filter(|(name, _)| !present(name)).map(|(_, package)| *package).collect();
    if !has_venv() {
        missing.push("python3-venv");
    }
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

/// Debian keeps what environments are made with in a package of its own, without a program.
fn has_venv() -> bool {
    Command::new("python3").args(["-c", "import ensurepip"]).status().is_ok_and(|status| status.success())
}

fn root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"))
}
