//! The socket of living, dead and several managers.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;

use drover_tests::{Program, bin, within};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::watched::{Watched, explain, fleet, shown};

const TOKEN: &str = "glrt-fleet-0123456789abcdef";

fn run(world: &Watched) -> Program {
    let config = world.config().display().to_string();
    Program::start("drover", &["run", "--config", &config], world.drover.folder())
}

async fn no_manager(config: &Path) {
    let output = explain(config, &[]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{error}");
    let first = format!("error: no manager answers on `{}.sock`\n", config.display());
    assert!(error.starts_with(&first) && error.contains("hint: start it with `drover run`"), "{error}");
}

#[tokio::test]
async fn without_a_manager_the_answer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    no_manager(&folder.path().join("config.toml")).await;
}

#[tokio::test]
async fn the_socket_of_a_killed_manager_is_replaced_by_the_next_one() {
    let mut world = Watched::start(shown(fleet()), TOKEN).await;
    world.drover.kill().await;
    let socket = world.drover.folder().join("config.toml.sock");
    assert!(socket.exists());
    no_manager(&world.config()).await;

    world.drover.program = run(&world);
    world.drover.program.says(&["`drover explain` is answered"]).await;
    assert_eq!(world.document().await.manager.pid, world.drover.program.pid().unsigned_abs());
    let found = std::fs::metadata(&socket).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.uid()), (0o600, nix::unistd::geteuid().as_raw()));
    world.stop().await;
}

#[tokio::test]
async fn of_two_managers_with_one_socket_the_first_one_keeps_it() {
    let world = Watched::start(shown(fleet()), TOKEN).await;
    let mut second = run(&world);
    second.says(&["another manager answers on", "config.toml.sock"]).await;
    assert_eq!(world.document().await.manager.pid, world.drover.program.pid().unsigned_abs());
    second.signal(Signal::SIGQUIT);
    world.runner.tick();
    assert_eq!(second.ends().await, Some(0));
    assert_eq!(world.document().await.manager.pid, world.drover.program.pid().unsigned_abs());
    world.stop().await;
}

#[tokio::test]
async fn the_socket_can_be_elsewhere_or_nowhere() {
    let world = Watched::start(shown(fleet()).set("status.socket", "run.sock"), TOKEN).await;
    assert!(world.drover.folder().join("run.sock").exists());
    assert_eq!(world.document().await.runners.len(), 1);
    world.stop().await;

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[status]\nsocket = \"none\"\n").unwrap();
    let output = explain(&config, &[]).await;
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("so the manager has no socket"), "{error}");
}

#[tokio::test]
async fn endless_and_strange_requests_are_hung_up_on() {
    let world = Watched::start(shown(fleet()), TOKEN).await;
    let socket = world.drover.folder().join("config.toml.sock");
    for request in [&b"status 2\n"[..], b"\n", &[b'x'; 1000]] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // It may be hung up on before all is written.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = within("the conversation ends", stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    // Those who say nothing keep nobody else from asking.
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(UnixStream::connect(&socket).await.unwrap());
    }
    assert_eq!(world.document().await.runners.len(), 1);
    drop(silent);
    world.stop().await;
}

/// Needs root, as only root can become somebody else; `cargo xtask ci` is root.
#[tokio::test]
async fn another_user_is_not_answered_even_where_the_mode_lets_him() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = Watched::start(shown(fleet()), TOKEN).await;
    let socket = world.drover.folder().join("config.toml.sock");
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(world.drover.folder(), 0o755);
    open(&socket, 0o666);
    // A copy, because the folders above the program may be closed to others.
    let program = world.drover.folder().join("drover");
    std::fs::copy(bin("drover"), &program).unwrap();
    open(&program, 0o755);
    let running = tokio::process::Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .args(["explain", "--socket"])
        .arg(&socket)
        .env_clear()
        .stdin(Stdio::null())
        .output();
    let output = within("drover explain ends", running).await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{error}");
    assert!(error.contains("answers only its own user and root"), "{error}");
    world.stop().await;
}
