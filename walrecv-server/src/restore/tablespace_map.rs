//! `tablespace_map`: the file by which a server finds the tablespaces of a backup.
//!
//! One line per tablespace, `oid path`. Line ends within a path are escaped by a backslash; from
//! PostgreSQL 14 on, so is the backslash itself.
//!
//! Follows `do_pg_backup_start` and `read_tablespace_map` in `src/backend/access/transam/xlog.c`
//! and `xlogrecovery.c`.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pgwire_stream::ServerVersion;

/// Its name in the data directory.
pub(super) const NAME: &[u8] = b"tablespace_map";
/// More than any cluster has of it.
pub(super) const LIMIT: u64 = 16 << 20;

const ESCAPED_BACKSLASH: ServerVersion = ServerVersion::from_num(140_000);

/// The map of a backup whose tablespaces lie elsewhere now.
pub(super) fn write(places: &BTreeMap<u32, PathBuf>, version: ServerVersion) -> Vec<u8> {
    let mut map = Vec::new();
    for (oid, path) in places {
        map.extend_from_slice(format!("{oid} ").as_bytes());
        map.extend(escaped(path, version));
        map.push(b'\n');
    }
    map
}

fn escaped(path: &Path, version: ServerVersion) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        let special = match byte {
            b'\n' | b'\r' => true,
            b'\\' => version >= ESCAPED_BACKSLASH,
            _ => false,
        };
        if special {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped
}

/// The tablespaces that a map names; `None` if it is not one.
pub(super) fn oids(map: &[u8]) -> Option<Vec<u32>> {
    let mut oids = Vec::new();
    let mut rest = map;
    while !rest.is_empty() {
        let space = rest.iter().position(|&byte| byte == b' ')?;
        let (oid, path) = rest.split_at(space);
        oids.push(std::str::from_utf8(oid).ok()?.parse().ok()?);
        rest = path.get(end_of_line(path)?..)?;
    }
    Some(oids)
}

/// Just behind the first line end that is not part of a path.
fn end_of_line(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'\n' if !escaped => return Some(at + 1),
            // Before 14 a backslash stood for itself, but none stood before a line end.
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(paths: &[(u32, &str)], version: u32) -> Vec<u8> {
        let places = paths.iter().map(|&(oid, path)| (oid, PathBuf::from(path))).collect();
        write(&places, ServerVersion::from_num(version))
    }

    #[test]
    fn lines_are_as_servers_write_them() {
        let places = [(16386, "/srv/fast disk"), (16400, "/srv/a\\b\nc")];
        assert_eq!(map(&places, 150_000), b"16386 /srv/fast disk\n16400 /srv/a\\\\b\\\nc\n");
        assert_eq!(map(&places, 130_000), b"16386 /srv/fast disk\n16400 /srv/a\\b\\\nc\n");
    }

    #[test]
    fn oids_are_found_again() {
        let places = [(16386, "/srv/fast disk"), (16400, "/srv/a\\b\n17 c\\"), (16401, "/x")];
        assert_eq!(oids(&map(&places, 180_000)), Some(vec![16386, 16400, 16401]));
        assert_eq!(oids(b""), Some(vec![]));
        for bad in [&b"16386"[..], b"x /srv\n", b"16386 /srv", b"16386 /srv\\\n"] {
            assert_eq!(oids(bad), None);
        }
    }
}
