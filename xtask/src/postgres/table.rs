//! The table of the servers found and the judges that come with them.

use walrecv_tests::Installation;
use walrecv_tests::installation::MAJORS;

use crate::table::align;

const JUDGES: [&str; 7] = [
    "psql",
    "pg_basebackup",
    "pg_receivewal",
    "pg_verifybackup",
    "pg_waldump",
    "pg_amcheck",
    "pg_dumpall",
];

/// `wanted` are the majors that were asked for; all without any.
pub(super) fn render(found: &[Installation], wanted: &[u32]) -> String {
    let mut rows = vec![["name", "version", "TLS", "programs in", "judges"].map(String::from)];
    for installation in found {
        let judges: Vec<&str> =
            JUDGES.into_iter().filter(|judge| installation.program(judge).is_some()).collect();
        let judges = match judges.len() {
            0 => "none".to_owned(),
            count if count == JUDGES.len() => "all".to_owned(),
            _ => judges.join(" "),
        };
        let tls = if installation.has_tls() { "yes" } else { "no" };
        rows.push([
            installation.name(),
            installation.version.clone(),
            tls.to_owned(),
            installation.bindir.display().to_string(),
            judges,
        ]);
    }
    let mut lines = align(&rows);
    let missing: Vec<String> = MAJORS
        .filter(|major| wanted.is_empty() || wanted.contains(major))
        .filter(|major| !found.iter().any(|installation| installation.major == *major))
        .map(|major| major.to_string())
        .collect();
    lines.push(format!("{} servers; judges: {}", found.len(), JUDGES.join(", ")));
    if !missing.is_empty() {
        lines.push(format!("missing: {}", missing.join(", ")));
    }
    lines.join("\n")
}
