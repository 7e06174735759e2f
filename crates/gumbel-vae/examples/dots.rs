//! A k-subset as a latent variable, with a decoder of one's own: draw every image with twelve dots.
//!
//! The latent chooses 12 of the 49 places of a 7 x 7 grid. The decoder is not a perceptron but a brush: every dot leaves
//! the same stroke around its place, so that the chosen places are an explanation of the image that can be looked at.
//! Direct optimisation trains the encoder through the arg max over all 92,263,734,836 subsets; the KL and its gradient are
//! exact, by the sums of the structure.
//!
//!     cargo run --release -p gumbel-vae --example dots        writes dots.png: images beside their drawings

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use gumbel::estimator::Direct;
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Structure, Subset, argmax_batch};
use gumbel_data::{Binarization, Dataset, Split};
use gumbel_vae::engine::{Autodiff, Method, StepOptions};
use gumbel_vae::model::{Decoder, Mlp};
use gumbel_vae::picture;
use std::path::Path;

/// Places to a side of the grid, pixels to a side of the image, dots.
const GRID: usize = 7;
const SIDE: usize = 28;
const DOTS: usize = 12;
/// Pixels to a side of the brush.
const BRUSH: usize = 11;
const BATCH: usize = 50;

/// One stroke for all places, and the paper that it is drawn on.
#[derive(Module, Debug)]
struct Brush {
    /// Logits added around a dot, `[1, BRUSH * BRUSH]`.
    stroke: Param<Tensor<2>>,
    /// Logit of a pixel without strokes, `[1, 1]`.
    paper: Param<Tensor<2>>,
}

impl Brush {
    fn new(device: &Device) -> Self {
        let device = device.clone().autodiff();
        let parameter = |values: Vec<f32>| {
            let shape = [1, values.len()];
            let tensor = Tensor::from_data(TensorData::new(values, shape), &device).require_grad();
            Param::initialized(ParamId::new(), tensor)
        };
        Brush { stroke: parameter(vec![1.0; BRUSH * BRUSH]), paper: parameter(vec![-2.0]) }
    }
}

impl Decoder for Brush {
    /// The strokes of all dots add up: `codes [rows, 49]` times the stroke moved to every place `[49, 784]`.
    fn logits(&self, codes: Tensor<2>) -> Tensor<2> {
        let device = codes.device();
        // Which entry of the brush (or the last, which is empty) a pixel gets from a place.
        let entry = |place: usize, pixel: usize| {
            let offset = |place: usize, pixel: usize| {
                (pixel + BRUSH / 2).checked_sub(place * SIDE / GRID + SIDE / GRID / 2).filter(|o| *o < BRUSH)
            };
            let y = offset(place / GRID, pixel / SIDE)?;
            Some(y * BRUSH + offset(place % GRID, pixel % SIDE)?)
        };
        let pixels = SIDE * SIDE;
        let index: Vec<i64> =
            (0..GRID * GRID * pixels).map(|i| entry(i / pixels, i % pixels).unwrap_or(BRUSH * BRUSH) as i64).collect();
        let index = Tensor::<1, burn::tensor::Int>::from_data(TensorData::new(index, [GRID * GRID * pixels]), &device);
        let stroke = self.stroke.val();
        let empty = Tensor::zeros([1, 1], &stroke.device());
        let strokes = Tensor::cat(vec![stroke, empty], 1).select(1, index).reshape([GRID * GRID, pixels]);
        codes.matmul(strokes) + self.paper.val()
    }
}

fn images(data: &Dataset, split: Split, indices: &[usize]) -> Vec<f32> {
    let mut x = vec![0.0; indices.len() * SIDE * SIDE];
    Binarization::Round.fill(data.split(split), split, 0, indices, &mut x).expect("the indices are in range");
    x
}

/// Trains for some steps; returns the mean loss of the first and of the last ten, in nats, and the trained model.
fn train(data: &Dataset, steps: u64) -> gumbel_vae::Result<([f64; 2], Autodiff<Mlp, Brush, Subset>)> {
    let device = Device::flex();
    let subset = Subset::new(GRID * GRID, DOTS)?;
    let encoder = Mlp::new(&[SIDE * SIDE, 100, subset.potentials()], 0, 0, &device);
    let mut model = Autodiff::new(encoder, Brush::new(&device), subset, 2e-3, &device);
    let method = Method::Seam(Box::new(Direct::new(1.0)?));
    let mut noise = vec![0.0; BATCH * subset.unary()];
    let mut losses = vec![];
    for step in 0..steps {
        let order = (step as usize * BATCH..(step as usize + 1) * BATCH).map(|i| i % data.train.count());
        let x = images(data, Split::Train, &order.collect::<Vec<_>>());
        Noise::new(0, Purpose::Noise, step).gumbel(&mut noise);
        let options = StepOptions { method: &method, kl_weight: 1.0, noise: &noise };
        losses.push(model.step(&x, SIDE * SIDE, &options)?.reconstruction);
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    Ok(([mean(&losses[..10]), mean(&losses[losses.len() - 10..])], model))
}

/// Trains on `count` images and draws test images beside their drawings.
pub fn run(steps: u64, count: usize, out: &Path) -> Result<[f64; 2], Box<dyn std::error::Error>> {
    let data = gumbel_data::glyphs(0, [count, 10, 50])?;
    let (losses, model) = train(&data, steps)?;
    let x = images(&data, Split::Test, &(0..50).collect::<Vec<_>>());
    let tensor = Tensor::from_data(TensorData::new(x.clone(), [50, SIDE * SIDE]), &Device::flex());
    let mut z = vec![0; 50 * GRID * GRID];
    argmax_batch(&model.structure, &model.potentials(tensor), &mut z)?;
    let drawings = model.means(&z);
    let pairs = x.chunks(SIDE * SIDE).zip(drawings.chunks(SIDE * SIDE));
    let tiles: Vec<f32> = pairs.flat_map(|(image, drawing)| [image, drawing].concat()).collect();
    picture::grid(out, &tiles, SIDE, SIDE, 10)?;
    Ok(losses)
}

#[allow(dead_code, reason = "a test includes this file")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [first, last] = run(2000, 10_000, Path::new("dots.png"))?;
    println!("mean loss of an image: {first:.1} nats in the first steps, {last:.1} in the last; see dots.png");
    Ok(())
}
