//! The replication slot, as its server shows it.

use pgwire_stream::{Feature, ReplicationClient};

use super::{Row, State};
use crate::peer::Peer;
use crate::receiver::{KeptWal, SlotView, view_slot};
use crate::settings::{CreateSlot, ServerSettings};

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

/// Whether the slot is as it should be, and what it keeps.
pub(super) async fn rows(
    client: &mut ReplicationClient,
    database: Option<&mut ReplicationClient>,
    peer: &Peer,
    settings: &ServerSettings,
    received_before: bool,
) -> Vec<Row> {
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
            return vec![Row::remark(SLOT, State::Warning, remark)];
        }
    };
    match found {
        Ok(slot) => judge(&slot, settings, received_before),
        Err(error) => {
            let error = peer.failed("read the slot of")(error);
            vec![Row::failure(SLOT, State::Failed, &error)]
        }
    }
}

fn judge(slot: &Slot, settings: &ServerSettings, received_before: bool) -> Vec<Row> {
    let name = &settings.slot_name;
    let auto = settings.create_slot == CreateSlot::Auto;
    let failed = |remark: String| Row::remark(SLOT, State::Failed, remark);
    let empty = || failed(format!("slot '{name}' not initialised: it keeps no WAL"));
    let row = match slot {
        Slot::Missing if auto && !received_before => Row::remark(
            SLOT,
            State::Warning,
            format!("slot '{name}' is made when receiving begins"),
        ),
        Slot::Missing => failed(format!(
            "slot '{name}' doesn't exist: `walrecv-server receive-wal {} --create-slot` makes it, \
             and WAL may be missing",
            settings.name
        )),
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
    };
    let mut rows = vec![row];
    if let Slot::Seen(view) = slot {
        rows.extend(kept(view));
    }
    rows
}

/// What became of the WAL that the slot keeps, if the server tells.
fn kept(view: &SlotView) -> Option<Row> {
    let left = match view.safe {
        Some(bytes) if bytes > 0 => format!("; {bytes} bytes may be written before it is lost"),
        Some(_) => String::new(),
        None => "; the server keeps it without a limit (max_slot_wal_keep_size)".to_owned(),
    };
    let row = match view.wal? {
        KeptWal::Kept => Row::advice(WAL, State::Ok, format!("it is there{left}")),
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
        let row = judge(slot, &settings(CreateSlot::Auto), true).remove(0);
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
        let first = judge(&Slot::Missing, &settings(CreateSlot::Auto), false).remove(0);
        assert_eq!(first.state, State::Warning);
        let by_hand = judge(&Slot::Missing, &settings(CreateSlot::Manual), false).remove(0);
        assert_eq!(by_hand.state, State::Failed);
    }

    #[test]
    fn what_the_slot_keeps_is_advice() {
        let advice = |change: fn(&mut SlotView)| {
            let Slot::Seen(view) = seen(change) else { unreachable!() };
            kept(&view)
        };
        let row = advice(|view| view.safe = Some(4096)).unwrap();
        assert_eq!((row.state, row.advisory), (State::Ok, true));
        assert!(row.remark.unwrap().contains("4096 bytes"));
        let row = advice(|view| view.wal = Some(KeptWal::Endangered)).unwrap();
        assert_eq!(row.state, State::Warning);
        assert_eq!(advice(|view| view.wal = None), None);
    }
}
