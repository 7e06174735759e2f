//! ARSM: swaps of the noise of independent K-way variables.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Arm, Arsm, Estimator, LeaveOneOut, Piece, estimate, estimators};
use gumbel::oracle::{Closure, Followed, Kept, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Structure, Subset};

const SIZES: [(usize, usize); 6] = [(1, 2), (1, 3), (1, 5), (3, 2), (3, 3), (3, 5)];

fn problem(n: usize, k: usize, seed: u64) -> (Categorical, Vec<f32>, Table) {
    let structure = Categorical::product(n, k).unwrap();
    let loss = Loss::new(&structure, 0.5, seed + 1);
    let table = Table::of(&structure, |code| loss.of(code));
    (structure, random(n * k, 1.0, seed), table)
}

#[test]
fn swaps_average_to_the_exact_gradient() {
    for (case, (n, k)) in SIZES.into_iter().enumerate() {
        let seed = 7600 + 10 * case as u64;
        let (structure, h, mut oracle) = problem(n, k, seed);
        let expected = doubles(&exact(&structure, &h, &mut oracle));
        for samples in [1, 2] {
            let found = mean_of(&Arsm, &structure, &h, &mut oracle, samples, 200_000, seed + 2 + samples as u64);
            assert_within_four_standard_errors(&format!("{n} x {k}, {samples}"), &found, &expected);
            assert!(found.error.iter().all(|e| *e > 0.0));
            assert_eq!(oracle.followed, samples * 200_000);
            oracle.followed = 0;
        }
    }
}

/// With something wrong, or not: the formula as it stands in the paper, in f64, every swap for itself.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plain {
    Right,
    /// The entry of pi that belongs to c, not to j.
    OwnEntry,
    Sign,
    /// pi of other noise than z.
    OtherNoise,
    /// The mean of the swaps without a part for pi: 1/K alone.
    NoNoise,
    /// The sum over j divided by K once more.
    MeanTwice,
}

impl Estimator<Categorical> for Plain {
    fn questions(&self, _: &Categorical) -> Questions {
        Questions::LOSSES
    }

    fn noise(&self, structure: &Categorical) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn estimate(&self, piece: &mut Piece<'_, Categorical>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (n, k) = (piece.structure.variables(), piece.structure.values());
        let u = n * k;
        let each = 1.0 / k as f64;
        for (b, (h, gradient)) in piece.potentials.chunks(u).zip(piece.gradient.chunks_mut(u)).enumerate() {
            let noise = piece.noise.of(0, b);
            let dirichlet = |noise: &[f32]| -> Vec<f64> {
                let of = |g: &[f32]| softmax64(g.iter().map(|g| -*g as f64).collect::<Vec<_>>().into_iter());
                noise[..u].chunks(k).flat_map(of).collect()
            };
            let pi = dirichlet(noise);
            let other = if *self == Plain::OtherNoise { dirichlet(&noise[u..]) } else { pi.clone() };
            let z = |c: usize, j: usize| -> Vec<u32> {
                let value = |v: usize| {
                    let at = |i: usize| {
                        let from = if i == c {
                            j
                        } else if i == j {
                            c
                        } else {
                            i
                        };
                        pi[v * k + from].ln() - h[v * k + i] as f64
                    };
                    (0..k).min_by(|a, b| at(*a).total_cmp(&at(*b))).unwrap() as u32
                };
                (0..n).map(value).collect()
            };
            let rows: Vec<u32> = (0..k * k).flat_map(|at| z(at / k, at % k)).collect();
            let mut losses = vec![0.0; k * k];
            oracle.losses(&vec![b as u32; k * k], &rows, &mut losses)?;
            let loss = |c: usize, j: usize| losses[c * k + j] as f64;
            for v in 0..n {
                for c in 0..k {
                    let term = |j: usize| {
                        let mean = (0..k).map(|m| loss(m, j)).sum::<f64>() * each;
                        let weight = match self {
                            Plain::OwnEntry => each - other[v * k + c],
                            Plain::Sign => other[v * k + j] - each,
                            Plain::NoNoise => each,
                            Plain::MeanTwice => each * (each - other[v * k + j]),
                            _ => each - other[v * k + j],
                        };
                        (loss(c, j) - mean) * weight
                    };
                    gradient[v * k + c] += piece.scale * (0..k).map(term).sum::<f64>() as f32;
                }
            }
        }
        Ok(())
    }
}

/// What the test of the mean is worth.
#[test]
fn wrong_swaps_are_caught() {
    let (structure, h, mut oracle) = problem(2, 3, 7700);
    let expected = doubles(&exact(&structure, &h, &mut oracle));
    use Plain::*;
    for plain in [Right, OwnEntry, Sign, OtherNoise, NoNoise, MeanTwice] {
        let found = mean_of(&plain, &structure, &h, &mut oracle, 1, 200_000, 7701);
        assert_eq!(is_within_four_standard_errors(&found, &expected), plain == Right, "{plain:?}");
    }
}

/// Draw by draw; what is asked, and what is followed.
#[test]
fn a_draw_is_that_of_the_paper_and_asks_once_about_each_assignment() {
    for (case, (n, k)) in SIZES.into_iter().enumerate() {
        let structure = Categorical::product(n, k).unwrap();
        let (u, batch) = (n * k, 200);
        let h = random(batch * u, 1.0, 7800 + case as u64);
        let noise = gumbel(batch * u, 7810, case as u64);
        let twice: Vec<f32> = noise.chunks(u).flat_map(|g| g.repeat(2)).collect();
        let losses: Vec<Loss> = (0..batch).map(|b| Loss::new(&structure, 0.5, 7820 + 2 * b as u64)).collect();
        let asked = std::cell::RefCell::new(vec![]);
        let mut oracle = Closure::new(&structure, |b, code| {
            asked.borrow_mut().push((b, code.iter().map(|c| *c as u8).collect::<Vec<u8>>()));
            losses[b].of(code)
        });
        let expected = estimate(&Plain::Right, &structure, &h, &twice, &mut oracle).unwrap().gradient;
        let mut all = asked.take();
        let found = estimate(&Arsm, &structure, &h, &noise, &mut oracle).unwrap().gradient;
        let mut once = asked.take();
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert!((f - e).abs() < 1e-4 * (1.0 + e.abs()), "{n} x {k}, {i}: {f} {e}");
        }
        all.sort();
        once.sort();
        all.dedup();
        assert_eq!(once, all, "each of the distinct assignments once");
        let Kept::Assignments { row: 0, assignments, weights } = &oracle.followed[0] else { panic!() };
        let mut z = vec![0; batch * n];
        gumbel::structure::perturbed_argmax(&structure, &h, &noise, &mut z).unwrap();
        assert!(*assignments == z && weights.iter().all(|w| *w == 1.0) && oracle.followed.len() == 1);
    }
}

/// A constant added to the noise of a variable is not seen: neither pi nor z knows it.
#[test]
fn noise_counts_up_to_a_constant() {
    let (structure, h, mut oracle) = problem(2, 4, 7850);
    // Sums that are exact in f32.
    let grid = |x: Vec<f32>| -> Vec<f32> { x.iter().map(|v| (v * 1024.0).round() / 1024.0).collect() };
    let (h, noise) = (grid(h), grid(gumbel(8, 7851, 0)));
    let moved: Vec<f32> = noise.iter().enumerate().map(|(i, g)| g + if i < 4 { 2.0 } else { -1.5 }).collect();
    let [a, b] = [noise, moved].map(|noise| estimate(&Arsm, &structure, &h, &noise, &mut oracle).unwrap().gradient);
    assert_eq!(a, b);
}

#[test]
fn with_two_values_it_is_arm() {
    let structure = Categorical::binary(4).unwrap();
    let loss = Loss::new(&structure, 0.5, 7900);
    let mut oracle = Closure::new(&structure, |_, code| loss.of(code));
    let (h, noise) = (random(8 * 500, 1.0, 7901), gumbel(8 * 500, 7902, 0));
    let arm = estimate(&Arm, &structure, &h, &noise, &mut oracle).unwrap().gradient;
    let arsm = estimate(&Arsm, &structure, &h, &noise, &mut oracle).unwrap().gradient;
    assert!(arm.iter().zip(&arsm).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + a.abs())));
    assert!(arm.iter().any(|g| *g != 0.0));
}

#[test]
fn the_decoder_follows_samples_of_q() {
    for (n, k) in [(1, 3), (2, 3), (3, 2)] {
        let (structure, h, _) = problem(n, k, 7950);
        for samples in [1, 3] {
            assert_follows_q("arsm", (&Arsm, &structure), &h, samples, 7951);
        }
    }
}

/// Two samples of leave-one-out cost two losses; a draw of swaps of three variables costs more and varies less.
#[test]
fn swaps_vary_less_than_leave_one_out() {
    let (structure, h, mut oracle) = problem(3, 3, 8000);
    let mut variance = |estimator: &dyn Estimator<Categorical>, samples| -> f64 {
        let found = mean_of(estimator, &structure, &h, &mut oracle, samples, 40_000, 8001);
        found.error.iter().map(|e| e.powi(2)).sum()
    };
    let (arsm, rloo) = (variance(&Arsm, 1), variance(&LeaveOneOut, 2));
    assert!(arsm < 0.8 * rloo, "{arsm} {rloo}");
}

/// Equal noise and potentials: as the arg max takes the first of equals, so do the swaps.
#[test]
fn ties_and_single_values_are_no_trouble() {
    let structure = Categorical::product(2, 4).unwrap();
    let mut oracle = Closure::new(&structure, |_, code| 3.0 * code[1] + code[6]);
    let found = estimate(&Arsm, &structure, &[0.0; 8], &[0.0; 8], &mut oracle).unwrap().gradient;
    assert!(found.iter().all(|g| *g == 0.0), "{found:?}");
    let single = Categorical::new(1).unwrap();
    let found = estimate(&Arsm, &single, &[0.3, 0.1], &[0.2, 0.5], &mut Closure::new(&single, |_, _| 2.0)).unwrap();
    assert_eq!(found.gradient, [0.0, 0.0]);
}

#[test]
fn other_latents_are_refused() {
    let others: [AnyStructure; 3] =
        [Pairwise::new(3).unwrap().into(), Chain::new(3, 2).unwrap().into(), Subset::new(4, 2).unwrap().into()];
    let all = estimators();
    let entry = all.get("arsm").unwrap();
    let build = |structure: &AnyStructure| entry.build(&Settings::defaults(entry.settings()), structure);
    for structure in &others {
        let error = build(structure).err().unwrap();
        assert_eq!(error.to_string(), "arsm needs variables that are independent of each other");
        let (h, noise) = (vec![0.0; structure.potentials()], vec![0.0; structure.unary()]);
        let error = estimate(&Arsm, structure, &h, &noise, &mut Closure::new(structure, |_, _| 0.0)).unwrap_err();
        assert!(matches!(error, Error::Coupled { .. }), "{error}");
    }
    assert!(build(&Categorical::new(256).unwrap().into()).is_ok());
    let error = build(&Categorical::new(257).unwrap().into()).err().unwrap().to_string();
    assert!(error.starts_with("latent = 257 values: expected at most 256 values of a variable"), "{error}");
}

#[test]
fn bad_numbers_are_errors_and_forbidden_values_have_no_gradient() {
    let structure = Categorical::product(2, 3).unwrap();
    for loss in [f32::NAN, f32::INFINITY] {
        let oracle = &mut Closure::new(&structure, |b, _| if b == 1 { loss } else { 1.0 });
        let error = estimate(&Arsm, &structure, &[0.0; 12], &[0.0; 12], oracle).unwrap_err().to_string();
        assert!(error.starts_with("example 1 of the batch: loss 0 is "), "{error}");
    }
    // Also where only a swap has it.
    let oracle = &mut Closure::new(&structure, |_, code| if code[0] == 1.0 { 1.0 } else { f32::NAN });
    let noise = [2.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert!(estimate(&Arsm, &structure, &[0.0; 6], &noise, oracle).is_err());
    let oracle = &mut Closure::new(&structure, |_, code| 3.0 * code[0] + code[4]);
    assert!(estimate(&Arsm, &structure, &[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0], &noise, oracle).is_err());
    let none = [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, 0.0, 0.0];
    assert!(estimate(&Arsm, &structure, &none, &noise, oracle).is_err());
    assert!(estimate(&Arsm, &structure, &[], &[], oracle).unwrap().gradient.is_empty());

    let h = [0.3, f32::NEG_INFINITY, -0.2, 0.1, 0.4, -0.3];
    let mut table = Table::of(&structure, |code| 3.0 * code[0] + code[4] + code[0] * code[5]);
    let expected = doubles(&exact(&structure, &h, &mut table));
    let found = mean_of(&Arsm, &structure, &h, &mut table, 1, 200_000, 8100);
    assert!(found.mean[1] == 0.0 && found.error[1] == 0.0);
    assert_within_four_standard_errors("forbidden", &found, &expected);
}

/// The one question is about rows of examples in their order.
#[test]
fn a_sample_of_a_batch_is_one_question() {
    struct Counted<'a>(&'a mut dyn Oracle, Vec<usize>);
    impl Oracle for Counted<'_> {
        fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
            assert!(of.is_sorted());
            self.1.push(of.len());
            self.0.losses(of, assignments, losses)
        }
        fn around(&mut self, _: &[u32], _: &[u32], _: &mut [f32], _: &mut [f32]) -> Result<(), Error> {
            panic!("not declared")
        }
        fn states(&mut self, _: &[u32], _: &mut [f32]) -> Result<(), Error> {
            panic!("not declared")
        }
        fn slopes(&mut self, _: &[u32], _: &[f32], _: &mut [f32], _: &mut [f32]) -> Result<(), Error> {
            panic!("not declared")
        }
        fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
            self.0.follow(followed)
        }
    }
    for (n, k, most) in [(1, 5, 5), (3, 5, 11), (6, 2, 2)] {
        let structure = Categorical::product(n, k).unwrap();
        let loss = Loss::new(&structure, 0.5, 8200);
        let mut oracle = Closure::new(&structure, |_, code| loss.of(code));
        let (batch, samples) = (50, 3);
        let (h, noise) = (random(batch * n * k, 1.0, 8201), gumbel(samples * batch * n * k, 8202, 0));
        let mut counted = Counted(&mut oracle, vec![]);
        estimate(&Arsm, &structure, &h, &noise, &mut counted).unwrap();
        assert_eq!(counted.1.len(), samples);
        assert!(counted.1.iter().all(|rows| (batch + 1..=batch * most).contains(rows)), "{:?}", counted.1);
    }
}
