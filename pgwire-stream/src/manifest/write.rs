//! Writing a manifest, byte for byte as a server writes it.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

#[cfg(any(test, feature = "fuzzing"))]
use super::ManifestItem;
use super::hex::hex;
use super::{ManifestFile, WalRange};
use crate::SystemId;

/// Writes a manifest: the files as they come, then [`finish`](Self::finish) with the WAL ranges.
#[derive(Debug)]
pub struct ManifestWriter<W> {
    into: W,
    hash: Sha256,
    first: bool,
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
        let mut writer = Self { into, hash: Sha256::new(), first: true };
        writer.put(head)?;
        Ok(writer)
    }

    /// Adds a file.
    pub fn file(&mut self, file: &ManifestFile) -> io::Result<()> {
        let mut entry = String::from(if self.first { "\n" } else { ",\n" });
        self.first = false;
        match std::str::from_utf8(&file.path) {
            Ok(path) => entry.push_str(&format!("{{ \"Path\": {}, ", json_text(path)?)),
            Err(_) => entry.push_str(&format!("{{ \"Encoded-Path\": \"{}\", ", hex(&file.path))),
        }
        entry.push_str(&format!("\"Size\": {}, ", file.size));
        entry.push_str(&format!("\"Last-Modified\": {}", json_text(&file.modified)?));
        if let Some((algorithm, digest)) = &file.checksum {
            entry.push_str(&format!(
                ", \"Checksum-Algorithm\": \"{algorithm}\", \"Checksum\": \"{}\"",
                hex(digest)
            ));
        }
        entry.push_str(" }");
        self.put(&entry)
    }

    /// Ends the manifest with the WAL that the backup needs, the newest timeline first, and the
    /// manifest's own checksum. Does not flush `W`.
    pub fn finish(mut self, wal: &[WalRange]) -> io::Result<W> {
        self.put("\n],\n\"WAL-Ranges\": [\n")?;
        for (n, range) in wal.iter().enumerate() {
            self.put(&format!(
                "{}{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                if n == 0 { "" } else { ",\n" },
                range.timeline,
                range.start,
                range.end
            ))?;
        }
        self.put("\n],\n")?;
        let digest = self.hash.finalize();
        self.into.write_all(last_line(&hex(&digest)).as_bytes())?;
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

/// The server's `escape_json` and serde_json escape the same characters in the same way.
fn json_text(text: &str) -> io::Result<String> {
    serde_json::to_string(text).map_err(io::Error::from)
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
