//! A throwaway PostgreSQL cluster on the loopback interface.
//!
//! ```text
//!   ClusterOptions ── start() ──► running ◄── start() ── stopped
//!                                    │  stop(), kill9() ──►│
//!   a restored data directory ── Cluster::adopt ──────────►┘
//! ```
//!
//! When the tests run as root, the server runs as another account ([`crate::account`]). A
//! cluster that is dropped is killed and everything of it is removed.

mod initialise;
mod options;
mod process;
mod standby;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::account::Account;
use crate::certificates::{Authority, write_private};
use crate::failure::{Context, Failure, Result};
use crate::installation::Installation;
use crate::port::free_port;
use crate::program;

pub use crate::certificates::ClientCertificate;
pub use initialise::SUPERUSER_PASSWORD;
pub use options::ClusterOptions;
use process::Server;

/// The superuser of every cluster; over the Unix socket it needs no password.
pub const SUPERUSER: &str = "postgres";

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// One cluster: its directories, its port, and its server while that runs.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the server dies before its directories go.
    server: Option<Server>,
    installation: Installation,
    account: Account,
    port: u16,
    data: PathBuf,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    authority: Option<Authority>,
    base: TempDir,
}

impl Cluster {
    /// The options of a new cluster of this installation.
    pub fn options(installation: &Installation) -> ClusterOptions {
        ClusterOptions::new(installation)
    }

    /// A new cluster with the default options, running.
    pub fn start_new(installation: &Installation) -> Result<Self> {
        Self::options(installation).start()
    }

    /// A cluster around a data directory that something else made, such as a restore. It must
    /// belong to [`Cluster::account_for_servers`]. Not started yet; does not archive.
    pub fn adopt(installation: &Installation, data: &Path) -> Result<Self> {
        let mut cluster = Self::empty(installation)?;
        data.clone_into(&mut cluster.data);
        cluster.set("archive_mode", "off");
        Ok(cluster)
    }

    /// The account that runs servers, as `restore --owner` wants it.
    pub fn account_for_servers() -> Result<Account> {
        Account::for_servers()
    }

    /// A cluster with a base directory and a port, but no data.
    fn empty(installation: &Installation) -> Result<Self> {
        let account = Account::for_servers()?;
        let base = tempfile::Builder::new()
            .prefix(&format!("walrecv-pg{}-", installation.major))
            .tempdir()
            .context(|| "cannot make a temporary directory".to_owned())?;
        account.owns(base.path())?;
        let data = base.path().join("data");
        Ok(Self {
            server: None,
            installation: installation.clone(),
            account,
            port: free_port()?,
            data,
            settings: Vec::new(),
            environment: Vec::new(),
            authority: None,
            base,
        })
    }

    /// Adds or changes a setting for the next start; it overrides `postgresql.conf`.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Sets variables in the environment of everything that is run of it from then on.
    pub fn environment(&mut self, variables: &[(String, String)]) {
        self.environment.extend_from_slice(variables);
    }

    /// The PostgreSQL that runs it.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.installation.major
    }

    /// The account that its server runs as.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// `PGDATA`.
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// The directory of everything else of it: socket, log, archive, tablespaces, keys.
    pub fn base_directory(&self) -> &Path {
        self.base.path()
    }

    /// Where its `archive_command` copies every complete segment, if it was asked to.
    pub fn archive_directory(&self) -> PathBuf {
        self.base.path().join("archive")
    }

    /// The TCP port on 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection string of the superuser over the Unix socket, for the database `postgres`.
    pub fn superuser_conninfo(&self) -> String {
        format!(
            "host={} port={} user={SUPERUSER} dbname=postgres",
            self.base.path().display(),
            self.port
        )
    }

    /// Connection string over TCP with a password, without TLS.
    pub fn conninfo(&self, user: &str, password: &str) -> String {
        format!(
            "host=127.0.0.1 port={} user={user} password={password} dbname=postgres \
             sslmode=disable",
            self.port
        )
    }

    /// Connection string over TCP with a password, over verified TLS.
    pub fn tls_conninfo(&self, user: &str, password: &str) -> String {
        format!(
            "host=localhost port={} user={user} password={password} dbname=postgres \
             sslmode=verify-full sslrootcert={}",
            self.port,
            self.ca_certificate().display()
        )
    }

    /// The root certificate of a cluster made with TLS.
    pub fn ca_certificate(&self) -> PathBuf {
        self.base.path().join("ca.crt")
    }

    /// Makes a client certificate for a role, signed by the cluster's own authority.
    pub fn client_certificate(&self, role: &str) -> Result<ClientCertificate> {
        let authority =
            self.authority.as_ref().context(|| "this cluster was made without TLS".to_owned())?;
        let identity = authority.client(role)?;
        let files = ClientCertificate {
            certificate: self.base.path().join(format!("{role}.crt")),
            key: self.base.path().join(format!("{role}.key")),
        };
        write_private(&files.certificate, &identity.certificate)?;
        write_private(&files.key, &identity.key)?;
        Ok(files)
    }

    /// Writes a revocation list of the cluster's own authority, with the server's certificate on
    /// it or with none.
    pub fn revocation_list(&self, revoke_server: bool) -> Result<PathBuf> {
        let authority =
            self.authority.as_ref().context(|| "this cluster was made without TLS".to_owned())?;
        let name = if revoke_server { "revoked.crl" } else { "harmless.crl" };
        let path = self.base.path().join(name);
        write_private(&path, &authority.revocation_list(revoke_server)?)?;
        Ok(path)
    }

    /// A new directory that belongs to the server alone: for a tablespace, or another data
    /// directory.
    pub fn new_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.base.path().join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .context(|| format!("cannot make {}", path.display()))?;
        self.account.owns(&path)?;
        Ok(path)
    }

    /// Everything its server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.base.path().join("server.log")
    }

    /// A command that runs one of the installation's programs as the cluster's account.
    pub fn command(&self, name: &str) -> Result<Command> {
        let path = self
            .installation
            .program(name)
            .context(|| format!("{} has no {name}", self.installation.name()))?;
        let mut command = Command::new(path);
        self.account
            .runs(&mut command)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("LANG", "C"), ("TZ", "UTC")])
            .env("HOME", self.base.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.base.path());
        Ok(command)
    }

    /// Starts the server and waits until it accepts connections (in recovery: read-only ones).
    pub fn start(&mut self) -> Result<()> {
        if self.server.is_some() {
            return Err(Failure::new("the cluster runs already"));
        }
        let mut command = self.command("postgres")?;
        command.arg("-D").arg(&self.data).arg("-p").arg(self.port.to_string());
        let socket = self.base.path().display().to_string();
        let fixed = [("listen_addresses", "127.0.0.1"), ("unix_socket_directories", &socket)];
        let settings = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(settings) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut server = Server::spawn(&mut command, &self.data, &self.log_path(), &self.account)?;
        server.wait_until_ready(PATIENCE).map_err(|failure| {
            let log = self.log();
            Failure::new(format!("{failure}; its log ends:\n{}", program::last_lines(&log, 20)))
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server as `pg_ctl stop -m fast` does: replication is sent to its end.
    pub fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => server.stop(PATIENCE),
            None => Err(Failure::new("the cluster does not run")),
        }
    }

    /// Stops and starts the server.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// SIGKILL to every process of the server, as a power cut would end them.
    pub fn kill9(&mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => server.kill(),
            None => Err(Failure::new("the cluster does not run")),
        }
    }

    /// Whether the server was started and has not been stopped or killed by us.
    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// Makes the server read its configuration files again.
    pub fn reload(&self) -> Result<()> {
        program::run(self.command("pg_ctl")?.args(["-s", "reload", "-D"]).arg(&self.data))?;
        Ok(())
    }

    /// Ends recovery, and waits until the server is writable.
    pub fn promote(&self) -> Result<()> {
        program::run(self.command("pg_ctl")?.args(["-s", "-w", "promote", "-D"]).arg(&self.data))?;
        self.wait_until_promoted()
    }

    /// Prepares a stopped cluster to recover from its own WAL at the next start, and to go on as
    /// a new timeline.
    pub fn recover_onto_a_new_timeline(&mut self) -> Result<()> {
        let (file, text) = if self.major() >= 12 {
            // A recovery wants to be told where WAL comes from, even if from nowhere.
            self.set("restore_command", "false");
            ("recovery.signal", "")
        } else {
            ("recovery.conf", "restore_command = 'false'\n")
        };
        let path = self.data.join(file);
        fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
        self.account.owns(&path)
    }

    /// Waits until the server has left recovery.
    pub fn wait_until_promoted(&self) -> Result<()> {
        self.wait_for("the end of recovery", |cluster| {
            Ok(cluster.value("SELECT pg_is_in_recovery()")? == "f")
        })
    }

    /// Asks again and again until the condition holds; fails after two minutes, or at once when
    /// the server is gone.
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if holds(self)? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(Failure::new(format!(
            "waited {PATIENCE:?} in vain for {what}; the server's log ends:\n{}",
            program::last_lines(&self.log(), 20)
        )))
    }

    /// Removes the data directory: the machine is lost.
    pub fn remove_data(&self) -> Result<()> {
        if self.server.is_some() {
            return Err(Failure::new("the cluster still runs"));
        }
        fs::remove_dir_all(&self.data).context(|| format!("cannot remove {}", self.data.display()))
    }
}
