//! Checks of a [`Structure`] of one's own: does it keep the contract that estimators and solvers rely on?
//!
//! [`check`] calls every method on random potentials and compares the answers with each other and, where all states can
//! be listed, with enumeration. It is meant for a test: on small instances of each kind, some of them degenerate.
//!
//! # Example
//!
//! One item from each group, with a budget for all: neither every combination is an assignment, nor is an assignment a
//! set of independent indicators. Its code is that of [`Code::Indicators`], one for each item of each group. It only
//! solves: states are not counted.
//!
//! ```
//! use gumbel::Error;
//! use gumbel::structure::{Code, Maximum, Structure, neighbour_losses};
//!
//! /// One of K items for each group; `costs` is `[groups, K]`, and their sum is at most `budget`.
//! struct Budget {
//!     items: usize,
//!     costs: Vec<usize>,
//!     budget: usize,
//! }
//!
//! impl Structure for Budget {
//!     type Scratch = ();
//!
//!     fn potentials(&self) -> usize {
//!         self.costs.len()
//!     }
//!
//!     fn unary(&self) -> usize {
//!         self.costs.len()
//!     }
//!
//!     fn variables(&self) -> usize {
//!         self.costs.len() / self.items
//!     }
//!
//!     fn code(&self) -> Code {
//!         Code::Indicators
//!     }
//!
//!     fn scratch(&self) {}
//!
//!     fn argmax(&self, potentials: &[f32], z: &mut [u32], _: &mut ()) -> Result<Maximum, Error> {
//!         for (index, h) in potentials.iter().enumerate() {
//!             if h.is_nan() {
//!                 return Err(Error::NotANumber { what: "potential", index });
//!             }
//!             if *h == f32::INFINITY {
//!                 return Err(Error::PositiveInfinity { what: "potential", index });
//!             }
//!         }
//!         // best[g][b]: the most that the first g groups are worth for a cost of at most b, and the last choice.
//!         let mut best = vec![vec![(0.0, 0); self.budget + 1]];
//!         for (costs, h) in self.costs.chunks(self.items).zip(potentials.chunks(self.items)) {
//!             let before = best.last().unwrap();
//!             let row = (0..=self.budget).map(|b| {
//!                 let affordable = (0..self.items).filter(|k| costs[*k] <= b);
//!                 let values = affordable.map(|k| (before[b - costs[k]].0 + h[k] as f64, k));
//!                 values.fold((f64::NEG_INFINITY, 0), |best, new| if new.0 > best.0 { new } else { best })
//!             });
//!             let row = row.collect();
//!             best.push(row);
//!         }
//!         let mut left = self.budget;
//!         let value = best[z.len()][left].0;
//!         if value == f64::NEG_INFINITY {
//!             return Err(Error::Infeasible { detail: "no choice within the budget is allowed".into() });
//!         }
//!         for g in (0..z.len()).rev() {
//!             z[g] = best[g + 1][left].1 as u32;
//!             left -= self.costs[g * self.items + z[g] as usize];
//!         }
//!         Ok(Maximum::proved(value))
//!     }
//!
//!     fn add_statistics(&self, z: &[u32], scale: f32, out: &mut [f32]) {
//!         z.iter().enumerate().for_each(|(g, k)| out[g * self.items + *k as usize] += scale);
//!     }
//! }
//!
//! let structure = Budget { items: 3, costs: vec![0, 2, 5, 1, 2, 3, 0, 1, 4], budget: 6 };
//! let report = gumbel::testing::check(&structure)?;
//! assert!(report.done.contains(&"argmax"));
//! println!("{report}"); // which checks were left out, and why
//!
//! // What a decoder makes of it: the loss of each change of one indicator.
//! let losses = neighbour_losses(&structure, &[1, 0, 2], |code| code.iter().sum::<f32>().powi(2));
//! // Adding an item costs 4^2 - 3^2, and keeping one 3^2 - 2^2.
//! assert_eq!(losses, [7.0, 5.0, 7.0, 5.0, 7.0, 7.0, 7.0, 7.0, 5.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Error;
use crate::noise::{Noise, Purpose};
use crate::structure::{Code, MaxMarginals, Move, Structure, Sums};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use std::collections::HashSet;
use std::fmt;

/// What [`check`] did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// The methods that were checked.
    pub done: Vec<&'static str>,
    /// What was not checked, and why.
    pub left_out: Vec<(&'static str, String)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checked: {}", self.done.join(", "))?;
        self.left_out.iter().try_for_each(|(what, why)| write!(f, "; not checked: {what} ({why})"))
    }
}

/// What [`check`] found wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{method}: {found}: expected {expected}")]
pub struct Fault {
    /// The method that is wrong, or disagrees with others.
    pub method: &'static str,
    /// What it did.
    pub found: String,
    /// What it should have done.
    pub expected: String,
}

fn fault<T>(method: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { method, found: found.into(), expected: expected.into() })
}

/// The most states that are listed.
const MOST_STATES: usize = 20_000;

/// The most states that are looked at one by one, and instances of each kind.
const STATES: usize = 300;
const INSTANCES: u64 = 60;

/// Checks that the methods of a structure agree with each other and with the contract of [`Structure`].
///
/// | checked | how |
/// |---|---|
/// | sizes | unary potentials come first; they fit the [`Code`] |
/// | `states`, `state`, `ln_states` | every index gives another assignment, and all are counted |
/// | `add_statistics` | adds, in proportion to the scale; zeros and ones in the order of the code |
/// | `encode` | writes the unary statistics |
/// | `score`, `scores`, `add_weighted_statistics` | sums over the statistics |
/// | `argmax` | the best of all states and its score, with ties and forbidden choices; bad input is an error |
/// | `resolve` | as good as `argmax` after changes of unary potentials |
/// | `block`, `pair` | statistics depend on the variables as they say |
/// | `moves`, `make` | every change stays in Z, also after others, and gains what the scores say, one for each place |
/// | `max_marginals` | has every other value once, in an assignment that gains what the scores say |
/// | `to_potentials`, `to_raw_gradient` | makes potentials that `argmax` takes; the chain rule |
///
/// A structure that does not count its states is checked on those that it finds itself for random potentials: a better
/// one that it never finds stays unknown. The [`Report`] says what was left out. Instances should be small: of more
/// than 20,000 states only those found are known.
///
/// Time: about a thousand arg maxes, and as many scores of each state.
///
/// # Errors
///
/// The first [`Fault`] found.
pub fn check<S: Structure>(structure: &S) -> Result<Report, Fault> {
    let mut report = Report::default();
    sizes(structure)?;
    report.done.push("sizes");
    raw_numbers(structure)?;
    report.done.extend(["to_potentials", "to_raw_gradient"]);
    let known = Known::of(structure, &mut report)?;
    statistics(structure, &known)?;
    report.done.extend(["add_statistics", "encode", "score"]);
    if known.enumerated {
        sums(structure, &known)?;
        report.done.extend(["scores", "add_weighted_statistics"]);
    } else {
        let why = "states are not counted, or too many".to_string();
        report.left_out.push(("scores, add_weighted_statistics", why));
    }
    solutions(structure, &known)?;
    report.done.extend(["argmax", "resolve"]);
    dependence(structure, &known)?;
    report.done.extend(["block", "pair"]);
    changes(structure, &known)?;
    match structure.has_moves() {
        true => report.done.extend(["moves", "make"]),
        false => report.left_out.push(("moves, make", "it lists none".to_string())),
    }
    if structure.code() != Code::Indicators {
        report.done.push("max_marginals");
    }
    Ok(report)
}

/// Checks that the [`Sums`] of a structure agree with each other, and with enumeration where all states can be listed.
///
/// | checked | how |
/// |---|---|
/// | `marginals`, `log_partition` | the marginals are the derivative of the log-partition; sums over all states |
/// | `kl_to_uniform` | its gradient is the covariance along the potentials, is added, and takes the scale |
/// | `covariance` | the differences of marginals along random directions; is added, and takes the scale |
///
/// What is forbidden by `-inf` has no marginal and no gradient. Samples are not looked at. Potentials are of the size
/// of 1, and instances should be small: differences are taken in f32.
///
/// ```
/// let chain = gumbel::structure::Chain::new(3, 2)?;
/// let report = gumbel::testing::check_sums(&chain)?;
/// assert!(report.done.contains(&"covariance"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The first [`Fault`] found.
pub fn check_sums<S: Sums>(structure: &S) -> Result<Report, Fault> {
    let mut report = Report::default();
    let known = Known::of(structure, &mut Report::default())?;
    for case in 0..INSTANCES {
        let random = &mut Random::new(8, case);
        let values = [Values::Normal, Values::Ties, Values::Forbidden][case as usize % 3];
        let h = potentials(structure, values, random);
        let mut marginals = vec![f32::NAN; h.len()];
        let log_partition = match structure.marginals(&h, &mut marginals) {
            Err(Error::Infeasible { .. }) => continue,
            other => unwrapped("marginals", &h, other)?,
        };
        if known.enumerated {
            enumerated_sums(structure, &known, &h, &marginals, log_partition)?;
        }
        let found = unwrapped("log_partition", &h, structure.log_partition(&h))?;
        if !near(found, log_partition, 1e-4 * log_partition.abs().max(1.0)) {
            return fault("log_partition", format!("{found} at {h:?}"), format!("that of marginals, {log_partition}"));
        }
        differences(structure, &h, &marginals, random)?;
        gradient_of_kl(structure, &h)?;
    }
    report.done.extend(["marginals", "log_partition", "kl_to_uniform", "covariance"]);
    if !known.enumerated {
        let why = "states are not counted, or too many".to_string();
        report.left_out.push(("sums against all states", why));
    }
    report.left_out.push(("sample, samples", "what is drawn needs a test of its own".to_string()));
    Ok(report)
}

/// Never so if one is NaN.
fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

fn unwrapped<T>(method: &'static str, h: &[f32], found: Result<T, Error>) -> Result<T, Fault> {
    found.or_else(|e| fault(method, format!("\"{e}\" at {h:?}"), "an answer"))
}

fn enumerated_sums<S: Sums>(
    structure: &S,
    known: &Known,
    h: &[f32],
    marginals: &[f32],
    log_partition: f64,
) -> Result<(), Fault> {
    let scores: Vec<f64> = known.states.iter().map(|z| structure.score(h, z)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    let expected = max + total.ln();
    if !near(log_partition, expected, 1e-4 * expected.abs().max(1.0)) {
        return fault("marginals", format!("a log-partition of {log_partition} at {h:?}"), format!("{expected}"));
    }
    let mut sums = vec![0.0; h.len()];
    for (z, score) in known.states.iter().zip(&scores) {
        structure.add_statistics(z, ((score - max).exp() / total) as f32, &mut sums);
    }
    match sums.iter().zip(marginals).position(|(e, m)| !near(*e as f64, *m as f64, 1e-4)) {
        Some(i) => fault("marginals", format!("{} for statistic {i} at {h:?}", marginals[i]), format!("{}", sums[i])),
        None => Ok(()),
    }
}

/// The covariance against differences of marginals, and these against differences of the log-partition.
fn differences<S: Sums>(structure: &S, h: &[f32], marginals: &[f32], random: &mut Random) -> Result<(), Fault> {
    const STEP: f32 = 1.0 / 256.0;
    let (p, u) = (structure.potentials(), structure.unary());
    let direction = Values::Normal.vector(p, random);
    let mut h = h.to_vec();
    // Both ends must be potentials.
    let signed = structure.takes_any_sign();
    h[u..].iter_mut().zip(&direction[u..]).filter(|_| !signed).for_each(|(h, d)| *h += 2.0 * STEP * d.abs());
    let mut at = vec![vec![0.0; p]; 2];
    let mut logs = [0.0; 2];
    for ((sign, at), log) in [1.0, -1.0].into_iter().zip(&mut at).zip(&mut logs) {
        let moved: Vec<f32> = h.iter().zip(&direction).map(|(h, d)| h + sign * STEP * d).collect();
        *log = unwrapped("marginals", &moved, structure.marginals(&moved, at))?;
    }
    let slope = (logs[0] - logs[1]) / (2.0 * STEP as f64);
    let mean: f64 = marginals.iter().zip(&direction).map(|(m, d)| *m as f64 * *d as f64).sum();
    // The log-partition is not exact to more than f32 where its terms are not.
    if signed && !near(slope, mean, 1e-2 * mean.abs().max(1.0)) {
        let found = format!("{mean} along {direction:?} at {h:?}");
        return fault("marginals", found, format!("the derivative of the log-partition, {slope}"));
    }
    let (scale, mut found) = (-1.5, vec![0.25; p]);
    unwrapped("covariance", &h, structure.covariance(&h, &direction, scale, &mut found))?;
    for i in 0..p {
        let expected = 0.25 + scale as f64 * (at[0][i] as f64 - at[1][i] as f64) / (2.0 * STEP as f64);
        let close = near(found[i] as f64, expected, 2e-3 * expected.abs().max(1.0));
        if !close || h[i] == f32::NEG_INFINITY && found[i] != 0.25 {
            let found = format!("0.25 becomes {} for statistic {i} along {direction:?} at {h:?}", found[i]);
            return fault("covariance", found, format!("{expected}, with the scale {scale}"));
        }
    }
    Ok(())
}

/// The gradient of the KL is the covariance along the potentials.
fn gradient_of_kl<S: Sums>(structure: &S, h: &[f32]) -> Result<(), Fault> {
    let (scale, mut found, mut expected) = (-1.5, vec![0.25; h.len()], vec![0.25; h.len()]);
    let kl = unwrapped("kl_to_uniform", h, structure.kl_to_uniform(h, scale, &mut found))?;
    let entropy = unwrapped("entropy", h, structure.entropy(h))?;
    let ln_states = structure.ln_states();
    if !ln_states.is_nan() && !near(kl, ln_states - entropy, 1e-3 * kl.abs().max(1.0)) {
        return fault(
            "kl_to_uniform",
            format!("{kl} at {h:?}"),
            format!("ln |Z| less the entropy, {ln_states} - {entropy}"),
        );
    }
    // A finite number stands for what is forbidden: it takes no part.
    let direction: Vec<f32> = h.iter().map(|h| if *h > f32::NEG_INFINITY { *h } else { 0.0 }).collect();
    unwrapped("covariance", h, structure.covariance(h, &direction, scale, &mut expected))?;
    match found.iter().zip(&expected).position(|(f, e)| !near(*f as f64, *e as f64, 2e-3 * e.abs().max(1.0) as f64)) {
        Some(i) => {
            let found = format!("0.25 becomes {} in the gradient {i} at {h:?}", found[i]);
            fault("kl_to_uniform", found, format!("{}, by the covariance along the potentials", expected[i]))
        }
        None => Ok(()),
    }
}

/// Assignments, and whether they are all.
struct Known {
    states: Vec<Vec<u32>>,
    complete: bool,
    /// Whether they stand in the order of `state`.
    enumerated: bool,
}

impl Known {
    fn of<S: Structure>(structure: &S, report: &mut Report) -> Result<Known, Fault> {
        let n = structure.variables();
        let combinations = match structure.code() {
            Code::OneHot { values } => u32::try_from(n).ok().and_then(|n| values.checked_pow(n)),
            Code::Indicators => None,
        };
        if let Some(count) = structure.states() {
            let one_hot = matches!(structure.code(), Code::OneHot { .. });
            if one_hot && combinations != Some(count) {
                let expected = "all combinations of values; where only some are assignments, the code is Indicators";
                return fault("states", format!("{count} with a OneHot code"), expected);
            }
            let ln_states = structure.ln_states();
            if (ln_states - (count as f64).ln()).abs() > 1e-9 * ln_states.abs().max(1.0) {
                return fault("ln_states", format!("{ln_states}"), format!("ln {count} = {}", (count as f64).ln()));
            }
            if count <= MOST_STATES {
                let mut states = vec![];
                let mut seen = HashSet::new();
                for index in 0..count {
                    let mut z = vec![u32::MAX; n];
                    structure.state(index, &mut z);
                    if !seen.insert(z.clone()) {
                        let found = format!("{z:?} at index {index} has been there before");
                        return fault("state", found, format!("{count} different assignments"));
                    }
                    states.push(z);
                }
                report.done.extend(["states", "state", "ln_states"]);
                return Ok(Known { states, complete: true, enumerated: true });
            }
            report.left_out.push(("state", format!("{count} states: at most {MOST_STATES}")));
        } else {
            report.left_out.push(("states, state, ln_states", "states are not counted".to_string()));
        }
        if let (Some(count @ 1..=MOST_STATES), Code::OneHot { values }) = (combinations, structure.code()) {
            let digit = |s: usize, i: usize| (s / values.pow((n - 1 - i) as u32) % values) as u32;
            let states = (0..count).map(|s| (0..n).map(|i| digit(s, i)).collect()).collect();
            return Ok(Known { states, complete: true, enumerated: false });
        }
        // Those that the arg max finds.
        let mut seen = HashSet::new();
        let mut scratch = structure.scratch();
        for case in 0..5 * INSTANCES {
            let h = potentials(structure, Values::ALL[case as usize % 5], &mut Random::new(0, case));
            let mut z = vec![u32::MAX; n];
            if structure.argmax(&h, &mut z, &mut scratch).is_ok() {
                seen.insert(z);
            }
        }
        let mut states: Vec<_> = seen.into_iter().collect();
        states.sort();
        report.left_out.push(("argmax against all states", format!("only the {} that it finds", states.len())));
        Ok(Known { states, complete: false, enumerated: false })
    }

    /// Some of the states, evenly spread.
    fn some(&self) -> impl Iterator<Item = &Vec<u32>> {
        self.states.iter().step_by(self.states.len().div_ceil(STATES).max(1))
    }

    /// The best score.
    fn best<S: Structure>(&self, structure: &S, potentials: &[f32]) -> (f64, Option<&Vec<u32>>) {
        self.states.iter().fold((f64::NEG_INFINITY, None), |best, z| {
            let score = structure.score(potentials, z);
            if score > best.0 { (score, Some(z)) } else { best }
        })
    }
}

fn potentials<S: Structure>(structure: &S, values: Values, random: &mut Random) -> Vec<f32> {
    let mut h = values.vector(structure.potentials(), random);
    structure.to_potentials(&mut h);
    h
}

/// Sums in f32 are good enough.
fn close(a: f64, b: f64, potentials: &[f32]) -> bool {
    a == b || (a - b).abs() <= 1e-5 + 1e-6 * magnitude(potentials)
}

/// The unit of rounding errors of an instance: the sum of its finite magnitudes.
pub(crate) fn magnitude(potentials: &[f32]) -> f64 {
    potentials.iter().filter(|h| h.is_finite()).map(|h| h.abs() as f64).sum::<f64>()
}

fn sizes<S: Structure>(structure: &S) -> Result<(), Fault> {
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    if u > p {
        return fault("unary", format!("{u} unary potentials out of {p}"), "at most all of them");
    }
    match structure.code() {
        Code::OneHot { values } if values == 0 || u != n * values => {
            let found = format!("{n} variables of {values} values, and {u} unary potentials");
            fault("code", found, "one unary potential for each value of each variable, and at least one value")
        }
        Code::Indicators if u != p => {
            fault("code", format!("Indicators, with {} more potentials", p - u), "unary potentials only")
        }
        _ => Ok(()),
    }
}

fn statistics<S: Structure>(structure: &S, known: &Known) -> Result<(), Fault> {
    let (p, u) = (structure.potentials(), structure.unary());
    let random = &mut Random::new(1, 0);
    for z in known.some() {
        let mut s = vec![0.0; p];
        structure.add_statistics(z, 1.0, &mut s);
        let mut scaled = vec![0.5; p];
        structure.add_statistics(z, -2.0, &mut scaled);
        if let Some(i) = (0..p).find(|i| (scaled[*i] - (0.5 - 2.0 * s[*i])).abs() > 1e-5 * s[*i].abs().max(1.0)) {
            let found = format!("with scale -2 on 0.5, statistic {i} of {z:?} becomes {}", scaled[i]);
            return fault("add_statistics", found, format!("{}: it is {} with scale 1", 0.5 - 2.0 * s[i], s[i]));
        }
        if let Some(i) = (0..u).find(|i| s[*i] != 0.0 && s[*i] != 1.0) {
            return fault(
                "add_statistics",
                format!("statistic {i} of {z:?} is {}", s[i]),
                "unary statistics of 0 and 1",
            );
        }
        if let Code::OneHot { values } = structure.code() {
            let one_hot = |i: usize| s[i] == (z[i / values] as usize == i % values) as u32 as f32;
            if let Some(i) = (0..u).find(|i| !one_hot(*i)) {
                let (variable, value) = (i / values, i % values);
                let found = format!("statistic {i} of {z:?} is {}", s[i]);
                let expected = format!("whether variable {variable} is {value}: the order is [variable, value]");
                return fault("add_statistics", found, expected);
            }
        }
        let mut code = vec![f32::NAN; u];
        structure.encode(z, &mut code);
        if code != s[..u] {
            return fault("encode", format!("{code:?} for {z:?}"), format!("its unary statistics, {:?}", &s[..u]));
        }
        let mut h = potentials(structure, Values::Normal, random);
        let dot =
            |h: &[f32]| s.iter().zip(h).filter(|(s, _)| **s != 0.0).map(|(s, h)| *s as f64 * *h as f64).sum::<f64>();
        let check = |h: &[f32], what: &str| {
            let (found, expected) = (structure.score(h, z), dot(h));
            if close(found, expected, h) {
                return Ok(());
            }
            let found = format!("{found} for {z:?}{what} at {h:?}");
            fault("score", found, format!("{expected}, the potentials times the statistics {s:?}"))
        };
        check(&h, "")?;
        (0..u).filter(|i| s[*i] == 0.0).for_each(|i| h[i] = f32::NEG_INFINITY);
        check(&h, ", all others forbidden,")?;
    }
    Ok(())
}

fn sums<S: Structure>(structure: &S, known: &Known) -> Result<(), Fault> {
    let (p, n) = (structure.potentials(), structure.variables());
    for case in 0..5 {
        let random = &mut Random::new(2, case);
        let h = potentials(structure, Values::Normal, random);
        let mut scores = vec![f32::NAN; known.states.len()];
        structure.scores(&h, &mut scores);
        for (index, (z, found)) in known.states.iter().zip(&scores).enumerate() {
            let expected = structure.score(&h, z);
            if !close(*found as f64, expected, &h) {
                return fault("scores", format!("{found} at index {index}"), format!("{expected}, the score of {z:?}"));
            }
        }
        let weights: Vec<f32> = known.states.iter().map(|_| random.uniform() / scores.len() as f32).collect();
        let (mut found, mut expected) = (vec![0.5; p], vec![0.5; p]);
        structure.add_weighted_statistics(&weights, &mut found, &mut vec![0; n], &mut structure.scratch());
        known.states.iter().zip(&weights).for_each(|(z, w)| structure.add_statistics(z, *w, &mut expected));
        if let Some(i) = (0..p).find(|i| (found[*i] - expected[*i]).abs() > 1e-4) {
            let found = format!("{} for statistic {i}", found[i]);
            return fault("add_weighted_statistics", found, format!("{}, state by state", expected[i]));
        }
    }
    Ok(())
}

fn solutions<S: Structure>(structure: &S, known: &Known) -> Result<(), Fault> {
    let (u, n) = (structure.unary(), structure.variables());
    let all: HashSet<&Vec<u32>> = known.states.iter().collect();
    let mut reused = structure.scratch();
    for case in 0..5 * INSTANCES {
        let random = &mut Random::new(3, case);
        let values = Values::ALL[case as usize % 5];
        let mut h = potentials(structure, values, random);
        let mut z = vec![u32::MAX; n];
        // The first call is an arg max; others of the same instance may begin with what is known.
        for step in 0..4 {
            let method = ["argmax", "resolve"][(step > 0) as usize];
            let (best, with) = known.best(structure, &h);
            let found = match step {
                0 => structure.argmax(&h, &mut z, &mut reused),
                _ => structure.resolve(&h, &mut z, &mut reused),
            };
            let found = match found {
                Ok(found) => found,
                Err(Error::Infeasible { .. }) if best == f64::NEG_INFINITY => break,
                Err(e) => {
                    let expected = match with {
                        Some(with) => format!("an answer such as {with:?}, which scores {best}"),
                        None => "Infeasible".to_string(),
                    };
                    return fault(method, format!("\"{e}\" at {h:?}"), expected);
                }
            };
            let score = structure.score(&h, &z);
            if known.complete && !all.contains(&z) {
                return fault(method, format!("{z:?} at {h:?}"), "one of the states");
            }
            if score == f64::NEG_INFINITY {
                return fault(
                    method,
                    format!("{z:?}, which is forbidden, at {h:?}"),
                    "an allowed assignment or Infeasible",
                );
            }
            if !close(found.value, score, &h) {
                let found = format!("the value {} for {z:?} at {h:?}", found.value);
                return fault(method, found, format!("its score, {score}"));
            }
            if found.bound < found.value || (best > found.bound && !close(best, found.bound, &h)) {
                let found = format!("{z:?} with score {score} and bound {} at {h:?}", found.bound);
                return fault(method, found, format!("a bound of all scores: {with:?} has {best}"));
            }
            if found.is_proved() && best > score && !close(best, score, &h) {
                let found = format!("{z:?} with score {score}, proved, at {h:?}");
                return fault(method, found, format!("{with:?}, which has {best}"));
            }
            if step == 0 {
                let mut again = vec![u32::MAX; n];
                let fresh = structure.argmax(&h, &mut again, &mut structure.scratch());
                if fresh.is_ok() && again != z && found.is_proved() {
                    let found = format!("{z:?}, and {again:?} with a new scratch, at {h:?}");
                    return fault("argmax", found, "the same choice in every call, also among equals");
                }
            }
            // Some unary potentials change, some a little.
            let size = [1.0, 0.1][random.below(2)];
            for h in &mut h[..u] {
                let change = match values {
                    Values::Ties => Values::Ties.draw(random),
                    _ => size * random.normal(),
                };
                if random.below(2) == 0 {
                    *h += change;
                }
            }
        }
    }
    let good = potentials(structure, Values::Normal, &mut Random::new(4, 0));
    // Potentials that no assignment uses may be anything.
    let mut used = vec![0.0; structure.potentials()];
    known.some().for_each(|z| structure.add_statistics(z, 1.0, &mut used));
    for (i, bad) in (0..u).filter(|i| used[*i] != 0.0).flat_map(|i| [(i, f32::NAN), (i, f32::INFINITY)]) {
        let mut h = good.clone();
        h[i] = bad;
        if structure.argmax(&h, &mut vec![u32::MAX; n], &mut reused).is_ok() {
            return fault("argmax", format!("an answer with {bad} as potential {i}"), "an error");
        }
    }
    Ok(())
}

/// What `block` and `pair` say of the statistics.
fn dependence<S: Structure>(structure: &S, known: &Known) -> Result<(), Fault> {
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let statistics = |z: &[u32]| {
        let mut s = vec![0.0; p];
        structure.add_statistics(z, 1.0, &mut s);
        s
    };
    let blocks: Vec<_> = (0..n).filter_map(|i| structure.block(i).map(|block| (i, block))).collect();
    for (i, block) in &blocks {
        let says = || format!("{block:?} for variable {i}");
        if block.end > u {
            return fault("block", says(), "unary potentials");
        }
        for z in known.some() {
            // Any value of the block goes with any of the others.
            let code = &statistics(z)[block.clone()];
            if code.iter().sum::<f32>() != 1.0 {
                return fault("block", says(), format!("one statistic of 1 in it: of {z:?} it has {code:?}"));
            }
            for value in 0..block.len() as u32 {
                let mut other = z.clone();
                other[*i] = value;
                let moved = statistics(&other);
                let outside = |s: &[f32]| [&s[..block.start], &s[block.end..]].concat();
                if known.complete && known.states.len() <= STATES && !known.states.contains(&other)
                    || outside(&moved) != outside(&statistics(z))
                {
                    let found = format!("{}, but its values are tied to others in {z:?} and {other:?}", says());
                    return fault("block", found, "None for a variable that is coupled");
                }
            }
        }
    }
    let mut taken = HashSet::new();
    for (i, j) in (0..n).flat_map(|j| (0..j).map(move |i| (i, j))) {
        let Some(at) = structure.pair(i, j) else { continue };
        let says = format!("{at} for variables {i} and {j}");
        if !(u..p).contains(&at) || !taken.insert(at) {
            return fault("pair", says, format!("a potential of its own from {u} to {}", p.saturating_sub(1)));
        }
        for z in known.some() {
            let both = (z[i] == 1 && z[j] == 1) as u32 as f32;
            let statistic = statistics(z)[at];
            if statistic != both {
                let found = format!("{says}, where {z:?} has a statistic of {statistic}");
                return fault("pair", found, "the product of the two variables");
            }
        }
    }
    Ok(())
}

/// Whether an assignment is one. Where not all are known, the arg max is asked: of potentials that forbid all that it
/// has not, and reward all that it has.
fn belongs<S: Structure>(structure: &S, known: &HashSet<&Vec<u32>>, complete: bool, z: &Vec<u32>) -> bool {
    if complete || known.contains(z) {
        return known.contains(z);
    }
    if let Code::OneHot { values } = structure.code() {
        return z.iter().all(|value| (*value as usize) < values);
    }
    let mut code = vec![0.0; structure.unary()];
    structure.add_statistics(z, 1.0, &mut code);
    let on = code.iter().filter(|c| **c != 0.0).count();
    code.iter_mut().filter(|c| **c == 0.0).for_each(|h| *h = f32::NEG_INFINITY);
    let found = structure.argmax(&code, &mut z.clone(), &mut structure.scratch());
    found.is_ok_and(|found| found.value == on as f64)
}

/// What `moves` and `make` say of single changes.
fn changes<S: Structure>(structure: &S, known: &Known) -> Result<(), Fault> {
    /// Assignments looked at in each instance.
    const FROM: usize = 5;
    let all: HashSet<&Vec<u32>> = known.states.iter().collect();
    let belongs = |z: &Vec<u32>| belongs(structure, &all, known.complete, z);
    for case in 0..INSTANCES * (!known.states.is_empty()) as u64 {
        let random = &mut Random::new(6, case);
        let h = potentials(structure, Values::ALL[case as usize % 5], random);
        for _ in 0..FROM {
            let z = &known.states[random.below(known.states.len())];
            let now = structure.score(&h, z);
            if now == f64::NEG_INFINITY {
                continue; // no search stands there
            }
            let mut list = vec![Move { gain: 0.0, place: u32::MAX, value: u32::MAX }];
            let kept = list.clone();
            structure.moves(&h, z, &mut list);
            if !list.starts_with(&kept) {
                return fault("moves", format!("{list:?}, where {kept:?} was"), "changes added to a list");
            }
            list.remove(0);
            let at = format!("from {z:?} at {h:?}");
            if !structure.has_moves() && !list.is_empty() {
                return fault("has_moves", format!("no, but there is {list:?} {at}"), "whether changes are listed");
            }
            if list.len() > structure.unary() {
                let found = format!("{} changes {at}", list.len());
                return fault("moves", found, format!("at most {}: one for each unary potential", structure.unary()));
            }
            // The largest gain in every variable, for one-hot rows.
            let mut found_there = vec![f64::NEG_INFINITY; z.len()];
            let mut places = HashSet::new();
            for change in &list {
                if !places.insert(change.place) {
                    return fault("moves", format!("{list:?} {at}"), format!("one change of place {}", change.place));
                }
                let mut other = z.clone();
                if !structure.make(*change, &mut other) {
                    return fault("make", format!("false for {change:?} {at}"), "true: nothing else has changed");
                }
                if other == *z || !belongs(&other) {
                    return fault("make", format!("{other:?} of {change:?} {at}"), "another assignment");
                }
                let gain = structure.score(&h, &other) - now;
                if !close(change.gain as f64, gain, &h) {
                    return fault("moves", format!("{change:?} {at}"), format!("a gain of {gain}, by the scores"));
                }
                let changed = (0..z.len()).filter(|i| z[*i] != other[*i]);
                changed.for_each(|i| found_there[i] = found_there[i].max(gain));
            }
            if let Code::OneHot { values } = structure.code() {
                let mut other = z.clone();
                for i in 0..z.len() {
                    let others = (0..values as u32).filter(|value| *value != z[i]);
                    let best = others.fold(f64::NEG_INFINITY, |best, value| {
                        other[i] = value;
                        best.max(structure.score(&h, &other) - now)
                    });
                    other[i] = z[i];
                    if !close(found_there[i], best, &h) {
                        let found = format!("{} for variable {i} {at}", found_there[i]);
                        return fault("moves", found, format!("the largest gain of its values, {best}"));
                    }
                }
            }
            if let Code::OneHot { values } = structure.code() {
                let mut found = MaxMarginals::default();
                structure.max_marginals(&h, z, &mut structure.scratch(), &mut found);
                if found.rows() != z.len() * (values - 1) {
                    let expected = format!("{}, one for each other value", z.len() * (values - 1));
                    return fault("max_marginals", format!("{} rows {at}", found.rows()), expected);
                }
                for (i, present) in z.iter().enumerate() {
                    for value in 0..values {
                        let Some(row) = found.row(i, value, *present as usize) else { continue };
                        let (other, gain) = (found.state(row).to_vec(), found.gain(row));
                        let what = format!("{other:?}, a gain of {gain}, {at}");
                        if other[i] as usize != value || !belongs(&other) {
                            let expected = format!("an assignment with the value {value} of variable {i}");
                            return fault("max_marginals", what, expected);
                        }
                        let score = structure.score(&h, &other) - now;
                        if !close(gain, score, &h) {
                            return fault("max_marginals", what, format!("{score}, by the scores"));
                        }
                    }
                }
            }
            // Many changes, in any order: those that would lead out of Z are refused.
            (1..list.len()).for_each(|i| list.swap(i, random.below(i + 1)));
            let mut made = z.clone();
            for change in &list {
                let before = made.clone();
                let answer = structure.make(*change, &mut made);
                if !answer && made != before {
                    let found = format!("false for {change:?}, and {made:?} of {before:?}");
                    return fault("make", found, "nothing where the answer is false");
                }
                if !belongs(&made) {
                    let found = format!("{made:?} of {change:?} in {before:?}, after others {at}");
                    return fault("make", found, "an assignment, or false");
                }
            }
        }
    }
    Ok(())
}

/// `to_potentials` and its chain rule.
fn raw_numbers<S: Structure>(structure: &S) -> Result<(), Fault> {
    let p = structure.potentials();
    for case in 0..5 {
        let random = &mut Random::new(5, case);
        let (raw, weights) = (Values::Normal.vector(p, random), Values::Normal.vector(p, random));
        let of = |raw: &[f32]| {
            let mut h = raw.to_vec();
            structure.to_potentials(&mut h);
            h
        };
        let h = of(&raw);
        if let Some(i) = (0..p).find(|i| !h[*i].is_finite()) {
            return fault("to_potentials", format!("potential {i} is {} for {}", h[i], raw[i]), "finite numbers");
        }
        let mut gradient = weights.clone();
        structure.to_raw_gradient(&h, &mut gradient);
        for i in 0..p.min(100) {
            let moved = |d: f32| {
                let mut raw = raw.clone();
                raw[i] += d;
                of(&raw).iter().zip(&weights).map(|(h, w)| *h as f64 * *w as f64).sum::<f64>()
            };
            let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            if (numeric - gradient[i] as f64).abs() > 1e-2 * (1.0 + numeric.abs()) {
                let found = format!("{} for number {i} of {raw:?}", gradient[i]);
                return fault("to_raw_gradient", found, format!("{numeric}, by differences of to_potentials"));
            }
        }
    }
    Ok(())
}

/// The random numbers of one instance of one test.
pub(crate) struct Random(pub(crate) ChaCha8Rng);

impl Random {
    pub(crate) fn new(test: u32, case: u64) -> Self {
        Random(Noise::new(case, Purpose::User(test), 0).generator_at(0))
    }

    /// A uniform integer in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        crate::noise::below(&mut self.0, bound as u64) as usize
    }

    /// A uniform number in `[0, 1)`.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }

    /// A standard normal number.
    pub(crate) fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }
}

/// Where the values of an instance come from: each brings out other faults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Values {
    /// Normal numbers.
    Normal,
    /// Small integers: many ties, all sums exact.
    Ties,
    /// Mostly zeros.
    Sparse,
    /// Magnitudes from 1e-30 to 1e30.
    Extreme,
    /// Normal numbers, some of them forbidden by `-inf`.
    Forbidden,
}

impl Values {
    pub(crate) const ALL: [Values; 5] =
        [Values::Normal, Values::Ties, Values::Sparse, Values::Extreme, Values::Forbidden];

    pub(crate) fn draw(self, random: &mut Random) -> f32 {
        match self {
            Values::Normal => random.normal(),
            Values::Ties => random.below(5) as f32 - 2.0,
            Values::Sparse if random.below(4) > 0 => 0.0,
            Values::Sparse => random.normal(),
            Values::Extreme => random.normal() * 10f32.powi(random.below(61) as i32 - 30),
            Values::Forbidden if random.below(5) == 0 => f32::NEG_INFINITY,
            Values::Forbidden => random.normal(),
        }
    }

    /// `count` values.
    pub(crate) fn vector(self, count: usize, random: &mut Random) -> Vec<f32> {
        (0..count).map(|_| self.draw(random)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::{
        Arborescence, Categorical, Chain, Maximum, Pairwise, Permutation, SpanningTree, Subset, Supermodular, Tree,
    };
    use std::ops::Range;

    #[test]
    fn every_structure_keeps_the_contract() {
        fn all_done<S: Structure>(structure: S) {
            let report = check(&structure).unwrap_or_else(|e| panic!("{e}"));
            assert!(report.left_out.is_empty(), "{report}");
            let one_hot = structure.code() != Code::Indicators;
            assert_eq!(report.done.len(), 17 + one_hot as usize, "{report}");
        }
        all_done(Categorical::new(1).unwrap());
        all_done(Categorical::new(5).unwrap());
        all_done(Categorical::product(3, 4).unwrap());
        (0..6).for_each(|n| all_done(Pairwise::new(n).unwrap()));
        (0..6).for_each(|n| all_done(Supermodular::new(n).unwrap()));
        (0..5).for_each(|n| all_done(Chain::new(n, 3).unwrap()));
        all_done(Tree::new(5, 2, &[(2, 0), (2, 3), (1, 3)]).unwrap());
        (0..6).for_each(|k| all_done(Subset::new(5, k).unwrap()));
        (0..6).for_each(|n| all_done(Permutation::new(n).unwrap()));
        (1..5).for_each(|n| all_done(SpanningTree::complete(n).unwrap()));
        all_done(SpanningTree::new(4, &[(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (2, 1)]).unwrap());
        (1..5).for_each(|n| all_done(Arborescence::new(n, n / 2).unwrap()));
        let large = check(&Categorical::binary(20).unwrap()).unwrap();
        assert!(large.to_string().contains("not checked: state (1048576 states: at most 20000)"), "{large}");
    }

    #[test]
    fn the_sums_of_every_structure_agree() {
        fn all_done<S: Sums>(structure: S) {
            let report = check_sums(&structure).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((report.done.len(), report.left_out.len()), (4, 1), "{report}");
        }
        all_done(Categorical::new(1).unwrap());
        all_done(Categorical::product(3, 4).unwrap());
        (0..6).for_each(|n| all_done(Pairwise::new(n).unwrap()));
        (0..6).for_each(|n| all_done(Supermodular::new(n).unwrap()));
        (0..5).for_each(|n| all_done(Chain::new(n, 3).unwrap()));
        all_done(Tree::new(5, 2, &[(2, 0), (2, 3), (1, 3)]).unwrap());
        (0..6).for_each(|k| all_done(Subset::new(5, k).unwrap()));
        (1..5).for_each(|n| all_done(SpanningTree::complete(n).unwrap()));
        all_done(SpanningTree::new(4, &[(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (2, 1)]).unwrap());
        (1..5).for_each(|n| all_done(Arborescence::new(n, n / 2).unwrap()));
        all_done(crate::structure::AnyStructure::from(Chain::new(3, 2).unwrap()));
        let large = check_sums(&Categorical::binary(20).unwrap()).unwrap();
        assert!(large.to_string().contains("not checked: sums against all states"), "{large}");
    }

    /// What may be wrong with sums.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum WrongSum {
        None,
        /// The default of the trait.
        Default,
        Unscaled,
        Overwritten,
        /// The derivative of one half.
        Half,
        /// E[s <s, d>] in the place of the covariance.
        NotCentred,
        Forbidden,
        Marginals,
        LogPartition,
        Kl,
        KlGradient,
    }

    /// Sums with a mistake.
    struct Summed<S>(S, WrongSum);

    impl<S: Structure> Structure for Summed<S> {
        type Scratch = S::Scratch;

        fn potentials(&self) -> usize {
            self.0.potentials()
        }

        fn unary(&self) -> usize {
            self.0.unary()
        }

        fn variables(&self) -> usize {
            self.0.variables()
        }

        fn states(&self) -> Option<usize> {
            self.0.states()
        }

        fn state(&self, index: usize, z: &mut [u32]) {
            self.0.state(index, z);
        }

        fn code(&self) -> Code {
            self.0.code()
        }

        fn scratch(&self) -> S::Scratch {
            self.0.scratch()
        }

        fn argmax(&self, h: &[f32], z: &mut [u32], scratch: &mut S::Scratch) -> Result<Maximum, Error> {
            self.0.argmax(h, z, scratch)
        }

        fn add_statistics(&self, z: &[u32], scale: f32, out: &mut [f32]) {
            self.0.add_statistics(z, scale, out);
        }
    }

    impl<S: Sums> Sums for Summed<S> {
        fn marginals(&self, h: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
            let log_partition = self.0.marginals(h, marginals)?;
            if self.1 == WrongSum::Marginals {
                marginals.reverse();
            }
            Ok(log_partition)
        }

        fn log_partition(&self, h: &[f32]) -> Result<f64, Error> {
            Ok(self.0.log_partition(h)? + if self.1 == WrongSum::LogPartition { 0.1 } else { 0.0 })
        }

        fn kl_to_uniform(&self, h: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
            let scale = if self.1 == WrongSum::KlGradient { -scale } else { scale };
            Ok(self.0.kl_to_uniform(h, scale, gradient)? + if self.1 == WrongSum::Kl { 0.1 } else { 0.0 })
        }

        fn covariance(&self, h: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
            match self.1 {
                WrongSum::Unscaled => self.0.covariance(h, direction, 1.0, out)?,
                WrongSum::Overwritten => {
                    out.fill(0.0);
                    self.0.covariance(h, direction, scale, out)?;
                }
                WrongSum::Half => self.0.covariance(h, direction, 0.5 * scale, out)?,
                WrongSum::NotCentred => {
                    self.0.covariance(h, direction, scale, out)?;
                    let mut mean = vec![0.0; h.len()];
                    self.0.marginals(h, &mut mean)?;
                    let along: f32 = mean.iter().zip(direction).map(|(m, d)| m * d).sum();
                    out.iter_mut().zip(&mean).for_each(|(o, m)| *o += scale * along * m);
                }
                WrongSum::Forbidden => {
                    self.0.covariance(h, direction, scale, out)?;
                    out.iter_mut().zip(h).filter(|(_, h)| **h == f32::NEG_INFINITY).for_each(|(o, _)| *o += 1e-4);
                }
                WrongSum::Default => Bare(&self.0).covariance(h, direction, scale, out)?,
                _ => self.0.covariance(h, direction, scale, out)?,
            }
            Ok(())
        }

        fn sample<R: Rng>(&self, h: &[f32], generator: &mut R, z: &mut [u32]) -> Result<(), Error> {
            self.0.sample(h, generator, z)
        }
    }

    /// A structure whose covariance is the default.
    struct Bare<'a, S>(&'a S);

    impl<S: Structure> Structure for Bare<'_, S> {
        type Scratch = S::Scratch;

        fn potentials(&self) -> usize {
            self.0.potentials()
        }

        fn unary(&self) -> usize {
            self.0.unary()
        }

        fn variables(&self) -> usize {
            self.0.variables()
        }

        fn states(&self) -> Option<usize> {
            self.0.states()
        }

        fn state(&self, index: usize, z: &mut [u32]) {
            self.0.state(index, z);
        }

        fn code(&self) -> Code {
            self.0.code()
        }

        fn scratch(&self) -> S::Scratch {
            self.0.scratch()
        }

        fn argmax(&self, h: &[f32], z: &mut [u32], scratch: &mut S::Scratch) -> Result<Maximum, Error> {
            self.0.argmax(h, z, scratch)
        }

        fn add_statistics(&self, z: &[u32], scale: f32, out: &mut [f32]) {
            self.0.add_statistics(z, scale, out);
        }
    }

    impl<S: Sums> Sums for Bare<'_, S> {
        fn marginals(&self, h: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
            self.0.marginals(h, marginals)
        }

        fn kl_to_uniform(&self, h: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
            self.0.kl_to_uniform(h, scale, gradient)
        }

        fn sample<R: Rng>(&self, h: &[f32], generator: &mut R, z: &mut [u32]) -> Result<(), Error> {
            self.0.sample(h, generator, z)
        }
    }

    #[test]
    fn every_wrong_sum_is_caught_and_named() {
        use WrongSum::*;
        fn caught<S: Sums>(structure: S, wrong: WrongSum, method: &str) {
            match check_sums(&Summed(structure, wrong)) {
                Err(fault) => assert_eq!(fault.method, method, "{wrong:?}: {fault}"),
                Ok(report) => panic!("{wrong:?} was not found: {report}"),
            }
        }
        for right in [None, Default] {
            check_sums(&Summed(Chain::new(3, 2).unwrap(), right)).unwrap_or_else(|e| panic!("{e}"));
            check_sums(&Summed(Subset::new(5, 2).unwrap(), right)).unwrap_or_else(|e| panic!("{e}"));
        }
        for wrong in [Unscaled, Overwritten, Half, NotCentred, Forbidden] {
            caught(Chain::new(3, 2).unwrap(), wrong, "covariance");
            caught(Subset::new(5, 2).unwrap(), wrong, "covariance");
        }
        for (wrong, method) in [
            (Marginals, "marginals"),
            (LogPartition, "log_partition"),
            (Kl, "kl_to_uniform"),
            (KlGradient, "kl_to_uniform"),
        ] {
            caught(Subset::new(5, 2).unwrap(), wrong, method);
        }
        // Too many states for the default.
        let large = Categorical::binary(20).unwrap();
        let error = Bare(&large).covariance(&[0.0; 40], &[0.0; 40], 1.0, &mut [0.0; 40]).unwrap_err();
        assert!(matches!(error, Error::TooManyStates { .. }));
        let chain = Chain::new(2, 2).unwrap();
        let nothing = Bare(&chain).covariance(&[f32::NEG_INFINITY; 8], &[0.0; 8], 1.0, &mut [0.0; 8]);
        assert!(matches!(nothing, Err(Error::Infeasible { .. })));
    }

    /// What may be wrong with a structure.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Mistake {
        None,
        /// Does not count its states.
        Uncounted,
        States,
        State,
        LnStates,
        Order,
        Scale,
        Overwrite,
        Encode,
        Score,
        Scores,
        Weighted,
        SecondBest,
        Value,
        Bound,
        Ties,
        Infeasible,
        NotANumber,
        Resolve,
        Block,
        Pair,
        Potentials,
        RawGradient,
        Code,
        Gain,
        /// The max-marginals of another assignment.
        Beside,
        Missing,
        Twice,
        Refuses,
        Leaves,
        Careless,
    }

    /// A structure with a mistake.
    struct Wrong<S>(S, Mistake);

    impl<S: Structure> Structure for Wrong<S> {
        type Scratch = (S::Scratch, usize);

        fn potentials(&self) -> usize {
            self.0.potentials()
        }

        fn unary(&self) -> usize {
            self.0.unary()
        }

        fn variables(&self) -> usize {
            self.0.variables()
        }

        fn ln_states(&self) -> f64 {
            self.0.ln_states() + (self.1 == Mistake::LnStates) as u32 as f64
        }

        fn states(&self) -> Option<usize> {
            if self.1 == Mistake::Uncounted {
                return None;
            }
            self.0.states().map(|s| s + (self.1 == Mistake::States) as usize)
        }

        fn state(&self, index: usize, z: &mut [u32]) {
            self.0.state(if self.1 == Mistake::State { index / 2 } else { index }, z);
        }

        fn code(&self) -> Code {
            match self.1 {
                Mistake::Code => Code::OneHot { values: self.0.unary() / self.0.variables() + 1 },
                _ => self.0.code(),
            }
        }

        fn encode(&self, z: &[u32], code: &mut [f32]) {
            self.0.encode(z, code);
            // By default from the statistics.
            let reversed = self.1 == Mistake::Order && self.0.code() == Code::Indicators;
            if self.1 == Mistake::Encode || reversed {
                code.reverse();
            }
        }

        fn block(&self, i: usize) -> Option<Range<usize>> {
            let coupled = self.1 == Mistake::Block;
            self.0.block(i).or(coupled.then(|| {
                let values = self.0.unary() / self.0.variables();
                i * values..(i + 1) * values
            }))
        }

        fn pair(&self, i: usize, j: usize) -> Option<usize> {
            let last = self.0.variables() - 1;
            self.0.pair(i, j).map(|at| if self.1 == Mistake::Pair && (i, j) == (0, last) { at - 1 } else { at })
        }

        fn to_potentials(&self, raw: &mut [f32]) {
            self.0.to_potentials(raw);
            if self.1 == Mistake::Potentials {
                raw.iter_mut().for_each(|h| *h = h.ln());
            }
        }

        fn to_raw_gradient(&self, h: &[f32], gradient: &mut [f32]) {
            self.0.to_raw_gradient(h, gradient);
            if self.1 == Mistake::RawGradient {
                gradient[0] *= 2.0;
            }
        }

        fn scratch(&self) -> Self::Scratch {
            (self.0.scratch(), 0)
        }

        fn argmax(&self, h: &[f32], z: &mut [u32], (s, calls): &mut Self::Scratch) -> Result<Maximum, Error> {
            *calls += 1;
            let mut h = h.to_vec();
            if self.1 == Mistake::NotANumber {
                h.iter_mut().filter(|h| h.is_nan() || **h == f32::INFINITY).for_each(|h| *h = 0.0);
            }
            let mut found = match self.0.argmax(&h, z, s) {
                Err(Error::Infeasible { .. }) if self.1 == Mistake::Infeasible => {
                    z.fill(0);
                    Maximum::proved(f64::NEG_INFINITY)
                }
                other => other?,
            };
            match self.1 {
                Mistake::SecondBest if *calls % 7 == 0 => {
                    z.fill(0);
                    found = Maximum::proved(self.0.score(&h, z));
                }
                Mistake::Value => found.value += 1.0,
                Mistake::Bound => found.bound -= 1.0,
                Mistake::Ties if *calls > 1 => {
                    // Another one of the equals.
                    let mut other = z.to_vec();
                    for index in 0..self.0.states().unwrap() {
                        self.0.state(index, &mut other);
                        if self.0.score(&h, &other) == found.value {
                            z.copy_from_slice(&other);
                        }
                    }
                }
                _ => {}
            }
            Ok(found)
        }

        fn resolve(&self, h: &[f32], z: &mut [u32], (s, _): &mut Self::Scratch) -> Result<Maximum, Error> {
            if self.1 == Mistake::Resolve {
                let score = self.0.score(h, z);
                return Ok(Maximum::proved(score)); // what was best stays best
            }
            self.0.resolve(h, z, s)
        }

        fn has_moves(&self) -> bool {
            self.0.has_moves()
        }

        fn moves(&self, h: &[f32], z: &[u32], moves: &mut Vec<Move>) {
            let first = moves.len();
            self.0.moves(h, z, moves);
            match self.1 {
                Mistake::Gain => moves[first..].iter_mut().for_each(|m| m.gain *= 1.5),
                Mistake::Missing => drop(moves.pop().filter(|_| moves.len() > first)),
                Mistake::Twice => moves.extend_from_within(first..),
                _ => {}
            }
        }

        fn max_marginals(&self, h: &[f32], z: &[u32], (s, _): &mut Self::Scratch, found: &mut MaxMarginals) {
            let first = vec![0; z.len()];
            self.0.max_marginals(h, if self.1 == Mistake::Beside { &first } else { z }, s, found);
        }

        fn make(&self, change: Move, z: &mut [u32]) -> bool {
            let made = self.1 != Mistake::Refuses && self.0.make(change, z);
            match self.1 {
                // One element more, or one less.
                Mistake::Leaves => z[change.place as usize] ^= 1,
                // As if nothing else had changed.
                Mistake::Careless if !made => z[change.place as usize] = change.value,
                _ => {}
            }
            made || self.1 == Mistake::Careless
        }

        fn add_statistics(&self, z: &[u32], scale: f32, out: &mut [f32]) {
            let scale = if self.1 == Mistake::Scale { 1.0 } else { scale };
            if self.1 == Mistake::Overwrite {
                out.fill(0.0);
            }
            if self.1 == Mistake::Order {
                // As if the potentials stood in the opposite order.
                let mut other = vec![0.0; out.len()];
                self.0.add_statistics(z, scale, &mut other);
                out.iter_mut().zip(other.iter().rev()).for_each(|(o, s)| *o += s);
                return;
            }
            self.0.add_statistics(z, scale, out);
        }

        fn add_weighted_statistics(&self, w: &[f32], out: &mut [f32], z: &mut [u32], s: &mut Self::Scratch) {
            if self.1 == Mistake::Order {
                for (index, w) in w.iter().enumerate() {
                    self.0.state(index, z);
                    self.add_statistics(z, *w, out);
                }
                return;
            }
            self.0.add_weighted_statistics(w, out, z, &mut s.0);
            if self.1 == Mistake::Weighted {
                out[0] += 0.1;
            }
        }

        fn scores(&self, h: &[f32], scores: &mut [f32]) {
            if self.1 == Mistake::Order {
                let mut z = vec![0; self.variables()];
                for (index, score) in scores.iter_mut().enumerate() {
                    self.0.state(index, &mut z);
                    *score = self.score(h, &z) as f32;
                }
                return;
            }
            self.0.scores(h, scores);
            if self.1 == Mistake::Scores {
                scores.reverse();
            }
        }

        fn score(&self, h: &[f32], z: &[u32]) -> f64 {
            match self.1 {
                // By default from the statistics.
                Mistake::Order => {
                    let mut statistics = vec![0.0; h.len()];
                    self.add_statistics(z, 1.0, &mut statistics);
                    let used = statistics.iter().zip(h).filter(|(s, _)| **s != 0.0);
                    used.map(|(s, h)| *s as f64 * *h as f64).sum()
                }
                Mistake::Score => self.0.score(h, z) + h[0] as f64,
                _ => self.0.score(h, z),
            }
        }
    }

    #[track_caller]
    fn caught<S: Structure>(structure: S, mistake: Mistake, method: &str) {
        match check(&Wrong(structure, mistake)) {
            Err(fault) => assert_eq!(fault.method, method, "{mistake:?}: {fault}"),
            Ok(report) => panic!("{mistake:?} was not found: {report}"),
        }
    }

    #[test]
    fn every_mistake_is_caught_and_named() {
        let pairwise = || Pairwise::new(4).unwrap();
        let subset = || Subset::new(5, 2).unwrap();
        let permutation = || Permutation::new(3).unwrap();
        check(&Wrong(pairwise(), Mistake::None)).unwrap();
        check(&Wrong(subset(), Mistake::None)).unwrap();
        caught(pairwise(), Mistake::States, "states");
        caught(subset(), Mistake::LnStates, "ln_states");
        caught(subset(), Mistake::State, "state");
        caught(pairwise(), Mistake::Code, "code");
        caught(pairwise(), Mistake::Order, "add_statistics");
        caught(Chain::new(3, 2).unwrap(), Mistake::Order, "add_statistics");
        // Indicators have no order of their own: the arg max disagrees.
        caught(subset(), Mistake::Order, "argmax");
        caught(Permutation::new(3).unwrap(), Mistake::Order, "argmax");
        for mistake in [Mistake::Scale, Mistake::Overwrite] {
            caught(pairwise(), mistake, "add_statistics");
            caught(subset(), mistake, "add_statistics");
        }
        caught(pairwise(), Mistake::Encode, "encode");
        caught(subset(), Mistake::Encode, "encode");
        caught(subset(), Mistake::Score, "score");
        caught(subset(), Mistake::Scores, "scores");
        caught(pairwise(), Mistake::Weighted, "add_weighted_statistics");
        for mistake in [Mistake::SecondBest, Mistake::Value, Mistake::Bound, Mistake::Ties, Mistake::NotANumber] {
            caught(pairwise(), mistake, "argmax");
        }
        caught(permutation(), Mistake::Infeasible, "argmax");
        caught(pairwise(), Mistake::Resolve, "resolve");
        caught(permutation(), Mistake::Resolve, "resolve");
        caught(pairwise(), Mistake::Block, "block");
        caught(pairwise(), Mistake::Pair, "pair");
        caught(subset(), Mistake::Potentials, "to_potentials");
        caught(Supermodular::new(3).unwrap(), Mistake::RawGradient, "to_raw_gradient");
        caught(pairwise(), Mistake::Gain, "moves");
        caught(subset(), Mistake::Gain, "moves");
        caught(pairwise(), Mistake::Beside, "max_marginals");
        caught(pairwise(), Mistake::Missing, "moves");
        caught(Categorical::new(5).unwrap(), Mistake::Twice, "moves");
        caught(subset(), Mistake::Twice, "moves");
        caught(permutation(), Mistake::Refuses, "make");
        caught(subset(), Mistake::Leaves, "make");
        caught(Arborescence::new(4, 0).unwrap(), Mistake::Careless, "make");
    }

    /// Where states are not counted, the arg max says what is one.
    #[test]
    fn moves_out_of_a_space_that_is_not_counted_are_caught() {
        struct Leaving(Subset);
        impl Structure for Leaving {
            type Scratch = <Subset as Structure>::Scratch;

            fn potentials(&self) -> usize {
                self.0.potentials()
            }

            fn unary(&self) -> usize {
                self.0.unary()
            }

            fn variables(&self) -> usize {
                self.0.variables()
            }

            fn code(&self) -> Code {
                Code::Indicators
            }

            fn scratch(&self) -> Self::Scratch {
                self.0.scratch()
            }

            fn argmax(&self, h: &[f32], z: &mut [u32], scratch: &mut Self::Scratch) -> Result<Maximum, Error> {
                self.0.argmax(h, z, scratch)
            }

            fn add_statistics(&self, z: &[u32], scale: f32, out: &mut [f32]) {
                self.0.add_statistics(z, scale, out);
            }

            fn has_moves(&self) -> bool {
                true
            }

            fn moves(&self, h: &[f32], z: &[u32], moves: &mut Vec<Move>) {
                let off = (0..h.len()).filter(|i| z[*i] == 0);
                moves.extend(off.map(|i| Move { gain: h[i], place: i as u32, value: 1 }));
            }
        }
        let fault = check(&Leaving(Subset::new(6, 3).unwrap())).unwrap_err();
        assert_eq!(fault.method, "make", "{fault}");
        let report = check(&Wrong(SpanningTree::complete(4).unwrap(), Mistake::Uncounted)).unwrap();
        assert!(report.done.contains(&"moves"), "{report}");
    }

    #[test]
    fn states_need_not_be_counted() {
        let report = check(&Wrong(Permutation::new(4).unwrap(), Mistake::Uncounted)).unwrap();
        assert!(report.done.contains(&"argmax") && !report.done.contains(&"state"), "{report}");
        assert!(report.to_string().contains("only the 24 that it finds"), "{report}");
        // All combinations of values are known without.
        let report = check(&Wrong(Chain::new(3, 2).unwrap(), Mistake::Uncounted)).unwrap();
        assert!(!report.to_string().contains("that it finds"), "{report}");
    }
}
