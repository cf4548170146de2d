//! The commands of the helper.

use crate::support::{Home, finish};

#[tokio::test]
async fn a_cache_goes_out_and_comes_back_whatever_the_variables_of_the_job_say() {
    let home = Home::empty();
    home.write("kept.txt", "content\n");
    // As a link named `gitlab-runner`, which is what scripts of GitLab Runner call.
    let link = home.path().join("gitlab-runner");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_drover"), &link).unwrap();
    let call = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&link);
        // Variables of jobs, which to `drover run` are flags with values that it does not take.
        command
            .args(arguments)
            .current_dir(home.path())
            .env("LOG_LEVEL", "chatty")
            .env("RUNNER_DEBUG", "maybe");
        finish(command)
    };

    call(&["cache-archiver", "--file", "cache.zip", "--path", "kept.txt"]).await.code(0);
    std::fs::remove_file(home.path().join("kept.txt")).unwrap();
    call(&["cache-extractor", "--file", "cache.zip"]).await.code(0);

    assert_eq!(std::fs::read_to_string(home.path().join("kept.txt")).unwrap(), "content\n");
}

#[tokio::test]
async fn every_failure_ends_with_one_as_with_gitlab_runner() {
    let home = Home::empty();
    let missing = home.drover(&["cache-extractor", "--file", "cache.zip"]).await.code(1);
    assert!(missing.stderr.contains("file does not exist"), "{}", missing.stderr);
    home.drover(&["artifacts-uploader", "--no-such-flag"]).await.code(1);
    home.drover(&["health-check", "--help"]).await.code(0);
}
