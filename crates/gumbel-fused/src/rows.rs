//! The seam: sixteen images of a batch, from their potentials to the gradient there.

use super::ask::{self, DecoderLayers, Scratch};
use super::bits::Bits;
use super::codes::{Codes, Ones};
use super::dense::{Dense, Slab, bias, forward_block, rows_in};
use super::output::Output;
use super::simd::{Isa, Kernel, LANES, Lane, Vector, flat_mut, lanes};
use super::states::States;
use super::tile::{by_rows, rows_by_lanes};
use super::turned;
use gumbel::Error;
use gumbel::estimator::{self, Estimator, Follows, MEASURES, Memory, Noises, Tally};
use gumbel::noise::Noise;
use gumbel::oracle::{Followed, Oracle, Questions as Asked};
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
    /// Whether it is given several pieces of rows together: those that it asks about share the walk through the
    /// decoder's weights.
    pub together: bool,
}

/// Whether an estimator needs nothing of the decoder but the slope at one state of one variable for each image.
fn goes_back_from_a_state(structure: &AnyStructure, estimator: &dyn Estimator, samples: usize) -> bool {
    let one = estimator.follows() == Follows::Assignments && estimator.rows(samples) == 1;
    structure.is_single() && one && estimator.wants_slopes() && !estimator.questions(structure).slopes
}

impl Plan {
    /// `shared` is the largest number of states whose rows of the decoder are better than those of images, where the
    /// estimator only goes back from them.
    pub fn new(
        structure: &AnyStructure,
        estimator: &dyn Estimator,
        samples: usize,
        shared: usize,
    ) -> Result<Self, Error> {
        // Nothing is random in an estimator that sees all states: one pass stands for all samples.
        let samples = if estimator.is_random() { samples } else { 1 };
        let questions = estimator.questions(structure);
        let all = structure.states().unwrap_or(usize::MAX);
        let shares = all <= shared && goes_back_from_a_state(structure, estimator, samples);
        let states = if shares || estimator::reads_table(estimator, structure) { all } else { 0 };
        // What is learned is summed piece by piece, in an order that must not depend on the number of threads.
        let together = states == 0 && (questions.losses || questions.slopes) && estimator.sums() == 0;
        let alone = states == 0 && questions == Asked::AROUND;
        Ok(Plan {
            follows: estimator.follows(),
            numbers: if estimator.follows() == Follows::States { 1 } else { estimator.rows(samples) },
            samples,
            states,
            noise: if estimator.is_random() { estimator.noise(structure)? } else { 0 },
            sums: estimator.sums(),
            slopes: estimator.wants_slopes(),
            at_once: match (together, alone || states > 256) {
                (true, _) => usize::MAX,
                (_, true) => 1,
                _ => LANES,
            },
            together,
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
    desk: Desk,
    /// The same for several pieces of rows together, of which this is the first.
    wide: Desk,
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

/// What an estimator works on.
#[derive(Default)]
struct Desk {
    /// Potentials `[rows, P]` and the gradient there.
    h: Vec<f32>,
    g: Vec<f32>,
    /// `[samples, rows, width]`.
    noise: Vec<f32>,
    /// Numbers from 0.
    of: Vec<u32>,
}

impl Desk {
    fn new(rows: usize, p: usize, plan: &Plan) -> Self {
        let (h, g, noise) = (vec![0.0; rows * p], vec![0.0; rows * p], vec![0.0; plan.samples * rows * plan.noise]);
        Desk { h, g, noise, of: (0..rows as u32).collect() }
    }

    /// Makes room for so many rows.
    fn widen(&mut self, rows: usize, p: usize, plan: &Plan) {
        if self.of.len() != rows {
            *self = Desk::new(rows, p, plan);
        }
    }
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
            desk: Desk::new(LANES, p, plan),
            wide: Desk::default(),
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
            let noise = &mut self.desk.noise[m * LANES * width..][..self.count * width];
            shared.noise.at((first * width) as u64).gumbel(noise);
        }
    }

    /// Potentials `[count, P]`.
    pub fn potentials(&self, structure: &AnyStructure) -> &[f32] {
        &self.desk.h[..self.count * structure.potentials()]
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
            for (h, row) in self.desk.h.chunks_exact_mut(p).zip(&self.potentials[o * LANES..]).take(self.count) {
                h[o * LANES..][..width].copy_from_slice(&row.0[..width]);
            }
        }
        self.desk.h.chunks_exact_mut(p).take(self.count).for_each(|h| structure.to_potentials(h));
        self.desk.g.fill(0.0);
    }

    /// Hands the gradient at the potentials to the encoder.
    fn hand_over(&mut self, structure: &AnyStructure) {
        let p = structure.potentials();
        let rows = self.desk.h.chunks_exact(p).zip(self.desk.g.chunks_exact_mut(p));
        rows.take(self.count).for_each(|(h, g)| structure.to_raw_gradient(h, g));
        for (o, tile) in self.gradient.chunks_exact_mut(LANES).enumerate() {
            let width = rows_in(p, o);
            for (row, g) in tile.iter_mut().zip(self.desk.g.chunks_exact(p)).take(self.count) {
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
            let rows = self.desk.h.chunks_exact(p).zip(self.desk.g.chunks_exact_mut(p)).take(self.count);
            for (b, (h, g)) in rows.enumerate() {
                shared.structure.kl_to_uniform(h, scale, g).map_err(|e| e.in_example(self.chunk * LANES + b))?;
            }
        }
        Ok(())
    }

    /// Calls `f` with the pieces of some rows together that the estimator is given. The first ones have the memory.
    fn pieces(
        all: &mut [Rows],
        seam: Seam<'_>,
        mut f: impl FnMut(&mut estimator::Piece<'_, AnyStructure>, &mut Questions<'_>, &[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Shared { structure, plan, .. } = *seam.shared;
        let (p, u) = (structure.potentials(), structure.unary());
        let (chunk, count) = (all[0].chunk, all.iter().map(|rows| rows.count).sum::<usize>());
        let mut desk = match all.len() {
            1 => std::mem::take(&mut all[0].desk),
            _ => Rows::gather(all, p, &plan),
        };
        let mut memory = std::mem::take(&mut all[0].memory);
        let mut sums = std::mem::take(&mut all[0].sums);
        let slopes = std::mem::take(&mut all[0].slopes);
        let mut tallies = all[0].outcome.tallies;
        let mut done = Ok(());
        let mut first = 0;
        while first < count && done.is_ok() {
            let rows = plan.at_once.min(count - first);
            let mut piece = estimator::Piece {
                structure,
                potentials: &desk.h[first * p..][..rows * p],
                noise: Noises {
                    values: desk.noise.get(first * plan.noise..).unwrap_or(&[]),
                    width: plan.noise,
                    stride: desk.of.len(),
                },
                samples: plan.samples,
                scale: seam.shared.scale(),
                first: chunk * LANES + first,
                of: &desk.of[..rows],
                gradient: &mut desk.g[first * p..][..rows * p],
                tallies: &mut tallies,
                sums: &mut sums,
                memory: &mut memory,
                parallel: false,
            };
            let images = &seam.shared.batch[chunk * LANES + first..][..rows];
            let mut questions = Questions { seam, images, first, rows: all };
            done = f(&mut piece, &mut questions, slopes.get(first * u..).unwrap_or(&[]));
            first += rows;
        }
        all[0].outcome.tallies = tallies;
        (all[0].memory, all[0].sums, all[0].slopes) = (memory, sums, slopes);
        match all.len() {
            1 => all[0].desk = desk,
            _ => Rows::scatter(all, p, desk),
        }
        done
    }

    /// The desks of all rows as one.
    fn gather(all: &mut [Rows], p: usize, plan: &Plan) -> Desk {
        let (stride, width) = (all.len() * LANES, plan.noise);
        let mut wide = std::mem::take(&mut all[0].wide);
        wide.widen(stride, p, plan);
        for (r, Rows { desk, count, .. }) in all.iter().enumerate() {
            let rows = r * LANES * p..(r * LANES + count) * p;
            wide.h[rows.clone()].copy_from_slice(&desk.h[..count * p]);
            wide.g[rows].copy_from_slice(&desk.g[..count * p]);
            for m in 0..plan.samples {
                let out = &mut wide.noise[(m * stride + r * LANES) * width..][..count * width];
                out.copy_from_slice(&desk.noise[m * LANES * width..][..count * width]);
            }
        }
        wide
    }

    /// Brings the gradient back.
    fn scatter(all: &mut [Rows], p: usize, wide: Desk) {
        for (r, Rows { desk, count, .. }) in all.iter_mut().enumerate() {
            desk.g[..*count * p].copy_from_slice(&wide.g[r * LANES * p..][..*count * p]);
        }
        all[0].wide = wide;
    }

    /// The estimator's part of a step, for some rows together.
    pub fn estimate(all: &mut [Rows], seam: Seam<'_>, estimator: &dyn Estimator) {
        all.iter_mut().for_each(|rows| rows.followed.states.fill(Lane::ZERO));
        if all.iter().all(|rows| rows.outcome.error.is_none()) {
            let done = Rows::pieces(all, seam, |piece, questions, _| estimator.estimate(piece, questions));
            all[0].outcome.error = done.err();
        }
        if !seam.shared.plan.slopes {
            all.iter_mut().for_each(|rows| rows.hand_over(seam.shared.structure));
        }
    }

    /// Goes on with the slopes at what was followed; `chunks` are those of a number.
    pub fn resume(&mut self, seam: Seam<'_>, estimator: &dyn Estimator, chunks: usize) {
        let Shared { structure, plan, .. } = *seam.shared;
        match plan.states {
            0 => seam.isa.run(CodeSlopes { rows: self, codes: seam.decoder.codes, structure, plan, chunks }),
            _ => seam.isa.run(StateSlopes { rows: self, seam }),
        }
        let done = Rows::pieces(std::slice::from_mut(self), seam, |piece, _, slopes| {
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
    /// Whether the decoder is ready for questions about single rows.
    pub turned: bool,
    /// All states, where they are asked about and the decoder's rows are images.
    pub all: Option<&'a States>,
}

/// The oracle of some images of a piece.
struct Questions<'a> {
    seam: Seam<'a>,
    /// The images by their numbers in the data.
    images: &'a [u32],
    /// The place of the first of them in the rows.
    first: usize,
    /// Rows that are asked about together; the first ones have the working memory.
    rows: &'a mut [Rows],
}

/// Rows that a question is cut into.
pub const ASKED: usize = 64;
/// From so many rows of one image on, they are computed in lanes of their own where single rows are an alternative.
const TOGETHER: usize = 6;

impl Questions<'_> {
    /// The images of some places.
    fn images(&self, of: &[u32]) -> [u32; ASKED] {
        let mut images = [0; ASKED];
        images.iter_mut().zip(of).for_each(|(image, b)| *image = self.images[*b as usize]);
        images
    }

    /// The piece of rows that an image belongs to, and its place there.
    fn row(&self, place: usize) -> (usize, usize) {
        ((self.first + place) / LANES, (self.first + place) % LANES)
    }

    /// How many rows from the first on belong to one image and are computed together: up to sixteen, or none.
    fn together(&self, of: &[u32]) -> usize {
        let count = of.iter().take(LANES).take_while(|b| **b == of[0]).count();
        if count >= TOGETHER || !self.seam.turned { count } else { 0 }
    }

    /// Losses of one image at all states of the table.
    fn table(&mut self, place: usize) -> &[f32] {
        let (piece, row) = self.row(place);
        let table = &mut self.rows[piece].table;
        let chunks = table.losses.len() / LANES;
        let losses = &mut table.losses[row * chunks..][..chunks];
        if table.known >> row & 1 == 0 {
            table.known |= 1 << row;
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
        let mut done = 0;
        while done < of.len() {
            // Rows of one image together, or whatever comes before the next of these.
            let (left, together) = (&of[done..], self.together(&of[done..]));
            let rows = done..done
                + match together {
                    0 => (1..left.len().min(ASKED))
                        .find(|i| self.together(&left[*i..]) > 0)
                        .unwrap_or(left.len().min(ASKED)),
                    count => count,
                };
            done = rows.end;
            let (assignments, losses) = (&assignments[rows.start * n..rows.end * n], &mut losses[rows.clone()]);
            let of = &self.images(&of[rows.clone()])[..rows.len()];
            let (scratch, decoder) = (&mut self.rows[0].scratch, self.seam.decoder);
            if together > 0 {
                let image = of[0] as usize;
                self.seam.isa.run(ask::Together { scratch, structure, decoder, bits, image, assignments, losses });
            } else {
                self.seam.isa.run(turned::Losses { scratch, structure, decoder, bits, of, assignments, losses });
            }
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
            let (scratch, decoder) = (&mut self.rows[0].scratch, self.seam.decoder);
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
        let rows = of.chunks(ASKED).zip(codes.chunks(ASKED * u));
        for ((of, codes), (losses, slopes)) in rows.zip(losses.chunks_mut(ASKED).zip(slopes.chunks_mut(ASKED * u))) {
            let of = &self.images(of)[..of.len()];
            let (scratch, decoder) = (&mut self.rows[0].scratch, self.seam.decoder);
            self.seam.isa.run(turned::Slopes { scratch, decoder, bits, of, codes, losses, slopes });
        }
        Ok(())
    }

    fn tangents(&mut self, _: &[u32], codes: &[f32], directions: &[f32], tangents: &mut [f32]) -> Result<(), Error> {
        let part = ASKED * self.seam.shared.structure.unary();
        let rows = codes.chunks(part).zip(directions.chunks(part)).zip(tangents.chunks_mut(part));
        for ((codes, directions), tangents) in rows {
            let (scratch, decoder) = (&mut self.rows[0].scratch, self.seam.decoder);
            self.seam.isa.run(turned::Tangents { scratch, decoder, codes, directions, tangents });
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
                    let (piece, row) = self.row(place);
                    let Rows { outcome, followed, .. } = &mut self.rows[piece];
                    outcome.reconstruction += (loss * weight) as f64;
                    match plan.weighted() {
                        true => {
                            let chunks = followed.states.len() / LANES;
                            flat_mut(&mut followed.states[row * chunks..][..chunks])[*z as usize] += weight;
                        }
                        false => (followed.chosen[row], followed.weights[row]) = (*z, *weight),
                    }
                }
            }
            Followed::Assignments { row: number, assignments, weights } => {
                for (place, (z, weight)) in assignments.chunks_exact(n).zip(weights).enumerate() {
                    let (piece, row) = self.row(place);
                    let followed = &mut self.rows[piece].followed;
                    followed.ones.set(number * LANES + row, structure, z);
                    followed.weights[number * LANES + row] = *weight;
                }
            }
            Followed::Codes { row: number, codes, weights } => {
                for (place, (code, weight)) in codes.chunks_exact(u).zip(weights).enumerate() {
                    let (piece, row) = self.row(place);
                    let followed = &mut self.rows[piece].followed;
                    for (group, code) in code.chunks(LANES).enumerate() {
                        let tile = (number * lanes(u) + group) * LANES;
                        followed.soft[tile + row].0[..code.len()].copy_from_slice(code);
                    }
                    followed.weights[number * LANES + row] = *weight;
                }
            }
            Followed::States(weights) => {
                for (place, weights) in weights.chunks_exact(plan.states).enumerate() {
                    let losses = self.table(place);
                    let terms = weights.iter().zip(losses).map(|(w, l)| *w as f64 * *l as f64);
                    let reconstruction = terms.sum::<f64>();
                    let (piece, row) = self.row(place);
                    let Rows { outcome, followed, .. } = &mut self.rows[piece];
                    outcome.reconstruction += reconstruction;
                    let chunks = followed.states.len() / LANES;
                    let states = flat_mut(&mut followed.states[row * chunks..][..chunks]);
                    states.iter_mut().zip(weights).for_each(|(sum, w)| *sum += w);
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

/// The same where the decoder's rows are states and it has one hidden layer, whose units hold the gradients that all
/// pixels pull with, as if none were one: for each image those of its ones are added.
struct StateSlopes<'r, 'a> {
    rows: &'r mut Rows,
    seam: Seam<'a>,
}

impl Kernel for StateSlopes<'_, '_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Rows { chunk, count, scratch, followed, slopes, .. } = self.rows;
        let DecoderLayers { codes, output, .. } = self.seam.decoder;
        let Shared { bits, batch, .. } = *self.seam.shared;
        let pull = &mut scratch.gradients[0][..codes.groups.len()];
        // A small batch has nothing for the last pieces.
        let batch = batch.iter().skip(*chunk * LANES).take(*count);
        for (r, (image, slopes)) in batch.zip(slopes.chunks_exact_mut(codes.width)).enumerate() {
            let (state, weight) = (followed.chosen[r] as usize, w.splat(followed.weights[r]));
            pull.fill(Lane::ZERO);
            for (b, block) in output.blocks.iter().enumerate() {
                block.add_weights(w, bits.ones(*image as usize, b), output.units, pull);
            }
            for (pull, group) in pull.iter_mut().zip(&codes.groups) {
                let all = w.sub(w.load(&group.units.gradient[state]), w.load(pull));
                let on = w.choose(w.load(&group.units.y[state]), w.zero(), all, w.zero());
                w.store(pull, w.mul(weight, on));
            }
            for (u, slope) in slopes.iter_mut().enumerate() {
                let mut sum = w.zero();
                for (pull, group) in pull.iter().zip(&codes.groups) {
                    sum = w.fma(w.load(&group.weights.p[u]), w.load(pull), sum);
                }
                *slope = w.sum(sum);
            }
        }
    }
}
