//! The conditional expectation of coupled variables: against quadrature, against the sampled difference that it is the
//! expectation of, and what it asks.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Direct, DirectJoint, Perturbation, Sides, estimate};
use gumbel::oracle::{Followed, Oracle};
use gumbel::structure::{AnyStructure, Categorical, Code, Pairwise, Structure, Subset};

/// One-hot rows that are coupled.
fn coupled() -> impl Iterator<Item = AnyStructure> {
    structured().into_iter().filter(|s| s.code() != Code::Indicators && !s.is_independent())
}

/// `E[loss(z*)]` of two coupled binary variables with logistic noise: over the noise of the first in closed form, over
/// that of the second by quadrature.
fn expected_loss([first, second, pair]: [f64; 3], losses: &[f32]) -> f64 {
    const POINTS: usize = 400_000;
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let of = |first: usize, second: bool| losses[2 * first + second as usize] as f64;
    let at = |share: f64| {
        let gain = second + (share / (1.0 - share)).ln();
        let one = sigmoid(first + (gain + pair).max(0.0) - gain.max(0.0));
        one * of(1, gain + pair > 0.0) + (1.0 - one) * of(0, gain > 0.0)
    };
    (0..POINTS).map(|i| at((i as f64 + 0.5) / POINTS as f64)).sum::<f64>() / POINTS as f64
}

#[test]
fn a_small_epsilon_gives_the_gradient_of_the_expected_loss() {
    let structure = Pairwise::new(2).unwrap();
    for (seed, pair) in [(1, 0.0), (2, 1.5), (3, -2.0)] {
        let mut h = random(5, 0.7, seed);
        h[4] = pair;
        let losses = random(4, 2.0, seed + 10);
        let oracle = &mut Table::of(&structure, |code| losses[(2.0 * code[1] + code[3]) as usize]);
        let scores = [h[1] - h[0], h[3] - h[2], h[4]].map(f64::from);
        const STEP: f64 = 0.05;
        let slope = |i: usize| {
            let moved = |by: f64| {
                let mut scores = scores;
                scores[i] += by;
                expected_loss(scores, &losses)
            };
            (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
        };
        let expected = [-slope(0), slope(0), -slope(1), slope(1), slope(2)];
        for sides in [Sides::One, Sides::Two] {
            let direct = Direct::new(1e-3).unwrap().sides(sides).rao_blackwell();
            let found = mean_of(&direct, &structure, &h, oracle, 1, 200_000, seed);
            for (i, ((m, se), e)) in found.mean.iter().zip(&found.error).zip(&expected).enumerate() {
                let what = format!("pair {pair}, {sides:?}, coordinate {i}");
                assert!((m - e).abs() < 4.0 * se + 3e-3, "{what}: mean {m}, expected {e}, standard error {se}");
            }
        }
    }
}

/// Two sides, whose bias is of the second order; the sampled difference has the true z(eps), found by enumeration.
#[test]
fn it_has_the_mean_of_the_sampled_difference_and_less_variance() {
    const BIAS: f64 = 0.01;
    for (seed, structure) in coupled().enumerate() {
        let h = potentials(&structure, seed as u64);
        let loss = Loss::new(&structure, 0.3, 40 + seed as u64);
        let oracle = &mut Table::of(&structure, |code| loss.of(code));
        for kl in [0.0, 1.0] {
            let direct = Direct::new(0.03).unwrap().sides(Sides::Two).with_kl(kl);
            let joint = DirectJoint::new(direct, Perturbation::Unary);
            let plain = mean_of(&joint, &structure, &h, oracle, 1, 200_000, 1);
            let found = mean_of(&direct.rao_blackwell(), &structure, &h, oracle, 1, 100_000, 2);
            for i in 0..h.len() {
                let what = format!("{structure:?}, kl {kl}, coordinate {i}");
                let (a, b, errors) = (plain.mean[i], found.mean[i], [plain.error[i], found.error[i]]);
                let se = (errors[0].powi(2) + errors[1].powi(2)).sqrt();
                assert!((a - b).abs() < 4.0 * se + BIAS, "{what}: sampled {a}, expectation {b}, error {se}");
                assert!(errors[1] < errors[0], "{what}: {} and {}, from half as many draws", errors[1], errors[0]);
            }
        }
    }
}

/// Without couplings it is what independent variables have, draw by draw.
#[test]
fn it_is_the_expectation_of_independent_variables_where_nothing_is_coupled() {
    let (coupled, independent) = (Pairwise::new(4).unwrap(), Categorical::binary(4).unwrap());
    let loss = Loss::new(&independent, 0.5, 3);
    for (seed, sides) in [(5, Sides::One), (6, Sides::Two)] {
        let (unary, noise) = (random(8, 1.0, seed), gumbel(8, seed, 0));
        let mut h = unary.clone();
        h.resize(coupled.potentials(), 0.0);
        let direct = Direct::new(0.4).unwrap().sides(sides).with_kl(0.5).rao_blackwell();
        let expected = estimate(&direct, &independent, &unary, &noise, &mut Table::of(&independent, |c| loss.of(c)));
        let found = estimate(&direct, &coupled, &h, &noise, &mut Table::of(&coupled, |c| loss.of(c))).unwrap();
        for (a, b) in found.gradient.iter().zip(&expected.unwrap().gradient) {
            assert!((a - b).abs() < 1e-5, "{sides:?}: {a} {b}");
        }
        assert!(found.gradient[8..].iter().any(|g| *g != 0.0));
    }
}

/// Counts the rows that are asked about, and looks whether one is asked about twice.
struct Counting {
    inner: Table,
    n: usize,
    asked: Vec<(u32, Vec<u32>)>,
}

impl Oracle for Counting {
    fn losses(&mut self, of: &[u32], z: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.asked.extend(of.iter().copied().zip(z.chunks(self.n).map(<[u32]>::to_vec)));
        self.inner.losses(of, z, losses)
    }

    fn around(&mut self, _: &[u32], _: &[u32], _: &mut [f32], _: &mut [f32]) -> Result<(), Error> {
        panic!("it asks about its own states only");
    }

    fn states(&mut self, _: &[u32], _: &mut [f32]) -> Result<(), Error> {
        panic!("it asks about its own states only");
    }

    fn slopes(&mut self, _: &[u32], _: &[f32], _: &mut [f32], _: &mut [f32]) -> Result<(), Error> {
        panic!("it asks about its own states only");
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        self.inner.follow(followed)
    }
}

#[test]
fn no_row_is_asked_about_twice() {
    const EXAMPLES: usize = 50;
    for (seed, structure) in coupled().enumerate() {
        let h: Vec<f32> = (0..EXAMPLES).flat_map(|b| potentials(&structure, 100 + b as u64)).collect();
        let noise = gumbel(EXAMPLES * structure.unary(), seed as u64, 0);
        let loss = Loss::new(&structure, 0.3, 7);
        let inner = Table::of(&structure, |code| loss.of(code));
        let mut oracle = Counting { inner, n: structure.variables(), asked: vec![] };
        estimate(&Direct::new(0.1).unwrap().rao_blackwell(), &structure, &h, &noise, &mut oracle).unwrap();
        let rows = EXAMPLES * (1 + structure.code().changes(structure.unary()));
        let asked = oracle.asked.len();
        assert!(asked > 2 * EXAMPLES && asked <= rows, "{structure:?}: {asked} of {rows}");
        oracle.asked.sort();
        oracle.asked.dedup();
        assert_eq!(oracle.asked.len(), asked, "{structure:?}");
        assert_eq!(oracle.inner.followed, EXAMPLES);
    }
}

#[test]
fn forbidden_values_have_no_gradient_and_bad_numbers_are_named() {
    let structure: AnyStructure = Pairwise::new(3).unwrap().into();
    let direct = Direct::new(0.3).unwrap().with_kl(1.0).rao_blackwell();
    let loss = Loss::new(&structure, 0.5, 1);
    let oracle = &mut Table::of(&structure, |code| loss.of(code));
    let (mut h, noise) = (potentials(&structure, 9), gumbel(6, 9, 0));
    h[1] = f32::NEG_INFINITY; // the first variable must be 0
    h[8] = f32::NEG_INFINITY; // the others not both 1
    let found = estimate(&direct, &structure, &h, &noise, oracle).unwrap().gradient;
    assert!(found.iter().all(|g| g.is_finite()), "{found:?}");
    assert_eq!((found[0], found[1], found[8]), (0.0, 0.0, 0.0), "{found:?}");
    assert!(found[2..6].iter().any(|g| *g != 0.0), "{found:?}");

    let told = |h: &[f32], oracle: &mut Table| {
        estimate(&direct, &structure, h, &noise.repeat(2), oracle).map(drop).unwrap_err().to_string()
    };
    let good = potentials(&structure, 9);
    let mut bad = good.repeat(2);
    bad[good.len()] = f32::NAN;
    assert!(told(&bad, oracle).contains("example 1"), "{}", told(&bad, oracle));
    let mut wild = Table::of(&structure, |code| if code[0] == 1.0 { f32::NAN } else { 0.0 });
    assert!(told(&good.repeat(2), &mut wild).contains("loss"), "{}", told(&good.repeat(2), &mut wild));
    let subset: AnyStructure = Subset::new(4, 2).unwrap().into();
    let oracle = &mut Table::of(&subset, |_| 0.0);
    let refused = estimate(&direct, &subset, &[0.0; 4], &[0.0; 4], oracle);
    assert!(matches!(refused, Err(Error::Coupled { .. })), "{refused:?}");
}
