//! A permutation as a latent variable: a machine that learns to sort, from losses alone.
//!
//! The encoder is one weight per place. It scores element i at place j by `x_i weight_j`, and the arg max over all
//! permutations puts the elements into places. The decoder is the user's own: it reads the permutation matrix and says
//! how far the list that comes out is from the sorted one. Nobody differentiates through the arg max: direct
//! optimisation compares the permutation that was sampled with the one that the losses of its neighbours ask for.
//!
//!     cargo run --release -p gumbel --example sort

use gumbel::Error;
use gumbel::estimator::{Direct, Memory, estimate_with};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::Closure;
use gumbel::structure::{Permutation, argmax_batch};

/// Elements of a list.
const N: usize = 6;
/// Lists in a batch.
const BATCH: usize = 32;

/// The squared distance of the list that a code `[element, place]` makes of x from the sorted one.
fn loss(x: &[f32], code: &[f32]) -> f32 {
    let mut sorted = [0.0; N];
    sorted.copy_from_slice(x);
    sorted.sort_by(f32::total_cmp);
    let place = |j: usize| (0..N).map(|i| code[i * N + j] * x[i]).sum::<f32>();
    (0..N).map(|j| (place(j) - sorted[j]).powi(2)).sum()
}

/// Lists of numbers between -1 and 1, `[batch, N]`.
fn lists(index: u64) -> Vec<f32> {
    let mut x = vec![0.0; BATCH * N];
    Noise::new(0, Purpose::User(1), index).uniform(&mut x);
    x.iter_mut().for_each(|x| *x = 2.0 * *x - 1.0);
    x
}

/// Potentials `[batch, N, N]`: element i at place j.
fn potentials(x: &[f32], weight: &[f32; N]) -> Vec<f32> {
    x.iter().flat_map(|x| weight.iter().map(move |w| x * w)).collect()
}

/// Learns for some steps; returns the weights and the share of new lists that they sort without a mistake.
pub fn run(steps: u64) -> Result<([f32; N], f64), Error> {
    let z = Permutation::new(N)?;
    let (direct, mut memory) = (Direct::new(0.5)?, Memory::default());
    let mut weight = [0.0; N]; // all permutations alike
    let mut noise = vec![0.0; BATCH * N * N];
    for step in 0..steps {
        let x = lists(step);
        Noise::new(0, Purpose::Noise, step).gumbel(&mut noise);
        let mut decoder = Closure::new(&z, |b, code| loss(&x[b * N..][..N], code));
        let found = estimate_with(&direct, &z, &potentials(&x, &weight), &noise, &mut decoder, &mut memory)?;
        // Back into the encoder: potential (i, j) is x_i weight_j, and the batch counts with its mean.
        for (x, row) in x.iter().zip(found.gradient.chunks(N)) {
            weight.iter_mut().zip(row).for_each(|(w, g)| *w -= x * g / BATCH as f32);
        }
    }
    // Without noise, on lists that it has not seen.
    let (x, mut places) = (lists(u64::MAX), vec![0; BATCH * N]);
    argmax_batch(&z, &potentials(&x, &weight), &mut places)?;
    let sorts = |x: &[f32], places: &[u32]| {
        let mut out = [0.0; N];
        x.iter().zip(places).for_each(|(x, j)| out[*j as usize] = *x);
        out.is_sorted()
    };
    let right = x.chunks(N).zip(places.chunks(N)).filter(|(x, places)| sorts(x, places)).count();
    Ok((weight, right as f64 / BATCH as f64))
}

#[allow(dead_code, reason = "a test includes this file")]
fn main() -> Result<(), Error> {
    for steps in [0, 10, 100, 1000] {
        let (weight, right) = run(steps)?;
        println!("after {steps:4} steps: weights {weight:6.2?}, {:5.1}% of new lists are sorted", 100.0 * right);
    }
    Ok(())
}
