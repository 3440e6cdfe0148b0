//! What is generated from the definitions of the command line: completions for shells, and manual
//! pages. Needs neither settings nor a runtime.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::failure::Failure;
use crate::output::{GeneratedText, ManualPages, Results};

/// The manual that the pages belong to.
const MANUAL: &str = "Backups of PostgreSQL";

/// A manual page cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the manual page {}", .path.display())]
struct PageError {
    path: PathBuf,
    source: io::Error,
}

impl Failure for PageError {
    fn hint(&self) -> Option<String> {
        Some("name a directory that you may write to: man DIR".to_owned())
    }
}

/// Completions for a shell.
pub(super) fn completions(args: &CompletionsArgs) -> Results {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    Results::one(GeneratedText(String::from_utf8_lossy(&script).into_owned()))
}

/// All manual pages into a directory, or the first one as text.
pub(super) fn manual(args: &ManArgs) -> Results {
    match &args.directory {
        None => {
            let first = pages().into_iter().next().map(|(_, text)| text).unwrap_or_default();
            Results::one(GeneratedText(first))
        }
        Some(directory) => match write(directory) {
            Ok(pages) => Results::one(ManualPages { directory: directory.clone(), pages }),
            Err(error) => Results::failed(error.into()),
        },
    }
}

fn write(directory: &Path) -> Result<usize, PageError> {
    let failed = |path: &Path, source| PageError { path: path.to_owned(), source };
    fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    let pages = pages();
    for (name, text) in &pages {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    Ok(pages.len())
}

/// The page of the program, and one for each of its commands, with their files' names.
fn pages() -> Vec<(String, String)> {
    // There is a page for each command, and none for `help`.
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands: Vec<_> =
        program.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    std::iter::once(program).chain(commands).map(page).collect()
}

fn page(command: clap::Command) -> (String, String) {
    let man = Man::new(command)
        .manual(MANUAL)
        .source(concat!("walrecv-server ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    // Nothing can fail where it goes.
    let _ = man.render(&mut text);
    (man.get_filename(), String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let pages = pages();
        let named = |name: &str| pages.iter().find(|(file, _)| file == name).map(|(_, text)| text);
        let first = named("walrecv-server.1").unwrap();
        assert!(first.contains("walrecv\\-server\\-backup(1)"), "{first}");
        let backup = named("walrecv-server-backup.1").unwrap();
        assert!(backup.contains("\\-\\-incremental"), "{backup}");
        let commands = Cli::command().get_subcommands().count();
        assert_eq!(pages.len(), commands + 1);
        assert!(pages.iter().all(|(_, text)| text.contains(MANUAL)));
    }
}
