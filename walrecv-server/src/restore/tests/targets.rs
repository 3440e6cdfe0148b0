//! Whether recovery comes to a target, and where it stops.

use super::*;

#[test]
fn targets_that_nobody_can_tell_of_are_left_to_the_server() {
    let mut store = Store::new();
    let refused = |target: RecoveryTarget| store.refusal(|request| request.target = target);
    assert!(matches!(refused(lsn("0/2000FF")), RestoreError::LsnBeforeEnd { .. }));
    assert!(matches!(refused(lsn("1/0")), RestoreError::LsnBeyondWal { .. }));
    let time = |text: &str| RecoveryTarget::time(text).unwrap();
    assert!(matches!(refused(time("2026-03-05T15:12:32Z")), RestoreError::TimeBeforeEnd { .. }));
    let tomorrow = (Timestamp::now() + 24.hours()).to_string();
    assert!(matches!(refused(time(&tomorrow)), RestoreError::TimeInFuture { .. }));
    // This WAL is none that anybody understands.
    for (version, otherwise) in [(150_020, "and says so"), (120_022, "without a word")] {
        store.record.server_version = ServerVersion::from_num(version);
        store.save();
        for target in [lsn("0/200100"), RecoveryTarget::Xid(740), time("2026-03-05T15:12:33Z")] {
            let plan = store.plan(|request| request.target = target).unwrap();
            assert!(plan.notes[0].contains(otherwise), "{:?}", plan.notes);
            assert!(!plan.recovers_all);
        }
    }
    store.record.server_version = ServerVersion::from_num(90_624);
    store.save();
    let error = store.refusal(|request| request.target = lsn("0/200100"));
    assert!(matches!(error, RestoreError::NoLsnTarget { .. }));
}

/// Seconds of a day, as WAL has them and as a person types them.
fn at(seconds: i64) -> (i64, RecoveryTarget) {
    let time = "2026-03-05T15:00:00Z".parse::<Timestamp>().unwrap() + seconds.seconds();
    let micros = PgTimestamp::from_unix_micros(time.as_microsecond()).as_micros();
    (micros, RecoveryTarget::time(&time.to_string()).unwrap())
}

#[test]
fn a_target_is_where_a_server_would_stop() {
    let mut store = Store::new();
    let size = store.record.segment_size;
    let mut wal = TestWal::new(size, 2 * MIB);
    let begin = wal.commit(700, at(100).0);
    wal.commit(701, at(110).0);
    wal.restore_point("early", PgTimestamp::from_micros(0));
    let end = wal.end();
    wal.commit(702, at(120).0);
    wal.cross_into_next_segment();
    wal.commit(703, at(130).0);
    wal.abort(704);
    wal.restore_point("late", PgTimestamp::from_micros(0));
    let last = wal.commit(705, at(140).0);
    let held_to = wal.end();
    let position = |lsn| Some(Position { lsn, timeline: TimelineId::FIRST });
    (store.record.begin, store.record.end) = (position(begin), position(end));
    store.save();
    let (whole, tail) = wal.bytes().split_at(MIB as usize);
    fs::write(store.server.archived(segment(1, 2), Codec::None), whole).unwrap();
    fs::write(store.server.streaming_partial(segment(1, 3)), tail).unwrap();

    // With nothing noted of the segments, and with all.
    for noted in [false, true] {
        if noted {
            let lock = ServerLock::acquire(&store.server, LockKind::Archive).unwrap();
            WalIndex::of(&store.server, segment(1, 2)).rebuild(size, None, &lock).unwrap();
        }
        let plan = |target: RecoveryTarget, inclusive: bool| {
            store.plan(|request| (request.target, request.inclusive) = (target, inclusive))
        };
        let reached = |target: RecoveryTarget| plan(target, true).unwrap();
        let refused = |target: RecoveryTarget| plan(target, true).unwrap_err();

        let early = plan(at(109).1, true).unwrap_err();
        assert!(matches!(early, RestoreError::TimeBeforeEnd { .. }), "{early}");
        assert!(early.hint().unwrap().contains("2026-03-05T15:01:50Z"), "{early:?}");
        // Without the target itself, a server stops in front of the transaction of that time.
        assert!(matches!(plan(at(110).1, false), Err(RestoreError::TimeBeforeEnd { .. })));
        for (target, inclusive) in [(at(110), true), (at(139), true), (at(140), false)] {
            assert!(!plan(target.1, inclusive).unwrap().recovers_all);
        }
        // What it takes up to there, and not more.
        let near = reached(at(110).1);
        assert_eq!(near.wal.needed_to, size.end_of(size.segment_of(end)));
        let times = [near.wal.first_time, near.wal.last_time].map(|time| time.unwrap().to_string());
        assert_eq!(times, ["2026-03-05T15:01:50Z", "2026-03-05T15:02:20Z"]);

        assert!(matches!(refused(RecoveryTarget::Xid(701)), RestoreError::XidBeforeEnd { .. }));
        assert!(matches!(refused(RecoveryTarget::Xid(706)), RestoreError::XidNotFound { .. }));
        for xid in [702, 704, 705, (7 << 32) + 703] {
            reached(RecoveryTarget::Xid(xid));
        }
        let name = |name: &str| RecoveryTarget::name(name).unwrap();
        assert!(matches!(refused(name("early")), RestoreError::NameBeforeEnd { .. }));
        assert!(matches!(refused(name("Late")), RestoreError::NameNotFound { .. }));
        assert!(!reached(name("late")).recovers_all);

        let lsn = |lsn: Lsn| RecoveryTarget::Lsn(lsn);
        assert!(!reached(lsn(end)).recovers_all && !reached(lsn(last)).recovers_all);
        for all in [last.saturating_add(1), held_to] {
            let plan = reached(lsn(all));
            assert!(plan.recovers_all && plan.notes[0].contains("nothing behind"), "{plan:?}");
            // Whatever arrives until the server is there does not belong to it.
            let conf = recovery::to_conf(&plan.settings.auto_conf);
            let told =
                format!("recovery_target_lsn = '{last}'\nrecovery_target_inclusive = 'true'\n");
            assert!(conf.contains(&told), "{conf}");
        }
        let beyond = refused(lsn(held_to.saturating_add(1)));
        assert!(matches!(beyond, RestoreError::LsnBeyondWal { .. }), "{beyond}");

        // Nothing ended later: that may be all, or not.
        let late = refused(at(140).1);
        assert!(matches!(late, RestoreError::TimeBeyondWal { .. }), "{late}");
        assert!(late.hint().unwrap().contains("2026-03-05T15:02:20Z"), "{late:?}");
        let seen = PgTimestamp::from_micros(at(200).0);
        let caught_up = CaughtUp { at: seen, lsn: held_to, timeline: TimelineId::FIRST };
        caught_up.save(&store.server).unwrap();
        assert!(reached(at(140).1).recovers_all && reached(at(200).1).recovers_all);
        assert!(matches!(refused(at(201).1), RestoreError::TimeBeyondWal { .. }));
        CaughtUp { lsn: held_to.saturating_add(8), ..caught_up }.save(&store.server).unwrap();
        assert!(matches!(refused(at(200).1), RestoreError::TimeBeyondWal { .. }));
        fs::remove_file(store.server.caught_up()).unwrap();
    }
    // Behind a gap there may be anything.
    store.archive_wal(1, 5);
    for target in [RecoveryTarget::Xid(706), at(140).1, lsn(&held_to.to_string())] {
        let error = store.refusal(|request| request.target = target);
        assert!(matches!(error, RestoreError::WalGap { .. }), "{error}");
    }
    let early = store.refusal(|request| request.target = RecoveryTarget::Xid(701));
    assert!(matches!(early, RestoreError::XidBeforeEnd { .. }), "{early}");
}

/// Without a whole record behind it, the end of WAL is no less known.
#[test]
fn wal_may_end_with_a_segment_or_within_its_first_record() {
    let mut store = Store::new();
    let size = store.record.segment_size;
    let mut wal = TestWal::new(size, 2 * MIB);
    let begin = wal.commit(700, at(100).0);
    let end = wal.end();
    wal.commit(701, at(110).0);
    wal.switch();
    let border = wal.end();
    wal.commit(702, at(120).0);
    let position = |lsn| Some(Position { lsn, timeline: TimelineId::FIRST });
    (store.record.begin, store.record.end) = (position(begin), position(end));
    store.save();
    let (whole, tail) = wal.bytes().split_at(MIB as usize);
    fs::write(store.server.archived(segment(1, 2), Codec::None), whole).unwrap();
    for length in [0, 30, 60] {
        fs::write(store.server.streaming_partial(segment(1, 3)), &tail[..length]).unwrap();
        let plan = store.plan(|request| request.target = RecoveryTarget::Lsn(border)).unwrap();
        assert!(plan.recovers_all, "{plan:?}");
        let error = store.refusal(|request| request.target = RecoveryTarget::Xid(702));
        assert!(matches!(error, RestoreError::XidNotFound { .. }), "{error}");
    }
}

#[test]
fn wal_may_end_with_a_segment() {
    let mut store = Store::new();
    let mut wal = TestWal::new(store.record.segment_size, 2 * MIB);
    let begin = wal.commit(700, at(100).0);
    let end = wal.end();
    let last = wal.commit(701, at(120).0);
    wal.switch();
    let position = |lsn| Some(Position { lsn, timeline: TimelineId::FIRST });
    (store.record.begin, store.record.end) = (position(begin), position(end));
    store.save();
    fs::write(store.server.archived(segment(1, 2), Codec::None), wal.bytes()).unwrap();
    fs::remove_file(store.server.streaming_partial(segment(1, 3))).unwrap();
    for all in ["0/300000", &last.saturating_add(100).to_string()] {
        let plan = store.plan(|request| request.target = lsn(all)).unwrap();
        assert!(plan.recovers_all, "{all}: {plan:?}");
    }
    let beyond = store.refusal(|request| request.target = lsn("0/300008"));
    assert!(matches!(beyond, RestoreError::LsnBeyondWal { .. }), "{beyond}");
    let unknown = store.refusal(|request| request.target = RecoveryTarget::Xid(702));
    assert!(matches!(unknown, RestoreError::XidNotFound { .. }), "{unknown}");
}

/// A daemon may decrypt for the server what nobody could look into: the last record that was seen is
/// not the last one then.
#[test]
fn the_end_of_wal_is_not_where_it_could_no_longer_be_read() {
    let mut store = Store::new();
    let mut wal = TestWal::new(store.record.segment_size, 2 * MIB);
    let begin = wal.commit(700, at(100).0);
    let end = wal.end();
    wal.commit(701, at(120).0);
    wal.switch();
    let position = |lsn| Some(Position { lsn, timeline: TimelineId::FIRST });
    (store.record.begin, store.record.end) = (position(begin), position(end));
    store.save();
    fs::write(store.server.archived(segment(1, 2), Codec::None), wal.bytes()).unwrap();
    fs::remove_file(store.server.streaming_partial(segment(1, 3))).unwrap();
    store.archive_encrypted(3);
    let seen = PgTimestamp::from_micros(at(200).0);
    let (lsn, timeline) = (Lsn::from_u64(4 * MIB), TimelineId::FIRST);
    CaughtUp { at: seen, lsn, timeline }.save(&store.server).unwrap();
    let served = Served { wal: true, decrypts: true };
    let plan = store.plan_with(None, served, |request| request.target = at(150).1).unwrap();
    assert!(!plan.recovers_all && plan.notes[0].contains("nobody can tell"), "{plan:?}");
    let conf = recovery::to_conf(&plan.settings.auto_conf);
    assert!(conf.contains("recovery_target_time = '2026-03-05 15:02:30"), "{conf}");
    assert!(!conf.contains("recovery_target_lsn = '0/"), "{conf}");
}
