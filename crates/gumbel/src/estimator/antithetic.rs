//! Antithetic pairs of samples of independent binary variables: what ARM and DisARM share.

use super::Piece;
use super::piece::{Memory, room};
use crate::Error;
use crate::oracle::{Followed, Oracle};
use crate::structure::{Structure, check_numbers};

/// One variable of a pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coordinate {
    /// `h_1 - h_0`.
    pub logit: f32,
    /// `gamma_1 - gamma_0`, a logistic variable: its distribution function makes the uniform one of the papers.
    pub noise: f32,
    /// Its values with this noise, and with minus this noise.
    pub values: [u32; 2],
}

/// Refuses everything but independent variables with two values.
///
/// # Errors
/// [`Error::NotBinary`].
pub(super) fn binary<S: Structure>(structure: &S, estimator: &'static str) -> Result<(), Error> {
    let two = |i| structure.block(i).is_some_and(|block| block.len() == 2);
    if (0..structure.variables()).all(two) { Ok(()) } else { Err(Error::NotBinary { estimator }) }
}

/// Adds `(loss(z) - loss(z~)) factor` at the logit of every variable, and lets the decoder follow z and z~ with half
/// the weight of a sample each.
///
/// z is the perturbed arg max, z~ that of the same noise exchanged between the two values: minus the logistic variable.
///
/// # Errors
/// Other latents, NaN, those of the oracle.
pub(super) fn pairs<S: Structure>(
    estimator: &'static str,
    piece: &mut Piece<'_, S>,
    oracle: &mut dyn Oracle,
    factor: impl Fn(Coordinate) -> f32 + Sync,
) -> Result<(), Error> {
    let (structure, scale, count, first) = (piece.structure, piece.scale, piece.count(), piece.first);
    let n = structure.variables();
    binary(structure, estimator)?;
    let start = |i: usize| structure.block(i).map(|block| block.start).ok_or(Error::NotBinary { estimator });
    for sample in 0..piece.samples {
        piece.draw(sample)?;
        piece.each(sample, [0, 0], |row| {
            for (i, other) in row.moved.iter_mut().enumerate() {
                let (h, noise) = (&row.potentials[start(i)?..], &row.noise[start(i)?..]);
                *other = (h[1] + noise[0] > h[0] + noise[1]) as u32;
            }
            Ok(None)
        })?;
        let Memory { assignments, moved, own, losses, weights, .. } = &mut *piece.memory;
        let (drawn, other) = (&assignments[..count * n], &moved[..count * n]);
        let (own, losses, weights) = (room(own, count), room(losses, count), room(weights, count));
        oracle.losses(piece.of, drawn, own)?;
        oracle.losses(piece.of, other, losses)?;
        for (b, (own, loss)) in own.iter().zip(&mut *losses).enumerate() {
            check_numbers("loss", &[*own, *loss]).map_err(|e| e.in_example(first + b))?;
            *loss = own - *loss; // from here on their difference
        }
        weights.fill(0.5 * scale);
        oracle.follow(Followed::Assignments { row: 2 * sample, assignments: drawn, weights })?;
        oracle.follow(Followed::Assignments { row: 2 * sample + 1, assignments: other, weights })?;
        piece.each(sample, [1, 0], |row| {
            for i in 0..n {
                let at = start(i)?;
                let (h, noise) = (&row.potentials[at..], &row.noise[at..]);
                let (logit, noise) = (h[1] - h[0], noise[1] - noise[0]);
                // Where a value is forbidden, the other one is certain.
                if logit.is_finite() {
                    let values = [row.assignment[i], row.moved[i]];
                    let gradient = scale * row.losses[0] * factor(Coordinate { logit, noise, values });
                    row.gradient[at + 1] += gradient;
                    row.gradient[at] -= gradient;
                }
            }
            Ok(None)
        })?;
    }
    Ok(())
}
