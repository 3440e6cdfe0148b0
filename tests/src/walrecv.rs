//! Running the product's own binary, as its users do.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::failure::{Context, Failure, Result};
use crate::program;

/// What one run of the binary left behind.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128 + signal number if a signal ended it.
    pub code: i32,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
}

impl Output {
    /// Demands exit code 0; otherwise a failure with everything it said.
    pub fn success(self) -> Result<Self> {
        self.code(0)
    }

    /// Demands an exit code; otherwise a failure with everything it said.
    pub fn code(self, expected: i32) -> Result<Self> {
        if self.code == expected {
            return Ok(self);
        }
        Err(Failure::new(format!(
            "walrecv-server ended with {} instead of {expected}\nstdout:\n{}\nstderr:\n{}",
            self.code, self.stdout, self.stderr
        )))
    }

    /// Stdout as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout)
            .context(|| format!("walrecv-server printed no JSON: {}", self.stdout))
    }
}

/// A home directory for the product and its configuration file.
#[derive(Debug)]
pub struct Walrecv {
    directory: TempDir,
}

impl Walrecv {
    /// An empty home with this configuration; `home` is put in front of it.
    pub fn new(configuration: &str) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("walrecv-home-")
            .tempdir()
            .context(|| "cannot make a temporary directory".to_owned())?;
        let walrecv = Self { directory };
        walrecv.configure(configuration)?;
        Ok(walrecv)
    }

    /// Replaces the configuration.
    pub fn configure(&self, configuration: &str) -> Result<()> {
        let path = self.configuration();
        let text = format!("home = \"{}\"\n{configuration}", self.home().display());
        write_private(&path, &text)
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("walrecv-server.toml")
    }

    /// The store.
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// The directory that holds configuration, store and logs; removed in the end.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command of the binary with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = bare_command()?;
        command.arg("--config").arg(self.configuration()).args(arguments);
        Ok(command)
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        finish(&mut self.command(arguments)?)
    }

    /// Starts a command that stays, such as `run` or `receive-wal`. Its messages go into a file.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Daemon> {
        self.spawn_behind(&[], arguments)
    }

    /// The same, by way of another program which becomes it in the end: words such as
    /// [`crate::strace::in_front`].
    pub fn spawn_behind(&self, words: &[String], arguments: &[&str]) -> Result<Daemon> {
        let log = self.directory.path().join("daemon.log");
        let about = || format!("cannot write {}", log.display());
        let mut file = File::options().create(true).append(true).open(&log).context(about)?;
        writeln!(file, "--- walrecv-server {}", arguments.join(" ")).context(about)?;
        let child = behind(words, self.command(arguments)?)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context(about)?)
            .stderr(file)
            .spawn()
            .context(|| "cannot run walrecv-server".to_owned())?;
        Ok(Daemon { child, log })
    }
}

/// A running `walrecv-server`. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Everything it has said so far (and its predecessors with the same home).
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// SIGTERM, then its exit code.
    pub fn stop(mut self) -> Result<i32> {
        self.signal(Signal::TERM)?;
        self.wait(Duration::from_secs(60))
    }

    /// SIGKILL.
    pub fn kill9(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(60)).map(drop)
    }

    /// Makes it stand still, as a processor without power: when this returns, none of its threads
    /// does anything in the program any more, whatever the kernel still does for it.
    pub fn halt(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            let states = thread_states(self.id());
            // One that waits for a disk stops when it comes back.
            // `t` is one that is watched by strace.
            let stands = |state: &char| matches!(state, 'T' | 't');
            if states.iter().any(stands) && states.iter().all(|s| stands(s) || *s == 'D') {
                return Ok(());
            }
        }
        Err(Failure::new("walrecv-server does not stand still"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context(|| "no process number".to_owned())?, signal)
            .context(|| "cannot signal walrecv-server".to_owned())
    }

    /// Waits until it ends by itself; its exit code.
    pub fn wait(&mut self, patience: Duration) -> Result<i32> {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            let status =
                self.child.try_wait().context(|| "cannot wait for walrecv-server".to_owned())?;
            if let Some(status) = status {
                return Ok(exit_code(status));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::new(format!(
            "walrecv-server did not end in {patience:?}; its log ends:\n{}",
            program::last_lines(&self.log(), 20)
        )))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What each thread of a process does, in the letters of the kernel.
fn thread_states(pid: u32) -> Vec<char> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(')')?.1.trim_start().chars().next()).collect()
}

/// A command of the binary without any configuration, and without this user's environment of it.
pub fn bare_command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("PG") || name.starts_with("WALRECV_") {
            command.env_remove(name.as_ref());
        }
    }
    Ok(command)
}

/// A command with other words in front.
fn behind(words: &[String], command: Command) -> Command {
    let Some((program, arguments)) = words.split_first() else { return command };
    let mut whole = Command::new(program);
    whole.args(arguments).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => whole.env(name, value),
            None => whole.env_remove(name),
        };
    }
    whole
}

/// Runs a command of the binary to its end.
pub fn finish(command: &mut Command) -> Result<Output> {
    let output = program::output(command)?;
    Ok(Output {
        code: exit_code(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Writes a configuration or another file with secrets in it, which nobody else can read.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let about = || format!("cannot write {}", path.display());
    fs::write(path, text).context(about)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context(about)
}

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// From now on this program is the binary under test, unless one has been in use already.
pub fn choose(program: &Path) {
    CHOSEN.get_or_init(|| program.to_owned());
}

/// The binary under test: the one that was chosen, else the one beside us.
///
/// A restored server calls it (`get-wal`) as another user, who may not enter the directory that
/// it was built in, such as root's home. So it is used from a copy that everybody can reach;
/// [`remove_copy`] ends it.
pub fn binary() -> Result<PathBuf> {
    static COPY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = || CHOSEN.get().cloned().map_or_else(|| program::built("walrecv-server"), Ok);
    COPY.get_or_init(|| built().and_then(|built| share(&built)).map_err(|e| e.to_string()))
        .clone()
        .map_err(Failure::new)
}

fn share(built: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;

    if !rustix::process::geteuid().is_root() {
        return Ok(built.to_owned());
    }
    let about = || format!("cannot copy {}", built.display());
    let directory = std::env::temp_dir().join(format!("walrecv-bin-{}", std::process::id()));
    fs::create_dir(&directory).context(about)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).context(about)?;
    let copy = directory.join("walrecv-server");
    // By another process: a child that another test starts meanwhile would inherit what this one
    // writes to, and a file that somebody may write to cannot be run.
    program::run(Command::new("cp").arg(built).arg(&copy))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).context(about)?;
    Ok(copy)
}

/// Removes the shared copy of the binary; the runner calls it at its end.
pub fn remove_copy() {
    let directory = std::env::temp_dir().join(format!("walrecv-bin-{}", std::process::id()));
    // Most runs have made none.
    let _ = fs::remove_dir_all(directory);
}
