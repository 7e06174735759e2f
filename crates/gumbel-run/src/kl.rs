//! When the KL term takes part in training.

use crate::Error;
use gumbel::estimator::KlTerm;
use std::fmt;
use std::str::FromStr;

/// When the KL term takes part in training. It is always part of the reported bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlSchedule {
    /// From the first step: the bound itself is minimised.
    On,
    /// As `On`, but its exact gradient is added to that of the loss even where the estimator would take it into its own
    /// objective, as direct optimisation does: then large steps towards the posterior count its pull twice.
    Added,
    /// Never: only the reconstruction is minimised, as the authors do with direct optimisation.
    Off,
    /// Its weight grows linearly from 0 to 1 over the first epochs.
    Warmup(u32),
}

impl KlSchedule {
    /// The weight of the KL term at a training step.
    ///
    /// ```
    /// use gumbel_run::KlSchedule;
    /// let kl: KlSchedule = "warmup:20".parse()?;
    /// assert_eq!([0, 5_000, 99_999].map(|step| kl.weight(step, 500)), [0.0, 0.5, 1.0]);
    /// # Ok::<(), gumbel_run::Error>(())
    /// ```
    pub fn weight(self, step: u64, steps_per_epoch: u64) -> f32 {
        match self {
            KlSchedule::On | KlSchedule::Added => 1.0,
            KlSchedule::Off => 0.0,
            KlSchedule::Warmup(epochs) => {
                (step as f64 / (epochs as f64 * steps_per_epoch.max(1) as f64)).min(1.0) as f32
            }
        }
    }

    /// Whether the estimator takes the term into its own objective; otherwise its exact gradient is added.
    pub fn is_inside(self, term: KlTerm) -> bool {
        match term {
            KlTerm::Apart => false,
            KlTerm::Either => self != KlSchedule::Added,
            KlTerm::Within => true,
        }
    }
}

impl fmt::Display for KlSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KlSchedule::On => f.write_str("on"),
            KlSchedule::Added => f.write_str("added"),
            KlSchedule::Off => f.write_str("off"),
            KlSchedule::Warmup(epochs) => write!(f, "warmup:{epochs}"),
        }
    }
}

impl FromStr for KlSchedule {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match (s, s.strip_prefix("warmup:").map(u32::from_str)) {
            ("on", _) => Ok(KlSchedule::On),
            ("added", _) => Ok(KlSchedule::Added),
            ("off", _) => Ok(KlSchedule::Off),
            (_, Some(Ok(epochs))) if epochs > 0 => Ok(KlSchedule::Warmup(epochs)),
            _ => Err(Error::setting("kl", format!("{s:?}"), "on, added, off or warmup:EPOCHS with at least 1 epoch")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_warms_up_linearly() {
        let kl: KlSchedule = "warmup:20".parse().unwrap();
        assert_eq!([0, 5_000, 10_000, 99_999].map(|s| kl.weight(s, 500)), [0.0, 0.5, 1.0, 1.0]);
        assert!("warmup:0".parse::<KlSchedule>().is_err() && "maybe".parse::<KlSchedule>().is_err());
        for text in ["on", "added", "off", "warmup:7"] {
            assert_eq!(text.parse::<KlSchedule>().unwrap().to_string(), text);
        }
    }
}
