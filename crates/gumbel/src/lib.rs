//! Learning with discrete latent variables through arg max.
//!
//! This crate is the heart of the project: Gumbel noise, discrete [structures](structure) with exact arg max solvers,
//! and the gradient [estimators](estimator), which ask an [oracle] for losses. It knows no tensors and no files:
//! everything is a slice of `f32` in row-major `[batch, potentials]` order, so that it can be driven from any network
//! library.
//!
//! ```text
//! potentials [B, P] ── estimator: noise, arg max ──> "losses at these codes?" ──> oracle (decoder, likelihood)
//!                          │       ^──────────────────── losses, slopes ───────────────┘        ^
//! gradient [B, P]  <───────┴── "follow these" ──────────────────────────────────────────────────┘
//! ```
//!
//! # Example
//!
//! One step of direct optimisation for a latent with three values. The oracle is a function that knows the loss of
//! each; the gradient says how the potentials should move:
//!
//! ```
//! use gumbel::estimator::{Direct, estimate};
//! use gumbel::noise::{Noise, Purpose};
//! use gumbel::oracle::Closure;
//! use gumbel::structure::Categorical;
//!
//! let latent = Categorical::new(3)?;
//! let potentials = [0.2, -0.1, 0.4]; // [batch = 1, P = 3], from an encoder
//! let mut noise = [0.0; 3]; // [samples = 1, batch = 1, 3]
//! Noise::new(0, Purpose::Noise, 0).gumbel(&mut noise);
//!
//! let mut oracle = Closure::new(&latent, |_image, code| 9.0 * code[0] + code[1] + 5.0 * code[2]); // -ln p(x | z)
//! let found = estimate(&Direct::new(1.0)?, &latent, &potentials, &noise, &mut oracle)?;
//! assert_eq!(found.gradient.iter().sum::<f32>(), 0.0);
//! # Ok::<(), gumbel::Error>(())
//! ```
//!
//! # Rooms
//!
//! - [`structure`]: sets of assignments with exact arg max and, where tractable, exact sums;
//! - [`estimator`]: gradients, one file each; [`oracle`]: what they ask;
//! - [`diagnose`]: bias, variance and cost of estimators; [`testing`]: checks for structures of one's own;
//! - [`continuous`]: Gaussian codes beside discrete ones; [`supervision`]: what potentials learn from labels;
//! - [`engine`]: what a training loop needs of whoever computes networks; [`likelihood`]; [`network`]: parameters;
//! - [`batch`]: batches for callers from other languages;
//! - [`registry`]: names, settings and constructors; [`noise`], [`schedule`], [`math`].
//!
//! Source: Lorberbom, Gane, Jaakkola, Hazan, "Direct Optimization through arg max for Discrete Variational
//! Auto-Encoder", NeurIPS 2019. "Paper" in the documentation means this one.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod batch;
pub mod continuous;
pub mod diagnose;
pub mod engine;
mod error;
pub mod estimator;
pub mod likelihood;
pub mod math;
pub mod network;
pub mod noise;
pub mod oracle;
pub mod registry;
pub mod schedule;
pub mod structure;
pub mod supervision;
pub mod testing;

pub use error::Error;

/// The program of the page is compiled and run as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/howto/own-decoder.md")]
struct OwnDecoder;
