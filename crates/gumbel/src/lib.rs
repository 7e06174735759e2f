//! Learning with discrete latent variables through arg max.
//!
//! This crate is the heart of the project: Gumbel noise, discrete [structures](structure) with exact arg max solvers,
//! and the gradient [estimators](estimator) that need nothing but potentials, noise and losses. It knows no tensors
//! and no files: everything is a slice of `f32` in row-major `[batch, potentials]` order, so that it can be driven
//! from any network library.
//!
//! ```text
//! potentials [B, P] ── + noise ──> argmax ──> z* ──> (decoder) ──> losses of z* and of its neighbours
//!                                                                          │
//! gradient at the potentials  <── (s(z*) - s(z_eps)) / eps  <── argmax(potentials + noise - eps * losses)
//! ```
//!
//! # Example
//!
//! One step of direct optimisation for a latent with three values. The loss of each value is known, the gradient says
//! how the potentials should move:
//!
//! ```
//! use gumbel::estimator::{Direct, Estimate, Estimator, Inputs};
//! use gumbel::noise::{Noise, Purpose};
//! use gumbel::structure::{self, Categorical};
//!
//! let latent = Categorical::new(3)?;
//! let potentials = [0.2, -0.1, 0.4]; // [batch = 1, P = 3], from an encoder
//! let mut noise = [0.0; 3];
//! Noise::new(0, Purpose::Noise, 0).gumbel(&mut noise);
//!
//! let mut assignment = [0];
//! structure::perturbed_argmax(&latent, &potentials, &noise, &mut assignment)?;
//!
//! let losses = [9.0, 1.0, 5.0]; // -f(x, z) for z = 0, 1, 2, from a decoder
//! let mut gradient = [0.0; 3];
//! let inputs = Inputs { potentials: &potentials, noise: &noise, assignment: &assignment, losses: &losses };
//! let mut estimate = Estimate::new(&mut gradient, 1.0);
//! Direct::new(1.0)?.estimate(&latent, &inputs, &mut estimate)?;
//! assert_eq!(gradient.iter().sum::<f32>(), 0.0);
//! # Ok::<(), gumbel::Error>(())
//! ```
//!
//! Source: Lorberbom, Gane, Jaakkola, Hazan, "Direct Optimization through arg max for Discrete Variational
//! Auto-Encoder", NeurIPS 2019. "Paper" in the documentation means this one.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod error;
pub mod estimator;
pub mod math;
pub mod network;
pub mod noise;
pub mod registry;
pub mod schedule;
pub mod structure;
pub mod testing;

pub use error::Error;
