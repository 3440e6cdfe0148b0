//! Whether what was received is what the manifest says was sent.

use pgwire_stream::SystemId;
use pgwire_stream::manifest::{ChecksumAlgorithm, ManifestFile, ManifestItem, ManifestReader};

use super::BackupError;
use super::spool::{ReceivedFile, SpoolReader};

/// The merge of the manifest with the files that were received. Bytes of the manifest in, and in
/// the end the verdict.
#[derive(Debug)]
pub(super) struct Check {
    manifest: ManifestReader,
    received: SpoolReader,
    checksums: Option<ChecksumAlgorithm>,
    system_id: SystemId,
}

impl Check {
    /// `checksums` is how the received files were hashed.
    pub(super) fn new(
        received: SpoolReader,
        checksums: Option<ChecksumAlgorithm>,
        system_id: SystemId,
    ) -> Self {
        Self { manifest: ManifestReader::new(), received, checksums, system_id }
    }

    /// Takes the next bytes of the manifest in.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        for item in self.manifest.feed(bytes)? {
            match item {
                ManifestItem::SystemId(stated) if stated != self.system_id => {
                    return Err(BackupError::ForeignManifest { stated, expected: self.system_id });
                }
                ManifestItem::File(listed) => self.file(&listed)?,
                // What the stream itself said about the WAL is what the record keeps.
                _ => {}
            }
        }
        Ok(())
    }

    /// All files are as listed, none is missing, none too many, and the manifest is unaltered.
    pub(super) fn finish(mut self) -> Result<(), BackupError> {
        if let Some(extra) = self.received.next()? {
            return Err(BackupError::ExtraFile { path: lossy(&extra.path) });
        }
        Ok(self.manifest.finish()?)
    }

    fn file(&mut self, listed: &ManifestFile) -> Result<(), BackupError> {
        match self.received.next()? {
            Some(received) if received.path == listed.path => self.compare(listed, &received),
            Some(other) => Err(self.out_of_step(listed, &other)?),
            None => Err(BackupError::MissingFile { path: lossy(&listed.path) }),
        }
    }

    fn compare(&self, listed: &ManifestFile, received: &ReceivedFile) -> Result<(), BackupError> {
        if received.size != listed.size {
            return Err(BackupError::FileSize {
                path: lossy(&listed.path),
                received: received.size,
                listed: listed.size,
            });
        }
        match (&listed.checksum, self.checksums) {
            (None, None) => Ok(()),
            (Some((algorithm, digest)), Some(computed)) if *algorithm == computed => {
                if *digest == received.digest {
                    return Ok(());
                }
                Err(BackupError::FileChecksum { path: lossy(&listed.path), algorithm: computed })
            }
            _ => Err(BackupError::ChecksumKind { path: lossy(&listed.path) }),
        }
    }

    /// The manifest lists one file where another was received: if the listed one comes later, the
    /// other is too many, else the listed one is missing.
    fn out_of_step(
        &mut self,
        listed: &ManifestFile,
        other: &ReceivedFile,
    ) -> Result<BackupError, BackupError> {
        while let Some(later) = self.received.next()? {
            if later.path == listed.path {
                return Ok(BackupError::ExtraFile { path: lossy(&other.path) });
            }
        }
        Ok(BackupError::MissingFile { path: lossy(&listed.path) })
    }
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::spool::SpoolWriter;
    use pgwire_stream::manifest::{ManifestWriter, WalRange};
    use pgwire_stream::{Lsn, TimelineId};

    const SYSTEM: SystemId = SystemId::from_u64(7);

    fn received(names: &[&str]) -> Vec<ReceivedFile> {
        let file = |name: &&str| ReceivedFile {
            path: name.as_bytes().to_vec(),
            size: 3,
            modified: 0,
            digest: vec![1, 2, 3, 4],
        };
        names.iter().map(file).collect()
    }

    fn manifest(names: &[&str]) -> Vec<u8> {
        let mut writer = ManifestWriter::version_2(Vec::new(), SYSTEM).unwrap();
        for name in names {
            writer
                .file(&ManifestFile {
                    path: name.as_bytes().to_vec(),
                    size: 3,
                    modified: "2026-11-20 11:03:39 GMT".to_owned(),
                    checksum: Some((ChecksumAlgorithm::Crc32c, vec![1, 2, 3, 4])),
                })
                .unwrap();
        }
        writer.finish(&[range()]).unwrap()
    }

    fn range() -> WalRange {
        let lsn = Lsn::from_u64;
        WalRange { timeline: TimelineId::FIRST, start: lsn(1), end: lsn(2) }
    }

    fn check(received: &[ReceivedFile], manifest: &[u8]) -> Result<(), BackupError> {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = SpoolWriter::new(directory.path()).unwrap();
        for file in received {
            spool.push(file).unwrap();
        }
        let crc = Some(ChecksumAlgorithm::Crc32c);
        let mut check = Check::new(spool.into_reader().unwrap(), crc, SYSTEM);
        check.feed(manifest)?;
        check.finish()
    }

    #[test]
    fn what_is_listed_and_received_alike_is_good() {
        let names = ["backup_label", "base/1/1259", "global/pg_control"];
        check(&received(&names), &manifest(&names)).unwrap();
    }

    #[test]
    fn the_file_that_differs_is_named() {
        let listed = manifest(&["a", "b", "c"]);
        let message = |files: &[ReceivedFile]| check(files, &listed).unwrap_err().to_string();

        for names in [["a", "c"], ["a", "b"], ["b", "c"]] {
            let gone = ["a", "b", "c"].into_iter().find(|name| !names.contains(name)).unwrap();
            let message = message(&received(&names));
            assert!(message.contains(&format!("`{gone}`")), "{message}");
            assert!(message.contains("was not received"), "{message}");
        }
        for names in [["x", "a", "b", "c"], ["a", "x", "b", "c"], ["a", "b", "c", "x"]] {
            let message = message(&received(&names));
            assert!(message.contains("`x`") && message.contains("does not list"), "{message}");
        }
        let mut files = received(&["a", "b", "c"]);
        files[1].digest[0] ^= 1;
        assert!(message(&files).contains("`b`"), "{}", message(&files));
        files = received(&["a", "b", "c"]);
        files[2].size = 4;
        assert!(message(&files).contains("`c`"), "{}", message(&files));
    }

    #[test]
    fn a_manifest_of_another_cluster_is_refused() {
        let listed = manifest(&["a"]);
        let other =
            String::from_utf8(listed).unwrap().replace("Identifier\": 7", "Identifier\": 8");
        let error = check(&received(&["a"]), other.as_bytes()).unwrap_err();
        assert!(matches!(error, BackupError::ForeignManifest { .. }), "{error:?}");
    }

    #[test]
    fn a_manifest_without_the_checksums_asked_for_is_refused() {
        let mut writer = ManifestWriter::version_1(Vec::new()).unwrap();
        let file =
            ManifestFile { path: b"a".to_vec(), size: 3, modified: String::new(), checksum: None };
        writer.file(&file).unwrap();
        let bare = writer.finish(&[range()]).unwrap();
        let error = check(&received(&["a"]), &bare).unwrap_err();
        assert!(matches!(error, BackupError::ChecksumKind { .. }), "{error:?}");
    }
}
