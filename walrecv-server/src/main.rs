//! Keeps base backups and continuous WAL of many PostgreSQL servers.

use std::process::ExitCode;

fn main() -> ExitCode {
    share_one_heap();
    ExitCode::from(walrecv_server::program::run(std::env::args_os().collect()))
}

/// Has all threads share one heap. glibc gives each one of its own, in which what one has freed is of no use to
/// the others: with some ten threads that hand each other buffers, that is as much again as is in use.
#[allow(unsafe_code)]
fn share_one_heap() {
    // SAFETY: there is no other thread yet.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
