//! Straight-through Gumbel-Softmax (Jang, Gu, Poole, ICLR 2017).
//!
//! ```text
//! forwards z* = argmax(h + gamma), backwards c = softmax((h + gamma) / tau)
//! gradient = (d loss / d code at z*) · (d c / d h)
//! ```
//!
//! The decoder reads the hard sample; the gradient goes through the relaxed one as if they were equal.
//!
//! - Cost: one pass of the decoder, forwards and backwards.
//! - Bias: does not vanish with tau; variance grows as tau falls.
//! - For independent variables.

use super::registry::{EstimatorEntry, RELAXED, TEMPERATURE};
use super::relaxed::Temperature;
use super::{Estimator, Moment, Piece, Slopes, independent};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::structure::Structure;

/// The estimator's name, in messages too.
const NAME: &str = "straight-through";

/// The straight-through estimator in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "Gumbel-Softmax backwards, its arg max forwards", |settings, z| {
        independent(z, NAME)?;
        Ok(Box::new(StraightThrough(Temperature::of(settings)?)))
    })
    .with_settings(TEMPERATURE.settings)
    .with_schedules(&[TEMPERATURE])
    .with_costs("1", "1")
    .with_quality("does not vanish", "grows as tau falls")
    .with_paper_samples(RELAXED)
}

/// The hard sample forwards, the relaxed one backwards.
///
/// ```
/// use gumbel::estimator::{StraightThrough, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| code[1] * code[1]);
/// let found = estimate(&StraightThrough::new(1.0)?, &latent, &[0.2, 0.1], &[0.0; 2], &mut oracle)?;
/// assert!(found.gradient[1].abs() < 1e-6); // at z* = 0 the slope is zero
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StraightThrough(Temperature);

impl StraightThrough {
    /// At a temperature > 0.
    ///
    /// # Errors
    /// Another temperature.
    pub fn new(temperature: f32) -> Result<Self, Error> {
        Temperature::fixed(temperature).map(StraightThrough)
    }
}

impl<S: Structure> Estimator<S> for StraightThrough {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
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
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            self.0.relax(piece, sample)?;
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        self.0.unrelax(piece, slopes)
    }
}
