//! What a stored model has learned: its potentials, its couplings, and how its second arg max moves.

use crate::{Config, KlSchedule, Result};
use gumbel::continuous::Draw;
use gumbel::engine::{Asked, Engine, Images};
use gumbel::estimator::{
    Direct, DirectJoint, Estimator, Flips, Memory, Perturbation, Search, enumerable, estimate, estimate_with,
};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::Oracle;
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
    /// For the same images: how near each way to the second arg max comes to the true one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arg_maxima: Vec<ArgMax>,
}

/// How near a way to the second arg max comes to that of the true loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArgMax {
    /// As in the settings `joint` and `first`.
    pub joint: String,
    /// Share of the images for which it is found.
    pub found: f64,
    /// Mean of the objective lost, in nats, over all images.
    pub gap: f64,
}

/// A posterior mean that varies more than this over the images carries information.
const ACTIVE: f64 = 0.01;
/// Samples of the perturbed arg max for posterior means.
const SAMPLES: usize = 100;
/// Images at a time.
const BATCH: usize = 100;
/// Images whose arg maxima under the true loss are looked for.
const JOINT: usize = 200;

/// What to look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// The first so many images; 0: all.
    pub limit: usize,
    /// epsilon of the arg maxima; that of the last training step of the model if there is none.
    pub epsilon: Option<f64>,
}

/// Looks at a model trained for `steps` steps.
///
/// # Errors
/// Numbers that are not finite, images that cannot be read.
pub fn inspect(
    engine: &mut dyn Engine,
    config: &Config,
    images: &dyn Images,
    steps: u64,
    Look { limit, epsilon }: Look,
) -> Result<Inspection> {
    let structure = &engine.structure().clone();
    let (p, u) = (structure.potentials(), structure.unary());
    let count = if limit == 0 { images.count() } else { limit.min(images.count()) };
    let scheduled = config.scheduled(steps.saturating_sub(1))?;
    let last = scheduled.iter().find(|(name, _)| name == "epsilon").map_or(1.0, |(_, e)| *e);
    let epsilon = epsilon.unwrap_or(last);
    let kl = config.kl().is_inside(config.estimator()?.kl(structure)) && config.kl() != KlSchedule::Off;
    let direct = Direct::new(epsilon as f32)?.with_kl(kl as u8 as f32);
    let joint = (enumerable(structure).is_ok() && structure.variables() > 1)
        .then(|| DirectJoint::new(direct, Perturbation::Unary));

    let (mut sums, mut means, mut squares) = (vec![0.0; p], vec![0.0; u], vec![0.0; u]);
    let mut arg_maxima = vec![];
    let (mut unmoved, mut missed, mut gap, mut looked) = (0.0, 0.0, [0.0, 0.0], 0);
    for (b, start) in (0..count).step_by(BATCH).enumerate() {
        let batch: Vec<u32> = (start as u32..count.min(start + BATCH) as u32).collect();
        let Asked { potentials, mut oracle, .. } = engine.ask(images, &batch, Draw::Mean)?;
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
            let sums = compare(structure, &direct, (&potentials, &gamma), &mut *oracle)?;
            if arg_maxima.is_empty() {
                arg_maxima = sums;
            } else {
                for (all, more) in arg_maxima.iter_mut().zip(sums) {
                    (all.found, all.gap) = (all.found + more.found, all.gap + more.gap);
                }
            }
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
    for all in &mut arg_maxima {
        (all.found, all.gap) = (all.found / looked.max(1) as f64, all.gap / looked.max(1) as f64);
    }
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
        arg_maxima,
    })
}

/// Each way to the second arg max beside the true one: sums over the images.
fn compare(
    structure: &AnyStructure,
    direct: &Direct,
    (potentials, gamma): (&[f32], &[f32]),
    oracle: &mut dyn Oracle,
) -> Result<Vec<ArgMax>> {
    // What the rounding of a loss, a sum of many pixels in f32, may come to.
    const ROUNDING: f64 = 1e-2;
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let of: Vec<u32> = (0..(potentials.len() / p) as u32).collect();
    let keep = direct.keep(-direct.epsilon());
    let mut memory = Memory::default();
    let mut values = |estimator: &dyn Estimator| -> Result<Vec<f64>> {
        estimate_with(estimator, structure, potentials, gamma, oracle, &mut memory)?;
        let z = &memory.moved[..of.len() * n];
        let mut losses = vec![0.0; of.len()];
        oracle.losses(&of, z, &mut losses)?;
        let mut kept = vec![0.0; p];
        let values = losses.iter().enumerate().map(|(b, loss)| {
            for (kept, h) in kept.iter_mut().zip(&potentials[b * p..]) {
                *kept = if *h > f32::NEG_INFINITY { keep * h } else { *h };
            }
            kept.iter_mut().zip(&gamma[b * u..][..u]).for_each(|(kept, gamma)| *kept += gamma);
            structure.score(&kept, &z[b * n..][..n]) - (direct.epsilon() * loss) as f64
        });
        Ok(values.collect())
    };
    let best = values(&DirectJoint::new(*direct, Perturbation::Unary))?;
    let mut ways: Vec<(&str, Box<dyn Estimator>)> = vec![("off", Box::new(*direct))];
    if structure.has_moves() {
        ways.push(("search", Box::new(Search::new(*direct))));
        ways.push(("search, first changes", Box::new(Search::new(*direct).from_changes())));
    }
    if structure.code() != Code::Indicators {
        ways.push(("flips", Box::new(Flips::new(*direct))));
    }
    let compared = ways.into_iter().map(|(joint, estimator)| {
        let gaps: Vec<f64> = values(&*estimator)?.iter().zip(&best).map(|(v, b)| (b - v).max(0.0)).collect();
        let found = gaps.iter().filter(|gap| **gap <= ROUNDING).count() as f64;
        Ok(ArgMax { joint: joint.into(), found, gap: gaps.iter().sum() })
    });
    compared.collect()
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
