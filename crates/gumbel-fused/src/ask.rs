//! Questions to the decoder about single images: losses at assignments, at one-coordinate changes, and their slopes.
//!
//! Sixteen rows stand in the lanes. Whoever asks has a [`Scratch`]; parameters are only read.

use super::bits::{BLOCK, Bits};
use super::codes::{Codes, Ones};
use super::dense::{Dense, rows_in};
use super::output::Output;
use super::simd::{Kernel, LANES, Lane, Vector, lanes};
use super::tile::{by_rows, columns_by_lanes, transpose};
use super::turned::{self, Turned};
use gumbel::structure::{AnyStructure, Change, Structure};

/// The decoder's layers.
#[derive(Clone, Copy)]
pub struct DecoderLayers<'a> {
    pub codes: &'a Codes,
    pub dense: &'a [Dense],
    pub output: &'a Output,
    pub turned: &'a Turned,
}

/// Working memory for one group of sixteen rows.
pub struct Scratch {
    /// U values.
    code: Vec<f32>,
    /// Codes of sixteen rows.
    pub ones: Ones,
    changes: Vec<Change>,
    /// Losses of a code and then of its changes, filled up to whole lanes.
    losses: Vec<f32>,
    /// The first layer before its ReLU at a code.
    base: Vec<Lane>,
    /// Units of sixteen rows, for each hidden layer of the decoder, and the gradients there: `[units, rows in the
    /// lanes]`.
    pub units: Vec<Vec<Lane>>,
    /// Of each group of the last hidden units, the bits of those that are not zero in at least one of sixteen rows.
    used: Vec<u16>,
    pub gradients: Vec<Vec<Lane>>,
    pub rows: turned::Work,
    /// Codes `[U, rows in the lanes]`.
    input: Vec<Lane>,
    /// Logits of a block `[64 pixels, rows in the lanes]`.
    logits: Vec<Lane>,
}

impl Scratch {
    /// `hidden` are the widths of the decoder's hidden layers.
    pub fn new(structure: &AnyStructure, hidden: &[usize]) -> Self {
        let u = structure.unary();
        let changes = structure.code().changes(u);
        let units = || hidden.iter().map(|width| vec![Lane::ZERO; lanes(*width) * LANES]).collect();
        Scratch {
            code: vec![0.0; u],
            ones: Ones::new(LANES, u),
            changes: Vec::with_capacity(changes),
            losses: vec![0.0; lanes(1 + changes) * LANES],
            base: vec![Lane::ZERO; hidden.first().map_or(0, |width| lanes(*width))],
            units: units(),
            used: vec![0; hidden.last().map_or(0, |width| lanes(*width))],
            gradients: units(),
            rows: turned::Work::new(u, hidden.first().map_or(0, |w| *w), hidden.last().map_or(0, |w| *w)),
            input: vec![Lane::ZERO; lanes(u) * LANES],
            logits: vec![Lane::ZERO; BLOCK],
        }
    }

    /// The decoder's hidden layers after the first.
    #[inline(always)]
    pub fn deepen<W: Vector>(&mut self, w: W, decoder: DecoderLayers<'_>) {
        for (l, layer) in decoder.dense.iter().enumerate() {
            let [x, y] = self.units.get_disjoint_mut([l, l + 1]).expect("one layer after the other");
            layer.transposed_forward(w, x, y);
        }
    }

    /// The decoder's hidden units at up to sixteen assignments `[rows, n]`.
    #[inline(always)]
    pub fn decode<W: Vector>(
        &mut self,
        w: W,
        structure: &AnyStructure,
        decoder: DecoderLayers<'_>,
        assignments: &[u32],
    ) {
        let n = structure.variables();
        assignments.chunks_exact(n).enumerate().for_each(|(r, z)| self.ones.set(r, structure, z));
        let rows = assignments.len() / n;
        for (group, out) in decoder.codes.groups.iter().zip(self.units[0].chunks_exact_mut(LANES)) {
            let bias = w.load(&group.bias.p[0]);
            let mut tile = [Lane::ZERO; LANES];
            for (r, y) in tile.iter_mut().enumerate().take(rows) {
                let mut sum = bias;
                for one in self.ones.of(r) {
                    sum = w.add(sum, w.load(&group.weights.p[*one as usize]));
                }
                w.store(y, w.max(sum, w.zero()));
            }
            transpose(&tile, out);
        }
        self.deepen(w, decoder);
    }

    /// The same at up to sixteen codes `[rows, U]`, hard or relaxed.
    #[inline(always)]
    fn decode_codes<W: Vector>(&mut self, w: W, decoder: DecoderLayers<'_>, rows: &[f32]) {
        let codes = decoder.codes;
        let u = codes.width;
        for (r, code) in rows.chunks_exact(u).enumerate() {
            self.input.iter_mut().zip(code).for_each(|(lane, c)| lane.0[r] = *c);
        }
        for (g, group) in codes.groups.iter().enumerate() {
            by_rows!(W, rows_in(codes.units, g), |first, R| {
                let mut acc: [W::V; R] = std::array::from_fn(|q| w.splat(group.bias.p[0].0[first + q]));
                columns_by_lanes(w, &mut acc, &group.weights.p[..u], first, &self.input[..u]);
                for (y, acc) in self.units[0][g * LANES + first..].iter_mut().zip(acc) {
                    w.store(y, w.max(acc, w.zero()));
                }
            });
        }
        self.deepen(w, decoder);
    }

    /// The losses of an image at the last hidden units of sixteen rows.
    #[inline(always)]
    fn judge<W: Vector>(&mut self, w: W, decoder: DecoderLayers<'_>, (bits, image): (&Bits, usize)) -> Lane {
        let last = self.units.last().expect("a decoder has a hidden layer");
        // The rows of one image are near each other: many units are zero in each of them.
        for (used, tile) in self.used.iter_mut().zip(last.chunks_exact(LANES)) {
            *used = units_used(w, tile);
        }
        let mut sum = w.zero();
        for (b, block) in decoder.output.blocks.iter().enumerate() {
            sum = w.add(sum, block.losses(w, last, &self.used, bits.ones(image, b)));
        }
        let mut lane = Lane::ZERO;
        w.store(&mut lane, sum);
        lane
    }

    /// Writes the losses of the separable approximation around z for an image to `out` (U values); returns that of z.
    #[inline(always)]
    fn around<W: Vector>(
        &mut self,
        w: W,
        structure: &AnyStructure,
        z: &[u32],
        decoder: DecoderLayers<'_>,
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
        for t in 0..self.losses.len() / LANES {
            let none = Change { off: None, on: None };
            let change = |l: usize| match (t * LANES + l).checked_sub(1) {
                Some(c) => self.changes.get(c).copied().unwrap_or(none),
                None => none,
            };
            let changes: [Change; LANES] = std::array::from_fn(change);
            decode_changes(w, decoder, &self.base, &changes, &mut self.units);
            let found = self.judge(w, decoder, (bits, image));
            self.losses[t * LANES..][..LANES].copy_from_slice(&found.0);
        }
        let (own, changed) = (self.losses[0], &self.losses[1..=self.changes.len()]);
        kind.neighbour_losses(&self.code, own, changed, out);
        own
    }
}

/// The bits of the units of a tile `[16 units, rows in the lanes]` that are not zero in at least one row.
#[inline(always)]
fn units_used<W: Vector>(w: W, tile: &[Lane]) -> u16 {
    let mut used = 0;
    for (l, rows) in tile.iter().enumerate() {
        used |= ((w.sum(w.load(rows)) != 0.0) as u16) << l;
    }
    used
}

/// The decoder's last hidden units for sixteen changes of a code, changes in the lanes.
#[inline(always)]
fn decode_changes<W: Vector>(
    w: W,
    decoder: DecoderLayers<'_>,
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

/// Losses of assignments and of all their one-coordinate changes.
pub struct Around<'a> {
    pub scratch: &'a mut Scratch,
    pub structure: &'a AnyStructure,
    pub decoder: DecoderLayers<'a>,
    pub bits: &'a Bits,
    /// `[rows]`.
    pub of: &'a [u32],
    /// `[rows, n]`.
    pub assignments: &'a [u32],
    /// `[rows]`.
    pub own: &'a mut [f32],
    /// `[rows, U]`.
    pub losses: &'a mut [f32],
}

impl Kernel for Around<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let (n, u) = (self.structure.variables(), self.structure.unary());
        let rows = self.of.iter().zip(self.assignments.chunks_exact(n)).zip(self.losses.chunks_exact_mut(u));
        for (((image, z), losses), own) in rows.zip(self.own) {
            let image = (self.bits, *image as usize);
            *own = self.scratch.around(w, self.structure, z, self.decoder, image, losses);
        }
    }
}

/// Losses of one image at up to sixteen assignments.
pub struct Together<'a> {
    pub scratch: &'a mut Scratch,
    pub structure: &'a AnyStructure,
    pub decoder: DecoderLayers<'a>,
    pub bits: &'a Bits,
    pub image: usize,
    /// `[rows, n]`.
    pub assignments: &'a [u32],
    /// `[rows]`.
    pub losses: &'a mut [f32],
}

impl Kernel for Together<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        self.scratch.decode(w, self.structure, self.decoder, self.assignments);
        let found = self.scratch.judge(w, self.decoder, (self.bits, self.image));
        self.losses.copy_from_slice(&found.0[..self.losses.len()]);
    }
}

/// Means of the pixels `[rows, pixels]` at codes `[rows, U]`.
pub struct Means<'a> {
    pub scratch: &'a mut Scratch,
    pub decoder: DecoderLayers<'a>,
    pub codes: &'a [f32],
    pub means: &'a mut [f32],
}

impl Kernel for Means<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let DecoderLayers { codes, output, .. } = self.decoder;
        let (u, pixels) = (codes.width, output.pixels);
        let scratch = self.scratch;
        for (rows, means) in self.codes.chunks(LANES * u).zip(self.means.chunks_mut(LANES * pixels)) {
            scratch.decode_codes(w, self.decoder, rows);
            let last = scratch.units.last().expect("a decoder has a hidden layer");
            for (b, block) in output.blocks.iter().enumerate() {
                block.decode(w, last, output.units, &mut scratch.logits);
                for (p, t) in scratch.logits[..block.pixels()].iter_mut().enumerate() {
                    let (_, sigmoid) = w.softplus_and_sigmoid(w.load(t));
                    w.store(t, sigmoid);
                    means.chunks_exact_mut(pixels).zip(t.0).for_each(|(row, mean)| row[b * BLOCK + p] = mean);
                }
            }
        }
    }
}
