//! The registry of estimators: each file's entry.

use super::{
    Estimator, arm, arsm, decoupled, direct, direct_rebar, disarm, exact, gumbel_rao, gumbel_softmax, imle,
    local_expectation, marginal, perturbed, rebar, reinforce, reinmax, relax, rloo, simple, softmax_trick,
    straight_through, vimco,
};
use crate::Error;
use crate::registry::{Entries, Entry, Kind, Setting, Settings};
use crate::schedule::Annealing;
use crate::structure::AnyStructure;
use std::fmt;
use std::sync::Arc;

/// All estimators of this crate: a new one is a file and a line here.
pub fn estimators() -> Entries<EstimatorEntry> {
    Entries::new(
        "estimator",
        [
            direct::entry(),
            gumbel_softmax::entry(),
            straight_through::entry(),
            exact::entry(),
            local_expectation::entry(),
            marginal::entry(),
            reinforce::entry(),
            rloo::entry(),
            arm::entry(),
            disarm::entry(),
            reinmax::entry(),
            gumbel_rao::entry(),
            decoupled::entry(),
            simple::entry(),
            softmax_trick::entry(),
            rebar::entry(),
            relax::entry(),
            direct_rebar::entry(),
            arsm::entry(),
            vimco::entry(),
            imle::entry(),
            imle::adaptive_entry(),
            perturbed::entry(),
        ],
    )
}

/// Values that somebody has chosen, by the names of their settings; see [`EstimatorEntry::with_auto`].
pub type Chosen<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

type Auto = dyn Fn(&AnyStructure, &Chosen<'_>) -> Vec<(&'static str, String)> + Send + Sync;

type Build = dyn Fn(&Settings, &AnyStructure) -> Result<Box<dyn Estimator>, Error> + Send + Sync;

/// An estimator in the registry.
#[derive(Clone)]
pub struct EstimatorEntry {
    name: &'static str,
    help: &'static str,
    settings: Vec<Setting>,
    schedules: Vec<Schedule>,
    forward: &'static str,
    backward: &'static str,
    bias: &'static str,
    variance: &'static str,
    paper_samples: Option<usize>,
    auto: (&'static [&'static str], Arc<Auto>),
    build: Arc<Build>,
}

/// Samples of z behind `paper_loss`, as the authors take them.
pub(super) const PAPER: Option<usize> = Some(1);
/// The same for relaxed estimators.
pub(super) const RELAXED: Option<usize> = Some(100);

impl EstimatorEntry {
    /// An estimator with a name, a line of help and a constructor. The constructor is given the values of its settings
    /// and the latent variable, and refuses combinations that cannot be.
    pub fn new(
        name: &'static str,
        help: &'static str,
        build: impl Fn(&Settings, &AnyStructure) -> Result<Box<dyn Estimator>, Error> + Send + Sync + 'static,
    ) -> Self {
        let (forward, backward, bias, variance) = ("not stated", "not stated", "not stated", "not stated");
        let (settings, schedules, build) = (vec![], vec![], Arc::new(build));
        EstimatorEntry {
            name,
            help,
            settings,
            schedules,
            forward,
            backward,
            bias,
            variance,
            paper_samples: None,
            auto: (&[], Arc::new(|_, _| vec![])),
            build,
        }
    }

    /// With these settings.
    pub fn with_settings(self, settings: impl IntoIterator<Item = Setting>) -> Self {
        EstimatorEntry { settings: settings.into_iter().collect(), ..self }
    }

    /// Those of its settings that are schedules: their values stand in the metrics.
    pub fn with_schedules(self, schedules: &[Schedule]) -> Self {
        EstimatorEntry { schedules: schedules.to_vec(), ..self }
    }

    /// Decoder passes for each example and sample, without and with gradient, in words.
    pub fn with_costs(self, forward: &'static str, backward: &'static str) -> Self {
        EstimatorEntry { forward, backward, ..self }
    }

    /// Bias and variance, in words.
    pub fn with_quality(self, bias: &'static str, variance: &'static str) -> Self {
        EstimatorEntry { bias, variance, ..self }
    }

    /// Samples of z behind the authors' `paper_loss`; `None`: the exact expectation.
    pub fn with_paper_samples(self, paper_samples: Option<usize>) -> Self {
        EstimatorEntry { paper_samples, ..self }
    }

    /// Those of its settings, and of a run's (`samples`), whose defaults depend on the latent variable and on what else
    /// was chosen, and what they then are. What a value says that somebody has chosen stays.
    pub fn with_auto(
        self,
        settings: &'static [&'static str],
        values: impl Fn(&AnyStructure, &Chosen<'_>) -> Vec<(&'static str, String)> + Send + Sync + 'static,
    ) -> Self {
        EstimatorEntry { auto: (settings, Arc::new(values)), ..self }
    }

    /// The settings whose defaults depend on the latent variable: `auto` in help, and as a value.
    pub fn auto_settings(&self) -> &'static [&'static str] {
        self.auto.0
    }

    /// The default of one of its settings, in words: `auto` where it depends on the latent variable.
    pub fn default_of(&self, setting: &Setting) -> &'static str {
        if self.auto_settings().contains(&setting.name) { "auto" } else { setting.default }
    }

    /// The defaults of these for a latent variable, given what was chosen.
    pub fn auto(&self, structure: &AnyStructure, chosen: &Chosen<'_>) -> Vec<(&'static str, String)> {
        (self.auto.1)(structure, chosen)
    }

    /// Constructs the estimator for a latent variable.
    ///
    /// # Errors
    /// Settings that contradict each other, or that the latent cannot have.
    pub fn build(&self, settings: &Settings, structure: &AnyStructure) -> Result<Box<dyn Estimator>, Error> {
        (self.build)(settings, structure)
    }

    /// The schedules among its settings.
    pub fn schedules(&self) -> &[Schedule] {
        &self.schedules
    }

    /// Samples of z behind `paper_loss`.
    pub fn paper_samples(&self) -> Option<usize> {
        self.paper_samples
    }

    /// Decoder passes without and with gradient, bias and variance, in words.
    pub fn in_words(&self) -> [&'static str; 4] {
        [self.forward, self.backward, self.bias, self.variance]
    }
}

impl fmt::Debug for EstimatorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EstimatorEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Entry for EstimatorEntry {
    fn name(&self) -> &str {
        self.name
    }

    fn help(&self) -> &str {
        self.help
    }

    fn settings(&self) -> &[Setting] {
        &self.settings
    }
}

/// A value that is annealed: four settings, and a field of the metrics.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The name of the field.
    pub name: &'static str,
    /// Start, least value, decay, and steps between refreshes; see [`Annealing`].
    pub settings: [Setting; 4],
}

impl Schedule {
    /// The schedule of some settings.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn annealing(&self, settings: &Settings) -> Result<Annealing, Error> {
        let [start_name, min_name, decay_name, every_name] = self.settings.map(|s| s.name);
        let (start, min) = (settings.real(start_name), settings.real(min_name));
        let made = Annealing::at_least(start, min, settings.real(decay_name), settings.whole(every_name));
        made.map_err(|e| match e {
            Error::Range { name, value, expected } => {
                let name = match name {
                    "start" => start_name,
                    "min" => min_name,
                    "decay" => decay_name,
                    _ => every_name,
                };
                Error::setting(name, value, expected)
            }
            other => other,
        })
    }
}

const DECAY: Kind = Kind::Real(|v| v.is_finite() && v >= 0.0, "a finite number, 0 or greater");

macro_rules! schedule {
    ($name:literal, $what:literal) => {
        Schedule {
            name: $name,
            settings: [
                Setting {
                    name: $name,
                    kind: Kind::POSITIVE,
                    default: "1",
                    value: "X",
                    help: concat!("start of ", $what, ", which decays as max(min, start * exp(-decay * step))"),
                },
                Setting {
                    name: concat!($name, "-min"),
                    kind: Kind::POSITIVE,
                    default: "0.1",
                    value: "X",
                    help: concat!("least ", $what),
                },
                Setting {
                    name: concat!($name, "-decay"),
                    kind: DECAY,
                    default: "0.00001",
                    value: "X",
                    help: concat!("decay of ", $what, " per step"),
                },
                Setting {
                    name: concat!($name, "-every"),
                    kind: Kind::Whole(1, u64::MAX),
                    default: "1000",
                    value: "STEPS",
                    help: concat!("steps between refreshes of ", $what),
                },
            ],
        }
    };
}

/// epsilon of direct optimisation.
pub(super) const EPSILON: Schedule = schedule!("epsilon", "epsilon");
/// The temperature of relaxed estimators.
pub(super) const TEMPERATURE: Schedule = schedule!("temperature", "temperature");

/// The table of estimators in the documentation, in Markdown.
pub fn table() -> String {
    let mut text = String::from(
        "| estimator | what it is | decoder passes without gradient | with | bias | variance |\n\
         |---|---|---|---|---|---|\n",
    );
    for entry in estimators().iter() {
        let [forward, backward, bias, variance] = entry.in_words();
        text += &format!("| `{}` | {} | {forward} | {backward} | {bias} | {variance} |\n", entry.name, entry.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `GUMBEL_WRITE=1 cargo test` makes the file anew.
    #[test]
    fn the_table_of_the_documentation_is_that_of_the_registry() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("estimators.md");
        if std::env::var_os("GUMBEL_WRITE").is_some() {
            std::fs::write(&path, table()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), table());
    }

    #[test]
    fn defaults_build_and_bad_schedules_are_named() {
        let structure: AnyStructure = crate::structure::Categorical::binary(3).unwrap().into();
        for entry in estimators().iter() {
            entry.build(&Settings::defaults(entry.settings()), &structure).unwrap();
        }
        assert!(EPSILON.settings[0].parse("1e39").unwrap_err().to_string().contains("greater than 0 that f32"));
        assert!(EPSILON.settings[0].parse("-1").is_err() && EPSILON.settings[3].parse("0").is_err());
    }
}
