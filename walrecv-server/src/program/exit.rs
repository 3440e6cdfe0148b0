//! Exit codes, and the contract that `get-wal` has with PostgreSQL.

use std::ffi::OsString;
use std::io;

use crate::failure::Failure;

/// How PostgreSQL, or whoever started the program, reads its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contract {
    /// 0 done, 1 failed, 2 wrong usage, 3 refused, 130 interrupted.
    Ordinary,
    /// As a `restore_command`: PostgreSQL takes 1 to 125 for "the archive ends here" and may end
    /// recovery, so everything that does not mean just that is [`GET_WAL_PROBLEM`] or above.
    GetWal,
}

/// Added to the ordinary code of a `get-wal` that has a problem.
const GET_WAL_PROBLEM: u8 = 200;

/// The exit code of a program that panicked.
const PANICKED: u8 = 101;

/// The ordinary exit codes fit below this.
const MOST_ADDED: u8 = 50;

/// What `get-wal` returns from [`program`](super::program) when the archive was read completely
/// and ends before the file. No ordinary code has this value.
pub(super) const END_OF_ARCHIVE: u8 = 199;

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
        match (self, code) {
            (Self::GetWal, END_OF_ARCHIVE) | (Self::Ordinary, END_OF_ARCHIVE) => 1,
            (Self::Ordinary, code) | (Self::GetWal, code @ 0) => code,
            (Self::GetWal, code) => GET_WAL_PROBLEM + code.min(MOST_ADDED),
        }
    }

    /// The exit code of a panic.
    pub(super) fn panicked(self) -> u8 {
        self.code(PANICKED)
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
            assert!(get_wal.code(code) >= GET_WAL_PROBLEM, "{code}");
        }
        assert!(get_wal.panicked() >= GET_WAL_PROBLEM);
    }

    #[test]
    fn other_commands_exit_as_they_say() {
        let ordinary = contract("walrecv-server check main");
        for code in [0, 1, 2, 3, 130] {
            assert_eq!(ordinary.code(code), code);
        }
    }
}
