//! `cargo xtask pictures`: the status page, of a real daemon that looks after real servers.
//!
//! Nothing on the page is made up. That a week is to be seen after minutes is because servers and
//! daemon are told that it is another day, and backups, a failover and a gap are made on each. While
//! the pictures are taken their clock is right: rates, lags and progress are those of that moment.

mod browser;
mod clock;
mod servers;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use rustix::process::Signal;
use walrecv_tests::port::free_port;
use walrecv_tests::walrecv::{self, Daemon, Walrecv};
use walrecv_tests::{Context, Failure, Result, program};

use crate::interrupt::Interrupt;
use crate::{paths, tools};
use browser::Browser;
use clock::Clock;
use servers::{Load, PLANS, SESSIONS, Server, write};

/// How long the page watches before the pictures are taken: its curves are then full.
const WATCHED: Duration = Duration::from_secs(125);

/// So many days ago it all began: behind the edge of the pictures.
const FIRST: i32 = 7;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave daemon and servers running afterwards, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let outcome = make(arguments, &interrupt);
    walrecv::remove_copy();
    outcome
}

fn make(arguments: &Arguments, interrupt: &Interrupt) -> Result<()> {
    tools::succeed(paths::cargo().args(["build", "--package", "walrecv-server"]))?;
    let directory = tempfile::tempdir().context(|| "no temporary directory".to_owned())?;
    let mut week = Week::begin(Clock::new(directory.path())?)?;
    for days in (0..=FIRST).rev() {
        interrupt.check()?;
        week.day(days)?;
    }
    week.today()?;
    interrupt.check()?;
    let load = Load::start(&week.servers)?;
    let mut browser = Browser::open(&directory.path().join("browser"))?;
    browser.go(&format!("http://127.0.0.1:{}/", week.port))?;
    println!("watching the page for {WATCHED:?}");
    for _ in 0..WATCHED.as_secs() {
        interrupt.check()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let images = paths::workspace().join("docs/images");
    save(&images, "status-light.png", &browser.picture(1200, None, false)?)?;
    save(&images, "status-dark.png", &browser.picture(1200, None, true)?)?;
    save(&images, "status-phone.png", &browser.picture(390, Some(780), false)?)?;
    println!("http://127.0.0.1:{}/", week.port);
    while arguments.stay && !interrupt.came() {
        std::thread::sleep(Duration::from_secs(1));
    }
    load.stop()?;
    week.daemon.take().map_or(Ok(0), Daemon::stop).map(drop)
}

fn save(images: &Path, name: &str, picture: &[u8]) -> Result<()> {
    let path = images.join(name);
    std::fs::write(&path, picture).context(|| format!("cannot write {}", path.display()))?;
    if let Some(pngquant) = program::find_on_path("pngquant") {
        let mut command = Command::new(pngquant);
        command.args([
            "--force",
            "--ext",
            ".png",
            "--strip",
            "--speed",
            "1",
            "--quality",
            "90-100",
        ]);
        tools::succeed(command.arg(&path))?;
    }
    println!("{}", path.display());
    Ok(())
}

/// The servers, who looks after them, and the days that pass for them.
struct Week {
    clock: Clock,
    servers: Vec<Server>,
    walrecv: Walrecv,
    daemon: Option<Daemon>,
    port: u16,
    midnight: Zoned,
}

impl Week {
    fn begin(clock: Clock) -> Result<Self> {
        println!("making the servers");
        let environment = clock.environment();
        let started = PLANS.into_iter().map(|plan| Server::start(plan, &environment));
        let servers = started.collect::<Result<Vec<_>>>()?;
        // The last night is over.
        let midnight = (Timestamp::now() - 3.hours()).to_zoned(TimeZone::UTC).start_of_day();
        let midnight = midnight.context(|| "no midnight".to_owned())?;
        let port = free_port()?;
        let walrecv = Walrecv::new("")?;
        let week = Self { clock, servers, walrecv, daemon: None, port, midnight };
        week.configure(false)?;
        Ok(week)
    }

    fn configure(&self, scheduled: bool) -> Result<()> {
        let section = |server: &Server| server.section(scheduled);
        let sections: String = self.servers.iter().map(section).collect();
        self.walrecv.configure(&format!(
            "[http]\nlisten = \"127.0.0.1:{}\"\n[defaults]\nimmediate_checkpoint = true\n\
             time_zone = \"UTC\"\ncheck_interval = \"1m\"\n{sections}",
            self.port
        ))
    }

    fn start_daemon(&mut self) -> Result<()> {
        let mut words = vec!["env".to_owned()];
        let variables = self.clock.environment();
        words.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        self.daemon = Some(self.walrecv.spawn_behind(&words, &["run"])?);
        Ok(())
    }

    /// So many days ago, at this hour.
    fn at(&self, days: i32, hour: i32) -> Result<()> {
        let moment = self.midnight.checked_sub(days.days());
        let moment = moment.and_then(|day| day.checked_add((hour * 60 + 10).minutes()));
        let moment = moment.context(|| "no such moment".to_owned())?;
        println!("{moment}");
        self.clock.set(moment.timestamp())
    }

    /// A day, so many days ago.
    fn day(&mut self, days: i32) -> Result<()> {
        self.at(days, 2)?;
        if self.daemon.is_none() {
            self.start_daemon()?;
        }
        let weekday = self.midnight.checked_sub(days.days()).context(|| "no day".to_owned())?;
        let weekday = weekday.weekday().to_sunday_zero_offset();
        for server in &self.servers {
            let plan = &server.plan;
            write(&server.cluster, 2 + plan.rate / 100)?;
            server.settle()?;
            if plan.full.contains(&weekday) || days == FIRST {
                self.command(&["backup", plan.name, "--wait"])?;
            } else if plan.incremental {
                self.command(&["backup", plan.name, "--incremental", "auto", "--wait"])?;
            }
        }
        match days {
            4 => self.lose_wal(days),
            3 => self.lose_primary(days),
            _ => Ok(()),
        }
    }

    /// The backup host is down for hours, and the sessions' server keeps only so much WAL.
    fn lose_wal(&mut self, days: i32) -> Result<()> {
        self.at(days, 11)?;
        for server in &self.servers {
            write(&server.cluster, 2)?;
            server.settle()?;
        }
        self.daemon.take().map_or(Ok(0), Daemon::stop)?;
        self.at(days, 15)?;
        let sessions = self.server(SESSIONS)?;
        for _ in 0..4 {
            write(&sessions.cluster, 40)?;
            sessions.cluster.execute("CHECKPOINT")?;
        }
        self.at(days, 20)?;
        self.start_daemon()?;
        self.server("orders")?.settle()?;
        let sessions = self.server(SESSIONS)?;
        let end = sessions.cluster.value("SELECT pg_current_wal_flush_lsn()")?;
        write(&sessions.cluster, 1)?;
        self.command(&["receive-wal", SESSIONS, "--reset", "--endpos", &end])?;
        self.command(&["backup", SESSIONS, "--wait"])
    }

    /// The invoices' primary is lost, and the standby takes over.
    fn lose_primary(&mut self, days: i32) -> Result<()> {
        self.at(days, 14)?;
        let billing = self.servers.iter_mut().find(|server| server.plan.name == "billing");
        let billing = billing.context(|| "no billing".to_owned())?;
        write(&billing.cluster, 1)?;
        billing.settle()?;
        billing.fail_over()?;
        write(&billing.cluster, 1)?;
        billing.settle()
    }

    /// The clock is right, the schedules are followed, and what is too old goes.
    fn today(&mut self) -> Result<()> {
        self.clock.right()?;
        self.configure(true)?;
        let daemon = self.daemon.as_ref().context(|| "no daemon".to_owned())?;
        daemon.signal(Signal::HUP)?;
        let orders = self.server("orders")?;
        orders.cluster.execute("ALTER SYSTEM SET synchronous_standby_names = 'walrecv'")?;
        orders.cluster.reload()?;
        self.command(&["cron"])
    }

    fn server(&self, name: &str) -> Result<&Server> {
        self.servers.iter().find(|server| server.plan.name == name).context(|| format!("no {name}"))
    }

    /// Runs a command of the product, at the hour of the clock.
    fn command(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.walrecv.command(arguments)?;
        let output = walrecv::finish(command.envs(self.clock.environment()))?.success();
        let output = output.map_err(|failure| {
            Failure::new(format!("`walrecv-server {}`: {failure}", arguments.join(" ")))
        })?;
        println!("walrecv-server {}\n{}", arguments.join(" "), output.stdout.trim_end());
        Ok(())
    }
}
