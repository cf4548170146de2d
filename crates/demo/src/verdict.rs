//! Whether everything went as it should: what GitLab saw, what the logs hold, what is left on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use gitlab_mock::{GitlabMock, Job, JobState, JobView};
use manager::Ended;

use crate::model::Model;
use crate::scene::{AUDIT_EXIT_CODE, Kind, SECRET};
use crate::summary::{JobFigures, Killed, Outcome};

/// Lines of a job's log that are shown.
const TAIL: usize = 12;
/// Length of a time stamp with what follows it.
const STAMP: usize = 32;

/// What became of the jobs, and what is to be complained of.
pub(crate) fn judge(
    gitlab: &GitlabMock,
    model: &Model,
    kinds: &BTreeMap<u64, Kind>,
) -> (Outcome, Vec<String>) {
    let mut complaints = Vec::new();
    let mut figures = JobFigures { total: model.planned, ..JobFigures::default() };
    for (id, kind) in kinds {
        let Some(job) = gitlab.job(*id) else { continue };
        let view = job.view();
        let found = complaints_about(&job, &view, *kind, model);
        if !found.is_empty() {
            figures.otherwise += 1;
            complaints.extend(
                found.into_iter().map(|what| format!("job {id} ({}) {what}\n{}", view.name, tail(&job))),
            );
        } else if view.state == JobState::Success {
            figures.succeeded += 1;
        } else {
            figures.failed_as_intended += 1;
        }
    }
    if kinds.len() < model.planned {
        figures.otherwise += model.planned - kinds.len();
        complaints.push(format!("{} jobs never arrived", model.planned - kinds.len()));
    }
    let violations = gitlab.violations();
    complaints
        .extend(violations.iter().map(|violation| format!("GitLab's protocol was broken: {violation}")));
    let summary = gitlab.summary();
    let outcome = Outcome {
        jobs: figures,
        gitlab_calls: summary.calls.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
        violations: summary.violations,
        killed: killed(gitlab, model),
    };
    (outcome, complaints)
}

/// What is wrong with the end of the manager and with what it left on the machine.
pub(crate) fn leftovers(ended: &Ended, work_dir: &Path, model: &Model) -> Vec<String> {
    let mut complaints: Vec<String> =
        ended.unfinished.iter().map(|job| format!("job {job} was left unfinished")).collect();
    complaints.extend(ended.left_behind.iter().map(|left| format!("left behind: {left}")));
    let entries =
        fs::read_dir(work_dir).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| vec![]);
    complaints.extend(entries.iter().map(|entry| format!("a directory is left: {}", entry.path().display())));
    let gone = model.gone.iter().map(|life| life.id.as_str());
    let names: Vec<&str> = gone.chain(model.instances.iter().map(|instance| instance.id.as_str())).collect();
    complaints.extend(processes(work_dir, &names).iter().map(|pid| format!("process {pid} is left")));
    complaints
}

/// What is wrong with the end of a job.
fn complaints_about(job: &Job, view: &JobView, kind: Kind, model: &Model) -> Vec<String> {
    let mut found = Vec::new();
    let log = job.log_text();
    let finals = view.history.iter().filter(|change| change.state.is_final()).count();
    if finals != 1 || view.times_given != 1 {
        found.push(format!("was given {} times and got {finals} final states", view.times_given));
    }
    let reason = view.failure_reason.as_deref();
    if model.is_victim(view.id) {
        let instance = model.killed.as_ref().map_or("", |(instance, _)| instance);
        let names_it = |line: &str| line.contains("Job failed (system failure)") && line.contains(instance);
        if view.state != JobState::Failed || reason != Some("runner_system_failure") {
            found.push(format!("ended as {} although its instance was killed", view.state));
        } else if !log.lines().any(names_it) {
            found.push("does not say in its log what became of its instance".to_owned());
        }
    } else if !ended_as_meant(kind, view) {
        let exit = view.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        found.push(format!("ended as {} ({}{exit})", view.state, reason.unwrap_or("no reason")));
    } else if !log.contains(kind.evidence()) {
        found.push(format!("has no line `{}` in its log", kind.evidence()));
    }
    if log.contains(SECRET) || !job.leaked_secrets().is_empty() {
        found.push("shows a secret in its log".to_owned());
    }
    found
}

/// Whether a job that was left in peace ended as its kind should.
fn ended_as_meant(kind: Kind, view: &JobView) -> bool {
    match kind {
        Kind::Audit => {
            view.state == JobState::Failed
                && view.failure_reason.as_deref() == Some("script_failure")
                && view.exit_code == Some(AUDIT_EXIT_CODE)
        }
        // It is there to be killed.
        Kind::Soak => false,
        Kind::Build
        | Kind::UnitTests { .. }
        | Kind::Lint
        | Kind::Integration
        | Kind::Deploy
        | Kind::Docs
        | Kind::Package => view.state == JobState::Success,
    }
}

fn killed(gitlab: &GitlabMock, model: &Model) -> Option<Killed> {
    let (instance, _) = model.killed.clone()?;
    let jobs: Vec<u64> = model.jobs.keys().copied().filter(|id| model.is_victim(*id)).collect();
    let log_tail = jobs.first().and_then(|id| gitlab.job(*id)).map(|job| tail(&job)).unwrap_or_default();
    Some(Killed { instance, jobs, log_tail })
}

/// The last lines of a log as a terminal would show them, without colours and section marks.
fn tail(job: &Job) -> String {
    let log = job.log_text();
    let lines: Vec<String> = log.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// A line of a job log without time stamp and escape sequences. What stands before a carriage return is overwritten on a
/// terminal.
fn plain(line: &str) -> String {
    let shown = without_stamp(line).trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    let mut text = String::new();
    let mut characters = shown.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // `ESC [ ... letter`; the letter ends it.
            let _ = characters.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else if !character.is_control() {
            text.push(character);
        }
    }
    text
}

/// A line behind its time stamp (`2026-01-31T12:00:00.123456Z 01O `), if it has one.
fn without_stamp(line: &str) -> &str {
    let stamped = line.as_bytes().get(10) == Some(&b'T') && line.as_bytes().get(26..28) == Some(b"Z ");
    if stamped { line.get(STAMP..).unwrap_or_default() } else { line }
}

/// Processes that work below the directory or carry the mark of one of the instances; none where there is no `/proc`.
fn processes(work_dir: &Path, instances: &[&str]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let marked = |value: &[u8]| instances.iter().any(|id| id.as_bytes() == value);
            cwd.as_os_str().as_bytes().starts_with(work_dir.as_os_str().as_bytes())
                || environment
                    .split(|byte| *byte == 0)
                    .filter_map(|pair| pair.strip_prefix(b"DROVER_LOCAL_INSTANCE="))
                    .any(marked)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log_are_shown_as_a_terminal_shows_them() {
        assert_eq!(
            plain("\u{1b}[0Ksection_start:1:step\r\u{1b}[0K\u{1b}[0;36;1mRunning\u{1b}[0;m\r"),
            "Running"
        );
        assert_eq!(plain("plain text"), "plain text");
        assert_eq!(plain("2026-01-31T12:00:00.123456Z 01O $ ci/soak.sh"), "$ ci/soak.sh");
        assert_eq!(plain("2026-01-31T12:00:00.123456Z 00O+ERROR"), "ERROR");
        assert_eq!(plain("2026-01-31T12:00:00.123456Z"), "2026-01-31T12:00:00.123456Z");
    }

    #[tokio::test]
    async fn a_job_with_another_end_than_was_meant_is_complained_of() {
        let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
        let runner = gitlab.add_runner("glrt-demo");
        let mut kinds = BTreeMap::new();
        for kind in [Kind::Build, Kind::Audit, Kind::Soak] {
            let job = gitlab.enqueue(&runner, gitlab_mock::JobBuilder::new("x"));
            job.drop_with("script_failure");
            kinds.insert(job.id(), kind);
        }
        let (outcome, complaints) = judge(&gitlab, &Model::new(5), &kinds);
        assert_eq!(
            (outcome.jobs.otherwise, outcome.jobs.succeeded, outcome.jobs.failed_as_intended),
            (5, 0, 0)
        );
        let ended =
            complaints.iter().filter(|text| text.contains("ended as failed (script_failure)")).count();
        assert_eq!((ended, complaints.last().unwrap().as_str()), (3, "2 jobs never arrived"));
    }

    #[test]
    fn what_the_manager_leaves_is_complained_of() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("demo-1")).unwrap();
        let ended =
            Ended { unfinished: vec![7], left_behind: vec!["demo: instance x".to_owned()], forced: true };
        let complaints = leftovers(&ended, dir.path(), &Model::new(0)).join("\n");
        for part in ["job 7 was left unfinished", "left behind: demo: instance x", "a directory is left"] {
            assert!(complaints.contains(part), "{complaints}");
        }
        let ended = Ended { unfinished: Vec::new(), left_behind: Vec::new(), forced: false };
        assert_eq!(leftovers(&ended, &dir.path().join("none"), &Model::new(0)), Vec::<String>::new());
    }

    #[test]
    fn a_process_below_the_directory_is_found_and_nothing_else() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut child =
            std::process::Command::new("sleep").arg("60").current_dir(here.path()).spawn().unwrap();
        let here = here.path().canonicalize().unwrap();
        assert_eq!(processes(&here, &[]), [child.id()]);
        assert_eq!(processes(there.path(), &[]), Vec::<u32>::new());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_with_the_mark_of_an_instance_is_found() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env("DROVER_LOCAL_INSTANCE", "demo-00test-1")
            .spawn()
            .unwrap();
        assert_eq!(processes(Path::new("/nowhere"), &["demo-00test-1"]), [child.id()]);
        assert_eq!(processes(Path::new("/nowhere"), &["demo-00test-2"]), Vec::<u32>::new());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
