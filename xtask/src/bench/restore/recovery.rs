//! WAL for a recovering server: one segment, and a whole recovery, beside `cp`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use walrecv_tests::walrecv::write_private;
use walrecv_tests::{Cluster, Context, Failure, Installation, Result, program};

use super::super::bars::{Bar, Wanted};
use super::super::board::{Board, Column};
use super::super::wal::receivers::{self, SERVER, section};
use super::Subject;
use crate::bench::process::Process;

const CP: &str = "cp";
const PLAIN: &str = "get-wal, plain";
const ZSTD: &str = "get-wal, zstd 1";
const AHEAD: &str = "get-wal, zstd 1, made ready";

const SINGLES: &[Column] = &[Column { name: "ms", decimals: 1 }];
const RECOVERIES: &[Column] = &[Column { name: "wall s", decimals: 2 }];

/// How often one segment is asked for.
const CALLS: usize = 40;

/// A pause in which the next segments are made ready, as a replay makes it.
const REPLAY: Duration = Duration::from_millis(100);

/// The same WAL in a store of plain segments, in one of compressed ones, and in a flat directory.
pub(super) struct Archives {
    place: tempfile::TempDir,
    segments: Vec<String>,
}

pub(super) fn bars() -> Vec<Bar> {
    use Wanted::AtMost;
    vec![
        Bar::ratio("ms", PLAIN, CP, AtMost(1.6)),
        Bar::ratio("ms", ZSTD, CP, AtMost(2.5)),
        Bar::ratio("ms", AHEAD, CP, AtMost(1.2)),
    ]
}

pub(super) fn recovery_bars() -> Vec<Bar> {
    vec![Bar::ratio("wall s", AHEAD, CP, Wanted::AtMost(1.15))]
}

impl Archives {
    /// Has the server write WAL behind a backup, and receives it.
    pub(super) fn prepare(subject: &Subject, segments: usize) -> Result<Self> {
        let place = receivers::directory()?;
        let archives = Self { place, segments: Vec::new() };
        for compression in ["none", "zstd"] {
            archives.configure(subject, compression)?;
            archives.run(compression, &["backup", SERVER])?;
        }
        let begin = subject.cluster.value("SELECT pg_current_wal_lsn()")?;
        let enough = format!(
            "SELECT pg_current_wal_lsn() - '{begin}'::pg_lsn > {segments} * 16 * 1024 * 1024::bigint"
        );
        while subject.cluster.value(&enough)? != "t" {
            subject.cluster.execute("UPDATE pgbench_accounts SET abalance = abalance + 1")?;
        }
        subject.cluster.execute("SELECT pg_switch_wal()")?;
        let end = subject.cluster.value("SELECT pg_current_wal_lsn()")?;
        for compression in ["none", "zstd"] {
            archives.run(compression, &["receive-wal", SERVER, "--endpos", &end])?;
        }
        archives.lay_out(segments)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn configure(&self, subject: &Subject, compression: &str) -> Result<()> {
        let settings =
            [&format!("compression = \"{compression}\"")[..], "immediate_checkpoint = true"];
        let text = format!(
            "home = \"{}\"\n{}",
            self.path(compression).display(),
            section(SERVER, &subject.conninfo, &format!("walrecv_{compression}"), &settings)
                .replace("create_slot = \"manual\"", "create_slot = \"auto\"")
        );
        let path = self.path(&format!("{compression}.toml"));
        write_private(&path, &text)
    }

    fn run(&self, compression: &str, arguments: &[&str]) -> Result<()> {
        let mut command = walrecv_tests::walrecv::bare_command()?;
        command.arg("--config").arg(self.path(&format!("{compression}.toml"))).args(arguments);
        Process::spawn(&mut command, &self.path("log"))?.wait().map(drop)
    }

    /// Gives every segment a second name in one directory, and lets the server's account read all.
    fn lay_out(mut self, wanted: usize) -> Result<Self> {
        let flat = self.path("flat");
        fs::create_dir(&flat).context(|| format!("cannot make {}", flat.display()))?;
        let main = self.path("none").join(SERVER);
        let mut directories = vec![main.join("streaming")];
        let wals = main.join("wals");
        let about = || format!("cannot read {}", wals.display());
        directories.extend(fs::read_dir(&wals).context(about)?.flatten().map(|entry| entry.path()));
        for file in directories.iter().filter_map(|path| fs::read_dir(path).ok()).flatten() {
            let path = file.context(about)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.len() == 24 {
                fs::hard_link(&path, flat.join(name)).context(about)?;
                // The two stores begin and end where they do.
                let folder = self.path("zstd").join(SERVER).join("wals").join(name.split_at(16).0);
                if folder.join(format!("{name}.zst")).exists() {
                    self.segments.push(name.to_owned());
                }
            }
        }
        self.segments.sort();
        if self.segments.len() + 2 < wanted {
            return Err(Failure::new(format!("{} segments came", self.segments.len())));
        }
        // Not the configurations: there are passwords in them.
        let place = self.place.path();
        program::run(Command::new("chmod").arg("a+rX").arg(place))?;
        let read = ["flat", "none", "zstd"].map(|name| place.join(name));
        program::run(Command::new("chmod").args(["-R", "a+rX"]).args(read))?;
        Ok(self)
    }

    /// One segment after the other, by everybody in turn.
    pub(super) fn singles(&self) -> Result<Board> {
        let mut board = Board::new(SINGLES);
        let into = self.path("pg_wal");
        fs::create_dir(&into).context(|| format!("cannot make {}", into.display()))?;
        let destination = into.join("RECOVERYXLOG");
        for segment in self.segments.iter().take(CALLS) {
            let mut cp = Command::new("cp");
            cp.arg(self.path("flat").join(segment)).arg(&destination);
            board.add(CP, [Some(time(&mut cp)?)]);
            for (name, compression) in [(PLAIN, "none"), (ZSTD, "zstd")] {
                let mut get = self.get_wal(compression, segment, &destination)?;
                board.add(name, [Some(time(get.args(["--prefetch", "0"]))?)]);
            }
        }
        for (call, segment) in self.segments.iter().take(CALLS).enumerate() {
            let elapsed = time(&mut self.get_wal("zstd", segment, &destination)?)?;
            // Nobody can have made the first ready.
            if call > 0 {
                board.add(AHEAD, [Some(elapsed)]);
            }
            std::thread::sleep(REPLAY);
        }
        Ok(board)
    }

    fn get_wal(&self, compression: &str, segment: &str, destination: &Path) -> Result<Command> {
        let mut command = walrecv_tests::walrecv::bare_command()?;
        command.arg("--home").arg(self.path(compression));
        command.args(["get-wal", SERVER, segment]).arg(destination);
        Ok(command)
    }

    /// Whole recoveries: from the start of the server until it is a primary.
    pub(super) fn recoveries(
        &self,
        subject: &Subject,
        installation: &Installation,
        rounds: u32,
    ) -> Result<Board> {
        let mut board = Board::new(RECOVERIES);
        for round in 1..=rounds {
            for name in [CP, AHEAD] {
                let target = receivers::directory()?;
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(target.path(), mode).context(|| "permissions".to_owned())?;
                let data = target.path().join("data");
                let into = data.display().to_string();
                let mut arguments = vec!["restore", SERVER, "latest", &into];
                if rustix::process::geteuid().is_root() {
                    arguments.extend(["--owner", &subject.cluster.account().name]);
                }
                self.run("zstd", &arguments)?;
                if name == CP {
                    let settings = data.join("postgresql.auto.conf");
                    let about = || format!("cannot write {}", settings.display());
                    let mut text = fs::read_to_string(&settings).context(about)?;
                    let flat = self.path("flat");
                    text.push_str(&format!("restore_command = 'cp {}/%f %p'\n", flat.display()));
                    fs::write(&settings, text).context(about)?;
                }
                rustix::fs::sync();
                let mut restored = Cluster::adopt(installation, &data)?;
                let begin = Instant::now();
                restored.start()?;
                restored.wait_until_promoted()?;
                let wall = begin.elapsed().as_secs_f64();
                eprintln!("recovery: round {round}: {name}: {wall:.2} s");
                board.add(name, [Some(wall)]);
                restored.kill9()?;
            }
        }
        Ok(board)
    }
}

/// How long a command takes, in milliseconds.
fn time(command: &mut Command) -> Result<f64> {
    let about = || "cannot run a command".to_owned();
    let begin = Instant::now();
    let status = command.stdin(Stdio::null()).status().context(about)?;
    let elapsed = begin.elapsed().as_secs_f64() * 1e3;
    if status.success() {
        Ok(elapsed)
    } else {
        Err(Failure::new(format!("it ended with {status}")))
    }
}
