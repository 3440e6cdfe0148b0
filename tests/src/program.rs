//! Running other programs: their output captured, their failure told with the last lines they
//! wrote.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::failure::{Context, Failure, Result};

/// Runs `command` to its end and returns what it printed on stdout.
///
/// A non-zero exit is a failure that carries the command line and the end of its messages.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout).trim_end(),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Err(Failure::new(format!(
        "`{}` failed with {}:\n{}",
        command_line(command),
        output.status,
        last_lines(said.trim(), 20)
    )))
}

/// Runs `command` to its end, whatever its exit status.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .context(|| format!("cannot run `{}`", command_line(command)))
}

/// The command as one would type it.
pub fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// A program of this repository, where cargo has put it: beside the running test program, or one
/// directory up.
pub fn built(name: &str) -> Result<PathBuf> {
    let ourselves = std::env::current_exe().context(|| "who are we?".to_owned())?;
    ourselves
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .context(|| format!("{name} is not built: run `cargo build --workspace --bins` first"))
}

/// The first program of this name on the search path.
pub fn find_on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(Path::new(name.as_ref())))
        .find(|candidate| candidate.is_file())
}

/// The same, also where the programs of administrators lie, which not everybody's search path has.
pub fn find_system_program(name: &str) -> Option<PathBuf> {
    find_on_path(name).or_else(|| {
        let directories = ["/usr/sbin", "/sbin"].into_iter();
        directories.map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
    })
}

/// The last `count` lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
