//! A backlog of WAL, held by a slot, received as fast as it goes: into a fresh store each time, by
//! a copy of that slot.

mod barman;
mod pg_receivewal;
mod pgbackrest;
mod stretch;
mod walrecv;

use std::path::Path;
use std::time::Duration;

use walrecv_tests::{Context, Result};

use self::stretch::{Stored, Stretch};
use super::super::bars::{self, Bar, Wanted};
use super::super::board::{Board, Column};
use super::super::pages::Page;
use super::super::{cost, machine};
use super::{Bench, receivers, tell};

const COLUMNS: &[Column] = &[
    Column { name: "wall s", decimals: 2 },
    Column { name: "MB/s", decimals: 0 },
    Column { name: "CPU s", decimals: 2 },
    Column { name: "CPU s/GB", decimals: 2 },
    Column { name: "server CPU s", decimals: 2 },
    Column { name: "RSS MiB", decimals: 1 },
    Column { name: "stored MB", decimals: 0 },
    Column { name: "not archived", decimals: 0 },
];

/// The slot of the run that is going on.
const SLOT: &str = "run";

/// A program that receives, or archives, all of a stretch.
trait Contender {
    fn name(&self) -> &str;

    /// Brings all of it into an empty directory.
    fn run(&self, stretch: &Stretch, slot: &str, place: &Path) -> Result<Run>;
}

/// What one run took.
struct Run {
    /// Until all is durable where it is kept.
    wall: Duration,
    cpu_seconds: f64,
    peak_mib: f64,
    stored: Stored,
    /// Segments that are durable, and not yet where they are kept for good.
    not_archived: Option<usize>,
}

/// Contenders, and what there is to say of those that are missing.
#[derive(Default)]
struct Field {
    contenders: Vec<Box<dyn Contender>>,
    notes: Vec<String>,
}

impl Field {
    fn add(&mut self, contender: impl Contender + 'static) {
        self.contenders.push(Box::new(contender));
    }

    fn note(&mut self, note: &str) {
        tell(&format!("backlog: {note}"));
        self.notes.push(note.to_owned());
    }
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Page> {
    let stretch = Stretch::prepare(bench)?;
    let mut field = Field::default();
    pg_receivewal::enter(&mut field, bench);
    walrecv::enter(&mut field)?;
    barman::enter(&mut field);
    pgbackrest::enter(&mut field);
    field.contenders.retain(|contender| bench.wants(contender.name()));

    let mut board = Board::new(COLUMNS);
    for round in 1..=bench.arguments.rounds {
        for contender in &field.contenders {
            bench.interrupt.check()?;
            let about = || format!("{} did not receive the backlog", contender.name());
            measure(contender.as_ref(), &stretch, &mut board, round).context(about)?;
        }
    }

    let mut page = bench.page("backlog", &stretch.cluster)?;
    page.line(format!(
        "{} segments, {:.0} MB of WAL.",
        stretch.segments.len(),
        megabytes(stretch.bytes)
    ));
    page.table(board.table());
    page.table(bars::table(&bars(), &board));
    for note in field.notes {
        page.line(note);
    }
    Ok(page)
}

fn measure(
    contender: &dyn Contender,
    stretch: &Stretch,
    board: &mut Board,
    round: u32,
) -> Result<()> {
    let place = receivers::directory()?;
    stretch.copy_slot(SLOT)?;
    // What an earlier run has left to be written is not for this one to wait for.
    rustix::fs::sync();
    let server = server_cpu(stretch)?;
    machine::use_memory(stretch.bytes);
    let run = contender.run(stretch, SLOT, place.path());
    let server = server_cpu(stretch)? - server;
    stretch.drop_slot(SLOT)?;
    let run = run?;
    stretch.demand(&run.stored)?;

    let (wall, gigabytes) = (run.wall.as_secs_f64(), megabytes(stretch.bytes) / 1000.0);
    tell(&format!(
        "backlog: round {round}: {}: {wall:.2} s, {:.2} s of CPU",
        contender.name(),
        run.cpu_seconds
    ));
    board.add(
        contender.name(),
        [
            Some(wall),
            Some(megabytes(stretch.bytes) / wall),
            Some(run.cpu_seconds),
            Some(run.cpu_seconds / gigabytes),
            Some(server),
            Some(run.peak_mib),
            Some(megabytes(run.stored.bytes)),
            run.not_archived.map(|count| count as f64),
        ],
    );
    Ok(())
}

/// Seconds of CPU that the server and all it has ever started have used.
fn server_cpu(stretch: &Stretch) -> Result<f64> {
    Ok(cost::cpu_seconds(&cost::tree(receivers::postmaster(&stretch.cluster)?)))
}

fn bars() -> Vec<Bar> {
    use Wanted::AtMost;
    let mut bars = Vec::new();
    for (ours, theirs, wall, cpu) in [
        (walrecv::RAW, pg_receivewal::RAW, 0.55, 0.75),
        (walrecv::RAW_UNCHECKED, pg_receivewal::RAW, 0.55, 0.55),
        (walrecv::ZSTD_1, barman::ZSTD, 0.35, 0.6),
        (walrecv::ZSTD_3, barman::ZSTD, 0.42, 0.8),
    ] {
        bars.push(Bar::ratio("wall s", ours, theirs, AtMost(wall)));
        bars.push(Bar::ratio("CPU s", ours, theirs, AtMost(cpu)));
    }
    for ours in [walrecv::ZSTD_1, walrecv::ZSTD_3] {
        bars.push(Bar::ratio("wall s", ours, pgbackrest::ZSTD, AtMost(0.6)));
    }
    for ours in [walrecv::RAW, walrecv::ZSTD_1, walrecv::ZSTD_3, walrecv::LZ4] {
        bars.push(Bar::absolute("RSS MiB", ours, AtMost(20.0)));
    }
    bars
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
