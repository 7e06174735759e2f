//! Persistency: variables whose value is certain whatever the undecided ones do.
//!
//! With gain `u_i = h_i(1) - h_i(0)`, the objective is `sum_i u_i z_i + sum_{i<j} w_ij z_i z_j`, `w >= 0`. Let One and
//! Zero be the variables fixed so far. What setting `z_i = 1` gains lies between
//!
//! ```text
//! u_i + low_i,  low_i  = sum_{j in One} w_ij       (all undecided variables are 0)
//! u_i + high_i, high_i = sum_{j not in Zero} w_ij  (all undecided variables are 1)
//! ```
//!
//! If the smaller is not negative, some optimum has `z_i = 1`; if the larger is not positive, some optimum has
//! `z_i = 0`. Fixing raises `low` or lowers `high` of the others; repeated until nothing changes, O(n^2) in all. What
//! remains undecided is the *core*; on it all ones and all zeros both are local optima, and a minimum cut decides.
//!
//! Every fixed variable keeps the sum that fixed it, in the order of fixing. After a change of gains the reasons are
//! checked in that order, O(n), and only what no longer holds is undone.

use super::{Pairs, Real, masked_sums};

/// What is known of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Undecided,
    One,
    Zero,
}

/// Fixed variables, the reasons for them, and the core.
#[derive(Debug, Default)]
pub(super) struct Closure {
    /// `u`, `[n]`; infinite where a value is forbidden.
    pub(super) gain: Vec<f64>,
    /// `low` and `high`, `[n]`: current for undecided variables, those of the moment of fixing for the others.
    pub(super) low: Vec<f64>,
    pub(super) high: Vec<f64>,
    pub(super) fate: Vec<Fate>,
    /// The undecided variables.
    pub(super) core: Vec<u32>,
    /// The fixed variables in the order of fixing, and the round of each variable, `[n]`.
    order: Vec<u32>,
    round: Vec<u32>,
    rounds: u32,
    /// Sums that were corrected since `start`; rounding errors accumulate there.
    corrections: usize,
    /// Work: 0/1 masks of One and of the undecided, `[n]`; lists of variables.
    masks: [Vec<f32>; 2],
    ones: Vec<u32>,
    zeros: Vec<u32>,
}

/// The round of an undecided variable.
const UNDECIDED: u32 = u32::MAX;

/// If more than one of so many variables must be undone, starting anew is sooner. Measured.
const UNDONE: usize = 8;

/// After this many corrections the sums are computed anew.
const MAX_CORRECTIONS: usize = 256;

impl Closure {
    /// Reads the gains of numbers without `+inf` and NaN; the error is a variable whose values are both forbidden.
    pub(super) fn read<T: Real>(&mut self, unary: &[T]) -> Result<(), usize> {
        self.gain.clear();
        self.gain.extend(unary.chunks_exact(2).map(|h| h[1].wide() - h[0].wide()));
        self.gain.iter().position(|u| u.is_nan()).map_or(Ok(()), Err)
    }

    /// Fixes what can be fixed, from nothing.
    pub(super) fn start<T: Real>(&mut self, pairs: Pairs<'_, T>) {
        self.order.clear();
        self.core.clear();
        self.fate.clear();
        self.round.clear();
        for (i, u) in self.gain.iter().enumerate() {
            let fate = match *u {
                u if u >= 0.0 => Fate::One,
                f64::NEG_INFINITY => Fate::Zero,
                _ => Fate::Undecided,
            };
            self.fate.push(fate);
            self.round.push(if fate == Fate::Undecided { UNDECIDED } else { 0 });
            if fate == Fate::Undecided { &mut self.core } else { &mut self.order }.push(i as u32);
        }
        self.rounds = 1;
        self.corrections = 0;
        self.sums(pairs);
        self.grow(pairs);
    }

    /// `low` and `high` of the undecided variables, in one pass over the rows of the weights.
    fn sums<T: Real>(&mut self, pairs: Pairs<'_, T>) {
        let n = self.gain.len();
        for (mask, of) in self.masks.iter_mut().zip([Fate::One, Fate::Undecided]) {
            mask.clear();
            mask.extend(self.fate.iter().map(|f| (*f == of) as u32 as f32));
        }
        for sums in [&mut self.low, &mut self.high] {
            sums.clear();
            sums.resize(n, 0.0);
        }
        // `high` collects the undecided at first. The halves below and above the diagonal: row i is added to the later
        // variables' sums, and summed up for variable i.
        let rows = if self.core.is_empty() { 0 } else { n };
        for i in 0..rows {
            let row = pairs.row(i);
            let later = match self.fate[i] {
                Fate::One => &mut self.low[i + 1..],
                Fate::Undecided => &mut self.high[i + 1..],
                Fate::Zero => continue,
            };
            later.iter_mut().zip(row).for_each(|(sum, w)| *sum += w.wide());
            if self.fate[i] == Fate::Undecided {
                let [one, undecided] = masked_sums(row, [&self.masks[0][i + 1..], &self.masks[1][i + 1..]]);
                self.low[i] += one;
                self.high[i] += undecided;
            }
        }
        for (i, fate) in self.fate.iter().enumerate() {
            match fate {
                Fate::Undecided => self.high[i] += self.low[i],
                // The first round needs no reasons but the gain: its sign, and that it is infinite.
                Fate::One => self.low[i] = 0.0,
                Fate::Zero => self.high[i] = f64::MAX,
            }
        }
    }

    /// Fixes variables until nothing changes.
    fn grow<T: Real>(&mut self, pairs: Pairs<'_, T>) {
        let Closure { gain, low, high, fate, core, order, round, ones, zeros, .. } = self;
        loop {
            ones.clear();
            zeros.clear();
            core.retain(|&v| {
                let i = v as usize;
                if gain[i] + low[i] >= 0.0 {
                    fate[i] = Fate::One;
                    ones.push(v);
                } else if gain[i] + high[i] <= 0.0 {
                    fate[i] = Fate::Zero;
                    zeros.push(v);
                } else {
                    return true;
                }
                round[i] = self.rounds;
                order.push(v);
                false
            });
            self.rounds += 1;
            if core.is_empty() || (ones.is_empty() && zeros.is_empty()) {
                return;
            }
            for &v in core.iter() {
                let i = v as usize;
                low[i] += ones.iter().map(|&j| pairs.weight(i, j as usize)).sum::<f64>();
                high[i] -= zeros.iter().map(|&j| pairs.weight(i, j as usize)).sum::<f64>();
            }
        }
    }

    /// Fixes what can be fixed, from what was fixed for other gains.
    pub(super) fn replay(&mut self, pairs: Pairs<'_>) {
        let n = self.gain.len();
        let Closure { gain, low, high, fate, core, order, round, ones: undone, .. } = self;
        let holds = |i: usize, fate: Fate, low: &[f64], high: &[f64]| match fate {
            Fate::One => gain[i] + low[i] >= 0.0,
            _ => gain[i] + high[i] <= 0.0,
        };
        // Those broken already; to undo them will break others.
        let broken = order.iter().map(|i| *i as usize).filter(|&i| !holds(i, fate[i], low, high)).count();
        if broken > n / UNDONE {
            return self.start(pairs);
        }
        undone.clear();
        for k in 0..order.len() {
            let i = order[k] as usize;
            let was = fate[i];
            if holds(i, was, low, high) {
                continue;
            }
            self.corrections += 1;
            if undone.len() > n / UNDONE || self.corrections > MAX_CORRECTIONS {
                return self.start(pairs);
            }
            // Those fixed later counted on it, and so do the undecided.
            let then = round[i];
            for &j in order[k + 1..].iter().chain(core.iter()) {
                let j = j as usize;
                if round[j] > then {
                    let w = pairs.weight(i, j);
                    if was == Fate::One { low[j] -= w } else { high[j] += w }
                }
            }
            (fate[i], round[i]) = (Fate::Undecided, UNDECIDED);
            undone.push(i as u32);
        }
        if undone.is_empty() && core.is_empty() {
            return;
        }
        order.retain(|&i| fate[i as usize] != Fate::Undecided);
        for &v in undone.iter() {
            let i = v as usize;
            let mut sums = [0.0; 2];
            pairs.of(i, |j, w| {
                // Products, since branches could not be predicted here.
                sums[0] += w * (fate[j] == Fate::One) as u32 as f64;
                sums[1] += w * (fate[j] != Fate::Zero) as u32 as f64;
            });
            [low[i], high[i]] = sums;
        }
        core.extend(undone.iter());
        core.sort_unstable();
        self.grow(pairs);
    }
}
