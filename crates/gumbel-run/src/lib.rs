//! What a run is: configuration, training loop, evaluation, folder, metrics, checkpoints, pictures.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod atomic;
mod digest;
mod error;
pub mod folder;
pub mod picture;
pub mod store;

pub use error::{Error, Result};
