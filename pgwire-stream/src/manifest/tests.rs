use proptest::prelude::*;

use super::*;

/// As a server writes it; the checksum is from `sha256sum`.
const MANIFEST: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7357089276153000001,
"Files": [
{ "Path": "backup_label", "Size": 225, "Last-Modified": "2026-11-20 11:03:39 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "4d9b4671" },
{ "Path": "tablespace_map", "Size": 0, "Last-Modified": "2026-11-20 11:03:39 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" },
{ "Path": "pg_tblspc/16386/PG_17_202406281/a \"b\"\\\u0001}", "Size": 9000000000, "Last-Modified": "2026-11-20 11:03:39 GMT" },
{ "Encoded-Path": "62ff7d22", "Size": 3, "Last-Modified": "2026-11-20 11:03:39 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "8a744722" },
{ "Path": "global/pg_control", "Size": 8192, "Last-Modified": "2026-11-20 11:03:39 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "43872087" }
],
"WAL-Ranges": [
{ "Timeline": 2, "Start-LSN": "0/2000100", "End-LSN": "0/2000200" },
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"Manifest-Checksum": "632e429bca385d9f46bde6f4454fc29714cbdc8420b45d6fe97ab0105a6c6ab6"}
"#;

fn read(pieces: &[&[u8]]) -> Result<Vec<ManifestItem>, ManifestError> {
    let mut reader = ManifestReader::new();
    let mut items = Vec::new();
    for piece in pieces {
        items.extend(reader.feed(piece)?);
    }
    reader.finish()?;
    Ok(items)
}

/// `text` with its checksum line replaced by the right one.
fn signed(lines: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(lines.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{lines}\"Manifest-Checksum\": \"{hex}\"}}\n")
}

#[test]
fn a_manifest_is_read_as_the_server_meant_it() {
    let items = read(&[MANIFEST.as_bytes()]).unwrap();
    assert_eq!(items.len(), 9);
    assert_eq!(items[0], ManifestItem::Version(2));
    assert_eq!(items[1], ManifestItem::SystemId(SystemId::from_u64(7_357_089_276_153_000_001)));
    assert_eq!(
        items[2],
        ManifestItem::File(ManifestFile {
            path: b"backup_label".to_vec(),
            size: 225,
            modified: "2026-11-20 11:03:39 GMT".to_owned(),
            checksum: Some((ChecksumAlgorithm::Crc32c, vec![0x4d, 0x9b, 0x46, 0x71])),
        })
    );
    let ManifestItem::File(quoted) = &items[4] else { panic!("{:?}", items[4]) };
    assert_eq!(quoted.path, b"pg_tblspc/16386/PG_17_202406281/a \"b\"\\\x01}");
    assert_eq!((quoted.size, &quoted.checksum), (9_000_000_000, &None));
    let ManifestItem::File(encoded) = &items[5] else { panic!("{:?}", items[5]) };
    assert_eq!(encoded.path, b"b\xff}\"");
    assert_eq!(
        items[8],
        ManifestItem::WalRange(WalRange {
            timeline: TimelineId::FIRST,
            start: "0/2000028".parse().unwrap(),
            end: "0/2000100".parse().unwrap(),
        })
    );
}

#[test]
fn writing_gives_the_bytes_of_the_server() {
    let items = read(&[MANIFEST.as_bytes()]).unwrap();
    assert_eq!(String::from_utf8(rewritten(&items).unwrap()).unwrap(), MANIFEST);
}

#[test]
fn every_cut_reads_the_same() {
    let whole = read(&[MANIFEST.as_bytes()]);
    for at in 0..=MANIFEST.len() {
        let (head, tail) = MANIFEST.as_bytes().split_at(at);
        assert_eq!(read(&[head, tail]), whole, "cut at {at}");
        if at < MANIFEST.len() {
            assert!(read(&[head]).is_err(), "ended at {at}");
        }
    }
}

#[test]
fn lines_do_not_matter_to_entries() {
    let flat = MANIFEST.rsplit_once("\"Manifest-Checksum\"").unwrap().0.replace('\n', " ");
    let items = read(&[signed(&format!("{flat}\n")).as_bytes()]);
    assert_eq!(items, read(&[MANIFEST.as_bytes()]));
}

#[test]
fn a_changed_line_is_told_from_a_malformed_one() {
    let changed = MANIFEST.replace("8a744722", "8a744723");
    assert!(matches!(read(&[changed.as_bytes()]), Err(ManifestError::Altered { .. })));
    let trailing = format!("{MANIFEST}\n");
    assert!(matches!(read(&[trailing.as_bytes()]), Err(ManifestError::Malformed { .. })));
}

#[test]
fn what_no_server_writes_is_refused() {
    let start = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n";
    let end = "\"WAL-Ranges\": [],\n";
    let whole = |files: &str| signed(&format!("{start}\"Files\": [{files}],\n{end}"));
    let entry = |rest: &str| whole(&format!("{{\"Last-Modified\": \"\"{rest}}}"));
    assert!(read(&[whole("").as_bytes()]).is_ok());
    assert!(read(&[entry(", \"Path\": \"a\", \"Size\": 1").as_bytes()]).is_ok());
    for (what, text) in [
        ("no path", entry(", \"Size\": 1")),
        ("an empty path", entry(", \"Path\": \"\", \"Size\": 1")),
        ("two paths", entry(", \"Path\": \"a\", \"Encoded-Path\": \"61\", \"Size\": 1")),
        ("half a byte", entry(", \"Encoded-Path\": \"616\", \"Size\": 1")),
        ("no size", entry(", \"Path\": \"a\"")),
        ("a negative size", entry(", \"Path\": \"a\", \"Size\": -1")),
        ("an unknown field", entry(", \"Path\": \"a\", \"Size\": 1, \"Mode\": 1")),
        ("a checksum of nothing", entry(", \"Path\": \"a\", \"Size\": 1, \"Checksum\": \"00\"")),
        (
            "a short checksum",
            entry(
                ", \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"CRC32C\", \
                 \"Checksum\": \"00\"",
            ),
        ),
        ("an entry inside an entry", entry(", \"Path\": {}, \"Size\": 1")),
        ("a comma at the end", whole("{\"Path\": \"a\"},")),
        ("no list of files", signed(&format!("{start}{end}"))),
        ("two lists", signed(&format!("{start}\"Files\": [],\"Files\": [],{end}"))),
        ("a system identifier too early", signed(&format!("{start}\"System-Identifier\": 1,"))),
        ("version 3", MANIFEST.replacen("Version\": 2", "Version\": 3", 1)),
        ("version 1 of version 2", MANIFEST.replacen("Version\": 2", "Version\": 1", 1)),
        ("no version", signed(&format!("{{ \"Files\": [],\n{end}"))),
        ("timeline 0", MANIFEST.replacen("Timeline\": 1", "Timeline\": 0", 1)),
        ("nothing", String::new()),
    ] {
        assert!(read(&[text.as_bytes()]).is_err(), "{what}: {text}");
    }
}

#[test]
fn what_postgresql_reads_is_read() {
    let entry = |fields: &str| {
        let lines = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [{{{fields}}}],\n\
             \"WAL-Ranges\": [],\n"
        );
        match &read(&[signed(&lines).as_bytes()]).unwrap()[..] {
            [_, ManifestItem::File(file)] => file.clone(),
            other => panic!("{other:?}"),
        }
    };
    let file = entry("\t\"Size\" : \"12\", \"Path\":\"a\" ");
    assert_eq!((file.size, &file.path[..], &file.modified[..]), (12, &b"a"[..], ""));
    let none = ", \"Checksum-Algorithm\": \"none\"";
    assert_eq!(entry(&format!("\"Path\": \"a\", \"Size\": 1{none}")).checksum, None);
    let upper = ", \"Checksum-Algorithm\": \"crc32c\", \"Checksum\": \"ABCDEF01\"";
    let file = entry(&format!("\"Encoded-Path\": \"C3A4\", \"Size\": 1{upper}"));
    assert_eq!(file.path, "ä".as_bytes());
    assert_eq!(file.checksum, Some((ChecksumAlgorithm::Crc32c, vec![0xAB, 0xCD, 0xEF, 0x01])));
}

#[test]
fn a_bad_entry_is_found_by_its_offset() {
    let text = MANIFEST.replacen("\"Size\": 225", "\"Size\": 225x", 1);
    let expected = text.find("225x").unwrap() as u64 + 3;
    for at in 0..text.len() {
        let (head, tail) = text.as_bytes().split_at(at);
        match read(&[head, tail]) {
            Err(ManifestError::Entry { at, .. }) => assert_eq!(at, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn paths_are_encoded_and_positions_padded_on_demand() {
    let writer = ManifestWriter::version_1(Vec::new()).unwrap();
    let mut writer = writer.encode_paths().as_written_by(crate::ServerVersion::from_num(190_000));
    let file =
        ManifestFile { path: b"ab".to_vec(), size: 1, modified: String::new(), checksum: None };
    writer.file(&file).unwrap();
    let lsn = |address| Lsn::from_u64(address);
    let range = WalRange { timeline: TimelineId::FIRST, start: lsn(0x28), end: lsn(0x120) };
    let bytes = writer.finish(&[range]).unwrap();
    let text = str::from_utf8(&bytes).unwrap();
    assert!(text.contains("\"Encoded-Path\": \"6162\""), "{text}");
    assert!(text.contains("\"Start-LSN\": \"0/00000028\""), "{text}");
    let items = read(&[&bytes]).unwrap();
    assert_eq!(items[1..], [ManifestItem::File(file), ManifestItem::WalRange(range)]);
}

#[test]
fn an_endless_entry_is_not_collected() {
    let mut reader = ManifestReader::new();
    reader.feed(b"{ \"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Path\": \"").unwrap();
    let err = (0..20).find_map(|_| reader.feed(&[b'a'; 8192]).err());
    assert!(matches!(err, Some(ManifestError::TooLong { .. })), "{err:?}");
}

fn any_file() -> impl Strategy<Value = ManifestFile> {
    let path = prop_oneof![
        "[ -~]{1,30}".prop_map(String::into_bytes),
        "\\PC{1,10}".prop_map(String::into_bytes),
        prop::collection::vec(1u8.., 1..20),
    ];
    let checksum = prop_oneof![
        Just(None),
        any::<[u8; 4]>().prop_map(|crc| Some((ChecksumAlgorithm::Crc32c, crc.to_vec()))),
        any::<[u8; 32]>().prop_map(|sha| Some((ChecksumAlgorithm::Sha256, sha.to_vec()))),
    ];
    (path, any::<u64>(), checksum).prop_map(|(path, size, checksum)| ManifestFile {
        path,
        size,
        modified: "2026-11-20 11:03:39 GMT".to_owned(),
        checksum,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        system_id in any::<Option<u64>>(),
        files in prop::collection::vec(any_file(), 0..8),
        lsns in prop::collection::vec((1u32.., any::<u64>(), any::<u64>()), 0..3),
        piece in 1usize..200,
    ) {
        let mut items = vec![ManifestItem::Version(if system_id.is_some() { 2 } else { 1 })];
        items.extend(system_id.map(|id| ManifestItem::SystemId(SystemId::from_u64(id))));
        items.extend(files.into_iter().map(ManifestItem::File));
        items.extend(lsns.into_iter().map(|(timeline, start, end)| {
            ManifestItem::WalRange(WalRange {
                timeline: TimelineId::new(timeline).unwrap(),
                start: Lsn::from_u64(start),
                end: Lsn::from_u64(end),
            })
        }));
        let bytes = rewritten(&items).unwrap();
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        prop_assert_eq!(read(&pieces), Ok(items));
    }

    #[test]
    fn a_flipped_byte_is_found(at in 0..MANIFEST.len(), flip in 1u8..) {
        let mut bytes = MANIFEST.as_bytes().to_vec();
        bytes[at] ^= flip;
        prop_assert!(read(&[&bytes]).is_err());
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&[&bytes]);
    }
}
