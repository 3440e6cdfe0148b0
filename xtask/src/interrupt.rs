//! Ctrl-C in the middle of something long: it ends at the next step, and cleans up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use walrecv_tests::{Context, Failure, Result};

/// Whether somebody asked us to end.
///
/// The programs that we have started share our terminal and get its signal too, so no step goes
/// on for long after it.
pub(crate) struct Interrupt {
    came: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP do not end the process.
    pub(crate) fn watch() -> Result<Self> {
        let about = || "cannot watch for signals".to_owned();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().context(about)?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _context = runtime.enter();
            (
                signal(SignalKind::interrupt()).context(about)?,
                signal(SignalKind::terminate()).context(about)?,
                signal(SignalKind::hangup()).context(about)?,
            )
        };
        let came = Arc::new(AtomicBool::new(false));
        let noticed = Arc::clone(&came);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            noticed.store(true, Ordering::Relaxed);
            eprintln!("\ninterrupted: cleaning up");
        });
        Ok(Self { came })
    }

    pub(crate) fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }

    /// A failure once it has come.
    pub(crate) fn check(&self) -> Result<()> {
        if self.came() { Err(Failure::new("interrupted")) } else { Ok(()) }
    }
}
