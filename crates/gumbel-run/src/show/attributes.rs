//! Attributes on and off, or class by class, at the same Gaussian code (the paper's Figure 5).

use super::meaning::{Meaning, combinations};
use super::sheet::{Content, Sheet, Tensor, write};
use super::traverse::has_codes;
use super::{Look, MOST_COLUMNS, draw, is_tensors, prior_codes};
use crate::picture::BLANK;
use crate::{Error, Result};
use gumbel::continuous::Draw;
use gumbel::engine::{Engine, Images};
use gumbel::structure::{AnyStructure, Code, Structure};
use serde::Serialize;
use std::path::Path;

/// Up to so many attributes all combinations are shown.
const ALL: usize = 4;
/// Images that are encoded at a time.
const BATCH: usize = 250;

/// What is shown.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    /// What the states stand for.
    pub meaning: Meaning,
    /// Codes of the prior.
    pub rows: usize,
    /// Images, from the first one on.
    pub encoded: usize,
    /// Seed of the codes.
    pub seed: u64,
    /// How it is drawn.
    pub look: Look<'a>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// The value of one K-way variable, or of binary ones the number whose digits they are, the first one the highest.
    pub class: u32,
    /// The assignment of z `[n]`.
    pub z: Vec<u32>,
    /// What it stands for.
    pub name: String,
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The columns.
    pub columns: Vec<Column>,
    /// Rows of prior codes.
    pub rows: usize,
    /// Rows of images.
    pub encoded: usize,
}

/// Draws decoder means at combinations of attributes, or at classes: a column for each, all combinations of up to four
/// attributes, else none and each one alone. The first rows have codes from the prior, one for all states; those below
/// are images, each at the left of its row, with its own code. Where every state has a code of its own
/// ([`Rows`](gumbel::continuous::Continuous::Rows)), an image's is that which the encoder emits for the column's state.
///
/// As safetensors: `images` `[rows, columns, height, width, channels]` of prior codes; `encoded`, of the same form, and
/// `originals` `[images, height, width, channels]` of images; `classes` `[columns]`, and of attributes 0 or 1 as
/// `attributes` `[columns, attributes]`.
///
/// # Errors
/// Setting errors: a model without Gaussian codes, a latent that has not these attributes or classes, more images than
/// there are, nothing to show. A picture that cannot be written.
pub fn attributes(engine: &mut dyn Engine, images: &dyn Images, which: &Attributes<'_>, path: &Path) -> Result<Shown> {
    let (structure, inputs, shape) = (engine.structure().clone(), engine.inputs().clone(), images.shape());
    has_codes(&inputs)?;
    if which.encoded > images.count() {
        let expected = format!("at most {}, the number of images", images.count());
        return Err(Error::setting("encoded", which.encoded, expected));
    }
    if which.rows + which.encoded == 0 {
        return Err(Error::setting("rows", 0, "at least 1, where no images are shown"));
    }
    let tensors = is_tensors(path)?;
    let columns = columns(&structure, &which.meaning, if tensors { usize::MAX } else { MOST_COLUMNS })?;
    let n = structure.variables();
    let z: Vec<u32> = columns.iter().flat_map(|column| column.z.clone()).collect();
    let codes = prior_codes(engine, which.seed, which.rows);
    let prior = Sheet { rows: which.rows, columns: columns.len(), z: z.clone(), codes, shared: true };
    let indices: Vec<u32> = (0..which.encoded as u32).collect();
    let mut codes = vec![];
    for batch in indices.chunks(BATCH) {
        codes.extend(engine.ask(images, batch, Draw::Mean)?.codes.map(|codes| codes.samples).unwrap_or_default());
    }
    let encoded = Sheet { rows: which.encoded, columns: columns.len(), z, codes, shared: false };
    let shown = Shown { columns, rows: which.rows, encoded: which.encoded };

    if tensors {
        let names = match &which.meaning {
            Meaning::Classes(names) | Meaning::Attributes(names) => names,
        };
        let kind = if matches!(which.meaning, Meaning::Classes(_)) { "classes" } else { "attributes" };
        let of = shown.columns.iter().map(|column| &column.name).collect::<Vec<_>>();
        let text = serde_json::json!({ kind: names, "columns": of, "seed": which.seed }).to_string();
        let mut all: Vec<Tensor<'_>> = vec![
            ("images", vec![], Content::Sheet(&prior)),
            ("encoded", vec![], Content::Sheet(&encoded)),
            ("originals", vec![], Content::Images(images, &indices)),
        ];
        all.extend(described(&which.meaning, prior.columns, &prior.z, n));
        write(path, engine, shape, &text, all)?;
        return Ok(shown);
    }

    let beside = (which.encoded > 0) as usize;
    let mut heads: Vec<String> = shown.columns.iter().map(|column| which.meaning.head(&column.z)).collect();
    let title = match (which.rows, which.encoded) {
        (_, 0) => "codes of the prior",
        (0, _) => "images x, their own codes",
        _ => "codes of the prior; images x, their own codes",
    };
    let look = Look { title: which.look.title.or(Some(title)), ..which.look };
    let across = shown.columns.len() + beside;
    if beside > 0 {
        heads.insert(0, "x".into());
    }
    look.check(path, shape, (which.rows + which.encoded) * across, across, &heads, &[])?;
    let (own, pixels) = (shown.columns.len() * shape.len(), shape.len());
    let mut originals = vec![0.0; which.encoded * pixels];
    images.fill(&indices, &mut originals)?;
    let blank = vec![BLANK; beside * pixels];
    let mut tiles = vec![];
    for row in prior.means(engine, shape)?.chunks_exact(own) {
        tiles.extend_from_slice(&blank);
        tiles.extend_from_slice(row);
    }
    for (image, row) in originals.chunks_exact(pixels).zip(encoded.means(engine, shape)?.chunks_exact(own)) {
        tiles.extend_from_slice(image);
        tiles.extend_from_slice(row);
    }
    draw(path, &tiles, shape, across, look, &heads, &[])?;
    Ok(shown)
}

/// The tensors that say what columns are.
pub(super) fn described(meaning: &Meaning, columns: usize, z: &[u32], n: usize) -> Vec<Tensor<'static>> {
    let classes = z.chunks_exact(n).map(number).collect();
    let mut all = vec![("classes", vec![columns], Content::U32(classes))];
    if let Meaning::Attributes(names) = meaning {
        let digits = z.chunks_exact(n).flat_map(|z| meaning.digits(z)).collect();
        all.push(("attributes", vec![columns, names.len()], Content::I32(digits)));
    }
    all
}

/// The value of one variable; the number whose digits several binary ones are.
fn number(z: &[u32]) -> u32 {
    match z {
        [value] => *value,
        _ => z.iter().fold(0, |number, z| number.wrapping_mul(2) + (*z != 0) as u32),
    }
}

/// The columns: combinations of attributes, or at most `most` classes.
fn columns(structure: &AnyStructure, meaning: &Meaning, most: usize) -> Result<Vec<Column>> {
    let n = structure.variables();
    let has_values = structure.code() != Code::Indicators;
    let found = || match n {
        1 => format!("1 variable of {} values", structure.unary()),
        _ => format!("{n} variables"),
    };
    let all: Vec<Vec<u32>> = match meaning {
        Meaning::Classes(names) if n == 1 && has_values => {
            (0..names.len().min(structure.unary()).min(most) as u32).map(|class| vec![class]).collect()
        }
        Meaning::Attributes(names) => {
            let count = names.len();
            let single = n == 1 && 1usize.checked_shl(count as u32).is_some_and(|states| states <= structure.unary());
            if !(has_values && (single || n == count)) {
                let expected = format!(
                    "categorical:{}, or {count} binary variables, whose states stand for {count} attributes",
                    1u64.checked_shl(count as u32).unwrap_or(u64::MAX)
                );
                return Err(Error::setting("latent", found(), expected));
            }
            let alone = || {
                let one = |on: usize| (0..count).map(|i| i + 1 == on).collect::<Vec<bool>>();
                (0..=count).map(one).collect()
            };
            let on = if count <= ALL { combinations(count) } else { alone() };
            on.iter().map(|on| Meaning::assignment(on, n)).collect()
        }
        Meaning::Classes(_) => {
            return Err(Error::setting("latent", found(), "one K-way variable, whose values are classes"));
        }
    };
    if all.is_empty() {
        return Err(Error::setting("labels", 0, "a data set whose classes have names"));
    }
    Ok(all.into_iter().map(|z| Column { class: number(&z), name: meaning.name(&z), z }).collect())
}
