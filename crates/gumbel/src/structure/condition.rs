//! What is known of an assignment, and potentials that leave only the assignments that agree with it.

use super::{Code, Structure};
use crate::Error;
use crate::error::check_len;

/// Stands in a label for the value of a variable of which nothing is known.
pub const UNKNOWN: u32 = u32::MAX;

/// How much better than every free element one is that must be there, in nats: what the sums of all sets without it
/// weigh is beyond the digits of f64.
const MARGIN: f32 = 100.0;

/// The known variables with their values; the label is checked before.
pub(super) fn known_values(
    known: &[u32],
    variables: usize,
    values: usize,
) -> Result<impl Iterator<Item = (usize, usize)>, Error> {
    check_len("label", known.len(), variables)?;
    match known.iter().position(|value| *value != UNKNOWN && *value as usize >= values) {
        Some(variable) => Err(Error::Label { variable, value: known[variable], values }),
        None => Ok(known.iter().enumerate().filter(|(_, v)| **v != UNKNOWN).map(|(i, v)| (i, *v as usize))),
    }
}

/// Forbids the other values of the known variables of one-hot rows.
pub(super) fn one_hot<S: Structure + ?Sized>(
    structure: &S,
    known: &[u32],
    potentials: &mut [f32],
) -> Result<f64, Error> {
    let Code::OneHot { values } = structure.code() else {
        return Err(Error::NoLabels);
    };
    for (i, value) in known_values(known, structure.variables(), values)? {
        let row = potentials[i * values..][..values].iter_mut().enumerate();
        row.filter(|(k, _)| *k != value).for_each(|(_, h)| *h = f32::NEG_INFINITY);
    }
    Ok(0.0)
}

/// Forbids elements that are known not to be in a set, and makes those that are better than all others. For sets in
/// which an element may always be exchanged for some other one, as long as all that must be there fit into one set:
/// the caller has looked whether they do.
pub(super) fn elements(known: &[u32], potentials: &mut [f32]) -> Result<f64, Error> {
    let free = known.iter().zip(&*potentials).filter(|(known, h)| **known == UNKNOWN && h.is_finite());
    let best = free.map(|(_, h)| *h).reduce(f32::max).unwrap_or(0.0);
    // Of large numbers a margin in nats may be lost in the rounding.
    let certain = (best + MARGIN).max(best + 1e-3 * best.abs()).min(f32::MAX);
    let mut lost = 0.0;
    for (i, value) in known_values(known, potentials.len(), 2)? {
        let h = &mut potentials[i];
        if value == 0 {
            *h = f32::NEG_INFINITY;
            continue;
        }
        if *h == f32::NEG_INFINITY {
            return Err(Error::Infeasible { detail: format!("variable {i} is to be 1, and its potential is -inf") });
        }
        lost += *h as f64 - certain as f64;
        *h = certain;
    }
    Ok(lost)
}
