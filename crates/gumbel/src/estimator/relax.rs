//! RELAX (Grathwohl, Choi, Wu, Roeder, Duvenaud, "Backpropagation through the void: optimizing control variates for
//! black-box gradient estimation", ICLR 2018), which adds a network of its own to the control of [REBAR](super::Rebar).
//!
//! ```text
//! c(zeta) = eta loss(s) + r(s),   s = softmax(zeta / tau),   r(s) = <w, tanh(A s + b)> + c
//! g = (loss(z) - c(zeta~)) grad ln q(z) + grad_h c(zeta) - grad_h c(zeta~)
//! ```
//!
//! r reads the relaxed code, not zeta: adding a number to all potentials of a variable changes no probability, and what
//! the control says must not change either; and codes are as large for every h. w and c are zero at the start, where
//! this is REBAR. Then eta, ln tau and the parameters of r follow the gradient of the mean of `|g|²` by Adam
//! (`control-lr`); the derivatives of `<v, r'(s)>` in them are written out in control.rs.
//!
//! - Cost: that of [REBAR](super::Rebar) in decoder passes, and about ten times the network's weights in
//!   multiplications for each example and sample.
//! - No bias, whatever r has become. r knows neither image nor potentials: what it can learn is what images have in
//!   common; c is a baseline.
//! - Variance: of what the control does not say about the loss.
//! - For independent variables. The decoder follows z.

use super::control::{Control, MEASURED, RATE, SCALE, TEMPERATURE};
use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Measure, Piece, independent};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::registry::{Kind, Setting};
use crate::structure::Structure;

/// The estimator's name, in messages too.
const NAME: &str = "relax";

/// Hidden units of the control's network.
const UNITS: Setting = Setting {
    name: "control-units",
    kind: Kind::Whole(1, MOST_UNITS as u64),
    default: "32",
    value: "N",
    help: "hidden units of the control variate's network",
};
const MOST_UNITS: usize = 4096;

/// RELAX in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "rebar whose control variate has a network of its own", |settings, z| {
        independent(z, NAME)?;
        let [temperature, scale, rate] = [TEMPERATURE, SCALE, RATE].map(|s| settings.real(s.name) as f32);
        Ok(Box::new(Relax::new(z, temperature, scale, rate, settings.whole(UNITS.name) as usize)?))
    })
    .with_settings([TEMPERATURE, SCALE, RATE, UNITS])
    .with_costs("1", "3; 4 more, or 2 tangents, while the temperature is learned")
    .with_quality("none; for independent variables", "of what the learned control does not say")
    .with_paper_samples(PAPER)
}

/// The score function with the relaxed loss and a network as a control variate.
///
/// ```
/// use gumbel::estimator::{Estimator, Rebar, Relax, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::binary(3)?;
/// let mut oracle = Closure::new(&latent, |_, code| 8.0 + code[1] * code[3]);
/// let (potentials, noise) = ([0.2; 6], [0.0, 1.0, 0.3, -0.2, 0.5, 0.4, 0.9, 0.1, 0.0, -0.7, 1.2, 0.6]);
/// let mut relax = Relax::new(&latent, 0.5, 1.0, 0.01, 8)?;
/// let first = estimate(&relax, &latent, &potentials, &noise, &mut oracle)?;
/// let rebar = estimate(&Rebar::new(0.5, 1.0, 0.01)?, &latent, &potentials, &noise, &mut oracle)?;
/// assert_eq!(first.gradient, rebar.gradient); // before it has learned anything
/// Estimator::<Categorical>::learn(&mut relax, &first.sums);
/// let second = estimate(&relax, &latent, &potentials, &noise, &mut oracle)?;
/// assert_ne!(second.gradient, first.gradient);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Relax(Control);

impl Relax {
    /// For codes of `structure`, with a temperature from 0.01 to 100 and a scale eta at the start, the rate, at least
    /// 0, at which all is learned, and 1 to 4096 hidden units.
    ///
    /// # Errors
    /// Other values.
    pub fn new<S: Structure>(
        structure: &S,
        temperature: f32,
        scale: f32,
        rate: f32,
        units: usize,
    ) -> Result<Self, Error> {
        if !(1..=MOST_UNITS).contains(&units) {
            return Err(Error::range(UNITS.name, units, "a whole number from 1 to 4096"));
        }
        Ok(Relax(Control::new(NAME, [temperature, scale, rate])?.with_network(structure, units)))
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

impl<S: Structure> Estimator<S> for Relax {
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
