//! The checkout, against real repositories.

use std::path::PathBuf;

use drover_job::{Context, GitStrategy, Isolation, Placement, RunnerFacts, Shell, Stage};
use job_payload::Job;
use serde_json::{Value, json};
use test_case::test_case;

use crate::support::{Machine, Ran, SHELLS, context, job, runner};

/// A repository with two commits on `main`, a tag and the ref of a merge request.
pub(crate) struct Origin {
    pub(crate) path: PathBuf,
    pub(crate) first: String,
    pub(crate) second: String,
    pub(crate) merge_request: String,
}

impl Origin {
    pub(crate) fn new(machine: &Machine, name: &str) -> Self {
        let path = machine.path("origins").join(name);
        std::fs::create_dir_all(&path).unwrap();
        machine.git(&path, &["init", "-q", "-b", "main"]);
        let commit = |file: &str, content: &str| {
            std::fs::write(path.join(file), content).unwrap();
            machine.git(&path, &["add", "."]);
            machine.git(&path, &["commit", "-q", "-m", content]);
            machine.git(&path, &["rev-parse", "HEAD"])
        };
        let first = commit("file", "one");
        machine.git(&path, &["tag", "v1"]);
        let second = commit("file", "two");
        machine.git(&path, &["checkout", "-q", "-b", "feature"]);
        let merge_request = commit("file", "three");
        machine.git(&path, &["update-ref", "refs/merge-requests/5/head", &merge_request]);
        machine.git(&path, &["checkout", "-q", "main"]);
        machine.git(&path, &["branch", "-q", "-D", "feature"]);
        Self { path, first, second, merge_request }
    }

    pub(crate) fn job(&self, sha: &str, depth: u32, refspec: &str, variables: Value) -> Job {
        job(json!({
            "git_info": {
                "repo_url": format!("file://{}", self.path.display()),
                "ref": "main", "sha": sha, "depth": depth, "refspecs": [refspec],
            },
            "variables": variables,
        }))
    }

    pub(crate) fn main(&self, variables: Value) -> Job {
        self.job(&self.second, 0, "+refs/heads/main:refs/remotes/origin/main", variables)
    }
}

fn get_sources(machine: &Machine, context: &Context) -> Ran {
    machine.run_stage(context, Stage::GetSources)
}

/// Lets every fetch fail, after the configuration is written.
fn offline(machine: &Machine) {
    machine.program("git", "case $* in *' fetch '*) exit 1 ;; *) exec /usr/bin/git \"$@\" ;; esac");
}

fn head(machine: &Machine, context: &Context) -> String {
    machine.git(&machine.path(&context.project_dir()), &["rev-parse", "HEAD"])
}

#[test]
fn a_fresh_fetch_checks_out_the_commit_and_says_so() {
    for shell in SHELLS {
        let machine = Machine::new();
        let origin = Origin::new(&machine, "ferry");
        let job = origin.job(&origin.second, 1, "+refs/heads/main:refs/remotes/origin/main", json!([]));
        let placement = Placement { correlation_id: "01K7Z".into(), ..Placement::default() };
        let context = Context::new(&job, &runner(shell), &placement).unwrap();
        let ran = get_sources(&machine, &context).ok();
        let project = machine.path(&context.project_dir());
        let git = std::fs::canonicalize(&project).unwrap().join(".git");
        assert_eq!(
            ran.plain(),
            format!(
                "Gitaly correlation ID: 01K7Z\n\
                 Fetching changes with git depth set to 1...\n\
                 Initialized empty Git repository in {}/\n\
                 Created fresh repository.\n\
                 Checking out {} as detached HEAD (ref is main)...\n\
                 Skipping Git submodules setup\n",
                git.display(),
                &origin.second[..8],
            )
        );
        assert_eq!(ran.stderr, "");
        assert_eq!(std::fs::read_to_string(project.join("file")).unwrap(), "two");
        assert_eq!(machine.git(&project, &["rev-list", "--count", "HEAD"]), "1");
        let header = machine.git(&project, &["config", "http.extraHeader"]);
        assert_eq!(header, "X-Gitaly-Correlation-ID: 01K7Z");
    }
}

#[test]
fn a_second_fetch_moves_on_and_cleans_what_the_job_left() {
    for shell in SHELLS {
        for clean_git_config in [true, false] {
            let machine = Machine::new();
            let origin = Origin::new(&machine, "ferry");
            let runner = RunnerFacts { clean_git_config, ..runner(shell) };
            let first =
                context(&origin.job(&origin.first, 1, "+refs/tags/v1:refs/tags/v1", json!([])), &runner);
            get_sources(&machine, &first).ok();
            let project = machine.path(&first.project_dir());
            std::fs::write(project.join("untracked"), "x").unwrap();
            std::fs::write(project.join("file"), "changed").unwrap();
            std::fs::write(project.join(".git/index.lock"), "").unwrap();
            std::fs::write(project.join(".git/refs/heads/x.lock"), "").unwrap();
            std::fs::create_dir_all(project.join(".git/hooks")).unwrap();
            std::fs::write(project.join(".git/hooks/post-checkout"), "#!/bin/sh\nexit 1\n").unwrap();
            machine.git(&project, &["config", "evil.key", "value"]);

            let second = context(&origin.main(json!([])), &runner);
            let ran = get_sources(&machine, &second).ok();
            assert!(!ran.stdout.contains("Created fresh repository."));
            assert!(ran.stdout.contains("Reinitialized existing Git repository in "), "{ran:?}");
            assert!(ran.stdout.contains("Removing untracked\n"));
            assert_eq!(head(&machine, &second), origin.second);
            assert!(!project.join("untracked").exists());
            assert!(!project.join(".git/index.lock").exists());
            // Depth 0 after a shallow fetch brings the rest.
            assert_eq!(machine.git(&project, &["rev-list", "--count", "HEAD"]), "2");
            let config = std::fs::read_to_string(project.join(".git/config")).unwrap();
            assert_eq!(config.contains("evil"), !clean_git_config);
            assert_eq!(config.matches("gitlab-runner.ext.conf").count(), 1, "{config}");
        }
    }
}

#[test_case("clone"; "clone")]
#[test_case("fetch"; "fetch")]
fn a_merge_request_ref_is_fetched(strategy: &str) {
    let machine = Machine::new();
    let origin = Origin::new(&machine, "ferry");
    let variables = json!([{"key": "GIT_STRATEGY", "value": strategy}]);
    let refspec = "+refs/merge-requests/5/head:refs/pipelines/9";
    let context = context(&origin.job(&origin.merge_request, 20, refspec, variables), &runner(Shell::Sh));
    get_sources(&machine, &context).ok();
    assert_eq!(head(&machine, &context), origin.merge_request);
}

#[test]
fn a_clone_starts_from_nothing() {
    for shell in SHELLS {
        let machine = Machine::new();
        let origin = Origin::new(&machine, "ferry");
        let context =
            context(&origin.main(json!([{"key": "GIT_STRATEGY", "value": "clone"}])), &runner(shell));
        for _ in 0..2 {
            let ran = get_sources(&machine, &context).ok();
            assert!(ran.stdout.contains("Created fresh repository."));
            let project = machine.path(&context.project_dir());
            assert!(!project.join(".git/left").exists());
            std::fs::write(project.join(".git/left"), "x").unwrap();
        }
    }
}

#[test]
fn a_clone_also_removes_folders_that_their_owner_may_not_write_to() {
    for shell in SHELLS {
        let machine = Machine::new();
        // As it is for everybody but root, and tests may be root's.
        machine.program(
            "rm",
            "for a; do if [ -d \"$a\" ] && [ -n \"$(find \"$a\" -type d ! -perm -u+w)\" ]; then echo \"$a: Permission denied\" >&2; exit 1; fi; done\n\
             exec /bin/rm \"$@\"",
        );
        let origin = Origin::new(&machine, "ferry");
        let context =
            context(&origin.main(json!([{"key": "GIT_STRATEGY", "value": "clone"}])), &runner(shell));
        get_sources(&machine, &context).ok();
        let modules = machine.path(&context.project_dir()).join("modules");
        std::fs::create_dir(&modules).unwrap();
        std::fs::write(modules.join("left"), "x").unwrap();
        std::fs::set_permissions(&modules, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        let ran = get_sources(&machine, &context).ok();
        assert!(!ran.stderr.contains("Permission denied"), "{}", ran.stderr);
        assert!(!modules.exists());
    }
}

#[test]
fn without_a_repository_only_the_folder_is_made() {
    for shell in SHELLS {
        let machine = Machine::new();
        let none =
            context(&job(json!({"variables": [{"key": "GIT_STRATEGY", "value": "none"}]})), &runner(shell));
        let empty =
            context(&job(json!({"variables": [{"key": "GIT_STRATEGY", "value": "empty"}]})), &runner(shell));
        assert_eq!(empty.settings().strategy, GitStrategy::Empty);
        assert_eq!(empty.project_dir(), format!("{}-empty", none.project_dir()));
        for context in [&none, &empty] {
            get_sources(&machine, context).ok();
            std::fs::write(machine.path(&context.project_dir()).join("left"), "x").unwrap();
        }
        assert_eq!(
            get_sources(&machine, &none).ok().plain(),
            "Skipping Git repository setup\nSkipping Git checkout\nSkipping Git submodules setup\n"
        );
        get_sources(&machine, &empty).ok();
        assert!(machine.path(&none.project_dir()).join("left").exists());
        assert!(!machine.path(&empty.project_dir()).join("left").exists());
    }
}

#[test]
fn checkout_and_cleaning_can_be_left_out() {
    let machine = Machine::new();
    let origin = Origin::new(&machine, "ferry");
    let runner = runner(Shell::Bash);
    let no_checkout = context(&origin.main(json!([{"key": "GIT_CHECKOUT", "value": "false"}])), &runner);
    let ran = get_sources(&machine, &no_checkout).ok();
    assert!(ran.stdout.contains("Skipping Git checkout"));
    let project = machine.path(&no_checkout.project_dir());
    assert!(!project.join("file").exists());
    std::fs::write(project.join("untracked"), "x").unwrap();
    let no_clean = context(&origin.main(json!([{"key": "GIT_CLEAN_FLAGS", "value": "none"}])), &runner);
    get_sources(&machine, &no_clean).ok();
    assert!(project.join("file").exists() && project.join("untracked").exists());
    let excluding =
        context(&origin.main(json!([{"key": "GIT_CLEAN_FLAGS", "value": "-ffdx -e un*"}])), &runner);
    get_sources(&machine, &excluding).ok();
    assert!(project.join("untracked").exists());
}

#[test]
fn a_failed_fetch_fails_the_stage_and_the_worktree_can_be_cleared() {
    for shell in SHELLS {
        let machine = Machine::new();
        let origin = Origin::new(&machine, "ferry");
        let context_ =
            context(&origin.main(json!([{"key": "GET_SOURCES_ATTEMPTS", "value": "3"}])), &runner(shell));
        get_sources(&machine, &context_).ok();
        std::fs::write(machine.path(&context_.project_dir()).join("untracked"), "x").unwrap();
        let bad = origin.job("0123456789", 0, "+refs/heads/none:refs/remotes/origin/none", json!([]));
        let bad = context(&bad, &runner(shell));
        assert_eq!(get_sources(&machine, &bad).code, 128);
        let names: Vec<String> = context_.stages().into_iter().map(|plan| plan.name).collect();
        assert_eq!(names[2..4], ["get_sources", "clear_worktree"]);
        let ran = machine.run_stage(&context_, Stage::ClearWorktree).ok();
        assert_eq!(ran.plain(), "Deleting tracked and untracked files...\n");
        let left: Vec<_> = std::fs::read_dir(machine.path(&context_.project_dir())).unwrap().collect();
        assert_eq!(left.len(), 1, "only .git stays");
    }
}

#[test]
fn hooks_run_around_the_checkout_in_the_user_s_shell() {
    for shell in SHELLS {
        let machine = Machine::new();
        let origin = Origin::new(&machine, "ferry");
        let mut job = origin.main(json!([]));
        job.hooks = ["pre", "post"]
            .map(|when| job_payload::Hook {
                name: format!("{when}_get_sources_script"),
                script: vec![format!("echo job {when} ${{BASH_VERSION:+bash}}")],
            })
            .to_vec();
        let runner = RunnerFacts {
            pre_get_sources_script: "echo runner pre".into(),
            post_get_sources_script: "echo runner post; cat file".into(),
            ..runner(shell)
        };
        let ran = get_sources(&machine, &context(&job, &runner)).ok();
        let said: Vec<&str> =
            ran.stdout.lines().filter(|line| line.starts_with("runner") || line.starts_with("job")).collect();
        let bash = if shell == Shell::Bash { "bash" } else { "" };
        let trimmed: Vec<String> = said.iter().map(|line| line.trim().to_owned()).collect();
        assert_eq!(
            trimmed,
            [
                "runner pre",
                format!("job pre {bash}").trim(),
                format!("job post {bash}").trim(),
                "runner post"
            ]
        );
        assert!(ran.stdout.ends_with("two"));
    }
}

#[test_case("false"; "token in a private file")]
#[test_case("true"; "token in the environment")]
fn credentials_are_in_no_file_of_the_project_and_gone_after_the_cleanup(without_tokens: &str) {
    let machine = Machine::new();
    offline(&machine);
    let mut job = job(json!({"variables": [
        {"key": "FF_GIT_URLS_WITHOUT_TOKENS", "value": without_tokens},
        {"key": "CI_JOB_TOKEN", "value": if without_tokens == "true" { "job-token" } else { "of-the-job" }},
    ]}));
    job.steps[0].script = vec![
        "git ls-remote --get-url origin".into(),
        "printf 'url=https://gitlab.example.test/harbour/ferry.git\\n' | git credential fill || :".into(),
    ];
    let context = context(&job, &runner(Shell::Sh));
    assert_ne!(get_sources(&machine, &context).code, 0);

    let ran = machine.run_stage(&context, Stage::Step(0)).ok();
    assert!(ran.stdout.contains("\nhttps://gitlab.example.test/harbour/ferry.git\n"), "{ran:?}");
    assert!(ran.stdout.contains("username=gitlab-ci-token\npassword=job-token\n"), "{ran:?}");
    let files_with_token = |dir: &str| {
        let grep = machine.command("grep").args(["-rl", "job-token", dir]).output().unwrap();
        String::from_utf8(grep.stdout).unwrap().lines().count()
    };
    assert_eq!(files_with_token(&context.project_dir()), 0);
    assert_eq!(files_with_token("builds"), usize::from(without_tokens == "false"));
    machine.run_stage(&context, Stage::CleanupFileVariables).ok();
    assert_eq!(files_with_token("builds"), 0);
}

#[test]
fn the_token_goes_to_gitlab_alone_and_is_in_no_url() {
    let machine = Machine::new();
    let job = job(json!({"variables": [
        {"key": "GIT_SUBMODULE_FORCE_HTTPS", "value": "true"},
        {"key": "CI_SERVER_HOST", "value": "gitlab.example.test"},
    ]}));
    let context = context(&job, &runner(Shell::Sh));
    offline(&machine);
    assert_ne!(get_sources(&machine, &context).code, 0);
    let project = machine.path(&context.project_dir());
    let of_gitlab = "https://gitlab.example.test/other/sub.git";
    let alike = "https://gitlab.example.test.evil.test/x.git";
    for (url, expected, gets_token) in [
        (of_gitlab, of_gitlab, true),
        ("git@gitlab.example.test:other/sub.git", of_gitlab, true),
        ("ssh://git@gitlab.example.test/other/sub.git", of_gitlab, true),
        (alike, alike, false),
        ("https://elsewhere.test/x.git", "https://elsewhere.test/x.git", false),
    ] {
        assert_eq!(machine.git(&project, &["ls-remote", "--get-url", url]), expected);
        let ask = format!("printf 'url={expected}\\n' | GIT_TERMINAL_PROMPT=0 git credential fill");
        let answer = machine.command("sh").current_dir(&project).args(["-c", &ask]).output().unwrap();
        let answer = String::from_utf8(answer.stdout).unwrap();
        assert_eq!(answer.contains("password=job-token\n"), gets_token, "{url}: {answer}");
    }
}

#[test]
fn a_clone_url_takes_the_place_of_the_payload_s() {
    let machine = Machine::new();
    offline(&machine);
    let job = job(json!({"variables": [{"key": "CI_PROJECT_PATH", "value": "harbour/ferry"}]}));
    for (clone_url, origin, used) in [
        (
            "https://inside.test:8443/",
            "https://inside.test:8443/harbour/ferry.git",
            "https://inside.test:8443/harbour/ferry.git",
        ),
        (
            "ssh://inside.test",
            "ssh://git@inside.test/harbour/ferry.git",
            "ssh://git@inside.test/harbour/ferry.git",
        ),
    ] {
        let runner = RunnerFacts { clone_url: clone_url.into(), ..runner(Shell::Sh) };
        let context = context(&job, &runner);
        assert_ne!(get_sources(&machine, &context).code, 0);
        let project = machine.path(&context.project_dir());
        assert_eq!(machine.git(&project, &["config", "remote.origin.url"]), origin);
        assert_eq!(machine.git(&project, &["ls-remote", "--get-url", "origin"]), used);
    }
}

#[test]
fn tls_files_are_known_to_git() {
    let machine = Machine::new();
    offline(&machine);
    let placement = Placement {
        tls: drover_job::TlsFiles { ca: "ca".into(), ..Default::default() },
        ..Placement::default()
    };
    let runner = RunnerFacts { isolation: Isolation::Disposable, ..runner(Shell::Sh) };
    let context = Context::new(&job(json!({"variables": []})), &runner, &placement).unwrap();
    assert_ne!(get_sources(&machine, &context).code, 0);
    let expected =
        std::fs::canonicalize(machine.path(&context.temp_dir())).unwrap().join("CI_SERVER_TLS_CA_FILE");
    for dir in [machine.path(&context.project_dir()), machine.path("")] {
        let file = machine
            .git(&dir, &["config", "--get-urlmatch", "http.sslCAInfo", "https://gitlab.example.test/x"]);
        assert_eq!(file, expected.display().to_string());
    }
}

#[test_case("fetch", false; "a fetched project is cleaned")]
#[test_case("clone", true; "a cloned project is deleted")]
fn job_cleanup_leaves_no_work_behind(strategy: &str, deleted: bool) {
    for shell in SHELLS {
        let machine = Machine::new();
        let origin = Origin::new(&machine, "ferry");
        let job = origin.main(json!([
            {"key": "GIT_STRATEGY", "value": strategy},
            {"key": "FF_ENABLE_JOB_CLEANUP", "value": "true"},
        ]));
        let context = context(&job, &runner(shell));
        get_sources(&machine, &context).ok();
        let project = machine.path(&context.project_dir());
        std::fs::write(project.join("untracked"), "x").unwrap();
        std::fs::write(project.join("file"), "changed").unwrap();
        machine.run_stage(&context, Stage::CleanupFileVariables).ok();
        assert_eq!(project.exists(), !deleted);
        if !deleted {
            assert!(!project.join("untracked").exists());
            assert_eq!(std::fs::read_to_string(project.join("file")).unwrap(), "two");
            assert!(!project.join(".git/config").exists());
        }
    }
}

#[test]
fn lfs_objects_are_pulled_where_lfs_is_installed_and_wanted() {
    for (value, pulled) in [(None, true), (Some("false"), true), (Some("true"), false)] {
        let machine = Machine::new();
        let origin = Origin::new(&machine, "ferry");
        machine.program("git-lfs", "echo \"lfs $* skip=$GIT_LFS_SKIP_SMUDGE\"");
        let variables =
            value.map_or(json!([]), |value| json!([{"key": "GIT_LFS_SKIP_SMUDGE", "value": value}]));
        let ran = get_sources(&machine, &context(&origin.main(variables), &runner(Shell::Sh))).ok();
        let expected = format!("lfs pull skip={}\n", value.unwrap_or("1"));
        assert_eq!(ran.stdout.contains(&expected), pulled, "{ran:?}");
    }
}

#[test]
fn a_native_clone_is_tried_only_with_a_git_that_knows_it() {
    let machine = Machine::new();
    let origin = Origin::new(&machine, "ferry");
    let job = origin.main(json!([
        {"key": "GIT_STRATEGY", "value": "clone"},
        {"key": "FF_USE_GIT_NATIVE_CLONE", "value": "true"},
    ]));
    let context = context(&job, &runner(Shell::Sh));
    for (version, cloned) in [
        ("2.39.5", false),
        ("2.9.1", false),
        ("2.48.0", false),
        ("2.49.0", true),
        ("3.0.1", true),
        ("2.100.0", true),
    ] {
        machine.program(
            "git",
            &format!("case $1 in version) echo git version {version} ;; *) exec /usr/bin/git \"$@\" ;; esac"),
        );
        let ran = get_sources(&machine, &context).ok();
        assert_eq!(!ran.stdout.contains("Created fresh repository."), cloned, "{version} {ran:?}");
        assert_eq!(head(&machine, &context), origin.second);
        let project = machine.path(&context.project_dir());
        assert_eq!(
            machine.git(&project, &["config", "--get-all", "remote.origin.url"]),
            format!("file://{}", origin.path.display())
        );
    }
}
