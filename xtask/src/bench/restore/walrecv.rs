//! The product: every file is compared with the manifest while it is written.

use std::path::Path;

use walrecv_tests::Result;
use walrecv_tests::walrecv::write_private;

use super::super::wal::receivers::{SERVER, section};
use super::{Contender, Subject};
use crate::bench::process::{Cost, Process};

pub(super) const NAME: &str = "walrecv-server zstd 1";

/// Verified by the checksums of what is stored alone.
pub(super) const AS_STORED: &str = "walrecv-server zstd 1, as stored";

pub(super) struct Product;

impl Product {
    fn run(&self, place: &Path, arguments: &[&str]) -> Result<Cost> {
        let mut command = walrecv_tests::walrecv::bare_command()?;
        command.arg("--config").arg(place.join("walrecv.toml")).args(arguments);
        Process::spawn(&mut command, &place.join("log"))?.wait()
    }
}

impl Contender for Product {
    fn name(&self) -> &str {
        NAME
    }

    fn back_up(&self, subject: &Subject, place: &Path) -> Result<()> {
        let path = place.join("walrecv.toml");
        if path.exists() {
            return self.run(place, &["backup", SERVER, "--incremental", "latest"]).map(drop);
        }
        subject.cluster.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active",
        )?;
        let text = format!(
            "home = \"{}\"\n{}",
            place.join("home").display(),
            section(SERVER, &subject.conninfo, "walrecv", &["immediate_checkpoint = true"])
                .replace("create_slot = \"manual\"", "create_slot = \"auto\"")
        );
        write_private(&path, &text)?;
        self.run(place, &["backup", SERVER]).map(drop)
    }

    fn restore(&self, subject: &Subject, place: &Path, into: &Path) -> Result<Cost> {
        let into = into.display().to_string();
        let mut arguments = vec!["restore", SERVER, "latest", &into];
        // Its WAL is hardly more than a segment, for everybody.
        arguments.extend(["--target-immediate", "--no-get-wal"]);
        if rustix::process::geteuid().is_root() {
            arguments.extend(["--owner", &subject.cluster.account().name]);
        }
        self.run(place, &arguments)
    }

    fn verify(&self, _subject: &Subject, place: &Path) -> Result<Vec<(&'static str, Cost)>> {
        let verify = ["verify-backup", SERVER, "latest"];
        let stored = [&verify[..], &["--stored"]].concat();
        Ok(vec![(NAME, self.run(place, &verify)?), (AS_STORED, self.run(place, &stored)?)])
    }
}
