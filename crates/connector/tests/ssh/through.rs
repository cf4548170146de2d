//! Dialling a machine that only an instance can reach.

use drover_connector::DialError;

use super::*;

fn through(host: &Client) -> DialOptions {
    DialOptions { through: Some(host.clone()), ..DialOptions::default() }
}

#[tokio::test]
async fn a_machine_inside_an_instance_runs_commands_and_has_tunnels_of_its_own() {
    let (_host, outer) = connected("").await;
    let inside = Sshd::start("");
    let inner = soon("dial", dial(&inside.info(), &through(&outer), &mut |_| {})).await.unwrap();
    let ended = run(&inner, "echo $SSH_CONNECTION; cat", "much ".repeat(100_000)).await.unwrap();
    assert!(ended.status.unwrap().success());
    let said = String::from_utf8(ended.stdout.to_vec()).unwrap();
    assert!(said.ends_with(&"much ".repeat(100_000)), "{} bytes", said.len());
    // More sessions than one connection has are opened the same way.
    let many = (0..12).map(|_| run(&inner, "sleep 0.2; echo in", ""));
    for ended in soon("commands", futures_util::future::join_all(many)).await {
        assert_eq!(ended.unwrap().stdout, "in\n");
    }
    assert!(inner.connections() > 1);

    let error = inner.connect_tcp("127.0.0.1", 1).await.unwrap_err();
    assert!(matches!(error, ConnectionError::TunnelRefused { .. }), "{error}");
    // It holds the connection that it runs over.
    drop(outer);
    assert_eq!(run(&inner, "echo still", "").await.unwrap().stdout, "still\n");
}

#[tokio::test]
async fn a_machine_that_boots_is_waited_for() {
    let (_host, outer) = connected("").await;
    let mut inside = Sshd::prepare("");
    let info = inside.info();
    let mut refused = 0;
    let client = soon(
        "dial",
        dial(&info, &through(&outer), &mut |attempt| {
            assert!(matches!(attempt.error, DialError::Through { .. }), "{}", attempt.error);
            refused += 1;
            if refused == 2 {
                inside.launch();
            }
        }),
    )
    .await
    .unwrap();
    assert_eq!(run(&client, "echo in", "").await.unwrap().stdout, "in\n");
    assert!(refused >= 2);
}

#[tokio::test]
async fn it_is_lost_with_the_instance_and_not_dialled_any_more() {
    let (mut host, outer) = connected("").await;
    let inside = Sshd::start("");
    let inner = soon("dial", dial(&inside.info(), &through(&outer), &mut |_| {})).await.unwrap();
    host.stop();
    assert!(matches!(soon("loss", inner.closed()).await, ConnectionError::Lost { .. }));
    assert!(outer.is_closed());
    let error = soon("dial", dial(&inside.info(), &through(&outer), &mut |_| {})).await.unwrap_err();
    assert!(matches!(&error, DialError::Through { source: ConnectionError::Lost { .. }, .. }), "{error:?}");
}

#[tokio::test]
async fn an_instance_that_forwards_nothing_is_not_asked_again() {
    let (_host, outer) = connected("AllowTcpForwarding no").await;
    let inside = Sshd::start("");
    let error = soon("dial", dial(&inside.info(), &through(&outer), &mut |_| {})).await.unwrap_err();
    let DialError::Through { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("administratively prohibited"), "{source}");
}
