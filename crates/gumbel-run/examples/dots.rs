//! Parts of one's own in a run: draw every image with twelve dots.
//!
//! The latent, `dots:K`, chooses K of the places of a grid; the decoder is a brush, whose stroke is the same
//! everywhere; the estimator, leave-one-out REINFORCE, stands beside direct optimisation. Nothing else is new.
//!
//!     cargo run --release -p gumbel-run --example dots [leave-one-out]    see runs/dots/reconstructions.png

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use gumbel::estimator::{Estimator, EstimatorEntry, Piece};
use gumbel::oracle::{Followed, Oracle, Questions};
use gumbel::structure::{AnyStructure, LatentEntry, Structure, Subset};
use gumbel_run::{Config, Quiet, Registry, Start, metrics::Summary, train};
use gumbel_vae::model::{Decoder, Mlp};

const GRID: usize = 7; // places to a side of the grid
const SIDE: usize = 28; // pixels to a side of the image, four to a place
const BRUSH: usize = 11; // pixels to a side of the brush

/// One stroke for all places, and the paper that it is drawn on.
#[derive(Module, Debug)]
struct Brush {
    stroke: Param<Tensor<2>>, // logits added around a dot, [1, BRUSH * BRUSH]
    paper: Param<Tensor<2>>,  // logit of a pixel without strokes, [1, 1]
}

impl Decoder for Brush {
    /// The strokes of all dots add up: `codes [rows, 49]` times the stroke moved to every place `[49, 784]`.
    fn outputs(&self, codes: Tensor<2>) -> Tensor<2> {
        // Which entry of the brush (or the last, which is empty) a pixel gets from a place.
        let offset = |pixel: usize, place: usize| (pixel + 3).checked_sub(place * 4).filter(|o| *o < BRUSH);
        let entry = |i: usize, at: usize| Some(offset(at / SIDE, i / GRID)? * BRUSH + offset(at % SIDE, i % GRID)?);
        let (places, pixels) = (GRID * GRID, SIDE * SIDE);
        let entries = (0..places * pixels).map(|i| entry(i / pixels, i % pixels).unwrap_or(BRUSH * BRUSH) as i64);
        let index = TensorData::new(entries.collect::<Vec<i64>>(), [places * pixels]);
        let stroke = Tensor::cat(vec![self.stroke.val(), Tensor::zeros([1, 1], &self.stroke.val().device())], 1);
        let strokes = stroke.select(1, Tensor::<1, Int>::from_data(index, &codes.device())).reshape([places, pixels]);
        codes.matmul(strokes) + self.paper.val()
    }
}

/// Leave-one-out REINFORCE (Kool, van Hoof, Welling 2019): a sample's loss is compared with the mean of the others.
struct LeaveOneOut;

impl Estimator for LeaveOneOut {
    fn questions(&self, _: &AnyStructure) -> Questions {
        Questions::LOSSES
    }

    fn estimate(&self, piece: &mut Piece<'_, AnyStructure>, oracle: &mut dyn Oracle) -> Result<(), gumbel::Error> {
        let (of, n, p) = (piece.of, piece.structure.variables(), piece.structure.potentials());
        let (mut drawn, scale) = (vec![], piece.scale);
        for row in 0..piece.samples {
            piece.draw(row)?;
            let (assignments, mut losses) = (piece.memory.assignments[..of.len() * n].to_vec(), vec![0.0; of.len()]);
            oracle.losses(of, &assignments, &mut losses)?;
            oracle.follow(Followed::Assignments { row, assignments: &assignments, weights: &vec![scale; of.len()] })?;
            drawn.push((assignments, losses));
        }
        for b in 0..of.len() {
            let mean = drawn.iter().map(|(_, losses)| losses[b]).sum::<f32>() / drawn.len() as f32;
            for (z, losses) in &drawn {
                let weight = scale * (losses[b] - mean) * drawn.len() as f32 / (drawn.len() as f32 - 1.0);
                piece.structure.add_statistics(&z[b * n..][..n], weight, &mut piece.gradient[b * p..][..p]);
            }
        }
        Ok(())
    }
}

/// Trains on generated figures, with settings of the caller.
pub fn run(folder: &std::path::Path, given: &[(&str, &str)]) -> Result<Summary, gumbel_run::Error> {
    let mut registry = Registry::standard();
    registry.latents.add(LatentEntry::new("dots", "K", "K places of a grid", |sizes| {
        let dots = sizes.whole(sizes.as_str())?;
        Ok((Subset::new(GRID * GRID, dots)?.into(), dots.to_string()))
    }));
    registry.estimators.add(EstimatorEntry::new("leave-one-out", "REINFORCE", |_, _| Ok(Box::new(LeaveOneOut))));
    registry.models.add(gumbel_vae::model("brush", "a brush with one stroke", &[], |options, device: &Device| {
        let parameter = |value: f32, width: usize| {
            let at = device.clone().autodiff();
            Param::initialized(ParamId::new(), Tensor::full([1, width], value, &at).require_grad())
        };
        let widths = [options.shape.len(), 100, options.structure.potentials()];
        let brush = Brush { stroke: parameter(1.0, BRUSH * BRUSH), paper: parameter(-2.0, 1) };
        Ok((Mlp::new(&widths, options.seed, 0, device), brush))
    }));
    let own = [("latent", "dots:12"), ("model", "brush"), ("lr", "2e-3"), ("batch-size", "50"), ("epochs", "10")];
    let config = Config::new(&registry, &[&own, given].concat())?;
    let data = config.load(&gumbel_data::Source::default(), &mut |_| {})?;
    Ok(train(&config, &data, folder, Start::Overwrite, &mut Quiet)?.summary.expect("nobody stops it"))
}

#[allow(dead_code, reason = "a test includes this file")]
fn main() -> Result<(), gumbel_run::Error> {
    let own = [("estimator", "leave-one-out"), ("samples", "8"), ("train-limit", "10000"), ("eval-limit", "500")];
    let given = if std::env::args().any(|a| a == "leave-one-out") { &own } else { &own[2..] };
    run("runs/dots".as_ref(), given).map(|s| println!("{:.1} nats for a test image, see runs/dots", s.test.bound))
}
