//! The daemon as systemd runs it: started, hardened, used, reloaded, watched, killed, stopped, and
//! refused.

use std::time::{Duration, Instant};

use walrecv_tests::terminal::Terminal;
use walrecv_tests::{Cluster, Context, Failure, Result, program, tools};

use super::boot::{self, Container};
use super::root::Root;
use super::service::{CONFIGURATION, PROMPT, Service};
use crate::postgres;

/// How long it is watched for what must not happen.
const A_WHILE: Duration = Duration::from_secs(5);

/// A watchdog that loses its patience before `A_WHILE` is over.
const WATCHDOG: &str = "[Service]\nWatchdogSec=2\n";

/// The password as a credential, from a file that only root gets to.
const CREDENTIAL: &str = "[Service]\nLoadCredential=pgpass:/root/secrets/pgpass\n";

const PASSWORD: &str = "a secret: of root's";
const PASSWORD_FILE: &str = "/etc/walrecv-server/pgpass";

type Step = fn(&Service<'_>) -> Result<()>;

/// In this order: each begins with what the one before has left.
const STEPS: &[(&str, Step)] = &[
    ("it is configured by `init`, and becomes ready", starts),
    ("it is confined as the unit says", is_confined),
    ("it streams, and takes a backup", backs_up),
    ("it reads its configuration again", reloads),
    ("its password is a credential of systemd", takes_a_credential),
    ("the watchdog hears from it, and restarts it when it stands still", is_watched),
    ("it is restarted when it is killed", survives_sigkill),
    ("it stops", stops),
    ("mistakes keep it down, and are told", says_what_is_wrong),
];

/// Runs the unit in the root, which has the package, under systemd where that can be had.
pub(super) fn check(root: &Root) -> Result<()> {
    if let Some(why) = boot::impossible() {
        tools::not_judged("the unit under systemd", &why);
        return Ok(());
    }
    root.run(
        "apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends systemd",
    )?;
    let cluster = Cluster::start_new(&postgres::obtain_one(None)?)?;
    cluster.create_role("walrecv", PASSWORD, "REPLICATION")?;
    let service = Service { container: Container::boot(root)?, cluster, root };
    println!("under {}:", service.container.run("systemctl --version | head -n 1")?.trim());
    for (what, step) in STEPS {
        println!("  {what}");
        step(&service).map_err(|failure| {
            let journal = service.journal("-n 30").unwrap_or_default();
            Failure::new(format!("not so: {what}: {failure}\nthe journal ends:\n{journal}"))
        })?;
    }
    Ok(())
}

fn starts(service: &Service<'_>) -> Result<()> {
    service.container.run(&format!("rm /{CONFIGURATION}"))?;
    let mut init = Terminal::start(&mut service.container.command("walrecv-server init"))?;
    for (question, answer) in [
        ("Name of the server here", ""),
        ("Host that PostgreSQL runs on", "127.0.0.1"),
        ("Port", &service.cluster.port().to_string()),
        ("Role to log in as", ""),
        ("Database for SQL", ""),
        ("TLS", "disable"),
        ("Where backups and WAL go", ""),
        ("Password of walrecv", PASSWORD),
    ] {
        init.answer(question, answer)?;
    }
    let (code, screen) = init.finish()?;
    demand(code == 0, || format!("`init` ends with {code}:\n{screen}"))?;
    let start = "systemctl enable --now walrecv-server";
    demand(screen.contains(start), || format!("`init` does not say `{start}`:\n{screen}"))?;

    // Comes back when the daemon has said that it is ready.
    service.container.run(start)?;
    demand(service.is_active()?, || "it is not active".to_owned())?;
    let complaints = service.journal("-p warning")?;
    demand(complaints.is_empty(), || format!("there are complaints:\n{complaints}"))
}

fn is_confined(service: &Service<'_>) -> Result<()> {
    let pid = service.pid()?;
    let user = service.container.run(&format!("stat -c %U /proc/{pid}"))?;
    demand(user.trim() == "walrecv", || format!("it runs as {user}"))?;
    let status = service.container.run(&format!("cat /proc/{pid}/status"))?;
    for (name, value) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
    ] {
        let line = format!("{name}:\t{value}");
        demand(status.lines().any(|found| found == line), || format!("no `{line}` in:\n{status}"))?;
    }
    // What root can do where the daemon is, the daemon can do at most.
    let inside = format!("nsenter --target {pid} --mount");
    for (line, why) in [
        ("touch /var/lib/walrecv-server/x", "the store cannot be written to"),
        ("rm /var/lib/walrecv-server/x", "the store cannot be written to"),
        ("sh -c '! touch /etc/walrecv-server/x'", "it can change its configuration"),
        ("sh -c '! touch /usr/bin/x'", "it can change programs"),
        ("sh -c 'test $(stat -c %a /root) = 0'", "it sees root's home"),
        ("sh -c '! mkdir /sys/fs/cgroup/x'", "it can make control groups"),
    ] {
        service.container.run(&format!("{inside} {line}")).context(|| why.to_owned())?;
    }
    Ok(())
}

fn backs_up(service: &Service<'_>) -> Result<()> {
    service.streams()?;
    service.says("receiving WAL of 1 server")?;
    service.container.run("walrecv-server backup main --wait --immediate-checkpoint")?;
    let listed = service.container.run("walrecv-server -f json list-backups main")?;
    let listed: serde_json::Value =
        serde_json::from_str(&listed).context(|| format!("no JSON: {listed}"))?;
    demand(listed.pointer("/main/0/status").is_some_and(|status| status == "DONE"), || {
        format!("the backup is not DONE:\n{listed:#}")
    })?;
    service.container.run("walrecv-server verify-backup main latest")?;
    let foreign =
        service.container.run("find /var/lib/walrecv-server ! -user walrecv -o -perm /077")?;
    demand(foreign.is_empty(), || format!("others own, or may read:\n{foreign}"))
}

fn reloads(service: &Service<'_>) -> Result<()> {
    let before = service.pid()?;
    let one = service.configuration()?;
    let conninfo = one.lines().find(|line| line.starts_with("conninfo = "));
    let conninfo = conninfo.context(|| format!("no conninfo in:\n{one}"))?;
    let two = format!("{one}\n[servers.other]\n{conninfo}\nslot_name = \"other\"\n");
    service.configure(&two)?;
    service.container.run("systemctl reload walrecv-server")?;
    service.says("receiving WAL of 2 servers")?;

    service.configure(&format!("{two}compresion = \"lz4\"\n"))?;
    service.container.run("systemctl reload walrecv-server")?;
    service.wait_for("word of the mistake in the journal", PROMPT, || {
        Ok(service.journal("-p err")?.contains("did you mean `compression`?"))
    })?;
    service.says("configuration refused")?;
    service.says("receiving WAL of 2 servers")?;

    service.configure(&one)?;
    service.container.run("systemctl reload walrecv-server")?;
    service.says("receiving WAL of 1 server")?;
    let now = service.pid()?;
    demand(now == before, || format!("it was restarted: {before} became {now}"))
}

fn takes_a_credential(service: &Service<'_>) -> Result<()> {
    let place = "install -d -m 0700 /root/secrets && install -m 0600 -o root -g root";
    service.container.run(&format!("{place} {PASSWORD_FILE} /root/secrets/pgpass"))?;
    service.container.run(&format!("rm {PASSWORD_FILE}"))?;
    let configuration = service.configuration()?;
    let named = configuration.replace(PASSWORD_FILE, "${CREDENTIALS_DIRECTORY}/pgpass");
    demand(named != configuration, || format!("no {PASSWORD_FILE} in:\n{configuration}"))?;
    service.configure(&named)?;
    service.drop_in("credential", CREDENTIAL)?;
    service.streams()?;
    // Root's commands find it as well, and so do those of the store's owner.
    service.container.run("walrecv-server check main")?;
    service.container.run("walrecv-server backup main --wait --immediate-checkpoint").map(drop)
}

fn is_watched(service: &Service<'_>) -> Result<()> {
    service.drop_in("watchdog", WATCHDOG)?;
    let before = service.pid()?;
    std::thread::sleep(A_WHILE);
    let now = service.pid()?;
    demand(now == before, || format!("{before} was restarted, though it did its work"))?;
    service.container.run(&format!("kill -STOP {before}"))?;
    service.comes_back_after(&before)?;
    let journal = service.journal("")?;
    demand(journal.contains("Watchdog timeout"), || "no word of the watchdog".to_owned())
}

fn survives_sigkill(service: &Service<'_>) -> Result<()> {
    let before = service.pid()?;
    service.container.run(&format!("kill -KILL {before}"))?;
    service.comes_back_after(&before)
}

fn stops(service: &Service<'_>) -> Result<()> {
    let begin = Instant::now();
    service.container.run("systemctl stop walrecv-server")?;
    let took = begin.elapsed();
    demand(took < PROMPT, || format!("it takes {took:?}"))?;
    let (state, result) = (service.property("ActiveState")?, service.property("Result")?);
    demand(state == "inactive" && result == "success", || format!("it is {state}: {result}"))
}

fn says_what_is_wrong(service: &Service<'_>) -> Result<()> {
    let good = service.configuration()?;
    for (configuration, told) in [
        ("home = \"/var/lib/walrecv-server\"\n", "no server is configured"),
        (&format!("{good}slot_nam = \"x\"\n"), "did you mean `slot_name`?"),
    ] {
        service.configure(configuration)?;
        let started =
            program::output(&mut service.container.command("systemctl start walrecv-server"))?;
        demand(!started.status.success(), || format!("it starts, though {told}"))?;
        std::thread::sleep(A_WHILE);
        let state = service.property("ActiveState")?;
        let restarts = service.property("NRestarts")?;
        demand(state == "failed" && restarts == "0", || {
            format!("it is {state}, restarted {restarts} times, though {told}")
        })?;
        let shown =
            program::output(&mut service.container.command("systemctl status walrecv-server"))?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        demand(shown.contains(told), || format!("no `{told}` in:\n{shown}"))?;
        let errors = service.journal("-p err")?;
        demand(errors.contains(told), || format!("no `{told}` among the journal's errors"))?;
    }
    service.configure(&good)?;
    service.container.run("systemctl start walrecv-server")?;
    service.streams()
}

fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::new(otherwise())) }
}
