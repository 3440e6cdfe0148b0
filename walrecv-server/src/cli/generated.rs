//! `completions` and `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// `completions`.
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `man`.
#[derive(Args)]
pub struct ManArgs {
    /// Write all pages, one for each command, into this directory [default: print the first page]
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}
