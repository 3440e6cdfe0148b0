//! Writing a manifest, byte for byte as a server writes it.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

#[cfg(any(test, feature = "fuzzing"))]
use super::ManifestItem;
use super::json::push_text;
use super::{ManifestFile, WalRange, hex};
use crate::{Lsn, ServerVersion, SystemId};

/// Writes a manifest: the files as they come, then [`finish`](Self::finish) with the WAL ranges.
#[derive(Debug)]
pub struct ManifestWriter<W> {
    into: W,
    hash: Sha256,
    first: bool,
    encoded: bool,
    version: ServerVersion,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins a manifest as PostgreSQL 13 to 16 write it.
    pub fn version_1(into: W) -> io::Result<Self> {
        Self::begin(into, "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [")
    }

    /// Begins a manifest as PostgreSQL 17 and later write it.
    pub fn version_2(into: W, system_id: SystemId) -> io::Result<Self> {
        let head = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\
             \"System-Identifier\": {system_id},\n\"Files\": ["
        );
        Self::begin(into, &head)
    }

    fn begin(into: W, head: &str) -> io::Result<Self> {
        let version = ServerVersion::from_num(13_0000);
        let mut writer = Self { into, hash: Sha256::new(), first: true, encoded: false, version };
        writer.put(head)?;
        Ok(writer)
    }

    /// Writes every path as `Encoded-Path`, as `MANIFEST 'force-encode'` asks for. Without, only
    /// paths that are not in UTF-8 are.
    #[must_use]
    pub fn encode_paths(mut self) -> Self {
        self.encoded = true;
        self
    }

    /// Writes WAL positions as a server of this version does: they are padded from 19 on.
    #[must_use]
    pub fn as_written_by(mut self, version: ServerVersion) -> Self {
        self.version = version;
        self
    }

    /// Adds a file.
    pub fn file(&mut self, file: &ManifestFile) -> io::Result<()> {
        let mut entry = String::from(if self.first { "\n{ " } else { ",\n{ " });
        self.first = false;
        match str::from_utf8(&file.path) {
            Ok(path) if !self.encoded => {
                entry.push_str("\"Path\": ");
                push_text(&mut entry, path);
            }
            _ => {
                let path = hex::text(&file.path);
                entry.push_str(&format!("\"Encoded-Path\": \"{path}\""));
            }
        }
        entry.push_str(&format!(", \"Size\": {}, \"Last-Modified\": ", file.size));
        push_text(&mut entry, &file.modified);
        if let Some((algorithm, digest)) = &file.checksum {
            entry.push_str(&format!(
                ", \"Checksum-Algorithm\": \"{algorithm}\", \"Checksum\": \"{}\"",
                hex::text(digest)
            ));
        }
        entry.push_str(" }");
        self.put(&entry)
    }

    /// Ends the manifest with the WAL that the backup needs, the newest timeline first, and the
    /// manifest's own checksum. Does not flush `W`.
    pub fn finish(mut self, wal: &[WalRange]) -> io::Result<W> {
        self.put("\n],\n\"WAL-Ranges\": [\n")?;
        let lsn = |lsn: Lsn| lsn.as_written_by(self.version);
        let mut ranges = String::new();
        for (n, range) in wal.iter().enumerate() {
            ranges.push_str(&format!(
                "{}{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                if n == 0 { "" } else { ",\n" },
                range.timeline,
                lsn(range.start),
                lsn(range.end)
            ));
        }
        self.put(&ranges)?;
        self.put("\n],\n")?;
        let digest = self.hash.finalize();
        self.into.write_all(last_line(&hex::text(&digest)).as_bytes())?;
        Ok(self.into)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.hash.update(text.as_bytes());
        self.into.write_all(text.as_bytes())
    }
}

/// The last line of a manifest whose other lines have this checksum.
pub(super) fn last_line(checksum: &str) -> String {
    format!("\"Manifest-Checksum\": \"{checksum}\"}}\n")
}

/// What was read from a manifest, written again: what tests and fuzz targets compare.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn rewritten(items: &[ManifestItem]) -> io::Result<Vec<u8>> {
    let system_id = items.iter().find_map(|item| match item {
        ManifestItem::SystemId(system_id) => Some(*system_id),
        _ => None,
    });
    let mut writer = match system_id {
        Some(system_id) => ManifestWriter::version_2(Vec::new(), system_id),
        None => ManifestWriter::version_1(Vec::new()),
    }?;
    let mut ranges = Vec::new();
    for item in items {
        match item {
            ManifestItem::File(file) => writer.file(file)?,
            ManifestItem::WalRange(range) => ranges.push(*range),
            ManifestItem::Version(_) | ManifestItem::SystemId(_) => {}
        }
    }
    writer.finish(&ranges)
}
