//! The one error type of the crate.

/// What can go wrong in the heart: every variant says what was expected and what was found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A potential, noise value or loss is not a number.
    #[error("{what} {index} is NaN: expected a finite number")]
    NotANumber {
        /// Which input ("potential", "loss", ...).
        what: &'static str,
        /// Its index in the slice of the example.
        index: usize,
    },
    /// A sum that is no longer finite.
    #[error("the {what} is {value}: expected a finite number")]
    NotFinite {
        /// Which one ("loss of the batch").
        what: &'static str,
        /// What it is.
        value: f64,
    },
    /// A value is `+inf` where only finite numbers and `-inf` ("forbidden") have a meaning.
    #[error("{what} {index} is +inf: expected a finite number, or -inf for a forbidden choice")]
    PositiveInfinity {
        /// Which input ("potential", "loss", ...).
        what: &'static str,
        /// Its index in the slice of the example.
        index: usize,
    },
    /// The weight of a pair is negative where only other weights can be maximised exactly.
    #[error("the weight of the pair ({}, {}) is {weight}: expected a finite number of at least 0", pair.0, pair.1)]
    NegativeWeight {
        /// The two variables.
        pair: (usize, usize),
        /// Their weight.
        weight: f32,
    },
    /// Every assignment is forbidden by `-inf`.
    #[error("no assignment is allowed: {detail}")]
    Infeasible {
        /// Where the contradiction was found.
        detail: String,
    },
    /// An option or size is outside its range.
    #[error("{name} = {value}: expected {expected}")]
    Range {
        /// Name of the option.
        name: &'static str,
        /// The value found, as text.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// A setting is outside its range, or contradicts another one.
    #[error("{name} = {value}: expected {expected}")]
    Setting {
        /// The key.
        name: String,
        /// The value found.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// What was asked for failed outside of this crate, or a model is not the one that was expected.
    #[error("{detail}")]
    Failed {
        /// What was expected, and what was found.
        detail: String,
    },
    /// A slice has the wrong length.
    #[error("{what} has {found} values: expected {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Expected number of values.
        expected: usize,
        /// Found number of values.
        found: usize,
    },
    /// An exact sum over all states was asked of a space that is too large for it.
    #[error("{states} states are too many to enumerate: at most {limit}")]
    TooManyStates {
        /// Size of the space, as text (it may exceed every integer).
        states: String,
        /// The stated limit.
        limit: usize,
    },
    /// A sum over Z was asked of a structure that has none.
    #[error("sums over {structure} are not tractable: {reason}")]
    NoSums {
        /// The structure, in words.
        structure: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// An estimator for independent variables met coupled ones.
    #[error("{estimator} needs variables that are independent of each other")]
    Coupled {
        /// The estimator.
        estimator: &'static str,
    },
    /// An estimator for independent binary variables met others.
    #[error("{estimator} needs independent variables with two values each, such as binary:N")]
    NotBinary {
        /// The estimator.
        estimator: &'static str,
    },
    /// A label is no value of its variable.
    #[error("the label of variable {variable} is {value}: expected 0 to {}, or unknown", values.saturating_sub(1))]
    Label {
        /// The variable, counted from 0.
        variable: usize,
        /// What the label says.
        value: u32,
        /// Number of values of the variable.
        values: usize,
    },
    /// A label was given to a structure that cannot be restricted to what agrees with it.
    #[error("this structure takes no labels: it is no product of one-hot rows, and has no `condition` of its own")]
    NoLabels,
    /// An error in one example of a batch.
    #[error("example {example} of the batch: {source}")]
    Example {
        /// Index of the example in the batch.
        example: usize,
        /// What went wrong there.
        source: Box<Error>,
    },
}

impl Error {
    pub(crate) fn range(name: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Error::Range { name, value: value.to_string(), expected: expected.into() }
    }

    /// A setting outside its range, or in contradiction to another one.
    pub fn setting(name: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Self {
        Error::Setting { name: name.into(), value: value.to_string(), expected: expected.into() }
    }

    /// Says in which example of a batch it happened.
    pub fn in_example(self, example: usize) -> Self {
        Error::Example { example, source: Box::new(self) }
    }
}

/// Checks the length of a slice.
///
/// # Errors
/// [`Error::Length`].
pub fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}
