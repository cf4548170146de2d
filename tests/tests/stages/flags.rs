//! Feature flags, debug trace, and what the log looks like by them.

use gitlab_mock::JobBuilder;

use crate::world::{with, world};

#[tokio::test]
async fn names_that_are_no_flags_are_named_with_the_nearest() {
    let world = with(|entry| entry.set("feature_flags.FF_USE_FASTZPI", true)).await;
    let job = JobBuilder::new("flags").variable("FF_TIMESTAMP", "false").variable("FF_OF_MY_OWN", "true");
    let ended = world.run(job.script(["echo \"own: $FF_OF_MY_OWN\""])).await.succeeded();
    ended
        .says("FF_USE_FASTZPI: unknown feature flag in the runner's settings; did you mean FF_USE_FASTZIP?")
        .says("FF_TIMESTAMP: no feature flag; did you mean FF_TIMESTAMPS?")
        .has_line("own: true");
    world.stop().await;
}

#[tokio::test]
async fn scripts_run_alike_whatever_the_flags_of_eval_and_quoting_say() {
    let world = with(|entry| entry.set("shell", "sh")).await;
    for flag in
        ["FF_USE_NEW_BASH_EVAL_STRATEGY", "FF_POSIXLY_CORRECT_ESCAPES", "FF_ENABLE_BASH_EXIT_CODE_CHECK"]
    {
        for value in ["true", "false"] {
            let job =
                JobBuilder::new(flag).variable(flag, value).variable("TEXT", "it's \"$$5\"\nand `more`");
            let ended = world.run(job.script(["printf '%s\\n' \"$TEXT\"", "(exit 9)", "echo later"])).await;
            let ended = ended.failed("script_failure", Some(9)).lacks_line("later").has_line("and `more`");
            ended.has_line("it's \"$5\"").says_not("eval:").says("Running on ");
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn long_commands_are_folded_where_the_flag_says_so() {
    let world = world().await;
    let job =
        |value: &str| JobBuilder::new(value).variable("FF_SCRIPT_SECTIONS", value).script(["echo a\necho b"]);
    let folded = world.run(job("true")).await.succeeded().has_line("a").has_line("b");
    let raw = String::from_utf8_lossy(&folded.raw).into_owned();
    assert!(raw.contains(":section_script_step_0[hide_duration=true,collapsed=true]\r"), "{raw}");
    let plain = world.run(job("false")).await.succeeded();
    plain.has_line("$ echo a # collapsed multi-line command").has_line("b");
    world.stop().await;
}

#[tokio::test]
async fn a_log_without_time_stamps_has_none() {
    let world = world().await;
    let job = |value: &str| JobBuilder::new(value).variable("FF_TIMESTAMPS", value).script(["echo hello"]);
    let bare = world.run(job("false")).await.succeeded();
    assert!(String::from_utf8_lossy(&bare.raw).contains("\nhello\n"), "{}", bare.log);
    let stamped = world.run(job("true")).await.succeeded();
    assert!(String::from_utf8_lossy(&stamped.raw).contains("Z 01O hello\n"), "{}", stamped.log);
    world.stop().await;
}

#[tokio::test]
async fn a_debug_trace_shows_commands_and_no_secret() {
    let world = world().await;
    let job = |value: &str| {
        JobBuilder::new(value)
            .variable("CI_DEBUG_TRACE", value)
            .masked_variable("SECRET", "s3cr3t-of-the-sea")
            .script(["echo \"it is $SECRET\""])
    };
    let traced = world.run(job("true")).await.succeeded().has_line("it is [MASKED]");
    traced.says("+ export CI_JOB_ID=").says("+ export SECRET=[MASKED]");
    world.run(job("false")).await.succeeded().has_line("it is [MASKED]").says_not("+ export");
    world.stop().await;
}

#[tokio::test]
async fn services_that_are_to_be_heard_make_the_log_a_hidden_one() {
    let world = world().await;
    // GitLab refuses a log that is not announced as what the job's variables make of it.
    let job = JobBuilder::new("services").variable("CI_DEBUG_SERVICES", "true").script(["echo hello"]);
    world.run(job).await.succeeded().has_line("hello");
    world.stop().await;
}
