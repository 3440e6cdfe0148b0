//! The library's formats, on files that real servers wrote and other programs judge.

mod incremental;
mod label;
mod manifest;
mod taken;

use walrecv_tests::run::Scenarios;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_formats::label_and_map_and_control_file", label::small_files)
        .per_major(
            "library_formats::control_file_in_recovery",
            &[10, 11, 13, 18, 19],
            label::control_file_in_recovery,
        )
        .per_major(
            "library_formats::manifest_is_written_byte_for_byte",
            &[13, 14, 15, 16, 17, 18, 19],
            manifest::byte_for_byte,
        )
        .per_major(
            "library_formats::directory_is_verified_as_by_pg_verifybackup",
            &[13, 15, 17, 18, 19],
            manifest::verified_as_by_pg_verifybackup,
        )
        .per_major(
            "library_formats::incremental_files_become_whole_as_by_pg_combinebackup",
            &[17, 18, 19],
            incremental::reconstructed_as_by_pg_combinebackup,
        )
}
