//! n binary variables, any two of them coupled by a weight that is not negative.
//!
//! `h(z) = sum_i h_i(z_i) + sum_{i<j} w_ij z_i z_j` with `w_ij >= 0`, `z` in `{0, 1}^n`: variables like to be 1
//! together. Potentials: 2n unary ones `[n, 2]` (of value 0 and value 1 of each variable), then the n(n-1)/2 weights in
//! the order (0, 1), (0, 2), ..., (0, n-1), (1, 2), ... A unary `-inf` forbids a value; a negative weight is an error.
//!
//! Such an `h` is super-modular, so its arg max is a minimum cut. Two stages:
//!
//! 1. [`closure`]: variables that are certain whatever the others do are fixed, and again with these fixed, O(n^2).
//!    With unaries of both signs and weights of the same size this decides nearly everything.
//! 2. [`flow`]: on what is left, `2 z_i z_j = z_i + z_j - |z_i - z_j|` makes the objective a cut: variable i is bound
//!    to the source by `c_i = 2 u_i + sum_j w_ij` if that is positive, else to the sink by `-c_i`, and pairs are bound
//!    by
//!    `w_ij`. A maximum flow gives the cut.
//!
//! Both keep their reasons, so that [`resolve`](Structure::resolve) checks them against new unary potentials and
//! changes what no longer holds. Measured on dense instances of n = 15 to 100: 2 to 7 times sooner than from scratch
//! after changes of a tenth of the gains' size, about as soon after changes of their own size.
//!
//! Numbers are sums and differences of the potentials in f64: exact when these lie on a common grid of 53 bits, within
//! rounding of the largest in any case.
//!
//! Complexity: the closure O(n^2), the flow O(k^4) for the k variables that it leaves (Dinic's bound), memory O(n^2);
//! sums O(2^n).
//!
//! Enumeration order: the last variable changes fastest.
//!
//! References: Hammer, "Some network flow problems solved with pseudo-Boolean programming", Operations Research 13,
//! 1965; Kolmogorov, Zabih, "What energy functions can be minimized via graph cuts?", PAMI 26, 2004.

mod closure;
mod flow;

use super::latent::{self, LatentEntry};
use super::pairwise::{Pairwise, pair_index};
use super::precise::{Real, with_rounding_of_sums};
use super::{Code, MaxMarginals, Maximum, Move, Precise, PreciseSums, Structure, Sums, check_numbers};
use crate::Error;
use closure::{Closure, Fate};
use flow::Flow;
use rand_chacha::rand_core::Rng;
use std::ops::Range;

/// The pairwise binary model with weights that are not negative; the arg max is a minimum cut.
///
/// ```
/// use gumbel::structure::{Structure, Supermodular};
/// let pairs = Supermodular::new(3)?;
/// // Alone each would be 0, and so would the first two; together all three are worth it.
/// let unary = [0.0, -1.0, 0.0, -1.0, 0.0, -1.0];
/// let weights = [1.5, 1.0, 1.0]; // of (0, 1), (0, 2), (1, 2)
/// let potentials = [&unary[..], &weights].concat();
/// let mut z = [0; 3];
/// let maximum = pairs.argmax(&potentials, &mut z, &mut pairs.scratch())?;
/// assert_eq!((z, maximum.value), ([1, 1, 1], 0.5));
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supermodular {
    /// The same model without the condition on signs: layout, statistics, states.
    model: Pairwise,
}

impl Supermodular {
    /// The largest n.
    pub const MAX_VARIABLES: usize = Pairwise::MAX_VARIABLES;

    /// `variables` binary variables, 0 included.
    ///
    /// # Errors
    ///
    /// More than [`MAX_VARIABLES`](Supermodular::MAX_VARIABLES).
    pub fn new(variables: usize) -> Result<Self, Error> {
        Ok(Supermodular { model: Pairwise::new(variables)? })
    }

    /// The index of the weight of variables `i < j` among the potentials; [`Structure::pair`] takes any, and answers
    /// `None` to others.
    ///
    /// # Panics
    /// Other variables.
    pub fn pair(&self, i: usize, j: usize) -> usize {
        self.model.pair(i, j)
    }

    /// Checks and splits the potentials.
    fn split<'a, T: Real>(&self, potentials: &'a [T]) -> Result<(&'a [T], Pairs<'a, T>), Error> {
        debug_assert_eq!(potentials.len(), self.potentials());
        let (unary, weights) = potentials.split_at(self.unary());
        check_numbers("potential", unary)?;
        if !T::are_weights(weights) {
            self.check_weights(potentials)?;
        }
        Ok((unary, Pairs { variables: self.model.variables(), weights }))
    }

    #[cold]
    fn check_weights<T: Real>(&self, potentials: &[T]) -> Result<(), Error> {
        check_numbers("potential", potentials)?;
        let n = self.model.variables();
        for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
            let weight = potentials[self.pair(i, j)].wide();
            if weight < 0.0 {
                // Shown as f32, but not as -0.
                let weight = (weight as f32).min(-f32::MIN_POSITIVE);
                return Err(Error::NegativeWeight { pair: (i, j), weight });
            }
        }
        Ok(())
    }

    fn read<T: Real>(&self, unary: &[T], closure: &mut Closure) -> Result<(), Error> {
        closure.read(unary).map_err(|i| Error::Infeasible { detail: format!("both values of variable {i} are -inf") })
    }
}

/// The weights of an instance.
#[derive(Debug, Clone, Copy)]
struct Pairs<'a, T = f32> {
    variables: usize,
    weights: &'a [T],
}

impl<'a, T: Real> Pairs<'a, T> {
    /// The weights of (i, i+1), (i, i+2), ...
    fn row(&self, i: usize) -> &'a [T] {
        match self.variables - 1 - i {
            0 => &[],
            rest => &self.weights[pair_index(self.variables, i, i + 1)..][..rest],
        }
    }

    /// Calls `f` with every other variable and its weight to variable i.
    fn of(&self, i: usize, mut f: impl FnMut(usize, f64)) {
        let mut at = i.wrapping_sub(1); // the weight of (0, i)
        for j in 0..i {
            f(j, self.weights[at].wide());
            at += self.variables - 2 - j;
        }
        self.row(i).iter().enumerate().for_each(|(j, w)| f(i + 1 + j, w.wide()));
    }

    /// The weight of two different variables.
    fn weight(&self, i: usize, j: usize) -> f64 {
        let (i, j) = if i < j { (i, j) } else { (j, i) };
        self.weights[pair_index(self.variables, i, j)].wide()
    }
}

/// `sum_j x_j mask_j` for 0/1 masks; several partial sums, since the order of f64 sums is binding for the compiler.
fn masked_sums<const M: usize, T: Real>(x: &[T], masks: [&[f32]; M]) -> [f64; M] {
    const LANES: usize = 8;
    let mut lanes = [[0.0f64; LANES]; M];
    let mut sums = [0.0; M];
    let whole = x.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let x = &x[start..start + LANES];
        for (lanes, mask) in lanes.iter_mut().zip(masks) {
            let mask = &mask[start..start + LANES];
            for l in 0..LANES {
                lanes[l] += x[l].masked(mask[l]);
            }
        }
    }
    for ((sum, lanes), mask) in sums.iter_mut().zip(lanes).zip(masks) {
        let rest: f64 = x[whole..].iter().zip(&mask[whole..]).map(|(x, m)| x.masked(*m)).sum();
        *sum = lanes.iter().sum::<f64>() + rest;
    }
    sums
}

/// Working memory of [`Supermodular`].
#[derive(Debug, Default)]
pub struct SupermodularScratch {
    closure: Closure,
    flow: Flow,
    /// The sum of the weights between ones.
    coupled: f64,
    /// Changes of `coupled` since it was last computed anew.
    changes: usize,
    /// Whether there is a solution to start from.
    solved: bool,
    // Work: the assignment as a 0/1 mask, the next assignment and where it differs.
    mask: Vec<f32>,
    next: Vec<u32>,
    changed: Vec<u32>,
    // Weights of all states.
    weights: Vec<f32>,
}

/// After this many changes of single variables the sum of the weights is computed anew.
const MAX_CHANGES: usize = 256;

impl SupermodularScratch {
    /// Replaces the last assignment by the new one, and brings the sum of the weights up to date.
    fn update(&mut self, pairs: Pairs<'_>, assignment: &mut [u32]) {
        let n = assignment.len();
        self.next.resize(n, 0);
        let mut next = std::mem::take(&mut self.next);
        self.write(&mut next);
        self.changed.clear();
        self.changed.extend((0..n as u32).filter(|&i| next[i as usize] != assignment[i as usize]));
        self.changes += self.changed.len();
        if self.changed.len() > n / 8 || self.changes > MAX_CHANGES {
            assignment.copy_from_slice(&next);
            self.couple(pairs, assignment);
        } else {
            for &i in &self.changed {
                let i = i as usize;
                let mut coupled = 0.0;
                pairs.of(i, |j, w| coupled += w * assignment[j] as f64);
                self.coupled += if next[i] == 1 { coupled } else { -coupled };
                assignment[i] = next[i];
            }
        }
        self.next = next;
    }

    /// Writes the assignment.
    fn write(&self, assignment: &mut [u32]) {
        assignment.iter_mut().zip(&self.closure.fate).for_each(|(z, fate)| *z = (*fate == Fate::One) as u32);
        self.flow.decided().for_each(|(i, z)| assignment[i] = z);
    }

    /// Sums up the weights between ones.
    fn couple<T: Real>(&mut self, pairs: Pairs<'_, T>, assignment: &[u32]) {
        self.mask.clear();
        self.mask.extend(assignment.iter().map(|z| *z as f32));
        let ones = assignment.iter().enumerate().filter(|(_, z)| **z == 1);
        self.coupled = ones.map(|(i, _)| masked_sums(pairs.row(i), [&self.mask[i + 1..]])[0]).sum();
        self.changes = 0;
    }
}

fn unary_score<T: Real>(unary: &[T], assignment: &[u32]) -> f64 {
    unary.chunks_exact(2).zip(assignment).map(|(h, z)| h[*z as usize].wide()).sum()
}

impl Supermodular {
    /// The arg max of potentials of either kind; returns its value.
    fn solve<T: Real>(
        &self,
        potentials: &[T],
        assignment: &mut [u32],
        scratch: &mut SupermodularScratch,
    ) -> Result<f64, Error> {
        scratch.solved = false;
        let (unary, pairs) = self.split(potentials)?;
        self.read(unary, &mut scratch.closure)?;
        scratch.closure.start(pairs);
        scratch.flow.start(&scratch.closure, pairs);
        scratch.write(assignment);
        scratch.couple(pairs, assignment);
        scratch.solved = true;
        Ok(unary_score(unary, assignment) + scratch.coupled)
    }
}

impl Precise for Supermodular {
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        scratch: &mut SupermodularScratch,
    ) -> Result<Maximum, Error> {
        let found = Maximum::proved(self.solve(potentials, assignment, scratch)?);
        // What it is to be solved from again, would be of potentials in f32.
        scratch.solved = false;
        let n = self.variables();
        // The flow counts every number twice.
        Ok(with_rounding_of_sums(found, potentials, n * (n + 1)))
    }
}

impl PreciseSums for Supermodular {
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error> {
        self.split(potentials)?;
        self.model.marginals_precise(potentials, marginals)
    }
}

/// By enumeration for n <= 20, as for general signs: super-modularity helps the maximum, not the sum.
impl Sums for Supermodular {
    fn tractable(&self) -> Result<(), Error> {
        self.model.tractable()
    }

    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        self.split(potentials)?;
        self.model.marginals(potentials, marginals)
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        self.split(potentials)?;
        self.model.log_partition(potentials)
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        self.split(potentials)?;
        self.model.kl_to_uniform(potentials, scale, gradient)
    }

    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        self.split(potentials)?;
        self.model.covariance(potentials, direction, scale, out)
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        self.split(potentials)?;
        self.model.sample(potentials, generator, assignment)
    }

    fn samples<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignments: &mut [u32]) -> Result<(), Error> {
        self.split(potentials)?;
        self.model.samples(potentials, generator, assignments)
    }
}

impl Structure for Supermodular {
    type Scratch = SupermodularScratch;

    fn potentials(&self) -> usize {
        self.model.potentials()
    }

    fn unary(&self) -> usize {
        self.model.unary()
    }

    fn variables(&self) -> usize {
        self.model.variables()
    }

    fn ln_states(&self) -> f64 {
        self.model.ln_states()
    }

    fn states(&self) -> Option<usize> {
        self.model.states()
    }

    fn state(&self, index: usize, assignment: &mut [u32]) {
        self.model.state(index, assignment);
    }

    fn code(&self) -> Code {
        self.model.code()
    }

    fn block(&self, variable: usize) -> Option<Range<usize>> {
        self.model.block(variable)
    }

    fn pair(&self, i: usize, j: usize) -> Option<usize> {
        Structure::pair(&self.model, i, j)
    }

    fn takes_any_sign(&self) -> bool {
        false
    }

    /// The weights of pairs are the softplus of the raw numbers; unary potentials stay.
    fn to_potentials(&self, raw: &mut [f32]) {
        raw[self.unary()..].iter_mut().for_each(|w| *w = w.max(0.0) + (-w.abs()).exp().ln_1p());
    }

    /// The derivative of `w = softplus(r)` is `sigmoid(r) = 1 - exp(-w)`.
    fn to_raw_gradient(&self, potentials: &[f32], gradient: &mut [f32]) {
        let pairs = self.unary()..;
        gradient[pairs.clone()].iter_mut().zip(&potentials[pairs]).for_each(|(g, w)| *g *= -(-w).exp_m1());
    }

    fn scratch(&self) -> SupermodularScratch {
        SupermodularScratch::default()
    }

    fn argmax(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut SupermodularScratch,
    ) -> Result<Maximum, Error> {
        Ok(Maximum::proved(self.solve(potentials, assignment, scratch)?))
    }

    fn resolve(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut SupermodularScratch,
    ) -> Result<Maximum, Error> {
        if !scratch.solved {
            return self.argmax(potentials, assignment, scratch); // the last call was an error
        }
        let (unary, weights) = potentials.split_at(self.unary());
        check_numbers("potential", unary)?;
        let pairs = Pairs { variables: self.model.variables(), weights };
        self.read(unary, &mut scratch.closure)?;
        scratch.closure.replay(pairs);
        scratch.flow.restart(&scratch.closure, pairs);
        scratch.update(pairs, assignment);
        Ok(Maximum::proved(unary_score(unary, assignment) + scratch.coupled))
    }

    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        self.model.moves(potentials, assignment, moves);
    }

    fn max_marginals(&self, h: &[f32], z: &[u32], _: &mut SupermodularScratch, found: &mut MaxMarginals) {
        self.model.max_marginals(h, z, &mut self.model.scratch(), found); // which it does not use
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        self.model.add_statistics(assignment, scale, out);
    }

    fn add_weighted_statistics(
        &self,
        weights: &[f32],
        out: &mut [f32],
        _: &mut [u32],
        scratch: &mut SupermodularScratch,
    ) {
        self.model.fold_statistics(weights, out, &mut scratch.weights);
    }

    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        self.model.scores(potentials, scores);
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        self.model.score(potentials, assignment)
    }
}

/// `supermodular:N` in the registry.
pub(super) fn entry() -> LatentEntry {
    LatentEntry::new(
        "supermodular",
        "N",
        "the same with couplings of at least 0: the softplus of what the encoder emits",
        |sizes| {
            let n = sizes.whole(sizes.as_str())?;
            sizes.informative(n, 2)?;
            sizes.at_most(latent::pairs(n).and_then(|p| p.checked_add(n.checked_mul(2)?)))?;
            Ok((Supermodular::new(n).map_err(|e| sizes.explain(e))?.into(), n.to_string()))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::argmax_batch;
    use crate::structure::brute_force::{self, Random, Values};

    const NO: f32 = f32::NEG_INFINITY;

    /// An instance of any kind: weights without sign; often unaries that balance the weights, so that a cut is needed.
    fn instance(s: &Supermodular, values: Values, random: &mut Random) -> Vec<f32> {
        let n = s.variables();
        let mut h = values.vector(s.potentials(), random);
        for w in &mut h[2 * n..] {
            *w = if w.is_finite() { w.abs() } else { 0.0 };
        }
        if random.below(2) == 0 {
            balance(s, &mut h);
        }
        h
    }

    /// Subtracts from every gain half of the variable's weights.
    fn balance(s: &Supermodular, h: &mut [f32]) {
        let n = s.variables();
        for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
            let half = 0.5 * h[s.pair(i, j)];
            h[2 * i + 1] -= half;
            h[2 * j + 1] -= half;
        }
    }

    #[test]
    fn agrees_with_brute_force() {
        let mut cores = 0;
        let scratch = &mut SupermodularScratch::default();
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(0, case);
            let s = Supermodular::new(random.below(10)).unwrap();
            let values = Values::ALL[random.below(5)];
            let h = instance(&s, values, random);
            brute_force::check_argmax(&s, &h, scratch, &(case, values, s));
            cores += (scratch.solved && scratch.closure.core.len() > 2) as u64;
        }
        assert!(cores > brute_force::cases() / 8, "only {cores} instances came to the flow");
    }

    #[test]
    fn sums_agree_with_brute_force() {
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(7, case);
            let s = Supermodular::new(random.below(7)).unwrap();
            let values = Values::ALL[random.below(5)];
            let h = instance(&s, values, random);
            brute_force::check_sums(&s, &h, &(case, values, s));
        }
        let s = Supermodular::new(5).unwrap();
        brute_force::check_samples(&s, &instance(&s, Values::Normal, &mut Random::new(8, 0)), 100_000, 9);
    }

    #[test]
    fn resolve_agrees_with_brute_force() {
        let (mut cores, mut kept) = (0, 0);
        for case in 0..brute_force::cases() / 4 {
            let random = &mut Random::new(1, case);
            let s = Supermodular::new(random.below(10)).unwrap();
            let values = Values::ALL[random.below(5)];
            let mut h = instance(&s, values, random);
            let mut scratch = s.scratch();
            let mut z = brute_force::check_argmax(&s, &h, &mut scratch, &(case, values, s));
            for step in 0..6 {
                for u in &mut h[..s.unary()] {
                    match random.below(4) {
                        0 => *u = values.draw(random),
                        1 if u.is_finite() => *u += 0.3 * random.normal(),
                        _ => {}
                    }
                }
                if random.below(4) == 0 {
                    balance(&s, &mut h);
                }
                let what = (case, step, values, s);
                let expected = brute_force::enumerate(&s, &h).max;
                kept += (scratch.solved && scratch.flow.decided().next().is_some()) as u64;
                match s.resolve(&h, &mut z, &mut scratch) {
                    Err(Error::Infeasible { .. }) => assert_eq!(expected, f64::NEG_INFINITY, "{what:?}"),
                    Err(e) => panic!("{what:?}: {e}"),
                    Ok(found) => brute_force::check_maximum(&s, &h, &z, found, expected, &what),
                }
                cores += (scratch.solved && scratch.closure.core.len() > 2) as u64;
            }
        }
        assert!(cores.min(kept) > brute_force::cases() / 10, "only {cores} instances came to the flow, {kept} had one");
    }

    /// Maximum by a plain maximum flow with shortest augmenting paths in f64, without closure: source n, sink n + 1.
    fn plain_maximum(s: &Supermodular, h: &[f32]) -> f64 {
        let n = s.variables();
        let mut gain: Vec<f64> = (0..n).map(|i| 2.0 * (h[2 * i + 1] as f64 - h[2 * i] as f64)).collect();
        let mut capacity = vec![vec![0.0; n + 2]; n + 2];
        for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
            let w = h[s.pair(i, j)] as f64;
            (capacity[i][j], capacity[j][i]) = (w, w);
            gain[i] += w;
            gain[j] += w;
        }
        for (i, c) in gain.iter().enumerate() {
            capacity[n][i] = c.max(0.0);
            capacity[i][n + 1] = -c.min(0.0);
        }
        let mut flow = 0.0;
        loop {
            let mut from = vec![usize::MAX; n + 2];
            let mut queue = vec![n];
            for at in 0.. {
                let Some(&v) = queue.get(at) else { break };
                for j in (0..n + 2).filter(|j| capacity[v][*j] > 0.0) {
                    if from[j] == usize::MAX && j != n {
                        from[j] = v;
                        queue.push(j);
                    }
                }
            }
            if from[n + 1] == usize::MAX {
                let zeros: f64 = (0..n).map(|i| h[2 * i] as f64).sum();
                return zeros + 0.5 * (gain.iter().map(|c| c.max(0.0)).sum::<f64>() - flow);
            }
            let path: Vec<_> = std::iter::successors(Some(n + 1), |v| Some(from[*v]).filter(|v| *v != n)).collect();
            let least = path.iter().map(|v| capacity[from[*v]][*v]).fold(f64::INFINITY, f64::min);
            for v in path {
                capacity[from[v]][v] -= least;
                capacity[v][from[v]] += least;
            }
            flow += least;
        }
    }

    #[test]
    fn large_cores_agree_with_a_plain_flow_and_resolve_with_argmax() {
        let (mut deep, mut scratch) = (0, SupermodularScratch::default());
        for case in 0..brute_force::cases() / 50 {
            let random = &mut Random::new(2, case);
            let s = Supermodular::new(20 + random.below(41)).unwrap();
            let values = [Values::Normal, Values::Ties, Values::Sparse, Values::Extreme][random.below(4)];
            let mut h = instance(&s, values, random);
            let balanced = random.below(2) == 0;
            if balanced {
                // The difficult kind: terminals as large as what the weights can carry.
                h[..s.unary()].iter_mut().for_each(|u| *u *= (s.variables() as f32).sqrt());
                balance(&s, &mut h);
            }
            let mut z = vec![0; s.variables()];
            s.argmax(&h, &mut z, &mut scratch).unwrap();
            for step in 0..4 {
                let what = (case, step, values, s);
                let expected = plain_maximum(&s, &h);
                let found = s.resolve(&h, &mut z, &mut scratch).unwrap();
                brute_force::check_maximum(&s, &h, &z, found, expected, &what);
                let mut fresh = vec![0; s.variables()];
                let again = s.argmax(&h, &mut fresh, &mut s.scratch()).unwrap();
                assert!((again.value - found.value).abs() <= 1e-12 * brute_force::magnitude(&h), "{what:?}");
                deep += (scratch.closure.core.len() > 15) as u64;
                let change = 10f32.powi(-(random.below(3) as i32));
                h[..s.unary()].iter_mut().for_each(|u| *u += change * random.normal());
            }
        }
        assert!(deep > brute_force::cases() / 100, "only {deep} large cores");
    }

    #[test]
    fn many_small_changes_do_not_add_up_errors() {
        for n in [8, 12] {
            let random = &mut Random::new(3, n as u64);
            let s = Supermodular::new(n).unwrap();
            let mut h = instance(&s, Values::Normal, random);
            balance(&s, &mut h);
            let (mut z, mut scratch) = (vec![0; n], s.scratch());
            s.argmax(&h, &mut z, &mut scratch).unwrap();
            for step in 0..2000 {
                let i = random.below(2 * n);
                h[i] = (0.9 * h[i] + 0.5 * random.normal()).clamp(-5.0, 5.0);
                let found = s.resolve(&h, &mut z, &mut scratch).unwrap();
                if step % 10 == 0 {
                    brute_force::check_maximum(&s, &h, &z, found, brute_force::enumerate(&s, &h).max, &step);
                }
            }
        }
    }

    #[test]
    fn huge_gains_leave_no_traces_in_later_solutions() {
        for case in 0..2000 {
            let random = &mut Random::new(6, case);
            let s = Supermodular::new(4 + random.below(6)).unwrap();
            let mut h = instance(&s, Values::Normal, random);
            balance(&s, &mut h);
            let (mut z, mut scratch) = (vec![0; s.variables()], s.scratch());
            s.argmax(&h, &mut z, &mut scratch).unwrap();
            for step in 0..4 {
                let mut changed = h.clone();
                if step % 2 == 0 {
                    changed[random.below(s.unary())] = random.normal() * 1e30;
                }
                let found = s.resolve(&changed, &mut z, &mut scratch).unwrap();
                let expected = brute_force::enumerate(&s, &changed).max;
                brute_force::check_maximum(&s, &changed, &z, found, expected, &(case, step));
            }
        }
    }

    #[test]
    fn degenerate_sizes_and_weights_are_defined() {
        let mut scratch = SupermodularScratch::default();
        let none = Supermodular::new(0).unwrap();
        assert_eq!((none.potentials(), none.states(), none.ln_states()), (0, Some(1), 0.0));
        assert_eq!(none.argmax(&[], &mut [], &mut scratch).unwrap(), Maximum::proved(0.0));
        assert_eq!(none.resolve(&[], &mut [], &mut scratch).unwrap(), Maximum::proved(0.0));
        none.state(0, &mut []);
        let one = Supermodular::new(1).unwrap();
        let mut z = [7];
        assert_eq!(one.argmax(&[2.0, -1.0], &mut z, &mut scratch).unwrap(), Maximum::proved(2.0));
        assert_eq!((z, one.potentials(), one.states()), ([0], 2, Some(2)));
        // All ones gain as much as all zeros; -0.0 is a weight.
        let tied = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0, 2.0, -0.0, -0.0];
        let s = Supermodular::new(3).unwrap();
        assert_eq!(s.argmax(&tied, &mut [0; 3], &mut scratch).unwrap().value, 0.0);
        // Weights that decide everything, and the largest numbers there are.
        let huge = [0.0, -1e30, 0.0, f32::MIN, f32::MAX, 0.0, f32::MAX, 0.0, f32::MAX];
        brute_force::check_argmax(&s, &huge, &mut scratch, &"huge");
        let tiny = [0.0, -1e-44, 0.0, -1e-44, 0.0, -1e-44, 1e-44, 1e-44, 1e-44];
        assert_eq!(brute_force::check_argmax(&s, &tiny, &mut scratch, &"tiny"), [0; 3]);
        assert_eq!(Supermodular::new(64).unwrap().states(), None);
    }

    #[test]
    fn the_largest_size_is_solved() {
        let s = Supermodular::new(Supermodular::MAX_VARIABLES).unwrap();
        let random = &mut Random::new(4, 0);
        let mut h = Values::Normal.vector(s.potentials(), random);
        h[s.unary()..].iter_mut().for_each(|w| *w = w.abs());
        balance(&s, &mut h);
        let (mut z, mut scratch) = (vec![0; s.variables()], s.scratch());
        let found = s.argmax(&h, &mut z, &mut scratch).unwrap();
        assert!(scratch.closure.core.len() > 1000 && (s.score(&h, &z) - found.value).abs() < 1e-6);
        let resolved = s.resolve(&h, &mut z, &mut scratch).unwrap();
        assert!((resolved.value - found.value).abs() < 1e-6);
    }

    #[test]
    fn states_are_enumerated_once_and_statistics_match_scores() {
        let s = Supermodular::new(3).unwrap();
        let mut z = [0; 3];
        s.state(6, &mut z);
        assert_eq!((z, s.states(), s.potentials(), s.unary()), ([1, 1, 0], Some(8), 9, 6));
        let mut statistics = [0.0; 9];
        s.add_statistics(&z, 2.0, &mut statistics);
        assert_eq!(statistics, [0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0, 0.0, 0.0]);
        assert_eq!((s.pair(0, 1), s.pair(0, 2), s.pair(1, 2)), (6, 7, 8));
        let mut scores = [0.0; 8];
        s.scores(&[0.0, 1.0, 0.0, 10.0, 0.0, 100.0, 1000.0, 2000.0, 4000.0], &mut scores);
        assert_eq!(scores, [0.0, 100.0, 10.0, 4110.0, 1.0, 2101.0, 1011.0, 7111.0]);
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(Supermodular::new(Supermodular::MAX_VARIABLES + 1).is_err());
        assert!(Supermodular::new(usize::MAX).is_err());
        let s = Supermodular::new(3).unwrap();
        let (mut z, mut scratch) = ([0; 3], s.scratch());
        let mut solve = |changes: &[(usize, f32)]| {
            let mut h = [0.5; 9];
            changes.iter().for_each(|(k, x)| h[*k] = *x);
            s.argmax(&h, &mut z, &mut scratch).unwrap_err()
        };
        for index in [1, 7] {
            assert_eq!(solve(&[(index, f32::NAN)]), Error::NotANumber { what: "potential", index });
            assert_eq!(solve(&[(index, f32::INFINITY)]), Error::PositiveInfinity { what: "potential", index });
        }
        let negative = solve(&[(7, -0.25)]);
        assert_eq!(negative, Error::NegativeWeight { pair: (0, 2), weight: -0.25 });
        let text = "the weight of the pair (0, 2) is -0.25: expected a finite number of at least 0";
        assert_eq!(negative.to_string(), text);
        assert_eq!(solve(&[(8, NO)]), Error::NegativeWeight { pair: (1, 2), weight: NO });
        assert!(matches!(solve(&[(2, NO), (3, NO)]), Error::Infeasible { .. }));
        // After an error, resolve starts anew.
        let found = s.resolve(&[0.5; 9], &mut z, &mut scratch).unwrap();
        assert_eq!((z, found.value), ([1; 3], 3.0));
        assert!(matches!(s.resolve(&[NO; 9], &mut z, &mut scratch), Err(Error::Infeasible { .. })));
        assert_eq!(s.resolve(&[0.5; 9], &mut z, &mut scratch).unwrap().value, 3.0);

        let mut batch = [0.0; 18];
        batch[17] = -1.0;
        let error = argmax_batch(&s, &batch, &mut [0; 6]).unwrap_err();
        assert!(
            error.to_string().starts_with("example 1 of the batch: the weight of the pair (1, 2) is -1"),
            "{error}"
        );
        assert!(argmax_batch(&s, &batch[..17], &mut [0; 6]).is_err());
        assert!(argmax_batch(&s, &batch, &mut [0; 5]).is_err());
    }

    #[test]
    fn answers_do_not_depend_on_threads_or_on_what_was_solved_before() {
        let s = Supermodular::new(30).unwrap();
        let random = &mut Random::new(5, 0);
        let instances: Vec<f32> = (0..200).flat_map(|_| instance(&s, Values::Ties, random)).collect();
        let solve = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut z = vec![0; 200 * 30];
            pool.install(|| argmax_batch(&s, &instances, &mut z)).unwrap();
            z
        };
        let all = solve(1);
        assert_eq!(all, solve(4));
        for (h, expected) in instances.chunks(s.potentials()).zip(all.chunks(30)) {
            let mut z = vec![0; 30];
            s.argmax(h, &mut z, &mut s.scratch()).unwrap();
            assert_eq!(z, expected);
        }
    }
}
