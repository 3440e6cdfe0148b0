//! All that is stored for a server, as a page or monitoring wants it.

use jiff::Timestamp;
use serde::Serialize;

use super::backups::list_backups;
use super::sizes::{Sizes, sizes};
use super::window::{Window, window};
use crate::catalog::{BackupError, Identity, IdentityError, Scrub, WalOutline, WalStore};
use crate::failure::{Failure, in_one_line};
use crate::storage::ServerDir;

/// What is stored for a server.
#[derive(Clone, Debug, Serialize)]
pub struct Stored {
    /// When it was looked at.
    pub at: Timestamp,
    /// The server's version when it was last seen.
    pub server_version: Option<String>,
    /// The cluster.
    pub system_id: Option<String>,
    /// From when to when it can be recovered.
    pub window: Window,
    /// The room that it takes.
    pub sizes: Sizes,
    /// The last verification of everything.
    pub scrub: Option<Scrubbed>,
    /// What could not be looked at, each in one line.
    pub problems: Vec<String>,
}

/// A verification of everything.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scrubbed {
    /// When it ended.
    pub at: Timestamp,
    /// How many problems it found.
    pub problems: u64,
}

/// Looks at what is stored for a server. What cannot be looked at hides nothing else.
pub fn stored(server: &ServerDir, now: Timestamp) -> Stored {
    let mut problems = Vec::new();
    let mut note = |error: &dyn Failure| {
        let problem = in_one_line(error);
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    };
    let identity = Identity::load(server).unwrap_or_else(|error: IdentityError| {
        note(&error);
        None
    });
    let backups = match list_backups(server) {
        Ok(list) => list.backups,
        Err(error) => {
            note(&error);
            Vec::new()
        }
    };
    let mut outline: Option<WalOutline> = None;
    let mut picture = Window::default();
    if let Some(identity) = &identity {
        match WalStore::new(server, identity.segment_size).outline() {
            Ok(found) => {
                match window(server, identity.segment_size, &found, &backups, now) {
                    Ok(window) => picture = window,
                    Err(error) => note(&error),
                }
                outline = Some(found);
            }
            Err(error) => note(&BackupError::from(error)),
        }
    }
    let scrub = Scrub::load(server).unwrap_or_else(|error| {
        note(&error);
        None
    });
    if picture.summary.is_empty() {
        "nothing can be recovered yet: nothing was received".clone_into(&mut picture.summary);
    }
    Stored {
        at: now,
        server_version: identity.as_ref().map(|identity| identity.server_version.to_string()),
        system_id: identity.as_ref().map(|identity| identity.system_id.to_string()),
        window: picture,
        scrub: scrub.map(|scrub| Scrubbed { at: scrub.ended_at, problems: scrub.problems }),
        sizes: sizes(server, outline.as_ref(), &backups, now),
        problems,
    }
}
