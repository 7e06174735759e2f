//! What a run writes down: a line of metrics per epoch and split, and a summary.

use crate::evaluate::{BoundKind, Evaluation};
use gumbel_data::Split;
use serde::de::{self, DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::fmt;

/// One line of `metrics.jsonl`; losses in nats per image, times in seconds and milliseconds.
///
/// Beside the fields that every run has, a line holds values under names of their owners': the schedules of the
/// estimators (`epsilon`, `temperature`) at the last step of the epoch, and what the estimator has measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Training steps done.
    pub step: u64,
    /// "train", "valid" or "test".
    pub split: String,
    /// Images evaluated.
    pub images: usize,
    /// reconstruction + kl.
    pub bound: f64,
    /// What `bound` is: the bound itself or an estimate.
    pub bound_kind: BoundKind,
    /// Samples of z per image if `bound` is an estimate.
    pub bound_samples: Option<usize>,
    /// E_q[-ln p(x|z)].
    pub reconstruction: f64,
    /// KL of all latent variables to their prior.
    pub kl: f64,
    /// Of these, that of the Gaussian codes, of models that have some.
    pub codes_kl: Option<f64>,
    /// Exact -ln p(x), or an importance-weighted estimate.
    pub nll: Option<f64>,
    /// Samples behind `nll` if it is an estimate.
    pub nll_samples: Option<usize>,
    /// Reconstruction at sampled z + KL, the authors' figure: with couplings, the KL of the unary terms only. Absent
    /// for structures that are not in the paper.
    pub paper_loss: Option<f64>,
    /// Samples behind `paper_loss`; absent: the exact expectation.
    pub paper_samples: Option<usize>,
    /// Accuracy of the mode of q on labelled images; only for supervised latents.
    pub accuracy: Option<f64>,
    /// The same by class, of one variable, or by variable; null where no image is known.
    pub accuracies: Vec<Option<f64>>,
    /// Of a variable whose values are combinations of attributes: the same for every attribute.
    pub attribute_accuracies: Vec<f64>,
    /// The bound in bits for each number of an image, of likelihoods of 8-bit numbers.
    pub bits_per_dimension: Option<f64>,
    /// Values under names of their owners'.
    pub named: Vec<(String, Option<f64>)>,
    /// Time of all training steps so far, without evaluation.
    pub train_seconds: f64,
    /// Wall-clock since the start, without the gaps between interruption and resumption.
    pub seconds: f64,
    /// Mean time of a training step in this epoch.
    pub step_ms: f64,
}

impl Metrics {
    /// The line of an evaluation, without times.
    pub fn new(
        e: &Evaluation,
        epoch: usize,
        step: u64,
        split: Split,
        named: impl IntoIterator<Item = (String, Option<f64>)>,
    ) -> Self {
        Metrics {
            epoch,
            step,
            split: split.to_string(),
            images: e.images,
            bound: e.bound,
            bound_kind: e.bound_kind,
            bound_samples: e.bound_samples,
            reconstruction: e.reconstruction,
            kl: e.kl,
            codes_kl: e.codes_kl,
            nll: e.nll,
            nll_samples: e.nll_samples,
            paper_loss: e.paper_loss,
            paper_samples: e.paper_samples,
            accuracy: e.agreement.as_ref().map(|a| a.accuracy),
            accuracies: e.agreement.as_ref().map(|a| a.each.clone()).unwrap_or_default(),
            attribute_accuracies: e.agreement.as_ref().map(|a| a.attributes.clone()).unwrap_or_default(),
            bits_per_dimension: e.bits_per_dimension,
            named: named.into_iter().collect(),
            train_seconds: 0.0,
            seconds: 0.0,
            step_ms: 0.0,
        }
    }

    /// A value by its name.
    pub fn named(&self, name: &str) -> Option<f64> {
        self.named.iter().find(|(n, _)| n == name).and_then(|(_, value)| *value)
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("epoch", &self.epoch)?;
        map.serialize_entry("step", &self.step)?;
        map.serialize_entry("split", &self.split)?;
        map.serialize_entry("images", &self.images)?;
        map.serialize_entry("bound", &self.bound)?;
        map.serialize_entry("bound_kind", &self.bound_kind)?;
        if let Some(samples) = self.bound_samples {
            map.serialize_entry("bound_samples", &samples)?;
        }
        map.serialize_entry("reconstruction", &self.reconstruction)?;
        map.serialize_entry("kl", &self.kl)?;
        if let Some(codes_kl) = self.codes_kl {
            map.serialize_entry("codes_kl", &codes_kl)?;
        }
        map.serialize_entry("nll", &self.nll)?;
        if let Some(samples) = self.nll_samples {
            map.serialize_entry("nll_samples", &samples)?;
        }
        map.serialize_entry("paper_loss", &self.paper_loss)?;
        if let Some(samples) = self.paper_samples {
            map.serialize_entry("paper_samples", &samples)?;
        }
        map.serialize_entry("accuracy", &self.accuracy)?;
        if !self.accuracies.is_empty() {
            map.serialize_entry("accuracies", &self.accuracies)?;
        }
        if !self.attribute_accuracies.is_empty() {
            map.serialize_entry("attribute_accuracies", &self.attribute_accuracies)?;
        }
        if let Some(bits) = self.bits_per_dimension {
            map.serialize_entry("bits_per_dimension", &bits)?;
        }
        for (name, value) in &self.named {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("train_seconds", &self.train_seconds)?;
        map.serialize_entry("seconds", &self.seconds)?;
        map.serialize_entry("step_ms", &self.step_ms)?;
        map.end()
    }
}

/// The fields of a line in their order.
struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Takes a field that must be there.
    fn take<T: DeserializeOwned, E: de::Error>(&mut self, name: &'static str) -> Result<T, E> {
        self.find(name)?.ok_or_else(|| E::missing_field(name))
    }

    /// Takes a field that may be absent.
    fn find<T: DeserializeOwned, E: de::Error>(&mut self, name: &'static str) -> Result<Option<T>, E> {
        let Some(at) = self.0.iter().position(|(n, _)| n == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        serde_json::from_value(value).map(Some).map_err(|e| E::custom(format!("{name}: {e}")))
    }

    /// Takes a field that may be absent or null.
    fn option<T: DeserializeOwned, E: de::Error>(&mut self, name: &'static str) -> Result<Option<T>, E> {
        Ok(self.find::<Option<T>, E>(name)?.flatten())
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Line;
        impl<'de> Visitor<'de> for Line {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a line of metrics")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = vec![];
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        let mut fields = deserializer.deserialize_map(Line)?;
        let mut metrics = Metrics {
            epoch: fields.take("epoch")?,
            step: fields.take("step")?,
            split: fields.take("split")?,
            images: fields.take("images")?,
            bound: fields.take("bound")?,
            bound_kind: fields.find("bound_kind")?.unwrap_or_default(),
            bound_samples: fields.option("bound_samples")?,
            reconstruction: fields.take("reconstruction")?,
            kl: fields.take("kl")?,
            codes_kl: fields.option("codes_kl")?,
            nll: fields.option("nll")?,
            nll_samples: fields.option("nll_samples")?,
            paper_loss: fields.option("paper_loss")?,
            paper_samples: fields.option("paper_samples")?,
            accuracy: fields.option("accuracy")?,
            accuracies: fields.find("accuracies")?.unwrap_or_default(),
            attribute_accuracies: fields.find("attribute_accuracies")?.unwrap_or_default(),
            bits_per_dimension: fields.option("bits_per_dimension")?,
            named: vec![],
            train_seconds: fields.find("train_seconds")?.unwrap_or_default(),
            seconds: fields.take("seconds")?,
            step_ms: fields.take("step_ms")?,
        };
        for (name, value) in fields.0 {
            let value = serde_json::from_value(value).map_err(|e| de::Error::custom(format!("{name}: {e}")))?;
            metrics.named.push((name, value));
        }
        Ok(metrics)
    }
}

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Data set.
    pub dataset: String,
    /// Latent variable.
    pub latent: String,
    /// Estimator.
    pub estimator: String,
    /// KL schedule.
    pub kl: String,
    /// Epochs trained.
    pub epochs: usize,
    /// Images that were trained on: "train", or "all" with those of the validation split.
    #[serde(default = "train_split")]
    pub train_on: String,
    /// Epoch with the least validation bound; where the validation images were trained on, the last.
    pub best_epoch: usize,
    /// Validation at the best epoch.
    pub valid: Metrics,
    /// Test at the best epoch.
    pub test: Metrics,
    /// Test at the last epoch.
    pub final_test: Metrics,
    /// Wall-clock.
    pub seconds: f64,
    /// Training steps.
    pub steps: u64,
    /// Number of trained parameters.
    pub parameters: usize,
    /// Seed.
    pub seed: u64,
    /// Threads used.
    pub threads: usize,
    /// Engine.
    pub engine: String,
    /// What the engine computed with, the instruction set or the backend: the same seed gives the same bits on the
    /// same.
    #[serde(default)]
    pub arithmetic: String,
    /// Device.
    pub device: String,
    /// Version of this crate.
    pub version: String,
    /// Commit it was built from, or "unknown".
    pub commit: String,
}

/// Of summaries that were written before there was a choice.
fn train_split() -> String {
    "train".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_to_the_same_bytes() {
        let text = concat!(
            r#"{"epoch":2,"step":8,"split":"train","images":400,"bound":225.1,"bound_kind":"perturb-and-map","#,
            r#""bound_samples":10,"reconstruction":224.0,"kl":1.1,"nll":null,"paper_loss":224.75,"paper_samples":1,"#,
            r#""accuracy":null,"temperature":1.0,"epsilon":0.1,"zero_gradient_rate":null,"#,
            r#""search_gain":0.30000000000000004,"train_seconds":0.5,"seconds":1.5,"step_ms":2.25}"#
        );
        let line: Metrics = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
        assert_eq!((line.named("search_gain"), line.named("zero_gradient_rate")), (Some(0.1 + 0.2), None));
        for bad in ["{}", "[]", &text.replace("400", "-1"), &text.replace("0.1,\"zero", "\"x\",\"zero")] {
            assert!(serde_json::from_str::<Metrics>(bad).is_err(), "{bad}");
        }
    }
}
