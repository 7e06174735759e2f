//! Gradient estimators that need only potentials, noise and losses.
//!
//! The task of each: given an encoder's potentials and the losses `-f(x, z)` of a decoder, estimate the gradient of
//! `E_{z ~ q}[loss(z)]` at the potentials, for a whole batch. What an estimator asks of the decoder is one of two
//! things ([`Needs`]): the losses of all one-coordinate changes of the sampled assignment, or the losses of all states.
//!
//! | estimator | needs | bias | variance |
//! |---|---|---|---|
//! | [`Direct`] | neighbours | of order epsilon (two-sided: epsilon²) | grows like 1 / epsilon |
//! | [`DirectExpectation`] | neighbours | the same | smaller; zero for one variable |
//! | [`LocalExpectation`] | neighbours | none for a factorised encoder | zero for one variable |
//! | [`Exact`] | all states | none | none |
//! | [`Marginal`] | all states | none, of another objective: -ln p(x) | none |
//!
//! Estimators that differentiate through the decoder (Gumbel-Softmax and its family) live beside the networks.

mod direct;
mod exact;
mod local_expectation;
mod marginal;

use crate::Error;
use crate::error::check_len;
use crate::math;
use crate::structure::{Structure, batch_size};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use direct::{Direct, DirectExpectation, Sides};
pub use exact::Exact;
pub use local_expectation::LocalExpectation;
pub use marginal::Marginal;

/// The largest |Z| that estimators enumerate.
pub const MAX_STATES: usize = 1 << 15;

/// Which losses an estimator asks of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// `[batch, U]`, aligned with the unary potentials: the loss of the sampled assignment with one variable changed
    /// to the value of that potential (for its present value: the loss of the sampled assignment itself). For one
    /// K-way variable these are the losses of all K states.
    Neighbours,
    /// `[batch, |Z|]`: the loss of every state in the enumeration order of the structure.
    States,
}

/// One batch at the seam between networks and discrete mathematics.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Encoder potentials `[batch, P]`.
    pub potentials: &'a [f32],
    /// Perturbation of the unary potentials `[batch, U]`; the same that chose `assignment`.
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
    /// Number of examples whose perturbed arg maxima coincide, so that the gradient is zero; `None` where the
    /// question has no meaning.
    pub unmoved: Option<usize>,
}

impl<'a> Estimate<'a> {
    /// An answer without decoder weights.
    pub fn new(gradient: &'a mut [f32], scale: f32) -> Self {
        Estimate { gradient, scale, weights: None, unmoved: None }
    }

    /// An answer with decoder weights.
    pub fn with_weights(gradient: &'a mut [f32], weights: &'a mut [f32], scale: f32) -> Self {
        Estimate { gradient, scale, weights: Some(weights), unmoved: None }
    }
}

/// One example of a batch at the seam; see [`Inputs`] and [`Estimate`] for the meaning of the fields.
#[derive(Debug)]
pub struct Example<'a> {
    /// Encoder potentials (P values).
    pub potentials: &'a [f32],
    /// Perturbation of the unary potentials (U values).
    pub noise: &'a [f32],
    /// The sampled assignment z* (n values).
    pub assignment: &'a [u32],
    /// Losses: U or |Z| values, as the estimator [`Needs`].
    pub losses: &'a [f32],
    /// The gradient is added here (P values).
    pub gradient: &'a mut [f32],
    /// The decoder's weights are added here: |Z| values, or none.
    pub weights: &'a mut [f32],
}

/// Working memory of an estimator, made once and reused from example to example.
#[derive(Debug)]
pub struct Workspace<S: Structure> {
    /// Perturbed potentials, or probabilities of states: max(P, |Z|) values each.
    first: Vec<f32>,
    second: Vec<f32>,
    /// Assignments: z(eps) and z(-eps), or a state.
    towards: Vec<u32>,
    away: Vec<u32>,
    solver: S::Scratch,
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
        Ok(Workspace { first, second, towards, away, solver: structure.scratch() })
    }
}

/// An estimator of the gradient of the expected loss at the potentials.
pub trait Estimator<S: Structure>: Send + Sync {
    /// Which losses it reads.
    fn needs(&self) -> Needs;

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

/// Checks all shapes and runs an estimator on every example, with working memory made once per piece of work.
fn for_each_example<S: Structure, E: Estimator<S> + ?Sized>(
    estimator: &E,
    structure: &S,
    inputs: &Inputs<'_>,
    estimate: &mut Estimate<'_>,
) -> Result<(), Error> {
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let batch = batch_size(inputs.potentials.len(), p)?;
    let needs = estimator.needs();
    let width = match needs {
        Needs::Neighbours => u,
        Needs::States => enumerable(structure)?,
    };
    check_len("noise", inputs.noise.len(), batch * u)?;
    check_len("assignment", inputs.assignment.len(), batch * n)?;
    check_len("losses", inputs.losses.len(), batch * width)?;
    check_len("gradient", estimate.gradient.len(), batch * p)?;
    let weights: &mut [f32] = match &mut estimate.weights {
        Some(w) => {
            check_len("weights", w.len(), batch * width)?;
            w
        }
        None => &mut [],
    };
    let row = if weights.is_empty() { 0 } else { width };
    let scale = estimate.scale;

    // Examples whose question of coincidence has an answer, and those that coincide.
    let (asked, unmoved) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let piece = |c: usize, gradient: &mut [f32], weights: &mut [f32]| -> Result<(), Error> {
        let mut work = Workspace::new(structure, needs)?;
        for (i, gradient) in gradient.chunks_exact_mut(p).enumerate() {
            let b = c * EXAMPLES + i;
            let example = Example {
                potentials: &inputs.potentials[b * p..][..p],
                noise: &inputs.noise[b * u..][..u],
                assignment: &inputs.assignment[b * n..][..n],
                losses: &inputs.losses[b * width..][..width],
                gradient,
                weights: &mut weights[i * row..(i + 1) * row],
            };
            let same = estimator.example(structure, example, scale, &mut work).map_err(|e| e.in_example(b))?;
            asked.fetch_add(same.is_some() as usize, Ordering::Relaxed);
            unmoved.fetch_add((same == Some(true)) as usize, Ordering::Relaxed);
        }
        Ok(())
    };
    let gradients = estimate.gradient.par_chunks_mut(EXAMPLES * p);
    if batch * width <= SEQUENTIAL {
        for c in 0..batch.div_ceil(EXAMPLES) {
            let examples = c * EXAMPLES..batch.min((c + 1) * EXAMPLES);
            let weights = &mut weights[examples.start * row..examples.end * row];
            piece(c, &mut estimate.gradient[examples.start * p..examples.end * p], weights)?;
        }
    } else if row == 0 {
        gradients.enumerate().try_for_each(|(c, gradient)| piece(c, gradient, &mut []))?;
    } else {
        let weights = weights.par_chunks_mut(EXAMPLES * row);
        gradients.zip(weights).enumerate().try_for_each(|(c, (g, w))| piece(c, g, w))?;
    }
    estimate.unmoved = (asked.into_inner() > 0).then_some(unmoved.into_inner());
    Ok(())
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

/// Calls `each(k, q_k - p_k)` for every k of two distributions; the one of the likeliest k under q is minus the sum of
/// the others, which keeps its digits where both are nearly one-hot.
fn difference(q: &[f32], p: &[f32], mut each: impl FnMut(usize, f32)) {
    let Some(likeliest) = math::argmax(q) else { return };
    let mut others = 0.0;
    for (k, (q, p)) in q.iter().zip(p).enumerate().filter(|(k, _)| *k != likeliest) {
        others += *q as f64 - *p as f64;
        each(k, q - p);
    }
    each(likeliest, -others as f32);
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
