//! Labels: which images have one, what is known of them, and when training looks.
//!
//! A label says the values of variables of z. For one K-way variable it is the image's class; for binary variables, one
//! for each chosen attribute, it is the vector of the attributes, of which some may be unknown.
//!
//! `phases:A,B` makes A passes over the labelled images and then B epochs without labels (the paper), of which there
//! may be none. `joint` takes a
//! step on a labelled batch beside every step (eq. 9, its two terms one after the other). The draw is balanced over the
//! classes, from the training split alone, and depends on `label-draw` only: not on the seed.

use crate::{Config, Error, Result};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Code, Structure};
use gumbel::supervision::{self, UNKNOWN};
use gumbel_data::{Dataset, Images};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How many training images have a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many; 0: none.
    Some(usize),
    /// All that have one.
    All,
}

impl FromStr for Count {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Count::All),
            _ => text
                .parse()
                .map(Count::Some)
                .map_err(|_| Error::setting("labels", text, "a number of images, all, or 0 for none")),
        }
    }
}

/// When labels are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// A labelled batch beside every step.
    Joint,
    /// So many passes over the labelled images, then so many epochs without labels.
    Phases(u64, u64),
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let phases = || {
            let (first, second) = text.strip_prefix("phases:")?.split_once(',')?;
            let number = |text: &str, least: u64| text.trim().parse().ok().filter(|n| (least..=1_000_000).contains(n));
            Some(Schedule::Phases(number(first, 1)?, number(second, 0)?))
        };
        let found = if text == "joint" { Some(Schedule::Joint) } else { phases() };
        let expected =
            "joint, or phases:A,B: 1 to 1000000 passes over the labelled images, then as many or no epochs without";
        found.ok_or_else(|| Error::setting("supervision", text, expected))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Joint => f.write_str("joint"),
            Schedule::Phases(first, second) => write!(f, "phases:{first},{second}"),
        }
    }
}

/// The labelled images of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Labelled {
    /// Their places in the training split.
    pub images: Vec<u32>,
    /// What is known of them, `[images, n]`; unknown values are `null` in a file.
    #[serde(serialize_with = "with_nulls")]
    pub known: Vec<u32>,
    /// The pass of the last batch, and its order.
    #[serde(skip)]
    pass: Option<(Pass, Vec<u32>)>,
}

/// What the order of a pass follows from: seed, number, whether it is balanced.
type Pass = (u64, u64, bool);

fn with_nulls<S: serde::Serializer>(known: &[u32], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(known.iter().map(|y| (*y != UNKNOWN).then_some(*y)))
}

/// What is known of images `[images, n]`, where their labels or attributes are values of the latent's variables; `None`
/// where they are not.
pub fn known(config: &Config, images: &Images) -> Option<Vec<u32>> {
    let structure = &config.latent().structure;
    let n = structure.variables();
    if n == 1 && structure.code() != Code::Indicators {
        let fits = |label: &u16| usize::from(*label) < structure.unary();
        return images
            .labels()
            .filter(|all| all.iter().all(fits))
            .map(|all| all.iter().map(|y| u32::from(*y)).collect());
    }
    let attributes = images.attributes().filter(|a| a.names().len() == n && !config.attributes().is_empty())?;
    let value = |v: &i8| match v {
        1 => 1,
        -1 => 0,
        _ => UNKNOWN,
    };
    Some(attributes.values().iter().map(value).collect())
}

/// Draws the labelled images of a run, in the order of their places; `None` where there are to be none.
///
/// # Errors
/// Labels that the data or the latent do not have, more than there are, classes with too few images.
pub fn draw(config: &Config, data: &Dataset, count: usize) -> Result<Option<Labelled>> {
    let text = config.text("labels");
    let wanted = match config.labels() {
        Count::Some(0) => return Ok(None),
        wanted => wanted,
    };
    let refused = |expected: String| Error::setting("labels", text, expected);
    let (structure, n) = (&config.latent().structure, config.latent().structure.variables());
    let all = known(config, &data.train).ok_or_else(|| {
        refused(format!(
            "0: no labels of {} are values of {} (classes for categorical:K with at least as many values; with \
             --attributes one binary variable each)",
            config.text("dataset"),
            config.latent().text
        ))
    })?;
    let has = |i: &u32| all[*i as usize * n..][..n].iter().any(|y| *y != UNKNOWN);
    let order = Noise::new(config.whole("label-draw"), Purpose::Labels, 0).permutation(count);
    let candidates: Vec<u32> = order.into_iter().filter(has).collect();
    let mut images = match wanted {
        Count::All => candidates,
        Count::Some(wanted) if wanted > candidates.len() => {
            return Err(refused(format!("at most {}, the training images that have a label", candidates.len())));
        }
        Count::Some(wanted) if n == 1 => {
            // As many of each class; the first classes have one more where it does not come out even.
            let classes = data.classes.len().max(1);
            if wanted < classes {
                return Err(refused(format!("0, all, or at least {classes}: an image of each class")));
            }
            let mut left: Vec<usize> = (0..classes).map(|c| (wanted + classes - 1 - c) / classes).collect();
            let chosen = candidates.into_iter().filter(|i| {
                let left = &mut left[all[*i as usize] as usize];
                let take = *left > 0;
                *left -= take as usize;
                take
            });
            let chosen: Vec<u32> = chosen.collect();
            if let Some(class) = left.iter().position(|left| *left > 0) {
                let name = data.classes.get(class).map_or(String::new(), |name| format!(", {name}"));
                return Err(refused(format!("fewer: class {class}{name} has too few images for its share")));
            }
            chosen
        }
        Count::Some(wanted) => candidates.into_iter().take(wanted).collect(),
    };
    images.sort_unstable();
    let known: Vec<u32> = images.iter().flat_map(|i| &all[*i as usize * n..][..n]).copied().collect();
    supervision::check(structure, &known).map_err(|e| match e {
        gumbel::Error::Example { example, source } => {
            let value = |(name, y): (&&str, &u32)| match *y {
                UNKNOWN => format!("{name} unknown"),
                y => format!("{name} {y}"),
            };
            let values: Vec<String> = config.attributes().iter().zip(&known[example * n..]).map(value).collect();
            refused(format!(
                "labels that {} can have: image {} of the training split has {}: {source}",
                config.latent().text,
                images[example],
                values.join(", "),
            ))
        }
        other => other.into(),
    })?;
    Ok(Some(Labelled::new(images, known)))
}

impl Labelled {
    /// Images of the training split, by their places, and what is known of them, `[images, n]`.
    pub fn new(images: Vec<u32>, known: Vec<u32>) -> Self {
        Labelled { images, known, pass: None }
    }

    /// Batches in a pass over them.
    pub fn batches(&self, size: usize) -> u64 {
        self.images.len().div_ceil(size) as u64
    }

    /// The batch with a number, counted over all passes: places in the training split, and what is known of them. In a
    /// balanced pass, which is as long, there are as many images of every label: rare ones come again, and of the
    /// others some are left out, other ones in every pass.
    pub fn batch(&mut self, seed: u64, number: u64, size: usize, balanced: bool) -> (Vec<u32>, Vec<u32>) {
        let (pass, place) = (number / self.batches(size), (number % self.batches(size)) as usize);
        let of = (seed, pass, balanced);
        let kept = self.pass.take().filter(|(kept, _)| *kept == of);
        let (_, order) = self.pass.insert(kept.unwrap_or_else(|| (of, self.order(of))));
        let n = self.known.len() / self.images.len();
        let chosen = &order[place * size..order.len().min((place + 1) * size)];
        let images = chosen.iter().map(|i| self.images[*i as usize]).collect();
        (images, chosen.iter().flat_map(|i| &self.known[*i as usize * n..][..n]).copied().collect())
    }

    fn order(&self, (seed, pass, balanced): Pass) -> Vec<u32> {
        let order = Noise::new(seed, Purpose::Labels, 1 + pass).permutation(self.images.len());
        match balanced {
            // Streams of their own, counted from the other end.
            true => self.balanced(order, Noise::new(seed, Purpose::Labels, !pass)),
            false => order,
        }
    }

    /// As many images, which have every label equally often: those with one in the given order, again and again.
    fn balanced(&self, order: Vec<u32>, noise: Noise) -> Vec<u32> {
        let n = self.known.len() / self.images.len();
        let (count, mut labels) = (order.len(), BTreeMap::<&[u32], Vec<u32>>::new());
        for i in order {
            labels.entry(&self.known[i as usize * n..][..n]).or_default().push(i);
        }
        let mut turns: Vec<_> = labels.values().map(|images| images.iter().cycle()).collect();
        let some = turns.len();
        let order: Vec<u32> = (0..count).filter_map(|i| turns[i % some].next()).copied().collect();
        noise.permutation(count).into_iter().map(|i| order[i as usize]).collect()
    }
}
