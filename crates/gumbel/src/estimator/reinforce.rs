//! REINFORCE, the score-function estimator (Williams, Machine Learning 8, 1992).
//!
//! ```text
//! (loss(z) - baseline) grad ln q(z),   z ~ q,   grad ln q(z) = s(z) - E_q[s]
//! ```
//!
//! - Cost: one loss without gradient for each sample; one backward pass, for the decoder. For every latent with
//!   [sums](crate::structure::Sums): `E_q[s]` are the marginals, and z is an exact sample (for independent variables
//!   the perturbed arg max, else that of the structure's sampler, keyed by the piece's noise).
//! - No bias: the baseline does not depend on z. The moving average is that of the batches *before*: it is learned
//!   behind the step, so that no sample is compared with itself. At the first step it is 0.
//! - Variance: of the order of the squared distance of the losses from the baseline; without one, of the losses
//!   themselves.
//! - The decoder follows the samples with equal weights.
//!
//! Baselines that need a network of their own (Mnih and Gregor, "Neural variational inference and learning in belief
//! networks", ICML 2014) are not here: an estimator sees potentials, not images.

use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Piece, score};
use crate::Error;
use crate::error::check_len;
use crate::oracle::{Oracle, Questions};
use crate::registry::{Kind, Setting};
use crate::structure::{Sums, add, check_numbers};

const BASELINE: Setting = Setting {
    name: "baseline",
    kind: Kind::Choice(&["none", "average"]),
    default: "average",
    value: "NAME",
    help: "what losses are compared with: none, or the moving average of the losses of the batches before",
};
const DECAY: Setting = Setting {
    name: "baseline-decay",
    kind: Kind::Real(decays, "a number of at least 0 and less than 1"),
    default: "0.99",
    value: "X",
    help: "with baseline = average: what the average keeps of itself from step to step",
};

fn decays(decay: f64) -> bool {
    (0.0..1.0).contains(&(decay as f32))
}

/// REINFORCE in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new("reinforce", "the score function, with a moving average as baseline", |settings, z| {
        z.tractable()?;
        Ok(match settings.text("baseline") {
            "none" => Box::new(Reinforce::new()),
            _ => Box::new(Reinforce::with_average(settings.real(DECAY.name) as f32)?),
        })
    })
    .with_settings([BASELINE, DECAY])
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

impl<S: Sums> Estimator<S> for Reinforce {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(score::noise(structure))
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, scale, count) = (piece.structure, piece.scale, piece.count());
        let (p, baseline) = (structure.potentials(), self.baseline());
        for sample in 0..piece.samples {
            score::ask(piece, sample, oracle)?;
            piece.each(sample, [1, 0], |row| {
                check_numbers("loss", row.losses)?;
                let score = &mut row.work.first[..p];
                structure.marginals(row.potentials, score)?;
                score.iter_mut().for_each(|q| *q = -*q);
                structure.add_statistics(row.assignment, 1.0, score);
                add(row.gradient, score, scale * (row.losses[0] - baseline));
                Ok(None)
            })?;
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
