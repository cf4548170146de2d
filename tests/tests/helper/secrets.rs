//! What other users of an instance can see while a job runs: command lines of processes, and files that are open to them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use drover_tests::{Setup, Sshd, World, bin, eventually};
use gitlab_mock::{ArtifactSpec, CacheSpec, JobBuilder, Repository};

use crate::world::{Binaries, with_artifact};

const MASKED: &str = "masked-5f0d3a9c41";
const PLAIN: &str = "unmasked-9b77e2c010";
const IN_FILE: &str = "file-content-c0ffee4242";
/// In every signed address of S3.
const SIGNATURE: &str = "X-Amz-Signature";

/// Looks at all command lines of the machine until it is stopped; gives those that hold a secret.
struct Watch {
    stop: Arc<AtomicBool>,
    watching: std::thread::JoinHandle<Vec<String>>,
}

impl Watch {
    fn start(secrets: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watching = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                let seen = command_lines().into_iter().filter(|line| holds(line, &secrets).is_some());
                found.extend(seen);
            }
            found
        });
        Self { stop, watching }
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.watching.join().unwrap()
    }
}

fn command_lines() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

fn holds<'a>(text: &str, secrets: &'a [String]) -> Option<&'a str> {
    secrets.iter().map(String::as_str).find(|secret| text.contains(secret))
}

/// Files below a folder that other users may read, and that hold a secret. What is in a closed folder is closed.
fn open_files(folder: &Path, secrets: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        let mode = metadata.permissions().mode();
        if metadata.is_dir() && mode & 0o011 != 0 {
            found.extend(open_files(&path, secrets));
        }
        if metadata.is_file() && mode & 0o044 != 0 {
            let content = std::fs::read(&path).unwrap_or_default();
            if holds(&String::from_utf8_lossy(&content), secrets).is_some() {
                found.push(path);
            }
        }
    }
    found
}

/// A program that notes all command lines of the machine, its own among them, and then is the helper.
fn noting(folder: &Path) -> PathBuf {
    let path = folder.join("noting");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" != --version ]; then\nfor f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <\"$f\"; echo; done \
         2>/dev/null >>{}/noted\nfi\nexec {} \"$@\"\n",
        folder.display(),
        bin("drover-helper").display()
    );
    drover_tests::make_program(&path, &script);
    path
}

/// A project with a file, and with this commit of the library as a submodule.
async fn with_submodule(world: &World, commit: &str) -> Repository {
    let work = tempfile::tempdir().unwrap();
    let script = "git init --quiet --initial-branch=main && echo 1 >number && \
                  printf '[submodule \"library\"]\\n\\tpath = library\\n\\turl = ../library.git\\n' >.gitmodules && \
                  git add . && git update-index --add --cacheinfo \"160000,$1,library\" && \
                  git -c user.name=H -c user.email=h@example.test commit --quiet --message first";
    let made = Command::new("sh").args(["-ec", script, "sh", commit]).current_dir(work.path()).status();
    assert!(made.unwrap().success(), "tests need git");
    world.gitlab.import_repository("harbour/ferry", work.path()).await.unwrap()
}

#[tokio::test]
async fn no_secret_of_a_job_is_open_to_other_users() {
    let (sshd, binaries, folder) = (Sshd::start(), Binaries::new(), tempfile::tempdir().unwrap());
    let noted = folder.path().join("noted");
    let entry = binaries
        .entry(&sshd)
        .set("helper.command", noting(folder.path()).display().to_string())
        .set("cache.Type", "s3")
        .set("cache.Shared", true)
        // Nobody is there: addresses are signed, and their requests fail, which fails no job.
        .set("cache.s3.ServerAddress", "127.0.0.1:1")
        .set("cache.s3.Insecure", true)
        .set("cache.s3.AccessKey", "AKIAEXAMPLE")
        .set("cache.s3.SecretKey", "secret-key-of-the-cache-77aa")
        .set("cache.s3.BucketName", "caches")
        .set("cache.s3.BucketLocation", "eu-west-1");
    let world = Setup::new().runner(entry).start().await;
    let library = world.gitlab.create_repository("harbour/library").await.unwrap();
    let commit = library.commit("main", [("book", "of tides\n".to_owned())], "first").await.unwrap();
    let repository = with_submodule(&world, &commit).await;
    let before = world.enqueue(with_artifact("before"));
    world.finished(&before).await.succeeded();

    let (ready, gate) = (folder.path().join("ready"), folder.path().join("gate"));
    let script = format!(
        "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f || :; echo; done 2>/dev/null >>{}; : >{}; while [ ! -e {} ]; do sleep 0.02; done",
        noted.display(),
        ready.display(),
        gate.display()
    );
    let job = world.enqueue(
        JobBuilder::new("job")
            .repository(&repository)
            .variable("GIT_SUBMODULE_STRATEGY", "recursive")
            .masked_variable("MASKED", MASKED)
            .variable("PLAIN", PLAIN)
            .file_variable("IN_FILE", IN_FILE)
            .cache(CacheSpec::new("deps", ["deps/"]))
            .needs(&before)
            .artifact(ArtifactSpec::archive("out", ["number"]))
            .script([
                script.as_str(),
                "mkdir deps; echo 1 > deps/one",
                "git -C library fetch --quiet && cat library/book",
                "test -s \"$IN_FILE\"",
            ]),
    );
    let secrets: Vec<String> =
        [MASKED, PLAIN, IN_FILE, SIGNATURE, job.token(), before.token(), "secret-key-of-the-cache-77aa"]
            .map(str::to_owned)
            .to_vec();
    let watch = Watch::start(secrets.clone());

    eventually("the script waits", || ready.exists() || job.state().is_final()).await;
    let while_it_runs = open_files(world.folder(), &secrets);
    std::fs::write(&gate, "").unwrap();
    world.finished(&job).await.succeeded().says_not("Missing").has_line("of tides");
    let afterwards = open_files(world.folder(), &secrets);

    assert_eq!((while_it_runs, afterwards), (vec![], vec![]));
    assert_eq!(watch.finish(), Vec::<String>::new());
    // The helper was called for every purpose, and noted what there was to be seen.
    let noted = std::fs::read_to_string(&noted).unwrap();
    for command in ["artifacts-downloader", "cache-extractor", "cache-archiver", "artifacts-uploader"] {
        assert!(noted.contains(command), "{command} was not called");
    }
    for line in noted.lines() {
        assert_eq!(holds(line, &secrets), None, "{line}");
    }
    world.stop().await;
}
