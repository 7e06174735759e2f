//! Estimators against the exact gradient: statistical tests at fixed seeds.
//!
//! A mean over N draws is compared with its expectation in every coordinate within four standard errors; the
//! standard error comes from the draws themselves. With fixed seeds the tests are deterministic.

use gumbel::Error;
use gumbel::estimator::{
    Direct, DirectJoint, Estimate, Estimator, Exact, Inputs, LocalExpectation, Marginal, Needs, Perturbation, Sides,
    Solvers,
};
use gumbel::noise::{EULER_GAMMA, Noise, Purpose};
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Structure, Subset, Sums,
    Supermodular, Tree, perturbed_argmax,
};

/// Draws per chunk.
const CHUNK: usize = 2000;

fn random(len: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::User(0), 0).zero_mean_gumbel(&mut x);
    x.iter_mut().for_each(|v| *v *= scale);
    x
}

/// The losses of the one-coordinate changes of z, from a table over all states.
fn neighbours(structure: &Categorical, table: &[f32], z: &[u32]) -> Vec<f32> {
    let (n, k) = (structure.variables(), structure.values());
    let mut out = Vec::with_capacity(n * k);
    for i in 0..n {
        for value in 0..k {
            let changed = z.iter().enumerate().map(|(j, z)| if i == j { value } else { *z as usize });
            out.push(table[changed.fold(0, |index, z| index * k + z)]);
        }
    }
    out
}

/// Mean and standard error in every coordinate over `draws` independent estimates, and how many were zero.
fn mean_of<E: Estimator<Categorical>>(
    estimator: &E,
    structure: &Categorical,
    potentials: &[f32],
    table: &[f32],
    draws: usize,
    seed: u64,
) -> (Vec<f64>, Vec<f64>, Option<usize>) {
    assert_eq!(estimator.needs(), Needs::Neighbours);
    let p = structure.potentials();
    let (mut sum, mut squares) = (vec![0.0f64; p], vec![0.0f64; p]);
    let mut unmoved = None;
    let batch = potentials.repeat(CHUNK);
    let mut noise = vec![0.0; CHUNK * p];
    let mut assignment = vec![0; CHUNK * structure.variables()];
    for chunk in 0..draws / CHUNK {
        Noise::new(seed, Purpose::Noise, chunk as u64).gumbel(&mut noise);
        perturbed_argmax(structure, &batch, &noise, &mut assignment).unwrap();
        let losses: Vec<f32> =
            assignment.chunks(structure.variables()).flat_map(|z| neighbours(structure, table, z)).collect();
        let mut gradient = vec![0.0; CHUNK * p];
        let inputs = Inputs { potentials: &batch, noise: &noise, assignment: &assignment, losses: &losses };
        let mut estimate = Estimate::new(&mut gradient, 1.0);
        estimator.estimate(structure, &inputs, &mut estimate).unwrap();
        if let Some(u) = estimate.unmoved {
            *unmoved.get_or_insert(0) += u;
        }
        for row in gradient.chunks(p) {
            for (i, g) in row.iter().enumerate() {
                sum[i] += *g as f64;
                squares[i] += (*g as f64).powi(2);
            }
        }
    }
    let n = draws as f64;
    let mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
    let error = squares.iter().zip(&mean).map(|(q, m)| ((q / n - m * m).max(0.0) / n).sqrt()).collect();
    (mean, error, unmoved)
}

fn exact(structure: &Categorical, potentials: &[f32], table: &[f32]) -> Vec<f32> {
    let mut gradient = vec![0.0; potentials.len()];
    let (noise, assignment) = (vec![0.0; potentials.len()], vec![0; structure.variables()]);
    let inputs = Inputs { potentials, noise: &noise, assignment: &assignment, losses: table };
    Exact.estimate(structure, &inputs, &mut Estimate::new(&mut gradient, 1.0)).unwrap();
    gradient
}

fn softmax64(x: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let max = x.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.clone().map(|v| (v - max).exp()).sum();
    x.map(|v| (v - max).exp() / sum).collect()
}

/// (softmax(h + a loss) - softmax(h + b loss)) / c in f64.
fn closed_form(h: &[f32], loss: &[f32], a: f64, b: f64, c: f64) -> Vec<f64> {
    let at = |s: f64| softmax64(h.iter().zip(loss).map(move |(h, l)| *h as f64 + s * *l as f64));
    at(a).iter().zip(at(b)).map(|(x, y)| (x - y) / c).collect()
}

fn distance(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - *b as f64).powi(2)).sum::<f64>().sqrt()
}

#[track_caller]
fn assert_within_four_standard_errors(what: &str, mean: &[f64], error: &[f64], expected: &[f64]) {
    for (i, ((m, se), e)) in mean.iter().zip(error).zip(expected).enumerate() {
        assert!(
            (m - e).abs() <= 4.0 * se + 1e-6,
            "{what}, coordinate {i}: mean {m}, expected {e}, standard error {se}"
        );
    }
}

#[test]
fn the_mean_of_direct_is_its_closed_form() {
    for (case, k) in [2usize, 5, 10].into_iter().enumerate() {
        for (e, epsilon) in [0.1f64, 0.5, 1.0].into_iter().enumerate() {
            let seed = (case * 10 + e) as u64;
            let structure = Categorical::new(k).unwrap();
            let (h, loss) = (random(k, 1.0, 100 + seed), random(k, 2.0, 200 + seed));
            let one = Direct::new(epsilon as f32).unwrap();
            let (mean, error, unmoved) = mean_of(&one, &structure, &h, &loss, 200_000, seed);
            let expected = closed_form(&h, &loss, 0.0, -epsilon, epsilon);
            assert_within_four_standard_errors(&format!("K = {k}, eps = {epsilon}"), &mean, &error, &expected);
            assert!(unmoved.unwrap() > 0 && unmoved.unwrap() < 200_000);

            let two = one.sides(Sides::Two);
            let (mean, error, _) = mean_of(&two, &structure, &h, &loss, 200_000, seed);
            let expected = closed_form(&h, &loss, epsilon, -epsilon, 2.0 * epsilon);
            assert_within_four_standard_errors(
                &format!("two-sided, K = {k}, eps = {epsilon}"),
                &mean,
                &error,
                &expected,
            );

            // The closed form that the library offers is the same one, and nothing random is left in it.
            for direct in [one, two] {
                let (mean, error, unmoved) = mean_of(&direct.rao_blackwell(), &structure, &h, &loss, CHUNK, seed);
                let expected = match direct == one {
                    true => closed_form(&h, &loss, 0.0, -epsilon, epsilon),
                    false => expected.clone(),
                };
                assert!(error.iter().all(|e| *e < 1e-6) && unmoved.is_none());
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
        let gradient = exact(&structure, &h, &loss);
        let bias = |sides: Sides, epsilon: f32| {
            let [mut g, mut from, mut to] = [const { vec![] }; 3].map(|_: Vec<f32>| vec![0.0; k]);
            Direct::new(epsilon).unwrap().sides(sides).expectation(&h, &loss, 1.0, &mut g, [&mut from, &mut to]);
            distance(&g.iter().map(|v| *v as f64).collect::<Vec<_>>(), &gradient)
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
        let gradient = exact(&structure, &h, &table);
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
    let gradient: Vec<f64> = exact(&structure, &h, &table).iter().map(|g| *g as f64).collect();
    let (mean, error, _) = mean_of(&LocalExpectation, &structure, &h, &table, 200_000, 7);
    assert!(error.iter().all(|e| *e > 0.0));
    assert_within_four_standard_errors("local-expectation", &mean, &error, &gradient);

    // For one variable it is the exact gradient itself.
    let one = Categorical::new(6).unwrap();
    let (h, loss) = (random(6, 1.0, 8), random(6, 2.0, 9));
    let (mean, error, _) = mean_of(&LocalExpectation, &one, &h, &loss, CHUNK, 7);
    assert!(error.iter().all(|e| *e < 1e-6) && distance(&mean, &exact(&one, &h, &loss)) < 1e-5);
}

#[test]
fn rao_blackwellisation_keeps_the_mean_and_lowers_the_variance() {
    let structure = Categorical::product(3, 4).unwrap();
    let (h, table) = (random(12, 1.0, 15), random(64, 2.0, 16));
    for sides in [Sides::One, Sides::Two] {
        let direct = Direct::new(0.7).unwrap().sides(sides);
        let (plain, plain_error, _) = mean_of(&direct, &structure, &h, &table, 200_000, 1);
        let (blackwell, error, _) = mean_of(&direct.rao_blackwell(), &structure, &h, &table, 200_000, 2);
        for i in 0..12 {
            let se = (plain_error[i].powi(2) + error[i].powi(2)).sqrt();
            assert!((plain[i] - blackwell[i]).abs() < 4.0 * se, "{sides:?} {i}: {} {}", plain[i], blackwell[i]);
            assert!(error[i] < plain_error[i], "{sides:?} {i}: {} {}", error[i], plain_error[i]);
        }
    }
    // As epsilon vanishes it becomes the local expectation.
    let (tiny, _, _) = mean_of(&Direct::new(1e-3).unwrap().rao_blackwell(), &structure, &h, &table, CHUNK, 3);
    let (local, _, _) = mean_of(&LocalExpectation, &structure, &h, &table, CHUNK, 3);
    assert!(tiny.iter().zip(&local).all(|(a, b)| (a - b).abs() < 1e-2), "{tiny:?} {local:?}");
}

#[test]
fn marginal_weighs_by_the_posterior() {
    let structure = Categorical::product(2, 3).unwrap();
    let (h, table) = (random(6, 1.0, 25), random(9, 2.0, 26));
    let (mut gradient, mut weights) = (vec![0.0; 6], vec![0.0; 9]);
    let inputs = Inputs { potentials: &h, noise: &[0.0; 6], assignment: &[0; 2], losses: &table };
    let mut estimate = Estimate::with_weights(&mut gradient, &mut weights, 0.5);
    Marginal.estimate(&structure, &inputs, &mut estimate).unwrap();
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
fn exact_decoder_weights_are_probabilities_and_samples_average() {
    let structure = Categorical::new(4).unwrap();
    let (h, loss) = (random(8, 1.0, 35), random(8, 2.0, 36));
    let (mut gradient, mut weights) = (vec![0.0; 8], vec![0.0; 8]);
    let inputs = Inputs { potentials: &h, noise: &[0.0; 8], assignment: &[0; 2], losses: &loss };
    for _ in 0..2 {
        Exact.estimate(&structure, &inputs, &mut Estimate::with_weights(&mut gradient, &mut weights, 0.5)).unwrap();
    }
    for b in 0..2 {
        let rows = 4 * b..4 * b + 4;
        let q = softmax64(h[rows.clone()].iter().map(|v| *v as f64));
        assert!(weights[rows.clone()].iter().zip(&q).all(|(w, q)| (*w as f64 - q).abs() < 1e-6));
        let single = exact(&structure, &h[rows.clone()], &loss[rows.clone()]);
        assert!(gradient[rows].iter().zip(&single).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let structure = Categorical::new(50).unwrap();
    let batch = 1000;
    let (h, losses, noise) = (random(50 * batch, 1.0, 1), random(50 * batch, 3.0, 2), random(50 * batch, 1.0, 3));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut z = vec![0; batch];
            perturbed_argmax(&structure, &h, &noise, &mut z).unwrap();
            let inputs = Inputs { potentials: &h, noise: &noise, assignment: &z, losses: &losses };
            let (mut g, mut w) = (vec![0.0; 50 * batch], vec![0.0; 50 * batch]);
            let mut direct = Estimate::new(&mut g, 1.0);
            Direct::new(1.0).unwrap().estimate(&structure, &inputs, &mut direct).unwrap();
            let unmoved = direct.unmoved;
            Exact.estimate(&structure, &inputs, &mut Estimate::with_weights(&mut g, &mut w, 1.0)).unwrap();
            (z, g, w, unmoved)
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn bad_input_is_an_error() {
    assert!(Direct::new(0.0).is_err() && Direct::new(f32::NAN).is_err() && Direct::new(-1.0).is_err());
    let structure = Categorical::new(2).unwrap();
    let estimate = |potentials: &[f32], losses: &[f32], assignment: &[u32]| {
        let inputs = Inputs { potentials, noise: &vec![0.0; potentials.len()], assignment, losses };
        let mut g = vec![0.0; potentials.len()];
        let direct = Direct::new(1.0).unwrap().estimate(&structure, &inputs, &mut Estimate::new(&mut g, 1.0));
        let exact = Exact.estimate(&structure, &inputs, &mut Estimate::new(&mut g, 1.0));
        assert_eq!(direct.is_err(), exact.is_err());
        direct
    };
    assert!(estimate(&[0.0, 1.0], &[1.0, 2.0], &[0]).is_ok());
    let message = estimate(&[0.0, 1.0, 0.0, 1.0], &[1.0, 2.0, 1.0, f32::NAN], &[0, 0]).unwrap_err().to_string();
    assert_eq!(message, "example 1 of the batch: loss 1 is NaN: expected a finite number");
    assert!(estimate(&[0.0, f32::NAN], &[1.0, 2.0], &[0]).is_err());
    assert!(estimate(&[0.0, 1.0], &[1.0], &[0]).is_err());
    assert!(estimate(&[0.0, 1.0], &[1.0, 2.0], &[0, 1]).is_err());
    assert!(estimate(&[0.0, 1.0, 2.0], &[1.0, 2.0], &[0]).is_err());

    let large = Categorical::binary(40).unwrap();
    let inputs = Inputs { potentials: &[0.0; 80], noise: &[0.0; 80], assignment: &[0; 40], losses: &[] };
    let error = Exact.estimate(&large, &inputs, &mut Estimate::new(&mut [0.0; 80], 1.0)).unwrap_err();
    assert_eq!(error.to_string(), "1099511627776 states are too many to enumerate: at most 32768");
}

/// Where q is nearly one-hot, every coordinate is as small as the other probabilities; each must keep its own digits,
/// the likeliest one too, which is minus the sum of all others.
#[test]
fn collapsed_distributions_keep_the_digits_of_every_coordinate() {
    let potentials = [-19.5f32, 3.25, -17.0, -25.5, -15.75];
    let losses = [201.3f32, 205.7, 180.9, 210.2, 199.1];
    let softmax = |shift: f64| -> Vec<f64> {
        let h = potentials.iter().zip(&losses).map(|(h, l)| *h as f64 + shift * *l as f64);
        let h: Vec<f64> = h.collect();
        let max = h.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = h.iter().map(|h| (h - max).exp()).sum();
        h.iter().map(|h| (h - max).exp() / sum).collect()
    };
    let q = softmax(0.0);
    let mean: f64 = q.iter().zip(&losses).map(|(q, l)| q * *l as f64).sum();
    let exact: Vec<f64> = q.iter().zip(&losses).map(|(q, l)| q * (*l as f64 - mean)).collect();
    let direct: Vec<f64> = q.iter().zip(softmax(-0.125)).map(|(q, p)| (q - p) / 0.125).collect();

    let structure = Categorical::new(5).unwrap();
    let check = |what: &str, estimator: &dyn Estimator<Categorical>, expected: &[f64]| {
        let mut gradient = [0.0; 5];
        let inputs = Inputs { potentials: &potentials, noise: &[0.0; 5], assignment: &[1], losses: &losses };
        let mut weights = [0.0; 5];
        let mut estimate = match estimator.needs() {
            Needs::States => Estimate::with_weights(&mut gradient, &mut weights, 1.0),
            Needs::Neighbours => Estimate::new(&mut gradient, 1.0),
        };
        estimator.estimate(&structure, &inputs, &mut estimate).unwrap();
        for (found, expected) in gradient.iter().zip(expected) {
            assert!((*found as f64 - expected).abs() < 1e-4 * expected.abs(), "{what}: {found:e}, {expected:e}");
        }
    };
    check("exact", &Exact, &exact);
    check("local-expectation", &LocalExpectation, &exact);
    check("direct, Rao-Blackwellised", &Direct::new(0.125).unwrap().rao_blackwell(), &direct);
}

/// Structures with couplings, small enough to enumerate.
fn structured() -> Vec<AnyStructure> {
    vec![
        Pairwise::new(4).unwrap().into(),
        Supermodular::new(4).unwrap().into(),
        Chain::new(3, 3).unwrap().into(),
        Tree::new(4, 2, &[(0, 1), (0, 2), (2, 3)]).unwrap().into(),
        Subset::new(5, 2).unwrap().into(),
        Permutation::new(3).unwrap().into(),
        SpanningTree::complete(4).unwrap().into(),
        Arborescence::new(3, 0).unwrap().into(),
        Categorical::product(2, 3).unwrap().into(),
    ]
}

fn potentials(structure: &AnyStructure, seed: u64) -> Vec<f32> {
    let mut h = random(structure.potentials(), 0.8, seed);
    structure.to_potentials(&mut h);
    h
}

/// A loss of codes that is not a sum over their entries, as a decoder's: `<a, c> + curvature (sum_u b_u c_u)^2`.
struct Loss {
    linear: Vec<f32>,
    square: Vec<f32>,
    curvature: f32,
}

impl Loss {
    fn new(structure: &AnyStructure, curvature: f32, seed: u64) -> Self {
        let u = structure.unary();
        Loss { linear: random(u, 1.0, seed), square: random(u, 1.0, seed + 1), curvature }
    }

    fn of(&self, code: &[f32]) -> f32 {
        let dot = |w: &[f32]| code.iter().zip(w).map(|(c, w)| c * w).sum::<f32>();
        dot(&self.linear) + self.curvature * dot(&self.square).powi(2)
    }

    fn at(&self, structure: &AnyStructure, z: &[u32]) -> f32 {
        let mut code = vec![0.0; structure.unary()];
        structure.encode(z, &mut code);
        self.of(&code)
    }

    fn table(&self, structure: &AnyStructure) -> Vec<f32> {
        let mut z = vec![0; structure.variables()];
        let at = |s| {
            structure.state(s, &mut z);
            self.at(structure, &z)
        };
        (0..structure.states().unwrap()).map(at).collect()
    }

    fn neighbours(&self, structure: &AnyStructure, z: &[u32]) -> Vec<f32> {
        let mut code = vec![0.0; structure.unary()];
        structure.encode(z, &mut code);
        let mut changed = vec![];
        structure.code().for_each_change(&code, |change| {
            let mut next = code.clone();
            change.off.into_iter().for_each(|u| next[u] = 0.0);
            change.on.into_iter().for_each(|u| next[u] = 1.0);
            changed.push(self.of(&next));
        });
        let mut losses = vec![0.0; code.len()];
        structure.code().neighbour_losses(&code, self.of(&code), &changed, &mut losses);
        losses
    }
}

/// Mean and standard error of an estimator of all states over `draws` estimates.
fn mean_of_joint(
    estimator: &DirectJoint,
    structure: &AnyStructure,
    h: &[f32],
    table: &[f32],
    draws: usize,
    seed: u64,
) -> (Vec<f64>, Vec<f64>) {
    let (p, n, width) = (h.len(), structure.variables(), estimator.noise(structure).unwrap());
    let (batch, losses) = (h.repeat(CHUNK), table.repeat(CHUNK));
    let (mut sum, mut squares) = (vec![0.0f64; p], vec![0.0f64; p]);
    let mut noise = vec![0.0; CHUNK * width];
    let mut z = vec![0; CHUNK * n];
    let mut solvers = Solvers::default();
    for chunk in 0..draws / CHUNK {
        Noise::new(seed, Purpose::Noise, chunk as u64).gumbel(&mut noise);
        solvers.sample(estimator, structure, &batch, &noise, &mut z).unwrap();
        let mut gradient = vec![0.0; CHUNK * p];
        let inputs = Inputs { potentials: &batch, noise: &noise, assignment: &z, losses: &losses };
        estimator.estimate(structure, &inputs, &mut Estimate::new(&mut gradient, 1.0)).unwrap();
        for row in gradient.chunks(p) {
            for (i, g) in row.iter().enumerate() {
                sum[i] += *g as f64;
                squares[i] += (*g as f64).powi(2);
            }
        }
    }
    let n = draws as f64;
    let mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
    let error = squares.iter().zip(&mean).map(|(q, m)| ((q / n - m * m).max(0.0) / n).sqrt()).collect();
    (mean, error)
}

/// Marginals of the distribution proportional to `exp(h(z) + shift loss(z))`, by enumeration in f64.
fn marginals(structure: &AnyStructure, h: &[f32], table: &[f32], shift: f64) -> Vec<f64> {
    let mut z = vec![0; structure.variables()];
    let scores: Vec<f64> = (0..table.len())
        .map(|s| {
            structure.state(s, &mut z);
            structure.score(h, &z) + shift * table[s] as f64
        })
        .collect();
    let mut out = vec![0.0; h.len()];
    for (s, q) in softmax64(scores.into_iter()).into_iter().enumerate() {
        let mut statistics = vec![0.0; h.len()];
        structure.state(s, &mut z);
        structure.add_statistics(&z, 1.0, &mut statistics);
        out.iter_mut().zip(&statistics).for_each(|(o, s)| *o += q * *s as f64);
    }
    out
}

#[test]
fn with_full_noise_the_mean_of_direct_is_a_difference_of_marginals() {
    let epsilon = 0.6;
    for (i, structure) in structured().iter().enumerate() {
        let h = potentials(structure, 500 + i as u64);
        let table = Loss::new(structure, 0.5, 600 + 2 * i as u64).table(structure);
        let marginals = |shift| marginals(structure, &h, &table, shift);
        for (sides, back) in [(Sides::One, 0.0), (Sides::Two, epsilon)] {
            let direct = Direct::new(epsilon as f32).unwrap().sides(sides);
            let joint = DirectJoint::new(direct, Perturbation::Full);
            let (mean, error) = mean_of_joint(&joint, structure, &h, &table, 800_000, 700 + i as u64);
            let ends = marginals(back).into_iter().zip(marginals(-epsilon));
            let expected: Vec<f64> = ends.map(|(a, b)| (a - b) / (back + epsilon)).collect();
            assert!(expected.iter().any(|e| e.abs() > 0.02), "{structure:?}: nothing to compare");
            assert_within_four_standard_errors(&format!("{structure:?}, {sides:?}"), &mean, &error, &expected);
        }
    }
}

/// As epsilon vanishes, the difference of marginals is the derivative of the expected loss.
#[test]
fn exact_is_the_limit_of_the_difference_of_marginals() {
    for (i, structure) in structured().iter().enumerate() {
        let h = potentials(structure, 520 + i as u64);
        let table = Loss::new(structure, 0.5, 620 + 2 * i as u64).table(structure);
        let mut gradient = vec![0.0; h.len()];
        let inputs = Inputs {
            potentials: &h,
            noise: &vec![0.0; structure.unary()],
            assignment: &vec![0; structure.variables()],
            losses: &table,
        };
        let mut weights = vec![0.0; table.len()];
        Exact.estimate(structure, &inputs, &mut Estimate::with_weights(&mut gradient, &mut weights, 1.0)).unwrap();
        let step = 1e-4;
        let ends = marginals(structure, &h, &table, step).into_iter().zip(marginals(structure, &h, &table, -step));
        for (g, (a, b)) in gradient.iter().zip(ends) {
            assert!((*g as f64 - (a - b) / (2.0 * step)).abs() < 1e-4, "{structure:?}: {g} {}", (a - b) / (2.0 * step));
        }
        assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);

        // Marginal: the encoder's gradient is a difference of marginals, the posterior's is that of the losses alone.
        let mut gradient = vec![0.0; h.len()];
        Marginal.estimate(structure, &inputs, &mut Estimate::new(&mut gradient, 1.0)).unwrap();
        let q = marginals(structure, &h, &table, 0.0);
        let posterior = marginals(structure, &vec![0.0; h.len()], &table, -1.0);
        for ((g, q), p) in gradient.iter().zip(q).zip(posterior) {
            assert!((*g as f64 - (q - p)).abs() < 1e-5, "{structure:?}: {g} {}", q - p);
        }
    }
}

/// The largest of `score(z)` over all states.
fn enumerated_argmax(structure: &AnyStructure, score: impl Fn(&[u32]) -> f64) -> (Vec<u32>, f64) {
    let mut z = vec![0; structure.variables()];
    let mut best = (z.clone(), f64::NEG_INFINITY);
    for s in 0..structure.states().unwrap() {
        structure.state(s, &mut z);
        let value = score(&z);
        if value > best.1 {
            best = (z.clone(), value);
        }
    }
    best
}

/// Every draw of direct with unary noise follows its definition, from a solver that starts at z* or from scratch; with
/// the joint loss likewise. For linear losses both are the same.
#[test]
fn with_unary_noise_every_draw_is_the_definition() {
    const BATCH: usize = 150;
    let epsilon = 0.7;
    for (i, structure) in structured().iter().enumerate() {
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        for (sides, curvature) in [(Sides::One, 0.5), (Sides::Two, 0.5), (Sides::One, 0.0)] {
            let direct = Direct::new(epsilon).unwrap().sides(sides);
            let loss = Loss::new(structure, curvature, 800 + i as u64);
            let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(structure, (1000 * i + b) as u64)).collect();
            let mut noise = vec![0.0; BATCH * u];
            Noise::new(3, Purpose::Noise, i as u64).gumbel(&mut noise);
            let mut z = vec![0; BATCH * n];
            let mut solvers = Solvers::default();
            solvers.sample(&direct, structure, &h, &noise, &mut z).unwrap();
            let losses: Vec<f32> = z.chunks(n).flat_map(|z| loss.neighbours(structure, z)).collect();
            let inputs = Inputs { potentials: &h, noise: &noise, assignment: &z, losses: &losses };
            let run = |estimate: &mut dyn FnMut(&mut Estimate<'_>)| {
                let (mut gradient, mut moved) = (vec![0.0; BATCH * p], vec![0; BATCH * n]);
                let mut answer = Estimate { moved: Some(&mut moved), ..Estimate::new(&mut gradient, 1.0) };
                estimate(&mut answer);
                let unmoved = answer.unmoved.unwrap();
                (gradient, moved, unmoved)
            };
            let warm = run(&mut |e| solvers.estimate(&direct, structure, &inputs, e).unwrap());
            let cold = run(&mut |e| direct.estimate(structure, &inputs, e).unwrap());
            assert_eq!(warm, cold, "{structure:?}");

            let table = loss.table(structure).repeat(BATCH);
            let joint = DirectJoint::new(direct, Perturbation::Unary);
            let joint = run(&mut |e| joint.estimate(structure, &Inputs { losses: &table, ..inputs }, e).unwrap());
            let mut differ = 0;
            for b in 0..BATCH {
                let row = |x: &[f32], width: usize| x[b * width..(b + 1) * width].to_vec();
                let (star, h, gamma, losses) = (&z[b * n..(b + 1) * n], row(&h, p), row(&noise, u), row(&losses, u));
                let perturbed = |z: &[u32]| {
                    let mut code = vec![0.0; u];
                    structure.encode(z, &mut code);
                    structure.score(&h, z) + code.iter().zip(&gamma).map(|(c, g)| (c * g) as f64).sum::<f64>()
                };
                let separable = |z: &[u32]| {
                    let mut code = vec![0.0; u];
                    structure.encode(z, &mut code);
                    code.iter().zip(&losses).map(|(c, l)| (c * l) as f64).sum::<f64>()
                };
                assert!(perturbed(star) > enumerated_argmax(structure, perturbed).1 - 1e-5);
                let at = |shift: f32| enumerated_argmax(structure, |z| perturbed(z) + shift as f64 * separable(z)).0;
                let span = if sides == Sides::One { epsilon } else { 2.0 * epsilon };
                let from = if sides == Sides::One { star.to_vec() } else { at(epsilon) };
                let to = at(-epsilon);
                let mut expected = vec![0.0; p];
                structure.add_statistics(&from, 1.0 / span, &mut expected);
                structure.add_statistics(&to, -1.0 / span, &mut expected);
                assert!(row(&warm.0, p).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{structure:?} {b}");
                assert_eq!(warm.1[b * n..(b + 1) * n], to, "{structure:?} {b}");

                let full = |z: &[u32]| perturbed(z) - (epsilon * loss.at(structure, z)) as f64;
                let best = enumerated_argmax(structure, full).1;
                assert!(full(&joint.1[b * n..(b + 1) * n]) > best - 1e-4);
                differ += (joint.1[b * n..(b + 1) * n] != to) as usize;
            }
            match curvature {
                0.0 => assert_eq!(differ, 0, "{structure:?}"),
                _ => assert!(differ > 0, "{structure:?}: the approximation is never wrong"),
            }
        }
    }
}

#[test]
fn the_kl_by_perturbation_has_its_closed_form_for_one_variable() {
    let (k, epsilon, weight) = (5, 0.5f64, 0.8f64);
    let structure = Categorical::new(k).unwrap();
    let (h, loss) = (random(k, 1.0, 41), random(k, 1.5, 42));
    let direct = Direct::new(epsilon as f32).unwrap().with_kl(weight as f32);
    let (mean, error, _) = mean_of(&direct, &structure, &h, &loss, 200_000, 43);
    let moved = |shift: f64| {
        softmax64(h.iter().zip(&loss).map(move |(h, l)| (1.0 - shift * weight) * *h as f64 - shift * *l as f64))
    };
    let expected: Vec<f64> = moved(0.0).iter().zip(moved(epsilon)).map(|(a, b)| (a - b) / epsilon).collect();
    assert_within_four_standard_errors("with KL", &mean, &error, &expected);
    // As epsilon vanishes this is the derivative of the expected loss and the KL.
    let step = 1e-5;
    let limit: Vec<f64> = moved(-step).iter().zip(moved(step)).map(|(a, b)| (a - b) / (2.0 * step)).collect();
    let mut exact = exact(&structure, &h, &loss);
    structure.kl_to_uniform(&h, weight as f32, &mut exact).unwrap();
    assert!(distance(&limit, &exact) < 1e-4, "{limit:?} {exact:?}");
}

/// The entropy of a perturbed arg max is at most the mean of the noise that it collects, where every value of every
/// variable has noise; for independent variables it is equal (Maji, Hazan, Jaakkola 2014). Not so for indicators without
/// noise on "off".
#[test]
fn the_noise_at_the_sample_bounds_its_entropy() {
    let draws = 200_000;
    let values = |s: &AnyStructure| !matches!(s, AnyStructure::Subset(_) | AnyStructure::SpanningTree(_));
    for (i, structure) in structured().iter().filter(|s| values(s)).enumerate() {
        let (u, n) = (structure.unary(), structure.variables());
        let h = potentials(structure, 900 + i as u64);
        let mut noise = vec![0.0; draws * u];
        Noise::new(5, Purpose::Noise, i as u64).gumbel(&mut noise);
        let mut z = vec![0; draws * n];
        perturbed_argmax(structure, &h.repeat(draws), &noise, &mut z).unwrap();
        let mut counts = std::collections::HashMap::new();
        let (mut mean, mut square) = (0.0, 0.0);
        for (z, gamma) in z.chunks(n).zip(noise.chunks(u)) {
            *counts.entry(z).or_insert(0usize) += 1;
            let mut code = vec![0.0; u];
            structure.encode(z, &mut code);
            let collected: f64 = code.iter().zip(gamma).map(|(c, g)| (c * (g - EULER_GAMMA)) as f64).sum();
            mean += collected / draws as f64;
            square += collected * collected / draws as f64;
        }
        let q = counts.values().map(|c| *c as f64 / draws as f64);
        let entropy: f64 = q.map(|q| -q * q.ln()).sum();
        let error = ((square - mean * mean) / draws as f64).sqrt();
        assert!(entropy < mean + 4.0 * error, "{structure:?}: entropy {entropy}, noise {mean} ± {error}");
        if let AnyStructure::Categorical(_) = structure {
            assert!((entropy - mean).abs() < 4.0 * error + 1e-3, "entropy {entropy}, noise {mean} ± {error}");
        }
    }
}

#[test]
fn estimators_of_independent_variables_refuse_coupled_ones() {
    let structure: AnyStructure = Pairwise::new(2).unwrap().into();
    let inputs = Inputs { potentials: &[0.0; 5], noise: &[0.0; 4], assignment: &[0; 2], losses: &[0.0; 4] };
    let refused =
        |e: &dyn Estimator<AnyStructure>| e.estimate(&structure, &inputs, &mut Estimate::new(&mut [0.0; 5], 1.0));
    let local = refused(&LocalExpectation).unwrap_err();
    assert!(matches!(&local, Error::Example { source, .. } if matches!(**source, Error::Coupled { .. })), "{local}");
    assert!(refused(&Direct::new(1.0).unwrap().rao_blackwell()).is_err());
    refused(&Direct::new(1.0).unwrap()).unwrap();
    let large: AnyStructure = Pairwise::new(30).unwrap().into();
    let full = DirectJoint::new(Direct::new(1.0).unwrap(), Perturbation::Full);
    assert!(full.noise(&large).unwrap_err().to_string().contains("too many to enumerate"));
}
