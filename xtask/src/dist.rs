//! The programs as they are handed out: optimised at link time, and `drover` with the functions that a manager runs side by side.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::steps::{program, say, starts, target_dir};

/// What is built by one call of cargo each: packages that are built together have the features that any of them asks for.
const PROGRAMS: [&[&str]; 3] = [
    &["-p", "drover", "--bins"],
    &["-p", "drover-helper"],
    &["-p", "gitlab-mock", "-p", "drover-benches", "--bins"],
];

/// Builds them to `<target>/dist`. docs/performance.md tells what the order of functions gives.
pub(crate) fn build() -> Result<()> {
    // The linker whose option this is is Rust's on this platform only.
    let ordered = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    if ordered && !starts("valgrind") {
        bail!(
            "the order of functions is found with `valgrind`, which is not installed: apt-get install valgrind"
        );
    }
    for packages in PROGRAMS {
        program(env!("CARGO"), &[&["build", "--profile", "dist"], packages].concat(), &[])?;
    }
    let folder = std::path::absolute(target_dir().join("dist")).context("the target folder has no path")?;
    if !ordered {
        say(
            "the functions of drover lie as the linker left them: their order is chosen on Linux on x86-64 only",
        );
        return Ok(());
    }
    let order = folder.join("drover.order");
    look(&folder, &order)?;
    let file = order.to_str().context("the path of the target folder is not UTF-8")?;
    let chosen = format!("link-arg=-Wl,--symbol-ordering-file={file}");
    // Names of what the compiler made otherwise this time are no harm.
    let quiet = "link-arg=-Wl,--no-warn-symbol-ordering";
    let link =
        ["rustc", "--profile", "dist", "-p", "drover", "--bin", "drover", "--", "-C", &chosen, "-C", quiet];
    program(env!("CARGO"), &link, &[])?;
    say(&format!("{}", folder.join("drover").display()));
    Ok(())
}

/// Runs the manager where it is seen which functions that needs, and writes their names.
fn look(folder: &Path, order: &Path) -> Result<()> {
    let names = Command::new(folder.join("drover-benches"))
        .args(["layout", "--bin-dir"])
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()
        .context("could not start drover-benches")?;
    if !names.status.success() || names.stdout.is_empty() {
        bail!("`drover-benches layout` ended with {}, without the names of functions", names.status);
    }
    std::fs::write(order, names.stdout).with_context(|| format!("cannot write `{}`", order.display()))
}
