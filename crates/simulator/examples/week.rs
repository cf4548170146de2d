//! How long a generated week of 100,000 jobs takes: `cargo run --release -p drover-simulator --example week`.

use std::io::Write as _;
use std::time::{Duration, Instant};

use drover_simulator::{Recipe, Setup, Surroundings, replay};
use taskscaler_core::{Config, Policy};

fn main() -> std::io::Result<()> {
    let trace = Recipe { jobs: 100_000, ..Recipe::default() }.make();
    for (name, max_use_count, idle_count) in [("kept", 0, 20), ("fresh", 1, 20), ("cold", 0, 0)] {
        let policy = Policy { idle_count, idle_time: Duration::from_secs(600), ..Policy::default() };
        let scaler =
            Config { max_instances: 1_000, max_use_count, policies: vec![policy], ..Config::default() };
        let setup = Setup { name: name.to_owned(), scaler, most_jobs: 1_000, ..Setup::default() };
        let begun = Instant::now();
        let outcome = replay(&setup, &trace, &Surroundings::default());
        let took = begun.elapsed();
        writeln!(std::io::stdout(), "{name}: {took:.2?} for {} jobs, {outcome:?}", trace.jobs().len())?;
    }
    Ok(())
}
