//! What a server writes, as seeds: its control file, its WAL, and what comes in a base backup.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use walrecv_tests::{Context, Failure, Result};

use super::Seeds;
use super::scene::Scene;

const TAR_BLOCK: usize = 512;

/// A block of a relation.
const BLOCK: usize = 8192;

/// How many files stay of an archive and of a manifest.
const FILES: usize = 6;

/// Writes the seeds of the parsers of files.
pub(super) fn of_cluster(scene: &Scene, seeds: &Seeds) -> Result<()> {
    let data = scene.cluster.data_directory();
    let history = read(&data.join("pg_wal/00000002.history"))?;
    seeds.write("history", "second", &[b"\x02", &history[..]].concat())?;
    // What lies behind is zeros.
    let control = read(&data.join("global/pg_control"))?;
    seeds.write("control_file", "pg_control", control.get(..512).unwrap_or(&control))?;
    let segment = read(&first_segment(&data.join("pg_wal"))?)?;
    let pages = segment.get(..12 << 10).unwrap_or(&segment);
    seeds.write("wal", "segment", &[&[0, 200], pages].concat())?;

    let backup = scene.take_backup(None)?;
    let members = members(&backup.base)?;
    for (name, target) in [("backup_label", "backup_label"), ("tablespace_map", "tablespace_map")] {
        let content =
            members.iter().find(|member| member.name == name).map(|member| member.content);
        let content = content.context(|| format!("the backup has no {name}"))?;
        seeds.write(target, name, content)?;
    }
    let archive = shorten_archive(&members, &backup.base);
    seeds.write("tar", "base", &[&[100], &archive[..]].concat())?;
    if let Some(manifest) = &backup.manifest {
        let manifest = shorten_manifest(manifest)?;
        seeds.write("manifest", "backup_manifest", &[b"\x40", manifest.as_bytes()].concat())?;
    }
    if scene.cluster.major() >= 17 {
        // Changes a few blocks of the system's tables.
        scene.cluster.execute("ANALYZE t")?;
        let incremental = scene.take_backup(backup.manifest)?;
        of_incremental(&self::members(&incremental.base)?, seeds)?;
    }
    Ok(())
}

/// The smallest incremental file, and the smallest one with blocks.
fn of_incremental(members: &[Member<'_>], seeds: &Seeds) -> Result<()> {
    let mut files: Vec<&[u8]> = members
        .iter()
        .filter(|member| member.name.contains("/INCREMENTAL."))
        .map(|member| member.content)
        .collect();
    files.sort_by_key(|content| content.len());
    let with_blocks = files.iter().find(|content| content.len() > BLOCK);
    for (name, file) in [("empty", files.first()), ("blocks", with_blocks)] {
        let content = file.context(|| "the backup has no incremental files".to_owned())?;
        // How it is cut, and blocks of 8 kB.
        seeds.write("incremental_file", name, &[&[200, 3], *content].concat())?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("cannot read {}", path.display()))
}

/// The oldest segment that there is.
fn first_segment(directory: &Path) -> Result<PathBuf> {
    let about = || format!("cannot read {}", directory.display());
    let entries = fs::read_dir(directory).context(about)?;
    let paths = entries.flatten().map(|entry| entry.path());
    let is_segment = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.len() == 24 && path.extension().is_none())
    };
    paths.filter(is_segment).min().context(about)
}

/// A member of an archive.
struct Member<'a> {
    name: &'a str,
    content: &'a [u8],
    /// Header, content and padding.
    whole: &'a [u8],
}

/// The members of an archive that PostgreSQL has sent.
fn members(archive: &[u8]) -> Result<Vec<Member<'_>>> {
    let damaged = || "the archive cannot be understood".to_owned();
    let mut rest = archive;
    let mut members = Vec::new();
    while rest.first().is_some_and(|&byte| byte != 0) {
        let text = |range: std::ops::Range<usize>| {
            let field = rest.get(range)?.split(|&byte| byte == 0).next()?;
            str::from_utf8(field).ok()
        };
        let name = text(0..100).context(damaged)?;
        let size = text(124..136).and_then(|size| usize::from_str_radix(size.trim(), 8).ok());
        let end = TAR_BLOCK + size.context(damaged)?;
        let (whole, next) =
            rest.split_at_checked(end.next_multiple_of(TAR_BLOCK)).context(damaged)?;
        let content = whole.get(TAR_BLOCK..end).context(damaged)?;
        members.push(Member { name, content, whole });
        rest = next;
    }
    Ok(members)
}

/// An archive of the first small members, that ends as the archive does.
fn shorten_archive(members: &[Member<'_>], archive: &[u8]) -> Vec<u8> {
    let small = members.iter().filter(|member| member.content.len() < TAR_BLOCK).take(FILES);
    let mut short: Vec<u8> = small.flat_map(|member| member.whole.to_vec()).collect();
    if archive.ends_with(&[0; 2 * TAR_BLOCK]) {
        short.resize(short.len() + 2 * TAR_BLOCK, 0);
    }
    short
}

/// A manifest of the first files, with its own checksum.
fn shorten_manifest(manifest: &[u8]) -> Result<String> {
    let unknown = || Failure::new("the manifest is not written as it always was");
    let text = str::from_utf8(manifest).map_err(|_| unknown())?;
    let (head, rest) = text.split_once("\"Files\": [\n").ok_or_else(unknown)?;
    let (files, rest) = rest.split_once("\n],\n").ok_or_else(unknown)?;
    let (ranges, _) = rest.split_once("\"Manifest-Checksum\"").ok_or_else(unknown)?;
    let files: Vec<&str> = files.lines().take(FILES).collect();
    let files = files.join("\n");
    let files = files.trim_end_matches(',');
    let mut short = format!("{head}\"Files\": [\n{files}\n],\n{ranges}");
    let digest = Sha256::digest(&short);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    short.push_str(&format!("\"Manifest-Checksum\": \"{digest}\"}}\n"));
    Ok(short)
}
