//! What the tests share: images in memory, and a model made for an estimator.

use gumbel::Error;
use gumbel::engine::{Images, ModelOptions, Shape};
use gumbel::estimator::Estimator;
use gumbel::likelihood::Bernoulli;
use gumbel::registry::{Settings, Value};
use gumbel::structure::AnyStructure;
use gumbel_fused::Fused;
use std::sync::Arc;

/// Binary images.
pub struct Pictures {
    bytes: Vec<u8>,
    pub shape: Shape,
}

impl Pictures {
    pub fn new(bytes: Vec<u8>, shape: Shape) -> Self {
        Pictures { bytes, shape }
    }
}

impl Images for Pictures {
    fn count(&self) -> usize {
        self.bytes.len() / self.shape.len()
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn key(&self) -> u64 {
        0
    }

    fn is_binary(&self) -> bool {
        true
    }

    fn fill(&self, indices: &[u32], out: &mut [f32]) -> Result<(), Error> {
        let d = self.shape.len();
        for (i, out) in indices.iter().zip(out.chunks_exact_mut(d)) {
            let image = &self.bytes[*i as usize * d..][..d];
            out.iter_mut().zip(image).for_each(|(o, b)| *o = *b as f32);
        }
        Ok(())
    }

    fn bytes(&self) -> Result<Vec<u8>, Error> {
        Ok(self.bytes.clone())
    }
}

/// What a model is made of.
#[derive(Clone)]
pub struct Case<'a> {
    pub structure: &'a AnyStructure,
    pub hidden: &'a str,
    pub batch: usize,
    pub samples: usize,
    pub threads: usize,
    pub seed: u64,
}

impl<'a> Case<'a> {
    pub fn new(structure: &'a AnyStructure) -> Self {
        Case { structure, hidden: "20", batch: 16, samples: 1, threads: 1, seed: 0 }
    }

    pub fn fused(&self, shape: Shape, estimator: &dyn Estimator) -> Fused {
        let mut settings = Settings::default();
        settings.set("hidden", Value::Text(self.hidden.into()));
        let options = ModelOptions {
            continuous: gumbel::continuous::Continuous::None,
            settings: &settings,
            shape,
            binary: true,
            structure: self.structure.clone(),
            likelihood: Arc::new(Bernoulli),
            estimator,
            batch: self.batch,
            samples: self.samples,
            lr: 1e-3,
            seed: self.seed,
            threads: self.threads,
            engine: "fused",
            device: "cpu",
        };
        Fused::new(&options).unwrap()
    }
}
