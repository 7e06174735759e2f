//! What a stored model has learned: its potentials, its couplings, and how its second arg max moves.

use crate::config::TrainConfig;
use crate::engine::{Method, StepOptions};
use crate::executor::MlpEngine;
use crate::{Result, host};
use gumbel::estimator::{Direct, DirectJoint, Perturbation, enumerable};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{AnyStructure, Code, Structure, Sums, perturbed_argmax};
use gumbel_data::{Dataset, Split};
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

/// Looks at a model trained for `steps` steps on the first `limit` test images (0: all).
pub fn inspect(
    engine: &MlpEngine,
    config: &TrainConfig,
    data: &Dataset,
    steps: u64,
    limit: usize,
) -> Result<Inspection> {
    let structure = &engine.structure;
    let (p, u, pixels) = (structure.potentials(), structure.unary(), data.test.dim());
    let count = if limit == 0 { data.test.count() } else { limit.min(data.test.count()) };
    let binarization = config.binarization.with_seed(config.seed);
    let epsilon = config.epsilon_schedule()?.at(steps.saturating_sub(1));
    let direct = Direct::new(epsilon)?;
    let separable = Method::Seam(Box::new(direct));
    let joint = (enumerable(structure).is_ok() && structure.variables() > 1)
        .then(|| Method::Joint { estimator: DirectJoint::new(direct, Perturbation::Unary), separable: Some(direct) });

    let (mut sums, mut means, mut squares) = (vec![0.0; p], vec![0.0; u], vec![0.0; u]);
    let (mut unmoved, mut missed, mut looked, mut nats) = (0, 0, 0, 0.0);
    let mut x = vec![];
    for (b, start) in (0..count).step_by(BATCH).enumerate() {
        let indices: Vec<usize> = (start..count.min(start + BATCH)).collect();
        x.resize(indices.len() * pixels, 0.0);
        binarization.fill(&data.test, Split::Test, 0, &indices, &mut x)?;
        let potentials = engine.potentials(host::tensor(x.clone(), [indices.len(), pixels], engine.device()));
        let noise = Noise::new(config.seed, Purpose::Evaluation, u64::MAX - b as u64);
        for (i, h) in potentials.chunks_exact(p).enumerate() {
            sums.iter_mut().zip(h).for_each(|(s, h)| *s += *h as f64);
            let q = posterior_mean(structure, h, &noise.at_row(i + 1))?;
            for ((m, s), q) in means.iter_mut().zip(&mut squares).zip(q) {
                *m += q as f64;
                *s += (q as f64).powi(2);
            }
        }
        let mut gamma = vec![0.0; indices.len() * u];
        noise.gumbel(&mut gamma);
        let run = |method| engine.surrogate(&x, pixels, &StepOptions { method, kl_weight: 0.0, noise: &gamma });
        unmoved += run(&separable)?.1.unmoved.unwrap_or(0);
        if let (Some(joint), true) = (&joint, start < JOINT) {
            let found = run(joint)?.1.missed.unwrap_or_default();
            (missed, nats, looked) = (missed + found.examples, nats + found.nats, looked + indices.len());
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
    let rate = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    let shown = joint.is_some();
    Ok(Inspection {
        images: count,
        unary,
        couplings: couplings(structure, &sums, n),
        active_units: variance.iter().filter(|v| **v > ACTIVE).count(),
        units: variance.len(),
        variance,
        marginal_samples: (!structure.has_sums()).then_some(SAMPLES),
        epsilon: epsilon as f64,
        zero_gradient_rate: rate(unmoved, count),
        separable_miss_rate: shown.then(|| rate(missed, looked)),
        separable_gap: shown.then(|| nats / missed.max(1) as f64),
        joint_images: shown.then_some(looked),
    })
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

/// The mean couplings of a pairwise model, from sums of potentials over `count` images.
fn couplings(structure: &AnyStructure, sums: &[f64], count: f64) -> Option<Vec<Vec<Option<f64>>>> {
    let pair = |i: usize, j: usize| match structure {
        AnyStructure::Pairwise(s) => Some(s.pair(i, j)),
        AnyStructure::Supermodular(s) => Some(s.pair(i, j)),
        _ => None,
    };
    if !matches!(structure, AnyStructure::Pairwise(_) | AnyStructure::Supermodular(_)) {
        return None;
    }
    let n = structure.variables();
    let entry = |i: usize, j: usize| (i != j).then(|| pair(i.min(j), i.max(j)).map(|at| sums[at] / count)).flatten();
    Some((0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect())
}
