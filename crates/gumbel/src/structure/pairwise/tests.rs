use super::search::{ANCHORED, Settings};
use super::*;
use crate::structure::brute_force::{self, Random, Values, cases};

/// Potentials whose pairs are drawn apart from the unary ones.
fn instance(n: usize, unary: Values, pairs: Values, random: &mut Random) -> Vec<f32> {
    let mut h = unary.vector(2 * n, random);
    h.extend(pairs.vector(n * n.saturating_sub(1) / 2, random));
    h
}

#[test]
fn argmax_agrees_with_enumeration() {
    let mut scratch = PairwiseScratch::default();
    for case in 0..cases() {
        let mut random = Random::new(1, case);
        let n = random.below(11);
        let unary = Values::ALL[case as usize % 5];
        let pairs = Values::ALL[case as usize / 5 % 5];
        let h = instance(n, unary, pairs, &mut random);
        let model = Pairwise::new(n).unwrap();
        brute_force::check_argmax(&model, &h, &mut scratch, &(case, unary, pairs, &h));
    }
}

#[test]
fn sums_agree_with_enumeration() {
    for case in 0..cases() {
        let mut random = Random::new(2, case);
        let n = random.below(8);
        let (unary, pairs) = (Values::ALL[case as usize % 5], Values::ALL[case as usize / 5 % 5]);
        let h = instance(n, unary, pairs, &mut random);
        let model = Pairwise::new(n).unwrap();
        brute_force::check_sums(&model, &h, &(case, unary, pairs, &h));
        if unary != Values::Extreme && pairs != Values::Extreme {
            brute_force::check_kl(&model, &h, &(case, unary, pairs, &h));
            brute_force::check_covariance(&model, &h, &(case, unary, pairs, &h));
        }
    }
}

/// The answer of plain branch and bound, without reductions and bounds of any finesse.
fn naive(model: &Pairwise, h: &[f32]) -> f64 {
    fn visit(k: usize, value: f64, u: &mut [f64], w: &[Vec<f64>], best: &mut f64) {
        if k == 0 {
            *best = best.max(value);
            return;
        }
        // Half of every positive weight may be earned by either end.
        let bound: f64 =
            (0..k).map(|i| (u[i] + w[i][..k].iter().map(|w| 0.5 * w.max(0.0)).sum::<f64>()).max(0.0)).sum();
        if value + bound <= *best {
            return;
        }
        let p = k - 1;
        let gain = u[p];
        for z in if gain > 0.0 { [1.0, 0.0] } else { [0.0, 1.0] } {
            (0..p).for_each(|i| u[i] += z * w[p][i]);
            visit(p, value + z * gain, u, w, best);
            (0..p).for_each(|i| u[i] -= z * w[p][i]);
        }
    }
    let n = model.variables;
    let mut w = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in i + 1..n {
            w[i][j] = h[model.pair(i, j)] as f64;
            w[j][i] = w[i][j];
        }
    }
    let mut u: Vec<f64> = (0..n).map(|i| h[2 * i + 1] as f64 - h[2 * i] as f64).collect();
    let base: f64 = (0..n).map(|i| h[2 * i] as f64).sum();
    let mut best = 0.0;
    visit(n, 0.0, &mut u, &w, &mut best);
    base + best
}

/// Larger instances of several kinds, for the parts that small ones do not reach.
fn larger(case: u64, random: &mut Random) -> (usize, Vec<f32>) {
    let n = ANCHORED + random.below(4);
    let density = [1.0, 0.3, 0.15][case as usize % 3];
    let integer = case.is_multiple_of(2);
    let extreme = case % 7 == 6;
    let draw = |random: &mut Random, scale: f32| {
        if extreme {
            Values::Extreme.draw(random)
        } else if integer {
            (scale * random.normal()).round()
        } else {
            0.3 * scale * random.normal()
        }
    };
    let mut h: Vec<f32> = (0..2 * n).map(|_| draw(random, 3.0)).collect();
    h.extend((0..n * (n - 1) / 2).map(|_| if random.uniform() < density { draw(random, 3.0) } else { 0.0 }));
    (n, h)
}

#[test]
fn larger_instances_agree_with_plain_branch_and_bound() {
    let mut scratch = PairwiseScratch::default();
    for case in 0..cases() / 400 {
        let mut random = Random::new(3, case);
        let (n, h) = larger(case, &mut random);
        let model = Pairwise::new(n).unwrap();
        let mut z = vec![0; n];
        let found = model.argmax(&h, &mut z, &mut scratch).unwrap();
        brute_force::check_maximum(&model, &h, &z, found, naive(&model, &h), &case);
    }
}

#[test]
fn anchors_agree_with_enumeration() {
    // Small components that are searched with anchors from the first node on.
    let mut scratch = PairwiseScratch::default();
    scratch.buffers.settings = Settings { anchored: 3, spacing: [2, 2], smallest: 1, probe: 0 };
    for case in 0..cases() / 4 {
        let mut random = Random::new(4, case);
        let n = 3 + random.below(9);
        let (unary, pairs) = (Values::ALL[case as usize % 5], Values::ALL[case as usize / 5 % 5]);
        let h = instance(n, unary, pairs, &mut random);
        let model = Pairwise::new(n).unwrap();
        let mut z = brute_force::check_argmax(&model, &h, &mut scratch, &(case, unary, pairs, &h));
        let changed: Vec<f32> =
            h[..2 * n].iter().map(|h| h + random.normal()).chain(h[2 * n..].iter().copied()).collect();
        if let Ok(found) = model.resolve(&changed, &mut z, &mut scratch) {
            let expected = brute_force::enumerate(&model, &changed).max;
            brute_force::check_maximum(&model, &changed, &z, found, expected, &(case, unary, pairs, &changed));
        }
    }
}

#[test]
fn resolve_and_warm_starts_agree_with_argmax() {
    let mut scratch = PairwiseScratch::default();
    for case in 0..cases() / 20 {
        let mut random = Random::new(5, case);
        let n = 1 + random.below(11);
        let values = Values::ALL[case as usize % 5];
        let mut h = instance(n, values, Values::ALL[case as usize / 5 % 5], &mut random);
        let model = Pairwise::new(n).unwrap();
        let mut z = vec![0; n];
        let mut solved = model.argmax(&h, &mut z, &mut scratch).is_ok();
        for _ in 0..5 {
            for h in &mut h[..2 * n] {
                match random.below(8) {
                    0 => *h = values.draw(&mut random),
                    1..3 => *h += random.normal(),
                    _ => {}
                }
            }
            let expected = brute_force::enumerate(&model, &h).max;
            let answer = match solved {
                true => model.resolve(&h, &mut z, &mut scratch),
                false => model.argmax_from(&h, &mut z, &mut scratch),
            };
            solved = answer.is_ok();
            match answer {
                Ok(found) => brute_force::check_maximum(&model, &h, &z, found, expected, &(case, &h)),
                Err(_) => assert_eq!(expected, f64::NEG_INFINITY, "{case}"),
            }
        }
    }
    for case in 0..cases() / 400 {
        let mut random = Random::new(6, case);
        let (n, mut h) = larger(case, &mut random);
        let model = Pairwise::new(n).unwrap();
        let (mut z, mut cold) = (vec![0; n], vec![0; n]);
        model.argmax(&h, &mut z, &mut scratch).unwrap();
        h[..2 * n].iter_mut().for_each(|h| *h += 0.5 * random.normal());
        let found = model.resolve(&h, &mut z, &mut scratch).unwrap();
        let expected = model.argmax(&h, &mut cold, &mut model.scratch()).unwrap();
        brute_force::check_maximum(&model, &h, &z, found, expected.value, &case);
        // Any start will do, also one with values that are none.
        z.iter_mut().for_each(|z| *z = random.below(4) as u32);
        let found = model.argmax_from(&h, &mut z, &mut scratch).unwrap();
        brute_force::check_maximum(&model, &h, &z, found, expected.value, &case);
    }
}

#[test]
fn a_time_limit_gives_a_bound() {
    let n = 90;
    let mut random = Random::new(7, 0);
    let h: Vec<f32> = (0..2 * n + n * (n - 1) / 2).map(|_| random.normal()).collect();
    let model = Pairwise::new(n).unwrap().with_limit(Some(Duration::from_millis(20)));
    let mut z = vec![0; n];
    let start = Instant::now();
    let found = model.argmax(&h, &mut z, &mut model.scratch()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(found.bound > found.value && found.bound < 1.5 * found.value, "{found:?}");
    assert!((found.value - model.score(&h, &z)).abs() < 1e-9);
    // The largest size: no bound of any finesse, but a true one, and an end.
    let n = Pairwise::MAX_VARIABLES;
    let h: Vec<f32> = (0..2 * n + n * (n - 1) / 2).map(|_| random.normal()).collect();
    let model = Pairwise::new(n).unwrap().with_limit(Some(Duration::from_millis(20)));
    let mut z = vec![0; n];
    let found = model.argmax(&h, &mut z, &mut model.scratch()).unwrap();
    assert!(found.bound.is_finite() && !found.is_proved() && found.value > 10_000.0, "{found:?}");
    // Bounds hold: of many instances, the optimum is never above.
    for case in 0..60 {
        let mut random = Random::new(8, case);
        let n = [12, 34][case as usize % 2];
        let h: Vec<f32> = (0..2 * n + n * (n - 1) / 2).map(|_| random.normal()).collect();
        let model = Pairwise::new(n).unwrap();
        let mut z = vec![0; n];
        let exact = model.argmax(&h, &mut z, &mut model.scratch()).unwrap();
        assert!(exact.is_proved());
        let limited = model.with_limit(Some(Duration::ZERO));
        let found = limited.argmax(&h, &mut z, &mut limited.scratch()).unwrap();
        assert!(found.value <= exact.value + 1e-9 && exact.value <= found.bound + 1e-9, "{case}: {found:?} {exact:?}");
    }
}

#[test]
fn samples_follow_the_distribution() {
    let model = Pairwise::new(4).unwrap();
    let mut random = Random::new(9, 0);
    let mut h: Vec<f32> = (0..model.potentials()).map(|_| random.normal()).collect();
    brute_force::check_samples(&model, &h, 50_000, 10);
    h[3] = f32::NEG_INFINITY;
    h[13] = f32::NEG_INFINITY;
    brute_force::check_samples(&model, &h, 20_000, 11);
    brute_force::check_samples(&Pairwise::new(0).unwrap(), &[], 10, 12);
}

#[test]
fn extreme_sizes_are_defined() {
    let none = Pairwise::new(0).unwrap();
    assert_eq!((none.potentials(), none.unary(), none.states(), none.ln_states()), (0, 0, Some(1), 0.0));
    assert_eq!(none.argmax(&[], &mut [], &mut none.scratch()).unwrap(), Maximum::proved(0.0));
    assert_eq!(none.log_partition(&[]).unwrap(), 0.0);
    let one = Pairwise::new(1).unwrap();
    let mut z = [7];
    assert_eq!(one.argmax(&[1.0, 2.0], &mut z, &mut one.scratch()).unwrap().value, 2.0);
    assert_eq!(z, [1]);
    // The largest one, as a path with alternating wishes: reductions alone solve it.
    let n = Pairwise::MAX_VARIABLES;
    let model = Pairwise::new(n).unwrap();
    assert_eq!(model.states(), None);
    let mut h = vec![0.0; model.potentials()];
    for i in 0..n - 1 {
        h[2 * i + 1] = 1.0;
        h[model.pair(i, i + 1)] = -1.5;
    }
    h[2 * n - 1] = 1.0;
    let mut z = vec![0; n];
    let found = model.argmax(&h, &mut z, &mut model.scratch()).unwrap();
    assert!(found.is_proved());
    assert_eq!(found.value, (n / 2) as f64);
    assert!(Pairwise::new(n + 1).is_err());
    assert_eq!(Pairwise::new(63).unwrap().states(), Some(1 << 63));
    assert_eq!(Pairwise::new(64).unwrap().states(), None);
}

#[test]
fn bad_input_is_an_error() {
    let model = Pairwise::new(2).unwrap();
    let mut scratch = model.scratch();
    let mut z = [0; 2];
    let mut error = |h: [f32; 5]| model.argmax(&h, &mut z, &mut scratch).unwrap_err();
    assert_eq!(error([0.0, 0.0, 0.0, 0.0, f32::NAN]), Error::NotANumber { what: "potential", index: 4 });
    let infinite = Error::PositiveInfinity { what: "potential", index: 1 };
    assert_eq!(error([0.0, f32::INFINITY, 0.0, 0.0, 0.0]), infinite);
    const NO: f32 = f32::NEG_INFINITY;
    assert!(matches!(error([NO, NO, 0.0, 0.0, 0.0]), Error::Infeasible { .. }));
    assert!(matches!(error([NO, 0.0, NO, 0.0, NO]), Error::Infeasible { .. }));
    assert!(matches!(model.log_partition(&[NO, 0.0, NO, 0.0, NO]), Err(Error::Infeasible { .. })));
    assert!(matches!(model.log_partition(&[0.0, 0.0, f32::NAN, 0.0, 0.0]), Err(Error::NotANumber { .. })));
    let large = Pairwise::new(21).unwrap();
    let h = vec![0.0; large.potentials()];
    assert!(matches!(large.log_partition(&h), Err(Error::TooManyStates { .. })));
    assert!(matches!(large.kl_to_uniform(&h, 1.0, &mut h.clone()), Err(Error::TooManyStates { .. })));
    assert!(crate::structure::argmax_batch(&model, &[0.0; 9], &mut [0; 4]).is_err());
}

#[test]
fn batches_do_not_depend_on_threads() {
    let n = 12;
    let model = Pairwise::new(n).unwrap();
    let mut random = Random::new(13, 0);
    let h: Vec<f32> = (0..200 * model.potentials()).map(|_| random.normal()).collect();
    let solve = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut z = vec![0; 200 * n];
        pool.install(|| crate::structure::argmax_batch(&model, &h, &mut z)).unwrap();
        z
    };
    assert_eq!(solve(1), solve(3));
}

#[test]
fn anchors_change_no_answer_at_their_own_sizes() {
    let (mut with, mut without) = (PairwiseScratch::default(), PairwiseScratch::default());
    with.buffers.settings.probe = 0;
    without.buffers.settings.anchored = usize::MAX;
    for case in 0..cases() / 1000 {
        let mut random = Random::new(14, case);
        let n = 30 + random.below(4);
        let sigma = [0.3, 1.0, 3.0][case as usize % 3];
        let mut h: Vec<f32> = (0..2 * n).map(|_| random.normal()).collect();
        h.extend((0..n * (n - 1) / 2).map(|_| sigma * random.normal()));
        let model = Pairwise::new(n).unwrap();
        let (mut z, mut plain) = (vec![0; n], vec![0; n]);
        let expected = model.argmax(&h, &mut plain, &mut without).unwrap();
        let found = model.argmax(&h, &mut z, &mut with).unwrap();
        brute_force::check_maximum(&model, &h, &z, found, expected.value, &case);
        // And once more around other unary potentials.
        h[..2 * n].iter_mut().for_each(|h| *h += random.normal());
        let expected = model.argmax(&h, &mut plain, &mut without).unwrap();
        let found = model.resolve(&h, &mut z, &mut with).unwrap();
        brute_force::check_maximum(&model, &h, &z, found, expected.value, &case);
    }
}
