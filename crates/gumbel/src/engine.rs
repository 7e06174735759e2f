//! What a training loop and an evaluation need of whoever computes networks.
//!
//! An [`Engine`] owns the parameters of a model, their optimiser, and nothing else: it does one [step](Engine::step)
//! with any estimator, answers an estimator's questions about any images with the present parameters
//! ([`ask`](Engine::ask)), decodes codes, and gives and takes its state. Whoever speaks to an engine knows neither its
//! layers nor its tensors; a model whose decoder also reads continuous samples keeps them to itself, with their part of
//! the loss.

use crate::Error;
use crate::continuous::{Continuous, Draw, Gaussians, Inputs, KlWeights};
use crate::estimator::{Estimator, MEASURES, Tally};
use crate::likelihood::Likelihood;
use crate::network::Snapshot;
use crate::noise::Noise;
use crate::oracle::Oracle;
use crate::registry::{Entry, Setting, Settings};
use crate::structure::AnyStructure;
use std::fmt;
use std::sync::Arc;

/// Height, width and channels of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Numbers of a pixel: 1 grey, 3 red, green, blue.
    pub channels: usize,
}

impl Shape {
    /// Grey images.
    pub fn grey(height: usize, width: usize) -> Self {
        Shape { height, width, channels: 1 }
    }

    /// Numbers of an image.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether an image has no numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Images that an engine reads: one split as one epoch sees it.
pub trait Images: Sync {
    /// Number of images.
    fn count(&self) -> usize;

    /// Their size.
    fn shape(&self) -> Shape;

    /// Images of equal keys are equal: an engine may keep what it has made of them.
    fn key(&self) -> u64;

    /// Whether every number is 0 or 1.
    fn is_binary(&self) -> bool;

    /// Writes images `[indices, height, width, channels]` with numbers in [0, 1].
    ///
    /// # Errors
    /// An index beyond the last.
    fn fill(&self, indices: &[u32], out: &mut [f32]) -> Result<(), Error>;

    /// All images at once, as zeros and ones; only of [binary](Images::is_binary) images.
    ///
    /// # Errors
    /// Images that are not binary.
    fn bytes(&self) -> Result<Vec<u8>, Error>;
}

/// What a step needs to know beside images and estimator.
#[derive(Debug, Clone, Copy)]
pub struct StepOptions<'a> {
    /// Weight of the KL term whose exact gradient is added, 0 to 1; greater than 0 only where the latent has sums and
    /// the estimator does not take the term into its own objective.
    pub kl_weight: f32,
    /// Weights of the KL of Gaussian codes, of models that have some.
    pub continuous_kl: KlWeights,
    /// The stream of Gumbel variables `[samples, batch, width]`.
    pub noise: &'a Noise,
    /// Samples of each image.
    pub samples: usize,
    /// The stream of the Gaussian codes, of models that have some; one code for all samples of z.
    pub gaussian: &'a Noise,
    /// The stream of what dropout leaves out, of models that have it.
    pub dropout: &'a Noise,
    /// By what the learning rate is multiplied in this step.
    pub rate: f32,
}

impl<'a> StepOptions<'a> {
    /// Those of a model whose only noise is that of z.
    pub fn discrete(kl_weight: f32, noise: &'a Noise, samples: usize) -> Self {
        let continuous_kl = KlWeights::BOUND;
        StepOptions { kl_weight, continuous_kl, noise, samples, gaussian: noise, dropout: noise, rate: 1.0 }
    }
}

/// What a step tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean loss of what the decoder followed, in nats per image: with the KL of Gaussian codes, where there are some,
    /// without that of z.
    pub reconstruction: f64,
    /// What the estimator has measured, in the order of [`Estimator::measures`].
    pub tallies: [Tally; MEASURES],
}

/// What an engine answers about some images.
pub struct Asked<'a> {
    /// Potentials `[images, P]`.
    pub potentials: Vec<f32>,
    /// Answers for these images, by their places in the list.
    pub oracle: Box<dyn Oracle + 'a>,
    /// Their Gaussian codes, of models that have some.
    pub codes: Option<GaussianCodes>,
}

/// The Gaussian codes of some images, as they were [drawn](Draw).
#[derive(Debug, Clone)]
pub struct GaussianCodes {
    /// `[images, blocks, D]`.
    pub samples: Vec<f32>,
    /// KL of each to the prior, in closed form, in nats `[images, blocks]`.
    pub kl: Vec<f32>,
    /// What the encoder says of them, `[images, blocks, 2, D]`: means, then log-variances.
    pub parameters: Vec<f32>,
}

impl GaussianCodes {
    /// Those of codes that were drawn.
    pub fn new(drawn: &Gaussians) -> Self {
        GaussianCodes { samples: drawn.samples.clone(), kl: drawn.kl(), parameters: drawn.parameters().to_vec() }
    }
}

/// Refuses a loss of a batch that is no longer finite.
///
/// # Errors
/// [`Error::NotFinite`].
pub fn check_loss(loss: f64) -> Result<f64, Error> {
    if loss.is_finite() { Ok(loss) } else { Err(Error::NotFinite { what: "loss of the batch", value: loss }) }
}

/// A model with its optimiser; see the [module](self).
pub trait Engine {
    /// The engine's name, as in `summary.json`.
    fn name(&self) -> &'static str;

    /// What it computes with beyond that: the instruction set or the backend.
    fn arithmetic(&self) -> String;

    /// The latent variable.
    fn structure(&self) -> &AnyStructure;

    /// What the decoder reads.
    fn inputs(&self) -> &Inputs;

    /// Brings the images of a batch into the engine's own form, outside of the time of a step; a step does it
    /// otherwise.
    ///
    /// # Errors
    /// Images that cannot be read.
    fn prepare(&mut self, _images: &dyn Images, _batch: &[u32]) -> Result<(), Error> {
        Ok(())
    }

    /// One step of the optimiser on the images `batch`. The estimator [learns](Estimator::learn) too. After an error
    /// the model's parameters mean nothing: some layers may have moved.
    ///
    /// # Errors
    /// Numbers that are no longer finite, images that cannot be read or are not there, more images than the engine was
    /// made for, an estimator that it cannot serve.
    fn step(
        &mut self,
        images: &dyn Images,
        batch: &[u32],
        estimator: &mut dyn Estimator,
        options: &StepOptions<'_>,
    ) -> Result<StepReport, Error>;

    /// Potentials of some images, and an oracle for them; nothing is updated. Gaussian codes are drawn as `draw` says,
    /// the noise of an image being a function of its place in the list.
    ///
    /// # Errors
    /// Images that cannot be read.
    fn ask<'a>(&'a mut self, images: &'a dyn Images, batch: &'a [u32], draw: Draw<'_>) -> Result<Asked<'a>, Error>;

    /// Means of the pixels `[rows, height, width, channels]` in [0, 1] for rows of the decoder's
    /// [inputs](Engine::inputs): codes `[rows, U]`, where there are no Gaussian ones.
    ///
    /// # Errors
    /// Wrong lengths.
    fn means(&mut self, codes: &[f32], means: &mut [f32]) -> Result<(), Error>;

    /// Parameters, moments and step count.
    fn snapshot(&mut self) -> Snapshot;

    /// Puts a stored state back.
    ///
    /// # Errors
    /// [`Error::Failed`] says what does not fit.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error>;
}

/// What a model is made for.
#[derive(Clone)]
pub struct ModelOptions<'a> {
    /// Values of the model's settings.
    pub settings: &'a Settings,
    /// The images.
    pub shape: Shape,
    /// Whether they are zeros and ones.
    pub binary: bool,
    /// The latent variable.
    pub structure: AnyStructure,
    /// Gaussian codes beside it.
    pub continuous: Continuous,
    /// The likelihood of the pixels.
    pub likelihood: Arc<dyn Likelihood>,
    /// The estimator that it will be trained with.
    pub estimator: &'a dyn Estimator,
    /// Most images in a step.
    pub batch: usize,
    /// Samples of each image.
    pub samples: usize,
    /// Learning rate of Adam.
    pub lr: f64,
    /// Seed of the initial parameters.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// `auto`, or the name of an engine.
    pub engine: &'a str,
    /// Where tensors live: `cpu`, `wgpu`.
    pub device: &'a str,
}

type Build = dyn Fn(&ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> + Send + Sync;
type Check = dyn Fn(&ModelOptions<'_>) -> Result<(), Error> + Send + Sync;

/// A model in the registry.
#[derive(Clone)]
pub struct ModelEntry {
    name: &'static str,
    help: &'static str,
    settings: Vec<Setting>,
    check: Arc<Check>,
    fits: Arc<Check>,
    build: Arc<Build>,
}

impl ModelEntry {
    /// A model with a name, a line of help, its settings and a constructor.
    pub fn new(
        name: &'static str,
        help: &'static str,
        settings: &[Setting],
        build: impl Fn(&ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> + Send + Sync + 'static,
    ) -> Self {
        let (check, fits) = (Arc::new(|_: &ModelOptions<'_>| Ok(())), Arc::new(|_: &ModelOptions<'_>| Ok(())));
        ModelEntry { name, help, settings: settings.to_vec(), check, fits, build: Arc::new(build) }
    }

    /// With a check of the settings that needs no images: before there are any, the shape is one pixel.
    pub fn checked(self, check: impl Fn(&ModelOptions<'_>) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        ModelEntry { check: Arc::new(check), ..self }
    }

    /// With a check of the engine and the device that are asked for, which needs no images either: what the constructor
    /// would refuse in this build of the program.
    pub fn fitting(self, fits: impl Fn(&ModelOptions<'_>) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        ModelEntry { fits: Arc::new(fits), ..self }
    }

    /// Refuses an engine or a device that cannot have the model in this build, as far as that can be said before there
    /// are images; nothing is made. A stored run may be of another build, which is why [`check`](Self::check) does not.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn fits(&self, options: &ModelOptions<'_>) -> Result<(), Error> {
        (self.fits)(options)
    }

    /// Refuses settings that the model cannot have, whatever the images are; nothing is made.
    ///
    /// # Errors
    /// Settings out of range, sizes that memory does not hold.
    pub fn check(&self, options: &ModelOptions<'_>) -> Result<(), Error> {
        (self.check)(options)
    }

    /// Constructs the model in the engine that is asked for, or in the best that fits.
    ///
    /// # Errors
    /// Settings out of range, an engine that cannot have the model.
    pub fn build(&self, options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
        (self.build)(options)
    }
}

impl fmt::Debug for ModelEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Entry for ModelEntry {
    fn name(&self) -> &str {
        self.name
    }

    fn help(&self) -> &str {
        self.help
    }

    fn settings(&self) -> &[Setting] {
        &self.settings
    }
}
