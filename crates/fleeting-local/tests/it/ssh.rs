//! The SSH server of an instance, seen by clients.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Client, Outcome, PATIENCE, World, eventually, finish, first_line, is_alive};
use fleeting::{ConnectorSettings, ExposeSecret, InstanceGroup};
use russh::{ChannelMsg, Sig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn ok(stdout: &str) -> Outcome {
    Outcome { stdout: stdout.to_owned(), code: Some(0), ..Outcome::default() }
}

#[tokio::test]
async fn commands_get_their_input_and_give_output_and_exit_code() {
    let world = World::with(1).await;
    let client = world.client().await;

    assert_eq!(client.run("cat", "hello").await, ok("hello"));
    assert_eq!(
        client.run("sh", "echo out; echo err >&2; exit 7").await,
        Outcome { stdout: "out\n".into(), stderr: "err\n".into(), code: Some(7), signal: None }
    );
    assert_eq!(client.run("exit 3", "").await.code, Some(3));
    assert_eq!(client.run("echo \"a  b\" | tr a-z A-Z", "").await, ok("A  B\n"));
    assert_eq!(client.run("kill -KILL $$", "").await.signal.as_deref(), Some("KILL"));
    let missing = client.run("no-such-program x", "").await;
    assert_eq!(missing.code, Some(127));
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
}

#[tokio::test]
async fn commands_run_in_the_directory_of_the_instance_with_a_clean_environment() {
    let world = World::with(1).await;
    let dir = world.instance_dir().to_str().unwrap().to_owned();
    let client = world.client().await;

    let environment = client.run("env", "").await.stdout;
    let mut names: Vec<_> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    let expected =
        ["DROVER_LOCAL_INSTANCE", "HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TMPDIR", "USER"];
    assert_eq!(names, expected);
    assert_eq!(
        client.run("pwd; echo $HOME; echo $TMPDIR", "").await,
        ok(&format!("{dir}\n{dir}\n{dir}/tmp\n"))
    );
    assert_eq!(client.run("mktemp", "").await.code, Some(0));
}

#[tokio::test]
async fn the_real_ssh_program_can_use_an_instance() {
    let world = World::with(1).await;
    let info = world.group.connect_info(&world.ids[0]).await.unwrap();
    let key = world.dir.path().join("key");
    std::fs::write(&key, info.settings.key_pem.as_ref().unwrap().expose_secret()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let target = info.target(false).unwrap();

    let output = tokio::task::spawn_blocking(move || {
        Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "IdentitiesOnly=yes",
            ])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-i"])
            .arg(key)
            .args(["-p", &target.port.to_string(), "-l", &info.settings.username.unwrap(), &target.host])
            .arg("echo from-ssh; cat; exit 5")
            .stdin(Stdio::null())
            .output()
            .expect("openssh-client is installed")
    })
    .await
    .unwrap();

    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"from-ssh\n");
}

#[tokio::test]
async fn only_the_key_of_the_group_may_log_in() {
    let (mine, other) = tokio::join!(World::with(1), World::with(1));
    let mut info = mine.group.connect_info(&mine.ids[0]).await.unwrap();
    let foreign = other.group.connect_info(&other.ids[0]).await.unwrap();

    let right = info.settings.username.replace("root".to_owned());
    assert!(Client::try_connect(&info).await.is_err(), "a foreign name may log in");
    info.settings.username = right;
    info.settings.key_pem = foreign.settings.key_pem;
    assert!(Client::try_connect(&info).await.is_err(), "a foreign key may log in");
    assert_ne!(info.settings.host_key, foreign.settings.host_key, "each instance has a host key of its own");
}

#[tokio::test]
async fn a_configured_key_is_used_when_credentials_are_static() {
    let dir = tempfile::tempdir().unwrap();
    let group = drover_fleeting_local::LocalGroup::new(crate::common::config(dir.path()));
    let settings = ConnectorSettings { use_static_credentials: true, ..ConnectorSettings::default() };
    let error = group.init(&settings).await.unwrap_err().to_string();
    assert!(error.contains("key_path"), "{error}");

    let world = World::with(1).await;
    let key_pem = world.group.connect_info(&world.ids[0]).await.unwrap().settings.key_pem;
    let settings = ConnectorSettings { key_pem: key_pem.clone(), username: Some("ci".into()), ..settings };
    group.init(&settings).await.unwrap();
    group.increase(1).await;
    let id = crate::common::until(&group, "it runs", |listing| {
        listing.iter().find(|(_, state)| *state == fleeting::InstanceState::Running).map(|(id, _)| id.clone())
    })
    .await;
    let info = group.connect_info(&id).await.unwrap();
    assert_eq!(info.settings.key_pem.as_ref().unwrap().expose_secret(), key_pem.unwrap().expose_secret());
    assert_eq!(
        Client::connect(&info).await.run("id -u; echo $USER", "").await.stdout.lines().last(),
        Some("ci")
    );
}

#[tokio::test]
async fn signals_reach_the_whole_process_group() {
    let world = World::with(1).await;
    let client = world.client().await;
    // The child speaks for itself: between its fork and its exec, the trap of its parent would swallow the signal.
    let script = "trap 'echo caught; exit 9' TERM; sh -c 'echo $$; exec sleep 600' & wait";
    let mut channel = client.start(script).await;
    let sleeper: i32 = first_line(&mut channel).await.parse().unwrap();

    channel.signal(Sig::TERM).await.unwrap();

    let outcome = finish(channel).await;
    assert_eq!((outcome.stdout.as_str(), outcome.code), ("caught\n", Some(9)));
    eventually("the child in the background has got the signal as well", || !is_alive(sleeper)).await;
}

#[tokio::test]
async fn closing_the_channel_ends_the_process_group_even_if_it_ignores_term() {
    let world = World::with(1).await;
    let client = world.client().await;
    let mut channel = client.start("trap '' TERM; sleep 600 & echo $! $$; wait").await;
    let line = first_line(&mut channel).await;
    let pids: Vec<i32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();

    channel.close().await.unwrap();

    eventually("both processes are gone", || !pids.iter().any(|pid| is_alive(*pid))).await;
    assert_eq!(client.run("echo alive", "").await, ok("alive\n"), "the connection goes on");
}

#[tokio::test]
async fn a_client_that_disconnects_takes_its_commands_with_it() {
    let world = World::with(1).await;
    let client = world.client().await;
    let mut channel = client.start("echo $$; sleep 600").await;
    let pid: i32 = first_line(&mut channel).await.parse().unwrap();

    drop(channel);
    drop(client);

    eventually("the command is gone", || !is_alive(pid)).await;
}

#[tokio::test]
async fn a_process_in_the_background_does_not_hold_up_the_end_of_its_command() {
    let world = World::with(1).await;
    let client = world.client().await;
    // The sleeper inherits the output.
    let outcome = client.run("sh", "echo begun; sleep 600 & echo $!").await;
    assert_eq!(outcome.code, Some(0));
    let pid: i32 = outcome.stdout.lines().last().unwrap().parse().unwrap();
    assert!(is_alive(pid), "it goes on until the instance ends");
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_its_command_down_and_nobody_else() {
    let world = World::with(1).await;
    // The client library stops reading the whole connection for one channel that is not read.
    let (slow, client) = (world.client().await, world.client().await);
    let progress = world.instance_dir().join("written");
    let endless = "i=0; while :; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i > written; done";
    let channel = slow.start(endless).await;
    let written = || std::fs::read_to_string(&progress).ok().and_then(|text| text.trim().parse::<u32>().ok());
    eventually("output is produced", || written().is_some()).await;

    // The other commands take longer than the writer would need to go on if it could.
    let mut before = None;
    while written() != before {
        before = written();
        for _ in 0..20 {
            assert_eq!(client.run("sh", "echo alive").await, ok("alive\n"));
        }
    }
    assert!(before.unwrap() < 32, "{before:?} MiB are too much to keep for a reader that does not come");
    drop(channel);
}

#[tokio::test]
async fn a_command_that_does_not_read_its_input_holds_up_nobody_else() {
    let world = World::with(1).await;
    let client = world.client().await;
    let channel = client.start("sleep 600").await;
    let big = vec![b'x'; 16 << 20];
    tokio::time::timeout(PATIENCE, channel.data_bytes(big)).await.expect("input is taken").unwrap();
    assert_eq!(client.run("echo alive", "").await, ok("alive\n"));
    channel.close().await.unwrap();
}

#[tokio::test]
async fn much_data_passes_unharmed_both_ways() {
    let world = World::with(1).await;
    let client = world.client().await;
    let data: Vec<u8> =
        (0..8 << 20).map(|i: u32| b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26).collect();
    let channel = client.start("cat").await;
    let (mut read, write) = channel.split();
    let expected = data.clone();
    let writer = async {
        write.data_bytes(data).await.unwrap();
        write.eof().await.unwrap();
    };
    let reader = async {
        let mut all = Vec::new();
        while let Some(message) = read.wait().await {
            if let ChannelMsg::Data { data } = message {
                all.extend_from_slice(&data);
            }
        }
        all
    };
    let ((), all) = tokio::time::timeout(PATIENCE, async { tokio::join!(writer, reader) }).await.unwrap();
    assert!(all == expected, "{} bytes came back of {}", all.len(), expected.len());
}

#[tokio::test]
async fn tunnels_lead_to_tcp_ports_and_unix_sockets() {
    let world = World::with(1).await;
    let client = world.client().await;
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let path = world.dir.path().join("socket");
    let unix = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = tcp.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    tokio::spawn(async move {
        let (mut stream, _) = unix.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let tcp =
        client.handle.channel_open_direct_tcpip("127.0.0.1", port.into(), "127.0.0.1", 1).await.unwrap();
    let unix = client.handle.channel_open_direct_streamlocal(path.to_str().unwrap()).await.unwrap();

    for channel in [tcp, unix] {
        let mut stream = channel.into_stream();
        stream.write_all(b"there and back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut back)).await.unwrap().unwrap();
        assert_eq!(back, "there and back");
    }
    let nobody = world.dir.path().join("nobody");
    let refused = client.handle.channel_open_direct_streamlocal(nobody.to_str().unwrap()).await;
    assert!(matches!(
        refused,
        Err(russh::Error::ChannelOpenFailure(russh::ChannelOpenFailure::ConnectFailed))
    ));
}

#[tokio::test]
async fn terminals_and_shells_are_refused_at_once() {
    let world = World::with(1).await;
    let client = world.client().await;
    let mut channel = client.handle.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    for _ in 0..2 {
        let answer = tokio::time::timeout(Duration::from_secs(60), channel.wait()).await.unwrap();
        assert!(matches!(answer, Some(ChannelMsg::Failure)), "{answer:?}");
    }
}
