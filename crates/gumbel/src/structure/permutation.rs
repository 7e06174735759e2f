//! Permutations: every row is assigned a column of its own.
//!
//! Z is the set of permutations of `0..n`, `z[i]` the column of row i, and `h(z) = sum_i potentials[i, z_i]`: the
//! potentials are `[n, n]`, `[row][column]`, all of them unary. `-inf` forbids a pair.
//!
//! **Arg max**: the linear assignment problem, by shortest augmenting paths after Jonker and Volgenant. Every column
//! has a price; row i's regret for column j is `price[j] - h[i, j]`. An assignment in which every row has a column of
//! its least regret is optimal, whatever the prices are. The solver keeps this true of the rows it has assigned: it
//! sets prices by column maxima, raises them in bidding rounds (augmenting row reduction), and assigns the few rows
//! that are left along shortest paths in a dense Dijkstra search, in which it also moves the prices. O(n^3) in the
//! worst case; in practice a few passes over the n^2 potentials. All in f64, in which differences of f32 potentials of
//! like size are exact; with very unlike ones an answer is optimal up to rounding errors of the size of the largest.
//!
//! Solving again keeps the prices, and the rows that still have a column of least regret: after a change of one row it
//! is two or three times as fast as from scratch for n of 50 and more; for small n there is nothing to gain.
//!
//! **No sums**: the partition function is a permanent, which is #P-hard; [`Sums`](super::Sums) is not implemented.
//!
//! Enumeration order: lexicographic (the index in the factorial number system is the Lehmer code).
//!
//! Reference: R. Jonker, A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
//! problems", Computing 38, 1987.

use super::condition;
use super::latent::LatentEntry;
use super::moves;
use super::precise::{Real, with_rounding_of_sums};
use super::{Code, Maximum, Move, Precise, Structure, check_numbers};
use crate::Error;

/// Permutations of `n` elements.
///
/// ```
/// use gumbel::structure::{Permutation, Structure};
/// let z = Permutation::new(3)?;
/// let scores = [
///     1.0, 5.0, 0.0, // row 0
///     2.0, 6.0, 0.0, // row 1
///     0.0, 0.0, 1.0,
/// ];
/// let mut columns = [0; 3];
/// let maximum = z.argmax(&scores, &mut columns, &mut z.scratch())?;
/// assert_eq!(maximum.value, 8.0); // [0, 1, 2] and [1, 0, 2] both have it
/// assert_eq!((columns[2], z.states()), (2, Some(6)));
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permutation {
    size: usize,
}

/// Working memory of [`Permutation`], and the prices of the last answer.
#[derive(Debug, Clone)]
pub struct PermutationScratch {
    /// `-h`, `[row][column]`; `+inf` where forbidden, and in the columns added to make rows a multiple of [`LANES`].
    cost: Vec<f64>,
    /// Price of each column, finite; 0 for the columns added.
    price: Vec<f64>,
    /// The row that has each column, or [`NONE`].
    owner: Vec<u32>,
    /// The column that each row has, or [`NONE`].
    column: Vec<u32>,
    /// Rows without a column.
    free_rows: Vec<u32>,
    /// Columns without a row; only up to date while paths are searched.
    free_columns: Vec<u32>,
    search: Search,
    /// Whether `price` and `column` belong to an optimal answer.
    warm: bool,
}

/// The state of one Dijkstra search.
#[derive(Debug, Clone)]
struct Search {
    /// Distance of each open column; `+inf` once it is closed.
    distance: Vec<f64>,
    /// Price of each open column; `+inf` once it is closed, so that no row can reach it again.
    price: Vec<f64>,
    /// Rows reached, with what is added to their regrets to get distances.
    reached: Vec<(u32, f64)>,
    /// Closed columns with their distances; `closed[k]` belongs to row `reached[k + 1]`.
    closed: Vec<(u32, f64)>,
    /// Column maxima and the rows they stand in.
    best: Vec<f32>,
    best_row: Vec<f32>,
}

const NONE: u32 = u32::MAX;

/// Bidding rounds before paths are searched, and bids per round and row.
const ROUNDS: usize = 2;
const BIDS: usize = 1;

/// Prices larger than this, in units of the largest potential, are not worth keeping: they would cost digits.
const LARGE_PRICE: f64 = 64.0;

impl Permutation {
    /// The largest `n * n`.
    pub const MAX_POTENTIALS: usize = 1 << 24;

    /// Permutations of `size` elements; there is one of none.
    ///
    /// # Errors
    ///
    /// More than [`MAX_POTENTIALS`](Permutation::MAX_POTENTIALS).
    pub fn new(size: usize) -> Result<Self, Error> {
        if size.checked_mul(size).is_none_or(|p| p > Self::MAX_POTENTIALS) {
            return Err(Error::range("size", size, format!("n * n at most {}", Self::MAX_POTENTIALS)));
        }
        Ok(Permutation { size })
    }

    /// The costs of an instance.
    fn load<T: Real>(&self, potentials: &[T], s: &mut PermutationScratch) -> Result<(), Error> {
        s.warm = false;
        check_numbers("potential", potentials)?;
        for (cost, row) in s.cost.chunks_exact_mut(self.width()).zip(potentials.chunks_exact(self.size)) {
            cost.iter_mut().zip(row).for_each(|(c, h)| *c = -h.wide());
        }
        Ok(())
    }

    /// Length of the rows of costs.
    fn width(&self) -> usize {
        self.size.next_multiple_of(LANES)
    }

    /// Prices are column maxima, found in `best`; each maximum's row, found in `best_row`, gets the column if it has
    /// none yet. Rows are numbers of the same kind so that maximum and row are vectors of the same width.
    fn reduce_columns<T: Real>(
        &self,
        potentials: &[T],
        [best, best_row]: [&mut [T]; 2],
        s: &mut PermutationScratch,
    ) -> Result<(), Error> {
        best.fill(T::NEG_INFINITY);
        for (i, row) in potentials.chunks_exact(self.size).enumerate() {
            let row_number = T::from(i as u16); // n * n is limited to 2^24
            for ((best, best_row), h) in best.iter_mut().zip(best_row.iter_mut()).zip(row) {
                *best_row = if h > best { row_number } else { *best_row };
                *best = if h > best { *h } else { *best };
            }
        }
        if let Some(j) = best.iter().position(|b| *b == T::NEG_INFINITY) {
            return Err(Error::Infeasible { detail: format!("all potentials of column {j} are -inf") });
        }
        s.price.iter_mut().zip(best).for_each(|(p, b)| *p = b.wide());
        s.owner.fill(NONE);
        s.column.fill(NONE);
        for j in (0..self.size).rev() {
            let i = best_row[j].wide() as u32;
            if s.column[i as usize] == NONE {
                s.column[i as usize] = j as u32;
                s.owner[j] = i;
            }
        }
        Ok(())
    }

    /// Each row bids for its column of least regret: the price rises until the second least is as good. Who loses a
    /// column bids next; on a tie prices would not move, so that the loser waits for the next round.
    ///
    /// Prices rise by what may be ever less: the number of bids is limited, which costs nothing but time.
    fn bid(&self, s: &mut PermutationScratch) {
        let (n, width) = (self.size, self.width());
        for _ in 0..ROUNDS {
            let waiting = s.free_rows.len();
            let (mut next, mut left, mut bids) = (0, 0, 0);
            while next < waiting {
                let i = s.free_rows[next];
                next += 1;
                let regrets = Regrets { cost: &s.cost[i as usize * width..][..width], price: &s.price };
                let (least, second) = if bids < BIDS * n { regrets.two_least() } else { (0.0, f64::INFINITY) };
                if second == f64::INFINITY {
                    // Bids are used up, or the row has but one column, for which it could pay any price: it waits.
                    s.free_rows[left] = i;
                    left += 1;
                    continue;
                }
                bids += 1;
                let mut j = regrets.position(least);
                if second == least && s.owner[j] != NONE {
                    j = regrets.free_position(least, &s.owner).unwrap_or(j);
                }
                let raised = s.price[j] + (second - least);
                let moved = raised > s.price[j];
                s.price[j] = raised;
                let loser = std::mem::replace(&mut s.owner[j], i);
                s.column[i as usize] = j as u32;
                if loser != NONE {
                    s.column[loser as usize] = NONE;
                    if moved {
                        next -= 1;
                        s.free_rows[next] = loser;
                    } else {
                        s.free_rows[left] = loser;
                        left += 1;
                    }
                }
            }
            s.free_rows.truncate(left);
        }
    }

    /// Assigns `start` along a shortest path, and moves the prices so that all assigned rows stay at their least
    /// regret.
    fn augment(&self, start: u32, s: &mut PermutationScratch) -> Result<(), Error> {
        let width = self.width();
        let search = &mut s.search;
        search.distance.fill(f64::INFINITY);
        search.price.copy_from_slice(&s.price);
        search.closed.clear();
        search.reached.clear();
        search.reached.push((start, 0.0));
        let (end, length) = loop {
            let &(i, base) = search.reached.last().expect("the start");
            let cost = &s.cost[i as usize * width..][..width];
            let least = relax(&mut search.distance, cost, &search.price, base);
            if least == f64::INFINITY {
                return Err(Error::Infeasible { detail: format!("no column is left for row {start}") });
            }
            // Ties are frequent: a free column among the nearest ends the search.
            if let Some(k) = s.free_columns.iter().position(|j| search.distance[*j as usize] == least) {
                break (s.free_columns.swap_remove(k), least);
            }
            let j = search.distance.iter().position(|d| *d == least).expect("the least distance");
            search.closed.push((j as u32, least));
            search.distance[j] = f64::INFINITY;
            search.price[j] = f64::INFINITY;
            let i = s.owner[j];
            search.reached.push((i, least - (s.cost[i as usize * width + j] + s.price[j])));
        };
        // Predecessors were not stored: who gave a column its distance is found by computing it again.
        let (mut j, mut distance) = (end, length);
        loop {
            let gave = |(i, base): &(u32, f64)| {
                (s.cost[*i as usize * width + j as usize] + s.price[j as usize]) + base == distance
            };
            let k = search.reached.iter().position(gave).expect("the row that gave the distance");
            let i = search.reached[k].0;
            s.owner[j as usize] = i;
            s.column[i as usize] = j;
            match k.checked_sub(1) {
                Some(k) => (j, distance) = search.closed[k],
                None => break,
            }
        }
        for (j, distance) in &search.closed {
            s.price[*j as usize] += length - distance;
        }
        Ok(())
    }

    /// From prices and a partial assignment at least regrets to the answer.
    fn complete(&self, assignment: &mut [u32], s: &mut PermutationScratch) -> Result<(), Error> {
        s.free_rows.clear();
        s.free_rows.extend((0..self.size as u32).filter(|i| s.column[*i as usize] == NONE));
        self.bid(s);
        s.free_columns.clear();
        s.free_columns.extend((0..self.size as u32).filter(|j| s.owner[*j as usize] == NONE));
        for k in 0..s.free_rows.len() {
            self.augment(s.free_rows[k], s)?;
        }
        s.warm = true;
        assignment.copy_from_slice(&s.column);
        Ok(())
    }

    /// The arg max of potentials of either kind; `best` is working memory, twice `[n]`.
    fn solve<T: Real>(
        &self,
        potentials: &[T],
        assignment: &mut [u32],
        best: [&mut [T]; 2],
        s: &mut PermutationScratch,
    ) -> Result<(), Error> {
        let width = self.width();
        self.load(potentials, s)?;
        self.reduce_columns(potentials, best, s)?;
        // Reduction transfer: an assigned row lets its price rise until its second column is as good, which makes the
        // column less attractive to the others.
        for i in 0..self.size {
            let j = s.column[i] as usize;
            if s.column[i] == NONE {
                continue;
            }
            let (least, second) = Regrets { cost: &s.cost[i * width..][..width], price: &s.price }.two_least();
            if second < f64::INFINITY {
                s.price[j] += second - least;
            }
        }
        self.complete(assignment, s)
    }
}

impl Precise for Permutation {
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        scratch: &mut PermutationScratch,
    ) -> Result<Maximum, Error> {
        if self.size == 0 {
            return Ok(Maximum::proved(0.0));
        }
        let mut best = vec![0.0; 2 * self.size];
        self.solve(potentials, assignment, best.split_at_mut(self.size).into(), scratch)?;
        let value = assignment.iter().enumerate().map(|(i, j)| potentials[i * self.size + *j as usize]).sum();
        // Prices and distances are sums along paths: up to four times those of an assignment.
        Ok(with_rounding_of_sums(Maximum::proved(value), potentials, 4 * self.size))
    }
}

/// The largest finite magnitude.
fn largest_magnitude(potentials: &[f32]) -> f64 {
    let (chunks, rest) = potentials.as_chunks::<LANES>();
    let mut largest = [0.0f32; LANES];
    let larger = |m: f32, h: f32| if h.abs() > m && h.abs() < f32::INFINITY { h.abs() } else { m };
    chunks.iter().for_each(|c| (0..LANES).for_each(|l| largest[l] = larger(largest[l], c[l])));
    largest.iter().chain(rest).fold(0.0, |m, h| larger(m, *h)) as f64
}

/// The regrets of one row.
#[derive(Clone, Copy)]
struct Regrets<'a> {
    cost: &'a [f64],
    price: &'a [f64],
}

/// Numbers handled at once: wide enough for the compiler to use vector registers.
const LANES: usize = 8;

#[inline]
fn min(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

#[inline]
fn max(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

impl Regrets<'_> {
    #[inline]
    fn at(self, j: usize) -> f64 {
        self.cost[j] + self.price[j]
    }

    /// The least and the second least regret (equal on a tie).
    #[inline]
    fn two_least(self) -> (f64, f64) {
        let (mut first, mut second) = ([f64::INFINITY; LANES], [f64::INFINITY; LANES]);
        for (c, p) in self.chunks() {
            for l in 0..LANES {
                let x = c[l] + p[l];
                second[l] = min(second[l], max(first[l], x));
                first[l] = min(first[l], x);
            }
        }
        (1..LANES).fold((first[0], second[0]), |(least, next), l| {
            (min(least, first[l]), min(min(next, second[l]), max(least, first[l])))
        })
    }

    /// The least regret.
    #[inline]
    fn least(self) -> f64 {
        let mut least = [f64::INFINITY; LANES];
        self.chunks().for_each(|(c, p)| (0..LANES).for_each(|l| least[l] = min(least[l], c[l] + p[l])));
        least.into_iter().fold(f64::INFINITY, min)
    }

    /// The first column with this regret.
    #[inline]
    fn position(self, regret: f64) -> usize {
        let equal = |(c, p): (&[f64; LANES], &[f64; LANES])| (0..LANES).fold(false, |e, l| e | (c[l] + p[l] == regret));
        let chunk = self.chunks().position(equal).expect("a regret that was found");
        let found = (0..LANES).position(|l| self.at(chunk * LANES + l) == regret);
        chunk * LANES + found.expect("it is in this chunk")
    }

    /// The first column with this regret that has no owner.
    fn free_position(self, regret: f64, owner: &[u32]) -> Option<usize> {
        (0..owner.len()).find(|j| self.at(*j) == regret && owner[*j] == NONE)
    }

    #[inline]
    fn chunks(&self) -> impl Iterator<Item = (&[f64; LANES], &[f64; LANES])> {
        self.cost.as_chunks().0.iter().zip(self.price.as_chunks().0)
    }
}

/// `distance = min(distance, cost + price + base)`; returns the least.
#[inline]
fn relax(distance: &mut [f64], cost: &[f64], price: &[f64], base: f64) -> f64 {
    let mut least = [f64::INFINITY; LANES];
    let chunks = Regrets { cost, price };
    for (d, (c, p)) in distance.as_chunks_mut::<LANES>().0.iter_mut().zip(chunks.chunks()) {
        for l in 0..LANES {
            d[l] = min((c[l] + p[l]) + base, d[l]);
            least[l] = min(least[l], d[l]);
        }
    }
    least.into_iter().fold(f64::INFINITY, min)
}

impl Structure for Permutation {
    type Scratch = PermutationScratch;

    fn potentials(&self) -> usize {
        self.size * self.size
    }

    fn unary(&self) -> usize {
        self.potentials()
    }

    fn variables(&self) -> usize {
        self.size
    }

    fn ln_states(&self) -> f64 {
        (2..=self.size).map(|i| (i as f64).ln()).sum()
    }

    fn states(&self) -> Option<usize> {
        (2..=self.size).try_fold(1usize, |product, i| product.checked_mul(i))
    }

    fn state(&self, mut index: usize, assignment: &mut [u32]) {
        // The Lehmer code, from the last digit: how many of the later columns are smaller.
        for i in (0..self.size).rev() {
            let digit = (index % (self.size - i)) as u32;
            index /= self.size - i;
            assignment[i] = digit;
            assignment[i + 1..].iter_mut().filter(|z| **z >= digit).for_each(|z| *z += 1);
        }
    }

    fn code(&self) -> Code {
        Code::Indicators
    }

    fn scratch(&self) -> PermutationScratch {
        let (n, width) = (self.size, self.width());
        PermutationScratch {
            cost: vec![f64::INFINITY; n * width],
            price: vec![0.0; width],
            owner: vec![NONE; n],
            column: vec![NONE; n],
            free_rows: Vec::with_capacity(n),
            free_columns: Vec::with_capacity(n),
            search: Search {
                distance: vec![0.0; width],
                price: vec![0.0; width],
                reached: Vec::with_capacity(n),
                closed: Vec::with_capacity(n),
                best: vec![0.0; n],
                best_row: vec![0.0; n],
            },
            warm: false,
        }
    }

    fn argmax(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut PermutationScratch,
    ) -> Result<Maximum, Error> {
        if self.size == 0 {
            return Ok(Maximum::proved(0.0));
        }
        let search = &mut scratch.search;
        let (mut best, mut best_row) = (std::mem::take(&mut search.best), std::mem::take(&mut search.best_row));
        let solved = self.solve(potentials, assignment, [&mut best, &mut best_row], scratch);
        (scratch.search.best, scratch.search.best_row) = (best, best_row);
        solved?;
        Ok(Maximum::proved(self.score(potentials, assignment)))
    }

    /// Keeps the prices, and the rows that still have a column of least regret.
    fn resolve(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut PermutationScratch,
    ) -> Result<Maximum, Error> {
        let (s, width) = (scratch, self.width());
        let prices = &mut s.price[..self.size];
        let least = prices.iter().copied().fold(f64::INFINITY, min);
        prices.iter_mut().for_each(|p| *p -= least); // lest they grow from call to call
        let highest = prices.iter().copied().fold(0.0, max);
        if !s.warm || highest > LARGE_PRICE * largest_magnitude(potentials) {
            return self.argmax(potentials, assignment, s);
        }
        self.load(potentials, s)?;
        for i in 0..self.size {
            let regrets = Regrets { cost: &s.cost[i * width..][..width], price: &s.price };
            let j = s.column[i] as usize;
            let regret = regrets.at(j);
            if regret == f64::INFINITY || regret > regrets.least() {
                s.owner[j] = NONE;
                s.column[i] = NONE;
            }
        }
        self.complete(assignment, s)?;
        Ok(Maximum::proved(self.score(potentials, assignment)))
    }

    fn has_moves(&self) -> bool {
        true
    }

    /// Two rows swap their columns: for each row the best of those behind it. O(n^2).
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        let n = self.size;
        let at = |row: usize, of: usize| potentials[row * n + assignment[of] as usize] as f64;
        for i in 0..n.saturating_sub(1) {
            let now = |j: usize| at(i, i) + at(j, j);
            moves::best(moves, i, (i + 1..n).map(|j| (j, at(i, j) + at(j, i) - now(j))));
        }
    }

    fn make(&self, change: Move, assignment: &mut [u32]) -> bool {
        assignment.swap(change.place as usize, change.value as usize);
        true
    }

    /// Forbids the other columns of the known rows.
    fn condition(&self, known: &[u32], potentials: &mut [f32]) -> Result<f64, Error> {
        for (row, column) in condition::known_values(known, self.size, self.size)? {
            let row = potentials[row * self.size..][..self.size].iter_mut().enumerate();
            row.filter(|(j, _)| *j != column).for_each(|(_, h)| *h = f32::NEG_INFINITY);
        }
        Ok(0.0)
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        for (row, z) in out.chunks_exact_mut(self.size.max(1)).zip(assignment) {
            row[*z as usize] += scale;
        }
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        let rows = potentials.chunks_exact(self.size.max(1)).zip(assignment);
        rows.map(|(row, z)| row[*z as usize] as f64).sum()
    }
}

/// `permutation:N` in the registry.
pub(super) fn entry() -> LatentEntry {
    LatentEntry::new("permutation", "N", "permutations of N elements", |sizes| {
        let n = sizes.whole(sizes.as_str())?;
        sizes.at_least(2, n)?;
        sizes.at_most(n.checked_mul(n))?;
        Ok((Permutation::new(n).map_err(|e| sizes.explain(e))?.into(), n.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::argmax_batch;
    use crate::structure::brute_force::{self, Random, Values};

    /// The prices prove the answer: every row has a column of its least regret, up to rounding.
    fn check_certificate(n: usize, s: &PermutationScratch, potentials: &[f32], what: &dyn std::fmt::Debug) {
        let tolerance = 1e-12 * brute_force::magnitude(potentials);
        let width = n.next_multiple_of(LANES);
        for i in 0..n {
            let regrets = Regrets { cost: &s.cost[i * width..][..width], price: &s.price };
            let (found, least) = (regrets.at(s.column[i] as usize), regrets.two_least().0);
            assert!(found <= least + tolerance, "{what:?}: row {i} has regret {found}, could have {least}");
            assert_eq!(s.owner[s.column[i] as usize], i as u32, "{what:?}");
        }
    }

    #[test]
    fn agrees_with_brute_force() {
        let mut scratches: Vec<_> = (0..7).map(|n| Permutation::new(n).unwrap().scratch()).collect();
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(40, case);
            let n = random.below(if case % 16 == 0 { 7 } else { 6 });
            let (p, values) = (Permutation::new(n).unwrap(), Values::ALL[random.below(5)]);
            let potentials = values.vector(n * n, random);
            brute_force::check_argmax(&p, &potentials, &mut scratches[n], &(case, values, n));
        }
    }

    #[test]
    fn solving_again_is_solving() {
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(41, case);
            let n = random.below(6);
            let p = Permutation::new(n).unwrap();
            let mut values = Values::ALL[random.below(5)];
            let mut potentials = values.vector(n * n, random);
            let mut scratch = p.scratch();
            let mut z = vec![0; n];
            let mut solved = p.argmax(&potentials, &mut z, &mut scratch).is_ok();
            for round in 0..4 {
                match random.below(4) {
                    0 => values = Values::ALL[random.below(5)], // from now on of another magnitude, everywhere
                    1 => potentials.iter_mut().for_each(|h| *h *= 0.5),
                    _ => {}
                }
                for _ in 0..random.below(2 * n + 1) {
                    potentials[random.below(n * n)] = values.draw(random);
                }
                let expected = brute_force::enumerate(&p, &potentials).max;
                match p.resolve(&potentials, &mut z, &mut scratch) {
                    Ok(found) => {
                        brute_force::check_maximum(&p, &potentials, &z, found, expected, &(case, round, values, n));
                        solved = true;
                    }
                    Err(_) => assert_eq!(expected, f64::NEG_INFINITY, "{:?} {solved}", (case, round, values)),
                }
            }
        }
    }

    #[test]
    fn larger_instances_have_a_certificate() {
        for case in 0..400 {
            let random = &mut Random::new(42, case);
            let n = 6 + random.below(60);
            let (p, values) = (Permutation::new(n).unwrap(), Values::ALL[random.below(5)]);
            let mut potentials = values.vector(n * n, random);
            let (mut scratch, mut z) = (p.scratch(), vec![0; n]);
            p.argmax(&potentials, &mut z, &mut scratch).unwrap();
            check_certificate(n, &scratch, &potentials, &(case, values, n));
            (0..n).for_each(|_| potentials[random.below(n * n)] = values.draw(random));
            let again = p.resolve(&potentials, &mut z, &mut scratch).unwrap();
            check_certificate(n, &scratch, &potentials, &(case, values, n));
            let fresh = p.argmax(&potentials, &mut z, &mut scratch).unwrap();
            assert!((again.value - fresh.value).abs() <= 1e-12 * brute_force::magnitude(&potentials), "{case}");
        }
    }

    #[test]
    fn states_are_the_permutations_in_lexicographic_order() {
        for n in 0..7 {
            let p = Permutation::new(n).unwrap();
            let mut z = vec![0; n];
            let states: Vec<_> = (0..p.states().unwrap())
                .map(|s| {
                    p.state(s, &mut z);
                    z.clone()
                })
                .collect();
            assert!(states.is_sorted_by(|a, b| a < b));
            assert_eq!(states.len(), (1..=n).product::<usize>());
            assert!((p.ln_states() - (states.len() as f64).ln()).abs() < 1e-12);
            let valid = |z: &Vec<u32>| (0..n as u32).all(|j| z.contains(&j));
            assert!(states.iter().all(valid));
        }
        assert_eq!(Permutation::new(21).unwrap().states(), None);
    }

    #[test]
    fn structures_of_forbidden_pairs() {
        // The only perfect matching of a band is the diagonal; one pair fewer, and there is none.
        let n = 50;
        let p = Permutation::new(n).unwrap();
        let mut h = vec![f32::NEG_INFINITY; n * n];
        for i in 0..n {
            (0..=i).for_each(|j| h[i * n + j] = (i * 7 + j * 3) as f32 % 11.0);
        }
        let (mut z, mut scratch) = (vec![0; n], p.scratch());
        p.argmax(&h, &mut z, &mut scratch).unwrap();
        assert!(z.iter().enumerate().all(|(i, j)| i as u32 == *j));
        h[20 * n + 20] = f32::NEG_INFINITY;
        assert!(matches!(p.resolve(&h, &mut z, &mut scratch), Err(Error::Infeasible { .. })));
        assert!(matches!(p.argmax(&h, &mut z, &mut scratch), Err(Error::Infeasible { .. })));
        h[20 * n + 20] = 0.0;
        assert!(p.resolve(&h, &mut z, &mut scratch).is_ok());
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(Permutation::new(4097).is_err());
        assert!(Permutation::new(usize::MAX).is_err());
        let p = Permutation::new(2).unwrap();
        let (mut z, mut s) = ([0; 2], p.scratch());
        let nan = p.argmax(&[0.0, 0.0, f32::NAN, 0.0], &mut z, &mut s).unwrap_err();
        assert_eq!(nan, Error::NotANumber { what: "potential", index: 2 });
        p.argmax(&[0.0; 4], &mut z, &mut s).unwrap();
        let inf = p.resolve(&[0.0, f32::INFINITY, 0.0, 0.0], &mut z, &mut s).unwrap_err();
        assert_eq!(inf, Error::PositiveInfinity { what: "potential", index: 1 });
        assert!(argmax_batch(&p, &[0.0; 6], &mut [0; 4]).is_err());
        assert!(argmax_batch(&p, &[0.0; 8], &mut [0; 2]).is_err());
        let mut z = [0; 4];
        argmax_batch(&p, &[0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], &mut z).unwrap();
        assert_eq!(z, [1, 0, 0, 1]);
        let none = Permutation::new(0).unwrap();
        assert_eq!(none.argmax(&[], &mut [], &mut none.scratch()).unwrap().value, 0.0);
    }
}
