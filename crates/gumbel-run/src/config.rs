//! The configuration of a run: values of all settings that apply to it, checked before anything is done.
//!
//! The [keys of a run](KEYS) choose an estimator, a model, a data set, a latent variable and a likelihood; each of
//! these brings settings of its own. A key of one that was not chosen is an error that names who has it. In TOML files
//! and as flags the keys are the same.

mod file;

use crate::keys::FREE;
use crate::labels;
use crate::model::mlp;
use crate::presets;
use crate::{Error, KlSchedule, Registry, Result};
use gumbel::continuous::{Continuous, Inputs, KlWeights};
use gumbel::engine::{Engine, ModelEntry, ModelOptions, Shape};
use gumbel::estimator::{Estimator, EstimatorEntry, KlTerm, Moment};
use gumbel::likelihood::{Likelihood, LikelihoodEntry};
use gumbel::registry::{Entry, Setting, Settings, Value, one_of};
use gumbel::schedule::Annealing;
use gumbel::structure::{Latent, Structure};
use gumbel::supervision::{self, Supervision};
use gumbel_data::{
    Binarization, DataError, Dataset, DatasetEntry, Limits, MAX_CLASS_ATTRIBUTES, PixelKind, Progress, Source,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::folder::{Digest, fitting_name};
pub use crate::keys::KEYS;
pub use file::ConfigFile;
pub(crate) use file::Written;

/// Keys and values as someone wrote them, such as flags.
pub type Given = BTreeMap<String, String>;

/// A configuration that has been checked; see the [module](self).
#[derive(Debug, Clone)]
pub struct Config {
    registry: Registry,
    /// Every key that applies, in order.
    keys: Vec<Setting>,
    settings: Settings,
    latent: Latent,
    kl: KlSchedule,
    binarization: Binarization,
    continuous: Continuous,
    /// The weight of the Gaussian codes' KL, if it is not always 0.
    continuous_kl: Option<Annealing>,
    labels: labels::Count,
    schedule: labels::Schedule,
    data_dir: Option<PathBuf>,
}

/// Equal settings.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

/// The key that an error is about.
pub(crate) fn name_of(error: &Error) -> &str {
    match error {
        Error::Setting { name, .. } => name,
        _ => "",
    }
}

/// All keys that any choice brings.
pub(crate) fn every_key(registry: &Registry) -> Vec<&str> {
    let mut all: Vec<&str> = KEYS.iter().map(|s| s.name).collect();
    for name in registry.owners().into_iter().flat_map(|(.., settings)| settings).map(|s| s.name) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// The weight of the Gaussian codes' KL, if it is not always 0.
fn falling(settings: &Settings) -> Result<Option<Annealing>> {
    let (start, min) = (settings.real("continuous-kl-weight"), settings.real("continuous-kl-min"));
    if start == 0.0 {
        return Ok(None);
    }
    let made = Annealing::at_least(start, min, settings.real("continuous-kl-decay"), 1);
    let expected = |e| format!("numbers that a schedule can have with continuous-kl-min = {min}: {e}");
    made.map(Some).map_err(|e| Error::setting("continuous-kl-weight", start, expected(e)))
}

/// Settings without effect where no image has a label.
const OF_LABELS: [&str; 8] = [
    "label-draw",
    "labels-balanced",
    "labels-binarization",
    "supervision",
    "supervised-loss",
    "supervised-draws",
    "supervised-epsilon",
    "supervised-weight",
];
/// Settings without effect where there are no Gaussian codes, beside those of the model.
const OF_CODES: [&str; 5] =
    ["continuous-kl", "continuous-kl-weight", "continuous-kl-min", "continuous-kl-decay", "eval-codes"];

/// The entry that a key chooses: given, or by default.
fn chosen<'a>(given: &'a Given, key: &str) -> &'a str {
    let default = KEYS.iter().find(|s| s.name == key).map_or("", |s| s.default);
    given.get(key).map_or(default, String::as_str)
}

/// The names in a list.
fn names(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// The settings that apply to what is chosen: those of the run, then those of its parts.
fn applicable(registry: &Registry, given: &Given) -> Result<Vec<Setting>> {
    let latent = chosen(given, "latent");
    let parts = [
        registry.estimators.get(chosen(given, "estimator"))?.settings_of(),
        registry.models.get(chosen(given, "model"))?.settings_of(),
        registry.datasets.get(chosen(given, "dataset"))?.settings_of(),
        registry.latents.get(latent.split_once(':').map_or(latent, |(name, _)| name))?.settings_of(),
        registry.likelihoods.get(chosen(given, "likelihood"))?.settings_of(),
    ];
    let mut all = KEYS.to_vec();
    for setting in parts.concat() {
        if all.iter().all(|s| s.name != setting.name) {
            all.push(setting);
        }
    }
    Ok(all)
}

/// [`Entry::settings`], of which [`EstimatorEntry`] has another of the same name.
trait SettingsOf {
    fn settings_of(&self) -> Vec<Setting>;
}

impl<E: Entry> SettingsOf for E {
    fn settings_of(&self) -> Vec<Setting> {
        Entry::settings(self).to_vec()
    }
}

/// The setting of a key among those that apply.
fn owned(registry: &Registry, keys: &[Setting], given: &Given, key: &str) -> Result<Setting> {
    if let Some(setting) = keys.iter().find(|s| s.name == key) {
        return Ok(*setting);
    }
    let value = given.get(key).map_or("", String::as_str);
    let owners: Vec<_> =
        registry.owners().into_iter().filter(|(.., settings)| settings.iter().any(|s| s.name == key)).collect();
    let Some((kind, ..)) = owners.first().copied() else {
        return Err(Error::setting(key, value, format!("a known key, {}", one_of(key, &every_key(registry)))));
    };
    let names: Vec<&str> = owners.iter().filter(|(k, ..)| *k == kind).map(|(_, name, _)| *name).collect();
    let found = chosen(given, kind);
    Err(Error::setting(key, value, format!("{kind} = {}, found {kind} = {found}", names.join(" or "))))
}

impl Config {
    /// The configuration of some keys, with defaults for all others.
    ///
    /// ```
    /// use gumbel_run::{Config, Registry};
    /// let registry = Registry::standard();
    /// let config = Config::new(&registry, &[("latent", "binary:15"), ("rao-blackwell", "true")])?;
    /// assert_eq!(config.whole("epochs"), 6);
    /// let error = Config::new(&registry, &[("estimator", "exact"), ("rao-blackwell", "true")]).unwrap_err();
    /// assert_eq!(error.to_string(), "rao-blackwell = true: expected estimator = direct, found estimator = exact");
    /// # Ok::<(), gumbel_run::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`]: unknown keys, values out of range, settings that contradict each other, sizes that no memory
    /// holds.
    pub fn new(registry: &Registry, given: &[(&str, &str)]) -> Result<Self> {
        let given = given.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
        Config::resolve(registry, None, &given)
    }

    /// The configuration that stands in the folder of a run.
    ///
    /// # Errors
    /// As [`resolve`](Config::resolve), but as [`Error::Foreign`]: nobody has written the file by hand.
    pub fn read(registry: &Registry, path: &Path) -> Result<Self> {
        let read = || Config::resolve(registry, Some(&ConfigFile::read(path)?), &Given::new());
        read().map_err(|e| match e {
            Error::ConfigFile { path, detail } => Error::foreign(path, "the configuration of a run", detail),
            e => e,
        })
    }

    /// The configuration of a file with other values over it, such as flags. Keys of the file that belong to what the
    /// other values have replaced (settings of an estimator, where another is named) go with it.
    ///
    /// # Errors
    /// As [`new`](Config::new); those of the file are [`Error::ConfigFile`] with its name and the line.
    pub fn resolve(registry: &Registry, file: Option<&ConfigFile>, flags: &Given) -> Result<Self> {
        Config::resolved(registry, file, flags).map_err(|e| match file {
            Some(file) if !flags.contains_key(name_of(&e)) => file.at(e),
            _ => e,
        })
    }

    fn resolved(registry: &Registry, file: Option<&ConfigFile>, flags: &Given) -> Result<Self> {
        let mut all = file.map_or(Ok(Given::new()), |f| f.given(registry))?;
        all.extend(flags.clone());
        // What the images and their attributes ask for stands above a preset. Ink is rounded; grey and colour have
        // levels of their own, and so has ink under a likelihood of levels.
        let dataset = registry.datasets.get(chosen(&all, "dataset"))?;
        let is_ink = dataset.pixels() == PixelKind::Ink;
        if !is_ink {
            all.entry("likelihood".into()).or_insert("logistic".into());
        }
        let likelihood = registry.likelihoods.get(chosen(&all, "likelihood"))?.get();
        if !is_ink || likelihood.has_bits() || likelihood.is_density() {
            all.entry("binarization".into()).or_insert(Binarization::Grey.to_string());
        }
        let attributes = names(chosen(&all, "attributes"));
        if attributes.is_empty() && !chosen(&all, "attributes").is_empty() {
            return Err(Error::setting("attributes", chosen(&all, "attributes"), "names between commas"));
        }
        if !attributes.is_empty() && !all.contains_key("latent") && attributes.len() <= MAX_CLASS_ATTRIBUTES {
            let states = 1 << attributes.len();
            all.insert("latent".into(), format!("categorical:{states}"));
        }
        let preset = presets::values(all.get("preset").map_or("none", String::as_str), &all)?;
        for (key, value) in preset {
            all.entry(key.into()).or_insert(value.into());
        }
        // A schedule of labels says the epochs.
        let suited = dataset.suited();
        if !all.contains_key("supervision") && suited.iter().all(|(key, _)| !all.contains_key(*key)) {
            all.extend(suited.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        }
        let phases = all.get("supervision").map(|text| text.parse()).transpose()?;
        if let Some(labels::Schedule::Phases(_, epochs)) = phases {
            let found = all.entry("epochs".into()).or_insert(epochs.to_string()).clone();
            if file.is_none() && found != epochs.to_string() {
                let expected = format!("{epochs}, the second number of supervision = {}", all["supervision"]);
                return Err(Error::setting("epochs", found, expected));
            }
        }
        let continuous: Continuous = chosen(&all, "continuous").parse()?;
        if continuous != Continuous::None && chosen(&all, "model") == "mlp" {
            all.entry("hidden".into()).or_insert("400,200".into()); // the authors' trunk
        }
        // The default latent is for those who can have coupled variables.
        let independent = chosen(&all, "estimator") != "direct"
            || matches!(continuous, Continuous::Rows(_))
            || chosen(&all, "labels") != "0";
        if independent && !all.contains_key("latent") {
            all.insert("latent".into(), "categorical:10".into());
        }
        let keys = applicable(registry, &all)?;
        let estimator = registry.estimators.get(chosen(&all, "estimator"))?;
        all.retain(|key, value| value != "auto" || !estimator.auto_settings().contains(&key.as_str()));
        let mut settings = Settings::defaults(&keys);
        for key in all.keys() {
            let setting = match owned(registry, &keys, &all, key) {
                Ok(setting) => setting,
                Err(e) if flags.contains_key(key) => return Err(e),
                Err(_) => continue,
            };
            settings.set(key, setting.parse(&all[key])?);
        }
        let latent = registry.latents.parse(settings.text("latent"))?;
        for (key, value) in estimator.auto(&latent.structure, &|key| all.get(key).map(String::as_str)) {
            if !all.contains_key(key) {
                settings.set(key, owned(registry, &keys, &all, key)?.parse(&value)?);
            }
        }
        settings.set("latent", Value::Text(latent.text.clone()));
        let kl = settings.text("kl").parse()?;
        let binarization: Binarization = settings.text("binarization").parse()?;
        let binarization = binarization.with_seed(settings.whole("seed"));
        let registry = registry.clone();
        let (labels, schedule) = (settings.text("labels").parse()?, settings.text("supervision").parse()?);
        let data_dir = None;
        let continuous_kl = falling(&settings)?;
        let config = Config {
            registry,
            keys,
            settings,
            latent,
            kl,
            binarization,
            continuous,
            continuous_kl,
            labels,
            schedule,
            data_dir,
        };
        config.check()?;
        Ok(config)
    }

    /// The same with another value.
    ///
    /// # Errors
    /// As [`new`](Config::new).
    pub fn with(&self, key: &str, text: &str) -> Result<Self> {
        let mut all: Given = self.settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        all.insert(key.into(), text.into());
        let data_dir = self.data_dir.clone();
        Ok(Config { data_dir, ..Config::resolve(&self.registry, None, &all)? })
    }

    /// Refuses what is wrong in combination.
    fn check(&self) -> Result<()> {
        let structure = &self.latent.structure;
        let each = [("binarization", self.binarization), ("labels-binarization", self.labels_binarization())];
        if let Some((key, _)) = each.iter().find(|(_, b)| self.likelihood().needs_binary() && !b.is_binary()) {
            let expected = format!("one that makes images binary, which {} reads", self.text("likelihood"));
            return Err(Error::setting(*key, self.text(key), expected));
        }
        let taught = self.labels != labels::Count::Some(0) && matches!(self.schedule, labels::Schedule::Phases(..));
        if self.whole("epochs") == 0 && !taught {
            return Err(Error::setting("epochs", 0, "at least 1, without a phase of labels"));
        }
        Inputs::new(self.continuous, structure)?;
        if self.labels != labels::Count::Some(0) {
            let loss = self.text("supervised-loss");
            let others = |e| Error::setting("supervised-loss", loss, format!("argmax or fenchel-young: {e}"));
            self.supervision()?.check(structure).map_err(others)?;
        }
        let mut estimator = self.estimator()?;
        let (name, term) = (self.text("estimator"), estimator.kl(structure));
        let (samples, least) = (self.count("samples"), estimator.least_samples());
        if samples < least {
            return Err(Error::setting("samples", samples, format!("at least {least} for {name}")));
        }
        if !structure.has_sums() && self.kl != KlSchedule::Off && !self.kl.is_inside(term) {
            let (latent, also) = (&self.latent.text, if term == KlTerm::Either { " or on" } else { "" });
            let reason = match term {
                KlTerm::Either => "to be added".to_string(),
                _ => format!("and {name} does not take it into its own objective"),
            };
            let expected = format!("off{also}: the KL of {latent} has no gradient {reason}");
            return Err(Error::setting("kl", self.kl, expected));
        }
        if self.kl == KlSchedule::Added && term == KlTerm::Within {
            return Err(Error::setting("kl", self.kl, format!("on: the KL is part of what {name} minimises")));
        }
        if self.kl == KlSchedule::On && self.kl.is_inside(term) {
            estimator.begin(&Moment { step: 0, kl_weight: 1.0 })?;
        }
        let shape = Shape::grey(1, 1);
        Ok(self.model_entry().check(&self.model_options(&*estimator, shape))?)
    }

    /// Refuses settings that somebody has given and that change nothing beside the others: those of labels without
    /// labels, of another loss of labels, of Gaussian codes without codes. A run's own file has them all.
    ///
    /// # Errors
    /// [`Error::Setting`] with what would have to be chosen.
    pub fn check_given(&self, given: &Given) -> Result<()> {
        let (labelled, loss) = (self.labels != labels::Count::Some(0), self.text("supervised-loss"));
        let of_model = |key: &str| self.text("model") == "mlp" && mlp::MIXED.iter().any(|s| s.name == key);
        let of_codes = |key: &str| OF_CODES.contains(&key) || of_model(key);
        let needs = |key: &str| match key {
            _ if OF_LABELS.contains(&key) && !labelled => Some("labels, which are none here (labels = 0)"),
            "supervised-epsilon" if loss != "argmax" => Some("supervised-loss = argmax"),
            "supervised-draws" if loss != "fenchel-young" => Some("supervised-loss = fenchel-young"),
            _ if self.continuous == Continuous::None && of_codes(key) => {
                Some("Gaussian codes, which are none here (continuous = none)")
            }
            _ => None,
        };
        match given.iter().find_map(|(key, value)| Some((key, value, needs(key)?))) {
            Some((key, value, expected)) => Err(Error::setting(key, value, expected)),
            None => Ok(()),
        }
    }

    /// Refuses an estimator that cannot have the values of some step to come, as far as the weight of the KL grows.
    ///
    /// # Errors
    /// What [`Estimator::begin`] refuses.
    pub(crate) fn check_schedules(&self, estimator: &mut dyn Estimator, steps_per_epoch: u64) -> Result<()> {
        let KlSchedule::Warmup(epochs) = self.kl else { return Ok(()) };
        let total = steps_per_epoch.saturating_mul(self.whole("epochs").min(epochs as u64 + 1));
        // Every step; of very many, a hundred thousand: the values between lie between theirs.
        for step in (0..total).step_by((total / 100_000).max(1) as usize) {
            estimator.begin(&Moment { step, kl_weight: self.kl.weight(step, steps_per_epoch) })?;
        }
        Ok(estimator.begin(&Moment { step: 0, kl_weight: self.kl.weight(0, steps_per_epoch) })?)
    }

    /// Which Gaussian codes there are.
    pub fn continuous(&self) -> Continuous {
        self.continuous
    }

    /// How many training images have a label.
    pub fn labels(&self) -> labels::Count {
        self.labels
    }

    /// When labels are looked at.
    pub fn supervision_schedule(&self) -> labels::Schedule {
        self.schedule
    }

    /// What is learned from a label.
    ///
    /// # Errors
    /// Values out of range.
    pub fn supervision(&self) -> Result<Supervision> {
        let loss = match self.text("supervised-loss") {
            "cross-entropy" => supervision::Loss::CrossEntropy,
            "fenchel-young" => supervision::Loss::FenchelYoung { draws: self.count("supervised-draws") },
            _ => supervision::Loss::Argmax { epsilon: self.real("supervised-epsilon") as f32 },
        };
        Ok(Supervision::new(loss, self.real("supervised-weight") as f32)?)
    }

    /// The chosen attributes of the data set.
    pub fn attributes(&self) -> Vec<&str> {
        names(self.text("attributes"))
    }

    /// Where the names of this configuration were looked up.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every setting that applies, in order.
    pub fn keys(&self) -> &[Setting] {
        &self.keys
    }

    /// All values.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A whole number. Panics where no such key applies: an error of the program.
    pub fn whole(&self, key: &str) -> u64 {
        self.settings.whole(key)
    }

    /// A whole number that counts something in memory.
    pub(crate) fn count(&self, key: &str) -> usize {
        usize::try_from(self.whole(key)).unwrap_or(usize::MAX)
    }

    /// Whether something is on; panics as [`whole`](Config::whole).
    pub fn switch(&self, key: &str) -> bool {
        self.settings.switch(key)
    }

    /// A number; panics as [`whole`](Config::whole).
    pub fn real(&self, key: &str) -> f64 {
        self.settings.real(key)
    }

    /// A name or a text; panics as [`whole`](Config::whole).
    pub fn text(&self, key: &str) -> &str {
        self.settings.text(key)
    }

    /// The seed of everything random.
    pub fn seed(&self) -> u64 {
        self.whole("seed")
    }

    /// The latent variable.
    pub fn latent(&self) -> &Latent {
        &self.latent
    }

    /// When the KL term takes part in training.
    pub fn kl(&self) -> KlSchedule {
        self.kl
    }

    /// How grey images become binary, with the run's seed.
    pub fn binarization(&self) -> Binarization {
        self.binarization
    }

    /// The chosen estimator's entry.
    pub fn estimator_entry(&self) -> &EstimatorEntry {
        self.registry.estimators.get(self.text("estimator")).expect("the name has been looked up")
    }

    /// The chosen model's entry.
    pub fn model_entry(&self) -> &ModelEntry {
        self.registry.models.get(self.text("model")).expect("the name has been looked up")
    }

    /// The chosen data set's entry.
    pub fn dataset_entry(&self) -> &DatasetEntry {
        self.registry.datasets.get(self.text("dataset")).expect("the name has been looked up")
    }

    /// The chosen likelihood.
    pub fn likelihood(&self) -> Arc<dyn Likelihood> {
        let entry: Result<&LikelihoodEntry, _> = self.registry.likelihoods.get(self.text("likelihood"));
        entry.expect("the name has been looked up").get()
    }

    /// Constructs the estimator.
    ///
    /// # Errors
    /// [`Error::Setting`] where it cannot have its settings or the latent variable.
    pub fn estimator(&self) -> Result<Box<dyn Estimator>> {
        let structure = &self.latent.structure;
        let name = self.text("estimator");
        let built = self.estimator_entry().build(&self.settings, structure);
        let built = built.and_then(|e| e.noise(structure).map(|_| e));
        built.map_err(|e| match e {
            gumbel::Error::TooManyStates { .. } => {
                Error::setting("latent", &self.latent.text, format!("a latent that {name} can enumerate: {e}"))
            }
            gumbel::Error::Coupled { estimator } => {
                let expected = format!("independent variables for {estimator}, such as categorical:NxK or binary:N");
                Error::setting("latent", &self.latent.text, expected)
            }
            gumbel::Error::NoSums { .. } => {
                Error::setting("latent", &self.latent.text, format!("a latent with sums for {name}: {e}"))
            }
            gumbel::Error::NotBinary { estimator } => {
                let expected = format!("independent variables with two values each for {estimator}, such as binary:N");
                Error::setting("latent", &self.latent.text, expected)
            }
            other => other.into(),
        })
    }

    /// Constructs the model with its initial parameters, in the engine that is asked for or the best that fits.
    ///
    /// # Errors
    /// An engine that cannot have the model; those of its constructor.
    pub fn engine(&self, estimator: &dyn Estimator, shape: Shape) -> Result<Box<dyn Engine>> {
        let options = self.model_options(estimator, shape);
        self.model_entry().check(&options)?;
        Ok(self.model_entry().build(&options)?)
    }

    /// Refuses an engine or a device that cannot have the model in this build of the program, as far as that can be
    /// said before there are images.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check_engine(&self) -> Result<()> {
        let estimator = self.estimator()?;
        Ok(self.model_entry().fits(&self.model_options(&*estimator, Shape::grey(1, 1)))?)
    }

    /// What other settings, all those of some run, have otherwise: the first that matters to what is computed, in
    /// words. A setting that they do not name had its default then.
    pub(crate) fn difference(&self, settings: &Given) -> Option<String> {
        let matters = |key: &str| key == "epochs" || !FREE.contains(&key);
        let own = |key: &str| self.settings.get(key).map(ToString::to_string);
        for setting in self.keys.iter().filter(|setting| matters(setting.name)) {
            let default = || setting.default_value().to_string();
            let found = settings.get(setting.name).cloned().unwrap_or_else(default);
            let own = own(setting.name).unwrap_or_default();
            if found != own {
                return Some(format!("{} = {found}, expected {own}", setting.name));
            }
        }
        let (key, value) = settings.iter().find(|(key, _)| matters(key) && own(key).is_none())?;
        Some(format!("{key} = {value}, expected no such setting"))
    }

    /// How the images of labelled steps become binary, of a run that has some.
    pub(crate) fn labels_binarization(&self) -> Binarization {
        let grey = self.text("labels-binarization") == "grey" && self.labels != labels::Count::Some(0);
        if grey { Binarization::Grey } else { self.binarization }
    }

    /// Weights of the Gaussian codes' KL at a step of training; those on labelled images before the first epoch come
    /// before all others.
    ///
    /// ```
    /// use gumbel_run::{Config, Registry};
    /// let keys = [("continuous", "joint:8"), ("continuous-kl-weight", "100"), ("continuous-kl-decay", "0.001")];
    /// let config = Config::new(&Registry::standard(), &keys)?;
    /// let weights = [0, 1000, 1_000_000].map(|step| config.continuous_kl(step).followed);
    /// assert!(weights[0] == 100.0 && (weights[1] - 36.79).abs() < 0.01 && weights[2] == 1.0);
    /// # Ok::<(), gumbel_run::Error>(())
    /// ```
    pub fn continuous_kl(&self, step: u64) -> KlWeights {
        let weight = self.continuous_kl.map_or(0.0, |weight| weight.at(step));
        KlWeights { asked: if self.switch("continuous-kl") { weight } else { 0.0 }, followed: weight }
    }

    pub(crate) fn model_options<'a>(&'a self, estimator: &'a dyn Estimator, shape: Shape) -> ModelOptions<'a> {
        ModelOptions {
            settings: &self.settings,
            shape,
            binary: self.binarization.is_binary() && self.labels_binarization().is_binary(),
            structure: self.latent.structure.clone(),
            continuous: self.continuous,
            likelihood: self.likelihood(),
            estimator,
            batch: self.count("batch-size"),
            samples: self.count("samples"),
            lr: self.real("lr"),
            seed: self.seed(),
            threads: rayon::current_num_threads(),
            engine: self.text("engine"),
            device: self.text("device"),
        }
    }

    /// The share of the learning rate at a training step, from 0: 1 without decay, else falling to zero over all
    /// epochs.
    ///
    /// ```
    /// use gumbel_run::{Config, Registry};
    /// let config = Config::new(&Registry::standard(), &[("lr-decay", "cosine"), ("epochs", "4")])?;
    /// let rates = [0, 50, 199].map(|step| config.rate(step, 50));
    /// assert!(rates[0] > 0.999 && (rates[1] - 0.85).abs() < 0.01 && rates[2] > 0.0 && rates[2] < 1e-3);
    /// # Ok::<(), gumbel_run::Error>(())
    /// ```
    pub fn rate(&self, step: u64, steps_per_epoch: u64) -> f32 {
        // The middle of the step: the first is nearly whole, the last is not nothing.
        let total = self.whole("epochs") as f64 * steps_per_epoch.max(1) as f64;
        let done = ((step as f64 + 0.5) / total).min(1.0);
        match self.text("lr-decay") {
            "cosine" => (0.5 + 0.5 * (std::f64::consts::PI * done).cos()) as f32,
            "linear" => (1.0 - done) as f32,
            _ => 1.0,
        }
    }

    /// Whether a key may change from one part of a run to the next: what is computed does not depend on it.
    fn is_free(&self, key: &str) -> bool {
        FREE.contains(&key) && !(key == "epochs" && self.text("lr-decay") != "none")
    }

    /// The values of all schedules of the registry at a training step; defaults for those that the estimator does not
    /// have.
    pub fn scheduled(&self, step: u64) -> Result<Vec<(String, f64)>> {
        let schedules = self.registry.schedules().into_iter().map(|schedule| {
            let own = schedule.settings.iter().all(|s| self.settings.get(s.name).is_some());
            let defaults = Settings::defaults(&schedule.settings);
            let annealing = schedule.annealing(if own { &self.settings } else { &defaults })?;
            Ok((schedule.name.to_string(), annealing.at(step) as f64))
        });
        schedules.collect()
    }

    /// Loads the images; with those of the validation split among those for training, where they are to be.
    ///
    /// # Errors
    /// Those of the data set.
    pub fn load(&self, source: &Source, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Dataset> {
        let limit = |key| Some(self.count(key)).filter(|n| *n > 0);
        let all = self.trains_on_all();
        let limits = match all {
            // The first training images are those of the training split only where that has as many.
            true => Limits { train: None, eval: None },
            false => Limits { train: limit("train-limit"), eval: limit("eval-limit") },
        };
        let mut data = gumbel_data::load_first(self.dataset_entry(), source, limits, progress)?;
        let attributes = self.attributes();
        if !attributes.is_empty() {
            let single = self.latent.structure.variables() == 1;
            let chosen = match single {
                true => data.with_attribute_classes(&attributes),
                false => data.with_attributes(&attributes),
            };
            data = chosen.map_err(|e| match e {
                DataError::Argument { expected, found, .. } => {
                    let expected = format!("{expected} (found {found})");
                    Error::setting("attributes", self.text("attributes"), expected)
                }
                e => e.into(),
            })?;
        }
        if all {
            data.train = data.train.followed_by(&data.valid)?;
        }
        Ok(data)
    }

    /// Whether the validation images are trained on too.
    pub fn trains_on_all(&self) -> bool {
        self.text("train-on") == "all"
    }

    /// The folder in which the data lie, if it was named: a run remembers it.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// Names the folder in which the data lie.
    pub fn set_data_dir(&mut self, folder: Option<PathBuf>) {
        self.data_dir = folder;
    }

    /// All keys and values as TOML.
    pub fn to_toml(&self) -> String {
        self.keys.iter().map(|key| format!("{} = {}\n", key.name, self.toml_value(key.name))).collect()
    }

    fn toml_value(&self, key: &str) -> String {
        match self.settings.get(key) {
            Some(Value::Real(v)) => format!("{v:?}"),
            Some(Value::Text(v)) => toml::Value::String(v.clone()).to_string(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    /// The digest of all settings that matter to what is computed.
    pub fn digest(&self) -> Digest {
        let keys = self.keys.iter().map(|s| s.name).filter(|name| !self.is_free(name));
        Digest::of(&keys.map(|key| format!("{key} = {}\n", self.toml_value(key))).collect::<String>())
    }

    /// The folder used when none is given: `runs/<dataset>-<latent>-<estimator>-s<seed>`.
    pub fn default_folder(&self) -> PathBuf {
        let latent = self.latent.text.replace(':', "").replace(',', "-");
        let name = format!("{}-{latent}-{}-s{}", self.text("dataset"), self.text("estimator"), self.seed());
        Path::new("runs").join(fitting_name(&name))
    }

    /// A name for each of some configurations: the settings in which they differ, such as `binary:15, seed 1`.
    pub fn differences(configs: &[Config]) -> Vec<String> {
        let mut keys: Vec<&str> = vec![];
        for key in configs.iter().flat_map(|c| &c.keys).map(|s| s.name) {
            if !keys.contains(&key) && configs.iter().any(|c| c.settings.get(key) != configs[0].settings.get(key)) {
                keys.push(key);
            }
        }
        let name = |config: &Config| {
            let own = keys.iter().filter_map(|key| Some((*key, config.settings.get(key)?)));
            let parts: Vec<String> = own
                .map(|(key, value)| match value {
                    // A name says what it is the name of.
                    Value::Text(text) if ["dataset", "latent", "estimator"].contains(&key) => text.clone(),
                    value => format!("{key} {value}"),
                })
                .collect();
            if parts.is_empty() { config.latent.text.clone() } else { parts.join(", ") }
        };
        configs.iter().map(name).collect()
    }

    /// Refuses to resume a run with settings other than those it was started with; `path` is that of the run's file.
    ///
    /// # Errors
    /// [`Error::Changed`] with the first difference that matters.
    pub fn check_resumable(&self, asked: &Config, path: &Path) -> Result<()> {
        let matters = |config: &Config| -> Vec<&'static str> {
            config.keys.iter().map(|s| s.name).filter(|name| !config.is_free(name)).collect()
        };
        let shown = |config: &Config, key: &str| match config.settings.get(key) {
            Some(_) => config.toml_value(key),
            None => "nothing".into(),
        };
        for key in matters(self).into_iter().chain(matters(asked)) {
            if self.settings.get(key) != asked.settings.get(key) {
                let (old, new) = (shown(self, key), shown(asked, key));
                return Err(Error::Changed { path: path.to_path_buf(), key: key.into(), old, new });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(given: &[(&str, &str)]) -> Result<Config> {
        Config::new(&Registry::standard(), given)
    }

    fn read(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&Registry::standard(), &path)
    }

    #[test]
    fn the_resolved_configuration_reads_back() {
        let seed = u64::MAX.to_string(); // TOML has no number of this size, yet it can be written and read
        let config = config(&[("hidden", "400,200"), ("kl", "warmup:20"), ("lr", "1e-4"), ("seed", &seed)]).unwrap();
        let again = read(&config.to_toml()).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.to_toml(), config.to_toml());
        for key in KEYS.iter().map(|s| s.name).chain(["epsilon", "two-sided", "hidden"]) {
            assert!(config.to_toml().contains(&format!("{key} = ")), "{key}");
        }
        assert!(!config.to_toml().contains("temperature"));
        // As files of before have it.
        assert_eq!(read("hidden = [400, 200]\n").unwrap().text("hidden"), "400,200");
        assert_eq!(read("hidden = 400\nlr = 1\n").unwrap().text("hidden"), "400");
    }

    #[test]
    fn bad_files_are_reported_with_their_line() {
        for (text, expected) in [
            ("lr = 1e-3\nepochz = 3\n", "line 2: unknown key \"epochz\" (did you mean epochs?)"),
            ("lr = [", "line 1"),
            ("\nkl = \"inside\"", "line 2: kl = "),
            ("\n\nlabels = \"al\"", "line 3: labels = "),
            (
                "epochs = 3\nlatent = \"subset:4,2\"\nrao-blackwell = true",
                "line 3: rao-blackwell = true: expected false for a latent",
            ),
            ("\nestimator = \"dirct\"", "line 2: estimator = \"dirct\": expected one of"),
            ("estimator = \"dirct\"", "did you mean direct?"),
            ("lr = \"fast\"", "line 1"),
            ("lr = \"0.1\"", "line 1"),
            ("epochs = 3.0", "line 1: epochs = "),
            ("epochs = -3", "line 1: epochs = -3: expected a whole number from 0"),
            ("two-sided = 1", "line 1: two-sided = \"1\": expected true or false"),
            ("[lr]\nx = 1", "line 1"),
            (
                "seed = 1\nestimator = \"exact\"\ntwo-sided = true",
                "line 3: two-sided = true: expected estimator = direct or imle or adaptive-imle",
            ),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("c.toml") && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn flags_win_over_files_and_take_what_belongs_to_a_choice_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "epsilon = 0.5\nlr = 0.01\nepochs = 7\n").unwrap();
        let file = ConfigFile::read(&path).unwrap();
        let over = |flags: &[(&str, &str)]| {
            let flags = flags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Config::resolve(&Registry::standard(), Some(&file), &flags)
        };
        let found = over(&[("lr", "0.1")]).unwrap();
        assert_eq!((found.real("lr"), found.real("epsilon"), found.whole("epochs")), (0.1, 0.5, 7));
        let found = over(&[("estimator", "exact")]).unwrap();
        assert!(found.settings().get("epsilon").is_none());
        let error = over(&[("estimator", "exact"), ("epsilon", "2")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "epsilon = 2: expected estimator = direct or direct-rebar, found estimator = exact"
        );
        let error = config(&[("temperature", "1")]).unwrap_err().to_string();
        assert!(error.contains("estimator = gumbel-softmax or straight-through"), "{error}");
        assert!(config(&[("epochz", "1")]).unwrap_err().to_string().contains("did you mean epochs?"));
    }

    #[test]
    fn settings_of_an_estimator_that_a_preset_chooses_may_stand_beside_it() {
        let found = read("preset = \"paper-gsm\"\ntemperature = 0.5\n").unwrap();
        assert_eq!((found.text("estimator"), found.real("temperature")), ("straight-through", 0.5));
        let error = read("preset = \"paper-gsm\"\nepsilon = 0.5\n").unwrap_err().to_string();
        assert!(error.contains("line 2: epsilon = 0.5: expected estimator = direct or direct-rebar, found"), "{error}");
        assert!(read("\npreset = \"papr\"").unwrap_err().to_string().contains("line 2: preset = papr"));
    }

    #[test]
    fn impossible_settings_are_refused() {
        for good in [
            &[][..],
            &[("latent", "pairwise:40"), ("joint", "search"), ("kl", "off")],
            &[("latent", "chain:30x4"), ("joint", "search")],
            &[("latent", "subset:6,2"), ("joint", "exact"), ("noise", "full"), ("two-sided", "true")],
            &[("latent", "pairwise:15"), ("estimator", "exact")],
            &[("latent", "permutation:4"), ("estimator", "exact"), ("kl", "off")],
            &[("latent", "permutation:4"), ("estimator", "marginal")],
            &[("latent", "permutation:12")],
            &[("estimator", "vimco"), ("latent", "subset:6,2"), ("samples", "2")],
            &[("latent", "pairwise:40")],
            &[("latent", "supermodular:40")],
            &[("latent", "supermodular:40"), ("epsilon", "3"), ("kl", "off")],
            &[("latent", "supermodular:20"), ("epsilon", "3"), ("kl", "added")],
        ] {
            config(good).unwrap();
        }
        let bad: &[&[(&str, &str)]] = &[
            &[("lr", "NaN")],
            &[("lr", "0")],
            &[("batch-size", "0")],
            &[("epochs", "0")],
            &[("samples", "0")],
            &[("hidden", "0")],
            &[("hidden", "3,x")],
            &[("hidden", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1")],
            &[("epsilon", "-1")],
            &[("estimator", "gumbel-softmax"), ("temperature", "inf")],
            &[("epsilon-every", "0")],
            &[("eval-every", "0")],
            &[("eval-samples", "100001")],
            &[("kl", "perhaps")],
            &[("engine", "warp")],
            &[("likelihood", "gauss")],
            &[("model", "cnn")],
            &[("estimator", "exact"), ("latent", "binary:40")],
            &[("estimator", "exact"), ("two-sided", "true")],
            &[("estimator", "exact"), ("joint", "exact")],
            &[("estimator", "gumbel-softmax"), ("latent", "pairwise:3")],
            &[("estimator", "local-expectation"), ("latent", "subset:4,2")],
            &[("estimator", "arm"), ("latent", "categorical:10")],
            &[("estimator", "disarm"), ("latent", "pairwise:5")],
            &[("estimator", "rebar"), ("latent", "chain:3x3")],
            &[("estimator", "rebar"), ("control-temperature", "0")],
            &[("estimator", "relax"), ("control-units", "0")],
            &[("estimator", "direct-rebar"), ("control-lr", "-1")],
            &[("estimator", "reinforce"), ("latent", "permutation:4"), ("kl", "off")],
            &[("estimator", "rloo"), ("latent", "categorical:10")],
            &[("estimator", "arsm"), ("latent", "pairwise:5")],
            &[("estimator", "arsm"), ("latent", "categorical:257")],
            &[("estimator", "vimco"), ("latent", "categorical:10")],
            &[("estimator", "vimco"), ("latent", "permutation:4"), ("samples", "3"), ("kl", "off")],
            &[("estimator", "vimco"), ("samples", "3"), ("kl", "added")],
            &[("estimator", "perturbed"), ("latent", "categorical:10")],
            &[("estimator", "perturbed"), ("latent", "supermodular:5"), ("samples", "2"), ("kl", "off")],
            &[("estimator", "adaptive-imle"), ("imle-lambda", "2")],
            &[("rao-blackwell", "true"), ("latent", "permutation:3")],
            &[("rao-blackwell", "true"), ("joint", "search"), ("latent", "chain:3x3")],
            &[("noise", "full"), ("latent", "pairwise:3")],
            &[("noise", "full"), ("joint", "exact"), ("latent", "pairwise:30")],
            &[("joint", "exact"), ("latent", "chain:30x4")],
            &[("joint", "search"), ("two-sided", "true"), ("latent", "pairwise:3")],
            &[("joint", "flips"), ("latent", "subset:4,2")],
            &[("kl", "added"), ("latent", "permutation:4")],
            &[("kl", "added"), ("latent", "pairwise:40")],
            &[("kl", "added"), ("estimator", "marginal")],
            &[("rounds", "0"), ("joint", "search"), ("latent", "pairwise:4")],
            &[("preset", "paperback")],
            &[("joint", "flips"), ("rao-blackwell", "true"), ("latent", "binary:4")],
            &[("estimator", "exact"), ("latent", "permutation:4")],
            // (1 - epsilon kl) w < 0
            &[("latent", "supermodular:21"), ("epsilon", "1.5")],
        ];
        for given in bad {
            let error = config(given).map(drop).expect_err(&format!("{given:?}"));
            assert!(error.is_usage() && !error.to_string().contains('\n'), "{error}");
        }
        let sums = [("labels", "10"), ("latent", "permutation:4"), ("supervised-loss", "cross-entropy"), ("kl", "off")];
        let error = config(&sums).unwrap_err().to_string();
        assert!(error.starts_with("supervised-loss = cross-entropy: expected argmax or fenchel-young"), "{error}");
        let error = config(&[("latent", "supermodular:21"), ("epsilon", "1.5")]).unwrap_err().to_string();
        assert!(error.starts_with("epsilon = 1.5: expected at most 1"), "{error}");
    }

    #[test]
    fn what_is_best_depends_on_the_latent_and_gives_way_to_what_is_chosen() {
        let settings = |given: &[(&str, &str)]| {
            let config = config(given).unwrap();
            let text = |key: &str| config.settings().get(key).unwrap().to_string();
            assert_eq!(read(&config.to_toml()).unwrap(), config, "{given:?}");
            ["joint", "rounds", "rao-blackwell", "epsilon"].map(text).join(" ")
        };
        let samples = |given: &[(&str, &str)]| config(given).unwrap().count("samples");
        assert_eq!(samples(&[("latent", "pairwise:40"), ("joint", "search")]), 2);
        assert_eq!(samples(&[("latent", "pairwise:40"), ("joint", "search"), ("samples", "1")]), 1);
        assert_eq!(samples(&[("latent", "pairwise:40"), ("preset", "paper")]), 1);
        assert_eq!(samples(&[("latent", "pairwise:40")]), 1);
        let searched = settings(&[("latent", "pairwise:40"), ("samples", "auto"), ("joint", "search")]);
        assert_eq!(searched, "search 8 false 0.3");
        assert_eq!(settings(&[("latent", "pairwise:80")]), searched);
        assert_eq!(settings(&[("latent", "pairwise:40")]), "off 8 true 0.03");
        assert_eq!(settings(&[("latent", "binary:15"), ("kl", "off")]), "search 1 false 1");
        assert_eq!(settings(&[("latent", "categorical:10"), ("kl", "added")]), "off 8 false 0.1");
        assert_eq!(settings(&[("latent", "categorical:10")]), "off 8 true 1");
        let (few, many) = (settings(&[("latent", "binary:15")]), settings(&[("latent", "binary:200")]));
        assert!(few == "off 8 true 0.1" && many == "search 0 true 0.003", "{few}, {many}");
        assert_eq!(settings(&[("latent", "binary:15"), ("kl", "warmup:5")]), "search 1 false 0.3");
        assert_eq!(settings(&[("latent", "binary:15"), ("kl", "added")]), "search 1 false 0.1");
        assert_eq!(settings(&[("latent", "binary:15"), ("joint", "search")]), "search 1 false 0.3");
        let between = settings(&[("latent", "binary:40")]);
        assert!(between.starts_with("off") && between.ends_with("true 0.01"), "{between}");
        assert_eq!(settings(&[("latent", "binary:40"), ("kl", "added")]), between);
        assert_eq!(settings(&[("latent", "binary:40"), ("kl", "off")]), "search 1 false 1");
        let forced = settings(&[("latent", "binary:40"), ("kl", "off"), ("rao-blackwell", "true")]);
        assert_eq!(forced, "off 8 true 0.1");
        assert_eq!(settings(&[("latent", "binary:200"), ("kl", "off")]), many);
        let asked = settings(&[("latent", "binary:40"), ("joint", "search")]);
        assert!(asked.starts_with("search 1 false"), "{asked}");
        let coupled = settings(&[("latent", "pairwise:15")]);
        assert_eq!(coupled, "off 8 true 0.1");
        assert_eq!(settings(&[("latent", "chain:8x4")]), coupled);
        assert_eq!(settings(&[("latent", "subset:10,3")]), "search 1 false 0.3");
        assert_eq!(settings(&[("latent", "pairwise:15"), ("joint", "search")]), "search 1 false 0.3");
        assert_eq!(settings(&[("latent", "pairwise:15"), ("rao-blackwell", "false")]), "search 1 false 0.3");
        assert_eq!(settings(&[("latent", "pairwise:15"), ("kl", "off")]), "off 8 true 0.3");
        assert_eq!(settings(&[("latent", "pairwise:40"), ("kl", "off")]), "off 8 true 0.3");
        assert_eq!(settings(&[("latent", "pairwise:80"), ("kl", "off")]), "search 8 false 1");
        // Who sets what only a search has wants one.
        assert_eq!(settings(&[("latent", "pairwise:15"), ("rounds", "3")]), "search 3 false 0.3");
        assert_eq!(settings(&[("latent", "binary:15"), ("halvings", "2")]), "search 1 false 0.3");
        assert_eq!(settings(&[("latent", "categorical:10"), ("first", "slopes")]), "search 1 false 1");
        assert_eq!(settings(&[("latent", "binary:200"), ("first", "changes")]), "search 8 false 0.3");
        assert_eq!(settings(&[("latent", "categorical:100"), ("joint", "search")]), "search 8 false 1");
        assert_eq!(coupled, settings(&[("latent", "pairwise:15"), ("joint", "auto"), ("epsilon", "auto")]));
        let chosen =
            settings(&[("latent", "binary:200"), ("joint", "off"), ("epsilon", "0.7"), ("rao-blackwell", "false")]);
        assert_eq!(chosen, "off 8 false 0.7");
        let exact = settings(&[("latent", "binary:4"), ("noise", "full"), ("joint", "exact")]);
        assert!(exact.starts_with("exact 8 false"), "{exact}");
        let paper = settings(&[("latent", "pairwise:15"), ("preset", "paper")]);
        assert_eq!(paper, "off 8 false 1");
    }

    #[test]
    fn what_has_no_effect_is_refused_where_it_is_given() {
        let refused = |given: &[(&str, &str)]| {
            let all: Given = given.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            config(given).unwrap().check_given(&all).err().map(|e| e.to_string())
        };
        for (given, what) in [
            (&[("supervision", "phases:3,4")][..], "supervision = phases:3,4: expected labels, which are none here"),
            (&[("label-draw", "1")], "label-draw = 1: expected labels"),
            (
                &[("labels", "10"), ("supervised-draws", "3")],
                "supervised-draws = 3: expected supervised-loss = fenchel",
            ),
            (
                &[("labels", "10"), ("supervised-loss", "cross-entropy"), ("supervised-epsilon", "0.1")],
                "supervised-epsilon = 0.1: expected supervised-loss = argmax",
            ),
            (&[("continuous-kl-weight", "2")], "continuous-kl-weight = 2: expected Gaussian codes"),
            (&[("dropout", "0.1")], "dropout = 0.1: expected Gaussian codes"),
        ] {
            let found = refused(given).unwrap_or_default();
            assert!(found.starts_with(what), "{found}");
        }
        assert_eq!(refused(&[("labels", "10"), ("label-draw", "1"), ("supervised-epsilon", "0.1")]), None);
        assert_eq!(refused(&[("continuous", "rows:3"), ("latent", "categorical:4"), ("dropout", "0.1")]), None);
        // What a preset brings is nobody's word.
        assert_eq!(refused(&[("preset", "paper"), ("continuous", "rows:3")]), None);
    }

    #[test]
    fn presets_are_those_of_the_paper_and_stand_below_what_is_given() {
        let paper = config(&[("preset", "paper"), ("lr", "0.01")]).unwrap();
        assert_eq!((paper.text("kl"), paper.whole("epochs"), paper.real("lr")), ("off", 300, 0.01));
        assert_eq!((paper.text("train-on"), paper.latent().text.as_str()), ("train", "categorical:10"));
        let structured = config(&[("preset", "paper"), ("latent", "pairwise:15")]).unwrap();
        assert!(structured.trains_on_all() && structured.real("epsilon-min") == 0.1);
        for (preset, estimator, kl) in [
            ("paper-direct", "direct", "off"),
            ("paper-gsm", "straight-through", "on"),
            ("paper-unbiased", "exact", "on"),
        ] {
            let config = config(&[("preset", preset)]).unwrap();
            assert_eq!((config.text("estimator"), config.text("kl")), (estimator, kl));
        }
        let mixed = [("preset", "paper"), ("continuous", "rows:30"), ("labels", "100")];
        let mixed = config(&mixed).unwrap();
        assert_eq!(
            (mixed.text("supervision"), mixed.whole("epochs"), mixed.text("kl")),
            ("phases:1200,400", 400, "off")
        );
        let (hidden, settings) = (mixed.text("hidden"), mixed.settings());
        assert!(hidden == "400,200" && !settings.switch("continuous-kl") && mixed.real("dropout") == 0.5);
        // Epsilon is 1 for an epoch, and then 0.1.
        assert_eq!((mixed.real("epsilon-decay"), mixed.whole("epsilon-every")), (0.01, 500));
        // What suits a data set is for those who have said nothing of it.
        let first = |given: &[(&str, &str)]| {
            let config = config(given).unwrap();
            (config.whole("epochs"), config.real("lr"))
        };
        assert_eq!((first(&[]), first(&[("dataset", "mnist")])), ((6, 0.003), (8, 0.001)));
        assert_eq!((first(&[("epochs", "9")]), first(&[("lr", "0.1")])), ((9, 0.001), (8, 0.1)));
        assert_eq!(first(&[("preset", "paper")]), (300, 0.001));
        // What the images, their likelihood and their attributes ask for stands above it.
        let faces = [("preset", "paper"), ("dataset", "celeba"), ("attributes", "Eyeglasses,Smiling,Male")];
        let faces = config(&faces).unwrap();
        assert_eq!((faces.latent().text.as_str(), faces.text("binarization")), ("categorical:8", "grey"));
        assert_eq!((faces.text("likelihood"), faces.whole("epochs")), ("logistic", 300));
        for (likelihood, pixels) in [("bernoulli", "round"), ("logistic", "grey"), ("gaussian", "grey")] {
            for preset in ["none", "paper"] {
                let given = [("preset", preset), ("dataset", "mnist"), ("likelihood", likelihood)];
                assert_eq!(config(&given).unwrap().text("binarization"), pixels, "{given:?}");
            }
        }
        let mixed = config(&[("preset", "paper-gsm"), ("continuous", "rows:30")]).unwrap();
        assert_eq!((mixed.text("estimator"), mixed.whole("epochs")), ("gumbel-softmax", 400));
        let rival = config(&[("preset", "paper"), ("estimator", "gumbel-softmax")]).unwrap();
        assert_eq!((rival.text("kl"), rival.real("temperature-decay")), ("on", 1e-5));
    }

    /// Found by a hostile tester: a warm-up reached it in its third epoch, and the learning rate was blamed.
    #[test]
    fn a_warmup_that_will_turn_the_signs_of_couplings_is_refused_at_the_beginning() {
        let given = [("latent", "supermodular:21"), ("epsilon", "1.5"), ("epsilon-decay", "0"), ("kl", "warmup:3")];
        let warm = config(&given).unwrap();
        let error = warm.check_schedules(&mut *warm.estimator().unwrap(), 10).unwrap_err();
        assert!(error.is_usage() && error.to_string().starts_with("epsilon = 1.5"), "{error}");
        // Two epochs never reach a weight of 2/3; a decay in time helps as well.
        let short = warm.with("epochs", "2").unwrap();
        short.check_schedules(&mut *short.estimator().unwrap(), 10).unwrap();
        let decays = warm.with("epsilon-decay", "0.1").unwrap().with("epsilon-every", "1").unwrap();
        decays.check_schedules(&mut *decays.estimator().unwrap(), 10).unwrap();
    }

    #[test]
    fn absurd_sizes_are_refused_before_memory_runs_out() {
        for given in [
            &[("hidden", "65536,65536,65536")][..],
            &[("hidden", "65536"), ("latent", "categorical:65536")],
            &[("hidden", "65536"), ("batch-size", "65536")],
            &[("samples", "10000"), ("latent", "categorical:65536")],
            &[("samples", "1000"), ("joint", "exact"), ("noise", "full"), ("latent", "pairwise:15")],
            &[("batch-size", "65536"), ("estimator", "exact"), ("latent", "binary:15")],
            &[("latent", "binary:32768"), ("joint", "off")],
            &[("latent", "categorical:65536")],
        ] {
            let error = config(given).map(drop).expect_err(&format!("{given:?}"));
            assert!(error.is_usage() && error.to_string().contains("at most"), "{error}");
        }
        for given in [
            &[("hidden", "4096,4096,4096")][..],
            &[("batch-size", "1000"), ("estimator", "exact"), ("latent", "binary:15")],
            &[("samples", "1000"), ("batch-size", "1000")],
            &[("latent", "categorical:20000")],
            &[("latent", "categorical:2x1000")],
            &[("latent", "binary:5000")],
        ] {
            config(given).unwrap();
        }
        let plain = config(&[]).unwrap();
        let estimator = plain.estimator().unwrap();
        let huge = plain.model_options(&*estimator, Shape::grey(1 << 12, 1 << 12));
        assert!(plain.model_entry().check(&huge).is_err());
    }

    /// Where the learning rate falls over the epochs, their number matters to every step.
    #[test]
    fn epochs_may_change_where_the_learning_rate_stays() {
        let path = Path::new("config.toml");
        for (decay, free) in [("none", true), ("cosine", false), ("linear", false)] {
            let old = config(&[("lr-decay", decay), ("epochs", "3")]).unwrap();
            let more = old.with("epochs", "5").unwrap();
            assert_eq!((old.digest() == more.digest(), old.check_resumable(&more, path).is_ok()), (free, free));
            let rates: Vec<f32> = (0..30).map(|step| old.rate(step, 10)).collect();
            assert_eq!(rates.windows(2).all(|pair| pair[1] < pair[0]), !free, "{rates:?}");
            assert!(rates.iter().all(|r| *r > 0.0 && *r <= 1.0) && (free || rates[29] < 0.02), "{rates:?}");
        }
        let linear = config(&[("lr-decay", "linear"), ("epochs", "2")]).unwrap();
        assert_eq!([0, 9, 19].map(|step| linear.rate(step, 10)), [0.975, 0.525, 0.025]);
    }

    #[test]
    fn a_resumed_run_may_only_change_what_does_not_matter() {
        let old = config(&[]).unwrap();
        let path = Path::new("config.toml");
        let free = old.with("epochs", "99").unwrap().with("checkpoint-every", "7").unwrap();
        old.check_resumable(&free, path).unwrap();
        assert_eq!(free.digest(), old.digest());
        let changed = old.with("lr", "0.5").unwrap();
        let error = old.check_resumable(&changed, path).unwrap_err();
        assert!(error.to_string().contains("lr = 0.003, found lr = 0.5"), "{error}");
        assert_ne!(changed.digest(), old.digest());
        assert!(old.check_resumable(&config(&[("estimator", "exact")]).unwrap(), path).is_err());
    }

    #[test]
    fn runs_are_told_apart_by_the_settings_in_which_they_differ() {
        let exact = config(&[("estimator", "exact"), ("seed", "1")]).unwrap();
        let direct = config(&[("seed", "1"), ("epsilon", "2"), ("latent", "categorical:10")]).unwrap();
        let names = Config::differences(&[direct, exact.clone()]);
        assert!(names[0].starts_with("direct, epsilon 2, ") && names[1] == "exact", "{names:?}");
        let seeds = Config::differences(&[exact.clone(), exact.with("seed", "2").unwrap()]);
        assert_eq!(seeds, ["seed 1", "seed 2"]);
        assert_eq!(Config::differences(&[exact.clone(), exact]), ["categorical:10", "categorical:10"]);
    }

    #[test]
    fn folders_of_long_latents_have_names_that_file_systems_take() {
        let plain = config(&[("latent", "tree:3:0,0,0")]).unwrap();
        assert_eq!(plain.default_folder(), Path::new("runs/glyphs-tree30-0-0-direct-s0"));
        let long = |last: &str| {
            let parents = format!("{}{last}", "0,".repeat(200));
            config(&[("latent", &format!("tree:2:{parents}"))]).unwrap().default_folder()
        };
        assert!(long("0").file_name().unwrap().len() < 256 && long("0") != long("1"));
    }
}
