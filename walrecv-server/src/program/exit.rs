//! Exit codes, and the contract that `get-wal` has with PostgreSQL.

use std::ffi::OsString;
use std::io;

use crate::failure::{Class, Failure};
use crate::output::END_OF_ARCHIVE;
use crate::restore::get_wal::exit_code;

/// How PostgreSQL, or whoever started the program, reads its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contract {
    /// 0 done, 1 failed, 2 wrong usage, 3 refused, 130 interrupted.
    Ordinary,
    /// As a `restore_command`: PostgreSQL takes 1 to 125 for "the archive ends here" and may end
    /// recovery, so everything that does not mean just that has a code of [`exit_code`], from 200.
    GetWal,
}

/// The exit code of an ordinary program that panicked.
const PANICKED: u8 = 101;

impl Contract {
    /// The contract of the command that these arguments name, readable or not.
    pub(super) fn of(arguments: &[OsString]) -> Self {
        if arguments.iter().any(|argument| argument == "get-wal") {
            Self::GetWal
        } else {
            Self::Ordinary
        }
    }

    /// The exit code for what the program came to.
    pub(super) fn code(self, code: u8) -> u8 {
        match self {
            Self::Ordinary => code,
            Self::GetWal if code == exit_code::DELIVERED => code,
            Self::GetWal if code == END_OF_ARCHIVE => exit_code::END_OF_ARCHIVE,
            // Those that `get-wal` has for itself.
            Self::GetWal if code >= exit_code::USAGE => code,
            Self::GetWal if code == Class::Usage.exit_code() => exit_code::USAGE,
            Self::GetWal => exit_code::IO,
        }
    }

    /// The exit code of a panic.
    pub(super) fn panicked(self) -> u8 {
        match self {
            Self::Ordinary => PANICKED,
            Self::GetWal => exit_code::PANIC,
        }
    }
}

/// The asynchronous runtime cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the program's threads")]
pub(super) struct NoRuntime(#[source] pub(super) io::Error);

impl Failure for NoRuntime {}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(line: &str) -> Contract {
        Contract::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn get_wal_never_says_end_of_archive_by_accident() {
        let get_wal = contract("walrecv-server --hoem /srv get-wal main x y");
        assert_eq!(get_wal, Contract::GetWal);
        assert_eq!(get_wal.code(0), 0);
        assert_eq!(get_wal.code(END_OF_ARCHIVE), 1);
        for code in (1..=u8::MAX).filter(|code| *code != END_OF_ARCHIVE) {
            assert!(get_wal.code(code) >= 200, "{code}");
        }
        assert_eq!(get_wal.code(2), exit_code::USAGE);
        assert_eq!(get_wal.panicked(), exit_code::PANIC);
    }

    #[test]
    fn other_commands_exit_as_they_say() {
        let ordinary = contract("walrecv-server check main");
        for code in [0, 1, 2, 3, 130] {
            assert_eq!(ordinary.code(code), code);
        }
    }
}
