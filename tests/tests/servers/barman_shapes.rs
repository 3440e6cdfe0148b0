//! Our JSON beside that of a real Barman, on the same server: the same keys, but for those listed.

use std::collections::BTreeSet;

use serde_json::Value;
use walrecv_tests::barman::{Barman, BarmanInstallation};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Context, Installation, Result, program};

use crate::site::{ROLE, Site};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.beside_barman("barman_shapes", 15, barman_shapes)
}

/// A command, and the keys that only one of the two has.
struct Shape {
    command: &'static [&'static str],
    /// Keys of Barman's that we do not have, and why not.
    theirs: &'static [&'static str],
    /// Keys that we have besides.
    ours: &'static [&'static str],
}

const SHAPES: &[Shape] = &[
    Shape {
        command: &["check", "main"],
        // The versions of client programs, which we do not use.
        theirs: &[
            "main.pg_basebackup",
            "main.pg_basebackup_compatible",
            "main.pg_basebackup_supports_tablespaces_mapping",
            "main.pg_receivexlog",
            "main.pg_receivexlog_compatible",
        ],
        // Barman has the first one only where it fails.
        ours: &["main.wal_archive", "main.last_backup", "main.postgresql_version"],
    },
    Shape {
        command: &["status", "main"],
        theirs: &[],
        ours: &[
            "main.receiver",
            "main.durable_lsn",
            "main.receive_lag",
            "main.wal_rate",
            "main.replication_slot",
            "main.suspect_wal",
            "main.archive_queue",
        ],
    },
    Shape { command: &["list-backups", "main"], theirs: &[], ours: &[] },
    Shape { command: &["list-backups", "main", "--minimal"], theirs: &[], ours: &[] },
    Shape { command: &["show-backup", "main", "last"], theirs: &[], ours: &[] },
    Shape { command: &["list-servers"], theirs: &[], ours: &[] },
    Shape { command: &["list-servers", "--minimal"], theirs: &[], ours: &[] },
    Shape { command: &["replication-status", "main"], theirs: &[], ours: &[] },
    Shape { command: &["replication-status", "main", "--minimal"], theirs: &[], ours: &[] },
    Shape { command: &["list-files", "main", "last"], theirs: &[], ours: &[] },
    Shape { command: &["switch-wal", "main", "--force"], theirs: &[], ours: &[] },
];

fn barman_shapes(installation: &Installation, barman: &BarmanInstallation) -> ScenarioResult {
    let site = Site::new(installation)?;
    site.configure("description = \"orders\"\n")?;
    for grant in
        ["GRANT pg_monitor, pg_checkpoint TO", "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO"]
    {
        site.cluster.execute(&format!("{grant} {ROLE}"))?;
    }
    let daemon = site.run()?;
    let mut barman = Barman::new(barman, &site.cluster.superuser_conninfo())?;
    barman.receive()?;
    site.cluster.wait_for("Barman to receive", |cluster| {
        let count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        Ok(cluster.value(count)? == "2")
    })?;
    // Barman takes no backup before a segment is in its archive.
    switch_and_archive(&site, &barman)?;
    let checked = program::output(&mut barman.command(&["check", "main"]))?;
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    barman.run(&["backup", "main"]).context(|| format!("Barman's check says:\n{checked}"))?;
    switch_and_archive(&site, &barman)?;
    site.backup()?;
    site.settle()?;

    let mut differences = Vec::new();
    for shape in SHAPES {
        let command = shape.command.join(" ");
        let mut json = vec!["-f", "json"];
        json.extend(shape.command);
        let theirs = keys(&parse(&barman.run(&json)?, &command)?);
        let ours = keys(&site.walrecv.run(&json)?.success()?.json()?);
        differences.extend(compare(&command, &theirs, &ours, shape.theirs, shape.ours));
    }
    differences.extend(compare_diagnoses(&site, &barman)?);
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// `diagnose` in its own shape, which Barman has only without `-f json`.
fn compare_diagnoses(site: &Site, barman: &Barman) -> Result<Vec<String>> {
    let theirs = parse(&barman.run(&["diagnose"])?, "diagnose")?;
    let ours = site.walrecv.run(&["diagnose"])?.success()?;
    let secret = crate::site::PASSWORD;
    assert!(!ours.stdout.contains(secret), "a password is told: {}", ours.stdout);
    let ours = ours.json()?;
    let level = |value: &Value, path: &str| -> BTreeSet<String> {
        let object = value.pointer(path).and_then(Value::as_object);
        object.into_iter().flat_map(|object| object.keys().cloned()).collect()
    };
    let mut differences = Vec::new();
    for (path, besides) in
        [("", &[][..]), ("/global", &[]), ("/servers/main", &["check", "identity", "locks"])]
    {
        let (theirs, ours) = (level(&theirs, path), level(&ours, path));
        assert!(!theirs.is_empty(), "Barman has nothing at {path}");
        differences.extend(compare(&format!("diagnose {path}"), &theirs, &ours, &[], besides));
    }
    Ok(differences)
}

fn switch_and_archive(site: &Site, barman: &Barman) -> Result<()> {
    site.cluster.execute("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)")?;
    let segment = site.cluster.value("SELECT pg_walfile_name(pg_switch_wal())")?;
    let streaming = barman.directory().join("main/streaming");
    site.cluster.wait_for("Barman's segment", |_| Ok(streaming.join(&segment).exists()))?;
    // Without a file that is being written, the newest complete one would not be archived.
    site.cluster.wait_for("Barman's next segment", |_| {
        let files = std::fs::read_dir(&streaming).into_iter().flatten().flatten();
        let mut names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        Ok(names.any(|name| name.ends_with(".partial")))
    })?;
    barman.run(&["archive-wal", "main"]).map(drop)
}

/// What differs and is not listed, and what is listed and does not differ.
fn compare(
    command: &str,
    theirs: &BTreeSet<String>,
    ours: &BTreeSet<String>,
    only_theirs: &[&str],
    only_ours: &[&str],
) -> Vec<String> {
    let differs = |some: &BTreeSet<String>, others: &BTreeSet<String>, listed: &[&str], whose| {
        let missing: BTreeSet<_> = some.difference(others).map(String::as_str).collect();
        let listed: BTreeSet<_> = listed.iter().copied().collect();
        let told = |key: &&str, what| format!("`{command}`: {whose} `{key}` {what}");
        let unlisted =
            missing.difference(&listed).map(|key| told(key, "is not listed as a difference"));
        let stale = listed.difference(&missing).map(|key| told(key, "is listed and is none"));
        unlisted.chain(stale).collect::<Vec<_>>()
    };
    let mut differences = differs(theirs, ours, only_theirs, "Barman's");
    differences.extend(differs(ours, theirs, only_ours, "our"));
    differences
}

/// The paths of all keys; what is in a list has no place in it.
fn keys(value: &Value) -> BTreeSet<String> {
    fn add(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    add(value, &path, keys);
                    keys.insert(path);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| add(value, path, keys)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    add(value, "", &mut found);
    // A row of a check is there as a whole.
    let parts = [".status", ".hint", ".description", ".message"];
    let is_part = |key: &String| {
        let parent = key.rsplit_once('.').map(|(parent, _)| parent);
        parts.iter().any(|part| key.ends_with(part))
            && parent.is_some_and(|parent| parent.matches('.').count() == 1)
    };
    found.retain(|key| !is_part(key));
    found
}

fn parse(text: &str, command: &str) -> Result<Value> {
    serde_json::from_str(text).context(|| format!("Barman's `{command}` printed no JSON: {text}"))
}
