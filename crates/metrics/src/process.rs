//! What the operating system says of the process; nothing where there is no `/proc`.

use std::fs;

use crate::exposition::Exposition;
use crate::table::Id;

/// Ticks per second of the times in `/proc`, which Linux fixes for programs.
const TICKS: f64 = 100.0;

/// Adds the rows that can be known.
pub(crate) fn show(text: &mut Exposition) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some((cpu, started)) = times(&stat) {
        text.process(Id::CpuSecondsTotal, &[], cpu);
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        if let Some(boot) = number_after(&system, "btime") {
            text.process(Id::StartTime, &[], boot + started);
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (id, key) in [(Id::ResidentBytes, "VmRSS:"), (Id::VirtualBytes, "VmSize:")] {
        if let Some(kibibytes) = number_after(&status, key) {
            text.process(id, &[], kibibytes * 1024.0);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the folder that is being read.
        text.process(Id::OpenFds, &[], open.count().saturating_sub(1));
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = number_after(&limits, "Max open files") {
        text.process(Id::MaxFds, &[], most);
    }
}

/// Processor time used, and the start of the process after that of the system, both in seconds.
fn times(stat: &str) -> Option<(f64, f64)> {
    // The name of the program may contain anything; fields are counted from its closing bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| -> Option<f64> { fields.get(field)?.parse().ok() };
    Some(((ticks(11)? + ticks(12)?) / TICKS, ticks(19)? / TICKS))
}

fn number_after(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 3 0 12345 100 5";
        assert_eq!(times(stat), Some((3.0, 123.45)));
        assert_eq!(times(""), None);
    }
}
