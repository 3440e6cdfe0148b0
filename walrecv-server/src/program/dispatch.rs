//! From a command's arguments to its results.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use tokio::runtime::Handle;

use super::init::init;
use crate::backup::Incremental;
use crate::catalog::KeepTarget;
use crate::cli::{
    AdoptArgs, BackupArgs, CheckArgs, CheckBackupArgs, Cli, Command, ConfigArg, ConfigArgs,
    DeleteArgs, ExtractArgs, FilesArg, GenerateManifestArgs, GetWalArgs, KeepArg, KeepArgs,
    ListBackupsArgs, ListFilesArgs, ListServersArgs, ReceiveWalArgs, ReplicationStatusArgs,
    RestoreArgs, ShowBackupArgs, SourceArg, SwitchWalArgs, TargetArg, TargetArgs, VerifyBackupArgs,
};
use crate::commands::adopt::{AdoptFailure, AdoptOptions};
use crate::commands::backup::BackupOptions;
use crate::commands::config::ConfigDocument;
use crate::commands::delete::DeleteOptions;
use crate::commands::extract::ExtractOptions;
use crate::commands::generate_manifest::ManifestOptions;
use crate::commands::get_wal::GetWalRequest;
use crate::commands::interruption::{hangups, interruption};
use crate::commands::keep::KeepAction;
use crate::commands::list_files::FilesOf;
use crate::commands::receive_wal::Action;
use crate::commands::restore::RestoreOptions;
use crate::commands::switch_wal::SwitchWalOptions;
use crate::commands::verify_backup::VerifyOptions;
use crate::commands::{self, store};
use crate::daemon::{self, ControlClient, ControlError};
use crate::failure::Failure;
use crate::hooks::Webhook;
use crate::output::{
    CheckReport, Failed, ListBackupsReport, ListServersReport, Printer, ReplicationStatusReport,
    Report, Results,
};
use crate::restore::target::{RecoveryTarget, TargetError};
use crate::restore::{Owner, Primary, Request, Served, StandbyRequest, WalDelivery};
use crate::retention::Rules;
use crate::settings::{ConnInfo, Lookup, ServerName, ServerSettings, Settings, SettingsError};
use crate::storage::KeyFile;
use crate::verify::Depth;
use crate::views;
use crate::views::replication::{Source, Target};

pub(super) type Outcome<T> = Result<T, Box<dyn Failure>>;

/// Runs the command.
pub(super) async fn dispatch(cli: &Cli, environment: Lookup<'_>, printer: &Printer) -> Results {
    let result = match &cli.command {
        Command::Init(args) => init(cli, args, environment, printer).await,
        Command::Config(args) => Ok(config(args)),
        Command::ShowServers(_) => show_servers(cli, environment),
        _ => match Settings::load(&cli.typed(), environment) {
            Ok(settings) => with_settings(cli, &settings, environment, printer).await,
            Err(error) => Err(error.into()),
        },
    };
    result.unwrap_or_else(Results::failed)
}

async fn with_settings(
    cli: &Cli,
    settings: &Settings,
    environment: Lookup<'_>,
    printer: &Printer,
) -> Outcome<Results> {
    let command = &cli.command;
    match command {
        Command::Backup(args) => backup(command, settings, args, printer).await,
        Command::Check(args) => check(command, settings, args).await,
        Command::ListServers(args) => list_servers(settings, args),
        Command::Status(_) => status(command, settings).await,
        Command::ReplicationStatus(args) => replication_status(command, settings, args).await,
        Command::Diagnose(_) => {
            let diagnosed = commands::diagnose::diagnose(settings, &store::home(settings)).await;
            Ok(Results::one(diagnosed))
        }
        // Never come here: they do without settings, or without a runtime.
        Command::Init(_)
        | Command::Config(_)
        | Command::ShowServers(_)
        | Command::GetWal(_)
        | Command::Completions(_)
        | Command::Man(_) => Ok(Results::default()),
        Command::ListBackups(args) => list_backups(command, settings, args),
        Command::ReceiveWal(args) => receive_wal(settings, args, printer).await,
        Command::Restore(args) => restore(settings, args, printer).await,
        Command::Run(_) => run(cli, command, settings, environment).await,
        Command::ShowBackup(args) => show_backup(settings, args),
        Command::ListFiles(args) => list_files(settings, args),
        Command::Extract(args) => extract(settings, args).await,
        Command::GenerateManifest(args) => generate_manifest(settings, args, printer).await,
        Command::CheckBackup(args) => check_backup(settings, args),
        Command::VerifyBackup(args) => verify_backup(settings, args, printer).await,
        Command::Keep(args) => keep(settings, args),
        Command::Delete(args) => delete(settings, args).await,
        Command::SwitchWal(args) => switch_wal(command, settings, args).await,
        Command::ArchiveWal(_) => archive_wal(command, settings).await,
        Command::Adopt(args) => adopt(settings, args, printer).await,
        Command::Cron(args) => cron(command, settings, args.dry_run).await,
    }
}

fn config(args: &ConfigArgs) -> Results {
    Results::one(match args.what {
        ConfigArg::Reference => ConfigDocument::Reference,
        ConfigArg::Schema => ConfigDocument::Schema,
    })
}

fn show_servers(cli: &Cli, environment: Lookup<'_>) -> Outcome<Results> {
    let mut results = Results::default();
    for server in Settings::show(&cli.typed(), environment)? {
        results.reports.push(Box::new(server));
    }
    Ok(results)
}

/// Has work done that blocks. It is not cancelled: if it does not end, it has panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn backup(
    command: &Command,
    settings: &Settings,
    args: &BackupArgs,
    printer: &Printer,
) -> Outcome<Results> {
    let servers = selected(settings, &command.servers())?;
    let home = store::home(settings);
    let interrupted = interruption()?;
    let options = BackupOptions {
        name: args.name.clone(),
        wait: args.wait,
        wait_timeout: args.wait_timeout.map(Duration::from_secs),
        receive: !args.no_receive,
        accept_damaged_pages: args.accept_damaged_pages,
        incremental: args.incremental.as_deref().map(|on| match on {
            "auto" => Incremental::Auto,
            backup => Incremental::On(backup.to_owned()),
        }),
    };
    let backups = servers.iter().map(|server| {
        let progress = printer.progress(server.name.as_str());
        let (options, interrupted) = (&options, interrupted.clone());
        let home = &home;
        async move { commands::backup::backup(server, home, options, &progress, interrupted).await }
    });
    Ok(gathered(&servers, join_all(backups).await))
}

async fn check(command: &Command, settings: &Settings, args: &CheckArgs) -> Outcome<Results> {
    let servers = selected(settings, &command.servers())?;
    let home = store::home(settings);
    let servers = commands::check::check(&servers, &home).await;
    Ok(Results::one(CheckReport { servers, nagios: args.nagios }))
}

fn list_servers(settings: &Settings, args: &ListServersArgs) -> Outcome<Results> {
    let outcome = views::servers::list_servers(settings);
    Ok(Results::one(ListServersReport { outcome, minimal: args.minimal }))
}

async fn status(command: &Command, settings: &Settings) -> Outcome<Results> {
    let servers = selected(settings, &command.servers())?;
    let mut results = Results::default();
    for outcome in commands::status::status(&servers, &store::home(settings)).await {
        results.reports.push(Box::new(outcome));
    }
    Ok(results)
}

async fn replication_status(
    command: &Command,
    settings: &Settings,
    args: &ReplicationStatusArgs,
) -> Outcome<Results> {
    let servers = selected(settings, &command.servers())?;
    let target = match args.target {
        TargetArg::All => Target::All,
        TargetArg::HotStandby => Target::HotStandby,
        TargetArg::WalStreamer => Target::WalStreamer,
    };
    let source = match args.source {
        None => Source::Conninfo,
        Some(SourceArg::BackupHost) => Source::BackupHost,
        Some(SourceArg::WalHost) => Source::WalHost,
    };
    let asked =
        servers.iter().map(|server| views::replication::replication(server, target, source));
    let reported = join_all(asked).await.into_iter().map(|asked| {
        asked.map(|outcome| ReplicationStatusReport { outcome, minimal: args.minimal })
    });
    Ok(gathered(&servers, reported.collect()))
}

fn list_backups(
    command: &Command,
    settings: &Settings,
    args: &ListBackupsArgs,
) -> Outcome<Results> {
    let mut results = Results::default();
    for server in store::servers(settings, &command.servers())? {
        let rules = rules(settings, server.name());
        match views::backups::list_backups_under(&server, &rules, Timestamp::now()) {
            Ok(outcome) => {
                results
                    .reports
                    .push(Box::new(ListBackupsReport { outcome, minimal: args.minimal }));
            }
            Err(failure) => results
                .failures
                .push(Failed { server: Some(server.name().clone()), failure: failure.into() }),
        }
    }
    Ok(results)
}

/// Runs `get-wal`, for which nothing else has to be there.
pub(super) fn get_wal(cli: &Cli, args: &GetWalArgs, environment: Lookup<'_>) -> Results {
    let get = || -> Outcome<Results> {
        let settings = Settings::load(&cli.typed(), environment)?;
        let home = store::home(&settings);
        let request = GetWalRequest {
            file: args.file.clone(),
            destination: args.destination.clone(),
            partial: args.partial,
            keys: settings.identity_file(&args.server).map(KeyFile::new),
            prefetch: args.prefetch,
            lease: args.lease.clone(),
        };
        // Whether there is such a server is for the store to say, or for the daemon.
        let server = home.server(&args.server);
        if args.ahead {
            commands::get_wal::fetch_ahead(&home, &server, &request);
            return Ok(Results::default());
        }
        let fill = &commands::get_wal::start_filling;
        Ok(Results::one(commands::get_wal::get_wal(&home, &server, &request, fill)?))
    };
    get().unwrap_or_else(Results::failed)
}

async fn restore(settings: &Settings, args: &RestoreArgs, printer: &Printer) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    let request = Request {
        backup: args.backup.clone(),
        destination: args.destination.clone(),
        target: recovery_target(&args.target)?,
        timeline: args.target.target_tli.unwrap_or_default(),
        inclusive: !args.target.exclusive,
        action: args.target.target_action.unwrap_or_default(),
        tablespaces: args.tablespaces.clone(),
        owner: args.owner.clone(),
        wal: if args.no_get_wal { WalDelivery::Copy } else { WalDelivery::GetWal },
        suspect_wal: args.force,
        program: commands::restore::this_program()?,
        keys: settings.identity_file(&args.server).map(KeyFile::new),
        lease: None,
        jobs: args.jobs.unwrap_or_else(store::jobs),
        standby: args.standby_mode.then(|| standby(settings, args)),
        config: !args.no_config,
    };
    let hooks = store::hooks(settings, &args.server);
    let (name, dry_run) = (args.server.clone(), args.dry_run);
    let options = RestoreOptions { server: name, request, dry_run, hooks };
    let home = store::home(settings);
    let progress = printer.progress(server.name().as_str());
    let interrupted = interruption()?;
    let runtime = Handle::current();
    let restored = blocking(move || {
        let serves = |server: &ServerName, owner: &Owner| {
            runtime.block_on(served(home.path(), server, owner)).unwrap_or_default()
        };
        commands::restore::restore(&home, options, &serves, &progress, &interrupted)
    });
    Ok(Results::one(restored.await?))
}

/// The standby that is asked for: of the server that is backed up, if nothing else is said.
fn standby(settings: &Settings, args: &RestoreArgs) -> StandbyRequest {
    let configured = settings.servers.iter().find(|server| server.name == args.server);
    let primary = match (&args.primary_conninfo, configured) {
        (Some(given), _) => Primary::Given(ConnInfo::new(given)),
        (None, Some(server)) => Primary::Configured(server.conninfo.clone()),
        (None, None) => Primary::Unknown,
    };
    let our_slot = configured.map(|server| server.slot_name.clone());
    StandbyRequest { primary, slot: args.primary_slot.clone(), our_slot }
}

/// What a running daemon would do for this user.
async fn served(home: &Path, server: &ServerName, owner: &Owner) -> Result<Served, ControlError> {
    let answer = ControlClient::connect(home).await?.reader(server, &owner.name).await?;
    Ok(Served { wal: answer.served, decrypts: answer.decrypts })
}

fn recovery_target(args: &TargetArgs) -> Result<RecoveryTarget, TargetError> {
    let TargetArgs { target_time, target_lsn, target_xid, target_name, target_immediate, .. } =
        args;
    Ok(match (target_time, target_lsn, target_xid, target_name) {
        (Some(time), ..) => RecoveryTarget::time(time)?,
        (_, Some(lsn), ..) => RecoveryTarget::Lsn(*lsn),
        (_, _, Some(xid), _) => RecoveryTarget::xid(xid)?,
        (.., Some(name)) => RecoveryTarget::name(name)?,
        _ if *target_immediate => RecoveryTarget::Immediate,
        _ => RecoveryTarget::Latest,
    })
}

async fn run(
    cli: &Cli,
    command: &Command,
    settings: &Settings,
    environment: Lookup<'_>,
) -> Outcome<Results> {
    let named = command.servers();
    let only_named = |mut settings: Settings| -> Result<Settings, Box<dyn Failure>> {
        if !named.is_empty() {
            let servers = selected(&settings, &named)?.into_iter().cloned().collect();
            settings.servers = servers;
        }
        Ok(settings)
    };
    let read = || only_named(Settings::load(&cli.typed(), environment)?);
    let settings = only_named(settings.clone())?;
    let home = store::home(&settings);
    daemon::run(settings, &home, interruption()?, hangups()?, read).await?;
    Ok(Results::default())
}

async fn receive_wal(
    settings: &Settings,
    args: &ReceiveWalArgs,
    printer: &Printer,
) -> Outcome<Results> {
    let home = store::home(settings);
    if args.stop {
        return Ok(Results::one(commands::receive_wal::stop(&home, &args.server).await?));
    }
    let server = settings.server(&args.server)?;
    let action = match args {
        ReceiveWalArgs { create_slot: true, if_not_exists, .. } => {
            Action::CreateSlot { if_not_exists: *if_not_exists }
        }
        ReceiveWalArgs { drop_slot: true, .. } => Action::DropSlot,
        ReceiveWalArgs { reset: true, endpos: None, .. } => Action::Reset,
        ReceiveWalArgs { endpos, reset, .. } => Action::Receive { end_at: *endpos, reset: *reset },
    };
    let line = printer.receiving();
    let watch = |status: &_| line.show(status);
    Ok(Results::one(commands::receive_wal::receive_wal(server, &home, action, watch).await?))
}

fn show_backup(settings: &Settings, args: &ShowBackupArgs) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    let rules = rules(settings, &args.server);
    Ok(Results::one(commands::show_backup::show_backup(&server, &args.backup, &rules)?))
}

async fn extract(settings: &Settings, args: &ExtractArgs) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    let options = ExtractOptions {
        backup: args.backup.clone(),
        path: args.path.clone(),
        destination: args.destination.clone(),
        keys: settings.identity_file(&args.server).map(KeyFile::new),
    };
    let extracted = blocking(move || commands::extract::extract(&server, options));
    Ok(Results::one(extracted.await?))
}

async fn generate_manifest(
    settings: &Settings,
    args: &GenerateManifestArgs,
    printer: &Printer,
) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    let options = ManifestOptions {
        backup: args.backup.clone(),
        keys: settings.identity_file(&args.server).map(KeyFile::new),
        jobs: args.jobs.unwrap_or_else(store::jobs),
    };
    let progress = printer.progress(server.name().as_str());
    let interrupted = interruption()?;
    let made = blocking(move || {
        commands::generate_manifest::generate_manifest(&server, &options, &progress, &interrupted)
    });
    Ok(Results::one(made.await?))
}

fn list_files(settings: &Settings, args: &ListFilesArgs) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    let which = match args.target {
        FilesArg::Standalone => FilesOf::Standalone,
        FilesArg::Data => FilesOf::Data,
        FilesArg::Wal => FilesOf::Wal,
        FilesArg::Full => FilesOf::Full,
    };
    Ok(Results::one(commands::list_files::list_files(&server, &args.backup, which)?))
}

fn check_backup(settings: &Settings, args: &CheckBackupArgs) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    Ok(Results::one(commands::check_backup::check_backup(&server, &args.backup)?))
}

async fn verify_backup(
    settings: &Settings,
    args: &VerifyBackupArgs,
    printer: &Printer,
) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    let options = VerifyOptions {
        backup: args.backup.clone(),
        depth: match args {
            VerifyBackupArgs { stored: true, .. } => Depth::Stored,
            VerifyBackupArgs { pages: true, .. } => Depth::Pages,
            _ => Depth::Contents,
        },
        wal: args.wal,
        keys: settings.identity_file(&args.server).map(KeyFile::new),
        jobs: args.jobs.unwrap_or_else(store::jobs),
    };
    let progress = printer.progress(server.name().as_str());
    let interrupted = interruption()?;
    let verified = blocking(move || {
        commands::verify_backup::verify_backup(&server, options, &progress, &interrupted)
    });
    let verified = verified.await;
    if let Some(notice) = commands::verify_backup::notice(&args.server, &verified) {
        let configured = settings.server(&args.server).ok();
        let webhook = configured.and_then(|server| server.failure_webhook.as_ref());
        Webhook::tell_last(webhook, notice).await;
    }
    Ok(Results::one(verified?))
}

/// Who sits at the terminal is asked; who does not has to say it.
async fn adopt(settings: &Settings, args: &AdoptArgs, printer: &Printer) -> Outcome<Results> {
    let server = settings.server(&args.server)?;
    let home = store::home(settings);
    let AdoptArgs { yes: confirmed, ignore_leases, .. } = *args;
    let mut options = AdoptOptions { confirmed, ignore_leases };
    let mut adopted = commands::adopt::adopt(server, &home, options).await;
    if let Err(unconfirmed @ AdoptFailure::Unconfirmed { .. }) = &adopted
        && printer.can_ask()
        && printer.agrees(&unconfirmed.to_string())?
    {
        options.confirmed = true;
        adopted = commands::adopt::adopt(server, &home, options).await;
    }
    Ok(Results::one(adopted?))
}

fn keep(settings: &Settings, args: &KeepArgs) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    let action = match args.target {
        Some(KeepArg::Full) => KeepAction::Mark(KeepTarget::Full),
        Some(KeepArg::Standalone) => KeepAction::Mark(KeepTarget::Standalone),
        None if args.release => KeepAction::Release,
        None => KeepAction::Show,
    };
    Ok(Results::one(commands::keep::keep(&server, &args.backup, action)?))
}

async fn delete(settings: &Settings, args: &DeleteArgs) -> Outcome<Results> {
    let server = store::server(settings, &args.server)?;
    if args.forget {
        return Ok(Results::one(commands::delete::forget(&server, &args.backup)?));
    }
    let options = DeleteOptions {
        backup: args.backup.clone(),
        cascade: args.cascade,
        ignore_leases: args.ignore_leases,
        dry_run: args.dry_run,
        // That of a server that is not configured any more asks for nothing.
        minimum_redundancy: settings
            .server(&args.server)
            .map_or(0, |server| server.minimum_redundancy),
    };
    let hooks = store::hooks(settings, &args.server);
    let interrupted = interruption()?;
    let deleted = blocking(move || {
        commands::delete::delete(&server, &options, &hooks, &|| *interrupted.borrow())
    });
    Ok(Results::one(deleted.await?))
}

async fn switch_wal(
    command: &Command,
    settings: &Settings,
    args: &SwitchWalArgs,
) -> Outcome<Results> {
    let servers = selected(settings, &command.servers())?;
    let home = store::home(settings);
    let options = SwitchWalOptions {
        force: args.force,
        archive: args.archive.then(|| Duration::from_secs(args.archive_timeout)),
    };
    let switched = servers.iter().map(|server| {
        let store = home.server(&server.name);
        async move { commands::switch_wal::switch_wal(server, &store, options).await }
    });
    Ok(gathered(&servers, join_all(switched).await))
}

async fn archive_wal(command: &Command, settings: &Settings) -> Outcome<Results> {
    let servers = selected(settings, &command.servers())?;
    let home = store::home(settings);
    let interrupted = interruption()?;
    let archived = servers.iter().map(|&server| {
        let (server, home, interrupted) = (server.clone(), home.clone(), interrupted.clone());
        blocking(move || commands::archive_wal::archive_wal(&server, &home, &interrupted))
    });
    Ok(gathered(&servers, join_all(archived).await))
}

async fn cron(command: &Command, settings: &Settings, dry_run: bool) -> Outcome<Results> {
    let servers = selected(settings, &command.servers())?;
    let home = store::home(settings);
    let interrupted = interruption()?;
    let done = servers.iter().map(|&server| {
        let (server, home, interrupted) = (server.clone(), home.clone(), interrupted.clone());
        blocking(move || commands::cron::cron(&server, &home, dry_run, &interrupted))
    });
    Ok(gathered(&servers, join_all(done).await))
}

/// Which backups of a server are to stay; all, if it is not configured.
fn rules(settings: &Settings, server: &ServerName) -> Rules {
    settings.server(server).map(Rules::from).unwrap_or_default()
}

/// The settings of these servers, or of all.
fn selected<'s>(
    settings: &'s Settings,
    named: &[ServerName],
) -> Result<Vec<&'s ServerSettings>, SettingsError> {
    match named {
        [] if settings.servers.is_empty() => Err(SettingsError::NoServers),
        [] => Ok(settings.servers.iter().collect()),
        named => named.iter().map(|name| settings.server(name)).collect(),
    }
}

/// What was done for each server, and what failed.
fn gathered<R: Report + 'static, E: Failure>(
    servers: &[&ServerSettings],
    outcomes: Vec<Result<R, E>>,
) -> Results {
    let mut results = Results::default();
    for (server, outcome) in servers.iter().zip(outcomes) {
        match outcome {
            Ok(report) => results.reports.push(Box::new(report)),
            Err(failure) => results
                .failures
                .push(Failed { server: Some(server.name.clone()), failure: failure.into() }),
        }
    }
    results
}
