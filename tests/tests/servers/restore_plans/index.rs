//! The index of a directory of the archive: a line for each segment, with a checksum in front of it
//! and what is said of the directory as a whole in it. The last line about a segment counts.

use std::fs;
use std::path::Path;

use pgwire_stream::Lsn;
use serde_json::{Value, json};
use walrecv_tests::{Context, Result};

/// Has the index say that a part of a segment is suspect. Whether it says anything of that segment.
pub(crate) fn add_suspect(
    server: &Path,
    (timeline, number): (u32, u64),
    from: u64,
    to: u64,
) -> Result<bool> {
    let folder = format!("{timeline:08X}{:08X}", number >> 12);
    let path = server.join("wals").join(&folder).join("index");
    let about = || format!("cannot change {}", path.display());
    let Ok(mut text) = fs::read_to_string(&path) else { return Ok(false) };
    let name = format!("{folder}{:08X}", number & 0xFFF);
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(&line[9..]))
        .collect::<std::result::Result<_, _>>()
        .context(about)?;
    let whole = |line: &&Value| {
        line["file"]
            .as_str()
            .is_some_and(|file| file.starts_with(&name) && !file.contains("partial"))
    };
    let Some(mut line) = lines.iter().rev().find(whole).cloned() else { return Ok(false) };
    let mut directory = lines.last().map(|last| last["directory"].clone()).unwrap_or_default();
    let mut count = |name: &str, more: i64| {
        let number = directory[name].as_i64().unwrap_or_default();
        directory[name] = (number + more).into();
    };
    match line["validity"].as_str() {
        Some("suspect") => {}
        known => {
            count("validated", -i64::from(known == Some("validated")));
            count("suspect", 1);
        }
    }
    let mut suspect = line["suspect"].as_array().cloned().unwrap_or_default();
    let lsn = |lsn: u64| Lsn::from_u64(lsn).to_string();
    suspect.push(json!({ "from": lsn(from), "to": lsn(to), "what": "of the test's making" }));
    line["validity"] = "suspect".into();
    line["suspect"] = suspect.into();
    line["directory"] = directory;
    let line = line.to_string();
    text += &format!("{:08x} {line}\n", crc32c::crc32c(line.as_bytes()));
    fs::remove_file(&path).and_then(|()| fs::write(&path, text)).context(about)?;
    Ok(true)
}
