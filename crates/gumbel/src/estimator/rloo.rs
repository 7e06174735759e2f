//! Leave-one-out REINFORCE (Kool, van Hoof, Welling, "Buy 4 REINFORCE samples, get a baseline for free!", ICLR workshop
//! 2019).
//!
//! ```text
//! 1/M sum_m (loss(z_m) - 1/(M - 1) sum_{l != m} loss(z_l)) grad ln q(z_m)
//!     = 1/(M - 1) sum_m (loss(z_m) - mean of all M losses) s(z_m),   z_1, ..., z_M ~ q
//! ```
//!
//! The baseline of every sample is the mean loss of the others, which do not depend on it. `grad ln q(z) = s(z) -
//! E_q[s]`; the second part cancels in the sum.
//!
//! - Cost: one loss without gradient for each of the M >= 2 samples (`samples` of a run); M rows of a backward pass,
//!   for the decoder. For every latent with an exact sampler ([sums](crate::structure::Sums)).
//! - No bias.
//! - Variance: of the order of the variance of the losses under q, divided by M.
//! - The decoder follows the samples with equal weights.

use super::piece::{Memory, room};
use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Piece, score};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Sums, check_numbers};

/// The estimator's name, in messages too.
const NAME: &str = "rloo";

/// Leave-one-out REINFORCE in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(
        NAME,
        "the score function, each of at least 2 samples against the mean of the others",
        |_, z| {
            z.tractable()?;
            Ok(Box::new(LeaveOneOut))
        },
    )
    .with_costs("1", "1")
    .with_quality("none; for latents with sums", "of the losses' variance under q")
    .with_paper_samples(PAPER)
}

/// Leave-one-out REINFORCE.
///
/// ```
/// use gumbel::estimator::{LeaveOneOut, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(3)?;
/// let mut oracle = Closure::new(&latent, |_, code| 9.0 * code[0] + code[1] + 5.0 * code[2]);
/// let noise = [0.3, 0.1, 0.9, 2.0, 0.4, -0.7]; // [samples = 2, batch = 1, K = 3]
/// let found = estimate(&LeaveOneOut, &latent, &[0.2, -0.1, 0.4], &noise, &mut oracle)?;
/// assert_eq!(found.gradient, [2.0, 0.0, -2.0]); // z = 2 and z = 0 were drawn
/// let error = estimate(&LeaveOneOut, &latent, &[0.2, -0.1, 0.4], &noise[..3], &mut oracle).unwrap_err();
/// assert_eq!(error.to_string(), "samples = 1: expected at least 2: rloo compares each with the others");
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaveOneOut;

impl<S: Sums> Estimator<S> for LeaveOneOut {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(score::noise(structure))
    }

    fn least_samples(&self) -> usize {
        2
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, samples, count) = (piece.structure, piece.samples, piece.count());
        let (p, n) = (structure.potentials(), structure.variables());
        if samples < 2 {
            let expected = format!("at least 2: {NAME} compares each with the others");
            return Err(Error::setting("samples", samples, expected));
        }
        for sample in 0..samples {
            score::ask(piece, sample, oracle)?;
            let Memory { assignments, moved, own, losses, .. } = &mut *piece.memory;
            let all = room(moved, samples * count * n);
            all[sample * count * n..][..count * n].copy_from_slice(&assignments[..count * n]);
            room(own, samples * count)[sample * count..][..count].copy_from_slice(&losses[..count]);
        }
        let (drawn, losses) = (&piece.memory.moved, &piece.memory.own);
        // The scale is that of a mean over M samples.
        let scale = piece.scale * samples as f32 / (samples - 1) as f32;
        for (b, gradient) in piece.gradient.chunks_exact_mut(p).enumerate() {
            let loss = |sample: usize| losses[sample * count + b];
            for sample in 0..samples {
                check_numbers("loss", &[loss(sample)]).map_err(|e| e.in_example(piece.first + b))?;
            }
            let mean = (0..samples).map(|m| loss(m) as f64).sum::<f64>() / samples as f64;
            for sample in 0..samples {
                let weight = scale * (loss(sample) as f64 - mean) as f32;
                structure.add_statistics(&drawn[(sample * count + b) * n..][..n], weight, gradient);
            }
        }
        Ok(())
    }
}
