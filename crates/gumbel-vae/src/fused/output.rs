//! The decoder's output layer with the Bernoulli likelihood of its pixels.
//!
//! A block is 64 pixels: groups of sixteen, each with its tiles `[16 pixels, 16 units]` of the weights. In the forward pass
//! the decoder's rows stand in the lanes, so that sums over pixels never cross lanes: for a tile of logits t, softplus(t) is
//! added up and sigmoid(t) kept. The derivative at the logits is `n_r sigmoid(t) - (sum of the images' weights for row r)`;
//! images are sparse, so the second term touches their ones only. The block then gives its part of the gradient at the
//! decoder's units and, while its tiles are in the cache, consumes the gradient of its weights in Adam.

use super::bits::Members;
use super::dense::{Activation, rows_in};
use super::first::Part;
use super::simd::{Kernel, LANES, Lane, Vector, lanes};
use super::tile::{Rates, Weights, by_rows, columns_by_lanes, rows_by_lanes};

/// Groups of pixels in a block.
const GROUPS: usize = 4;
/// Pixels in a block.
pub const PIXELS: usize = GROUPS * LANES;

pub struct Output {
    pub pixels: usize,
    pub units: usize,
    pub blocks: Vec<Block>,
}

/// 64 pixels.
pub struct Block {
    first: usize,
    /// Pixels, 64 but for the last block.
    pixels: usize,
    /// `[pixel groups, unit groups, 16 pixels]`, units in the lanes.
    weights: Weights,
    /// `[pixel groups]`, pixels in the lanes.
    bias: Weights,
    /// Logits `[pixel groups, chunks of rows, 16 pixels]`, rows in the lanes.
    logits: Vec<Lane>,
    /// First their sigmoids, then the derivatives.
    derivative: Vec<Lane>,
    /// Sums over the block's pixels of softplus(logit) `[chunks]`, less those of the ones where rows are images.
    pub sums: Vec<Lane>,
    /// This block's part of the gradient at the decoder's units: `[unit groups, rows]`.
    pub units: Vec<Lane>,
}

impl Output {
    pub fn new(pixels: usize, units: usize, rows: usize) -> Self {
        let block = |b: usize| {
            let count = PIXELS.min(pixels - b * PIXELS);
            let (groups, chunks) = (lanes(count), lanes(rows));
            let zero = |n: usize| vec![Lane::ZERO; n];
            Block {
                first: b * PIXELS,
                pixels: count,
                weights: Weights::new(groups * lanes(units) * LANES),
                bias: Weights::new(groups),
                logits: zero(groups * chunks * LANES),
                derivative: zero(groups * chunks * LANES),
                sums: zero(chunks),
                units: zero(lanes(units) * chunks * LANES),
            }
        };
        Output { pixels, units, blocks: (0..pixels.div_ceil(PIXELS)).map(block).collect() }
    }

    /// Visits the parameters with their moments; see [`super::first::First::visit`].
    pub fn visit(&mut self, mut each: impl FnMut(Part, usize, [&mut f32; 3])) {
        let groups = lanes(self.units);
        for block in &mut self.blocks {
            for c in 0..block.pixels {
                let pixel = block.first + c;
                let Weights { p, m, v } = &mut block.weights;
                for unit in 0..self.units {
                    let lane = (c / LANES * groups + unit / LANES) * LANES + c % LANES;
                    let l = unit % LANES;
                    let values = [&mut p[lane].0[l], &mut m[lane].0[l], &mut v[lane].0[l]];
                    each(Part::Weight, unit * self.pixels + pixel, values);
                }
                let Weights { p, m, v } = &mut block.bias;
                let (g, l) = (c / LANES, c % LANES);
                each(Part::Bias, pixel, [&mut p[g].0[l], &mut m[g].0[l], &mut v[g].0[l]]);
            }
        }
    }

    /// Logits of a pixel for the rows of a chunk, after a forward pass over `chunks` chunks.
    #[inline(always)]
    pub fn logits(&self, pixel: usize, chunk: usize, chunks: usize) -> &Lane {
        &self.blocks[pixel / PIXELS].logits[(pixel % PIXELS / LANES * chunks + chunk) * LANES + pixel % LANES]
    }
}

/// What the rows of the decoder stand for in the objective.
pub enum Role<'a> {
    /// Row r is one image: the place r of the batch (or of one of several samples of it).
    Images {
        /// Places in the batch; row `sample * stride + place` belongs to it.
        stride: usize,
        /// Samples.
        samples: usize,
        /// Weight of each image's loss.
        scale: f32,
    },
    /// Rows are states, shared by all images: image b has weight `scale` at row `chosen[b]`.
    Chosen { chosen: &'a [u32], scale: f32 },
    /// Image b has the weights of its chunk of the table: `weights(b)[chunk]`, rows in the lanes.
    Weighted { weights: &'a (dyn Fn(usize) -> &'a [Lane] + Sync) },
}

/// Logits, sums of softplus and sigmoids for rows of units.
pub struct Forward<'a, H> {
    pub block: &'a mut Block,
    /// Transposed activations: the tile `[16 units, rows in the lanes]` of a group of units and a chunk.
    pub units: H,
    pub width: usize,
    pub rows: usize,
}

impl<'a, H: Fn(usize, usize) -> &'a [Lane]> Kernel for Forward<'_, H> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Block { weights, bias, logits, derivative, sums, pixels, .. } = self.block;
        let (groups, chunks) = (lanes(self.width), lanes(self.rows));
        sums[..chunks].fill(Lane::ZERO);
        for p in 0..lanes(*pixels) {
            for (c, sums) in sums[..chunks].iter_mut().enumerate() {
                let tile = (p * chunks + c) * LANES;
                by_rows!(W, rows_in(*pixels, p), |first, R| {
                    let mut acc: [W::V; R] = std::array::from_fn(|q| w.splat(bias.p[p].0[first + q]));
                    for g in 0..groups {
                        let weights = &weights.p[(p * groups + g) * LANES + first..];
                        rows_by_lanes(w, &mut acc, weights, &(self.units)(g, c)[..rows_in(self.width, g)]);
                    }
                    let mut sum = w.load(sums);
                    for (q, t) in acc.into_iter().enumerate() {
                        let (softplus, sigmoid) = w.softplus_and_sigmoid(t);
                        w.store(&mut logits[tile + first + q], t);
                        w.store(&mut derivative[tile + first + q], sigmoid);
                        // Rows of a block may reach beyond the last pixel.
                        if first + q < rows_in(*pixels, p) {
                            sum = w.add(sum, softplus);
                        }
                    }
                    w.store(sums, sum);
                });
            }
        }
    }
}

/// Derivative at the logits, gradient at the units, gradient of the weights and Adam.
pub struct Backward<'r, 'a, H> {
    pub block: &'r mut Block,
    /// Activations: the tile `[rows, 16 units]` of a group of units and a chunk.
    pub units: H,
    pub width: usize,
    pub rows: usize,
    /// Sum of the weights of the images at each row `[chunks]`.
    pub totals: &'a [Lane],
    pub role: &'a Role<'a>,
    pub members: &'a Members,
    pub rates: Rates,
}

impl<'a, H: Fn(usize, usize) -> &'a [Lane]> Kernel for Backward<'_, 'a, H> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let block = self.block;
        let (groups, chunks) = (lanes(self.width), lanes(self.rows));
        block.derive(w, chunks, self.totals, self.role, self.members);
        let Block { weights, bias, derivative, units, pixels, .. } = block;
        let tiles = lanes(*pixels);
        for c in 0..chunks {
            let n = rows_in(self.rows, c);
            for g in 0..groups {
                by_rows!(W, n, |first, R| {
                    let mut acc = [w.zero(); R];
                    for p in 0..tiles {
                        let n = rows_in(*pixels, p);
                        let derivative = &derivative[(p * chunks + c) * LANES..][..n];
                        columns_by_lanes(w, &mut acc, derivative, first, &weights.p[(p * groups + g) * LANES..][..n]);
                    }
                    for (out, acc) in units[(g * chunks + c) * LANES + first..].iter_mut().zip(acc) {
                        w.store(out, acc);
                    }
                });
            }
        }
        for p in 0..tiles {
            let mut sums = Lane::ZERO;
            for c in 0..chunks {
                for (sum, d) in sums.0.iter_mut().zip(&derivative[(p * chunks + c) * LANES..]) {
                    *sum += d.0.iter().sum::<f32>();
                }
            }
            let gradient = w.load(&sums);
            bias.adam(w, self.rates, p, gradient);
            for g in 0..groups {
                by_rows!(W, rows_in(*pixels, p), |first, R| {
                    let mut acc = [w.zero(); R];
                    for c in 0..chunks {
                        let derivative = &derivative[(p * chunks + c) * LANES + first..];
                        rows_by_lanes(w, &mut acc, derivative, &(self.units)(g, c)[..rows_in(self.rows, c)]);
                    }
                    for (q, acc) in acc.into_iter().enumerate() {
                        weights.adam(w, self.rates, (p * groups + g) * LANES + first + q, acc);
                    }
                });
            }
        }
    }
}

impl Block {
    /// Turns the sigmoids into derivatives at the logits.
    #[inline(always)]
    fn derive<W: Vector>(&mut self, w: W, chunks: usize, totals: &[Lane], role: &Role<'_>, members: &Members) {
        let Block { first, pixels, logits, derivative, sums, .. } = self;
        for p in 0..lanes(*pixels) {
            for (c, total) in totals[..chunks].iter().enumerate() {
                let total = w.load(total);
                for d in &mut derivative[(p * chunks + c) * LANES..][..LANES] {
                    w.store(d, w.mul(total, w.load(d)));
                }
            }
            // Lanes beyond the last pixel belong to nobody.
            for c in 0..chunks {
                derivative[(p * chunks + c) * LANES..][..LANES][rows_in(*pixels, p)..].fill(Lane::ZERO);
            }
        }
        for pixel in 0..*pixels {
            let lane = |chunk: usize| (pixel / LANES * chunks + chunk) * LANES + pixel % LANES;
            for place in members.of_pixel(*first + pixel).into_iter().flatten() {
                match role {
                    Role::Images { stride, samples, scale } => {
                        for sample in 0..*samples {
                            let row = sample * stride + *place as usize;
                            let (lane, l) = (lane(row / LANES), row % LANES);
                            derivative[lane].0[l] -= scale;
                            sums[row / LANES].0[l] -= logits[lane].0[l];
                        }
                    }
                    Role::Chosen { chosen, scale } => {
                        let row = chosen[*place as usize] as usize;
                        derivative[lane(row / LANES)].0[row % LANES] -= scale;
                    }
                    Role::Weighted { weights } => {
                        for (c, weight) in weights(*place as usize).iter().enumerate() {
                            let d = &mut derivative[lane(c)];
                            w.store(d, w.sub(w.load(d), w.load(weight)));
                        }
                    }
                }
            }
        }
    }

    /// The sum of `softplus(t) - x t` over the block's pixels for 16 rows in the lanes that all belong to one image.
    ///
    /// `units` are tiles `[16 units, rows in the lanes]`, one for each group of units; `ones` are the image's.
    #[inline(always)]
    pub fn losses<W: Vector>(&self, w: W, units: &[Lane], width: usize, ones: &[u16]) -> W::V {
        let groups = lanes(width);
        let mut sum = w.zero();
        let mut next = ones.partition_point(|p| (*p as usize) < self.first);
        for p in 0..lanes(self.pixels) {
            let n = rows_in(self.pixels, p);
            by_rows!(W, n, |first, R| {
                let mut acc: [W::V; R] = std::array::from_fn(|q| w.splat(self.bias.p[p].0[first + q]));
                for g in 0..groups {
                    let weights = &self.weights.p[(p * groups + g) * LANES + first..];
                    rows_by_lanes(w, &mut acc, weights, &units[g * LANES..][..rows_in(width, g)]);
                }
                for (q, t) in acc.into_iter().enumerate().take(n - first) {
                    sum = w.add(sum, w.softplus(t));
                    if ones.get(next).is_some_and(|one| *one as usize == self.first + p * LANES + first + q) {
                        sum = w.sub(sum, t);
                        next += 1;
                    }
                }
            });
        }
        sum
    }
}

/// Gathers the blocks' parts of the gradient at sixteen units and masks it by their ReLU.
pub struct Gather<'a> {
    pub blocks: &'a [Block],
    pub group: usize,
    pub rows: usize,
    pub units: &'a mut Activation,
}

impl Kernel for Gather<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let first = self.group * lanes(self.rows) * LANES;
        let Activation { y, gradient, .. } = self.units;
        for (r, (y, gradient)) in y.iter().zip(gradient).enumerate().take(self.rows) {
            let mut sum = w.zero();
            for block in self.blocks {
                sum = w.add(sum, w.load(&block.units[first + r]));
            }
            w.store(gradient, w.choose(w.load(y), w.zero(), sum, w.zero()));
        }
    }
}
