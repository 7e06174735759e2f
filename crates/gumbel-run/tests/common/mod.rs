//! What the tests of runs share.
#![allow(dead_code, reason = "every test takes its part")]

use gumbel_run::folder::Files;
use gumbel_run::metrics::Metrics;
use gumbel_run::stored;
use gumbel_run::train::Observer;
use std::fs;
use std::path::Path;

/// Lines of metrics without times.
pub fn figures(folder: &Path) -> Vec<Metrics> {
    let untimed = |m| Metrics { train_seconds: 0.0, seconds: 0.0, step_ms: 0.0, ..m };
    stored::read_metrics(folder).unwrap().into_iter().map(untimed).collect()
}

/// Two runs with the same figures and the same best model.
#[track_caller]
pub fn same(a: &Path, b: &Path) {
    assert_eq!(figures(a), figures(b));
    assert!(fs::read(Files::new(a).best()).unwrap() == fs::read(Files::new(b).best()).unwrap());
}

/// Is killed after so many steps of a process, without a chance to save anything.
pub struct Killed(pub u64);

impl Observer for Killed {
    fn step(&mut self, _: usize, _: u64, _: u64) {
        self.0 -= 1;
        if self.0 == 0 {
            std::panic::panic_any("killed");
        }
    }
}
