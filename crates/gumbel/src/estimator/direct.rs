//! Direct optimisation through arg max (paper Theorem 1).
//!
//! ```text
//! z*      = argmax_z { h(z) + gamma(z) }
//! z(eps)  = argmax_z { h(z) + gamma(z) - eps loss(z) }
//! gradient of E[loss] at the potentials  ~  (s(z*) - s(z(eps))) / eps
//! ```
//!
//! with the same noise gamma in both. `loss(z)` is replaced by its separable approximation around z*, the sum over the
//! variables of the losses of one-coordinate changes; for one K-way variable this is the loss itself.
//!
//! - Cost in decoder evaluations: z* and its neighbours, without gradient; one backward pass, for the decoder.
//! - Bias: of order eps; with both sides, `(s(z(-eps)) - s(z(eps))) / (2 eps)`, of order eps². For one K-way variable
//!   the expectation is known: `(softmax(h) - softmax(h - eps loss)) / eps` ([`Direct::expectation`]).
//! - Variance: of order 1 / eps.
//! - Rao-Blackwellised: the expectation over a variable's own noise given the others' values, in closed form, with no
//!   further decoder evaluation. For one variable nothing random is left.

use super::{Estimator, Example, Needs, Workspace, difference};
use crate::Error;
use crate::math::softmax_in_place;
use crate::structure::{Factorised, Structure, add, check_numbers};

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
}

impl Direct {
    /// One-sided, for `epsilon` > 0, in units of 1 / nat: it multiplies losses in nats.
    pub fn new(epsilon: f32) -> Result<Self, Error> {
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(Error::range("epsilon", epsilon, "a finite number greater than 0"));
        }
        Ok(Direct { epsilon, sides: Sides::One })
    }

    /// Chooses one-sided or two-sided differences.
    pub fn sides(self, sides: Sides) -> Self {
        Direct { sides, ..self }
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
        let (back, span) = match self.sides {
            Sides::One => (0.0, self.epsilon),
            Sides::Two => (self.epsilon, 2.0 * self.epsilon),
        };
        moved(back, from);
        moved(-self.epsilon, to);
        difference(from, to, |k, d| gradient[k] += scale / span * d);
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
        let Workspace { first, towards, away, solver, .. } = work;
        let perturbed = &mut first[..structure.potentials()];
        let mut solve = |shift: f32, assignment: &mut [u32]| -> Result<(), Error> {
            perturbed.copy_from_slice(example.potentials);
            add(&mut perturbed[..u], example.noise, 1.0);
            add(&mut perturbed[..u], example.losses, shift);
            structure.argmax(perturbed, assignment, solver).map(drop)
        };
        solve(-self.epsilon, towards)?;
        let (from, span) = match self.sides {
            Sides::One => (example.assignment, self.epsilon),
            Sides::Two => {
                solve(self.epsilon, away)?;
                (&away[..], 2.0 * self.epsilon)
            }
        };
        if towards == from {
            return Ok(Some(true));
        }
        structure.add_statistics(from, scale / span, example.gradient);
        structure.add_statistics(towards, -scale / span, example.gradient);
        Ok(Some(false))
    }
}

/// Direct optimisation, Rao-Blackwellised: [`Direct::expectation`] in each coordinate given the sampled others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirectExpectation(Direct);

impl<S: Factorised> Estimator<S> for DirectExpectation {
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
            let block = structure.block(i);
            let gradient = &mut example.gradient[block.clone()];
            let work = [&mut work.first[block.clone()], &mut work.second[block.clone()]];
            self.0.expectation(&example.potentials[block.clone()], &example.losses[block], scale, gradient, work);
        }
        Ok(None)
    }
}
