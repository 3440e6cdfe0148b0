//! Keeps one server's receiver going, whatever ends it, and begins anew when its settings change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::board::Board;
use super::herald::Herald;
use super::{changed, raised};
use crate::failure::{Failure, in_one_line};
use crate::hooks::{News, Notice};
use crate::receiver::{Backoff, Crew, Receiver, ReceiverOptions, Status};
use crate::settings::ServerSettings;
use crate::storage::Home;

/// How long a receiver rests that was refused: nothing but the operator can mend that, on the server or
/// with a command, and then WAL is to come soon.
const REST: Duration = Duration::from_secs(30);

/// How often others are told that nothing has changed.
const REMIND: Duration = Duration::from_secs(3600);

/// What others were told of a receiver that is refused again and again, and when.
#[derive(Default)]
struct Told(Option<(String, Instant)>);

impl Told {
    /// Says whether this is news, and they are told.
    fn is_news(&mut self, error: &str) -> bool {
        let is_old = |(told, at): &(String, Instant)| told == error && at.elapsed() < REMIND;
        let news = !self.0.as_ref().is_some_and(is_old);
        if news {
            self.0 = Some((error.to_owned(), Instant::now()));
        }
        news
    }
}

/// Receives until told to stop. Then all that was received is durable and acknowledged.
pub(super) async fn receive(
    mut settings: watch::Receiver<Arc<ServerSettings>>,
    home: Home,
    crew: Arc<Crew>,
    board: Board,
    herald: Herald,
    mut stop: watch::Receiver<bool>,
) {
    let options = ReceiverOptions { persistent: true, ..ReceiverOptions::default() };
    let mut lost = Backoff::default();
    let mut told = Told::default();
    let mut before: Option<Status> = None;
    loop {
        let current = Arc::clone(&settings.borrow_and_update());
        if !current.active {
            tokio::select! {
                () = changed(&mut settings) => continue,
                () = raised(&mut stop) => return,
            }
        }
        let (receiver, status) = Receiver::new((*current).clone(), &home, options);
        let mut receiver = receiver.among(&crew);
        let heard_at = before.as_ref().and_then(|before| before.heard_at);
        if let Some(before) = &before {
            receiver = receiver.after(before);
        }
        board.post(&current.name, status.clone());
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
        let last = status.borrow().clone();
        if last.heard_at > heard_at {
            // It has worked since.
            told = Told::default();
        }
        before = Some(last);
        let pause = match ended {
            None => continue,
            Some(Ok(Ok(_))) => return,
            Some(Ok(Err(error))) => {
                let notice = Notice::of(&current.name, News::ReceiverFailed, &error);
                let hint = error.hint_about(current.name.as_str()).unwrap_or_default();
                let error = in_one_line(&error);
                tracing::error!(server = %current.name, error, hint, "WAL is not received");
                if told.is_news(&error) {
                    herald.tell(&current, notice);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::State;
    use crate::settings::ConnInfo;
    use crate::storage::Access;

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_again_and_again_is_told_now_and_then() {
        let (begin, mut told) = (Instant::now(), Told::default());
        let mut news = Vec::new();
        while begin.elapsed() <= REMIND {
            if told.is_news("another cluster") {
                news.push(begin.elapsed().as_secs());
            }
            tokio::time::sleep(REST).await;
        }
        assert_eq!(news, [0, 3600]);
        assert!(told.is_news("the slot is lost"), "something else");
    }

    #[test]
    fn what_went_wrong_is_seen_until_it_goes_well() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), Access::Private);
        let conninfo = ConnInfo::new("host=x");
        let settings =
            ServerSettings::new("main".parse().unwrap(), conninfo, "walrecv".parse().unwrap());
        let mut before = Status::new(settings.name.clone(), settings.slot_name.clone());
        before.state = State::Refused;
        before.last_error = Some("another cluster".to_owned());
        before.heard_at = Some(std::time::SystemTime::now().into());
        let (receiver, status) = Receiver::new(settings, &home, ReceiverOptions::default());
        let _receiver = receiver.after(&before);
        let status = status.borrow();
        assert_eq!(status.state, State::Connecting);
        assert_eq!((&status.last_error, status.heard_at), (&before.last_error, before.heard_at));
    }
}
