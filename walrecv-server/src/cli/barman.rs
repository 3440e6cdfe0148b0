//! What became of Barman's commands and options that are none here: for those whose fingers know them.

use clap::error::{ContextKind, ContextValue, Error};

const ONE_PROCESS: &str = "not needed: what one process has stored, every other sees";
const NO_SSH: &str = "not needed: backups and WAL come over PostgreSQL's own protocol, and restores \
                      are written here";
const NOT_STAGED: &str = "not needed: nothing is staged";

const WORDS: &[(&str, &str)] = &[
    ("--bwlimit", "not here: only backups are limited"),
    ("--keepalive-interval", "not needed: no other connection is kept open"),
    ("--local-staging-path", NOT_STAGED),
    ("--network-compression", NO_SSH),
    ("--output-directory", "name the file instead: `get-wal SERVER WAL FILE`"),
    ("--peek", "`list-files SERVER latest --target wal` names what there is"),
    ("--recovery-conf-filename", "not needed: settings are written where the server reads them"),
    ("--remote-ssh-command", NO_SSH),
    ("--reuse-backup", "`--incremental auto`: PostgreSQL's own, from 17 on"),
    ("--staging-path", NOT_STAGED),
    ("--staging-wal-directory", NOT_STAGED),
    ("--test", "`check SERVER` tells whether WAL comes and what is stored"),
    ("-o", "name the file instead: `get-wal SERVER WAL FILE`"),
    ("check-wal-archive", "`check SERVER` refuses another cluster's WAL, and so does the receiver"),
    ("config-switch", "change the configuration, and reload the daemon: `kill -HUP`"),
    ("config-update", "change the configuration, and reload the daemon: `kill -HUP`"),
    ("list-processes", "one daemon does it all: `status SERVER` tells what goes on"),
    ("lock-directory-cleanup", "not needed: locks end with their processes"),
    ("put-wal", NO_SSH),
    ("rebuild-xlogdb", "not needed: what is known of WAL is made again from its files"),
    ("sync-backup", ONE_PROCESS),
    ("sync-info", ONE_PROCESS),
    ("sync-wals", ONE_PROCESS),
    ("terminate-process", "stop the daemon, or set `active = false` and reload it"),
];

/// Puts what is known of the word in the place of what it looks like.
pub fn explain(mut error: Error) -> Error {
    let wrong = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg];
    let name = wrong.into_iter().find_map(|kind| match error.get(kind) {
        Some(ContextValue::String(name)) => Some(name.clone()),
        _ => None,
    });
    let name = name.unwrap_or_default();
    if let Some((_, advice)) = WORDS.iter().find(|(word, _)| *word == name) {
        for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand] {
            error.remove(kind);
        }
        let advice = ContextValue::StyledStrs(vec![(*advice).into()]);
        error.insert(ContextKind::Suggested, advice);
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    fn told(line: &str) -> String {
        let words = format!("walrecv-server {line}");
        explain(Cli::try_parse_from(words.split(' ')).err().unwrap()).to_string()
    }

    #[test]
    fn fingers_that_know_barman_are_told() {
        let text = told("sync-info main");
        assert!(text.contains("tip: not needed: what one process has stored"), "{text}");
        let text = told("backup main --reuse-backup link");
        assert!(text.contains("tip: `--incremental auto`"), "{text}");
        assert!(!text.contains("to pass"), "{text}");
        assert!(told("bakup main").contains("'backup'"));
    }

    #[test]
    fn none_of_the_commands_is_one_here() {
        assert!(WORDS.is_sorted());
        let here = Cli::command();
        for (word, _) in WORDS.iter().filter(|(word, _)| !word.starts_with('-')) {
            assert!(here.find_subcommand(word).is_none(), "{word}");
        }
    }
}
