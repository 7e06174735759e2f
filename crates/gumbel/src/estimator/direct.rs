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
//! **The KL inside.** Direct optimisation of the whole bound: the loss of a state is `loss(z) + kl (ln q(z) - ln
//! p(z))`, and as p is uniform, its second arg max is that of
//!
//! ```text
//! z(eps)  = argmax_z { (1 - eps kl) h(z) + gamma(z) - eps loss(z) }
//! ```
//!
//! with the same noise. As eps falls this is the gradient of the bound; at eps = 1 and kl = 1 the second arg max is a
//! sample of the posterior, and the step is that of [`Marginal`](super::Marginal): between, a path from the reverse to
//! the forward divergence. (The gradient of the KL *added* to a step at eps near 1 counts the pull towards the
//! posterior twice.) It needs no sums: where the Gibbs distribution has none, this is how the KL comes in. If every
//! value of every variable has noise, the entropy of the perturbed arg max is at most `E[sum of gamma over the unary
//! statistics of z*]`, with gamma of mean zero (equal for independent variables), and the derivative of this is that of
//! `-E[<h, s(z*)>]` with h held fast: the term that is minimised is then a lower bound of the KL.
//!
//! - Cost in decoder evaluations: z* and its neighbours, without gradient; one backward pass, for the decoder.
//! - Bias: of order eps; with both sides, `(s(z(-eps)) - s(z(eps))) / (2 eps)`, of order eps². For one K-way variable
//!   the expectation is known: `(softmax(h) - softmax(h - eps loss)) / eps` ([`Direct::expectation`]).
//! - Variance: of order 1 / eps.
//! - Rao-Blackwellised, for independent variables: the expectation over a variable's own noise given the others'
//!   values, in closed form, with no further decoder evaluation. For one variable nothing random is left. For coupled
//!   ones: over the noise of each variable given that of the others (`estimator/coupled.rs`), with at most as many
//!   evaluations.
//!
//! **An epsilon that is held** (`zero-gradient-target`): the share of draws whose two arg maxima coincide falls as eps
//! grows. After every batch `ln eps` moves by `epsilon-gain` times (share - target), from where the schedule begins:
//! the target says how many draws are to teach nothing, whatever the scale of the losses. It is of the batches before,
//! so that a draw has no part in its own eps. What eps is stands in the metrics as `adaptive_epsilon`.
//!
//! References: the paper; for the entropy, Maji, Hazan, Jaakkola, "Active boundary annotation using random MAP
//! perturbations", AISTATS 2014.

use super::measure::{ADAPTIVE_EPSILON, Measure, ZERO_GRADIENT_RATE};
use super::piece::Row;
use super::registry::{EPSILON, EstimatorEntry, PAPER};
use super::{
    Chosen, DirectJoint, Estimator, Flips, KlTerm, Moment, Perturbation, Piece, Search, difference, enumerable,
};
use crate::Error;
use crate::error::check_len;
use crate::math::softmax_in_place;
use crate::oracle::{Oracle, Questions};
use crate::registry::{Kind, Setting, Settings};
use crate::schedule::Annealing;
use crate::structure::{AnyStructure, Code, Structure, add, check_numbers};

/// Differences to both sides.
pub(super) const TWO_SIDED: Setting = Setting {
    name: "two-sided",
    kind: Kind::Switch,
    default: "false",
    value: "BOOL",
    help: "differences to both sides, with a bias of the second order",
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
    kind: Kind::Choice(&["off", "search", "flips", "exact"]),
    default: "off",
    value: "NAME",
    help: "how the second arg max is found: off, with the separable approximation of the loss around the sample; \
           search, from the sample by changes that slopes propose and the true loss accepts; flips, by the best single \
           change again and again; exact, with the loss of every state (up to 32768)",
};
/// Of direct: how long the search may go on.
const ROUNDS: Setting = Setting {
    name: "rounds",
    kind: Kind::Whole(0, 1000),
    default: "8",
    value: "N",
    help: "with joint = search: most proposals that are accepted; 0, with rao-blackwell, needs the slopes at the \
           sample alone",
};
/// Of direct: what a search begins with.
const FIRST: Setting = Setting {
    name: "first",
    kind: Kind::Choice(&["slopes", "changes"]),
    default: "slopes",
    value: "NAME",
    help: "with joint = search: what the first proposals are made from: slopes at the sample, two decoder passes for \
           any latent; changes, the losses of all its single changes",
};
/// Of direct: how far a proposal shrinks.
const HALVINGS: Setting = Setting {
    name: "halvings",
    kind: Kind::Whole(0, 64),
    default: "64",
    value: "N",
    help: "with joint = search: most times that a refused proposal is tried again with half of its changes",
};
/// Of direct: what is perturbed.
const NOISE: Setting = Setting {
    name: "noise",
    kind: Kind::Choice(&["unary", "full"]),
    default: "unary",
    value: "NAME",
    help: "what is perturbed: unary potentials, or full, every state, with joint = exact",
};

/// Of direct: what epsilon is moved for.
const TARGET: Setting = Setting {
    name: "zero-gradient-target",
    kind: Kind::Real(|v| v == 0.0 || is_share(v as f32), "0, or a number greater than 0 and less than 1"),
    default: "0",
    value: "X",
    help: "share of draws with a gradient of zero that epsilon is moved to hold, from where its schedule begins; 0: \
           epsilon follows the schedule",
};
/// Of direct: how fast that is.
const GAIN: Setting = Setting {
    name: "epsilon-gain",
    kind: Kind::Real(|v| is_gain(v as f32), "a number greater than 0 and at most 1"),
    default: "0.02",
    value: "X",
    help: "with zero-gradient-target: how far ln epsilon moves in a step, for each unit of the share's distance from \
           its target",
};

const OWN: [Setting; 9] = [TWO_SIDED, RAO_BLACKWELL, JOINT, FIRST, ROUNDS, HALVINGS, NOISE, TARGET, GAIN];

/// Where an epsilon that is held stays.
const HELD: std::ops::RangeInclusive<f32> = 1e-4..=1e4;

fn is_share(target: f32) -> bool {
    target > 0.0 && target < 1.0
}

fn is_gain(gain: f32) -> bool {
    gain > 0.0 && gain <= 1.0
}

/// Direct optimisation in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new("direct", "direct optimisation through arg max", build)
        .with_settings(EPSILON.settings.into_iter().chain(OWN))
        .with_schedules(&[EPSILON])
        .with_costs(
            "z* and its one-coordinate changes, coupled and Rao-Blackwellised as many other states; search: 2, 1 for \
             each proposal, 2 for each accepted; exact: all states",
            "1",
        )
        .with_quality(
            "of order epsilon (two-sided: epsilon²), of the separable approximation's loss, Rao-Blackwellised of the \
             true one; with kl = on of the whole bound",
            "grows like 1 / epsilon; Rao-Blackwellised smaller, zero for one variable",
        )
        .with_paper_samples(PAPER)
        .with_auto(&["epsilon", "epsilon-min", "joint", "first", "rounds", "rao-blackwell", "samples"], auto)
}

/// Single changes of independent variables up to which all of them are asked about.
const FEW: usize = 64;
/// Those of coupled variables up to which all are asked about; independent ones so few bear a larger epsilon.
const FEWEST: usize = 24;

/// What is best for a latent, as experiments/ablation.sh found; docs/ablation.md has the tables.
///
/// For one variable the expectation of the step at epsilon 1, towards the posterior; for independent ones the
/// conditional expectation at an epsilon that falls with their number, from the losses of single changes or, where
/// these are many, from slopes (not so many without the KL, where a small epsilon leads into a plateau, have the
/// search); for coupled ones with values the conditional expectation from max-marginals, while there are not too many;
/// for all others, and for who sets what only a search has, the search, from all single changes where these are few,
/// with two samples where they are many.
fn auto(structure: &AnyStructure, chosen: &Chosen<'_>) -> Vec<(&'static str, String)> {
    let is = |name: &str, value: &str| chosen(name) == Some(value);
    let changes = structure.code().changes(structure.unary());
    // Where nothing is drawn, nothing coincides.
    let held = chosen(TARGET.name).is_some_and(|target| target.parse() != Ok(0.0));
    let special = is("two-sided", "true") || is("noise", "full") || is("joint", "flips") || is("joint", "exact");
    let (independent, single) = (structure.is_independent(), structure.variables() == 1);
    let few = changes <= if independent { FEW } else { FEWEST };
    let rows = !independent && structure.code() != Code::Indicators; // coupled, each with a noise of its own
    // The exact gradient of the KL wants a fair estimate of the other term beside it, one that is alive everywhere.
    let beside = single && is("kl", "added");
    let inside = chosen("kl").is_none_or(|kl| kl == "on"); // from the first step
    let off = is("kl", "off");
    let wanted = || ["first", "rounds", "halvings"].into_iter().any(|name| chosen(name).is_some());
    let search = is("joint", "search") || chosen("joint").is_none() && structure.has_moves() && wanted();
    let rao = match chosen("rao-blackwell") {
        Some(value) => value == "true",
        None if rows => changes <= FEW && (inside || off) && !special && !held && !search,
        None => {
            independent
                && !special
                && !held
                && !beside
                && (changes > if off { FEW } else { FEWEST } || single || inside)
                && !(search && (few || single || is("first", "changes")))
        }
    };
    let joint = match chosen("joint") {
        Some(joint) => joint,
        None if special || (rao || held || beside) && single && !search || rao && (few || rows) => "off",
        None if rao || structure.has_moves() => "search",
        None => "off",
    };
    let first = if few && !rao { "changes" } else { "slopes" };
    let rounds = match (joint, rao, first) {
        ("search", true, _) => "0",
        // The first round has most of the gain, and costs little more than the separable approximation.
        ("search", _, "changes") => "1",
        _ => "8",
    };
    let (epsilon, least) = match () {
        () if beside => ("0.1", "0.1"),
        // A value that is nearly unused is alive only at a large epsilon.
        () if single => ("1", "1"),
        () if rao && joint == "search" => ("0.003", "0.003"),
        // Without the KL a small one may end on the plateau of the exact gradient.
        () if rao && rows && off => ("0.3", "0.3"),
        () if rao && rows && changes > FEWEST => ("0.03", "0.03"),
        () if rao && changes > FEWEST && !off => ("0.01", "0.01"),
        () if rao => ("0.1", "0.1"),
        () if joint == "search" && is("kl", "added") => ("0.1", "0.1"),
        // With the KL inside, a large one leaves nothing of the potentials.
        () if joint == "search" && !off => ("0.3", "0.3"),
        () => ("1", "0.1"),
    };
    let least = if chosen("epsilon").is_none() { least } else { "0.1" };
    let samples = if joint == "search" && !independent && changes > FEWEST { "2" } else { "1" };
    let all = [
        ("epsilon", epsilon),
        ("epsilon-min", least),
        ("joint", joint),
        ("first", first),
        ("rounds", rounds),
        ("rao-blackwell", if rao { "true" } else { "false" }),
        ("samples", samples),
    ];
    all.map(|(name, value)| (name, value.to_string())).into()
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
        signed: !structure.takes_any_sign(),
        ..Direct::new(schedule.at(0))?
    };
    match structure.is_independent() {
        false if rao && structure.code() == Code::Indicators => {
            return refused(
                "rao-blackwell",
                "false for a latent that is not made of variables with values of their own",
            );
        }
        false if rao && joint == "search" => {
            return refused("joint", "off with rao-blackwell = true, for variables that are not independent");
        }
        _ => {}
    }
    let direct = match settings.real(TARGET.name) as f32 {
        0.0 => direct,
        _ if rao => return refused(TARGET.name, "0 with rao-blackwell = true, where no two arg maxima are compared"),
        target => direct.holding(target, settings.real(GAIN.name) as f32)?,
    };
    if full || joint == "exact" {
        enumerable(structure)?;
    }
    let rounds = settings.whole("rounds") as u32;
    // What only a search has is not passed over where there is none.
    for setting in [ROUNDS, HALVINGS] {
        if joint != "search" && settings.get(setting.name).is_some_and(|v| v.to_string() != setting.default) {
            return refused(setting.name, &format!("{}, or another number with joint = search", setting.default));
        }
    }
    match joint {
        "exact" if rao => refused("joint", "off or search with rao-blackwell = true"),
        "exact" => {
            let perturbation = if full { Perturbation::Full } else { Perturbation::Unary };
            Ok(Box::new(DirectJoint::new(direct, perturbation)))
        }
        _ if full => refused("noise", "unary, or full with joint = exact"),
        "off" if rao => Ok(Box::new(direct.rao_blackwell())),
        "off" => Ok(Box::new(direct)),
        _ if two => refused("joint", "off or exact with two-sided = true"),
        "flips" if rao => refused("joint", "off or search with rao-blackwell = true"),
        "flips" if structure.code() == Code::Indicators => refused(
            "joint",
            "off, search or exact: flips change one variable at a time, which leaves this latent's states",
        ),
        "flips" => Ok(Box::new(Flips::new(direct))),
        _ if !structure.has_moves() => refused("joint", "off or exact: this latent lists no moves for a search"),
        _ if rao && settings.text("first") == "changes" => refused("first", "slopes with rao-blackwell = true"),
        _ if rounds == 0 && !rao => refused("rounds", "at least 1, or rao-blackwell = true"),
        _ => {
            let search = Search::new(direct).rounds(rounds).halvings(settings.whole("halvings") as u32);
            let search = if settings.text("first") == "changes" { search.from_changes() } else { search };
            Ok(Box::new(if rao { search.rao_blackwell() } else { search }))
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
    /// Whether the potentials may not be scaled by a negative number.
    signed: bool,
    held: Option<Held>,
}

/// What epsilon is moved for, and how fast; see the head of this file.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    target: f32,
    gain: f32,
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
        Ok(Direct { epsilon, sides: Sides::One, kl: 0.0, schedule: None, signed: false, held: None })
    }

    /// epsilon, in units of 1 / nat.
    pub fn epsilon(&self) -> f32 {
        self.epsilon
    }

    /// What the potentials are multiplied by in the arg max whose loss is shifted by `shift` times itself: `1 + shift
    /// kl`, as the loss has `kl` times the potentials in it.
    pub fn keep(&self, shift: f32) -> f32 {
        1.0 + shift * self.kl
    }

    /// Weight of the KL term.
    pub(super) fn kl_weight(&self) -> f32 {
        self.kl
    }

    /// Whether it is one-sided or two-sided.
    pub fn sided(&self) -> Sides {
        self.sides
    }

    /// Chooses one-sided or two-sided differences.
    pub fn sides(self, sides: Sides) -> Self {
        Direct { sides, ..self }
    }

    /// Takes `weight` times the KL into the loss, `weight` >= 0 (see the head of this file).
    pub fn with_kl(self, weight: f32) -> Self {
        Direct { kl: weight, ..self }
    }

    /// Moves epsilon after every batch, so that the share of draws whose two arg maxima coincide is held at `target`,
    /// greater than 0 and less than 1; `gain`, greater than 0 and at most 1, is how far `ln epsilon` moves for each
    /// unit of the distance. [`Estimator::learn`] does it; the conditional expectations have no such share, and hold
    /// nothing.
    ///
    /// # Errors
    /// Other values, an epsilon that is not within 0.0001 and 10000, where it stays.
    pub fn holding(self, target: f32, gain: f32) -> Result<Self, Error> {
        if !is_share(target) {
            return Err(Error::setting(TARGET.name, target, "a number greater than 0 and less than 1"));
        }
        if !is_gain(gain) {
            return Err(Error::setting(GAIN.name, gain, "a number greater than 0 and at most 1"));
        }
        if !HELD.contains(&self.epsilon) {
            let expected = format!("{} to {} with {}", HELD.start(), HELD.end(), TARGET.name);
            return Err(Error::setting("epsilon", self.epsilon, expected));
        }
        Ok(Direct { held: Some(Held { target, gain }), ..self })
    }

    /// Shifts of the loss of the two arg maxima, `from - to` their distance: `(0, -eps)` or `(eps, -eps)`.
    pub(super) fn shifts(&self) -> (f32, f32) {
        match self.sides {
            Sides::One => (0.0, -self.epsilon),
            Sides::Two => (self.epsilon, -self.epsilon),
        }
    }

    /// The same with an epsilon that nothing moves.
    pub(super) fn without_held(self) -> Self {
        Direct { held: None, ..self }
    }

    /// The Rao-Blackwellised estimator with the same settings.
    pub fn rao_blackwell(self) -> DirectExpectation {
        DirectExpectation(self.without_held())
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
            let keep = self.keep(shift);
            let all = q.iter_mut().zip(potentials).zip(losses);
            all.for_each(|((q, h), l)| *q = scaled(*h, keep) + shift * (l - least));
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
            self.kl = moment.kl_weight;
            match self.held {
                // It has its own way, as far as the couplings let it.
                Some(_) if self.signed && self.kl > 0.0 => {
                    self.epsilon = self.epsilon.min((1.0 - f32::EPSILON) / self.kl);
                }
                Some(_) => {}
                None => self.epsilon = schedule.at(moment.step),
            }
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

    /// Those of some measures that are taken: the last one is of an epsilon that is held.
    pub(super) fn measured(&self, all: &'static [Measure]) -> &'static [Measure] {
        if self.held.is_some() { all } else { &all[..all.len() - 1] }
    }

    /// Counts draws whose two arg maxima coincide, for the first measure, and to learn from; the epsilon that is
    /// held for the one at the place `last`.
    pub(super) fn count<S: Structure>(&self, piece: &mut Piece<'_, S>, same: usize, asked: usize, last: usize) {
        let (same, asked) = (same as f64, asked as f64);
        piece.tallies[0].add(same, asked);
        if self.held.is_some() {
            piece.tallies[last].add(self.epsilon as f64 * asked, asked);
            piece.sums[0] += same as f32;
            piece.sums[1] += asked as f32;
        }
    }

    /// [`Estimator::sums`] of all that count.
    pub(super) fn counts(&self) -> usize {
        if self.held.is_some() { 2 } else { 0 }
    }

    /// [`Estimator::learn`] of all that count.
    pub(super) fn adapt(&mut self, sums: &[f32]) {
        if let (Some(held), &[same, asked]) = (self.held, sums)
            && asked > 0.0
        {
            let epsilon = self.epsilon * (held.gain * (same / asked - held.target)).exp();
            self.epsilon = epsilon.clamp(*HELD.start(), *HELD.end());
        }
    }

    /// [`Estimator::state`] of all that count.
    pub(super) fn held(&self) -> Vec<f32> {
        self.held.map_or(vec![], |_| vec![self.epsilon])
    }

    /// [`Estimator::restore`] of all that count.
    ///
    /// # Errors
    /// Another length, an epsilon where none is held.
    pub(super) fn put_back(&mut self, state: &[f32]) -> Result<(), Error> {
        check_len("the state of epsilon", state.len(), self.counts() / 2)?;
        if let &[epsilon] = state {
            if !HELD.contains(&epsilon) {
                let expected = format!("{} to {}, where {} holds it", HELD.start(), HELD.end(), TARGET.name);
                return Err(Error::range("epsilon", epsilon, expected));
            }
            self.epsilon = epsilon;
        }
        Ok(())
    }

    /// How much larger than that of z* the loss of each value of one variable may be for it to be z(eps): the distance
    /// of the scores in units of the loss, and what rounding may add to it.
    fn slack<S: Structure>(&self, row: &mut Row<'_, S>) {
        let (_, ahead) = self.shifts();
        let keep = self.keep(ahead);
        let score = |k: usize| scaled(row.potentials[k], keep) + row.noise[k];
        let best = row.assignment[0] as usize;
        let own = score(best);
        for (k, slack) in row.weights.iter_mut().enumerate().filter(|(k, _)| *k != best) {
            let score = score(k);
            *slack = match score == f32::NEG_INFINITY {
                true => score,
                false => (score - own + 1e-6 * (score.abs() + own.abs())) / -ahead,
            };
        }
        row.weights[best] = 0.0;
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
                let keep = self.keep(shift);
                perturbed.iter_mut().for_each(|h| *h = scaled(*h, keep));
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

/// `keep` times a potential; what is forbidden stays forbidden.
#[inline(always)]
pub(super) fn scaled(potential: f32, keep: f32) -> f32 {
    if potential == f32::NEG_INFINITY { potential } else { keep * potential }
}

const MEASURED: [Measure; 2] = [ZERO_GRADIENT_RATE, ADAPTIVE_EPSILON];

impl<S: Structure> Estimator<S> for Direct {
    fn questions(&self, _: &S) -> Questions {
        Questions::AROUND
    }

    fn kl(&self, _: &S) -> KlTerm {
        KlTerm::Either
    }

    fn measures(&self) -> &'static [Measure] {
        self.measured(&MEASURED)
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.set(moment)
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, scale) = (piece.structure, piece.scale);
        let u = structure.unary();
        // Of one variable all that counts is which value is the best.
        let least = structure.is_single() && self.sides == Sides::One && oracle.leaves_out();
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            if least {
                piece.each(sample, [0, u], |row| {
                    self.slack(row);
                    Ok(None)
                })?;
                piece.ask_least(oracle)?;
            } else {
                piece.ask_around(oracle)?;
            }
            let count = piece.each(sample, [u, 0], |row| self.example(structure, row, scale).map(Some))?;
            self.count(piece, count.same, count.asked, 1);
            piece.follow_sample(sample, oracle)?;
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        self.counts()
    }

    fn learn(&mut self, sums: &[f32]) {
        self.adapt(sums);
    }

    fn state(&self) -> Vec<f32> {
        self.held()
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        self.put_back(state)
    }
}

/// Direct optimisation, Rao-Blackwellised: [`Direct::expectation`] in each coordinate given the sampled others, for
/// independent variables; for coupled ones of one-hot rows the expectation over the noise of each variable given that
/// of the others, from the [max-marginals](crate::structure::Structure::max_marginals) of z*.
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
    fn questions(&self, structure: &S) -> Questions {
        if structure.is_independent() { Questions::AROUND } else { Questions::SEVERAL }
    }

    fn kl(&self, _: &S) -> KlTerm {
        KlTerm::Either
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.0.set(moment)
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, scale) = (piece.structure, piece.scale);
        if !structure.is_independent() {
            return super::coupled::estimate(&self.0, piece, oracle);
        }
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
