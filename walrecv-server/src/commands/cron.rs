//! `cron`: one pass of maintenance, for those who prefer that to the daemon.

use jiff::Timestamp;
use tokio::sync::watch;

use crate::failure::{Class, Failure};
use crate::receiver::{ArchivePass, ArchivePassError, archive_waiting};
use crate::retention::{self, Enforced, RetentionError, RetentionPlan, Rules};
use crate::settings::{ServerName, ServerSettings};
use crate::storage::Home;

/// What was done for a server.
#[derive(Debug)]
pub struct CronOutcome {
    /// The server.
    pub server: ServerName,
    /// What it came to.
    pub done: CronDone,
}

/// What a pass came to.
#[derive(Debug)]
pub enum CronDone {
    /// Nothing was done: the server is not backed up, and keeps what it has.
    Inactive {
        /// Whether that was asked for.
        dry_run: bool,
    },
    /// Nothing was done, as asked; this is what retention would do.
    Planned {
        /// `None` if nothing is stored.
        plan: Option<Box<RetentionPlan>>,
        /// The same for the clusters that had the server's name before.
        previous: Vec<(ServerName, RetentionPlan)>,
    },
    /// Everything was done.
    Done {
        /// What was archived.
        archived: ArchivePass,
        /// What was done for the backups.
        enforced: Box<Enforced>,
    },
    /// Another process works on the backups: what retention has to do is done the next time.
    Busy {
        /// What was archived.
        archived: ArchivePass,
        /// Who does.
        by: String,
    },
}

/// Why not all was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CronFailure {
    /// WAL was not archived.
    #[error(transparent)]
    Archive(#[from] ArchivePassError),
    /// Retention was not enforced.
    #[error(transparent)]
    Retention(#[from] RetentionError),
}

impl Failure for CronFailure {
    fn class(&self) -> Class {
        match self {
            Self::Archive(error) => error.class(),
            Self::Retention(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Archive(error) => error.hint(),
            Self::Retention(error) => error.hint(),
        }
    }
}

/// Does what is to be done for a server from time to time, or says what retention would do. Blocks.
pub fn cron(
    settings: &ServerSettings,
    home: &Home,
    dry_run: bool,
    interrupted: &watch::Receiver<bool>,
) -> Result<CronOutcome, CronFailure> {
    let server = home.server(&settings.name);
    let now = Timestamp::now();
    let done = if !settings.active {
        CronDone::Inactive { dry_run }
    } else if dry_run {
        let rules = Rules::from(settings);
        let stores = server.previous();
        let mut previous = Vec::new();
        for name in stores.servers().map_err(RetentionError::from)? {
            let plan = retention::plan(&stores.server(&name), &rules, now)?;
            previous.extend(plan.map(|plan| (name, plan)));
        }
        CronDone::Planned { plan: retention::plan(&server, &rules, now)?.map(Box::new), previous }
    } else {
        // WAL that cannot be archived is no reason to keep more of it, or less.
        let archived = archive_waiting(settings, &server, &|| *interrupted.borrow());
        match retention::enforce(settings, &server, now, &|| *interrupted.borrow()) {
            Ok(enforced) => CronDone::Done { archived: archived?, enforced: Box::new(enforced) },
            Err(error) if error.is_busy() => {
                CronDone::Busy { archived: archived?, by: error.to_string() }
            }
            Err(error) => return Err(error.into()),
        }
    };
    Ok(CronOutcome { server: settings.name.clone(), done })
}
