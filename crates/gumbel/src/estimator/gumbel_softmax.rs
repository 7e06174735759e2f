//! Gumbel-Softmax, the Concrete distribution (Jang, Gu, Poole; Maddison, Mnih, Teh; both ICLR 2017).
//!
//! ```text
//! c_i = softmax((h_i + gamma_i) / tau),   gradient = d loss(c) / d h
//! ```
//!
//! The decoder reads the relaxed code c and is differentiated through.
//!
//! - Cost: one pass of the decoder, forwards and backwards.
//! - Bias: the objective is that of relaxed codes, which tends to the true one as tau falls: of order tau, and tau^2
//!   for a loss that is linear in a binary variable's code. Variance of order 1 / tau.
//! - For independent variables.

use super::registry::{EstimatorEntry, RELAXED, TEMPERATURE};
use super::relaxed::Temperature;
use super::{Estimator, Follows, Moment, Piece, Slopes, independent};
use crate::Error;
use crate::oracle::{Followed, Oracle, Questions};
use crate::structure::Structure;

/// The estimator's name, in messages too.
const NAME: &str = "gumbel-softmax";

/// Gumbel-Softmax in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "the relaxed Gumbel-Softmax sample, differentiated through", |settings, z| {
        independent(z, NAME)?;
        Ok(Box::new(GumbelSoftmax(Temperature::of(settings)?)))
    })
    .with_settings(TEMPERATURE.settings)
    .with_schedules(&[TEMPERATURE])
    .with_costs("1", "1")
    .with_quality("of the relaxation, of order tau", "of order 1 / tau")
    .with_paper_samples(RELAXED)
}

/// The relaxed sample.
///
/// ```
/// use gumbel::estimator::{GumbelSoftmax, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 3.0 * code[1]);
/// let found = estimate(&GumbelSoftmax::new(0.5)?, &latent, &[0.2, 0.2], &[0.0; 2], &mut oracle)?;
/// assert!((found.gradient[1] - 3.0 * 0.25 / 0.5).abs() < 1e-3); // q (1 - q) / tau
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GumbelSoftmax(Temperature);

impl GumbelSoftmax {
    /// At a temperature > 0.
    ///
    /// # Errors
    /// Another temperature.
    pub fn new(temperature: f32) -> Result<Self, Error> {
        Temperature::fixed(temperature).map(GumbelSoftmax)
    }
}

impl<S: Structure> Estimator<S> for GumbelSoftmax {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn follows(&self) -> Follows {
        Follows::Codes
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.0.set(moment);
        Ok(())
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        independent(piece.structure, NAME)?;
        let (count, u) = (piece.count(), piece.structure.unary());
        for sample in 0..piece.samples {
            self.0.relax(piece, sample)?;
            let memory = &mut *piece.memory;
            let weights = super::piece::room(&mut memory.weights, count);
            weights.fill(piece.scale);
            let codes = &memory.codes[sample * count * u..][..count * u];
            oracle.follow(Followed::Codes { row: sample, codes, weights })?;
        }
        Ok(())
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        self.0.unrelax(piece, slopes)
    }
}
