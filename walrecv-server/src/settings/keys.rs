//! Every key that a configuration may have.

use super::error::nearest;

/// The keys outside of `[defaults]` and `[servers.NAME]`.
pub(super) const GLOBAL: &[&str] = &["group_access", "home", "max_parallel_backups", "wal_readers"];

/// Tables beside the global keys.
pub(super) const TABLES: &[&str] = &["defaults", "http", "servers"];

/// The keys of `[http]`.
pub(super) const HTTP: &[&str] = &["listen", "tls_cert_file", "tls_key_file", "token_file"];

/// The keys of a server.
pub(super) const SERVER: &[&str] = &[
    "active",
    "backup_compression",
    "backup_compression_level",
    "backup_compression_location",
    "backup_compression_workers",
    "backup_conninfo",
    "backup_schedule",
    "bandwidth_limit",
    "basebackup_retry_sleep",
    "basebackup_retry_times",
    "check_interval",
    "check_timeout",
    "compression",
    "compression_level",
    "conninfo",
    "create_slot",
    "description",
    "encryption_identity",
    "encryption_recipients",
    "flush_interval",
    "hook_timeout",
    "immediate_checkpoint",
    "incremental_base",
    "incremental_chain_max",
    "incremental_schedule",
    "last_backup_maximum_age",
    "last_backup_minimum_size",
    "last_wal_maximum_age",
    "manifest_checksums",
    "minimum_redundancy",
    "post_archive_retry_script",
    "post_archive_script",
    "post_backup_retry_script",
    "post_backup_script",
    "post_delete_retry_script",
    "post_delete_script",
    "post_recovery_retry_script",
    "post_recovery_script",
    "post_wal_delete_retry_script",
    "post_wal_delete_script",
    "pre_archive_retry_script",
    "pre_archive_script",
    "pre_backup_retry_script",
    "pre_backup_script",
    "pre_delete_retry_script",
    "pre_delete_script",
    "pre_recovery_retry_script",
    "pre_recovery_script",
    "pre_wal_delete_retry_script",
    "pre_wal_delete_script",
    "retention_policy",
    "slot_name",
    "slot_on_all_hosts",
    "streaming_conninfo",
    "synchronous",
    "time_zone",
    "verify_bandwidth_limit",
    "verify_schedule",
    "wal_validation",
];

/// Those of a server's keys that describe one server, and cannot be shared by several.
pub(super) const OF_ONE_SERVER: &[&str] =
    &["backup_conninfo", "conninfo", "description", "streaming_conninfo"];

/// Keys that have no effect in this version: refused rather than ignored, because somebody relies
/// on what they promise.
const NOT_SUPPORTED: &[&str] = &["sender"];

/// What is wrong with a key that is not among `known`, and what to do about it.
pub(super) fn unknown(key: &str, known: &[&'static str]) -> (String, Option<String>) {
    if NOT_SUPPORTED.contains(&key) {
        let hint = "remove it: what it promises would not happen".to_owned();
        return (format!("`{key}` is not supported by this version"), Some(hint));
    }
    let problem = format!("unknown key `{key}`");
    let hint = if key == "barman_home" {
        Some("it is called `home` here".to_owned())
    } else if SERVER.contains(&key) {
        Some(format!("`{key}` belongs into [defaults] or [servers.NAME]"))
    } else if GLOBAL.contains(&key) {
        Some(format!("`{key}` belongs to the top of the file, before any [section]"))
    } else {
        nearest(key, known.iter().copied()).map(|known| format!("did you mean `{known}`?"))
    };
    (problem, hint)
}
