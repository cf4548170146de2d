//! The log as users know it.

use drover_tests::{Entry, Setup, World, plain};
use gitlab_mock::JobBuilder;

/// A log without what changes from run to run.
fn stable(world: &World, log: &str) -> String {
    let port = world.gitlab.address().port().to_string();
    let mut log = log.replace(&port, "<port>");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    log = log.replace(&format!("Running on {}", host.trim()), "Running on <host>");
    for (before, end) in [
        ("instance local-", ['.', ' ']),
        ("Instance local-", [' ', ' ']),
        ("correlation ID: ", ['\n', '\n']),
        ("section_start:", [':', ':']),
        ("section_end:", [':', ':']),
        ("/instances/local-", ['/', '/']),
    ] {
        log = replace_after(&log, before, &end);
    }
    log.replace(&world.folder().display().to_string(), "<folder>")
}

/// Replaces what follows each `before`, up to one of `ends`.
fn replace_after(text: &str, before: &str, ends: &[char]) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(ends).unwrap_or(part.len());
        out.push_str(before);
        out.push_str("<..>");
        out.push_str(&part[end..]);
    }
    out
}

#[tokio::test]
async fn a_job_with_sources_looks_as_users_know_it() {
    let world = Setup::new().runner(Entry::local("local")).start().await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("build.sh", "echo building $1\n")], "first").await.unwrap();
    let job = JobBuilder::new("build").repository(&repository);
    let job = job
        .script(["./build.sh all", "if true; then\n  echo several lines\nfi"])
        .after_script(["echo cleaned"]);
    let finished = world.run(job).await.succeeded();
    let page = stable(&world, &finished.log);
    world.stop().await;
    insta::assert_snapshot!(page);
}

#[tokio::test]
async fn the_raw_log_has_timestamps_sections_and_colours_as_asked_for() {
    let world = Setup::new().runner(Entry::local("local")).start().await;
    let job = JobBuilder::new("raw").script(["echo hello"]);
    let bare = world.run(job.clone().variable("FF_TIMESTAMPS", "false")).await.succeeded();
    let bare_text = stable(&world, &String::from_utf8(bare.raw).unwrap());
    let unsectioned = job.clone().trace_sections(false).variable("FF_TIMESTAMPS", "false");
    let unsectioned = world.run(unsectioned).await.succeeded();
    let unsectioned_text = String::from_utf8(unsectioned.raw).unwrap();
    let stamped = world.run(job).await.succeeded();
    world.stop().await;

    insta::assert_snapshot!(bare_text.replace('\u{1b}', "ESC").replace('\r', "CR"));
    assert!(!unsectioned_text.contains("section_"), "{unsectioned_text}");
    assert_eq!(plain(&unsectioned_text).lines().count(), unsectioned.log.lines().count());
    let text = String::from_utf8(stamped.raw).unwrap();
    for line in text.lines() {
        let (header, _) = line.split_at_checked(32).unwrap_or_else(|| panic!("no header: {line}"));
        assert!(header.is_ascii() && header[26..28] == *"Z " && header[4..5] == *"-", "no header: {line}");
    }
    let hello = text.lines().find(|line| line.ends_with(" hello") && !line.contains('$')).unwrap();
    assert_eq!(&hello[28..], "01O hello", "the job's output is stream 1");
    assert!(
        text.lines().next().unwrap()[28..].starts_with("00O "),
        "the runner's lines are stream 0: {text}"
    );
}
