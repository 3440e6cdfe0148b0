//! Keeps one server's receiver going, whatever ends it, and begins anew when its settings change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::board::Board;
use super::herald::Herald;
use super::{changed, raised};
use crate::failure::{Failure, in_one_line};
use crate::hooks::{News, Notice};
use crate::receiver::{Backoff, Receiver, ReceiverOptions};
use crate::settings::ServerSettings;
use crate::storage::Home;

/// How long a receiver rests that was refused: nothing but the operator can mend that.
const REST: Duration = Duration::from_secs(30);

/// Receives until told to stop. Then all that was received is durable and acknowledged.
pub(super) async fn receive(
    mut settings: watch::Receiver<Arc<ServerSettings>>,
    home: Home,
    board: Board,
    herald: Herald,
    mut stop: watch::Receiver<bool>,
) {
    let options = ReceiverOptions { persistent: true, ..ReceiverOptions::default() };
    let mut lost = Backoff::default();
    loop {
        let current = Arc::clone(&settings.borrow_and_update());
        if !current.active {
            tokio::select! {
                () = changed(&mut settings) => continue,
                () = raised(&mut stop) => return,
            }
        }
        let (receiver, status) = Receiver::new((*current).clone(), &home, options);
        board.post(&current.name, status);
        let (end, ending) = watch::channel(false);
        // In a task of its own: even a panic ends only this receiver.
        let mut task = tokio::spawn(receiver.run(ending));
        let ended = loop {
            tokio::select! {
                ended = &mut task => break Some(ended),
                () = raised(&mut stop) => {
                    end.send_replace(true);
                    break Some((&mut task).await);
                }
                () = changed(&mut settings) => {
                    let other = !settings.borrow_and_update().receives_as(&current);
                    if other {
                        tracing::info!(server = %current.name, "receiving anew, with other settings");
                        end.send_replace(true);
                        let _ = (&mut task).await;
                        break None;
                    }
                }
            }
        };
        let pause = match ended {
            None => continue,
            Some(Ok(Ok(_))) => return,
            Some(Ok(Err(error))) => {
                herald.tell(&current, Notice::of(&current.name, News::ReceiverFailed, &error));
                let hint = error.hint().unwrap_or_default();
                let error = in_one_line(&error);
                tracing::error!(server = %current.name, error, hint, "WAL is not received");
                REST
            }
            Some(Err(error)) => {
                tracing::error!(server = %current.name, error = %error, "the receiver was lost");
                lost.pause()
            }
        };
        tokio::select! {
            () = raised(&mut stop) => return,
            // Perhaps that was what it lacked.
            () = changed(&mut settings) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
