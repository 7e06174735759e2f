//! What score-function estimators share: exact samples of q that the noise of a piece decides, and their losses.

use super::Piece;
use super::piece::{Memory, room};
use crate::Error;
use crate::oracle::Oracle;
use crate::structure::{Structure, Sums};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Gumbel variables whose bits are the key of a generator: 32 bytes.
pub(super) const KEY: usize = 8;

/// How many Gumbel variables a sample of q takes: one for each potential of independent variables, whose perturbed
/// arg max is a sample; of coupled ones, those that key the generator of an exact sampler.
pub(super) fn noise<S: Structure>(structure: &S) -> usize {
    if structure.is_independent() { structure.unary() } else { KEY }
}

/// The generator of a key, [`KEY`] Gumbel variables.
pub(super) fn generator(noise: &[f32]) -> ChaCha8Rng {
    let mut key = [0; 4 * KEY];
    let bytes = key.chunks_exact_mut(4).zip(noise);
    bytes.for_each(|(bytes, g)| bytes.copy_from_slice(&g.to_bits().to_le_bytes()));
    ChaCha8Rng::from_seed(key)
}

/// Draws exact samples of q into `memory.assignments`: functions of the noise, whoever draws them and when.
///
/// # Errors
/// NaN, everything forbidden, sums that are not tractable.
pub(super) fn draw<S: Sums>(piece: &mut Piece<'_, S>, sample: usize) -> Result<(), Error> {
    let structure = piece.structure;
    if structure.is_independent() {
        return piece.draw(sample);
    }
    let drawn = piece.each(sample, [0, 0], |row| {
        structure.sample(row.potentials, &mut generator(row.noise), row.assignment)?;
        Ok(None)
    });
    drawn.map(drop)
}

/// Draws a sample of every example, leaves its losses in `memory.losses` `[examples]`, and lets the decoder follow it.
///
/// # Errors
/// Those of [`draw`] and of the oracle.
pub(super) fn ask<S: Sums>(piece: &mut Piece<'_, S>, sample: usize, oracle: &mut dyn Oracle) -> Result<(), Error> {
    draw(piece, sample)?;
    let (count, n) = (piece.count(), piece.structure.variables());
    let Memory { assignments, losses, .. } = &mut *piece.memory;
    oracle.losses(piece.of, &assignments[..count * n], room(losses, count))?;
    piece.follow_sample(sample, oracle)
}
