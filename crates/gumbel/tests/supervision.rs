//! What is learnt from labels, against enumeration: arg maxima, probabilities and gradients of every structure, asked
//! by its own type and as one chosen at run time.

use gumbel::Error;
use gumbel::estimator::{Estimator, estimate};
use gumbel::noise::{Noise, Purpose, below};
use gumbel::oracle::{Closure, Kept};
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Code, Maximum, Pairwise, Permutation, SpanningTree, Structure,
    Subset, Sums, Supermodular, Tree, argmax_batch,
};
use gumbel::supervision::{
    Agreement, Labelled, Loss, Memory, Outcome, Supervision, Taught, UNKNOWN, agreement, check, conditioned_argmax,
    ln_probability,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// Instances of each structure: 300, or `GUMBEL_CASES` for the long mode.
fn cases() -> u64 {
    match std::env::var("GUMBEL_CASES") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("GUMBEL_CASES={text}: expected a number of instances")),
        Err(_) => 300,
    }
}

/// All states of a structure, with their statistics.
struct Listed {
    states: Vec<Vec<u32>>,
    statistics: Vec<Vec<f32>>,
}

impl Listed {
    fn new<S: Structure>(structure: &S) -> Self {
        let all = 0..structure.states().expect("an enumerable structure");
        let states: Vec<Vec<u32>> = all
            .map(|s| {
                let mut z = vec![0; structure.variables()];
                structure.state(s, &mut z);
                z
            })
            .collect();
        let statistics = states
            .iter()
            .map(|z| {
                let mut statistics = vec![0.0; structure.potentials()];
                structure.add_statistics(z, 1.0, &mut statistics);
                statistics
            })
            .collect();
        Listed { states, statistics }
    }

    /// The scores of the states that agree with a label; of the others, `-inf`.
    fn scores(&self, potentials: &[f64], known: &[u32]) -> Vec<f64> {
        let states = self.states.iter().zip(&self.statistics);
        states
            .map(|(z, statistics)| match z.iter().zip(known).all(|(z, y)| *y == UNKNOWN || z == y) {
                true => statistics.iter().zip(potentials).filter(|(s, _)| **s != 0.0).map(|(s, h)| *s as f64 * h).sum(),
                false => f64::NEG_INFINITY,
            })
            .collect()
    }

    /// The best state that agrees with a label.
    fn best(&self, potentials: &[f64], known: &[u32]) -> (usize, f64) {
        let scores = self.scores(potentials, known).into_iter().enumerate();
        scores.fold((0, f64::NEG_INFINITY), |best, new| if new.1 > best.1 { new } else { best })
    }

    /// `ln sum exp h(z)` over the states that agree with a label.
    fn log_sum(&self, potentials: &[f64], known: &[u32]) -> f64 {
        let scores = self.scores(potentials, known);
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY { max } else { max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln() }
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| *x as f64).collect()
}

fn unknown(n: usize) -> Vec<u32> {
    vec![UNKNOWN; n]
}

/// The random numbers of one instance.
struct Random(ChaCha8Rng);

impl Random {
    fn new(test: u32, case: u64) -> Self {
        Random(Noise::new(case, Purpose::User(test), 0).generator_at(0))
    }

    fn below(&mut self, bound: usize) -> usize {
        below(&mut self.0, bound as u64) as usize
    }

    /// A normal number, nearly.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }
}

/// Where potentials come from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Values {
    Normal,
    /// Small integers: many ties.
    Ties,
    /// Some unary ones are `-inf`.
    Forbidden,
    /// Thousands of nats.
    Large,
    /// Magnitudes from 1e-30 to 1e30.
    Extreme,
}

impl Values {
    const ALL: [Values; 5] = [Values::Normal, Values::Ties, Values::Forbidden, Values::Large, Values::Extreme];

    /// Potentials of a structure.
    fn draw<S: Structure>(self, structure: &S, random: &mut Random) -> Vec<f32> {
        let value = |random: &mut Random| match self {
            Values::Normal | Values::Forbidden => random.normal(),
            Values::Ties => random.below(5) as f32 - 2.0,
            Values::Large => 3000.0 * random.normal(),
            Values::Extreme => random.normal() * 10f32.powi(random.below(61) as i32 - 30),
        };
        let mut h: Vec<f32> = (0..structure.potentials()).map(|_| value(random)).collect();
        if !structure.takes_any_sign() {
            h[structure.unary()..].iter_mut().for_each(|w| *w = w.abs());
        }
        if self == Values::Forbidden {
            h[..structure.unary()].iter_mut().filter(|_| random.below(8) == 0).for_each(|h| *h = f32::NEG_INFINITY);
        }
        h
    }
}

/// A label that is known here and there: mostly of some state, sometimes of values that need not go together.
fn label(listed: &Listed, random: &mut Random) -> Vec<u32> {
    let (share, states) = (random.below(5), listed.states.len());
    let state = random.below(states);
    let mixed = random.below(4) == 0;
    let n = listed.states[state].len();
    (0..n)
        .map(|i| match random.below(4) < share {
            true if mixed => listed.states[random.below(states)][i],
            true => listed.states[state][i],
            false => UNKNOWN,
        })
        .collect()
}

/// The largest finite magnitude, at least 1, times the number of potentials: of what rounding is a fraction.
fn magnitude(h: &[f32]) -> f64 {
    let largest = h.iter().filter(|h| h.is_finite()).fold(1.0f64, |m, h| m.max(h.abs() as f64));
    largest * h.len() as f64
}

/// The best assignment that agrees with a label; nothing else may be an error.
fn check_argmax<S: Structure>(structure: &S, test: u32, what: &str) {
    let listed = Listed::new(structure);
    let mut memory = Memory::default();
    let (mut solved, mut refused) = (0, 0);
    for case in 0..cases() {
        let random = &mut Random::new(test, case);
        let values = Values::ALL[case as usize % 5];
        let h = values.draw(structure, random);
        let known = label(&listed, random);
        let what = format!("{what}, case {case}, {values:?}, label {known:?}");
        let (_, best) = listed.best(&wide(&h), &known);
        let mut z = vec![7; structure.variables()];
        match conditioned_argmax(structure, &h, &known, &mut z, &mut memory) {
            Err(Error::Infeasible { detail }) => {
                assert_eq!(best, f64::NEG_INFINITY, "{what}: {detail}");
                assert!(detail.starts_with("none agrees with the label: "), "{what}: {detail}");
                refused += 1;
            }
            Err(other) => panic!("{what}: {other}"),
            Ok(found) => {
                let tolerance = 1e-12 * (magnitude(&h) + 100.0);
                assert!(known.iter().zip(&z).all(|(y, z)| *y == UNKNOWN || y == z), "{what}: {z:?}");
                let score = structure.score(&h, &z);
                assert!((score - best).abs() <= tolerance, "{what}: {z:?} scores {score}, the best is {best}");
                assert!((found.value - score).abs() <= tolerance, "{what}: says {}, scores {score}", found.value);
                assert!((found.bound - score).abs() <= tolerance, "{what}: not proved");
                solved += 1;
            }
        }
    }
    assert!(solved > cases() / 3, "{what}: {solved} solved, {refused} refused");
}

/// `(s(z*) - s(z_y)) / epsilon`, and what is measured.
fn check_argmax_gradient<S: Sums>(structure: &S, test: u32, what: &str) {
    let listed = Listed::new(structure);
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let supervision = Supervision::new(Loss::Argmax { epsilon: 0.25 }, 0.5).unwrap();
    let mut memory = Memory::default();
    for case in 0..cases() {
        let random = &mut Random::new(test, case);
        let values = [Values::Normal, Values::Forbidden][case as usize % 2];
        let h = values.draw(structure, random);
        let noise: Vec<f32> = (0..u).map(|_| random.normal()).collect();
        let known = label(&listed, random);
        let what = format!("{what}, case {case}, {values:?}, label {known:?}");
        let mut perturbed = h.clone();
        perturbed.iter_mut().zip(&noise).for_each(|(h, noise)| *h += noise);
        let perturbed = wide(&perturbed);
        let ((star, most), (agreeing, value)) = (listed.best(&perturbed, &unknown(n)), listed.best(&perturbed, &known));
        let labelled = Labelled { potentials: &h, noise: &noise, known: &known, first: 3 };
        let mut gradient = vec![1.0; p];
        let found = supervision.add(structure, labelled, 4.0, &mut gradient, &mut memory);
        if known.iter().all(|y| *y == UNKNOWN) {
            assert_eq!(found.unwrap(), Outcome::default(), "{what}");
            assert_eq!(gradient, vec![1.0; p], "{what}");
            continue;
        }
        if value == f64::NEG_INFINITY {
            let message = found.expect_err(&what).to_string();
            assert!(message.starts_with("example 3 of the batch: "), "{what}: {message}");
            assert_eq!(gradient, vec![1.0; p], "{what}");
            continue;
        }
        let found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
        // 4 * 0.5 / 0.25 = 8.
        let differences = listed.statistics[star].iter().zip(&listed.statistics[agreeing]);
        let expected: Vec<f32> = differences.map(|(star, agreeing)| 1.0 + 8.0 * (star - agreeing)).collect();
        assert_eq!(gradient, expected, "{what}");
        assert_eq!((found.loss.count, found.agreed.count), (1.0, 1.0), "{what}");
        assert!((found.loss.sum - (most - value)).abs() < 1e-8, "{what}: {} {}", found.loss.sum, most - value);
        assert_eq!(found.agreed.sum, (star == agreeing) as u32 as f64, "{what}");
    }
}

/// `ln q(Z_y)`, and its slopes against differences of the enumerated one.
fn check_cross_entropy<S: Sums>(structure: &S, test: u32, what: &str) {
    let listed = Listed::new(structure);
    let (p, n) = (structure.potentials(), structure.variables());
    let supervision = Supervision::new(Loss::CrossEntropy, 3.0).unwrap();
    let mut memory = Memory::default();
    for case in 0..cases() {
        let random = &mut Random::new(test, case);
        let values = Values::ALL[case as usize % 4];
        let h = values.draw(structure, random);
        let known = label(&listed, random);
        let what = format!("{what}, case {case}, {values:?}, label {known:?}");
        let all = unknown(n);
        let loss = |h: &[f64]| listed.log_sum(h, &all) - listed.log_sum(h, &known);
        let expected = loss(&wide(&h));
        let found = ln_probability(structure, &h, &known, &mut memory);
        if !expected.is_finite() {
            assert!(matches!(found, Err(Error::Infeasible { .. })), "{what}: {found:?}");
            continue;
        }
        let found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
        // In nats, with a rounding of f32 in what is computed in it.
        let tolerance = 1e-6 * expected.abs().max(1.0) + 1e-7 * magnitude(&h);
        assert!((found + expected).abs() < tolerance, "{what}: {found}, should be {}", -expected);
        if values == Values::Large {
            continue;
        }
        let labelled = Labelled { potentials: &h, noise: &[], known: &known, first: 0 };
        let mut gradient = vec![0.25; p];
        let outcome = supervision.add(structure, labelled, 0.5, &mut gradient, &mut memory).unwrap();
        assert_eq!(outcome.agreed.count, 0.0, "{what}");
        if known == all {
            assert_eq!(gradient, vec![0.25; p], "{what}");
            continue;
        }
        assert!((outcome.loss.mean() - expected).abs() < 1e-5 * expected.max(1.0), "{what}");
        for (i, g) in gradient.iter().enumerate() {
            let mut moved = wide(&h);
            let mut at = |step: f64| {
                moved[i] = h[i] as f64 + step;
                loss(&moved)
            };
            let slope = if h[i].is_finite() { (at(1e-4) - at(-1e-4)) / 2e-4 } else { 0.0 };
            let slope = 0.25 + 1.5 * slope;
            assert!((*g as f64 - slope).abs() < 1e-5, "{what}: gradient {i} is {g}, should be {slope}");
        }
    }
}

fn check_all<S: Sums + Clone + Into<AnyStructure>>(structure: S, test: u32, what: &str) {
    check_argmax(&structure, test, what);
    check_argmax_gradient(&structure, test + 1, what);
    check_cross_entropy(&structure, test + 2, what);
    let any: AnyStructure = structure.into();
    let what = &format!("any {what}");
    check_argmax(&any, test + 3, what);
    check_argmax_gradient(&any, test + 4, what);
    check_cross_entropy(&any, test + 5, what);
}

#[test]
fn independent_variables_agree_with_enumeration() {
    check_all(Categorical::new(7).unwrap(), 100, "one categorical");
    check_all(Categorical::product(3, 4).unwrap(), 110, "3x4");
    check_all(Categorical::binary(5).unwrap(), 120, "binary");
}

#[test]
fn pairwise_models_agree_with_enumeration() {
    check_all(Pairwise::new(1).unwrap(), 200, "pairwise:1");
    check_all(Pairwise::new(6).unwrap(), 210, "pairwise:6");
    check_all(Supermodular::new(1).unwrap(), 220, "supermodular:1");
    check_all(Supermodular::new(7).unwrap(), 230, "supermodular:7");
}

#[test]
fn chains_and_trees_agree_with_enumeration() {
    check_all(Chain::new(1, 3).unwrap(), 300, "chain:1x3");
    check_all(Chain::new(5, 3).unwrap(), 310, "chain:5x3");
    check_all(Tree::new(5, 3, &[(2, 0), (2, 3), (1, 3), (4, 0)]).unwrap(), 320, "tree");
}

#[test]
fn sets_agree_with_enumeration() {
    check_all(Subset::new(7, 3).unwrap(), 400, "subset:3/7");
    check_all(Subset::new(5, 5).unwrap(), 410, "subset:5/5");
    check_all(Subset::new(5, 0).unwrap(), 420, "subset:0/5");
    check_all(SpanningTree::complete(5).unwrap(), 430, "spanning trees");
    let edges = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (0, 1), (3, 4)]; // two of a kind, and a bridge
    check_all(SpanningTree::new(5, &edges).unwrap(), 440, "spanning trees of a graph");
}

#[test]
fn permutations_and_arborescences_agree_with_enumeration() {
    let order = Permutation::new(5).unwrap();
    check_argmax(&order, 500, "permutation");
    let any: AnyStructure = order.into();
    check_argmax(&any, 501, "any permutation");
    check_argmax_gradient(&any, 502, "any permutation");
    check_all(Arborescence::new(4, 2).unwrap(), 510, "arborescence");
    check_all(Arborescence::new(1, 0).unwrap(), 520, "arborescence of one node");
}

/// The weights of pairs stay what they were, and with them whatever a solver requires of them.
#[test]
fn conditions_change_unary_potentials_only() {
    fn kept<S: Structure>(structure: &S, known: &[u32]) {
        let h: Vec<f32> = (0..structure.potentials()).map(|i| (i * 7 % 11) as f32 * 0.3).collect();
        let mut conditioned = h.clone();
        assert_eq!(structure.condition(known, &mut conditioned).unwrap(), 0.0);
        assert_ne!(conditioned, h);
        assert_eq!(conditioned[structure.unary()..], h[structure.unary()..]);
    }
    kept(&Supermodular::new(4).unwrap(), &[1, UNKNOWN, 0, UNKNOWN]);
    kept(&Pairwise::new(4).unwrap(), &[1, UNKNOWN, 0, UNKNOWN]);
    kept(&Chain::new(4, 3).unwrap(), &[1, UNKNOWN, 2, UNKNOWN]);
    kept(&Tree::new(4, 3, &[(0, 1), (1, 2), (1, 3)]).unwrap(), &[UNKNOWN, 2, UNKNOWN, 0]);
}

/// Large instances, where the solvers do not fall back on enumeration: what is said must be so, and a label of the arg
/// max must change nothing.
#[test]
fn large_instances_keep_what_is_known() {
    fn kept<S: Structure>(structure: &S, test: u32) {
        let mut memory = Memory::default();
        for case in 0..20 {
            let random = &mut Random::new(test, case);
            let h = Values::Normal.draw(structure, random);
            let n = structure.variables();
            let (mut best, mut z) = (vec![0; n], vec![0; n]);
            argmax_batch(structure, &h, &mut best).unwrap();
            let mut known = best.clone();
            known.iter_mut().filter(|_| random.below(2) == 0).for_each(|y| *y = UNKNOWN);
            conditioned_argmax(structure, &h, &known, &mut z, &mut memory).unwrap();
            let (expected, found) = (structure.score(&h, &best), structure.score(&h, &z));
            assert!((expected - found).abs() < 1e-9 * magnitude(&h), "{expected} {found}");
        }
    }
    kept(&Categorical::product(100, 10).unwrap(), 600);
    kept(&Supermodular::new(60).unwrap(), 601);
    kept(&Chain::new(100, 5).unwrap(), 602);
    kept(&Subset::new(300, 40).unwrap(), 603);
    kept(&Permutation::new(40).unwrap(), 604);
    kept(&SpanningTree::complete(40).unwrap(), 605);
    kept(&Arborescence::new(30, 4).unwrap(), 606);
}

/// Draws of the gradient of one label: their means, standard errors, and the mean loss with its own.
fn drawn(structure: &Categorical, h: &[f32], known: &[u32], loss: Loss, seed: u64) -> (Vec<[f64; 2]>, [f64; 2]) {
    const DRAWS: usize = 200_000;
    const CHUNK: usize = 2000;
    let (p, n) = (structure.potentials(), structure.variables());
    let supervision = Supervision::new(loss, 1.0).unwrap();
    let (potentials, known) = (h.repeat(CHUNK), known.repeat(CHUNK));
    assert_eq!(known.len(), CHUNK * n);
    let mut noise = vec![0.0; CHUNK * supervision.draws() * p];
    let mut memory = Memory::default();
    let mut sums = vec![[0.0f64; 2]; p];
    let mut losses = [0.0f64; 2];
    for chunk in 0..DRAWS / CHUNK {
        Noise::new(seed, Purpose::Noise, chunk as u64).gumbel(&mut noise);
        let labelled = Labelled { potentials: &potentials, noise: &noise, known: &known, first: 0 };
        let mut gradient = vec![0.0; CHUNK * p];
        let found = supervision.add(structure, labelled, 1.0, &mut gradient, &mut memory).unwrap();
        assert_eq!(found.loss.count, CHUNK as f64);
        for g in gradient.chunks_exact(p) {
            sums.iter_mut().zip(g).for_each(|(s, g)| *s = [s[0] + *g as f64, s[1] + (*g as f64).powi(2)]);
        }
        let mean = found.loss.mean();
        losses = [losses[0] + mean, losses[1] + mean * mean];
    }
    let of = |[sum, squares]: [f64; 2], count: f64| {
        let mean = sum / count;
        [mean, ((squares / count - mean * mean).max(0.0) / count).sqrt()]
    };
    (sums.into_iter().map(|s| of(s, DRAWS as f64)).collect(), of(losses, (DRAWS / CHUNK) as f64))
}

/// The gradient of cross-entropy times `factor`, and cross-entropy, of independent variables.
fn cross_entropy(structure: &Categorical, h: &[f32], known: &[u32], factor: f64) -> (Vec<f64>, f64) {
    let (mut gradient, mut loss) = (vec![], 0.0);
    for (row, y) in wide(h).chunks(structure.values()).zip(known) {
        let sum: f64 = row.iter().map(|h| h.exp()).sum();
        if *y != UNKNOWN {
            loss += sum.ln() - row[*y as usize];
        }
        gradient.extend(row.iter().enumerate().map(|(j, h)| match *y {
            UNKNOWN => 0.0,
            y => factor * (h.exp() / sum - (j == y as usize) as u32 as f64),
        }));
    }
    (gradient, loss)
}

#[test]
fn the_mean_of_the_losses_that_draw_is_cross_entropy_of_independent_variables() {
    let cases = [
        (Categorical::new(5).unwrap(), vec![3]),
        (Categorical::new(10).unwrap(), vec![0]),
        (Categorical::product(3, 4).unwrap(), vec![2, UNKNOWN, 0]),
        (Categorical::binary(3).unwrap(), vec![1, 0, UNKNOWN]),
    ];
    for (seed, (structure, known)) in cases.into_iter().enumerate() {
        let random = &mut Random::new(700, seed as u64);
        let h = Values::Normal.draw(&structure, random);
        let mut errors = vec![];
        for (loss, factor) in [
            (Loss::Argmax { epsilon: 0.05 }, 1.0 / 0.05f32 as f64),
            (Loss::FenchelYoung { draws: 1 }, 1.0),
            (Loss::FenchelYoung { draws: 4 }, 1.0),
        ] {
            let (means, found) = drawn(&structure, &h, &known, loss, seed as u64);
            let (gradient, expected) = cross_entropy(&structure, &h, &known, factor);
            for (i, ([mean, error], expected)) in means.iter().zip(&gradient).enumerate() {
                assert!(
                    (mean - expected).abs() <= 4.0 * error,
                    "{structure:?}, {loss:?}, label {known:?}, potential {i}: {mean} +- {error}, should be {expected}"
                );
            }
            let [mean, error] = found;
            assert!((mean - expected).abs() < 4.0 * error, "{structure:?}: loss {mean} +- {error}, {expected}");
            errors.push(means.iter().map(|[_, error]| error * error).sum::<f64>());
        }
        // Four draws have a quarter of the variance; one is the label as the arg max, but for epsilon.
        assert!((errors[1] / errors[2] - 4.0).abs() < 0.2, "{errors:?}");
        assert!((errors[0] / errors[1] * 0.05 * 0.05 - 1.0).abs() < 1e-3, "{errors:?}");
    }
}

/// What the test above is worth: z_y without the noise of z* where a part of the label is unknown, a label with noise
/// of its own, the wrong sign, and a sum where a mean is meant are seen.
#[test]
fn wrong_fenchel_young_gradients_are_caught() {
    const ROWS: usize = 200_000;
    let structure = Categorical::product(2, 3).unwrap();
    let h = Values::Normal.draw(&structure, &mut Random::new(710, 0));
    let known = [1, UNKNOWN];
    let (expected, _) = cross_entropy(&structure, &h, &known, 1.0);
    let mut noise = vec![0.0; ROWS * 2 * 6];
    Noise::new(711, Purpose::Noise, 0).gumbel(&mut noise);
    let solve = |x: &[f32], gamma: Option<&[f32]>, known: &[u32]| {
        let perturbed: Vec<f32> = x.iter().enumerate().map(|(i, h)| h + gamma.map_or(0.0, |gamma| gamma[i])).collect();
        let (mut z, mut code) = ([0; 2], [0.0; 6]);
        conditioned_argmax(&structure, &perturbed, known, &mut z, &mut Memory::default()).unwrap();
        structure.encode(&z, &mut code);
        code
    };
    let free = [UNKNOWN; 2];
    for (wrong, right) in [("nothing", true), ("no noise", false), ("sign", false), ("sum", false)] {
        let (mut sums, mut squares) = ([0.0f64; 6], [0.0f64; 6]);
        for gamma in noise.chunks(12) {
            let star = [solve(&h, Some(&gamma[..6]), &free), solve(&h, Some(&gamma[6..]), &free)];
            let of = |draw: &[f32]| solve(&h, if wrong == "no noise" { None } else { Some(draw) }, &known);
            let label = [of(&gamma[..6]), of(&gamma[6..])];
            for i in 0..6 {
                let sum = star[0][i] + star[1][i] - label[0][i] - label[1][i];
                let factor = match wrong {
                    "sum" => 1.0,
                    "sign" => -0.5,
                    _ => 0.5,
                };
                sums[i] += (factor * sum) as f64;
                squares[i] += ((factor * sum) as f64).powi(2);
            }
        }
        let within = (0..6).all(|i| {
            let mean = sums[i] / ROWS as f64;
            let error = ((squares[i] / ROWS as f64 - mean * mean).max(0.0) / ROWS as f64).sqrt();
            (mean - expected[i]).abs() <= 4.0 * error + 1e-9
        });
        assert_eq!(within, right, "{wrong}");
    }
}

/// For every structure: draw by draw against enumeration, the gradient of the loss that is told, by differences.
fn check_fenchel_young<S: Sums + Clone + Into<AnyStructure>>(structure: S, test: u32) {
    const DRAWS: usize = 3;
    let structure: AnyStructure = structure.into();
    let listed = Listed::new(&structure);
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let supervision = Supervision::new(Loss::FenchelYoung { draws: DRAWS }, 0.5).unwrap();
    let mut memory = Memory::default();
    let (mut slopes, mut kinks) = (0, 0);
    for case in 0..40 {
        let random = &mut Random::new(test, case);
        let h = Values::Normal.draw(&structure, random);
        let noise: Vec<f32> = (0..DRAWS * u).map(|_| random.normal()).collect();
        let known = label(&listed, random);
        let what = format!("{structure:?}, case {case}, label {known:?}");
        if known.iter().all(|y| *y == UNKNOWN) || listed.best(&wide(&h), &known).1 == f64::NEG_INFINITY {
            continue;
        }
        let mut run = |h: &[f32]| {
            let mut gradient = vec![0.0; p];
            let labelled = Labelled { potentials: h, noise: &noise, known: &known, first: 0 };
            let found = supervision.add(&structure, labelled, 6.0, &mut gradient, &mut memory).unwrap();
            assert_eq!((found.loss.count, found.agreed.count), (1.0, DRAWS as f64), "{what}");
            (gradient, found)
        };
        let (gradient, found) = run(&h);
        let (mut expected, mut loss) = (vec![0.0; p], 0.0);
        for noise in noise.chunks(u) {
            let mut perturbed = wide(&h);
            perturbed.iter_mut().zip(noise).for_each(|(h, noise)| *h += *noise as f64);
            let ((star, most), (agreeing, value)) =
                (listed.best(&perturbed, &unknown(n)), listed.best(&perturbed, &known));
            loss += (most - value) / DRAWS as f64;
            // 6 * 0.5 / 3 = 1.
            let differences = listed.statistics[star].iter().zip(&listed.statistics[agreeing]);
            expected.iter_mut().zip(differences).for_each(|(e, (star, agreeing))| *e += star - agreeing);
        }
        assert_eq!(gradient, expected, "{what}");
        assert!((found.loss.sum - loss).abs() < 1e-5, "{what}: {} {loss}", found.loss.sum);
        for i in (0..p).filter(|i| *i < u || structure.takes_any_sign()) {
            let mut at = |step: f32| {
                let mut moved = h.clone();
                moved[i] += step;
                3.0 * run(&moved).1.loss.sum
            };
            // Linear but at the edges between arg maxima.
            let slope = (at(1.0 / 256.0) - at(-1.0 / 256.0)) * 128.0;
            slopes += 1;
            kinks += ((slope - gradient[i] as f64).abs() > 1e-3) as u32;
        }
    }
    assert!(slopes > 50 && kinks * 10 < slopes, "{structure:?}: {kinks} of {slopes}");
}

#[test]
fn fenchel_young_agrees_with_enumeration_and_its_gradient_is_that_of_its_loss() {
    check_fenchel_young(Categorical::product(3, 4).unwrap(), 720);
    check_fenchel_young(Pairwise::new(4).unwrap(), 721);
    check_fenchel_young(Supermodular::new(4).unwrap(), 722);
    check_fenchel_young(Chain::new(4, 3).unwrap(), 723);
    check_fenchel_young(Tree::new(4, 2, &[(0, 1), (0, 2), (2, 3)]).unwrap(), 724);
    check_fenchel_young(Subset::new(6, 3).unwrap(), 725);
    check_fenchel_young(SpanningTree::complete(4).unwrap(), 726);
    check_fenchel_young(Arborescence::new(4, 2).unwrap(), 727);
}

/// A labelled step has as much noise as the loss draws, and the decoder follows z_y of the first draw.
#[test]
fn a_labelled_step_follows_what_completes_the_label_in_the_first_draw() {
    const ROWS: usize = 20;
    let structure = Chain::new(3, 3).unwrap();
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let random = &mut Random::new(730, 0);
    let h: Vec<f32> = (0..ROWS).flat_map(|_| Values::Normal.draw(&structure, random)).collect();
    let known: Vec<u32> = (0..ROWS * n).map(|i| if i % 2 == 0 { (i % 3) as u32 } else { UNKNOWN }).collect();
    for (loss, draws) in [
        (Loss::Argmax { epsilon: 0.5 }, 1),
        (Loss::CrossEntropy, 1),
        (Loss::FenchelYoung { draws: 1 }, 1),
        (Loss::FenchelYoung { draws: 4 }, 4),
    ] {
        let supervision = Supervision::new(loss, 1.0).unwrap();
        let taught = Taught::new(supervision, known.clone());
        assert_eq!(taught.noise(&structure).unwrap(), draws * u);
        let noise: Vec<f32> = (0..ROWS * draws * u).map(|_| random.normal()).collect();
        let mut oracle = Closure::new(&structure, |_, _| 0.0);
        let found = estimate(&taught, &structure, &h, &noise, &mut oracle).unwrap();
        let [Kept::Assignments { row: 0, assignments, weights }] = &oracle.followed[..] else { panic!("{loss:?}") };
        assert_eq!(weights, &vec![1.0; ROWS]);
        let (mut z, mut memory, mut gradient) = (vec![0; n], Memory::default(), vec![0.0; ROWS * p]);
        for b in 0..ROWS {
            let mut perturbed = h[b * p..][..p].to_vec();
            perturbed.iter_mut().zip(&noise[b * draws * u..][..u]).for_each(|(h, g)| *h += g);
            conditioned_argmax(&structure, &perturbed, &known[b * n..][..n], &mut z, &mut memory).unwrap();
            assert_eq!(z, assignments[b * n..][..n]);
        }
        let noise = if loss == Loss::CrossEntropy { &[] } else { &noise[..] };
        let labelled = Labelled { potentials: &h, noise, known: &known, first: 0 };
        supervision.add(&structure, labelled, 1.0, &mut gradient, &mut memory).unwrap();
        assert_eq!(found.gradient, gradient, "{loss:?}");
    }
}

fn message<S: Structure>(structure: &S, known: &[u32]) -> String {
    check(structure, known).unwrap_err().to_string()
}

#[test]
fn labels_that_nothing_agrees_with_are_named() {
    let none = "none agrees with the label: ";
    for (found, expected) in [
        (
            message(&Subset::new(4, 2).unwrap(), &[1, 1, 1, UNKNOWN]),
            "2 elements are to be chosen, and the label leaves 3 to 4",
        ),
        (
            message(&Subset::new(4, 2).unwrap(), &[0, 0, 0, UNKNOWN]),
            "2 elements are to be chosen, and the label leaves 0 to 1",
        ),
        (
            message(&SpanningTree::complete(3).unwrap(), &[1, 1, 1]),
            "the edge (1, 2) closes a cycle of edges that must be there",
        ),
        (
            message(&Arborescence::new(3, 1).unwrap(), &[UNKNOWN, 0, UNKNOWN]),
            "0 cannot be the parent of 1 where 1 is the root",
        ),
        (
            message(&Arborescence::new(3, 1).unwrap(), &[UNKNOWN, 1, 2]),
            "2 cannot be the parent of 2 where 1 is the root",
        ),
    ] {
        assert!(found.contains(&format!("{none}{expected}")), "{found}");
        assert!(found.starts_with("example 0 of the batch: "), "{found}");
    }
    // What the solvers find.
    for found in [
        message(&SpanningTree::complete(3).unwrap(), &[0, 0, UNKNOWN]),
        message(&Permutation::new(3).unwrap(), &[2, UNKNOWN, 2]),
        message(&Arborescence::new(3, 1).unwrap(), &[2, UNKNOWN, 0]),
    ] {
        assert!(found.contains(none), "{found}");
    }
    // What potentials forbid.
    let (mut z, never) = ([0; 2], f32::NEG_INFINITY);
    let digit = Categorical::product(2, 2).unwrap();
    let found = conditioned_argmax(&digit, &[0.0, 0.0, 0.0, never], &[UNKNOWN, 1], &mut z, &mut Memory::default());
    assert!(found.unwrap_err().to_string().contains(none));
    let set = Subset::new(3, 1).unwrap();
    let found = ln_probability(&set, &[0.0, never, 0.0], &[UNKNOWN, 1, UNKNOWN], &mut Memory::default());
    let message = found.unwrap_err().to_string();
    assert!(message.contains(&format!("{none}variable 1 is to be 1, and its potential is -inf")), "{message}");
}

#[test]
fn labels_out_of_range_are_named() {
    let at = |variable: usize, value: u32, last: usize| {
        format!("example 1 of the batch: the label of variable {variable} is {value}: expected 0 to {last}, or unknown")
    };
    let first = |n: usize| unknown(n);
    let of = |row: &[u32]| [first(row.len()), row.to_vec()].concat();
    assert_eq!(message(&Categorical::product(2, 3).unwrap(), &of(&[UNKNOWN, 3])), at(1, 3, 2));
    assert_eq!(message(&Pairwise::new(2).unwrap(), &of(&[2, 0])), at(0, 2, 1));
    assert_eq!(message(&Supermodular::new(2).unwrap(), &of(&[2, 0])), at(0, 2, 1));
    assert_eq!(message(&Chain::new(2, 3).unwrap(), &of(&[0, 3])), at(1, 3, 2));
    assert_eq!(message(&Tree::new(2, 3, &[(0, 1)]).unwrap(), &of(&[0, 3])), at(1, 3, 2));
    assert_eq!(message(&Subset::new(3, 1).unwrap(), &of(&[0, 0, 2])), at(2, 2, 1));
    assert_eq!(message(&Permutation::new(3).unwrap(), &of(&[0, 5, 2])), at(1, 5, 2));
    assert_eq!(message(&SpanningTree::complete(3).unwrap(), &of(&[9, 0, 1])), at(0, 9, 1));
    assert_eq!(message(&Arborescence::new(3, 1).unwrap(), &of(&[3, UNKNOWN, 0])), at(0, 3, 2));
    // In training, whatever the draw is.
    let digit = Categorical::new(3).unwrap();
    for loss in [Loss::Argmax { epsilon: 1.0 }, Loss::FenchelYoung { draws: 1 }, Loss::CrossEntropy] {
        let labelled = Labelled { potentials: &[0.0; 6], noise: &[0.0; 6], known: &[1, 3], first: 0 };
        let supervision = Supervision::new(loss, 1.0).unwrap();
        let found = supervision.add(&digit, labelled, 1.0, &mut [0.0; 6], &mut Memory::default());
        assert_eq!(found.unwrap_err().to_string(), at(0, 3, 2));
    }
}

/// Sets whose elements nobody can exchange, without a `condition` of their own.
struct Own;

impl Structure for Own {
    type Scratch = ();
    fn potentials(&self) -> usize {
        2
    }
    fn unary(&self) -> usize {
        2
    }
    fn variables(&self) -> usize {
        2
    }
    fn code(&self) -> Code {
        Code::Indicators
    }
    fn scratch(&self) {}
    fn argmax(&self, h: &[f32], z: &mut [u32], _: &mut ()) -> Result<Maximum, Error> {
        z.fill((h[0] + h[1] > 0.0) as u32);
        Ok(Maximum::proved((h[0] + h[1]).max(0.0) as f64))
    }
    fn add_statistics(&self, z: &[u32], scale: f32, out: &mut [f32]) {
        out.iter_mut().zip(z).for_each(|(o, z)| *o += scale * *z as f32);
    }
}

#[test]
fn what_is_wrong_beside_labels_is_an_error_too() {
    assert!(matches!(
        conditioned_argmax(&Own, &[0.0; 2], &[1, 1], &mut [0; 2], &mut Memory::default()),
        Err(Error::NoLabels)
    ));
    let order: AnyStructure = Permutation::new(3).unwrap().into();
    let supervision = Supervision::new(Loss::CrossEntropy, 1.0).unwrap();
    let labelled = Labelled { potentials: &[0.0; 9], noise: &[], known: &[0, 1, 2], first: 0 };
    let found = supervision.add(&order, labelled, 1.0, &mut [0.0; 9], &mut Memory::default());
    assert!(matches!(found, Err(Error::NoSums { .. })) && supervision.check(&order).is_err());
    assert!(ln_probability(&order, &[0.0; 9], &[0, 1, 2], &mut Memory::default()).is_err());

    let digit = Categorical::new(3).unwrap();
    let supervision = Supervision::new(Loss::Argmax { epsilon: 0.1 }, 1.0).unwrap();
    let add = |potentials: &[f32], noise: &[f32], known: &[u32], gradient: usize| {
        let labelled = Labelled { potentials, noise, known, first: 10 };
        let mut gradient = vec![0.0; gradient];
        supervision.add(&digit, labelled, 1.0, &mut gradient, &mut Memory::default()).unwrap_err()
    };
    assert!(matches!(add(&[0.0; 4], &[0.0; 4], &[0], 4), Error::Length { what: "potentials", .. }));
    assert!(matches!(add(&[0.0; 6], &[0.0; 6], &[0], 6), Error::Length { what: "labels", .. }));
    assert!(matches!(add(&[0.0; 6], &[0.0; 3], &[0, 0], 6), Error::Length { what: "noise", .. }));
    let three = Supervision::new(Loss::FenchelYoung { draws: 3 }, 1.0).unwrap();
    let labelled = Labelled { potentials: &[0.0; 6], noise: &[0.0; 6], known: &[0, 0], first: 0 };
    let short = three.add(&digit, labelled, 1.0, &mut [0.0; 6], &mut Memory::default());
    assert!(matches!(short, Err(Error::Length { what: "noise", expected: 18, found: 6 })), "{short:?}");
    assert!(matches!(add(&[0.0; 6], &[0.0; 6], &[0, 0], 3), Error::Length { what: "gradient", .. }));
    let found = add(&[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0], &[0.0; 6], &[0, 1], 6);
    assert!(matches!(found, Error::Example { example: 11, .. }), "{found}");
    let nan = ln_probability(&digit, &[0.0, f32::NAN, 0.0], &[0], &mut Memory::default());
    assert!(matches!(nan, Err(Error::NotANumber { index: 1, .. })), "{nan:?}");

    for (loss, weight) in [
        (Loss::Argmax { epsilon: 0.0 }, 1.0),
        (Loss::Argmax { epsilon: f32::NAN }, 1.0),
        (Loss::Argmax { epsilon: f32::INFINITY }, 1.0),
        (Loss::FenchelYoung { draws: 0 }, 1.0),
        (Loss::CrossEntropy, -1.0),
        (Loss::CrossEntropy, f32::INFINITY),
    ] {
        assert!(Supervision::new(loss, weight).is_err(), "{loss:?} {weight}");
    }
}

/// The rows of a batch do not know of each other: parts of it give the same, to the bit.
#[test]
fn parts_of_a_batch_add_up() {
    let structure = Chain::new(3, 4).unwrap();
    let (p, u, n, rows) = (structure.potentials(), structure.unary(), structure.variables(), 12);
    let listed = Listed::new(&structure);
    let random = &mut Random::new(800, 0);
    let draw = |random: &mut Random| Values::Normal.draw(&structure, random);
    let potentials: Vec<f32> = (0..rows).flat_map(|_| draw(random)).collect();
    let noise: Vec<f32> = (0..rows * u).map(|_| random.normal()).collect();
    let state = |random: &mut Random| listed.states[random.below(listed.states.len())].clone();
    let mut known: Vec<u32> = (0..rows).flat_map(|_| state(random)).collect();
    known.iter_mut().filter(|_| random.below(2) == 0).for_each(|y| *y = UNKNOWN);
    for loss in [Loss::Argmax { epsilon: 0.05 }, Loss::CrossEntropy] {
        let supervision = Supervision::new(loss, 2.0).unwrap();
        let run = |piece: usize| {
            let (mut gradient, mut outcome) = (vec![0.0; rows * p], Outcome::default());
            for first in (0..rows).step_by(piece) {
                let labelled = Labelled {
                    potentials: &potentials[first * p..][..piece * p],
                    noise: &noise[first * u..][..piece * u],
                    known: &known[first * n..][..piece * n],
                    first,
                };
                let gradient = &mut gradient[first * p..][..piece * p];
                let found = supervision.add(&structure, labelled, 0.1, gradient, &mut Memory::default());
                outcome.merge(&found.unwrap());
            }
            (gradient, outcome)
        };
        let whole = run(rows);
        assert!(whole.1.loss.count > 0.0 && whole.0.iter().any(|g| *g != 0.0));
        assert_eq!(whole, run(1));
        assert_eq!(whole, run(4));
    }
}

#[test]
fn agreements_are_counted() {
    let found = agreement(&[0, 1, 2], &[UNKNOWN; 3], 1).unwrap();
    assert_eq!(found, Agreement::default());
    assert!(found.accuracy().is_nan() && found.row_accuracy().is_nan());
    assert!(agreement(&[0, 1, 2], &[0, 1], 1).is_err());
    assert!(agreement(&[0, 1, 2], &[0, 1, 2], 2).is_err());
    let structure = Categorical::product(2, 3).unwrap();
    let (h, mut z) = ([0.0, 1.0, 0.0, 3.0, 0.0, 0.0], [0; 2]);
    argmax_batch(&structure, &h, &mut z).unwrap();
    let mut found = agreement(&z, &[1, 2], 2).unwrap();
    assert_eq!(found, Agreement { asked: 2, correct: 1, rows_asked: 1, rows_correct: 0 });
    found.merge(&agreement(&z, &[1, 0], 2).unwrap());
    assert_eq!((found.accuracy(), found.row_accuracy()), (0.75, 0.5));
}
