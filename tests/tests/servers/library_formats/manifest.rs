//! `backup_manifest`, and backups verified against it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pgwire_stream::manifest::{
    ChecksumAlgorithm, Discrepancy, ManifestItem, ManifestReader, ManifestWriter, Problem,
    VerifyError, VerifyOptions, verify_directory,
};
use pgwire_stream::{BaseBackupOptions, ManifestChecksums, ServerVersion};
use walrecv_tests::run::ScenarioResult;
use walrecv_tests::{Cluster, Installation, tools};

use super::taken::take;

pub(super) fn byte_for_byte(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let version = ServerVersion::from_num(cluster.value("SHOW server_version_num")?.parse()?);
    for name in [&b"not UTF-8: \xFF\xFE"[..], "ä \"b\"\\\n\u{1}\u{7F}😀".as_bytes()] {
        let path = cluster.data_directory().join(OsStr::from_bytes(name));
        fs::write(&path, "odd")?;
        cluster.account().owns(&path)?;
    }
    for (name, checksums, force_encode) in [
        ("crc", ManifestChecksums::Crc32c, false),
        ("sha", ManifestChecksums::Sha512, false),
        ("encoded", ManifestChecksums::None, true),
    ] {
        let mut options = BaseBackupOptions::default();
        options.fast_checkpoint = true;
        options.manifest = Some(checksums);
        options.force_encode = force_encode;
        let backup = take(&cluster, name, &options, None)?;
        let written = rewritten(&backup.manifest, version, force_encode)?;
        assert_eq!(str::from_utf8(&written)?, str::from_utf8(&backup.manifest)?, "{name}");
        assert_eq!(verify(&backup.data)?, [], "{name}");
    }
    Ok(())
}

/// What was read from a manifest, written again.
fn rewritten(
    manifest: &[u8],
    version: ServerVersion,
    encoded: bool,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut reader = ManifestReader::new();
    let items = reader.feed(manifest)?;
    reader.finish()?;
    let system_id = items.iter().find_map(|item| match item {
        ManifestItem::SystemId(id) => Some(*id),
        _ => None,
    });
    assert_eq!(system_id.is_some(), version.major() >= 17);
    let writer = match system_id {
        Some(id) => ManifestWriter::version_2(Vec::new(), id)?,
        None => ManifestWriter::version_1(Vec::new())?,
    };
    let mut writer = writer.as_written_by(version);
    if encoded {
        writer = writer.encode_paths();
    }
    let mut ranges = Vec::new();
    for item in items {
        match item {
            ManifestItem::File(file) => writer.file(&file)?,
            ManifestItem::WalRange(range) => ranges.push(range),
            _ => {}
        }
    }
    Ok(writer.finish(&ranges)?)
}

fn verify(data: &Path) -> Result<Vec<Problem>, VerifyError> {
    let mut problems = Vec::new();
    verify_directory(data, &VerifyOptions::default(), |problem| problems.push(problem))?;
    Ok(problems)
}

/// Damages a backup in every way, and has both of us look at it.
pub(super) fn verified_as_by_pg_verifybackup(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let place = cluster.new_directory("place")?;
    cluster.execute(&format!("CREATE TABLESPACE place LOCATION '{}'", place.display()))?;
    cluster.execute("CREATE TABLE t TABLESPACE place AS SELECT generate_series(1, 1000) AS n")?;
    let table = cluster.value("SELECT pg_relation_filepath('t')")?;
    let mut options = BaseBackupOptions::default();
    options.fast_checkpoint = true;
    let backup = take(&cluster, "backup", &options, None)?;
    let data = &backup.data;

    // Whether both say the same, and what we say.
    let judged = || -> Result<Result<Vec<Problem>, VerifyError>, Box<dyn std::error::Error>> {
        let ours = verify(data);
        let theirs = tools::verify_backup(installation.major, data, None);
        let good = matches!(&ours, Ok(problems) if problems.is_empty());
        assert_eq!(theirs.is_ok(), good, "{ours:?}, but {theirs:?}");
        assert!(theirs.is_err() || theirs.is_ok_and(|judged| judged), "there was no judge");
        Ok(ours)
    };
    let only = |path: &str, discrepancy: Discrepancy| {
        Ok(vec![Problem { path: path.as_bytes().to_vec(), discrepancy }])
    };
    assert_eq!(judged()?, Ok(vec![]));

    for path in [table.as_str(), "PG_VERSION"] {
        let place = data.join(path);
        let content = fs::read(&place)?;
        let listed = content.len() as u64;
        let mut changed = content.clone();
        changed[0] ^= 1;
        fs::write(&place, &changed)?;
        let algorithm = ChecksumAlgorithm::Crc32c;
        assert_eq!(judged()?, only(path, Discrepancy::Checksum { algorithm }));
        fs::write(&place, &content[..content.len() - 1])?;
        let on_disk = listed - 1;
        assert_eq!(judged()?, only(path, Discrepancy::Size { on_disk, listed }));
        fs::remove_file(&place)?;
        assert_eq!(judged()?, only(path, Discrepancy::Missing));
        fs::write(&place, &content)?;
        let extra = format!("{path}.extra");
        fs::write(data.join(&extra), "")?;
        assert_eq!(judged()?, only(&extra, Discrepancy::Extra));
        fs::remove_file(data.join(&extra))?;
    }
    for ignored in ["recovery.signal", "pg_wal/anything", "postgresql.auto.conf"] {
        fs::write(data.join(ignored), "# changed\n")?;
    }
    assert_eq!(judged()?, Ok(vec![]));

    let control = data.join("global/pg_control");
    let whole = fs::read(&control)?;
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    fs::write(&control, &damaged)?;
    assert_eq!(judged()?.map(|found| found.len()), Ok(1));
    fs::write(&control, whole)?;

    let path = data.join("backup_manifest");
    let manifest = fs::read_to_string(&path)?;
    let checksum = manifest.rfind("Checksum\": \"").ok_or("no checksum")? + 12;
    let digit = if &manifest[checksum..=checksum] == "0" { "1" } else { "0" };
    let mut altered = manifest.clone();
    altered.replace_range(checksum..=checksum, digit);
    let first_line = manifest.find('\n').ok_or("one line")?;
    for broken in [
        altered,
        manifest.replacen("PG_VERSION", "PG_VERSIOM", 1),
        manifest.trim_end().to_owned(),
        format!("{manifest}\n"),
        manifest[..first_line].to_owned(),
        String::new(),
    ] {
        fs::write(&path, broken)?;
        assert!(matches!(judged()?, Err(VerifyError::Manifest { .. })));
    }
    fs::remove_file(&path)?;
    assert!(matches!(judged()?, Err(VerifyError::Io { .. })));
    Ok(())
}
