//! The documentation's commands, run in the order in which a reader comes to them.
//!
//! A block of `sh` is run as it stands; a `sql` one on the server; a `toml` one has to be a
//! configuration. What cannot be run says why: `sh norun=REASON`. `sh fails` must fail, and
//! `sh needs=PROGRAM` is skipped, loudly, where that program is not.

mod page;
mod world;

use std::fs;

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Failure, Installation, program, tools};

use page::{blocks, repository};
use world::{Beginning, World};

/// The pages with commands that can be run.
const PAGES: [&str; 14] = [
    "docs/first-server.md",
    "docs/synchronous.md",
    "docs/failover-patroni.md",
    "docs/encryption.md",
    "docs/restore-drills.md",
    "docs/monitoring.md",
    "docs/from-barman.md",
    "docs/installation.md",
    "README.md",
    "docs/backups.md",
    "docs/restore.md",
    "docs/restore-by-hand.md",
    "docs/retention.md",
    "docs/hooks.md",
];

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .once("documents_are_all_run", all_are_run)
        .per_major("documents_first_server", &[15, 18], |on| read(on, PAGES[0], Beginning::Nothing))
        .per_major("documents_synchronous", &[18], |on| read(on, PAGES[1], Beginning::BackedUp))
        .per_major("documents_failover", &[18], |on| read(on, PAGES[2], Beginning::BackedUp))
        .per_major("documents_encryption", &[18], |on| read(on, PAGES[3], Beginning::BackedUp))
        .per_major("documents_drills", &[15, 18], |on| read(on, PAGES[4], Beginning::BackedUp))
        .per_major("documents_monitoring", &[18], |on| read(on, PAGES[5], Beginning::BackedUp))
        .per_major("documents_from_barman", &[18], |on| read(on, PAGES[6], Beginning::BackedUp))
        .per_major("documents_installation", &[18], |on| read(on, PAGES[7], Beginning::Nothing))
        .per_major("documents_front", &[18], |on| read(on, PAGES[8], Beginning::Nothing))
        .per_major("documents_backups", &[18], |on| read(on, PAGES[9], Beginning::BackedUp))
        .per_major("documents_restore", &[18], |on| read(on, PAGES[10], Beginning::BackedUp))
        .per_major("documents_by_hand", &[18], |on| read(on, PAGES[11], Beginning::BackedUp))
        .per_major("documents_retention", &[18], |on| read(on, PAGES[12], Beginning::BackedUp))
        .per_major("documents_hooks", &[18], |on| read(on, PAGES[13], Beginning::BackedUp))
}

/// Does what a page says, block by block.
fn read(installation: &Installation, page: &str, beginning: Beginning) -> ScenarioResult {
    let Some(world) = World::new(installation, beginning)? else { return Ok(()) };
    let mut followed = 0;
    for block in blocks(page)? {
        if block.mark("norun").is_some() {
            continue;
        }
        if let Some(needed) = block.mark("needs")
            && program::find_on_path(needed).is_none()
        {
            tools::missing(needed, page);
            continue;
        }
        world.follow(&block).map_err(|failure| {
            Failure::new(format!("{page}, line {}:\n{}\n{failure}", block.line, block.text))
        })?;
        followed += 1;
    }
    assert!(followed > 0 || page.ends_with("installation.md"), "nothing of {page} was run");
    Ok(())
}

/// No page is forgotten, and what is not run says why.
fn all_are_run() -> ScenarioResult {
    let mut pages = vec!["README.md".to_owned()];
    for entry in fs::read_dir(repository().join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    for page in pages {
        for block in blocks(&page)?.iter().filter(|block| block.language == "sh") {
            assert!(PAGES.contains(&page.as_str()), "{page} has commands, and is not run");
            let reason = block.mark("norun");
            assert_ne!(reason, Some(""), "{page}, line {}: why not?", block.line);
        }
    }
    Ok(())
}
