//! The CPU engine: one training step of a multi-layer perceptron on binary images, written out by hand.
//!
//! It is an [`Engine`](gumbel::engine::Engine) for perceptrons on both sides and Bernoulli pixels of zeros and ones,
//! with any latent and any estimator, and is tested against automatic differentiation. What makes it fast: images are
//! [lists of their ones](Bits), so the first layer adds rows instead of multiplying; a K-way latent needs the
//! decoder's K rows, the *table*, not one per image; the gradient of a weight is reduced in registers and consumed by
//! Adam at once, it never stands in memory; nothing is allocated in a step. See docs/performance.md for the
//! arithmetic.
//!
//! A step is a few phases, each a list of pieces that a team of threads shares; every piece owns what it
//! writes, so that results do not depend on the number of threads:
//!
//! ```text
//! 1. images by pixel ∥ noise ∥ encoder's first layer, by units ∥ table: logits, softplus, sigmoid, by pixels
//! 2. by images: potentials, KL, the estimator with its questions: gradient at the potentials
//! 3. encoder's last layer: gradient, Adam, by units ∥ output layer: gradient, Adam, by pixels
//! 4. encoder's first layer: gradient, Adam, by units ∥ decoder's first layer: gradient, Adam, new units for the table
//! ```
//!
//! Where a latent has several variables, or what is followed is relaxed, the decoder has a row for each image, and
//! its forward pass comes after phase 2. An estimator that wants the slopes at what it follows is resumed after the
//! decoder's way back. Further hidden layers are phases of their own.
//!
//! An estimator's questions are answered where they are asked, by the piece of sixteen images that asks (`ask.rs`);
//! from outside, by all threads. The hot path of one K-way variable stays in the type that owns it: the table of a
//! step answers all questions about its states.
//!
//! Perceptrons with a Gaussian code for every state have an engine of their own, [`Mixed`], with the same vectors and
//! the same team.

#![deny(missing_docs)]
#![deny(unsafe_code)]

mod ask;
// Public for the benchmarks of the kernels only.
#[doc(hidden)]
pub mod bits;
mod codes;
#[doc(hidden)]
pub mod dense;
mod engine;
#[doc(hidden)]
pub mod first;
mod mixed;
#[doc(hidden)]
pub mod output;
mod rows;
#[doc(hidden)]
pub mod simd;
mod states;
mod team;
#[doc(hidden)]
pub mod tile;
mod turned;

pub use bits::Bits;
pub use engine::{Fused, check, model, refusal};
pub use mixed::Mixed;
pub use simd::Isa;
