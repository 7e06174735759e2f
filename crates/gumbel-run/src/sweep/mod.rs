//! Sweeps: every combination of some settings as a run of its own, several at a time, also from several machines.
//!
//! A grid file says what varies:
//!
//! ```toml
//! out = "runs/table1"                      # the folder; by default runs/ and the name of the file
//! [run]                                    # keys of every run, as in the TOML file of one
//! dataset = ["mnist", "fashion-mnist"]     # a list has alternatives: all are combined with all others
//! epochs = 300
//! hidden = "400,200"                       # a value that is a list is written as text
//! seed = { from = 0, to = 2 }              # 0, 1 and 2; a step may be given
//! [cell.direct]                            # each named cell has every combination of [run], and its own keys,
//! preset = "paper-direct"                  # which win over those of [run]
//! [cell.gsm]
//! preset = "paper-gsm"
//! [quick]                                  # over all of these, where a quick look is asked for
//! epochs = 30
//! ```
//!
//! [`Grid::cells`] checks every cell before anything runs. [`run`] has the cells trained by child processes that train
//! one run each: a crash is that of one run, and each uses as many threads as it is given. The folder of the sweep has
//! a run folder for every cell, and `.sweep/` with the configurations, what the processes have said on stderr, and the
//! claims by which several sweeps share the work.
//!
//! ```
//! use gumbel_run::{Registry, sweep};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let path = folder.path().join("small.toml");
//! std::fs::write(&path, "[run]\nlatent = [\"binary:4\", \"categorical:8\"]\nseed = { from = 0, to = 2 }\n").unwrap();
//! let cells = sweep::Grid::read(&path)?.cells(&Registry::standard(), &Default::default())?;
//! let names: Vec<&str> = cells.iter().map(|cell| cell.name.as_str()).collect();
//! assert_eq!(names[..2], ["binary4-s0", "binary4-s1"]);
//! assert_eq!(names.len(), 6);
//! # Ok::<(), gumbel_run::Error>(())
//! ```

mod claim;
mod grid;
mod run;
mod work;

pub use grid::{Cell, Grid, MAX_CELLS};
pub use run::{Done, Options, Standing, Status, Stop, Watcher, run, standing};

use std::path::{Path, PathBuf};

/// The order in which cells begin: the longest first, so that none is left alone at the end.
///
/// Where the seeds of a sweep are of equal standing; [`seed_by_seed`] has all cells once before any begins again.
pub fn longest_first(cells: &mut [Cell]) {
    cells.sort_by(|a, b| b.work.total_cmp(&a.work).then_with(|| a.name.cmp(&b.name)));
}

/// The order with all cells of the first seed before those of the second, each seed's longest first.
pub fn seed_by_seed(cells: &mut [Cell]) {
    longest_first(cells);
    cells.sort_by_key(|cell| cell.config.seed());
}

/// The folder of a sweep's own files.
pub fn own_folder(sweep: &Path) -> PathBuf {
    sweep.join(".sweep")
}
