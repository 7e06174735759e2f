//! The autodiff engine: any encoder and decoder on any device of Burn.
//!
//! A step has two halves. On the host, at the seam: potentials and noise go into an estimator, which asks the decoder
//! and leaves the gradient at the potentials. On the device: the networks. They meet in surrogates whose derivatives
//! are the wanted ones, `<potentials, gradient at the potentials>` for the encoder and `<outputs, derivative of the
//! weighted losses at the outputs>` for the decoder; each is differentiated once, the decoder's first, since some
//! estimators go on with the slopes at what it followed.

use crate::adam::Adam;
use crate::host;
use crate::model::{self, Decoder, Encoded, Encoder, parameters, with_parameters};
use crate::oracle::{Batch, Finished, Rows, Table, check_len, check_outputs};
use crate::table::StateTable;
use burn::tensor::{Device, Gradients, Tensor};
use gumbel::Error;
use gumbel::engine::{Asked, Engine, Images, StepOptions, StepReport};
use gumbel::estimator::{Estimator, MEASURES, Memory, Noises, Piece, Slopes, Tally, reads_table};
use gumbel::likelihood::Likelihood;
use gumbel::network::{Parameters, Snapshot};
use gumbel::structure::{AnyStructure, Structure, Sums};
use rayon::prelude::*;
use std::sync::Arc;

/// Rows decoded at a time, for pictures.
const ROWS: usize = 8192;

/// A model with its optimiser, trained by automatic differentiation.
pub struct Autodiff<E, D> {
    // Present except inside `step`, where the optimiser owns them and so can update their memory in place.
    encoder: Option<E>,
    decoder: Option<D>,
    structure: AnyStructure,
    likelihood: Arc<dyn Likelihood>,
    adam: Adam,
    device: Device,
    /// The images of the batch to come.
    prepared: Option<Prepared>,
    /// What the present parameters make of all states, once it has been asked for.
    decoded: Option<StateTable>,
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
            structure,
            likelihood,
            adam: Adam::new(lr),
            device: device.clone(),
            prepared: None,
            decoded: None,
            memory: Memory::default(),
            noise: vec![],
        }
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
        let raw = potentials_of(self.encoder(), &self.structure, x.clone().autodiff())?;
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
        let oracle = Batch::new(decoder, structure, likelihood, &self.device, (values, x), &mut self.decoded);
        let Finished { gradients: decoder, reconstruction, mut slopes } = match reads_table(estimator, structure) {
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
        };
        if estimator.wants_slopes() {
            slopes.resize(estimator.rows(samples) * count * structure.unary(), 0.0);
            estimator.resume(&mut piece, Slopes { values: &slopes, stride: count })?;
        }

        for (h, g) in potentials.chunks_exact(p).zip(gradient.chunks_exact_mut(p)) {
            structure.to_raw_gradient(h, g);
        }
        let gradient: Tensor<2> = host::tensor(gradient, [count, p], &self.device);
        let encoder = (raw * gradient.autodiff()).sum().backward();
        Ok(Computed { encoder, decoder, report: StepReport { reconstruction, tallies }, sums })
    }
}

/// Reads images `[batch, pixels]`.
fn fill(images: &dyn Images, batch: &[u32]) -> Result<Vec<f32>, Error> {
    let mut values = vec![0.0; batch.len() * images.shape().len()];
    images.fill(batch, &mut values)?;
    Ok(values)
}

/// Raw potentials `[batch, P]` of images.
fn potentials_of<E: Encoder>(encoder: &E, structure: &AnyStructure, x: Tensor<2>) -> Result<Tensor<2>, Error> {
    let [count, _] = x.dims();
    let Encoded { potentials, continuous } = encoder.encode(x);
    if let Some(continuous) = continuous {
        let [_, width] = continuous.dims();
        let detail =
            format!("the encoder emits {width} continuous parameters: expected none, they are not trained yet");
        return Err(Error::Failed { detail });
    }
    let [rows, width] = potentials.dims();
    check_len("a column of the encoder's potentials", rows, count)?;
    check_len("a row of the encoder's potentials", width, structure.potentials())?;
    Ok(potentials)
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
    let cheap = if structure.block(0).is_some() { potentials.len() / p } else { 1 };
    rows.with_min_len(cheap).try_for_each(|(h, g)| structure.kl_to_uniform(h, scale, g).map(drop))
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
        let mut update = self.adam.step();
        self.encoder = self.encoder.take().map(|m| update.update(m, &mut encoder));
        let gradients = decoder.as_mut().unwrap_or(&mut encoder);
        self.decoder = self.decoder.take().map(|m| update.update(m, gradients));
        estimator.learn(&sums);
        Ok(report)
    }

    fn ask<'a>(&'a mut self, images: &'a dyn Images, batch: &'a [u32]) -> Result<Asked<'a>, Error> {
        let (values, x) = self.read(images, batch)?;
        let raw = potentials_of(&self.encoder().valid(), &self.structure, x.clone())?;
        let potentials = to_potentials(&self.structure, host::take(raw));
        let decoder = self.decoder.as_ref().expect("the decoder is away only inside a step");
        let (structure, likelihood) = (&self.structure, &*self.likelihood);
        let oracle = Batch::new(decoder, structure, likelihood, &self.device, (values, x), &mut self.decoded);
        Ok(Asked { potentials, oracle: Box::new(oracle) })
    }

    fn means(&mut self, codes: &[f32], means: &mut [f32]) -> Result<(), Error> {
        let u = self.structure.unary();
        let rows = codes.len() / u;
        check_len("codes", codes.len(), rows * u)?;
        let pixels = means.len() / rows.max(1);
        check_len("means", means.len(), rows * pixels)?;
        let decoder = self.decoder().valid();
        for (codes, means) in codes.chunks(ROWS * u).zip(means.chunks_mut((ROWS * pixels).max(1))) {
            let rows = codes.len() / u;
            let outputs = decoder.outputs(host::tensor(codes.to_vec(), [rows, u], &self.device), None);
            check_outputs(&outputs, rows, pixels)?;
            means.copy_from_slice(&host::read(outputs));
            self.likelihood.means(means);
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
