//! A model, its estimator, and the steps of training: what a training loop and a measurement of its speed have in
//! common.

use crate::labels::{Labelled, Schedule};
use crate::{Config, Result};
use gumbel::engine::{Engine, Images, Shape, StepOptions, StepReport};
use gumbel::estimator::{Estimator, Measure, Moment};
use gumbel::noise::{Noise, Purpose};
use gumbel::supervision::{Supervision, Taught};

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
    /// The labelled images.
    labelled: Option<Labelled>,
    /// What is learned from their labels, and when.
    supervision: Supervision,
    schedule: Schedule,
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
        let (supervision, schedule) = (config.supervision()?, config.supervision_schedule());
        Ok(Trainer { engine, estimator, config: config.clone(), inside, labelled: None, supervision, schedule })
    }

    /// The same with labelled images of the training split.
    ///
    /// # Errors
    /// A loss that the latent cannot have.
    pub fn with_labels(self, labelled: Option<Labelled>) -> Result<Self> {
        if labelled.is_some() {
            self.supervision.check(self.engine.structure())?;
        }
        Ok(Trainer { labelled, ..self })
    }

    /// Steps on labelled images before the first epoch.
    pub fn first_steps(&self) -> u64 {
        match (&self.labelled, self.schedule) {
            (Some(labelled), Schedule::Phases(passes, _)) => passes * labelled.batches(self.config.count("batch-size")),
            _ => 0,
        }
    }

    /// Steps of the optimiser to a step of training.
    pub fn updates(&self) -> u64 {
        1 + u64::from(self.labelled.is_some() && self.schedule == Schedule::Joint)
    }

    /// The labelled step with the number `step`, from 0, on images of the training split; nothing without labels.
    ///
    /// # Errors
    /// As [`step`](Trainer::step).
    pub fn labelled_step(&mut self, images: &dyn Images, step: u64) -> Result<()> {
        self.labelled(images, step, 1.0)
    }

    fn labelled(&mut self, images: &dyn Images, step: u64, rate: f32) -> Result<()> {
        let Some(labelled) = &mut self.labelled else { return Ok(()) };
        let seed = self.config.seed();
        let (size, balanced) = (self.config.count("batch-size"), self.config.switch("labels-balanced"));
        let (batch, known) = labelled.batch(seed, step, size, balanced);
        let stream = |part: u64| Noise::new(seed, Purpose::Labelled, 3 * step + part);
        let options = StepOptions {
            kl_weight: 0.0,
            continuous_kl: self.config.continuous_kl(step),
            noise: &stream(0),
            samples: 1,
            gaussian: &stream(1),
            dropout: &stream(2),
            rate,
        };
        self.engine.step(images, &batch, &mut Taught::new(self.supervision, known), &options)?;
        Ok(())
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
            continuous_kl: self.config.continuous_kl(self.first_steps() + step),
            noise: &stream(Purpose::Noise),
            samples: self.config.count("samples"),
            gaussian: &stream(Purpose::Gaussian),
            dropout: &stream(Purpose::Dropout),
            rate: self.config.rate(step, steps_per_epoch),
        };
        Ok(self.engine.step(images, batch, &mut *self.estimator, &options)?)
    }

    /// The labelled step behind that with the number `step`, where labels are looked at in every step.
    ///
    /// # Errors
    /// As [`step`](Trainer::step).
    pub fn step_beside(&mut self, images: &dyn Images, step: u64, steps_per_epoch: u64) -> Result<()> {
        match self.schedule {
            Schedule::Joint => self.labelled(images, step, self.config.rate(step, steps_per_epoch)),
            Schedule::Phases(..) => Ok(()),
        }
    }

    /// What the estimator measures.
    pub fn measures(&self) -> &'static [Measure] {
        self.estimator.measures()
    }
}
