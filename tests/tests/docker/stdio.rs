//! Engines on instances whose SSH server does not forward to sockets: `docker system dial-stdio`.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use drover_tests::{Engine, Entry, Setup, Sshd, World, eventually, processes_with};
use gitlab_mock::JobBuilder;

use crate::{autoscaled, nothing_is_left};

const FORBIDDING: &str = "AllowStreamLocalForwarding no";
const FLAG: &str = "feature_flags.FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO";

/// The socket of the tests' engine under a name of its own, by which processes are known.
fn socket(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("engine.sock");
    symlink(Engine::shared().socket(), &path).unwrap();
    path
}

async fn world(sshd: &Sshd, host: &str, change: impl FnOnce(Entry) -> Entry) -> World {
    Setup::new().set("concurrent", 20).runner(change(autoscaled::entry(sshd, host))).start().await
}

/// Much output, a script that ends by the end of its input, and an exit code.
fn talkative(name: &str) -> JobBuilder {
    JobBuilder::new(name).script([
        "cat number",
        "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done",
        "cat >/dev/null; echo the input ended",
        "exit 3",
    ])
}

#[tokio::test]
async fn jobs_run_where_the_server_forbids_forwarding_and_allows_few_sessions() {
    let sshd = Sshd::configured(&format!("{FORBIDDING}\nMaxSessions 3"));
    let folder = tempfile::tempdir().unwrap();
    let socket = socket(&folder).display().to_string();
    let world = world(&sshd, &format!("unix://{socket}"), |entry| entry).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let jobs: Vec<_> = (0..4)
        .map(|number| {
            let job = talkative(&number.to_string()).repository(&repository);
            world.enqueue(job.variable("GIT_STRATEGY", "clone"))
        })
        .collect();
    for job in &jobs {
        let finished = world.finished(job).await.failed("script_failure", Some(3));
        let id = finished.view.id;
        finished.has_line("1").has_line("line 1999").has_line("the input ended");
        nothing_is_left(&world, id).await;
    }
    assert!(world.log.has_line(&["docker system dial-stdio", "m1"]), "the way is told once");
    world.stop().await;
    eventually("no dial-stdio is left", || processes_with(&socket).is_empty()).await;
}

#[tokio::test]
async fn the_flag_decides_where_both_ways_work() {
    for flag in [true, false] {
        let sshd = Sshd::start();
        let folder = tempfile::tempdir().unwrap();
        let socket = socket(&folder).display().to_string();
        let world = world(&sshd, &format!("unix://{socket}"), |entry| entry.set(FLAG, flag)).await;
        let job = world.enqueue(
            JobBuilder::new("waits")
                .variable("GIT_STRATEGY", "none")
                .script(["echo started", "until test -e /tmp/signal; do sleep 0.1; done"]),
        );
        world.says(&job, "started\n").await;
        let used = processes_with(&format!("docker -H unix://{socket} system dial-stdio"));
        assert_eq!(!used.is_empty(), flag, "{used:?}");
        let names = Engine::shared().belongings(&world.runners[0].token(), job.view().id);
        Engine::shared().docker(&["exec", &names[0], "touch", "/tmp/signal"]);
        world.finished(&job).await.succeeded();
        world.stop().await;
    }
}

#[tokio::test]
async fn an_instance_without_forwarding_and_without_a_client_is_told_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    // Shells and what the manager asks with, but no client of the engine.
    for program in ["sh", "id"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join(program))
            .find(|path| path.exists());
        symlink(found.unwrap(), folder.path().join(program)).unwrap();
    }
    let command =
        format!("ForceCommand PATH={} /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"", folder.path().display());
    let sshd = Sshd::configured(&format!("{FORBIDDING}\n{command}"));
    let world = world(&sshd, &Engine::shared().host(), |entry| entry).await;
    let job = world.enqueue(JobBuilder::new("nowhere").variable("GIT_STRATEGY", "none").script(["true"]));
    let words = ["AllowStreamLocalForwarding", "no `docker` program", "the Docker engine of instance m1"];
    eventually("what is missing is named", || {
        world.log.has_line(&words) || words.iter().all(|word| job.log_text().contains(word))
    })
    .await;
    job.cancel();
    world.finished(&job).await.canceled();
    world.stop().await;
}
