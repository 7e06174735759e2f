//! Estimators that go back through exact marginals: SIMPLE, and stochastic softmax tricks.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{
    Estimator, Exact, Follows, GumbelSoftmax, Moment, Piece, Simple, Slopes, SoftmaxTrick, estimate, estimators,
};
use gumbel::oracle::{Closure, Kept, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Permutation, Structure, Subset, Sums};

/// Independent variables, and those of common.rs with sums.
fn structures() -> Vec<AnyStructure> {
    let sizes = [(1, 2), (1, 3), (1, 5), (3, 2), (3, 3), (3, 5)];
    let independent = sizes.map(|(n, k)| AnyStructure::from(Categorical::product(n, k).unwrap()));
    let coupled = structured().into_iter().filter(|s| s.has_sums() && !s.is_independent());
    let all: Vec<AnyStructure> = independent.into_iter().chain(coupled).collect();
    assert_eq!(all.len(), 6 + 8);
    all
}

/// The statistics of all states.
fn statistics<S: Structure>(structure: &S) -> Vec<Vec<f64>> {
    let mut z = vec![0; structure.variables()];
    let of = |s| {
        structure.state(s, &mut z);
        let mut out = vec![0.0; structure.potentials()];
        structure.add_statistics(&z, 1.0, &mut out);
        doubles(&out)
    };
    (0..structure.states().unwrap()).map(of).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).filter(|(a, _)| **a != 0.0).map(|(a, b)| a * b).sum()
}

/// Probabilities of all states.
fn gibbs(statistics: &[Vec<f64>], h: &[f64]) -> Vec<f64> {
    let scores: Vec<f64> = statistics.iter().map(|s| dot(s, h)).collect();
    softmax64(scores.into_iter())
}

fn mean(statistics: &[Vec<f64>], q: &[f64]) -> Vec<f64> {
    let of = |i: usize| statistics.iter().zip(q).map(|(s, q)| q * s[i]).sum();
    (0..statistics[0].len()).map(of).collect()
}

/// `Cov[s] direction`, where the direction belongs to the first statistics.
fn covariance(statistics: &[Vec<f64>], q: &[f64], direction: &[f64]) -> Vec<f64> {
    let mean = mean(statistics, q);
    let centre = dot(direction, &mean);
    let mut out = vec![0.0; mean.len()];
    for (s, q) in statistics.iter().zip(q) {
        let weight = q * (dot(direction, s) - centre);
        out.iter_mut().zip(s).for_each(|(o, s)| *o += weight * s);
    }
    out
}

/// The mean of SIMPLE by enumeration.
fn simple_mean<S: Structure>(structure: &S, h: &[f32], oracle: &mut dyn Oracle) -> Vec<f64> {
    let (statistics, u) = (statistics(structure), structure.unary());
    let q = gibbs(&statistics, &doubles(h));
    let mut out = vec![0.0; h.len()];
    for (s, probability) in statistics.iter().zip(&q) {
        let code: Vec<f32> = s[..u].iter().map(|s| *s as f32).collect();
        let (mut loss, mut slope) = ([0.0], vec![0.0; u]);
        oracle.slopes(&[0], &code, &mut loss, &mut slope).unwrap();
        let back = covariance(&statistics, &q, &doubles(&slope));
        out.iter_mut().zip(back).for_each(|(o, b)| *o += probability * b);
    }
    out
}

fn largest_distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn simple_has_the_mean_of_its_closed_form() {
    for (case, structure) in structures().into_iter().enumerate() {
        let seed = 10_000 + 10 * case as u64;
        let (h, loss) = (potentials(&structure, seed), Loss::new(&structure, 0.5, seed + 1));
        let table = &mut Table::with_slopes(&structure, |code| loss.of(code) + loss.of(code).sin());
        let expected = simple_mean(&structure, &h, table);
        let draws = if structure.is_independent() { 200_000 } else { 60_000 };
        for samples in [1, 2] {
            let found = mean_of(&Simple, &structure, &h, table, samples, draws / samples, seed + samples as u64);
            assert!(found.error.iter().any(|e| *e > 0.0));
            assert_within_four_standard_errors(&format!("{structure:?}, {samples}"), &found, &expected);
        }
    }
}

/// Of a linear loss the slope is the same everywhere; with a square in it, the bias is in proportion to it.
#[test]
fn simple_is_exact_for_linear_losses_and_its_bias_is_of_second_order() {
    for (case, structure) in structures().into_iter().enumerate() {
        let seed = 10_200 + 10 * case as u64;
        let h = potentials(&structure, seed);
        let linear = Loss::new(&structure, 0.0, seed + 1);
        let mut oracle = Closure::new(&structure, |_, code| linear.of(code));
        let expected = doubles(&estimate(&Exact, &structure, &h, &[], &mut oracle).unwrap().gradient);
        for draw in 0..5 {
            let noise = gumbel(Simple.noise(&structure).unwrap(), seed + 2, draw);
            let found = estimate(&Simple, &structure, &h, &noise, &mut oracle).unwrap().gradient;
            assert!(largest_distance(&doubles(&found), &expected) < 1e-4, "{structure:?}: {found:?} {expected:?}");
        }
        let bias = |curvature: f32| -> Vec<f64> {
            let loss = Loss::new(&structure, curvature, seed + 1);
            let mut table = Table::with_slopes(&structure, |code| loss.of(code));
            let expected = exact(&structure, &h, &mut table);
            simple_mean(&structure, &h, &mut table).iter().zip(&expected).map(|(m, e)| m - *e as f64).collect()
        };
        let (large, small) = (bias(1.0), bias(0.5));
        let doubled: Vec<f64> = small.iter().map(|b| 2.0 * b).collect();
        let size = large.iter().fold(0.0f64, |m, b| m.max(b.abs()));
        assert!(size > 1e-2, "{structure:?}: no bias to see");
        assert!(largest_distance(&large, &doubled) < 1e-3 + 0.01 * size, "{structure:?}: {large:?} {small:?}");
    }
}

/// SIMPLE with something wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// The perturbed arg max, which is no sample of q where variables are coupled.
    ArgMax,
    /// `E[s <s, d>]`.
    NotCentred,
    /// The derivative at unary potentials only.
    Unary,
    /// Twice the covariance.
    Doubled,
}

impl Estimator<Chain> for Wrong {
    fn questions(&self, _: &Chain) -> Questions {
        Questions::NONE
    }

    fn noise(&self, structure: &Chain) -> Result<usize, Error> {
        Ok(structure.unary().max(Simple.noise(structure)?))
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn estimate(&self, piece: &mut Piece<'_, Chain>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        match self {
            Wrong::ArgMax => {
                piece.draw(0)?;
                piece.follow_sample(0, oracle)
            }
            _ => Simple.estimate(piece, oracle),
        }
    }

    fn resume(&self, piece: &mut Piece<'_, Chain>, slopes: Slopes<'_>) -> Result<(), Error> {
        let structure = piece.structure;
        let (p, u) = (structure.potentials(), structure.unary());
        let mut marginals = vec![0.0; p];
        for (b, slope) in slopes.row(0, piece.count(), u).chunks(u).enumerate() {
            let (h, gradient) = (&piece.potentials[b * p..][..p], &mut piece.gradient[b * p..][..p]);
            let direction = [slope, &vec![0.0; p - u]].concat();
            let scale = if *self == Wrong::Doubled { 2.0 } else { 1.0 };
            structure.covariance(h, &direction, scale, gradient)?;
            match self {
                Wrong::NotCentred => {
                    structure.marginals(h, &mut marginals)?;
                    let mean: f32 = marginals.iter().zip(&direction).map(|(m, d)| m * d).sum();
                    gradient.iter_mut().zip(&marginals).for_each(|(g, m)| *g += mean * m);
                }
                Wrong::Unary => gradient[u..].fill(0.0),
                _ => {}
            }
        }
        Ok(())
    }
}

#[test]
fn wrong_forms_of_simple_are_caught() {
    let structure = Chain::new(3, 3).unwrap();
    let (h, loss) = (random(structure.potentials(), 0.8, 10_400), Loss::new(&structure, 0.5, 10_401));
    let table = &mut Table::with_slopes(&structure, |code| loss.of(code));
    let expected = simple_mean(&structure, &h, table);
    use Wrong::*;
    for wrong in [Nothing, ArgMax, NotCentred, Unary, Doubled] {
        let found = mean_of(&wrong, &structure, &h, table, 1, 100_000, 10_402);
        assert_eq!(is_within_four_standard_errors(&found, &expected), wrong == Nothing, "{wrong:?}");
    }
}

#[test]
fn the_decoder_follows_samples_of_q() {
    for (case, structure) in structures().into_iter().enumerate() {
        let h = potentials(&structure, 10_500 + case as u64);
        let simple: &dyn Estimator = &Simple;
        let samples = 1 + case % 3;
        assert_follows_q(&format!("{structure:?}"), (simple, &structure), &h, samples, 10_600 + case as u64);
    }
}

/// `E[s]` of the potentials `(h + gamma) / tau`, in f64.
fn relaxed(statistics: &[Vec<f64>], h: &[f64], gamma: &[f32], tau: f64) -> Vec<f64> {
    let gamma = gamma.iter().map(|g| *g as f64).chain(std::iter::repeat(0.0));
    let perturbed: Vec<f64> = h.iter().zip(gamma).map(|(h, g)| (h + g) / tau).collect();
    mean(statistics, &gibbs(statistics, &perturbed))
}

#[test]
fn softmax_trick_is_the_derivative_of_the_relaxed_objective() {
    const SAMPLES: usize = 2;
    for (case, structure) in structures().into_iter().enumerate() {
        let (p, u, batch) = (structure.potentials(), structure.unary(), 4);
        let statistics = statistics(&structure);
        let h: Vec<f32> = (0..batch).flat_map(|b| potentials(&structure, 10_700 + 10 * case as u64 + b)).collect();
        let losses: Vec<Loss> = (0..batch).map(|b| Loss::new(&structure, 0.5, 10_900 + 2 * b)).collect();
        let batch = batch as usize;
        let noise = gumbel(SAMPLES * batch * u, 10_950, case as u64);
        for tau in [0.5f64, 1.0, 2.0] {
            let mut oracle = Closure::new(&structure, |b, code| losses[b].of(code));
            let trick = SoftmaxTrick::new(tau as f32).unwrap();
            let found = estimate(&trick, &structure, &h, &noise, &mut oracle).unwrap().gradient;
            let mut largest = 0.0f64;
            for b in 0..batch {
                let objective = |h: &[f64]| -> f64 {
                    let gamma = |m: usize| &noise[(m * batch + b) * u..][..u];
                    let value = |m| losses[b].of64(&relaxed(&statistics, h, gamma(m), tau)[..u]);
                    (0..SAMPLES).map(value).sum::<f64>() / SAMPLES as f64
                };
                let h = doubles(&h[b * p..][..p]);
                let found = &found[b * p..][..p];
                for i in 0..p {
                    let at = |d: f64| {
                        let mut x = h.clone();
                        x[i] += d;
                        objective(&x)
                    };
                    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let close = |found: f64| (found - numeric).abs() < 1e-3 * (1.0 + numeric.abs());
                    assert!(close(found[i] as f64), "{structure:?}, tau = {tau}, {i}: {} {numeric}", found[i]);
                    // 1 / tau is seen.
                    let forgotten = found[i] as f64 * tau;
                    assert!(tau == 1.0 || numeric.abs() < 0.02 || !close(forgotten), "{forgotten} {numeric}");
                    largest = largest.max(numeric.abs());
                }
                assert!(p == u || found[u..].iter().any(|g| g.abs() > 1e-3), "{structure:?}: couplings are left out");
            }
            assert!(largest > 0.1, "{structure:?}: nothing to compare");
            // The decoder follows the unary marginals.
            assert_eq!(oracle.followed.len(), SAMPLES);
            for (m, kept) in oracle.followed.iter().enumerate() {
                let Kept::Codes { row, codes, weights } = kept else { panic!("{kept:?}") };
                assert!(*row == m && weights.iter().all(|w| *w == 1.0 / SAMPLES as f32));
                let gamma = &noise[m * batch * u..][..u];
                let expected = relaxed(&statistics, &doubles(&h[..p]), gamma, tau);
                assert!(largest_distance(&doubles(&codes[..u]), &expected[..u]) < 1e-5, "{structure:?}");
            }
        }
    }
}

#[test]
fn of_independent_variables_a_softmax_trick_is_gumbel_softmax() {
    for (n, k) in [(1, 2), (1, 5), (3, 4)] {
        let structure = Categorical::product(n, k).unwrap();
        let loss = Loss::new(&structure, 0.5, 11_000);
        let (h, noise) = (random(20 * n * k, 1.0, 11_001), gumbel(3 * 20 * n * k, 11_002, k as u64));
        for tau in [0.3, 1.0, 4.0] {
            let run = |estimator: &dyn Estimator<Categorical>| {
                let mut oracle = Closure::new(&structure, |_, code| loss.of(code));
                let gradient = estimate(estimator, &structure, &h, &noise, &mut oracle).unwrap().gradient;
                let followed = oracle.followed.iter().flat_map(|kept| match kept {
                    Kept::Codes { codes, .. } => doubles(codes),
                    other => panic!("{other:?}"),
                });
                (doubles(&gradient), followed.collect::<Vec<f64>>())
            };
            let trick = run(&SoftmaxTrick::new(tau).unwrap());
            let softmax = run(&GumbelSoftmax::new(tau).unwrap());
            assert!(largest_distance(&trick.1, &softmax.1) < 1e-6);
            assert!(largest_distance(&trick.0, &softmax.0) < 2e-4, "n = {n}, K = {k}, tau = {tau}");
            assert!(softmax.0.iter().any(|g| g.abs() > 0.01));
        }
    }
}

#[test]
fn at_a_low_temperature_the_decoder_reads_the_perturbed_arg_max() {
    for (case, structure) in structures().into_iter().enumerate() {
        let u = structure.unary();
        let (h, noise) = (potentials(&structure, 11_100 + case as u64), gumbel(u, 11_101, case as u64));
        let mut z = vec![0; structure.variables()];
        gumbel::structure::perturbed_argmax(&structure, &h, &noise, &mut z).unwrap();
        let mut oracle = Closure::new(&structure, |_, code| code[0]);
        estimate(&SoftmaxTrick::new(1e-3).unwrap(), &structure, &h, &noise, &mut oracle).unwrap();
        let [Kept::Codes { codes, .. }] = &oracle.followed[..] else { panic!("{:?}", oracle.followed) };
        let hard = code(&structure, &z);
        assert!(codes.iter().zip(&hard).all(|(c, h)| (c - h).abs() < 1e-4), "{structure:?}: {codes:?} {hard:?}");
    }
}

#[test]
fn the_temperature_of_a_softmax_trick_is_on_its_schedule() {
    let structure: AnyStructure = Subset::new(5, 2).unwrap().into();
    let (h, noise) = (random(5, 1.0, 11_200), gumbel(5, 11_201, 0));
    let all = estimators();
    let entry = all.get("softmax-trick").unwrap();
    let mut settings = Settings::defaults(entry.settings());
    for (name, value) in
        [("temperature", "2"), ("temperature-min", "0.1"), ("temperature-decay", "0.5"), ("temperature-every", "1")]
    {
        let setting = entry.settings().iter().find(|s| s.name == name).unwrap();
        settings = settings.with(setting, value).unwrap();
    }
    let mut estimator = entry.build(&settings, &structure).unwrap();
    let run = |estimator: &dyn Estimator| {
        let mut oracle = Closure::new(&structure, |_, code| code[0] - code[1] * code[2]);
        estimate(estimator, &structure, &h, &noise, &mut oracle).unwrap().gradient
    };
    assert_eq!(run(&*estimator), run(&SoftmaxTrick::new(2.0).unwrap()));
    estimator.begin(&Moment { step: 2, kl_weight: 0.0 }).unwrap();
    let after = SoftmaxTrick::new(2.0 * (-1.0f32).exp()).unwrap();
    let close = run(&*estimator).iter().zip(run(&after)).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close && run(&*estimator) != run(&SoftmaxTrick::new(2.0).unwrap()));
}

#[test]
fn latents_without_sums_and_bad_settings_are_refused() {
    let order: AnyStructure = Permutation::new(3).unwrap().into();
    let all = estimators();
    for name in ["simple", "softmax-trick"] {
        let entry = all.get(name).unwrap();
        let settings = Settings::defaults(entry.settings());
        assert!(matches!(entry.build(&settings, &order).err(), Some(Error::NoSums { .. })));
        let chain: AnyStructure = Chain::new(3, 2).unwrap().into();
        let built = entry.build(&settings, &chain).unwrap();
        assert!(built.questions(&chain) == Questions::NONE && built.wants_slopes());
        assert_eq!(built.follows() == Follows::Codes, name == "softmax-trick");
        let noise = vec![0.0; built.noise(&order).unwrap()];
        let oracle = &mut Closure::new(&order, |_, _| 0.0);
        let error = estimate(&*built, &order, &[0.0; 9], &noise, oracle).unwrap_err();
        assert!(error.to_string().contains("sums over permutations are not tractable"), "{error}");
    }
    let message = SoftmaxTrick::new(0.0).unwrap_err().to_string();
    assert_eq!(message, "temperature = 0: expected a finite number greater than 0");
}

#[test]
fn bad_numbers_are_errors_and_forbidden_choices_have_no_gradient() {
    for structure in structures() {
        let p = structure.potentials();
        let tricks: [&dyn Estimator; 2] = [&Simple, &SoftmaxTrick::new(0.5).unwrap()];
        for estimator in tricks {
            let width = estimator.noise(&structure).unwrap();
            let good = potentials(&structure, 11_300);
            let oracle = &mut Closure::new(&structure, |b, _| if b == 1 { f32::NAN } else { 1.0 });
            let noise = gumbel(2 * width, 11_301, 0);
            let error = estimate(estimator, &structure, &good.repeat(2), &noise, oracle).unwrap_err().to_string();
            assert!(error.starts_with("example 1 of the batch: slope 0 is NaN"), "{error}");
            let loss = Loss::new(&structure, 0.5, 11_302);
            let oracle = &mut Closure::new(&structure, |_, code| loss.of(code));
            let mut bad = good.clone();
            // One that is not ignored.
            bad[1] = f32::NAN;
            assert!(estimate(estimator, &structure, &bad, &noise[..width], oracle).is_err(), "{structure:?}");
            assert!(estimate(estimator, &structure, &[], &[], oracle).unwrap().gradient.is_empty());
            let mut h = good;
            h[1] = f32::NEG_INFINITY;
            let gradient = estimate(estimator, &structure, &h, &noise[..width], oracle).unwrap().gradient;
            assert!(gradient[1].abs() < 1e-6 && gradient.iter().all(|g| g.is_finite()), "{structure:?} {gradient:?}");
            assert!(p == 2 || gradient.iter().any(|g| *g != 0.0), "{structure:?}");
        }
    }
}
