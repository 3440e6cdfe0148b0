//! Cancelling what a connection executes, from another one.

use std::time::{Duration, Instant};

use pgwire_stream::{
    BackupEvent, BaseBackupOptions, Config, ReplicationClient, StartReplication, WalEvent,
};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("library_cancel", &[10, 14, 18], cancel)
}

fn cancel(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::options(installation)
        .tls()
        .hba("hostssl all sealed 127.0.0.1/32 scram-sha-256")
        .hba("hostssl replication sealed 127.0.0.1/32 scram-sha-256")
        .start()?;
    for role in ["bare", "sealed"] {
        cluster.create_role(role, "secret", "REPLICATION")?;
    }
    let mut ways = vec![
        cluster.conninfo("bare", "secret"),
        cluster.tls_conninfo("sealed", "secret"),
        format!("{} max_protocol_version=3.2", cluster.tls_conninfo("sealed", "secret")),
    ];
    if installation.major >= 17 {
        ways.push(format!("{} sslnegotiation=direct", cluster.tls_conninfo("sealed", "secret")));
    }
    for conninfo in ways {
        let config: Config = conninfo.parse()?;
        block_on(async {
            cancel_query(&config).await;
            let client = ReplicationClient::connect(&config).await.unwrap();
            let client = cancel_base_backup(client).await;
            let client = cancel_stream(client).await;
            client.close().await.unwrap();
        });
    }
    Ok(())
}

const CANCELLED: &str = "57014";

async fn cancel_query(config: &Config) {
    let mut client = ReplicationClient::connect_database(config).await.unwrap();
    let cancel = client.cancel_token().unwrap();
    let begin = Instant::now();
    let (outcome, ()) = tokio::join!(client.query("SELECT pg_sleep(60)"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel().await.unwrap();
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.sql_state().unwrap().as_str(), CANCELLED, "{error}");
    assert!(begin.elapsed() < Duration::from_secs(30));
    // There is nothing to cancel any more, which nobody minds.
    cancel.cancel().await.unwrap();
    client.close().await.unwrap();
}

async fn cancel_base_backup(client: ReplicationClient) -> ReplicationClient {
    let cancel = client.cancel_token().unwrap();
    let mut options = BaseBackupOptions::default();
    options.fast_checkpoint = true;
    options.max_rate_kb = Some(32);
    options.manifest = None;
    let mut backup = client.base_backup(&options).await.unwrap();
    while !matches!(backup.next().await.unwrap(), Some(BackupEvent::ArchiveData(_))) {}
    let begin = Instant::now();
    cancel.cancel().await.unwrap();
    while backup.next().await.unwrap().is_some() {}
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(backup.failure().unwrap().code.unwrap().as_str(), CANCELLED);
    let mut client = backup.recover().unwrap();
    client.identify_system().await.unwrap();
    client
}

async fn cancel_stream(mut client: ReplicationClient) -> ReplicationClient {
    let cancel = client.cancel_token().unwrap();
    let system = client.identify_system().await.unwrap();
    let size = client.wal_segment_size().await.unwrap();
    let start = size.start_of(size.segment_of(system.flushed_to));
    let mut stream = client.start_replication(StartReplication::new(start)).await.unwrap();
    while !matches!(stream.next().await.unwrap(), Some(WalEvent::Data(_))) {}
    cancel.cancel().await.unwrap();
    let error = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert_eq!(error.sql_state().unwrap().as_str(), CANCELLED, "{error}");
    let mut client = stream.recover().unwrap();
    client.identify_system().await.unwrap();
    client
}
