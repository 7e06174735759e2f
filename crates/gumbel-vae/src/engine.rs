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
use crate::config::{EstimatorName, JointName, TrainConfig};
use crate::model::{Decoder, Encoder};
use crate::table::{self, StateTable};
use crate::{Result, host, likelihood};
use burn::tensor::{Device, Tensor, activation};
use gumbel::estimator::{
    Direct, DirectJoint, Estimate, Estimator, Exact, Inputs, LocalExpectation, Marginal, Needs, Sides, Solvers,
    enumerable,
};
use gumbel::structure::{AnyStructure, Code, Structure, Sums, perturbed_argmax};
use rayon::prelude::*;

/// How the gradient at the potentials comes about in one step.
pub enum Method<S: Structure = AnyStructure> {
    /// Potentials, noise and losses in, gradient at the potentials out.
    Seam(Box<dyn Estimator<S>>),
    /// Direct optimisation with the losses of all states.
    Joint {
        /// The estimator.
        estimator: DirectJoint,
        /// The separable one with the same noise that its second arg max is compared with; `None` with full noise.
        separable: Option<Direct>,
    },
    /// Direct optimisation whose second arg max is improved by a local search with true losses, from the better of the
    /// separable z(eps) and z*: the best of all one-coordinate changes, again and again until none is better. For
    /// variables with values, one-sided.
    Search(Direct),
    /// The decoder reads `softmax((potentials + noise) / temperature)` and is differentiated through; for independent
    /// variables.
    Relaxed {
        /// Temperature, > 0.
        temperature: f32,
        /// Forwards the arg max, backwards the softmax.
        straight_through: bool,
    },
}

impl<S: Structure> Method<S> {
    /// The method that a configuration names, at the given epsilon and temperature. `kl_weight` is the weight of the KL
    /// by perturbation ([`Direct::with_kl`]), for latents without sums; else 0.
    pub fn new(config: &TrainConfig, epsilon: f32, temperature: f32, kl_weight: f32) -> Result<Self> {
        let relaxed = |straight_through| Method::Relaxed { temperature, straight_through };
        Ok(match config.estimator {
            EstimatorName::Direct => {
                let sides = if config.two_sided { Sides::Two } else { Sides::One };
                let separable = Direct::new(epsilon)?;
                let direct = separable.sides(sides).with_kl(kl_weight);
                match config.joint {
                    JointName::Exact => {
                        let perturbation = config.noise.perturbation();
                        let unary = perturbation == gumbel::estimator::Perturbation::Unary;
                        let estimator = DirectJoint::new(direct, perturbation);
                        Method::Joint { estimator, separable: unary.then_some(separable) }
                    }
                    JointName::Search => Method::Search(direct),
                    JointName::Off if config.rao_blackwell => Method::Seam(Box::new(direct.rao_blackwell())),
                    JointName::Off => Method::Seam(Box::new(direct)),
                }
            }
            EstimatorName::Exact => Method::Seam(Box::new(Exact)),
            EstimatorName::Marginal => Method::Seam(Box::new(Marginal)),
            EstimatorName::LocalExpectation => Method::Seam(Box::new(LocalExpectation)),
            EstimatorName::GumbelSoftmax => relaxed(false),
            EstimatorName::StraightThrough => relaxed(true),
        })
    }

    /// Gumbel variables per example and sample.
    pub fn noise(&self, structure: &S) -> Result<usize> {
        Ok(match self {
            Method::Seam(e) => e.noise(structure)?,
            Method::Joint { estimator, .. } => estimator.noise(structure)?,
            Method::Search(_) | Method::Relaxed { .. } => structure.unary(),
        })
    }
}

/// What a step needs to know beside the batch.
pub struct StepOptions<'a, S: Structure = AnyStructure> {
    /// The gradient at the potentials.
    pub method: &'a Method<S>,
    /// Weight of the KL term, 0 to 1; greater than 0 only where the structure has sums.
    pub kl_weight: f32,
    /// Gumbel noise `[samples, batch, width]` with the width that the method [draws](Method::noise); the number of
    /// samples follows from its length.
    pub noise: &'a [f32],
}

/// What a step tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Examples (times samples) whose gradient was zero because z* = z(eps); `None` where that has no meaning.
    pub unmoved: Option<usize>,
    /// What the separable approximation missed; `None` where nothing better was looked for.
    pub missed: Option<Missed>,
    /// Mean loss of the step in nats per image at its samples or states, without the KL term.
    pub reconstruction: f64,
}

/// How far the arg max under the separable approximation of the loss is from a better one under the true loss.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Missed {
    /// Examples (times samples) for which a better state was found.
    pub examples: usize,
    /// By how much they are better: the sum of `h + gamma - eps loss` of the better state less that of the separable
    /// one, in nats.
    pub nats: f64,
}

impl Missed {
    pub(crate) fn add(&mut self, nats: f64) {
        // The rounding of losses, sums of many pixels in f32, is no improvement.
        if nats > ROUNDING {
            self.examples += 1;
            self.nats += nats;
        }
    }
}

/// The rounding of a loss, in nats.
const ROUNDING: f64 = 1e-3;

/// A model with its optimiser, trained by automatic differentiation.
#[derive(Debug, Clone)]
pub struct Autodiff<E, D, S = AnyStructure> {
    // Present except inside `step`, where the optimiser owns them and so can update their memory in place.
    encoder: Option<E>,
    decoder: Option<D>,
    /// The latent variable.
    pub structure: S,
    /// The optimiser.
    pub adam: Adam,
    device: Device,
}

impl<E: Encoder, D: Decoder, S: Sums + Clone> Autodiff<E, D, S> {
    /// A model whose parameters live on the autodiff side of `device`.
    pub fn new(encoder: E, decoder: D, structure: S, lr: f64, device: &Device) -> Self {
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
            structure: self.structure.clone(),
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
    pub fn step(&mut self, images: &[f32], pixels: usize, options: &StepOptions<'_, S>) -> Result<StepReport> {
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
        options: &StepOptions<'_, S>,
    ) -> Result<(Tensor<1>, StepReport)> {
        let batch = images.len() / pixels;
        let x: Tensor<2> = host::tensor(images.to_vec(), [batch, pixels], &self.device);
        let raw = self.encoder().potentials(x.clone().autodiff());
        let potentials = self.to_potentials(host::read(raw.clone()).to_vec());
        let width = self.structure.potentials();
        let mut gradient = vec![0.0; batch * width];
        if options.kl_weight != 0.0 {
            let scale = options.kl_weight / batch as f32;
            let rows = potentials.par_chunks_exact(width).zip(gradient.par_chunks_exact_mut(width));
            let cheap = if self.structure.block(0).is_some() { batch } else { 1 };
            let structure = &self.structure;
            rows.with_min_len(cheap).try_for_each(|(h, g)| structure.kl_to_uniform(h, scale, g).map(drop))?;
        }
        let noise_width = options.method.noise(&self.structure)?;
        let samples = (options.noise.len() / (batch * noise_width)).max(1);
        let step =
            Step { x, images, pixels, batch, potentials: &potentials, noise: options.noise, noise_width, samples };
        let (decoder, report) = match options.method {
            Method::Seam(e) if e.needs() == Needs::States || table::is_single(&self.structure) => {
                self.with_table(&step, e.as_ref(), &mut gradient)?
            }
            Method::Seam(e) => self.with_neighbours(&step, e.as_ref(), &mut gradient)?,
            Method::Joint { estimator, separable } => {
                self.joint(&step, estimator, separable.as_ref(), &mut gradient)?
            }
            Method::Search(direct) => self.search(&step, direct, &mut gradient)?,
            Method::Relaxed { temperature, straight_through } => {
                self.relaxed(&step, raw.clone(), *temperature, *straight_through)?
            }
        };
        for (h, g) in potentials.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
            self.structure.to_raw_gradient(h, g);
        }
        let gradient = host::tensor(gradient, [batch, width], &self.device);
        Ok(((raw * gradient.autodiff()).sum() + decoder, report))
    }

    /// Raw outputs of the encoder `[batch, P]` to potentials.
    pub fn to_potentials(&self, mut raw: Vec<f32>) -> Vec<f32> {
        raw.chunks_exact_mut(self.structure.potentials()).for_each(|row| self.structure.to_potentials(row));
        raw
    }

    /// Potentials `[batch, P]` of images `[batch, pixels]`; nothing is recorded.
    pub fn potentials(&self, images: Tensor<2>) -> Vec<f32> {
        self.to_potentials(host::read(self.encoder().valid().potentials(images)).to_vec())
    }

    /// Decoder outputs for all states `[states, pixels]`.
    pub fn table(&self, states: usize) -> Tensor<2> {
        let codes = table::codes(&self.structure, 0..states);
        let codes: Tensor<2> = host::tensor(codes, [states, self.structure.unary()], &self.device);
        self.decoder().logits(codes.autodiff())
    }

    /// Outputs of the decoder for all states, for the losses of many images.
    pub(crate) fn state_table(&self, states: usize) -> StateTable {
        StateTable::new(&self.decoder().valid(), &self.structure, states, &self.device)
    }

    /// One K-way variable, or all states: the table.
    fn with_table(
        &self,
        step: &Step<'_>,
        estimator: &dyn Estimator<S>,
        gradient: &mut [f32],
    ) -> Result<(Tensor<1>, StepReport)> {
        let states = match table::is_single(&self.structure) {
            true => self.structure.unary(),
            false => enumerable(&self.structure)?,
        };
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
            Needs::Neighbours => step.samples,
        };
        let scale = 1.0 / (step.batch * samples) as f32;
        let mut unmoved = None;
        let mut assignment = vec![0; step.batch * self.structure.variables()];
        for noise in step.draws().take(samples) {
            if estimator.needs() == Needs::Neighbours {
                perturbed_argmax(&self.structure, step.potentials, noise, &mut assignment)?;
            }
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
        Ok(((table * derivative.autodiff()).sum(), StepReport { unmoved, missed: None, reconstruction }))
    }

    /// Several variables: z* with gradient, its neighbours without.
    fn with_neighbours(
        &self,
        step: &Step<'_>,
        estimator: &dyn Estimator<S>,
        gradient: &mut [f32],
    ) -> Result<(Tensor<1>, StepReport)> {
        let mut total = Total::default();
        let mut solvers = Solvers::default();
        let mut assignment = vec![0; step.batch * self.structure.variables()];
        for noise in step.draws() {
            solvers.sample(estimator, &self.structure, step.potentials, noise, &mut assignment)?;
            let draw = self.draw(step, &assignment, &mut total);
            let losses = self.neighbour_losses(&draw.codes, &draw.losses, step.images, step.pixels);
            let inputs = step.inputs(noise, &assignment, &losses);
            let mut estimate = Estimate::new(gradient, step.scale());
            solvers.estimate(estimator, &self.structure, &inputs, &mut estimate)?;
            total.count(estimate.unmoved);
        }
        Ok(total.end(None))
    }

    /// Direct optimisation with the losses of all states, compared with the separable approximation.
    fn joint(
        &self,
        step: &Step<'_>,
        estimator: &DirectJoint,
        separable: Option<&Direct>,
        gradient: &mut [f32],
    ) -> Result<(Tensor<1>, StepReport)> {
        let all = self.state_table(enumerable(&self.structure)?).losses(step.x.clone());
        let mut total = Total::default();
        let mut solvers = Solvers::default();
        let (n, mut missed) = (self.structure.variables(), Missed::default());
        let mut assignment = vec![0; step.batch * n];
        let (mut better, mut plain) = (assignment.clone(), assignment.clone());
        let mut unused = vec![0.0; gradient.len()];
        for noise in step.draws() {
            match separable {
                Some(direct) => solvers.sample(direct, &self.structure, step.potentials, noise, &mut assignment)?,
                None => {
                    Solvers::default().sample(estimator, &self.structure, step.potentials, noise, &mut assignment)?
                }
            }
            let draw = self.draw(step, &assignment, &mut total);
            let inputs = step.inputs(noise, &assignment, &all);
            let mut estimate = Estimate { moved: Some(&mut better), ..Estimate::new(gradient, step.scale()) };
            estimator.estimate(&self.structure, &inputs, &mut estimate)?;
            total.count(estimate.unmoved);
            if let Some(direct) = separable {
                let losses = self.neighbour_losses(&draw.codes, &draw.losses, step.images, step.pixels);
                let inputs = step.inputs(noise, &assignment, &losses);
                let mut estimate = Estimate { moved: Some(&mut plain), ..Estimate::new(&mut unused, 0.0) };
                solvers.estimate(direct, &self.structure, &inputs, &mut estimate)?;
                let values = [&better, &plain].map(|z| self.perturbed(step, noise, z, direct.epsilon()));
                values[0].iter().zip(&values[1]).for_each(|(b, p)| missed.add(b - p));
            }
        }
        Ok(total.end(separable.map(|_| missed)))
    }

    /// Direct optimisation with a local search from the separable second arg max.
    fn search(&self, step: &Step<'_>, direct: &Direct, gradient: &mut [f32]) -> Result<(Tensor<1>, StepReport)> {
        let mut total = Total::default();
        let mut solvers = Solvers::default();
        let (n, mut missed) = (self.structure.variables(), Missed::default());
        let mut assignment = vec![0; step.batch * n];
        let mut moved = assignment.clone();
        for noise in step.draws() {
            solvers.sample(direct, &self.structure, step.potentials, noise, &mut assignment)?;
            let draw = self.draw(step, &assignment, &mut total);
            let losses = self.neighbour_losses(&draw.codes, &draw.losses, step.images, step.pixels);
            let inputs = step.inputs(noise, &assignment, &losses);
            let mut estimate = Estimate { moved: Some(&mut moved), ..Estimate::new(gradient, step.scale()) };
            solvers.estimate(direct, &self.structure, &inputs, &mut estimate)?;

            let found = moved.clone();
            let first = (&assignment[..], &draw, &losses[..]);
            let gains = self.improve(step, noise, direct.epsilon(), first, &mut moved);
            let scale = step.scale() / direct.epsilon();
            let p = self.structure.potentials();
            let mut unmoved = 0;
            for (b, gain) in gains.iter().enumerate() {
                let (old, new, row) = (&found[b * n..][..n], &moved[b * n..][..n], &mut gradient[b * p..][..p]);
                unmoved += (new == &assignment[b * n..][..n]) as usize;
                if *gain > 0.0 {
                    self.structure.add_statistics(old, scale, row);
                    self.structure.add_statistics(new, -scale, row);
                }
                missed.add(*gain);
            }
            total.count(Some(unmoved));
        }
        Ok(total.end(Some(missed)))
    }

    /// Improves the second arg maxima `moved` of a batch by [`Search`], given the `first` ones with their losses and
    /// those of their neighbours; returns the gains in nats, `[batch]`.
    fn improve(
        &self,
        step: &Step<'_>,
        noise: &[f32],
        epsilon: f32,
        first: (&[u32], &Draw, &[f32]),
        moved: &mut [u32],
    ) -> Vec<f64> {
        let structure = &self.structure;
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let perturbed: Vec<f32> = step.perturbed(noise, p, u);
        let search = |b: usize| Search { structure, perturbed: &perturbed[b * p..][..p], epsilon };
        let around = |z: &[u32], of: &[usize]| {
            let images: Vec<f32> =
                of.iter().flat_map(|b| &step.images[b * step.pixels..][..step.pixels]).copied().collect();
            let z: Vec<u32> = of.iter().flat_map(|b| &z[b * n..][..n]).copied().collect();
            let codes = self.encode(&z);
            let own = self.losses(&codes, &images, step.pixels);
            let losses = self.neighbour_losses(&codes, &own, &images, step.pixels);
            (own, losses)
        };
        let mut gains = vec![0.0; step.batch];
        let mut active: Vec<usize> = (0..step.batch).collect();
        let (mut own, mut losses) = around(moved, &active);
        let (stars, draw, near) = first;
        for b in 0..step.batch {
            let start = (&mut moved[b * n..][..n], own[b]);
            if let Some(gain) = search(b).better_start(start, (&stars[b * n..][..n], draw.losses[b])) {
                (gains[b], own[b]) = (gain, draw.losses[b]);
                losses[b * u..][..u].copy_from_slice(&near[b * u..][..u]);
            }
        }
        while !active.is_empty() {
            let mut still = vec![];
            for ((b, own), losses) in active.into_iter().zip(&own).zip(losses.chunks_exact(u)) {
                if let Some(gain) = search(b).improve(*own, losses, &mut moved[b * n..][..n]) {
                    gains[b] += gain;
                    still.push(b);
                }
            }
            active = still;
            if !active.is_empty() {
                (own, losses) = around(moved, &active);
            }
        }
        gains
    }

    /// `h + gamma - eps loss` of a batch of assignments, with their true losses.
    fn perturbed(&self, step: &Step<'_>, noise: &[f32], assignment: &[u32], epsilon: f32) -> Vec<f64> {
        let (p, n) = (self.structure.potentials(), self.structure.variables());
        let perturbed = step.perturbed(noise, p, self.structure.unary());
        let losses = self.losses(&self.encode(assignment), step.images, step.pixels);
        let rows = perturbed.chunks_exact(p).zip(assignment.chunks_exact(n)).zip(losses);
        rows.map(|((h, z), loss)| self.structure.score(h, z) - epsilon as f64 * loss as f64).collect()
    }

    /// Decodes a sample with gradient and adds its term to the total.
    fn draw(&self, step: &Step<'_>, assignment: &[u32], total: &mut Total) -> Draw {
        let codes = self.encode(assignment);
        let width = self.structure.unary();
        let tensor: Tensor<2> = host::tensor(codes.clone(), [step.batch, width], &self.device);
        let (losses, term) = self.likelihood(step, self.decoder().logits(tensor.autodiff()), step.scale());
        total.add(&losses, step.scale(), term);
        Draw { codes, losses }
    }

    /// Losses `[rows]` of images `[rows, pixels]` at codes `[rows, U]`; nothing is recorded.
    fn losses(&self, codes: &[f32], images: &[f32], pixels: usize) -> Vec<f32> {
        let width = self.structure.unary();
        let mut losses = vec![0.0; codes.len() / width];
        let tensor: Tensor<2> = host::tensor(codes.to_vec(), [losses.len(), width], &self.device);
        let logits = host::read(self.decoder().valid().logits(tensor));
        likelihood::losses(&logits, images, pixels, 1, &mut losses);
        losses
    }

    /// Losses `[batch, U]` of the separable approximation around codes `[batch, U]`, given their own losses `[batch]`.
    pub fn neighbour_losses(&self, codes: &[f32], own: &[f32], images: &[f32], pixels: usize) -> Vec<f32> {
        let (kind, width) = (self.structure.code(), self.structure.unary());
        let per_example = kind.changes(width);
        let logits = host::read(self.decoder().valid().neighbour_logits(codes, width, kind, &self.device));
        let mut changed = vec![0.0; own.len() * per_example];
        likelihood::losses(&logits, images, pixels, per_example, &mut changed);
        let mut out = vec![0.0; codes.len()];
        let rows = codes.chunks_exact(width).zip(own).zip(changed.chunks_exact(per_example));
        for (((code, own), changed), losses) in rows.zip(out.chunks_exact_mut(width)) {
            kind.neighbour_losses(code, *own, changed, losses);
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
        let (n, width) = (self.structure.variables(), self.structure.unary());
        if self.structure.block(0).is_none() {
            return Err(gumbel::Error::Coupled { estimator: "a relaxed estimator" }.into());
        }
        let k = width / n;
        let mut total = Total::default();
        for noise in step.draws() {
            let g: Tensor<2> = host::tensor(noise.to_vec(), [step.batch, width], &self.device);
            let scores = (h.clone() + g.autodiff()).div_scalar(temperature).reshape([step.batch * n, k]);
            let mut code = activation::softmax(scores, 1).reshape([step.batch, width]);
            if straight_through {
                let mut assignment = vec![0; step.batch * n];
                perturbed_argmax(&self.structure, step.potentials, noise, &mut assignment)?;
                let correction = self.codes(&assignment) - code.clone().inner();
                code = code + correction.autodiff();
            }
            let (losses, term) = self.likelihood(step, self.decoder().logits(code), step.scale());
            total.add(&losses, step.scale(), term);
        }
        Ok(total.end(None))
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

    /// Codes `[batch, U]` of assignments `[batch, n]`.
    pub fn encode(&self, assignment: &[u32]) -> Vec<f32> {
        let (n, width) = (self.structure.variables(), self.structure.unary());
        let mut codes = vec![0.0; assignment.len() / n * width];
        let rows = assignment.chunks_exact(n).zip(codes.chunks_exact_mut(width));
        rows.for_each(|(z, code)| self.structure.encode(z, code));
        codes
    }

    /// The same as a tensor.
    pub fn codes(&self, assignment: &[u32]) -> Tensor<2> {
        let shape = [assignment.len() / self.structure.variables(), self.structure.unary()];
        host::tensor(self.encode(assignment), shape, &self.device)
    }

    /// Means of the pixels `[rows, pixels]` for assignments `[rows, n]`; nothing is recorded.
    pub fn means(&self, assignment: &[u32]) -> Vec<f32> {
        let logits = host::read(self.decoder().valid().logits(self.codes(assignment)));
        logits.iter().map(|t| likelihood::sigmoid(*t)).collect()
    }
}

/// The local search for z(eps) of one example under the true loss, from the better of the separable z(eps) and z*: one
/// coordinate after the other takes the value that improves `h + gamma - eps loss` most. For variables with values.
pub(crate) struct Search<'a, S> {
    pub structure: &'a S,
    /// `h + gamma`.
    pub perturbed: &'a [f32],
    pub epsilon: f32,
}

impl<S: Structure> Search<'_, S> {
    fn value(&self, z: &[u32], loss: f32) -> f64 {
        self.structure.score(self.perturbed, z) - (self.epsilon * loss) as f64
    }

    /// Moves z(eps), with its loss, to z* if that is better; the gain in nats.
    pub fn better_start(&self, (z, loss): (&mut [u32], f32), (star, own): (&[u32], f32)) -> Option<f64> {
        let gain = self.value(star, own) - self.value(z, loss);
        (gain > ROUNDING).then(|| {
            z.copy_from_slice(star);
            gain
        })
    }

    /// Takes the best step from z, given its loss `own` and those of its neighbours; the gain in nats, `None` if no step
    /// is better.
    pub fn improve(&self, own: f32, losses: &[f32], z: &mut [u32]) -> Option<f64> {
        let Code::OneHot { values } = self.structure.code() else { return None };
        let now = self.value(z, own);
        let mut best = (now + ROUNDING, None);
        for i in 0..z.len() {
            let present = z[i];
            for k in (0..values as u32).filter(|k| *k != present) {
                z[i] = k;
                let value = self.value(z, losses[i * values + k as usize]);
                if value > best.0 {
                    best = (value, Some((i, k)));
                }
            }
            z[i] = present;
        }
        let (value, Some((i, k))) = best else { return None };
        z[i] = k;
        Some(value - now)
    }
}

/// One batch on the host and on the device.
struct Step<'a> {
    x: Tensor<2>,
    images: &'a [f32],
    pixels: usize,
    batch: usize,
    potentials: &'a [f32],
    /// `[samples, batch, noise_width]`.
    noise: &'a [f32],
    noise_width: usize,
    samples: usize,
}

impl<'a> Step<'a> {
    /// Weight of one example at one sample.
    fn scale(&self) -> f32 {
        1.0 / (self.batch * self.samples) as f32
    }

    /// The noise of each sample.
    fn draws(&self) -> impl Iterator<Item = &'a [f32]> {
        self.noise.chunks_exact(self.batch * self.noise_width)
    }

    fn inputs<'b>(&'b self, noise: &'b [f32], assignment: &'b [u32], losses: &'b [f32]) -> Inputs<'b> {
        Inputs { potentials: self.potentials, noise, assignment, losses }
    }

    /// Potentials with noise on the unary ones, `[batch, P]`.
    fn perturbed(&self, noise: &[f32], p: usize, u: usize) -> Vec<f32> {
        let mut out = self.potentials.to_vec();
        for (h, noise) in out.chunks_exact_mut(p).zip(noise.chunks_exact(u)) {
            h.iter_mut().zip(noise).for_each(|(h, g)| *h += g);
        }
        out
    }
}

/// A decoded sample.
struct Draw {
    /// `[batch, U]`.
    codes: Vec<f32>,
    /// `[batch]`.
    losses: Vec<f32>,
}

/// What the samples of a step add up to.
#[derive(Default)]
struct Total {
    surrogate: Option<Tensor<1>>,
    reconstruction: f64,
    unmoved: Option<usize>,
}

impl Total {
    fn add(&mut self, losses: &[f32], scale: f32, term: Tensor<1>) {
        self.reconstruction += losses.iter().map(|l| *l as f64).sum::<f64>() * scale as f64;
        self.surrogate = Some(self.surrogate.take().map_or(term.clone(), |s| s + term));
    }

    fn count(&mut self, unmoved: Option<usize>) {
        add_count(&mut self.unmoved, unmoved);
    }

    fn end(self, missed: Option<Missed>) -> (Tensor<1>, StepReport) {
        let surrogate = self.surrogate.expect("there is at least one sample");
        (surrogate, StepReport { unmoved: self.unmoved, missed, reconstruction: self.reconstruction })
    }
}

/// `losses[b, s] = sums[s] - <x_b, table_s>`, `[batch, states]`, for images x and a table on a plain device.
fn table_losses(x: &Tensor<2>, table: Tensor<2>, sums: &[f32]) -> Vec<f32> {
    let mut losses = host::take(x.clone().matmul(table.transpose()));
    losses.chunks_exact_mut(sums.len()).for_each(|row| row.iter_mut().zip(sums).for_each(|(p, s)| *p = s - *p));
    losses
}

fn add_count(total: &mut Option<usize>, count: Option<usize>) {
    if let Some(count) = count {
        *total.get_or_insert(0) += count;
    }
}
