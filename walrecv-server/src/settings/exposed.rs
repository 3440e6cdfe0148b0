//! Secrets that everybody on this machine can read, which makes them none.

use std::path::Path;

use super::error::{Mistake, Origin};
use super::file::Files;
use super::keys::{KEYS, Key, Kind};
use super::secrets::{open_to_everybody, without_passwords};
use super::value::{Given, Raw};

/// What is wrong with the files that hold a secret, or that the configuration names for one.
pub(super) fn exposed(files: &Files) -> Vec<Mistake> {
    let layers = [&files.global, &files.defaults, &files.http];
    layers
        .into_iter()
        .chain(files.servers.values())
        .flat_map(|layer| KEYS.iter().filter_map(|key| exposure(key, layer.get(key.name)?)))
        .collect()
}

fn exposure(key: &Key, given: &Given) -> Option<Mistake> {
    let (Raw::Text(text), Origin::File { path, .. }) = (&given.raw, &given.origin) else {
        return None;
    };
    let (what, file) = match key.kind {
        Kind::Conninfo if without_passwords(text) != *text => ("the password in it", &**path),
        Kind::Webhook => ("the secret that it may hold", &**path),
        Kind::Secret => ("it", Path::new(text)),
        _ => return None,
    };
    let mode = open_to_everybody(file)?;
    let close = format!("`chmod o= {}`", file.display());
    Some(Mistake {
        origin: given.origin.clone(),
        problem: format!(
            "`{}`: everybody on this machine can read {what} (the file's mode is {mode:04o})",
            key.name
        ),
        hint: Some(match key.kind {
            Kind::Conninfo => {
                format!("{close}, or put the password into a password file (mode 0600)")
            }
            _ => close,
        }),
    })
}
