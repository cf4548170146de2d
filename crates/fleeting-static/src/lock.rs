//! The lock on a machine: a symbolic link in the login's home whose target is text that says who uses the machine.
//!
//! Making a link either succeeds with its whole content or fails because there is one, on every file system. Its end is told
//! by the machine's own clock, so that the clocks of managers do not matter. The machine's name is in the link's name, so
//! that machines may share a home.
//!
//! Scripts are for any POSIX shell with `readlink` and `date +%s`. Everything that goes into one is made of letters, digits
//! and `-_./:@`, between single quotes.

use std::time::Duration;

use chrono::DateTime;
use fleeting::lease::Owner;

/// Longest answer that is read.
pub(crate) const ANSWER: usize = 4096;

/// One use of a machine by one manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    owner: Owner,
    /// Tells this use from all others.
    token: String,
    valid: Duration,
}

/// What a machine has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The lock is one's own.
    Held,
    /// Somebody else has it; who, for people.
    Theirs(String),
    /// The machine has no place for locks.
    Unlockable(String),
    /// Nothing that can be understood.
    Unclear(String),
}

// === impl Lock ===

impl Lock {
    pub(crate) fn new(owner: &Owner, valid: Duration) -> Self {
        Self { owner: owner.clone(), token: format!("{:016x}", rand::random::<u64>()), valid }
    }

    /// Takes the lock: a free one, a lapsed one, or one that this entry of this manager has left behind.
    pub(crate) fn take(&self) -> String {
        format!(
            r#"{}
v="$v$s at=$n"
if ln -s "$v" "$l" 2>/dev/null; then echo held; exit 0; fi
old=$(readlink "$l") || {{ e=$(ln -s "$v" "$l" 2>&1) && echo held || echo "unlockable $e"; exit 0; }}
{JUDGE}# Only one at a time replaces a lock, and only the one that was found; it is never absent meanwhile.
if ! ln -s "$v" "$l.taking" 2>/dev/null; then
    at=$(readlink "$l.taking"); at=${{at##* at=}}
    case $at in ''|*[!0-9]*) ;; *)
        # Whoever made it is gone.
        if [ $((n - at)) -gt 60 ] || [ $((at - n)) -gt 60 ]; then rm -f "$l.taking"; fi ;;
    esac
    echo "theirs $old"
    exit 0
fi
rm -f "$t"
if [ "$(readlink "$l")" = "$old" ] && ln -s "$v" "$t" && mv -f "$t" "$l"; then
    a=held
else
    a="theirs $(readlink "$l")"
fi
rm -f "$l.taking"
echo "$a"
"#,
            self.head()
        )
    }

    /// Changes nothing: held is said of what could be taken.
    pub(crate) fn look(&self) -> String {
        format!("{}\nold=$(readlink \"$l\") || {{ echo held; exit 0; }}\n{JUDGE}echo held\n", self.head())
    }

    /// Writes the lock again, if it is still this use's.
    pub(crate) fn renew(&self) -> String {
        format!(
            r#"{}
old=$(readlink "$l")
case $old in *" use=$u "*" since="*) s=${{old##* since=}}; s=${{s%% *}} ;; esac
v="$v$s at=$n"
case $old in
*" use=$u "*) rm -f "$t"; ln -s "$v" "$t" && mv -f "$t" "$l" && echo held ;;
'') if e=$(ln -s "$v" "$l" 2>&1); then echo held; else echo "unlockable $e"; fi ;;
*) echo "theirs $old" ;;
esac
"#,
            self.head()
        )
    }

    /// Removes the lock, if it is still this use's.
    pub(crate) fn release(&self) -> String {
        format!(
            "{}\ncase $(readlink \"$l\") in *\" use=$u \"*) rm -f \"$l\" ;; esac\necho held\n",
            self.head()
        )
    }

    fn head(&self) -> String {
        let Self { owner, token, valid } = self;
        let Owner { manager, entry, name, host } = owner;
        let valid = valid.as_secs().max(1);
        format!(
            r#"set -f
umask 077
n=$(date +%s)
o='{manager}/{entry}'
u='{token}'
l=$HOME/.drover-lock-$(uname -n)
t=$l.$u
s=$n
v='{VERSION} owner={manager}/{entry} use={token} name={name} host={host} for={valid} since='"#
        )
    }
}

/// Ends the script unless the lock that was found may be replaced.
const JUDGE: &str = r#"case $old in
v1*" owner=$o "*) ;;
v1' '*)
    at=${old##* at=}; for=${old##* for=}; for=${for%% *}
    case $at,$for in ,*|*,|*[!0-9,]*) echo "theirs $old"; exit 0;; esac
    if [ $((n - at)) -lt "$for" ] && [ $((at - n)) -lt "$for" ]; then echo "theirs $old"; exit 0; fi ;;
*) echo "theirs $old"; exit 0 ;;
esac
"#;

const VERSION: &str = "v1";

// === impl Answer ===

impl Answer {
    /// Reads what a script has said.
    pub(crate) fn parse(said: &str) -> Self {
        let line = said.lines().next_back().unwrap_or_default().trim();
        let printable =
            |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(300).collect() };
        match line.split_once(' ') {
            None if line == "held" => Self::Held,
            Some(("theirs", lock)) => Self::Theirs(printable(&holder(lock))),
            Some(("unlockable", why)) => Self::Unlockable(printable(why)),
            None | Some(_) => Self::Unclear(printable(line)),
        }
    }
}

/// Who a lock says that it is of, and since when by the clock of the machine.
fn holder(lock: &str) -> String {
    let word =
        |key: &str| lock.split(' ').find_map(|word| word.strip_prefix(key)).filter(|word| !word.is_empty());
    let manager = word("owner=").and_then(|owner| owner.split('/').next());
    match (word("name="), manager, word("host=")) {
        (Some(name), Some(manager), Some(host)) => {
            let since = word("since=").and_then(|seconds| DateTime::from_timestamp(seconds.parse().ok()?, 0));
            let since = since.map_or_else(String::new, |since| format!(" since {since}"));
            format!("entry `{name}` of manager {manager} on host {host}{since}")
        }
        (_, _, _) => format!("somebody (`{lock}`)"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    fn lock(manager: &str, valid: u64) -> Lock {
        let owner =
            Owner::new(manager, "https://gitlab.example.com", "1", "pool", &format!("host-{manager}"));
        Lock::new(&owner, Duration::from_secs(valid))
    }

    /// Runs a script as a machine would, with each of these shells.
    fn shells() -> Vec<Vec<&'static str>> {
        vec![vec!["sh"], vec!["dash"], vec!["bash", "--posix"], vec!["busybox", "sh"]]
    }

    fn run(shell: &[&str], home: &Path, script: &str) -> Answer {
        use std::io::Write as _;
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .arg("-s")
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("tests need {}: {error}", shell[0]));
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        Answer::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// A time in a lock.
    fn stamp(lock: &str, key: &str) -> i64 {
        let key = format!("{key}=");
        lock.split(' ').find_map(|word| word.strip_prefix(&key)).unwrap().parse().unwrap()
    }

    fn links(home: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(home).unwrap().flatten();
        entries.map(|entry| std::fs::read_link(entry.path()).unwrap().display().to_string()).collect()
    }

    #[test]
    fn one_use_at_a_time_has_a_machine() {
        for shell in shells() {
            let home = tempfile::tempdir().unwrap();
            let run = |script: String| run(&shell, home.path(), &script);
            let (a, b) = (lock("a", 600), lock("b", 600));
            assert_eq!(run(a.take()), Answer::Held, "{shell:?}");
            let since = stamp(&links(home.path())[0], "since");
            let theirs = Answer::Theirs(format!(
                "entry `pool` of manager a on host host-a since {}",
                DateTime::from_timestamp(since, 0).unwrap()
            ));
            assert_eq!(run(b.look()), theirs);
            assert_eq!(run(b.take()), theirs);
            assert_eq!(run(b.renew()), theirs);
            run(b.release());
            assert_eq!(run(a.renew()), Answer::Held);
            assert_eq!(links(home.path()).len(), 1);
            assert_eq!(run(a.release()), Answer::Held);
            assert_eq!(run(b.look()), Answer::Held);
            assert_eq!(links(home.path()), [""; 0]);
            assert_eq!(run(b.take()), Answer::Held);
            // A lock that somebody removed is made again by the use that has the machine.
            run(b.release());
            assert_eq!(run(b.renew()), Answer::Held);
            let answer = run(a.take());
            assert!(
                matches!(&answer, Answer::Theirs(who) if who.starts_with("entry `pool` of manager b on host host-b since ")),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn a_renewed_lock_says_since_when_it_is_held() {
        for shell in shells() {
            let home = tempfile::tempdir().unwrap();
            let run = |script: String| run(&shell, home.path(), &script);
            let lock = lock("a", 600);
            assert_eq!(run(lock.take()), Answer::Held);
            let path = std::fs::read_dir(home.path()).unwrap().next().unwrap().unwrap().path();
            let text = links(home.path()).remove(0);
            let (text, _) = text.rsplit_once("since=").unwrap();
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(format!("{text}since=1700000000 at=1700000000"), &path).unwrap();
            assert_eq!(run(lock.renew()), Answer::Held);
            let renewed = links(home.path()).remove(0);
            assert_eq!(stamp(&renewed, "since"), 1_700_000_000, "{shell:?}");
            assert!(stamp(&renewed, "at") > 1_700_000_000, "{shell:?}: {renewed}");
            // A later use counts from its own beginning.
            assert_eq!(run(lock.release()), Answer::Held);
            assert_eq!(run(lock.take()), Answer::Held);
            let taken = links(home.path()).remove(0);
            assert_eq!(stamp(&taken, "since"), stamp(&taken, "at"));
        }
    }

    #[test]
    fn what_an_earlier_process_of_the_same_entry_left_is_taken_over_and_it_notices() {
        for shell in shells() {
            let home = tempfile::tempdir().unwrap();
            let run = |script: String| run(&shell, home.path(), &script);
            let (before, after) = (lock("a", 600), lock("a", 600));
            assert_eq!(run(before.take()), Answer::Held);
            assert_eq!(run(after.take()), Answer::Held);
            assert!(matches!(run(before.renew()), Answer::Theirs(_)));
            run(before.release());
            assert_eq!(run(after.renew()), Answer::Held);
        }
    }

    #[test]
    fn a_lock_lapses_by_the_clock_of_the_machine_also_when_that_was_set_back() {
        for shell in shells() {
            for (at, free) in
                [("0", true), ("99999999999", true), ("", false), ("x", false), ("$(id)", false)]
            {
                let home = tempfile::tempdir().unwrap();
                let run = |script: String| run(&shell, home.path(), &script);
                assert_eq!(run(lock("a", 600).take()), Answer::Held);
                let path = std::fs::read_dir(home.path()).unwrap().next().unwrap().unwrap().path();
                let text = links(home.path()).remove(0);
                let (text, _) = text.rsplit_once("at=").unwrap();
                std::fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(format!("{text}at={at}"), &path).unwrap();
                let answer = run(lock("b", 600).take());
                assert_eq!(answer == Answer::Held, free, "{shell:?} at={at}: {answer:?}");
                assert_eq!(links(home.path()).len(), 1);
            }
        }
    }

    #[test]
    fn who_died_while_it_took_a_lapsed_lock_keeps_nobody_away() {
        let home = tempfile::tempdir().unwrap();
        let run = |script: String| run(&["sh"], home.path(), &script);
        let (before, after) = (lock("a", 600), lock("a", 600));
        assert_eq!(run(before.take()), Answer::Held);
        let path = std::fs::read_dir(home.path()).unwrap().next().unwrap().unwrap().path();
        let guard = home.path().join(format!("{}.taking", path.file_name().unwrap().to_str().unwrap()));
        std::os::unix::fs::symlink("v1 owner=x/y use=z at=1", guard).unwrap();
        assert!(matches!(run(after.take()), Answer::Theirs(_)));
        assert_eq!(run(after.take()), Answer::Held);
    }

    #[test]
    fn of_many_who_come_at_once_one_has_the_machine() {
        for lapsed in [false, true] {
            let home = tempfile::tempdir().unwrap();
            if lapsed {
                assert_eq!(run(&["sh"], home.path(), &lock("dead", 1).take()), Answer::Held);
                let path = std::fs::read_dir(home.path()).unwrap().next().unwrap().unwrap().path();
                let text = links(home.path()).remove(0);
                std::fs::remove_file(&path).unwrap();
                let (text, _) = text.rsplit_once("at=").unwrap();
                std::os::unix::fs::symlink(format!("{text}at=0"), &path).unwrap();
            }
            let threads: Vec<_> = (0..12)
                .map(|number| {
                    let home = home.path().to_owned();
                    std::thread::spawn(move || run(&["sh"], &home, &lock(&format!("m{number}"), 600).take()))
                })
                .collect();
            let answers: Vec<Answer> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            let held = answers.iter().filter(|answer| **answer == Answer::Held).count();
            assert_eq!(held, 1, "lapsed: {lapsed}; {answers:?}");
            assert_eq!(links(home.path()).len(), 1);
        }
    }

    #[test]
    fn a_home_that_cannot_be_written_to_has_no_place_for_locks() {
        let home = tempfile::tempdir().unwrap();
        let gone = home.path().join("gone");
        let answer = run(&["sh"], &gone, &lock("a", 600).take());
        let Answer::Unlockable(why) = &answer else { panic!("{answer:?}") };
        assert!(why.contains("No such file"), "{why}");
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let owner = Owner::new("a'; touch x; '", "u", "1", "$(touch y)", "`touch z` \"");
        let script = Lock::new(&owner, Duration::from_secs(5)).take();
        let home = tempfile::tempdir().unwrap();
        assert_eq!(run(&["sh"], home.path(), &script), Answer::Held);
        assert_eq!(links(home.path()).len(), 1);
    }

    #[test]
    fn greetings_before_an_answer_are_skipped_and_anything_else_is_unclear() {
        assert_eq!(Answer::parse("welcome\nheld\n"), Answer::Held);
        assert_eq!(Answer::parse("theirs by hand"), Answer::Theirs("somebody (`by hand`)".to_owned()));
        assert_eq!(
            Answer::parse("sh: readlink: not found"),
            Answer::Unclear("sh: readlink: not found".to_owned())
        );
        assert_eq!(Answer::parse(""), Answer::Unclear(String::new()));
    }
}
