//! Commands: input, output, exit.

use super::*;

#[tokio::test]
async fn exit_codes_arrive_as_they_are() {
    let (_sshd, client) = connected("").await;
    for code in [0, 1, 137] {
        let ended = soon("exec", run(&client, &format!("exit {code}"), "")).await.unwrap();
        assert_eq!(ended.status.unwrap(), ExitStatus::Code(code));
    }
    let missing = soon("exec", run(&client, "no-such-program-anywhere", "")).await.unwrap();
    assert_eq!(missing.status.unwrap().code(), 127);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no-such-program-anywhere"));
}

#[tokio::test]
async fn a_script_on_stdin_runs_to_its_end() {
    let (_sshd, client) = connected("").await;
    let ended = soon(
        "exec",
        run(&client, "bash -s", "read -r line\nhello\necho \"got $line\"; echo oops >&2; exit 3\n"),
    )
    .await
    .unwrap();
    assert_eq!(ended.stdout, "got hello\n");
    assert_eq!(ended.stderr, "oops\n");
    assert_eq!(ended.status.unwrap().code(), 3);
}

#[tokio::test]
async fn a_command_that_a_signal_ends_tells_the_signal() {
    let (_sshd, client) = connected("").await;
    for (name, code) in [("TERM", 143), ("KILL", 137), ("HUP", 129)] {
        let ended = soon("exec", run(&client, &format!("kill -{name} $$; sleep 1000"), "")).await.unwrap();
        let status = ended.status.unwrap();
        assert_eq!((status.code(), status), (code, ExitStatus::Signal(name.into())));
    }
}

#[tokio::test]
async fn ten_mebibytes_survive_the_way_there_and_back() {
    let (_sshd, client) = connected("").await;
    let sent = noise(10 << 20);
    let ended = soon("cat", run(&client, "cat", sent.clone())).await.unwrap();
    assert!(ended.stdout == sent, "10 MiB came back changed");
    assert!(ended.status.unwrap().success());
}

#[tokio::test]
async fn input_can_be_written_while_the_command_runs() {
    let (_sshd, client) = connected("").await;
    let (mut stdin, mut process) =
        client.exec_piped("while read -r line; do echo \"<$line>\"; done").await.unwrap();
    for line in ["one", "two"] {
        stdin.write(format!("{line}\n")).await.unwrap();
        let echoed = soon("echo", process.next()).await.unwrap();
        assert_eq!(echoed, Some(Output::Stdout(format!("<{line}>\n").into())));
    }
    stdin.finish().await.unwrap();
    assert_eq!(soon("end", process.next()).await.unwrap(), None);
    assert!(soon("status", process.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_command_that_does_not_read_its_input_ends_all_the_same() {
    let (_sshd, client) = connected("").await;
    let ended = soon("exit", run(&client, "exit 4", noise(16 << 20))).await.unwrap();
    assert_eq!(ended.status.unwrap().code(), 4);
}

#[tokio::test]
async fn stdout_and_stderr_stay_apart() {
    let (_sshd, client) = connected("").await;
    let script = "for i in $(seq 2000); do echo out; echo err >&2; done";
    let ended = soon("exec", run(&client, "bash -s", script)).await.unwrap();
    assert_eq!(ended.stdout, "out\n".repeat(2000));
    assert_eq!(ended.stderr, "err\n".repeat(2000));
}

#[tokio::test]
async fn a_dropped_process_gives_its_session_back() {
    let (_sshd, client) = connected("MaxSessions 1").await;
    // More often than all connections together have sessions.
    for _ in 0..20 {
        drop(soon("exec", client.exec_piped("cat")).await.unwrap());
    }
    assert!(soon("exec", run(&client, "true", "")).await.unwrap().status.unwrap().success());
}

#[tokio::test]
async fn a_closed_client_fails_what_is_pending_as_closed() {
    let (_sshd, client) = connected("").await;
    let mut process = client.exec("sleep 1000", Bytes::new()).await.unwrap();
    client.close().await;
    assert!(matches!(soon("next", process.next()).await, Err(ConnectionError::Closed { .. })));
    assert!(matches!(soon("wait", process.wait()).await, Err(ConnectionError::Closed { .. })));
    assert!(client.is_closed());
    assert!(matches!(
        soon("exec", client.exec("true", Bytes::new())).await,
        Err(ConnectionError::Closed { .. })
    ));
}

#[tokio::test]
async fn a_login_that_may_run_nothing_is_a_refusal() {
    let (_sshd, client) = connected("MaxSessions 0").await;
    let refused = soon("exec", client.exec("true", Bytes::new())).await.map(drop);
    assert!(matches!(refused, Err(ConnectionError::SessionRefused { .. })), "{refused:?}");
}

/// Bytes without a pattern that a faulty transfer could hide in; the same for each run.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    bytes.flatten().take(length).collect::<Vec<u8>>().into()
}
