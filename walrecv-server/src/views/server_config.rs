//! A server's settings as they are in effect, without secrets.

use serde_json::{Map, Value, json};

use crate::settings::{
    Compression, CompressionLocation, CreateSlot, IncrementalBase, ServerSettings, Synchronous,
    without_passwords,
};

/// The settings by their keys.
pub fn server_config(settings: &ServerSettings) -> Map<String, Value> {
    let backup = &settings.backup_compression;
    let schedule = |schedule: &Option<crate::settings::Schedule>| {
        json!(schedule.as_ref().map(ToString::to_string))
    };
    let config = json!({
        "active": settings.active,
        "backup_compression": codec(backup.codec),
        "backup_compression_level": backup.level,
        "backup_compression_location": match backup.location {
            CompressionLocation::Client => "client",
            CompressionLocation::Server => "server",
        },
        "backup_compression_workers": backup.workers,
        "backup_conninfo": without_passwords(settings.backup_conninfo()),
        "backup_schedule": schedule(&settings.backup_schedule),
        "bandwidth_limit": settings.bandwidth_limit_kb,
        "basebackup_retry_sleep": settings.basebackup_retry_sleep.as_secs(),
        "basebackup_retry_times": settings.basebackup_retry_times,
        "check_interval": settings.check_interval.map(|interval| interval.as_secs()),
        "check_timeout": settings.check_timeout.as_secs(),
        "compression": codec(settings.compression),
        "compression_level": settings.compression_level,
        "conninfo": without_passwords(settings.conninfo.as_str()),
        "create_slot": match settings.create_slot {
            CreateSlot::Auto => "auto",
            CreateSlot::Manual => "manual",
        },
        "description": settings.description,
        "encryption_identity": settings.encryption_identity,
        "encryption_recipients":
            settings.encryption_recipients.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "flush_interval": settings.flush_interval.as_secs_f64(),
        "immediate_checkpoint": settings.immediate_checkpoint,
        "incremental_base": match settings.incremental_base {
            IncrementalBase::Latest => "latest",
            IncrementalBase::Full => "full",
        },
        "incremental_chain_max": settings.incremental_chain_max,
        "incremental_schedule": schedule(&settings.incremental_schedule),
        "last_backup_maximum_age":
            settings.last_backup_maximum_age.map(|period| period.to_string()),
        "last_backup_minimum_size": settings.last_backup_minimum_size,
        "last_wal_maximum_age": settings.last_wal_maximum_age.map(|period| period.to_string()),
        "minimum_redundancy": settings.minimum_redundancy,
        "name": settings.name,
        "retention_policy": settings.retention_policy.map(|policy| policy.to_string()),
        "slot_name": settings.slot_name.as_str(),
        "slot_on_all_hosts": settings.slot_on_all_hosts,
        "streaming_conninfo": without_passwords(settings.streaming_conninfo()),
        "synchronous": match settings.synchronous {
            Synchronous::Always => "true",
            Synchronous::Never => "false",
            Synchronous::WhenNamed => "auto",
        },
        "verify_bandwidth_limit": settings.verify_bandwidth_limit_kb,
        "verify_schedule": schedule(&settings.verify_schedule),
        "wal_validation": settings.wal_validation,
    });
    match config {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn codec(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Zstd => "zstd",
        Compression::Lz4 => "lz4",
        Compression::Gzip => "gzip",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ConnInfo;

    #[test]
    fn no_secret_is_told() {
        let conninfo = "host=db user=u password='top secret' sslpassword=hidden";
        let name = "main".parse().unwrap();
        let settings =
            ServerSettings::new(name, ConnInfo::new(conninfo), "walrecv".parse().unwrap());
        let config = Value::Object(server_config(&settings)).to_string();
        assert!(!config.contains("secret") && !config.contains("hidden"), "{config}");
        assert!(config.contains("\"slot_name\":\"walrecv\""), "{config}");
    }
}
