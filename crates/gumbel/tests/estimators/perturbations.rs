//! Perturbations of the arg max that need its solver and nothing else: implicit MLE, plain (`imle`) and adaptive
//! (`adaptive_imle`), and the score function of the noise (`perturbed`).

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{
    Estimator, Imle, Memory, Perturbed, Piece, Sides, SumOfGamma, estimate, estimate_with, estimators,
};
use gumbel::noise::{EULER_GAMMA, Noise, Purpose};
use gumbel::oracle::{Closure, Kept, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Code, Pairwise, Structure, Subset, Supermodular};

fn independent() -> Vec<AnyStructure> {
    let sizes = [(1, 2), (1, 3), (1, 5), (3, 2), (3, 3), (3, 5)];
    sizes.map(|(n, k)| AnyStructure::from(Categorical::product(n, k).unwrap())).into()
}

fn dot(code: &[f32], x: &[f32]) -> f64 {
    code.iter().zip(x).map(|(c, x)| *c as f64 * *x as f64).sum()
}

fn statistics(structure: &AnyStructure, z: &[u32]) -> Vec<f32> {
    let mut s = vec![0.0; structure.potentials()];
    structure.add_statistics(z, 1.0, &mut s);
    s
}

/// The norm of potentials or slopes at an adaptive lambda; all potentials are finite.
fn norm(structure: &AnyStructure, x: &[f32]) -> f64 {
    let squares = |row: &[f32], mean: f64| row.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>();
    let mean = |row: &[f32]| row.iter().map(|x| *x as f64).sum::<f64>() / row.len() as f64;
    match structure.code() {
        Code::OneHot { values } => x.chunks(values).map(|row| squares(row, mean(row))).sum::<f64>().sqrt(),
        Code::Indicators => squares(x, 0.0).sqrt(),
    }
}

/// Adaptive, with alpha = 1.5.
fn adaptive() -> Imle {
    let mut imle = Imle::adaptive(1.0, 0.5).unwrap();
    Estimator::<AnyStructure>::learn(&mut imle, &[0.0, 10.0]);
    assert_eq!(imle.alpha(), Some(1.5));
    imle
}

/// By enumeration, with slopes by a question, for every structure, noise and side.
#[test]
fn imle_and_adaptive_imle_are_their_definitions_draw_by_draw() {
    const SAMPLES: usize = 3;
    const BATCH: usize = 12;
    let few: [AnyStructure; 2] = [Categorical::new(5).unwrap().into(), Categorical::binary(4).unwrap().into()];
    for (case, structure) in structured().into_iter().chain(few).enumerate() {
        let u = structure.unary();
        let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(&structure, 7000 + (20 * case + b) as u64)).collect();
        let losses: Vec<Loss> = (0..BATCH).map(|b| Loss::new(&structure, 0.5, 7300 + 2 * b as u64)).collect();
        let gamma = SumOfGamma::new(SumOfGamma::ones(&structure).unwrap(), 10).unwrap();
        let mut moved = 0;
        for (number, imle) in [Imle::new(0.7).unwrap(), adaptive()].into_iter().enumerate() {
            for (sides, noise_of) in [Sides::One, Sides::Two].into_iter().flat_map(|s| [(s, None), (s, Some(gamma))]) {
                let imle = noise_of.map_or(imle, |gamma| imle.sum_of_gamma(gamma)).sides(sides);
                let what = format!("{structure:?}, {imle:?}");
                let width = imle.noise(&structure).unwrap();
                let noise = gumbel(SAMPLES * BATCH * width, 7400, case as u64);
                let mut oracle = Closure::new(&structure, |b, code| losses[b].of(code));
                let found = estimate(&imle, &structure, &h, &noise, &mut oracle).unwrap();
                let mut expected = vec![0.0; h.len()];
                let (mut changed, mut same, mut lambdas) = (0, 0, 0.0);
                for (m, kept) in oracle.followed.clone().iter().enumerate() {
                    let Kept::Assignments { row, assignments, weights } = kept else { panic!("{what}") };
                    assert!(*row == m && weights.iter().all(|w| *w == 1.0 / SAMPLES as f32), "{what}");
                    for b in 0..BATCH {
                        let p = structure.potentials();
                        let h = &h[b * p..][..p];
                        let mut own = noise[(m * BATCH + b) * width..][..width].to_vec();
                        if let Some(gamma) = noise_of {
                            let key = own.clone();
                            own = vec![0.0; u];
                            gamma.fill(&key, &mut own);
                        }
                        let shifted = |slope: &[f32], lambda: f64| {
                            let score = |z: &[u32]| {
                                let code = code(&structure, z);
                                structure.score(h, z) + dot(&code, &own) + lambda * dot(&code, slope)
                            };
                            enumerated_argmax(&structure, score).0
                        };
                        let star = shifted(&vec![0.0; u], 0.0);
                        let n = star.len();
                        assert_eq!(assignments[b * n..][..n], star, "{what}");
                        let (mut loss, mut slope) = ([0.0], vec![0.0; u]);
                        oracle.slopes(&[b as u32], &code(&structure, &star), &mut loss, &mut slope).unwrap();
                        let lambda = match number {
                            0 => 0.7,
                            _ => 1.5 * norm(&structure, &h[..u]) / norm(&structure, &slope),
                        };
                        let to = shifted(&slope, -lambda);
                        let (from, distance) = match sides {
                            Sides::One => (star, lambda),
                            Sides::Two => (shifted(&slope, lambda), 2.0 * lambda),
                        };
                        let ends = statistics(&structure, &from).into_iter().zip(statistics(&structure, &to));
                        for ((e, (from, to)), i) in expected[b * p..].iter_mut().zip(ends).zip(0..) {
                            *e += (from - to) as f64 / distance / SAMPLES as f64;
                            changed += (i < u && from != to) as usize;
                        }
                        same += (from == to) as usize;
                        lambdas += lambda;
                    }
                }
                for (found, expected) in found.gradient.iter().zip(&expected) {
                    assert!((*found as f64 - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{what}");
                }
                let all = (SAMPLES * BATCH) as f64;
                assert_eq!((found.tallies[0].sum, found.tallies[0].count), (same as f64, all), "{what}");
                if number == 1 {
                    assert!((found.tallies[1].mean() - lambdas / all).abs() < 1e-4 * lambdas, "{what}");
                    assert_eq!(found.sums, [changed as f32, all as f32], "{what}");
                } else {
                    assert!(found.sums.is_empty() && found.tallies[1].count == 0.0);
                }
                moved += changed;
            }
        }
        assert!(moved > 100, "{structure:?}: nothing to compare");
    }
}

/// `(softmax(h + back loss) - softmax(h - lambda loss)) / (back + lambda)` of each variable, of a linear loss.
fn closed(structure: &AnyStructure, h: &[f32], slopes: &[f32], sides: Sides, lambda: f64) -> Vec<f64> {
    let k = structure.unary() / structure.variables();
    let back = if sides == Sides::Two { lambda } else { 0.0 };
    let rows = h.chunks(k).zip(slopes.chunks(k));
    rows.flat_map(|(h, l)| closed_form(h, l, back, -lambda, back + lambda)).collect()
}

fn linear(slopes: &[f32]) -> impl Fn(&[f32]) -> f32 + '_ {
    move |code| code.iter().zip(slopes).map(|(c, l)| c * l).sum()
}

#[test]
fn of_a_linear_loss_imle_has_a_closed_form_whose_bias_is_of_the_stated_order() {
    for (case, structure) in independent().into_iter().enumerate() {
        let u = structure.unary();
        let (h, slopes) = (random(u, 0.8, 7500 + case as u64), random(u, 1.0, 7600 + case as u64));
        let oracle = &mut Table::with_slopes(&structure, linear(&slopes));
        let truth = exact(&structure, &h, oracle);
        for (sides, order) in [(Sides::One, 1), (Sides::Two, 2)] {
            for lambda in [0.6, 2.5] {
                let imle = Imle::new(lambda).unwrap().sides(sides);
                let found = mean_of(&imle, &structure, &h, oracle, 1, 200_000, 7700 + case as u64);
                let expected = closed(&structure, &h, &slopes, sides, lambda as f64);
                let what = format!("{structure:?}, {sides:?}, {lambda}");
                assert!(found.error.iter().all(|e| *e > 0.0), "{what}");
                assert_within_four_standard_errors(&what, &found, &expected);
                // The bias at the larger one is seen.
                let seen = !is_within_four_standard_errors(&found, &doubles(&truth));
                assert!(seen || lambda < 1.0, "{what}");
            }
            let at = |sides, lambda| closed(&structure, &h, &slopes, sides, lambda);
            let limit = at(Sides::Two, 1e-4);
            assert!(distance(&limit, &truth) < 1e-5, "{structure:?}");
            let bias = |lambda| {
                let squares = at(sides, lambda).into_iter().zip(&limit).map(|(a, b)| (a - b).powi(2));
                squares.sum::<f64>().sqrt()
            };
            let ratio = bias(0.04) / bias(0.02);
            assert!((ratio / 2f64.powi(order) - 1.0).abs() < 0.1, "{structure:?}, {sides:?}: {ratio}");
        }
    }
}

#[test]
fn of_a_linear_loss_adaptive_imle_has_the_closed_form_of_its_lambda() {
    let structure: AnyStructure = Categorical::product(3, 3).unwrap().into();
    let (h, slopes) = (random(9, 0.8, 7800), random(9, 1.0, 7801));
    let oracle = &mut Table::with_slopes(&structure, linear(&slopes));
    let lambda = 1.5 * norm(&structure, &h) / norm(&structure, &slopes);
    for sides in [Sides::One, Sides::Two] {
        let found = mean_of(&adaptive().sides(sides), &structure, &h, oracle, 2, 200_000, 7802);
        let expected = closed(&structure, &h, &slopes, sides, lambda);
        assert_within_four_standard_errors(&format!("{sides:?}"), &found, &expected);
        assert!((found.tallies[1].mean() - lambda).abs() < 1e-3);
    }
}

/// Probabilities of the values of one variable with independent noise of a distribution, by quadrature.
fn probabilities(h: &[f64], least: f64, distribution: impl Fn(f64) -> f64) -> Vec<f64> {
    const STEPS: usize = 40_000;
    let (from, to) = (h.iter().copied().fold(f64::INFINITY, f64::min) + least, 40.0);
    let at = |i: usize| from + (to - from) * i as f64 / STEPS as f64;
    let value = |k: usize| -> f64 {
        let others = |x: f64| (0..h.len()).filter(|j| *j != k).map(|j| distribution(x - h[j])).product::<f64>();
        let piece = |i: usize| {
            let (a, b) = (at(i), at(i + 1));
            (distribution(b - h[k]) - distribution(a - h[k])) * others((a + b) / 2.0)
        };
        (0..STEPS).map(piece).sum()
    };
    (0..h.len()).map(value).collect()
}

#[test]
fn imle_has_the_mean_of_its_sum_of_gamma_noise() {
    const TERMS: u32 = 3;
    let structure: AnyStructure = Categorical::new(3).unwrap().into();
    let (h, slopes) = (random(3, 1.0, 7850), random(3, 1.5, 7851));
    let oracle = &mut Table::with_slopes(&structure, linear(&slopes));
    let imle = Imle::new(1.0).unwrap().sum_of_gamma(SumOfGamma::new(1, TERMS).unwrap());
    let found = mean_of(&imle, &structure, &h, oracle, 1, 200_000, 7852);
    let s = TERMS as f64;
    let of = |shift: f64| {
        let h: Vec<f64> = h.iter().zip(&slopes).map(|(h, l)| *h as f64 + shift * *l as f64).collect();
        probabilities(&h, -s.ln(), |x| (1.0 - (-x).exp() / s).max(0.0).powf(s))
    };
    let (here, there) = (of(0.0), of(-1.0));
    assert!((here.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    let expected: Vec<f64> = here.iter().zip(&there).map(|(a, b)| a - b).collect();
    assert_within_four_standard_errors("three terms", &found, &expected);
    // So few terms are not Gumbel noise, and are seen not to be.
    assert!(!is_within_four_standard_errors(&found, &closed(&structure, &h, &slopes, Sides::One, 1.0)));
}

/// I-MLE with something wrong, two-sided.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    Sign,
    /// Without the half of two sides.
    Whole,
    /// Without the division by lambda, as in the first paper.
    NotDivided,
    /// Slopes that still have the weight of a sample in them.
    Weighted,
    /// The target of one side against z*, divided as if it were of two.
    OneSide,
    /// Noise of its own for the second side. It has the right mean.
    OtherNoise,
}

const LAMBDA: f32 = 0.8;

impl<S: Structure> Estimator<S> for Wrong {
    fn questions(&self, _: &S) -> Questions {
        Questions::SLOPES
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, count) = (piece.structure, piece.count());
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let (mut codes, mut losses, mut slopes) = (vec![0.0; count * u], vec![0.0; count], vec![0.0; count * u]);
        let mut solver = structure.scratch();
        let (mut perturbed, mut from, mut to) = (vec![0.0; p], vec![0; n], vec![0; n]);
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            let z = piece.memory.assignments[..count * n].to_vec();
            z.chunks(n).zip(codes.chunks_mut(u)).for_each(|(z, code)| structure.encode(z, code));
            oracle.slopes(piece.of, &codes, &mut losses, &mut slopes)?;
            for b in 0..count {
                let (noise, slope) = (piece.noise.of(sample, b), &slopes[b * u..][..u]);
                let weight = if *self == Wrong::Weighted { piece.scale } else { 1.0 };
                let mut solve = |shift: f32, noise: &[f32], z: &mut [u32]| {
                    perturbed.copy_from_slice(&piece.potentials[b * p..][..p]);
                    for (x, (g, s)) in perturbed.iter_mut().zip(noise.iter().zip(slope)) {
                        *x += g + shift * weight * s;
                    }
                    structure.argmax(&perturbed, z, &mut solver).map(drop)
                };
                solve(-LAMBDA, &noise[..u], &mut to)?;
                match self {
                    Wrong::OneSide => from.copy_from_slice(&z[b * n..][..n]),
                    Wrong::OtherNoise => solve(LAMBDA, &noise[u..], &mut from)?,
                    _ => solve(LAMBDA, &noise[..u], &mut from)?,
                }
                let factor = match self {
                    Wrong::Sign => -0.5 / LAMBDA,
                    Wrong::Whole => 1.0 / LAMBDA,
                    Wrong::NotDivided => 0.5,
                    _ => 0.5 / LAMBDA,
                };
                let gradient = &mut piece.gradient[b * p..][..p];
                structure.add_statistics(&from, factor * piece.scale, gradient);
                structure.add_statistics(&to, -factor * piece.scale, gradient);
            }
        }
        Ok(())
    }
}

/// What the tests above are worth.
#[test]
fn wrong_implicit_mles_are_caught() {
    let structure: AnyStructure = Categorical::product(3, 3).unwrap().into();
    let (h, slopes) = (random(9, 0.8, 7900), random(9, 1.0, 7901));
    let oracle = &mut Table::with_slopes(&structure, linear(&slopes));
    let expected = closed(&structure, &h, &slopes, Sides::Two, LAMBDA as f64);
    let mut variance = vec![];
    for wrong in [
        Wrong::Nothing,
        Wrong::OtherNoise,
        Wrong::Sign,
        Wrong::Whole,
        Wrong::NotDivided,
        Wrong::Weighted,
        Wrong::OneSide,
    ] {
        let found = mean_of(&wrong, &structure, &h, oracle, 2, 200_000, 7902);
        let right = [Wrong::Nothing, Wrong::OtherNoise].contains(&wrong);
        assert_eq!(is_within_four_standard_errors(&found, &expected), right, "{wrong:?}");
        variance.push(found.error.iter().map(|e| e * e).sum::<f64>());
    }
    // The same noise on both sides is what keeps the variance small.
    assert!(variance[1] > 1.5 * variance[0], "{variance:?}");
}

#[test]
fn far_away_is_the_least_of_the_linear_loss_and_nearby_is_nothing() {
    for structure in structured() {
        let (h, loss) = (potentials(&structure, 8000), Loss::new(&structure, 0.5, 8001));
        let noise = gumbel(structure.unary() * 10, 8002, 0);
        let batch = h.repeat(10);
        let run = |lambda: f32| {
            let mut oracle = Closure::new(&structure, |_, code| loss.of(code));
            let mut memory = Memory::default();
            let imle = Imle::new(lambda).unwrap();
            let found = estimate_with(&imle, &structure, &batch, &noise, &mut oracle, &mut memory).unwrap();
            (found, memory, oracle)
        };
        let (far, memory, mut oracle) = run(1e5);
        let n = structure.variables();
        for (z, target) in memory.assignments.chunks(n).zip(memory.moved.chunks(n)) {
            let (mut own, mut slope) = ([0.0], vec![0.0; structure.unary()]);
            oracle.slopes(&[0], &code(&structure, z), &mut own, &mut slope).unwrap();
            let linear = |z: &[u32]| -dot(&code(&structure, z), &slope);
            let (_, best) = enumerated_argmax(&structure, linear);
            assert!((linear(target) - best).abs() < 1e-3, "{structure:?}");
        }
        // One over lambda, or two where a statistic is that of several elements.
        assert!(far.gradient.iter().all(|g| g.abs() <= 2e-5), "{structure:?}");
        let (near, memory, _) = run(1e-6);
        assert_eq!((near.tallies[0].mean(), &near.gradient), (1.0, &vec![0.0; batch.len()]), "{structure:?}");
        assert_eq!(memory.assignments, memory.moved);
    }
}

/// Why sum-of-gamma noise is a choice and no default for subsets: with Gumbel variables the perturbed arg max is nearer
/// to a sample of the Gibbs distribution, in total variation.
#[test]
fn with_gumbel_noise_subsets_are_nearer_to_samples_of_q_than_with_sum_of_gamma() {
    const DRAWS: usize = 40_000;
    for (case, (u, k, scale, seed)) in
        [(5, 2, 1.0, 8100), (8, 4, 1.0, 8102), (8, 4, 0.3, 8100), (8, 4, 3.0, 8100)].into_iter().enumerate()
    {
        let structure: AnyStructure = Subset::new(u, k).unwrap().into();
        let h = random(u, scale, seed);
        let states = structure.states().unwrap();
        let q = {
            let mut scores = vec![0.0; states];
            structure.scores(&h, &mut scores);
            softmax64(scores.into_iter().map(|s| s as f64))
        };
        let gamma = SumOfGamma::new(SumOfGamma::ones(&structure).unwrap(), 10).unwrap();
        let imle = Imle::new(1.0).unwrap();
        let far = |imle: Imle| {
            let noise = gumbel(DRAWS * imle.noise(&structure).unwrap(), 8110, case as u64);
            let mut oracle = Closure::new(&structure, |_, code| code[0]);
            estimate(&imle, &structure, &h.repeat(DRAWS), &noise, &mut oracle).unwrap();
            let Kept::Assignments { assignments, .. } = &oracle.followed[0] else { panic!() };
            let mut share = std::collections::HashMap::<&[u32], f64>::new();
            assignments.chunks(u).for_each(|z| *share.entry(z).or_default() += 1.0 / DRAWS as f64);
            let mut z = vec![0; u];
            let distance = q.iter().enumerate().map(|(s, q)| {
                structure.state(s, &mut z);
                (q - share.get(&z[..]).copied().unwrap_or(0.0)).abs() / 2.0
            });
            distance.sum::<f64>()
        };
        let (plain, sums) = (far(imle), far(imle.sum_of_gamma(gamma)));
        assert!(plain < 0.15 && sums > 2.0 * plain, "{u}, {k}, {scale}: sum-of-gamma {sums}, Gumbel {plain}");
    }
}

#[test]
fn alpha_follows_the_rule_of_the_paper_and_finds_the_target() {
    let structure: AnyStructure = Categorical::product(3, 4).unwrap().into();
    let loss = Loss::new(&structure, 0.5, 8200);
    let h = random(12 * 50, 1.0, 8201);
    for target in [0.5, 2.0] {
        let mut imle = Imle::adaptive(target, 0.02).unwrap();
        let (mut alpha, mut average, mut recent) = (1.0f64, target as f64, 0.0);
        for step in 0..600 {
            let noise = gumbel(h.len(), 8202, step);
            let mut oracle = Closure::new(&structure, |_, code| loss.of(code));
            let found = estimate(&imle, &structure, &h, &noise, &mut oracle).unwrap();
            let changed = (found.sums[0] / found.sums[1]) as f64;
            Estimator::<AnyStructure>::learn(&mut imle, &found.sums);
            average = 0.9 * average + 0.1 * changed;
            alpha = (alpha + if average < target as f64 { 0.02f32 as f64 } else { -0.02f32 as f64 }).max(0.0);
            assert!((imle.alpha().unwrap() as f64 - alpha).abs() < 1e-3, "step {step}");
            recent += if step >= 400 { changed / 200.0 } else { 0.0 };
        }
        assert!((recent / target as f64 - 1.0).abs() < 0.1, "{target}: {recent}");
    }
    // It does not become negative, nothing is learned from nothing, and at 0 there is no gradient.
    let mut imle = Imle::adaptive(0.1, 0.7).unwrap();
    (0..3).for_each(|_| Estimator::<AnyStructure>::learn(&mut imle, &[50.0, 10.0]));
    Estimator::<AnyStructure>::learn(&mut imle, &[0.0, 0.0]);
    assert_eq!(imle.alpha(), Some(0.0));
    let oracle = &mut Closure::new(&structure, |_, code| loss.of(code));
    let found = estimate(&imle, &structure, &h, &gumbel(h.len(), 8203, 0), oracle).unwrap();
    assert!(found.gradient.iter().all(|g| *g == 0.0) && found.tallies[0].mean() == 1.0 && found.sums[0] == 0.0);
}

fn build(name: &str, structure: &AnyStructure, chosen: &[(&str, &str)]) -> Result<Box<dyn Estimator>, Error> {
    let all = estimators();
    let entry = all.get(name)?;
    let mut settings = Settings::defaults(entry.settings());
    for (name, value) in chosen {
        let setting = entry.settings().iter().find(|s| s.name == *name).unwrap();
        settings = settings.with(setting, value)?;
    }
    entry.build(&settings, structure)
}

#[test]
fn the_adaptive_lambda_survives_a_restart_to_the_bit() {
    let structure: AnyStructure = Chain::new(3, 2).unwrap().into();
    let loss = Loss::new(&structure, 0.5, 8300);
    let train = |estimator: &mut dyn Estimator, h: &mut [f32], steps: std::ops::Range<u64>| {
        for step in steps {
            let noise = gumbel(8 * estimator.noise(&structure).unwrap(), 8301, step);
            let mut oracle = Closure::new(&structure, |_, code| loss.of(code));
            let found = estimate(estimator, &structure, h, &noise, &mut oracle).unwrap();
            h.iter_mut().zip(&found.gradient).for_each(|(h, g)| *h -= 0.1 * g);
            estimator.learn(&found.sums);
        }
    };
    for noise in ["gumbel", "sum-of-gamma"] {
        let new = || build("adaptive-imle", &structure, &[("imle-noise", noise), ("imle-step", "0.05")]).unwrap();
        let start = random(8 * structure.potentials(), 1.0, 8302);
        let (mut whole, mut h) = (new(), start.clone());
        train(&mut *whole, &mut h, 0..60);
        let (mut first, mut again) = (new(), start);
        train(&mut *first, &mut again, 0..25);
        let mut second = new();
        second.restore(&first.state()).unwrap();
        train(&mut *second, &mut again, 25..60);
        let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!((bits(&h), bits(&whole.state())), (bits(&again), bits(&second.state())));
        assert!(whole.state()[0] != 1.0);
        let error = second.restore(&[1.0]).unwrap_err();
        assert!(matches!(error, Error::Length { expected: 2, found: 1, .. }));
    }
}

/// Row norms do not depend on a constant added to a row, and forbidden values count for nothing.
#[test]
fn an_adaptive_lambda_sees_differences_alone() {
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    let never = f32::NEG_INFINITY;
    let run = |h: &[f32], slopes: &[f32]| {
        let oracle = &mut Closure::new(&structure, linear_of(slopes));
        let found = estimate(&adaptive(), &structure, h, &[0.0; 6], oracle).unwrap();
        assert!(found.gradient.iter().all(|g| g.is_finite()));
        found.tallies[1].mean()
    };
    let plain = run(&[1.0, 0.0, -1.0, 0.5, 0.0, -0.5], &[1.0, 0.0, -1.0, 2.0, 0.0, -2.0]);
    assert!((plain - 1.5 * (2.5f64 / 10.0).sqrt()).abs() < 1e-3, "{plain}");
    let moved = run(&[9.0, 8.0, 7.0, -3.5, -4.0, -4.5], &[1.0, 0.0, -1.0, 5.0, 3.0, 1.0]);
    assert!((moved - plain).abs() < 1e-3, "{moved}");
    let forbidden = run(&[1.0, never, -1.0, 0.5, 0.0, -0.5], &[1.0, 70.0, -1.0, 2.0, 0.0, -2.0]);
    assert!((forbidden - plain).abs() < 1e-3, "{forbidden}");
    // All equal, or a flat loss: nothing to go by.
    assert_eq!(run(&[1.0; 6], &[1.0, 0.0, -1.0, 2.0, 0.0, -2.0]), 0.0);
    assert_eq!(run(&[1.0, 0.0, -1.0, 0.5, 0.0, -0.5], &[0.0; 6]), 0.0);
}

fn linear_of(slopes: &[f32]) -> impl Fn(usize, &[f32]) -> f32 + '_ {
    let loss = linear(slopes);
    move |_, code| loss(code)
}

#[test]
fn the_decoder_follows_samples_of_independent_variables() {
    for (case, structure) in independent().into_iter().enumerate() {
        let (h, what) = (potentials(&structure, 8400 + case as u64), format!("{structure:?}"));
        let imle: &dyn Estimator = &Imle::new(1.0).unwrap();
        assert_follows_q(&what, (imle, &structure), &h, 1, 8410 + case as u64);
        let adaptive: &dyn Estimator = &adaptive();
        assert_follows_q(&what, (adaptive, &structure), &h, 2, 8420 + case as u64);
        let perturbed: &dyn Estimator = &Perturbed;
        assert_follows_q(&what, (perturbed, &structure), &h, 3, 8430 + case as u64);
    }
}

#[test]
fn perturbed_averages_to_the_exact_gradient_of_independent_variables() {
    for (case, structure) in independent().into_iter().enumerate() {
        let seed = 8500 + 10 * case as u64;
        let (h, loss) = (potentials(&structure, seed), Loss::new(&structure, 0.5, seed + 1));
        let oracle = &mut Table::of(&structure, |code| loss.of(code));
        let expected = doubles(&exact(&structure, &h, oracle));
        for samples in [2, 4] {
            let found = mean_of(&Perturbed, &structure, &h, oracle, samples, 200_000, seed + 2 + samples as u64);
            assert!(found.error.iter().all(|e| *e > 0.0));
            assert_within_four_standard_errors(&format!("{structure:?}, {samples}"), &found, &expected);
        }
    }
}

/// The derivative of `E_gamma[loss(argmax(h + gamma))]` with its standard errors, in another way: of the noise of one
/// potential the expectation is taken in closed form. With the others' noise held, the arg max has the statistic where
/// that noise exceeds the distance of the best score without it from the best with it, so that the derivative is the
/// density there times the difference of the two losses.
fn smoothed(structure: &AnyStructure, h: &[f32], losses: &[f32], draws: usize, seed: u64) -> Vec<[f64; 2]> {
    let (p, states) = (h.len(), losses.len());
    let mut z = vec![0; structure.variables()];
    let has: Vec<Vec<bool>> = (0..states)
        .map(|s| {
            structure.state(s, &mut z);
            statistics(structure, &z).iter().map(|x| *x != 0.0).collect()
        })
        .collect();
    let mut sums = vec![[0.0f64; 2]; p];
    let (mut noise, mut scores) = (vec![0.0; p], vec![0.0f64; states]);
    for draw in 0..draws {
        Noise::new(seed, Purpose::User(1), draw as u64).gumbel(&mut noise);
        for (score, has) in scores.iter_mut().zip(&has) {
            let used = has.iter().zip(h).zip(&noise).filter(|((has, _), _)| **has);
            *score = used.map(|((_, h), g)| *h as f64 + *g as f64).sum();
        }
        for (i, sum) in sums.iter_mut().enumerate() {
            let best = |with: bool| {
                let those = (0..states).filter(|s| has[*s][i] == with);
                those.max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
            };
            if let (Some(with), Some(without)) = (best(true), best(false)) {
                let at = scores[without] - (scores[with] - noise[i] as f64);
                let density = (-at - (-at).exp()).exp();
                let value = density * (losses[with] - losses[without]) as f64;
                *sum = [sum[0] + value, sum[1] + value * value];
            }
        }
    }
    let n = draws as f64;
    sums.into_iter().map(|[s, q]| [s / n, ((q / n - (s / n).powi(2)).max(0.0) / n).sqrt()]).collect()
}

/// What is found and what is expected, with the errors of both.
fn against(mut found: Statistics, expected: &[[f64; 2]]) -> (Statistics, Vec<f64>) {
    found.error.iter_mut().zip(expected).for_each(|(e, [_, other])| *e = e.hypot(*other));
    (found, expected.iter().map(|[mean, _]| *mean).collect())
}

#[test]
fn perturbed_averages_to_the_gradient_of_the_perturbed_arg_max() {
    let coupled: [AnyStructure; 4] = [
        Chain::new(3, 3).unwrap().into(),
        Pairwise::new(3).unwrap().into(),
        Subset::new(5, 2).unwrap().into(),
        Categorical::product(2, 3).unwrap().into(),
    ];
    for (case, structure) in coupled.into_iter().enumerate() {
        let seed = 8700 + 10 * case as u64;
        let (h, loss) = (potentials(&structure, seed), Loss::new(&structure, 0.5, seed + 1));
        let oracle = &mut Table::of(&structure, |code| loss.of(code));
        let reference = smoothed(&structure, &h, oracle.all(), 100_000, seed + 2);
        if structure.is_independent() {
            // Of independent variables the reference is the exact gradient.
            for ([mean, error], exact) in reference.iter().zip(exact(&structure, &h, oracle)) {
                assert!((mean - exact as f64).abs() < 4.0 * error, "{mean} {exact} {error}");
            }
        }
        let found = mean_of(&Perturbed, &structure, &h, oracle, 3, 200_000, seed + 3);
        let (found, expected) = against(found, &reference);
        assert!(expected.iter().any(|e| e.abs() > 0.1), "nothing to compare");
        assert_within_four_standard_errors(&format!("{structure:?}"), &found, &expected);
    }
}

/// The score of the noise with something wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum WrongScore {
    Nothing,
    Sign,
    /// The baseline has the own loss in it, as if M samples were M others.
    Own,
    /// As if the noise had been shifted to mean zero.
    Shifted,
    /// All samples have the same noise.
    Same,
    /// The density's derivative without its exponential: the noise less its mean.
    Linear,
}

impl Estimator for WrongScore {
    fn questions(&self, _: &AnyStructure) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &AnyStructure) -> Result<usize, Error> {
        Ok(structure.potentials())
    }

    fn estimate(&self, piece: &mut Piece<'_, AnyStructure>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, count, samples) = (piece.structure, piece.count(), piece.samples);
        let (p, n) = (structure.potentials(), structure.variables());
        let (mut z, mut losses) = (vec![0; count * n], vec![0.0; samples * count]);
        let noise_of = |sample: usize| if *self == WrongScore::Same { 0 } else { sample };
        let mut solver = structure.scratch();
        for sample in 0..samples {
            for (b, z) in z.chunks_mut(n).enumerate() {
                let noise = piece.noise.of(noise_of(sample), b);
                let perturbed: Vec<f32> = piece.potentials[b * p..].iter().zip(noise).map(|(h, g)| h + g).collect();
                structure.argmax(&perturbed, z, &mut solver)?;
            }
            oracle.losses(piece.of, &z, &mut losses[sample * count..][..count])?;
        }
        for b in 0..count {
            let loss = |m: usize| losses[m * count + b];
            for m in 0..samples {
                let others = (0..samples).filter(|l| *l != m).map(loss).sum::<f32>();
                let baseline = match self {
                    WrongScore::Own => (others + loss(m)) / samples as f32,
                    _ => others / (samples - 1) as f32,
                };
                for (g, gamma) in piece.gradient[b * p..].iter_mut().zip(piece.noise.of(noise_of(m), b)) {
                    let score = match self {
                        WrongScore::Sign => (-gamma).exp() - 1.0,
                        WrongScore::Shifted => 1.0 - (-gamma - EULER_GAMMA).exp(),
                        WrongScore::Linear => gamma - EULER_GAMMA,
                        _ => 1.0 - (-gamma).exp(),
                    };
                    *g += piece.scale * (loss(m) - baseline) * score;
                }
            }
        }
        Ok(())
    }
}

#[test]
fn wrong_scores_of_the_noise_are_caught() {
    let structure: AnyStructure = Pairwise::new(3).unwrap().into();
    let (h, loss) = (potentials(&structure, 8800), Loss::new(&structure, 0.5, 8801));
    let oracle = &mut Table::of(&structure, |code| loss.of(code));
    let reference = smoothed(&structure, &h, oracle.all(), 100_000, 8802);
    for wrong in [
        WrongScore::Nothing,
        WrongScore::Sign,
        WrongScore::Own,
        WrongScore::Shifted,
        WrongScore::Same,
        WrongScore::Linear,
    ] {
        let found = mean_of(&wrong, &structure, &h, oracle, 2, 200_000, 8803);
        if wrong == WrongScore::Nothing {
            let ours = mean_of(&Perturbed, &structure, &h, oracle, 2, 200_000, 8803).mean;
            assert!(ours.iter().zip(&found.mean).all(|(a, b)| (a - b).abs() < 1e-5), "{ours:?} {:?}", found.mean);
        }
        let (found, expected) = against(found, &reference);
        assert_eq!(is_within_four_standard_errors(&found, &expected), wrong == WrongScore::Nothing, "{wrong:?}");
    }
}

/// Where a part of the potentials would learn nothing, a latent is refused, by whichever way it comes.
#[test]
fn perturbed_refuses_couplings_of_one_sign() {
    let structure: AnyStructure = Supermodular::new(4).unwrap().into();
    let message = build("perturbed", &structure, &[]).err().unwrap().to_string();
    assert!(
        message.starts_with("estimator = perturbed: expected another one: it perturbs every potential"),
        "{message}"
    );
    let (h, oracle) = (potentials(&structure, 8900), &mut Closure::new(&structure, |_, _| 0.0));
    let error = estimate(&Perturbed, &structure, &h, &vec![0.0; 2 * h.len()], oracle).unwrap_err();
    assert_eq!(error.to_string(), message);
    build("imle", &structure, &[]).unwrap();
}

#[test]
fn what_perturbations_cannot_have_is_an_error() {
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-42] {
        assert!(Imle::new(bad).is_err() && Imle::adaptive(bad, 1.0).is_err() && Imle::adaptive(1.0, bad).is_err());
    }
    let error = Imle::new(-1.0).unwrap_err().to_string();
    assert!(error.starts_with("imle-lambda = -1: expected a number greater than 0"), "{error}");
    let subset: AnyStructure = Subset::new(5, 2).unwrap().into();
    for (name, value, expected) in [
        ("imle-lambda", "0", "imle-lambda = 0: expected a number greater than 0"),
        ("imle-noise", "gumble", "imle-noise = gumble: expected one of gumbel, sum-of-gamma (did you mean gumbel?)"),
        ("imle-kappa", "-1", "imle-kappa = -1: expected a whole number from 0 to 1000000"),
        ("imle-terms", "0", "imle-terms = 0: expected a whole number from 1 to 1000000"),
    ] {
        let message = build("imle", &subset, &[(name, value)]).err().unwrap().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    for name in ["imle-target", "imle-step"] {
        assert!(build("adaptive-imle", &subset, &[(name, "nan")]).is_err());
    }
    let structure = Categorical::new(2).unwrap();
    for loss in [f32::NAN, f32::INFINITY] {
        let oracle = &mut Closure::new(&structure, |b, _| if b == 1 { loss } else { 1.0 });
        let found = estimate(&Perturbed, &structure, &[0.0; 4], &[0.0; 8], oracle).unwrap_err().to_string();
        assert!(found.starts_with("example 1 of the batch: loss 0 is "), "{found}");
        let found = estimate(&Imle::new(1.0).unwrap(), &structure, &[0.0; 4], &[0.0; 4], oracle).unwrap_err();
        assert!(found.to_string().starts_with("example 1 of the batch: slope 0 is NaN"), "{found}");
    }
    let oracle = &mut Closure::new(&structure, |_, _| 1.0);
    let error = estimate(&Perturbed, &structure, &[0.0; 4], &[0.0; 4], oracle).unwrap_err();
    assert_eq!(error.to_string(), "samples = 1: expected at least 2: perturbed compares each with the others");
    for h in [[f32::NAN, 0.0], [f32::NEG_INFINITY; 2]] {
        let (imle, sums) = (Imle::new(1.0).unwrap(), SumOfGamma::new(1, 10).unwrap());
        assert!(estimate(&imle, &structure, &h, &[0.0; 2], oracle).is_err());
        assert!(estimate(&imle.sum_of_gamma(sums), &structure, &h, &[0.0; 8], oracle).is_err());
        assert!(estimate(&Perturbed, &structure, &h, &[0.0; 4], oracle).is_err());
    }
    assert!(estimate(&Imle::new(1.0).unwrap(), &structure, &[], &[], oracle).unwrap().gradient.is_empty());
}

/// A value that is forbidden is not drawn, and nothing is learned about it.
#[test]
fn forbidden_values_have_no_gradient_by_perturbations() {
    let structure = Categorical::new(3).unwrap();
    let h = [0.3, f32::NEG_INFINITY, -0.2].repeat(100);
    let oracle = &mut Closure::new(&structure, |_, code| 3.0 * code[0] - 9.0 * code[1] + code[2]);
    let (imle, sums) = (Imle::new(1.0).unwrap(), SumOfGamma::new(1, 10).unwrap());
    let noise = gumbel(800, 8950, 0);
    let found = [
        estimate(&imle, &structure, &h, &noise[..300], oracle),
        estimate(&imle.sides(Sides::Two).sum_of_gamma(sums), &structure, &h, &noise, oracle),
        estimate(&adaptive(), &structure, &h, &noise[..300], oracle),
        estimate(&Perturbed, &structure, &h, &noise[..600], oracle),
    ];
    for gradient in found.map(|found| found.unwrap().gradient) {
        assert!(gradient.chunks(3).all(|g| g[1] == 0.0) && gradient.iter().all(|g| g.is_finite()));
        assert!(gradient.iter().any(|g| *g != 0.0));
    }
}

/// What the registry chooses is what the latent has.
#[test]
fn the_registry_takes_kappa_from_the_latent() {
    let subset: AnyStructure = Subset::new(6, 2).unwrap().into();
    let (h, loss) = (random(6 * 40, 1.0, 8960), Loss::new(&subset, 0.5, 8961));
    let noise = gumbel(8 * 40, 8962, 0);
    let run = |estimator: &dyn Estimator| {
        let mut oracle = Closure::new(&subset, |_, code| loss.of(code));
        estimate(estimator, &subset, &h, &noise, &mut oracle).unwrap().gradient
    };
    let built = |kappa: &str, terms: &str| {
        let chosen = [("imle-noise", "sum-of-gamma"), ("imle-kappa", kappa), ("imle-terms", terms)];
        run(&*build("imle", &subset, &chosen).unwrap())
    };
    let own = |kappa, terms| run(&Imle::new(1.0).unwrap().sum_of_gamma(SumOfGamma::new(kappa, terms).unwrap()));
    assert_eq!(built("0", "10"), own(2, 10));
    assert_eq!(built("5", "3"), own(5, 3));
    assert!(built("0", "10") != built("5", "10") && built("0", "10") != built("0", "3"));
    let two = build("imle", &subset, &[("two-sided", "true"), ("imle-lambda", "0.25")]).unwrap();
    let oracle = &mut Closure::new(&subset, |_, code| loss.of(code));
    let gradient = estimate(&*two, &subset, &h, &gumbel(6 * 40, 8963, 0), oracle).unwrap().gradient;
    assert!(gradient.iter().all(|g| [0.0, 2.0, -2.0].contains(g)) && gradient.contains(&2.0));
}
