//! The figures of runs, each with the place where it stands.

use super::Run;
use crate::collect::comparable;
use crate::evaluate::BoundKind;
use crate::metrics::Metrics;

/// A figure of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// All digits.
    pub value: f64,
    /// File, line and place in its JSON.
    pub source: String,
}

/// Which of two values is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
    /// Neither.
    Same,
}

/// At which epoch of the test split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// That with the least validation bound; where the validation images were trained on, the last.
    Best,
    /// The last one.
    Last,
    /// Of the whole run.
    Run,
}

/// A column of the table.
pub(super) struct Column {
    /// Title.
    pub title: &'static str,
    /// Name of the field.
    pub field: &'static str,
    pub at: At,
    pub better: Better,
    /// How it is shown.
    pub look: Look,
    of: fn(&Metrics) -> Option<f64>,
}

/// How a figure is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Digits after the point.
    pub digits: usize,
    /// Whether it is shown in percent.
    pub percent: bool,
}

const NATS: Look = Look { digits: 3, percent: false };
const SHARE: Look = Look { digits: 2, percent: true };

impl Look {
    pub const WHOLE: Look = Look { digits: 0, percent: false };
    pub const SECONDS: Look = Look { digits: 1, percent: false };

    fn scale(self) -> f64 {
        if self.percent { 100.0 } else { 1.0 }
    }

    /// The text of a value.
    pub fn text(self, value: f64) -> String {
        // Nobody reads three hundred digits.
        match value.abs() < 1e9 {
            true => format!("{:.*}", self.digits, self.scale() * value),
            false => format!("{:.3e}", self.scale() * value),
        }
    }
}

/// What the columns, the curves and the tables of metrics show of a line.
pub(crate) struct Measure {
    pub title: &'static str,
    pub field: &'static str,
    pub better: Better,
    pub look: Look,
    pub of: fn(&Metrics) -> Option<f64>,
}

impl Measure {
    /// What a value is multiplied by where it is shown.
    pub fn scale(&self) -> f64 {
        self.look.scale()
    }
}

pub(crate) const MEASURES: [Measure; 5] = [
    Measure { title: "bound", field: "bound", better: Better::Less, look: NATS, of: |m| Some(m.bound) },
    Measure { title: "paper_loss", field: "paper_loss", better: Better::Less, look: NATS, of: |m| m.paper_loss },
    Measure { title: "-ln p(x)", field: "nll", better: Better::Less, look: NATS, of: |m| m.nll },
    // Neither a small nor a large one is good in itself.
    Measure { title: "KL", field: "kl", better: Better::Same, look: NATS, of: |m| Some(m.kl) },
    Measure { title: "accuracy %", field: "accuracy", better: Better::More, look: SHARE, of: |m| m.accuracy },
];

/// The columns of which some run has a figure.
pub(super) fn columns(runs: &[Run]) -> Vec<Column> {
    let column =
        |at, m: &Measure| Column { title: m.title, field: m.field, at, better: m.better, look: m.look, of: m.of };
    let whole = |title, field, better, look, of| Column { title, field, at: At::Run, better, look, of };
    let mut all = vec![whole("epoch", "best_epoch", Better::Same, Look::WHOLE, |m: &Metrics| Some(m.epoch as f64))];
    all[0].at = At::Best;
    all.extend(MEASURES.iter().map(|m| column(At::Best, m)));
    all.extend(MEASURES.iter().map(|m| column(At::Last, m)));
    all.push(whole("seconds", "seconds", Better::Less, Look::SECONDS, |m| Some(m.seconds)));
    all.push(whole("step_ms", "step_ms", Better::Less, NATS, |m| Some(m.step_ms)));
    all.retain(|column| runs.iter().any(|run| column.of(run).is_some()));
    all
}

impl Column {
    /// The figure of a run. Of an unfinished one, what its metrics say so far.
    pub fn of(&self, run: &Run) -> Option<Figure> {
        let figure = |value: f64, source: String| Figure { value, source };
        if let Some(summary) = &run.summary {
            let place = |key: &str| format!("summary.json#/{key}");
            return match (self.at, self.field) {
                (_, "best_epoch") => Some(figure(summary.best_epoch as f64, place("best_epoch"))),
                (_, "seconds") => Some(figure(summary.seconds, place("seconds"))),
                (At::Best, field) => Some(figure((self.of)(&summary.test)?, place(&format!("test/{field}")))),
                (_, field) => Some(figure((self.of)(&summary.final_test)?, place(&format!("final_test/{field}")))),
            };
        }
        let (number, line) = match self.at {
            At::Best => best(run)?,
            At::Last | At::Run => lines(run, "test").last()?,
        };
        let field = if self.field == "best_epoch" { "epoch" } else { self.field };
        Some(figure((self.of)(line)?, source(number, field)))
    }
}

/// The place of a field of a line of metrics.
pub(super) fn source(number: usize, field: &str) -> String {
    format!("metrics.jsonl:{number}#/{field}")
}

/// Lines of a split with their numbers, from 1.
pub(super) fn lines<'a>(run: &'a Run, split: &'a str) -> impl Iterator<Item = (usize, &'a Metrics)> {
    run.metrics.iter().enumerate().map(|(i, line)| (i + 1, line)).filter(move |(_, line)| line.split == split)
}

/// The line of the test split at the epoch that is the best so far.
fn best(run: &Run) -> Option<(usize, &Metrics)> {
    if run.config.trains_on_all() {
        return lines(run, "test").last();
    }
    let valid = lines(run, "valid").min_by(|(_, a), (_, b)| a.bound.total_cmp(&b.bound));
    valid.and_then(|(_, valid)| lines(run, "test").find(|(_, line)| line.epoch == valid.epoch))
}

/// Whether the bound of a run's test is an estimate.
pub(super) fn is_estimate(run: &Run) -> bool {
    kind(run) != BoundKind::Exact
}

fn kind(run: &Run) -> BoundKind {
    let line = run.summary.as_ref().map(|summary| &summary.test).or_else(|| lines(run, "test").last().map(|l| l.1));
    line.map_or(BoundKind::Exact, |line| line.bound_kind)
}

/// For every run and column whether it has the best value of all finished runs that it can be compared with: those of
/// the same images, seen in the same way, whose bounds are of one kind.
pub(super) fn best_of(runs: &[Run], columns: &[Column]) -> Vec<Vec<bool>> {
    let places: Vec<_> = runs.iter().map(|run| comparable(&run.config, kind(run))).collect();
    let figures = |column: &Column| -> Vec<Option<f64>> {
        runs.iter().map(|run| run.summary.as_ref().and_then(|_| column.of(run)).map(|figure| figure.value)).collect()
    };
    let all: Vec<_> = columns.iter().map(figures).collect();
    let best = |run: usize, column: usize| {
        let Some(own) = all[column][run] else { return false };
        let mut rivals = (0..runs.len()).filter(|i| *i != run && places[*i] == places[run]);
        let mut others = rivals.by_ref().filter_map(|i| all[column][i]).peekable();
        match columns[column].better {
            _ if others.peek().is_none() => false,
            Better::Less => others.all(|other| own <= other),
            Better::More => others.all(|other| own >= other),
            Better::Same => false,
        }
    };
    (0..runs.len()).map(|run| (0..columns.len()).map(|column| best(run, column)).collect()).collect()
}
