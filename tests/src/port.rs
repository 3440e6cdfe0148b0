//! Free TCP ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::failure::{Context, Result};

/// Below the range that the kernel hands out to outgoing connections: a server that was killed
/// and starts again must find its port still free.
const FIRST: u32 = 15_000;
const COUNT: u32 = 16_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port on which nothing listens. Never the same one twice in a process; processes begin at
/// different places.
pub fn free_port() -> Result<u16> {
    let begin = std::process::id().wrapping_mul(37);
    (0..COUNT)
        .map(|_| FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context(|| "no free TCP port on 127.0.0.1".to_owned())
}
