//! Every estimator of the registry, in every combination of its switches and choices, is tested by name.

use crate::common::*;
use gumbel::estimator::{Estimator, EstimatorEntry, Memory, Tally, estimate, estimators};
use gumbel::oracle::{Closure, Kept};
use gumbel::registry::{Entry, Kind, Setting, Settings, Value};
use gumbel::structure::{AnyStructure, Categorical, Pairwise, Structure, Sums};

/// epsilon and the temperature of all of them.
const START: f64 = 0.5;

/// All values of the switches and choices of an entry, with [`START`] where a schedule starts.
fn combinations(entry: &EstimatorEntry) -> Vec<Settings> {
    let mut all = vec![Settings::defaults(entry.settings())];
    for setting in entry.settings() {
        let values: Vec<Value> = match setting.kind {
            Kind::Switch => vec![Value::Switch(false), Value::Switch(true)],
            Kind::Choice(names) => names.iter().map(|name| Value::Text(name.to_string())).collect(),
            _ if entry.schedules().iter().any(|s| s.name == setting.name) => vec![Value::Real(START)],
            _ => continue,
        };
        let with = |setting: &Setting, value: &Value, settings: &Settings| {
            let mut settings = settings.clone();
            settings.set(setting.name, value.clone());
            settings
        };
        all = values.iter().flat_map(|v| all.iter().map(|s| with(setting, v, s)).collect::<Vec<_>>()).collect();
    }
    all
}

/// All estimators that can be built for a structure, with their names and settings.
fn all(structure: &AnyStructure) -> Vec<(String, Settings, Box<dyn Estimator>)> {
    let mut out = vec![];
    for entry in estimators().iter() {
        for settings in combinations(entry) {
            if let Ok(estimator) = entry.build(&settings, structure) {
                out.push((entry.name().to_string(), settings, estimator));
            }
        }
    }
    out
}

/// What the mean of an estimator of one variable is known to be.
enum Mean {
    /// Of draws.
    Of(Vec<f64>),
    /// Of every draw: nothing is random.
    Always(Vec<f64>),
    /// It has no closed form: its definition is tested draw by draw, in this file of the tests.
    Elsewhere(&'static str),
}

/// An estimator that is not known here has no test: write one, and name it.
fn known(name: &str, settings: &Settings, h: &[f32], losses: &[f32]) -> Mean {
    let at = |shift: f64| softmax64(h.iter().zip(losses).map(move |(h, l)| *h as f64 + shift * *l as f64));
    let unbiased = || {
        let q = at(0.0);
        let mean: f64 = q.iter().zip(losses).map(|(q, l)| q * *l as f64).sum();
        q.iter().zip(losses).map(|(q, l)| q * (*l as f64 - mean)).collect()
    };
    match name {
        "direct" => {
            let sided = match settings.switch("two-sided") {
                true => closed_form(h, losses, START, -START, 2.0 * START),
                false => closed_form(h, losses, 0.0, -START, START),
            };
            // For one variable the separable loss is the true one, a search finds nothing, and noise on the unary
            // potentials is noise on every state.
            match (settings.text("joint"), settings.text("noise")) {
                ("off", "unary") if settings.switch("rao-blackwell") => Mean::Always(sided),
                ("off" | "search", "unary") | ("exact", "unary" | "full") => Mean::Of(sided),
                other => panic!("direct with joint and noise {other:?} has no test of its definition"),
            }
        }
        "exact" | "local-expectation" => Mean::Always(unbiased()),
        "marginal" => {
            let posterior = softmax64(losses.iter().map(|l| -*l as f64));
            Mean::Always(at(0.0).iter().zip(posterior).map(|(q, p)| q - p).collect())
        }
        "gumbel-softmax" | "straight-through" => Mean::Elsewhere(include_str!("relaxed.rs")),
        other => panic!("{other} is registered, but has no test of its mean or definition"),
    }
}

#[test]
fn every_registered_estimator_has_the_mean_that_it_is_known_for() {
    let k = 4;
    let structure: AnyStructure = Categorical::new(k).unwrap().into();
    let (h, losses) = (random(k, 1.0, 150), random(k, 2.0, 151));
    let oracle = &mut Table::of(&structure, |code| losses[code.iter().position(|c| *c == 1.0).unwrap()]);
    let mut built = std::collections::BTreeMap::<String, usize>::new();
    for (name, settings, estimator) in all(&structure) {
        *built.entry(name.clone()).or_default() += 1;
        let what = format!("{name}, {settings:?}");
        match known(&name, &settings, &h, &losses) {
            Mean::Of(expected) => {
                let found = mean_of(&*estimator, &structure, &h, oracle, 1, 200_000, 152);
                assert!(found.error.iter().any(|e| *e > 0.0), "{what}: nothing is random");
                assert_within_four_standard_errors(&what, &found, &expected);
                // What it measures are means over draws, within [0, 1] if they are shares.
                for (measure, tally) in estimator.measures().iter().zip(&found.tallies) {
                    let share = !measure.name.ends_with("_rate") || (0.0..=1.0).contains(&tally.mean());
                    assert!(share, "{what}: {} is {}", measure.name, tally.mean());
                }
                assert!(found.tallies[estimator.measures().len()..].iter().all(|t| t.count == 0.0), "{what}");
            }
            Mean::Always(expected) => {
                let found = estimate(&*estimator, &structure, &h, &gumbel(k, 153, 0), oracle).unwrap().gradient;
                let close = found.iter().zip(&expected).all(|(f, e)| (*f as f64 - e).abs() < 1e-5);
                assert!(close, "{what}: {found:?} {expected:?}");
            }
            Mean::Elsewhere(tests) => assert!(tests.contains(&name.replace('-', "_")), "{what}"),
        }
    }
    // Every entry was built, and direct in all its forms: 2 sides x (off, Rao-Blackwell, exact, full), and the search.
    assert_eq!(built.keys().map(String::as_str).collect::<Vec<_>>().len(), estimators().names().len(), "{built:?}");
    assert_eq!(built["direct"], 9);
}

/// Some structures and potentials for a batch, with a loss for every example.
fn batches() -> Vec<(AnyStructure, Vec<f32>, Vec<Loss>)> {
    let structures: [AnyStructure; 3] = [
        Categorical::product(3, 4).unwrap().into(),
        Categorical::new(6).unwrap().into(),
        Pairwise::new(4).unwrap().into(),
    ];
    let batch = |s: AnyStructure| {
        let h = (0..BATCH).flat_map(|b| potentials(&s, 160 + b as u64)).collect();
        let losses = (0..BATCH).map(|b| Loss::new(&s, 0.5, 3000 + 2 * b as u64)).collect();
        (s, h, losses)
    };
    structures.map(batch).into()
}

const BATCH: usize = 300;

fn noise(estimator: &dyn Estimator, structure: &AnyStructure, samples: usize) -> Vec<f32> {
    match estimator.is_random() {
        true => gumbel(samples * BATCH * estimator.noise(structure).unwrap(), 170, 0),
        false => vec![],
    }
}

#[test]
fn samples_are_averaged() {
    const SAMPLES: usize = 4;
    for (structure, h, losses) in batches() {
        for (name, settings, estimator) in all(&structure) {
            let (what, noise) = (format!("{name}, {settings:?}"), noise(&*estimator, &structure, SAMPLES));
            let run = |noise: &[f32]| {
                let mut oracle = Closure::new(&structure, |b, code| losses[b].of(code));
                let found = estimate(&*estimator, &structure, &h, noise, &mut oracle).unwrap();
                let rows = oracle.followed.len();
                let weight: f32 = match &oracle.followed[0] {
                    Kept::Assignments { weights, .. } | Kept::Codes { weights, .. } => weights[0] * rows as f32,
                    Kept::States(weights) => weights[..weights.len() / BATCH].iter().sum(),
                };
                assert!((weight - 1.0).abs() < 1e-5, "{what}: the weights of an example sum to {weight}");
                (found, rows)
            };
            let (all, rows) = run(&noise);
            if !estimator.is_random() {
                assert_eq!(rows, 1);
                continue;
            }
            assert_eq!((rows, estimator.rows(SAMPLES)), (SAMPLES, SAMPLES), "{what}");
            let (mut mean, mut tallies) = (vec![0.0f64; h.len()], [Tally::default(); 8]);
            for one in noise.chunks(noise.len() / SAMPLES) {
                let found = run(one).0;
                mean.iter_mut().zip(&found.gradient).for_each(|(m, g)| *m += *g as f64 / SAMPLES as f64);
                tallies.iter_mut().zip(&found.tallies).for_each(|(all, one)| all.merge(one));
            }
            let close = mean.iter().zip(&all.gradient).all(|(m, g)| (m - *g as f64).abs() < 1e-5 * (1.0 + m.abs()));
            assert!(close, "{what}");
            for (one, all) in tallies.iter().zip(&all.tallies) {
                assert!(one.count == all.count && (one.sum - all.sum).abs() < 1e-9 * (1.0 + all.sum.abs()), "{what}");
            }
        }
    }
}

/// Neither the number of threads nor whether an engine lets loops use them is seen in a single bit.
#[test]
fn results_do_not_depend_on_threads() {
    const SAMPLES: usize = 2;
    for (structure, h, losses) in batches() {
        for (name, settings, estimator) in all(&structure) {
            let noise = noise(&*estimator, &structure, SAMPLES);
            let run = |threads: usize, parallel: bool| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut oracle = Closure::new(&structure, |b, code| losses[b].of(code));
                    let (mut gradient, mut memory) = (vec![0.0; h.len()], Memory::default());
                    let by_hand = ByHand { samples: SAMPLES, scale: 1.0 / SAMPLES as f32, parallel, first: 0 };
                    let inputs = (&h[..], &noise[..]);
                    let (memory, gradient) = (&mut memory, &mut gradient[..]);
                    let (tallies, _) =
                        piece(&*estimator, &structure, inputs, &by_hand, &mut oracle, memory, gradient).unwrap();
                    let bits: Vec<u32> = gradient.iter().map(|g| g.to_bits()).collect();
                    let (assignments, moved) = (memory.assignments.clone(), memory.moved.clone());
                    (bits, assignments, moved, tallies, oracle.followed)
                })
            };
            let one = run(1, true);
            assert!(one == run(3, true) && one == run(3, false), "{name}, {settings:?}, {structure:?}");
        }
    }

    // Many values of one variable, and more examples than a thread takes at once.
    let structure: AnyStructure = Categorical::new(50).unwrap().into();
    let (batch, entries) = (1000, estimators());
    let (h, losses, noise) = (random(50 * batch, 1.0, 1), random(50 * batch, 3.0, 2), random(50 * batch, 1.0, 3));
    for name in ["direct", "exact"] {
        let entry = entries.get(name).unwrap();
        let estimator = entry.build(&Settings::defaults(entry.settings()), &structure).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let at = |b: usize, code: &[f32]| losses[50 * b + code.iter().position(|c| *c == 1.0).unwrap()];
                let mut oracle = Closure::new(&structure, at);
                let found = estimate(&*estimator, &structure, &h, &noise, &mut oracle).unwrap();
                (found, oracle.followed)
            })
        };
        assert!(run(1) == run(3), "{name}");
    }
}

/// What a structure needs of sums, an estimator does not ask for: the registry says who cannot have which latent.
#[test]
fn latents_are_refused_by_those_that_cannot_have_them() {
    let pairs: AnyStructure = Pairwise::new(4).unwrap().into();
    assert!(pairs.tractable().is_ok() && pairs.block(0).is_none());
    let large: AnyStructure = Categorical::binary(16).unwrap().into();
    for entry in estimators().iter() {
        let settings = Settings::defaults(entry.settings());
        let needs_independence = ["gumbel-softmax", "straight-through", "local-expectation"].contains(&entry.name());
        assert_eq!(entry.build(&settings, &pairs).is_err(), needs_independence, "{}", entry.name());
        let enumerates = ["exact", "marginal"].contains(&entry.name());
        assert_eq!(entry.build(&settings, &large).is_err(), enumerates, "{}", entry.name());
    }
}
