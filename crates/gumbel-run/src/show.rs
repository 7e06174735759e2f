//! Pictures of what a model makes: samples of its prior, reconstructions.

use crate::Result;
use crate::evaluate::is_single;
use crate::picture::{Grid, grid};
use gumbel::continuous::Draw;
use gumbel::engine::{Engine, Images, Shape};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{AnyStructure, Structure, Sums, argmax_batch, perturbed_argmax};
use std::path::Path;

/// Tiles to a row.
const COLUMNS: usize = 10;
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

/// Decoder means `[assignments, pixels]` at assignments `[assignments, n]`.
fn means(engine: &mut dyn Engine, z: &[u32], pixels: usize) -> Result<Vec<f32>> {
    let structure = engine.structure().clone();
    let (n, u) = (structure.variables(), structure.unary());
    let mut codes = vec![0.0; z.len() / n * u];
    z.chunks_exact(n).zip(codes.chunks_exact_mut(u)).for_each(|(z, code)| structure.encode(z, code));
    let mut means = vec![0.0; z.len() / n * pixels];
    engine.means(&codes, &mut means)?;
    Ok(means)
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

/// Draws the decoder's means: of each value of one K-way variable, or of assignments drawn from the prior.
///
/// # Errors
/// A picture that cannot be written.
pub fn samples(engine: &mut dyn Engine, shape: Shape, which: &Samples<'_>, path: &Path) -> Result<()> {
    let structure = engine.structure().clone();
    let z = match is_single(&structure) {
        true => {
            let mut values = which.order.clone().unwrap_or_else(|| (0..structure.unary() as u32).collect());
            values.truncate(which.rows.map_or(usize::MAX, |r| r.saturating_mul(COLUMNS)));
            values
        }
        false => of_the_prior(&structure, which.seed, which.rows.unwrap_or(10) * COLUMNS)?,
    };
    draw(path, &means(engine, &z, shape.len())?, shape, which.look)
}

fn draw(path: &Path, tiles: &[f32], shape: Shape, look: Look<'_>) -> Result<()> {
    let plain = Grid::new(tiles, shape.height, shape.width);
    let scale = look.scale.unwrap_or(plain.scale);
    grid(path, &Grid { channels: shape.channels, columns: COLUMNS, scale, title: look.title, ..plain })
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
    let potentials = engine.ask(images, &batch, Draw::Mean)?.potentials;
    let mut z = vec![0; batch.len() * structure.variables()];
    argmax_batch(&structure, &potentials, &mut z)?;
    let means = means(engine, &z, pixels)?;
    let pairs = x.chunks_exact(pixels).zip(means.chunks_exact(pixels));
    let tiles: Vec<f32> = pairs.flat_map(|(image, mean)| [image, mean].concat()).collect();
    draw(path, &tiles, shape, look)
}
