//! Some images of a batch: their potentials and codes, and the oracle that answers for them.
//!
//! What an answer needs is computed when it is asked for: the codes of the states in question, then their losses. A
//! step on labelled images asks for no loss, and needs the codes of their labels only.

use super::layer::{Forward, Layer, Lists, Losses, Memory, Rows, Store};
use super::perceptron::{Pass, Perceptron, Pool, Work, room};
use super::way::Way;
use crate::simd::{Isa, Lane, flat, flat_mut, lanes};
use gumbel::Error;
use gumbel::continuous::{Draw, Inputs, KlWeights, kl};
use gumbel::noise::Noise;
use gumbel::oracle::{Followed, Oracle, check_len, check_rows};
use gumbel::structure::{AnyStructure, Structure};

/// Images of a seat.
pub const IMAGES: usize = 128;
/// Rows that go through a perceptron together: what they leave stays in the cache.
pub const GROUP: usize = 128;

/// The model's layers.
pub struct Layers {
    pub trunk: Perceptron,
    pub head: Perceptron,
    /// From the trunk to the part of each code.
    pub parts: Vec<Layer>,
    pub shared: Perceptron,
    pub decoder: Perceptron,
    /// Probability of a unit before the last shared layer to be left out.
    pub dropout: f32,
}

/// What does not change between questions.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub isa: Isa,
    pub layers: &'a Layers,
    pub structure: &'a AnyStructure,
    pub inputs: &'a Inputs,
    pub draw: Draw<'a>,
    /// The stream of what is left out, in training.
    pub dropout: Option<&'a Noise>,
    /// Weights of the codes' KL.
    pub kl: KlWeights,
    pub pool: &'a Pool,
}

impl Context<'_> {
    /// Number of states.
    pub fn states(&self) -> usize {
        self.inputs.blocks()
    }

    /// Dimensions of a code.
    pub fn dim(&self) -> usize {
        self.inputs.kind().dim()
    }

    /// By what units are multiplied that dropout leaves in.
    pub fn kept(&self) -> f32 {
        if self.dropout.is_some() { 1.0 / (1.0 - self.layers.dropout) } else { 1.0 }
    }
}

/// Some images.
#[derive(Default)]
pub struct Seat {
    /// The place of the first in the batch.
    pub first: usize,
    pub count: usize,
    /// `[count, lanes of pixels]`.
    pub images: Vec<Lane>,
    pub trunk: Pass,
    /// Its first rows are what the trunk emits: the parts read them too.
    pub head: Pass,
    /// `[count, P]`.
    pub potentials: Vec<f32>,
    pub codes: Codes,
    /// Losses `[count, K]`, and which of them are known: the bits of an image's states.
    losses: Vec<f32>,
    known: Vec<u64>,
    pub way: Way,
}

/// The Gaussian codes of some images.
#[derive(Default)]
pub struct Codes {
    /// Which are drawn: the bits of an image's states.
    drawn: Vec<u64>,
    /// What the encoder says `[count, K, 2, D]`: means, then log-variances.
    pub parameters: Vec<f32>,
    /// `[count, K, D]`.
    pub samples: Vec<f32>,
    pub noise: Vec<f32>,
    /// What losses have of them, and their KL `[count, K]`.
    pub terms: Vec<f32>,
    pub kl: Vec<f32>,
}

impl Codes {
    /// The code of an image and a state, whose number is `at`, of parameters `[2, D]`.
    fn draw(&mut self, cx: Context<'_>, first: usize, at: usize, parameters: &[f32]) {
        let dim = cx.dim();
        let (b, k) = (at / cx.states(), at % cx.states());
        self.parameters[2 * at * dim..][..2 * dim].copy_from_slice(parameters);
        let (mean, log_variance) = parameters.split_at(dim);
        let noise = &mut self.noise[at * dim..][..dim];
        match cx.draw {
            Draw::Mean => noise.fill(0.0),
            // The noise of an image is that of all its codes in a row, two uniform variables for each number.
            Draw::Sample(stream) | Draw::Weight(stream) => {
                stream.at_row(first + b).at((2 * k * dim) as u64).normal(noise);
            }
        }
        let samples = &mut self.samples[at * dim..][..dim];
        for (d, c) in samples.iter_mut().enumerate() {
            *c = mean[d] + (0.5 * log_variance[d]).exp() * noise[d];
        }
        self.kl[at] = kl(parameters);
        self.terms[at] = match cx.draw {
            Draw::Mean => 0.0,
            Draw::Sample(_) => cx.kl.term(self.kl[at]),
            Draw::Weight(_) => {
                let one = |d: usize| samples[d] * samples[d] - noise[d] * noise[d] - log_variance[d];
                0.5 * (0..dim).map(one).sum::<f32>()
            }
        };
        self.drawn[b] |= 1 << k;
    }
}

/// A layer of the model.
#[derive(Debug, Clone, Copy)]
pub enum Site {
    Trunk(usize),
    Head(usize),
    Part(usize),
    Shared(usize),
    Decoder(usize),
}

impl Layers {
    /// All layers.
    pub fn all(&mut self) -> impl Iterator<Item = (Site, &mut Layer)> {
        let trunk = self.trunk.layers.iter_mut().enumerate().map(|(l, layer)| (Site::Trunk(l), layer));
        let head = self.head.layers.iter_mut().enumerate().map(|(l, layer)| (Site::Head(l), layer));
        let parts = self.parts.iter_mut().enumerate().map(|(k, layer)| (Site::Part(k), layer));
        let shared = self.shared.layers.iter_mut().enumerate().map(|(l, layer)| (Site::Shared(l), layer));
        let decoder = self.decoder.layers.iter_mut().enumerate().map(|(l, layer)| (Site::Decoder(l), layer));
        trunk.chain(head).chain(parts).chain(shared).chain(decoder)
    }
}

/// The bits of all states.
pub fn every(states: usize) -> u64 {
    u64::MAX >> (64 - states)
}

impl Seat {
    /// Takes images `[count, pixels]`, the first of them at a place of the batch, and emits their potentials.
    pub fn encode(&mut self, cx: Context<'_>, first: usize, values: &[f32]) {
        let Layers { trunk, head, .. } = cx.layers;
        let pixels = trunk.layers[0].inputs;
        let (width, states) = (lanes(pixels), cx.states());
        (self.first, self.count) = (first, values.len() / pixels);
        let images = room(&mut self.images, self.count * width).chunks_exact_mut(width);
        let lists = self.trunk.begin(trunk);
        for (image, values) in images.zip(values.chunks_exact(pixels)) {
            lists.push_some(values);
            image[width - 1] = Lane::ZERO;
            flat_mut(image)[..pixels].copy_from_slice(values);
        }
        cx.pool.with(|Work { memory, out, .. }| {
            self.trunk.hidden(cx.isa, trunk, memory, out);
            let features = self.trunk.outputs(cx.isa, trunk, memory, out);
            let lists = self.head.begin(head);
            let last = trunk.last();
            features.chunks_exact(last.width()).for_each(|row| lists.push(0, &flat(row)[..last.outputs]));
            self.head.hidden(cx.isa, head, memory, out);
            let raw = self.head.outputs(cx.isa, head, memory, out);
            self.potentials.clear();
            let last = head.last();
            raw.chunks_exact(last.width()).for_each(|r| self.potentials.extend_from_slice(&flat(r)[..last.outputs]));
        });
        self.potentials.chunks_exact_mut(cx.structure.potentials()).for_each(|row| cx.structure.to_potentials(row));
        let Codes { drawn, parameters, samples, noise, terms, kl } = &mut self.codes;
        parameters.resize(2 * self.count * states * cx.dim(), 0.0);
        for bits in [drawn, &mut self.known] {
            bits.clear();
            bits.resize(self.count, 0);
        }
        for numbers in [samples, noise] {
            numbers.resize(self.count * states * cx.dim(), 0.0);
        }
        for numbers in [terms, kl, &mut self.losses] {
            numbers.resize(self.count * states, 0.0);
        }
        self.way.clear();
    }

    /// The Gaussian codes; all are drawn.
    pub fn all_codes(&mut self, cx: Context<'_>) -> &Codes {
        self.draw(cx, |_| every(cx.states()));
        &self.codes
    }

    /// Images and states, by states, of those that are wanted and not there.
    fn missing(states: usize, wanted: impl Fn(usize) -> u64, there: &[u64], pairs: &mut Vec<(u32, u32)>) {
        pairs.clear();
        for k in 0..states {
            let images = there.iter().enumerate().filter(|(b, there)| wanted(*b) & !**there & 1 << k != 0);
            pairs.extend(images.map(|(b, _)| (b as u32, k as u32)));
        }
    }

    /// Draws the codes that are wanted: the bits of an image's states.
    pub fn draw(&mut self, cx: Context<'_>, wanted: impl Fn(usize) -> u64) {
        cx.pool.with(|work| {
            let mut pairs = std::mem::take(&mut work.pairs);
            Seat::missing(cx.states(), wanted, &self.codes.drawn, &mut pairs);
            for pairs in pairs.chunks(GROUP) {
                let Work { shared, memory, out, part, mask, images, .. } = &mut *work;
                images.clear();
                images.extend(pairs.iter().map(|(b, _)| *b));
                let emitted = Parameters { cx, first: self.first, pairs, images, features: &self.head.lists[0] };
                let parameters = emitted.emit(shared, memory, (out, part, mask));
                let width = cx.layers.shared.last().width();
                for ((b, k), parameters) in pairs.iter().zip(parameters.chunks_exact(width)) {
                    let at = *b as usize * cx.states() + *k as usize;
                    self.codes.draw(cx, self.first, at, &flat(parameters)[..2 * cx.dim()]);
                }
            }
            work.pairs = pairs;
        });
    }

    /// Decodes the losses that are wanted.
    fn decode(&mut self, cx: Context<'_>, wanted: impl Fn(usize) -> u64) {
        let states = cx.states();
        let known = std::mem::take(&mut self.known);
        self.draw(cx, |b| wanted(b) & !known[b]);
        self.known = known;
        cx.pool.with(|work| {
            let mut pairs = std::mem::take(&mut work.pairs);
            Seat::missing(states, wanted, &self.known, &mut pairs);
            for pairs in pairs.chunks(GROUP) {
                self.decode_pairs(cx, pairs, None, work);
                for ((b, k), sum) in pairs.iter().zip(&work.sums) {
                    let at = *b as usize * states + *k as usize;
                    self.losses[at] = total(sum) + self.codes.terms[at];
                    self.known[*b as usize] |= 1 << k;
                }
            }
            work.pairs = pairs;
        });
    }

    /// Losses in sixteen parts of some images at states whose codes are drawn, without their terms, into `work.sums`.
    /// Where there are limits, a sum may stop beyond its own.
    fn decode_pairs(&self, cx: Context<'_>, pairs: &[(u32, u32)], limits: Option<&[f32]>, work: &mut Work) {
        let (dim, net) = (cx.dim(), &cx.layers.decoder);
        let Work { decoder, memory, out, sums, images: of, places, .. } = work;
        let lists = decoder.begin(net);
        of.clear();
        for (b, k) in pairs {
            let at = *b as usize * cx.states() + *k as usize;
            lists.push(*k as usize * dim, &self.codes.samples[at * dim..][..dim]);
            of.push(*b);
        }
        decoder.hidden(cx.isa, net, memory, out);
        let sums = room(sums, pairs.len());
        sums.fill(Lane::ZERO);
        places.clear();
        places.extend(0..pairs.len() as u32);
        let (images, width, blocks) = (&self.images[..], net.last().width(), &net.last().blocks);
        for block in middle_out(blocks.len()) {
            if let Some(limits) = limits {
                places.retain(|row| !is_above(total(&sums[*row as usize]), limits[*row as usize]));
            }
            let rows = Rows { lists: &decoder.lists[net.layers.len() - 1], of: Some(places) };
            let finish = Losses { sums, places: Some(places), images, width, of };
            cx.isa.run(Forward { blocks: &blocks[block..=block], rows, memory, finish });
        }
    }

    /// Losses of rows around states `[rows]`, with lower bounds where the slack `[rows, K]` allows them.
    fn least(
        &mut self,
        cx: Context<'_>,
        of: &[u32],
        states: &[u32],
        slack: &[f32],
        own: &mut [f32],
        losses: &mut [f32],
    ) {
        let count = cx.states();
        if self.is_free() && of.iter().copied().eq(0..self.count as u32) {
            // What is asked about first is what will be followed.
            let sums: Vec<f32> = self.ready(cx, states).iter().map(total).collect();
            for (b, (sum, k)) in sums.into_iter().zip(states).enumerate() {
                let at = b * count + *k as usize;
                self.losses[at] = sum + self.codes.terms[at];
                self.known[b] |= 1 << k;
            }
        }
        self.at_states(cx, of, states, own);
        // What a loss may be, with some room for rounding.
        let limit = |row: usize, k: usize| own[row] + slack[row * count + k] + 1e-3 + 1e-5 * own[row].abs();
        let mut wanted = [0u64; IMAGES];
        for (row, (b, losses)) in of.iter().zip(losses.chunks_exact_mut(count)).enumerate() {
            losses.fill(0.0);
            for k in (0..count).filter(|k| !is_above(0.0, limit(row, *k))) {
                wanted[*b as usize] |= 1 << k;
            }
        }
        self.draw(cx, |b| wanted[b]);
        cx.pool.with(|work| {
            let (mut pairs, mut limits) = (std::mem::take(&mut work.pairs), std::mem::take(&mut work.limits));
            pairs.clear();
            limits.clear();
            // Rows and states, by states.
            for k in 0..count {
                for (row, b) in of.iter().enumerate().filter(|(_, b)| wanted[**b as usize] >> k & 1 == 1) {
                    let (at, limit) = (*b as usize * count + k, limit(row, k));
                    if self.known[*b as usize] >> k & 1 == 1 {
                        losses[row * count + k] = self.losses[at];
                    } else if is_above(self.codes.terms[at], limit) {
                        losses[row * count + k] = self.codes.terms[at];
                    } else {
                        pairs.push((row as u32, k as u32));
                        limits.push(limit - self.codes.terms[at]);
                    }
                }
            }
            for (pairs, limits) in pairs.chunks_mut(GROUP).zip(limits.chunks(GROUP)) {
                let rows: [u32; GROUP] = std::array::from_fn(|i| pairs.get(i).map_or(0, |(row, _)| *row));
                pairs.iter_mut().for_each(|(row, _)| *row = of[*row as usize]);
                self.decode_pairs(cx, pairs, Some(limits), work);
                for (((b, k), row), sum) in pairs.iter().zip(rows).zip(&work.sums) {
                    let at = *b as usize * count + *k as usize;
                    losses[row as usize * count + *k as usize] = total(sum) + self.codes.terms[at];
                }
            }
            (work.pairs, work.limits) = (pairs, limits);
        });
    }

    /// Losses of rows at states `[rows]`.
    fn at_states(&mut self, cx: Context<'_>, of: &[u32], states: &[u32], losses: &mut [f32]) {
        let mut wanted = [0u64; IMAGES];
        of.iter().zip(states).for_each(|(b, k)| wanted[*b as usize] |= 1 << k);
        self.decode(cx, |b| wanted[b]);
        for ((b, k), loss) in of.iter().zip(states).zip(losses) {
            *loss = self.losses[*b as usize * cx.states() + *k as usize];
        }
    }

    /// Losses of images at all states `[rows, K]`.
    fn at_all(&mut self, cx: Context<'_>, of: &[u32], losses: &mut [f32]) {
        let (states, mut wanted) = (cx.states(), [0u64; IMAGES]);
        of.iter().for_each(|b| wanted[*b as usize] = every(states));
        self.decode(cx, |b| wanted[b]);
        let rows = of.iter().zip(losses.chunks_exact_mut(states));
        rows.for_each(|(b, losses)| losses.copy_from_slice(&self.losses[*b as usize * states..][..states]));
    }
}

/// Whether a bound of a loss says that it cannot matter; what is not a number says nothing.
fn is_above(bound: f32, limit: f32) -> bool {
    bound > limit
}

/// Places from the middle to both ends: where pictures have most of their ink.
fn middle_out(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |i| if i % 2 == 0 { count / 2 + i / 2 } else { count / 2 - i.div_ceil(2) })
}

/// The sum of a row's loss in sixteen parts.
pub fn total(sum: &Lane) -> f32 {
    sum.0.iter().sum()
}

/// The parameters of some Gaussian codes.
#[derive(Clone, Copy)]
pub struct Parameters<'a> {
    pub cx: Context<'a>,
    /// The place of the seat's first image in the batch.
    pub first: usize,
    /// Images and states, by states.
    pub pairs: &'a [(u32, u32)],
    /// The images alone.
    pub images: &'a [u32],
    /// What the trunk emits.
    pub features: &'a Lists,
}

impl Parameters<'_> {
    /// Means and log-variances `[pairs, lanes of 2 D]`.
    pub fn emit<'a>(
        self,
        pass: &mut Pass,
        memory: &mut Memory,
        (out, part, mask): (&'a mut Vec<Lane>, &mut Vec<Lane>, &mut Vec<f32>),
    ) -> &'a [Lane] {
        let Parameters { cx, first, pairs, images, features } = self;
        let Context { isa, layers: Layers { parts, shared, dropout, .. }, .. } = cx;
        let (width, size) = (parts[0].width(), parts[0].outputs);
        let part = room(part, pairs.len() * width);
        let mut rows = &mut *part;
        for (run, images) in runs(pairs, images) {
            let (out, rest) = std::mem::take(&mut rows).split_at_mut(images.len() * width);
            rows = rest;
            let rows = Rows { lists: features, of: Some(images) };
            isa.run(Forward { blocks: &parts[run].blocks, rows, memory, finish: Store { out, width, leak: 1.0 } });
        }
        let lists = pass.begin(shared);
        part.chunks_exact(width).for_each(|row| lists.push(0, &flat(row)[..size]));
        pass.hidden(isa, shared, memory, out);
        if let Some(noise) = cx.dropout.filter(|_| *dropout > 0.0) {
            let width = shared.last().inputs;
            mask.resize(width, 0.0);
            let lists = pass.lists.last_mut().expect("a list for each layer");
            lists.mask(mask, |row, mask| {
                let (b, k) = pairs[row];
                let place = (first + b as usize) * cx.states() + k as usize;
                noise.at((place * width) as u64).uniform(mask);
                mask.iter_mut().for_each(|m| *m = if *m < *dropout { 0.0 } else { 1.0 / (1.0 - dropout) });
            });
        }
        pass.outputs(isa, shared, memory, out)
    }
}

/// States with the images that come with each, of pairs by states.
pub fn runs<'a>(pairs: &'a [(u32, u32)], images: &'a [u32]) -> impl Iterator<Item = (usize, &'a [u32])> {
    let mut first = 0;
    pairs.chunk_by(|a, b| a.1 == b.1).map(move |run| {
        let own = &images[first..first + run.len()];
        first += run.len();
        (run[0].1 as usize, own)
    })
}

/// The oracle of a seat.
pub struct Questions<'a> {
    pub cx: Context<'a>,
    pub seat: &'a mut Seat,
    /// Whether what is followed is to have slopes at all states.
    pub slopes: bool,
}

impl Questions<'_> {
    fn check(&self, of: &[u32], what: &'static str, found: usize, width: usize) -> Result<(), Error> {
        check_rows(of, self.seat.count, what, found, width)
    }

    /// The state of a code without anything between zero and one.
    fn state(&self, code: &[f32]) -> u32 {
        let mut weights = [0.0; u64::BITS as usize];
        let weights = &mut weights[..self.cx.states()];
        self.cx.inputs.weights(code, weights);
        weights.iter().position(|w| *w == 1.0).unwrap_or(0) as u32
    }

    /// The states of assignments `[rows, n]`.
    fn states_of(&self, assignments: &[u32]) -> Vec<u32> {
        let structure = self.cx.structure;
        if structure.is_single() {
            return assignments.to_vec();
        }
        let mut code = vec![0.0; structure.unary()];
        let states = assignments.chunks_exact(structure.variables()).map(|z| {
            structure.encode(z, &mut code);
            self.state(&code)
        });
        states.collect()
    }
}

impl Oracle for Questions<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.check(of, "assignments", assignments.len(), self.cx.structure.variables())?;
        check_len("losses", losses.len(), of.len())?;
        let states = self.states_of(assignments);
        self.seat.at_states(self.cx, of, &states, losses);
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let structure = self.cx.structure;
        let (n, u, kind) = (structure.variables(), structure.unary(), structure.code());
        self.check(of, "assignments", assignments.len(), n)?;
        check_len("own losses", own.len(), of.len())?;
        check_len("losses", losses.len(), of.len() * u)?;
        let states = self.states_of(assignments);
        if structure.is_single() {
            self.seat.at_all(self.cx, of, losses);
            let rows = own.iter_mut().zip(&states).zip(losses.chunks_exact(u));
            rows.for_each(|((own, state), losses)| *own = losses[*state as usize]);
            return Ok(());
        }
        let changes = kind.changes(u);
        let (mut codes, mut near) = (vec![0.0; of.len() * u], vec![]);
        let mut next = vec![0.0; u];
        for (z, code) in assignments.chunks_exact(n).zip(codes.chunks_exact_mut(u)) {
            structure.encode(z, code);
            kind.for_each_change(code, |change| {
                next.copy_from_slice(code);
                change.off.into_iter().for_each(|u| next[u] = 0.0);
                change.on.into_iter().for_each(|u| next[u] = 1.0);
                near.push(self.state(&next));
            });
        }
        self.seat.at_states(self.cx, of, &states, own);
        let many: Vec<u32> = of.iter().flat_map(|b| std::iter::repeat_n(*b, changes)).collect();
        let mut changed = vec![0.0; near.len()];
        self.seat.at_states(self.cx, &many, &near, &mut changed);
        let rows = codes.chunks_exact(u).zip(own).zip(losses.chunks_exact_mut(u)).enumerate();
        for (r, ((code, own), losses)) in rows {
            kind.neighbour_losses(code, *own, &changed[r * changes..][..changes], losses);
        }
        Ok(())
    }

    fn leaves_out(&self) -> bool {
        true
    }

    fn least(
        &mut self,
        of: &[u32],
        assignments: &[u32],
        slack: &[f32],
        own: &mut [f32],
        losses: &mut [f32],
    ) -> Result<(), Error> {
        let states = self.cx.states();
        if !self.cx.structure.is_single() {
            return self.around(of, assignments, own, losses);
        }
        self.check(of, "assignments", assignments.len(), 1)?;
        check_len("own losses", own.len(), of.len())?;
        check_len("slack", slack.len(), of.len() * states)?;
        check_len("losses", losses.len(), of.len() * states)?;
        self.seat.least(self.cx, of, assignments, slack, own, losses);
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.check(of, "losses", losses.len(), self.cx.states())?;
        self.seat.at_all(self.cx, of, losses);
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let u = self.cx.structure.unary();
        self.check(of, "codes", codes.len(), u)?;
        check_len("losses", losses.len(), of.len())?;
        check_len("slopes", slopes.len(), of.len() * u)?;
        let rows = of.chunks(GROUP).zip(codes.chunks(GROUP * u));
        for ((of, codes), (losses, slopes)) in rows.zip(losses.chunks_mut(GROUP).zip(slopes.chunks_mut(GROUP * u))) {
            self.seat.slopes(self.cx, of, codes, losses, slopes);
        }
        Ok(())
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        let structure = self.cx.structure;
        let (n, u, count, states) = (structure.variables(), structure.unary(), self.seat.count, self.cx.states());
        match followed {
            Followed::Assignments { row, assignments, weights } => {
                check_len("assignments", assignments.len(), count * n)?;
                check_len("weights", weights.len(), count)?;
                let states = self.states_of(assignments);
                self.seat.way.replace(row);
                let mut code = vec![0.0; u];
                for (b, (z, weight)) in assignments.chunks_exact(n).zip(weights).enumerate() {
                    structure.encode(z, &mut code);
                    let code = if self.slopes { &code[..] } else { &[] };
                    self.seat.way.follow(row, (b, Some(states[b])), *weight, code);
                }
            }
            Followed::Codes { row, codes, weights } => {
                check_len("codes", codes.len(), count * u)?;
                check_len("weights", weights.len(), count)?;
                self.seat.way.replace(row);
                for (b, (code, weight)) in codes.chunks_exact(u).zip(weights).enumerate() {
                    self.seat.way.follow(row, (b, None), *weight, code);
                }
            }
            Followed::States(weights) => {
                check_len("weights", weights.len(), count * states)?;
                for (place, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                    self.seat.way.follow(usize::MAX, (place / states, Some((place % states) as u32)), *weight, &[]);
                }
            }
        }
        Ok(())
    }
}
