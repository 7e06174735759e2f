//! Structures behind a table of functions: for [`AnyStructure`](super::AnyStructure).
//!
//! The trait [`Structure`](super::Structure) is not imported here: its methods have the names of those of [`Plain`].

use super::any::AnyScratch;
use super::{Code, MaxMarginals, Maximum, Move, Sums};
use crate::Error;
use rand_chacha::rand_core::Rng;
use std::fmt;
use std::ops::Range;

/// [`Structure`] and [`Sums`] without the types of their working memory and generators.
pub trait Erased: Send + Sync + fmt::Debug {
    fn structure(&self) -> &dyn Plain;
    fn tractable(&self) -> Result<(), Error>;
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error>;
    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error>;
    fn entropy(&self, potentials: &[f32]) -> Result<f64, Error>;
    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error>;
    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error>;
    fn samples(&self, potentials: &[f32], generator: &mut dyn Rng, assignments: &mut [u32]) -> Result<(), Error>;
    fn sample(&self, potentials: &[f32], generator: &mut dyn Rng, assignment: &mut [u32]) -> Result<(), Error>;
}

/// [`Structure`] without the type of its working memory.
pub trait Plain {
    fn potentials(&self) -> usize;
    fn unary(&self) -> usize;
    fn variables(&self) -> usize;
    fn ln_states(&self) -> f64;
    fn states(&self) -> Option<usize>;
    fn state(&self, index: usize, assignment: &mut [u32]);
    fn code(&self) -> Code;
    fn encode(&self, assignment: &[u32], code: &mut [f32]);
    fn block(&self, variable: usize) -> Option<Range<usize>>;
    fn pair(&self, i: usize, j: usize) -> Option<usize>;
    fn takes_any_sign(&self) -> bool;
    fn to_potentials(&self, raw: &mut [f32]);
    fn to_raw_gradient(&self, potentials: &[f32], gradient: &mut [f32]);
    fn scratch(&self) -> AnyScratch;
    fn argmax(&self, h: &[f32], z: &mut [u32], scratch: &mut AnyScratch) -> Result<Maximum, Error>;
    fn resolve(&self, h: &[f32], z: &mut [u32], scratch: &mut AnyScratch) -> Result<Maximum, Error>;
    fn has_moves(&self) -> bool;
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>);
    fn make(&self, change: Move, assignment: &mut [u32]) -> bool;
    fn max_marginals(&self, h: &[f32], z: &[u32], scratch: &mut AnyScratch, found: &mut MaxMarginals);
    fn condition(&self, known: &[u32], potentials: &mut [f32]) -> Result<f64, Error>;
    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]);
    fn add_weighted_statistics(&self, weights: &[f32], out: &mut [f32], z: &mut [u32], scratch: &mut AnyScratch);
    fn scores(&self, potentials: &[f32], scores: &mut [f32]);
    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64;
}

/// The memory of S. Whoever mixes the memories of two structures has made an error in his program.
fn memory<S: super::Structure>(scratch: &mut AnyScratch) -> &mut <S as super::Structure>::Scratch {
    let inner = scratch.0.as_mut().and_then(|s| s.downcast_mut());
    inner.expect("the working memory was made by the same structure")
}

impl<S: super::Structure> Plain for S {
    fn potentials(&self) -> usize {
        super::Structure::potentials(self)
    }
    fn unary(&self) -> usize {
        super::Structure::unary(self)
    }
    fn variables(&self) -> usize {
        super::Structure::variables(self)
    }
    fn ln_states(&self) -> f64 {
        super::Structure::ln_states(self)
    }
    fn states(&self) -> Option<usize> {
        super::Structure::states(self)
    }
    fn state(&self, index: usize, assignment: &mut [u32]) {
        super::Structure::state(self, index, assignment)
    }
    fn code(&self) -> Code {
        super::Structure::code(self)
    }
    fn encode(&self, assignment: &[u32], code: &mut [f32]) {
        super::Structure::encode(self, assignment, code)
    }
    fn block(&self, variable: usize) -> Option<Range<usize>> {
        super::Structure::block(self, variable)
    }
    fn pair(&self, i: usize, j: usize) -> Option<usize> {
        super::Structure::pair(self, i, j)
    }
    fn takes_any_sign(&self) -> bool {
        super::Structure::takes_any_sign(self)
    }
    fn to_potentials(&self, raw: &mut [f32]) {
        super::Structure::to_potentials(self, raw)
    }
    fn to_raw_gradient(&self, potentials: &[f32], gradient: &mut [f32]) {
        super::Structure::to_raw_gradient(self, potentials, gradient)
    }
    fn scratch(&self) -> AnyScratch {
        AnyScratch(Some(Box::new(super::Structure::scratch(self))))
    }
    fn argmax(&self, h: &[f32], z: &mut [u32], scratch: &mut AnyScratch) -> Result<Maximum, Error> {
        super::Structure::argmax(self, h, z, memory::<S>(scratch))
    }
    fn resolve(&self, h: &[f32], z: &mut [u32], scratch: &mut AnyScratch) -> Result<Maximum, Error> {
        super::Structure::resolve(self, h, z, memory::<S>(scratch))
    }
    fn has_moves(&self) -> bool {
        super::Structure::has_moves(self)
    }
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        super::Structure::moves(self, potentials, assignment, moves)
    }
    fn make(&self, change: Move, assignment: &mut [u32]) -> bool {
        super::Structure::make(self, change, assignment)
    }
    fn max_marginals(&self, h: &[f32], z: &[u32], scratch: &mut AnyScratch, found: &mut MaxMarginals) {
        super::Structure::max_marginals(self, h, z, memory::<S>(scratch), found)
    }
    fn condition(&self, known: &[u32], potentials: &mut [f32]) -> Result<f64, Error> {
        super::Structure::condition(self, known, potentials)
    }
    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        super::Structure::add_statistics(self, assignment, scale, out)
    }
    fn add_weighted_statistics(&self, weights: &[f32], out: &mut [f32], z: &mut [u32], scratch: &mut AnyScratch) {
        super::Structure::add_weighted_statistics(self, weights, out, z, memory::<S>(scratch))
    }
    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        super::Structure::scores(self, potentials, scores)
    }
    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        super::Structure::score(self, potentials, assignment)
    }
}

#[derive(Debug)]
pub struct Summed<S>(pub S);

impl<S: Sums + fmt::Debug + Send> Erased for Summed<S> {
    fn structure(&self) -> &dyn Plain {
        &self.0
    }
    fn tractable(&self) -> Result<(), Error> {
        self.0.tractable()
    }
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        self.0.tractable()?;
        self.0.marginals(potentials, marginals)
    }
    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        self.0.tractable()?;
        self.0.log_partition(potentials)
    }
    fn entropy(&self, potentials: &[f32]) -> Result<f64, Error> {
        self.0.tractable()?;
        self.0.entropy(potentials)
    }
    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        self.0.tractable()?;
        self.0.kl_to_uniform(potentials, scale, gradient)
    }
    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        self.0.tractable()?;
        self.0.covariance(potentials, direction, scale, out)
    }
    fn samples(&self, potentials: &[f32], mut generator: &mut dyn Rng, z: &mut [u32]) -> Result<(), Error> {
        self.0.tractable()?;
        self.0.samples(potentials, &mut generator, z)
    }
    fn sample(&self, potentials: &[f32], mut generator: &mut dyn Rng, z: &mut [u32]) -> Result<(), Error> {
        self.0.tractable()?;
        self.0.sample(potentials, &mut generator, z)
    }
}

#[derive(Debug)]
pub struct Solved<S> {
    pub structure: S,
    pub name: &'static str,
    pub reason: &'static str,
}

impl<S> Solved<S> {
    fn refuse<T>(&self) -> Result<T, Error> {
        Err(Error::NoSums { structure: self.name, reason: self.reason })
    }
}

impl<S: super::Structure + fmt::Debug + Send> Erased for Solved<S> {
    fn structure(&self) -> &dyn Plain {
        &self.structure
    }
    fn tractable(&self) -> Result<(), Error> {
        self.refuse()
    }
    fn marginals(&self, _: &[f32], _: &mut [f32]) -> Result<f64, Error> {
        self.refuse()
    }
    fn log_partition(&self, _: &[f32]) -> Result<f64, Error> {
        self.refuse()
    }
    fn entropy(&self, _: &[f32]) -> Result<f64, Error> {
        self.refuse()
    }
    fn kl_to_uniform(&self, _: &[f32], _: f32, _: &mut [f32]) -> Result<f64, Error> {
        self.refuse()
    }
    fn covariance(&self, _: &[f32], _: &[f32], _: f32, _: &mut [f32]) -> Result<(), Error> {
        self.refuse()
    }
    fn samples(&self, _: &[f32], _: &mut dyn Rng, _: &mut [u32]) -> Result<(), Error> {
        self.refuse()
    }
    fn sample(&self, _: &[f32], _: &mut dyn Rng, _: &mut [u32]) -> Result<(), Error> {
        self.refuse()
    }
}
