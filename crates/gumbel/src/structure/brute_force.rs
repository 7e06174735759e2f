//! The tests' oracle: every structure is compared with plain enumeration of its states on random instances.

use super::{Structure, Sums};
use crate::Error;

pub(crate) use crate::testing::{Random, Values, magnitude};

/// Instances per property test: 20,000, or `GUMBEL_CASES` for the long mode.
pub(crate) fn cases() -> u64 {
    match std::env::var("GUMBEL_CASES") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("GUMBEL_CASES={text}: expected a number of instances")),
        Err(_) => 20_000,
    }
}

/// What enumeration says of an instance.
pub(crate) struct Enumerated {
    /// The largest score; `-inf` if everything is forbidden.
    pub(crate) max: f64,
    /// `ln sum_z exp(h(z))`.
    pub(crate) log_partition: f64,
    /// `E_q[s(z)]`, `[P]`.
    pub(crate) marginals: Vec<f64>,
    /// `q(z)`, `[|Z|]`.
    pub(crate) probabilities: Vec<f64>,
}

/// Enumerates all states, in f64.
pub(crate) fn enumerate<S: Structure>(structure: &S, potentials: &[f32]) -> Enumerated {
    let states = structure.states().expect("an enumerable structure");
    let mut z = vec![0; structure.variables()];
    let scores: Vec<f64> = (0..states)
        .map(|s| {
            structure.state(s, &mut z);
            structure.score(potentials, &z)
        })
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| if *s == max { 1.0 } else { (s - max).exp() }).collect();
    let sum: f64 = weights.iter().sum();
    let probabilities: Vec<f64> = weights.iter().map(|w| w / sum).collect();
    let mut marginals = vec![0.0; structure.potentials()];
    let mut statistics = vec![0.0; structure.potentials()];
    for (s, q) in probabilities.iter().enumerate() {
        structure.state(s, &mut z);
        statistics.fill(0.0);
        structure.add_statistics(&z, 1.0, &mut statistics);
        marginals.iter_mut().zip(&statistics).for_each(|(m, s)| *m += q * *s as f64);
    }
    Enumerated { max, log_partition: max + sum.ln(), marginals, probabilities }
}

/// Checks the arg max of an instance against enumeration: the value is the maximum, the assignment has it, it is
/// proved; an infeasible instance is an error. `what` names the instance in a failure.
pub(crate) fn check_argmax<S: Structure>(
    structure: &S,
    potentials: &[f32],
    scratch: &mut S::Scratch,
    what: &dyn std::fmt::Debug,
) -> Vec<u32> {
    let expected = enumerate(structure, potentials).max;
    let mut z = vec![u32::MAX; structure.variables()];
    match structure.argmax(potentials, &mut z, scratch) {
        Err(Error::Infeasible { .. }) => assert_eq!(expected, f64::NEG_INFINITY, "{what:?}: wrongly infeasible"),
        Err(e) => panic!("{what:?}: {e}"),
        Ok(found) => check_maximum(structure, potentials, &z, found, expected, what),
    }
    z
}

/// The checks of [`check_argmax`] on an answer, however it was found.
pub(crate) fn check_maximum<S: Structure>(
    structure: &S,
    potentials: &[f32],
    z: &[u32],
    found: super::Maximum,
    expected: f64,
    what: &dyn std::fmt::Debug,
) {
    let tolerance = 1e-12 * magnitude(potentials);
    let score = structure.score(potentials, z);
    assert!(found.is_proved(), "{what:?}: not proved: {found:?}");
    assert!((found.value - score).abs() <= tolerance, "{what:?}: says {}, scores {score}", found.value);
    assert!((score - expected).abs() <= tolerance, "{what:?}: {z:?} scores {score}, the best is {expected}");
}

/// Checks log-partition and marginals against enumeration: 1e-4 relative, and absolute for probabilities; entropy
/// likewise.
pub(crate) fn check_sums<S: Sums>(structure: &S, potentials: &[f32], what: &dyn std::fmt::Debug) {
    let expected = enumerate(structure, potentials);
    let mut marginals = vec![f32::NAN; structure.potentials()];
    let log_partition = match structure.marginals(potentials, &mut marginals) {
        Err(Error::Infeasible { .. }) => {
            assert_eq!(expected.max, f64::NEG_INFINITY, "{what:?}: wrongly infeasible");
            return;
        }
        other => other.unwrap_or_else(|e| panic!("{what:?}: {e}")),
    };
    // Scores that are large beside their differences leave an error of the size of their rounding.
    let tolerance = 1e-4 + 1e-12 * magnitude(potentials);
    let relative = |a: f64, b: f64| (a - b).abs() <= tolerance * b.abs().max(1.0);
    assert!(relative(log_partition, expected.log_partition), "{what:?}: {log_partition}, {}", expected.log_partition);
    if magnitude(potentials) > 1e10 {
        // Differences of scores drown in their rounding, in the enumeration first of all: only the range is known.
        assert!(marginals.iter().all(|m| (0.0..=1.0 + 1e-5).contains(m)), "{what:?}: {marginals:?}");
        return;
    }
    for (i, (m, e)) in marginals.iter().zip(&expected.marginals).enumerate() {
        assert!((*m as f64 - e).abs() <= 1e-4, "{what:?}: marginal {i} is {m}, should be {e}");
    }
    let entropy: f64 = expected.probabilities.iter().filter(|q| **q > 0.0).map(|q| -q * q.ln()).sum();
    // The entropy is a difference of sums of the potentials' size, with marginals stored in f32.
    let found = structure.entropy(potentials).unwrap();
    let tolerance = 1e-4 + 1e-6 * magnitude(potentials);
    assert!((found - entropy).abs() <= tolerance, "{what:?}: entropy {found}, should be {entropy}");
}

/// Checks `kl_to_uniform` and its gradient against enumeration: `KL = ln|Z| - H(q)`, `d KL / d h = Cov_q(s) h`.
///
/// Potentials must be of moderate size; forbidden ones take no part.
pub(crate) fn check_kl<S: Sums>(structure: &S, potentials: &[f32], what: &dyn std::fmt::Debug) {
    let Enumerated { marginals, probabilities, max, .. } = enumerate(structure, potentials);
    if max == f64::NEG_INFINITY {
        return;
    }
    let entropy: f64 = probabilities.iter().filter(|q| **q > 0.0).map(|q| -q * q.ln()).sum();
    let scale = -1.5;
    let mut found = vec![0.25; structure.potentials()];
    let kl = structure.kl_to_uniform(potentials, scale, &mut found).unwrap_or_else(|e| panic!("{what:?}: {e}"));
    let expected = structure.ln_states() - entropy;
    assert!((kl - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{what:?}: KL {kl}, should be {expected}");
    let dot = |s: &[f64]| s.iter().zip(potentials).filter(|(s, _)| **s != 0.0).map(|(s, h)| s * *h as f64).sum::<f64>();
    let mean = dot(&marginals);
    let mut gradient = vec![0.0f64; structure.potentials()];
    let (mut z, mut statistics) = (vec![0; structure.variables()], vec![0.0f32; structure.potentials()]);
    for (s, q) in probabilities.iter().enumerate().filter(|(_, q)| **q > 0.0) {
        structure.state(s, &mut z);
        statistics.fill(0.0);
        structure.add_statistics(&z, 1.0, &mut statistics);
        let score = structure.score(potentials, &z);
        for ((g, s), m) in gradient.iter_mut().zip(&statistics).zip(&marginals) {
            *g += q * (score - mean) * (*s as f64 - m);
        }
    }
    for (i, (f, g)) in found.iter().zip(&gradient).enumerate() {
        let g = 0.25 + scale as f64 * g;
        assert!((*f as f64 - g).abs() <= 1e-3 * g.abs().max(1.0), "{what:?}: gradient {i} is {f}, should be {g}");
    }
}

/// Checks `covariance` along a random direction against enumeration; it is added, and forbidden potentials take no
/// part.
///
/// Potentials must be of moderate size.
pub(crate) fn check_covariance<S: Sums>(structure: &S, potentials: &[f32], what: &dyn std::fmt::Debug) {
    let Enumerated { marginals, probabilities, max, .. } = enumerate(structure, potentials);
    // A direction of its own for each instance.
    let seed = potentials.iter().fold(7u64, |seed, h| seed.wrapping_mul(31).wrapping_add(h.to_bits() as u64));
    let direction = Values::Normal.vector(potentials.len(), &mut Random::new(63, seed));
    let (scale, mut found) = (-1.5, vec![0.25; structure.potentials()]);
    match structure.covariance(potentials, &direction, scale, &mut found) {
        Err(Error::Infeasible { .. }) if max == f64::NEG_INFINITY => return,
        other => other.unwrap_or_else(|e| panic!("{what:?}: {e}")),
    }
    let dot = |s: &[f64]| s.iter().zip(&direction).map(|(s, d)| s * *d as f64).sum::<f64>();
    let mean = dot(&marginals);
    let mut covariance = vec![0.0f64; structure.potentials()];
    let (mut z, mut statistics) = (vec![0; structure.variables()], vec![0.0f32; structure.potentials()]);
    for (s, q) in probabilities.iter().enumerate().filter(|(_, q)| **q > 0.0) {
        structure.state(s, &mut z);
        statistics.fill(0.0);
        structure.add_statistics(&z, 1.0, &mut statistics);
        let statistics: Vec<f64> = statistics.iter().map(|s| *s as f64).collect();
        let weight = q * (dot(&statistics) - mean);
        covariance.iter_mut().zip(&statistics).zip(&marginals).for_each(|((c, s), m)| *c += weight * (s - m));
    }
    for (i, ((f, c), h)) in found.iter().zip(&covariance).zip(potentials).enumerate() {
        let expected = 0.25 + scale as f64 * c;
        let close = (*f as f64 - expected).abs() <= 1e-4 * expected.abs().max(1.0);
        assert!(close, "{what:?}: covariance {i} is {f}, should be {expected}");
        assert!(*h > f32::NEG_INFINITY || *f == 0.25, "{what:?}: {i} is forbidden, and gets {f}");
    }
}

/// Draws many samples and compares the counts of states with the Gibbs distribution by a chi-square test at
/// p = 1e-4 (Wilson-Hilferty); states with an expected count under 5 are pooled.
pub(crate) fn check_samples<S: Sums>(structure: &S, potentials: &[f32], draws: usize, test: u32) {
    let Enumerated { probabilities, .. } = enumerate(structure, potentials);
    let mut z = vec![0; structure.variables()];
    let mut index = std::collections::HashMap::new();
    for s in 0..probabilities.len() {
        structure.state(s, &mut z);
        assert!(index.insert(z.clone(), s).is_none(), "state {s} is there twice");
    }
    let mut counts = vec![0usize; probabilities.len()];
    let mut random = Random::new(test, 0);
    for _ in 0..draws {
        structure.sample(potentials, &mut random.0, &mut z).unwrap();
        counts[*index.get(&z).unwrap_or_else(|| panic!("{z:?} is not a state"))] += 1;
    }
    let (mut pooled, mut chi2, mut cells) = ((0.0, 0.0), 0.0, 0usize);
    let mut add = |count: f64, expected: f64| {
        chi2 += (count - expected).powi(2) / expected;
        cells += 1;
    };
    for (count, q) in counts.iter().zip(&probabilities) {
        let expected = q * draws as f64;
        assert!(*q > 0.0 || *count == 0, "a forbidden state was drawn");
        match expected < 5.0 {
            true => pooled = (pooled.0 + *count as f64, pooled.1 + expected),
            false => add(*count as f64, expected),
        }
    }
    if pooled.1 >= 5.0 {
        add(pooled.0, pooled.1);
    }
    let k = cells.saturating_sub(1).max(1) as f64;
    let limit = k * (1.0 - 2.0 / (9.0 * k) + 3.719 * (2.0 / (9.0 * k)).sqrt()).powi(3);
    assert!(chi2 <= limit, "chi-square {chi2} with {k} degrees of freedom: at most {limit}");
}
