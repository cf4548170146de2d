//! Much output, and readers that lag. The memory is that of this process, so these tests look at one channel's share of it.

use sha2::Digest as _;

use super::*;

/// How often a process that cannot be waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Looks in a row at which a command has to be at rest to count as blocked.
const LOOKS_AT_REST: u32 = 20;

/// Kibibytes of memory that this process uses.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that the remote command says, on a file, it has written so far.
fn progress(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// A command that writes one mebibyte after the other to stdout and notes each in `path`.
fn writer(path: &std::path::Path, mebibytes: u32) -> String {
    format!("for i in $(seq {mebibytes}); do head -c 1048576 /dev/zero; printf x >> {}; done", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_arrive_complete_and_in_order() {
    let (_sshd, client) = connected("").await;
    let mut process = client.exec("seq 1 9000000", Bytes::new()).await.unwrap();
    let (mut hash, mut length) = (sha2::Sha256::new(), 0);
    while let Some(output) = soon("output", process.next()).await.unwrap() {
        hash.update(output.bytes());
        length += output.bytes().len();
    }
    let mut expected = sha2::Sha256::new();
    for number in 1..=9_000_000 {
        expected.update(format!("{number}\n"));
    }
    assert!(length > 64 << 20);
    assert_eq!(hash.finalize(), expected.finalize());
    assert!(process.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_on_its_connection_an_unread_command_blocks() {
    let (sshd, client) = connected("").await;
    let notes = sshd.path("notes");
    let mut process = client.exec(&writer(&notes, 64), Bytes::new()).await.unwrap();
    let mut received = soon("output", process.next()).await.unwrap().unwrap().bytes().len();

    // It gets as far as the window and the buffers on the way let it, and no further: it and its server have nothing to do.
    let (mut before, mut at_rest) = (0, 0);
    soon("blocking", async {
        while at_rest < LOOKS_AT_REST && before < 64 {
            tokio::time::sleep(LOOK).await;
            let written = progress(&notes);
            at_rest = if written == before && sshd.is_idle() { at_rest + 1 } else { 0 };
            before = written;
        }
    })
    .await;
    assert!(before < 40, "{before} MiB of 64 were written although nobody read");

    // Then it goes on from there, and nothing is missing.
    while let Some(output) = soon("output", process.next()).await.unwrap() {
        received += output.bytes().len();
    }
    assert_eq!(received, 64 << 20);
    assert!(process.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_gibibyte_neither_grows_memory_nor_stops_the_others() {
    let (_sshd, client) = connected("").await;
    let mut unread = client.exec("head -c 1073741824 /dev/zero; echo end", Bytes::new()).await.unwrap();
    let memory = resident();

    // Commands, tunnels and signals of others pass while the gibibyte waits.
    for round in 0..20 {
        let ended = soon("exec beside", run(&client, "cat", format!("{round}"))).await.unwrap();
        assert_eq!(ended.stdout, format!("{round}"));
    }
    let beside = client.exec("sleep 1000", Bytes::new()).await.unwrap();
    let mut received = soon("output", unread.next()).await.unwrap().unwrap().bytes().len();
    // The rest arrives, through the file, while another channel is in use.
    let mut peak = 0;
    while let Some(output) = soon("output", unread.next()).await.unwrap() {
        received += output.bytes().len();
        if received % 1024 == 0 {
            peak = peak.max(resident());
        }
    }
    drop(beside);
    assert_eq!(received, (1 << 30) + 4);
    assert!(unread.wait().await.unwrap().success());
    // The limit per channel is 1 MiB; other tests run beside this one.
    assert!(peak < memory + 96 * 1024, "memory grew from {memory} KiB to {peak} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_command_that_is_dropped_does_not_hold_up_the_next_one() {
    let (_sshd, client) = connected("").await;
    let endless = client.exec("exec yes", Bytes::new()).await.unwrap();
    drop(endless);
    assert!(soon("exec", run(&client, "true", "")).await.unwrap().status.unwrap().success());
}

#[tokio::test]
async fn output_beyond_the_limit_fails_only_the_command_that_is_not_read() {
    let sshd = Sshd::start("");
    let options = DialOptions { unread_limit: 8 << 20, ..DialOptions::default() };
    let client = dial(&sshd.info(), &options, &mut |_| {}).await.unwrap();
    let beside = client.exec_piped("cat").await.unwrap();
    let mut unread = client.exec("exec yes", Bytes::new()).await.unwrap();

    let error = soon("limit", async {
        // Not read until the limit is passed: each round trip of the other command lets more of it arrive.
        for _ in 0..2000 {
            run(&client, "true", "").await.unwrap();
            if !unread.is_open() {
                break;
            }
        }
        loop {
            match unread.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ended in order"),
                Err(error) => return error,
            }
        }
    })
    .await;

    assert_eq!(error.to_string(), "output of instance `i-1` was not read: more than 8388608 bytes waited");
    drop(beside);
    drop(unread);
    assert!(soon("exec", run(&client, "true", "")).await.unwrap().status.unwrap().success());
}
