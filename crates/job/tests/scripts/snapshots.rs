//! A few scripts as a whole.

use drover_job::{Shell, Stage};
use serde_json::json;

use crate::support::{body, context, job, runner, script};

/// Feature flags are in every script and change with GitLab Runner's list.
fn without_flags(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with("export FF_"))
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn preparation() {
    let context = context(&script(&["true"]), &runner(Shell::Bash));
    insta::assert_snapshot!(context.script(Stage::PrepareScript).unwrap().text());
}

#[test]
fn a_step() {
    let context = context(&script(&["make test", "make a\nmake b"]), &runner(Shell::Bash));
    let script = context.script(Stage::Step(0)).unwrap();
    insta::assert_snapshot!(without_flags(&body(&script)));
}

#[test]
fn a_checkout() {
    let job = job(json!({
        "git_info": {
            "repo_url": "https://gitlab-ci-token:job-token@gitlab.example.test/harbour/ferry.git",
            "ref": "main", "sha": "5f3c0a9be1d24c7788aa00112233445566778899", "depth": 20,
            "refspecs": ["+refs/heads/main:refs/remotes/origin/main"],
        },
        "variables": [{"key": "GIT_SUBMODULE_STRATEGY", "value": "recursive"}],
    }));
    let context = context(&job, &runner(Shell::Sh));
    insta::assert_snapshot!(without_flags(&body(&context.script(Stage::GetSources).unwrap())));
}
