//! `gumbel list`: what the registry holds.

use crate::args::{Common, List, Listed};
use crate::output::{self, Failure};
use crate::registry;
use gumbel::estimator::EstimatorEntry;
use gumbel::registry::{Entry, Setting, Settings};
use serde::Serialize;

/// An entry as it is printed.
#[derive(Debug, Serialize)]
struct Listing {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<String>,
    help: String,
    /// What it asks of the latent.
    #[serde(skip_serializing_if = "Option::is_none")]
    latent: Option<String>,
    #[serde(flatten)]
    traits: std::collections::BTreeMap<&'static str, &'static str>,
    settings: Vec<Described>,
}

#[derive(Debug, Serialize)]
struct Described {
    name: &'static str,
    help: &'static str,
    range: String,
    default: &'static str,
}

fn described(setting: &Setting) -> Described {
    Described { name: setting.name, help: setting.help, range: setting.range(), default: setting.default }
}

fn listing(entry: &dyn Entry) -> Listing {
    Listing {
        name: entry.name().into(),
        form: None,
        help: entry.help().into(),
        latent: None,
        traits: Default::default(),
        settings: entry.settings().iter().map(described).collect(),
    }
}

/// What an estimator asks of the latent, by what it says to some of them.
fn asks(entry: &EstimatorEntry) -> String {
    let takes = |latent: &str| {
        let settings = Settings::defaults(entry.settings());
        let structure = registry().latents.parse(latent).map(|l| l.structure);
        structure.and_then(|s| entry.build(&settings, &s).and_then(|e| e.noise(&s))).is_ok()
    };
    let mut asks = vec![];
    match (takes("chain:3x2"), takes("categorical:3"), takes("permutation:3")) {
        (false, false, _) => asks.push("independent binary variables".to_string()),
        (false, true, _) => asks.push("independent variables".to_string()),
        (true, _, false) => asks.push("exact sums".to_string()),
        _ => {}
    }
    if takes("pairwise:3") && !takes("supermodular:3") {
        asks.push("couplings of any sign".to_string());
    }
    if !takes("binary:60") {
        asks.push(format!("at most {} states", gumbel::estimator::MAX_STATES));
    }
    if asks.is_empty() { "any".into() } else { asks.join(", ") }
}

/// Lists entries of a kind.
pub fn run(common: &Common, command: &List) -> Result<(), Failure> {
    let all = registry();
    let listings: Vec<Listing> = match command.what {
        Listed::Estimators => {
            let one = |entry: &EstimatorEntry| {
                let settings = |s: &Setting| Described { default: entry.default_of(s), ..described(s) };
                let names = ["passes_without_gradient", "passes_with_gradient", "bias", "variance"];
                let traits = names.into_iter().zip(entry.in_words()).collect();
                let settings = entry.settings().iter().map(settings).collect();
                Listing { latent: Some(asks(entry)), traits, settings, ..listing(entry) }
            };
            all.estimators.iter().map(one).collect()
        }
        Listed::Latents => all.latents.iter().map(|e| Listing { form: Some(e.form()), ..listing(e) }).collect(),
        Listed::Datasets => all.datasets.iter().map(|e| listing(e)).collect(),
        Listed::Models => all.models.iter().map(|e| listing(e)).collect(),
        Listed::Likelihoods => all.likelihoods.iter().map(|e| listing(e)).collect(),
    };
    for l in listings {
        if common.json {
            output::json(&l)?;
            continue;
        }
        output::line(&format!("{}: {}", l.form.as_ref().unwrap_or(&l.name), l.help))?;
        if let Some(latent) = &l.latent {
            output::line(&format!("    latent: {latent}"))?;
        }
        for (name, value) in &l.traits {
            output::line(&format!("    {}: {value}", name.replace('_', " ")))?;
        }
        for s in &l.settings {
            output::line(&format!("    {} = {}: {} ({})", s.name, s.default, s.help, s.range))?;
        }
    }
    Ok(())
}
