//! The score-function estimators: plain, with a moving average, leave-one-out.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Estimator, LeaveOneOut, Piece, Reinforce, estimate, estimators};
use gumbel::oracle::{Closure, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Permutation, Structure, Subset, Sums};

/// REINFORCE with the moving average of losses about 3.
fn averaged() -> Reinforce {
    let mut reinforce = Reinforce::with_average(0.9).unwrap();
    Estimator::<AnyStructure>::learn(&mut reinforce, &[30.0, 10.0]);
    assert_eq!(reinforce.baseline(), 3.0);
    reinforce
}

fn structures() -> Vec<AnyStructure> {
    let sizes = [(1, 2), (1, 3), (1, 5), (3, 2), (3, 3), (3, 5)];
    let independent = sizes.map(|(n, k)| AnyStructure::from(Categorical::product(n, k).unwrap()));
    let coupled: [AnyStructure; 3] =
        [Chain::new(3, 3).unwrap().into(), Pairwise::new(4).unwrap().into(), Subset::new(5, 2).unwrap().into()];
    independent.into_iter().chain(coupled).collect()
}

#[test]
fn score_functions_average_to_the_exact_gradient() {
    for (case, structure) in structures().into_iter().enumerate() {
        let seed = 6000 + 10 * case as u64;
        let (h, loss) = (potentials(&structure, seed), Loss::new(&structure, 0.5, seed + 1));
        let oracle = &mut Table::of(&structure, |code| loss.of(code));
        let expected = doubles(&exact(&structure, &h, oracle));
        let draws = if structure.is_independent() { 200_000 } else { 60_000 };
        let estimators: [(&dyn Estimator, usize); 4] =
            [(&Reinforce::new(), 1), (&averaged(), 2), (&LeaveOneOut, 2), (&LeaveOneOut, 4)];
        for (number, (estimator, samples)) in estimators.into_iter().enumerate() {
            let found = mean_of(estimator, &structure, &h, oracle, samples, draws, seed + 2 + number as u64);
            assert!(found.error.iter().all(|e| *e > 0.0));
            assert_within_four_standard_errors(&format!("{structure:?}, {number}"), &found, &expected);
        }
    }
}

#[test]
fn the_decoder_follows_samples_of_q() {
    for (case, structure) in structures().into_iter().enumerate() {
        let h = potentials(&structure, 6200 + case as u64);
        let what = format!("{structure:?}");
        let reinforce: &dyn Estimator = &Reinforce::new();
        let rloo: &dyn Estimator = &LeaveOneOut;
        assert_follows_q(&what, (reinforce, &structure), &h, 1, 6300 + case as u64);
        assert_follows_q(&what, (rloo, &structure), &h, 3, 6400 + case as u64);
    }
}

#[test]
fn a_baseline_and_the_others_losses_lower_the_variance() {
    let structure: AnyStructure = Categorical::product(3, 3).unwrap().into();
    let (h, loss) = (potentials(&structure, 6500), Loss::new(&structure, 0.5, 6501));
    let oracle = &mut Table::of(&structure, |code| 3.0 + loss.of(code));
    let mut variance = |estimator: &dyn Estimator| -> f64 {
        let found = mean_of(estimator, &structure, &h, oracle, 4, 20_000, 6502);
        found.error.iter().map(|e| e.powi(2)).sum()
    };
    let (none, average) = (variance(&Reinforce::new()), variance(&averaged()));
    let rloo = variance(&LeaveOneOut);
    assert!(average < 0.8 * none, "{average} {none}");
    assert!(rloo < 0.8 * none, "{rloo} {none}");
}

/// A stale baseline has no bias, so that no mean tells it: its variance does.
#[test]
fn a_stale_baseline_is_caught_by_its_variance() {
    let structure = Categorical::product(3, 3).unwrap();
    let (h, loss) = (random(9, 0.8, 6610), Loss::new(&structure, 0.5, 6611));
    // The losses have moved by three since it was learned.
    let oracle = &mut Table::of(&structure, |code| 3.0 + loss.of(code));
    let expected = doubles(&exact(&structure, &h, oracle));
    let measured = |baseline: f32, oracle: &mut Table| {
        let found = mean_of(&averaged_of(baseline), &structure, &h, oracle, 1, 100_000, 6612);
        assert_within_four_standard_errors("a baseline", &found, &expected);
        found.error.iter().map(|e| e.powi(2)).sum::<f64>()
    };
    let mean = oracle.all().iter().sum::<f32>() / oracle.all().len() as f32;
    let (fresh, stale) = (measured(mean, oracle), measured(mean - 3.0, oracle));
    assert!(fresh < 0.8 * stale, "{fresh} {stale}");
}

/// REINFORCE with something wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// The baseline has the present loss in it.
    OwnLoss,
    /// s(z) without E_q[s].
    NoMean,
    Sign,
}

impl<S: Sums> Estimator<S> for Wrong {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, count) = (piece.structure, piece.count());
        let (p, n) = (structure.potentials(), structure.variables());
        let (mut losses, mut q) = (vec![0.0; count], vec![0.0; p]);
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            let z = &piece.memory.assignments[..count * n];
            oracle.losses(piece.of, z, &mut losses)?;
            for (b, gradient) in piece.gradient.chunks_exact_mut(p).enumerate() {
                structure.marginals(&piece.potentials[b * p..][..p], &mut q)?;
                let baseline = if *self == Wrong::OwnLoss { 0.9 * 3.0 + 0.1 * losses[b] } else { 3.0 };
                let sign = if *self == Wrong::Sign { -1.0 } else { 1.0 };
                let weight = sign * piece.scale * (losses[b] - baseline);
                structure.add_statistics(&z[b * n..][..n], weight, gradient);
                if *self != Wrong::NoMean {
                    gradient.iter_mut().zip(&q).for_each(|(g, q)| *g -= weight * q);
                }
            }
        }
        Ok(())
    }
}

/// What the tests above are worth.
#[test]
fn wrong_score_functions_are_caught() {
    let structure = Categorical::product(3, 3).unwrap();
    let (h, loss) = (random(9, 0.8, 6600), Loss::new(&structure, 0.5, 6601));
    let oracle = &mut Table::of(&structure, |code| loss.of(code));
    let expected = doubles(&exact(&structure, &h, oracle));
    for wrong in [Wrong::Nothing, Wrong::OwnLoss, Wrong::NoMean, Wrong::Sign] {
        let found = mean_of(&wrong, &structure, &h, oracle, 1, 200_000, 6602);
        assert_eq!(is_within_four_standard_errors(&found, &expected), wrong == Wrong::Nothing, "{wrong:?}");
        if wrong == Wrong::Nothing {
            let ours = mean_of(&averaged_of(3.0), &structure, &h, oracle, 1, 200_000, 6602).mean;
            assert!(ours.iter().zip(&found.mean).all(|(a, b)| (a - b).abs() < 1e-5), "{ours:?} {:?}", found.mean);
        }
    }
    // Losses of other samples with the own one among them, as if M samples were M others.
    let halved = mean_of(&Shrunk, &structure, &h, oracle, 2, 200_000, 6603);
    assert!(!is_within_four_standard_errors(&halved, &expected));
}

fn averaged_of(baseline: f32) -> Reinforce {
    let mut reinforce = Reinforce::with_average(0.0).unwrap();
    Estimator::<Categorical>::learn(&mut reinforce, &[baseline, 1.0]);
    reinforce
}

/// Leave-one-out with 1/M in the place of 1/(M - 1): the baseline includes the sample.
struct Shrunk;

impl Estimator<Categorical> for Shrunk {
    fn questions(&self, _: &Categorical) -> Questions {
        Questions::LOSSES
    }

    fn estimate(&self, piece: &mut Piece<'_, Categorical>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let before = piece.gradient.to_vec();
        LeaveOneOut.estimate(piece, oracle)?;
        let shrink = (piece.samples - 1) as f32 / piece.samples as f32;
        piece.gradient.iter_mut().zip(before).for_each(|(g, b)| *g = b + shrink * (*g - b));
        Ok(())
    }
}

/// A batch is compared with what came before it, never with itself.
#[test]
fn the_average_is_of_the_batches_before() {
    let structure = Categorical::new(3).unwrap();
    let (h, noise) = (random(30, 1.0, 6700), gumbel(30, 6701, 0));
    let mut reinforce = Reinforce::with_average(0.75).unwrap();
    let mut average = (0.0f64, 0.0f64);
    for step in 0..5 {
        let at = |b: usize, code: &[f32]| (step * 10 + b) as f32 + 4.0 * code[1] + code[2];
        let mut oracle = Closure::new(&structure, at);
        let found = estimate(&reinforce, &structure, &h, &noise, &mut oracle).unwrap();
        let baseline = if step == 0 { 0.0 } else { (average.0 / average.1) as f32 };
        assert!((reinforce.baseline() - baseline).abs() < 1e-4 * baseline.max(1.0));
        let mut compared = Closure::new(&structure, |b, code| at(b, code) - baseline);
        let plain = estimate(&Reinforce::new(), &structure, &h, &noise, &mut compared).unwrap();
        let close = plain.gradient.iter().zip(&found.gradient).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(close && plain.sums.is_empty() && found.sums[1] == 10.0);
        let mean = found.sums[0] as f64 / 10.0 + baseline as f64;
        average = (0.75 * average.0 + 0.25 * mean, 0.75 * average.1 + 0.25);
        Estimator::<Categorical>::learn(&mut reinforce, &found.sums);
    }
    // Nothing is learned from nothing.
    let kept = reinforce;
    Estimator::<Categorical>::learn(&mut reinforce, &[0.0, 0.0]);
    assert_eq!(reinforce, kept);
}

/// Potentials learn for some steps, and the average with them.
fn train(estimator: &mut dyn Estimator, h: &mut [f32], steps: std::ops::Range<u64>) {
    let structure: AnyStructure = Chain::new(3, 2).unwrap().into();
    let loss = Loss::new(&structure, 0.5, 6800);
    let mut oracle = Closure::new(&structure, |b, code| 20.0 + b as f32 + loss.of(code));
    let (samples, batch) = (2, h.len() / structure.potentials());
    for step in steps {
        let noise = gumbel(samples * batch * estimator.noise(&structure).unwrap(), 6801, step);
        let found = estimate(estimator, &structure, h, &noise, &mut oracle).unwrap();
        h.iter_mut().zip(&found.gradient).for_each(|(h, g)| *h -= 0.1 * g);
        estimator.learn(&found.sums);
    }
}

#[test]
fn the_average_survives_a_restart_to_the_bit() {
    let structure: AnyStructure = Chain::new(3, 2).unwrap().into();
    let build = || {
        let all = estimators();
        let entry = all.get("reinforce").unwrap();
        entry.build(&Settings::defaults(entry.settings()), &structure).unwrap()
    };
    let start = vec![0.0; 8 * structure.potentials()];
    let (mut whole, mut h) = (build(), start.clone());
    train(&mut *whole, &mut h, 0..60);
    let (mut first, mut again) = (build(), start);
    train(&mut *first, &mut again, 0..25);
    let mut second = build();
    second.restore(&first.state()).unwrap();
    assert_eq!(second.state(), first.state());
    train(&mut *second, &mut again, 25..60);
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!((bits(&h), bits(&whole.state())), (bits(&again), bits(&second.state())));

    let error = second.restore(&[1.0]).unwrap_err();
    assert!(matches!(error, Error::Length { expected: 2, found: 1, .. }));
    let mut plain = Reinforce::new();
    let plain: &mut dyn Estimator = &mut plain;
    assert_eq!((plain.sums(), plain.state()), (0, vec![]));
    assert!(plain.restore(&[]).is_ok() && plain.restore(&[0.0, 0.0]).is_err());
}

#[test]
fn what_score_functions_cannot_have_is_an_error() {
    for decay in [-0.1, 1.0, f32::NAN] {
        assert!(Reinforce::with_average(decay).is_err());
    }
    let permutation: AnyStructure = Permutation::new(4).unwrap().into();
    let all = estimators();
    for name in ["reinforce", "rloo"] {
        let entry = all.get(name).unwrap();
        let error = entry.build(&Settings::defaults(entry.settings()), &permutation).err().unwrap();
        assert!(matches!(error, Error::NoSums { .. }), "{error}");
    }
    let structure = Categorical::new(2).unwrap();
    let both = |h: &[f32], loss: f32| {
        let oracle = &mut Closure::new(&structure, |b, _| if b == 1 { loss } else { 1.0 });
        let plain = estimate(&Reinforce::new(), &structure, h, &[0.0; 8], oracle).map(drop);
        let rloo = estimate(&LeaveOneOut, &structure, h, &[0.0; 8], oracle).map(drop);
        (plain, rloo)
    };
    assert!(both(&[0.0; 4], 1.0) == (Ok(()), Ok(())));
    for loss in [f32::NAN, f32::INFINITY] {
        let (plain, rloo) = both(&[0.0; 4], loss);
        let messages = [plain, rloo].map(|found| found.unwrap_err().to_string());
        assert!(messages.iter().all(|m| m.starts_with("example 1 of the batch: loss 0 is ")), "{messages:?}");
    }
    let (plain, rloo) = both(&[0.0, 1.0, f32::NAN, 0.0], 1.0);
    assert!(plain.is_err() && rloo.is_err());
    let oracle = &mut Closure::new(&structure, |_, _| 1.0);
    let error = estimate(&LeaveOneOut, &structure, &[0.0; 4], &[0.0; 4], oracle).unwrap_err();
    assert!(error.to_string().contains("samples = 1: expected at least 2"), "{error}");
    // No example, no estimate.
    let found = estimate(&Reinforce::new(), &structure, &[], &[], oracle).unwrap();
    assert!(found.gradient.is_empty());
}

/// A value that is forbidden is not drawn, and nothing is learned about it.
#[test]
fn forbidden_values_have_no_gradient() {
    let structure = Categorical::new(3).unwrap();
    let (h, noise) = ([0.3, f32::NEG_INFINITY, -0.2].repeat(100), gumbel(600, 6900, 0));
    let oracle = &mut Closure::new(&structure, |_, code| 3.0 * code[0] + code[2]);
    let plain = estimate(&Reinforce::new(), &structure, &h, &noise, oracle).unwrap().gradient;
    let rloo = estimate(&LeaveOneOut, &structure, &h, &noise, oracle).unwrap().gradient;
    for gradient in [plain, rloo] {
        assert!(gradient.chunks(3).all(|g| g[1] == 0.0) && gradient.iter().all(|g| g.is_finite()));
    }
}
