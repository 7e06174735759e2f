//! Names, settings and constructors: what a program needs to offer estimators, structures, data sets, models and
//! likelihoods.
//!
//! Each of them stands in one file with its [`Entry`]: its name, a line of help, its [settings](Setting) with ranges
//! and defaults, and its constructor. [`Entries`] is a list of them; flags, keys of files, help and error
//! messages are made from it. A registry is a value: add entries of your own to it and give it to whoever looks names
//! up.

use crate::Error;
use std::collections::BTreeMap;
use std::fmt;

/// What has a name, a line of help and settings.
pub trait Entry {
    /// The name, as on the command line: lower case, words joined by `-`.
    fn name(&self) -> &str;

    /// One line of help.
    fn help(&self) -> &str;

    /// The settings that belong to it; several entries may share one.
    fn settings(&self) -> &[Setting] {
        &[]
    }
}

/// One number, name or switch that a user may set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key, as on the command line: lower case, words joined by `-`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value where none is given, as text.
    pub default: &'static str,
    /// What stands for the value in a line of help, such as `STEPS`.
    pub value: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`; as a flag without a value: true.
    Switch,
    /// A whole number from the first to the second, both included.
    Whole(u64, u64),
    /// A number in the range that the text describes.
    Real(fn(f64) -> bool, &'static str),
    /// One of some names.
    Choice(&'static [&'static str]),
    /// Any text; whoever reads it checks it.
    Text,
}

/// What [`Kind::POSITIVE`] takes, in words.
pub(crate) const POSITIVE: &str = "a number greater than 0 that f32 can hold, about 1.2e-38 to 3.4e38";

/// Whether a number is greater than 0 and, in f32, has all its digits.
pub(crate) fn is_positive(value: f64) -> bool {
    (value as f32).is_normal() && value > 0.0
}

impl Kind {
    /// Numbers greater than 0 that f32 holds with all their digits.
    pub const POSITIVE: Kind = Kind::Real(is_positive, POSITIVE);
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Whole`].
    Whole(u64),
    /// Of [`Kind::Real`].
    Real(f64),
    /// Of [`Kind::Choice`] and [`Kind::Text`].
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Switch(v) => v.fmt(f),
            Value::Whole(v) => v.fmt(f),
            Value::Real(v) => v.fmt(f),
            Value::Text(v) => v.fmt(f),
        }
    }
}

impl Setting {
    /// The value that a text stands for.
    ///
    /// # Errors
    /// [`Error::Setting`] outside of the range; for names with a suggestion.
    pub fn parse(&self, text: &str) -> Result<Value, Error> {
        let refused = |expected: String| Error::setting(self.name, text, expected);
        match self.kind {
            Kind::Switch => text.parse().map(Value::Switch).map_err(|_| refused("true or false".into())),
            Kind::Whole(least, most) => match text.parse() {
                Ok(v) if (least..=most).contains(&v) => Ok(Value::Whole(v)),
                _ => Err(refused(whole(least, most))),
            },
            Kind::Real(fits, expected) => match text.parse() {
                Ok(v) if fits(v) => Ok(Value::Real(v)),
                _ => Err(refused(expected.into())),
            },
            Kind::Choice(names) => match names.contains(&text) {
                true => Ok(Value::Text(text.into())),
                false => Err(refused(one_of(text, names))),
            },
            Kind::Text => Ok(Value::Text(text.into())),
        }
    }

    /// The default.
    pub fn default_value(&self) -> Value {
        self.parse(self.default).unwrap_or_else(|e| panic!("the default of a setting is one of its values: {e}"))
    }

    /// The range, in words.
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Switch => "true or false".into(),
            Kind::Whole(least, most) => whole(least, most),
            Kind::Real(_, expected) => expected.into(),
            Kind::Choice(names) => format!("one of {}", names.join(", ")),
            Kind::Text => self.value.into(),
        }
    }
}

fn whole(least: u64, most: u64) -> String {
    match most {
        u64::MAX => format!("a whole number of at least {least}"),
        _ => format!("a whole number from {least} to {most}"),
    }
}

/// Values of the settings of an entry, complete.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings(BTreeMap<String, Value>);

impl Settings {
    /// The defaults.
    pub fn defaults(settings: &[Setting]) -> Self {
        Settings(settings.iter().map(|s| (s.name.to_string(), s.default_value())).collect())
    }

    /// Replaces the value of one.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_string(), value);
    }

    /// Replaces the value of one and gives all back, for chains of calls in tests and examples.
    ///
    /// # Errors
    /// As [`Setting::parse`].
    pub fn with(mut self, setting: &Setting, text: &str) -> Result<Self, Error> {
        self.set(setting.name, setting.parse(text)?);
        Ok(self)
    }

    /// Names and values in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn of(&self, name: &str) -> &Value {
        self.get(name).unwrap_or_else(|| panic!("{name} is not among the settings that were declared"))
    }

    /// A switch. Panics if the entry has not declared it: an error of the program.
    pub fn switch(&self, name: &str) -> bool {
        match self.of(name) {
            Value::Switch(v) => *v,
            other => panic!("{name} = {other} is no switch"),
        }
    }

    /// A whole number; panics as [`switch`](Settings::switch).
    pub fn whole(&self, name: &str) -> u64 {
        match self.of(name) {
            Value::Whole(v) => *v,
            other => panic!("{name} = {other} is no whole number"),
        }
    }

    /// A number; panics as [`switch`](Settings::switch).
    pub fn real(&self, name: &str) -> f64 {
        match self.of(name) {
            Value::Real(v) => *v,
            other => panic!("{name} = {other} is no number"),
        }
    }

    /// A name or a text; panics as [`switch`](Settings::switch).
    pub fn text(&self, name: &str) -> &str {
        match self.of(name) {
            Value::Text(v) => v,
            other => panic!("{name} = {other} is no text"),
        }
    }
}

/// Entries of one kind, in the order in which they are listed.
#[derive(Debug, Clone)]
pub struct Entries<E> {
    kind: &'static str,
    entries: Vec<E>,
}

impl<E: Entry> Entries<E> {
    /// `kind` says in messages what the entries are: `estimator`, `latent`, ...
    pub fn new(kind: &'static str, entries: impl IntoIterator<Item = E>) -> Self {
        let mut registry = Entries { kind, entries: vec![] };
        entries.into_iter().for_each(|e| registry.add(e));
        registry
    }

    /// Adds an entry; one of the same name is replaced.
    pub fn add(&mut self, entry: E) {
        match self.entries.iter_mut().find(|e| e.name() == entry.name()) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    /// The entry of a name.
    ///
    /// # Errors
    /// [`Error::Setting`] with all names, and the nearest one for a near miss.
    pub fn get(&self, name: &str) -> Result<&E, Error> {
        let found = self.entries.iter().find(|e| e.name() == name);
        found.ok_or_else(|| Error::setting(self.kind, format!("{name:?}"), one_of(name, &self.names())))
    }

    /// All entries.
    pub fn iter(&self) -> std::slice::Iter<'_, E> {
        self.entries.iter()
    }

    /// All names.
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|e| e.name()).collect()
    }

    /// What the entries are, as in messages.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

/// "one of a, b, c (did you mean b?)".
pub fn one_of(name: &str, names: &[&str]) -> String {
    format!("one of {}{}", names.join(", "), did_you_mean(name, names))
}

/// " (did you mean b?)", or nothing if no name is near.
pub fn did_you_mean(name: &str, names: &[&str]) -> String {
    nearest(name, names).map_or(String::new(), |n| format!(" (did you mean {n}?)"))
}

/// The name that a mistyped one most likely stands for.
pub fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let near = names.iter().map(|n| (strsim::damerau_levenshtein(n, name), *n)).min();
    near.filter(|(distance, n)| *distance <= 3 && *distance < n.len()).map(|(_, n)| n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: Setting =
        Setting { name: "width", kind: Kind::Whole(1, 9), default: "3", value: "N", help: "how wide it is" };
    const RATE: Setting = Setting {
        name: "rate",
        kind: Kind::Real(|v| v.is_finite() && v > 0.0, "a finite number greater than 0"),
        default: "0.5",
        value: "X",
        help: "how fast it goes",
    };
    const NOISE: Setting =
        Setting { name: "noise", kind: Kind::Choice(&["unary", "full"]), default: "unary", value: "NAME", help: "" };

    #[test]
    fn texts_become_values_or_say_what_was_expected() {
        assert_eq!(WIDTH.parse("9").unwrap(), Value::Whole(9));
        assert_eq!(RATE.default_value(), Value::Real(0.5));
        for (setting, text, expected) in [
            (&WIDTH, "10", "width = 10: expected a whole number from 1 to 9"),
            (&WIDTH, "-1", "width = -1: expected a whole number from 1 to 9"),
            (&RATE, "nan", "rate = nan: expected a finite number greater than 0"),
            (&NOISE, "ful", "noise = ful: expected one of unary, full (did you mean full?)"),
        ] {
            assert_eq!(setting.parse(text).unwrap_err().to_string(), expected);
        }
        let settings = Settings::defaults(&[WIDTH, RATE, NOISE]).with(&RATE, "2").unwrap();
        assert_eq!((settings.whole("width"), settings.real("rate"), settings.text("noise")), (3, 2.0, "unary"));
    }

    #[test]
    fn entries_are_found_replaced_and_suggested() {
        struct Shape(&'static str, usize);
        impl Entry for Shape {
            fn name(&self) -> &str {
                self.0
            }
            fn help(&self) -> &str {
                ""
            }
        }
        let mut shapes = Entries::new("shape", [Shape("circle", 1), Shape("square", 2)]);
        shapes.add(Shape("square", 3));
        assert_eq!((shapes.names(), shapes.get("square").unwrap().1), (vec!["circle", "square"], 3));
        let message = shapes.get("circel").err().unwrap().to_string();
        assert_eq!(message, "shape = \"circel\": expected one of circle, square (did you mean circle?)");
        assert!(!shapes.get("\n").err().unwrap().to_string().contains("mean"));
    }
}
