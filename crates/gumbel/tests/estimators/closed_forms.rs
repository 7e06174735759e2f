//! Independent variables, whose expectations are known.

use crate::common::*;
use gumbel::estimator::{Direct, Estimator, Exact, LocalExpectation, Marginal, Memory, Sides, estimate};
use gumbel::oracle::{Closure, Kept};
use gumbel::structure::{Categorical, Structure, Sums};

#[test]
fn the_mean_of_direct_is_its_closed_form() {
    for (case, k) in [2usize, 5, 10].into_iter().enumerate() {
        for (e, epsilon) in [0.1f64, 0.5, 1.0].into_iter().enumerate() {
            let seed = (case * 10 + e) as u64;
            let structure = Categorical::new(k).unwrap();
            let (h, loss) = (random(k, 1.0, 100 + seed), random(k, 2.0, 200 + seed));
            let oracle = &mut Table::categorical(&structure, &loss);
            let one = Direct::new(epsilon as f32).unwrap();
            let found = mean_of(&one, &structure, &h, oracle, 1, 200_000, seed);
            let expected = closed_form(&h, &loss, 0.0, -epsilon, epsilon);
            assert_within_four_standard_errors(&format!("K = {k}, eps = {epsilon}"), &found, &expected);
            let unmoved = found.tallies[0];
            assert!(unmoved.sum > 0.0 && unmoved.sum < 200_000.0 && unmoved.count == 200_000.0);
            assert_eq!(oracle.followed, 200_000);

            let two = one.sides(Sides::Two);
            let found = mean_of(&two, &structure, &h, oracle, 1, 200_000, seed);
            let expected = closed_form(&h, &loss, epsilon, -epsilon, 2.0 * epsilon);
            let what = format!("two-sided, K = {k}, eps = {epsilon}");
            assert_within_four_standard_errors(&what, &found, &expected);

            // The closed form that the library offers is the same one, and nothing random is left in it.
            for direct in [one, two] {
                let found = mean_of(&direct.rao_blackwell(), &structure, &h, oracle, 1, CHUNK, seed);
                let expected = match direct == one {
                    true => closed_form(&h, &loss, 0.0, -epsilon, epsilon),
                    false => expected.clone(),
                };
                let Statistics { mean, error, tallies, .. } = found;
                assert!(error.iter().all(|e| *e < 1e-6) && tallies.iter().all(|t| t.count == 0.0));
                assert!(mean.iter().zip(&expected).all(|(m, e)| (m - e).abs() < 1e-5), "{mean:?} {expected:?}");
            }
        }
    }
}

#[test]
fn bias_falls_like_epsilon_and_two_sided_like_its_square() {
    for k in [2usize, 5, 10] {
        let structure = Categorical::new(k).unwrap();
        let (h, loss) = (random(k, 1.0, 300 + k as u64), random(k, 1.0, 400 + k as u64));
        let gradient = exact(&structure, &h, &mut Table::categorical(&structure, &loss));
        let bias = |sides: Sides, epsilon: f32| {
            let [mut g, mut from, mut to] = [const { vec![] }; 3].map(|_: Vec<f32>| vec![0.0; k]);
            Direct::new(epsilon).unwrap().sides(sides).expectation(&h, &loss, 1.0, &mut g, [&mut from, &mut to]);
            distance(&doubles(&g), &gradient)
        };
        for epsilon in [0.2, 0.4, 0.8] {
            assert!(bias(Sides::Two, epsilon) < bias(Sides::One, epsilon), "K = {k}, eps = {epsilon}");
        }
        let (one, two) = (bias(Sides::One, 0.4) / bias(Sides::One, 0.2), bias(Sides::Two, 0.4) / bias(Sides::Two, 0.2));
        assert!((1.5..2.6).contains(&one), "one-sided: halving epsilon divides the bias by {one}");
        assert!((3.0..5.0).contains(&two), "two-sided: halving epsilon divides the bias by {two}");
    }
}

#[test]
fn exact_is_the_derivative_of_the_expected_loss() {
    for (n, k) in [(1, 2), (1, 7), (3, 4), (5, 2)] {
        let structure = Categorical::product(n, k).unwrap();
        let h = random(n * k, 1.0, 1 + n as u64);
        let table = random(structure.states().unwrap(), 2.0, 2 + k as u64);
        let expected_loss = |h: &[f32]| -> f64 {
            let q: Vec<Vec<f64>> = h.chunks(k).map(|b| softmax64(b.iter().map(|v| *v as f64))).collect();
            let mut z = vec![0; n];
            (0..table.len())
                .map(|s| {
                    structure.state(s, &mut z);
                    let q: f64 = z.iter().enumerate().map(|(i, z)| q[i][*z as usize]).product();
                    q * table[s] as f64
                })
                .sum()
        };
        let gradient = exact(&structure, &h, &mut Table::categorical(&structure, &table));
        for i in 0..n * k {
            let at = |d: f32| {
                let mut x = h.clone();
                x[i] += d;
                expected_loss(&x)
            };
            let step = 1.0 / 64.0; // exact in f32 for potentials of this size up to rounding of the sum
            let numeric = (at(step) - at(-step)) / (2.0 * step as f64);
            assert!((numeric - gradient[i] as f64).abs() < 1e-3, "n = {n}, K = {k}: {numeric} {}", gradient[i]);
        }
    }
}

#[test]
fn local_expectation_averages_to_the_exact_gradient() {
    let structure = Categorical::product(3, 4).unwrap();
    let (h, table) = (random(12, 1.0, 5), random(64, 2.0, 6));
    let oracle = &mut Table::categorical(&structure, &table);
    let gradient = doubles(&exact(&structure, &h, oracle));
    let found = mean_of(&LocalExpectation, &structure, &h, oracle, 1, 200_000, 7);
    assert!(found.error.iter().all(|e| *e > 0.0));
    assert_within_four_standard_errors("local-expectation", &found, &gradient);

    // For one variable it is the exact gradient itself.
    let one = Categorical::new(6).unwrap();
    let (h, loss) = (random(6, 1.0, 8), random(6, 2.0, 9));
    let oracle = &mut Table::categorical(&one, &loss);
    let found = mean_of(&LocalExpectation, &one, &h, oracle, 1, CHUNK, 7);
    assert!(found.error.iter().all(|e| *e < 1e-6) && distance(&found.mean, &exact(&one, &h, oracle)) < 1e-5);
}

#[test]
fn rao_blackwellisation_keeps_the_mean_and_lowers_the_variance() {
    let structure = Categorical::product(3, 4).unwrap();
    let (h, table) = (random(12, 1.0, 15), random(64, 2.0, 16));
    let oracle = &mut Table::categorical(&structure, &table);
    for sides in [Sides::One, Sides::Two] {
        let direct = Direct::new(0.7).unwrap().sides(sides);
        let plain = mean_of(&direct, &structure, &h, oracle, 1, 200_000, 1);
        let blackwell = mean_of(&direct.rao_blackwell(), &structure, &h, oracle, 1, 200_000, 2);
        for i in 0..12 {
            let (a, b, errors) = (plain.mean[i], blackwell.mean[i], [plain.error[i], blackwell.error[i]]);
            let se = (errors[0].powi(2) + errors[1].powi(2)).sqrt();
            assert!((a - b).abs() < 4.0 * se, "{sides:?} {i}: {a} {b}");
            assert!(errors[1] < errors[0], "{sides:?} {i}: {} {}", errors[1], errors[0]);
        }
    }
    // As epsilon vanishes it becomes the local expectation.
    let tiny = mean_of(&Direct::new(1e-3).unwrap().rao_blackwell(), &structure, &h, oracle, 1, CHUNK, 3).mean;
    let local = mean_of(&LocalExpectation, &structure, &h, oracle, 1, CHUNK, 3).mean;
    assert!(tiny.iter().zip(&local).all(|(a, b)| (a - b).abs() < 1e-2), "{tiny:?} {local:?}");
}

#[test]
fn marginal_weighs_by_the_posterior() {
    let structure = Categorical::product(2, 3).unwrap();
    let (h, table) = (random(6, 1.0, 25), random(9, 2.0, 26));
    let mut oracle = Closure::new(&structure, |_, code| table[index(&structure, code)]);
    let mut gradient = vec![0.0; 6];
    let half = ByHand { samples: 1, scale: 0.5, parallel: false, first: 0 };
    piece(&Marginal, &structure, (&h, &[]), &half, &mut oracle, &mut Memory::default(), &mut gradient).unwrap();
    let [Kept::States(weights)] = &oracle.followed[..] else { panic!("{:?}", oracle.followed) };
    let posterior = softmax64(table.iter().map(|l| -*l as f64));
    for (w, p) in weights.iter().zip(&posterior) {
        assert!((*w as f64 - 0.5 * p).abs() < 1e-6);
    }
    let mut q = vec![0.0; 6];
    structure.marginals(&h, &mut q).unwrap();
    for i in 0..6 {
        let (variable, value) = (i / 3, i % 3);
        let p: f64 = (0..9).filter(|s| [s / 3, s % 3][variable] == value).map(|s| posterior[s]).sum();
        assert!((gradient[i] as f64 - 0.5 * (q[i] as f64 - p)).abs() < 1e-6);
    }
}

#[test]
fn exact_decoder_weights_are_probabilities_and_estimates_are_added() {
    let structure = Categorical::new(4).unwrap();
    let (h, loss) = (random(8, 1.0, 35), random(8, 2.0, 36));
    let mut oracle = Closure::new(&structure, |b, code| loss[4 * b + index(&structure, code)]);
    let (mut gradient, mut memory) = (vec![0.0; 8], Memory::default());
    let half = ByHand { samples: 1, scale: 0.5, parallel: false, first: 0 };
    for _ in 0..2 {
        piece(&Exact, &structure, (&h, &[]), &half, &mut oracle, &mut memory, &mut gradient).unwrap();
    }
    let [Kept::States(once), Kept::States(twice)] = &oracle.followed[..] else { panic!("{:?}", oracle.followed) };
    let weights: Vec<f32> = once.iter().zip(twice).map(|(a, b)| a + b).collect();
    for b in 0..2 {
        let rows = 4 * b..4 * b + 4;
        let q = softmax64(h[rows.clone()].iter().map(|v| *v as f64));
        assert!(weights[rows.clone()].iter().zip(&q).all(|(w, q)| (*w as f64 - q).abs() < 1e-6));
        let oracle = &mut Table::categorical(&structure, &loss[rows.clone()]);
        let single = exact(&structure, &h[rows.clone()], oracle);
        assert!(gradient[rows].iter().zip(&single).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

/// Where q is nearly one-hot, every coordinate is as small as the other probabilities; each must keep its own digits,
/// the likeliest one too, which is minus the sum of all others.
#[test]
fn collapsed_distributions_keep_the_digits_of_every_coordinate() {
    let potentials = [-19.5f32, 3.25, -17.0, -25.5, -15.75];
    let losses = [201.3f32, 205.7, 180.9, 210.2, 199.1];
    let softmax = |shift: f64| softmax64(potentials.iter().zip(&losses).map(|(h, l)| *h as f64 + shift * *l as f64));
    let q = softmax(0.0);
    let mean: f64 = q.iter().zip(&losses).map(|(q, l)| q * *l as f64).sum();
    let exact: Vec<f64> = q.iter().zip(&losses).map(|(q, l)| q * (*l as f64 - mean)).collect();
    let direct: Vec<f64> = q.iter().zip(softmax(-0.125)).map(|(q, p)| (q - p) / 0.125).collect();
    let posterior = softmax64(losses.iter().map(|l| -*l as f64));
    let marginal: Vec<f64> = q.iter().zip(posterior).map(|(q, p)| q - p).collect();

    let structure = Categorical::new(5).unwrap();
    let check = |what: &str, estimator: &dyn Estimator<Categorical>, expected: &[f64]| {
        let oracle = &mut Table::categorical(&structure, &losses);
        let gradient = estimate(estimator, &structure, &potentials, &[0.0; 5], oracle).unwrap().gradient;
        for (found, expected) in gradient.iter().zip(expected) {
            assert!((*found as f64 - expected).abs() < 1e-4 * expected.abs(), "{what}: {found:e}, {expected:e}");
        }
    };
    check("exact", &Exact, &exact);
    check("local-expectation", &LocalExpectation, &exact);
    check("direct, Rao-Blackwellised", &Direct::new(0.125).unwrap().rao_blackwell(), &direct);
    check("marginal", &Marginal, &marginal);
}

#[test]
fn the_kl_by_perturbation_has_its_closed_form_for_one_variable() {
    let (k, epsilon, weight) = (5, 0.5f64, 0.8f64);
    let structure = Categorical::new(k).unwrap();
    let (h, loss) = (random(k, 1.0, 41), random(k, 1.5, 42));
    let oracle = &mut Table::categorical(&structure, &loss);
    let direct = Direct::new(epsilon as f32).unwrap().with_kl(weight as f32);
    let found = mean_of(&direct, &structure, &h, oracle, 1, 200_000, 43);
    let moved = |shift: f64| {
        softmax64(h.iter().zip(&loss).map(move |(h, l)| (1.0 - shift * weight) * *h as f64 - shift * *l as f64))
    };
    let expected: Vec<f64> = moved(0.0).iter().zip(moved(epsilon)).map(|(a, b)| (a - b) / epsilon).collect();
    assert_within_four_standard_errors("with KL", &found, &expected);
    // As epsilon vanishes this is the derivative of the expected loss and the KL.
    let step = 1e-5;
    let limit: Vec<f64> = moved(-step).iter().zip(moved(step)).map(|(a, b)| (a - b) / (2.0 * step)).collect();
    let mut exact = exact(&structure, &h, oracle);
    structure.kl_to_uniform(&h, weight as f32, &mut exact).unwrap();
    assert!(distance(&limit, &exact) < 1e-4, "{limit:?} {exact:?}");
}
