//! Receives what an output plugin makes of the changes in a database. The library brings the
//! plugin's messages as they are: `pgoutput`, `wal2json` and the rest have formats of their own.
//!
//! ```sh
//! cargo run -p pgwire-stream-examples --bin logical_stream -- "host=localhost dbname=shop" \
//!     my_slot pgoutput proto_version=1 publication_names=my_publication
//! ```

// Examples are for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pgwire_stream::{
    Config, LogicalSlot, ReplicationClient, SlotName, StartLogical, StreamEnd, WalEvent,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("logical_stream CONNINFO SLOT PLUGIN [NAME=VALUE]...");
    let (conninfo, slot, plugin) = (next()?, next()?.parse::<SlotName>()?, next()?);

    // Changes are decoded within a database, so that is what we connect to.
    let mut client = ReplicationClient::connect_database(&Config::load(&conninfo)?).await?;
    match client.create_logical_slot(&slot, &LogicalSlot::new(plugin)).await {
        Ok(created) => println!("slot {slot} begins at {}", created.consistent_point),
        Err(error) if error.is_slot_present() => println!("slot {slot} goes on"),
        Err(error) => return Err(error.into()),
    }
    let mut options = StartLogical::new(slot);
    for argument in arguments {
        let (name, value) = argument.split_once('=').ok_or("options look like NAME=VALUE")?;
        options.options.push((name.to_owned(), Some(value.to_owned())));
    }
    let mut stream = client.start_logical_replication(options).await?;
    let progress = stream.progress();
    while let Some(event) = stream.next().await? {
        match event {
            WalEvent::Data(message) => {
                println!("{} {}", message.start, message.data.escape_ascii());
            }
            // All that came before is printed, and the rest up to here does not concern this slot:
            // the server may forget it.
            WalEvent::Keepalive(keepalive) => progress.flushed(keepalive.server_end)?,
            _ => {}
        }
    }
    match stream.finish()? {
        (_, StreamEnd::ServerShutdown) => println!("the server has shut down"),
        (_, end) => println!("{end:?}"),
    }
    Ok(())
}
