//! Gumbel-Rao: straight-through Gumbel-Softmax, Rao-Blackwellised (Paulus, Maddison, Krause, "Rao-Blackwellizing the
//! Straight-Through Gumbel-Softmax Gradient Estimator", ICLR 2021).
//!
//! ```text
//! forwards z* = argmax(h + gamma), backwards c_s = softmax(zeta_s / tau), zeta_s ~ h + gamma given z*, s = 1..S
//! gradient = (d loss / d code at z*) · mean_s d c_s / d h
//! ```
//!
//! The slope depends on z* only, so that the derivative of the relaxed code may be averaged over the noise that has
//! the same arg max: see `conditional.rs`.
//!
//! - Cost: one pass of the decoder, forwards and backwards, whatever S is; S softmaxes for each variable.
//! - Bias: that of straight-through, which does not vanish with tau, whatever S is.
//! - Variance: at most that of straight-through, and falling with S to that of its expectation given z*.
//! - For independent variables.

use super::conditional::given_argmax;
use super::piece::room;
use super::registry::{EstimatorEntry, RELAXED, TEMPERATURE};
use super::relaxed::{Temperature, add_jacobian};
use super::{Estimator, Moment, Piece, Slopes, independent};
use crate::Error;
use crate::math::softmax_in_place;
use crate::oracle::{Oracle, Questions};
use crate::registry::{Kind, Setting};
use crate::structure::{Structure, check_numbers};

/// The estimator's name, in messages too.
const NAME: &str = "gumbel-rao";

/// The most draws of the noise given the sample.
const MAX_DRAWS: usize = 1000;

const DRAWS: Setting = Setting {
    name: "draws",
    kind: Kind::Whole(1, MAX_DRAWS as u64),
    default: "10",
    value: "N",
    help: "draws of the noise given the sample, over which the derivative of the relaxed code is averaged",
};

/// Gumbel-Rao in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "straight-through, averaged over the noise given the sample", |settings, z| {
        independent(z, NAME)?;
        let draws = settings.whole(DRAWS.name) as usize;
        Ok(Box::new(GumbelRao { temperature: Temperature::of(settings)?, draws }))
    })
    .with_settings(TEMPERATURE.settings.into_iter().chain([DRAWS]))
    .with_schedules(&[TEMPERATURE])
    .with_costs("1", "1")
    .with_quality("that of straight-through; for independent variables", "at most that of straight-through")
    .with_paper_samples(RELAXED)
}

/// Straight-through, averaged over the noise given the sample.
///
/// ```
/// use gumbel::estimator::{Estimator, GumbelRao, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let rao = GumbelRao::new(0.5, 3)?;
/// let width = rao.noise(&latent)?;
/// assert_eq!(width, 2 * (1 + 3)); // of the sample, and of three draws given it
/// let noise: Vec<f32> = (0..width).map(|i| i as f32 / 4.0).collect();
/// let mut oracle = Closure::new(&latent, |_, code| 3.0 * code[1]);
/// let found = estimate(&rao, &latent, &[0.2, 0.1], &noise, &mut oracle)?;
/// assert!(found.gradient[1] > 0.0 && (found.gradient[0] + found.gradient[1]).abs() < 1e-5);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GumbelRao {
    temperature: Temperature,
    draws: usize,
}

impl GumbelRao {
    /// At a temperature > 0, with 1 to 1,000 draws of the noise given the sample.
    ///
    /// # Errors
    /// Another temperature or number.
    pub fn new(temperature: f32, draws: usize) -> Result<Self, Error> {
        if !(1..=MAX_DRAWS).contains(&draws) {
            return Err(Error::range(DRAWS.name, draws, format!("1 to {MAX_DRAWS}")));
        }
        Ok(GumbelRao { temperature: Temperature::fixed(temperature)?, draws })
    }
}

impl<S: Structure> Estimator<S> for GumbelRao {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(structure.unary() * (1 + self.draws))
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.temperature.set(moment);
        Ok(())
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        independent(piece.structure, NAME)?;
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        let (structure, count, first, tau) = (piece.structure, piece.count(), piece.first, self.temperature.tau);
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let (k, each) = (u / n, 1.0 / (tau * self.draws as f32));
        for sample in 0..piece.samples {
            // The samples before have overwritten it.
            piece.draw(sample)?;
            let memory = &mut *piece.memory;
            let (code, z) = (room(&mut memory.codes, k), &memory.assignments[..count * n]);
            let rows = slopes.row(sample, count, u).chunks_exact(u).zip(z.chunks_exact(n)).enumerate();
            for (b, (slope, z)) in rows {
                check_numbers("slope", slope).map_err(|e| e.in_example(first + b))?;
                let (h, gradient) = (&piece.potentials[b * p..][..u], &mut piece.gradient[b * p..][..u]);
                for fresh in piece.noise.of(sample, b).chunks_exact(u).skip(1) {
                    let blocks = h.chunks_exact(k).zip(fresh.chunks_exact(k)).zip(slope.chunks_exact(k)).zip(z);
                    for ((((h, fresh), slope), z), gradient) in blocks.zip(gradient.chunks_exact_mut(k)) {
                        given_argmax(h, *z as usize, fresh, code);
                        code.iter_mut().for_each(|c| *c /= tau);
                        softmax_in_place(code);
                        add_jacobian(code, slope, each, gradient);
                    }
                }
            }
        }
        Ok(())
    }
}
