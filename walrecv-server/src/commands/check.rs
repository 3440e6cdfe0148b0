//! `check`: whether servers are backed up as they should be.

use std::time::Duration;

use crate::daemon::ControlClient;
use crate::receiver::Status;
use crate::settings::ServerSettings;
use crate::storage::Home;
use crate::views::check::{self, CheckOutcome};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at these servers, all at the same time, and at what is stored for them.
pub async fn check(servers: &[&ServerSettings], home: &Home) -> Vec<CheckOutcome> {
    check::check_all(servers, home, &receivers(home).await).await
}

/// How the daemon's receivers are; none if no daemon can be asked.
pub(super) async fn receivers(home: &Home) -> Vec<Status> {
    let asking = async {
        let mut client = ControlClient::connect(home.path()).await.ok()?;
        client.servers().await.ok()
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten().unwrap_or_default()
}
