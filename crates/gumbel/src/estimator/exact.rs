//! The exact gradient by enumeration of all states (the paper's "unbiased").
//!
//! ```text
//! E = sum_z q(z) loss(z),   gradient at the potentials = sum_z q(z) (loss(z) - E) s(z)
//! ```
//!
//! - Cost: the decoder at all |Z| states, with gradient; refused above [`MAX_STATES`](super::MAX_STATES).
//! - No bias, no variance. Note that it is proportional to q: a state whose q is nearly zero hardly moves.
//! - The decoder follows the expected loss: the weights are q.

use super::{Estimator, Example, Needs, Workspace, centred};
use crate::Error;
use crate::math::softmax_in_place;
use crate::structure::{Structure, add, check_numbers};

/// Exact gradient of the expected loss by enumeration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exact;

/// The probabilities q of all states for one example; `q` has |Z| values.
pub(super) fn probabilities<S: Structure>(structure: &S, potentials: &[f32], q: &mut [f32]) {
    structure.scores(potentials, q);
    softmax_in_place(q);
}

impl<S: Structure> Estimator<S> for Exact {
    fn needs(&self) -> Needs {
        Needs::States
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
        let states = example.losses.len();
        let (q, terms) = (&mut work.first[..states], &mut work.second[..states]);
        probabilities(structure, example.potentials, q);
        add(example.weights, q, scale);
        centred(q, example.losses, |s, g| terms[s] = scale * g);
        structure.add_weighted_statistics(terms, example.gradient, &mut work.towards, &mut work.solver);
        Ok(None)
    }
}
