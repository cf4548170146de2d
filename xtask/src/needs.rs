//! The programs that tests use. A test that needs one and does not find it fails, so they are installed first.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::patience::patiently;
use crate::steps::{fetch, program, say};

/// Program and the Debian package that has it.
const NEEDS: &[(&str, &str)] = &[
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
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("htpasswd", "apache2-utils"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
];

/// Before the command of `apt-get`: waits for another one to end (a machine that was just made updates itself), tries downloads
/// again, and fails when a list of packages was not fetched, which is otherwise a warning.
const APT: [&str; 7] =
    ["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=5", "-o", "APT::Update::Error-Mode=any"];

/// Installs what is missing, where that is possible, makes the Python environment of the tests, and fetches dependencies.
pub(crate) fn install() -> Result<()> {
    packages()?;
    fetch()?;
    // target/<profile>/xtask
    let xtask = std::env::current_exe().context("the path of this program is not known")?;
    let target = xtask.ancestors().nth(2).context("this program is not in a target folder")?;
    let folder = target.join("needs/python");
    let folder = folder.to_str().context("the path of the target folder is not UTF-8")?;
    patiently("making the Python environment of the tests", || {
        program("sh", &["tests/python.sh", folder], &[])
    })
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
    patiently("installing packages", || install_packages(&missing))?;
    let still: Vec<&str> = NEEDS.iter().map(|(name, _)| *name).filter(|name| !present(name)).collect();
    if !still.is_empty() {
        say(&format!("packages were installed, and PATH still lacks {}", still.join(", ")));
    }
    Ok(())
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    let apt = |command: &[&str]| program("apt-get", &[&APT[..], command].concat(), &quiet);
    let updated = apt(&["update"]);
    // Lists that are already here may do: a repository that is broken for good may have nothing that is needed.
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat()).or_else(|error| {
        // What came first explains the other.
        updated.and(Err(error))
    })
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
