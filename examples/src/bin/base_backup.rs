//! Takes a base backup into a directory, one tar archive per tablespace.
//!
//! ```sh
//! cargo run -p pgwire-stream-examples --bin base_backup -- "host=localhost user=postgres" backup
//! ```

// Examples are for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs::File;
use std::io::Write;
use std::path::Path;

use pgwire_stream::{BackupEvent, BaseBackupOptions, Config, Feature, ReplicationClient};

/// A tar archive ends with two blocks of zeros, which servers up to 14 leave out.
const END_OF_TAR: [u8; 1024] = [0; 1024];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let conninfo = arguments.next().unwrap_or_default();
    let directory = arguments.next().ok_or("usage: base_backup CONNINFO DIRECTORY")?;
    let directory = Path::new(&directory);
    std::fs::create_dir(directory)?;

    let client = ReplicationClient::connect(&Config::load(&conninfo)?).await?;
    let mut options = BaseBackupOptions::default();
    options.fast_checkpoint = true;
    if !client.server_version().supports(Feature::Manifest) {
        options.manifest = None;
    }
    let mut backup = client.base_backup(&options).await?;
    println!("begins at {}", backup.start().lsn);

    let mut file: Option<(File, bool)> = None;
    while let Some(event) = backup.next().await? {
        match (event, &mut file) {
            (BackupEvent::ArchiveStart(archive), file) => {
                println!("{}", archive.name);
                let created = File::create_new(directory.join(&archive.name))?;
                *file = Some((created, archive.terminated));
            }
            (BackupEvent::ManifestStart, file) => {
                *file = Some((File::create_new(directory.join("backup_manifest"))?, true));
            }
            (BackupEvent::ArchiveData(data) | BackupEvent::ManifestData(data), Some((file, _))) => {
                file.write_all(&data)?;
            }
            (BackupEvent::ArchiveEnd, Some((file, terminated))) if !*terminated => {
                file.write_all(&END_OF_TAR)?;
            }
            _ => {}
        }
    }
    // Only this says that the backup is good.
    let (client, end) = backup.finish()?;
    println!("needs WAL up to {}", end.lsn);
    client.close().await?;
    Ok(())
}
