//! The four servers that are shown: what they are, hold and write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use walrecv_tests::{Cluster, Context, Failure, Result, installation};

/// The one that loses WAL.
pub(super) const SESSIONS: &str = "sessions";
/// The one that is backed up while the pictures are taken.
const WAREHOUSE: &str = "warehouse";

const ROLE: &str = "walrecv";
const PASSWORD: &str = "backup-secret";

/// What a server is to be.
pub(super) struct Plan {
    pub(super) name: &'static str,
    about: &'static str,
    major: u32,
    /// How much it holds.
    megabytes: u32,
    /// How much it writes while the pictures are taken, in kilobytes a second.
    pub(super) rate: u32,
    standby: bool,
    /// The days of the week with a full backup, from Sunday on.
    pub(super) full: &'static [i8],
    /// Whether there is an incremental one on the others.
    pub(super) incremental: bool,
    retention: &'static str,
}

/// The four.
pub(super) const PLANS: [Plan; 4] = [
    Plan {
        name: "orders",
        about: "Shop",
        major: 18,
        megabytes: 300,
        rate: 3000,
        standby: false,
        full: &[0, 3],
        incremental: true,
        retention: "RECOVERY WINDOW OF 14 DAYS",
    },
    Plan {
        name: "billing",
        about: "Invoices, two nodes",
        major: 17,
        megabytes: 120,
        rate: 400,
        standby: true,
        full: &[0, 1, 3, 5],
        incremental: true,
        retention: "RECOVERY WINDOW OF 5 DAYS",
    },
    Plan {
        name: SESSIONS,
        about: "Logins",
        major: 16,
        megabytes: 60,
        rate: 1200,
        standby: false,
        full: &[0, 1, 2, 3, 4, 5, 6],
        incremental: false,
        retention: "RECOVERY WINDOW OF 14 DAYS",
    },
    Plan {
        name: WAREHOUSE,
        about: "Reports, loaded at night",
        major: 15,
        megabytes: 200,
        rate: 0,
        standby: false,
        full: &[4],
        incremental: false,
        retention: "REDUNDANCY 4",
    },
];

/// A database server, and the standby that may follow it.
pub(super) struct Server {
    pub(super) plan: Plan,
    pub(super) cluster: Cluster,
    standby: Option<Cluster>,
}

impl Server {
    /// Makes it, and has it run by this clock.
    pub(super) fn start(plan: Plan, environment: &[(String, String)]) -> Result<Self> {
        let major = plan.major;
        let installation = installation::of_major(major)
            .context(|| format!("PostgreSQL {major} is missing: cargo xtask postgres install"))?;
        let mut options = Cluster::options(installation)
            .wal_segment_megabytes(4)
            .config("max_wal_size = 64MB")
            .config("min_wal_size = 16MB")
            // A day passes for it in a moment.
            .config("wal_sender_timeout = 0")
            .config("wal_receiver_timeout = 0")
            // Its bursts would hide the clients'.
            .config("autovacuum = off");
        if plan.name == SESSIONS {
            options = options.config("max_slot_wal_keep_size = 64MB");
        }
        if major >= 17 {
            options = options.config("summarize_wal = on");
        }
        let mut cluster = options.create()?;
        cluster.environment(environment);
        cluster.start()?;
        cluster.create_role(ROLE, PASSWORD, "REPLICATION")?;
        cluster.execute("CREATE TABLE rows (id bigserial PRIMARY KEY, row text)")?;
        write(&cluster, plan.megabytes)?;
        let mut standby = None;
        if plan.standby {
            cluster.stop()?;
            let mut second = cluster.make_standby()?;
            second.environment(environment);
            cluster.start()?;
            second.start()?;
            standby = Some(second);
        }
        Ok(Self { plan, cluster, standby })
    }

    /// Its section of the configuration, with or without its schedules.
    pub(super) fn section(&self, scheduled: bool) -> String {
        let Plan { name, about, retention, .. } = self.plan;
        let hosts = || std::iter::once(&self.cluster).chain(&self.standby);
        let addresses = hosts().map(|_| "127.0.0.1").collect::<Vec<_>>().join(",");
        let ports = hosts().map(|host| host.port().to_string()).collect::<Vec<_>>().join(",");
        let schedules = if scheduled { self.schedules() } else { String::new() };
        format!(
            "[servers.{name}]\ndescription = \"{about}\"\nretention_policy = \"{retention}\"\n\
             slot_on_all_hosts = {}\n{schedules}\
             conninfo = \"host={addresses} port={ports} user={ROLE} password={PASSWORD} \
             dbname=postgres sslmode=disable target_session_attrs=primary\"\n",
            self.standby.is_some()
        )
    }

    /// When its backups are taken, as they were so far.
    fn schedules(&self) -> String {
        if self.plan.name == WAREHOUSE {
            let soon = Timestamp::now().to_zoned(TimeZone::UTC) + 1.minute();
            let (minute, hour) = (soon.minute(), soon.hour());
            // It takes its time.
            return format!(
                "backup_schedule = \"{minute} {hour} * * *\"\nbandwidth_limit = \"1300kB\"\n"
            );
        }
        let on = |wanted: &dyn Fn(&i8) -> bool| {
            let days: Vec<_> = (0..7).filter(wanted).map(|day: i8| day.to_string()).collect();
            format!("\"10 2 * * {}\"", days.join(","))
        };
        let mut text = format!("backup_schedule = {}\n", on(&|day| self.plan.full.contains(day)));
        if self.plan.incremental {
            let others = on(&|day| !self.plan.full.contains(day));
            text.push_str(&format!("incremental_schedule = {others}\n"));
        }
        text
    }

    /// The standby takes over, and the former primary follows it.
    pub(super) fn fail_over(&mut self) -> Result<()> {
        let primary =
            self.standby.take().context(|| format!("{} has no standby", self.plan.name))?;
        self.cluster.stop()?;
        primary.promote()?;
        let mut standby = std::mem::replace(&mut self.cluster, primary);
        standby.follow(&self.cluster)?;
        standby.start()?;
        self.standby = Some(standby);
        Ok(())
    }

    /// Waits until everything that it has committed is durable at the backup server.
    pub(super) fn settle(&self) -> Result<()> {
        let end = self.cluster.value("SELECT pg_current_wal_insert_lsn()")?;
        self.cluster.wait_for(&format!("the WAL of {}", self.plan.name), |cluster| {
            let sql = format!(
                "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'walrecv' \
                 AND state = 'streaming' AND flush_lsn >= '{end}'"
            );
            Ok(cluster.value(&sql)? != "0")
        })
    }
}

/// Commits so many megabytes.
pub(super) fn write(cluster: &Cluster, megabytes: u32) -> Result<()> {
    let mut session = cluster.session()?;
    for _ in 0..megabytes {
        session.query(&rows(1000))?;
    }
    Ok(())
}

/// An insert of so many rows of a kilobyte, half of which is noise.
fn rows(count: u32) -> String {
    format!(
        "INSERT INTO rows (row) SELECT (SELECT string_agg(md5(random()::text || n || i) || \
         repeat('-', 32), '') FROM generate_series(1, 14) AS i) FROM generate_series(1, {count}) AS n"
    )
}

/// Clients that write, now more and now less. Dropping it ends them.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    pub(super) fn start(servers: &[Server]) -> Result<Self> {
        let mut load = Self { stop: Arc::default(), threads: Vec::new() };
        for (place, server) in servers.iter().enumerate().filter(|(_, server)| server.plan.rate > 0)
        {
            let mut session = server.cluster.session()?;
            let (stop, rate, begin) =
                (Arc::clone(&load.stop), f64::from(server.plan.rate), Instant::now());
            load.threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let at = begin.elapsed().as_secs_f64() + 7.0 * place as f64;
                    let tide = 1.0 + 0.45 * (at / 9.0).sin() + 0.3 * (at / 2.3).sin();
                    session.query(&rows((rate * tide * 0.2) as u32))?;
                    std::thread::sleep(Duration::from_millis(200));
                }
                Ok(())
            }));
        }
        Ok(load)
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| Failure::new("a client panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
