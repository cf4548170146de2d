//! Looks at the machine that the tests run on.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

/// Any wait of a test ends with a failure after this long: far beyond what a slow machine needs.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// How often a condition that cannot be waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for a future, at most [`PATIENCE`].
///
/// # Panics
/// When it does not complete.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("not reached within {PATIENCE:?}: {what}"))
}

/// Waits for a condition of the world outside of this process, at most [`PATIENCE`].
///
/// # Panics
/// When it does not come to hold.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
}

/// Living processes that work in this folder or below, with their command lines.
#[must_use]
pub fn processes_in(folder: &Path) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    for pid in pids() {
        // The link of a folder that is gone ends in " (deleted)", and still begins with its path.
        let folder_of = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        if folder_of.to_string_lossy().starts_with(&*folder.to_string_lossy()) && is_alive(pid) {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.insert(pid, String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

/// Living processes whose command line holds this text.
#[must_use]
pub fn processes_with(text: &str) -> Vec<i32> {
    let holds = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text) && is_alive(*pid)
    };
    pids().filter(holds).collect()
}

/// All processes below this one.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in pids() {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // "pid (name) state parent ...", and the name may contain anything.
        let fields = stat.rsplit(") ").next();
        let parent = fields.and_then(|rest| rest.split(' ').nth(1)).and_then(|text| text.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(parent) = next.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            found.push(child);
            next.push(child);
        }
    }
    found
}

/// Whether a process lives. A zombie has an entry, but is dead.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// The most memory that a process had resident so far, in bytes.
#[must_use]
pub fn memory_peak(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
