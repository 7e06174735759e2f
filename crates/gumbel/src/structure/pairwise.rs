//! The pairwise binary model with couplings of any sign.
//!
//! `h(z) = sum_i h_i(z_i) + sum_{i<j} w_ij z_i z_j` over `z` in {0, 1}^n: the potentials are 2n unary ones, `[n, 2]`,
//! and then n(n-1)/2 pair weights in lexicographic order (1,2), (1,3), ..., (n-1,n). A unary `-inf` forbids a value, a
//! pair `-inf` forbids that both variables are 1.
//!
//! Arg max is NP-hard (quadratic unconstrained binary optimisation, Ising spin glass with fields). The solver is exact
//! and exponential in the worst case:
//!
//! 1. reduction: forced values, persistency (`u_i + sum_j max(w_ij, 0) <= 0` fixes `z_i = 0`, likewise 1), elimination
//!    of variables with at most two neighbours, connected components;
//! 2. a short tabu search for a good assignment;
//! 3. depth-first branch and bound in a static order. Its strength is a concave quadratic bound: with a diagonal D that
//!    makes `D - J` positive definite, the relaxation to real signs has a closed form that a Cholesky factor updates in
//!    O(k) per node with k variables left. D is optimised every few levels for the fields that are expected there.
//!
//! An optimum is proved up to the rounding of f64 sums (about 1e-13 of the sum of all magnitudes); with integers only,
//! exactly. With a [time limit](Pairwise::with_limit) the answer may be unproved, and [`Maximum::bound`] says by how
//! much.
//!
//! Time per instance: O(n^2) plus the search; memory O(n^2).
//!
//! [`Sums`] enumerate 2^n states, for n up to [`Pairwise::MAX_SUMS`], in O(2^n) for all marginals together.
//! Enumeration order: the last variable changes fastest.
//!
//! References: Hammer, Hansen, Simeone 1984 (persistency, roof duality); Poljak, Rendl 1995 and Helmberg, Rendl 1998
//! (semidefinite bounds in branch and bound); Billionnet, Elloumi 2007 (convexification by the diagonal); Buchheim,
//! Caprara, Lodi 2012 (a static order makes the continuous bounds incremental).

mod bound;
mod climb;
mod dense;
mod search;
mod sums;

use super::latent::{self, LatentEntry};
use super::moves;
use super::precise::{Real, with_slack};
use super::{Code, MaxMarginals, Maximum, Move, Precise, PreciseSums, Structure, Sums, check_numbers};
use crate::Error;
use rand_chacha::rand_core::Rng;
use search::{Buffers, Component};
use std::ops::Range;
use std::time::{Duration, Instant};
use sums::Gibbs;

/// n binary variables with unary potentials and a weight for every pair.
///
/// ```
/// use gumbel::structure::{Pairwise, Structure, Sums};
/// let model = Pairwise::new(3)?;
/// let potentials = [
///     0.0, 1.0, 0.0, 1.0, 0.0, 1.0, // each variable would rather be 1,
///     -3.0, -3.0, 0.5, // the first not beside another one; the others like each other
/// ];
/// let mut best = [0; 3];
/// let maximum = model.argmax(&potentials, &mut best, &mut model.scratch())?;
/// assert_eq!((best, maximum.value), ([0, 1, 1], 2.5));
/// assert!(maximum.is_proved());
/// assert!(model.log_partition(&potentials)? > 2.5);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairwise {
    variables: usize,
    limit: Option<Duration>,
}

impl Pairwise {
    /// The largest number of variables.
    pub const MAX_VARIABLES: usize = 1024;

    /// The largest number of variables for [`Sums`].
    pub const MAX_SUMS: usize = sums::MAX_VARIABLES;

    /// A model of `variables` binary variables, without a time limit.
    ///
    /// # Errors
    ///
    /// More than [`MAX_VARIABLES`](Pairwise::MAX_VARIABLES).
    pub fn new(variables: usize) -> Result<Self, Error> {
        if variables > Self::MAX_VARIABLES {
            return Err(Error::range("variables", variables, format!("at most {}", Self::MAX_VARIABLES)));
        }
        Ok(Pairwise { variables, limit: None })
    }

    /// Limits the time of one instance (`None`: unlimited). When it runs out, the best assignment known is returned
    /// with a bound above its value: answers then depend on the speed of the machine. The preparation of an instance
    /// does not look at the clock; up to a hundred variables it takes some hundredths of a second, at most about a
    /// second.
    pub fn with_limit(self, limit: Option<Duration>) -> Self {
        Pairwise { limit, ..self }
    }

    /// Position of the weight of the pair `i < j` among the potentials; [`Structure::pair`] takes any, and answers
    /// `None` to others.
    ///
    /// # Panics
    /// Other pairs.
    pub fn pair(&self, i: usize, j: usize) -> usize {
        assert!(i < j && j < self.variables, "pair ({i}, {j}) of {} variables", self.variables);
        2 * self.variables + pair_index(self.variables, i, j)
    }

    /// [`argmax`](Structure::argmax) with an assignment to begin with, in `assignment`: the better it is, the sooner
    /// the optimum is proved. It need not be feasible; the answer's value does not depend on it.
    ///
    /// # Errors
    ///
    /// Those of [`argmax`](Structure::argmax).
    pub fn argmax_from(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut PairwiseScratch,
    ) -> Result<Maximum, Error> {
        scratch.run(self, potentials, assignment, true, false)
    }

    /// Adds the weighted sum of the statistics of all states to `out`.
    pub(super) fn fold_statistics(&self, weights: &[f32], out: &mut [f32], work: &mut Vec<f32>) {
        let unary = 2 * self.variables;
        let total = sums::total(weights, |w| *w as f64) as f32;
        work.clear();
        work.extend_from_slice(weights);
        work.resize(weights.len() + weights.len() / 2, 0.0);
        let (weights, given) = work.split_at_mut(weights.len());
        sums::fold_moments(self.variables, weights, given, |index, value| {
            out[index] += value;
            if index < unary {
                out[index - 1] += total - value;
            }
        });
    }

    /// `h(z)` in f64; `-inf` if `z` is forbidden.
    fn value<T: Real>(&self, potentials: &[T], z: &[u32]) -> f64 {
        let (unary, mut pairs) = potentials.split_at(2 * self.variables);
        let mut sum = 0.0;
        for (i, &zi) in z.iter().enumerate() {
            let (row, rest) = pairs.split_at(self.variables - i - 1);
            pairs = rest;
            sum += unary[2 * i + zi as usize].wide();
            if zi == 1 {
                sum += row.iter().zip(&z[i + 1..]).map(|(w, z)| if *z == 1 { w.wide() } else { 0.0 }).sum::<f64>();
            }
        }
        sum
    }
}

/// Position of pair `i < j` among the pairs of n variables, in lexicographic order.
#[inline]
pub(super) fn pair_index(n: usize, i: usize, j: usize) -> usize {
    i * (2 * n - i - 1) / 2 + j - i - 1
}

impl Structure for Pairwise {
    type Scratch = PairwiseScratch;

    fn potentials(&self) -> usize {
        2 * self.variables + self.variables * self.variables.saturating_sub(1) / 2
    }

    fn unary(&self) -> usize {
        2 * self.variables
    }

    fn variables(&self) -> usize {
        self.variables
    }

    fn ln_states(&self) -> f64 {
        self.variables as f64 * std::f64::consts::LN_2
    }

    fn states(&self) -> Option<usize> {
        1usize.checked_shl(self.variables as u32)
    }

    fn state(&self, index: usize, assignment: &mut [u32]) {
        for (i, z) in assignment.iter_mut().rev().enumerate() {
            *z = (index >> i & 1) as u32;
        }
    }

    fn code(&self) -> Code {
        Code::OneHot { values: 2 }
    }

    fn block(&self, variable: usize) -> Option<Range<usize>> {
        (self.variables == 1).then_some(2 * variable..2 * variable + 2)
    }

    fn pair(&self, i: usize, j: usize) -> Option<usize> {
        (i < j && j < self.variables).then(|| Pairwise::pair(self, i, j))
    }

    fn scratch(&self) -> PairwiseScratch {
        PairwiseScratch::default()
    }

    fn argmax(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut PairwiseScratch,
    ) -> Result<Maximum, Error> {
        scratch.run(self, potentials, assignment, false, false)
    }

    /// Starts from the last answer; order, factors and diagonals of the bounds are kept where the reduction leaves the
    /// same variables.
    fn resolve(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut PairwiseScratch,
    ) -> Result<Maximum, Error> {
        scratch.run(self, potentials, assignment, true, true)
    }

    /// O(n^2).
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        let n = self.variables;
        let (unary, pairs) = potentials.split_at(2 * n);
        for (i, z) in assignment.iter().enumerate() {
            let beside = assignment.iter().enumerate().filter(|(j, z)| **z == 1 && *j != i);
            let weights = beside.map(|(j, _)| pairs[pair_index(n, i.min(j), i.max(j))] as f64);
            let gain = unary[2 * i + 1] as f64 - unary[2 * i] as f64 + weights.sum::<f64>();
            let other = 1 - *z as usize;
            moves::best(moves, i, [(other, if other == 1 { gain } else { -gain })].into_iter());
        }
    }

    /// No single change of another variable improves what is found, and no two together. O(n^3), and O(n^2) more for
    /// each two variables that follow.
    fn max_marginals(&self, potentials: &[f32], assignment: &[u32], _: &mut PairwiseScratch, found: &mut MaxMarginals) {
        if potentials.contains(&f32::NEG_INFINITY) {
            return moves::climb(self, potentials, assignment, found); // gains could not be added up
        }
        crate::vectorised!(climb::all(self.variables, potentials, assignment, found));
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        let (unary, mut pairs) = out.split_at_mut(2 * self.variables);
        for (i, &zi) in assignment.iter().enumerate() {
            let (row, rest) = pairs.split_at_mut(self.variables - i - 1);
            pairs = rest;
            unary[2 * i + zi as usize] += scale;
            if zi == 1 {
                for (o, z) in row.iter_mut().zip(&assignment[i + 1..]) {
                    *o += scale * *z as f32;
                }
            }
        }
    }

    /// By folding, O(2^n).
    fn add_weighted_statistics(&self, weights: &[f32], out: &mut [f32], _: &mut [u32], scratch: &mut PairwiseScratch) {
        self.fold_statistics(weights, out, &mut scratch.weights);
    }

    /// By doubling, O(2^n).
    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        sums::fill_scores(self.variables, potentials, scores);
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        self.value(potentials, assignment)
    }
}

impl Precise for Pairwise {
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        scratch: &mut PairwiseScratch,
    ) -> Result<Maximum, Error> {
        let found = scratch.run(self, potentials, assignment, false, false)?;
        // What it is to be solved from again, would be of potentials in f32.
        scratch.solved = false;
        let magnitude: f64 = potentials.iter().map(|h| h.abs()).filter(|h| *h < f64::INFINITY).sum();
        Ok(with_slack(found, potentials, search::SLACK * magnitude))
    }
}

impl PreciseSums for Pairwise {
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error> {
        let gibbs = Gibbs::new(self.variables, potentials)?;
        gibbs.marginals(marginals);
        Ok(gibbs.log_partition)
    }
}

impl Sums for Pairwise {
    fn tractable(&self) -> Result<(), Error> {
        match self.variables() <= Pairwise::MAX_SUMS {
            true => Ok(()),
            false => Err(Error::NoSums {
                structure: "a pairwise model",
                reason: "they take 2^n terms, and n is more than 20",
            }),
        }
    }

    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        let gibbs = Gibbs::new(self.variables, potentials)?;
        gibbs.marginals(marginals);
        Ok(gibbs.log_partition)
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        Ok(Gibbs::new(self.variables, potentials)?.log_partition)
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        Ok(Gibbs::new(self.variables, potentials)?.kl_to_uniform(scale, gradient))
    }

    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        check_numbers("direction", direction)?;
        Gibbs::new(self.variables, potentials)?.covariance(direction, scale, out);
        Ok(())
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        Gibbs::new(self.variables, potentials)?.sample(generator, assignment);
        Ok(())
    }

    fn samples<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignments: &mut [u32]) -> Result<(), Error> {
        let gibbs = Gibbs::new(self.variables, potentials)?;
        assignments.chunks_exact_mut(self.variables.max(1)).for_each(|z| gibbs.sample(generator, z));
        Ok(())
    }
}

/// What is known of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Free,
    /// By a unary `-inf`, or by a pair `-inf` beside a variable forced to be 1.
    Forced,
    /// By persistency.
    Persistent,
    /// Follows from its neighbours, see [`Eliminated`].
    Eliminated,
}

/// A variable with at most two neighbours left: it is 1 if `gain + sum_j w_j z_j > 0`.
#[derive(Debug, Clone, Copy)]
struct Eliminated {
    variable: usize,
    gain: f64,
    neighbours: [(usize, f64); 2],
}

/// Working memory of [`Pairwise`].
#[derive(Debug, Default)]
pub struct PairwiseScratch {
    /// Gain of value 1 of each variable, `[n]`.
    u: Vec<f64>,
    /// Weights, `[n, n]`, symmetric; rows and columns of variables that are not free are zero.
    w: Vec<f64>,
    status: Vec<Status>,
    last_status: Vec<Status>,
    /// Forbidden pairs.
    forbidden: Vec<(usize, usize)>,
    eliminated: Vec<Eliminated>,
    queue: Vec<usize>,
    queued: Vec<bool>,
    found: Vec<usize>,
    components: Vec<Component>,
    /// Number of `components` in use.
    used: usize,
    start: Vec<u32>,
    /// Weights of all states, and as many again by half.
    weights: Vec<f32>,
    /// Whether the last call came to its end.
    solved: bool,
    buffers: Buffers,
}

impl PairwiseScratch {
    fn run<T: Real>(
        &mut self,
        model: &Pairwise,
        potentials: &[T],
        z: &mut [u32],
        start: bool,
        again: bool,
    ) -> Result<Maximum, Error> {
        debug_assert!(potentials.len() == model.potentials() && z.len() == model.variables);
        check_numbers("potential", potentials)?;
        let n = model.variables;
        let deadline = model.limit.map(|limit| Instant::now() + limit);
        self.start.clear();
        if start {
            self.start.extend_from_slice(z);
        }
        std::mem::swap(&mut self.status, &mut self.last_status);
        // Penalties and eliminations mix unary potentials into the weights.
        let comparable = again
            && std::mem::take(&mut self.solved)
            && self.last_status.len() == n
            && self.forbidden.is_empty()
            && self.eliminated.is_empty();
        self.read(n, potentials, z)?;
        let mut kept = false;
        if comparable {
            // Fix what was fixed the last time, if it still may be: then the same problem is left, but for its fields.
            self.reduce(n, z, true);
            kept = self.status == self.last_status;
        }
        if !kept {
            self.reduce(n, z, false);
            self.split(n);
        }
        let mut gap = 0.0;
        for component in &mut self.components[..self.used] {
            if kept {
                component.fields(&self.u);
            }
            let start = start.then_some(&self.start[..]);
            gap += component.solve(&self.u, start, kept, deadline, &mut self.buffers).gap;
            for (position, &v) in component.variables.iter().enumerate() {
                z[v] = component.is_one(position) as u32;
            }
        }
        for e in self.eliminated.iter().rev() {
            let gain = e.gain + e.neighbours.iter().map(|(j, w)| if z[*j] == 1 { *w } else { 0.0 }).sum::<f64>();
            z[e.variable] = (gain > 0.0) as u32;
        }
        // Penalties make breaking a prohibition never worthwhile; equality or rounding may still leave one broken.
        for &(i, j) in &self.forbidden {
            if z[i] == 1 && z[j] == 1 {
                let (gain_i, gain_j) = (self.gain(model, potentials, z, i), self.gain(model, potentials, z, j));
                z[if gain_i < gain_j { i } else { j }] = 0;
            }
        }
        self.solved = true;
        let value = model.value(potentials, z);
        Ok(Maximum { value, bound: value + gap })
    }

    /// Reads an instance, with forced values taken out and forbidden pairs turned into penalties.
    fn read<T: Real>(&mut self, n: usize, potentials: &[T], z: &mut [u32]) -> Result<(), Error> {
        let (unary, mut pairs) = potentials.split_at(2 * n);
        self.u.clear();
        self.status.clear();
        self.forbidden.clear();
        self.eliminated.clear();
        self.w.resize(n * n, 0.0);
        let mut forced = false;
        for (i, h) in unary.chunks_exact(2).enumerate() {
            match (h[0] == T::NEG_INFINITY, h[1] == T::NEG_INFINITY) {
                (true, true) => {
                    return Err(Error::Infeasible { detail: format!("both values of variable {i} are -inf") });
                }
                (false, false) => {
                    self.u.push(h[1].wide() - h[0].wide());
                    self.status.push(Status::Free);
                }
                (zero, _) => {
                    z[i] = zero as u32;
                    forced = true;
                    self.u.push(0.0);
                    self.status.push(Status::Forced);
                }
            }
        }
        for i in 0..n {
            let (row, rest) = pairs.split_at(n - i - 1);
            pairs = rest;
            self.w[i * n + i] = 0.0;
            for (j, &w) in (i + 1..).zip(row) {
                let w = if w == T::NEG_INFINITY {
                    self.forbidden.push((i, j));
                    0.0
                } else {
                    w.wide()
                };
                self.w[i * n + j] = w;
                self.w[j * n + i] = w;
            }
        }
        if forced {
            for &(i, j) in &self.forbidden {
                let forced = |v: usize| self.status[v] == Status::Forced && z[v] == 1;
                match (forced(i), forced(j)) {
                    (true, true) => {
                        let detail = format!("variables {i} and {j} must both be 1, and their pair is -inf");
                        return Err(Error::Infeasible { detail });
                    }
                    (true, false) => (self.status[j], z[j]) = (Status::Forced, 0),
                    (false, true) => (self.status[i], z[i]) = (Status::Forced, 0),
                    (false, false) => {}
                }
            }
            for (i, &value) in z.iter().enumerate() {
                if self.status[i] == Status::Forced {
                    self.take_out(n, i, value);
                }
            }
        }
        // A penalty as large as all that one of the two variables can gain makes a broken prohibition worthless.
        let free = |v: usize| self.status[v] == Status::Free;
        let most = |v: usize| self.u[v] + self.w[v * n..][..n].iter().map(|w| w.max(0.0)).sum::<f64>();
        let penalty = |&(i, j): &(usize, usize)| if free(i) && free(j) { -most(i).min(most(j)).max(0.0) } else { 0.0 };
        let penalties: Vec<f64> = self.forbidden.iter().map(penalty).collect();
        for (&(i, j), penalty) in self.forbidden.iter().zip(penalties) {
            self.w[i * n + j] = penalty;
            self.w[j * n + i] = penalty;
        }
        Ok(())
    }

    /// Gain of `z_i = 1` over 0 beside the other values, forbidden pairs aside.
    fn gain<T: Real>(&self, model: &Pairwise, potentials: &[T], z: &[u32], i: usize) -> f64 {
        let others = (0..model.variables).filter(|&j| j != i && z[j] == 1);
        let weights = others.map(|j| potentials[model.pair(i.min(j), i.max(j))].wide());
        let unary = potentials[2 * i + 1].wide() - potentials[2 * i].wide();
        unary + weights.filter(|w| w.is_finite()).sum::<f64>()
    }

    /// Removes a variable with a known value from the problem.
    fn take_out(&mut self, n: usize, i: usize, value: u32) {
        for j in 0..n {
            let w = std::mem::take(&mut self.w[i * n + j]);
            self.w[j * n + i] = 0.0;
            if value == 1 {
                self.u[j] += w;
            }
        }
    }

    /// Persistency and elimination until nothing changes; with `repeat`, only what persistency did the last time.
    fn reduce(&mut self, n: usize, z: &mut [u32], repeat: bool) {
        let candidate = |status: Status, last: &[Status], i: usize| {
            status == Status::Free && (!repeat || last[i] == Status::Persistent)
        };
        self.queue.clear();
        self.queue.extend((0..n).rev().filter(|&i| candidate(self.status[i], &self.last_status, i)));
        self.queued.clear();
        self.queued.resize(n, false);
        self.queue.iter().for_each(|&i| self.queued[i] = true);
        while let Some(i) = self.queue.pop() {
            self.queued[i] = false;
            if self.status[i] != Status::Free {
                continue;
            }
            let row = &self.w[i * n..][..n];
            let (mut sum, mut absolute, mut degree) = (0.0, 0.0, 0);
            for w in row {
                sum += w;
                absolute += w.abs();
                degree += (*w != 0.0) as usize;
            }
            let value = if self.u[i] + 0.5 * (sum + absolute) <= 0.0 {
                Some(0)
            } else if self.u[i] + 0.5 * (sum - absolute) >= 0.0 {
                Some(1)
            } else {
                None
            };
            if value.is_none() && (repeat || degree > 2) {
                continue;
            }
            for j in 0..n {
                if self.w[i * n + j] != 0.0 && !self.queued[j] && candidate(self.status[j], &self.last_status, j) {
                    self.queued[j] = true;
                    self.queue.push(j);
                }
            }
            match value {
                Some(value) => {
                    (self.status[i], z[i]) = (Status::Persistent, value);
                    self.take_out(n, i, value);
                }
                None => {
                    self.status[i] = Status::Eliminated;
                    self.eliminate(n, i);
                }
            }
        }
    }

    /// Maximises over a variable with one or two neighbours a, b: `max(0, u + w_a z_a + w_b z_b)` is again pairwise.
    fn eliminate(&mut self, n: usize, i: usize) {
        let mut neighbours = [(i, 0.0); 2];
        let row = self.w[i * n..][..n].iter().copied().enumerate().filter(|(_, w)| *w != 0.0);
        row.zip(&mut neighbours).for_each(|(found, slot)| *slot = found);
        let [(a, wa), (b, wb)] = neighbours;
        let u = self.u[i];
        let best = |gain: f64| gain.max(0.0);
        let (none, only_a, only_b) = (best(u), best(u + wa), best(u + wb));
        self.take_out(n, i, 0);
        self.u[a] += only_a - none;
        if wb != 0.0 {
            self.u[b] += only_b - none;
            let w = (best(u + wa + wb) - only_b) - (only_a - none);
            self.w[a * n + b] += w;
            self.w[b * n + a] += w;
        }
        self.eliminated.push(Eliminated { variable: i, gain: u, neighbours });
    }

    /// Splits what is left into connected components.
    fn split(&mut self, n: usize) {
        self.used = 0;
        self.queued.clear();
        self.queued.extend(self.status.iter().map(|s| *s != Status::Free));
        for root in 0..n {
            if self.queued[root] {
                continue;
            }
            self.found.clear();
            self.found.push(root);
            self.queued[root] = true;
            let mut next = 0;
            while next < self.found.len() {
                let row = &self.w[self.found[next] * n..][..n];
                for (j, w) in row.iter().enumerate() {
                    if *w != 0.0 && !self.queued[j] {
                        self.queued[j] = true;
                        self.found.push(j);
                    }
                }
                next += 1;
            }
            if self.used == self.components.len() {
                self.components.push(Component::default());
            }
            self.components[self.used].load(&self.found, &self.u, (&self.w, n), &mut self.buffers);
            self.used += 1;
        }
    }
}

/// `pairwise:N` in the registry.
pub(super) fn entry() -> LatentEntry {
    LatentEntry::new("pairwise", "N", "N binary variables, a coupling of any sign for every pair", |sizes| {
        let n = sizes.whole(sizes.as_str())?;
        sizes.informative(n, 2)?;
        sizes.at_most(latent::pairs(n).and_then(|p| p.checked_add(n.checked_mul(2)?)))?;
        Ok((Pairwise::new(n).map_err(|e| sizes.explain(e))?.into(), n.to_string()))
    })
}

#[cfg(test)]
mod tests;
