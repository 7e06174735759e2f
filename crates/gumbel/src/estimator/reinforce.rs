//! REINFORCE, the score-function estimator (Williams, Machine Learning 8, 1992).
//!
//! ```text
//! (loss(z) - baseline) grad ln q(z),   z ~ q,   grad ln q(z) = s(z) - E_q[s]
//! ```
//!
//! - Cost: one loss without gradient for each sample; one backward pass, for the decoder. For every latent with
//!   [sums](crate::structure::Sums): `E_q[s]` are the marginals, and z is an exact sample (for independent variables
//!   the perturbed arg max, else that of the structure's sampler, keyed by the piece's noise).
//! - No bias: the baseline does not depend on z. What it is, it has from the batches *before*: it is learned behind
//!   the step, so that no sample is compared with itself. At the first step it is 0.
//! - Variance: of the order of the squared distance of the losses from the baseline; without one, of the losses
//!   themselves.
//! - The decoder follows the samples with equal weights.
//!
//! **The learned baseline** (Mnih and Gregor, "Neural variational inference and learning in belief networks", ICML
//! 2014) is one of the example: `average + spread (w_0 + <w, x>)`, where average and spread are moving averages of the
//! losses and of their distance from that average, and w is fitted by least squares with Adam. An estimator sees no
//! images, but potentials are functions of them: `x = clip(h, -10, 10) / sqrt(P)`. The loss level of an image that its
//! potentials do not tell stays in the variance.

use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Piece, score};
use crate::Error;
use crate::error::check_len;
use crate::network::{BETA1, BETA2, EPSILON};
use crate::oracle::{Oracle, Questions};
use crate::registry::{Kind, Setting};
use crate::structure::{Structure, Sums, add, check_numbers};

const BASELINE: Setting = Setting {
    name: "baseline",
    kind: Kind::Choice(&["none", "average", "learned"]),
    default: "average",
    value: "NAME",
    help: "what losses are compared with: none; the moving average of the losses of the batches before; or learned, a \
           linear function of the potentials fitted to them",
};
const DECAY: Setting = Setting {
    name: "baseline-decay",
    kind: Kind::Real(decays, "a number of at least 0 and less than 1"),
    default: "0.99",
    value: "X",
    help: "with baseline = average or learned: what the average keeps of itself from step to step",
};
const RATE: Setting = Setting {
    name: "baseline-lr",
    kind: Kind::Real(learns, "a finite number greater than 0"),
    default: "0.003",
    value: "X",
    help: "with baseline = learned: the learning rate of its fit",
};

fn decays(decay: f64) -> bool {
    (0.0..1.0).contains(&(decay as f32))
}

fn learns(rate: f64) -> bool {
    (rate as f32).is_finite() && rate as f32 > 0.0
}

/// REINFORCE in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(
        "reinforce",
        "the score function, with a moving average or a learned baseline",
        |settings, z| {
            z.tractable()?;
            Ok(match settings.text("baseline") {
                "none" => Box::new(Reinforce::new()),
                "learned" => {
                    let (decay, rate) = (settings.real(DECAY.name) as f32, settings.real(RATE.name) as f32);
                    Box::new(ReinforceLearned::new(z.potentials(), rate, decay)?)
                }
                _ => Box::new(Reinforce::with_average(settings.real(DECAY.name) as f32)?),
            })
        },
    )
    .with_settings([BASELINE, DECAY, RATE])
    .with_costs("1", "1")
    .with_quality("none; for latents with sums", "of the losses' distance from the baseline, squared")
    .with_paper_samples(PAPER)
}

/// The score-function estimator.
///
/// ```
/// use gumbel::estimator::{Estimator, Reinforce, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 8.0 + code[1]);
/// let mut reinforce = Reinforce::with_average(0.9)?;
/// let noise = [0.0, 1.0]; // z = 1, whose loss is 9
/// let first = estimate(&reinforce, &latent, &[0.2, 0.2], &noise, &mut oracle)?;
/// assert_eq!(first.gradient, [-4.5, 4.5]); // 9 (s(z) - q)
/// Estimator::<Categorical>::learn(&mut reinforce, &first.sums);
/// let second = estimate(&reinforce, &latent, &[0.2, 0.2], &noise, &mut oracle)?;
/// assert_eq!(second.gradient, [0.0, 0.0]); // the loss is what it was
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reinforce {
    average: Option<Average>,
}

/// An exponential moving average, of what it has seen alone: `sum / weight`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Average {
    decay: f32,
    sum: f32,
    weight: f32,
}

impl Average {
    fn value(&self) -> f32 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }

    fn add(&mut self, value: f32) {
        self.sum += (1.0 - self.decay) * (value - self.sum);
        self.weight += (1.0 - self.decay) * (1.0 - self.weight);
    }
}

impl Reinforce {
    /// Without a baseline.
    pub fn new() -> Self {
        Reinforce { average: None }
    }

    /// With the moving average of the losses as baseline; of itself it keeps `decay`, at least 0 and less than 1, from
    /// step to step.
    ///
    /// # Errors
    /// Another decay.
    pub fn with_average(decay: f32) -> Result<Self, Error> {
        match decays(decay as f64) {
            true => Ok(Reinforce { average: Some(Average { decay, sum: 0.0, weight: 0.0 }) }),
            false => Err(Error::range("baseline-decay", decay, "a number of at least 0 and less than 1")),
        }
    }

    /// What losses are compared with at the next step.
    pub fn baseline(&self) -> f32 {
        self.average.map_or(0.0, |average| average.value())
    }
}

/// Adds the estimate of a sample of every example, whose losses stay in `memory.losses` `[examples]`.
fn add_sample<S: Sums>(
    piece: &mut Piece<'_, S>,
    sample: usize,
    oracle: &mut dyn Oracle,
    baseline: impl Fn(&[f32]) -> f32 + Sync,
) -> Result<(), Error> {
    let (structure, scale, p) = (piece.structure, piece.scale, piece.structure.potentials());
    score::ask(piece, sample, oracle)?;
    let added = piece.each(sample, [1, 0], |row| {
        check_numbers("loss", row.losses)?;
        let score = &mut row.work.first[..p];
        structure.marginals(row.potentials, score)?;
        score.iter_mut().for_each(|q| *q = -*q);
        structure.add_statistics(row.assignment, 1.0, score);
        add(row.gradient, score, scale * (row.losses[0] - baseline(row.potentials)));
        Ok(None)
    });
    added.map(drop)
}

impl<S: Sums> Estimator<S> for Reinforce {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(score::noise(structure))
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (count, baseline) = (piece.count(), self.baseline());
        for sample in 0..piece.samples {
            add_sample(piece, sample, oracle, |_| baseline)?;
            if self.average.is_some() {
                // Distances from the present baseline keep their digits.
                let distances = piece.memory.losses[..count].iter().map(|loss| loss - baseline);
                piece.sums[0] += distances.sum::<f32>();
                piece.sums[1] += count as f32;
            }
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        if self.average.is_some() { 2 } else { 0 }
    }

    fn learn(&mut self, sums: &[f32]) {
        let baseline = self.baseline();
        if let (Some(average), &[distance, count]) = (&mut self.average, sums)
            && count > 0.0
        {
            average.add(baseline + distance / count);
        }
    }

    fn state(&self) -> Vec<f32> {
        self.average.map_or(vec![], |average| vec![average.sum, average.weight])
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        let expected = if self.average.is_some() { 2 } else { 0 };
        check_len("the state of the baseline", state.len(), expected)?;
        if let (Some(average), &[sum, weight]) = (&mut self.average, state) {
            (average.sum, average.weight) = (sum, weight);
        }
        Ok(())
    }
}

/// The score-function estimator with a baseline of each example that it learns from the potentials.
///
/// ```
/// use gumbel::estimator::{Estimator, ReinforceLearned, estimate};
/// use gumbel::noise::{Noise, Purpose};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// // The first example has losses of about 9, the second of about 1, whatever z.
/// let mut oracle = Closure::new(&latent, |b, code| if b == 0 { 9.0 } else { 1.0 } + 0.1 * code[1]);
/// let (first, second) = ([2.0, -2.0], [-2.0, 2.0]);
/// let mut reinforce = ReinforceLearned::new(2, 0.01, 0.99)?;
/// let mut noise = [0.0; 4];
/// for step in 0..2000 {
///     Noise::new(0, Purpose::Noise, step).gumbel(&mut noise);
///     let found = estimate(&reinforce, &latent, &[first, second].concat(), &noise, &mut oracle)?;
///     Estimator::<Categorical>::learn(&mut reinforce, &found.sums);
/// }
/// assert!((reinforce.baseline(&first) - 9.0).abs() < 0.3 && (reinforce.baseline(&second) - 1.0).abs() < 0.3);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ReinforceLearned {
    rate: f32,
    /// Of the losses, and of their squared distances from it.
    average: Average,
    spread: Average,
    /// w_0 and w, with the moments and the number of the steps of Adam.
    weights: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    steps: f32,
}

/// What is summed before the gradient at the weights: distances from the average, examples, squared distances.
const SUMMED: usize = 3;
/// What stands in the state before the weights: two averages with their weights, steps.
const STATE: usize = 5;
/// Beyond, a potential says no more about the loss, forbidden or not.
const CLIP: f32 = 10.0;

impl ReinforceLearned {
    /// For latents with so many `potentials`. Adam fits the baseline with the rate `rate`, greater than 0; moving
    /// averages keep `decay` of themselves, at least 0 and less than 1.
    ///
    /// # Errors
    /// Other values.
    pub fn new(potentials: usize, rate: f32, decay: f32) -> Result<Self, Error> {
        if !learns(rate as f64) {
            return Err(Error::range(RATE.name, rate, "a finite number greater than 0"));
        }
        let average = Reinforce::with_average(decay)?.average.unwrap_or(Average { decay, sum: 0.0, weight: 0.0 });
        let zeros = || vec![0.0; potentials + 1];
        let (weights, first, second) = (zeros(), zeros(), zeros());
        Ok(ReinforceLearned { rate, average, spread: average, weights, first, second, steps: 0.0 })
    }

    /// What the losses of an example with these potentials are compared with at the next step.
    pub fn baseline(&self, potentials: &[f32]) -> f32 {
        let scale = self.scale();
        let inputs = potentials.iter().map(|h| scale * h.clamp(-CLIP, CLIP));
        let told: f32 = self.weights[1..].iter().zip(inputs).map(|(w, x)| w * x).sum();
        self.average.value() + self.unit() * (self.weights[0] + told)
    }

    /// What potentials are multiplied by: their sum with weights of any signs is then of the size of one of them.
    fn scale(&self) -> f32 {
        1.0 / ((self.weights.len() - 1).max(1) as f32).sqrt()
    }

    /// Nats of what the weights say: weights and their rate do not depend on the unit of the losses.
    fn unit(&self) -> f32 {
        let spread = self.spread.value().sqrt();
        if spread > 0.0 { spread } else { 1.0 }
    }
}

impl<S: Sums> Estimator<S> for ReinforceLearned {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(score::noise(structure))
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (p, count) = (piece.structure.potentials(), piece.count());
        check_len("what the baseline is a function of", p, self.weights.len() - 1)?;
        let (average, unit, scale) = (self.average.value(), self.unit(), self.scale());
        for sample in 0..piece.samples {
            add_sample(piece, sample, oracle, |h| self.baseline(h))?;
            for (h, loss) in piece.potentials.chunks_exact(p).zip(&piece.memory.losses[..count]) {
                // Distances from the present average keep their digits.
                let (distance, error) = (loss - average, (self.baseline(h) - loss) / unit);
                let summed = [distance, 1.0, distance * distance, error];
                piece.sums.iter_mut().zip(summed).for_each(|(sum, value)| *sum += value);
                let slopes = piece.sums[SUMMED + 1..].iter_mut().zip(h);
                slopes.for_each(|(sum, h)| *sum += error * scale * h.clamp(-CLIP, CLIP));
            }
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        SUMMED + self.weights.len()
    }

    fn learn(&mut self, sums: &[f32]) {
        let &[distance, count, square, ref slopes @ ..] = sums else { return };
        // Losses that overflow teach nothing; without an example there is nothing to learn.
        if !(count > 0.0 && sums.iter().all(|s| s.is_finite())) {
            return;
        }
        let (mean, mut square) = (distance / count, square / count);
        match self.average.weight > 0.0 {
            true => {
                self.steps += 1.0;
                let unbiased = [BETA1, BETA2].map(|beta| 1.0 - beta.powf(self.steps));
                let moments = self.first.iter_mut().zip(&mut self.second);
                for ((w, (first, second)), slope) in self.weights.iter_mut().zip(moments).zip(slopes) {
                    let slope = slope / count;
                    *first += (1.0 - BETA1) * (slope - *first);
                    *second += (1.0 - BETA2) * (slope * slope - *second);
                    *w -= self.rate * (*first / unbiased[0]) / ((*second / unbiased[1]).sqrt() + EPSILON);
                }
            }
            // The first batch says where the losses are; their distance from 0 is not their spread.
            false => square -= mean * mean,
        }
        self.average.add(self.average.value() + mean);
        self.spread.add(square.max(0.0));
    }

    fn state(&self) -> Vec<f32> {
        let Average { sum, weight, .. } = self.average;
        let mut state = vec![sum, weight, self.spread.sum, self.spread.weight, self.steps];
        [&self.weights, &self.first, &self.second].into_iter().for_each(|part| state.extend(part));
        state
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        let each = self.weights.len();
        check_len("the state of the baseline", state.len(), STATE + 3 * each)?;
        let (values, parts) = state.split_at(STATE);
        (self.average.sum, self.average.weight) = (values[0], values[1]);
        (self.spread.sum, self.spread.weight, self.steps) = (values[2], values[3], values[4]);
        let own = [&mut self.weights, &mut self.first, &mut self.second];
        own.into_iter().zip(parts.chunks_exact(each)).for_each(|(own, part)| own.copy_from_slice(part));
        Ok(())
    }
}
