//! A permutation as a latent variable: a machine that learns to sort, from losses alone.
//!
//! The encoder is one weight per place. It scores element i at place j by `x_i weight_j`, and the arg max over all
//! permutations puts the elements into places. The decoder is the user's own: it reads the permutation matrix and says
//! how far the list that comes out is from the sorted one. Nobody differentiates through the arg max: direct optimisation
//! compares the permutation that was sampled with the one that the losses of its neighbours ask for.
//!
//!     cargo run --release -p gumbel --example sort

use gumbel::Error;
use gumbel::estimator::{Direct, Estimate, Inputs, Solvers};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{self, Permutation, argmax_batch};

/// Elements of a list.
const N: usize = 6;
/// Lists in a batch.
const BATCH: usize = 32;

/// The squared distance of the list that a code `[element, place]` makes of x from the sorted one.
fn loss(x: &[f32], sorted: &[f32], code: &[f32]) -> f32 {
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

/// Losses of the sampled permutations' neighbours, `[batch, N, N]`.
fn neighbour_losses(z: &Permutation, x: &[f32], sample: &[u32]) -> Vec<f32> {
    let rows = x.chunks(N).zip(sample.chunks(N));
    rows.flat_map(|(x, sample)| {
        let mut sorted = x.to_vec();
        sorted.sort_by(f32::total_cmp);
        structure::neighbour_losses(z, sample, |code| loss(x, &sorted, code))
    })
    .collect()
}

/// Learns for some steps; returns the weights and the share of new lists that they sort without a mistake.
pub fn run(steps: u64) -> Result<([f32; N], f64), Error> {
    let z = Permutation::new(N)?;
    let direct = Direct::new(0.5)?;
    let mut solvers = Solvers::default();
    let mut weight = [0.0; N]; // all permutations alike
    let (mut noise, mut sample) = (vec![0.0; BATCH * N * N], vec![0; BATCH * N]);
    for step in 0..steps {
        let x = lists(step);
        let h = potentials(&x, &weight);
        Noise::new(0, Purpose::Noise, step).gumbel(&mut noise);
        solvers.sample(&direct, &z, &h, &noise, &mut sample)?;
        let losses = neighbour_losses(&z, &x, &sample);
        let inputs = Inputs { potentials: &h, noise: &noise, assignment: &sample, losses: &losses };
        let mut gradient = vec![0.0; h.len()];
        solvers.estimate(&direct, &z, &inputs, &mut Estimate::new(&mut gradient, 1.0 / BATCH as f32))?;
        // Back into the encoder: potential (i, j) is x_i weight_j.
        for (x, row) in x.iter().zip(gradient.chunks(N)) {
            weight.iter_mut().zip(row).for_each(|(w, g)| *w -= x * g);
        }
    }
    // Without noise, on lists that it has not seen.
    let x = lists(u64::MAX);
    argmax_batch(&z, &potentials(&x, &weight), &mut sample)?;
    let sorts = |x: &[f32], places: &[u32]| {
        let mut out = [0.0; N];
        x.iter().zip(places).for_each(|(x, j)| out[*j as usize] = *x);
        out.is_sorted()
    };
    let right = x.chunks(N).zip(sample.chunks(N)).filter(|(x, places)| sorts(x, places)).count();
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
