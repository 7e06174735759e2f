//! The program `gumbel`: thin commands over the libraries.
//!
//! Exit codes: 0 success, 1 failure, 2 usage, 130 stopped by a signal. An error is one line on stderr.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod output;
mod problem;

use args::{Cli, Command};
use clap::Parser;
use clap::error::ErrorKind;
use gumbel_run::Registry;
use output::Failure;
use std::process::ExitCode;
use std::sync::LazyLock;

// Training allocates and frees the same large blocks in every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// All estimators, latents, data sets, models and likelihoods of this program.
pub fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::standard);
    &REGISTRY
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return finish(output::line(&e.to_string().trim_end()));
        }
        Err(e) if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::note(e.to_string().trim_end());
            return ExitCode::from(2);
        }
        Err(e) => {
            output::error(&args::one_line(&e.to_string()));
            return ExitCode::from(2);
        }
    };
    finish(run(cli))
}

/// The exit code; an error is said in one line.
fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
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
