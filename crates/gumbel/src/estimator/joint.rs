//! Direct optimisation with the true joint loss, by enumeration.
//!
//! ```text
//! z*      = argmax_z { h(z) + gamma(z) }
//! z(eps)  = argmax_z { h(z) + gamma(z) - eps loss(z) }
//! ```
//!
//! over all states, with the loss of each of them: nothing is approximated by a sum over coordinates, as [`Direct`]
//! does. The noise is
//!
//! - [`Unary`](Perturbation::Unary): a Gumbel variable for each unary potential, as for [`Direct`]. z* is then the
//!   same;
//! - [`Full`](Perturbation::Full): one for every state. z* is then an exact sample of the Gibbs distribution q, and the
//!   expectation of the estimate is known: (marginals of h - marginals of h - eps loss) / eps, the latter of the
//!   distribution proportional to `q(z) exp(-eps loss(z))`. It tends to the exact gradient of `E_q[loss]`.
//!
//! - Cost: the decoder at all |Z| states, without gradient, and at z* with; refused above
//!   [`MAX_STATES`](super::MAX_STATES).
//! - Bias and variance: as for [`Direct`] without the error of the separable approximation.
//!
//! Reference: the paper, Theorem 1, which is about full noise.

use super::direct::scaled;
use super::measure::{ADAPTIVE_EPSILON, Measure, ROUNDING, ZERO_GRADIENT_RATE};
use super::piece::{Row, Workspace, room};
use super::{Direct, Estimator, KlTerm, Moment, Piece, Sides, enumerable};
use crate::Error;
use crate::math::argmax;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Structure, add, check_numbers};

/// What Gumbel variables are added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Perturbation {
    /// The unary potentials: "low-dimensional", as the paper's structured models.
    #[default]
    Unary,
    /// The score of every state: an exact sample of q.
    Full,
}

/// Direct optimisation with the losses of all states. With unary noise it also finds the second arg max of the
/// separable approximation, to measure what that misses.
///
/// ```
/// use gumbel::estimator::{Direct, DirectJoint, Perturbation, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::binary(2)?;
/// // Either change helps, both together do not: the separable approximation takes both.
/// let loss = |_: usize, code: &[f32]| if code[1] == code[3] { 0.0 } else { 5.0 };
/// let joint = DirectJoint::new(Direct::new(1.0)?, Perturbation::Unary);
/// let found = estimate(&joint, &latent, &[0.1, 0.0, 0.0, 0.2], &[0.0; 4], &mut Closure::new(&latent, loss))?;
/// assert_eq!(found.gradient, [1.0, -1.0, 0.0, 0.0]); // from (0, 1) to (1, 1)
/// assert_eq!(found.tallies[1].mean(), 1.0); // the separable approximation has missed it
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirectJoint {
    direct: Direct,
    perturbation: Perturbation,
}

impl DirectJoint {
    /// With the epsilon, the sides and the KL of `direct`.
    pub fn new(direct: Direct, perturbation: Perturbation) -> Self {
        DirectJoint { direct, perturbation }
    }

    /// Writes the perturbed scores of all states to the workspace, those of the potentials `keep` times.
    fn scores<S: Structure>(
        &self,
        structure: &S,
        (potentials, keep): (&[f32], f32),
        noise: &[f32],
        work: &mut Workspace<S>,
    ) -> Result<usize, Error> {
        check_numbers("potential", potentials)?;
        let states = enumerable(structure)?;
        let Workspace { first, second, .. } = work;
        let scores = &mut first[..states];
        let kept = &mut second[..potentials.len()];
        kept.iter_mut().zip(potentials).for_each(|(kept, h)| *kept = scaled(*h, keep));
        match self.perturbation {
            Perturbation::Unary => {
                add(kept, noise, 1.0);
                structure.scores(kept, scores);
            }
            Perturbation::Full => {
                structure.scores(kept, scores);
                add(scores, noise, 1.0);
            }
        }
        Ok(states)
    }

    /// Both arg maxima of one example with the losses of all states.
    fn example<S: Structure>(&self, structure: &S, row: &mut Row<'_, S>, scale: f32) -> Result<bool, Error> {
        check_numbers("loss", row.losses)?;
        row.work.warm = false;
        let (back, ahead) = self.direct.shifts();
        let find = |shift: f32, work: &mut Workspace<S>| -> Result<(), Error> {
            let states = self.scores(structure, (row.potentials, self.direct.keep(shift)), row.noise, work)?;
            let Workspace { first, towards, .. } = work;
            add(&mut first[..states], row.losses, shift);
            best(structure, &first[..states], towards)
        };
        let work = &mut *row.work;
        if back != 0.0 {
            find(back, work)?;
            work.away.copy_from_slice(&work.towards);
        }
        find(ahead, work)?;
        let Workspace { towards, away, .. } = work;
        let from = if back == 0.0 { &*row.assignment } else { &away[..] };
        row.moved.copy_from_slice(towards);
        if *towards == from {
            return Ok(true);
        }
        let scale = scale / (back - ahead);
        structure.add_statistics(from, scale, row.gradient);
        structure.add_statistics(towards, -scale, row.gradient);
        Ok(false)
    }

    /// Draws z*.
    fn draw<S: Structure>(&self, piece: &mut Piece<'_, S>, sample: usize) -> Result<(), Error> {
        if self.perturbation == Perturbation::Unary {
            return piece.draw(sample);
        }
        let (structure, states) = (piece.structure, enumerable(piece.structure)?);
        let drawn = piece.each(sample, [states, 0], |row| {
            self.scores(structure, (row.potentials, 1.0), row.noise, row.work)?;
            best(structure, &row.work.first[..states], row.assignment)?;
            Ok(None)
        });
        drawn.map(drop)
    }

    /// What the separable approximation would have found, and how much worse that is.
    fn compare<S: Structure>(
        &self,
        piece: &mut Piece<'_, S>,
        sample: usize,
        oracle: &mut dyn Oracle,
    ) -> Result<(), Error> {
        let (structure, count) = (piece.structure, piece.count());
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let separable = self.direct.sides(Sides::One);
        let keep = self.direct.keep(-self.direct.epsilon());
        let mut better = std::mem::take(&mut piece.memory.compact);
        room(&mut better, count * n).copy_from_slice(&piece.memory.moved[..count * n]);
        // The solvers have stood elsewhere since z*: they find it again.
        piece.draw(sample)?;
        piece.ask_around(oracle)?;
        // The gradient is that of the true losses: what the separable one would add goes nowhere.
        piece.each(sample, [u, 0], |row| {
            let mut unused = vec![0.0; p];
            let mut aside = Row {
                gradient: &mut unused,
                potentials: row.potentials,
                noise: row.noise,
                assignment: &mut *row.assignment,
                losses: row.losses,
                weights: &mut [],
                moved: &mut *row.moved,
                work: &mut *row.work,
            };
            separable.example(structure, &mut aside, 0.0).map(Some)
        })?;
        let mut values = [vec![0.0; count], vec![0.0; count]];
        let mut perturbed = vec![0.0; p];
        for (value, z) in values.iter_mut().zip([&better, &piece.memory.moved]) {
            let mut losses = vec![0.0; count];
            oracle.losses(piece.of, &z[..count * n], &mut losses)?;
            for (b, (value, z)) in value.iter_mut().zip(z.chunks_exact(n)).enumerate() {
                let potentials = &piece.potentials[b * p..];
                perturbed.iter_mut().zip(potentials).for_each(|(kept, h)| *kept = scaled(*h, keep));
                add(&mut perturbed, piece.noise.of(sample, b), 1.0);
                *value = structure.score(&perturbed, z) - self.direct.epsilon() as f64 * losses[b] as f64;
            }
        }
        for (better, plain) in values[0].iter().zip(&values[1]) {
            let missed = better - plain > ROUNDING;
            piece.tallies[1].add(missed as u8 as f64, 1.0);
            if missed {
                piece.tallies[2].add(better - plain, 1.0);
            }
        }
        // What has moved is the arg max of the true losses, here as elsewhere.
        piece.memory.moved[..count * n].copy_from_slice(&better[..count * n]);
        piece.memory.compact = better;
        Ok(())
    }
}

/// The state with the largest score.
fn best<S: Structure>(structure: &S, scores: &[f32], assignment: &mut [u32]) -> Result<(), Error> {
    match argmax(scores) {
        Some(index) if scores[index] > f32::NEG_INFINITY => {
            structure.state(index, assignment);
            Ok(())
        }
        _ => Err(Error::Infeasible { detail: "every state has a potential of -inf".into() }),
    }
}

const MEASURED: [Measure; 4] = [
    ZERO_GRADIENT_RATE,
    Measure {
        name: "separable_miss_rate",
        help: "share of draws whose separable z(eps) is not that of the true loss",
        always: false,
    },
    Measure { name: "separable_gap", help: "mean of h + gamma - eps loss lost there, in nats", always: false },
    ADAPTIVE_EPSILON,
];
/// With full noise the separable approximation is not looked at.
const MEASURED_FULL: [Measure; 2] = [ZERO_GRADIENT_RATE, ADAPTIVE_EPSILON];

impl<S: Structure> Estimator<S> for DirectJoint {
    fn questions(&self, _: &S) -> Questions {
        match self.perturbation {
            Perturbation::Unary => Questions::STATES.and(Questions::AROUND).and(Questions::LOSSES),
            Perturbation::Full => Questions::STATES,
        }
    }

    fn kl(&self, _: &S) -> KlTerm {
        KlTerm::Either
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        match self.perturbation {
            Perturbation::Unary => Ok(structure.unary()),
            Perturbation::Full => enumerable(structure),
        }
    }

    fn measures(&self) -> &'static [Measure] {
        match self.perturbation {
            Perturbation::Unary => self.direct.measured(&MEASURED),
            Perturbation::Full => self.direct.measured(&MEASURED_FULL),
        }
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.direct.set(moment)
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, scale) = (piece.structure, piece.scale);
        for sample in 0..piece.samples {
            self.draw(piece, sample)?;
            piece.follow_sample(sample, oracle)?;
            let states = piece.ask_states(oracle)?;
            let count = piece.each(sample, [states, 0], |row| self.example(structure, row, scale).map(Some))?;
            let last = <Self as Estimator<S>>::measures(self).len() - 1;
            self.direct.count(piece, count.same, count.asked, last);
            if self.perturbation == Perturbation::Unary {
                self.compare(piece, sample, oracle)?;
            }
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        self.direct.counts()
    }

    fn learn(&mut self, sums: &[f32]) {
        self.direct.adapt(sums);
    }

    fn state(&self) -> Vec<f32> {
        self.direct.held()
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        self.direct.put_back(state)
    }
}
