//! Products of 16 x 16 tiles, and parameters with their moments.
//!
//! Every matrix of the engine is cut into groups of sixteen columns that are stored one after the other: element (r, c)
//! of a `[rows, columns]` matrix stands in lane `group(c) * rows + r` at place `c % 16`. Whoever works on one group of
//! columns has it contiguous, rows lie at a fixed distance, and a product needs just two kernels: a block of rows is
//! broadcast number by number against rows of sixteen lanes.

use super::simd::{LANES, Lane, Vector};

/// Runs `$body` for blocks of consecutive rows that cover `0..$rows`, the constant `$R` being their number and `$first`
/// the first; the last block may reach beyond, up to the next multiple of 16.
macro_rules! by_rows {
    ($W:ident, $rows:expr, |$first:ident, $R:ident| $body:block) => {{
        let rows: usize = $rows;
        let mut $first = 0;
        if $W::ROWS >= 16 {
            while $first < rows {
                match rows - $first {
                    1..=4 => {
                        const $R: usize = 4;
                        $body
                        $first += $R;
                    }
                    5..=8 => {
                        const $R: usize = 8;
                        $body
                        $first += $R;
                    }
                    9..=10 => {
                        const $R: usize = 10;
                        $body
                        $first += $R;
                    }
                    11..=12 => {
                        const $R: usize = 12;
                        $body
                        $first += $R;
                    }
                    _ => {
                        const $R: usize = 16;
                        $body
                        $first += $R;
                    }
                }
            }
        } else if $W::ROWS >= 4 {
            while $first < rows {
                const $R: usize = 4;
                $body
                $first += $R;
            }
        } else {
            while $first < rows {
                const $R: usize = 2;
                $body
                $first += $R;
            }
        }
    }};
}
pub(super) use by_rows;

/// `acc[q] += sum_i a[q][i] b[i]` over the rows of `b`, at most sixteen: rows of `a` against lanes of `b`.
#[inline(always)]
pub fn rows_by_lanes<W: Vector, const R: usize>(w: W, acc: &mut [W::V; R], a: &[Lane], b: &[Lane]) {
    let a: &[Lane; R] = a.first_chunk().expect("a block has R rows");
    let b = &b[..b.len().min(LANES)];
    for (i, row) in b.iter().enumerate() {
        let row = w.load(row);
        for q in 0..R {
            acc[q] = w.fma(w.splat(a[q].0[i]), row, acc[q]);
        }
    }
}

/// The same over the rows of `b` that `used` has the bits of.
#[inline(always)]
pub fn rows_by_some_lanes<W: Vector, const R: usize>(
    w: W,
    acc: &mut [W::V; R],
    a: &[Lane],
    b: &[Lane; LANES],
    mut used: u16,
) {
    let a: &[Lane; R] = a.first_chunk().expect("a block has R rows");
    while used != 0 {
        let i = used.trailing_zeros() as usize % LANES;
        used &= used - 1;
        let row = w.load(&b[i]);
        for q in 0..R {
            acc[q] = w.fma(w.splat(a[q].0[i]), row, acc[q]);
        }
    }
}

/// `acc[q] += sum_k a[k][first + q] b[k]` over all rows k: columns of `a` against lanes of `b`.
#[inline(always)]
pub fn columns_by_lanes<W: Vector, const R: usize>(w: W, acc: &mut [W::V; R], a: &[Lane], first: usize, b: &[Lane]) {
    assert!(first + R <= LANES);
    for (a, b) in a.iter().zip(b) {
        let a: &[f32; R] = a.0[first..].first_chunk().expect("R columns from the first on");
        let b = w.load(b);
        for q in 0..R {
            acc[q] = w.fma(w.splat(a[q]), b, acc[q]);
        }
    }
}

/// `out[c][r] = tile[r][c]` for a 16 x 16 tile.
#[inline(always)]
pub fn transpose(tile: &[Lane], out: &mut [Lane]) {
    let (tile, out): (&[Lane; LANES], &mut [Lane; LANES]) =
        (tile.first_chunk().expect("a tile"), out.first_chunk_mut().expect("a tile"));
    for (r, row) in tile.iter().enumerate() {
        for (c, x) in row.0.iter().enumerate() {
            out[c].0[r] = *x;
        }
    }
}

/// The rates of one step of Adam.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// `lr / (1 - beta1^t)`.
    pub rate: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    pub root: f32,
}

/// Parameters with their moments, in the same layout.
#[derive(Debug, Clone)]
pub struct Weights {
    pub p: Vec<Lane>,
    pub m: Vec<Lane>,
    pub v: Vec<Lane>,
}

impl Weights {
    pub fn new(lanes: usize) -> Self {
        let zero = || vec![Lane::ZERO; lanes];
        Weights { p: zero(), m: zero(), v: zero() }
    }

    /// One step of Adam for lane `i`; returns the new parameters.
    #[inline(always)]
    pub fn adam<W: Vector>(&mut self, w: W, rates: Rates, i: usize, gradient: W::V) -> W::V {
        let (p, m, v) = (&mut self.p[i], &mut self.m[i], &mut self.v[i]);
        adam(w, rates, p, m, v, gradient)
    }
}

/// One step of Adam for sixteen parameters (Kingma and Ba, ICLR 2015); returns the new ones.
///
/// A mean that has decayed to less than 1e-30 becomes zero: it would go on into denormal numbers, which are slow.
#[inline(always)]
pub fn adam<W: Vector>(w: W, rates: Rates, p: &mut Lane, m: &mut Lane, v: &mut Lane, gradient: W::V) -> W::V {
    use gumbel::network::{BETA1, BETA2, EPSILON};
    let mean = w.fma(w.splat(1.0 - BETA1), gradient, w.mul(w.splat(BETA1), w.load(m)));
    let mean = w.choose(w.abs(mean), w.splat(1e-30), mean, w.zero());
    let square = w.mul(w.splat(1.0 - BETA2), gradient);
    let square = w.fma(square, gradient, w.mul(w.splat(BETA2), w.load(v)));
    w.store(m, mean);
    w.store(v, square);
    let scale = w.fma(w.sqrt(square), w.splat(rates.root), w.splat(EPSILON));
    let new = w.fma(w.mul(w.splat(-rates.rate), mean), w.reciprocal(scale), w.load(p));
    w.store(p, new);
    new
}
