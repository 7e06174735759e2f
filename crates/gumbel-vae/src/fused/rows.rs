//! The seam: sixteen images of a batch, from their potentials to the gradient there.

use super::bits::Bits;
use super::codes::{Codes, Ones};
use super::dense::{Dense, Slab, bias, forward_block, rows_in};
use super::output::Output;
use super::simd::{Kernel, LANES, Lane, Vector, flat, flat_mut, lanes};
use super::tile::{by_rows, rows_by_lanes, transpose};
use crate::engine::{Missed, Search};
use gumbel::Error;
use gumbel::estimator::{Estimator, Example, Needs, Workspace};
use gumbel::math::softmax_in_place;
use gumbel::noise::Noise;
use gumbel::structure::{AnyStructure, Change, Structure, Sums};

/// Sixteen images. Their rows of the decoder, where it has rows for images, form one chunk for each sample.
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
    /// `[samples, 16, U]`.
    noise: Vec<f32>,
    /// Assignments `[samples, 16, n]`, and the ones of their codes.
    z: Vec<u32>,
    ones: Ones,
    /// Relaxed codes `[samples, groups of U, 16]`.
    soft: Vec<Lane>,
    /// Weights of the states in the decoder's objective: `[16, chunks of states]`.
    weights: Vec<Lane>,
    losses: Vec<f32>,
    perturbed: Vec<f32>,
    work: Workspace<AnyStructure>,
    neighbours: Neighbours,
    moved: Vec<u32>,
    /// Losses of the neighbours of z(eps).
    searched: Vec<f32>,
    pub outcome: Outcome,
}

/// What the images of a piece add to the report of a step.
#[derive(Debug, Default)]
pub struct Outcome {
    pub error: Option<Error>,
    pub asked: usize,
    pub unmoved: usize,
    pub reconstruction: f64,
    /// Where a better z(eps) was looked for.
    pub missed: Missed,
}

impl Outcome {
    fn count(&mut self, same: Option<bool>) {
        self.asked += same.is_some() as usize;
        self.unmoved += (same == Some(true)) as usize;
    }
}

/// What all pieces share in a step.
pub struct Shared<'a> {
    pub structure: &'a AnyStructure,
    pub bits: &'a Bits,
    pub batch: &'a [u32],
    pub samples: usize,
    pub kl_weight: f32,
    pub noise: &'a Noise,
}

impl Shared<'_> {
    /// Weight of each draw in the mean over batch and samples.
    pub fn scale(&self) -> f32 {
        1.0 / (self.batch.len() * self.samples) as f32
    }
}

/// Sizes of the memory.
pub struct Sizes {
    pub samples: usize,
    /// States of the table; 0: rows are images.
    pub states: usize,
    /// Needs of the estimator.
    pub needs: Needs,
    /// Widths of the decoder's hidden layers.
    pub hidden: Vec<usize>,
}

impl Rows {
    pub fn new(chunk: usize, structure: &AnyStructure, sizes: &Sizes) -> Result<Self, Error> {
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let zero = |n: usize| vec![Lane::ZERO; n];
        let m = sizes.samples;
        Ok(Rows {
            chunk,
            count: 0,
            potentials: zero(lanes(p) * LANES),
            gradient: zero(lanes(p) * LANES),
            h: vec![0.0; LANES * p],
            g: vec![0.0; LANES * p],
            noise: vec![0.0; m * LANES * u],
            z: vec![0; m * LANES * n],
            ones: Ones::new(m * LANES, u),
            soft: zero(m * lanes(u) * LANES),
            weights: zero(LANES * lanes(sizes.states)),
            losses: vec![0.0; u.max(lanes(sizes.states) * LANES)],
            perturbed: vec![0.0; p],
            work: Workspace::new(structure, sizes.needs)?,
            neighbours: Neighbours::new(structure, &sizes.hidden),
            moved: vec![0; n],
            searched: vec![0.0; u],
            outcome: Outcome::default(),
        })
    }

    /// Begins a step: how many images there are, and their noise.
    #[inline(always)]
    fn begin(&mut self, shared: &Shared<'_>) {
        let (u, batch) = (shared.structure.unary(), shared.batch.len());
        self.count = batch.saturating_sub(self.chunk * LANES).min(LANES);
        self.outcome = Outcome::default();
        for m in 0..shared.samples {
            let first = m * batch + self.chunk * LANES;
            let noise = &mut self.noise[m * LANES * u..][..self.count * u];
            shared.noise.at((first * u) as u64).gumbel(noise);
        }
    }

    /// Potentials `[count, P]`.
    pub fn potentials(&self, structure: &AnyStructure) -> &[f32] {
        &self.h[..self.count * structure.potentials()]
    }

    /// Assignments of sample 0 `[count, n]`.
    pub fn assignment(&self, structure: &AnyStructure) -> &[u32] {
        &self.z[..self.count * structure.variables()]
    }

    /// Places of the ones in the code of an image.
    pub fn ones(&self, sample: usize, row: usize) -> &[u32] {
        self.ones.of(sample * LANES + row)
    }

    /// The relaxed codes of a sample: the tile of a group of U.
    pub fn soft(&self, structure: &AnyStructure, sample: usize, group: usize) -> &[Lane] {
        &self.soft[(sample * lanes(structure.unary()) + group) * LANES..][..LANES]
    }

    /// The weights of an image's states.
    pub fn weights(&self, row: usize) -> &[Lane] {
        let chunks = self.weights.len() / LANES;
        &self.weights[row * chunks..][..chunks]
    }

    /// Potentials from the encoder's last layer; `x(g, c)` are tiles of its inputs.
    #[inline(always)]
    pub fn encode<'a, W: Vector>(
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

    /// z* of one draw.
    fn draw(&mut self, structure: &AnyStructure, sample: usize, row: usize) -> Result<(), Error> {
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let draw = sample * LANES + row;
        let (h, noise) = (&self.h[row * p..][..p], &self.noise[draw * u..][..u]);
        let z = &mut self.z[draw * n..][..n];
        let found = self.work.argmax(structure, h, noise, z);
        found.map(drop).map_err(|e| e.in_example(self.chunk * LANES + row))
    }

    /// z* of one draw, and the ones of its code for the decoder.
    fn draw_code(&mut self, structure: &AnyStructure, sample: usize, row: usize) -> Result<(), Error> {
        self.draw(structure, sample, row)?;
        let (draw, n) = (sample * LANES + row, structure.variables());
        self.ones.set(draw, structure, &self.z[draw * n..][..n]);
        Ok(())
    }

    /// Losses of one image at all states of the table: sums of softplus less the logits at its ones.
    #[inline(always)]
    pub fn table_losses<W: Vector>(&mut self, w: W, output: &Output, states: usize, ones: &[u16]) {
        let chunks = lanes(states);
        let mut store = |c: usize, ones: W::V| {
            let mut sum = w.zero();
            for block in &output.blocks {
                sum = w.add(sum, w.load(&block.sums[c]));
            }
            let mut out = Lane::ZERO;
            w.store(&mut out, w.sub(sum, ones));
            self.losses[c * LANES..][..LANES].copy_from_slice(&out.0);
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

    /// Losses of the last image after [`table_losses`](Rows::table_losses).
    pub fn losses(&self, states: usize) -> &[f32] {
        &self.losses[..states]
    }

    /// The gradient of one draw by an estimator that reads `self.losses`.
    fn estimate(
        &mut self,
        shared: &Shared<'_>,
        estimator: &dyn Estimator<AnyStructure>,
        (sample, row): (usize, usize),
        width: usize,
        weighted: bool,
    ) -> Result<Option<bool>, Error> {
        let structure = shared.structure;
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let draw = sample * LANES + row;
        let chunks = self.weights.len() / LANES;
        let weights = &mut flat_mut(&mut self.weights[row * chunks..][..chunks])[..if weighted { width } else { 0 }];
        let example = Example {
            potentials: &self.h[row * p..][..p],
            noise: &self.noise[draw * u..][..u],
            assignment: &self.z[draw * n..][..n],
            losses: &self.losses[..width],
            gradient: &mut self.g[row * p..][..p],
            weights,
            moved: &mut self.moved,
        };
        let same = estimator.example(structure, example, shared.scale(), &mut self.work);
        same.map_err(|e| e.in_example(self.chunk * LANES + row))
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

/// Potentials, and the gradient there from the losses at all states of the table.
pub struct WithTable<'r, 'a, X> {
    pub rows: &'r mut Rows,
    pub shared: &'a Shared<'a>,
    pub layer: &'a Dense,
    pub x: X,
    pub output: &'a Output,
    pub states: usize,
    pub estimator: &'a dyn Estimator<AnyStructure>,
    /// Whether the decoder's weights are needed for each image and state.
    pub weighted: bool,
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> Kernel for WithTable<'_, 'a, X> {
    #[inline(always)]
    fn run<W: Vector>(mut self, w: W) {
        let error = self.work(w).err();
        self.rows.outcome.error = error;
        self.rows.hand_over(self.shared.structure);
    }
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> WithTable<'_, 'a, X> {
    #[inline(always)]
    fn work<W: Vector>(&mut self, w: W) -> Result<(), Error> {
        let rows = &mut *self.rows;
        let (shared, layer, x, output, states, estimator, weighted) =
            (self.shared, self.layer, &self.x, self.output, self.states, self.estimator, self.weighted);
        rows.encode(w, layer, shared.structure, x);
        if weighted {
            rows.weights.fill(Lane::ZERO);
        }
        let all = estimator.needs() == Needs::States;
        let scale = shared.scale();
        rows.add_kl(shared)?;
        for row in 0..rows.count {
            let image = shared.batch[rows.chunk * LANES + row] as usize;
            rows.table_losses(w, output, states, shared.bits.all_ones(image));
            if all {
                let same = rows.estimate(shared, estimator, (0, row), states, true)?;
                rows.outcome.count(same);
                let chunks = rows.weights.len() / LANES;
                let weights = &flat(&rows.weights[row * chunks..][..chunks])[..states];
                let terms = weights.iter().zip(&rows.losses).map(|(w, l)| *w as f64 * *l as f64);
                rows.outcome.reconstruction += terms.sum::<f64>();
                continue;
            }
            for sample in 0..shared.samples {
                rows.draw(shared.structure, sample, row)?;
                let same = rows.estimate(shared, estimator, (sample, row), states, false)?;
                rows.outcome.count(same);
                let z = rows.z[sample * LANES + row] as usize;
                rows.outcome.reconstruction += (rows.losses[z] * scale) as f64;
                if weighted {
                    let chunks = rows.weights.len() / LANES;
                    flat_mut(&mut rows.weights[row * chunks..][..chunks])[z] += scale;
                }
            }
        }
        Ok(())
    }
}

/// Potentials and losses at all states, for evaluation: `potentials` `[count, P]`, `losses` `[count, states]`.
pub struct Evaluate<'r, 'a, X> {
    pub rows: &'r mut Rows,
    pub shared: &'a Shared<'a>,
    pub layer: &'a Dense,
    pub x: X,
    pub output: &'a Output,
    pub states: usize,
    pub potentials: &'r mut [f32],
    pub losses: &'r mut [f32],
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> Kernel for Evaluate<'_, 'a, X> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Evaluate { rows, shared, layer, x, output, states, potentials, losses } = self;
        rows.encode(w, layer, shared.structure, x);
        potentials.copy_from_slice(rows.potentials(shared.structure));
        for (row, losses) in losses.chunks_exact_mut(states).enumerate() {
            let image = shared.batch[rows.chunk * LANES + row] as usize;
            rows.table_losses(w, output, states, shared.bits.all_ones(image));
            losses.copy_from_slice(rows.losses(states));
        }
    }
}

/// The decoder's layers.
#[derive(Clone, Copy)]
pub struct Decoder<'a> {
    pub codes: &'a Codes,
    pub dense: &'a [Dense],
    pub output: &'a Output,
}

/// A code and its one-coordinate changes in the decoder.
struct Neighbours {
    /// U values.
    code: Vec<f32>,
    changes: Vec<Change>,
    /// Losses of the code and then of its changes, filled up to whole lanes.
    losses: Vec<f32>,
    /// The first layer before its ReLU at the code.
    base: Vec<Lane>,
    /// Units of sixteen changes, for each hidden layer of the decoder: `[unit groups, 16 units]`.
    units: Vec<Vec<Lane>>,
}

impl Neighbours {
    fn new(structure: &AnyStructure, hidden: &[usize]) -> Self {
        let u = structure.unary();
        let changes = structure.code().changes(u);
        Neighbours {
            code: vec![0.0; u],
            changes: Vec::with_capacity(changes),
            losses: vec![0.0; lanes(1 + changes) * LANES],
            base: vec![Lane::ZERO; hidden.first().map_or(0, |width| lanes(*width))],
            units: hidden.iter().map(|width| vec![Lane::ZERO; lanes(*width) * LANES]).collect(),
        }
    }

    /// Writes the losses of the separable approximation around z for an image to `out` (U values); returns that of z.
    #[inline(always)]
    fn losses<W: Vector>(
        &mut self,
        w: W,
        structure: &AnyStructure,
        z: &[u32],
        decoder: Decoder<'_>,
        (bits, image): (&Bits, usize),
        out: &mut [f32],
    ) -> f32 {
        let kind = structure.code();
        structure.encode(z, &mut self.code);
        self.changes.clear();
        kind.for_each_change(&self.code, |change| self.changes.push(change));
        for (group, base) in decoder.codes.groups.iter().zip(&mut self.base) {
            let mut sum = w.load(&group.bias.p[0]);
            for (one, _) in self.code.iter().enumerate().filter(|(_, c)| **c != 0.0) {
                sum = w.add(sum, w.load(&group.weights.p[one]));
            }
            w.store(base, sum);
        }
        // Row 0 is the code itself.
        for (t, losses) in self.losses.chunks_exact_mut(LANES).enumerate() {
            let none = Change { off: None, on: None };
            let change = |l: usize| match (t * LANES + l).checked_sub(1) {
                Some(c) => self.changes.get(c).copied().unwrap_or(none),
                None => none,
            };
            let changes: [Change; LANES] = std::array::from_fn(change);
            decode_changes(w, decoder, &self.base, &changes, &mut self.units);
            let last = self.units.last().expect("a decoder has a hidden layer");
            let mut sum = w.zero();
            for (b, block) in decoder.output.blocks.iter().enumerate() {
                sum = w.add(sum, block.losses(w, last, decoder.output.units, bits.ones(image, b)));
            }
            let mut lane = Lane::ZERO;
            w.store(&mut lane, sum);
            losses.copy_from_slice(&lane.0);
        }
        let (own, changed) = (self.losses[0], &self.losses[1..=self.changes.len()]);
        kind.neighbour_losses(&self.code, own, changed, out);
        own
    }
}

/// The decoder's last hidden units for sixteen changes of a code, changes in the lanes.
#[inline(always)]
fn decode_changes<W: Vector>(
    w: W,
    decoder: Decoder<'_>,
    base: &[Lane],
    changes: &[Change; LANES],
    units: &mut [Vec<Lane>],
) {
    for ((group, base), out) in decoder.codes.groups.iter().zip(base).zip(units[0].chunks_exact_mut(LANES)) {
        let base = w.load(base);
        let weights = |place: Option<usize>| place.map_or(w.zero(), |u| w.load(&group.weights.p[u]));
        let mut tile = [Lane::ZERO; LANES];
        for (row, change) in tile.iter_mut().zip(changes) {
            let moved = w.add(base, w.sub(weights(change.on), weights(change.off)));
            w.store(row, w.max(moved, w.zero()));
        }
        transpose(&tile, out);
    }
    for (l, layer) in decoder.dense.iter().enumerate() {
        let [x, y] = units.get_disjoint_mut([l, l + 1]).expect("one layer after the other");
        layer.transposed_forward(w, x, y);
    }
}

/// Potentials, z*, and the gradient from the losses of its neighbours.
pub struct WithNeighbours<'r, 'a, X> {
    pub rows: &'r mut Rows,
    pub shared: &'a Shared<'a>,
    pub layer: &'a Dense,
    pub x: X,
    pub decoder: Decoder<'a>,
    pub estimator: &'a dyn Estimator<AnyStructure>,
    /// z(eps) is improved by a local search at this epsilon.
    pub search: Option<f32>,
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> Kernel for WithNeighbours<'_, 'a, X> {
    #[inline(always)]
    fn run<W: Vector>(mut self, w: W) {
        let error = self.work(w).err();
        self.rows.outcome.error = error;
        self.rows.hand_over(self.shared.structure);
    }
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> WithNeighbours<'_, 'a, X> {
    #[inline(always)]
    fn work<W: Vector>(&mut self, w: W) -> Result<(), Error> {
        let rows = &mut *self.rows;
        let (shared, layer, x, decoder, estimator) = (self.shared, self.layer, &self.x, self.decoder, self.estimator);
        rows.encode(w, layer, shared.structure, x);
        let (u, n) = (shared.structure.unary(), shared.structure.variables());
        let scale = shared.scale();
        rows.add_kl(shared)?;
        for row in 0..rows.count {
            let image = (shared.bits, shared.batch[rows.chunk * LANES + row] as usize);
            for sample in 0..shared.samples {
                rows.draw_code(shared.structure, sample, row)?;
                let z = &rows.z[(sample * LANES + row) * n..][..n];
                let losses = &mut rows.losses[..u];
                let own = rows.neighbours.losses(w, shared.structure, z, decoder, image, losses);
                rows.outcome.reconstruction += (own * scale) as f64;
                let mut same = rows.estimate(shared, estimator, (sample, row), u, false)?;
                if let Some(epsilon) = self.search {
                    same = Some(rows.search(w, shared, decoder, image, (epsilon, own), (sample, row)));
                }
                rows.outcome.count(same);
            }
        }
        Ok(())
    }
}

impl Rows {
    /// Improves z(eps) of a draw by the local search of [`Search`], given the loss `own` of z* and those of its
    /// neighbours in `self.losses`, and the gradient with it; whether it then is z*.
    #[inline(always)]
    fn search<W: Vector>(
        &mut self,
        w: W,
        shared: &Shared<'_>,
        decoder: Decoder<'_>,
        image: (&Bits, usize),
        (epsilon, own): (f32, f32),
        (sample, row): (usize, usize),
    ) -> bool {
        let structure = shared.structure;
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let draw = sample * LANES + row;
        let star = &self.z[draw * n..][..n];
        self.perturbed.copy_from_slice(&self.h[row * p..][..p]);
        self.perturbed.iter_mut().zip(&self.noise[draw * u..][..u]).for_each(|(h, g)| *h += g);
        let scale = shared.scale() / epsilon;
        let g = &mut self.g[row * p..][..p];
        structure.add_statistics(&self.moved, scale, g);
        let search = Search { structure, perturbed: &self.perturbed, epsilon };
        let mut gain = 0.0;
        let mut near = own;
        if self.moved != star {
            let losses = &mut self.searched[..u];
            near = self.neighbours.losses(w, structure, &self.moved, decoder, image, losses);
            match search.better_start((&mut self.moved, near), (star, own)) {
                Some(better) => (gain, near) = (better, own),
                None => self.losses[..u].copy_from_slice(losses),
            }
        }
        while let Some(better) = search.improve(near, &self.losses[..u], &mut self.moved) {
            gain += better;
            near = self.neighbours.losses(w, structure, &self.moved, decoder, image, &mut self.losses[..u]);
        }
        structure.add_statistics(&self.moved, -scale, g);
        self.outcome.missed.add(gain);
        self.moved == star
    }
}

/// Relaxed codes, or z* where they are straightened.
pub struct Relax<'r, 'a, X> {
    pub rows: &'r mut Rows,
    pub shared: &'a Shared<'a>,
    pub layer: &'a Dense,
    pub x: X,
    pub temperature: f32,
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> Kernel for Relax<'_, 'a, X> {
    #[inline(always)]
    fn run<W: Vector>(mut self, w: W) {
        let error = self.work(w).err();
        self.rows.outcome.error = error;
    }
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> Relax<'_, 'a, X> {
    #[inline(always)]
    fn work<W: Vector>(&mut self, w: W) -> Result<(), Error> {
        let rows = &mut *self.rows;
        let (shared, layer, x, temperature) = (self.shared, self.layer, &self.x, self.temperature);
        rows.encode(w, layer, shared.structure, x);
        let (p, u) = (shared.structure.potentials(), shared.structure.unary());
        let k = u / shared.structure.variables();
        rows.add_kl(shared)?;
        for sample in 0..shared.samples {
            for row in 0..rows.count {
                rows.draw_code(shared.structure, sample, row)?;
                let noise = &rows.noise[(sample * LANES + row) * u..][..u];
                let code = &mut rows.perturbed[..u];
                code.copy_from_slice(&rows.h[row * p..][..u]);
                code.iter_mut().zip(noise).for_each(|(h, g)| *h = (*h + g) / temperature);
                code.chunks_exact_mut(k).for_each(|block| {
                    softmax_in_place(block);
                });
                for (group, code) in code.chunks(LANES).enumerate() {
                    let tile = (sample * lanes(u) + group) * LANES;
                    rows.soft[tile + row].0[..code.len()].copy_from_slice(code);
                }
            }
        }
        Ok(())
    }
}

/// From the gradient at the decoder's first units back to the potentials through the relaxed codes.
pub struct Unrelax<'r, 'a> {
    pub rows: &'r mut Rows,
    pub shared: &'a Shared<'a>,
    pub codes: &'a Codes,
    /// Chunks of a sample.
    pub chunks: usize,
    pub temperature: f32,
}

impl Kernel for Unrelax<'_, '_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Unrelax { rows, shared, codes, chunks, temperature } = self;
        let (p, u) = (shared.structure.potentials(), shared.structure.unary());
        let k = u / shared.structure.variables();
        for sample in 0..shared.samples {
            let chunk = sample * chunks + rows.chunk;
            for group in 0..lanes(u) {
                // The noise is spent: its place takes the gradient at the codes.
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
                        let at = (sample * LANES + first + q) * u + group * LANES;
                        rows.noise[at..][..width].copy_from_slice(&lane.0[..width]);
                    }
                });
            }
            for row in 0..rows.count {
                for (group, code) in rows.perturbed[..u].chunks_mut(LANES).enumerate() {
                    let tile = (sample * lanes(u) + group) * LANES;
                    code.copy_from_slice(&rows.soft[tile + row].0[..code.len()]);
                }
                let at_code = &rows.noise[(sample * LANES + row) * u..][..u];
                let g = rows.g[row * p..][..u].chunks_exact_mut(k);
                let blocks = rows.perturbed[..u].chunks_exact(k).zip(at_code.chunks_exact(k));
                for ((code, d), g) in blocks.zip(g) {
                    let mean: f32 = code.iter().zip(d).map(|(q, d)| q * d).sum();
                    for ((g, q), d) in g.iter_mut().zip(code).zip(d) {
                        *g += q * (d - mean) / temperature;
                    }
                }
            }
        }
        rows.hand_over(shared.structure);
    }
}
