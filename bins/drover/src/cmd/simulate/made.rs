//! `drover simulate generate`.

use clap::{Args, ValueEnum};
use simulator::{Recipe, Shape, Zone};

use crate::failure::{Exit, Failure};

/// Make up jobs: a trace as CSV on standard output. The same options make the same jobs.
#[derive(Debug, Args)]
pub(super) struct GenerateArguments {
    /// How jobs are spread over time.
    #[arg(long, value_enum, default_value_t = ShapeName::Office)]
    shape: ShapeName,
    /// Zone of the people who push, as an IANA name.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// First day, as year-month-day.
    #[arg(long, value_name = "DATE", default_value_t = Recipe::default().start)]
    start: chrono::NaiveDate,
    /// How many days.
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3_660))]
    days: u32,
    /// How many jobs.
    #[arg(long, value_name = "COUNT", default_value_t = Recipe::default().jobs)]
    jobs: usize,
    /// Half of the jobs are shorter than this.
    #[arg(long, value_name = "DURATION", default_value = "2m30s", value_parser = super::duration)]
    median: std::time::Duration,
    /// Decides everything else.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShapeName {
    /// Working hours of people.
    Office,
    /// Pipelines of 5 to 200 jobs at random times.
    Bursts,
    /// Single jobs at a constant rate.
    Poisson,
}

pub(super) fn generate(options: &GenerateArguments) -> Result<Exit, Failure> {
    let zone: Zone = options.zone.parse().map_err(|_| {
        Failure::misuse(format_args!("unknown time zone `{}`", options.zone))
            .hint("expected an IANA name such as Europe/Berlin")
    })?;
    let recipe = Recipe {
        shape: match options.shape {
            ShapeName::Office => Shape::Office,
            ShapeName::Bursts => Shape::Bursts,
            ShapeName::Poisson => Shape::Poisson,
        },
        zone,
        start: options.start,
        days: options.days,
        jobs: options.jobs,
        median: options.median,
        seed: options.seed,
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match recipe.make().write_csv(&mut out).and_then(|()| std::io::Write::flush(&mut out)) {
        Ok(()) => Ok(Exit::Success),
        // A closed pipe is the reader's choice.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Success),
        Err(error) => Err(error.into()),
    }
}
