//! Tunnels to TCP ports and unix sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::ports::free_port;

#[tokio::test]
async fn a_tcp_tunnel_carries_bytes_both_ways_and_both_ends() {
    let (_sshd, client) = connected("").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The target speaks first: its greeting may arrive before the tunnel is handed out.
    let target = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"hello ").await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        stream.write_all(&received).await.unwrap();
    });

    let mut tunnel = soon("tunnel", client.connect_tcp("127.0.0.1", port)).await.unwrap();
    let payload = vec![7; 3 << 20];
    let mut received = Vec::new();
    soon("echo", async {
        tunnel.write_all(&payload).await.unwrap();
        tunnel.shutdown().await.unwrap();
        tunnel.read_to_end(&mut received).await.unwrap();
    })
    .await;

    target.await.unwrap();
    assert_eq!(received[..6], *b"hello ");
    assert!(received[6..] == payload);
}

#[tokio::test]
async fn a_unix_socket_is_reached() {
    let (sshd, client) = connected("").await;
    let path = sshd.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let target = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = [0; 4];
        stream.read_exact(&mut received).await.unwrap();
        stream.write_all(&received).await.unwrap();
    });
    let mut tunnel = soon("tunnel", client.connect_unix(path.to_str().unwrap())).await.unwrap();
    let mut received = String::new();
    soon("echo", async {
        tunnel.write_all(b"ping").await.unwrap();
        tunnel.read_to_string(&mut received).await.unwrap();
    })
    .await;
    target.await.unwrap();
    assert_eq!(received, "ping");
}

#[tokio::test]
async fn a_tunnel_that_leads_nowhere_is_refused() {
    let (sshd, client) = connected("").await;
    let closed = free_port();
    let refused = soon("tunnel", client.connect_tcp("127.0.0.1", closed)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("ssh: rejected: connect failed (tunnel to 127.0.0.1:{closed} on instance `i-1`)")
    );
    let missing = soon("tunnel", client.connect_unix(sshd.path("nothing").to_str().unwrap())).await;
    assert!(matches!(missing, Err(ConnectionError::TunnelRefused { .. })), "{missing:?}");
}

#[tokio::test]
async fn a_forbidden_tunnel_is_refused() {
    let (_sshd, client) = connected("AllowTcpForwarding no").await;
    let refused = soon("tunnel", client.connect_tcp("127.0.0.1", 1)).await.unwrap_err();
    assert!(refused.to_string().starts_with("ssh: rejected: administratively prohibited"), "{refused}");
}

#[tokio::test]
async fn a_lost_connection_is_an_eof_of_the_tunnel() {
    let (mut sshd, client) = connected("").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tunnel = soon("tunnel", client.connect_tcp("127.0.0.1", port)).await.unwrap();

    sshd.stop();

    let error = soon("read", tunnel.read_u8()).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.kind()),
        ("ssh tunnel: EOF", std::io::ErrorKind::ConnectionReset)
    );
    let error = soon("write", tunnel.write_all(b"x")).await.unwrap_err();
    assert_eq!(error.to_string(), "ssh tunnel: EOF");
}

#[tokio::test]
async fn a_dropped_tunnel_closes_its_target() {
    let (_sshd, client) = connected("").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tunnel = soon("tunnel", client.connect_tcp("127.0.0.1", port)).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(tunnel);
    let mut rest = Vec::new();
    soon("end", stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_terminal_shows_what_is_typed_and_runs_it() {
    let (_sshd, client) = connected("").await;
    let mut terminal = soon("terminal", client.terminal("test -t 0 && exec sh -i")).await.unwrap();
    soon("typing", terminal.write_all(b"echo $((40 + 2))x\nexit\n")).await.unwrap();
    let mut shown = Vec::new();
    // The server ends the session with the shell.
    soon("end", terminal.read_to_end(&mut shown)).await.unwrap();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(shown.contains("echo $((40 + 2))x"), "typed text is echoed: {shown:?}");
    assert!(shown.contains("42x\r\n"), "the command ran on a terminal: {shown:?}");
}
