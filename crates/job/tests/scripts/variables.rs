//! Variables as commands see them.

use std::os::unix::fs::PermissionsExt as _;

use drover_job::{Context, JobStatus, Placement, RunnerFacts, Shell, Stage, TempAccess, TlsFiles, Variable};
use job_payload::Token;
use proptest::prelude::*;
use serde_json::json;

use crate::support::{Machine, SHELLS, context, job, run_step, runner};

#[test]
fn job_variables_reach_commands_in_their_order() {
    for shell in SHELLS {
        let machine = Machine::new();
        let job = job(json!({
            "variables": [
                {"key": "GIT_STRATEGY", "value": "none"},
                {"key": "NAME", "value": "one"},
                {"key": "NAME", "value": "two"},
                {"key": "GREETING", "value": "hello $NAME ${FROM_RUNNER} $NESTED $$"},
                {"key": "NESTED", "value": "$NAME"},
                {"key": "RAW", "value": "$NAME `x` \"", "raw": true},
                {"key": "CI_RUNNER_VERSION", "value": "mine"},
                {"key": "OWN", "value": "job"},
            ],
            "steps": [{"name": "script", "script": ["printf '%s|' \"$NAME\" \"$GREETING\" \"$RAW\" \"$CI_RUNNER_VERSION\" \"$OWN\" \"$CI_JOB_STATUS\" \"$FF_USE_FASTZIP\" \"$SECRET\""]}],
        }));
        let runner =
            RunnerFacts { environment: vec!["FROM_RUNNER=r=1".into(), "OWN=runner".into()], ..runner(shell) };
        let placement =
            Placement { secrets: vec![Variable::secret("SECRET", "$NAME", false)], ..Placement::default() };
        let context = Context::new(&job, &runner, &placement).unwrap();
        let ran = run_step(&machine, &context).ok();
        assert_eq!(
            ran.stdout.lines().last(),
            Some("two|hello two r=1 $NAME $|$NAME `x` \"|1.2.3|job|running|true|$NAME|")
        );
    }
}

#[test]
fn folders_are_absolute_for_commands_although_the_runner_s_are_relative() {
    for shell in SHELLS {
        let machine = Machine::new();
        let job = job(json!({
            "variables": [
                {"key": "GIT_STRATEGY", "value": "none"},
                {"key": "CARGO_HOME", "value": "$CI_PROJECT_DIR/.cargo it's"},
                {"key": "KEY", "value": "content\n", "file": true},
                {"key": "POINTER", "value": "see ${KEY}"},
            ],
            "steps": [{"name": "script", "script": ["pwd", "echo $CI_PROJECT_DIR", "echo \"$CARGO_HOME\"", "echo $POINTER", "cat $KEY", "echo $CI_BUILDS_DIR $RUNNER_TEMP_PROJECT_DIR"]}],
        }));
        let context = context(&job, &runner(shell));
        let ran = run_step(&machine, &context).ok();
        let home = std::fs::canonicalize(machine.path("")).unwrap().display().to_string();
        let project = format!("{home}/builds/aB3dE6gH9/0/harbour/ferry");
        let shown: Vec<String> =
            ran.plain().lines().filter(|line| !line.starts_with('$')).map(str::to_owned).collect();
        assert_eq!(
            shown,
            [
                project.clone(),
                project.clone(),
                format!("{project}/.cargo it's"),
                format!("see {project}.tmp/KEY"),
                "content".to_owned(),
                format!("{home}/builds {project}.tmp"),
            ]
        );
        assert_eq!(context.variables().get("CI_PROJECT_DIR").unwrap(), "builds/aB3dE6gH9/0/harbour/ferry");
        assert_eq!(context.variables().expand("$CI_PROJECT_DIR/x"), "builds/aB3dE6gH9/0/harbour/ferry/x");
    }
}

#[test]
fn file_variables_are_closed_to_others_and_gone_after_the_cleanup() {
    for shell in SHELLS {
        let machine = Machine::new();
        let job = job(json!({"variables": [
            {"key": "GIT_STRATEGY", "value": "none"},
            {"key": "KEY", "value": "-----BEGIN-----\nx\n", "file": true},
        ]}));
        let placement = Placement {
            tls: TlsFiles { ca: "ca".into(), cert: String::new(), key: Token::from("key") },
            ..Placement::default()
        };
        let context = Context::new(&job, &runner(shell), &placement).unwrap();
        run_step(&machine, &context).ok();
        let mode = |path: &str| std::fs::metadata(machine.path(path)).unwrap().permissions().mode() & 0o777;
        let temp = context.temp_dir();
        assert_eq!((mode(&temp), mode(&format!("{temp}/KEY"))), (0o700, 0o600));
        assert_eq!(machine.read(&format!("{temp}/KEY")), "-----BEGIN-----\nx\n");
        assert_eq!(machine.read(&format!("{temp}/CI_SERVER_TLS_CA_FILE")), "ca");
        assert_eq!(machine.read(&format!("{temp}/CI_SERVER_TLS_KEY_FILE")), "key");
        assert!(!machine.path(&temp).join("CI_SERVER_TLS_CERT_FILE").exists());

        machine.run_stage(&context, Stage::CleanupFileVariables).ok();
        assert_eq!(std::fs::read_dir(machine.path(&temp)).unwrap().count(), 0);
    }
}

#[test]
fn in_images_of_several_users_everybody_may_change_what_the_helper_made() {
    let machine = Machine::new();
    let runner = RunnerFacts { temp_access: TempAccess::Everyone, ..runner(Shell::Bash) };
    let job = job(json!({"variables": [
        {"key": "GIT_STRATEGY", "value": "none"},
        {"key": "KEY", "value": "x", "file": true},
    ]}));
    let context = context(&job, &runner);
    run_step(&machine, &context).ok();
    let mode = |path: &str| std::fs::metadata(machine.path(path)).unwrap().permissions().mode() & 0o777;
    let temp = context.temp_dir();
    assert_eq!(
        (mode(&temp), mode(&format!("{temp}/KEY")), mode(&context.project_dir())),
        (0o777, 0o666, 0o777)
    );
}

#[test]
fn a_job_passes_variables_on_by_its_env_file() {
    for shell in SHELLS {
        let machine = Machine::new();
        let job = job(json!({
            "steps": [
                {"name": "script", "script": ["echo 'LATER=it is $HOME' >>\"$GITLAB_ENV\"", "printf '\\nBAD-NAME=1\\nno assignment\\nLAST=1' >>\"$GITLAB_ENV\""]},
                {"name": "after_script", "script": ["echo \"$LATER\" $LAST"]},
            ],
        }));
        let context = context(&job, &runner(shell));
        run_step(&machine, &context).ok();
        let ran = machine.run_stage(&context, Stage::AfterScript).ok();
        assert!(ran.stdout.ends_with("it is $HOME 1\n"), "{ran:?}");
        machine.run_stage(&context, Stage::CleanupFileVariables).ok();
        assert!(!machine.path(&context.temp_dir()).join("gitlab_runner_env").exists());
    }
}

#[test]
fn names_that_no_shell_takes_are_left_out_with_a_warning() {
    let job = job(json!({"variables": [
        {"key": "GIT_STRATEGY", "value": "none"},
        {"key": "not-a-name", "value": "x"},
        {"key": "1ST", "value": "x"},
        {"key": "UID", "value": "0"},
        {"key": "", "value": "x"},
    ]}));
    for shell in SHELLS {
        let context = context(&job, &runner(shell));
        run_step(&Machine::new(), &context).ok();
        assert_eq!(context.warnings().len(), 4);
        assert_eq!(context.warnings()[0], "variable \"not-a-name\" cannot be set in a shell and is left out");
    }
}

#[test]
fn after_script_knows_how_the_job_stands() {
    let job = job(json!({"steps": [
        {"name": "script", "script": ["true"]},
        {"name": "after_script", "script": ["echo $CI_JOB_STATUS"]},
    ]}));
    let mut context = context(&job, &runner(Shell::Bash));
    let machine = Machine::new();
    run_step(&machine, &context).ok();
    context.set_status(JobStatus::TimedOut);
    assert!(machine.run_stage(&context, Stage::AfterScript).ok().stdout.ends_with("timedout\n"));
}

#[test]
fn hostile_variables_do_not_disturb_the_runner_s_own_commands() {
    for shell in SHELLS {
        let machine = Machine::new();
        let job = job(json!({
            "variables": [
                {"key": "GIT_STRATEGY", "value": "none"},
                {"key": "IFS", "value": "/b-"},
                {"key": "CDPATH", "value": "/"},
                {"key": "PS4", "value": "$(echo boo)"},
                {"key": "A", "value": "'; exit 7; '"},
                {"key": "B", "value": "$(exit 7)`exit 7`", "raw": true},
                {"key": "FILE", "value": "'; exit 7; '", "file": true},
            ],
            "steps": [{"name": "script", "script": ["printf '%s\\n' \"$A\" \"$B\"; cat \"$FILE\""]}],
        }));
        let context = context(&job, &runner(shell));
        let ran = run_step(&machine, &context).ok();
        assert!(ran.stdout.ends_with("'; exit 7; '\n$(exit 7)`exit 7`\n'; exit 7; '"), "{ran:?}");
        machine.run_stage(&context, Stage::CleanupFileVariables).ok();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_arrives_unchanged(values in proptest::collection::vec("[^\0]{0,40}|[ -/'\"\\\\$`!\n\t\r\u{1}-\u{1f}]{0,40}", 8)) {
        let variables: Vec<_> = std::iter::once(json!({"key": "GIT_STRATEGY", "value": "none"}))
            .chain(values.iter().enumerate().map(|(index, value)| {
                json!({"key": format!("V{index}"), "value": value, "raw": true, "file": index % 4 == 3})
            }))
            .collect();
        let command = "env -0 >all; printf '%s' \"$(cat \"$V3\"; echo .)\" >file";
        let job = job(json!({"variables": variables, "steps": [{"name": "script", "script": [command]}]}));
        for shell in SHELLS {
            let machine = Machine::new();
            let context = context(&job, &runner(shell));
            run_step(&machine, &context).ok();
            let all = std::fs::read(machine.path(&context.project_dir()).join("all")).unwrap();
            for (index, value) in values.iter().enumerate().filter(|(index, _)| index % 4 != 3) {
                let expected = format!("V{index}={value}").into_bytes();
                prop_assert!(all.split(|byte| *byte == 0).any(|entry| entry == expected), "{shell:?} {value:?}");
            }
            let file = machine.read(&format!("{}/file", context.project_dir()));
            prop_assert_eq!(file, format!("{}.", values[3]));
        }
    }
}
