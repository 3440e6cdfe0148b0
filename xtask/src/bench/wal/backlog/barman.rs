//! Barman: `receive-wal` until the last segment is durable, then `archive-wal`. In production up to
//! a minute of waiting for `barman cron` lies between the two; here nothing does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use walrecv_tests::{Context, Failure, Result};

use super::{Contender, Field, Run, Stretch};
use crate::bench::process::Process;
use crate::postgres::peers;

pub(super) const ZSTD: &str = "Barman zstd";

/// The server's name in Barman's configuration.
const SERVER: &str = "main";

/// How often is looked whether the last segment is there.
const GLANCE: Duration = Duration::from_millis(10);

const PATIENCE: Duration = Duration::from_secs(600);

struct Barman {
    name: &'static str,
    compression: &'static str,
    program: PathBuf,
}

pub(super) fn enter(field: &mut Field) {
    let Some(program) = peers::barman() else {
        field.note("SKIPPED: Barman is not installed; `--peers` gets it.");
        return;
    };
    for (name, compression) in [("Barman raw", ""), (ZSTD, "compression = zstd\n")] {
        field.add(Barman { name, compression, program: program.clone() });
    }
}

impl Contender for Barman {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, stretch: &Stretch, slot: &str, place: &Path) -> Result<Run> {
        let home = place.join("home");
        fs::create_dir(&home).context(|| format!("cannot make {}", home.display()))?;
        let configuration = self.configure(stretch, slot, place, &home)?;
        let log = place.join("log");
        let barman = |command: &str| {
            let mut barman = Command::new(&self.program);
            barman.arg("-q").arg("-c").arg(&configuration).args([command, SERVER]);
            Process::spawn(&mut barman, &log)
        };

        let mut receiver = barman("receive-wal")?;
        let streaming = home.join(SERVER).join("streaming");
        let received = wait_for(&mut receiver, || streaming.join(stretch.last()).exists())?;
        // Without a file that is being written, the newest complete one would not be archived.
        wait_for(&mut receiver, || has_partial(&streaming))?;
        let receiving = receiver.stop()?;
        let archiving = barman("archive-wal")?.wait()?;
        Ok(Run {
            wall: received + archiving.wall,
            cpu_seconds: receiving.cpu_seconds + archiving.cpu_seconds,
            peak_mib: receiving.peak_mib.max(archiving.peak_mib),
            stored: stretch.stored(&home.join(SERVER).join("wals"))?,
            not_archived: Some(stretch.stored(&streaming)?.complete()),
        })
    }
}

impl Barman {
    fn configure(
        &self,
        stretch: &Stretch,
        slot: &str,
        place: &Path,
        home: &Path,
    ) -> Result<PathBuf> {
        let path = place.join("barman.conf");
        let user = user()?;
        let programs = stretch.cluster.installation().bindir.display();
        let text = format!(
            "[barman]\nbarman_home = {home}\nbarman_user = {user}\nlog_file = {log}\n\
             log_level = WARNING\n\n[{SERVER}]\ndescription = benchmark\nconninfo = {conninfo}\n\
             streaming_conninfo = {conninfo}\nstreaming_archiver = on\narchiver = off\n\
             slot_name = {slot}\nbackup_method = postgres\npath_prefix = {programs}\n{compression}",
            home = home.display(),
            log = place.join("barman.log").display(),
            conninfo = stretch.conninfo,
            compression = self.compression,
        );
        fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// Ourselves, by name: Barman runs as nobody else.
fn user() -> Result<String> {
    let name = walrecv_tests::program::run(Command::new("id").arg("-un"))?;
    Ok(name.trim().to_owned())
}

fn has_partial(streaming: &Path) -> bool {
    let Ok(files) = fs::read_dir(streaming) else { return false };
    files.flatten().any(|file| file.path().extension().is_some_and(|suffix| suffix == "partial"))
}

/// Returns when a file is there; how long the process has run by then.
fn wait_for(process: &mut Process, is_there: impl Fn() -> bool) -> Result<Duration> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        process.demand_running()?;
        if is_there() {
            return Ok(process.began().elapsed());
        }
        std::thread::sleep(GLANCE);
    }
    Err(Failure::new(format!("a file did not come in {PATIENCE:?}")))
}
