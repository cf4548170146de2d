//! The shell of the helper container: it runs the runner's own stages one after another.
//!
//! It is started with the container and reads commands from the input that is attached to it, so that a stage costs no call to the
//! engine and no new process but its own. Words that no stage can know tell the end of each. Where the connection to it is gone,
//! the container is still there, and stages run in it as commands of their own ([`Inside`](super::stage::Inside)).

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::query_parameters::InspectContainerOptionsBuilder;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use super::engine::{Engine, EngineError};
use super::stage::{Input, Inside, Output, attach, broken, exit_code};
use crate::environment::{EnvironmentError, StageEvent, StageOutput, Stop};

/// What the helper container runs: the shell, and nothing once its input has ended. What the shell itself says, such as
/// `Terminated`, is nobody's to hear.
pub(crate) const COMMAND: [&str; 3] = ["sh", "-c", "sh 3>&2 2>/dev/null; while :; do sleep 2147483647; done"];

/// A session of its own for each stage makes a process group of it, which can be signalled.
const FIRST_LINE: &str = "command -v setsid >/dev/null || setsid() { \"$@\"; }\n";
/// Begins and ends the words that tell the end of a stage.
const EDGE: u8 = 0x1e;

/// The shell of one helper container.
pub(crate) struct Shell {
    engine: Arc<Engine>,
    container: String,
    /// None while a stage runs, and when the connection is gone.
    wires: Arc<Mutex<Option<Wires>>>,
}

/// The connection to the shell.
struct Wires {
    input: Input,
    output: Output,
    stdout: Scanner,
    stderr: Scanner,
}

/// A stage that the shell runs.
pub(crate) struct Running {
    engine: Arc<Engine>,
    container: String,
    home: Arc<Mutex<Option<Wires>>>,
    wires: Option<Wires>,
    mark: Vec<u8>,
    /// Statuses by the two streams: the stage has ended when both are there, because neither waits for the other.
    ended: [Option<i32>; 2],
}

/// Looks for the end of a stage in one stream.
#[derive(Default)]
struct Scanner {
    /// What may be the beginning of the words that are looked for, and what came behind them.
    held: BytesMut,
}

// === impl Shell ===

impl Shell {
    /// Attaches to a container that was created with [`COMMAND`] and is not started yet.
    pub(crate) async fn attach(engine: &Arc<Engine>, container: &str) -> Result<Self, EngineError> {
        let (output, input) = attach(engine, container).await?;
        let wires = Wires { input, output, stdout: Scanner::default(), stderr: Scanner::default() };
        let (engine, container) = (Arc::clone(engine), container.to_owned());
        Ok(Self { engine, container, wires: Arc::new(Mutex::new(Some(wires))) })
    }

    /// Gives it a stage. None if it cannot be reached any more, and nothing was run.
    pub(crate) async fn run(&self, command: &str, script: &[u8]) -> Option<Running> {
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let nonce = Uuid::new_v4().simple().to_string();
        let text = order(&nonce, command, script);
        // Its owner drops the connection with an order that was not given whole: a shell that misses the end of a script runs
        // nothing of it, because scripts are one command.
        let given = async {
            wires.input.write_all(&text).await?;
            wires.input.flush().await
        };
        if let Err(error) = given.await {
            tracing::debug!(container = self.container, %error, "the shell of the helper is gone");
            return None;
        }
        let mut mark = vec![EDGE];
        mark.extend_from_slice(nonce.as_bytes());
        Some(Running {
            engine: Arc::clone(&self.engine),
            container: self.container.clone(),
            home: Arc::clone(&self.wires),
            wires: Some(wires),
            mark,
            ended: [None; 2],
        })
    }
}

/// What makes the shell run a script and tell its end.
fn order(nonce: &str, command: &str, script: &[u8]) -> Vec<u8> {
    let mut text = String::with_capacity(512);
    text.push_str(FIRST_LINE);
    let line = Inside::stage_line(command).replace('\'', r"'\''");
    let _ = writeln!(text, "setsid sh -c '{line}' 2>&3 3>&- <<'{nonce}'");
    let mut text = text.into_bytes();
    text.extend_from_slice(script);
    if !script.ends_with(b"\n") {
        text.push(b'\n');
    }
    let end =
        format!("{nonce}\ns=$?; printf '\\036{nonce}%s\\036' $s; printf '\\036{nonce}%s\\036' $s >&3\n");
    text.extend_from_slice(end.as_bytes());
    text
}

// === impl Running ===

#[async_trait]
impl StageOutput for Running {
    async fn next(&mut self) -> Result<StageEvent, EnvironmentError> {
        let Some(wires) = &mut self.wires else { return Err(super::stage::ended_already()) };
        let mut input = Bytes::new();
        let mut stream = 0;
        loop {
            let scanner = if stream == 0 { &mut wires.stdout } else { &mut wires.stderr };
            // The stream that has ended belongs to the next stage.
            if self.ended[stream].is_none() {
                let (output, status) = scanner.take(&input, &self.mark);
                self.ended[stream] = status;
                if !output.is_empty() {
                    return Ok(if stream == 0 {
                        StageEvent::Stdout(output)
                    } else {
                        StageEvent::Stderr(output)
                    });
                }
            } else {
                scanner.held.extend_from_slice(&input);
            }
            if let [Some(status), Some(_)] = self.ended {
                *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.wires.take();
                return Ok(StageEvent::Exited(status));
            }
            match wires.output.next().await {
                Some(Ok(LogOutput::StdErr { message })) => (stream, input) = (1, message),
                Some(Ok(
                    LogOutput::StdOut { message }
                    | LogOutput::Console { message }
                    | LogOutput::StdIn { message },
                )) => (stream, input) = (0, message),
                Some(Err(error)) => {
                    let error = EngineError::from(error);
                    tracing::debug!(container = self.container, %error, "the helper's output broke off");
                    return cut_off(&self.engine, &self.container).await;
                }
                None => return cut_off(&self.engine, &self.container).await,
            }
        }
    }

    async fn stop(&mut self, how: Stop) {
        Inside::signal(&self.engine, &self.container, how).await;
    }
}

/// The connection ended before the stage did: what has become of the shell?
async fn cut_off(engine: &Engine, container: &str) -> Result<StageEvent, EnvironmentError> {
    let options = InspectContainerOptionsBuilder::default().build();
    let inspected = engine.api().inspect_container(container, Some(options)).await;
    let inspected = inspected.map_err(|error| broken(engine, error.into()))?;
    match inspected.state {
        Some(state) if state.running == Some(false) => {
            Ok(StageEvent::Exited(exit_code(state.exit_code.unwrap_or_default())))
        }
        Some(_) | None => Err(broken(engine, EngineError::Unreachable("the engine closed it".to_owned()))),
    }
}

// === impl Scanner ===

impl Scanner {
    /// What of the stream may be passed on, and the status once the stage has ended.
    fn take(&mut self, input: &Bytes, mark: &[u8]) -> (Bytes, Option<i32>) {
        let data = if self.held.is_empty() {
            input.clone()
        } else {
            self.held.extend_from_slice(input);
            self.held.split().freeze()
        };
        let mut from = 0;
        while let Some(at) = position(&data[from..]).map(|at| from + at) {
            let rest = &data[at..];
            if let Some(behind) = rest.strip_prefix(mark)
                && let Some(end) = position(behind)
            {
                let status = std::str::from_utf8(&behind[..end]).ok().and_then(|digits| digits.parse().ok());
                self.held.extend_from_slice(&behind[end + 1..]);
                // The words are the shell's own, so a status is what it is.
                return (data.slice(..at), Some(status.unwrap_or(1)));
            }
            if rest.starts_with(mark) || mark.starts_with(rest) {
                self.held.extend_from_slice(rest);
                return (data.slice(..at), None);
            }
            from = at + 1;
        }
        (data, None)
    }
}

fn position(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == EDGE)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    const MARK: &[u8] = b"\x1e0123";

    /// What comes out of a scanner when a stream arrives in pieces of this size.
    fn scanned(stream: &[u8], size: usize) -> (Vec<u8>, Option<i32>, Vec<u8>) {
        let mut scanner = Scanner::default();
        let (mut out, mut ended) = (Vec::new(), None);
        for piece in stream.chunks(size) {
            if ended.is_some() {
                scanner.held.extend_from_slice(piece);
                continue;
            }
            let (output, status) = scanner.take(&Bytes::copy_from_slice(piece), MARK);
            out.extend_from_slice(&output);
            ended = status;
        }
        (out, ended, scanner.held.to_vec())
    }

    #[test]
    fn the_end_is_found_however_the_stream_is_cut() {
        let stream = b"one\x1e01two\x1e\x1e0122\x1e012342\x1elater";
        for size in 1..=stream.len() {
            let expected = (b"one\x1e01two\x1e\x1e0122".to_vec(), Some(42), b"later".to_vec());
            assert_eq!(scanned(stream, size), expected, "{size}");
        }
    }

    #[test]
    fn a_stream_that_ends_nothing_is_passed_on_but_for_what_may_be_an_end() {
        assert_eq!(scanned(b"a\x1e", 1), (b"a".to_vec(), None, b"\x1e".to_vec()));
        assert_eq!(scanned(b"a\x1e01234", 3), (b"a".to_vec(), None, b"\x1e01234".to_vec()));
        assert_eq!(scanned(b"a\x1eb", 2), (b"a\x1eb".to_vec(), None, Vec::new()));
    }

    #[test]
    fn shells_run_orders_one_after_another_and_tell_their_ends() {
        for name in ["dash", "bash", "busybox"] {
            let mut command = Command::new(name);
            if name == "busybox" {
                command.arg("sh");
            }
            let mut shell = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("tests need {name}: {error}"));
            let mut input = shell.stdin.take().unwrap();
            input.write_all(b"exec 3>/dev/null\n").unwrap();
            input.write_all(&order("aaaa", "sh", b"{ echo \"it's $((1 + 1))\"; exit 3; }\n")).unwrap();
            input.write_all(&order("bbbb", "sh", b"printf '<%s>' \"$(cat)\"; kill -9 $$")).unwrap();
            drop(input);
            let output = shell.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text, "it's 2\n\u{1e}aaaa3\u{1e}<>\u{1e}bbbb137\u{1e}", "{name}");
        }
    }
}
