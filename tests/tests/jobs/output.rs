//! What a job prints is what its page shows: all of it, but no secret.

use drover_tests::Sshd;
use gitlab_mock::JobBuilder;

use crate::world::{both, check, everywhere};

#[tokio::test]
async fn a_secret_is_masked_wherever_a_write_or_a_packet_cuts_it() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let job = |name: &str, script: &[&str]| {
        let job = JobBuilder::new(name).masked_variable("SECRET", "corvette-9-lighthouse");
        everywhere(&world, &job.script(script.to_vec()))
    };
    let plain = job("in one piece", &["echo \"<$SECRET>\"", "echo \"token <$CI_JOB_TOKEN>\""]);
    // In one command: the lines that announce commands would stand between the halves.
    let cut = ["printf '<corvette-9'; sleep 0.3; printf -- '-lighthouse>\\n'"];
    let in_two_writes = job("in two writes", &cut);
    let in_bytes = job(
        "byte by byte",
        &[
            "printf '<'; for i in $(seq 1 ${#SECRET}); do printf '%s' \"${SECRET:$i-1:1}\"; done; printf '>\\n'",
        ],
    );
    // Packets are cut at powers of two; these pieces are of another length, so that every cut comes about.
    let flood = job(
        "over packets",
        &[
            "pad=$(printf '%0977d' 0)",
            "for i in $(seq 1 1100); do printf '%s<%s>\\n' \"$pad\" \"$SECRET\"; done",
        ],
    );
    // A mistake in the masking would be a secret in the log, which is looked for in all of them.
    check(&world, &plain, |job| job.succeeded().has_line("<[MASKED]>").has_line("token <[MASKED]>")).await;
    check(&world, &in_two_writes, |job| job.succeeded().says("<[MASKED]>")).await;
    check(&world, &in_bytes, |job| job.succeeded().has_line("<[MASKED]>")).await;
    check(&world, &flood, |job| {
        assert_eq!(job.log.matches("0<[MASKED]>\n").count(), 1100);
        job.succeeded()
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_text_is_shown_as_such() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let script =
        [r"printf 'a\377\376b \303\n'", r"printf 'split \303'; sleep 0.3; printf '\244!\n'", "echo ok"];
    let jobs = everywhere(&world, &JobBuilder::new("bytes").script(script));
    check(&world, &jobs, |job| {
        assert!(std::str::from_utf8(&job.raw).is_ok(), "the log is UTF-8");
        job.succeeded().has_line("a\u{fffd}\u{fffd}b \u{fffd}").has_line("split ä!").has_line("ok")
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn standard_error_is_part_of_the_log() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let jobs = everywhere(&world, &JobBuilder::new("both").script(["echo out", "echo err >&2"]));
    check(&world, &jobs, |job| job.succeeded().has_line("out").has_line("err")).await;
    world.stop().await;
}

#[tokio::test]
async fn a_log_beyond_its_limit_ends_with_a_notice_and_the_result() {
    const LIMIT: usize = 4 << 20;
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let script = ["head -c 6000000 /dev/zero | tr '\\0' 'x' | fold -w 100", "echo never seen", "exit 3"];
    let jobs = everywhere(&world, &JobBuilder::new("much").script(script));
    check(&world, &jobs, |job| {
        let size = job.raw.len();
        assert!((LIMIT..LIMIT + 10_000).contains(&size), "the log has {size} bytes");
        let job = job.failed("script_failure", Some(3)).lacks_line("never seen");
        job.says("Job's log exceeded limit of 4194304 bytes.").ends_with("ERROR: Job failed: exit code 3")
    })
    .await;
    world.stop().await;
}
