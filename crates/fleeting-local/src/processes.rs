//! Finding and ending whatever runs on an instance.
//!
//! The process of an instance leads a session of its own, so that all that it starts carries its process id as
//! session id, and nothing else can carry it for as long as one of them lives. What begins a session of its own (a
//! daemon) is found by the mark in its environment.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The environment variable that marks what runs on an instance; its value is the instance's name.
pub(crate) const MARK: &str = "DROVER_LOCAL_INSTANCE";

/// Between two looks at what is left.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Looks until the sweep gives up on processes that the kernel cannot end (stuck in a device).
const LOOKS: u32 = 200;

/// Kills everything that runs on the instance `id`, whose process is or was `leader`, except the caller and the leader
/// itself. Returns when nothing is left; false if something would not go.
pub(crate) async fn sweep(leader: Pid, id: &str) -> bool {
    let own = Pid::this();
    for _ in 0..LOOKS {
        let left = find(leader, id).into_iter().filter(|pid| *pid != own && *pid != leader);
        if left.map(|pid| kill(pid, Signal::SIGKILL)).filter(|done| *done != Err(Errno::ESRCH)).count() == 0 {
            return true;
        }
        // The kernel has no notice for the end of processes that are not our children.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    false
}

/// Living processes of the instance, from `/proc`; none on systems without it.
fn find(leader: Pid, id: &str) -> Vec<Pid> {
    let mark = format!("{MARK}={id}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    pids.filter(|pid| {
        let Some((state, session)) = stat(*pid) else { return false };
        // A zombie is dead already and waits for its parent.
        state != 'Z' && state != 'X' && (session == leader || is_marked(*pid, &mark))
    })
    .collect()
}

/// State and session from `/proc/<pid>/stat`. The command's name before them may hold anything, so the fields are
/// counted from the last parenthesis: state, parent, group, session.
fn stat(pid: Pid) -> Option<(char, Pid)> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let session = fields.nth(2)?.parse().ok()?;
    Some((state, Pid::from_raw(session)))
}

fn is_marked(pid: Pid, mark: &str) -> bool {
    // Unreadable means that it belongs to another user, hence not to an instance.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_sweep_ends_what_carries_the_mark_and_nothing_else() {
        let sleeper = |mark: &str| {
            Command::new("sleep").arg("600").env(MARK, mark).stdout(Stdio::null()).spawn().unwrap()
        };
        let mut marked = sleeper("sweep-1");
        let mut other = sleeper("sweep-12");
        // No process has this id: the session is not what finds them.
        let nobody = Pid::from_raw(i32::MAX);

        let swept = sweep(nobody, "sweep-1").await;

        assert!(swept);
        assert!(!marked.wait().unwrap().success());
        assert_eq!(other.try_wait().unwrap(), None, "a process of another instance was killed");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn the_session_of_this_process_is_the_one_that_the_kernel_reports() {
        let (state, session) = stat(Pid::this()).unwrap();
        assert_eq!(Some(session), nix::unistd::getsid(None).ok());
        assert!(matches!(state, 'R' | 'S'));
    }
}
