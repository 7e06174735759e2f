//! Honest evaluation: the exact expectation over z and the exact -ln p(x) where all states can be enumerated.
//!
//! - `reconstruction` = E_q[-ln p(x|z)], `kl` = KL(q(z|x) || uniform), `bound` = their sum: nats per image. q is the
//!   Gibbs distribution of the encoder's potentials.
//! - `nll` = -ln p(x) = -ln sum_z p(z) p(x|z), exact.
//! - Where Z is too large ([`BoundKind`] says which): the KL is exact and the reconstruction a mean over
//!   `bound_samples` exact samples of q; or, where q has no tractable sums either, both belong to the perturbed arg max
//!   with noise on the unary potentials, with the KL from a bound of its entropy. There is no nll.
//! - `paper_loss` = reconstruction at M perturbed arg maxima (M = `paper_samples`) + KL of the unary terms alone, a
//!   product of softmaxes, as the authors report it. For independent variables both are those of q, and for estimators
//!   that enumerate it is the exact expectation, as theirs. It is no bound where there are couplings. Structures
//!   without variables that have values of their own (subsets, permutations, trees of edges) are not in the paper:
//!   there is none.
//!
//! Everything is asked of an [`Engine`]: potentials of images, and losses by its oracle. Samples are drawn, and asked
//! about, in pieces of bounded memory; every sample is a function of its place, so that the pieces do not matter.

use crate::sums::{Draws, expectations};
use crate::{Config, Error, Result};
use gumbel::continuous::{Continuous, Draw};
use gumbel::engine::{Asked, Engine, Images};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::Oracle;
use gumbel::structure::{AnyScratch, AnyStructure, Categorical, Code, Structure, Sums, argmax_batch};
use gumbel::supervision::{UNKNOWN, agreement};
use gumbel_data::Split;
use rand_chacha::ChaCha8Rng;
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
    /// Gaussian codes per image, of models that have some.
    pub codes: usize,
    /// Gaussian codes per image of the importance-weighted nll; 0: it is not computed.
    pub importance: usize,
    /// Whether the likelihood is one of 8-bit numbers.
    pub has_bits: bool,
    /// Attributes whose combinations are the values of one K-way variable; 0: none.
    pub attributes: usize,
}

/// The largest |Z| that is enumerated for every image.
const MAX_STATES: usize = 1 << 16;
/// Draws per image of the bound where Z cannot be enumerated.
const BOUND_SAMPLES: usize = 10;
/// Images evaluated at a time.
const BATCH: usize = 500;
/// Samples asked about at a time.
const ROWS: usize = 4096;
/// Fewer images at a time where each has many states: this many losses at once (64 MB).
const LOSSES: usize = 1 << 24;
/// Numbers in the samples that are drawn at a time (64 MB), and images to a piece where all do not fit.
const DRAWN: usize = 1 << 24;
const GROUP: usize = 64;

impl Protocol {
    /// The protocol that belongs to a configuration.
    pub fn new(config: &Config) -> Self {
        let paper_samples = match (config.estimator_entry().paper_samples(), config.count("eval-samples")) {
            (None, _) => None,
            (authors, 0) => authors,
            (_, samples) => Some(samples),
        };
        Protocol {
            paper_samples,
            seed: config.seed(),
            codes: config.count("eval-codes"),
            importance: 0,
            has_bits: config.likelihood().has_bits(),
            attributes: if config.latent().structure.is_single() { config.attributes().len() } else { 0 },
        }
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
    /// An unbiased estimate of the bound of a model with Gaussian codes: exact over all states, a mean over samples of
    /// the codes, whose KL is exact.
    Codes,
    /// An estimate for the perturbed arg max instead of q: reconstruction at its samples, and a lower bound of its KL,
    /// `ln |Z| - E[noise at the sample]`, between 0 and `ln |Z|`. It may lie below the true bound.
    PerturbAndMap,
}

/// Means over the images of a split, in nats per image.
#[derive(Debug, Clone, PartialEq)]
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
    /// KL of all latent variables to their prior: that of z to the uniform distribution, and of Gaussian codes.
    pub kl: f64,
    /// Of these, that of the Gaussian codes, of models that have some.
    pub codes_kl: Option<f64>,
    /// Exact -ln p(x); of a model with Gaussian codes an importance-weighted estimate, which is above it in the mean.
    pub nll: Option<f64>,
    /// Samples behind `nll` if it is an estimate.
    pub nll_samples: Option<usize>,
    /// The bound in bits for each number of an image, of likelihoods of 8-bit numbers.
    pub bits_per_dimension: Option<f64>,
    /// How the mode of q agrees with labels, where they are given.
    pub agreement: Option<Agreed>,
    /// The authors' figure; `None` for structures that are not in the paper.
    pub paper_loss: Option<f64>,
    /// Samples of z per image behind `paper_loss`; `None`: exact.
    pub paper_samples: Option<usize>,
}

/// The mode of q against labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreed {
    /// Share of the known values that the mode has: for one variable, accuracy.
    pub accuracy: f64,
    /// The same by class, of one variable, or by variable.
    pub each: Vec<Option<f64>>,
    /// Of a variable whose values are combinations of attributes, the same by attribute.
    pub attributes: Vec<f64>,
}

/// Sums over images.
#[derive(Default, Clone, Copy)]
struct Totals {
    reconstruction: f64,
    kl: f64,
    /// KL of the Gaussian codes, of which `kl` and `reconstruction` have nothing.
    codes_kl: f64,
    nll: f64,
    /// Reconstruction and KL of `paper_loss`.
    paper: [f64; 2],
}

/// The number of states of a latent whose states are enumerated: one variable with values, or not too many.
fn states(structure: &AnyStructure) -> Option<usize> {
    match structure.is_single() {
        true => Some(structure.unary()),
        false => structure.states().filter(|s| *s <= MAX_STATES),
    }
}

/// The number of a stream of noise: that of batch b of a split in a draw, of which there may be 4,096 below bit 40.
fn stream(split: Split, draw: u64, b: u64) -> u64 {
    // Its low bits stand below the split: so they have stood since there were at most 256 draws.
    (draw >> 8) << 36 | (split as u64) << 32 | (draw & 0xff) << 24 | b
}

/// Evaluates the present parameters of an engine on the first `limit` images (0: all) of a split, of which `known`
/// `[images, n]` may be known.
///
/// # Errors
/// No images; numbers that are not finite.
pub fn evaluate(
    engine: &mut dyn Engine,
    images: &dyn Images,
    split: Split,
    limit: usize,
    known: Option<&[u32]>,
    protocol: &Protocol,
) -> Result<Evaluation> {
    let count = if limit == 0 { images.count() } else { limit.min(images.count()) };
    if count == 0 {
        return Err(Error::setting(
            "dataset",
            format!("0 images of the {split} split"),
            "at least one image in each split",
        ));
    }
    let structure = engine.structure().clone();
    let kind = engine.inputs().kind();
    let states = states(&structure);
    let places = states.filter(|_| structure.code() == Code::Indicators).map(|states| Places::new(&structure, states));
    let (mut modes, mut losses) = (vec![], vec![]);
    let draws = if kind == Continuous::None { 1 } else { protocol.codes.max(1) };
    let mut found = mean(&structure, count, states, protocol, |b, range| {
        let batch: Vec<u32> = range.map(|i| i as u32).collect();
        let mut rows = vec![Totals::default(); batch.len()];
        for draw in 0..draws {
            let index = stream(split, draw as u64, b as u64);
            let noise = Noise::new(protocol.seed, Purpose::Evaluation, index);
            let gaussian = Noise::new(protocol.seed, Purpose::Evaluation, 1 << 40 | index);
            let Asked { potentials, mut oracle, codes } = engine.ask(images, &batch, Draw::Sample(&gaussian))?;
            let mut own = match states {
                Some(states) => {
                    let of: Vec<u32> = (0..batch.len() as u32).collect();
                    losses.resize(batch.len() * states, 0.0);
                    let losses = &mut losses[..];
                    oracle.states(&of, losses)?;
                    let places = places.as_ref();
                    let mut own = with_states(&structure, &potentials, places, losses, &noise, protocol)?;
                    if let Some(codes) = &codes {
                        // The losses once more without the KL of the codes: what is missing is theirs.
                        let blocks = codes.kl.len() / batch.len();
                        for (b, losses) in losses.chunks_exact_mut(states).enumerate() {
                            let kl = &codes.kl[b * blocks..][..blocks];
                            losses.iter_mut().enumerate().for_each(|(s, l)| *l -= kl[s % blocks]);
                        }
                        let without = with_states(&structure, &potentials, places, losses, &noise, protocol)?;
                        for (own, without) in own.iter_mut().zip(without) {
                            own.codes_kl = own.reconstruction - without.reconstruction;
                            own.reconstruction = without.reconstruction;
                        }
                    }
                    own
                }
                None => {
                    let mut own = with_samples(&structure, &potentials, &mut *oracle, &noise, protocol)?;
                    if let Some(codes) = &codes {
                        own.iter_mut().zip(&codes.kl).for_each(|(own, kl)| {
                            own.codes_kl = *kl as f64;
                            own.reconstruction -= own.codes_kl;
                        });
                    }
                    own
                }
            };
            if is_coupled(&structure) {
                let samples = protocol.paper_samples.unwrap_or(1);
                paper(&structure, &potentials, &mut *oracle, &noise, samples, &mut own)?;
            }
            rows.iter_mut().zip(own).for_each(|(row, own)| row.add(&own, 1.0 / draws as f64));
            if draw == 0 && known.is_some() {
                let start = modes.len();
                modes.resize(start + batch.len() * structure.variables(), 0);
                argmax_batch(&structure, &potentials, &mut modes[start..])?;
            }
        }
        Ok(rows)
    })?;
    found.codes_kl = found.codes_kl.filter(|_| kind != Continuous::None);
    if kind != Continuous::None {
        found.nll = None;
        if found.bound_kind == BoundKind::Exact {
            (found.bound_kind, found.bound_samples) = (BoundKind::Codes, Some(draws));
        }
        if let (Some(states), true) = (states, protocol.importance > 0) {
            found.nll = Some(importance(engine, images, split, (count, states), protocol)?);
            found.nll_samples = Some(protocol.importance);
        }
    }
    if protocol.has_bits {
        found.bits_per_dimension = Some(found.bound / (images.shape().len() as f64 * std::f64::consts::LN_2));
    }
    if let Some(known) = known {
        found.agreement = Some(agreed(&structure, &modes, known, protocol.attributes)?);
    }
    Ok(found)
}

/// The importance-weighted -ln p(x) of a model with Gaussian codes, exact over the states: `-ln 1/k sum_i sum_z p(z)
/// p(x | z, c_i) p(c_i) / q(c_i | x)` with k samples c_i (Burda et al., ICLR 2016).
fn importance(
    engine: &mut dyn Engine,
    images: &dyn Images,
    split: Split,
    (count, states): (usize, usize),
    protocol: &Protocol,
) -> Result<f64> {
    let structure = engine.structure().clone();
    let size = BATCH.min(LOSSES / states).max(1);
    let mut total = 0.0;
    for (b, start) in (0..count).step_by(size).enumerate() {
        let batch: Vec<u32> = (start as u32..count.min(start + size) as u32).collect();
        let of: Vec<u32> = (0..batch.len() as u32).collect();
        let mut evidence = vec![vec![]; batch.len()];
        let mut losses = vec![0.0; batch.len() * states];
        for draw in 0..protocol.importance {
            let index = stream(split, 0, b as u64);
            let noise = Noise::new(protocol.seed, Purpose::Evaluation, (draw as u64 + 1) << 44 | index);
            engine.ask(images, &batch, Draw::Weight(&noise))?.oracle.states(&of, &mut losses)?;
            for (evidence, losses) in evidence.iter_mut().zip(losses.chunks_exact(states)) {
                evidence.push(ln_sum_exp(losses.iter().map(|l| -*l as f64)) - structure.ln_states());
            }
        }
        let samples = (protocol.importance as f64).ln();
        total -= evidence.into_iter().map(|e| ln_sum_exp(e.into_iter()) - samples).sum::<f64>();
    }
    Ok(total / count as f64)
}

fn ln_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    most + values.map(|v| (v - most).exp()).sum::<f64>().ln()
}

/// Modes `[images, n]` against what is known of the images, of which there may be more.
fn agreed(structure: &AnyStructure, modes: &[u32], known: &[u32], attributes: usize) -> Result<Agreed> {
    let n = structure.variables();
    let known = known.get(..modes.len()).unwrap_or(known);
    let accuracy = agreement(modes, known, n)?.accuracy();
    let groups = if n == 1 { structure.unary() } else { n };
    let mut counts = vec![[0usize; 2]; groups];
    for (place, (z, y)) in modes.iter().zip(known).enumerate().filter(|(_, (_, y))| **y != UNKNOWN) {
        let [correct, all] = &mut counts[if n == 1 { *y as usize } else { place % n }];
        (*correct, *all) = (*correct + (z == y) as usize, *all + 1);
    }
    let each = counts.iter().map(|[correct, all]| (*all > 0).then(|| *correct as f64 / *all as f64)).collect();
    // The first attribute is the highest binary digit.
    let of_attribute = |a: usize| {
        let (mut same, mut all) = (0, 0);
        for (z, y) in modes.iter().zip(known).filter(|(_, y)| **y != UNKNOWN) {
            let digit = attributes - 1 - a;
            (same, all) = (same + u32::from((z ^ y) >> digit & 1 == 0), all + 1);
        }
        f64::from(same) / f64::from(all.max(1))
    };
    Ok(Agreed { accuracy, each, attributes: (0..attributes).map(of_attribute).collect() })
}

impl Totals {
    fn add(&mut self, other: &Totals, weight: f64) {
        self.reconstruction += weight * other.reconstruction;
        self.kl += weight * other.kl;
        self.codes_kl += weight * other.codes_kl;
        self.nll += weight * other.nll;
        (0..2).for_each(|i| self.paper[i] += weight * other.paper[i]);
    }
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
            totals.add(&row, 1.0);
        }
    }
    let n = count as f64;
    let kl = totals.kl / n;
    // A bound of the KL from below may say less than nothing, and its estimate more than there is.
    let estimated = states.is_none() && !structure.has_sums();
    let kl = if estimated { kl.max(0.0).min(structure.ln_states()) } else { kl };
    let [paper, paper_kl] = totals.paper;
    let (paper_loss, paper_samples) = match structure.is_independent() {
        true => (Some(paper / n + kl), protocol.paper_samples),
        false if is_coupled(structure) => (Some((paper + paper_kl) / n), Some(protocol.paper_samples.unwrap_or(1))),
        false => (None, None),
    };
    let codes_kl = totals.codes_kl / n;
    Ok(Evaluation {
        images: count,
        bound: totals.reconstruction / n + kl + codes_kl,
        bound_kind: match states {
            Some(_) => BoundKind::Exact,
            None if structure.has_sums() => BoundKind::Sampled,
            None => BoundKind::PerturbAndMap,
        },
        bound_samples: states.is_none().then(|| bound_samples(protocol)),
        reconstruction: totals.reconstruction / n,
        kl: kl + codes_kl,
        codes_kl: Some(codes_kl),
        nll: states.is_some().then_some(totals.nll / n),
        nll_samples: None,
        bits_per_dimension: None,
        agreement: None,
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
    !structure.is_independent() && structure.code() != Code::Indicators
}

/// The codes of all states as places of ones: indicators are their own statistics, and finding a state is dear.
struct Places {
    ones: Vec<u32>,
    ends: Vec<usize>,
}

impl Places {
    fn new(structure: &AnyStructure, states: usize) -> Self {
        let (mut z, mut code) = (vec![0; structure.variables()], vec![0.0; structure.unary()]);
        let (mut ones, mut ends) = (vec![], Vec::with_capacity(states));
        for state in 0..states {
            structure.state(state, &mut z);
            structure.encode(&z, &mut code);
            ones.extend((0..code.len() as u32).filter(|u| code[*u as usize] != 0.0));
            ends.push(ones.len());
        }
        Places { ones, ends }
    }

    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        let mut start = 0;
        for (score, end) in scores.iter_mut().zip(&self.ends) {
            *score = self.ones[start..*end].iter().map(|u| potentials[*u as usize]).sum();
            start = *end;
        }
    }
}

/// Each image against all states, whose `losses` are `[batch, states]`.
fn with_states(
    structure: &AnyStructure,
    potentials: &[f32],
    codes: Option<&Places>,
    losses: &[f32],
    noise: &Noise,
    protocol: &Protocol,
) -> Result<Vec<Totals>> {
    let width = structure.potentials();
    let states = losses.len() / (potentials.len() / width);
    let independent = structure.is_independent();
    let rows = potentials.par_chunks(width).zip(losses.par_chunks(states)).enumerate();
    let row = |q: &mut Vec<f32>, (b, (h, losses)): (usize, (&[f32], &[f32]))| {
        match codes {
            Some(codes) => codes.scores(h, q),
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
        Ok(Totals { reconstruction: found.loss, kl, codes_kl: 0.0, nll, paper: [paper, 0.0] })
    };
    rows.map_init(|| vec![0.0; states], row).collect()
}

/// Samples of one image, one after the other.
struct Sampler<'a> {
    structure: &'a AnyStructure,
    potentials: &'a [f32],
    source: Source,
    /// Noise of mean zero at the unary statistics of the perturbed arg maxima so far.
    collected: f64,
    /// Losses at the samples so far, and at the first of them.
    losses: f64,
    paper: f64,
    /// Number of samples.
    count: usize,
}

enum Source {
    /// Exact samples of q.
    Sums(ChaCha8Rng),
    /// Arg maxima perturbed by a stream of noise.
    Perturbed(Noise, AnyScratch),
}

impl<'a> Sampler<'a> {
    fn exact(structure: &'a AnyStructure, potentials: &'a [f32], noise: &Noise) -> Self {
        Sampler::new(structure, potentials, Source::Sums(noise.generator_at(0)))
    }

    fn perturbed(structure: &'a AnyStructure, potentials: &'a [f32], noise: Noise) -> Self {
        Sampler::new(structure, potentials, Source::Perturbed(noise, structure.scratch()))
    }

    fn new(structure: &'a AnyStructure, potentials: &'a [f32], source: Source) -> Self {
        Sampler { structure, potentials, source, collected: 0.0, losses: 0.0, paper: 0.0, count: 0 }
    }

    /// Draws the next samples `[samples, n]`.
    fn draw(&mut self, z: &mut [u32]) -> Result<()> {
        let (structure, h, u) = (self.structure, self.potentials, self.structure.unary());
        let n = structure.variables();
        match &mut self.source {
            Source::Sums(generator) => structure.samples(h, generator, z)?,
            Source::Perturbed(noise, scratch) => {
                let mut gamma = vec![0.0; z.len() / n * u];
                noise.at((self.count * u) as u64).zero_mean_gumbel(&mut gamma);
                let (mut perturbed, mut code) = (h.to_vec(), vec![0.0; u]);
                let mut last: Option<&[u32]> = None;
                for (z, gamma) in z.chunks_exact_mut(n).zip(gamma.chunks_exact(u)) {
                    perturbed.iter_mut().zip(h).zip(gamma).for_each(|((p, h), g)| *p = h + g);
                    // From the second on only the noise is another one.
                    match last {
                        Some(last) => {
                            z.copy_from_slice(last);
                            structure.resolve(&perturbed, z, scratch)?
                        }
                        None => structure.argmax(&perturbed, z, scratch)?,
                    };
                    last = Some(z);
                    structure.encode(z, &mut code);
                    self.collected += code.iter().zip(gamma).map(|(c, g)| (c * g) as f64).sum::<f64>();
                }
            }
        }
        self.count += z.len() / n;
        Ok(())
    }
}

/// Draws `samples` of each image and adds up their losses, of the first `paper` samples also by themselves.
fn add_losses(
    samplers: &mut [Sampler<'_>],
    oracle: &mut dyn Oracle,
    (samples, paper): (usize, usize),
    drawn: usize,
) -> Result<()> {
    let Some(structure) = samplers.first().map(|s| s.structure) else { return Ok(()) };
    let (n, width) = (structure.variables(), structure.variables().max(structure.unary()));
    // All at once, or pieces of images and of samples.
    let at_once = samplers.len().saturating_mul(samples).saturating_mul(width) <= drawn;
    let group = if at_once { samplers.len() } else { GROUP };
    let piece = if at_once { samples } else { (drawn / (group * width)).clamp(1, samples) };
    let (mut z, mut losses, mut of) = (vec![], vec![0.0; ROWS], vec![0; ROWS]);
    for (g, samplers) in samplers.chunks_mut(group).enumerate() {
        for start in (0..samples).step_by(piece) {
            let count = piece.min(samples - start);
            z.resize(samplers.len() * count * n, 0);
            samplers.par_iter_mut().zip(z.par_chunks_mut(count * n)).try_for_each(|(sampler, z)| sampler.draw(z))?;
            for (r, z) in z.chunks(ROWS * n).enumerate() {
                let rows = z.len() / n;
                let image = |row: usize| (r * ROWS + row) / count;
                let (of, losses) = (&mut of[..rows], &mut losses[..rows]);
                of.iter_mut().enumerate().for_each(|(row, of)| *of = (g * group + image(row)) as u32);
                oracle.losses(of, z, losses)?;
                for (row, loss) in losses.iter().enumerate() {
                    let sampler = &mut samplers[image(row)];
                    sampler.losses += *loss as f64;
                    if start + (r * ROWS + row) % count < paper {
                        sampler.paper += *loss as f64;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Each image at sampled states: of q, or of the perturbed arg max where q cannot be sampled.
fn with_samples(
    structure: &AnyStructure,
    potentials: &[f32],
    oracle: &mut dyn Oracle,
    noise: &Noise,
    protocol: &Protocol,
) -> Result<Vec<Totals>> {
    let (all, paper) = (bound_samples(protocol), protocol.paper_samples.unwrap_or(1));
    let rows = || potentials.par_chunks(structure.potentials()).enumerate();
    let sampler = |(b, h)| match structure.has_sums() {
        true => Sampler::exact(structure, h, &noise.at_row(b)),
        false => Sampler::perturbed(structure, h, noise.at_row(b)),
    };
    let mut samplers: Vec<Sampler<'_>> = rows().map(sampler).collect();
    let kl: Vec<f64> = match structure.has_sums() {
        true => rows().map(|(_, h)| structure.kl_to_uniform(h, 0.0, &mut [])).collect::<Result<_, _>>()?,
        false => vec![],
    };
    add_losses(&mut samplers, oracle, (all, paper), DRAWN)?;
    let totals = samplers.iter().enumerate().map(|(b, s)| Totals {
        reconstruction: s.losses / all as f64,
        kl: kl.get(b).copied().unwrap_or(structure.ln_states() - s.collected / all as f64),
        codes_kl: 0.0,
        nll: 0.0,
        paper: [s.paper / paper as f64, 0.0],
    });
    Ok(totals.collect())
}

/// The paper's figure for coupled variables, into `rows`.
fn paper(
    structure: &AnyStructure,
    potentials: &[f32],
    oracle: &mut dyn Oracle,
    noise: &Noise,
    samples: usize,
    rows: &mut [Totals],
) -> Result<()> {
    let (width, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let unary = Categorical::product(n, u / n)?;
    let count = rows.len();
    let images = potentials.chunks_exact(width).enumerate();
    let sampler = |(b, h)| Sampler::perturbed(structure, h, noise.at_row(count + b));
    let mut samplers: Vec<Sampler<'_>> = images.map(sampler).collect();
    add_losses(&mut samplers, oracle, (samples, 0), DRAWN)?;
    for (row, sampler) in rows.iter_mut().zip(&samplers) {
        let kl = unary.kl_to_uniform(&sampler.potentials[..u], 0.0, &mut [])?;
        row.paper = [sampler.losses / samples as f64, kl];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gumbel::oracle::Closure;
    use gumbel::structure::latents;

    const BATCH: usize = 4;

    fn structure(latent: &str) -> AnyStructure {
        latents().parse(latent).unwrap().structure
    }

    /// Potentials of some size for a few images.
    fn potentials(structure: &AnyStructure) -> Vec<f32> {
        let p = structure.potentials();
        let mut h = vec![0.0; BATCH * p];
        Noise::new(1, Purpose::User(0), 0).zero_mean_gumbel(&mut h);
        h.chunks_mut(p).for_each(|h| structure.to_potentials(h));
        h
    }

    /// A loss that is not linear in the code, another one for every image.
    fn loss(image: usize, code: &[f32]) -> f32 {
        let sum: f32 = code.iter().enumerate().map(|(u, c)| c * ((u * 7 + image * 3) % 11) as f32).sum();
        20.0 + sum + 0.3 * (sum - 7.0).powi(2).min(30.0)
    }

    type Loss = fn(usize, &[f32]) -> f32;

    fn oracle(structure: &AnyStructure) -> Closure<'_, AnyStructure, Loss> {
        Closure::new(structure, loss)
    }

    /// Scores and losses of every state, by the plain way.
    fn plain(structure: &AnyStructure, image: usize, h: &[f32]) -> [Vec<f64>; 2] {
        let (mut z, mut code) = (vec![0; structure.variables()], vec![0.0; structure.unary()]);
        let mut out = [vec![], vec![]];
        for s in 0..structure.states().unwrap() {
            structure.state(s, &mut z);
            structure.encode(&z, &mut code);
            out[0].push(structure.score(h, &z));
            out[1].push(loss(image, &code) as f64);
        }
        out
    }

    fn protocol(samples: usize) -> Protocol {
        Protocol { paper_samples: Some(samples), seed: 0, codes: 1, importance: 0, has_bits: false, attributes: 0 }
    }

    fn exactly(structure: &AnyStructure, h: &[f32], noise: &Noise) -> Vec<Totals> {
        let states = states(structure).unwrap();
        let of: Vec<u32> = (0..BATCH as u32).collect();
        let mut losses = vec![0.0; BATCH * states];
        oracle(structure).states(&of, &mut losses).unwrap();
        let codes = (structure.code() == Code::Indicators).then(|| Places::new(structure, states));
        with_states(structure, h, codes.as_ref(), &losses, noise, &protocol(1)).unwrap()
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
            "categorical:6",
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
            let structure = &structure(latent);
            let h = potentials(structure);
            let noise = Noise::new(2, Purpose::User(1), 0);
            let exact = exactly(structure, &h, &noise);
            let sampled = with_samples(structure, &h, &mut oracle(structure), &noise, &protocol(samples)).unwrap();
            let images = h.chunks(structure.potentials()).enumerate();
            for ((exact, sampled), (b, h)) in exact.iter().zip(&sampled).zip(images) {
                let [scores, losses] = plain(structure, b, h);
                let [mean, variance, kl, nll] = expected(structure, &scores, &losses);
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

    /// Classes 6 = 110 and 3 = 011 share the second of three attributes.
    #[test]
    fn modes_agree_with_labels_as_a_whole_and_by_attribute() {
        let classes = Categorical::new(8).unwrap().into();
        let found = agreed(&classes, &[6, 3, 0, 7], &[6, 6, UNKNOWN, 5, 1], 3).unwrap();
        assert_eq!(found.accuracy, 1.0 / 3.0);
        assert_eq!(found.attributes, [2.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0]);
        assert_eq!(found.each[5..], [Some(0.0), Some(0.5), None]);
        let found = agreed(&classes, &[6, 6], &[6, 3], 3).unwrap();
        assert_eq!(found.attributes, [0.5, 1.0, 0.5]);
        let bits = Categorical::binary(2).unwrap().into();
        let found = agreed(&bits, &[1, 0, 1, 1], &[1, UNKNOWN, 0, 1], 0).unwrap();
        assert_eq!((found.accuracy, &found.each[..]), (2.0 / 3.0, &[Some(0.5), Some(1.0)][..]));
        assert!(found.attributes.is_empty());
    }

    /// Found by a hostile tester: many samples asked for 87 GB. Pieces change no bit.
    #[test]
    fn samples_in_pieces_are_the_same_samples() {
        for latent in ["chain:3x3", "pairwise:4", "spanning-tree:4", "arborescence:3", "subset:5,2", "permutation:3"] {
            let structure = &structure(latent);
            let h = potentials(structure);
            let noise = Noise::new(3, Purpose::User(1), 0);
            let at = |drawn: usize| -> Vec<[u64; 3]> {
                let images = h.chunks(structure.potentials()).enumerate();
                let sampler = |(b, h)| match structure.has_sums() {
                    true => Sampler::exact(structure, h, &noise.at_row(b)),
                    false => Sampler::perturbed(structure, h, noise.at_row(b)),
                };
                let mut samplers: Vec<Sampler<'_>> = images.map(sampler).collect();
                add_losses(&mut samplers, &mut oracle(structure), (3000, 7), drawn).unwrap();
                samplers.iter().map(|s| [s.losses, s.paper, s.collected].map(f64::to_bits)).collect()
            };
            let whole = at(DRAWN);
            assert_eq!(whole, at(10_000), "{latent}");
            assert_eq!(whole, at(1), "{latent}");
        }
    }

    /// Mean loss at the perturbed arg max, by another simulation; KL of the unary terms by its definition.
    #[test]
    fn the_papers_loss_is_that_of_the_perturbed_argmax_and_unary_terms() {
        let samples = 4000;
        for latent in ["pairwise:4", "supermodular:4", "chain:3x3"] {
            let structure = &structure(latent);
            let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
            let h = potentials(structure);
            let noise = Noise::new(3, Purpose::User(1), 0);
            let mut rows = vec![Totals::default(); BATCH];
            paper(structure, &h, &mut oracle(structure), &noise, samples, &mut rows).unwrap();
            for (b, (h, row)) in h.chunks(p).zip(&rows).enumerate() {
                let [_, losses] = plain(structure, b, h);
                let (mut gamma, mut z) = (vec![0.0; samples * u], vec![0; n]);
                Noise::new(4, Purpose::User(2), 0).gumbel(&mut gamma);
                let mut code = vec![0.0; u];
                let drawn: Vec<f64> = gamma
                    .chunks(u)
                    .map(|gamma| {
                        // The state with the largest perturbed score.
                        let mut score = |s: usize| {
                            structure.state(s, &mut z);
                            structure.encode(&z, &mut code);
                            structure.score(h, &z) + code.iter().zip(gamma).map(|(c, g)| (c * g) as f64).sum::<f64>()
                        };
                        let scores: Vec<f64> = (0..losses.len()).map(&mut score).collect();
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
        let structure = &structure("permutation:3");
        let h = potentials(structure);
        let noise = Noise::new(5, Purpose::User(1), 0);
        let found = with_samples(structure, &h, &mut oracle(structure), &noise, &protocol(samples)).unwrap();
        for (b, (h, found)) in h.chunks(9).zip(&found).enumerate() {
            let mut z = vec![0; samples * 3];
            Sampler::perturbed(structure, h, noise.at_row(b)).draw(&mut z).unwrap();
            let mut counts = std::collections::HashMap::new();
            z.chunks(3).for_each(|z| *counts.entry(z).or_insert(0usize) += 1);
            let entropy: f64 = counts.values().map(|c| *c as f64 / samples as f64).map(|q| -q * q.ln()).sum();
            let kl = structure.ln_states() - entropy;
            // Noise of three Gumbel variables: a standard deviation of 2.2 at most.
            assert!(found.kl < kl + 4.0 * 2.3 / (samples as f64).sqrt(), "{} {kl}", found.kl);
        }
    }

    /// Found by a hostile tester: 15.39 nats of ln |Z| = 14.56.
    #[test]
    fn the_kl_of_the_perturbed_argmax_is_at_most_that_of_one_state() {
        let structure = structure("permutation:9");
        for (kl, expected) in [(99.0, structure.ln_states()), (-99.0, 0.0), (1.5, 1.5)] {
            let rows = |_, range: Range<usize>| Ok(vec![Totals { kl, ..Totals::default() }; range.len()]);
            let found = mean(&structure, 3, None, &protocol(1), rows).unwrap();
            assert_eq!((found.kl, found.bound), (expected, expected));
        }
    }
}
