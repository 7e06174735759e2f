//! Problems of `gumbel solve`: what a line of input says, and the answer to it.
//!
//! Numbers are read, and problems solved, in f64: the nearest one stands for a decimal. `proved` means that no
//! assignment is better, up to roundings of sums that are small beside every number given (see [`Precise`]). What f64
//! loses of larger problems is not passed over: integers beyond 2^53 that it does not hold, numbers so small that it
//! takes them for 0, and those that drown in sums leave a gap.

mod quick;

use gumbel::Error;
use gumbel::registry::did_you_mean;
use gumbel::structure::{
    Arborescence, Categorical, Chain, Maximum, Pairwise, Permutation, Precise, PreciseSums, SpanningTree, Structure,
    Subset, Supermodular, Tree,
};
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

/// One problem, as read.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a problem: an object like {\"structure\": ..., ...}")]
pub struct Problem {
    structure: Kind,
    unary: Option<Array>,
    pairs: Option<Edges>,
    weights: Option<Array>,
    scores: Option<Array>,
    transition: Option<Array>,
    edges: Option<Edges>,
    k: Option<usize>,
    nodes: Option<usize>,
    root: Option<usize>,
    #[serde(default)]
    sum: bool,
}

/// Names of the structures.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Pairwise,
    Supermodular,
    Categorical,
    Chain,
    Tree,
    Subset,
    Permutation,
    SpanningTree,
    Arborescence,
}

impl Kind {
    const NAMES: [(&str, Kind); 9] = [
        ("pairwise", Kind::Pairwise),
        ("supermodular", Kind::Supermodular),
        ("categorical", Kind::Categorical),
        ("chain", Kind::Chain),
        ("tree", Kind::Tree),
        ("subset", Kind::Subset),
        ("permutation", Kind::Permutation),
        ("spanning-tree", Kind::SpanningTree),
        ("arborescence", Kind::Arborescence),
    ];

    fn named(name: &str) -> Option<Kind> {
        Kind::NAMES.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        Kind::named(&name).ok_or_else(|| {
            let all = Kind::NAMES.map(|(n, _)| n);
            let hint = did_you_mean(&name, &all);
            let all = all.join(", ");
            serde::de::Error::custom(format!("structure {name:?} is unknown{hint}: expected one of {all}"))
        })
    }
}

/// The answer to a problem.
#[derive(Debug, Serialize)]
pub struct Answer {
    z: Vec<u32>,
    value: f64,
    proved: bool,
    gap: f64,
    seconds: f64,
    #[serde(flatten)]
    sums: Option<Summed>,
}

/// What `"sum":true` adds.
#[derive(Debug, Default, Serialize)]
struct Summed {
    /// `None` where the sum is not tractable.
    log_partition: Option<f64>,
    /// Of the unary potentials or scores, in the shape of the problem.
    marginals: Option<Table>,
    /// Of pairs, transitions or edges with matrices, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pair_marginals: Option<Table>,
}

/// What is wrong with a problem.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    /// Not a problem: JSON or its fields.
    #[error("{0}")]
    Text(String),
    /// Refused by the structure or its solver.
    #[error(transparent)]
    Heart(#[from] Error),
}

fn bad<T>(text: impl Into<String>) -> Result<T, Bad> {
    Err(Bad::Text(text.into()))
}

/// Solves problems one after the other; solvers and their memory are kept for the next problem of the same size.
pub struct Solver {
    limit: Option<Duration>,
    /// Of a pairwise model, being filled or filled.
    potentials: Vec<f64>,
    /// What the sums of terms of one pair or variable have lost by rounding so far, by its potential.
    carries: HashMap<usize, f64>,
    /// The most that a potential is off from what was written.
    lost: f64,
    pairwise: Option<(Pairwise, <Pairwise as Structure>::Scratch)>,
    supermodular: Option<(Supermodular, <Supermodular as Structure>::Scratch)>,
}

impl Solver {
    /// `limit` is the time after which a search ends without a proof.
    pub fn new(limit: Option<Duration>) -> Self {
        Solver { limit, potentials: vec![], carries: HashMap::new(), lost: 0.0, pairwise: None, supermodular: None }
    }

    /// Reads and solves one line of JSON.
    pub fn line(&mut self, line: &[u8]) -> Result<Answer, Bad> {
        let problem = match quick::read(line) {
            Some(problem) => problem,
            None => plain(line)?,
        };
        self.solve(&problem)
    }

    fn solve(&mut self, problem: &Problem) -> Result<Answer, Bad> {
        problem.check_fields()?;
        match problem.structure {
            Kind::Pairwise | Kind::Supermodular => {
                let (unary, lost) = vector("unary", &problem.unary)?;
                let model = self.clear(unary.len())?;
                for (i, u) in unary.iter().enumerate() {
                    self.potentials[2 * i + 1] = *u;
                }
                self.lost += lost;
                match (&problem.pairs, &problem.weights) {
                    (Some(pairs), None) => self.add_pairs(&model, pairs)?,
                    (None, Some(weights)) => self.set_weights(&model, weights)?,
                    (None, None) => return Err(missing("pairs or weights")),
                    (Some(_), Some(_)) => return bad("pairs and weights: expected one of them"),
                }
                let mut answer = match problem.structure {
                    Kind::Pairwise => self.pairwise(unary.len(), problem.sum)?,
                    _ => self.supermodular(unary.len(), problem.sum)?,
                };
                split_pairs(&mut answer, &model, problem.pairs.as_ref().map(|p| &p.ends[..]));
                Ok(answer)
            }
            Kind::Categorical => {
                let scores = vector("scores", &problem.scores)?;
                let n = scores.0.len();
                all_unary(&Categorical::new(n)?, scores, &[n], problem.sum)
            }
            Kind::Subset => {
                let scores = vector("scores", &problem.scores)?;
                let k = problem.k.ok_or_else(|| missing("k"))?;
                let n = scores.0.len();
                all_unary(&Subset::new(n, k)?, scores, &[n], problem.sum)
            }
            Kind::Permutation => {
                let (n, scores) = square("scores", &problem.scores)?;
                let mut answer = argmax(&Permutation::new(n)?, scores)?;
                // The sum over permutations is a permanent: not tractable, and not faked.
                answer.sums = problem.sum.then(Summed::default);
                Ok(answer)
            }
            Kind::Arborescence => {
                let (n, scores) = square("scores", &problem.scores)?;
                let root = problem.root.ok_or_else(|| missing("root"))?;
                all_unary(&Arborescence::new(n, root)?, scores, &[n, n], problem.sum)
            }
            Kind::SpanningTree => {
                let nodes = problem.nodes.ok_or_else(|| missing("nodes"))?;
                let edges = problem.edges.as_ref().ok_or_else(|| missing("edges"))?;
                if !edges.shape.is_empty() {
                    return bad("edges: expected [i, j, weight], found a matrix for a weight");
                }
                let m = edges.ends.len();
                all_unary(&SpanningTree::new(nodes, &edges.ends)?, (&edges.values, edges.lost), &[m], problem.sum)
            }
            Kind::Chain => {
                let (t, k, (unary, lost)) = rows("unary", &problem.unary)?;
                let transition = problem.transition.as_ref().ok_or_else(|| missing("transition"))?;
                transition.expect("transition", &[t.saturating_sub(1), k, k])?;
                let all = [unary, &transition.values].concat();
                let all = (&all[..], lost.max(transition.lost));
                let mut answer = with_sums(&Chain::new(t, k)?, all, problem.sum)?;
                split(&mut answer, &[t, k], &transition.shape);
                Ok(answer)
            }
            Kind::Tree => {
                let (n, k, (unary, lost)) = rows("unary", &problem.unary)?;
                let edges = problem.edges.as_ref().ok_or_else(|| missing("edges"))?;
                if !edges.ends.is_empty() && edges.shape != [k, k] {
                    return bad(format!(
                        "edges: expected [i, j, matrix] with {k} x {k} values, found {:?}",
                        edges.shape
                    ));
                }
                let all = [unary, &edges.values].concat();
                let all = (&all[..], lost.max(edges.lost));
                let mut answer = with_sums(&Tree::new(n, k, &edges.ends)?, all, problem.sum)?;
                split(&mut answer, &[n, k], &[edges.ends.len(), k, k]);
                Ok(answer)
            }
        }
    }

    /// Begins the potentials of a pairwise model: all zero.
    fn clear(&mut self, n: usize) -> Result<Pairwise, Bad> {
        let model = Pairwise::new(n)?;
        self.potentials.clear();
        self.potentials.resize(model.potentials(), 0.0);
        self.carries.clear();
        self.lost = 0.0;
        Ok(model)
    }

    /// Adds listed weights; terms of one pair add up, and with them what they have lost.
    fn add_pairs(&mut self, model: &Pairwise, pairs: &Edges) -> Result<(), Bad> {
        if !pairs.shape.is_empty() {
            return bad("pairs: expected [i, j, weight], found a matrix for a weight");
        }
        for (&(i, j), w) in pairs.ends.iter().zip(&pairs.values) {
            self.add_pair(model, (i, j), *w)?;
        }
        self.lost += pairs.lost * pairs.ends.len() as f64;
        Ok(())
    }

    /// Sets the weights of all pairs, in the order of the potentials: (0, 1), (0, 2), ..., (1, 2), ...
    fn set_weights(&mut self, model: &Pairwise, weights: &Array) -> Result<(), Bad> {
        let all = &mut self.potentials[model.unary()..];
        if weights.shape != [all.len()] {
            let (n, found) = (model.variables(), &weights.shape);
            return bad(format!("weights: expected {} numbers for the pairs of {n}, found shape {found:?}", all.len()));
        }
        all.copy_from_slice(&weights.values);
        self.lost += weights.lost;
        Ok(())
    }

    /// Adds to the weight of a pair, in either order; terms of the same pair add up.
    #[inline]
    fn add_pair(&mut self, model: &Pairwise, (i, j): (usize, usize), w: f64) -> Result<(), Bad> {
        if i == j || i.max(j) >= model.variables() {
            let n = model.variables();
            return bad(format!("pair [{i}, {j}]: expected two different variables below {n}"));
        }
        self.add(model.pair(i.min(j), i.max(j)), w)
    }

    /// Adds to a potential. What a sum loses by rounding is kept beside it, so that terms may cancel.
    #[inline]
    fn add(&mut self, index: usize, term: f64) -> Result<(), Bad> {
        let at = &mut self.potentials[index];
        let before = std::mem::replace(at, in_range(*at + term)?);
        if before != 0.0 && at.is_finite() {
            let lost = rounding(before, term, *at);
            self.carry(index, lost);
        }
        Ok(())
    }

    #[cold]
    fn carry(&mut self, index: usize, lost: f64) {
        if lost != 0.0 {
            let carry = self.carries.entry(index).or_default();
            let before = std::mem::replace(carry, *carry + lost);
            self.lost += rounding(before, lost, *carry).abs();
        }
    }

    /// Adds what was kept beside the sums.
    fn settle(&mut self) {
        for (index, carry) in self.carries.drain() {
            self.potentials[index] += carry;
        }
    }

    fn pairwise(&mut self, n: usize, sum: bool) -> Result<Answer, Bad> {
        if self.pairwise.as_ref().is_none_or(|(s, _)| s.variables() != n) {
            let structure = Pairwise::new(n)?.with_limit(self.limit);
            let scratch = structure.scratch();
            self.pairwise = Some((structure, scratch));
        }
        self.settle();
        let (structure, scratch) = self.pairwise.as_mut().expect("made above");
        timed(structure, (&self.potentials, self.lost), scratch, |s, p| summed(s, p, sum))
    }

    fn supermodular(&mut self, n: usize, sum: bool) -> Result<Answer, Bad> {
        if self.supermodular.as_ref().is_none_or(|(s, _)| s.variables() != n) {
            let structure = Supermodular::new(n)?;
            let scratch = structure.scratch();
            self.supermodular = Some((structure, scratch));
        }
        self.settle();
        let (structure, scratch) = self.supermodular.as_mut().expect("made above");
        timed(structure, (&self.potentials, self.lost), scratch, |s, p| summed(s, p, sum))
    }
}

impl Problem {
    /// A field that the structure does not have is a mistake, not a comment.
    fn check_fields(&self) -> Result<(), Bad> {
        let allowed: &[&str] = match self.structure {
            Kind::Pairwise | Kind::Supermodular => &["unary", "pairs", "weights"],
            Kind::Categorical | Kind::Permutation => &["scores"],
            Kind::Chain => &["unary", "transition"],
            Kind::Tree => &["unary", "edges"],
            Kind::Subset => &["k", "scores"],
            Kind::SpanningTree => &["nodes", "edges"],
            Kind::Arborescence => &["root", "scores"],
        };
        let there = [
            ("unary", self.unary.is_some()),
            ("pairs", self.pairs.is_some()),
            ("weights", self.weights.is_some()),
            ("scores", self.scores.is_some()),
            ("transition", self.transition.is_some()),
            ("edges", self.edges.is_some()),
            ("k", self.k.is_some()),
            ("nodes", self.nodes.is_some()),
            ("root", self.root.is_some()),
        ];
        match there.iter().find(|(name, there)| *there && !allowed.contains(name)) {
            Some((name, _)) => bad(format!("{name} is no field of this structure: expected {}", allowed.join(" and "))),
            None => Ok(()),
        }
    }
}

/// Reads a line with serde: the reader that knows all of JSON, and what is wrong.
fn plain(line: &[u8]) -> Result<Problem, Bad> {
    if line.first() == Some(&b'[') {
        return bad("a list: expected an object like {\"structure\": ..., ...}");
    }
    serde_json::from_slice(line).map_err(|e| {
        // "Line 1" would be wrong for all lines but the first.
        Bad::Text(e.to_string().replace(" at line 1 column ", " at column "))
    })
}

fn missing(field: &str) -> Bad {
    Bad::Text(format!("{field} is missing"))
}

/// Refuses numbers whose sums might overflow; `-inf` stays.
#[inline]
fn in_range(x: f64) -> Result<f64, Bad> {
    if x.abs() <= f32::MAX as f64 || x == f64::NEG_INFINITY {
        return Ok(x);
    }
    bad(format!("{x:e} is too large: expected at most {:e}", f32::MAX))
}

/// `a + b - sum` exactly, where `sum` is `a + b` rounded (Knuth).
fn rounding(a: f64, b: f64, sum: f64) -> f64 {
    let b_rounded = sum - a;
    (a - (sum - b_rounded)) + (b - b_rounded)
}

/// Numbers, and the most that one of them is off from what was written.
type Numbers<'a> = (&'a [f64], f64);

fn vector<'a>(name: &str, array: &'a Option<Array>) -> Result<Numbers<'a>, Bad> {
    let array = array.as_ref().ok_or_else(|| missing(name))?;
    match array.shape[..] {
        [_] => Ok((&array.values, array.lost)),
        _ => bad(format!("{name}: expected a list of numbers, found shape {:?}", array.shape)),
    }
}

fn matrix<'a>(name: &str, array: &'a Option<Array>) -> Result<(usize, usize, Numbers<'a>), Bad> {
    let array = array.as_ref().ok_or_else(|| missing(name))?;
    match array.shape[..] {
        [rows, columns] => Ok((rows, columns, (&array.values, array.lost))),
        [0] => Ok((0, 0, (&[], 0.0))), // no row tells their length
        _ => bad(format!("{name}: expected a list of rows of numbers, found shape {:?}", array.shape)),
    }
}

/// One row per variable; of none, the length of the rows does not matter.
fn rows<'a>(name: &str, array: &'a Option<Array>) -> Result<(usize, usize, Numbers<'a>), Bad> {
    let (n, k, values) = matrix(name, array)?;
    Ok((n, if n == 0 { 1 } else { k }, values))
}

fn square<'a>(name: &str, array: &'a Option<Array>) -> Result<(usize, Numbers<'a>), Bad> {
    match matrix(name, array)? {
        (rows, columns, values) if rows == columns => Ok((rows, values)),
        (rows, columns, _) => bad(format!("{name}: expected as many columns as rows, found {rows} rows of {columns}")),
    }
}

/// Times the arg max, then adds the sums.
fn timed<S: Precise>(
    structure: &S,
    (potentials, lost): Numbers<'_>,
    scratch: &mut S::Scratch,
    sums: impl FnOnce(&S, &[f64]) -> Result<Option<Summed>, Bad>,
) -> Result<Answer, Bad> {
    let mut z = vec![0; structure.variables()];
    let began = Instant::now();
    let Maximum { value, bound } = structure.argmax_precise(potentials, &mut z, scratch)?;
    let seconds = began.elapsed().as_secs_f64();
    // What was lost may count for one assignment and against another, once for each statistic.
    let statistics = structure.variables() + structure.potentials() - structure.unary();
    let gap = (bound - value).max(0.0) + 2.0 * lost * statistics as f64;
    // An empty sum is -0.
    Ok(Answer { z, value: value + 0.0, proved: gap == 0.0, gap, seconds, sums: sums(structure, potentials)? })
}

fn argmax<S: Precise>(structure: &S, potentials: Numbers<'_>) -> Result<Answer, Bad> {
    timed(structure, potentials, &mut structure.scratch(), |_, _| Ok(None))
}

fn with_sums<S: PreciseSums>(structure: &S, potentials: Numbers<'_>, sum: bool) -> Result<Answer, Bad> {
    timed(structure, potentials, &mut structure.scratch(), |s, p| summed(s, p, sum))
}

/// A structure whose potentials are all unary, with the shape in which the problem gives them.
fn all_unary<S: PreciseSums>(
    structure: &S,
    potentials: Numbers<'_>,
    shape: &[usize],
    sum: bool,
) -> Result<Answer, Bad> {
    let mut answer = with_sums(structure, potentials, sum)?;
    split(&mut answer, shape, &[]);
    Ok(answer)
}

/// Log-partition and flat marginals, if asked for; a sum that is too large is null.
fn summed<S: PreciseSums>(structure: &S, potentials: &[f64], sum: bool) -> Result<Option<Summed>, Bad> {
    if !sum {
        return Ok(None);
    }
    let mut values = vec![0.0; structure.potentials()];
    match structure.marginals_precise(potentials, &mut values) {
        Ok(log_partition) => {
            let marginals = Some(Table { shape: vec![values.len()], values });
            Ok(Some(Summed { log_partition: Some(log_partition + 0.0), marginals, pair_marginals: None }))
        }
        Err(Error::TooManyStates { .. }) => Ok(Some(Summed::default())),
        Err(e) => Err(e.into()),
    }
}

/// Gives flat marginals the shapes of the problem: the unary ones first, the rest of pairs.
fn split(answer: &mut Answer, unary: &[usize], pairs: &[usize]) {
    let Some(sums) = &mut answer.sums else { return };
    let Some(mut all) = sums.marginals.take() else { return };
    if !pairs.is_empty() {
        let rest = all.values.split_off(unary.iter().product());
        sums.pair_marginals = Some(Table { shape: pairs.to_vec(), values: rest });
    }
    sums.marginals = Some(Table { shape: unary.to_vec(), values: all.values });
}

/// Of a pairwise model: the probability of 1 per variable, and of both being 1 per listed pair, or else per pair in the
/// order of weights.
fn split_pairs(answer: &mut Answer, model: &Pairwise, ends: Option<&[(usize, usize)]>) {
    let Some(sums) = &mut answer.sums else { return };
    let Some(all) = sums.marginals.take() else { return };
    let ones = (0..model.variables()).map(|i| all.values[2 * i + 1]).collect();
    let both: Vec<f32> = match ends {
        Some(ends) => ends.iter().map(|&(i, j)| all.values[model.pair(i.min(j), i.max(j))]).collect(),
        None => all.values[model.unary()..].to_vec(),
    };
    sums.pair_marginals = Some(Table { shape: vec![both.len()], values: both });
    sums.marginals = Some(Table { shape: vec![model.variables()], values: ones });
}

/// Numbers in rectangular nested lists; `null` stands for -inf, a forbidden choice.
#[derive(Debug, Default, Clone, PartialEq)]
struct Array {
    /// Lengths from the outside in; empty for a single number.
    shape: Vec<usize>,
    /// Row-major.
    values: Vec<f64>,
    /// The most that a value is off from what was written; decimals count as the nearest f64.
    lost: f64,
}

/// Probabilities in rectangular nested lists.
#[derive(Debug, Default, Clone, PartialEq)]
struct Table {
    shape: Vec<usize>,
    /// Row-major.
    values: Vec<f32>,
}

impl Array {
    fn expect(&self, name: &str, shape: &[usize]) -> Result<(), Bad> {
        let empty = self.values.is_empty() && shape.iter().product::<usize>() == 0;
        if self.shape == shape || empty {
            return Ok(());
        }
        bad(format!("{name}: expected shape {shape:?}, found {:?}", self.shape))
    }
}

impl<'de> Deserialize<'de> for Array {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut reader = Reader::default();
        Level { reader: &mut reader, depth: 0 }.deserialize(deserializer)?;
        Ok(reader.into())
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Rows { shape: &self.shape, values: &self.values }.serialize(serializer)
    }
}

struct Rows<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((&rows, shape)) = self.shape.split_first() else {
            return self.values[0].serialize(serializer);
        };
        let width: usize = shape.iter().product();
        let mut seq = serializer.serialize_seq(Some(rows))?;
        for r in 0..rows {
            seq.serialize_element(&Rows { shape, values: &self.values[r * width..][..width] })?;
        }
        seq.end()
    }
}

/// Collects nested lists, and what their lengths must be.
#[derive(Default)]
struct Reader {
    shape: Vec<usize>,
    values: Vec<f64>,
    lost: f64,
    /// Depth of the numbers, once one has been seen.
    leaf: Option<usize>,
    /// Whether the lengths at this depth and below are known.
    closed: Vec<bool>,
}

impl Reader {
    fn number(&mut self, depth: usize, value: f64) -> Result<(), &'static str> {
        if *self.leaf.get_or_insert(depth) != depth || self.shape.len() > depth {
            return Err("numbers and lists side by side: expected a rectangular table");
        }
        self.values.push(value);
        Ok(())
    }

    /// Notes an integer that f64 may not hold.
    fn integer(&mut self, written: u128, value: f64) {
        self.lost = self.lost.max(written.abs_diff(value.abs() as u128) as f64);
    }

    fn open(&mut self, depth: usize) -> Result<(), &'static str> {
        if self.leaf.is_some_and(|leaf| leaf <= depth) {
            return Err(Self::RAGGED);
        }
        if self.shape.len() <= depth {
            self.shape.push(0);
            self.closed.push(false);
        }
        Ok(())
    }

    fn close(&mut self, depth: usize, count: usize) -> Result<(), &'static str> {
        if self.closed[depth] && self.shape[depth] != count {
            return Err(Self::RAGGED);
        }
        self.shape[depth] = count;
        self.closed[depth] = true;
        Ok(())
    }

    const RAGGED: &'static str = "lists of different lengths: expected a rectangular table";
}

impl From<Reader> for Array {
    fn from(reader: Reader) -> Array {
        Array { shape: reader.shape, values: reader.values, lost: reader.lost }
    }
}

/// One value at a depth of nested lists.
struct Level<'a> {
    reader: &'a mut Reader,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, null for a forbidden choice, or a list of them")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let value = in_range(value).map_err(E::custom)?;
        self.reader.number(self.depth, value).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.reader.integer(value.into(), value as f64);
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.reader.integer(value.unsigned_abs().into(), value as f64);
        self.visit_f64(value as f64)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.reader.number(self.depth, f64::NEG_INFINITY).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Level { reader, depth } = self;
        reader.open(depth).map_err(serde::de::Error::custom)?;
        let mut count = 0;
        while seq.next_element_seed(Level { reader: &mut *reader, depth: depth + 1 })?.is_some() {
            count += 1;
        }
        reader.close(depth, count).map_err(serde::de::Error::custom)
    }
}

/// A list of `[i, j, weight]`, where every weight is a number, or every one a matrix of the same shape.
#[derive(Debug, Default, PartialEq)]
struct Edges {
    ends: Vec<(usize, usize)>,
    /// Shape of one weight.
    shape: Vec<usize>,
    /// `[edges, weight]`.
    values: Vec<f64>,
    /// The most that a value is off from what was written.
    lost: f64,
}

impl<'de> Deserialize<'de> for Edges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        /// One edge; the weights of all go through one reader, which sees to equal shapes.
        struct Edge<'a>(&'a mut Reader);

        impl<'de> Visitor<'de> for List {
            type Value = Edges;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of [i, j, weight]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Edges, A::Error> {
                let (mut ends, mut reader) = (vec![], Reader::default());
                while let Some(pair) = seq.next_element_seed(Edge(&mut reader))? {
                    ends.push(pair);
                }
                Ok(Edges { ends, shape: reader.shape, values: reader.values, lost: reader.lost })
            }
        }

        impl<'de> DeserializeSeed<'de> for Edge<'_> {
            type Value = (usize, usize);
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_seq(self)
            }
        }

        impl<'de> Visitor<'de> for Edge<'_> {
            type Value = (usize, usize);
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[i, j, weight]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let short = |length| serde::de::Error::invalid_length(length, &"[i, j, weight]");
                let i = seq.next_element()?.ok_or_else(|| short(0))?;
                let j = seq.next_element()?.ok_or_else(|| short(1))?;
                seq.next_element_seed(Level { reader: self.0, depth: 0 })?.ok_or_else(|| short(2))?;
                match seq.next_element::<serde::de::IgnoredAny>()? {
                    None => Ok((i, j)),
                    Some(_) => Err(short(4)),
                }
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// Reads problems in the sparse format of OR-Library and BiqMac, one after the other: a header `n m`, then m entries
/// `i j q`, 1-based; an off-diagonal q stands for q_ij = q_ji, so that z'Qz has it twice. OR-Library's leading count of
/// problems is accepted. Entries go straight into the potentials: the memory is that of one problem.
pub struct Sparse<R> {
    input: R,
    /// Of the last line read, counted from 1.
    line: usize,
    text: Vec<u8>,
    /// How many problems the file says that it has.
    announced: Option<usize>,
    found: usize,
    /// Whether problems are minimised.
    minimise: bool,
}

impl<R: BufRead> Sparse<R> {
    /// The longest line, in bytes.
    const LONGEST: usize = 1 << 16;

    /// Reads from `input`.
    pub fn new(input: R, minimise: bool) -> Self {
        Sparse { input, line: 0, text: vec![], announced: None, found: 0, minimise }
    }

    /// Reads the next problem and solves it; `None` at the end.
    pub fn answer(&mut self, solver: &mut Solver) -> Result<Option<Result<Answer, Bad>>, Unreadable> {
        if !self.next()? {
            return self.end();
        }
        if self.found == 0
            && self.announced.is_none()
            && let [count] = self.fields()?[..]
        {
            let count = count.parse().map_err(|_| self.expected("the header n m"))?;
            self.announced = Some(count);
            if !self.next()? {
                return self.end();
            }
        }
        let header = self.line;
        let sizes: Option<Vec<usize>> = self.fields()?.iter().map(|t| t.parse().ok()).collect();
        let Some([n, m]) = sizes.and_then(|s| <[usize; 2]>::try_from(s).ok()) else {
            return Err(self.expected("the header n m"));
        };
        if n > Pairwise::MAX_VARIABLES {
            return Err(self.expected(&format!("at most {} variables", Pairwise::MAX_VARIABLES)));
        }
        self.found += 1;
        let mut model = solver.clear(n);
        let sign = if self.minimise { -1.0 } else { 1.0 };
        for found in 0..m {
            if !self.next()? {
                let text = format!("the problem of line {header} says {m} entries: found the end after {found}");
                return Err(Unreadable::Text(text));
            }
            let entry = match self.fields()?[..] {
                [i, j, q] => i.parse::<usize>().ok().zip(j.parse::<usize>().ok()).zip(q.parse::<f64>().ok()),
                _ => None,
            };
            match entry {
                Some(((i, j), q)) if (1..=n).contains(&i) && (1..=n).contains(&j) && q.is_finite() => {
                    // Of a bad problem the entries are read nevertheless: the next one stands behind them.
                    if let Ok(structure) = &model {
                        let added = match i == j {
                            true => solver.add(2 * i - 1, sign * q),
                            false => solver.add_pair(structure, (i - 1, j - 1), sign * 2.0 * q),
                        };
                        if let Err(e) = added {
                            model = Err(e);
                        }
                    }
                }
                _ => return Err(self.expected(&format!("i j q with indices from 1 to {n}"))),
            }
        }
        let answer = model.and_then(|_| solver.pairwise(n, false));
        Ok(Some(if self.minimise { answer.map(Answer::negated) } else { answer }))
    }

    /// Reads the next line that is neither blank nor a comment.
    fn next(&mut self) -> Result<bool, Unreadable> {
        loop {
            self.text.clear();
            let read = self.input.by_ref().take(Self::LONGEST as u64).read_until(b'\n', &mut self.text)?;
            if read == 0 {
                return Ok(false);
            }
            self.line += 1;
            if read == Self::LONGEST && self.text.last() != Some(&b'\n') {
                let text = format!("line {} is longer than {} bytes", self.line, Self::LONGEST);
                return Err(Unreadable::Text(text));
            }
            if !self.text.trim_ascii().is_empty() && self.text[0] != b'#' {
                return Ok(true);
            }
        }
    }

    fn fields(&self) -> Result<Vec<&str>, Unreadable> {
        match std::str::from_utf8(&self.text) {
            Ok(text) => Ok(text.split_whitespace().collect()),
            Err(_) => Err(Unreadable::Text(format!("line {} is not UTF-8", self.line))),
        }
    }

    fn expected(&self, what: &str) -> Unreadable {
        let found = String::from_utf8_lossy(&self.text);
        Unreadable::Text(format!("line {}: expected {what}, found {:?}", self.line, found.trim()))
    }

    fn end<T>(&self) -> Result<Option<T>, Unreadable> {
        match self.announced {
            Some(count) if count != self.found => {
                Err(Unreadable::Text(format!("line 1 says {count} problems: found {}", self.found)))
            }
            _ => Ok(None),
        }
    }
}

/// Why the rest of a file in the sparse format cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file itself.
    #[error(transparent)]
    Input(#[from] io::Error),
    /// What stands in it.
    #[error("{0}")]
    Text(String),
}

impl Answer {
    /// The answer to the problem with the opposite sign.
    pub fn negated(self) -> Self {
        Answer { value: 0.0 - self.value, ..self }
    }
}
