//! The configuration of a run: every key of the TOML file, checked before anything is done.

use crate::{Error, Result};
use gumbel::schedule::Annealing;
use gumbel::structure::{Categorical, Structure};
use gumbel_data::{Binarization, DatasetName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A name from a closed list, with a suggestion for a near miss.
fn unknown(name: &'static str, value: &str, all: &[&str]) -> Error {
    let near = all.iter().map(|n| (strsim::damerau_levenshtein(n, value), n)).min();
    let hint = match near {
        Some((distance, n)) if distance <= 3 && distance < n.len() => format!(" (did you mean {n}?)"),
        _ => String::new(),
    };
    Error::setting(name, format!("{value:?}"), format!("one of {}{hint}", all.join(", ")))
}

/// Implements Display, FromStr and serde as text for an enum of names.
macro_rules! names {
    ($type:ident, $setting:literal, $($name:literal => $variant:ident),+ $(,)?) => {
        impl $type {
            /// All names.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name, as on the command line.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(s: &str) -> Result<Self> {
                match s {
                    $($name => Ok($type::$variant),)+
                    _ => Err(unknown($setting, s, Self::NAMES)),
                }
            }
        }

        as_text!($type);
    };
}

macro_rules! as_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// How the gradient at the potentials is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EstimatorName {
    /// Direct optimisation through arg max.
    Direct,
    /// The relaxed Gumbel-Softmax sample (Jang et al. 2017, Maddison et al. 2017).
    GumbelSoftmax,
    /// Gumbel-Softmax backwards, its arg max forwards.
    StraightThrough,
    /// Enumeration of all states.
    Exact,
    /// Local expectation gradients.
    LocalExpectation,
    /// Exact -ln p(x) for the decoder, exact posterior for the encoder.
    Marginal,
}

names!(EstimatorName, "estimator",
    "direct" => Direct,
    "gumbel-softmax" => GumbelSoftmax,
    "straight-through" => StraightThrough,
    "exact" => Exact,
    "local-expectation" => LocalExpectation,
    "marginal" => Marginal,
);

/// How a step is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineName {
    /// The best that fits the model.
    Auto,
    /// Burn with automatic differentiation: any model, any device.
    Autodiff,
    /// Written out for perceptrons on binary images on the CPU.
    Fused,
}

names!(EngineName, "engine", "auto" => Auto, "autodiff" => Autodiff, "fused" => Fused);

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// Burn's `flex` backend.
    Cpu,
    /// Any graphics API; only in builds with the feature `wgpu`.
    Wgpu,
}

names!(DeviceName, "device", "cpu" => Cpu, "wgpu" => Wgpu);

impl DeviceName {
    /// The device of Burn, without automatic differentiation.
    pub fn open(self) -> Result<burn::tensor::Device> {
        match self {
            DeviceName::Cpu => Ok(burn::tensor::Device::flex()),
            #[cfg(feature = "wgpu")]
            DeviceName::Wgpu => Ok(burn::tensor::Device::wgpu(Default::default())),
            #[cfg(not(feature = "wgpu"))]
            DeviceName::Wgpu => {
                Err(Error::setting("device", "wgpu", "cpu (this build has no wgpu: build with `--features wgpu`)"))
            }
        }
    }
}

/// When the KL term takes part in training. It is always part of the reported bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlSchedule {
    /// From the first step: the bound itself is minimised.
    On,
    /// Never: only the reconstruction is minimised, as the authors do with direct optimisation.
    Off,
    /// Its weight grows linearly from 0 to 1 over the first epochs.
    Warmup(u32),
}

impl KlSchedule {
    /// The weight of the KL term at a training step.
    pub fn weight(self, step: u64, steps_per_epoch: u64) -> f32 {
        match self {
            KlSchedule::On => 1.0,
            KlSchedule::Off => 0.0,
            KlSchedule::Warmup(epochs) => {
                (step as f64 / (epochs as f64 * steps_per_epoch.max(1) as f64)).min(1.0) as f32
            }
        }
    }
}

impl fmt::Display for KlSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KlSchedule::On => f.write_str("on"),
            KlSchedule::Off => f.write_str("off"),
            KlSchedule::Warmup(epochs) => write!(f, "warmup:{epochs}"),
        }
    }
}

impl FromStr for KlSchedule {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match (s, s.strip_prefix("warmup:").map(u32::from_str)) {
            ("on", _) => Ok(KlSchedule::On),
            ("off", _) => Ok(KlSchedule::Off),
            (_, Some(Ok(epochs))) if epochs > 0 => Ok(KlSchedule::Warmup(epochs)),
            _ => Err(Error::setting("kl", format!("{s:?}"), "on, off or warmup:EPOCHS with at least 1 epoch")),
        }
    }
}

as_text!(KlSchedule);

/// The latent variable: its structure, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latent {
    /// `categorical:K` or `categorical:NxK`: N independent variables with K values each.
    Categorical {
        /// N.
        variables: usize,
        /// K.
        values: usize,
    },
    /// `binary:N`: N independent variables with two values.
    Binary {
        /// N.
        variables: usize,
    },
}

impl Latent {
    /// Largest number of potentials, N * K: the decoder's first layer has as many rows.
    pub const MAX_POTENTIALS: usize = 1 << 16;

    /// The structure that the text describes.
    pub fn structure(self) -> Categorical {
        let structure = match self {
            Latent::Categorical { variables, values } => Categorical::product(variables, values),
            Latent::Binary { variables } => Categorical::binary(variables),
        };
        structure.expect("a parsed latent is within the limits of its structure")
    }
}

impl fmt::Display for Latent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Latent::Categorical { variables: 1, values } => write!(f, "categorical:{values}"),
            Latent::Categorical { variables, values } => write!(f, "categorical:{variables}x{values}"),
            Latent::Binary { variables } => write!(f, "binary:{variables}"),
        }
    }
}

impl FromStr for Latent {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        const FORMS: &str = "categorical:K, categorical:NxK or binary:N";
        const KINDS: &[&str] = &["categorical", "binary"];
        let bad = |expected: String| Error::setting("latent", format!("{s:?}"), expected);
        let number = |text: &str| text.parse::<usize>().map_err(|_| bad(format!("{FORMS} with whole numbers")));
        let Some((kind, size)) = s.split_once(':') else {
            return Err(if KINDS.contains(&s) { bad(FORMS.into()) } else { unknown("latent", s, KINDS) });
        };
        let latent = match kind {
            "categorical" => match size.split_once('x') {
                Some((n, k)) => Latent::Categorical { variables: number(n)?, values: number(k)? },
                None => Latent::Categorical { variables: 1, values: number(size)? },
            },
            "binary" => Latent::Binary { variables: number(size)? },
            _ => return Err(unknown("latent", kind, KINDS)),
        };
        let (n, k) = match latent {
            Latent::Categorical { variables, values } => (variables, values),
            Latent::Binary { variables } => (variables, 2),
        };
        if n == 0 {
            return Err(bad("at least 1 variable".into()));
        }
        if k < 2 {
            return Err(bad(format!("at least 2 values: a variable with {k} carries no information")));
        }
        if n.checked_mul(k).is_none_or(|p| p > Self::MAX_POTENTIALS) {
            return Err(bad(format!("at most {} potentials (variables times values)", Self::MAX_POTENTIALS)));
        }
        Ok(latent)
    }
}

as_text!(Latent);

/// Everything that defines a run. All keys have defaults; see `gumbel train --help` for their meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Data set.
    pub dataset: DatasetName,
    /// Latent variable.
    pub latent: Latent,
    /// Gradient estimator.
    pub estimator: EstimatorName,
    /// Direct: start of epsilon, > 0.
    pub epsilon: f64,
    /// Direct: least epsilon.
    pub epsilon_min: f64,
    /// Direct: decay of epsilon per step.
    pub epsilon_decay: f64,
    /// Direct: steps between refreshes of epsilon.
    pub epsilon_every: u64,
    /// Direct: differences to both sides.
    pub two_sided: bool,
    /// Direct: conditional expectation instead of the sampled difference.
    pub rao_blackwell: bool,
    /// Relaxed estimators: start of the temperature, > 0.
    pub temperature: f64,
    /// Relaxed estimators: least temperature.
    pub temperature_min: f64,
    /// Relaxed estimators: decay of the temperature per step.
    pub temperature_decay: f64,
    /// Relaxed estimators: steps between refreshes of the temperature.
    pub temperature_every: u64,
    /// The KL term in training.
    pub kl: KlSchedule,
    /// Gumbel draws per example and training step.
    pub samples: usize,
    /// Gumbel draws per example for `paper-loss`; 0 chooses as the authors do: 1, and 100 for the relaxed estimators.
    /// Estimators that enumerate use the exact expectation.
    pub eval_samples: usize,
    /// Passes over the training images.
    pub epochs: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Learning rate of Adam.
    pub lr: f64,
    /// Widths of the hidden layers, encoder from the image on, decoder in reverse order.
    pub hidden: Vec<usize>,
    /// How grey images become binary.
    pub binarization: Binarization,
    /// Only the first images of the training split; 0 means all.
    pub train_limit: usize,
    /// Only the first images of validation and test split; 0 means all.
    pub eval_limit: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Execution of a step.
    pub engine: EngineName,
    /// Where tensors live.
    pub device: DeviceName,
    /// Steps between checkpoints; 0 means one epoch.
    pub checkpoint_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            dataset: DatasetName::Glyphs,
            latent: Latent::Categorical { variables: 1, values: 10 },
            estimator: EstimatorName::Direct,
            epsilon: 1.0,
            epsilon_min: 0.1,
            epsilon_decay: 1e-5,
            epsilon_every: 1000,
            two_sided: false,
            rao_blackwell: false,
            temperature: 1.0,
            temperature_min: 0.1,
            temperature_decay: 1e-5,
            temperature_every: 1000,
            kl: KlSchedule::On,
            samples: 1,
            eval_samples: 0,
            epochs: 20,
            batch_size: 100,
            lr: 1e-3,
            hidden: vec![300],
            binarization: Binarization::Round,
            train_limit: 0,
            eval_limit: 0,
            seed: 0,
            engine: EngineName::Auto,
            device: DeviceName::Cpu,
            checkpoint_every: 0,
        }
    }
}

/// Most weights of a network: half a gigabyte, of which training needs four times as much.
const MAX_WEIGHTS: usize = 1 << 27;
/// Most numbers in one intermediate result of a step: two gigabytes.
const MAX_NUMBERS: usize = 1 << 29;

/// Keys that a resumed run may change: they do not alter what a step computes.
const FREE_KEYS: &[&str] = &["epochs", "checkpoint-every", "engine", "device"];

impl TrainConfig {
    /// Reads a TOML file; unknown keys are errors.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|s| text[..s.start].matches('\n').count() + 1);
            let place = line.map(|l| format!("line {l}: ")).unwrap_or_default();
            let detail = format!("{place}{}", e.message().replace('\n', " "));
            Error::ConfigFile { path: path.to_path_buf(), detail }
        })
    }

    /// The resolved configuration as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration holds only numbers, names and lists")
    }

    /// The folder used when none is given: `runs/<dataset>-<latent>-<estimator>-s<seed>`.
    pub fn default_folder(&self) -> String {
        let latent = self.latent.to_string().replace(':', "");
        format!("runs/{}-{latent}-{}-s{}", self.dataset, self.estimator, self.seed)
    }

    /// Refuses values that make no sense, before anything is read or written.
    pub fn check(&self) -> Result<()> {
        self.epsilon_schedule()?;
        self.temperature_schedule()?;
        let positive = |name, value: usize, max: usize| match value {
            0 => Err(Error::setting(name, 0, format!("1 to {max}"))),
            v if v > max => Err(Error::setting(name, v, format!("1 to {max}"))),
            _ => Ok(()),
        };
        positive("batch-size", self.batch_size, 1 << 16)?;
        positive("epochs", self.epochs, 1_000_000)?;
        positive("samples", self.samples, 10_000)?;
        if self.eval_samples > 100_000 {
            return Err(Error::setting("eval-samples", self.eval_samples, "0 to 100000"));
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return Err(Error::setting("lr", self.lr, "a finite number greater than 0"));
        }
        for width in &self.hidden {
            positive("hidden", *width, 1 << 16)?;
        }
        if self.hidden.len() > 16 {
            return Err(Error::setting("hidden", format!("{} layers", self.hidden.len()), "at most 16 layers"));
        }
        if self.estimator != EstimatorName::Direct {
            for (name, on) in [("two-sided", self.two_sided), ("rao-blackwell", self.rao_blackwell)] {
                if on {
                    return Err(Error::setting(name, true, format!("--estimator direct, not {}", self.estimator)));
                }
            }
        }
        if matches!(self.estimator, EstimatorName::Exact | EstimatorName::Marginal) {
            gumbel::estimator::enumerable(&self.latent.structure()).map_err(|e| {
                Error::setting("latent", self.latent, format!("a latent that {} can enumerate: {e}", self.estimator))
            })?;
        }
        self.check_sizes()?;
        self.device.open().map(drop)
    }

    /// Refuses sizes that are no doubt a mistake, before memory runs out.
    fn check_sizes(&self) -> Result<()> {
        self.check_weights(1)?;
        let structure = self.latent.structure();
        let (potentials, changes) = (structure.potentials(), structure.variables() * (structure.values() - 1));
        // The codes of the decoder's table are K one-hot rows.
        if structure.variables() == 1 && potentials * potentials > MAX_NUMBERS {
            let most = MAX_NUMBERS.isqrt();
            return Err(Error::setting("latent", self.latent, format!("at most {most} values of a single variable")));
        }
        // An image is thought of as a kilopixel: its size is not known yet.
        let widest = self.hidden.iter().copied().fold(1024, usize::max);
        let rows = match self.estimator {
            EstimatorName::Direct | EstimatorName::LocalExpectation if structure.variables() > 1 => changes,
            EstimatorName::Exact | EstimatorName::Marginal => structure.states().unwrap_or(1).div_ceil(widest),
            _ => 1,
        };
        let numbers = self.batch_size.saturating_mul(rows.saturating_mul(widest).max(self.samples * potentials));
        if numbers > MAX_NUMBERS {
            let expected = format!(
                "a step of at most {MAX_NUMBERS} numbers at once, found {numbers} with {}, samples = {}, hidden = {:?}",
                self.latent, self.samples, self.hidden
            );
            return Err(Error::setting("batch-size", self.batch_size, expected));
        }
        Ok(())
    }

    /// Refuses networks of more weights than make sense, for images of so many pixels.
    pub(crate) fn check_weights(&self, pixels: usize) -> Result<()> {
        let potentials = self.latent.structure().potentials();
        let widths: Vec<usize> = [&[pixels], &self.hidden[..], &[potentials]].concat();
        let weights: usize = widths.windows(2).map(|w| w[0].saturating_mul(w[1])).fold(0, usize::saturating_add);
        if weights > MAX_WEIGHTS {
            let expected = format!("at most {MAX_WEIGHTS} weights in a network, found {weights} with {}", self.latent);
            return Err(Error::setting("hidden", format!("{:?}", self.hidden), expected));
        }
        Ok(())
    }

    /// epsilon as a function of the step.
    pub fn epsilon_schedule(&self) -> Result<Annealing> {
        schedule(
            [("epsilon", self.epsilon), ("epsilon-min", self.epsilon_min), ("epsilon-decay", self.epsilon_decay)],
            ("epsilon-every", self.epsilon_every),
        )
    }

    /// Temperature as a function of the step.
    pub fn temperature_schedule(&self) -> Result<Annealing> {
        schedule(
            [
                ("temperature", self.temperature),
                ("temperature-min", self.temperature_min),
                ("temperature-decay", self.temperature_decay),
            ],
            ("temperature-every", self.temperature_every),
        )
    }

    /// Refuses to resume a run with settings other than those it was started with.
    pub fn check_resumable(&self, asked: &TrainConfig, path: &Path) -> Result<()> {
        let table =
            |c: &TrainConfig| serde_json::to_value(c).expect("a configuration holds only numbers, names and lists");
        let (old, new) = (table(self), table(asked));
        for (key, value) in old.as_object().into_iter().flatten() {
            let found = &new[key];
            if !FREE_KEYS.contains(&key.as_str()) && found != value {
                let (path, key, old) = (path.to_path_buf(), key.clone(), value.to_string());
                return Err(Error::Changed { path, key, old, new: found.to_string() });
            }
        }
        Ok(())
    }
}

fn schedule(
    [(start_name, start), (min_name, min), (decay_name, decay)]: [(&'static str, f64); 3],
    (every_name, every): (&'static str, u64),
) -> Result<Annealing> {
    // A start below the least value is a constant, as `max(min, ...)` says; the least value must be possible itself.
    let min = if start.is_finite() { min.min(start) } else { min };
    Annealing::new(start, min, decay, every).map_err(|e| match e {
        gumbel::Error::Range { name, value, expected } => {
            let name = match name {
                "start" => start_name,
                "min" => min_name,
                "decay" => decay_name,
                _ => every_name,
            };
            Error::Setting { name, value, expected }
        }
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolved_configuration_reads_back() {
        let config = TrainConfig { hidden: vec![400, 200], kl: KlSchedule::Warmup(20), ..Default::default() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, config.to_toml()).unwrap();
        assert_eq!(TrainConfig::read(&path).unwrap(), config);
    }

    #[test]
    fn bad_files_are_reported_with_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        for (text, expected) in [
            ("lr = 1e-3\nepochz = 3\n", "line 2"),
            ("lr = [", "line 1"),
            ("estimator = \"dirct\"", "did you mean direct?"),
            ("lr = \"fast\"", "line 1"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = TrainConfig::read(&path).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("c.toml") && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn latents_parse_and_print() {
        for text in ["categorical:10", "categorical:3x4", "binary:15"] {
            assert_eq!(text.parse::<Latent>().unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("categorical:0", "at least 2 values"),
            ("categorical:1", "at least 2 values"),
            ("categorical:0x4", "at least 1 variable"),
            ("categorical:ten", "whole numbers"),
            ("categorical", "categorical:K"),
            ("categorial:10", "did you mean categorical?"),
            ("binary:-1", "whole numbers"),
            ("categorical:99999999999", "at most"),
        ] {
            let message = text.parse::<Latent>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        let default = TrainConfig::default();
        default.check().unwrap();
        let bad = [
            TrainConfig { lr: f64::NAN, ..default.clone() },
            TrainConfig { lr: 0.0, ..default.clone() },
            TrainConfig { batch_size: 0, ..default.clone() },
            TrainConfig { epochs: 0, ..default.clone() },
            TrainConfig { samples: 0, ..default.clone() },
            TrainConfig { hidden: vec![0], ..default.clone() },
            TrainConfig { epsilon: -1.0, ..default.clone() },
            TrainConfig { temperature: f64::INFINITY, ..default.clone() },
            TrainConfig { epsilon_every: 0, ..default.clone() },
            TrainConfig { estimator: EstimatorName::Exact, latent: "binary:40".parse().unwrap(), ..default.clone() },
            TrainConfig { estimator: EstimatorName::Exact, two_sided: true, ..default.clone() },
        ];
        for config in bad {
            let error = config.check().unwrap_err();
            assert!(error.is_usage() && !error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn absurd_sizes_are_refused_before_memory_runs_out() {
        let default = TrainConfig::default();
        let latent = |text: &str| TrainConfig { latent: text.parse().unwrap(), ..default.clone() };
        for config in [
            TrainConfig { hidden: vec![1 << 16; 3], ..default.clone() },
            TrainConfig { hidden: vec![1 << 16], ..latent("categorical:65536") },
            TrainConfig { hidden: vec![1 << 16], batch_size: 1 << 16, ..default.clone() },
            TrainConfig { samples: 10_000, ..latent("categorical:65536") },
            TrainConfig { batch_size: 1 << 16, estimator: EstimatorName::Exact, ..latent("binary:15") },
            latent("binary:32768"),
            latent("categorical:65536"),
        ] {
            let error = config.check().unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("at most"), "{error}");
        }
        for config in [
            TrainConfig { hidden: vec![4096; 3], ..default.clone() },
            TrainConfig { batch_size: 1000, estimator: EstimatorName::Exact, ..latent("binary:15") },
            TrainConfig { samples: 1000, batch_size: 1000, ..default.clone() },
            latent("categorical:20000"),
            latent("categorical:2x1000"),
            latent("binary:5000"),
        ] {
            config.check().unwrap();
        }
        assert!(default.check_weights(1 << 24).is_err());
    }

    #[test]
    fn kl_warms_up_linearly() {
        let kl: KlSchedule = "warmup:20".parse().unwrap();
        assert_eq!([0, 5_000, 10_000, 99_999].map(|s| kl.weight(s, 500)), [0.0, 0.5, 1.0, 1.0]);
        assert!("warmup:0".parse::<KlSchedule>().is_err() && "maybe".parse::<KlSchedule>().is_err());
    }

    #[test]
    fn a_resumed_run_may_only_change_what_does_not_matter() {
        let old = TrainConfig::default();
        let path = Path::new("config.toml");
        old.check_resumable(&TrainConfig { epochs: 99, checkpoint_every: 7, ..old.clone() }, path).unwrap();
        // TOML has no number of this size, yet it can be read and written.
        let large = TrainConfig { seed: u64::MAX, ..old.clone() };
        large.check_resumable(&large, path).unwrap();
        let error = old.check_resumable(&TrainConfig { lr: 0.5, ..old.clone() }, path).unwrap_err();
        assert!(error.to_string().contains("lr = 0.001, found lr = 0.5"), "{error}");
    }
}
