//! The slot of a new server, where another one has the usual slot on the same host already.

use pgwire_stream::{Config, Endpoint, SlotName};

use crate::settings::{DEFAULT_SLOT, ServerSettings};

/// A name for this server's slot. The usual one is changed if one of the `others` receives with it from
/// the same host: only one of them could.
pub fn free_slot(new: &ServerSettings, others: &[ServerSettings]) -> SlotName {
    let taken = |slot: &SlotName| {
        others.iter().any(|other| {
            other.name != new.name
                && other.slot_name == *slot
                && meet(new.streaming_conninfo(), other.streaming_conninfo())
        })
    };
    let usual = &new.slot_name;
    if usual.as_str() != DEFAULT_SLOT || !taken(usual) {
        return usual.clone();
    }
    let own = new.name.as_str().to_lowercase().replace(|c| !is_of_slots(c), "_");
    let numbered = (2..=others.len() + 2).map(|number| format!("{usual}_{number}"));
    let names = std::iter::once(format!("{usual}_{own}")).chain(numbered);
    let mut free = names.filter_map(|name| name.parse().ok()).filter(|name| !taken(name));
    free.next().unwrap_or_else(|| usual.clone())
}

fn is_of_slots(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// Whether two conninfos lead to a common host.
fn meet(one: &str, other: &str) -> bool {
    let endpoints = |conninfo: &str| -> Vec<(Endpoint, u16)> {
        let config: Result<Config, _> = conninfo.parse();
        let hosts = config.map(|config| config.hosts).unwrap_or_default();
        hosts.into_iter().map(|host| (host.endpoint, host.port)).collect()
    };
    let others = endpoints(other);
    endpoints(one).iter().any(|endpoint| others.contains(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ConnInfo;

    fn server(name: &str, host: &str, slot: &str) -> ServerSettings {
        let conninfo = ConnInfo::new(format!("host={host} user=walrecv"));
        ServerSettings::new(name.parse().unwrap(), conninfo, slot.parse().unwrap())
    }

    #[test]
    fn no_two_servers_receive_from_a_host_with_the_same_slot() {
        let others = [server("main", "db1,db2", "walrecv"), server("b", "db3", "walrecv")];
        let slot = |name, host| free_slot(&server(name, host, "walrecv"), &others).to_string();
        assert_eq!(slot("c", "db4"), "walrecv");
        assert_eq!(slot("main", "db1"), "walrecv", "it is its own");
        assert_eq!(slot("Again-1", "db2"), "walrecv_again_1");
        assert_eq!(slot("c", "db3,db4"), "walrecv_c");
        let long = "c".repeat(60);
        assert_eq!(slot(&long, "db3"), "walrecv_2");
        // What somebody has chosen is his.
        let chosen = [server("main", "db1", "mine")];
        assert_eq!(free_slot(&server("c", "db1", "mine"), &chosen).as_str(), "mine");
    }
}
