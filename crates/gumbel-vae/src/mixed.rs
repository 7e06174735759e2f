//! The oracle of models with Gaussian codes: every image has its own, so that the decoder's inputs at a code differ
//! from image to image.
//!
//! The loss of an image at a code is that of the decoder, whose [`Inputs`] are made of the code and the samples, and
//! the codes' own term `sum_k y_k KL_k` over the states' weights y. A latent of few states that have codes of their own
//! is decoded in full at the first question, and every question about hard codes is looked up.

use crate::host;
use crate::model::Decoder;
use crate::oracle::{check_outputs, encode, read_slopes, rows_at_once, surrogate};
use burn::tensor::{Device, Tensor};
use gumbel::Error;
use gumbel::continuous::{Continuous, Gaussians, Inputs};
use gumbel::engine::check_loss;
use gumbel::estimator::enumerable;
use gumbel::likelihood::Likelihood;
use gumbel::oracle::{Followed, Oracle, check_len};
use gumbel::structure::{AnyStructure, Structure};

/// Up to so many states are decoded all at once, whatever is asked.
const FEW: usize = 64;

/// What does not change between questions.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) structure: &'a AnyStructure,
    pub(crate) inputs: &'a Inputs,
    pub(crate) likelihood: &'a dyn Likelihood,
    pub(crate) device: &'a Device,
    /// The codes of the images.
    pub(crate) codes: &'a Gaussians,
    /// Their part of the losses that are asked for, `[batch, blocks]`.
    pub(crate) terms: &'a [f32],
    /// The weight of the codes' KL in what is followed.
    pub(crate) kl_weight: f32,
}

/// Answers for a batch, and keeps what is followed.
pub(crate) struct Mixed<'a, D> {
    decoder: &'a D,
    plain: D,
    frozen: Option<D>,
    parts: Parts<'a>,
    /// `[batch, pixels]`.
    images: Vec<f32>,
    count: usize,
    wants_slopes: bool,
    /// Losses at all states `[batch, |Z|]`, once they are known, without the codes' terms.
    states: Option<Vec<f32>>,
    followed: Vec<Kept>,
}

/// Codes of some images that the decoder follows.
struct Kept {
    /// The row, where the estimator may want the slopes at it.
    row: Option<usize>,
    /// Images `[rows]`.
    of: Vec<u32>,
    /// `[rows, U]`.
    codes: Vec<f32>,
    /// `[rows]`.
    weights: Vec<f32>,
}

/// What became of what the decoder followed.
pub(crate) struct Finished {
    /// Gradients of the decoder's parameters; `None` if it followed nothing.
    pub(crate) gradients: Option<burn::tensor::Gradients>,
    /// The weighted sum of the losses with the codes' KL, in nats.
    pub(crate) reconstruction: f64,
    /// Slopes at what was followed `[rows, batch, U]`, if they are wanted.
    pub(crate) slopes: Vec<f32>,
    /// Derivative at the parameters of the codes `[batch, blocks, 2, D]`.
    pub(crate) at_parameters: Vec<f32>,
}

impl<'a, D: Decoder> Mixed<'a, D> {
    /// For images `[batch, pixels]`, and an estimator that wants the slopes at what it follows or does not.
    pub(crate) fn new(decoder: &'a D, parts: Parts<'a>, images: Vec<f32>, count: usize, wants_slopes: bool) -> Self {
        let (plain, frozen) = (decoder.valid(), None);
        Mixed { decoder, plain, frozen, parts, images, count, wants_slopes, states: None, followed: vec![] }
    }

    fn pixels(&self) -> usize {
        self.images.len() / self.count
    }

    /// Numbers that the decoder emits for an image.
    fn width(&self) -> usize {
        self.pixels() * self.parts.likelihood.outputs()
    }

    fn image(&self, b: u32) -> &[f32] {
        &self.images[b as usize * self.pixels()..][..self.pixels()]
    }

    fn images_of(&self, of: &[u32]) -> Vec<f32> {
        of.iter().flat_map(|b| self.image(*b)).copied().collect()
    }

    fn check(&self, of: &[u32], what: &'static str, found: usize, width: usize) -> Result<(), Error> {
        if let Some(b) = of.iter().find(|b| **b as usize >= self.count) {
            let detail = format!("image {b} of a batch of {} was asked about", self.count);
            return Err(Error::Failed { detail });
        }
        check_len(what, found, of.len() * width)
    }

    /// Weights of the states `[rows, blocks]`, and what the decoder reads `[rows, width]`.
    fn read(&self, of: &[u32], codes: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let Parts { inputs, structure, codes: gaussians, .. } = self.parts;
        let (u, blocks, width) = (structure.unary(), inputs.blocks(), inputs.width());
        let (mut weights, mut read) = (vec![0.0; of.len() * blocks], vec![0.0; of.len() * width]);
        let rows = of.iter().zip(codes.chunks_exact(u));
        for ((b, code), (weights, input)) in
            rows.zip(weights.chunks_exact_mut(blocks).zip(read.chunks_exact_mut(width)))
        {
            inputs.weights(code, weights);
            inputs.input(code, weights, gaussians.samples_of(*b as usize), input);
        }
        (weights, read)
    }

    /// The codes' part of the losses, of weights `[rows, blocks]`.
    fn add_terms(&self, of: &[u32], weights: &[f32], losses: &mut [f32]) {
        let blocks = self.parts.inputs.blocks();
        for ((b, weights), loss) in of.iter().zip(weights.chunks_exact(blocks)).zip(losses) {
            let terms = &self.parts.terms[*b as usize * blocks..][..blocks];
            *loss += weights.iter().zip(terms).map(|(w, t)| w * t).sum::<f32>();
        }
    }

    /// Losses `[rows]` at codes `[rows, U]`, decoded.
    fn at_codes(&self, of: &[u32], codes: &[f32], losses: &mut [f32]) -> Result<(), Error> {
        let (u, rows) = (self.parts.structure.unary(), rows_at_once(self.width()));
        for ((of, codes), losses) in of.chunks(rows).zip(codes.chunks(rows * u)).zip(losses.chunks_mut(rows)) {
            let (weights, read) = self.read(of, codes);
            let read = host::tensor(read, [of.len(), self.parts.inputs.width()], self.parts.device);
            let outputs = self.plain.outputs(read);
            check_outputs(&outputs, of.len(), self.width())?;
            self.parts.likelihood.losses(&host::read(outputs), &self.images_of(of), 1, losses);
            self.add_terms(of, &weights, losses);
        }
        Ok(())
    }

    /// Whether all states are decoded as soon as anything is asked.
    fn is_small(&self) -> bool {
        matches!(self.parts.inputs.kind(), Continuous::Rows(_)) && self.parts.inputs.blocks() <= FEW
    }

    /// Losses of all images at all states `[batch, K]`, with the codes' terms.
    fn all_states(&mut self) -> Result<&[f32], Error> {
        if self.states.is_none() {
            let Parts { inputs, codes, .. } = self.parts;
            let (k, width) = (inputs.blocks(), self.width());
            let mut losses = vec![0.0; self.count * k];
            let images = (rows_at_once(width) / k).max(1);
            let pixels = self.pixels();
            let pieces = losses.chunks_mut(images * k).zip(codes.samples.chunks(images * inputs.samples()));
            for ((losses, samples), x) in pieces.zip(self.images.chunks(images * pixels)) {
                let rows = losses.len() / k;
                let samples = host::tensor(samples.to_vec(), [rows, inputs.samples()], self.parts.device);
                let outputs = self.plain.block_outputs(samples, k);
                check_outputs(&outputs, rows * k, width)?;
                self.parts.likelihood.losses(&host::read(outputs), x, k, losses);
            }
            losses.iter_mut().zip(self.parts.terms).for_each(|(loss, term)| *loss += term);
            self.states = Some(losses);
        }
        Ok(self.states.as_deref().unwrap_or_default())
    }

    /// The state of a hard code.
    fn state(&self, code: &[f32]) -> usize {
        let mut weights = vec![0.0; self.parts.inputs.blocks()];
        self.parts.inputs.weights(code, &mut weights);
        weights.iter().position(|w| *w == 1.0).unwrap_or(0)
    }

    /// Losses `[rows]` at hard codes `[rows, U]`.
    fn at_hard(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32]) -> Result<(), Error> {
        if !self.is_small() {
            return self.at_codes(of, codes, losses);
        }
        let states: Vec<usize> = codes.chunks_exact(self.parts.structure.unary()).map(|c| self.state(c)).collect();
        let k = self.parts.inputs.blocks();
        let all = self.all_states()?;
        let rows = of.iter().zip(states).zip(losses);
        rows.for_each(|((b, state), loss)| *loss = all[*b as usize * k + state]);
        Ok(())
    }

    /// Decodes what was followed, and goes back through it.
    pub(crate) fn finish(mut self) -> Result<Finished, Error> {
        let Parts { structure, inputs, codes: gaussians, likelihood, device, terms, kl_weight } = self.parts;
        let (u, blocks, samples, read) = (structure.unary(), inputs.blocks(), inputs.samples(), inputs.width());
        let kl = gaussians.kl();
        let followed = std::mem::take(&mut self.followed);
        let rows = followed.iter().filter_map(|kept| kept.row).max().map_or(0, |row| row + 1);
        let mut slopes = vec![0.0; if self.wants_slopes { rows * self.count * u } else { 0 }];
        let (mut at_samples, mut at_kl) = (vec![0.0; self.count * samples], vec![0.0; self.count * blocks]);
        let (mut total, mut reconstruction, mut leaves) = (None::<Tensor<1>>, 0.0, vec![]);
        for kept in followed {
            let (weights, input) = self.read(&kept.of, &kept.codes);
            let leaf: Tensor<2> = host::tensor(input, [kept.of.len(), read], device);
            let leaf = leaf.autodiff().require_grad();
            let outputs = self.decoder.outputs(leaf.clone());
            check_outputs(&outputs, kept.of.len(), self.width())?;
            let values = host::read(outputs.clone());
            let (mut losses, mut at_outputs) = (vec![0.0; kept.of.len()], vec![0.0; values.len()]);
            let x = self.images_of(&kept.of);
            likelihood.losses_and_slopes(&values, &x, &kept.weights, &mut losses, &mut at_outputs);
            for (r, (b, weight)) in kept.of.iter().zip(&kept.weights).enumerate() {
                let places = *b as usize * blocks..(*b as usize + 1) * blocks;
                let of_states = &weights[r * blocks..][..blocks];
                let own: f32 = of_states.iter().zip(&kl[places.clone()]).map(|(y, kl)| y * kl).sum();
                reconstruction += *weight as f64 * (losses[r] + own) as f64;
                at_kl[places].iter_mut().zip(of_states).for_each(|(sum, y)| *sum += weight * y);
            }
            let term = surrogate(outputs, at_outputs, device);
            total = Some(total.map_or(term.clone(), |sum| sum + term));
            leaves.push((leaf, kept, weights));
        }
        check_loss(reconstruction)?;
        let gradients = total.map(|total| total.backward());
        if let Some(gradients) = &gradients {
            for (leaf, kept, weights) in leaves {
                let mut at_inputs = vec![0.0; kept.of.len() * read];
                read_slopes(&leaf, gradients, &mut at_inputs);
                for (r, (b, at_input)) in kept.of.iter().zip(at_inputs.chunks_exact(read)).enumerate() {
                    let b = *b as usize;
                    let of_states = &weights[r * blocks..][..blocks];
                    inputs.add_sample_slopes(of_states, at_input, &mut at_samples[b * samples..][..samples]);
                    if let Some(row) = kept.row.filter(|_| self.wants_slopes) {
                        // The weight is in the derivative at the input; the terms get it here.
                        let own: Vec<f32> = terms[b * blocks..][..blocks].iter().map(|t| kept.weights[r] * t).collect();
                        let (code, place) = (&kept.codes[r * u..][..u], (row * self.count + b) * u);
                        inputs.code_slopes(code, gaussians.samples_of(b), &own, at_input, &mut slopes[place..][..u]);
                    }
                }
            }
        }
        at_kl.iter_mut().for_each(|weight| *weight *= kl_weight);
        let at_parameters = gaussians.slopes(&at_samples, &at_kl);
        Ok(Finished { gradients, reconstruction, slopes, at_parameters })
    }
}

impl<D: Decoder> Oracle for Mixed<'_, D> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.check(of, "assignments", assignments.len(), self.parts.structure.variables())?;
        check_len("losses", losses.len(), of.len())?;
        self.at_hard(of, &encode(self.parts.structure, assignments), losses)
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let structure = self.parts.structure;
        let (kind, u) = (structure.code(), structure.unary());
        self.check(of, "assignments", assignments.len(), structure.variables())?;
        check_len("own losses", own.len(), of.len())?;
        check_len("losses", losses.len(), of.len() * u)?;
        let codes = encode(structure, assignments);
        self.at_hard(of, &codes, own)?;
        let changes = kind.changes(u);
        let rows = (rows_at_once(self.width()) / changes.max(1)).max(1);
        let questions = of.chunks(rows).zip(codes.chunks(rows * u)).zip(own.chunks(rows));
        for (((of, codes), own), losses) in questions.zip(losses.chunks_mut(rows * u)) {
            let mut changed = vec![0.0; of.len() * changes];
            if changes > 0 && matches!(self.parts.inputs.kind(), Continuous::Joint(_)) {
                // The code stands in the input as it is.
                let (weights, read) = self.read(of, codes);
                let width = self.parts.inputs.width();
                let outputs = self.plain.neighbour_outputs(&read, width, u, kind, self.parts.device);
                check_outputs(&outputs, changed.len(), self.width())?;
                let x = self.images_of(of);
                self.parts.likelihood.losses(&host::read(outputs), &x, changes, &mut changed);
                let mut terms = vec![0.0; of.len()];
                self.add_terms(of, &weights, &mut terms);
                changed.chunks_exact_mut(changes).zip(terms).for_each(|(row, t)| row.iter_mut().for_each(|l| *l += t));
            } else if changes > 0 {
                let mut hard = Vec::with_capacity(of.len() * changes * u);
                for code in codes.chunks_exact(u) {
                    kind.for_each_change(code, |change| {
                        let start = hard.len();
                        hard.extend_from_slice(code);
                        change.off.into_iter().for_each(|u| hard[start + u] = 0.0);
                        change.on.into_iter().for_each(|u| hard[start + u] = 1.0);
                    });
                }
                let of: Vec<u32> = of.iter().flat_map(|b| std::iter::repeat_n(*b, changes)).collect();
                self.at_hard(&of, &hard, &mut changed)?;
            }
            let rows = codes.chunks_exact(u).zip(own).zip(losses.chunks_exact_mut(u)).enumerate();
            for (b, ((code, own), losses)) in rows {
                kind.neighbour_losses(code, *own, &changed[b * changes..][..changes], losses);
            }
        }
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let structure = self.parts.structure;
        let states = enumerable(structure)?;
        self.check(of, "losses", losses.len(), states)?;
        if matches!(self.parts.inputs.kind(), Continuous::Rows(_)) {
            let all = self.all_states()?;
            let rows = losses.chunks_exact_mut(states).zip(of);
            rows.for_each(|(row, b)| row.copy_from_slice(&all[*b as usize * states..][..states]));
            return Ok(());
        }
        let codes = crate::table::codes(structure, 0..states);
        for (b, row) in of.iter().zip(losses.chunks_exact_mut(states)) {
            self.at_codes(&vec![*b; states], &codes, row)?;
        }
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let Parts { structure, inputs, codes: gaussians, likelihood, device, terms, .. } = self.parts;
        let (u, blocks, read, d) = (structure.unary(), inputs.blocks(), inputs.width(), self.width());
        self.check(of, "codes", codes.len(), u)?;
        check_len("losses", losses.len(), of.len())?;
        check_len("slopes", slopes.len(), of.len() * u)?;
        // Nothing but the input has a gradient.
        let frozen = self.frozen.get_or_insert_with(|| self.decoder.clone().freeze()).clone();
        let rows = rows_at_once(d);
        let questions = of.chunks(rows).zip(codes.chunks(rows * u));
        let answers = losses.chunks_mut(rows).zip(slopes.chunks_mut(rows * u));
        for ((of, codes), (losses, slopes)) in questions.zip(answers) {
            let (weights, input) = self.read(of, codes);
            let leaf: Tensor<2> = host::tensor(input, [of.len(), read], device);
            let leaf = leaf.autodiff().require_grad();
            let outputs = frozen.outputs(leaf.clone());
            check_outputs(&outputs, of.len(), d)?;
            let mut at_outputs = vec![0.0; of.len() * d];
            let values = host::read(outputs.clone());
            likelihood.losses_and_slopes(&values, &self.images_of(of), &vec![1.0; of.len()], losses, &mut at_outputs);
            self.add_terms(of, &weights, losses);
            let gradients = surrogate(outputs, at_outputs, device).backward();
            let mut at_inputs = vec![0.0; of.len() * read];
            read_slopes(&leaf, &gradients, &mut at_inputs);
            let rows = of.iter().zip(codes.chunks_exact(u)).zip(at_inputs.chunks_exact(read));
            for (((b, code), at_input), slopes) in rows.zip(slopes.chunks_exact_mut(u)) {
                let b = *b as usize;
                inputs.code_slopes(code, gaussians.samples_of(b), &terms[b * blocks..][..blocks], at_input, slopes);
            }
        }
        Ok(())
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        let structure = self.parts.structure;
        let all = || (0..self.count as u32).collect::<Vec<_>>();
        let kept = match followed {
            Followed::Assignments { row, assignments, weights } => {
                check_len("assignments", assignments.len(), self.count * structure.variables())?;
                let codes = encode(structure, assignments);
                Kept { row: Some(row), of: all(), codes, weights: weights.to_vec() }
            }
            Followed::Codes { row, codes, weights } => {
                check_len("codes", codes.len(), self.count * structure.unary())?;
                Kept { row: Some(row), of: all(), codes: codes.to_vec(), weights: weights.to_vec() }
            }
            Followed::States(weights) => {
                let states = enumerable(structure)?;
                check_len("weights", weights.len(), self.count * states)?;
                let table = crate::table::codes(structure, 0..states);
                let mut kept = Kept { row: None, of: vec![], codes: vec![], weights: vec![] };
                for (place, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                    let (b, state) = (place / states, place % states);
                    kept.of.push(b as u32);
                    kept.codes.extend_from_slice(&table[state * structure.unary()..][..structure.unary()]);
                    kept.weights.push(*weight);
                }
                kept
            }
        };
        check_len("weights", kept.weights.len(), kept.of.len())?;
        // A row that is followed anew takes the old one's place.
        self.followed.retain(|old| old.row.is_none() || old.row != kept.row);
        if !kept.of.is_empty() {
            self.followed.push(kept);
        }
        Ok(())
    }
}
