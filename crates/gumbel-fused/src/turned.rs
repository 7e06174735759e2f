//! Rows of the decoder one by one, with pixels in the lanes.
//!
//! Where every row is another image's at another assignment, sixteen of them in the lanes would have to be found first,
//! and half of a row's hidden units are zero. So a row is computed alone, along the units that are not: for each block
//! of pixels, whose weights stay in the nearest cache, row after row. What a row costs does not depend on how many are
//! asked about together, and neither do its bits.
//!
//! The weights with pixels in the lanes are a copy, made once for the parameters of a step.

use super::ask::{DecoderLayers, Scratch};
use super::bits::{BLOCK, Bits};
use super::codes::Codes;
use super::output::{Block, Output};
use super::rows::ASKED;
use super::simd::{Kernel, LANES, Lane, Vector, flat, lanes};
use super::team::{Team, each};
use super::tile::transpose;
use gumbel::structure::{AnyStructure, Structure};

/// Parts of a block of pixels: the weights of one stay in the nearest cache.
const PARTS: usize = 4;
/// Lanes of pixels in a part.
const PART: usize = BLOCK / LANES / PARTS;
/// The bias of pixels beyond the last: a softplus and a sigmoid of zero.
const NO_PIXEL: f32 = -1e4;

/// The output layer's weights with pixels in the lanes.
#[derive(Default)]
pub struct Turned {
    /// Steps of the optimiser before the parameters of the copy, if there is one.
    steps: Option<u64>,
    blocks: Vec<TurnedBlock>,
}

/// 64 pixels.
struct TurnedBlock {
    /// Of each part, the weights of each unit.
    weights: [Vec<[Lane; PART]>; PARTS],
    bias: [[Lane; PART]; PARTS],
}

impl Turned {
    /// Makes the copy true, and that of the weights of the codes.
    pub fn refresh(&mut self, team: &mut Team, output: &Output, codes: &mut Codes, steps: u64) {
        if self.steps == Some(steps) {
            return;
        }
        let units = lanes(output.units) * LANES;
        let block = || TurnedBlock {
            weights: [(); PARTS].map(|()| vec![[Lane::ZERO; PART]; units]),
            bias: [[Lane([NO_PIXEL; LANES]); PART]; PARTS],
        };
        self.blocks.resize_with(output.blocks.len(), block);
        let blocks = each(&mut self.blocks, |b, turned| turned.copy(&output.blocks[b], units / LANES));
        let codes = each(&mut codes.groups, |_, group| group.transpose());
        team.run(&[&blocks, &codes]);
        self.steps = Some(steps);
    }

    /// Forgets the copy.
    pub fn forget(&mut self) {
        self.steps = None;
    }
}

impl TurnedBlock {
    fn copy(&mut self, block: &Block, groups: usize) {
        let mut out = [Lane::ZERO; LANES];
        for p in 0..lanes(block.pixels()) {
            let part = p / PART;
            let lane = p - part * PART;
            for g in 0..groups {
                transpose(block.tile(p, g, groups), &mut out);
                let units = self.weights[part][g * LANES..].iter_mut().zip(out);
                units.for_each(|(unit, weights)| unit[lane] = weights);
            }
            let pixels = (block.pixels() - p * LANES).min(LANES);
            self.bias[part][lane].0[..pixels].copy_from_slice(&block.bias(p).0[..pixels]);
        }
    }
}

/// A number that is not zero, and its place.
#[derive(Clone, Copy, Default)]
struct Entry {
    place: u32,
    value: f32,
}

/// Working memory for the rows that are asked about together.
pub struct Work {
    /// Hidden units `[rows, groups of units]`.
    hidden: Vec<Lane>,
    /// What is not zero in a code.
    code: Vec<Entry>,
    /// Units that are not zero, row by row.
    active: Vec<Entry>,
    ends: [usize; ASKED],
    /// Gradients at the hidden units, as those.
    gradient: Vec<Lane>,
    /// How hidden units move along a direction, as those, and what moves.
    moved: Vec<Lane>,
    moving: Vec<Entry>,
    moving_ends: [usize; ASKED],
}

impl Work {
    pub fn new(code: usize, first: usize, last: usize) -> Self {
        let zero = |n: usize| vec![Lane::ZERO; n];
        let widest = lanes(first.max(last));
        Work {
            hidden: zero(ASKED * widest),
            code: vec![Entry::default(); code + 1],
            active: vec![Entry::default(); ASKED * widest * LANES + 1],
            ends: [0; ASKED],
            gradient: zero(ASKED * widest),
            moved: zero(ASKED * widest),
            moving: vec![Entry::default(); ASKED * widest * LANES + 1],
            moving_ends: [0; ASKED],
        }
    }
}

/// Writes the numbers that are not zero to `out`, which has room for all and one more; how many there are.
#[inline(always)]
fn not_zero(x: &[f32], out: &mut [Entry]) -> usize {
    let mut count = 0;
    for (place, value) in x.iter().enumerate() {
        // Whether it stays or the next one takes its place: no branch that cannot be foreseen.
        out[count] = Entry { place: place as u32, value: *value };
        count += (*value != 0.0) as usize;
    }
    count
}

impl Scratch {
    /// The decoder's first hidden units for the row r, whose code has these entries.
    #[inline(always)]
    fn first_units<W: Vector>(
        &mut self,
        w: W,
        codes: &Codes,
        r: usize,
        code: impl Iterator<Item = (usize, f32)> + Clone,
    ) {
        let groups = codes.groups.len();
        for (group, y) in codes.groups.iter().zip(&mut self.rows.hidden[r * groups..]) {
            let mut sum = w.load(&group.bias.p[0]);
            for (u, c) in code.clone() {
                sum = w.fma(w.splat(c), w.load(&group.weights.p[u]), sum);
            }
            w.store(y, w.max(sum, w.zero()));
        }
    }

    /// From there the last hidden units of all rows, and which of them are not zero.
    #[inline(always)]
    fn last_units<W: Vector>(&mut self, w: W, decoder: DecoderLayers<'_>, rows: usize) {
        let mut groups = decoder.codes.groups.len();
        if !decoder.dense.is_empty() {
            let mut tile = [Lane::ZERO; LANES];
            for (g, out) in self.units[0].chunks_exact_mut(LANES).enumerate() {
                tile.iter_mut().enumerate().take(rows).for_each(|(r, t)| *t = self.rows.hidden[r * groups + g]);
                transpose(&tile, out);
            }
            self.deepen(w, decoder);
            groups = lanes(decoder.output.units);
            for (g, units) in self.units.last().expect("a hidden layer").chunks_exact(LANES).enumerate() {
                transpose(units, &mut tile);
                tile.iter().enumerate().take(rows).for_each(|(r, t)| self.rows.hidden[r * groups + g] = *t);
            }
        }
        let Work { hidden, active, ends, .. } = &mut self.rows;
        let mut end = 0;
        for (r, units) in hidden.chunks_exact(groups).enumerate().take(rows) {
            end += not_zero(flat(units), &mut active[end..]);
            ends[r] = end;
        }
    }
}

impl Work {
    /// The units of a row that are not zero.
    #[inline(always)]
    fn active(&self, row: usize) -> &[Entry] {
        let first = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.active[first..self.ends[row]]
    }

    /// Those that move.
    #[inline(always)]
    fn moving(&self, row: usize) -> &[Entry] {
        let first = if row == 0 { 0 } else { self.moving_ends[row - 1] };
        &self.moving[first..self.moving_ends[row]]
    }
}

/// `start + sum of value * vectors[place]`.
#[inline(always)]
fn weighted_sum<W: Vector, const N: usize>(
    w: W,
    start: [W::V; N],
    vectors: &[[Lane; N]],
    entries: &[Entry],
) -> [W::V; N] {
    // Several sums, so that additions need not wait for each other.
    let mut sums = [[w.zero(); N]; 8];
    sums[0] = start;
    let (eights, rest) = entries.as_chunks::<8>();
    let add = |sum: &mut [W::V; N], entry: &Entry| {
        let (value, vector) = (w.splat(entry.value), &vectors[entry.place as usize]);
        for (sum, x) in sum.iter_mut().zip(vector) {
            *sum = w.fma(w.load(x), value, *sum);
        }
    };
    for eight in eights {
        sums.iter_mut().zip(eight).for_each(|(sum, entry)| add(sum, entry));
    }
    rest.iter().for_each(|entry| add(&mut sums[0], entry));
    for distance in [4, 2, 1] {
        let (sums, others) = sums.split_at_mut(distance);
        for (sum, other) in sums.iter_mut().zip(others).flat_map(|(s, o)| s.iter_mut().zip(o)) {
            *sum = w.add(*sum, *other);
        }
    }
    sums[0]
}

/// Rows that are computed together: further hidden layers have sixteen in the lanes.
fn at_once(decoder: DecoderLayers<'_>) -> usize {
    if decoder.dense.is_empty() { ASKED } else { LANES }
}

/// The image in a block, a bit for each pixel.
#[inline(always)]
fn mask(bits: &Bits, image: u32, block: usize) -> u64 {
    bits.ones(image as usize, block).iter().fold(0, |mask, one| mask | 1 << (*one as usize % BLOCK))
}

/// Sixteen pixels of a block as numbers.
#[inline(always)]
fn pixels(mask: u64, lane: usize) -> Lane {
    let bits = (mask >> (lane * LANES)) as u32;
    Lane(std::array::from_fn(|l| (bits >> l & 1) as f32))
}

/// Losses at assignments.
pub struct Losses<'a> {
    pub scratch: &'a mut Scratch,
    pub structure: &'a AnyStructure,
    pub decoder: DecoderLayers<'a>,
    pub bits: &'a Bits,
    /// Images by their numbers in `bits`, `[rows]`.
    pub of: &'a [u32],
    /// `[rows, n]`.
    pub assignments: &'a [u32],
    /// `[rows]`.
    pub losses: &'a mut [f32],
}

impl Kernel for Losses<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Losses { scratch, structure, decoder, bits, .. } = self;
        let (n, most) = (structure.variables(), at_once(decoder));
        let rows = self.of.chunks(most).zip(self.assignments.chunks(most * n)).zip(self.losses.chunks_mut(most));
        for ((of, assignments), losses) in rows {
            let mut ones = std::mem::take(&mut scratch.ones);
            for (r, z) in assignments.chunks_exact(n).enumerate() {
                ones.set(0, structure, z);
                scratch.first_units(w, decoder.codes, r, ones.of(0).iter().map(|one| (*one as usize, 1.0)));
            }
            scratch.ones = ones;
            scratch.last_units(w, decoder, of.len());
            let (mut sums, mut masks) = ([Lane::ZERO; ASKED], [0; ASKED]);
            for (b, block) in decoder.turned.blocks.iter().enumerate() {
                masks.iter_mut().zip(of).for_each(|(m, image)| *m = mask(bits, *image, b));
                for (part, (weights, bias)) in block.weights.iter().zip(&block.bias).enumerate() {
                    for (r, (mask, sum)) in masks.iter().zip(&mut sums).enumerate().take(of.len()) {
                        let logits =
                            weighted_sum(w, bias.each_ref().map(|b| w.load(b)), weights, scratch.rows.active(r));
                        let mut total = w.load(sum);
                        for (i, t) in logits.into_iter().enumerate() {
                            let x = w.load(&pixels(*mask, part * PART + i));
                            total = w.add(total, w.sub(w.softplus(t), w.mul(x, t)));
                        }
                        w.store(sum, total);
                    }
                }
            }
            losses.iter_mut().zip(&sums).for_each(|(loss, sum)| *loss = w.sum(w.load(sum)));
        }
    }
}

/// Losses and their derivatives in the code, at codes that are hard or relaxed.
pub struct Slopes<'a> {
    pub scratch: &'a mut Scratch,
    pub decoder: DecoderLayers<'a>,
    pub bits: &'a Bits,
    /// Images by their numbers in `bits`, `[rows]`.
    pub of: &'a [u32],
    /// `[rows, U]`.
    pub codes: &'a [f32],
    /// `[rows]`.
    pub losses: &'a mut [f32],
    /// `[rows, U]`.
    pub slopes: &'a mut [f32],
}

impl Kernel for Slopes<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Slopes { scratch, decoder, bits, .. } = self;
        let (u, most) = (decoder.codes.width, at_once(decoder));
        let rows = self.of.chunks(most).zip(self.codes.chunks(most * u));
        let rows = rows.zip(self.losses.chunks_mut(most).zip(self.slopes.chunks_mut(most * u)));
        for ((of, codes), (losses, slopes)) in rows {
            let mut entries = std::mem::take(&mut scratch.rows.code);
            for (r, code) in codes.chunks_exact(u).enumerate() {
                let count = not_zero(code, &mut entries);
                let code = entries[..count].iter().map(|e| (e.place as usize, e.value));
                scratch.first_units(w, decoder.codes, r, code);
            }
            scratch.rows.code = entries;
            scratch.last_units(w, decoder, of.len());
            scratch.losses_and_gradient(w, decoder, bits, of, losses);
            scratch.code_slopes(w, decoder, of.len(), slopes);
        }
    }
}

/// Second derivatives of losses at codes times directions: forwards along the direction, and back.
///
/// The decoder is linear between the places where units are switched on or off, so that all curvature is that of the
/// pixels' losses, `p (1 - p)` at the logits, whatever the image.
pub struct Tangents<'a> {
    pub scratch: &'a mut Scratch,
    pub decoder: DecoderLayers<'a>,
    /// `[rows, U]`.
    pub codes: &'a [f32],
    /// `[rows, U]`.
    pub directions: &'a [f32],
    /// `[rows, U]`.
    pub tangents: &'a mut [f32],
}

impl Kernel for Tangents<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Tangents { scratch, decoder, .. } = self;
        let (u, most) = (decoder.codes.width, at_once(decoder));
        let rows = self.codes.chunks(most * u).zip(self.directions.chunks(most * u));
        for ((codes, directions), tangents) in rows.zip(self.tangents.chunks_mut(most * u)) {
            let rows = codes.len() / u;
            let mut entries = std::mem::take(&mut scratch.rows.code);
            for (r, (code, direction)) in codes.chunks_exact(u).zip(directions.chunks_exact(u)).enumerate() {
                let count = not_zero(code, &mut entries);
                let code = entries[..count].iter().map(|e| (e.place as usize, e.value));
                scratch.first_units(w, decoder.codes, r, code);
                let count = not_zero(direction, &mut entries);
                scratch.first_moved(w, decoder.codes, r, &entries[..count]);
            }
            scratch.rows.code = entries;
            scratch.last_units(w, decoder, rows);
            scratch.last_moved(w, decoder, rows);
            scratch.curvature(w, decoder, rows);
            scratch.code_slopes(w, decoder, rows, tangents);
        }
    }
}

impl Scratch {
    /// How the first hidden units of the row r move along a direction with these entries.
    #[inline(always)]
    fn first_moved<W: Vector>(&mut self, w: W, codes: &Codes, r: usize, direction: &[Entry]) {
        let groups = codes.groups.len();
        let Work { hidden, moved, .. } = &mut self.rows;
        let units = hidden[r * groups..].iter().zip(&mut moved[r * groups..]);
        for (group, (y, moved)) in codes.groups.iter().zip(units) {
            let mut sum = w.zero();
            for entry in direction {
                sum = w.fma(w.splat(entry.value), w.load(&group.weights.p[entry.place as usize]), sum);
            }
            w.store(moved, w.choose(w.load(y), w.zero(), sum, w.zero()));
        }
    }

    /// From there how the last hidden units of all rows move, and which of them do.
    #[inline(always)]
    fn last_moved<W: Vector>(&mut self, w: W, decoder: DecoderLayers<'_>, rows: usize) {
        let mut groups = decoder.codes.groups.len();
        if !decoder.dense.is_empty() {
            // The place of the gradients is free until the way back.
            let mut tile = [Lane::ZERO; LANES];
            for (g, out) in self.gradients[0].chunks_exact_mut(LANES).enumerate() {
                tile.iter_mut().enumerate().take(rows).for_each(|(r, t)| *t = self.rows.moved[r * groups + g]);
                transpose(&tile, out);
            }
            for (l, layer) in decoder.dense.iter().enumerate() {
                let [moved, out] = self.gradients.get_disjoint_mut([l, l + 1]).expect("one layer after the other");
                layer.transposed_push(w, moved, &self.units[l + 1], out);
            }
            groups = lanes(decoder.output.units);
            for (g, moved) in self.gradients[decoder.dense.len()].chunks_exact(LANES).enumerate() {
                transpose(moved, &mut tile);
                tile.iter().enumerate().take(rows).for_each(|(r, t)| self.rows.moved[r * groups + g] = *t);
            }
        }
        let Work { moved, moving, moving_ends, .. } = &mut self.rows;
        let mut end = 0;
        for (r, moved) in moved.chunks_exact(groups).enumerate().take(rows) {
            end += not_zero(flat(moved), &mut moving[end..]);
            moving_ends[r] = end;
        }
    }

    /// The derivatives of the gradients at the decoder's last hidden units.
    #[inline(always)]
    fn curvature<W: Vector>(&mut self, w: W, decoder: DecoderLayers<'_>, rows: usize) {
        let groups = lanes(decoder.output.units);
        let mut derivative = [[Lane::ZERO; PART]; ASKED];
        self.rows.gradient[..rows * groups].fill(Lane::ZERO);
        for (b, block) in decoder.turned.blocks.iter().enumerate() {
            for (part, (weights, bias)) in block.weights.iter().zip(&block.bias).enumerate() {
                for (r, derivative) in derivative.iter_mut().enumerate().take(rows) {
                    let bias = bias.each_ref().map(|b| w.load(b));
                    let logits = weighted_sum(w, bias, weights, self.rows.active(r));
                    let moved = weighted_sum(w, [w.zero(); PART], weights, self.rows.moving(r));
                    for ((t, moved), d) in logits.into_iter().zip(moved).zip(derivative) {
                        let (_, p) = w.softplus_and_sigmoid(t);
                        w.store(d, w.mul(w.sub(p, w.mul(p, p)), moved));
                    }
                }
                let rows = derivative.iter().zip(self.rows.gradient.chunks_exact_mut(groups)).take(rows);
                for (derivative, gradient) in rows {
                    decoder.output.blocks[b].row_gradient(w, part * PART, derivative, gradient);
                }
            }
        }
        let units = self.rows.hidden.iter().zip(&mut self.rows.gradient).take(rows * groups);
        for (y, g) in units {
            w.store(g, w.choose(w.load(y), w.zero(), w.load(g), w.zero()));
        }
    }

    /// Losses, and their gradients at the decoder's last hidden units.
    #[inline(always)]
    fn losses_and_gradient<W: Vector>(
        &mut self,
        w: W,
        decoder: DecoderLayers<'_>,
        bits: &Bits,
        of: &[u32],
        losses: &mut [f32],
    ) {
        let groups = lanes(decoder.output.units);
        let (mut sums, mut masks) = ([Lane::ZERO; ASKED], [0; ASKED]);
        let mut derivative = [[Lane::ZERO; PART]; ASKED];
        self.rows.gradient[..of.len() * groups].fill(Lane::ZERO);
        for (b, block) in decoder.turned.blocks.iter().enumerate() {
            masks.iter_mut().zip(of).for_each(|(m, image)| *m = mask(bits, *image, b));
            for (part, (weights, bias)) in block.weights.iter().zip(&block.bias).enumerate() {
                let rows = masks.iter().zip(&mut sums).zip(&mut derivative).take(of.len());
                for (r, ((mask, sum), derivative)) in rows.enumerate() {
                    let bias = bias.each_ref().map(|b| w.load(b));
                    let logits = weighted_sum(w, bias, weights, self.rows.active(r));
                    let mut total = w.load(sum);
                    for (i, (t, d)) in logits.into_iter().zip(derivative).enumerate() {
                        let (softplus, sigmoid) = w.softplus_and_sigmoid(t);
                        let x = w.load(&pixels(*mask, part * PART + i));
                        total = w.add(total, w.sub(softplus, w.mul(x, t)));
                        w.store(d, w.sub(sigmoid, x));
                    }
                    w.store(sum, total);
                }
                let rows = derivative.iter().zip(self.rows.gradient.chunks_exact_mut(groups));
                for (derivative, gradient) in rows.take(of.len()) {
                    decoder.output.blocks[b].row_gradient(w, part * PART, derivative, gradient);
                }
            }
        }
        losses.iter_mut().zip(&sums).for_each(|(loss, sum)| *loss = w.sum(w.load(sum)));
        let units = self.rows.hidden.iter().zip(&mut self.rows.gradient).take(of.len() * groups);
        for (y, g) in units {
            w.store(g, w.choose(w.load(y), w.zero(), w.load(g), w.zero()));
        }
    }

    /// From there back to the code.
    #[inline(always)]
    fn code_slopes<W: Vector>(&mut self, w: W, decoder: DecoderLayers<'_>, rows: usize, slopes: &mut [f32]) {
        let DecoderLayers { codes, dense, .. } = decoder;
        let (u, groups) = (codes.width, codes.groups.len());
        if !dense.is_empty() {
            let last = lanes(decoder.output.units);
            let mut tile = [Lane::ZERO; LANES];
            for (g, out) in self.gradients[dense.len()].chunks_exact_mut(LANES).enumerate() {
                tile.iter_mut().enumerate().take(rows).for_each(|(r, t)| *t = self.rows.gradient[r * last + g]);
                transpose(&tile, out);
            }
            for (l, layer) in dense.iter().enumerate().rev() {
                let [below, above] = self.gradients.get_disjoint_mut([l, l + 1]).expect("one layer after the other");
                layer.transposed_backward(w, above, &self.units[l], below);
            }
            for (g, units) in self.gradients[0].chunks_exact(LANES).enumerate() {
                transpose(units, &mut tile);
                tile.iter().enumerate().take(rows).for_each(|(r, t)| self.rows.gradient[r * groups + g] = *t);
            }
        }
        for (gradient, slopes) in self.rows.gradient.chunks_exact(groups).zip(slopes.chunks_exact_mut(u)).take(rows) {
            let count = not_zero(flat(gradient), &mut self.rows.active);
            let active = &self.rows.active[..count];
            let mut first = 0;
            while first < lanes(u) {
                let n = (lanes(u) - first).min(8);
                let mut sums = [w.zero(); 8];
                for entry in active {
                    let (g, l) = (entry.place as usize / LANES, entry.place as usize % LANES);
                    let value = w.splat(entry.value);
                    let weights = &codes.groups[g].transposed[first * LANES + l..];
                    for (q, sum) in sums.iter_mut().enumerate().take(n) {
                        *sum = w.fma(w.load(&weights[q * LANES]), value, *sum);
                    }
                }
                for (q, sum) in sums.into_iter().enumerate().take(n) {
                    let mut lane = Lane::ZERO;
                    w.store(&mut lane, sum);
                    let at = (first + q) * LANES;
                    let width = (u - at).min(LANES);
                    slopes[at..][..width].copy_from_slice(&lane.0[..width]);
                }
                first += n;
            }
        }
    }
}
