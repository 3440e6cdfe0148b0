//! A base backup: what a server answers to `BASE_BACKUP`, in both generations.

use bytes::BytesMut;

use super::session::{GREETING, begin};
use crate::proto::BackupDecoder;
use crate::{
    BackupEvent, BackupTarget, BaseBackupOptions, CompressionMethod, ServerCompression,
    ServerVersion,
};

/// The answer to `BASE_BACKUP`, in both generations. The first byte chooses; the second is how the
/// rest is cut. Asserted: archives are announced before their data and end before the next, and
/// success has its start and its end.
pub fn backup(data: &[u8]) {
    let [choice, cut, answer @ ..] = data else { return };
    let version = ServerVersion::from_num(if choice % 3 == 0 { 150_000 } else { 140_000 });
    let mut options = BaseBackupOptions::default();
    if choice & 2 != 0 {
        options.manifest = None;
    }
    if choice & 4 != 0 {
        options.compression = Some(ServerCompression::new(CompressionMethod::Zstd));
    }
    if choice & 8 != 0 {
        options.target = BackupTarget::Blackhole;
    }
    let mut output = BytesMut::new();
    let mut session = begin(&mut output);
    let mut input = BytesMut::from(GREETING);
    while let Ok(Some(_)) = session.handle(&mut input, &mut output) {}
    session.query("BASE_BACKUP", &mut output).unwrap();
    let mut decoder = BackupDecoder::new(&options, version);
    let mut open = false;
    for piece in answer.chunks(usize::from(*cut) + 1) {
        input.extend(piece);
        loop {
            match session.handle(&mut input, &mut output) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    if decoder.handle(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
            while let Some(event) = decoder.next_event() {
                open = follows(open, &event);
            }
        }
    }
    if decoder.end().is_ok() {
        assert!(decoder.start().is_some() && !decoder.tablespaces().is_empty() && !open);
    }
}

/// Whether an archive is open after this event.
fn follows(open: bool, event: &BackupEvent) -> bool {
    use BackupEvent as E;
    match event {
        E::ArchiveStart(archive) => {
            assert!(!open, "an archive begins within another");
            let suffix = archive.compression.map_or("", CompressionMethod::suffix);
            let stem = archive.name.strip_suffix(suffix).unwrap().strip_suffix(".tar").unwrap();
            assert!(stem == "base" || stem.parse::<u32>().is_ok(), "{stem:?}");
            true
        }
        E::ArchiveEnd => {
            assert!(open, "nothing to end");
            false
        }
        E::ArchiveData(data) => {
            assert!(open && !data.is_empty());
            true
        }
        E::ManifestStart | E::ManifestData(_) => {
            assert!(!open, "a manifest within an archive");
            false
        }
        E::Progress(_) => open,
    }
}
