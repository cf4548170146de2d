//! PowerShell, which is not among the programs of the tests: its scripts are pinned as a whole, and what `sh` runs is run.

use drover_job::{Interpreter, RunnerFacts, Shell, Stage};
use serde_json::json;

use crate::support::{Machine, context, job, runner, script};

fn pwsh() -> RunnerFacts {
    runner(Shell::Pwsh)
}

/// Feature flags are in every script and change with GitLab Runner's list.
fn shown(context: &drover_job::Context, stage: Stage) -> String {
    let script = context.script(stage).unwrap();
    assert_eq!(script.interpreter, Interpreter::Pwsh);
    script
        .text()
        .lines()
        .filter(|line| !line.starts_with("$env:FF_"))
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn a_step() {
    let job = job(json!({
        "variables": [
            {"key": "GIT_STRATEGY", "value": "none"},
            {"key": "LETTER", "value": "it's $HOME\nand `more` \u{2018}text\u{2019} \"here\"", "file": true},
            {"key": "GREETING", "value": "don't \u{201c}expand\u{201d} $$this"},
            {"key": "HOME", "value": "/nowhere"},
        ],
        "steps": [{"name": "script", "script": ["make test", "", "Get-ChildItem\nexit 3"]}],
    }));
    let runner = RunnerFacts {
        pre_build_script: "echo before".into(),
        post_build_script: "echo after".into(),
        ..pwsh()
    };
    insta::assert_snapshot!(shown(&context(&job, &runner), Stage::Step(0)));
}

#[test]
fn an_after_script_with_debug_trace() {
    let job = job(json!({
        "variables": [{"key": "GIT_STRATEGY", "value": "none"}, {"key": "CI_DEBUG_TRACE", "value": "true"}],
        "steps": [{"name": "script", "script": ["true"]}, {"name": "after_script", "script": ["Write-Output done"]}],
    }));
    insta::assert_snapshot!(shown(&context(&job, &pwsh()), Stage::AfterScript));
}

#[test]
fn a_checkout_between_hooks() {
    let job = job(json!({
        "git_info": {
            "repo_url": "https://gitlab-ci-token:job-token@gitlab.example.test/harbour/ferry.git",
            "ref": "main", "sha": "5f3c0a9be1d24c7788aa00112233445566778899",
            "refspecs": ["+refs/heads/main:refs/remotes/origin/main"],
        },
        "variables": [],
        "hooks": [
            {"name": "pre_get_sources_script", "script": ["$env:GIT_TRACE = '1'"]},
            {"name": "post_get_sources_script", "script": ["git log -1"]},
        ],
    }));
    insta::assert_snapshot!(shown(&context(&job, &pwsh()), Stage::GetSources));
}

#[test]
fn what_the_runner_does_itself_is_for_sh() {
    let context = context(&script(&["true"]), &pwsh());
    for stage in [Stage::PrepareScript, Stage::GetSources, Stage::CleanupFileVariables] {
        assert_eq!(context.script(stage).unwrap().interpreter, Interpreter::Sh, "{stage:?}");
    }
    assert_eq!(context.script(Stage::AfterScript), None);
}

#[test]
fn a_powershell_that_is_missing_is_noticed_before_anything_is_done() {
    let machine = Machine::new();
    let context = context(&script(&["true"]), &pwsh());
    assert_eq!(machine.run_stage(&context, Stage::PrepareScript).code, 127);
    machine.program("pwsh", "exit 0");
    machine.run_stage(&context, Stage::PrepareScript).ok();
}

/// The command line goes through the login shell, which must hand PowerShell one word that names no standard input: a
/// command that did would make PowerShell read it before the script does.
#[test]
fn the_command_line_is_one_word_for_powershell() {
    let machine = Machine::new();
    machine.program("pwsh", "printf '<%s>\\n' \"$@\"");
    let mut command = machine.command("sh");
    command.args(["-c", Interpreter::Pwsh.command()]);
    let said = crate::support::feed(command, "").ok().stdout;
    let words: Vec<&str> = said.lines().collect();
    assert_eq!(
        words[..6],
        ["<-NoLogo>", "<-NoProfile>", "<-NonInteractive>", "<-OutputFormat>", "<Text>", "<-Command>"]
    );
    assert_eq!(words.len(), 7);
    assert!(words[6].contains("OpenStandardInput") && !words[6].to_lowercase().contains("$input"), "{said}");
}

/// What a hook exports reaches git, and the middle of the checkout is a script that `sh` can run with no exports of its own.
#[test]
fn the_middle_of_a_checkout_runs_under_sh() {
    let machine = Machine::new();
    let origin = machine.path("origin");
    std::fs::create_dir(&origin).unwrap();
    machine.git(&origin, &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(origin.join("number"), "one\n").unwrap();
    machine.git(&origin, &["add", "."]);
    machine.git(&origin, &["commit", "--quiet", "-m", "first"]);
    let sha = machine.git(&origin, &["rev-parse", "HEAD"]);
    let job = job(json!({
        "git_info": {"repo_url": origin, "ref": "main", "sha": sha,
                     "refspecs": ["+refs/heads/main:refs/remotes/origin/main"]},
        "variables": [],
        "hooks": [{"name": "pre_get_sources_script", "script": ["x"]}],
    }));
    let context = context(&job, &pwsh());
    let text = context.script(Stage::GetSources).unwrap().text().into_owned();
    // The middle is one literal, in which every quote is doubled.
    let start = text.find("'#!/usr/bin/env sh").unwrap() + 1;
    let end = text.find("' | & sh\n").unwrap();
    let middle = text[start..end].replace("''", "'");
    let project = context.project_dir();
    std::fs::create_dir_all(machine.path(&context.temp_dir())).unwrap();
    let mut command = machine.command("sh");
    command.env("DROVER_START", machine.path(""));
    crate::support::feed(command, &middle).ok();
    assert_eq!(machine.read(&format!("{project}/number")), "one\n");
}
