//! Problems of `gumbel solve`: what a line of input says, and the answer to it.

mod quick;

use gumbel::Error;
use gumbel::structure::{
    Arborescence, Categorical, Chain, Maximum, Pairwise, Permutation, SpanningTree, Structure, Subset, Sums,
    Supermodular, Tree,
};
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

/// One problem, as read.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a problem: an object like {\"structure\": ..., ...}")]
pub struct Problem {
    structure: Kind,
    unary: Option<Array>,
    pairs: Option<Edges>,
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
            let near = all.iter().map(|n| (strsim::damerau_levenshtein(n, &name), n)).min();
            let hint = match near {
                Some((distance, n)) if distance <= 3 => format!(" (did you mean {n}?)"),
                _ => String::new(),
            };
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
    marginals: Option<Array>,
    /// Of pairs, transitions or edges with matrices, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pair_marginals: Option<Array>,
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
    potentials: Vec<f32>,
    pairwise: Option<(Pairwise, <Pairwise as Structure>::Scratch)>,
    supermodular: Option<(Supermodular, <Supermodular as Structure>::Scratch)>,
}

impl Solver {
    /// `limit` is the time after which a search ends without a proof.
    pub fn new(limit: Option<Duration>) -> Self {
        Solver { limit, potentials: vec![], pairwise: None, supermodular: None }
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
                let unary = vector("unary", &problem.unary)?;
                let pairs = problem.pairs.as_ref().ok_or_else(|| missing("pairs"))?;
                if !pairs.shape.is_empty() {
                    return bad("pairs: expected [i, j, weight], found a matrix for a weight");
                }
                let entries = pairs.ends.iter().zip(&pairs.values).map(|(&(i, j), &w)| (i, j, w as f64));
                self.fill(unary.len(), unary.iter().map(|u| *u as f64), entries)?;
                let mut answer = match problem.structure {
                    Kind::Pairwise => self.pairwise(unary.len(), problem.sum)?,
                    _ => self.supermodular(unary.len(), problem.sum)?,
                };
                split_pairs(&mut answer, &Pairwise::new(unary.len())?, &pairs.ends);
                Ok(answer)
            }
            Kind::Categorical => {
                let scores = vector("scores", &problem.scores)?;
                all_unary(&Categorical::new(scores.len())?, scores, &[scores.len()], problem.sum)
            }
            Kind::Subset => {
                let scores = vector("scores", &problem.scores)?;
                let k = problem.k.ok_or_else(|| missing("k"))?;
                all_unary(&Subset::new(scores.len(), k)?, scores, &[scores.len()], problem.sum)
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
                all_unary(&SpanningTree::new(nodes, &edges.ends)?, &edges.values, &[m], problem.sum)
            }
            Kind::Chain => {
                let (t, k, unary) = rows("unary", &problem.unary)?;
                let transition = problem.transition.as_ref().ok_or_else(|| missing("transition"))?;
                transition.expect("transition", &[t.saturating_sub(1), k, k])?;
                let all = [unary, &transition.values].concat();
                let mut answer = with_sums(&Chain::new(t, k)?, &all, problem.sum)?;
                split(&mut answer, &[t, k], &transition.shape);
                Ok(answer)
            }
            Kind::Tree => {
                let (n, k, unary) = rows("unary", &problem.unary)?;
                let edges = problem.edges.as_ref().ok_or_else(|| missing("edges"))?;
                if !edges.ends.is_empty() && edges.shape != [k, k] {
                    return bad(format!(
                        "edges: expected [i, j, matrix] with {k} x {k} values, found {:?}",
                        edges.shape
                    ));
                }
                let all = [unary, &edges.values].concat();
                let mut answer = with_sums(&Tree::new(n, k, &edges.ends)?, &all, problem.sum)?;
                split(&mut answer, &[n, k], &[edges.ends.len(), k, k]);
                Ok(answer)
            }
        }
    }

    /// Solves a quadratic problem given by its linear and pair terms: `sum u_i z_i + sum w z_i z_j`.
    pub fn quadratic(&mut self, unary: &[f64], pairs: &[(usize, usize, f64)]) -> Result<Answer, Bad> {
        self.fill(unary.len(), unary.iter().copied(), pairs.iter().copied())?;
        self.pairwise(unary.len(), false)
    }

    /// Writes the potentials of a pairwise model; terms of the same pair add up.
    fn fill(
        &mut self,
        n: usize,
        unary: impl Iterator<Item = f64>,
        pairs: impl Iterator<Item = (usize, usize, f64)>,
    ) -> Result<(), Bad> {
        let model = Pairwise::new(n)?;
        self.potentials.clear();
        self.potentials.resize(model.potentials(), 0.0);
        for (i, u) in unary.enumerate() {
            self.potentials[2 * i + 1] = single(u)?;
        }
        for (i, j, w) in pairs {
            if i == j || i.max(j) >= n {
                return bad(format!("pair [{i}, {j}]: expected two different variables below {n}"));
            }
            let (i, j) = (i.min(j), i.max(j));
            let at = &mut self.potentials[model.pair(i, j)];
            *at = single(*at as f64 + w)?;
        }
        Ok(())
    }

    fn pairwise(&mut self, n: usize, sum: bool) -> Result<Answer, Bad> {
        if self.pairwise.as_ref().is_none_or(|(s, _)| s.variables() != n) {
            let structure = Pairwise::new(n)?.with_limit(self.limit);
            let scratch = structure.scratch();
            self.pairwise = Some((structure, scratch));
        }
        let (structure, scratch) = self.pairwise.as_mut().expect("made above");
        timed(structure, &self.potentials, scratch, |s, p| summed(s, p, sum))
    }

    fn supermodular(&mut self, n: usize, sum: bool) -> Result<Answer, Bad> {
        if self.supermodular.as_ref().is_none_or(|(s, _)| s.variables() != n) {
            let structure = Supermodular::new(n)?;
            let scratch = structure.scratch();
            self.supermodular = Some((structure, scratch));
        }
        let (structure, scratch) = self.supermodular.as_mut().expect("made above");
        timed(structure, &self.potentials, scratch, |s, p| summed(s, p, sum))
    }
}

impl Problem {
    /// A field that the structure does not have is a mistake, not a comment.
    fn check_fields(&self) -> Result<(), Bad> {
        let allowed: &[&str] = match self.structure {
            Kind::Pairwise | Kind::Supermodular => &["unary", "pairs"],
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

/// Rounds to the precision of the solvers; what does not fit is an error, `-inf` stays.
fn single(x: f64) -> Result<f32, Bad> {
    let y = x as f32;
    if x.is_finite() && !y.is_finite() {
        return bad(format!("{x:e} is too large: expected at most {:e}", f32::MAX));
    }
    Ok(y)
}

fn vector<'a>(name: &str, array: &'a Option<Array>) -> Result<&'a [f32], Bad> {
    let array = array.as_ref().ok_or_else(|| missing(name))?;
    match array.shape[..] {
        [_] => Ok(&array.values),
        _ => bad(format!("{name}: expected a list of numbers, found shape {:?}", array.shape)),
    }
}

fn matrix<'a>(name: &str, array: &'a Option<Array>) -> Result<(usize, usize, &'a [f32]), Bad> {
    let array = array.as_ref().ok_or_else(|| missing(name))?;
    match array.shape[..] {
        [rows, columns] => Ok((rows, columns, &array.values)),
        [0] => Ok((0, 0, &[])), // no row tells their length
        _ => bad(format!("{name}: expected a list of rows of numbers, found shape {:?}", array.shape)),
    }
}

/// One row per variable; of none, the length of the rows does not matter.
fn rows<'a>(name: &str, array: &'a Option<Array>) -> Result<(usize, usize, &'a [f32]), Bad> {
    let (n, k, values) = matrix(name, array)?;
    Ok((n, if n == 0 { 1 } else { k }, values))
}

fn square<'a>(name: &str, array: &'a Option<Array>) -> Result<(usize, &'a [f32]), Bad> {
    match matrix(name, array)? {
        (rows, columns, values) if rows == columns => Ok((rows, values)),
        (rows, columns, _) => bad(format!("{name}: expected as many columns as rows, found {rows} rows of {columns}")),
    }
}

/// Times the arg max, then adds the sums.
fn timed<S: Structure>(
    structure: &S,
    potentials: &[f32],
    scratch: &mut S::Scratch,
    sums: impl FnOnce(&S, &[f32]) -> Result<Option<Summed>, Bad>,
) -> Result<Answer, Bad> {
    let mut z = vec![0; structure.variables()];
    let began = Instant::now();
    let Maximum { value, bound } = structure.argmax(potentials, &mut z, scratch)?;
    let seconds = began.elapsed().as_secs_f64();
    let gap = (bound - value).max(0.0);
    // An empty sum is -0.
    Ok(Answer { z, value: value + 0.0, proved: gap == 0.0, gap, seconds, sums: sums(structure, potentials)? })
}

fn argmax<S: Structure>(structure: &S, potentials: &[f32]) -> Result<Answer, Bad> {
    timed(structure, potentials, &mut structure.scratch(), |_, _| Ok(None))
}

fn with_sums<S: Sums>(structure: &S, potentials: &[f32], sum: bool) -> Result<Answer, Bad> {
    timed(structure, potentials, &mut structure.scratch(), |s, p| summed(s, p, sum))
}

/// A structure whose potentials are all unary, with the shape in which the problem gives them.
fn all_unary<S: Sums>(structure: &S, potentials: &[f32], shape: &[usize], sum: bool) -> Result<Answer, Bad> {
    let mut answer = with_sums(structure, potentials, sum)?;
    split(&mut answer, shape, &[]);
    Ok(answer)
}

/// Log-partition and flat marginals, if asked for; a sum that is too large is null.
fn summed<S: Sums>(structure: &S, potentials: &[f32], sum: bool) -> Result<Option<Summed>, Bad> {
    if !sum {
        return Ok(None);
    }
    let mut values = vec![0.0; structure.potentials()];
    match structure.marginals(potentials, &mut values) {
        Ok(log_partition) => {
            let marginals = Some(Array { shape: vec![values.len()], values });
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
        sums.pair_marginals = Some(Array { shape: pairs.to_vec(), values: rest });
    }
    sums.marginals = Some(Array { shape: unary.to_vec(), values: all.values });
}

/// Of a pairwise model: the probability of 1 per variable, and of both being 1 per listed pair.
fn split_pairs(answer: &mut Answer, model: &Pairwise, ends: &[(usize, usize)]) {
    let Some(sums) = &mut answer.sums else { return };
    let Some(all) = sums.marginals.take() else { return };
    let ones = (0..model.variables()).map(|i| all.values[2 * i + 1]).collect();
    let both = ends.iter().map(|&(i, j)| all.values[model.pair(i.min(j), i.max(j))]);
    sums.pair_marginals = Some(Array { shape: vec![ends.len()], values: both.collect() });
    sums.marginals = Some(Array { shape: vec![model.variables()], values: ones });
}

/// Numbers in rectangular nested lists; `null` stands for -inf, a forbidden choice.
#[derive(Debug, Default, Clone, PartialEq)]
struct Array {
    /// Lengths from the outside in; empty for a single number.
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

impl Serialize for Array {
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
    values: Vec<f32>,
    /// Depth of the numbers, once one has been seen.
    leaf: Option<usize>,
    /// Whether the lengths at this depth and below are known.
    closed: Vec<bool>,
}

impl Reader {
    fn number(&mut self, depth: usize, value: f32) -> Result<(), &'static str> {
        if *self.leaf.get_or_insert(depth) != depth || self.shape.len() > depth {
            return Err("numbers and lists side by side: expected a rectangular table");
        }
        self.values.push(value);
        Ok(())
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
        Array { shape: reader.shape, values: reader.values }
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
        let value = single(value).map_err(E::custom)?;
        self.reader.number(self.depth, value).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.reader.number(self.depth, f32::NEG_INFINITY).map_err(E::custom)
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
    values: Vec<f32>,
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
                Ok(Edges { ends, shape: reader.shape, values: reader.values })
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

/// A quadratic problem in the sparse format of OR-Library and BiqMac.
#[derive(Debug, Default, PartialEq)]
pub struct Sparse {
    /// Diagonal of Q, `[n]`.
    pub linear: Vec<f64>,
    /// `(i, j, q_ij + q_ji)`.
    pub pairs: Vec<(usize, usize, f64)>,
}

/// Reads problems in the sparse format: a header `n m`, then m entries `i j q`, 1-based; an off-diagonal q stands for
/// q_ij = q_ji, so that z'Qz has it twice. Several problems may follow each other; OR-Library's leading count is
/// accepted.
pub fn sparse(text: &str) -> Result<Vec<Sparse>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')).peekable();
    let mut announced = None;
    if let Some((_, first)) = lines.peek()
        && let [count] = first.split_whitespace().collect::<Vec<_>>()[..]
    {
        let count: usize = count.parse().map_err(|_| format!("line 1: {count:?}: expected the header n m"))?;
        announced = Some(count);
        lines.next();
    }
    let mut problems = vec![];
    while let Some((at, header)) = lines.next() {
        let wrong =
            |at: usize, what: &str, found: &str| format!("line {}: expected {what}, found {:?}", at + 1, found.trim());
        let sizes: Option<Vec<usize>> = header.split_whitespace().map(|t| t.parse().ok()).collect();
        let Some([n, m]) = sizes.as_deref().and_then(|s| <[usize; 2]>::try_from(s).ok()) else {
            return Err(wrong(at, "the header n m", header));
        };
        if n > Pairwise::MAX_VARIABLES {
            return Err(wrong(at, &format!("at most {} variables", Pairwise::MAX_VARIABLES), header));
        }
        let mut problem = Sparse { linear: vec![0.0; n], pairs: vec![] };
        for found in 0..m {
            let (at, line) = lines.next().ok_or_else(|| {
                format!("the problem of line {} says {m} entries: found the end after {found}", at + 1)
            })?;
            let fields: Vec<&str> = line.split_whitespace().collect();
            let entry = match fields[..] {
                [i, j, q] => i.parse::<usize>().ok().zip(j.parse::<usize>().ok()).zip(q.parse::<f64>().ok()),
                _ => None,
            };
            match entry {
                Some(((i, j), q)) if (1..=n).contains(&i) && (1..=n).contains(&j) && q.is_finite() => match i == j {
                    true => problem.linear[i - 1] += q,
                    false => problem.pairs.push((i - 1, j - 1, 2.0 * q)),
                },
                _ => return Err(wrong(at, &format!("i j q with indices from 1 to {n}"), line)),
            }
        }
        problems.push(problem);
    }
    match announced {
        Some(count) if count != problems.len() => {
            Err(format!("line 1 says {count} problems: found {}", problems.len()))
        }
        _ => Ok(problems),
    }
}

impl Answer {
    /// The answer to the problem with the opposite sign.
    pub fn negated(self) -> Self {
        Answer { value: 0.0 - self.value, ..self }
    }
}
