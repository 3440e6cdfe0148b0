//! `check`, and what is done with backups that there are.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::Selection;
use super::wal::identity;
use crate::settings::{Argument, ServerName};

/// `check`.
#[derive(Args)]
pub struct CheckArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,

    /// One line for Nagios; exit code 2 if anything fails
    #[arg(long)]
    pub nagios: bool,

    /// How many seconds the look at a server may take [default: check_timeout]
    #[arg(long, value_name = "SECONDS")]
    pub check_timeout: Option<u32>,
}

impl CheckArgs {
    /// The settings that were given as options of this command.
    pub fn settings(&self) -> Option<Argument> {
        Some(Argument {
            option: "--check-timeout".to_owned(),
            key: "check_timeout".to_owned(),
            value: format!("{}s", self.check_timeout?),
        })
    }
}

/// `list-backups`.
#[derive(Args)]
pub struct ListBackupsArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,

    /// Backup ids only
    #[arg(long)]
    pub minimal: bool,
}

/// `show-backup`.
#[derive(Args)]
pub struct ShowBackupArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,
}

/// `list-files`.
#[derive(Args)]
pub struct ListFilesArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,

    /// Which of its files
    #[arg(long, value_enum, default_value_t)]
    pub target: FilesArg,
}

/// Which files of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FilesArg {
    /// The backup, and the WAL up to its end
    #[default]
    Standalone,
    /// The backup itself
    Data,
    /// All WAL from its begin on
    Wal,
    /// The backup, and all WAL from its begin on
    Full,
}

/// `check-backup`.
#[derive(Args)]
pub struct CheckBackupArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,
}

/// `verify-backup`.
#[derive(Args)]
pub struct VerifyBackupArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,

    /// Compare the stored files with their checksums only; needs no key
    #[arg(long, conflicts_with_all = ["pages", "identity"])]
    pub stored: bool,

    /// Compute the checksum of every page, too
    #[arg(long)]
    pub pages: bool,

    /// Look at the WAL that the backup needs, too
    #[arg(long)]
    pub wal: bool,

    /// How many threads decompress [default: one for each processor, up to 4]
    #[arg(long, value_name = "N", conflicts_with = "stored")]
    pub jobs: Option<NonZeroUsize>,

    /// The age identity file that opens what is encrypted [default: encryption_identity]
    #[arg(long, value_name = "FILE")]
    pub identity: Option<String>,
}

impl VerifyBackupArgs {
    /// The settings that were given as options of this command.
    pub fn settings(&self) -> Option<Argument> {
        identity(self.identity.as_ref())
    }
}

/// `extract`.
#[derive(Args)]
pub struct ExtractArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,

    /// The file, by its path in the data directory, such as `postgresql.conf` or `base/5/1259`
    pub path: String,

    /// Where it goes [default: its own name, in the current directory]
    #[arg(value_name = "DEST")]
    pub destination: Option<PathBuf>,

    /// The age identity file that opens what is encrypted [default: encryption_identity]
    #[arg(long, value_name = "FILE")]
    pub identity: Option<String>,
}

impl ExtractArgs {
    /// The settings that were given as options of this command.
    pub fn settings(&self) -> Option<Argument> {
        identity(self.identity.as_ref())
    }
}

/// `generate-manifest`.
#[derive(Args)]
pub struct GenerateManifestArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,

    /// How many threads decompress [default: one for each processor, up to 4]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,

    /// The age identity file that opens what is encrypted [default: encryption_identity]
    #[arg(long, value_name = "FILE")]
    pub identity: Option<String>,
}

impl GenerateManifestArgs {
    /// The settings that were given as options of this command.
    pub fn settings(&self) -> Option<Argument> {
        identity(self.identity.as_ref())
    }
}

/// `delete`.
#[derive(Args)]
pub struct DeleteArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,

    /// Remove the backups that build on it, too
    #[arg(long)]
    pub cascade: bool,

    /// Remove it although a restore needs it, or the server that was restored from it may
    #[arg(long)]
    pub ignore_leases: bool,

    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Its directory is gone for good: no longer expect it to be there
    #[arg(long, conflicts_with_all = ["cascade", "ignore_leases", "dry_run"])]
    pub forget: bool,
}

/// `keep`.
#[derive(Args)]
#[command(group(ArgGroup::new("what").required(true)))]
pub struct KeepArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,

    /// Keep it, and the WAL to restore it to every later point, or to where it ended
    #[arg(long, value_enum, group = "what")]
    pub target: Option<KeepArg>,

    /// Let it go
    #[arg(short, long, group = "what")]
    pub release: bool,

    /// Say whether it is kept
    #[arg(short, long, group = "what")]
    pub status: bool,
}

/// What stays with a backup that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeepArg {
    /// All WAL from it on
    Full,
    /// The WAL up to its end
    Standalone,
}
