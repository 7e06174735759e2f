//! One file per group of commands.

pub mod bench;
pub mod data;
pub mod solve;
pub mod stored;
pub mod train;

use crate::args::Common;
use crate::output::{self, Failure};
use gumbel_data::{Dataset, Limits, Progress};
use gumbel_vae::config::TrainConfig;

/// Loads the images that a configuration asks for; on a terminal, says what is being downloaded.
pub fn load(common: &Common, config: &TrainConfig) -> Result<Dataset, Failure> {
    let limit = |n: usize| (n > 0).then_some(n);
    let limits = Limits { train: limit(config.train_limit), eval: limit(config.eval_limit) };
    Ok(gumbel_data::load_first(config.dataset, &common.source(), limits, &mut |p| progress(common, &p))?)
}

/// Shows the progress of a download to a person.
pub fn progress(common: &Common, progress: &Progress<'_>) {
    if common.quiet || !output::watched() {
        return;
    }
    match progress {
        Progress::Waiting { folder } => eprint!("\r\x1b[Kwaiting for another download into {}", folder.display()),
        Progress::Requesting { url, .. } => eprint!("\r\x1b[Kfetching {url}"),
        Progress::Received { file, bytes, total } => {
            let share = total.map_or(String::new(), |t| format!(" of {:.1}", t as f64 / 1e6));
            eprint!("\r\x1b[K{file}: {:.1}{share} MB", *bytes as f64 / 1e6);
        }
        Progress::Failed { file, error } => eprintln!("\r\x1b[K{file}: {error}"),
        Progress::Done { path, .. } => eprintln!("\r\x1b[K{}", path.display()),
        _ => {}
    }
}
