//! What SQL tells of a server in one question.

use std::time::{Duration, Instant, SystemTime};

use pgwire_stream::{Error, Lsn, PgTimestamp, ReplicationClient, ServerVersion};

use super::privileges::Privileges;

/// What a server tells of itself on a connection to a database.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFacts {
    /// Its version.
    pub version: ServerVersion,
    /// Whether it is a standby, or recovers from an archive.
    pub in_recovery: bool,
    /// How far its WAL goes; on a standby, how far it was replayed.
    pub current_lsn: Option<Lsn>,
    /// How its clock compares with ours.
    pub clock: Clock,
    /// How much WAL a slot may keep, as it was set (from 13 on).
    pub max_slot_wal_keep_size: Option<String>,
    /// Whether it makes the summaries that incremental backups need (from 17 on).
    pub summarize_wal: Option<bool>,
    /// Where its files lie; `None` where the role may not see that.
    pub data_directory: Option<String>,
    /// What our role may do.
    pub privileges: Privileges,
}

/// Two clocks side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// How many seconds the server's clock is ahead of ours.
    pub ahead: f64,
    /// How many seconds that may be wrong by: half of the time that the question took.
    pub uncertain: f64,
}

impl Clock {
    fn compare(theirs: PgTimestamp, asked: SystemTime, took: Duration) -> Self {
        let half = took.as_secs_f64() / 2.0;
        let ours = PgTimestamp::from(asked).as_micros() as f64 / 1e6 + half;
        Self { ahead: theirs.as_micros() as f64 / 1e6 - ours, uncertain: half }
    }
}

impl ServerFacts {
    /// Asks a server.
    ///
    /// # Errors
    /// What the server reports, or if the connection fails.
    pub async fn ask(client: &mut ReplicationClient) -> Result<Self, Error> {
        let version = client.server_version();
        let (asked, begin) = (SystemTime::now(), Instant::now());
        let answer = client.query(&query(version)).await?;
        let took = begin.elapsed();
        let text = |column| answer.parsed::<String>(column).ok().flatten();
        let theirs = PgTimestamp::from_unix_micros(answer.required("now")?);
        Ok(Self {
            version,
            in_recovery: text("in_recovery").as_deref() == Some("t"),
            current_lsn: text("current_lsn").and_then(|lsn| lsn.parse().ok()),
            clock: Clock::compare(theirs, asked, took),
            max_slot_wal_keep_size: text("max_slot_wal_keep_size"),
            summarize_wal: text("summarize_wal").map(|setting| setting == "on"),
            data_directory: text("data_directory"),
            privileges: Privileges::of(&answer),
        })
    }
}

fn query(version: ServerVersion) -> String {
    format!(
        "SELECT pg_catalog.pg_is_in_recovery() AS in_recovery, \
         CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
         ELSE pg_catalog.pg_current_wal_lsn() END AS current_lsn, \
         (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint AS now, \
         pg_catalog.current_setting('max_slot_wal_keep_size', true) AS max_slot_wal_keep_size, \
         pg_catalog.current_setting('summarize_wal', true) AS summarize_wal, \
         (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') \
         AS data_directory, {} \
         FROM pg_catalog.pg_roles AS role WHERE role.rolname = CURRENT_USER",
        Privileges::columns(version)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_middle_of_the_question() {
        let asked = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let theirs = PgTimestamp::from(asked + Duration::from_millis(3500));
        let clock = Clock::compare(theirs, asked, Duration::from_secs(1));
        assert!((clock.ahead - 3.0).abs() < 1e-3, "{clock:?}");
        assert!((clock.uncertain - 0.5).abs() < 1e-9, "{clock:?}");
    }
}
