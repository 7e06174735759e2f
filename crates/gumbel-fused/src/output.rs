//! The decoder's output layer with the Bernoulli likelihood of its pixels.
//!
//! A block is 64 pixels: groups of sixteen, each with its tiles `[16 pixels, 16 units]` of the weights. In the
//! forward pass the decoder's rows stand in the lanes, so that sums over pixels never cross lanes: for a tile of
//! logits t, softplus(t) is added up and sigmoid(t) kept. The derivative at the logits is `n_r sigmoid(t) - (sum of
//! the images' weights for row r)`; images are sparse, so the second term touches their ones only. The block then
//! gives its part of the gradient at the decoder's units and, while its tiles are in the cache, consumes the gradient
//! of its weights in Adam.

use super::bits::{BLOCK, Bits};
use super::dense::{Activation, rows_in};
use super::first::Part;
use super::simd::{Kernel, LANES, Lane, Vector, lanes};
use super::tile::{Rates, Weights, by_rows, columns_by_lanes, rows_by_lanes, rows_by_some_lanes};

pub struct Output {
    pub pixels: usize,
    pub units: usize,
    pub blocks: Vec<Block>,
    /// Logits `[blocks, chunks of rows, 64 pixels]` of the last forward pass, rows in the lanes.
    pub logits: Vec<Lane>,
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
    /// First the sigmoids of the logits, then the derivatives: `[chunks of rows, 64 pixels]`, rows in the lanes.
    derivative: Vec<Lane>,
    /// Sums over the block's pixels of softplus(logit) `[chunks]`, less those of the ones where rows are images.
    pub sums: Vec<Lane>,
    /// This block's part of the gradient at the decoder's units: `[unit groups, rows]`.
    pub units: Vec<Lane>,
}

impl Output {
    pub fn new(pixels: usize, units: usize, rows: usize) -> Self {
        let block = |b: usize| {
            let count = BLOCK.min(pixels - b * BLOCK);
            let (groups, chunks) = (lanes(count), lanes(rows));
            let zero = |n: usize| vec![Lane::ZERO; n];
            Block {
                first: b * BLOCK,
                pixels: count,
                weights: Weights::new(groups * lanes(units) * LANES),
                bias: Weights::new(groups),
                derivative: zero(chunks * BLOCK),
                sums: zero(chunks),
                units: zero(lanes(units) * chunks * LANES),
            }
        };
        let blocks: Vec<Block> = (0..pixels.div_ceil(BLOCK)).map(block).collect();
        Output { pixels, units, logits: vec![Lane::ZERO; blocks.len() * lanes(rows) * BLOCK], blocks }
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

    /// Makes room for so many rows.
    pub fn resize(&mut self, rows: usize) {
        let chunks = lanes(rows);
        self.logits.resize(self.blocks.len() * chunks * BLOCK, Lane::ZERO);
        for block in &mut self.blocks {
            block.derivative.resize(chunks * BLOCK, Lane::ZERO);
            block.sums.resize(chunks, Lane::ZERO);
            block.units.resize(lanes(self.units) * chunks * LANES, Lane::ZERO);
        }
    }

    /// Places in [`logits`](Output::logits) of each block.
    pub fn part(rows: usize) -> usize {
        lanes(rows) * BLOCK
    }

    /// Sums of the logits at some pixels for N chunks of rows from the first on; there are `chunks` of them.
    #[inline(always)]
    pub fn logits_of<W: Vector, const N: usize>(&self, w: W, ones: &[u16], first: usize, chunks: usize) -> [W::V; N] {
        // Four sums for each, so that additions need not wait for each other.
        let mut sums = [[w.zero(); N]; 4];
        let add = |sums: &mut [W::V; N], one: u16| {
            let one = one as usize;
            let at = one + one / BLOCK * (chunks - 1) * BLOCK + first * BLOCK;
            let logits = &self.logits[at..];
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = w.add(*sum, w.load(&logits[n * BLOCK]));
            }
        };
        let (fours, rest) = ones.as_chunks::<4>();
        for four in fours {
            sums.iter_mut().zip(four).for_each(|(sums, one)| add(sums, *one));
        }
        rest.iter().for_each(|one| add(&mut sums[0], *one));
        let [a, b, c, d] = sums;
        std::array::from_fn(|n| w.add(w.add(a[n], b[n]), w.add(c[n], d[n])))
    }
}

/// What the rows of the decoder stand for in the objective.
pub enum Role<'a> {
    /// Row r is one image: the place r of the batch (or of one of several rows for it).
    Images {
        /// Places in the batch; row `number * stride + place` belongs to it.
        stride: usize,
        /// Rows of each image.
        numbers: usize,
        /// Weight of each row's loss.
        weights: &'a [f32],
    },
    /// Rows are states, shared by all images: image b has a weight at row `chosen[b]`.
    Chosen { chosen: &'a [u32], weights: &'a [f32] },
    /// Image b has the weights of its chunk of the table: `weights(b)[chunk]`, rows in the lanes.
    Weighted { weights: &'a (dyn Fn(usize) -> &'a [Lane] + Sync) },
}

/// Logits, sums of softplus and sigmoids for rows of units.
pub struct Forward<'a, T, H> {
    pub block: &'a mut Block,
    /// The block's part of the logits.
    pub logits: &'a mut [Lane],
    /// Transposed activations: the tile `[16 units, rows in the lanes]` of a group of units and a chunk.
    pub transposed: T,
    /// Activations: the tile `[rows, 16 units]`.
    pub units: H,
    pub width: usize,
    pub rows: usize,
}

/// Rows in a chunk up to which units stand in the lanes: fewer would leave most lanes empty.
const FEW: usize = 4;

impl<'a, T: Fn(usize, usize) -> &'a [Lane], H: Fn(usize, usize) -> &'a [Lane]> Kernel for Forward<'_, T, H> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Block { weights, bias, derivative, sums, pixels, .. } = self.block;
        let logits = self.logits;
        let (groups, chunks) = (lanes(self.width), lanes(self.rows));
        sums[..chunks].fill(Lane::ZERO);
        for p in 0..lanes(*pixels) {
            for (c, sums) in sums[..chunks].iter_mut().enumerate() {
                let tile = c * BLOCK + p * LANES;
                by_rows!(W, rows_in(*pixels, p), |first, R| {
                    let mut acc: [W::V; R] = std::array::from_fn(|q| w.splat(bias.p[p].0[first + q]));
                    let rows = rows_in(self.rows, c);
                    if rows <= FEW {
                        let mut few = [Lane::ZERO; R];
                        for r in 0..rows {
                            let mut products = [w.zero(); R];
                            for g in 0..groups {
                                let unit = w.load(&(self.units)(g, c)[r]);
                                let weights: &[Lane; R] =
                                    weights.p[(p * groups + g) * LANES + first..].first_chunk().expect("R pixels");
                                for (product, weight) in products.iter_mut().zip(weights) {
                                    *product = w.fma(w.load(weight), unit, *product);
                                }
                            }
                            few.iter_mut().zip(products).for_each(|(t, product)| t.0[r] = w.sum(product));
                        }
                        acc.iter_mut().zip(&few).for_each(|(acc, few)| *acc = w.add(*acc, w.load(few)));
                    } else {
                        for g in 0..groups {
                            let weights = &weights.p[(p * groups + g) * LANES + first..];
                            rows_by_lanes(w, &mut acc, weights, &(self.transposed)(g, c)[..rows_in(self.width, g)]);
                        }
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

/// The rows of a chunk that have a weight.
#[inline(always)]
fn used(totals: &Lane) -> u16 {
    totals.0.iter().enumerate().fold(0, |used, (l, total)| used | ((*total != 0.0) as u16) << l)
}

/// Derivative at the logits, gradient at the units, gradient of the weights and Adam.
pub struct Backward<'r, 'a, H> {
    pub block: &'r mut Block,
    /// The block's part of the logits.
    pub logits: &'r [Lane],
    /// Activations: the tile `[rows, 16 units]` of a group of units and a chunk.
    pub units: H,
    pub width: usize,
    pub rows: usize,
    /// Sum of the weights of the images at each row `[chunks]`.
    pub totals: &'a [Lane],
    pub role: &'a Role<'a>,
    pub bits: &'a Bits,
    pub batch: &'a [u32],
    pub rates: Rates,
}

impl<'a, H: Fn(usize, usize) -> &'a [Lane]> Kernel for Backward<'_, 'a, H> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let block = self.block;
        let (groups, chunks) = (lanes(self.width), lanes(self.rows));
        block.derive(w, self.logits, &self.totals[..chunks], self.role, self.bits, self.batch);
        block.pull(w, self.width, self.rows);
        let Block { weights, bias, derivative, pixels, .. } = block;
        for p in 0..lanes(*pixels) {
            let mut sums = Lane::ZERO;
            for (q, sum) in sums.0.iter_mut().enumerate() {
                let mut total = w.zero();
                for c in 0..chunks {
                    total = w.add(total, w.load(&derivative[c * BLOCK + p * LANES + q]));
                }
                *sum = w.sum(total);
            }
            let gradient = w.load(&sums);
            bias.adam(w, self.rates, p, gradient);
            for g in 0..groups {
                by_rows!(W, rows_in(*pixels, p), |first, R| {
                    let mut acc = [w.zero(); R];
                    for c in 0..chunks {
                        let derivative = &derivative[c * BLOCK + p * LANES + first..];
                        let units = (self.units)(g, c).first_chunk().expect("a tile of sixteen rows");
                        rows_by_some_lanes(w, &mut acc, derivative, units, used(&self.totals[c]));
                    }
                    for (q, acc) in acc.into_iter().enumerate() {
                        weights.adam(w, self.rates, (p * groups + g) * LANES + first + q, acc);
                    }
                });
            }
        }
    }
}

/// Before [`Backward`]: the gradient at the units of each row of what its pixels cost if none of them were one.
pub struct Pull<'r> {
    pub block: &'r mut Block,
    pub width: usize,
    pub rows: usize,
}

impl Kernel for Pull<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        self.block.pull(w, self.width, self.rows);
    }
}

impl Block {
    /// This block's part of the gradient at the units, from the derivatives at the logits.
    #[inline(always)]
    fn pull<W: Vector>(&mut self, w: W, width: usize, rows: usize) {
        let Block { weights, derivative, units, pixels, .. } = self;
        let (groups, chunks) = (lanes(width), lanes(rows));
        for c in 0..chunks {
            let n = rows_in(rows, c);
            for g in 0..groups {
                by_rows!(W, n, |first, R| {
                    let mut acc = [w.zero(); R];
                    for p in 0..lanes(*pixels) {
                        let n = rows_in(*pixels, p);
                        let derivative = &derivative[c * BLOCK + p * LANES..][..n];
                        columns_by_lanes(w, &mut acc, derivative, first, &weights.p[(p * groups + g) * LANES..][..n]);
                    }
                    for (out, acc) in units[(g * chunks + c) * LANES + first..].iter_mut().zip(acc) {
                        w.store(out, acc);
                    }
                });
            }
        }
    }

    /// Turns the sigmoids into derivatives at the logits.
    #[inline(always)]
    fn derive<W: Vector>(
        &mut self,
        w: W,
        logits: &[Lane],
        totals: &[Lane],
        role: &Role<'_>,
        bits: &Bits,
        batch: &[u32],
    ) {
        let Block { first, pixels, derivative, sums, .. } = self;
        let logits: &[[Lane; BLOCK]] = logits.as_chunks().0;
        let derivative: &mut [[Lane; BLOCK]] = derivative.as_chunks_mut().0;
        for (total, derivative) in totals.iter().zip(&mut *derivative) {
            let total = w.load(total);
            for d in &mut derivative[..*pixels] {
                w.store(d, w.mul(total, w.load(d)));
            }
            // Lanes beyond the last pixel belong to nobody.
            derivative[*pixels..].fill(Lane::ZERO);
        }
        for (place, image) in batch.iter().enumerate() {
            let ones = bits.ones(*image as usize, *first / BLOCK).iter().map(|one| *one as usize % BLOCK);
            match role {
                Role::Images { stride, numbers, weights } => {
                    for row in (0..*numbers).map(|number| number * stride + place) {
                        let (chunk, l, scale) = (row / LANES, row % LANES, weights[row]);
                        let mut sum = 0.0;
                        for one in ones.clone() {
                            derivative[chunk][one].0[l] -= scale;
                            sum += logits[chunk][one].0[l];
                        }
                        sums[chunk].0[l] -= sum;
                    }
                }
                Role::Chosen { chosen, weights } => {
                    let scale = weights[place];
                    let (chunk, l) = (chosen[place] as usize / LANES, chosen[place] as usize % LANES);
                    let derivative = &mut derivative[chunk];
                    for one in ones {
                        derivative[one].0[l] -= scale;
                    }
                }
                Role::Weighted { weights } => {
                    for (weight, derivative) in weights(place).iter().zip(&mut *derivative) {
                        let weight = w.load(weight);
                        for one in ones.clone() {
                            let d = &mut derivative[one];
                            w.store(d, w.sub(w.load(d), weight));
                        }
                    }
                }
            }
        }
    }

    /// Logits of 16 rows in the lanes into `logits` `[64 pixels]`; the sum of their softplus.
    ///
    /// `units` are tiles `[16 units, rows in the lanes]`, one for each group of units.
    #[inline(always)]
    pub fn decode<W: Vector>(&self, w: W, units: &[Lane], width: usize, logits: &mut [Lane]) -> W::V {
        let groups = lanes(width);
        let mut sum = w.zero();
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
                    w.store(&mut logits[p * LANES + first + q], t);
                }
            });
        }
        sum
    }

    /// The sum of `softplus(t) - x t` over the block's pixels for 16 rows in the lanes that all belong to one image;
    /// `ones` are the image's in this block, `used` the bits of each group's units that some row has.
    #[inline(always)]
    pub fn losses<W: Vector>(&self, w: W, units: &[Lane], used: &[u16], ones: &[u16]) -> W::V {
        let (units, groups): (&[[Lane; LANES]], _) = (units.as_chunks().0, used.len());
        let mut sum = w.zero();
        let mut next = 0;
        for p in 0..lanes(self.pixels) {
            let n = rows_in(self.pixels, p);
            by_rows!(W, n, |first, R| {
                let mut acc: [W::V; R] = std::array::from_fn(|q| w.splat(self.bias.p[p].0[first + q]));
                for (g, (units, used)) in units.iter().zip(used).enumerate() {
                    let weights = &self.weights.p[(p * groups + g) * LANES + first..];
                    rows_by_some_lanes(w, &mut acc, weights, units, *used);
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

    /// Adds the weights of some of this block's pixels, `[groups of units]`, and the sum of their biases.
    #[inline(always)]
    pub fn add_weights<W: Vector>(&self, w: W, ones: &[u16], width: usize, sums: &mut [Lane]) -> f32 {
        let groups = lanes(width);
        let mut bias = 0.0;
        for one in ones {
            let c = *one as usize - self.first;
            bias += self.bias.p[c / LANES].0[c % LANES];
            for (g, sum) in sums.iter_mut().enumerate() {
                let weights = w.load(&self.weights.p[(c / LANES * groups + g) * LANES + c % LANES]);
                w.store(sum, w.add(w.load(sum), weights));
            }
        }
        bias
    }

    /// Adds a part of this block's gradient at the units of one row, `[groups of units]`, from the derivatives at the
    /// logits of some of its pixels, from the lane `from` on, pixels in the lanes.
    #[inline(always)]
    pub fn row_gradient<W: Vector>(&self, w: W, from: usize, derivative: &[Lane], gradient: &mut [Lane]) {
        let groups = gradient.len();
        let mut first = 0;
        macro_rules! some {
            ($N:literal) => {
                while groups - first >= $N {
                    let mut acc: [W::V; $N] = std::array::from_fn(|q| w.load(&gradient[first + q]));
                    let tiles = self.weights.p.chunks_exact(groups * LANES).skip(from);
                    for (tiles, derivative) in tiles.zip(derivative) {
                        let tiles: &[[Lane; LANES]; $N] =
                            tiles.as_chunks().0[first..].first_chunk().expect("as many groups");
                        for c in 0..LANES {
                            let d = w.splat(derivative.0[c]);
                            for q in 0..$N {
                                acc[q] = w.fma(w.load(&tiles[q][c]), d, acc[q]);
                            }
                        }
                    }
                    gradient[first..].iter_mut().zip(acc).for_each(|(out, acc)| w.store(out, acc));
                    first += $N;
                }
            };
        }
        some!(8);
        some!(4);
        some!(2);
        some!(1);
    }

    /// The weights of sixteen pixels and sixteen units: `[16 pixels]`, units in the lanes.
    pub fn tile(&self, pixels: usize, units: usize, groups: usize) -> &[Lane] {
        &self.weights.p[(pixels * groups + units) * LANES..][..LANES]
    }

    /// The bias of sixteen pixels.
    pub fn bias(&self, pixels: usize) -> &Lane {
        &self.bias.p[pixels]
    }

    /// The number of its pixels.
    pub fn pixels(&self) -> usize {
        self.pixels
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
