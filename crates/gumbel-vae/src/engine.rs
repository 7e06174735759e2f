//! The autodiff engine: one training step of any encoder and decoder on any device of Burn.
//!
//! A step has two halves. On the host, at the seam: potentials, noise and losses go in, the gradient at the potentials
//! comes out. On the device: the networks. They meet in a surrogate whose derivative is the wanted one, the sum of
//! `<potentials, gradient at the potentials>` and `<logits, derivative of the loss at the logits>`; it is
//! differentiated once.
//!
//! The decoder does not see the image. For one K-way variable its outputs for the K values, the *table*, are the same
//! K rows for every example, and the losses of all examples are one matrix product:
//! `loss[b, k] = sum_d softplus(T[k, d]) - <x_b, T_k>`. Where all states are enumerated the same holds for |Z| rows.

use crate::adam::Adam;
use crate::config::{EstimatorName, TrainConfig};
use crate::model::{Decoder, Encoder};
use crate::{Result, host, likelihood};
use burn::tensor::{Device, Tensor, activation};
use gumbel::estimator::{
    Direct, Estimate, Estimator, Exact, Inputs, LocalExpectation, Marginal, Needs, Sides, enumerable,
};
use gumbel::structure::{Categorical, Structure, Sums, perturbed_argmax};

/// How the gradient at the potentials comes about in one step.
pub enum Method {
    /// Potentials, noise and losses in, gradient at the potentials out.
    Seam(Box<dyn Estimator<Categorical>>),
    /// The decoder reads `softmax((potentials + noise) / temperature)` and is differentiated through.
    Relaxed {
        /// Temperature, > 0.
        temperature: f32,
        /// Forwards the arg max, backwards the softmax.
        straight_through: bool,
    },
}

impl Method {
    /// The method that a configuration names, at the given epsilon and temperature.
    pub fn new(config: &TrainConfig, epsilon: f32, temperature: f32) -> Result<Self> {
        let relaxed = |straight_through| Method::Relaxed { temperature, straight_through };
        Ok(match config.estimator {
            EstimatorName::Direct => {
                let sides = if config.two_sided { Sides::Two } else { Sides::One };
                let direct = Direct::new(epsilon)?.sides(sides);
                Method::Seam(if config.rao_blackwell { Box::new(direct.rao_blackwell()) } else { Box::new(direct) })
            }
            EstimatorName::Exact => Method::Seam(Box::new(Exact)),
            EstimatorName::Marginal => Method::Seam(Box::new(Marginal)),
            EstimatorName::LocalExpectation => Method::Seam(Box::new(LocalExpectation)),
            EstimatorName::GumbelSoftmax => relaxed(false),
            EstimatorName::StraightThrough => relaxed(true),
        })
    }
}

/// What a step needs to know beside the batch.
pub struct StepOptions<'a> {
    /// The gradient at the potentials.
    pub method: &'a Method,
    /// Weight of the KL term, 0 to 1.
    pub kl_weight: f32,
    /// Gumbel noise `[samples, batch, U]`; the number of samples follows from its length.
    pub noise: &'a [f32],
}

/// What a step tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Examples (times samples) whose gradient was zero because z* = z(eps); `None` where that has no meaning.
    pub unmoved: Option<usize>,
    /// Mean loss of the step in nats per image at its samples or states, without the KL term.
    pub reconstruction: f64,
}

/// A model with its optimiser, trained by automatic differentiation.
#[derive(Debug, Clone)]
pub struct Autodiff<E, D> {
    // Present except inside `step`, where the optimiser owns them and so can update their memory in place.
    encoder: Option<E>,
    decoder: Option<D>,
    /// The latent variable.
    pub structure: Categorical,
    /// The optimiser.
    pub adam: Adam,
    device: Device,
}

impl<E: Encoder, D: Decoder> Autodiff<E, D> {
    /// A model whose parameters live on the autodiff side of `device`.
    pub fn new(encoder: E, decoder: D, structure: Categorical, lr: f64, device: &Device) -> Self {
        let (encoder, decoder) = (Some(encoder), Some(decoder));
        Autodiff { encoder, decoder, structure, adam: Adam::new(lr), device: device.clone() }
    }

    /// The module that emits the potentials.
    pub fn encoder(&self) -> &E {
        self.encoder.as_ref().expect("the encoder is away only inside a step")
    }

    /// The module that reads assignments.
    pub fn decoder(&self) -> &D {
        self.decoder.as_ref().expect("the decoder is away only inside a step")
    }

    /// The same model without automatic differentiation: nothing is recorded.
    pub fn valid(&self) -> Self {
        Autodiff {
            encoder: Some(self.encoder().valid()),
            decoder: Some(self.decoder().valid()),
            structure: self.structure,
            adam: self.adam.clone(),
            device: self.device.clone(),
        }
    }

    /// Replaces both modules.
    pub fn set_modules(&mut self, encoder: E, decoder: D) {
        (self.encoder, self.decoder) = (Some(encoder), Some(decoder));
    }

    /// The plain device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// One step of the optimiser on a batch of images `[batch, pixels]` with values in [0, 1].
    pub fn step(&mut self, images: &[f32], pixels: usize, options: &StepOptions<'_>) -> Result<StepReport> {
        let (surrogate, report) = self.surrogate(images, pixels, options)?;
        if !report.reconstruction.is_finite() {
            return Err(gumbel::Error::NotANumber { what: "loss of the batch", index: 0 }.into());
        }
        let mut gradients = surrogate.backward();
        drop(surrogate); // with the graph, which shares the parameters' memory
        let mut update = self.adam.step();
        self.encoder = self.encoder.take().map(|m| update.update(m, &mut gradients));
        self.decoder = self.decoder.take().map(|m| update.update(m, &mut gradients));
        Ok(report)
    }

    /// A scalar whose derivative at the parameters is the estimate of the objective's, and the report.
    pub fn surrogate(
        &self,
        images: &[f32],
        pixels: usize,
        options: &StepOptions<'_>,
    ) -> Result<(Tensor<1>, StepReport)> {
        let batch = images.len() / pixels;
        let x: Tensor<2> = host::tensor(images.to_vec(), [batch, pixels], &self.device);
        let h = self.encoder().potentials(x.clone().autodiff());
        let potentials = host::read(h.clone());
        let width = self.structure.potentials();
        let mut gradient = vec![0.0; batch * width];
        if options.kl_weight != 0.0 {
            let scale = options.kl_weight / batch as f32;
            for (h, g) in potentials.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
                self.structure.kl_to_uniform(h, scale, g)?;
            }
        }
        let step = Step { x, images, pixels, batch, potentials: &potentials, noise: options.noise };
        let (decoder, report) = match options.method {
            Method::Seam(e) if e.needs() == Needs::States || self.structure.variables() == 1 => {
                self.with_table(&step, e.as_ref(), &mut gradient)?
            }
            Method::Seam(e) => self.with_neighbours(&step, e.as_ref(), &mut gradient)?,
            Method::Relaxed { temperature, straight_through } => {
                self.relaxed(&step, h.clone(), *temperature, *straight_through)?
            }
        };
        let gradient = host::tensor(gradient, [batch, width], &self.device);
        Ok(((h * gradient.autodiff()).sum() + decoder, report))
    }

    /// Decoder outputs for all states `[states, pixels]`.
    pub fn table(&self, states: usize) -> Tensor<2> {
        let width = self.structure.unary();
        let mut codes = vec![0.0; states * width];
        let mut z = vec![0; self.structure.variables()];
        for (s, code) in codes.chunks_exact_mut(width).enumerate() {
            self.structure.state(s, &mut z);
            self.structure.add_statistics(&z, 1.0, code);
        }
        self.decoder().logits(host::tensor(codes, [states, width], &self.device).autodiff())
    }

    /// One K-way variable, or all states: the table.
    fn with_table(
        &self,
        step: &Step<'_>,
        estimator: &dyn Estimator<Categorical>,
        gradient: &mut [f32],
    ) -> Result<(Tensor<1>, StepReport)> {
        let states = enumerable_or_single(&self.structure)?;
        let table = self.table(states);
        let plain = table.clone().inner();
        let logits = host::read(plain.clone());
        let (mut sums, mut sigmoids) = (vec![0.0; states], vec![0.0; states * step.pixels]);
        likelihood::softplus_sums_and_sigmoids(&logits, step.pixels, &mut sums, &mut sigmoids);
        drop(logits);
        let losses = table_losses(&step.x, plain, &sums);

        let mut weights = vec![0.0; step.batch * states];
        // Nothing is random in an estimator that sees all states: one pass stands for all samples.
        let samples = match estimator.needs() {
            Needs::States => 1,
            Needs::Neighbours => step.samples(&self.structure),
        };
        let scale = 1.0 / (step.batch * samples) as f32;
        let mut unmoved = None;
        let mut assignment = vec![0; step.batch * self.structure.variables()];
        for noise in step.noise.chunks_exact(step.batch * self.structure.unary()).take(samples) {
            perturbed_argmax(&self.structure, step.potentials, noise, &mut assignment)?;
            let inputs = Inputs { potentials: step.potentials, noise, assignment: &assignment, losses: &losses };
            let mut estimate = match estimator.needs() {
                Needs::States => Estimate::with_weights(gradient, &mut weights, scale),
                Needs::Neighbours => Estimate::new(gradient, scale),
            };
            estimator.estimate(&self.structure, &inputs, &mut estimate)?;
            add_count(&mut unmoved, estimate.unmoved);
            if estimator.needs() == Needs::Neighbours {
                for (row, z) in weights.chunks_exact_mut(states).zip(&assignment) {
                    row[*z as usize] += scale;
                }
            }
        }

        // Derivative at the table: (total weight of state) * sigmoid - (weights^T images).
        let mut totals = vec![0.0f32; states];
        for row in weights.chunks_exact(states) {
            totals.iter_mut().zip(row).for_each(|(t, w)| *t += w);
        }
        let reconstruction = weights.iter().zip(&losses).map(|(w, l)| *w as f64 * *l as f64).sum();
        for (s, total) in sigmoids.chunks_exact_mut(step.pixels).zip(&totals) {
            s.iter_mut().for_each(|s| *s *= total);
        }
        let device = &self.device;
        let weights: Tensor<2> = host::tensor(weights, [step.batch, states], device);
        let derivative =
            host::tensor(sigmoids, [states, step.pixels], device) - weights.transpose().matmul(step.x.clone());
        Ok(((table * derivative.autodiff()).sum(), StepReport { unmoved, reconstruction }))
    }

    /// Several variables: z* with gradient, its neighbours without.
    fn with_neighbours(
        &self,
        step: &Step<'_>,
        estimator: &dyn Estimator<Categorical>,
        gradient: &mut [f32],
    ) -> Result<(Tensor<1>, StepReport)> {
        let samples = step.samples(&self.structure);
        let scale = 1.0 / (step.batch * samples) as f32;
        let mut surrogate: Option<Tensor<1>> = None;
        let (mut unmoved, mut reconstruction) = (None, 0.0);
        let mut assignment = vec![0; step.batch * self.structure.variables()];
        for noise in step.noise.chunks_exact(step.batch * self.structure.unary()) {
            perturbed_argmax(&self.structure, step.potentials, noise, &mut assignment)?;
            let logits = self.decoder().logits(self.codes(&assignment).autodiff());
            let (losses, term) = self.likelihood(step, logits, scale);
            let neighbours = self.neighbour_losses(&assignment, &losses, step.images, step.pixels);
            let inputs = Inputs { potentials: step.potentials, noise, assignment: &assignment, losses: &neighbours };
            let mut estimate = Estimate::new(gradient, scale);
            estimator.estimate(&self.structure, &inputs, &mut estimate)?;
            add_count(&mut unmoved, estimate.unmoved);
            reconstruction += losses.iter().map(|l| *l as f64).sum::<f64>() * scale as f64;
            surrogate = Some(surrogate.map_or(term.clone(), |s| s + term));
        }
        let surrogate = surrogate.expect("there is at least one sample");
        Ok((surrogate, StepReport { unmoved, reconstruction }))
    }

    /// Losses `[batch, U]` of all one-coordinate changes of an assignment, given its own losses `[batch]`.
    pub fn neighbour_losses(&self, assignment: &[u32], own: &[f32], images: &[f32], pixels: usize) -> Vec<f32> {
        let (n, k) = (self.structure.variables(), self.structure.values());
        let logits = host::read(self.decoder().valid().neighbour_logits(assignment, n, k, &self.device));
        let mut changed = vec![0.0; logits.len() / pixels];
        likelihood::losses(&logits, images, pixels, n * (k - 1), &mut changed);
        let mut out = vec![0.0; own.len() * n * k];
        let mut changed = changed.into_iter();
        for (j, z) in assignment.iter().enumerate() {
            for (value, loss) in out[j * k..(j + 1) * k].iter_mut().enumerate() {
                let other = if value == *z as usize { None } else { changed.next() };
                *loss = other.unwrap_or(own[j / n]);
            }
        }
        out
    }

    /// The decoder reads relaxed samples and is differentiated through.
    fn relaxed(
        &self,
        step: &Step<'_>,
        h: Tensor<2>,
        temperature: f32,
        straight_through: bool,
    ) -> Result<(Tensor<1>, StepReport)> {
        let (n, k) = (self.structure.variables(), self.structure.values());
        let samples = step.samples(&self.structure);
        let scale = 1.0 / (step.batch * samples) as f32;
        let mut surrogate: Option<Tensor<1>> = None;
        let mut reconstruction = 0.0;
        for noise in step.noise.chunks_exact(step.batch * self.structure.unary()) {
            let g: Tensor<2> = host::tensor(noise.to_vec(), [step.batch, n * k], &self.device);
            let scores = (h.clone() + g.autodiff()).div_scalar(temperature).reshape([step.batch * n, k]);
            let mut code = activation::softmax(scores, 1).reshape([step.batch, n * k]);
            if straight_through {
                let mut assignment = vec![0; step.batch * n];
                perturbed_argmax(&self.structure, step.potentials, noise, &mut assignment)?;
                let correction = self.codes(&assignment) - code.clone().inner();
                code = code + correction.autodiff();
            }
            let (losses, term) = self.likelihood(step, self.decoder().logits(code), scale);
            reconstruction += losses.iter().map(|l| *l as f64).sum::<f64>() * scale as f64;
            surrogate = Some(surrogate.map_or(term.clone(), |s| s + term));
        }
        let surrogate = surrogate.expect("there is at least one sample");
        Ok((surrogate, StepReport { unmoved: None, reconstruction }))
    }

    /// Losses of the images at their logits, and a surrogate of `scale` times their sum.
    fn likelihood(&self, step: &Step<'_>, logits: Tensor<2>, scale: f32) -> (Vec<f32>, Tensor<1>) {
        let values = host::read(logits.clone());
        let (mut losses, mut derivative) = (vec![0.0; step.batch], vec![0.0; values.len()]);
        likelihood::losses_and_derivative(&values, step.images, step.pixels, scale, &mut losses, &mut derivative);
        drop(values);
        let derivative = host::tensor(derivative, [step.batch, step.pixels], &self.device);
        (losses, (logits * derivative.autodiff()).sum())
    }

    /// One-hot codes `[batch, U]` of assignments.
    pub fn codes(&self, assignment: &[u32]) -> Tensor<2> {
        let (n, width) = (self.structure.variables(), self.structure.unary());
        let batch = assignment.len() / n;
        let mut codes = vec![0.0; batch * width];
        for (z, code) in assignment.chunks_exact(n).zip(codes.chunks_exact_mut(width)) {
            self.structure.add_statistics(z, 1.0, code);
        }
        host::tensor(codes, [batch, width], &self.device)
    }
}

impl<E: Encoder, D: Decoder> Autodiff<E, D> {
    /// Means of the pixels `[rows, pixels]` for assignments `[rows, n]`; nothing is recorded.
    pub fn means(&self, assignment: &[u32]) -> Vec<f32> {
        let logits = host::read(self.decoder().valid().logits(self.codes(assignment)));
        logits.iter().map(|t| likelihood::sigmoid(*t)).collect()
    }
}

/// One batch on the host and on the device.
struct Step<'a> {
    x: Tensor<2>,
    images: &'a [f32],
    pixels: usize,
    batch: usize,
    potentials: &'a [f32],
    noise: &'a [f32],
}

impl Step<'_> {
    fn samples(&self, structure: &Categorical) -> usize {
        (self.noise.len() / (self.batch * structure.unary())).max(1)
    }
}

/// `losses[b, s] = sums[s] - <x_b, table_s>`, `[batch, states]`, for images x and a table on a plain device.
pub(crate) fn table_losses(x: &Tensor<2>, table: Tensor<2>, sums: &[f32]) -> Vec<f32> {
    let products = host::read(x.clone().matmul(table.transpose()));
    let rows = products.chunks_exact(sums.len());
    rows.flat_map(|row| row.iter().zip(sums).map(|(p, s)| s - p)).collect()
}

/// The number of states of a space with a table: one variable of any size, or what can be enumerated.
pub(crate) fn enumerable_or_single(structure: &Categorical) -> Result<usize> {
    match structure.variables() {
        1 => Ok(structure.values()),
        _ => Ok(enumerable(structure)?),
    }
}

fn add_count(total: &mut Option<usize>, count: Option<usize>) {
    if let Some(count) = count {
        *total.get_or_insert(0) += count;
    }
}
