//! What the relaxed estimators share: the code `softmax((h + gamma) / tau)` of each variable, and the way back through
//! it.

use super::piece::{Memory, room};
use super::registry::TEMPERATURE;
use super::{Moment, Piece, Slopes};
use crate::Error;
use crate::math::softmax_in_place;
use crate::registry::{Kind, Setting, Settings};
use crate::schedule::Annealing;
use crate::structure::{Structure, check_numbers};

/// The setting of a temperature that is not annealed.
pub(super) const fn fixed(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::Real(can_be, EXPECTED), default, value: "X", help }
}

/// Quotients by these stay numbers.
fn can_be(tau: f64) -> bool {
    (1e-6..=1e6).contains(&(tau as f32))
}

const EXPECTED: &str = "a number from 1e-6 to 1e6";

/// A temperature of such a setting.
pub(super) fn check_temperature(name: &'static str, tau: f32) -> Result<f32, Error> {
    if can_be(tau as f64) { Ok(tau) } else { Err(Error::range(name, tau, EXPECTED)) }
}

/// Adds `scale J(q) slope` with `J(q) = diag(q) - q q^T`: the way back through a softmax.
pub(super) fn add_jacobian(q: &[f32], slope: &[f32], scale: f32, gradient: &mut [f32]) {
    let mean: f32 = q.iter().zip(slope).map(|(q, d)| q * d).sum();
    for ((g, q), d) in gradient.iter_mut().zip(q).zip(slope) {
        *g += scale * q * (d - mean);
    }
}

/// A temperature, fixed or on a schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Temperature {
    pub tau: f32,
    schedule: Option<Annealing>,
}

impl Temperature {
    pub fn fixed(tau: f32) -> Result<Self, Error> {
        match tau.is_finite() && tau > 0.0 {
            true => Ok(Temperature { tau, schedule: None }),
            false => Err(Error::range("temperature", tau, "a finite number greater than 0")),
        }
    }

    pub fn of(settings: &Settings) -> Result<Self, Error> {
        let schedule = TEMPERATURE.annealing(settings)?;
        Ok(Temperature { tau: schedule.at(0), schedule: Some(schedule) })
    }

    pub fn set(&mut self, moment: &Moment) {
        if let Some(schedule) = &self.schedule {
            self.tau = schedule.at(moment.step);
        }
    }

    /// Writes the relaxed codes of one sample to `memory.codes` `[samples, examples, U]`.
    ///
    /// # Errors
    /// Potentials that are NaN or +inf.
    pub fn relax<S: Structure>(&self, piece: &mut Piece<'_, S>, sample: usize) -> Result<(), Error> {
        let (structure, count) = (piece.structure, piece.count());
        let (p, u, k) = (structure.potentials(), structure.unary(), structure.unary() / structure.variables());
        let codes = room(&mut piece.memory.codes, piece.samples * count * u);
        for (b, code) in codes[sample * count * u..][..count * u].chunks_exact_mut(u).enumerate() {
            code.copy_from_slice(&piece.potentials[b * p..][..u]);
            check_numbers("potential", code).map_err(|e| e.in_example(piece.first + b))?;
            code.iter_mut().zip(piece.noise.of(sample, b)).for_each(|(h, g)| *h = (*h + g) / self.tau);
            code.chunks_exact_mut(k).for_each(|block| {
                softmax_in_place(block);
            });
        }
        Ok(())
    }

    /// Adds the gradient at the potentials from the slopes at the codes.
    ///
    /// # Errors
    /// Slopes that are no numbers.
    pub fn unrelax<S: Structure>(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        let (structure, count, tau) = (piece.structure, piece.count(), self.tau);
        let (p, u, k) = (structure.potentials(), structure.unary(), structure.unary() / structure.variables());
        let Memory { codes, .. } = &*piece.memory;
        for sample in 0..piece.samples {
            let rows = slopes.row(sample, count, u).chunks_exact(u);
            let rows = rows.zip(codes[sample * count * u..].chunks_exact(u)).zip(piece.gradient.chunks_exact_mut(p));
            for (b, ((slope, code), gradient)) in rows.enumerate() {
                check_numbers("slope", slope).map_err(|e| e.in_example(piece.first + b))?;
                let blocks = code.chunks_exact(k).zip(slope.chunks_exact(k));
                for ((code, d), g) in blocks.zip(gradient[..u].chunks_exact_mut(k)) {
                    let mean: f32 = code.iter().zip(d).map(|(q, d)| q * d).sum();
                    for ((g, q), d) in g.iter_mut().zip(code).zip(d) {
                        *g += q * (d - mean) / tau;
                    }
                }
            }
        }
        Ok(())
    }
}
