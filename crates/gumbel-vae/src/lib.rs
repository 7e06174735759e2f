//! Discrete variational auto-encoders on Burn, trained through arg max.
//!
//! The discrete mathematics lives in the crate `gumbel`; here are the networks around it: [encoders and
//! decoders](model), the [likelihood], the [training step](engine), [evaluation](evaluate), and [runs](train) that
//! survive being killed.
//!
//! # Example
//!
//! A run from its configuration to its summary, on the generated data set:
//!
//! ```no_run
//! use gumbel_vae::config::TrainConfig;
//! use gumbel_vae::train::{Quiet, Start, train};
//!
//! let config = TrainConfig { epochs: 2, ..TrainConfig::default() };
//! let data = gumbel_data::glyphs(0, [50_000, 10_000, 10_000])?;
//! let folder = std::path::Path::new("runs/example");
//! let outcome = train(&config, &data, folder, Start::Fresh, &mut Quiet)?;
//! println!("test bound: {:.2} nats", outcome.summary.expect("it was not stopped").final_test.bound);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Your own decoder: implement [`model::Decoder`] for a Burn module and give it to [`engine::Autodiff`], whose
//! [`step`](engine::Autodiff::step) is one training step.

#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod adam;
pub mod config;
pub mod engine;
mod error;
pub mod evaluate;
pub mod executor;
pub mod fused;
mod host;
pub mod inspect;
pub mod model;
pub mod picture;
pub mod store;
mod table;
pub mod train;

pub use error::{Error, Result};
