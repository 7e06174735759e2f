//! The autodiff engine: any encoder and decoder on any device of Burn.
//!
//! A step has two halves. On the host, at the seam: potentials and noise go into an estimator, which asks the decoder
//! and leaves the gradient at the potentials. On the device: the networks. They meet in surrogates whose derivatives
//! are the wanted ones, `<potentials, gradient at the potentials>` for the encoder and `<outputs, derivative of the
//! weighted losses at the outputs>` for the decoder; each is differentiated once, the decoder's first, since some
//! estimators go on with the slopes at what it followed.

use crate::adam::Adam;
use crate::host;
use crate::mixed::{self, Mixed};
use crate::model::{self, Decoder, Encoded, Encoder, parameters, with_parameters};
use crate::oracle::{Batch, Finished, Rows, Table, check_outputs, rows_at_once};
use crate::table::StateTable;
use burn::tensor::{Device, Gradients, Tensor};
use gumbel::Error;
use gumbel::continuous::{Continuous, Draw, Gaussians, Inputs};
use gumbel::engine::{Asked, Engine, GaussianCodes, Images, StepOptions, StepReport};
use gumbel::estimator::{Estimator, MEASURES, Memory, Noises, Piece, Slopes, Tally, reads_table};
use gumbel::likelihood::Likelihood;
use gumbel::network::{Parameters, Snapshot};
use gumbel::noise::Noise;
use gumbel::oracle::check_len;
use gumbel::structure::{AnyStructure, Structure, Sums};
use rayon::prelude::*;
use std::sync::Arc;

/// A model with its optimiser, trained by automatic differentiation.
pub struct Autodiff<E, D> {
    // Present except inside `step`, where the optimiser owns them and so can update their memory in place.
    encoder: Option<E>,
    decoder: Option<D>,
    structure: AnyStructure,
    /// What the decoder reads.
    inputs: Inputs,
    likelihood: Arc<dyn Likelihood>,
    adam: Adam,
    device: Device,
    /// The images of the batch to come.
    prepared: Option<Prepared>,
    /// What the present parameters make of all states, once it has been asked for.
    decoded: Option<StateTable>,
    /// The Gaussian codes of the last question.
    gaussians: Option<Gaussians>,
    memory: Memory<AnyStructure>,
    noise: Vec<f32>,
}

struct Prepared {
    key: u64,
    batch: Vec<u32>,
    /// `[batch, pixels]`.
    values: Vec<f32>,
}

/// The gradient of a step that was not taken.
#[derive(Debug, Clone, PartialEq)]
pub struct StepGradients {
    /// In the place of every parameter its gradient.
    pub gradients: Parameters,
    /// What the step would have told.
    pub report: StepReport,
    /// What the estimator would have [learned](Estimator::learn) from.
    pub sums: Vec<f32>,
}

/// What a step computes before anything is updated.
struct Computed {
    encoder: Gradients,
    decoder: Option<Gradients>,
    report: StepReport,
    sums: Vec<f32>,
}

impl<E: Encoder, D: Decoder> Autodiff<E, D> {
    /// A model with the learning rate of Adam. `device` is a plain device; parameters live on its autodiff side.
    pub fn new(
        encoder: E,
        decoder: D,
        structure: AnyStructure,
        likelihood: Arc<dyn Likelihood>,
        lr: f64,
        device: &Device,
    ) -> Self {
        Autodiff {
            encoder: Some(encoder),
            decoder: Some(decoder),
            inputs: Inputs::discrete(&structure),
            structure,
            likelihood,
            adam: Adam::new(lr),
            device: device.clone(),
            prepared: None,
            decoded: None,
            gaussians: None,
            memory: Memory::default(),
            noise: vec![],
        }
    }

    /// The same with Gaussian codes, whose parameters the encoder emits.
    ///
    /// # Errors
    /// More states with codes of their own than there may be.
    pub fn with_continuous(self, kind: Continuous) -> Result<Self, Error> {
        Ok(Autodiff { inputs: Inputs::new(kind, &self.structure)?, ..self })
    }

    /// The module that emits the potentials.
    pub fn encoder(&self) -> &E {
        self.encoder.as_ref().expect("the encoder is away only inside a step")
    }

    /// The module that reads codes.
    pub fn decoder(&self) -> &D {
        self.decoder.as_ref().expect("the decoder is away only inside a step")
    }

    /// What the decoder's outputs say about an image.
    pub fn likelihood(&self) -> &dyn Likelihood {
        &*self.likelihood
    }

    /// The plain device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The gradients of the parameters that a [step](Engine::step) would follow; nothing is updated.
    ///
    /// # Errors
    /// As [`step`](Engine::step).
    pub fn gradients(
        &mut self,
        images: &dyn Images,
        batch: &[u32],
        estimator: &dyn Estimator,
        options: &StepOptions<'_>,
    ) -> Result<StepGradients, Error> {
        let Computed { encoder, decoder, report, sums } = self.compute(images, batch, estimator, options)?;
        let gradients = Parameters {
            encoder: model::gradients(self.encoder(), &encoder),
            decoder: model::gradients(self.decoder(), decoder.as_ref().unwrap_or(&encoder)),
        };
        Ok(StepGradients { gradients, report, sums })
    }

    /// Images `[batch, pixels]`, those that were prepared if they are the same.
    fn read(&mut self, images: &dyn Images, batch: &[u32]) -> Result<(Vec<f32>, Tensor<2>), Error> {
        let pixels = images.shape().len();
        if batch.is_empty() || pixels == 0 {
            return Err(Error::Failed { detail: "expected at least one image of at least one pixel".into() });
        }
        let values = match self.prepared.take_if(|p| p.key == images.key() && p.batch == batch) {
            Some(prepared) => prepared.values,
            None => fill(images, batch)?,
        };
        let x = host::tensor(values.clone(), [batch.len(), pixels], &self.device);
        Ok((values, x))
    }

    /// Raw potentials `[batch, P]` of images, and the parameters of their Gaussian codes where there are some.
    fn encode(
        &self,
        encoder: &E,
        x: Tensor<2>,
        dropout: Option<&Noise>,
    ) -> Result<(Tensor<2>, Option<Tensor<2>>), Error> {
        let [count, _] = x.dims();
        let Encoded { potentials, continuous } = encoder.encode(x, dropout);
        let check = |tensor: &Tensor<2>, column, row, expected| {
            let [rows, width] = tensor.dims();
            check_len(column, rows, count)?;
            check_len(row, width, expected)
        };
        let potentials_width = self.structure.potentials();
        check(
            &potentials,
            "a column of the encoder's potentials",
            "a row of the encoder's potentials",
            potentials_width,
        )?;
        let width = self.inputs.parameters();
        match &continuous {
            None => check_len("a row of the encoder's continuous parameters", 0, width)?,
            Some(continuous) => check(
                continuous,
                "a column of the encoder's continuous parameters",
                "a row of the encoder's continuous parameters",
                width,
            )?,
        }
        Ok((potentials, continuous.filter(|_| width > 0)))
    }

    /// Everything of a step but the update.
    fn compute(
        &mut self,
        images: &dyn Images,
        batch: &[u32],
        estimator: &dyn Estimator,
        options: &StepOptions<'_>,
    ) -> Result<Computed, Error> {
        let count = batch.len();
        let (values, x) = self.read(images, batch)?;
        let (raw, emitted) = self.encode(self.encoder(), x.clone().autodiff(), Some(options.dropout))?;
        let potentials = to_potentials(&self.structure, host::read(raw.clone()).to_vec());
        let p = self.structure.potentials();
        let mut gradient = vec![0.0; count * p];
        if options.kl_weight != 0.0 {
            add_kl(&self.structure, &potentials, options.kl_weight / count as f32, &mut gradient)?;
        }
        // Nothing is random in some estimators: one pass stands for all samples.
        let (samples, width) = match estimator.is_random() {
            true => (options.samples.max(1), estimator.noise(&self.structure)?),
            false => (1, 0),
        };
        self.noise.resize(samples * count * width, 0.0);
        options.noise.gumbel(&mut self.noise);

        let of: Vec<u32> = (0..count as u32).collect();
        let (mut tallies, mut sums) = ([Tally::default(); MEASURES], vec![0.0; estimator.sums()]);
        let mut piece = Piece {
            structure: &self.structure,
            potentials: &potentials,
            noise: Noises { values: &self.noise, width, stride: count },
            samples,
            scale: 1.0 / (count * samples) as f32,
            first: 0,
            of: &of,
            gradient: &mut gradient,
            tallies: &mut tallies,
            sums: &mut sums,
            memory: &mut self.memory,
            parallel: true,
        };
        let decoder = self.decoder.as_ref().expect("the decoder is away only inside a step");
        let (structure, likelihood) = (&self.structure, &*self.likelihood);
        let mut through_codes = None;
        let Finished { gradients: decoder, reconstruction, mut slopes } = if let Some(emitted) = emitted {
            let parameters = host::read(emitted.clone()).to_vec();
            let codes = Gaussians::new(&self.inputs, parameters, Draw::Sample(options.gaussian));
            let terms: Vec<f32> = codes.terms.iter().map(|kl| options.continuous_kl.term(*kl)).collect();
            let (inputs, device, kl_weight) = (&self.inputs, &self.device, options.continuous_kl.followed);
            let parts = mixed::Parts { structure, inputs, likelihood, device, codes: &codes, terms: &terms, kl_weight };
            let mut oracle = Mixed::new(decoder, parts, values, count, estimator.wants_slopes());
            estimator.estimate(&mut piece, &mut oracle)?;
            let mixed::Finished { gradients, reconstruction, slopes, at_parameters } = oracle.finish()?;
            let at_parameters: Tensor<2> = host::tensor(at_parameters, emitted.dims(), &self.device);
            through_codes = Some((emitted * at_parameters.autodiff()).sum());
            Finished { gradients, reconstruction, slopes }
        } else {
            let oracle = Batch::new(decoder, structure, likelihood, &self.device, (values, x), &mut self.decoded);
            match reads_table(estimator, structure) {
                true if estimator.wants_slopes() => {
                    return Err(Error::Failed {
                        detail: "an estimator that follows states has no slopes to go on with".into(),
                    });
                }
                true => {
                    let mut oracle = Table::new(oracle)?;
                    estimator.estimate(&mut piece, &mut oracle)?;
                    oracle.finish()?
                }
                false => {
                    let mut oracle = Rows::new(oracle, estimator.rows(samples), estimator.wants_slopes());
                    estimator.estimate(&mut piece, &mut oracle)?;
                    oracle.finish()?
                }
            }
        };
        if estimator.wants_slopes() {
            slopes.resize(estimator.rows(samples) * count * structure.unary(), 0.0);
            estimator.resume(&mut piece, Slopes { values: &slopes, stride: count })?;
        }

        for (h, g) in potentials.chunks_exact(p).zip(gradient.chunks_exact_mut(p)) {
            structure.to_raw_gradient(h, g);
        }
        let gradient: Tensor<2> = host::tensor(gradient, [count, p], &self.device);
        let through_potentials = (raw * gradient.autodiff()).sum();
        let encoder = match through_codes {
            None => through_potentials.backward(),
            Some(through_codes) => (through_potentials + through_codes).backward(),
        };
        Ok(Computed { encoder, decoder, report: StepReport { reconstruction, tallies }, sums })
    }
}

/// Reads images `[batch, pixels]`.
fn fill(images: &dyn Images, batch: &[u32]) -> Result<Vec<f32>, Error> {
    let mut values = vec![0.0; batch.len() * images.shape().len()];
    images.fill(batch, &mut values)?;
    Ok(values)
}

/// Raw outputs of an encoder `[batch, P]` to potentials.
fn to_potentials(structure: &AnyStructure, mut raw: Vec<f32>) -> Vec<f32> {
    raw.chunks_exact_mut(structure.potentials()).for_each(|row| structure.to_potentials(row));
    raw
}

/// Adds `scale` times the gradient of the KL of every example.
fn add_kl(structure: &AnyStructure, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<(), Error> {
    let p = structure.potentials();
    let rows = potentials.par_chunks_exact(p).zip(gradient.par_chunks_exact_mut(p));
    let cheap = if structure.is_independent() { potentials.len() / p } else { 1 };
    let errors = rows.enumerate().with_min_len(cheap).filter_map(|(b, (h, g))| {
        let error = structure.kl_to_uniform(h, scale, g).err()?;
        Some((b, error))
    });
    errors.min_by_key(|(b, _)| *b).map_or(Ok(()), |(b, error)| Err(error.in_example(b)))
}

impl<E: Encoder, D: Decoder> Engine for Autodiff<E, D> {
    fn name(&self) -> &'static str {
        "autodiff"
    }

    fn arithmetic(&self) -> String {
        let device = format!("{:?}", self.device.as_dispatch());
        let backend: String = device.chars().take_while(|c| c.is_alphanumeric()).collect();
        format!("burn {}", backend.to_lowercase())
    }

    fn structure(&self) -> &AnyStructure {
        &self.structure
    }

    fn prepare(&mut self, images: &dyn Images, batch: &[u32]) -> Result<(), Error> {
        let values = fill(images, batch)?;
        self.prepared = Some(Prepared { key: images.key(), batch: batch.to_vec(), values });
        Ok(())
    }

    fn step(
        &mut self,
        images: &dyn Images,
        batch: &[u32],
        estimator: &mut dyn Estimator,
        options: &StepOptions<'_>,
    ) -> Result<StepReport, Error> {
        let computed = self.compute(images, batch, estimator, options);
        // It shares the memory of the parameters, which now change.
        self.decoded = None;
        let Computed { mut encoder, mut decoder, report, sums } = computed?;
        let mut update = self.adam.step(options.rate);
        self.encoder = self.encoder.take().map(|m| update.update(m, &mut encoder));
        let gradients = decoder.as_mut().unwrap_or(&mut encoder);
        self.decoder = self.decoder.take().map(|m| update.update(m, gradients));
        estimator.learn(&sums);
        Ok(report)
    }

    fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    fn ask<'a>(&'a mut self, images: &'a dyn Images, batch: &'a [u32], draw: Draw<'_>) -> Result<Asked<'a>, Error> {
        let (values, x) = self.read(images, batch)?;
        let (raw, emitted) = self.encode(&self.encoder().valid(), x.clone(), None)?;
        let potentials = to_potentials(&self.structure, host::take(raw));
        let decoder = self.decoder.as_ref().expect("the decoder is away only inside a step");
        let (structure, likelihood, device) = (&self.structure, &*self.likelihood, &self.device);
        let Some(emitted) = emitted else {
            let oracle = Batch::new(decoder, structure, likelihood, device, (values, x), &mut self.decoded);
            return Ok(Asked { potentials, oracle: Box::new(oracle), codes: None });
        };
        let gaussians = &*self.gaussians.insert(Gaussians::new(&self.inputs, host::take(emitted), draw));
        let codes = GaussianCodes::new(gaussians);
        let (inputs, terms) = (&self.inputs, &gaussians.terms);
        let parts = mixed::Parts { structure, inputs, likelihood, device, codes: gaussians, terms, kl_weight: 1.0 };
        let oracle = Mixed::new(decoder, parts, values, batch.len(), false);
        Ok(Asked { potentials, oracle: Box::new(oracle), codes: Some(codes) })
    }

    fn means(&mut self, inputs: &[f32], means: &mut [f32]) -> Result<(), Error> {
        let u = self.inputs.width();
        let rows = inputs.len() / u;
        check_len("inputs", inputs.len(), rows * u)?;
        let pixels = means.len() / rows.max(1);
        check_len("means", means.len(), rows * pixels)?;
        let (decoder, width) = (self.decoder().valid(), pixels * self.likelihood.outputs());
        let most = rows_at_once(width);
        for (inputs, means) in inputs.chunks(most * u).zip(means.chunks_mut((most * pixels).max(1))) {
            let rows = inputs.len() / u;
            let outputs = decoder.outputs(host::tensor(inputs.to_vec(), [rows, u], &self.device));
            check_outputs(&outputs, rows, width)?;
            let outputs = host::read(outputs);
            let rows = outputs.chunks_exact(width.max(1)).zip(means.chunks_exact_mut(pixels.max(1)));
            rows.for_each(|(outputs, means)| self.likelihood.means(outputs, means));
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Snapshot {
        let parameters = Parameters { encoder: parameters(self.encoder()), decoder: parameters(self.decoder()) };
        Snapshot { parameters, moments: self.adam.moments().to_vec(), steps: self.adam.steps() }
    }

    /// Nothing is changed where something does not fit.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let encoder = with_parameters(self.encoder().clone(), &snapshot.parameters.encoder)?;
        let decoder = with_parameters(self.decoder().clone(), &snapshot.parameters.decoder)?;
        self.adam.restore(snapshot.steps, &snapshot.moments, snapshot.parameters.all())?;
        (self.encoder, self.decoder, self.decoded) = (Some(encoder), Some(decoder), None);
        Ok(())
    }
}
