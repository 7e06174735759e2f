//! VIMCO (Mnih and Rezende, "Variational inference for Monte Carlo objectives", ICML 2016): the bound of several
//! samples (Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders", ICLR 2016).
//!
//! ```text
//! L_M = E ln 1/M sum_m w_m,   w_m = exp(-loss(z_m)) p(z_m) / q(z_m),   z_1, ..., z_M ~ q
//! gradient of -L_M  ~  sum_m (w~_m - (L - L_{-m})) grad ln q(z_m),   w~_m = w_m / sum_l w_l
//! ```
//!
//! L is `ln 1/M sum_m w_m` of the draw; in `L_{-m}` the mean of the other `ln w` stands for `ln w_m`, so that it does
//! not depend on z_m: every sample is paid for what it adds to the others. The prior is uniform. `ln w` is needed up to
//! a constant: `-loss(z) - h(z)`.
//!
//! - Cost: one loss without gradient for each of the M >= 2 samples (`samples` of a run); M rows of a backward pass,
//!   for the decoder. For every latent with an exact sampler ([sums](crate::structure::Sums)).
//! - No bias, for its own objective: -L_M, which holds the KL term. For one sample it would be minus the bound; as M
//!   grows it tends to `-ln p(x)`, and what the decoder follows to that of [`Marginal`](super::Marginal).
//! - Variance: of the order of that of `L - L_{-m}`, which is small where the weights are alike.
//! - The decoder follows the samples with the weights w~.

use super::piece::{Memory, room};
use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, KlTerm, Piece, score};
use crate::Error;
use crate::oracle::{Followed, Oracle, Questions};
use crate::structure::{Sums, add, check_numbers};

/// The estimator's name, in messages too.
const NAME: &str = "vimco";

/// VIMCO in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "the bound of at least 2 samples, each paid for what it adds to the others", |_, z| {
        z.tractable()?;
        Ok(Box::new(Vimco))
    })
    .with_costs("1", "1")
    .with_quality(
        "none, of another objective: the bound of several samples; for latents with sums",
        "of what a sample adds to the bound, squared",
    )
    .with_paper_samples(PAPER)
}

/// The bound of several samples.
///
/// ```
/// use gumbel::estimator::{Vimco, estimate};
/// use gumbel::oracle::{Closure, Kept};
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| f32::ln(3.0) * code[1]);
/// let noise = [1.0, 0.0, 0.0, 1.0]; // z_1 = 0, z_2 = 1, with the weights 3/4 and 1/4
/// let found = estimate(&Vimco, &latent, &[0.2, 0.2], &noise, &mut oracle)?;
/// // Of either, L - L_{-m}: with w = (1, 1/3), ln (1 + 1/3) / 2 less ln 1/3 and ln 1.
/// let terms = [0.75 - f32::ln(2.0), 0.25 - f32::ln(2.0 / 3.0)];
/// assert!((found.gradient[0] - 0.5 * (terms[0] - terms[1])).abs() < 1e-6); // times s(z) - q
/// let Kept::Assignments { weights, .. } = &oracle.followed[0] else { unreachable!() };
/// assert!((weights[0] - 0.75).abs() < 1e-6);
/// let error = estimate(&Vimco, &latent, &[0.2, 0.2], &noise[..2], &mut oracle).unwrap_err();
/// assert_eq!(error.to_string(), "samples = 1: expected at least 2: vimco compares each with the others");
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vimco;

/// `ln sum exp(x)` of finite numbers.
fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = x.clone().fold(f64::NEG_INFINITY, f64::max);
    most + x.map(|v| (v - most).exp()).sum::<f64>().ln()
}

impl<S: Sums> Estimator<S> for Vimco {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(score::noise(structure))
    }

    fn least_samples(&self) -> usize {
        2
    }

    /// The weights hold the prior.
    fn kl(&self, _: &S) -> KlTerm {
        KlTerm::Within
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, samples, count) = (piece.structure, piece.samples, piece.count());
        let (p, n) = (structure.potentials(), structure.variables());
        if samples < 2 {
            let expected = format!("at least 2: {NAME} compares each with the others");
            return Err(Error::setting("samples", samples, expected));
        }
        for sample in 0..samples {
            score::draw(piece, sample)?;
            let Memory { assignments, moved, own, .. } = &mut *piece.memory;
            let (drawn, all) = (&assignments[..count * n], room(moved, samples * count * n));
            oracle.losses(piece.of, drawn, &mut room(own, samples * count)[sample * count..][..count])?;
            all[sample * count * n..][..count * n].copy_from_slice(drawn);
        }
        piece.each(0, [0, p], |row| {
            structure.marginals(row.potentials, row.weights)?;
            Ok(None)
        })?;
        let Memory { moved: drawn, own: losses, weights: marginals, near, gains, .. } = &mut *piece.memory;
        let (weights, ln) = (room(near, samples * count), room(gains, samples));
        // The scale is that of a mean over M samples; the bound has one value for all of them.
        let scale = piece.scale * samples as f32;
        for (b, gradient) in piece.gradient.chunks_exact_mut(p).enumerate() {
            let potentials = &piece.potentials[b * p..][..p];
            let z = |m: usize| &drawn[(m * count + b) * n..][..n];
            for (m, ln) in ln.iter_mut().enumerate() {
                let loss = losses[m * count + b];
                check_numbers("loss", &[loss]).map_err(|e| e.in_example(piece.first + b))?;
                *ln = -loss as f64 - structure.score(potentials, z(m));
            }
            let (total, all) = (log_sum_exp(ln.iter().copied()), ln.iter().sum::<f64>());
            let mut sum = 0.0;
            for m in 0..samples {
                let others = (all - ln[m]) / (samples - 1) as f64;
                let without = log_sum_exp(ln.iter().enumerate().map(|(l, ln)| if l == m { others } else { *ln }));
                let weight = (ln[m] - total).exp();
                let term = scale * (weight - (total - without)) as f32;
                structure.add_statistics(z(m), term, gradient);
                sum += term;
                weights[m * count + b] = scale * weight as f32;
            }
            add(gradient, &marginals[b * p..][..p], -sum);
        }
        for row in 0..samples {
            let (assignments, weights) = (&drawn[row * count * n..][..count * n], &weights[row * count..][..count]);
            oracle.follow(Followed::Assignments { row, assignments, weights })?;
        }
        Ok(())
    }
}
