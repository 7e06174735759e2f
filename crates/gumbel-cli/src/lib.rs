//! The program `gumbel` as a function: thin commands over the libraries.
//!
//! Exit codes: 0 success, 1 failure, 2 usage, 130 stopped by a signal. An error is one line on stderr. It is a library
//! so that the command of another package, such as the Python one, is the same program.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod output;
mod problem;

pub use args::Program;

use args::{Cli, Command};
use clap::Parser;
use clap::error::ErrorKind;
use gumbel_run::Registry;
use output::Failure;
use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::LazyLock;

/// All estimators, latents, data sets, models and likelihoods of this program.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::standard);
    &REGISTRY
}

/// Does what the arguments say, of which the first is the program's name, and returns the exit code.
///
/// `program` is how a sweep starts its runs; `None`: as this executable. Ctrl-C, SIGTERM and SIGHUP are caught while a
/// training or a sweep goes on, for the rest of the process.
pub fn run(args: impl IntoIterator<Item = OsString>, program: Option<Program>) -> u8 {
    let code = match Cli::try_parse_from(args) {
        Ok(mut cli) => {
            cli.common.program = program;
            finish(command(cli))
        }
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            finish(output::line(&e.to_string().trim_end()))
        }
        Err(e) if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::note(e.to_string().trim_end());
            2
        }
        Err(e) => {
            output::error(&args::one_line(&e.to_string()));
            2
        }
    };
    // Within another program nobody else does, at its end.
    let _ = io::stdout().flush();
    code
}

/// The exit code; an error is said in one line.
fn finish(result: Result<(), Failure>) -> u8 {
    result.map_or_else(
        |failure| {
            output::error(&failure.to_string());
            failure.code()
        },
        |()| 0,
    )
}

fn command(cli: Cli) -> Result<(), Failure> {
    let common = cli.common;
    let threads = common.threads.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Failure::Other(format!("cannot start {threads} threads: {e}")))?;
    pool.install(|| match cli.command {
        Command::Train(command) => commands::train::run(&common, &command),
        Command::Sweep(command) => commands::sweep::run(&common, &command),
        Command::Collect(command) => commands::sweep::collect(&common, &command),
        Command::Reproduce(command) => commands::reproduce::run(&common, &command),
        Command::Evaluate(command) => commands::stored::evaluate(&common, &command),
        Command::Sample(command) => commands::show::sample(&common, &command),
        Command::Reconstruct(command) => commands::show::reconstruct(&common, &command),
        Command::Traverse(command) => commands::show::traverse(&common, &command),
        Command::Attributes(command) => commands::show::attributes(&common, &command),
        Command::Inspect(command) => commands::stored::inspect(&common, &command),
        Command::Diagnose(command) => commands::stored::diagnose(&common, &command),
        Command::Curves(command) => commands::stored::curves(&common, &command),
        Command::Report(command) => commands::report::run(&common, &command),
        Command::List(command) => commands::list::run(&common, &command),
        Command::Data { command } => commands::data::run(&common, &command),
        Command::Solve(command) => commands::solve::run(&common, &command),
        Command::Bench { command } => commands::bench::run(&common, &command),
    })
}
