//! Configuration files outside of the data directory, as Debian has them: no base backup holds
//! them, and a server does not start without.
//!
//! SQL tells where they are, and what is in them, to a role that may read the settings and these
//! files. What it does not tell is missing, and the backup is as good as without.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use pgwire_stream::ReplicationClient;
use tokio::task::JoinSet;

use super::blocking::finished;
use super::{BackupError, sql};
use crate::catalog::ConfigFiles;
use crate::storage::durable::AtomicFile;
use crate::storage::{BackupDir, HashingWriter, Packing, StorageError};

/// How long they are waited for at a time.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest file that is kept. Longer ones are no configuration.
const MAX_SIZE: usize = 1 << 20;

/// The most that is kept of all of them, which is in memory at once.
const MAX_TOTAL: usize = 4 << 20;

/// The most files that are kept.
const MOST: usize = 100;

/// Where the files are: the first question is answered to `pg_read_all_settings`, the second, which
/// knows included files, to superusers and to whom they let.
const QUESTIONS: [&str; 2] = [
    "SELECT setting, name FROM pg_catalog.pg_settings \
     WHERE name IN ('config_file', 'hba_file', 'ident_file')",
    "SELECT DISTINCT sourcefile FROM pg_catalog.pg_file_settings",
];

/// What the server tells of its configuration files.
#[derive(Debug, Default)]
pub(super) struct Collected {
    files: Vec<(String, Vec<u8>)>,
    /// Those that it does not let us read, or that are too long.
    closed: Vec<String>,
    /// Those that a setting names.
    named: BTreeMap<String, String>,
}

/// Files that the server is asked for while something else goes on.
pub(super) struct Asked {
    conninfo: String,
    /// Ended when this is dropped: a backup that fails has no use for them.
    asking: JoinSet<Option<Collected>>,
    told: Option<Collected>,
}

impl Asked {
    /// Nobody has asked for them yet.
    pub(super) fn of(conninfo: String) -> Self {
        Self { conninfo, asking: JoinSet::new(), told: None }
    }

    /// Asks for them, on another connection, unless that was done.
    pub(super) fn begin(&mut self) {
        if self.asking.is_empty() && self.told.is_none() {
            self.asking.spawn(collect(self.conninfo.clone()));
        }
    }

    /// Waits until that connection is no more. Can be dropped at any time.
    pub(super) async fn wait(&mut self) {
        if let Some(told) = self.asking.join_next().await {
            self.told = finished(told);
        }
    }

    /// What the server has told. If it told nothing, it is asked once more: it may have been busy.
    pub(super) async fn end(mut self) -> Option<Collected> {
        self.wait().await;
        match self.told {
            None => collect(self.conninfo).await,
            told => told,
        }
    }
}

/// Asks for the files; `None` if there is no connection for that, or no answer in time.
async fn collect(conninfo: String) -> Option<Collected> {
    tokio::time::timeout(PATIENCE, ask(conninfo)).await.ok().flatten()
}

async fn ask(conninfo: String) -> Option<Collected> {
    let mut client = sql::connect(conninfo).await?;
    let data_directory = match client.show("data_directory").await {
        Ok(directory) => directory,
        Err(error) if error.server_error().is_some() => {
            tracing::info!("configuration files are not kept: the role may not ask for them");
            return Some(Collected::default());
        }
        Err(_) => return None,
    };
    let below = format!("{}/", data_directory.trim_end_matches('/'));
    let mut paths: Vec<String> = Vec::new();
    let mut collected = Collected::default();
    for question in QUESTIONS {
        // What one question is not answered, the other may be.
        let Ok(answer) = client.query(question).await else { continue };
        for row in &answer.rows {
            let Some(path) = row.text(0) else { continue };
            let is_new = !paths.iter().any(|known| known == path);
            let is_outside = path.starts_with('/') && !path.starts_with(&below);
            // Nothing that would lead an archive astray.
            let is_plain = !path.split('/').any(|part| part == "..");
            if !is_outside || !is_plain || paths.len() >= MOST {
                continue;
            }
            if let Some(setting) = row.text(1) {
                collected.named.insert(setting.to_owned(), path.to_owned());
            }
            if is_new {
                paths.push(path.to_owned());
            }
        }
    }
    let mut room = MAX_TOTAL;
    for path in paths {
        match read(&mut client, &path).await.filter(|content| content.len() <= room) {
            Some(content) => {
                room -= content.len();
                collected.files.push((path, content));
            }
            None => collected.closed.push(path),
        }
    }
    // What was wanted is here, with or without a goodbye.
    let _ = client.close().await;
    Some(collected)
}

async fn read(client: &mut ReplicationClient, path: &str) -> Option<Vec<u8>> {
    let literal = path.replace('\'', "''");
    let sql = format!(
        "SELECT pg_catalog.encode(pg_catalog.pg_read_binary_file(E'{}', 0, {}), 'hex')",
        literal.replace('\\', "\\\\"),
        MAX_SIZE + 1
    );
    let answer = client.query(&sql).await.ok()?;
    let digits = answer.single()?.as_bytes();
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes.filter(|bytes| bytes.len() <= MAX_SIZE)
}

/// Puts the files into an archive of their own; `None` if there are none outside of the data
/// directory. Durable on return.
pub(super) fn store(
    collected: Collected,
    directory: &BackupDir,
    packing: &Packing,
) -> Result<Option<ConfigFiles>, BackupError> {
    let Collected { files, closed, named } = collected;
    if files.is_empty() && closed.is_empty() {
        return Ok(None);
    }
    let names = files.iter().map(|(path, _)| path.clone()).collect();
    let form = packing.form();
    let mut kept = ConfigFiles { files: names, closed, named, ..ConfigFiles::default() };
    if files.is_empty() {
        return Ok(Some(kept));
    }
    let target = directory.config_files(form);
    let failed = || StorageError::of("write", &target);
    let file = HashingWriter::new(AtomicFile::create(&target, directory.access())?);
    let writer = packing.writer(file).map_err(failed())?;
    let writer = write_archive(writer, &files).map_err(failed())?;
    let (file, _) = writer.finish().map_err(failed())?;
    let (file, stored) = file.finish().map_err(failed())?.finish();
    file.commit()?;
    kept.codec = form.codec;
    kept.encrypted = form.encrypted;
    kept.stored = Some(stored);
    Ok(Some(kept))
}

/// Paths lose their leading slash, as `tar` itself would have it.
fn write_archive<W: Write>(into: W, files: &[(String, Vec<u8>)]) -> io::Result<W> {
    let mut archive = tar::Builder::new(into);
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, path.trim_start_matches('/'), content.as_slice())?;
    }
    archive.into_inner()
}
