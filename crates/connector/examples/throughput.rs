//! Prints the throughput of one command's output, and what it and idle connections cost.
//!
//! `cargo run --release -p drover-connector --example throughput -- user@127.0.0.1:2222 path/to/key [MiB] [idle connections]`

use std::time::{Duration, Instant};

use connect_info::{ConnectInfo, ConnectorSettings, SecretString};
use drover_connector::{Client, DialOptions, dial};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "printing is what this example is for")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: throughput user@host:port key [MiB] [idle connections]")?;
    let key = std::fs::read_to_string(arguments.next().ok_or("the path of a private key is missing")?)?;
    let mebibytes: u64 = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let idle: u32 = arguments.next().map_or(Ok(10), |text| text.parse())?;

    let (user, host) = address.split_once('@').ok_or("the user is missing")?;
    let settings = ConnectorSettings {
        username: Some(user.to_owned()),
        key_pem: Some(SecretString::from(key)),
        ..ConnectorSettings::default()
    };
    let mut info = ConnectInfo::new("instance", settings);
    info.internal_addr = Some(host.to_owned());

    let client = connect(&info).await?;
    let before = resident()?;
    let mut kept = Vec::new();
    for _ in 0..idle {
        kept.push(connect(&info).await?);
    }
    println!("{idle} idle connections: {} KiB each", (resident()? - before) / u64::from(idle.max(1)));
    let before = resident()?;
    let mut jobs = Vec::new();
    for client in &kept {
        for _ in 0..5 {
            jobs.push(client.exec("sleep 1000", "".into()).await?);
        }
    }
    println!("{} sleeping jobs on them: {} KiB more", jobs.len(), resident()? - before);
    drop((jobs, kept));

    let (started, worked) = (Instant::now(), cpu()?);
    let mut process = client.exec(&format!("head -c {} /dev/zero", mebibytes << 20), "".into()).await?;
    let mut received = 0;
    while let Some(output) = process.next().await? {
        received += output.bytes().len() as u64;
    }
    let (elapsed, worked) = (started.elapsed(), cpu()?.saturating_sub(worked));
    assert_eq!(received, mebibytes << 20);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = mebibytes as f64 / elapsed.as_secs_f64();
    println!("{mebibytes} MiB in {elapsed:.2?}: {rate:.0} MiB/s, {worked:.2?} of processor time here");
    println!("{} KiB resident", resident()?);
    Ok(())
}

async fn connect(info: &ConnectInfo) -> Result<Client, Failure> {
    Ok(dial(info, &DialOptions::default(), &mut |_| {}).await?)
}

/// Kibibytes of memory that this process uses.
fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

/// Processor time that this process has used.
fn cpu() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().ok_or("no fields")?.split(' ').collect();
    let ticks = |index: usize| -> Result<u64, Failure> { Ok(fields.get(index).ok_or("no field")?.parse()?) };
    // User and system time, in hundredths of a second on every Linux.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}
