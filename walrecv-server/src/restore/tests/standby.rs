//! Restores that go on as standbys.

use super::*;
use crate::settings::ConnInfo;

const CONNINFO: &str = "host=db user=walrecv password='it''s secret' dbname=postgres";

fn standby(request: &mut Request) {
    let primary = Primary::Configured(ConnInfo::new("host=db password=secret dbname=postgres"));
    request.standby = Some(StandbyRequest { primary, ..StandbyRequest::default() });
}

fn nobody(request: &mut Request) {
    request.standby = Some(StandbyRequest::default());
}

/// What is written to `file`, from the lines on that are ours.
fn written(store: &Store, file: &str) -> String {
    let text = fs::read_to_string(store.dir.path().join("data").join(file)).unwrap();
    let ours = text.split_once("# Recovery of").unwrap().1;
    let ours = ours.split_once('\n').unwrap().1;
    ours.replace(&store.home.path().display().to_string(), "HOME")
}

#[test]
fn a_standby_of_a_newer_server_has_its_signal() {
    let store = Store::new();
    let plan = store.plan(standby).unwrap();
    assert_eq!(plan.standby.as_ref().unwrap().primary.as_deref(), Some("db"));
    let report = execute(&plan, &Silent, &undisturbed()).unwrap();
    let data = store.dir.path().join("data");
    assert!(data.join("standby.signal").exists() && !data.join("recovery.signal").exists());
    insta::assert_snapshot!(written(&store, "postgresql.auto.conf"), @r#"
    archive_mode = 'off'
    synchronous_standby_names = ''
    recovery_target = ''
    recovery_target_lsn = ''
    recovery_target_name = ''
    recovery_target_time = ''
    recovery_target_xid = ''
    recovery_min_apply_delay = '0'
    recovery_end_command = ''
    archive_cleanup_command = ''
    primary_conninfo = ''
    primary_slot_name = ''
    restore_command = '''/bin/sh'' --home ''HOME'' get-wal --partial ''main'' "%f" "%p" || exit 1'
    recovery_target_timeline = 'latest'
    primary_conninfo = 'host=db'
    "#);
    assert!(report.notes.iter().any(|note| note.contains(".pgpass")), "{:?}", report.notes);
    assert!(!serde_json::to_string(&plan).unwrap().contains("secret"));
    assert!(!format!("{plan:?}").contains("secret"));
}

#[test]
fn a_standby_of_an_older_server_reads_recovery_conf() {
    let mut store = Store::new();
    store.record.server_version = ServerVersion::from_num(110_022);
    store.save();
    let plan = store
        .plan(|request| {
            standby(request);
            request.standby.as_mut().unwrap().slot = Some("one".parse().unwrap());
        })
        .unwrap();
    execute(&plan, &Silent, &undisturbed()).unwrap();
    assert!(!store.dir.path().join("data/standby.signal").exists());
    let conf = fs::read_to_string(store.dir.path().join("data/recovery.conf")).unwrap();
    let lines: Vec<_> = conf.lines().filter(|line| !line.starts_with("restore_command")).collect();
    insta::assert_snapshot!(lines[1..].join("\n"), @r"
    standby_mode = 'on'
    recovery_target_timeline = 'latest'
    primary_conninfo = 'host=db'
    primary_slot_name = 'one'
    ");
    assert!(conf.contains("\"%f\" \"%p\" || exit 1'"), "{conf}");
}

#[test]
fn without_a_primary_it_follows_the_archive_or_nobody() {
    let store = Store::new();
    let plan = store.plan(nobody).unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("--primary-conninfo")), "{:?}", plan.notes);
    let conf = recovery::to_conf(&plan.settings.auto_conf);
    assert!(conf.ends_with("recovery_target_timeline = 'latest'\n"), "{conf}");
    let error = store.refusal(|request| {
        nobody(request);
        request.wal = WalDelivery::Copy;
    });
    assert!(matches!(error, RestoreError::Standby(StandbyError::Nobody)), "{error}");
}

#[test]
fn what_no_standby_can_be_is_refused() {
    let store = Store::new();
    let refused = |change: &dyn Fn(&mut Request, &mut StandbyRequest)| {
        let error = store.refusal(|request| {
            let mut wanted = StandbyRequest::default();
            change(request, &mut wanted);
            request.standby = Some(wanted);
        });
        assert_eq!(error.class(), Class::Usage, "{error}");
        error
    };
    let error = refused(&|request, _| request.target = RecoveryTarget::Immediate);
    assert!(matches!(error, RestoreError::Standby(StandbyError::Target)), "{error}");
    let error = refused(&|request, _| request.timeline = TimelineChoice::Current);
    assert!(matches!(error, RestoreError::Standby(StandbyError::Timeline)), "{error}");
    let error = refused(&|_, standby| {
        standby.slot = Some("walrecv".parse().unwrap());
        standby.our_slot = standby.slot.clone();
    });
    assert!(matches!(error, RestoreError::Standby(StandbyError::OurSlot { .. })), "{error}");
    let given = |text: &str| Primary::Given(ConnInfo::new(text));
    let error = refused(&|_, standby| standby.primary = given(&CONNINFO.replace("''", r"\'")));
    assert!(matches!(error, RestoreError::Standby(StandbyError::Password)), "{error}");
    let error = refused(&|_, standby| standby.primary = given("host"));
    assert!(matches!(error, RestoreError::Standby(StandbyError::Conninfo(_))), "{error}");
}

/// A server that is told `latest` takes the newest timeline, related or not, and would not start.
#[test]
fn the_newest_timeline_must_come_from_the_backup() {
    let store = Store::new();
    store.history(2, "1\t0/300200\tr\n");
    store.receive_wal(2, 3, 2000);
    assert_eq!(store.plan(standby).unwrap().timeline.get(), 2);
    store.history(3, "1\t0/200050\tr\n");
    let error = store.refusal(standby);
    assert!(matches!(error, RestoreError::ForkedBeforeEnd { .. }), "{error}");
    assert_eq!(store.plan(|_| {}).unwrap().timeline.get(), 2);
}
