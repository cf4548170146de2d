//! Submodules, against real repositories.

use drover_job::{Shell, Stage};
use serde_json::{Value, json};

use crate::sources::Origin;
use crate::support::{Machine, SHELLS, context, runner};

/// A project with a submodule named `hooks`, which has a submodule itself.
fn nested(machine: &Machine) -> Origin {
    let inner = Origin::new(machine, "inner");
    let middle = Origin::new(machine, "middle");
    let mut outer = Origin::new(machine, "outer");
    for (parent, child, name) in
        [(&middle, &inner, "deep"), (&outer, &middle, "hooks"), (&outer, &inner, "side")]
    {
        let url = format!("file://{}", child.path.display());
        machine.git(
            &parent.path,
            &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--name", name, &url, name],
        );
        machine.git(&parent.path, &["commit", "-q", "-m", "submodule"]);
    }
    outer.second = machine.git(&outer.path, &["rev-parse", "HEAD"]);
    outer
}

fn variables(strategy: &str, more: Value) -> Value {
    let mut all = vec![json!({"key": "GIT_SUBMODULE_STRATEGY", "value": strategy})];
    all.extend(more.as_array().unwrap().clone());
    Value::Array(all)
}

#[test]
fn submodules_come_as_deep_as_asked_for() {
    for shell in SHELLS {
        for (strategy, own, nested_too) in
            [("none", false, false), ("normal", true, false), ("recursive", true, true)]
        {
            let machine = Machine::new();
            let origin = nested(&machine);
            let context = context(&origin.main(variables(strategy, json!([]))), &runner(shell));
            let ran = machine.run_stage(&context, Stage::GetSources).ok();
            let project = machine.path(&context.project_dir());
            assert_eq!(project.join("hooks/file").exists(), own, "{strategy} {ran:?}");
            assert_eq!(project.join("side/file").exists(), own);
            assert_eq!(project.join("hooks/deep/file").exists(), nested_too);
            let message =
                if nested_too { "submodules recursively..." } else { "Updating/initializing submodules..." };
            assert_eq!(ran.stdout.contains(message), own);
            assert_eq!(ran.stdout.contains("Updated submodules"), own);
            if own {
                let include = machine.git(&project.join("hooks"), &["config", "include.path"]);
                assert!(include.ends_with(".tmp/.gitlab-runner.ext.conf"), "{include}");
            }
        }
    }
}

#[test]
fn a_second_job_updates_and_cleans_submodules_whose_configuration_was_removed() {
    for shell in SHELLS {
        let machine = Machine::new();
        let origin = nested(&machine);
        let context = context(&origin.main(variables("recursive", json!([]))), &runner(shell));
        machine.run_stage(&context, Stage::GetSources).ok();
        let project = machine.path(&context.project_dir());
        std::fs::write(project.join("hooks/deep/left"), "x").unwrap();
        std::fs::write(project.join("hooks/file"), "changed").unwrap();
        std::fs::write(project.join(".git/modules/hooks/index.lock"), "").unwrap();
        std::fs::create_dir_all(project.join(".git/modules/hooks/hooks")).unwrap();
        std::fs::write(project.join(".git/modules/hooks/hooks/post-checkout"), "#!/bin/sh\nexit 1").unwrap();
        machine.run_stage(&context, Stage::CleanupFileVariables).ok();
        let ran = machine.run_stage(&context, Stage::GetSources).ok();
        assert!(!ran.stdout.contains("Retrying"), "{ran:?}");
        assert!(!project.join("hooks/deep/left").exists());
        assert_eq!(std::fs::read_to_string(project.join("hooks/file")).unwrap(), "two");
        assert!(!project.join(".git/modules/hooks/hooks").exists());
    }
}

#[test]
fn paths_depth_and_flags_are_handed_on() {
    let machine = Machine::new();
    let origin = nested(&machine);
    let more = json!([
        {"key": "GIT_SUBMODULE_PATHS", "value": ":(exclude)side"},
        {"key": "GIT_SUBMODULE_DEPTH", "value": "1"},
        {"key": "GIT_SUBMODULE_UPDATE_FLAGS", "value": "--jobs 2"},
    ]);
    let context = context(&origin.main(variables("normal", more)), &runner(Shell::Sh));
    let ran = machine.run_stage(&context, Stage::GetSources).ok();
    assert!(ran.stdout.contains("submodules with git depth set to 1..."));
    let project = machine.path(&context.project_dir());
    assert!(!project.join("side/file").exists());
    assert_eq!(machine.git(&project.join("hooks"), &["rev-list", "--count", "HEAD"]), "1");
}

#[test]
fn private_submodules_are_fetched_with_the_job_token_in_the_checkout_and_in_later_commands() {
    for (force_https, url) in [
        ("false", "https://gitlab.example.test/harbour/middle.git"),
        ("false", "../middle.git"),
        ("true", "git@gitlab.example.test:harbour/middle.git"),
    ] {
        let machine = Machine::new();
        let origin = nested(&machine);
        machine.git(&origin.path, &["config", "-f", ".gitmodules", "submodule.hooks.url", url]);
        machine.git(
            &origin.path,
            &["config", "-f", ".gitmodules", "submodule.side.url", "https://gitlab.example.test/inner.git"],
        );
        machine.git(&origin.path, &["commit", "-q", "-a", "-m", "urls"]);
        let sha = machine.git(&origin.path, &["rev-parse", "HEAD"]);
        let more = json!([
            {"key": "GIT_SUBMODULE_FORCE_HTTPS", "value": force_https},
            {"key": "CI_SERVER_HOST", "value": "gitlab.example.test"},
        ]);
        let mut job =
            origin.job(&sha, 0, "+refs/heads/main:refs/remotes/origin/main", variables("normal", more));
        job.git_info.repo_url =
            "https://gitlab-ci-token:job-token@gitlab.example.test/harbour/outer.git".to_owned();
        job.steps[0].script = vec!["git fetch -q origin".into(), "git -C hooks fetch -q origin".into()];
        machine.serve_https();
        let context = context(&job, &runner(Shell::Sh));
        let ran = machine.run_stage(&context, Stage::GetSources).ok();
        assert!(!ran.stdout.contains("Retrying"), "{ran:?}");
        let project = machine.path(&context.project_dir());
        assert!(project.join("hooks/file").exists() && project.join("side/file").exists(), "{ran:?}");
        machine.run_stage(&context, Stage::Step(0)).ok();
        let mut names: Vec<String> =
            machine.read("urls").lines().map(|url| url.rsplit('/').next().unwrap().to_owned()).collect();
        // Tags that follow may take a second connection.
        names.dedup();
        assert_eq!(names, ["outer.git", "middle.git", "inner.git", "outer.git", "middle.git"], "{url}");
        assert!(!ran.stdout.contains("job-token") && !ran.stderr.contains("job-token"), "{ran:?}");
    }
}

#[test]
fn a_meaningless_setting_fails_the_stage() {
    let machine = Machine::new();
    let origin = Origin::new(&machine, "ferry");
    for (strategy, more, message) in [
        ("all", json!([]), "unknown GIT_SUBMODULE_STRATEGY"),
        (
            "normal",
            json!([{"key": "GIT_SUBMODULE_PATHS", "value": ":(exclude) side"}]),
            "GIT_SUBMODULE_PATHS",
        ),
    ] {
        for shell in SHELLS {
            let context = context(&origin.main(variables(strategy, more.clone())), &runner(shell));
            let ran = machine.run_stage(&context, Stage::GetSources);
            assert_eq!(ran.code, 1);
            assert!(ran.stdout.contains(message), "{ran:?}");
        }
    }
}

#[test]
fn a_submodule_that_cannot_be_had_is_tried_twice_and_fails_the_stage() {
    let machine = Machine::new();
    let origin = nested(&machine);
    std::fs::remove_dir_all(machine.path("origins/inner")).unwrap();
    let context = context(&origin.main(variables("normal", json!([]))), &runner(Shell::Sh));
    let ran = machine.run_stage(&context, Stage::GetSources);
    assert!(ran.stdout.contains("Updating submodules failed. Retrying..."), "{ran:?}");
    assert_ne!(ran.code, 0);
}
