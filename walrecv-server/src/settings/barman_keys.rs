//! What Barman's options are called here, or why nobody needs them: for those who come from there.

/// Barman's options that have another name here, or none.
const KEYS: &[(&str, &str)] = &[
    ("archiver", ONE_WAY),
    ("autogenerate_manifest", "remove it: each backup has a manifest"),
    ("backup_method", ONE_WAY),
    ("backup_options", "remove it: backups are taken by the replication protocol"),
    ("barman_home", "it is called `home` here"),
    ("barman_lock_directory", "remove it: locks lie in the store, and end with their processes"),
    ("barman_user", "remove it: root's commands go on as the user who owns the store"),
    ("configuration_files_directory", "remove it: `servers.d` beside this file is read"),
    ("custom_compression_filter", "choose a `compression`: zstd, lz4, gzip or none"),
    ("custom_decompression_filter", "choose a `compression`: zstd, lz4, gzip or none"),
    ("encryption", "it is called `encryption_recipients` here: age instead of GPG"),
    ("encryption_key_id", "it is called `encryption_recipients` here: age instead of GPG"),
    ("local_staging_path", "remove it: nothing is staged"),
    ("log_file", "remove it: it logs to standard error, and so into the journal"),
    ("log_level", "remove it: `-v` tells more, `-q` less"),
    ("network_compression", "see `backup_compression_location`"),
    ("parallel_jobs", "remove it: `restore` and `verify-backup` have `--jobs`"),
    ("path_prefix", "remove it: no program of PostgreSQL is needed"),
    ("primary_conninfo", "`conninfo` is the primary's here, and `backup_conninfo` the standby's"),
    ("recovery_options", "remove it: restored servers get their WAL by `get-wal`"),
    ("recovery_staging_path", "remove it: nothing is staged"),
    ("reuse_backup", "`incremental_schedule` and `backup --incremental` are PostgreSQL's own"),
    ("ssh_command", ONE_WAY),
    ("staging_path", "remove it: nothing is staged"),
    ("streaming_archiver", ONE_WAY),
    ("streaming_archiver_batch_size", ONE_WAY),
    ("streaming_archiver_name", "it is `application_name` in the conninfo here"),
    ("streaming_backup_name", "it is `application_name` in `backup_conninfo` here"),
    ("wal_retention_policy", "remove it: WAL stays as long as what needs it"),
];

const ONE_WAY: &str = "remove it: there is one way here, the replication protocol";

/// What to do about one of Barman's options that is none here.
pub(super) fn advice(name: &str) -> Option<&'static str> {
    KEYS.iter().find(|(key, _)| *key == name).map(|(_, advice)| *advice)
}

/// Whether a value stands there as it stands in no TOML.
fn is_bare(value: &str) -> bool {
    !value.starts_with(['"', '\'', '[', '{'])
        && value.parse::<f64>().is_err()
        && value != "true"
        && value != "false"
}

/// Where it shows that a file is one of Barman's.
pub(super) fn sign_in(text: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let is_his = match line.split_once('=') {
            None => line.trim() == "[barman]",
            Some((key, value)) => advice(key.trim()).is_some() && is_bare(value.trim()),
        };
        if is_his {
            return Some(at);
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::{KEYS, sign_in};

    #[test]
    fn barmans_files_are_known_by_their_section_or_their_options() {
        assert_eq!(sign_in("; comment\n[barman]\nbarman_user = barman\n"), Some(10));
        assert_eq!(sign_in("[pg]\nconninfo = host=pg\nbackup_method = postgres\n"), Some(24));
        assert_eq!(sign_in("home = \"/srv/backup_method\"\n[defaults\n"), None);
        assert_eq!(sign_in("backup_method = \"postgres\"\narchiver = false\n[x\n"), None);
    }

    #[test]
    fn none_of_them_is_a_key_and_those_that_are_named_exist() {
        for (key, advice) in KEYS {
            assert!(keys::KEYS.iter().all(|known| known.name != *key), "{key}");
            let named = advice.split('`').skip(1).step_by(2);
            for name in named.filter(|name| name.contains('_') && !name.contains(' ')) {
                let is_key = keys::KEYS.iter().any(|known| known.name == name);
                assert!(is_key || name == "application_name", "{key} leads to {name}");
            }
        }
        assert!(KEYS.is_sorted());
    }
}
