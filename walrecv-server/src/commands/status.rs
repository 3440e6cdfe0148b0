//! `status`: how servers are, their receivers and what is stored for them.

use futures::future::join_all;

use super::check::receivers;
use crate::settings::ServerSettings;
use crate::storage::Home;
use crate::views::status::{self, StatusOutcome};

/// Looks at these servers, all at the same time.
pub async fn status(servers: &[&ServerSettings], home: &Home) -> Vec<StatusOutcome> {
    let receivers = receivers(home).await;
    let looks = servers.iter().map(|server| {
        let receiver = receivers.iter().find(|status| status.server == server.name);
        let store = home.server(&server.name);
        async move { status::status(server, &store, receiver).await }
    });
    join_all(looks).await
}
