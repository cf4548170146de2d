//! A job log of 100 MiB in lines of 100 bytes, each of which gets its time.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use tokio::process::Command;

use crate::process::{self, Memory};
use crate::scene::{Programs, Scene, Setting};
use crate::statistics::{median, mib};
use crate::table::{Goal, Row};

pub(crate) const LINES: u32 = 1 << 20;
const MEBIBYTES: f64 = 100.0;
/// 99 bytes; `yes` adds the line end.
pub(crate) const LINE: &str =
    "ninety-nine bytes of a log: 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 01234";
/// In KiB: the lines with their times, and room.
pub(crate) const OUTPUT_LIMIT: u64 = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn measure(programs: &Programs, runs: u32) -> anyhow::Result<Vec<Row>> {
    let script = format!("yes '{LINE}' | head -n {LINES}");
    let scene = Scene::start(programs, Setting { output_limit: OUTPUT_LIMIT, ..Setting::new(10) }).await?;
    scene.warm_up(10).await?;
    let (mut read, mut uploaded, mut cpus, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        bare.push(piped(&script).await?.as_secs_f64());
        let before = process::cpu(scene.pid)?;
        let ids = scene.mock.enqueue(1, &script).await?;
        for job in scene.mock.successful(&ids, PATIENCE).await? {
            cpus.push(process::cpu(scene.pid)?.saturating_sub(before).as_secs_f64());
            uploaded.push(job.finished() - job.given());
            read.push(span(&scene.mock.log(job.id).await?)?.as_secs_f64());
        }
    }
    let peak = mib(Memory::of(scene.pid)?.peak);
    scene.stop().await?;
    let (read, uploaded, bare) = (median(read), median(uploaded), median(bare));
    Ok(vec![
        Row::new(
            "100 MiB log: read by the manager, first line to last",
            MEBIBYTES / read,
            "MiB/s",
            Goal::AtLeast(250.0),
            "58-80 MiB/s",
        ),
        Row::plain(
            "100 MiB log: end to end, job given to last byte taken by the server",
            MEBIBYTES / uploaded,
            "MiB/s",
        ),
        Row::new("100 MiB log: CPU, upload included", median(cpus), "s", Goal::AtMost(0.25), "1.0-1.3 s"),
        Row::plain("100 MiB log: peak memory", peak, "MiB"),
        Row::plain("the same script in `sh -c '... | cat > /dev/null'`", MEBIBYTES / bare, "MiB/s"),
        Row::plain("100 MiB log: time of the manager by time of that pipe", read / bare, "x"),
    ])
}

/// How long the script takes with nobody but `cat` behind it.
async fn piped(script: &str) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let status = Command::new("sh")
        .args(["-c", &format!("{script} | cat > /dev/null")])
        .stdin(Stdio::null())
        .status()
        .await
        .context("failed to run sh")?;
    anyhow::ensure!(status.success(), "the script failed by itself");
    Ok(start.elapsed())
}

/// From the first line of the script's output to the last one. The manager stamps a line when it reads it, so these are
/// its own times, free of what the server does.
fn span(log: &[u8]) -> anyhow::Result<Duration> {
    let mut lines = log.split(|byte| *byte == b'\n').filter(|line| line.ends_with(LINE.as_bytes()));
    let first = lines.next().context("the log has no line of the script")?;
    let last = lines.next_back().context("the log has one line of the script only")?;
    (stamp(last)? - stamp(first)?).to_std().context("the times of the log go backwards")
}

fn stamp(line: &[u8]) -> anyhow::Result<DateTime<Utc>> {
    let text = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let text = std::str::from_utf8(text).context("a line begins with no time")?;
    text.parse().with_context(|| format!("a line begins with no time: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_hundred_bytes_and_make_a_hundred_mebibytes() {
        assert_eq!(LINE.len() + 1, 100);
        assert_eq!(f64::from(LINES) * 100.0, MEBIBYTES * crate::statistics::MIB);
    }

    #[test]
    fn the_span_is_that_of_the_script_alone() {
        let log = format!(
            "2026-01-01T00:00:00.000000Z 00O Preparing\n\
             2026-01-01T00:00:01.500000Z 01O $ yes '{LINE}' | head\n\
             2026-01-01T00:00:02.000000Z 01O {LINE}\n\
             2026-01-01T00:00:02.100000Z 01O {LINE}\n\
             2026-01-01T00:00:02.250000Z 01O {LINE}\n\
             2026-01-01T00:00:03.000000Z 00O Job succeeded\n"
        );
        assert_eq!(span(log.as_bytes()).unwrap(), Duration::from_millis(250));
        assert!(span(b"nothing").is_err());
    }
}
