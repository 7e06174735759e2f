//! Tables: what was published beside what was measured.

use super::{Experiment, Results};
use crate::collect::{Mean, Measure, measure_named};
use serde::Serialize;

/// A table with its figures.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Title, with the unit.
    pub title: String,
    /// What the rows differ in.
    pub row: String,
    /// Titles of the columns.
    pub columns: Vec<String>,
    /// Rows.
    pub rows: Vec<Row>,
}

/// A row.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// One for each column.
    pub cells: Vec<Cell>,
}

/// What stands in one place of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cell {
    /// Which figure of a run.
    pub metric: String,
    /// Published.
    pub paper: Option<f64>,
    /// What the authors' code gives when it is run.
    pub authors: Option<f64>,
    /// The mean over the runs that are there.
    pub ours: Option<Mean>,
    /// Whether it is the best of its row among the columns of the same figure.
    pub best: bool,
    /// Whether some of it is an estimate.
    pub estimate: bool,
    /// Whether some of it is of a quick look.
    pub quick: bool,
    /// The places of its figures: file and place in its JSON.
    pub sources: Vec<String>,
}

impl Cell {
    /// The figure that it shows.
    pub(super) fn measure(&self) -> &'static Measure {
        measure_named(&self.metric).expect("the files were checked when they were read")
    }

    /// By how much ours is larger than what was published, in the unit in which it is read.
    pub fn difference(&self) -> Option<f64> {
        Some(self.ours?.mean - self.paper?)
    }

    /// Whether ours is better than what was published; nothing where the two cannot be told apart by a rounding.
    pub fn is_better(&self) -> Option<bool> {
        let difference = self.difference().filter(|d| d.abs() >= 0.005)?;
        Some(if self.measure().percent { difference > 0.0 } else { difference < 0.0 })
    }

    /// A published figure with the digits of its kind, or with more if it has more.
    pub fn published(&self, value: f64) -> String {
        let (least, whole) = (if self.measure().percent { 1 } else { self.measure().digits() }, value.to_string());
        let own = whole.split_once('.').map_or(0, |(_, digits)| digits.len());
        format!("{value:.*}", own.max(least))
    }

    /// Ours, as it is read: with its standard error, if there are several runs, and named if it is of a quick look.
    pub fn text(&self) -> Option<String> {
        let (Mean { mean, se, .. }, digits) = (self.ours?, self.measure().digits());
        let about = if self.estimate && self.metric.ends_with("bound") { "≈ " } else { "" };
        let error = se.map_or(String::new(), |se| format!(" ± {se:.digits$}"));
        let quick = if self.quick { " (quick)" } else { "" };
        Some(format!("{about}{mean:.digits$}{error}{quick}"))
    }
}

/// The tables of an experiment. Percentages are in per cent.
pub fn tables(experiment: &Experiment, results: &Results) -> Vec<Table> {
    let table = |form: &super::published::Form| {
        let rows = form.rows.iter().enumerate().map(|(i, row)| {
            let cells = form.columns.iter().map(|column| {
                let metric = column.metric.as_ref().unwrap_or(&form.metric);
                let known = |values: &[f64]| values.get(i).copied().filter(|value| value.is_finite());
                let empty = Cell {
                    metric: metric.clone(),
                    paper: known(&column.paper),
                    authors: known(&column.authors),
                    ..Cell::default()
                };
                filled(empty, form.epoch, &column.cells_of(i, row), results)
            });
            let mut cells: Vec<Cell> = cells.collect();
            mark_best(&mut cells);
            Row { name: row.clone(), cells }
        });
        Table {
            title: form.title.clone(),
            row: form.row.clone(),
            columns: form.columns.iter().map(|column| column.title.clone()).collect(),
            rows: rows.collect(),
        }
    };
    experiment.published.tables.iter().map(table).collect()
}

/// With the mean over the runs of some cells: of what their summaries say, or their curves at an epoch.
fn filled(mut place: Cell, epoch: Option<usize>, cells: &[String], results: &Results) -> Cell {
    let measure = place.measure();
    let mut values = vec![];
    for (file, record) in cells.iter().flat_map(|cell| results.runs(cell)) {
        let (value, source) = match epoch {
            None => ((measure.of)(&record.summary), format!("summary/{}", measure.place)),
            Some(epoch) => {
                let point = record.curve.epoch.iter().position(|e| *e == epoch);
                let value = point.and_then(|i| record.curve.values(&place.metric).get(i).copied());
                (value, format!("curve/{}/{}", place.metric, point.unwrap_or_default()))
            }
        };
        if let Some(value) = value {
            values.push(measure.scale() * value);
            place.sources.push(format!("{file}#/{source}"));
            place.estimate |= record.summary.test.bound_kind != crate::evaluate::BoundKind::Exact;
            place.quick |= record.is_quick;
        }
    }
    Cell { ours: Mean::of(&values), ..place }
}

/// Of the figures of one kind in a row, the best one; of one alone there is none, and of seconds neither.
fn mark_best(cells: &mut [Cell]) {
    for i in 0..cells.len() {
        let rivals = |j: &usize| cells[*j].metric == cells[i].metric && cells[*j].ours.is_some();
        let rivals: Vec<f64> = (0..cells.len()).filter(rivals).filter_map(|j| cells[j].ours.map(|m| m.mean)).collect();
        let Some(own) = cells[i].ours.map(|m| m.mean).filter(|_| rivals.len() > 1 && cells[i].metric != "seconds")
        else {
            continue;
        };
        let more = cells[i].measure().percent;
        cells[i].best = rivals.iter().all(|other| if more { own >= *other } else { own <= *other });
    }
}
