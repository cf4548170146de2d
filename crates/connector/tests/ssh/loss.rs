//! Connections that break or freeze.

use nix::sys::signal::Signal;

use super::*;

fn assert_lost(error: &ConnectionError) {
    let ConnectionError::Lost { instance, .. } = error else { panic!("not lost: {error:?}") };
    assert_eq!(&**instance, "i-1");
}

#[tokio::test]
async fn a_server_that_dies_fails_everything_pending() {
    let (mut sshd, client) = connected("").await;
    let mut process = client.exec("echo before; sleep 1000", Bytes::new()).await.unwrap();
    let mut other = client.exec("sleep 1000", Bytes::new()).await.unwrap();
    assert_eq!(soon("output", process.next()).await.unwrap(), Some(Output::Stdout("before\n".into())));

    sshd.stop();

    assert_lost(&soon("next", process.next()).await.unwrap_err());
    assert_lost(&soon("wait", process.wait()).await.unwrap_err());
    assert_lost(&soon("other", other.next()).await.unwrap_err());
    assert_lost(&soon("closed", client.closed()).await);
    assert!(client.is_closed());
    assert_lost(&soon("exec", client.exec("true", Bytes::new())).await.map(drop).unwrap_err());
    assert_lost(&soon("tunnel", client.connect_tcp("127.0.0.1", 1)).await.map(drop).unwrap_err());
}

#[tokio::test]
async fn a_frozen_server_is_noticed_within_five_keepalives() {
    let sshd = Sshd::start("");
    let mut info = sshd.info();
    // Long enough that a busy machine is not taken for a frozen server before it is one.
    info.settings.keepalive = Some(Duration::from_millis(500));
    let client = dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap();
    let mut process = client.exec("echo up; sleep 1000", Bytes::new()).await.unwrap();
    soon("output", process.next()).await.unwrap();

    sshd.signal_children(Signal::SIGSTOP);
    let frozen = std::time::Instant::now();
    let error = soon("next", process.next()).await.unwrap_err();

    assert_eq!(error.to_string(), "connection to instance `i-1` lost: no answer to 4 keepalives");
    // Five intervals, and generous time for a loaded machine.
    assert!(frozen.elapsed() < Duration::from_secs(30), "{:?}", frozen.elapsed());
}

#[tokio::test]
async fn a_server_that_freezes_while_much_is_sent_to_it_is_noticed() {
    let sshd = Sshd::start("");
    let mut info = sshd.info();
    info.settings.keepalive = Some(Duration::from_millis(500));
    let client = dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap();
    let (mut stdin, mut process) = client.exec_piped("echo up; cat > /dev/null").await.unwrap();
    soon("output", process.next()).await.unwrap();

    sshd.signal_children(Signal::SIGSTOP);
    let block = Bytes::from(vec![0; 1 << 20]);
    let error = soon("write", async {
        loop {
            if let Err(error) = stdin.write(block.clone()).await {
                return error;
            }
        }
    })
    .await;

    assert_lost(&error);
    assert_lost(&soon("next", process.next()).await.unwrap_err());
}

#[tokio::test]
async fn a_quiet_server_that_answers_keepalives_is_not_lost() {
    let sshd = Sshd::start("");
    let mut info = sshd.info();
    info.settings.keepalive = Some(Duration::from_millis(500));
    let client = dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap();
    let ended = soon("exec", run(&client, "sleep 4; echo still here", "")).await.unwrap();
    assert_eq!(ended.stdout, "still here\n");
}
