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
//! potentials, and is found from where the solver stood at z*. The gradient stands at all
//! potentials, those of pairs too.
//!
//! **KL by perturbation**: where the Gibbs distribution has no tractable sums, so has its KL no gradient. If every
//! value of every variable has noise, the entropy of the perturbed arg max is at most `E[sum of gamma over the unary
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

use super::measure::{Measure, ZERO_GRADIENT_RATE};
use super::piece::Row;
use super::registry::{EPSILON, EstimatorEntry, PAPER};
use super::{DirectJoint, Estimator, Moment, Perturbation, Piece, Search, difference, enumerable, independent};
use crate::Error;
use crate::math::softmax_in_place;
use crate::oracle::{Oracle, Questions};
use crate::registry::{Kind, Setting, Settings};
use crate::schedule::Annealing;
use crate::structure::{AnyStructure, Code, Structure, add, check_numbers};

/// Of direct: differences to both sides.
const TWO_SIDED: Setting = Setting {
    name: "two-sided",
    kind: Kind::Switch,
    default: "false",
    value: "BOOL",
    help: "differences to both sides, with a bias of order epsilon²",
};
/// Of direct: the conditional expectation instead of a sample.
const RAO_BLACKWELL: Setting = Setting {
    name: "rao-blackwell",
    kind: Kind::Switch,
    default: "false",
    value: "BOOL",
    help: "the conditional expectation of the difference instead of a sample",
};
/// Of direct: the loss of the second arg max.
const JOINT: Setting = Setting {
    name: "joint",
    kind: Kind::Choice(&["off", "exact", "search"]),
    default: "off",
    value: "NAME",
    help: "loss of the second arg max: off, the separable approximation around the sample; exact, the true one of \
           every state (up to 32768); search, a local search with true losses",
};
/// Of direct: what is perturbed.
const NOISE: Setting = Setting {
    name: "noise",
    kind: Kind::Choice(&["unary", "full"]),
    default: "unary",
    value: "NAME",
    help: "what is perturbed: unary potentials, or full, every state, with joint = exact",
};

/// Direct optimisation in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new("direct", "direct optimisation through arg max, the paper's", build)
        .with_settings(EPSILON.settings.iter().copied().chain([TWO_SIDED, RAO_BLACKWELL, JOINT, NOISE]))
        .with_schedules(&[EPSILON])
        .with_costs("z* and its one-coordinate changes (joint: all states; search: again at every move)", "1")
        .with_quality(
            "of order epsilon (two-sided: epsilon²), of the separable approximation's loss",
            "grows like 1 / epsilon; Rao-Blackwellised smaller, zero for one variable",
        )
        .with_paper_samples(PAPER)
}

fn build(settings: &Settings, structure: &AnyStructure) -> Result<Box<dyn Estimator>, Error> {
    let schedule = EPSILON.annealing(settings)?;
    let (two, rao, joint) = (settings.switch("two-sided"), settings.switch("rao-blackwell"), settings.text("joint"));
    let full = settings.text("noise") == "full";
    let refused =
        |name: &str, expected: &str| Err(Error::setting(name, settings.get(name).expect("one of ours"), expected));
    let direct = Direct {
        sides: if two { Sides::Two } else { Sides::One },
        schedule: Some(schedule),
        kl_inside: !structure.has_sums(),
        signed: !structure.takes_any_sign(),
        ..Direct::new(schedule.at(0))?
    };
    if rao {
        independent(structure, "rao-blackwell")?;
    }
    if full || joint == "exact" {
        enumerable(structure)?;
    }
    match joint {
        "off" | "search" if full => refused("noise", "unary, or full with joint = exact"),
        "off" if rao => Ok(Box::new(direct.rao_blackwell())),
        "off" => Ok(Box::new(direct)),
        _ if rao => refused("joint", "off with rao-blackwell = true"),
        "search" if two => refused("joint", "off or exact with two-sided = true"),
        "search" if structure.code() == Code::Indicators => refused(
            "joint",
            "off or exact: the search changes one variable at a time, which leaves this latent's states",
        ),
        "search" => Ok(Box::new(Search::new(direct))),
        _ => {
            let perturbation = if full { Perturbation::Full } else { Perturbation::Unary };
            Ok(Box::new(DirectJoint::new(direct, perturbation)))
        }
    }
}

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
///
/// ```
/// use gumbel::estimator::{Direct, Sides, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(3)?;
/// let mut oracle = Closure::new(&latent, |_, code| 9.0 * code[0] + code[1] + 5.0 * code[2]);
/// let (potentials, noise) = ([0.2, -0.1, 0.4], [0.7, 0.1, -0.3]);
/// let direct = Direct::new(0.5)?;
/// let found = estimate(&direct, &latent, &potentials, &noise, &mut oracle)?;
/// assert_eq!(found.gradient, [2.0, -2.0, 0.0]); // from z* = 0 to z(eps) = 1, by 1 / eps
/// assert_eq!(found.tallies[0].mean(), 0.0); // of the draws, none has two equal arg maxima
/// let found = estimate(&direct.sides(Sides::Two), &latent, &potentials, &noise, &mut oracle)?;
/// assert_eq!(found.gradient, [1.0, -1.0, 0.0]); // from z(-eps) = 0, by 1 / (2 eps)
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Direct {
    epsilon: f32,
    sides: Sides,
    /// Weight of the KL term.
    kl: f32,
    /// Where epsilon comes from in training.
    schedule: Option<Annealing>,
    /// Whether the weight of the KL term follows training.
    kl_inside: bool,
    /// Whether the potentials may not be scaled by a negative number.
    signed: bool,
}

impl Direct {
    /// One-sided, for `epsilon` > 0, in units of 1 / nat: it multiplies losses in nats.
    ///
    /// # Errors
    /// Another epsilon.
    pub fn new(epsilon: f32) -> Result<Self, Error> {
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(Error::range("epsilon", epsilon, "a finite number greater than 0"));
        }
        Ok(Direct { epsilon, sides: Sides::One, kl: 0.0, schedule: None, kl_inside: false, signed: false })
    }

    /// epsilon, in units of 1 / nat.
    pub fn epsilon(&self) -> f32 {
        self.epsilon
    }

    /// Whether it is one-sided or two-sided.
    pub fn sided(&self) -> Sides {
        self.sides
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

impl Direct {
    /// The values of a moment of training.
    ///
    /// # Errors
    /// An epsilon so large that the KL in the perturbation turns the signs of potentials that must keep them.
    pub(super) fn set(&mut self, moment: &Moment) -> Result<(), Error> {
        if let Some(schedule) = &self.schedule {
            self.epsilon = schedule.at(moment.step);
        }
        if self.kl_inside {
            self.kl = moment.kl_weight;
        }
        if self.signed && self.epsilon * self.kl > 1.0 {
            let expected = format!(
                "at most {} where the KL term has the weight {}: the couplings of this latent are multiplied by \
                 1 - epsilon * weight and must not be negative",
                1.0 / self.kl,
                self.kl
            );
            return Err(Error::setting("epsilon", self.epsilon, expected));
        }
        Ok(())
    }

    /// The same without a KL in the perturbation, now and in training.
    pub(super) fn without_kl(self) -> Self {
        Direct { kl: 0.0, kl_inside: false, ..self }
    }

    /// Adds `scale` times the estimate of one example, given the losses around z*; leaves z(eps) in `moved`; whether
    /// both arg maxima coincide.
    pub(super) fn example<S: Structure>(&self, structure: &S, row: &mut Row<'_, S>, scale: f32) -> Result<bool, Error> {
        check_numbers("loss", row.losses)?;
        let u = structure.unary();
        let super::Workspace { first, towards, away, solver, warm, .. } = &mut *row.work;
        let perturbed = &mut first[..structure.potentials()];
        let mut known = std::mem::take(warm);
        let mut solve = |shift: f32, assignment: &mut [u32]| -> Result<(), Error> {
            perturbed.copy_from_slice(row.potentials);
            if self.kl != 0.0 {
                let keep = 1.0 + shift * self.kl;
                perturbed.iter_mut().for_each(|h| *h *= keep);
                known = false; // the potentials of pairs have changed too
            }
            add(&mut perturbed[..u], row.noise, 1.0);
            add(&mut perturbed[..u], row.losses, shift);
            match std::mem::replace(&mut known, true) {
                true => structure.resolve(perturbed, assignment, solver),
                false => structure.argmax(perturbed, assignment, solver),
            }
            .map(drop)
        };
        let (back, ahead) = self.shifts();
        towards.copy_from_slice(row.assignment);
        solve(ahead, towards)?;
        let from = match self.sides {
            Sides::One => &*row.assignment,
            Sides::Two => {
                away.copy_from_slice(towards);
                solve(back, away)?;
                &away[..]
            }
        };
        row.moved.copy_from_slice(towards);
        if *towards == from {
            return Ok(true);
        }
        let scale = scale / (back - ahead);
        structure.add_statistics(from, scale, row.gradient);
        structure.add_statistics(towards, -scale, row.gradient);
        Ok(false)
    }
}

impl<S: Structure> Estimator<S> for Direct {
    fn questions(&self, _: &S) -> Questions {
        Questions::AROUND
    }

    fn takes_kl(&self, _: &S) -> bool {
        self.kl_inside
    }

    fn measures(&self) -> &'static [Measure] {
        &[ZERO_GRADIENT_RATE]
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.set(moment)
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, scale) = (piece.structure, piece.scale);
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            piece.ask_around(oracle)?;
            let count =
                piece.each(sample, [structure.unary(), 0], |row| self.example(structure, row, scale).map(Some))?;
            piece.tallies[0].add(count.same as f64, count.asked as f64);
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }
}

/// Direct optimisation, Rao-Blackwellised: [`Direct::expectation`] in each coordinate given the sampled others.
///
/// ```
/// use gumbel::estimator::{Direct, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// let mut oracle = Closure::new(&latent, |_, code| 3.0 * code[1]);
/// let expectation = Direct::new(0.5)?.rao_blackwell();
/// let found = estimate(&expectation, &latent, &[0.2, 0.2], &[0.9, 0.1], &mut oracle)?;
/// let moved = 1.0 / (1.0 + f32::exp(1.5)); // of softmax(h - eps loss)
/// assert!((found.gradient[1] - (0.5 - moved) / 0.5).abs() < 1e-6); // whatever the noise of a single variable
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirectExpectation(Direct);

impl<S: Structure> Estimator<S> for DirectExpectation {
    fn questions(&self, _: &S) -> Questions {
        Questions::AROUND
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.0.set(moment)
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, scale) = (piece.structure, piece.scale);
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            piece.ask_around(oracle)?;
            piece.each(sample, [structure.unary(), 0], |row| {
                check_numbers("potential", row.potentials)?;
                check_numbers("loss", row.losses)?;
                for i in 0..structure.variables() {
                    let block = structure.block(i).ok_or(Error::Coupled { estimator: "direct with rao-blackwell" })?;
                    let gradient = &mut row.gradient[block.clone()];
                    let work = [&mut row.work.first[block.clone()], &mut row.work.second[block.clone()]];
                    let (h, losses) = (&row.potentials[block.clone()], &row.losses[block]);
                    self.0.expectation(h, losses, scale, gradient, work);
                }
                Ok(None)
            })?;
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }
}
