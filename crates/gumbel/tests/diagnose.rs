//! The microscope against what is known in closed form, and against estimators with a known fault.

use gumbel::Error;
use gumbel::diagnose::{Diagnosis, Plan, Reference, diagnose, rows};
use gumbel::estimator::{
    Direct, Estimator, Exact, LeaveOneOut, LocalExpectation, Piece, Reinforce, Sides, StraightThrough, estimate,
    estimators,
};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::{Closure, Oracle, Questions};
use gumbel::registry::{Entry, Settings, Value};
use gumbel::structure::{AnyStructure, Categorical, Chain, Structure, Subset, Sums};

const PLAN: Plan = Plan { draws: 4000, samples: 1, learn: 0, kl_weight: 0.0, seed: 3 };

fn random(len: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::User(0), 0).zero_mean_gumbel(&mut x);
    x.iter_mut().for_each(|v| *v *= scale);
    x
}

/// A loss that is no sum over the entries of the code, another one for every example.
fn loss(example: usize, code: &[f32]) -> f32 {
    let weighted: f32 = code.iter().enumerate().map(|(u, c)| c * (0.7 * (u + example) as f32).sin()).sum();
    2.0 * weighted + weighted.powi(2)
}

fn look<S: Sums>(estimator: &mut dyn Estimator<S>, structure: &S, examples: usize, plan: &Plan) -> Diagnosis {
    let h = random(examples * structure.potentials(), 0.8, 11);
    let mut oracle = Closure::new(structure, loss);
    let mut reference = Reference::new(structure, &h, &mut oracle, 0, 0).unwrap();
    assert_eq!((reference.estimator, reference.error), ("exact", 0.0));
    if plan.kl_weight > 0.0 {
        reference = reference.with_kl(structure, &h).unwrap();
    }
    diagnose(estimator, structure, &h, &reference, &mut oracle, plan).unwrap()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let sum: f64 = x.iter().map(|x| x.exp()).sum();
    x.iter().map(|x| x.exp() / sum).collect()
}

/// Bias and standard deviation of direct optimisation of one variable, of the mean over two examples.
fn closed_form(epsilon: f64, kl: f64) -> (f64, f64) {
    let (k, examples) = (4, 2);
    let h: Vec<f64> = random(examples * k, 0.8, 11).iter().map(|h| *h as f64).collect();
    let (mut bias2, mut variance) = (0.0, 0.0);
    for b in 0..examples {
        let h = &h[b * k..][..k];
        let code = |z: usize| (0..k).map(|u| (u == z) as u8 as f32).collect::<Vec<_>>();
        let losses: Vec<f64> = (0..k).map(|z| loss(b, &code(z)) as f64).collect();
        let at = |e: f64| softmax(&h.iter().zip(&losses).map(|(h, l)| (1.0 - e * kl) * h - e * l).collect::<Vec<_>>());
        let (q, p) = (at(0.0), at(epsilon));
        let mean: f64 = q.iter().zip(&losses).map(|(q, l)| q * l).sum();
        let kl_mean: f64 = q.iter().zip(h).map(|(q, h)| q * h).sum();
        for i in 0..k {
            let exact = q[i] * (losses[i] - mean) + kl * q[i] * (h[i] - kl_mean);
            bias2 += ((q[i] - p[i]) / epsilon - exact).powi(2) / 4.0;
        }
        if kl == 0.0 {
            // By enumeration of the pairs (z*, z(eps)) on a fine grid of noise there is none: E|s - s'|^2 is twice the
            // probability that they differ, which `zero_gradient_rate` measures.
            let mean2: f64 = q.iter().zip(&p).map(|(q, p)| ((q - p) / epsilon).powi(2)).sum();
            variance -= mean2 / 4.0;
        }
    }
    (bias2.sqrt(), variance)
}

#[test]
fn direct_has_the_bias_and_the_deviation_of_its_closed_form() {
    let structure = Categorical::new(4).unwrap();
    for epsilon in [1.0, 0.3] {
        let plan = Plan { draws: 40_000, ..PLAN };
        let found = look(&mut Direct::new(epsilon as f32).unwrap(), &structure, 2, &plan);
        let (bias, less) = closed_form(epsilon, 0.0);
        assert!((found.figures.bias.value - bias).abs() < 4.0 * found.figures.bias.error + 1e-6, "{found:?} {bias}");
        assert!(found.figures.bias.error > 0.0 && found.figures.bias.error < 0.2 * bias, "{found:?}");
        // |s(z*) - s(z(eps))|^2 is 2 where they differ, for two examples with a weight of 1/2 each.
        let moved = 1.0 - found.tallies[0].mean();
        let std = (2.0 * moved / epsilon.powi(2) / 2.0 + less).sqrt();
        assert!((found.figures.std.value - std).abs() < 1e-3 * std, "{found:?} {std}");
        let mse = bias.powi(2) + std.powi(2);
        assert!((found.figures.mse.value - mse).abs() < 4.0 * found.figures.mse.error + 2e-3 * mse, "{found:?} {mse}");
        assert_eq!(found.rows, [4.0, 1.0]); // z* and three others; z* is followed
    }
    // With the KL inside, and two-sided: less bias than one-sided.
    let plan = Plan { draws: 40_000, kl_weight: 1.0, ..PLAN };
    let found = look(&mut Direct::new(0.5).unwrap().with_kl(1.0), &structure, 2, &plan);
    let (bias, _) = closed_form(0.5, 1.0);
    assert!((found.figures.bias.value - bias).abs() < 4.0 * found.figures.bias.error + 1e-6, "{found:?} {bias}");
    let two = look(&mut Direct::new(0.5).unwrap().sides(Sides::Two), &structure, 2, &Plan { draws: 40_000, ..PLAN });
    assert!(two.figures.bias.value < closed_form(0.5, 0.0).0, "{two:?}");
}

#[test]
fn what_has_no_bias_shows_none_and_what_is_exact_no_deviation() {
    let structure = Categorical::product(3, 2).unwrap();
    let exact = look(&mut Exact, &structure, 3, &PLAN);
    assert_eq!((exact.draws, exact.figures.std.value, exact.figures.std.error, exact.rows), (1, 0.0, 0.0, [8.0, 8.0]));
    assert!(exact.figures.bias.value < 1e-9 && (exact.figures.cosine.value - 1.0).abs() < 1e-6, "{exact:?}");
    let estimators: [(&mut dyn Estimator<Categorical>, usize); 3] =
        [(&mut LocalExpectation, 1), (&mut LeaveOneOut, 4), (&mut Reinforce::new(), 1)];
    for (estimator, samples) in estimators {
        let found = look(estimator, &structure, 3, &Plan { samples, ..PLAN });
        assert!(found.figures.bias.value < 3.0 * found.figures.bias.error, "{found:?}");
        assert!(
            found.figures.std.value > 0.0 && found.figures.mean_cosine > 0.97 && found.figures.cosine.value < 1.0,
            "{found:?}"
        );
    }
}

/// An estimate that is too long by a share.
struct Stretched(f32);

impl Estimator<Categorical> for Stretched {
    fn questions(&self, _: &Categorical) -> Questions {
        Questions::AROUND
    }

    fn estimate(&self, piece: &mut Piece<'_, Categorical>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        LocalExpectation.estimate(piece, oracle)?;
        piece.gradient.iter_mut().for_each(|g| *g *= self.0);
        Ok(())
    }
}

#[test]
fn a_fault_of_ten_percent_is_a_bias_of_ten_percent() {
    let structure = Categorical::product(3, 2).unwrap();
    let mut oracle = Closure::new(&structure, loss);
    let h = random(18, 0.8, 11);
    let norm = Reference::new(&structure, &h, &mut oracle, 0, 0).unwrap().norm();
    for factor in [1.1, 0.9] {
        let found = look(&mut Stretched(factor), &structure, 3, &PLAN);
        assert!((found.figures.bias.value - 0.1 * norm).abs() < 4.0 * found.figures.bias.error, "{found:?} {norm}");
        assert!(found.figures.bias.value > 4.0 * found.figures.bias.error, "{found:?}");
        assert!((found.figures.mean_cosine - 1.0).abs() < 1e-3);
    }
    // The right one, with the same draws, shows none.
    let found = look(&mut Stretched(1.0), &structure, 3, &PLAN);
    assert!(found.figures.bias.value < 3.0 * found.figures.bias.error, "{found:?}");
}

/// Where states cannot be enumerated, the reference is an average whose error is known.
#[test]
fn long_averages_stand_for_what_cannot_be_enumerated() {
    // A linear loss: the gradient of each variable is q (1 - q) times the difference.
    let structure = Categorical::binary(16).unwrap();
    let h = random(32, 0.5, 21);
    let linear = |_: usize, code: &[f32]| code.chunks(2).enumerate().map(|(i, c)| i as f32 * c[1]).sum::<f32>();
    let mut oracle = Closure::new(&structure, linear);
    let found = Reference::new(&structure, &h, &mut oracle, 20, 5).unwrap();
    assert_eq!((found.estimator, found.draws), ("local-expectation", 20));
    for (i, pair) in h.chunks(2).enumerate() {
        let q = softmax(&[pair[0] as f64, pair[1] as f64])[1];
        assert!((found.gradient[2 * i + 1] - i as f64 * q * (1.0 - q)).abs() < 1e-4);
    }
    // Of a latent with sums that are coupled: within its own error of the exact one, which is known for few states.
    let (small, large) = (Subset::new(6, 3).unwrap(), Subset::new(20, 10).unwrap());
    let h = random(40, 0.5, 22);
    let reference = Reference::new(&large, &h, &mut Closure::new(&large, loss), 400, 6).unwrap();
    assert_eq!(reference.estimator, "rloo");
    assert!(reference.error > 0.0 && reference.error < 0.2 * reference.norm());
    let plan = Plan { draws: 400, samples: 8, ..PLAN };
    let mut oracle = Closure::new(&large, loss);
    let found = diagnose(&mut LeaveOneOut, &large, &h, &reference, &mut oracle, &plan).unwrap();
    assert!(found.figures.bias.value < 3.0 * found.figures.bias.error, "{found:?}");
    assert!(Reference::new(&small, &h[..6], &mut Closure::new(&small, loss), 2, 0).unwrap().error == 0.0);
}

#[test]
fn what_cannot_be_is_refused() {
    let structure = Chain::new(3, 3).unwrap();
    let h = random(structure.potentials(), 0.5, 31);
    let mut oracle = Closure::new(&structure, loss);
    let reference = Reference::new(&structure, &h, &mut oracle, 0, 0).unwrap();
    let error = diagnose(&mut LeaveOneOut, &structure, &h, &reference, &mut oracle, &PLAN).unwrap_err();
    assert_eq!(error.to_string(), "samples = 1: expected at least 2");
    let twice = h.repeat(2);
    assert!(diagnose(&mut Exact, &structure, &twice, &reference, &mut oracle, &PLAN).is_err());
    assert!(reference.clone().with_kl(&structure, &twice).is_err());
    let coupled = diagnose(&mut StraightThrough::new(1.0).unwrap(), &structure, &h, &reference, &mut oracle, &PLAN);
    assert!(coupled.is_err());
    // NaN losses are the estimator's to refuse.
    let mut broken = Closure::new(&structure, |_, _| f32::NAN);
    let plan = Plan { samples: 2, ..PLAN };
    assert!(diagnose(&mut LeaveOneOut, &structure, &h, &reference, &mut broken, &plan).is_err());
}

/// The same seed gives the same figures, but for the time.
#[test]
fn figures_are_functions_of_the_seed() {
    let structure = Categorical::new(4).unwrap();
    let run = |seed| {
        let mut found = look(&mut Direct::new(0.5).unwrap(), &structure, 2, &Plan { draws: 200, seed, ..PLAN });
        found.ms = 0.0;
        found
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// What is learned beforehand is learned from other draws, and stands still while it is looked at.
#[test]
fn estimators_learn_beforehand() {
    let structure = Categorical::new(4).unwrap();
    let of = |learn| {
        let mut reinforce = Reinforce::with_average(0.5).unwrap();
        let h = random(structure.potentials(), 0.8, 11);
        let mut oracle = Closure::new(&structure, |b, code| 50.0 + loss(b, code));
        let reference = Reference::new(&structure, &h, &mut oracle, 0, 0).unwrap();
        let plan = Plan { learn, ..PLAN };
        let found = diagnose(&mut reinforce, &structure, &h, &reference, &mut oracle, &plan).unwrap();
        (found, reinforce.baseline())
    };
    let (without, nothing) = of(0);
    let (with, baseline) = of(50);
    assert_eq!(nothing, 0.0);
    assert!((baseline - 51.0).abs() < 5.0, "{baseline}");
    assert!(with.figures.std.value < 0.2 * without.figures.std.value, "{with:?} {without:?}");
    assert!(estimate(&Exact, &structure, &[0.0; 4], &[], &mut Closure::new(&structure, loss)).is_ok());
}

/// Before a training, for the axis of a figure: the same numbers as of draws with an oracle.
#[test]
fn rows_are_known_beforehand_where_no_draw_decides() {
    let latent: AnyStructure = Categorical::binary(6).unwrap().into();
    let h = vec![0.2; 12];
    let loss = |_: usize, code: &[f32]| (code[1] - code[3] * 2.0 + code[8]).powi(2);
    let reference = Reference::new(&latent, &h, &mut Closure::new(&latent, loss), 0, 0).unwrap();
    let all = estimators();
    let mut known = vec![];
    for entry in all.iter() {
        let mut estimator = entry.build(&Settings::defaults(entry.settings()), &latent).unwrap();
        let samples = estimator.least_samples();
        let Some(found) = rows(&mut *estimator, &latent, samples).unwrap() else { continue };
        let plan = Plan { draws: 20, samples, learn: 0, kl_weight: 0.0, seed: 3 };
        let mut oracle = Closure::new(&latent, loss);
        let expected = diagnose(&mut *estimator, &latent, &h, &reference, &mut oracle, &plan).unwrap().rows;
        assert_eq!(found, expected, "{}", entry.name());
        known.push(entry.name());
    }
    for name in ["direct", "gumbel-softmax", "rebar", "relax", "arm", "rloo", "exact", "local-expectation"] {
        assert!(known.contains(&name), "{name}: {known:?}");
    }
    let search = all.get("direct").unwrap();
    let mut settings = Settings::defaults(search.settings());
    settings.set("joint", Value::Text("search".into()));
    assert_eq!(rows(&mut *search.build(&settings, &latent).unwrap(), &latent, 1).unwrap(), None);
}
