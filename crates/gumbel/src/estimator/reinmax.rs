//! ReinMax (Liu, Dong, Liu, Yu, Gao, "Bridging Discrete and Backpropagation: Straight-Through and Beyond", NeurIPS
//! 2023).
//!
//! ```text
//! z ~ softmax(h), s = d loss / d code at z, J(p) = diag(p) - p p^T, for each variable
//! gradient = 2 J((onehot(z) + softmax(h / tau)) / 2) s - J(softmax(h)) s / 2
//! ```
//!
//! Straight-through takes `J(softmax(h)) s`: the difference of two losses by the slope at one end of the way between
//! them (Euler). Here it is the mean of the slopes at both ends in expectation (Heun).
//!
//! - Cost: one pass of the decoder, forwards and backwards, at the sample that it follows.
//! - Bias: of the third derivatives of the loss at tau = 1, where it is exact for losses that are quadratic in the code
//!   of each variable. With another tau the expectation is another one; the paper recommends 1 to 1.5. There is no
//!   factor 1 / tau, as in the authors' code.
//! - Variance: that of slopes, not of losses; a greater tau trades bias for it.
//! - For independent variables.

use super::registry::{EstimatorEntry, RELAXED};
use super::relaxed::{add_jacobian, check_temperature, fixed};
use super::{Estimator, Piece, Slopes, independent};
use crate::Error;
use crate::math::softmax_in_place;
use crate::oracle::{Oracle, Questions};
use crate::registry::Setting;
use crate::structure::{Structure, check_numbers};

/// The estimator's name, in messages too.
const NAME: &str = "reinmax";

const TEMPERATURE: Setting = fixed("reinmax-temperature", "1", "tau of the softmax that the sample is averaged with");

/// ReinMax in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "straight-through of second order: the sample forwards", |settings, z| {
        independent(z, NAME)?;
        Ok(Box::new(ReinMax::new(settings.real(TEMPERATURE.name) as f32)?))
    })
    .with_settings([TEMPERATURE])
    .with_costs("1", "1")
    .with_quality("of the loss's third derivatives; for independent variables", "of the slopes at the samples")
    .with_paper_samples(RELAXED)
}

/// Straight-through of second order.
///
/// ```
/// use gumbel::estimator::{ReinMax, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 4.0 * code[1]);
/// let noise = [0.0, 1.0]; // z = 1: the mean of its one-hot and q is (1/4, 3/4)
/// let found = estimate(&ReinMax::new(1.0)?, &latent, &[0.2, 0.2], &noise, &mut oracle)?;
/// assert!((found.gradient[1] - (2.0 * 0.75 * 0.25 - 0.5 * 0.25) * 4.0).abs() < 1e-4);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReinMax {
    tau: f32,
}

impl ReinMax {
    /// At a temperature from 1e-6 to 1e6.
    ///
    /// # Errors
    /// Another temperature.
    pub fn new(temperature: f32) -> Result<Self, Error> {
        Ok(ReinMax { tau: check_temperature(TEMPERATURE.name, temperature)? })
    }
}

impl<S: Structure> Estimator<S> for ReinMax {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        independent(piece.structure, NAME)?;
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        let (structure, count, first) = (piece.structure, piece.count(), piece.first);
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let k = u / n;
        for sample in 0..piece.samples {
            // The samples before have overwritten it.
            piece.draw(sample)?;
            let memory = &mut *piece.memory;
            let (q, z) = (super::piece::room(&mut memory.codes, k), &memory.assignments[..count * n]);
            let rows = slopes.row(sample, count, u).chunks_exact(u).zip(z.chunks_exact(n)).enumerate();
            for (b, (slope, z)) in rows {
                check_numbers("slope", slope).map_err(|e| e.in_example(first + b))?;
                let (h, gradient) = (&piece.potentials[b * p..][..u], &mut piece.gradient[b * p..][..u]);
                let blocks = h.chunks_exact(k).zip(slope.chunks_exact(k)).zip(z);
                for (((h, slope), z), gradient) in blocks.zip(gradient.chunks_exact_mut(k)) {
                    q.iter_mut().zip(h).for_each(|(q, h)| *q = h / self.tau);
                    softmax_in_place(q);
                    q.iter_mut().for_each(|q| *q *= 0.5);
                    q[*z as usize] += 0.5;
                    add_jacobian(q, slope, 2.0, gradient);
                    q.copy_from_slice(h);
                    softmax_in_place(q);
                    add_jacobian(q, slope, -0.5, gradient);
                }
            }
        }
        Ok(())
    }
}
