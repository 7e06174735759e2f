//! The exact gradient by enumeration of all states (the paper's "unbiased").
//!
//! ```text
//! E = sum_z q(z) loss(z),   gradient at the potentials = sum_z q(z) (loss(z) - E) s(z)
//! ```
//!
//! - Cost: the decoder at all |Z| states, with gradient; refused above [`MAX_STATES`](super::MAX_STATES).
//! - No bias, no variance. Note that it is proportional to q: a state whose q is nearly zero hardly moves.
//! - The decoder follows the expected loss: the weights are q.

use super::registry::EstimatorEntry;
use super::{Estimator, Follows, Piece, centred, enumerable};
use crate::Error;
use crate::math::softmax_in_place;
use crate::oracle::{Followed, Oracle, Questions};
use crate::structure::{Structure, add, check_numbers};

/// Enumeration in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new("exact", "the exact gradient of the bound by enumeration, the paper's \"unbiased\"", |_, z| {
        enumerable(z)?;
        Ok(Box::new(Exact))
    })
    .with_costs("all states", "all states")
    .with_quality("none", "none")
}

/// Exact gradient of the expected loss by enumeration.
///
/// ```
/// use gumbel::estimator::{Exact, estimate};
/// use gumbel::oracle::{Closure, Kept};
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 3.0 * code[1]);
/// let found = estimate(&Exact, &latent, &[0.2, 0.2], &[], &mut oracle)?; // there is no noise
/// assert_eq!(found.gradient, [-0.75, 0.75]); // q (loss - E)
/// assert_eq!(oracle.followed, [Kept::States(vec![0.5, 0.5])]);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exact;

/// Calls `f(q, terms, losses, weights)` for every example, with the probabilities and losses of all states: it
/// adds the weights that the decoder follows, and leaves in `terms` what the gradient has of each state's statistics.
pub(super) fn over_states<S: Structure>(
    piece: &mut Piece<'_, S>,
    oracle: &mut dyn Oracle,
    f: impl Fn(&mut [f32], &mut [f32], &[f32], &mut [f32]) + Sync,
) -> Result<(), Error> {
    let structure = piece.structure;
    let states = piece.ask_states(oracle)?;
    piece.each(0, [states, states], |row| {
        check_numbers("potential", row.potentials)?;
        check_numbers("loss", row.losses)?;
        let work = &mut *row.work;
        let (q, terms) = (&mut work.first[..states], &mut work.second[..states]);
        structure.scores(row.potentials, q);
        if softmax_in_place(q) == f32::NEG_INFINITY {
            return Err(Error::Infeasible { detail: "every state is forbidden".into() });
        }
        row.weights.fill(0.0);
        f(q, terms, row.losses, row.weights);
        structure.add_weighted_statistics(terms, row.gradient, &mut work.towards, &mut work.solver);
        Ok(None)
    })?;
    oracle.follow(Followed::States(&piece.memory.weights[..piece.of.len() * states]))
}

impl<S: Structure> Estimator<S> for Exact {
    fn questions(&self, _: &S) -> Questions {
        Questions::STATES
    }

    fn follows(&self) -> Follows {
        Follows::States
    }

    fn is_random(&self) -> bool {
        false
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let scale = piece.scale;
        over_states(piece, oracle, |q, terms, losses, weights| {
            add(weights, q, scale);
            centred(q, losses, |s, g| terms[s] = scale * g);
        })
    }
}
