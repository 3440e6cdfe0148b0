//! Connections to a server that somebody listens in on, and meddles with.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::failure::{Context, Result};

/// Passes on what is said between clients and the server behind a port, for as long as the process
/// lives; the port on 127.0.0.1 where it does.
///
/// `meddle` sees what the server says, may change it, and says how many of the bytes are passed on.
/// Without the others, the connection ends, in both directions.
pub(crate) fn listen(
    server: u16,
    meddle: impl Fn(&mut [u8]) -> usize + Send + Sync + 'static,
) -> Result<u16> {
    let about = || "cannot listen on 127.0.0.1".to_owned();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(about)?;
    let port = listener.local_addr().context(about)?.port();
    let meddle = Arc::new(meddle);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { return };
            let (Ok(from), Ok(to)) = (server.try_clone(), client.try_clone()) else { return };
            thread::spawn(move || pass_on(client, server, |said| said.len()));
            let meddle = Arc::clone(&meddle);
            thread::spawn(move || pass_on(from, to, |said| meddle(said)));
        }
    });
    Ok(port)
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, meddle: impl Fn(&mut [u8]) -> usize) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let said = buffer.get_mut(..length).unwrap_or_default();
        let passed = meddle(said);
        let whole = passed >= length;
        if to.write_all(said.get(..passed).unwrap_or(said)).is_err() || !whole {
            break;
        }
    }
    // The other direction ends with it.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Passes on what is said until the server has said so many bytes, on all connections together.
/// From then on there is no connection.
#[derive(Debug)]
pub struct CuttingProxy {
    port: u16,
    said: Arc<AtomicU64>,
    limit: Arc<AtomicU64>,
}

impl CuttingProxy {
    /// A proxy of the server behind `server` that cuts nothing yet.
    pub fn start(server: u16) -> Result<Self> {
        let (said, limit) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
        let (counted, allowed) = (Arc::clone(&said), Arc::clone(&limit));
        let port = listen(server, move |said| {
            let before = counted.fetch_add(said.len() as u64, Ordering::SeqCst);
            let left = allowed.load(Ordering::SeqCst).saturating_sub(before);
            usize::try_from(left).map_or(said.len(), |left| left.min(said.len()))
        })?;
        Ok(Self { port, said, limit })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on the server may say so many bytes; how many it has said since the last time.
    pub fn allow(&self, bytes: u64) -> u64 {
        let said = self.said.swap(0, Ordering::SeqCst);
        self.limit.store(bytes, Ordering::SeqCst);
        said
    }
}
