//! Learned control variates of the score function: what REBAR, RELAX and direct-rebar share.
//!
//! With zeta = h + gamma, z its arg max, and zeta~ a second draw of zeta given z ([conditional](super::conditional)),
//!
//! ```text
//! g = (loss(z) - c(zeta~)) grad ln q(z) + grad_h c(zeta) - grad_h c(zeta~)
//! ```
//!
//! has the expectation of the gradient for every c: `E[c(zeta~) grad ln q(z) + grad_h c(zeta~)]` is the derivative of
//! `E_z[E[c(zeta~) | z]] = E[c(zeta)]`, as z's probabilities and zeta~ are all that depends on h. So c may be learned
//! from whatever is at hand: from the mean of `|g|²`, whose gradient is that of the variance.
//!
//! [`Control`] is `c(zeta) = eta loss(s) + r(s)` with `s = softmax(zeta / tau)` of each variable. Written with
//! `back(s, d) = s (d - <s, d>) / tau`, which is symmetric, and J, the derivative of zeta~ in h:
//!
//! ```text
//! grad_h c(zeta) = back(s, c'(s)),   grad_h c(zeta~) = J^T back(s~, c'(s~))
//! zeta~_z = gamma~_z + lse(h):                        d / dh_j = q_j
//! zeta~_i = -ln(exp(-h_i - gamma~_i) + exp(-zeta~_z)):  d / dh_j = w_i 1(i = j) + (1 - w_i) q_j,
//!     w_i = sigmoid(zeta~_z - h_i - gamma~_i), and w_z = 0
//! ```
//!
//! The derivative of `|g|²` in a parameter x of c, with e = grad ln q(z), v = back(s, g), v~ = back(s~, J g):
//!
//! ```text
//! 2 (-<g, e> dc(s~)/dx + <v, dc'(s)/dx> - <v~, dc'(s~)/dx>)
//! ```
//!
//! For x = ln tau also s, s~ and back depend on it: `ds/dx = -s (zeta - <s, zeta>) / tau`, and `dc'(s)/dx` is the
//! second derivative of the loss along it, a question about [tangents](Oracle::tangents).

use super::conditional::given_argmax;
use super::measure::Measure;
use super::piece::{Memory, room};
use super::{Piece, independent};
use crate::Error;
use crate::error::check_len;
use crate::math::{sigmoid, softmax, softmax_in_place};
use crate::oracle::{Oracle, Questions};
use crate::registry::{Kind, Setting};
use crate::structure::{Structure, add, check_numbers};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::ops::Range;

const FINITE: Kind = Kind::Real(|v| (v as f32).is_finite(), "a finite number");
const RATES: &str = "a finite number, 0 or greater";
const TEMPERATURES: &str = "a number from 0.01 to 100";
/// Temperatures outside are of no use, and far outside f32 has no digits left for the codes' derivatives.
const LEAST: f32 = 0.01;
const MOST: f32 = 100.0;

fn is_rate(rate: f32) -> bool {
    rate.is_finite() && rate >= 0.0
}

fn is_temperature(tau: f32) -> bool {
    (LEAST..=MOST).contains(&tau)
}

pub(super) const TEMPERATURE: Setting = Setting {
    name: "control-temperature",
    kind: Kind::Real(|v| is_temperature(v as f32), TEMPERATURES),
    default: "0.5",
    value: "X",
    help: "temperature of the control's relaxed codes at the start",
};
pub(super) const SCALE: Setting = Setting {
    name: "control-scale",
    kind: FINITE,
    default: "1",
    value: "X",
    help: "what the control variate is multiplied by at the start",
};
pub(super) const RATE: Setting = Setting {
    name: "control-lr",
    kind: Kind::Real(|v| is_rate(v as f32), RATES),
    default: "0.01",
    value: "X",
    help: "learning rate of the control variate's parameters; 0: they stay as they are",
};

pub(super) const MEASURED: [Measure; 2] = [
    Measure { name: "control_scale", help: "what the control variate is multiplied by", always: false },
    Measure { name: "control_temperature", help: "temperature of the control's relaxed codes", always: false },
];

/// Working memory, reused from step to step; `[2, examples, ...]` is at zeta, then at zeta~.
#[derive(Default)]
pub(super) struct Rooms {
    /// The examples, twice.
    twice: Vec<u32>,
    /// `[2, examples, U]`: relaxed codes, their derivatives in ln tau, slopes, tangents.
    pub codes: Vec<f32>,
    directions: Vec<f32>,
    pub slopes: Vec<f32>,
    tangents: Vec<f32>,
    /// Losses at relaxed codes.
    pub losses: Vec<f32>,
    /// `[examples, U]`: probabilities, and the own parts w of the derivative of zeta~.
    pub q: Vec<f32>,
    own: Vec<f32>,
    /// For one example.
    pub work: Vec<f32>,
    hidden: Vec<f32>,
}

/// Cuts `work` into N slices of `len`.
pub(super) fn cut<const N: usize>(work: &mut Vec<f32>, len: usize) -> [&mut [f32]; N] {
    let mut rest = room(work, N * len);
    std::array::from_fn(|_| {
        let (first, others) = std::mem::take(&mut rest).split_at_mut(len);
        rest = others;
        first
    })
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// zeta~ of one variable and w, the part of its derivative that belongs to its own potentials.
pub(super) fn conditional(h: &[f32], chosen: usize, fresh: &[f32], zeta: &mut [f32], own: &mut [f32]) {
    given_argmax(h, chosen, fresh, zeta);
    let most = zeta[chosen];
    own.iter_mut().zip(h.iter().zip(fresh)).for_each(|(w, (h, g))| *w = sigmoid(most - (h + g)));
    own[chosen] = 0.0;
}

/// `J^T x` of one variable into `out`.
pub(super) fn pull(q: &[f32], own: &[f32], x: &[f32], out: &mut [f32]) {
    let shared: f32 = own.iter().zip(x).map(|(w, x)| (1.0 - w) * x).sum();
    for (((out, q), w), x) in out.iter_mut().zip(q).zip(own).zip(x) {
        *out = w * x + q * shared;
    }
}

/// `J x` of one variable into `out`.
fn push(q: &[f32], own: &[f32], x: &[f32], out: &mut [f32]) {
    let mean = dot(q, x);
    for ((out, w), x) in out.iter_mut().zip(own).zip(x) {
        *out = w * x + (1.0 - w) * mean;
    }
}

/// `s (d - <s, d>) / tau` of each variable into `out`.
fn back(s: &[f32], d: &[f32], tau: f32, k: usize, out: &mut [f32]) {
    for ((s, d), out) in s.chunks_exact(k).zip(d.chunks_exact(k)).zip(out.chunks_exact_mut(k)) {
        let mean = dot(s, d);
        out.iter_mut().zip(s.iter().zip(d)).for_each(|(out, (s, d))| *out = s * (d - mean) / tau);
    }
}

/// Replaces zeta of each variable by `s = softmax(zeta / tau)`, and writes `ds / d ln tau`.
fn relax(zeta: &mut [f32], tau: f32, k: usize, direction: &mut [f32]) {
    for (s, direction) in zeta.chunks_exact_mut(k).zip(direction.chunks_exact_mut(k)) {
        let most = s.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        s.iter_mut().for_each(|s| *s = (*s - most) / tau);
        direction.copy_from_slice(s);
        softmax_in_place(s);
        // What has no weight may be infinitely far away.
        let pairs = || s.iter().zip(&*direction).filter(|(s, _)| **s > 0.0);
        let mean: f32 = pairs().map(|(s, d)| s * d).sum();
        direction.iter_mut().zip(&*s).for_each(|(d, s)| *d = if *s > 0.0 { s * (mean - *d) } else { 0.0 });
    }
}

/// Numbers that follow the gradient of the mean of `|g|²` by Adam (Kingma and Ba, ICLR 2015).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Learner {
    rate: f32,
    pub values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    steps: f32,
}

impl Learner {
    /// From these values with a rate of at least 0; with 0 they stay.
    ///
    /// # Errors
    /// Another rate.
    pub fn new(rate: f32, values: Vec<f32>) -> Result<Self, Error> {
        if !is_rate(rate) {
            return Err(Error::range(RATE.name, rate, RATES));
        }
        let zeros = vec![0.0; values.len()];
        Ok(Learner { rate, first: zeros.clone(), second: zeros, values, steps: 0.0 })
    }

    pub fn learns(&self) -> bool {
        self.rate > 0.0
    }

    /// The gradient, and the number of estimates that it is summed over.
    pub fn sums(&self) -> usize {
        if self.learns() { self.values.len() + 1 } else { 0 }
    }

    /// One step; none where nothing was estimated, or where a square has overflown.
    pub fn learn(&mut self, sums: &[f32]) {
        let Some((count, gradient)) = sums.split_last() else { return };
        if !(self.learns() && gradient.len() == self.values.len() && *count > 0.0)
            || gradient.iter().any(|g| !(g / count * (g / count)).is_finite())
        {
            return;
        }
        self.steps += 1.0;
        let (first_left, second_left) = (1.0 - 0.9f32.powf(self.steps), 1.0 - 0.999f32.powf(self.steps));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, (first, second)), g) in self.values.iter_mut().zip(moments).zip(gradient) {
            let g = g / count;
            *first += 0.1 * (g - *first);
            *second += 0.001 * (g * g - *second);
            *value -= self.rate * (*first / first_left) / ((*second / second_left).sqrt() + 1e-8);
        }
    }

    pub fn state(&self) -> Vec<f32> {
        [&self.values[..], &self.first, &self.second, &[self.steps]].concat()
    }

    /// # Errors
    /// A state of another length.
    pub fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        let len = self.values.len();
        check_len("the state of the control variate", state.len(), 3 * len + 1)?;
        self.values.copy_from_slice(&state[..len]);
        self.first.copy_from_slice(&state[len..2 * len]);
        self.second.copy_from_slice(&state[2 * len..3 * len]);
        self.steps = state[3 * len];
        Ok(())
    }
}

/// `r(s) = <w, tanh(A s + b)> + c`, of one hidden layer; its parameters are A `[units, U]`, b, w `[units]`, c.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Network {
    width: usize,
    units: usize,
}

impl Network {
    fn len(&self) -> usize {
        self.units * (self.width + 2) + 1
    }

    fn places(&self) -> [Range<usize>; 3] {
        let (weights, units) = (self.units * self.width, self.units);
        [0..weights, weights..weights + units, weights + units..weights + 2 * units]
    }

    /// A of uniform numbers with the variance of one over the ones of a code; all else zero, so that r is.
    fn start(&self, ones: usize) -> Vec<f32> {
        let mut generator = ChaCha8Rng::from_seed(*b"gumbel: the start of the control");
        let bound = (3.0 / ones.max(1) as f64).sqrt();
        let mut parameters = vec![0.0; self.len()];
        for weight in &mut parameters[..self.units * self.width] {
            *weight = (bound * (2.0 * crate::noise::uniform_f64(&mut generator) - 1.0)) as f32;
        }
        parameters
    }

    /// r(s); its hidden units are left in `hidden`, and its slopes are added.
    fn add_slopes(&self, parameters: &[f32], s: &[f32], hidden: &mut [f32], slopes: &mut [f32]) -> f32 {
        let [a, b, w] = self.places().map(|place| &parameters[place]);
        let mut value = parameters[self.len() - 1];
        for (j, row) in a.chunks_exact(self.width).enumerate() {
            let t = (b[j] + dot(row, s)).tanh();
            hidden[j] = t;
            value += w[j] * t;
            let slope = w[j] * (1.0 - t * t);
            slopes.iter_mut().zip(row).for_each(|(d, a)| *d += slope * a);
        }
        value
    }

    /// Adds the gradient of `value r(s) + along <v, r'(s)>` in the parameters to `sums`; gives `<v, r''(s) direction>`.
    ///
    /// With t = tanh and u = 1 - t²: `<v, r'> = sum_j w_j u_j (A v)_j`, and u' = -2 t u.
    fn add_gradient(
        &self,
        parameters: &[f32],
        (s, hidden): (&[f32], &[f32]),
        (v, direction): (&[f32], &[f32]),
        (value, along): (f32, f32),
        sums: &mut [f32],
    ) -> f32 {
        let [a, _, w] = self.places().map(|place| &parameters[place]);
        let [_, at_b, at_w] = self.places();
        let mut curved = 0.0;
        for (j, row) in a.chunks_exact(self.width).enumerate() {
            let t = hidden[j];
            let (u, turned) = (1.0 - t * t, -2.0 * t * (1.0 - t * t));
            let (mut with_v, mut with_direction) = (0.0, 0.0);
            for (a, (v, d)) in row.iter().zip(v.iter().zip(direction)) {
                with_v += a * v;
                with_direction += a * d;
            }
            curved += w[j] * turned * with_v * with_direction;
            let at_sum = w[j] * (value * u + along * turned * with_v); // at A s + b
            let at_push = along * w[j] * u; // at A v
            sums[at_w.start + j] += value * t + along * u * with_v;
            sums[at_b.start + j] += at_sum;
            let row = &mut sums[j * self.width..][..self.width];
            row.iter_mut().zip(s.iter().zip(v)).for_each(|(out, (s, v))| *out += at_sum * s + at_push * v);
        }
        sums[self.len() - 1] += value;
        curved
    }
}

/// The control `eta loss(s) + r(s)` of relaxed codes, whose parameters are learned: eta, ln tau, those of r.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Control {
    name: &'static str,
    pub learner: Learner,
    network: Option<Network>,
}

impl Control {
    /// Without a network.
    ///
    /// # Errors
    /// Values out of range.
    pub fn new(name: &'static str, [temperature, scale, rate]: [f32; 3]) -> Result<Self, Error> {
        if !is_temperature(temperature) {
            return Err(Error::range(TEMPERATURE.name, temperature, TEMPERATURES));
        }
        let learner = Learner::new(rate, vec![finite_scale(scale)?, temperature.ln()])?;
        Ok(Control { name, learner, network: None })
    }

    /// With a network of `units` for codes of this structure.
    pub fn with_network<S: Structure>(mut self, structure: &S, units: usize) -> Self {
        let network = Network { width: structure.unary(), units };
        let zeros = vec![0.0; network.len()];
        self.learner.values.extend(network.start(structure.variables()));
        self.learner.first.extend_from_slice(&zeros);
        self.learner.second.extend(zeros);
        Control { network: Some(network), ..self }
    }

    pub fn scale(&self) -> f32 {
        self.learner.values[0]
    }

    pub fn temperature(&self) -> f32 {
        self.learner.values[1].exp()
    }

    pub fn questions() -> Questions {
        Questions::LOSSES.and(Questions::SLOPES)
    }

    pub fn learn(&mut self, sums: &[f32]) {
        self.learner.learn(sums);
        let ln_tau = &mut self.learner.values[1];
        *ln_tau = ln_tau.clamp(LEAST.ln(), MOST.ln());
    }

    /// Adds the estimate; what is learned from goes to the sums, and the decoder follows z.
    pub fn estimate<S: Structure>(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let structure = piece.structure;
        independent(structure, self.name)?;
        let (u, n, count) = (structure.unary(), structure.variables(), piece.count());
        let (learns, tau) = (self.learner.learns(), self.temperature());
        if let Some(network) = &self.network {
            check_len("the code of the control's network", u, network.width)?;
        }
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            let Memory { assignments, own, .. } = &mut *piece.memory;
            let (z, own) = (&assignments[..count * n], room(own, count));
            oracle.losses(piece.of, z, own)?;
            for (b, loss) in own.iter().enumerate() {
                check_numbers("loss", &[*loss]).map_err(|e| e.in_example(piece.first + b))?;
            }
            piece.follow_sample(sample, oracle)?;
            self.relax(piece, sample);
            let Rooms { twice, codes, directions, slopes, tangents, losses, .. } = &mut piece.memory.control;
            let codes = &codes[..2 * count * u];
            let (slopes, losses) = (room(slopes, codes.len()), room(losses, 2 * count));
            twice.clear();
            twice.extend(piece.of.iter().chain(piece.of));
            oracle.slopes(twice, codes, losses, slopes)?;
            let answers = losses.iter().zip(slopes.chunks_exact(u));
            for (b, (loss, slopes)) in (0..count).chain(0..count).zip(answers) {
                let checked = check_numbers("loss", &[*loss]).and_then(|()| check_numbers("slope", slopes));
                checked.map_err(|e| e.in_example(piece.first + b))?;
            }
            if learns {
                let directions = &directions[..codes.len()];
                oracle.tangents(twice, codes, directions, room(tangents, codes.len()))?;
            }
            for b in 0..count {
                self.example(piece, b);
            }
            if let Some(estimates) = piece.sums.last_mut() {
                *estimates += count as f32;
            }
            let counted = [self.scale(), tau].into_iter().zip(&mut *piece.tallies);
            counted.for_each(|(value, tally)| tally.add(value as f64 * count as f64, count as f64));
        }
        Ok(())
    }

    /// Relaxed codes and all that does not need the oracle.
    fn relax<S: Structure>(&self, piece: &mut Piece<'_, S>, sample: usize) {
        let (structure, count, tau) = (piece.structure, piece.count(), self.temperature());
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let k = u / n;
        let Memory { assignments, control, .. } = &mut *piece.memory;
        let (codes, directions) =
            (room(&mut control.codes, 2 * count * u), room(&mut control.directions, 2 * count * u));
        let (first, second) = codes.split_at_mut(count * u);
        let (all_q, all_own) = (room(&mut control.q, count * u), room(&mut control.own, count * u));
        for b in 0..count {
            let (h, noise) = (&piece.potentials[b * p..][..u], piece.noise.of(sample, b));
            let at = b * u..(b + 1) * u;
            first[at.clone()].iter_mut().zip(h.iter().zip(noise)).for_each(|(zeta, (h, g))| *zeta = h + g);
            for (i, z) in assignments[b * n..][..n].iter().enumerate() {
                let (block, at) = (i * k..(i + 1) * k, b * u + i * k..b * u + (i + 1) * k);
                let (h, fresh) = (&h[block.clone()], &noise[u..][block]);
                softmax(h, &mut all_q[at.clone()]);
                conditional(h, *z as usize, fresh, &mut second[at.clone()], &mut all_own[at]);
            }
        }
        relax(codes, tau, k, directions);
    }

    /// The estimate of an example, and what is learned from it.
    fn example<S: Structure>(&self, piece: &mut Piece<'_, S>, b: usize) {
        let (structure, count) = (piece.structure, piece.count());
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let (k, eta, tau) = (u / n, self.scale(), self.temperature());
        let network = self.network.as_ref().map(|network| (network, &self.learner.values[2..]));
        let Memory { assignments, own: losses_at_z, control, .. } = &mut *piece.memory;
        let (z, loss) = (&assignments[b * n..][..n], losses_at_z[b]);
        let places = [b * u..(b + 1) * u, (count + b) * u..(count + b + 1) * u];
        let s = places.clone().map(|at| &control.codes[at]);
        let d = places.clone().map(|at| &control.slopes[at]);
        let relaxed = [control.losses[b], control.losses[count + b]];
        let (q, own) = (&control.q[b * u..][..u], &control.own[b * u..][..u]);
        let [d0, d1, score, g, x, y, v0, v1] = cut(&mut control.work, u);
        let hidden = room(&mut control.hidden, 2 * network.map_or(0, |(network, _)| network.units));
        let (hidden0, hidden1) = hidden.split_at_mut(hidden.len() / 2);
        let blocks = || (0..n).map(|i| i * k..(i + 1) * k);

        // The control's slopes c'(s), and its value at s~.
        d0.iter_mut().zip(d[0]).for_each(|(c, d)| *c = eta * d);
        d1.iter_mut().zip(d[1]).for_each(|(c, d)| *c = eta * d);
        let mut control_value = eta * relaxed[1];
        if let Some((network, parameters)) = network {
            network.add_slopes(parameters, s[0], hidden0, d0);
            control_value += network.add_slopes(parameters, s[1], hidden1, d1);
        }
        score.iter_mut().zip(q).for_each(|(e, q)| *e = -q);
        z.iter().enumerate().for_each(|(i, z)| score[i * k + *z as usize] += 1.0);
        back(s[0], d0, tau, k, g);
        back(s[1], d1, tau, k, x);
        blocks().for_each(|at| pull(&q[at.clone()], &own[at.clone()], &x[at.clone()], &mut y[at]));
        for ((g, y), e) in g.iter_mut().zip(&*y).zip(&*score) {
            *g += (loss - control_value) * e - y;
        }
        add(&mut piece.gradient[b * p..][..u], g, piece.scale);
        if !self.learner.learns() {
            return;
        }

        let ds = places.clone().map(|at| &control.directions[at]);
        let tangents = places.map(|at| &control.tangents[at]);
        let pushed = y;
        blocks().for_each(|at| push(&q[at.clone()], &own[at.clone()], &g[at.clone()], &mut pushed[at]));
        back(s[0], g, tau, k, v0);
        back(s[1], pushed, tau, k, v1);
        let along = dot(g, score);
        let (sums, of_network) = piece.sums.split_at_mut(2);
        sums[0] += 2.0 * (dot(v0, d[0]) - dot(v1, d[1]) - along * relaxed[1]);
        let mut at_tau = eta * (dot(v0, tangents[0]) - dot(v1, tangents[1])) - along * dot(d1, ds[1]);
        if let Some((network, parameters)) = network {
            let mut learn = |s, hidden: &[f32], v: &[f32], ds, weights| {
                network.add_gradient(parameters, (s, hidden), (v, ds), weights, of_network)
            };
            at_tau += learn(s[0], hidden0, v0, ds[0], (0.0, 2.0));
            at_tau -= learn(s[1], hidden1, v1, ds[1], (-2.0 * along, -2.0));
        }
        turned(s[0], ds[0], (g, v0), tau, k, x);
        at_tau += dot(x, d0);
        turned(s[1], ds[1], (pushed, v1), tau, k, x);
        at_tau -= dot(x, d1);
        sums[1] += 2.0 * at_tau;
    }
}

/// The derivative of `v = back(s, d)` in ln tau into `out`.
fn turned(s: &[f32], ds: &[f32], (d, v): (&[f32], &[f32]), tau: f32, k: usize, out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(k).enumerate() {
        let [s, ds, d, v] = [s, ds, d, v].map(|x| &x[i * k..(i + 1) * k]);
        let (mean, moved) = (dot(s, d), dot(ds, d));
        for (j, out) in out.iter_mut().enumerate() {
            *out = (ds[j] * (d[j] - mean) - s[j] * moved) / tau - v[j];
        }
    }
}

/// # Errors
/// A scale that is not finite.
pub(super) fn finite_scale(scale: f32) -> Result<f32, Error> {
    if scale.is_finite() { Ok(scale) } else { Err(Error::range(SCALE.name, scale, "a finite number")) }
}
