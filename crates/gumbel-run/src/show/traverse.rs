//! One coordinate of a Gaussian code slides, everything else stays.

use super::meaning::{Meaning, state};
use super::sheet::{Content, Sheet, write};
use super::{Look, draw, is_tensors};
use crate::picture::BLANK;
use crate::{Error, Result};
use gumbel::continuous::{Continuous, Draw, Inputs, kl_of_dimensions};
use gumbel::engine::{Asked, Engine, Images};
use gumbel::structure::{AnyStructure, Structure, argmax_batch};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Images that say which coordinates are used, and how many at a time.
const LOOKED: usize = 1000;
const BATCH: usize = 250;
/// Coordinates that are shown where none are named.
const SHOWN: usize = 8;

/// What slides, from where.
#[derive(Debug, Clone, Default)]
pub struct Traverse<'a> {
    /// The coordinates, from 0; by default the eight with the largest mean KL over the images.
    pub coordinates: Vec<usize>,
    /// Values go from `-range` to `range`, in standard deviations of the prior.
    pub range: f32,
    /// How many values, at least 2.
    pub steps: usize,
    /// The image whose code is the start; by default the prior's mean, 0.
    pub image: Option<usize>,
    /// The state, by its number or by its name; by default the mode of q of the image, or of most images.
    pub class: Option<&'a str>,
    /// What the states stand for.
    pub meaning: Option<Meaning>,
    /// How it is drawn.
    pub look: Look<'a>,
}

/// A coordinate of a code.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coordinate {
    /// Which one, from 0.
    pub coordinate: usize,
    /// Its mean KL over the images, in nats.
    pub kl: f64,
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traversed {
    /// The assignment of z `[n]`.
    pub z: Vec<u32>,
    /// What it stands for.
    pub name: Option<String>,
    /// The image whose code is the start.
    pub image: Option<usize>,
    /// The columns.
    pub values: Vec<f32>,
    /// The rows.
    pub coordinates: Vec<Coordinate>,
}

/// Draws decoder means while coordinates of a Gaussian code slide: a row for each coordinate, a column for each value.
/// With an image, it stands at the left of the first row.
///
/// A coordinate's KL is the mean over the first 1,000 images; where every state has a code of its own, over those of
/// them whose mode of q is the state that is shown, or over all if it is nobody's.
///
/// As safetensors: `images` `[coordinates, values, height, width, channels]`, `coordinates`, `kl`, `values`, and z as
/// `assignment` `[n]`.
///
/// # Errors
/// Setting errors: a model without Gaussian codes, coordinates, images or states that are not there, a range that is
/// not positive, fewer than two steps. A picture that cannot be written.
pub fn traverse(engine: &mut dyn Engine, images: &dyn Images, which: &Traverse<'_>, path: &Path) -> Result<Traversed> {
    let (structure, inputs, shape) = (engine.structure().clone(), engine.inputs().clone(), images.shape());
    let dim = checked(which, &inputs, images.count())?;
    let class = which.class.map(|text| state(&structure, which.meaning.as_ref(), text)).transpose()?;

    let looked: Vec<u32> = (0..images.count().min(LOOKED) as u32).collect();
    let seen = Encoded::new(engine, images, &looked)?;
    let start = which.image.map(|image| Encoded::new(engine, images, &[image as u32])).transpose()?;
    let z = class.or_else(|| Some(start.as_ref()?.modes.clone())).or_else(|| seen.commonest()).unwrap_or_else(|| {
        let mut z = vec![0; structure.variables()];
        structure.state(0, &mut z);
        z
    });

    let block = block_of(&structure, &inputs, &z);
    let kl = seen.kl(&inputs, block, matches!(inputs.kind(), Continuous::Rows(_)).then_some(&z[..]));
    let mut chosen = which.coordinates.clone();
    if chosen.is_empty() {
        chosen = (0..dim).collect();
        chosen.sort_by(|a, b| kl[*b].total_cmp(&kl[*a])); // stable: of equals the first
        chosen.truncate(SHOWN);
    }
    let (tensors, beside) = (is_tensors(path)?, which.image.is_some() as usize);
    let across = which.steps.saturating_add(beside);
    if !tensors {
        // Before there is anything of this size; what texts need is added later.
        which.look.check(path, shape, chosen.len().saturating_mul(across), across, &[], &[])?;
    }
    let step = |i: usize| f64::from(which.range) * (2.0 * i as f64 / (which.steps - 1) as f64 - 1.0);
    let values: Vec<f32> = (0..which.steps).map(|i| step(i) as f32).collect();
    let base = start.as_ref().map_or(vec![0.0; inputs.samples()], |start| start.samples.clone());
    let cells = chosen.iter().flat_map(|coordinate| values.iter().map(|value| (*coordinate, *value)));
    let code = |(coordinate, value): (usize, f32)| {
        let mut code = base.clone();
        code[block * dim + coordinate] = value;
        code
    };
    let codes = cells.flat_map(code).collect();
    let sheet = Sheet { rows: chosen.len(), columns: values.len(), z: z.clone(), codes, shared: false };

    let name = which.meaning.as_ref().map(|meaning| meaning.name(&z));
    let coordinates: Vec<Coordinate> = chosen.iter().map(|c| Coordinate { coordinate: *c, kl: kl[*c] }).collect();
    let found = Traversed { z, name, image: which.image, values, coordinates };
    if tensors {
        let text = serde_json::to_string(&found).expect("our records are plain data");
        let tensors = vec![
            ("images", vec![], Content::Sheet(&sheet)),
            ("coordinates", vec![sheet.rows], Content::U32(chosen.iter().map(|c| *c as u32).collect())),
            ("kl", vec![sheet.rows], Content::F32(found.coordinates.iter().map(|c| c.kl as f32).collect())),
            ("values", vec![sheet.columns], Content::F32(found.values.clone())),
            ("assignment", vec![found.z.len()], Content::U32(found.z.clone())),
        ];
        write(path, engine, shape, &text, tensors)?;
        return Ok(found);
    }

    let digits = if found.values.iter().all(|v| (10.0 * v - (10.0 * v).round()).abs() < 1e-3) { 1 } else { 2 };
    let mut heads: Vec<String> = found.values.iter().map(|v| format!("{v:.digits$}")).collect();
    let sides: Vec<String> = found.coordinates.iter().map(|c| format!("c{}\n{:.2}", c.coordinate, c.kl)).collect();
    let name = found.name.clone().unwrap_or_else(|| format!("z = {}", short(&found.z)));
    let from = found.image.map_or("code 0".into(), |image| format!("the code of image {image}"));
    let title = format!("{name} from {from}: a coordinate c, its KL in nats");
    let look = Look { title: which.look.title.or(Some(&title)), ..which.look };
    look.check(path, shape, sheet.rows * across, across, &heads, &sides)?;
    let means = sheet.means(engine, shape)?;
    let Some(image) = which.image else {
        draw(path, &means, shape, sheet.columns, look, &heads, &sides)?;
        return Ok(found);
    };
    heads.insert(0, "x".into());
    let mut first = vec![0.0; shape.len()];
    images.fill(&[image as u32], &mut first)?;
    let blank = vec![BLANK; shape.len()];
    let rows = means.chunks_exact(sheet.columns * shape.len()).enumerate();
    let tiles: Vec<f32> = rows.flat_map(|(r, row)| [if r == 0 { &first } else { &blank }, row].concat()).collect();
    draw(path, &tiles, shape, across, look, &heads, &sides)?;
    Ok(found)
}

/// An assignment in few letters.
fn short(z: &[u32]) -> String {
    let all: Vec<String> = z.iter().take(20).map(u32::to_string).collect();
    all.join(",") + if z.len() > 20 { "..." } else { "" }
}

/// The dimensions of a code, if everything that is asked for is there.
fn checked(which: &Traverse<'_>, inputs: &Inputs, images: usize) -> Result<usize> {
    let dim = has_codes(inputs)?;
    if let Some(wrong) = which.coordinates.iter().find(|c| **c >= dim) {
        let expected = format!("0 to {}, the coordinates of {}", dim - 1, inputs.kind());
        return Err(Error::setting("coordinate", wrong, expected));
    }
    if let Some(image) = which.image.filter(|image| *image >= images) {
        return Err(Error::setting("image", image, format!("less than {images}, the number of images")));
    }
    if !(which.range.is_finite() && which.range > 0.0) {
        return Err(Error::setting("range", which.range, "a finite number greater than 0"));
    }
    if which.steps < 2 {
        return Err(Error::setting("steps", which.steps, "at least 2"));
    }
    Ok(dim)
}

/// The dimensions of a Gaussian code.
///
/// # Errors
/// A model that has none.
pub(super) fn has_codes(inputs: &Inputs) -> Result<usize> {
    match inputs.kind() {
        Continuous::None => Err(Error::setting("continuous", "none", "rows:D or joint:D: a model with Gaussian codes")),
        kind => Ok(kind.dim()),
    }
}

/// The place of a state's own code; 0 where all share one.
fn block_of(structure: &AnyStructure, inputs: &Inputs, z: &[u32]) -> usize {
    let (mut code, mut weights) = (vec![0.0; structure.unary()], vec![0.0; inputs.blocks()]);
    structure.encode(z, &mut code);
    inputs.weights(&code, &mut weights);
    weights.iter().position(|w| *w > 0.5).unwrap_or(0)
}

/// What an encoder says of some images.
struct Encoded {
    variables: usize,
    /// The modes of q `[images, n]`.
    modes: Vec<u32>,
    /// `[images, blocks, 2, D]`.
    parameters: Vec<f32>,
    /// The means of the codes `[images, blocks, D]`.
    samples: Vec<f32>,
}

impl Encoded {
    fn new(engine: &mut dyn Engine, images: &dyn Images, which: &[u32]) -> Result<Self> {
        let structure = engine.structure().clone();
        let variables = structure.variables();
        let mut all = Encoded { variables, modes: vec![], parameters: vec![], samples: vec![] };
        for batch in which.chunks(BATCH) {
            let Asked { potentials, codes, .. } = engine.ask(images, batch, Draw::Mean)?;
            let mut modes = vec![0; batch.len() * variables];
            argmax_batch(&structure, &potentials, &mut modes)?;
            all.modes.extend(modes);
            let codes = codes.ok_or_else(|| has_codes(&Inputs::discrete(&structure)).expect_err("it has none"))?;
            all.parameters.extend(codes.parameters);
            all.samples.extend(codes.samples);
        }
        Ok(all)
    }

    /// The mode of most images.
    fn commonest(&self) -> Option<Vec<u32>> {
        let mut counts = BTreeMap::new();
        self.modes.chunks_exact(self.variables).for_each(|z| *counts.entry(z).or_insert(0usize) += 1);
        // Of equals the first.
        counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(z, _)| z.to_vec())
    }

    /// The mean KL of each coordinate `[D]` of a code, over the images whose mode is `of`, if there are some.
    fn kl(&self, inputs: &Inputs, block: usize, of: Option<&[u32]>) -> Vec<f64> {
        let dim = inputs.kind().dim();
        let rows = || self.parameters.chunks_exact(inputs.parameters()).zip(self.modes.chunks_exact(self.variables));
        let mean = |of: Option<&[u32]>| {
            let (mut sums, mut count) = (vec![0.0f64; dim], 0usize);
            for (parameters, _) in rows().filter(|(_, mode)| of.is_none_or(|of| of == *mode)) {
                let own = &parameters[2 * dim * block..][..2 * dim];
                sums.iter_mut().zip(kl_of_dimensions(own)).for_each(|(sum, kl)| *sum += f64::from(kl));
                count += 1;
            }
            sums.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
            (count > 0).then_some(sums)
        };
        mean(of).or_else(|| mean(None)).unwrap_or_else(|| vec![0.0; dim])
    }
}
