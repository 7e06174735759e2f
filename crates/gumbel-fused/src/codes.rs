//! The decoder's first layer: codes of assignments in, ReLU units out.
//!
//! A code is a row of U numbers. Of a discrete assignment it is a few ones: the layer then adds rows of its weights. A
//! relaxed code is dense. Each group of sixteen units has its own columns `[U, 16]` of the weights.

use super::dense::{Activation, rows_in};
use super::first::Part;
use super::simd::{Kernel, LANES, Lane, Vector, lanes};
use super::tile::{Rates, Weights, by_rows, columns_by_lanes, rows_by_lanes, transpose};
use gumbel::structure::{AnyStructure, Structure};

pub struct Codes {
    pub width: usize,
    pub units: usize,
    pub groups: Vec<Group>,
}

/// Sixteen units.
pub struct Group {
    /// `[U]`.
    pub weights: Weights,
    pub bias: Weights,
    pub units: Activation,
    /// Gradient of the weights `[U]`.
    gradient: Vec<Lane>,
    /// `[groups of U, 16 units]`, codes in the lanes: the way back to relaxed codes.
    pub transposed: Vec<Lane>,
}

/// What the layer reads.
pub enum Input<O, S> {
    /// Row r has ones at the places `ones(r)`.
    Ones(O),
    /// The tile of a group of U and a chunk of rows.
    Soft(S),
}

/// The places of the ones of some codes, which may have different numbers of them.
#[derive(Default)]
pub struct Ones {
    width: usize,
    counts: Vec<u32>,
    places: Vec<u32>,
    code: Vec<f32>,
}

impl Ones {
    pub fn new(rows: usize, width: usize) -> Self {
        Ones { width, counts: vec![0; rows], places: vec![0; rows * width], code: vec![0.0; width] }
    }

    /// Row r takes the code of an assignment.
    pub fn set(&mut self, r: usize, structure: &AnyStructure, assignment: &[u32]) {
        structure.encode(assignment, &mut self.code);
        let ones = self.code.iter().zip(0..).filter(|(c, _)| **c != 0.0).map(|(_, u)| u);
        let places = &mut self.places[r * self.width..];
        self.counts[r] = places.iter_mut().zip(ones).map(|(place, one)| *place = one).count() as u32;
    }

    /// The ones of row r.
    #[inline(always)]
    pub fn of(&self, r: usize) -> &[u32] {
        &self.places[r * self.width..][..self.counts[r] as usize]
    }
}

impl Codes {
    pub fn new(width: usize, units: usize, rows: usize) -> Self {
        let padded = lanes(width) * LANES;
        let group = |_| Group {
            weights: Weights::new(padded),
            bias: Weights::new(1),
            units: Activation::new(rows),
            gradient: vec![Lane::ZERO; padded],
            transposed: vec![Lane::ZERO; padded],
        };
        Codes { width, units, groups: (0..lanes(units)).map(group).collect() }
    }

    /// Visits the parameters with their moments; see [`super::first::First::visit`].
    pub fn visit(&mut self, mut each: impl FnMut(Part, usize, [&mut f32; 3])) {
        for (g, group) in self.groups.iter_mut().enumerate() {
            for l in 0..rows_in(self.units, g) {
                let unit = g * LANES + l;
                let Weights { p, m, v } = &mut group.weights;
                for code in 0..self.width {
                    let values = [&mut p[code].0[l], &mut m[code].0[l], &mut v[code].0[l]];
                    each(Part::Weight, code * self.units + unit, values);
                }
                let Weights { p, m, v } = &mut group.bias;
                each(Part::Bias, unit, [&mut p[0].0[l], &mut m[0].0[l], &mut v[0].0[l]]);
            }
        }
    }
}

impl Group {
    /// Makes the transpose of the weights true.
    pub fn transpose(&mut self) {
        let tiles = self.weights.p.chunks_exact(LANES).zip(self.transposed.chunks_exact_mut(LANES));
        tiles.for_each(|(tile, out)| transpose(tile, out));
    }

    /// Activations of `rows` rows, and their transposes.
    #[inline(always)]
    fn forward<'a, W: Vector>(
        &mut self,
        w: W,
        input: &Input<impl Fn(usize) -> &'a [u32], impl Fn(usize, usize) -> &'a [Lane]>,
        rows: usize,
    ) {
        let bias = w.load(&self.bias.p[0]);
        match input {
            Input::Ones(ones) => {
                for (r, y) in self.units.y[..rows].iter_mut().enumerate() {
                    let mut sum = bias;
                    for one in ones(r) {
                        sum = w.add(sum, w.load(&self.weights.p[*one as usize]));
                    }
                    w.store(y, w.max(sum, w.zero()));
                }
            }
            Input::Soft(soft) => {
                let weights = self.weights.p.chunks_exact(LANES);
                for c in 0..lanes(rows) {
                    by_rows!(W, rows_in(rows, c), |first, R| {
                        let mut acc = [bias; R];
                        for (u, weights) in weights.clone().enumerate() {
                            rows_by_lanes(w, &mut acc, &soft(u, c)[first..], weights);
                        }
                        for (y, acc) in self.units.y[c * LANES + first..].iter_mut().zip(acc) {
                            w.store(y, w.max(acc, w.zero()));
                        }
                    });
                }
            }
        }
        self.units.transpose(rows);
    }

    /// Gradient of the weights from that of the units, and Adam.
    #[inline(always)]
    fn update<'a, W: Vector>(
        &mut self,
        w: W,
        input: &Input<impl Fn(usize) -> &'a [u32], impl Fn(usize, usize) -> &'a [Lane]>,
        (rows, width): (usize, usize),
        rates: Rates,
    ) {
        let mut sum = w.zero();
        match input {
            Input::Ones(ones) => {
                self.gradient.fill(Lane::ZERO);
                for (r, gradient) in self.units.gradient[..rows].iter().enumerate() {
                    let gradient = w.load(gradient);
                    sum = w.add(sum, gradient);
                    for one in ones(r) {
                        let out = &mut self.gradient[*one as usize];
                        w.store(out, w.add(w.load(out), gradient));
                    }
                }
                for u in 0..width {
                    let gradient = w.load(&self.gradient[u]);
                    self.weights.adam(w, rates, u, gradient);
                }
            }
            Input::Soft(soft) => {
                for gradient in &self.units.gradient[..rows] {
                    sum = w.add(sum, w.load(gradient));
                }
                for u in 0..lanes(width) {
                    by_rows!(W, rows_in(width, u), |first, R| {
                        let mut acc = [w.zero(); R];
                        for c in 0..lanes(rows) {
                            let n = rows_in(rows, c);
                            let gradient = &self.units.gradient[c * LANES..][..n];
                            columns_by_lanes(w, &mut acc, &soft(u, c)[..n], first, gradient);
                        }
                        for (q, acc) in acc.into_iter().enumerate() {
                            self.weights.adam(w, rates, u * LANES + first + q, acc);
                        }
                    });
                }
            }
        }
        self.bias.adam(w, rates, 0, sum);
    }
}

/// Activations of one group.
pub struct Forward<'a, O, S> {
    pub group: &'a mut Group,
    pub input: Input<O, S>,
    pub rows: usize,
}

impl<'a, O: Fn(usize) -> &'a [u32], S: Fn(usize, usize) -> &'a [Lane]> Kernel for Forward<'_, O, S> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        self.group.forward(w, &self.input, self.rows);
    }
}

/// Gradient and Adam of one group, and the new activations of the same rows where they are asked for.
pub struct Update<'a, O, S> {
    pub group: &'a mut Group,
    pub input: Input<O, S>,
    pub rows: usize,
    pub width: usize,
    pub rates: Rates,
    pub again: bool,
}

impl<'a, O: Fn(usize) -> &'a [u32], S: Fn(usize, usize) -> &'a [Lane]> Kernel for Update<'_, O, S> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        self.group.update(w, &self.input, (self.rows, self.width), self.rates);
        if self.again {
            self.group.forward(w, &self.input, self.rows);
        }
    }
}
