//! Caches and artifacts: what the helper is asked to do, and what its absence means.

use drover_job::{Context, Outcome, Placement, RemoteCache, RunnerFacts, Shell, Stage};
use job_payload::Job;
use serde_json::{Value, json};

use crate::support::{Machine, SHELLS, context, job, run_step, runner};

/// A helper that writes down its calls and ends as told.
fn with_helper(machine: &Machine, extra: &str) {
    machine.program(
        "helper",
        &format!("{{ for a; do printf '%s|' \"$a\"; done; echo; }} >>\"$HOME/calls\"\n{extra}"),
    );
}

fn calls(machine: &Machine) -> Vec<String> {
    let home = std::fs::canonicalize(machine.path("")).unwrap().display().to_string();
    std::fs::read_to_string(machine.path("calls"))
        .unwrap_or_default()
        .lines()
        .map(|line| line.replace(&home, "~"))
        .collect()
}

fn cached(cache: Value, variables: Value) -> Job {
    let mut all = vec![json!({"key": "GIT_STRATEGY", "value": "none"})];
    all.extend(variables.as_array().unwrap().clone());
    job(json!({"cache": [cache], "variables": all}))
}

#[test]
fn caches_are_restored_from_the_first_key_that_has_one() {
    for shell in SHELLS {
        let machine = Machine::new();
        with_helper(&machine, "case $* in *second*) exit 0 ;; *) exit 1 ;; esac");
        let job = cached(
            json!({"key": "first $NAME", "fallback_keys": ["second", "third"], "paths": ["target/"]}),
            json!([{"key": "NAME", "value": "x"}, {"key": "CACHE_REQUEST_TIMEOUT", "value": "3"}]),
        );
        let remote = RemoteCache {
            get_url: "https://s3/get?a=1&b=2".into(),
            head_url: "https://s3/head".into(),
            ..Default::default()
        };
        let placement =
            Placement { remote_cache: [("second".to_owned(), remote)].into(), ..Placement::default() };
        let context = Context::new(&job, &runner(shell), &placement).unwrap();
        machine.run_stage(&context, Stage::GetSources).ok();
        let ran = machine.run_stage(&context, Stage::RestoreCache).ok();
        assert_eq!(
            ran.plain(),
            "Checking cache for first x...\nFailed to extract cache\nChecking cache for second...\nSuccessfully extracted cache\n"
        );
        assert_eq!(
            calls(&machine),
            [
                "cache-extractor|--file|~/cache/harbour/ferry/first x/cache.zip|--timeout|3|",
                "cache-extractor|--file|~/cache/harbour/ferry/second/cache.zip|--timeout|3|--url|https://s3/get?a=1&b=2|--head-url|https://s3/head|",
            ]
        );
    }
}

#[test]
fn caches_are_saved_when_due_and_a_failure_fails_nothing() {
    for shell in SHELLS {
        let machine = Machine::new();
        with_helper(&machine, "exit 1");
        let job = cached(json!({"key": "k", "paths": ["a b", "c*"], "untracked": true}), json!([]));
        let remote = RemoteCache {
            put_url: "https://s3/put".into(),
            put_headers: vec![("X-Meta".into(), "k v".into())],
            check_url: "https://s3/check".into(),
            ..Default::default()
        };
        let placement = Placement { remote_cache: [("k".to_owned(), remote)].into(), ..Placement::default() };
        let context = Context::new(&job, &runner(shell), &placement).unwrap();
        machine.run_stage(&context, Stage::GetSources).ok();
        assert!(context.script(Stage::ArchiveCache(Outcome::Failure)).is_none());
        let ran = machine.run_stage(&context, Stage::ArchiveCache(Outcome::Success)).ok();
        assert_eq!(ran.plain(), "Creating cache k...\nFailed to create cache\n");
        let alternate = &context.caches()[0].key.as_ref().unwrap().alternate;
        assert_eq!(
            calls(&machine),
            [format!(
                "cache-archiver|--file|~/cache/harbour/ferry/k/cache.zip|--timeout|10|--alternate-file|~/cache/harbour/ferry/{alternate}/cache.zip|\
                 --path|a b|--path|c*|--untracked|--url|https://s3/put|--check-url|https://s3/check|--header|X-Meta: k v|"
            )]
        );
    }
}

#[test]
fn a_policy_is_kept() {
    let machine = Machine::new();
    with_helper(&machine, "exit 0");
    let of = |policy: &str| {
        context(
            &cached(
                json!({"key": "k", "paths": ["x"], "policy": policy}),
                json!([{"key": "P", "value": "push"}]),
            ),
            &runner(Shell::Sh),
        )
    };
    machine.run_stage(&of("pull"), Stage::GetSources).ok();
    let restored = machine.run_stage(&of("$P"), Stage::RestoreCache).ok();
    assert_eq!(restored.plain(), "Not downloading cache k due to policy\n");
    let saved = machine.run_stage(&of("pull"), Stage::ArchiveCache(Outcome::Success)).ok();
    assert_eq!(saved.plain(), "Not uploading cache k due to policy\n");
    let bad = machine.run_stage(&of("both"), Stage::RestoreCache);
    assert_eq!((bad.code, bad.plain().as_str()), (1, "unknown cache policy both\n"));
    assert_eq!(calls(&machine), Vec::<String>::new());
}

#[test]
fn a_key_that_climbs_is_brought_back_and_an_empty_one_skipped() {
    let machine = Machine::new();
    with_helper(&machine, "exit 0");
    let of = |key: &str| {
        context(
            &cached(
                json!({"key": key, "paths": ["x"]}),
                json!([{"key": "CACHE_FALLBACK_KEY", "value": "main-protected. "}]),
            ),
            &runner(Shell::Sh),
        )
    };
    machine.run_stage(&of("k"), Stage::GetSources).ok();
    let ran = machine.run_stage(&of("../../other"), Stage::RestoreCache).ok();
    assert_eq!(
        ran.plain(),
        "cache key \"../../other\" sanitized to \"other\"\nCACHE_FALLBACK_KEY \"main-protected. \" not allowed to end in \"-protected\"\n\
         Checking cache for other...\nSuccessfully extracted cache\n"
    );
    let ran = machine.run_stage(&of(".."), Stage::RestoreCache).ok();
    assert!(ran.plain().ends_with("Skipping cache extraction due to empty cache key\n"));
    // No key at all is the name of the job and its ref.
    assert_eq!(of("").caches()[0].key.as_ref().unwrap().readable, "unit/main");
}

#[test]
fn artifacts_are_downloaded_with_the_token_of_their_job_which_no_process_list_shows() {
    for shell in SHELLS {
        let machine = Machine::new();
        with_helper(&machine, "echo \"token $CI_JOB_TOKEN\" >>\"$HOME/calls\"; exit 0");
        let context = context(
            &job(json!({"dependencies": [
                {"id": 1, "token": "one's", "name": "compile", "artifacts_file": {"filename": "a.zip", "size": 1}},
                {"id": 2, "token": "two", "name": "lint", "artifacts_file": null},
            ]})),
            &runner(shell),
        );
        machine.run_stage(&context, Stage::GetSources).ok();
        let ran = machine.run_stage(&context, Stage::DownloadArtifacts).ok();
        assert_eq!(ran.plain(), "Downloading artifacts for compile (1)...\n");
        assert_eq!(
            calls(&machine),
            ["artifacts-downloader|--url|https://gitlab.example.test|--id|1|", "token one's"]
        );
    }
}

#[test]
fn artifacts_are_uploaded_when_due_and_a_failure_fails_the_stage() {
    for shell in SHELLS {
        let machine = Machine::new();
        with_helper(&machine, "exit 4");
        let runner = RunnerFacts {
            artifact_upload_timeout: Some(std::time::Duration::from_secs(90)),
            ..runner(shell)
        };
        let context = context(
            &job(json!({"artifacts": [
                {"name": "logs-$CI_JOB_ID", "paths": ["out/"], "exclude": ["*.tmp"], "when": "always", "artifact_type": "archive", "artifact_format": "zip", "expire_in": "1 week"},
                {"paths": ["x"], "when": "on_failure"},
                {"paths": [], "when": "always"},
            ]})),
            &runner,
        );
        machine.run_stage(&context, Stage::GetSources).ok();
        let ran = machine.run_stage(&context, Stage::UploadArtifacts(Outcome::Success));
        assert_eq!((ran.code, ran.plain().as_str()), (4, "Uploading artifacts...\n"));
        assert_eq!(
            calls(&machine),
            [
                "artifacts-uploader|--url|https://gitlab.example.test|--id|48213|--timeout|1m30s|--path|out/|--exclude|*.tmp|\
              --name|logs-$CI_JOB_ID|--expire-in|1 week|--artifact-format|zip|--artifact-type|archive|"
            ]
        );
        assert!(
            context.script(Stage::UploadArtifacts(Outcome::Failure)).unwrap().text().contains("--path x")
        );
    }
}

#[test]
fn a_statement_of_provenance_is_asked_for_with_names_and_no_values() {
    let context = context(
        &job(json!({
            "artifacts": [
                {"paths": ["out/"], "when": "always"},
                {"paths": ["tests.xml"], "artifact_format": "gzip", "artifact_type": "junit"},
            ],
            "variables": [
                {"key": "RUNNER_GENERATE_ARTIFACTS_METADATA", "value": "true"},
                {"key": "CI_PROJECT_URL", "value": "https://gitlab.example.test/g/p"},
                {"key": "CI_JOB_STARTED_AT", "value": "2026-11-21T10:00:00Z"},
                {"key": "API_KEY", "value": "s3cr3t-value", "masked": true},
            ],
        })),
        &runner(Shell::Bash),
    );
    let script = context.script(Stage::UploadArtifacts(Outcome::Success)).unwrap();
    let text = script.text().into_owned();
    let mut calls = text.lines().filter(|line| line.contains("artifacts-uploader"));
    let call = calls.next().unwrap();
    for words in [
        "--generate-artifacts-metadata",
        "--repo-url https://gitlab.example.test/g/p",
        "--started-at 2026-11-21T10:00:00Z",
        "--metadata-parameter API_KEY",
        // GitLab Runner's helper takes none without it.
        "--ended-at \"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"",
    ] {
        assert!(call.contains(words), "{words}: {call}");
    }
    assert!(!call.contains("s3cr3t-value"), "{call}");
    let report = calls.next().unwrap();
    assert!(!report.contains("metadata"), "a report is no archive: {report}");
}

#[test]
fn half_of_a_cache_is_removed_if_asked_for_but_nothing_outside_of_the_project() {
    for shell in SHELLS {
        let machine = Machine::new();
        with_helper(&machine, "exit 1");
        let job = cached(
            json!({"key": "k", "paths": ["target", "$CI_PROJECT_DIR/a b", "../kept", "/kept", "$CI_BUILDS_DIR", "$CI_PROJECT_DIR"]}),
            json!([{"key": "FF_CLEAN_UP_FAILED_CACHE_EXTRACT", "value": "true"}]),
        );
        let context = context(&job, &runner(shell));
        machine.run_stage(&context, Stage::GetSources).ok();
        let project = machine.path(&context.project_dir());
        for dir in ["target", "a b", "../kept"] {
            std::fs::create_dir_all(project.join(dir)).unwrap();
        }
        let ran = machine.run_stage(&context, Stage::RestoreCache).ok();
        assert_eq!(
            ran.plain(),
            "Checking cache for k...\nFailed to extract cache\nRemoving target\nRemoving a b\n"
        );
        assert!(!project.join("target").exists() && !project.join("a b").exists());
        assert!(project.join("../kept").exists());
    }
}

#[test]
fn without_the_helper_the_job_goes_on_with_a_warning() {
    for shell in SHELLS {
        let machine = Machine::new();
        let context = context(
            &job(json!({
                "cache": [{"key": "k", "paths": ["x"]}],
                "artifacts": [{"paths": ["x"]}],
                "dependencies": [{"id": 1, "token": "t", "name": "n", "artifacts_file": {"filename": "a.zip", "size": 1}}],
            })),
            &runner(shell),
        );
        run_step(&machine, &context).ok();
        for (stage, what) in [
            (Stage::RestoreCache, "Extracting cache"),
            (Stage::DownloadArtifacts, "Artifacts downloading"),
            (Stage::ArchiveCache(Outcome::Success), "Creating cache"),
            (Stage::UploadArtifacts(Outcome::Success), "Uploading artifacts"),
        ] {
            let ran = machine.run_stage(&context, stage).ok();
            assert_eq!(ran.stdout, format!("\u{1b}[0;33mMissing helper. {what} is disabled.\u{1b}[0;m\n"));
        }
    }
}
