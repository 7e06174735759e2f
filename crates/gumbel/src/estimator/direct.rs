//! Direct optimisation through arg max (paper Theorem 1).
//!
//! ```text
//! z*      = argmax_z { h(z) + gamma(z) }
//! z(eps)  = argmax_z { h(z) + gamma(z) - eps loss(z) }
//! gradient of E[loss] at the potentials  ~  (s(z*) - s(z(eps))) / eps
//! ```
//!
//! with the same noise gamma, on the unary potentials only, in both. `loss(z)` is replaced by its separable
//! approximation around z*, the sum of [neighbour losses](crate::structure::Code) over the unary statistics of z; for
//! one K-way variable this is the loss itself. So z(eps) is the arg max of the same structure with other unary
//! potentials, and where z* was found with the same [`Workspace`] it is found from there. The gradient stands at all
//! potentials, those of pairs too.
//!
//! **KL by perturbation**: where the Gibbs distribution has no tractable sums, so has its KL no gradient. If every value
//! of every variable has noise, the entropy of the perturbed arg max is at most `E[sum of gamma over the unary
//! statistics of z*]`, with gamma of mean zero (equal for independent variables), and the derivative of this is that of
//! `-E[<h, s(z*)>]` with h held fast. So [`with_kl`](Direct::with_kl) adds `weight <h, s(z)>` to the loss: `z(eps) =
//! argmax (1 - eps weight) h + gamma - eps loss`. The term that is minimised is a lower bound of the KL.
//!
//! - Cost in decoder evaluations: z* and its neighbours, without gradient; one backward pass, for the decoder.
//! - Bias: of order eps; with both sides, `(s(z(-eps)) - s(z(eps))) / (2 eps)`, of order eps². For one K-way variable
//!   the expectation is known: `(softmax(h) - softmax(h - eps loss)) / eps` ([`Direct::expectation`]).
//! - Variance: of order 1 / eps.
//! - Rao-Blackwellised, for independent variables: the expectation over a variable's own noise given the others'
//!   values, in closed form, with no further decoder evaluation. For one variable nothing random is left.
//!
//! References: the paper; for the entropy, Maji, Hazan, Jaakkola, "Active boundary annotation using random MAP
//! perturbations", AISTATS 2014.

use super::{Estimator, Example, Needs, Workspace, difference};
use crate::Error;
use crate::math::softmax_in_place;
use crate::structure::{Structure, add, check_numbers};

/// Which differences are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sides {
    /// `(s(z*) - s(z(eps))) / eps`, as in the paper.
    #[default]
    One,
    /// `(s(z(-eps)) - s(z(eps))) / (2 eps)`: one more arg max, bias of order eps².
    Two,
}

/// Direct optimisation: the difference of two perturbed arg maxima.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Direct {
    epsilon: f32,
    sides: Sides,
    /// Weight of the KL term.
    kl: f32,
}

impl Direct {
    /// One-sided, for `epsilon` > 0, in units of 1 / nat: it multiplies losses in nats.
    pub fn new(epsilon: f32) -> Result<Self, Error> {
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(Error::range("epsilon", epsilon, "a finite number greater than 0"));
        }
        Ok(Direct { epsilon, sides: Sides::One, kl: 0.0 })
    }

    /// epsilon, in units of 1 / nat.
    pub fn epsilon(&self) -> f32 {
        self.epsilon
    }

    /// Chooses one-sided or two-sided differences.
    pub fn sides(self, sides: Sides) -> Self {
        Direct { sides, ..self }
    }

    /// Takes `weight` times the KL by perturbation into the loss, `weight` >= 0 (see the head of this file).
    pub fn with_kl(self, weight: f32) -> Self {
        Direct { kl: weight, ..self }
    }

    /// Shifts of the loss of the two arg maxima, `from - to` their distance: `(0, -eps)` or `(eps, -eps)`.
    pub(super) fn shifts(&self) -> (f32, f32) {
        match self.sides {
            Sides::One => (0.0, -self.epsilon),
            Sides::Two => (self.epsilon, -self.epsilon),
        }
    }

    /// The Rao-Blackwellised estimator with the same settings.
    pub fn rao_blackwell(self) -> DirectExpectation {
        DirectExpectation(self)
    }

    /// Adds `scale` times the expectation of the estimate over the noise of one variable to `gradient`, given the
    /// losses of its K values: `(softmax(h) - softmax(h - eps loss)) / eps`, or its two-sided form. `work` is two
    /// slices of K values.
    pub fn expectation(
        &self,
        potentials: &[f32],
        losses: &[f32],
        scale: f32,
        gradient: &mut [f32],
        [from, to]: [&mut [f32]; 2],
    ) {
        // A constant added to all losses changes nothing; without it large losses keep their digits.
        let least = losses.iter().copied().fold(f32::INFINITY, f32::min);
        let moved = |shift: f32, q: &mut [f32]| {
            q.iter_mut().zip(potentials).zip(losses).for_each(|((q, h), l)| *q = h + shift * (l - least));
            softmax_in_place(q);
        };
        let (back, ahead) = self.shifts();
        moved(back, from);
        moved(ahead, to);
        difference(from, to);
        add(gradient, from, scale / (back - ahead));
    }
}

impl<S: Structure> Estimator<S> for Direct {
    fn needs(&self) -> Needs {
        Needs::Neighbours
    }

    fn example(
        &self,
        structure: &S,
        example: Example<'_>,
        scale: f32,
        work: &mut Workspace<S>,
    ) -> Result<Option<bool>, Error> {
        check_numbers("loss", example.losses)?;
        let u = structure.unary();
        let Workspace { first, towards, away, solver, warm, .. } = work;
        let perturbed = &mut first[..structure.potentials()];
        let mut known = std::mem::take(warm);
        let mut solve = |shift: f32, assignment: &mut [u32]| -> Result<(), Error> {
            perturbed.copy_from_slice(example.potentials);
            if self.kl != 0.0 {
                let keep = 1.0 + shift * self.kl;
                perturbed.iter_mut().for_each(|h| *h *= keep);
                known = false; // the potentials of pairs have changed too
            }
            add(&mut perturbed[..u], example.noise, 1.0);
            add(&mut perturbed[..u], example.losses, shift);
            match std::mem::replace(&mut known, true) {
                true => structure.resolve(perturbed, assignment, solver),
                false => structure.argmax(perturbed, assignment, solver),
            }
            .map(drop)
        };
        let (back, ahead) = self.shifts();
        towards.copy_from_slice(example.assignment);
        solve(ahead, towards)?;
        let from = match self.sides {
            Sides::One => example.assignment,
            Sides::Two => {
                away.copy_from_slice(towards);
                solve(back, away)?;
                &away[..]
            }
        };
        example.moved.iter_mut().zip(&*towards).for_each(|(m, z)| *m = *z);
        if towards == from {
            return Ok(Some(true));
        }
        let scale = scale / (back - ahead);
        structure.add_statistics(from, scale, example.gradient);
        structure.add_statistics(towards, -scale, example.gradient);
        Ok(Some(false))
    }
}

/// Direct optimisation, Rao-Blackwellised: [`Direct::expectation`] in each coordinate given the sampled others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirectExpectation(Direct);

impl<S: Structure> Estimator<S> for DirectExpectation {
    fn needs(&self) -> Needs {
        Needs::Neighbours
    }

    fn example(
        &self,
        structure: &S,
        example: Example<'_>,
        scale: f32,
        work: &mut Workspace<S>,
    ) -> Result<Option<bool>, Error> {
        check_numbers("potential", example.potentials)?;
        check_numbers("loss", example.losses)?;
        for i in 0..structure.variables() {
            let block = structure.block(i).ok_or(Error::Coupled { estimator: "direct with rao-blackwell" })?;
            let gradient = &mut example.gradient[block.clone()];
            let work = [&mut work.first[block.clone()], &mut work.second[block.clone()]];
            self.0.expectation(&example.potentials[block.clone()], &example.losses[block], scale, gradient, work);
        }
        Ok(None)
    }
}
