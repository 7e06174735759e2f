//! Likelihoods of pixels: what a decoder's outputs say about an image.
//!
//! | name | images | outputs of a number | a loss is |
//! |---|---|---|---|
//! | [`bernoulli`](Bernoulli) | zeros and ones, or grey levels as probabilities | logit | -ln probability |
//! | [`logistic`](Logistic) | 8-bit numbers | location, log-scale | -ln probability of levels |
//! | [`gaussian`](Gaussian) | any numbers | mean, log-scale | -ln *density* |
//!
//! Numbers of an image are independent given the outputs, those of its channels too: what they have in common, the
//! latent variable must say.

mod bernoulli;
pub mod gaussian;
mod located;
pub mod logistic;

use crate::registry::{Entries, Entry};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use bernoulli::Bernoulli;
pub use gaussian::Gaussian;
pub use logistic::Logistic;

/// The likelihood of images given the outputs of a decoder, in nats.
///
/// An image is d numbers in [0, 1]. A row of outputs has [`outputs`](Likelihood::outputs) of them for each number,
/// laid out as `[outputs, d]`: first one for each number (logits, means), then the next for each (log-scales).
pub trait Likelihood: Send + Sync + fmt::Debug {
    /// The name in the registry.
    fn name(&self) -> &'static str;

    /// Outputs of the decoder for each number of an image.
    fn outputs(&self) -> usize {
        1
    }

    /// Whether the loss is `A(t) - <x, t> + c(x)`, linear in the image but for a term without outputs: then the losses
    /// of many images at the same outputs are a matrix product. It has one output for each number.
    fn is_linear(&self) -> bool;

    /// Whether it reads images of zeros and ones only; otherwise all numbers in [0, 1].
    fn needs_binary(&self) -> bool;

    /// Whether a loss is minus the logarithm of a density, not of a probability: it may be negative, depends on the
    /// unit of the numbers, and is not to be compared with losses of other likelihoods.
    fn is_density(&self) -> bool {
        false
    }

    /// Whether a loss is minus the logarithm of the probability of 8-bit numbers, which is also told in bits per
    /// dimension: `loss / (d ln 2)`.
    fn has_bits(&self) -> bool {
        false
    }

    /// Writes `losses[r] = -ln p(image | outputs[r])` for outputs `[rows, outputs d]`; row r belongs to image
    /// `r / per_image` of `images` `[rows / per_image, d]`.
    fn losses(&self, outputs: &[f32], images: &[f32], per_image: usize, losses: &mut [f32]);

    /// The same for one row for each image, and `scales[r]` times the derivative at the outputs,
    /// `[rows, outputs d]`.
    fn losses_and_slopes(
        &self,
        outputs: &[f32],
        images: &[f32],
        scales: &[f32],
        losses: &mut [f32],
        slopes: &mut [f32],
    );

    /// Of a linear likelihood: writes `A(outputs[r])` and its derivative, for outputs `[rows, d]`.
    ///
    /// # Panics
    /// By default: where [`is_linear`](Likelihood::is_linear) says no, there is no such thing, and nobody asks.
    fn log_normalisers(&self, _outputs: &[f32], _sums: &mut [f32], _slopes: &mut [f32]) {
        unreachable!("{} is not linear in the image", self.name())
    }

    /// Of a linear likelihood: writes the terms without outputs `c(x)` of images `[batch, d]`. By default what the
    /// losses at outputs of zero have beside the log-normaliser: whoever knows `c` says it sooner.
    fn constants(&self, images: &[f32], constants: &mut [f32]) {
        let row = self.outputs() * images.len() / constants.len().max(1);
        let zeros = vec![0.0; row * constants.len()];
        self.losses(&zeros, images, 1, constants);
        let mut origin = [0.0];
        self.log_normalisers(&zeros[..row], &mut origin, &mut vec![0.0; row]);
        constants.iter_mut().for_each(|c| *c -= origin[0]);
    }

    /// Writes the means of the numbers of one image `[d]`, in [0, 1], at one row of outputs `[outputs, d]`.
    fn means(&self, outputs: &[f32], means: &mut [f32]);
}

/// A likelihood in the registry.
#[derive(Debug, Clone)]
pub struct LikelihoodEntry {
    name: &'static str,
    help: &'static str,
    likelihood: Arc<dyn Likelihood>,
}

impl LikelihoodEntry {
    /// A likelihood with a line of help.
    pub fn new(likelihood: impl Likelihood + 'static, help: &'static str) -> Self {
        LikelihoodEntry { name: likelihood.name(), help, likelihood: Arc::new(likelihood) }
    }

    /// The likelihood.
    pub fn get(&self) -> Arc<dyn Likelihood> {
        self.likelihood.clone()
    }
}

impl Entry for LikelihoodEntry {
    fn name(&self) -> &str {
        self.name
    }

    fn help(&self) -> &str {
        self.help
    }
}

/// All likelihoods of this crate.
pub fn likelihoods() -> Entries<LikelihoodEntry> {
    Entries::new("likelihood", [bernoulli::entry(), logistic::entry(), gaussian::entry()])
}

/// Rows per piece of parallel work; fixed. One row is a few microseconds or more.
const ROWS: usize = 4;

/// Width of the partial sums: fixed, so that the result is the same whatever the machine's vectors.
const LANES: usize = 16;

/// Terms that are written, by a loop that vectorises, before they are added up; whole lanes.
const BLOCK: usize = 16 * LANES;

/// The sum of `len` terms in a fixed order. `write` is called for one block of them after the other.
#[inline(always)]
fn sum(len: usize, mut write: impl FnMut(Range<usize>, &mut [f32])) -> f32 {
    let (mut lanes, mut terms) = ([0.0f32; LANES], [0.0; BLOCK]);
    for start in (0..len).step_by(BLOCK) {
        let block = start..len.min(start + BLOCK);
        let terms = &mut terms[..block.len()];
        write(block, terms);
        let (whole, rest) = terms.as_chunks::<LANES>();
        whole.iter().for_each(|terms| lanes.iter_mut().zip(terms).for_each(|(lane, term)| *lane += term));
        lanes.iter_mut().zip(rest).for_each(|(lane, term)| *lane += term);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}
