//! Direct optimisation with the true joint loss, by enumeration.
//!
//! ```text
//! z*      = argmax_z { h(z) + gamma(z) }
//! z(eps)  = argmax_z { h(z) + gamma(z) - eps loss(z) }
//! ```
//!
//! over all states, with the loss of each of them: nothing is approximated by a sum over coordinates, as [`Direct`] does.
//! The noise is
//!
//! - [`Unary`](Perturbation::Unary): a Gumbel variable for each unary potential, as for [`Direct`]. z* is then the same;
//! - [`Full`](Perturbation::Full): one for every state. z* is then an exact sample of the Gibbs distribution q, and the
//!   expectation of the estimate is known: (marginals of h - marginals of h - eps loss) / eps, the latter of the
//!   distribution proportional to `q(z) exp(-eps loss(z))`. It tends to the exact gradient of `E_q[loss]`.
//!
//! - Cost: the decoder at all |Z| states, without gradient, and at z* with; refused above
//!   [`MAX_STATES`](super::MAX_STATES).
//! - Bias and variance: as for [`Direct`] without the error of the separable approximation.
//!
//! Reference: the paper, Theorem 1, which is about full noise.

use super::{Direct, Estimator, Example, Needs, Workspace, enumerable};
use crate::Error;
use crate::math::argmax;
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

/// Direct optimisation with the losses of all states.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirectJoint {
    direct: Direct,
    perturbation: Perturbation,
}

impl DirectJoint {
    /// With the epsilon and the sides of `direct`.
    pub fn new(direct: Direct, perturbation: Perturbation) -> Self {
        DirectJoint { direct, perturbation }
    }

    /// Writes the perturbed scores of all states to the workspace.
    fn scores<S: Structure>(
        &self,
        structure: &S,
        potentials: &[f32],
        noise: &[f32],
        work: &mut Workspace<S>,
    ) -> Result<usize, Error> {
        check_numbers("potential", potentials)?;
        let states = enumerable(structure)?;
        let Workspace { first, second, .. } = work;
        let scores = &mut first[..states];
        match self.perturbation {
            Perturbation::Unary => {
                let perturbed = &mut second[..potentials.len()];
                perturbed.copy_from_slice(potentials);
                add(perturbed, noise, 1.0);
                structure.scores(perturbed, scores);
            }
            Perturbation::Full => {
                structure.scores(potentials, scores);
                add(scores, noise, 1.0);
            }
        }
        Ok(states)
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

impl<S: Structure> Estimator<S> for DirectJoint {
    fn needs(&self) -> Needs {
        Needs::States
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        match self.perturbation {
            Perturbation::Unary => Ok(structure.unary()),
            Perturbation::Full => enumerable(structure),
        }
    }

    fn sample(
        &self,
        structure: &S,
        potentials: &[f32],
        noise: &[f32],
        assignment: &mut [u32],
        work: &mut Workspace<S>,
    ) -> Result<(), Error> {
        match self.perturbation {
            Perturbation::Unary => work.argmax(structure, potentials, noise, assignment).map(drop),
            Perturbation::Full => {
                let states = self.scores(structure, potentials, noise, work)?;
                best(structure, &work.first[..states], assignment)
            }
        }
    }

    fn example(
        &self,
        structure: &S,
        example: Example<'_>,
        scale: f32,
        work: &mut Workspace<S>,
    ) -> Result<Option<bool>, Error> {
        check_numbers("loss", example.losses)?;
        work.warm = false;
        let (back, ahead) = self.direct.shifts();
        let states = self.scores(structure, example.potentials, example.noise, work)?;
        let Workspace { first, towards, away, .. } = work;
        let scores = &mut first[..states];
        add(scores, example.losses, ahead);
        best(structure, scores, towards)?;
        let from = match back {
            0.0 => example.assignment,
            _ => {
                add(scores, example.losses, back - ahead);
                best(structure, scores, away)?;
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
