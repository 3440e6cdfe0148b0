//! `diagnose`: everything that helps to find out what is wrong, and no secret in it.

use super::check::receivers;
use crate::settings::Settings;
use crate::storage::Home;
use crate::views::diagnose::{self, DiagnoseOutcome};

/// Gathers it of all configured servers.
pub async fn diagnose(settings: &Settings, home: &Home) -> DiagnoseOutcome {
    diagnose::diagnose(settings, home, &receivers(home).await).await
}
