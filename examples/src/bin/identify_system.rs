//! Asks a server which cluster it runs and where its WAL stands.
//!
//! ```sh
//! cargo run -p pgwire-stream-examples --bin identify_system -- "host=localhost user=postgres"
//! ```

// Examples are for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pgwire_stream::{Config, ReplicationClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let conninfo = std::env::args().nth(1).unwrap_or_default();
    let mut client = ReplicationClient::connect(&Config::load(&conninfo)?).await?;
    let system = client.identify_system().await?;
    println!("PostgreSQL {}", client.server_version());
    println!("system identifier  {}", system.system_id);
    println!("timeline           {}", system.timeline);
    println!("flushed to         {}", system.flushed_to);
    println!("segment size       {}", client.wal_segment_size().await?);
    client.close().await?;
    Ok(())
}
