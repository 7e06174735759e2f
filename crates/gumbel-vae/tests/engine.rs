//! The engine's contract: questions, state, and what it refuses.

mod common;
#[path = "../src/testing.rs"]
mod testing;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use common::{BATCH, PIXELS, Pictures, engine, engine_with, images, noise, tensor, uniform, values};
use gumbel::Error;
use gumbel::continuous::Draw;
use gumbel::engine::{Engine, ModelOptions, Shape, StepOptions};
use gumbel::estimator::{Direct, Estimator, Exact, GumbelSoftmax, Piece, Search};
use gumbel::likelihood::{Bernoulli, Likelihood};
use gumbel::noise::Noise;
use gumbel::oracle::{Followed, Oracle, Questions};
use gumbel::registry::{Kind, Setting, Settings};
use gumbel::structure::{AnyStructure, Categorical, Pairwise, Permutation, Structure, Subset, Sums};
use gumbel_vae::Autodiff;
use gumbel_vae::model::{Decoder, Encoded, Encoder, Mlp};
use std::sync::{Arc, Mutex};
use testing::{Gaussian, Quartic};

const ALL: [u32; BATCH] = [0, 1, 2, 3, 4, 5, 6];

fn structures() -> [AnyStructure; 4] {
    [
        Categorical::new(5).unwrap().into(),
        Categorical::product(3, 2).unwrap().into(),
        Subset::new(5, 2).unwrap().into(),
        Pairwise::new(4).unwrap().into(),
    ]
}

fn likelihoods() -> [Arc<dyn Likelihood>; 3] {
    [Arc::new(Bernoulli), Arc::new(Quartic), Arc::new(Gaussian)]
}

fn options(noise: &Noise, samples: usize) -> StepOptions<'_> {
    StepOptions::discrete(0.0, noise, samples)
}

/// Losses of images at codes, each decoded for itself.
fn plain(engine: &Autodiff<Mlp, Mlp>, x: &[f32], of: &[u32], codes: &[f32]) -> Vec<f32> {
    let u = engine.structure().unary();
    let one = |(b, code): (&u32, &[f32])| {
        let outputs = values(engine.decoder().outputs(tensor(code.to_vec(), [1, u])));
        let mut loss = [0.0];
        engine.likelihood().losses(&outputs, &x[*b as usize * PIXELS..][..PIXELS], 1, &mut loss);
        loss[0]
    };
    of.iter().zip(codes.chunks(u)).map(one).collect()
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{i}: {a}, not {b}");
    }
}

#[test]
fn questions_are_answered_for_the_images_that_are_named() {
    for (structure, likelihood) in structures().iter().flat_map(|s| likelihoods().map(|l| (s, l))) {
        let (mut engine, x) = (engine_with(structure.clone(), &[9], likelihood), images());
        let (reference, pictures) =
            (engine_with(structure.clone(), &[9], engine_likelihood(&engine)), Pictures::new(&x));
        let (n, u, states) = (structure.variables(), structure.unary(), structure.states().unwrap());
        for of in [&ALL[..], &[3], &[5, 0, 0, 6], &[0, 0, 0, 4, 4, 4], &[]] {
            // A batch in another order than the images': places, not indices, are named.
            let order: Vec<u32> = ALL.iter().rev().copied().collect();
            let named: Vec<u32> = of.iter().map(|b| order[*b as usize]).collect();
            let mut z = vec![0; of.len() * n];
            z.chunks_mut(n).enumerate().for_each(|(i, z)| structure.state(i * 3 % states, z));
            let mut codes = vec![0.0; of.len() * u];
            z.chunks(n).zip(codes.chunks_mut(u)).for_each(|(z, code)| structure.encode(z, code));
            let asked = engine.ask(&pictures, &order, Draw::Mean).unwrap();
            assert_eq!(asked.potentials.len(), BATCH * structure.potentials());
            let mut oracle = asked.oracle;

            let mut losses = vec![f32::NAN; of.len()];
            oracle.losses(of, &z, &mut losses).unwrap();
            let expected = plain(&reference, &x, &named, &codes);
            assert_near(&losses, &expected, 1e-5);

            let (mut own, mut around) = (vec![f32::NAN; of.len()], vec![f32::NAN; of.len() * u]);
            oracle.around(of, &z, &mut own, &mut around).unwrap();
            assert_near(&own, &expected, 1e-5);
            for (i, (code, around)) in codes.chunks(u).zip(around.chunks(u)).enumerate() {
                let (kind, mut changed) = (structure.code(), vec![]);
                kind.for_each_change(code, |change| {
                    let mut next = code.to_vec();
                    change.off.into_iter().for_each(|u| next[u] = 0.0);
                    change.on.into_iter().for_each(|u| next[u] = 1.0);
                    changed.extend(plain(&reference, &x, &named[i..=i], &next));
                });
                let mut near = vec![f32::NAN; u];
                kind.neighbour_losses(code, expected[i], &changed, &mut near);
                assert_near(around, &near, 1e-5);
            }

            // Before and after all images were asked about.
            for _ in 0..2 {
                let mut all = vec![f32::NAN; of.len() * states];
                oracle.states(of, &mut all).unwrap();
                for (s, i) in (0..states).flat_map(|s| (0..of.len()).map(move |i| (s, i))) {
                    let (mut z, mut code) = (vec![0; n], vec![0.0; u]);
                    structure.state(s, &mut z);
                    structure.encode(&z, &mut code);
                    let expected = plain(&reference, &x, &named[i..=i], &code);
                    assert_near(&all[i * states + s..][..1], &expected, 1e-5);
                }
                oracle.states(&ALL, &mut vec![0.0; BATCH * states]).unwrap();
            }
        }
    }
}

fn engine_likelihood(engine: &Autodiff<Mlp, Mlp>) -> Arc<dyn Likelihood> {
    let name = engine.likelihood().name();
    likelihoods().into_iter().find(|l| l.name() == name).unwrap()
}

#[test]
fn slopes_are_those_of_finite_differences_at_hard_and_relaxed_codes() {
    for (structure, likelihood) in structures().iter().flat_map(|s| likelihoods().map(|l| (s, l))) {
        let (mut engine, x) = (engine_with(structure.clone(), &[9], likelihood), images());
        let reference = engine_with(structure.clone(), &[9], engine_likelihood(&engine));
        let u = structure.unary();
        let of = [2, 2, 0, 6];
        let mut codes = uniform(of.len() * u, 4);
        codes[..u].fill(0.0);
        codes[0] = 1.0;
        let pictures = Pictures::new(&x);
        let mut oracle = engine.ask(&pictures, &ALL, Draw::Mean).unwrap().oracle;
        let (mut losses, mut slopes) = (vec![f32::NAN; of.len()], vec![f32::NAN; of.len() * u]);
        oracle.slopes(&of, &codes, &mut losses, &mut slopes).unwrap();
        assert_near(&losses, &plain(&reference, &x, &of, &codes), 1e-5);
        let step = 1.0 / 256.0;
        let mut kinks = 0;
        for i in 0..codes.len() {
            let at = |d: f32| {
                let mut moved = codes.clone();
                moved[i] += d;
                plain(&reference, &x, &of, &moved)[i / u] as f64
            };
            let (ahead, back) = (at(step) - at(0.0), at(0.0) - at(-step));
            // A kink of a ReLU between the three, or none.
            if (ahead - back).abs() > 0.02 * step as f64 {
                kinks += 1;
                continue;
            }
            let numeric = (ahead + back) / (2.0 * step as f64);
            assert!((numeric - slopes[i] as f64).abs() < 2e-2, "{structure:?} {i}: {numeric}, not {}", slopes[i]);
        }
        assert!(kinks < codes.len() / 3 && slopes.iter().any(|s| s.abs() > 0.1), "{kinks} kinks of {}", codes.len());
    }
}

#[test]
fn questions_of_wrong_lengths_are_refused() {
    let mut engine = engine(Categorical::product(3, 2).unwrap(), &[9]);
    let pictures = Pictures::new(&images());
    let mut oracle = engine.ask(&pictures, &ALL, Draw::Mean).unwrap().oracle;
    let mut out = [0.0; 24];
    assert!(matches!(oracle.losses(&[0], &[0, 0], &mut out[..1]), Err(Error::Length { .. })));
    assert!(matches!(oracle.losses(&[0], &[0; 3], &mut out[..2]), Err(Error::Length { .. })));
    let message = oracle.losses(&[7], &[0; 3], &mut out[..1]).unwrap_err().to_string();
    assert_eq!(message, "image 7 of a batch of 7 was asked about");
    assert!(matches!(oracle.around(&[0], &[0; 3], &mut [0.0; 1], &mut out[..5]), Err(Error::Length { .. })));
    assert!(matches!(oracle.states(&[0], &mut out[..7]), Err(Error::Length { .. })));
    assert!(matches!(oracle.slopes(&[0], &[0.0; 5], &mut [0.0; 1], &mut out[..6]), Err(Error::Length { .. })));
    drop(oracle);
    assert!(engine.ask(&pictures, &[7], Draw::Mean).is_err() && engine.ask(&pictures, &[], Draw::Mean).is_err());
    assert!(engine.means(&[0.0; 5], &mut [0.0; PIXELS]).is_err());
    assert!(engine.means(&[0.0; 6], &mut [0.0; PIXELS + 1]).is_err());
    engine.means(&[], &mut []).unwrap();

    let mut engine = common::engine(Permutation::new(20).unwrap(), &[9]);
    let mut oracle = engine.ask(&pictures, &ALL, Draw::Mean).unwrap().oracle;
    assert!(matches!(oracle.states(&[0], &mut out), Err(Error::TooManyStates { limit: 65536, .. })));
}

#[test]
fn means_are_those_of_the_likelihood() {
    let mut engine = engine(Categorical::product(3, 2).unwrap(), &[9]);
    let (codes, mut means) = (uniform(5 * 6, 3), vec![f32::NAN; 5 * PIXELS]);
    engine.means(&codes, &mut means).unwrap();
    let outputs = values(engine.decoder().outputs(tensor(codes, [5, 6])));
    let expected: Vec<f32> = outputs.iter().map(|t| 1.0 / (1.0 + (-t).exp())).collect();
    assert_near(&means, &expected, 1e-6);
}

/// Score function with a learned baseline: what an estimator learns passes through the engine.
struct Baseline {
    value: f32,
    seen: Vec<Vec<f32>>,
}

impl<S: Structure> Estimator<S> for Baseline {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn sums(&self) -> usize {
        2
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (p, n, of) = (piece.structure.potentials(), piece.structure.variables(), piece.of);
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            let (z, weights) = (piece.memory.assignments.clone(), vec![piece.scale; of.len()]);
            let mut losses = vec![0.0; of.len()];
            oracle.losses(of, &z, &mut losses)?;
            oracle.follow(Followed::Assignments { row: sample, assignments: &z, weights: &weights })?;
            for (b, loss) in losses.iter().enumerate() {
                let weight = piece.scale * (loss - self.value);
                piece.structure.add_statistics(&z[b * n..][..n], weight, &mut piece.gradient[b * p..][..p]);
                piece.sums[0] += loss;
                piece.sums[1] += 1.0;
            }
        }
        Ok(())
    }

    fn learn(&mut self, sums: &[f32]) {
        self.value += 0.5 * (sums[0] / sums[1] - self.value);
        self.seen.push(sums.to_vec());
    }
}

#[test]
fn an_estimator_learns_from_what_it_summed() {
    let samples = 3;
    for structure in structures() {
        let (mut engine, pictures) = (engine(structure, &[9]), Pictures::new(&images()));
        let mut baseline = Baseline { value: 0.0, seen: vec![] };
        for step in 0..3 {
            let noise = noise(step);
            let before = engine.gradients(&pictures, &ALL, &baseline, &options(&noise, samples)).unwrap();
            assert_eq!((before.sums[1], baseline.seen.len()), ((BATCH * samples) as f32, step as usize));
            // The reconstruction is the mean of the same losses.
            assert!((before.sums[0] as f64 / before.sums[1] as f64 - before.report.reconstruction).abs() < 1e-4);
            let report = engine.step(&pictures, &ALL, &mut baseline, &options(&noise, samples)).unwrap();
            assert_eq!((report, &before.sums), (before.report, &baseline.seen[step as usize]));
        }
        assert!(baseline.value > 1.0);
    }
}

/// Follows a hard row that it has asked about, one that it has not, and a relaxed row between them, each with weights
/// of its own, and keeps the slopes that come back.
struct Slopes {
    rows: [Vec<f32>; 3],
    z: [Vec<u32>; 2],
    weights: Vec<f32>,
    found: Mutex<Vec<f32>>,
}

impl<S: Structure> Estimator<S> for Slopes {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES.and(Questions::SLOPES)
    }

    fn rows(&self, _: usize) -> usize {
        4 // one of them is not followed
    }

    fn wants_slopes(&self) -> bool {
        true
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        oracle.losses(piece.of, &self.z[0], &mut [0.0; BATCH])?;
        let weights = |row: usize| &self.weights[row * BATCH..][..BATCH];
        oracle.follow(Followed::Assignments { row: 3, assignments: &self.z[0], weights: weights(0) })?;
        oracle.follow(Followed::Codes { row: 0, codes: &self.rows[1], weights: weights(1) })?;
        oracle.follow(Followed::Assignments { row: 1, assignments: &self.z[1], weights: weights(2) })
    }

    fn resume(&self, piece: &mut Piece<'_, S>, slopes: gumbel::estimator::Slopes<'_>) -> Result<(), Error> {
        let (count, u) = (piece.count(), piece.structure.unary());
        *self.found.lock().unwrap() = (0..4).flat_map(|row| slopes.row(row, count, u).to_vec()).collect();
        Ok(())
    }
}

#[test]
fn slopes_come_back_row_by_row_with_their_weights() {
    for (structure, likelihood) in structures().iter().flat_map(|s| likelihoods().map(|l| (s, l))) {
        let (mut engine, pictures) = (engine_with(structure.clone(), &[9], likelihood), Pictures::new(&images()));
        let (n, u, states) = (structure.variables(), structure.unary(), structure.states().unwrap());
        let draw = |step: usize| {
            let (mut z, mut codes) = (vec![0; BATCH * n], vec![0.0; BATCH * u]);
            for (b, (z, code)) in z.chunks_mut(n).zip(codes.chunks_mut(u)).enumerate() {
                structure.state((b * step + 1) % states, z);
                structure.encode(z, code);
            }
            (z, codes)
        };
        let ((first, first_codes), (second, second_codes)) = (draw(2), draw(3));
        let estimator = Slopes {
            rows: [first_codes, uniform(BATCH * u, 8), second_codes],
            z: [first, second],
            weights: uniform(3 * BATCH, 9),
            found: Mutex::default(),
        };
        let found = engine.gradients(&pictures, &ALL, &estimator, &options(&noise(0), 1)).unwrap();
        let mut oracle = engine.ask(&pictures, &ALL, Draw::Mean).unwrap().oracle;
        let (mut expected, mut reconstruction) = (vec![0.0; 4 * BATCH * u], 0.0);
        for (row, (codes, weights)) in
            [3, 0, 1].into_iter().zip(estimator.rows.iter().zip(estimator.weights.chunks(BATCH)))
        {
            let (mut losses, slopes) = (vec![0.0; BATCH], &mut expected[row * BATCH * u..][..BATCH * u]);
            oracle.slopes(&ALL, codes, &mut losses, slopes).unwrap();
            slopes.chunks_mut(u).zip(weights).for_each(|(s, w)| s.iter_mut().for_each(|s| *s *= w));
            reconstruction += losses.iter().zip(weights).map(|(l, w)| (l * w) as f64).sum::<f64>();
        }
        assert_near(&estimator.found.lock().unwrap(), &expected, 1e-5);
        assert!((found.report.reconstruction - reconstruction).abs() < 1e-3);
    }
}

/// Several samples are the mean of several steps, each with the noise of one.
#[test]
fn samples_are_averaged() {
    for structure in structures() {
        let (mut engine, pictures) = (engine(structure.clone(), &[9]), Pictures::new(&images()));
        let estimators: [Box<dyn Estimator>; 3] = [
            Box::new(Direct::new(0.7).unwrap()),
            Box::new(Search::new(Direct::new(0.7).unwrap())),
            Box::new(GumbelSoftmax::new(0.7).unwrap()),
        ];
        for (which, estimator) in estimators.iter().enumerate() {
            if which == 2 && !structure.is_independent() {
                continue;
            }
            let all = engine.gradients(&pictures, &ALL, &**estimator, &options(&noise(9), 3)).unwrap();
            let mut sum: Vec<Vec<f32>> = all.gradients.all().map(|p| vec![0.0; p.values.len()]).collect();
            let mut reconstruction = 0.0;
            for sample in 0..3u64 {
                let noise = noise(9).at(sample * (BATCH * structure.unary()) as u64);
                let one = engine.gradients(&pictures, &ALL, &**estimator, &options(&noise, 1)).unwrap();
                reconstruction += one.report.reconstruction / 3.0;
                for (sum, one) in sum.iter_mut().zip(one.gradients.all()) {
                    sum.iter_mut().zip(&one.values).for_each(|(s, v)| *s += v / 3.0);
                }
            }
            assert!((reconstruction - all.report.reconstruction).abs() < 1e-5);
            all.gradients.all().zip(&sum).for_each(|(p, sum)| assert_near(&p.values, sum, 1e-5));
        }
    }
}

#[test]
fn a_stored_state_is_gone_on_with_to_the_bit() {
    let pictures = Pictures::new(&images());
    let train = |engine: &mut Autodiff<Mlp, Mlp>, steps: std::ops::Range<u64>| {
        for step in steps {
            let mut direct = Direct::new(1.0).unwrap();
            let noise = noise(step);
            let options = StepOptions::discrete(0.5, &noise, 2);
            if step % 2 == 0 {
                engine.prepare(&pictures, &ALL).unwrap();
            }
            engine.step(&pictures, &ALL, &mut direct, &options).unwrap();
        }
        engine.snapshot()
    };
    for structure in structures() {
        let mut one = engine(structure.clone(), &[9, 8]);
        let start = one.snapshot();
        assert_eq!(
            (start.moments.len(), start.steps, start.parameters.count()),
            (0, 0, {
                let (p, u) = (structure.potentials(), structure.unary());
                (PIXELS * 9 + 9 + 9 * 8 + 8 + 8 * p + p) + (u * 9 + 9 + 9 * 8 + 8 + 8 * PIXELS + PIXELS)
            })
        );
        let middle = train(&mut one, 0..3);
        let end = train(&mut one, 3..6);
        assert_eq!((middle.moments.len(), middle.steps, end.steps), (12, 3, 6));
        let mut other = engine(structure.clone(), &[9, 8]);
        train(&mut other, 7..8);
        other.restore(&middle).unwrap();
        assert_eq!(other.snapshot(), middle);
        assert!(train(&mut other, 3..6) == end);

        // What does not fit changes nothing.
        let mut wrong = start.clone();
        wrong.parameters.decoder[1].values.pop();
        assert!(other.restore(&wrong).unwrap_err().to_string().contains("in place of parameter layers.0.bias"));
        let mut wrong = middle.clone();
        wrong.moments[3].first.pop();
        assert_eq!(other.restore(&wrong).unwrap_err().to_string(), "moments of another model");
        let mut wrong = start.clone();
        wrong.parameters.encoder.extend(wrong.parameters.decoder.clone());
        assert!(other.restore(&wrong).unwrap_err().to_string().contains("one parameter too many"));
        assert!(other.snapshot() == end);
    }
}

/// What evaluations keep of the decoder belongs to its present parameters.
#[test]
fn answers_follow_the_parameters() {
    let (mut engine, pictures) = (engine(Categorical::product(2, 3).unwrap(), &[9]), Pictures::new(&images()));
    let ask = |engine: &mut Autodiff<Mlp, Mlp>| {
        let mut losses = vec![0.0; BATCH * 9];
        engine.ask(&pictures, &ALL, Draw::Mean).unwrap().oracle.states(&ALL, &mut losses).unwrap();
        losses
    };
    let (start, first) = (engine.snapshot(), ask(&mut engine));
    engine.step(&pictures, &ALL, &mut Exact, &options(&noise(0), 1)).unwrap();
    assert_ne!(ask(&mut engine), first);
    engine.restore(&start).unwrap();
    assert_eq!(ask(&mut engine), first);
}

#[test]
fn a_loss_that_is_not_finite_ends_the_step_and_changes_nothing() {
    for structure in structures() {
        let (mut engine, pictures) = (engine(structure, &[9]), Pictures::new(&images()));
        let mut broken = engine.snapshot();
        broken.parameters.decoder[3].values[5] = f32::INFINITY;
        engine.restore(&broken).unwrap();
        let mut relaxed = GumbelSoftmax::new(1.0).unwrap();
        let mut direct = Direct::new(1.0).unwrap();
        let independent = engine.structure().is_independent();
        let estimator: &mut dyn Estimator = if independent { &mut relaxed } else { &mut direct };
        let message = engine.step(&pictures, &ALL, estimator, &options(&noise(0), 1)).unwrap_err().to_string();
        assert!(message.contains("loss"), "{message}");
        assert!(engine.snapshot() == broken);
    }
}

/// An encoder that also emits continuous parameters, and one of the wrong width.
#[derive(Module, Debug)]
struct Odd {
    inner: Mlp,
    continuous: bool,
}

impl Encoder for Odd {
    fn encode(&self, images: Tensor<2>, dropout: Option<&Noise>) -> Encoded {
        let potentials = self.inner.encode(images, dropout).potentials;
        let continuous = self.continuous.then(|| potentials.clone());
        Encoded { potentials, continuous }
    }
}

#[test]
fn models_that_do_not_fit_say_why() {
    let (device, structure) = (Device::flex(), AnyStructure::from(Categorical::new(4).unwrap()));
    let pictures = Pictures::new(&images());
    let model = |potentials: usize, pixels: usize, continuous: bool| {
        let encoder = Odd { inner: Mlp::new(&[PIXELS, potentials], 1, 0, &device), continuous };
        let decoder = Mlp::new(&[4, pixels], 1, 1, &device);
        Autodiff::new(encoder, decoder, structure.clone(), Arc::new(Bernoulli), 1e-3, &device)
    };
    for (potentials, pixels, continuous, expected) in [
        (4, PIXELS, true, "a row of the encoder's continuous parameters has 4 values: expected 0"),
        (5, PIXELS, false, "a row of the encoder's potentials has 5 values: expected 4"),
        (4, PIXELS + 1, false, "a row of the decoder's outputs has 24 values: expected 23"),
    ] {
        let mut engine = model(potentials, pixels, continuous);
        for estimator in [&mut Direct::new(1.0).unwrap() as &mut dyn Estimator, &mut GumbelSoftmax::new(1.0).unwrap()] {
            let error = engine.step(&pictures, &ALL, estimator, &options(&noise(0), 1)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
    model(4, PIXELS, false).step(&pictures, &ALL, &mut Exact, &options(&noise(0), 1)).unwrap();
}

/// An estimator that follows what it has not announced.
struct Surprise(bool);

impl<S: Structure> Estimator<S> for Surprise {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (z, weights) = (vec![0; piece.count() * piece.structure.variables()], vec![0.0; piece.count()]);
        match self.0 {
            true => oracle.follow(Followed::States(&weights)),
            false => oracle.follow(Followed::Assignments { row: 1, assignments: &z, weights: &weights }),
        }
    }
}

#[test]
fn what_was_not_announced_is_refused_and_nothing_followed_moves_nothing() {
    let (mut engine, pictures) = (engine(Categorical::product(3, 2).unwrap(), &[9]), Pictures::new(&images()));
    let mut found = |estimator: &dyn Estimator| engine.gradients(&pictures, &ALL, estimator, &options(&noise(0), 1));
    assert_eq!(found(&Surprise(true)).unwrap_err().to_string(), "all states are followed without notice");
    assert_eq!(found(&Surprise(false)).unwrap_err().to_string(), "row 1 is followed: expected one of 1");

    struct Nothing;
    impl<S: Structure> Estimator<S> for Nothing {
        fn questions(&self, _: &S) -> Questions {
            Questions::NONE
        }
        fn estimate(&self, _: &mut Piece<'_, S>, _: &mut dyn Oracle) -> Result<(), Error> {
            Ok(())
        }
    }
    let still = found(&Nothing).unwrap();
    assert!(still.report.reconstruction == 0.0 && still.gradients.all().all(|p| p.values.iter().all(|v| *v == 0.0)));
    let before = engine.snapshot();
    engine.step(&pictures, &ALL, &mut Nothing, &options(&noise(0), 1)).unwrap();
    assert_eq!(engine.snapshot().parameters, before.parameters);
}

const HIDDEN: Setting =
    Setting { name: "hidden", kind: Kind::Text, default: "9", value: "WIDTHS", help: "hidden layers" };

#[test]
fn models_are_made_from_options() {
    let structure: AnyStructure = Categorical::product(3, 2).unwrap().into();
    let (settings, estimator) = (Settings::defaults(&[HIDDEN]), Exact);
    let options = ModelOptions {
        continuous: gumbel::continuous::Continuous::None,
        settings: &settings,
        shape: Shape::grey(1, PIXELS),
        binary: true,
        structure: structure.clone(),
        likelihood: Arc::new(Bernoulli),
        estimator: &estimator,
        batch: BATCH,
        samples: 1,
        lr: 1e-3,
        seed: 3,
        threads: 1,
        engine: "auto",
        device: "cpu",
    };
    let mut made = gumbel_vae::perceptron(&options).unwrap();
    assert_eq!((made.name(), made.arithmetic().as_str()), ("autodiff", "burn flex"));
    assert_eq!(made.structure().potentials(), structure.potentials());
    let mut expected = engine(structure.clone(), &[9]);
    assert!(made.snapshot() == expected.snapshot());
    let pictures = Pictures::new(&images());
    let step = |engine: &mut dyn Engine| {
        engine.step(&pictures, &ALL, &mut Exact, &StepOptions::discrete(1.0, &noise(0), 1)).unwrap();
        engine.snapshot()
    };
    assert!(step(&mut *made) == step(&mut expected));

    // The first layer of the encoder belongs to the last of the decoder.
    let wide = Settings::defaults(&[HIDDEN]).with(&HIDDEN, "12,5").unwrap();
    let mut made = gumbel_vae::perceptron(&ModelOptions { settings: &wide, ..options.clone() }).unwrap();
    let shapes: Vec<Vec<usize>> = made.snapshot().parameters.all().step_by(2).map(|p| p.shape.clone()).collect();
    assert_eq!(shapes, [[PIXELS, 12], [12, 5], [5, 6], [6, 5], [5, 12], [12, PIXELS]]);

    let refused = |options: ModelOptions<'_>| gumbel_vae::perceptron(&options).err().unwrap().to_string();
    assert!(
        refused(ModelOptions { engine: "fused", ..options.clone() }).starts_with("engine = fused: expected auto or")
    );
    assert!(
        refused(ModelOptions { device: "tpu", ..options.clone() }).starts_with("device = tpu: expected one of cpu")
    );
    let huge = Settings::defaults(&[HIDDEN]).with(&HIDDEN, "65536,65536").unwrap();
    let message = refused(ModelOptions { settings: &huge, ..options.clone() });
    assert!(message.contains("at most 134217728 weights in a network"), "{message}");

    let mine = gumbel_vae::model("mine", "a model of one's own", &[], |options, device| {
        let (p, u) = (options.structure.potentials(), options.structure.unary());
        let pixels = options.shape.len();
        Ok((Mlp::new(&[pixels, p], options.seed, 0, device), Mlp::new(&[u, pixels], options.seed, 1, device)))
    });
    step(&mut *mine.build(&options).unwrap());
}

/// The KL reaches the potentials where the estimator does not take it, and nothing else.
#[test]
fn the_kl_is_exact_and_stands_at_the_encoder() {
    for structure in structures() {
        let (mut engine, pictures, noise) = (engine(structure.clone(), &[]), Pictures::new(&images()), noise(2));
        let mut with = |kl_weight| {
            let options = StepOptions::discrete(kl_weight, &noise, 1);
            engine.gradients(&pictures, &ALL, &Direct::new(1.0).unwrap(), &options).unwrap()
        };
        let (without, with) = (with(0.0), with(0.6));
        assert_eq!((without.report, &without.gradients.decoder), (with.report, &with.gradients.decoder));
        let p = structure.potentials();
        let potentials = engine.ask(&pictures, &ALL, Draw::Mean).unwrap().potentials;
        let mut expected = vec![0.0; p];
        for h in potentials.chunks(p) {
            structure.kl_to_uniform(h, 0.6 / BATCH as f32, &mut expected).unwrap();
        }
        // Of an encoder with one layer, the gradient at the bias is the sum over the batch.
        let bias = with.gradients.encoder[1].values.iter().zip(&without.gradients.encoder[1].values);
        let found: Vec<f32> = bias.map(|(a, b)| a - b).collect();
        assert_near(&found, &expected, 1e-5);
    }
    let order: AnyStructure = Permutation::new(3).unwrap().into();
    let (mut engine, pictures) = (engine(order, &[]), Pictures::new(&images()));
    let noise = noise(0);
    let options = StepOptions::discrete(1.0, &noise, 1);
    let error = engine.gradients(&pictures, &ALL, &Direct::new(1.0).unwrap(), &options).unwrap_err();
    assert!(error.to_string().contains("not tractable"), "{error}");
}
