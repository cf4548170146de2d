//! One command on a session channel.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelWriteHalf};
use russh::{ChannelMsg, Sig};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::time::Instant;

use super::Machine;
use super::inbox::{Arrival, Inbox};

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks at whether a process group has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Most bytes per read.
const CHUNK: usize = 64 << 10;
/// A command has ended but something in the background holds its output open: how long silence may last until the
/// session ends anyway, and how long it may take in all. OpenSSH would wait for ever.
const SILENCE: Duration = Duration::from_secs(2);
const STRAGGLING: Duration = Duration::from_secs(10);

/// Runs one command to its end, or to that of its client or its machine.
pub(super) async fn run(machine: Arc<Machine>, channel: Channel<Msg>, handle: Handle, mut child: Child) {
    let id = channel.id();
    let (mut input, output) = channel.split();
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let (Some(group), Some(stdin), Some(stdout), Some(stderr)) =
        (group, child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    let mut inbox = Inbox::new(stdin);
    let finished = {
        let work = pump(&mut child, stdout, stderr, &output);
        tokio::pin!(work);
        loop {
            tokio::select! {
                status = &mut work => break Some(status),
                arrival = inbox.next(&mut input) => match arrival {
                    Arrival::Closed => break None,
                    Arrival::Message(ChannelMsg::Signal { signal }) => {
                        if let Some(signal) = to_unix(&signal) {
                            let _ = killpg(group, signal);
                        }
                    }
                    Arrival::Message(_) => {}
                },
                () = machine.ending.cancelled() => break None,
            }
        }
    };
    match finished {
        Some(status) => {
            report(status, &output, &handle).await;
            let _ = output.eof().await;
        }
        None => terminate(&mut child, group).await,
    }
    let _ = handle.close(id).await;
}

/// Sends all output and waits for the end.
async fn pump(
    child: &mut Child,
    stdout: impl AsyncRead + Unpin,
    stderr: impl AsyncRead + Unpin,
    output: &ChannelWriteHalf<Msg>,
) -> Option<ExitStatus> {
    let activity = std::sync::Mutex::new(Instant::now());
    let touch = || {
        if let Ok(mut at) = activity.lock() {
            *at = Instant::now();
        }
    };
    let streams =
        async { tokio::join!(copy(stdout, None, output, &touch), copy(stderr, Some(1), output, &touch)) };
    tokio::pin!(streams);
    let status = tokio::select! {
        _ = &mut streams => return child.wait().await.ok(),
        status = child.wait() => status.ok(),
    };
    touch();
    let end = Instant::now() + STRAGGLING;
    loop {
        let silent = activity.lock().map_or(end, |at| *at + SILENCE).min(end);
        tokio::select! {
            _ = &mut streams => return status,
            () = tokio::time::sleep_until(silent) => {
                let quiet = activity.lock().map_or(true, |at| Instant::now() >= *at + SILENCE);
                if quiet || Instant::now() >= end {
                    return status;
                }
            }
        }
    }
}

/// Copies one stream as the client grants window for it.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    stream: Option<u32>,
    to: &ChannelWriteHalf<Msg>,
    touch: &impl Fn(),
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(read) if read > 0 => {}
            Ok(_) | Err(_) => return,
        }
        let data = buffer.split().freeze();
        let sent = match stream {
            None => to.data_bytes(data).await,
            Some(stream) => to.extended_data_bytes(stream, data).await,
        };
        if sent.is_err() {
            return;
        }
        touch();
    }
}

async fn report(status: Option<ExitStatus>, output: &ChannelWriteHalf<Msg>, handle: &Handle) {
    match status.and_then(|status| status.signal()).and_then(|signal| Signal::try_from(signal).ok()) {
        Some(signal) => {
            let name = signal.as_str().trim_start_matches("SIG");
            let core = status.is_some_and(|status| status.core_dumped());
            let _ = handle
                .exit_signal_request(output.id(), from_name(name), core, String::new(), String::new())
                .await;
        }
        None => {
            // Without a status the process is lost, which a shell calls 255.
            let code = status.and_then(|status| status.code()).and_then(|code| u32::try_from(code).ok());
            let _ = output.exit_status(code.unwrap_or(255)).await;
        }
    }
}

/// Ends the whole process group: TERM, and KILL for what is left after the grace.
async fn terminate(child: &mut Child, group: Pid) {
    let _ = killpg(group, Signal::SIGTERM);
    let gone = async {
        let _ = child.wait().await;
        // The leader is reaped; the kernel gives no notice for the rest of its group.
        while killpg(group, None).is_ok() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(GRACE, gone).await.is_err() {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait().await;
    }
}

/// The signals of RFC 4254, section 6.10, and those that others send by name.
fn to_unix(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::SIGABRT,
        Sig::ALRM => Signal::SIGALRM,
        Sig::FPE => Signal::SIGFPE,
        Sig::HUP => Signal::SIGHUP,
        Sig::ILL => Signal::SIGILL,
        Sig::INT => Signal::SIGINT,
        Sig::KILL => Signal::SIGKILL,
        Sig::PIPE => Signal::SIGPIPE,
        Sig::QUIT => Signal::SIGQUIT,
        Sig::SEGV => Signal::SIGSEGV,
        Sig::TERM => Signal::SIGTERM,
        Sig::USR1 => Signal::SIGUSR1,
        Sig::Custom(name) => format!("SIG{name}").parse().ok()?,
    })
}

fn from_name(name: &str) -> Sig {
    match name {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        other => Sig::Custom(other.to_owned()),
    }
}
