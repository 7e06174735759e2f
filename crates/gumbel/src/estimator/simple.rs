//! SIMPLE: an exact sample forwards, the marginals backwards (Ahmed, Zeng, Niepert, Van den Broeck, "SIMPLE: A Gradient
//! Estimator for k-Subset Sampling", ICLR 2023).
//!
//! ```text
//! z ~ q, s = d loss / d code at z,   gradient = d <s, mu(h)> / d h = Cov_q[s(z), <s, code(z)>]
//! ```
//!
//! The code of the sample is taken for the marginals `mu = E_q[code]`, as straight-through does; their derivative is
//! exact, and no noise or temperature is in it.
//!
//! - Cost: one pass of the decoder, forwards and backwards, at the sample that it follows; and one
//!   [covariance](crate::structure::Sums::covariance) along the slopes, for all samples of an example together.
//! - Bias: of the second derivatives of the loss; none for losses that are linear in the code.
//! - Variance: that of the slope at the sample: none for linear losses.
//! - For every latent with [sums](crate::structure::Sums).

use super::piece::room;
use super::registry::{EstimatorEntry, RELAXED};
use super::{Estimator, Piece, Slopes, score};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Sums, add, check_numbers};

/// SIMPLE in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new("simple", "an exact sample forwards, the exact marginals backwards", |_, z| {
        z.tractable()?;
        Ok(Box::new(Simple))
    })
    .with_costs("1", "1")
    .with_quality("of the loss's second derivatives; for latents with sums", "of the slopes at the samples")
    .with_paper_samples(RELAXED)
}

/// An exact sample forwards, the exact marginals backwards.
///
/// ```
/// use gumbel::estimator::{Estimator, Simple, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Subset;
/// let latent = Subset::new(4, 2)?;
/// let noise = vec![0.5; Simple.noise(&latent)?]; // the key of the exact sampler's generator
/// let mut oracle = Closure::new(&latent, |_, code| 3.0 * code[0]);
/// let found = estimate(&Simple, &latent, &[0.0; 4], &noise, &mut oracle)?;
/// // Of two out of four: the variance of one is 1/4, the covariance of two 1/6 - 1/4.
/// let expected = [0.75, -0.25, -0.25, -0.25];
/// assert!(found.gradient.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-3));
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simple;

impl<S: Sums> Estimator<S> for Simple {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(score::noise(structure))
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        for sample in 0..piece.samples {
            score::draw(piece, sample)?;
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        let (structure, count) = (piece.structure, piece.count());
        let (p, u) = (structure.potentials(), structure.unary());
        // The covariance is linear in the slopes.
        let sums = room(&mut piece.memory.losses, count * u);
        sums.fill(0.0);
        (0..piece.samples).for_each(|sample| add(sums, slopes.row(sample, count, u), 1.0));
        piece.each(0, [u, 0], |row| {
            check_numbers("slope", row.losses)?;
            let direction = &mut row.work.first[..p];
            direction.fill(0.0);
            direction[..u].copy_from_slice(row.losses);
            structure.covariance(row.potentials, direction, 1.0, row.gradient)?;
            Ok(None)
        })?;
        Ok(())
    }
}
