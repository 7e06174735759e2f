//! Honest evaluation: the exact expectation over z and the exact -ln p(x) where all states can be enumerated.
//!
//! - `reconstruction` = E_q[-ln p(x|z)], `kl` = KL(q(z|x) || uniform), `bound` = their sum: nats per image. q is the
//!   Gibbs distribution of the encoder's potentials.
//! - `nll` = -ln p(x) = -ln sum_z p(z) p(x|z), exact.
//! - Where Z is too large ([`BoundKind`] says which): the KL is exact and the reconstruction a mean over `bound_samples`
//!   exact samples of q; or, where q has no tractable sums either, both belong to the perturbed arg max with noise on the
//!   unary potentials, with the KL from a bound of its entropy. There is no nll.
//! - `paper_loss` = reconstruction at M perturbed arg maxima (M = `paper_samples`) + KL of the unary terms alone, a
//!   product of softmaxes, as the authors report it. For independent variables both are those of q, and for estimators
//!   that enumerate it is the exact expectation, as theirs. It is no bound where there are couplings. Structures without
//!   variables that have values of their own (subsets, permutations, trees of edges) are not in the paper: there is none.
//!
//! The decoder does not see the image, so its outputs for all states are computed once per evaluation.

use crate::config::{EstimatorName, TrainConfig};
use crate::engine::Autodiff;
use crate::fused::{Bits, Fused};
use crate::model::{Decoder, Encoder};
use crate::table::{self, Draws, StateTable, expectations};
use crate::{Error, Result, host, likelihood};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{AnyStructure, Categorical, Code, Structure, Sums};
use gumbel_data::{Dataset, Split};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
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
/// Samples decoded at a time.
const ROWS: usize = 4096;
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

/// What the number called `bound` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoundKind {
    /// The bound, by enumeration of all states.
    #[default]
    Exact,
    /// An unbiased estimate of the bound: exact KL, reconstruction at exact samples of q.
    Sampled,
    /// An estimate for the perturbed arg max instead of q: reconstruction at its samples, and a lower bound of its KL,
    /// `ln |Z| - E[noise at the sample]`, or 0. It may lie below the true bound.
    PerturbAndMap,
}

/// Means over the images of a split, in nats per image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Images evaluated.
    pub images: usize,
    /// Upper bound of -ln p(x), or its estimate: see `bound_kind`.
    pub bound: f64,
    /// What `bound` is.
    pub bound_kind: BoundKind,
    /// Samples of z per image behind `bound`; `None`: exact.
    pub bound_samples: Option<usize>,
    /// E_q[-ln p(x|z)].
    pub reconstruction: f64,
    /// KL(q || uniform).
    pub kl: f64,
    /// Exact -ln p(x).
    pub nll: Option<f64>,
    /// The authors' figure; `None` for structures that are not in the paper.
    pub paper_loss: Option<f64>,
    /// Samples of z per image behind `paper_loss`; `None`: exact.
    pub paper_samples: Option<usize>,
}

/// Sums over images.
#[derive(Default, Clone, Copy)]
struct Totals {
    reconstruction: f64,
    kl: f64,
    nll: f64,
    /// Reconstruction and KL of `paper_loss`.
    paper: [f64; 2],
}

/// Images of a split that are evaluated under a limit (0: all).
fn limited(count: usize, limit: usize) -> usize {
    if limit == 0 { count } else { limit.min(count) }
}

/// The noise of batch b of a split.
fn noise(protocol: &Protocol, split: Split, b: usize) -> Noise {
    Noise::new(protocol.seed, Purpose::Evaluation, (split as u64) << 32 | b as u64)
}

/// The decoder's outputs for all states under some parameters, kept from one evaluation to the next.
#[derive(Default)]
pub struct Decoded(Option<StateTable>);

/// Evaluates a model on the first `limit` images (0: all) of a split. `decoded` belongs to the model's parameters, or is
/// empty and is filled here.
pub fn evaluate<E: Encoder, D: Decoder>(
    engine: &Autodiff<E, D>,
    config: &TrainConfig,
    data: &Dataset,
    (split, limit): (Split, usize),
    protocol: &Protocol,
    decoded: &mut Decoded,
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

    let states = table::states(structure);
    let table = states.map(|states| decoded.0.get_or_insert_with(|| plain.state_table(states)));
    let mut x = vec![];
    mean(structure, count, states, protocol, |b, range| {
        let indices: Vec<usize> = range.collect();
        x.resize(indices.len() * pixels, 0.0);
        binarization.fill(images, split, 0, &indices, &mut x)?;
        let noise = noise(protocol, split, b);
        let tensor = host::tensor(x.clone(), [indices.len(), pixels], plain.device());
        let potentials = plain.potentials(tensor.clone());
        let images = Images { x: &x, pixels, potentials: &potentials, noise: &noise };
        let mut rows = match &table {
            Some(table) => {
                let scores = table.scores(&potentials, plain.device());
                with_table(structure, &potentials, scores.as_deref(), &table.losses(tensor), &noise, protocol)?
            }
            None => with_samples(&plain, &images, protocol)?,
        };
        if is_coupled(structure) {
            paper(&plain, &images, protocol.paper_samples.unwrap_or(1), &mut rows)?;
        }
        Ok(rows)
    })
}

/// The same for independent variables through the kernels of the fused engine, which must have a table; `images` are the
/// split's.
pub fn evaluate_fused(
    engine: &mut Fused,
    images: &Bits,
    split: Split,
    limit: usize,
    protocol: &Protocol,
) -> Result<Evaluation> {
    let structure = engine.structure().clone();
    let states = engine.states();
    let (mut potentials, mut losses) = (vec![], vec![]);
    mean(&structure, limited(images.count(), limit), Some(states), protocol, |b, range| {
        let batch: Vec<u32> = range.map(|i| i as u32).collect();
        potentials.resize(batch.len() * structure.potentials(), 0.0);
        losses.resize(batch.len() * states, 0.0);
        engine.table_losses(images, &batch, &mut potentials, &mut losses);
        with_table(&structure, &potentials, None, &losses, &noise(protocol, split, b), protocol)
    })
}

/// The mean over `count` images of what `rows` says of batch b of them.
fn mean(
    structure: &AnyStructure,
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
            (0..2).for_each(|i| totals.paper[i] += row.paper[i]);
        }
    }
    let n = count as f64;
    let kl = totals.kl / n;
    // A bound of the KL from below may say less than nothing.
    let kl = if states.is_none() && !structure.has_sums() { kl.max(0.0) } else { kl };
    let [paper, paper_kl] = totals.paper;
    let (paper_loss, paper_samples) = match structure.block(0) {
        Some(_) => (Some(paper / n + kl), protocol.paper_samples),
        None if is_coupled(structure) => (Some((paper + paper_kl) / n), Some(protocol.paper_samples.unwrap_or(1))),
        None => (None, None),
    };
    Ok(Evaluation {
        images: count,
        bound: totals.reconstruction / n + kl,
        bound_kind: match states {
            Some(_) => BoundKind::Exact,
            None if structure.has_sums() => BoundKind::Sampled,
            None => BoundKind::PerturbAndMap,
        },
        bound_samples: states.is_none().then(|| bound_samples(protocol)),
        reconstruction: totals.reconstruction / n,
        kl,
        nll: states.is_some().then_some(totals.nll / n),
        paper_loss,
        paper_samples,
    })
}

/// Samples of z per image behind an estimate of the bound.
fn bound_samples(protocol: &Protocol) -> usize {
    protocol.paper_samples.unwrap_or(1).max(BOUND_SAMPLES)
}

/// Variables that have values of their own, and couplings: the paper's structured models.
fn is_coupled(structure: &AnyStructure) -> bool {
    structure.block(0).is_none() && structure.code() != Code::Indicators
}

/// Some images and what the encoder says of them.
struct Images<'a> {
    /// `[batch, pixels]`.
    x: &'a [f32],
    pixels: usize,
    /// `[batch, P]`.
    potentials: &'a [f32],
    noise: &'a Noise,
}

/// Each image against all states: `losses` and `scores` are `[batch, states]`; without scores, the structure has them.
fn with_table(
    structure: &AnyStructure,
    potentials: &[f32],
    scores: Option<&[f32]>,
    losses: &[f32],
    noise: &Noise,
    protocol: &Protocol,
) -> Result<Vec<Totals>> {
    let width = structure.potentials();
    let states = losses.len() / (potentials.len() / width);
    let independent = structure.block(0).is_some();
    let rows = potentials.par_chunks(width).zip(losses.par_chunks(states)).enumerate();
    let row = |q: &mut Vec<f32>, (b, (h, losses)): (usize, (&[f32], &[f32]))| {
        match scores {
            Some(scores) => q.copy_from_slice(&scores[b * states..][..states]),
            None => structure.scores(h, q),
        }
        let found = expectations(q, losses);
        let kl = match independent {
            true => structure.kl_to_uniform(h, 0.0, &mut [])?,
            false => structure.ln_states() + found.ln_q,
        };
        let paper = match protocol.paper_samples {
            Some(samples) if independent => {
                // Exact samples of q, as distributed as the arg max of perturbed potentials.
                let mut u = vec![0.0; samples];
                noise.at_row(b).uniform(&mut u);
                let draws = Draws::new(q);
                u.iter().map(|u| losses[draws.draw(*u)] as f64).sum::<f64>() / samples as f64
            }
            _ => found.loss,
        };
        let nll = structure.ln_states() - found.ln_evidence;
        Ok(Totals { reconstruction: found.loss, kl, nll, paper: [paper, 0.0] })
    };
    rows.map_init(|| vec![0.0; states], row).collect()
}

/// Each image at sampled states: of q, or of the perturbed arg max where q cannot be sampled.
fn with_samples<E: Encoder, D: Decoder>(
    engine: &Autodiff<E, D>,
    images: &Images<'_>,
    protocol: &Protocol,
) -> Result<Vec<Totals>> {
    let structure = &engine.structure;
    let (width, n) = (structure.potentials(), structure.variables());
    let all = bound_samples(protocol);
    let mut totals = vec![Totals::default(); images.potentials.len() / width];
    let mut z = vec![0; totals.len() * all * n];
    let rows = images.potentials.par_chunks(width).zip(z.par_chunks_mut(all * n)).zip(&mut totals).enumerate();
    rows.try_for_each(|(b, ((h, z), t))| -> Result<()> {
        let noise = images.noise.at_row(b);
        if structure.has_sums() {
            t.kl = structure.kl_to_uniform(h, 0.0, &mut [])?;
            structure.samples(h, &mut noise.generator_at(0), z)?;
        } else {
            let collected = perturbed(structure, h, &noise, z)?;
            let mean = collected.iter().sum::<f64>() / all as f64;
            t.kl = structure.ln_states() - mean;
        }
        Ok(())
    })?;
    let losses = sampled_losses(engine, images, &z, all);
    let paper = protocol.paper_samples.unwrap_or(1);
    for (t, losses) in totals.iter_mut().zip(losses.chunks_exact(all)) {
        let mean = |losses: &[f32]| losses.iter().map(|l| *l as f64).sum::<f64>() / losses.len() as f64;
        t.reconstruction = mean(losses);
        t.paper[0] = mean(&losses[..paper]);
    }
    Ok(totals)
}

/// The paper's figure for coupled variables, into `rows`.
fn paper<E: Encoder, D: Decoder>(
    engine: &Autodiff<E, D>,
    images: &Images<'_>,
    samples: usize,
    rows: &mut [Totals],
) -> Result<()> {
    let structure = &engine.structure;
    let (width, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let unary = Categorical::product(n, u / n)?;
    let mut z = vec![0; rows.len() * samples * n];
    let count = rows.len();
    let all = images.potentials.par_chunks(width).zip(z.par_chunks_mut(samples * n)).zip(&mut *rows).enumerate();
    all.try_for_each(|(b, ((h, z), row))| -> Result<()> {
        row.paper[1] = unary.kl_to_uniform(&h[..u], 0.0, &mut [])?;
        perturbed(structure, h, &images.noise.at_row(count + b), z).map(drop)
    })?;
    let losses = sampled_losses(engine, images, &z, samples);
    for (row, losses) in rows.iter_mut().zip(losses.chunks_exact(samples)) {
        row.paper[0] = losses.iter().map(|l| *l as f64).sum::<f64>() / samples as f64;
    }
    Ok(())
}

/// Perturbed arg maxima `[samples, n]` of one example, and for each the noise of mean zero at its unary statistics.
fn perturbed(structure: &AnyStructure, h: &[f32], noise: &Noise, z: &mut [u32]) -> Result<Vec<f64>> {
    let (u, n) = (structure.unary(), structure.variables());
    let samples = z.len() / n;
    let mut gamma = vec![0.0; samples * u];
    noise.zero_mean_gumbel(&mut gamma);
    let (mut perturbed, mut code, mut scratch) = (h.to_vec(), vec![0.0; u], structure.scratch());
    let draws = z.chunks_exact_mut(n).zip(gamma.chunks_exact(u)).map(|(z, gamma)| {
        perturbed.iter_mut().zip(h).zip(gamma).for_each(|((p, h), g)| *p = h + g);
        structure.argmax(&perturbed, z, &mut scratch)?;
        structure.encode(z, &mut code);
        Ok(code.iter().zip(gamma).map(|(c, g)| (c * g) as f64).sum())
    });
    draws.collect()
}

/// Losses `[batch, samples]` of images at assignments `[batch, samples, n]`.
fn sampled_losses<E: Encoder, D: Decoder>(
    engine: &Autodiff<E, D>,
    images: &Images<'_>,
    z: &[u32],
    samples: usize,
) -> Vec<f32> {
    let per_piece = (ROWS / samples).max(1);
    let (n, pixels) = (engine.structure.variables(), images.pixels);
    let mut losses = vec![];
    for (z, x) in z.chunks(per_piece * samples * n).zip(images.x.chunks(per_piece * pixels)) {
        let logits = host::read(engine.decoder().logits(engine.codes(z)));
        let start = losses.len();
        losses.resize(start + z.len() / n, 0.0);
        likelihood::losses(&logits, x, pixels, samples, &mut losses[start..]);
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Latent;
    use crate::executor::model;
    use burn::tensor::Tensor;

    const PIXELS: usize = 19;
    const BATCH: usize = 4;

    /// A model with potentials of some size, and images.
    fn setting(latent: &str) -> (Autodiff<crate::model::Mlp, crate::model::Mlp>, Vec<f32>) {
        let latent: Latent = latent.parse().unwrap();
        let config = TrainConfig { latent, hidden: vec![13], ..TrainConfig::default() };
        let mut engine = model(&config, PIXELS).unwrap();
        // Larger last layers than initial ones, so that there is something to see.
        let grown = |named: Vec<crate::model::Named>| {
            let grow = |mut p: crate::model::Named| {
                p.values.iter_mut().for_each(|v| *v *= 3.0);
                p
            };
            named.into_iter().map(grow).collect::<Vec<_>>()
        };
        let encoder = grown(crate::model::parameters(engine.encoder()));
        let decoder = grown(crate::model::parameters(engine.decoder()));
        let encoder = crate::model::with_parameters(engine.encoder().clone(), &encoder).unwrap();
        let decoder = crate::model::with_parameters(engine.decoder().clone(), &decoder).unwrap();
        engine.set_modules(encoder, decoder);
        let mut u = vec![0.0; BATCH * PIXELS];
        Noise::new(1, Purpose::User(0), 0).uniform(&mut u);
        (engine, u.iter().map(|u| (*u < 0.4) as u8 as f32).collect())
    }

    fn tensor(x: &[f32]) -> Tensor<2> {
        host::tensor(x.to_vec(), [BATCH, PIXELS], &burn::tensor::Device::flex())
    }

    /// Scores and losses of every state, by the plain way.
    fn plain(engine: &Autodiff<crate::model::Mlp, crate::model::Mlp>, x: &[f32], h: &[f32]) -> Vec<[Vec<f64>; 2]> {
        let (structure, engine) = (&engine.structure, engine.valid());
        let (p, states) = (structure.potentials(), structure.states().unwrap());
        let mut z = vec![0; structure.variables()];
        let rows = x.chunks(PIXELS).zip(h.chunks(p)).map(|(x, h)| {
            let mut out = [vec![], vec![]];
            for s in 0..states {
                structure.state(s, &mut z);
                out[0].push(structure.score(h, &z));
                let logits = host::read(engine.decoder().logits(engine.codes(&z)));
                let pixel = |(t, x): (&f32, &f32)| (1.0 + (*t as f64).exp()).ln() - (x * t) as f64;
                out[1].push(logits.iter().zip(x).map(pixel).sum());
            }
            out
        });
        rows.collect()
    }

    fn protocol(samples: usize) -> Protocol {
        Protocol { paper_samples: Some(samples), seed: 0 }
    }

    /// E_q of the losses, its variance, KL and -ln p(x) of an image by their definitions.
    fn expected(structure: &AnyStructure, scores: &[f64], losses: &[f64]) -> [f64; 4] {
        let ln_sum = |x: &mut dyn Iterator<Item = f64>| x.map(f64::exp).sum::<f64>().ln();
        let partition = ln_sum(&mut scores.iter().copied());
        let q: Vec<f64> = scores.iter().map(|h| (h - partition).exp()).collect();
        let mean: f64 = q.iter().zip(losses).map(|(q, l)| q * l).sum();
        let variance = q.iter().zip(losses).map(|(q, l)| q * (l - mean).powi(2)).sum();
        let kl = structure.ln_states() + q.iter().map(|q| q * q.ln()).sum::<f64>();
        [mean, variance, kl, structure.ln_states() - ln_sum(&mut losses.iter().map(|l| -l))]
    }

    #[test]
    fn the_bound_is_that_of_its_definition_exactly_or_by_samples() {
        let samples = 4000;
        for latent in [
            "binary:4",
            "pairwise:4",
            "supermodular:4",
            "chain:3x3",
            "tree:3x3",
            "subset:5,2",
            "spanning-tree:4",
            "arborescence:3",
            "permutation:3",
        ] {
            let (engine, x) = setting(latent);
            let (plain_engine, structure) = (engine.valid(), &engine.structure);
            let h = engine.potentials(tensor(&x));
            let noise = Noise::new(2, Purpose::User(1), 0);
            let table = plain_engine.state_table(table::states(structure).unwrap());
            let scores = table.scores(&h, engine.device());
            let losses = table.losses(tensor(&x));
            let exact = with_table(structure, &h, scores.as_deref(), &losses, &noise, &protocol(1)).unwrap();
            let images = Images { x: &x, pixels: PIXELS, potentials: &h, noise: &noise };
            let sampled = with_samples(&plain_engine, &images, &protocol(samples)).unwrap();
            let all = plain(&engine, &x, &h);
            for ((exact, sampled), [scores, losses]) in exact.iter().zip(&sampled).zip(&all) {
                let [mean, variance, kl, nll] = expected(structure, scores, losses);
                assert!((exact.reconstruction - mean).abs() < 1e-4, "{latent}: {} {mean}", exact.reconstruction);
                assert!((exact.kl - kl).abs() < 1e-4, "{latent}: {} {kl}", exact.kl);
                assert!((exact.nll - nll).abs() < 1e-4, "{latent}: {} {nll}", exact.nll);
                assert!(kl > 0.01 && mean + kl > nll, "{latent}: nothing to compare");
                if structure.has_sums() {
                    let error = (variance / samples as f64).sqrt();
                    let found = sampled.reconstruction;
                    assert!((found - mean).abs() < 4.0 * error, "{latent}: {found}, {mean} ± {error}");
                    assert!((sampled.kl - kl).abs() < 1e-4, "{latent}");
                }
            }
        }
    }

    /// Mean loss at the perturbed arg max, by another simulation; KL of the unary terms by its definition.
    #[test]
    fn the_papers_loss_is_that_of_the_perturbed_argmax_and_unary_terms() {
        let samples = 4000;
        for latent in ["pairwise:4", "supermodular:4", "chain:3x3"] {
            let (engine, x) = setting(latent);
            let structure = &engine.structure;
            let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
            let h = engine.potentials(tensor(&x));
            let noise = Noise::new(3, Purpose::User(1), 0);
            let images = Images { x: &x, pixels: PIXELS, potentials: &h, noise: &noise };
            let mut rows = vec![Totals::default(); BATCH];
            paper(&engine.valid(), &images, samples, &mut rows).unwrap();
            let all = plain(&engine, &x, &h);
            for ((h, row), [_, losses]) in h.chunks(p).zip(&rows).zip(&all) {
                let (mut gamma, mut z) = (vec![0.0; samples * u], vec![0; n]);
                Noise::new(4, Purpose::User(2), 0).gumbel(&mut gamma);
                let drawn: Vec<f64> = gamma
                    .chunks(u)
                    .map(|gamma| {
                        // The state with the largest perturbed score.
                        let score = |s: &usize, z: &mut Vec<u32>, code: &mut Vec<f32>| {
                            structure.state(*s, z);
                            structure.encode(z, code);
                            structure.score(h, z) + code.iter().zip(gamma).map(|(c, g)| (c * g) as f64).sum::<f64>()
                        };
                        let mut code = vec![0.0; u];
                        let scores: Vec<f64> = (0..losses.len()).map(|s| score(&s, &mut z, &mut code)).collect();
                        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
                        losses[best]
                    })
                    .collect();
                let mean = drawn.iter().sum::<f64>() / samples as f64;
                let variance = drawn.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / samples as f64;
                let error = (2.0 * variance / samples as f64).sqrt();
                assert!((row.paper[0] - mean).abs() < 4.0 * error, "{latent}: {} {mean} ± {error}", row.paper[0]);
                let k = u / n;
                let kl: f64 = h[..u]
                    .chunks(k)
                    .map(|h| {
                        let sum: f64 = h.iter().map(|h| (*h as f64).exp()).sum();
                        let q = h.iter().map(|h| (*h as f64).exp() / sum);
                        q.map(|q| q * (q * k as f64).ln()).sum::<f64>()
                    })
                    .sum();
                assert!((row.paper[1] - kl).abs() < 1e-5, "{latent}");
            }
        }
    }

    /// Where q has no sums, the KL of the perturbed arg max is bounded from below.
    #[test]
    fn the_estimate_for_the_perturbed_argmax_lies_below_its_kl() {
        let samples = 20_000;
        let (engine, x) = setting("permutation:3");
        let h = engine.potentials(tensor(&x));
        let noise = Noise::new(5, Purpose::User(1), 0);
        let images = Images { x: &x, pixels: PIXELS, potentials: &h, noise: &noise };
        let found = with_samples(&engine.valid(), &images, &protocol(samples)).unwrap();
        for (b, (h, found)) in h.chunks(9).zip(&found).enumerate() {
            let mut z = vec![0; samples * 3];
            perturbed(&engine.structure, h, &noise.at_row(b), &mut z).unwrap();
            let mut counts = std::collections::HashMap::new();
            z.chunks(3).for_each(|z| *counts.entry(z).or_insert(0usize) += 1);
            let entropy: f64 = counts.values().map(|c| *c as f64 / samples as f64).map(|q| -q * q.ln()).sum();
            let kl = engine.structure.ln_states() - entropy;
            // Noise of three Gumbel variables: a standard deviation of 2.2 at most.
            assert!(found.kl < kl + 4.0 * 2.3 / (samples as f64).sqrt(), "{} {kl}", found.kl);
        }
    }
}
