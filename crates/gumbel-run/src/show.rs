//! Pictures of what a model makes: samples of its prior, reconstructions, [coordinates that slide](traverse()),
//! [attributes on and off](attributes()); most of them also as numbers, where a file's name ends in `.safetensors`.

mod attributes;
mod meaning;
mod sheet;
mod traverse;

pub use attributes::{Attributes, Column, Shown, attributes};
pub use meaning::Meaning;
pub use traverse::{Coordinate, Traverse, Traversed, traverse};

use crate::labels::Count;
use crate::picture::{Format, Grid, SAMPLE_FORMATS, format, grid};
use crate::{Config, Error, Result};
use gumbel::continuous::{Continuous, Draw};
use gumbel::engine::{Asked, Engine, Images, Shape};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{AnyStructure, Structure, Sums, argmax_batch, perturbed_argmax};
use sheet::{Content, Sheet};
use std::path::Path;

/// Tiles to a row.
const COLUMNS: usize = 10;
/// Most values of a K-way variable in a picture whose rows are Gaussian codes.
const MOST_COLUMNS: usize = 20;
/// Images that are reconstructed.
const PAIRS: usize = 50;
/// Images that say how often a category is used, and how many at a time.
const USED: usize = 10_000;
const BATCH: usize = 500;

/// How a grid of images is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look<'a> {
    /// Pixels of the picture to a pixel of an image; by default as the picture has it.
    pub scale: Option<usize>,
    /// A line of text above the images.
    pub title: Option<&'a str>,
}

impl<'a> Look<'a> {
    fn grid<'b>(
        self,
        tiles: &'b [f32],
        shape: Shape,
        columns: usize,
        heads: &'b [String],
        sides: &'b [String],
    ) -> Grid<'b>
    where
        'a: 'b,
    {
        let plain = Grid::new(tiles, shape.height, shape.width);
        let scale = self.scale.unwrap_or(plain.scale);
        Grid { channels: shape.channels, columns, scale, title: self.title, heads, sides, ..plain }
    }

    /// Refuses a picture of so many tiles that would be too large, before they are made.
    fn check(
        self,
        path: &Path,
        shape: Shape,
        count: usize,
        columns: usize,
        heads: &[String],
        sides: &[String],
    ) -> Result<()> {
        self.grid(&[], shape, columns, heads, sides).check(path, count)
    }
}

/// Which samples are drawn, and how.
#[derive(Debug, Clone, Default)]
pub struct Samples<'a> {
    /// Seed of assignments and codes drawn from the prior.
    pub seed: u64,
    /// Rows of ten; by default all values of a K-way variable, and ten rows of prior samples.
    pub rows: Option<usize>,
    /// The order of the values of a K-way variable; by default that of their numbers.
    pub order: Option<Vec<u32>>,
    /// What the states stand for: it is written above the columns.
    pub meaning: Option<Meaning>,
    /// How they are drawn.
    pub look: Look<'a>,
}

/// Decoder means `[assignments, pixels]` at assignments `[assignments, n]`, and Gaussian codes `[assignments, blocks,
/// D]` of models that have some.
fn means(engine: &mut dyn Engine, z: &[u32], samples: &[f32], pixels: usize) -> Result<Vec<f32>> {
    let (structure, inputs) = (engine.structure().clone(), engine.inputs().clone());
    let (n, u, width, own) = (structure.variables(), structure.unary(), inputs.width(), inputs.samples());
    let rows = z.len() / n;
    let (mut code, mut weights) = (vec![0.0; u], vec![0.0; inputs.blocks()]);
    let mut read = vec![0.0; rows * width];
    for (r, (z, input)) in z.chunks_exact(n).zip(read.chunks_exact_mut(width)).enumerate() {
        structure.encode(z, &mut code);
        inputs.weights(&code, &mut weights);
        inputs.input(&code, &weights, &samples[r * own..][..own], input);
    }
    let mut means = vec![0.0; rows * pixels];
    engine.means(&read, &mut means)?;
    Ok(means)
}

/// Gaussian codes drawn from the prior `[rows, D]`: in each row one for all states.
fn prior_codes(engine: &dyn Engine, seed: u64, rows: usize) -> Vec<f32> {
    let mut codes = vec![0.0; rows * engine.inputs().kind().dim()];
    Noise::new(seed, Purpose::Picture, 1).normal(&mut codes);
    codes
}

/// Refuses a run whose model has no Gaussian codes, before its images are read.
///
/// # Errors
/// A setting error.
pub fn expect_codes(config: &Config) -> Result<()> {
    match config.continuous() {
        Continuous::None => {
            Err(Error::setting("continuous", "none", "rows:D or joint:D: a run whose model has Gaussian codes"))
        }
        _ => Ok(()),
    }
}

/// Refuses a run without labels, before its images are read: nobody knows what its states stand for.
///
/// # Errors
/// A setting error.
pub fn expect_labels(config: &Config) -> Result<()> {
    match config.labels() {
        Count::Some(0) => {
            let expected = "a run with labels, which make the states of z stand for attributes or classes";
            Err(Error::setting("labels", 0, expected))
        }
        _ => Ok(()),
    }
}

/// Whether a file's name asks for numbers instead of a picture.
fn is_tensors(path: &Path) -> Result<bool> {
    Ok(format(path, SAMPLE_FORMATS)? == Format::Safetensors)
}

/// The values of one K-way variable, those first that the images use most: by the mean of q over the images. `None` for
/// other latents.
///
/// # Errors
/// Numbers that are not finite.
pub fn by_use(engine: &mut dyn Engine, images: &dyn Images) -> Result<Option<Vec<u32>>> {
    let structure = engine.structure().clone();
    if !structure.is_single() {
        return Ok(None);
    }
    let p = structure.potentials();
    let (mut totals, mut q) = (vec![0.0f64; p], vec![0.0; p]);
    let all: Vec<u32> = (0..images.count().min(USED) as u32).collect();
    for batch in all.chunks(BATCH) {
        for h in engine.ask(images, batch, Draw::Mean)?.potentials.chunks_exact(p) {
            structure.marginals(h, &mut q)?;
            totals.iter_mut().zip(&q).for_each(|(t, q)| *t += *q as f64);
        }
    }
    let mut order: Vec<u32> = (0..p as u32).collect();
    order.sort_by(|a, b| totals[*b as usize].total_cmp(&totals[*a as usize]));
    Ok(Some(order))
}

/// Draws the decoder's means: of each value of one K-way variable, or of assignments drawn from the prior. With
/// Gaussian codes the columns are values or assignments, and the images of a row share one code from its prior (the
/// paper's Figure 4).
///
/// As safetensors: `images` `[rows, columns, height, width, channels]`. Of one K-way variable every value is a column,
/// `classes` `[columns]`; without Gaussian codes there is one row. Of other latents ten assignments are columns,
/// `assignments` `[columns, n]`; without Gaussian codes every image has its own, `[rows, columns, n]`. Of attributes,
/// 0 or 1 as `attributes` `[columns, attributes]`.
///
/// # Errors
/// A picture that cannot be written.
pub fn samples(engine: &mut dyn Engine, shape: Shape, which: &Samples<'_>, path: &Path) -> Result<()> {
    let structure = engine.structure().clone();
    let (n, single, mixed) = (structure.variables(), structure.is_single(), engine.inputs().samples() > 0);
    let (tensors, rows) = (is_tensors(path)?, which.rows.unwrap_or(10));
    let values = single.then(|| {
        let mut values = which.order.clone().unwrap_or_else(|| (0..structure.unary() as u32).collect());
        let most = if mixed { Some(MOST_COLUMNS) } else { which.rows.map(|r| r.saturating_mul(COLUMNS)) };
        values.truncate(most.filter(|_| !tensors).unwrap_or(usize::MAX));
        values
    });
    let (rows, columns) = match &values {
        Some(values) => (if mixed { rows } else { 1 }, values.len()),
        None => (rows, COLUMNS),
    };
    let across = if mixed { columns } else { COLUMNS };
    let check = |heads: &[String]| match tensors {
        true => Ok(()),
        false => which.look.check(path, shape, rows.saturating_mul(columns), across, heads, &[]),
    };
    check(&[])?;
    let z = match values {
        Some(values) => values,
        None => of_the_prior(&structure, which.seed, if mixed { COLUMNS } else { rows * COLUMNS })?,
    };
    let codes = prior_codes(engine, which.seed, if mixed { rows } else { 0 });
    let sheet = Sheet { rows, columns, z, codes, shared: true };
    if tensors {
        return store(engine, shape, which, &sheet, path);
    }
    let own = mixed || (single && columns <= COLUMNS); // every column has one assignment
    let head = |z: &[u32]| match &which.meaning {
        Some(meaning) => Some(meaning.head(z)),
        None => (mixed && single).then(|| format!("z={}", z[0])),
    };
    let heads: Option<Vec<String>> = sheet.z.chunks_exact(n).take(columns).map(head).collect();
    let heads = heads.filter(|_| own).unwrap_or_default();
    check(&heads)?;
    draw(path, &sheet.means(engine, shape)?, shape, across, which.look, &heads, &[])
}

/// Writes samples as numbers.
fn store(engine: &mut dyn Engine, shape: Shape, which: &Samples<'_>, sheet: &Sheet, path: &Path) -> Result<()> {
    let structure = engine.structure().clone();
    let (n, single, count) = (structure.variables(), structure.is_single(), sheet.z.len());
    let mut all = vec![("images", vec![], Content::Sheet(sheet))];
    let each = count == sheet.columns * n; // whether every column has one assignment
    if !single {
        let shape = if each { vec![sheet.columns, n] } else { vec![sheet.rows, sheet.columns, n] };
        all.push(("assignments", shape, Content::U32(sheet.z.clone())));
    }
    match &which.meaning {
        Some(meaning) if each => all.extend(attributes::described(meaning, sheet.columns, &sheet.z, n)),
        _ if single => all.push(("classes", vec![sheet.columns], Content::U32(sheet.z.clone()))),
        _ => {}
    }
    let names = |meaning: &Meaning| sheet.z.chunks_exact(n).map(|z| meaning.name(z)).collect::<Vec<_>>();
    let names = which.meaning.as_ref().filter(|_| each).map(names);
    let text = serde_json::json!({ "columns": names, "seed": which.seed }).to_string();
    sheet::write(path, engine, shape, &text, all)
}

fn draw(
    path: &Path,
    tiles: &[f32],
    shape: Shape,
    columns: usize,
    look: Look<'_>,
    heads: &[String],
    sides: &[String],
) -> Result<()> {
    grid(path, &look.grid(tiles, shape, columns, heads, sides))
}

/// Assignments drawn from the prior.
fn of_the_prior(structure: &AnyStructure, seed: u64, count: usize) -> Result<Vec<u32>> {
    let (noise, potentials) = (Noise::new(seed, Purpose::Picture, 0), vec![0.0; structure.potentials()]);
    let mut z = vec![0; count * structure.variables()];
    if structure.has_sums() && !structure.is_independent() {
        structure.samples(&potentials, &mut noise.generator_at(0), &mut z)?;
    } else {
        // Uniform too: all values are alike, and so are all permutations.
        let mut gamma = vec![0.0; count * structure.unary()];
        noise.gumbel(&mut gamma);
        perturbed_argmax(structure, &potentials.repeat(count), &gamma, &mut z)?;
    }
    Ok(z)
}

/// Draws images in odd columns, each followed by its reconstruction at the mode of q.
///
/// # Errors
/// A picture that cannot be written.
pub fn reconstructions(engine: &mut dyn Engine, images: &dyn Images, look: Look<'_>, path: &Path) -> Result<()> {
    let structure = engine.structure().clone();
    let shape = images.shape();
    let pixels = shape.len();
    let batch: Vec<u32> = (0..images.count().min(PAIRS) as u32).collect();
    let mut x = vec![0.0; batch.len() * pixels];
    images.fill(&batch, &mut x)?;
    let Asked { potentials, codes, .. } = engine.ask(images, &batch, Draw::Mean)?;
    let codes = codes.map(|codes| codes.samples).unwrap_or_default();
    let mut z = vec![0; batch.len() * structure.variables()];
    argmax_batch(&structure, &potentials, &mut z)?;
    let means = means(engine, &z, &codes, pixels)?;
    let pairs = x.chunks_exact(pixels).zip(means.chunks_exact(pixels));
    let tiles: Vec<f32> = pairs.flat_map(|(image, mean)| [image, mean].concat()).collect();
    draw(path, &tiles, shape, COLUMNS, look, &[], &[])
}
