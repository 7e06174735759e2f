//! How a run executes its steps: the engine that its configuration asks for, or the best one that fits.
//!
//! A run may change its engine when it is resumed: parameters, moments and noise are the same in both.

use crate::adam::Moments;
use crate::config::{EngineName, EstimatorName, TrainConfig};
use crate::engine::{Autodiff, Method, StepOptions, StepReport};
use crate::evaluate::{self, Decoded, Evaluation, Protocol};
use crate::fused::{self, Bits, Fused};
use crate::model::{Mlp, Named, parameters, with_parameters};
use crate::store::Model;
use crate::{Error, Result};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::Structure;
use gumbel_data::{Binarization, Dataset, Images, Split};

/// The paper's model under automatic differentiation.
pub type MlpEngine = Autodiff<Mlp, Mlp>;

/// The paper's model for a configuration: an encoder pixels-hidden-P and a decoder U-hidden-pixels.
pub fn model(config: &TrainConfig, pixels: usize) -> Result<MlpEngine> {
    config.check_weights(pixels)?;
    let structure = config.latent.structure();
    let device = config.device.open()?;
    let mut widths = vec![pixels];
    widths.extend(&config.hidden);
    widths.push(structure.potentials());
    let encoder = Mlp::new(&widths, config.seed, 0, &device);
    widths.reverse();
    widths[0] = structure.unary();
    let decoder = Mlp::new(&widths, config.seed, 1, &device);
    Ok(Autodiff::new(encoder, decoder, structure, config.lr, &device))
}

/// A model with the engine that trains it.
pub struct Executor {
    config: TrainConfig,
    pixels: usize,
    /// The present parameters, or with a fused engine those of the last [`sync`](Executor::sync).
    plain: MlpEngine,
    fused: Option<Fused>,
    /// Method of the steps, at the epsilon, temperature and weight of the KL by perturbation of the last.
    method: ([f32; 3], Method),
    /// Training images as lists, for a fused engine: of the epoch, if it matters.
    bits: Option<(u64, Bits)>,
    /// The splits as evaluations see them.
    evaluated: [Option<Bits>; 3],
    /// What evaluations have decoded with the present parameters.
    decoded: Decoded,
    images: Vec<f32>,
    noise: Vec<f32>,
}

impl Executor {
    /// The model of a configuration with its initial parameters. Errors: an engine that does not fit the model.
    pub fn new(config: &TrainConfig, pixels: usize) -> Result<Self> {
        let plain = model(config, pixels)?;
        let settings = [config.epsilon_schedule()?.at(0), config.temperature_schedule()?.at(0), 0.0];
        let [epsilon, temperature, kl] = settings;
        let method = Method::new(config, epsilon, temperature, kl)?;
        let mut fused = None;
        if config.engine != EngineName::Autodiff {
            let model = fused::Model {
                pixels,
                hidden: &config.hidden,
                structure: plain.structure.clone(),
                method: &method,
                batch: config.batch_size,
                samples: config.samples,
                lr: config.lr,
                threads: rayon::current_num_threads(),
            };
            match refusal(config, &model) {
                None => fused = Some(Fused::new(&model)?),
                Some(_) if config.engine == EngineName::Auto => {}
                Some(expected) => {
                    return Err(Error::setting("engine", "fused", format!("autodiff, as fused needs {expected}")));
                }
            }
        }
        let method = (settings, method);
        let (images, noise) = (vec![], vec![]);
        let mut executor = Executor {
            config: config.clone(),
            pixels,
            plain,
            fused,
            method,
            bits: None,
            evaluated: [None, None, None],
            decoded: Decoded::default(),
            images,
            noise,
        };
        executor.push();
        Ok(executor)
    }

    /// The engine in use.
    pub fn name(&self) -> EngineName {
        if self.fused.is_some() { EngineName::Fused } else { EngineName::Autodiff }
    }

    /// One training step on images of the training split, at the schedules of the configuration.
    pub fn step(
        &mut self,
        data: &Images,
        epoch: u64,
        batch: &[u32],
        step: u64,
        steps_per_epoch: u64,
    ) -> Result<StepReport> {
        self.prepare(data, epoch, batch)?;
        self.step_prepared(batch, step, steps_per_epoch)
    }

    /// The same on images that were [prepared](Executor::prepare).
    pub fn step_prepared(&mut self, batch: &[u32], step: u64, steps_per_epoch: u64) -> Result<StepReport> {
        self.decoded = Decoded::default();
        let config = &self.config;
        let kl_weight = match config.estimator {
            // Its objective, -ln p(x), holds the prior: a second pull towards it would move q away from the posterior.
            EstimatorName::Marginal => 0.0,
            _ => config.kl.weight(step, steps_per_epoch),
        };
        // Where sums are not tractable, the KL is in the perturbation.
        let (kl_weight, perturbed) = if self.plain.structure.has_sums() { (kl_weight, 0.0) } else { (0.0, kl_weight) };
        let (epsilon, temperature) = (config.epsilon_schedule()?.at(step), config.temperature_schedule()?.at(step));
        if self.method.0 != [epsilon, temperature, perturbed] {
            let settings = [epsilon, temperature, perturbed];
            self.method = (settings, Method::new(config, epsilon, temperature, perturbed)?);
        }
        let noise = Noise::new(config.seed, Purpose::Noise, step);
        let method = &self.method.1;
        if let (Some(fused), Some((_, bits))) = (&mut self.fused, &self.bits) {
            return fused.step(bits, batch, &fused::Options { method, kl_weight, noise: &noise });
        }
        let width = method.noise(&self.plain.structure)?;
        self.noise.resize(config.samples * batch.len() * width, 0.0);
        noise.gumbel(&mut self.noise);
        self.plain.step(&self.images, self.pixels, &StepOptions { method, kl_weight, noise: &self.noise })
    }

    /// Brings the images of a batch into the engine's form: outside of the time of a step where they can be kept.
    pub fn prepare(&mut self, data: &Images, epoch: u64, batch: &[u32]) -> Result<()> {
        let binarization = self.config.binarization.with_seed(self.config.seed);
        if self.fused.is_some() {
            let epoch = if matches!(binarization, Binarization::Stochastic { .. }) { epoch } else { 0 };
            if self.bits.as_ref().is_none_or(|(of, _)| *of != epoch) {
                self.bits = Some((epoch, bits(binarization, data, Split::Train, epoch)?));
            }
            return Ok(());
        }
        let indices: Vec<usize> = batch.iter().map(|i| *i as usize).collect();
        self.images.resize(batch.len() * self.pixels, 0.0);
        binarization.fill(data, Split::Train, epoch, &indices, &mut self.images)?;
        Ok(())
    }

    /// The model with its present parameters.
    pub fn model(&mut self) -> &MlpEngine {
        self.sync();
        &self.plain
    }

    /// Evaluates the present parameters on the first `limit` images (0: all) of a split.
    pub fn evaluate(&mut self, data: &Dataset, split: Split, limit: usize, protocol: &Protocol) -> Result<Evaluation> {
        let independent = self.plain.structure.block(0).is_some();
        if let Some(fused) = self.fused.as_mut().filter(|f| independent && f.has_table()) {
            let slot = &mut self.evaluated[split as usize];
            if slot.is_none() {
                let binarization = self.config.binarization.with_seed(self.config.seed);
                *slot = Some(bits(binarization, data.split(split), split, 0)?);
            }
            if let Some(images) = slot {
                return evaluate::evaluate_fused(fused, images, split, limit, protocol);
            }
        }
        self.sync();
        evaluate::evaluate(&self.plain, &self.config, data, (split, limit), protocol, &mut self.decoded)
    }

    /// Present parameters, moments and step count.
    pub fn snapshot(&mut self) -> (Model, Vec<Moments>, u64) {
        self.sync();
        let model = snapshot(&self.plain);
        match &mut self.fused {
            Some(fused) => (model.clone(), fused.store(&mut model.all()), fused.steps()),
            None => (model, self.plain.adam.moments().to_vec(), self.plain.adam.steps()),
        }
    }

    /// Puts stored parameters and moments back; `Err` says what does not fit.
    pub fn restore(&mut self, model: &Model, moments: Vec<Moments>, steps: u64) -> std::result::Result<(), String> {
        self.decoded = Decoded::default();
        load(&mut self.plain, model).map_err(|e| format!("a model with {e}"))?;
        self.plain.adam.restore(steps, moments, &model.all())?;
        self.push();
        Ok(())
    }

    /// Gives the plain model's state to the fused engine.
    fn push(&mut self) {
        if let Some(fused) = &mut self.fused {
            let all = snapshot(&self.plain).all();
            fused.load(&all, self.plain.adam.moments(), self.plain.adam.steps());
        }
    }

    /// Gives the fused engine's parameters to the plain model.
    fn sync(&mut self) {
        if let Some(fused) = &mut self.fused {
            let Model { mut encoder, decoder } = snapshot(&self.plain);
            let depth = encoder.len();
            encoder.extend(decoder);
            fused.store(&mut encoder);
            let decoder = encoder.split_off(depth);
            load(&mut self.plain, &Model { encoder, decoder }).expect("both engines have the same model");
        }
    }
}

/// Why the fused engine cannot run a configuration, if it cannot.
fn refusal(config: &TrainConfig, model: &fused::Model<'_>) -> Option<String> {
    if config.device != crate::config::DeviceName::Cpu {
        return Some("--device cpu".into());
    }
    if !config.binarization.is_binary() {
        return Some("binary images (--binarization)".into());
    }
    model.refusal()
}

/// A split as lists of ones.
pub(crate) fn bits(binarization: Binarization, images: &Images, split: Split, epoch: u64) -> Result<Bits> {
    let bytes = binarization.binarize(images, split, epoch)?;
    Ok(Bits::new(&bytes, images.dim()).expect("the bytes are zeros and ones, the size was checked"))
}

/// The parameters of a model.
pub(crate) fn snapshot(engine: &MlpEngine) -> Model {
    Model { encoder: parameters(engine.encoder()), decoder: parameters(engine.decoder()) }
}

/// Puts stored parameters into a model; `Err` says what is missing.
pub(crate) fn load(engine: &mut MlpEngine, model: &Model) -> std::result::Result<(), String> {
    let put = |module: Mlp, stored: &[Named]| with_parameters(module, stored);
    let encoder = put(engine.encoder().clone(), &model.encoder)?;
    let decoder = put(engine.decoder().clone(), &model.decoder)?;
    engine.set_modules(encoder, decoder);
    Ok(())
}
