//! Writing down what a client and a server say to each other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use crate::failure::{Context, Failure, Result};

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Whoever connected.
    Client,
    /// PostgreSQL.
    Server,
}

/// What was said over one connection, in the order in which it was heard: nobody has heard what
/// stands behind it.
pub type Conversation = Vec<(Speaker, Vec<u8>)>;

/// Lets `talk` speak to the server behind a port by way of another port, which it is given, and
/// writes down the one connection that it makes. Without encryption, or it is of little use.
pub fn record(server: u16, talk: impl FnOnce(u16) -> Result<()>) -> Result<Conversation> {
    let about = || "cannot listen on 127.0.0.1".to_owned();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(about)?;
    let port = listener.local_addr().context(about)?.port();
    let heard = thread::spawn(move || listen(&listener, server));
    // If it has failed, there may never be a connection to wait for.
    talk(port)?;
    heard.join().unwrap_or_else(|_| Err(Failure::new("the recorder panicked")))
}

fn listen(listener: &TcpListener, server: u16) -> Result<Conversation> {
    let about = || "cannot pass on what is said".to_owned();
    let (client, _) = listener.accept().context(about)?;
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).context(about)?;
    let heard = Mutex::new(Conversation::new());
    thread::scope(|scope| {
        scope.spawn(|| pass_on(&client, &server, Speaker::Client, &heard));
        pass_on(&server, &client, Speaker::Server, &heard);
    });
    heard.into_inner().context(about)
}

/// Passes on what one of them says until it has said everything, or the other listens no more.
fn pass_on(
    mut from: &TcpStream,
    mut to: &TcpStream,
    speaker: Speaker,
    heard: &Mutex<Conversation>,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let said = buffer.get(..length).unwrap_or_default();
        // Written down before it is heard, so that no answer stands before its question.
        if let Ok(mut heard) = heard.lock() {
            heard.push((speaker, said.to_vec()));
        }
        if to.write_all(said).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
