//! The frame around every script: when it is read, how it ends, and what it never shows.

use std::process::{Command, Stdio};

use drover_job::{RunnerFacts, Shell, Stage};
use serde_json::json;
use test_case::test_matrix;

use crate::support::{Machine, SHELLS, context, feed, job, run_step, runner, script};

const BASH: Shell = Shell::Bash;
const SH: Shell = Shell::Sh;

#[test_matrix([BASH, SH], [
    (&["true"] as &[&str], 0),
    (&["false"], 1),
    (&["exit 137"], 137),
    (&["exit 0", "false"], 0),
    (&["true", "sh -c 'exit 42'", "echo never"], 42),
    (&["no-such-command-at-all"], 127),
    (&["kill -KILL $$"], 137),
    (&["if true; then", "true", "else", "exit 9", "fi"], 0),
])]
fn a_step_ends_with_the_status_of_its_commands(shell: Shell, case: (&[&str], i32)) {
    let machine = Machine::new();
    let ran = run_step(&machine, &context(&script(case.0), &runner(shell)));
    assert_eq!(ran.code, case.1, "{ran:?}");
    assert!(!ran.stdout.contains("never\n"));
}

#[test]
fn a_failing_pipeline_fails_where_the_shell_can_tell() {
    let machine = Machine::new();
    let job = script(&["false | true", "echo went on"]);
    assert_eq!(run_step(&machine, &context(&job, &runner(BASH))).code, 1);
    // Not every sh knows pipefail; the script runs there all the same.
    let ran =
        feed(machine.command("dash"), &context(&job, &runner(SH)).script(Stage::Step(0)).unwrap().text())
            .ok();
    assert!(ran.stdout.ends_with("went on\n"));
}

#[test]
fn a_syntax_error_fails_the_stage_before_anything_ran() {
    for shell in SHELLS {
        for bad in ["}", ")", "fi", "echo 'open", "if true; then"] {
            let machine = Machine::new();
            let context = context(&script(&["echo first", bad, "echo last"]), &runner(shell));
            machine.run_stage(&context, Stage::GetSources).ok();
            let script = context.script(Stage::Step(0)).unwrap();
            let mut command = machine.command("sh");
            command.args(["-c", script.interpreter.command()]);
            let ran = feed(command, &script.text());
            assert_ne!(ran.code, 0, "{shell:?} {bad}: {ran:?}");
            assert!(!ran.stdout.contains("last\n"), "{shell:?} {bad}: {ran:?}");
        }
    }
}

#[test]
fn commands_do_not_eat_the_script_from_standard_input() {
    for shell in SHELLS {
        let machine = Machine::new();
        let ran = run_step(
            &machine,
            &context(&script(&["cat", "read -r line || echo nothing", "echo end"]), &runner(shell)),
        );
        assert_eq!(ran.plain(), "$ cat\n$ read -r line || echo nothing\nnothing\n$ echo end\nend\n");
    }
}

#[test]
fn a_standard_input_that_is_no_pipe_is_read_as_well() {
    let machine = Machine::new();
    let context = context(&script(&["cat", "echo end"]), &runner(BASH));
    machine.run_stage(&context, Stage::GetSources).ok();
    let script = context.script(Stage::Step(0)).unwrap();
    std::fs::write(machine.path("script"), &script.bytes).unwrap();
    let output = machine
        .command("sh")
        .args(["-c", script.interpreter.command()])
        .stdin(std::fs::File::open(machine.path("script")).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("end\n"));
}

#[test]
fn a_command_is_announced_and_a_long_one_collapsed() {
    for shell in SHELLS {
        let machine = Machine::new();
        let ran = run_step(
            &machine,
            &context(&script(&["printf '%s' 'a\\nb'", "  true\necho two", ""]), &runner(shell)),
        );
        assert_eq!(
            ran.ok().stdout,
            "\u{1b}[32;1m$ printf '%s' 'a\\nb'\u{1b}[0;m\na\\nb\u{1b}[32;1m$ true # collapsed multi-line command\u{1b}[0;m\ntwo\n\n"
        );
    }
}

#[test]
fn a_multi_line_command_is_a_section_if_asked_for() {
    let machine = Machine::new();
    let job = job(json!({
        "variables": [{"key": "GIT_STRATEGY", "value": "none"}, {"key": "FF_SCRIPT_SECTIONS", "value": "true"}],
        "steps": [{"name": "script", "script": ["echo 1\necho 2"]}],
    }));
    for shell in SHELLS {
        let ran = run_step(&machine, &context(&job, &runner(shell))).ok();
        let name = "section_script_step_0";
        assert!(ran.stdout.starts_with("section_start:"), "{ran:?}");
        assert!(ran.stdout.contains(&format!(":{name}[hide_duration=true,collapsed=true]\r\u{1b}[0K\u{1b}[32;1m$ echo 1\necho 2\u{1b}[0;m\nsection_end:")));
        assert!(ran.stdout.ends_with(&format!(":{name}\r\u{1b}[0K1\n2\n")), "{ran:?}");
    }
}

#[test]
fn a_command_that_defeats_errexit_is_caught_by_the_explicit_check() {
    let machine = Machine::new();
    let with = |flag: &str| {
        job(json!({
            "variables": [{"key": "GIT_STRATEGY", "value": "none"}, {"key": "FF_ENABLE_BASH_EXIT_CODE_CHECK", "value": flag}],
            "steps": [{"name": "script", "script": ["set +e", "sh -c 'exit 5'", "true"]}],
        }))
    };
    for shell in SHELLS {
        assert_eq!(run_step(&machine, &context(&with("false"), &runner(shell))).code, 0);
        assert_eq!(run_step(&machine, &context(&with("true"), &runner(shell))).code, 5);
    }
}

#[test]
fn the_runner_s_scripts_are_around_every_step_but_not_around_after_script() {
    let machine = Machine::new();
    for shell in SHELLS {
        let runner = RunnerFacts {
            pre_build_script: "X=kept\n: two lines".into(),
            post_build_script: "echo post $X".into(),
            ..runner(shell)
        };
        let job = job(json!({"steps": [
            {"name": "script", "script": ["echo in $X"]},
            {"name": "after_script", "script": ["echo ${X:-gone}"]},
        ]}));
        let context = context(&job, &runner);
        let ran = run_step(&machine, &context).ok();
        assert_eq!(
            ran.plain(),
            "$ X=kept # collapsed multi-line command\n$ echo in $X\nin kept\n$ echo post $X\npost kept\n"
        );
        let ran = machine.run_stage(&context, Stage::AfterScript).ok();
        assert_eq!(ran.plain(), "Running after script...\n$ echo ${X:-gone}\ngone\n");
    }
}

#[test]
fn a_killed_shell_shows_nothing_of_its_script() {
    for shell in SHELLS {
        let machine = Machine::new();
        let job = job(json!({
            "variables": [
                {"key": "GIT_STRATEGY", "value": "none"},
                {"key": "SECRET", "value": "do-not-show-me", "masked": true},
            ],
            "steps": [{"name": "script", "script": ["kill -TERM $$; sleep 5 >/dev/null 2>&1 & wait $!"]}],
        }));
        let ran = run_step(&machine, &context(&job, &runner(shell)));
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(!ran.stdout.contains("do-not-show-me") && !ran.stderr.contains("do-not-show-me"), "{ran:?}");
    }
}

#[test]
fn a_child_that_is_killed_ends_the_step_and_shows_its_own_command_at_most() {
    for shell in SHELLS {
        let machine = Machine::new();
        let job = job(json!({
            "variables": [
                {"key": "GIT_STRATEGY", "value": "none"},
                {"key": "SECRET", "value": "do-not-show-me", "masked": true},
            ],
            "steps": [{"name": "script", "script": ["sh -c 'kill -TERM $$'", "echo never"]}],
        }));
        let ran = run_step(&machine, &context(&job, &runner(shell)));
        assert_eq!(ran.code, 143, "{ran:?}");
        assert!(!ran.stderr.contains("do-not-show-me"), "{ran:?}");
    }
}

#[test]
fn the_environment_introduces_itself_and_forgets_what_was_left() {
    for shell in SHELLS {
        let machine = Machine::new();
        let context = context(&script(&["true"]), &runner(shell));
        let temp = context.temp_dir();
        std::fs::create_dir_all(machine.path(&temp)).unwrap();
        std::fs::write(machine.path(&temp).join("gitlab_runner_env"), "LEFT=over\n").unwrap();
        std::fs::write(machine.path(&temp).join("masking.db"), "x").unwrap();
        let ran = machine.run_stage(&context, Stage::PrepareScript).ok();
        let host = String::from_utf8(Command::new("uname").arg("-n").output().unwrap().stdout).unwrap();
        assert_eq!(ran.stdout, format!("Running on {} via manager-01...\n", host.trim()));
        assert_eq!(std::fs::read_dir(machine.path(&temp)).unwrap().count(), 0);
    }
}

#[test]
fn debug_trace_shows_the_commands_unless_the_runner_forbids_it() {
    let machine = Machine::new();
    let job = job(json!({"variables": [
        {"key": "GIT_STRATEGY", "value": "none"},
        {"key": "CI_DEBUG_TRACE", "value": "true"},
    ]}));
    for shell in SHELLS {
        let ran = run_step(&machine, &context(&job, &runner(shell))).ok();
        assert!(ran.stderr.contains("+ true"), "{ran:?}");
        assert!(!ran.stderr.contains("eval"), "the script is not shown as one: {ran:?}");
        let forbidding = RunnerFacts { debug_trace_disabled: true, ..runner(shell) };
        let context = context(&job, &forbidding);
        assert!(!context.debug_trace());
        assert_eq!(run_step(&machine, &context).ok().stderr, "");
        assert_eq!(context.warnings(), ["CI_DEBUG_TRACE: usage is disabled on this runner"]);
    }
}

/// A job that does nothing needs few processes: on a machine that has run the project before, its stages start none.
#[test]
fn a_job_without_work_starts_no_processes_of_its_own() {
    let machine = Machine::new();
    for shell in SHELLS {
        let context = context(&script(&["true"]), &runner(shell));
        let stages = [Stage::PrepareScript, Stage::GetSources, Stage::Step(0), Stage::CleanupFileVariables];
        for stage in stages {
            machine.run_stage(&context, stage).ok();
        }
        for stage in stages {
            let script = context.script(stage).unwrap();
            // With no path there is no program to start; the search for bash would not find it.
            let text = script.text().replacen("eval '", "PATH=/nonexistent; eval '", 1);
            let text = text.replacen("command -v bash >/dev/null 2>&1 || exit 127\n", "", 1);
            let interpreter =
                if script.text().starts_with("#!/usr/bin/env bash") { "/bin/bash" } else { "/bin/sh" };
            let mut command = Command::new(interpreter);
            command
                .current_dir(machine.path(""))
                .env_clear()
                .env("HOME", machine.path(""))
                .stdin(Stdio::piped());
            let ran = feed(command, &text);
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{stage:?}");
        }
    }
}
