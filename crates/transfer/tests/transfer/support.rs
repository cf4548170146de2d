//! Projects with files, a GitLab with a running job, a command line.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;

use clap::Parser as _;
use drover_transfer::{Command, Console};
use gitlab_api::{Client, ClientOptions, Features, InfoFields, JobRequest, JobRequestOutcome, RunnerInfo};
use gitlab_mock::{Config, GitlabMock, Job, JobBuilder, Runner};

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) log: String,
}

#[derive(Debug, clap::Parser)]
pub(crate) struct Line {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A directory with files.
pub(crate) struct Project {
    directory: tempfile::TempDir,
}

/// What is to be seen of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    File { mode: u32, modified: i64, content: Vec<u8> },
    Directory { mode: u32, modified: i64 },
    Link(PathBuf),
}

/// A GitLab whose runner takes every job at once.
pub(crate) struct Gitlab {
    pub(crate) mock: GitlabMock,
    pub(crate) runner: Runner,
    client: Client,
}

// === impl Project ===

impl Project {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub(crate) fn read(&self, path: &str) -> String {
        String::from_utf8(fs::read(self.path().join(path)).unwrap()).unwrap()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.path().join(path).symlink_metadata().is_ok()
    }

    /// Everything that archives have trouble with, below `odd`.
    pub(crate) fn with_oddities(self) -> Self {
        let long = format!("odd/{}/{}", "d".repeat(120), "f".repeat(150));
        self.file("odd/plain.txt", "text\n".repeat(1000))
            .file("odd/with space", "a")
            .file("odd/über/maß.txt", "b")
            .file("odd/new\nline", "c")
            .file("odd/-dash", "d")
            .file("odd/empty", "")
            .file("odd/random", noise(70_000))
            .file("odd/large", [noise(1_500_000), vec![b'x'; 2_000_000]].concat())
            .file(&long, "deep")
            .file("odd/tool", "#!/bin/sh\n")
            .file("odd/secret", "key");
        let at = |path: &str| self.path().join(path);
        fs::set_permissions(at("odd/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(at("odd/secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(at("odd/hollow")).unwrap();
        fs::set_permissions(at("odd/hollow"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("tool", at("odd/link")).unwrap();
        symlink("nowhere/at all", at("odd/dangling")).unwrap();
        symlink("über", at("odd/to-directory")).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_001);
        for path in ["odd/plain.txt", "odd/hollow"] {
            fs::File::open(at(path)).unwrap().set_modified(old).unwrap();
        }
        self
    }

    /// Everything below a path.
    pub(crate) fn seen(&self, below: &str) -> BTreeMap<PathBuf, Seen> {
        let mut seen = BTreeMap::new();
        let mut pending = vec![PathBuf::from(below)];
        while let Some(path) = pending.pop() {
            let there = self.path().join(&path);
            let metadata = there.symlink_metadata().unwrap();
            let (mode, modified) = (metadata.mode() & 0o7777, metadata.mtime());
            let entry = if metadata.is_dir() {
                pending
                    .extend(fs::read_dir(&there).unwrap().map(|item| path.join(item.unwrap().file_name())));
                Seen::Directory { mode, modified }
            } else if metadata.is_symlink() {
                Seen::Link(fs::read_link(&there).unwrap())
            } else {
                Seen::File { mode, modified, content: fs::read(&there).unwrap() }
            };
            seen.insert(path, entry);
        }
        seen
    }

    /// Runs a command of the helper here.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run_in(self.path(), arguments)
    }

    /// Runs a program here, which has to succeed.
    pub(crate) fn program(&self, program: &str, arguments: &[&str]) -> String {
        let output = Process::new(program)
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap_or_else(|error| panic!("`{program}` is needed: {error}"));
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        said
    }
}

pub(crate) fn run_in(directory: &Path, arguments: &[&str]) -> Ran {
    let line = Line::try_parse_from([&["helper"], arguments].concat()).unwrap();
    let (console, memory) = Console::memory();
    let code = line.command.run_in(directory, &console);
    let log = memory.text();
    for secret in arguments.iter().filter(|text| text.starts_with("glcbt-") || text.contains("Signature=")) {
        assert!(!log.contains(secret), "a secret was shown: {log}");
    }
    assert!(!log.contains("s3cr3t"), "a signature was shown: {log}");
    Ran { code, log }
}

/// Bytes that cannot be compressed, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

// === impl Gitlab ===

impl Gitlab {
    pub(crate) async fn start(config: Config) -> Self {
        let mock = GitlabMock::start(config).await.unwrap();
        let runner = mock.add_runner("glrt-helper");
        let client = Client::new(ClientOptions::new(mock.url())).unwrap();
        Self { mock, runner, client }
    }

    /// A job that is running, with the token that it has for itself and its dependencies.
    pub(crate) async fn job(&self, job: JobBuilder) -> Job {
        let job = self.mock.enqueue(&self.runner, job);
        let info = RunnerInfo::new(InfoFields {
            executor: "instance".into(),
            shell: "bash".into(),
            // Without it a job runs as soon as it is given out.
            features: Features { two_phase_job_commit: false, ..Features::INSTANCE },
            ..InfoFields::of_this_build("drover", "0.1.0", "test")
        })
        .unwrap();
        let request = JobRequest {
            token: "glrt-helper".into(),
            system_id: "s_0123456789ab".into(),
            info: Arc::new(info),
            session: None,
            long_poll: false,
        };
        let outcome = self.client.request_job(&request).await.outcome;
        assert!(matches!(outcome, JobRequestOutcome::Job(_)), "{outcome:?}");
        job
    }

    /// Runs a command for a job on a thread of its own.
    pub(crate) async fn run(&self, project: &Project, job: &Job, arguments: &[&str]) -> Ran {
        let id = job.id().to_string();
        let mut all = vec![arguments[0], "--url", self.mock.url(), "--token", job.token(), "--id", &id];
        all.extend(&arguments[1..]);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let directory = project.path().to_owned();
        tokio::task::spawn_blocking(move || {
            run_in(&directory, &all.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await
        .unwrap()
    }
}
