//! `init`: from what was typed, and answered, to a first configuration and a trial of it.

use std::path::{Path, PathBuf};

use pgwire_stream::{Config, ConnectionOptions};

use super::dispatch::Outcome;
use crate::cli::{Cli, InitArgs};
use crate::commands::init::{
    Addition, FirstConfiguration, InitOutcome, PASSWORD_FILE, Reached, Surroundings, TrialFailure,
    attempt, free_slot, this_machine, what_is_needed, write_addition, write_first, write_password,
};
use crate::output::{Failed, Printer, Results};
use crate::restore::Owner;
use crate::settings::{
    Argument, DEFAULT_HOME, DEFAULT_PATH, DEFAULT_SLOT, Lookup, ServerName, ServerSettings,
    Settings, SettingsError, Typed,
};

/// The name of a server that nobody has named.
const FIRST_SERVER: &str = "main";

/// Where units of systemd lie.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What is known of a server that is not configured yet.
struct Known {
    server: ServerName,
    /// How to reach it, as it was given in pieces or answered.
    conninfo: Option<String>,
    /// Where the store is to lie, if it was asked for.
    home: Option<String>,
    /// A password that was typed, and its file.
    password: Option<(PathBuf, String)>,
}

pub(super) async fn init(
    cli: &Cli,
    args: &InitArgs,
    environment: Lookup<'_>,
    printer: &Printer,
) -> Outcome<Results> {
    let path = configuration(cli, environment);
    let mut typed = cli.typed();
    typed.config = Some(path.clone());
    let written = if is_configured(&path, &typed, args, environment)? {
        Written {
            server: named(args)?,
            file: path.clone(),
            written: false,
            password_file: None,
            example: false,
        }
    } else {
        let known = known(cli, args, environment, printer, &path)?;
        write(&path, &typed, known, environment)?
    };
    typed.servers = vec![written.server.clone()];
    let settings = Settings::load(&typed, environment)?;
    let server = settings.server(&written.server)?;
    let conninfo = server.streaming_conninfo();

    // A file that still has the example in it has nothing to try.
    let tried = if written.example {
        None
    } else {
        // Of a new server, the role may not be there yet.
        let passwords = Some(path.with_file_name(PASSWORD_FILE)).filter(|_| !written.written);
        Some(attempt_until_let_in(server, passwords.as_deref(), &settings.home, printer).await?)
    };
    let reached = tried.as_ref().and_then(|tried| tried.as_ref().ok()).cloned();
    let version = reached.as_ref().map(|reached| reached.version);
    let addresses = if written.example { Vec::new() } else { this_machine(conninfo).await };
    let owner = Owner::of(&settings.home).ok().filter(|owner| *owner != Owner::current());
    let surroundings = Surroundings {
        configuration: Some(path.as_path()).filter(|path| *path != Path::new(DEFAULT_PATH)),
        user: owner.as_ref().map(|owner| owner.name.as_str()),
        unit: UNITS.iter().any(|units| Path::new(units).join("walrecv-server.service").exists()),
    };
    let next = match &reached {
        Some(_) => surroundings.first_commands(&server.name),
        None => surroundings.try_again(&server.name),
    };
    let mut results = Results::one(InitOutcome {
        file: written.file,
        written: written.written,
        password_file: written.password_file,
        server: server.name.clone(),
        needs: what_is_needed(conninfo, version, &addresses),
        reached,
        next,
    });
    if let Some(Err(error)) = tried {
        results.failures.push(Failed { server: None, failure: error.into() });
    }
    Ok(results)
}

/// Tries it, and asks for another password as long as the one in our file is refused.
async fn attempt_until_let_in(
    server: &ServerSettings,
    passwords: Option<&Path>,
    home: &Path,
    printer: &Printer,
) -> Outcome<Result<Reached, TrialFailure>> {
    loop {
        let tried = attempt(server).await;
        let refused = tried.as_ref().is_err_and(TrialFailure::is_wrong_password);
        let config: Config = match server.streaming_conninfo().parse() {
            Ok(config) if refused && printer.can_ask() => config,
            _ => return Ok(tried),
        };
        let Some(passwords) = passwords.filter(|file| config.passfile.as_deref() == Some(file))
        else {
            return Ok(tried);
        };
        let user = config.user.as_deref().unwrap_or_default();
        let about = format!("Password of {user}: the one we have is refused (empty leaves it)");
        let password = printer.ask_secret(&about)?;
        if password.is_empty() {
            return Ok(tried);
        }
        write_password(passwords, home, &config, &password)?;
        let counts = Config::load(server.streaming_conninfo()).is_ok_and(|config| {
            let mut noted = config.hosts.iter().map(|host| config.password_for(host));
            noted.all(|noted| noted.is_some_and(|noted| noted.as_bytes() == password.as_bytes()))
        });
        if !counts {
            // Another one comes first, in the conninfo or the environment: that is what is refused.
            return Ok(tried);
        }
    }
}

/// The configuration that is meant.
fn configuration(cli: &Cli, environment: Lookup<'_>) -> PathBuf {
    let named = cli.global.config.clone();
    let path = named
        .or_else(|| environment("WALRECV_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| DEFAULT_PATH.into());
    std::path::absolute(&path).unwrap_or(path)
}

fn named(args: &InitArgs) -> Result<ServerName, SettingsError> {
    match &args.server {
        Some(server) => Ok(server.clone()),
        None => FIRST_SERVER.parse().map_err(SettingsError::Name),
    }
}

/// Whether the configuration has the server already.
fn is_configured(
    path: &Path,
    typed: &Typed,
    args: &InitArgs,
    environment: Lookup<'_>,
) -> Result<bool, SettingsError> {
    if !path.exists() {
        return Ok(false);
    }
    Ok(in_the_file(typed, environment)?.server(&named(args)?).is_ok())
}

/// What was typed, and what is asked for where somebody can answer.
fn known(
    cli: &Cli,
    args: &InitArgs,
    environment: Lookup<'_>,
    printer: &Printer,
    path: &Path,
) -> Outcome<Known> {
    let whole = cli.global.conninfo.is_some() || environment("WALRECV_CONNINFO").is_some();
    if whole || !printer.can_ask() {
        let described = args.described();
        let conninfo = (!described.is_empty()).then(|| conninfo(&described));
        return Ok(Known { server: named(args)?, conninfo, home: None, password: None });
    }
    let anything = |_: &str| Ok(());
    let server = match &args.server {
        Some(server) => server.clone(),
        None => {
            let check = |answer: &str| {
                answer.parse::<ServerName>().map(drop).map_err(|error| error.to_string())
            };
            let answer = printer.ask("Name of the server here", Some(FIRST_SERVER), &check)?;
            answer.parse().map_err(SettingsError::Name)?
        }
    };
    let ask = |given: &Option<String>, about: &str, default: Option<&str>| match given {
        Some(given) => Ok(given.clone()),
        None => printer.ask(about, default, &anything),
    };
    let host = ask(&args.host, "Host that PostgreSQL runs on", None)?;
    let port = match &args.port {
        Some(port) => port.to_string(),
        None => printer.ask("Port", Some("5432"), &a_port)?,
    };
    let user = ask(&args.user, "Role to log in as", Some("walrecv"))?;
    let dbname = ask(&args.dbname, "Database for SQL", Some("postgres"))?;
    let sslmode = match &args.sslmode {
        Some(given) => given.clone(),
        None if host.starts_with(['/', '@']) => String::new(),
        None => {
            let about = "TLS (sslmode: disable, prefer, require, verify-ca, verify-full)";
            printer.ask(about, Some("require"), &a_mode)?
        }
    };
    let described = [
        ("host", host),
        ("port", port),
        ("user", user.clone()),
        ("dbname", dbname),
        ("sslmode", sslmode),
    ];
    let described: Vec<_> = described.into_iter().filter(|(_, text)| !text.is_empty()).collect();
    let mut conninfo = conninfo(&described);
    let asks_for_home =
        cli.global.home.is_none() && environment("WALRECV_HOME").is_none() && !path.exists();
    let home = match asks_for_home {
        true => {
            Some(printer.ask("Where backups and WAL go", Some(DEFAULT_HOME), &an_absolute_path)?)
        }
        false => None,
    };
    let file = path.with_file_name(PASSWORD_FILE);
    let with_file = format!("{conninfo} passfile={}", quoted(&file.to_string_lossy()));
    let password = if file.exists() && has_password(&with_file) {
        conninfo = with_file;
        None
    } else if has_password(&conninfo) {
        None
    } else {
        let about = format!("Password of {user} (is not shown; empty if ~/.pgpass has it)");
        let password = printer.ask_secret(&about)?;
        let typed = !password.is_empty();
        if typed {
            conninfo = with_file;
        }
        typed.then_some((file, password))
    };
    Ok(Known { server, conninfo: Some(conninfo), home, password })
}

fn a_port(text: &str) -> Result<(), String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

fn a_mode(text: &str) -> Result<(), String> {
    let parsed: Result<Config, _> = format!("sslmode={}", quoted(text)).parse();
    parsed.map(drop).map_err(|error| error.to_string())
}

fn an_absolute_path(text: &str) -> Result<(), String> {
    match Path::new(text).is_absolute() {
        true => Ok(()),
        false => Err("an absolute path, please: it begins with /".to_owned()),
    }
}

fn has_password(conninfo: &str) -> bool {
    Config::load(conninfo)
        .is_ok_and(|config| config.hosts.iter().all(|host| config.password_for(host).is_some()))
}

/// A conninfo of these options.
fn conninfo(options: &[(&str, String)]) -> String {
    let words: Vec<_> =
        options.iter().map(|(option, text)| format!("{option}={}", quoted(text))).collect();
    let text = words.join(" ");
    // Without quotes where none are needed.
    text.parse::<ConnectionOptions>().map_or(text, |options| options.to_string())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What was written, or is there.
struct Written {
    server: ServerName,
    file: PathBuf,
    written: bool,
    password_file: Option<PathBuf>,
    /// Whether the conninfo is nothing but an example.
    example: bool,
}

/// Checks what is known, and writes it: the configuration, or a file beside one that is there.
fn write(path: &Path, typed: &Typed, known: Known, environment: Lookup<'_>) -> Outcome<Written> {
    let Known { server, conninfo, home, password } = known;
    let mut checked = Typed { servers: vec![server.clone()], ..typed.clone() };
    checked.config = Some(if path.exists() { path.to_owned() } else { "/dev/null".into() });
    for (key, option, value) in [("conninfo", "conninfo", conninfo), ("home", "home", home)] {
        checked.arguments.extend(value.map(|value| Argument {
            option: option.to_owned(),
            key: key.to_owned(),
            value,
        }));
    }
    let settings = Settings::load(&checked, environment)?;
    let configured = settings.servers.iter().find(|configured| configured.name == server);
    let others = match path.exists() {
        true => in_the_file(typed, environment)?.servers,
        false => Vec::new(),
    };
    let slot = match configured {
        Some(configured) => free_slot(configured, &others).to_string(),
        None => DEFAULT_SLOT.to_owned(),
    };
    let addition = Addition {
        server: server.clone(),
        conninfo: configured.map(|server| server.conninfo.as_str().to_owned()),
        slot_name: slot,
    };
    let example = configured.is_none();
    let (file, written) = if path.exists() {
        // Nothing can be added of which nothing is known.
        settings.server(&server)?;
        match write_addition(path, &addition)? {
            Some(file) => (file, true),
            None => (path.to_owned(), false),
        }
    } else {
        let home = settings.home.clone();
        let first = FirstConfiguration { path: path.to_owned(), home, addition: addition.clone() };
        (path.to_owned(), write_first(&first)?)
    };
    let mut password_file = None;
    if let (Some((file, password)), Some(conninfo)) = (password, &addition.conninfo)
        && let Ok(config) = conninfo.parse::<Config>()
    {
        write_password(&file, &settings.home, &config, &password)?;
        password_file = Some(file);
    }
    Ok(Written { server, file, written, password_file, example })
}

/// What the configuration says, without what is typed for a new server.
fn in_the_file(typed: &Typed, environment: Lookup<'_>) -> Result<Settings, SettingsError> {
    let file = Typed { config: typed.config.clone(), ..Typed::default() };
    let without = |name: &str| environment(name).filter(|_| name != "WALRECV_CONNINFO");
    Settings::load(&file, &without)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_a_conninfo() {
        let pieces = [("host", "db1".to_owned()), ("user", "it's".to_owned())];
        assert_eq!(conninfo(&pieces), "host=db1 user='it\\'s'");
    }

    #[test]
    fn answers_are_checked_when_they_are_given() {
        assert!(a_port("5432").is_ok() && a_port("0").is_err() && a_port("x").is_err());
        assert!(a_mode("verify-full").is_ok() && a_mode("sometimes").is_err());
        assert!(an_absolute_path("/srv").is_ok() && an_absolute_path("srv").is_err());
    }
}
