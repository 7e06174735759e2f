//! Direct optimisation whose second arg max is found by a local search that slopes guide.
//!
//! ```text
//! z(eps) ~ argmax_z { (1 - eps kl) h(z) + gamma(z) - eps loss(z) }
//! ```
//!
//! The search starts from z*. One question about the slopes of the loss in the code gives the first-order change of the
//! objective for every [single change](Structure::moves) at once. All changes that gain are proposed together, best
//! first; if the true objective is no better, the best half of them, or fewer where the loss curves more, down to one;
//! the first proposal that is better is accepted, and the search goes on from there. The true objective rises with
//! every acceptance, so that z(eps) is never worse than z*.
//!
//! **The conditional expectation** ([`rao_blackwell`](Search::rao_blackwell)), for independent variables: in place of
//! the sampled difference its expectation over each variable's own noise, with the slopes where the search ended for
//! the losses of single changes. A slope sees a convex loss from one side and finds every change too cheap. So it is
//! taken about half way between the variable's distribution `q_i` and its present value `D_i`:
//!
//! ```text
//! T_p = (p - softmax(ln p - eps slopes)) / eps
//! estimate = 2 T_p - T_q / 2,  p = (q_i + D_i) / 2
//! ```
//!
//! which as eps falls is ReinMax, exact for losses that are quadratic in each variable. Without rounds it needs the
//! slopes at z* and nothing else: two passes for any number of variables.
//!
//! - Cost in decoder passes, without gradient: two for z* and each acceptance, one for each proposal. One backward
//!   pass, for the decoder.
//! - Bias: of order eps, and of the state that the search ends in, where no proposal is better, which is not to say
//!   that it is the arg max. Variance: of order 1 / eps; of the expectation: of order 1.
//!
//! References: best-improvement local search, Besag, "On the statistical analysis of dirty pictures", JRSS B 1986;
//! gains of all changes from one gradient, Grathwohl, Swersky, Hashemi, Duvenaud, Maddison, "Oops I took a gradient",
//! ICML 2021; the trapezoid, Liu, Dong, Liu, Gao, Yu, Chen, Zhang, "Bridging discrete and backpropagation", NeurIPS
//! 2023.

use super::direct::scaled;
use super::measure::{ADAPTIVE_EPSILON, Measure, ROUNDING, ZERO_GRADIENT_RATE};
use super::piece::{Memory, room};
use super::{Direct, Estimator, KlTerm, Moment, Piece, Sides, difference, independent};
use crate::Error;
use crate::math::softmax_in_place;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Move, Structure, add, check_numbers};

/// Direct optimisation with a local search for z(eps), guided by slopes.
///
/// ```
/// use gumbel::estimator::{Direct, Search, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::binary(2)?;
/// // Either change helps, both together do not: the separable approximation takes both.
/// let loss = |_: usize, code: &[f32]| 5.0 * (code[1] + code[3] - 1.0).powi(2);
/// let search = Search::new(Direct::new(1.0)?);
/// let found = estimate(&search, &latent, &[0.1, 0.0, 0.0, 0.2], &[0.0; 4], &mut Closure::new(&latent, loss))?;
/// assert_eq!(found.gradient, [0.0; 4]); // z* = (0, 1) is the best already
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    direct: Direct,
    rounds: u32,
    halvings: u32,
    expectation: bool,
    changes: bool,
}

impl Search {
    /// Rounds where nothing else is said.
    pub const ROUNDS: u32 = 8;

    /// With the epsilon and the KL of `direct`, one-sided.
    pub fn new(direct: Direct) -> Self {
        Search {
            direct: direct.sides(Sides::One),
            rounds: Self::ROUNDS,
            halvings: u32::MAX,
            expectation: false,
            changes: false,
        }
    }

    /// At most so many acceptances.
    pub fn rounds(self, rounds: u32) -> Self {
        Search { rounds, ..self }
    }

    /// At most so many smaller proposals after one that was refused.
    pub fn halvings(self, halvings: u32) -> Self {
        Search { halvings, ..self }
    }

    /// The first proposals are made from the losses of all single changes of z* in place of slopes: `n (K - 1) + 1`
    /// passes in place of two, for few variables. Then a z* that no change improves stays. Not with
    /// [`rao_blackwell`](Search::rao_blackwell), which takes slopes: the last of the two is what counts.
    pub fn from_changes(self) -> Self {
        Search { changes: true, expectation: false, ..self }
    }

    /// The conditional expectation of the difference in place of a sample, from slopes; for independent variables. It
    /// compares no two arg maxima: an epsilon that is held stays where it is.
    pub fn rao_blackwell(self) -> Self {
        Search { expectation: true, changes: false, direct: self.direct.without_held(), ..self }
    }

    /// `(1 - eps kl) h + gamma - eps loss` of an assignment.
    fn value<S: Structure>(&self, structure: &S, potentials: &[f32], z: &[u32], loss: f32) -> f64 {
        structure.score(potentials, z) - (self.direct.epsilon() * loss) as f64
    }

    /// Proposes the first `climb.take` of its moves.
    fn propose<S: Structure>(structure: &S, climb: &mut Climb) {
        climb.next.copy_from_slice(&climb.z);
        for change in &climb.moves[..climb.take] {
            structure.make(*change, &mut climb.next);
        }
    }

    /// Lists the moves from where a climb stands, given the slopes there.
    fn list<S: Structure>(&self, structure: &S, climb: &mut Climb) {
        climb.linear.copy_from_slice(&climb.potentials);
        add(&mut climb.linear[..climb.slopes.len()], &climb.slopes, -self.direct.epsilon());
        climb.moves.clear();
        structure.moves(&climb.linear, &climb.z, &mut climb.moves);
        climb.moves.sort_unstable_by(|a, b| b.gain.total_cmp(&a.gain).then(a.place.cmp(&b.place)));
        climb.take = climb.moves.iter().filter(|m| m.gain > 0.0).count();
        climb.refused = 0;
    }

    /// Where a climb stands: its loss, and the slopes there, or the losses of the changes around it, which stand for
    /// them.
    fn stand<S: Structure>(&self, structure: &S, climb: &mut Climb, loss: f32, slopes: &[f32]) -> Result<(), Error> {
        check_numbers("loss", &[loss])?;
        check_numbers("slope", slopes)?;
        if climb.rounds == 0 {
            climb.value = self.value(structure, &climb.potentials, &climb.z, loss);
        }
        climb.slopes.copy_from_slice(slopes);
        climb.asks = Asks::Nothing;
        if climb.rounds < self.rounds {
            self.list(structure, climb);
            climb.asks = if climb.take > 0 { Asks::Loss } else { Asks::Nothing };
        }
        Ok(())
    }

    /// Accepts a proposal that is better, or makes it smaller.
    fn judge<S: Structure>(&self, structure: &S, climb: &mut Climb, loss: f32) -> bool {
        let gained = self.value(structure, &climb.potentials, &climb.next, loss) - climb.value;
        if gained > ROUNDING {
            climb.z.copy_from_slice(&climb.next);
            climb.value += gained;
            climb.gain += gained;
            climb.rounds += 1;
            climb.asks = Asks::Slopes;
            return true;
        }
        climb.refused += 1;
        // Of a share t of these changes the gain is about t first - t^2 (first - gained): best at this share, and above
        // zero up to twice as much.
        let first: f64 = climb.moves[..climb.take].iter().map(|m| m.gain as f64).sum();
        let share = if gained.is_finite() { 0.75 * first / (first - gained) } else { 1.0 };
        let (mut take, mut sum) = (0, 0.0);
        while take < climb.take / 2 && sum < share * first {
            sum += climb.moves[take].gain as f64;
            take += 1;
        }
        climb.take = if climb.refused > self.halvings { 0 } else { take };
        false
    }

    /// Adds the conditional expectation of the estimate.
    fn expectation<S: Structure>(
        &self,
        structure: &S,
        (climb, potentials): (&Climb, &[f32]),
        scale: f32,
        gradient: &mut [f32],
        [first, second, third]: [&mut [f32]; 3],
    ) -> Result<(), Error> {
        let eps = self.direct.epsilon();
        let keep = self.direct.keep(-eps);
        for (i, present) in climb.z.iter().enumerate() {
            let block = structure.block(i).ok_or(Error::Coupled { estimator: "direct with rao-blackwell" })?;
            let (h, slopes, gradient) =
                (&potentials[block.clone()], &climb.slopes[block.clone()], &mut gradient[block.clone()]);
            let (q, tilted) = (&mut first[..h.len()], &mut second[..h.len()]);
            // The part of the KL.
            let softmax = |keep: f32, out: &mut [f32]| {
                out.iter_mut().zip(h).for_each(|(out, h)| *out = scaled(*h, keep));
                softmax_in_place(out);
            };
            softmax(1.0, q);
            if keep != 1.0 {
                softmax(keep, tilted);
                difference(q, tilted);
                add(gradient, q, scale / eps);
                q.copy_from_slice(tilted);
            }
            let mut tilt = |p: &mut [f32], weight: f32| {
                // A constant added to the slopes of a variable changes nothing.
                let possible = p.iter().zip(slopes).filter(|(p, _)| **p > 0.0).map(|(_, s)| *s);
                let least = possible.fold(f32::INFINITY, f32::min);
                let of = |p: f32, s: f32| if p > 0.0 { p * (-eps * (s - least)).exp() } else { 0.0 };
                let total: f32 = p.iter().zip(slopes).map(|(p, s)| of(*p, *s)).sum();
                tilted.iter_mut().zip(&*p).zip(slopes).for_each(|((out, p), s)| *out = of(*p, *s) / total);
                difference(p, tilted);
                add(gradient, p, weight * scale / eps);
            };
            let between = &mut third[..h.len()];
            between.iter_mut().zip(&*q).for_each(|(b, q)| *b = q / 2.0);
            between[*present as usize] += 0.5;
            tilt(between, 2.0);
            tilt(q, -0.5);
        }
        Ok(())
    }
}

/// What a climb asks about next.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Asks {
    #[default]
    Slopes,
    Changes,
    Loss,
    Nothing,
}

/// One example's search.
#[derive(Debug, Default, Clone)]
pub(super) struct Climb {
    /// `(1 - eps kl) h + gamma` `[P]`, and the same less eps times the slopes.
    potentials: Vec<f32>,
    linear: Vec<f32>,
    /// Where it stands, and what it proposes.
    z: Vec<u32>,
    next: Vec<u32>,
    /// The objective there.
    value: f64,
    /// Slopes there `[U]`.
    slopes: Vec<f32>,
    /// Changes that gain, best first; how many of them it proposes, and how often that was refused.
    moves: Vec<Move>,
    take: usize,
    refused: u32,
    rounds: u32,
    gain: f64,
    asks: Asks,
}

impl Climb {
    /// Begins at z*.
    fn begin(&mut self, [potentials, noise]: [&[f32]; 2], star: &[u32], keep: f32, asks: Asks) {
        let (p, u, n) = (potentials.len(), noise.len(), star.len());
        room(&mut self.potentials, p).iter_mut().zip(potentials).for_each(|(out, h)| *out = scaled(*h, keep));
        add(&mut self.potentials[..u], noise, 1.0);
        room(&mut self.linear, p);
        room(&mut self.slopes, u);
        room(&mut self.z, n).copy_from_slice(star);
        room(&mut self.next, n);
        // No place has two moves.
        self.moves.clear();
        self.moves.reserve(u.max(n));
        (self.value, self.gain, self.rounds, self.asks) = (0.0, 0.0, 0, asks);
    }
}

const MEASURED: [Measure; 5] = [
    ZERO_GRADIENT_RATE,
    Measure { name: "search_rows", help: "decoder passes of a search, slopes being two", always: false },
    Measure { name: "search_acceptance", help: "share of proposals that were better", always: false },
    Measure { name: "search_gain", help: "mean of the objective of z(eps) less that of z*, in nats", always: false },
    ADAPTIVE_EPSILON,
];

impl<S: Structure> Estimator<S> for Search {
    fn questions(&self, _: &S) -> Questions {
        let asked = Questions::SLOPES.and(Questions::LOSSES);
        if self.changes { asked.and(Questions::AROUND) } else { asked }
    }

    fn kl(&self, _: &S) -> KlTerm {
        KlTerm::Either
    }

    fn measures(&self) -> &'static [Measure] {
        if self.expectation { &MEASURED[1..MEASURED.len() - 1] } else { self.direct.measured(&MEASURED) }
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        self.direct.set(moment)
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        if self.expectation {
            independent(piece.structure, "direct with rao-blackwell")?;
        }
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            piece.follow_sample(sample, oracle)?;
            self.climb(piece, sample, oracle)?;
            self.add(piece)?;
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

impl Search {
    /// Searches from z* of the last draw, for all examples together.
    fn climb<S: Structure>(
        &self,
        piece: &mut Piece<'_, S>,
        sample: usize,
        oracle: &mut dyn Oracle,
    ) -> Result<(), Error> {
        let (structure, count, first) = (piece.structure, piece.count(), piece.first);
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let keep = self.direct.keep(-self.direct.epsilon());
        let begin = if self.changes { Asks::Changes } else { Asks::Slopes };
        let Memory { assignments, losses, active, compact, codes, answers, climbs, .. } = &mut *piece.memory;
        climbs.resize_with(count.max(climbs.len()), Climb::default);
        for (b, climb) in climbs[..count].iter_mut().enumerate() {
            let potentials = &piece.potentials[b * p..][..p];
            check_numbers("potential", potentials).map_err(|e| e.in_example(first + b))?;
            let noise = piece.noise.of(sample, b);
            climb.begin([potentials, noise], &assignments[b * n..][..n], keep, begin);
        }
        // Room for all, so that no later step needs more.
        let (slopes, codes) = (room(losses, count * u), room(codes, count * u));
        let (answers, compact) = (room(answers, count), room(compact, count * n));
        let (mut rows, mut accepted, mut proposed) = (0, 0, 0);
        loop {
            let asking = |climbs: &[Climb], what: Asks, active: &mut Vec<u32>| {
                active.clear();
                active.extend(piece.of.iter().copied().filter(|b| climbs[*b as usize].asks == what));
                active.len()
            };
            let asked = asking(climbs, Asks::Changes, active);
            if asked > 0 {
                for (z, b) in compact.chunks_exact_mut(n).zip(&*active) {
                    z.copy_from_slice(&climbs[*b as usize].z);
                }
                let (own, around) = (&mut answers[..asked], &mut slopes[..asked * u]);
                oracle.around(active, &compact[..asked * n], own, around)?;
                for ((b, loss), around) in active.iter().zip(own).zip(around.chunks_exact(u)) {
                    self.stand(structure, &mut climbs[*b as usize], *loss, around)
                        .map_err(|e| e.in_example(first + *b as usize))?;
                }
            }
            rows += asked * (1 + structure.code().changes(u));
            let asked = asking(climbs, Asks::Slopes, active);
            if asked > 0 {
                for (code, b) in codes.chunks_exact_mut(u).zip(&*active) {
                    structure.encode(&climbs[*b as usize].z, code);
                }
                let (own, slopes) = (&mut answers[..asked], &mut slopes[..asked * u]);
                oracle.slopes(active, &codes[..asked * u], own, slopes)?;
                for ((b, loss), slopes) in active.iter().zip(own).zip(slopes.chunks_exact(u)) {
                    self.stand(structure, &mut climbs[*b as usize], *loss, slopes)
                        .map_err(|e| e.in_example(first + *b as usize))?;
                }
            }
            rows += 2 * asked;
            let asked = asking(climbs, Asks::Loss, active);
            if asked == 0 {
                break;
            }
            for (z, b) in compact.chunks_exact_mut(n).zip(&*active) {
                let climb = &mut climbs[*b as usize];
                Search::propose(structure, climb);
                z.copy_from_slice(&climb.next);
            }
            oracle.losses(active, &compact[..asked * n], &mut answers[..asked])?;
            for (b, loss) in active.iter().zip(&*answers) {
                let climb = &mut climbs[*b as usize];
                check_numbers("loss", &[*loss]).map_err(|e| e.in_example(first + *b as usize))?;
                if self.judge(structure, climb, *loss) {
                    accepted += 1;
                    // The last acceptance needs no slopes, but for an expectation there.
                    if climb.rounds == self.rounds && !self.expectation {
                        climb.asks = Asks::Nothing;
                    }
                } else if climb.take == 0 {
                    climb.asks = Asks::Nothing;
                }
            }
            (rows, proposed) = (rows + asked, proposed + asked);
        }
        let [searched, proposals, ..] = &mut piece.tallies[self.first_measure()..] else { return Ok(()) };
        searched.add(rows as f64, count as f64);
        proposals.add(accepted as f64, proposed as f64);
        Ok(())
    }

    /// The place of what a search measures: behind the share of equal arg maxima, of which an expectation has none.
    fn first_measure(&self) -> usize {
        usize::from(!self.expectation)
    }

    /// Adds the estimates, given where the searches ended.
    fn add<S: Structure>(&self, piece: &mut Piece<'_, S>) -> Result<(), Error> {
        let (structure, count, first) = (piece.structure, piece.count(), piece.first);
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let Memory { assignments, climbs, moved, codes, .. } = &mut *piece.memory;
        let work = room(codes, 3 * u);
        let moved = room(moved, count * n);
        let step = piece.scale / self.direct.epsilon();
        let mut same = 0;
        for (b, climb) in climbs[..count].iter().enumerate() {
            let star = &assignments[b * n..][..n];
            let gradient = &mut piece.gradient[b * p..][..p];
            moved[b * n..][..n].copy_from_slice(&climb.z);
            if self.expectation {
                let potentials = &piece.potentials[b * p..][..p];
                let (x, rest) = work.split_at_mut(u);
                let (y, z) = rest.split_at_mut(u);
                self.expectation(structure, (climb, potentials), piece.scale, gradient, [x, y, z])
                    .map_err(|e| e.in_example(first + b))?;
            } else if star != climb.z {
                structure.add_statistics(star, step, gradient);
                structure.add_statistics(&climb.z, -step, gradient);
            }
            same += (star == climb.z) as usize;
            piece.tallies[self.first_measure() + 2].add(climb.gain, 1.0);
        }
        if !self.expectation {
            self.direct.count(piece, same, count, MEASURED.len() - 1);
        }
        Ok(())
    }
}
