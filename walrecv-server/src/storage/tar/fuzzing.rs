//! Entry point of the fuzz target: arbitrary bytes, and what must hold whatever they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use tar_core::HEADER_SIZE;

use super::{Member, MemberKind, TarError, TarEvent, TarReader};

type Contents = Vec<(Member, Vec<u8>)>;

/// An archive, behind a byte that says how it is cut.
///
/// Asserted: any cut gives the same members, each as long as its header says and with a path that
/// leads nowhere else. Wrong checksums of headers are mended, or nobody would see what lies behind.
pub fn tar(data: &[u8]) {
    let Some((&cut, archive)) = data.split_first() else { return };
    let mut archive = archive.to_vec();
    for _ in 0..8 {
        let whole = read(&archive, archive.len());
        let pieces = read(&archive, usize::from(cut) + 1);
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        let Err(TarError::Header { at, .. }) = whole else { return };
        if !mend(&mut archive, at) {
            return;
        }
    }
}

/// The members of an archive that comes in pieces of this length, and whether it has an end.
fn read(archive: &[u8], cut: usize) -> Result<(Contents, bool), TarError> {
    let mut reader = TarReader::new();
    let mut members = Contents::new();
    let mut open = false;
    for mut piece in archive.chunks(cut.max(1)) {
        while let Some(event) = reader.feed(&mut piece)? {
            match event {
                TarEvent::Member(member) => {
                    assert!(!open && !member.path.is_empty());
                    let parts = member.path.split(|&byte| byte == b'/');
                    assert!(parts.into_iter().all(|part| !matches!(part, b"" | b"." | b"..")));
                    assert!(member.kind == MemberKind::File || member.size == 0);
                    members.push((member, Vec::new()));
                    open = true;
                }
                TarEvent::Content(bytes) => {
                    assert!(open && !bytes.is_empty());
                    members.last_mut().unwrap().1.extend_from_slice(bytes);
                }
                TarEvent::MemberEnd => {
                    let (member, content) = members.last().unwrap();
                    assert!(open && content.len() as u64 == member.size);
                    open = false;
                }
            }
        }
        assert!(piece.is_empty(), "not all of it was taken");
    }
    assert_eq!(reader.position(), archive.len() as u64);
    Ok((members, reader.finish()?))
}

/// Writes the checksum that it should have into a header. False if that is not what is wrong.
fn mend(archive: &mut [u8], at: u64) -> bool {
    let header = &mut archive[usize::try_from(at).unwrap()..][..HEADER_SIZE];
    let before = header.to_vec();
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    before != header
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Whole, and cut off anywhere.
    #[test]
    fn the_seeds_are_borne_and_those_of_real_servers_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/tar");
        let mut majors = 0;
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let seed = fs::read(&path).unwrap();
            for length in (0..seed.len()).step_by(97).chain([seed.len()]) {
                tar(&seed[..length]);
            }
            if path.file_name().unwrap().to_str().unwrap().starts_with("pg") {
                majors += 1;
                let (members, _) = read(&seed[1..], 100).unwrap();
                assert!(members.iter().any(|(member, _)| member.path == b"backup_label"));
            }
        }
        assert_eq!(majors, 10);
    }
}
