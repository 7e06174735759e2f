//! The fused engine against the autodiff engine, which do not know each other: the same steps, the same answers.

#![cfg(feature = "burn")]

use gumbel::Error;
use gumbel::continuous::{Draw, KlWeights};
use gumbel::engine::{Engine, Images, ModelOptions, Shape, StepOptions, StepReport};
use gumbel::estimator::{Direct, Estimator, KlTerm, Moment, Piece, estimators};
use gumbel::likelihood::Bernoulli;
use gumbel::network::{Moments, Snapshot};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::{Followed, Oracle, Questions};
use gumbel::registry::{Entry, Settings, Value};
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Structure, Subset,
    Supermodular, Tree,
};
use gumbel_fused::{Fused, Isa};
use std::sync::Arc;

fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::User(0), 0).uniform(&mut x);
    x
}

/// Independent variables of all kinds, and one of every structure.
fn structures() -> Vec<AnyStructure> {
    vec![
        Categorical::new(2).unwrap().into(),
        Categorical::new(10).unwrap().into(),
        Categorical::new(37).unwrap().into(),
        Categorical::binary(9).unwrap().into(),
        Categorical::product(3, 4).unwrap().into(),
        Pairwise::new(1).unwrap().into(),
        Pairwise::new(8).unwrap().into(),
        Pairwise::new(17).unwrap().into(),
        Supermodular::new(8).unwrap().into(),
        Supermodular::new(15).unwrap().into(),
        Chain::new(4, 3).unwrap().into(),
        Tree::new(4, 5, &[(2, 0), (2, 3), (1, 3)]).unwrap().into(),
        Subset::new(20, 3).unwrap().into(),
        Permutation::new(4).unwrap().into(),
        SpanningTree::complete(5).unwrap().into(),
        Arborescence::new(5, 1).unwrap().into(),
    ]
}

/// A model and its batches.
struct Case {
    pixels: usize,
    hidden: &'static str,
    structure: AnyStructure,
    batch: usize,
    samples: usize,
    density: f32,
}

/// Its images.
struct Pictures {
    bytes: Vec<u8>,
    pixels: usize,
}

impl Images for Pictures {
    fn count(&self) -> usize {
        self.bytes.len() / self.pixels
    }

    fn shape(&self) -> Shape {
        Shape::grey(1, self.pixels)
    }

    fn key(&self) -> u64 {
        0
    }

    fn is_binary(&self) -> bool {
        true
    }

    fn fill(&self, indices: &[u32], out: &mut [f32]) -> Result<(), Error> {
        for (i, out) in indices.iter().zip(out.chunks_exact_mut(self.pixels)) {
            let image = &self.bytes[*i as usize * self.pixels..][..self.pixels];
            out.iter_mut().zip(image).for_each(|(o, b)| *o = *b as f32);
        }
        Ok(())
    }

    fn bytes(&self) -> Result<Vec<u8>, Error> {
        Ok(self.bytes.clone())
    }
}

impl Case {
    fn random(seed: u64) -> Self {
        let u = uniform(8, seed);
        let pick = |i: usize, from: &[usize]| from[(u[i] * from.len() as f32) as usize];
        let width = ["5", "16", "31", "48"][pick(0, &[0, 1, 2, 3])];
        let hidden = match (pick(1, &[1, 1, 2, 3]), width) {
            (1, width) => width,
            (2, "5") => "5,20",
            (2, "16") => "16,20",
            (2, "31") => "31,20",
            (2, _) => "48,20",
            (_, "5") => "5,7,33",
            (_, "16") => "16,7,33",
            (_, "31") => "31,7,33",
            _ => "48,7,33",
        };
        let structure = structures().swap_remove((u[2] * structures().len() as f32) as usize);
        Case {
            pixels: pick(3, &[1, 23, 64, 131]),
            hidden,
            structure,
            batch: pick(4, &[1, 7, 16, 40]),
            samples: pick(5, &[1, 1, 3]),
            density: u[6],
        }
    }

    fn images(&self, seed: u64) -> Pictures {
        let bytes = uniform(self.batch * self.pixels, seed).iter().map(|u| (*u < self.density) as u8).collect();
        Pictures { bytes, pixels: self.pixels }
    }

    /// The same with as many samples as an estimator needs.
    fn of(&self, estimator: &dyn Estimator) -> Self {
        let samples = self.samples.max(estimator.least_samples());
        Case { samples, structure: self.structure.clone(), ..*self }
    }

    /// Calls `make` with what a model of this case is made for.
    fn with_options<T>(
        &self,
        seed: u64,
        estimator: &dyn Estimator,
        threads: usize,
        make: impl Fn(&ModelOptions<'_>) -> T,
    ) -> T {
        let mut settings = Settings::default();
        settings.set("hidden", Value::Text(self.hidden.into()));
        make(&ModelOptions {
            continuous: gumbel::continuous::Continuous::None,
            settings: &settings,
            shape: Shape::grey(1, self.pixels),
            binary: true,
            structure: self.structure.clone(),
            likelihood: Arc::new(Bernoulli),
            estimator,
            batch: self.batch,
            samples: self.samples,
            lr: 1e-3,
            seed,
            threads,
            engine: "auto",
            device: "cpu",
        })
    }

    fn autodiff(&self, seed: u64, estimator: &dyn Estimator) -> Box<dyn Engine> {
        self.with_options(seed, estimator, 1, |options| gumbel_vae::perceptron(options).unwrap())
    }

    fn fused(&self, seed: u64, estimator: &dyn Estimator, threads: usize) -> Fused {
        self.with_options(seed, estimator, threads, |options| Fused::new(options).unwrap())
    }
}

/// REINFORCE with the losses of two samples and another decoder's objective: weights that differ, questions at
/// assignments.
struct Weighted;

impl Estimator for Weighted {
    fn questions(&self, _: &AnyStructure) -> Questions {
        Questions::LOSSES.and(Questions::SLOPES)
    }

    fn estimate(&self, piece: &mut Piece<'_, AnyStructure>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (count, n, u) = (piece.count(), piece.structure.variables(), piece.structure.unary());
        let p = piece.structure.potentials();
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            let z = piece.memory.assignments[..count * n].to_vec();
            let mut losses = vec![0.0; count];
            oracle.losses(piece.of, &z, &mut losses)?;
            let mut codes = vec![0.0; count * u];
            z.chunks(n).zip(codes.chunks_mut(u)).for_each(|(z, c)| piece.structure.encode(z, c));
            let (mut again, mut slopes) = (vec![0.0; count], vec![0.0; count * u]);
            oracle.slopes(piece.of, &codes, &mut again, &mut slopes)?;
            let weights: Vec<f32> = (0..count).map(|b| piece.scale * (1.0 + ((piece.first + b) % 3) as f32)).collect();
            for b in 0..count {
                assert!((losses[b] - again[b]).abs() < 1e-4 * losses[b].abs().max(1.0));
                let gradient = &mut piece.gradient[b * p..][..p];
                piece.structure.add_statistics(&z[b * n..][..n], weights[b] * losses[b] * 0.1, gradient);
                gradient.iter_mut().zip(&slopes[b * u..][..u]).for_each(|(g, s)| *g += 0.1 * weights[b] * s);
            }
            oracle.follow(Followed::Assignments { row: sample, assignments: &z, weights: &weights })?;
        }
        Ok(())
    }
}

/// Every estimator that a latent can have, by its name and settings; of joint losses those that a test can afford.
fn all_estimators(structure: &AnyStructure) -> Vec<(String, Box<dyn Estimator>)> {
    let mut all: Vec<(String, Box<dyn Estimator>)> = vec![("weighted".into(), Box::new(Weighted))];
    let few = structure.states().is_some_and(|s| s <= 1024);
    for entry in estimators().iter() {
        let mut defaults = Settings::defaults(entry.settings());
        for (name, value) in [("epsilon", 0.7), ("temperature", 0.6)] {
            if defaults.get(name).is_some() {
                defaults.set(name, Value::Real(value));
            }
        }
        let mut variants = vec![(String::new(), defaults.clone())];
        if entry.name() == "direct" {
            for (name, value) in [
                ("two-sided", Value::Switch(true)),
                ("rao-blackwell", Value::Switch(true)),
                ("joint", Value::Text("search".into())),
                ("joint", Value::Text("flips".into())),
                ("joint", Value::Text("exact".into())),
            ] {
                let mut settings = defaults.clone();
                let text = format!(" {name} {value}");
                settings.set(name, value);
                variants.push((text, settings));
            }
            let mut slopes = defaults.clone();
            slopes.set("joint", Value::Text("search".into()));
            slopes.set("rao-blackwell", Value::Switch(true));
            slopes.set("rounds", Value::Whole(0));
            variants.push((" slopes".into(), slopes));
            // What a run with a search has by default.
            let mut changes = defaults.clone();
            changes.set("joint", Value::Text("search".into()));
            changes.set("first", Value::Text("changes".into()));
            changes.set("rounds", Value::Whole(1));
            variants.push((" changes".into(), changes));
        }
        for (text, settings) in variants {
            let enumerates = !few && (["exact", "marginal"].contains(&entry.name()) || text == " joint exact");
            if !enumerates && let Ok(estimator) = entry.build(&settings, structure) {
                all.push((format!("{}{text}", entry.name()), estimator));
            }
        }
    }
    all
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32], scale: f32, tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}, {i}: {a}, not {b} (scale {scale})");
    }
}

fn step(
    engine: &mut dyn Engine,
    images: &Pictures,
    batch: &[u32],
    estimator: &mut dyn Estimator,
    (kl_weight, noise, samples): (f32, &Noise, usize),
) -> StepReport {
    // Inside of the estimator's objective, beside it, or nowhere.
    let (inside, added) = match (estimator.kl(engine.structure()), engine.structure().has_sums()) {
        (KlTerm::Apart, true) => (0.0, kl_weight),
        (KlTerm::Apart, false) => (0.0, 0.0),
        _ => (kl_weight, 0.0),
    };
    estimator.begin(&Moment { step: 0, kl_weight: inside }).unwrap();
    engine.step(images, batch, estimator, &StepOptions::discrete(added, noise, samples)).unwrap()
}

/// The mean gradient stands in the first moments after one step.
#[test]
fn gradients_equal_those_of_automatic_differentiation() {
    for seed in 0..160 {
        let case = Case::random(seed);
        let images = case.images(seed + 1000);
        let batch: Vec<u32> = (0..case.batch as u32).collect();
        for (name, mut estimator) in all_estimators(&case.structure) {
            let case = case.of(estimator.as_ref());
            let what = format!(
                "seed {seed}, {name}, {:?}, {} pixels, hidden {}, batch {}, {} samples",
                case.structure, case.pixels, case.hidden, case.batch, case.samples
            );
            let kl_weight = [0.0, 0.3, 1.0][seed as usize % 3];
            let noise = Noise::new(seed, Purpose::Noise, 3);
            let options = (kl_weight, &noise, case.samples);
            let mut plain = case.autodiff(seed, estimator.as_ref());
            let (start, learned) = (plain.snapshot(), estimator.state());
            let expected = step(plain.as_mut(), &images, &batch, estimator.as_mut(), options);
            let plain = plain.snapshot();
            let isas = if seed % 4 == 0 { Isa::all() } else { vec![Isa::all()[0]] };
            for isa in isas {
                let mut fused = case.fused(seed, estimator.as_ref(), 1);
                fused.set_isa(isa);
                assert_eq!(fused.snapshot(), start, "{what}: both begin alike");
                estimator.restore(&learned).unwrap();
                let found = step(&mut fused, &images, &batch, estimator.as_mut(), options);
                // Where a slope is next to nothing, what is divided by its norm is made of rounding.
                if name.starts_with("adaptive-imle") && expected.tallies.iter().any(|t| t.mean() > 1e3) {
                    continue;
                }
                for (f, e) in found.tallies.iter().zip(&expected.tallies) {
                    assert_eq!(f.count, e.count, "{what}: {found:?}, not {expected:?}");
                    assert!((f.sum - e.sum).abs() < 1e-3 * e.sum.abs().max(1.0), "{what}: {found:?}, not {expected:?}");
                }
                let error = (found.reconstruction - expected.reconstruction).abs();
                // An exact sample of one of very many states takes another turn where rounding moves a probability
                // across the number that was drawn.
                let samples = ["reinforce", "rloo", "vimco", "simple"].iter().any(|own| name.starts_with(own));
                let many = case.structure.states().is_none_or(|states| states > 1000);
                if error > 1e-5 && samples && many && !case.structure.is_independent() {
                    continue;
                }
                assert!(error < 1e-5 * expected.reconstruction.abs().max(1.0), "{what}: {found:?}, not {expected:?}");
                let moments = fused.snapshot().moments;
                let largest = |m: &[Moments]| m.iter().flat_map(|m| &m.first).fold(0.0f32, |a, b| a.max(b.abs()));
                let scale = largest(&plain.moments);
                // Whose losses have weights like exp(-gamma), has their rounding so many times; arsm, which asks about
                // many rows of an image, has it as often as there are differences.
                let tolerance = match &name {
                    name if name.starts_with("perturbed") => 1e-4,
                    name if name.starts_with("arsm") => 3e-5,
                    _ => 1e-5,
                };
                for (slot, (f, p)) in moments.iter().zip(&plain.moments).enumerate() {
                    let at = format!("{what}, {}, parameter {slot}", isa.name());
                    if !p.first.is_empty() {
                        assert_close(&at, &f.first, &p.first, scale, tolerance);
                    }
                }
            }
        }
    }
}

/// A run of some steps on changing batches, the last one smaller.
fn train(case: &Case, estimator: &mut dyn Estimator, threads: usize, steps: u64) -> Snapshot {
    let (case, learned) = (&case.of(estimator), estimator.state());
    let images = case.images(77);
    let mut fused = case.fused(5, estimator, threads);
    for s in 0..steps {
        let order = Noise::new(6, Purpose::Shuffle, s).permutation(case.batch);
        let batch = &order[..case.batch - (s % 3 == 2) as usize * (case.batch / 2)];
        let noise = Noise::new(6, Purpose::Noise, s);
        step(&mut fused, &images, batch, estimator, (1.0, &noise, case.samples));
    }
    // The next one begins with what this one began with.
    estimator.restore(&learned).unwrap();
    fused.snapshot()
}

#[test]
fn steps_do_not_depend_on_threads() {
    let [single, several]: [AnyStructure; 2] =
        [Categorical::new(37).unwrap().into(), Categorical::binary(9).unwrap().into()];
    let [pairs, subset]: [AnyStructure; 2] = [Pairwise::new(12).unwrap().into(), Subset::new(12, 5).unwrap().into()];
    let order: AnyStructure = Permutation::new(4).unwrap().into();
    for (structure, hidden) in
        [(single, "300"), (several, "40,300"), (pairs, "300"), (subset, "40,300"), (order, "300")]
    {
        let case = Case { pixels: 784, hidden, structure, batch: 50, samples: 1, density: 0.2 };
        for (name, mut estimator) in all_estimators(&case.structure) {
            let one = train(&case, estimator.as_mut(), 1, 7);
            let same = one == train(&case, estimator.as_mut(), 2, 7) && one == train(&case, estimator.as_mut(), 5, 7);
            assert!(same, "{name}, {:?}", case.structure);
        }
    }
}

/// A step with a share of the learning rate goes that share of the way.
#[test]
fn steps_take_their_share_of_the_learning_rate() {
    let structure: AnyStructure = Categorical::product(3, 4).unwrap().into();
    let case = Case { samples: 1, structure, ..Case::random(5) };
    let (images, batch) = (case.images(6), (0..case.batch as u32).collect::<Vec<_>>());
    let mixed = &Mixed::all()[1];
    let noise = Noise::new(1, Purpose::Noise, 0);
    let taken = |engine: &mut dyn Engine, images: &Pictures, batch: &[u32], rate: f32| -> Vec<f32> {
        let values = |snapshot: &Snapshot| snapshot.parameters.all().flat_map(|p| p.values.clone()).collect::<Vec<_>>();
        let before = values(&engine.snapshot());
        let options = StepOptions { rate, ..StepOptions::discrete(0.0, &noise, 1) };
        engine.step(images, batch, &mut Direct::new(0.5).unwrap(), &options).unwrap();
        values(&engine.snapshot()).iter().zip(before).map(|(a, b)| a - b).collect()
    };
    let direct: &dyn Estimator = &Direct::new(0.5).unwrap();
    for name in ["fused", "autodiff", "mixed fused", "mixed autodiff"] {
        let step = |rate| match name {
            "fused" => taken(&mut case.fused(2, direct, 1), &images, &batch, rate),
            "autodiff" => taken(&mut *case.autodiff(2, direct), &images, &batch, rate),
            _ => {
                let mut engine = mixed.engine(name.trim_start_matches("mixed "), direct, 1);
                taken(&mut *engine, &mixed.images(mixed.batch), &(0..mixed.batch as u32).collect::<Vec<_>>(), rate)
            }
        };
        let (whole, quarter) = (step(1.0), step(0.25));
        assert!(whole.iter().any(|d| d.abs() > 1e-4), "{name}");
        let close = whole.iter().zip(&quarter).all(|(w, q)| (0.25 * w - q).abs() < 1e-6);
        assert!(close, "{name}");
    }
}

/// Both engines from the same state, back and forth: what one has left the other goes on with.
#[test]
fn engines_take_turns() {
    for seed in [3, 8, 21] {
        let structure = Categorical::product(3, 4).unwrap().into();
        let case = Case { samples: 1, structure, ..Case::random(seed) };
        let images = case.images(seed);
        let batch: Vec<u32> = (0..case.batch as u32).collect();
        let registry = estimators();
        let entry = registry.get("gumbel-softmax").unwrap();
        let mut settings = Settings::defaults(entry.settings());
        settings.set("temperature", Value::Real(0.9));
        let mut estimator = entry.build(&settings, &case.structure).unwrap();
        let mut plain = case.autodiff(seed, estimator.as_ref());
        let mut mixed = case.autodiff(seed, estimator.as_ref());
        let mut fused = case.fused(seed, estimator.as_ref(), 2);
        for s in 0..6 {
            let noise = Noise::new(seed, Purpose::Noise, s);
            let options = (1.0, &noise, 1);
            step(plain.as_mut(), &images, &batch, estimator.as_mut(), options);
            if s % 2 == 0 {
                step(mixed.as_mut(), &images, &batch, estimator.as_mut(), options);
                continue;
            }
            fused.restore(&mixed.snapshot()).unwrap();
            step(&mut fused, &images, &batch, estimator.as_mut(), options);
            mixed.restore(&fused.snapshot()).unwrap();
        }
        let (mixed, plain) = (mixed.snapshot(), plain.snapshot());
        for (a, b) in mixed.parameters.all().zip(plain.parameters.all()) {
            // Adam divides by the gradient's size: where that is rounding, so is the step, at most lr each.
            assert_close(&format!("seed {seed}, {}", a.name), &a.values, &b.values, 1e-3, 0.2);
        }
    }
}

/// Questions from outside of a step, in both engines.
#[test]
fn both_engines_answer_alike() {
    for seed in 200..230 {
        let case = Case::random(seed);
        let images = case.images(seed);
        let batch: Vec<u32> = (0..case.batch as u32).collect();
        let mut estimator = estimators()
            .get("direct")
            .unwrap()
            .build(&Settings::defaults(Entry::settings(estimators().get("direct").unwrap())), &case.structure);
        let estimator = estimator.as_mut().unwrap();
        let mut fused = case.fused(seed, estimator.as_ref(), 2);
        let mut plain = case.autodiff(seed, estimator.as_ref());
        let noise = Noise::new(seed, Purpose::Noise, 0);
        // After some steps, so that nothing is answered from what was before.
        for _ in 0..3 {
            step(&mut fused, &images, &batch, estimator.as_mut(), (1.0, &noise, case.samples));
        }
        plain.restore(&fused.snapshot()).unwrap();
        let mut found = fused.ask(&images, &batch, Draw::Mean).unwrap();
        let mut expected = plain.ask(&images, &batch, Draw::Mean).unwrap();
        assert_close("potentials", &found.potentials, &expected.potentials, 1.0, 1e-4);
        if let Some(states) = case.structure.states().filter(|s| *s <= 4000) {
            let [mut a, mut b] = [(); 2].map(|()| vec![0.0; batch.len() * states]);
            found.oracle.states(&batch, &mut a).unwrap();
            expected.oracle.states(&batch, &mut b).unwrap();
            assert_close(&format!("{:?}: states", case.structure), &a, &b, case.pixels as f32, 1e-5);
        }
    }
}

/// A model with a Gaussian code for every state, and its images.
struct Mixed {
    latent: usize,
    /// Trunk, head, shared, decoder.
    hidden: [&'static str; 4],
    part: u64,
    dim: usize,
    pixels: usize,
    batch: usize,
    samples: usize,
    kl: KlWeights,
}

impl Mixed {
    /// Those of the authors, and small ones.
    fn all() -> [Mixed; 3] {
        let asked = |asked| KlWeights { asked, followed: 1.0 };
        let hidden = ["400,200", "100", "66", "400"];
        let authors =
            Mixed { latent: 10, hidden, part: 100, dim: 30, pixels: 784, batch: 100, samples: 1, kl: asked(0.0) };
        let hidden = ["17,9", "", "6", "21"];
        let small = Mixed { latent: 4, hidden, part: 7, dim: 3, pixels: 35, batch: 21, samples: 2, kl: asked(1.0) };
        let (hidden, heavy) = (["8", "7,5", "", "9,13"], KlWeights { asked: 3.0, followed: 3.0 });
        [authors, small, Mixed { latent: 3, hidden, part: 4, dim: 2, pixels: 64, batch: 16, samples: 1, kl: heavy }]
    }

    fn engine(&self, name: &str, estimator: &dyn Estimator, threads: usize) -> Box<dyn Engine> {
        let mut settings = Settings::default();
        for (name, value) in ["hidden", "head", "shared", "decoder-hidden"].into_iter().zip(self.hidden) {
            settings.set(name, Value::Text(value.into()));
        }
        settings.set("part", Value::Whole(self.part));
        for (name, value) in [("leak", 0.2), ("shared-leak", 0.5), ("dropout", 0.5)] {
            settings.set(name, Value::Real(value));
        }
        let options = ModelOptions {
            continuous: gumbel::continuous::Continuous::Rows(self.dim),
            settings: &settings,
            shape: Shape::grey(1, self.pixels),
            binary: true,
            structure: Categorical::new(self.latent).unwrap().into(),
            likelihood: Arc::new(Bernoulli),
            estimator,
            batch: self.batch,
            samples: self.samples,
            lr: 8e-4,
            seed: 4,
            threads,
            engine: name,
            device: "cpu",
        };
        if name == "fused" { gumbel_fused::model(&options) } else { gumbel_vae::mixed(&options) }.unwrap()
    }

    fn images(&self, count: usize) -> Pictures {
        let bytes = uniform(count * self.pixels, 3).iter().map(|u| (*u < 0.2) as u8).collect();
        Pictures { bytes, pixels: self.pixels }
    }

    fn step(&self, engine: &mut dyn Engine, batch: &[u32], estimator: &mut dyn Estimator, step: u64) -> StepReport {
        let images = self.images(self.batch + 5);
        let [noise, gaussian, dropout] =
            [Purpose::Noise, Purpose::Gaussian, Purpose::Dropout].map(|purpose| Noise::new(9, purpose, step));
        let apart = estimator.kl(engine.structure()) == KlTerm::Apart;
        estimator.begin(&Moment { step, kl_weight: if apart { 0.0 } else { 0.5 } }).unwrap();
        let kl_weight = if apart { 0.5 } else { 0.0 };
        let options = StepOptions {
            kl_weight,
            continuous_kl: self.kl,
            noise: &noise,
            samples: self.samples,
            gaussian: &gaussian,
            dropout: &dropout,
            rate: 1.0,
        };
        engine.step(&images, batch, estimator, &options).unwrap()
    }

    /// The estimators of a latent, and that of labels.
    fn estimators(&self) -> Vec<(String, Box<dyn Estimator>)> {
        use gumbel::supervision::{Loss, Supervision, Taught};
        let mut all = all_estimators(&Categorical::new(self.latent).unwrap().into());
        let supervision = Supervision::new(Loss::Argmax { epsilon: 0.05 }, 1.0).unwrap();
        let known = (0..self.batch as u32).map(|b| b % self.latent as u32).collect();
        all.push(("taught".into(), Box::new(Taught::new(supervision, known))));
        all
    }
}

/// The mean gradient of models with Gaussian codes stands in the first moments after one step.
#[test]
fn gradients_of_mixed_models_equal_those_of_automatic_differentiation() {
    for (number, case) in Mixed::all().into_iter().enumerate() {
        let batch: Vec<u32> = (0..case.batch as u32).map(|b| b + 3).collect();
        for (name, mut estimator) in case.estimators() {
            if case.samples < estimator.least_samples() {
                continue;
            }
            let (what, learned) = (format!("case {number}, {name}"), estimator.state());
            let mut plain = case.engine("autodiff", estimator.as_ref(), 1);
            let mut fused = case.engine("fused", estimator.as_ref(), 1);
            assert_eq!(fused.snapshot(), plain.snapshot(), "{what}: both begin alike");
            let expected = case.step(plain.as_mut(), &batch, estimator.as_mut(), 0);
            estimator.restore(&learned).unwrap();
            let found = case.step(fused.as_mut(), &batch, estimator.as_mut(), 0);
            for (f, e) in found.tallies.iter().zip(&expected.tallies) {
                assert_eq!(f.count, e.count, "{what}: {found:?}, not {expected:?}");
                assert!((f.sum - e.sum).abs() < 1e-3 * e.sum.abs().max(1.0), "{what}: {found:?}, not {expected:?}");
            }
            let error = (found.reconstruction - expected.reconstruction).abs();
            assert!(error < 1e-5 * expected.reconstruction.abs().max(1.0), "{what}: {found:?}, not {expected:?}");
            let (fused, plain) = (fused.snapshot(), plain.snapshot());
            let largest = |m: &[Moments]| m.iter().flat_map(|m| &m.first).fold(0.0f32, |a, b| a.max(b.abs()));
            let scale = largest(&plain.moments);
            for ((f, p), named) in fused.moments.iter().zip(&plain.moments).zip(plain.parameters.all()) {
                assert_close(&format!("{what}, {}", named.name), &f.first, &p.first, scale, 1e-5);
            }
        }
    }
}

/// Both engines from the same state, back and forth, and what they answer behind that.
#[test]
fn engines_take_turns_with_mixed_models() {
    for (number, case) in Mixed::all().into_iter().enumerate() {
        for (name, mut estimator) in case.estimators() {
            if !["direct", "gumbel-softmax", "taught"].contains(&name.as_str()) {
                continue;
            }
            let mut plain = case.engine("autodiff", estimator.as_ref(), 1);
            let mut turns = case.engine("autodiff", estimator.as_ref(), 1);
            let mut fused = case.engine("fused", estimator.as_ref(), 2);
            let batch: Vec<u32> = (0..case.batch as u32).collect();
            for s in 0..4 {
                case.step(plain.as_mut(), &batch, estimator.as_mut(), s);
                if s % 2 == 0 {
                    case.step(turns.as_mut(), &batch, estimator.as_mut(), s);
                    continue;
                }
                fused.restore(&turns.snapshot()).unwrap();
                case.step(fused.as_mut(), &batch, estimator.as_mut(), s);
                turns.restore(&fused.snapshot()).unwrap();
            }
            for (a, b) in turns.snapshot().parameters.all().zip(plain.snapshot().parameters.all()) {
                // Adam divides by the gradient's size: where that is rounding, so is the step, at most lr each.
                assert_close(&format!("case {number}, {name}, {}", a.name), &a.values, &b.values, 8e-4, 0.5);
            }
            fused.restore(&plain.snapshot()).unwrap();
            let images = case.images(case.batch);
            let gaussian = Noise::new(1, Purpose::Evaluation, 0);
            for draw in [Draw::Mean, Draw::Sample(&gaussian), Draw::Weight(&gaussian)] {
                let mut found = fused.ask(&images, &batch, draw).unwrap();
                let mut expected = plain.ask(&images, &batch, draw).unwrap();
                assert_close("potentials", &found.potentials, &expected.potentials, 1.0, 1e-4);
                let (f, e) = (found.codes.take().unwrap(), expected.codes.take().unwrap());
                assert_close("samples", &f.samples, &e.samples, 1.0, 1e-4);
                assert_close("KL", &f.kl, &e.kl, 1.0, 1e-4);
                let [mut a, mut b] = [(); 2].map(|()| vec![0.0; batch.len() * case.latent]);
                found.oracle.states(&batch, &mut a).unwrap();
                expected.oracle.states(&batch, &mut b).unwrap();
                assert_close("states", &a, &b, case.pixels as f32, 1e-5);
            }
            let inputs = uniform(3 * case.latent * case.dim, 2);
            let [mut a, mut b] = [(); 2].map(|()| vec![0.0; 3 * case.pixels]);
            fused.means(&inputs, &mut a).unwrap();
            plain.means(&inputs, &mut b).unwrap();
            assert_close("means", &a, &b, 1.0, 1e-5);
        }
    }
}
