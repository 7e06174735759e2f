//! What the states of a latent stand for, where labels say it.

use crate::labels::Count;
use crate::{Config, Error, Result};
use gumbel::registry::one_of;
use gumbel::structure::{AnyStructure, Structure};
use gumbel_data::Dataset;

/// What the states of a latent stand for.
///
/// ```
/// use gumbel_run::show::Meaning;
/// let attributes = Meaning::Attributes(vec!["Smiling".into(), "Male".into()]);
/// assert_eq!(attributes.name(&[1]), "-Smiling+Male"); // of one K-way variable
/// assert_eq!(attributes.name(&[0, 1]), "-Smiling+Male"); // of two binary ones
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// The values of one K-way variable are the classes of these names.
    Classes(Vec<String>),
    /// The attributes of these names are the binary digits of one K-way variable, the first one the highest, or each a
    /// variable of its own.
    Attributes(Vec<String>),
}

impl Meaning {
    /// What labels have made the states of a run stand for; `None` where it had no labels. Names of classes stand in
    /// the data; attributes are called as there, or without data as in the configuration.
    pub fn of(config: &Config, data: Option<&Dataset>) -> Option<Meaning> {
        if config.labels() == Count::Some(0) {
            return None;
        }
        let chosen = config.attributes();
        if chosen.is_empty() {
            let classes = &data.filter(|_| config.latent().structure.variables() == 1)?.classes;
            return Some(Meaning::Classes(classes.clone()));
        }
        let known = data.and_then(|data| data.train.attributes());
        let name = |name: &&str| {
            let column = known.and_then(|known| known.position(name).ok());
            column.and_then(|c| known?.names().get(c).cloned()).unwrap_or_else(|| name.to_string())
        };
        Some(Meaning::Attributes(chosen.iter().map(name).collect()))
    }

    /// The name of an assignment `[n]` on one line.
    pub fn name(&self, z: &[u32]) -> String {
        match self {
            Meaning::Classes(names) => names.get(z[0] as usize).cloned().unwrap_or_else(|| format!("z = {}", z[0])),
            Meaning::Attributes(_) => self.signed(z).concat(),
        }
    }

    /// The name of an assignment `[n]` for the head of a column: attributes stand one below the other.
    pub fn head(&self, z: &[u32]) -> String {
        match self {
            Meaning::Classes(_) => self.name(z),
            Meaning::Attributes(_) => self.signed(z).join("\n"),
        }
    }

    fn signed(&self, z: &[u32]) -> Vec<String> {
        let Meaning::Attributes(names) = self else { return vec![] };
        let signs = self.digits(z).into_iter().map(|on| if on == 0 { '-' } else { '+' });
        names.iter().zip(signs).map(|(name, sign)| format!("{sign}{name}")).collect()
    }

    /// Which attributes are on in an assignment `[n]`: 0 or 1 `[attributes]`; none where classes are no combinations.
    pub fn digits(&self, z: &[u32]) -> Vec<i32> {
        match self {
            Meaning::Classes(_) => vec![],
            Meaning::Attributes(names) if z.len() == 1 => {
                (0..names.len()).rev().map(|place| (z[0].checked_shr(place as u32).unwrap_or(0) & 1) as i32).collect()
            }
            Meaning::Attributes(_) => z.iter().map(|z| (*z != 0) as i32).collect(),
        }
    }

    /// The assignment `[n]` in which these attributes are on.
    pub(super) fn assignment(on: &[bool], variables: usize) -> Vec<u32> {
        match variables {
            1 => vec![on.iter().fold(0, |number, on| number << 1 | *on as u32)],
            _ => on.iter().map(|on| *on as u32).collect(),
        }
    }
}

/// Most attributes whose combinations are listed by name.
const NAMED: usize = 12;

/// The assignment `[n]` of a state that somebody calls by its number or by its name.
///
/// # Errors
/// A setting error for a state that is not there.
pub(super) fn state(structure: &AnyStructure, meaning: Option<&Meaning>, text: &str) -> Result<Vec<u32>> {
    let n = structure.variables();
    let states = structure.states().ok_or_else(|| {
        Error::setting("class", text, "none, for the state that is used most: these states are too many to be counted")
    })?;
    if let Some(number) = text.trim().parse::<usize>().ok().filter(|number| *number < states) {
        let mut z = vec![0; n];
        structure.state(number, &mut z);
        return Ok(z);
    }
    let values = |count: usize| (0..count.min(states) as u32).map(|value| vec![value]).collect();
    let named: Vec<Vec<u32>> = match meaning {
        Some(Meaning::Classes(names)) => values(names.len()),
        Some(Meaning::Attributes(names)) if names.len() <= NAMED => {
            combinations(names.len()).iter().map(|on| Meaning::assignment(on, n)).collect()
        }
        _ => vec![],
    };
    let names: Vec<String> = named.iter().filter_map(|z| Some(meaning?.name(z))).collect();
    match names.iter().position(|name| name.eq_ignore_ascii_case(text.trim())) {
        Some(place) => Ok(named[place].clone()),
        None => {
            let all: Vec<&str> = names.iter().map(String::as_str).collect();
            let named = if all.is_empty() { String::new() } else { format!(", or {}", one_of(text, &all)) };
            Err(Error::setting("class", text, format!("a number from 0 to {}{named}", states - 1)))
        }
    }
}

/// All combinations of so many attributes, in the order of their numbers, of which the first attribute is the highest
/// digit.
pub(super) fn combinations(attributes: usize) -> Vec<Vec<bool>> {
    let digits = |number: usize| (0..attributes).rev().map(|place| number >> place & 1 == 1).collect();
    (0..1usize << attributes).map(digits).collect()
}
