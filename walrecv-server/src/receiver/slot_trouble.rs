//! What a server's refusal means for the slot: who uses it, or what became of it.

use std::time::Duration;

use pgwire_stream::{Config, Error, ReplicationClient, SlotName};

use super::beside::DATABASE;
use super::slot_view::{Occupant, SlotView, view};
use super::{Receiver, ReceiverError};

/// How long it may take to look closer: the receiver is to come back soon.
const PATIENCE: Duration = Duration::from_secs(3);

impl Receiver {
    /// The same error, or what is behind it if that is the slot.
    pub(super) async fn understood(&self, error: ReceiverError) -> ReceiverError {
        let ReceiverError::Server { action, source } = error else { return error };
        if !may_be_the_slot(&source) {
            return ReceiverError::Server { action, source };
        }
        let name = &self.settings.slot_name;
        let view = match &self.reached {
            Some(reached) => look_closer(&reached.config, name).await,
            None => None,
        };
        explain(action, source, name, view, self.slot_keeps_nothing)
    }
}

/// SQLSTATEs that a slot can be the reason of; the server's words may be in any language.
fn may_be_the_slot(source: &Error) -> bool {
    // In use; logical, where the slot was read; logical or given up, where it was to be used.
    source.sql_state().is_some_and(|state| matches!(state.as_str(), "55006" | "0A000" | "55000"))
}

/// What SQL tells of the slot, if there is a connection for that.
async fn look_closer(config: &Config, name: &SlotName) -> Option<SlotView> {
    let mut config = config.clone();
    config.dbname.get_or_insert_with(|| DATABASE.to_owned());
    let looking = async {
        let mut client = ReplicationClient::connect_database(&config).await?;
        let view = view(&mut client, name).await?;
        client.close().await?;
        Ok::<_, Error>(view)
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(Ok(view)) => view,
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "cannot look closer at the slot");
            None
        }
        Err(_) => None,
    }
}

fn explain(
    action: &'static str,
    source: Error,
    name: &SlotName,
    view: Option<SlotView>,
    kept_nothing: bool,
) -> ReceiverError {
    let slot = name.clone();
    let code = source.sql_state();
    let code = code.as_ref().map_or("", |code| code.as_str());
    if code == "55006" {
        let seen = view.and_then(|view| view.occupant);
        let by = seen.unwrap_or_else(|| Occupant {
            process: source.server_error().and_then(|error| process_in(&error.message, name)),
            ..Occupant::default()
        });
        return ReceiverError::SlotInUse { slot, by: Box::new(by), source };
    }
    let reading = action == super::slot::READ;
    match view {
        Some(view) if view.logical => ReceiverError::SlotLogical { slot },
        Some(view) if view.is_lost() => {
            ReceiverError::SlotLost { slot, reason: view.invalidation, source }
        }
        // Before anything is streamed, nothing else is refused with a reason.
        None if code == "55000" && (kept_nothing || has_detail(&source)) => {
            ReceiverError::SlotLost { slot, reason: None, source }
        }
        // Only a logical slot cannot be read.
        None if code == "0A000" && reading => ReceiverError::SlotLogical { slot },
        _ => ReceiverError::Server { action, source },
    }
}

fn has_detail(source: &Error) -> bool {
    source.server_error().is_some_and(|error| error.detail.is_some())
}

/// The process that "replication slot "x" is active for PID 7" names, in whatever language: the
/// last number in it that is no part of the slot's name.
fn process_in(message: &str, name: &SlotName) -> Option<u32> {
    let message = message.replace(name.as_str(), "");
    let numbers = message.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).next_back()
}

#[cfg(test)]
mod tests {
    use pgwire_stream::ServerError;

    use super::*;

    const START: &str = "start receiving WAL";

    fn says(code: &str, message: &str) -> Error {
        ServerError::new("ERROR", code, message).into()
    }

    fn name() -> SlotName {
        "walrecv_2".parse().unwrap()
    }

    fn seen(change: impl FnOnce(&mut SlotView)) -> Option<SlotView> {
        let mut view = SlotView {
            logical: false,
            restart: None,
            occupant: None,
            wal: None,
            safe: None,
            invalidation: None,
        };
        change(&mut view);
        Some(view)
    }

    #[test]
    fn whoever_uses_the_slot_is_named_by_sql_or_else_by_the_message() {
        for message in [
            "replication slot \"walrecv_2\" is active for PID 4711",
            "Replikationsslot »walrecv_2« ist aktiv für PID 4711",
        ] {
            let error = explain(START, says("55006", message), &name(), None, false);
            let ReceiverError::SlotInUse { by, .. } = &error else { panic!("{error:?}") };
            assert_eq!(by.process, Some(4711));
            assert!(error.is_slot_in_use());
        }
        let by = Occupant { process: Some(9), temporary: true, ..Occupant::default() };
        let view = seen(|view| view.occupant = Some(by.clone()));
        let error = explain(START, says("55006", "in use"), &name(), view, false);
        assert!(matches!(error, ReceiverError::SlotInUse { by: found, .. } if *found == by));
    }

    #[test]
    fn a_logical_slot_is_recognised_with_and_without_sql() {
        let logical = seen(|view| view.logical = true);
        for (action, code, view) in
            [(super::super::slot::READ, "0A000", None), (START, "55000", logical)]
        {
            let error = explain(action, says(code, "x"), &name(), view, false);
            assert!(matches!(error, ReceiverError::SlotLogical { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_slot_that_was_given_up_is_recognised_with_and_without_sql() {
        let lost = seen(|view| view.invalidation = Some("wal_removed".to_owned()));
        let error = explain(START, says("55000", "x"), &name(), lost, false);
        assert!(error.to_string().contains("wal_removed"), "{error}");
        let mut detailed = ServerError::new("ERROR", "55000", "x");
        detailed.detail = Some("invalidated due to \"idle_timeout\"".to_owned());
        for (said, kept_nothing) in [(says("55000", "x"), true), (detailed.into(), false)] {
            let error = explain(START, said, &name(), None, kept_nothing);
            assert!(matches!(error, ReceiverError::SlotLost { reason: None, .. }), "{error:?}");
        }
    }

    #[test]
    fn what_is_not_about_the_slot_stays_as_it_is() {
        for view in [None, seen(|_| ())] {
            let error = explain(START, says("55000", "x"), &name(), view, false);
            assert!(matches!(error, ReceiverError::Server { action: START, .. }), "{error:?}");
        }
        assert!(!may_be_the_slot(&says("58P01", "x")));
    }
}
