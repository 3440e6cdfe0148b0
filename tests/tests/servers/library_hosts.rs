//! Several servers in one connection string.

use std::collections::HashSet;

use pgwire_stream::{Config, ReplicationClient, Result};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("library_target_session_attrs", &[10, 13, 14, 18], target_session_attrs)
        .per_major("library_load_balancing", &[18], load_balancing)
}

/// The port of the server that a physical connection reaches, twice.
fn reached(conninfo: &str) -> Result<u16> {
    let mut config: Config = conninfo.parse()?;
    block_on(async {
        let mut client = ReplicationClient::connect(&config).await?;
        let port = client.show("port").await?;
        config.hosts = vec![client.host()];
        client.close().await?;
        let mut again = ReplicationClient::connect(&config).await?;
        assert_eq!(again.show("port").await?, port);
        Ok(port.parse().expect("a port is a number"))
    })
}

fn target_session_attrs(installation: &Installation) -> ScenarioResult {
    let mut primary = Cluster::start_new(installation)?;
    primary.create_role("someone", "secret", "REPLICATION")?;
    primary.stop()?;
    let mut standby = primary.make_standby()?;
    primary.start()?;
    standby.start()?;
    primary.wait_for("the standby", |primary| {
        Ok(primary.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")?
            == "1")
    })?;

    let conninfo = |ports: &[u16], wanted: &str| {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        format!(
            "host={} port={} user=someone password=secret dbname=postgres sslmode=disable \
             target_session_attrs={wanted}",
            vec!["127.0.0.1"; ports.len()].join(","),
            ports.join(",")
        )
    };
    let (first, second) = (primary.port(), standby.port());
    for (wanted, expected) in [
        ("primary", first),
        ("read-write", first),
        ("standby", second),
        ("read-only", second),
        ("prefer-standby", second),
    ] {
        for ports in [[first, second], [second, first]] {
            assert_eq!(reached(&conninfo(&ports, wanted))?, expected, "{wanted} {ports:?}");
        }
    }
    assert_eq!(reached(&conninfo(&[first, second], "any"))?, first);
    assert_eq!(reached(&conninfo(&[first], "prefer-standby"))?, first);
    for (port, wanted) in
        [(first, "standby"), (first, "read-only"), (second, "primary"), (second, "read-write")]
    {
        let error = reached(&conninfo(&[port], wanted)).unwrap_err();
        assert!(error.to_string().contains(&format!("the server is not {wanted}")), "{error}");
    }

    // A primary whose sessions cannot write.
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")?;
    primary.reload()?;
    primary.wait_for("the setting", |primary| {
        Ok(primary.value("SHOW default_transaction_read_only")? == "on")
    })?;
    assert_eq!(reached(&conninfo(&[first, second], "read-only"))?, first);
    assert!(reached(&conninfo(&[first], "read-write")).is_err());
    let as_primary = reached(&conninfo(&[first], "primary"));
    if installation.major >= 14 {
        assert_eq!(as_primary?, first);
        assert_eq!(reached(&conninfo(&[first, second], "standby"))?, second);
    } else {
        // It cannot be told from a standby, and no guess is made.
        let error = as_primary.unwrap_err();
        assert!(error.to_string().contains("default_transaction_read_only"), "{error}");
    }
    // With a database, it can be asked on every major.
    let config: Config = conninfo(&[second, first], "primary").parse()?;
    let port = block_on(async {
        let mut client = ReplicationClient::connect_database(&config).await?;
        client.show("port").await
    })?;
    assert_eq!(port, first.to_string());
    Ok(())
}

fn load_balancing(installation: &Installation) -> ScenarioResult {
    let clusters = [Cluster::start_new(installation)?, Cluster::start_new(installation)?];
    for cluster in &clusters {
        cluster.create_role("someone", "secret", "REPLICATION")?;
    }
    let ports = clusters.each_ref().map(Cluster::port);
    let conninfo = format!(
        "postgresql://someone:secret@127.0.0.1:{},127.0.0.1:{}/?load_balance_hosts=",
        ports[0], ports[1]
    );
    let mut seen = HashSet::new();
    for _ in 0..30 {
        seen.insert(reached(&format!("{conninfo}random"))?);
    }
    assert_eq!(seen, HashSet::from(ports));
    for _ in 0..5 {
        assert_eq!(reached(&format!("{conninfo}disable"))?, ports[0]);
    }
    Ok(())
}
