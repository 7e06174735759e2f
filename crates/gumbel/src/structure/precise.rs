//! Potentials in f64, for problems whose numbers are given and not learned.
//!
//! Training needs no more than f32, and a [`Structure`] takes no more. A problem that someone states may: 100000001 and
//! 100000000 are one f32. The solvers compute in f64 anyway, so that they take potentials of either kind; the paths for
//! f32 are the same code.
//!
//! What f64 cannot hold is not passed over in silence. Sums of f64 are exact for integers up to 2^53; of other numbers
//! they are rounded by about 1e-16 of the largest sum, which is as much as the numbers themselves are. An answer counts
//! as proved if this cannot hide a number of the problem: if even the smallest one that is not zero (and 1, if all are
//! integers), and the differences of those that are nearly equal, exceed the resolution of the sums. Otherwise
//! [`Maximum::bound`] lies above the value by all that rounding may have cost.

use super::{Maximum, Structure, Sums};
use crate::Error;
use crate::vectorised;

/// Structures whose arg max takes potentials in f64.
pub trait Precise: Structure {
    /// [`argmax`](Structure::argmax) of potentials in f64, of at most [`f32::MAX`] in size.
    ///
    /// ```
    /// use gumbel::structure::{Categorical, Precise};
    /// let (z, mut best) = (Categorical::new(2)?, [0]);
    /// z.argmax_precise(&[100_000_000.0, 100_000_001.0], &mut best, &mut ())?; // one and the same f32
    /// assert_eq!(best, [1]);
    /// # Ok::<(), gumbel::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// NaN, `+inf`, everything forbidden.
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        scratch: &mut Self::Scratch,
    ) -> Result<Maximum, Error>;
}

/// Structures whose sums take potentials in f64.
pub trait PreciseSums: Precise + Sums {
    /// [`marginals`](Sums::marginals) of potentials in f64, of at most [`f32::MAX`] in size: only the probabilities are
    /// rounded to f32.
    ///
    /// # Errors
    ///
    /// NaN, `+inf`, everything forbidden; a space that is too large.
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error>;
}

/// f32 or f64.
pub(crate) trait Real: Copy + Default + PartialOrd + Into<f64> + From<u16> {
    const INFINITY: Self;
    const NEG_INFINITY: Self;

    /// As f64: exact.
    #[inline(always)]
    fn wide(self) -> f64 {
        self.into()
    }

    /// The product with 0 or 1, in f64.
    fn masked(self, mask: f32) -> f64;

    /// Whether all are finite and at least 0; may be false for -0.
    fn are_weights(x: &[Self]) -> bool;
}

impl Real for f32 {
    const INFINITY: f32 = f32::INFINITY;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn masked(self, mask: f32) -> f64 {
        (self * mask) as f64
    }

    #[inline]
    fn are_weights(x: &[f32]) -> bool {
        // The sign bit of x or of x + 1 in the exponent field is set for everything but finite numbers >= +0.
        x.iter().fold(0, |signs, w| signs | w.to_bits() | w.to_bits().wrapping_add(0x0080_0000)) >> 31 == 0
    }
}

impl Real for f64 {
    const INFINITY: f64 = f64::INFINITY;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;

    #[inline(always)]
    fn masked(self, mask: f32) -> f64 {
        self * mask as f64
    }

    #[inline]
    fn are_weights(x: &[f64]) -> bool {
        x.iter().fold(true, |good, w| good & (*w >= 0.0) & (*w < f64::INFINITY))
    }
}

/// Sums of at most `terms` of the potentials, with additions and subtractions only: adds to the bound of an answer what
/// rounding may have cost, where that could hide a number.
pub(super) fn with_rounding_of_sums(found: Maximum, potentials: &[f64], terms: usize) -> Maximum {
    const ROUNDING: f64 = 0.5 * f64::EPSILON;
    let size = Size::of(potentials);
    // The solvers add what an assignment uses along one way to the answer and along one to its rival; on both, a sum of
    // t terms is rounded t times.
    let largest_sum = terms as f64 * size.largest;
    let (resolution, cost) = (4.0 * ROUNDING * largest_sum, 4.0 * ROUNDING * terms as f64 * largest_sum);
    widened(found, potentials, size, resolution, cost)
}

/// The same for a solver that looks for nothing better within `slack`.
pub(super) fn with_slack(found: Maximum, potentials: &[f64], slack: f64) -> Maximum {
    widened(found, potentials, Size::of(potentials), slack, slack)
}

fn widened(found: Maximum, potentials: &[f64], size: Size, resolution: f64, cost: f64) -> Maximum {
    let hidden = size.smallest <= resolution
        || (size.integers && resolution >= 1.0)
        || nearly_equal(potentials, size.largest, resolution);
    Maximum { bound: if hidden { found.bound + cost } else { found.bound }, ..found }
}

/// Whether two of the numbers differ, but by no more than `resolution`: what follows one offset, such as 1e15 + 1/8 and
/// 1e15 + 1/4. All pairs of few numbers and of large ones, neighbours of many small ones: they cost little.
fn nearly_equal(x: &[f64], largest: f64, resolution: f64) -> bool {
    const FEW: usize = 16;
    const LARGE: f64 = 1e5;
    let lags = if x.len() <= FEW { x.len() } else { 3 };
    if vectorised!(close_neighbours(x, lags, resolution)) {
        return true;
    }
    let exact = || resolution < 1.0 && x.iter().all(|h| h.fract() == 0.0 || h.is_infinite());
    if x.len() <= FEW || largest < LARGE || exact() {
        return false;
    }
    let mut sorted = x.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.windows(2).any(|pair| close(pair[0], pair[1], resolution))
}

/// Whether two numbers at most `lags - 1` apart are close.
#[inline(always)]
fn close_neighbours(x: &[f64], lags: usize, resolution: f64) -> bool {
    let at = |lag: usize| x.iter().zip(&x[lag..]).fold(false, |found, (a, b)| found | close(*a, *b, resolution));
    (1..lags).fold(false, |found, lag| found | at(lag))
}

#[inline(always)]
fn close(a: f64, b: f64, resolution: f64) -> bool {
    let difference = (a - b).abs();
    (difference > 0.0) & (difference <= resolution)
}

/// The sum of what is chosen, given as added up one by one: again and with care if much of it cancels.
pub(super) fn careful(plain: f64, potentials: &[f64], chosen: impl Iterator<Item = f64>) -> f64 {
    let (largest, _) = vectorised!(extremes(potentials));
    if plain.abs() >= largest || plain.is_infinite() { plain } else { sum(chosen) }
}

/// The sum, rounded about once however much of it cancels.
fn sum(x: impl Iterator<Item = f64>) -> f64 {
    // Neumaier's: what an addition loses is added up beside.
    let (mut sum, mut lost) = (0.0f64, 0.0);
    for x in x {
        let next = sum + x;
        lost += if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
        sum = next;
    }
    if sum.is_finite() { sum + lost } else { sum }
}

/// Magnitudes of finite numbers that are not zero.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Size {
    largest: f64,
    /// Infinite if there is none.
    smallest: f64,
    integers: bool,
}

impl Size {
    fn of(potentials: &[f64]) -> Size {
        let (largest, smallest) = vectorised!(extremes(potentials));
        // Looked for only where it can matter.
        let large = largest > 1e9 && smallest >= 1.0;
        let integers = large && potentials.iter().all(|h| h.fract() == 0.0 || h.is_infinite());
        Size { largest, smallest, integers }
    }
}

/// The largest finite magnitude, 0 if there is none, and the smallest one that is not zero.
#[inline(always)]
fn extremes(x: &[f64]) -> (f64, f64) {
    const LANES: usize = 16;
    let (mut largest, mut smallest) = ([0.0f64; LANES], [f64::INFINITY; LANES]);
    let (chunks, rest) = x.as_chunks::<LANES>();
    let larger = |a: f64, size: f64| if size > a { size } else { a };
    let smaller = |a: f64, size: f64| if size < a { size } else { a };
    let finite = |size: f64| if size < f64::INFINITY { size } else { 0.0 };
    let not_zero = |size: f64| if size > 0.0 { size } else { f64::INFINITY };
    for chunk in chunks {
        for l in 0..LANES {
            let size = chunk[l].abs();
            largest[l] = larger(largest[l], finite(size));
            smallest[l] = smaller(smallest[l], not_zero(size));
        }
    }
    for h in rest {
        largest[0] = larger(largest[0], finite(h.abs()));
        smallest[0] = smaller(smallest[0], not_zero(h.abs()));
    }
    (largest.into_iter().fold(0.0, larger), smallest.into_iter().fold(f64::INFINITY, smaller))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::brute_force::{self, Random};
    use crate::structure::{
        Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Subset, Supermodular, Tree,
    };

    /// The largest score in integers.
    fn brute<S: Structure>(structure: &S, potentials: &[i128]) -> i128 {
        let (mut z, mut statistics) = (vec![0; structure.variables()], vec![0.0; structure.potentials()]);
        let scores = (0..structure.states().unwrap()).map(|s| {
            structure.state(s, &mut z);
            score(structure, potentials, &z, &mut statistics)
        });
        scores.max().unwrap()
    }

    fn score<S: Structure>(structure: &S, potentials: &[i128], z: &[u32], statistics: &mut [f32]) -> i128 {
        statistics.fill(0.0);
        structure.add_statistics(z, 1.0, statistics);
        statistics.iter().zip(potentials).map(|(s, h)| *s as i128 * h).sum()
    }

    /// Integers around `base`, `spread` apart at most: the answer is the optimum, or its bound says what is missing.
    /// Returns whether it is proved.
    fn check<S: Precise>(structure: &S, base: i128, spread: usize, random: &mut Random) -> bool {
        let p = structure.potentials();
        let h: Vec<i128> = (0..p).map(|_| base + random.below(spread) as i128).collect();
        // Numbers that f64 holds.
        let given: Vec<f64> = h.iter().map(|h| *h as f64).collect();
        let h: Vec<i128> = given.iter().map(|h| *h as i128).collect();
        let mut z = vec![0; structure.variables()];
        let found = structure.argmax_precise(&given, &mut z, &mut structure.scratch()).unwrap();
        let best = brute(structure, &h);
        let value = score(structure, &h, &z, &mut vec![0.0; p]);
        let missing = (best - value) as f64;
        assert!(missing <= found.bound - found.value, "{given:?}: {z:?} has {value}, not {best}: {found:?}");
        // The value itself is a rounded sum beyond 2^53.
        let rounding = if value.abs() < 1 << 53 { 0.0 } else { 1e-15 * value.abs() as f64 };
        assert!((found.value - value as f64).abs() <= rounding, "{given:?}: {found:?}, {value}");
        found.is_proved()
    }

    #[test]
    fn integers_beyond_f32_and_beyond_f64_agree_with_integers() {
        fn all<S: Precise>(test: u32, mut make: impl FnMut(&mut Random) -> S) {
            for case in 0..brute_force::cases() / 20 {
                let random = &mut Random::new(200 + test, case);
                let structure = make(random);
                let spread = [4, 300, 1 << 30][random.below(3)];
                for base in [100_000_000, 1 << 33] {
                    assert!(check(&structure, base, spread, random), "{base} {spread}");
                }
                for base in [1 << 43, 1 << 52, 1 << 60, 1 << 90] {
                    check(&structure, base, spread, random);
                }
            }
        }
        all(0, |r| Categorical::product(1 + r.below(3), 1 + r.below(4)).unwrap());
        all(1, |r| Subset::new(6, r.below(7)).unwrap());
        all(2, |r| Permutation::new(1 + r.below(5)).unwrap());
        all(3, |r| Chain::new(1 + r.below(4), 1 + r.below(3)).unwrap());
        all(4, |r| Tree::new(4, 1 + r.below(3), &[(2, 0), (2, 3), (1, 3)]).unwrap());
        all(5, |r| SpanningTree::complete(1 + r.below(4)).unwrap());
        all(6, |_| SpanningTree::new(4, &[(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (2, 1)]).unwrap());
        all(7, |r| {
            let n = 1 + r.below(4);
            Arborescence::new(n, r.below(n)).unwrap()
        });
        all(8, |r| Supermodular::new(r.below(7)).unwrap());
        all(9, |r| Pairwise::new(r.below(7)).unwrap());
    }

    /// Gains that nearly cancel the weights: what is left of them decides.
    #[test]
    fn pairs_that_nearly_cancel_agree_with_integers() {
        for case in 0..brute_force::cases() / 5 {
            let random = &mut Random::new(220, case);
            let n = 2 + random.below(6);
            let (pairwise, supermodular) = (Pairwise::new(n).unwrap(), Supermodular::new(n).unwrap());
            let base = [100_000_000i128, 1 << 36, 1 << 50, 1 << 60][random.below(4)];
            let mut h = vec![0i128; pairwise.potentials()];
            for (i, j) in (0..n).flat_map(|j| (0..j).map(move |i| (i, j))) {
                let w = base + random.below(7) as i128;
                h[pairwise.pair(i, j)] = 2 * w;
                h[2 * i + 1] -= w;
                h[2 * j + 1] -= w;
            }
            (0..n).for_each(|i| h[2 * i + 1] += random.below(9) as i128 - 4);
            let given: Vec<f64> = h.iter().map(|h| *h as f64).collect();
            let h: Vec<i128> = given.iter().map(|h| *h as i128).collect();
            let best = brute(&pairwise, &h);
            let check = |found: Maximum, z: &[u32]| {
                let value = score(&pairwise, &h, z, &mut vec![0.0; h.len()]);
                assert!((best - value) as f64 <= found.bound - found.value, "{h:?}: {value}, not {best}: {found:?}");
                assert!(found.is_proved() || base > 1 << 30, "{h:?}");
            };
            let mut z = vec![0; n];
            check(pairwise.argmax_precise(&given, &mut z, &mut pairwise.scratch()).unwrap(), &z);
            check(supermodular.argmax_precise(&given, &mut z, &mut supermodular.scratch()).unwrap(), &z);
        }
    }

    /// On numbers that f32 holds both paths find the same.
    #[test]
    fn agrees_with_the_solvers_for_f32() {
        fn check<S: PreciseSums>(structure: &S, h: &[f32]) {
            let (wide, n) = (h.iter().map(|h| *h as f64).collect::<Vec<_>>(), structure.variables());
            let (mut a, mut b) = (vec![0; n], vec![0; n]);
            let found = structure.argmax(h, &mut a, &mut structure.scratch());
            let precise = structure.argmax_precise(&wide, &mut b, &mut structure.scratch());
            match (found, precise) {
                (Ok(found), Ok(precise)) => {
                    assert_eq!(a, b, "{h:?}");
                    assert!((found.value - precise.value).abs() <= 1e-15 * brute_force::magnitude(h), "{h:?}");
                }
                (found, precise) => assert_eq!(found, precise),
            }
            let (mut a, mut b) = (vec![0.0; h.len()], vec![0.0; h.len()]);
            let (found, precise) = (structure.marginals(h, &mut a), structure.marginals_precise(&wide, &mut b));
            assert_eq!((found, a), (precise, b), "{h:?}");
        }
        for case in 0..brute_force::cases() / 10 {
            let random = &mut Random::new(221, case);
            let values = brute_force::Values::ALL[random.below(5)];
            let mut draw = |p: usize| values.vector(p, random);
            check(&Categorical::product(2, 3).unwrap(), &draw(6));
            check(&Subset::new(7, 3).unwrap(), &draw(7));
            check(&Chain::new(3, 3).unwrap(), &draw(27));
            check(&Tree::new(4, 2, &[(2, 0), (2, 3), (1, 3)]).unwrap(), &draw(20));
            check(&SpanningTree::complete(4).unwrap(), &draw(6));
            check(&SpanningTree::new(3, &[(0, 1), (1, 2), (2, 0), (0, 1)]).unwrap(), &draw(4));
            check(&Arborescence::new(4, 1).unwrap(), &draw(16));
            check(&Pairwise::new(5).unwrap(), &draw(20));
            let mut h = draw(20);
            h[10..].iter_mut().for_each(|w| *w = if w.is_finite() { w.abs() } else { 0.0 });
            check(&Supermodular::new(5).unwrap(), &h);
        }
    }

    /// Eighths around an offset that leaves them a bit or two: exact in eighths.
    #[test]
    fn fractions_on_an_offset_are_the_optimum_or_leave_a_gap() {
        fn check<S: Precise>(structure: &S, random: &mut Random) {
            let p = structure.potentials();
            let base = 8 * [1i128 << 30, 1 << 47, 1 << 49, (1 << 50) - 40][random.below(4)];
            let eighths: Vec<i128> = (0..p).map(|_| base + random.below(20) as i128 - 9).collect();
            let given: Vec<f64> = eighths.iter().map(|h| *h as f64 / 8.0).collect();
            let mut z = vec![0; structure.variables()];
            let found = structure.argmax_precise(&given, &mut z, &mut structure.scratch()).unwrap();
            let missing = brute(structure, &eighths) - score(structure, &eighths, &z, &mut vec![0.0; p]);
            let missing = missing as f64 / 8.0;
            assert!(missing <= found.bound - found.value, "{given:?}: {z:?} lacks {missing}: {found:?}");
            assert!(found.is_proved() || base > 1 << 34, "{given:?}: {found:?}");
        }
        for case in 0..brute_force::cases() / 10 {
            let random = &mut Random::new(230, case);
            check(&Chain::new(4, 3).unwrap(), random);
            check(&Chain::new(2, 2).unwrap(), random);
            check(&Tree::new(4, 2, &[(2, 0), (2, 3), (1, 3)]).unwrap(), random);
            check(&Permutation::new(5).unwrap(), random);
            check(&Arborescence::new(4, 1).unwrap(), random);
            check(&Pairwise::new(5).unwrap(), random);
            check(&Supermodular::new(5).unwrap(), random);
        }
    }

    /// What cancels costs the value of an answer no digit.
    #[test]
    fn values_of_what_cancels_are_right() {
        let big = (1u64 << 53) as f64;
        let scores = [-big, 3.0, -big, 1.0, big, 3.0, -1.0, big];
        let mut z = [0; 8];
        let all = Subset::new(8, 8).unwrap();
        assert_eq!(all.argmax_precise(&scores, &mut z, &mut all.scratch()), Ok(Maximum::proved(6.0)));
        let scores = scores.map(|h| h + if h.abs() < 2.0 { 0.1 } else { 0.0 }); // not all in f32
        let found = all.argmax_precise(&scores, &mut z, &mut all.scratch()).unwrap();
        assert!((found.value - 6.2).abs() < 1e-14, "{found:?}");
        let blocks = Categorical::product(8, 1).unwrap();
        assert!((blocks.argmax_precise(&scores, &mut z, &mut ()).unwrap().value - 6.2).abs() < 1e-14);
        let path: Vec<_> = (0..8).map(|i| (i, i + 1)).collect();
        let path = SpanningTree::new(9, &path).unwrap();
        let found = path.argmax_precise(&scores, &mut z, &mut path.scratch()).unwrap();
        assert!((found.value - 6.2).abs() < 1e-14, "{found:?}");
    }

    #[test]
    fn numbers_that_drown_leave_a_gap() {
        let mut z = [0; 2];
        let chain = Chain::new(2, 2).unwrap();
        let h = [1e17, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let found = chain.argmax_precise(&h, &mut z, &mut chain.scratch()).unwrap();
        assert!(!found.is_proved() && found.bound - found.value >= 1.0, "{found:?}");
        // Comparisons alone are exact.
        let c = Categorical::new(2).unwrap();
        assert!(c.argmax_precise(&[0.0, 1e-50], &mut z[..1], &mut ()).unwrap().is_proved());
        assert_eq!(z[0], 1);
        // Decimals have no exact sums, and nothing of them drowns.
        let p = Permutation::new(2).unwrap();
        assert!(p.argmax_precise(&[0.1, 0.2, 0.3, 0.1], &mut z, &mut p.scratch()).unwrap().is_proved());
        assert_eq!(z, [1, 0]);
    }
}
