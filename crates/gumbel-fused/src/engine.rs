//! The engine: its memory, the phases of a step, and what it answers.

use super::ask::{self, DecoderLayers};
use super::bits::{Bits, Members};
use super::codes::{self, Codes, Input, Ones};
use super::dense::{self, Dense};
use super::first::{self, First, Part};
use super::mixed::{self, Mixed};
use super::output::{self, Output, Role};
use super::rows::{self, Plan, Rows, Seam, Shared};
use super::simd::{Isa, LANES, Lane, flat, flat_mut, lanes};
use super::states::States;
use super::team::{self, Team, each, each_with, parts};
use super::tile::Rates;
use super::turned::{self, Turned};
use gumbel::Error;
use gumbel::continuous::{Continuous, Draw, Inputs};
use gumbel::engine::{Asked, Engine, Images, ModelOptions, StepOptions, StepReport, check_loss};
use gumbel::estimator::{Estimator, Follows, MEASURES, Tally, at_most};
use gumbel::network::{BETA1, BETA2, Moments, Named, Parameters, Snapshot, perceptron, widths};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::{Followed, Oracle, check_len, check_rows};
use gumbel::structure::{AnyStructure, Structure};
use std::sync::Arc;

/// The largest table that a step decodes with gradient.
const MAX_STATES: usize = 1024;
/// The most states of several variables that are asked about one by one.
const MOST_ASKED: usize = 1 << 16;
/// Most rows of the decoder.
const MAX_ROWS: usize = 4096;

/// A perceptron on both sides with its optimiser; see the [crate](crate).
pub struct Fused {
    structure: Arc<AnyStructure>,
    inputs: Inputs,
    pixels: usize,
    /// Widths of the encoder's hidden layers; the decoder has them in reverse order.
    hidden: Vec<usize>,
    lr: f64,
    /// By what it is multiplied in the present step.
    share: f64,
    steps: u64,
    /// Most images in a step.
    batch: usize,
    plan: Plan,
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
    /// Where the table has one row for each image: which, and its weight.
    chosen: (Vec<u32>, Vec<f32>),
    /// Numbers that the estimator learns from.
    sums: Vec<f32>,
    /// Whether the output layer's logits belong to the present parameters.
    fresh: bool,
    /// All states, where they are asked about without being followed.
    all: States,
    /// The output layer for single rows.
    turned: Turned,
    /// Splits as lists, by their keys, the last used at the end.
    images: Vec<(u64, Arc<Bits>)>,
}

/// Why this engine cannot have a model, if it cannot: what it needs, in words.
pub fn refusal(options: &ModelOptions<'_>) -> Option<String> {
    if options.device != "cpu" {
        return Some("device = cpu".into());
    }
    if options.likelihood.name() != "bernoulli" {
        return Some("likelihood = bernoulli".into());
    }
    if options.continuous != Continuous::None {
        return mixed::refusal(options);
    }
    if !options.binary {
        return Some("binary images, in labelled steps too".into());
    }
    if widths(options.settings.text("hidden")).is_ok_and(|hidden| hidden.is_empty()) {
        return Some("a hidden layer".into());
    }
    if options.shape.len() > Bits::MAX_PIXELS {
        return Some(format!("images of at most {} pixels", Bits::MAX_PIXELS));
    }
    let hidden = widths(options.settings.text("hidden")).ok()?.len();
    let shared = shared(hidden, options.batch);
    let plan = Plan::new(&options.structure, options.estimator, options.samples, shared).ok()?;
    too_large(&plan, options.batch)
}

/// What a plan would have to be for batches of so many images, if it is too large.
fn too_large(plan: &Plan, batch: usize) -> Option<String> {
    if plan.states > MAX_STATES {
        return Some(format!("at most {MAX_STATES} states to enumerate"));
    }
    if batch > usize::from(u16::MAX) {
        return Some(format!("batch-size of at most {}", u16::MAX)); // places in a batch are numbers of 16 bits
    }
    let rows = plan.rows(batch);
    (rows > MAX_ROWS).then(|| format!("batch-size times samples of at most {MAX_ROWS}"))
}

/// The most states whose rows images share on the way back: it is written out for one hidden layer.
fn shared(hidden: usize, batch: usize) -> usize {
    if hidden == 1 { batch } else { 0 }
}

/// Refuses a model, and says so.
///
/// # Errors
/// A model that it [refuses](refusal).
pub fn check(options: &ModelOptions<'_>) -> Result<(), Error> {
    match refusal(options) {
        None => Ok(()),
        Some(expected) => Err(Error::setting("engine", "fused", format!("autodiff, as fused needs {expected}"))),
    }
}

/// Constructs the perceptron of some options with its initial parameters.
///
/// # Errors
/// A model that it [refuses](refusal), settings out of range, an unknown instruction set in the environment.
pub fn model(options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    match options.continuous {
        Continuous::None => Ok(Box::new(Fused::new(options)?)),
        _ => Ok(Box::new(Mixed::new(options)?)),
    }
}

impl Fused {
    /// The perceptron of some options with its initial parameters.
    ///
    /// # Errors
    /// As [`model`].
    pub fn new(options: &ModelOptions<'_>) -> Result<Self, Error> {
        check(options)?;
        if options.continuous != Continuous::None {
            return Err(Error::setting("continuous", options.continuous, "none, or a model with Gaussian codes"));
        }
        let hidden = widths(options.settings.text("hidden"))?;
        let structure = Arc::new(options.structure.clone());
        let (pixels, batch) = (options.shape.len(), options.batch);
        let plan = Plan::new(&structure, options.estimator, options.samples, shared(hidden.len(), batch))?;
        let reversed: Vec<usize> = hidden.iter().rev().copied().collect();
        let encoder_widths: Vec<usize> = hidden.iter().copied().chain([structure.potentials()]).collect();
        let rows = plan.rows(batch);
        let mut engine = Fused {
            inputs: Inputs::discrete(&structure),
            pixels,
            lr: options.lr,
            share: 1.0,
            steps: 0,
            batch,
            plan,
            isa: Isa::detect()?,
            team: Team::new(options.threads.max(1)),
            members: Members::new(pixels, batch),
            first: First::new(pixels, hidden[0], batch),
            encoder: encoder_widths.windows(2).map(|w| Dense::new(w[0], w[1], batch)).collect(),
            rows: vec![],
            codes: Codes::new(structure.unary(), reversed[0], rows),
            decoder: reversed.windows(2).map(|w| Dense::new(w[0], w[1], rows)).collect(),
            output: Output::new(pixels, hidden[0], rows),
            table: Ones::new(0, structure.unary()),
            totals: vec![],
            chosen: (vec![0; batch], vec![0.0; batch]),
            sums: vec![],
            fresh: false,
            all: States::default(),
            turned: Turned::default(),
            images: vec![],
            structure,
            hidden,
        };
        engine.adopt(plan);
        let parameters = engine.initial(options.seed);
        engine.restore(&Snapshot { parameters, moments: vec![], steps: 0 })?;
        Ok(engine)
    }

    /// Makes the memory that an estimator needs.
    fn adopt(&mut self, plan: Plan) {
        let structure = Arc::clone(&self.structure);
        let (chunks, rows) = (lanes(self.batch), plan.rows(self.batch));
        let reversed: Vec<usize> = self.hidden.iter().rev().copied().collect();
        self.rows = (0..chunks).map(|c| Rows::new(c, &structure, &plan, &reversed)).collect();
        self.codes.groups.iter_mut().for_each(|group| group.units.resize(rows));
        self.decoder.iter_mut().flat_map(|l| &mut l.outs).for_each(|out| out.units.resize(rows));
        self.decoder.iter_mut().for_each(|layer| layer.resize_slabs(rows));
        self.output.resize(rows);
        self.totals = vec![Lane::ZERO; lanes(rows)];
        self.sums = vec![0.0; plan.sums];
        self.table = Ones::new(plan.states, structure.unary());
        let mut z = vec![0; structure.variables()];
        for s in 0..plan.states {
            structure.state(s, &mut z);
            self.table.set(s, &structure, &z);
        }
        self.plan = plan;
        self.decode_table();
        self.fresh = false;
    }

    /// Refuses a step that the memory is not made for.
    fn check_step(&self, bits: &Bits, batch: &[u32], plan: &Plan) -> Result<(), Error> {
        let failed = |detail| Err(Error::Failed { detail });
        if let Some(needs) = too_large(plan, self.batch) {
            return failed(format!("the fused engine needs {needs} for this estimator"));
        }
        if batch.len() > self.batch {
            return failed(format!("expected at most {} images in a step, found {}", self.batch, batch.len()));
        }
        match batch.iter().find(|image| **image as usize >= bits.count()) {
            Some(image) => failed(format!("expected images below {}, found {image}", bits.count())),
            None => Ok(()),
        }
    }

    /// Uses another instruction set of this machine.
    pub fn set_isa(&mut self, isa: Isa) {
        self.isa = isa;
        self.fresh = false;
        self.all.forget();
        self.turned.forget();
    }

    /// Widths of all layers of the encoder, and of the decoder.
    fn layers(&self) -> [Vec<usize>; 2] {
        let encoder = [&[self.pixels], &self.hidden[..], &[self.structure.potentials()]].concat();
        let mut decoder = encoder.clone();
        decoder.reverse();
        decoder[0] = self.structure.unary();
        [encoder, decoder]
    }

    /// Parameters at the beginning.
    fn initial(&self, seed: u64) -> Parameters {
        let [encoder, decoder] = self.layers();
        Parameters { encoder: perceptron(&encoder, seed, 0), decoder: perceptron(&decoder, seed, 1) }
    }

    /// Visits all parameters with their moments: layer, part, index in the part.
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

    /// The images of a key as lists.
    fn bits(&mut self, images: &dyn Images) -> Result<Arc<Bits>, Error> {
        // Training, its evaluation, validation and test.
        const KEPT: usize = 4;
        let key = images.key();
        if let Some(at) = self.images.iter().position(|(k, _)| *k == key) {
            let found = self.images.remove(at);
            self.images.push(found);
        } else {
            let pixels = images.shape().len();
            if pixels != self.pixels {
                let detail = format!("expected images of {} pixels, found {pixels}", self.pixels);
                return Err(Error::Failed { detail });
            }
            let other = || Error::Failed { detail: "expected binary images, found other levels".into() };
            let bits = Bits::new(&images.bytes()?, pixels).ok_or_else(other)?;
            if self.images.len() == KEPT {
                self.images.remove(0);
            }
            self.images.push((key, Arc::new(bits)));
        }
        Ok(self.images.last().expect("it was just put there").1.clone())
    }

    fn rates(&self) -> Rates {
        let t = self.steps.min(i32::MAX as u64) as i32;
        Rates {
            rate: (self.lr * self.share / (1.0 - (BETA1 as f64).powi(t))) as f32,
            root: (1.0 / (1.0 - (BETA2 as f64).powi(t)).sqrt()) as f32,
        }
    }

    /// Phase 1.
    fn begin(&mut self, shared: &Shared<'_>) {
        let (isa, states) = (self.isa, self.plan.states);
        let (codes, decoder, rows) = (&self.codes, &self.decoder, states);
        let refresh = !self.fresh;
        let members = each(std::slice::from_mut(&mut self.members), |_, m| m.fill(shared.bits, shared.batch));
        let noise = each(&mut self.rows, |_, rows| isa.run(rows::Begin { rows, shared }));
        let slices = &self.first.slices;
        let first = each(&mut self.first.groups, |number, group| {
            isa.run(first::Forward { number, group, slices, bits: shared.bits, batch: shared.batch });
        });
        let width = self.output.units;
        let Output { blocks, logits, .. } = &mut self.output;
        let blocks = if states > 0 && refresh { &mut blocks[..] } else { &mut [] };
        let table = each_with(blocks, logits, Output::part(rows), |_, block, logits| {
            let (units, transposed) = (|g, c| tile(codes, decoder, g, c), |g, c| transposed(codes, decoder, g, c));
            isa.run(output::Forward { block, logits, transposed, units, width, rows });
        });
        self.team.run(&[&members, &noise, &table, &first]);
        self.fresh = states > 0;
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

    /// Phase 2: potentials and KL, then the estimator.
    fn seam(&mut self, shared: &Shared<'_>, estimator: &dyn Estimator) {
        let isa = self.isa;
        let questions = estimator.questions(shared.structure);
        // Losses at states of one variable are in the table.
        let single = questions.slopes || questions.losses && !(self.plan.states > 0 && shared.structure.is_single());
        if single {
            self.turn();
        }
        let (last, before) = self.encoder.split_last().expect("the potentials have a layer");
        let first = &self.first;
        let (codes, dense, output, turned) = (&self.codes, &self.decoder[..], &self.output, &self.turned);
        let decoder = DecoderLayers { codes, dense, output, turned };
        let asks_all = questions.states && self.plan.states == 0;
        if asks_all {
            self.all.refresh(&mut self.team, isa, shared.structure, decoder, self.steps);
        }
        let seam = Seam { isa, shared, decoder, turned: single, all: asks_all.then_some(&self.all) };
        let x = |g, c| encoder_tile(first, before, g, c);
        let together = if self.plan.together { self.team.threads().min(self.rows.len()) } else { self.rows.len() };
        self.team.run(&[&parts(&mut self.rows, together, |_, all| {
            all.iter_mut().for_each(|rows| isa.run(rows::Encode { rows, shared, layer: last, x }));
            Rows::estimate(all, seam, estimator);
        })]);
    }

    /// Prepares for questions about single rows.
    fn turn(&mut self) {
        self.turned.refresh(&mut self.team, &self.output, &mut self.codes, self.steps);
    }

    fn report(&mut self) -> Result<StepReport, Error> {
        let mut report = StepReport { reconstruction: 0.0, tallies: [Tally::default(); MEASURES] };
        for rows in &mut self.rows {
            if let Some(error) = rows.outcome.error.take() {
                return Err(error);
            }
            report.reconstruction += rows.outcome.reconstruction;
        }
        check_loss(report.reconstruction)?;
        report.tallies = self.tallies();
        Ok(report)
    }

    fn tallies(&self) -> [Tally; MEASURES] {
        let mut tallies = [Tally::default(); MEASURES];
        for rows in &self.rows {
            tallies.iter_mut().zip(&rows.outcome.tallies).for_each(|(all, t)| all.merge(t));
        }
        tallies
    }

    /// The images' weights at the states of the table.
    fn table_totals(&mut self) {
        let totals = &mut self.totals[..lanes(self.plan.states)];
        totals.fill(Lane::ZERO);
        if self.plan.weighted() {
            for (rows, row) in self.rows.iter().flat_map(|rows| (0..rows.count).map(move |row| (rows, row))) {
                for (total, weight) in totals.iter_mut().zip(rows.weights(row)) {
                    total.0.iter_mut().zip(weight.0).for_each(|(t, w)| *t += w);
                }
            }
        } else {
            let images = self.rows.iter().flat_map(|rows| rows.chosen());
            let places = self.chosen.0.iter_mut().zip(&mut self.chosen.1);
            for ((z, weight), (chosen, weights)) in images.zip(places) {
                (*chosen, *weights) = (z, weight);
                flat_mut(totals)[z as usize] += weight;
            }
        }
    }

    /// The slopes at the states that images follow, and what the estimator makes of them.
    fn table_slopes(&mut self, shared: &Shared<'_>, estimator: &dyn Estimator) {
        let Fused { isa, team, rows, codes, decoder, output, turned, plan, .. } = self;
        let (isa, states, width) = (*isa, plan.states, output.units);
        team.run(&[&each(&mut output.blocks, |_, block| isa.run(output::Pull { block, width, rows: states }))]);
        let blocks = &output.blocks;
        team.run(&[&each(&mut codes.groups, |group, codes| {
            isa.run(output::Gather { blocks, group, rows: states, units: &mut codes.units });
        })]);
        let decoder = DecoderLayers { codes, dense: decoder, output, turned };
        let seam = Seam { isa, shared, decoder, turned: false, all: None };
        team.run(&[&each(rows, |_, rows| rows.resume(seam, estimator, 0))]);
    }

    /// Phases 3 and 4 where the decoder's rows are states.
    fn backward_table(&mut self, shared: &Shared<'_>, rates: Rates) {
        let Fused { isa, team, members, first, encoder, rows, codes, decoder, output, table, totals, plan, .. } = self;
        let (isa, states, width) = (*isa, plan.states, output.units);
        let (bits, batch) = (shared.bits, shared.batch);
        let weights = |place: usize| rows[place / LANES].weights(place % LANES);
        let role = match plan.weighted() {
            true => Role::Weighted { weights: &weights },
            false => Role::Chosen { chosen: &self.chosen.0, weights: &self.chosen.1 },
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

    /// What follows the seam where the decoder's rows are images; returns the mean loss of what was followed.
    fn backward_images(&mut self, shared: &Shared<'_>, estimator: &dyn Estimator, rates: Rates) -> Result<f64, Error> {
        let Fused { isa, team, members, first, encoder, rows: pieces, codes, decoder, .. } = self;
        let Fused { output, turned, totals, plan, .. } = self;
        let (isa, width, plan) = (*isa, output.units, *plan);
        let (bits, batch, structure) = (shared.bits, shared.batch, shared.structure);
        let (chunks, count) = (lanes(shared.batch.len()), shared.batch.len());
        let stride = chunks * LANES;
        let rows = (plan.numbers - 1) * stride + count;
        let soft = plan.follows == Follows::Codes;
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
            if plan.slopes {
                group.transpose();
            }
        })]);
        decode(team, isa, codes, decoder, rows);

        let totals = &mut totals[..lanes(rows)];
        totals.fill(Lane::ZERO);
        for number in 0..plan.numbers {
            let places = flat_mut(&mut totals[number * chunks..]).chunks_mut(LANES);
            for (places, piece) in places.zip(&*pieces).take(chunks) {
                let weights = piece.row_weights(number);
                places[..weights.len()].copy_from_slice(weights);
            }
        }
        let totals = &*totals;
        let role = Role::Images { stride, numbers: plan.numbers, weights: flat(totals) };
        let (units, transposed) = (|g, c| tile(codes, decoder, g, c), |g, c| transposed(codes, decoder, g, c));
        let Output { blocks, logits, .. } = &mut *output;
        let blocks = each_with(blocks, logits, Output::part(rows), |_, block, logits| {
            isa.run(output::Forward { block, logits, transposed, units, width, rows });
            isa.run(output::Backward { block, logits, units, width, rows, totals, role: &role, bits, batch, rates });
        });
        match plan.slopes {
            false => backward_encoder(team, isa, (first, encoder, pieces), shared, rates, &blocks),
            true => team.run(&[&blocks]),
        }
        gather(team, isa, codes, decoder, output, rows);
        backward_decoder(team, isa, codes, decoder, rows, rates);
        let mut reconstruction = 0.0;
        for (r, weight) in flat(totals).iter().enumerate().filter(|(_, w)| **w != 0.0) {
            let loss = output.blocks.iter().map(|b| b.sums[r / LANES].0[r % LANES] as f64).sum::<f64>();
            reconstruction += loss * *weight as f64;
        }
        check_loss(reconstruction)?;
        if plan.slopes {
            let decoder = DecoderLayers { codes, dense: decoder, output, turned };
            let seam = Seam { isa, shared, decoder, turned: false, all: None };
            team.run(&[&each(pieces, |_, rows| rows.resume(seam, estimator, chunks))]);
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
        let Fused { isa, team, codes, decoder, table, plan, .. } = self;
        let (isa, rows) = (*isa, plan.states);
        let table = &*table;
        team.run(&[&each(&mut codes.groups, |_, group| {
            let input = Input::<_, NoTile>::Ones(|r: usize| table.of(r));
            isa.run(codes::Forward { group, input, rows });
        })]);
        decode(team, isa, codes, decoder, rows);
    }
}

impl Engine for Fused {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn arithmetic(&self) -> String {
        self.isa.name().into()
    }

    fn structure(&self) -> &AnyStructure {
        &self.structure
    }

    fn prepare(&mut self, images: &dyn Images, _: &[u32]) -> Result<(), Error> {
        self.bits(images).map(drop)
    }

    fn step(
        &mut self,
        images: &dyn Images,
        batch: &[u32],
        estimator: &mut dyn Estimator,
        options: &StepOptions<'_>,
    ) -> Result<StepReport, Error> {
        self.share = options.rate as f64;
        let bits = self.bits(images)?;
        let structure = Arc::clone(&self.structure);
        let plan = Plan::new(&structure, estimator, options.samples, shared(self.hidden.len(), self.batch))?;
        self.check_step(&bits, batch, &plan)?;
        if plan != self.plan {
            self.adopt(plan);
        }
        let shared = Shared {
            structure: &structure,
            bits: &bits,
            batch,
            plan,
            kl_weight: options.kl_weight,
            noise: options.noise,
        };
        self.begin(&shared);
        self.seam(&shared, &*estimator);
        let mut report = self.report()?;
        self.steps += 1;
        let rates = self.rates();
        if plan.states > 0 {
            self.table_totals();
            if plan.slopes {
                self.table_slopes(&shared, &*estimator);
                report.tallies = self.report()?.tallies;
            }
            self.backward_table(&shared, rates);
        } else {
            report.reconstruction = self.backward_images(&shared, &*estimator, rates)?;
            self.rows.iter_mut().find_map(|rows| rows.outcome.error.take()).map_or(Ok(()), Err)?;
            // Those that were resumed have measured something since.
            report.tallies = self.tallies();
        }
        if plan.sums > 0 {
            self.sums.fill(0.0);
            for rows in self.rows.iter().filter(|rows| rows.count > 0) {
                self.sums.iter_mut().zip(&rows.sums).for_each(|(all, s)| *all += s);
            }
            estimator.learn(&self.sums);
        }
        Ok(report)
    }

    fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    fn ask<'a>(&'a mut self, images: &'a dyn Images, batch: &'a [u32], _: Draw<'_>) -> Result<Asked<'a>, Error> {
        let bits = self.bits(images)?;
        let structure = Arc::clone(&self.structure);
        let p = structure.potentials();
        let mut potentials = vec![0.0; batch.len() * p];
        let noise = Noise::new(0, Purpose::User(0), 0);
        let plan = Plan { noise: 0, ..self.plan };
        let most = self.batch;
        for (batch, out) in batch.chunks(most).zip(potentials.chunks_mut(most * p)) {
            let shared = Shared { structure: &structure, bits: &bits, batch, plan, kl_weight: 0.0, noise: &noise };
            self.begin(&shared);
            let Fused { isa, team, first, encoder, rows, .. } = &mut *self;
            let isa = *isa;
            let (last, before) = encoder.split_last().expect("the potentials have a layer");
            let x = |g, c| encoder_tile(first, before, g, c);
            // Work is for slices: each piece of rows takes its part of the answer along.
            let mut items: Vec<_> = rows.iter_mut().zip(out.chunks_mut(LANES * p)).collect();
            team.run(&[&each(&mut items, |_, (rows, out)| {
                isa.run(rows::Encode { rows, shared: &shared, layer: last, x });
                out.copy_from_slice(rows.potentials(&structure));
            })]);
        }
        // The table that the step before has left, if there is one, belongs to the present parameters now.
        Ok(Asked { potentials, oracle: Box::new(Answers { engine: self, bits, batch }), codes: None })
    }

    fn means(&mut self, codes: &[f32], means: &mut [f32]) -> Result<(), Error> {
        let (u, pixels) = (self.structure.unary(), self.pixels);
        check_len("codes", codes.len(), codes.len().next_multiple_of(u))?;
        check_len("means", means.len(), codes.len() / u * pixels)?;
        let Fused { codes: first, decoder: dense, output, turned, rows, team, isa, .. } = self;
        let part = (codes.len() / u).div_ceil(rows.len()).max(1).next_multiple_of(LANES);
        let decoder = DecoderLayers { codes: first, dense, output, turned };
        let isa = *isa;
        let parts = codes.chunks(part * u).zip(means.chunks_mut(part * pixels));
        let mut items: Vec<_> = rows.iter_mut().zip(parts).collect();
        team.run(&[&each(&mut items, |_, (rows, (codes, means))| {
            isa.run(ask::Means { scratch: &mut rows.scratch, decoder, codes, means });
        })]);
        Ok(())
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut parameters: Vec<Named> = vec![];
        for widths in self.layers() {
            for (l, pair) in widths.windows(2).enumerate() {
                let named = |part: &str, shape: &[usize]| Named {
                    name: format!("layers.{l}.{part}"),
                    shape: shape.to_vec(),
                    values: vec![0.0; shape.iter().product()],
                };
                parameters.extend([named("weight", pair), named("bias", &pair[1..])]);
            }
        }
        let zero = |p: &Named| Moments { first: vec![0.0; p.values.len()], second: vec![0.0; p.values.len()] };
        let mut moments: Vec<Moments> = parameters.iter().map(zero).collect();
        self.visit(|layer, part, index, [p, m, v]| {
            let slot = 2 * layer + (part == Part::Bias) as usize;
            parameters[slot].values[index] = *p;
            (moments[slot].first[index], moments[slot].second[index]) = (*m, *v);
        });
        let decoder = parameters.split_off(2 * self.hidden.len() + 2);
        let moments = if self.steps == 0 { vec![] } else { moments };
        Snapshot { parameters: Parameters { encoder: parameters, decoder }, moments, steps: self.steps }
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let [encoder, decoder] = self.layers();
        for (what, stored, widths) in
            [("encoder", &snapshot.parameters.encoder, encoder), ("decoder", &snapshot.parameters.decoder, decoder)]
        {
            gumbel::network::fits(what, stored, &widths)?;
        }
        let all: Vec<&Named> = snapshot.parameters.all().collect();
        let moments = &snapshot.moments;
        let sized = |(m, p): (&Moments, &&Named)| m.first.len() == p.values.len() && m.second.len() == p.values.len();
        if !moments.is_empty() && (moments.len() != all.len() || !moments.iter().zip(&all).all(sized)) {
            return Err(Error::Failed { detail: "moments of another model".into() });
        }
        self.steps = snapshot.steps;
        self.visit(|layer, part, index, [p, m, v]| {
            let slot = 2 * layer + (part == Part::Bias) as usize;
            *p = all[slot].values[index];
            (*m, *v) = moments.get(slot).map_or((0.0, 0.0), |m| (m.first[index], m.second[index]));
        });
        self.first.refresh();
        self.encoder.iter_mut().chain(&mut self.decoder).for_each(Dense::refresh);
        self.decode_table();
        self.fresh = false;
        self.all.forget();
        self.turned.forget();
        Ok(())
    }
}

/// The oracle of some images for those who ask from outside of a step: all threads answer.
struct Answers<'a> {
    engine: &'a mut Fused,
    bits: Arc<Bits>,
    batch: &'a [u32],
}

impl Answers<'_> {
    fn images(&self, of: &[u32]) -> Vec<u32> {
        of.iter().map(|b| self.batch[*b as usize]).collect()
    }

    fn check(&self, of: &[u32], what: &'static str, found: usize, width: usize) -> Result<(), Error> {
        check_rows(of, self.batch.len(), what, found, width)
    }

    /// Rows for each piece of the engine.
    fn part(&self, rows: usize) -> usize {
        rows.div_ceil(self.engine.rows.len()).max(1).next_multiple_of(LANES)
    }
}

/// Names of all that answers need, apart from each other.
macro_rules! parts {
    ($answers:expr => $structure:ident, $rows:ident, $team:ident, $decoder:ident, $isa:ident, $bits:ident) => {
        $answers.engine.turn();
        let Fused {
            structure: $structure, rows: $rows, team: $team, codes, decoder: dense, output, turned, isa, ..
        } = &mut *$answers.engine;
        let ($decoder, $isa) = (DecoderLayers { codes, dense, output, turned }, *isa);
        let ($bits, $structure): (&Bits, &AnyStructure) = (&$answers.bits, $structure);
    };
}

impl Oracle for Answers<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.check(of, "assignments", assignments.len(), self.engine.structure.variables())?;
        check_len("losses", losses.len(), of.len())?;
        let (images, part) = (self.images(of), self.part(of.len()));
        parts!(self => structure, rows, team, decoder, isa, bits);
        let n = structure.variables();
        let parts = images.chunks(part).zip(assignments.chunks(part * n)).zip(losses.chunks_mut(part));
        let mut items: Vec<_> = rows.iter_mut().zip(parts).collect();
        team.run(&[&each(&mut items, |_, (rows, ((of, assignments), losses))| {
            let scratch = &mut rows.scratch;
            isa.run(turned::Losses { scratch, structure, decoder, bits, of, assignments, losses });
        })]);
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        self.check(of, "assignments", assignments.len(), self.engine.structure.variables())?;
        check_len("own losses", own.len(), of.len())?;
        check_len("losses", losses.len(), of.len() * self.engine.structure.unary())?;
        let (images, part) = (self.images(of), self.part(of.len()));
        parts!(self => structure, rows, team, decoder, isa, bits);
        let (n, u) = (structure.variables(), structure.unary());
        let parts = images.chunks(part).zip(assignments.chunks(part * n));
        let parts = parts.zip(own.chunks_mut(part).zip(losses.chunks_mut(part * u)));
        let mut items: Vec<_> = rows.iter_mut().zip(parts).collect();
        team.run(&[&each(&mut items, |_, (rows, ((of, assignments), (own, losses)))| {
            let scratch = &mut rows.scratch;
            isa.run(ask::Around { scratch, structure, decoder, bits, of, assignments, own, losses });
        })]);
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = match self.engine.plan.states {
            0 if self.engine.structure.is_single() => self.engine.structure.unary(),
            0 => at_most(&*self.engine.structure, MOST_ASKED)?,
            states => states,
        };
        self.check(of, "losses", losses.len(), states)?;
        let images = self.images(of);
        if self.engine.plan.states == states {
            return self.engine.table_losses(&self.bits, &images, losses);
        }
        let steps = self.engine.steps;
        let Fused { structure, team, codes, decoder: dense, output, turned, isa, all, .. } = &mut *self.engine;
        let decoder = DecoderLayers { codes, dense, output, turned };
        all.refresh(team, *isa, structure, decoder, steps);
        all.losses(team, *isa, decoder, &self.bits, &images, losses);
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let u = self.engine.structure.unary();
        self.check(of, "codes", codes.len(), u)?;
        check_len("losses", losses.len(), of.len())?;
        check_len("slopes", slopes.len(), of.len() * u)?;
        let (images, part) = (self.images(of), self.part(of.len()));
        parts!(self => structure, rows, team, decoder, isa, bits);
        let u = structure.unary();
        let parts = images.chunks(part).zip(codes.chunks(part * u));
        let parts = parts.zip(losses.chunks_mut(part).zip(slopes.chunks_mut(part * u)));
        let mut items: Vec<_> = rows.iter_mut().zip(parts).collect();
        team.run(&[&each(&mut items, |_, (rows, ((of, codes), (losses, slopes)))| {
            let scratch = &mut rows.scratch;
            isa.run(turned::Slopes { scratch, decoder, bits, of, codes, losses, slopes });
        })]);
        Ok(())
    }

    fn tangents(&mut self, of: &[u32], codes: &[f32], directions: &[f32], tangents: &mut [f32]) -> Result<(), Error> {
        let u = self.engine.structure.unary();
        self.check(of, "codes", codes.len(), u)?;
        check_len("directions", directions.len(), of.len() * u)?;
        check_len("tangents", tangents.len(), of.len() * u)?;
        let part = self.part(of.len()) * u;
        parts!(self => _structure, rows, team, decoder, isa, _bits);
        let parts = codes.chunks(part).zip(directions.chunks(part)).zip(tangents.chunks_mut(part));
        let mut items: Vec<_> = rows.iter_mut().zip(parts).collect();
        team.run(&[&each(&mut items, |_, (rows, ((codes, directions), tangents))| {
            let scratch = &mut rows.scratch;
            isa.run(turned::Tangents { scratch, decoder, codes, directions, tangents });
        })]);
        Ok(())
    }

    /// Nothing is trained here.
    fn follow(&mut self, _: Followed<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl Fused {
    /// Losses `[images, states]` at the states of the table.
    fn table_losses(&mut self, bits: &Bits, images: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let Fused { isa, team, output, plan, .. } = self;
        let (isa, states) = (*isa, plan.states);
        let mut items: Vec<_> = images.chunks(LANES).zip(losses.chunks_mut(LANES * states)).collect();
        let output = &*output;
        team.run(&[&each(&mut items, |_, (images, losses)| {
            let mut row = vec![Lane::ZERO; lanes(states)];
            for (image, out) in images.iter().zip(losses.chunks_exact_mut(states)) {
                let ones = bits.all_ones(*image as usize);
                isa.run(rows::TableLosses { output, ones, losses: &mut row });
                out.copy_from_slice(&flat(&row)[..states]);
            }
        })]);
        Ok(())
    }
}

/// The type of a closure that is never made.
type NoTile = fn(usize, usize) -> &'static [Lane];

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

/// The encoder's layers after the first backwards, beside other work; leaves the gradient at the first layer's units
/// in the slabs of the second.
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
