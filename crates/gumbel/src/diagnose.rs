//! How good an estimate of a gradient is: bias, standard deviation and cost at potentials that stand still.
//!
//! Everything is about one vector: the gradient `[batch, P]` of the batch's *mean* loss at the potentials. With g the
//! exact one and X an estimate of it, drawn N times,
//!
//! ```text
//! bias = |E X - g|,   std = (E |X - E X|^2)^(1/2),   mse = E |X - g|^2 = bias^2 + std^2,   cosine = E <X, g> / |X| |g|
//! ```
//!
//! in Euclidean norms. The mean of N draws has a distance from g even where nothing is biased; it is taken out:
//! `bias^2` is estimated by the mean of `<X_i - g, X_j - g>` over pairs of different draws, which has no bias itself.
//! Standard errors are those of a jackknife over [blocks](BLOCKS) of draws. It is the *square* of a bias near zero that
//! is normally distributed: a bias is told from zero by four standard errors of its square where it is more than eight
//! of its own.
//!
//! g is a [`Reference`]: exact by enumeration, or where there are too many states a long average of an estimator that
//! has no bias, whose own error is known and taken out of the bias too.

use crate::Error;
use crate::error::check_len;
use crate::estimator::{
    Estimator, Exact, LeaveOneOut, LocalExpectation, MEASURES, Memory, Moment, Tally, enumerable, estimate,
    estimate_with,
};
use crate::noise::{Noise, Purpose};
use crate::oracle::{Closure, Followed, Oracle};
use crate::structure::{Structure, Sums, batch_size};
use std::time::Instant;

/// Blocks of draws, each of which the jackknife leaves out once.
pub const BLOCKS: usize = 10;
/// Samples of the leave-one-out estimator where it is the reference.
const SAMPLES: usize = 16;
/// The index of the first draw of a reference's noise: estimates are drawn from 0 on.
pub const APART: u64 = 1 << 40;
/// The same of the draws that an estimator learns from.
const BEFORE: u64 = 1 << 41;

/// The gradient that estimates are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Of the mean loss of the batch, `[batch, P]`.
    pub gradient: Vec<f64>,
    /// Its standard error: the root of the summed squared errors of all coordinates. 0 where it is exact.
    pub error: f64,
    /// The estimator that it is of.
    pub estimator: &'static str,
    /// Draws of that.
    pub draws: usize,
}

impl Reference {
    /// The gradient of `E_q[loss]`: by enumeration where |Z| is at most [`MAX_STATES`](crate::estimator::MAX_STATES),
    /// else the mean of `draws` draws (at least 2) of what has [no bias](unbiased).
    ///
    /// # Errors
    /// A latent that has neither few states nor sums; those of the oracle.
    pub fn new<S: Sums>(
        structure: &S,
        potentials: &[f32],
        oracle: &mut dyn Oracle,
        draws: usize,
        seed: u64,
    ) -> Result<Self, Error> {
        Reference::watched(structure, potentials, oracle, draws, seed, &mut |_| {})
    }

    /// The same for who waits: before each draw of an average, `each` hears how many are done.
    ///
    /// # Errors
    /// Those of [`Reference::new`].
    pub fn watched<S: Sums>(
        structure: &S,
        potentials: &[f32],
        oracle: &mut dyn Oracle,
        draws: usize,
        seed: u64,
        each: &mut dyn FnMut(usize),
    ) -> Result<Self, Error> {
        let batch = batch_size(potentials.len(), structure.potentials())?;
        let share = 1.0 / batch.max(1) as f64;
        if enumerable(structure).is_ok() {
            let found = estimate(&Exact, structure, potentials, &[], oracle)?.gradient;
            let gradient = found.iter().map(|g| *g as f64 * share).collect();
            return Ok(Reference { gradient, error: 0.0, estimator: "exact", draws: 1 });
        }
        let Unbiased { estimator, name, samples } = unbiased(structure)?;
        let mut average = Average::new(potentials.len());
        let mut noise = vec![0.0; samples * batch * estimator.noise(structure)?];
        let mut memory = Memory::default();
        for draw in 0..draws.max(2) {
            each(draw);
            Noise::new(seed, Purpose::Diagnosis, APART + draw as u64).gumbel(&mut noise);
            let found = estimate_with(&*estimator, structure, potentials, &noise, oracle, &mut memory)?;
            average.add(found.gradient.iter().map(|g| *g as f64 * share));
        }
        Ok(average.reference(name))
    }

    /// The same of the whole bound: with the exact gradient of `KL(q || uniform)`.
    ///
    /// # Errors
    /// Potentials of another batch; those of [`Sums::kl_to_uniform`].
    pub fn with_kl<S: Sums>(mut self, structure: &S, potentials: &[f32]) -> Result<Self, Error> {
        check_len("potentials", potentials.len(), self.gradient.len())?;
        let p = structure.potentials();
        let share = 1.0 / batch_size(potentials.len(), p)?.max(1) as f64;
        let mut kl = vec![0.0; p];
        for (h, gradient) in potentials.chunks_exact(p).zip(self.gradient.chunks_exact_mut(p)) {
            kl.fill(0.0);
            structure.kl_to_uniform(h, 1.0, &mut kl)?;
            gradient.iter_mut().zip(&kl).for_each(|(g, kl)| *g += *kl as f64 * share);
        }
        Ok(self)
    }

    /// |g|.
    pub fn norm(&self) -> f64 {
        norm(&self.gradient)
    }
}

/// What a [`Reference`] is the average of, where states cannot be enumerated.
pub struct Unbiased<S: ?Sized> {
    /// The estimator.
    pub estimator: Box<dyn Estimator<S>>,
    /// Its name in the registry.
    pub name: &'static str,
    /// Samples of each example in a draw.
    pub samples: usize,
}

/// An estimator without bias for whatever number of states: local expectations for independent variables, else
/// leave-one-out REINFORCE.
///
/// # Errors
/// A latent without sums.
pub fn unbiased<S: Sums>(structure: &S) -> Result<Unbiased<S>, Error> {
    match structure.is_independent() {
        true => Ok(Unbiased { estimator: Box::new(LocalExpectation), name: "local-expectation", samples: 1 }),
        false => {
            structure.tractable()?;
            Ok(Unbiased { estimator: Box::new(LeaveOneOut), name: "rloo", samples: SAMPLES })
        }
    }
}

/// A mean of draws in the making, with its standard error.
#[derive(Debug, Clone)]
pub struct Average {
    sum: Vec<f64>,
    squares: Vec<f64>,
    draws: usize,
}

impl Average {
    /// Of vectors of so many numbers.
    pub fn new(width: usize) -> Self {
        Average { sum: vec![0.0; width], squares: vec![0.0; width], draws: 0 }
    }

    /// Adds a draw.
    pub fn add(&mut self, draw: impl IntoIterator<Item = f64>) {
        for ((s, q), g) in self.sum.iter_mut().zip(&mut self.squares).zip(draw) {
            (*s, *q) = (*s + g, *q + g * g);
        }
        self.draws += 1;
    }

    /// The mean of all, at least two, by the estimator of this name.
    pub fn reference(mut self, estimator: &'static str) -> Reference {
        let n = self.draws as f64;
        let variance = self.sum.iter().zip(&self.squares).map(|(s, q)| (q - s * s / n).max(0.0) / (n - 1.0) / n);
        let error = variance.sum::<f64>().sqrt();
        self.sum.iter_mut().for_each(|s| *s /= n);
        Reference { gradient: self.sum, error, estimator, draws: self.draws }
    }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// How an estimator is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Draws, at least 2; one is enough where nothing is random.
    pub draws: usize,
    /// Samples of each example in a draw; at least what the estimator [needs](Estimator::least_samples).
    pub samples: usize,
    /// Draws that an estimator with something to learn learns from beforehand; then it stands still.
    pub learn: usize,
    /// Weight of the KL in the estimator's own objective; see [`Estimator::kl`].
    pub kl_weight: f32,
    /// Seed of the draws.
    pub seed: u64,
}

/// A figure with its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// The figure.
    pub value: f64,
    /// Its standard error; 0 where nothing is random.
    pub error: f64,
}

/// How far draws are from a reference; see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Distance of the mean from the reference.
    pub bias: Measured,
    /// Root of the summed variances of all coordinates.
    pub std: Measured,
    /// Mean squared distance from the reference.
    pub mse: Measured,
    /// Mean cosine of the angle between a draw and the reference; draws of zero have the cosine 0.
    pub cosine: Measured,
    /// Cosine of the angle between the mean of all draws and the reference.
    pub mean_cosine: f64,
}

/// What an estimator is like.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// Against the reference.
    pub figures: Figures,
    /// Rows of the decoder for an image in a draw: without gradient, and with, among them those that it follows.
    pub rows: [f64; 2],
    /// Median time of a draw for the whole batch, in milliseconds.
    pub ms: f64,
    /// What the estimator has measured, in the order of [`Estimator::measures`].
    pub tallies: [Tally; MEASURES],
    /// Draws.
    pub draws: usize,
}

/// Looks at an estimator at fixed potentials `[batch, P]`.
///
/// ```
/// use gumbel::diagnose::{Plan, Reference, diagnose};
/// use gumbel::estimator::Direct;
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(3)?;
/// let mut oracle = Closure::new(&latent, |_, code| 2.0 * code[1] + 5.0 * code[2]);
/// let potentials = [0.1, -0.2, 0.4];
/// let exact = Reference::new(&latent, &potentials, &mut oracle, 0, 0)?;
/// let plan = Plan { draws: 2000, samples: 1, learn: 0, kl_weight: 0.0, seed: 0 };
/// let wide = diagnose(&mut Direct::new(1.0)?, &latent, &potentials, &exact, &mut oracle, &plan)?;
/// let narrow = diagnose(&mut Direct::new(0.1)?, &latent, &potentials, &exact, &mut oracle, &plan)?;
/// let (wide, narrow) = (wide.figures, narrow.figures);
/// assert!(wide.bias.value > narrow.bias.value && wide.std.value < narrow.std.value);
/// # Ok::<(), gumbel::Error>(())
/// ```
///
/// # Errors
/// A reference of other potentials, fewer samples than the estimator needs, those of estimator and oracle.
pub fn diagnose<S: Structure>(
    estimator: &mut dyn Estimator<S>,
    structure: &S,
    potentials: &[f32],
    reference: &Reference,
    oracle: &mut dyn Oracle,
    plan: &Plan,
) -> Result<Diagnosis, Error> {
    check_len("potentials", potentials.len(), reference.gradient.len())?;
    let batch = batch_size(potentials.len(), structure.potentials())?;
    let least = estimator.least_samples();
    if plan.samples < least {
        return Err(Error::setting("samples", plan.samples, format!("at least {least}")));
    }
    estimator.begin(&Moment { step: 0, kl_weight: plan.kl_weight })?;
    let width = if estimator.is_random() { estimator.noise(structure)? } else { 0 };
    let mut noise = vec![0.0; plan.samples * batch * width];
    let mut memory = Memory::default();
    if estimator.sums() > 0 {
        for draw in 0..plan.learn {
            Noise::new(plan.seed, Purpose::Diagnosis, BEFORE + draw as u64).gumbel(&mut noise);
            let found = estimate_with(estimator, structure, potentials, &noise, oracle, &mut memory)?;
            estimator.learn(&found.sums);
            estimator.begin(&Moment { step: 0, kl_weight: plan.kl_weight })?;
        }
    }
    let draws = if estimator.is_random() { plan.draws.max(2) } else { 1 };
    let mut comparison = Comparison::new(reference, draws);
    let mut oracle = Counted::new(structure, oracle, !estimator.wants_slopes());
    let (mut times, mut tallies) = (Vec::with_capacity(draws), [Tally::default(); MEASURES]);
    let share = 1.0 / batch.max(1) as f64;
    for draw in 0..draws {
        Noise::new(plan.seed, Purpose::Diagnosis, draw as u64).gumbel(&mut noise);
        let began = Instant::now();
        let found = estimate_with(estimator, structure, potentials, &noise, &mut oracle, &mut memory)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        tallies.iter_mut().zip(&found.tallies).for_each(|(all, one)| all.merge(one));
        comparison.add(found.gradient.iter().map(|g| *g as f64 * share));
    }
    times.sort_by(f64::total_cmp);
    let per_image = (draws * batch).max(1) as f64;
    Ok(Diagnosis {
        figures: comparison.figures(),
        rows: [oracle.without as f64 / per_image, oracle.with as f64 / per_image],
        ms: times[(times.len() - 1) / 2],
        tallies,
        draws,
    })
}

/// Rows of the decoder for an image in a draw, without gradient and with, as [`Diagnosis::rows`] has them, of an
/// estimator that has them for every image and draw alike; `None`: what is drawn decides.
///
/// ```
/// use gumbel::diagnose::rows;
/// use gumbel::estimator::LocalExpectation;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::binary(15)?;
/// assert_eq!(rows(&mut LocalExpectation, &latent, 1)?, Some([16.0, 1.0]));
/// # Ok::<(), gumbel::Error>(())
/// ```
///
/// # Errors
/// Those of the estimator.
pub fn rows<S: Structure>(
    estimator: &mut dyn Estimator<S>,
    structure: &S,
    samples: usize,
) -> Result<Option<[f64; 2]>, Error> {
    // Where rows depend on what is drawn, so many draws hardly agree by chance.
    const DRAWS: usize = 32;
    estimator.begin(&Moment { step: 0, kl_weight: 0.0 })?;
    let width = if estimator.is_random() { estimator.noise(structure)? } else { 0 };
    let draws = if estimator.is_random() { DRAWS } else { 1 };
    let samples = samples.max(estimator.least_samples());
    let mut noise = vec![0.0; samples * width];
    // Some loss: sums and differences of the entries of a code.
    let some = |_: usize, code: &[f32]| code.iter().enumerate().map(|(i, c)| c * (i % 5) as f32).sum::<f32>();
    let mut inner = Closure::new(structure, some);
    let potentials = vec![0.0; structure.potentials()];
    let (mut memory, mut found) = (Memory::default(), None);
    for draw in 0..draws {
        Noise::new(0, Purpose::Diagnosis, draw as u64).gumbel(&mut noise);
        let mut oracle = Counted::new(structure, &mut inner, !estimator.wants_slopes());
        estimate_with(estimator, structure, &potentials, &noise, &mut oracle, &mut memory)?;
        let rows = [oracle.without as f64, oracle.with as f64];
        if *found.get_or_insert(rows) != rows {
            return Ok(None);
        }
    }
    Ok(found)
}

/// Draws of a gradient beside a reference, whatever they are at: potentials, or the weights of a layer.
#[derive(Debug, Clone)]
pub struct Comparison<'a> {
    reference: &'a Reference,
    /// Draws that will come.
    draws: usize,
    drawn: usize,
    /// Of `X - g`, `[BLOCKS, width]`.
    sums: Vec<f64>,
    blocks: [Block; BLOCKS],
    deviation: Vec<f64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    draws: f64,
    /// Of |X - g|^2.
    squares: f64,
    cosines: f64,
}

/// What some of the blocks say.
struct Part {
    bias2: f64,
    variance: f64,
    cosine: f64,
    mean_cosine: f64,
}

impl<'a> Comparison<'a> {
    /// Before the first of so many draws.
    pub fn new(reference: &'a Reference, draws: usize) -> Self {
        let width = reference.gradient.len();
        let (sums, deviation) = (vec![0.0; BLOCKS * width], vec![0.0; width]);
        Comparison { reference, draws: draws.max(1), drawn: 0, sums, blocks: Default::default(), deviation }
    }

    /// Adds a draw: as many numbers as the reference has.
    pub fn add(&mut self, draw: impl IntoIterator<Item = f64>) {
        let (g, width) = (&self.reference.gradient, self.deviation.len());
        let at = (self.drawn * BLOCKS / self.draws).min(BLOCKS - 1);
        let (mut along, mut length) = (0.0, 0.0);
        for ((d, x), g) in self.deviation.iter_mut().zip(draw).zip(g) {
            (along, length, *d) = (along + x * g, length + x * x, x - g);
        }
        self.sums[at * width..][..width].iter_mut().zip(&self.deviation).for_each(|(s, d)| *s += d);
        let block = &mut self.blocks[at];
        block.draws += 1.0;
        block.squares += self.deviation.iter().map(|d| d * d).sum::<f64>();
        let lengths = length.sqrt() * norm(g);
        block.cosines += if lengths > 0.0 { along / lengths } else { 0.0 };
        self.drawn += 1;
    }

    /// What the draws so far say.
    pub fn figures(&self) -> Figures {
        let all = self.of(None);
        let left_out: Vec<Part> = match self.drawn >= 2 * BLOCKS {
            true => (0..BLOCKS).map(|b| self.of(Some(b))).collect(),
            false => vec![],
        };
        let spread = |of: fn(&Part) -> f64| {
            let mean = left_out.iter().map(of).sum::<f64>() / BLOCKS as f64;
            let squares = left_out.iter().fold(0.0, |sum, v| sum + (of(v) - mean).powi(2));
            (squares * (BLOCKS - 1) as f64 / BLOCKS as f64).sqrt()
        };
        // The root of what may be negative: near zero the error is that of the square, under the root.
        let root = |square: f64, error: f64| {
            let value = square.max(0.0).sqrt();
            Measured { value, error: if square > error { error / (2.0 * value) } else { error.sqrt() } }
        };
        Figures {
            bias: root(all.bias2, spread(|f| f.bias2).max(self.reference.error.powi(2))),
            std: root(all.variance, spread(|f| f.variance)),
            mse: Measured {
                value: (all.bias2 + all.variance).max(0.0),
                error: spread(|f| f.bias2 + f.variance).max(self.reference.error.powi(2)),
            },
            cosine: Measured { value: all.cosine, error: spread(|f| f.cosine) },
            mean_cosine: all.mean_cosine,
        }
    }

    /// What all blocks say, or all but one.
    fn of(&self, left_out: Option<usize>) -> Part {
        let g = &self.reference.gradient;
        let kept = || (0..BLOCKS).filter(move |b| Some(*b) != left_out);
        let mut sum = vec![0.0; g.len()];
        for b in kept() {
            sum.iter_mut().zip(&self.sums[b * g.len()..]).for_each(|(s, x)| *s += x);
        }
        let total = |of: fn(&Block) -> f64| kept().map(|b| of(&self.blocks[b])).sum::<f64>();
        let (n, squares) = (total(|b| b.draws).max(1.0), total(|b| b.squares));
        let whole: f64 = sum.iter().map(|s| s * s).sum();
        let (bias2, variance) = match n > 1.0 {
            true => ((whole - squares) / (n * (n - 1.0)), ((squares - whole / n) / (n - 1.0)).max(0.0)),
            false => (whole, 0.0),
        };
        let mean: Vec<f64> = sum.iter().zip(g).map(|(s, g)| s / n + g).collect();
        let lengths = norm(&mean) * norm(g);
        let along: f64 = mean.iter().zip(g).map(|(m, g)| m * g).sum();
        let mean_cosine = if lengths > 0.0 { along / lengths } else { 0.0 };
        // The reference's own error is as far from every estimate.
        Part { bias2: bias2 - self.reference.error.powi(2), variance, cosine: total(|b| b.cosines) / n, mean_cosine }
    }
}

/// Passes questions on and counts rows of the decoder.
struct Counted<'a> {
    inner: &'a mut dyn Oracle,
    variables: usize,
    unary: usize,
    changes: usize,
    states: Option<usize>,
    /// Whether what is followed is a pass of its own, not one that a question has counted.
    follows: bool,
    without: u64,
    with: u64,
}

impl<'a> Counted<'a> {
    fn new<S: Structure>(structure: &S, inner: &'a mut dyn Oracle, follows: bool) -> Self {
        let unary = structure.unary();
        let changes = structure.code().changes(unary);
        let states = match structure.is_single() {
            true => Some(unary),
            false => structure.states(),
        };
        Counted { inner, variables: structure.variables(), unary, changes, states, follows, without: 0, with: 0 }
    }
}

impl Oracle for Counted<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.without += of.len() as u64;
        self.inner.losses(of, assignments, losses)
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        self.without += (of.len() * (1 + self.changes)) as u64;
        self.inner.around(of, assignments, own, losses)
    }

    fn leaves_out(&self) -> bool {
        self.inner.leaves_out()
    }

    fn least(
        &mut self,
        of: &[u32],
        assignments: &[u32],
        slack: &[f32],
        own: &mut [f32],
        losses: &mut [f32],
    ) -> Result<(), Error> {
        self.without += (of.len() * (1 + self.changes)) as u64;
        self.inner.least(of, assignments, slack, own, losses)
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.without += (of.len() * self.states.unwrap_or(1)) as u64;
        self.inner.states(of, losses)
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        self.with += of.len() as u64;
        self.inner.slopes(of, codes, losses, slopes)
    }

    /// As many as the slopes of two rows, whoever finds them.
    fn tangents(&mut self, of: &[u32], codes: &[f32], directions: &[f32], tangents: &mut [f32]) -> Result<(), Error> {
        self.with += 2 * of.len() as u64;
        self.inner.tangents(of, codes, directions, tangents)
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        if self.follows {
            self.with += match followed {
                Followed::Assignments { assignments, .. } => assignments.len() / self.variables.max(1),
                Followed::Codes { codes, .. } => codes.len() / self.unary.max(1),
                Followed::States(weights) => weights.len(),
            } as u64;
        }
        self.inner.follow(followed)
    }
}
