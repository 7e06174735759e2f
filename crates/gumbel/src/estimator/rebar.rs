//! REBAR (Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein, "REBAR: Low-variance, unbiased gradient estimates for
//! discrete latent variable models", NeurIPS 2017), with Concrete codes of any number of values.
//!
//! ```text
//! zeta = h + gamma,   z = argmax zeta,   zeta~ ~ p(zeta | z),   c(zeta) = loss(softmax(zeta / tau))
//! g = (loss(z) - eta c(zeta~)) grad ln q(z) + eta grad_h c(zeta) - eta grad_h c(zeta~)
//! ```
//!
//! The relaxed loss, given the sample, is the control variate of the score function; its expectation is the relaxed
//! loss itself, whose gradient goes through the code. eta and ln tau follow, by Adam (`control-lr`), the gradient of
//! the mean of `|g|²` over examples, at the potentials: an unbiased estimate of the gradient of the variance.
//!
//! - Cost: one loss without gradient; two rows of codes with slopes, at zeta and at zeta~; while it learns also two
//!   [tangents](Oracle::tangents), of two slopes each where a decoder has none of its own. One backward pass, for the
//!   decoder. Twice the noise of a sample.
//! - No bias, for any eta and tau: eta and tau of a step are those that were learned from the steps before it.
//! - Variance: of what the relaxed loss does not say about the loss; of order 1 / tau where tau is small.
//! - For independent variables. The decoder follows z.

use super::control::{Control, MEASURED, RATE, SCALE, TEMPERATURE};
use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Measure, Piece, independent};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::structure::Structure;

/// The estimator's name, in messages too.
const NAME: &str = "rebar";

/// REBAR in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "the score function, with the relaxed loss as a control variate", |settings, z| {
        independent(z, NAME)?;
        let [temperature, scale, rate] = [TEMPERATURE, SCALE, RATE].map(|s| settings.real(s.name) as f32);
        Ok(Box::new(Rebar::new(temperature, scale, rate)?))
    })
    .with_settings([TEMPERATURE, SCALE, RATE])
    .with_costs("1", "3; 4 more, or 2 tangents, while the temperature is learned")
    .with_quality("none; for independent variables", "of what the relaxed loss does not say; learned")
    .with_paper_samples(PAPER)
}

/// The score function with the relaxed loss as a control variate.
///
/// ```
/// use gumbel::estimator::{Estimator, Rebar, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 8.0 + code[1] * code[1]);
/// let mut rebar = Rebar::new(0.5, 1.0, 0.01)?;
/// let noise = [0.0, 1.0, 0.3, -0.2]; // of zeta, then of zeta~
/// let found = estimate(&rebar, &latent, &[0.2, 0.2], &noise, &mut oracle)?;
/// assert!(found.gradient[1].abs() < 1.0); // without the control it would be 4.5
/// Estimator::<Categorical>::learn(&mut rebar, &found.sums);
/// assert!(rebar.scale() != 1.0 && rebar.temperature() != 0.5);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Rebar(Control);

impl Rebar {
    /// With a temperature from 0.01 to 100 and a scale eta of the control at the start, and the rate, at least 0, at
    /// which both are learned.
    ///
    /// # Errors
    /// Other values.
    pub fn new(temperature: f32, scale: f32, rate: f32) -> Result<Self, Error> {
        Control::new(NAME, [temperature, scale, rate]).map(Rebar)
    }

    /// The temperature of the relaxed codes at the next step.
    pub fn temperature(&self) -> f32 {
        self.0.temperature()
    }

    /// eta at the next step.
    pub fn scale(&self) -> f32 {
        self.0.scale()
    }
}

impl<S: Structure> Estimator<S> for Rebar {
    fn questions(&self, _: &S) -> Questions {
        Control::questions()
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn measures(&self) -> &'static [Measure] {
        &MEASURED
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        self.0.estimate(piece, oracle)
    }

    fn sums(&self) -> usize {
        self.0.learner.sums()
    }

    fn learn(&mut self, sums: &[f32]) {
        self.0.learn(sums);
    }

    fn state(&self) -> Vec<f32> {
        self.0.learner.state()
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        self.0.learner.restore(state)
    }
}
