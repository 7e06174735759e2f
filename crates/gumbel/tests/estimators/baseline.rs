//! REINFORCE with a baseline of each example that is learned from its potentials.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Estimator, Reinforce, ReinforceLearned, estimate, estimators};
use gumbel::oracle::Closure;
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Permutation, Structure, Subset};

const BATCH: usize = 50;

/// Losses with levels that potentials tell: 20 nats and more for the whole batch, and several from example to example.
fn level(h: &[f32]) -> f32 {
    40.0 + 6.0 * (h[0] - h[1]) + 3.0 * h[2]
}

/// Steps on new examples, none of which is seen twice.
fn learn(estimator: &mut dyn Estimator, structure: &AnyStructure, steps: std::ops::Range<u64>) {
    let loss = Loss::new(structure, 0.5, 9601);
    for step in steps {
        let h = batch(structure, step);
        let p = structure.potentials();
        let noise = gumbel(BATCH * estimator.noise(structure).unwrap(), 9602, step);
        let mut oracle = Closure::new(structure, |b, code| level(&h[b * p..]) + loss.of(code));
        let found = estimate(estimator, structure, &h, &noise, &mut oracle).unwrap();
        estimator.learn(&found.sums);
    }
}

fn batch(structure: &AnyStructure, step: u64) -> Vec<f32> {
    (0..BATCH).flat_map(|b| potentials(structure, 20_000 + step * BATCH as u64 + b as u64)).collect()
}

fn of(structure: &AnyStructure, name: &str) -> Box<dyn Estimator> {
    let all = estimators();
    let entry = all.get("reinforce").unwrap();
    let setting = entry.settings().iter().find(|s| s.name == "baseline").unwrap();
    entry.build(&Settings::defaults(entry.settings()).with(setting, name).unwrap(), structure).unwrap()
}

fn structures() -> Vec<AnyStructure> {
    vec![
        Categorical::new(3).unwrap().into(),
        Categorical::product(3, 2).unwrap().into(),
        Categorical::product(3, 5).unwrap().into(),
        Chain::new(3, 3).unwrap().into(),
        Pairwise::new(4).unwrap().into(),
        Subset::new(5, 2).unwrap().into(),
    ]
}

/// Whatever the baseline has learned.
#[test]
fn a_learned_baseline_leaves_the_mean_exact() {
    for (case, structure) in structures().into_iter().enumerate() {
        let mut learned = of(&structure, "learned");
        learn(&mut *learned, &structure, 0..200);
        let (h, loss) = (potentials(&structure, 9610 + case as u64), Loss::new(&structure, 0.5, 9601));
        let mut oracle = Table::of(&structure, |code| level(&h) + loss.of(code));
        let expected = doubles(&exact(&structure, &h, &mut oracle));
        let draws = if structure.is_independent() { 200_000 } else { 60_000 };
        let found = mean_of(&*learned, &structure, &h, &mut oracle, 2, draws, 9620 + case as u64);
        assert_within_four_standard_errors(&format!("{structure:?}"), &found, &expected);
        assert!(found.error.iter().all(|e| *e > 0.0));
    }
}

/// Variance of the estimates of a batch, over some draws.
fn variance(estimator: &dyn Estimator, structure: &AnyStructure) -> f64 {
    const DRAWS: u64 = 100;
    let (h, p) = (batch(structure, 1 << 20), structure.potentials());
    let loss = Loss::new(structure, 0.5, 9601);
    let mut oracle = Closure::new(structure, |b, code| level(&h[b * p..]) + loss.of(code));
    let (mut sum, mut squares) = (vec![0.0; h.len()], 0.0);
    for draw in 0..DRAWS {
        let noise = gumbel(BATCH * estimator.noise(structure).unwrap(), 9630, draw);
        let found = estimate(estimator, structure, &h, &noise, &mut oracle).unwrap().gradient;
        sum.iter_mut().zip(&found).for_each(|(s, g)| *s += *g as f64 / DRAWS as f64);
        squares += found.iter().map(|g| (*g as f64).powi(2)).sum::<f64>() / DRAWS as f64;
    }
    squares - sum.iter().map(|m| m * m).sum::<f64>()
}

#[test]
fn it_lowers_the_variance_where_examples_have_different_levels() {
    for structure in structures() {
        let [none, average, learned] = ["none", "average", "learned"].map(|name| {
            let mut estimator = of(&structure, name);
            learn(&mut *estimator, &structure, 0..1500);
            variance(&*estimator, &structure)
        });
        assert!(average < 0.3 * none, "{structure:?}: {average} {none}");
        assert!(learned < 0.5 * average, "{structure:?}: {learned} {average}");
    }
}

/// Adam on the squared error in f64, written out; each batch is compared with what the ones before have taught.
#[test]
fn it_is_fitted_to_the_batches_before() {
    let structure: AnyStructure = Categorical::new(3).unwrap().into();
    let (rate, decay) = (0.01, 0.9f64);
    let mut ours = ReinforceLearned::new(3, rate as f32, decay as f32).unwrap();
    let (mut average, mut spread) = ((0.0f64, 0.0f64), (0.0f64, 0.0f64));
    let (mut w, mut first, mut second) = ([0.0f64; 4], [0.0f64; 4], [0.0f64; 4]);
    for step in 0..40u64 {
        let (h, noise) = (batch(&structure, step), gumbel(3 * BATCH, 9640, step));
        let at = |b: usize, code: &[f32]| level(&h[3 * b..]) + 2.0 * code[1];
        let found = estimate(&ours, &structure, &h, &noise, &mut Closure::new(&structure, at)).unwrap();
        let mean = |of: (f64, f64)| if of.1 > 0.0 { of.0 / of.1 } else { 0.0 };
        let unit = if mean(spread) > 0.0 { mean(spread).sqrt() } else { 1.0 };
        let inputs = |b: usize| {
            let x = |i: usize| h[3 * b + i] as f64 / 3f64.sqrt();
            [1.0, x(0), x(1), x(2)]
        };
        let baseline = |b: usize| mean(average) + unit * inputs(b).iter().zip(&w).map(|(x, w)| x * w).sum::<f64>();
        for b in 0..BATCH {
            let (found, expected) = (ours.baseline(&h[3 * b..][..3]) as f64, baseline(b));
            assert!((found - expected).abs() < 1e-3, "step {step}: {found} {expected}");
        }
        // The estimate is that of the losses less the baseline.
        let compared = |b: usize, code: &[f32]| at(b, code) - baseline(b) as f32;
        let mut oracle = Closure::new(&structure, compared);
        let plain = estimate(&Reinforce::new(), &structure, &h, &noise, &mut oracle).unwrap().gradient;
        assert!(plain.iter().zip(&found.gradient).all(|(a, b)| (a - b).abs() < 1e-3));

        let mut z = vec![0; BATCH];
        gumbel::structure::perturbed_argmax(&structure, &h, &noise, &mut z).unwrap();
        let losses: Vec<f64> =
            (0..BATCH).map(|b| level(&h[3 * b..]) as f64 + if z[b] == 1 { 2.0 } else { 0.0 }).collect();
        let distance: f64 = losses.iter().map(|l| l - mean(average)).sum::<f64>() / BATCH as f64;
        let mut square: f64 = losses.iter().map(|l| (l - mean(average)).powi(2)).sum::<f64>() / BATCH as f64;
        if step == 0 {
            square -= distance * distance;
        } else {
            let errors: Vec<f64> = (0..BATCH).map(|b| (baseline(b) - losses[b]) / unit).collect();
            for i in 0..4 {
                let slope = (0..BATCH).map(|b| errors[b] * inputs(b)[i]).sum::<f64>() / BATCH as f64;
                first[i] = 0.9 * first[i] + 0.1 * slope;
                second[i] = 0.999 * second[i] + 0.001 * slope * slope;
                let corrected =
                    (first[i] / (1.0 - 0.9f64.powi(step as i32)), second[i] / (1.0 - 0.999f64.powi(step as i32)));
                w[i] -= rate * corrected.0 / (corrected.1.sqrt() + 1e-8);
            }
        }
        let now = mean(average) + distance;
        average = (decay * average.0 + (1.0 - decay) * now, decay * average.1 + 1.0 - decay);
        spread = (decay * spread.0 + (1.0 - decay) * square, decay * spread.1 + 1.0 - decay);
        Estimator::<AnyStructure>::learn(&mut ours, &found.sums);
    }
    // Nothing is learned from nothing, nor from what has overflowed.
    let kept = ours.clone();
    let width = Estimator::<AnyStructure>::sums(&ours);
    Estimator::<AnyStructure>::learn(&mut ours, &vec![0.0; width]);
    let mut overflowed = vec![1.0; width];
    overflowed[2] = f32::INFINITY;
    Estimator::<AnyStructure>::learn(&mut ours, &overflowed);
    assert_eq!(ours, kept);
}

#[test]
fn it_survives_a_restart_to_the_bit() {
    let structure: AnyStructure = Chain::new(3, 2).unwrap().into();
    let mut whole = of(&structure, "learned");
    learn(&mut *whole, &structure, 0..60);
    let mut first = of(&structure, "learned");
    learn(&mut *first, &structure, 0..25);
    let mut second = of(&structure, "learned");
    second.restore(&first.state()).unwrap();
    assert_eq!(second.state(), first.state());
    learn(&mut *second, &structure, 25..60);
    let bits = |x: Vec<f32>| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(whole.state()), bits(second.state()));
    assert!(matches!(second.restore(&[1.0]), Err(Error::Length { found: 1, .. })));
    // Adam's steps, not only its weights.
    let mut forgetful = of(&structure, "learned");
    let mut state = first.state();
    state[4] = 0.0;
    forgetful.restore(&state).unwrap();
    learn(&mut *forgetful, &structure, 25..60);
    assert_ne!(bits(whole.state()), bits(forgetful.state()));
}

/// Forbidden potentials are inputs of the baseline as any others.
#[test]
fn bad_numbers_and_settings_are_errors_and_forbidden_values_are_not() {
    let structure: AnyStructure = Categorical::new(3).unwrap().into();
    let mut learned = of(&structure, "learned");
    let (h, noise) = ([0.3, f32::NEG_INFINITY, -0.2].repeat(100), gumbel(300, 9650, 0));
    for _ in 0..5 {
        let oracle = &mut Closure::new(&structure, |b, code| b as f32 + 3.0 * code[0]);
        let found = estimate(&*learned, &structure, &h, &noise, oracle).unwrap();
        assert!(found.gradient.chunks(3).all(|g| g[1] == 0.0) && found.gradient.iter().all(|g| g.is_finite()));
        learned.learn(&found.sums);
        assert!(learned.state().iter().all(|v| v.is_finite()));
    }
    for loss in [f32::NAN, f32::INFINITY] {
        let oracle = &mut Closure::new(&structure, |b, _| if b == 1 { loss } else { 1.0 });
        let error = estimate(&*learned, &structure, &[0.0; 6], &[0.0; 6], oracle).unwrap_err().to_string();
        assert!(error.starts_with("example 1 of the batch: loss 0 is "), "{error}");
    }
    let oracle = &mut Closure::new(&structure, |_, _| 1.0);
    assert!(estimate(&*learned, &structure, &[0.0, f32::NAN, 0.0], &[0.0; 3], oracle).is_err());
    let other = ReinforceLearned::new(4, 0.01, 0.9).unwrap();
    let error = estimate(&other, &structure, &[0.0; 3], &[0.0; 3], oracle).unwrap_err();
    assert!(matches!(error, Error::Length { expected: 4, found: 3, .. }), "{error}");
    for (rate, decay) in [(0.0, 0.9), (f32::NAN, 0.9), (f32::INFINITY, 0.9), (0.1, 1.0), (0.1, -0.5)] {
        assert!(ReinforceLearned::new(3, rate, decay).is_err());
    }
    let all = estimators();
    let entry = all.get("reinforce").unwrap();
    let rate = entry.settings().iter().find(|s| s.name == "baseline-lr").unwrap();
    for bad in ["0", "-1", "inf", "1e50"] {
        let error = rate.parse(bad).unwrap_err().to_string();
        assert_eq!(error, format!("baseline-lr = {bad}: expected a finite number greater than 0"));
    }
    let baseline = entry.settings().iter().find(|s| s.name == "baseline").unwrap();
    let settings = Settings::defaults(entry.settings()).with(baseline, "learned").unwrap();
    let permutation: AnyStructure = Permutation::new(4).unwrap().into();
    assert!(matches!(entry.build(&settings, &permutation), Err(Error::NoSums { .. })));
}
