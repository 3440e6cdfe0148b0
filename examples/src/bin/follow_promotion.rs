//! Stays with a cluster when its primary is lost and a standby takes over: one list of hosts, and
//! the WAL of the old timeline up to where the new one left it.
//!
//! ```sh
//! cargo run -p pgwire-stream-examples --bin follow_promotion -- \
//!     "host=db1,db2 user=postgres target_session_attrs=read-write connect_timeout=5"
//! ```

// Examples are for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::time::Duration;

use pgwire_stream::{
    Advice, Config, Error, Lsn, ReplicationClient, StartReplication, StreamEnd, TimelineId,
    WalEvent,
};

/// How far we are: the only thing that has to outlive a connection. An archiver reads it from its
/// files.
struct Position {
    timeline: TimelineId,
    lsn: Lsn,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let conninfo = std::env::args().nth(1).unwrap_or_default();
    let config = Config::load(&conninfo)?;
    let mut position = None;
    loop {
        match follow(&config, &mut position).await {
            Ok(()) => println!("the server has shut down"),
            // Such as a host that is gone, or a standby that is not yet promoted.
            Err(error) if error.advice() == Advice::Retry => println!("lost: {error}"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Streams over one connection, until the server shuts down.
async fn follow(config: &Config, position: &mut Option<Position>) -> Result<(), Error> {
    let mut client = ReplicationClient::connect(config).await?;
    let system = client.identify_system().await?;
    println!("connected to timeline {} at {}", system.timeline, system.flushed_to);
    let current = || Position { timeline: system.timeline, lsn: system.flushed_to };
    let at = position.get_or_insert_with(current);
    if system.timeline > at.timeline {
        // The server may have come here over more than one promotion.
        let history = client.timeline_history(system.timeline).await?.parse()?;
        match history.fork_from(at.timeline) {
            Some(fork) if fork < at.lsn => {
                println!("what was received behind {fork} has died with the old primary");
                at.lsn = fork;
            }
            Some(fork) => println!("timeline {} was left at {fork}", at.timeline),
            None => println!("timeline {} is not in the past of this server", at.timeline),
        }
    }
    loop {
        // Always ask for the timeline that we are on, even of a server that is on another: it
        // sends the rest of ours, and then says where the next one begins.
        let mut options = StartReplication::new(at.lsn);
        options.timeline = Some(at.timeline);
        let mut stream = client.start_replication(options).await?;
        println!("streaming timeline {} from {}", at.timeline, at.lsn);
        while let Some(event) = stream.next().await? {
            if let WalEvent::Data(wal) = event {
                at.lsn = wal.end();
                // A server that shuts down waits until what it sent has arrived.
                stream.progress().written(at.lsn);
            }
        }
        match stream.finish()? {
            (idle, StreamEnd::NextTimeline { timeline, start }) => {
                println!("timeline {} goes on as {timeline} at {start}", at.timeline);
                // `start` may lie before what came: half a record at the old timeline's end.
                *at = Position { timeline, lsn: start };
                client = idle;
            }
            (_, StreamEnd::ServerShutdown | StreamEnd::Stopped) => return Ok(()),
        }
    }
}
