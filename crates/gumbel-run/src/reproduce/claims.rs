//! Verdicts on the sentences of the paper, from the runs.

use super::table::Cell;
use super::{Record, Results};
use crate::collect::{Mean, measure_named};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// A sentence of the paper, and the comparisons that would show it, or what was measured of it by other means.
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
    #[serde(default)]
    pub metric: String,
    /// Which figure is compared in `fair`, if another one.
    #[serde(default)]
    pub fair_metric: Option<String>,
    /// Whether bounds are compared at the same time: the last points of the curves before the first of the runs ends.
    #[serde(default)]
    pub at_equal_time: bool,
    /// Pairs of which the first is to be better, as the authors run both.
    #[serde(default)]
    pub as_authors: Vec<[Side; 2]>,
    /// The same under one objective for both, or by one measure.
    #[serde(default)]
    pub fair: Vec<[Side; 2]>,
    /// A verdict that no comparison of runs gives, with what it rests on.
    #[serde(default)]
    pub stated: Option<Stated>,
    /// What is to be said beside it.
    #[serde(default)]
    pub remark: String,
}

/// One side of a comparison: a cell, or several, of which the mean is taken; as `EXPERIMENT/CELL` without the seed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Side {
    /// A cell.
    One(String),
    /// Cells whose runs are averaged, once all of them have some.
    Mean(Vec<String>),
}

impl Side {
    /// Its cells.
    pub fn cells(&self) -> &[String] {
        match self {
            Side::One(cell) => std::slice::from_ref(cell),
            Side::Mean(cells) => cells,
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self.cells() {
            [cell] => cell.clone(),
            cells => format!("the mean of {}", cells.join(", ")),
        }
    }
}

/// A verdict that stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// The experiment that it belongs to.
    pub experiment: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Files of the repository with what was measured.
    pub evidence: Vec<String>,
}

impl Claim {
    /// All cells that are compared.
    pub fn cells(&self) -> Vec<String> {
        self.as_authors.iter().chain(&self.fair).flatten().flat_map(Side::cells).cloned().collect()
    }

    /// Whether it is one of some experiments: those that it names, or those of the runs as the authors have them. The
    /// other side of the comparison may belong to an experiment that is not among them.
    pub fn is_of(&self, experiment: impl Fn(&str) -> bool) -> bool {
        let pairs = if self.as_authors.is_empty() { &self.fair } else { &self.as_authors };
        let own = |cell: &String| cell.split_once('/').is_some_and(|(name, _)| experiment(name));
        match &self.stated {
            Some(stated) => experiment(&stated.experiment),
            None => pairs.iter().flatten().flat_map(Side::cells).all(own),
        }
    }

    /// What is wrong with it, if anything is.
    fn fault(&self) -> Option<String> {
        let place = format!("in the claim {:?}", self.sentence);
        let pairs = self.as_authors.iter().chain(&self.fair);
        if let Some(stated) = &self.stated {
            let whole = pairs.count() == 0 && !stated.evidence.is_empty();
            return (!whole).then(|| format!("expected either runs or a stated verdict with its evidence {place}"));
        }
        let metrics = [&self.metric].into_iter().chain(&self.fair_metric);
        if let Some(wrong) = metrics.into_iter().find(|metric| measure_named(metric).is_none()) {
            return Some(format!("metric = {wrong:?}: expected a figure of runs {place}"));
        }
        if self.at_equal_time && (self.metric != "bound" || self.fair_metric.is_some()) {
            return Some(format!("at_equal_time: expected metric = \"bound\" {place}"));
        }
        let empty = pairs.flatten().any(|side| side.cells().is_empty());
        empty.then(|| format!("expected at least one cell on every side {place}"))
    }
}

/// What the runs say of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Which figure of the runs.
    pub metric: String,
    /// Two sides, of which the first is to be better.
    pub sides: [Side; 2],
    /// Their figures: means over the seeds that all cells of both sides have, or over all if there are none.
    pub means: Option<[Mean; 2]>,
    /// The places of these: file and place in its JSON.
    pub sources: [Vec<String>; 2],
    /// Whether the first is better.
    pub holds: Option<bool>,
    /// Whether some of the runs are of a quick look.
    pub quick: bool,
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
    match file.claim.iter().find_map(Claim::fault) {
        Some(fault) => Err(wrong(fault)),
        None => Ok(file.claim),
    }
}

/// What some results say of a claim.
pub fn judged(claim: &Claim, results: &Results) -> Judged {
    let count = |all: &[Compared]| {
        let known = all.iter().filter(|c| c.holds.is_some()).count();
        (all.iter().filter(|c| c.holds == Some(true)).count(), known, all.len())
    };
    let fair_metric = claim.fair_metric.as_ref().unwrap_or(&claim.metric);
    let all = |pairs: &[[Side; 2]], metric: &str| -> Vec<Compared> {
        pairs.iter().map(|sides| compared(sides, metric, claim.at_equal_time, results)).collect()
    };
    let (as_authors, fair) = (all(&claim.as_authors, &claim.metric), all(&claim.fair, fair_metric));
    let (counts_authors, counts_fair) = (count(&as_authors), count(&fair));
    let computed = match (counts_authors, counts_fair) {
        ((_, known, all), _) | (_, (_, known, all)) if known < all => Verdict::Open,
        ((0, _, 0), (0, _, 0)) => Verdict::Open,
        ((a, _, all_a), (b, _, all_b)) if a == all_a && b == all_b => Verdict::Holds,
        ((a, _, all_a), _) if a == all_a && all_a > 0 => Verdict::OnlyAsTheAuthorsRanIt,
        ((0, ..), (0, ..)) => Verdict::DoesNotHold,
        _ => Verdict::HoldsInPart,
    };
    let verdict = claim.stated.as_ref().map_or(computed, |stated| stated.verdict);
    let compared = as_authors.into_iter().chain(fair).collect();
    Judged { claim: claim.clone(), verdict, as_authors: counts_authors, fair: counts_fair, compared }
}

fn compared(sides: &[Side; 2], metric: &str, at_equal_time: bool, results: &Results) -> Compared {
    let measure = measure_named(metric).expect("the file was checked when it was read");
    // A mean over more seeds than the other side has would be compared with other starts and orders of the images.
    let seeds_of = |cell: &String| results.runs(cell).iter().map(|(_, run)| run.summary.seed).collect::<BTreeSet<_>>();
    let shared = sides.iter().flat_map(Side::cells).map(seeds_of).reduce(|all, own| &all & &own).unwrap_or_default();
    let runs = |side: &Side| -> Vec<&(String, Record)> {
        let all = side.cells().iter().flat_map(|cell| results.runs(cell));
        all.filter(|(_, run)| shared.is_empty() || shared.contains(&run.summary.seed)).collect()
    };
    let both = sides.each_ref().map(runs);
    let ends = both.iter().flatten().map(|(_, run)| run.curve.train_seconds.last().copied().unwrap_or_default());
    let end = ends.fold(f64::INFINITY, f64::min);
    // The figure of a run, and its place.
    let figure = |(file, run): &(String, Record)| match at_equal_time {
        true => {
            let until = run.curve.train_seconds.iter().take_while(|seconds| **seconds <= end).count();
            let last = until.checked_sub(1)?;
            Some((*run.curve.bound.get(last)?, format!("{file}#/curve/bound/{last}")))
        }
        false => {
            let value = (measure.of)(&run.summary)?;
            Some((measure.scale() * value, format!("{file}#/summary/{}", measure.place)))
        }
    };
    // A mean of some of its cells would be another figure.
    let is_whole = sides.iter().flat_map(Side::cells).all(|cell| !results.runs(cell).is_empty());
    let known = |runs: &Vec<&(String, Record)>| -> Option<(Mean, Vec<String>)> {
        let all: Option<Vec<(f64, String)>> = runs.iter().map(|run| figure(run)).collect();
        let (values, sources): (Vec<f64>, Vec<String>) = all.filter(|_| is_whole)?.into_iter().unzip();
        Some((Mean::of(&values)?, sources))
    };
    let (means, sources) = match both.each_ref().map(known) {
        [Some((a, of_a)), Some((b, of_b))] => (Some([a, b]), [of_a, of_b]),
        _ => (None, Default::default()),
    };
    let better = |[a, b]: [Mean; 2]| if measure.percent { a.mean > b.mean } else { a.mean < b.mean };
    Compared {
        metric: metric.into(),
        sides: sides.clone(),
        means,
        sources,
        holds: means.map(better),
        quick: both.iter().flatten().any(|(_, run)| run.is_quick),
    }
}

impl Judged {
    /// The verdict in words; where only one side has all of its runs, what that side says.
    pub fn verdict_text(&self) -> String {
        let side = |(holds, known, all): (usize, usize, usize)| match holds {
            _ if known < all => Verdict::Open,
            _ if holds == all => Verdict::Holds,
            0 => Verdict::DoesNotHold,
            _ => Verdict::HoldsInPart,
        };
        let is_there = |(_, known, all): (usize, usize, usize)| all > 0 && known == all;
        let one = is_there(self.as_authors) != is_there(self.fair) && self.as_authors.2 > 0 && self.fair.2 > 0;
        match self.verdict {
            Verdict::Open if one && self.claim.stated.is_none() => {
                let (authors, fair) = (side(self.as_authors).text(), side(self.fair).text());
                format!("as the authors run it: {authors}; on equal terms: {fair}")
            }
            verdict => verdict.text().into(),
        }
    }

    /// The counts in words, or the evidence.
    pub fn counts(&self) -> String {
        if let Some(stated) = &self.claim.stated {
            let files: Vec<String> = stated.evidence.iter().map(|file| format!("`{file}`")).collect();
            return format!("as measured: {}", files.join(", "));
        }
        let part = |name: &str, (holds, known, all): (usize, usize, usize)| match all {
            0 => None,
            _ if known < all => Some(format!("{name}: {holds} of {known}, {} more to be run", all - known)),
            _ => Some(format!("{name}: {holds} of {all}")),
        };
        let parts = [part("as the authors run it", self.as_authors), part("on equal terms", self.fair)];
        let quick = self.compared.iter().any(|c| c.quick).then(|| "quick looks among them".to_string());
        parts.into_iter().flatten().chain(quick).collect::<Vec<_>>().join("; ")
    }
}

impl Compared {
    /// Both figures in words.
    pub fn text(&self) -> String {
        let text = |i: usize| format!("{} {}", self.sides[i].text(), self.figure(i));
        format!("{} {} {}", text(0), self.sign(), text(1))
    }

    /// The figure of one side.
    pub(super) fn figure(&self, side: usize) -> String {
        let ours = self.means.map(|means| means[side]);
        let cell = Cell { metric: self.metric.clone(), ours, quick: self.quick, ..Cell::default() };
        cell.text().unwrap_or("?".into())
    }

    /// What stands between the two.
    pub(super) fn sign(&self) -> &'static str {
        match self.holds {
            Some(true) => "better than",
            Some(false) => "not better than",
            None => "against",
        }
    }
}
