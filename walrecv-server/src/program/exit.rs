//! Exit codes, and the contract that `get-wal` has with PostgreSQL.

use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
    /// As what a `get-wal` has left behind: nobody waits for it, and whoever adopts it sees that it
    /// ended well.
    Ahead,
}

/// The exit code of an ordinary program that panicked.
const PANICKED: u8 = 101;

impl Contract {
    /// The contract of the command that these arguments name, readable or not.
    pub(super) fn of(arguments: &[OsString]) -> Self {
        let has = |word: &str| arguments.iter().any(|argument| argument == word);
        match (has("get-wal"), has("--ahead")) {
            (true, true) => Self::Ahead,
            (true, false) => Self::GetWal,
            (false, _) => Self::Ordinary,
        }
    }

    /// The exit code for what the program came to.
    fn code(self, code: u8) -> u8 {
        match self {
            Self::Ordinary => code,
            Self::Ahead => 0,
            Self::GetWal if code == exit_code::DELIVERED => code,
            Self::GetWal if code == END_OF_ARCHIVE => exit_code::END_OF_ARCHIVE,
            // Those that `get-wal` has for itself.
            Self::GetWal if code >= exit_code::USAGE => code,
            Self::GetWal if code == Class::Usage.exit_code() => exit_code::USAGE,
            Self::GetWal => exit_code::IO,
        }
    }

    /// Does the work; the exit code for what it comes to, a panic included.
    pub(super) fn keep(self, work: impl FnOnce() -> u8) -> u8 {
        // A panic is told by the hook; here it only has to become the right exit code.
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(code) => self.code(code),
            Err(_) => self.panicked(),
        }
    }

    /// The exit code of a panic.
    fn panicked(self) -> u8 {
        match self {
            Self::Ordinary => PANICKED,
            Self::Ahead => 0,
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
    }

    #[test]
    fn a_panic_is_not_the_end_of_the_archive() {
        let panics = || -> u8 { panic!("injected") };
        assert_eq!(contract("walrecv-server get-wal main x y").keep(panics), exit_code::PANIC);
        assert_eq!(contract("walrecv-server check main").keep(panics), PANICKED);
        // Where a database server adopts it, it is a child that ended well.
        assert_eq!(contract("walrecv-server get-wal --ahead main x y").keep(panics), 0);
        assert_eq!(contract("walrecv-server get-wal --ahead main x y").keep(|| 204), 0);
    }

    #[test]
    fn other_commands_exit_as_they_say() {
        let ordinary = contract("walrecv-server check main");
        for code in [0, 1, 2, 3, 130] {
            assert_eq!(ordinary.code(code), code);
        }
    }
}
