//! Small square matrices in f64, by tiles that stay in registers.
//!
//! Rows are padded to whole chunks of eight numbers, and the rows themselves to a multiple of eight: where a matrix is
//! factorised its padding is that of the identity, elsewhere zero. Products and sums are never fused, so that
//! the numbers do not depend on the machine.

use super::bound::dot;
use std::ops::Range;

/// Numbers that are worked on at once.
pub(super) const LANES: usize = 8;
/// Rows of a tile.
const ROWS: usize = 4;

pub(super) type Chunk = [f64; LANES];

/// A square matrix of `LANES * chunks` rows.
#[derive(Debug, Default, Clone)]
pub(super) struct Square {
    chunks: usize,
    rows: Vec<Chunk>,
}

/// `sum_r a[r]' b[r]` over a range of rows: ROWS numbers of a from i on, one column of chunks of b.
#[inline(always)]
fn tile(range: Range<usize>, a: &Square, i: usize, b: &Square, column: usize) -> [Chunk; ROWS] {
    match i % LANES {
        0 => half_tile::<0>(range, a, i / LANES, b, column),
        _ => half_tile::<ROWS>(range, a, i / LANES, b, column),
    }
}

#[inline(always)]
fn half_tile<const FIRST: usize>(
    range: Range<usize>,
    a: &Square,
    i: usize,
    b: &Square,
    column: usize,
) -> [Chunk; ROWS] {
    let rows = |s: &'_ Square| range.start * s.chunks..range.end * s.chunks;
    let mut sums = [[0.0; LANES]; ROWS];
    for (a, b) in a.rows[rows(a)].chunks_exact(a.chunks).zip(b.rows[rows(b)].chunks_exact(b.chunks)) {
        let (a, b) = (&a[i], &b[column]);
        for t in 0..ROWS {
            for lane in 0..LANES {
                sums[t][lane] += a[FIRST + t] * b[lane];
            }
        }
    }
    sums
}

impl Square {
    /// All zeros, for n rows and their padding.
    #[inline(always)]
    pub(super) fn clear(&mut self, n: usize) {
        self.chunks = n.div_ceil(LANES);
        self.rows.clear();
        self.rows.resize(self.chunks * self.chunks * LANES, [0.0; LANES]);
    }

    /// Room for n rows, a multiple of eight.
    pub(super) fn reserve(&mut self, n: usize) {
        self.rows.reserve((n * n / LANES).saturating_sub(self.rows.len()));
    }

    /// Numbers in a row, padding included.
    #[inline(always)]
    pub(super) fn stride(&self) -> usize {
        LANES * self.chunks
    }

    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &[f64] {
        self.rows[i * self.chunks..][..self.chunks].as_flattened()
    }

    /// A row, chunk by chunk.
    #[inline(always)]
    pub(super) fn chunks(&self, i: usize) -> &[Chunk] {
        &self.rows[i * self.chunks..][..self.chunks]
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, i: usize) -> &mut [f64] {
        self.rows[i * self.chunks..][..self.chunks].as_flattened_mut()
    }

    #[inline(always)]
    pub(super) fn at(&self, i: usize, q: usize) -> f64 {
        self.rows[i * self.chunks + q / LANES][q % LANES]
    }

    /// The rows of a tile that starts at row i, in one column of chunks.
    #[inline(always)]
    fn put(&mut self, i: usize, column: usize, tile: &[Chunk; ROWS]) {
        for (t, row) in tile.iter().enumerate() {
            self.rows[(i + t) * self.chunks + column] = *row;
        }
    }

    /// `self = a b` with a symmetric a, or of a symmetric product the tiles that touch the upper triangle.
    #[inline(always)]
    pub(super) fn multiply(&mut self, a: &Square, b: &Square, upper: bool) {
        self.clear(b.stride());
        for i in (0..self.stride()).step_by(ROWS) {
            for column in if upper { i / LANES } else { 0 }..self.chunks {
                self.put(i, column, &tile(0..self.stride(), a, i, b, column));
            }
        }
    }

    /// `self = a' a` of the lower triangle a.
    #[inline(always)]
    pub(super) fn gram(&mut self, a: &Square) {
        self.clear(a.stride());
        for i in (0..self.stride()).step_by(ROWS) {
            for column in 0..self.chunks {
                self.put(i, column, &tile(i.max(column * LANES)..self.stride(), a, i, a, column));
            }
        }
    }

    /// `self = f f' + sum_r j[r]' j[r]` over a range of rows of j, for the first k rows and columns.
    #[inline(always)]
    pub(super) fn outer(&mut self, f: &[f64], j: &Square, range: Range<usize>) {
        let k = f.len();
        self.clear(k);
        for i in (0..k).step_by(ROWS) {
            for column in 0..self.chunks {
                let mut sums = tile(range.clone(), j, i, j, column);
                for (t, sums) in sums.iter_mut().enumerate() {
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        let (row, column) = (i + t, column * LANES + lane);
                        *sum = if row < k && column < k { *sum + f[row] * f[column] } else { 0.0 };
                    }
                }
                self.put(i, column, &sums);
            }
        }
    }

    /// The transpose of a triangle.
    #[inline(always)]
    pub(super) fn transpose(&mut self, other: &Square, lower: bool) {
        let n = other.stride();
        self.clear(n);
        for i in 0..n {
            let row = &other.row(i)[if lower { 0..i + 1 } else { i..n }];
            let first = if lower { 0 } else { i };
            row.iter().enumerate().for_each(|(q, v)| self.rows[(first + q) * self.chunks + i / LANES][i % LANES] = *v);
        }
    }

    /// The Cholesky factor U (its transpose times itself) of a symmetric matrix whose upper triangle is given, in its
    /// place; what is below the diagonal means nothing, but for zeros in the diagonal's own chunks. `false` if a
    /// pivot is too small beside its diagonal.
    #[inline(always)]
    pub(super) fn factorise(&mut self) -> bool {
        for block in 0..self.chunks {
            let first = block * LANES;
            // What the rows before take away, and then its own factor: of the block on the diagonal,
            let mut rows = self.rest(first, block);
            let mut diagonal = [0.0; LANES];
            let mut inverse = [0.0; LANES];
            for (q, value) in diagonal.iter_mut().enumerate() {
                *value = self.at(first + q, first + q);
            }
            for q in 0..LANES {
                let (_, rest) = rows.split_at_mut(q);
                let (row, below) = rest.split_first_mut().expect("a row");
                let pivot = row[q];
                // The negation also refuses NaN.
                if !(pivot > 1e-9 * diagonal[q] && pivot > f64::MIN_POSITIVE) {
                    return false;
                }
                inverse[q] = 1.0 / pivot.sqrt();
                row[..q].fill(0.0);
                row.iter_mut().for_each(|v| *v *= inverse[q]);
                for (i, below) in below.iter_mut().enumerate() {
                    let x = row[q + 1 + i];
                    below.iter_mut().zip(&*row).for_each(|(o, v)| *o -= x * v);
                }
            }
            let corner = rows;
            self.put_block(first, block, &corner);
            // and of those to its right.
            for column in block + 1..self.chunks {
                let mut rows = self.rest(first, column);
                for q in 0..LANES {
                    let (_, rest) = rows.split_at_mut(q);
                    let (row, below) = rest.split_first_mut().expect("a row");
                    row.iter_mut().for_each(|v| *v *= inverse[q]);
                    for (i, below) in below.iter_mut().enumerate() {
                        let x = corner[q][q + 1 + i];
                        below.iter_mut().zip(&*row).for_each(|(o, v)| *o -= x * v);
                    }
                }
                self.put_block(first, column, &rows);
            }
        }
        true
    }

    /// A block of eight rows and a column of chunks, without what the rows of the factor above it make of it.
    #[inline(always)]
    fn rest(&self, first: usize, column: usize) -> [Chunk; LANES] {
        let mut rows = [[0.0; LANES]; LANES];
        for i in (0..LANES).step_by(ROWS) {
            let sums = tile(0..first, self, first + i, self, column);
            for (t, sums) in sums.iter().enumerate() {
                let row = &self.rows[(first + i + t) * self.chunks + column];
                rows[i + t].iter_mut().zip(row).zip(sums).for_each(|((o, a), s)| *o = a - s);
            }
        }
        rows
    }

    #[inline(always)]
    fn put_block(&mut self, first: usize, column: usize, rows: &[Chunk; LANES]) {
        for (i, row) in rows.iter().enumerate() {
            self.rows[(first + i) * self.chunks + column] = *row;
        }
    }

    /// The inverse of a factor's transpose, a lower triangle.
    #[inline(always)]
    pub(super) fn invert_transposed(&mut self, factor: &Square) {
        self.clear(factor.stride());
        for block in 0..self.chunks {
            let first = block * LANES;
            for column in 0..=block {
                let mut rows = [[0.0; LANES]; LANES];
                for i in (0..LANES).step_by(ROWS) {
                    let sums = tile(column * LANES..first, factor, first + i, self, column);
                    for (t, sums) in sums.iter().enumerate() {
                        rows[i + t].iter_mut().zip(sums).for_each(|(o, s)| *o = -s);
                    }
                }
                for i in 0..LANES {
                    if column == block {
                        rows[i][i] = 1.0;
                    }
                    let (above, rest) = rows.split_at_mut(i);
                    let row = &mut rest[0];
                    for (q, above) in above.iter().enumerate() {
                        let l = factor.at(first + q, first + i);
                        row.iter_mut().zip(above).for_each(|(o, a)| *o -= l * a);
                    }
                    let pivot = 1.0 / factor.at(first + i, first + i);
                    row.iter_mut().for_each(|o| *o *= pivot);
                }
                self.put_block(first, column, &rows);
            }
        }
    }

    /// Solves `u'u x = p` in place, where self is u. The length of p is the stride.
    #[inline(always)]
    pub(super) fn solve(&self, p: &mut [f64]) {
        let n = self.stride();
        for i in 0..n {
            let (first, row) = (i / LANES * LANES, self.row(i));
            let x = p[i] / row[i];
            p[first..].iter_mut().zip(&row[first..]).for_each(|(p, u)| *p -= x * u);
            p[i] = x;
        }
        for i in (0..n).rev() {
            let row = self.row(i);
            p[i] = (p[i] - dot(&row[i + 1..], &p[i + 1..])) / row[i];
        }
    }

    /// `y = self' g` of an upper triangle, for the first `g.len()` numbers: with the transpose of `L^-1`, `L^-1 g`.
    #[inline(always)]
    pub(super) fn apply_transposed(&self, g: &[f64], y: &mut [f64]) {
        for column in 0..self.chunks {
            let first = column * LANES;
            let (mut even, mut odd) = ([0.0; LANES], [0.0; LANES]);
            let (pairs, last) = g[..g.len().min(first + LANES)].as_chunks::<2>();
            for (r, [a, b]) in pairs.iter().enumerate() {
                let row = &self.rows[2 * r * self.chunks + column];
                even.iter_mut().zip(row).for_each(|(s, l)| *s += a * l);
                let row = &self.rows[(2 * r + 1) * self.chunks + column];
                odd.iter_mut().zip(row).for_each(|(s, l)| *s += b * l);
            }
            for a in last {
                let row = &self.rows[2 * pairs.len() * self.chunks + column];
                even.iter_mut().zip(row).for_each(|(s, l)| *s += a * l);
            }
            y[first..].iter_mut().zip(even.iter().zip(&odd)).for_each(|(y, (a, b))| *y = a + b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::brute_force::Random;

    fn random(n: usize, seed: u32) -> (Square, Vec<Vec<f64>>) {
        let mut random = Random::new(seed, n as u64);
        let plain: Vec<Vec<f64>> =
            (0..n).map(|_| (0..n).map(|_| random.below(2001) as f64 / 1000.0 - 1.0).collect()).collect();
        let mut square = Square::default();
        square.clear(n);
        plain.iter().enumerate().for_each(|(i, row)| square.row_mut(i)[..n].copy_from_slice(row));
        (square, plain)
    }

    fn product(a: &[Vec<f64>], b: &[Vec<f64>], n: usize) -> Vec<Vec<f64>> {
        (0..n).map(|i| (0..n).map(|q| (0..n).map(|r| a[i][r] * b[r][q]).sum()).collect()).collect()
    }

    fn assert_near(a: &Square, b: &[Vec<f64>], what: &str) {
        for (i, row) in b.iter().enumerate() {
            for (q, v) in row.iter().enumerate() {
                assert!((a.at(i, q) - v).abs() < 1e-9 * (1.0 + v.abs()), "{what} {i} {q}: {} {v}", a.at(i, q));
            }
        }
    }

    #[test]
    fn factors_inverses_and_products_agree_with_plain_sums() {
        for n in 1..36 {
            let (mut a, plain) = random(n, 1);
            let (b, other) = random(n, 2);
            let mut out = Square::default();
            // A matrix that is positive definite, by its upper triangle.
            let turned: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|q| plain[q][i]).collect()).collect();
            let mut positive = product(&plain, &turned, n);
            (0..n).for_each(|i| positive[i][i] += 0.1 + n as f64);
            a.clear(n);
            for i in 0..a.stride() {
                let row = a.row_mut(i);
                row[i] = 1.0;
                if i < n {
                    row[i..n].copy_from_slice(&positive[i][i..]);
                }
            }
            let mut symmetric = Square::default();
            symmetric.clear(n);
            positive.iter().enumerate().for_each(|(i, row)| symmetric.row_mut(i)[..n].copy_from_slice(row));
            out.multiply(&symmetric, &b, false);
            assert_near(&out, &product(&positive, &other, n), "product");
            assert!(a.factorise());
            let upper: Vec<Vec<f64>> =
                (0..n).map(|i| (0..n).map(|q| if q >= i { a.at(i, q) } else { 0.0 }).collect()).collect();
            out.transpose(&a, false);
            let lower: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|q| out.at(i, q)).collect()).collect();
            assert_near(&symmetric, &product(&lower, &upper, n), "factor");
            // Its inverse, and what is solved with the factor.
            let (mut lower, mut whole) = (Square::default(), Square::default());
            lower.invert_transposed(&a);
            whole.gram(&lower);
            let mut x: Vec<f64> = other[0].clone();
            x.resize(a.stride(), 0.0);
            a.solve(&mut x);
            for i in 0..n {
                let expected: f64 = (0..n).map(|q| whole.at(i, q) * other[0][q]).sum();
                assert!((x[i] - expected).abs() < 1e-9, "solve {i}");
                let one: f64 = (0..n).map(|q| positive[i][q] * whole.at(q, n - 1)).sum();
                assert!((one - (i == n - 1) as u8 as f64).abs() < 1e-9, "inverse {i}");
            }
            out.transpose(&lower, true);
            let mut y = vec![0.0; n];
            out.apply_transposed(&other[0], &mut y);
            for (i, y) in y.iter().enumerate() {
                let expected: f64 = (0..=i).map(|q| lower.at(i, q) * other[0][q]).sum();
                assert!((y - expected).abs() < 1e-9, "half {i}");
            }
            let mut moments = Square::default();
            moments.outer(&other[0][..n / 2], &b, n / 2..n);
            for i in 0..n / 2 {
                for q in 0..n / 2 {
                    let expected: f64 =
                        other[0][i] * other[0][q] + (n / 2..n).map(|r| other[r][i] * other[r][q]).sum::<f64>();
                    assert!((moments.at(i, q) - expected).abs() < 1e-9, "moments {i} {q}");
                }
            }
        }
        let (mut a, _) = random(5, 3);
        a.row_mut(3)[3] = -1.0;
        assert!(!a.factorise());
    }
}
