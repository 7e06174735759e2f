//! The configuration of a run: every key of the TOML file, checked before anything is done.

use crate::{Error, Result};
use gumbel::estimator::{Perturbation, enumerable};
use gumbel::schedule::Annealing;
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Code, Pairwise, Permutation, SpanningTree, Structure, Subset,
    Supermodular, Tree,
};
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

/// Which loss direct optimisation perturbs with where a latent has several variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JointName {
    /// The separable approximation around the sample, as in the paper.
    Off,
    /// The true loss of every state, by enumeration.
    Exact,
    /// The separable approximation, improved by a local search with true losses.
    Search,
}

names!(JointName, "joint", "off" => Off, "exact" => Exact, "search" => Search);

/// What direct optimisation adds Gumbel variables to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseName {
    /// The unary potentials, as in the paper.
    Unary,
    /// Every state: an exact sample of the Gibbs distribution.
    Full,
}

names!(NoiseName, "noise", "unary" => Unary, "full" => Full);

impl NoiseName {
    /// The estimator's word for it.
    pub fn perturbation(self) -> Perturbation {
        match self {
            NoiseName::Unary => Perturbation::Unary,
            NoiseName::Full => Perturbation::Full,
        }
    }
}

/// The latent variable: its structure, as text.
///
/// | text | structure |
/// |---|---|
/// | `categorical:K`, `categorical:NxK` | N independent variables with K values each |
/// | `binary:N` | N independent variables with two values |
/// | `pairwise:N` | N binary variables, a coupling of any sign for every pair |
/// | `supermodular:N` | the same with couplings of at least 0: the softplus of what the encoder emits |
/// | `chain:TxK` | T variables with K values in a row |
/// | `tree:NxK` | N variables with K values on a complete binary tree: the parent of variable i is (i - 1) / 2 |
/// | `tree:K:P1,P2,...` | the same on any tree: P1, P2, ... are the parents of the variables 1, 2, ..., each before its child |
/// | `subset:N,K` | K of N elements |
/// | `permutation:N` | permutations of N elements |
/// | `spanning-tree:N` | spanning trees of the complete graph with N nodes |
/// | `arborescence:N` | directed spanning trees of N nodes from node 0 |
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the letters of the table")]
pub enum Latent {
    /// `categorical:K` or `categorical:NxK`.
    Categorical { variables: usize, values: usize },
    /// `binary:N`.
    Binary { variables: usize },
    /// `pairwise:N`.
    Pairwise { variables: usize },
    /// `supermodular:N`.
    Supermodular { variables: usize },
    /// `chain:TxK`.
    Chain { variables: usize, values: usize },
    /// `tree:NxK` or `tree:K:P1,P2,...`.
    Tree {
        values: usize,
        /// Parents of the variables 1, 2, ...
        parents: Vec<usize>,
    },
    /// `subset:N,K`.
    Subset { elements: usize, chosen: usize },
    /// `permutation:N`.
    Permutation { size: usize },
    /// `spanning-tree:N`.
    SpanningTree { nodes: usize },
    /// `arborescence:N`.
    Arborescence { nodes: usize },
}

/// Every kind of latent with its forms.
const LATENTS: &[(&str, &str)] = &[
    ("categorical", "categorical:K or categorical:NxK"),
    ("binary", "binary:N"),
    ("pairwise", "pairwise:N"),
    ("supermodular", "supermodular:N"),
    ("chain", "chain:TxK"),
    ("tree", "tree:NxK or tree:K:P1,P2,... with the parents of the variables 1, 2, ..."),
    ("subset", "subset:N,K"),
    ("permutation", "permutation:N"),
    ("spanning-tree", "spanning-tree:N"),
    ("arborescence", "arborescence:N"),
];

impl Latent {
    /// Largest number of potentials: the encoder's last layer has as many columns.
    pub const MAX_POTENTIALS: usize = 1 << 16;

    /// The structure that the text describes.
    pub fn structure(&self) -> AnyStructure {
        self.build().expect("a parsed latent is within the limits of its structure")
    }

    fn build(&self) -> Result<AnyStructure, gumbel::Error> {
        Ok(match self {
            Latent::Categorical { variables, values } => Categorical::product(*variables, *values)?.into(),
            Latent::Binary { variables } => Categorical::binary(*variables)?.into(),
            Latent::Pairwise { variables } => Pairwise::new(*variables)?.into(),
            Latent::Supermodular { variables } => Supermodular::new(*variables)?.into(),
            Latent::Chain { variables, values } => Chain::new(*variables, *values)?.into(),
            Latent::Tree { values, parents } => {
                let edges: Vec<(usize, usize)> = parents.iter().enumerate().map(|(i, p)| (*p, i + 1)).collect();
                Tree::new(parents.len() + 1, *values, &edges)?.into()
            }
            Latent::Subset { elements, chosen } => Subset::new(*elements, *chosen)?.into(),
            Latent::Permutation { size } => Permutation::new(*size)?.into(),
            Latent::SpanningTree { nodes } => SpanningTree::complete(*nodes)?.into(),
            Latent::Arborescence { nodes } => Arborescence::new(*nodes, 0)?.into(),
        })
    }

    /// Number of potentials, if it fits into an integer.
    fn potentials(&self) -> Option<usize> {
        let pairs = |n: usize| n.checked_mul(n.checked_sub(1)?).map(|p| p / 2);
        let tables =
            |n: usize, k: usize| n.checked_mul(k)?.checked_add(n.checked_sub(1)?.checked_mul(k.checked_mul(k)?)?);
        match *self {
            Latent::Categorical { variables, values } => variables.checked_mul(values),
            Latent::Binary { variables } => variables.checked_mul(2),
            Latent::Pairwise { variables: n } | Latent::Supermodular { variables: n } => pairs(n)?.checked_add(2 * n),
            Latent::Chain { variables, values } => tables(variables, values),
            Latent::Tree { values, ref parents } => tables(parents.len() + 1, values),
            Latent::Subset { elements, .. } => Some(elements),
            Latent::SpanningTree { nodes } => pairs(nodes),
            Latent::Permutation { size: n } | Latent::Arborescence { nodes: n } => n.checked_mul(n),
        }
    }

    /// What is wrong with the sizes.
    fn problem(&self) -> Option<String> {
        let (least, values) = match *self {
            Latent::Categorical { variables, values } | Latent::Chain { variables, values } => (variables, values),
            Latent::Tree { values, .. } => (1, values),
            Latent::Binary { variables: n }
            | Latent::Pairwise { variables: n }
            | Latent::Supermodular { variables: n } => (n, 2),
            _ => (1, 2),
        };
        if least == 0 {
            return Some("at least 1 variable".into());
        }
        if values < 2 {
            return Some(format!("at least 2 values: a variable with {values} carries no information"));
        }
        let one_state = |least: usize| Some(format!("at least {least}: fewer have one state only"));
        match *self {
            Latent::Subset { elements, chosen } if chosen == 0 || chosen >= elements => {
                Some("1 to N - 1 of N elements: none or all is one state only".into())
            }
            Latent::Permutation { size } if size < 2 => one_state(2),
            Latent::SpanningTree { nodes } | Latent::Arborescence { nodes } if nodes < 3 => one_state(3),
            _ if self.potentials().is_none_or(|p| p > Self::MAX_POTENTIALS) => {
                Some(format!("at most {} potentials", Self::MAX_POTENTIALS))
            }
            _ => self.build().err().map(|e| e.to_string()),
        }
    }
}

/// The parents of the variables 1, 2, ... of a complete binary tree with n variables.
fn binary_tree(n: usize) -> Vec<usize> {
    (1..n).map(|i| (i - 1) / 2).collect()
}

impl fmt::Display for Latent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Latent::Categorical { variables: 1, values } => write!(f, "categorical:{values}"),
            Latent::Categorical { variables, values } => write!(f, "categorical:{variables}x{values}"),
            Latent::Binary { variables } => write!(f, "binary:{variables}"),
            Latent::Pairwise { variables } => write!(f, "pairwise:{variables}"),
            Latent::Supermodular { variables } => write!(f, "supermodular:{variables}"),
            Latent::Chain { variables, values } => write!(f, "chain:{variables}x{values}"),
            Latent::Tree { values, parents } if *parents == binary_tree(parents.len() + 1) => {
                write!(f, "tree:{}x{values}", parents.len() + 1)
            }
            Latent::Tree { values, parents } => {
                let parents: Vec<String> = parents.iter().map(usize::to_string).collect();
                write!(f, "tree:{values}:{}", parents.join(","))
            }
            Latent::Subset { elements, chosen } => write!(f, "subset:{elements},{chosen}"),
            Latent::Permutation { size } => write!(f, "permutation:{size}"),
            Latent::SpanningTree { nodes } => write!(f, "spanning-tree:{nodes}"),
            Latent::Arborescence { nodes } => write!(f, "arborescence:{nodes}"),
        }
    }
}

impl FromStr for Latent {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let bad = |expected: String| Error::setting("latent", format!("{s:?}"), expected);
        let (kind, size) = s.split_once(':').map_or((s, None), |(kind, size)| (kind, Some(size)));
        let Some((_, forms)) = LATENTS.iter().find(|(name, _)| *name == kind) else {
            return Err(unknown("latent", kind, &LATENTS.iter().map(|(name, _)| *name).collect::<Vec<_>>()));
        };
        let number = |text: &str| text.parse::<usize>().map_err(|_| bad(format!("{forms} with whole numbers")));
        let pair = |text: &str, by: char| match text.split_once(by) {
            Some((a, b)) => Ok((number(a)?, number(b)?)),
            None => Err(bad(forms.to_string())),
        };
        let size = size.ok_or_else(|| bad(forms.to_string()))?;
        let latent = match kind {
            "categorical" if !size.contains('x') => Latent::Categorical { variables: 1, values: number(size)? },
            "categorical" => pair(size, 'x').map(|(variables, values)| Latent::Categorical { variables, values })?,
            "binary" => Latent::Binary { variables: number(size)? },
            "pairwise" => Latent::Pairwise { variables: number(size)? },
            "supermodular" => Latent::Supermodular { variables: number(size)? },
            "chain" => pair(size, 'x').map(|(variables, values)| Latent::Chain { variables, values })?,
            "tree" => match size.split_once(':') {
                Some((values, parents)) => {
                    let parents = parents.split(',').map(number).collect::<Result<Vec<_>>>()?;
                    if let Some(i) = (0..parents.len()).find(|i| parents[*i] > *i) {
                        let expected = format!("a parent of variable {} from 0 to {i}, not {}", i + 1, parents[i]);
                        return Err(bad(expected));
                    }
                    Latent::Tree { values: number(values)?, parents }
                }
                None => {
                    let (variables, values) = pair(size, 'x')?;
                    if variables == 0 || variables > Self::MAX_POTENTIALS {
                        return Err(bad(format!("1 to {} variables", Self::MAX_POTENTIALS)));
                    }
                    Latent::Tree { values, parents: binary_tree(variables) }
                }
            },
            "subset" => pair(size, ',').map(|(elements, chosen)| Latent::Subset { elements, chosen })?,
            "permutation" => Latent::Permutation { size: number(size)? },
            "spanning-tree" => Latent::SpanningTree { nodes: number(size)? },
            _ => Latent::Arborescence { nodes: number(size)? },
        };
        match latent.problem() {
            Some(expected) => Err(bad(expected)),
            None => Ok(latent),
        }
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
    /// Direct: the loss of the second arg max.
    pub joint: JointName,
    /// Direct: what is perturbed.
    pub noise: NoiseName,
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
            joint: JointName::Off,
            noise: NoiseName::Unary,
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
        let latent = self.latent.to_string().replace(':', "").replace(',', "-");
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
        self.check_estimator()?;
        self.check_sizes()?;
        self.device.open().map(drop)
    }

    /// Refuses an estimator, or its options, that the latent variable cannot have.
    fn check_estimator(&self) -> Result<()> {
        let structure = self.latent.structure();
        let direct = self.estimator == EstimatorName::Direct;
        for (name, on, value) in [
            ("two-sided", self.two_sided, "true"),
            ("rao-blackwell", self.rao_blackwell, "true"),
            ("joint", self.joint != JointName::Off, self.joint.name()),
            ("noise", self.noise != NoiseName::Unary, self.noise.name()),
        ] {
            if on && !direct {
                return Err(Error::setting(name, value, format!("--estimator direct, not {}", self.estimator)));
            }
        }
        let enumerates = match self.estimator {
            EstimatorName::Exact | EstimatorName::Marginal => Some(self.estimator.name()),
            _ if self.noise == NoiseName::Full => Some("full noise"),
            _ if self.joint == JointName::Exact => Some("the joint loss"),
            _ => None,
        };
        if let Some(what) = enumerates {
            enumerable(&structure).map_err(|e| {
                Error::setting("latent", &self.latent, format!("a latent that {what} can enumerate: {e}"))
            })?;
        }
        if structure.block(0).is_none() {
            let independent = match self.estimator {
                EstimatorName::GumbelSoftmax | EstimatorName::StraightThrough | EstimatorName::LocalExpectation => {
                    Some(self.estimator.name())
                }
                _ => self.rao_blackwell.then_some("rao-blackwell"),
            };
            if let Some(what) = independent {
                let expected = format!("independent variables for {what}: categorical:NxK or binary:N");
                return Err(Error::setting("latent", &self.latent, expected));
            }
        }
        match (self.joint, self.noise) {
            (JointName::Off | JointName::Search, NoiseName::Full) => {
                return Err(Error::setting("noise", self.noise, "unary, or full with --joint exact"));
            }
            (JointName::Off, NoiseName::Unary) => {}
            _ if self.rao_blackwell => {
                return Err(Error::setting("joint", self.joint, "off with --rao-blackwell"));
            }
            (JointName::Search, _) if self.two_sided => {
                return Err(Error::setting("joint", self.joint, "off or exact with --two-sided"));
            }
            (JointName::Search, _) if structure.code() == Code::Indicators => {
                let expected =
                    "off or exact: the search changes one variable at a time, which leaves this latent's states";
                return Err(Error::setting("joint", self.joint, expected));
            }
            _ => {}
        }
        // Without sums the KL is in the perturbation of direct, see `Direct::with_kl`.
        if !structure.has_sums() && self.kl != KlSchedule::Off && self.estimator != EstimatorName::Marginal {
            let expected = format!("off: the KL of {} is tractable for direct with --joint off only", self.latent);
            if !direct || self.joint != JointName::Off {
                return Err(Error::setting("kl", self.kl, expected));
            }
        }
        Ok(())
    }

    /// Refuses sizes that are no doubt a mistake, before memory runs out.
    fn check_sizes(&self) -> Result<()> {
        self.check_weights(1)?;
        let structure = self.latent.structure();
        let (potentials, changes) = (structure.potentials(), structure.code().changes(structure.unary()));
        // The codes of the decoder's table are K one-hot rows.
        if structure.variables() == 1 && potentials * potentials > MAX_NUMBERS {
            let most = MAX_NUMBERS.isqrt();
            return Err(Error::setting("latent", &self.latent, format!("at most {most} values of a single variable")));
        }
        // An image is thought of as a kilopixel: its size is not known yet.
        let widest = self.hidden.iter().copied().fold(1024, usize::max);
        let rows = match self.estimator {
            EstimatorName::Direct | EstimatorName::LocalExpectation if structure.variables() > 1 => changes,
            EstimatorName::Exact | EstimatorName::Marginal => structure.states().unwrap_or(1).div_ceil(widest),
            _ => 1,
        };
        // Losses of all states, and with full noise a Gumbel variable for each in every sample.
        let states = match (self.joint, self.noise) {
            (JointName::Exact, NoiseName::Full) => structure.states().unwrap_or(1).saturating_mul(self.samples),
            (JointName::Exact, NoiseName::Unary) => structure.states().unwrap_or(1),
            _ => 1,
        };
        let rows = rows.max(states.div_ceil(widest));
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
        for text in [
            "categorical:10",
            "categorical:3x4",
            "binary:15",
            "pairwise:15",
            "supermodular:15",
            "chain:4x3",
            "tree:7x2",
            "tree:3:0,0,1,1,1",
            "tree:2:0",
            "subset:10,3",
            "permutation:5",
            "spanning-tree:6",
            "arborescence:5",
        ] {
            let parsed = text.parse::<Latent>().unwrap();
            assert_eq!(Some(parsed.structure().potentials()), parsed.potentials(), "{text}");
            if text == "tree:2:0" {
                assert_eq!(parsed.to_string(), "tree:2x2");
                continue;
            }
            assert_eq!(text.parse::<Latent>().unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("categorical:0", "at least 2 values"),
            ("categorical:1", "at least 2 values"),
            ("categorical:0x4", "at least 1 variable"),
            ("categorical:ten", "whole numbers"),
            ("categorical", "categorical:K"),
            ("categorial:10", "did you mean categorical?"),
            ("pairwize:3", "did you mean pairwise?"),
            ("spaning-tree:3", "did you mean spanning-tree?"),
            ("pairwise", "pairwise:N"),
            ("pairwise:0", "at least 1 variable"),
            ("pairwise:2000", "at most"),
            ("pairwise:18446744073709551615", "at most"),
            ("supermodular:3x4", "supermodular:N with whole numbers"),
            ("chain:5", "chain:TxK"),
            ("chain:4x1", "at least 2 values"),
            ("chain:99999999999x99999999999", "at most"),
            ("tree:0x2", "1 to 65536 variables"),
            ("tree:2:0,2", "a parent of variable 2 from 0 to 1, not 2"),
            ("tree:2:", "whole numbers"),
            ("subset:5", "subset:N,K"),
            ("subset:5,5", "1 to N - 1"),
            ("permutation:1", "at least 2"),
            ("permutation:999999999999", "at most"),
            ("spanning-tree:2", "at least 3"),
            ("arborescence:-1", "whole numbers"),
            ("binary:-1", "whole numbers"),
            ("categorical:99999999999", "at most"),
        ] {
            let message = text.parse::<Latent>().unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{text}: {message}");
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        let default = TrainConfig::default();
        default.check().unwrap();
        let with = |latent: &str| TrainConfig { latent: latent.parse().unwrap(), ..default.clone() };
        for good in [
            TrainConfig { joint: JointName::Search, kl: KlSchedule::Off, ..with("pairwise:40") },
            TrainConfig { joint: JointName::Search, ..with("chain:30x4") },
            TrainConfig { joint: JointName::Exact, noise: NoiseName::Full, two_sided: true, ..with("subset:6,2") },
            TrainConfig { estimator: EstimatorName::Exact, ..with("pairwise:15") },
            TrainConfig { estimator: EstimatorName::Exact, kl: KlSchedule::Off, ..with("permutation:4") },
            with("permutation:12"),
            with("pairwise:40"),
        ] {
            good.check().unwrap();
        }
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
            TrainConfig { estimator: EstimatorName::Exact, joint: JointName::Exact, ..default.clone() },
            TrainConfig { estimator: EstimatorName::GumbelSoftmax, ..with("pairwise:3") },
            TrainConfig { estimator: EstimatorName::LocalExpectation, ..with("subset:4,2") },
            TrainConfig { rao_blackwell: true, ..with("chain:3x3") },
            TrainConfig { noise: NoiseName::Full, ..with("pairwise:3") },
            TrainConfig { noise: NoiseName::Full, joint: JointName::Exact, ..with("pairwise:30") },
            TrainConfig { joint: JointName::Exact, ..with("chain:30x4") },
            TrainConfig { joint: JointName::Search, two_sided: true, ..with("pairwise:3") },
            TrainConfig { joint: JointName::Search, ..with("subset:4,2") },
            TrainConfig { joint: JointName::Exact, ..with("permutation:4") },
            TrainConfig { estimator: EstimatorName::Exact, ..with("permutation:4") },
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
            TrainConfig { samples: 1000, joint: JointName::Exact, noise: NoiseName::Full, ..latent("pairwise:15") },
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
