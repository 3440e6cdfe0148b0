//! What can be typed. Argument structs only: nothing here decides or does anything.
//!
//! A new command is a variant of [`Command`] with a struct of its own, a file in `commands/` and
//! a rendering in `output/`.

mod backup;
mod barman;
mod catalog;
mod configuration;
mod generated;
mod maintenance;
mod receive;
mod restore;
mod views;
mod wal;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::{Argument, Scope, ServerName, ServerNameError, Typed};

pub use backup::BackupArgs;
pub use barman::explain;
pub use catalog::{
    CheckArgs, CheckBackupArgs, DeleteArgs, ExtractArgs, FilesArg, GenerateManifestArgs, KeepArg,
    KeepArgs, ListBackupsArgs, ListFilesArgs, ShowBackupArgs, VerifyBackupArgs,
};
pub use configuration::{ConfigArg, ConfigArgs, ShowServersArgs};
pub use generated::{CompletionsArgs, ManArgs};
pub use maintenance::{AdoptArgs, ArchiveWalArgs, CronArgs};
pub use receive::{InitArgs, ReceiveWalArgs, RunArgs};
pub use restore::{RestoreArgs, TargetArgs};
pub use views::{
    DiagnoseArgs, ListServersArgs, ReplicationStatusArgs, SourceArg, StatusArgs, TargetArg,
};
pub use wal::{GetWalArgs, SwitchWalArgs};

/// Base backups and continuous WAL of PostgreSQL servers, restored to the last byte.
#[derive(Parser)]
#[command(name = "walrecv-server", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Every setting can also come from the environment: WALRECV_ and its name \
    in capitals, as WALRECV_HOME or WALRECV_CONNINFO.")]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Args)]
pub struct GlobalArgs {
    /// The configuration file [default: $WALRECV_CONFIG, or
    /// /etc/walrecv-server/walrecv-server.toml]
    #[arg(short, long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,

    /// Where the backups lie [default: /var/lib/walrecv-server]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Settings")]
    pub home: Option<String>,

    /// How to reach the one server that is named, as for psql; no password here
    #[arg(long, global = true, value_name = "CONNINFO", help_heading = "Settings")]
    pub conninfo: Option<String>,

    /// The physical replication slot of that server [default: walrecv]
    #[arg(long, global = true, value_name = "SLOT", help_heading = "Settings")]
    pub slot_name: Option<String>,

    /// Any other setting, by the name that it has in the configuration file
    #[arg(
        long, global = true, value_name = "KEY=VALUE", value_parser = setting,
        help_heading = "Settings"
    )]
    pub set: Vec<(String, String)>,

    /// How results are printed: for people, in Barman's JSON, or in clean JSON
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        help_heading = "Output",
        hide_default_value = true
    )]
    pub format: FormatArg,

    /// Print errors and results only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,

    /// Tell more about what is going on; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,

    /// How log lines are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        env = "WALRECV_LOG_FORMAT",
        hide_env_values = true,
        help_heading = "Output",
        hide_default_value = true
    )]
    pub log_format: LogFormatArg,

    /// Whether to use colours
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Output",
        hide_default_value = true
    )]
    pub color: ColorArg,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// For people
    #[default]
    Text,
    /// One JSON object in each line
    Json,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// For people
    #[default]
    Console,
    /// Barman's JSON, key for key
    Json,
    /// Clean JSON: numbers, RFC 3339 times
    Json2,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Write a first configuration, print what the server needs, and try the connection
    Init(InitArgs),
    /// Print the annotated reference of the configuration, or its JSON schema for editors
    Config(ConfigArgs),
    /// Show all that is configured for a server, and where each value comes from
    #[command(visible_alias = "show-server")]
    ShowServers(ShowServersArgs),
    /// Check that a server is backed up as it should be
    Check(CheckArgs),
    /// List the servers that are configured
    #[command(visible_alias = "list-server")]
    ListServers(ListServersArgs),
    /// Show how a server is, how its WAL is received, and what is stored for it
    Status(StatusArgs),
    /// Show who receives WAL from a server
    ReplicationStatus(ReplicationStatusArgs),
    /// Print everything that helps to find out what is wrong, as JSON without secrets
    Diagnose(DiagnoseArgs),
    /// Receive the WAL of all servers, until stopped
    Run(RunArgs),
    /// Receive the WAL of one server in the foreground
    ReceiveWal(ReceiveWalArgs),
    /// Take a base backup
    Backup(BackupArgs),
    /// List the base backups of a server
    #[command(visible_alias = "list-backup")]
    ListBackups(ListBackupsArgs),
    /// Show everything about a base backup
    #[command(visible_alias = "show-backups")]
    ShowBackup(ShowBackupArgs),
    /// List the stored files of a base backup
    ListFiles(ListFilesArgs),
    /// Say whether the WAL is there that a base backup needs
    CheckBackup(CheckBackupArgs),
    /// Verify that a base backup is what was stored, and what was backed up
    #[command(visible_alias = "verify")]
    VerifyBackup(VerifyBackupArgs),
    /// Make the manifest of a base backup again, where it is lost
    GenerateManifest(GenerateManifestArgs),
    /// Extract one file out of a base backup
    Extract(ExtractArgs),
    /// Mark a base backup that no policy removes
    Keep(KeepArgs),
    /// Remove a base backup
    Delete(DeleteArgs),
    /// Restore a base backup into a directory, ready to recover
    #[command(visible_alias = "recover")]
    Restore(RestoreArgs),
    /// Hand out one WAL file, for restore_command
    #[command(after_help = "Exit codes: 0 delivered; 1 the archive was read completely and ends \
        before this file; 200 and above: everything else, so that PostgreSQL never takes a problem \
        for the end of the archive.")]
    GetWal(GetWalArgs),
    /// Have the server begin a new WAL segment
    #[command(visible_alias = "switch-xlog")]
    SwitchWal(SwitchWalArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
    /// Archive the WAL that waits, if no receiver does
    ArchiveWal(ArchiveWalArgs),
    /// Archive WAL, settle backups and enforce retention, once
    Cron(CronArgs),
    /// Begin anew with another cluster under the same name, as after pg_upgrade, and keep the old
    Adopt(AdoptArgs),
}

/// A server by its name, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every configured server.
    All,
    /// This one.
    Named(ServerName),
}

impl FromStr for Selection {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            name => name.parse().map(Self::Named),
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err("must be KEY=VALUE".to_owned()),
    }
}

impl Command {
    /// The servers that the command names; empty for all of them.
    pub fn servers(&self) -> Vec<ServerName> {
        let several = |selections: &[Selection]| {
            let mut names = Vec::new();
            for selection in selections {
                match selection {
                    Selection::All => return Vec::new(),
                    Selection::Named(name) => names.push(name.clone()),
                }
            }
            names
        };
        match self {
            Self::Init(args) => args.server.iter().cloned().collect(),
            Self::Config(_) => Vec::new(),
            Self::ShowServers(args) => several(&args.servers),
            Self::Check(args) => several(&args.servers),
            Self::ListServers(_) | Self::Diagnose(_) => Vec::new(),
            Self::Status(args) => several(&args.servers),
            Self::ReplicationStatus(args) => several(&args.servers),
            Self::Run(args) => several(&args.servers),
            Self::ReceiveWal(args) => vec![args.server.clone()],
            Self::Backup(args) => several(&args.servers),
            Self::ListBackups(args) => several(&args.servers),
            Self::ShowBackup(args) => vec![args.server.clone()],
            Self::ListFiles(args) => vec![args.server.clone()],
            Self::CheckBackup(args) => vec![args.server.clone()],
            Self::VerifyBackup(args) => vec![args.server.clone()],
            Self::GenerateManifest(args) => vec![args.server.clone()],
            Self::Extract(args) => vec![args.server.clone()],
            Self::Keep(args) => vec![args.server.clone()],
            Self::Delete(args) => vec![args.server.clone()],
            Self::Restore(args) => vec![args.server.clone()],
            Self::GetWal(args) => vec![args.server.clone()],
            Self::SwitchWal(args) => several(&args.servers),
            Self::Completions(_) | Self::Man(_) => Vec::new(),
            Self::ArchiveWal(args) => several(&args.servers),
            Self::Cron(args) => several(&args.servers),
            Self::Adopt(args) => vec![args.server.clone()],
        }
    }

    /// How much of the settings the command needs.
    fn scope(&self) -> Scope {
        match self {
            Self::ListBackups(_)
            | Self::ShowBackup(_)
            | Self::ListFiles(_)
            | Self::CheckBackup(_)
            | Self::VerifyBackup(_)
            | Self::GenerateManifest(_)
            | Self::Extract(_)
            | Self::Keep(_)
            | Self::GetWal(_) => Scope::Store,
            // Where its primary is may be configured, and only there.
            Self::Restore(args) if !args.standby_mode || args.primary_conninfo.is_some() => {
                Scope::Store
            }
            Self::ReceiveWal(args) if args.stop => Scope::Store,
            _ => Scope::Servers,
        }
    }
}

impl Cli {
    /// What was typed, as far as it concerns settings.
    pub fn typed(&self) -> Typed {
        let GlobalArgs { home, conninfo, slot_name, set, .. } = &self.global;
        let named = [("--home", home), ("--conninfo", conninfo), ("--slot-name", slot_name)];
        let named = named.into_iter().filter_map(|(option, value)| {
            let key = option.trim_start_matches('-').replace('-', "_");
            Some(Argument { option: option.to_owned(), key, value: value.clone()? })
        });
        let set = set.iter().map(|(key, value)| Argument {
            option: format!("--set {key}"),
            key: key.clone(),
            value: value.clone(),
        });
        let mut arguments: Vec<_> = named.chain(set).collect();
        match &self.command {
            Command::Check(args) => arguments.extend(args.settings()),
            Command::Backup(args) => arguments.extend(args.settings()),
            Command::ReceiveWal(args) => arguments.extend(args.settings()),
            Command::GetWal(args) => arguments.extend(args.settings()),
            Command::Restore(args) => arguments.extend(args.settings()),
            Command::VerifyBackup(args) => arguments.extend(args.settings()),
            Command::Extract(args) => arguments.extend(args.settings()),
            Command::GenerateManifest(args) => arguments.extend(args.settings()),
            _ => {}
        }
        Typed {
            config: self.global.config.clone(),
            arguments,
            servers: self.command.servers(),
            scope: self.command.scope(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn barmans_names_work() {
        for line in [
            "walrecv-server list-backup main",
            "walrecv-server show-backups main last",
            "walrecv-server recover main latest /srv/pg",
            "walrecv-server switch-xlog main",
            "walrecv-server -c x.toml -q -f json list-backups all --minimal",
            "walrecv-server list-backups a b c --format json2",
            "walrecv-server list-server --minimal",
            "walrecv-server check all --nagios --check-timeout 10",
            "walrecv-server status a b",
            "walrecv-server replication-status a --minimal --target wal-streamer --source wal-host",
            "walrecv-server diagnose",
            "walrecv-server switch-wal main --archive --archive-timeout 5",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_standby_has_no_target() {
        let restore =
            |options: &str| parse(&format!("walrecv-server restore a latest /x {options}"));
        for options in [
            "--standby-mode --target-immediate",
            "--standby-mode --target-time 2026-01-01T00:00:00Z",
            "--standby-mode --target-xid 7 --exclusive",
            "--standby-mode --target-action promote",
            "--primary-slot x",
            "--primary-conninfo host=x",
        ] {
            assert!(restore(options).is_err(), "{options}");
        }
        let cli = restore("--standby-mode --target-tli latest").unwrap();
        assert_eq!(cli.command.scope(), Scope::Servers);
        let given = restore("--standby-mode --primary-conninfo host=x --primary-slot y").unwrap();
        assert_eq!(given.command.scope(), Scope::Store);
    }

    #[test]
    fn all_stands_for_every_server() {
        let names = |line| parse(line).unwrap().command.servers();
        assert!(names("walrecv-server check a all").is_empty());
        assert_eq!(names("walrecv-server check a b").len(), 2);
        assert!(parse("walrecv-server check ../x").is_err());
        assert!(parse("walrecv-server check").is_err());
    }

    #[test]
    fn options_become_settings_by_their_keys() {
        let cli = parse(
            "walrecv-server --home /srv backup main --conninfo host=db --set slot_name=x \
             --bwlimit 100 --immediate-checkpoint",
        )
        .unwrap();
        let settings: Vec<_> = cli
            .typed()
            .arguments
            .into_iter()
            .map(|argument| format!("{}|{}|{}", argument.option, argument.key, argument.value))
            .collect();
        assert_eq!(
            settings,
            [
                "--home|home|/srv",
                "--conninfo|conninfo|host=db",
                "--set slot_name|slot_name|x",
                "--bwlimit|bandwidth_limit|100",
                "--immediate-checkpoint|immediate_checkpoint|true",
            ]
        );
    }

    #[test]
    fn a_target_is_one_at_most() {
        let restore = |rest: &str| parse(&format!("walrecv-server restore main last /d {rest}"));
        assert!(restore("--target-lsn 0/16B3748 --exclusive --target-action promote").is_ok());
        assert!(restore("--target-lsn 0/16B3748 --target-xid 5").is_err());
        assert!(restore("--target-lsn nonsense").is_err());
        assert!(restore("--tablespace 16386:/srv/ts --tablespace data:/srv/d").is_ok());
        assert!(restore("--tablespace 16386").is_err());
    }
}
