//! Local expectation gradients (Titsias and Lázaro-Gredilla, NeurIPS 2015).
//!
//! For a product of categoricals, given the sampled values of all other variables, the gradient at the potentials of
//! variable i is exact in its own coordinate:
//!
//! ```text
//! q_i(k) (f_i(k) - sum_j q_i(j) f_i(j)),   f_i(k) = loss(z*_1, ..., k, ..., z*_n)
//! ```
//!
//! It is the limit epsilon -> 0 of the Rao-Blackwellised direct estimate, and needs just its decoder evaluations.
//!
//! - Cost: z* and its neighbours, without gradient; one backward pass, for the decoder.
//! - No bias for independent variables, and defined for them only.
//! - Variance: of the sampled values of the other variables alone; for one variable it is the exact gradient.

use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Piece, centred, independent};
use crate::Error;
use crate::math::softmax;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Structure, check_numbers};

/// The estimator's name, in messages too.
const NAME: &str = "local-expectation";

/// Local expectations in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "exact in each coordinate given the sampled others", |_, z| {
        independent(z, NAME)?;
        Ok(Box::new(LocalExpectation))
    })
    .with_costs("z* and its one-coordinate changes", "1")
    .with_quality("none; for independent variables", "zero for one variable")
    .with_paper_samples(PAPER)
}

/// Exact in each coordinate given the sampled others.
///
/// ```
/// use gumbel::estimator::{LocalExpectation, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::binary(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 8.0 * code[1] * code[3]);
/// // z* = (1, 0): for the second variable the loss of 1 is 8, for the first both values cost nothing.
/// let noise = [0.0, 1.0, 1.0, 0.0];
/// let found = estimate(&LocalExpectation, &latent, &[0.0; 4], &noise, &mut oracle)?;
/// assert_eq!(found.gradient, [0.0, 0.0, -2.0, 2.0]); // q (1 - q) 8
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalExpectation;

impl<S: Structure> Estimator<S> for LocalExpectation {
    fn questions(&self, _: &S) -> Questions {
        Questions::AROUND
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, scale) = (piece.structure, piece.scale);
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            piece.ask_around(oracle)?;
            piece.each(sample, [structure.unary(), 0], |row| {
                check_numbers("potential", row.potentials)?;
                check_numbers("loss", row.losses)?;
                for i in 0..structure.variables() {
                    let block = structure.block(i).ok_or(Error::Coupled { estimator: NAME })?;
                    let (q, losses) = (&mut row.work.first[block.clone()], &row.losses[block.clone()]);
                    softmax(&row.potentials[block.clone()], q);
                    let gradient = &mut row.gradient[block];
                    centred(q, losses, |k, g| gradient[k] += scale * g);
                }
                Ok(None)
            })?;
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }
}
