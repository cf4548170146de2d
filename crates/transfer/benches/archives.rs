//! Archiving and extracting against `zip -1`, `unzip` and `tar --zstd` on the same files in the same run.
//!
//! `cargo bench -p drover-transfer -- [MiB] [files] [rounds]`; 64 MiB in 2,000 files and 3 rounds by default. Each program is its own
//! process, this one included, so that peak memory is that of the job alone. The best round counts; the rounds are interleaved.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench talks and may panic")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser as _;

/// In this variable the bench tells itself to be the helper.
const AS_HELPER: &str = "DROVER_BENCH_AS_HELPER";

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: drover_transfer::Command,
}

struct Contest {
    name: &'static str,
    /// Removed before each round; `None` empties the directory `out`.
    result: Option<&'static str>,
    theirs: Vec<String>,
    ours: Vec<String>,
}

#[derive(Clone, Copy)]
struct Best {
    wall: Duration,
    peak_kib: u64,
    size: u64,
}

fn main() {
    if std::env::var_os(AS_HELPER).is_some() {
        let line = Line::parse();
        std::process::exit(line.command.run(&drover_transfer::Console::stderr()).into());
    }
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (mib, files, rounds) =
        (numbers.next().unwrap_or(64), numbers.next().unwrap_or(2000), numbers.next().unwrap_or(3));
    let directory = tempfile::tempdir().unwrap();
    make_files(&directory.path().join("data"), mib << 20, files);
    println!("{mib} MiB in {files} files, best of {rounds}");
    println!(
        "{:24} {:>9} {:>9} {:>7} {:>10} {:>10} {:>6}",
        "", "theirs s", "ours s", "ratio", "theirs KiB", "ours KiB", "size"
    );
    for contest in contests() {
        let (mut theirs, mut ours) = (None, None);
        for _ in 0..rounds {
            better(&mut theirs, run(directory.path(), &contest, &contest.theirs, false));
            better(&mut ours, run(directory.path(), &contest, &contest.ours, true));
        }
        let (theirs, ours) = (theirs.unwrap(), ours.unwrap());
        println!(
            "{:24} {:9.3} {:9.3} {:7.2} {:10} {:10} {:6.2}",
            contest.name,
            theirs.wall.as_secs_f64(),
            ours.wall.as_secs_f64(),
            theirs.wall.as_secs_f64() / ours.wall.as_secs_f64(),
            theirs.peak_kib,
            ours.peak_kib,
            ours.size as f64 / theirs.size.max(1) as f64,
        );
    }
}

fn contests() -> Vec<Contest> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let archive = |name, theirs: &str, ours: &str, file| Contest {
        name,
        result: Some(file),
        theirs: words(theirs),
        ours: words(ours),
    };
    let extract = |name, theirs: &str, ours: &str| Contest {
        name,
        result: None,
        theirs: words(theirs),
        ours: words(ours),
    };
    vec![
        archive(
            "zip -1, level fast",
            "zip -q -r -1 a.zip data",
            "cache-archiver --file a.zip --path data --compression-level fast",
            "a.zip",
        ),
        archive(
            "zip -1, level default",
            "zip -q -r -1 a.zip data",
            "cache-archiver --file a.zip --path data",
            "a.zip",
        ),
        archive(
            "tar --zstd",
            "tar --zstd -cf a.zst data",
            "cache-archiver --file a.zst --path data --compression-format tarzstd",
            "a.zst",
        ),
        extract("unzip", "unzip -q ../a.zip", "cache-extractor --file ../a.zip"),
        extract("tar --zstd -x", "tar --zstd -xf ../a.zst", "cache-extractor --file ../a.zst"),
    ]
}

/// Runs one side of a contest in a child and measures it.
fn run(directory: &Path, contest: &Contest, words: &[String], helper: bool) -> Best {
    let out = directory.join("out");
    let result = contest.result.map(|file| directory.join(file));
    let at = match &result {
        Some(file) => {
            let _ = fs::remove_file(file);
            directory
        }
        None => {
            let _ = fs::remove_dir_all(&out);
            fs::create_dir(&out).unwrap();
            &out
        }
    };
    // GNU time reports the peak of the process that it starts.
    let report = directory.join("report");
    let mut command = Command::new("/usr/bin/time");
    command.args(["-f", "%M", "-o"]).arg(&report);
    if helper {
        command.arg(std::env::current_exe().unwrap()).env(AS_HELPER, "1");
    }
    let started = Instant::now();
    let status = command.args(words).current_dir(at).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let wall = started.elapsed();
    assert!(status.is_ok_and(|status| status.success()), "{words:?}");
    let peak_kib = fs::read_to_string(report).unwrap().trim().parse().unwrap();
    let size = result.map_or(0, |file: PathBuf| fs::metadata(file).unwrap().size());
    Best { wall, peak_kib, size }
}

fn better(best: &mut Option<Best>, new: Best) {
    let peak_kib = best.map_or(0, |best| best.peak_kib).max(new.peak_kib);
    let wall = best.map_or(new.wall, |best| best.wall.min(new.wall));
    *best = Some(Best { wall, peak_kib, size: new.size });
}

/// Files of one size, in directories of 200; every fourth cannot be compressed, the others are words.
fn make_files(root: &Path, bytes: usize, files: usize) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<Vec<u8>> =
        (0..4000).map(|_| (0..2 + next() % 11).map(|_| b'a' + (next() % 26) as u8).collect()).collect();
    let size = bytes / files;
    for number in 0..files {
        let path = root.join(format!("d{}/f{number}", number / 200));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut content = Vec::with_capacity(size + 16);
        while content.len() < size {
            if number % 4 == 0 {
                content.extend(next().to_le_bytes());
            } else {
                content.extend(&words[(next() % 4000) as usize]);
                content.push(b' ');
            }
        }
        content.truncate(size);
        fs::write(path, content).unwrap();
    }
}
