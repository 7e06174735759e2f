//! Direct optimisation whose second arg max is improved by single changes with true losses.
//!
//! ```text
//! z(eps) ~ argmax_z { (1 - eps kl) h(z) + gamma(z) - eps loss(z) }
//! ```
//!
//! The search starts from the better of the separable z(eps) (see [`Direct`]) and z*, and takes the best of all
//! one-coordinate changes, again and again until none is better: best-improvement local search, with every loss exact.
//! [`Search`](super::Search) is the fast one; this is what it is measured by. For variables with values, one-sided.
//!
//! - Cost: the one-coordinate changes of z*, of z(eps), and of every state on the way, without gradient; one backward
//!   pass.
//! - Bias: of order eps, without most of the error of the separable approximation: the state that it ends in cannot be
//!   improved by a change of one variable, which is not to say that it is the arg max. Variance: of order 1 / eps.
//!
//! Reference: the paper, Section 4.1, for the approximation; best-improvement local search, Besag, "On the statistical
//! analysis of dirty pictures", JRSS B 1986.

use super::direct::scaled;
use super::measure::{ADAPTIVE_EPSILON, Measure, ROUNDING, ZERO_GRADIENT_RATE};
use super::piece::{Memory, room};
use super::{Direct, Estimator, KlTerm, Moment, Piece, Sides};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Code, Structure, add};

/// Direct optimisation with an exact local search for z(eps).
///
/// ```
/// use gumbel::estimator::{Direct, Flips, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::binary(2)?;
/// // Either change helps, both together do not: the separable approximation takes both.
/// let loss = |_: usize, code: &[f32]| if code[1] == code[3] { 0.0 } else { 5.0 };
/// let search = Flips::new(Direct::new(1.0)?);
/// let found = estimate(&search, &latent, &[0.1, 0.0, 0.0, 0.2], &[0.0; 4], &mut Closure::new(&latent, loss))?;
/// assert_eq!(found.gradient, [1.0, -1.0, 0.0, 0.0]); // from (0, 1) to (1, 1)
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flips(Direct);

impl Flips {
    /// With the epsilon and the KL of `direct`, one-sided.
    pub fn new(direct: Direct) -> Self {
        Flips(direct.sides(Sides::One))
    }

    /// The objective of an assignment.
    fn value<S: Structure>(&self, structure: &S, perturbed: &[f32], z: &[u32], loss: f32) -> f64 {
        structure.score(perturbed, z) - (self.0.epsilon() * loss) as f64
    }

    /// Takes the best step from z, given its loss and those of its one-coordinate changes; the gain in nats, `None` if
    /// no step is better.
    fn improve<S: Structure>(
        &self,
        structure: &S,
        perturbed: &[f32],
        own: f32,
        losses: &[f32],
        z: &mut [u32],
    ) -> Option<f64> {
        let Code::OneHot { values } = structure.code() else { return None };
        let now = self.value(structure, perturbed, z, own);
        let mut best = (now + ROUNDING, None);
        for i in 0..z.len() {
            let present = z[i];
            for k in (0..values as u32).filter(|k| *k != present) {
                z[i] = k;
                let value = self.value(structure, perturbed, z, losses[i * values + k as usize]);
                if value > best.0 {
                    best = (value, Some((i, k)));
                }
            }
            z[i] = present;
        }
        let (value, Some((i, k))) = best else { return None };
        z[i] = k;
        Some(value - now)
    }
}

/// Asks about the one-coordinate changes of the assignments of some examples, and puts the answers where those of these
/// examples stand.
fn ask_again<S: Structure>(
    structure: &S,
    of: &[u32],
    moved: &[u32],
    (compact, near, answers): (&mut Vec<u32>, &mut [f32], &mut Vec<f32>),
    losses: &mut [f32],
    oracle: &mut dyn Oracle,
) -> Result<(), Error> {
    let (n, u) = (structure.variables(), structure.unary());
    if of.is_empty() {
        return Ok(());
    }
    let compact = room(compact, of.len() * n);
    for (z, b) in compact.chunks_exact_mut(n).zip(of) {
        z.copy_from_slice(&moved[*b as usize * n..][..n]);
    }
    let answers = room(answers, of.len() * (u + 1));
    let (own, around) = answers.split_at_mut(of.len());
    oracle.around(of, compact, own, around)?;
    for ((b, own), around) in of.iter().zip(own).zip(around.chunks_exact(u)) {
        near[*b as usize] = *own;
        losses[*b as usize * u..][..u].copy_from_slice(around);
    }
    Ok(())
}

const MEASURED: [Measure; 4] = [
    ZERO_GRADIENT_RATE,
    Measure {
        name: "flips_move_rate",
        help: "share of draws whose separable z(eps) the flips improved",
        always: false,
    },
    Measure { name: "flips_gain", help: "mean of the objective gained there, in nats", always: false },
    ADAPTIVE_EPSILON,
];

impl<S: Structure> Estimator<S> for Flips {
    fn questions(&self, _: &S) -> Questions {
        Questions::AROUND
    }

    fn kl(&self, _: &S) -> KlTerm {
        KlTerm::Either
    }

    fn measures(&self) -> &'static [Measure] {
        self.0.measured(&MEASURED)
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.0.set(moment)
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, count, scale) = (piece.structure, piece.count(), piece.scale);
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let (step, keep) = (scale / self.0.epsilon(), self.0.keep(-self.0.epsilon()));
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            piece.ask_around(oracle)?;
            piece.follow_sample(sample, oracle)?;
            piece.each(sample, [u, 0], |row| {
                self.0.example(structure, row, scale)?;
                structure.add_statistics(row.moved, step, row.gradient);
                Ok(None)
            })?;

            let (potentials, noise) = (piece.potentials, piece.noise);
            let Memory { assignments, moved, own, losses, weights, active, compact, near, answers, gains, .. } =
                &mut *piece.memory;
            // The place of the weights, which have been handed over, takes the perturbed potentials.
            let perturbed = room(weights, count * p);
            for (b, row) in perturbed.chunks_exact_mut(p).enumerate() {
                row.iter_mut().zip(&potentials[b * p..]).for_each(|(r, h)| *r = scaled(*h, keep));
                add(&mut row[..u], noise.of(sample, b), 1.0);
            }
            let near = room(near, count);
            near.copy_from_slice(&own[..count]);
            let gains = room(gains, count);
            gains.fill(0.0);
            // Room for all, so that no later step needs more.
            room(compact, count * n);
            room(answers, count * (u + 1));
            active.reserve(count);
            // Where the separable z(eps) is not z*, the search starts from the better of both.
            active.clear();
            active.extend(piece.of.iter().copied().filter(|b| {
                let rows = *b as usize * n..(*b as usize + 1) * n;
                moved[rows.clone()] != assignments[rows]
            }));
            // The losses around z* are kept aside: whoever goes back there needs them again.
            let all = room(losses, 2 * count * u);
            let (losses, around_star) = all.split_at_mut(count * u);
            around_star.copy_from_slice(losses);
            ask_again(structure, active, moved, (compact, near, answers), losses, oracle)?;
            for b in active.iter().map(|b| *b as usize) {
                let (z, star, h) = (&mut moved[b * n..][..n], &assignments[b * n..][..n], &perturbed[b * p..][..p]);
                let gain = self.value(structure, h, star, own[b]) - self.value(structure, h, z, near[b]);
                if gain > ROUNDING {
                    z.copy_from_slice(star);
                    (gains[b], near[b]) = (gain, own[b]);
                    losses[b * u..][..u].copy_from_slice(&around_star[b * u..][..u]);
                }
            }
            active.clear();
            active.extend_from_slice(piece.of);
            while !active.is_empty() {
                active.retain(|b| {
                    let b = *b as usize;
                    let (z, h) = (&mut moved[b * n..][..n], &perturbed[b * p..][..p]);
                    let better = self.improve(structure, h, near[b], &losses[b * u..][..u], z);
                    gains[b] += better.unwrap_or(0.0);
                    better.is_some()
                });
                if !active.is_empty() {
                    ask_again(structure, active, moved, (compact, near, answers), losses, oracle)?;
                }
            }
            let mut same = 0;
            for b in 0..count {
                let z = &moved[b * n..][..n];
                structure.add_statistics(z, -step, &mut piece.gradient[b * p..][..p]);
                same += (z == &assignments[b * n..][..n]) as usize;
                let improved = gains[b] > ROUNDING;
                piece.tallies[1].add(improved as u8 as f64, 1.0);
                if improved {
                    piece.tallies[2].add(gains[b], 1.0);
                }
            }
            self.0.count(piece, same, count, 3);
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        self.0.counts()
    }

    fn learn(&mut self, sums: &[f32]) {
        self.0.adapt(sums);
    }

    fn state(&self) -> Vec<f32> {
        self.0.held()
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        self.0.put_back(state)
    }
}
