//! What a run is: configuration, training loop, evaluation, folder, metrics, checkpoints, pictures.
//!
//! # Example
//!
//! A run from its configuration to its summary, on the generated data set:
//!
//! ```no_run
//! use gumbel_run::{Config, Quiet, Registry, Start, train};
//!
//! let config = Config::new(&Registry::standard(), &[("epochs", "2"), ("latent", "binary:15")])?;
//! let data = config.load(&gumbel_data::Source::default(), &mut |_| {})?;
//! let folder = std::path::Path::new("runs/example");
//! let outcome = train(&config, &data, folder, Start::Fresh, &mut Quiet)?;
//! println!("test bound: {:.2} nats", outcome.summary.expect("it was not stopped").final_test.bound);
//! # Ok::<(), gumbel_run::Error>(())
//! ```
//!
//! # Bring your own
//!
//! Add an estimator, a structure, a data set, a model or a likelihood to a [`Registry`], and name it in a [`Config`]:
//! the loop, its checkpoints, metrics and pictures are those of every run. `examples/dots.rs` does it with a decoder.
//!
//! # Rooms
//!
//! - [`Registry`], [`config`], [`model`]: what a run is made of;
//! - [`train()`] and its [`Observer`]s, [`evaluate`], [`metrics`]; [`Trainer`]: single steps; [`diagnose`]: what
//!   estimators are like;
//! - [`sweep`], [`collect`], [`report`]: many runs, their table, and a page to look at; [`reproduce`]: the tables and
//!   figures of the paper;
//! - [`folder`], [`store`], [`stored`]: files; [`picture`], [`plot`], [`show`], [`inspect`]: what they show.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod atomic;
pub mod collect;
pub mod config;
pub mod diagnose;
mod digest;
mod error;
pub mod evaluate;
pub mod folder;
pub mod images;
pub mod inspect;
mod keys;
mod kl;
pub mod labels;
pub mod metrics;
pub mod model;
pub mod picture;
pub mod plot;
mod presets;
mod registry;
pub mod report;
pub mod reproduce;
pub mod show;
pub mod store;
pub mod stored;
mod sums;
pub mod sweep;
pub mod train;
mod trainer;

pub use config::Config;
pub use error::{Error, Result};
pub use folder::Start;
pub use kl::KlSchedule;
pub use registry::Registry;
pub use train::{Observer, Outcome, Quiet, train};
pub use trainer::Trainer;

/// The program of the page is compiled and run as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/howto/own-structure.md")]
struct OwnStructure;
