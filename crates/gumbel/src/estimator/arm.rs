//! ARM: augment, REINFORCE, merge (Yin and Zhou, ICLR 2019), for independent binary variables.
//!
//! ```text
//! u ~ U(0, 1)^n,   z = [u > sigma(-phi)],   z~ = [u < sigma(phi)]
//! gradient at the logits phi  ~  (loss(z) - loss(z~)) (u - 1/2)
//! ```
//!
//! The logit of the value 1 is `phi = h_1 - h_0`, so that the gradient stands at h_1, and minus it at h_0. With the
//! logistic variable `l = gamma_1 - gamma_0`, `u = sigma(l)`: z is the perturbed arg max, z~ that of `-l`, and `u - 1/2
//! = tanh(l / 2) / 2`.
//!
//! - Cost: two losses without gradient, at z and z~, for each sample; two rows of a backward pass, for the decoder.
//! - No bias.
//! - Variance: of the order of the squared difference of the pair's losses. Every variable pays for what all others do,
//!   also where both samples agree in it: [DisARM](super::DisArm) takes this out.
//! - The decoder follows z and z~ with half a sample's weight each. Both are samples of q: no bias there either.

use super::antithetic::{binary, pairs};
use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Piece};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::structure::Structure;

/// The estimator's name, in messages too.
const NAME: &str = "arm";

/// ARM in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "antithetic pairs of binary variables: augment, REINFORCE, merge", |_, z| {
        binary(z, NAME)?;
        Ok(Box::new(Arm))
    })
    .with_costs("2", "2")
    .with_quality("none; for independent binary variables", "of the pair's difference of losses, squared")
    .with_paper_samples(PAPER)
}

/// Augment, REINFORCE, merge.
///
/// ```
/// use gumbel::estimator::{Arm, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::binary(1)?;
/// let mut oracle = Closure::new(&latent, |_, code| 6.0 * code[1]);
/// let noise = [0.0, 3f32.ln()]; // u = 3/4: z = 1 and z~ = 0
/// let found = estimate(&Arm, &latent, &[0.2, 0.2], &noise, &mut oracle)?;
/// assert!((found.gradient[1] - 6.0 * 0.25).abs() < 1e-6 && found.gradient[0] == -found.gradient[1]);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arm;

impl<S: Structure> Estimator<S> for Arm {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn rows(&self, samples: usize) -> usize {
        2 * samples
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        pairs(NAME, piece, oracle, |at| 0.5 * (0.5 * at.noise).tanh())
    }
}
