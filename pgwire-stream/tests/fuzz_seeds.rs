//! Replays the seeds of the fuzz targets, whole and damaged, so that the targets never rot.

#![cfg(feature = "fuzzing")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use pgwire_stream::backup_label::BackupLabel;
use pgwire_stream::control_file::ControlFile;
use pgwire_stream::fuzzing::{TARGETS, client_accepts, server_accepts};
use pgwire_stream::manifest::ManifestReader;
use pgwire_stream::proto::{Command, CopyBothMessage, StandbyMessage};
use pgwire_stream::tablespace_map::TablespaceMap;
use pgwire_stream::wal::{Finding, PageHeader, Start, WalOptions, WalValidator};
use pgwire_stream::{Config, ServerVersion, TimelineHistory, TimelineId};

/// A small generator, so that every run damages the seeds in the same way.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// The seeds of a target by their names, in a stable order.
fn named_seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    named_seeds(target).into_values().collect()
}

/// The bytes with a few of them changed, removed, repeated or taken from another seed.
fn damaged(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(bytes.len());
        let length = numbers.below(24).min(bytes.len() - at);
        match numbers.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + length)),
            2 => drop(bytes.splice(at..at, bytes[at..at + length].to_vec())),
            3 => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len());
                let piece = &other[from..(from + length).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            _ if at < bytes.len() => bytes[at] = numbers.next() as u8,
            _ => bytes.push(numbers.next() as u8),
        }
    }
    bytes
}

#[test]
fn every_target_has_seeds_and_bears_them() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() > 1, "{name}");
        for seed in &seeds {
            target(seed);
            // Every length of a short one, and of a long one as many.
            for length in (0..seed.len()).step_by(seed.len() / 200 + 1) {
                target(&seed[..length]);
            }
        }
    }
}

/// A seed that is refused at its first byte is worth nothing.
#[test]
fn seeds_are_well_formed() {
    for seed in seeds("manifest") {
        let mut reader = ManifestReader::new();
        assert!(reader.feed(&seed[1..]).unwrap().len() >= 4);
        reader.finish().unwrap();
    }
    for seed in seeds("history") {
        let timeline = TimelineId::new(u32::from(seed[0])).unwrap();
        assert!(!TimelineHistory::parse(timeline, &seed[1..]).unwrap().switches().is_empty());
    }
    for seed in seeds("conninfo") {
        String::from_utf8(seed).unwrap().parse::<Config>().unwrap();
    }
    for seed in seeds("uri") {
        let text = format!("postgresql://{}", String::from_utf8(seed).unwrap());
        text.parse::<Config>().unwrap();
    }
    for seed in seeds("command") {
        for text in String::from_utf8(seed).unwrap().split('\0') {
            Command::parse(text).unwrap();
        }
    }
    for seed in seeds("wal_message") {
        let seed = Bytes::from(seed);
        assert!(
            CopyBothMessage::decode(seed.clone()).is_ok() || StandbyMessage::decode(seed).is_ok()
        );
    }
}

/// What a server has written is read, and what it means is what it said elsewhere.
#[test]
fn the_files_of_every_major_are_read() {
    for major in MAJORS {
        let version = ServerVersion::from_num(major * 10_000);
        let file = |target, name| named_seeds(target)[&format!("pg{major}-{name}")].clone();
        let label = BackupLabel::parse(&file("backup_label", "backup_label")).unwrap();
        let map = TablespaceMap::parse(&file("tablespace_map", "tablespace_map"), version).unwrap();
        assert_eq!(map.tablespaces.len(), 1);
        let control = ControlFile::parse(&file("control_file", "pg_control")).unwrap();
        assert_eq!(control.timeline, label.start.timeline());
        assert_eq!(control.wal_segment_size.bytes() >> 20, if major == 10 { 16 } else { 1 });

        let wal = &file("wal", "segment")[2..];
        let header = PageHeader::parse(wal).unwrap();
        let mut options = WalOptions::new(control.wal_segment_size);
        (options.version, options.system_id) = (Some(version), Some(control.system_id));
        let mut validator = WalValidator::new(options, Start::Anywhere(header.address));
        let mut records = 0;
        validator.feed(wal, |finding| match finding {
            Finding::Record(_) => records += 1,
            Finding::Unchecked { .. } => {}
            wrong => panic!("{major}: {wrong:?}"),
        });
        assert!(records > 0, "{major}");
    }
}

/// Transcripts that begin in the middle.
const MADE_BY_HAND: [&str; 7] = ["error", "identify", "md5", "scram", "shutdown", "stop", "stream"];

/// The majors that seeds were made of.
const MAJORS: std::ops::RangeInclusive<u32> = 10..=19;

#[test]
fn a_real_transcript_is_accepted_to_its_end() {
    let seeds = named_seeds("session");
    for major in MAJORS {
        let of_major = |name: &&String| name.starts_with(&format!("pg{major}-"));
        assert!(seeds.keys().filter(of_major).count() >= 7, "{major}");
    }
    for (name, transcript) in &seeds {
        let accepted = client_accepts(transcript);
        if name.contains("scram") {
            // The server has answered another nonce than ours.
            assert!(accepted.is_err_and(|refused| refused.contains("SCRAM")), "{name}");
        } else {
            assert_eq!(accepted, Ok(()), "{name}");
        }
        // The server's end would have asked this client for nothing.
        if !name.contains("login") && !MADE_BY_HAND.contains(&name.as_str()) {
            assert_eq!(server_accepts(transcript), Ok(()), "{name}");
        }
    }
}

#[test]
fn damaged_seeds_are_borne() {
    // More by hand: FUZZ_ROUNDS=1000000 cargo test --release …
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        for round in 0..rounds {
            let bytes = damaged(&seeds, &mut numbers);
            let result = std::panic::catch_unwind(|| target(&bytes));
            assert!(
                result.is_ok(),
                "{name}, round {round}: {:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }
}

#[test]
fn the_targets_are_those_of_the_fuzz_crate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    // walrecv-server's own.
    targets.push("tar".to_owned());
    files.sort_unstable();
    targets.sort_unstable();
    assert_eq!(files, targets);
    let explained = fs::read_to_string(folder.join("../README.md")).unwrap();
    for target in targets {
        assert!(explained.contains(&format!("| `{target}` |")), "{target}");
    }
}
