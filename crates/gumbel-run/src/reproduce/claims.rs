//! Verdicts on the sentences of the paper, from the runs.

use super::Results;
use super::table::Cell;
use crate::collect::{Mean, measure_named};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A sentence of the paper, and the comparisons that would show it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// What the paper says, in our words.
    pub sentence: String,
    /// Where it says so.
    pub place: String,
    /// What would show it, in words.
    pub shown_by: String,
    /// Which figure of the runs is compared; less is better, of an accuracy more is.
    pub metric: String,
    /// Pairs of cells of which the first is to be better, as the authors run both.
    #[serde(default)]
    pub as_authors: Vec<[String; 2]>,
    /// The same under one objective for both, or by one measure.
    #[serde(default)]
    pub fair: Vec<[String; 2]>,
    /// What is to be said beside it.
    #[serde(default)]
    pub remark: String,
}

impl Claim {
    /// All cells that are compared.
    pub fn cells(&self) -> Vec<String> {
        self.as_authors.iter().chain(&self.fair).flatten().cloned().collect()
    }
}

/// What the runs say of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// In all comparisons.
    Holds,
    /// Not in all comparisons under one objective, but in all as the authors run them.
    OnlyAsTheAuthorsRanIt,
    /// In some of them.
    HoldsInPart,
    /// In none.
    DoesNotHold,
    /// Runs are missing.
    Open,
}

impl Verdict {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::OnlyAsTheAuthorsRanIt => "only as the authors ran it",
            Verdict::HoldsInPart => "holds in part",
            Verdict::DoesNotHold => "does not hold",
            Verdict::Open => "open: runs are missing",
        }
    }
}

/// A claim with its verdict.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The claim.
    pub claim: Claim,
    /// The verdict.
    pub verdict: Verdict,
    /// Of the comparisons as the authors run them: those that hold, those with all runs, all.
    pub as_authors: (usize, usize, usize),
    /// Of those under one objective.
    pub fair: (usize, usize, usize),
    /// Every comparison: the cells, and their figures if there are runs.
    pub compared: Vec<Compared>,
}

/// A comparison.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Two cells, of which the first is to be better.
    pub cells: [String; 2],
    /// Their figures.
    pub means: Option<[Mean; 2]>,
    /// Whether the first is better.
    pub holds: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    claim: Vec<Claim>,
}

/// All claims: `experiments/claims.toml`.
///
/// # Errors
/// [`Error::ConfigFile`] if the file of this program is wrong, which a test excludes.
pub fn claims() -> Result<Vec<Claim>> {
    let path = Path::new("experiments/claims.toml");
    let wrong = |detail: String| Error::ConfigFile { path: path.into(), detail };
    let file: File = toml::from_str(include_str!("../../../../experiments/claims.toml"))
        .map_err(|e| wrong(e.message().replace('\n', " ")))?;
    match file.claim.iter().find(|claim| measure_named(&claim.metric).is_none()) {
        Some(claim) => Err(wrong(format!("metric = {:?}: expected a figure of runs", claim.metric))),
        None => Ok(file.claim),
    }
}

/// What some results say of a claim.
pub fn judged(claim: &Claim, results: &Results) -> Judged {
    let measure = measure_named(&claim.metric).expect("the file was checked when it was read");
    let mean = |cell: &String| {
        let values = results.runs(cell).iter().filter_map(|(_, record)| (measure.of)(&record.summary));
        Mean::of(&values.map(|value| measure.scale() * value).collect::<Vec<_>>())
    };
    let compare = |pair: &[String; 2]| {
        let means = mean(&pair[0]).zip(mean(&pair[1])).map(|(a, b)| [a, b]);
        let better = |[a, b]: [Mean; 2]| if measure.percent { a.mean > b.mean } else { a.mean < b.mean };
        Compared { cells: pair.clone(), means, holds: means.map(better) }
    };
    let count = |all: &[Compared]| {
        let known = all.iter().filter(|c| c.holds.is_some()).count();
        (all.iter().filter(|c| c.holds == Some(true)).count(), known, all.len())
    };
    let as_authors: Vec<Compared> = claim.as_authors.iter().map(compare).collect();
    let fair: Vec<Compared> = claim.fair.iter().map(compare).collect();
    let (counts_authors, counts_fair) = (count(&as_authors), count(&fair));
    let verdict = match (counts_authors, counts_fair) {
        ((_, known, all), _) | (_, (_, known, all)) if known < all => Verdict::Open,
        ((0, _, 0), (0, _, 0)) => Verdict::Open,
        ((a, _, all_a), (b, _, all_b)) if a == all_a && b == all_b => Verdict::Holds,
        ((a, _, all_a), _) if a == all_a && all_a > 0 => Verdict::OnlyAsTheAuthorsRanIt,
        ((0, ..), (0, ..)) => Verdict::DoesNotHold,
        _ => Verdict::HoldsInPart,
    };
    let compared = as_authors.into_iter().chain(fair).collect();
    Judged { claim: claim.clone(), verdict, as_authors: counts_authors, fair: counts_fair, compared }
}

impl Judged {
    /// The counts in words.
    pub fn counts(&self) -> String {
        let part = |name: &str, (holds, known, all): (usize, usize, usize)| match all {
            0 => None,
            _ if known < all => Some(format!("{name}: {holds} of {known}, {} more to be run", all - known)),
            _ => Some(format!("{name}: {holds} of {all}")),
        };
        let parts = [part("as the authors run it", self.as_authors), part("on equal terms", self.fair)];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

impl Compared {
    /// Both figures in words.
    pub fn text(&self, metric: &str) -> String {
        let cell = |ours| Cell {
            metric: metric.into(),
            paper: None,
            authors: None,
            ours,
            best: false,
            estimate: false,
            sources: vec![],
        };
        let text = |i: usize| cell(self.means.map(|means| means[i])).text().unwrap_or("?".into());
        let sign = match self.holds {
            Some(true) => "better than",
            Some(false) => "not better than",
            None => "against",
        };
        format!("{} {} {sign} {} {}", self.cells[0], text(0), self.cells[1], text(1))
    }
}
