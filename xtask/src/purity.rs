//! The pure crates stay pure: what they depend on, directly or not, holds no runtime, network, clock or randomness.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Crates whose whole dependency tree is checked.
const PURE: [&str; 3] = ["drover-taskscaler-core", "drover-job", "drover-job-payload"];

/// Crates that bring time, input and output, or chance.
const IMPURE: [&str; 12] = [
    "async-std",
    "bollard",
    "hyper",
    "mio",
    "rand",
    "rand_core",
    "redb",
    "reqwest",
    "russh",
    "smol",
    "socket2",
    "tokio",
];

/// Fails if a pure crate names, or reaches, an impure one outside of its tests.
pub(crate) fn check() -> Result<()> {
    for package in PURE {
        let reached = dependencies(package)?;
        let found: Vec<&str> = IMPURE.into_iter().filter(|name| reached.contains(*name)).collect();
        if !found.is_empty() {
            bail!("{package} must stay pure, but reaches {}", found.join(", "));
        }
        chrono_without_clock(package)?;
    }
    Ok(())
}

fn dependencies(package: &str) -> Result<BTreeSet<String>> {
    let text =
        cargo(&["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"])?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// `chrono` is there for calendars. Its clock must not be called from a pure crate.
fn chrono_without_clock(package: &str) -> Result<()> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let manifest = packages
        .iter()
        .find(|found| found["name"] == package)
        .and_then(|found| found["manifest_path"].as_str())
        .with_context(|| format!("{package} is not in the workspace"))?;
    let sources = std::path::Path::new(manifest).with_file_name("src");
    for file in rust_files(&sources)? {
        let text = std::fs::read_to_string(&file)?;
        for (number, line) in text.lines().enumerate() {
            for call in [
                "Utc::now",
                "Local::now",
                "Instant::now",
                "SystemTime::now",
                "std::fs",
                "std::net",
                "std::env",
            ] {
                if line.contains(call) && !line.trim_start().starts_with("//") {
                    let tests_start = text.lines().position(|line| line.trim() == "#[cfg(test)]");
                    if tests_start.is_none_or(|start| number < start) {
                        bail!("{}:{}: `{call}` in a pure crate", file.display(), number + 1);
                    }
                }
            }
        }
    }
    Ok(())
}

fn rust_files(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_stem().is_none_or(|stem| stem != "tests")
        {
            files.push(path);
        }
    }
    Ok(files)
}

fn cargo(args: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO")).args(args).output().context("could not start cargo")?;
    if !output.status.success() {
        bail!("`cargo {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
