//! Perceptrons with a Gaussian code for every state of a small latent (`continuous = rows:D`; paper, Section 4.2).
//!
//! The loss of a state is that of the decoder at the state's own code, so that an image has as many rows of the decoder
//! as its latent has states: they are nearly all of the arithmetic. A row has little in it, though: a decoder's input
//! is one block of D numbers, half of its hidden units are zero, images are mostly dark. Every [layer](layer) computes
//! rows one by one along what is not zero, every answer is computed when it is asked for, and only what the estimator
//! follows is gone back through.
//!
//! A step is three phases, whose pieces own what they write:
//!
//! ```text
//! 1. by 32 images: encoder, estimator with its questions, decoder forward and back, encoder back
//! 2. by layers: the rows that it has read, turned into columns
//! 3. by blocks of units: gradient of the weights, Adam
//! ```

mod layer;
mod perceptron;
mod seat;
mod way;

use crate::first::Part;
use crate::simd::{Isa, flat};
use crate::team::{Team, each};
use crate::tile::Rates;
use gumbel::Error;
use gumbel::continuous::{Continuous, Draw, Inputs, KlWeights};
use gumbel::engine::{Asked, Engine, GaussianCodes, Images, ModelOptions, StepOptions, StepReport, check_loss};
use gumbel::estimator::{self, Estimator, MEASURES, Memory, Noises, Tally};
use gumbel::network::{BETA1, BETA2, MixedWidths, Moments, Named, Parameters, Snapshot};
use gumbel::noise::Noise;
use gumbel::oracle::{Followed, Oracle, check_len, check_rows};
use gumbel::structure::{AnyStructure, Structure, Sums};
use layer::{Block, Columns, Layer, Means, Update};
use perceptron::{Perceptron, Pool, Work, room};
use seat::{Context, GROUP, IMAGES, Layers, Questions, Seat};
use std::sync::Arc;

/// Most states: one bit each.
const MAX_STATES: usize = u64::BITS as usize;

/// Perceptrons with Gaussian codes, and their optimiser.
pub struct Mixed {
    structure: Arc<AnyStructure>,
    inputs: Inputs,
    widths: MixedWidths,
    lr: f64,
    /// By what it is multiplied in the present step.
    share: f64,
    steps: u64,
    isa: Isa,
    team: Team,
    layers: Layers,
    pieces: Vec<Piece>,
    /// Seats of those who ask from outside.
    asked: Vec<Seat>,
    columns: Vec<Columns>,
    pool: Pool,
    prepared: Prepared,
}

/// The images of the batch to come.
#[derive(Default)]
struct Prepared {
    of: Option<(u64, Vec<u32>)>,
    /// `[batch, pixels]`.
    values: Vec<f32>,
}

/// Why this engine cannot have a model with Gaussian codes, if it cannot: what it needs, in words.
pub fn refusal(options: &ModelOptions<'_>) -> Option<String> {
    if !matches!(options.continuous, Continuous::Rows(_)) {
        return Some("continuous = none or rows:D".into());
    }
    let few = options.structure.states().is_some_and(|states| states <= MAX_STATES);
    (!few).then(|| format!("with Gaussian codes a latent of at most {MAX_STATES} states"))
}

/// Images of a step with what the estimator works on.
#[derive(Default)]
struct Piece {
    seat: Seat,
    gradient: Vec<f32>,
    /// `[samples, count, width]`.
    noise: Vec<f32>,
    of: Vec<u32>,
    memory: Memory<AnyStructure>,
    slopes: Vec<f32>,
    sums: Vec<f32>,
    tallies: [Tally; MEASURES],
    done: Option<Error>,
}

/// What all pieces share in a step.
#[derive(Clone, Copy)]
struct Shared<'a> {
    cx: Context<'a>,
    estimator: &'a dyn Estimator,
    batch: usize,
    /// Samples of an image, and Gumbel variables of each.
    samples: usize,
    width: usize,
    kl_weight: f32,
    gumbel: &'a Noise,
}

impl Piece {
    fn run(&mut self, shared: &Shared<'_>, first: usize, values: &[f32]) {
        self.done = self.try_run(shared, first, values).err();
    }

    fn try_run(&mut self, shared: &Shared<'_>, first: usize, values: &[f32]) -> Result<(), Error> {
        let Shared { cx, estimator, batch, samples, width, kl_weight, gumbel } = *shared;
        let structure = cx.structure;
        let Piece { seat, gradient, noise, of, memory, slopes, sums, tallies, .. } = self;
        seat.encode(cx, first, values);
        let (count, p) = (seat.count, structure.potentials());
        gradient.clear();
        gradient.resize(count * p, 0.0);
        if kl_weight != 0.0 {
            for (b, (h, g)) in seat.potentials.chunks_exact(p).zip(gradient.chunks_exact_mut(p)).enumerate() {
                structure.kl_to_uniform(h, kl_weight / batch as f32, g).map_err(|e| e.in_example(first + b))?;
            }
        }
        noise.resize(samples * count * width, 0.0);
        for (m, noise) in noise.chunks_exact_mut((count * width).max(1)).enumerate() {
            gumbel.at(((m * batch + first) * width) as u64).gumbel(noise);
        }
        of.clear();
        of.extend(0..count as u32);
        sums.clear();
        sums.resize(estimator.sums(), 0.0);
        *tallies = [Tally::default(); MEASURES];
        let potentials = std::mem::take(&mut seat.potentials);
        let mut piece = estimator::Piece {
            structure,
            potentials: &potentials,
            noise: Noises { values: noise, width, stride: count },
            samples,
            scale: 1.0 / (batch * samples) as f32,
            first,
            of,
            gradient,
            tallies,
            sums,
            memory,
            parallel: false,
        };
        let wants_slopes = estimator.wants_slopes();
        estimator.estimate(&mut piece, &mut Questions { cx, seat, slopes: wants_slopes })?;
        slopes.clear();
        slopes.resize(if wants_slopes { estimator.rows(samples) * count * structure.unary() } else { 0 }, 0.0);
        seat.follow(cx, slopes);
        if wants_slopes {
            estimator.resume(&mut piece, estimator::Slopes { values: slopes, stride: count })?;
        }
        for (h, g) in potentials.chunks_exact(p).zip(gradient.chunks_exact_mut(p)) {
            structure.to_raw_gradient(h, g);
        }
        seat.potentials = potentials;
        seat.back(cx, gradient);
        Ok(())
    }
}

impl Mixed {
    /// The model of some options with its initial parameters.
    ///
    /// # Errors
    /// A model that the engine [refuses](crate::refusal), settings out of range, an unknown instruction set in the
    /// environment.
    pub fn new(options: &ModelOptions<'_>) -> Result<Self, Error> {
        crate::engine::check(options)?;
        if options.continuous == Continuous::None {
            return Err(Error::setting("continuous", options.continuous, "rows:D, or a model without Gaussian codes"));
        }
        let structure = Arc::new(options.structure.clone());
        let inputs = Inputs::new(options.continuous, &structure)?;
        let widths = MixedWidths::new(options, &inputs)?;
        let [from, to] = widths.parts();
        let layers = Layers {
            trunk: Perceptron::new(&widths.trunk, widths.leak),
            head: Perceptron::new(&widths.head, widths.leak),
            parts: (0..widths.blocks).map(|_| Layer::new(from, to / widths.blocks)).collect(),
            shared: Perceptron::new(&widths.shared, widths.shared_leak),
            decoder: Perceptron::new(&widths.decoder, 0.0).of_logits(),
            dropout: widths.dropout,
        };
        let mut engine = Mixed {
            structure,
            inputs,
            lr: options.lr,
            share: 1.0,
            steps: 0,
            isa: Isa::detect()?,
            team: Team::new(options.threads),
            layers,
            pieces: vec![],
            asked: vec![],
            columns: vec![],
            pool: Pool::default(),
            prepared: Prepared::default(),
            widths,
        };
        let parameters = engine.widths.initial(options.seed);
        engine.restore(&Snapshot { parameters, moments: vec![], steps: 0 })?;
        Ok(engine)
    }

    /// Uses another instruction set of this machine.
    pub fn set_isa(&mut self, isa: Isa) {
        self.isa = isa;
    }

    /// Reads images `[batch, pixels]`, unless they are there.
    fn read(&mut self, images: &dyn Images, batch: &[u32]) -> Result<(), Error> {
        let (pixels, found) = (self.widths.trunk[0], images.shape().len());
        if found != pixels {
            return Err(Error::Failed { detail: format!("expected images of {pixels} pixels, found {found}") });
        }
        if batch.is_empty() {
            return Err(Error::Failed { detail: "expected at least one image of at least one pixel".into() });
        }
        let key = images.key();
        let Prepared { of, values } = &mut self.prepared;
        if of.as_ref().is_none_or(|(k, b)| *k != key || b != batch) {
            *of = None;
            values.resize(batch.len() * pixels, 0.0);
            images.fill(batch, values)?;
            *of = Some((key, batch.to_vec()));
        }
        Ok(())
    }

    /// Visits all parameters with their moments: number of the parameter in a snapshot, index in it.
    fn visit(&mut self, mut each: impl FnMut(usize, usize, [&mut f32; 3])) {
        let Layers { trunk, head, parts, shared, decoder, .. } = &mut self.layers;
        let mut slot = 0;
        for layer in trunk.layers.iter_mut().chain(&mut head.layers) {
            layer.visit(|part, i, x| each(slot + usize::from(part == Part::Bias), i, x));
            slot += 2;
        }
        let (blocks, size) = (parts.len(), parts[0].outputs);
        for (k, layer) in parts.iter_mut().enumerate() {
            layer.visit(|part, i, x| match part {
                Part::Weight => each(slot, (i / size * blocks + k) * size + i % size, x),
                Part::Bias => each(slot + 1, k * size + i, x),
            });
        }
        slot += 2;
        for layer in shared.layers.iter_mut().chain(&mut decoder.layers) {
            layer.visit(|part, i, x| each(slot + usize::from(part == Part::Bias), i, x));
            slot += 2;
        }
    }

    /// Parameters of zeros.
    fn zeros(&self) -> Parameters {
        let named = |prefix: &str, widths: &[usize]| -> Vec<Named> {
            let layer = |(l, pair): (usize, &[usize])| {
                let of = |part: &str, shape: &[usize]| Named {
                    name: format!("{prefix}layers.{l}.{part}"),
                    shape: shape.to_vec(),
                    values: vec![0.0; shape.iter().product()],
                };
                [of("weight", pair), of("bias", &pair[1..])]
            };
            widths.windows(2).enumerate().flat_map(layer).collect()
        };
        let mut networks = self.widths.networks();
        let decoder = networks.pop().map(|(prefix, widths)| named(prefix, &widths)).unwrap_or_default();
        let encoder = networks.iter().flat_map(|(prefix, widths)| named(prefix, widths)).collect();
        Parameters { encoder, decoder }
    }

    fn rates(&self) -> Rates {
        let t = self.steps.min(i32::MAX as u64) as i32;
        Rates {
            rate: (self.lr * self.share / (1.0 - (BETA1 as f64).powi(t))) as f32,
            root: (1.0 / (1.0 - (BETA2 as f64).powi(t)).sqrt()) as f32,
        }
    }

    /// Gradients of the weights and Adam, from what the pieces have left.
    fn update(&mut self, pieces: usize) {
        let rates = self.rates();
        let Mixed { isa, team, layers, pieces: all, columns, .. } = self;
        let (isa, pieces) = (*isa, &all[..pieces]);
        let mut sites = vec![];
        let mut blocks = vec![];
        for (number, (site, layer)) in layers.all().enumerate() {
            sites.push((site, layer.inputs));
            let width = layer.width();
            blocks.extend(layer.blocks.iter_mut().map(|block| (number, site, width, block)));
        }
        columns.resize_with(sites.len(), Columns::default);
        team.run(&[&each(columns, |number, columns| {
            let (site, inputs) = sites[number];
            columns.fill(pieces.iter().map(|piece| piece.seat.rows_of(site)), inputs);
        })]);
        let columns = &*columns;
        team.run(&[&each(&mut blocks, |_, (number, site, width, block): &mut (_, _, usize, &mut Block)| {
            block.gather(pieces.iter().map(|piece| piece.seat.gradient_of(*site, *width)), *width);
            isa.run(Update { block, columns: &columns[*number], rates });
        })]);
    }
}

impl Engine for Mixed {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn arithmetic(&self) -> String {
        self.isa.name().into()
    }

    fn structure(&self) -> &AnyStructure {
        &self.structure
    }

    fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    fn prepare(&mut self, images: &dyn Images, batch: &[u32]) -> Result<(), Error> {
        self.read(images, batch)
    }

    fn step(
        &mut self,
        images: &dyn Images,
        batch: &[u32],
        estimator: &mut dyn Estimator,
        options: &StepOptions<'_>,
    ) -> Result<StepReport, Error> {
        self.share = options.rate as f64;
        self.read(images, batch)?;
        let (count, pixels) = (batch.len().div_ceil(IMAGES), self.widths.trunk[0]);
        if self.pieces.len() < count {
            self.pieces.resize_with(count, Piece::default);
        }
        // Nothing is random in some estimators: one pass stands for all samples.
        let (samples, width) = match estimator.is_random() {
            true => (options.samples.max(1), estimator.noise(&*self.structure)?),
            false => (1, 0),
        };
        let Mixed { structure, inputs, isa, team, layers, pieces, pool, prepared, .. } = self;
        let cx = Context {
            isa: *isa,
            layers,
            structure,
            inputs,
            draw: Draw::Sample(options.gaussian),
            dropout: Some(options.dropout),
            kl: options.continuous_kl,
            pool,
        };
        let (kl_weight, gumbel) = (options.kl_weight, options.noise);
        let shared = Shared { cx, estimator: &*estimator, batch: batch.len(), samples, width, kl_weight, gumbel };
        let values = &prepared.values;
        team.run(&[&each(&mut pieces[..count], |p, piece| {
            let first = p * IMAGES;
            piece.run(&shared, first, &values[first * pixels..(first + IMAGES).min(batch.len()) * pixels]);
        })]);
        let mut report = StepReport { reconstruction: 0.0, tallies: [Tally::default(); MEASURES] };
        let mut sums = vec![0.0; estimator.sums()];
        for piece in &mut pieces[..count] {
            if let Some(error) = piece.done.take() {
                return Err(error);
            }
            report.tallies.iter_mut().zip(&piece.tallies).for_each(|(all, t)| all.merge(t));
            report.reconstruction += piece.seat.way.reconstruction;
            sums.iter_mut().zip(&piece.sums).for_each(|(all, s)| *all += s);
        }
        check_loss(report.reconstruction)?;
        self.steps += 1;
        self.update(count);
        estimator.learn(&sums);
        Ok(report)
    }

    fn ask<'a>(&'a mut self, images: &'a dyn Images, batch: &'a [u32], draw: Draw<'_>) -> Result<Asked<'a>, Error> {
        self.read(images, batch)?;
        let (count, pixels) = (batch.len().div_ceil(IMAGES), self.widths.trunk[0]);
        if self.asked.len() < count {
            self.asked.resize_with(count, Seat::default);
        }
        let Mixed { structure, inputs, isa, team, layers, asked, pool, prepared, .. } = self;
        let cx = Context { isa: *isa, layers, structure, inputs, draw, dropout: None, kl: KlWeights::BOUND, pool };
        let values = &prepared.values;
        team.run(&[&each(&mut asked[..count], |s, seat| {
            let first = s * IMAGES;
            seat.encode(cx, first, &values[first * pixels..(first + IMAGES).min(batch.len()) * pixels]);
            seat.all_codes(cx);
        })]);
        let mut potentials = Vec::with_capacity(batch.len() * structure.potentials());
        let mut codes = GaussianCodes { samples: vec![], kl: vec![], parameters: vec![] };
        for seat in &mut asked[..count] {
            potentials.extend_from_slice(&seat.potentials);
            let own = seat.all_codes(cx);
            codes.samples.extend_from_slice(&own.samples);
            codes.kl.extend_from_slice(&own.kl);
            codes.parameters.extend_from_slice(&own.parameters);
        }
        let oracle = Box::new(Answers { engine: self, seats: count, count: batch.len() });
        Ok(Asked { potentials, oracle, codes: Some(codes) })
    }

    fn means(&mut self, inputs: &[f32], means: &mut [f32]) -> Result<(), Error> {
        let (u, pixels) = (self.inputs.width(), self.widths.trunk[0]);
        let rows = inputs.len() / u;
        check_len("inputs", inputs.len(), rows * u)?;
        check_len("means", means.len(), rows * pixels)?;
        let Mixed { isa, team, layers, pool, .. } = self;
        let (isa, net, pool) = (*isa, &layers.decoder, &*pool);
        let mut items: Vec<_> = inputs.chunks(GROUP * u).zip(means.chunks_mut(GROUP * pixels)).collect();
        team.run(&[&each(&mut items, |_, (inputs, means)| {
            pool.with(|Work { decoder, memory, out, part, .. }| {
                let lists = decoder.begin(net);
                inputs.chunks_exact(u).for_each(|row| lists.push_some(row));
                decoder.hidden(isa, net, memory, out);
                let width = net.last().width();
                let out = room(part, decoder.rows() * width);
                decoder.last(isa, net, memory, Means { out, width });
                let rows = out.chunks_exact(width).zip(means.chunks_exact_mut(pixels));
                rows.for_each(|(row, means)| means.copy_from_slice(&flat(row)[..pixels]));
            });
        })]);
        Ok(())
    }

    fn snapshot(&mut self) -> Snapshot {
        let Parameters { encoder, decoder } = self.zeros();
        let (cut, mut all) = (encoder.len(), [encoder, decoder].concat());
        let zero = |p: &Named| Moments { first: vec![0.0; p.values.len()], second: vec![0.0; p.values.len()] };
        let mut moments: Vec<Moments> = all.iter().map(zero).collect();
        self.visit(|slot, i, [p, m, v]| {
            all[slot].values[i] = *p;
            (moments[slot].first[i], moments[slot].second[i]) = (*m, *v);
        });
        let decoder = all.split_off(cut);
        let moments = if self.steps == 0 { vec![] } else { moments };
        Snapshot { parameters: Parameters { encoder: all, decoder }, moments, steps: self.steps }
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let expected = self.zeros();
        for (what, stored, expected) in [
            ("encoder", &snapshot.parameters.encoder, &expected.encoder),
            ("decoder", &snapshot.parameters.decoder, &expected.decoder),
        ] {
            fits(what, stored, expected)?;
        }
        let all: Vec<&Named> = snapshot.parameters.all().collect();
        let moments = &snapshot.moments;
        let sized = |(m, p): (&Moments, &&Named)| m.first.len() == p.values.len() && m.second.len() == p.values.len();
        if !moments.is_empty() && (moments.len() != all.len() || !moments.iter().zip(&all).all(sized)) {
            return Err(Error::Failed { detail: "moments of another model".into() });
        }
        self.steps = snapshot.steps;
        self.visit(|slot, i, [p, m, v]| {
            *p = all[slot].values[i];
            (*m, *v) = moments.get(slot).map_or((0.0, 0.0), |m| (m.first[i], m.second[i]));
        });
        self.layers.all().for_each(|(_, layer)| layer.refresh());
        Ok(())
    }
}

/// Checks that stored parameters have the names and shapes that are expected.
fn fits(what: &str, stored: &[Named], expected: &[Named]) -> Result<(), Error> {
    let same = |s: &Named, e: &Named| s.name == e.name && s.shape == e.shape && s.values.len() == e.values.len();
    let describe = |named: Option<&Named>| named.map_or("nothing".into(), |n| format!("{} {:?}", n.name, n.shape));
    let most = stored.len().max(expected.len());
    match (0..most).find(|i| !matches!((stored.get(*i), expected.get(*i)), (Some(s), Some(e)) if same(s, e))) {
        None => Ok(()),
        Some(i) => {
            let (found, wanted) = (describe(stored.get(i)), describe(expected.get(i)));
            Err(Error::Failed { detail: format!("a model with {found} in place of parameter {wanted} of the {what}") })
        }
    }
}

/// The oracle of some images for those who ask from outside of a step: all threads answer.
struct Answers<'a> {
    engine: &'a mut Mixed,
    seats: usize,
    count: usize,
}

impl Answers<'_> {
    /// Calls `f` for every seat that rows belong to, with the places of its rows and its own numbers of their images;
    /// `out` takes its answer for each of the rows.
    fn each<T: Send + Default>(
        &mut self,
        of: &[u32],
        f: impl Fn(&mut Questions<'_>, &[usize], &[u32]) -> Result<T, Error> + Sync,
        mut out: impl FnMut(usize, usize, &T),
    ) -> Result<(), Error> {
        check_rows(of, self.count, "rows", of.len(), 1)?;
        let Mixed { structure, inputs, isa, team, layers, asked, pool, .. } = &mut *self.engine;
        // All codes are drawn.
        let cx = Context {
            isa: *isa,
            layers,
            structure,
            inputs,
            draw: Draw::Mean,
            dropout: None,
            kl: KlWeights::BOUND,
            pool,
        };
        let item = |seat| (seat, Vec::<usize>::new(), Vec::<u32>::new(), Ok(T::default()));
        let mut items: Vec<_> = asked[..self.seats].iter_mut().map(item).collect();
        for (row, b) in of.iter().enumerate() {
            let (_, rows, images, _) = &mut items[*b as usize / IMAGES];
            rows.push(row);
            images.push(b % IMAGES as u32);
        }
        items.retain(|(_, rows, ..)| !rows.is_empty());
        team.run(&[&each(&mut items, |_, (seat, rows, images, answer)| {
            *answer = f(&mut Questions { cx, seat, slopes: false }, rows, images);
        })]);
        for (_, rows, _, answer) in items {
            let answer = answer?;
            rows.iter().enumerate().for_each(|(own, row)| out(*row, own, &answer));
        }
        Ok(())
    }
}

/// Rows `[rows, width]` of some places.
fn pick<T: Copy>(from: &[T], rows: &[usize], width: usize) -> Vec<T> {
    rows.iter().flat_map(|row| &from[row * width..][..width]).copied().collect()
}

impl Oracle for Answers<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let n = self.engine.structure.variables();
        check_len("assignments", assignments.len(), of.len() * n)?;
        check_len("losses", losses.len(), of.len())?;
        let ask = |questions: &mut Questions<'_>, rows: &[usize], of: &[u32]| {
            let mut losses = vec![0.0; rows.len()];
            questions.losses(of, &pick(assignments, rows, n), &mut losses).map(|()| losses)
        };
        self.each(of, ask, |row, own, found| losses[row] = found[own])
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let (n, u) = (self.engine.structure.variables(), self.engine.structure.unary());
        check_len("assignments", assignments.len(), of.len() * n)?;
        check_len("own losses", own.len(), of.len())?;
        check_len("losses", losses.len(), of.len() * u)?;
        let ask = |questions: &mut Questions<'_>, rows: &[usize], of: &[u32]| {
            let mut found = (vec![0.0; rows.len()], vec![0.0; rows.len() * u]);
            questions.around(of, &pick(assignments, rows, n), &mut found.0, &mut found.1).map(|()| found)
        };
        self.each(of, ask, |row, place, (near, around)| {
            own[row] = near[place];
            losses[row * u..][..u].copy_from_slice(&around[place * u..][..u]);
        })
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = self.engine.inputs.blocks();
        check_len("losses", losses.len(), of.len() * states)?;
        let ask = |questions: &mut Questions<'_>, rows: &[usize], of: &[u32]| {
            let mut losses = vec![0.0; rows.len() * states];
            questions.states(of, &mut losses).map(|()| losses)
        };
        self.each(of, ask, |row, own, found| {
            losses[row * states..][..states].copy_from_slice(&found[own * states..][..states]);
        })
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let u = self.engine.structure.unary();
        check_len("codes", codes.len(), of.len() * u)?;
        check_len("losses", losses.len(), of.len())?;
        check_len("slopes", slopes.len(), of.len() * u)?;
        let ask = |questions: &mut Questions<'_>, rows: &[usize], of: &[u32]| {
            let mut found = (vec![0.0; rows.len()], vec![0.0; rows.len() * u]);
            questions.slopes(of, &pick(codes, rows, u), &mut found.0, &mut found.1).map(|()| found)
        };
        self.each(of, ask, |row, own, (loss, slope)| {
            losses[row] = loss[own];
            slopes[row * u..][..u].copy_from_slice(&slope[own * u..][..u]);
        })
    }

    /// Nothing is trained here.
    fn follow(&mut self, _: Followed<'_>) -> Result<(), Error> {
        Ok(())
    }
}
