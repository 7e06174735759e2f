//! Annealing of epsilon (direct optimisation) and of the temperature (Gumbel-Softmax).

use crate::Error;

/// `max(min, start * exp(-decay * t))` where `t` is the step, rounded down to a multiple of `every`.
///
/// The paper uses `start = 1`, `min = 0.1`, `decay = 1e-5`, refreshed every 1000 steps, for both epsilon and
/// temperature (Section 4).
///
/// ```
/// use gumbel::schedule::Annealing;
/// let epsilon = Annealing::new(1.0, 0.1, 1e-3, 1000)?;
/// assert_eq!(epsilon.at(999), 1.0);
/// assert!((epsilon.at(1500) - (-1f32).exp()).abs() < 1e-6);
/// assert_eq!(epsilon.at(1_000_000), 0.1);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Annealing {
    start: f64,
    min: f64,
    decay: f64,
    every: u64,
}

impl Annealing {
    /// Checks `start > 0`, `0 < min <= start`, `decay >= 0`, `every >= 1`; all finite, start and least value also in
    /// f32.
    ///
    /// # Errors
    /// Other values.
    pub fn new(start: f64, min: f64, decay: f64, every: u64) -> Result<Self, Error> {
        let usable = |value: f64| (value as f32).is_normal() && value > 0.0;
        if !usable(start) {
            return Err(Error::range("start", start, "a finite number greater than 0"));
        }
        if !(usable(min) && min <= start) {
            return Err(Error::range("min", min, format!("a number greater than 0 and at most the start, {start}")));
        }
        if !(decay.is_finite() && decay >= 0.0) {
            return Err(Error::range("decay", decay, "a finite number, 0 or greater"));
        }
        if every == 0 {
            return Err(Error::range("every", every, "at least 1 step"));
        }
        Ok(Annealing { start, min, decay, every })
    }

    /// The same where a start below the least value is a constant, as `max(min, ...)` says; the least value must be
    /// possible itself.
    ///
    /// # Errors
    /// As [`new`](Annealing::new), but for a least value above the start.
    pub fn at_least(start: f64, min: f64, decay: f64, every: u64) -> Result<Self, Error> {
        let min = if start.is_finite() { min.min(start) } else { min };
        Annealing::new(start, min, decay, every)
    }

    /// The same value at every step.
    ///
    /// # Errors
    /// A value that is not greater than 0 in f32.
    pub fn constant(value: f64) -> Result<Self, Error> {
        Annealing::new(value, value, 0.0, 1)
    }

    /// The value at a training step (counted from 0).
    pub fn at(&self, step: u64) -> f32 {
        let t = (step / self.every * self.every) as f64;
        (self.start * (-self.decay * t).exp()).max(self.min) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_law_of_the_paper() {
        let a = Annealing::new(1.0, 0.1, 1e-5, 1000).unwrap();
        assert_eq!(a.at(0), 1.0);
        assert_eq!(a.at(999), 1.0);
        assert_eq!(a.at(1000), (-0.01f64).exp() as f32);
        assert_eq!(a.at(150_000), (-1.5f64).exp() as f32);
        assert_eq!(a.at(300_000), 0.1);
    }

    #[test]
    fn a_start_below_the_least_value_is_a_constant() {
        let low = Annealing::at_least(0.05, 0.1, 0.5, 1).unwrap();
        assert_eq!([0, 7, 1_000].map(|step| low.at(step)), [0.05; 3]);
        assert_eq!(Annealing::at_least(1.0, 0.1, 0.5, 1), Annealing::new(1.0, 0.1, 0.5, 1));
        for (start, min) in [(1.0, 0.0), (f64::NAN, 0.1), (f64::INFINITY, 0.1), (0.0, 0.1)] {
            assert!(Annealing::at_least(start, min, 0.0, 1).is_err(), "{start} {min}");
        }
    }

    #[test]
    fn refuses_impossible_settings() {
        for (s, m, d, e) in [
            (0.0, 0.1, 0.0, 1),
            (1e-50, 1e-50, 0.0, 1),
            (1.0, 1e-50, 0.0, 1),
            (1e300, 0.1, 0.0, 1),
            (f64::NAN, 0.1, 0.0, 1),
            (1.0, 0.0, 0.0, 1),
            (1.0, 2.0, 0.0, 1),
            (1.0, 0.1, -1.0, 1),
            (1.0, 0.1, f64::INFINITY, 1),
            (1.0, 0.1, 0.0, 0),
        ] {
            assert!(Annealing::new(s, m, d, e).is_err(), "{s} {m} {d} {e}");
        }
    }
}
