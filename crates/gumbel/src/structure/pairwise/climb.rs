//! Good states with another value of each variable, by climbs of single changes and, where none gains, of two at once:
//! what every single one gains is kept up to date.

use super::super::MaxMarginals;
use super::super::moves::LEVEL;

/// [`Structure::max_marginals`](super::super::Structure::max_marginals) of finite potentials.
#[inline(always)]
pub(super) fn all(n: usize, potentials: &[f32], assignment: &[u32], found: &mut MaxMarginals) {
    found.begin(assignment, 2);
    let mut numbers = std::mem::take(&mut found.numbers);
    numbers.clear();
    numbers.resize(n * n + 4 * n, 0.0);
    let (w, rest) = numbers.split_at_mut(n * n);
    let (start, rest) = rest.split_at_mut(n);
    let (field, rest) = rest.split_at_mut(n);
    let (start_signs, signs) = rest.split_at_mut(n);
    let (unary, mut pairs) = potentials.split_at(2 * n);
    for i in 0..n {
        let (row, rest) = pairs.split_at(n - i - 1);
        pairs = rest;
        for (j, weight) in (i + 1..).zip(row) {
            w[i * n + j] = *weight as f64;
            w[j * n + i] = *weight as f64;
        }
    }
    // What value 1 gains over 0 beside the others; a change gains it or loses it.
    for i in 0..n {
        start[i] = unary[2 * i + 1] as f64 - unary[2 * i] as f64;
        start_signs[i] = if assignment[i] == 0 { 1.0 } else { -1.0 };
    }
    for (row, z) in w.chunks_exact(n.max(1)).zip(assignment) {
        if *z == 1 {
            start.iter_mut().zip(row).for_each(|(s, w)| *s += w);
        }
    }
    found.each(|variable, z| {
        field.copy_from_slice(start);
        signs.copy_from_slice(start_signs);
        let mut flip = |j: usize, field: &mut [f64], signs: &mut [f64]| {
            let sign = signs[j];
            let gain = sign * field[j];
            field.iter_mut().zip(&w[j * n..][..n]).for_each(|(f, w)| *f += sign * w);
            signs[j] = -sign;
            z[j] = (sign > 0.0) as u32;
            gain
        };
        let mut total = flip(variable, field, signs);
        // Every change gains, so that it ends; no climb is that long.
        for _ in 0..4 * n {
            let (gain, j) = single(variable, field, signs);
            if gain > LEVEL {
                total += flip(j, field, signs);
                continue;
            }
            let (gain, [j, k]) = double(variable, field, signs, w);
            if gain <= LEVEL {
                break;
            }
            total += flip(j, field, signs) + flip(k, field, signs);
        }
        total
    });
    found.numbers = numbers;
    found.share();
}

/// The largest gain of a change of another variable.
#[inline(always)]
fn single(fixed: usize, field: &[f64], signs: &[f64]) -> (f64, usize) {
    let mut best = (f64::NEG_INFINITY, 0);
    for (j, (f, s)) in field.iter().zip(signs).enumerate() {
        if f * s > best.0 && j != fixed {
            best = (f * s, j);
        }
    }
    best
}

/// The largest gain of a change of two other variables together: that of both alone, and their coupling if one comes
/// to stand beside the other.
#[inline(always)]
fn double(fixed: usize, field: &[f64], signs: &[f64], w: &[f64]) -> (f64, [usize; 2]) {
    let n = field.len();
    let mut best = (f64::NEG_INFINITY, [0, 0]);
    for j in (0..n).filter(|j| *j != fixed) {
        let (own, sign) = (field[j] * signs[j], signs[j]);
        let mut most = (f64::NEG_INFINITY, 0);
        for k in 0..j {
            let gain = signs[k] * (field[k] + sign * w[j * n + k]);
            if gain > most.0 && k != fixed {
                most = (gain, k);
            }
        }
        if own + most.0 > best.0 {
            best = (own + most.0, [j, most.1]);
        }
    }
    best
}
