//! What a stored model has learned: its potentials, its couplings, and how its second arg max moves.

use crate::{Config, Result};
use gumbel::engine::{Asked, Engine, Images};
use gumbel::estimator::{Direct, DirectJoint, Estimator, Perturbation, enumerable, estimate};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{AnyStructure, Code, Structure, Sums, perturbed_argmax};
use serde::Serialize;

/// Means over test images; potentials in nats.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Test images looked at.
    pub images: usize,
    /// Mean unary potentials, `[U]`. For variables with values, those of each variable are shifted to a mean of zero:
    /// a constant means nothing there.
    pub unary: Vec<f64>,
    /// Pairwise models: mean couplings, `[n][n]`, symmetric; the diagonal is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub couplings: Option<Vec<Vec<Option<f64>>>>,
    /// Variables (or elements, edges, pairs of a matrix) whose posterior mean says something about the image: its
    /// variance over the images is more than 0.01 (Burda et al. 2016).
    pub active_units: usize,
    /// Variables in all.
    pub units: usize,
    /// Variance over the images of the posterior mean of each, `[units]`; of the value that varies most.
    pub variance: Vec<f64>,
    /// Samples of the perturbed arg max behind the posterior means where the sums are not tractable; absent: exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marginal_samples: Option<usize>,
    /// epsilon of the arg maxima below: that of the last training step of this model.
    pub epsilon: f64,
    /// Share of the images with z* = z(eps), one draw each.
    pub zero_gradient_rate: f64,
    /// Where all states can be enumerated and there are several variables: share of the first `joint_images` images for
    /// which the separable approximation finds another z(eps) than the true loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separable_miss_rate: Option<f64>,
    /// By how much it is worse there, the mean of `h + gamma - eps loss` in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separable_gap: Option<f64>,
    /// Images behind the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joint_images: Option<usize>,
}

/// A posterior mean that varies more than this over the images carries information.
const ACTIVE: f64 = 0.01;
/// Samples of the perturbed arg max for posterior means.
const SAMPLES: usize = 100;
/// Images at a time.
const BATCH: usize = 100;
/// Images whose arg maxima under the true loss are looked for.
const JOINT: usize = 200;

/// Looks at a model trained for `steps` steps on the first `limit` images (0: all).
///
/// # Errors
/// Numbers that are not finite, images that cannot be read.
pub fn inspect(
    engine: &mut dyn Engine,
    config: &Config,
    images: &dyn Images,
    steps: u64,
    limit: usize,
) -> Result<Inspection> {
    let structure = &engine.structure().clone();
    let (p, u) = (structure.potentials(), structure.unary());
    let count = if limit == 0 { images.count() } else { limit.min(images.count()) };
    let scheduled = config.scheduled(steps.saturating_sub(1))?;
    let epsilon = scheduled.iter().find(|(name, _)| name == "epsilon").map_or(1.0, |(_, e)| *e);
    let direct = Direct::new(epsilon as f32)?;
    let joint = (enumerable(structure).is_ok() && structure.variables() > 1)
        .then(|| DirectJoint::new(direct, Perturbation::Unary));

    let (mut sums, mut means, mut squares) = (vec![0.0; p], vec![0.0; u], vec![0.0; u]);
    let (mut unmoved, mut missed, mut gap, mut looked) = (0.0, 0.0, [0.0, 0.0], 0);
    for (b, start) in (0..count).step_by(BATCH).enumerate() {
        let batch: Vec<u32> = (start as u32..count.min(start + BATCH) as u32).collect();
        let Asked { potentials, mut oracle } = engine.ask(images, &batch)?;
        let noise = Noise::new(config.seed(), Purpose::Evaluation, u64::MAX - b as u64);
        for (i, h) in potentials.chunks_exact(p).enumerate() {
            sums.iter_mut().zip(h).for_each(|(s, h)| *s += *h as f64);
            let q = posterior_mean(structure, h, &noise.at_row(i + 1))?;
            for ((m, s), q) in means.iter_mut().zip(&mut squares).zip(q) {
                *m += q as f64;
                *s += (q as f64).powi(2);
            }
        }
        let mut gamma = vec![0.0; batch.len() * u];
        noise.gumbel(&mut gamma);
        let found = estimate(&direct, structure, &potentials, &gamma, &mut *oracle)?;
        unmoved += measured(&direct, "zero_gradient_rate", &found.tallies).sum;
        if let (Some(joint), true) = (&joint, start < JOINT) {
            let found = estimate(joint, structure, &potentials, &gamma, &mut *oracle)?;
            missed += measured(joint, "separable_miss_rate", &found.tallies).sum;
            let nats = measured(joint, "separable_gap", &found.tallies);
            gap = [gap[0] + nats.sum, gap[1] + nats.count];
            looked += batch.len();
        }
    }

    let n = count.max(1) as f64;
    let variance = means.iter().zip(&squares).map(|(m, s)| (s / n - (m / n).powi(2)).max(0.0));
    let variance: Vec<f64> = variance.collect();
    let values = match structure.code() {
        Code::OneHot { values } => values,
        Code::Indicators => 1,
    };
    let largest = |v: &[f64]| v.iter().copied().fold(0.0, f64::max);
    let variance: Vec<f64> = variance.chunks_exact(values).map(largest).collect();
    let mut unary: Vec<f64> = sums[..u].iter().map(|s| s / n).collect();
    if values > 1 {
        for row in unary.chunks_exact_mut(values) {
            let mean = row.iter().sum::<f64>() / values as f64;
            row.iter_mut().for_each(|h| *h -= mean);
        }
    }
    let shown = joint.is_some();
    Ok(Inspection {
        images: count,
        unary,
        couplings: couplings(structure, &sums, n),
        active_units: variance.iter().filter(|v| **v > ACTIVE).count(),
        units: variance.len(),
        variance,
        marginal_samples: (!structure.has_sums()).then_some(SAMPLES),
        epsilon,
        zero_gradient_rate: unmoved / n,
        separable_miss_rate: shown.then(|| missed / looked.max(1) as f64),
        separable_gap: shown.then(|| gap[0] / gap[1].max(1.0)),
        joint_images: shown.then_some(looked),
    })
}

/// A tally by the name of its measure.
fn measured<E: Estimator>(estimator: &E, name: &str, tallies: &[gumbel::estimator::Tally]) -> gumbel::estimator::Tally {
    let at = Estimator::<AnyStructure>::measures(estimator).iter().position(|m| m.name == name);
    at.map_or_else(Default::default, |at| tallies[at])
}

/// The posterior mean of the code: exact, or over samples of the perturbed arg max.
fn posterior_mean(structure: &AnyStructure, h: &[f32], noise: &Noise) -> Result<Vec<f32>> {
    let u = structure.unary();
    if structure.has_sums() {
        let mut marginals = vec![0.0; h.len()];
        structure.marginals(h, &mut marginals)?;
        marginals.truncate(u);
        return Ok(marginals);
    }
    let n = structure.variables();
    let (mut gamma, mut z) = (vec![0.0; SAMPLES * u], vec![0; SAMPLES * n]);
    noise.gumbel(&mut gamma);
    perturbed_argmax(structure, &h.repeat(SAMPLES), &gamma, &mut z)?;
    let (mut mean, mut code) = (vec![0.0; u], vec![0.0; u]);
    for z in z.chunks_exact(n) {
        structure.encode(z, &mut code);
        mean.iter_mut().zip(&code).for_each(|(m, c)| *m += c / SAMPLES as f32);
    }
    Ok(mean)
}

/// The mean couplings of a model whose pairs have one each, from sums of potentials over `count` images.
fn couplings(structure: &AnyStructure, sums: &[f64], count: f64) -> Option<Vec<Vec<Option<f64>>>> {
    let n = structure.variables();
    if n < 2 {
        return None;
    }
    structure.pair(0, 1)?;
    let entry = |i: usize, j: usize| structure.pair(i.min(j), i.max(j)).map(|at| sums[at] / count);
    Some((0..n).map(|i| (0..n).map(|j| (i != j).then(|| entry(i, j)).flatten()).collect()).collect())
}
