//! Tells one server's webhook what went wrong, at the address that is configured at the time.

use std::sync::{Arc, Mutex, PoisonError};

use crate::hooks::{Notice, Webhook};
use crate::settings::{ServerSettings, WebhookUrl};

/// Shared by all that is done for the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Herald(Arc<Mutex<Option<(WebhookUrl, Webhook)>>>);

impl Herald {
    /// Tells it, some time soon; nobody, if no webhook is configured. To be called within a runtime.
    pub(super) fn tell(&self, settings: &ServerSettings, notice: Notice) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(url) = &settings.failure_webhook else {
            // What it was told before, it still tells.
            *known = None;
            return;
        };
        match &mut *known {
            Some((at, webhook)) if at == url => webhook.notify(notice),
            _ => {
                let webhook = Webhook::start(Some(url));
                webhook.notify(notice);
                *known = Some((url.clone(), webhook));
            }
        }
    }
}
