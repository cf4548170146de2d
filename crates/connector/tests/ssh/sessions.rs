//! Many commands: limits of the server, spare sessions, round trips.

use std::time::Instant;

use super::*;
use crate::relay::Relay;

/// Until one is as fast as it should be: on a busy machine few are.
const TRIES: u32 = 50;

#[tokio::test]
async fn ten_jobs_share_a_server_that_allows_two_sessions_per_connection() {
    let (sshd, client) = connected("MaxSessions 2").await;
    let gate = sshd.path("gate");
    // All ten run at the same time, or the gate stays shut.
    let script = format!(
        "echo >> {0}; while [ \"$(wc -l < {0})\" -lt 10 ]; do sleep 0.05; done; echo through",
        gate.display()
    );
    let jobs = (0..10).map(|_| {
        let (client, script) = (client.clone(), script.clone());
        tokio::spawn(async move { run(&client, &script, "").await.unwrap() })
    });
    for job in jobs.collect::<Vec<_>>() {
        let ended = soon("job", job).await.unwrap();
        assert_eq!(ended.stdout, "through\n");
        assert!(ended.status.unwrap().success());
    }
    assert_eq!(client.connections(), 5);

    // The limit is remembered: the next ten need no further connection.
    std::fs::remove_file(&gate).unwrap();
    let jobs = (0..10).map(|_| {
        let (client, script) = (client.clone(), script.clone());
        tokio::spawn(async move { run(&client, &script, "").await.unwrap() })
    });
    for job in jobs.collect::<Vec<_>>() {
        assert_eq!(soon("job", job).await.unwrap().stdout, "through\n");
    }
    assert_eq!(client.connections(), 5);
}

#[tokio::test]
async fn commands_beyond_all_connections_wait_for_a_session() {
    let (_sshd, client) = connected("MaxSessions 1").await;
    let jobs = (0..12).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { run(&client, "sleep 0.2; echo done", "").await.unwrap() })
    });
    for job in jobs.collect::<Vec<_>>() {
        assert_eq!(soon("job", job).await.unwrap().stdout, "done\n");
    }
    assert!(client.connections() <= 8);
}

#[tokio::test]
async fn many_short_commands_in_a_row_stay_on_one_connection() {
    let (_sshd, client) = connected("MaxSessions 2").await;
    for round in 0..30 {
        let ended = soon("exec", run(&client, "cat", format!("{round}"))).await.unwrap();
        assert_eq!(ended.stdout, format!("{round}"));
    }
    assert_eq!(client.connections(), 1);
}

#[tokio::test]
async fn a_command_on_a_warm_client_takes_one_round_trip_and_its_input_another() {
    let sshd = Sshd::start("");
    let relay = Relay::start(sshd.port(), Duration::from_millis(50)).await;
    let mut info = sshd.info();
    info.internal_addr = Some(relay.address());
    let client = soon("dial", dial(&info, &DialOptions::default(), &mut |_| {})).await.unwrap();

    // A round trip is 100 ms. OpenSSH allows no input before the command has started.
    for (stdin, round_trips) in [("", 1), ("hello", 2)] {
        let least = Duration::from_millis(100) * round_trips;
        let most = least + Duration::from_millis(95);
        let mut best = Duration::MAX;
        for _ in 0..TRIES {
            // The spare session is there again a round trip after the command before.
            relay.quiet().await;
            let started = Instant::now();
            let ended = soon("exec", run(&client, "cat", stdin)).await.unwrap();
            assert_eq!(ended.stdout, stdin);
            best = best.min(started.elapsed());
            if best < most {
                break;
            }
        }
        assert!(best >= least && best < most, "{best:?} for {round_trips} round trips");
    }
}

#[tokio::test]
async fn a_prepared_command_takes_one_round_trip_with_its_input() {
    let sshd = Sshd::start("");
    let relay = Relay::start(sshd.port(), Duration::from_millis(50)).await;
    let mut info = sshd.info();
    info.internal_addr = Some(relay.address());
    let client = soon("dial", dial(&info, &DialOptions::default(), &mut |_| {})).await.unwrap();

    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let prepared = soon("prepare", client.prepare("cat")).await.unwrap();
        relay.quiet().await;
        let started = Instant::now();
        let process = soon("start", prepared.start("hello".into())).await.unwrap();
        let ended = soon("end", finish(process)).await.unwrap();
        assert_eq!((&ended.stdout[..], ended.status.unwrap().code()), (&b"hello"[..], 0));
        best = best.min(started.elapsed());
        if best < Duration::from_millis(195) {
            break;
        }
    }
    assert!(best >= Duration::from_millis(100) && best < Duration::from_millis(195), "{best:?}");
}

#[tokio::test]
async fn a_prepared_command_that_ends_early_says_so_and_a_dropped_one_ends() {
    let (sshd, client) = connected("").await;
    let early = client.prepare("true").await.unwrap();
    soon("end", async {
        while early.is_open() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    let left = sshd.path("left");
    let waiting = client.prepare(&format!("cat; echo > {}", left.display())).await.unwrap();
    assert!(waiting.is_open());
    drop(waiting);
    soon("end", async {
        while !left.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_input_reaches_a_prepared_command_whole() {
    let (_sshd, client) = connected("").await;
    let sent = Bytes::from(vec![b'x'; 5 << 20]);
    let process = client.prepare("cat").await.unwrap().start(sent.clone()).await.unwrap();
    let ended = soon("cat", finish(process)).await.unwrap();
    assert!(ended.stdout == sent, "5 MiB came back changed");
}

#[tokio::test]
async fn a_dropped_exec_leaves_nothing_behind() {
    let (_sshd, client) = connected("MaxSessions 1").await;
    let holder = client.exec_piped("cat").await.unwrap();
    // Waits for a session or opens a connection; dropped in the middle.
    for _ in 0..5 {
        tokio::select! {
            biased;
            _ = client.exec("sleep 1000", Bytes::new()) => {}
            () = tokio::task::yield_now() => {}
        }
    }
    drop(holder);
    let ended = soon("exec", run(&client, "echo free", "")).await.unwrap();
    assert_eq!(ended.stdout, "free\n");
}
