//! A structure chosen at run time.

use super::{
    Arborescence, ArborescenceScratch, Categorical, Chain, Code, Maximum, Pairwise, PairwiseScratch, Permutation,
    PermutationScratch, SpanningTree, SpanningTreeScratch, Structure, Subset, Sums, Supermodular, SupermodularScratch,
    Tree,
};
use crate::Error;
use rand_chacha::rand_core::Rng;
use std::ops::Range;

/// Any structure of this crate. It does what its variant does; its [`Sums`] are errors where those are not tractable,
/// see [`has_sums`](AnyStructure::has_sums).
///
/// ```
/// use gumbel::structure::{AnyStructure, Pairwise, Permutation, Structure, Sums};
/// let pairs: AnyStructure = Pairwise::new(3)?.into();
/// assert!(pairs.has_sums() && pairs.potentials() == 9);
/// let order: AnyStructure = Permutation::new(4)?.into();
/// assert!(!order.has_sums() && order.log_partition(&[0.0; 16]).is_err());
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AnyStructure {
    /// Independent K-way variables.
    Categorical(Categorical),
    /// Binary variables with couplings of any sign.
    Pairwise(Pairwise),
    /// Binary variables with couplings of at least 0.
    Supermodular(Supermodular),
    /// K-way variables in a row.
    Chain(Chain),
    /// K-way variables on a tree.
    Tree(Tree),
    /// k of n elements.
    Subset(Subset),
    /// Permutations.
    Permutation(Permutation),
    /// Spanning trees of a graph.
    SpanningTree(SpanningTree),
    /// Directed spanning trees with a root.
    Arborescence(Arborescence),
}

/// Working memory of [`AnyStructure`].
#[derive(Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "named after the structures")]
pub enum AnyScratch {
    Categorical(()),
    Pairwise(Box<PairwiseScratch>),
    Supermodular(Box<SupermodularScratch>),
    Chain(<Chain as Structure>::Scratch),
    Tree(<Tree as Structure>::Scratch),
    Subset(<Subset as Structure>::Scratch),
    Permutation(Box<PermutationScratch>),
    SpanningTree(Box<SpanningTreeScratch>),
    Arborescence(Box<ArborescenceScratch>),
}

macro_rules! conversions {
    ($($name:ident),+) => {$(
        impl From<$name> for AnyStructure {
            fn from(structure: $name) -> Self {
                AnyStructure::$name(structure)
            }
        }
    )+};
}

conversions!(Categorical, Pairwise, Supermodular, Chain, Tree, Subset, Permutation, SpanningTree, Arborescence);

/// The same expression for every variant.
macro_rules! each {
    ($self:expr, $s:ident => $value:expr) => {
        match $self {
            AnyStructure::Categorical($s) => $value,
            AnyStructure::Pairwise($s) => $value,
            AnyStructure::Supermodular($s) => $value,
            AnyStructure::Chain($s) => $value,
            AnyStructure::Tree($s) => $value,
            AnyStructure::Subset($s) => $value,
            AnyStructure::Permutation($s) => $value,
            AnyStructure::SpanningTree($s) => $value,
            AnyStructure::Arborescence($s) => $value,
        }
    };
}

/// The same expression for every variant with its own working memory.
macro_rules! with_scratch {
    ($self:expr, $scratch:expr, $s:ident, $m:ident => $value:expr) => {
        match ($self, $scratch) {
            (AnyStructure::Categorical($s), AnyScratch::Categorical($m)) => $value,
            (AnyStructure::Pairwise($s), AnyScratch::Pairwise($m)) => $value,
            (AnyStructure::Supermodular($s), AnyScratch::Supermodular($m)) => $value,
            (AnyStructure::Chain($s), AnyScratch::Chain($m)) => $value,
            (AnyStructure::Tree($s), AnyScratch::Tree($m)) => $value,
            (AnyStructure::Subset($s), AnyScratch::Subset($m)) => $value,
            (AnyStructure::Permutation($s), AnyScratch::Permutation($m)) => $value,
            (AnyStructure::SpanningTree($s), AnyScratch::SpanningTree($m)) => $value,
            (AnyStructure::Arborescence($s), AnyScratch::Arborescence($m)) => $value,
            (structure, scratch) => panic!("{scratch:?} is not a scratch of {structure:?}"),
        }
    };
}

/// The same expression for every variant whose sums are tractable.
macro_rules! with_sums {
    ($self:expr, $s:ident => $value:expr) => {
        match $self {
            AnyStructure::Categorical($s) => $value,
            AnyStructure::Pairwise($s) if $s.variables() <= Pairwise::MAX_SUMS => $value,
            AnyStructure::Supermodular($s) if $s.variables() <= Pairwise::MAX_SUMS => $value,
            AnyStructure::Chain($s) => $value,
            AnyStructure::Tree($s) => $value,
            AnyStructure::Subset($s) => $value,
            AnyStructure::SpanningTree($s) => $value,
            AnyStructure::Arborescence($s) => $value,
            AnyStructure::Pairwise(_) | AnyStructure::Supermodular(_) => Err(Error::NoSums {
                structure: "a pairwise model",
                reason: "they take 2^n terms, and n is more than 20",
            }),
            AnyStructure::Permutation(_) => {
                Err(Error::NoSums { structure: "permutations", reason: "their partition function is a permanent" })
            }
        }
    };
}

impl AnyStructure {
    /// Whether [`Sums`] are tractable: for pairwise and super-modular models up to 20 variables, for permutations never,
    /// for all others always.
    pub fn has_sums(&self) -> bool {
        match self {
            AnyStructure::Pairwise(_) | AnyStructure::Supermodular(_) => self.variables() <= Pairwise::MAX_SUMS,
            AnyStructure::Permutation(_) => false,
            _ => true,
        }
    }
}

impl Structure for AnyStructure {
    type Scratch = AnyScratch;

    fn potentials(&self) -> usize {
        each!(self, s => s.potentials())
    }

    fn unary(&self) -> usize {
        each!(self, s => s.unary())
    }

    fn variables(&self) -> usize {
        each!(self, s => s.variables())
    }

    fn ln_states(&self) -> f64 {
        each!(self, s => s.ln_states())
    }

    fn states(&self) -> Option<usize> {
        each!(self, s => s.states())
    }

    fn state(&self, index: usize, assignment: &mut [u32]) {
        each!(self, s => s.state(index, assignment))
    }

    fn code(&self) -> Code {
        each!(self, s => s.code())
    }

    fn encode(&self, assignment: &[u32], code: &mut [f32]) {
        each!(self, s => s.encode(assignment, code))
    }

    fn block(&self, variable: usize) -> Option<Range<usize>> {
        each!(self, s => s.block(variable))
    }

    fn to_potentials(&self, raw: &mut [f32]) {
        each!(self, s => s.to_potentials(raw))
    }

    fn to_raw_gradient(&self, potentials: &[f32], gradient: &mut [f32]) {
        each!(self, s => s.to_raw_gradient(potentials, gradient))
    }

    fn scratch(&self) -> AnyScratch {
        match self {
            AnyStructure::Categorical(_) => AnyScratch::Categorical(()),
            AnyStructure::Pairwise(s) => AnyScratch::Pairwise(Box::new(s.scratch())),
            AnyStructure::Supermodular(s) => AnyScratch::Supermodular(Box::new(s.scratch())),
            AnyStructure::Chain(s) => AnyScratch::Chain(s.scratch()),
            AnyStructure::Tree(s) => AnyScratch::Tree(s.scratch()),
            AnyStructure::Subset(s) => AnyScratch::Subset(s.scratch()),
            AnyStructure::Permutation(s) => AnyScratch::Permutation(Box::new(s.scratch())),
            AnyStructure::SpanningTree(s) => AnyScratch::SpanningTree(Box::new(s.scratch())),
            AnyStructure::Arborescence(s) => AnyScratch::Arborescence(Box::new(s.scratch())),
        }
    }

    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], scratch: &mut AnyScratch) -> Result<Maximum, Error> {
        with_scratch!(self, scratch, s, m => s.argmax(potentials, assignment, m))
    }

    fn resolve(&self, potentials: &[f32], assignment: &mut [u32], scratch: &mut AnyScratch) -> Result<Maximum, Error> {
        with_scratch!(self, scratch, s, m => s.resolve(potentials, assignment, m))
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        each!(self, s => s.add_statistics(assignment, scale, out))
    }

    fn add_weighted_statistics(
        &self,
        weights: &[f32],
        out: &mut [f32],
        assignment: &mut [u32],
        scratch: &mut AnyScratch,
    ) {
        with_scratch!(self, scratch, s, m => s.add_weighted_statistics(weights, out, assignment, m))
    }

    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        each!(self, s => s.scores(potentials, scores))
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        each!(self, s => s.score(potentials, assignment))
    }
}

/// Errors with [`Error::NoSums`] where [`has_sums`](AnyStructure::has_sums) is false.
impl Sums for AnyStructure {
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        with_sums!(self, s => s.marginals(potentials, marginals))
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        with_sums!(self, s => s.log_partition(potentials))
    }

    fn entropy(&self, potentials: &[f32]) -> Result<f64, Error> {
        with_sums!(self, s => s.entropy(potentials))
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        with_sums!(self, s => s.kl_to_uniform(potentials, scale, gradient))
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        with_sums!(self, s => s.sample(potentials, generator, assignment))
    }

    fn samples<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignments: &mut [u32]) -> Result<(), Error> {
        with_sums!(self, s => s.samples(potentials, generator, assignments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::oracle::{self, Random, Values};

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
                let z = oracle::check_argmax(structure, &h, &mut scratch, &what);
                let mut again = (h.clone(), z.clone());
                Values::Normal.vector(u, random).iter().zip(&mut again.0).for_each(|(d, h)| *h += d);
                let found = structure.resolve(&again.0, &mut again.1, &mut scratch).unwrap();
                let best = oracle::enumerate(structure, &again.0).max;
                oracle::check_maximum(structure, &again.0, &again.1, found, best, &what);

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
                    oracle::check_sums(structure, &h, &what);
                    oracle::check_kl(structure, &h, &what);
                }
            }
            if structure.has_sums() {
                let mut h = Values::Normal.vector(p, &mut Random::new(99, which as u64));
                structure.to_potentials(&mut h);
                oracle::check_samples(structure, &h, 20_000, 100 + which as u32);
            }
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
