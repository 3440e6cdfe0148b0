//! Barman, which keeps files as they are and copies them with rsync. What it restores is durable only
//! after a `sync`.

use std::path::Path;
use std::process::Command;

use walrecv_tests::{Result, program};

use super::{Contender, Subject};
use crate::bench::process::{Cost, Process};
use crate::bench::wal::receivers::SERVER;

pub(super) const NAME: &str = "Barman, files as they are";

pub(super) struct Barman(crate::bench::barman::Barman);

impl Barman {
    /// The one on this machine, if it has what it copies with.
    pub(super) fn find() -> Option<Self> {
        program::find_on_path("rsync")?;
        crate::bench::barman::Barman::find().map(Self)
    }
}

impl Contender for Barman {
    fn name(&self) -> &str {
        NAME
    }

    fn back_up(&self, subject: &Subject, place: &Path) -> Result<()> {
        let receiver = self.0.begin(subject, place)?;
        for arguments in [["backup", SERVER], ["archive-wal", SERVER]] {
            program::run(&mut self.0.command(place, &arguments))?;
        }
        receiver.stop().map(drop)
    }

    fn restore(&self, _subject: &Subject, place: &Path, into: &Path) -> Result<Cost> {
        let into = into.display().to_string();
        let restore = self.0.command(place, &["restore", SERVER, "latest", &into]);
        let script = format!("{} && sync -f '{into}'", program::command_line(&restore));
        Process::spawn(Command::new("sh").args(["-c", &script]), &place.join("log"))?.wait()
    }

    fn verify(&self, _subject: &Subject, place: &Path) -> Result<Vec<(&'static str, Cost)>> {
        let mut verify = self.0.command(place, &["verify-backup", SERVER, "latest"]);
        Ok(vec![(NAME, Process::spawn(&mut verify, &place.join("log"))?.wait()?)])
    }
}
