//! Whether machines answer.

use std::time::Duration;

use fleeting::{ConnectInfo, Finding, Protocol, Severity};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// A machine that has not answered by then is not there.
const PATIENCE: Duration = Duration::from_secs(5);

/// Dials a machine at each of its addresses until it answers, and logs in to none.
pub(crate) async fn machine(info: &ConnectInfo) -> Finding {
    let check = format!("static/machine/{}", info.instance);
    let mut why = Vec::new();
    for external in [false, true] {
        let Ok(target) = info.target(external) else { continue };
        let address = format!("{}:{}", target.host, target.port);
        if why.iter().any(|(tried, _)| *tried == address) {
            continue;
        }
        let answer = tokio::time::timeout(PATIENCE, greeting(&target.host, target.port, target.protocol));
        match answer.await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))) {
            Ok(()) => {
                return Finding::good(check, format!("machine `{}` answers at {address}", info.instance));
            }
            Err(error) => why.push((address, error)),
        }
    }
    let tried: Vec<String> = why.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    let user = info.settings.username.as_deref().unwrap_or("USER");
    let (host, port) = why
        .first()
        .and_then(|(address, _)| address.rsplit_once(':'))
        .unwrap_or((info.instance.as_str(), "22"));
    Finding::new(
        Severity::Error,
        check,
        format!("machine `{}` does not answer: {}", info.instance, tried.join("; ")),
    )
    .leads_to("jobs that are given to it wait, and then go elsewhere or fail")
    .repair(format!("ssh -v -p {port} {user}@{host}   # from the manager, as the user who runs drover"))
}

/// Whether a machine answers at the address that is dialled.
pub(crate) async fn greets(info: &ConnectInfo, external: bool) -> Result<(), String> {
    let target = info.target(external).map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(PATIENCE, greeting(&target.host, target.port, target.protocol));
    answer.await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

/// An SSH server says who it is at once; of others it is enough that they are there.
async fn greeting(host: &str, port: u16, protocol: Protocol) -> Result<(), String> {
    let mut stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    match protocol {
        Protocol::Ssh => {}
        Protocol::Winrm | Protocol::WinrmHttps => return Ok(()),
    }
    let mut start = [0; 4];
    stream.read_exact(&mut start).await.map_err(|error| format!("no greeting: {error}"))?;
    if &start == b"SSH-" { Ok(()) } else { Err("something else than an SSH server answers".to_owned()) }
}
