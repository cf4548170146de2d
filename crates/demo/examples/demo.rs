//! The demonstration as a program of its own, with its defaults: `cargo run -p drover-demo --example demo`.
//!
//! `drover demo` is the same with flags.

use drover_demo::{DemoOptions, run};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut options = DemoOptions::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "local-instance" => return Ok(fleeting_local::instance::main_from_stdin().await?),
            "--plain" => options.plain = true,
            "--kill-instance" => options.kill_instance = true,
            "--jobs" => options.jobs = arguments.next().ok_or("--jobs needs a number")?.parse()?,
            "--picture" => options.picture = Some(arguments.next().ok_or("--picture needs a file")?.into()),
            "--json" => options.json = Some(arguments.next().ok_or("--json needs a file")?.into()),
            unknown => return Err(format!("unknown argument `{unknown}`").into()),
        }
    }
    run(options).await?;
    Ok(())
}
