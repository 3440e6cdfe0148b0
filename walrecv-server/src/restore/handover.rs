//! What makes extracted files a data directory that recovers as planned: the links to its
//! tablespaces, and what the server is told.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pgwire_stream::backup_label;
use pgwire_stream::tablespace_map::{self, MappedTablespace, TablespaceMap};

use super::beneath::Root;
use super::error::RestoreError;
use super::extract::LABEL_LIMIT;
use super::neutralise::{CONF_LIMIT, Neutraliser, Tree};
use super::outside::{self, OutsideFiles};
use super::plan::Plan;
use super::recovery;

/// More than any cluster has of a `tablespace_map`.
const MAP_LIMIT: u64 = 16 << 20;

/// Files of the origin by which it was told to be a standby or to recover, or that a server of
/// another version would stumble over.
const SIGNALS: [&str; 3] = ["standby.signal", "recovery.signal", "recovery.conf"];

/// Prepares the data directory. Returns what the operator should know.
pub(super) fn prepare(
    plan: &Plan,
    root: &mut Root,
    file_mode: u32,
) -> Result<Vec<String>, RestoreError> {
    let mut notes = Vec::new();
    link_tablespaces(plan, root, file_mode)?;
    if !plan.sources.ancestors.is_empty() {
        make_full(root, file_mode)?;
    }
    for signal in SIGNALS {
        if root.remove(signal.as_bytes())? {
            notes.push(format!("removed `{signal}`, which came with the backup"));
        }
    }
    let has_conf = neutralise(plan, root, file_mode, &mut notes)?;
    let mut conf = root.read(b"postgresql.auto.conf", CONF_LIMIT)?.unwrap_or_default();
    if conf.last().is_some_and(|&byte| byte != b'\n') {
        conf.push(b'\n');
    }
    let heading = format!("# Recovery of backup {} of server {}.\n", plan.backup, plan.server);
    conf.extend_from_slice(heading.as_bytes());
    conf.extend_from_slice(recovery::to_conf(&plan.settings.auto_conf).as_bytes());
    root.replace(b"postgresql.auto.conf", &conf, file_mode)?;
    if let Some(settings) = &plan.settings.recovery_conf {
        let content = heading + &recovery::to_conf(settings);
        root.replace(b"recovery.conf", content.as_bytes(), file_mode)?;
    }
    if plan.settings.recovery_signal {
        root.replace(b"recovery.signal", b"", file_mode)?;
    }
    if plan.settings.standby_signal {
        root.replace(b"standby.signal", b"", file_mode)?;
    }
    notes.push(
        "archiving and synchronous replication are off in `postgresql.auto.conf`; set them again \
         when the server has taken over"
            .to_owned(),
    );
    if !has_conf {
        notes.push(
            "`postgresql.conf` is not in the backup, because it lay outside the data directory: \
             provide one before you start the server"
                .to_owned(),
        );
    }
    Ok(notes)
}

/// A server refuses to start from an incremental backup, which its label says that this one was.
fn make_full(root: &mut Root, file_mode: u32) -> Result<(), RestoreError> {
    let name = backup_label::FILE_NAME.as_bytes();
    let label = root.read(name, LABEL_LIMIT)?.unwrap_or_default();
    let label = backup_label::without_incremental_lines(&label);
    Ok(root.replace(name, &label, file_mode)?)
}

/// Restores the configuration files that lay outside, and takes out of all configuration what
/// belongs to the original machine. The answer is whether there is a `postgresql.conf`.
fn neutralise(
    plan: &Plan,
    root: &mut Root,
    file_mode: u32,
    notes: &mut Vec<String>,
) -> Result<bool, RestoreError> {
    let files = plan.config_files.as_ref();
    let mut outside =
        files.map(|files| outside::write(files, super::recipient(plan))).transpose()?;
    let mut neutraliser = Neutraliser::new(root, outside.as_mut(), file_mode);
    neutraliser.file(Tree::Data, b"postgresql.auto.conf")?;
    let mut has_conf = neutraliser.file(Tree::Data, b"postgresql.conf")?;
    if let Some(main) = files.and_then(OutsideFiles::main) {
        has_conf |= neutraliser.file(Tree::Outside, main)?;
    }
    notes.append(&mut neutraliser.notes);
    for (file, setting) in &neutraliser.pointers {
        if files.is_none_or(|files| !files.pointers.contains_key(setting.as_str())) {
            notes.push(format!(
                "`{file}` sets `{setting}`, as on the original machine: check it before you start \
                 the server"
            ));
        }
    }
    if let Some(outside) = &mut outside {
        outside.sync()?;
    }
    Ok(has_conf)
}

/// A server makes the links itself from `tablespace_map` when it first starts, so that both must
/// say the same.
fn link_tablespaces(plan: &Plan, root: &mut Root, file_mode: u32) -> Result<(), RestoreError> {
    let places: BTreeMap<u32, PathBuf> = plan
        .tablespaces
        .iter()
        .filter(|tablespace| !tablespace.in_place)
        .map(|tablespace| (tablespace.oid, tablespace.directory.clone()))
        .collect();
    let name = tablespace_map::FILE_NAME.as_bytes();
    let version = plan.sources.record.server_version;
    let backup = plan.backup;
    let unusable = |source| RestoreError::MapFormat { backup, source };
    let map = root.read(name, MAP_LIMIT)?.unwrap_or_default();
    let map = TablespaceMap::parse(&map, version).map_err(unusable)?;
    let named: BTreeSet<u32> = map.tablespaces.iter().map(|tablespace| tablespace.oid).collect();
    if !named.iter().eq(places.keys()) {
        return Err(RestoreError::TablespaceMap { backup });
    }
    if places.is_empty() {
        return Ok(());
    }
    for (oid, directory) in &places {
        root.link(directory, format!("pg_tblspc/{oid}").as_bytes())?;
    }
    let tablespaces = places
        .iter()
        .map(|(&oid, directory)| MappedTablespace {
            oid,
            path: directory.as_os_str().as_bytes().to_vec(),
        })
        .collect();
    let map = TablespaceMap { tablespaces }.write(version).map_err(unusable)?;
    Ok(root.replace(name, &map, file_mode)?)
}
