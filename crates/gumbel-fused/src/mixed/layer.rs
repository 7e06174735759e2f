//! Fully connected layers, row by row: a row is a list of the numbers that count, outputs stand in the lanes.
//!
//! Most rows of this model are mostly zeros: images, codes of which one block is read, units behind a ReLU or under
//! dropout. So a row is computed alone along its list, and what it costs and its bits do not depend on the others'. A
//! [`Block`] is up to seven lanes of outputs: as many sums as hide the time of an addition, and few enough weights for
//! one part of the inputs to stay in the nearest cache while all rows pass.
//!
//! The way back has the same lists: the gradient at an input is asked for where it is listed. For the gradient of the
//! weights the lists are [turned](Columns); a weight's is reduced in registers and consumed by Adam at once.

use crate::first::Part;
use crate::simd::{Kernel, LANES, Lane, Vector, flat, lanes};
use crate::tile::{Rates, Weights};
use std::ops::Range;

/// Lanes of weights that stay in the nearest cache.
const NEAR: usize = 384;
/// Numbers of a row that make it worth while to stop at a part of the inputs.
const WORTH: usize = 16;
/// The bias of pixels beyond the last: their softplus is zero.
const NO_PIXEL: f32 = -1e30;

/// A number of a row, and its place.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry {
    pub place: u32,
    pub value: f32,
}

/// Rows as lists, places ascending.
#[derive(Debug, Default)]
pub struct Lists {
    /// The first entry of each row, and the end of the last.
    starts: Vec<u32>,
    /// Room; those beyond the last start are nobody's.
    entries: Vec<Entry>,
}

impl Lists {
    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.starts.clear();
        self.starts.push(0);
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Where the entries of a row are.
    #[inline(always)]
    fn range(&self, row: usize) -> Range<usize> {
        self.starts[row] as usize..self.starts[row + 1] as usize
    }

    /// The entries of a row.
    #[inline(always)]
    pub fn of(&self, row: usize) -> &[Entry] {
        &self.entries[self.range(row)]
    }

    /// Room for so many further entries, and where they begin.
    #[inline(always)]
    fn room(&mut self, more: usize) -> (usize, &mut [Entry]) {
        let first = *self.starts.last().expect("lists are cleared before they are filled") as usize;
        if self.entries.len() < first + more {
            self.entries.resize((first + more).next_power_of_two(), Entry::default());
        }
        (first, &mut self.entries[first..first + more])
    }

    /// A row of consecutive numbers from a place on, all of them.
    #[inline(always)]
    pub fn push(&mut self, place: usize, values: &[f32]) {
        let (first, room) = self.room(values.len());
        let entries = room.iter_mut().zip(values).zip(place as u32..);
        entries.for_each(|((entry, value), place)| *entry = Entry { place, value: *value });
        self.starts.push((first + values.len()) as u32);
    }

    /// A row of those numbers that are not zero.
    #[inline(always)]
    pub fn push_some(&mut self, values: &[f32]) {
        let (first, room) = self.room(values.len() + 1);
        let mut count = 0;
        for (place, value) in (0..).zip(values) {
            // Whether it stays or the next one takes its place: no branch that cannot be foreseen.
            room[count] = Entry { place, value: *value };
            count += usize::from(*value != 0.0);
        }
        self.starts.push((first + count) as u32);
    }

    /// Scales the entries of all rows by masks of a width, `fill(row, mask)`, and leaves out those where it is zero.
    pub fn mask(&mut self, mask: &mut [f32], mut fill: impl FnMut(usize, &mut [f32])) {
        let (mut first, mut count) = (0, 0);
        for row in 0..self.rows() {
            fill(row, mask);
            let end = self.starts[row + 1] as usize;
            for i in first..end {
                let Entry { place, value } = self.entries[i];
                let scale = mask[place as usize];
                self.entries[count] = Entry { place, value: value * scale };
                count += usize::from(scale != 0.0);
            }
            first = end;
            self.starts[row + 1] = count as u32;
        }
    }
}

/// Which rows a kernel reads.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The lists.
    pub lists: &'a Lists,
    /// The list of each row, where rows share them.
    pub of: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    /// One row for each list.
    pub fn all(lists: &'a Lists) -> Self {
        Rows { lists, of: None }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.of.map_or(self.lists.rows(), <[u32]>::len)
    }

    #[inline(always)]
    fn range(&self, row: usize) -> Range<usize> {
        self.lists.range(self.of.map_or(row, |of| of[row] as usize))
    }

    /// The entries of a row.
    #[inline(always)]
    pub fn entries(&self, row: usize) -> &'a [Entry] {
        &self.lists.entries[self.range(row)]
    }
}

/// A layer with its optimiser.
pub struct Layer {
    pub inputs: usize,
    pub outputs: usize,
    pub blocks: Vec<Block>,
}

/// Up to seven lanes of outputs.
pub struct Block {
    /// The first of them.
    pub first: usize,
    pub count: usize,
    inputs: usize,
    /// `[inputs, lanes]`.
    weights: Weights,
    /// `[lanes]`.
    bias: Weights,
    /// Inputs that were listed in some step: the moments of the others are zero, and so is their update.
    touched: Vec<bool>,
    /// Gradient at the outputs `[rows, lanes]`.
    gradient: Vec<Lane>,
}

/// Runs `$body` with the constant `$N`, the number of a block's lanes.
macro_rules! by_lanes {
    ($count:expr, $N:ident => $body:expr) => {
        match $count {
            7 => {
                const $N: usize = 7;
                $body
            }
            4 => {
                const $N: usize = 4;
                $body
            }
            2 => {
                const $N: usize = 2;
                $body
            }
            _ => {
                const $N: usize = 1;
                $body
            }
        }
    };
}

impl Layer {
    /// A layer of zeros.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        let (mut blocks, mut first) = (vec![], 0);
        while first < lanes(outputs) {
            let left = lanes(outputs) - first;
            let count = [7, 4, 2, 1].into_iter().find(|count| *count <= left).unwrap_or(1);
            blocks.push(Block {
                first,
                count,
                inputs,
                weights: Weights::new(inputs * count),
                bias: Weights::new(count),
                touched: vec![false; inputs],
                gradient: vec![],
            });
            first += count;
        }
        Layer { inputs, outputs, blocks }
    }

    /// The same for outputs that are the logits of pixels.
    pub fn of_logits(mut self) -> Self {
        for block in &mut self.blocks {
            for (n, lane) in block.bias.p.iter_mut().enumerate() {
                let real = (self.outputs - (block.first + n) * LANES).min(LANES);
                lane.0[real..].fill(NO_PIXEL);
            }
        }
        self
    }

    /// Lanes of its outputs.
    pub fn width(&self) -> usize {
        lanes(self.outputs)
    }

    /// Visits the parameters with their moments: those of input i and output o are number `i * outputs + o`, then the
    /// biases.
    pub fn visit(&mut self, mut each: impl FnMut(Part, usize, [&mut f32; 3])) {
        for Block { first, count, weights, bias, .. } in &mut self.blocks {
            let outputs = *first * LANES..((*first + *count) * LANES).min(self.outputs);
            for (column, o) in outputs.enumerate() {
                let (n, l) = (column / LANES, column % LANES);
                for i in 0..self.inputs {
                    let (Weights { p, m, v }, at) = (&mut *weights, i * *count + n);
                    each(Part::Weight, i * self.outputs + o, [&mut p[at].0[l], &mut m[at].0[l], &mut v[at].0[l]]);
                }
                let Weights { p, m, v } = &mut *bias;
                each(Part::Bias, o, [&mut p[n].0[l], &mut m[n].0[l], &mut v[n].0[l]]);
            }
        }
    }

    /// Makes what follows from the moments true again after they were set from outside.
    pub fn refresh(&mut self) {
        for Block { count, weights, touched, .. } in &mut self.blocks {
            let moments = weights.m.chunks_exact(*count).zip(weights.v.chunks_exact(*count));
            for (touched, (m, v)) in touched.iter_mut().zip(moments) {
                *touched = flat(m).iter().chain(flat(v)).any(|x| *x != 0.0);
            }
        }
    }
}

/// Working memory of kernels.
#[derive(Default)]
pub struct Memory {
    /// The next entry of each row.
    cursors: Vec<u32>,
    /// Sums of each row so far.
    sums: Vec<Lane>,
}

/// What becomes of a row's outputs.
pub trait Finish {
    /// Takes `N` lanes of the outputs of a row, from the lane `first` on.
    fn finish<W: Vector, const N: usize>(&mut self, w: W, row: usize, first: usize, sums: [W::V; N]);
}

/// `x W + b` of some blocks for all rows.
pub struct Forward<'a, F> {
    pub blocks: &'a [Block],
    pub rows: Rows<'a>,
    pub memory: &'a mut Memory,
    pub finish: F,
}

impl<F: Finish> Kernel for Forward<'_, F> {
    #[inline(always)]
    fn run<W: Vector>(mut self, w: W) {
        for block in self.blocks {
            by_lanes!(block.count, N => block.forward::<W, N>(w, self.rows, self.memory, &mut self.finish));
        }
    }
}

impl Block {
    /// Parts of the inputs that all rows pass one after the other. The order of summation is that of the inputs,
    /// whatever their number.
    fn passes(&self, rows: Rows<'_>) -> usize {
        let count = rows.count().max(1);
        let entries: usize = (0..rows.count()).map(|r| rows.range(r).len()).sum();
        (self.inputs * self.count).div_ceil(NEAR).min(entries / count / WORTH).max(1)
    }

    #[inline(always)]
    fn forward<W: Vector, const N: usize>(&self, w: W, rows: Rows<'_>, memory: &mut Memory, finish: &mut impl Finish) {
        let vectors: &[[Lane; N]] = self.weights.p.as_chunks().0;
        let bias: &[Lane; N] = self.bias.p.first_chunk().expect("as many lanes");
        let (count, passes) = (rows.count(), self.passes(rows));
        let part = self.inputs.div_ceil(passes);
        let Memory { cursors, sums, .. } = memory;
        if passes > 1 {
            cursors.clear();
            cursors.extend((0..count).map(|r| rows.range(r).start as u32));
            sums.resize(sums.len().max(count * N), Lane::ZERO);
        }
        for pass in 0..passes {
            let last = pass + 1 == passes;
            let end = if last { u32::MAX } else { ((pass + 1) * part) as u32 };
            for r in 0..count {
                let range = rows.range(r);
                let first = if pass == 0 { range.start } else { cursors[r] as usize };
                let start: &[Lane; N] =
                    if pass == 0 { bias } else { sums[r * N..].first_chunk().expect("as many lanes") };
                let mut acc: [W::V; N] = std::array::from_fn(
                    #[inline(always)]
                    |n| w.load(&start[n]),
                );
                let mut done = first;
                for entry in &rows.lists.entries[first..range.end] {
                    if entry.place >= end {
                        break;
                    }
                    done += 1;
                    let (value, vector) = (w.splat(entry.value), &vectors[entry.place as usize]);
                    for n in 0..N {
                        acc[n] = w.fma(w.load(&vector[n]), value, acc[n]);
                    }
                }
                if last {
                    finish.finish(w, r, self.first, acc);
                } else {
                    cursors[r] = done as u32;
                    for n in 0..N {
                        w.store(&mut sums[r * N + n], acc[n]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn backward<W: Vector, const N: usize>(
        &self,
        w: W,
        rows: Rows<'_>,
        (gradient, width): (&[Lane], usize),
        memory: &mut Memory,
        slopes: &mut [f32],
    ) {
        let vectors: &[[Lane; N]] = self.weights.p.as_chunks().0;
        let (count, passes) = (rows.count(), self.passes(rows));
        let part = self.inputs.div_ceil(passes);
        let cursors = &mut memory.cursors;
        cursors.clear();
        cursors.extend((0..count).map(|r| rows.range(r).start as u32));
        for pass in 0..passes {
            let end = if pass + 1 == passes { u32::MAX } else { ((pass + 1) * part) as u32 };
            let mut offset = 0;
            for r in 0..count {
                let range = rows.range(r);
                let first = cursors[r] as usize;
                let row: &[Lane; N] = gradient[r * width + self.first..].first_chunk().expect("as many lanes");
                let row: [W::V; N] = std::array::from_fn(
                    #[inline(always)]
                    |n| w.load(&row[n]),
                );
                let list = &rows.lists.entries[first..range.end];
                let slopes = &mut slopes[offset + first - range.start..][..list.len()];
                let mut done = 0;
                while let Some(four) = list[done..].first_chunk::<4>().filter(|four| four[3].place < end) {
                    let [a, b, c, d] = four.map(|entry| &vectors[entry.place as usize]);
                    let sums = [dot(w, a, &row), dot(w, b, &row), dot(w, c, &row), dot(w, d, &row)];
                    let sums = w.sums(sums);
                    slopes[done..].iter_mut().zip(sums).for_each(|(slope, sum)| *slope += sum);
                    done += 4;
                }
                // The others in the same way: an entry's bits do not depend on where the parts end.
                let (mut rest, mut count) = ([w.zero(); 4], 0);
                for entry in list[done..].iter().take_while(|entry| entry.place < end) {
                    rest[count] = dot(w, &vectors[entry.place as usize], &row);
                    count += 1;
                }
                slopes[done..].iter_mut().zip(w.sums(rest)).take(count).for_each(|(slope, sum)| *slope += sum);
                done += count;
                let done = first + done;
                cursors[r] = done as u32;
                offset += range.len();
            }
        }
    }

    /// Brings the gradients at the outputs of some rows `[rows, width]` together.
    pub fn gather<'a>(&mut self, parts: impl Iterator<Item = &'a [Lane]>, width: usize) {
        self.gradient.clear();
        for row in parts.flat_map(|part| part.chunks_exact(width)) {
            self.gradient.extend_from_slice(&row[self.first..][..self.count]);
        }
    }
}

/// A product of vectors, in sixteen parts.
#[inline(always)]
fn dot<W: Vector, const N: usize>(w: W, a: &[Lane; N], b: &[W::V; N]) -> W::V {
    let mut sum = w.mul(w.load(&a[0]), b[0]);
    for n in 1..N {
        sum = w.fma(w.load(&a[n]), b[n], sum);
    }
    sum
}

/// Units behind a rectifier with a slope where it is negative: 1 for none. `[rows, width]`.
pub struct Store<'a> {
    pub out: &'a mut [Lane],
    pub width: usize,
    pub leak: f32,
}

impl Finish for Store<'_> {
    #[inline(always)]
    fn finish<W: Vector, const N: usize>(&mut self, w: W, row: usize, first: usize, sums: [W::V; N]) {
        let leak = w.splat(self.leak);
        for (out, sum) in self.out[row * self.width + first..].iter_mut().zip(sums) {
            w.store(out, w.max(sum, w.mul(sum, leak)));
        }
    }
}

/// Bernoulli losses of logits.
pub struct Losses<'a> {
    /// In sixteen parts; they are added to.
    pub sums: &'a mut [Lane],
    /// The place there, and in `of`, of each row, where some are left out.
    pub places: Option<&'a [u32]>,
    /// `[images, width]`.
    pub images: &'a [Lane],
    pub width: usize,
    /// The image of each row.
    pub of: &'a [u32],
}

impl Finish for Losses<'_> {
    #[inline(always)]
    fn finish<W: Vector, const N: usize>(&mut self, w: W, row: usize, first: usize, sums: [W::V; N]) {
        let row = self.places.map_or(row, |places| places[row] as usize);
        let image = &self.images[self.of[row] as usize * self.width + first..][..N];
        let mut loss = w.load(&self.sums[row]);
        for n in 0..N {
            let term = w.sub(w.softplus(sums[n]), w.mul(w.load(&image[n]), sums[n]));
            loss = w.add(loss, term);
        }
        w.store(&mut self.sums[row], loss);
    }
}

/// The same with their derivatives at the logits.
pub struct Derive<'a> {
    pub losses: Losses<'a>,
    /// `[rows, width]`.
    pub derivative: &'a mut [Lane],
}

impl Finish for Derive<'_> {
    #[inline(always)]
    fn finish<W: Vector, const N: usize>(&mut self, w: W, row: usize, first: usize, sums: [W::V; N]) {
        let Losses { sums: losses, images, width, of, .. } = &mut self.losses;
        let image = &images[of[row] as usize * *width + first..][..N];
        let out = &mut self.derivative[row * *width + first..][..N];
        let mut loss = w.load(&losses[row]);
        for n in 0..N {
            let (t, x) = (sums[n], w.load(&image[n]));
            let (softplus, sigmoid) = w.softplus_and_sigmoid(t);
            loss = w.add(loss, w.sub(softplus, w.mul(x, t)));
            // Beyond the last pixel there is none, not even a tiny one.
            w.store(&mut out[n], w.choose(t, w.splat(0.5 * NO_PIXEL), w.sub(sigmoid, x), w.zero()));
        }
        w.store(&mut losses[row], loss);
    }
}

/// Gives derivatives of losses `[rows, width]` their weights `[rows]`.
pub struct Weigh<'a> {
    pub derivative: &'a mut [Lane],
    pub width: usize,
    pub weights: &'a [f32],
}

impl Kernel for Weigh<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        for (row, weight) in self.derivative.chunks_exact_mut(self.width).zip(self.weights) {
            let weight = w.splat(*weight);
            row.iter_mut().for_each(|lane| w.store(lane, w.mul(weight, w.load(lane))));
        }
    }
}

/// Means of pixels.
pub struct Means<'a> {
    /// `[rows, width]`.
    pub out: &'a mut [Lane],
    pub width: usize,
}

impl Finish for Means<'_> {
    #[inline(always)]
    fn finish<W: Vector, const N: usize>(&mut self, w: W, row: usize, first: usize, sums: [W::V; N]) {
        for (out, t) in self.out[row * self.width + first..].iter_mut().zip(sums) {
            let (_, sigmoid) = w.softplus_and_sigmoid(t);
            w.store(out, sigmoid);
        }
    }
}

/// The gradient at what is listed, one number for each entry of each row.
pub struct Backward<'a> {
    pub layer: &'a Layer,
    pub rows: Rows<'a>,
    /// At the outputs `[rows, width]`.
    pub gradient: &'a [Lane],
    pub memory: &'a mut Memory,
    pub slopes: &'a mut Vec<f32>,
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let total = (0..self.rows.count()).map(|r| self.rows.range(r).len()).sum();
        self.slopes.clear();
        self.slopes.resize(total, 0.0);
        let gradient = (self.gradient, self.layer.width());
        for block in &self.layer.blocks {
            by_lanes!(block.count, N => block.backward::<W, N>(w, self.rows, gradient, self.memory, self.slopes));
        }
    }
}

/// Lists by input: in which rows of a batch it is, and with which value.
#[derive(Default)]
pub struct Columns {
    starts: Vec<u32>,
    /// Rows and values.
    entries: Vec<Entry>,
}

impl Columns {
    /// Turns the rows of all parts of a batch.
    pub fn fill<'a>(&mut self, parts: impl Iterator<Item = Rows<'a>> + Clone, inputs: usize) {
        let rows = || parts.clone().flat_map(|part| (0..part.count()).map(move |r| part.entries(r)));
        let Columns { starts, entries } = self;
        starts.clear();
        if rows().all(|list| list.len() == inputs) {
            let count = rows().count();
            starts.extend((0..=inputs).map(|i| (i * count) as u32));
            entries.resize(inputs * count, Entry::default());
            for (row, list) in rows().enumerate() {
                for (i, entry) in list.iter().enumerate() {
                    entries[i * count + row] = Entry { place: row as u32, value: entry.value };
                }
            }
            return;
        }
        starts.resize(inputs + 2, 0);
        for entry in rows().flatten() {
            starts[entry.place as usize + 2] += 1;
        }
        for i in 2..starts.len() {
            starts[i] += starts[i - 1];
        }
        // The start of each is where the next entry of the one before goes, until all are in their places.
        entries.resize(starts[inputs + 1] as usize, Entry::default());
        for (row, list) in (0..).zip(rows()) {
            for entry in list {
                let next = &mut starts[entry.place as usize + 1];
                entries[*next as usize] = Entry { place: row, value: entry.value };
                *next += 1;
            }
        }
    }

    #[inline(always)]
    fn of(&self, input: usize) -> &[Entry] {
        &self.entries[self.starts[input] as usize..self.starts[input + 1] as usize]
    }
}

/// Gradient and Adam of one block, from what it has [gathered](Block::gather).
pub struct Update<'a> {
    pub block: &'a mut Block,
    pub columns: &'a Columns,
    pub rates: Rates,
}

impl Kernel for Update<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        by_lanes!(self.block.count, N => self.lanes::<W, N>(w));
    }
}

impl Update<'_> {
    #[inline(always)]
    fn lanes<W: Vector, const N: usize>(self, w: W) {
        let Block { weights, bias, touched, gradient, .. } = self.block;
        let rows: &[[Lane; N]] = gradient.as_chunks().0;
        for (i, touched) in touched.iter_mut().enumerate() {
            let column = self.columns.of(i);
            if column.is_empty() && !*touched {
                continue;
            }
            *touched = true;
            let mut acc = [w.zero(); N];
            for entry in column {
                let (value, row) = (w.splat(entry.value), &rows[entry.place as usize]);
                for n in 0..N {
                    acc[n] = w.fma(w.load(&row[n]), value, acc[n]);
                }
            }
            for (n, gradient) in acc.into_iter().enumerate() {
                weights.adam(w, self.rates, i * N + n, gradient);
            }
        }
        let mut acc = [w.zero(); N];
        for row in rows {
            for n in 0..N {
                acc[n] = w.add(acc[n], w.load(&row[n]));
            }
        }
        for (n, gradient) in acc.into_iter().enumerate() {
            bias.adam(w, self.rates, n, gradient);
        }
    }
}
