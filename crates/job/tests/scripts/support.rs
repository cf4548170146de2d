//! A machine to run scripts on: a folder that is home and start of every shell.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drover_job::{Context, Helper, Placement, Product, RunnerFacts, Script, Shell, Stage};
use job_payload::Job;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Machine {
    dir: TempDir,
}

/// Both shells that every script must be right in.
pub(crate) const SHELLS: [Shell; 2] = [Shell::Bash, Shell::Sh];

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(".gitconfig"),
            "[user]\n\tname = Test\n\temail = test@example.test\n[protocol \"file\"]\n\tallow = always\n",
        )
        .unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn read(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", format!("{}/bin:{}", self.dir.path().display(), std::env::var("PATH").unwrap()));
        if self.path("exec-path/git-remote-https").exists() {
            command.env("GIT_EXEC_PATH", self.path("exec-path"));
        }
        command
    }

    /// Runs a script as an executor does: the interpreter's command line by the login shell, the script on a pipe.
    pub(crate) fn run(&self, script: &Script) -> Ran {
        check_syntax(script);
        let mut command = self.command("sh");
        command.args(["-c", script.interpreter.command()]);
        feed(command, &script.text())
    }

    pub(crate) fn run_stage(&self, context: &Context, stage: Stage) -> Ran {
        self.run(&context.script(stage).unwrap_or_else(|| panic!("no script for {stage:?}")))
    }

    pub(crate) fn git(&self, dir: &Path, args: &[&str]) -> String {
        let output = self.command("git").current_dir(dir).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Serves `https://<any host>/…/<name>.git` from `origins/<name>` to whoever brings the job token, without a network: a
    /// remote helper of git's own kind. What it was asked for is in the file `urls`.
    pub(crate) fn serve_https(&self) {
        let real = self.git(self.dir.path(), &["--exec-path"]);
        let exec_path = self.path("exec-path");
        std::fs::create_dir_all(&exec_path).unwrap();
        for entry in std::fs::read_dir(real).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "git-remote-https" {
                std::os::unix::fs::symlink(entry.path(), exec_path.join(entry.file_name())).unwrap();
            }
        }
        self.program(
            "git-remote-https",
            "echo \"$2\" >>\"$HOME/urls\"\n\
             printf 'url=%s\\n' \"$2\" | git credential fill | grep -qx password=job-token || exit 1\n\
             name=${2##*/}\n\
             exec git remote-ext \"$1\" \"%S $HOME/origins/${name%.git}\"",
        );
        std::fs::rename(self.path("bin/git-remote-https"), exec_path.join("git-remote-https")).unwrap();
    }

    /// A program in the machine's path.
    pub(crate) fn program(&self, name: &str, script: &str) {
        std::fs::create_dir_all(self.path("bin")).unwrap();
        let text = self.path("bin").join("text");
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // A file that was written here would be busy while another test's program, which is just being started, has copies of all
        // open files.
        let installed = Command::new("install").arg(&text).arg(self.path("bin").join(name)).status();
        assert!(installed.unwrap().success(), "tests need coreutils");
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Standard output without colours.
    pub(crate) fn plain(&self) -> String {
        let mut out = String::new();
        let mut rest = self.stdout.as_str();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            out.push_str(before);
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
            rest = &rest[1..];
        }
        out + rest
    }
}

pub(crate) fn feed(mut command: Command, script: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = script.to_owned();
    let writer = std::thread::spawn(move || {
        // A shell that fails early does not read to the end.
        let _ = stdin.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    Ran {
        code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap()),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The commands inside of the frame.
pub(crate) fn body(script: &Script) -> String {
    let text = script.text();
    let frame = text.lines().nth(1).unwrap();
    let start = text.find(frame).unwrap();
    let eval = start + text[start..].find("eval '").unwrap();
    let quoted = &text[eval + "eval ".len()..];
    let quoted = quoted.strip_suffix("; exit 0; }\n").unwrap();
    let ran = feed(Command::new("dash"), &format!("printf '%s' {quoted}"));
    ran.ok().stdout
}

fn check_syntax(script: &Script) {
    for text in [&*script.text(), &body(script)] {
        for shell in ["dash", "bash"] {
            let mut command = Command::new(shell);
            command.arg("-n");
            let ran = feed(command, text);
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell} -n: {text}");
        }
    }
}

pub(crate) fn runner(shell: Shell) -> RunnerFacts {
    let product = Product {
        name: "drover".into(),
        version: "1.2.3".into(),
        revision: "abcdef".into(),
        platform: "linux/amd64".into(),
    };
    RunnerFacts {
        name: "fleet".into(),
        short_token: "aB3dE6gH9".into(),
        system_id: "s_1".into(),
        manager_host: "manager-01".into(),
        helper: Helper { command: "helper".into(), is_drover: false },
        ..RunnerFacts::new(product, "instance", shell, "https://gitlab.example.test")
    }
}

/// A job; `more` overrides members of the payload.
pub(crate) fn job(more: Value) -> Job {
    let mut payload = json!({
        "id": 48213,
        "token": "job-token",
        "allow_git_fetch": true,
        "job_info": {"name": "unit", "project_id": 77},
        "git_info": {"repo_url": "https://gitlab-ci-token:job-token@gitlab.example.test/harbour/ferry.git", "ref": "main"},
        "variables": [{"key": "GIT_STRATEGY", "value": "none", "public": true}],
        "steps": [{"name": "script", "script": ["true"]}],
        "features": {"trace_sections": true}
    });
    let Value::Object(more) = more else { panic!("an object") };
    payload.as_object_mut().unwrap().extend(more);
    Job::from_json(payload.to_string().as_bytes()).unwrap()
}

pub(crate) fn script(lines: &[&str]) -> Job {
    job(json!({"steps": [{"name": "script", "script": lines}]}))
}

pub(crate) fn context(job: &Job, runner: &RunnerFacts) -> Context {
    Context::new(job, runner, &Placement::default()).unwrap()
}

/// Runs one step of a job without sources, after the stage that makes its folder.
pub(crate) fn run_step(machine: &Machine, context: &Context) -> Ran {
    machine.run_stage(context, Stage::GetSources).ok();
    machine.run_stage(context, Stage::Step(0))
}
