//! The command line.

use crate::output::Failure;
use crate::registry;
use clap::builder::{OsStringValueParser, RangedI64ValueParser, RangedU64ValueParser, TypedValueParser};
use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use gumbel::estimator::EstimatorEntry;
use gumbel::registry::{Entry, Kind, Setting};
use gumbel_data::Source;
use gumbel_run::config::{Given, KEYS};
use std::ffi::OsString;
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
  gumbel sweep table1.toml && gumbel collect runs/table1
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

/// A folder's name, which may be empty.
fn folder() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A whole number in a range.
fn whole(range: std::ops::RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

/// A share of a sweep, from 0; a number below is answered with the range.
fn share() -> RangedI64ValueParser<usize> {
    RangedI64ValueParser::new().range(0..=1_000_000)
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
    #[arg(long, global = true, value_name = "N", value_parser = whole(1..=1024))]
    pub threads: Option<usize>,
    /// Folder with mnist/, fashion-mnist/, omniglot/, celeba/ under their original file names (default: the user's
    /// cache, filled by download)
    // Empty is the same as absent, in an environment, hence not the parser of paths, which refuses it.
    #[arg(long, global = true, value_name = "DIR", env = "GUMBEL_DATA", value_parser = folder())]
    pub data_dir: Option<PathBuf>,
    /// Never use the network
    #[arg(long, global = true)]
    pub offline: bool,
    /// How this program is started again, if not as this executable.
    #[arg(skip)]
    pub program: Option<Program>,
}

/// How a program is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable file.
    pub file: PathBuf,
    /// Words before its arguments: for an interpreter, what it is to run.
    pub words: Vec<OsString>,
}

impl Common {
    /// How this program is started again.
    pub fn again(&self) -> Result<Program, Failure> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        let file = std::env::current_exe().map_err(|e| Failure::Other(format!("cannot find this program: {e}")))?;
        Ok(Program { file, words: vec![] })
    }

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
    /// Train every combination of some settings, several at a time
    Sweep(Sweep),
    /// Put finished runs into a table: what differs, and what they have reached, averaged over seeds
    Collect(Collect),
    /// Make the tables and figures of the paper again, and a page with what was published beside them
    Reproduce(Reproduce),
    /// Evaluate the best model of a run
    Evaluate(Evaluate),
    /// Draw what the decoder makes of each category, or of samples of the prior
    Sample(Sample),
    /// Draw test images beside their reconstructions
    Reconstruct(Reconstruct),
    /// Draw what coordinates of a Gaussian code do: each slides while everything else stays
    Traverse(Traverse),
    /// Draw attributes on and off, or class by class, at the same Gaussian code
    Attributes(Attributes),
    /// Show what a model has learned: potentials, couplings, active units, how its arg max moves
    Inspect(Inspect),
    /// Measure bias, variance and cost of gradient estimators at a run's frozen parameters
    Diagnose(Diagnose),
    /// Draw the curves of several runs over epochs and over time
    Curves(Curves),
    /// Write a page about runs: tables, curves, pictures, settings; or event files for TensorBoard
    Report(Report),
    /// What there is: estimators, latents, datasets, models, likelihoods, with their settings
    List(List),
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
#[command(after_help = after_train())]
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

/// `gumbel sweep`.
#[derive(Debug, Args)]
#[command(after_help = r#"A grid file:
  out = "runs/table1"                          the folder (default: runs/ and the name of the file)
  [run]                                        keys of every run
  dataset = ["mnist", "fashion-mnist"]         a list has alternatives, which are all combined
  epochs = 300
  hidden = "400,200"                           a value that is a list is written as text
  seed = { from = 0, to = 2 }                  numbers from 0 to 2; "step = 2" may be added
  [cell.direct]                                named cells, each with every combination; their keys win over [run]'s
  preset = "paper-direct"
  [cell.gsm]
  preset = "paper-gsm"

Each cell is trained by a process of its own in a folder of its own; finished cells are skipped and started ones go on,
so that the same command goes on after kill or Ctrl-C. Several processes, also on several machines, may sweep the same
folder. With --json there is a line for each cell that ends: "cell", "folder", "status" (finished, skipped, elsewhere,
failed, stopped), "seconds", and of its summary "best_epoch", "bound", "nll" and "accuracy" of the test, or "error".

Examples:
  gumbel sweep table1.toml --dry-run
  gumbel sweep table1.toml --jobs 8 --set epochs=10
  gumbel sweep table1.toml --index 0 --of 4       a quarter of the cells, for one of four machines
  gumbel sweep table1.toml --print-sbatch --of 40 --time 8:00:00 > job.sh && sbatch job.sh
  gumbel collect runs/table1"#)]
pub struct Sweep {
    /// Grid file
    pub grid: PathBuf,
    /// Folder of the runs
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Cells at a time, each with one thread or as many as --threads says (default: as many as there are cores for)
    #[arg(long, value_name = "N", value_parser = whole(1..=1024))]
    pub jobs: Option<usize>,
    /// Only the share I of --of, from 0
    #[arg(long, value_name = "I", requires = "of", allow_negative_numbers = true, value_parser = share())]
    pub index: Option<usize>,
    /// Shares; every cell is in one of them
    #[arg(long, value_name = "N", value_parser = whole(1..=1_000_000))]
    pub of: Option<usize>,
    /// A value over those of the file, in all cells
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, action = clap::ArgAction::Append)]
    pub set: Vec<(String, String)>,
    /// List the cells in the order in which they would begin, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print a script for Slurm's sbatch: an array of --of tasks (default: one for every cell)
    #[arg(long, conflicts_with_all = ["dry_run", "index"])]
    pub print_sbatch: bool,
    /// Time limit of a task in that script; what is not finished by then goes on in the next one
    #[arg(long, value_name = "TIME", default_value = "24:00:00", requires = "print_sbatch", value_parser = time_limit)]
    pub time: String,
    /// Seconds after which a cell is taken over whose process on another machine gives no sign of life
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub stale: f64,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as epochs=10")?;
    Ok((key.trim().to_string(), value.trim().to_string()))
}

/// As sbatch has it: minutes, hours:minutes:seconds, days-hours, ...
fn time_limit(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b':' || b == b'-') {
        true => Ok(text.to_string()),
        false => Err("expected a time such as 8:00:00 or 2-12".to_string()),
    }
}

/// `gumbel reproduce`.
#[derive(Debug, Args)]
#[command(after_help = "Trains what is missing, in OUT/EXPERIMENT/runs, keeps a small record of every finished run in
OUT/EXPERIMENT/results, and writes OUT/report/index.html and OUT/reproduce.md: the paper, the authors' code and ours
side by side. The same command goes on after kill or Ctrl-C. What has a record and no run is not trained again: copy
experiments/NAME/results of the repository to OUT/NAME/results to train only what is missing there. With --json there
is a line for each place of the tables:
\"experiment\", \"table\", \"row\", \"column\", \"metric\", \"paper\", \"authors\", \"mean\", \"se\", \"n\",
\"quick\" (whether runs of a quick look are in it), \"sources\" (the places of its figures in the records).

Experiments: table1, table1-bound (one objective, and our best), table1-kl (KL term x estimator), figure1, figure2,
figure3a, figure3b, n200, epsilon-lr, table2, table2-long (all 400 epochs), labels-epsilon, labels-best, figure4,
figure5 (convolutions); a beginning such as figure3, a folder of your own with grid.toml and published.toml, or all.

Examples:
  gumbel reproduce table1 --dry-run
  gumbel reproduce figure2 --jobs 8
  gumbel reproduce all --quick                         short runs, to see that everything works
  gumbel reproduce all --results experiments --out /tmp/page     the page of the records of this repository")]
pub struct Reproduce {
    /// Experiments, or all
    #[arg(required = true)]
    pub experiments: Vec<String>,
    /// A quick look: one seed, a tenth of the training steps or less
    #[arg(long)]
    pub quick: bool,
    /// Seeds of every cell (default: what each experiment has: 1, and three draws of the labels where labels are few)
    #[arg(long, value_name = "N", conflicts_with = "quick", value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// Cells at a time, each with one thread or as many as --threads says (default: as many as there are cores for)
    #[arg(long, value_name = "N", value_parser = whole(1..=1024))]
    pub jobs: Option<usize>,
    /// Folder of runs, records and report (default: runs/reproduce, with --quick runs/quick)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Train nothing: write the report of the records in this folder, as those of the repository in experiments/
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dry_run", "jobs", "seeds"])]
    pub results: Option<PathBuf>,
    /// List the cells in the order in which they would begin, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `gumbel collect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gumbel collect runs/table1
  gumbel collect runs --columns dataset,latent,lr,bound,nll --csv --out table.csv

A row has the runs that differ in the seed only, a column is a setting in which rows differ, or a figure: the mean over
seeds and its standard error. Figures are those of the test split at the epoch with the least validation bound, and
those that begin with `final` at the last one: valid_bound, bound, nll, paper_loss, kl, accuracy, bits_per_dimension,
final_bound, final_nll, final_paper_loss, final_kl, final_accuracy, seconds. In bold is, for each data set and latent,
the row with the least mean validation bound among those that can be compared: of the same pixels, likelihood, number of
images and kind of bound, and apart for runs that have trained on the validation images (train-on = all).

--json prints a line for each row: \"settings\", \"seeds\", \"folders\", \"best\", \"estimate\" (whether the bound
is one), and each figure as {\"mean\", \"se\", \"n\"} or null.")]
pub struct Collect {
    /// Folder with runs, at any depth
    pub folder: PathBuf,
    /// Comma-separated values
    #[arg(long)]
    pub csv: bool,
    /// Markdown, as it is without any of these
    #[arg(long, conflicts_with_all = ["csv", "json"])]
    pub markdown: bool,
    /// Settings and figures to show (default: the settings that differ, and all figures that there are)
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub columns: Option<Vec<String>>,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Everything that defines a run: flags made from the registry, each also a key of the TOML file.
#[derive(Debug, Clone, Default)]
pub struct Settings(pub Given);

/// Every setting with the heading it stands under in the help, and what is said of it there.
fn all_settings() -> Vec<(String, &'static Setting, String)> {
    let registry = registry();
    let mut all: Vec<(String, &'static Setting, String)> = vec![];
    for key in KEYS {
        all.push(("Settings of the run".into(), key, described(key)));
    }
    for (kind, _, settings) in registry.owners() {
        for setting in
            settings.iter().filter(|s| !all.iter().any(|(_, known, _)| known.name == s.name)).collect::<Vec<_>>()
        {
            let has = |settings: &[Setting]| settings.iter().any(|s| s.name == setting.name);
            let owners = registry.owners().into_iter().filter(|(k, _, settings)| *k == kind && has(settings));
            let names: Vec<&str> = owners.map(|(_, name, _)| name).collect();
            all.push((
                format!("{}{}: {}", kind[..1].to_uppercase(), &kind[1..], names.join(", ")),
                setting,
                described(setting),
            ));
        }
    }
    all
}

/// A setting's line of help: what it is, what it may be, its default.
fn described(setting: &Setting) -> String {
    let registry = registry();
    let choices = match (setting.name, setting.kind) {
        ("dataset", _) => registry.datasets.names().join(", "),
        ("latent", _) => registry.latents.iter().map(|l| l.form()).collect::<Vec<_>>().join(", "),
        ("estimator", _) => registry.estimators.names().join(", "),
        ("model", _) => registry.models.names().join(", "),
        ("likelihood", _) => registry.likelihoods.names().join(", "),
        (_, Kind::Choice(names)) => names.join(", "),
        _ => String::new(),
    };
    let choices = if choices.is_empty() { choices } else { format!(": {choices}") };
    // The estimators that have it, or all where it is the run's, by whether they choose it themselves.
    let own = |e: &&EstimatorEntry| e.settings().iter().any(|s| s.name == setting.name);
    let owners: Vec<&EstimatorEntry> = registry.estimators.iter().filter(own).collect();
    let chooses = |e: &&EstimatorEntry| e.auto_settings().contains(&setting.name);
    let auto: Vec<&str> = registry.estimators.iter().filter(chooses).map(|e| e.name()).collect();
    let others = owners.is_empty() || owners.len() > auto.len();
    let default = match (auto.is_empty(), others) {
        (true, _) => setting.default.to_string(),
        (false, false) => "auto, see below".to_string(),
        (false, true) => format!("{}; of {} auto, see below", setting.default, auto.join(", ")),
    };
    // Models have a default of their own for what both call by one name.
    let models = registry.models.iter().flat_map(|m| m.settings().iter().map(|s| (m.name(), s)));
    let others = models.filter(|(_, s)| s.name == setting.name && s.default != setting.default);
    let default = others.fold(default, |text, (name, s)| format!("{text}; of {name} {}", s.default));
    match setting.kind {
        Kind::Switch if auto.is_empty() => format!("{}{choices}", setting.help),
        _ => format!("{}{choices} [default: {default}]", setting.help),
    }
}

/// The end of the help of `train`: examples, and what `auto` becomes for some latent variables.
fn after_train() -> String {
    let mut text = String::from(TRAIN_EXAMPLES);
    for estimator in registry().estimators.iter().filter(|e| !e.auto_settings().is_empty()) {
        text += &format!(
            "\n\nWhat auto becomes for {}, if nothing else is chosen (config.toml has it too):",
            estimator.name()
        );
        for kl in ["on", "off", "added"] {
            for latent in AUTO_LATENTS {
                let structure = registry().latents.parse(latent).expect("a latent of ours").structure;
                if kl == "added" && !structure.has_sums() {
                    continue; // its KL has no gradient to add
                }
                let values = estimator.auto(&structure, &|name| (name == "kl").then_some(kl));
                let said: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value}")).collect();
                text += &format!("\n  --kl {kl:5} --latent {latent:14} {}", said.join(", "));
            }
        }
    }
    text
}

/// Latents that the help of `train` has as examples of `auto`.
const AUTO_LATENTS: [&str; 7] =
    ["categorical:10", "binary:15", "binary:40", "binary:200", "pairwise:15", "pairwise:40", "subset:20,5"];
const TRAIN_EXAMPLES: &str = "Examples:
  gumbel train
  gumbel train --dataset fashion-mnist --latent categorical:50 --estimator marginal --epochs 60
  gumbel train --dataset mnist --latent binary:15 --kl off
  gumbel train --dataset fashion-mnist --latent pairwise:15 --kl off --epochs 30
  gumbel train --dataset mnist --continuous rows:30 --labels 100 --preset paper
  gumbel train --config run.toml --seed 1 --out runs/second
  gumbel train --resume --out runs/second          goes on after kill or Ctrl-C, with the same final bits

Every setting is also a key of the TOML file, with the same name; flags win. `config.toml` in a run folder is such a
file.";

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = all_settings().into_iter().filter_map(|(_, setting, _)| {
            let text: &String = matches.get_one(setting.name)?;
            Some((setting.name.to_string(), text.clone()))
        });
        Ok(Settings(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Settings::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        all_settings().into_iter().fold(command, |command, (heading, setting, help)| {
            let arg = Arg::new(setting.name).long(setting.name).value_name(setting.value).help(help);
            let arg = arg.help_heading(heading).allow_negative_numbers(true);
            command.arg(match setting.kind {
                Kind::Switch => arg.num_args(0..=1).default_missing_value("true").require_equals(true),
                _ => arg,
            })
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Settings::augment_args(command)
    }
}

/// `gumbel list`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  gumbel list estimators
  gumbel list latents --json"
)]
pub struct List {
    /// Which list
    #[arg(value_enum)]
    pub what: Listed,
}

/// The lists of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Listed {
    /// How gradients are estimated
    Estimators,
    /// Latent variables
    Latents,
    /// Data sets
    Datasets,
    /// Models
    Models,
    /// Likelihoods of pixels
    Likelihoods,
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
    #[arg(long, value_name = "M", value_parser = whole(1..=100_000))]
    pub samples: Option<usize>,
    /// Gaussian codes per image of the importance-weighted -ln p(x), of models that have some; 0: it is not computed
    #[arg(long, value_name = "K", default_value = "10", value_parser = whole(0..=100_000))]
    pub importance: usize,
}

fn split(text: &str) -> Result<gumbel_data::Split, String> {
    gumbel_data::Split::ALL
        .into_iter()
        .find(|s| s.to_string() == text)
        .ok_or_else(|| "expected train, valid or test".to_string())
}

/// How pictures are drawn.
#[derive(Debug, Args)]
pub struct Look {
    /// Magnification
    #[arg(long, value_name = "N", value_parser = whole(1..=64))]
    pub scale: Option<usize>,
    /// A line of text above the picture
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
}

/// `gumbel sample`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gumbel sample runs/mnist-categorical50-direct-s0 --out grid.png --sort
  gumbel sample runs/mixed --out many.safetensors --rows 1000 --seed 1      numbers for another program

A file of safetensors has the decoder's means, 0 to 1:
  images       f32 [rows, columns, height, width, channels]
  classes      u32 [columns]: of one K-way variable every value is a column; without Gaussian codes there is one row
  assignments  u32 [columns, n] of other latents; [rows, columns, n] where every image has its own
  attributes   i32 [columns, attributes], 0 or 1, of runs with --attributes and --labels
Its metadata key `gumbel` is JSON with the names of the columns.")]
pub struct Sample {
    /// Run folder
    pub run: PathBuf,
    /// PNG file to write, or safetensors file for numbers
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Rows of ten (default: all values of a K-way variable; ten rows of prior samples); with Gaussian codes, rows that
    /// share a code
    #[arg(long, value_name = "R", value_parser = whole(1..=10_000))]
    pub rows: Option<usize>,
    /// Seed of the samples (default: that of the run)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Values of a K-way variable in the order in which validation images use them, those used most first
    #[arg(long)]
    pub sort: bool,
    /// How it is drawn.
    #[command(flatten)]
    pub look: Look,
}

/// `gumbel reconstruct`.
#[derive(Debug, Args)]
pub struct Reconstruct {
    /// Run folder
    pub run: PathBuf,
    /// PNG file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How it is drawn.
    #[command(flatten)]
    pub look: Look,
}

/// `gumbel traverse`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gumbel traverse runs/mixed
  gumbel traverse runs/mixed --image 7 --coordinate 3,12 --range 2 --steps 9
  gumbel traverse runs/fashion --class sandal --out sandal.png

A row is a coordinate (c), with its mean KL over the first 1,000 test images; a column is a value. Of rows:D the code
is that of the state that is shown, over the images whose mode of q it is.

--json prints \"out\"; \"z\", the assignment, and its \"name\" or null; \"image\" or null; \"values\"; \"coordinates\",
a list of {\"coordinate\", \"kl\"}. A file of safetensors has the decoder's means, 0 to 1:
  images       f32 [coordinates, values, height, width, channels]
  coordinates  u32 [coordinates], and kl f32 [coordinates], in nats
  values       f32 [values]
  assignment   u32 [n]")]
pub struct Traverse {
    /// Run folder of a model with Gaussian codes (--continuous rows:D or joint:D)
    pub run: PathBuf,
    /// PNG file to write, or safetensors file for numbers (default: traverse.png in the run folder)
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Coordinates of the code, from 0 (default: the eight with the largest mean KL)
    #[arg(long = "coordinate", value_name = "I,..", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub coordinates: Vec<usize>,
    /// Values go from -A to A, in standard deviations of the prior
    #[arg(long, value_name = "A", default_value = "3", value_parser = deviations)]
    pub range: f32,
    /// Number of values
    #[arg(long, value_name = "N", default_value = "11", value_parser = whole(2..=1000))]
    pub steps: usize,
    /// Start from the code of this test image, from 0 (default: from the code 0, the prior's mean)
    #[arg(long, value_name = "I")]
    pub image: Option<usize>,
    /// State of z, by its number or, where labels gave it one, its name (default: the mode of q of the image, or of
    /// most test images)
    #[arg(long, value_name = "K")]
    pub class: Option<String>,
    /// How it is drawn.
    #[command(flatten)]
    pub look: Look,
}

fn deviations(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(a) if a > 0.0 && a <= 1000.0 => Ok(a),
        _ => Err("expected a number greater than 0, at most 1000".to_string()),
    }
}

/// `gumbel attributes`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gumbel attributes runs/faces
  gumbel attributes runs/faces --rows 0 --encoded 10 --out faces.png
  gumbel attributes runs/faces --rows 1000 --encoded 0 --out many.safetensors      numbers for another program

Columns are the combinations of the attributes of a run with --attributes and --labels: all of up to four, else none
and each one alone. Of a run with --labels alone they are its classes. Rows are codes of the prior, one for all states,
then test images, each at the left of its row, with their own codes. Where every state has a code of its own (rows:D),
an image's code is that which the encoder emits for the column's state.

--json prints \"out\"; \"columns\", a list of {\"class\", \"z\": the assignment, \"name\"}; \"rows\"; \"encoded\". A
file of safetensors has the decoder's means, 0 to 1:
  images       f32 [rows, columns, height, width, channels], of codes of the prior
  encoded      f32 [images, columns, height, width, channels], of test images
  originals    f32 [images, height, width, channels]
  classes      u32 [columns]; its binary digits are the attributes, the first one the highest
  attributes   i32 [columns, attributes], 0 or 1
Its metadata key `gumbel` is JSON with their names.")]
pub struct Attributes {
    /// Run folder of a model with Gaussian codes and labels
    pub run: PathBuf,
    /// PNG file to write, or safetensors file for numbers (default: attributes.png in the run folder)
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Rows of codes of the prior
    #[arg(long, value_name = "R", default_value = "6", value_parser = whole(0..=10_000))]
    pub rows: usize,
    /// Rows of test images, the first N
    #[arg(long, value_name = "N", default_value = "4", value_parser = whole(0..=10_000))]
    pub encoded: usize,
    /// Seed of the codes (default: that of the run)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How it is drawn.
    #[command(flatten)]
    pub look: Look,
}

/// `gumbel inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gumbel inspect runs/fashion-mnist-pairwise15-direct-s0 --out couplings.png")]
pub struct Inspect {
    /// Run folder
    pub run: PathBuf,
    /// PNG or SVG file to write: a heat map of the mean couplings of a pairwise model, red positive, blue negative
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Test images to look at; 0: all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
    /// epsilon of the arg maxima (default: that of the model's last training step)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub epsilon: Option<f64>,
    /// How it is drawn.
    #[command(flatten)]
    pub look: Look,
}

/// `gumbel diagnose`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gumbel diagnose runs/mnist --out figure1.svg
  gumbel diagnose runs/mnist --estimators direct,direct:two-sided,direct:rao-blackwell,direct:kl,gumbel-softmax
  gumbel diagnose runs/binary15 --estimators direct:joint=search,rloo:samples=4,disarm --draws 5000 --json
  gumbel diagnose runs/mnist --estimators direct --epsilon 0.1,1 --layers

An estimator is NAME, with settings of its own NAME:KEY=VALUE:KEY; they begin at the registry's defaults (`gumbel list
estimators`), so that `direct` is the paper's. Beside these, kl puts the KL into its objective, and samples=M takes M
samples of each image. Those with something to learn learn first, and then stand still. What holds its zero gradients
(zero-gradient-target) stands at the epsilon that it was measured at.

The reference is exact where the latent has at most 32,768 states (with --layers and the fused engine, 1,024). Where it
has more it is a long average of an estimator without bias, whose error (\"norm_error\") is taken out of the bias. It is
the gradient of the loss, or with kl of the bound, for all: marginal and vimco, which have objectives of their own, are
as far from it as their objectives are.

--json prints a line for each estimator and value: \"estimator\", \"spec\", \"epsilon\" or \"temperature\",
\"objective\" (loss, or bound with the KL), \"at\" (potentials, or a layer), \"norm\" of the exact gradient, \"bias\",
\"relative_bias\", \"std\", \"mse\", \"cosine\", with \"..._error\", \"mean_cosine\", \"rows_without_gradient\" and
\"rows_with_gradient\" of the decoder for an image and draw, \"ms\" of a draw for all images, and what it measures.")]
pub struct Diagnose {
    /// Run folder
    pub run: PathBuf,
    /// Estimators, with settings (default: all that the run's latent can have)
    #[arg(long, value_name = "NAME[:KEY=VALUE..],..", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub estimators: Vec<String>,
    /// Values of epsilon, of those that have one
    #[arg(
        long,
        value_name = "X,..",
        value_delimiter = ',',
        default_value = "0.03,0.1,0.3,1,3",
        allow_hyphen_values = true,
        value_parser = positive
    )]
    pub epsilon: Vec<f64>,
    /// Values of the temperature, of those that have one
    #[arg(
        long,
        value_name = "X,..",
        value_delimiter = ',',
        default_value = "0.1,0.3,0.5,1,3",
        allow_hyphen_values = true,
        value_parser = positive
    )]
    pub temperature: Vec<f64>,
    /// Draws of each estimate; its standard errors are those of ten blocks of them
    #[arg(long, value_name = "N", default_value = "1000", value_parser = whole(20..=100_000_000))]
    pub draws: usize,
    /// Draws that those with something to learn learn from first
    #[arg(long, value_name = "N", default_value = "500", value_parser = whole(0..=100_000_000))]
    pub learn: usize,
    /// Draws of the reference where it is an average; with --layers, training steps too
    #[arg(long, value_name = "N", default_value = "10000", value_parser = whole(2..=100_000_000))]
    pub reference_draws: usize,
    /// Training images: the first of them
    #[arg(long, value_name = "N", default_value = "100", value_parser = whole(1..=100_000))]
    pub batch: usize,
    /// The gradients of all parameters too, layer by layer, of as many training steps as draws
    #[arg(long)]
    pub layers: bool,
    /// Seed of the draws (default: that of the run)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// SVG file to write: bias, standard deviation, error and cosine over epsilon and temperature, with error bars
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A line of text above the picture
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if x > 0.0 && (x as f32).is_normal() => Ok(x),
        _ => Err("expected a number greater than 0 that f32 can hold".to_string()),
    }
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
    /// Names in the legend: the settings in which the runs differ instead of their folders, or those that are given
    #[arg(long, value_name = "NAMES", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    pub labels: Option<Vec<String>>,
    /// How it is drawn.
    #[command(flatten)]
    pub look: Look,
}

/// `gumbel report`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gumbel report runs/mnist-categorical50-direct-s0
  gumbel report runs/table1/* --out table1.html --title 'Table 1'
  gumbel report runs/table1/* --tensorboard events && tensorboard --logdir events

The page is one file that needs no other, nor a network; it opens in any browser. Unfinished runs are shown as far as
they have come. Every figure names the file and the place where it stands (data-source), with all its digits
(data-value).

Event files have a folder for every run in DIR, with scalars in train/, valid/ and test/, and the PNG pictures; steps
are training steps.")]
pub struct Report {
    /// Run folders, each of another name
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// HTML file to write (default: report.html, of one run in its folder; with --tensorboard, none)
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Title of the page
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Folder to write event files for TensorBoard into
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
}

/// `gumbel solve`.
#[derive(Debug, Args)]
#[command(after_help = r#"Problems, one a line; all are maximised:
  {"structure":"pairwise","unary":[n],"pairs":[[i,j,w],...]}     z in {0,1}^n, also "supermodular" (every w >= 0)
  {"structure":"pairwise","unary":[n],"weights":[n(n-1)/2]}      of all pairs: (0,1), (0,2), ..., (1,2), ...
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
Nobody has to send a second problem to see the answer of the first; a program that sends many while it reads no answers
fills the pipes and waits for ever (docs/other-languages.md).

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
    /// When answers are written: block, those of all problems that had arrived together, or line, each as soon as it
    /// and those before it are there
    #[arg(long, value_name = "NAME", value_enum, hide_possible_values = true, default_value_t = Flush::Block)]
    pub flush: Flush,
}

/// When answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Flush {
    /// Those of problems that had arrived together.
    Block,
    /// Each by itself.
    Line,
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
    /// Images per split, size, kind of pixels, classes, ink, attributes
    Info {
        /// Data set
        name: String,
    },
    /// Download what is missing in the cache and check it
    Fetch {
        /// Data set
        name: String,
    },
    /// Compare checksums with the published ones
    Verify {
        /// Data set
        name: String,
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
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = whole(1..=1_000_000))]
    pub steps: usize,
    /// Steps before the clock starts
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = whole(0..=1_000_000))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_may_be_listed_and_repeated() {
        let line =
            ["gumbel", "traverse", "run", "--coordinate", "1", "--coordinate", "2,3", "--range", "1", "--range", "2"];
        let Command::Traverse(command) = Cli::try_parse_from(line).unwrap().command else { panic!("another command") };
        assert_eq!((command.coordinates, command.range), (vec![1, 2, 3], 2.0));
    }
}
