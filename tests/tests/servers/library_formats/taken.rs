//! A base backup that the library took, unpacked into directories.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pgwire_stream::{
    Archive, BackupEnd, BackupEvent, BackupStart, BaseBackupOptions, Config, ReplicationClient,
};
use walrecv_tests::{Cluster, Context, Result, tools};

use crate::runtime::block_on;

/// A backup: its data directory, with links to its tablespaces beside it.
pub(super) struct Taken {
    pub(super) data: PathBuf,
    pub(super) manifest: Vec<u8>,
    pub(super) start: BackupStart,
    pub(super) end: BackupEnd,
}

/// Takes a backup into a new directory of the cluster's. `base` is the manifest that it is
/// incremental to.
pub(super) fn take(
    cluster: &Cluster,
    name: &str,
    options: &BaseBackupOptions,
    base: Option<&[u8]>,
) -> Result<Taken> {
    let directory = cluster.new_directory(name)?;
    let received = block_on(receive(cluster, &directory, options, base))
        .context(|| "the backup failed".to_owned())?;
    let data = directory.join("data");
    for (tablespace, archive) in &received.archives {
        match tablespace {
            None => tools::unpack(archive, &data)?,
            Some(oid) => {
                let place = directory.join(oid.to_string());
                tools::unpack(archive, &place)?;
                symlink(&place, data.join("pg_tblspc").join(oid.to_string()))
                    .context(|| "cannot link the tablespace".to_owned())?;
            }
        }
    }
    cluster.account().owns(&data)?;
    fs::set_permissions(&data, Permissions::from_mode(0o700))
        .context(|| "cannot protect the data directory".to_owned())?;
    if !received.manifest.is_empty() {
        fs::write(data.join("backup_manifest"), &received.manifest)
            .context(|| "cannot write the manifest".to_owned())?;
    }
    let Received { manifest, start, end, .. } = received;
    Ok(Taken { data, manifest, start, end })
}

struct Received {
    archives: Vec<(Option<u32>, PathBuf)>,
    manifest: Vec<u8>,
    start: BackupStart,
    end: BackupEnd,
}

async fn receive(
    cluster: &Cluster,
    directory: &Path,
    options: &BaseBackupOptions,
    base: Option<&[u8]>,
) -> std::result::Result<Received, Box<dyn std::error::Error + Send + Sync>> {
    let config: Config = cluster.superuser_conninfo().parse()?;
    let mut client = ReplicationClient::connect(&config).await?;
    if let Some(manifest) = base {
        let manifest = Bytes::copy_from_slice(manifest);
        client.upload_manifest(futures::stream::iter([io::Result::Ok(manifest)])).await?;
    }
    let mut backup = client.base_backup(options).await?;
    let (mut archives, mut manifest) = (Vec::new(), Vec::new());
    let mut open: Option<(Archive, File)> = None;
    while let Some(event) = backup.next().await? {
        match event {
            BackupEvent::ArchiveStart(archive) => {
                let path = directory.join(&archive.name);
                let file = File::create(&path)?;
                archives.push((archive.tablespace, path));
                open = Some((archive, file));
            }
            BackupEvent::ArchiveData(data) => {
                open.as_mut().ok_or("data without an archive")?.1.write_all(&data)?;
            }
            BackupEvent::ArchiveEnd => {
                if let Some((Archive { terminated: false, .. }, mut file)) = open.take() {
                    file.write_all(&[0; 1024])?;
                }
            }
            BackupEvent::ManifestData(data) => manifest.extend_from_slice(&data),
            _ => {}
        }
    }
    let start = backup.start();
    let (client, end) = backup.finish()?;
    client.close().await?;
    // The data directory comes last from some versions, and is needed first.
    archives.sort();
    Ok(Received { archives, manifest, start, end })
}
