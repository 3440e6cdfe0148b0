//! What `pg_replication_slots` tells of a slot, on a connection to a database. No privilege but
//! REPLICATION is needed for it.

use std::fmt;

use pgwire_stream::{Lsn, ReplicationClient, ServerVersion, SlotName};

/// A slot as its server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotView {
    /// Whether it is for logical decoding.
    pub(crate) logical: bool,
    /// From where on it keeps WAL.
    pub(crate) restart: Option<Lsn>,
    /// Who uses it.
    pub(crate) occupant: Option<Occupant>,
    /// What became of the WAL that it keeps (from 13 on).
    pub(crate) wal: Option<KeptWal>,
    /// How many bytes may still be written until the slot is in danger (from 13 on, where
    /// `max_slot_wal_keep_size` is set). Negative where it is.
    pub(crate) safe: Option<i64>,
    /// Why the server has given it up (from 17 on).
    pub(crate) invalidation: Option<String>,
}

/// What the server says of the WAL that a slot keeps: `wal_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptWal {
    /// It is there: `reserved`, or `extended` beyond `max_wal_size`.
    Kept,
    /// The next checkpoint may remove it.
    Endangered,
    /// It is gone, or no longer kept for this slot.
    Lost,
}

/// Who uses a slot, as far as the server tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupant {
    /// The process on the server.
    pub process: Option<u32>,
    /// What the other side calls itself.
    pub application: Option<String>,
    /// Where it is.
    pub address: Option<String>,
    /// Whether the slot is that session's alone, and goes with it.
    pub temporary: bool,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(f, "process {process}")?,
            None => f.write_str("another process")?,
        }
        let told = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        match (told(&self.application), told(&self.address)) {
            (Some(application), Some(address)) => write!(f, " (`{application}` at {address})"),
            (Some(application), None) => write!(f, " (`{application}`)"),
            (None, Some(address)) => write!(f, " (at {address})"),
            (None, None) => Ok(()),
        }
    }
}

impl SlotView {
    /// Whether the server has given the slot up.
    pub(crate) fn is_lost(&self) -> bool {
        self.wal == Some(KeptWal::Lost) || self.invalidation.is_some()
    }
}

/// Looks at a slot; `None` if there is none.
pub(crate) async fn view(
    client: &mut ReplicationClient,
    name: &SlotName,
) -> Result<Option<SlotView>, pgwire_stream::Error> {
    let answer = client.query(&query(client.server_version(), name)).await?;
    let Some(row) = answer.rows.first() else { return Ok(None) };
    let text = |column| row.text(column).map(str::to_owned);
    let is = |column| row.text(column) == Some("t");
    let occupant = is(2).then(|| Occupant {
        process: row.text(3).and_then(|pid| pid.parse().ok()),
        application: text(8),
        address: text(9),
        temporary: is(4),
    });
    Ok(Some(SlotView {
        logical: row.text(0) == Some("logical"),
        restart: row.text(1).and_then(|lsn| lsn.parse().ok()),
        occupant,
        wal: row.text(5).and_then(|status| match status {
            "reserved" | "extended" => Some(KeptWal::Kept),
            "unreserved" => Some(KeptWal::Endangered),
            "lost" => Some(KeptWal::Lost),
            _ => None,
        }),
        safe: row.text(6).and_then(|bytes| bytes.parse().ok()),
        invalidation: text(7),
    }))
}

fn query(version: ServerVersion, name: &SlotName) -> String {
    let since = |major, column| if version.major() >= major { column } else { "NULL" };
    let (status, safe) = (since(13, "s.wal_status"), since(13, "s.safe_wal_size"));
    let reason = since(17, "s.invalidation_reason");
    // A slot's name has no quotes in it.
    format!(
        "SELECT s.slot_type, s.restart_lsn, s.active, s.active_pid, s.temporary, {status}, \
         {safe}, {reason}, r.application_name, r.client_addr \
         FROM pg_catalog.pg_replication_slots AS s \
         LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid = s.active_pid \
         WHERE s.slot_name = '{name}'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_asked_for_where_the_server_has_them() {
        let name: SlotName = "walrecv".parse().unwrap();
        let asked = |number| query(ServerVersion::from_num(number), &name);
        assert!(!asked(12_00_22).contains("wal_status"));
        assert!(asked(13_00_00).contains("s.safe_wal_size, NULL"));
        assert!(asked(17_00_04).contains("invalidation_reason"));
        assert!(asked(10_00_00).ends_with("s.slot_name = 'walrecv'"));
    }

    #[test]
    fn an_occupant_is_named_as_far_as_it_is_known() {
        let mut occupant = Occupant::default();
        assert_eq!(occupant.to_string(), "another process");
        occupant.process = Some(7);
        occupant.application = Some(String::new());
        assert_eq!(occupant.to_string(), "process 7");
        occupant.address = Some("192.0.2.1".to_owned());
        assert_eq!(occupant.to_string(), "process 7 (at 192.0.2.1)");
        occupant.application = Some("pg_receivewal".to_owned());
        assert_eq!(occupant.to_string(), "process 7 (`pg_receivewal` at 192.0.2.1)");
    }
}
