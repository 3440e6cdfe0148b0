//! The WAL that is stored: whether a recovery gets to its end, how old it is, and how much room it takes.

use jiff::Timestamp;

use super::backups::age_in_words;
use super::{Row, State};
use crate::catalog::{
    Absence, BackupRecord, Catalog, CaughtUp, Identity, SuspectWal, WalError, WalHealth, WalStore,
};
use crate::settings::Period;
use crate::storage::{ServerDir, durable};
use crate::units::{moment, size};

const WAL_ARCHIVE: &str = "WAL archive";
const MAXIMUM_AGE: &str = "wal maximum age";
const SIZE: &str = "wal size";

/// How much room the archived WAL of the backups takes.
pub(super) fn wal_size(bytes: u64) -> Row {
    Row::remark(SIZE, State::Ok, size(bytes))
}

/// Whether WAL came, or there was none to come, within the age that it may have.
pub(super) fn maximum_age(store: &ServerDir, allowed: Option<Period>, now: Timestamp) -> Row {
    let Some(allowed) = allowed else {
        return Row::remark(MAXIMUM_AGE, State::Ok, "no last_wal_maximum_age provided");
    };
    let newest = match newest(store) {
        Ok(newest) => newest,
        Err(error) => return Row::failure(MAXIMUM_AGE, State::Failed, &error),
    };
    let Some(newest) = newest else {
        let remark = format!("interval provided: {allowed}, no WAL is stored");
        return Row::remark(MAXIMUM_AGE, State::Failed, remark);
    };
    let state = if newest >= allowed.before(now) { State::Ok } else { State::Failed };
    let age = age_in_words(newest, now);
    Row::remark(MAXIMUM_AGE, state, format!("interval provided: {allowed}, latest wal age: {age}"))
}

/// When the newest WAL came: into the archive, or beside it, or when the server was last seen to
/// have no more than is held.
fn newest(store: &ServerDir) -> Result<Option<Timestamp>, WalError> {
    let Ok(Some(identity)) = Identity::load(store) else { return Ok(None) };
    let archived = WalStore::new(store, identity.segment_size).archived_at()?;
    let streaming = durable::list_dir(&store.streaming())?;
    let received = streaming.iter().map(|name| durable::modified(&store.streaming().join(name)));
    let received = received.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().max();
    let known = CaughtUp::load(store).ok().flatten().and_then(|known| moment(known.at));
    let of_files = archived.max(received).and_then(|at| Timestamp::try_from(at).ok());
    Ok(of_files.max(known))
}

/// Whether a recovery gets from every backup to the end of WAL.
pub(super) fn wal_archive(
    store: &ServerDir,
    records: &[&BackupRecord],
    mut failed: Vec<String>,
) -> Row {
    // What is wrong with the identity has a row of its own.
    let health = match Identity::load(store) {
        Ok(Some(identity)) => Catalog::new(store).wal_health(identity.segment_size, records),
        Ok(None) | Err(_) => Ok(WalHealth::default()),
    };
    let WalHealth { gaps, suspect, none_leads_on } = match health {
        Ok(health) => health,
        Err(error) => return Row::failure(WAL_ARCHIVE, State::Failed, &error),
    };
    let mut left_out = Vec::new();
    for lost in gaps {
        let absence = lost.gap.absence;
        let list = if absence == Absence::Missing { &mut failed } else { &mut left_out };
        list.push(format!("WAL from {lost} is {absence}"));
    }
    if let Some(SuspectWal { segment, range }) = suspect.first() {
        let more = match suspect.len() {
            1 => String::new(),
            2 => ", and 1 more place is".to_owned(),
            count => format!(", and {} more places are", count - 1),
        };
        failed.push(format!(
            "WAL from {} to {} in segment {segment} is suspect: {}{more}; take a backup, because \
             none before it can be recovered beyond it",
            range.from, range.to, range.what
        ));
    }
    if none_leads_on && !left_out.is_empty() {
        failed.push(
            "what is received now can be restored from no backup: take one, which begins behind the \
             gap"
            .to_owned(),
        );
    }
    if !failed.is_empty() {
        failed.append(&mut left_out);
        return Row::remark(WAL_ARCHIVE, State::Failed, failed.join("; "));
    }
    if left_out.is_empty() {
        Row::ok(WAL_ARCHIVE)
    } else {
        Row::remark(WAL_ARCHIVE, State::Warning, left_out.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::SystemTime;

    use pgwire_stream::{
        Lsn, SegmentName, SegmentNumber, SegmentSize, ServerVersion, SystemId, TimelineId,
    };

    use super::*;
    use crate::catalog::{
        BackupOutcome, Position, SuspectRange, Validity, WalFindings, WalIndexRecord,
        WalIndexWriters, journal,
    };
    use crate::storage::{
        Access, ArchivedWal, BackupId, Codec, Home, LockKind, Plain, ServerLock, Sha256Sum, Stored,
    };

    const MIB: u64 = 1 << 20;

    fn store() -> (tempfile::TempDir, ServerDir) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path().join("home"), Access::Private);
        (directory, home.server(&"main".parse().unwrap()))
    }

    /// A store with a backup in segment 1, and WAL in these.
    fn backed_up(store: &ServerDir, held: &[u64]) {
        let (size, version) = (SegmentSize::new(MIB).unwrap(), ServerVersion::from_num(180_000));
        let system_id = SystemId::from_u64(7);
        Identity { system_id, segment_size: size, server_version: version, data_checksums: None }
            .establish(store)
            .unwrap();
        let id: BackupId = "20260305T151133".parse().unwrap();
        let position =
            |lsn| Some(Position { lsn: Lsn::from_u64(lsn), timeline: TimelineId::FIRST });
        let record = BackupRecord {
            id,
            server: store.name().clone(),
            outcome: BackupOutcome::Copied,
            name: None,
            label: String::new(),
            parent: None,
            system_id,
            segment_size: size,
            server_version: version,
            data_checksums: None,
            program_version: String::new(),
            began_at: id.time(),
            ended_at: None,
            done_at: None,
            begin: position(MIB + 40),
            end: position(MIB + 400),
            tablespaces: Vec::new(),
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        };
        fs::create_dir_all(store.backup(id).path()).unwrap();
        record.save(&store.backup(id)).unwrap();
        for number in held {
            let path = store.archived(segment(*number), Codec::None);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
    }

    fn segment(number: u64) -> SegmentName {
        let size = SegmentSize::new(MIB).unwrap();
        SegmentName::new(TimelineId::FIRST, SegmentNumber::from_u64(number), size)
    }

    fn wal_row(store: &ServerDir) -> (State, String) {
        let rows = super::super::backups(store);
        let row = rows.into_iter().find(|row| row.name == WAL_ARCHIVE).unwrap();
        (row.state, row.remark.unwrap_or_default())
    }

    #[test]
    fn wal_that_is_missing_behind_a_backup_is_told_and_why_it_is() {
        let (_directory, store) = store();
        let at = |mib| Lsn::from_u64(mib * MIB);
        backed_up(&store, &[1, 2]);
        assert_eq!(wal_row(&store), (State::Ok, String::new()));
        backed_up(&store, &[5]);
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Failed);
        assert_eq!(
            remark,
            format!(
                "WAL from 0/300000 to 0/500000 in 2 segments from {} on is missing",
                segment(3)
            )
        );
        journal::record_gap(&store, TimelineId::FIRST, at(3), at(5)).unwrap();
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Failed);
        assert!(remark.contains("from no backup: take one"), "{remark}");
        assert!(remark.ends_with("is left out, as was asked for"), "{remark}");
        // One that begins behind it makes it a thing of the past.
        let first: BackupId = "20260305T151133".parse().unwrap();
        let mut second = BackupRecord::load(&store.backup(first)).unwrap().unwrap();
        second.id = "20260306T151133".parse().unwrap();
        let behind = |lsn| Some(Position { lsn, timeline: TimelineId::FIRST });
        (second.begin, second.end) = (behind(at(5)), behind(at(5).saturating_add(400)));
        fs::create_dir_all(store.backup(second.id).path()).unwrap();
        second.save(&store.backup(second.id)).unwrap();
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Warning);
        assert!(remark.ends_with("is left out, as was asked for"), "{remark}");
        let lock = ServerLock::try_acquire(&store, LockKind::Archive).unwrap();
        journal::record_retired(&store, TimelineId::FIRST, at(2), at(5), &lock).unwrap();
        assert_eq!(wal_row(&store), (State::Ok, String::new()));
        // The backup itself needs the first one.
        fs::remove_file(store.archived(segment(1), Codec::None)).unwrap();
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Failed);
        assert!(remark.contains("backup 20260305T151133 lacks 0/100028 to"), "{remark}");
    }

    #[test]
    fn suspect_wal_is_a_failure_if_a_backup_needs_it() {
        let (_directory, store) = store();
        backed_up(&store, &[0, 1, 2, 3]);
        let lock = ServerLock::try_acquire(&store, LockKind::Archive).unwrap();
        let size = SegmentSize::new(MIB).unwrap();
        let mut indexes = WalIndexWriters::new(&store, size, Arc::new(lock));
        let mut suspect = |number| {
            let file =
                ArchivedWal { segment: segment(number), partial: false, form: Codec::None.into() };
            let from = Lsn::from_u64(number * MIB);
            let (to, what) = (from.saturating_add(8), "it is broken".to_owned());
            let findings = WalFindings {
                validity: Some(Validity::Suspect),
                suspect: vec![SuspectRange { from, to, what }],
                ..WalFindings::default()
            };
            let stored = Stored { size: 0, sha256: Sha256Sum::of(b"") };
            let record = WalIndexRecord::new(file, Plain::default(), stored).with(findings);
            indexes.append(&[record]).unwrap();
        };
        // What lies before the oldest backup harms nobody.
        suspect(0);
        assert_eq!(wal_row(&store), (State::Ok, String::new()));
        suspect(2);
        suspect(3);
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Failed);
        let expected =
            format!("0/200000 to 0/200008 in segment {} is suspect: it is broken", segment(2));
        assert!(remark.contains(&expected), "{remark}");
        assert!(remark.contains("1 more place"), "{remark}");
    }

    #[test]
    fn wal_that_no_longer_comes_is_too_old() {
        let (_directory, store) = store();
        let now = Timestamp::now();
        let told = |hours: i64| {
            let now = now + jiff::SignedDuration::from_hours(hours);
            maximum_age(&store, Some("2 HOURS".parse().unwrap()), now)
        };
        assert_eq!(maximum_age(&store, None, now).state, State::Ok);
        assert_eq!(told(0).state, State::Failed, "there is none");
        backed_up(&store, &[1]);
        assert_eq!(told(1).state, State::Ok);
        let row = told(3);
        assert_eq!(row.state, State::Failed);
        assert!(row.remark.unwrap().starts_with("interval provided: 2 HOURS, latest wal age: "));
        // A server that has nothing to send is well.
        let at = SystemTime::from(now + jiff::SignedDuration::from_hours(2)).into();
        let caught_up = CaughtUp { at, lsn: Lsn::from_u64(MIB), timeline: TimelineId::FIRST };
        fs::create_dir_all(store.state()).unwrap();
        caught_up.save(&store).unwrap();
        assert_eq!(told(3).state, State::Ok);
    }
}
