//! Training on the exact -ln p(x) by enumeration.
//!
//! With a uniform prior, `p(z | x) = softmax_z(-loss(z))`. The decoder follows -ln p(x), whose gradient weights each
//! state's loss by its posterior; the encoder is fitted to the same posterior by minimising KL(p(z|x) || q(z|x)), whose
//! gradient at the potentials is `E_q[s(z)] - E_{p(z|x)}[s(z)]`.
//!
//! - Cost: the decoder at all |Z| states, with gradient; refused above [`MAX_STATES`](super::MAX_STATES).
//! - Exact for its own objective, which is not the bound: where q can represent the posterior, both have the same
//!   optimum; the encoder's pull does not vanish for states whose q is nearly zero.

use super::exact::probabilities;
use super::{Estimator, Example, Needs, Workspace, difference};
use crate::Error;
use crate::math::softmax_in_place;
use crate::structure::{Structure, add, check_numbers};

/// Exact gradient of -ln p(x) for the decoder, exact posterior for the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marginal;

impl<S: Structure> Estimator<S> for Marginal {
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
        let (q, posterior) = (&mut work.first[..states], &mut work.second[..states]);
        probabilities(structure, example.potentials, q);
        posterior.iter_mut().zip(example.losses).for_each(|(p, l)| *p = -l);
        softmax_in_place(posterior);
        add(example.weights, posterior, scale);
        difference(q, posterior);
        q.iter_mut().for_each(|d| *d *= scale);
        structure.add_weighted_statistics(q, example.gradient, &mut work.towards, &mut work.solver);
        Ok(None)
    }
}
