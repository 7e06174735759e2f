//! The decoder with its likelihood as an oracle for a batch of images.
//!
//! [`Batch`] answers questions and records nothing. A step wraps it in one of two recorders, which keep what the
//! decoder follows, with the graph that its gradient needs:
//!
//! - [`Rows`]: assignments or relaxed codes of every image, decoded row by row;
//! - [`Table`]: the decoder's outputs at all states, which are the same for every image.
//!
//! Where there are Gaussian codes, [`mixed`](crate::mixed) answers.

use crate::host::{self, Host};
use crate::model::Decoder;
use crate::table::{self, StateTable};
use burn::tensor::{Device, Gradients, Tensor};
use gumbel::Error;
use gumbel::engine::check_loss;
use gumbel::estimator::{at_most, enumerable};
use gumbel::likelihood::Likelihood;
use gumbel::oracle::{Followed, Oracle, check_len, check_rows};
use gumbel::structure::{AnyStructure, Structure};
use std::borrow::Cow;

/// Numbers decoded at a time where nothing is recorded: a bound of the memory of a question.
const NUMBERS: usize = 1 << 23;

/// Rows decoded at a time.
pub(crate) fn rows_at_once(outputs: usize) -> usize {
    (NUMBERS / outputs.max(1)).clamp(16, 8192)
}

/// Refuses outputs that are not `[rows, width]`.
pub(crate) fn check_outputs(outputs: &Tensor<2>, rows: usize, width: usize) -> Result<(), Error> {
    let [found_rows, found_width] = outputs.dims();
    check_len("a column of the decoder's outputs", found_rows, rows)?;
    check_len("a row of the decoder's outputs", found_width, width)
}

/// Codes `[rows, U]` of assignments `[rows, n]`.
pub(crate) fn encode(structure: &AnyStructure, assignments: &[u32]) -> Vec<f32> {
    let (n, u) = (structure.variables(), structure.unary());
    let mut codes = vec![0.0; assignments.len() / n * u];
    let rows = assignments.chunks_exact(n).zip(codes.chunks_exact_mut(u));
    rows.for_each(|(z, code)| structure.encode(z, code));
    codes
}

/// Images, and a decoder with its present parameters.
pub(crate) struct Batch<'a, D> {
    /// On the autodiff side, and without.
    decoder: &'a D,
    plain: D,
    frozen: Option<D>,
    structure: &'a AnyStructure,
    likelihood: &'a dyn Likelihood,
    device: &'a Device,
    /// `[batch, pixels]`, on the host and on the plain device.
    images: Vec<f32>,
    x: Tensor<2>,
    /// The decoder's outputs at all states, from question to question and from batch to batch.
    decoded: &'a mut Option<StateTable>,
    /// Losses of all images at all states `[batch, |Z|]`, once they have been asked for.
    at_states: Option<Vec<f32>>,
}

impl<'a, D: Decoder> Batch<'a, D> {
    /// `decoded` belongs to the decoder's present parameters, or is empty and is filled here.
    pub(crate) fn new(
        decoder: &'a D,
        structure: &'a AnyStructure,
        likelihood: &'a dyn Likelihood,
        device: &'a Device,
        (images, x): (Vec<f32>, Tensor<2>),
        decoded: &'a mut Option<StateTable>,
    ) -> Self {
        let (plain, frozen, at_states) = (decoder.valid(), None, None);
        Batch { decoder, plain, frozen, structure, likelihood, device, images, x, decoded, at_states }
    }

    fn count(&self) -> usize {
        self.x.dims()[0]
    }

    /// Numbers of an image.
    fn pixels(&self) -> usize {
        self.x.dims()[1]
    }

    /// Numbers that a decoder emits for it.
    fn width(&self) -> usize {
        self.pixels() * self.likelihood.outputs()
    }

    /// Whether these are all images in their order.
    fn is_all(&self, of: &[u32]) -> bool {
        of.len() == self.count() && of.iter().enumerate().all(|(i, b)| *b as usize == i)
    }

    fn check(&self, of: &[u32], what: &'static str, found: usize, width: usize) -> Result<(), Error> {
        check_rows(of, self.count(), what, found, width)
    }

    /// The images of some rows, one for each `run` of them; runs are looked for only if `shared`.
    fn images_of(&self, of: &[u32], shared: bool) -> (Cow<'_, [f32]>, usize) {
        let first = of.iter().take_while(|b| **b == of[0]).count();
        let whole = shared && of.chunks(first).all(|run| run.len() == first && run.iter().all(|b| *b == run[0]));
        let run = if whole { first } else { 1 };
        let rows = || of.iter().step_by(run).map(|b| *b as usize);
        if rows().count() == self.count() && rows().enumerate().all(|(i, b)| i == b) {
            return (Cow::Borrowed(&self.images), run);
        }
        let d = self.pixels();
        (Cow::Owned(rows().flat_map(|b| &self.images[b * d..][..d]).copied().collect()), run)
    }

    /// Losses `[rows]` at codes `[rows, U]`.
    fn at_codes(&self, of: &[u32], codes: &[f32], losses: &mut [f32]) -> Result<(), Error> {
        let (u, rows) = (self.structure.unary(), rows_at_once(self.width()));
        for ((of, codes), losses) in of.chunks(rows).zip(codes.chunks(rows * u)).zip(losses.chunks_mut(rows)) {
            let codes: Tensor<2> = host::tensor(codes.to_vec(), [of.len(), u], self.device);
            let outputs = self.plain.outputs(codes);
            check_outputs(&outputs, of.len(), self.width())?;
            let (images, run) = self.images_of(of, true);
            self.likelihood.losses(&host::read(outputs), &images, run, losses);
        }
        Ok(())
    }

    /// Losses `[rows, U]` of the one-coordinate changes of codes `[rows, U]`, given those at the codes.
    fn around_codes(&self, of: &[u32], codes: &[f32], own: &[f32], losses: &mut [f32]) -> Result<(), Error> {
        let (kind, u) = (self.structure.code(), self.structure.unary());
        let changes = kind.changes(u);
        let rows = (rows_at_once(self.width()) / changes.max(1)).max(1);
        let questions = of.chunks(rows).zip(codes.chunks(rows * u)).zip(own.chunks(rows));
        for (((of, codes), own), losses) in questions.zip(losses.chunks_mut(rows * u)) {
            let mut changed = vec![0.0; of.len() * changes];
            if changes > 0 {
                let outputs = self.plain.neighbour_outputs(codes, u, u, kind, self.device);
                check_outputs(&outputs, changed.len(), self.width())?;
                let (images, run) = self.images_of(of, true);
                self.likelihood.losses(&host::read(outputs), &images, run * changes, &mut changed);
            }
            let rows = codes.chunks_exact(u).zip(own).zip(losses.chunks_exact_mut(u)).enumerate();
            for (b, ((code, own), losses)) in rows {
                kind.neighbour_losses(code, *own, &changed[b * changes..][..changes], losses);
            }
        }
        Ok(())
    }
}

impl<D: Decoder> Oracle for Batch<'_, D> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.check(of, "assignments", assignments.len(), self.structure.variables())?;
        check_len("losses", losses.len(), of.len())?;
        self.at_codes(of, &encode(self.structure, assignments), losses)
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        self.check(of, "assignments", assignments.len(), self.structure.variables())?;
        check_len("own losses", own.len(), of.len())?;
        check_len("losses", losses.len(), of.len() * self.structure.unary())?;
        let codes = encode(self.structure, assignments);
        self.at_codes(of, &codes, own)?;
        self.around_codes(of, &codes, own, losses)
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = table::states(self.structure).map_or_else(|| at_most(self.structure, table::MAX_STATES), Ok)?;
        self.check(of, "losses", losses.len(), states)?;
        let (structure, likelihood, device) = (self.structure, self.likelihood, self.device);
        let plain = &self.plain;
        self.decoded.get_or_insert_with(|| StateTable::new(plain, structure, likelihood, states, device));
        let Some(decoded) = &*self.decoded else { return Ok(()) };
        if self.at_states.is_none() && !self.is_all(of) {
            if !of.is_empty() {
                let images = self.images_of(of, false).0.into_owned();
                let x = host::tensor(images.clone(), [of.len(), self.pixels()], device);
                losses.copy_from_slice(&decoded.losses(likelihood, &images, x));
            }
            return Ok(());
        }
        let (images, x) = (&self.images, &self.x);
        let all = self.at_states.get_or_insert_with(|| decoded.losses(likelihood, images, x.clone()));
        let rows = losses.chunks_exact_mut(states).zip(of);
        rows.for_each(|(row, b)| row.copy_from_slice(&all[*b as usize * states..][..states]));
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let (u, d, most) = (self.structure.unary(), self.width(), rows_at_once(self.width()));
        self.check(of, "codes", codes.len(), u)?;
        check_len("losses", losses.len(), of.len())?;
        check_len("slopes", slopes.len(), of.len() * u)?;
        // Nothing but the code has a gradient.
        let frozen = self.frozen.get_or_insert_with(|| self.decoder.clone().freeze()).clone();
        let questions = of.chunks(most).zip(codes.chunks(most * u));
        let answers = losses.chunks_mut(most).zip(slopes.chunks_mut(most * u));
        for ((of, codes), (losses, slopes)) in questions.zip(answers) {
            let rows = of.len();
            let codes: Tensor<2> = host::tensor(codes.to_vec(), [rows, u], self.device);
            let codes = codes.autodiff().require_grad();
            let outputs = frozen.outputs(codes.clone());
            check_outputs(&outputs, rows, d)?;
            let (images, _) = self.images_of(of, false);
            let mut at_outputs = vec![0.0; rows * d];
            let values = host::read(outputs.clone());
            self.likelihood.losses_and_slopes(&values, &images, &vec![1.0; rows], losses, &mut at_outputs);
            let gradients = surrogate(outputs, at_outputs, self.device).backward();
            read_slopes(&codes, &gradients, slopes);
        }
        Ok(())
    }

    fn follow(&mut self, _: Followed<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// A scalar whose derivative at the outputs is the one given.
pub(crate) fn surrogate(outputs: Tensor<2>, derivative: Vec<f32>, device: &Device) -> Tensor<1> {
    let derivative: Tensor<2> = host::tensor(derivative, outputs.dims(), device);
    (outputs * derivative.autodiff()).sum()
}

/// Writes the gradient at a code tensor; that of a decoder that does not read it is zero.
pub(crate) fn read_slopes(codes: &Tensor<2>, gradients: &Gradients, slopes: &mut [f32]) {
    match codes.grad(gradients) {
        Some(gradient) => slopes.copy_from_slice(&host::read(gradient)),
        None => slopes.fill(0.0),
    }
}

/// What became of what the decoder followed.
pub(crate) struct Finished {
    /// Gradients of the decoder's parameters, and nothing else; `None` if it followed nothing.
    pub(crate) gradients: Option<Gradients>,
    /// The weighted sum of the losses, in nats.
    pub(crate) reconstruction: f64,
    /// Slopes at what was followed `[rows, batch, U]`, if they are wanted.
    pub(crate) slopes: Vec<f32>,
}

/// Follows assignments or codes of every image.
pub(crate) struct Rows<'a, D> {
    batch: Batch<'a, D>,
    wants_slopes: bool,
    rows: Vec<Option<Row>>,
    /// The last pass over all images: what an estimator asks about it mostly follows.
    spare: Option<Pass>,
}

struct Row {
    /// `[batch, U]`.
    codes: Vec<f32>,
    /// `[batch]`.
    weights: Vec<f32>,
    pass: Option<Pass>,
}

/// The decoder at one code of every image, with its graph.
struct Pass {
    /// `[batch, U]`, on the host and on the autodiff device.
    codes: Vec<f32>,
    leaf: Tensor<2>,
    /// `[batch, pixels]`.
    outputs: Tensor<2>,
    /// `[batch]`.
    losses: Vec<f32>,
    /// Derivatives of the losses at the outputs.
    slopes: Vec<f32>,
}

impl<'a, D: Decoder> Rows<'a, D> {
    /// For an estimator that follows so many rows.
    pub(crate) fn new(batch: Batch<'a, D>, rows: usize, wants_slopes: bool) -> Self {
        Rows { batch, wants_slopes, rows: (0..rows).map(|_| None).collect(), spare: None }
    }

    /// The decoder's outputs at codes `[rows, U]`, with the codes as a tensor.
    fn decode(&self, codes: Vec<f32>) -> Result<(Tensor<2>, Tensor<2>), Error> {
        let u = self.batch.structure.unary();
        let rows = codes.len() / u;
        let leaf: Tensor<2> = host::tensor(codes, [rows, u], self.batch.device);
        let leaf = if self.wants_slopes { leaf.autodiff().require_grad() } else { leaf.autodiff() };
        let outputs = self.batch.decoder.outputs(leaf.clone());
        check_outputs(&outputs, rows, self.batch.width())?;
        Ok((leaf, outputs))
    }

    /// Losses `[batch]` at one code of every image `[batch, U]`, with a graph that is kept in case the code is
    /// followed.
    fn at_codes(&mut self, codes: &[f32]) -> Result<&[f32], Error> {
        let place = self.rows.iter().position(|row| row.as_ref().is_some_and(|row| row.codes == codes));
        let known = match place {
            Some(row) => self.rows[row].as_ref().is_some_and(|row| row.pass.is_some()),
            None => self.spare.as_ref().is_some_and(|pass| pass.codes == codes),
        };
        if !known {
            let (leaf, outputs) = self.decode(codes.to_vec())?;
            let batch = &self.batch;
            let (mut losses, mut slopes) = (vec![0.0; batch.count()], vec![0.0; batch.count() * batch.width()]);
            let values = host::read(outputs.clone());
            let ones = vec![1.0; batch.count()];
            batch.likelihood.losses_and_slopes(&values, &batch.images, &ones, &mut losses, &mut slopes);
            let pass = Pass { codes: codes.to_vec(), leaf, outputs, losses, slopes };
            match place.and_then(|row| self.rows[row].as_mut()) {
                Some(row) => row.pass = Some(pass),
                None => self.spare = Some(pass),
            }
        }
        let pass = match place {
            Some(row) => self.rows[row].as_ref().and_then(|row| row.pass.as_ref()),
            None => self.spare.as_ref(),
        };
        Ok(pass.map_or(&[], |pass| &pass.losses))
    }

    /// Keeps a row.
    fn keep(&mut self, row: usize, codes: Vec<f32>, weights: &[f32]) -> Result<(), Error> {
        let (count, rows) = (self.batch.count(), self.rows.len());
        check_len("codes", codes.len(), count * self.batch.structure.unary())?;
        check_len("weights", weights.len(), count)?;
        let Some(place) = self.rows.get_mut(row) else {
            return Err(Error::Failed { detail: format!("row {row} is followed: expected one of {rows}") });
        };
        let pass = self.spare.take_if(|pass| pass.codes == codes);
        *place = Some(Row { codes, weights: weights.to_vec(), pass });
        Ok(())
    }

    /// Decodes what is not decoded yet, and goes back through all of it.
    pub(crate) fn finish(mut self) -> Result<Finished, Error> {
        let (u, d, count) = (self.batch.structure.unary(), self.batch.width(), self.batch.count());
        let (mut total, mut reconstruction) = (None::<Tensor<1>>, 0.0);
        let mut add = |term: Tensor<1>| total = Some(total.take().map_or(term.clone(), |sum| sum + term));
        let mut weigh = |losses: &[f32], weights: &[f32]| {
            reconstruction += losses.iter().zip(weights).map(|(l, w)| *l as f64 * *w as f64).sum::<f64>();
        };
        // Which rows belong to a code tensor.
        let mut leaves = vec![];
        let (mut open, mut codes) = (vec![], vec![]);
        for (index, row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            match row {
                None => {}
                Some(Row { weights, pass: Some(Pass { leaf, outputs, losses, mut slopes, .. }), .. }) => {
                    slopes.chunks_exact_mut(d).zip(&weights).for_each(|(s, w)| s.iter_mut().for_each(|s| *s *= w));
                    weigh(&losses, &weights);
                    add(surrogate(outputs, slopes, self.batch.device));
                    leaves.push((leaf, vec![index]));
                }
                Some(row) => {
                    codes.extend(row.codes);
                    open.push((index, row.weights));
                }
            }
        }
        if !open.is_empty() {
            let (leaf, outputs) = self.decode(codes)?;
            let values = host::read(outputs.clone());
            let (mut losses, mut slopes) = (vec![0.0; count], vec![0.0; values.len()]);
            let rows = values.chunks_exact(count * d).zip(slopes.chunks_exact_mut(count * d)).zip(&open);
            for ((outputs, slopes), (_, weights)) in rows {
                self.batch.likelihood.losses_and_slopes(outputs, &self.batch.images, weights, &mut losses, slopes);
                weigh(&losses, weights);
            }
            drop(values);
            add(surrogate(outputs, slopes, self.batch.device));
            leaves.push((leaf, open.into_iter().map(|(index, _)| index).collect()));
        }
        check_loss(reconstruction)?;
        let gradients = total.map(|total| total.backward());
        let mut slopes = vec![];
        if let (true, Some(gradients)) = (self.wants_slopes, &gradients) {
            slopes = vec![0.0; leaves.iter().flat_map(|(_, rows)| rows).max().map_or(0, |r| r + 1) * count * u];
            for (leaf, rows) in leaves {
                let mut found = vec![0.0; rows.len() * count * u];
                read_slopes(&leaf, gradients, &mut found);
                for (row, found) in rows.into_iter().zip(found.chunks_exact(count * u)) {
                    slopes[row * count * u..][..count * u].copy_from_slice(found);
                }
            }
        }
        Ok(Finished { gradients, reconstruction, slopes })
    }
}

impl<D: Decoder> Oracle for Rows<'_, D> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        if !self.batch.is_all(of) {
            return self.batch.losses(of, assignments, losses);
        }
        self.batch.check(of, "assignments", assignments.len(), self.batch.structure.variables())?;
        check_len("losses", losses.len(), of.len())?;
        let codes = encode(self.batch.structure, assignments);
        losses.copy_from_slice(self.at_codes(&codes)?);
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        if !self.batch.is_all(of) {
            return self.batch.around(of, assignments, own, losses);
        }
        self.batch.check(of, "assignments", assignments.len(), self.batch.structure.variables())?;
        check_len("own losses", own.len(), of.len())?;
        check_len("losses", losses.len(), of.len() * self.batch.structure.unary())?;
        let codes = encode(self.batch.structure, assignments);
        own.copy_from_slice(self.at_codes(&codes)?);
        self.batch.around_codes(of, &codes, own, losses)
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.batch.states(of, losses)
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        self.batch.slopes(of, codes, losses, slopes)
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        match followed {
            Followed::Assignments { row, assignments, weights } => {
                check_len("assignments", assignments.len(), self.batch.count() * self.batch.structure.variables())?;
                self.keep(row, encode(self.batch.structure, assignments), weights)
            }
            Followed::Codes { row, codes, weights } => self.keep(row, codes.to_vec(), weights),
            Followed::States(_) => Err(Error::Failed { detail: "all states are followed without notice".into() }),
        }
    }
}

/// Follows states that every image has, with weights of its own: one variable with values, or all states.
pub(crate) struct Table<'a, D> {
    batch: Batch<'a, D>,
    /// Whether assignments are states.
    single: bool,
    /// The decoder's outputs `[states, pixels]` with their graph.
    outputs: Tensor<2>,
    at_outputs: AtOutputs,
    /// Losses and weights `[batch, states]`.
    losses: Vec<f32>,
    weights: Vec<f32>,
    follows: bool,
}

/// What the derivative at the table is made of.
enum AtOutputs {
    /// Of a linear likelihood: the derivative of its log-normaliser, `[states, pixels]`.
    Linear(Vec<f32>),
    /// Of any other: the outputs themselves.
    Outputs(Host),
}

impl<'a, D: Decoder> Table<'a, D> {
    /// Decodes all states.
    ///
    /// # Errors
    /// More states than are enumerated.
    pub(crate) fn new(batch: Batch<'a, D>) -> Result<Self, Error> {
        let (structure, likelihood, pixels) = (batch.structure, batch.likelihood, batch.pixels());
        let single = structure.is_single();
        let states = if single { structure.unary() } else { enumerable(structure)? };
        let codes: Tensor<2> =
            host::tensor(table::codes(structure, 0..states), [states, structure.unary()], batch.device);
        let outputs = batch.decoder.outputs(codes.autodiff());
        check_outputs(&outputs, states, batch.width())?;
        let plain = outputs.clone().inner();
        let values = host::read(plain.clone());
        let (losses, at_outputs) = if likelihood.is_linear() {
            let (mut sums, mut slopes) = (vec![0.0; states], vec![0.0; states * pixels]);
            likelihood.log_normalisers(&values, &mut sums, &mut slopes);
            drop(values);
            let mut constants = vec![0.0; batch.count()];
            likelihood.constants(&batch.images, &mut constants);
            let mut losses = host::take(batch.x.clone().matmul(plain.transpose()));
            for (row, constant) in losses.chunks_exact_mut(states).zip(&constants) {
                row.iter_mut().zip(&sums).for_each(|(p, s)| *p = s + constant - *p);
            }
            (losses, AtOutputs::Linear(slopes))
        } else {
            let mut losses = vec![0.0; batch.count() * states];
            let rows = losses.chunks_exact_mut(states).zip(batch.images.chunks_exact(pixels));
            rows.for_each(|(losses, image)| likelihood.losses(&values, image, states, losses));
            (losses, AtOutputs::Outputs(values))
        };
        let weights = vec![0.0; losses.len()];
        Ok(Table { batch, single, outputs, at_outputs, losses, weights, follows: false })
    }

    fn states_count(&self) -> usize {
        self.outputs.dims()[0]
    }

    /// The losses of one image at all states.
    fn row(&self, of: u32) -> &[f32] {
        let states = self.states_count();
        &self.losses[of as usize * states..][..states]
    }

    /// Goes back through the table: for a linear likelihood the derivative there is (total weight of a state) times
    /// that of its log-normaliser, less `weights^T images`.
    pub(crate) fn finish(self) -> Result<Finished, Error> {
        let (states, d, count) = (self.states_count(), self.batch.width(), self.batch.count());
        let Table { batch, outputs, at_outputs, losses, weights, follows, .. } = self;
        let reconstruction = weights.iter().zip(&losses).map(|(w, l)| *w as f64 * *l as f64).sum();
        check_loss(reconstruction)?;
        if !follows {
            return Ok(Finished { gradients: None, reconstruction, slopes: vec![] });
        }
        let derivative: Tensor<2> = match at_outputs {
            AtOutputs::Linear(mut slopes) => {
                let mut totals = vec![0.0f32; states];
                for row in weights.chunks_exact(states) {
                    totals.iter_mut().zip(row).for_each(|(t, w)| *t += w);
                }
                for (s, total) in slopes.chunks_exact_mut(d).zip(&totals) {
                    s.iter_mut().for_each(|s| *s *= total);
                }
                let weights: Tensor<2> = host::tensor(weights, [count, states], batch.device);
                host::tensor(slopes, [states, d], batch.device) - weights.transpose().matmul(batch.x.clone())
            }
            AtOutputs::Outputs(values) => {
                let mut derivative = vec![0.0; states * d];
                for (s, (sum, outputs)) in derivative.chunks_exact_mut(d).zip(values.chunks_exact(d)).enumerate() {
                    let of: Vec<u32> = (0..count as u32).filter(|b| weights[*b as usize * states + s] != 0.0).collect();
                    if of.is_empty() {
                        continue;
                    }
                    let scales: Vec<f32> = of.iter().map(|b| weights[*b as usize * states + s]).collect();
                    let (mut unused, mut slopes) = (vec![0.0; of.len()], vec![0.0; of.len() * d]);
                    let (images, _) = batch.images_of(&of, false);
                    let outputs = outputs.repeat(of.len());
                    batch.likelihood.losses_and_slopes(&outputs, &images, &scales, &mut unused, &mut slopes);
                    slopes.chunks_exact(d).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, r)| *s += r));
                }
                host::tensor(derivative, [states, d], batch.device)
            }
        };
        let gradients = (outputs * derivative.autodiff()).sum().backward();
        Ok(Finished { gradients: Some(gradients), reconstruction, slopes: vec![] })
    }
}

impl<D: Decoder> Oracle for Table<'_, D> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        if !self.single {
            return self.batch.losses(of, assignments, losses);
        }
        self.batch.check(of, "assignments", assignments.len(), 1)?;
        check_len("losses", losses.len(), of.len())?;
        let rows = losses.iter_mut().zip(of.iter().zip(assignments));
        rows.for_each(|(loss, (b, z))| *loss = self.row(*b)[*z as usize]);
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        if !self.single {
            return self.batch.around(of, assignments, own, losses);
        }
        self.losses(of, assignments, own)?;
        self.states(of, losses)
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = self.states_count();
        self.batch.check(of, "losses", losses.len(), states)?;
        losses.chunks_exact_mut(states).zip(of).for_each(|(row, b)| row.copy_from_slice(self.row(*b)));
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        self.batch.slopes(of, codes, losses, slopes)
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        let states = self.states_count();
        match followed {
            Followed::Assignments { assignments, weights, .. } if self.single => {
                check_len("assignments", assignments.len(), self.batch.count())?;
                check_len("weights", weights.len(), self.batch.count())?;
                let rows = self.weights.chunks_exact_mut(states).zip(assignments.iter().zip(weights));
                rows.for_each(|(row, (z, w))| row[*z as usize] += w);
            }
            Followed::States(weights) => {
                check_len("weights", weights.len(), self.weights.len())?;
                self.weights.iter_mut().zip(weights).for_each(|(sum, w)| *sum += w);
            }
            _ => return Err(Error::Failed { detail: "codes are followed without notice, not states".into() }),
        }
        self.follows = true;
        Ok(())
    }
}
