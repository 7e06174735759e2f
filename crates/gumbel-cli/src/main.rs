//! The program `gumbel`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

// Training allocates and frees the same large blocks in every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(gumbel_cli::run(std::env::args_os(), None))
}
