//! The operator's own scripts around what is done, in Barman's manner.
//!
//! Before: the plain script, then the one that is retried. After: the other way round. A plain
//! script that fails is a warning. One that is retried is run again, with growing pauses, until it
//! succeeds (exit code 0), does not want to be asked again (62), or refuses (63). One that refuses
//! before something is done, or cannot be brought to succeed, stops it.
//!
//! Failures can be told to a webhook, too, which keeps nobody waiting.
//!
//! The scripts block for as long as they take, and are to be run where nothing else waits.

mod event;
mod script;
#[cfg(test)]
mod tests;
mod webhook;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

pub use event::{BackupFacts, Event, RecoveryFacts, WalFacts};
pub use webhook::{News, Notice, Webhook};

use crate::failure::{Class, Failure, in_one_line};
use crate::settings::{Hook, HookEvent, HookKind, HookPhase, HookScripts, ServerName};
use script::{Ending, Script};

/// The exit code with which a script says that it has failed, and that all goes on nevertheless.
const ABORT_CONTINUE: i32 = 62;

/// The exit code with which a script says that what it was run before must not be done.
const ABORT_STOP: i32 = 63;

/// How often a script is run that is retried.
const ATTEMPTS: u32 = 8;

/// How long is waited before it is run for the second time. The pauses double.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long scripts have, all together, that are run after something when nobody wants to wait any more.
const LAST_SCRIPTS: Duration = Duration::from_secs(30);

/// How often a pause looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(50);

/// Why something was not done: a script before it did not let it happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// A script has refused.
    #[error(
        "`{hook}` of server `{server}` does not allow {what}: it ended with exit code 63{said}"
    )]
    Refused {
        /// Its key.
        hook: String,
        /// The server.
        server: ServerName,
        /// What it does not allow.
        what: &'static str,
        /// The last line that it wrote.
        said: Said,
    },
    /// A script has failed again and again.
    #[error(
        "`{hook}` of server `{server}`, which must succeed before {what}, has failed {attempts} times: {why}"
    )]
    Failed {
        /// Its key.
        hook: String,
        /// The server.
        server: ServerName,
        /// What it was run before.
        what: &'static str,
        /// How often it was run.
        attempts: u32,
        /// How it ended the last time.
        why: String,
    },
    /// Whoever waited for the script wants it no more.
    #[error("`{hook}` of server `{server}` was interrupted")]
    Interrupted {
        /// Its key.
        hook: String,
        /// The server.
        server: ServerName,
    },
}

impl Failure for HookError {
    fn class(&self) -> Class {
        match self {
            Self::Refused { .. } | Self::Failed { .. } => Class::Failed,
            Self::Interrupted { .. } => Class::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hook, .. } | Self::Failed { hook, .. } => Some(format!(
                "what the script wrote is in the log (`-v`); it is configured as `{hook}`"
            )),
            Self::Interrupted { .. } => None,
        }
    }
}

/// The last line that a script has written, for the end of a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            "" => Ok(()),
            line => write!(f, " after writing \"{line}\""),
        }
    }
}

/// Says whether nobody waits for a script any more.
pub type Interrupted<'a> = &'a dyn Fn() -> bool;

/// The scripts of one server.
#[derive(Clone, Debug)]
pub struct Hooks {
    server: ServerName,
    scripts: HookScripts,
    first_pause: Duration,
    last_scripts: Duration,
    /// When it was first seen, after something was done, that nobody wants to wait any more.
    interrupted_at: Arc<OnceLock<Instant>>,
}

impl Hooks {
    /// The scripts that are configured for a server.
    pub fn new(server: &ServerName, scripts: &HookScripts) -> Self {
        Self {
            server: server.clone(),
            scripts: scripts.clone(),
            first_pause: FIRST_PAUSE,
            last_scripts: LAST_SCRIPTS,
            interrupted_at: Arc::default(),
        }
    }

    /// Those of a server that is not configured: none.
    pub fn none(server: &ServerName) -> Self {
        Self::new(server, &HookScripts::default())
    }

    /// Whose scripts they are.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// Whether there is any script around this.
    pub fn has(&self, event: HookEvent) -> bool {
        self.scripts.has(event)
    }

    /// Does what `event` is about, between the scripts before and after it.
    ///
    /// # Errors
    /// Those of the work, and that of a script which did not let it happen.
    pub fn around<T, E>(
        &self,
        event: &Event,
        interrupted: Interrupted<'_>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: Error + From<HookError> + 'static,
    {
        self.before(event, interrupted)?;
        let outcome = work();
        let error = outcome.as_ref().err().map(|error| in_one_line(error));
        self.after(event, error.as_deref(), interrupted);
        outcome
    }

    /// Runs the scripts before something is done.
    ///
    /// # Errors
    /// If it must not be done.
    pub fn before(&self, event: &Event, interrupted: Interrupted<'_>) -> Result<(), HookError> {
        let hook = |kind| Hook { event: event.kind(), phase: HookPhase::Pre, kind };
        self.run_once(hook(HookKind::Once), event, None, interrupted);
        let hook = hook(HookKind::Retry);
        let what = event.kind().what();
        match self.run_until_it_succeeds(hook, event, None, interrupted) {
            None | Some(Last::Content) => Ok(()),
            Some(Last::Refused(said)) => {
                let (hook, server) = (hook.to_string(), self.server.clone());
                Err(HookError::Refused { hook, server, what, said })
            }
            Some(Last::Failed(why)) => {
                let (hook, server) = (hook.to_string(), self.server.clone());
                Err(HookError::Failed { hook, server, what, attempts: ATTEMPTS, why })
            }
            Some(Last::Interrupted) => {
                let (hook, server) = (hook.to_string(), self.server.clone());
                Err(HookError::Interrupted { hook, server })
            }
        }
    }

    /// Runs the scripts after something was done, or has failed with `error`. Whatever comes of
    /// them changes nothing any more.
    ///
    /// What was done is not done again, and nobody else will ever tell of it: being interrupted is
    /// no reason to leave them out, but to wait half a minute at most.
    pub fn after(&self, event: &Event, error: Option<&str>, interrupted: Interrupted<'_>) {
        let out_of_time = || {
            interrupted()
                && self.interrupted_at.get_or_init(Instant::now).elapsed() >= self.last_scripts
        };
        let interrupted = &out_of_time;
        let hook = |kind| Hook { event: event.kind(), phase: HookPhase::Post, kind };
        let retried = hook(HookKind::Retry);
        let ended = match self.run_until_it_succeeds(retried, event, error, interrupted) {
            None | Some(Last::Content) => None,
            Some(Last::Refused(said)) => Some(format!("it ended with exit code 63{said}")),
            Some(Last::Failed(why)) => Some(format!("it has failed {ATTEMPTS} times: {why}")),
            Some(Last::Interrupted) => Some("it was interrupted".to_owned()),
        };
        if let Some(why) = ended {
            tracing::warn!(server = %self.server, hook = %retried, why, "a script failed");
        }
        self.run_once(hook(HookKind::Once), event, error, interrupted);
    }

    fn run_once(
        &self,
        hook: Hook,
        event: &Event,
        error: Option<&str>,
        interrupted: Interrupted<'_>,
    ) {
        if let Some(ending) = self.run(hook, event, error, interrupted)
            && !ending.is_success()
        {
            let why = ending.to_string();
            tracing::warn!(server = %self.server, hook = %hook, why, "a script failed");
        }
    }

    /// Runs a script until it is content; `None` if there is none.
    fn run_until_it_succeeds(
        &self,
        hook: Hook,
        event: &Event,
        error: Option<&str>,
        interrupted: Interrupted<'_>,
    ) -> Option<Last> {
        let mut pause = self.first_pause;
        for left in (0..ATTEMPTS).rev() {
            let ending = self.run(hook, event, error, interrupted)?;
            match &ending {
                Ending::Exited { code: Some(0), .. } => return Some(Last::Content),
                Ending::Exited { code: Some(ABORT_CONTINUE), said, .. } => {
                    let said = Said(said.clone()).to_string();
                    tracing::warn!(
                        server = %self.server, hook = %hook,
                        "a script ended with exit code 62{said}: going on without it"
                    );
                    return Some(Last::Content);
                }
                Ending::Exited { code: Some(ABORT_STOP), said, .. } => {
                    return Some(Last::Refused(Said(said.clone())));
                }
                Ending::Interrupted => return Some(Last::Interrupted),
                _ if left == 0 => return Some(Last::Failed(ending.to_string())),
                _ => {}
            }
            tracing::warn!(
                server = %self.server, hook = %hook, why = %ending,
                "a script failed; running it again in {pause:?}, {left} more times at most"
            );
            if !slept(pause, interrupted) {
                return Some(Last::Interrupted);
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
        None
    }

    /// Runs a script once; `None` if there is none.
    fn run(
        &self,
        hook: Hook,
        event: &Event,
        error: Option<&str>,
        interrupted: Interrupted<'_>,
    ) -> Option<Ending> {
        let command = self.scripts.commands.get(&hook)?;
        let environment = self.environment(hook, event, error);
        let timeout = self.scripts.timeout;
        tracing::debug!(server = %self.server, hook = %hook, "running a script");
        Some(Script { hook, server: &self.server, command, environment, timeout }.run(interrupted))
    }

    fn environment(
        &self,
        hook: Hook,
        event: &Event,
        error: Option<&str>,
    ) -> Vec<(&'static str, OsString)> {
        let retry = if hook.kind == HookKind::Retry { "1" } else { "0" };
        let configuration = self.scripts.configuration.clone().unwrap_or_default();
        let mut environment: Vec<(&'static str, OsString)> = vec![
            ("WALRECV_VERSION", env!("CARGO_PKG_VERSION").into()),
            ("WALRECV_SERVER", self.server.as_str().into()),
            ("WALRECV_CONFIGURATION", configuration.into()),
            ("WALRECV_HOOK", hook.name().into()),
            ("WALRECV_PHASE", hook.phase.name().into()),
            ("WALRECV_RETRY", retry.into()),
            ("WALRECV_ERROR", error.unwrap_or_default().replace('\0', " ").into()),
        ];
        environment.extend(event.environment());
        environment
    }
}

/// How the last run of a script ended that is retried.
enum Last {
    /// Well, or well enough.
    Content,
    Refused(Said),
    Failed(String),
    Interrupted,
}

/// Waits; says whether it is still wanted that anything is done.
fn slept(pause: Duration, interrupted: Interrupted<'_>) -> bool {
    let end = Instant::now() + pause;
    loop {
        if interrupted() {
            return false;
        }
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return true,
            left => thread::sleep(left.min(TICK)),
        }
    }
}

impl HookEvent {
    /// What is done, for the middle of a sentence.
    fn what(self) -> &'static str {
        match self {
            Self::Backup => "the backup",
            Self::Archive => "the archiving of WAL",
            Self::Delete => "the removal of the backup",
            Self::WalDelete => "the removal of WAL",
            Self::Recovery => "the restore",
        }
    }
}
