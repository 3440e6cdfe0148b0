//! What maintenance did, or retention would do.

use serde_json::{Map, Value, json};

use super::{Report, archive_wal, units};
use crate::commands::cron::{CronDone, CronOutcome};
use crate::failure::{Failure, in_one_line};
use crate::receiver::ArchivePass;
use crate::retention::{Enforced, Fate, KeptFrom, Reason, RetentionPlan};

impl Report for CronOutcome {
    fn console(&self) -> String {
        let server = self.server.as_str();
        match &self.done {
            CronDone::Inactive { dry_run: false } => String::new(),
            CronDone::Inactive { dry_run: true } => {
                format!("Server '{server}' is not active: nothing is done for it\n")
            }
            CronDone::Planned { plan, previous } => {
                let mut text = match plan {
                    None => format!("Nothing is stored for server '{server}' yet\n"),
                    Some(plan) => planned(server, plan),
                };
                for (name, plan) in previous {
                    text.push_str(&planned(&format!("{server}/previous/{name}"), plan));
                }
                text
            }
            CronDone::Done { archived, enforced } => {
                let mut text = archived_line(*archived, server) + &done(server, enforced);
                for (name, previous) in &enforced.previous {
                    text.push_str(&done(&format!("{server}/previous/{name}"), previous));
                }
                for (name, error) in &enforced.failed {
                    text.push_str(&format!(
                        "Retention of server '{server}/previous/{name}' failed: {}\n",
                        in_one_line(error)
                    ));
                }
                text
            }
            CronDone::Busy { archived, by } => format!(
                "{}Retention of server '{server}' waits for the next time: {by}\n",
                archived_line(*archived, server)
            ),
        }
    }

    fn exit_code(&self) -> u8 {
        match &self.done {
            CronDone::Done { enforced, .. } => {
                enforced.failed.iter().map(|(_, error)| error.exit_code()).max().unwrap_or_default()
            }
            _ => 0,
        }
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        match &self.done {
            CronDone::Inactive { .. } => json!({"server": self.server, "active": false}),
            CronDone::Planned { plan, previous } => json!({
                "server": self.server,
                "dry_run": true,
                "retention": plan.as_deref().map(plan_json),
                "previous": previous.iter().map(|(name, plan)| json!({
                    "server": name,
                    "retention": plan_json(plan),
                })).collect::<Vec<_>>(),
            }),
            CronDone::Done { archived, enforced } => json!({
                "server": self.server,
                "wal": archive_wal::json(*archived),
                "settled": enforced.settled,
                "retention": enforced.plan.as_ref().map(plan_json),
                "deleted": enforced.removed.backups,
                "previous": enforced.previous.iter().map(|(name, previous)| json!({
                    "server": name,
                    "retention": previous.plan.as_ref().map(plan_json),
                    "deleted": previous.removed.backups,
                })).collect::<Vec<_>>(),
                "failed": enforced.failed.iter().map(|(name, error)| json!({
                    "server": name,
                    "error": in_one_line(error),
                })).collect::<Vec<_>>(),
            }),
            CronDone::Busy { archived, .. } => json!({
                "server": self.server,
                "wal": archive_wal::json(*archived),
                "busy": true,
            }),
        }
    }
}

/// Silent where there was nothing to do: this is what cron mails.
fn archived_line(pass: ArchivePass, server: &str) -> String {
    match pass {
        ArchivePass::Archived(1..) => format!("{}\n", archive_wal::sentence(pass, server)),
        _ => String::new(),
    }
}

fn done(server: &str, enforced: &Enforced) -> String {
    let mut text = String::new();
    for backup in &enforced.settled {
        text.push_str(&format!("Backup {backup} of server '{server}' is done\n"));
    }
    let Some(plan) = &enforced.plan else { return text };
    for (backup, verdict) in &plan.backups {
        if enforced.removed.backups.contains(&backup.id) {
            text.push_str(&format!(
                "Deleted backup {} of server '{server}' ({}): {}\n",
                backup.id,
                units::size(backup.size),
                told(&verdict.reasons)
            ));
        }
    }
    if enforced.removed.wal_files > 0 {
        text.push_str(&format!(
            "Deleted {} files of WAL of server '{server}' ({})\n",
            enforced.removed.wal_files,
            units::size(plan.wal_bytes())
        ));
    }
    text
}

fn planned(server: &str, plan: &RetentionPlan) -> String {
    let policy = plan.rules.policy.map_or("no policy".to_owned(), |policy| policy.to_string());
    let mut text = format!("Retention of server '{server}': {policy}");
    if plan.rules.minimum_redundancy > 0 {
        text.push_str(&format!(", minimum redundancy {}", plan.rules.minimum_redundancy));
    }
    text.push('\n');
    for (backup, verdict) in plan.backups.iter().rev() {
        let what = if verdict.stays { "KEEP  " } else { "DELETE" };
        text.push_str(&format!("  {} {what} {}\n", backup.id, told(&verdict.reasons)));
    }
    for wal in &plan.wal {
        for kept in &wal.kept {
            text.push_str(&format!("  WAL {} KEEP   {}\n", stretch(kept), kept.why));
        }
        if wal.files > 0 {
            text.push_str(&format!(
                "  WAL of timeline {} DELETE {} files ({}) that nothing needs\n",
                wal.timeline,
                wal.files,
                units::size(wal.bytes)
            ));
        }
    }
    let free = plan.backup_bytes() + plan.wal_bytes();
    text.push_str(&if plan.is_empty() {
        "  Nothing would be deleted\n".to_owned()
    } else {
        format!("  {} would become free\n", units::size(free))
    });
    text
}

fn stretch(kept: &KeptFrom) -> String {
    match kept.to {
        None => format!("from {} on", kept.from),
        Some(to) if to == kept.from => kept.from.to_string(),
        Some(to) => format!("from {} to {to}", kept.from),
    }
}

fn told(reasons: &[Reason]) -> String {
    let told: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    told.join("; ")
}

fn plan_json(plan: &RetentionPlan) -> Value {
    let backups: Vec<_> = plan
        .backups
        .iter()
        .map(|(backup, verdict)| {
            let reasons = verdict.reasons.iter();
            let reasons: Vec<_> = reasons
                .map(|reason| json!({"code": reason.code(), "text": reason.to_string()}))
                .collect();
            json!({
                "id": backup.id,
                "status": backup.status,
                "size": backup.size,
                "stays": verdict.stays,
                "reasons": reasons,
            })
        })
        .collect();
    let why = |fate: &Fate| json!({"code": fate.code(), "text": fate.to_string()});
    let wal: Vec<_> = plan
        .wal
        .iter()
        .map(|wal| {
            let kept = wal.kept.iter();
            let kept: Vec<_> = kept
                .map(|kept| json!({"from": kept.from, "to": kept.to, "reason": why(&kept.why)}))
                .collect();
            json!({
                "timeline": wal.timeline,
                "goes": {"files": wal.files, "size": wal.bytes},
                "stays": kept,
            })
        })
        .collect();
    json!({
        "policy": plan.rules.policy.map(|policy| policy.to_string()),
        "minimum_redundancy": plan.rules.minimum_redundancy,
        "backups": backups,
        "wal": wal,
        "size": plan.backup_bytes() + plan.wal_bytes(),
    })
}
