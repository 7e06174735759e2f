//! The encoder's first layer: binary images in, ReLU units out.
//!
//! Each group of sixteen units has its own columns of the weights `[pairs * 3, 16]`: for a pair of pixels the row of the
//! left one, that of the right one, and their sum. The gradient of a pixel's row is the sum of the units' gradients over the
//! images that have the pixel: it is reduced in registers and given to Adam at once.

use super::bits::{Bits, Members, pairs};
use super::simd::{Kernel, LANES, Lane, Vector, lanes};
use super::tile::{Rates, Weights, adam};

pub struct First {
    pub groups: Vec<Group>,
    pub pixels: usize,
    pub units: usize,
    /// Pairs of which a pixel was one in some step: the moments of the others are zero, and so is their update.
    pub touched: Vec<bool>,
}

/// Sixteen units.
pub struct Group {
    /// `[pairs * 3]`.
    weights: Vec<Lane>,
    /// `[pairs * 2]` each.
    m: Vec<Lane>,
    v: Vec<Lane>,
    bias: Weights,
    /// Activations `[batch]`.
    pub out: Vec<Lane>,
}

impl First {
    pub fn new(pixels: usize, units: usize, batch: usize) -> Self {
        let zero = |n: usize| vec![Lane::ZERO; n];
        let group = |_| Group {
            weights: zero(3 * pairs(pixels)),
            m: zero(2 * pairs(pixels)),
            v: zero(2 * pairs(pixels)),
            bias: Weights::new(1),
            out: zero(lanes(batch) * LANES),
        };
        let groups = (0..lanes(units)).map(group).collect();
        First { groups, pixels, units, touched: vec![false; pairs(pixels)] }
    }

    /// Remembers which pairs have had a pixel.
    pub fn touch(&mut self, members: &Members) {
        for (pair, touched) in self.touched.iter_mut().enumerate() {
            *touched |= members.any(pair);
        }
    }

    /// Visits the parameters with their moments: those of pixel p and unit u are number `p * units + u`, then the biases.
    pub fn visit(&mut self, mut each: impl FnMut(Part, usize, [&mut f32; 3])) {
        for (g, group) in self.groups.iter_mut().enumerate() {
            for l in 0..LANES.min(self.units - g * LANES) {
                let unit = g * LANES + l;
                for pixel in 0..self.pixels {
                    let moment = &mut [&mut group.m[pixel].0[l], &mut group.v[pixel].0[l]];
                    let [m, v] = moment;
                    each(Part::Weight, pixel * self.units + unit, [&mut group.weights[row(pixel)].0[l], m, v]);
                }
                let Weights { p, m, v } = &mut group.bias;
                each(Part::Bias, unit, [&mut p[0].0[l], &mut m[0].0[l], &mut v[0].0[l]]);
            }
        }
    }

    /// Makes what follows from the parameters true again after they were set from outside.
    pub fn refresh(&mut self) {
        self.touched.fill(false);
        for group in &mut self.groups {
            for pair in 0..pairs(self.pixels) {
                let rows = &mut group.weights[3 * pair..][..3];
                rows[2] = Lane(std::array::from_fn(|l| rows[0].0[l] + rows[1].0[l]));
                let moments = group.m[2 * pair..][..2].iter().chain(&group.v[2 * pair..][..2]);
                self.touched[pair] |= moments.flat_map(|m| m.0).any(|x| x != 0.0);
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

/// The lane of a pixel among `pairs * 3`.
fn row(pixel: usize) -> usize {
    pixel / 2 * 3 + pixel % 2
}

/// Activations of one group for a batch.
pub struct Forward<'a> {
    pub group: &'a mut Group,
    pub bits: &'a Bits,
    pub batch: &'a [u32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Group { weights, bias, out, .. } = self.group;
        // One half of the pixels after the other: the rows of one stay in the fastest cache.
        for half in 0..2 {
            for (out, image) in out.iter_mut().zip(self.batch) {
                let (mut a, mut b) = (w.load(if half == 0 { &bias.p[0] } else { out }), w.zero());
                let (fours, rest) = self.bits.codes(*image as usize)[half].as_chunks::<4>();
                for codes in fours {
                    a = w.add(a, w.load(&weights[codes[0] as usize]));
                    b = w.add(b, w.load(&weights[codes[1] as usize]));
                    a = w.add(a, w.load(&weights[codes[2] as usize]));
                    b = w.add(b, w.load(&weights[codes[3] as usize]));
                }
                for code in rest {
                    a = w.add(a, w.load(&weights[*code as usize]));
                }
                a = w.add(a, b);
                w.store(out, if half == 0 { a } else { w.max(a, w.zero()) });
            }
        }
    }
}

/// Gradient and Adam of one group.
pub struct Update<'a> {
    pub group: &'a mut Group,
    /// Gradients of the units before ReLU `[batch]`.
    pub gradient: &'a [Lane],
    pub members: &'a Members,
    pub touched: &'a [bool],
    pub rates: Rates,
}

impl Kernel for Update<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Group { weights, m, v, bias, .. } = self.group;
        let mut sum = w.zero();
        for gradient in self.gradient {
            sum = w.add(sum, w.load(gradient));
        }
        bias.adam(w, self.rates, 0, sum);
        for (pair, _) in self.touched.iter().enumerate().filter(|(_, touched)| **touched) {
            let mut sums = [w.zero(); 3];
            for (kind, sum) in sums.iter_mut().enumerate() {
                for place in self.members.of(3 * pair + kind) {
                    *sum = w.add(*sum, w.load(&self.gradient[*place as usize]));
                }
            }
            let [left, right, both] = sums;
            let rows: &mut [Lane; 3] = weights[3 * pair..].first_chunk_mut().expect("three rows a pair");
            let m: &mut [Lane; 2] = m[2 * pair..].first_chunk_mut().expect("two moments a pair");
            let v: &mut [Lane; 2] = v[2 * pair..].first_chunk_mut().expect("two moments a pair");
            let a = adam(w, self.rates, &mut rows[0], &mut m[0], &mut v[0], w.add(left, both));
            let b = adam(w, self.rates, &mut rows[1], &mut m[1], &mut v[1], w.add(right, both));
            w.store(&mut rows[2], w.add(a, b));
        }
    }
}
