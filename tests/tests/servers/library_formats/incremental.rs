//! Incremental backups, and what becomes of them.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgwire_stream::backup_label::{self, BackupLabel};
use pgwire_stream::incremental::{
    self, BlockMap, BlockSource, IncrementalReader, PriorFile, Reconstruction,
};
use pgwire_stream::manifest::{VerifyOptions, verify_directory};
use pgwire_stream::{BaseBackupOptions, RelationFiles};
use walrecv_tests::run::ScenarioResult;
use walrecv_tests::{Cluster, Installation, program, tools};

use super::taken::{Taken, take};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(super) fn reconstructed_as_by_pg_combinebackup(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::options(installation).config("summarize_wal = on").start()?;
    cluster.execute(
        "CREATE TABLE grows AS SELECT g, repeat('x', 500) t FROM generate_series(1, 20000) g; \
         CREATE TABLE shrinks AS SELECT * FROM grows; \
         CREATE TABLE rests AS SELECT * FROM grows; \
         CREATE INDEX ON grows (g)",
    )?;
    let mut options = BaseBackupOptions::default();
    options.fast_checkpoint = true;
    let full = take(&cluster, "full", &options, None)?;

    options.incremental = true;
    cluster.execute("UPDATE grows SET t = 'changed' WHERE g % 900 = 0")?;
    cluster.execute("DELETE FROM shrinks WHERE g > 5000")?;
    cluster.execute("VACUUM shrinks")?;
    let first = take(&cluster, "first", &options, Some(&full.manifest))?;
    cluster.execute("UPDATE grows SET t = 'again' WHERE g % 1100 = 0")?;
    cluster.execute("INSERT INTO grows SELECT g, 'new' FROM generate_series(1, 9000) g")?;
    cluster
        .execute("INSERT INTO shrinks SELECT g, repeat('y', 500) FROM generate_series(1, 900) g")?;
    let second = take(&cluster, "second", &options, Some(&first.manifest))?;

    // Each knows the one that it is built upon.
    let label = |taken: &Taken| -> Result<(Vec<u8>, BackupLabel)> {
        let content = fs::read(taken.data.join(backup_label::FILE_NAME))?;
        let label = BackupLabel::parse(&content)?;
        Ok((content, label))
    };
    let base = label(&second)?.1.incremental_from.ok_or("the label does not say")?;
    let (lsn, timeline) = (first.start.lsn, first.start.timeline);
    assert_eq!((base.lsn, base.timeline), (lsn, timeline));

    let Some(judge) = tools::of_major("pg_combinebackup", installation.major) else {
        tools::missing("pg_combinebackup", &installation.name());
        return Ok(());
    };
    let combined = cluster.base_directory().join("combined");
    program::run(
        Command::new(judge).args([&full.data, &first.data, &second.data]).arg("-o").arg(&combined),
    )?;
    let whole = backup_label::without_incremental_lines(&label(&second)?.0);
    assert_eq!(fs::read(combined.join(backup_label::FILE_NAME))?, whole);

    let mut compared = 0;
    let mut from_older = 0;
    for path in files_below(&second.data)? {
        let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        let Some(name) = incremental::relation_file_name(name) else { continue };
        let whole = path.with_file_name(str::from_utf8(name)?);
        let relative = whole.strip_prefix(&second.data)?;
        let (rebuilt, older) = rebuild(&[&second.data, &first.data, &full.data], relative)?;
        assert!(rebuilt == fs::read(combined.join(relative))?, "{} differs", relative.display());
        compared += 1;
        from_older += older;
    }
    assert!(compared > 100 && from_older > 1000, "{compared} files, {from_older} blocks");

    // What the judge made is a backup like any other, and so are the incremental ones.
    for data in [&combined, &first.data, &second.data] {
        let mut problems = Vec::new();
        verify_directory(data, &VerifyOptions::default(), |problem| problems.push(problem))?;
        assert_eq!(problems, []);
    }
    Ok(())
}

/// A relation file from the backups that have a part of it, newest first; and how many of its
/// blocks are not from the newest.
fn rebuild(backups: &[&PathBuf], relative: &Path) -> Result<(Vec<u8>, u64)> {
    let name = relative.file_name().ok_or("no name")?.to_str().ok_or("an odd name")?;
    let part = relative.with_file_name(format!("{}{name}", incremental::FILE_NAME_PREFIX));
    let (mut files, mut maps, mut full) = (Vec::new(), Vec::new(), None);
    for backup in backups {
        if let Ok(file) = File::open(backup.join(&part)) {
            maps.push(read_map(&file)?);
            files.push(file);
        } else {
            let file = File::open(backup.join(relative))?;
            full = Some(PriorFile::Full { size: file.metadata()?.len() });
            files.push(file);
            break;
        }
    }
    let (newest, earlier) = maps.split_first().ok_or("not incremental")?;
    let mut prior: Vec<_> = earlier.iter().map(PriorFile::Incremental).collect();
    prior.extend(full);
    let whole = Reconstruction::new(newest, &prior)?;
    let mut rebuilt = vec![0; usize::try_from(whole.size())?];
    let mut older = 0;
    for run in whole.runs() {
        let BlockSource::At { backup, offset } = run.source else { continue };
        let begin = run.block as usize * 8192;
        files[backup].read_exact_at(&mut rebuilt[begin..][..run.count as usize * 8192], offset)?;
        older += if backup > 0 { u64::from(run.count) } else { 0 };
    }
    Ok((rebuilt, older))
}

fn read_map(mut file: &File) -> Result<BlockMap> {
    let mut reader = IncrementalReader::new(RelationFiles::DEFAULT);
    let mut buffer = vec![0; 10_000];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(reader.finish()?),
            length => reader.feed(&buffer[..length])?,
        }
    }
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}
