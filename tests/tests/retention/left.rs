//! What lies in a store, by its names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use walrecv_server::storage::BackupId;

use crate::world::{SEGMENT, Store};

/// What lies in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) backups: BTreeSet<BackupId>,
    /// How much WAL is in each file.
    pub(crate) wal: BTreeMap<(u32, u64), u64>,
    /// Those of the archive.
    pub(crate) archived: BTreeSet<(u32, u64)>,
    /// Every name.
    pub(crate) names: BTreeSet<String>,
}

fn segment(name: &str) -> Option<(u32, u64)> {
    let name = name.get(..24)?;
    let part = |from: usize| u64::from_str_radix(&name[from..from + 8], 16).ok();
    let per_log = (1 << 32) / SEGMENT;
    Some((u32::try_from(part(0)?).ok()?, part(8)? * per_log + part(16)?))
}

fn walk(directory: &Path, take: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        take(&path);
        if path.is_dir() {
            walk(&path, take);
        }
    }
}

impl Left {
    pub(crate) fn of(store: &Store) -> Self {
        let mut left = Self {
            backups: BTreeSet::new(),
            wal: BTreeMap::new(),
            archived: BTreeSet::new(),
            names: BTreeSet::new(),
        };
        walk(store.server.path(), &mut |path| {
            let relative = path.strip_prefix(store.server.path()).unwrap();
            let relative = relative.to_str().unwrap();
            // What is noted of what was done, and who does it, is no part of it.
            if !relative.starts_with("locks") && !relative.starts_with("state") {
                left.names.insert(relative.to_owned());
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(id) = relative.strip_prefix("base/").and_then(|id| id.parse().ok()) {
                left.backups.insert(id);
            }
            if let Some(segment) = segment(name).filter(|_| path.is_file()) {
                let partial = name.ends_with(".partial");
                let length = if partial { fs::metadata(path).unwrap().len() } else { SEGMENT };
                let known = left.wal.entry(segment).or_default();
                *known = length.max(*known);
                if relative.starts_with("wals") {
                    left.archived.insert(segment);
                }
            }
        });
        left
    }
}
