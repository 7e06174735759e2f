//! What the tests of the engine share.
#![allow(dead_code, reason = "every test takes its part")]

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use gumbel::Error;
use gumbel::engine::{Images, Shape};
use gumbel::likelihood::{Bernoulli, Likelihood};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{AnyStructure, Structure};
use gumbel_vae::Autodiff;
use gumbel_vae::model::Mlp;
use std::sync::Arc;

pub const PIXELS: usize = 23;
pub const BATCH: usize = 7;

pub fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::User(0), 0).uniform(&mut x);
    x
}

/// The stream that steps read.
pub fn noise(seed: u64) -> Noise {
    Noise::new(seed, Purpose::User(1), 0)
}

/// Its first numbers.
pub fn gumbel(len: usize, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    noise(seed).gumbel(&mut x);
    x
}

/// Where tensors live: `GUMBEL_TEST_DEVICE`, by default the CPU.
pub fn device() -> Device {
    let name = std::env::var("GUMBEL_TEST_DEVICE").unwrap_or("cpu".into());
    gumbel_vae::device(&name).unwrap()
}

/// A batch of binary images.
pub fn images() -> Vec<f32> {
    uniform(BATCH * PIXELS, 1).iter().map(|u| (*u < 0.3) as u8 as f32).collect()
}

/// Images in memory.
pub struct Pictures {
    values: Vec<f32>,
    pixels: usize,
}

impl Pictures {
    pub fn new(values: &[f32]) -> Self {
        Pictures::of(values, PIXELS)
    }

    pub fn of(values: &[f32], pixels: usize) -> Self {
        Pictures { values: values.to_vec(), pixels }
    }
}

impl Images for Pictures {
    fn count(&self) -> usize {
        self.values.len() / self.pixels
    }

    fn shape(&self) -> Shape {
        Shape::grey(1, self.pixels)
    }

    fn key(&self) -> u64 {
        self.values.len() as u64
    }

    fn is_binary(&self) -> bool {
        self.values.iter().all(|v| *v == 0.0 || *v == 1.0)
    }

    fn fill(&self, indices: &[u32], out: &mut [f32]) -> Result<(), Error> {
        for (i, out) in indices.iter().zip(out.chunks_exact_mut(self.pixels)) {
            let row = self.values.chunks_exact(self.pixels).nth(*i as usize);
            out.copy_from_slice(row.ok_or_else(|| Error::Failed { detail: format!("there is no image {i}") })?);
        }
        Ok(())
    }

    fn bytes(&self) -> Result<Vec<u8>, Error> {
        Ok(self.values.iter().map(|v| *v as u8).collect())
    }
}

/// A perceptron for images of [`PIXELS`] pixels.
pub fn engine(structure: impl Into<AnyStructure>, hidden: &[usize]) -> Autodiff<Mlp, Mlp> {
    engine_with(structure, hidden, Arc::new(Bernoulli))
}

/// The same with a likelihood.
pub fn engine_with(
    structure: impl Into<AnyStructure>,
    hidden: &[usize],
    likelihood: Arc<dyn Likelihood>,
) -> Autodiff<Mlp, Mlp> {
    let (structure, device) = (structure.into(), device());
    let encoder = Mlp::new(&[&[PIXELS], hidden, &[structure.potentials()]].concat(), 3, 0, &device);
    let decoder = Mlp::new(&[&[structure.unary()], hidden, &[PIXELS]].concat(), 3, 1, &device);
    Autodiff::new(encoder, decoder, structure, likelihood, 1e-3, &device)
}

/// A tensor on the autodiff device.
pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &device().autodiff())
}

pub fn values<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.inner().into_data().as_slice::<f32>().unwrap().to_vec()
}

/// Gradients of all parameters of a module.
pub fn of_module<M: Module>(module: &M, grads: &Gradients) -> Vec<Vec<f32>> {
    struct Reader<'a>(&'a Gradients, Vec<Vec<f32>>);
    impl ModuleVisitor for Reader<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            let zero = || vec![0.0; value.dims().iter().product()];
            self.1.push(value.grad(self.0).map_or_else(zero, values));
        }
    }
    let mut reader = Reader(grads, vec![]);
    module.visit(&mut reader);
    reader.1
}

/// Gradients of all parameters of some modules.
pub fn gradients<M: Module>(modules: &[&M], loss: Tensor<1>) -> Vec<Vec<f32>> {
    let grads = loss.backward();
    modules.iter().flat_map(|module| of_module(*module, &grads)).collect()
}
