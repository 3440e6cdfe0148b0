//! What PostgreSQL is told when a command line or a configuration is wrong: it takes 1 to 125 for
//! the end of the archive.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::process::{Command, Stdio};

/// The exit code of the program; nothing of this machine's configuration is seen.
fn code(arguments: &[&str]) -> i32 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walrecv-server"));
    command.args(arguments).env_clear().stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().code().unwrap()
}

#[test]
fn get_wal_never_says_end_of_archive_for_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let home = dir.path().join("home").display().to_string();
    let unknown_key = file("unknown-key", "hoem = \"/srv\"\n");
    let no_toml = file("no-toml", "home = ");
    let directory = dir.path().display().to_string();
    let (wal, to) = ("000000010000000000000001", "pg_wal/RECOVERYXLOG");
    for wrong in [
        vec!["get-wal"],
        vec!["get-wal", "main"],
        vec!["get-wal", "main", wal],
        vec!["get-wal", "main", wal, to, "more"],
        vec!["get-wal", "main", wal, to, "--no-such-option"],
        vec!["get-wal", "../main", wal, to],
        vec!["get-wal", "main", wal, to, "--prefetch", "many"],
        vec!["get-wal", "main", wal, to, "--lease", "../x"],
        vec!["--hoem", &home, "get-wal", "main", wal, to],
        vec!["--home", &home, "get-wal", "main", wal, to],
        vec!["--home", &home, "get-wal", "main", "nonsense", to],
        vec!["-c", &unknown_key, "get-wal", "main", wal, to],
        vec!["-c", &no_toml, "get-wal", "main", wal, to],
        vec!["-c", &directory, "get-wal", "main", wal, to],
        vec!["-c", "/nonexistent/file", "get-wal", "main", wal, to],
        vec!["--home", &home, "--set", "no_such=1", "get-wal", "main", wal, to],
    ] {
        let code = code(&wrong);
        assert!(code >= 200, "{wrong:?}: {code}");
    }
    // Others say so in the usual way.
    assert_eq!(code(&["-c", &unknown_key, "list-backups", "main"]), 2);
    assert_eq!(code(&["list-backups", "--no-such-option"]), 2);
}
