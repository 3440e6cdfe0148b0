//! The operator's own commands around what is done, by Barman's names: `pre_backup_script`,
//! `post_archive_retry_script` and so on.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::layer::Layers;
use super::value;

/// How long a script may run where nothing says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// What scripts can stand around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookEvent {
    /// A base backup is taken.
    Backup,
    /// A WAL file is moved into the archive.
    Archive,
    /// A base backup is removed.
    Delete,
    /// An archived WAL file is removed.
    WalDelete,
    /// A base backup is restored.
    Recovery,
}

/// Whether a script runs before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookPhase {
    /// Before.
    Pre,
    /// After, whatever came of it.
    Post,
}

/// What comes of a script that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    /// A warning.
    Once,
    /// It is run again until it succeeds, or says that it should not be.
    Retry,
}

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// Around what.
    pub event: HookEvent,
    /// Before or after.
    pub phase: HookPhase,
    /// What comes of a failure.
    pub kind: HookKind,
}

impl HookEvent {
    const ALL: [Self; 5] =
        [Self::Backup, Self::Archive, Self::Delete, Self::WalDelete, Self::Recovery];

    /// Its part of a script's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Archive => "archive",
            Self::Delete => "delete",
            Self::WalDelete => "wal_delete",
            Self::Recovery => "recovery",
        }
    }
}

impl HookPhase {
    /// Its part of a script's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
        }
    }
}

impl Hook {
    /// Every one there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let kinds = [HookKind::Once, HookKind::Retry];
        HookEvent::ALL.into_iter().flat_map(move |event| {
            [HookPhase::Pre, HookPhase::Post]
                .into_iter()
                .flat_map(move |phase| kinds.map(|kind| Self { event, phase, kind }))
        })
    }

    /// Its name without when it runs, as Barman tells it to scripts: `backup_script`.
    pub fn name(self) -> String {
        let retry = match self.kind {
            HookKind::Once => "",
            HookKind::Retry => "retry_",
        };
        format!("{}_{retry}script", self.event.name())
    }
}

/// The key that configures it.
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.phase.name(), self.name())
    }
}

/// The scripts of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookScripts {
    /// The commands, for `/bin/sh -c`.
    pub commands: BTreeMap<Hook, String>,
    /// How long one may run.
    pub timeout: Duration,
    /// The configuration that names them, for them to know.
    pub configuration: Option<PathBuf>,
}

impl Default for HookScripts {
    fn default() -> Self {
        Self { commands: BTreeMap::new(), timeout: DEFAULT_TIMEOUT, configuration: None }
    }
}

impl HookScripts {
    /// Whether there is any script around this.
    pub fn has(&self, event: HookEvent) -> bool {
        self.commands.keys().any(|hook| hook.event == event)
    }

    pub(super) fn resolve(layers: &mut Layers<'_>) -> Self {
        let mut scripts = Self::default();
        for hook in Hook::all() {
            if let Some(command) = layers.value(&hook.to_string(), value::text) {
                // An empty one takes back what `[defaults]` say.
                if !command.trim().is_empty() {
                    scripts.commands.insert(hook, command);
                }
            }
        }
        let timeout = layers.value("hook_timeout", |given| {
            value::duration(given, Duration::from_secs(1), Duration::from_secs(86400))
        });
        scripts.timeout = timeout.unwrap_or(scripts.timeout);
        scripts
    }
}
