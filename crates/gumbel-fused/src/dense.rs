//! Fully connected layers between activations: `y = x W + b`, with ReLU except at the end of the encoder.
//!
//! A [`Slab`] is sixteen inputs with their rows of W, kept twice: `[outputs, 16 inputs]`, which has the moments and
//! serves the way back, and its transpose `[16 inputs, outputs]` for the way forward. An [`OutputGroup`] is sixteen
//! outputs. Rows of a batch come in chunks of sixteen: `x(g, c)` is the tile of group g and chunk c.

use super::first::Part;
use super::simd::{Kernel, LANES, Lane, Vector, lanes};
use super::tile::{Rates, Weights, by_rows, columns_by_lanes, rows_by_lanes, transpose};

/// Activations of sixteen units, and their gradients.
#[derive(Debug, Default)]
pub struct Activation {
    /// `[rows]`.
    pub y: Vec<Lane>,
    /// For each chunk of rows its transpose: `[chunks * 16 units]`, rows in the lanes.
    pub transposed: Vec<Lane>,
    /// Gradients before ReLU `[rows]`.
    pub gradient: Vec<Lane>,
}

impl Activation {
    pub fn new(rows: usize) -> Self {
        let zero = || vec![Lane::ZERO; lanes(rows) * LANES];
        Activation { y: zero(), transposed: zero(), gradient: zero() }
    }

    /// Makes room for so many rows.
    pub fn resize(&mut self, rows: usize) {
        for lane in [&mut self.y, &mut self.transposed, &mut self.gradient] {
            lane.resize(lanes(rows) * LANES, Lane::ZERO);
        }
    }

    #[inline(always)]
    pub fn transpose(&mut self, rows: usize) {
        let tiles = self.y.chunks_exact(LANES).zip(self.transposed.chunks_exact_mut(LANES));
        tiles.take(lanes(rows)).for_each(|(tile, out)| transpose(tile, out));
    }
}

/// Rows in chunk c of `rows`.
#[inline(always)]
pub fn rows_in(rows: usize, chunk: usize) -> usize {
    (rows - chunk * LANES).min(LANES)
}

pub struct Dense {
    pub inputs: usize,
    pub outputs: usize,
    pub slabs: Vec<Slab>,
    pub outs: Vec<OutputGroup>,
}

/// Sixteen inputs.
pub struct Slab {
    /// `[outputs]`, inputs in the lanes.
    weights: Weights,
    /// `[groups of outputs, 16 inputs]`, outputs in the lanes.
    transposed: Vec<Lane>,
    /// Gradients of the inputs before their ReLU `[rows]`.
    pub gradient: Vec<Lane>,
}

/// Sixteen outputs.
pub struct OutputGroup {
    bias: Weights,
    pub units: Activation,
}

impl Dense {
    pub fn new(inputs: usize, outputs: usize, rows: usize) -> Self {
        let rows = lanes(rows) * LANES;
        let slab = |_| Slab {
            weights: Weights::new(lanes(outputs) * LANES),
            transposed: vec![Lane::ZERO; lanes(outputs) * LANES],
            gradient: vec![Lane::ZERO; rows],
        };
        let out = |_| OutputGroup { bias: Weights::new(1), units: Activation::new(rows) };
        let (slabs, outs) = ((0..lanes(inputs)).map(slab).collect(), (0..lanes(outputs)).map(out).collect());
        Dense { inputs, outputs, slabs, outs }
    }

    /// Makes room for the gradients of so many rows.
    pub fn resize_slabs(&mut self, rows: usize) {
        self.slabs.iter_mut().for_each(|slab| slab.gradient.resize(lanes(rows) * LANES, Lane::ZERO));
    }

    /// Visits the parameters with their moments; see [`super::first::First::visit`].
    pub fn visit(&mut self, mut each: impl FnMut(Part, usize, [&mut f32; 3])) {
        for (s, slab) in self.slabs.iter_mut().enumerate() {
            for l in 0..rows_in(self.inputs, s) {
                for o in 0..self.outputs {
                    let Weights { p, m, v } = &mut slab.weights;
                    let values = [&mut p[o].0[l], &mut m[o].0[l], &mut v[o].0[l]];
                    each(Part::Weight, (s * LANES + l) * self.outputs + o, values);
                }
            }
        }
        for o in 0..self.outputs {
            let Weights { p, m, v } = &mut self.outs[o / LANES].bias;
            let l = o % LANES;
            each(Part::Bias, o, [&mut p[0].0[l], &mut m[0].0[l], &mut v[0].0[l]]);
        }
    }

    /// The way forward for activations with rows in the lanes: `[units, rows in the lanes]` in and out.
    #[inline(always)]
    pub fn transposed_forward<W: Vector>(&self, w: W, x: &[Lane], y: &mut [Lane]) {
        for (o, out) in self.outs.iter().enumerate() {
            by_rows!(W, rows_in(self.outputs, o), |first, R| {
                let mut acc: [W::V; R] = std::array::from_fn(|q| w.splat(out.bias.p[0].0[first + q]));
                for (g, slab) in self.slabs.iter().enumerate() {
                    let x = &x[g * LANES..][..rows_in(self.inputs, g)];
                    rows_by_lanes(w, &mut acc, &slab.weights.p[o * LANES + first..], x);
                }
                for (y, acc) in y[o * LANES + first..].iter_mut().zip(acc) {
                    w.store(y, w.max(acc, w.zero()));
                }
            });
        }
    }

    /// The derivative of the way forward along `moved` `[units, rows in the lanes]`, where it led to `y`.
    #[inline(always)]
    pub fn transposed_push<W: Vector>(&self, w: W, moved: &[Lane], y: &[Lane], out: &mut [Lane]) {
        for o in 0..lanes(self.outputs) {
            by_rows!(W, rows_in(self.outputs, o), |first, R| {
                let mut acc = [w.zero(); R];
                for (g, slab) in self.slabs.iter().enumerate() {
                    let moved = &moved[g * LANES..][..rows_in(self.inputs, g)];
                    rows_by_lanes(w, &mut acc, &slab.weights.p[o * LANES + first..], moved);
                }
                let rows = out[o * LANES + first..].iter_mut().zip(&y[o * LANES + first..]);
                for ((out, y), acc) in rows.zip(acc) {
                    w.store(out, w.choose(w.load(y), w.zero(), acc, w.zero()));
                }
            });
        }
    }

    /// The way back for gradients with rows in the lanes: `[outputs, rows in the lanes]` in, `[inputs, rows in the
    /// lanes]` out, masked by the ReLU of the inputs' activations `x`.
    #[inline(always)]
    pub fn transposed_backward<W: Vector>(&self, w: W, gradient: &[Lane], x: &[Lane], out: &mut [Lane]) {
        for (g, slab) in self.slabs.iter().enumerate() {
            by_rows!(W, rows_in(self.inputs, g), |first, R| {
                let mut acc = [w.zero(); R];
                for o in 0..lanes(self.outputs) {
                    let n = rows_in(self.outputs, o);
                    let weights = &slab.weights.p[o * LANES..][..n];
                    columns_by_lanes(w, &mut acc, weights, first, &gradient[o * LANES..][..n]);
                }
                let rows = out[g * LANES + first..].iter_mut().zip(&x[g * LANES + first..]);
                for ((out, x), acc) in rows.zip(acc) {
                    w.store(out, w.choose(w.load(x), w.zero(), acc, w.zero()));
                }
            });
        }
    }

    /// Makes the transposes true again after the parameters were set from outside.
    pub fn refresh(&mut self) {
        self.slabs.iter_mut().for_each(Slab::transpose);
    }
}

impl Slab {
    #[inline(always)]
    fn transpose(&mut self) {
        let tiles = self.weights.p.chunks_exact(LANES).zip(self.transposed.chunks_exact_mut(LANES));
        tiles.for_each(|(tile, out)| transpose(tile, out));
    }
}

/// The biases of a group of outputs.
pub fn bias(out: &OutputGroup) -> &Lane {
    &out.bias.p[0]
}

/// `x W + b` for a block of R rows and one group of outputs; `x(g)` are the rows of input group g from the first on.
#[inline(always)]
pub fn forward_block<'a, W: Vector, const R: usize>(
    w: W,
    layer: (&[Slab], usize),
    group: usize,
    bias: &Lane,
    x: impl Fn(usize) -> &'a [Lane],
) -> [W::V; R] {
    let (slabs, inputs) = layer;
    let mut acc = [w.load(bias); R];
    for (g, slab) in slabs.iter().enumerate() {
        rows_by_lanes(w, &mut acc, x(g), &slab.transposed[group * LANES..][..rows_in(inputs, g)]);
    }
    acc
}

/// Activations of one group of outputs.
pub struct Forward<'a, X> {
    pub slabs: &'a [Slab],
    pub inputs: usize,
    pub group: usize,
    pub out: &'a mut OutputGroup,
    pub x: X,
    pub rows: usize,
}

impl<'a, X: Fn(usize, usize) -> &'a [Lane]> Kernel for Forward<'_, X> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let OutputGroup { bias, units } = self.out;
        for c in 0..lanes(self.rows) {
            by_rows!(W, rows_in(self.rows, c), |first, R| {
                let x = |g| &(self.x)(g, c)[first..];
                let acc: [W::V; R] = forward_block(w, (self.slabs, self.inputs), self.group, &bias.p[0], x);
                for (y, acc) in units.y[c * LANES + first..].iter_mut().zip(acc) {
                    w.store(y, w.max(acc, w.zero()));
                }
            });
        }
        units.transpose(self.rows);
    }
}

/// Gradient of the inputs, then gradient of the weights and Adam, for one slab.
pub struct Backward<'a, X, G> {
    pub slab: &'a mut Slab,
    pub outputs: usize,
    /// Activations of the slab's inputs: the tile of a chunk.
    pub x: X,
    /// Gradients of the outputs: the tile of a group and a chunk. Beyond the last output they are zero.
    pub gradient: G,
    pub rows: usize,
    pub rates: Rates,
}

impl<'a, X: Fn(usize) -> &'a [Lane], G: Fn(usize, usize) -> &'a [Lane]> Kernel for Backward<'_, X, G> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Slab { weights, gradient: inputs, .. } = &mut *self.slab;
        let chunks = lanes(self.rows);
        for c in 0..chunks {
            by_rows!(W, rows_in(self.rows, c), |first, R| {
                let mut acc = [w.zero(); R];
                for o in 0..lanes(self.outputs) {
                    let weights = &weights.p[o * LANES..][..rows_in(self.outputs, o)];
                    rows_by_lanes(w, &mut acc, &(self.gradient)(o, c)[first..], weights);
                }
                let x = (self.x)(c)[first..].iter().zip(&mut inputs[c * LANES + first..]);
                for ((x, out), acc) in x.zip(acc) {
                    w.store(out, w.choose(w.load(x), w.zero(), acc, w.zero()));
                }
            });
        }
        for o in 0..lanes(self.outputs) {
            by_rows!(W, rows_in(self.outputs, o), |first, R| {
                let mut acc = [w.zero(); R];
                for c in 0..chunks {
                    let n = rows_in(self.rows, c);
                    columns_by_lanes(w, &mut acc, &(self.gradient)(o, c)[..n], first, &(self.x)(c)[..n]);
                }
                for (q, acc) in acc.into_iter().enumerate() {
                    weights.adam(w, self.rates, o * LANES + first + q, acc);
                }
            });
        }
        self.slab.transpose();
    }
}

/// Gradient of the biases of one group of outputs, and Adam.
pub struct Biases<'a, G> {
    pub out: &'a mut OutputGroup,
    /// Gradients of these outputs: the tile of a chunk.
    pub gradient: G,
    pub rows: usize,
    pub rates: Rates,
}

impl<'a, G: Fn(usize) -> &'a [Lane]> Kernel for Biases<'_, G> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let mut sum = w.zero();
        for c in 0..lanes(self.rows) {
            for gradient in &(self.gradient)(c)[..rows_in(self.rows, c)] {
                sum = w.add(sum, w.load(gradient));
            }
        }
        self.out.bias.adam(w, self.rates, 0, sum);
    }
}

/// The same from the gradients that the outputs themselves hold.
pub struct OwnBiases<'a> {
    pub out: &'a mut OutputGroup,
    pub rows: usize,
    pub rates: Rates,
}

impl Kernel for OwnBiases<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let OutputGroup { bias, units } = self.out;
        let mut sum = w.zero();
        for gradient in &units.gradient[..self.rows] {
            sum = w.add(sum, w.load(gradient));
        }
        bias.adam(w, self.rates, 0, sum);
    }
}
