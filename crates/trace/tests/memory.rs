//! Memory of a log does not grow with what the job prints. Alone in its process, because it looks at the process.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drover_trace::{
    Delivery, JobLog, JobResult, LogOptions, PatchOutcome, PatchReply, RemoteJob, TraceApi, Update,
    UpdateOutcome, UpdateReply, UploadOptions, Uploader,
};

const MIB: usize = 1024 * 1024;

/// Counts and checks, keeps nothing. Slow, so that the spool runs far ahead of it.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    len: u64,
    checksum: crc32fast::Hasher,
    states: BTreeMap<String, u32>,
}

impl TraceApi for Sink {
    async fn patch(&self, offset: u64, bytes: Bytes) -> PatchReply {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut held = self.0.lock().unwrap();
        assert_eq!(offset, held.len);
        assert!(bytes.len() <= MIB);
        held.len += bytes.len() as u64;
        held.checksum.update(&bytes);
        PatchReply { outcome: PatchOutcome::Accepted, remote: RemoteJob::Running, interval: None }
    }

    async fn update(&self, update: Update) -> UpdateReply {
        let mut held = self.0.lock().unwrap();
        let checksum = format!("crc32:{:08x}", held.checksum.clone().finalize());
        assert_eq!((update.bytesize, update.checksum), (held.len, checksum));
        *held.states.entry(format!("{:?}", update.state)).or_default() += 1;
        UpdateReply { outcome: UpdateOutcome::Done, remote: RemoteJob::Running, interval: None }
    }
}

#[tokio::test]
async fn a_hundred_mebibytes_in_lines_and_fifty_in_one_line_pass_in_bounded_memory() {
    let sink = Sink::default();
    let options = LogOptions { output_limit: 1024 * 1024, ..LogOptions::default() };
    let log = JobLog::new(options);
    let uploader = Uploader::start(
        log.clone(),
        sink.clone(),
        UploadOptions { interval: Duration::from_millis(20), ..UploadOptions::default() },
    );
    let mut stdout = log.stdout();
    let lines = format!("{}\n", "x".repeat(99)).repeat(10_000);
    stdout.write(lines.as_bytes());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = resident();
    let mut most = before;
    for _ in 0..104 {
        stdout.write(lines.as_bytes());
        most = most.max(resident());
        tokio::task::yield_now().await;
    }
    let stuff = vec![b'y'; 512 * 1024];
    for _ in 0..100 {
        stdout.write(&stuff);
        most = most.max(resident());
        tokio::task::yield_now().await;
    }
    drop(stdout);
    let written = log.written();
    assert!(written > 150 * MIB as u64);
    assert_eq!(uploader.finish(JobResult::Success).await.unwrap(), Delivery::Accepted);
    most = most.max(resident());
    assert!(most - before < 12 * MIB, "grew by {} KiB", (most - before) / 1024);
    let held = sink.0.lock().unwrap();
    assert_eq!(held.len, written);
    assert_eq!(held.states["Success"], 1);
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}
