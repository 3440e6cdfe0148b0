//! `tablespace_map`: the file by which a server finds the tablespaces of a backup.
//!
//! One line per tablespace, `oid path`. Line breaks within a path are escaped by a backslash; from
//! PostgreSQL 14 on, so is the backslash itself. On its first start from the backup, the server
//! makes the links in `pg_tblspc` from it, so whoever moves a tablespace writes it anew.
//!
//! ```
//! use pgwire_stream::{ServerVersion, tablespace_map::TablespaceMap};
//!
//! let version = ServerVersion::from_num(18_0004);
//! let mut map = TablespaceMap::parse(b"16386 /srv/fast disk\n", version)?;
//! map.tablespaces[0].path = b"/mnt/new\\disk".to_vec();
//! assert_eq!(map.write(version)?, b"16386 /mnt/new\\\\disk\n");
//! # Ok::<(), pgwire_stream::tablespace_map::TablespaceMapError>(())
//! ```
//!
//! Follows `do_pg_backup_start` in `src/backend/access/transam/xlog.c` and `read_tablespace_map` in
//! `xlogrecovery.c`.

use std::mem;

use crate::{Feature, ServerVersion};

/// Its name in the data directory.
pub const FILE_NAME: &str = "tablespace_map";

/// The tablespaces of a backup, but for the two that every cluster has and those in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablespaceMap {
    /// In the order of the file.
    pub tablespaces: Vec<MappedTablespace>,
}

/// Where a tablespace lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedTablespace {
    /// Its identifier, the name of its link in `pg_tblspc`; never 0.
    pub oid: u32,
    /// Its directory, in the bytes of the server's file system; never empty.
    pub path: Vec<u8>,
}

/// Why a file is not a `tablespace_map`, or cannot be written as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TablespaceMapError {
    /// A line is not `oid path`.
    #[error("line {line} of `tablespace_map` is not the number and the path of a tablespace")]
    Line {
        /// The number of the line on which the entry begins, from 1.
        line: usize,
    },
    /// The file ends within a line.
    #[error("line {line} of `tablespace_map` has no end")]
    Unterminated {
        /// The number of the line on which the entry begins, from 1.
        line: usize,
    },
    /// The path cannot be written: it is empty, or it ends in a backslash, and the servers before
    /// PostgreSQL 14 would take that for an escape.
    #[error("the path of tablespace {oid} cannot be written into `tablespace_map`")]
    Unwritable {
        /// The tablespace.
        oid: u32,
    },
}

impl TablespaceMap {
    /// Reads the map of a backup of a server of this version.
    ///
    /// # Errors
    /// If a line is not that of a tablespace, with its number.
    pub fn parse(content: &[u8], version: ServerVersion) -> Result<Self, TablespaceMapError> {
        let escapes_backslash = version.supports(Feature::EscapedBackslash);
        let mut tablespaces = Vec::new();
        let mut entry = Vec::new();
        let (mut line, mut begins_at) = (1, 1);
        let mut escaped = false;
        for &byte in content {
            let line_end = matches!(byte, b'\n' | b'\r');
            if line_end && !escaped {
                // Nothing lies between the two halves of a Windows line end.
                if !entry.is_empty() {
                    let entry = mem::take(&mut entry);
                    tablespaces.push(
                        MappedTablespace::parse(&entry)
                            .ok_or(TablespaceMapError::Line { line: begins_at })?,
                    );
                }
            } else if escapes_backslash {
                escaped = !escaped && byte == b'\\';
                if !escaped {
                    entry.push(byte);
                }
            } else {
                // The backslash stands for itself, unless a line end follows.
                if line_end {
                    entry.pop();
                }
                entry.push(byte);
                escaped = byte == b'\\';
            }
            line += usize::from(byte == b'\n');
            if entry.is_empty() && !escaped {
                begins_at = line;
            }
        }
        if entry.is_empty() && !escaped {
            Ok(Self { tablespaces })
        } else {
            Err(TablespaceMapError::Unterminated { line: begins_at })
        }
    }

    /// The file as a server of this version writes it, and reads it again.
    ///
    /// # Errors
    /// If a path cannot be written.
    pub fn write(&self, version: ServerVersion) -> Result<Vec<u8>, TablespaceMapError> {
        let escapes_backslash = version.supports(Feature::EscapedBackslash);
        let mut content = Vec::new();
        for MappedTablespace { oid, path } in &self.tablespaces {
            if path.is_empty() || (path.ends_with(b"\\") && !escapes_backslash) {
                return Err(TablespaceMapError::Unwritable { oid: *oid });
            }
            content.extend_from_slice(format!("{oid} ").as_bytes());
            for &byte in path {
                if matches!(byte, b'\n' | b'\r') || (byte == b'\\' && escapes_backslash) {
                    content.push(b'\\');
                }
                content.push(byte);
            }
            content.push(b'\n');
        }
        Ok(content)
    }
}

impl MappedTablespace {
    fn parse(entry: &[u8]) -> Option<Self> {
        let space = entry.iter().position(|&byte| byte == b' ')?;
        let (oid, path) = (entry.get(..space)?, entry.get(space + 1..)?);
        if !oid.iter().all(u8::is_ascii_digit) || path.is_empty() {
            return None;
        }
        let oid = str::from_utf8(oid).ok()?.parse().ok().filter(|&oid| oid > 0)?;
        Some(Self { oid, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PG13: ServerVersion = ServerVersion::from_num(130_023);
    const PG15: ServerVersion = ServerVersion::from_num(150_000);

    fn map(paths: &[(u32, &str)]) -> TablespaceMap {
        let tablespaces = paths
            .iter()
            .map(|&(oid, path)| MappedTablespace { oid, path: path.as_bytes().to_vec() })
            .collect();
        TablespaceMap { tablespaces }
    }

    #[test]
    fn lines_are_as_servers_write_them() {
        let map = map(&[(16386, "/srv/fast disk"), (16400, "/srv/a\\b\nc"), (16401, "/x\r")]);
        for (version, content) in [
            (PG15, &b"16386 /srv/fast disk\n16400 /srv/a\\\\b\\\nc\n16401 /x\\\r\n"[..]),
            (PG13, b"16386 /srv/fast disk\n16400 /srv/a\\b\\\nc\n16401 /x\\\r\n"),
        ] {
            assert_eq!(map.write(version).unwrap(), content);
            assert_eq!(TablespaceMap::parse(content, version), Ok(map.clone()));
        }
    }

    #[test]
    fn windows_line_ends_are_read() {
        let expected = map(&[(16386, "/a"), (16387, "/b")]);
        for version in [PG13, PG15] {
            let read = TablespaceMap::parse(b"16386 /a\r\n\r\n16387 /b\r\n", version);
            assert_eq!(read, Ok(expected.clone()));
            assert_eq!(TablespaceMap::parse(b"", version), Ok(map(&[])));
        }
    }

    #[test]
    fn a_broken_line_is_refused_by_its_number() {
        use TablespaceMapError::{Line, Unterminated, Unwritable};
        for (content, error) in [
            (&b"16386\n"[..], Line { line: 1 }),
            (b"16386 /a\nx /b\n", Line { line: 2 }),
            (b"16386 /a\\\nb\n+1 /b\n", Line { line: 3 }),
            (b"16386 \n", Line { line: 1 }),
            (b"0 /a\n", Line { line: 1 }),
            (b" /a\n", Line { line: 1 }),
            (b"4294967296 /a\n", Line { line: 1 }),
            (b"16386 /a\n16387 /b", Unterminated { line: 2 }),
            (b"16386 /a\\\n", Unterminated { line: 1 }),
        ] {
            for version in [PG13, PG15] {
                let read = TablespaceMap::parse(content, version);
                assert_eq!(read, Err(error.clone()), "{content:?}");
            }
        }
        assert_eq!(TablespaceMap::parse(b"\\", PG15), Err(Unterminated { line: 1 }));
        let ends_in_backslash = map(&[(1, "/a\\")]);
        assert_eq!(ends_in_backslash.write(PG13), Err(Unwritable { oid: 1 }));
        assert!(ends_in_backslash.write(PG15).is_ok());
        assert_eq!(map(&[(2, "")]).write(PG15), Err(Unwritable { oid: 2 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            paths in prop::collection::vec((1u32.., "[/ab \\\\\n\r0-9]{1,12}"), 0..5),
            version in prop::sample::select(vec![PG13, PG15]),
        ) {
            let paths: Vec<(u32, &str)> = paths.iter().map(|(oid, p)| (*oid, p.as_str())).collect();
            let map = map(&paths);
            match map.write(version) {
                Ok(content) => prop_assert_eq!(TablespaceMap::parse(&content, version), Ok(map)),
                Err(_) => prop_assert!(paths.iter().any(|(_, path)| path.ends_with('\\'))),
            }
        }

        #[test]
        fn nothing_makes_it_panic(content in "[0-9 /\\\\\n\r]{0,40}", more: Vec<u8>) {
            for version in [PG13, PG15] {
                let _ = TablespaceMap::parse(content.as_bytes(), version);
                let _ = TablespaceMap::parse(&more, version);
            }
        }
    }
}
