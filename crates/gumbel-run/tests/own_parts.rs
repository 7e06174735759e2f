//! Parts of a user's own in the whole loop: an estimator that learns, and a structure; killed and resumed, the same
//! bits.

mod common;

use common::{figures, same};
use gumbel::Error;
use gumbel::estimator::{Estimator, EstimatorEntry, Measure, Piece};
use gumbel::oracle::{Followed, Oracle, Questions};
use gumbel::registry::{Kind, Setting, Settings};
use gumbel::structure::{AnyStructure, Code, LatentEntry, Maximum, Structure, Sums};
use gumbel_data::{Dataset, Split};
use gumbel_run::evaluate::{Protocol, evaluate};
use gumbel_run::folder::Files;
use gumbel_run::images::SplitImages;
use gumbel_run::{Config, Observer, Outcome, Quiet, Registry, Start, store, stored, train};
use std::fs;
use std::path::Path;

const RATE: Setting = Setting {
    name: "baseline-lr",
    kind: Kind::Real(|v| v.is_finite() && v > 0.0, "a finite number greater than 0"),
    default: "0.5",
    value: "X",
    help: "learning rate of the baseline",
};

/// REINFORCE with a baseline that it learns: `(loss - baseline) (s(z) - E_q[s])`.
struct Reinforce {
    rate: f32,
    baseline: f32,
    /// Momentum of the baseline's optimiser.
    speed: f32,
}

const MEASURES: [Measure; 1] = [Measure { name: "surprise", help: "mean of loss - baseline", always: true }];

impl Estimator for Reinforce {
    fn questions(&self, _: &AnyStructure) -> Questions {
        Questions::LOSSES
    }

    fn measures(&self) -> &'static [Measure] {
        &MEASURES
    }

    fn estimate(&self, piece: &mut Piece<'_, AnyStructure>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, of, scale) = (piece.structure, piece.of, piece.scale);
        let (p, n) = (structure.potentials(), structure.variables());
        let (mut losses, mut q) = (vec![0.0; of.len()], vec![0.0; p]);
        for row in 0..piece.samples {
            piece.draw(row)?;
            let assignments = &piece.memory.assignments[..of.len() * n];
            oracle.losses(of, assignments, &mut losses)?;
            oracle.follow(Followed::Assignments { row, assignments, weights: &vec![scale; of.len()] })?;
            for (b, loss) in losses.iter().enumerate() {
                let gradient = &mut piece.gradient[b * p..][..p];
                structure.marginals(&piece.potentials[b * p..][..p], &mut q)?;
                let weight = scale * (loss - self.baseline);
                structure.add_statistics(&assignments[b * n..][..n], weight, gradient);
                gradient.iter_mut().zip(&q).for_each(|(g, q)| *g -= weight * q);
                piece.sums[0] += loss - self.baseline;
                piece.sums[1] += 1.0;
                piece.tallies[0].add((loss - self.baseline) as f64, 1.0);
            }
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        2
    }

    fn learn(&mut self, sums: &[f32]) {
        self.speed = 0.5 * self.speed + self.rate * sums[0] / sums[1];
        self.baseline += self.speed;
    }

    fn state(&self) -> Vec<f32> {
        vec![self.baseline, self.speed]
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        let &[baseline, speed] = state else {
            return Err(Error::Length { what: "the state of the baseline", expected: 2, found: state.len() });
        };
        (self.baseline, self.speed) = (baseline, speed);
        Ok(())
    }
}

/// n of N lights, from below.
#[derive(Debug, Clone, Copy)]
struct Thermometer(usize);

impl Structure for Thermometer {
    type Scratch = ();

    fn potentials(&self) -> usize {
        self.0
    }
    fn unary(&self) -> usize {
        self.0
    }
    fn variables(&self) -> usize {
        self.0
    }
    fn ln_states(&self) -> f64 {
        ((self.0 + 1) as f64).ln()
    }
    fn states(&self) -> Option<usize> {
        Some(self.0 + 1)
    }
    fn state(&self, index: usize, z: &mut [u32]) {
        z.iter_mut().enumerate().for_each(|(i, z)| *z = (i < index) as u32);
    }
    fn code(&self) -> Code {
        Code::Indicators
    }
    fn scratch(&self) {}
    fn argmax(&self, h: &[f32], z: &mut [u32], _: &mut ()) -> Result<Maximum, Error> {
        if let Some(index) = h.iter().position(|h| h.is_nan()) {
            return Err(Error::NotANumber { what: "potential", index });
        }
        let (mut sum, mut best, mut at) = (0.0f64, 0.0f64, 0);
        for (i, h) in h.iter().enumerate() {
            sum += *h as f64;
            if sum > best {
                (best, at) = (sum, i + 1);
            }
        }
        self.state(at, z);
        Ok(Maximum::proved(best))
    }
    fn add_statistics(&self, z: &[u32], scale: f32, out: &mut [f32]) {
        z.iter().zip(out).filter(|(z, _)| **z == 1).for_each(|(_, o)| *o += scale);
    }
}

fn registry() -> Registry {
    let mut registry = Registry::standard();
    let build = |settings: &Settings, _: &AnyStructure| {
        let rate = settings.real("baseline-lr") as f32;
        Ok(Box::new(Reinforce { rate, baseline: 0.0, speed: 0.0 }) as Box<dyn Estimator>)
    };
    let entry = EstimatorEntry::new("own-reinforce", "REINFORCE with a baseline", build).with_settings([RATE]);
    registry.estimators.add(entry);
    registry.latents.add(LatentEntry::new("thermometer", "N", "n of N from below", |sizes| {
        let n = sizes.whole(sizes.as_str())?;
        let structure = AnyStructure::without_sums(Thermometer(n), "thermometers", "nobody has written them");
        Ok((structure, n.to_string()))
    }));
    registry
}

/// A small run: 400 images, three epochs of four steps.
fn config(given: &[(&str, &str)]) -> Config {
    let small = [("hidden", "16"), ("train-limit", "400"), ("eval-limit", "100"), ("epochs", "3"), ("eval-every", "1")];
    Config::new(&registry(), &[&small, given].concat()).unwrap()
}

fn data() -> Dataset {
    gumbel_data::glyphs(0, [400, 100, 100]).unwrap()
}

/// Is killed at a step, without a chance to save anything.
struct Killed(u64);

impl Observer for Killed {
    fn step(&mut self, _: usize, done: u64, _: u64) {
        if done == self.0 {
            std::panic::panic_any("killed");
        }
    }
}

/// Stops at a step.
struct Stopped(u64, u64);

impl Observer for Stopped {
    fn step(&mut self, _: usize, done: u64, _: u64) {
        self.1 = done;
    }
    fn stop(&mut self) -> bool {
        self.0 == self.1
    }
}

#[track_caller]
fn same_files(a: &Path, b: &Path) {
    same(a, b);
    let picture = |folder: &Path| fs::read(folder.join("reconstructions.png")).unwrap();
    assert!(picture(a) == picture(b));
}

#[test]
fn an_estimator_that_learns_is_killed_and_resumed_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let own = [("estimator", "own-reinforce"), ("latent", "categorical:4"), ("checkpoint-every", "3")];
    let config = config(&[&own[..], &[("lr-decay", "cosine")]].concat());
    let data = data();
    let at = |name: &str| folder.path().join(name);
    train(&config, &data, &at("whole"), Start::Fresh, &mut Quiet).unwrap();
    for kill in [2, 5, 8, 11] {
        let run = || train(&config, &data, &at("killed"), Start::Resume, &mut Killed(kill));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err(), "kill {kill}");
    }
    train(&config, &data, &at("killed"), Start::Resume, &mut Quiet).unwrap();
    same_files(&at("whole"), &at("killed"));
    for stop in [4, 6] {
        let outcome = train(&config, &data, &at("stopped"), Start::Resume, &mut Stopped(stop, 0)).unwrap();
        assert_eq!(outcome, Outcome { summary: None, steps: stop });
    }
    train(&config, &data, &at("stopped"), Start::Resume, &mut Quiet).unwrap();
    same_files(&at("whole"), &at("stopped"));

    // What it measures stands in the lines; what others measure is null.
    let text = fs::read_to_string(Files::new(&at("whole")).metrics()).unwrap();
    assert_eq!(text.lines().filter(|l| l.contains("\"zero_gradient_rate\":null")).count(), 9);
    assert_eq!(text.lines().filter(|l| l.contains("\"surprise\":null")).count(), 6);
    assert!(figures(&at("whole"))[0].named("surprise").unwrap() > 0.0);

    // Its state is of its own kind.
    let checkpoint = Files::new(&at("whole")).checkpoint();
    let mut kept = store::read_checkpoint(&checkpoint, &config.digest()).unwrap();
    assert!(kept.learned.len() == 2 && kept.learned[0] > 100.0, "{:?}", kept.learned);
    kept.learned.push(0.0);
    store::write_checkpoint(&checkpoint, &kept, &config.digest()).unwrap();
    let error = train(&config, &data, &at("whole"), Start::Resume, &mut Quiet).unwrap_err().to_string();
    assert!(error.contains("the state of the baseline has 3 values: expected 2"), "{error}");
}

#[test]
fn a_structure_of_ones_own_trains_and_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[("latent", "thermometer:6"), ("eval-every", "2")]);
    let data = data();
    let summary = train(&config, &data, folder.path(), Start::Fresh, &mut Quiet).unwrap().summary.unwrap();
    assert_eq!((summary.latent.as_str(), summary.epochs), ("thermometer:6", 3));
    let lines = figures(folder.path());
    let epochs: Vec<usize> = lines.iter().filter(|m| m.split == "test").map(|m| m.epoch).collect();
    assert_eq!(epochs, [2, 3], "every second epoch, and the last");
    assert!(lines[5].bound < lines[2].bound && lines[5].nll.unwrap() < lines[5].bound);
    assert_eq!(lines[0].images, 100, "the limit is one of every split");

    // The stored model has the same figures; more epochs may be added, fewer than are done may not be asked for.
    let mut again = stored::open(&registry(), folder.path()).unwrap();
    let images = SplitImages::new(&data, Split::Test, config.binarization(), 0);
    let found = evaluate(&mut *again.engine, &images, Split::Test, 100, None, &Protocol::new(&config)).unwrap();
    assert_eq!(found.bound, summary.test.bound);
    let fewer = config.with("epochs", "2").unwrap();
    let error = train(&fewer, &data, folder.path(), Start::Resume, &mut Quiet).unwrap_err();
    assert!(error.is_usage() && error.to_string().starts_with("epochs = 2: expected at least 3"), "{error}");
    assert_eq!(stored::open_config(&registry(), folder.path()).unwrap(), config);
    let more = config.with("epochs", "5").unwrap();
    // On the same images only: of another number of them the steps so far would be other epochs.
    for other in
        [data.clone().limit(Some(data.train.count() - 1), None), gumbel_data::glyphs(9, [400, 100, 100]).unwrap()]
    {
        let error = train(&more, &other, folder.path(), Start::Resume, &mut Quiet).unwrap_err().to_string();
        assert!(error.contains("a checkpoint of a run on") && error.contains("found one on"), "{error}");
    }
    train(&more, &data, folder.path(), Start::Resume, &mut Quiet).unwrap();
    assert_eq!(figures(folder.path()).len(), 4 * 3);
}

/// Found by a hostile tester: a divergence that an evaluation meets first said "potential 0 is NaN" alone.
#[test]
fn a_divergence_says_what_to_do_wherever_it_is_met() {
    let folder = tempfile::tempdir().unwrap();
    for (i, (batch, latent)) in [
        ("100", "categorical:4"),
        // One step an epoch: the evaluation is the first to look.
        ("400", "categorical:4"),
        ("400", "pairwise:21"),
        ("400", "chain:12x3"),
        ("400", "supermodular:6"),
    ]
    .into_iter()
    .enumerate()
    {
        let run = folder.path().join(i.to_string());
        let config = config(&[("lr", "1e30"), ("batch-size", batch), ("latent", latent)]);
        let error = train(&config, &data(), &run, Start::Fresh, &mut Quiet).unwrap_err().to_string();
        assert!(error.starts_with("training diverged at step") && error.contains("; try a smaller lr"), "{error}");
    }
}

#[test]
fn a_warmup_that_turns_the_signs_of_couplings_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let given = [("latent", "supermodular:21"), ("epsilon", "1.5"), ("kl", "warmup:2")];
    let error = train(&config(&given), &data(), &run, Start::Fresh, &mut Quiet).unwrap_err();
    assert!(error.is_usage() && error.to_string().starts_with("epsilon = 1.5: expected at most"), "{error}");
    assert!(!run.exists());
}
