//! Which functions a manager runs, so that a linker puts them side by side: then waiting takes few pages of the program.
//!
//! Names are those of the linker, which hold hashes, so they are good for one build of the program: what they are not good for, they
//! leave as it is.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::scene::{Programs, Scene, Setting};

/// All at once, so that what depends on how jobs meet has run too.
const JOBS: u32 = 50;
/// For what a manager does when nothing happens.
const QUIET: Duration = Duration::from_secs(10);

/// One name a line. Starts a manager, lets it run jobs and wait, and stops it.
pub(crate) async fn names(programs: &Programs) -> anyhow::Result<String> {
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let file = folder.path().join("calls");
    let setting = Setting { traced: Some(file.clone()), ..Setting::new(10) };
    let scene = Scene::start(programs, setting).await?;
    scene.warm_up(JOBS).await?;
    tokio::time::sleep(QUIET).await;
    scene.stop().await?;
    let calls = std::fs::read_to_string(&file).context("callgrind has written nothing")?;
    let names = called(&calls);
    if names.is_empty() {
        bail!("callgrind names no function: was `{}` stripped?", programs.drover().display());
    }
    Ok(names.into_iter().flat_map(|name| [name, "\n"]).collect())
}

/// The functions in what callgrind writes. Its lines `fn=(12) name` and `cfn=(12) name` name each function once; recursion is
/// marked by a quote and a number.
fn called(calls: &str) -> BTreeSet<&str> {
    calls.lines().filter_map(named).collect()
}

fn named(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('c').unwrap_or(line).strip_prefix("fn=(")?;
    let name = rest.split_once(") ")?.1;
    let name = match name.rsplit_once('\'') {
        Some((name, depth)) if depth.parse::<u32>().is_ok() => name,
        _ => name,
    };
    // What has no name is an address, or words in brackets.
    (!name.starts_with("0x") && !name.contains([' ', '('])).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_once_whatever_they_call() {
        let calls = "# callgrind format\nob=(1) /usr/bin/drover\nfl=(2) ???\nfn=(3) _ZN5tokio4wake17h0123E\n0 5\ncfn=(4) malloc\n\
                     calls=1 0\n0 7\nfn=(3)\n0 1\ncfn=(5) _ZN4core4walk17h4567E'2\ncfn=(6) 0x00000000000045f0\n\
                     fn=(7) (below main)\n";
        let expected = ["_ZN4core4walk17h4567E", "_ZN5tokio4wake17h0123E", "malloc"];
        assert_eq!(called(calls), BTreeSet::from(expected));
    }
}
