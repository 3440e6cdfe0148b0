//! What the role may do beyond the main job, which needs REPLICATION alone, and the statement that
//! grants what it lacks.

use pgwire_stream::{ResultSet, ServerVersion};

use crate::failure::quoted_role;

/// What configuration files are read with.
const READ_FILE: &str = "pg_read_binary_file(text, bigint, bigint)";

/// What the role of a connection to a database may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// It may do everything.
    pub superuser: bool,
    /// It sees settings such as `data_directory`.
    pub read_all_settings: bool,
    /// It sees the sessions of others, and sizes.
    pub read_all_stats: bool,
    /// It may have the server begin a new WAL segment.
    pub switch_wal: bool,
    /// It may have the server make a checkpoint.
    pub checkpoint: bool,
    /// It may read files of the server.
    pub read_files: bool,
}

/// Something that the role may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// What it would be good for.
    pub purpose: &'static str,
    /// The statement that grants it.
    pub grant: String,
}

impl Privileges {
    /// The columns that tell, for `pg_roles AS role` with the row of the role that asks.
    pub(super) fn columns(version: ServerVersion) -> String {
        let member = |role| format!("pg_catalog.pg_has_role('{role}', 'USAGE')");
        let may = |function| format!("pg_catalog.has_function_privilege('{function}', 'EXECUTE')");
        let checkpoint =
            if version.major() >= 15 { member("pg_checkpoint") } else { "false".to_owned() };
        // Before 11, the files outside of the data directory are for superusers only.
        let files = if version.major() >= 11 {
            format!("({} AND {})", member("pg_read_server_files"), may(READ_FILE))
        } else {
            "false".to_owned()
        };
        format!(
            "role.rolsuper AS superuser, {} AS read_all_settings, {} AS read_all_stats, {} AS \
             switch_wal, {checkpoint} AS checkpoint, {files} AS read_files",
            member("pg_read_all_settings"),
            member("pg_read_all_stats"),
            may("pg_switch_wal()"),
        )
    }

    /// What a query with these columns tells.
    pub(super) fn of(answer: &ResultSet) -> Self {
        let is = |column| answer.parsed::<String>(column).ok().flatten().as_deref() == Some("t");
        Self {
            superuser: is("superuser"),
            read_all_settings: is("read_all_settings"),
            read_all_stats: is("read_all_stats"),
            switch_wal: is("switch_wal"),
            checkpoint: is("checkpoint"),
            read_files: is("read_files"),
        }
    }

    /// What the role may not do, and would be good for something.
    pub fn missing(&self, role: &str, version: ServerVersion) -> Vec<MissingPrivilege> {
        if self.superuser {
            return Vec::new();
        }
        let role = quoted_role(role);
        let mut missing = Vec::new();
        let mut lacks = |has: bool, purpose, what: &str| {
            if !has {
                missing
                    .push(MissingPrivilege { purpose, grant: format!("GRANT {what} TO {role}") });
            }
        };
        match (self.read_all_settings, self.read_all_stats) {
            (false, false) => lacks(
                false,
                "replication-status, the size and the data directory of the server",
                "pg_monitor",
            ),
            (settings, stats) => {
                lacks(settings, "the data directory of the server", "pg_read_all_settings");
                lacks(stats, "replication-status and the size of the server", "pg_read_all_stats");
            }
        }
        lacks(self.switch_wal, "switch-wal", "EXECUTE ON FUNCTION pg_switch_wal()");
        if version.major() >= 15 {
            lacks(self.checkpoint, "switch-wal --force", "pg_checkpoint");
        }
        if version.major() >= 11 && !self.read_files {
            missing.push(MissingPrivilege {
                purpose: "configuration files outside of the data directory",
                grant: format!(
                    "GRANT pg_read_server_files TO {role}; GRANT EXECUTE ON FUNCTION {READ_FILE} \
                     TO {role}"
                ),
            });
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(privileges: Privileges, version: u32) -> Vec<String> {
        let version = ServerVersion::from_num(version);
        privileges.missing("Back up", version).into_iter().map(|lack| lack.grant).collect()
    }

    #[test]
    fn each_missing_privilege_has_its_statement() {
        let none = Privileges::default();
        assert_eq!(
            grants(none, 18_00_00),
            [
                "GRANT pg_monitor TO \"Back up\"",
                "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO \"Back up\"",
                "GRANT pg_checkpoint TO \"Back up\"",
                "GRANT pg_read_server_files TO \"Back up\"; GRANT EXECUTE ON FUNCTION \
                 pg_read_binary_file(text, bigint, bigint) TO \"Back up\"",
            ]
        );
        assert_eq!(grants(none, 10_00_00).len(), 2, "checkpoints are the superusers'");
        let some = Privileges { read_all_settings: true, switch_wal: true, ..none };
        let some = Privileges { read_files: true, ..some };
        assert_eq!(grants(some, 14_00_00), ["GRANT pg_read_all_stats TO \"Back up\""]);
        assert!(grants(Privileges { superuser: true, ..none }, 18_00_00).is_empty());
    }
}
