//! The first ten minutes: `init` asks, prints what the server needs, and says what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::terminal::Terminal;
use walrecv_tests::walrecv::{Output, bare_command, finish};
use walrecv_tests::{Cluster, Installation, Result, program};

use crate::site::{PASSWORD, ROLE};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("init_asks", &[10, 15, 18], init_asks)
        .per_major("init_takes_options", &[18], init_takes_options)
        .per_major("init_says_what_is_wrong", &[10, 18], init_says_what_is_wrong)
        .once("completions_and_manual", completions_and_manual)
}

/// A directory for a configuration and a store, and commands that use these.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir().map_err(|error| {
            walrecv_tests::Failure::new(format!("cannot make a temporary directory: {error}"))
        })?;
        Ok(Self { directory })
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("etc/walrecv-server.toml")
    }

    fn home(&self) -> String {
        self.directory.path().join("home").display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = bare_command()?;
        command.arg("--config").arg(self.configuration()).args(arguments);
        command.env("HOME", self.directory.path());
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        finish(&mut self.command(arguments)?)
    }
}

fn init_asks(installation: &Installation) -> ScenarioResult {
    let mut options = Cluster::options(installation);
    if installation.has_tls() {
        options = options.tls();
    }
    let cluster = options.start()?;
    let place = Place::new()?;
    let port = cluster.port().to_string();
    let mode = if installation.has_tls() { "" } else { "disable" };

    let mut terminal = Terminal::start(&mut place.command(&["init"])?)?;
    terminal.answer("Name of the server here [main]: ", "../orders")?;
    terminal.answer("Name of the server here [main]: ", "orders")?;
    terminal.answer("Host that PostgreSQL runs on: ", "127.0.0.1")?;
    terminal.answer("Port [5432]: ", "70000")?;
    terminal.wait_for("a port is a number")?;
    terminal.answer("Port [5432]: ", &port)?;
    terminal.answer("Role to log in as [walrecv]: ", "")?;
    terminal.answer("Database for SQL [postgres]: ", "")?;
    terminal.answer("verify-full) [require]: ", "always")?;
    terminal.answer("verify-full) [require]: ", mode)?;
    terminal.answer("Where backups and WAL go [/var/lib/walrecv-server]: ", &place.home())?;
    terminal.answer("Password of walrecv", PASSWORD)?;
    let (code, screen) = terminal.finish()?;
    assert_eq!(code, 1, "{screen}");
    assert!(!screen.contains(PASSWORD), "the password was shown: {screen}");
    assert!(screen.contains("password authentication failed"), "{screen}");

    // What was printed is what the server needs.
    let kind = if installation.has_tls() { "hostssl" } else { "host" };
    let hba = format!("{kind}  replication,postgres  walrecv  127.0.0.1/32  scram-sha-256");
    assert!(screen.contains(&hba), "{screen}");
    for line in screen.lines().map(str::trim) {
        if line.starts_with("CREATE ROLE") {
            cluster.execute(&line.replace('…', PASSWORD))?;
        }
    }

    // Somebody has changed the password: it is asked for, where somebody can answer.
    cluster.execute("ALTER ROLE walrecv PASSWORD 'another'")?;
    place.run(&["init", "orders"])?.code(1)?;
    let mut terminal = Terminal::start(&mut place.command(&["init", "orders"])?)?;
    terminal.answer("the one we have is refused", "wrong again")?;
    terminal.answer("the one we have is refused", "another")?;
    let (code, screen) = terminal.finish()?;
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains("another\n"), "the password was shown: {screen}");

    let second = place.run(&["init", "orders"])?.success()?;
    assert!(second.stdout.contains("exists and stays as it is"), "{}", second.stdout);
    assert!(second.stdout.contains("slot: can be made\n    SQL: works"), "{}", second.stdout);
    let comfort = second.stdout.lines().filter(|line| line.trim().starts_with("GRANT "));
    for line in comfort {
        cluster.execute(line)?;
    }
    assert_eq!(cluster.value("SELECT count(*) FROM pg_replication_slots")?, "0");
    let text = fs::read_to_string(place.configuration())?;
    assert!(!text.contains(PASSWORD) && !text.contains("another"), "{text}");
    let passwords = place.configuration().with_file_name("pgpass");
    assert_eq!(fs::metadata(&passwords)?.permissions().mode() & 0o777, 0o600);

    // The commands that it ends with work as they stand there.
    let next: Vec<_> = second
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("walrecv-server "))
        .map(|line| line.split("  #").next().unwrap_or_default().trim())
        .collect();
    assert_eq!(next.len(), 3, "{}", second.stdout);
    let words = |line: &str| line.split(' ').skip(2).map(String::from).collect::<Vec<_>>();
    let mut daemon = place.command(&[])?.args(words(next[0])).stderr(Stdio::null()).spawn()?;
    cluster.wait_for("the receiver", |cluster| {
        let count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        Ok(cluster.value(count)? == "1")
    })?;
    for line in &next[1..] {
        let words = words(line);
        place.run(&words.iter().map(String::as_str).collect::<Vec<_>>())?.success()?;
    }
    let third = place.run(&["init", "orders"])?.success()?;
    assert!(third.stdout.contains("slot: is there"), "{}", third.stdout);
    daemon.kill()?;
    daemon.wait()?;

    // Nobody there who answers.
    let unanswered = finish(
        bare_command()?
            .args(["init", "x", "--config"])
            .arg(place.directory.path().join("other.toml")),
    )?;
    assert_eq!(unanswered.code, 0, "{}", unanswered.stderr);
    assert!(unanswered.stdout.contains("THIS-HOST/32"), "{}", unanswered.stdout);
    Ok(())
}

/// Options do what answers do, and a second server gets a file of its own.
fn init_takes_options(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    cluster.create_role(ROLE, PASSWORD, "REPLICATION")?;
    let place = Place::new()?;
    let port = cluster.port().to_string();
    let home = place.home();
    let init = |name: &str| {
        let mut command = place.command(&["init", name, "--host", "127.0.0.1", "--port", &port])?;
        command.args(["--user", ROLE, "--dbname", "postgres", "--sslmode", "disable"]);
        finish(command.args(["--home", &home]).env("PGPASSWORD", PASSWORD))?.success()
    };
    init("main")?;
    let second = init("second")?;
    let added = place.configuration().with_file_name("servers.d").join("second.toml");
    assert!(second.stdout.contains(&format!("Wrote {}", added.display())), "{}", second.stdout);
    let text = fs::read_to_string(added)?;
    assert!(text.starts_with("[servers.second]"), "{text}");
    let conninfo = format!("host=127.0.0.1 port={port} dbname=postgres user=walrecv");
    assert!(text.contains(&conninfo), "{text}");
    let clean = place.run(&["-f", "json2", "init", "second"])?;
    assert_eq!(clean.json()?["results"][0]["written"], false);
    Ok(())
}

/// Each thing that goes wrong at first is told as what it is, with what to do.
fn init_says_what_is_wrong(installation: &Installation) -> ScenarioResult {
    let mut cluster = Cluster::start_new(installation)?;
    cluster.create_role(ROLE, PASSWORD, "REPLICATION")?;
    cluster.create_role("plain", PASSWORD, "")?;
    let port = cluster.port().to_string();
    let tried = |user: &str, password: &str, more: &[&str]| -> Result<Output> {
        let place = Place::new()?;
        let mut command = place.command(&["init", "--home", &place.home()])?;
        for (option, value) in [("--host", "127.0.0.1"), ("--port", &port), ("--user", user)] {
            if !more.contains(&option) {
                command.args([option, value]);
            }
        }
        finish(command.args(more).env("PGPASSWORD", password))?.code(1)
    };
    let says = |output: Output, sentence: &str, hint: &str| {
        let said = &output.stderr;
        assert!(said.contains(sentence), "no `{sentence}` in:\n{said}");
        let hints = said.split("hint:").nth(1).unwrap_or_default();
        assert!(hints.contains(hint), "no `{hint}` in:\n{said}");
    };

    let plain = ["--sslmode", "disable"];
    says(tried(ROLE, "wrong", &plain)?, "password authentication failed", "\\password walrecv");
    says(tried("plain", PASSWORD, &plain)?, "to start", "ALTER ROLE plain REPLICATION");
    says(tried(ROLE, "", &plain)?, "asks for a password", "pgpass");
    says(tried(ROLE, PASSWORD, &["--sslmode", "require"])?, "does not support TLS", "ssl = on");
    let nowhere = ["--host", "no-such-host.invalid"];
    says(tried(ROLE, PASSWORD, &nowhere)?, "no-such-host.invalid", "no such host");
    says(tried(ROLE, PASSWORD, &["--port", "1"])?, "refused", "nothing listens there");

    for (settings, sentence, hint) in [
        (&[("max_replication_slots", "0")][..], "max_replication_slots", "max_replication_slots"),
        (&[("max_wal_senders", "0")][..], "max_wal_senders", "max_wal_senders"),
        (&[("max_wal_senders", "0"), ("wal_level", "minimal")][..], "max_wal_senders", "wal_level"),
    ] {
        for (name, value) in settings {
            cluster.set(name, value);
        }
        cluster.restart()?;
        says(tried(ROLE, PASSWORD, &plain)?, sentence, hint);
        for (name, value) in
            [("max_replication_slots", "10"), ("max_wal_senders", "10"), ("wal_level", "replica")]
        {
            cluster.set(name, value);
        }
    }
    cluster.restart()?;

    let hba = cluster.data_directory().join("pg_hba.conf");
    fs::write(&hba, "local all all trust\nhost replication all 127.0.0.1/32 scram-sha-256\n")?;
    cluster.reload()?;
    // Backups work, and what is missing is told.
    let place = Place::new()?;
    let mut command = place.command(&["init", "--host", "127.0.0.1", "--port", &port])?;
    command.args(["--home", &place.home(), "--user", ROLE]).env("PGPASSWORD", PASSWORD);
    let without_sql = finish(&mut command)?.success()?;
    assert!(without_sql.stdout.contains("SQL: does not work"), "{}", without_sql.stdout);
    fs::write(&hba, "local all all trust\n")?;
    cluster.reload()?;
    let line = "host replication walrecv 127.0.0.1/32 scram-sha-256";
    says(tried(ROLE, PASSWORD, &plain)?, "pg_hba.conf", line);
    Ok(())
}

/// What is generated is understood by those it is for, as far as they are here.
fn completions_and_manual() -> ScenarioResult {
    let directory = tempfile::tempdir()?;
    let run = |arguments: &[&str]| finish(bare_command()?.args(arguments))?.success();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell])?.stdout;
        assert!(script.contains("list-backups"), "{script}");
        let path = directory.path().join(shell);
        fs::write(&path, script)?;
        if let Some(program) = program::find_on_path(shell) {
            program::run(Command::new(program).arg("-n").arg(&path))?;
        }
    }
    // What bash would offer for a word that was begun.
    let bash = format!(
        "source {}; COMP_WORDS=(walrecv-server list-b); COMP_CWORD=1; \
         _walrecv__server walrecv-server list-b walrecv-server; echo \"${{COMPREPLY[@]}}\"",
        directory.path().join("bash").display()
    );
    let offered = program::run(Command::new("bash").args(["-c", &bash]))?;
    assert!(offered.split_whitespace().any(|word| word == "list-backups"), "{offered}");

    let pages = directory.path().join("man1");
    run(&["man", &pages.display().to_string()])?;
    let count = fs::read_dir(&pages)?.count();
    assert!(count > 15, "{count} pages");
    let first = run(&["man"])?.stdout;
    let written = fs::read_to_string(pages.join("walrecv-server.1"))?;
    assert!(first == written, "not the first page: {first}");
    rendered(&pages.join("walrecv-server-restore.1"), "--target-time")
}

/// A manual page, as `man` shows it without complaint.
fn rendered(page: &Path, word: &str) -> ScenarioResult {
    let Some(man) = program::find_on_path("man") else { return Ok(()) };
    let mut command = Command::new(man);
    command.args(["--warnings", "-E", "UTF-8", "-l"]).arg(page).env("MANWIDTH", "100");
    let output = program::output(&mut command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(word), "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
