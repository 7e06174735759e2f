//! Runs: training from a configuration into a folder, resumable after kill -9 at any moment.
//!
//! The folder holds `config.toml` (resolved), `metrics.jsonl` (one line per epoch and split), `checkpoint/` (the
//! latest), `best.safetensors` (the epoch with the least validation bound), `summary.json`, `samples.png`,
//! `reconstructions.png` and `curves.svg`. Every file is whole or absent.
//!
//! Nothing that a step computes depends on anything but the configuration and the step's number: the order of the
//! images is a permutation keyed by the epoch, the noise is keyed by the step. So a run that continues from a
//! checkpoint ends with the same bits as one that was never interrupted.

use crate::config::{JointName, TrainConfig};
use crate::engine::Missed;
use crate::evaluate::{BoundKind, Evaluation, Protocol};
use crate::executor::{Executor, MlpEngine, load, snapshot};
use crate::store::{self, Checkpoint, write_atomic};
use crate::{Error, Result, host, picture, table};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Structure, Sums, perturbed_argmax};
use gumbel_data::{Dataset, Split};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One line of `metrics.jsonl`; losses in nats per image, times in seconds and milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Training steps done.
    pub step: u64,
    /// "train", "valid" or "test".
    pub split: String,
    /// Images evaluated; of the training split at most the first 10,000.
    pub images: usize,
    /// reconstruction + kl.
    pub bound: f64,
    /// What `bound` is: the bound itself or an estimate.
    #[serde(default)]
    pub bound_kind: BoundKind,
    /// Samples of z per image if `bound` is an estimate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bound_samples: Option<usize>,
    /// E_q[-ln p(x|z)].
    pub reconstruction: f64,
    /// KL(q || uniform).
    pub kl: f64,
    /// Exact -ln p(x).
    pub nll: Option<f64>,
    /// Reconstruction at sampled z + KL, the authors' figure: with couplings, the KL of the unary terms only. Absent for
    /// structures that are not in the paper.
    pub paper_loss: Option<f64>,
    /// Samples behind `paper_loss`; absent: the exact expectation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paper_samples: Option<usize>,
    /// Accuracy of the mode of q on labelled images; only for supervised latents.
    pub accuracy: Option<f64>,
    /// Epsilon in use at the end of the epoch.
    pub epsilon: f64,
    /// Temperature in use at the end of the epoch.
    pub temperature: f64,
    /// Training only: share of draws with z* = z(eps).
    pub zero_gradient_rate: Option<f64>,
    /// Training with `joint = exact`: share of draws for which the separable approximation finds another z(eps) than the
    /// true loss.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub separable_miss_rate: Option<f64>,
    /// By how much its z(eps) is worse there: mean of `h + gamma - eps loss` over these draws, in nats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub separable_gap: Option<f64>,
    /// Training with `joint = search`: share of draws whose separable z(eps) the search improved.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub search_move_rate: Option<f64>,
    /// By how much, in nats as `separable_gap`, of which it is no upper bound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub search_gain: Option<f64>,
    /// Time of all training steps so far, without evaluation.
    #[serde(default)]
    pub train_seconds: f64,
    /// Wall-clock since the start, without the gaps between interruption and resumption.
    pub seconds: f64,
    /// Mean time of a training step in this epoch.
    pub step_ms: f64,
}

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Data set.
    pub dataset: String,
    /// Latent variable.
    pub latent: String,
    /// Estimator.
    pub estimator: String,
    /// KL schedule.
    pub kl: String,
    /// Epochs trained.
    pub epochs: usize,
    /// Epoch with the least validation bound.
    pub best_epoch: usize,
    /// Validation at the best epoch.
    pub valid: Metrics,
    /// Test at the best epoch.
    pub test: Metrics,
    /// Test at the last epoch.
    pub final_test: Metrics,
    /// Wall-clock.
    pub seconds: f64,
    /// Training steps.
    pub steps: u64,
    /// Number of trained parameters.
    pub parameters: usize,
    /// Seed.
    pub seed: u64,
    /// Threads used.
    pub threads: usize,
    /// Engine.
    pub engine: String,
    /// Device.
    pub device: String,
    /// Version of this crate.
    pub version: String,
    /// Commit it was built from, or "unknown".
    pub commit: String,
}

/// What happens to a folder that may hold a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A new run; refused if the folder holds one.
    Fresh,
    /// A new run in place of an old one.
    Overwrite,
    /// The run of the folder goes on; a new one if it was killed before it had stored anything.
    Resume,
}

/// Watches a run.
pub trait Observer {
    /// After each training step (`done` of `total` in this process' view of the whole run).
    fn step(&mut self, _epoch: usize, _done: u64, _total: u64) {}
    /// A new line of metrics.
    fn metrics(&mut self, _metrics: &Metrics) {}
    /// Something a person may want to know.
    fn note(&mut self, _text: &str) {}
    /// Asked after each step: true saves a checkpoint and ends.
    fn stop(&mut self) -> bool {
        false
    }
}

/// An observer that says nothing.
pub struct Quiet;

impl Observer for Quiet {}

/// How a call of [`train`] ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The summary; `None` if the observer stopped the run before its end.
    pub summary: Option<Summary>,
    /// Steps done.
    pub steps: u64,
}

/// The pictures of a finished run.
const PICTURES: [&str; 3] = ["samples.png", "reconstructions.png", "curves.svg"];

/// Images of the training split that are evaluated after each epoch.
const TRAIN_EVALUATION: usize = 10_000;

/// What a checkpoint knows of its run, beside the parameters.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// Draws without gradient in the running epoch, if the estimator counts them, and all draws.
    unmoved: Option<u64>,
    draws: u64,
    /// Draws for which something better than the separable approximation was found, and by how much in nats, if it was
    /// looked for.
    #[serde(default)]
    missed: Option<(u64, f64)>,
    seconds: f64,
    /// Time of the steps of the epochs before.
    #[serde(default)]
    train_seconds: f64,
    /// Time of the steps of the running epoch.
    step_seconds: f64,
    best_epoch: usize,
    metrics: Vec<Metrics>,
}

/// Names of the files of a run.
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The files of a run folder.
    pub fn new(folder: &Path) -> Self {
        Files { folder: folder.to_path_buf() }
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }
    /// One line per epoch and split.
    pub fn metrics(&self) -> PathBuf {
        self.folder.join("metrics.jsonl")
    }
    /// The summary of a finished run.
    pub fn summary(&self) -> PathBuf {
        self.folder.join("summary.json")
    }
    /// The latest checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint").join("latest.safetensors")
    }
    /// The parameters of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }
    /// A picture or another file.
    pub fn other(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Trains a run in `folder`; see the [module](self).
///
/// Runs on the current rayon pool (`pool.install(|| train(...))` chooses the number of threads).
pub fn train(
    config: &TrainConfig,
    data: &Dataset,
    folder: &Path,
    start: Start,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    config.check()?;
    let count = match config.train_limit {
        0 => data.train.count(),
        limit => limit.min(data.train.count()),
    };
    if count == 0 || data.valid.count() == 0 || data.test.count() == 0 {
        return Err(Error::setting("dataset", config.dataset, "at least one image in each split"));
    }
    let executor = Executor::new(config, data.train.dim())?;
    let files = Files::new(folder);
    let _lock = prepare(config, &files, start)?;
    let mut run = Run { config, data, files, executor, state: State::default(), step: 0, count, began: Instant::now() };
    if start == Start::Resume {
        if run.files.checkpoint().exists() {
            run.restore()?;
            observer.note(&format!("resumed at step {} of {}", run.step, run.total()));
        } else {
            observer.note("no checkpoint in the folder: the run starts at its beginning");
        }
    }
    run.go(observer)
}

/// Creates the folder and its configuration, or checks those that are there; the lock lasts as long as the file.
fn prepare(config: &TrainConfig, files: &Files, start: Start) -> Result<File> {
    let folder = files.folder.clone();
    let checkpoints = folder.join("checkpoint");
    fs::create_dir_all(&checkpoints).map_err(|e| Error::io("create folder", &checkpoints, e))?;
    let lock_path = files.other(".lock");
    let lock = File::create(&lock_path).map_err(|e| Error::io("write", &lock_path, e))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Folder { path: folder, problem: "another process is training in this folder".into() });
        }
        Err(TryLockError::Error(_)) => {} // a file system without locks: nothing to hold on to
    }
    let path = files.config();
    match (path.exists(), start) {
        (true, Start::Fresh) => {
            let problem = "holds a run already: --resume continues it, --overwrite replaces it, --out chooses another";
            return Err(Error::Folder { path: folder, problem: problem.into() });
        }
        (true, Start::Resume) => TrainConfig::read(&path)?.check_resumable(config, &path)?,
        (true, Start::Overwrite) => {
            // The old checkpoint goes first: whatever happens then, it is never taken for one of the new run.
            let pictures = PICTURES.map(|name| files.other(name));
            for old in [files.checkpoint(), files.summary(), files.best(), files.metrics()].into_iter().chain(pictures)
            {
                match fs::remove_file(&old) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", old, e)),
                    _ => {}
                }
            }
        }
        (false, _) => {}
    }
    write_atomic(&path, config.to_toml().as_bytes())?;
    Ok(lock)
}

struct Run<'a> {
    config: &'a TrainConfig,
    data: &'a Dataset,
    files: Files,
    executor: Executor,
    state: State,
    step: u64,
    /// Training images.
    count: usize,
    began: Instant,
}

impl Run<'_> {
    fn steps_per_epoch(&self) -> u64 {
        self.count.div_ceil(self.config.batch_size) as u64
    }

    fn total(&self) -> u64 {
        self.steps_per_epoch() * self.config.epochs as u64
    }

    fn seconds(&self) -> f64 {
        self.state.seconds + self.began.elapsed().as_secs_f64()
    }

    fn restore(&mut self) -> Result<()> {
        let path = self.files.checkpoint();
        let stored = store::read_checkpoint(&path)?;
        let foreign =
            |found: String| Error::Foreign { path: path.clone(), expected: "a checkpoint of this run".into(), found };
        self.state =
            toml::from_str(&stored.state).map_err(|e| foreign(format!("a state that does not parse ({e})")))?;
        self.step = stored.steps;
        self.executor.restore(&stored.model, stored.moments, stored.steps).map_err(foreign)
    }

    fn save(&mut self) -> Result<()> {
        let mut state = self.state.clone();
        state.seconds = self.seconds();
        let (model, moments, _) = self.executor.snapshot();
        let checkpoint = Checkpoint {
            model,
            steps: self.step,
            moments,
            // TOML, because its numbers are read back to the same bits.
            state: toml::to_string(&state).expect("a state holds only numbers and text"),
        };
        store::write_checkpoint(&self.files.checkpoint(), &checkpoint)
    }

    fn go(mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        let steps_per_epoch = self.steps_per_epoch();
        let stopped = |run: &Self| Ok(Outcome { summary: None, steps: run.step });
        // The metrics file follows the checkpoint: lines after it will be written again.
        self.write_metrics()?;
        if self.step == 0 && observer.stop() {
            return stopped(&self);
        }
        // Killed between the last step of an epoch and its evaluation, or stopped there.
        if self.step > 0 && self.step.is_multiple_of(steps_per_epoch) && self.evaluated() < self.step / steps_per_epoch
        {
            self.end_epoch(observer)?;
        }
        while self.step < self.total() {
            let epoch = (self.step / steps_per_epoch) as usize + 1;
            let order = Noise::new(self.config.seed, Purpose::Shuffle, epoch as u64).permutation(self.count);
            while self.step < steps_per_epoch * epoch as u64 {
                self.train_step(epoch, &order)?;
                observer.step(epoch, self.step, self.total());
                let stop = observer.stop();
                let every = self.config.checkpoint_every;
                let ends_epoch = self.step.is_multiple_of(steps_per_epoch);
                if stop || every > 0 && self.step.is_multiple_of(every) && !ends_epoch {
                    self.save()?;
                }
                if stop {
                    return stopped(&self);
                }
            }
            self.end_epoch(observer)?;
        }
        self.finish()
    }

    /// Epochs whose metrics are there.
    fn evaluated(&self) -> u64 {
        self.state.metrics.last().map_or(0, |m| m.epoch as u64)
    }

    fn train_step(&mut self, epoch: usize, order: &[u32]) -> Result<()> {
        let began = Instant::now();
        let config = self.config;
        let first = (self.step % self.steps_per_epoch()) as usize * config.batch_size;
        let batch = &order[first..self.count.min(first + config.batch_size)];
        let steps_per_epoch = self.steps_per_epoch();
        let report = self.executor.step(&self.data.train, epoch as u64, batch, self.step, steps_per_epoch);
        let report = report.map_err(|e| match e {
            Error::Discrete(source) => Error::Diverged { step: self.step, epoch, lr: config.lr, source },
            other => other,
        })?;
        self.step += 1;
        if let Some(unmoved) = report.unmoved {
            *self.state.unmoved.get_or_insert(0) += unmoved as u64;
        }
        if let Some(Missed { examples, nats }) = report.missed {
            let (all, sum) = self.state.missed.get_or_insert_default();
            (*all, *sum) = (*all + examples as u64, *sum + nats);
        }
        self.state.draws += (batch.len() * config.samples) as u64;
        self.state.step_seconds += began.elapsed().as_secs_f64();
        Ok(())
    }

    fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let config = self.config;
        let epoch = (self.step / self.steps_per_epoch()) as usize;
        let protocol = Protocol::new(config);
        let last = self.step - 1;
        let (epsilon, temperature) = (config.epsilon_schedule()?.at(last), config.temperature_schedule()?.at(last));
        let step_ms = self.state.step_seconds * 1e3 / self.steps_per_epoch() as f64;
        let rate = self.state.unmoved.map(|u| u as f64 / self.state.draws as f64);
        let missed = self
            .state
            .missed
            .map(|(missed, nats)| (missed as f64 / self.state.draws as f64, nats / missed.max(1) as f64));
        self.state.train_seconds += self.state.step_seconds;
        let mut lines = vec![];
        for (split, limit) in [
            (Split::Train, TRAIN_EVALUATION.min(self.count)),
            (Split::Valid, config.eval_limit),
            (Split::Test, config.eval_limit),
        ] {
            let e = self.executor.evaluate(self.data, split, limit, &protocol)?;
            if !e.bound.is_finite() {
                let source = gumbel::Error::NotANumber { what: "bound", index: 0 };
                return Err(Error::Diverged { step: self.step, epoch, lr: config.lr, source });
            }
            let seconds = self.seconds();
            let rate = rate.filter(|_| split == Split::Train);
            let mut line = line(&e, epoch, self.step, split, (epsilon, temperature), rate, (seconds, step_ms));
            line.train_seconds = self.state.train_seconds;
            if let (Some((share, nats)), Split::Train) = (missed, split) {
                let (rate, gap) = match config.joint {
                    JointName::Search => (&mut line.search_move_rate, &mut line.search_gain),
                    _ => (&mut line.separable_miss_rate, &mut line.separable_gap),
                };
                (*rate, *gap) = (Some(share), Some(nats));
            }
            lines.push(line);
        }
        let valid = lines[1].bound;
        let best =
            self.state.metrics.iter().filter(|m| m.split == "valid").map(|m| m.bound).fold(f64::INFINITY, f64::min);
        if valid < best {
            self.state.best_epoch = epoch;
            let (height, width) = (self.data.train.height(), self.data.train.width());
            let card = ModelCard { epoch, step: self.step, height, width };
            let text = serde_json::to_string(&card).expect("a card holds only numbers");
            store::write_model(&self.files.best(), &snapshot(self.executor.model()), &text)?;
        }
        lines.iter().for_each(|l| observer.metrics(l));
        self.state.metrics.extend(lines);
        (self.state.unmoved, self.state.draws, self.state.step_seconds) = (None, 0, 0.0);
        self.state.missed = None;
        self.write_metrics()?;
        self.save()
    }

    fn write_metrics(&self) -> Result<()> {
        let mut text = String::new();
        for line in &self.state.metrics {
            text.push_str(&serde_json::to_string(line).expect("metrics are finite"));
            text.push('\n');
        }
        write_atomic(&self.files.metrics(), text.as_bytes())
    }

    fn finish(mut self) -> Result<Outcome> {
        let config = self.config;
        let find = |split: &str, epoch: usize| {
            self.state.metrics.iter().find(|m| m.split == split && m.epoch == epoch).cloned().ok_or_else(|| {
                Error::Foreign {
                    path: self.files.checkpoint(),
                    expected: format!("metrics of epoch {epoch}, {split}"),
                    found: format!("{} lines without them", self.state.metrics.len()),
                }
            })
        };
        let best = self.state.best_epoch;
        let last = self.evaluated() as usize;
        let engine = self.executor.name();
        let mut plain = self.executor.model().clone();
        let model = snapshot(&plain);
        let summary = Summary {
            dataset: config.dataset.to_string(),
            latent: config.latent.to_string(),
            estimator: config.estimator.to_string(),
            kl: config.kl.to_string(),
            epochs: last,
            best_epoch: best,
            valid: find("valid", best)?,
            test: find("test", best)?,
            final_test: find("test", last)?,
            seconds: self.state.metrics.last().map_or(0.0, |m| m.seconds),
            steps: self.step,
            parameters: model.all().iter().map(|p| p.values.len()).sum(),
            seed: config.seed,
            threads: rayon::current_num_threads(),
            engine: engine.to_string(),
            device: config.device.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("GUMBEL_COMMIT").unwrap_or("unknown").into(),
        };
        let text = serde_json::to_string_pretty(&summary).expect("a summary is finite");
        write_atomic(&self.files.summary(), text.as_bytes())?;

        let (best_model, _) = store::read_model(&self.files.best())?;
        load(&mut plain, &best_model).map_err(|e| Error::Foreign {
            path: self.files.best(),
            expected: "the model of this run".into(),
            found: format!("one with {e}"),
        })?;
        let size = (self.data.test.height(), self.data.test.width());
        samples(&plain, config.seed, size, &self.files.other("samples.png"), None)?;
        reconstructions(&plain, config, self.data, &self.files.other("reconstructions.png"))?;
        let title = format!(
            "{}, {}, {}, KL {}, seed {}",
            config.dataset, config.latent, config.estimator, config.kl, config.seed
        );
        picture::curves(&self.files.other("curves.svg"), &title, &self.state.metrics)?;
        Ok(Outcome { summary: Some(summary), steps: self.step })
    }
}

/// What `best.safetensors` says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Epoch of these parameters.
    pub epoch: usize,
    /// Training steps done.
    pub step: u64,
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
}

/// The line of an evaluation.
pub fn line(
    e: &Evaluation,
    epoch: usize,
    step: u64,
    split: Split,
    (epsilon, temperature): (f32, f32),
    zero_gradient_rate: Option<f64>,
    (seconds, step_ms): (f64, f64),
) -> Metrics {
    Metrics {
        epoch,
        step,
        split: split.to_string(),
        images: e.images,
        bound: e.bound,
        bound_kind: e.bound_kind,
        bound_samples: e.bound_samples,
        reconstruction: e.reconstruction,
        kl: e.kl,
        nll: e.nll,
        paper_loss: e.paper_loss,
        paper_samples: e.paper_samples,
        accuracy: None,
        epsilon: epsilon as f64,
        temperature: temperature as f64,
        zero_gradient_rate,
        separable_miss_rate: None,
        separable_gap: None,
        search_move_rate: None,
        search_gain: None,
        train_seconds: 0.0,
        seconds,
        step_ms,
    }
}

/// Opens the best model of a stored run, in the engine that trained it.
pub fn open(folder: &Path) -> Result<(TrainConfig, Executor, ModelCard)> {
    let path = Files::new(folder).best();
    let config = open_config(folder)?;
    if !path.exists() {
        let problem = "expected a run with at least one finished epoch, found no best.safetensors in it".into();
        return Err(Error::Folder { path: folder.to_path_buf(), problem });
    }
    let (stored, text) = store::read_model(&path)?;
    let foreign = |found: String| Error::Foreign {
        path: path.clone(),
        expected: format!("a model of {}, {} with hidden layers {:?}", config.dataset, config.latent, config.hidden),
        found,
    };
    let card: ModelCard =
        serde_json::from_str(&text).map_err(|e| foreign(format!("a description like {text:?} ({e})")))?;
    let pixels = card.height.checked_mul(card.width).filter(|p| (1..=1 << 24).contains(p));
    // The description must be true before a network of its size is made.
    let reads = |pixels: &usize| stored.encoder.first().is_some_and(|p| p.shape.contains(pixels));
    let pixels = pixels.filter(reads);
    let pixels = pixels.ok_or_else(|| foreign(format!("images of {}x{} pixels", card.height, card.width)))?;
    let mut executor = Executor::new(&config, pixels)?;
    executor.restore(&stored, vec![], card.step).map_err(foreign)?;
    Ok((config, executor, card))
}

/// The metrics of a stored run.
pub fn read_metrics(folder: &Path) -> Result<Vec<Metrics>> {
    let path = Files::new(folder).metrics();
    let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let line = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| Error::Foreign {
            path: path.clone(),
            expected: "lines of metrics".into(),
            found: format!("line {}: {e}", i + 1),
        })
    };
    text.lines().enumerate().map(line).collect()
}

/// The configuration of a stored run.
pub fn open_config(folder: &Path) -> Result<TrainConfig> {
    let path = Files::new(folder).config();
    if !path.exists() {
        let problem = "expected a run folder, found no config.toml in it".into();
        return Err(Error::Folder { path: folder.to_path_buf(), problem });
    }
    let config = TrainConfig::read(&path)?;
    config.check()?;
    Ok(config)
}

/// Draws the decoder's means: of each value of one K-way variable, or of assignments drawn from the prior.
///
/// `size` is the images' height and width, `rows` the number of rows of ten; by default all values of a K-way
/// variable, and ten rows of prior samples.
pub fn samples(
    engine: &MlpEngine,
    seed: u64,
    (height, width): (usize, usize),
    path: &Path,
    rows: Option<usize>,
) -> Result<()> {
    const COLUMNS: usize = 10;
    let structure = &engine.structure;
    let n = structure.variables();
    let z = if table::is_single(structure) {
        let states = structure.unary();
        (0..rows.map_or(states, |r| states.min(r.saturating_mul(COLUMNS))) as u32).collect()
    } else {
        let count = rows.unwrap_or(10) * COLUMNS;
        let (noise, potentials) = (Noise::new(seed, Purpose::Picture, 0), vec![0.0; structure.potentials()]);
        let mut z = vec![0; count * n];
        if structure.has_sums() && structure.block(0).is_none() {
            structure.samples(&potentials, &mut noise.generator_at(0), &mut z)?;
        } else {
            // Uniform too: all values are alike, and so are all permutations.
            let mut gamma = vec![0.0; count * structure.unary()];
            noise.gumbel(&mut gamma);
            perturbed_argmax(structure, &potentials.repeat(count), &gamma, &mut z)?;
        }
        z
    };
    picture::grid(path, &engine.means(&z), height, width, COLUMNS)
}

/// Draws test images in odd columns, each followed by its reconstruction at the mode of q.
pub fn reconstructions(engine: &MlpEngine, config: &TrainConfig, data: &Dataset, path: &Path) -> Result<()> {
    const PAIRS: usize = 50;
    let count = PAIRS.min(data.test.count());
    let pixels = data.test.dim();
    let mut x = vec![0.0; count * pixels];
    let binarization = config.binarization.with_seed(config.seed);
    binarization.fill(&data.test, Split::Test, 0, &(0..count).collect::<Vec<_>>(), &mut x)?;
    let tensor = host::tensor(x.clone(), [count, pixels], engine.device());
    let potentials = engine.potentials(tensor);
    let mut z = vec![0; count * engine.structure.variables()];
    gumbel::structure::argmax_batch(&engine.structure, &potentials, &mut z)?;
    let means = engine.means(&z);
    let pairs = x.chunks_exact(pixels).zip(means.chunks_exact(pixels));
    let tiles: Vec<f32> = pairs.flat_map(|(image, mean)| [image, mean].concat()).collect();
    picture::grid(path, &tiles, data.test.height(), data.test.width(), 10)
}
