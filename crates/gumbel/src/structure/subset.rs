//! Exactly k of n elements.
//!
//! ```text
//! h(z) = sum_i potentials[i] z_i        z in {0, 1}^n, sum_i z_i = k
//! ```
//!
//! Potentials: one score per element, all of them unary; the statistics are the indicators z. `-inf` forbids an
//! element.
//!
//! - Arg max: the k largest scores, by selection in O(n); among equal scores those of the lowest indices.
//! - Sums: with weights `w_i = exp(potentials[i])` the partition function is the elementary symmetric polynomial of
//!   degree k, a sum `F[i, j]` over the sets of j of the first i elements: `F[i, j] = F[i-1, j] + w_i F[i-1, j-1]`. Its
//!   size runs off every scale, so the recursion is carried out on the ratios `rho[i, j] = F[i, j] / F[i, j-1]`, which
//!   are of the size of single weights:
//!
//!   ```text
//!   rho[i, j]           = (rho[i-1, j] + w_i) / (1 + w_i / rho[i-1, j-1])
//!   q(z_i = 1 | j of i) = w_i / (rho[i-1, j] + w_i)
//!   ```
//!
//!   All terms are positive: nothing cancels. These conditionals, followed from (n, k) down, give marginals and
//!   samples. Scores count from the k-th largest one and are cut off 300 above and below it; a cut one is taken, or
//!   left, but for a probability under n exp(-300).
//! - KL: `KL = ln |Z| - H(q)`; its gradient by the same recursions in dual numbers along `t h`, where the conditional p
//!   changes by `p (1 - p) (score of the sets with i - score of those without)`. The covariance along any direction is
//!   the same with the direction's values in the place of the scores.
//!
//! Complexity: arg max O(n), everything else O(n k) in time. Where n k exceeds four million, the conditionals are
//! computed a second time in blocks of sqrt(n) elements, so that memory is O(k sqrt(n)); below that it is O(n k).
//!
//! Enumeration order: lexicographic in the elements chosen, {1, 2}, {1, 3}, ..., {n - 1, n}.
//!
//! Reference: Chen, Dempster, Liu, "Weighted finite population sampling to maximize entropy", Biometrika 1994.

use super::condition::{self, UNKNOWN};
use super::latent::LatentEntry;
use super::precise::{self, Real};
use super::{Code, Maximum, Move, Precise, PreciseSums, Structure, Sums, check_numbers};
use crate::Error;
use crate::noise::uniform_f64;
use rand_chacha::rand_core::Rng;
use std::ops::Range;

/// The subsets of k of n elements; an assignment has the value 1 at the elements chosen.
///
/// ```
/// use gumbel::structure::{Structure, Subset, Sums};
/// let pairs = Subset::new(4, 2)?;
/// let (mut best, mut scratch) = ([0; 4], pairs.scratch());
/// let maximum = pairs.argmax(&[0.5, 2.0, -1.0, 1.0], &mut best, &mut scratch)?;
/// assert_eq!((best, maximum.value), ([0, 1, 0, 1], 3.0));
/// let mut marginals = [0.0; 4];
/// let log_partition = pairs.marginals(&[0.0; 4], &mut marginals)?;
/// assert!((log_partition - 6f64.ln()).abs() < 1e-12 && marginals == [0.5; 4]);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Subset {
    elements: usize,
    chosen: usize,
    ln_states: f64,
}

/// Where scores are cut off, from the k-th largest.
const CUT: f64 = 300.0;

impl Subset {
    /// The largest n.
    pub const MAX_ELEMENTS: usize = 1 << 24;

    /// The largest n k for [`Sums`].
    pub const MAX_SUMS: usize = 1 << 27;

    /// Subsets of `chosen` <= `elements` elements.
    ///
    /// # Errors
    ///
    /// More than [`MAX_ELEMENTS`](Subset::MAX_ELEMENTS), or more chosen than there are.
    pub fn new(elements: usize, chosen: usize) -> Result<Self, Error> {
        if elements > Self::MAX_ELEMENTS {
            return Err(Error::range("elements", elements, format!("at most {}", Self::MAX_ELEMENTS)));
        }
        if chosen > elements {
            return Err(Error::range("chosen", chosen, format!("at most the number of elements, {elements}")));
        }
        let ln_states = match binomial(elements, chosen) {
            Some(states) => (states as f64).ln(),
            None => {
                let fewer = chosen.min(elements - chosen);
                (1..=fewer).map(|i| ((elements - fewer + i) as f64 / i as f64).ln()).sum()
            }
        };
        Ok(Subset { elements, chosen, ln_states })
    }

    /// Number of elements in a subset, k.
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    fn forbidden(&self, allowed: usize) -> Error {
        Error::Infeasible {
            detail: format!("{} elements are to be chosen, and only {allowed} are not -inf", self.chosen),
        }
    }

    /// Conditionals of the sum over the allowed elements.
    fn forward<T: Real>(&self, potentials: &[T]) -> Result<Forward, Error> {
        check_numbers("potential", potentials)?;
        let k = self.chosen;
        let mut allowed: Vec<(usize, f64)> = potentials.iter().map(|v| v.wide()).enumerate().collect();
        allowed.retain(|(_, v)| *v > f64::NEG_INFINITY);
        if allowed.len() < k {
            return Err(self.forbidden(allowed.len()));
        }
        if k == 0 {
            return Ok(Forward::default());
        }
        if allowed.len() > Self::MAX_SUMS / k {
            let value = format!("{} * {k}", allowed.len());
            return Err(Error::range("elements * chosen", value, format!("at most {} for sums", Self::MAX_SUMS)));
        }
        let mut sorted: Vec<f64> = allowed.iter().map(|(_, v)| *v).collect();
        let origin = *sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
        let mut log_partition = k as f64 * origin;
        for (_, v) in &mut allowed {
            log_partition += (*v - origin - CUT).max(0.0);
            *v = (*v - origin).clamp(-CUT, CUT);
        }

        let rows = match allowed.len() * k {
            0..=WHOLE => allowed.len(),
            _ => allowed.len().isqrt(),
        };
        let mut forward = Forward { allowed, chosen: k, rows, ..Forward::default() };
        let mut rho = vec![0.0; k + 1];
        rho[0] = f64::INFINITY; // there is no set of -1 elements
        for block in 0..forward.blocks() {
            forward.starts.extend_from_slice(&rho);
            forward.fill(block, &mut rho);
        }
        forward.ln_ratios = rho[1..].iter().map(|r| r.ln()).sum::<f64>();
        forward.log_partition = log_partition + forward.ln_ratios;
        Ok(forward)
    }
}

/// The most conditionals that are kept at once; of more, one block of rows after the other is computed again.
const WHOLE: usize = 1 << 22;

/// What the recursion over the elements leaves behind.
#[derive(Default)]
struct Forward {
    /// The m elements that are not forbidden, and their scores from the k-th largest, cut off; none if k is 0.
    allowed: Vec<(usize, f64)>,
    chosen: usize,
    /// Rows of a block.
    rows: usize,
    /// `[blocks, k + 1]`: the ratios before each block.
    starts: Vec<f64>,
    /// `[rows, k]`: `q(z_i = 1 | j + 1 of the first i)` for the elements of one block.
    taken: Vec<f64>,
    /// Which block.
    loaded: usize,
    /// Work: the next ratios.
    next: Vec<f64>,
    /// Log-partition of the cut scores.
    ln_ratios: f64,
    /// Log-partition of the potentials.
    log_partition: f64,
}

impl Forward {
    fn blocks(&self) -> usize {
        self.allowed.len().div_ceil(self.rows.max(1))
    }

    /// The positions in `allowed` of a block.
    fn range(&self, block: usize) -> Range<usize> {
        block * self.rows..self.allowed.len().min((block + 1) * self.rows)
    }

    /// Computes the conditionals of a block from the ratios before it, which become those behind it.
    fn fill(&mut self, block: usize, rho: &mut Vec<f64>) {
        let (k, range) = (self.chosen, self.range(block));
        let Forward { allowed, taken, next, .. } = self;
        next.clear();
        next.extend_from_slice(rho);
        taken.clear();
        taken.resize(range.len() * k, 0.0);
        for (i, taken) in range.zip(taken.chunks_exact_mut(k)) {
            let weight = allowed[i].1.exp();
            let most = k.min(i + 1); // no more than there are
            for j in 0..most {
                let sum = rho[j + 1] + weight;
                taken[j] = weight / sum;
                next[j + 1] = sum / (1.0 + weight / rho[j]);
            }
            std::mem::swap(rho, next);
        }
        self.loaded = block;
    }

    /// Sees to it that `taken` holds a block.
    fn load(&mut self, block: usize) {
        if self.loaded != block {
            let mut rho = self.starts[block * (self.chosen + 1)..][..self.chosen + 1].to_vec();
            self.fill(block, &mut rho);
        }
    }

    /// The elements of a block in their order, with their conditionals.
    fn rows(&mut self, block: usize) -> impl ExactSizeIterator<Item = (&(usize, f64), &[f64])> + DoubleEndedIterator {
        self.load(block);
        self.allowed[self.range(block)].iter().zip(self.taken.chunks_exact(self.chosen.max(1)))
    }
}

/// The binomial coefficient, if it fits.
fn binomial(n: usize, k: usize) -> Option<usize> {
    let mut value = 1u128;
    for i in 1..=k.min(n - k) {
        // Exact: i consecutive integers have been multiplied.
        value = value * (n - k.min(n - k) + i) as u128 / i as u128;
        if value > usize::MAX as u128 {
            return None;
        }
    }
    Some(value as usize)
}

impl Structure for Subset {
    /// One key per element.
    type Scratch = Vec<u64>;

    fn potentials(&self) -> usize {
        self.elements
    }

    fn unary(&self) -> usize {
        self.elements
    }

    fn variables(&self) -> usize {
        self.elements
    }

    fn ln_states(&self) -> f64 {
        self.ln_states
    }

    fn states(&self) -> Option<usize> {
        binomial(self.elements, self.chosen)
    }

    fn state(&self, mut index: usize, assignment: &mut [u32]) {
        let (mut left, mut chosen) = (self.elements as u128, self.chosen as u128);
        let mut states = self.states().expect("an enumerable subset") as u128;
        for z in assignment {
            // Of the sets of the remaining elements, those with the next one come first.
            let with = states * chosen / left;
            *z = (index < with as usize) as u32;
            match *z {
                1 => (states, chosen) = (with, chosen - 1),
                _ => (states, index) = (states - with, index - with as usize),
            }
            left -= 1;
        }
    }

    fn code(&self) -> Code {
        Code::Indicators
    }

    fn scratch(&self) -> Vec<u64> {
        Vec::with_capacity(self.elements)
    }

    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], keys: &mut Vec<u64>) -> Result<Maximum, Error> {
        check_numbers("potential", potentials)?;
        assignment.fill(0);
        if self.chosen == 0 {
            return Ok(Maximum::proved(0.0));
        }
        // Integers that ascend as the scores descend, equal scores by index.
        keys.clear();
        keys.extend(potentials.iter().enumerate().map(|(i, v)| {
            let bits = (v + 0.0).to_bits(); // -0 becomes 0
            let descending = if v.is_sign_negative() && *v != 0.0 { bits } else { !bits & 0x7fff_ffff };
            (descending as u64) << 32 | i as u64
        }));
        keys.select_nth_unstable(self.chosen - 1);
        let mut value = 0.0;
        for key in &keys[..self.chosen] {
            let i = *key as u32 as usize;
            assignment[i] = 1;
            value += potentials[i] as f64;
        }
        if value == f64::NEG_INFINITY {
            return Err(self.forbidden(potentials.iter().filter(|v| **v > f32::NEG_INFINITY).count()));
        }
        Ok(Maximum::proved(value))
    }

    fn has_moves(&self) -> bool {
        true
    }

    /// An element for another: the worst that is chosen for the best that is not, the second worst for the second best,
    /// and so on. O(n log n).
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        let start = moves.len();
        for side in [1, 0] {
            let first = moves.len();
            for (i, (h, _)) in potentials.iter().zip(assignment).enumerate().filter(|(_, (_, z))| **z == side) {
                let gain = if side == 1 { -h } else { *h };
                moves.push(Move { gain, place: i as u32, value: 0 });
            }
            moves[first..].sort_unstable_by(|a, b| b.gain.total_cmp(&a.gain).then(a.place.cmp(&b.place)));
        }
        let pairs = self.chosen.min(self.elements - self.chosen);
        for i in start..start + pairs {
            let other = moves[i + self.chosen];
            moves[i].gain += other.gain;
            moves[i].value = other.place;
        }
        moves.truncate(start + pairs);
    }

    fn make(&self, change: Move, assignment: &mut [u32]) -> bool {
        let (out, into) = (change.place as usize, change.value as usize);
        let possible = assignment[out] == 1 && assignment[into] == 0;
        if possible {
            (assignment[out], assignment[into]) = (0, 1);
        }
        possible
    }

    /// Elements that must be there get a better score than all others.
    fn condition(&self, known: &[u32], potentials: &mut [f32]) -> Result<f64, Error> {
        let lost = condition::elements(known, potentials)?;
        let sure = known.iter().filter(|value| **value == 1).count();
        let open = known.iter().filter(|value| **value == UNKNOWN).count();
        if !(sure..=sure + open).contains(&self.chosen) {
            let most = sure + open;
            return Err(Error::Infeasible {
                detail: format!("{} elements are to be chosen, and the label leaves {sure} to {most}", self.chosen),
            });
        }
        Ok(lost)
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        out.iter_mut().zip(assignment).filter(|(_, z)| **z == 1).for_each(|(o, _)| *o += scale);
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        potentials.iter().zip(assignment).filter(|(_, z)| **z == 1).map(|(v, _)| *v as f64).sum()
    }
}

impl Subset {
    fn marginals_of<T: Real>(&self, potentials: &[T], marginals: &mut [f32]) -> Result<f64, Error> {
        let mut forward = self.forward(potentials)?;
        marginals.fill(0.0);
        let k = self.chosen;
        // q(j of the first i elements are chosen), for i from n down.
        let mut count = vec![0.0; k + 1];
        count[k] = 1.0;
        for block in (0..forward.blocks()).rev() {
            for ((i, _), taken) in forward.rows(block).rev() {
                let mut marginal = 0.0;
                for j in 0..k {
                    let with = count[j + 1] * taken[j];
                    marginal += with;
                    count[j] += with;
                    count[j + 1] -= with;
                }
                marginals[*i] = marginal as f32;
            }
        }
        Ok(forward.log_partition)
    }
}

/// Comparisons only: always proved.
impl Precise for Subset {
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        keys: &mut Vec<u64>,
    ) -> Result<Maximum, Error> {
        check_numbers("potential", potentials)?;
        assignment.fill(0);
        if self.chosen == 0 {
            return Ok(Maximum::proved(0.0));
        }
        if potentials.iter().all(|v| *v as f32 as f64 == *v) {
            // Half as wide: sooner, and most of all where many are equal.
            let narrow: Vec<f32> = potentials.iter().map(|v| *v as f32).collect();
            let Maximum { value, .. } = self.argmax(&narrow, assignment, keys)?;
            return Ok(Maximum::proved(precise::careful(value, potentials, chosen(potentials, assignment))));
        }
        // Integers that ascend as the scores descend. The k-th of them is a threshold; of the scores that equal it, the
        // first ones are taken.
        let key = |v: &f64| {
            let bits = (v + 0.0).to_bits(); // -0 becomes 0
            if *v < 0.0 { bits } else { !bits & (u64::MAX >> 1) }
        };
        keys.clear();
        keys.extend(potentials.iter().map(key));
        let (better, threshold, _) = keys.select_nth_unstable(self.chosen - 1);
        let threshold = *threshold;
        let mut equal = self.chosen - better.iter().filter(|k| **k < threshold).count();
        let mut value = 0.0;
        for (z, v) in assignment.iter_mut().zip(potentials) {
            let key = key(v);
            if key < threshold || (key == threshold && equal > 0) {
                equal -= (key == threshold) as usize;
                *z = 1;
                value += v;
            }
        }
        if value == f64::NEG_INFINITY {
            return Err(self.forbidden(potentials.iter().filter(|v| **v > f64::NEG_INFINITY).count()));
        }
        Ok(Maximum::proved(precise::careful(value, potentials, chosen(potentials, assignment))))
    }
}

fn chosen<'a>(potentials: &'a [f64], assignment: &'a [u32]) -> impl Iterator<Item = f64> + 'a {
    potentials.iter().zip(assignment).filter(|(_, z)| **z != 0).map(|(v, _)| *v)
}

impl PreciseSums for Subset {
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }
}

impl Sums for Subset {
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        Ok(self.forward(potentials)?.log_partition)
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        let forward = self.forward(potentials)?;
        let ln_ratios = forward.ln_ratios;
        Ok(self.ln_states - (ln_ratios - along(forward, |(_, score)| *score, scale, gradient)))
    }

    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        check_numbers("direction", direction)?;
        along(self.forward(potentials)?, |(i, _)| direction[*i] as f64, scale, out);
        Ok(())
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        let mut forward = self.forward(potentials)?;
        assignment.fill(0);
        let mut left = self.chosen;
        for block in (0..forward.blocks()).rev() {
            for ((i, _), taken) in forward.rows(block).rev() {
                if left == 0 {
                    return Ok(());
                }
                if uniform_f64(generator) < taken[left - 1] {
                    assignment[*i] = 1;
                    left -= 1;
                }
            }
        }
        Ok(())
    }
}

/// `subset:N,K` in the registry.
pub(super) fn entry() -> LatentEntry {
    LatentEntry::new("subset", "N,K", "K of N elements", |sizes| {
        let (elements, chosen) = sizes.pair(',')?;
        if chosen == 0 || chosen >= elements {
            return Err(sizes.refused("1 to N - 1 of N elements: none or all is one state only"));
        }
        sizes.at_most(Some(elements))?;
        let structure = Subset::new(elements, chosen).map_err(|e| sizes.explain(e))?;
        Ok((structure.into(), format!("{elements},{chosen}")))
    })
}

/// The mean over the sets of the sum of their elements' values; adds the covariance of this sum with the statistics,
/// `scale` times: the derivatives of the marginals where scores change by the values.
fn along(mut forward: Forward, value: impl Fn(&(usize, f64)) -> f64, scale: f32, out: &mut [f32]) -> f64 {
    let k = forward.chosen;
    // Mean value of the sets of j of the first i, and with it the derivative of the conditionals.
    let mut mean = vec![0.0; k + 1];
    let mut means = vec![]; // before each block
    let mut change_taken = vec![];
    for block in 0..forward.blocks() {
        means.extend_from_slice(&mean);
        change_block(forward.rows(block), &value, &mut mean, &mut change_taken);
    }
    let whole = mean[k];
    if scale == 0.0 {
        return whole;
    }
    let (mut count, mut change_count) = (vec![0.0; k + 1], vec![0.0; k + 1]);
    count[k] = 1.0;
    let last = forward.blocks().saturating_sub(1);
    for block in (0..forward.blocks()).rev() {
        if block != last {
            mean.copy_from_slice(&means[block * (k + 1)..][..k + 1]);
            change_block(forward.rows(block), &value, &mut mean, &mut change_taken);
        }
        let rows = forward.rows(block).zip(change_taken.chunks_exact(k));
        for (((i, _), taken), change_taken) in rows.rev() {
            let mut change_marginal = 0.0;
            for j in 0..k {
                let with = count[j + 1] * taken[j];
                let change_with = change_count[j + 1] * taken[j] + count[j + 1] * change_taken[j];
                change_marginal += change_with;
                count[j] += with;
                count[j + 1] -= with;
                change_count[j] += change_with;
                change_count[j + 1] -= change_with;
            }
            out[*i] += scale * change_marginal as f32;
        }
    }
    whole
}

/// The derivatives of the conditionals of a block; `mean` holds the mean values before it, and then those behind it.
fn change_block<'a>(
    rows: impl Iterator<Item = (&'a (usize, f64), &'a [f64])>,
    value: impl Fn(&(usize, f64)) -> f64,
    mean: &mut [f64],
    change_taken: &mut Vec<f64>,
) {
    change_taken.clear();
    for (element, taken) in rows {
        let (start, value) = (change_taken.len(), value(element));
        change_taken.resize(start + taken.len(), 0.0);
        for (j, change) in change_taken[start..].iter_mut().enumerate().rev() {
            let gain = mean[j] + value - mean[j + 1];
            *change = taken[j] * (1.0 - taken[j]) * gain;
            mean[j + 1] += taken[j] * gain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::brute_force::{self, Random, Values};
    use crate::structure::{argmax_batch, perturbed_argmax};

    #[test]
    fn agrees_with_brute_force() {
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(50, case);
            let n = random.below(9);
            let subset = Subset::new(n, random.below(n + 1)).unwrap();
            let values = Values::ALL[random.below(5)];
            let potentials = values.vector(n, random);
            let what = (case, values, subset);
            brute_force::check_argmax(&subset, &potentials, &mut subset.scratch(), &what);
            brute_force::check_sums(&subset, &potentials, &what);
            if values != Values::Extreme {
                brute_force::check_kl(&subset, &potentials, &what);
                brute_force::check_covariance(&subset, &potentials, &what);
            } else {
                let kl = subset.kl_to_uniform(&potentials, 1.0, &mut vec![0.0; n]).unwrap();
                assert!((-1e-5..=subset.ln_states() + 1e-5).contains(&kl), "{what:?}: {kl}");
            }
        }
    }

    #[test]
    fn scores_beyond_the_cut_are_exact_too() {
        // Differences of hundreds: taken and left for sure, with ties among those between.
        for case in 0..2000 {
            let random = &mut Random::new(51, case);
            let n = 2 + random.below(7);
            let subset = Subset::new(n, 1 + random.below(n)).unwrap();
            let h: Vec<f32> = (0..n).map(|_| 400.0 * (random.below(5) as f32 - 2.0) + random.normal()).collect();
            brute_force::check_sums(&subset, &h, &(case, &h));
            brute_force::check_kl(&subset, &h, &(case, &h));
            brute_force::check_covariance(&subset, &h, &(case, &h));
        }
    }

    #[test]
    fn large_subsets_agree_with_closed_forms() {
        for (n, k) in [(1000, 10), (1000, 990), (2000, 1000), (100, 100), (100, 0)] {
            let subset = Subset::new(n, k).unwrap();
            let mut marginals = vec![0.0; n];
            let log_partition = subset.marginals(&vec![0.5; n], &mut marginals).unwrap();
            let expected = subset.ln_states() + 0.5 * k as f64;
            assert!((log_partition - expected).abs() <= 1e-12 * expected, "{n}, {k}: {log_partition}, {expected}");
            assert!(marginals.iter().all(|m| (*m as f64 - k as f64 / n as f64).abs() < 1e-6), "{n}, {k}");
            assert!(subset.kl_to_uniform(&vec![0.5; n], 0.0, &mut []).unwrap().abs() < 1e-9);
        }
        // ln(2000 over 1000) as computed with integers, and counts that are known.
        assert!((Subset::new(2000, 1000).unwrap().ln_states() - 1_382.267_993_537_48).abs() < 1e-9);
        assert_eq!(Subset::new(40, 20).unwrap().states(), Some(137_846_528_820));
        assert_eq!(Subset::new(200, 100).unwrap().states(), None);
    }

    #[test]
    fn states_are_in_lexicographic_order() {
        let subset = Subset::new(4, 2).unwrap();
        let mut z = [9; 4];
        let states: Vec<[u32; 4]> = (0..6)
            .map(|s| {
                subset.state(s, &mut z);
                z
            })
            .collect();
        let chosen = [[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]];
        assert_eq!(states, chosen);
    }

    #[test]
    fn samples_follow_the_gibbs_distribution() {
        let subset = Subset::new(7, 3).unwrap();
        let mut h = Values::Normal.vector(7, &mut Random::new(52, 0));
        brute_force::check_samples(&subset, &h, 100_000, 53);
        h[2] = f32::NEG_INFINITY;
        brute_force::check_samples(&subset, &h, 100_000, 54);
    }

    #[test]
    fn equal_scores_go_to_the_lowest_indices() {
        let subset = Subset::new(5, 2).unwrap();
        let mut z = [9; 5];
        subset.argmax(&[0.0, -0.0, 0.0, -1.0, -0.0], &mut z, &mut subset.scratch()).unwrap();
        assert_eq!(z, [1, 1, 0, 0, 0]);
        subset.argmax(&[-2.0, -1.0, -1.0, -3.0, -1.0], &mut z, &mut subset.scratch()).unwrap();
        assert_eq!(z, [0, 1, 1, 0, 0]);
    }

    #[test]
    fn bad_input_and_trivial_sizes() {
        let half = Subset::new(1 << 20, 1 << 19).unwrap();
        let (zeros, mut z) = (vec![0.0; 1 << 20], vec![0; 1 << 20]);
        assert!(half.argmax(&zeros, &mut z, &mut half.scratch()).is_ok());
        let error = half.log_partition(&zeros).unwrap_err().to_string();
        assert_eq!(error, "elements * chosen = 1048576 * 524288: expected at most 134217728 for sums");
        assert!(Subset::new(usize::MAX, 2).is_err());
        assert_eq!(
            Subset::new(2, 3).unwrap_err().to_string(),
            "chosen = 3: expected at most the number of elements, 2"
        );
        let subset = Subset::new(3, 2).unwrap();
        let (mut z, mut scratch) = ([0; 3], subset.scratch());
        let nan = subset.argmax(&[0.0, f32::NAN, 0.0], &mut z, &mut scratch).unwrap_err();
        assert_eq!(nan, Error::NotANumber { what: "potential", index: 1 });
        let infinite = subset.log_partition(&[0.0, 0.0, f32::INFINITY]).unwrap_err();
        assert_eq!(infinite, Error::PositiveInfinity { what: "potential", index: 2 });
        let one = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY];
        let message = "no assignment is allowed: 2 elements are to be chosen, and only 1 are not -inf";
        assert_eq!(subset.argmax(&one, &mut z, &mut scratch).unwrap_err().to_string(), message);
        assert_eq!(subset.marginals(&one, &mut [0.0; 3]).unwrap_err().to_string(), message);
        assert!(argmax_batch(&subset, &[0.0; 4], &mut z).is_err());

        perturbed_argmax(&subset, &[0.0, 1.0, 2.0], &[5.0, 0.0, 0.0], &mut z).unwrap();
        assert_eq!(z, [1, 0, 1]);
        // Nothing is chosen, whatever is forbidden; or everything.
        let (none, all) = (Subset::new(3, 0).unwrap(), Subset::new(3, 3).unwrap());
        assert_eq!(none.argmax(&one, &mut z, &mut scratch).unwrap().value, 0.0);
        assert_eq!((z, none.log_partition(&one).unwrap(), none.states()), ([0; 3], 0.0, Some(1)));
        assert_eq!(all.argmax(&[1.0, 2.0, 3.0], &mut z, &mut scratch).unwrap().value, 6.0);
        assert_eq!((z, all.states(), all.ln_states()), ([1; 3], Some(1), 0.0));
    }
}
