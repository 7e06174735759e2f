//! A model, its estimator, and the steps of training: what a training loop and a measurement of its speed have in
//! common.

use crate::{Config, Result};
use gumbel::engine::{Engine, Images, Shape, StepOptions, StepReport};
use gumbel::estimator::{Estimator, Measure, Moment};
use gumbel::noise::{Noise, Purpose};

/// A configuration's engine and estimator. What a step does depends on the configuration and the step's number only, on
/// the parameters that it begins with, and on the images.
pub struct Trainer {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// The estimator.
    pub estimator: Box<dyn Estimator>,
    config: Config,
    /// Whether the engine adds the gradient of the KL term.
    inside: bool,
}

impl Trainer {
    /// With the initial parameters.
    ///
    /// # Errors
    /// An engine that does not fit the model; see [`Config::engine`].
    pub fn new(config: &Config, shape: Shape) -> Result<Self> {
        let estimator = config.estimator()?;
        let structure = &config.latent().structure;
        let engine = config.engine(&*estimator, shape)?;
        let inside = config.kl().is_inside(estimator.kl(structure));
        Ok(Trainer { engine, estimator, config: config.clone(), inside })
    }

    /// Brings the images of a batch into the engine's form, outside of the time of a step.
    ///
    /// # Errors
    /// Images that cannot be read.
    pub fn prepare(&mut self, images: &dyn Images, batch: &[u32]) -> Result<()> {
        Ok(self.engine.prepare(images, batch)?)
    }

    /// The training step with the number `step`, from 0, on some images.
    ///
    /// # Errors
    /// Numbers that are no longer finite, images that cannot be read, schedules that leave their range.
    pub fn step(&mut self, images: &dyn Images, batch: &[u32], step: u64, steps_per_epoch: u64) -> Result<StepReport> {
        let weight = self.config.kl().weight(step, steps_per_epoch);
        let (kl_weight, added) = if self.inside { (weight, 0.0) } else { (0.0, weight) };
        self.estimator.begin(&Moment { step, kl_weight })?;
        let stream = |purpose| Noise::new(self.config.seed(), purpose, step);
        let options = StepOptions {
            kl_weight: added,
            noise: &stream(Purpose::Noise),
            samples: self.config.count("samples"),
            gaussian: &stream(Purpose::Gaussian),
            dropout: &stream(Purpose::Dropout),
        };
        Ok(self.engine.step(images, batch, &mut *self.estimator, &options)?)
    }

    /// What the estimator measures.
    pub fn measures(&self) -> &'static [Measure] {
        self.estimator.measures()
    }
}
