//! The seam: sixteen images of a batch, from their potentials to the gradient there.

use super::ask::{self, DecoderLayers, Scratch};
use super::bits::Bits;
use super::codes::{Codes, Ones};
use super::dense::{Dense, Slab, bias, forward_block, rows_in};
use super::output::Output;
use super::simd::{Isa, Kernel, LANES, Lane, Vector, flat_mut, lanes};
use super::states::States;
use super::tile::{by_rows, rows_by_lanes};
use gumbel::Error;
use gumbel::estimator::{self, Estimator, Follows, MEASURES, Memory, Noises, Tally};
use gumbel::noise::Noise;
use gumbel::oracle::{Followed, Oracle};
use gumbel::structure::{AnyStructure, Structure, Sums};

/// What an estimator makes of an engine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub follows: Follows,
    /// Assignments or codes that are followed for each image.
    pub numbers: usize,
    pub samples: usize,
    /// States of the table whose rows the decoder decodes; 0: its rows are images.
    pub states: usize,
    /// Gumbel variables of each image and sample.
    pub noise: usize,
    /// Numbers to learn from.
    pub sums: usize,
    /// Whether the slopes at what is followed go back to the estimator.
    pub slopes: bool,
    /// Images that the estimator is given at once: one where each of its questions is answered image by image anyway.
    pub at_once: usize,
}

impl Plan {
    pub fn new(structure: &AnyStructure, estimator: &dyn Estimator, samples: usize) -> Result<Self, Error> {
        // Nothing is random in an estimator that sees all states: one pass stands for all samples.
        let samples = if estimator.is_random() { samples } else { 1 };
        let questions = estimator.questions(structure);
        let states = match estimator::reads_table(estimator, structure) {
            true => structure.states().unwrap_or(usize::MAX),
            false => 0,
        };
        let alone = states == 0 && questions.around && !questions.losses && !questions.slopes && !questions.states;
        Ok(Plan {
            follows: estimator.follows(),
            numbers: if estimator.follows() == Follows::States { 1 } else { estimator.rows(samples) },
            samples,
            states,
            noise: if estimator.is_random() { estimator.noise(structure)? } else { 0 },
            sums: estimator.sums(),
            slopes: estimator.wants_slopes(),
            at_once: if alone || states > 256 { 1 } else { LANES },
        })
    }

    /// Whether the decoder's weights are needed for each image and state.
    pub fn weighted(&self) -> bool {
        self.states > 0 && (self.numbers > 1 || self.follows == Follows::States)
    }

    /// Rows of the decoder for so many images.
    pub fn rows(&self, images: usize) -> usize {
        if self.states > 0 { self.states } else { lanes(images) * LANES * self.numbers }
    }
}

/// Sixteen images. Their rows of the decoder, where it has rows for images, form one chunk for each number.
pub struct Rows {
    chunk: usize,
    /// Images in this batch.
    pub count: usize,
    /// Potentials `[groups, 16]` and the gradient there, as the encoder has them.
    potentials: Vec<Lane>,
    pub gradient: Vec<Lane>,
    /// The same as `[16, P]`.
    h: Vec<f32>,
    g: Vec<f32>,
    /// `[samples, 16, width]`.
    noise: Vec<f32>,
    pub scratch: Scratch,
    memory: Memory<AnyStructure>,
    table: Table,
    followed: Kept,
    /// Slopes at what is followed `[numbers, 16, U]`.
    slopes: Vec<f32>,
    /// Numbers to learn from.
    pub sums: Vec<f32>,
    pub outcome: Outcome,
}

/// Losses at the states of the table.
struct Table {
    /// `[16, chunks of states]`.
    losses: Vec<Lane>,
    /// Which images' stand there.
    known: u16,
}

/// What the decoder is to follow.
struct Kept {
    /// The ones of assignments' codes `[numbers, 16]`.
    ones: Ones,
    /// Relaxed codes `[numbers, groups of U, 16]`.
    soft: Vec<Lane>,
    /// Weights of assignments or codes `[numbers, 16]`.
    weights: Vec<f32>,
    /// With one assignment of one variable each: its value `[16]`.
    chosen: Vec<u32>,
    /// Otherwise, weights of the states of the table `[16, chunks of states]`.
    states: Vec<Lane>,
}

/// What the images of a piece add to the report of a step.
#[derive(Debug, Default)]
pub struct Outcome {
    pub error: Option<Error>,
    pub tallies: [Tally; MEASURES],
    /// Where the decoder's rows are states; otherwise its forward pass knows.
    pub reconstruction: f64,
}

/// What all pieces share in a step.
pub struct Shared<'a> {
    pub structure: &'a AnyStructure,
    pub bits: &'a Bits,
    pub batch: &'a [u32],
    pub plan: Plan,
    pub kl_weight: f32,
    pub noise: &'a Noise,
}

impl Shared<'_> {
    /// Weight of each sample in the mean over batch and samples.
    pub fn scale(&self) -> f32 {
        1.0 / (self.batch.len() * self.plan.samples) as f32
    }
}

impl Rows {
    /// `hidden` are the widths of the decoder's hidden layers.
    pub fn new(chunk: usize, structure: &AnyStructure, plan: &Plan, hidden: &[usize]) -> Self {
        let (p, u) = (structure.potentials(), structure.unary());
        let zero = |n: usize| vec![Lane::ZERO; n];
        let rows = if plan.states > 0 { 0 } else { plan.numbers * LANES };
        let soft = if plan.follows == Follows::Codes { plan.numbers * lanes(u) * LANES } else { 0 };
        Rows {
            chunk,
            count: 0,
            potentials: zero(lanes(p) * LANES),
            gradient: zero(lanes(p) * LANES),
            h: vec![0.0; LANES * p],
            g: vec![0.0; LANES * p],
            noise: vec![0.0; plan.samples * LANES * plan.noise],
            scratch: Scratch::new(structure, hidden),
            memory: Memory::default(),
            table: Table { losses: zero(LANES * lanes(plan.states)), known: 0 },
            followed: Kept {
                ones: Ones::new(rows, u),
                soft: zero(soft),
                weights: vec![0.0; plan.numbers * LANES],
                chosen: vec![0; LANES],
                states: zero(if plan.weighted() { LANES * lanes(plan.states) } else { 0 }),
            },
            slopes: vec![0.0; if plan.slopes { plan.numbers * LANES * u } else { 0 }],
            sums: vec![0.0; plan.sums],
            outcome: Outcome::default(),
        }
    }

    /// Begins a step: how many images there are, and their noise.
    #[inline(always)]
    fn begin(&mut self, shared: &Shared<'_>) {
        let (width, batch) = (shared.plan.noise, shared.batch.len());
        self.count = batch.saturating_sub(self.chunk * LANES).min(LANES);
        self.outcome = Outcome::default();
        self.table.known = 0;
        self.sums.fill(0.0);
        for m in 0..if width > 0 { shared.plan.samples } else { 0 } {
            let first = m * batch + self.chunk * LANES;
            let noise = &mut self.noise[m * LANES * width..][..self.count * width];
            shared.noise.at((first * width) as u64).gumbel(noise);
        }
    }

    /// Potentials `[count, P]`.
    pub fn potentials(&self, structure: &AnyStructure) -> &[f32] {
        &self.h[..self.count * structure.potentials()]
    }

    /// Where the table has one row for each image: the values that are followed, and their weights.
    pub fn chosen(&self) -> impl Iterator<Item = (u32, f32)> {
        self.followed.chosen.iter().copied().zip(self.followed.weights.iter().copied()).take(self.count)
    }

    /// Weights of the rows of a number.
    pub fn row_weights(&self, number: usize) -> &[f32] {
        &self.followed.weights[number * LANES..][..self.count]
    }

    /// Places of the ones in the code of an image.
    pub fn ones(&self, number: usize, row: usize) -> &[u32] {
        self.followed.ones.of(number * LANES + row)
    }

    /// The relaxed codes of a number: the tile of a group of U.
    pub fn soft(&self, structure: &AnyStructure, number: usize, group: usize) -> &[Lane] {
        &self.followed.soft[(number * lanes(structure.unary()) + group) * LANES..][..LANES]
    }

    /// The weights of an image's states.
    pub fn weights(&self, row: usize) -> &[Lane] {
        let chunks = self.followed.states.len() / LANES;
        &self.followed.states[row * chunks..][..chunks]
    }

    /// Potentials from the encoder's last layer; `x(g, c)` are tiles of its inputs.
    #[inline(always)]
    fn encode<'a, W: Vector>(
        &mut self,
        w: W,
        layer: &Dense,
        structure: &AnyStructure,
        x: impl Fn(usize, usize) -> &'a [Lane],
    ) {
        let p = structure.potentials();
        let slabs: &[Slab] = &layer.slabs;
        for (o, out) in layer.outs.iter().enumerate() {
            by_rows!(W, self.count, |first, R| {
                let x = |g| &x(g, self.chunk)[first..];
                let acc: [W::V; R] = forward_block(w, (slabs, layer.inputs), o, bias(out), x);
                for (potential, acc) in self.potentials[o * LANES + first..].iter_mut().zip(acc) {
                    w.store(potential, acc);
                }
            });
            let width = rows_in(p, o);
            for (h, row) in self.h.chunks_exact_mut(p).zip(&self.potentials[o * LANES..]).take(self.count) {
                h[o * LANES..][..width].copy_from_slice(&row.0[..width]);
            }
        }
        self.h.chunks_exact_mut(p).take(self.count).for_each(|h| structure.to_potentials(h));
        self.g.fill(0.0);
    }

    /// Hands the gradient at the potentials to the encoder.
    fn hand_over(&mut self, structure: &AnyStructure) {
        let p = structure.potentials();
        let rows = self.h.chunks_exact(p).zip(self.g.chunks_exact_mut(p));
        rows.take(self.count).for_each(|(h, g)| structure.to_raw_gradient(h, g));
        for (o, tile) in self.gradient.chunks_exact_mut(LANES).enumerate() {
            let width = rows_in(p, o);
            for (row, g) in tile.iter_mut().zip(self.g.chunks_exact(p)).take(self.count) {
                row.0[..width].copy_from_slice(&g[o * LANES..][..width]);
            }
        }
    }

    /// The KL term's gradient.
    #[inline(always)]
    fn add_kl(&mut self, shared: &Shared<'_>) -> Result<(), Error> {
        if shared.kl_weight != 0.0 {
            let p = shared.structure.potentials();
            let scale = shared.kl_weight / shared.batch.len() as f32;
            for (h, g) in self.h.chunks_exact(p).zip(self.g.chunks_exact_mut(p)).take(self.count) {
                shared.structure.kl_to_uniform(h, scale, g)?;
            }
        }
        Ok(())
    }

    /// Calls `f` with the pieces that the estimator is given.
    fn pieces(
        &mut self,
        seam: Seam<'_>,
        mut f: impl FnMut(&mut estimator::Piece<'_, AnyStructure>, &mut Questions<'_>, &[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        const OF: [u32; LANES] = {
            let mut of = [0; LANES];
            let mut i = 0;
            while i < LANES {
                of[i] = i as u32;
                i += 1;
            }
            of
        };
        let Shared { structure, plan, .. } = *seam.shared;
        let (p, u) = (structure.potentials(), structure.unary());
        let Rows { chunk, count, h, g, noise, memory, scratch, table, followed, slopes, sums, outcome, .. } = self;
        for first in (0..*count).step_by(plan.at_once) {
            let rows = plan.at_once.min(*count - first);
            let mut piece = estimator::Piece {
                structure,
                potentials: &h[first * p..][..rows * p],
                noise: Noises {
                    values: noise.get(first * plan.noise..).unwrap_or(&[]),
                    width: plan.noise,
                    stride: LANES,
                },
                samples: plan.samples,
                scale: seam.shared.scale(),
                first: *chunk * LANES + first,
                of: &OF[..rows],
                gradient: &mut g[first * p..][..rows * p],
                tallies: &mut outcome.tallies,
                sums,
                memory,
                parallel: false,
            };
            let images = &seam.shared.batch[*chunk * LANES + first..][..rows];
            let reconstruction = &mut outcome.reconstruction;
            let mut questions = Questions { seam, images, first, scratch, table, followed, reconstruction };
            f(&mut piece, &mut questions, slopes.get(first * u..).unwrap_or(&[]))?;
        }
        Ok(())
    }

    /// The estimator's part of a step.
    pub fn estimate(&mut self, seam: Seam<'_>, estimator: &dyn Estimator) {
        if self.outcome.error.is_none() {
            self.followed.states.fill(Lane::ZERO);
            let done = self.pieces(seam, |piece, questions, _| estimator.estimate(piece, questions));
            self.outcome.error = done.err();
        }
        if !seam.shared.plan.slopes {
            self.hand_over(seam.shared.structure);
        }
    }

    /// Goes on with the slopes at what was followed; `chunks` are those of a number.
    pub fn resume(&mut self, seam: Seam<'_>, estimator: &dyn Estimator, chunks: usize) {
        let structure = seam.shared.structure;
        seam.isa.run(CodeSlopes { rows: self, codes: seam.decoder.codes, structure, plan: seam.shared.plan, chunks });
        let done = self.pieces(seam, |piece, _, slopes| {
            estimator.resume(piece, estimator::Slopes { values: slopes, stride: LANES })
        });
        self.outcome.error = done.err();
        self.hand_over(structure);
    }
}

/// What an estimator may look at.
#[derive(Clone, Copy)]
pub struct Seam<'a> {
    pub isa: Isa,
    pub shared: &'a Shared<'a>,
    pub decoder: DecoderLayers<'a>,
    /// All states, where they are asked about and the decoder's rows are images.
    pub all: Option<&'a States>,
}

/// The oracle of some images of a piece.
struct Questions<'a> {
    seam: Seam<'a>,
    /// The images by their numbers in the data.
    images: &'a [u32],
    /// The first of them in the sixteen.
    first: usize,
    scratch: &'a mut Scratch,
    table: &'a mut Table,
    followed: &'a mut Kept,
    reconstruction: &'a mut f64,
}

impl Questions<'_> {
    /// The images of some places.
    fn images(&self, of: &[u32]) -> [u32; LANES] {
        let mut images = [0; LANES];
        images.iter_mut().zip(of).for_each(|(image, b)| *image = self.images[*b as usize]);
        images
    }

    /// Losses of one image at all states of the table.
    fn table(&mut self, place: usize) -> &[f32] {
        let chunks = self.table.losses.len() / LANES;
        let row = self.first + place;
        let losses = &mut self.table.losses[row * chunks..][..chunks];
        if self.table.known >> row & 1 == 0 {
            self.table.known |= 1 << row;
            let ones = self.seam.shared.bits.all_ones(self.images[place] as usize);
            self.seam.isa.run(TableLosses { output: self.seam.decoder.output, ones, losses });
        }
        &flat_mut(losses)[..self.seam.shared.plan.states]
    }
}

impl Oracle for Questions<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let Shared { structure, bits, plan, .. } = *self.seam.shared;
        let n = structure.variables();
        if plan.states > 0 && n == 1 {
            let rows = of.iter().zip(assignments).zip(losses);
            rows.for_each(|((b, z), loss)| *loss = self.table(*b as usize)[*z as usize]);
            return Ok(());
        }
        let rows = of.chunks(LANES).zip(assignments.chunks(LANES * n)).zip(losses.chunks_mut(LANES));
        for ((of, assignments), losses) in rows {
            let of = &self.images(of)[..of.len()];
            let (scratch, decoder) = (&mut *self.scratch, self.seam.decoder);
            self.seam.isa.run(ask::Losses { scratch, structure, decoder, bits, of, assignments, losses });
        }
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let Shared { structure, bits, plan, .. } = *self.seam.shared;
        let (n, u) = (structure.variables(), structure.unary());
        if plan.states > 0 && n == 1 {
            let rows = of.iter().zip(assignments).zip(own).zip(losses.chunks_exact_mut(u));
            for (((b, z), own), losses) in rows {
                losses.copy_from_slice(self.table(*b as usize));
                *own = losses[*z as usize];
            }
            return Ok(());
        }
        let rows = of.chunks(LANES).zip(assignments.chunks(LANES * n));
        for ((of, assignments), (own, losses)) in rows.zip(own.chunks_mut(LANES).zip(losses.chunks_mut(LANES * u))) {
            let of = &self.images(of)[..of.len()];
            let (scratch, decoder) = (&mut *self.scratch, self.seam.decoder);
            self.seam.isa.run(ask::Around { scratch, structure, decoder, bits, of, assignments, own, losses });
        }
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = losses.len() / of.len().max(1);
        if self.seam.shared.plan.states == states {
            let rows = of.iter().zip(losses.chunks_exact_mut(states));
            rows.for_each(|(b, losses)| losses.copy_from_slice(self.table(*b as usize)));
            return Ok(());
        }
        let Some(all) = self.seam.all else {
            return Err(Error::Failed {
                detail: "an estimator asked for all states, and had not said that it does".into(),
            });
        };
        for (of, losses) in of.chunks(LANES).zip(losses.chunks_mut(LANES * states)) {
            let images = &self.images(of)[..of.len()];
            all.losses_of_few(self.seam.isa, self.seam.decoder, self.seam.shared.bits, images, losses);
        }
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let Shared { structure, bits, .. } = *self.seam.shared;
        let u = structure.unary();
        let rows = of.chunks(LANES).zip(codes.chunks(LANES * u));
        for ((of, codes), (losses, slopes)) in rows.zip(losses.chunks_mut(LANES).zip(slopes.chunks_mut(LANES * u))) {
            let of = &self.images(of)[..of.len()];
            let ask = ask::SlopesOf { of, codes, losses, slopes };
            self.seam.isa.run(ask::Slopes { scratch: self.scratch, decoder: self.seam.decoder, bits, ask });
        }
        Ok(())
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        let Shared { structure, plan, .. } = *self.seam.shared;
        let (n, u) = (structure.variables(), structure.unary());
        match followed {
            Followed::Assignments { assignments, weights, .. } if plan.states > 0 => {
                for (place, (z, weight)) in assignments.iter().zip(weights).enumerate() {
                    let loss = self.table(place)[*z as usize];
                    *self.reconstruction += (loss * weight) as f64;
                    let row = self.first + place;
                    match plan.weighted() {
                        true => {
                            let chunks = self.followed.states.len() / LANES;
                            flat_mut(&mut self.followed.states[row * chunks..][..chunks])[*z as usize] += weight;
                        }
                        false => (self.followed.chosen[row], self.followed.weights[row]) = (*z, *weight),
                    }
                }
            }
            Followed::Assignments { row, assignments, weights } => {
                for (place, z) in assignments.chunks_exact(n).enumerate() {
                    self.followed.ones.set(row * LANES + self.first + place, structure, z);
                }
                self.followed.weights[row * LANES + self.first..][..weights.len()].copy_from_slice(weights);
            }
            Followed::Codes { row, codes, weights } => {
                for (place, code) in codes.chunks_exact(u).enumerate() {
                    for (group, code) in code.chunks(LANES).enumerate() {
                        let tile = (row * lanes(u) + group) * LANES;
                        self.followed.soft[tile + self.first + place].0[..code.len()].copy_from_slice(code);
                    }
                }
                self.followed.weights[row * LANES + self.first..][..weights.len()].copy_from_slice(weights);
            }
            Followed::States(weights) => {
                let chunks = self.followed.states.len() / LANES;
                for (place, weights) in weights.chunks_exact(plan.states).enumerate() {
                    let losses = self.table(place);
                    let terms = weights.iter().zip(losses).map(|(w, l)| *w as f64 * *l as f64);
                    *self.reconstruction += terms.sum::<f64>();
                    let row = &mut self.followed.states[(self.first + place) * chunks..][..chunks];
                    flat_mut(row).iter_mut().zip(weights).for_each(|(sum, w)| *sum += w);
                }
            }
        }
        Ok(())
    }
}

/// How many images there are, and their noise.
pub struct Begin<'r, 'a> {
    pub rows: &'r mut Rows,
    pub shared: &'a Shared<'a>,
}

impl Kernel for Begin<'_, '_> {
    #[inline(always)]
    fn run<W: Vector>(self, _: W) {
        self.rows.begin(self.shared);
    }
}

/// Potentials, and the gradient of the KL term there.
pub struct Encode<'r, 'a, X> {
    pub rows: &'r mut Rows,
    pub shared: &'a Shared<'a>,
    pub layer: &'a Dense,
    pub x: X,
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> Kernel for Encode<'_, 'a, X> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        self.rows.encode(w, self.layer, self.shared.structure, self.x);
        self.rows.outcome.error = self.rows.add_kl(self.shared).err();
    }
}

/// Losses of one image at all states of the table: sums of softplus less the logits at its ones.
pub struct TableLosses<'a> {
    pub output: &'a Output,
    pub ones: &'a [u16],
    /// `[chunks of states]`.
    pub losses: &'a mut [Lane],
}

impl Kernel for TableLosses<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let TableLosses { output, ones, losses } = self;
        let chunks = losses.len();
        let mut store = |c: usize, ones: W::V| {
            let mut sum = w.zero();
            for block in &output.blocks {
                sum = w.add(sum, w.load(&block.sums[c]));
            }
            w.store(&mut losses[c], w.sub(sum, ones));
        };
        let mut c = 0;
        while c < chunks {
            if chunks - c >= 4 {
                let sums = output.logits_of::<W, 4>(w, ones, c, chunks);
                sums.into_iter().enumerate().for_each(|(i, sum)| store(c + i, sum));
                c += 4;
            } else {
                let [sum] = output.logits_of::<W, 1>(w, ones, c, chunks);
                store(c, sum);
                c += 1;
            }
        }
    }
}

/// From the gradient at the decoder's first units to the slopes at the codes.
struct CodeSlopes<'r, 'a> {
    rows: &'r mut Rows,
    codes: &'a Codes,
    structure: &'a AnyStructure,
    plan: Plan,
    /// Chunks of a number.
    chunks: usize,
}

impl Kernel for CodeSlopes<'_, '_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let CodeSlopes { rows, codes, structure, plan, chunks } = self;
        let u = structure.unary();
        for number in 0..plan.numbers {
            let chunk = number * chunks + rows.chunk;
            for group in 0..lanes(u) {
                by_rows!(W, rows.count, |first, R| {
                    let mut acc = [w.zero(); R];
                    for (g, units) in codes.groups.iter().enumerate() {
                        let gradient = &units.units.gradient[chunk * LANES + first..];
                        let weights = &units.transposed[group * LANES..][..rows_in(codes.units, g)];
                        rows_by_lanes(w, &mut acc, gradient, weights);
                    }
                    for (q, acc) in acc.into_iter().enumerate().take(rows.count - first) {
                        let mut lane = Lane::ZERO;
                        w.store(&mut lane, acc);
                        let width = rows_in(u, group);
                        let at = (number * LANES + first + q) * u + group * LANES;
                        rows.slopes[at..][..width].copy_from_slice(&lane.0[..width]);
                    }
                });
            }
        }
    }
}
