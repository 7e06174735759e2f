//! A structure chosen at run time.

use super::erased::{Erased, Solved, Summed};
use super::{Categorical, Code, MaxMarginals, Maximum, Move, Structure, Sums};
use crate::Error;
use rand_chacha::rand_core::Rng;
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Any structure, of this crate or of one's own. It does what that does; its [`Sums`] are errors where those are not
/// tractable, see [`has_sums`](AnyStructure::has_sums).
///
/// Independent categorical variables, whose operations take nanoseconds, are called directly; all others through a
/// table of functions.
///
/// ```
/// use gumbel::structure::{AnyStructure, Pairwise, Permutation, Structure, Sums};
/// let pairs = AnyStructure::with_sums(Pairwise::new(3)?);
/// assert!(pairs.has_sums() && pairs.potentials() == 9);
/// let order: AnyStructure = Permutation::new(4)?.into();
/// assert!(!order.has_sums() && order.log_partition(&[0.0; 16]).is_err());
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Clone)]
pub struct AnyStructure(Repr);

#[derive(Clone)]
enum Repr {
    Categorical(Categorical),
    Other(Arc<dyn Erased>),
}

/// Working memory of [`AnyStructure`].
pub struct AnyScratch(pub(super) Option<Box<dyn Any + Send + Sync>>);

impl fmt::Debug for AnyStructure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Categorical(s) => s.fmt(f),
            Repr::Other(s) => s.fmt(f),
        }
    }
}

impl fmt::Debug for AnyScratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyScratch").finish_non_exhaustive()
    }
}

impl AnyStructure {
    /// A structure whose sums are tractable where [`Sums::tractable`] says so.
    pub fn with_sums<S: Sums + fmt::Debug + Send + 'static>(structure: S) -> Self {
        match (&structure as &dyn Any).downcast_ref::<Categorical>() {
            Some(categorical) => AnyStructure(Repr::Categorical(*categorical)),
            None => AnyStructure(Repr::Other(Arc::new(Summed(structure)))),
        }
    }

    /// A structure without sums: its name in words and the reason stand in the errors.
    pub fn without_sums<S>(structure: S, name: &'static str, reason: &'static str) -> Self
    where
        S: Structure + fmt::Debug + Send + 'static,
    {
        AnyStructure(Repr::Other(Arc::new(Solved { structure, name, reason })))
    }

    /// Whether [`Sums`] are tractable.
    pub fn has_sums(&self) -> bool {
        self.tractable().is_ok()
    }
}

macro_rules! conversions {
    ($($name:ident),+) => {$(
        impl From<super::$name> for AnyStructure {
            fn from(structure: super::$name) -> Self {
                AnyStructure::with_sums(structure)
            }
        }
    )+};
}

// For convenience; a new structure does not need one.
conversions!(Categorical, Pairwise, Supermodular, Chain, Tree, Subset, SpanningTree, Arborescence);

impl From<super::Permutation> for AnyStructure {
    fn from(structure: super::Permutation) -> Self {
        AnyStructure::without_sums(structure, "permutations", "their partition function is a permanent")
    }
}

/// The same call for both representations.
macro_rules! plain {
    ($self:expr, $s:ident => $value:expr) => {
        match &$self.0 {
            Repr::Categorical($s) => $value,
            Repr::Other(other) => {
                let $s = other.structure();
                $value
            }
        }
    };
}

/// The same call with working memory, which independent variables do not have.
macro_rules! solving {
    ($self:expr, $scratch:expr, $s:ident, $m:ident => $value:expr) => {
        match &$self.0 {
            Repr::Categorical($s) => {
                let $m = &mut ();
                $value
            }
            Repr::Other(other) => {
                let ($s, $m) = (other.structure(), $scratch);
                $value
            }
        }
    };
}

impl Structure for AnyStructure {
    type Scratch = AnyScratch;

    fn potentials(&self) -> usize {
        plain!(self, s => s.potentials())
    }

    fn unary(&self) -> usize {
        plain!(self, s => s.unary())
    }

    fn variables(&self) -> usize {
        plain!(self, s => s.variables())
    }

    fn ln_states(&self) -> f64 {
        plain!(self, s => s.ln_states())
    }

    fn states(&self) -> Option<usize> {
        plain!(self, s => s.states())
    }

    fn state(&self, index: usize, assignment: &mut [u32]) {
        plain!(self, s => s.state(index, assignment))
    }

    fn code(&self) -> Code {
        plain!(self, s => s.code())
    }

    fn encode(&self, assignment: &[u32], code: &mut [f32]) {
        plain!(self, s => s.encode(assignment, code))
    }

    fn block(&self, variable: usize) -> Option<Range<usize>> {
        plain!(self, s => s.block(variable))
    }

    fn pair(&self, i: usize, j: usize) -> Option<usize> {
        plain!(self, s => s.pair(i, j))
    }

    fn takes_any_sign(&self) -> bool {
        plain!(self, s => s.takes_any_sign())
    }

    fn to_potentials(&self, raw: &mut [f32]) {
        plain!(self, s => s.to_potentials(raw))
    }

    fn to_raw_gradient(&self, potentials: &[f32], gradient: &mut [f32]) {
        plain!(self, s => s.to_raw_gradient(potentials, gradient))
    }

    fn scratch(&self) -> AnyScratch {
        match &self.0 {
            Repr::Categorical(_) => AnyScratch(None),
            Repr::Other(s) => s.structure().scratch(),
        }
    }

    #[inline(always)]
    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], scratch: &mut AnyScratch) -> Result<Maximum, Error> {
        solving!(self, scratch, s, m => s.argmax(potentials, assignment, m))
    }

    #[inline(always)]
    fn resolve(&self, potentials: &[f32], assignment: &mut [u32], scratch: &mut AnyScratch) -> Result<Maximum, Error> {
        solving!(self, scratch, s, m => s.resolve(potentials, assignment, m))
    }

    fn has_moves(&self) -> bool {
        plain!(self, s => s.has_moves())
    }

    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        plain!(self, s => s.moves(potentials, assignment, moves))
    }

    fn make(&self, change: Move, assignment: &mut [u32]) -> bool {
        plain!(self, s => s.make(change, assignment))
    }

    fn max_marginals(
        &self,
        potentials: &[f32],
        assignment: &[u32],
        scratch: &mut AnyScratch,
        found: &mut MaxMarginals,
    ) {
        solving!(self, scratch, s, m => s.max_marginals(potentials, assignment, m, found))
    }

    fn condition(&self, known: &[u32], potentials: &mut [f32]) -> Result<f64, Error> {
        plain!(self, s => s.condition(known, potentials))
    }

    #[inline(always)]
    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        plain!(self, s => s.add_statistics(assignment, scale, out))
    }

    fn add_weighted_statistics(
        &self,
        weights: &[f32],
        out: &mut [f32],
        assignment: &mut [u32],
        scratch: &mut AnyScratch,
    ) {
        solving!(self, scratch, s, m => s.add_weighted_statistics(weights, out, assignment, m))
    }

    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        plain!(self, s => s.scores(potentials, scores))
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        plain!(self, s => s.score(potentials, assignment))
    }
}

/// The same call for both representations.
macro_rules! summed {
    ($self:expr, $s:ident => $value:expr) => {
        match &$self.0 {
            Repr::Categorical($s) => $value,
            Repr::Other($s) => $value,
        }
    };
}

/// Errors with [`Error::NoSums`] where [`has_sums`](AnyStructure::has_sums) is false.
impl Sums for AnyStructure {
    fn tractable(&self) -> Result<(), Error> {
        summed!(self, s => s.tractable())
    }

    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        summed!(self, s => s.marginals(potentials, marginals))
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        summed!(self, s => s.log_partition(potentials))
    }

    fn entropy(&self, potentials: &[f32]) -> Result<f64, Error> {
        summed!(self, s => s.entropy(potentials))
    }

    #[inline(always)]
    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        summed!(self, s => s.kl_to_uniform(potentials, scale, gradient))
    }

    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        summed!(self, s => s.covariance(potentials, direction, scale, out))
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        summed!(self, s => s.sample(potentials, generator, assignment))
    }

    fn samples<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignments: &mut [u32]) -> Result<(), Error> {
        summed!(self, s => s.samples(potentials, generator, assignments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::brute_force::{self, Random, Values};
    use crate::structure::{Arborescence, Chain, Pairwise, Permutation, SpanningTree, Subset, Supermodular, Tree};

    fn all() -> Vec<AnyStructure> {
        vec![
            Categorical::product(2, 3).unwrap().into(),
            Pairwise::new(5).unwrap().into(),
            Supermodular::new(5).unwrap().into(),
            Chain::new(3, 3).unwrap().into(),
            Tree::new(4, 2, &[(2, 0), (2, 3), (1, 3)]).unwrap().into(),
            Subset::new(6, 2).unwrap().into(),
            Permutation::new(4).unwrap().into(),
            SpanningTree::complete(4).unwrap().into(),
            Arborescence::new(4, 1).unwrap().into(),
        ]
    }

    /// Every operation that has a fast path of its own, against enumeration.
    #[test]
    fn every_variant_agrees_with_brute_force() {
        for (which, structure) in all().iter().enumerate() {
            let (p, u, n, states) =
                (structure.potentials(), structure.unary(), structure.variables(), structure.states().unwrap());
            for case in 0..200 {
                let random = &mut Random::new(90 + which as u32, case);
                let mut h = Values::Normal.vector(p, random);
                structure.to_potentials(&mut h);
                let what = (structure, case);
                let mut scratch = structure.scratch();
                let z = brute_force::check_argmax(structure, &h, &mut scratch, &what);
                let mut again = (h.clone(), z.clone());
                Values::Normal.vector(u, random).iter().zip(&mut again.0).for_each(|(d, h)| *h += d);
                let found = structure.resolve(&again.0, &mut again.1, &mut scratch).unwrap();
                let best = brute_force::enumerate(structure, &again.0).max;
                brute_force::check_maximum(structure, &again.0, &again.1, found, best, &what);

                let mut statistics = vec![0.0; p];
                structure.add_statistics(&z, 1.0, &mut statistics);
                let mut code = vec![f32::NAN; u];
                structure.encode(&z, &mut code);
                assert_eq!(code, statistics[..u], "{what:?}");

                let mut scores = vec![f32::NAN; states];
                structure.scores(&h, &mut scores);
                let weights = Values::Normal.vector(states, random);
                let (mut found, mut expected, mut z) = (vec![0.5; p], vec![0.5f64; p], vec![0; n]);
                structure.add_weighted_statistics(&weights, &mut found, &mut vec![0; n], &mut scratch);
                for (s, (score, w)) in scores.iter().zip(&weights).enumerate() {
                    structure.state(s, &mut z);
                    assert!((structure.score(&h, &z) - *score as f64).abs() < 1e-5, "{what:?}");
                    let mut statistics = vec![0.0; p];
                    structure.add_statistics(&z, 1.0, &mut statistics);
                    expected.iter_mut().zip(&statistics).for_each(|(e, s)| *e += (w * s) as f64);
                }
                for (f, e) in found.iter().zip(&expected) {
                    assert!((*f as f64 - e).abs() < 1e-4, "{what:?}: {f} {e}");
                }
                if structure.has_sums() {
                    brute_force::check_sums(structure, &h, &what);
                    brute_force::check_kl(structure, &h, &what);
                    brute_force::check_covariance(structure, &h, &what);
                }
            }
            if structure.has_sums() {
                let mut h = Values::Normal.vector(p, &mut Random::new(99, which as u64));
                structure.to_potentials(&mut h);
                brute_force::check_samples(structure, &h, 20_000, 100 + which as u32);
            }
        }
    }

    /// Whatever the magnitudes, and a direction that is no number is an error.
    #[test]
    fn covariances_are_numbers() {
        for (which, structure) in all().iter().enumerate().filter(|(_, s)| s.has_sums()) {
            let p = structure.potentials();
            for case in 0..2000 {
                let random = &mut Random::new(120 + which as u32, case);
                let mut h = Values::Extreme.vector(p, random);
                structure.to_potentials(&mut h);
                let (direction, mut out) = (Values::Normal.vector(p, random), vec![0.0; p]);
                structure.covariance(&h, &direction, 1.0, &mut out).unwrap();
                // No statistic has a larger variance than 1/4; of logarithms of 1e14 and more no digits are left.
                let most: f32 = match h.iter().all(|h| h.abs() < 1e12) {
                    true => direction.iter().map(|d| 0.251 * d.abs()).sum(),
                    false => f32::MAX,
                };
                assert!(out.iter().all(|c| c.abs() <= most), "{structure:?}, {h:?}: {out:?}");
            }
            let mut direction = vec![0.0; p];
            direction[p - 1] = f32::NAN;
            let h = vec![0.0; p];
            let error = structure.covariance(&h, &direction, 1.0, &mut h.clone()).unwrap_err();
            assert_eq!(error, Error::NotANumber { what: "direction", index: p - 1 });
            assert!(structure.covariance(&vec![f32::NAN; p], &h, 1.0, &mut h.clone()).is_err());
        }
    }

    /// `to_raw_gradient` is the chain rule of `to_potentials`.
    #[test]
    fn raw_numbers_become_potentials_and_gradients_come_back() {
        for structure in all() {
            let p = structure.potentials();
            let raw: Vec<f32> = (0..p).map(|i| (i * 5 % 13) as f32 * 0.7 - 4.0).collect();
            let at = |raw: &[f32]| {
                let mut h = raw.to_vec();
                structure.to_potentials(&mut h);
                h
            };
            let potentials = at(&raw);
            structure.argmax(&potentials, &mut vec![0; structure.variables()], &mut structure.scratch()).unwrap();
            let mut gradient = vec![2.0; p];
            structure.to_raw_gradient(&potentials, &mut gradient);
            for i in 0..p {
                let moved = |d: f32| {
                    let mut x = raw.clone();
                    x[i] += d;
                    at(&x).iter().map(|h| *h as f64).sum::<f64>()
                };
                let numeric = 2.0 * (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((numeric - gradient[i] as f64).abs() < 1e-3, "{structure:?} {i}: {numeric} {}", gradient[i]);
            }
        }
    }

    #[test]
    fn what_is_not_tractable_says_so() {
        let large: AnyStructure = Pairwise::new(21).unwrap().into();
        assert!(!large.has_sums());
        let message = large.log_partition(&vec![0.0; large.potentials()]).unwrap_err().to_string();
        assert_eq!(message, "sums over a pairwise model are not tractable: they take 2^n terms, and n is more than 20");
        let order: AnyStructure = Permutation::new(3).unwrap().into();
        let message = order.kl_to_uniform(&[0.0; 9], 0.0, &mut []).unwrap_err().to_string();
        assert_eq!(message, "sums over permutations are not tractable: their partition function is a permanent");
    }
}
