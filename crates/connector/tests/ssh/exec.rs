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
    let ended = soon("exec", run(&client, "bash -s", "read -r line\nhello\necho \"got $line\"; echo oops >&2; exit 3\n"))
        .await
        .unwrap();
    assert_eq!(ended.stdout, "got hello\n");
    assert_eq!(ended.stderr, "oops\n");
    assert_eq!(ended.status.unwrap().code(), 3);
}
