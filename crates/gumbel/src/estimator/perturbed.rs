//! Perturbed optimisers: the score function of the noise (Berthet, Blondel, Teboul, Cuturi, Vert, Bach, "Learning with
//! differentiable perturbed optimizers", NeurIPS 2020).
//!
//! ```text
//! z_m = argmax_z <h + gamma_m, s(z)>,     gamma_m standard Gumbel variables, one for each potential
//! 1/M sum_m (loss(z_m) - b_m) (1 - exp(-gamma_m)),     b_m = 1/(M - 1) sum_{l != m} loss(z_l)
//! ```
//!
//! The density of `zeta = h + gamma` is the product of `exp(-(zeta - h) - exp(-(zeta - h)))`, and the derivative of its
//! logarithm in h is `1 - exp(-gamma)`, of mean zero. The loss depends on h through zeta alone. (The noise of a piece
//! is standard: it has not been shifted to mean zero.)
//!
//! - Cost: one loss without gradient and one arg max for each of the M >= 2 samples (`samples` of a run); M rows of a
//!   backward pass, for the decoder. For every latent whose potentials may all be perturbed: no sums, no enumeration,
//!   and the gradient stands at all potentials, those of pairs too. Where couplings must keep their sign, as those of
//!   supermodular models, noise on the unary ones would leave the others without a gradient: such latents are refused.
//! - No bias, of the gradient of `E_gamma[loss(argmax(h + gamma))]`: of independent variables this is `E_q[loss]`, of
//!   coupled ones the distribution of the perturbed arg max, which is not the Gibbs distribution. The baseline is the
//!   mean loss of the other samples, which do not depend on the own one.
//! - Variance: of the order of the variance of the losses at each potential, divided by M: the score of the noise has
//!   variance 1 even where that of q has less.
//! - The decoder follows the samples with equal weights.

use super::piece::{Memory, room};
use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Piece, Workspace};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Structure, add, check_numbers};

/// The estimator's name, in messages too.
const NAME: &str = "perturbed";

/// The score function of the noise in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(
        NAME,
        "the score function of the noise, each of at least 2 samples against the mean of the others",
        |_, z| {
            signless(z)?;
            Ok(Box::new(Perturbed))
        },
    )
    .with_costs("1", "1")
    .with_quality("none, of the perturbed arg max; for potentials of any sign", "of the losses' variance")
    .with_paper_samples(PAPER)
}

/// Refuses potentials that noise may not change.
fn signless<S: Structure>(structure: &S) -> Result<(), Error> {
    if structure.takes_any_sign() || structure.potentials() == structure.unary() {
        return Ok(());
    }
    let expected = "another one: it perturbs every potential, and the couplings of this latent must not be negative";
    Err(Error::setting("estimator", NAME, expected))
}

/// The score function of Gumbel noise on every potential.
///
/// ```
/// use gumbel::estimator::{Perturbed, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 9.0 * code[0] + code[1]);
/// let noise = [0.0, 2.0, 1.0, 0.0]; // [samples = 2, batch = 1, K = 2]: z = 1 and z = 0
/// let found = estimate(&Perturbed, &latent, &[0.3, 0.3], &noise, &mut oracle)?;
/// // Half of the losses' distance from the other one, -8 and 8, times 1 - exp(-gamma).
/// let expected = [4.0 * (1.0 - f32::exp(-1.0)), -4.0 * (1.0 - f32::exp(-2.0))];
/// assert!(found.gradient.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-5));
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Perturbed;

impl<S: Structure> Estimator<S> for Perturbed {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        signless(structure)?;
        Ok(structure.potentials())
    }

    fn least_samples(&self) -> usize {
        2
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, samples, count) = (piece.structure, piece.samples, piece.count());
        let (p, n) = (structure.potentials(), structure.variables());
        signless(structure)?;
        if samples < 2 {
            let expected = format!("at least 2: {NAME} compares each with the others");
            return Err(Error::setting("samples", samples, expected));
        }
        for sample in 0..samples {
            piece.each(sample, [0, 0], |row| {
                let Workspace { first, solver, warm, .. } = &mut *row.work;
                let perturbed = &mut first[..p];
                perturbed.copy_from_slice(row.potentials);
                add(perturbed, row.noise, 1.0);
                *warm = false;
                structure.argmax(perturbed, row.assignment, solver).map(|_| None)
            })?;
            let Memory { assignments, own, .. } = &mut *piece.memory;
            let losses = &mut room(own, samples * count)[sample * count..][..count];
            oracle.losses(piece.of, &assignments[..count * n], losses)?;
            piece.follow_sample(sample, oracle)?;
        }
        let losses = &piece.memory.own;
        // The scale is that of a mean over M samples; the distance from the mean of all is (M - 1) / M of that from the
        // mean of the others.
        let scale = piece.scale * samples as f32 / (samples - 1) as f32;
        for (b, gradient) in piece.gradient.chunks_exact_mut(p).enumerate() {
            let loss = |sample: usize| losses[sample * count + b];
            for sample in 0..samples {
                check_numbers("loss", &[loss(sample)]).map_err(|e| e.in_example(piece.first + b))?;
            }
            let mean = (0..samples).map(|m| loss(m) as f64).sum::<f64>() / samples as f64;
            let potentials = &piece.potentials[b * p..][..p];
            for sample in 0..samples {
                let weight = scale * (loss(sample) as f64 - mean) as f32;
                let noise = piece.noise.of(sample, b);
                for ((g, gamma), h) in gradient.iter_mut().zip(noise).zip(potentials) {
                    // What is forbidden is so with any noise: there the mean is zero, and need not be sampled.
                    if *h != f32::NEG_INFINITY {
                        *g += weight * (1.0 - (-gamma).exp());
                    }
                }
            }
        }
        Ok(())
    }
}
