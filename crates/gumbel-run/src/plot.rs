//! Curves of runs: from lines of metrics to panels.

use crate::evaluate::BoundKind;
use crate::metrics::Metrics;
use crate::picture::{Axis, Curve, Figure, Panel, curves};
use crate::{Error, Result};
use std::path::Path;

const NATS: &str = "nats per image";

/// Writes the bound of the three splits, and -ln p(x) of the test split where it is known, over the epochs.
///
/// # Errors
/// A picture that cannot be written.
pub fn run(path: &Path, title: &str, metrics: &[Metrics]) -> Result<()> {
    let of = |split: &'static str| metrics.iter().filter(move |m| m.split == split);
    let bound = |split| Curve::new(format!("bound, {split}"), of(split).map(|m| (m.epoch as f64, m.bound)));
    let mut all: Vec<Curve> = ["train", "valid", "test"].map(bound).into();
    all.push(Curve::new("-ln p(x), test", of("test").filter_map(|m| Some((m.epoch as f64, m.nll?)))));
    all.retain(|c| !c.points.is_empty());
    let panel = Panel { title: String::new(), x: Axis::whole("epoch"), y: Axis::new(NATS), curves: all };
    curves(path, &Figure { title: Some(title), ..Figure::new(&[panel]) })
}

/// Several runs under their names, and how they are drawn.
#[derive(Debug, Clone, Default)]
pub struct Comparison<'a> {
    /// Names and metrics.
    pub runs: &'a [(String, Vec<Metrics>)],
    /// Which split.
    pub split: &'a str,
    /// A line above all.
    pub title: Option<&'a str>,
    /// Magnification; by default that of the picture.
    pub scale: Option<usize>,
}

/// Writes the curves of several runs: `paper_loss`, `bound` and -ln p(x) of one split, one below the other, over epochs
/// on the left and over the time of the training steps, without evaluation, on the right. Runs whose bounds are
/// estimates are named so. What no run has is left out.
///
/// # Errors
/// Runs without metrics of the split; a picture that cannot be written.
pub fn comparison(path: &Path, drawn: &Comparison<'_>) -> Result<()> {
    type Of<T> = fn(&Metrics) -> T;
    let fields: [(&str, Of<Option<f64>>); 3] =
        [("paper_loss", |m| m.paper_loss), ("bound", |m| Some(m.bound)), ("-ln p(x)", |m| m.nll)];
    let axes: [(Axis, Of<f64>); 2] =
        [(Axis::whole("epoch"), |m| m.epoch as f64), (Axis::new("seconds of training steps"), |m| m.train_seconds)];
    let mut panels = vec![];
    for (name, field) in fields {
        for (axis, at) in &axes {
            let curve = |(run, metrics): &(String, Vec<Metrics>)| {
                let lines = || metrics.iter().filter(|m| m.split == drawn.split);
                let estimate = lines().any(|m| m.bound_kind != BoundKind::Exact);
                let label = if estimate { format!("{run} (estimates)") } else { run.clone() };
                Curve::new(label, lines().filter_map(|m| Some((at(m), field(m)?))))
            };
            let mut all: Vec<Curve> = drawn.runs.iter().map(curve).collect();
            all.retain(|c| !c.points.is_empty());
            if !all.is_empty() {
                let title = format!("{name}, {}", drawn.split);
                panels.push(Panel { title, x: axis.clone(), y: Axis::new(NATS), curves: all });
            }
        }
    }
    if panels.is_empty() {
        let detail = format!("the runs have no metrics of the split {}", drawn.split);
        return Err(Error::Picture { path: path.to_path_buf(), detail });
    }
    let plain = Figure::new(&panels);
    let scale = drawn.scale.unwrap_or(plain.scale);
    curves(path, &Figure { title: drawn.title, columns: 2, scale, ..plain })
}
