//! The fused engine: one training step of a multi-layer perceptron on binary images, written out by hand for the CPU.
//!
//! It does what the [autodiff engine](crate::engine) does with a [`Mlp`](crate::model::Mlp) on both sides, and is tested
//! against it. What makes it fast: images are [lists of their ones](Bits), so the first layer adds rows instead of
//! multiplying; a K-way latent needs the decoder's K rows, the [table](crate::engine), not one per image; the gradient of a
//! weight is reduced in registers and consumed by Adam at once, it never stands in memory; nothing is allocated in a
//! step. See docs/performance.md for the arithmetic.
//!
//! A step is a few phases, each a list of pieces that a team of threads shares; every piece owns what it
//! writes, so that results do not depend on the number of threads:
//!
//! ```text
//! 1. images by pixel ∥ noise ∥ encoder's first layer, by units ∥ table: logits, softplus, sigmoid, by pixels
//! 2. by images: potentials, z*, losses, the estimator, KL: gradient at the potentials
//! 3. encoder's last layer: gradient, Adam, by units ∥ output layer: gradient, Adam, by pixels
//! 4. encoder's first layer: gradient, Adam, by units ∥ decoder's first layer: gradient, Adam, new units for the table
//! ```
//!
//! Where a latent has several variables, or is relaxed, the decoder has a row for each image, and its forward pass comes
//! after phase 2. Further hidden layers are phases of their own.

// Public for the benchmarks of the kernels only.
#[doc(hidden)]
pub mod bits;
mod codes;
#[doc(hidden)]
pub mod dense;
#[doc(hidden)]
pub mod first;
#[doc(hidden)]
pub mod output;
mod rows;
#[doc(hidden)]
pub mod simd;
mod team;
#[doc(hidden)]
pub mod tile;

use crate::adam::Moments;
use crate::engine::{Method, StepReport};
use crate::model::Named;
use crate::table::is_single;
use crate::{Error, Result};
use bits::Members;
use codes::{Codes, Input, Ones};
use dense::Dense;
use first::{First, Part};
use gumbel::estimator::{Estimator, Needs};
use gumbel::noise::Noise;
use gumbel::structure::{AnyStructure, Structure};
use output::{Output, Role};
use rows::{Decoder, Rows, Shared, Sizes};
use simd::{LANES, Lane, flat_mut, lanes};
use std::sync::Arc;
use team::{Team, each, each_with};
use tile::Rates;

pub use bits::Bits;
pub use simd::Isa;

/// A model with its optimiser; see the [module](self).
pub struct Fused {
    structure: Arc<AnyStructure>,
    lr: f64,
    steps: u64,
    /// Most images in a step, and samples of each.
    batch: usize,
    samples: usize,
    /// States in the table; 0: the decoder's rows are images.
    states: usize,
    needs: Needs,
    isa: Isa,
    team: Team,
    members: Members,
    first: First,
    encoder: Vec<Dense>,
    rows: Vec<Rows>,
    codes: Codes,
    decoder: Vec<Dense>,
    output: Output,
    /// The table's codes.
    table: Ones,
    /// Sum of the images' weights at each row of the decoder.
    totals: Vec<Lane>,
    /// z* of each image, for a table.
    chosen: Vec<u32>,
    /// Whether the output layer's logits belong to the present parameters.
    fresh: bool,
}

/// What a step needs to know beside the batch.
pub struct Options<'a> {
    /// The gradient at the potentials; of the kind that the engine was made for.
    pub method: &'a Method,
    /// Weight of the KL term, 0 to 1.
    pub kl_weight: f32,
    /// The stream of Gumbel noise `[samples, batch, U]`.
    pub noise: &'a Noise,
}

/// What an engine is made for.
pub struct Model<'a> {
    /// Pixels of an image.
    pub pixels: usize,
    /// Widths of the encoder's hidden layers, at least one; the decoder has them in reverse order.
    pub hidden: &'a [usize],
    /// The latent variable.
    pub structure: AnyStructure,
    /// The gradient at the potentials.
    pub method: &'a Method,
    /// Most images in a step.
    pub batch: usize,
    /// Gumbel draws per image.
    pub samples: usize,
    /// Learning rate.
    pub lr: f64,
    /// Threads.
    pub threads: usize,
}

impl Model<'_> {
    /// The largest table.
    const MAX_STATES: usize = 1024;
    /// Most rows of the decoder.
    const MAX_ROWS: usize = 4096;

    /// Why this engine cannot run the model, if it cannot.
    pub fn refusal(&self) -> Option<String> {
        let chunks = lanes(self.batch) * LANES;
        if matches!(self.method, Method::Joint { .. }) {
            return Some("--joint off or search".into());
        }
        if self.hidden.is_empty() {
            return Some("a hidden layer (--hidden)".into());
        }
        if self.pixels > Bits::MAX_PIXELS {
            return Some(format!("images of at most {} pixels", Bits::MAX_PIXELS));
        }
        match self.states() {
            None => Some(format!("at most {} states to enumerate", Self::MAX_STATES)),
            Some(0) if chunks * self.samples > Self::MAX_ROWS => {
                Some(format!("batch-size times samples of at most {}", Self::MAX_ROWS))
            }
            _ => None,
        }
    }

    /// States in the table, 0 if the decoder's rows are images, `None` if there are too many.
    fn states(&self) -> Option<usize> {
        let Method::Seam(estimator) = self.method else { return Some(0) };
        if estimator.needs() == Needs::States || is_single(&self.structure) {
            self.structure.states().filter(|s| *s <= Self::MAX_STATES)
        } else {
            Some(0)
        }
    }
}

impl Fused {
    /// A model with all parameters zero, to be [loaded](Fused::load). Errors: a model that it [refuses](Model::refusal).
    pub fn new(model: &Model<'_>) -> Result<Self> {
        if let Some(expected) = model.refusal() {
            return Err(Error::setting("engine", "fused", format!("autodiff, as fused needs {expected}")));
        }
        let states = model.states().expect("checked above");
        let Model { pixels, hidden, batch, samples, .. } = *model;
        let structure = Arc::new(model.structure.clone());
        let needs = match model.method {
            Method::Seam(estimator) => estimator.needs(),
            _ => Needs::Neighbours,
        };
        // Nothing is random in an estimator that sees all states: one pass stands for all samples.
        let samples = if needs == Needs::States { 1 } else { samples };
        let chunks = lanes(batch);
        let rows = if states > 0 { states } else { chunks * LANES * samples };
        let reversed: Vec<usize> = hidden.iter().rev().copied().collect();
        let sizes = Sizes { samples, states, needs, hidden: reversed.clone() };
        let widths: Vec<usize> = hidden.iter().copied().chain([structure.potentials()]).collect();
        let encoder = widths.windows(2).map(|w| Dense::new(w[0], w[1], batch)).collect();
        let decoder = reversed.windows(2).map(|w| Dense::new(w[0], w[1], rows)).collect();
        let mut table = Ones::new(states, structure.unary());
        let mut z = vec![0; structure.variables()];
        for s in 0..states {
            structure.state(s, &mut z);
            table.set(s, &structure, &z);
        }
        let pieces = (0..chunks).map(|c| Rows::new(c, &structure, &sizes)).collect::<std::result::Result<_, _>>()?;
        let isa = Isa::detect();
        Ok(Fused {
            structure: Arc::clone(&structure),
            lr: model.lr,
            steps: 0,
            batch,
            samples,
            states,
            needs,
            isa,
            team: Team::new(model.threads),
            members: Members::new(pixels, batch),
            first: First::new(pixels, hidden[0], batch),
            encoder,
            rows: pieces,
            codes: Codes::new(structure.unary(), reversed[0], rows),
            decoder,
            output: Output::new(pixels, hidden[0], rows),
            table,
            totals: vec![Lane::ZERO; lanes(rows)],
            chosen: vec![0; batch],
            fresh: false,
        })
    }

    /// Uses another instruction set of this machine.
    pub fn set_isa(&mut self, isa: Isa) {
        self.isa = isa;
        self.fresh = false;
    }

    /// Whether it has a table of all states.
    pub fn has_table(&self) -> bool {
        self.states > 0
    }

    /// States in the table.
    pub fn states(&self) -> usize {
        self.states
    }

    /// The latent variable.
    pub fn structure(&self) -> &AnyStructure {
        &self.structure
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Replaces parameters, moments and step count by those of the autodiff engine: encoder first, then decoder, each layer
    /// with its weights and biases. `moments` may be empty. The shapes must be those of the model.
    pub fn load(&mut self, parameters: &[Named], moments: &[Moments], steps: u64) {
        self.steps = steps;
        let mut slot = 0;
        self.visit(|layer, part, index, [p, m, v]| {
            slot = 2 * layer + (part == Part::Bias) as usize;
            *p = parameters[slot].values[index];
            let moment = moments.get(slot).map(|m| (&m.first, &m.second)).filter(|(m, _)| !m.is_empty());
            (*m, *v) = moment.map_or((0.0, 0.0), |(first, second)| (first[index], second[index]));
        });
        debug_assert_eq!(slot + 1, parameters.len());
        self.first.refresh();
        self.encoder.iter_mut().chain(&mut self.decoder).for_each(Dense::refresh);
        self.decode_table();
        self.fresh = false;
    }

    /// Writes the parameters into `parameters` and returns the moments, empty before the first step.
    pub fn store(&mut self, parameters: &mut [Named]) -> Vec<Moments> {
        let zero = |p: &Named| Moments { first: vec![0.0; p.values.len()], second: vec![0.0; p.values.len()] };
        let mut moments: Vec<Moments> = parameters.iter().map(zero).collect();
        self.visit(|layer, part, index, [p, m, v]| {
            let slot = 2 * layer + (part == Part::Bias) as usize;
            parameters[slot].values[index] = *p;
            (moments[slot].first[index], moments[slot].second[index]) = (*m, *v);
        });
        if self.steps == 0 { vec![] } else { moments }
    }

    fn visit(&mut self, mut each: impl FnMut(usize, Part, usize, [&mut f32; 3])) {
        let depth = self.encoder.len() + 1;
        self.first.visit(|part, i, x| each(0, part, i, x));
        for (l, layer) in self.encoder.iter_mut().enumerate() {
            layer.visit(|part, i, x| each(1 + l, part, i, x));
        }
        self.codes.visit(|part, i, x| each(depth, part, i, x));
        for (l, layer) in self.decoder.iter_mut().enumerate() {
            layer.visit(|part, i, x| each(depth + 1 + l, part, i, x));
        }
        self.output.visit(|part, i, x| each(2 * depth - 1, part, i, x));
    }

    /// One step of the optimiser on the images `batch` of `bits`; the last step's method, at other epsilons or temperatures.
    pub fn step(&mut self, bits: &Bits, batch: &[u32], options: &Options<'_>) -> Result<StepReport> {
        assert!(
            batch.len() <= self.batch && bits.pixels() == self.output.pixels,
            "the engine was made for other batches"
        );
        let shared = Shared {
            structure: &Arc::clone(&self.structure),
            bits,
            batch,
            samples: self.samples,
            kl_weight: options.kl_weight,
            noise: options.noise,
        };
        self.begin(&shared);
        self.seam(&shared, options.method);
        let mut report = self.report(options.method)?;
        self.steps += 1;
        let t = self.steps.min(i32::MAX as u64) as i32;
        let rates = Rates {
            rate: (self.lr / (1.0 - (crate::adam::BETA1 as f64).powi(t))) as f32,
            root: (1.0 / (1.0 - (crate::adam::BETA2 as f64).powi(t)).sqrt()) as f32,
        };
        match options.method {
            Method::Seam(_) if self.states > 0 => {
                self.totals(&shared);
                self.backward_table(&shared, rates);
            }
            method => {
                let relaxed = self.backward_images(&shared, method, rates)?;
                report.reconstruction = relaxed.unwrap_or(report.reconstruction);
            }
        }
        Ok(report)
    }

    /// Phase 1.
    fn begin(&mut self, shared: &Shared<'_>) {
        let isa = self.isa;
        let (codes, decoder, rows) = (&self.codes, &self.decoder, self.states);
        let refresh = !self.fresh;
        let members = each(std::slice::from_mut(&mut self.members), |_, m| m.fill(shared.bits, shared.batch));
        let noise = each(&mut self.rows, |_, rows| isa.run(rows::Begin { rows, shared }));
        let slices = &self.first.slices;
        let first = each(&mut self.first.groups, |number, group| {
            isa.run(first::Forward { number, group, slices, bits: shared.bits, batch: shared.batch });
        });
        let width = self.output.units;
        let Output { blocks, logits, .. } = &mut self.output;
        let blocks = if self.states > 0 && refresh { &mut blocks[..] } else { &mut [] };
        let table = each_with(blocks, logits, Output::part(rows), |_, block, logits| {
            let (units, transposed) = (|g, c| tile(codes, decoder, g, c), |g, c| transposed(codes, decoder, g, c));
            isa.run(output::Forward { block, logits, transposed, units, width, rows });
        });
        self.team.run(&[&members, &noise, &table, &first]);
        self.fresh = self.states > 0;
        // Further hidden layers of the encoder.
        let count = shared.batch.len();
        for l in 0..self.encoder.len() - 1 {
            let (before, rest) = self.encoder.split_at_mut(l);
            let Dense { inputs, slabs, outs, .. } = &mut rest[0];
            let (first, slabs, inputs) = (&self.first, &*slabs, *inputs);
            self.team.run(&[&each(outs, |group, out| {
                let x = |g, c| encoder_tile(first, before, g, c);
                isa.run(dense::Forward { slabs, inputs, group, out, x, rows: count });
            })]);
        }
    }

    /// Phase 2.
    fn seam(&mut self, shared: &Shared<'_>, method: &Method) {
        let isa = self.isa;
        let (last, before) = self.encoder.split_last().expect("the potentials have a layer");
        let (first, codes, decoder, output) = (&self.first, &self.codes, &self.decoder, &self.output);
        let states = self.states;
        let x = |g, c| encoder_tile(first, before, g, c);
        match method {
            Method::Seam(estimator) if states > 0 => {
                let weighted = self.samples > 1 || self.needs == Needs::States;
                self.team.run(&[&each(&mut self.rows, |_, rows| {
                    let estimator = estimator.as_ref();
                    isa.run(rows::WithTable { rows, shared, layer: last, x, output, states, estimator, weighted });
                })]);
            }
            Method::Seam(_) | Method::Search(_) => {
                let (estimator, search): (&dyn Estimator<AnyStructure>, _) = match method {
                    Method::Seam(estimator) => (estimator.as_ref(), None),
                    Method::Search(direct) => (direct, Some(direct.epsilon())),
                    _ => unreachable!("matched above"),
                };
                let decoder = Decoder { codes, dense: decoder, output };
                self.team.run(&[&each(&mut self.rows, |_, rows| {
                    isa.run(rows::WithNeighbours { rows, shared, layer: last, x, decoder, estimator, search });
                })]);
            }
            Method::Relaxed { temperature, .. } => self.team.run(&[&each(&mut self.rows, |_, rows| {
                isa.run(rows::Relax { rows, shared, layer: last, x, temperature: *temperature });
            })]),
            Method::Joint { .. } => unreachable!("refused when the engine was made"),
        }
    }

    fn report(&mut self, method: &Method) -> Result<StepReport> {
        let mut report = StepReport { unmoved: None, missed: None, reconstruction: 0.0 };
        for rows in &mut self.rows {
            if let Some(error) = rows.outcome.error.take() {
                return Err(error.into());
            }
            if rows.outcome.asked > 0 {
                *report.unmoved.get_or_insert(0) += rows.outcome.unmoved;
            }
            report.reconstruction += rows.outcome.reconstruction;
            if let Method::Search(_) = method {
                let missed = report.missed.get_or_insert_default();
                missed.examples += rows.outcome.missed.examples;
                missed.nats += rows.outcome.missed.nats;
            }
        }
        if matches!(method, Method::Seam(_) | Method::Search(_)) {
            finite(report.reconstruction)?;
        }
        Ok(report)
    }

    /// The images' weights at the states of the table.
    fn totals(&mut self, shared: &Shared<'_>) {
        let totals = &mut self.totals[..lanes(self.states)];
        totals.fill(Lane::ZERO);
        let weighted = self.samples > 1 || self.needs == Needs::States;
        let images = self.rows.iter().flat_map(|rows| (0..rows.count).map(move |row| (rows, row)));
        for ((rows, row), chosen) in images.zip(&mut self.chosen) {
            if weighted {
                for (total, weight) in totals.iter_mut().zip(rows.weights(row)) {
                    total.0.iter_mut().zip(weight.0).for_each(|(t, w)| *t += w);
                }
            } else {
                *chosen = rows.assignment(shared.structure)[row];
                flat_mut(totals)[*chosen as usize] += shared.scale();
            }
        }
    }

    /// Phases 3 and 4 where the decoder's rows are states.
    fn backward_table(&mut self, shared: &Shared<'_>, rates: Rates) {
        let Fused { isa, team, members, first, encoder, rows, codes, decoder, output, table, totals, .. } = self;
        let (isa, states, width) = (*isa, self.states, output.units);
        let (bits, batch) = (shared.bits, shared.batch);
        let weights = |place: usize| rows[place / LANES].weights(place % LANES);
        let role = match self.samples > 1 || self.needs == Needs::States {
            true => Role::Weighted { weights: &weights },
            false => Role::Chosen { chosen: &self.chosen, scale: shared.scale() },
        };
        let units = |g, c| tile(codes, decoder, g, c);
        let Output { blocks, logits, .. } = &mut *output;
        let blocks = each_with(blocks, logits, Output::part(states), |_, block, logits| {
            isa.run(output::Backward {
                block,
                logits,
                units,
                width,
                rows: states,
                totals,
                role: &role,
                bits,
                batch,
                rates,
            });
        });
        backward_encoder(team, isa, (first, encoder, rows), shared, rates, &blocks);
        let table = &*table;
        let input = || Input::<_, NoTile>::Ones(|r: usize| table.of(r));
        let shallow = decoder.is_empty();
        if !shallow {
            gather(team, isa, codes, decoder, output, states);
            backward_decoder(team, isa, codes, decoder, states, rates);
        }
        first.touch(members);
        let (touched, group_width, count) = (&first.touched, codes.width, shared.batch.len());
        let gradient = |g: usize| &encoder[0].slabs[g].gradient[..count];
        let images = each(&mut first.slices, |_, slice| {
            isa.run(first::Update { slice, gradient, members, touched, rates });
        });
        let biases = each(&mut first.groups, |g, group| {
            isa.run(first::Biases { group, gradient: gradient(g), rates });
        });
        let codes = each(&mut codes.groups, |g, group| {
            if shallow {
                isa.run(output::Gather { blocks: &output.blocks, group: g, rows: states, units: &mut group.units });
            }
            isa.run(codes::Update { group, input: input(), rows: states, width: group_width, rates, again: true });
        });
        team.run(&[&images, &codes, &biases]);
        decode(team, isa, &self.codes, decoder, states);
        self.fresh = false;
    }

    /// What follows the seam where the decoder's rows are images.
    fn backward_images(&mut self, shared: &Shared<'_>, method: &Method, rates: Rates) -> Result<Option<f64>> {
        let Fused { isa, team, members, first, encoder, rows: pieces, codes, decoder, output, totals, .. } = self;
        let (isa, width, scale) = (*isa, output.units, shared.scale());
        let (bits, batch) = (shared.bits, shared.batch);
        let (chunks, count) = (lanes(shared.batch.len()), shared.batch.len());
        let stride = chunks * LANES;
        let rows = (self.samples - 1) * stride + count;
        let structure = shared.structure;
        let (temperature, soft) = match method {
            Method::Relaxed { temperature, straight_through } => (Some(*temperature), !straight_through),
            _ => (None, false),
        };
        macro_rules! input {
            ($pieces:expr) => {
                if soft {
                    Input::Soft(|u: usize, c: usize| $pieces[c % chunks].soft(structure, c / chunks, u))
                } else {
                    Input::Ones(|r: usize| $pieces[r / LANES % chunks].ones(r / stride, r % LANES))
                }
            };
        }
        team.run(&[&each(&mut codes.groups, |_, group| {
            isa.run(codes::Forward { group, input: input!(pieces), rows });
            if temperature.is_some() {
                group.transpose();
            }
        })]);
        decode(team, isa, codes, decoder, rows);

        totals[..lanes(rows)].fill(Lane::ZERO);
        flat_mut(totals)
            .iter_mut()
            .enumerate()
            .filter(|(r, _)| *r < rows && r % stride < count)
            .for_each(|(_, t)| *t = scale);
        let role = Role::Images { stride, samples: self.samples, scale };
        let (units, transposed) = (|g, c| tile(codes, decoder, g, c), |g, c| transposed(codes, decoder, g, c));
        let Output { blocks, logits, .. } = &mut *output;
        let blocks = each_with(blocks, logits, Output::part(rows), |_, block, logits| {
            isa.run(output::Forward { block, logits, transposed, units, width, rows });
            isa.run(output::Backward { block, logits, units, width, rows, totals, role: &role, bits, batch, rates });
        });
        match temperature {
            None => backward_encoder(team, isa, (first, encoder, pieces), shared, rates, &blocks),
            Some(_) => team.run(&[&blocks]),
        }
        gather(team, isa, codes, decoder, output, rows);
        backward_decoder(team, isa, codes, decoder, rows, rates);
        let mut reconstruction = None;
        if let Some(temperature) = temperature {
            let mut total = 0.0;
            for r in (0..rows).filter(|r| r % stride < count) {
                total += output.blocks.iter().map(|b| b.sums[r / LANES].0[r % LANES] as f64).sum::<f64>();
            }
            reconstruction = Some(finite(total * scale as f64)?);
            let codes = &*codes;
            team.run(&[&each(pieces, |_, rows| {
                isa.run(rows::Unrelax { rows, shared, codes, chunks, temperature });
            })]);
            let none = each(&mut [(); 0], |_, ()| ());
            backward_encoder(team, isa, (first, encoder, pieces), shared, rates, &none);
        }
        first.touch(members);
        let (touched, group_width) = (&first.touched, codes.width);
        let gradient = |g: usize| &encoder[0].slabs[g].gradient[..count];
        let images = each(&mut first.slices, |_, slice| {
            isa.run(first::Update { slice, gradient, members, touched, rates });
        });
        let biases = each(&mut first.groups, |g, group| {
            isa.run(first::Biases { group, gradient: gradient(g), rates });
        });
        let codes = each(&mut codes.groups, |_, group| {
            isa.run(codes::Update { group, input: input!(pieces), rows, width: group_width, rates, again: false });
        });
        team.run(&[&images, &codes, &biases]);
        Ok(reconstruction)
    }

    /// The decoder's hidden units for all states, from its present parameters.
    fn decode_table(&mut self) {
        let Fused { isa, team, codes, decoder, table, states, .. } = self;
        let (isa, rows) = (*isa, *states);
        let table = &*table;
        team.run(&[&each(&mut codes.groups, |_, group| {
            let input = Input::<_, NoTile>::Ones(|r: usize| table.of(r));
            isa.run(codes::Forward { group, input, rows });
        })]);
        decode(team, isa, codes, decoder, rows);
    }

    /// Potentials `[batch, P]` and losses at all states `[batch, states]` of images, for engines with a table.
    pub fn table_losses(&mut self, bits: &Bits, batch: &[u32], potentials: &mut [f32], losses: &mut [f32]) {
        let structure = Arc::clone(&self.structure);
        let (states, p) = (self.states, structure.potentials());
        assert!(states > 0, "the engine has a table");
        assert_eq!((potentials.len(), losses.len()), (batch.len() * p, batch.len() * states));
        let noise = Noise::new(0, gumbel::noise::Purpose::User(0), 0);
        let most = self.batch;
        for (b, batch) in batch.chunks(most).enumerate() {
            let shared = Shared { structure: &structure, bits, batch, samples: 0, kl_weight: 0.0, noise: &noise };
            self.begin(&shared);
            let Fused { isa, team, first, encoder, rows, output, .. } = &mut *self;
            let isa = *isa;
            let (last, before) = encoder.split_last().expect("the potentials have a layer");
            let first_row = b * most;
            let outputs = potentials[first_row * p..][..batch.len() * p].chunks_mut(LANES * p);
            let losses = losses[first_row * states..][..batch.len() * states].chunks_mut(LANES * states);
            // Work is for slices: each piece of rows takes its part of the answer along.
            let mut items: Vec<_> = rows.iter_mut().zip(outputs.zip(losses)).collect();
            team.run(&[&each(&mut items, |_, (rows, (potentials, losses))| {
                let x = |g, c| encoder_tile(first, before, g, c);
                isa.run(rows::Evaluate { rows, shared: &shared, layer: last, x, output, states, potentials, losses });
            })]);
        }
    }
}

/// The type of a closure that is never made.
type NoTile = fn(usize, usize) -> &'static [Lane];

fn finite(reconstruction: f64) -> Result<f64> {
    match reconstruction.is_finite() {
        true => Ok(reconstruction),
        false => Err(gumbel::Error::NotANumber { what: "loss of the batch", index: 0 }.into()),
    }
}

/// Activations of the layer before one of the encoder's: the tile of a group and a chunk.
#[inline(always)]
fn encoder_tile<'a>(first: &'a First, before: &'a [Dense], group: usize, chunk: usize) -> &'a [Lane] {
    let y = match before.last() {
        None => &first.groups[group].out,
        Some(layer) => &layer.outs[group].units.y,
    };
    &y[chunk * LANES..][..LANES]
}

/// The decoder's last hidden units: the tile of a group and a chunk.
#[inline(always)]
fn tile<'a>(codes: &'a Codes, decoder: &'a [Dense], group: usize, chunk: usize) -> &'a [Lane] {
    &last_hidden(codes, decoder, group).y[chunk * LANES..][..LANES]
}

/// Its transpose.
#[inline(always)]
fn transposed<'a>(codes: &'a Codes, decoder: &'a [Dense], group: usize, chunk: usize) -> &'a [Lane] {
    &last_hidden(codes, decoder, group).transposed[chunk * LANES..][..LANES]
}

#[inline(always)]
fn last_hidden<'a>(codes: &'a Codes, decoder: &'a [Dense], group: usize) -> &'a dense::Activation {
    match decoder.last() {
        None => &codes.groups[group].units,
        Some(layer) => &layer.outs[group].units,
    }
}

/// The decoder's further hidden layers.
fn decode(team: &mut Team, isa: Isa, codes: &Codes, decoder: &mut [Dense], rows: usize) {
    for l in 0..decoder.len() {
        let (before, rest) = decoder.split_at_mut(l);
        let Dense { inputs, slabs, outs, .. } = &mut rest[0];
        let (slabs, inputs) = (&*slabs, *inputs);
        team.run(&[&each(outs, |group, out| {
            let x = |g, c| tile(codes, before, g, c);
            isa.run(dense::Forward { slabs, inputs, group, out, x, rows });
        })]);
    }
}

/// The gradient at the decoder's last hidden units from the parts of the output layer's blocks.
fn gather(team: &mut Team, isa: Isa, codes: &mut Codes, decoder: &mut [Dense], output: &Output, rows: usize) {
    let blocks = &output.blocks;
    let gather = |group: usize, units: &mut dense::Activation| isa.run(output::Gather { blocks, group, rows, units });
    match decoder.last_mut() {
        None => team.run(&[&each(&mut codes.groups, |g, group| gather(g, &mut group.units))]),
        Some(layer) => team.run(&[&each(&mut layer.outs, |g, out| gather(g, &mut out.units))]),
    }
}

/// The decoder's further hidden layers backwards, down to the gradient at its first units.
fn backward_decoder(team: &mut Team, isa: Isa, codes: &mut Codes, decoder: &mut [Dense], rows: usize, rates: Rates) {
    for l in (0..decoder.len()).rev() {
        let (before, rest) = decoder.split_at_mut(l);
        let Dense { outputs, slabs, outs, .. } = &mut rest[0];
        let outputs = *outputs;
        {
            let outs = &*outs;
            let (codes, before) = (&*codes, &*before);
            team.run(&[&each(slabs, |g, slab| {
                let x = |c| tile(codes, before, g, c);
                let gradient = |o: usize, c: usize| &outs[o].units.gradient[c * LANES..][..LANES];
                isa.run(dense::Backward { slab, outputs, x, gradient, rows, rates });
            })]);
        }
        team.run(&[&each(outs, |_, out| isa.run(dense::OwnBiases { out, rows, rates }))]);
        // The gradient at the inputs is that at the units of the layer before.
        for (g, slab) in slabs.iter_mut().enumerate() {
            let units = match before.last_mut() {
                None => &mut codes.groups[g].units,
                Some(layer) => &mut layer.outs[g].units,
            };
            std::mem::swap(&mut units.gradient, &mut slab.gradient);
        }
    }
}

/// The encoder's layers after the first backwards, beside other work; leaves the gradient at the first layer's units in the
/// slabs of the second.
fn backward_encoder(
    team: &mut Team,
    isa: Isa,
    (first, encoder, rows): (&First, &mut [Dense], &[Rows]),
    shared: &Shared<'_>,
    rates: Rates,
    beside: &dyn team::Work,
) {
    let count = shared.batch.len();
    for l in (0..encoder.len()).rev() {
        let (before, rest) = encoder.split_at_mut(l);
        let before = &*before;
        let (layer, after) = rest.split_first_mut().expect("layer l");
        let after = after.first();
        let Dense { outputs, slabs, outs, .. } = layer;
        let outputs = *outputs;
        let gradient = |o: usize, c: usize| match after {
            None => &rows[c].gradient[o * LANES..][..LANES],
            Some(layer) => &layer.slabs[o].gradient[c * LANES..][..LANES],
        };
        let slabs = each(slabs, |g, slab| {
            let x = |c| encoder_tile(first, before, g, c);
            isa.run(dense::Backward { slab, outputs, x, gradient, rows: count, rates });
        });
        let biases = each(outs, |o, out| {
            isa.run(dense::Biases { out, gradient: |c| gradient(o, c), rows: count, rates });
        });
        match after {
            None => team.run(&[beside, &slabs, &biases]),
            Some(_) => team.run(&[&slabs, &biases]),
        }
    }
}
