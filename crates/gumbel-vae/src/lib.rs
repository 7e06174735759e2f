//! Networks on Burn, and the engine that trains them by automatic differentiation, on any device.
//!
//! The discrete mathematics lives in the crate `gumbel`, whose estimators ask an [oracle](gumbel::oracle). Here are
//! [encoders and decoders](mod@model), and [`Autodiff`], an [`Engine`](gumbel::engine::Engine) that owns their
//! parameters, answers those questions for a batch of images, and takes the steps. It knows no files and no
//! configuration.
//!
//! # Example
//!
//! A decoder of one's own enters the registry of models in a few lines, and trains with any estimator, latent and
//! likelihood:
//!
//! ```
//! use burn::module::{Module, Param, ParamId};
//! use burn::tensor::{Device, Tensor};
//! use gumbel::engine::ModelEntry;
//! use gumbel::structure::Structure;
//! use gumbel_vae::model::{Decoder, Mlp};
//!
//! /// Every statistic of the code leaves a stroke of its own: `outputs = codes strokes`.
//! #[derive(Module, Debug)]
//! struct Strokes {
//!     strokes: Param<Tensor<2>>, // [U, pixels]
//! }
//!
//! impl Decoder for Strokes {
//!     fn outputs(&self, codes: Tensor<2>) -> Tensor<2> {
//!         codes.matmul(self.strokes.val())
//!     }
//! }
//!
//! fn strokes() -> ModelEntry {
//!     gumbel_vae::model("strokes", "one stroke for every statistic", &[], |options, device| {
//!         let (pixels, latent) = (options.shape.len(), &options.structure);
//!         let encoder = Mlp::new(&[pixels, 50, latent.potentials()], options.seed, 0, device);
//!         let zeros = Tensor::zeros([latent.unary(), pixels], &device.clone().autodiff()).require_grad();
//!         Ok((encoder, Strokes { strokes: Param::initialized(ParamId::new(), zeros) }))
//!     })
//! }
//! # let _ = strokes();
//! ```

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod adam;
mod engine;
mod entry;
mod host;
mod mixed;
pub mod model;
mod oracle;
mod table;
#[cfg(test)]
mod testing;

pub use engine::{Autodiff, StepGradients};
pub use entry::{convolutions, device, mixed, model, perceptron};
