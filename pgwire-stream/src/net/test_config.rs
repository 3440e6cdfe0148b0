//! Configurations for tests.

use crate::{Config, Endpoint, Host, SslMode};

/// A configuration for servers on loopback.
pub(crate) fn config(mode: SslMode, ports: &[u16]) -> Config {
    let host = |port: &u16| Host {
        endpoint: Endpoint::Tcp { name: "localhost".into(), address: Some([127, 0, 0, 1].into()) },
        port: *port,
        password: None,
    };
    let mut config: Config = "user=somebody".parse().unwrap();
    config.hosts = ports.iter().map(host).collect();
    config.ssl_mode = mode;
    config
}
