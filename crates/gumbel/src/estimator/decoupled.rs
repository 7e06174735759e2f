//! Decoupled straight-through Gumbel-Softmax (Shah, Yan, Mozer, Liu, "Improving Discrete Optimisation Via Decoupled
//! Straight-Through Gumbel-Softmax", arXiv 2410.13331, 2024).
//!
//! ```text
//! forwards c = softmax((h + gamma) / tau_f), backwards b = softmax((h + gamma) / tau_b), the same noise
//! gradient = (d loss / d code at c) · (d b / d h)
//! ```
//!
//! The decoder reads a nearly hard code, and the gradient is that of a softer one. With equal temperatures this is
//! Gumbel-Softmax; as tau_f falls it becomes straight-through at tau_b.
//!
//! - Cost: one pass of the decoder, forwards and backwards.
//! - Bias: does not vanish with either temperature; variance falls as tau_b grows.
//! - For independent variables.

use super::piece::room;
use super::registry::{EstimatorEntry, RELAXED};
use super::relaxed::{Temperature, check_temperature, fixed};
use super::{Estimator, Follows, Piece, Slopes, independent};
use crate::Error;
use crate::oracle::{Followed, Oracle, Questions};
use crate::registry::Setting;
use crate::structure::Structure;

/// The estimator's name, in messages too.
const NAME: &str = "decoupled-straight-through";

const FORWARD: Setting = fixed("forward-temperature", "0.1", "tau of the code that the decoder reads");
const BACKWARD: Setting = fixed("backward-temperature", "1", "tau of the code that the gradient goes through");

/// Decoupled straight-through in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "Gumbel-Softmax with one temperature forwards, another backwards", |settings, z| {
        independent(z, NAME)?;
        let [forward, backward] = [FORWARD, BACKWARD].map(|s| settings.real(s.name) as f32);
        Ok(Box::new(DecoupledStraightThrough::new(forward, backward)?))
    })
    .with_settings([FORWARD, BACKWARD])
    .with_costs("1", "1")
    .with_quality("does not vanish; for independent variables", "falls as the temperature backwards grows")
    .with_paper_samples(RELAXED)
}

/// Gumbel-Softmax with one temperature forwards, another backwards.
///
/// ```
/// use gumbel::estimator::{DecoupledStraightThrough, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| code[1] * code[1]);
/// let decoupled = DecoupledStraightThrough::new(0.01, 2.0)?;
/// let found = estimate(&decoupled, &latent, &[0.5, 0.5], &[0.0, 1.0], &mut oracle)?;
/// let b = 1.0 / (1.0 + (-0.5f32).exp());
/// assert!((found.gradient[1] - 2.0 * b * (1.0 - b) / 2.0).abs() < 1e-3); // the slope is that at z = 1
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoupledStraightThrough {
    forward: Temperature,
    backward: Temperature,
}

impl DecoupledStraightThrough {
    /// At two temperatures from 1e-6 to 1e6.
    ///
    /// # Errors
    /// Other temperatures.
    pub fn new(forward: f32, backward: f32) -> Result<Self, Error> {
        let of = |setting: Setting, tau| Temperature::fixed(check_temperature(setting.name, tau)?);
        Ok(DecoupledStraightThrough { forward: of(FORWARD, forward)?, backward: of(BACKWARD, backward)? })
    }
}

impl<S: Structure> Estimator<S> for DecoupledStraightThrough {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn follows(&self) -> Follows {
        Follows::Codes
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        independent(piece.structure, NAME)?;
        let (count, u) = (piece.count(), piece.structure.unary());
        for sample in 0..piece.samples {
            self.forward.relax(piece, sample)?;
            let memory = &mut *piece.memory;
            let weights = room(&mut memory.weights, count);
            weights.fill(piece.scale);
            let codes = &memory.codes[sample * count * u..][..count * u];
            oracle.follow(Followed::Codes { row: sample, codes, weights })?;
        }
        Ok(())
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        for sample in 0..piece.samples {
            self.backward.relax(piece, sample)?;
        }
        self.backward.unrelax(piece, slopes)
    }
}
