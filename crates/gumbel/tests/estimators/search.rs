//! The search by slopes: what it promises of the state that it finds, what it asks, and its conditional expectation.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Direct, Estimator, MEASURES, Memory, Search, Sides, Tally, estimate, estimate_with};
use gumbel::oracle::{Closure, Followed, Oracle, Questions};
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Code, Move, Permutation, SpanningTree, Structure, Subset, Sums,
};
use std::collections::HashSet;

const BATCH: usize = 60;
/// What counts as better, in nats.
const ROUNDING: f64 = 1e-3;
/// Rounding of values in f32.
const SLACK: f64 = 1e-4;
/// More rounds than any search here takes.
const ALL: u32 = 1000;

/// All kinds of structures, with more to search in than those for hundreds of thousands of draws.
fn structures() -> Vec<AnyStructure> {
    let mut all = structured();
    all.extend([
        Categorical::binary(6).unwrap().into(),
        Categorical::new(5).unwrap().into(),
        Subset::new(7, 3).unwrap().into(),
        Permutation::new(4).unwrap().into(),
        SpanningTree::new(4, &[(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (2, 1)]).unwrap().into(),
        Arborescence::new(4, 1).unwrap().into(),
    ]);
    all
}

/// Losses of codes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Linear,
    Convex,
    Concave,
    /// No quadratic comes near it: its slopes say little about its changes.
    Wild,
}

const SHAPES: [Shape; 4] = [Shape::Linear, Shape::Convex, Shape::Concave, Shape::Wild];

/// The losses of the examples of a batch.
struct Losses {
    shape: Shape,
    own: Vec<Loss>,
}

impl Losses {
    fn new(structure: &AnyStructure, shape: Shape, seed: u64) -> Self {
        let curvature = match shape {
            Shape::Linear => 0.0,
            Shape::Concave => -1.0,
            Shape::Convex | Shape::Wild => 1.0,
        };
        Losses { shape, own: (0..BATCH).map(|b| Loss::new(structure, curvature, seed + 2 * b as u64)).collect() }
    }

    fn of(&self, b: usize, code: &[f32]) -> f32 {
        let loss = self.own[b].of(code);
        if self.shape == Shape::Wild { loss + 3.0 * (2.0 * loss).sin() } else { loss }
    }
}

/// A batch with its noise.
struct Batch<'a> {
    structure: &'a AnyStructure,
    h: Vec<f32>,
    noise: Vec<f32>,
    losses: Losses,
    epsilon: f32,
    kl: f32,
}

impl<'a> Batch<'a> {
    fn new(structure: &'a AnyStructure, shape: Shape, (epsilon, kl): (f32, f32), seed: u64) -> Self {
        let h = (0..BATCH).flat_map(|b| potentials(structure, seed + b as u64)).collect();
        let noise = gumbel(BATCH * structure.unary(), 21, seed);
        Batch { structure, h, noise, losses: Losses::new(structure, shape, seed + 5000), epsilon, kl }
    }

    fn search(&self) -> Search {
        Search::new(Direct::new(self.epsilon).unwrap().with_kl(self.kl))
    }

    /// `keep h + gamma` of an example.
    fn perturbed(&self, b: usize, keep: f32) -> Vec<f32> {
        let (p, u) = (self.structure.potentials(), self.structure.unary());
        let mut row: Vec<f32> = self.h[b * p..][..p].iter().map(|h| keep * h).collect();
        row.iter_mut().zip(&self.noise[b * u..][..u]).for_each(|(h, g)| *h += g);
        row
    }

    fn star(&self, b: usize) -> Vec<u32> {
        let perturbed = self.perturbed(b, 1.0);
        enumerated_argmax(self.structure, |z| self.structure.score(&perturbed, z)).0
    }

    /// `(1 - eps kl) h + gamma - eps loss`.
    fn value(&self, b: usize, z: &[u32]) -> f64 {
        let loss = self.losses.of(b, &code(self.structure, z));
        self.structure.score(&self.perturbed(b, 1.0 - self.epsilon * self.kl), z) - (self.epsilon * loss) as f64
    }

    /// The moves that gain to first order, best first: by slopes, or by the losses of changes.
    fn proposals(&self, b: usize, z: &[u32], by: Asked) -> Vec<Move> {
        let code = code(self.structure, z);
        let (mut own, mut slopes) = ([0.0], vec![0.0; code.len()]);
        let mut closure = Closure::new(self.structure, |_, code| self.losses.of(b, code));
        match by {
            Asked::Changes => closure.around(&[0], z, &mut own, &mut slopes).unwrap(),
            _ => closure.slopes(&[0], &code, &mut own, &mut slopes).unwrap(),
        }
        let mut linear = self.perturbed(b, 1.0 - self.epsilon * self.kl);
        linear.iter_mut().zip(&slopes).for_each(|(h, s)| *h -= self.epsilon * s);
        let mut moves = vec![];
        self.structure.moves(&linear, z, &mut moves);
        moves.retain(|m| m.gain > 0.0);
        moves.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.place.cmp(&b.place)));
        moves
    }

    fn made(&self, z: &[u32], moves: &[Move]) -> Vec<u32> {
        let mut z = z.to_vec();
        for change in moves {
            self.structure.make(*change, &mut z);
        }
        z
    }

    /// Gradient and tallies, the states found, and what was asked of each example.
    fn run(&self, search: &Search) -> Run {
        let closure = Closure::new(self.structure, |b, code| self.losses.of(b, code));
        let (oracle, mut memory) = (&mut Logged { oracle: closure, log: vec![vec![]; BATCH] }, Memory::default());
        let found = estimate_with(search, self.structure, &self.h, &self.noise, oracle, &mut memory).unwrap();
        let n = self.structure.variables();
        let moved = memory.moved[..BATCH * n].chunks(n).map(<[u32]>::to_vec).collect();
        Run { gradient: found.gradient, tallies: found.tallies, moved, log: std::mem::take(&mut oracle.log) }
    }
}

struct Run {
    gradient: Vec<f32>,
    tallies: [Tally; MEASURES],
    moved: Vec<Vec<u32>>,
    log: Vec<Vec<Asked>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    Slopes,
    Changes,
    Loss,
}

/// Writes down what each example was asked; a search never asks about all states.
struct Logged<O> {
    oracle: O,
    log: Vec<Vec<Asked>>,
}

impl<O: Oracle> Oracle for Logged<O> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        of.iter().for_each(|b| self.log[*b as usize].push(Asked::Loss));
        self.oracle.losses(of, assignments, losses)
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        of.iter().for_each(|b| self.log[*b as usize].push(Asked::Changes));
        self.oracle.around(of, assignments, own, losses)
    }

    fn states(&mut self, _: &[u32], _: &mut [f32]) -> Result<(), Error> {
        unreachable!("a search asks about no states")
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        of.iter().for_each(|b| self.log[*b as usize].push(Asked::Slopes));
        self.oracle.slopes(of, codes, losses, slopes)
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        self.oracle.follow(followed)
    }
}

/// For every structure, whatever the loss: z(eps) is a state, never worse than z*, at least as good as the first
/// proposal, and where the search stops the best change is none. The gradient is the difference of both.
#[test]
fn a_search_is_never_worse_than_z_star_and_stops_where_the_best_change_does_not_help() {
    // How often it stayed, was better than its first proposal, and missed the arg max.
    let mut seen = [0; 3];
    for (i, structure) in structures().iter().enumerate() {
        let p = structure.potentials();
        let (mut z, mut states) = (vec![0; structure.variables()], HashSet::new());
        for s in 0..structure.states().unwrap() {
            structure.state(s, &mut z);
            states.insert(z.clone());
        }
        let cases = SHAPES.iter().flat_map(|shape| [(*shape, 0.0), (*shape, 0.8)]);
        for ((shape, kl), begin) in cases.flat_map(|case| [(case, Asked::Slopes), (case, Asked::Changes)]) {
            let batch = Batch::new(structure, shape, (0.9, kl), 10_000 + 1000 * i as u64);
            let search = batch.search().rounds(ALL);
            let search = if begin == Asked::Changes { search.from_changes() } else { search };
            let Run { gradient, tallies, moved, .. } = batch.run(&search);
            let (mut zeros, mut gains) = (0.0, 0.0);
            for (b, moved) in moved.iter().enumerate() {
                let what = format!("{structure:?}, {shape:?}, kl = {kl}, from {begin:?}, example {b}");
                assert!(states.contains(moved), "{what}: {moved:?}");
                let star = batch.star(b);
                let (value, least) = (batch.value(b, moved), batch.value(b, &star));
                let better = if *moved == star { 0.0 } else { ROUNDING - SLACK };
                assert!(value >= least + better, "{what}: from {least} to {value}");
                let first = batch.value(b, &batch.made(&star, &batch.proposals(b, &star, begin)));
                assert!(value >= first - ROUNDING - SLACK, "{what}: {value}, the first proposal {first}");
                let by = if *moved == star { begin } else { Asked::Slopes };
                if let Some(best) = batch.proposals(b, moved, by).first() {
                    let next = batch.value(b, &batch.made(moved, &[*best]));
                    assert!(next <= value + ROUNDING + SLACK, "{what}: {value}, {best:?} {next}");
                }

                let mut expected = vec![0.0; p];
                structure.add_statistics(&star, 1.0 / batch.epsilon, &mut expected);
                structure.add_statistics(moved, -1.0 / batch.epsilon, &mut expected);
                let close = gradient[b * p..][..p].iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(close, "{what}: {:?} {expected:?}", &gradient[b * p..][..p]);
                zeros += (*moved == star) as u8 as f64;
                gains += value - least;
                seen[0] += (*moved == star) as usize;
                seen[1] += (value > first + ROUNDING) as usize;
                seen[2] += (enumerated_argmax(structure, |z| batch.value(b, z)).1 > value + ROUNDING) as usize;
            }
            let [rate, _, acceptance, gain, ..] = tallies;
            assert_eq!((rate.sum, rate.count, gain.count), (zeros, BATCH as f64, BATCH as f64), "{structure:?}");
            assert!((gain.sum - gains).abs() < 1e-2, "{structure:?}, {shape:?}: {} {gains}", gain.sum);
            assert!((0.0..=1.0).contains(&acceptance.mean()), "{structure:?}: {acceptance:?}");
            assert!(tallies[4..].iter().all(|t| t.count == 0.0));
        }
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

/// Slopes of a loss that is linear in the code are its changes, and those of independent variables, or of the elements
/// of a subset, add up: the first proposal is the arg max, and costs a question about slopes and one about a loss.
#[test]
fn with_a_linear_loss_one_round_finds_the_arg_max() {
    let independent: Vec<AnyStructure> = vec![
        Categorical::new(5).unwrap().into(),
        Categorical::binary(6).unwrap().into(),
        Categorical::product(3, 4).unwrap().into(),
        Subset::new(7, 3).unwrap().into(),
    ];
    for (i, structure) in independent.iter().enumerate() {
        for kl in [0.0, 0.8] {
            let batch = Batch::new(structure, Shape::Linear, (0.9, kl), 30_000 + 1000 * i as u64);
            let Run { moved, log, .. } = batch.run(&batch.search().rounds(1));
            let mut found = 0;
            for (b, (moved, log)) in moved.iter().zip(&log).enumerate() {
                let (best, value) = enumerated_argmax(structure, |z| batch.value(b, z));
                let what = format!("{structure:?}, kl = {kl}, example {b}");
                assert!(batch.value(b, moved) >= value - ROUNDING - SLACK, "{what}: {moved:?} {best:?}");
                found += (*moved != batch.star(b)) as usize;
                match batch.proposals(b, &batch.star(b), Asked::Slopes).is_empty() {
                    true => assert_eq!(log[..], [Asked::Slopes], "{what}"),
                    false => assert_eq!(log[..], [Asked::Slopes, Asked::Loss], "{what}"),
                }
            }
            assert!(found > BATCH / 4, "{structure:?}: nothing to find");
        }
    }
}

/// Proposals between two questions about slopes are smaller and smaller until one is accepted; `halvings` and `rounds`
/// bound both, and what is measured is what was asked: two passes for slopes, one for a loss.
#[test]
fn rounds_and_halvings_bound_what_is_asked() {
    let mut most = [0; 2];
    for (i, structure) in structures().iter().enumerate() {
        for shape in [Shape::Convex, Shape::Wild] {
            let batch = Batch::new(structure, shape, (2.0, 0.0), 50_000 + 1000 * i as u64);
            let mut before: Option<Run> = None;
            for (rounds, halvings) in [(1, ALL), (2, ALL), (3, ALL), (ALL, ALL), (ALL, 0), (ALL, 1)] {
                let search = batch.search().rounds(rounds).halvings(halvings);
                let run = batch.run(&search);
                let what = format!("{structure:?}, {shape:?}, {rounds} rounds, {halvings} halvings");
                let (mut rows, mut proposals, mut accepted) = (0, 0, 0);
                for log in &run.log {
                    let slopes = log.iter().filter(|a| **a == Asked::Slopes).count();
                    assert!(!log.contains(&Asked::Changes), "{what}: {log:?}");
                    // One list of losses after each question about slopes.
                    let lists: Vec<_> = log.split(|a| *a == Asked::Slopes).skip(1).map(<[_]>::len).collect();
                    assert_eq!((log[0], lists.len()), (Asked::Slopes, slopes), "{what}: {log:?}");
                    assert!(lists.iter().all(|losses| *losses <= halvings as usize + 1), "{what}: {log:?}");
                    // The first slopes are those of z*; the last acceptance asks for none.
                    assert!(slopes <= rounds as usize, "{what}: {log:?}");
                    rows += 2 * slopes + log.len() - slopes;
                    proposals += log.len() - slopes;
                    accepted += slopes - 1;
                    most[0] = most[0].max(slopes);
                    most[1] = most[1].max(lists.into_iter().max().unwrap());
                }
                let [_, measured, acceptance, ..] = run.tallies;
                assert_eq!((measured.sum, measured.count), (rows as f64, BATCH as f64), "{what}");
                assert_eq!(acceptance.count, proposals as f64, "{what}");
                if rounds == ALL {
                    assert_eq!(acceptance.sum, accepted as f64, "{what}");
                }
                // More rounds go on from where fewer have ended.
                if let Some(before) = before.filter(|_| halvings == ALL) {
                    for b in 0..BATCH {
                        let (now, then) = (batch.value(b, &run.moved[b]), batch.value(b, &before.moved[b]));
                        assert!(now >= then - SLACK, "{what}: {now} {then}");
                        assert!(run.log[b].starts_with(&before.log[b]), "{what}");
                    }
                }
                before = Some(run);
            }
        }
    }
    assert!(most[0] > 3 && most[1] > 2, "{most:?}: nothing was bounded");

    // Without rounds it stays where it is.
    let structure = &structures()[0];
    let batch = Batch::new(structure, Shape::Convex, (2.0, 0.0), 50_000);
    let run = batch.run(&batch.search().rounds(0));
    assert!(run.gradient.iter().all(|g| *g == 0.0) && run.log.iter().all(|log| log[..] == [Asked::Slopes]));
    let questions = Estimator::<AnyStructure>::questions(&batch.search(), structure);
    assert_eq!(questions, Questions::SLOPES.and(Questions::LOSSES));
}

/// From the losses of all single changes, for variables with values: z* stays if none of them is better, and only then.
/// Afterwards slopes guide.
#[test]
fn from_changes_z_star_stays_if_and_only_if_no_change_of_it_is_better() {
    let (mut stayed, mut blind) = (0, 0);
    for (i, structure) in structures().iter().enumerate() {
        let (n, u) = (structure.variables(), structure.unary());
        for shape in [Shape::Convex, Shape::Wild] {
            let batch = Batch::new(structure, shape, (1.5, 0.4), 60_000 + 1000 * i as u64);
            let search = batch.search().from_changes();
            let questions = Estimator::<AnyStructure>::questions(&search, structure);
            assert_eq!(questions, Questions::SLOPES.and(Questions::LOSSES).and(Questions::AROUND));
            let (run, by_slopes) = (batch.run(&search), batch.run(&batch.search()));
            let mut rows = 0;
            for (b, (moved, log)) in run.moved.iter().zip(&run.log).enumerate() {
                let what = format!("{structure:?}, {shape:?}, example {b}: {log:?}");
                assert!(log[0] == Asked::Changes && !log[1..].contains(&Asked::Changes), "{what}");
                let count = |of: Asked| log.iter().filter(|a| **a == of).count();
                rows += 1 + structure.code().changes(u) + 2 * count(Asked::Slopes) + count(Asked::Loss);
                if structure.code() == Code::Indicators {
                    continue;
                }
                let (star, values) = (batch.star(b), (u / n) as u32);
                let mut best = f64::NEG_INFINITY;
                for (at, value) in (0..n).flat_map(|at| (0..values).map(move |value| (at, value))) {
                    let mut other = star.clone();
                    other[at] = value;
                    if other != star {
                        best = best.max(batch.value(b, &other));
                    }
                }
                let gain = best - batch.value(b, &star);
                if gain > ROUNDING + SLACK {
                    assert_ne!(*moved, star, "{what}: a change gains {gain}");
                    blind += (by_slopes.moved[b] == star) as usize;
                } else if gain < -SLACK {
                    assert_eq!((moved, &log[1..]), (&star, &[][..]), "{what}: a change gains {gain}");
                    stayed += 1;
                }
            }
            assert_eq!((run.tallies[1].sum, run.tallies[1].count), (rows as f64, BATCH as f64), "{structure:?}");
        }
    }
    assert!(stayed > 0 && blind > 0, "{stayed} stayed, {blind} that slopes do not see");
}

/// Two changes that are forbidden together: the better one alone is found.
#[test]
fn a_forbidden_proposal_is_made_smaller_too() {
    let structure: AnyStructure = Chain::new(2, 2).unwrap().into();
    let mut h = vec![0.0; structure.potentials()];
    let both = h.len() - 1;
    h[both] = f32::NEG_INFINITY;
    assert_eq!(structure.score(&h, &[1, 1]), f64::NEG_INFINITY);
    let (noise, loss) = ([1.0, 0.0, 1.0, 0.0], |_: usize, code: &[f32]| -4.0 * code[1] - 3.0 * code[3]);
    let mut memory = Memory::default();
    let oracle = &mut Closure::new(&structure, loss);
    let search = Search::new(Direct::new(1.0).unwrap());
    estimate_with(&search, &structure, &h, &noise, oracle, &mut memory).unwrap();
    assert_eq!((&memory.assignments[..2], &memory.moved[..2]), (&[0, 0][..], &[1, 0][..]));
}

/// Examples do not know of each other, neither how many they are, nor who else still moves; nor do samples.
#[test]
fn a_batch_is_searched_as_one_example_at_a_time() {
    for (i, structure) in structures().iter().enumerate() {
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let cases = [(Shape::Convex, 0), (Shape::Wild, 0), (Shape::Convex, 1), (Shape::Wild, 2)];
        for (shape, form) in cases {
            let batch = Batch::new(structure, shape, (1.2, 0.5), 70_000 + 1000 * i as u64);
            let search = match form {
                0 => batch.search(),
                1 if !structure.is_independent() => continue,
                1 => batch.search().rao_blackwell(),
                _ => batch.search().from_changes(),
            };
            let noise = gumbel(2 * BATCH * u, 22, i as u64); // two samples
            let mut memory = Memory::default();
            let all = {
                let oracle = &mut Closure::new(structure, |b, code| batch.losses.of(b, code));
                estimate_with(&search, structure, &batch.h, &noise, oracle, &mut memory).unwrap()
            };
            let (moved, mut single) = (memory.moved.clone(), Memory::default());
            let mut tallies = [Tally::default(); MEASURES];
            for b in 0..BATCH {
                let rows = [0, 1].map(|m| &noise[(m * BATCH + b) * u..][..u]).concat();
                let oracle = &mut Closure::new(structure, |_, code| batch.losses.of(b, code));
                let h = &batch.h[b * p..][..p];
                let one = estimate_with(&search, structure, h, &rows, oracle, &mut single).unwrap();
                assert_eq!(one.gradient, all.gradient[b * p..][..p], "{structure:?}, example {b}");
                assert_eq!(single.moved[..n], moved[b * n..][..n], "{structure:?}, example {b}");
                tallies.iter_mut().zip(&one.tallies).for_each(|(all, one)| all.merge(one));
            }
            assert_eq!(tallies, all.tallies, "{structure:?}: what is measured is cut into pieces without a trace");
        }
    }
}

/// The search compares true losses, to one side, whatever `direct` it is made of.
#[test]
fn a_search_is_one_sided() {
    let structure: AnyStructure = Categorical::binary(3).unwrap().into();
    let direct = Direct::new(0.8).unwrap().with_kl(0.7);
    let (h, noise) = (random(6, 1.0, 90), gumbel(6, 91, 0));
    let loss = Loss::new(&structure, 1.0, 92);
    let run = |search: Search| {
        let oracle = &mut Closure::new(&structure, |_, code| loss.of(code));
        estimate_with(&search, &structure, &h, &noise, oracle, &mut Memory::default()).unwrap()
    };
    assert_eq!(run(Search::new(direct.sides(Sides::Two))), run(Search::new(direct)));
}

#[test]
fn answers_that_are_no_numbers_are_errors() {
    let structure: AnyStructure = Categorical::binary(2).unwrap().into();
    let (h, noise) = ([0.0; 8], [0.5, 0.0, 0.5, 0.0].repeat(2));
    let refused = |loss: &dyn Fn(&[f32]) -> f32| {
        let oracle = &mut Closure::new(&structure, |b, code| if b == 1 { loss(code) } else { 0.0 });
        let search = Search::new(Direct::new(1.0).unwrap());
        estimate(&search, &structure, &h, &noise, oracle).unwrap_err().to_string()
    };
    let at_star = refused(&|_| f32::NAN);
    assert_eq!(at_star, "example 1 of the batch: loss 0 is NaN: expected a finite number");
    // Of the proposal only, and of a slope only: next to the code of z* that is (1, 0, 1, 0).
    let of_proposal = refused(&|code| if code[1] == 1.0 { f32::NAN } else { -9.0 * code[1] });
    assert_eq!(of_proposal, "example 1 of the batch: loss 0 is NaN: expected a finite number");
    let of_slope = refused(&|code| if code[3] > 0.0 && code[3] < 1.0 { f32::NAN } else { 0.0 });
    assert_eq!(of_slope, "example 1 of the batch: slope 3 is NaN: expected a finite number");
}

/// Noise that draws a state of independent variables, whatever their potentials.
fn noise_for(structure: &Categorical, z: &[u32], size: f32) -> Vec<f32> {
    code(structure, z).iter().map(|c| size * c).collect()
}

/// The mean over z* ~ q of what `estimator` makes of the potentials, by enumeration.
fn mean_over_states(
    estimator: &dyn Estimator<Categorical>,
    structure: &Categorical,
    h: &[f32],
    loss: &dyn Fn(&[f32]) -> f32,
) -> Vec<f64> {
    let states = structure.states().unwrap();
    let (mut z, mut scores) = (vec![0; structure.variables()], vec![]);
    let mut rows = vec![];
    for s in 0..states {
        structure.state(s, &mut z);
        scores.push(structure.score(h, &z));
        let noise = noise_for(structure, &z, 40.0);
        let (oracle, mut memory) = (&mut Closure::new(structure, |_, code| loss(code)), Memory::default());
        let found = estimate_with(estimator, structure, h, &noise, oracle, &mut memory).unwrap();
        assert_eq!(memory.assignments[..z.len()], z);
        rows.push(doubles(&found.gradient));
    }
    let mut mean = vec![0.0; h.len()];
    for (q, row) in softmax64(scores.into_iter()).into_iter().zip(rows) {
        mean.iter_mut().zip(row).for_each(|(m, g)| *m += q * g);
    }
    mean
}

/// The limit of the mean as eps falls, without rounds: from eps and eps / 2, whose error is of order eps².
fn limit(structure: &Categorical, h: &[f32], kl: f32, loss: &dyn Fn(&[f32]) -> f32) -> Vec<f64> {
    let at = |epsilon: f32| {
        let search = Search::new(Direct::new(epsilon).unwrap().with_kl(kl)).rounds(0).rao_blackwell();
        mean_over_states(&search, structure, h, loss)
    };
    at(0.004).iter().zip(at(0.008)).map(|(half, whole)| 2.0 * half - whole).collect()
}

/// The exact gradient of `E_q[loss] + kl KL(q || uniform)`.
fn bound(structure: &Categorical, h: &[f32], kl: f32, loss: &dyn Fn(&[f32]) -> f32) -> Vec<f32> {
    let mut gradient = exact(structure, h, &mut Closure::new(structure, |_, code| loss(code)));
    structure.kl_to_uniform(h, kl, &mut gradient).unwrap();
    gradient
}

/// The mean over z* ~ q tends to the exact gradient for losses that are linear or quadratic in the code, also where
/// variables meet in products, and with the KL inside to that of the bound.
#[test]
fn the_conditional_expectation_is_exact_in_the_limit_for_quadratic_losses() {
    let sizes = [(1, 2), (3, 2), (4, 2), (1, 3), (1, 7), (2, 4), (3, 3)];
    for (seed, (n, k)) in (0..).zip(sizes) {
        let structure = Categorical::product(n, k).unwrap();
        let h = random(n * k, 1.0, 3300 + seed);
        // Three squares, one of them negative.
        for (curvatures, form) in [([0.0, 0.0, 0.0], "linear"), ([0.4, -0.5, 0.3], "quadratic")] {
            let part = |i: usize| Loss::new(&structure, curvatures[i], 3400 + 10 * seed + 2 * i as u64);
            let parts = [part(0), part(1), part(2)];
            let loss = |code: &[f32]| parts.iter().map(|part| part.of(code)).sum::<f32>();
            for kl in [0.0, 1.0, 0.4] {
                let what = format!("n = {n}, K = {k}, {form}, kl = {kl}");
                let (found, expected) = (limit(&structure, &h, kl, &loss), bound(&structure, &h, kl, &loss));
                assert!(expected.iter().any(|e| e.abs() > 0.02), "{what}: nothing to compare: {expected:?}");
                for (f, e) in found.iter().zip(doubles(&expected)) {
                    assert!((f - e).abs() < 2e-3 * (1.0 + e.abs()), "{what}: {found:?} {expected:?}");
                }
            }
        }
    }
}

/// `2 T_p - T_q / 2` with `T_p = (p - softmax(ln p - eps slopes)) / eps` and p half way from q to D, in f64.
fn formula(h: &[f32], slopes: &[f32], present: usize, epsilon: f64, kl: f64) -> Vec<f64> {
    let softmax = |keep: f64| {
        let kept = |h: &f32| if *h == f32::NEG_INFINITY { f64::NEG_INFINITY } else { keep * *h as f64 };
        softmax64(h.iter().map(kept))
    };
    let (first, q) = (softmax(1.0), softmax(1.0 - epsilon * kl));
    let t = |p: &[f64]| -> Vec<f64> {
        let moved = softmax64(p.iter().zip(slopes).map(|(p, s)| p.ln() - epsilon * *s as f64));
        p.iter().zip(moved).map(|(p, m)| (p - m) / epsilon).collect()
    };
    let between: Vec<f64> = q.iter().enumerate().map(|(i, q)| (q + (i == present) as u8 as f64) / 2.0).collect();
    let (between, whole) = (t(&between), t(&q));
    (0..h.len()).map(|i| (first[i] - q[i]) / epsilon + 2.0 * between[i] - whole[i] / 2.0).collect()
}

/// At any eps, from the state where the search ended; of z* only the value counts, not the noise behind it.
#[test]
fn the_conditional_expectation_is_its_formula_at_the_end_of_the_search() {
    for (i, (n, k)) in [(1, 5), (3, 2), (3, 4)].into_iter().enumerate() {
        let structure = Categorical::product(n, k).unwrap();
        let loss = Loss::new(&structure, 0.7, 3500 + 2 * i as u64);
        for (epsilon, kl, rounds) in [(0.01, 0.0, 0), (0.5, 0.0, 0), (0.5, 0.8, 0), (1.0, 1.0, 8), (3.0, 0.0, 8)] {
            let search = Search::new(Direct::new(epsilon).unwrap().with_kl(kl)).rounds(rounds).rao_blackwell();
            for draw in 0..20 {
                let mut h = random(n * k, 1.0, 3600 + draw);
                if draw % 2 == 1 && k > 2 {
                    h[k - 1] = f32::NEG_INFINITY;
                }
                let noise = gumbel(n * k, 23, draw);
                let run = |noise: &[f32]| {
                    let closure = Closure::new(&structure, |_, code| loss.of(code));
                    let (oracle, mut memory) = (&mut Logged { oracle: closure, log: vec![vec![]] }, Memory::default());
                    let found = estimate_with(&search, &structure, &h, noise, oracle, &mut memory).unwrap();
                    if rounds == 0 {
                        assert_eq!(oracle.log[0], [Asked::Slopes]);
                        assert_eq!(memory.moved[..n], memory.assignments[..n]);
                    }
                    (found.gradient, memory.assignments[..n].to_vec(), memory.moved[..n].to_vec())
                };
                let (gradient, star, moved) = run(&noise);
                let (mut own, mut slopes) = ([0.0], vec![0.0; n * k]);
                let oracle = &mut Closure::new(&structure, |_, code| loss.of(code));
                oracle.slopes(&[0], &code(&structure, &moved), &mut own, &mut slopes).unwrap();
                for (v, moved) in moved.iter().enumerate() {
                    let block = v * k..(v + 1) * k;
                    let (h, slopes) = (&h[block.clone()], &slopes[block.clone()]);
                    let expected = formula(h, slopes, *moved as usize, epsilon as f64, kl as f64);
                    for (f, e) in gradient[block].iter().zip(&expected) {
                        let close = (*f as f64 - e).abs() < 1e-5 + 2e-6 / epsilon as f64;
                        assert!(close, "n = {n}, K = {k}, eps = {epsilon}, kl = {kl}: {gradient:?} {expected:?}");
                    }
                }
                if rounds == 0 {
                    let other = noise_for(&structure, &star, 50.0);
                    assert_eq!(run(&other), (gradient, star, moved), "the noise is seen beyond z*");
                }
            }
        }
    }
}

/// Forbidden values have no say: the least of all slopes may be theirs.
#[test]
fn the_conditional_expectation_of_large_slopes_is_a_number() {
    let structure = Categorical::new(3).unwrap();
    let h = [0.3, 0.1, f32::NEG_INFINITY];
    let slopes = [400.0, 410.0, 0.0];
    let search = Search::new(Direct::new(1.0).unwrap()).rounds(0).rao_blackwell();
    let oracle = &mut Closure::new(&structure, |_, code| code.iter().zip(&slopes).map(|(c, s)| c * s).sum::<f32>());
    let found = estimate(&search, &structure, &h, &[1.0, 0.0, 0.0], oracle).unwrap().gradient;
    let expected = formula(&h, &slopes, 0, 1.0, 0.0);
    assert!(found.iter().zip(&expected).all(|(f, e)| (*f as f64 - e).abs() < 1e-4), "{found:?} {expected:?}");
}
