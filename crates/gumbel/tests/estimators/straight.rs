//! Variants of straight-through: ReinMax, Gumbel-Rao, decoupled temperatures. (The plain one is in relaxed.rs.)

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{
    DecoupledStraightThrough, Estimator, Follows, GumbelRao, GumbelSoftmax, Piece, ReinMax, Slopes, StraightThrough,
    estimate, estimators,
};
use gumbel::oracle::{Closure, Kept, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Structure, Subset};

const SIZES: [(usize, usize); 6] = [(1, 2), (1, 3), (1, 5), (3, 2), (3, 3), (3, 5)];

/// A loss that no polynomial is.
struct Wavy {
    loss: Loss,
    wave: f32,
}

impl Wavy {
    fn of(&self, code: &[f32]) -> f32 {
        let linear = self.loss.of(code);
        linear + self.wave * (1.5 * linear).sin()
    }
}

fn problem(n: usize, k: usize, seed: u64, wave: f32) -> (Categorical, Vec<f32>, Wavy, Table) {
    let structure = Categorical::product(n, k).unwrap();
    let wavy = Wavy { loss: Loss::new(&structure, 0.5, seed + 1), wave };
    let table = Table::with_slopes(&structure, |code| wavy.of(code));
    (structure, random(n * k, 1.0, seed), wavy, table)
}

/// All states of independent variables with their probabilities and slopes.
fn states(structure: &Categorical, h: &[f32], oracle: &mut dyn Oracle) -> Vec<(f64, Vec<f64>, Vec<f64>)> {
    let (n, u) = (structure.variables(), structure.unary());
    let q: Vec<f64> = h.chunks(structure.values()).flat_map(|h| softmax64(h.iter().map(|h| *h as f64))).collect();
    let state = |s| {
        let (mut z, mut loss, mut slope) = (vec![0; n], [0.0], vec![0.0; u]);
        structure.state(s, &mut z);
        let code = code(structure, &z);
        oracle.slopes(&[0], &code, &mut loss, &mut slope).unwrap();
        let probability = code.iter().zip(&q).filter(|(c, _)| **c == 1.0).map(|(_, q)| q).product();
        (probability, doubles(&code), doubles(&slope))
    };
    (0..structure.states().unwrap()).map(state).collect()
}

/// `J(p) s` of each variable.
fn jacobian(k: usize, p: &[f64], s: &[f64]) -> Vec<f64> {
    let blocks = p.chunks(k).zip(s.chunks(k));
    let of = |(p, s): (&[f64], &[f64])| -> Vec<f64> {
        let mean: f64 = p.iter().zip(s).map(|(p, s)| p * s).sum();
        p.iter().zip(s).map(|(p, s)| p * (s - mean)).collect()
    };
    blocks.flat_map(of).collect()
}

fn softmaxes(k: usize, h: &[f32], tau: f64) -> Vec<f64> {
    h.chunks(k).flat_map(|h| softmax64(h.iter().map(|h| *h as f64 / tau))).collect()
}

/// The mean of ReinMax, by enumeration.
fn reinmax_mean(structure: &Categorical, h: &[f32], tau: f64, oracle: &mut dyn Oracle) -> Vec<f64> {
    let k = structure.values();
    let (soft, q) = (softmaxes(k, h, tau), softmaxes(k, h, 1.0));
    let mut mean = vec![0.0; h.len()];
    for (probability, code, slope) in states(structure, h, oracle) {
        let half: Vec<f64> = soft.iter().zip(&code).map(|(q, c)| (q + c) / 2.0).collect();
        let (one, zero) = (jacobian(k, &half, &slope), jacobian(k, &q, &slope));
        mean.iter_mut().zip(one.iter().zip(zero)).for_each(|(m, (a, b))| *m += probability * (2.0 * a - 0.5 * b));
    }
    mean
}

fn largest_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn reinmax_has_the_mean_of_its_closed_form() {
    for (case, (n, k)) in SIZES.into_iter().enumerate() {
        let (structure, h, _, mut oracle) = problem(n, k, 8000 + 10 * case as u64, 0.7);
        for tau in [0.7, 1.0, 1.3] {
            let expected = reinmax_mean(&structure, &h, tau, &mut oracle);
            let reinmax = ReinMax::new(tau as f32).unwrap();
            let found = mean_of(&reinmax, &structure, &h, &mut oracle, 1, 200_000, 8001 + case as u64);
            assert!(found.error.iter().all(|e| *e > 0.0));
            assert_within_four_standard_errors(&format!("n = {n}, K = {k}, tau = {tau}"), &found, &expected);
        }
    }
}

/// Whatever other variables do, the loss is quadratic in the code of each.
#[test]
fn reinmax_is_exact_for_quadratic_losses_and_straight_through_is_not() {
    for (case, (n, k)) in SIZES.into_iter().enumerate() {
        let (structure, h, _, mut oracle) = problem(n, k, 8100 + 10 * case as u64, 0.0);
        let expected = doubles(&exact(&structure, &h, &mut oracle));
        let mean = reinmax_mean(&structure, &h, 1.0, &mut oracle);
        assert!(largest_distance(&mean, &expected) < 2e-4, "{mean:?} {expected:?}");
        let seed = 8101 + case as u64;
        let found = mean_of(&ReinMax::new(1.0).unwrap(), &structure, &h, &mut oracle, 1, 200_000, seed);
        assert_within_four_standard_errors(&format!("n = {n}, K = {k}"), &found, &expected);
        let straight = mean_of(&StraightThrough::new(1.0).unwrap(), &structure, &h, &mut oracle, 1, 200_000, seed);
        assert!(!is_within_four_standard_errors(&straight, &expected), "n = {n}, K = {k}");
        let warm = reinmax_mean(&structure, &h, 2.0, &mut oracle);
        assert!(largest_distance(&warm, &expected) > 1e-2, "another temperature has another mean");
    }
}

/// Of the order of the third derivative where straight-through is of that of the second: with losses of codes `size` c
/// the bias is of order `size^3`, that of straight-through's first step of `size^2`.
#[test]
fn the_bias_of_reinmax_is_of_third_order() {
    let structure = Categorical::new(3).unwrap();
    let (h, a) = (random(3, 1.0, 8200), random(3, 1.0, 8201));
    let bias = |size: f32| {
        let loss = |code: &[f32]| (size * code.iter().zip(&a).map(|(c, a)| c * a).sum::<f32>()).exp();
        let mut oracle = Table::of(&structure, loss);
        let expected = doubles(&exact(&structure, &h, &mut oracle));
        // Slopes as they are, not by differences of f32.
        let (q, mut heun, mut euler) = (softmaxes(3, &h, 1.0), vec![0.0; 3], vec![0.0; 3]);
        for z in 0..3 {
            let value = (size as f64 * a[z] as f64).exp();
            let slope: Vec<f64> = a.iter().map(|a| size as f64 * *a as f64 * value).collect();
            let half: Vec<f64> = (0..3).map(|i| (q[i] + (i == z) as u8 as f64) / 2.0).collect();
            let (one, zero) = (jacobian(3, &half, &slope), jacobian(3, &q, &slope));
            (0..3).for_each(|i| heun[i] += q[z] * (2.0 * one[i] - 0.5 * zero[i]));
            (0..3).for_each(|i| euler[i] += q[z] * zero[i]);
        }
        (largest_distance(&heun, &expected), largest_distance(&euler, &expected))
    };
    let (large, small) = (bias(0.4), bias(0.2));
    let (third, second) = (large.0 / small.0, large.1 / small.1);
    assert!((6.0..11.0).contains(&third) && (3.2..5.5).contains(&second), "{third} {second}");
}

/// ReinMax with something wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// J of the middle once.
    Once,
    /// With the second term whole, or without it.
    Whole,
    Without,
    /// 1 / tau before the first J.
    Quotient,
    /// The sample of other noise.
    OtherSample,
}

const TAU: f64 = 1.3;

impl Estimator<Categorical> for Wrong {
    fn questions(&self, _: &Categorical) -> Questions {
        Questions::NONE
    }

    fn noise(&self, structure: &Categorical) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn estimate(&self, piece: &mut Piece<'_, Categorical>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        piece.draw(0)?;
        piece.follow_sample(0, oracle)
    }

    fn resume(&self, piece: &mut Piece<'_, Categorical>, slopes: Slopes<'_>) -> Result<(), Error> {
        let (k, u, n) = (piece.structure.values(), piece.structure.unary(), piece.structure.variables());
        for b in 0..piece.count() {
            let (h, slope) = (&piece.potentials[b * u..][..u], doubles(&slopes.row(0, piece.count(), u)[b * u..][..u]));
            let mut z = piece.memory.assignments[b * n..][..n].to_vec();
            if *self == Wrong::OtherSample {
                let perturbed: Vec<f32> = h.iter().zip(&piece.noise.of(0, b)[u..]).map(|(h, g)| h + g).collect();
                piece.structure.argmax(&perturbed, &mut z, &mut ())?;
            }
            let code = code(piece.structure, &z);
            let half: Vec<f64> = softmaxes(k, h, TAU).iter().zip(&code).map(|(q, c)| (q + *c as f64) / 2.0).collect();
            let (one, zero) = (jacobian(k, &half, &slope), jacobian(k, &softmaxes(k, h, 1.0), &slope));
            let weights = match self {
                Wrong::Once => (1.0, -0.5),
                Wrong::Whole => (2.0, -1.0),
                Wrong::Without => (2.0, 0.0),
                Wrong::Quotient => (2.0 / TAU, -0.5),
                _ => (2.0, -0.5),
            };
            let terms = one.iter().zip(&zero).map(|(a, b)| (weights.0 * a + weights.1 * b) as f32);
            piece.gradient[b * u..][..u].iter_mut().zip(terms).for_each(|(g, t)| *g += t);
        }
        Ok(())
    }
}

#[test]
fn wrong_forms_of_reinmax_are_caught() {
    let (structure, h, _, mut oracle) = problem(3, 3, 8300, 0.7);
    let expected = reinmax_mean(&structure, &h, TAU, &mut oracle);
    use Wrong::*;
    for wrong in [Nothing, Once, Whole, Without, Quotient, OtherSample] {
        let found = mean_of(&wrong, &structure, &h, &mut oracle, 1, 200_000, 8301);
        assert_eq!(is_within_four_standard_errors(&found, &expected), wrong == Nothing, "{wrong:?}");
    }
}

/// With several samples, draw by draw, what the decoder follows included.
#[test]
fn a_draw_of_reinmax_is_that_of_the_paper() {
    const SAMPLES: usize = 3;
    let (structure, h, wavy, _) = problem(3, 4, 8400, 0.7);
    let (u, batch) = (12, 10);
    let (h, noise) = (h.repeat(batch), gumbel(SAMPLES * batch * u, 8401, 0));
    let mut oracle = Closure::new(&structure, |_, code| wavy.of(code));
    let found = estimate(&ReinMax::new(0.8).unwrap(), &structure, &h, &noise, &mut oracle).unwrap();
    let mut expected = vec![0.0; batch * u];
    let followed = std::mem::take(&mut oracle.followed);
    for (m, kept) in followed.iter().enumerate() {
        let Kept::Assignments { row, assignments, weights } = kept else { panic!("{kept:?}") };
        assert!(*row == m && weights.iter().all(|w| *w == 1.0 / SAMPLES as f32));
        for b in 0..batch {
            let hard = code(&structure, &assignments[b * 3..][..3]);
            for (i, block) in hard.chunks(4).enumerate() {
                let at = |v: usize| h[b * u + i * 4 + v] + noise[(m * batch + b) * u + i * 4 + v];
                assert!((0..4).all(|v| at(v) <= at(block.iter().position(|c| *c == 1.0).unwrap())));
            }
            let (mut loss, mut slope) = ([0.0], vec![0.0; u]);
            oracle.slopes(&[b as u32], &hard, &mut loss, &mut slope).unwrap();
            let (soft, q) = (softmaxes(4, &h[b * u..][..u], 0.8), softmaxes(4, &h[b * u..][..u], 1.0));
            let half: Vec<f64> = soft.iter().zip(&hard).map(|(q, c)| (q + *c as f64) / 2.0).collect();
            let (one, zero) = (jacobian(4, &half, &doubles(&slope)), jacobian(4, &q, &doubles(&slope)));
            let terms = one.iter().zip(zero).map(|(a, b)| (2.0 * a - 0.5 * b) / SAMPLES as f64);
            expected[b * u..][..u].iter_mut().zip(terms).for_each(|(e, t)| *e += t);
        }
    }
    assert_eq!(followed.len(), SAMPLES);
    assert!(largest_distance(&doubles(&found.gradient), &expected) < 1e-4);
}

#[test]
fn gumbel_rao_has_the_mean_of_straight_through_and_varies_less() {
    for (case, (n, k)) in SIZES.into_iter().enumerate() {
        let (structure, h, _, mut oracle) = problem(n, k, 8500 + 10 * case as u64, 0.7);
        for tau in [0.4, 1.0] {
            let seed = 8501 + 10 * case as u64;
            let straight = StraightThrough::new(tau).unwrap();
            let straight = mean_of(&straight, &structure, &h, &mut oracle, 1, 200_000, seed);
            let mut variances = vec![straight.error.iter().map(|e| e.powi(2)).sum::<f64>()];
            for draws in [1, 4] {
                let rao = GumbelRao::new(tau, draws).unwrap();
                let mut found = mean_of(&rao, &structure, &h, &mut oracle, 1, 200_000, seed + draws as u64);
                variances.push(found.error.iter().map(|e| e.powi(2)).sum());
                // Both means are of draws.
                found.error.iter_mut().zip(&straight.error).for_each(|(e, other)| *e = e.hypot(*other));
                assert_within_four_standard_errors(&format!("{n}, {k}, {tau}, {draws}"), &found, &straight.mean);
            }
            // One draw given the sample varies as straight-through does; the variance itself is of draws.
            assert!((variances[1] / variances[0] - 1.0).abs() < 0.05, "{n}, {k}, {tau}: {variances:?}");
            assert!(variances[2] < 0.995 * variances[0], "{n}, {k}, {tau}: {variances:?}");
            assert!(tau > 0.5 || variances[2] < 0.8 * variances[0], "{n}, {k}, {tau}: {variances:?}");
        }
    }
}

/// Gumbel-Rao with something wrong: other noise backwards.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Noise {
    Right,
    /// Noise that knows nothing of the sample.
    Independent,
    /// The noise of the largest alone.
    NotCutOff,
}

impl Estimator<Categorical> for Noise {
    fn questions(&self, _: &Categorical) -> Questions {
        Questions::NONE
    }

    fn noise(&self, structure: &Categorical) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn estimate(&self, piece: &mut Piece<'_, Categorical>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        piece.draw(0)?;
        piece.follow_sample(0, oracle)
    }

    fn resume(&self, piece: &mut Piece<'_, Categorical>, slopes: Slopes<'_>) -> Result<(), Error> {
        let (k, u, n) = (piece.structure.values(), piece.structure.unary(), piece.structure.variables());
        for b in 0..piece.count() {
            let (h, slope) = (&piece.potentials[b * u..][..u], doubles(&slopes.row(0, piece.count(), u)[b * u..][..u]));
            let fresh = &piece.noise.of(0, b)[u..];
            for i in 0..n {
                let (h, g) = (&h[i * k..][..k], &fresh[i * k..][..k]);
                let z = piece.memory.assignments[b * n + i] as usize;
                let largest = h.iter().map(|h| h.exp()).sum::<f32>().ln() + g[z];
                let zeta = (0..k).map(|j| match (self, j == z) {
                    (Noise::Independent, _) => h[j] + g[j],
                    (_, true) => largest,
                    (Noise::NotCutOff, false) => h[j] + g[j],
                    _ => -((-h[j] - g[j]).exp() + (-largest).exp()).ln(),
                });
                let c = softmax64(zeta.map(|v| v as f64));
                let back = jacobian(k, &c, &slope[i * k..][..k]);
                let at = b * u + i * k;
                piece.gradient[at..at + k].iter_mut().zip(back).for_each(|(g, d)| *g += d as f32);
            }
        }
        Ok(())
    }
}

#[test]
fn other_noise_backwards_is_caught() {
    let (structure, h, _, mut oracle) = problem(3, 3, 8600, 0.7);
    let straight = StraightThrough::new(1.0).unwrap();
    let straight = mean_of(&straight, &structure, &h, &mut oracle, 1, 200_000, 8601);
    for noise in [Noise::Right, Noise::Independent, Noise::NotCutOff] {
        let mut found = mean_of(&noise, &structure, &h, &mut oracle, 1, 200_000, 8602);
        found.error.iter_mut().zip(&straight.error).for_each(|(e, other)| *e = e.hypot(*other));
        assert_eq!(is_within_four_standard_errors(&found, &straight.mean), noise == Noise::Right, "{noise:?}");
        if noise == Noise::Right {
            // Draw by draw the estimator itself.
            let ours = mean_of(&GumbelRao::new(1.0, 1).unwrap(), &structure, &h, &mut oracle, 1, 20_000, 8603);
            let mine = mean_of(&noise, &structure, &h, &mut oracle, 1, 20_000, 8603);
            assert!(largest_distance(&ours.mean, &mine.mean) < 1e-5);
        }
    }
}

#[test]
fn decoupled_straight_through_with_equal_temperatures_is_gumbel_softmax() {
    let (structure, h, wavy, _) = problem(3, 4, 8700, 0.7);
    let (h, noise) = (h.repeat(20), gumbel(2 * 20 * 12, 8701, 0));
    for tau in [0.3, 1.0, 4.0] {
        let run = |estimator: &dyn Estimator<Categorical>| {
            let mut oracle = Closure::new(&structure, |_, code| wavy.of(code));
            (estimate(estimator, &structure, &h, &noise, &mut oracle).unwrap(), oracle.followed)
        };
        let decoupled = run(&DecoupledStraightThrough::new(tau, tau).unwrap());
        assert!(decoupled == run(&GumbelSoftmax::new(tau).unwrap()), "tau = {tau}");
        assert!(decoupled.0.gradient.iter().any(|g| g.abs() > 0.01));
    }
}

#[test]
fn a_cold_code_forwards_is_straight_through() {
    let (structure, h, wavy, _) = problem(3, 4, 8800, 0.7);
    let (h, noise) = (h.repeat(20), gumbel(2 * 20 * 12, 8801, 0));
    for tau in [0.3, 1.0, 4.0] {
        let run = |estimator: &dyn Estimator<Categorical>| {
            let mut oracle = Closure::new(&structure, |_, code| wavy.of(code));
            let gradient = estimate(estimator, &structure, &h, &noise, &mut oracle).unwrap().gradient;
            (gradient, oracle.followed)
        };
        let (gradient, followed) = run(&DecoupledStraightThrough::new(1e-6, tau).unwrap());
        let (straight, samples) = run(&StraightThrough::new(tau).unwrap());
        assert_eq!(gradient, straight, "tau = {tau}");
        for (kept, sample) in followed.iter().zip(&samples) {
            let (Kept::Codes { codes, .. }, Kept::Assignments { assignments, .. }) = (kept, sample) else { panic!() };
            let hard = assignments.chunks(3).flat_map(|z| code(&structure, z));
            assert!(codes.iter().copied().eq(hard));
        }
        // In between it is neither.
        let (warm, _) = run(&DecoupledStraightThrough::new(0.5 * tau, tau).unwrap());
        assert!(warm != straight && warm != run(&GumbelSoftmax::new(tau).unwrap()).0);
    }
}

/// One variable and a linear loss: the slope is constant, so that the gradient is that of the code backwards.
#[test]
fn the_decoder_reads_one_temperature_and_the_gradient_goes_through_the_other() {
    let structure = Categorical::new(3).unwrap();
    let (h, noise) = (random(3, 1.0, 8900), gumbel(3, 8901, 0));
    let mut oracle = Closure::new(&structure, |_, code| 2.0 * code[0] - code[2] + code[1] * code[1]);
    let decoupled = DecoupledStraightThrough::new(0.4, 1.5).unwrap();
    let found = estimate(&decoupled, &structure, &h, &noise, &mut oracle).unwrap().gradient;
    let perturbed: Vec<f32> = h.iter().zip(&noise).map(|(h, g)| h + g).collect();
    let (c, b) = (softmaxes(3, &perturbed, 0.4), softmaxes(3, &perturbed, 1.5));
    let [Kept::Codes { codes, row: 0, weights }] = &oracle.followed[..] else { panic!("{:?}", oracle.followed) };
    assert!(largest_distance(&doubles(codes), &c) < 1e-5 && *weights == [1.0]);
    let expected: Vec<f64> = jacobian(3, &b, &[2.0, 2.0 * c[1], -1.0]).iter().map(|g| g / 1.5).collect();
    assert!(largest_distance(&doubles(&found), &expected) < 1e-4, "{found:?} {expected:?}");
}

#[test]
fn the_decoder_follows_samples_of_q() {
    for n in [1, 3] {
        let (structure, h, ..) = problem(n, 3, 9000, 0.7);
        for samples in [1, 3] {
            assert_follows_q("reinmax", (&ReinMax::new(1.0).unwrap(), &structure), &h, samples, 9001);
            assert_follows_q("gumbel-rao", (&GumbelRao::new(0.5, 2).unwrap(), &structure), &h, samples, 9002);
        }
    }
    let decoupled = DecoupledStraightThrough::new(0.1, 1.0).unwrap();
    assert_eq!(Estimator::<Categorical>::follows(&decoupled), Follows::Codes);
}

#[test]
fn settings_out_of_range_and_coupled_latents_are_refused() {
    let message = |e: Error| e.to_string();
    let range = "expected a number from 1e-6 to 1e6";
    assert_eq!(message(ReinMax::new(0.0).unwrap_err()), format!("reinmax-temperature = 0: {range}"));
    let decoupled = |f, b| message(DecoupledStraightThrough::new(f, b).unwrap_err());
    assert_eq!(decoupled(f32::NAN, 1.0), format!("forward-temperature = NaN: {range}"));
    assert_eq!(decoupled(1.0, 1e7), format!("backward-temperature = 10000000: {range}"));
    assert_eq!(message(GumbelRao::new(1.0, 0).unwrap_err()), "draws = 0: expected 1 to 1000");
    assert!(message(GumbelRao::new(-1.0, 1).unwrap_err()).contains("greater than 0"));
    let all = estimators();
    for (name, setting, bad) in [
        ("reinmax", "reinmax-temperature", "1e-7"),
        ("gumbel-rao", "draws", "1001"),
        ("gumbel-rao", "temperature", "0"),
        ("decoupled-straight-through", "forward-temperature", "-1"),
        ("decoupled-straight-through", "backward-temperature", "nan"),
    ] {
        let entry = all.get(name).unwrap();
        let of = entry.settings().iter().find(|s| s.name == setting).unwrap();
        assert!(of.parse(bad).is_err(), "{name}, {setting} = {bad}");
        let coupled: [AnyStructure; 3] =
            [Pairwise::new(3).unwrap().into(), Chain::new(3, 2).unwrap().into(), Subset::new(4, 2).unwrap().into()];
        for structure in coupled {
            let error = entry.build(&Settings::defaults(entry.settings()), &structure).err().unwrap();
            assert_eq!(error.to_string(), format!("{name} needs variables that are independent of each other"));
        }
    }
    let chain = Chain::new(3, 2).unwrap();
    let (h, noise) = (vec![0.0; chain.potentials()], vec![0.0; 2 * chain.unary()]);
    let oracle = &mut Closure::new(&chain, |_, _| 0.0);
    let u = chain.unary();
    let refused = |r: Result<_, Error>| matches!(r, Err(Error::Coupled { .. }));
    assert!(refused(estimate(&ReinMax::new(1.0).unwrap(), &chain, &h, &noise[..u], oracle)));
    assert!(refused(estimate(&GumbelRao::new(1.0, 1).unwrap(), &chain, &h, &noise, oracle)));
    assert!(refused(estimate(&DecoupledStraightThrough::new(1.0, 1.0).unwrap(), &chain, &h, &noise[..u], oracle)));
}

#[test]
fn bad_numbers_are_errors_and_forbidden_values_have_no_gradient() {
    let structure = Categorical::product(2, 3).unwrap();
    let estimators: [&dyn Estimator<Categorical>; 3] = [
        &ReinMax::new(1.0).unwrap(),
        &GumbelRao::new(0.5, 2).unwrap(),
        &DecoupledStraightThrough::new(0.1, 1.0).unwrap(),
    ];
    for (which, estimator) in estimators.into_iter().enumerate() {
        let width = estimator.noise(&structure).unwrap();
        let oracle = &mut Closure::new(&structure, |b, _| if b == 1 { f32::NAN } else { 1.0 });
        let error = estimate(estimator, &structure, &[0.0; 12], &vec![0.0; 2 * width], oracle).unwrap_err().to_string();
        assert!(error.starts_with("example 1 of the batch: slope 0 is NaN"), "{error}");
        let oracle = &mut Closure::new(&structure, |_, code| 3.0 * code[1] * code[1] + code[3] - code[4] * code[1]);
        if which < 2 {
            let h = [0.0, 1.0, f32::NAN, 0.0, 0.0, 0.0];
            assert!(estimate(estimator, &structure, &h, &vec![0.0; width], oracle).is_err());
        }
        assert!(estimate(estimator, &structure, &[], &[], oracle).unwrap().gradient.is_empty());
        let h = [f32::NEG_INFINITY, 0.3, 0.1, f32::NEG_INFINITY, -0.2, f32::NEG_INFINITY].repeat(100);
        let gradient = estimate(estimator, &structure, &h, &gumbel(100 * width, 9100, 0), oracle).unwrap().gradient;
        assert!(gradient.chunks(6).all(|g| g[0] == 0.0 && g[3..].iter().all(|g| g.abs() < 1e-6)));
        assert!(gradient.iter().all(|g| g.is_finite()) && gradient.iter().any(|g| *g != 0.0));
    }
}
