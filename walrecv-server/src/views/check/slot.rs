//! The replication slot, as its server shows it.

use std::time::Duration;

use pgwire_stream::{Feature, ReplicationClient};

use super::{Row, State};
use crate::peer::Peer;
use crate::receiver::{KeptWal, SlotView, view_slot};
use crate::settings::{CreateSlot, ServerSettings};
use crate::units::{roughly, size};

const SLOT: &str = "replication slot";
const WAL: &str = super::KEPT_BY_SLOT;

/// A slot, as far as the server tells.
enum Slot {
    Missing,
    /// It is there; whether anybody uses it, and whether it was given up, is not known.
    Present {
        empty: bool,
    },
    Seen(SlotView),
}

/// Whether the slot is as it should be; and what the server shows of it, where it does.
pub(super) async fn look(
    client: &mut ReplicationClient,
    database: Option<&mut ReplicationClient>,
    peer: &Peer,
    settings: &ServerSettings,
    received_before: bool,
) -> (Row, Option<SlotView>) {
    let name = &settings.slot_name;
    let found = match database {
        Some(database) => {
            let seen = view_slot(database, name).await;
            seen.map(|seen| seen.map_or(Slot::Missing, Slot::Seen))
        }
        None if client.server_version().supports(Feature::ReadSlot) => {
            client.read_slot(name).await.map(|slot| match slot {
                None => Slot::Missing,
                Some(slot) => Slot::Present { empty: slot.restart.is_none() },
            })
        }
        None => {
            let remark = "cannot be seen: that needs a connection to a database before \
                          PostgreSQL 15";
            return (Row::remark(SLOT, State::Warning, remark), None);
        }
    };
    match found {
        Ok(slot) => {
            let row = judge(&slot, settings, received_before);
            let seen = if let Slot::Seen(view) = slot { Some(view) } else { None };
            (row, seen)
        }
        Err(error) => {
            let error = peer.failed("read the slot of")(error);
            (Row::failure(SLOT, State::Failed, &error), None)
        }
    }
}

fn judge(slot: &Slot, settings: &ServerSettings, received_before: bool) -> Row {
    let name = &settings.slot_name;
    let auto = settings.create_slot == CreateSlot::Auto;
    let failed = |remark: String| Row::remark(SLOT, State::Failed, remark);
    let empty = || failed(format!("slot '{name}' not initialised: it keeps no WAL"));
    match slot {
        Slot::Missing if auto && !received_before => Row::remark(
            SLOT,
            State::Warning,
            format!("slot '{name}' is made when receiving begins"),
        ),
        Slot::Missing => {
            // An HA manager removes every slot that it does not know, at each failover at the latest.
            let dropped = if received_before {
                ". If Patroni or another HA manager runs the server, it has dropped it: name the \
                 slot under `slots` (as `physical`) or `ignore_slots` in Patroni's configuration"
            } else {
                ""
            };
            failed(format!(
                "slot '{name}' doesn't exist: `walrecv-server receive-wal {} --create-slot` makes \
                 it, and WAL may be missing{dropped}",
                settings.name
            ))
        }
        Slot::Present { empty: true } => empty(),
        Slot::Present { empty: false } => Row::ok(SLOT),
        Slot::Seen(view) if view.logical => failed(format!(
            "slot '{name}' is a logical one, and WAL needs a physical one: name another \
             (`slot_name`)"
        )),
        Slot::Seen(view) if view.is_lost() => {
            let reason = view.invalidation.as_deref().unwrap_or("max_slot_wal_keep_size");
            let remedy = if auto {
                "it is made anew when receiving begins again, unless WAL is missing"
            } else {
                "drop it and make it anew, while the server still has the WAL that follows"
            };
            failed(format!(
                "slot '{name}' is lost ({reason}): the server keeps no WAL for us; {remedy}"
            ))
        }
        Slot::Seen(view) if view.occupant.is_some() => Row::ok(SLOT),
        Slot::Seen(view) if view.restart.is_none() => empty(),
        Slot::Seen(_) => failed(format!("slot '{name}' not active: is `run` running?")),
    }
}

/// A slot that may be lost sooner than in so many seconds is worth a warning.
const SOON: f64 = 3600.0;

/// What became of the WAL that the slot keeps, and how long it will, if the server tells. `rate` is
/// how many bytes of WAL the server writes in a second.
pub(super) fn kept(view: &SlotView, rate: Option<f64>) -> Option<Row> {
    let row = match view.wal? {
        KeptWal::Kept => {
            let (state, left) = left(view.safe, rate);
            Row::advice(WAL, state, format!("it is there{left}"))
        }
        KeptWal::Endangered => Row::advice(
            WAL,
            State::Warning,
            "the next checkpoint may remove it: see that receiving catches up, or raise \
             `max_slot_wal_keep_size` on the server",
        ),
        KeptWal::Lost => Row::advice(WAL, State::Warning, "it is no longer kept for us"),
    };
    Some(row.measuring(view.safe))
}

/// How much may be written, if nothing is received, until the slot is lost.
fn left(safe: Option<i64>, rate: Option<f64>) -> (State, String) {
    let Some(bytes) = safe else {
        let told = "; the server keeps it without a limit (max_slot_wal_keep_size)";
        return (State::Ok, told.to_owned());
    };
    let bytes = u64::try_from(bytes).unwrap_or_default();
    let mut told = format!("; {} may be written before it is lost", size(bytes));
    let Some(rate) = rate.filter(|rate| *rate >= 1.0) else { return (State::Ok, told) };
    let seconds = bytes as f64 / rate;
    let words = roughly(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    told.push_str(&format!(
        ": at {} per second, that takes {words} while nothing is received",
        size(rate as u64)
    ));
    if seconds >= SOON {
        return (State::Ok, told);
    }
    told.push_str("; raise `max_slot_wal_keep_size` on the server");
    (State::Warning, told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::Occupant;
    use crate::settings::ConnInfo;

    fn settings(create_slot: CreateSlot) -> ServerSettings {
        let name = "main".parse().unwrap();
        let slot = "walrecv".parse().unwrap();
        ServerSettings { create_slot, ..ServerSettings::new(name, ConnInfo::new("host=x"), slot) }
    }

    fn seen(change: impl FnOnce(&mut SlotView)) -> Slot {
        let mut view = SlotView {
            logical: false,
            restart: "0/5000".parse().ok(),
            occupant: Some(Occupant::default()),
            wal: Some(KeptWal::Kept),
            safe: None,
            invalidation: None,
        };
        change(&mut view);
        Slot::Seen(view)
    }

    fn told(slot: &Slot) -> (State, String) {
        let row = judge(slot, &settings(CreateSlot::Auto), true);
        assert_eq!((row.name, row.advisory), (SLOT, false));
        (row.state, row.remark.unwrap_or_default())
    }

    #[test]
    fn each_state_of_a_slot_is_told_as_what_it_is() {
        assert_eq!(told(&seen(|_| ())).0, State::Ok);
        for (slot, words) in [
            (seen(|view| view.occupant = None), "not active"),
            (seen(|view| (view.occupant, view.restart) = (None, None)), "not initialised"),
            (seen(|view| view.logical = true), "logical"),
            (seen(|view| view.wal = Some(KeptWal::Lost)), "lost (max_slot_wal_keep_size)"),
            (seen(|view| view.invalidation = Some("idle_timeout".into())), "lost (idle_timeout)"),
            (Slot::Missing, "doesn't exist"),
            (Slot::Present { empty: true }, "not initialised"),
        ] {
            let (state, remark) = told(&slot);
            assert_eq!(state, State::Failed, "{remark}");
            assert!(remark.contains(words), "{remark}");
        }
        assert_eq!(told(&Slot::Present { empty: false }).0, State::Ok);
        let first = judge(&Slot::Missing, &settings(CreateSlot::Auto), false);
        assert_eq!(first.state, State::Warning);
        let by_hand = judge(&Slot::Missing, &settings(CreateSlot::Manual), false);
        assert_eq!(by_hand.state, State::Failed);
    }

    #[test]
    fn what_the_slot_keeps_is_advice() {
        let advice = |change: fn(&mut SlotView)| {
            let Slot::Seen(view) = seen(change) else { unreachable!() };
            kept(&view, None)
        };
        let row = advice(|view| view.safe = Some(4096)).unwrap();
        assert_eq!((row.state, row.advisory), (State::Ok, true));
        assert!(row.remark.unwrap().contains("4.0 KiB"));
        let row = advice(|view| view.wal = Some(KeptWal::Endangered)).unwrap();
        assert_eq!(row.state, State::Warning);
        assert_eq!(advice(|view| view.wal = None), None);
    }

    #[test]
    fn a_slot_that_could_soon_be_lost_is_worth_a_warning() {
        let told = |safe, rate| left(safe, rate);
        assert_eq!(told(None, Some(1000.0)).0, State::Ok);
        assert_eq!(told(Some(7_200_000), None).0, State::Ok);
        let (state, remark) = told(Some(7_200_000), Some(1000.0));
        assert_eq!(state, State::Ok);
        assert!(remark.contains("at 1000 B per second, that takes 2 hours"), "{remark}");
        assert_eq!(told(Some(60_000), Some(1000.0)).0, State::Warning);
        assert_eq!(told(Some(-5), Some(1000.0)).0, State::Warning);
    }

    #[test]
    fn who_drops_slots_is_told_where_one_was_used_before() {
        assert!(told(&Slot::Missing).1.contains("ignore_slots"));
        let first = judge(&Slot::Missing, &settings(CreateSlot::Manual), false);
        assert!(!first.remark.unwrap().contains("Patroni"));
    }
}
