//! What runs beside a stream, on connections of its own, and ends with it.

use std::sync::Arc;

use pgwire_stream::{Config, Endpoint, Feature, Host, ReplicationClient, SystemId};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::other_hosts::OtherHost;
use super::status::HostSlot;
use super::{Receiver, synchronous_watch};
use crate::settings::{CreateSlot, Synchronous};

/// The host that was reached last.
pub(super) struct Reached {
    /// What leads there, and to no other host.
    pub(super) config: Config,
    /// The cluster that was there.
    pub(super) system_id: SystemId,
}

/// What those are called that keep the slots of other hosts.
const SLOT_KEEPER: &str = "walrecv (slot)";

/// The database where the conninfo names none.
pub(super) const DATABASE: &str = "postgres";

impl Receiver {
    /// Starts what runs beside the stream of this connection. Dropping it ends it.
    pub(super) fn run_beside(&self, client: &ReplicationClient) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let Some(here) = &self.reached else { return tasks };
        for host in self.other_hosts(here) {
            let span = tracing::info_span!("other_host", host = host.host);
            tasks.spawn_on(host.tend().instrument(span), &self.common_runtime());
        }
        let can_be_asked = client.server_version().supports(Feature::ReplicationSql);
        if self.settings.synchronous == Synchronous::WhenNamed && can_be_asked {
            let watch = synchronous_watch::watch(
                Arc::clone(&self.synchrony),
                Arc::clone(&self.status),
                here.config.clone(),
            );
            tasks.spawn_on(watch.in_current_span(), &self.common_runtime());
        }
        tasks
    }

    /// The other hosts of the conninfo, if the slot is to be kept there, too.
    fn other_hosts(&self, here: &Reached) -> Vec<OtherHost> {
        let mut others = Vec::new();
        let config = match self.config() {
            Ok(config) if self.settings.slot_on_all_hosts => Some(config),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(error = %error, "the slots of the other hosts are not kept");
                None
            }
        };
        for host in config.iter().flat_map(|config| &config.hosts) {
            let is_here = here.config.hosts.iter().any(|reached| is_same(host, reached));
            if is_here {
                continue;
            }
            let mut config = only(&here.config, host.clone());
            // With its own password.
            config.hosts = vec![host.clone()];
            config.dbname.get_or_insert_with(|| DATABASE.to_owned());
            // Nobody to wait for.
            config.application_name = Some(SLOT_KEEPER.to_owned());
            others.push(OtherHost {
                host: host.to_string(),
                config,
                slot: self.settings.slot_name.clone(),
                create: self.settings.create_slot == CreateSlot::Auto,
                system_id: here.system_id,
                segment_size: self.segment_size,
                status: Arc::clone(&self.status),
                sure: false,
            });
        }
        self.status.send_modify(|status| {
            status.other_hosts =
                others.iter().map(|other| HostSlot::new(other.host.clone())).collect();
        });
        others
    }
}

/// The configuration that leads to this one of its hosts alone, whatever that is by now.
pub(super) fn only(config: &Config, mut host: Host) -> Config {
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
