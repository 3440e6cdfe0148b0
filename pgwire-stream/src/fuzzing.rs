//! Entry points of the fuzz targets: each takes arbitrary bytes and asserts what must hold whatever
//! they are. Not part of the API.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(missing_docs, reason = "not part of the API")]

mod session;

use bytes::Bytes;

use crate::config::fuzzing as config;
use crate::manifest::{ManifestItem, ManifestReader, rewritten};
use crate::proto::CopyBothMessage;
use crate::{Config, TimelineHistory, TimelineId};

pub use session::{backup, session};

/// A target by its name in `fuzz/`.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("session", session),
    ("wal_message", wal_message),
    ("backup", backup),
    ("history", history),
    ("conninfo", conninfo),
    ("uri", uri),
    ("passfile", passfile),
    ("manifest", manifest),
];

/// A payload of a copy-both conversation: what is decoded has its end within the address space.
pub fn wal_message(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    if let Ok(CopyBothMessage::Data(wal)) = CopyBothMessage::decode(payload.clone()) {
        assert!(!wal.data.is_empty());
        assert_eq!(wal.end().bytes_since(wal.start), wal.data.len() as u64);
        assert!(payload.as_ptr_range().contains(&wal.data.as_ptr()), "it was copied");
    }
}

/// A timeline history file: what is believed leads to its timeline, step by step.
pub fn history(data: &[u8]) {
    let Some((&number, content)) = data.split_first() else { return };
    let Some(timeline) = TimelineId::new(u32::from(number)) else { return };
    let Ok(history) = TimelineHistory::parse(timeline, content) else { return };
    assert!(history.contains(timeline));
    for pair in history.switches().windows(2) {
        assert!(pair[0].timeline < pair[1].timeline);
    }
    for switch in history.switches() {
        assert!(switch.timeline < timeline);
        assert_eq!(history.fork_from(switch.timeline), Some(switch.switch_point));
    }
}

/// A connection string in either form: never empty of hosts, and its password never shown.
pub fn conninfo(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(config) = text.parse::<Config>() else { return };
    assert!(!config.hosts.is_empty());
    let shown = format!("{config:?}");
    if let Some(password) = &config.password
        && let Ok(password) = str::from_utf8(password.as_bytes())
        && password.len() > 8
        && text.matches(password).count() == 1
    {
        assert!(!shown.contains(password), "the password is shown");
    }
}

/// A URI, whatever its scheme was.
pub fn uri(data: &[u8]) {
    conninfo(&[b"postgresql://", data].concat());
}

/// A password file: what it gives is written in it.
pub fn passfile(data: &[u8]) {
    if let Some(password) = config::look_up(data) {
        assert!(!password.is_empty() && password.len() <= data.len());
        assert!(!password.contains(&b'\n'));
    }
}

/// A manifest: any cut gives the same items, and what is read can be written and read again.
pub fn manifest(data: &[u8]) {
    let Some((&step, content)) = data.split_first() else { return };
    let whole = read_manifest(&[content]);
    let pieces: Vec<_> = content.chunks(usize::from(step) + 1).collect();
    let cut = read_manifest(&pieces);
    match (whole, cut) {
        (Some(whole), Some(cut)) => {
            assert_eq!(whole, cut);
            assert_eq!(read_manifest(&[&rewritten(&whole).unwrap()]), Some(whole));
        }
        (whole, cut) => assert_eq!(whole.is_some(), cut.is_some()),
    }
}

fn read_manifest(pieces: &[&[u8]]) -> Option<Vec<ManifestItem>> {
    let mut reader = ManifestReader::new();
    let mut items = Vec::new();
    for piece in pieces {
        items.extend(reader.feed(piece).ok()?);
    }
    reader.finish().ok()?;
    Some(items)
}
