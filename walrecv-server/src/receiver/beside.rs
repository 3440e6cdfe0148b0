//! What runs beside a stream, on connections of its own, and ends with it.

use std::sync::Arc;

use pgwire_stream::{Config, Endpoint, Feature, Host, ReplicationClient};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{Receiver, ReceiverError, synchronous_watch};
use crate::settings::Synchronous;

impl Receiver {
    /// Starts what runs beside the stream of this connection. Dropping it ends it.
    pub(super) fn run_beside(
        &self,
        client: &ReplicationClient,
    ) -> Result<JoinSet<()>, ReceiverError> {
        let config = self.config()?;
        let here = client.host();
        let mut tasks = JoinSet::new();
        let can_be_asked = client.server_version().supports(Feature::ReplicationSql);
        if self.settings.synchronous == Synchronous::WhenNamed && can_be_asked {
            let watch = synchronous_watch::watch(
                Arc::clone(&self.synchrony),
                Arc::clone(&self.status),
                only(&config, here),
            );
            tasks.spawn(watch.in_current_span());
        }
        Ok(tasks)
    }
}

/// The configuration that leads to this one of its hosts alone, whatever that is by now.
fn only(config: &Config, mut host: Host) -> Config {
    let mut config = config.clone();
    let configured = config.hosts.iter().find(|configured| is_same(configured, &host));
    host.password = configured.and_then(|configured| configured.password.clone());
    config.hosts = vec![host];
    config.target_session_attrs = pgwire_stream::TargetSessionAttrs::Any;
    config
}

/// Whether this is the configured host that was reached.
fn is_same(configured: &Host, reached: &Host) -> bool {
    configured.port == reached.port
        && match (&configured.endpoint, &reached.endpoint) {
            (
                Endpoint::Tcp { name: ours, address: wanted },
                Endpoint::Tcp { name: theirs, address: found },
            ) => ours == theirs && (wanted.is_none() || wanted == found),
            (Endpoint::Unix(ours), Endpoint::Unix(theirs)) => ours == theirs,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_led_to_with_its_own_password() {
        let mut config: Config =
            "host=a,b,b port=1,2,3 user=u target_session_attrs=primary".parse().unwrap();
        for (host, password) in config.hosts.iter_mut().zip(["x", "y", "z"]) {
            host.password = Some(pgwire_stream::Password::new(password));
        }
        let mut reached = Host::new("b", 3);
        if let Endpoint::Tcp { address, .. } = &mut reached.endpoint {
            *address = Some("192.0.2.7".parse().unwrap());
        }
        let only = only(&config, reached.clone());
        assert_eq!(only.hosts.len(), 1);
        assert_eq!(only.hosts[0].endpoint, reached.endpoint);
        assert_eq!(only.hosts[0].password, config.hosts[2].password);
        assert_eq!(only.target_session_attrs, pgwire_stream::TargetSessionAttrs::Any);
    }

    #[test]
    fn a_host_is_known_by_name_port_and_the_address_that_was_asked_for() {
        let config: Config = "host=a,a,/tmp hostaddr=192.0.2.1,192.0.2.2, port=1".parse().unwrap();
        let hosts = &config.hosts;
        for (at, host) in hosts.iter().enumerate() {
            let same: Vec<_> = hosts.iter().map(|other| is_same(other, host)).collect();
            assert_eq!(same.iter().filter(|same| **same).count(), 1, "{same:?}");
            assert!(same[at]);
        }
    }
}
