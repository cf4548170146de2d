//! What is decided about a job before any of it runs.

use std::time::Duration;

use drover_job::{
    ClonePathError, Context, FeatureFlag, InputError, Isolation, Layout, Placement, RunnerFacts, Runs,
    SetupError, Shell, ShellError, Stage, TempAccess, Timeouts, Variable,
};
use job_payload::Job;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use test_case::test_case;

use crate::support::{context, job, runner};

fn setup_error(job: &Job, runner: &RunnerFacts) -> SetupError {
    Context::new(job, runner, &Placement::default()).unwrap_err()
}

fn with_variables(variables: &[(&str, &str)]) -> Job {
    let variables: Vec<Value> =
        variables.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    job(json!({"variables": variables}))
}

#[test]
fn stages_with_nothing_to_do_are_left_out() {
    let context = context(
        &job(json!({
            "secrets": {"A": {}},
            "variables": [{"key": "GET_SOURCES_ATTEMPTS", "value": "2"}, {"key": "RESTORE_CACHE_ATTEMPTS", "value": "3"}],
            "cache": [{"key": "k", "paths": ["x"], "when": "always"}, {"key": "nothing"}],
            "artifacts": [{"paths": ["x"], "when": "on_failure"}],
            "dependencies": [{"id": 1, "artifacts_file": {"filename": "a.zip"}}],
            "steps": [
                {"name": "script", "script": ["true"]},
                {"name": "accessibility", "script": ["true"]},
                {"name": "after_script", "script": ["true"]},
            ],
        })),
        &runner(Shell::Bash),
    );
    let stages: Vec<(String, u32, Runs)> =
        context.stages().into_iter().map(|plan| (plan.name, plan.attempts, plan.runs)).collect();
    let expected = [
        ("resolve_secrets", 1, Runs::AfterSuccess),
        ("prepare_executor", 3, Runs::AfterSuccess),
        ("prepare_script", 1, Runs::AfterSuccess),
        ("get_sources", 2, Runs::AfterSuccess),
        ("clear_worktree", 1, Runs::BeforeSecondCheckout),
        ("restore_cache", 3, Runs::AfterSuccess),
        ("download_artifacts", 1, Runs::AfterSuccess),
        ("step_script", 1, Runs::AfterSuccess),
        ("step_accessibility", 1, Runs::AfterSuccess),
        ("after_script", 1, Runs::AfterSteps),
        ("archive_cache", 1, Runs::OnSuccess),
        ("archive_cache_on_failure", 1, Runs::OnFailure),
        ("upload_artifacts_on_failure", 1, Runs::OnFailure),
        ("cleanup_file_variables", 1, Runs::Always),
    ];
    assert_eq!(stages, expected.map(|(name, attempts, runs)| (name.to_owned(), attempts, runs)));
    for plan in context.stages() {
        let in_manager = matches!(plan.stage, Stage::ResolveSecrets | Stage::PrepareExecutor);
        assert_eq!(context.script(plan.stage).is_none(), in_manager, "{plan:?}");
    }
    assert_eq!(context.plan(Stage::PrepareExecutor).title, "Preparing the \"instance\" executor");
}

#[test]
fn flags_are_taken_from_the_file_before_the_job_before_the_environment() {
    let job = with_variables(&[
        ("FF_SCRIPT_SECTIONS", "true"),
        ("FF_USE_FASTZIP", "false"),
        ("FF_HASH_CACHE_KEYS", "maybe"),
        ("FF_UNHEARD_OF", "1"),
    ]);
    let runner = RunnerFacts {
        environment: vec!["FF_USE_FASTZIP=true".into(), "FF_ENABLE_JOB_CLEANUP=1".into()],
        feature_flags: [("FF_SCRIPT_SECTIONS", false), ("FF_USE_FASTZIPS", true), ("FF_X", true)]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..runner(Shell::Bash)
    };
    let context = context(&job, &runner);
    assert!(!context.flags().is_on(FeatureFlag::ScriptSections));
    assert_eq!(context.flags().changed(), ["FF_USE_FASTZIP:false", "FF_ENABLE_JOB_CLEANUP:true"]);
    for (name, value) in [
        ("FF_SCRIPT_SECTIONS", "false"),
        ("FF_USE_FASTZIP", "false"),
        ("FF_HASH_CACHE_KEYS", "false"),
        ("FF_ENABLE_JOB_CLEANUP", "true"),
        ("FF_UNHEARD_OF", "1"),
    ] {
        assert_eq!(context.variables().get(name).unwrap(), value, "{name}");
    }
    assert_eq!(
        context.warnings(),
        [
            "FF_HASH_CACHE_KEYS: expected a boolean, using the default value: false",
            "FF_USE_FASTZIPS: unknown feature flag in the runner's settings; did you mean FF_USE_FASTZIP?",
            "FF_X: unknown feature flag in the runner's settings",
        ]
    );
    assert_eq!(
        context.header(),
        [
            "Running with drover 1.2.3 (abcdef)",
            "  on fleet aB3dE6gH9, system ID: s_1",
            "  feature flags: FF_USE_FASTZIP:false, FF_ENABLE_JOB_CLEANUP:true",
        ]
    );
}

#[test]
fn odd_settings_get_their_defaults_and_are_named() {
    let mut job = with_variables(&[
        ("GIT_STRATEGY", "pull"),
        ("GIT_CHECKOUT", "perhaps"),
        ("GET_SOURCES_ATTEMPTS", "99"),
        ("RESTORE_CACHE_ATTEMPTS", "0"),
        ("ARTIFACT_DOWNLOAD_ATTEMPTS", "many"),
        ("RUNNER_SCRIPT_TIMEOUT", "-5m"),
        ("RUNNER_AFTER_SCRIPT_TIMEOUT", "soon"),
        ("CI_DEBUG_TRACE", "loud"),
        ("GIT_SUBMODULE_STRATEGY", "all"),
        ("GIT_SUBMODULE_DEPTH", "hush"),
    ]);
    job.variables.last_mut().unwrap().masked = true;
    let runner = RunnerFacts { prepare_timeout: Some(Duration::from_secs(9000)), ..runner(Shell::Bash) };
    let context = context(&job, &runner);
    let attempts = context.settings().attempts;
    assert_eq!((attempts.get_sources, attempts.restore_cache, attempts.download_artifacts), (10, 1, 1));
    assert_eq!(
        context.timeouts(),
        Timeouts {
            job: Duration::from_secs(7200),
            prepare: Duration::from_secs(7200),
            get_sources: Duration::from_secs(7200),
            script: None,
            after_script: Duration::from_secs(300),
        }
    );
    assert_eq!(
        context.warnings(),
        [
            "CI_DEBUG_TRACE: expected bool got \"loud\", using default value: false",
            "GIT_STRATEGY: expected either \"clone\", \"fetch\", \"none\" or \"empty\" got \"pull\", using default value: fetch",
            "GIT_CHECKOUT: expected bool got \"perhaps\", using default value: true",
            "GIT_SUBMODULE_STRATEGY: expected either \"normal\", \"recursive\" or \"none\" got \"all\"",
            "GIT_SUBMODULE_DEPTH: expected int got [MASKED], using default value: 0",
            "Ignoring relative RUNNER_SCRIPT_TIMEOUT timeout: \"-5m\"",
            "Ignoring malformed RUNNER_AFTER_SCRIPT_TIMEOUT timeout: \"soon\": not a duration such as `1h30m`",
            "GET_SOURCES_ATTEMPTS: 99 is outside of the range 1 to 10, using 10",
            "RESTORE_CACHE_ATTEMPTS: 0 is outside of the range 1 to 10, using 1",
            "ARTIFACT_DOWNLOAD_ATTEMPTS: expected int got \"many\", using default value: 1",
            "prepare_timeout: 2h30m0s is not between zero and the job timeout, using the job timeout",
        ]
    );
}

#[test]
fn what_has_no_effect_is_named() {
    let job = with_variables(&[("FF_USE_LEGACY_BASH_EVAL", "true"), ("FF_CONCRETE", "false")]);
    assert_eq!(
        context(&job, &runner(Shell::Bash)).warnings(),
        ["FF_USE_LEGACY_BASH_EVAL is not supported and has no effect"]
    );
}

#[test]
fn a_script_timeout_is_cut_to_what_is_left_of_the_job() {
    let left = Duration::from_secs(60);
    assert_eq!(Timeouts::within(None, left, "X"), (left, None));
    assert_eq!(Timeouts::within(Some(left / 2), left, "X"), (left / 2, None));
    let (bound, warning) = Timeouts::within(Some(left * 2), left, "X");
    assert_eq!(
        (bound, warning.as_deref()),
        (left, Some("X timeout: 2m0s is longer than job timeout. Setting to job timeout"))
    );
}

#[test]
fn pauses_between_attempts_double_up_to_a_bound() {
    let pauses = |job: &Job| {
        let context = context(job, &runner(Shell::Bash));
        [2, 3, 4, 9, 1000].map(|next| context.retry_delay(next).as_secs())
    };
    assert_eq!(pauses(&with_variables(&[])), [5, 10, 20, 300, 300]);
    assert_eq!(
        pauses(&with_variables(&[("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "false")])),
        [1, 2, 4, 5, 5]
    );
}

#[test_case(json!({"image": {"name": "i", "executor_opts": {"docker": {"cpus": 2}, "podman": {}}}}), "unsupported executor_opts: image: podman, image: docker.cpus; supported are docker (platform, user) and kubernetes (user)"; "options")]
#[test_case(json!({"run": "[{\"step\": \"x\"}]"}), "`run` and `script` keywords cannot be used together"; "run and script")]
#[test_case(json!({"run": "[{\"step\": \"x\"}]", "steps": [], "variables": [{"key": "STEPS", "value": "x"}]}), "`run` keyword and a `STEPS` variable cannot be used together"; "run and steps")]
fn payloads_that_contradict_themselves_are_refused(more: Value, message: &str) {
    let failure = setup_error(&job(more), &runner(Shell::Bash)).failure();
    assert_eq!((failure.message.as_str(), failure.exit_code), (message, Some(3)));
    assert_eq!(failure.reason.as_str(), "runner_system_failure");
}

#[test]
fn a_run_job_is_a_script_for_the_step_runner() {
    let context = context(&job(json!({"run": "[{\"step\": \"$X\"}]", "steps": []})), &runner(Shell::Bash));
    assert_eq!(context.plan(Stage::Step(0)).name, "step_script");
    assert_eq!(context.job().steps[0].script, ["step-runner ci"]);
    assert_eq!(context.variables().get("STEPS").unwrap(), "[{\"step\": \"$X\"}]");
}

#[test]
fn inputs_are_put_in_place_everywhere() {
    let context = context(
        &job(json!({
            "inputs": [
                {"key": "text", "value": {"type": "string", "content": "$x"}},
                {"key": "n", "value": {"type": "number", "content": 1.5}},
                {"key": "yes", "value": {"type": "boolean", "content": true}},
                {"key": "list", "value": {"type": "array", "content": ["a", 1]}},
                {"key": "map", "value": {"type": "struct", "content": {"k": "v"}}},
                {"key": "unused", "value": {"type": "string", "content": "s", "sensitive": true}},
            ],
            "steps": [{"name": "script", "script": ["${{ job.inputs.text }} ${{job.inputs.n}} ${{ job.inputs.yes }}", "${{ job.inputs.list }}${{ job.inputs.map }}"]}],
            "image": {"name": "img:${{ job.inputs.n }}"},
            "cache": [{"key": "${{ job.inputs.n }}", "paths": ["${{ job.inputs.text }}"]}],
            "artifacts": [{"name": "${{ job.inputs.n }}", "paths": ["p"]}],
        })),
        &runner(Shell::Bash),
    );
    let job = context.job();
    assert_eq!(job.steps[0].script, ["$x 1.5 true", "[\"a\",1]{\"k\":\"v\"}"]);
    assert_eq!(job.image.name, "img:1.5");
    assert_eq!(context.caches()[0].key.as_ref().unwrap().name, "1.5");
    assert_eq!(context.caches()[0].paths, ["$x"]);
    assert_eq!(job.artifacts[0].name, "1.5");
}

#[test_case("${{ job.inputs.secret }}", InputError::Sensitive("secret".into()); "sensitive")]
#[test_case("${{ job.inputs.other }}", InputError::Unknown("other".into()); "unknown")]
#[test_case("${{ env.HOME }}", InputError::Expression("env.HOME".into()); "other expression")]
#[test_case("${{ job.inputs.secret", InputError::Unclosed; "not closed")]
fn inputs_that_cannot_be_used_fail_the_job(text: &str, expected: InputError) {
    let job = job(json!({
        "inputs": [{"key": "secret", "value": {"type": "string", "content": "s3cr3t", "sensitive": true}}],
        "steps": [{"name": "script", "script": [text]}],
    }));
    let error = setup_error(&job, &runner(Shell::Bash));
    assert_eq!(error, SetupError::Inputs(expected));
    let failure = error.failure();
    assert_eq!(failure.reason.as_str(), "runner_configuration_error");
    assert!(!failure.message.contains("s3cr3t"));
}

#[test]
fn expressions_are_left_alone_without_inputs_or_with_the_flag_off() {
    let script = json!([{"name": "script", "script": ["${{ anything }}"]}]);
    let inputs = json!([{"key": "n", "value": {"type": "number", "content": 1}}]);
    for more in [
        json!({"steps": script}),
        json!({"steps": script, "inputs": inputs, "variables": [{"key": "FF_ENABLE_JOB_INPUTS_INTERPOLATION", "value": "false"}]}),
    ] {
        assert_eq!(context(&job(more), &runner(Shell::Bash)).job().steps[0].script, ["${{ anything }}"]);
    }
}

#[test]
fn folders_follow_the_executor() {
    let shared = context(&job(json!({})), &runner(Shell::Bash));
    assert_eq!(shared.project_dir(), "builds/aB3dE6gH9/0/harbour/ferry");
    assert_eq!(shared.temp_dir(), "builds/aB3dE6gH9/0/harbour/ferry.tmp");
    assert_eq!(shared.cache_dir(), "cache/harbour/ferry");
    let own = RunnerFacts {
        builds_dir: "/builds".into(),
        cache_dir: "/cache/".into(),
        layout: Layout::Own,
        isolation: Isolation::Disposable,
        temp_access: TempAccess::Everyone,
        ..runner(Shell::Bash)
    };
    let own = context(&job(json!({})), &own);
    assert_eq!(
        (own.project_dir().as_str(), own.cache_dir().as_str()),
        ("/builds/harbour/ferry", "/cache/harbour/ferry")
    );
    assert_eq!(own.variables().get("CI_DISPOSABLE_ENVIRONMENT").as_deref(), Some("true"));
    assert_eq!(own.variables().get("CI_SHARED_ENVIRONMENT"), None);
    let script = own.script(Stage::PrepareScript).unwrap();
    let script = script.text();
    assert!(!script.contains("DROVER_START"), "{script}");
}

#[test_case("https://gitlab.example.test/sub/harbour/ferry.git", "sub/harbour/ferry"; "below a path")]
#[test_case("git@gitlab.example.test:harbour/ferry.git", "project-77"; "no URL")]
#[test_case("https://gitlab.example.test/../../etc", "project-77"; "climbing")]
fn the_project_folder_is_named_after_the_repository(url: &str, slug: &str) {
    let context = context(&job(json!({"git_info": {"repo_url": url}})), &runner(Shell::Bash));
    assert_eq!(context.project_dir(), format!("builds/aB3dE6gH9/0/{slug}"));
}

#[test]
fn a_clone_path_is_kept_inside_of_the_builds_folder() {
    let allowed = RunnerFacts { custom_build_dir: true, ..runner(Shell::Bash) };
    let at = |path: &str, runner: &RunnerFacts| {
        Context::new(&with_variables(&[("GIT_CLONE_PATH", path)]), runner, &Placement::default())
    };
    let context = at("$CI_BUILDS_DIR/go/src/x", &allowed).unwrap();
    assert_eq!(context.project_dir(), "builds/go/src/x");
    assert_eq!(context.variables().get("CI_PROJECT_DIR").unwrap(), "builds/go/src/x");
    assert_eq!(context.cache_dir(), "cache/harbour/ferry");
    for path in ["$CI_BUILDS_DIR/../x", "/tmp/x", "$CI_BUILDS_DIR", "${CI_BUILDS_DIR}x"] {
        let error = at(path, &allowed).unwrap_err();
        assert_eq!(error, SetupError::ClonePath(ClonePathError::Outside("builds".into())), "{path}");
    }
    let error = at("$CI_BUILDS_DIR/x", &runner(Shell::Bash)).unwrap_err();
    assert_eq!(error.failure().reason.as_str(), "runner_configuration_error");
    assert_eq!(error, SetupError::ClonePath(ClonePathError::NotAllowed));
}

#[test]
fn names_are_fit_for_networks_containers_and_volumes() {
    let runner = RunnerFacts { token: "glrt-x".into(), short_token: "aB_3".into(), ..runner(Shell::Bash) };
    let placement = Placement { concurrent_project_id: 4, ..Placement::default() };
    let context =
        Context::new(&with_variables(&[("FF_NETWORK_PER_BUILD", "1")]), &runner, &placement).unwrap();
    assert_eq!(context.network_name(), "runner-ab3-77-4-48213");
    assert_eq!(context.variables().get("CI_BUILD_NETWORK_NAME").unwrap(), "runner-ab3-77-4-48213");
    assert_eq!(context.unique_name(), "runner-ab3-project-77-concurrent-4");
    let volume = context.volume_name();
    // `printf glrt-x-s_1-77-4 | sha256sum | cut -c1-32`, as GitLab Runner names them.
    assert_eq!(volume, "runner-3dc9344b0baf5ee937ded9b92b7db97c");
    let other = Placement { concurrent_project_id: 5, ..Placement::default() };
    assert_ne!(Context::new(&with_variables(&[]), &runner, &other).unwrap().volume_name(), volume);
}

#[test]
fn everything_secret_is_to_be_masked() {
    let job = job(json!({
        "variables": [
            {"key": "A", "value": "pre-$B", "masked": true},
            {"key": "B", "value": "b"},
            {"key": "A", "value": "later", "masked": true},
            {"key": "EMPTY", "value": " ", "masked": true},
        ],
        "dependencies": [{"id": 1, "token": "dep-token"}],
        "credentials": [{"type": "registry", "password": "registry-password"}],
    }));
    let placement = Placement { secrets: vec![Variable::secret("S", "vault", true)], ..Placement::default() };
    let context = Context::new(&job, &runner(Shell::Bash), &placement).unwrap();
    let masked: Vec<String> =
        context.masked_values().iter().map(|value| value.expose_secret().to_owned()).collect();
    assert_eq!(masked, ["dep-token", "job-token", "later", "pre-b", "registry-password", "vault"]);
    let shown = format!("{context:?} {:?}", context.script(Stage::GetSources));
    for secret in masked {
        assert!(!shown.contains(&secret), "{secret}");
    }
}

#[test]
fn services_see_public_variables_and_the_runner_s_own() {
    let job = job(json!({"variables": [
        {"key": "PUBLIC", "value": "1", "public": true},
        {"key": "PRIVATE", "value": "1"},
    ]}));
    let context = context(&job, &runner(Shell::Bash));
    let names: Vec<&str> = context.variables().for_services().map(|variable| variable.key.as_str()).collect();
    assert!(names.contains(&"PUBLIC") && names.contains(&"CI_PROJECT_DIR") && !names.contains(&"PRIVATE"));
}

#[test_case(json!({"protected": true}), "false", true; "the server says so")]
#[test_case(json!({"protected": null}), "true", true; "the variable says so")]
#[test_case(json!({}), "false", false; "nobody says so")]
fn protection_is_the_server_s_word_before_the_variable_s(git_info: Value, variable: &str, expected: bool) {
    let job = job(
        json!({"git_info": git_info, "variables": [{"key": "CI_COMMIT_REF_PROTECTED", "value": variable}]}),
    );
    assert_eq!(context(&job, &runner(Shell::Bash)).is_protected(), expected);
}

#[test]
fn a_shell_that_is_not_served_is_refused_by_name() {
    assert_eq!("bash".parse(), Ok(Shell::Bash));
    assert_eq!("".parse(), Ok(Shell::Bash));
    assert_eq!("sh".parse(), Ok(Shell::Sh));
    assert_eq!("pwsh".parse(), Ok(Shell::Pwsh));
    assert_eq!("cmd".parse::<Shell>(), Err(ShellError::Unsupported("cmd".into())));
    assert_eq!(
        "fish".parse::<Shell>().unwrap_err().to_string(),
        "shell `fish` is not known: use `bash`, `sh` or `pwsh`"
    );
}
