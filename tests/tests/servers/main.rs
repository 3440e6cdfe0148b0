//! Whole-system tests on real servers of every major.
// All of it is tests, which fail by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod adopt;
mod bad_input;
mod barman_shapes;
mod capabilities;
mod catalog_commands;
mod commands;
mod config_files;
mod crashes;
mod cut_backups;
mod daemon;
mod disk_trouble;
mod disturbed_backups;
mod documents;
mod encryption;
mod examples;
mod failing_disk;
mod failover;
mod first_steps;
mod full_path;
mod harness;
mod hooks;
mod http;
mod incremental_backups;
mod ledger;
mod library_backup;
mod library_cancel;
mod library_commands;
mod library_connect;
mod library_formats;
mod library_hosts;
mod library_server;
mod library_stream;
mod library_stream_ends;
mod library_stream_reports;
mod library_tls;
mod library_wal;
mod many_files;
mod odd_places;
mod operator_views;
mod power_cut;
mod restore_plans;
mod restored_chains;
mod retention;
mod runtime;
mod same_segments;
mod site;
mod slots;
mod standby_restore;
mod store_owner;
mod suspect_wal;
mod sync_before_record;
mod sync_before_report;
mod synchronous;
mod synchronous_watch;
mod targets;
mod wal_delivery;

use walrecv_tests::run::Scenarios;

fn main() -> std::process::ExitCode {
    let mut scenarios = Scenarios::new();
    for register in [
        harness::register,
        library_connect::register,
        library_commands::register,
        library_backup::register,
        library_tls::register,
        library_hosts::register,
        library_cancel::register,
        library_server::register,
        library_formats::register,
        library_stream::register,
        library_stream_ends::register,
        library_stream_reports::register,
        library_wal::register,
        examples::register,
        capabilities::register,
        full_path::register,
        targets::register,
        crashes::register,
        daemon::register,
        ledger::register,
        power_cut::register,
        sync_before_record::register,
        sync_before_report::register,
        same_segments::register,
        disk_trouble::register,
        failing_disk::register,
        bad_input::register,
        commands::register,
        first_steps::register,
        documents::register,
        hooks::register,
        catalog_commands::register,
        config_files::register,
        incremental_backups::register,
        many_files::register,
        restored_chains::register,
        retention::register,
        adopt::register,
        restore_plans::register,
        odd_places::register,
        disturbed_backups::register,
        cut_backups::register,
        synchronous_watch::register,
        slots::register,
        suspect_wal::register,
        failover::register,
        standby_restore::register,
        store_owner::register,
        encryption::register,
        wal_delivery::register,
        http::register,
        barman_shapes::register,
        operator_views::register,
    ] {
        scenarios = register(scenarios);
    }
    scenarios.run()
}
