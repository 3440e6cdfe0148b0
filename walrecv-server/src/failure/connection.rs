//! What an operator can do about a server that refuses us.

use pgwire_stream::{AuthError, ConfigError, Error, ServerError, TlsError};

use super::role::quoted_role;
use super::{Class, Failure};

/// Where systemd puts credentials.
const CREDENTIALS: &str = "/run/credentials";

impl Failure for Error {
    fn class(&self) -> Class {
        match self {
            Self::Config(_) => Class::Usage,
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        advice(self, None)
    }
}

impl Failure for ConfigError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        configuration(self)
    }
}

/// What to do about this error of a connection that was made, or tried, as `role`.
pub fn advice(error: &Error, role: Option<&str>) -> Option<String> {
    let text = match error {
        Error::Config(error) => return configuration(error),
        // The last address is the one that was meant to work if all others do not.
        Error::Connect(attempts) => {
            return attempts.iter().rev().find_map(|attempt| advice(&attempt.cause, role));
        }
        Error::Tls(error) => tls(error),
        Error::Auth(error) => authentication(error),
        Error::Server(error) => return server(error, role),
        Error::Unsupported(_) => "a newer server is needed for that".to_owned(),
        Error::Io(error) => return network(error),
        Error::Timeout { .. } => {
            "see whether the server answers, and whether a firewall drops what is sent to it"
                .to_owned()
        }
        Error::Closed { .. } => "the server's log says why".to_owned(),
        Error::Decode(_) | Error::Violation(_) => {
            "see that the host and port are those of a PostgreSQL server".to_owned()
        }
        _ => return None,
    };
    Some(text)
}

fn configuration(error: &ConfigError) -> Option<String> {
    match error {
        ConfigError::File { path, .. } if path.starts_with(CREDENTIALS) => Some(
            "systemd puts it there while the daemon runs, if its unit has a `LoadCredential=` for \
             it: see `systemctl status walrecv-server`"
                .into(),
        ),
        ConfigError::File { what: "password file", path, .. } => {
            let path = path.display();
            Some(format!(
                "it must be there, and belong to the user who runs this, alone: chmod 0600 {path}"
            ))
        }
        ConfigError::File { .. } => {
            Some("see that the file is there, and that the user who runs this may read it".into())
        }
        ConfigError::UnknownKey { .. } | ConfigError::Syntax { .. } => Some(
            "write it as \"host=… user=… dbname=postgres\" or \"postgresql://user@host/postgres\""
                .into(),
        ),
        _ => Some("see the options of conninfo, the PG* variables, and the files they name".into()),
    }
}

fn tls(error: &TlsError) -> String {
    match error {
        TlsError::Refused { .. } => {
            "set `ssl = on` with a certificate on the server; without TLS (sslmode=disable), WAL \
             and passwords can be read on the way"
        }
        TlsError::Certificate { .. } => {
            "name the certificate of the authority that signed it: sslrootcert=FILE; and the host \
             as the certificate has it"
        }
        TlsError::File { .. } => {
            "see that the file is there, and that the user who runs this may read it"
        }
        TlsError::UnencryptedData => "somebody may be tampering with the connection",
        _ => "the server's log says why",
    }
    .to_owned()
}

fn authentication(error: &AuthError) -> String {
    match error {
        AuthError::PasswordMissing => {
            "put the password into ~/.pgpass (mode 0600, a line `host:port:*:role:password`) of \
             the user who runs this, or into PGPASSWORD"
        }
        AuthError::MethodUnsupported { .. } => {
            "have pg_hba.conf ask for scram-sha-256 or a client certificate"
        }
        AuthError::ChannelBindingUnavailable { .. } => {
            "use sslmode=require or stronger, and scram-sha-256 in pg_hba.conf"
        }
        AuthError::Scram { .. } => "see that the password is right, and the server the one meant",
        _ => "the server's log says why",
    }
    .to_owned()
}

fn network(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    let text = match error.kind() {
        ErrorKind::ConnectionRefused => {
            "nothing listens there: see whether PostgreSQL runs, host and port, and \
             `listen_addresses` on the server"
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "see whether a firewall is between here and the server"
        }
        ErrorKind::NotFound => "see that the host is written as it should be, and the port",
        ErrorKind::PermissionDenied => "the user who runs this may not use that socket",
        // The resolver's errors have no kind of their own.
        _ if error.to_string().contains("lookup") => {
            "no such host: see how it is written, and ask `getent hosts`"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn server(error: &ServerError, role: Option<&str>) -> Option<String> {
    let code = error.code?;
    let role = role.map_or_else(|| "ROLE".to_owned(), quoted_role);
    let text = match code.as_str() {
        "28P01" => format!(
            "see the password of {role} in the file that passfile names in the conninfo (else \
             ~/.pgpass), in PGPASSWORD or the conninfo; as a superuser, \\password {role} sets a new \
             one"
        ),
        // The file's name is the same in every language.
        "28000" if error.message.contains("pg_hba.conf") => hba_entry(&error.message, &role),
        "28000" => format!("see that {role} exists and may log in: ALTER ROLE {role} LOGIN"),
        "42501" if error.severity == "FATAL" => {
            format!("as a superuser: ALTER ROLE {role} REPLICATION")
        }
        "42704" => "`walrecv-server receive-wal SERVER --create-slot` makes the slot; \
                    if it existed before, see who dropped it: WAL may be missing"
            .to_owned(),
        "42710" => "if the slot is ours, `--if-not-exists` accepts it; else name another one \
                    (`slot_name`)"
            .to_owned(),
        "55006" => "another process receives with this slot: stop it, or give every receiver a \
                    slot of its own (`slot_name`)"
            .to_owned(),
        "53300" => "raise `max_wal_senders` (and `max_connections`) on the server, or end senders \
                    that are no longer needed; there are none where `wal_level` is minimal"
            .to_owned(),
        "53400" => "raise `max_replication_slots` on the server, or drop slots that are no \
                    longer needed"
            .to_owned(),
        "55000" => {
            "set `wal_level = replica`, and `max_replication_slots` above 0, on the server, \
                    and see that the slot is still valid: SELECT * FROM pg_replication_slots"
                .to_owned()
        }
        "58P01" => "the server has removed that WAL: take it from elsewhere, or begin anew with \
                    `walrecv-server receive-wal SERVER --reset`, which leaves a gap, and take a \
                    new base backup"
            .to_owned(),
        "XX001" => {
            "pages of the database are damaged: the warnings name them, and the server's log. \
                    Keep the older backups, and see to the server's disk and memory before you \
                    repair the tables; `backup --accept-damaged-pages` stores a backup as it is"
                .to_owned()
        }
        "3D000" => "name an existing database: dbname=postgres".to_owned(),
        "57P03" => "the server is starting or stopping: try again".to_owned(),
        _ => return error.hint.clone(),
    };
    Some(text)
}

/// The line that pg_hba.conf lacks, from the server's complaint about it: whatever the language,
/// the address and the role stand in quotes in it, in this order.
fn hba_entry(message: &str, role: &str) -> String {
    let mut quoted =
        message.split('"').skip(1).step_by(2).filter(|word| !word.contains("pg_hba.conf"));
    let address = quoted.next().unwrap_or("ADDRESS");
    let role = quoted.next().map_or_else(|| role.to_owned(), quoted_role);
    let line = match address {
        "[local]" => format!("local replication {role} scram-sha-256"),
        address => {
            let bits = match address {
                address if address.contains(':') => "/128",
                address if address.starts_with(|c: char| c.is_ascii_digit()) => "/32",
                _ => "",
            };
            format!("host replication {role} {address}{bits} scram-sha-256")
        }
    };
    format!("add this line to pg_hba.conf on the server, and reload it:\n{line}")
}

#[cfg(test)]
mod tests {
    use pgwire_stream::ConnectAttempt;

    use super::*;

    fn says(severity: &str, code: &str, message: &str) -> Error {
        ServerError::new(severity, code, message).into()
    }

    #[test]
    fn a_missing_pg_hba_line_is_given_whole() {
        for (message, line) in [
            (
                "no pg_hba.conf entry for replication connection from host \"10.0.0.7\", \
                 user \"walrecv\", no encryption",
                "host replication walrecv 10.0.0.7/32 scram-sha-256",
            ),
            (
                "kein pg_hba.conf-Eintrag für Replikationsverbindung von Host \"fe80::1\", \
                 Benutzer \"Wal Recv\", SSL aus",
                "host replication \"Wal Recv\" fe80::1/128 scram-sha-256",
            ),
            (
                "no pg_hba.conf entry for replication connection from host \"[local]\", \
                 user \"walrecv\", no encryption",
                "local replication walrecv scram-sha-256",
            ),
        ] {
            let hint = says("FATAL", "28000", message).hint().unwrap();
            assert_eq!(hint.lines().nth(1), Some(line), "{hint}");
        }
    }

    #[test]
    fn the_role_is_named_in_what_a_superuser_should_run() {
        let error = says("FATAL", "42501", "must be superuser or replication role");
        assert_eq!(
            advice(&error, Some("backup")).unwrap(),
            "as a superuser: ALTER ROLE backup REPLICATION"
        );
        assert_eq!(
            advice(&error, Some("Back\"up")).unwrap(),
            "as a superuser: ALTER ROLE \"Back\"\"up\" REPLICATION"
        );
        assert!(error.hint().unwrap().contains("ALTER ROLE ROLE REPLICATION"));
    }

    #[test]
    fn every_refusal_of_a_server_has_advice() {
        for (code, part) in [
            ("28P01", "pgpass"),
            ("28000", "LOGIN"),
            ("42704", "--create-slot"),
            ("42710", "--if-not-exists"),
            ("55006", "slot_name"),
            ("53300", "max_wal_senders"),
            ("53400", "max_replication_slots"),
            ("58P01", "--reset"),
        ] {
            let hint = says("FATAL", code, "x").hint().unwrap();
            assert!(hint.contains(part), "{code}: {hint}");
        }
    }

    #[test]
    fn advice_is_found_under_the_addresses_that_were_tried() {
        let error = Error::Connect(vec![ConnectAttempt {
            host: "db:5432".into(),
            cause: Box::new(TlsError::Refused { mode: "require" }.into()),
        }]);
        assert!(error.hint().unwrap().contains("ssl = on"));
        assert_eq!(error.class(), Class::Failed);
    }

    #[test]
    fn a_password_file_that_others_may_read_is_a_mistake_in_the_configuration() {
        let error = Error::Config(ConfigError::File {
            what: "password file",
            path: "/home/b/.pgpass".into(),
            problem: "others may read it".into(),
        });
        assert_eq!(error.class(), Class::Usage);
        assert!(error.hint().unwrap().ends_with("chmod 0600 /home/b/.pgpass"));
    }

    #[test]
    fn a_credential_is_nobody_s_to_make() {
        let error = Error::Config(ConfigError::File {
            what: "password file",
            path: "/run/credentials/walrecv-server.service/pgpass".into(),
            problem: "it does not exist".into(),
        });
        assert!(error.hint().unwrap().contains("LoadCredential"));
    }
}
