//! Room for what is built and for what tests write: a disk that fills up shows itself as failures of tests that are not at fault.

use std::path::Path;
use std::process::Command;

use crate::steps::say;

const MIB: u64 = 1024 * 1024;

/// The file systems that matter, with what is free there in bytes; those of which `df` knows nothing are left out.
fn free() -> Vec<(String, u64)> {
    let folders = [std::env::current_dir().unwrap_or_else(|_| ".".into()), std::env::temp_dir()];
    folders.iter().filter_map(|folder| Some((folder.display().to_string(), free_at(folder)?))).collect()
}

fn free_at(folder: &Path) -> Option<u64> {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(folder).output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(output: &str) -> Option<u64> {
    output.lines().nth(1)?.trim().parse().ok()
}

/// Says how much room there is.
pub(crate) fn report() {
    warn_below(0);
}

/// Says how much room there is, and warns where that is less than what everything needs: less may do, where much is built already.
pub(crate) fn warn_below(least: u64) {
    for (folder, bytes) in free() {
        say(&format!("== {} MiB are free at {folder}", bytes / MIB));
        if bytes < least {
            say(&format!(
                "warning: from a clean tree, everything needs {} MiB, and {} MiB are free at {folder}; \
                 `cargo clean` frees what older builds left",
                least / MIB,
                bytes / MIB
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_the_second_line() {
        assert_eq!(parse("     Avail\n34359738368\n"), Some(34_359_738_368));
        assert_eq!(parse("df: nowhere: No such file or directory\n"), None);
        assert!(free_at(Path::new("/")).is_some());
    }
}
