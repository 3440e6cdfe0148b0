//! What the spectator sees: numbered steps with the time they took.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use walrecv_tests::account::Account;
use walrecv_tests::{Context, Result};

use crate::interrupt::Interrupt;

/// The stage.
pub(super) struct Scene<'i> {
    interrupt: &'i Interrupt,
    begin: Instant,
    step: u32,
}

impl<'i> Scene<'i> {
    pub(super) fn begin(interrupt: &'i Interrupt) -> Self {
        Self { interrupt, begin: Instant::now(), step: 0 }
    }

    /// Announces the next step, unless we were asked to end.
    pub(super) fn next(&mut self, what: &str) -> Result<()> {
        self.interrupt.check()?;
        self.step += 1;
        println!("[{:5.1} s] {}. {what}", self.begin.elapsed().as_secs_f64(), self.step);
        Ok(())
    }

    /// A remark about the present step.
    pub(super) fn tell(&self, what: &str) {
        println!("           {what}");
    }

    /// Lets time pass, unless we are asked to end.
    pub(super) fn wait(&self, duration: Duration) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            self.interrupt.check()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A directory that a restored cluster's account may write into.
    pub(super) fn directory(&self, account: &Account) -> Result<TempDir> {
        let directory = tempfile::Builder::new()
            .prefix("walrecv-restored-")
            .tempdir()
            .context(|| "cannot make a temporary directory".to_owned())?;
        account.owns(directory.path())?;
        Ok(directory)
    }
}
