//! How fast bytes get from a process into the spool: each step alone, and the whole.
//!
//! `cargo bench -p drover-trace`. The numbers are MiB of the job's own output per second on one core, the best of several
//! runs; the goal for the whole, in writes of 32 KiB, is 250 MiB/s and 250 ms of CPU.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its result and has no one to report to"
)]

use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use chrono::Utc;
use drover_trace::{CompiledMasks, JobLog, LogOptions, MaskRules};
use job::log::{Channel, LogStream, Masker, Timestamper, Utf8Repair};

const MIB: usize = 1024 * 1024;
const TOTAL: usize = 100 * MIB;
/// As much as one read from an SSH channel gives.
const CHUNK: usize = 32 * 1024;

fn main() {
    let text = text();
    println!("{} lines of 100 bytes, {} MiB in writes of {} KiB", TOTAL / 100, TOTAL / MIB, CHUNK / 1024);
    let nothing = || MaskRules { token_prefixes: Vec::new(), url_parameters: false, ..MaskRules::default() };
    for (name, rules) in [
        ("mask URL parameters", MaskRules { url_parameters: true, ..nothing() }),
        ("mask tokens", MaskRules { url_parameters: false, ..MaskRules::default() }),
        ("mask 4 phrases", MaskRules { phrases: rules(4).phrases, ..nothing() }),
    ] {
        measure(name, |out| run_masker(Masker::new(&rules), &text, out));
    }
    for phrases in [0, 4, 30, 300] {
        let masks = CompiledMasks::new(&rules(phrases));
        measure(&format!("mask all, {phrases} phrases"), |out| run_masker(masks.masker(), &text, out));
    }
    measure("repair UTF-8", |out| {
        let mut stage = Utf8Repair::default();
        for chunk in chunks(&text) {
            out.clear();
            stage.push(chunk, out);
        }
    });
    measure("stamp", |out| {
        let mut stage = Timestamper::new(1, Channel::Out);
        for chunk in chunks(&text) {
            out.clear();
            stage.push(Utc::now(), chunk, out);
        }
    });
    let masks = CompiledMasks::new(&rules(4));
    measure("mask + repair + stamp", |out| {
        let mut stage = LogStream::new(masks.masker(), Some(Timestamper::new(1, Channel::Out)));
        for chunk in chunks(&text) {
            out.clear();
            stage.push(Utc::now(), chunk, out);
        }
    });
    measure("CRC-32", |_| {
        let mut checksum = crc32fast::Hasher::new();
        chunks(&text).for_each(|chunk| checksum.update(chunk));
        black_box(checksum.finalize());
    });
    measure("write to a file", |_| {
        let file = tempfile::tempfile().unwrap();
        for (n, chunk) in chunks(&text).enumerate() {
            file.write_all_at(chunk, (n * CHUNK) as u64).unwrap();
        }
    });
    for (name, size) in [
        ("whole, writes of 32 KiB", CHUNK),
        ("whole, writes of 4 KiB", 4096),
        ("whole, a write per line", 100),
    ] {
        measure(name, |_| whole(&masks, &text, size));
    }
    let line = vec![b'x'; CHUNK];
    measure("whole, one line of 100 MiB", |_| whole(&masks, &line, CHUNK));
}

fn whole(masks: &CompiledMasks, text: &[u8], size: usize) {
    let log =
        JobLog::new(LogOptions { masks: masks.clone(), output_limit: 1024 * 1024, ..LogOptions::default() });
    let mut stdout = log.stdout();
    let mut left = TOTAL;
    while left > 0 {
        for chunk in text.chunks(size).take(left.div_ceil(size)) {
            stdout.write(chunk);
            left = left.saturating_sub(chunk.len());
        }
    }
    drop(stdout);
    assert!(log.written() > TOTAL as u64);
}

fn run_masker(mut masker: Masker, text: &[u8], out: &mut Vec<u8>) {
    for chunk in chunks(text) {
        out.clear();
        masker.push(chunk, out);
    }
}

/// The same text over and over, cut at the same places.
fn chunks(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::repeat_with(|| text.chunks(CHUNK)).flatten().take(TOTAL / CHUNK)
}

fn measure(name: &str, mut work: impl FnMut(&mut Vec<u8>)) {
    let mut out = Vec::new();
    let (mut best, mut cpu) = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        let (begun, used) = (Instant::now(), cpu_time());
        work(&mut out);
        best = best.min(begun.elapsed());
        cpu = cpu.min(cpu_time() - used);
    }
    let rate = (TOTAL / MIB) as f64 / best.as_secs_f64();
    println!("{name:32} {rate:8.0} MiB/s   {:5.0} ms CPU per 100 MiB", cpu.as_secs_f64() * 1000.0);
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

fn rules(phrases: usize) -> MaskRules {
    let phrases = (0..phrases).map(|n| format!("{:x}secret{n}", n * 7_919_777 + 0x9e37_79b9)).collect();
    MaskRules { phrases, ..MaskRules::default() }
}

/// 8 MiB of something like a build: words, paths, numbers, some UTF-8, lines of 100 bytes.
fn text() -> Vec<u8> {
    let words = [
        "Compiling",
        "error",
        "warning:",
        "crates/job/src/log/mod.rs",
        "0x7f3a",
        "gcc",
        "-O2",
        "glob",
        "test",
        "ok",
        "https://example.com/a?b=c&d=e",
        "[12/345]",
        "naïve",
        "done",
        "target/release/deps",
        "v1.2.3",
    ];
    let mut text = String::with_capacity(8 * MIB + 128);
    let mut line = String::new();
    let mut state = 1_u64;
    while text.len() < 8 * MIB {
        line.clear();
        while line.len() < 99 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            line.push_str(words[(state >> 60) as usize]);
            line.push(' ');
        }
        line.truncate(line.floor_char_boundary(99));
        text.push_str(&line);
        text.extend(std::iter::repeat_n('.', 99 - line.len()));
        text.push('\n');
    }
    text.into_bytes()
}
