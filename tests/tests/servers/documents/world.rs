//! The world that the pages speak of: `db1`, `/etc`, `/var/lib`, `/srv`, systemd, `sudo`, `psql`.
//!
//! Each stands for something of a test's own: words are replaced in what is run, and programs that
//! would change this machine are short scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use walrecv_tests::cluster::{SUPERUSER, SUPERUSER_PASSWORD};
use walrecv_tests::port::free_port;
use walrecv_tests::walrecv::write_private;
use walrecv_tests::{Cluster, Context, Failure, Installation, Result, program, tools, walrecv};

use super::page::Block;
use crate::site::{PASSWORD, ROLE};

/// What a page begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// A server that has never heard of us.
    Nothing,
    /// A server whose WAL is received, and a backup.
    BackedUp,
}

pub(super) struct World {
    cluster: Cluster,
    directory: TempDir,
    words: Vec<(&'static str, String)>,
}

impl World {
    /// A world; `None` where there is no `psql` for its server.
    pub(super) fn new(installation: &Installation, beginning: Beginning) -> Result<Option<Self>> {
        let Some(psql) = tools::for_server("psql", installation.major) else {
            tools::missing("psql", &installation.name());
            return Ok(None);
        };
        let mut options = Cluster::options(installation);
        if installation.has_tls() {
            options = options.tls();
        }
        if installation.major >= 17 {
            options = options.config("summarize_wal = on");
        }
        let cluster = options.start()?;
        let directory = tempfile::tempdir().context(|| "no temporary directory".to_owned())?;
        let mut world = Self { cluster, directory, words: Vec::new() };
        open_to_all(world.directory.path().to_owned())?;
        for name in ["bin", "etc", "srv", "root"] {
            let path = world.path(name);
            fs::create_dir(&path).context(|| format!("cannot make {}", path.display()))?;
            open_to_all(path)?;
        }
        world.programs(&psql.display().to_string())?;
        world.words = world.words()?;
        if beginning == Beginning::BackedUp {
            world.back_up()?;
        }
        Ok(Some(world))
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// What the pages say, and what it is here.
    fn words(&self) -> Result<Vec<(&'static str, String)>> {
        let port = self.cluster.port();
        let other = free_port()?;
        let path = |below: &str| self.path(below).display().to_string();
        let owner = &self.cluster.account().name;
        let mut words = vec![
            ("db1:5432", format!("127.0.0.1:{port}")),
            ("db1", "127.0.0.1".to_owned()),
            ("change me", PASSWORD.to_owned()),
            ("/etc/walrecv-server", path("etc")),
            ("/var/lib/walrecv-server", path("home")),
            ("/srv", path("srv")),
            ("/root/", format!("{}/", path("root"))),
            ("\"-p 5499", format!("\"-p {other} -c unix_socket_directories=")),
            ("5499", other.to_string()),
            (
                "s/^#wal_readers/wal_readers/",
                format!("s/^#wal_readers.*/wal_readers = [\"{owner}\"]/"),
            ),
        ];
        if rustix::process::geteuid().is_root() {
            words.push(("--owner postgres", format!("--owner {owner}")));
        } else {
            words.push((" --owner postgres", String::new()));
        }
        if !self.cluster.installation().has_tls() {
            words.push(("require", "disable".to_owned()));
        }
        Ok(words)
    }

    fn here(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (said, meant)| text.replace(said, meant))
    }

    /// Programs in front of those of this machine.
    fn programs(&self, psql: &str) -> Result<()> {
        let binary = walrecv::binary()?.display().to_string();
        let configuration = self.path("etc/walrecv-server.toml").display().to_string();
        let home = self.path("home").display().to_string();
        let (process, log) = (self.path("daemon.pid"), self.path("daemon.log"));
        let (process, log) = (process.display(), log.display());
        let port = self.cluster.port();
        let runs = runner(&self.cluster);
        let major = self.cluster.installation().major;
        let verify = match tools::for_server("pg_verifybackup", major) {
            Some(program) => format!("exec {} \"$@\"", program.display()),
            None => {
                tools::missing("pg_verifybackup", "what is unpacked by hand");
                "exit 0".to_owned()
            }
        };
        for (name, script) in [
            (
                "walrecv-server",
                format!(
                    "export WALRECV_CONFIG={configuration} WALRECV_HOME={home} PGPORT={port}\n\
                     exec {binary} \"$@\""
                ),
            ),
            (
                "psql",
                format!(
                    "export PGHOST=127.0.0.1 PGPORT=\"${{PGPORT:-{port}}}\" PGUSER={SUPERUSER} \
                     PGPASSWORD={SUPERUSER_PASSWORD} PGDATABASE=postgres\n\
                     exec {psql} -X -v ON_ERROR_STOP=1 \"$@\""
                ),
            ),
            ("pg_verifybackup", verify),
            (
                "sudo",
                format!(
                    "user=$2; shift 2\n\
                     [ \"$user\" = postgres ] || exec \"$@\"\n\
                     exec {runs} \"$@\""
                ),
            ),
            (
                "systemctl",
                format!(
                    "leave() {{\n\
                     [ -f {process} ] || return 0\n\
                     kill \"$(cat {process})\" || true\n\
                     while kill -0 \"$(cat {process})\" 2>/dev/null; do sleep 0.1; done\n\
                     rm {process}\n\
                     }}\n\
                     case $1 in\n\
                     stop) leave ;;\n\
                     reload) kill -HUP \"$(cat {process})\" ;;\n\
                     enable|start|restart)\n\
                     leave\n\
                     setsid walrecv-server run >>{log} 2>&1 </dev/null &\n\
                     echo $! >{process}\n\
                     for _ in $(seq 300); do\n\
                     [ \"$(psql -Atc \"SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'\")\" = 0 ] || exit 0\n\
                     sleep 0.1\n\
                     done\n\
                     echo 'the daemon does not receive:' >&2; cat {log} >&2; exit 1 ;;\n\
                     esac"
                ),
            ),
        ] {
            let path = self.path("bin").join(name);
            let about = || format!("cannot write {}", path.display());
            fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).context(about)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context(about)?;
        }
        Ok(())
    }

    /// What the first page ends with.
    fn back_up(&self) -> Result<()> {
        self.cluster.create_role(ROLE, PASSWORD, "REPLICATION")?;
        self.shell(
            "echo 'db1:5432:*:walrecv:change me' > ~/.pgpass; chmod 0600 ~/.pgpass\n\
             walrecv-server init main --host db1 --user walrecv --dbname postgres --sslmode require\n\
             sed -i 's/^#wal_readers/wal_readers/; s/^#immediate_checkpoint.*/immediate_checkpoint = true/' \
             /etc/walrecv-server/walrecv-server.toml\n\
             systemctl start walrecv-server\n\
             walrecv-server backup main --wait\n",
        )?;
        Ok(())
    }

    /// Does what a block says.
    pub(super) fn follow(&self, block: &Block) -> Result<()> {
        match block.language.as_str() {
            "sh" if block.is("fails") => match self.shell(&block.text) {
                Ok(_) => Err(Failure::new("it works, although the page says that it fails")),
                Err(_) => Ok(()),
            },
            "sh" => self.shell(&block.text).map(drop),
            "sql" => self.here(&block.text).split(";\n").try_for_each(|statement| {
                let statement = statement.trim();
                if statement.is_empty() { Ok(()) } else { self.cluster.execute(statement) }
            }),
            "toml" => self.configuration(&block.text),
            _ => Ok(()),
        }
    }

    fn shell(&self, text: &str) -> Result<String> {
        let mut path = self.path("bin").into_os_string();
        for more in [self.cluster.installation().bindir.as_os_str(), "/usr/sbin".as_ref()] {
            path.push(":");
            path.push(more);
        }
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        // What runs in the background ends with the block, whatever becomes of it.
        let text = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}", self.here(text));
        bash.args(["-euo", "pipefail", "-c", &text]);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PG") || name.starts_with("WALRECV_") {
                bash.env_remove(name.as_ref());
            }
        }
        bash.env("PATH", path).env("HOME", self.path("root")).current_dir(self.path("srv"));
        program::run(&mut bash)
    }

    /// Whether this is a configuration, in itself or with a server.
    fn configuration(&self, text: &str) -> Result<()> {
        let file = self.path("example.toml");
        let mut text = self.here(text);
        if !text.contains("[servers.") {
            text.push_str("[servers.main]\nconninfo = \"host=127.0.0.1 user=walrecv\"\n");
        }
        write_private(&file, &text)?;
        let line = format!("walrecv-server --config {} list-backups all", file.display());
        self.shell(&line).map(drop)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It has to end before its directory goes.
        let _ = self.shell("systemctl stop walrecv-server");
    }
}

fn open_to_all(path: PathBuf) -> Result<()> {
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .context(|| format!("cannot open {}", path.display()))
}

/// Words in front of a command that is to run as the servers' account.
fn runner(cluster: &Cluster) -> String {
    if rustix::process::geteuid().is_root() {
        let name = &cluster.account().name;
        format!("setpriv --reuid={name} --regid={name} --clear-groups")
    } else {
        "env".to_owned()
    }
}
