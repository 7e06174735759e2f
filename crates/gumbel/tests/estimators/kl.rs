//! The KL inside the perturbation: direct optimisation of the whole bound.
//!
//! The loss of a state is then `loss(z) + kl ln q(z)`, and the expectation of an estimate with noise on every state
//! `(softmax((1 + b kl) h + b loss) - softmax((1 - eps kl) h - eps loss)) / (b + eps)`, with `b` = 0 to one side and
//! `b = eps` to two.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{
    Direct, DirectJoint, Estimator, Exact, KlTerm, Marginal, Moment, Perturbation, Sides, estimate, estimators,
};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Structure, Subset, Sums, Supermodular};

const DRAWS: usize = 200_000;

/// The expectation by enumeration; `table` has the losses of all states.
fn expectation<S: Structure>(structure: &S, h: &[f32], table: &[f32], direct: (Sides, f64, f64)) -> Vec<f64> {
    let (sides, epsilon, kl) = direct;
    let back = if sides == Sides::Two { epsilon } else { 0.0 };
    let at = |shift: f64| marginals_of(structure, (h, 1.0 + shift * kl), table, shift);
    at(back).iter().zip(at(-epsilon)).map(|(a, b)| (a - b) / (back + epsilon)).collect()
}

fn direct(sides: Sides, epsilon: f64, kl: f64) -> Direct {
    Direct::new(epsilon as f32).unwrap().sides(sides).with_kl(kl as f32)
}

/// The exact gradient of `E_q[loss] + weight KL(q || uniform)`.
fn bound<S: Sums>(structure: &S, h: &[f32], table: &mut Table, weight: f32) -> Vec<f32> {
    let mut gradient = exact(structure, h, table);
    structure.kl_to_uniform(h, weight, &mut gradient).unwrap();
    gradient
}

#[test]
fn of_one_variable_the_mean_with_the_kl_inside_is_its_closed_form() {
    for (case, k) in [2usize, 5, 10].into_iter().enumerate() {
        let structure = Categorical::new(k).unwrap();
        let (h, loss) = (random(k, 1.0, 1100 + k as u64), random(k, 1.5, 1200 + k as u64));
        let oracle = &mut Table::categorical(&structure, &loss);
        for (e, (epsilon, kl)) in [(0.1, 1.0), (0.5, 0.4), (1.0, 1.0)].into_iter().enumerate() {
            for sides in [Sides::One, Sides::Two] {
                let (direct, seed) = (direct(sides, epsilon, kl), 1300 + (10 * case + e) as u64);
                let expected = expectation(&structure, &h, &loss, (sides, epsilon, kl));
                let what = format!("K = {k}, eps = {epsilon}, kl = {kl}, {sides:?}");
                let full = DirectJoint::new(direct, Perturbation::Full);
                let found = mean_of(&full, &structure, &h, oracle, 1, DRAWS, seed);
                assert_within_four_standard_errors(&format!("full noise, {what}"), &found, &expected);
                // Noise on the values of one variable is noise on every state.
                let found = mean_of(&direct, &structure, &h, oracle, 1, DRAWS, seed + 500);
                assert_within_four_standard_errors(&what, &found, &expected);
            }
        }
    }
}

#[test]
fn with_full_noise_the_mean_with_the_kl_inside_is_a_difference_of_marginals() {
    let cases = [(Sides::One, 0.4, 1.0), (Sides::One, 1.0, 1.0), (Sides::Two, 0.4, 1.0), (Sides::One, 0.7, 0.5)];
    for (i, structure) in structured().iter().enumerate() {
        let h = potentials(structure, 1500 + i as u64);
        let loss = Loss::new(structure, 0.5, 1600 + 2 * i as u64);
        let oracle = &mut Table::of(structure, |code| loss.of(code));
        // Each structure with two of them.
        for (sides, epsilon, kl) in [cases[i % 2], cases[2 + i % 2]] {
            let full = DirectJoint::new(direct(sides, epsilon, kl), Perturbation::Full);
            let found = mean_of(&full, structure, &h, oracle, 1, DRAWS, 1700 + i as u64);
            let expected = expectation(structure, &h, oracle.all(), (sides, epsilon, kl));
            assert!(expected.iter().any(|e| e.abs() > 0.02), "{structure:?}: nothing to compare");
            assert_within_four_standard_errors(&format!("{structure:?}, {epsilon}, {sides:?}"), &found, &expected);
        }
    }
}

/// At eps = 1 the second arg max is a sample of the posterior, so that the step is that of the wake phase.
#[test]
fn with_epsilon_1_the_mean_is_the_gradient_of_marginal() {
    let one = direct(Sides::One, 1.0, 1.0);
    for (i, structure) in structured().iter().enumerate() {
        let h = potentials(structure, 1800 + i as u64);
        let loss = Loss::new(structure, 0.5, 1820 + 2 * i as u64);
        let oracle = &mut Table::of(structure, |code| loss.of(code));
        let marginal = doubles(&estimate(&Marginal, structure, &h, &[], oracle).unwrap().gradient);
        let full = DirectJoint::new(one, Perturbation::Full);
        let found = mean_of(&full, structure, &h, oracle, 1, DRAWS, 1840 + i as u64);
        assert_within_four_standard_errors(&format!("{structure:?}"), &found, &marginal);
    }

    // For one variable, Rao-Blackwellised, it is this gradient itself: q less the posterior.
    let (structure, h, loss) = (Categorical::new(6).unwrap(), random(6, 1.0, 1860), random(6, 2.0, 1861));
    let oracle = &mut Table::categorical(&structure, &loss);
    let found = estimate(&one.rao_blackwell(), &structure, &h, &gumbel(6, 1862, 0), oracle).unwrap().gradient;
    let marginal = estimate(&Marginal, &structure, &h, &[], oracle).unwrap().gradient;
    let posterior = softmax64(loss.iter().map(|l| -*l as f64));
    for (i, q) in softmax64(h.iter().map(|h| *h as f64)).into_iter().enumerate() {
        let expected = q - posterior[i];
        assert!((found[i] as f64 - expected).abs() < 1e-6 && (marginal[i] as f64 - expected).abs() < 1e-6);
    }
}

/// Nothing random is left of one variable, also where values are forbidden and where 1 - eps kl is negative.
#[test]
fn rao_blackwellised_the_kl_inside_of_one_variable_has_its_closed_form_in_every_draw() {
    for k in [2usize, 5, 10] {
        let structure = Categorical::new(k).unwrap();
        let loss = random(k, 2.0, 1900 + k as u64);
        let mut h = random(k, 1.0, 1910 + k as u64);
        for forbidden in [None, Some(k - 1)] {
            forbidden.iter().for_each(|i| h[*i] = f32::NEG_INFINITY);
            for (epsilon, kl) in [(0.05, 1.0), (0.3, 0.5), (1.0, 1.0), (2.0, 1.0)] {
                for sides in [Sides::One, Sides::Two] {
                    let expected = expectation(&structure, &h, &loss, (sides, epsilon, kl));
                    let estimator = direct(sides, epsilon, kl).rao_blackwell();
                    let oracle = &mut Table::categorical(&structure, &loss);
                    for draw in 0..3 {
                        let noise = gumbel(k, 1920, draw);
                        let found = estimate(&estimator, &structure, &h, &noise, oracle).unwrap().gradient;
                        let close = found.iter().zip(&expected).all(|(f, e)| (*f as f64 - e).abs() < 1e-5);
                        assert!(close, "K = {k}, eps = {epsilon}, kl = {kl}, {sides:?}: {found:?} {expected:?}");
                    }
                }
            }
        }
    }
}

/// Of several variables: the mean over the others' values is that of the sampled difference, with less variance.
#[test]
fn rao_blackwellisation_keeps_the_mean_with_the_kl_inside() {
    let structure = Categorical::product(3, 4).unwrap();
    let (h, table) = (random(12, 1.0, 1930), random(64, 2.0, 1931));
    let oracle = &mut Table::categorical(&structure, &table);
    for sides in [Sides::One, Sides::Two] {
        let direct = direct(sides, 0.7, 1.0);
        let plain = mean_of(&direct, &structure, &h, oracle, 1, DRAWS, 1932);
        let blackwell = mean_of(&direct.rao_blackwell(), &structure, &h, oracle, 1, DRAWS, 1933);
        for i in 0..12 {
            let error = (plain.error[i].powi(2) + blackwell.error[i].powi(2)).sqrt();
            assert!((plain.mean[i] - blackwell.mean[i]).abs() < 4.0 * error, "{sides:?} {i}");
            assert!(blackwell.error[i] < plain.error[i], "{sides:?} {i}");
        }
    }
}

/// As eps vanishes, the expectation is the exact gradient of the expected loss and the KL: of order eps away from it,
/// to two sides eps².
#[test]
fn with_a_small_epsilon_the_expectation_is_the_gradient_of_the_bound() {
    for (i, structure) in structured().iter().enumerate().filter(|(_, s)| s.has_sums()) {
        let h = potentials(structure, 2000 + i as u64);
        let loss = Loss::new(structure, 0.5, 2020 + 2 * i as u64);
        let oracle = &mut Table::of(structure, |code| loss.of(code));
        for weight in [1.0, 0.3] {
            let gradient = bound(structure, &h, oracle, weight as f32);
            assert!(gradient.iter().any(|g| g.abs() > 0.02), "{structure:?}: nothing to compare");
            let bias = |sides: Sides, epsilon: f64| {
                distance(&expectation(structure, &h, oracle.all(), (sides, epsilon, weight)), &gradient)
            };
            assert!(bias(Sides::Two, 1e-3) < 1e-4, "{structure:?}: {}", bias(Sides::Two, 1e-3));
            let one = bias(Sides::One, 0.04) / bias(Sides::One, 0.02);
            let two = bias(Sides::Two, 0.2) / bias(Sides::Two, 0.1);
            assert!((1.8..2.2).contains(&one), "{structure:?}: halving epsilon divides the bias by {one}");
            assert!((3.0..5.0).contains(&two), "{structure:?}: to two sides by {two}");
        }
    }

    // What the library computes, for one variable.
    for k in [2usize, 5, 10] {
        let structure = Categorical::new(k).unwrap();
        let (h, loss) = (random(k, 1.0, 2040 + k as u64), random(k, 1.0, 2060 + k as u64));
        let oracle = &mut Table::categorical(&structure, &loss);
        let gradient = bound(&structure, &h, oracle, 1.0);
        let estimator = direct(Sides::Two, 0.02, 1.0).rao_blackwell();
        let found = estimate(&estimator, &structure, &h, &vec![0.0; k], oracle).unwrap().gradient;
        assert!(distance(&doubles(&found), &gradient) < 1e-3, "K = {k}: {found:?} {gradient:?}");
    }
}

/// Who takes the term into its own objective, and where it cannot be elsewhere.
#[test]
fn every_form_of_direct_takes_the_kl() {
    let expected = |name: &str| match name {
        "direct" => KlTerm::Either,
        "marginal" | "vimco" => KlTerm::Within,
        _ => KlTerm::Apart,
    };
    let structure: AnyStructure = Categorical::new(2).unwrap().into();
    for entry in estimators().iter() {
        let defaults = Settings::defaults(entry.settings());
        assert_eq!(entry.build(&defaults, &structure).unwrap().kl(&structure), expected(entry.name()));
    }
    let subset: AnyStructure = Subset::new(5, 2).unwrap().into();
    let entries = estimators();
    let entry = entries.get("direct").unwrap();
    let joint = entry.settings().iter().find(|s| s.name == "joint").unwrap();
    for name in ["off", "search", "exact"] {
        let settings = Settings::defaults(entry.settings()).with(joint, name).unwrap();
        assert_eq!(entry.build(&settings, &subset).unwrap().kl(&subset), KlTerm::Either, "{name}");
    }
    assert_eq!(Estimator::<AnyStructure>::kl(&Exact, &subset), KlTerm::Apart);
}

/// Couplings that must not be negative are not turned: 1 - eps kl is at least 0.
#[test]
fn an_epsilon_that_turns_signs_is_refused_where_they_matter() {
    let supermodular: AnyStructure = Supermodular::new(3).unwrap().into();
    let categorical: AnyStructure = Categorical::new(3).unwrap().into();
    let entries = estimators();
    let entry = entries.get("direct").unwrap();
    let setting = |name: &str| entry.settings().iter().find(|s| s.name == name).unwrap();
    let begin = |structure: &AnyStructure, joint: &str, kl_weight: f32| -> Result<(), Error> {
        let settings = Settings::defaults(entry.settings()).with(setting("epsilon"), "1.25")?;
        let mut estimator = entry.build(&settings.with(setting("joint"), joint)?, structure)?;
        estimator.begin(&Moment { step: 0, kl_weight })
    };
    for joint in ["off", "search", "flips", "exact"] {
        let message = begin(&supermodular, joint, 1.0).unwrap_err().to_string();
        assert!(message.contains("at most 1 where the KL term has the weight 1"), "{joint}: {message}");
        begin(&supermodular, joint, 0.8).unwrap();
        begin(&supermodular, joint, 0.0).unwrap();
        begin(&categorical, joint, 1.0).unwrap();
    }
}
