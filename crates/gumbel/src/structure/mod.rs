//! Discrete structures: finite sets of assignments with exact arg max and, where tractable, exact sums.
//!
//! A [`Structure`] is a finite set Z of assignments `z = (z_1, ..., z_n)` with scores that are linear in the
//! *potentials*: `h(z) = <potentials, s(z)>`, where `s(z)` are the *sufficient statistics*. Its arg max is exact. Where
//! sums over Z are tractable too, the structure also implements [`Sums`]; where they are not, it does not.
//! [`AnyStructure`] is one of them chosen at run time.
//!
//! Conventions:
//!
//! - potentials of one example are a slice of `P` numbers; a batch is `[batch, P]`, row-major;
//! - the first [`unary`](Structure::unary) potentials belong to choices of single variables: perturbations and the
//!   losses of one-coordinate changes are added there, and nowhere else ("low-dimensional perturbation", paper
//!   Section 4.1);
//! - the unary statistics of an assignment are its [`Code`]: what a decoder reads;
//! - `-inf` forbids a choice; `+inf` and NaN are errors.

mod any;
mod arborescence;
#[cfg(test)]
pub(crate) mod brute_force;
mod categorical;
mod chain;
mod code;
mod condition;
mod erased;
mod latent;
mod matrix_tree;
mod moves;
mod pairwise;
mod permutation;
mod precise;
mod spanning_tree;
mod subset;
mod supermodular;
mod tree;

use crate::Error;
use crate::error::check_len;
use precise::Real;
use rayon::prelude::*;
use std::ops::Range;

pub use any::{AnyScratch, AnyStructure};
pub use arborescence::{Arborescence, ArborescenceScratch};
pub use categorical::Categorical;
pub use chain::Chain;
pub use code::{Change, Code, neighbour_losses};
pub use condition::UNKNOWN;
pub use latent::{Built, Latent, LatentEntry, MAX_POTENTIALS, Sizes, latents};
pub use moves::{MaxMarginals, Move};
pub use pairwise::{Pairwise, PairwiseScratch};
pub use permutation::{Permutation, PermutationScratch};
pub use precise::{Precise, PreciseSums};
pub use spanning_tree::{SpanningTree, SpanningTreeScratch};
pub use subset::Subset;
pub use supermodular::{Supermodular, SupermodularScratch};
pub use tree::Tree;

/// A finite set Z with linear scores and an exact arg max.
///
/// | method | who needs it | default |
/// |---|---|---|
/// | [`potentials`], [`unary`], [`variables`] | everyone | none |
/// | [`code`] | estimators, decoders | none |
/// | [`scratch`], [`argmax`] | everyone | none |
/// | [`add_statistics`] | everyone | none |
/// | [`encode`] | decoders | one-hots of the values, or the statistics |
/// | [`score`] | checks, exact estimators | the sum over the statistics, which allocates |
/// | [`resolve`] | direct optimisation | `argmax` |
/// | [`states`], [`state`] | estimators that go through all states | not counted |
/// | [`ln_states`] | a KL term | from `states`; NaN where they are not counted |
/// | [`scores`], [`add_weighted_statistics`] | estimators that go through all states | state by state |
/// | [`has_moves`], [`moves`], [`make`] | a local search | one-hot rows: from `score`, slowly; else none |
/// | [`max_marginals`] | conditional expectations of coupled variables | one-hot rows: by `moves`; else none |
/// | [`condition`] | labels | one-hot rows: other values are forbidden; else an error |
/// | [`block`] | estimators for independent variables | `None`: coupled |
/// | [`is_independent`], [`is_single`] | estimators, engines | from `block`; from `variables` and `code` |
/// | [`pair`] | pictures of couplings | `None`: no such potential |
/// | [`to_potentials`], [`to_raw_gradient`] | encoders | any number is a potential |
///
/// [`potentials`]: Structure::potentials
/// [`unary`]: Structure::unary
/// [`variables`]: Structure::variables
/// [`code`]: Structure::code
/// [`scratch`]: Structure::scratch
/// [`argmax`]: Structure::argmax
/// [`add_statistics`]: Structure::add_statistics
/// [`encode`]: Structure::encode
/// [`score`]: Structure::score
/// [`resolve`]: Structure::resolve
/// [`states`]: Structure::states
/// [`state`]: Structure::state
/// [`ln_states`]: Structure::ln_states
/// [`scores`]: Structure::scores
/// [`add_weighted_statistics`]: Structure::add_weighted_statistics
/// [`has_moves`]: Structure::has_moves
/// [`moves`]: Structure::moves
/// [`make`]: Structure::make
/// [`max_marginals`]: Structure::max_marginals
/// [`condition`]: Structure::condition
/// [`block`]: Structure::block
/// [`is_independent`]: Structure::is_independent
/// [`is_single`]: Structure::is_single
/// [`pair`]: Structure::pair
/// [`to_potentials`]: Structure::to_potentials
/// [`to_raw_gradient`]: Structure::to_raw_gradient
///
/// Who only solves writes the first four rows. [`testing::check`](crate::testing::check) looks whether they agree; it
/// has an example of a structure.
pub trait Structure: Sync {
    /// Working memory of the solver: made once, reused for every instance.
    type Scratch: Send + Sync + 'static;

    /// Number of potentials, P.
    fn potentials(&self) -> usize;

    /// Number of leading potentials that are unary, U: those that receive noise and losses.
    fn unary(&self) -> usize;

    /// Number of variables of an assignment, n.
    fn variables(&self) -> usize;

    /// `ln |Z|` in nats; NaN where states are not counted.
    fn ln_states(&self) -> f64 {
        self.states().map_or(f64::NAN, |states| (states as f64).ln())
    }

    /// `|Z|` if it is counted and fits into an integer, for enumeration.
    fn states(&self) -> Option<usize> {
        None
    }

    /// Writes the assignment with the given index (`< |Z|`) in the enumeration order of the structure.
    ///
    /// # Panics
    ///
    /// By default: who says how many [`states`](Structure::states) there are must also say which.
    fn state(&self, index: usize, _assignment: &mut [u32]) {
        panic!("state {index} of a structure that does not enumerate its states");
    }

    /// What the unary statistics look like.
    fn code(&self) -> Code;

    /// Writes the unary statistics of an assignment, its code (U values).
    fn encode(&self, assignment: &[u32], code: &mut [f32]) {
        code.fill(0.0);
        match self.code() {
            Code::OneHot { values } => {
                assignment.iter().enumerate().for_each(|(i, z)| code[i * values + *z as usize] = 1.0)
            }
            Code::Indicators => self.add_statistics(assignment, 1.0, code),
        }
    }

    /// The potentials of a variable that is independent of all others whatever the potentials are: a softmax of their
    /// own. `None` where variables are coupled.
    fn block(&self, _variable: usize) -> Option<Range<usize>> {
        None
    }

    /// Whether its variables are independent of each other: each has its [`block`](Structure::block).
    fn is_independent(&self) -> bool {
        (0..self.variables()).all(|variable| self.block(variable).is_some())
    }

    /// Whether it is one variable with values: then the losses of its changes are those of all states.
    fn is_single(&self) -> bool {
        self.variables() == 1 && self.code() != Code::Indicators
    }

    /// The potential of the product `z_i z_j` of two binary variables `i < j`: their coupling. `None` where there is
    /// none.
    fn pair(&self, _i: usize, _j: usize) -> Option<usize> {
        None
    }

    /// Whether numbers of any sign are potentials of this structure: `false` where some must be at least 0, as the
    /// weights of [`Supermodular`]. Then potentials may be scaled by positive numbers only.
    fn takes_any_sign(&self) -> bool {
        true
    }

    /// Maps any real numbers, such as the raw outputs of an encoder (P values), to potentials of this structure, in
    /// place. Where every number is a potential this does nothing.
    fn to_potentials(&self, _raw: &mut [f32]) {}

    /// Turns a gradient at the potentials into the one at the raw numbers that
    /// [`to_potentials`](Structure::to_potentials) made them from, in place: the chain rule.
    fn to_raw_gradient(&self, _potentials: &[f32], _gradient: &mut [f32]) {}

    /// Working memory for [`argmax`](Structure::argmax).
    fn scratch(&self) -> Self::Scratch;

    /// Finds `argmax_z <potentials, s(z)>`; among equal assignments, the choice is fixed but unspecified.
    ///
    /// `potentials` has P values, `assignment` n.
    ///
    /// # Errors
    ///
    /// A potential that is NaN or `+inf`; every assignment forbidden ([`Error::Infeasible`]).
    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], scratch: &mut Self::Scratch)
    -> Result<Maximum, Error>;

    /// Solves again after a change of unary potentials only: the same answer as [`argmax`](Structure::argmax), sooner.
    ///
    /// Requires that the last call with this `scratch` was an `argmax` or `resolve` of potentials that differ from
    /// these in unary ones alone, and that `assignment` still holds its answer. A structure that gains nothing from
    /// this solves from scratch.
    ///
    /// # Errors
    ///
    /// Those of [`argmax`](Structure::argmax).
    fn resolve(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut Self::Scratch,
    ) -> Result<Maximum, Error> {
        self.argmax(potentials, assignment, scratch)
    }

    /// Whether [`moves`](Structure::moves) lists single changes: what a local search needs.
    fn has_moves(&self) -> bool {
        self.code() != Code::Indicators
    }

    /// Adds single changes of an assignment that stay in Z to a list, with what the score gains by each: the best at
    /// every place, whether it gains or loses. At most U of them.
    ///
    /// A change is whatever keeps the assignment in Z: another value of a variable, an element for another, two rows
    /// that swap their columns, an edge for another one, another parent.
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        moves::by_score(self, potentials, assignment, moves);
    }

    /// Makes a change. After others it may lead out of Z: then nothing happens, and the answer is `false`.
    fn make(&self, change: Move, assignment: &mut [u32]) -> bool {
        assignment[change.place as usize] = change.value;
        true
    }

    /// Finds good assignments for every variable and each other value of it than the present one, for structures of
    /// one-hot rows; no row for others. The best of all that have this value has the max-marginal as its score; what is
    /// found is, by default, one that no single change of another variable improves.
    ///
    /// `assignment` is the arg max, or any other. What `scratch` remembers of an arg max is lost.
    ///
    /// ```
    /// use gumbel::structure::{MaxMarginals, Pairwise, Structure};
    /// let model = Pairwise::new(2)?;
    /// let mut found = MaxMarginals::default();
    /// let potentials = [0.0, 1.0, 0.0, -2.0, 5.0]; // both are 1 or none
    /// model.max_marginals(&potentials, &[1, 1], &mut model.scratch(), &mut found);
    /// let first = found.row(0, 0, 1).expect("another value");
    /// assert_eq!((found.state(first), found.gain(first)), (&[0, 0][..], -4.0));
    /// # Ok::<(), gumbel::Error>(())
    /// ```
    fn max_marginals(
        &self,
        potentials: &[f32],
        assignment: &[u32],
        _scratch: &mut Self::Scratch,
        found: &mut MaxMarginals,
    ) {
        moves::climb(self, potentials, assignment, found);
    }

    /// Changes unary potentials so that the arg max and the sums are those over the assignments that agree with a
    /// label: `known` has n values, of which [`UNKNOWN`] says nothing.
    ///
    /// Returns what the scores of these assignments lose by it, so that `score before = score after + lost`: 0 where
    /// other values are forbidden by `-inf`. Potentials that are no numbers may stay what they are, or not: look
    /// at them before.
    ///
    /// ```
    /// use gumbel::structure::{Pairwise, Structure, UNKNOWN};
    /// let model = Pairwise::new(2)?;
    /// let mut potentials = [0.0, 1.0, 0.0, 1.0, -3.0]; // both would rather be 1, but not together
    /// let lost = model.condition(&[1, UNKNOWN], &mut potentials)?;
    /// let mut z = [0; 2];
    /// let maximum = model.argmax(&potentials, &mut z, &mut model.scratch())?;
    /// assert_eq!((z, maximum.value + lost), ([1, 0], 1.0));
    /// # Ok::<(), gumbel::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A wrong length; [`Error::Label`] for a value out of range; [`Error::NoLabels`] where the structure cannot;
    /// [`Error::Infeasible`] if no assignment agrees and that is seen here already: else the arg max finds it.
    fn condition(&self, known: &[u32], potentials: &mut [f32]) -> Result<f64, Error> {
        condition::one_hot(self, known, potentials)
    }

    /// Adds `scale * s(assignment)` to `out` (P values).
    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]);

    /// Adds `sum_z weights[z] s(z)` over all states to `out` (P values); `weights` has |Z| values in enumeration order,
    /// `assignment` (n values) is working memory.
    fn add_weighted_statistics(
        &self,
        weights: &[f32],
        out: &mut [f32],
        assignment: &mut [u32],
        _scratch: &mut Self::Scratch,
    ) {
        for (index, weight) in weights.iter().enumerate() {
            self.state(index, assignment);
            self.add_statistics(assignment, *weight, out);
        }
    }

    /// Writes the scores of all states in enumeration order; `scores` has |Z| values.
    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        let mut z = vec![0; self.variables()];
        for (index, score) in scores.iter_mut().enumerate() {
            self.state(index, &mut z);
            *score = self.score(potentials, &z) as f32;
        }
    }

    /// `<potentials, s(assignment)>`, accumulated in f64.
    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        let mut statistics = vec![0.0; self.potentials()];
        self.add_statistics(assignment, 1.0, &mut statistics);
        // A forbidden potential that is not used must not turn into 0 * -inf = NaN.
        let used = statistics.iter().zip(potentials).filter(|(s, _)| **s != 0.0);
        used.map(|(s, p)| *s as f64 * *p as f64).sum()
    }
}

/// What an arg max found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Maximum {
    /// The score of the assignment found.
    pub value: f64,
    /// An upper bound of every assignment's score; equal to `value` when optimality is proved.
    pub bound: f64,
}

impl Maximum {
    /// A maximum proved optimal.
    pub fn proved(value: f64) -> Self {
        Maximum { value, bound: value }
    }

    /// Whether no assignment can be better.
    pub fn is_proved(&self) -> bool {
        self.bound <= self.value
    }
}

/// Exact sums over Z under the Gibbs distribution `q(z) = exp(<potentials, s(z)>) / sum_z' exp(...)`.
pub trait Sums: Structure {
    /// Whether the sums of a structure of this size are tractable.
    ///
    /// # Errors
    /// [`Error::NoSums`] with the reason, if they are not.
    fn tractable(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Writes the marginals `E_q[s(z)]` (P values) and returns the log-partition `ln sum_z exp(h(z))` in nats.
    ///
    /// # Errors
    ///
    /// A potential that is NaN or `+inf`; every assignment forbidden; a space that is too large for sums.
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error>;

    /// Log-partition `ln sum_z exp(h(z))` in nats.
    ///
    /// # Errors
    ///
    /// Those of [`marginals`](Sums::marginals).
    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        self.marginals(potentials, &mut vec![0.0; self.potentials()])
    }

    /// Entropy of q in nats: `ln Z - <potentials, marginals>`.
    ///
    /// # Errors
    ///
    /// Those of [`marginals`](Sums::marginals).
    fn entropy(&self, potentials: &[f32]) -> Result<f64, Error> {
        let mut marginals = vec![0.0; self.potentials()];
        let log_partition = self.marginals(potentials, &mut marginals)?;
        let used = marginals.iter().zip(potentials).filter(|(m, _)| **m != 0.0);
        Ok(log_partition - used.map(|(m, p)| *m as f64 * *p as f64).sum::<f64>())
    }

    /// `KL(q || uniform)` in nats, and `scale` times its gradient at the potentials added to `gradient` (P values).
    ///
    /// # Errors
    ///
    /// Those of [`marginals`](Sums::marginals).
    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error>;

    /// Adds `scale Cov_q[s(z)] direction` to `out`; both have P values. It is `scale` times the derivative of the
    /// [marginals](Sums::marginals) along the direction, and as the covariance is symmetric, the gradient at the
    /// potentials of any function whose gradient at the marginals is the direction.
    ///
    /// What is forbidden takes no part. By default all states are enumerated, up to
    /// [`MAX_STATES`](crate::estimator::MAX_STATES).
    ///
    /// ```
    /// use gumbel::structure::{Categorical, Sums};
    /// let z = Categorical::new(2)?;
    /// let mut out = [0.0; 2];
    /// z.covariance(&[0.5, 0.5], &[0.0, 2.0], 1.0, &mut out)?; // q (1 - q) = 1/4
    /// assert_eq!(out, [-0.5, 0.5]);
    /// # Ok::<(), gumbel::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`marginals`](Sums::marginals), also of a direction that is NaN or `+inf`; by default too many states.
    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        check_numbers("potential", potentials)?;
        check_numbers("direction", direction)?;
        let states = crate::estimator::enumerable(self)?;
        let (mut z, mut statistics) = (vec![0; self.variables()], vec![0.0; self.potentials()]);
        let mut terms = Vec::with_capacity(states);
        for index in 0..states {
            self.state(index, &mut z);
            statistics.fill(0.0);
            self.add_statistics(&z, 1.0, &mut statistics);
            let value: f64 = statistics.iter().zip(direction).map(|(s, d)| *s as f64 * *d as f64).sum();
            terms.push((self.score(potentials, &z), value));
        }
        let max = terms.iter().fold(f64::NEG_INFINITY, |max, (score, _)| max.max(*score));
        if max == f64::NEG_INFINITY {
            return Err(Error::Infeasible { detail: "every assignment has a potential of -inf".into() });
        }
        let weight = |score: f64| (score - max).exp();
        let total: f64 = terms.iter().map(|(score, _)| weight(*score)).sum();
        let mean = terms.iter().map(|(score, value)| weight(*score) * value).sum::<f64>() / total;
        let mut sums = vec![0.0; self.potentials()];
        for (index, (score, value)) in terms.iter().enumerate() {
            self.state(index, &mut z);
            statistics.fill(0.0);
            self.add_statistics(&z, 1.0, &mut statistics);
            let weight = weight(*score) / total * (value - mean);
            sums.iter_mut().zip(&statistics).for_each(|(sum, s)| *sum += weight * *s as f64);
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out += scale * sum as f32);
        Ok(())
    }

    /// Draws an exact sample of q.
    ///
    /// # Errors
    ///
    /// Those of [`marginals`](Sums::marginals).
    fn sample<R: rand_chacha::rand_core::Rng>(
        &self,
        potentials: &[f32],
        generator: &mut R,
        assignment: &mut [u32],
    ) -> Result<(), Error>;

    /// Draws independent samples of q, `[samples, n]`: what does not depend on the sample is done once.
    ///
    /// # Errors
    ///
    /// Those of [`marginals`](Sums::marginals).
    fn samples<R: rand_chacha::rand_core::Rng>(
        &self,
        potentials: &[f32],
        generator: &mut R,
        assignments: &mut [u32],
    ) -> Result<(), Error> {
        let mut rows = assignments.chunks_exact_mut(self.variables().max(1));
        rows.try_for_each(|z| self.sample(potentials, generator, z))
    }
}

/// Examples per piece of parallel work: many where each is cheap, few where one is worth a thread's while. Every
/// example is solved for itself, so that the answers cannot depend on it.
pub(crate) fn examples_per_piece(potentials: usize) -> usize {
    (512 / potentials.max(1)).clamp(1, 32)
}

/// Solves a batch: `potentials` is `[batch, P]`, `assignment` is `[batch, n]`.
///
/// Runs on the current rayon pool; the answers do not depend on the number of threads. A bad example is
/// reported as [`Error::Example`]; if there are several, it is one of them.
///
/// # Errors
///
/// A wrong length; those of [`Structure::argmax`] in an example.
pub fn argmax_batch<S: Structure>(structure: &S, potentials: &[f32], assignment: &mut [u32]) -> Result<(), Error> {
    solve_batch(structure, potentials, None, assignment)
}

/// Solves a batch of perturbed problems: `argmax_z <potentials, s(z)> + <noise, unary statistics of z>`.
///
/// `potentials` is `[batch, P]`, `noise` is `[batch, U]`, `assignment` is `[batch, n]`. With Gumbel noise and one
/// variable this is an exact sample of q (Gumbel-Max, paper Section 3).
///
/// # Errors
///
/// A wrong length; those of [`Structure::argmax`] in an example.
pub fn perturbed_argmax<S: Structure>(
    structure: &S,
    potentials: &[f32],
    noise: &[f32],
    assignment: &mut [u32],
) -> Result<(), Error> {
    solve_batch(structure, potentials, Some(noise), assignment)
}

fn solve_batch<S: Structure>(
    structure: &S,
    potentials: &[f32],
    noise: Option<&[f32]>,
    assignment: &mut [u32],
) -> Result<(), Error> {
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let batch = batch_size(potentials.len(), p)?;
    check_len("assignment", assignment.len(), batch * n)?;
    if let Some(noise) = noise {
        check_len("noise", noise.len(), batch * u)?;
    }
    let piece = examples_per_piece(p);
    let work = || (structure.scratch(), vec![0.0; p]);
    let pieces = assignment.par_chunks_mut(piece * n.max(1)).enumerate();
    pieces.try_for_each_init(work, |(scratch, perturbed), (c, chunk)| {
        for (i, z) in chunk.chunks_exact_mut(n.max(1)).enumerate() {
            let b = c * piece + i;
            let mut example = &potentials[b * p..][..p];
            if let Some(noise) = noise {
                perturbed.copy_from_slice(example);
                add(&mut perturbed[..u], &noise[b * u..][..u], 1.0);
                example = perturbed;
            }
            structure.argmax(example, z, scratch).map_err(|e| e.in_example(b))?;
        }
        Ok(())
    })
}

/// Number of examples in a `[batch, width]` slice.
pub(crate) fn batch_size(len: usize, width: usize) -> Result<usize, Error> {
    match len.checked_rem(width) {
        Some(0) => Ok(len / width),
        None if len == 0 => Ok(0),
        rest => Err(Error::Length { what: "potentials", expected: len - rest.unwrap_or(len), found: len }),
    }
}

/// `out += scale * x`.
#[inline]
pub(crate) fn add(out: &mut [f32], x: &[f32], scale: f32) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o += scale * x);
}

/// Refuses NaN and `+inf`.
#[inline(always)]
pub(crate) fn check_numbers<T: Real>(what: &'static str, x: &[T]) -> Result<(), Error> {
    // One vectorisable pass decides; the position is looked for only when something is wrong.
    if x.iter().fold(true, |good, v| good & (*v < T::INFINITY)) {
        return Ok(());
    }
    match x.iter().position(|v| v.wide().is_nan()) {
        Some(index) => Err(Error::NotANumber { what, index }),
        None => {
            let index = x.iter().position(|v| *v == T::INFINITY).unwrap_or(0);
            Err(Error::PositiveInfinity { what, index })
        }
    }
}
