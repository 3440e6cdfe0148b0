//! A way to a server that can be cut.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use walrecv_tests::{Context, Result};

/// It leads every connection on. Dropping it cuts all of them.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Leads to this port of the same machine.
    pub(super) fn start(target: u16) -> Result<Self> {
        let about = || "cannot listen on 127.0.0.1".to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(about)?;
        let port = listener.local_addr().context(about)?.port();
        let shared = Arc::new(Shared::default());
        let proxy = Self { port, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                // A client that cannot be led on finds its connection closed.
                let _ = shared.lead(client, target);
            }
        });
        Ok(proxy)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections, at both ends.
    pub(super) fn cut(&self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lead(&self, client: TcpStream, target: u16) -> io::Result<()> {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            let stream = stream.try_clone()?;
            self.open.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
        let back = (server.try_clone()?, client.try_clone()?);
        for (mut from, mut to) in [(client, server), back] {
            std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // This wakes the thread that listens.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        self.cut();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_go_through_until_it_is_cut() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap().port()).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        client.write_all(b"there").unwrap();
        let mut buffer = [0; 5];
        accepted.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"there");
        proxy.cut();
        assert_eq!(client.read(&mut buffer).unwrap_or(0), 0);
        assert_eq!(accepted.read(&mut buffer).unwrap_or(0), 0);
    }
}
