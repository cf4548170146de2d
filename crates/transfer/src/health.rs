//! `health-check`: waits until a service can be reached.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::Console;

/// Wait between attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Limit of one attempt.
const DIAL: Duration = Duration::from_secs(10);

/// Flags of `health-check`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HealthArgs {
    /// Ports on this machine, all of which must answer; without them, the first port that the environment names (`..._TCP_ADDR`,
    /// `..._TCP_PORT`) is enough
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<u16>,
}

/// Why there is nothing to wait for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HealthError {
    /// No variable ends in `_TCP_ADDR`.
    #[error("No HOST found")]
    NoHost,
    /// No variable ends in `_TCP_PORT`.
    #[error("No PORT found")]
    NoPort,
}

/// Waits until the ports answer; whoever calls it sets the limit.
///
/// # Errors
/// [`HealthError`]
pub fn check(options: &HealthArgs, console: &Console) -> Result<(), HealthError> {
    let (host, ports) = match options.ports.as_slice() {
        [] => of_environment(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )?,
        ports => ("localhost".to_owned(), ports.to_vec()),
    };
    let all = !options.ports.is_empty();
    console.info(&format!("waiting for TCP connection to {host} on {ports:?}..."));
    let mut left = ports;
    loop {
        let before = left.len();
        left.retain(|port| !answers(&host, *port, console));
        if left.is_empty() || (!all && left.len() < before) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Host and ports of a service, as links between containers name them.
fn of_environment(
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(String, Vec<u16>), HealthError> {
    let mut host = None;
    let mut ports = Vec::new();
    for (name, value) in variables.filter(|(_, value)| !value.contains('=')) {
        if name.ends_with("_TCP_ADDR") {
            host = Some(value);
        } else if name.ends_with("_TCP_PORT") {
            ports.extend(value.parse::<u16>().ok());
        }
    }
    let host = host.filter(|host| !host.is_empty()).ok_or(HealthError::NoHost)?;
    if ports.is_empty() {
        return Err(HealthError::NoPort);
    }
    ports.sort_unstable();
    ports.dedup();
    Ok((host, ports))
}

fn answers(host: &str, port: u16, console: &Console) -> bool {
    let Ok(addresses) = (host, port).to_socket_addrs() else { return false };
    for address in addresses {
        if TcpStream::connect_timeout(&address, DIAL).is_ok() {
            console.info(&format!("dialed {host}:{port}"));
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<(String, Vec<u16>), HealthError> {
        of_environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_environment_names_host_and_ports() {
        let variables = [
            ("WAIT_FOR_SERVICE_TCP_ADDR", "db"),
            ("WAIT_FOR_SERVICE_5432_TCP_PORT", "5432"),
            ("WAIT_FOR_SERVICE_80_TCP_PORT", "80"),
            ("ODD_TCP_PORT", "a=b"),
            ("HOME", "/"),
        ];
        assert_eq!(environment(&variables), Ok(("db".to_owned(), vec![80, 5432])));
        assert_eq!(environment(&variables[1..]), Err(HealthError::NoHost));
        assert_eq!(environment(&variables[..1]), Err(HealthError::NoPort));
    }

    #[test]
    fn a_port_that_answers_ends_the_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = HealthArgs { ports: vec![listener.local_addr().unwrap().port()] };
        let (console, memory) = Console::memory();
        check(&options, &console).unwrap();
        assert!(memory.text().contains("waiting for TCP connection to localhost on ["));
    }
}
