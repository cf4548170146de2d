//! Ports for programs that cannot take a free one themselves and say which.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that the system gives to connections, and to whoever asks for any.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A port of the loopback interface at which nobody listens. Nobody else gets it before its program starts, or while that is
/// stopped. Nothing is bound to find that out: a process that another thread is starting meanwhile would keep it for a moment.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin far from each other.
    let begin = std::process::id().wrapping_mul(127) % COUNT;
    loop {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + number).unwrap_or(u16::MAX);
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            return port;
        }
    }
}
