//! ARM and DisARM: antithetic pairs of independent binary variables.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Arm, DisArm, Estimator, Piece, estimate, estimators};
use gumbel::oracle::{Closure, Kept, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Structure, Subset};

fn problem(n: usize, seed: u64) -> (Categorical, Vec<f32>, Table) {
    let structure = Categorical::binary(n).unwrap();
    let loss = Loss::new(&structure, 0.5, seed + 1);
    let table = Table::of(&structure, |code| loss.of(code));
    (structure, random(2 * n, 1.0, seed), table)
}

#[test]
fn antithetic_pairs_average_to_the_exact_gradient() {
    for n in [1, 3, 6] {
        for seed in [7000, 7010, 7020] {
            let (structure, h, mut oracle) = problem(n, seed + n as u64);
            let expected = doubles(&exact(&structure, &h, &mut oracle));
            for samples in [1, 2] {
                let arm = mean_of(&Arm, &structure, &h, &mut oracle, samples, 200_000, seed + samples as u64);
                assert_within_four_standard_errors(&format!("arm, n = {n}, {samples}"), &arm, &expected);
                let disarm = mean_of(&DisArm, &structure, &h, &mut oracle, samples, 200_000, seed + samples as u64);
                assert_within_four_standard_errors(&format!("disarm, n = {n}, {samples}"), &disarm, &expected);
                assert!(arm.error.iter().chain(&disarm.error).all(|e| *e > 0.0));
                assert_eq!(oracle.followed, 4 * samples * 200_000);
                oracle.followed = 0;
            }
        }
    }
}

#[test]
fn the_decoder_follows_pairs_of_samples_of_q() {
    for n in [1, 3] {
        let (structure, h, _) = problem(n, 7100);
        for samples in [1, 3] {
            assert_follows_q("arm", (&Arm, &structure), &h, samples, 7101);
            assert_follows_q("disarm", (&DisArm, &structure), &h, samples, 7102);
        }
    }
}

#[test]
fn disarm_varies_less_than_arm() {
    let (structure, h, mut oracle) = problem(4, 7200);
    let mut variance = |estimator: &dyn Estimator<Categorical>| -> f64 {
        let found = mean_of(estimator, &structure, &h, &mut oracle, 1, 40_000, 7201);
        found.error.iter().map(|e| e.powi(2)).sum()
    };
    let (arm, disarm) = (variance(&Arm), variance(&DisArm));
    assert!(disarm < 0.9 * arm, "{disarm} {arm}");
}

/// One variable, draw by draw, from the uniform variable of the papers.
#[test]
fn a_draw_is_that_of_the_papers() {
    let structure = Categorical::binary(1).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for draw in 0..2000 {
        let (h, noise) = (random(2, 1.0, 7300 + draw), gumbel(2, 7300, draw));
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (phi, u) = ((h[1] - h[0]) as f64, sigma(noise[1] as f64 - noise[0] as f64));
        let pair = [(u > sigma(-phi)) as u32, (u < sigma(phi)) as u32];
        seen.insert(pair);
        let difference = 5.0 * (pair[0] as f64 - pair[1] as f64);
        let arm = difference * (u - 0.5);
        let sign = if pair[1] == 1 { -1.0 } else { 1.0 };
        let disarm = if pair[0] == pair[1] { 0.0 } else { 0.5 * difference * sign * sigma(phi.abs()) };
        let mut oracle = Closure::new(&structure, |_, code| 2.0 + 5.0 * code[1]);
        for (estimator, expected) in [(&Arm as &dyn Estimator<Categorical>, arm), (&DisArm, disarm)] {
            let found = estimate(estimator, &structure, &h, &noise, &mut oracle).unwrap().gradient;
            assert!((found[1] as f64 - expected).abs() < 1e-5 && found[0] == -found[1], "{found:?} {expected}");
            let followed: Vec<Kept> = std::mem::take(&mut oracle.followed);
            for (row, (kept, z)) in followed.iter().zip(pair).enumerate() {
                assert_eq!(*kept, Kept::Assignments { row, assignments: vec![z], weights: vec![0.5] });
            }
        }
    }
    assert_eq!(seen.len(), 4);
}

/// DisARM with something wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// Without the factor 1/2.
    Twice,
    /// Without sigma(|phi|).
    NoSigma,
    /// sigma(phi), whose logit has its sign.
    Signed,
    /// (-1)^z in the place of (-1)^z~.
    Sign,
    /// The same noise in both arms.
    SameNoise,
    /// Other noise in the second arm: samples that are independent of each other.
    OtherNoise,
}

impl Estimator<Categorical> for Wrong {
    fn questions(&self, _: &Categorical) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &Categorical) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn estimate(&self, piece: &mut Piece<'_, Categorical>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let n = piece.structure.variables();
        for (b, (h, gradient)) in
            piece.potentials.chunks_exact(2 * n).zip(piece.gradient.chunks_exact_mut(2 * n)).enumerate()
        {
            let noise = piece.noise.of(0, b);
            let at = |i: usize| (h[2 * i + 1] - h[2 * i], noise[2 * i + 1] - noise[2 * i]);
            let arm = |sign: f32| -> Vec<u32> {
                let value = |i: usize| {
                    let (phi, logistic) = at(i);
                    (phi + sign * logistic > 0.0) as u32
                };
                (0..n).map(value).collect()
            };
            let z = arm(1.0);
            let other = match self {
                Wrong::SameNoise => arm(1.0),
                Wrong::OtherNoise => {
                    let noise = &noise[2 * n..];
                    (0..n).map(|i| (at(i).0 + noise[2 * i + 1] - noise[2 * i] > 0.0) as u32).collect()
                }
                _ => arm(-1.0),
            };
            let mut losses = [0.0; 2];
            oracle.losses(&[b as u32, b as u32], &[&z[..], &other].concat(), &mut losses)?;
            for i in (0..n).filter(|i| z[*i] != other[*i]) {
                let sigma = |x: f32| 1.0 / (1.0 + (-x).exp());
                let factor = match self {
                    Wrong::Twice => sigma(at(i).0.abs()),
                    Wrong::NoSigma => 0.5,
                    Wrong::Signed => 0.5 * sigma(at(i).0),
                    _ => 0.5 * sigma(at(i).0.abs()),
                };
                let signed = if *self == Wrong::Sign { z[i] } else { other[i] };
                let sign = if signed == 1 { -1.0 } else { 1.0 };
                let g = piece.scale * (losses[0] - losses[1]) * sign * factor;
                gradient[2 * i + 1] += g;
                gradient[2 * i] -= g;
            }
        }
        Ok(())
    }
}

/// What the tests above are worth.
#[test]
fn wrong_pairs_are_caught() {
    let (structure, h, mut oracle) = problem(3, 7400);
    let expected = doubles(&exact(&structure, &h, &mut oracle));
    use Wrong::*;
    for wrong in [Nothing, Twice, NoSigma, Signed, Sign, SameNoise, OtherNoise] {
        let found = mean_of(&wrong, &structure, &h, &mut oracle, 1, 200_000, 7401);
        assert_eq!(is_within_four_standard_errors(&found, &expected), wrong == Nothing, "{wrong:?}");
    }
}

#[test]
fn other_latents_are_refused_with_those_that_can_be_had() {
    let others: [AnyStructure; 5] = [
        Categorical::new(3).unwrap().into(),
        Categorical::product(2, 4).unwrap().into(),
        Pairwise::new(3).unwrap().into(),
        Chain::new(3, 2).unwrap().into(),
        Subset::new(4, 2).unwrap().into(),
    ];
    let all = estimators();
    for name in ["arm", "disarm"] {
        let entry = all.get(name).unwrap();
        let settings = Settings::defaults(entry.settings());
        let binary: AnyStructure = Categorical::binary(3).unwrap().into();
        let built = entry.build(&settings, &binary).unwrap();
        let least = (built.least_samples(), built.rows(3), built.sums());
        assert_eq!((built.questions(&binary), least), (Questions::LOSSES, (1, 6, 0)));
        for structure in &others {
            let error = entry.build(&settings, structure).err().unwrap();
            let expected = format!("{name} needs independent variables with two values each, such as binary:N");
            assert_eq!(error.to_string(), expected);
            let (h, noise) = (vec![0.0; structure.potentials()], vec![0.0; structure.unary()]);
            let oracle = &mut Closure::new(structure, |_, _| 0.0);
            assert!(matches!(estimate(&*built, structure, &h, &noise, oracle), Err(Error::NotBinary { .. })));
        }
    }
}

#[test]
fn bad_numbers_are_errors_and_forbidden_values_have_no_gradient() {
    let structure = Categorical::binary(2).unwrap();
    for estimator in [&Arm as &dyn Estimator<Categorical>, &DisArm] {
        for loss in [f32::NAN, f32::INFINITY] {
            let oracle = &mut Closure::new(&structure, |b, _| if b == 1 { loss } else { 1.0 });
            let error = estimate(estimator, &structure, &[0.0; 8], &[0.0; 8], oracle).unwrap_err().to_string();
            assert!(error.starts_with("example 1 of the batch: loss 0 is "), "{error}");
        }
        let oracle = &mut Closure::new(&structure, |_, code| 3.0 * code[1] + code[3]);
        assert!(estimate(estimator, &structure, &[0.0, 1.0, f32::NAN, 0.0], &[0.0; 4], oracle).is_err());
        assert!(estimate(estimator, &structure, &[], &[], oracle).unwrap().gradient.is_empty());
        let (h, noise) = ([f32::NEG_INFINITY, 0.3, 0.1, -0.2].repeat(100), gumbel(400, 7500, 0));
        let gradient = estimate(estimator, &structure, &h, &noise, oracle).unwrap().gradient;
        assert!(gradient.chunks(4).all(|g| g[..2] == [0.0, 0.0]) && gradient.iter().all(|g| g.is_finite()));
        assert!(gradient.iter().any(|g| *g != 0.0));
    }
}
