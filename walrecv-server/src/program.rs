//! From the arguments to the exit code: parse, settings, command, print.

mod dispatch;
mod exit;
mod generated;
mod init;
mod store_owner;

use std::ffi::OsString;
use std::hint::black_box;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, ColorArg, Command, FormatArg, LogFormatArg, explain};
use crate::output::{Color, Format, LogFormat, Printer, Results, start_logging};
use crate::receiver::nap;
use crate::settings::process_environment;

use exit::Contract;

/// What is logged without `-v`.
const DEFAULT_LOG: &str = "warn";

/// Runs the program with these arguments, and returns its exit code.
pub fn run(arguments: Vec<OsString>) -> u8 {
    Contract::of(&arguments).keep(|| program(arguments))
}

/// Teaches the allocator how large the blocks are that come and go, so that it keeps them for the
/// next use: given back to the system, their pages would have to be cleared each time. glibc's
/// learns it from the first one that goes ("dynamic mmap threshold" in `mallopt(3)`), and then
/// keeps twice as much.
fn keep_blocks(command: &Command) {
    let largest = match command {
        // As much as may be received and not stored yet, or decompressed and not written.
        Command::Backup(_) | Command::Restore(_) | Command::VerifyBackup(_) => 4 << 20,
        _ => 1 << 20,
    };
    drop(black_box(Vec::<u8>::with_capacity(largest)));
}

fn program(arguments: Vec<OsString>) -> u8 {
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let error = explain(error);
            // Nowhere to complain to if that fails.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    keep_blocks(&cli.command);
    let printer = printer(&cli);
    start_logging(&printer, log_level(&cli), log_format(&cli));
    let mut results = match &cli.command {
        // It is started once for each segment of a recovery, and starts as little as it can.
        Command::GetWal(args) => dispatch::get_wal(&cli, args, &process_environment),
        Command::Completions(args) => generated::completions(args),
        Command::Man(args) => generated::manual(args),
        command => match store_owner::become_owner(&cli, &arguments, &process_environment) {
            Ok(()) => match runtime(command) {
                Ok(runtime) => {
                    let dispatched = dispatch::dispatch(&cli, &process_environment, &printer);
                    let results = runtime.block_on(dispatched);
                    runtime.shutdown_timeout(LAST_THREADS);
                    results
                }
                Err(error) => Results::failed(error.into()),
            },
            Err(error) => Results::failed(error.into()),
        },
    };
    if let [server] = cli.command.servers().as_slice() {
        results.about = Some(server.clone());
    }
    printer.results(&results)
}

fn printer(cli: &Cli) -> Printer {
    let format = match cli.global.format {
        FormatArg::Console => Format::Console,
        FormatArg::Json => Format::Json,
        FormatArg::Json2 => Format::Json2,
    };
    let color = match cli.global.color {
        ColorArg::Auto => Color::Auto,
        ColorArg::Always => Color::Always,
        ColorArg::Never => Color::Never,
    };
    Printer::new(format, cli.global.quiet, color)
}

fn log_format(cli: &Cli) -> LogFormat {
    match cli.global.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    }
}

/// The processes that stay tell what they are doing; the others only what is worth a warning.
fn log_level(cli: &Cli) -> &'static str {
    let stays = matches!(cli.command, Command::Run(_) | Command::ReceiveWal(_));
    match (cli.global.verbose, stays) {
        _ if cli.global.quiet => "error",
        (0, false) => DEFAULT_LOG,
        (0, true) | (1, _) => "info",
        (2, _) => "debug,hyper=info,rustls=info",
        _ => "trace",
    }
}

/// The most threads that may wait for disks. They are made when they are needed, and end soon after.
const BLOCKING_THREADS: usize = 4096;

/// How long threads may go on when everything is done: a disk that hangs would keep a process for ever.
const LAST_THREADS: Duration = Duration::from_secs(2);

fn runtime(command: &Command) -> Result<Runtime, exit::NoRuntime> {
    let mut builder = match command {
        // What receives is woken where it is, instead of by another thread.
        Command::Backup(args) if args.servers.len() == 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    // Disks that hang hold a thread for each of their streams; no other stream shall wait for one.
    builder
        .on_thread_park(nap)
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(exit::NoRuntime)
}
