//! Pictures of what a model makes: samples of its prior, reconstructions.

use crate::Result;
use crate::evaluate::is_single;
use crate::picture::{Grid, grid};
use gumbel::continuous::Draw;
use gumbel::engine::{Asked, Engine, Images, Shape};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{AnyStructure, Structure, Sums, argmax_batch, perturbed_argmax};
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

/// Which samples are drawn, and how.
#[derive(Debug, Clone, Default)]
pub struct Samples<'a> {
    /// Seed of assignments drawn from the prior.
    pub seed: u64,
    /// Rows of ten; by default all values of a K-way variable, and ten rows of prior samples.
    pub rows: Option<usize>,
    /// The order of the values of a K-way variable; by default that of their numbers.
    pub order: Option<Vec<u32>>,
    /// How they are drawn.
    pub look: Look<'a>,
}

/// Decoder means `[assignments, pixels]` at assignments `[assignments, n]`, and Gaussian codes `[assignments, blocks,
/// D]` of models that have some.
pub(crate) fn means(engine: &mut dyn Engine, z: &[u32], samples: &[f32], pixels: usize) -> Result<Vec<f32>> {
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

/// Gaussian codes drawn from the prior `[rows, blocks, D]`: in each row one for all states.
pub(crate) fn prior_codes(engine: &dyn Engine, seed: u64, rows: usize) -> Vec<f32> {
    let inputs = engine.inputs();
    let dim = inputs.kind().dim();
    let mut codes = vec![0.0; rows * dim];
    Noise::new(seed, Purpose::Picture, 1).normal(&mut codes);
    codes.chunks_exact(dim.max(1)).flat_map(|code| code.repeat(inputs.blocks())).collect()
}

/// The values of one K-way variable, those first that the images use most: by the mean of q over the images. `None` for
/// other latents.
///
/// # Errors
/// Numbers that are not finite.
pub fn by_use(engine: &mut dyn Engine, images: &dyn Images) -> Result<Option<Vec<u32>>> {
    let structure = engine.structure().clone();
    if !is_single(&structure) {
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
/// # Errors
/// A picture that cannot be written.
pub fn samples(engine: &mut dyn Engine, shape: Shape, which: &Samples<'_>, path: &Path) -> Result<()> {
    let structure = engine.structure().clone();
    let mixed = engine.inputs().samples() > 0;
    let rows = which.rows.unwrap_or(10);
    let z = match is_single(&structure) {
        true => {
            let mut values = which.order.clone().unwrap_or_else(|| (0..structure.unary() as u32).collect());
            let most = if mixed { Some(MOST_COLUMNS) } else { which.rows.map(|r| r.saturating_mul(COLUMNS)) };
            values.truncate(most.unwrap_or(usize::MAX));
            values
        }
        false => of_the_prior(&structure, which.seed, if mixed { COLUMNS } else { rows * COLUMNS })?,
    };
    if !mixed {
        return draw(path, &means(engine, &z, &[], shape.len())?, shape, COLUMNS, which.look);
    }
    let (columns, own) = (z.len() / structure.variables(), engine.inputs().samples());
    let codes = prior_codes(engine, which.seed, rows);
    let codes: Vec<f32> = codes.chunks_exact(own).flat_map(|code| code.repeat(columns)).collect();
    draw(path, &means(engine, &z.repeat(rows), &codes, shape.len())?, shape, columns, which.look)
}

pub(crate) fn draw(path: &Path, tiles: &[f32], shape: Shape, columns: usize, look: Look<'_>) -> Result<()> {
    let plain = Grid::new(tiles, shape.height, shape.width);
    let scale = look.scale.unwrap_or(plain.scale);
    grid(path, &Grid { channels: shape.channels, columns, scale, title: look.title, ..plain })
}

/// Assignments drawn from the prior.
fn of_the_prior(structure: &AnyStructure, seed: u64, count: usize) -> Result<Vec<u32>> {
    let (noise, potentials) = (Noise::new(seed, Purpose::Picture, 0), vec![0.0; structure.potentials()]);
    let mut z = vec![0; count * structure.variables()];
    if structure.has_sums() && structure.block(0).is_none() {
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
    draw(path, &tiles, shape, COLUMNS, look)
}
