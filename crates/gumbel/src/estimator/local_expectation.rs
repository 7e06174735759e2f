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
//! - Unbiased for independent variables, and defined for them only; for one variable it is the exact gradient.

use super::{Estimator, Example, Needs, Workspace, centred};
use crate::Error;
use crate::math::softmax;
use crate::structure::{Structure, check_numbers};

/// Exact in each coordinate given the sampled others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalExpectation;

impl<S: Structure> Estimator<S> for LocalExpectation {
    fn needs(&self) -> Needs {
        Needs::Neighbours
    }

    fn example(
        &self,
        structure: &S,
        example: Example<'_>,
        scale: f32,
        work: &mut Workspace<S>,
    ) -> Result<Option<bool>, Error> {
        check_numbers("potential", example.potentials)?;
        check_numbers("loss", example.losses)?;
        for i in 0..structure.variables() {
            let block = structure.block(i).ok_or(Error::Coupled { estimator: "local-expectation" })?;
            let (q, losses) = (&mut work.first[block.clone()], &example.losses[block.clone()]);
            softmax(&example.potentials[block.clone()], q);
            let gradient = &mut example.gradient[block];
            centred(q, losses, |k, g| gradient[k] += scale * g);
        }
        Ok(None)
    }
}
