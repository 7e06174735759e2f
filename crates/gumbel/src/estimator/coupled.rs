//! The conditional expectation of direct optimisation, for coupled variables.
//!
//! Given the noise of all other variables, the arg max is one of K states, the best for each value of variable i, and
//! which of them it is, is decided by the noise of variable i alone:
//!
//! ```text
//! M_i(v)   = max { h(z) + gamma(z) : z_i = v } - gamma_i(v), reached at z^iv      (max-marginals)
//! p_i      = softmax_v(M_i(v)) = P(z*_i = v | noise of the others)
//! p_i(eps) = softmax_v(M_i(v) - eps loss(z^iv))
//! estimate = sum_i sum_{v < v'} (p_iv p_iv'(eps) - p_iv(eps) p_iv') / eps  (s(z^iv) - s(z^iv')) / D
//! ```
//!
//! where D is the number of variables in which the two states differ. What moves the expected loss are the boundaries
//! between the regions of the noise that belong to two states. Such a boundary is met by the noise of every variable in
//! which they differ, at the same rate, so that each of these has a share of it; and as eps falls this is the
//! gradient of `E[loss(z*)]` at all potentials, those of pairs too. Of independent variables all others stay what they
//! are, D is 1, and this is [the expectation](super::Direct::expectation) that they have. With the KL inside, the loss
//! of a state has `kl h(z)` in it.
//!
//! One of the states of a variable is z*; the others are [`Structure::max_marginals`], so that they cost no more
//! evaluations of the decoder than the separable approximation asks for, and fewer where one state is the best for
//! several variables. What these miss, where they are not exact, is a bias.
//!
//! The bias is of order eps, as that of a draw; the variance is that of the others' noise alone, and stays finite as
//! eps falls (of one variable it is zero, of a draw it grows like `1 / eps`). An example:
//!
//! ```
//! use gumbel::estimator::{Direct, estimate};
//! use gumbel::oracle::Closure;
//! use gumbel::structure::Pairwise;
//!
//! let latent = Pairwise::new(2)?; // two bits and their coupling: potentials [2 x 2 values, 1]
//! let mut oracle = Closure::new(&latent, |_, code: &[f32]| code[1] * code[3]); // the loss: both bits are one
//! let expectation = Direct::new(0.01)?.rao_blackwell();
//! let found = estimate(&expectation, &latent, &[0.0; 5], &[0.3, 0.1, -0.2, 0.4], &mut oracle)?;
//! assert!(found.gradient[1] > 0.0); // downhill the first bit is one less often
//! # Ok::<(), gumbel::Error>(())
//! ```
//!
//! The step itself is the one of the
//! paper; its expectation given the others' noise, with couplings, is this program's own (docs/direct.md).

use super::piece::{Row, Workspace};
use super::{Direct, Piece};
use crate::Error;
use crate::math::softmax_in_place;
use crate::oracle::Oracle;
use crate::structure::{Code, MaxMarginals, Structure, add, check_numbers};

/// The states that one example may be in, and their losses.
#[derive(Debug, Default)]
pub(super) struct Ways {
    found: MaxMarginals,
    /// Of each row of `found` the first with the same assignment.
    same: Vec<usize>,
    /// Rows that are the first with their assignment.
    distinct: Vec<usize>,
    /// Losses of z* and of the rows.
    own: f32,
    losses: Vec<f32>,
    /// Score, and losses, of the values of one variable; their distributions.
    logits: Vec<f32>,
    objective: Vec<f32>,
    back: Vec<f32>,
    ahead: Vec<f32>,
}

impl Ways {
    fn find<S: Structure>(&mut self, structure: &S, perturbed: &[f32], star: &[u32], solver: &mut S::Scratch) {
        let Ways { found, same, distinct, losses, .. } = self;
        structure.max_marginals(perturbed, star, solver, found);
        same.clear();
        distinct.clear();
        distinct.reserve(found.rows());
        for row in 0..found.rows() {
            let first = distinct.iter().find(|first| found.state(**first) == found.state(row));
            let first = *first.unwrap_or(&row);
            same.push(first);
            if first == row {
                distinct.push(row);
            }
        }
        losses.clear();
        losses.resize(found.rows(), 0.0);
    }

    /// The part of one variable.
    fn add<S: Structure>(&mut self, direct: &Direct, structure: &S, row: &mut Part<'_>, variable: usize, scale: f32) {
        let Ways { found, same, own, losses, logits, objective, back, ahead, .. } = self;
        let (star, noise) = (row.star, row.noise);
        let state = |value: usize| found.row(variable, value, star[variable] as usize);
        for (value, ((logit, objective), noise)) in logits.iter_mut().zip(objective.iter_mut()).zip(noise).enumerate() {
            let (gain, z, loss) = match state(value) {
                Some(row) => (found.gain(row), found.state(row), losses[same[row]]),
                None => (0.0, star, *own),
            };
            *logit = gain as f32 - noise;
            let kl = direct.kl_weight();
            // Of what is forbidden, which has no probability, neither is a number; scores are those beside z*.
            *objective = match kl == 0.0 || gain == f64::NEG_INFINITY || value == star[variable] as usize {
                true => loss,
                false => loss + kl * (structure.score(row.potentials, z) - row.score) as f32,
            };
        }
        let least = objective.iter().copied().fold(f32::INFINITY, f32::min);
        let (shift_back, shift_ahead) = direct.shifts();
        for (shift, q) in [(shift_back, &mut *back), (shift_ahead, &mut *ahead)] {
            let all = q.iter_mut().zip(&*logits).zip(&*objective);
            all.for_each(|((q, logit), l)| *q = logit + shift * (l - least));
            softmax_in_place(q);
        }
        let scale = scale / (shift_back - shift_ahead);
        for a in 0..back.len() {
            for b in a + 1..back.len() {
                let flow = back[a] * ahead[b] - ahead[a] * back[b];
                if flow == 0.0 {
                    continue;
                }
                let [from, to] = [a, b].map(|value| state(value).map_or(star, |row| found.state(row)));
                let differ = from.iter().zip(to).filter(|(a, b)| a != b).count();
                let flow = scale * flow / differ as f32;
                structure.add_statistics(from, flow, row.gradient);
                structure.add_statistics(to, -flow, row.gradient);
            }
        }
    }
}

/// What is known of an example, and its gradient.
struct Part<'a> {
    potentials: &'a [f32],
    /// Of z*, without noise.
    score: f64,
    star: &'a [u32],
    /// Of one variable.
    noise: &'a [f32],
    gradient: &'a mut [f32],
}

/// Adds the estimates of a piece.
///
/// # Errors
/// NaN; a structure that has no one-hot rows; those of the oracle.
pub(super) fn estimate<S: Structure>(
    direct: &Direct,
    piece: &mut Piece<'_, S>,
    oracle: &mut dyn Oracle,
) -> Result<(), Error> {
    let (structure, scale) = (piece.structure, piece.scale);
    let n = structure.variables();
    let Code::OneHot { values } = structure.code() else {
        return Err(Error::Coupled { estimator: "direct with rao-blackwell" });
    };
    for sample in 0..piece.samples {
        piece.draw(sample)?;
        piece.follow_sample(sample, oracle)?;
        piece.each(sample, [0, 0], |row| {
            let Workspace { first, ways, solver, warm, .. } = &mut *row.work;
            *warm = false;
            let perturbed = &mut first[..row.potentials.len()];
            perturbed.copy_from_slice(row.potentials);
            add(&mut perturbed[..row.noise.len()], row.noise, 1.0);
            ways.find(structure, perturbed, row.assignment, solver);
            Ok(None)
        })?;
        piece.memory.ask_ways(n, piece.of, piece.first, oracle)?;
        piece.each(sample, [0, 0], |row| {
            let Row { potentials, noise, assignment, gradient, work, .. } = row;
            let score = structure.score(potentials, assignment);
            let ways = &mut work.ways;
            for numbers in [&mut ways.logits, &mut ways.objective, &mut ways.back, &mut ways.ahead] {
                numbers.resize(values, 0.0);
            }
            for (variable, noise) in noise.chunks_exact(values).enumerate() {
                let part = &mut Part { potentials, score, star: assignment, noise, gradient };
                ways.add(direct, structure, part, variable, scale);
            }
            Ok(None)
        })?;
    }
    Ok(())
}

impl<S: Structure> super::Memory<S> {
    /// Asks about z* and the distinct states of all examples: those of one example side by side, none of them twice.
    fn ask_ways(&mut self, n: usize, of: &[u32], first: usize, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let super::Memory { assignments, solvers, active, compact, answers, .. } = self;
        active.clear();
        compact.clear();
        // Room for all, so that no later step needs more.
        let most: usize = of.iter().map(|b| 1 + solvers[*b as usize].ways.found.rows()).sum();
        active.reserve(most);
        compact.reserve(most * n);
        for (b, star) in of.iter().zip(assignments.chunks_exact(n)) {
            let ways = &solvers[*b as usize].ways;
            active.push(*b);
            compact.extend_from_slice(star);
            for row in &ways.distinct {
                active.push(*b);
                compact.extend_from_slice(ways.found.state(*row));
            }
        }
        let answers = &mut super::piece::room(answers, most)[..active.len()];
        oracle.losses(active, compact, answers)?;
        let mut answers = answers.iter();
        for b in of {
            let ways = &mut solvers[*b as usize].ways;
            let mut next = || {
                let loss = *answers.next().expect("an answer for every row");
                check_numbers("loss", &[loss]).map(|()| loss).map_err(|e| e.in_example(first + *b as usize))
            };
            ways.own = next()?;
            for row in &ways.distinct {
                ways.losses[*row] = next()?;
            }
        }
        Ok(())
    }
}
