//! The command that makes a run again.

use crate::Config;
use crate::config::Given;
use gumbel::registry::Kind;

/// Keys that are named whatever they are: what is trained on what.
const NAMED: [&str; 3] = ["dataset", "latent", "estimator"];

/// The command that trains a run with the same settings in the folder `runs/NAME`: what the program chooses by itself
/// is left out. Where the data lie is not part of it.
///
/// ```
/// use gumbel_run::{Config, Registry, report};
///
/// let given = [("latent", "categorical:10"), ("estimator", "exact"), ("seed", "3")];
/// let config = Config::new(&Registry::standard(), &given)?;
/// let expected = "gumbel train --dataset glyphs --latent categorical:10 --estimator exact --seed 3 --out runs/a";
/// assert_eq!(report::command(&config, "a"), expected);
/// # Ok::<(), gumbel_run::Error>(())
/// ```
pub fn command(config: &Config, name: &str) -> String {
    from(config, &needed(config), name)
}

/// The same from the settings that are [`needed`].
pub(super) fn from(config: &Config, given: &Given, name: &str) -> String {
    let mut words = vec!["gumbel".to_string(), "train".into()];
    // In the order in which settings are listed.
    for key in config.keys().iter().filter(|key| given.contains_key(key.name)) {
        let value = &given[key.name];
        match matches!(key.kind, Kind::Switch) || value.is_empty() || value.starts_with('-') {
            true => words.push(quoted(&format!("--{}={value}", key.name))),
            false => words.extend([format!("--{}", key.name), quoted(value)]),
        }
    }
    words.extend(["--out".into(), quoted(&format!("runs/{name}"))]);
    words.join(" ")
}

/// The fewest settings that make the others what they are.
pub(super) fn needed(config: &Config) -> Given {
    let same = |given: &Given| Config::resolve(config.registry(), None, given).is_ok_and(|other| other == *config);
    let mut given: Given = config.settings().iter().map(|(key, value)| (key.into(), value.to_string())).collect();
    // What the program chooses for one setting may depend on another that is given: again, until nothing goes any more.
    loop {
        let before = given.len();
        // The last ones belong to the chosen estimator and model: the general ones, which may choose them, go last.
        for key in config.keys().iter().rev().map(|key| key.name) {
            if NAMED.contains(&key) || key == "preset" && config.text(key) != "none" {
                continue;
            }
            if let Some(value) = given.remove(key).filter(|_| !same(&given)) {
                given.insert(key.into(), value);
            }
        }
        if given.len() == before {
            // What suits a data set is chosen where none of it is given.
            let suited = config.registry().datasets.get(config.text("dataset")).map_or(&[][..], |entry| entry.suited());
            let mut without = given.clone();
            suited.iter().for_each(|(key, _)| drop(without.remove(*key)));
            return if same(&without) { without } else { given };
        }
    }
}

/// A word of a shell.
///
/// ```
/// assert_eq!(gumbel_run::report::quoted("it's"), r"'it'\''s'");
/// ```
pub fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=,:+@%".contains(&b);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    #[test]
    fn the_command_gives_the_same_settings() {
        let cases: [&[(&str, &str)]; 6] = [
            &[],
            &[("preset", "paper-direct"), ("dataset", "mnist"), ("epsilon", "0.5")],
            &[("latent", "binary:15"), ("two-sided", "true"), ("kl", "off"), ("lr", "3e-4")],
            &[("continuous", "rows:4"), ("labels", "100"), ("supervision", "phases:3,7")],
            &[("estimator", "gumbel-softmax"), ("temperature", "0.3"), ("hidden", "40,20")],
            &[("dataset", "celeba"), ("attributes", "Smiling,Male"), ("model", "conv")],
        ];
        for given in cases {
            let config = Config::new(&Registry::standard(), given).unwrap();
            let needed = needed(&config);
            assert_eq!(Config::resolve(config.registry(), None, &needed).unwrap(), config);
            assert!(needed.len() <= given.len() + NAMED.len(), "{given:?}: {needed:?}");
            // Nothing but words of the settings: what a shell would understand otherwise is quoted.
            assert_eq!(command(&config, "a b").matches("'runs/a b'").count(), 1);
        }
    }
}
