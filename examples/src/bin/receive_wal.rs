//! Receives WAL from where the server stands, and follows it to the next timelines.
//!
//! Nothing is stored, so nothing is reported as durable. Whoever stores WAL calls
//! `progress.flushed(position)` once `fsync` has succeeded, and not before.
//!
//! ```sh
//! cargo run -p pgwire-stream-examples --bin receive_wal -- "host=localhost user=postgres" 0/5000000
//! ```

// Examples are for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pgwire_stream::{Config, Lsn, ReplicationClient, StartReplication, StreamEnd, WalEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let conninfo = arguments.next().unwrap_or_default();
    let until: Option<Lsn> = arguments.next().map(|text| text.parse()).transpose()?;

    let mut client = ReplicationClient::connect(&Config::load(&conninfo)?).await?;
    let size = client.wal_segment_size().await?;
    let system = client.identify_system().await?;
    let (mut timeline, mut from) = (system.timeline, system.flushed_to);
    loop {
        // Whole segments begin at their start.
        from = size.start_of(size.segment_of(from));
        let mut options = StartReplication::new(from);
        options.timeline = Some(timeline);
        let mut stream = client.start_replication(options).await?;
        let progress = stream.progress();
        while let Some(event) = stream.next().await? {
            if let WalEvent::Data(wal) = event {
                println!("{} … {}  {} bytes", wal.start, wal.end(), wal.data.len());
                // A server that shuts down waits until everything has arrived somewhere.
                progress.written(wal.end());
                if until.is_some_and(|until| wal.end() >= until) {
                    stream.stop()?;
                }
            }
        }
        let (idle, end) = stream.finish()?;
        match end {
            StreamEnd::NextTimeline { timeline: next, start } => {
                println!("timeline {timeline} goes on as {next} at {start}");
                (client, timeline, from) = (idle, next, start);
            }
            StreamEnd::ServerShutdown | StreamEnd::Stopped => {
                println!("{end:?}");
                return Ok(());
            }
        }
    }
}
