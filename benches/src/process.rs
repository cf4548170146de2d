//! What the operating system says of another process.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// Ticks of `/proc/<pid>/stat` per second, which Linux fixes for programs.
const TICKS_PER_SECOND: u64 = 100;

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All of it (`VmRSS`).
    pub(crate) resident: u64,
    /// The most there ever was (`VmHWM`).
    pub(crate) peak: u64,
    /// The part that is not a file's (`RssAnon`): heap and stacks.
    pub(crate) anonymous: u64,
}

/// Time on a processor of each thread that is alive, in nanoseconds.
///
/// Finer than ticks, but time of threads that have ended is lost; so it is for spans in which threads stay.
#[derive(Debug)]
pub(crate) struct ThreadTimes(BTreeMap<String, u64>);

// === impl Memory ===

impl Memory {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read `{path}`"))?;
        Self::parse(&text).with_context(|| format!("`{path}` has no figures of memory"))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = |key: &str| -> Option<u64> {
            let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
            let kibibytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes * 1024)
        };
        Some(Self { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")?, anonymous: bytes("RssAnon:")? })
    }
}

// === impl ThreadTimes ===

impl ThreadTimes {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/task");
        let threads = fs::read_dir(&path).with_context(|| format!("failed to list `{path}`"))?;
        let time = |thread: fs::DirEntry| -> Option<(String, u64)> {
            // A thread may end between the listing and this.
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name().into_string().ok()?, text.split_whitespace().next()?.parse().ok()?))
        };
        Ok(Self(threads.flatten().filter_map(time).collect()))
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.0.len()
    }

    /// Time used since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let used = |(thread, now): (&String, &u64)| {
            now.saturating_sub(earlier.0.get(thread).copied().unwrap_or_default())
        };
        Duration::from_nanos(self.0.iter().map(used).sum())
    }
}

/// User and system time of a process, threads that have ended included, children not.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read `{path}`"))?;
    parse_cpu(&text).with_context(|| format!("`{path}` has no times"))
}

/// A process and all that came from it and are alive.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let parent = |child: u32| -> Option<(u32, u32)> {
        let text = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        Some((child, text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
    };
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(parent).collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(child, _)| child));
        next += 1;
    }
    family
}

/// Load of the machine over the last minute, since others may be at work on it.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    // The name of the program may contain anything; fields are counted from its closing bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| -> Option<u64> { fields.get(field)?.parse().ok() };
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 3 0 12345 100 5";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_cpu(""), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let status = "VmHWM:\t    30 kB\nVmRSS:\t      20 kB\nRssAnon:\t  10 kB\n";
        let memory = Memory { resident: 20 << 10, peak: 30 << 10, anonymous: 10 << 10 };
        assert_eq!(Memory::parse(status), Some(memory));
        assert_eq!(Memory::parse("VmRSS: 20 kB"), None);
    }

    #[test]
    fn threads_that_began_later_count_in_full() {
        let earlier = ThreadTimes([("1".to_owned(), 10)].into());
        let now = ThreadTimes([("1".to_owned(), 15), ("2".to_owned(), 7)].into());
        assert_eq!(now.since(&earlier), Duration::from_nanos(12));
    }
}
