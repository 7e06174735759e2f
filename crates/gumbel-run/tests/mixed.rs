//! Runs of models with Gaussian codes: what an evaluation says against quadrature, settings that cannot be, runs that
//! are killed.

#![cfg(feature = "burn")]

mod common;

use common::{Killed, same};
use gumbel::continuous::Draw;
use gumbel::engine::Images as _;
use gumbel::noise::{Noise, Purpose};
use gumbel_data::{Dataset, Split};
use gumbel_run::evaluate::{BoundKind, Protocol, evaluate};
use gumbel_run::folder::Start;
use gumbel_run::images::SplitImages;
use gumbel_run::train::{Observer, train};
use gumbel_run::{Config, Registry, stored};
use std::fs;

fn config(given: &[(&str, &str)]) -> Config {
    let small = [
        ("latent", "categorical:3"),
        ("hidden", "16"),
        ("head", "8"),
        ("part", "8"),
        ("shared", "8"),
        ("decoder-hidden", "16"),
        ("train-limit", "400"),
        ("eval-limit", "100"),
        ("eval-every", "1"),
        ("epochs", "2"),
        ("checkpoint-every", "3"),
    ];
    // The last value of a key counts.
    Config::new(&Registry::standard(), &[&small, given].concat()).unwrap()
}

fn data() -> Dataset {
    gumbel_data::glyphs(0, [400, 100, 100]).unwrap()
}

/// ln of the sum of exponentials.
fn ln_sum_exp(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + values.iter().map(|v| (v - most).exp()).sum::<f64>().ln()
}

/// Codes of one dimension: every integral by a sum over a grid, from what the engine says of potentials, codes and
/// pixels.
#[test]
fn bound_and_evidence_are_those_of_quadrature() {
    let data = data();
    // As it begins q is near the prior, and importance weights are good; later they have a tail, above the true value.
    for (continuous, lr) in ["rows:1", "joint:1"].into_iter().flat_map(|kind| [(kind, "0.001"), (kind, "0.000001")]) {
        let config = config(&[
            ("continuous", continuous),
            ("lr", lr),
            ("eval-codes", "400"),
            ("epochs", "8"),
            ("eval-every", "8"),
            ("eval-limit", "6"),
        ]);
        let folder = tempfile::tempdir().unwrap();
        train(&config, &data, folder.path(), Start::Fresh, &mut Silent).unwrap();
        let mut open = stored::open(&Registry::standard(), folder.path()).unwrap();
        let engine = &mut *open.engine;
        let count = 6;
        let images = SplitImages::new(&data, Split::Test, config.binarization(), 0);
        let batch: Vec<u32> = (0..count as u32).collect();
        let (h, means, kl) = {
            let mean = engine.ask(&images, &batch, Draw::Mean).unwrap();
            let codes = mean.codes.unwrap();
            (mean.potentials, codes.samples, codes.kl)
        };
        let noise = Noise::new(0, Purpose::User(0), 0);
        let drawn = engine.ask(&images, &batch, Draw::Sample(&noise)).unwrap().codes.unwrap().samples;
        let blocks = means.len() / count;
        // The deviation is what the sample has beside the mean.
        let deviations: Vec<f64> = (0..count)
            .flat_map(|b| {
                let mut n = vec![0.0f32; blocks];
                noise.at_row(b).normal(&mut n);
                let at = b * blocks;
                (0..blocks).map(|k| f64::from((drawn[at + k] - means[at + k]) / n[k])).collect::<Vec<_>>()
            })
            .collect();
        let pixels = 784;
        let mut x = vec![0.0; count * pixels];
        gumbel::engine::Images::fill(&images, &batch, &mut x).unwrap();
        // -ln p(x | z, c) at codes of a grid.
        const GRID: usize = 241;
        let grid: Vec<f64> = (0..GRID).map(|i| (i as f64 - 120.0) / 20.0).collect();
        let width = engine.inputs().width();
        let mut read = vec![0.0f32; 3 * GRID * width];
        for (row, input) in read.chunks_exact_mut(width).enumerate() {
            let (z, c) = (row / GRID, grid[row % GRID] as f32);
            if continuous == "rows:1" {
                input[z] = c;
            } else {
                (input[z], input[3]) = (1.0, c);
            }
        }
        let mut pixel_means = vec![0.0; 3 * GRID * pixels];
        engine.means(&read, &mut pixel_means).unwrap();
        let density =
            |c: f64, m: f64, s: f64| -0.5 * ((c - m) / s).powi(2) - s.ln() - 0.5 * (2.0 * std::f64::consts::PI).ln();
        let step: f64 = 0.05;
        let (mut bound, mut own_kl, mut nll) = (0.0, 0.0, 0.0);
        for b in 0..count {
            let x = &x[b * pixels..][..pixels];
            let loss: Vec<f64> = pixel_means
                .chunks_exact(pixels)
                .map(|means| {
                    let one =
                        |(m, x): (&f32, &f32)| if *x > 0.5 { f64::from(*m).ln() } else { (1.0 - f64::from(*m)).ln() };
                    -means.iter().zip(x).map(one).sum::<f64>()
                })
                .collect();
            let h: Vec<f64> = h[b * 3..][..3].iter().map(|h| f64::from(*h)).collect();
            let all = ln_sum_exp(&h);
            let mut terms = vec![];
            for z in 0..3 {
                let k = if blocks == 1 { 0 } else { z };
                let (m, s) = (f64::from(means[b * blocks + k]), deviations[b * blocks + k]);
                let q = (h[z] - all).exp();
                let expected: f64 =
                    (0..GRID).map(|i| density(grid[i], m, s).exp() * step * loss[z * GRID + i]).sum::<f64>();
                let code_kl = 0.5 * (m * m + s * s - 1.0) - s.ln();
                assert!((code_kl - f64::from(kl[b * blocks + k])).abs() < 1e-3 * code_kl.max(1.0), "{code_kl}");
                bound += q * (expected + code_kl + (h[z] - all) + 3f64.ln());
                own_kl += q * code_kl;
                terms
                    .extend((0..GRID).map(|i| density(grid[i], 0.0, 1.0) + step.ln() - loss[z * GRID + i] - 3f64.ln()));
            }
            nll -= ln_sum_exp(&terms);
        }
        let [bound, own_kl, nll] = [bound, own_kl, nll].map(|sum| sum / count as f64);
        let protocol = Protocol { importance: 2000, ..Protocol::new(&config) };
        let found = evaluate(engine, &images, Split::Test, count, None, &protocol).unwrap();
        assert_eq!((found.bound_kind, found.bound_samples), (BoundKind::Codes, Some(400)));
        assert!((found.bound - bound).abs() < 0.3, "{continuous}: bound {} {bound}", found.bound);
        assert!((found.codes_kl.unwrap() - own_kl).abs() < 0.01, "{continuous}: {:?} {own_kl}", found.codes_kl);
        let (above, begins) = (found.nll.unwrap() - nll, lr != "0.001");
        assert!(
            (-0.05..if begins { 0.05 } else { bound - nll }).contains(&above),
            "{continuous}: nll {above} above {nll}"
        );
        assert_eq!(found.nll_samples, Some(2000));
        assert!(bound > nll + if begins { 0.02 } else { 0.2 }, "{continuous}: nothing to compare: {bound} {nll}");
        let none = evaluate(engine, &images, Split::Test, count, None, &Protocol::new(&config)).unwrap();
        assert_eq!((none.nll, none.bound), (None, found.bound));

        // All codes are other codes, in every split.
        let valid = SplitImages::new(&data, Split::Valid, config.binarization(), 0);
        let mut bound = |codes| {
            let protocol = Protocol { codes, ..Protocol::new(&config) };
            evaluate(engine, &valid, Split::Valid, 2, None, &protocol).unwrap().bound
        };
        assert!((bound(512) - bound(256)).abs() > 1e-6);
    }
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let refused = |given: &[(&str, &str)]| {
        let error = Config::new(&Registry::standard(), given).unwrap_err();
        assert!(error.is_usage(), "{error}");
        error.to_string()
    };
    let message = refused(&[("continuous", "rows:4"), ("latent", "binary:15")]);
    assert!(message.contains("joint:D, or a latent of at most 1024 states"), "{message}");
    let message = refused(&[("continuous", "columns:4")]);
    assert!(message.contains("none, rows:D or joint:D"), "{message}");
    let message = refused(&[("continuous", "rows:4"), ("hidden", "")]);
    assert!(message.contains("at least one layer"), "{message}");
    let message = refused(&[("continuous", "rows:4"), ("dropout", "1")]);
    assert!(message.starts_with("dropout = 1: expected"), "{message}");
    let message = refused(&[("continuous", "rows:4"), ("shared", "70000")]);
    assert!(message.starts_with("shared = 70000: expected"), "{message}");
    for (key, value) in [
        ("continuous-kl-weight", "-1"),
        ("continuous-kl-weight", "1e39"),
        ("continuous-kl-min", "0"),
        ("continuous-kl-decay", "inf"),
    ] {
        let message = refused(&[("continuous", "joint:4"), (key, value)]);
        assert!(message.starts_with(key) && message.contains("expected"), "{message}");
    }
}

/// At every step as at the first one of a run whose weight is constantly that of the schedule; steps on labelled images
/// before the first epoch count.
#[test]
fn the_weight_of_the_codes_kl_falls() {
    let data = data();
    let batch: Vec<u32> = (0..100).collect();
    let after = |given: &[(&str, &str)], labelled: Option<u64>, step: u64| {
        let supervision =
            [("latent", "categorical:10"), ("continuous", "joint:3"), ("labels", "50"), ("supervision", "phases:9,2")];
        let config = config(&[&supervision, given].concat());
        let images = SplitImages::new(&data, Split::Train, config.binarization(), 1);
        let labels = gumbel_run::labels::draw(&config, &data, 400).unwrap();
        let trainer = gumbel_run::Trainer::new(&config, images.shape()).unwrap();
        let mut trainer = trainer.with_labels(labels).unwrap();
        match labelled {
            Some(step) => trainer.labelled_step(&images, step).unwrap(),
            None => drop(trainer.step(&images, &batch, step, 4).unwrap()),
        }
        trainer.engine.snapshot().parameters
    };
    let falling = [("continuous-kl-weight", "64"), ("continuous-kl-min", "2"), ("continuous-kl-decay", "0.25")];
    for (labelled, step) in [(Some(0), 0), (Some(3), 0), (None, 0), (None, 2), (None, 7)] {
        let step_of_all = labelled.unwrap_or(9 + step);
        let weight = (64.0 * (-0.25 * step_of_all as f64).exp()).max(2.0);
        let constant = [("continuous-kl-weight", &*weight.to_string())];
        assert!(after(&falling, labelled, step) == after(&constant, labelled, step), "{labelled:?}, {step}");
        let other = [("continuous-kl-weight", &*(1.5 * weight).to_string())];
        assert!(after(&falling, labelled, step) != after(&other, labelled, step), "{labelled:?}, {step}");
    }
}

/// Perceptrons with dropout and convolutions, with and without labels, one and three threads, killed and whole: the
/// same bits; and the pictures are there.
#[test]
fn runs_end_with_the_same_bits() {
    let data = data();
    for given in [
        [("continuous", "rows:4"), ("labels", "50"), ("supervision", "phases:9,2"), ("latent", "categorical:10")],
        [("continuous", "joint:5"), ("labels", "0"), ("kl", "on"), ("latent", "pairwise:4")],
        [("continuous", "joint:3"), ("model", "conv"), ("channels", "4"), ("latent", "binary:3")],
    ] {
        let falling = [("continuous-kl-weight", "30"), ("continuous-kl-decay", "0.2")];
        let config = config(&[&given[..], &falling].concat());
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let run = |name: &str, start, threads: usize, observer: &mut (dyn Observer + Send)| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(&config, &data, &at(name), start, observer).unwrap().summary)
        };
        let summary = run("whole", Start::Fresh, 1, &mut Silent).unwrap();
        assert!(summary.test.bound.is_finite() && summary.test.codes_kl.is_some(), "{given:?}");
        for picture in ["samples.png", "reconstructions.png"] {
            assert_eq!(&fs::read(at("whole").join(picture)).unwrap()[..8], b"\x89PNG\r\n\x1a\n");
        }
        for kill in [2, 5, 2] {
            let killed = || train(&config, &data, &at("killed"), Start::Resume, &mut Killed(kill));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(killed)).is_err(), "kill {kill}");
        }
        run("killed", Start::Resume, 3, &mut Silent);
        same(&at("whole"), &at("killed"));
    }
}

/// Says nothing, from any thread.
struct Silent;

impl Observer for Silent {}

/// Small pictures in colour with two attributes, which show in the red of their halves; some are not known.
fn faces(count: usize, seed: u64) -> gumbel_data::Images {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let (mut pixels, mut attributes) = (vec![], vec![]);
    for _ in 0..count {
        let marks = [next() % 2 == 0, next() % 2 == 0];
        for pixel in 0..16 {
            let red = if marks[pixel / 8] { 200 } else { 40 } + next() % 30;
            pixels.extend([red, 100 + next() % 30, next() % 30].map(|v| v as u8));
        }
        attributes.extend(marks.map(|mark| match (next() % 8, mark) {
            (0, _) => 0,
            (_, true) => 1,
            (_, false) => -1,
        }));
    }
    let attributes = gumbel_data::Attributes::new(vec!["Smiling".into(), "Male".into()], attributes).unwrap();
    gumbel_data::Images::with_channels(4, 4, 3, pixels, None).unwrap().with_attributes(Some(attributes)).unwrap()
}

/// Attributes with missing entries as labels of binary variables beside a Gaussian code, colour by the discretised
/// logistic likelihood, which is chosen by the kind of the pixels, and the bound in bits.
#[test]
fn attributes_are_learned_from_pictures_in_colour() {
    let given = [
        ("dataset", "celeba"),
        ("attributes", "Smiling,Male"),
        ("latent", "binary:2"),
        ("continuous", "joint:2"),
        ("labels", "200"),
        ("epochs", "30"),
        ("lr", "0.005"),
    ];
    let chosen = config(&given);
    assert_eq!((chosen.text("likelihood"), chosen.text("binarization")), ("logistic", "grey"));
    let combined = Config::new(&Registry::standard(), &given[..2]).unwrap();
    assert_eq!(combined.latent().text, "categorical:4");
    let data = Dataset::new("celeba", "made", vec![], [faces(400, 1), faces(100, 2), faces(100, 3)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("run");
    let summary = train(&chosen, &data, &at, Start::Fresh, &mut Silent).unwrap().summary.unwrap();
    let bits = summary.test.bits_per_dimension.unwrap();
    assert!((bits - summary.test.bound / (48.0 * std::f64::consts::LN_2)).abs() < 1e-9 && bits < 8.0, "{bits}");
    assert!(summary.test.accuracy.unwrap() > 0.9, "{:?}", summary.test.accuracy);
    // Three attributes are not two variables; one that the data do not have is named.
    let error = config(&[&given[..], &[("latent", "binary:3")]].concat());
    let error = gumbel_run::labels::draw(&error, &data, 400).unwrap_err();
    assert!(error.is_usage() && error.to_string().starts_with("labels = 200"), "{error}");
}
