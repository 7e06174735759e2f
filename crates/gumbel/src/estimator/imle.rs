//! Implicit maximum likelihood, I-MLE (Niepert, Minervini, Franceschi, "Implicit MLE: backpropagating through discrete
//! exponential family distributions", NeurIPS 2021), and the adaptive form (Minervini, Franceschi, Niepert, "Adaptive
//! perturbation-based gradient estimation for discrete latent variable models", AAAI 2023).
//!
//! ```text
//! z*  = argmax_z { h(z) + noise(z) }
//! z_t = argmax_z { h(z) + noise(z) - lambda <slope, s(z)> },      slope = d loss / d code at z*
//! gradient at the potentials  ~  (s(z*) - s(z_t)) / lambda
//! ```
//!
//! with the same noise, on the unary potentials, in both; a code is the unary statistics, so that slopes are numbers of
//! unary potentials. This is direct optimisation of the loss linearised at z*. (The paper leaves out the division by
//! lambda.) Two-sided: `(s(z_-t) - s(z_t)) / (2 lambda)`, with lambda of both signs.
//!
//! - Cost: one pass of the decoder, forwards and backwards: the slopes come from its own. Two arg maxima, three with
//!   both sides; the later ones go on from where the solver stood. For every latent: no sums, no enumeration.
//! - Bias: of order lambda, two-sided lambda², of the linearised loss; what linearising does to a loss that is not
//!   linear in the code does not vanish with lambda. For independent variables with Gumbel noise and a linear loss the
//!   mean is `(softmax(h) - softmax(h - lambda slope)) / lambda` in each variable.
//! - Variance: of order 1 / lambda, as that of direct optimisation.
//! - The decoder follows z*.
//!
//! **lambda** is in units of 1 / nat, as the epsilon of direct optimisation. At 1 the target is a sample of the
//! posterior under the linearised loss and a uniform prior (of independent variables with Gumbel noise): a scale that
//! needs no tuning to begin with, whence the default.
//!
//! **Noise**: Gumbel variables, with which the perturbed arg max of independent variables is a sample of q; or
//! [`SumOfGamma`], which the paper made for codes with a fixed number of ones. Both at temperature 1. Gumbel variables
//! are the default for every latent: in the subsets of the tests their arg max is nearer to a sample of the Gibbs
//! distribution too (total variation 0.02 to 0.14 in place of 0.09 to 0.51).
//!
//! **Adaptive**: for each example
//!
//! ```text
//! lambda = alpha |h| / |slope|
//! ```
//!
//! with the norms of what is perturbed, unary potentials that are not forbidden. A constant added to all values of a
//! variable changes no arg max, so that one-hot rows are centred first. The paper takes the norms of the batch; here
//! they are those of the example, so that pieces of a batch need not know of each other, and no example's step depends
//! on the others'. After each batch, with `found` the mean number of coordinates of `s(z*) - s(z_t)` that are not zero,
//!
//! ```text
//! average = 0.9 average + 0.1 found
//! alpha   = max(0, alpha + step)  if average < target,  else  max(0, alpha - step)
//! ```
//!
//! which begins at alpha = 1 and average = target: alpha becomes as small as the target lets it, and the bias with it.
//! Potentials that are all equal, and a loss that is flat, have no gradient.

use super::direct::TWO_SIDED;
use super::measure::{Measure, ZERO_GRADIENT_RATE};
use super::piece::{Memory, Row, room};
use super::registry::{EstimatorEntry, PAPER};
use super::sum_of_gamma::MOST;
use super::{Estimator, Piece, Sides, Slopes, SumOfGamma, Workspace, score};
use crate::Error;
use crate::error::check_len;
use crate::oracle::{Oracle, Questions};
use crate::registry::{Kind, POSITIVE, Setting, Settings, is_positive};
use crate::structure::{AnyStructure, Code, Structure, add, check_numbers};

const LAMBDA: Setting = Setting {
    name: "imle-lambda",
    kind: Kind::POSITIVE,
    default: "1",
    value: "X",
    help: "how far the target goes down the slopes of the loss, in units of 1 / nat",
};
const NOISE: Setting = Setting {
    name: "imle-noise",
    kind: Kind::Choice(&["gumbel", "sum-of-gamma"]),
    default: "gumbel",
    value: "NAME",
    help: "what unary potentials are perturbed by: gumbel, or sum-of-gamma, of which kappa together are nearly Gumbel",
};
const KAPPA: Setting = Setting {
    name: "imle-kappa",
    kind: Kind::Whole(0, MOST),
    default: "0",
    value: "N",
    help: "with imle-noise = sum-of-gamma: kappa; 0: as many as a code has ones, or the number of variables where that \
           varies",
};
const TERMS: Setting = Setting {
    name: "imle-terms",
    kind: Kind::Whole(1, MOST),
    default: "10",
    value: "N",
    help: "with imle-noise = sum-of-gamma: gamma variables in each sum",
};
const TARGET: Setting = Setting {
    name: "imle-target",
    kind: Kind::POSITIVE,
    default: "1",
    value: "X",
    help: "the mean number of coordinates of an example's gradient that are not to be zero",
};
const STEP: Setting = Setting {
    name: "imle-step",
    kind: Kind::POSITIVE,
    default: "0.001",
    value: "X",
    help: "by how much alpha changes after each batch; lambda is alpha times the norm of potentials by that of slopes",
};

/// I-MLE in the registry.
pub(super) fn entry() -> EstimatorEntry {
    let build =
        |settings: &Settings, z: &AnyStructure| built(Imle::new(settings.real(LAMBDA.name) as f32)?, settings, z);
    EstimatorEntry::new("imle", "implicit MLE: direct optimisation of the loss linearised at the sample", build)
        .with_settings([LAMBDA, TWO_SIDED, NOISE, KAPPA, TERMS])
        .with_costs("1", "1")
        .with_quality("of order lambda (two-sided: lambda²), of the linearised loss", "grows like 1 / lambda")
        .with_paper_samples(PAPER)
}

/// Adaptive I-MLE in the registry.
pub(super) fn adaptive_entry() -> EstimatorEntry {
    let build = |settings: &Settings, z: &AnyStructure| {
        let (target, step) = (settings.real(TARGET.name) as f32, settings.real(STEP.name) as f32);
        built(Imle::adaptive(target, step)?, settings, z)
    };
    EstimatorEntry::new(
        "adaptive-imle",
        "implicit MLE whose lambda keeps the gradient from being zero too often",
        build,
    )
    .with_settings([TARGET, STEP, TWO_SIDED, NOISE, KAPPA, TERMS])
    .with_costs("1", "1")
    .with_quality("as that of imle, at the least lambda that meets the target", "as the target says")
    .with_paper_samples(PAPER)
}

fn built(imle: Imle, settings: &Settings, structure: &AnyStructure) -> Result<Box<dyn Estimator>, Error> {
    let imle = if settings.switch(TWO_SIDED.name) { imle.sides(Sides::Two) } else { imle };
    if settings.text(NOISE.name) == "gumbel" {
        return Ok(Box::new(imle));
    }
    let kappa = match settings.whole(KAPPA.name) as u32 {
        0 => SumOfGamma::ones(structure)?,
        kappa => kappa,
    };
    Ok(Box::new(imle.sum_of_gamma(SumOfGamma::new(kappa, settings.whole(TERMS.name) as u32)?)))
}

/// Implicit maximum likelihood.
///
/// ```
/// use gumbel::estimator::{Imle, Sides, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Subset;
/// let latent = Subset::new(3, 1)?;
/// let mut oracle = Closure::new(&latent, |_, code| 9.0 * code[0] + code[1] + 5.0 * code[2]);
/// let (potentials, noise) = ([0.2, -0.1, 0.4], [0.7, 0.1, -0.3]);
/// let imle = Imle::new(0.5)?;
/// let found = estimate(&imle, &latent, &potentials, &noise, &mut oracle)?;
/// assert_eq!(found.gradient, [2.0, -2.0, 0.0]); // from z* = {0} to the target {1}, by 1 / lambda
/// let found = estimate(&imle.sides(Sides::Two), &latent, &potentials, &noise, &mut oracle)?;
/// assert_eq!(found.gradient, [1.0, -1.0, 0.0]); // to the other side {0} is the best too
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Imle {
    lambda: Lambda,
    sides: Sides,
    /// In place of Gumbel noise.
    noise: Option<SumOfGamma>,
}

/// Where lambda comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lambda {
    Fixed(f32),
    Adaptive {
        target: f32,
        step: f32,
        alpha: f32,
        /// Coordinates that are not zero, of the batches before.
        average: f32,
    },
}

/// What the average keeps of itself.
const DECAY: f32 = 0.9;

impl Imle {
    /// One-sided, with Gumbel noise, for `lambda` > 0 in units of 1 / nat.
    ///
    /// # Errors
    /// Another lambda.
    pub fn new(lambda: f32) -> Result<Self, Error> {
        checked("imle-lambda", lambda)?;
        Ok(Imle { lambda: Lambda::Fixed(lambda), sides: Sides::One, noise: None })
    }

    /// The same with a lambda that follows the norms of potentials and slopes, so that in the mean `target` coordinates
    /// of an example's gradient are not zero; its factor changes by `step` after each batch.
    ///
    /// ```
    /// use gumbel::estimator::{Estimator, Imle, estimate};
    /// use gumbel::oracle::Closure;
    /// use gumbel::structure::Categorical;
    /// let latent = Categorical::new(2)?;
    /// let mut oracle = Closure::new(&latent, |_, code| 4.0 * code[1]);
    /// let mut imle = Imle::adaptive(1.0, 0.25)?;
    /// // lambda = 2 / 4: the target 2 + 0.2 - 4 / 2 is still above 0 + 0.1.
    /// let found = estimate(&imle, &latent, &[0.0, 2.0], &[0.1, 0.2], &mut oracle)?;
    /// assert!(found.gradient == [0.0; 2] && (found.tallies[1].mean() - 0.5).abs() < 1e-6);
    /// Estimator::<Categorical>::learn(&mut imle, &found.sums);
    /// assert_eq!(imle.alpha(), Some(1.25));
    /// # Ok::<(), gumbel::Error>(())
    /// ```
    ///
    /// # Errors
    /// A target or step that is no number greater than 0.
    pub fn adaptive(target: f32, step: f32) -> Result<Self, Error> {
        checked("imle-target", target)?;
        checked("imle-step", step)?;
        let lambda = Lambda::Adaptive { target, step, alpha: 1.0, average: target };
        Ok(Imle { lambda, sides: Sides::One, noise: None })
    }

    /// Chooses one-sided or two-sided differences.
    pub fn sides(self, sides: Sides) -> Self {
        Imle { sides, ..self }
    }

    /// With this noise in place of Gumbel variables.
    pub fn sum_of_gamma(self, noise: SumOfGamma) -> Self {
        Imle { noise: Some(noise), ..self }
    }

    /// The factor of an adaptive lambda at the next step.
    pub fn alpha(&self) -> Option<f32> {
        match self.lambda {
            Lambda::Fixed(_) => None,
            Lambda::Adaptive { alpha, .. } => Some(alpha),
        }
    }

    /// The lambda of an example.
    fn lambda(&self, code: Code, potentials: &[f32], slopes: &[f32]) -> f32 {
        match self.lambda {
            Lambda::Fixed(lambda) => lambda,
            Lambda::Adaptive { alpha, .. } => {
                let norms = norm(code, potentials, potentials) / norm(code, slopes, potentials);
                let lambda = (alpha as f64 * norms) as f32;
                if lambda.is_finite() { lambda } else { 0.0 }
            }
        }
    }

    /// Adds the estimate of one example, given slopes and noise `[2, U]` in its losses; leaves in its weights how many
    /// coordinates are not zero, and lambda. Whether both arg maxima coincide.
    fn example<S: Structure>(&self, structure: &S, row: &mut Row<'_, S>, scale: f32) -> Result<bool, Error> {
        let u = structure.unary();
        let (slopes, noise) = row.losses.split_at(u);
        check_numbers("slope", slopes)?;
        let lambda = self.lambda(structure.code(), &row.potentials[..u], slopes);
        (row.weights[0], row.weights[1]) = (0.0, lambda);
        row.moved.copy_from_slice(row.assignment);
        if lambda == 0.0 {
            return Ok(true);
        }
        let Workspace { first, second, towards, away, solver, warm, .. } = &mut *row.work;
        let perturbed = &mut first[..structure.potentials()];
        // The solver's last answer, whichever sample's, is in `towards`.
        let mut known = std::mem::take(warm);
        let mut solve = |shift: f32, assignment: &mut [u32]| -> Result<(), Error> {
            perturbed.copy_from_slice(row.potentials);
            add(&mut perturbed[..u], noise, 1.0);
            add(&mut perturbed[..u], slopes, shift);
            match std::mem::replace(&mut known, true) {
                true => structure.resolve(perturbed, assignment, solver),
                false => structure.argmax(perturbed, assignment, solver),
            }
            .map(drop)
        };
        solve(-lambda, towards)?;
        row.moved.copy_from_slice(towards);
        let (from, distance) = match self.sides {
            Sides::One => (&*row.assignment, lambda),
            Sides::Two => {
                away.copy_from_slice(towards);
                solve(lambda, away)?;
                towards.copy_from_slice(away);
                (&away[..], 2.0 * lambda)
            }
        };
        *warm = true;
        if *row.moved == *from {
            return Ok(true);
        }
        structure.add_statistics(from, scale / distance, row.gradient);
        structure.add_statistics(row.moved, -scale / distance, row.gradient);
        let (one, other) = (&mut first[..u], &mut second[..u]);
        structure.encode(from, one);
        structure.encode(row.moved, other);
        row.weights[0] = one.iter().zip(other).filter(|(a, b)| *a != *b).count() as f32;
        Ok(false)
    }
}

fn checked(name: &'static str, value: f32) -> Result<(), Error> {
    if is_positive(value as f64) { Ok(()) } else { Err(Error::range(name, value, POSITIVE)) }
}

/// The norm of numbers at unary potentials that are not forbidden; one-hot rows are centred.
fn norm(code: Code, x: &[f32], potentials: &[f32]) -> f64 {
    let (centred, values) = match code {
        Code::OneHot { values } => (true, values),
        Code::Indicators => (false, x.len()),
    };
    let rows = x.chunks(values.max(1)).zip(potentials.chunks(values.max(1)));
    let squares = rows.map(|(x, h)| {
        let allowed = || x.iter().zip(h).filter(|(_, h)| **h != f32::NEG_INFINITY).map(|(x, _)| *x as f64);
        let mean = if centred { allowed().sum::<f64>() / (allowed().count() as f64).max(1.0) } else { 0.0 };
        allowed().map(|x| (x - mean).powi(2)).sum::<f64>()
    });
    squares.sum::<f64>().sqrt()
}

const MEASURED: [Measure; 2] = [
    ZERO_GRADIENT_RATE,
    Measure { name: "imle_lambda", help: "mean lambda, by which slopes are multiplied, in 1 / nat", always: false },
];

impl<S: Structure> Estimator<S> for Imle {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(if self.noise.is_some() { score::KEY } else { structure.unary() })
    }

    fn measures(&self) -> &'static [Measure] {
        match self.lambda {
            Lambda::Fixed(_) => &MEASURED[..1],
            Lambda::Adaptive { .. } => &MEASURED,
        }
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, samples, count) = (piece.structure, piece.samples, piece.count());
        let (u, n) = (structure.unary(), structure.variables());
        for sample in 0..samples {
            piece.each(sample, [0, u], |row| {
                match &self.noise {
                    Some(noise) => noise.fill(row.noise, row.weights),
                    None => row.weights.copy_from_slice(row.noise),
                }
                row.work.argmax(structure, row.potentials, row.weights, row.assignment)?;
                row.work.towards.copy_from_slice(row.assignment);
                Ok(None)
            })?;
            // What the other half of the estimate needs: noise, and z* of each sample.
            let Memory { assignments, weights, codes, compact, .. } = &mut *piece.memory;
            let noise = &mut room(codes, samples * count * u)[sample * count * u..][..count * u];
            noise.copy_from_slice(&weights[..count * u]);
            let drawn = &mut room(compact, samples * count * n)[sample * count * n..][..count * n];
            drawn.copy_from_slice(&assignments[..count * n]);
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: Slopes<'_>) -> Result<(), Error> {
        let (structure, scale, count) = (piece.structure, piece.scale, piece.count());
        let (u, n) = (structure.unary(), structure.variables());
        for sample in 0..piece.samples {
            let Memory { assignments, losses, codes, compact, .. } = &mut *piece.memory;
            assignments[..count * n].copy_from_slice(&compact[sample * count * n..][..count * n]);
            let rows = room(losses, count * 2 * u).chunks_exact_mut(2 * u);
            let rows = rows.zip(slopes.row(sample, count, u).chunks_exact(u));
            for ((row, weighted), noise) in rows.zip(codes[sample * count * u..].chunks_exact(u)) {
                let (slope, gamma) = row.split_at_mut(u);
                slope.iter_mut().zip(weighted).for_each(|(s, weighted)| *s = weighted / scale);
                gamma.copy_from_slice(noise);
            }
            let found = piece.each(sample, [2 * u, 2], |row| self.example(structure, row, scale).map(Some))?;
            piece.tallies[0].add(found.same as f64, found.asked as f64);
            if let Lambda::Adaptive { .. } = self.lambda {
                for told in piece.memory.weights[..2 * count].chunks_exact(2) {
                    piece.sums[0] += told[0];
                    piece.tallies[1].add(told[1] as f64, 1.0);
                }
                piece.sums[1] += count as f32;
            }
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        if self.alpha().is_some() { 2 } else { 0 }
    }

    fn learn(&mut self, sums: &[f32]) {
        if let (Lambda::Adaptive { target, step, alpha, average }, &[changed, count]) = (&mut self.lambda, sums)
            && count > 0.0
        {
            *average += (1.0 - DECAY) * (changed / count - *average);
            let change = if *average < *target { *step } else { -*step };
            *alpha = (*alpha + change).max(0.0);
        }
    }

    fn state(&self) -> Vec<f32> {
        match self.lambda {
            Lambda::Fixed(_) => vec![],
            Lambda::Adaptive { alpha, average, .. } => vec![alpha, average],
        }
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        let expected = Estimator::<S>::sums(self);
        check_len("the state of the adaptive lambda", state.len(), expected)?;
        if let (Lambda::Adaptive { alpha, average, .. }, &[stored, mean]) = (&mut self.lambda, state) {
            (*alpha, *average) = (stored, mean);
        }
        Ok(())
    }
}
