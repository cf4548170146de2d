//! What failed in a long run of tests, in few lines at its end: nobody should have to look for it in thousands of lines, of which
//! whoever looks later may have a part only.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::space;
use crate::steps::say;

/// Lines of each failure that are shown again.
const SHOWN: usize = 12;
/// Characters of each of them.
const WIDTH: usize = 300;

/// Collects the failures from the output of `cargo test`.
#[derive(Default)]
struct Failures {
    /// What is tested: `tests/aws/main.rs`.
    target: String,
    failures: Vec<Failure>,
    /// Inside of what a failed test has printed.
    inside: bool,
}

struct Failure {
    target: String,
    test: String,
    lines: Vec<String>,
}

/// Runs `cargo` with these arguments, shows what it prints, and repeats what failed at the end.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    // One pipe keeps the order: cargo says to its standard error which tests it runs, and these print to standard output.
    let (output, input) = std::io::pipe().context("no pipe can be made")?;
    let mut command = Command::new(env!("CARGO"));
    command.args(args).stdout(input.try_clone().context("no pipe can be made")?).stderr(input);
    let mut child = command.spawn().context("could not start cargo")?;
    // It holds the ends to write to, and the end of the output would not be seen.
    drop(command);
    let failures = pass_on(output, std::io::stdout());
    let status = child.wait().context("cargo could not be waited for")?;
    if status.success() {
        return Ok(());
    }
    say(&failures.summary());
    space::report();
    bail!("`cargo {}` ended with {status}", args.join(" "));
}

fn pass_on(from: impl Read, mut to: impl Write) -> Failures {
    let mut failures = Failures::default();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // A closed pipe is the reader's choice, not a failure of the tests.
        let _ = to.write_all(&line);
        failures.line(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    failures
}

// === impl Failures ===

impl Failures {
    fn line(&mut self, line: &str) {
        if let Some(running) =
            line.trim_start().strip_prefix("Running ").or(line.trim_start().strip_prefix("Doc-tests "))
        {
            self.target = running.to_owned();
            self.inside = false;
        } else if let Some(test) = header(line) {
            let failure = Failure { target: self.target.clone(), test: test.to_owned(), lines: Vec::new() };
            self.failures.push(failure);
            self.inside = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.inside = false;
        } else if self.inside
            && let Some(failure) = self.failures.last_mut()
        {
            failure.add(line);
        }
    }

    fn summary(&self) -> String {
        let mut text = format!("== {} failed", count(self.failures.len()));
        for Failure { target, test, lines } in &self.failures {
            text += &format!("\n-- {test}, {target}");
            for line in lines {
                text += "\n   ";
                text.extend(line.chars().take(WIDTH));
            }
        }
        text
    }
}

// === impl Failure ===

impl Failure {
    fn add(&mut self, line: &str) {
        // What came first explains the rest.
        if self.lines.len() < SHOWN && !line.is_empty() {
            self.lines.push(line.to_owned());
        }
    }
}

/// The name of the test whose output begins.
fn header(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" ----")?.strip_suffix(" stdout")
}

fn count(tests: usize) -> String {
    if tests == 1 { "1 test".to_owned() } else { format!("{tests} tests") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_names_what_failed_where_and_why() {
        let output = "     Running tests/aws/main.rs (target/debug/deps/aws-0123)\n\
                      running 2 tests\n\
                      test doctor::good ... ok\n\
                      test doctor::bad ... FAILED\n\
                      \n\
                      failures:\n\
                      \n\
                      ---- doctor::bad stdout ----\n\
                      \n\
                      thread 'doctor::bad' panicked at tests/aws/doctor.rs:37:45:\n\
                      no space left\n\
                      \n\
                      failures:\n    doctor::bad\n\
                      \n\
                      test result: FAILED. 1 passed; 1 failed\n\
                      \u{20}  Doc-tests drover_job\n";
        let mut shown = Vec::new();
        let failures = pass_on(output.as_bytes(), &mut shown);
        assert_eq!(shown, output.as_bytes());
        assert_eq!(
            failures.summary(),
            "== 1 test failed\n\
             -- doctor::bad, tests/aws/main.rs (target/debug/deps/aws-0123)\n   \
             thread 'doctor::bad' panicked at tests/aws/doctor.rs:37:45:\n   no space left"
        );
    }

    #[test]
    fn a_long_output_is_shown_from_its_beginning() {
        let mut failures = Failures::default();
        failures.line("---- long stdout ----");
        (0..100).for_each(|number| failures.line(&format!("{number} {}", "x".repeat(1000))));
        let summary = failures.summary();
        let lines: Vec<&str> = summary.lines().skip(2).collect();
        assert_eq!(lines.len(), SHOWN);
        assert!(lines[0].starts_with("   0 x") && lines.iter().all(|line| line.len() == WIDTH + 3));
    }
}
