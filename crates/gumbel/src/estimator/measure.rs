//! What an estimator measures while it trains: named means.

/// Most measures of an estimator.
pub const MEASURES: usize = 8;

/// A named value that an estimator measures in training: a field of `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// The name of the field.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Whether its field stands in every line, null where nobody measures it.
    pub always: bool,
}

/// A sum of values and their number; the measure is the mean.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Sum of the values.
    pub sum: f64,
    /// Number of the values.
    pub count: f64,
}

impl Tally {
    /// Counts values. They are rounded to multiples of 2^-30: so sums up to 2^22 have no rounding of their own, and do
    /// not depend on how a batch is cut into pieces.
    pub fn add(&mut self, sum: f64, count: f64) {
        const GRAIN: f64 = (1u64 << 30) as f64;
        self.sum += (sum * GRAIN).round() / GRAIN;
        self.count += count;
    }

    /// Counts those of another tally.
    pub fn merge(&mut self, other: &Tally) {
        self.add(other.sum, other.count);
    }

    /// The mean; of no values, 0.
    pub fn mean(&self) -> f64 {
        self.sum / if self.count > 0.0 { self.count } else { 1.0 }
    }
}

/// Share of the draws whose two arg maxima coincide, so that the gradient is zero.
pub(super) const ZERO_GRADIENT_RATE: Measure = Measure {
    name: "zero_gradient_rate",
    help: "share of draws whose two arg maxima coincide, so that the gradient is zero",
    always: true,
};

/// epsilon, where it is moved to hold that share.
pub(super) const ADAPTIVE_EPSILON: Measure = Measure {
    name: "adaptive_epsilon",
    help: "epsilon that zero-gradient-target moves, mean over draws",
    always: false,
};

/// The rounding of a loss, a sum of many pixels in f32, in nats: less is no improvement.
pub(super) const ROUNDING: f64 = 1e-3;
