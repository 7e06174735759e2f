//! VIMCO: the bound of several samples, against its derivative by enumeration of all tuples of states.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Estimator, KlTerm, Marginal, Memory, Piece, Vimco, estimate, estimators};
use gumbel::oracle::{Closure, Kept, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Permutation, Structure, Subset, Sums};
use std::collections::HashMap;

/// All states with their statistics and losses.
struct States {
    statistics: Vec<Vec<f32>>,
    losses: Vec<f64>,
}

impl States {
    fn of<S: Structure>(structure: &S, losses: &[f32]) -> Self {
        let mut z = vec![0; structure.variables()];
        let statistics = |s| {
            let mut out = vec![0.0; structure.potentials()];
            structure.state(s, &mut z);
            structure.add_statistics(&z, 1.0, &mut out);
            out
        };
        States { statistics: (0..losses.len()).map(statistics).collect(), losses: doubles(losses) }
    }

    fn q(&self, h: &[f64]) -> Vec<f64> {
        let score = |s: &Vec<f32>| s.iter().zip(h).map(|(s, h)| *s as f64 * h).sum::<f64>();
        softmax64(self.statistics.iter().map(score).collect::<Vec<_>>().into_iter())
    }

    /// Calls `f(probability, states, weights)` for all tuples of `samples` states.
    fn tuples(&self, h: &[f64], samples: usize, mut f: impl FnMut(f64, &[usize], &[f64])) {
        let (q, states) = (self.q(h), self.losses.len());
        let weight = |s: usize| (-self.losses[s]).exp() / (q[s] * states as f64);
        for tuple in 0..states.pow(samples as u32) {
            let of: Vec<usize> = (0..samples).map(|m| tuple / states.pow(m as u32) % states).collect();
            let weights: Vec<f64> = of.iter().map(|s| weight(*s)).collect();
            f(of.iter().map(|s| q[*s]).product(), &of, &weights);
        }
    }

    /// -L_M.
    fn objective(&self, h: &[f64], samples: usize) -> f64 {
        let mut bound = 0.0;
        self.tuples(h, samples, |p, _, w| bound += p * (w.iter().sum::<f64>() / samples as f64).ln());
        -bound
    }

    /// Its derivative by central differences: no formula of gradients stands behind it.
    fn gradient(&self, h: &[f32], samples: usize) -> Vec<f64> {
        const STEP: f64 = 1e-4;
        let at = |i: usize, d: f64| {
            let mut h = doubles(h);
            h[i] += d;
            self.objective(&h, samples)
        };
        (0..h.len()).map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP)).collect()
    }

    /// The mean weights of the states that the decoder follows.
    fn followed(&self, h: &[f32], samples: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.losses.len()];
        self.tuples(&doubles(h), samples, |p, of, w| {
            let sum: f64 = w.iter().sum();
            of.iter().zip(w).for_each(|(s, w)| out[*s] += p * w / sum);
        });
        out
    }
}

/// Structures with the most samples whose tuples are enumerated.
fn structures() -> Vec<(AnyStructure, usize)> {
    let sizes = [(1, 2, 4), (1, 3, 3), (1, 5, 3), (3, 2, 3), (3, 3, 2), (2, 5, 2)];
    let independent = sizes.map(|(n, k, m)| (AnyStructure::from(Categorical::product(n, k).unwrap()), m));
    let coupled: [(AnyStructure, usize); 3] = [
        (Chain::new(3, 2).unwrap().into(), 3),
        (Pairwise::new(3).unwrap().into(), 3),
        (Subset::new(4, 2).unwrap().into(), 3),
    ];
    independent.into_iter().chain(coupled).collect()
}

fn problem(structure: &AnyStructure, seed: u64) -> (Vec<f32>, Table, States) {
    let (h, loss) = (potentials(structure, seed), Loss::new(structure, 0.5, seed + 1));
    let table = Table::of(structure, |code| 40.0 + loss.of(code));
    let states = States::of(structure, table.all());
    (h, table, states)
}

#[test]
fn it_averages_to_the_derivative_of_the_bound_of_several_samples() {
    for (case, (structure, most)) in structures().into_iter().enumerate() {
        let seed = 8300 + 10 * case as u64;
        let (h, mut oracle, states) = problem(&structure, seed);
        for samples in [2, most].into_iter().take(if most > 2 { 2 } else { 1 }) {
            let expected = states.gradient(&h, samples);
            let found = mean_of(&Vimco, &structure, &h, &mut oracle, samples, 200_000, seed + samples as u64);
            assert_within_four_standard_errors(&format!("{structure:?}, {samples}"), &found, &expected);
            assert!(expected.iter().any(|g| g.abs() > 0.01) && found.error.iter().all(|e| *e > 0.0));
            assert_eq!(oracle.followed, samples * 200_000);
            oracle.followed = 0;
        }
    }
}

/// Weights of each state by example, for standard errors.
fn weights_of_states(structure: &AnyStructure, kept: &[Kept], states: usize, examples: usize) -> Vec<f64> {
    let n = structure.variables();
    let (mut indices, mut z) = (HashMap::new(), vec![0; n]);
    for s in 0..states {
        structure.state(s, &mut z);
        indices.insert(z.clone(), s);
    }
    let mut weights = vec![0.0; examples * states];
    for (number, kept) in kept.iter().enumerate() {
        let Kept::Assignments { row, assignments, weights: of } = kept else { panic!("{kept:?}") };
        assert_eq!(*row, number);
        for (b, (z, w)) in assignments.chunks_exact(n).zip(of).enumerate() {
            weights[b * states + indices[z]] += *w as f64;
        }
    }
    weights
}

#[test]
fn the_decoder_follows_samples_by_their_weights() {
    const EXAMPLES: usize = 40_000;
    for (case, (structure, samples)) in structures().into_iter().enumerate() {
        let (h, table, states) = problem(&structure, 8500 + 10 * case as u64);
        let expected = states.followed(&h, samples);
        let noise = gumbel(samples * EXAMPLES * Estimator::<AnyStructure>::noise(&Vimco, &structure).unwrap(), 8600, 0);
        let loss = Loss::new(&structure, 0.5, 8501 + 10 * case as u64);
        let mut oracle = Closure::new(&structure, |_, code| 40.0 + loss.of(code));
        estimate(&Vimco, &structure, &h.repeat(EXAMPLES), &noise, &mut oracle).unwrap();
        assert_eq!(oracle.followed.len(), samples);
        let count = table.all().len();
        let weights = weights_of_states(&structure, &oracle.followed, count, EXAMPLES);
        for row in weights.chunks(count) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        }
        for (s, expected) in expected.iter().enumerate() {
            let of_state = || weights.iter().skip(s).step_by(count);
            let mean = of_state().sum::<f64>() / EXAMPLES as f64;
            let variance = of_state().map(|w| (w - mean).powi(2)).sum::<f64>() / EXAMPLES as f64;
            let error = (variance / EXAMPLES as f64).sqrt().max((expected / EXAMPLES as f64).sqrt() / 4.0);
            assert!((mean - expected).abs() <= 4.0 * error, "{structure:?}, {s}: {mean} {expected} {error}");
        }
    }
}

/// With very many samples every draw has the posterior's weights, and the encoder's gradient the size of 1/M.
#[test]
fn with_many_samples_the_decoder_follows_the_posterior() {
    const EXAMPLES: usize = 50;
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    let (h, table, _) = problem(&structure, 8700);
    let loss = Loss::new(&structure, 0.5, 8701);
    let mut oracle = Closure::new(&structure, |_, code| 40.0 + loss.of(code));
    estimate(&Marginal, &structure, &h, &[], &mut oracle).unwrap();
    let Kept::States(posterior) = oracle.followed.remove(0) else { panic!() };
    let mut distance = |samples: usize| {
        oracle.followed.clear();
        let noise = gumbel(samples * EXAMPLES * structure.unary(), 8702, samples as u64);
        estimate(&Vimco, &structure, &h.repeat(EXAMPLES), &noise, &mut oracle).unwrap();
        let weights = weights_of_states(&structure, &oracle.followed, table.all().len(), EXAMPLES);
        let mean = |s: usize| weights.iter().skip(s).step_by(posterior.len()).sum::<f64>() / EXAMPLES as f64;
        posterior.iter().enumerate().map(|(s, p)| (mean(s) - *p as f64).abs()).fold(0.0, f64::max)
    };
    let (few, many) = (distance(2), distance(400));
    assert!(many < 0.02 && many < few / 3.0, "{few} {many}");
}

/// The formula in f64 without any care for overflow, and with something wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plain {
    Right,
    /// Minus the signal.
    Sign,
    /// Without the gradient of the weights.
    NoWeights,
    /// Its sign.
    WeightsSign,
    /// ln w_m stands in the mean for itself.
    OwnWeight,
    /// ln q without its normaliser.
    NoMean,
    /// Weights without q: those of samples of the prior.
    NoProposal,
    /// The mean over the samples taken twice.
    MeanTwice,
}

impl<S: Sums> Estimator<S> for Plain {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn least_samples(&self) -> usize {
        2
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, count, samples) = (piece.structure, piece.count(), piece.samples);
        let (p, n, scale) = (structure.potentials(), structure.variables(), piece.scale * samples as f32);
        let (mut all, mut losses) = (vec![], vec![0.0; samples * count]);
        for sample in 0..samples {
            piece.draw(sample)?;
            let z = &piece.memory.assignments[..count * n];
            oracle.losses(piece.of, z, &mut losses[sample * count..][..count])?;
            all.extend_from_slice(z);
        }
        let mut q = vec![0.0; p];
        for (b, gradient) in piece.gradient.chunks_exact_mut(p).enumerate() {
            let h = &piece.potentials[b * p..][..p];
            let ln_z = structure.marginals(h, &mut q)?;
            let z = |m: usize| &all[(m * count + b) * n..][..n];
            let ln = |m: usize| {
                let ln_q = structure.score(h, z(m)) - ln_z;
                -losses[m * count + b] as f64 - if *self == Plain::NoProposal { 0.0 } else { ln_q }
            };
            let mean = |w: &dyn Fn(usize) -> f64| ((0..samples).map(w).sum::<f64>() / samples as f64).ln();
            let bound = mean(&|m| ln(m).exp());
            for m in 0..samples {
                let others = match self {
                    Plain::OwnWeight => (0..samples).map(ln).sum::<f64>() / samples as f64,
                    _ => (0..samples).filter(|l| *l != m).map(ln).sum::<f64>() / (samples - 1) as f64,
                };
                let without = mean(&|l| if l == m { others.exp() } else { ln(l).exp() });
                let weight = (ln(m) - bound).exp() / samples as f64;
                let term = match self {
                    Plain::Sign => weight + (bound - without),
                    Plain::NoWeights => without - bound,
                    Plain::WeightsSign => -weight + (without - bound),
                    Plain::MeanTwice => (weight + (without - bound)) / samples as f64,
                    _ => weight + (without - bound),
                };
                structure.add_statistics(z(m), scale * term as f32, gradient);
                if *self != Plain::NoMean {
                    gradient.iter_mut().zip(&q).for_each(|(g, q)| *g -= scale * term as f32 * q);
                }
            }
        }
        Ok(())
    }
}

/// What the test of the mean is worth, and that the right one is ours draw by draw.
#[test]
fn wrong_bounds_are_caught() {
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    let (h, loss) = (potentials(&structure, 8800), Loss::new(&structure, 0.5, 8801));
    let mut oracle = Table::of(&structure, |code| 2.0 + loss.of(code));
    let states = States::of(&structure, oracle.all());
    let expected = states.gradient(&h, 2);
    use Plain::*;
    for plain in [Right, Sign, NoWeights, WeightsSign, OwnWeight, NoMean, NoProposal, MeanTwice] {
        let found = mean_of(&plain, &structure, &h, &mut oracle, 2, 200_000, 8802);
        assert_eq!(is_within_four_standard_errors(&found, &expected), plain == Right, "{plain:?}");
    }
    let (batch, samples) = (300, 5);
    let (h, noise) = (random(6 * batch, 1.0, 8803), gumbel(6 * samples * batch, 8804, 0));
    let [ours, plain] = [&Vimco as &dyn Estimator, &Plain::Right]
        .map(|estimator| estimate(estimator, &structure, &h, &noise, &mut oracle).unwrap().gradient);
    assert!(ours.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + b.abs())));
}

/// Losses of thousands of nats, far apart, and potentials that make q nearly one-hot.
#[test]
fn large_losses_keep_their_digits() {
    let structure = Categorical::new(3).unwrap();
    let noise = gumbel(3 * 4 * 200, 8900, 0);
    let at = |constant: f32, spread: f32| {
        let mut oracle = Closure::new(&structure, |_, code| constant + spread * (code[1] + 2.0 * code[2]));
        let h = [3.0, -1.0, 0.5].repeat(200);
        estimate(&Vimco, &structure, &h, &noise, &mut oracle).unwrap().gradient
    };
    let (small, large) = (at(0.0, 2.0), at(4096.0, 2.0));
    assert!(small.iter().zip(&large).all(|(a, b)| (a - b).abs() < 1e-5));
    assert!(at(1e6, 1e6).iter().all(|g| g.is_finite()));
    let mut oracle = Closure::new(&structure, |_, code| code[0]);
    let h = [400.0, -400.0, 0.0].repeat(200);
    let found = estimate(&Vimco, &structure, &h, &noise, &mut oracle).unwrap().gradient;
    assert!(found.iter().all(|g| *g == 0.0));
}

#[test]
fn what_it_cannot_have_is_an_error() {
    let all = estimators();
    let entry = all.get("vimco").unwrap();
    let permutation: AnyStructure = Permutation::new(4).unwrap().into();
    let error = entry.build(&Settings::defaults(entry.settings()), &permutation).err().unwrap();
    assert!(matches!(error, Error::NoSums { .. }), "{error}");
    let structure = Categorical::new(2).unwrap();
    let any: AnyStructure = structure.into();
    let built = entry.build(&Settings::defaults(entry.settings()), &any).unwrap();
    assert_eq!((built.kl(&any), built.least_samples(), built.rows(5)), (KlTerm::Within, 2, 5));
    let run = |h: &[f32], loss: f32| {
        let oracle = &mut Closure::new(&any, |b, _| if b == 1 { loss } else { 1.0 });
        estimate(&*built, &any, h, &[0.0; 8], oracle).map(drop)
    };
    run(&[0.0; 4], 1.0).unwrap();
    for loss in [f32::NAN, f32::INFINITY] {
        let error = run(&[0.0; 4], loss).unwrap_err().to_string();
        assert!(error.starts_with("example 1 of the batch: loss 0 is "), "{error}");
    }
    assert!(run(&[0.0, 1.0, f32::NAN, 0.0], 1.0).is_err());
    let oracle = &mut Closure::new(&any, |_, _| 1.0);
    let error = estimate(&*built, &any, &[0.0; 4], &[0.0; 4], oracle).unwrap_err().to_string();
    assert_eq!(error, "samples = 1: expected at least 2: vimco compares each with the others");
    // No example, no estimate.
    let two = ByHand { samples: 2, scale: 0.5, parallel: false, first: 0 };
    piece(&*built, &any, (&[], &[]), &two, oracle, &mut Memory::default(), &mut []).unwrap();
}

/// A value that is forbidden is not drawn, and nothing is learned about it.
#[test]
fn forbidden_values_have_no_gradient() {
    let structure = Categorical::new(3).unwrap();
    let (h, noise) = ([0.3, f32::NEG_INFINITY, -0.2].repeat(100), gumbel(600, 8950, 0));
    let oracle = &mut Closure::new(&structure, |_, code| 3.0 * code[0] + code[2]);
    let gradient = estimate(&Vimco, &structure, &h, &noise, oracle).unwrap().gradient;
    assert!(gradient.chunks(3).all(|g| g[1] == 0.0) && gradient.iter().all(|g| g.is_finite()));
    assert!(gradient.iter().any(|g| *g != 0.0));
}
