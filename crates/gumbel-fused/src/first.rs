//! The encoder's first layer: binary images in, ReLU units out.
//!
//! Each group of sixteen units has its own columns of the weights `[pairs * 3, 16]`, in two halves: for a pair of
//! pixels the row of the left one, that of the right one, and their sum. The gradient of a pixel's row is the sum of
//! the units' gradients over the images that have the pixel: it is reduced in registers and given to Adam at once.

use super::bits::{Bits, Members, pairs};
use super::dense::rows_in;
use super::simd::{Kernel, LANES, Lane, Vector, lanes};
use super::tile::{Rates, Weights, adam};

pub struct First {
    pub pixels: usize,
    pub units: usize,
    pub groups: Vec<Group>,
    pub slices: Vec<Slice>,
    /// Pairs of which a pixel was one in some step: the moments of the others are zero, and so is their update.
    pub touched: Vec<bool>,
}

/// Sixteen units.
pub struct Group {
    bias: Weights,
    /// Activations `[batch]`.
    pub out: Vec<Lane>,
}

/// The weights of up to four groups for one half of the pairs.
pub struct Slice {
    /// The first of its groups, and the first of its pairs.
    group: usize,
    pair: usize,
    columns: Vec<Columns>,
}

/// The weights of one group in a slice.
struct Columns {
    /// `[pairs * 3 + 1]`: the last is zero, the row of no pair.
    p: Vec<Lane>,
    /// `[pairs * 2]` each.
    m: Vec<Lane>,
    v: Vec<Lane>,
}

/// Groups in a slice: the lists of images are read once for all of them.
const GROUPS: usize = 4;

impl First {
    pub fn new(pixels: usize, units: usize, batch: usize) -> Self {
        let zero = |n: usize| vec![Lane::ZERO; n];
        let group = |_| Group { bias: Weights::new(1), out: zero(lanes(batch) * LANES) };
        let groups: Vec<Group> = (0..lanes(units)).map(group).collect();
        let (all, half) = (pairs(pixels), pairs(pixels) / 2);
        let slice = |group: usize, pair: usize, count: usize| {
            let columns = |_| Columns { p: zero(3 * count + 1), m: zero(2 * count), v: zero(2 * count) };
            Slice { group, pair, columns: (0..GROUPS.min(groups.len() - group)).map(columns).collect() }
        };
        let slices = (0..groups.len()).step_by(GROUPS).flat_map(|g| [slice(g, 0, half), slice(g, half, all - half)]);
        First { pixels, units, slices: slices.collect(), groups, touched: vec![false; all] }
    }

    /// Remembers which pairs have had a pixel.
    pub fn touch(&mut self, members: &Members) {
        for (pair, touched) in self.touched.iter_mut().enumerate() {
            *touched |= members.any(pair);
        }
    }

    /// The columns of a group for both halves of the pairs.
    #[inline(always)]
    fn halves(slices: &[Slice], group: usize) -> [&Columns; 2] {
        [0, 1].map(|half| &slices[group / GROUPS * 2 + half].columns[group % GROUPS])
    }

    /// Visits the parameters with their moments: those of pixel p and unit u are number `p * units + u`, then the
    /// biases.
    pub fn visit(&mut self, mut each: impl FnMut(Part, usize, [&mut f32; 3])) {
        for slice in &mut self.slices {
            for (g, Columns { p, m, v }) in slice.columns.iter_mut().enumerate() {
                for l in 0..rows_in(self.units, slice.group + g) {
                    let unit = (slice.group + g) * LANES + l;
                    for i in 0..m.len() {
                        let (pixel, row) = (2 * slice.pair + i, i / 2 * 3 + i % 2);
                        if pixel < self.pixels {
                            let values = [&mut p[row].0[l], &mut m[i].0[l], &mut v[i].0[l]];
                            each(Part::Weight, pixel * self.units + unit, values);
                        }
                    }
                }
            }
        }
        for unit in 0..self.units {
            let Weights { p, m, v } = &mut self.groups[unit / LANES].bias;
            let l = unit % LANES;
            each(Part::Bias, unit, [&mut p[0].0[l], &mut m[0].0[l], &mut v[0].0[l]]);
        }
    }

    /// Makes what follows from the parameters true again after they were set from outside.
    pub fn refresh(&mut self) {
        self.touched.fill(false);
        for slice in &mut self.slices {
            for Columns { p, m, v } in &mut slice.columns {
                for (pair, rows) in p.chunks_exact_mut(3).enumerate() {
                    rows[2] = Lane(std::array::from_fn(|l| rows[0].0[l] + rows[1].0[l]));
                    let moments = m[2 * pair..][..2].iter().chain(&v[2 * pair..][..2]);
                    self.touched[slice.pair + pair] |= moments.flat_map(|m| m.0).any(|x| x != 0.0);
                }
            }
        }
    }
}

/// Which parameter of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Weight,
    Bias,
}

/// Activations of one group for a batch.
pub struct Forward<'a> {
    pub number: usize,
    pub group: &'a mut Group,
    pub slices: &'a [Slice],
    pub bits: &'a Bits,
    pub batch: &'a [u32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Group { bias, out } = self.group;
        // One half of the pixels after the other: the rows of one stay in the fastest cache.
        for (half, columns) in First::halves(self.slices, self.number).into_iter().enumerate() {
            let rows = &columns.p[..];
            for (out, image) in out.iter_mut().zip(self.batch) {
                let mut sums = [w.zero(); 4];
                sums[0] = w.load(if half == 0 { &bias.p[0] } else { out });
                for codes in self.bits.codes(*image as usize)[half] {
                    for (sum, code) in sums.iter_mut().zip(codes) {
                        *sum = w.add(*sum, w.load(&rows[*code as usize]));
                    }
                }
                let sum = w.add(w.add(sums[0], sums[1]), w.add(sums[2], sums[3]));
                w.store(out, if half == 0 { sum } else { w.max(sum, w.zero()) });
            }
        }
    }
}

/// Gradient of the biases of one group, and Adam.
pub struct Biases<'a> {
    pub group: &'a mut Group,
    /// Gradients of the units before ReLU `[batch]`.
    pub gradient: &'a [Lane],
    pub rates: Rates,
}

impl Kernel for Biases<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let mut sum = w.zero();
        for gradient in self.gradient {
            sum = w.add(sum, w.load(gradient));
        }
        self.group.bias.adam(w, self.rates, 0, sum);
    }
}

/// Gradient and Adam of one slice.
pub struct Update<'a, G> {
    pub slice: &'a mut Slice,
    /// Gradients of the units of a group before ReLU `[batch]`.
    pub gradient: G,
    pub members: &'a Members,
    pub touched: &'a [bool],
    pub rates: Rates,
}

impl<'a, G: Fn(usize) -> &'a [Lane]> Kernel for Update<'_, G> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        match self.slice.columns.len() {
            1 => self.groups::<W, 1>(w),
            2 => self.groups::<W, 2>(w),
            3 => self.groups::<W, 3>(w),
            _ => self.groups::<W, GROUPS>(w),
        }
    }
}

impl<'a, G: Fn(usize) -> &'a [Lane]> Update<'_, G> {
    #[inline(always)]
    fn groups<W: Vector, const N: usize>(self, w: W) {
        let Slice { group, pair: skipped, columns } = self.slice;
        let columns: &mut [Columns; N] = columns.first_chunk_mut().expect("N groups");
        let gradients: [&[Lane]; N] = std::array::from_fn(|g| (self.gradient)(*group + g));
        let count = columns[0].m.len() / 2;
        let touched = &self.touched[*skipped..][..count];
        for (pair, _) in touched.iter().enumerate().filter(|(_, touched)| **touched) {
            let mut sums = [[w.zero(); N]; 3];
            for (kind, sums) in sums.iter_mut().enumerate() {
                for place in self.members.of(3 * (*skipped + pair) + kind) {
                    for (sum, gradient) in sums.iter_mut().zip(&gradients) {
                        *sum = w.add(*sum, w.load(&gradient[*place as usize]));
                    }
                }
            }
            let [left, right, both] = sums;
            for (g, Columns { p, m, v }) in columns.iter_mut().enumerate() {
                let rows: &mut [Lane; 3] = p[3 * pair..].first_chunk_mut().expect("three rows a pair");
                let m: &mut [Lane; 2] = m[2 * pair..].first_chunk_mut().expect("two moments a pair");
                let v: &mut [Lane; 2] = v[2 * pair..].first_chunk_mut().expect("two moments a pair");
                let a = adam(w, self.rates, &mut rows[0], &mut m[0], &mut v[0], w.add(left[g], both[g]));
                let b = adam(w, self.rates, &mut rows[1], &mut m[1], &mut v[1], w.add(right[g], both[g]));
                w.store(&mut rows[2], w.add(a, b));
            }
        }
    }
}
