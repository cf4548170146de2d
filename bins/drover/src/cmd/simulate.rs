//! `drover simulate`.

mod made;
mod played;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use simulator::{Base, Billing, CloudModel, Price, Recipe, Span, Surroundings, Trace, compare};

use self::made::GenerateArguments;
use self::played::ScenarioArguments;
use crate::arguments::{ConfigArguments, LogArguments};
use crate::failure::{Exit, Failure};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  drover simulate --config config.toml      the policy of the file, under a made-up office week
  drover simulate --jobs trace.csv --policy warm.toml --policy cold.toml --report report.html
  drover simulate --jobs jobs.json --price 0.0336 --billing hour --boot 30s..90s
  curl -sH \"PRIVATE-TOKEN: $TOKEN\" \"$URL/api/v4/projects/$ID/jobs?per_page=100\" |
      drover simulate --jobs -
  drover simulate generate --shape bursts --zone Europe/Berlin --jobs 100000 > trace.csv
  drover simulate scenario why.txt          what is decided, step by step, and why

Jobs: CSV with the columns created_at or started_at, and duration; or JSON as GitLab's jobs API returns it.
A policy file is a whole config.toml, or keys of [runners.autoscaler] that take the place of the entry's.";

/// Try scaling policies: the scaler itself, in virtual time, on jobs of the past.
///
/// Shows how long jobs would have waited, how many instances there would have been and what they would have cost, beside
/// what no policy can beat. The same jobs, files and seed give the same report, byte for byte. Nothing is contacted.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct SimulateArguments {
    #[command(subcommand)]
    command: Option<SimulateCommand>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Runner entry to take; needed where several scale.
    #[arg(long, value_name = "NAME")]
    runner: Option<String>,
    /// Jobs to replay, `-` for standard input [default: a made-up office week of 5,000 jobs].
    #[arg(long, value_name = "FILE")]
    jobs: Option<PathBuf>,
    /// Another policy to compare with; may be given several times.
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Write the report with pictures, as one HTML file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write jobs and instances over time as an SVG picture.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Decides how long each boot takes and which fail, and the jobs that are made up.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    cloud: CloudArguments,
}

/// The cloud that is simulated.
#[derive(Debug, Args)]
#[command(next_help_heading = "The cloud")]
struct CloudArguments {
    /// From the request until an instance runs: `40s`, `30s..90s` or `lognormal:45s:0.4`.
    #[arg(long, value_name = "SPAN", default_value = "lognormal:40s:0.25")]
    boot: Span,
    /// From then until it takes jobs.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    ready: Span,
    /// How long a deletion takes.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    delete: Duration,
    /// Share of instances that cannot be made ready, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    boot_failures: f64,
    /// Most instances that the cloud has; 0 for as many as are wanted.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    cloud_capacity: u32,
    /// Share of instances that the cloud takes away in an hour, as with spot instances; their jobs run again.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    interruptions: f64,
    /// Price of an instance for an hour, in any currency.
    #[arg(long, value_name = "PRICE", default_value = "0.10", value_parser = micros)]
    price: u64,
    /// What counts: `hour` (every begun one), or `second` with a least time, as in `second:60s`.
    #[arg(long, value_name = "BILLING", default_value = "second:60s", value_parser = billing)]
    billing: Billing,
    /// Share of the price that spot instances are cheaper by, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    spot_discount: f64,
}

#[derive(Debug, Subcommand)]
enum SimulateCommand {
    Generate(GenerateArguments),
    Scenario(ScenarioArguments),
}

/// Simulates, or makes up jobs, or plays a scenario.
pub(crate) fn simulate(options: &SimulateArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    match &options.command {
        Some(SimulateCommand::Generate(options)) => made::generate(options),
        Some(SimulateCommand::Scenario(options)) => played::scenario(options),
        None => replay(options),
    }
}

fn replay(options: &SimulateArguments) -> Result<Exit, Failure> {
    let path = options.config.path();
    let file = path.display().to_string();
    let text = read(&path)
        .map_err(|failure| failure.hint("name the configuration: drover simulate --config FILE"))?;
    let base =
        Base::parse(&text, &file, options.runner.as_deref(), config::local_zone()).map_err(Failure::usage)?;
    let mut setups = vec![base.setup.clone()];
    for policy in &options.policy {
        let text = read(policy)?;
        setups.push(base.variant(&text, &policy.display().to_string()).map_err(Failure::usage)?);
    }
    let trace = match &options.jobs {
        None => {
            let recipe = Recipe { seed: options.seed, ..Recipe::default() };
            if !options.json {
                output::note(&"no --jobs: replaying a made-up office week of 5,000 jobs");
            }
            recipe.make()
        }
        Some(path) => Trace::parse(&read(path)?, &name(path)).map_err(Failure::usage)?,
    };
    let around = Surroundings { cloud: options.cloud.model(), seed: options.seed, ..Surroundings::default() };
    let comparison = compare(&setups, &trace, &around);
    if let Some(report) = &options.report {
        write(report, &comparison.html())?;
    }
    if let Some(picture) = &options.picture {
        write(picture, &comparison.picture())?;
    }
    let text = if options.json { comparison.json() } else { comparison.text() };
    output::data(&text.trim_end());
    Ok(Exit::Success)
}

/// The content of a file; `-` is standard input.
fn read(path: &Path) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.with_context(|| format!("failed to read `{}`", name(path))).map_err(Failure::usage)
}

fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).with_context(|| format!("failed to write `{}`", path.display()))?;
    Ok(())
}

// === impl CloudArguments ===

impl CloudArguments {
    fn model(&self) -> CloudModel {
        CloudModel {
            boot: self.boot,
            ready: self.ready,
            delete: self.delete,
            boot_failures: self.boot_failures,
            capacity: self.cloud_capacity,
            interruptions_per_hour: self.interruptions,
            price: Price { micros_per_hour: self.price, billing: self.billing }
                .reduced_by(self.spot_discount),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<Span>() {
        Ok(Span::Constant(span)) => Ok(span),
        Ok(Span::Uniform(..) | Span::Lognormal(..)) | Err(_) => {
            Err("expected a duration such as 30s".to_owned())
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

fn micros(text: &str) -> Result<u64, String> {
    Price::parse_micros(text).ok_or_else(|| "expected a price such as 0.096".to_owned())
}

fn billing(text: &str) -> Result<Billing, String> {
    match text.split_once(':') {
        None if text == "hour" => Ok(Billing::Hourly),
        None if text == "second" => Ok(Billing::PerSecond { minimum: Duration::ZERO }),
        Some(("second", minimum)) => Ok(Billing::PerSecond { minimum: duration(minimum)? }),
        None | Some(_) => Err("expected `hour`, `second` or `second:60s`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_and_billing_are_read() {
        assert_eq!(micros("0.0336"), Ok(33_600));
        assert_eq!(micros("12"), Ok(12_000_000));
        assert!(micros("-1").is_err() && micros("x").is_err());
        assert_eq!(billing("hour"), Ok(Billing::Hourly));
        assert_eq!(billing("second:1m"), Ok(Billing::PerSecond { minimum: Duration::from_secs(60) }));
        assert!(billing("minute").is_err());
        assert!(share("1.5").is_err());
    }
}
