//! Sums over arborescences by the matrix-tree theorem, without a subtraction: shared by spanning trees and
//! arborescences.
//!
//! The sum over all arborescences with root 0 of the products of their weights `w[parent][child]` is the determinant of
//! the Laplacian without the root (Tutte). Gaussian elimination of node k turns the graph into one on the other nodes,
//!
//! ```text
//! s_k = sum_p w[p][k],   q_p = w[p][k] / s_k,   w[p][c] += w[k][c] q_p   (p != c),   Z = product of all s_k
//! ```
//!
//! (Grassmann, Taksar and Heyman): sums, products and quotients of positive numbers only, so that every number keeps
//! its relative precision however unlike the weights are; a cycle `p = c` is simply left out, where the textbook
//! subtracts.
//!
//! The derivatives `g[p][c] = d ln Z / d w[p][c]` come from running this backwards; marginals are `w g`:
//!
//! ```text
//! g[k][c] = sum_p g[p][c] q_p,   g[p][k] = (1 + a_p - sum_p' q_p' a_p') / s_k,   a_p = sum_c g[p][c] w[k][c]
//! ```
//!
//! All terms of `w[p][k] g[p][k]` are at most n, so that the one subtraction costs at most n roundings of
//! *probabilities*. Both passes are O(n^3). The same code runs with three kinds of numbers: `f64`, pairs with a
//! derivative ([`Dual`], for the gradient of the KL term and for covariances), and logarithms with a derivative
//! ([`Log`]). Logarithms are about fifty times slower and have no such limits (but potentials of size x leave
//! probabilities a relative error of about x 2^-52 by their own rounding); they are used where a weight is less than
//! e^-300 of its child's largest, or a product might underflow.
//!
//! Samples are drawn by Wilson's algorithm (loop-erased random walks). Its number of steps has no bound, but by the
//! theorem of Propp and Wilson it is independent of the tree: when it takes too many, the walk is given up and the tree
//! is drawn edge by edge from conditional marginals instead, which does not bias the samples but takes O(n^4)
//! (potentials that trap a walk are rare, and mostly far apart).
//!
//! References: W. T. Tutte, "The dissection of equilateral triangles into equilateral triangles", 1948; W. K.
//! Grassmann, M. I. Taksar, D. P. Heyman, "Regenerative analysis and steady state distributions for Markov chains",
//! Operations Research 33, 1985; D. B. Wilson, "Generating random spanning trees more quickly than the cover time",
//! STOC 1996; J. G. Propp, D. B. Wilson, "How to get a perfectly random sample from a generic Markov chain and generate
//! a random spanning tree of a directed graph", Journal of Algorithms 27, 1998.

use crate::Error;
use rand_chacha::rand_core::Rng;
use std::ops::{Add, Div, Mul};

/// A choice of `parent` for `child`; the root is node 0 and never a child. Several arcs may join the same nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Arc {
    pub(super) parent: u32,
    pub(super) child: u32,
    /// Logarithm of the weight: finite.
    pub(super) log_weight: f64,
}

/// Weights smaller than this beside their child's largest are left to logarithms: e^-300.
const LOG_RANGE: f64 = -300.0;

/// Products below this are too near to the end of the f64 range.
const SMALLEST_PRODUCT: f64 = 1e-280;

/// Probabilities below this are left to logarithms: their products with shares might underflow.
const SMALLEST_PROBABILITY: f64 = 1e-150;

/// What the elimination needs of a number: nothing here subtracts.
trait Number: Copy + Add<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    const ZERO: Self;
    const ONE: Self;

    /// `e^log`, whose logarithm has the derivative `change`.
    fn exp(log: f64, change: f64) -> Self;

    /// The difference, or zero where rounding makes it negative (or as good as zero).
    fn minus(self, other: Self) -> Self;

    fn ln(self) -> f64;

    fn is_zero(self) -> bool;

    /// The size that decides about underflow; kinds of numbers that know none say 1.
    fn size(self) -> f64;

    /// The value of a probability, and its derivative.
    fn get(self) -> (f64, f64);
}

impl Number for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;

    fn exp(log: f64, _: f64) -> f64 {
        log.exp()
    }

    #[inline]
    fn minus(self, other: f64) -> f64 {
        let difference = self - other;
        if difference < 0.0 { 0.0 } else { difference } // NaN stays, and is found in the end
    }

    fn ln(self) -> f64 {
        f64::ln(self)
    }

    fn is_zero(self) -> bool {
        self == 0.0
    }

    fn size(self) -> f64 {
        self
    }

    fn get(self) -> (f64, f64) {
        (self, 0.0)
    }
}

/// A number and its derivative.
#[derive(Debug, Clone, Copy)]
struct Dual {
    value: f64,
    derivative: f64,
}

impl Add for Dual {
    type Output = Dual;

    #[inline]
    fn add(self, other: Dual) -> Dual {
        Dual { value: self.value + other.value, derivative: self.derivative + other.derivative }
    }
}

impl Mul for Dual {
    type Output = Dual;

    #[inline]
    fn mul(self, other: Dual) -> Dual {
        let derivative = self.derivative * other.value + self.value * other.derivative;
        Dual { value: self.value * other.value, derivative }
    }
}

impl Div for Dual {
    type Output = Dual;

    #[inline]
    fn div(self, other: Dual) -> Dual {
        let value = self.value / other.value;
        Dual { value, derivative: (self.derivative - value * other.derivative) / other.value }
    }
}

impl Number for Dual {
    const ZERO: Dual = Dual { value: 0.0, derivative: 0.0 };
    const ONE: Dual = Dual { value: 1.0, derivative: 0.0 };

    fn exp(log: f64, change: f64) -> Dual {
        Dual { value: log.exp(), derivative: change * log.exp() }
    }

    #[inline]
    fn minus(self, other: Dual) -> Dual {
        let value = self.value - other.value;
        if value < 0.0 { Dual::ZERO } else { Dual { value, derivative: self.derivative - other.derivative } }
    }

    fn ln(self) -> f64 {
        self.value.ln()
    }

    fn is_zero(self) -> bool {
        self.value == 0.0
    }

    fn size(self) -> f64 {
        self.value
    }

    fn get(self) -> (f64, f64) {
        (self.value, self.derivative)
    }
}

/// The logarithm of a number and its derivative; zero is `-inf`.
#[derive(Debug, Clone, Copy)]
struct Log {
    log: f64,
    derivative: f64,
}

impl Add for Log {
    type Output = Log;

    fn add(self, other: Log) -> Log {
        let (large, small) = if self.log >= other.log { (self, other) } else { (other, self) };
        if small.is_zero() {
            return large;
        }
        let ratio = (small.log - large.log).exp();
        // The weighted mean of the two derivatives.
        let derivative = large.derivative + (small.derivative - large.derivative) * (ratio / (1.0 + ratio));
        Log { log: large.log + ratio.ln_1p(), derivative }
    }
}

impl Mul for Log {
    type Output = Log;

    fn mul(self, other: Log) -> Log {
        Log { log: self.log + other.log, derivative: self.derivative + other.derivative }
    }
}

impl Div for Log {
    type Output = Log;

    fn div(self, other: Log) -> Log {
        Log { log: self.log - other.log, derivative: self.derivative - other.derivative }
    }
}

impl Number for Log {
    const ZERO: Log = Log { log: f64::NEG_INFINITY, derivative: 0.0 };
    const ONE: Log = Log { log: 0.0, derivative: 0.0 };

    fn exp(log: f64, change: f64) -> Log {
        Log { log, derivative: change }
    }

    fn minus(self, other: Log) -> Log {
        if other.is_zero() {
            return self;
        }
        let rest = -(other.log - self.log).exp_m1(); // 1 - other / self
        // What is left of a difference far below rounding has no derivative to speak of: it would overflow.
        if rest > 1e-20 {
            let derivative = self.derivative + (self.derivative - other.derivative) * ((1.0 - rest) / rest);
            Log { log: self.log + rest.ln(), derivative }
        } else {
            Log::ZERO
        }
    }

    fn ln(self) -> f64 {
        self.log
    }

    fn is_zero(self) -> bool {
        self.log == f64::NEG_INFINITY
    }

    fn size(self) -> f64 {
        1.0
    }

    fn get(self) -> (f64, f64) {
        // Logarithms of 1e14 and more are rounded to whole numbers: what should be at most 1 can then be anything.
        let value = self.log.min(0.0).exp();
        (value, if value > 0.0 { value * self.derivative } else { 0.0 })
    }
}

/// The weights of a graph by kind of number, and its elimination in place.
struct Graph<T> {
    nodes: usize,
    /// `[child][parent]`. After elimination row k holds the shares `q` and column k the weights `w[k][c]` for `c < k`.
    weight: Vec<T>,
    /// Sum of the weights of each node's parents when it was eliminated.
    sum: Vec<T>,
}

/// Why an elimination stopped.
enum Stop {
    /// A node has no parent left.
    Unreachable,
    /// A product might underflow.
    Underflow,
}

impl<T: Number> Graph<T> {
    /// `changes` are the derivatives of the log weights; where there are none, they are 0.
    fn new(nodes: usize, arcs: &[Arc], top: &[f64], changes: &[f64]) -> Self {
        let mut weight = vec![T::ZERO; nodes * nodes];
        for (index, arc) in arcs.iter().enumerate() {
            let w = &mut weight[arc.child as usize * nodes + arc.parent as usize];
            let change = changes.get(index).copied().unwrap_or(0.0);
            *w = *w + T::exp(arc.log_weight - top[arc.child as usize], change);
        }
        Graph { nodes, weight, sum: vec![T::ZERO; nodes] }
    }

    /// Eliminates the nodes from the last down to `first`.
    fn eliminate(&mut self, first: usize) -> Result<(), Stop> {
        let n = self.nodes;
        for k in (first..n).rev() {
            let (rows, row) = self.weight.split_at_mut(k * n);
            let row = &mut row[..k];
            let sum = row.iter().fold(T::ZERO, |sum, w| sum + *w);
            if sum.is_zero() {
                return Err(Stop::Unreachable);
            }
            self.sum[k] = sum;
            row.iter_mut().for_each(|w| *w = *w / sum);
            let least = |m: f64, w: T| if !w.is_zero() && w.size() < m { w.size() } else { m };
            let least_share = row.iter().fold(1.0, |m, q| least(m, *q));
            let mut least_weight = 1.0;
            for child in rows.chunks_exact_mut(n).skip(1) {
                let w = child[k];
                if w.is_zero() {
                    continue;
                }
                least_weight = least(least_weight, w);
                // The diagonal gets a value too: nobody reads it.
                child[..k].iter_mut().zip(&*row).for_each(|(c, q)| *c = *c + w * *q);
            }
            if least_share * least_weight < SMALLEST_PRODUCT {
                return Err(Stop::Underflow);
            }
        }
        Ok(())
    }

    fn log_partition(&self) -> f64 {
        self.sum[1..].iter().map(|s| s.ln()).sum()
    }

    /// The derivatives of the log-partition by the weights, `[child][parent]`.
    fn derivatives(&self) -> Vec<T> {
        let n = self.nodes;
        let mut derivative = vec![T::ZERO; n * n];
        let mut children = vec![T::ZERO; n];
        for k in 1..n {
            let share = &self.weight[k * n..][..k];
            children[..k].fill(T::ZERO);
            let (rows, row) = derivative.split_at_mut(k * n);
            for (c, g) in rows.chunks_exact_mut(n).enumerate().skip(1) {
                g[k] = dot(&g[..k], share);
                let w = self.weight[c * n + k];
                if !w.is_zero() {
                    children[..k].iter_mut().zip(&*g).for_each(|(a, g)| *a = *a + *g * w);
                }
            }
            let mean = dot(&children[..k], share);
            for (g, a) in row[..k].iter_mut().zip(&children) {
                *g = (T::ONE + *a).minus(mean) / self.sum[k];
            }
        }
        derivative
    }
}

/// Sum of products in four parts, which the compiler can keep apart.
fn dot<T: Number>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::ZERO; 4];
    let (a, a_rest) = a.as_chunks::<4>();
    let (b, b_rest) = b.as_chunks::<4>();
    for (a, b) in a.iter().zip(b) {
        (0..4).for_each(|l| sums[l] = sums[l] + a[l] * b[l]);
    }
    a_rest.iter().zip(b_rest).enumerate().for_each(|(l, (a, b))| sums[l] = sums[l] + *a * *b);
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// The largest log weight of each child's arcs, and the least one relative to that; nodes without arcs are an error.
fn tops(nodes: usize, arcs: &[Arc]) -> Result<(Vec<f64>, f64), Error> {
    let mut top = vec![f64::NEG_INFINITY; nodes];
    for arc in arcs {
        let t = &mut top[arc.child as usize];
        *t = t.max(arc.log_weight);
    }
    if top[1..].contains(&f64::NEG_INFINITY) {
        return Err(unreachable());
    }
    let least = arcs.iter().fold(0.0, |least: f64, arc| least.min(arc.log_weight - top[arc.child as usize]));
    Ok((top, least))
}

fn unreachable() -> Error {
    Error::Infeasible { detail: "the allowed edges do not join all nodes".into() }
}

/// Log-partition of the arborescences with root 0.
pub(super) fn log_partition(nodes: usize, arcs: &[Arc]) -> Result<f64, Error> {
    let (top, least) = tops(nodes, arcs)?;
    let scale: f64 = top[1..].iter().sum();
    fn run<T: Number>(nodes: usize, arcs: &[Arc], top: &[f64]) -> Result<f64, Stop> {
        let mut graph = Graph::<T>::new(nodes, arcs, top, &[]);
        graph.eliminate(1).map(|()| graph.log_partition())
    }
    let plain = if least >= LOG_RANGE { run::<f64>(nodes, arcs, &top) } else { Err(Stop::Underflow) };
    plain.or_else(|_| run::<Log>(nodes, arcs, &top)).map(|log| scale + log).map_err(|_| unreachable())
}

/// What is wanted of each arc.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Marginal {
    /// The probability that the arc is part of the arborescence.
    pub(super) probability: f64,
    /// Its derivative by t at t = 0, where t times the direction is added to the log weights.
    pub(super) derivative: f64,
}

/// The direction of derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Along<'a> {
    /// None: they are 0.
    Nothing,
    /// That of the log weights themselves.
    Weights,
    /// One number for each arc.
    Direction(&'a [f64]),
}

impl Along<'_> {
    /// For each arc what it has over the best one of its child: what is added to all arcs of a child changes no
    /// marginal, and would cost digits.
    fn changes(self, arcs: &[Arc], top: &[f64]) -> Vec<f64> {
        match self {
            Along::Nothing => vec![],
            Along::Weights => arcs.iter().map(|arc| arc.log_weight - top[arc.child as usize]).collect(),
            Along::Direction(direction) => {
                let mut origin = vec![0.0; top.len()];
                let best = arcs.iter().zip(direction).filter(|(arc, _)| arc.log_weight == top[arc.child as usize]);
                best.for_each(|(arc, d)| origin[arc.child as usize] = *d);
                arcs.iter().zip(direction).map(|(arc, d)| d - origin[arc.child as usize]).collect()
            }
        }
    }
}

/// Log-partition and the marginals of all arcs, with their derivatives along a direction.
pub(super) fn marginals(nodes: usize, arcs: &[Arc], along: Along<'_>) -> Result<(f64, Vec<Marginal>), Error> {
    let (top, least) = tops(nodes, arcs)?;
    let scale: f64 = top[1..].iter().sum();
    let changes = &along.changes(arcs, &top)[..];
    type Run = Result<(f64, Vec<Marginal>), Stop>;
    fn run<T: Number>(nodes: usize, arcs: &[Arc], top: &[f64], changes: &[f64]) -> Run {
        let mut graph = Graph::<T>::new(nodes, arcs, top, changes);
        graph.eliminate(1)?;
        let derivatives = graph.derivatives();
        let each = |(index, arc): (usize, &Arc)| {
            let (p, c) = (arc.parent as usize, arc.child as usize);
            let weight = T::exp(arc.log_weight - top[c], changes.get(index).copied().unwrap_or(0.0));
            let (probability, derivative) = (weight * derivatives[c * nodes + p]).get();
            Marginal { probability: probability.clamp(0.0, 1.0), derivative }
        };
        Ok((graph.log_partition(), arcs.iter().enumerate().map(each).collect()))
    }
    let plain = match (least >= LOG_RANGE, along) {
        (false, _) => Err(Stop::Underflow),
        (true, Along::Nothing) => run::<f64>(nodes, arcs, &top, changes),
        (true, _) => run::<Dual>(nodes, arcs, &top, changes),
    };
    // Derivatives by weights that are zero may overflow.
    let finite = |m: &[Marginal]| m.iter().all(|m| m.probability.is_finite() && m.derivative.is_finite());
    let found = match plain {
        Ok((log, marginals)) if finite(&marginals) => Ok((log, marginals)),
        _ => run::<Log>(nodes, arcs, &top, changes),
    };
    found.map(|(log, marginals)| (scale + log, marginals)).map_err(|_| unreachable())
}

/// Draws an arborescence: for each node but the root the index of the arc from its parent.
///
/// Wilson's algorithm may take `16 n^2 + 1000` steps; see the top of this file.
pub(super) fn sample(nodes: usize, arcs: &[Arc], generator: &mut impl Rng) -> Result<Vec<usize>, Error> {
    sample_within(16 * nodes * nodes + 1000, nodes, arcs, generator)
}

fn sample_within(steps: usize, nodes: usize, arcs: &[Arc], generator: &mut impl Rng) -> Result<Vec<usize>, Error> {
    let (top, _) = tops(nodes, arcs)?;
    let choices = Choices::new(nodes, arcs, &top);
    match walk(steps, nodes, arcs, &choices, generator) {
        Some(tree) => Ok(tree),
        None => one_by_one(nodes, arcs, generator),
    }
}

/// The arcs by child, with cumulative probabilities.
struct Choices {
    /// Where each child's arcs begin in the other two.
    start: Vec<usize>,
    arc: Vec<usize>,
    cumulative: Vec<f64>,
}

impl Choices {
    fn new(nodes: usize, arcs: &[Arc], top: &[f64]) -> Self {
        let mut start = vec![0; nodes + 1];
        arcs.iter().for_each(|arc| start[arc.child as usize + 1] += 1);
        (0..nodes).for_each(|c| start[c + 1] += start[c]);
        let (mut next, mut arc) = (start.clone(), vec![0; arcs.len()]);
        for (index, a) in arcs.iter().enumerate() {
            arc[next[a.child as usize]] = index;
            next[a.child as usize] += 1;
        }
        let mut cumulative: Vec<f64> =
            arc.iter().map(|a| (arcs[*a].log_weight - top[arcs[*a].child as usize]).exp()).collect();
        for c in 0..nodes {
            cumulative[start[c]..start[c + 1]].iter_mut().fold(0.0, |sum, w| {
                *w += sum;
                *w
            });
        }
        Choices { start, arc, cumulative }
    }

    fn draw(&self, child: usize, generator: &mut impl Rng) -> usize {
        let range = self.start[child]..self.start[child + 1];
        self.arc[range.start + draw(&self.cumulative[range], generator)]
    }
}

/// A position by cumulative weights.
fn draw(cumulative: &[f64], generator: &mut impl Rng) -> usize {
    let total = *cumulative.last().expect("at least one choice");
    // 53 random bits: uniform in [0, 1). Rounding up to the total would fall off the end.
    let point = (generator.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64) * total;
    let found = cumulative.partition_point(|c| *c <= point);
    if found < cumulative.len() { found } else { cumulative.partition_point(|c| *c < total) }
}

/// Wilson's algorithm: from every node a walk to the tree, of which only the last step out of each node counts.
fn walk(steps: usize, nodes: usize, arcs: &[Arc], choices: &Choices, generator: &mut impl Rng) -> Option<Vec<usize>> {
    let mut tree = vec![usize::MAX; nodes];
    let mut joined = vec![false; nodes];
    joined[0] = true;
    let mut left = steps;
    for start in 1..nodes {
        let mut node = start;
        while !joined[node] {
            left = left.checked_sub(1)?;
            tree[node] = choices.draw(node, generator);
            node = arcs[tree[node]].parent as usize;
        }
        node = start;
        while !joined[node] {
            joined[node] = true;
            node = arcs[tree[node]].parent as usize;
        }
    }
    Some(tree)
}

/// Draws the parent of one node after the other, each from its marginal given the ones before: a node whose parent is
/// known is merged into it.
fn one_by_one(nodes: usize, arcs: &[Arc], generator: &mut impl Rng) -> Result<Vec<usize>, Error> {
    let mut tree = vec![usize::MAX; nodes];
    // Which node of the merged graph a node belongs to; node 1 of that graph is the one whose parent is drawn next.
    let mut group: Vec<usize> = (0..nodes).collect();
    for n in (2..=nodes).rev() {
        let between = |arc: &Arc| Arc {
            parent: group[arc.parent as usize] as u32,
            child: group[arc.child as usize] as u32,
            log_weight: arc.log_weight,
        };
        let undecided = |arc: &Arc| tree[arc.child as usize] == usize::MAX;
        let merged: Vec<Arc> =
            arcs.iter().filter(|a| undecided(a)).map(between).filter(|a| a.parent != a.child).collect();
        let (top, least) = tops(n, &merged)?;
        let plain = if least >= LOG_RANGE { escapes::<f64>(n, &merged, &top) } else { Err(Stop::Underflow) };
        let escape = plain.or_else(|_| escapes::<Log>(n, &merged, &top)).map_err(|_| unreachable())?;

        let chance = |arc: &Arc| match between(arc) {
            Arc { parent, child: 1, log_weight } if parent != 1 && undecided(arc) => {
                log_weight + escape[parent as usize]
            }
            _ => f64::NEG_INFINITY,
        };
        let largest = arcs.iter().map(chance).fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return Err(unreachable());
        }
        let mut sum = 0.0;
        let cumulative = arcs.iter().map(|arc| {
            sum += (chance(arc) - largest).exp();
            sum
        });
        let drawn = draw(&cumulative.collect::<Vec<f64>>(), generator);
        tree[arcs[drawn].child as usize] = drawn;
        let parent = group[arcs[drawn].parent as usize];
        group.iter_mut().filter(|g| **g == 1).for_each(|g| *g = parent);
        group.iter_mut().filter(|g| **g == n - 1).for_each(|g| *g = 1);
    }
    Ok(tree)
}

/// For each node the log of the probability that the walk from child to parent comes to node 0 before node 1.
///
/// Given the rest, p is the parent of node 1 with a probability proportional to its weight times this. All other nodes
/// are eliminated; then the probabilities follow from the shares, again without subtraction.
fn escapes<T: Number>(nodes: usize, arcs: &[Arc], top: &[f64]) -> Result<Vec<f64>, Stop> {
    let mut graph = Graph::<T>::new(nodes, arcs, top, &[]);
    graph.eliminate(2)?;
    let mut escape = vec![T::ZERO; nodes];
    escape[0] = T::ONE;
    for k in 2..nodes {
        let share = &graph.weight[k * nodes..][..k];
        let sum = dot(share, &escape[..k]);
        let underflow = || share.iter().zip(&escape).any(|(q, e)| !q.is_zero() && !e.is_zero());
        if sum.size() < SMALLEST_PROBABILITY && underflow() {
            return Err(Stop::Underflow);
        }
        escape[k] = sum;
    }
    Ok(escape.iter().map(|e| e.ln()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Noise, Purpose};
    use crate::structure::brute_force::Random;

    /// All arcs between `nodes` nodes, with log weights between `-range` and `range`.
    fn arcs(nodes: u32, range: f32, random: &mut Random) -> Vec<Arc> {
        let pairs = (0..nodes).flat_map(|p| (1..nodes).map(move |c| (p, c))).filter(|(p, c)| p != c);
        pairs
            .map(|(parent, child)| {
                let log_weight = (range * (2.0 * random.uniform() - 1.0)) as f64;
                Arc { parent, child, log_weight }
            })
            .collect()
    }

    /// All kinds of numbers give the same marginals and derivatives, at the limits of what plain ones are used for too.
    #[test]
    fn numbers_agree() {
        for (case, range) in [1.0, 10.0, 100.0, 149.0].into_iter().cycle().take(40).enumerate() {
            let nodes = 2 + case % 19;
            let arcs = arcs(nodes as u32, range, &mut Random::new(60, case as u64));
            let (top, least) = tops(nodes, &arcs).unwrap();
            assert!(least >= LOG_RANGE);
            fn run<T: Number>(nodes: usize, arcs: &[Arc], top: &[f64]) -> (f64, Vec<(f64, f64)>) {
                let changes = Along::Weights.changes(arcs, top);
                let mut graph = Graph::<T>::new(nodes, arcs, top, &changes);
                assert!(graph.eliminate(1).is_ok());
                let g = graph.derivatives();
                let each = |(a, change): (&Arc, &f64)| {
                    let g = g[a.child as usize * nodes + a.parent as usize];
                    (T::exp(a.log_weight - top[a.child as usize], *change) * g).get()
                };
                (graph.log_partition(), arcs.iter().zip(&changes).map(each).collect())
            }
            let plain = run::<f64>(nodes, &arcs, &top);
            let dual = run::<Dual>(nodes, &arcs, &top);
            let log = run::<Log>(nodes, &arcs, &top);
            assert!((plain.0 - log.0).abs() <= 1e-10 && (plain.0 - dual.0).abs() <= 1e-10, "{case}");
            for ((p, d), l) in plain.1.iter().zip(&dual.1).zip(&log.1) {
                assert!((p.0 - l.0).abs() <= 1e-10 && (p.0 - d.0).abs() <= 1e-10, "{case}: {p:?} {d:?} {l:?}");
                assert!((d.1 - l.1).abs() <= 1e-7, "{case}: derivatives {d:?} {l:?}");
            }
            for c in 1..nodes as u32 {
                let total: f64 = arcs.iter().zip(&plain.1).filter(|(a, _)| a.child == c).map(|(_, p)| p.0).sum();
                assert!((total - 1.0).abs() < 1e-12, "{case}: node {c} has {total} parents");
            }
        }
    }

    /// Both ways to draw, on plain weights and on such as need logarithms.
    #[test]
    fn both_samplers_follow_the_distribution() {
        let nodes = 4;
        for (case, (steps, offset)) in [(1000, 0.0), (0, 0.0), (0, -400.0)].into_iter().enumerate() {
            let mut arcs = arcs(nodes as u32, 1.0, &mut Random::new(61, 7));
            // Every tree needs an arc from the root.
            arcs.iter_mut().filter(|a| a.parent == 0).for_each(|a| a.log_weight += offset);
            // By enumeration: every choice of three arcs, one for each child, that leads everywhere.
            let of = |c: u32| (0..arcs.len()).filter(|a| arcs[*a].child == c).collect::<Vec<_>>();
            let all = of(1)
                .into_iter()
                .flat_map(|a| of(2).into_iter().flat_map(move |b| of(3).into_iter().map(move |c| [a, b, c])));
            let is_tree = |t: &[usize; 3]| {
                (1..4).all(|s| (0..3).fold(s, |v, _| if v == 0 { 0 } else { arcs[t[v - 1]].parent as usize }) == 0)
            };
            let trees: Vec<[usize; 3]> = all.filter(is_tree).collect();
            assert_eq!(trees.len(), 16);
            let log = |t: &[usize; 3]| t.iter().map(|a| arcs[*a].log_weight).sum::<f64>();
            let log_partition = log_partition(nodes, &arcs).unwrap();
            let q: Vec<f64> = trees.iter().map(|t| (log(t) - log_partition).exp()).collect();
            assert!((q.iter().sum::<f64>() - 1.0).abs() < 1e-10);
            let draws = 40_000;
            let mut counts = vec![0.0; trees.len()];
            let mut generator = Noise::new(9, Purpose::User(62), case as u64).generator_at(0);
            for _ in 0..draws {
                let tree = sample_within(steps, nodes, &arcs, &mut generator).unwrap();
                counts[trees.iter().position(|t| t[..] == tree[1..]).unwrap()] += 1.0;
            }
            let expected = q.iter().map(|q| q * draws as f64);
            let cells = counts.iter().zip(expected).filter(|(_, e)| *e > 1e-9);
            let chi2: f64 = cells.map(|(c, e)| (c - e).powi(2) / e).sum();
            assert!(chi2 < 44.3, "case {case}: chi-square {chi2}, 15 degrees of freedom at most"); // p = 1e-4
        }
    }
}
