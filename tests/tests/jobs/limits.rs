//! The log of a job at its edges: limits, endless lines, silence, signatures.

use drover_tests::Sshd;
use gitlab_mock::{Config, JobBuilder, JobState};

use crate::world::{both, both_with, check, everywhere};

#[tokio::test]
async fn the_limit_of_a_runner_holds_and_what_comes_after_it_still_decides() {
    let sshd = Sshd::start();
    let world = both_with(&sshd, |entry| entry.set("output_limit", 8)).await;
    let script = ["seq 1 100000", "echo never seen"];
    let jobs = everywhere(&world, &JobBuilder::new("much").script(script).after_script(["echo nor this"]));
    check(&world, &jobs, |job| {
        let size = job.raw.len();
        assert!((8192..8192 + 10_000).contains(&size), "the log has {size} bytes");
        let job = job.succeeded().says("Job's log exceeded limit of 8192 bytes.");
        job.lacks_line("never seen").lacks_line("nor this")
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_log_that_gitlab_finds_too_large_ends_the_job() {
    let sshd = Sshd::start();
    let change = |gitlab: &mut Config| gitlab.max_log_bytes = Some(100_000);
    let entry = drover_tests::Entry::machines("ssh", [&sshd]);
    let world = drover_tests::Setup::new().gitlab(change).runner(entry).start().await;
    let job = world.enqueue(JobBuilder::new("much").script(["while true; do seq 1 1000; sleep 0.1; done"]));
    let ended = world.finished(&job).await;
    assert_eq!((ended.view.state, ended.view.ended_by_server), (JobState::Failed, true), "{:?}", ended.view);
    drover_tests::eventually("the manager has let go of the job", || world.view.jobs.list().is_empty()).await;
    world.stop().await;
}

#[tokio::test]
async fn lines_without_an_end_and_lines_that_overwrite_themselves_come_through() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let script = [
        "printf 'no end'",
        "printf '\\n'; for n in 1 2 3; do printf '%s %%\\r' $n; done; echo done",
        "head -c 300000 /dev/zero | tr '\\0' x; echo",
        "printf 'last words'",
    ];
    let jobs = everywhere(&world, &JobBuilder::new("lines").script(script));
    check(&world, &jobs, |job| {
        let job = job.succeeded().says("no end").says("done").says(&"x".repeat(10_000)).says("last words");
        let longest = job.log.matches('x').count();
        assert!(longest >= 300_000, "{longest}");
        job
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn tokens_and_signatures_that_no_variable_names_are_masked() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let script = [
        "echo \"glpat-$(echo 0123456789abcdefghij)\"",
        "echo \"harbour-$(echo 0123456789abcdefghij)\"",
        "echo \"https://s3.example.test/o?X-Amz-Signature=$(echo 0a0b0c)&X-Amz-Date=1\"",
        "echo \"https://storage.example.test/o?X-Goog-Credential=$(echo me)&X-Goog-Signature=$(echo 0d0e0f)\"",
        "echo \"https://blob.example.test/o?sv=1&sig=$(echo 1a1b1c)&se=2\"",
        "echo \"plain sig=$(echo shown)\"",
    ];
    let job = JobBuilder::new("tokens").token_mask_prefix("harbour-").script(script);
    check(&world, &everywhere(&world, &job), |job| {
        job.succeeded()
            .has_line("glpat-[MASKED]")
            .has_line("harbour-[MASKED]")
            .has_line("https://s3.example.test/o?X-Amz-Signature=[MASKED]&X-Amz-Date=1")
            .has_line("https://storage.example.test/o?X-Goog-Credential=[MASKED]&X-Goog-Signature=[MASKED]")
            .has_line("https://blob.example.test/o?sv=1&sig=[MASKED]&se=2")
            .has_line("plain sig=shown")
    })
    .await;
    world.stop().await;
}
