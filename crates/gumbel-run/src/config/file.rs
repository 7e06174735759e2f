//! Configurations as files: TOML, whose values keep their lines for errors.

use super::{Given, applicable, chosen, every_key, name_of, owned};
use crate::presets;
use crate::{Error, Registry, Result};
use gumbel::registry::{Kind, did_you_mean};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A value of a TOML file: what it is, and its text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Written {
    Switch(String),
    Number(String),
    Text(String),
}

impl Written {
    pub(crate) fn text(&self) -> &str {
        match self {
            Written::Switch(text) | Written::Number(text) | Written::Text(text) => text,
        }
    }

    /// Whether a value of this form may stand for one of that kind.
    fn fits(&self, kind: &Kind) -> bool {
        match (kind, self) {
            (Kind::Switch, form) => matches!(form, Written::Switch(_)),
            (Kind::Whole(..) | Kind::Real(..), form) => matches!(form, Written::Number(_)),
            _ => true,
        }
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a text, true, false, or a list of them")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Written, E> {
                Ok(Written::Switch(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Written, E> {
                Ok(Written::Number(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Written, E> {
                Ok(Written::Number(v.to_string()))
            }
            fn visit_i128<E>(self, v: i128) -> Result<Written, E> {
                Ok(Written::Number(v.to_string()))
            }
            fn visit_u128<E>(self, v: u128) -> Result<Written, E> {
                Ok(Written::Number(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Written, E> {
                Ok(Written::Number(format!("{v:?}")))
            }
            fn visit_str<E>(self, v: &str) -> Result<Written, E> {
                Ok(Written::Text(v.to_string()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Written, A::Error> {
                let mut parts: Vec<String> = vec![];
                while let Some(part) = list.next_element::<Written>()? {
                    parts.push(part.text().to_string());
                }
                Ok(Written::Text(parts.join(",")))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<Written, A::Error> {
                Err(de::Error::custom("expected a value, found a table"))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A TOML file of keys: values with their lines.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    path: PathBuf,
    values: Vec<(String, Written, usize)>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::ConfigFile`] with the line of what is no TOML.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        type Table = BTreeMap<String, toml::Spanned<Written>>;
        let table: Table = toml::from_str(&text).map_err(|e| {
            let place = e.span().map(|s| format!("line {}: ", line(s.start))).unwrap_or_default();
            Error::ConfigFile { path: path.to_path_buf(), detail: format!("{place}{}", e.message().replace('\n', " ")) }
        })?;
        let values = table.into_iter().map(|(key, v)| (key, line(v.span().start), v.into_inner()));
        let mut values: Vec<_> = values.map(|(key, line, value)| (key, value, line)).collect();
        values.sort_by_key(|(_, _, line)| *line); // the first error is that of the first line
        Ok(ConfigFile { path: path.to_path_buf(), values })
    }

    /// Values that stand in a file of another form, with their lines.
    pub(crate) fn of(path: &Path, mut values: Vec<(String, Written, usize)>) -> Self {
        values.sort_by_key(|(_, _, line)| *line);
        ConfigFile { path: path.to_path_buf(), values }
    }

    fn error(&self, line: usize, detail: impl fmt::Display) -> Error {
        Error::ConfigFile { path: self.path.clone(), detail: format!("line {line}: {detail}") }
    }

    /// An error about a key of the file, with its line.
    pub(super) fn at(&self, e: Error) -> Error {
        match self.values.iter().find(|(key, ..)| key == name_of(&e)) {
            Some((.., line)) => self.error(*line, e),
            None => e,
        }
    }

    /// Keys and texts, each known and in its range, and none of somebody who was not chosen.
    pub(super) fn given(&self, registry: &Registry) -> Result<Given> {
        let mut all = Given::new();
        for (key, value, line) in &self.values {
            let known = every_key(registry);
            if !known.contains(&key.as_str()) {
                return Err(self.error(*line, format!("unknown key {key:?}{}", did_you_mean(key, &known))));
            }
            all.insert(key.clone(), value.text().to_string());
        }
        let line_of = |key: &str| self.values.iter().find(|(k, ..)| k == key).map_or(1, |(.., line)| *line);
        let at_key = |e: Error| self.error(line_of(name_of(&e)), e);
        // A preset may choose the estimator whose settings stand beside it.
        let mut whole = all.clone();
        for (key, value) in presets::values(chosen(&all, "preset"), &all).map_err(at_key)? {
            whole.entry(key.into()).or_insert(value.into());
        }
        let keys = applicable(registry, &whole).map_err(at_key)?;
        for (key, value, line) in &self.values {
            let at = |e: Error| self.error(*line, e);
            let setting = owned(registry, &keys, &whole, key).map_err(at)?;
            let name = chosen(&whole, "estimator");
            if value.text() == "auto" && registry.estimators.get(name)?.auto_settings().contains(&setting.name) {
                continue;
            }
            if !value.fits(&setting.kind) {
                return Err(at(Error::setting(key, format!("{:?}", value.text()), setting.range())));
            }
            setting.parse(value.text()).map_err(|e| at(e.into()))?;
        }
        Ok(all)
    }
}
