//! Training on the exact -ln p(x) by enumeration.
//!
//! With a uniform prior, `p(z | x) = softmax_z(-loss(z))`. The decoder follows -ln p(x), whose gradient weights each
//! state's loss by its posterior; the encoder is fitted to the same posterior by minimising KL(p(z|x) || q(z|x)), whose
//! gradient at the potentials is `E_q[s(z)] - E_{p(z|x)}[s(z)]`.
//!
//! - Cost: the decoder at all |Z| states, with gradient; refused above [`MAX_STATES`](super::MAX_STATES).
//! - No bias, no variance, for its own objective, which is not the bound: where q can represent the posterior, both
//!   have the same optimum; the encoder's pull does not vanish for states whose q is nearly zero.
//!
//! Reference: the encoder's update is the limit, in the number of samples, of the wake phase of Bornschein and Bengio,
//! "Reweighted Wake-Sleep", ICLR 2015.

use super::exact::over_states;
use super::registry::EstimatorEntry;
use super::{Estimator, Follows, KlTerm, Piece, difference, enumerable};
use crate::Error;
use crate::math::softmax_in_place;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Structure, add};

/// The exact evidence in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new("marginal", "exact -ln p(x) for the decoder, exact posterior for the encoder", |_, z| {
        enumerable(z)?;
        Ok(Box::new(Marginal))
    })
    .with_costs("all states", "all states")
    .with_quality("none, of another objective: -ln p(x)", "none")
}

/// Exact gradient of -ln p(x) for the decoder, exact posterior for the encoder.
///
/// ```
/// use gumbel::estimator::{Marginal, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| f32::ln(3.0) * code[1]);
/// let found = estimate(&Marginal, &latent, &[0.2, 0.2], &[], &mut oracle)?; // there is no noise
/// assert!((found.gradient[1] - (0.5 - 0.25)).abs() < 1e-6); // q less the posterior
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marginal;

impl<S: Structure> Estimator<S> for Marginal {
    fn questions(&self, _: &S) -> Questions {
        Questions::STATES
    }

    fn follows(&self) -> Follows {
        Follows::States
    }

    fn is_random(&self) -> bool {
        false
    }

    /// Its objective, -ln p(x), holds the prior: a second pull towards it would move q away from the posterior.
    fn kl(&self, _: &S) -> KlTerm {
        KlTerm::Within
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let scale = piece.scale;
        over_states(piece, oracle, |q, terms, losses, weights| {
            terms.iter_mut().zip(losses).for_each(|(p, l)| *p = -l);
            softmax_in_place(terms); // the posterior
            add(weights, terms, scale);
            difference(q, terms);
            terms.iter_mut().zip(q).for_each(|(term, d)| *term = *d * scale);
        })
    }
}
