//! Gaussian codes beside the discrete one: how a decoder reads both, and the closed forms that training needs.
//!
//! An encoder may emit, beside the potentials of z, means m and log-variances v of Gaussian codes
//! `q(c | x) = N(m, exp v)` with the prior N(0, I). Two ways to read them:
//!
//! - [`Continuous::Rows`] (paper, Section 4.2): every state k of a small latent has a code of its own; the decoder
//!   reads the matrix `[K, D]` whose rows are zero but for row z. With state weights y (of a relaxed code, their
//!   multilinear extension: `y_k` is the probability of state k where the variables are independent) row k is `y_k
//!   c_k`, and the loss of the codes is `sum_k y_k KL_k`.
//! - [`Continuous::Joint`]: one code c, read behind the discrete code of any structure.
//!
//! Codes are reparametrised, `c = m + exp(v / 2) n` with n from N(0, I) (Kingma and Welling, ICLR 2014), and
//! `KL(q || N(0, I)) = 1/2 sum_d (m^2 + exp v - 1 - v)` in nats. [`Inputs`] is the map from a code and samples to what
//! the decoder reads, with its derivatives; [`Gaussians`] are the codes of a batch. Both engines use them, so that an
//! oracle of a mixed model answers every estimator: the loss of state k is `-ln p(x | k, c_k) + KL_k`.

use crate::Error;
use crate::noise::Noise;
use crate::structure::{AnyStructure, Code, Structure};
use std::fmt;
use std::str::FromStr;

/// Most states that may have codes of their own.
pub const MAX_STATES: usize = 1024;
/// Most dimensions of a code.
pub const MAX_DIM: usize = 4096;

/// Which Gaussian codes a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Continuous {
    /// None: the decoder reads the discrete code.
    #[default]
    None,
    /// One of D dimensions for every state.
    Rows(usize),
    /// One of D dimensions beside the discrete code.
    Joint(usize),
}

impl Continuous {
    /// Dimensions of a code.
    pub fn dim(self) -> usize {
        match self {
            Continuous::None => 0,
            Continuous::Rows(dim) | Continuous::Joint(dim) => dim,
        }
    }
}

impl fmt::Display for Continuous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Continuous::None => f.write_str("none"),
            Continuous::Rows(dim) => write!(f, "rows:{dim}"),
            Continuous::Joint(dim) => write!(f, "joint:{dim}"),
        }
    }
}

impl FromStr for Continuous {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let dim = |text: &str| text.parse().ok().filter(|dim| (1..=MAX_DIM).contains(dim));
        let found = match s.split_once(':') {
            None if s == "none" => Some(Continuous::None),
            Some(("rows", text)) => dim(text).map(Continuous::Rows),
            Some(("joint", text)) => dim(text).map(Continuous::Joint),
            _ => None,
        };
        let expected = format!("none, rows:D or joint:D with 1 to {MAX_DIM} dimensions");
        found.ok_or_else(|| Error::setting("continuous", s, expected))
    }
}

/// What a decoder reads of a code and of samples: numbers in a row.
#[derive(Debug, Clone)]
pub struct Inputs {
    kind: Continuous,
    unary: usize,
    blocks: usize,
    indicators: bool,
    /// The codes of all states `[K, U]`, where a state's weight is a product.
    states: Option<Vec<f32>>,
}

impl Inputs {
    /// Those of a latent without Gaussian codes: its code.
    pub fn discrete(structure: &AnyStructure) -> Self {
        let indicators = structure.code() == Code::Indicators;
        Inputs { kind: Continuous::None, unary: structure.unary(), blocks: 0, indicators, states: None }
    }

    /// Those of a latent.
    ///
    /// # Errors
    /// More than [`MAX_STATES`] states with codes of their own.
    pub fn new(kind: Continuous, structure: &AnyStructure) -> Result<Self, Error> {
        let unary = structure.unary();
        let indicators = structure.code() == Code::Indicators;
        let (blocks, states) = match kind {
            Continuous::None => (0, None),
            Continuous::Joint(_) => (1, None),
            Continuous::Rows(_) => {
                let states = structure.states().filter(|states| *states <= MAX_STATES).ok_or_else(|| {
                    let expected = format!("joint:D, or a latent of at most {MAX_STATES} states");
                    Error::setting("continuous", kind, expected)
                })?;
                (states, (!structure.is_single()).then(|| codes_of_states(structure, states)))
            }
        };
        Ok(Inputs { kind, unary, blocks, indicators, states })
    }

    /// Which codes there are.
    pub fn kind(&self) -> Continuous {
        self.kind
    }

    /// Gaussian codes of an image: one for every state, one, or none.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Numbers of the samples of an image, `[blocks, D]`.
    pub fn samples(&self) -> usize {
        self.blocks * self.kind.dim()
    }

    /// Numbers that the encoder emits for them, `[blocks, 2, D]`: means, then log-variances.
    pub fn parameters(&self) -> usize {
        2 * self.samples()
    }

    /// Numbers that the decoder reads.
    pub fn width(&self) -> usize {
        match self.kind {
            Continuous::None => self.unary,
            Continuous::Rows(_) => self.samples(),
            Continuous::Joint(dim) => self.unary + dim,
        }
    }

    /// Weights of the states `[blocks]` of a code `[U]`; 1 where there is one code for all.
    pub fn weights(&self, code: &[f32], weights: &mut [f32]) {
        match (self.kind, &self.states) {
            (Continuous::Rows(_), None) => weights.copy_from_slice(code),
            (Continuous::Rows(_), Some(states)) => {
                for (weight, state) in weights.iter_mut().zip(states.chunks_exact(self.unary)) {
                    *weight = self.factors(code, state).product();
                }
            }
            _ => weights.fill(1.0),
        }
    }

    /// The factors of a state's weight: of independent variables the probability of each value; of indicators that of
    /// each place.
    fn factors<'a>(&self, code: &'a [f32], state: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let indicators = self.indicators;
        code.iter().zip(state).filter(move |(_, on)| indicators || **on != 0.0).map(|(c, on)| match *on != 0.0 {
            true => *c,
            false => 1.0 - c,
        })
    }

    /// What the decoder reads `[width]` of a code `[U]` and samples `[blocks, D]`. `weights` `[blocks]` are those of
    /// the [states](Inputs::weights).
    pub fn input(&self, code: &[f32], weights: &[f32], samples: &[f32], input: &mut [f32]) {
        match self.kind {
            Continuous::None => input.copy_from_slice(code),
            Continuous::Rows(dim) => {
                let rows = input.chunks_exact_mut(dim).zip(samples.chunks_exact(dim)).zip(weights);
                for ((row, sample), weight) in rows {
                    row.iter_mut().zip(sample).for_each(|(r, c)| *r = weight * c);
                }
            }
            Continuous::Joint(_) => {
                let (discrete, continuous) = input.split_at_mut(self.unary);
                discrete.copy_from_slice(code);
                continuous.copy_from_slice(samples);
            }
        }
    }

    /// Writes the derivative in the code `[U]` of a loss whose derivative at the decoder's input `[width]` is given,
    /// with that of the codes' KL `[blocks]`.
    pub fn code_slopes(&self, code: &[f32], samples: &[f32], kl: &[f32], at_input: &[f32], slopes: &mut [f32]) {
        let dim = match self.kind {
            Continuous::Rows(dim) => dim,
            _ => return slopes.copy_from_slice(&at_input[..self.unary]),
        };
        let at_weight = |k: usize| {
            let (g, c) = (&at_input[k * dim..][..dim], &samples[k * dim..][..dim]);
            g.iter().zip(c).map(|(g, c)| g * c).sum::<f32>() + kl[k]
        };
        let Some(states) = &self.states else {
            slopes.iter_mut().enumerate().for_each(|(k, slope)| *slope = at_weight(k));
            return;
        };
        slopes.fill(0.0);
        for (k, state) in states.chunks_exact(self.unary).enumerate() {
            let slope = at_weight(k);
            for u in (0..self.unary).filter(|u| self.indicators || state[*u] != 0.0) {
                // The product of the other factors.
                let places = (0..self.unary).filter(|v| *v != u && (self.indicators || state[*v] != 0.0));
                let others: f32 = places.map(|v| if state[v] != 0.0 { code[v] } else { 1.0 - code[v] }).product();
                slopes[u] += if state[u] != 0.0 { slope * others } else { -slope * others };
            }
        }
    }

    /// Adds the derivative at the samples `[blocks, D]` of a loss whose derivative at the decoder's input is given.
    pub fn add_sample_slopes(&self, weights: &[f32], at_input: &[f32], slopes: &mut [f32]) {
        match self.kind {
            Continuous::None => {}
            Continuous::Rows(dim) => {
                let rows = slopes.chunks_exact_mut(dim).zip(at_input.chunks_exact(dim)).zip(weights);
                for ((row, g), weight) in rows.filter(|(_, weight)| **weight != 0.0) {
                    row.iter_mut().zip(g).for_each(|(r, g)| *r += weight * g);
                }
            }
            Continuous::Joint(_) => {
                slopes.iter_mut().zip(&at_input[self.unary..]).for_each(|(s, g)| *s += g);
            }
        }
    }
}

fn codes_of_states(structure: &AnyStructure, states: usize) -> Vec<f32> {
    let (u, mut z) = (structure.unary(), vec![0; structure.variables()]);
    let mut codes = vec![0.0; states * u];
    for (s, code) in codes.chunks_exact_mut(u).enumerate() {
        structure.state(s, &mut z);
        structure.encode(&z, code);
    }
    codes
}

/// How the Gaussian codes of an answer are chosen, and what a loss has of them.
#[derive(Debug, Clone, Copy)]
pub enum Draw<'a> {
    /// Their means, without a term: to look at.
    Mean,
    /// Samples; losses have the KL in closed form.
    Sample(&'a Noise),
    /// Samples; losses have `ln q(c | x) - ln p(c)` at the sample, so that `exp(-loss)` is an unbiased estimate of
    /// `p(x | z)` (importance weighting; Burda et al., ICLR 2016).
    Weight(&'a Noise),
}

/// By what the KL of Gaussian codes is multiplied in training; the reported bound has it once.
///
/// Above 1 the codes say less, and leave to the discrete code what it can say (Higgins et al., "beta-VAE", ICLR 2017).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlWeights {
    /// In the losses that an estimator asks for; the authors' code has 0 here.
    pub asked: f32,
    /// In what the decoder follows.
    pub followed: f32,
}

impl KlWeights {
    /// Both 1: the bound.
    pub const BOUND: KlWeights = KlWeights { asked: 1.0, followed: 1.0 };

    /// What a loss that is asked for has of a KL in nats: nothing at the weight 0, even of an infinite one.
    pub fn term(self, kl: f32) -> f32 {
        if self.asked == 0.0 { 0.0 } else { self.asked * kl }
    }
}

/// The Gaussian codes of a batch.
#[derive(Debug, Clone, Default)]
pub struct Gaussians {
    dim: usize,
    blocks: usize,
    /// `[batch, blocks, 2, D]`.
    parameters: Vec<f32>,
    /// Standard normal variables `[batch, blocks, D]`.
    noise: Vec<f32>,
    /// `[batch, blocks, D]`.
    pub samples: Vec<f32>,
    /// The codes' part of a loss `[batch, blocks]`, in nats.
    pub terms: Vec<f32>,
}

impl Gaussians {
    /// Draws the codes of parameters `[batch, blocks, 2, D]`. The noise of an image is a function of its place.
    pub fn new(inputs: &Inputs, parameters: Vec<f32>, draw: Draw<'_>) -> Self {
        let (dim, blocks, width) = (inputs.kind.dim(), inputs.blocks, inputs.samples());
        if width == 0 {
            return Gaussians::default();
        }
        let batch = parameters.len() / (2 * width);
        let mut noise = vec![0.0; batch * width];
        if let Draw::Sample(stream) | Draw::Weight(stream) = draw {
            noise.chunks_exact_mut(width).enumerate().for_each(|(b, row)| stream.at_row(b).normal(row));
        }
        let (mut samples, mut terms) = (vec![0.0; batch * width], vec![0.0; batch * blocks]);
        let rows = parameters.chunks_exact(2 * dim).zip(noise.chunks_exact(dim)).zip(samples.chunks_exact_mut(dim));
        for (((parameters, noise), sample), term) in rows.zip(&mut terms) {
            let (mean, log_variance) = parameters.split_at(dim);
            for (d, c) in sample.iter_mut().enumerate() {
                *c = mean[d] + (0.5 * log_variance[d]).exp() * noise[d];
            }
            *term = match draw {
                Draw::Mean => 0.0,
                Draw::Sample(_) => kl(parameters),
                Draw::Weight(_) => {
                    let one = |d: usize| sample[d] * sample[d] - noise[d] * noise[d] - log_variance[d];
                    0.5 * (0..dim).map(one).sum::<f32>()
                }
            };
        }
        Gaussians { dim, blocks, parameters, noise, samples, terms }
    }

    /// What the encoder says of them, `[batch, blocks, 2, D]`: means, then log-variances.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// Numbers of the samples of an image.
    fn width(&self) -> usize {
        self.blocks * self.dim
    }

    /// The samples `[blocks, D]` of an image.
    pub fn samples_of(&self, image: usize) -> &[f32] {
        &self.samples[image * self.width()..][..self.width()]
    }

    /// The codes' part of the losses `[blocks]` of an image.
    pub fn terms_of(&self, image: usize) -> &[f32] {
        &self.terms[image * self.blocks..][..self.blocks]
    }

    /// KL of every code `[batch, blocks]`, in nats.
    pub fn kl(&self) -> Vec<f32> {
        if self.dim == 0 { vec![] } else { self.parameters.chunks_exact(2 * self.dim).map(kl).collect() }
    }

    /// The derivative at the parameters `[batch, blocks, 2, D]`, given that at the samples `[batch, blocks, D]` and the
    /// weights of the KL terms `[batch, blocks]`.
    pub fn slopes(&self, at_samples: &[f32], kl_weights: &[f32]) -> Vec<f32> {
        let dim = self.dim;
        let mut slopes = vec![0.0; self.parameters.len()];
        if dim == 0 {
            return slopes;
        }
        let rows = slopes.chunks_exact_mut(2 * dim).zip(self.parameters.chunks_exact(2 * dim));
        let rows = rows.zip(at_samples.chunks_exact(dim).zip(self.noise.chunks_exact(dim))).zip(kl_weights);
        for (((slopes, parameters), (at_sample, noise)), weight) in rows {
            let (at_mean, at_log_variance) = slopes.split_at_mut(dim);
            let (mean, log_variance) = parameters.split_at(dim);
            for d in 0..dim {
                let deviation = (0.5 * log_variance[d]).exp();
                at_mean[d] = at_sample[d] + weight * mean[d];
                at_log_variance[d] =
                    0.5 * (at_sample[d] * noise[d] * deviation + weight * (deviation * deviation - 1.0));
            }
        }
        slopes
    }
}

/// `KL(N(m, exp v) || N(0, I))` in nats of parameters `[2, D]`: means, then log-variances.
///
/// ```
/// assert_eq!(gumbel::continuous::kl(&[0.0, 0.0, 0.0, 0.0]), 0.0);
/// assert_eq!(gumbel::continuous::kl(&[1.0, 2.0, 0.0, 0.0]), 2.5);
/// ```
pub fn kl(parameters: &[f32]) -> f32 {
    let (mean, log_variance) = parameters.split_at(parameters.len() / 2);
    let one = |(m, v): (&f32, &f32)| m * m + v.exp() - 1.0 - v;
    0.5 * mean.iter().zip(log_variance).map(one).sum::<f32>()
}

/// What each dimension adds to the [KL](kl) of parameters `[2, D]`, in nats `[D]`: how much a code says by it.
///
/// ```
/// let kl: Vec<f32> = gumbel::continuous::kl_of_dimensions(&[1.0, 2.0, 0.0, 0.0]).collect();
/// assert_eq!(kl, [0.5, 2.0]);
/// ```
pub fn kl_of_dimensions(parameters: &[f32]) -> impl Iterator<Item = f32> + '_ {
    let (mean, log_variance) = parameters.split_at(parameters.len() / 2);
    mean.iter().zip(log_variance).map(|(m, v)| 0.5 * (m * m + v.exp() - 1.0 - v))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Purpose;
    use crate::structure::{Categorical, Pairwise, Subset};

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut x = vec![0.0; len];
        Noise::new(seed, Purpose::User(0), 0).uniform(&mut x);
        x
    }

    #[test]
    fn texts_are_read_and_shown() {
        for text in ["none", "rows:30", "joint:1"] {
            assert_eq!(text.parse::<Continuous>().unwrap().to_string(), text);
        }
        for text in ["rows", "rows:0", "rows:-1", "joint:4097", "row:3", ""] {
            let message = text.parse::<Continuous>().unwrap_err().to_string();
            assert!(message.ends_with("expected none, rows:D or joint:D with 1 to 4096 dimensions"), "{message}");
        }
    }

    #[test]
    fn rows_are_zero_but_for_that_of_the_state() {
        let structures: [AnyStructure; 4] = [
            Categorical::new(5).unwrap().into(),
            Categorical::binary(3).unwrap().into(),
            Pairwise::new(3).unwrap().into(),
            Subset::new(4, 2).unwrap().into(),
        ];
        for structure in &structures {
            let inputs = Inputs::new(Continuous::Rows(2), structure).unwrap();
            let states = structure.states().unwrap();
            let (mut z, mut code) = (vec![0; structure.variables()], vec![0.0; structure.unary()]);
            let samples = random(2 * states, 1);
            for s in 0..states {
                structure.state(s, &mut z);
                structure.encode(&z, &mut code);
                let (mut weights, mut input) = (vec![9.0; states], vec![9.0; inputs.width()]);
                inputs.weights(&code, &mut weights);
                inputs.input(&code, &weights, &samples, &mut input);
                for (k, row) in input.chunks(2).enumerate() {
                    assert_eq!(row, if k == s { &samples[2 * k..][..2] } else { &[0.0, 0.0] });
                }
            }
        }
        let many = Categorical::binary(11).unwrap().into();
        let message = Inputs::new(Continuous::Rows(2), &many).unwrap_err().to_string();
        assert!(message.contains("at most 1024 states"), "{message}");
    }

    /// Codes, samples and terms against central differences of `<g, input> + sum_k y_k KL_k`.
    #[test]
    fn derivatives_are_those_of_the_inputs() {
        let structures: [AnyStructure; 3] = [
            Categorical::new(4).unwrap().into(),
            Categorical::binary(3).unwrap().into(),
            Subset::new(4, 2).unwrap().into(),
        ];
        for (structure, kind) in
            structures.iter().flat_map(|s| [Continuous::Rows(3), Continuous::Joint(3)].map(|k| (s, k)))
        {
            let inputs = Inputs::new(kind, structure).unwrap();
            let (code, samples) = (random(structure.unary(), 2), random(inputs.samples(), 3));
            let (kl, g) = (random(inputs.blocks(), 4), random(inputs.width(), 5));
            let value = |code: &[f32], samples: &[f32]| {
                let (mut weights, mut input) = (vec![0.0; inputs.blocks()], vec![0.0; inputs.width()]);
                inputs.weights(code, &mut weights);
                inputs.input(code, &weights, samples, &mut input);
                let terms = weights.iter().zip(&kl).map(|(w, k)| (w * k) as f64).sum::<f64>();
                input.iter().zip(&g).map(|(i, g)| (i * g) as f64).sum::<f64>() + terms
            };
            let (mut at_code, mut at_samples) = (vec![0.0; code.len()], vec![0.0; samples.len()]);
            let mut weights = vec![0.0; inputs.blocks()];
            inputs.weights(&code, &mut weights);
            inputs.code_slopes(&code, &samples, &kl, &g, &mut at_code);
            inputs.add_sample_slopes(&weights, &g, &mut at_samples);
            let difference = |of: &[f32], i: usize, f: &dyn Fn(&[f32]) -> f64| {
                let moved = |by: f32| {
                    let mut of = of.to_vec();
                    of[i] += by;
                    f(&of)
                };
                (moved(0.03125) - moved(-0.03125)) / 0.0625
            };
            for (i, slope) in at_code.iter().enumerate() {
                let expected = difference(&code, i, &|code| value(code, &samples));
                assert!((*slope as f64 - expected).abs() < 2e-4, "{kind}: {slope} {expected}");
            }
            for (i, slope) in at_samples.iter().enumerate() {
                let expected = difference(&samples, i, &|samples| value(&code, samples));
                assert!((*slope as f64 - expected).abs() < 2e-4, "{kind}: {slope} {expected}");
            }
        }
    }

    #[test]
    fn slopes_at_the_parameters_are_those_of_sample_and_kl() {
        let inputs = Inputs::new(Continuous::Rows(3), &Categorical::new(2).unwrap().into()).unwrap();
        let noise = Noise::new(0, Purpose::User(1), 0);
        let parameters: Vec<f32> = random(2 * inputs.parameters(), 6).iter().map(|x| 2.0 * x - 1.0).collect();
        let (g, weights) = (random(2 * inputs.samples(), 7), random(2 * inputs.blocks(), 8));
        let value = |parameters: &[f32]| {
            let drawn = Gaussians::new(&inputs, parameters.to_vec(), Draw::Sample(&noise));
            let terms = drawn.terms.iter().zip(&weights).map(|(t, w)| (t * w) as f64).sum::<f64>();
            drawn.samples.iter().zip(&g).map(|(c, g)| (c * g) as f64).sum::<f64>() + terms
        };
        let slopes = Gaussians::new(&inputs, parameters.clone(), Draw::Sample(&noise)).slopes(&g, &weights);
        for (i, slope) in slopes.iter().enumerate() {
            let moved = |by: f32| {
                let mut parameters = parameters.clone();
                parameters[i] += by;
                value(&parameters)
            };
            let expected = (moved(0.0078125) - moved(-0.0078125)) / 0.015625;
            assert!((*slope as f64 - expected).abs() < 1e-3, "{i}: {slope} {expected}");
        }
    }

    /// The mean of `exp(-ln q + ln p)` is one, and that of `ln q - ln p` the KL.
    #[test]
    fn weights_are_those_of_the_prior() {
        let inputs = Inputs::new(Continuous::Joint(2), &Categorical::new(2).unwrap().into()).unwrap();
        let parameters = [0.4, -0.3, -0.5, 0.2];
        let count = 100_000;
        let noise = Noise::new(0, Purpose::User(2), 0);
        let drawn = Gaussians::new(&inputs, parameters.repeat(count), Draw::Weight(&noise));
        let mean = |f: &dyn Fn(f64) -> f64| drawn.terms.iter().map(|t| f(*t as f64)).sum::<f64>() / count as f64;
        let (weight, log) = (mean(&|t| (-t).exp()), mean(&|t| t));
        let deviation = |f: &dyn Fn(f64) -> f64, m: f64| (mean(&|t| (f(t) - m).powi(2)) / count as f64).sqrt();
        assert!((weight - 1.0).abs() < 4.0 * deviation(&|t| (-t).exp(), weight), "{weight}");
        assert!((log - kl(&parameters) as f64).abs() < 4.0 * deviation(&|t| t, log), "{log}");
    }
}
