//! Relaxed codes: the gradient of what the decoder reads, against finite differences.

use crate::common::*;
use gumbel::estimator::{Estimator, GumbelSoftmax, Memory, SoftmaxTrick, StraightThrough, estimate, estimate_with};
use gumbel::oracle::{Closure, Kept, Oracle};
use gumbel::structure::{Categorical, Structure};

/// `softmax((h + gamma) / tau)` of each variable in f64.
fn relaxed(structure: &Categorical, h: &[f64], gamma: &[f32], tau: f64) -> Vec<f64> {
    let rows = h.chunks(structure.values()).zip(gamma.chunks(structure.values()));
    rows.flat_map(|(h, g)| softmax64(h.iter().zip(g).map(|(h, g)| (h + *g as f64) / tau))).collect()
}

/// Central differences of `objective` at potentials.
fn differences(h: &[f32], objective: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let at = |i: usize, d: f64| {
        let mut x = doubles(h);
        x[i] += d;
        objective(&x)
    };
    (0..h.len()).map(|i| (at(i, step) - at(i, -step)) / (2.0 * step)).collect()
}

fn singles(x: &[f64]) -> Vec<f32> {
    x.iter().map(|v| *v as f32).collect()
}

#[test]
fn gumbel_softmax_is_the_derivative_of_the_relaxed_objective() {
    const SAMPLES: usize = 3;
    for (case, (n, k)) in [(1, 2), (1, 6), (3, 4)].into_iter().enumerate() {
        let structure = Categorical::product(n, k).unwrap();
        let (u, batch) = (n * k, 20);
        let (h, noise) = (random(batch * u, 1.0, 60 + case as u64), gumbel(SAMPLES * batch * u, 61, case as u64));
        let losses: Vec<Loss> = (0..batch).map(|b| Loss::new(&structure, 0.5, 1000 + b as u64)).collect();
        for tau in [0.5f64, 1.0, 2.0] {
            let mut oracle = Closure::new(&structure, |b, code| losses[b].of(code));
            let estimator = GumbelSoftmax::new(tau as f32).unwrap();
            let found = estimate(&estimator, &structure, &h, &noise, &mut oracle).unwrap();
            let mut largest = 0.0f64;
            for b in 0..batch {
                let gamma = |m: usize| &noise[(m * batch + b) * u..][..u];
                let objective = |h: &[f64]| -> f64 {
                    let value = |m| losses[b].of64(&relaxed(&structure, h, gamma(m), tau));
                    (0..SAMPLES).map(value).sum::<f64>() / SAMPLES as f64
                };
                let numeric = differences(&h[b * u..][..u], objective);
                for (found, numeric) in found.gradient[b * u..][..u].iter().zip(&numeric) {
                    let close = (*found as f64 - numeric).abs() < 1e-3 * (1.0 + numeric.abs());
                    assert!(close, "n = {n}, K = {k}, tau = {tau}: {found} {numeric}");
                    largest = largest.max(numeric.abs());
                }
            }
            assert!(largest > 0.1, "nothing to compare");
            // The decoder follows the relaxed codes themselves.
            assert_eq!(oracle.followed.len(), SAMPLES);
            for (m, kept) in oracle.followed.iter().enumerate() {
                let Kept::Codes { row, codes, weights } = kept else { panic!("{kept:?}") };
                assert!(*row == m && weights.iter().all(|w| *w == 1.0 / SAMPLES as f32));
                let h = doubles(&h[..u]);
                let expected = relaxed(&structure, &h, &noise[m * batch * u..][..u], tau);
                assert!(codes[..u].iter().zip(expected).all(|(a, b)| (*a as f64 - b).abs() < 1e-5));
            }
        }
    }
}

#[test]
fn straight_through_is_the_slope_at_the_sample_times_the_derivative_of_the_relaxed_code() {
    const SAMPLES: usize = 3;
    for (case, (n, k)) in [(1, 2), (1, 6), (3, 4)].into_iter().enumerate() {
        let structure = Categorical::product(n, k).unwrap();
        let (u, batch) = (n * k, 20);
        let (h, noise) = (random(batch * u, 1.0, 70 + case as u64), gumbel(SAMPLES * batch * u, 71, case as u64));
        let losses: Vec<Loss> = (0..batch).map(|b| Loss::new(&structure, 0.5, 1100 + b as u64)).collect();
        for tau in [0.5f64, 1.0, 2.0] {
            let mut oracle = Closure::new(&structure, |b, code| losses[b].of(code));
            let (estimator, mut memory) = (StraightThrough::new(tau as f32).unwrap(), Memory::default());
            let found = estimate_with(&estimator, &structure, &h, &noise, &mut oracle, &mut memory).unwrap();
            let mut expected = vec![0.0; batch * u];
            for m in 0..SAMPLES {
                let Kept::Assignments { row, assignments, weights } = oracle.followed[m].clone() else {
                    panic!("{:?}", oracle.followed[m])
                };
                assert!(row == m && weights.iter().all(|w| *w == 1.0 / SAMPLES as f32));
                for b in 0..batch {
                    let (h, gamma) = (&h[b * u..][..u], &noise[(m * batch + b) * u..][..u]);
                    // The sample is the arg max of each variable.
                    let hard: Vec<u32> = (0..n)
                        .map(|i| {
                            (0..k).max_by(|a, b| {
                                let at = |v: usize| h[i * k + v] + gamma[i * k + v];
                                at(*a).total_cmp(&at(*b))
                            })
                        })
                        .map(|z| z.unwrap() as u32)
                        .collect();
                    assert_eq!(assignments[b * n..][..n], hard);
                    let (mut loss, mut slope) = ([0.0], vec![0.0; u]);
                    oracle.slopes(&[b as u32], &code(&structure, &hard), &mut loss, &mut slope).unwrap();
                    let pulled = |h: &[f64]| -> f64 {
                        relaxed(&structure, h, gamma, tau).iter().zip(&slope).map(|(c, s)| c * *s as f64).sum()
                    };
                    let numeric = differences(h, pulled);
                    expected[b * u..][..u].iter_mut().zip(numeric).for_each(|(e, d)| *e += d / SAMPLES as f64);
                }
            }
            let expected = singles(&expected);
            for (found, expected) in found.gradient.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{found} {expected}");
            }
            assert!(expected.iter().any(|e| e.abs() > 0.1), "nothing to compare");
        }
    }
}

/// A hard code is what a relaxed one becomes as the temperature falls.
#[test]
fn at_a_low_temperature_the_decoder_reads_the_sample() {
    let structure = Categorical::product(3, 4).unwrap();
    let (h, noise) = (random(12, 1.0, 80), gumbel(12, 81, 0));
    let mut z = vec![0; 3];
    gumbel::structure::perturbed_argmax(&structure, &h, &noise, &mut z).unwrap();
    let mut oracle = Closure::new(&structure, |_, code| code[0]);
    estimate(&GumbelSoftmax::new(1e-3).unwrap(), &structure, &h, &noise, &mut oracle).unwrap();
    let [Kept::Codes { codes, .. }] = &oracle.followed[..] else { panic!("{:?}", oracle.followed) };
    assert_eq!(*codes, code(&structure, &z));
    assert_eq!(structure.unary(), codes.len());
}

/// The bias at two temperatures, by quadrature over the noise of a binary variable: only the difference of its two
/// numbers counts, which is logistic. In the code c of the second value, with f the loss and p the logistic density,
/// the mean of the gradient is the integral of `f'(c) p(d - tau logit c)` over [0, 1], d the difference of the
/// potentials: as tau falls `p(d) (f(1) - f(0))`, the exact one, less `tau p'(d)` times the integral of `f' logit`,
/// which is half the second derivative of a quadratic loss.
#[test]
fn the_bias_of_relaxed_codes_falls_with_the_temperature() {
    const POINTS: usize = 100_000;
    let structure = Categorical::new(2).unwrap();
    let noise: Vec<f32> = (0..POINTS)
        .flat_map(|i| {
            let u = (i as f64 + 0.5) / POINTS as f64;
            [0.0, (u / (1.0 - u)).ln() as f32]
        })
        .collect();
    // The loss is 2 c + curvature c^2.
    let d = 0.9f32;
    let q = 1.0 / (1.0 + (-d as f64).exp());
    let bias = |estimator: &dyn Estimator<Categorical>, curvature: f32| {
        let mut oracle = Closure::new(&structure, |_, code| 2.0 * code[1] + curvature * code[1] * code[1]);
        let found = estimate(estimator, &structure, &[0.0, d].repeat(POINTS), &noise, &mut oracle).unwrap();
        let mean = found.gradient.chunks(2).map(|g| g[1] as f64).sum::<f64>() / POINTS as f64;
        mean - q * (1.0 - q) * (2.0 + curvature as f64)
    };
    type Build = fn(f32) -> Box<dyn Estimator<Categorical>>;
    let both: [(&str, Build); 2] = [
        ("gumbel-softmax", |tau| Box::new(GumbelSoftmax::new(tau).unwrap())),
        ("softmax-trick", |tau| Box::new(SoftmaxTrick::new(tau).unwrap())),
    ];
    for (name, build) in both {
        let (wide, narrow) = (0.05f32, 0.025f32);
        let [far, near] = [wide, narrow].map(|tau| bias(&*build(tau), 3.0));
        // tau (-p'(d)) times half the second derivative, 6.
        let first = narrow as f64 * q * (1.0 - q) * (2.0 * q - 1.0) * 3.0;
        assert!((near / first - 1.0).abs() < 0.1, "{name}: {near}, to first order {first}");
        assert!((far / near - 2.0).abs() < 0.2, "{name}: {far} and {near} are not of order tau");
        // Of a linear loss the first order is zero.
        let [far, near] = [0.2, 0.1].map(|tau| bias(&*build(tau), 0.0));
        assert!(near.abs() > 1e-4 && (far / near - 4.0).abs() < 0.4, "{name}: {far} and {near} are not of order tau^2");
    }
}
