use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn never() -> bool {
    false
}

fn hooks(scripts: &[(&str, String)]) -> Hooks {
    let server = "main".parse().unwrap();
    let mut configured = HookScripts {
        configuration: Some("/etc/x.toml".into()),
        timeout: Duration::from_secs(60),
        ..HookScripts::default()
    };
    for (key, command) in scripts {
        let hook = Hook::all().find(|hook| hook.to_string() == *key).unwrap();
        configured.commands.insert(hook, command.clone());
    }
    Hooks { first_pause: Duration::from_millis(1), ..Hooks::new(&server, &configured) }
}

fn backup() -> Event {
    Event::Backup(BackupFacts {
        dir: "/srv/main/base/20260305T151133".into(),
        record: "/srv/main/base/20260305T151133/backup.json".into(),
        id: "20260305T151133".to_owned(),
        previous: Some("20260304T151133".to_owned()),
        next: None,
        status: "STARTED",
    })
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn scripts_run_in_barmans_order_with_barmans_variables() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let tell = format!(
        "echo \"$WALRECV_PHASE $WALRECV_HOOK $WALRECV_RETRY $WALRECV_SERVER $WALRECV_CONFIGURATION \
         $WALRECV_BACKUP_ID $WALRECV_PREVIOUS_ID ${{WALRECV_NEXT_ID-unset}} $WALRECV_STATUS \
         ${{WALRECV_ERROR-unset}}\" >> {}",
        told.display()
    );
    let keys = [
        "pre_backup_script",
        "pre_backup_retry_script",
        "post_backup_retry_script",
        "post_backup_script",
    ];
    let hooks = hooks(&keys.map(|key| (key, tell.clone())));
    hooks.before(&backup(), &never).unwrap();
    hooks.after(&backup(), Some("no luck"), &never);
    let common = "main /etc/x.toml 20260305T151133 20260304T151133  STARTED";
    assert_eq!(
        lines(&told),
        [
            format!("pre backup_script 0 {common} "),
            format!("pre backup_retry_script 1 {common} "),
            format!("post backup_retry_script 1 {common} no luck"),
            format!("post backup_script 0 {common} no luck"),
        ]
    );
}

#[test]
fn the_exit_code_of_a_script_that_is_retried_decides() {
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("count");
    let run = |codes: &str| {
        fs::write(&count, "").unwrap();
        // The n-th run ends with the n-th code; the last one stays.
        let script = format!(
            "echo >> {0}; set -- {codes}; n=$(wc -l < {0}); \
             while [ $n -gt 1 ] && [ $# -gt 1 ]; do shift; n=$((n - 1)); done; \
             echo \"so: $1\"; exit $1",
            count.display()
        );
        let outcome = hooks(&[("pre_backup_retry_script", script)]).before(&backup(), &never);
        (lines(&count).len(), outcome)
    };
    assert!(matches!(run("0"), (1, Ok(()))));
    assert!(matches!(run("1 7 0"), (3, Ok(()))));
    assert!(matches!(run("62"), (1, Ok(()))));
    let (runs, refused) = run("1 63");
    assert_eq!(runs, 2);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "`pre_backup_retry_script` of server `main` does not allow the backup: it ended with exit \
         code 63 after writing \"so: 63\""
    );
    let (runs, failed) = run("5");
    assert_eq!(runs, ATTEMPTS as usize);
    assert_eq!(
        failed.unwrap_err().to_string(),
        "`pre_backup_retry_script` of server `main`, which must succeed before the backup, has \
         failed 8 times: exit code 5, after writing \"so: 5\""
    );
}

#[test]
fn a_plain_script_stops_nothing_and_nor_does_one_that_comes_after() {
    let hooks = hooks(&[
        ("pre_backup_script", "exit 63".to_owned()),
        ("post_backup_retry_script", "exit 63".to_owned()),
        ("post_backup_script", "no-such-command-anywhere".to_owned()),
    ]);
    let done: Result<_, HookError> = hooks.around(&backup(), &never, || Ok(7));
    assert_eq!(done.unwrap(), 7);
}

#[test]
fn work_is_not_done_if_a_script_refuses() {
    let hooks = hooks(&[("pre_backup_retry_script", "exit 63".to_owned())]);
    let done = hooks.around(&backup(), &never, || -> Result<(), HookError> { panic!("done") });
    assert!(matches!(done, Err(HookError::Refused { .. })));
}

/// Whether a process is alive, and no zombie.
fn is_alive(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[test]
fn a_script_that_hangs_is_ended_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    // Neither of them ends when it is asked to.
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 1; done' & \
         echo $! >> {0}; echo $$ >> {0}; while :; do sleep 1; done",
        pids.display()
    );
    let mut hooks = hooks(&[("pre_backup_script", script.clone())]);
    hooks.scripts.timeout = Duration::from_millis(300);
    hooks.before(&backup(), &never).unwrap();
    let told = lines(&pids);
    assert_eq!(told.len(), 2);
    for pid in &told {
        // Killed is one thing, gone another: the child's new parent has to look after it.
        while is_alive(pid) {
            thread::sleep(TICK);
        }
    }

    let interrupted = AtomicBool::new(false);
    let hooks = self::hooks(&[(
        "pre_backup_retry_script",
        format!("echo >> {}; sleep 600", pids.display()),
    )]);
    let outcome = thread::scope(|scope| {
        let running =
            scope.spawn(|| hooks.before(&backup(), &|| interrupted.load(Ordering::Relaxed)));
        while lines(&pids).len() == 2 {
            thread::sleep(TICK);
        }
        interrupted.store(true, Ordering::Relaxed);
        running.join().unwrap()
    });
    assert!(matches!(outcome, Err(HookError::Interrupted { .. })));
}

#[test]
fn what_was_done_is_told_though_nobody_waits_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let script = format!("sleep 0.2; echo >> {}", told.display());
    let scripts = [("post_backup_retry_script", script.clone()), ("post_backup_script", script)];
    let mut hooks = hooks(&scripts);
    hooks.after(&backup(), None, &|| true);
    assert_eq!(lines(&told).len(), 2);
    // But not for ever, however much there is to tell.
    hooks.last_scripts = Duration::ZERO;
    hooks.after(&backup(), None, &|| true);
    assert_eq!(lines(&told).len(), 2);
}

#[test]
fn what_a_script_leaves_in_the_background_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}", pid.display());
    hooks(&[("pre_backup_script", script)]).before(&backup(), &never).unwrap();
    let [pid] = &lines(&pid)[..] else { panic!() };
    assert!(is_alive(pid));
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn output_without_end_is_no_trouble() {
    let script =
        "yes x | head -c 3000000; head -c 100000 /dev/zero; printf '\\nlast\\033[m'; exit 9";
    let hooks = hooks(&[("pre_backup_retry_script", format!("{script}; "))]);
    let failed = hooks.before(&backup(), &never).unwrap_err().to_string();
    assert!(failed.ends_with("exit code 9, after writing \"last\u{fffd}[m\""), "{failed}");
}

#[test]
fn wal_and_restores_are_told_of_in_barmans_words() {
    let wal = WalFacts {
        segment: "000000010000000000000001".to_owned(),
        file: "/srv/x".into(),
        size: 5,
        modified: Some(std::time::UNIX_EPOCH + Duration::from_millis(1500)),
        compression: "zstd",
    };
    let text = |event: Event| -> Vec<String> {
        let environment = event.environment();
        environment.iter().map(|(name, value)| format!("{name}={}", value.display())).collect()
    };
    assert_eq!(
        text(Event::Archive(wal)),
        [
            "WALRECV_SEGMENT=000000010000000000000001",
            "WALRECV_FILE=/srv/x",
            "WALRECV_SIZE=5",
            "WALRECV_TIMESTAMP=1.5",
            "WALRECV_COMPRESSION=zstd",
        ]
    );
    let recovery = RecoveryFacts {
        destination: "/srv/pg".into(),
        tablespaces: [("data".to_owned(), "/srv/data".to_owned())].into(),
        options: [("exclusive", true.into()), ("target_lsn", "0/16B3748".into())].into(),
    };
    let told = text(Event::Recovery(BackupFacts::default(), recovery));
    assert_eq!(
        told.get(6..).unwrap(),
        [
            "WALRECV_DESTINATION_DIRECTORY=/srv/pg",
            "WALRECV_TABLESPACES={\"data\":\"/srv/data\"}",
            "WALRECV_REMOTE_COMMAND=",
            "WALRECV_RECOVER_OPTIONS={\"exclusive\":true,\"target_lsn\":\"0/16B3748\"}",
        ]
    );
}
