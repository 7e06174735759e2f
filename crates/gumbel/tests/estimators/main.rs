//! Estimators against the exact gradient and their definitions: statistical tests at fixed seeds.
//!
//! A mean over N draws is compared with its expectation in every coordinate within four standard errors; the
//! standard error comes from the draws themselves. With fixed seeds the tests are deterministic.

mod common;

mod antithetic;
mod baseline;
mod closed_forms;
mod control;
mod coupled;
mod errors;
mod flips;
mod held;
mod kl;
mod learned;
mod own_structure;
mod perturbations;
mod registry;
mod reinforce;
mod relaxed;
mod score_function;
mod search;
mod straight;
mod structured;
mod sums;
mod swaps;
mod vimco;
