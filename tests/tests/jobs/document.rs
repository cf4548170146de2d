//! `docs/job-log.md` shows the log of one job as it really is.

use std::process::Command;

use drover_tests::{Entry, Finished, Setup, Sshd, World, bin, plain};
use gitlab_mock::{ArtifactSpec, CacheSpec, JobBuilder, Repository};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/job-log.md");
const UPDATE: &str = "UPDATE_REFERENCE";

const BEGIN: &str = "\
<!-- The logs are recorded: UPDATE_REFERENCE=1 cargo test -p drover-tests --test jobs document -->
# The log of a job, from top to bottom

This is the whole log of one job as its page shows it. The job checks out a project with a submodule, restores a cache, gets the
artifacts of an earlier job, runs a script and an `after_script`, saves the cache and leaves an archive and a report. What differs from
run to run is written as `<...>`. A test runs this job on a real SSH server and compares.

Titles are sections of the page: they fold, and show how long they took. The order of stages is GitLab's. Standard output and standard
error of a script are two streams, which may overtake each other by a line; the runner's own stages have only one.
";

/// The first line of each part, its title, and what it means.
const PARTS: [(&str, &str, &str); 12] = [
    (
        "Running with ",
        "Who runs it",
        "Program, version and revision; the runner's name, the beginning of its token, and the id of the manager. Feature flags that differ \
         from their defaults would stand here, and warnings about settings of the job that mean nothing.",
    ),
    (
        "Preparing the ",
        "A place to run",
        "A slot of an instance. While the job waits for one, this part says why: how many instances come up, which limit holds, what went \
         wrong with the last one. The wait counts towards the job's timeout.",
    ),
    (
        "Preparing environment",
        "The shell answers",
        "The first script on the instance: its host name, and the manager's. What an earlier job has left for later stages is removed.",
    ),
    (
        "Getting source ",
        "The project",
        "The commit that GitLab named, and no deeper than it said. Submodules follow. git asks a helper for the job token, so that the token \
         is in no URL, no file of the project and no list of processes. `GET_SOURCES_ATTEMPTS` repeats this stage, \
         `GIT_STRATEGY`, `GIT_DEPTH`, `GIT_SUBMODULE_STRATEGY` and others change it.",
    ),
    (
        "Restoring cache",
        "What earlier jobs have saved",
        "The key, then its fallbacks, until one is there. A cache that is missing or damaged is a warning, never a failure. \
         `No URL provided` means that `[runners.cache]` names no store, so that caches stay on their instance.",
    ),
    (
        "Downloading artifacts",
        "What this job needs of others",
        "One line for each job, with its id, and what GitLab answered. Artifacts that cannot be had (expired, deleted, not permitted) fail \
         the job before its script.",
    ),
    (
        "Executing \"step_script\"",
        "The script",
        "Every command is announced before it runs. The first one that fails ends the script with its exit code.",
    ),
    (
        "Running after_script",
        "After the script",
        "A shell of its own, also after a script that failed or was cancelled: `CI_JOB_STATUS` says which. It has five minutes \
         (`RUNNER_AFTER_SCRIPT_TIMEOUT`), and its failure does not fail the job (unless `AFTER_SCRIPT_IGNORE_ERRORS` is `false`).",
    ),
    (
        "Saving cache for ",
        "For later jobs",
        "Files that match, by pattern. An archive is only written when one of them is newer than the last.",
    ),
    (
        "Uploading artifacts for ",
        "For GitLab",
        "One upload for each archive and report whose `when` fits. The token is shown in part. An upload that fails for good fails a job \
         that was good until then; a 413 says whose limit was met.",
    ),
    (
        "Cleaning up ",
        "Nothing secret stays",
        "File variables, git's settings for this job and what was left for later stages are removed from the instance.",
    ),
    (
        "Job succeeded",
        "The result",
        "Or `ERROR: Job failed: ` with what failed: an exit code, a timeout, a cancel; `(system failure)` where the job is not to blame. It is \
         sent once, after the last byte of the log.",
    ),
];

const END: &str = "
## As it is sent

With `FF_TIMESTAMPS`, which is on, every line begins with its time in UTC, a number for who speaks (`00` the runner, `01` the job) and
`O` or `E` for its standard output or error. Sections are marked by lines that the page hides.

";

#[tokio::test]
async fn the_documented_log_is_the_real_one() {
    let machine = Sshd::start();
    let entry = Entry::machines("build-fleet", [&machine])
        .set("autoscaler.capacity_per_instance", 1)
        .set("cache_dir", machine.home().join("cache").display().to_string())
        .set("helper.command", bin("drover-helper").display().to_string());
    let world = Setup::new().runner(entry).start().await;
    let finished = record(&world).await;
    let raw = String::from_utf8(finished.raw.clone()).unwrap();
    let lines: Vec<String> = raw.lines().filter_map(|line| read(&world, &machine, line)).collect();
    let sent: String = raw.lines().take(6).map(|line| format!("{}\n", as_sent(line))).collect();
    world.stop().await;

    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(DOCUMENT, write(&lines, &sent)).unwrap();
    }
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let advice = format!("run {UPDATE}=1 cargo test -p drover-tests --test jobs document");
    assert_eq!(document, write(&lines, &sent), "docs/job-log.md is out of date: {advice}");
}

/// Runs the job that is documented, after one that it needs.
async fn record(world: &World) -> Finished {
    let repository = ferry(world).await;
    let cache = || CacheSpec::new("cargo", ["target/deps/"]);
    let compile = JobBuilder::new("compile").repository(&repository).cache(cache());
    let compile =
        compile.script(["mkdir -p bin target/deps", "echo 1 >target/deps/tides", "echo 2 >bin/ferry"]);
    let compile = world.enqueue(compile.artifact(ArtifactSpec::archive("binaries", ["bin/"])));
    world.finished(&compile).await.succeeded();
    let test = JobBuilder::new("test")
        .repository(&repository)
        .variable("GIT_STRATEGY", "clone")
        .variable("GIT_SUBMODULE_STRATEGY", "normal")
        .cache(cache())
        .needs(&compile)
        .script([
            "cat bin/ferry library/book",
            "if true; then\n  echo '<testsuite/>' >junit.xml\nfi",
            "touch target/deps/new",
        ])
        .after_script(["echo \"it was a $CI_JOB_STATUS\""])
        .artifact(ArtifactSpec {
            expire_in: Some("1 week".into()),
            ..ArtifactSpec::archive("ferry-$CI_JOB_NAME", ["bin/"])
        })
        .artifact(ArtifactSpec::report("junit", ["junit.xml"]));
    world.run(test).await.succeeded()
}

/// A project with a submodule, the same at each run.
async fn ferry(world: &World) -> Repository {
    let library = world.gitlab.create_repository("harbour/library").await.unwrap();
    let commit = library.commit("main", [("book", "of tides\n")], "first").await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let script = "git init --quiet --initial-branch=main && echo '# Ferry' >README.md && \
                  printf '[submodule \"library\"]\\n\\tpath = library\\n\\turl = ../library.git\\n' >.gitmodules && \
                  git add . && git update-index --add --cacheinfo \"160000,$1,library\" && \
                  git -c user.name=H -c user.email=h@example.test commit --quiet --message first";
    let date = "2026-01-01T00:00:00Z";
    let made = Command::new("sh")
        .args(["-ec", script, "sh", &commit])
        .envs([("GIT_AUTHOR_DATE", date), ("GIT_COMMITTER_DATE", date)])
        .current_dir(work.path())
        .status();
    assert!(made.expect("tests need sh").success(), "tests need git");
    world.gitlab.import_repository("harbour/ferry", work.path()).await.unwrap()
}

/// The text of a line of the raw log without what differs from run to run; none if the page does not show it.
fn read(world: &World, machine: &Sshd, line: &str) -> Option<String> {
    let mut text = plain(line).trim_end().to_owned();
    if text.is_empty() {
        return None;
    }
    for (path, name) in [(world.folder(), "<folder>"), (machine.home(), "<home>")] {
        text = text.replace(&path.display().to_string(), name);
    }
    text = text.replace(world.gitlab.url(), "https://gitlab.example.com");
    for (before, end, name) in
        [("Running on ", " via ", "<host>"), ("correlation ID: ", "\n", "<id>"), (" token=", " ", "<token>")]
    {
        if let Some(at) = text.find(before).map(|at| at + before.len()) {
            let length = text[at..].find(end).unwrap_or(text.len() - at);
            text.replace_range(at..at + length, name);
        }
    }
    Some(text)
}

/// A line of the raw log with what a terminal would not show, and without what differs from run to run.
fn as_sent(line: &str) -> String {
    let (_, rest) = line.split_at(27);
    let mut line =
        format!("2026-01-01T00:00:00.000000Z{rest}").replace('\u{1b}', "<ESC>").replace('\r', "<CR>");
    for mark in ["section_start:", "section_end:"] {
        if let Some(at) = line.find(mark).map(|at| at + mark.len()) {
            let length = line[at..].find(':').unwrap_or(0);
            line.replace_range(at..at + length, "1767225600");
        }
    }
    line
}

/// The log by parts.
fn parts(lines: &[String]) -> Vec<Vec<&str>> {
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for line in lines {
        let next = PARTS.get(parts.len()).is_some_and(|(first, _, _)| line.starts_with(first));
        if next {
            parts.push(Vec::new());
        }
        parts.last_mut().unwrap_or_else(|| panic!("the log begins with {line:?}")).push(line);
    }
    assert_eq!(parts.len(), PARTS.len(), "the log lacks a part: {lines:#?}");
    parts
}

fn write(lines: &[String], sent: &str) -> String {
    let mut document = BEGIN.to_owned();
    for ((_, title, meaning), lines) in PARTS.iter().zip(parts(lines)) {
        let log: String = lines.iter().map(|line| format!("{line}\n")).collect();
        document.push_str(&format!("\n## {title}\n\n{}\n\n```text\n{log}```\n", wrapped(meaning)));
    }
    document.push_str(&format!("{END}```text\n{sent}```\n"));
    document
}

/// The text in lines of the width of our documents.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 130 => {
                let space = if line.is_empty() { "" } else { " " };
                line.push_str(&format!("{space}{word}"));
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
