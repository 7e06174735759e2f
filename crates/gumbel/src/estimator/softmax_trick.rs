//! Stochastic softmax tricks (Paulus, Choi, Tarlow, Krause, Maddison, "Gradient Estimation with Stochastic Softmax
//! Tricks", NeurIPS 2020), with the entropy of the Gibbs distribution as the regulariser.
//!
//! ```text
//! c = E[code(z)] under the Gibbs distribution with the potentials (h + gamma) / tau, gamma on unary ones
//! gradient = d loss(c) / d h = Cov[s(z), <d loss / d c, code(z)>] / tau, of the same distribution
//! ```
//!
//! What Gumbel-Softmax is to one variable, this is to subsets, chains, trees: as tau falls, c becomes the code of the
//! perturbed arg max. For independent variables it is Gumbel-Softmax itself.
//!
//! - Cost: one pass of the decoder, forwards and backwards, at the relaxed code that it follows; the marginals, and
//!   their derivative ([`covariance`](crate::structure::Sums::covariance)).
//! - Bias: the objective is that of relaxed codes, at a distance of order tau from that under the distribution of the
//!   perturbed arg max, which for coupled variables is not q; variance of order 1 / tau.
//! - For every latent with [sums](crate::structure::Sums).

use super::piece::{Memory, Row, room};
use super::registry::{EstimatorEntry, RELAXED, TEMPERATURE};
use super::relaxed::Temperature;
use super::{Estimator, Follows, Moment, Piece, Slopes};
use crate::Error;
use crate::oracle::{Followed, Oracle, Questions};
use crate::structure::{Sums, add, check_numbers};

/// Softmax tricks in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new("softmax-trick", "marginals of perturbed potentials, differentiated through", |settings, z| {
        z.tractable()?;
        Ok(Box::new(SoftmaxTrick(Temperature::of(settings)?)))
    })
    .with_settings(TEMPERATURE.settings)
    .with_schedules(&[TEMPERATURE])
    .with_costs("1", "1")
    .with_quality(
        "of the relaxation, of order tau, and of the perturbed arg max; for latents with sums",
        "of order 1 / tau",
    )
    .with_paper_samples(RELAXED)
}

/// The marginals of perturbed potentials, differentiated through.
///
/// ```
/// use gumbel::estimator::{SoftmaxTrick, estimate};
/// use gumbel::oracle::{Closure, Kept};
/// use gumbel::structure::Subset;
/// let latent = Subset::new(4, 2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 3.0 * code[0]);
/// let found = estimate(&SoftmaxTrick::new(0.5)?, &latent, &[0.0; 4], &[0.1; 4], &mut oracle)?;
/// assert!((found.gradient[0] - 3.0 * 0.25 / 0.5).abs() < 1e-3);
/// let Kept::Codes { codes, .. } = &oracle.followed[0] else { panic!() };
/// assert_eq!(*codes, [0.5; 4]); // the decoder reads marginals
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftmaxTrick(Temperature);

impl SoftmaxTrick {
    /// At a temperature > 0.
    ///
    /// # Errors
    /// Another temperature.
    pub fn new(temperature: f32) -> Result<Self, Error> {
        Temperature::fixed(temperature).map(SoftmaxTrick)
    }

    /// Writes `(h + gamma) / tau` to the first of the workspace's vectors.
    fn perturb<S: Sums>(&self, structure: &S, row: &mut Row<'_, S>) {
        let perturbed = &mut row.work.first[..structure.potentials()];
        perturbed.copy_from_slice(row.potentials);
        add(&mut perturbed[..structure.unary()], row.noise, 1.0);
        perturbed.iter_mut().for_each(|h| *h /= self.0.tau);
    }
}

impl<S: Sums> Estimator<S> for SoftmaxTrick {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn follows(&self) -> Follows {
        Follows::Codes
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.0.set(moment);
        Ok(())
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, count) = (piece.structure, piece.count());
        let (p, u) = (structure.potentials(), structure.unary());
        for sample in 0..piece.samples {
            piece.each(sample, [0, u], |row| {
                self.perturb(structure, row);
                let marginals = &mut row.work.second[..p];
                structure.marginals(&row.work.first[..p], marginals)?;
                row.weights.copy_from_slice(&marginals[..u]);
                Ok(None)
            })?;
            let Memory { codes, weights, .. } = &mut *piece.memory;
            let codes = room(codes, count * u);
            codes.copy_from_slice(&weights[..count * u]);
            let weights = room(weights, count);
            weights.fill(piece.scale);
            oracle.follow(Followed::Codes { row: sample, codes, weights })?;
        }
        Ok(())
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        let (structure, count) = (piece.structure, piece.count());
        let (p, u) = (structure.potentials(), structure.unary());
        for sample in 0..piece.samples {
            room(&mut piece.memory.losses, count * u).copy_from_slice(slopes.row(sample, count, u));
            piece.each(sample, [u, 0], |row| {
                check_numbers("slope", row.losses)?;
                self.perturb(structure, row);
                let direction = &mut row.work.second[..p];
                direction.fill(0.0);
                direction[..u].copy_from_slice(row.losses);
                structure.covariance(&row.work.first[..p], direction, 1.0 / self.0.tau, row.gradient)?;
                Ok(None)
            })?;
        }
        Ok(())
    }
}
