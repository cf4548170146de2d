//! The helper for instances: static, one for each architecture, where `drover` finds it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::steps::{program, say, starts, target_dir};

/// Architecture, as in `uname -m`, and the program that compiles and links C for it where the machine's own does not.
const ARCHITECTURES: [(&str, &str); 2] =
    [("x86_64", "x86_64-linux-gnu-gcc"), ("aarch64", "aarch64-linux-gnu-gcc")];

/// Builds the helpers: for the architecture of this machine, and for every other whose compiler and Rust target are installed.
/// They go to `<target>/lib/drover/helper/<architecture>/drover-helper`, where a `drover` in `<target>/<profile>` looks.
pub(crate) fn build() -> Result<()> {
    let target_dir = target_dir();
    for (architecture, compiler) in ARCHITECTURES {
        let triple = format!("{architecture}-unknown-linux-musl");
        let own = architecture == std::env::consts::ARCH;
        if !has_target(&triple) {
            if own {
                bail!("the target {triple} is not installed: rustup target add {triple}");
            }
            say(&format!(
                "{architecture}: left out, its target is not installed: rustup target add {triple}"
            ));
            continue;
        }
        if !own && !starts(compiler) {
            let package = compiler.trim_end_matches("-gcc");
            say(&format!(
                "{architecture}: left out, `{compiler}` is not installed: apt-get install gcc-{package}"
            ));
            continue;
        }
        cargo(&triple, if own { None } else { Some(compiler) })?;
        install(&target_dir, &triple, architecture)?;
    }
    Ok(())
}

fn cargo(triple: &str, compiler: Option<&str>) -> Result<()> {
    let variable = triple.replace('-', "_");
    let linker = format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase());
    let (cc, flags) = (format!("CC_{variable}"), format!("CFLAGS_{variable}"));
    let mut env: Vec<(&str, &str)> = Vec::new();
    if let Some(compiler) = compiler {
        // Checked variants of functions are of the C library that the compiler belongs to, and musl has none.
        env.extend([(linker.as_str(), compiler), (&cc, compiler), (&flags, "-U_FORTIFY_SOURCE")]);
    }
    let args = ["build", "--package", "drover-helper", "--profile", "helper", "--target", triple];
    program(env!("CARGO"), &args, &env)
}

fn install(target_dir: &Path, triple: &str, architecture: &str) -> Result<()> {
    let built = target_dir.join(triple).join("helper/drover-helper");
    let folder = target_dir.join("lib/drover/helper").join(architecture);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let place = folder.join("drover-helper");
    let bytes = std::fs::copy(&built, &place)
        .with_context(|| format!("cannot copy `{}` to `{}`", built.display(), place.display()))?;
    say(&format!("{architecture}: {} ({bytes} bytes)", place.display()));
    Ok(())
}

/// Whether the target's standard library is there.
fn has_target(triple: &str) -> bool {
    let libdir = Command::new("rustc").args(["--print", "target-libdir", "--target", triple]).output();
    libdir.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}
