//! Likelihoods of pixels: what a decoder's outputs say about an image.

mod bernoulli;

use crate::registry::{Entries, Entry};
use std::fmt;
use std::sync::Arc;

pub use bernoulli::Bernoulli;

/// The likelihood of images given the outputs of a decoder, in nats; one output for each number of an image.
pub trait Likelihood: Send + Sync + fmt::Debug {
    /// The name in the registry.
    fn name(&self) -> &'static str;

    /// Whether the loss is `A(t) - <x, t> + c(x)`, linear in the image but for a term without outputs: then the losses
    /// of many images at the same outputs are a matrix product.
    fn is_linear(&self) -> bool;

    /// Whether it reads images of zeros and ones only; otherwise all numbers in [0, 1].
    fn needs_binary(&self) -> bool;

    /// Writes `losses[r] = -ln p(image | outputs[r])` for outputs `[rows, d]`; row r belongs to image `r / per_image`
    /// of `images` `[rows / per_image, d]`.
    fn losses(&self, outputs: &[f32], images: &[f32], per_image: usize, losses: &mut [f32]);

    /// The same for one row for each image, and `scales[r]` times the derivative at the outputs.
    fn losses_and_slopes(
        &self,
        outputs: &[f32],
        images: &[f32],
        scales: &[f32],
        losses: &mut [f32],
        slopes: &mut [f32],
    );

    /// Of a linear likelihood: writes `A(outputs[r])` and its derivative, for outputs `[rows, d]`.
    fn log_normalisers(&self, outputs: &[f32], sums: &mut [f32], slopes: &mut [f32]);

    /// Of a linear likelihood: writes the terms without outputs `c(x)` of images `[batch, d]`. By default what the
    /// losses at outputs of zero have beside the log-normaliser: whoever knows `c` says it sooner.
    fn constants(&self, images: &[f32], constants: &mut [f32]) {
        let (zeros, d) = (vec![0.0; images.len()], images.len() / constants.len().max(1));
        self.losses(&zeros, images, 1, constants);
        let mut origin = [0.0];
        self.log_normalisers(&zeros[..d], &mut origin, &mut vec![0.0; d]);
        constants.iter_mut().for_each(|c| *c -= origin[0]);
    }

    /// Replaces outputs by the means of the pixels, in [0, 1].
    fn means(&self, outputs: &mut [f32]);
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
    Entries::new("likelihood", [bernoulli::entry()])
}
