//! What a restored server is told about its recovery, in the file that its version reads.
//!
//! Up to PostgreSQL 11 that is `recovery.conf`; from 12 on it is `postgresql.auto.conf` with an
//! empty `recovery.signal`, or `standby.signal`, beside it. `postgresql.auto.conf` is read last by
//! all versions, so what stands at its end wins over all that came with the backup.

use pgwire_stream::{ServerVersion, TimelineId};
use serde::Serialize;

use super::standby::Standby;
use super::target::{RecoveryTarget, TargetAction};
use crate::catalog::LeaseId;

/// PostgreSQL 12 moved the recovery settings into the ordinary configuration.
pub(super) const NO_RECOVERY_CONF: ServerVersion = ServerVersion::from_num(120_000);

/// Settings of recovery that a `postgresql.conf` may carry, and what they are before ours.
///
/// A server refuses two targets at once, and counts every target that is set *after* another, be
/// it to nothing: therefore these come before the target that is wanted.
const RESETS: &[(&str, &str)] = &[
    ("recovery_target", ""),
    ("recovery_target_lsn", ""),
    ("recovery_target_name", ""),
    ("recovery_target_time", ""),
    ("recovery_target_xid", ""),
    ("recovery_min_apply_delay", "0"),
    ("recovery_end_command", ""),
    ("archive_cleanup_command", ""),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
];

/// What the copy shall not do to the archive and the standbys of its origin.
const DETACHED: &[(&str, &str)] = &[("archive_mode", "off"), ("synchronous_standby_names", "")];

/// One line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its value, not yet quoted.
    pub value: String,
}

/// Everything that is written to make a server recover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecoverySettings {
    /// `recovery.conf`, where the server's version has one.
    pub recovery_conf: Option<Vec<Setting>>,
    /// What is appended to `postgresql.auto.conf`.
    pub auto_conf: Vec<Setting>,
    /// Whether an empty `recovery.signal` starts the recovery.
    pub recovery_signal: bool,
    /// Whether an empty `standby.signal` makes the server a standby.
    pub standby_signal: bool,
}

/// Where recovery is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery<'a> {
    /// How far.
    pub target: &'a RecoveryTarget,
    /// Whether the target itself is replayed.
    pub inclusive: bool,
    /// What happens there.
    pub action: TargetAction,
    /// Along which timeline; `None` for that of the backup, whose history nobody knows.
    pub timeline: Option<TimelineId>,
    /// How the server gets at WAL.
    pub restore_command: &'a str,
    /// What a standby is told, which follows its primary instead of ending its recovery.
    pub standby: Option<&'a Standby>,
}

impl RecoverySettings {
    /// The settings for a server of this version.
    pub fn new(version: ServerVersion, recovery: &Recovery<'_>) -> Self {
        let detached = DETACHED.iter().map(setting);
        let wanted = recovery.settings(version);
        if version < NO_RECOVERY_CONF {
            return Self {
                recovery_conf: Some(wanted),
                auto_conf: detached.collect(),
                recovery_signal: false,
                standby_signal: false,
            };
        }
        let resets = RESETS.iter().map(setting);
        Self {
            recovery_conf: None,
            auto_conf: detached.chain(resets).chain(wanted).collect(),
            recovery_signal: recovery.standby.is_none(),
            standby_signal: recovery.standby.is_some(),
        }
    }

    /// Tells a server where one of its files lies now.
    pub(super) fn locate(&mut self, name: &'static str, path: &str) {
        self.auto_conf.push(setting(&(name, path)));
    }

    /// Lets a server recover that has tablespaces within its data directory: it takes them for a
    /// damage otherwise, even if it was allowed to make them.
    pub(super) fn allow_in_place_tablespaces(&mut self) {
        let setting = setting(&("allow_in_place_tablespaces", "on"));
        self.auto_conf.push(setting);
    }
}

impl Recovery<'_> {
    fn settings(&self, version: ServerVersion) -> Vec<Setting> {
        if let Some(standby) = self.standby {
            return standby.settings(version, self.restore_command);
        }
        let mut settings = Vec::new();
        let mut set = |name, value: String| settings.push(Setting { name, value });
        set("restore_command", self.restore_command.to_owned());
        match self.timeline {
            Some(timeline) => set("recovery_target_timeline", timeline.to_string()),
            None if version >= NO_RECOVERY_CONF => {
                set("recovery_target_timeline", "current".to_owned());
            }
            // Before 12 it is what a server does when it is told nothing.
            None => {}
        }
        match self.target {
            RecoveryTarget::Latest => return settings,
            RecoveryTarget::Time(time) => set("recovery_target_time", time.setting()),
            RecoveryTarget::Lsn(lsn) => set("recovery_target_lsn", lsn.to_string()),
            RecoveryTarget::Xid(xid) => set("recovery_target_xid", xid.to_string()),
            RecoveryTarget::Name(name) => set("recovery_target_name", name.clone()),
            RecoveryTarget::Immediate => set("recovery_target", "immediate".to_owned()),
        }
        set("recovery_target_inclusive", self.inclusive.to_string());
        set("recovery_target_action", self.action.to_string());
        settings
    }
}

fn setting(&(name, value): &(&'static str, &str)) -> Setting {
    Setting { name, value: value.to_owned() }
}

/// The lines as a configuration file holds them.
pub fn to_conf(settings: &[Setting]) -> String {
    settings
        .iter()
        .map(|setting| format!("{} = {}\n", setting.name, quoted(&setting.value)))
        .collect()
}

/// A value between quotes, as `GUC_scanstr` in `guc-file.l` takes it apart again.
pub fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for character in value.chars() {
        match character {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// A word between quotes, for the shell that runs `restore_command`.
///
/// The server replaces `%` and a letter before the shell sees them, so a percent sign is doubled.
pub fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('%', "%%"))
}

/// The `restore_command` that asks this program for WAL.
///
/// It carries all that `get-wal` needs, so that the server's user needs no configuration file.
pub fn get_wal_command(
    program: &str,
    home: &str,
    server: &str,
    identity: Option<&str>,
    lease: Option<&LeaseId>,
) -> String {
    let identity = identity.map(|path| format!(" --identity {}", shell_word(path)));
    let lease = lease.map(|lease| format!(" --lease {lease}"));
    format!(
        "{} --home {} get-wal --partial{}{} {} \"%f\" \"%p\"",
        shell_word(program),
        shell_word(home),
        identity.unwrap_or_default(),
        lease.unwrap_or_default(),
        shell_word(server),
    )
}

/// The `restore_command` of a server that has all its WAL in `pg_wal`: there is no other.
/// 1 is what says so; a server will not start its recovery without a command.
pub const NO_ARCHIVE_COMMAND: &str = "exit 1";

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn version(num: u32) -> ServerVersion {
        ServerVersion::from_num(num)
    }

    fn recovery(target: &RecoveryTarget) -> Recovery<'_> {
        Recovery {
            target,
            inclusive: false,
            action: TargetAction::Promote,
            timeline: TimelineId::new(3),
            restore_command: "exit 1",
            standby: None,
        }
    }

    /// What `GUC_scanstr` makes of a quoted value.
    fn unquoted(text: &str) -> String {
        let inner = text.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
        assert!(!inner.contains('\n'), "the lexer takes no line end inside of a value");
        let mut value = String::new();
        let mut characters = inner.chars();
        while let Some(character) = characters.next() {
            match character {
                '\'' => assert_eq!(characters.next(), Some('\'')),
                '\\' => match characters.next().unwrap() {
                    'n' => {
                        value.push('\n');
                        continue;
                    }
                    'r' => {
                        value.push('\r');
                        continue;
                    }
                    other => {
                        assert_eq!(other, '\\');
                    }
                },
                _ => {}
            }
            value.push(character);
        }
        value
    }

    /// What a server runs: `%f`, `%p` and `%%` replaced.
    fn expanded(command: &str) -> String {
        let mut result = String::new();
        let mut characters = command.chars();
        while let Some(character) = characters.next() {
            match character {
                '%' => match characters.next().unwrap() {
                    'f' => result.push_str("000000010000000000000001"),
                    'p' => result.push_str("pg_wal/RECOVERYXLOG"),
                    other => {
                        assert_eq!(other, '%');
                        result.push('%');
                    }
                },
                other => result.push(other),
            }
        }
        result
    }

    /// The arguments that a real shell hands on.
    fn shell_arguments(command: &str) -> Vec<String> {
        let script = format!("set -- {command}\nprintf '%s\\0' \"$@\"");
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn newer_servers_read_the_target_last() {
        let lsn = RecoveryTarget::Lsn("0/16B3748".parse().unwrap());
        let settings = RecoverySettings::new(version(150_020), &recovery(&lsn));
        assert!(settings.recovery_signal);
        assert_eq!(settings.recovery_conf, None);
        insta::assert_snapshot!(to_conf(&settings.auto_conf), @r"
        archive_mode = 'off'
        synchronous_standby_names = ''
        recovery_target = ''
        recovery_target_lsn = ''
        recovery_target_name = ''
        recovery_target_time = ''
        recovery_target_xid = ''
        recovery_min_apply_delay = '0'
        recovery_end_command = ''
        archive_cleanup_command = ''
        primary_conninfo = ''
        primary_slot_name = ''
        restore_command = 'exit 1'
        recovery_target_timeline = '3'
        recovery_target_lsn = '0/16B3748'
        recovery_target_inclusive = 'false'
        recovery_target_action = 'promote'
        ");
    }

    #[test]
    fn older_servers_read_recovery_conf() {
        let target = RecoveryTarget::Immediate;
        let settings = RecoverySettings::new(version(110_022), &recovery(&target));
        assert!(!settings.recovery_signal);
        insta::assert_snapshot!(to_conf(&settings.recovery_conf.unwrap()), @r"
        restore_command = 'exit 1'
        recovery_target_timeline = '3'
        recovery_target = 'immediate'
        recovery_target_inclusive = 'false'
        recovery_target_action = 'promote'
        ");
        let names: Vec<&str> = settings.auto_conf.iter().map(|setting| setting.name).collect();
        assert_eq!(names, ["archive_mode", "synchronous_standby_names"]);
    }

    #[test]
    fn the_end_of_wal_is_no_target() {
        let target = RecoveryTarget::Latest;
        let mut wanted = recovery(&target);
        let names = |wanted: &Recovery<'_>, num| -> Vec<String> {
            wanted
                .settings(version(num))
                .into_iter()
                .map(|s| format!("{}={}", s.name, s.value))
                .collect()
        };
        let numbered = ["restore_command=exit 1", "recovery_target_timeline=3"];
        assert_eq!(names(&wanted, 180_000), numbered);
        wanted.timeline = None;
        assert_eq!(
            names(&wanted, 120_000),
            ["restore_command=exit 1", "recovery_target_timeline=current"]
        );
        assert_eq!(names(&wanted, 110_000), ["restore_command=exit 1"]);
    }

    proptest! {
        // Each case starts a shell.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_command_survives_server_and_shell(
            program in "/[ -~äß\n'\\\\%$`\"]{1,30}",
            home in "/[ -~äß\n'\\\\%$`\"]{0,30}",
            identity in prop::option::of("/[ -~äß\n'\\\\%$`\"]{0,30}"),
            lease in prop::option::of("[0-9a-f]{1,32}"),
        ) {
            let id = lease.as_ref().map(|lease| lease.parse().unwrap());
            let command =
                get_wal_command(&program, &home, "main", identity.as_deref(), id.as_ref());
            let conf = quoted(&command);
            let arguments = shell_arguments(&expanded(&unquoted(&conf)));
            let mut expected = vec![program, "--home".to_owned(), home];
            expected.extend(["get-wal", "--partial"].map(str::to_owned));
            expected.extend(identity.into_iter().flat_map(|path| ["--identity".to_owned(), path]));
            expected.extend(lease.into_iter().flat_map(|lease| ["--lease".to_owned(), lease]));
            let rest = ["main", "000000010000000000000001", "pg_wal/RECOVERYXLOG"];
            expected.extend(rest.map(str::to_owned));
            prop_assert_eq!(arguments, expected);
        }
    }

    proptest! {
        #[test]
        fn quoted_values_round_trip(value in "[^\0]*") {
            prop_assert_eq!(unquoted(&quoted(&value)), value);
        }
    }
}
