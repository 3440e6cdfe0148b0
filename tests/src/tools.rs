//! The independent judges: PostgreSQL's own client programs, and stock `tar`, `zstd` and `age`.
//!
//! Which program may judge which server is a matter of experience, and written here once:
//!
//! * `pg_basebackup` and `pg_receivewal` serve older majors, not newer ones.
//! * `pg_dumpall` and `pg_amcheck` serve older majors too; `pg_amcheck` wants a server of 14.
//! * `pg_verifybackup` reads WAL of its own major only. Without WAL (`-n`) any serves manifests
//!   of 13 to 16; from 17 on it reads the control file too and must be of the backup's major.
//! * `pg_waldump` reads WAL of its own major only.
//!
//! A judge that is not on this machine is no success: [`missing`] tells and counts it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cluster::Cluster;
use crate::failure::{Context, Result};
use crate::{installation, program};

static MISSING: AtomicUsize = AtomicUsize::new(0);

/// Says that something was not judged because the judge is not there.
pub fn missing(judge: &str, of: &str) {
    MISSING.fetch_add(1, Ordering::Relaxed);
    eprintln!(
        "SKIPPED: no {judge} on this machine to judge {of}; `cargo xtask postgres install` gets it \
         where it can be had"
    );
}

/// Says that something was not judged because the system does not let us.
pub fn not_judged(what: &str, why: &str) {
    MISSING.fetch_add(1, Ordering::Relaxed);
    eprintln!("SKIPPED: {what} cannot be had here: {why}");
}

/// How many judgements were skipped so far.
pub fn count_missing() -> usize {
    MISSING.load(Ordering::Relaxed)
}

/// A program of exactly this major.
pub fn of_major(name: &str, major: u32) -> Option<PathBuf> {
    installation::all()
        .iter()
        .filter(|installation| installation.major == major)
        .find_map(|installation| installation.program(name))
}

/// A program of this major or, if there is none, of the next newer one that has it.
pub fn for_server(name: &str, major: u32) -> Option<PathBuf> {
    installation::all()
        .iter()
        .filter(|installation| installation.major >= major)
        .find_map(|installation| installation.program(name))
}

/// Has `pg_verifybackup` check an unpacked backup of a server of this major; there is nothing to
/// check before 13. Returns whether it was judged.
///
/// `wal` is the directory of the WAL that the backup needs, if that is to be read too; this
/// wants a judge of the very major.
pub fn verify_backup(major: u32, backup: &Path, wal: Option<&Path>) -> Result<bool> {
    if major < 13 {
        return Ok(false);
    }
    let own = of_major("pg_verifybackup", major);
    let without_wal = if major <= 16 { for_server("pg_verifybackup", major) } else { None };
    let (judge, wal) = match (own, without_wal) {
        (Some(judge), _) => (judge, wal),
        (None, Some(judge)) => (judge, None),
        (None, None) => {
            missing("pg_verifybackup", &format!("a backup of PostgreSQL {major}"));
            return Ok(false);
        }
    };
    let mut command = Command::new(judge);
    match wal {
        Some(wal) => command.arg("-w").arg(wal),
        None => command.arg("-n"),
    };
    program::run(command.arg(backup))?;
    Ok(true)
}

/// Has `pg_amcheck` check every table and index of a cluster, which it can from 14 on. Returns
/// whether it was judged.
pub fn amcheck(cluster: &Cluster) -> Result<bool> {
    if cluster.major() < 14 {
        return Ok(false);
    }
    let Some(judge) = for_server("pg_amcheck", cluster.major()) else {
        missing("pg_amcheck", &cluster.installation().name());
        return Ok(false);
    };
    program::run(client(judge, cluster).args([
        "--install-missing",
        "--heapallindexed",
        "-d",
        "postgres",
    ]))?;
    Ok(true)
}

/// A full dump of all databases: every row can be read. None without a judge.
pub fn dump_all(cluster: &Cluster) -> Result<Option<String>> {
    let Some(judge) = for_server("pg_dumpall", cluster.major()) else {
        missing("pg_dumpall", &cluster.installation().name());
        return Ok(None);
    };
    program::run(&mut client(judge, cluster)).map(Some)
}

/// A client program that speaks to a cluster as its superuser.
pub fn client(program: PathBuf, cluster: &Cluster) -> Command {
    let mut command = Command::new(program);
    command
        .arg("-h")
        .arg(cluster.base_directory())
        .args(["-p", &cluster.port().to_string(), "-U", crate::cluster::SUPERUSER])
        .env_remove("PGPASSWORD")
        .env("PGCONNECT_TIMEOUT", "30");
    command
}

/// Decrypts a file with stock `age` into this directory, under its name without the suffix; `None`
/// without a judge.
pub fn decrypt(encrypted: &Path, identity: &Path, into: &Path) -> Result<Option<PathBuf>> {
    let Some(judge) = program::find_on_path("age") else {
        missing("age", &format!("{}", encrypted.display()));
        return Ok(None);
    };
    let name = encrypted.file_stem().context(|| format!("{} has no name", encrypted.display()))?;
    let decrypted = into.join(name);
    let mut command = Command::new(judge);
    command.arg("-d").arg("-i").arg(identity).arg("-o").arg(&decrypted).arg(encrypted);
    program::run(&mut command)?;
    Ok(Some(decrypted))
}

/// Unpacks a stored archive as a person would by hand: stock `tar`, with stock `zstd`, `gzip`
/// or `lz4` by its suffix.
pub fn unpack(archive: &Path, into: &Path) -> Result<()> {
    let decompressor = match archive.extension().and_then(|suffix| suffix.to_str()) {
        Some("zst") => Some("zstd -d"),
        Some("gz") => Some("gzip -d"),
        Some("lz4") => Some("lz4 -d"),
        _ => None,
    };
    std::fs::create_dir_all(into).context(|| format!("cannot make {}", into.display()))?;
    let mut tar = Command::new("tar");
    if let Some(decompressor) = decompressor {
        tar.args(["-I", decompressor]);
    }
    program::run(tar.arg("-xf").arg(archive).arg("-C").arg(into))?;
    Ok(())
}
