//! Everything that a run may be made of, by name.

use gumbel::engine::ModelEntry;
use gumbel::estimator::{EstimatorEntry, Schedule, estimators};
use gumbel::likelihood::{LikelihoodEntry, likelihoods};
use gumbel::registry::{Entries, Entry, Setting, Settings};
use gumbel::structure::{AnyStructure, Categorical, LatentEntry, latents};
use gumbel_data::{DatasetEntry, datasets};

/// The estimators, latent variables, data sets, models and likelihoods that configurations may name.
///
/// A registry is a value: add entries of your own to the [standard](Registry::standard) one and give it to
/// [`Config`](crate::Config).
///
/// ```
/// use gumbel::structure::{Categorical, LatentEntry};
/// use gumbel_run::{Config, Registry};
///
/// let mut registry = Registry::standard();
/// registry.latents.add(LatentEntry::new("digit", "BASE", "a digit of a number", |sizes| {
///     let base = sizes.whole(sizes.as_str())?;
///     Ok((Categorical::new(base)?.into(), base.to_string()))
/// }));
/// let config = Config::new(&registry, &[("latent", "digit:12")])?;
/// assert_eq!(config.latent().text, "digit:12");
/// # Ok::<(), gumbel_run::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Registry {
    /// Gradient estimators.
    pub estimators: Entries<EstimatorEntry>,
    /// Latent variables.
    pub latents: Entries<LatentEntry>,
    /// Data sets.
    pub datasets: Entries<DatasetEntry>,
    /// Models.
    pub models: Entries<ModelEntry>,
    /// Likelihoods of pixels.
    pub likelihoods: Entries<LikelihoodEntry>,
}

impl Registry {
    /// All that this workspace has.
    pub fn standard() -> Self {
        Registry {
            estimators: estimators(),
            latents: latents(),
            datasets: datasets(),
            models: crate::model::models(),
            likelihoods: likelihoods(),
        }
    }

    /// Every entry that may have settings of its own: the key that chooses it, its name, the settings.
    pub fn owners(&self) -> Vec<(&'static str, &str, &[Setting])> {
        fn all<'a, E: Entry>(key: &'static str, list: &'a Entries<E>) -> Vec<(&'static str, &'a str, &'a [Setting])> {
            list.iter().map(|e| (key, e.name(), e.settings())).collect()
        }
        let lists = [
            all("estimator", &self.estimators),
            all("model", &self.models),
            all("dataset", &self.datasets),
            all("latent", &self.latents),
            all("likelihood", &self.likelihoods),
        ];
        lists.concat()
    }

    /// The schedules of all estimators, each name once: their values stand in every line of metrics.
    pub fn schedules(&self) -> Vec<Schedule> {
        let mut all: Vec<Schedule> = vec![];
        for schedule in self.estimators.iter().flat_map(|e| e.schedules()) {
            if all.iter().all(|s| s.name != schedule.name) {
                all.push(*schedule);
            }
        }
        all
    }

    /// The names of the measures whose fields stand in every line of metrics, whoever is trained.
    pub fn measured_always(&self) -> Vec<&'static str> {
        // What an estimator measures it says itself; one with the least demanding of all latents is asked.
        let Ok(plain) = Categorical::new(2).map(AnyStructure::from) else { return vec![] };
        let mut names = vec![];
        for entry in self.estimators.iter() {
            let Ok(estimator) = entry.build(&Settings::defaults(entry.settings()), &plain) else { continue };
            for measure in estimator.measures().iter().filter(|m| m.always) {
                if !names.contains(&measure.name) {
                    names.push(measure.name);
                }
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_metrics_come_from_the_entries() {
        let registry = Registry::standard();
        let names: Vec<&str> = registry.schedules().iter().map(|s| s.name).collect();
        assert_eq!(names, ["epsilon", "temperature"]);
        assert_eq!(registry.measured_always(), ["zero_gradient_rate"]);
        assert!(registry.owners().iter().any(|(key, name, _)| (*key, *name) == ("model", "mlp")));
    }
}
