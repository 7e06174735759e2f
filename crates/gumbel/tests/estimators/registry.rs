//! Every estimator of the registry, in every combination of its switches and choices, is tested by name.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Estimator, EstimatorEntry, KlTerm, Memory, Moment, Tally, estimate, estimators};
use gumbel::oracle::{Closure, Kept, Oracle};
use gumbel::registry::{Entry, Kind, Setting, Settings, Value};
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Code, Pairwise, SpanningTree, Structure, Subset, Sums, Tree,
    latents,
};

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
fn known(name: &str, settings: &Settings, h: &[f32], losses: &[f32], kl: f64) -> Mean {
    // The KL is inside with its weight: potentials are scaled where losses are added.
    let at = |shift: f64| {
        softmax64(h.iter().zip(losses).map(move |(h, l)| (1.0 + shift * kl) * *h as f64 + shift * *l as f64))
    };
    let unbiased = || {
        let q = at(0.0);
        let mean: f64 = q.iter().zip(losses).map(|(q, l)| q * *l as f64).sum();
        q.iter().zip(losses).map(|(q, l)| q * (*l as f64 - mean)).collect()
    };
    match name {
        "direct" => {
            let back = if settings.switch("two-sided") { START } else { 0.0 };
            let sided = at(back).iter().zip(at(-START)).map(|(a, b)| (a - b) / (back + START)).collect();
            // For one variable the separable loss is the true one, of which a search finds the arg max where it is
            // linear, and noise on the unary potentials is noise on every state.
            match (settings.text("joint"), settings.text("noise"), settings.switch("rao-blackwell")) {
                ("off", "unary", true) => Mean::Always(sided),
                ("off" | "search" | "flips", "unary", false) | ("exact", "unary" | "full", false) => Mean::Of(sided),
                ("search", "unary", true) => Mean::Of(at_the_end(h, losses, kl, &at(-START))),
                other => panic!("direct with joint and noise {other:?} has no test of its definition"),
            }
        }
        "exact" | "local-expectation" => Mean::Always(unbiased()),
        "marginal" => {
            let posterior = softmax64(losses.iter().map(|l| -*l as f64));
            Mean::Always(at(0.0).iter().zip(posterior).map(|(q, p)| q - p).collect())
        }
        // The loss is linear.
        "reinmax" => Mean::Of(unbiased()),
        "simple" | "softmax-trick" => Mean::Elsewhere(include_str!("sums.rs")),
        "gumbel-rao" | "decoupled-straight-through" => Mean::Elsewhere(include_str!("straight.rs")),
        "rebar" | "relax" | "direct-rebar" => Mean::Of(unbiased()),
        "reinforce" | "rloo" | "arm" | "disarm" | "arsm" | "perturbed" => Mean::Of(unbiased()),
        "vimco" => Mean::Of(of_pairs(h, losses)),
        "imle" | "adaptive-imle" => {
            if settings.text("imle-noise") != "gumbel" {
                return Mean::Elsewhere(include_str!("perturbations.rs"));
            }
            // Of a linear loss, which is direct optimisation; adaptive, at the ratio of the norms.
            let norm = |x: &[f32]| {
                let mean = x.iter().sum::<f32>() / x.len() as f32;
                x.iter().map(|x| (x - mean).powi(2) as f64).sum::<f64>().sqrt()
            };
            let lambda = if name == "imle" { settings.real("imle-lambda") } else { norm(h) / norm(losses) };
            let back = if settings.switch("two-sided") { lambda } else { 0.0 };
            Mean::Of(at(back).iter().zip(at(-lambda)).map(|(a, b)| (a - b) / (back + lambda)).collect())
        }
        "gumbel-softmax" | "straight-through" => Mean::Elsewhere(include_str!("relaxed.rs")),
        other => panic!("{other} is registered, but has no test of its mean or definition"),
    }
}

/// The derivative of minus the bound of two samples of one variable.
fn of_pairs(h: &[f32], losses: &[f32]) -> Vec<f64> {
    let q = softmax64(h.iter().map(|h| *h as f64));
    let w = |i: usize| (-losses[i] as f64).exp() / q[i];
    let mut mean = vec![0.0; h.len()];
    for (i, j) in (0..h.len()).flat_map(|i| (0..h.len()).map(move |j| (i, j))) {
        // The bound at a pair has the derivatives of its own weights, and of the pair's probability.
        let (share, bound) = (w(i) / (w(i) + w(j)), ((w(i) + w(j)) / 2.0).ln());
        for (at, term) in [(i, share - bound), (j, 1.0 - share - bound)] {
            let score = |k: usize| (k == at) as u8 as f64 - q[k];
            mean.iter_mut().enumerate().for_each(|(k, m)| *m += q[i] * q[j] * term * score(k));
        }
    }
    mean
}

/// The mean of the search's conditional expectation of one variable with a linear loss: `2 T_p - T_q / 2` with p half
/// way from q to where the search ends, which is distributed like `ends`. See estimator/search.rs.
fn at_the_end(h: &[f32], slopes: &[f32], kl: f64, ends: &[f64]) -> Vec<f64> {
    let kept = |keep: f64| softmax64(h.iter().map(move |h| keep * *h as f64));
    let (first, q) = (kept(1.0), kept(1.0 - START * kl));
    let t = |p: &[f64]| -> Vec<f64> {
        let moved = softmax64(p.iter().zip(slopes).map(|(p, s)| p.ln() - START * *s as f64));
        p.iter().zip(moved).map(|(p, m)| (p - m) / START).collect()
    };
    let whole = t(&q);
    let mut mean: Vec<f64> = (0..h.len()).map(|i| (first[i] - q[i]) / START - whole[i] / 2.0).collect();
    for (end, weight) in ends.iter().enumerate() {
        let p: Vec<f64> = q.iter().enumerate().map(|(i, q)| (q + (i == end) as u8 as f64) / 2.0).collect();
        mean.iter_mut().zip(t(&p)).for_each(|(m, t)| *m += weight * 2.0 * t);
    }
    mean
}

#[test]
fn every_registered_estimator_has_the_mean_that_it_is_known_for() {
    let built = have_their_means(0.0);
    // Every entry was built, and direct in all its forms.
    assert_eq!(built.len(), estimators().names().len(), "{built:?}");
    assert_eq!(built["direct"], FORMS);
}

/// The weight comes with the moment, as in training.
#[test]
fn every_registered_form_of_direct_has_its_mean_with_the_kl_inside() {
    let built = have_their_means(0.6);
    assert_eq!((built.len(), built["direct"]), (1, FORMS), "{built:?}");
}

/// Forms of direct for one variable: 2 sides x (off, Rao-Blackwell, exact, full), flips, the search, each with both
/// values of `first`, which only the search looks at; and the search with Rao-Blackwell, from slopes.
const FORMS: usize = 2 * (2 * 4 + 1 + 1) + 1;

/// How many forms of each estimator were tested; with a weight, those that take the KL.
fn have_their_means(kl_weight: f32) -> std::collections::BTreeMap<String, usize> {
    let mut built = have_their_means_of(4, kl_weight, &[]);
    let done: Vec<String> = built.keys().cloned().collect();
    // Those that are for two values only.
    built.append(&mut have_their_means_of(2, kl_weight, &done));
    built
}

/// The same for one variable with K values, but for some names.
fn have_their_means_of(k: usize, kl_weight: f32, done: &[String]) -> std::collections::BTreeMap<String, usize> {
    let structure: AnyStructure = Categorical::new(k).unwrap().into();
    let (h, losses) = (random(k, 1.0, 150), random(k, 2.0, 151));
    let loss = |code: &[f32]| code.iter().zip(&losses).map(|(c, l)| c * l).sum::<f32>();
    let (mut table, mut relaxed) = (Table::with_slopes(&structure, loss), Closure::new(&structure, |_, c| loss(c)));
    let mut built = std::collections::BTreeMap::<String, usize>::new();
    for (name, settings, mut estimator) in all(&structure) {
        if done.contains(&name) || kl_weight != 0.0 && estimator.kl(&structure) != KlTerm::Either {
            continue;
        }
        let oracle: &mut dyn Oracle = if RELAXED.contains(&name.as_str()) { &mut relaxed } else { &mut table };
        estimator.begin(&Moment { step: 0, kl_weight }).unwrap();
        *built.entry(name.clone()).or_default() += 1;
        let what = format!("{name}, {settings:?}, kl = {kl_weight}");
        match known(&name, &settings, &h, &losses, kl_weight as f64) {
            Mean::Of(expected) => {
                let samples = estimator.least_samples();
                let found = mean_of(&*estimator, &structure, &h, oracle, samples, 200_000, 152);
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
    built
}

/// What the registry's words say of a bias.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bias {
    /// It falls with a setting at this order.
    Falls(&'static str, i32),
    /// It is there at every setting.
    Stays,
    /// It is that of the loss's derivatives of this order, and of none below.
    Derivatives(i32),
}

/// An entry whose words are not known here has no test of its bias: write one.
fn bias_of(entry: &EstimatorEntry, settings: &Settings) -> Bias {
    let words = entry.in_words()[2];
    let two_sided = entry.settings().iter().any(|s| s.name == "two-sided") && settings.switch("two-sided");
    let order = if two_sided { 2 } else { 1 };
    match words {
        _ if words.starts_with("of order epsilon") => Bias::Falls("epsilon", order),
        _ if words.starts_with("of order lambda") => Bias::Falls("imle-lambda", order),
        _ if words.starts_with("of the relaxation, of order tau") => Bias::Falls("temperature", 1),
        _ if words.starts_with("does not vanish") || words.starts_with("that of straight-through") => Bias::Stays,
        _ if words.starts_with("as that of imle") => Bias::Stays,
        _ if words.starts_with("of the loss's second derivatives") => Bias::Derivatives(2),
        _ if words.starts_with("of the loss's third derivatives") => Bias::Derivatives(3),
        _ => panic!("{}: no test of a bias {words:?}", entry.name()),
    }
}

/// Whoever is said to be biased is, at two settings, and as it is said: the bias falls at its order, or stays, or is
/// that of derivatives of some order. A new entry is tried as soon as it is registered.
#[test]
fn all_others_are_biased_as_they_say() {
    const DRAWS: usize = 100_000;
    let (one, chain): (AnyStructure, AnyStructure) =
        (Categorical::new(3).unwrap().into(), Chain::new(3, 2).unwrap().into());
    for structure in [&one, &chain] {
        let h = potentials(structure, 250);
        // The loss is a polynomial of the code of this degree.
        let bend = Loss::new(structure, 0.7, 252);
        let (linear, cubic) = (random(structure.unary(), 1.0, 254), random(structure.unary(), 1.0, 256));
        let loss = |degree: i32, code: &[f32]| match degree {
            1 => 2.0 * code.iter().zip(&linear).map(|(c, a)| c * a).sum::<f32>(),
            2 => bend.of(code),
            _ => bend.of(code) + 1.5 * code.iter().zip(&cubic).map(|(c, a)| c * a).sum::<f32>().powi(3),
        };
        for entry in estimators().iter().filter(|entry| !entry.in_words()[2].starts_with("none")) {
            for settings in combinations(entry) {
                if entry.build(&settings, structure).is_err() {
                    continue;
                }
                let bias = bias_of(entry, &settings);
                let slopes = entry.name().contains("imle")
                    || entry.name() == "direct"
                        && settings.text("joint") == "search"
                        && settings.switch("rao-blackwell");
                // Direct optimisation of coupled variables is that of another distribution, and tested as such.
                if structure.variables() > 1 && (entry.name() == "direct" || entry.name().contains("imle")) {
                    continue;
                }
                // Distance of the mean from the gradient, and its standard error.
                let measured = |at: Option<(&str, f64)>, degree: i32| -> (f64, f64) {
                    let mut settings = settings.clone();
                    if let Some((key, value)) = at {
                        settings.set(key, Value::Real(value));
                        let least = format!("{key}-min");
                        if let Some(setting) = entry.settings().iter().find(|s| s.name == least) {
                            settings.set(setting.name, Value::Real(value));
                        }
                    }
                    let mut estimator = entry.build(&settings, structure).unwrap();
                    estimator.begin(&Moment { step: 0, kl_weight: 0.0 }).unwrap();
                    let mut table = Table::of(structure, |code| loss(degree, code));
                    let of_q = doubles(&exact(structure, &h, &mut table));
                    let mut oracle = Closure::new(structure, |_, code| loss(degree, code));
                    let samples = estimator.least_samples();
                    // The perturbed arg max of coupled variables is not q. Its gradient is the expectation of direct
                    // optimisation as epsilon falls, which has a test of its own.
                    let perturbed =
                        entry.in_words()[2].contains("of the perturbed arg max") && !structure.is_independent();
                    let (exact, own_error) = match perturbed {
                        true => {
                            let chosen = [("epsilon", "0.003"), ("joint", "off"), ("rao-blackwell", "true")];
                            let found = mean_of(
                                &*direct(structure, &chosen).unwrap(),
                                structure,
                                &h,
                                &mut table,
                                1,
                                DRAWS,
                                258,
                            );
                            (found.mean, found.error)
                        }
                        false => (of_q, vec![0.0; h.len()]),
                    };
                    if !estimator.is_random() {
                        let found = estimate(&*estimator, structure, &h, &[], &mut oracle).unwrap().gradient;
                        return (distance(&exact, &found), 1e-5);
                    }
                    let found = mean_of(&*estimator, structure, &h, &mut oracle, samples, DRAWS, 260);
                    let far = found.mean.iter().zip(&exact).map(|(m, e)| (m - e).powi(2)).sum::<f64>().sqrt();
                    let errors = found.error.iter().zip(&own_error);
                    (far, errors.map(|(e, o)| e.powi(2) + o.powi(2)).sum::<f64>().sqrt().max(1e-5))
                };
                let what = format!("{}, {settings:?} of {structure:?}, {bias:?}", entry.name());
                let is_there = |(far, error): (f64, f64)| far > 6.0 * error && far > 1e-3;
                match bias {
                    Bias::Falls(key, order) => {
                        // Where slopes stand for differences the loss is linear.
                        let degree = if slopes { 1 } else { 2 };
                        // A fourth: a bias of the second order has a sixteenth, as far as it is of that order alone.
                        let (far, least) = if order == 2 { (0.8, 6.0) } else { (1.2, 2.0) };
                        let [wide, narrow] = [far, far / 4.0].map(|at| measured(Some((key, at)), degree));
                        assert!(is_there(wide), "{what}: no bias at {far}: {wide:?}");
                        let falls = narrow.0 < wide.0 / least + 4.0 * (narrow.1 + wide.1);
                        assert!(falls, "{what}: {wide:?} at {far}, {narrow:?} at a fourth of it");
                    }
                    Bias::Stays => {
                        let key = entry.schedules().first().map(|schedule| schedule.name);
                        for value in [1.2, 0.3] {
                            let found = measured(key.map(|key| (key, value)), 3);
                            assert!(is_there(found), "{what}: no bias at {value}: {found:?}");
                        }
                    }
                    Bias::Derivatives(order) => {
                        let (below, at) = (measured(None, order - 1), measured(None, order));
                        assert!(below.0 < 6.0 * below.1, "{what}: {below:?} without such derivatives");
                        assert!(is_there(at), "{what}: {at:?} with such derivatives");
                    }
                }
            }
        }
    }
}

/// Whoever claims in the registry to have no bias is held to it, of several variables and of coupled ones, with a loss
/// that is no sum over coordinates. A new entry is tried as soon as it is registered.
#[test]
fn all_that_claim_no_bias_have_none_of_several_variables() {
    // As many as for one variable: ten seconds of one core for all.
    const DRAWS: usize = 200_000;
    let structures: [AnyStructure; 10] = [
        Categorical::new(2).unwrap().into(),
        Categorical::new(3).unwrap().into(),
        Categorical::new(5).unwrap().into(),
        Categorical::product(3, 2).unwrap().into(),
        Categorical::product(3, 3).unwrap().into(),
        Categorical::product(3, 5).unwrap().into(),
        Chain::new(3, 3).unwrap().into(),
        Subset::new(5, 2).unwrap().into(),
        Pairwise::new(4).unwrap().into(),
        // A forest: its first variable is independent, the others are not.
        Tree::new(3, 2, &[(1, 2)]).unwrap().into(),
    ];
    let entries = estimators();
    let mut tried = std::collections::BTreeMap::<&str, usize>::new();
    for (i, structure) in structures.iter().enumerate() {
        let h = potentials(structure, 200 + i as u64);
        let loss = Loss::new(structure, 0.5, 210 + 2 * i as u64);
        let of = |code: &[f32]| loss.of(code);
        let (mut table, mut relaxed) = (Table::with_slopes(structure, of), Closure::new(structure, |_, c| of(c)));
        let expected = doubles(&exact(structure, &h, &mut table));
        assert!(expected.iter().any(|e| e.abs() > 0.1), "{structure:?}: nothing to compare");
        for entry in entries.iter() {
            // marginal and vimco have objectives of their own; the perturbed arg max of coupled variables is not q.
            let bias = entry.in_words()[2];
            let other = bias.contains("another objective")
                || bias.contains("of the perturbed arg max") && !structure.is_independent();
            if !bias.starts_with("none") || other {
                continue;
            }
            for settings in combinations(entry) {
                let Ok(mut estimator) = entry.build(&settings, structure) else { continue };
                let oracle: &mut dyn Oracle = match RELAXED.contains(&entry.name()) {
                    true => &mut relaxed,
                    false => &mut table,
                };
                estimator.begin(&Moment { step: 0, kl_weight: 0.0 }).unwrap();
                *tried.entry(entry.name()).or_default() += 1;
                let what = format!("{}, {settings:?} of {structure:?}", entry.name());
                if !estimator.is_random() {
                    let found = estimate(&*estimator, structure, &h, &[], oracle).unwrap().gradient;
                    assert!(distance(&expected, &found) < 1e-4, "{what}: {found:?} {expected:?}");
                    continue;
                }
                let samples = estimator.least_samples();
                let found = mean_of(&*estimator, structure, &h, oracle, samples, DRAWS, 220 + i as u64);
                assert!(found.error.iter().any(|e| *e > 0.0), "{what}: nothing is random");
                assert_within_four_standard_errors(&what, &found, &expected);
                relaxed.followed.clear();
            }
        }
    }
    let claim = entries.iter().filter(|e| e.in_words()[2].starts_with("none"));
    let claim = claim.filter(|e| !e.in_words()[2].contains("another objective"));
    for entry in claim {
        assert!(tried.contains_key(entry.name()), "{} fits none of these structures: add one", entry.name());
    }
}

/// Some structures and potentials for a batch, with a loss for every example.
fn batches() -> Vec<(AnyStructure, Vec<f32>, Vec<Loss>)> {
    let structures: [AnyStructure; 7] = [
        Categorical::product(3, 4).unwrap().into(),
        Categorical::binary(4).unwrap().into(),
        Categorical::new(6).unwrap().into(),
        Pairwise::new(4).unwrap().into(),
        Subset::new(5, 2).unwrap().into(),
        SpanningTree::complete(4).unwrap().into(),
        Arborescence::new(4, 0).unwrap().into(),
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
                let of_first = |followed: &Kept| match followed {
                    Kept::Assignments { weights, .. } | Kept::Codes { weights, .. } => weights[0],
                    Kept::States(weights) => weights[..weights.len() / BATCH].iter().sum(),
                };
                let weight: f32 = oracle.followed.iter().map(of_first).sum();
                assert!((weight - 1.0).abs() < 1e-5, "{what}: the weights of an example sum to {weight}");
                (found, rows)
            };
            let (all, rows) = run(&noise);
            if !estimator.is_random() {
                assert_eq!(rows, 1);
                continue;
            }
            assert_eq!(rows, estimator.rows(SAMPLES), "{what}");
            if estimator.least_samples() > 1 {
                continue; // its samples are compared with each other
            }
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

/// Estimators for independent variables.
const INDEPENDENT: [&str; 10] = [
    "gumbel-softmax",
    "straight-through",
    "local-expectation",
    "reinmax",
    "gumbel-rao",
    "decoupled-straight-through",
    "rebar",
    "relax",
    "direct-rebar",
    "arsm",
];
/// Those that ask about relaxed codes.
const RELAXED: [&str; 3] = ["rebar", "relax", "direct-rebar"];
/// Those for independent binary variables.
const BINARY: [&str; 2] = ["arm", "disarm"];
/// Those for latents with sums.
const SUMS: [&str; 5] = ["reinforce", "rloo", "simple", "softmax-trick", "vimco"];
/// Those that perturb all potentials, and with them couplings that may have to keep their sign.
const ANY_SIGN: [&str; 1] = ["perturbed"];

/// What a structure needs of sums, an estimator does not ask for: the registry says who cannot have which latent.
#[test]
fn latents_are_refused_by_those_that_cannot_have_them() {
    let pairs: AnyStructure = Pairwise::new(4).unwrap().into();
    assert!(pairs.tractable().is_ok() && !pairs.is_independent());
    let large: AnyStructure = Categorical::binary(16).unwrap().into();
    for entry in estimators().iter() {
        let settings = Settings::defaults(entry.settings());
        let needs_independence = INDEPENDENT.contains(&entry.name()) || BINARY.contains(&entry.name());
        assert_eq!(entry.build(&settings, &pairs).is_err(), needs_independence, "{}", entry.name());
        let enumerates = ["exact", "marginal"].contains(&entry.name());
        assert_eq!(entry.build(&settings, &large).is_err(), enumerates, "{}", entry.name());
    }
}

/// A small one of every latent of the registry.
fn every_latent() -> Vec<(String, AnyStructure)> {
    let sized = |name: &str| match name {
        "categorical" => "categorical:3x4",
        "binary" => "binary:6",
        "pairwise" => "pairwise:5",
        "supermodular" => "supermodular:5",
        "chain" => "chain:4x3",
        "tree" => "tree:5x2",
        "subset" => "subset:6,3",
        "permutation" => "permutation:4",
        "spanning-tree" => "spanning-tree:4",
        "arborescence" => "arborescence:4",
        other => panic!("{other} is registered, but no small one is tried with the search"),
    };
    let registry = latents();
    let all = registry.names().into_iter().map(|name| (name.to_string(), registry.parse(sized(name)).unwrap()));
    all.map(|(name, latent)| (name, latent.structure)).collect()
}

/// Direct with some of its settings.
fn direct(structure: &AnyStructure, chosen: &[(&str, &str)]) -> Result<Box<dyn Estimator>, Error> {
    let entries = estimators();
    let entry = entries.get("direct")?;
    let mut settings = Settings::defaults(entry.settings());
    for (name, value) in chosen {
        let setting = entry.settings().iter().find(|s| s.name == *name).unwrap();
        settings = settings.with(setting, value)?;
    }
    entry.build(&settings, structure)
}

/// Swaps, exchanges and other parents too. The search itself is tested in search.rs; here, that the registry lets every
/// latent have it, and refuses what cannot be with a word about it.
#[test]
fn search_serves_every_latent_and_flips_those_of_one_hot_rows() {
    for (name, structure) in every_latent() {
        let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(&structure, 180 + b as u64)).collect();
        let losses: Vec<Loss> = (0..BATCH).map(|b| Loss::new(&structure, 0.5, 4000 + 2 * b as u64)).collect();
        let search = direct(&structure, &[("joint", "search")]).unwrap();
        let noise = noise(&*search, &structure, 1);
        let mut oracle = Closure::new(&structure, |b, code| losses[b].of(code));
        let found = estimate(&*search, &structure, &h, &noise, &mut oracle).unwrap();
        let names: Vec<_> = search.measures().iter().map(|m| m.name).collect();
        assert_eq!(names, ["zero_gradient_rate", "search_rows", "search_acceptance", "search_gain"]);
        let [zeros, rows, acceptance, gain, ..] = found.tallies.map(|t| t.mean());
        assert!(zeros > 0.0 && zeros < 1.0 && gain > 0.01, "{name}: {zeros} {gain}");
        assert!(rows > 2.0 && acceptance > 0.0 && acceptance <= 1.0, "{name}: {rows} {acceptance}");
        assert!(found.gradient.iter().any(|g| *g != 0.0) && found.gradient.iter().all(|g| g.is_finite()), "{name}");

        let refused = |chosen: &[(&str, &str)], word: &str| match direct(&structure, chosen) {
            Ok(_) => panic!("{name} with {chosen:?} is not refused"),
            Err(e) => assert!(e.to_string().contains(word), "{name}, {chosen:?}: {e}"),
        };
        let one_hot = structure.code() != Code::Indicators;
        match one_hot {
            true => drop(direct(&structure, &[("joint", "flips")]).unwrap()),
            false => refused(&[("joint", "flips")], "off, search or exact"),
        }
        for joint in ["off", "search"] {
            let rao = [("joint", joint), ("rao-blackwell", "true")];
            match structure.is_independent() || joint == "off" && one_hot {
                true => drop(direct(&structure, &rao).unwrap()),
                false => refused(&rao, if one_hot { "not independent" } else { "values of their own" }),
            }
        }
        refused(&[("joint", "search"), ("two-sided", "true")], "off or exact with two-sided");
        refused(&[("joint", "search"), ("noise", "full")], "joint = exact");
        refused(&[("joint", "search"), ("rounds", "0")], "at least 1");
        for only in [("rounds", "3"), ("halvings", "2")] {
            refused(&[("joint", "off"), only], "with joint = search");
            refused(&[("joint", "exact"), only], "with joint = search");
        }
        if structure.is_independent() {
            refused(&[("joint", "flips"), ("rao-blackwell", "true")], "off or search with rao-blackwell");
            refused(&[("joint", "exact"), ("rao-blackwell", "true")], "off or search with rao-blackwell");
            let rao = [("joint", "search"), ("first", "changes"), ("rao-blackwell", "true")];
            refused(&rao, "slopes with rao-blackwell");
            direct(&structure, &[("joint", "search"), ("rounds", "0"), ("rao-blackwell", "true")]).unwrap();
        }
    }
}

/// The settings that `rounds` and `halvings` are come to the search.
#[test]
fn rounds_and_halvings_of_the_registry_are_those_of_the_search() {
    let structure: AnyStructure = Categorical::binary(8).unwrap().into();
    let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(&structure, 190 + b as u64)).collect();
    let losses: Vec<Loss> = (0..BATCH).map(|b| Loss::new(&structure, 2.0, 5000 + 2 * b as u64)).collect();
    let rows = |chosen: &[(&str, &str)]| {
        let search = direct(&structure, &[&[("joint", "search")], chosen].concat()).unwrap();
        let noise = noise(&*search, &structure, 1);
        let mut oracle = Closure::new(&structure, |b, code| losses[b].of(code));
        let [_, rows, acceptance, ..] = estimate(&*search, &structure, &h, &noise, &mut oracle).unwrap().tallies;
        (rows.mean(), acceptance.sum)
    };
    let all = rows(&[]);
    let (one_round, no_halving) = (rows(&[("rounds", "1")]), rows(&[("halvings", "0")]));
    assert!(one_round.0 < all.0 && no_halving.0 < all.0, "{one_round:?} {no_halving:?} {all:?}");
    // One acceptance for each example at most; slopes once, and no more than a first proposal after an acceptance.
    assert!(one_round.1 <= BATCH as f64 && all.1 > BATCH as f64, "{one_round:?} {all:?}");
    assert!(rows(&[("rounds", "1"), ("halvings", "0")]).0 <= 3.0);
    // Nine passes for the losses of all changes of eight variables, in place of two.
    let by_changes = rows(&[("rounds", "1"), ("halvings", "0"), ("first", "changes")]).0;
    assert!((9.0..=10.0).contains(&by_changes), "{by_changes}");
}

/// The defaults that depend on the latent are values of their settings, and can be built with all that may be chosen.
#[test]
fn what_auto_says_can_be_built_for_every_latent() {
    for entry in estimators().iter() {
        for (name, structure) in every_latent() {
            let independent = structure.is_independent();
            let chosen: &[(&str, &str)] = &[
                ("epsilon", "0.3"),
                ("two-sided", "true"),
                ("rao-blackwell", "false"),
                ("joint", "off"),
                ("joint", "search"),
                ("first", "changes"),
                ("first", "slopes"),
                ("rounds", "3"),
                ("halvings", "2"),
                ("joint", "exact"),
                ("joint", "flips"),
                ("rao-blackwell", "true"),
                ("zero-gradient-target", "0.5"),
            ];
            let one_hot = structure.code() != Code::Indicators;
            let possible = chosen.iter().map(Some).filter(|c| match c {
                Some(("rao-blackwell", "true")) => independent,
                Some(("joint", "flips")) => one_hot,
                _ => true,
            });
            for chosen in possible.chain([None]) {
                let says = |of: &str| chosen.filter(|(name, _)| *name == of).map(|(_, value)| *value);
                let auto = entry.auto(&structure, &says);
                let names: Vec<_> = auto.iter().map(|(name, _)| *name).collect();
                assert_eq!(names, entry.auto_settings());
                let mut settings = Settings::defaults(entry.settings());
                let own = |name: &str| entry.settings().iter().find(|s| s.name == name).cloned();
                let mut set = |name: &str, value: &str| {
                    if let Some(setting) = own(name) {
                        settings.set(name, setting.parse(value).unwrap());
                    }
                };
                auto.iter().for_each(|(name, value)| set(name, value));
                chosen.iter().for_each(|(name, value)| set(name, value));
                let name_of = entry.name();
                let binary = independent && structure.unary() == 2 * structure.variables();
                let refuses = INDEPENDENT.contains(&name_of) && !independent
                    || BINARY.contains(&name_of) && !binary
                    || SUMS.contains(&name_of) && !structure.has_sums()
                    || ANY_SIGN.contains(&name_of) && !structure.takes_any_sign();
                match entry.build(&settings, &structure) {
                    Ok(_) => assert!(!refuses, "{name_of} of {name}"),
                    Err(_) if refuses => {}
                    Err(e) => panic!("{} of {name}, with {chosen:?}: {e}", entry.name()),
                }
            }
        }
    }
}
