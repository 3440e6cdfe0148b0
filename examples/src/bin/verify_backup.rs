//! Verifies an unpacked backup against its manifest, as `pg_verifybackup` does, and says what it
//! needs to become a server again. No server is asked: a directory is all that it takes.
//!
//! ```sh
//! cargo run -p pgwire-stream-examples --bin verify_backup -- /srv/backup
//! ```

// Examples are for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use pgwire_stream::backup_label::BackupLabel;
use pgwire_stream::manifest::{VerifyOptions, verify_directory};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: verify_backup DIRECTORY")?;
    let directory = PathBuf::from(directory);

    // An error is a manifest that cannot be trusted, or a directory that cannot be read. Whatever
    // is wrong with the files is a problem, and the rest is still looked at.
    let verified = verify_directory(&directory, &VerifyOptions::default(), |problem| {
        println!("{problem}");
    })?;
    println!("{} files, {} bytes read", verified.files, verified.bytes);
    if verified.problems > 0 {
        println!("{} problems", verified.problems);
        return Ok(ExitCode::FAILURE);
    }

    let label = BackupLabel::parse(&std::fs::read(directory.join("backup_label"))?)?;
    println!("recovery begins at {}", label.start.lsn);
    for wal in verified.wal {
        println!("needs WAL of timeline {} from {} to {}", wal.timeline, wal.start, wal.end);
    }
    Ok(ExitCode::SUCCESS)
}
