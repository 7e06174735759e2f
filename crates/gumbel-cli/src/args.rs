//! The command line.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use gumbel_data::{Binarization, DatasetName, Source};
use gumbel_vae::config::{
    DeviceName, EngineName, EstimatorName, JointName, KlSchedule, Latent, NoiseName, TrainConfig,
};
use std::path::PathBuf;

/// Learn models with discrete latent variables through arg max.
#[derive(Debug, Parser)]
#[command(
    name = "gumbel",
    version,
    args_override_self = true,
    arg_required_else_help = true,
    after_help = "Examples:
  gumbel train                                            generated glyphs, no download, pictures in runs/
  gumbel train --dataset mnist --latent categorical:50 --kl off --epochs 60
  gumbel train --resume --out runs/mnist-categorical50-direct-s0
  gumbel evaluate runs/mnist-categorical50-direct-s0 --json
  gumbel sample runs/mnist-categorical50-direct-s0 --out grid.png

Exit codes: 0 success, 1 failure, 2 usage, 130 training stopped by a signal."
)]
pub struct Cli {
    /// Flags of all commands.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of all commands.
#[derive(Debug, Args)]
pub struct Common {
    /// One JSON object per line on stdout, and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// Only results and errors
    #[arg(long, global = true)]
    pub quiet: bool,
    /// Threads (default: all cores); results do not depend on it
    #[arg(long, global = true, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub threads: Option<usize>,
    /// Folder with mnist/, fashion-mnist/, omniglot/ under their original file names (default: the user's cache,
    /// filled by download)
    // Empty is the same as absent, in an environment, hence not the parser of paths, which refuses it.
    #[arg(long, global = true, value_name = "DIR", env = "GUMBEL_DATA", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub data_dir: Option<PathBuf>,
    /// Never use the network
    #[arg(long, global = true)]
    pub offline: bool,
}

impl Common {
    /// Where data sets are.
    pub fn source(&self) -> Source {
        let data_dir = self.data_dir.clone().filter(|d| !d.as_os_str().is_empty());
        Source { data_dir, offline: self.offline, ..Source::default() }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model; writes a run folder with metrics, checkpoints and pictures
    Train(Box<Train>),
    /// Evaluate the best model of a run
    Evaluate(Evaluate),
    /// Draw what the decoder makes of each category, or of samples of the prior
    Sample(Sample),
    /// Draw test images beside their reconstructions
    Reconstruct(Reconstruct),
    /// Show what a model has learned: potentials, couplings, active units, how its arg max moves
    Inspect(Inspect),
    /// Draw the curves of several runs over epochs and over time
    Curves(Curves),
    /// Look at, fetch and verify data sets
    Data {
        /// What to do.
        #[command(subcommand)]
        command: Data,
    },
    /// Solve arg max problems, one JSON object a line, exactly
    Solve(Solve),
    /// Measure speed
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: Bench,
    },
}

/// `gumbel train`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gumbel train
  gumbel train --dataset fashion-mnist --latent categorical:50 --estimator marginal --epochs 60
  gumbel train --dataset mnist --latent binary:15 --kl off
  gumbel train --dataset fashion-mnist --latent pairwise:15 --kl off --epochs 30
  gumbel train --config run.toml --seed 1 --out runs/second
  gumbel train --resume --out runs/second          goes on after kill or Ctrl-C, with the same final bits

Every flag is also a key of the TOML file; flags win. `config.toml` in a run folder is such a file.")]
pub struct Train {
    /// TOML file with any of the keys below
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Run folder (default: `runs/<dataset>-<latent>-<estimator>-s<seed>`)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the run in the folder
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace the run in the folder
    #[arg(long)]
    pub overwrite: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// Everything that defines a run; each may also stand in the TOML file.
#[derive(Debug, Args, Default)]
pub struct Settings {
    /// glyphs, mnist, fashion-mnist or omniglot [default: glyphs, generated]
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<DatasetName>,
    /// categorical:K, categorical:NxK, binary:N, pairwise:N, supermodular:N, chain:TxK, tree:NxK, tree:K:PARENTS,
    /// subset:N,K, permutation:N, spanning-tree:N or arborescence:N [default: categorical:10]
    #[arg(long)]
    pub latent: Option<Latent>,
    /// direct, gumbel-softmax, straight-through, exact, local-expectation or marginal [default: direct]
    #[arg(long, value_name = "NAME")]
    pub estimator: Option<EstimatorName>,
    /// Direct: start of epsilon, which decays as max(min, start * exp(-decay * step)) [default: 1.0]
    #[arg(long, allow_negative_numbers = true)]
    pub epsilon: Option<f64>,
    /// Direct: least epsilon [default: 0.1]
    #[arg(long, allow_negative_numbers = true)]
    pub epsilon_min: Option<f64>,
    /// Direct: decay per step [default: 1e-5]
    #[arg(long, allow_negative_numbers = true)]
    pub epsilon_decay: Option<f64>,
    /// Direct: steps between refreshes of epsilon [default: 1000]
    #[arg(long, value_name = "STEPS")]
    pub epsilon_every: Option<u64>,
    /// Direct: differences to both sides, with a bias of order epsilon²
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub two_sided: Option<bool>,
    /// Direct: the conditional expectation of the difference instead of a sample
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub rao_blackwell: Option<bool>,
    /// Direct, loss of the second arg max: off, the separable approximation around the sample; exact, the true one of
    /// every state (up to 32768); search, a local search with true losses [default: off]
    #[arg(long, value_name = "NAME")]
    pub joint: Option<JointName>,
    /// Direct, what is perturbed: unary potentials, or full, every state, with --joint exact [default: unary]
    #[arg(long, value_name = "NAME")]
    pub noise: Option<NoiseName>,
    /// Relaxed estimators: start of the temperature [default: 1.0]
    #[arg(long, allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Relaxed estimators: least temperature [default: 0.1]
    #[arg(long, allow_negative_numbers = true)]
    pub temperature_min: Option<f64>,
    /// Relaxed estimators: decay per step [default: 1e-5]
    #[arg(long, allow_negative_numbers = true)]
    pub temperature_decay: Option<f64>,
    /// Relaxed estimators: steps between refreshes of the temperature [default: 1000]
    #[arg(long, value_name = "STEPS")]
    pub temperature_every: Option<u64>,
    /// The KL term in training: on, off or warmup:EPOCHS; it is always part of the reported bound, and `marginal` has it
    /// in its objective whatever this says [default: on]
    #[arg(long)]
    pub kl: Option<KlSchedule>,
    /// Gumbel draws per example [default: 1]
    #[arg(long, value_name = "M")]
    pub samples: Option<usize>,
    /// Draws per image for paper_loss; 0: as the authors; exact and marginal always take the expectation [default: 0]
    #[arg(long, value_name = "M")]
    pub eval_samples: Option<usize>,
    /// Passes over the training images [default: 20]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Examples per step [default: 100]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Learning rate of Adam [default: 0.001]
    #[arg(long, allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Widths of the hidden layers, such as 300 or 400,200 [default: 300]
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',')]
    pub hidden: Option<Vec<usize>>,
    /// How grey images become binary: round, static, stochastic or grey [default: round]
    #[arg(long, value_name = "NAME")]
    pub binarization: Option<Binarization>,
    /// Only the first N training images; 0: all [default: 0]
    #[arg(long, value_name = "N")]
    pub train_limit: Option<usize>,
    /// Only the first N validation and test images; 0: all [default: 0]
    #[arg(long, value_name = "N")]
    pub eval_limit: Option<usize>,
    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// auto, autodiff or fused: how a step is executed [default: auto, fused where it fits]
    #[arg(long, value_name = "NAME")]
    pub engine: Option<EngineName>,
    /// cpu, or wgpu in builds with that feature [default: cpu]
    #[arg(long, value_name = "NAME")]
    pub device: Option<DeviceName>,
    /// Steps between checkpoints; 0: one epoch [default: 0]
    #[arg(long, value_name = "STEPS")]
    pub checkpoint_every: Option<u64>,
}

impl Settings {
    /// Puts the given flags over a configuration; true if there were any.
    pub fn apply(&self, config: &mut TrainConfig) -> bool {
        let mut any = false;
        macro_rules! put {
            ($($field:ident),+ $(,)?) => {$(
                if let Some(value) = &self.$field {
                    config.$field = value.clone();
                    any = true;
                }
            )+};
        }
        put!(
            dataset,
            latent,
            estimator,
            epsilon,
            epsilon_min,
            epsilon_decay,
            epsilon_every,
            two_sided,
            rao_blackwell,
            joint,
            noise,
            temperature,
            temperature_min,
            temperature_decay,
            temperature_every,
            kl,
            samples,
            eval_samples,
            epochs,
            batch_size,
            lr,
            hidden,
            binarization,
            train_limit,
            eval_limit,
            seed,
            engine,
            device,
            checkpoint_every,
        );
        any
    }
}

/// `gumbel evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// Run folder
    pub run: PathBuf,
    /// train, valid or test
    #[arg(long, default_value = "test", value_parser = split)]
    pub split: gumbel_data::Split,
    /// Draws per image for paper_loss (default: as in training)
    #[arg(long, value_name = "M", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub samples: Option<usize>,
}

fn split(text: &str) -> Result<gumbel_data::Split, String> {
    gumbel_data::Split::ALL
        .into_iter()
        .find(|s| s.to_string() == text)
        .ok_or_else(|| "expected train, valid or test".to_string())
}

/// `gumbel sample`.
#[derive(Debug, Args)]
pub struct Sample {
    /// Run folder
    pub run: PathBuf,
    /// PNG file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Rows of ten (default: all values of a K-way variable; ten rows of prior samples)
    #[arg(long, value_name = "R", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub rows: Option<usize>,
}

/// `gumbel reconstruct`.
#[derive(Debug, Args)]
pub struct Reconstruct {
    /// Run folder
    pub run: PathBuf,
    /// PNG file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `gumbel inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gumbel inspect runs/fashion-mnist-pairwise15-direct-s0 --out couplings.png")]
pub struct Inspect {
    /// Run folder
    pub run: PathBuf,
    /// PNG file to write: a heat map of the mean couplings of a pairwise model, red positive, blue negative
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Test images to look at; 0: all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// `gumbel curves`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gumbel curves runs/fashion-binary15 runs/fashion-pairwise15 --out curves.svg")]
pub struct Curves {
    /// Run folders
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// SVG file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// train, valid or test
    #[arg(long, default_value = "test", value_parser = split)]
    pub split: gumbel_data::Split,
}

/// `gumbel solve`.
#[derive(Debug, Args)]
#[command(after_help = r#"Problems, one a line; all are maximised:
  {"structure":"pairwise","unary":[n],"pairs":[[i,j,w],...]}     z in {0,1}^n, also "supermodular" (every w >= 0)
  {"structure":"categorical","scores":[K]}
  {"structure":"chain","unary":[[K] x T],"transition":[[[K] x K] x (T-1)]}
  {"structure":"tree","unary":[[K] x n],"edges":[[i,j,[[K] x K]],...]}
  {"structure":"subset","k":k,"scores":[n]}
  {"structure":"permutation","scores":[[n] x n]}                 z[i]: column of row i
  {"structure":"spanning-tree","nodes":n,"edges":[[i,j,w],...]}
  {"structure":"arborescence","root":r,"scores":[[n] x n]}       scores[parent][child]
null stands for -inf, a forbidden choice. "sum":true adds "log_partition", "marginals" and "pair_marginals".

Answers, one a line, in the same order:
  {"z":[...],"value":v,"proved":true,"gap":0.0,"seconds":s}      or {"error":"..."}, then the exit code is 1

Examples:
  echo '{"structure":"pairwise","unary":[1,-2,0.5],"pairs":[[0,1,3],[1,2,-1]]}' | gumbel solve
  gumbel solve problems.jsonl --threads 2 > answers.jsonl
  gumbel solve --format sparse --limit 10 bqp50-1.sparse"#)]
pub struct Solve {
    /// File of problems; - or nothing: standard input
    pub file: Option<PathBuf>,
    /// Seconds per problem after which the best assignment so far is printed with its gap (default: none)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub limit: Option<f64>,
    /// json, or sparse: the text format of OR-Library and BiqMac (header `n m`, then `i j q`, 1-based)
    #[arg(long, value_name = "NAME", value_enum, hide_possible_values = true, default_value_t = Format::Json)]
    pub format: Format,
    /// Minimise (sparse format only)
    #[arg(long)]
    pub minimise: bool,
}

/// Formats of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Sparse text.
    Sparse,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(s) if s > 0.0 && s <= 1e9 => Ok(s),
        _ => Err("expected a positive number of seconds".to_string()),
    }
}

/// `gumbel data`.
#[derive(Debug, Subcommand)]
pub enum Data {
    /// What is there
    List,
    /// Images per split, size, classes, ink
    Info {
        /// Data set
        name: DatasetName,
    },
    /// Download what is missing in the cache and check it
    Fetch {
        /// Data set
        name: DatasetName,
    },
    /// Compare checksums with the published ones
    Verify {
        /// Data set
        name: DatasetName,
    },
}

/// `gumbel bench`.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Time of a training step
    #[command(after_help = "Example:
  gumbel bench step --dataset mnist --latent categorical:50 --threads 2 --json
  GUMBEL_SIMD=avx2 gumbel bench step           the fused engine with less than the machine can do: avx2 or portable")]
    Step(Box<BenchStep>),
}

/// `gumbel bench step`.
#[derive(Debug, Args)]
pub struct BenchStep {
    /// Timed steps
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub steps: usize,
    /// Steps before the clock starts
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=1_000_000))]
    pub warmup: usize,
    /// TOML file with any of the keys below
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// Folds a message of the parser into one line, without its prefix and its hint at `--help`.
pub fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("For more information"));
    let text = lines.take_while(|l| !l.starts_with("Usage:")).collect::<Vec<_>>().join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_string()
}
