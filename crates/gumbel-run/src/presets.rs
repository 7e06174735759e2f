//! Settings under one name: those of the paper.

use crate::config::Given;
use crate::{Error, Result};
use gumbel::registry::one_of;

/// All names.
pub const NAMES: [&str; 5] = ["none", "paper", "paper-direct", "paper-gsm", "paper-unbiased"];

/// The line of help.
pub const HELP: &str = "settings under one name, below all that are given: paper, as the authors of the paper run the \
                        chosen estimator; paper-direct, paper-gsm and paper-unbiased choose it too";

/// What the authors set for all of them (paper, Section 5; their code).
const COMMON: [(&str, &str); 7] = [
    ("latent", "categorical:10"),
    ("epochs", "300"),
    ("batch-size", "100"),
    ("lr", "0.001"),
    ("hidden", "300"),
    ("binarization", "round"),
    ("samples", "1"),
];
/// The semi-supervised mixed model (Section 4.2): what its code sets otherwise. The losses of the states have no KL,
/// the total loss has none of z.
const MIXED: [(&str, &str); 14] = [
    ("hidden", "400,200"),
    ("head", "100"),
    ("part", "100"),
    ("shared", "66"),
    ("decoder-hidden", "400"),
    ("leak", "0.2"),
    ("shared-leak", "0.5"),
    ("dropout", "0.5"),
    ("lr", "0.0008"),
    ("continuous-kl", "false"),
    ("labels-binarization", "grey"),
    ("kl", "off"),
    ("supervised-loss", "argmax"),
    ("supervised-epsilon", "0.05"),
];
/// The annealing of the authors has counted the steps on labelled images, so that epsilon is 1 for an epoch and 0.1
/// from then on; ours begins behind them.
const MIXED_DIRECT: [(&str, &str); 4] =
    [("epsilon", "1"), ("epsilon-min", "0.1"), ("epsilon-decay", "0.01"), ("epsilon-every", "500")];
/// Direct optimisation: the KL is part of what is reported, not of what is minimised.
const DIRECT: [(&str, &str); 8] = [
    ("kl", "off"),
    ("epsilon", "1"),
    ("epsilon-min", "0.1"),
    ("epsilon-decay", "0.00001"),
    ("epsilon-every", "1000"),
    ("joint", "off"),
    ("rao-blackwell", "false"),
    ("two-sided", "false"),
];
const RELAXED: [(&str, &str); 5] = [
    ("kl", "on"),
    ("temperature", "1"),
    ("temperature-min", "0.1"),
    ("temperature-decay", "0.00001"),
    ("temperature-every", "1000"),
];
const UNBIASED: [(&str, &str); 1] = [("kl", "on")];

/// The values of a preset, of which those stand back that are given.
///
/// # Errors
/// An unknown name.
pub fn values(name: &str, given: &Given) -> Result<Vec<(&'static str, &'static str)>> {
    let mixed = given.get("continuous").is_some_and(|kind| kind != "none");
    // Straight-through forgets the labels of the mixed model within an epoch (docs/labels.md).
    let gsm = if mixed { "gumbel-softmax" } else { "straight-through" };
    let estimator = match name {
        "none" => return Ok(vec![]),
        "paper" => given.get("estimator").map_or("direct", String::as_str),
        "paper-direct" => "direct",
        "paper-gsm" => gsm,
        "paper-unbiased" => "exact",
        _ => return Err(Error::setting("preset", name, one_of(name, &NAMES))),
    };
    // The first value of a key is the one that counts.
    let labels = given.get("labels").is_some_and(|labels| labels != "0");
    let mut all = vec![];
    if mixed {
        all.extend(MIXED);
        all.push(if labels { ("supervision", "phases:1200,400") } else { ("epochs", "400") });
    }
    if mixed && estimator == "direct" {
        all.extend(MIXED_DIRECT);
    }
    if mixed && labels {
        all.push(("epochs", "400"));
    }
    all.extend(COMMON);
    match estimator {
        "direct" => all.extend(DIRECT),
        "gumbel-softmax" | "straight-through" => all.extend(RELAXED),
        _ => all.extend(UNBIASED),
    }
    match name {
        "paper-gsm" => all.push(("estimator", gsm)),
        "paper-unbiased" => all.push(("estimator", "exact")),
        _ => {}
    }
    // Their structured scripts train on all images and report the last epoch.
    let latent = given.get("latent").map_or("", String::as_str);
    if !mixed && !latent.is_empty() && !latent.starts_with("categorical:") {
        all.push(("train-on", "all"));
    }
    // A given phase says the epochs itself.
    if given.contains_key("supervision") {
        all.retain(|(key, _)| *key != "epochs");
    }
    Ok(all)
}
