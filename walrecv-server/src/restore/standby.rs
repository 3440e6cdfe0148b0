//! A restored server that goes on as a standby: of whom, and what it is told of its primary.
//!
//! Its `restore_command` asks for unfinished segments, too, as that of any recovery does. Tried with
//! servers of 10 to 18: a standby reads such a segment up to the zeros and streams it anew from its
//! first byte, over what was there. As long as it cannot stream, it asks every five seconds for the
//! same segment, and so follows what is received to the last record. Without unfinished segments it
//! would stay behind, and what the backup server received last would be lost with the primary.

use std::path::Path;

use pgwire_stream::{ConfigError, ConnectionOptions, ServerVersion, SlotName, TimelineId};
use serde::Serialize;

use super::error::RestoreError;
use super::owner::Owner;
use super::plan::{Request, WalDelivery};
use super::recovery::{NO_RECOVERY_CONF, Setting};
use super::target::{RecoveryTarget, TimelineChoice};
use crate::catalog::{HistoryStore, Position};
use crate::failure::{Class, Failure};
use crate::settings::ConnInfo;

/// What a standby's `restore_command` ends with. In standby mode an archive that does not answer
/// ends no recovery: the server asks again, and streams meanwhile. The exit codes by which `get-wal`
/// stops any other recovery would only end a standby, and its promotion, whenever the backup server
/// is away.
pub(super) const ASK_AGAIN: &str = " || exit 1";

/// What no configuration file shall hold.
const SECRETS: &[&str] =
    &["password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"];

/// What a walreceiver sets itself.
const OF_OUR_CONNECTION: &[&str] =
    &["dbname", "replication", "client_encoding", "fallback_application_name"];

/// Options that libpq learned lately, by the major version. A walreceiver refuses what its libpq
/// does not know.
const SINCE: &[(&str, u32)] = &[
    ("gssencmode", 12),
    ("tcp_user_timeout", 12),
    ("channel_binding", 13),
    ("ssl_min_protocol_version", 13),
    ("ssl_max_protocol_version", 13),
    ("sslcrldir", 14),
    ("sslsni", 14),
    ("load_balance_hosts", 16),
    ("require_auth", 16),
    ("sslcertmode", 16),
    ("gssdelegation", 17),
    ("sslnegotiation", 17),
    ("max_protocol_version", 18),
    ("min_protocol_version", 18),
    ("oauth_client_id", 18),
    ("oauth_issuer", 18),
    ("oauth_scope", 18),
    ("sslkeylogfile", 18),
];

/// From this version on libpq knows `target_session_attrs=primary`, and not only `read-write`.
const SESSION_ATTRS: ServerVersion = ServerVersion::from_num(140_000);

/// Options that name files which the standby must be able to read.
const FILES: &[&str] = &["passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl"];

/// What is asked for: the restored server shall be a standby.
#[derive(Clone, Debug, Default)]
pub struct StandbyRequest {
    /// How to reach its primary.
    pub primary: Primary,
    /// The slot that it streams from.
    pub slot: Option<SlotName>,
    /// The slot that the backup server streams from, which is not to be shared.
    pub our_slot: Option<SlotName>,
}

/// How the primary of a standby is reached.
#[derive(Clone, Debug, Default)]
pub enum Primary {
    /// Nobody knows.
    #[default]
    Unknown,
    /// As it was typed.
    Given(ConnInfo),
    /// As the backup server reaches it.
    Configured(ConnInfo),
}

/// Why there will be no standby.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// `--primary-conninfo` is not understood.
    #[error("`--primary-conninfo` is not understood")]
    Conninfo(#[source] ConfigError),
    /// Arguments are public.
    #[error(
        "a password in `--primary-conninfo` can be seen by every user of this machine, with `ps`"
    )]
    Password,
    /// Two receivers cannot share a slot.
    #[error("the backup server itself streams from slot `{slot}`")]
    OurSlot {
        /// The slot.
        slot: SlotName,
    },
    /// A standby has no target.
    #[error("a standby recovers all there is, and goes on: it has no target")]
    Target,
    /// A standby goes where its primary goes.
    #[error("a standby follows the latest timeline, and no other")]
    Timeline,
    /// No archive, and no primary.
    #[error("the standby would follow nobody: it is told of no primary, and of no archive")]
    Nobody,
}

impl Failure for StandbyError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Conninfo(_) => {
                    "write it as \"host=… user=…\" or \"postgresql://user@host:port\""
                }
                Self::Password => {
                    "put it into `~/.pgpass` (mode 0600) of the user that the server runs as, or \
                     into a file that `passfile=` names"
                }
                Self::OurSlot { .. } => {
                    "make another for the standby: SELECT \
                     pg_create_physical_replication_slot('standby1')"
                }
                Self::Target => {
                    "leave the target away, or restore without --standby-mode to stop there"
                }
                Self::Timeline => "leave `--target-tli` away",
                Self::Nobody => "name the primary with --primary-conninfo, or use get-wal",
            }
            .to_owned(),
        )
    }
}

/// What a standby is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standby {
    /// Where its primary is; `None` if it follows the archive alone.
    pub primary: Option<String>,
    /// `primary_conninfo`.
    pub conninfo: Option<String>,
    /// `primary_slot_name`.
    pub slot: Option<String>,
}

impl Standby {
    /// Decides what it is told, and adds what the operator should know.
    ///
    /// # Errors
    /// If it cannot be a standby, or only with a password in the wrong place.
    pub(super) fn plan(
        request: &Request,
        standby: &StandbyRequest,
        version: ServerVersion,
        owner: &Owner,
        notes: &mut Vec<String>,
    ) -> Result<Self, StandbyError> {
        if request.target != RecoveryTarget::Latest {
            return Err(StandbyError::Target);
        }
        if let Some(slot) =
            standby.slot.as_ref().filter(|slot| standby.our_slot.as_ref() == Some(slot))
        {
            return Err(StandbyError::OurSlot { slot: slot.clone() });
        }
        let options = standby.primary.options()?;
        let slot = standby.slot.as_ref().filter(|_| options.is_some()).map(ToString::to_string);
        match (&options, request.wal) {
            (None, WalDelivery::Copy) => return Err(StandbyError::Nobody),
            (None, WalDelivery::GetWal) => notes.push(
                "nobody knows how to reach the primary: the standby follows what is archived, and \
                 does not stream; --primary-conninfo tells it whom to follow"
                    .to_owned(),
            ),
            (Some(_), WalDelivery::Copy) if slot.is_none() => notes.push(
                "without get-wal, the primary must still have the WAL that follows what was \
                 copied when the standby starts"
                    .to_owned(),
            ),
            _ => {}
        }
        if let Some(slot) = &slot {
            notes.push(format!(
                "the standby streams from slot `{slot}`: if the primary does not have it yet, make \
                 it there with SELECT pg_create_physical_replication_slot('{slot}')"
            ));
        }
        if request.wal == WalDelivery::GetWal {
            notes.push(
                "leave `archive_mode = always` alone on the standby: it would archive segments that \
                 get-wal hands out unfinished as though they were complete"
                    .to_owned(),
            );
        }
        let primary = options.as_ref().map(whereabouts);
        let conninfo = options.map(|options| conninfo(options, version, owner, notes));
        Ok(Self { primary, conninfo, slot })
    }

    /// What is written, in the order of the file.
    pub(super) fn settings(&self, version: ServerVersion, restore_command: &str) -> Vec<Setting> {
        let mode = (version < NO_RECOVERY_CONF).then_some(("standby_mode", "on"));
        let told = [
            ("restore_command", Some(restore_command)),
            // A standby goes where its primary goes: the only recovery that may.
            ("recovery_target_timeline", Some("latest")),
            ("primary_conninfo", self.conninfo.as_deref()),
            ("primary_slot_name", self.slot.as_deref()),
        ];
        let told = told.into_iter().filter_map(|(name, value)| Some((name, value?)));
        mode.into_iter()
            .chain(told)
            .map(|(name, value)| Setting { name, value: value.to_owned() })
            .collect()
    }
}

impl Primary {
    /// The options that are handed on; `None` if nobody knows any.
    fn options(&self) -> Result<Option<ConnectionOptions>, StandbyError> {
        let (text, given) = match self {
            Self::Unknown => return Ok(None),
            Self::Given(text) => (text, true),
            Self::Configured(text) => (text, false),
        };
        let mut options: ConnectionOptions =
            text.as_str().parse().map_err(StandbyError::Conninfo)?;
        if given && SECRETS.iter().any(|keyword| options.get(keyword).is_some()) {
            return Err(StandbyError::Password);
        }
        for keyword in OF_OUR_CONNECTION {
            options.remove(keyword);
        }
        if !given {
            // By our own name, the standby would count as us in `synchronous_standby_names`.
            options.remove("application_name");
        }
        // To a standby, nothing is nobody.
        let says_something = options.keywords().any(|keyword| !SECRETS.contains(&keyword));
        Ok(says_something.then_some(options))
    }
}

/// The timeline on which a server that is told `latest` begins: it looks for the history of one
/// after the other until there is none. Where that is no descendant of the backup's, it would not
/// start, so that is what is planned, and refused.
///
/// # Errors
/// If another was asked for, or the histories cannot be read.
pub(super) fn timeline(
    histories: &HistoryStore,
    request: &Request,
    end: Position,
) -> Result<TimelineChoice, RestoreError> {
    if request.standby.is_none() {
        return Ok(request.timeline);
    }
    if request.timeline != TimelineChoice::Latest {
        return Err(StandbyError::Timeline.into());
    }
    let mut newest = end.timeline;
    while let Some(next) = TimelineId::new(newest.get().wrapping_add(1)) {
        if histories.load(next)?.is_none() {
            break;
        }
        newest = next;
    }
    Ok(TimelineChoice::Number(newest))
}

/// Where the options lead, for people.
fn whereabouts(options: &ConnectionOptions) -> String {
    let set = |keyword| options.get(keyword).filter(|value| !value.is_empty());
    let place = match (set("host").or(set("hostaddr")), set("service")) {
        (Some(host), _) => host.to_owned(),
        (None, Some(service)) => format!("service {service}"),
        (None, None) => "this machine".to_owned(),
    };
    match set("port") {
        Some(port) => format!("{place} port {port}"),
        None => place,
    }
}

/// `primary_conninfo`: what a walreceiver of this version understands, and no secret.
fn conninfo(
    mut options: ConnectionOptions,
    version: ServerVersion,
    owner: &Owner,
    notes: &mut Vec<String>,
) -> String {
    let place = format!(
        "put it into `~/.pgpass` of `{}` (mode 0600), or into a file that `passfile=` in \
         `primary_conninfo` names",
        owner.name
    );
    let is_set = |keyword| options.get(keyword).is_some();
    if is_set("password") {
        notes.push(format!("the password is not written into the configuration: {place}"));
    } else if !is_set("passfile") && !is_set("sslcert") {
        notes.push(format!("if the primary asks for a password, {place}"));
    }
    for keyword in SECRETS {
        options.remove(keyword);
    }
    for &(keyword, major) in SINCE {
        if version < ServerVersion::from_num(major * 10_000) && options.remove(keyword) {
            notes.push(format!(
                "`primary_conninfo` goes without `{keyword}`, which PostgreSQL {version} does not \
                 know yet"
            ));
        }
    }
    for keyword in FILES {
        let path = options.get(keyword).map(Path::new).filter(|path| path.is_absolute());
        if let Some(path) = path.filter(|path| !owner.can_read(path)) {
            notes.push(format!(
                "`{}` must be able to read `{}`, the `{keyword}` of `primary_conninfo`",
                owner.name,
                path.display()
            ));
        }
    }
    let attrs = options.get("target_session_attrs").unwrap_or("any");
    if version >= SESSION_ATTRS || matches!(attrs, "any" | "read-write") {
        return options.to_string();
    }
    let writes = attrs == "primary";
    options.remove("target_session_attrs");
    format!("{options}{}", if writes { " target_session_attrs=read-write" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::super::recovery::to_conf;
    use super::*;

    fn version(major: u32) -> ServerVersion {
        ServerVersion::from_num(major * 10_000 + 3)
    }

    fn written(primary: &Primary, major: u32) -> (String, Vec<String>) {
        let mut notes = Vec::new();
        let options = primary.options().unwrap().unwrap();
        (conninfo(options, version(major), &Owner::current(), &mut notes), notes)
    }

    fn configured(text: &str) -> Primary {
        Primary::Configured(ConnInfo::new(text))
    }

    fn given(text: &str) -> Primary {
        Primary::Given(ConnInfo::new(text))
    }

    #[test]
    fn no_password_is_ever_written() {
        for text in [
            r"host=db user=u password='it\'s =secret host=x' dbname=d sslpassword=secret",
            "postgresql://u:secret%20%27@db/d?sslpassword=secret",
            "postgres://u@db/d?password=secret&replication=true",
        ] {
            let (conninfo, notes) = written(&configured(text), 18);
            assert_eq!(conninfo, "host=db user=u", "{text}");
            assert!(notes.len() == 1 && notes[0].contains("is not written"), "{notes:?}");
            assert!(!format!("{:?}", configured(text)).contains("secret"));
            let error = given(text).options().err().unwrap();
            assert!(matches!(error, StandbyError::Password), "{error}");
            assert!(error.hint().unwrap().contains("passfile"));
        }
    }

    #[test]
    fn the_standby_is_not_taken_for_us() {
        let text = "host=db application_name=walrecv fallback_application_name=x";
        assert_eq!(written(&configured(text), 15).0, "host=db");
        assert_eq!(written(&given(text), 15).0, "host=db application_name=walrecv");
    }

    #[test]
    fn a_walreceiver_is_told_what_its_version_knows() {
        let text = "host=a,b port=1 target_session_attrs=primary channel_binding=require sslsni=1";
        let untold = |notes: &[String]| notes.iter().all(|note| note.contains("asks for"));
        let (conninfo, notes) = written(&configured(text), 12);
        assert_eq!(conninfo, "host=a,b port=1 target_session_attrs=read-write");
        assert!(notes[1].contains("channel_binding") && notes[2].contains("sslsni"), "{notes:?}");
        let (conninfo, notes) = written(&configured(text), 18);
        assert!(conninfo.contains("channel_binding=require") && untold(&notes), "{notes:?}");
        let (conninfo, _) = written(&configured("host=a target_session_attrs=standby"), 13);
        assert_eq!(conninfo, "host=a");
        let (_, notes) = written(&configured("host=a sslrootcert=/no/such/file"), 18);
        assert!(notes[1].contains("sslrootcert"), "{notes:?}");
        assert!(given("dbname=x").options().unwrap().is_none());
    }

    #[test]
    fn people_are_told_whom_it_follows() {
        let place = |text| whereabouts(&configured(text).options().unwrap().unwrap());
        assert_eq!(place("host=a,b port=1,2"), "a,b port 1,2");
        assert_eq!(place("postgresql://10.0.0.1/"), "10.0.0.1");
        assert_eq!(place("service=main"), "service main");
        assert_eq!(place("user=me"), "this machine");
    }

    #[test]
    fn each_version_is_told_in_its_own_way() {
        let standby = Standby {
            primary: Some("db".to_owned()),
            conninfo: Some("host=db user='it''s'".to_owned()),
            slot: Some("one".to_owned()),
        };
        insta::assert_snapshot!(to_conf(&standby.settings(version(11), "false")), @r"
        standby_mode = 'on'
        restore_command = 'false'
        recovery_target_timeline = 'latest'
        primary_conninfo = 'host=db user=''it''''s'''
        primary_slot_name = 'one'
        ");
        let alone = Standby { primary: None, conninfo: None, slot: None };
        insta::assert_snapshot!(to_conf(&alone.settings(version(15), "false")), @r"
        restore_command = 'false'
        recovery_target_timeline = 'latest'
        ");
    }
}
