//! DisARM (Dong, Mnih, Tucker, NeurIPS 2020), also known as U2G (Yin et al., 2020), for independent binary variables.
//!
//! ```text
//! z, z~ an antithetic pair, as in ARM
//! gradient at the logits phi  ~  1/2 (loss(z) - loss(z~)) (-1)^z~ [z != z~] sigma(|phi|)
//! ```
//!
//! It is the expectation of [ARM](super::Arm) given the pair: what the uniform variables have beyond it is integrated
//! out. The logit of the value 1 is `phi = h_1 - h_0`, so that the gradient stands at h_1, and minus it at h_0.
//!
//! - Cost: two losses without gradient, at z and z~, for each sample; two rows of a backward pass, for the decoder.
//! - No bias: for one variable, z and z~ differ with probability `2 sigma(-|phi|)`, and `sigma(|phi|) sigma(-|phi|) =
//!   q_1 q_0`.
//! - Variance: at most that of ARM; a variable in which both samples agree has a gradient of zero.
//! - The decoder follows z and z~ with half a sample's weight each. Both are samples of q: no bias there either.

use super::antithetic::{binary, pairs};
use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Piece};
use crate::Error;
use crate::math::sigmoid;
use crate::oracle::{Oracle, Questions};
use crate::structure::Structure;

/// The estimator's name, in messages too.
const NAME: &str = "disarm";

/// DisARM in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(
        NAME,
        "antithetic pairs of binary variables, ARM's expectation given the pair (also known as U2G)",
        |_, z| {
            binary(z, NAME)?;
            Ok(Box::new(DisArm))
        },
    )
    .with_costs("2", "2")
    .with_quality("none; for independent binary variables", "at most that of arm")
    .with_paper_samples(PAPER)
}

/// ARM's expectation given the antithetic pair.
///
/// ```
/// use gumbel::estimator::{DisArm, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::binary(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 6.0 * code[1] + code[3]);
/// // The first variable is 1, and 0 with minus the noise; the second is 1 in both.
/// let (potentials, noise) = ([0.2, 0.2, 0.0, 3.0], [0.0, 1.0, 0.0, 1.0]);
/// let found = estimate(&DisArm, &latent, &potentials, &noise, &mut oracle)?;
/// assert_eq!(found.gradient, [-1.5, 1.5, 0.0, 0.0]); // 6 sigma(0) / 2
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DisArm;

impl<S: Structure> Estimator<S> for DisArm {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn rows(&self, samples: usize) -> usize {
        2 * samples
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        pairs(NAME, piece, oracle, |at| match at.values {
            [1, 0] => 0.5 * sigmoid(at.logit.abs()),
            [0, 1] => -0.5 * sigmoid(at.logit.abs()),
            _ => 0.0,
        })
    }
}
