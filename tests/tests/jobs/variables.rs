//! What a script finds in its environment.

use drover_tests::Sshd;
use gitlab_mock::{JobBuilder, JobVariable};

use crate::world::{both, both_with, check, everywhere};

#[tokio::test]
async fn values_arrive_as_they_are_whatever_is_in_them() {
    let sshd = Sshd::start();
    for shell in ["bash", "sh"] {
        let world = both_with(&sshd, |entry| entry.set("shell", shell)).await;
        let odd = "a'b\"c`d\\e *~#!{}|&;<>() \t ä€";
        let job = JobBuilder::new("odd")
            .push_variable(JobVariable { raw: true, ..JobVariable::new("ODD", odd) })
            .push_variable(JobVariable { raw: true, ..JobVariable::new("DOLLAR", "$HOME ${PATH} $$ %HOME%") })
            .variable("LINES_OF_TEXT", "one\n\n  three\n")
            .variable("EMPTY", "")
            .script([
                "printf '<%s>\\n' \"$ODD\" \"$DOLLAR\" \"$EMPTY\"",
                "printf '%s' \"$LINES_OF_TEXT\" | wc -l",
                "echo \"${EMPTY+is set}\"",
            ]);
        check(&world, &everywhere(&world, &job), |job| {
            let job = job.succeeded().has_line(&format!("<{odd}>")).has_line("<$HOME ${PATH} $$ %HOME%>");
            let three = job.log.lines().any(|line| line.trim() == "3");
            assert!(three, "{}", job.log);
            job.has_line("<>").has_line("is set")
        })
        .await;
        world.stop().await;
    }
}

#[tokio::test]
async fn variables_refer_to_each_other_once() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let job = JobBuilder::new("refers")
        .variable("PORT", "Emden")
        .variable("SHIP", "ferry of $PORT, ${PORT}, $$PORT and $NO_SUCH")
        .variable("DEEP", "<$SHIP>")
        .push_variable(JobVariable { raw: true, ..JobVariable::new("RAW", "$PORT") })
        .script(["printf '%s\\n' \"$SHIP.\" \"$RAW\""]);
    check(&world, &everywhere(&world, &job), |job| {
        job.succeeded().has_line("ferry of Emden, Emden, $PORT and .").has_line("$PORT")
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn the_runner_s_environment_is_there_and_the_job_s_own_wins() {
    let sshd = Sshd::start();
    let world = both_with(&sshd, |entry| {
        entry.set("environment", vec!["OF_RUNNER=one two", "BOTH=of the runner", "CI_PROJECT_NAME=not this"])
    })
    .await;
    let job = JobBuilder::new("both").variable("BOTH", "of the job").script([
        "echo \"<$OF_RUNNER> <$BOTH>\"",
        "[ \"$CI_PROJECT_NAME\" != 'not this' ] && echo GitLab wins",
    ]);
    check(&world, &everywhere(&world, &job), |job| {
        job.succeeded().has_line("<one two> <of the job>").has_line("GitLab wins")
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn what_the_runner_knows_of_the_job_is_there_and_right() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let job = JobBuilder::new("facts").timeout(std::time::Duration::from_secs(1234)).script([
        "[ \"$CI_PROJECT_DIR\" -ef \"$PWD\" ] && echo in the project",
        "case $CI_PROJECT_DIR in \"$CI_BUILDS_DIR\"/*) echo within the builds ;; esac",
        "echo \"timeout $CI_JOB_TIMEOUT, status $CI_JOB_STATUS, server $CI_SERVER, job $CI_JOB_ID\"",
        "[ -n \"$CI_RUNNER_VERSION\" ] && [ -n \"$CI_RUNNER_EXECUTABLE_ARCH\" ] && echo knows the runner",
        "[ -n \"$CI_CONCURRENT_ID\" ] && [ -n \"$CI_CONCURRENT_PROJECT_ID\" ] && echo knows its place",
        "[ -n \"$RUNNER_TEMP_PROJECT_DIR\" ] && echo knows where to be untidy",
    ]);
    check(&world, &everywhere(&world, &job), |job| {
        let id = job.view.id;
        job.succeeded()
            .has_line("in the project")
            .has_line("within the builds")
            .has_line(&format!("timeout 1234, status running, server yes, job {id}"))
            .has_line("knows the runner")
            .has_line("knows its place")
            .has_line("knows where to be untidy")
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn names_that_no_shell_takes_are_left_out_and_the_job_runs() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let job = JobBuilder::new("names").variable("with-dash", "1").variable("WITH.DOT", "2");
    let job = job.variable("1ST", "3").variable("FINE_1", "4").script(["echo \"fine: $FINE_1\""]);
    check(&world, &everywhere(&world, &job), |job| job.succeeded().has_line("fine: 4").says("with-dash"))
        .await;
    world.stop().await;
}
