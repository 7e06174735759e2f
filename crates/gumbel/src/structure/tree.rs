//! K-way variables on a tree or a forest.
//!
//! ```text
//! h(z) = sum_i unary[i, z_i] + sum_e table[e, z_i, z_j]        e = (i, j), in the given order
//! ```
//!
//! Potentials: `[n, K]` unary, then `[edges, K, K]` with the first end of the edge as the row. The statistics are the
//! one-hots of the variables, and of the pairs along the edges. Requires: no cycle. `-inf` is allowed everywhere.
//!
//! Every component hangs from its variable of the highest index. Messages pass from the leaves to the roots, with
//! `B_c` the belief of the child c: its own potentials and the messages of its children.
//!
//! - Arg max: `M(b) = max_a B_c(a) + table(a, b)`. Only maxima are computed on the way up; which `a` attained them is
//!   asked on the way down for the one `b` chosen, so that the inner loop stays a vectorised maximum.
//! - Sums: `M(b) = ln sum_a exp(B_c(a) + table(a, b))`. The terms of this sum, normalised, are the conditionals
//!   `q(z_c = a | z_parent = b)`: multiplied from the roots down they are the marginals, drawn from the roots down they
//!   are a sample. Every sum is scaled by its own largest term: nothing overflows, and what underflows has no
//!   probability.
//! - KL: `KL = ln |Z| - H(q)`, with the entropy H the sum of the entropies of the conditionals (no difference of large
//!   numbers). Along `t h` the conditionals change at t = 1 by `d ln q(a | b) = ln q(a | b) + N_c(a) - N(b)`, where N
//!   is the negative entropy of what lies below (`N(b) = sum_a q(a | b) (ln q(a | b) + N_c(a))`): the marginal
//!   recursion in dual numbers.
//!
//! Complexity of every operation: O(n K + edges K^2). A term of a sum is accurate to f32 (1e-7), sums are kept in f64.
//!
//! Enumeration order: mixed radix with the last variable fastest, as for [`Categorical`](super::Categorical).
//!
//! Reference: Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988; the derivative recursion: Li and Eisner,
//! "First- and Second-Order Expectation Semirings", EMNLP 2009.

use super::latent::{self, LatentEntry};
use super::moves;
use super::precise::{Real, with_rounding_of_sums};
use super::{Code, MaxMarginals, Maximum, Move, Precise, PreciseSums, Structure, Sums, add, check_numbers};
use crate::Error;
use crate::math::exp_nonpositive;
use crate::noise::uniform_f64;
use rand_chacha::rand_core::Rng;
use std::ops::Range;

/// `n` variables of `K` values on the edges of a tree or a forest.
///
/// ```
/// use gumbel::structure::{Structure, Sums, Tree};
/// let tree = Tree::new(3, 2, &[(0, 1), (0, 2)])?;
/// let equal = [1.0, 0.0, 0.0, 1.0]; // rewards z_i = z_j
/// let potentials = [[0.0, 1.5].as_slice(), &[0.0, 0.0], &[2.0, 0.0], &equal, &equal].concat();
/// let (mut best, mut scratch) = ([0; 3], tree.scratch());
/// let maximum = tree.argmax(&potentials, &mut best, &mut scratch)?;
/// assert_eq!((best, maximum.value), ([1, 1, 0], 4.5));
/// assert!((tree.log_partition(&[0.0; 14])? - 8f64.ln()).abs() < 1e-6);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    variables: usize,
    values: usize,
    edges: Vec<(usize, usize)>,
    /// The edges of each variable.
    incident: Vec<Vec<usize>>,
    /// One per edge: children before their parents.
    steps: Vec<Step>,
    /// One variable of each component.
    roots: Vec<usize>,
}

/// One edge, seen from below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    child: usize,
    parent: usize,
    edge: usize,
    /// Whether the child is the second end of the edge: the column of its table.
    turned: bool,
}

impl Tree {
    /// The largest number of potentials.
    pub const MAX_POTENTIALS: usize = 1 << 28;

    /// `variables` variables with `values` >= 1 values each. The edges join two different variables each and form no
    /// cycle; they need not connect everything.
    ///
    /// # Errors
    ///
    /// No value, more than [`MAX_POTENTIALS`](Tree::MAX_POTENTIALS), an edge out of range or one that closes a cycle.
    pub fn new(variables: usize, values: usize, edges: &[(usize, usize)]) -> Result<Self, Error> {
        let blocks = values.checked_mul(edges.len()).and_then(|k| k.checked_add(variables));
        let potentials = blocks.and_then(|b| b.checked_mul(values));
        if values == 0 || potentials.is_none_or(|p| p > Self::MAX_POTENTIALS) {
            let expected = format!("at least 1, and at most {} potentials", Self::MAX_POTENTIALS);
            return Err(Error::range("values", values, expected));
        }
        check_edges(variables, edges)?;
        let mut incident = vec![vec![]; variables];
        for (e, (i, j)) in edges.iter().enumerate() {
            incident[*i].push(e);
            incident[*j].push(e);
        }
        let mut tree = Tree { variables, values, edges: edges.to_vec(), incident, steps: vec![], roots: vec![] };
        tree.hang();
        Ok(tree)
    }

    /// Number of values of each variable, K.
    pub fn values(&self) -> usize {
        self.values
    }

    /// The edges, in the order of their potentials.
    pub fn edges(&self) -> &[(usize, usize)] {
        &self.edges
    }

    /// Chooses the roots and the order of the messages.
    fn hang(&mut self) {
        // The edges at each variable, one variable after the other.
        let mut start = vec![0; self.variables + 1];
        self.edges.iter().for_each(|&(i, j)| (start[i + 1], start[j + 1]) = (start[i + 1] + 1, start[j + 1] + 1));
        (0..self.variables).for_each(|i| start[i + 1] += start[i]);
        let (mut next, mut incident) = (start.clone(), vec![0; 2 * self.edges.len()]);
        for (e, &(i, j)) in self.edges.iter().enumerate() {
            for end in [i, j] {
                incident[next[end]] = e;
                next[end] += 1;
            }
        }
        let mut seen = vec![false; self.variables];
        let mut queue = Vec::with_capacity(self.variables);
        // From the last variable, so that the edges (t, t + 1) of a chain pass messages from row to column.
        for root in (0..self.variables).rev() {
            if std::mem::replace(&mut seen[root], true) {
                continue;
            }
            self.roots.push(root);
            queue.clear();
            queue.push(root);
            let mut head = 0;
            while head < queue.len() {
                let parent = queue[head];
                head += 1;
                for &edge in &incident[start[parent]..start[parent + 1]] {
                    let (i, j) = self.edges[edge];
                    let (child, turned) = if i == parent { (j, true) } else { (i, false) };
                    if !std::mem::replace(&mut seen[child], true) {
                        self.steps.push(Step { child, parent, edge, turned });
                        queue.push(child);
                    }
                }
            }
        }
        self.steps.reverse();
    }

    /// Where the potentials of an edge begin.
    fn table(&self, edge: usize) -> usize {
        (self.variables + edge * self.values) * self.values
    }

    fn forbidden(&self, root: usize) -> Error {
        Error::Infeasible { detail: format!("all values of variable {root}, with what hangs from it, are -inf") }
    }

    /// The table of a step as it is given. Tables are checked one by one, just before they are used: so they come from
    /// memory once.
    fn checked_table<'a, T: Real>(&self, step: &Step, potentials: &'a [T]) -> Result<&'a [T], Error> {
        let table = &potentials[self.table(step.edge)..][..self.values * self.values];
        check_numbers("potential", table).or_else(|_| check_numbers("potential", potentials))?;
        Ok(table)
    }

    /// The table of a step with the child as the row.
    fn copy_table<T: Real>(&self, step: &Step, potentials: &[T], table: &mut [T]) {
        table.copy_from_slice(&potentials[self.table(step.edge)..][..self.values * self.values]);
        if step.turned {
            transpose(table, self.values);
        }
    }

    /// Sum-product messages from the leaves to the roots.
    ///
    /// `weights` receives the scaled terms of every sum, `[edges, K, K]` with the child as the row; where they are not
    /// wanted, it may be one table long.
    fn upward<T: Real>(&self, potentials: &[T], weights: &mut [f32]) -> Result<Upward, Error> {
        check_numbers("potential", potentials)?;
        let (k, edges) = (self.values, self.edges.len());
        let stride = if weights.len() == edges * k * k { k * k } else { 0 };
        let beliefs = potentials[..self.unary()].iter().map(|v| v.wide()).collect();
        let zeros = || vec![0.0; edges * k];
        let mut up = Upward { beliefs, max: zeros(), sum: zeros(), ln_sum: zeros(), log_partition: 0.0 };
        let mut turned = vec![T::default(); if self.steps.iter().any(|s| s.turned) { k * k } else { 0 }];
        for step in &self.steps {
            let at = step.edge * k;
            let table = match step.turned {
                true => {
                    self.copy_table(step, potentials, &mut turned);
                    &turned
                }
                false => &potentials[self.table(step.edge)..][..k * k],
            };
            let terms = &mut weights[step.edge * stride..][..k * k];
            let (max, sum) = (&mut up.max[at..][..k], &mut up.sum[at..][..k]);
            scaled_terms(&up.beliefs[step.child * k..][..k], table, terms, max, sum);
            for b in 0..k {
                up.ln_sum[at + b] = sum[b].ln();
                up.beliefs[step.parent * k + b] += max[b] + up.ln_sum[at + b];
            }
        }
        for &root in &self.roots {
            let belief = &up.beliefs[root * k..][..k];
            let max = largest(belief);
            if max == f64::NEG_INFINITY {
                return Err(self.forbidden(root));
            }
            up.log_partition += max + belief.iter().map(|b| (b - max).exp()).sum::<f64>().ln();
        }
        Ok(up)
    }
}

/// What the sum-product messages leave behind.
struct Upward {
    /// `[n, K]`: log-partition of what hangs from each value of each variable.
    beliefs: Vec<f64>,
    /// `[edges, K]`: the scale of each message's sum, by value of the parent.
    max: Vec<f64>,
    /// `[edges, K]`: the scaled sums.
    sum: Vec<f64>,
    /// Their logarithms.
    ln_sum: Vec<f64>,
    log_partition: f64,
}

/// Refuses edges that are out of range or close a cycle.
fn check_edges(variables: usize, edges: &[(usize, usize)]) -> Result<(), Error> {
    // Union-find with path halving.
    let mut above: Vec<usize> = (0..variables).collect();
    let top = |above: &mut [usize], mut i: usize| {
        while above[i] != i {
            above[i] = above[above[i]];
            i = above[i];
        }
        i
    };
    for (e, &(i, j)) in edges.iter().enumerate() {
        let bad = |expected: String| Err(Error::range("edge", format!("({i}, {j}) at {e}"), expected));
        if i >= variables || j >= variables || i == j {
            return bad(format!("two different variables below {variables}"));
        }
        let (i, j) = (top(&mut above, i), top(&mut above, j));
        if i == j {
            return bad("no cycle: these variables are connected already".into());
        }
        above[i] = j;
    }
    Ok(())
}

fn transpose<T>(table: &mut [T], k: usize) {
    for a in 1..k {
        for b in 0..a {
            table.swap(a * k + b, b * k + a);
        }
    }
}

/// `q / sum`, where what has no terms has no probability either.
fn ratio(q: f64, sum: f64) -> f64 {
    if sum > 0.0 { q / sum } else { 0.0 }
}

/// Replaces `x`, not all of it `-inf`, by its softmax.
fn softmax(x: &mut [f64]) {
    let max = largest(x);
    x.iter_mut().for_each(|v| *v = (*v - max).exp());
    normalise(x);
}

fn largest(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Index and value of the first largest number.
fn first_largest(x: impl Iterator<Item = f64>) -> (usize, f64) {
    x.enumerate().fold((0, f64::NEG_INFINITY), |best, (i, v)| if v > best.1 { (i, v) } else { best })
}

/// Index drawn in proportion to the weights; `None` if all are zero.
fn draw(weights: &[f64], generator: &mut impl Rng) -> Option<usize> {
    let mut left = uniform_f64(generator) * weights.iter().sum::<f64>();
    let mut chosen = None;
    for (i, w) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        chosen = Some(i); // rounding may leave a rest: then the last possible index stands
        left -= w;
        if left < 0.0 {
            break;
        }
    }
    chosen
}

/// `out[b] = max_a from[a] + table[a][b]`.
fn max_over_rows<T: Real>(from: &[f64], table: &[T], out: &mut [f64]) {
    let mut done = 0;
    done = max_over_rows_of::<16, T>(from, table, out, done);
    done = max_over_rows_of::<8, T>(from, table, out, done);
    done = max_over_rows_of::<4, T>(from, table, out, done);
    done = max_over_rows_of::<2, T>(from, table, out, done);
    max_over_rows_of::<1, T>(from, table, out, done);
}

/// As many blocks of L columns as fit; their maxima stay in registers while the rows pass by. Returns the columns done.
#[inline(always)]
fn max_over_rows_of<const L: usize, T: Real>(from: &[f64], table: &[T], out: &mut [f64], mut done: usize) -> usize {
    let k = out.len();
    while done + L <= k {
        let mut best = [f64::NEG_INFINITY; L];
        for (from, row) in from.iter().zip(table.chunks_exact(k)) {
            let row: &[T] = &row[done..done + L];
            for l in 0..L {
                let v = from + row[l].wide();
                best[l] = if v > best[l] { v } else { best[l] };
            }
        }
        out[done..done + L].copy_from_slice(&best);
        done += L;
    }
    done
}

/// `out[a] = max_b from[b] + table[a][b]`.
fn max_over_columns<T: Real>(from: &[f64], table: &[T], out: &mut [f64]) {
    const L: usize = 4;
    for (out, row) in out.iter_mut().zip(table.chunks_exact(from.len())) {
        let mut best = [f64::NEG_INFINITY; L];
        let (rows, froms) = (row.chunks_exact(L), from.chunks_exact(L));
        let rest = rows.remainder().iter().zip(froms.remainder());
        *out = rest.fold(f64::NEG_INFINITY, |best, (v, from)| best.max(from + v.wide()));
        for (row, from) in rows.zip(froms) {
            for l in 0..L {
                let v = from[l] + row[l].wide();
                best[l] = if v > best[l] { v } else { best[l] };
            }
        }
        *out = best.iter().fold(*out, |a, b| a.max(*b));
    }
}

/// Writes the terms `exp(from[a] + table[a][b] - max[b])`, where `max[b]` is the largest of these sums, and `sum[b]`. A
/// column of `-inf` has `max` and `sum` zero.
fn scaled_terms<T: Real>(from: &[f64], table: &[T], terms: &mut [f32], max: &mut [f64], sum: &mut [f64]) {
    max_over_rows(from, table, max);
    max.iter_mut().filter(|m| **m == f64::NEG_INFINITY).for_each(|m| *m = 0.0);
    sum.fill(0.0);
    // Loops of one kind each: the exponentials are vectorised over f32, four or more at a time.
    let rows = table.chunks_exact(max.len()).zip(terms.chunks_exact_mut(max.len()));
    for (from, (row, terms)) in from.iter().zip(rows) {
        terms.iter_mut().zip(row).zip(&*max).for_each(|((t, v), max)| *t = (from + v.wide() - max) as f32);
    }
    terms.iter_mut().for_each(|v| *v = exp_nonpositive(*v));
    for row in terms.chunks_exact(max.len()) {
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += *v as f64);
    }
}

/// The sum of a row, in four parts: vectorised, always in the same order.
fn sum(x: &[f64]) -> f64 {
    let chunks = x.chunks_exact(4);
    let rest: f64 = chunks.remainder().iter().sum();
    let parts = chunks.fold([0.0; 4], |s, x| [s[0] + x[0], s[1] + x[1], s[2] + x[2], s[3] + x[3]]);
    rest + parts.iter().sum::<f64>()
}

/// Scales `q` to a total of one. The terms are rounded to f32: without this a long way down would add up their errors.
fn normalise(q: &mut [f64]) {
    let scale = 1.0 / sum(q);
    q.iter_mut().for_each(|v| *v *= scale);
}

impl Structure for Tree {
    /// Beliefs `[n, K]` and a message `[K]`.
    type Scratch = Vec<f64>;

    fn potentials(&self) -> usize {
        self.table(self.edges.len())
    }

    fn unary(&self) -> usize {
        self.variables * self.values
    }

    fn variables(&self) -> usize {
        self.variables
    }

    fn ln_states(&self) -> f64 {
        self.variables as f64 * (self.values as f64).ln()
    }

    fn states(&self) -> Option<usize> {
        self.values.checked_pow(u32::try_from(self.variables).ok()?)
    }

    fn state(&self, mut index: usize, assignment: &mut [u32]) {
        for z in assignment.iter_mut().rev() {
            *z = (index % self.values) as u32;
            index /= self.values;
        }
    }

    fn code(&self) -> Code {
        Code::OneHot { values: self.values }
    }

    /// Independent where no edge meets it.
    fn block(&self, variable: usize) -> Option<Range<usize>> {
        let alone = self.edges.iter().all(|(i, j)| *i != variable && *j != variable);
        alone.then_some(variable * self.values..(variable + 1) * self.values)
    }

    fn scratch(&self) -> Vec<f64> {
        vec![0.0; (self.variables + 1) * self.values]
    }

    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], scratch: &mut Vec<f64>) -> Result<Maximum, Error> {
        Ok(Maximum::proved(self.solve(potentials, assignment, scratch)?))
    }

    /// O(K) for each variable and end of an edge.
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        let k = self.values;
        for (i, z) in assignment.iter().enumerate() {
            let score = |value: usize| {
                let edges = self.incident[i].iter().map(|&e| {
                    let (a, b) = self.edges[e];
                    let row = if a == i { value } else { assignment[a] as usize };
                    let column = if b == i { value } else { assignment[b] as usize };
                    potentials[self.table(e) + row * k + column] as f64
                });
                potentials[i * k + value] as f64 + edges.sum::<f64>()
            };
            let now = score(*z as usize);
            let others = (0..k).filter(|value| *value != *z as usize);
            moves::best(moves, i, others.map(|value| (value, score(value) - now)));
        }
    }

    /// Exact, by an arg max for each of them.
    fn max_marginals(&self, potentials: &[f32], assignment: &[u32], scratch: &mut Vec<f64>, found: &mut MaxMarginals) {
        moves::solve(self, potentials, assignment, scratch, found);
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        self.used(assignment, |index| out[index] += scale);
    }

    /// One variable after the other, each with its edges to those before it: O(|Z|) in all but the tables' strides.
    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        let k = self.values;
        let mut filled = 1;
        scores[0] = 0.0;
        for (v, unary) in potentials[..self.unary()].chunks_exact(k).enumerate() {
            let edges = self.edges.iter().enumerate().filter(|(_, (i, j))| *i.max(j) == v);
            // From the back, so that no score is overwritten before it has been read.
            for s in (0..filled).rev() {
                let score = scores[s];
                let row = &mut scores[s * k..][..k];
                row.iter_mut().zip(unary).for_each(|(r, h)| *r = score + h);
                for (e, &(i, j)) in edges.clone() {
                    let digit = s / k.pow((v - 1 - i.min(j)) as u32) % k;
                    let (start, stride) = if i < j { (digit * k, 1) } else { (digit, k) };
                    let table = potentials[self.table(e) + start..].iter().step_by(stride);
                    row.iter_mut().zip(table).for_each(|(r, h)| *r += h);
                }
            }
            filled *= k;
        }
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        let mut score = 0.0;
        self.used(assignment, |index| score += potentials[index] as f64);
        score
    }
}

impl Tree {
    /// The arg max of potentials of either kind; returns its value.
    fn solve<T: Real>(&self, potentials: &[T], assignment: &mut [u32], scratch: &mut [f64]) -> Result<f64, Error> {
        check_numbers("potential", &potentials[..self.unary()])?;
        let k = self.values;
        let (beliefs, message) = scratch.split_at_mut(self.unary());
        beliefs.iter_mut().zip(potentials).for_each(|(b, v)| *b = v.wide());
        for step in &self.steps {
            let table = self.checked_table(step, potentials)?;
            let child = &beliefs[step.child * k..][..k];
            match step.turned {
                false => max_over_rows(child, table, message),
                true => max_over_columns(child, table, message),
            }
            beliefs[step.parent * k..][..k].iter_mut().zip(&*message).for_each(|(p, m)| *p += m);
        }
        let mut value = 0.0;
        for &root in &self.roots {
            let (z, best) = first_largest(beliefs[root * k..][..k].iter().copied());
            if best == f64::NEG_INFINITY {
                return Err(self.forbidden(root));
            }
            assignment[root] = z as u32;
            value += best;
        }
        for step in self.steps.iter().rev() {
            let parent = assignment[step.parent] as usize;
            let (start, stride) = if step.turned { (parent * k, 1) } else { (parent, k) };
            let table = potentials[self.table(step.edge) + start..].iter().step_by(stride);
            let child = beliefs[step.child * k..][..k].iter();
            assignment[step.child] = first_largest(child.zip(table).map(|(b, v)| b + v.wide())).0 as u32;
        }
        Ok(value)
    }

    fn marginals_of<T: Real>(&self, potentials: &[T], marginals: &mut [f32]) -> Result<f64, Error> {
        let k = self.values;
        let (unary, pairs) = marginals.split_at_mut(self.unary());
        let mut up = self.upward(potentials, pairs)?;
        // On the way down the beliefs turn into marginals.
        for &root in &self.roots {
            softmax(&mut up.beliefs[root * k..][..k]);
        }
        let mut products = vec![0.0; k];
        for step in self.steps.iter().rev() {
            // q(a, b) = term(a, b) / sum(b) q(b).
            let factor = &mut up.sum[step.edge * k..][..k];
            factor.iter_mut().zip(&up.beliefs[step.parent * k..]).for_each(|(f, q)| *f = ratio(*q, *f));
            let terms = &mut pairs[step.edge * k * k..][..k * k];
            let child = &mut up.beliefs[step.child * k..][..k];
            for (q, row) in child.iter_mut().zip(terms.chunks_exact_mut(k)) {
                products.iter_mut().zip(&*row).zip(&*factor).for_each(|((p, v), f)| *p = *v as f64 * f);
                row.iter_mut().zip(&products).for_each(|(v, p)| *v = *p as f32);
                *q = sum(&products);
            }
            normalise(child);
            if step.turned {
                transpose(terms, k);
            }
        }
        unary.iter_mut().zip(&up.beliefs).for_each(|(m, q)| *m = *q as f32);
        Ok(up.log_partition)
    }

    /// The potentials that an assignment uses.
    fn used(&self, assignment: &[u32], mut each: impl FnMut(usize)) {
        assignment.iter().enumerate().for_each(|(i, z)| each(i * self.values + *z as usize));
        for (e, &(i, j)) in self.edges.iter().enumerate() {
            each(self.table(e) + assignment[i] as usize * self.values + assignment[j] as usize);
        }
    }
}

impl Precise for Tree {
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        scratch: &mut Vec<f64>,
    ) -> Result<Maximum, Error> {
        let found = Maximum::proved(self.solve(potentials, assignment, scratch)?);
        Ok(with_rounding_of_sums(found, potentials, self.variables + self.edges.len()))
    }
}

impl PreciseSums for Tree {
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }
}

impl Sums for Tree {
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        Ok(self.upward(potentials, &mut vec![0.0; self.values * self.values])?.log_partition)
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        let (k, edges) = (self.values, self.edges.len());
        let mut terms = vec![0.0; edges * k * k];
        let up = self.upward(potentials, &mut terms)?;
        let mut table = vec![0.0; k * k];
        // N of the beliefs and of the messages: see the head of this file.
        let (mut below, mut message) = (vec![0.0; self.variables * k], vec![0.0; edges * k]);
        for step in &self.steps {
            self.copy_table(step, potentials, &mut table);
            let at = step.edge * k;
            let (max, message) = (&up.max[at..][..k], &mut message[at..][..k]);
            let rows = table.chunks_exact(k).zip(terms[at * k..].chunks_exact(k));
            for (a, (row, terms)) in rows.enumerate() {
                let (belief, below) = (up.beliefs[step.child * k + a], below[step.child * k + a]);
                for (((m, max), v), term) in message.iter_mut().zip(max).zip(row).zip(terms) {
                    let sum = *term as f64 * (belief + *v as f64 - max + below);
                    *m += if *term > 0.0 { sum } else { 0.0 };
                }
            }
            for (b, m) in message.iter_mut().enumerate() {
                *m = ratio(*m, up.sum[at + b]) - if up.sum[at + b] > 0.0 { up.ln_sum[at + b] } else { 0.0 };
                below[step.parent * k + b] += *m;
            }
        }
        // q, its derivative along t h, and the KL from the roots.
        let (mut q, mut change) = (up.beliefs.clone(), vec![0.0; self.variables * k]);
        let mut kl = self.ln_states();
        for &root in &self.roots {
            let (q, change) = (&mut q[root * k..][..k], &mut change[root * k..][..k]);
            softmax(q);
            let ln = |q: f64| if q > 0.0 { q.ln() } else { 0.0 };
            change.iter_mut().zip(&below[root * k..]).zip(&*q).for_each(|((c, below), q)| *c = ln(*q) + below);
            let mean: f64 = q.iter().zip(&*change).map(|(q, c)| q * c).sum();
            change.iter_mut().zip(q).for_each(|(c, q)| *c = *q * (*c - mean));
            kl += mean;
        }
        if scale == 0.0 {
            return Ok(kl);
        }
        let row = || vec![0.0; k];
        let (mut pair_q, mut pair_change, mut factor, mut change_factor, mut offset) =
            (row(), row(), row(), row(), row());
        for step in self.steps.iter().rev() {
            self.copy_table(step, potentials, &mut table);
            let (at, parent) = (step.edge * k, step.parent * k);
            // q(a, b) = term(a, b) / sum(b) q(b); d ln q(a | b) = (what stands in the exponent) + N(a) - offset(b).
            for b in 0..k {
                factor[b] = ratio(q[parent + b], up.sum[at + b]);
                change_factor[b] = ratio(change[parent + b], up.sum[at + b]);
                offset[b] = up.ln_sum[at + b] + message[at + b];
            }
            let rows = table.chunks_exact_mut(k).zip(terms[at * k..].chunks_exact(k));
            for (a, (row, terms)) in rows.enumerate() {
                let (belief, below) = (up.beliefs[step.child * k + a], below[step.child * k + a]);
                for b in 0..k {
                    let term = terms[b] as f64;
                    let ln_change = belief + row[b] as f64 - up.max[at + b] + (below - offset[b]);
                    let pair = term * factor[b];
                    let dual = term * change_factor[b] + pair * ln_change;
                    (pair_q[b], pair_change[b]) = if term > 0.0 { (pair, dual) } else { (0.0, 0.0) };
                }
                row.iter_mut().zip(&pair_change).for_each(|(v, c)| *v = *c as f32);
                q[step.child * k + a] = sum(&pair_q);
                change[step.child * k + a] = sum(&pair_change);
            }
            if step.turned {
                transpose(&mut table, k);
            }
            add(&mut gradient[self.table(step.edge)..][..k * k], &table, scale);
        }
        gradient.iter_mut().zip(&change).for_each(|(g, c)| *g += scale * *c as f32);
        Ok(kl)
    }

    /// As the gradient of the KL, where the direction is `h` and its changes are counted from the entropies below. Here
    /// beliefs and messages have derivatives along the direction, `D(b) = sum_a q(a | b) (D_c(a) + d(a, b))`, and the
    /// conditionals change by `d ln q(a | b) = D_c(a) + d(a, b) - D(b)`.
    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        check_numbers("direction", direction)?;
        let (k, edges) = (self.values, self.edges.len());
        let mut terms = vec![0.0; edges * k * k];
        let up = self.upward(potentials, &mut terms)?;
        let mut table = vec![0.0; k * k];
        // Of a variable that the way down has not reached: D of its belief. Then: the derivative of its marginal.
        let mut change: Vec<f64> = direction[..self.unary()].iter().map(|d| *d as f64).collect();
        let mut message = vec![0.0; edges * k];
        for step in &self.steps {
            self.copy_table(step, direction, &mut table);
            let at = step.edge * k;
            let message = &mut message[at..][..k];
            let rows = table.chunks_exact(k).zip(terms[at * k..].chunks_exact(k));
            for (below, (row, terms)) in change[step.child * k..].iter().zip(rows) {
                let sums = message.iter_mut().zip(row).zip(terms);
                sums.for_each(|((m, d), term)| *m += *term as f64 * (below + *d as f64));
            }
            for (b, m) in message.iter_mut().enumerate() {
                *m = ratio(*m, up.sum[at + b]);
                change[step.parent * k + b] += *m;
            }
        }
        let mut q = up.beliefs.clone();
        for &root in &self.roots {
            let (q, change) = (&mut q[root * k..][..k], &mut change[root * k..][..k]);
            softmax(q);
            let mean: f64 = q.iter().zip(&*change).map(|(q, c)| q * c).sum();
            change.iter_mut().zip(q).for_each(|(c, q)| *c = *q * (*c - mean));
        }
        let row = || vec![0.0; k];
        let (mut pair_q, mut pair_change, mut factor, mut change_factor) = (row(), row(), row(), row());
        for step in self.steps.iter().rev() {
            self.copy_table(step, direction, &mut table);
            let (at, parent) = (step.edge * k, step.parent * k);
            for b in 0..k {
                factor[b] = ratio(q[parent + b], up.sum[at + b]);
                change_factor[b] = ratio(change[parent + b], up.sum[at + b]);
            }
            let rows = table.chunks_exact_mut(k).zip(terms[at * k..].chunks_exact(k));
            for (a, (row, terms)) in rows.enumerate() {
                let below = change[step.child * k + a];
                for b in 0..k {
                    let term = terms[b] as f64;
                    pair_q[b] = term * factor[b];
                    let ln_change = below + row[b] as f64 - message[at + b];
                    pair_change[b] = term * change_factor[b] + pair_q[b] * ln_change;
                }
                row.iter_mut().zip(&pair_change).for_each(|(v, c)| *v = *c as f32);
                q[step.child * k + a] = sum(&pair_q);
                change[step.child * k + a] = sum(&pair_change);
            }
            if step.turned {
                transpose(&mut table, k);
            }
            add(&mut out[self.table(step.edge)..][..k * k], &table, scale);
        }
        out.iter_mut().zip(&change).for_each(|(o, c)| *o += scale * *c as f32);
        Ok(())
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        let k = self.values;
        let mut up = self.upward(potentials, &mut vec![0.0; k * k])?;
        for &root in &self.roots {
            let belief = &mut up.beliefs[root * k..][..k];
            softmax(belief);
            assignment[root] = draw(belief, generator).ok_or_else(|| self.forbidden(root))? as u32;
        }
        for step in self.steps.iter().rev() {
            let parent = assignment[step.parent] as usize;
            let (start, stride) = if step.turned { (parent * k, 1) } else { (parent, k) };
            let table = potentials[self.table(step.edge) + start..].iter().step_by(stride);
            let belief = &mut up.beliefs[step.child * k..][..k];
            belief.iter_mut().zip(table).for_each(|(b, v)| *b += *v as f64);
            softmax(belief);
            assignment[step.child] = draw(belief, generator).ok_or_else(|| self.forbidden(step.child))? as u32;
        }
        Ok(())
    }
}

/// `tree:NxK` and `tree:K:PARENTS` in the registry.
pub(super) fn entry() -> LatentEntry {
    let help = "N variables with K values on a complete binary tree, where the parent of variable i is (i - 1) / 2; \
                or on any tree: the parents of the variables 1, 2, ..., each before its child";
    LatentEntry::new("tree", "NxK or K:P1,P2,...", help, |sizes| {
        let binary = |n: usize| -> Vec<usize> { (1..n).map(|i| (i - 1) / 2).collect() };
        let (values, parents) = match sizes.as_str().split_once(':') {
            Some((values, parents)) => {
                let parents = parents.split(',').map(|p| sizes.whole(p)).collect::<Result<Vec<_>, _>>()?;
                if let Some(i) = (0..parents.len()).find(|i| parents[*i] > *i) {
                    let (child, found) = (i + 1, parents[i]);
                    return Err(sizes.refused(format!("a parent of variable {child} from 0 to {i}, not {found}")));
                }
                (sizes.whole(values)?, parents)
            }
            None => {
                let (variables, values) = sizes.pair('x')?;
                if variables == 0 || variables > latent::MAX_POTENTIALS {
                    return Err(sizes.refused(format!("1 to {} variables", latent::MAX_POTENTIALS)));
                }
                (values, binary(variables))
            }
        };
        let n = parents.len() + 1;
        sizes.informative(n, values)?;
        sizes.at_most(latent::tables(n, values))?;
        let edges: Vec<(usize, usize)> = parents.iter().enumerate().map(|(i, p)| (*p, i + 1)).collect();
        let text = match parents == binary(n) {
            true => format!("{n}x{values}"),
            false => {
                let parents: Vec<String> = parents.iter().map(usize::to_string).collect();
                format!("{values}:{}", parents.join(","))
            }
        };
        Ok((Tree::new(n, values, &edges).map_err(|e| sizes.explain(e))?.into(), text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::argmax_batch;
    use crate::structure::brute_force::{self, Random, Values};

    /// A random forest: some variables hang from an earlier one in a random order of names.
    fn forest(random: &mut Random) -> Tree {
        let variables = random.below(6);
        let values = 1 + random.below(if variables > 3 { 3 } else { 4 });
        let mut names: Vec<usize> = (0..variables).collect();
        (1..variables).for_each(|i| names.swap(i, random.below(i + 1)));
        let mut edges = vec![];
        for i in 1..variables {
            let (a, b) = (names[i], names[random.below(i)]);
            if random.below(5) > 0 {
                edges.insert(random.below(edges.len() + 1), if random.below(2) == 0 { (a, b) } else { (b, a) });
            }
        }
        Tree::new(variables, values, &edges).unwrap()
    }

    #[test]
    fn agrees_with_brute_force() {
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(30, case);
            let tree = forest(random);
            let values = Values::ALL[random.below(5)];
            let potentials = values.vector(tree.potentials(), random);
            let what = (case, values, &tree);
            brute_force::check_argmax(&tree, &potentials, &mut tree.scratch(), &what);
            brute_force::check_sums(&tree, &potentials, &what);
            if values != Values::Extreme {
                brute_force::check_kl(&tree, &potentials, &what);
                brute_force::check_covariance(&tree, &potentials, &what);
            } else {
                // The entropy is a sum of entropies: it stays in its range whatever the magnitudes.
                let kl = tree.kl_to_uniform(&potentials, 1.0, &mut vec![0.0; tree.potentials()]).unwrap();
                assert!((-1e-5..=tree.ln_states() + 1e-5).contains(&kl), "{what:?}: {kl}");
            }
        }
    }

    #[test]
    fn wide_tables_agree_with_elimination_in_the_log_domain() {
        // Enough values for every width of block; two variables make the sums plain.
        for case in 0..200 {
            let random = &mut Random::new(31, case);
            let k = 1 + random.below(40);
            let edge = if case % 2 == 0 { (0, 1) } else { (1, 0) };
            let tree = Tree::new(2, k, &[edge]).unwrap();
            let values = Values::ALL[random.below(5)];
            let h = values.vector(tree.potentials(), random);
            brute_force::check_argmax(&tree, &h, &mut tree.scratch(), &(case, k));
            brute_force::check_sums(&tree, &h, &(case, k));
            if k < 12 && values != Values::Extreme {
                brute_force::check_kl(&tree, &h, &(case, k));
                brute_force::check_covariance(&tree, &h, &(case, k));
            }
        }
    }

    #[test]
    fn samples_follow_the_gibbs_distribution() {
        let tree = Tree::new(4, 3, &[(2, 0), (0, 3)]).unwrap();
        let mut random = Random::new(32, 0);
        let mut h = Values::Normal.vector(tree.potentials(), &mut random);
        brute_force::check_samples(&tree, &h, 100_000, 33);
        [1, 4, 13, 22].iter().for_each(|i| h[*i] = f32::NEG_INFINITY);
        brute_force::check_samples(&tree, &h, 100_000, 34);
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(Tree::new(0, 2, &[(0, 0)]).is_err());
        assert!(Tree::new(2, 0, &[]).is_err());
        assert!(Tree::new(2, usize::MAX, &[(0, 1)]).is_err());
        let message = |edges: &[(usize, usize)]| Tree::new(3, 2, edges).unwrap_err().to_string();
        assert_eq!(message(&[(0, 1), (1, 3)]), "edge = (1, 3) at 1: expected two different variables below 3");
        assert_eq!(message(&[(2, 2)]), "edge = (2, 2) at 0: expected two different variables below 3");
        let cycle = "edge = (0, 2) at 2: expected no cycle: these variables are connected already";
        assert_eq!(message(&[(0, 1), (1, 2), (0, 2)]), cycle);
        assert!(Tree::new(3, 2, &[(0, 1), (1, 0)]).is_err());

        let tree = Tree::new(2, 2, &[(1, 0)]).unwrap();
        let (mut z, mut scratch) = ([0; 2], tree.scratch());
        let mut h = [0.0; 8];
        h[6] = f32::NAN;
        let nan = Error::NotANumber { what: "potential", index: 6 };
        assert_eq!(tree.argmax(&h, &mut z, &mut scratch).unwrap_err(), nan);
        assert_eq!(tree.log_partition(&h).unwrap_err(), nan);
        h[6] = f32::INFINITY;
        let infinite = Error::PositiveInfinity { what: "potential", index: 6 };
        assert_eq!(tree.marginals(&h, &mut [0.0; 8]).unwrap_err(), infinite);
        let contradiction = [0.0, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, 0.0, 0.0];
        assert!(matches!(tree.argmax(&contradiction, &mut z, &mut scratch), Err(Error::Infeasible { .. })));
        assert!(matches!(tree.log_partition(&contradiction), Err(Error::Infeasible { .. })));
        assert!(matches!(tree.kl_to_uniform(&contradiction, 0.0, &mut []), Err(Error::Infeasible { .. })));
        let generator = &mut crate::noise::Noise::new(0, crate::noise::Purpose::User(0), 0).generator_at(0);
        assert!(matches!(tree.sample(&contradiction, generator, &mut z), Err(Error::Infeasible { .. })));
        assert!(argmax_batch(&tree, &[0.0; 9], &mut z).is_err());
        assert!(argmax_batch(&tree, &[0.0; 16], &mut z).is_err());
    }

    #[test]
    fn large_trees_and_forests_without_edges_are_defined() {
        let lone = Tree::new(3, 2, &[]).unwrap();
        let mut z = [9; 3];
        let best = lone.argmax(&[0.0, 1.0, 2.0, 0.0, 0.0, 0.0], &mut z, &mut lone.scratch()).unwrap();
        assert_eq!((z, best.value, lone.states()), ([1, 0, 0], 3.0, Some(8)));

        // A long chain and a star, beyond every recursion limit and every f64 product.
        let n = 100_000;
        let chain: Vec<(usize, usize)> = (1..n).map(|i| (i, i - 1)).collect();
        let star: Vec<(usize, usize)> = (1..n).map(|i| (0, i)).collect();
        for edges in [chain, star] {
            let tree = Tree::new(n, 2, &edges).unwrap();
            let mut marginals = vec![0.0; tree.potentials()];
            let log_partition = tree.marginals(&vec![0.25; tree.potentials()], &mut marginals).unwrap();
            let expected = tree.ln_states() + 0.25 * (2 * n - 1) as f64;
            assert!((log_partition - expected).abs() < 1e-7 * expected, "{log_partition}, {expected}");
            assert!(marginals[..2 * n].iter().all(|m| (m - 0.5).abs() < 1e-6));
            assert!(marginals[2 * n..].iter().all(|m| (m - 0.25).abs() < 1e-6));
            assert_eq!(tree.states(), None);
        }
    }
}
