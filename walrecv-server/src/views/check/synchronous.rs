//! Whether commits on the server wait for what is received here, and whether they may wait in vain.

use pgwire_stream::{Error, ReplicationClient};

use super::{Row, State};
use crate::receiver;
use crate::settings::{ServerSettings, Synchronous};

const NAME: &str = "synchronous replication";

/// What is known about commits that wait.
struct Commits {
    /// The server names us.
    named: bool,
    /// Where `synchronous_commit = remote_apply` was seen.
    remote_apply: Option<&'static str>,
}

/// Advice about commits that wait; none where the server cannot be asked.
pub(super) async fn row(
    client: &mut ReplicationClient,
    database: Option<&mut ReplicationClient>,
    settings: &ServerSettings,
) -> Option<Row> {
    let config = receiver::receiving_config(settings.streaming_conninfo()).ok()?;
    let name = config.application_name().unwrap_or_default();
    let commits = look(client, database, name).await.ok()?;
    Some(judge(&commits, settings.synchronous))
}

async fn look(
    client: &mut ReplicationClient,
    database: Option<&mut ReplicationClient>,
    name: &str,
) -> Result<Commits, Error> {
    let names = client.show("synchronous_standby_names").await?;
    let named = receiver::is_named(&names, name);
    let mut remote_apply = None;
    if client.show("synchronous_commit").await? == "remote_apply" {
        remote_apply = Some("the server's setting");
    } else if let Some(database) = database {
        // What sessions of some roles and databases begin with.
        let sql = "SELECT count(*) FROM pg_catalog.pg_db_role_setting \
                   WHERE 'synchronous_commit=remote_apply' = ANY (setconfig)";
        // Without the right to see it, what others have set is their affair.
        let count = database.query(sql).await.ok();
        let count = count.and_then(|rows| rows.required::<u64>("count").ok());
        remote_apply = count.filter(|count| *count > 0).map(|_| "a setting of a role or database");
    }
    Ok(Commits { named, remote_apply })
}

fn judge(commits: &Commits, synchronous: Synchronous) -> Row {
    match commits {
        Commits { named: false, .. } => Row::advice(NAME, State::Ok, "no commit waits for us"),
        Commits { remote_apply: Some(place), .. } => Row::advice(
            NAME,
            State::Warning,
            format!(
                "synchronous_standby_names names us, and commits with `synchronous_commit = \
                 remote_apply` ({place}) wait for ever: WAL is made durable here and never \
                 replayed. Use `on`, or name standbys only"
            ),
        ),
        Commits { .. } if synchronous == Synchronous::Never => Row::advice(
            NAME,
            State::Warning,
            "synchronous_standby_names names us, and with `synchronous = false` each commit waits \
             for up to `flush_interval`",
        ),
        Commits { .. } => Row::advice(NAME, State::Ok, "commits wait until WAL is durable here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_that_would_wait_in_vain_are_warned_of() {
        let judged = |named, remote_apply, synchronous| {
            let row = judge(&Commits { named, remote_apply }, synchronous);
            assert!(row.advisory);
            (row.state, row.remark.unwrap())
        };
        let auto = Synchronous::WhenNamed;
        assert_eq!(judged(false, Some("x"), auto).0, State::Ok);
        assert_eq!(judged(true, None, auto).0, State::Ok);
        let (state, remark) = judged(true, Some("the server's setting"), auto);
        assert_eq!(state, State::Warning);
        assert!(remark.contains("remote_apply` (the server's setting)"), "{remark}");
        assert_eq!(judged(true, None, Synchronous::Never).0, State::Warning);
    }
}
