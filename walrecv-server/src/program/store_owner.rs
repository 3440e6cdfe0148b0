//! Root's commands on a store that is another user's run as that user.
//!
//! What root made there, the daemon could neither read nor lock, and would receive no more WAL.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::cli::{Cli, Command};
use crate::failure::{Class, Failure};
use crate::restore::Owner;
use crate::settings::{Lookup, Settings};

/// This program, whatever it is called and wherever it lies.
const ITSELF: &str = "/proc/self/exe";

/// Why a command cannot run as the user who owns the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreOwnerError {
    #[error(
        "the store `{}` is {user}'s, who cannot read the configuration `{}`",
        home.display(),
        configuration.display()
    )]
    Configuration { home: PathBuf, user: String, configuration: PathBuf },
    #[error("cannot go on as {user}, who owns the store `{}`: {source}", home.display())]
    Switch { home: PathBuf, user: String, source: io::Error },
}

impl Failure for StoreOwnerError {
    fn class(&self) -> Class {
        match self {
            Self::Configuration { .. } => Class::Usage,
            Self::Switch { .. } => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Configuration { user, configuration, .. } => Some(format!(
                "let that user read it, as with `chown :{user} {0} && chmod 0640 {0}`",
                configuration.display()
            )),
            Self::Switch { user, .. } => {
                Some(format!("run the command as that user: `sudo -u {user} …`"))
            }
        }
    }
}

/// Begins the program anew as the user who owns the store, where root runs a command that writes
/// in it. To be called while the process has one thread: users belong to threads.
pub(super) fn become_owner(
    cli: &Cli,
    arguments: &[OsString],
    environment: Lookup<'_>,
) -> Result<(), StoreOwnerError> {
    if !rustix::process::geteuid().is_root() || stays_root(&cli.command) {
        return Ok(());
    }
    // What is wrong with the settings is told by the command.
    let Ok(settings) = Settings::load(&cli.typed(), environment) else { return Ok(()) };
    let home = settings.home;
    // Without a store there is nobody whose it is.
    let Ok(owner) = Owner::of(&home) else { return Ok(()) };
    if owner.is_root() {
        return Ok(());
    }
    if let Some(configuration) = settings.file.filter(|file| !owner.can_read(file)) {
        return Err(StoreOwnerError::Configuration { home, user: owner.name, configuration });
    }
    let source = match switch(&owner) {
        // Their home is where their password file is.
        Ok(()) => {
            process::Command::new(ITSELF).args(arguments.iter().skip(1)).env_remove("HOME").exec()
        }
        Err(error) => error,
    };
    Err(StoreOwnerError::Switch { home, user: owner.name, source })
}

/// What is restored becomes whose it shall be, and what is configured is root's.
fn stays_root(command: &Command) -> bool {
    matches!(
        command,
        Command::Init(_)
            | Command::Config(_)
            | Command::ShowServers(_)
            | Command::Restore(_)
            | Command::GetWal(_)
            | Command::Extract(_)
            | Command::Completions(_)
            | Command::Man(_)
    )
}

fn switch(owner: &Owner) -> io::Result<()> {
    let groups: Vec<Gid> = owner.groups().iter().map(|&group| Gid::from_raw(group)).collect();
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}
