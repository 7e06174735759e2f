//! Gradient estimators: what an encoder learns from the losses of its decoder.
//!
//! The task of each: estimate the gradient of `E_{z ~ q}[loss(z)]` at the potentials of a piece of a batch. An
//! [`Estimator`] is given potentials and noise, *asks* an [`Oracle`] for losses as often as it likes, adds to the
//! gradient, and says what the decoder is to follow. The [registry](estimators()) lists them:
//!
#![doc = include_str!("../../estimators.md")]
//!
//! For a structure with couplings, `E_{z ~ q}` of [`Direct`] is over the distribution of the perturbed arg max, which
//! noise on unary potentials alone does not make a sample of the Gibbs distribution; with a Gumbel variable for every
//! state ([`Perturbation::Full`]) it is one.
//!
//! # Example
//!
//! An estimator of one's own, whole; it is `examples/leave_one_out.rs`, and the tests hold its mean against the exact
//! gradient.
//!
#![doc = concat!("```\n", include_str!("../../examples/leave_one_out.rs"), "```")]

mod antithetic;
mod arm;
mod arsm;
mod conditional;
mod control;
mod coupled;
mod decoupled;
mod direct;
mod direct_rebar;
mod disarm;
mod exact;
mod flips;
mod gumbel_rao;
mod gumbel_softmax;
mod imle;
mod joint;
mod local_expectation;
mod marginal;
mod measure;
mod perturbed;
mod piece;
mod rebar;
mod registry;
mod reinforce;
mod reinmax;
mod relax;
mod relaxed;
mod rloo;
mod score;
mod search;
mod simple;
mod softmax_trick;
mod straight_through;
mod sum_of_gamma;
mod vimco;

use crate::Error;
use crate::math;
use crate::oracle::{Oracle, Questions};
use crate::structure::{AnyStructure, Structure};

pub use arm::Arm;
pub use arsm::Arsm;
pub use decoupled::DecoupledStraightThrough;
pub use direct::{Direct, DirectExpectation, Sides};
pub use direct_rebar::DirectRebar;
pub use disarm::DisArm;
pub use exact::Exact;
pub use flips::Flips;
pub use gumbel_rao::GumbelRao;
pub use gumbel_softmax::GumbelSoftmax;
pub use imle::Imle;
pub use joint::{DirectJoint, Perturbation};
pub use local_expectation::LocalExpectation;
pub use marginal::Marginal;
pub use measure::{MEASURES, Measure, Tally};
pub use perturbed::Perturbed;
pub use piece::{Estimated, Memory, Noises, Piece, Recorder, Workspace, estimate, estimate_with, reads_table};
pub use rebar::Rebar;
pub use registry::{Chosen, EstimatorEntry, Schedule, estimators, table};
pub use reinforce::{Reinforce, ReinforceLearned};
pub use reinmax::ReinMax;
pub use relax::Relax;
pub use rloo::LeaveOneOut;
pub use search::Search;
pub use simple::Simple;
pub use softmax_trick::SoftmaxTrick;
pub use straight_through::StraightThrough;
pub use sum_of_gamma::SumOfGamma;
pub use vimco::Vimco;

/// The largest |Z| that estimators enumerate.
pub const MAX_STATES: usize = 1 << 15;

/// What the decoder's objective is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// Losses at assignments.
    Assignments,
    /// Losses at relaxed codes.
    Codes,
    /// Losses of all states.
    States,
}

/// Where the KL term is in what an estimator estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlTerm {
    /// Not in it: whoever trains adds the exact gradient of the KL.
    Apart,
    /// In it with the weight that [`Moment`] says; with a weight of 0 the exact gradient may be added instead.
    Either,
    /// In it, whatever is said.
    Within,
}

/// When a step happens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moment {
    /// The training step, from 0.
    pub step: u64,
    /// Weight of the KL term that the estimator is to take into its own objective, 0 to 1; see [`Estimator::kl`].
    pub kl_weight: f32,
}

/// An estimator of the gradient of the expected loss at the potentials; see the [module](self).
pub trait Estimator<S: Structure = AnyStructure>: Send + Sync {
    /// What it may ask of a latent's oracle.
    fn questions(&self, structure: &S) -> Questions;

    /// What it tells the decoder to follow.
    fn follows(&self) -> Follows {
        Follows::Assignments
    }

    /// How many assignments or codes it follows for each example.
    fn rows(&self, samples: usize) -> usize {
        samples
    }

    /// The fewest samples of each example that it can do with.
    fn least_samples(&self) -> usize {
        1
    }

    /// Whether it is [resumed](Estimator::resume) with the slopes at what it follows.
    fn wants_slopes(&self) -> bool {
        false
    }

    /// Number of Gumbel variables per example and sample.
    ///
    /// # Errors
    /// A space too large for them.
    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(structure.unary())
    }

    /// Whether anything in it is random: where nothing is, one sample stands for all.
    fn is_random(&self) -> bool {
        true
    }

    /// Where the KL term is in what it estimates.
    fn kl(&self, _structure: &S) -> KlTerm {
        KlTerm::Apart
    }

    /// What it measures: names, help, in the order of [`Piece::tallies`].
    fn measures(&self) -> &'static [Measure] {
        &[]
    }

    /// Prepares for a step: values that follow a schedule.
    ///
    /// # Errors
    /// A value outside its range.
    fn begin(&mut self, _moment: &Moment) -> Result<(), Error> {
        Ok(())
    }

    /// Adds the estimated gradient of a piece of a batch, and tells the oracle what to follow.
    ///
    /// It is called for several pieces at the same time; what it writes belongs to the piece.
    ///
    /// # Errors
    /// NaN, a space too large to enumerate, those of the oracle.
    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error>;

    /// Goes on after the decoder's pass: `slopes` `[rows, examples, U]` are the derivatives of the weighted losses in
    /// what it followed. Only for those that [want them](Estimator::wants_slopes).
    ///
    /// # Errors
    /// As [`estimate`](Estimator::estimate).
    fn resume(&self, _piece: &mut Piece<'_, S>, _slopes: Slopes<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// How many numbers it sums over the pieces of a batch to learn from them; see [`Piece::sums`].
    fn sums(&self) -> usize {
        0
    }

    /// Learns from a batch, with an optimiser of its own: `sums` over all its pieces.
    fn learn(&mut self, _sums: &[f32]) {}

    /// What it has learned: parameters and the state of their optimiser, for a checkpoint.
    fn state(&self) -> Vec<f32> {
        vec![]
    }

    /// Puts a stored state back.
    ///
    /// # Errors
    /// [`Error::Length`] if it is not one of this estimator.
    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        crate::error::check_len("the estimator's state", state.len(), 0)
    }
}

/// Slopes at what an estimator followed.
#[derive(Debug, Clone, Copy)]
pub struct Slopes<'a> {
    /// `[rows, stride, U]`, of which the first examples of each row are the piece's.
    pub values: &'a [f32],
    /// Examples from one row to the next.
    pub stride: usize,
}

impl<'a> Slopes<'a> {
    /// The slopes of one row: `[examples, U]`.
    pub fn row(&self, row: usize, examples: usize, width: usize) -> &'a [f32] {
        &self.values[row * self.stride * width..][..examples * width]
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
///
/// # Errors
/// [`Error::TooManyStates`].
pub fn enumerable<S: Structure + ?Sized>(structure: &S) -> Result<usize, Error> {
    at_most(structure, MAX_STATES)
}

/// The same with another limit.
///
/// # Errors
/// [`Error::TooManyStates`].
pub fn at_most<S: Structure + ?Sized>(structure: &S, limit: usize) -> Result<usize, Error> {
    match structure.states() {
        Some(states) if states <= limit => Ok(states),
        states => {
            let states = match (states, structure.ln_states()) {
                (Some(states), _) => states.to_string(),
                (None, ln) if ln.is_nan() => "uncounted".into(),
                (None, ln) => format!("exp({ln:.1})"),
            };
            Err(Error::TooManyStates { states, limit })
        }
    }
}

/// Refuses variables that are not independent of each other.
fn independent<S: Structure>(structure: &S, estimator: &'static str) -> Result<(), Error> {
    match structure.is_independent() {
        true => Ok(()),
        false => Err(Error::Coupled { estimator }),
    }
}
