//! Gradient estimators that need only potentials, noise and losses.
//!
//! The task of each: given an encoder's potentials and the losses `-f(x, z)` of a decoder, estimate the gradient of
//! `E_{z ~ q}[loss(z)]` at the potentials, for a whole batch. What an estimator asks of the decoder is one of two
//! things ([`Needs`]): the losses of all one-coordinate changes of the sampled assignment, or the losses of all states.
//!
//! | estimator | needs | bias | variance |
//! |---|---|---|---|
//! | [`Direct`] | neighbours | of order epsilon (two-sided: epsilon²) | grows like 1 / epsilon |
//! | [`DirectExpectation`] | neighbours, independent variables | the same | smaller; zero for one variable |
//! | [`DirectJoint`] | all states | of order epsilon (two-sided: epsilon²) | grows like 1 / epsilon |
//! | [`LocalExpectation`] | neighbours, independent variables | none | zero for one variable |
//! | [`Exact`] | all states | none | none |
//! | [`Marginal`] | all states | none, of another objective: -ln p(x) | none |
//!
//! For a structure with couplings, `E_{z ~ q}` of [`Direct`] is over the distribution of the perturbed arg max, which
//! noise on unary potentials alone does not make a sample of the Gibbs distribution; with a Gumbel variable for every
//! state ([`Perturbation::Full`]) it is one.
//!
//! Estimators that differentiate through the decoder (Gumbel-Softmax and its family) live beside the networks.

mod direct;
mod exact;
mod joint;
mod local_expectation;
mod marginal;

use crate::Error;
use crate::error::check_len;
use crate::math;
use crate::structure::{Maximum, Structure, add, batch_size, examples_per_piece};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use direct::{Direct, DirectExpectation, Sides};
pub use exact::Exact;
pub use joint::{DirectJoint, Perturbation};
pub use local_expectation::LocalExpectation;
pub use marginal::Marginal;

/// The largest |Z| that estimators enumerate.
pub const MAX_STATES: usize = 1 << 15;

/// Which losses an estimator asks of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// `[batch, U]`, aligned with the unary potentials: the losses of the one-coordinate changes of the sampled
    /// assignment, as [`Code::neighbour_losses`](crate::structure::Code::neighbour_losses) makes them. For variables
    /// with values: the loss of the sampled assignment with one variable changed to the value of that potential (for
    /// its present value: the loss of the sampled assignment itself). For one K-way variable these are the losses of
    /// all K states.
    Neighbours,
    /// `[batch, |Z|]`: the loss of every state in the enumeration order of the structure.
    States,
}

/// One batch at the seam between networks and discrete mathematics.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Encoder potentials `[batch, P]`.
    pub potentials: &'a [f32],
    /// Perturbation of the unary potentials `[batch, U]`, or of all states `[batch, |Z|]`, as the estimator
    /// [draws](Estimator::noise); the same that chose `assignment`.
    pub noise: &'a [f32],
    /// The sampled assignment z* = arg max of potentials + noise, `[batch, n]`.
    pub assignment: &'a [u32],
    /// Losses -f in nats: `[batch, U]` or `[batch, |Z|]`, as the estimator [`Needs`].
    pub losses: &'a [f32],
}

/// Where an estimator leaves its answer.
#[derive(Debug)]
pub struct Estimate<'a> {
    /// `scale` times the gradient of the expected loss at the potentials is *added* here, `[batch, P]`.
    pub gradient: &'a mut [f32],
    /// Factor of everything that is added: 1/M when M samples are averaged, 1/batch for a mean over examples.
    pub scale: f32,
    /// Only for estimators that need all states, `[batch, |Z|]`: `scale` times the weight of each state's loss in the
    /// decoder's objective is *added* here. Otherwise the decoder follows the loss at the sampled assignment.
    pub weights: Option<&'a mut [f32]>,
    /// Estimators with two arg maxima leave z(eps) here, `[batch, n]`.
    pub moved: Option<&'a mut [u32]>,
    /// Number of examples whose perturbed arg maxima coincide, so that the gradient is zero; `None` where the
    /// question has no meaning.
    pub unmoved: Option<usize>,
}

impl<'a> Estimate<'a> {
    /// An answer without decoder weights.
    pub fn new(gradient: &'a mut [f32], scale: f32) -> Self {
        Estimate { gradient, scale, weights: None, moved: None, unmoved: None }
    }

    /// An answer with decoder weights.
    pub fn with_weights(gradient: &'a mut [f32], weights: &'a mut [f32], scale: f32) -> Self {
        Estimate { gradient, scale, weights: Some(weights), moved: None, unmoved: None }
    }
}

/// One example of a batch at the seam; see [`Inputs`] and [`Estimate`] for the meaning of the fields.
#[derive(Debug)]
pub struct Example<'a> {
    /// Encoder potentials (P values).
    pub potentials: &'a [f32],
    /// Perturbation of the unary potentials (U values), or of the states (|Z| values).
    pub noise: &'a [f32],
    /// The sampled assignment z* (n values).
    pub assignment: &'a [u32],
    /// Losses: U or |Z| values, as the estimator [`Needs`].
    pub losses: &'a [f32],
    /// The gradient is added here (P values).
    pub gradient: &'a mut [f32],
    /// The decoder's weights are added here: |Z| values, or none.
    pub weights: &'a mut [f32],
    /// z(eps) is left here: n values, or none.
    pub moved: &'a mut [u32],
}

impl Example<'_> {
    fn reborrow(&mut self) -> Example<'_> {
        let Example { potentials, noise, assignment, losses, .. } = *self;
        let (gradient, weights, moved) = (&mut *self.gradient, &mut *self.weights, &mut *self.moved);
        Example { potentials, noise, assignment, losses, gradient, weights, moved }
    }
}

/// Working memory of an estimator, made once and reused from example to example.
///
/// Whoever finds z* with [`argmax`](Workspace::argmax) and then calls an estimator on the same example with the same
/// workspace lets its solver start from there: a batch whose decoder stands between the two has a workspace for every
/// example ([`Solvers`]).
#[derive(Debug)]
pub struct Workspace<S: Structure> {
    /// Perturbed potentials, or probabilities of states: max(P, |Z|) values each.
    first: Vec<f32>,
    second: Vec<f32>,
    /// Assignments: z(eps) and z(-eps), or a state.
    towards: Vec<u32>,
    away: Vec<u32>,
    solver: S::Scratch,
    /// Whether the solver's last answer was z* of the example to come.
    warm: bool,
}

impl<S: Structure> Workspace<S> {
    /// Memory for an estimator that needs `needs`. Errors: a space too large to enumerate.
    pub fn new(structure: &S, needs: Needs) -> Result<Self, Error> {
        let (p, n) = (structure.potentials(), structure.variables());
        let width = match needs {
            Needs::Neighbours => p,
            Needs::States => p.max(enumerable(structure)?),
        };
        let vector = || vec![0.0; width];
        let assignment = || vec![0; n];
        let (first, second, towards, away) = (vector(), vector(), assignment(), assignment());
        Ok(Workspace { first, second, towards, away, solver: structure.scratch(), warm: false })
    }

    /// Finds z* = arg max of potentials + noise on the unary ones, for the example that an estimator is called on next.
    pub fn argmax(
        &mut self,
        structure: &S,
        potentials: &[f32],
        noise: &[f32],
        assignment: &mut [u32],
    ) -> Result<Maximum, Error> {
        let perturbed = &mut self.first[..structure.potentials()];
        perturbed.copy_from_slice(potentials);
        add(perturbed, noise, 1.0);
        self.warm = false;
        let maximum = structure.argmax(perturbed, assignment, &mut self.solver)?;
        self.warm = true;
        Ok(maximum)
    }
}

/// An estimator of the gradient of the expected loss at the potentials.
pub trait Estimator<S: Structure>: Send + Sync {
    /// Which losses it reads.
    fn needs(&self) -> Needs;

    /// Number of Gumbel variables per example: U, or |Z| where every state has one. Errors: a space too large.
    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(structure.unary())
    }

    /// Finds z* of one example, with the noise that this estimator draws.
    fn sample(
        &self,
        structure: &S,
        potentials: &[f32],
        noise: &[f32],
        assignment: &mut [u32],
        work: &mut Workspace<S>,
    ) -> Result<(), Error> {
        work.argmax(structure, potentials, noise, assignment).map(drop)
    }

    /// Adds `scale` times the estimated gradient of one example to its answer; `Some(true)` if both arg maxima coincide,
    /// so that the gradient is zero, `None` where the question has no meaning.
    ///
    /// The slices have the lengths that [`Example`] says. Errors: NaN, a space too large to enumerate.
    fn example(
        &self,
        structure: &S,
        example: Example<'_>,
        scale: f32,
        work: &mut Workspace<S>,
    ) -> Result<Option<bool>, Error>;

    /// Adds `scale` times the estimated gradient of every example of a batch to the answer.
    ///
    /// Runs on the current rayon pool; the result does not depend on the number of threads. Errors: wrong lengths, NaN,
    /// a space too large to enumerate.
    fn estimate(&self, structure: &S, inputs: &Inputs<'_>, estimate: &mut Estimate<'_>) -> Result<(), Error> {
        for_each_example(self, structure, inputs, estimate)
    }
}

/// Examples per piece of parallel work; fixed, so that no result depends on the number of threads.
const EXAMPLES: usize = 32;
/// Below this many losses a batch is not worth the hand-over to other threads.
const SEQUENTIAL: usize = 8192;

/// The checked shapes of a batch.
struct Shape {
    potentials: usize,
    noise: usize,
    variables: usize,
    losses: usize,
}

impl Shape {
    fn new<S: Structure, E: Estimator<S> + ?Sized>(
        estimator: &E,
        structure: &S,
        inputs: &Inputs<'_>,
        estimate: &Estimate<'_>,
    ) -> Result<Self, Error> {
        let shape = Shape {
            potentials: structure.potentials(),
            noise: estimator.noise(structure)?,
            variables: structure.variables(),
            losses: match estimator.needs() {
                Needs::Neighbours => structure.unary(),
                Needs::States => enumerable(structure)?,
            },
        };
        let batch = batch_size(inputs.potentials.len(), shape.potentials)?;
        check_len("noise", inputs.noise.len(), batch * shape.noise)?;
        check_len("assignment", inputs.assignment.len(), batch * shape.variables)?;
        check_len("losses", inputs.losses.len(), batch * shape.losses)?;
        check_len("gradient", estimate.gradient.len(), batch * shape.potentials)?;
        if let Some(weights) = &estimate.weights {
            check_len("weights", weights.len(), batch * shape.losses)?;
        }
        if let Some(moved) = &estimate.moved {
            check_len("moved", moved.len(), batch * shape.variables)?;
        }
        Ok(shape)
    }

    /// The rows of a batch.
    fn examples<'a>(&self, inputs: &Inputs<'a>, estimate: &'a mut Estimate<'_>) -> Vec<Example<'a>> {
        fn row<T>(x: &[T], b: usize, width: usize) -> &[T] {
            &x[b * width..][..width]
        }
        /// The next row; an empty one of what is absent.
        fn next<'a, T>(x: &mut Option<&'a mut [T]>, width: usize) -> &'a mut [T] {
            match x.take() {
                Some(all) => {
                    let (row, rest) = all.split_at_mut(width);
                    *x = Some(rest);
                    row
                }
                None => &mut [],
            }
        }
        let (mut weights, mut moved) = (estimate.weights.as_deref_mut(), estimate.moved.as_deref_mut());
        let gradients = estimate.gradient.chunks_exact_mut(self.potentials.max(1)).enumerate();
        let example = |(b, gradient)| Example {
            potentials: row(inputs.potentials, b, self.potentials),
            noise: row(inputs.noise, b, self.noise),
            assignment: row(inputs.assignment, b, self.variables),
            losses: row(inputs.losses, b, self.losses),
            gradient,
            weights: next(&mut weights, self.losses),
            moved: next(&mut moved, self.variables),
        };
        gradients.map(example).collect()
    }
}

/// Examples whose question of coincidence has an answer, and those that coincide.
#[derive(Default)]
struct Count {
    asked: AtomicUsize,
    unmoved: AtomicUsize,
}

impl Count {
    fn add(&self, same: Option<bool>) {
        self.asked.fetch_add(same.is_some() as usize, Ordering::Relaxed);
        self.unmoved.fetch_add((same == Some(true)) as usize, Ordering::Relaxed);
    }

    fn unmoved(self) -> Option<usize> {
        (self.asked.into_inner() > 0).then_some(self.unmoved.into_inner())
    }
}

/// Checks all shapes and runs an estimator on every example, with working memory made once per piece of work.
fn for_each_example<S: Structure, E: Estimator<S> + ?Sized>(
    estimator: &E,
    structure: &S,
    inputs: &Inputs<'_>,
    estimate: &mut Estimate<'_>,
) -> Result<(), Error> {
    let shape = Shape::new(estimator, structure, inputs, estimate)?;
    let (needs, scale, count) = (estimator.needs(), estimate.scale, Count::default());
    let mut examples = shape.examples(inputs, estimate);
    let size = piece(structure, shape.losses);
    let run = |(c, examples): (usize, &mut [Example<'_>])| -> Result<(), Error> {
        let mut work = Workspace::new(structure, needs)?;
        for (i, example) in examples.iter_mut().enumerate() {
            let same = estimator.example(structure, example.reborrow(), scale, &mut work);
            count.add(same.map_err(|e| e.in_example(c * size + i))?);
        }
        Ok(())
    };
    match alone(structure, examples.len() * shape.losses) {
        true => examples.chunks_mut(size).enumerate().try_for_each(run)?,
        false => examples.par_chunks_mut(size).enumerate().try_for_each(run)?,
    }
    drop(examples);
    estimate.unmoved = count.unmoved();
    Ok(())
}

/// Examples per piece of parallel work; it depends on nothing but the structure, so that no result depends on the
/// number of threads.
fn piece<S: Structure>(structure: &S, losses: usize) -> usize {
    match structure.block(0) {
        Some(_) => EXAMPLES,
        None => examples_per_piece(losses.max(structure.potentials())),
    }
}

/// Whether a batch with so many losses is not worth the hand-over to other threads.
fn alone<S: Structure>(structure: &S, losses: usize) -> bool {
    losses <= SEQUENTIAL && structure.block(0).is_some()
}

/// Working memory for every example of a batch: z(eps) is found from where the solver stood at z*.
pub struct Solvers<S: Structure> {
    examples: Vec<Workspace<S>>,
}

impl<S: Structure> Default for Solvers<S> {
    fn default() -> Self {
        Solvers { examples: vec![] }
    }
}

impl<S: Structure> Solvers<S> {
    /// Finds z* of a batch: `potentials` `[batch, P]`, `noise` as the estimator [draws](Estimator::noise), `assignment`
    /// `[batch, n]`. Errors: wrong lengths, NaN, everything forbidden.
    pub fn sample<E: Estimator<S> + ?Sized>(
        &mut self,
        estimator: &E,
        structure: &S,
        potentials: &[f32],
        noise: &[f32],
        assignment: &mut [u32],
    ) -> Result<(), Error> {
        let (p, u, n) = (structure.potentials(), estimator.noise(structure)?, structure.variables());
        let batch = batch_size(potentials.len(), p)?;
        check_len("noise", noise.len(), batch * u)?;
        check_len("assignment", assignment.len(), batch * n)?;
        while self.examples.len() < batch {
            self.examples.push(Workspace::new(structure, estimator.needs())?);
        }
        let rows = potentials.chunks_exact(p.max(1)).zip(noise.chunks_exact(u.max(1)));
        let rows = rows.zip(assignment.chunks_exact_mut(n.max(1)));
        let mut rows: Vec<_> = rows.zip(&mut self.examples).collect();
        let size = piece(structure, u);
        type Row<'a, S> = (((&'a [f32], &'a [f32]), &'a mut [u32]), &'a mut Workspace<S>);
        let run = |(c, rows): (usize, &mut [Row<'_, S>])| {
            for (i, (((h, noise), z), work)) in rows.iter_mut().enumerate() {
                let found = estimator.sample(structure, h, noise, z, work);
                found.map_err(|e| e.in_example(c * size + i))?;
            }
            Ok(())
        };
        match alone(structure, batch * u) {
            true => rows.chunks_mut(size).enumerate().try_for_each(run),
            false => rows.par_chunks_mut(size).enumerate().try_for_each(run),
        }
    }

    /// Estimates for the batch whose z* were [sampled](Solvers::sample) last; otherwise as [`Estimator::estimate`].
    pub fn estimate<E: Estimator<S> + ?Sized>(
        &mut self,
        estimator: &E,
        structure: &S,
        inputs: &Inputs<'_>,
        estimate: &mut Estimate<'_>,
    ) -> Result<(), Error> {
        let shape = Shape::new(estimator, structure, inputs, estimate)?;
        let (scale, count) = (estimate.scale, Count::default());
        let examples = shape.examples(inputs, estimate);
        check_len("examples with a sample", self.examples.len().min(examples.len()), examples.len())?;
        let size = piece(structure, shape.losses);
        let mut rows: Vec<_> = examples.into_iter().zip(&mut self.examples).collect();
        let all = rows.len() * shape.losses;
        let run = |(c, rows): (usize, &mut [(Example<'_>, &mut Workspace<S>)])| {
            for (i, (example, work)) in rows.iter_mut().enumerate() {
                let same = estimator.example(structure, example.reborrow(), scale, work);
                count.add(same.map_err(|e| e.in_example(c * size + i))?);
            }
            Ok(())
        };
        match alone(structure, all) {
            true => rows.chunks_mut(size).enumerate().try_for_each(run)?,
            false => rows.par_chunks_mut(size).enumerate().try_for_each(run)?,
        }
        drop(rows);
        estimate.unmoved = count.unmoved();
        Ok(())
    }
}

/// Calls `each(k, q_k (loss_k - E_q[loss]))` for every k: the derivative of `E_q[loss]` at the potentials of a softmax.
///
/// Losses are centred at that of the likeliest k in f64. Where q is nearly one-hot, the terms are as small as the other
/// probabilities, and a mean rounded to f32 would drown the likeliest one.
fn centred(q: &[f32], losses: &[f32], mut each: impl FnMut(usize, f32)) {
    let Some(likeliest) = math::argmax(q) else { return };
    let origin = losses[likeliest] as f64;
    let total: f64 = q.iter().map(|q| *q as f64).sum();
    let mean = q.iter().zip(losses).map(|(q, l)| *q as f64 * (*l as f64 - origin)).sum::<f64>() / total;
    for (k, (q, l)) in q.iter().zip(losses).enumerate() {
        each(k, (*q as f64 / total * (*l as f64 - origin - mean)) as f32);
    }
}

/// Replaces q by `q - p`; the entry of the likeliest under q is minus the sum of the others, which keeps its digits
/// where both distributions are nearly one-hot.
fn difference(q: &mut [f32], p: &[f32]) {
    let Some(likeliest) = math::argmax(q) else { return };
    let mut others = 0.0;
    for (_, (q, p)) in q.iter_mut().zip(p).enumerate().filter(|(k, _)| *k != likeliest) {
        others += *q as f64 - *p as f64;
        *q -= p;
    }
    q[likeliest] = -others as f32;
}

/// |Z|, if it is small enough to enumerate ([`MAX_STATES`]).
pub fn enumerable<S: Structure>(structure: &S) -> Result<usize, Error> {
    match structure.states() {
        Some(states) if states <= MAX_STATES => Ok(states),
        states => {
            let states = states.map_or_else(|| format!("exp({:.1})", structure.ln_states()), |s| s.to_string());
            Err(Error::TooManyStates { states, limit: MAX_STATES })
        }
    }
}
