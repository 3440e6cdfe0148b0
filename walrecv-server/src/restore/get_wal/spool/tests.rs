//! What lies ready is whole, and of the right archive.

use std::io::Read;

use super::*;

const MIB: usize = 1 << 20;

fn size() -> SegmentSize {
    SegmentSize::new(MIB as u64).unwrap()
}

fn segment(timeline: u32, number: u32) -> SegmentName {
    format!("{timeline:08X}00000000{number:08X}").parse().unwrap()
}

fn spool(pg_wal: &Path, home: &str) -> Spool {
    let server = "main".parse().unwrap();
    Spool::beside(&pg_wal.join("RECOVERYXLOG"), Path::new(home), &server).unwrap()
}

fn names(spool: &Spool) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(&spool.directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !OTHERS.contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

#[test]
fn only_a_recovering_server_has_one() {
    let server = "main".parse().unwrap();
    let beside = |name| Spool::beside(Path::new(name), Path::new("/srv"), &server);
    assert!(beside("pg_wal/RECOVERYXLOG").is_some());
    assert!(beside("pg_wal/RECOVERYHISTORY").is_some());
    assert!(beside("/tmp/000000010000000000000001").is_none());
    assert!(beside("/").is_none());
}

#[test]
fn what_lies_ready_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), "/srv");
    let destination = dir.path().join("RECOVERYXLOG");
    assert!(spool.fill().is_none(), "nobody prepared it");
    assert_eq!(spool.take(segment(1, 1), &destination), None);
    spool.prepare(size()).unwrap();
    let filling = spool.fill().unwrap();
    assert!(spool.is_being_filled() && spool.fill().is_none());
    filling.put(segment(1, 1), &mut &vec![7; MIB][..]).unwrap();
    assert!(filling.has(segment(1, 1)) && spool.has(segment(1, 1)));
    drop(filling);
    assert!(!spool.is_being_filled());
    assert_eq!(spool.take(segment(1, 1), &destination), Some(size()));
    assert_eq!(fs::read(&destination).unwrap(), vec![7; MIB]);
    assert_eq!(spool.take(segment(1, 1), &destination), None);
    assert_eq!(fs::read(&destination).unwrap(), vec![7; MIB]);
}

#[test]
fn what_is_not_whole_never_lies_ready() {
    struct Damaged;
    impl Read for Damaged {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), "/srv");
    spool.prepare(size()).unwrap();
    let filling = spool.fill().unwrap();
    for length in [0, MIB - 1, MIB + 1] {
        assert!(filling.put(segment(1, 1), &mut &vec![7; length][..]).is_err());
    }
    assert!(filling.put(segment(1, 1), &mut vec![7; MIB].chain(Damaged)).is_err());
    assert!(names(&spool).is_empty());
    // Whatever came there by another way.
    fs::write(spool.directory.join(segment(1, 1).to_string()), b"short").unwrap();
    assert_eq!(spool.take(segment(1, 1), &dir.path().join("RECOVERYXLOG")), None);
}

#[test]
fn another_archive_or_another_boot_has_nothing_ready() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (spool(dir.path(), "/srv"), spool(dir.path(), "/other"));
    ours.prepare(size()).unwrap();
    ours.fill().unwrap().put(segment(1, 1), &mut &vec![7; MIB][..]).unwrap();
    let destination = dir.path().join("RECOVERYXLOG");
    let rebooted = Spool { source: ours.source.replacen('-', "+", 1), ..ours.clone() };
    for other in [&theirs, &rebooted] {
        assert_eq!(other.take(segment(1, 1), &destination), None);
        assert!(other.fill().is_none());
    }
    theirs.prepare(size()).unwrap();
    assert!(names(&theirs).is_empty());
    assert!(ours.fill().is_none());
}

#[test]
fn what_is_not_wanted_any_more_goes() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), "/srv");
    spool.prepare(size()).unwrap();
    let filling = spool.fill().unwrap();
    for (timeline, number) in [(1, 1), (1, 3), (2, 3), (2, 4)] {
        filling.put(segment(timeline, number), &mut &vec![7; MIB][..]).unwrap();
    }
    fs::write(spool.directory.join(".000000010000000000000009.tmp"), b"half").unwrap();
    let wanted = [segment(2, 3), segment(2, 4), segment(2, 5)];
    filling.keep_only(&wanted).unwrap();
    assert_eq!(names(&spool), [segment(2, 3).to_string(), segment(2, 4).to_string()]);
    // Asked for timeline 3 first, which does not have it.
    spool.end_at(segment(3, 4));
    assert_eq!(names(&spool).len(), 2);
    spool.end_at(segment(2, 5));
    assert!(!spool.directory.exists());
    spool.remove();
}

#[test]
fn whoever_fills_a_removed_spool_stops() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), "/srv");
    spool.prepare(size()).unwrap();
    let filling = spool.fill().unwrap();
    spool.remove();
    let put = |filling: &Filling| filling.put(segment(1, 1), &mut &vec![7; MIB][..]);
    assert!(put(&filling).is_err());
    // Not even into one that was made meanwhile.
    spool.prepare(size()).unwrap();
    assert!(put(&filling).is_err());
    assert!(names(&spool).is_empty());
    // The one that ends does not take the other with it.
    filling.finish();
    assert!(spool.directory.exists());
    spool.fill().unwrap().finish();
    assert!(!spool.directory.exists());
}

#[test]
fn what_was_passed_is_not_made_ready() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), "/srv");
    spool.passed(segment(1, 1));
    assert!(!spool.directory.exists());
    spool.prepare(size()).unwrap();
    let filling = spool.fill().unwrap();
    assert!(filling.is_ahead(segment(1, 1)));
    spool.passed(segment(1, 4));
    let ahead = [segment(1, 3), segment(1, 4), segment(1, 5), segment(2, 5)];
    assert_eq!(ahead.map(|segment| filling.is_ahead(segment)), [false, false, true, false]);
    let abandoned = filling.abandoned().unwrap();
    let watcher = std::thread::spawn(abandoned);
    assert!(!watcher.is_finished());
    spool.remove();
    watcher.join().unwrap();
}

#[test]
fn it_is_bounded() {
    assert_eq!(Spool::room_for(size(), 8), 8);
    assert_eq!(Spool::room_for(SegmentSize::new(256 << 20).unwrap(), 8), 2);
    assert_eq!(Spool::room_for(SegmentSize::new(1 << 30).unwrap(), 8), 0);
}
