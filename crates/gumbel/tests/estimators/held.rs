//! Direct optimisation whose epsilon is moved to hold the share of gradients of zero.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Direct, Estimator, KlTerm, Moment, estimate, estimators};
use gumbel::oracle::Closure;
use gumbel::registry::{Entry, Settings};
use gumbel::schedule::Annealing;
use gumbel::structure::{AnyStructure, Categorical, Pairwise, Structure, Supermodular};

const BATCH: usize = 50;

fn built(structure: &AnyStructure, chosen: &[(&str, &str)]) -> Result<Box<dyn Estimator>, Error> {
    let entries = estimators();
    let entry = entries.get("direct")?;
    let mut settings = Settings::defaults(entry.settings());
    for (name, value) in chosen {
        let setting = entry.settings().iter().find(|s| s.name == *name).unwrap();
        settings = settings.with(setting, value)?;
    }
    entry.build(&settings, structure)
}

/// Steps on random problems; the share of gradients of zero and the mean of `adaptive_epsilon` over the last 200.
fn run(estimator: &mut dyn Estimator, structure: &AnyStructure, steps: std::ops::Range<u64>) -> (f64, f64) {
    let names: Vec<_> = estimator.measures().iter().map(|m| m.name).collect();
    let last = names.iter().position(|name| *name == "adaptive_epsilon").unwrap();
    assert!(last + 1 == names.len() && names[0] == "zero_gradient_rate");
    let losses: Vec<Loss> = (0..BATCH).map(|b| Loss::new(structure, 0.5, 9000 + 2 * b as u64)).collect();
    let (mut share, mut epsilon) = ((0.0, 0.0), (0.0, 0.0));
    for step in steps.clone() {
        let h: Vec<f32> =
            (0..BATCH).flat_map(|b| potentials(structure, 10_000 + step * BATCH as u64 + b as u64)).collect();
        let noise = gumbel(BATCH * estimator.noise(structure).unwrap(), 9300, step);
        let mut oracle = Closure::new(structure, |b, code| losses[b].of(code));
        estimator.begin(&Moment { step, kl_weight: 0.0 }).unwrap();
        let before = estimator.state();
        let found = estimate(estimator, structure, &h, &noise, &mut oracle).unwrap();
        // What is reported is what was used.
        assert!((found.tallies[last].mean() - before[0] as f64).abs() < 1e-6 * before[0] as f64 + 1e-9);
        assert_eq!((found.tallies[0].sum, BATCH as f64), (found.sums[0] as f64, found.sums[1] as f64));
        estimator.learn(&found.sums);
        if step + 200 >= steps.end {
            share = (share.0 + found.sums[0] as f64, share.1 + found.sums[1] as f64);
            epsilon = (epsilon.0 + before[0].ln() as f64, epsilon.1 + 1.0);
        }
    }
    (share.0 / share.1, (epsilon.0 / epsilon.1).exp())
}

#[test]
fn the_share_settles_at_its_target_from_both_sides() {
    let forms: [&[(&str, &str)]; 6] = [
        &[("joint", "off")],
        &[("joint", "off"), ("two-sided", "true")],
        &[("joint", "search")],
        &[("joint", "flips")],
        &[("joint", "exact")],
        &[("joint", "exact"), ("noise", "full")],
    ];
    let structures: [AnyStructure; 2] = [Categorical::binary(4).unwrap().into(), Pairwise::new(4).unwrap().into()];
    for (number, form) in forms.into_iter().enumerate() {
        let (structure, target) = [(&structures[0], "0.5"), (&structures[1], "0.75")][number % 2];
        let settle = |start: &str| {
            let chosen = [("epsilon", start), ("zero-gradient-target", target), ("epsilon-gain", "0.05")];
            let mut estimator = built(structure, &[&chosen[..], form].concat()).unwrap();
            assert_eq!((estimator.sums(), estimator.state()), (2, vec![start.parse().unwrap()]));
            run(&mut *estimator, structure, 0..600)
        };
        let (below, above) = (settle("0.05"), settle("20"));
        for (share, epsilon) in [below, above] {
            let what = format!("{structure:?}, {form:?}: a share of {share} at epsilon = {epsilon}");
            assert!((share - target.parse::<f64>().unwrap()).abs() < 0.03, "{what}");
            assert!((0.06..15.0).contains(&epsilon), "{what}");
        }
        assert!((below.1 / above.1).ln().abs() < 0.2, "{form:?}: {below:?} {above:?}");
    }
}

/// Too few zeros make epsilon smaller, too many larger: by as much as is said.
#[test]
fn epsilon_moves_by_the_distance_of_the_share_from_its_target() {
    let mut direct = Direct::new(0.5).unwrap().holding(0.8, 0.1).unwrap();
    let learn = |direct: &mut Direct, sums: &[f32]| Estimator::<Categorical>::learn(direct, sums);
    let mut expected = 0.5f64;
    for zeros in [10.0f32, 0.0, 8.0, 7.0] {
        learn(&mut direct, &[zeros, 10.0]);
        expected *= (0.1 * (zeros as f64 / 10.0 - 0.8)).exp();
        assert!((direct.epsilon() as f64 - expected).abs() < 1e-6, "{direct:?} {expected}");
    }
    // Nothing is learned from nothing.
    let kept = direct;
    learn(&mut direct, &[0.0, 0.0]);
    assert_eq!(direct, kept);
    // It stays within its bounds.
    for (zeros, bound) in [(1.0, 1e4), (0.0, 1e-4)] {
        let mut direct = Direct::new(1.0).unwrap().holding(0.5, 1.0).unwrap();
        (0..100).for_each(|_| learn(&mut direct, &[zeros, 1.0]));
        assert_eq!(direct.epsilon(), bound);
    }
    // Without a target nothing moves.
    let mut plain = Direct::new(0.5).unwrap();
    learn(&mut plain, &[1.0, 1.0]);
    assert_eq!(plain, Direct::new(0.5).unwrap());
}

/// Off, it changes no bit: epsilon follows the schedule. On, a step is that of the same epsilon.
#[test]
fn a_step_is_that_of_its_epsilon() {
    let structure: AnyStructure = Pairwise::new(4).unwrap().into();
    let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(&structure, 9400 + b as u64)).collect();
    let noise = gumbel(BATCH * structure.unary(), 9500, 0);
    let loss = Loss::new(&structure, 0.5, 9501);
    let step = |estimator: &dyn Estimator| {
        let found = estimate(estimator, &structure, &h, &noise, &mut Closure::new(&structure, |_, c| loss.of(c)));
        let found = found.unwrap();
        (found.gradient.iter().map(|g| g.to_bits()).collect::<Vec<_>>(), found.tallies[0], found.tallies[1], found.sums)
    };
    let schedule = [("epsilon", "0.7"), ("epsilon-decay", "0.001"), ("epsilon-every", "1")];
    let mut off = built(&structure, &[&schedule[..], &[("epsilon-gain", "1")]].concat()).unwrap();
    let mut on = built(&structure, &[&schedule[..], &[("zero-gradient-target", "0.4")]].concat()).unwrap();
    assert_eq!((off.sums(), off.state(), off.measures().len(), on.measures().len()), (0, vec![], 1, 2));
    let annealing = Annealing::new(0.7, 0.1, 0.001, 1).unwrap();
    for at in [0, 100, 100_000] {
        off.begin(&Moment { step: at, kl_weight: 0.0 }).unwrap();
        assert_eq!(step(&*off), step(&Direct::new(annealing.at(at)).unwrap()));
        off.learn(&[]);
        on.begin(&Moment { step: at, kl_weight: 0.0 }).unwrap();
        let (held, plain) = (step(&*on), step(&Direct::new(on.state()[0]).unwrap()));
        assert_eq!((&held.0, held.1), (&plain.0, plain.1));
        on.learn(&held.3);
        assert_ne!(on.state(), [0.7]);
    }
}

/// The couplings of some latents must not be scaled by a negative number: epsilon stays below 1 / weight.
#[test]
fn signs_of_couplings_bound_it() {
    let structure: AnyStructure = Supermodular::new(4).unwrap().into();
    let mut estimator = built(&structure, &[("zero-gradient-target", "0.1"), ("epsilon-gain", "1")]).unwrap();
    assert_eq!(estimator.kl(&structure), KlTerm::Either);
    for (step, kl_weight) in [(0, 0.0), (1, 0.3), (2, 0.3), (3, 0.7), (4, 1.0), (5, 1.0)] {
        estimator.begin(&Moment { step, kl_weight }).unwrap();
        assert!(estimator.state()[0] * kl_weight <= 1.0 && estimator.state()[0] > 0.9);
        (0..5).for_each(|_| estimator.learn(&[1.0, 1.0]));
        assert!(estimator.state()[0] > 1.0);
    }
}

#[test]
fn what_is_held_survives_a_restart_to_the_bit() {
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    for joint in ["off", "search", "flips", "exact"] {
        let build = || built(&structure, &[("joint", joint), ("zero-gradient-target", "0.6")]).unwrap();
        let mut whole = build();
        run(&mut *whole, &structure, 0..30);
        let mut first = build();
        run(&mut *first, &structure, 0..12);
        let mut second = build();
        second.restore(&first.state()).unwrap();
        run(&mut *second, &structure, 12..30);
        assert!(whole.state()[0].to_bits() == second.state()[0].to_bits() && whole.state() != build().state());
        for bad in [&[][..], &[1.0, 1.0]] {
            assert!(matches!(second.restore(bad), Err(Error::Length { expected: 1, .. })));
        }
        for bad in [0.0, -1.0, f32::NAN, 1e5] {
            let error = second.restore(&[bad]).unwrap_err().to_string();
            assert!(error.contains("expected 0.0001 to 10000"), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_held_is_refused() {
    let structure: AnyStructure = Categorical::binary(3).unwrap().into();
    let refused = |chosen: &[(&str, &str)], expected: &str| match built(&structure, chosen) {
        Ok(_) => panic!("{chosen:?} is not refused"),
        Err(e) => assert_eq!(e.to_string(), expected),
    };
    let expected =
        "zero-gradient-target = 0.5: expected 0 with rao-blackwell = true, where no two arg maxima are compared";
    let target = ("zero-gradient-target", "0.5");
    for joint in ["off", "search"] {
        refused(&[target, ("rao-blackwell", "true"), ("joint", joint)], expected);
    }
    refused(&[target, ("epsilon", "20000")], "epsilon = 20000: expected 0.0001 to 10000 with zero-gradient-target");
    for bad in ["1", "-0.1", "NaN"] {
        let expected = format!("zero-gradient-target = {bad}: expected 0, or a number greater than 0 and less than 1");
        refused(&[("zero-gradient-target", bad)], &expected);
    }
    for bad in ["0", "1.5", "inf"] {
        refused(
            &[("epsilon-gain", bad)],
            &format!("epsilon-gain = {bad}: expected a number greater than 0 and at most 1"),
        );
    }
    let direct = Direct::new(1.0).unwrap();
    for (target, gain) in [(0.0, 0.1), (1.0, 0.1), (f32::NAN, 0.1), (0.5, 0.0), (0.5, 2.0), (0.5, f32::NAN)] {
        assert!(direct.holding(target, gain).is_err());
    }
    assert!(Direct::new(1e-5).unwrap().holding(0.5, 0.1).is_err());

    // What auto says gives way: nothing is Rao-Blackwellised, also where it would be.
    let entries = estimators();
    let entry = entries.get("direct").unwrap();
    for (latent, joint) in [(Categorical::new(10).unwrap(), "off"), (Categorical::binary(50).unwrap(), "search")] {
        let auto = |target: Option<&str>, of: &str| {
            let says = |name: &str| target.filter(|_| name == "zero-gradient-target");
            entry.auto(&latent.into(), &says).into_iter().find(|(name, _)| *name == of).unwrap().1
        };
        assert_eq!((auto(Some("0.5"), "rao-blackwell"), auto(Some("0.5"), "joint")), ("false".into(), joint.into()));
        for off in [None, Some("0")] {
            assert_eq!(auto(off, "rao-blackwell"), "true");
        }
    }
}
