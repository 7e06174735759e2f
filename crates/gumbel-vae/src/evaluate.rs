//! Honest evaluation: the exact expectation over z and the exact -ln p(x) where all states can be enumerated.
//!
//! - `reconstruction` = E_q[-ln p(x|z)], `kl` = KL(q(z|x) || uniform), `bound` = their sum: nats per image.
//! - `nll` = -ln p(x) = -ln sum_z p(z) p(x|z), exact.
//! - Where Z is too large, the expectation becomes a mean over `bound_samples` exact samples of q, and there is no nll.
//! - `paper_loss` = reconstruction at M sampled z + KL, as the authors report it (M = `paper_samples`); for estimators
//!   that enumerate, the exact expectation, as they do.
//!
//! The decoder does not see the image, so its outputs for all states are computed once per evaluation.

use crate::config::{EstimatorName, TrainConfig};
use crate::engine::{Autodiff, enumerable_or_single, table_losses};
use crate::fused::{Bits, Fused};
use crate::model::{Decoder, Encoder};
use crate::{Error, Result, host, likelihood};
use gumbel::math::{log_sum_exp, softmax_in_place};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Categorical, Structure, Sums};
use gumbel_data::{Dataset, Split};
use rayon::prelude::*;
use std::ops::Range;

/// How an evaluation is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Protocol {
    /// Samples of z per image for `paper_loss`; `None`: the exact expectation.
    pub paper_samples: Option<usize>,
    /// Seed of the samples.
    pub seed: u64,
}

/// Draws per image of `paper_loss` for the relaxed estimators, as the authors do.
const RELAXED_SAMPLES: usize = 100;
/// Draws per image of the bound where Z cannot be enumerated.
const BOUND_SAMPLES: usize = 10;
/// Images evaluated at a time.
const BATCH: usize = 500;
/// Fewer images at a time where each has many states: this many losses at once (64 MB).
const LOSSES: usize = 1 << 24;

impl Protocol {
    /// The protocol that belongs to a configuration.
    pub fn new(config: &TrainConfig) -> Self {
        let paper_samples = match (config.estimator, config.eval_samples) {
            (EstimatorName::Exact | EstimatorName::Marginal, _) => None,
            (EstimatorName::GumbelSoftmax | EstimatorName::StraightThrough, 0) => Some(RELAXED_SAMPLES),
            (_, 0) => Some(1),
            (_, samples) => Some(samples),
        };
        Protocol { paper_samples, seed: config.seed }
    }
}

/// Means over the images of a split, in nats per image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Images evaluated.
    pub images: usize,
    /// Upper bound of -ln p(x), or its estimate if `bound_samples` is set.
    pub bound: f64,
    /// Samples of z per image behind `bound`; `None`: exact.
    pub bound_samples: Option<usize>,
    /// E_q[-ln p(x|z)].
    pub reconstruction: f64,
    /// KL(q || uniform).
    pub kl: f64,
    /// Exact -ln p(x).
    pub nll: Option<f64>,
    /// The authors' figure.
    pub paper_loss: f64,
    /// Samples of z per image behind `paper_loss`; `None`: exact.
    pub paper_samples: Option<usize>,
}

/// Sums over images.
#[derive(Default, Clone, Copy)]
struct Totals {
    reconstruction: f64,
    kl: f64,
    nll: f64,
    paper: f64,
}

/// Images of a split that are evaluated under a limit (0: all).
fn limited(count: usize, limit: usize) -> usize {
    if limit == 0 { count } else { limit.min(count) }
}

/// The noise of batch b of a split.
fn noise(protocol: &Protocol, split: Split, b: usize) -> Noise {
    Noise::new(protocol.seed, Purpose::Evaluation, (split as u64) << 32 | b as u64)
}

/// Evaluates a model on the first `limit` images (0: all) of a split.
pub fn evaluate<E: Encoder, D: Decoder>(
    engine: &Autodiff<E, D>,
    config: &TrainConfig,
    data: &Dataset,
    split: Split,
    limit: usize,
    protocol: &Protocol,
) -> Result<Evaluation> {
    let images = data.split(split);
    let count = limited(images.count(), limit);
    if count == 0 {
        return Err(Error::setting("dataset", config.dataset, format!("at least one image in the {split} split")));
    }
    let pixels = images.dim();
    // Without autodiff: nothing is recorded.
    let plain = engine.valid();
    let structure = &plain.structure;
    let binarization = config.binarization.with_seed(config.seed);

    let table = match enumerable_or_single(structure) {
        Err(_) => None,
        Ok(states) => {
            let table = plain.table(states).inner();
            let mut sums = vec![0.0; states];
            likelihood::losses(&host::read(table.clone()), &vec![0.0; pixels], pixels, states, &mut sums);
            Some((table, sums))
        }
    };
    let states = table.as_ref().map(|(_, sums)| sums.len());
    let mut x = vec![];
    mean(count, states, protocol, |b, range| {
        let indices: Vec<usize> = range.collect();
        x.resize(indices.len() * pixels, 0.0);
        binarization.fill(images, split, 0, &indices, &mut x)?;
        let noise = noise(protocol, split, b);
        let tensor = host::tensor(x.clone(), [indices.len(), pixels], plain.device());
        let potentials = host::read(plain.encoder().potentials(tensor.clone()));
        match &table {
            Some((table, sums)) => {
                let losses = table_losses(&tensor, table.clone(), sums);
                with_table(structure, &potentials, &losses, &noise, protocol)
            }
            None => with_samples(&plain, &potentials, &x, pixels, &noise, protocol),
        }
    })
}

/// The same through the kernels of the fused engine, which must have a table; `images` are the split's.
pub fn evaluate_fused(
    engine: &mut Fused,
    images: &Bits,
    split: Split,
    limit: usize,
    protocol: &Protocol,
) -> Result<Evaluation> {
    let structure = engine.structure();
    let states = engine.states();
    let (mut potentials, mut losses) = (vec![], vec![]);
    mean(limited(images.count(), limit), Some(states), protocol, |b, range| {
        let batch: Vec<u32> = range.map(|i| i as u32).collect();
        potentials.resize(batch.len() * structure.potentials(), 0.0);
        losses.resize(batch.len() * states, 0.0);
        engine.table_losses(images, &batch, &mut potentials, &mut losses);
        with_table(&structure, &potentials, &losses, &noise(protocol, split, b), protocol)
    })
}

/// The mean over `count` images of what `rows` says of batch b of them.
fn mean(
    count: usize,
    states: Option<usize>,
    protocol: &Protocol,
    mut rows: impl FnMut(usize, Range<usize>) -> Result<Vec<Totals>>,
) -> Result<Evaluation> {
    let batch = states.map_or(BATCH, |states| BATCH.min(LOSSES / states).max(1));
    let mut totals = Totals::default();
    for (b, start) in (0..count).step_by(batch).enumerate() {
        // In the order of the images: the sum does not depend on threads.
        for row in rows(b, start..count.min(start + batch))? {
            totals.reconstruction += row.reconstruction;
            totals.kl += row.kl;
            totals.nll += row.nll;
            totals.paper += row.paper;
        }
    }
    let n = count as f64;
    let kl = totals.kl / n;
    Ok(Evaluation {
        images: count,
        bound: totals.reconstruction / n + kl,
        bound_samples: states.is_none().then(|| protocol.paper_samples.unwrap_or(1).max(BOUND_SAMPLES)),
        reconstruction: totals.reconstruction / n,
        kl,
        nll: states.is_some().then_some(totals.nll / n),
        paper_loss: totals.paper / n + kl,
        paper_samples: protocol.paper_samples,
    })
}

/// Each image against all states: `losses` is `[batch, states]`.
fn with_table(
    structure: &Categorical,
    potentials: &[f32],
    losses: &[f32],
    noise: &Noise,
    protocol: &Protocol,
) -> Result<Vec<Totals>> {
    let width = structure.potentials();
    let states = losses.len() / (potentials.len() / width);
    let rows = potentials.par_chunks(width).zip(losses.par_chunks(states)).enumerate();
    rows.map(|(b, (h, losses))| {
        let kl = structure.kl_to_uniform(h, 0.0, &mut [])?;
        let mut q = vec![0.0; states];
        structure.scores(h, &mut q);
        softmax_in_place(&mut q);
        let reconstruction = q.iter().zip(losses).map(|(q, l)| *q as f64 * *l as f64).sum();
        let negated: Vec<f32> = losses.iter().map(|l| -l).collect();
        let nll = structure.ln_states() - log_sum_exp(&negated) as f64;
        let paper = match protocol.paper_samples {
            None => reconstruction,
            Some(samples) => {
                // Exact samples of q by its cumulative sums, as distributed as the arg max of perturbed potentials.
                let mut cumulative = q;
                (1..states).for_each(|s| cumulative[s] += cumulative[s - 1]);
                let mut u = vec![0.0; samples];
                noise.at_row(b).uniform(&mut u);
                let draw = |u: &f32| losses[cumulative.partition_point(|c| *c < *u * cumulative[states - 1])] as f64;
                u.iter().map(draw).sum::<f64>() / samples as f64
            }
        };
        Ok(Totals { reconstruction, kl, nll, paper })
    })
    .collect()
}

/// Each image at sampled states.
fn with_samples<E: Encoder, D: Decoder>(
    engine: &Autodiff<E, D>,
    potentials: &[f32],
    x: &[f32],
    pixels: usize,
    noise: &Noise,
    protocol: &Protocol,
) -> Result<Vec<Totals>> {
    let structure = &engine.structure;
    let (width, n) = (structure.potentials(), structure.variables());
    let batch = potentials.len() / width;
    let mut totals = vec![Totals::default(); batch];
    for (h, t) in potentials.chunks_exact(width).zip(&mut totals) {
        t.kl = structure.kl_to_uniform(h, 0.0, &mut [])?;
    }
    let paper = protocol.paper_samples.unwrap_or(1);
    let all = paper.max(BOUND_SAMPLES);
    let mut z = vec![0; batch * n];
    let mut losses = vec![0.0; batch];
    for m in 0..all {
        for (b, (h, z)) in potentials.chunks_exact(width).zip(z.chunks_exact_mut(n)).enumerate() {
            structure.sample(h, &mut noise.at_row(m * batch + b).generator_at(0), z)?;
        }
        let logits = host::read(engine.decoder().logits(engine.codes(&z)));
        likelihood::losses(&logits, x, pixels, 1, &mut losses);
        for (t, l) in totals.iter_mut().zip(&losses) {
            t.reconstruction += *l as f64 / all as f64;
            if m < paper {
                t.paper += *l as f64 / paper as f64;
            }
        }
    }
    Ok(totals)
}
