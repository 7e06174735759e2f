//! Losses of images at every state: the decoder does not see the image, so its outputs for all states are computed once
//! and serve all images.
//!
//! With a linear likelihood, `loss[b, s] = loss(T_s, 0) - <x_b, T_s> + c(x_b) - c(0)` for the outputs T, where
//! `loss(T_s, 0)` is that of a black image: a matrix product. Where T is the product of `features[s]` and the weight W
//! of a last layer, `<x_b, T_s> = <W x_b, features_s> + <x_b, bias>`: T itself is needed for the losses of the black
//! image only, a block of states at a time, and the product is over the width of the layer instead of the pixels. With
//! any other likelihood, T is kept and read for every image.

use crate::host::{self, Host};
use crate::model::{Decoder, Head};
use burn::tensor::{Device, Tensor};
use gumbel::likelihood::Likelihood;
use gumbel::structure::Structure;
use rayon::prelude::*;

/// The largest |Z| of a table; a loss is computed for every image and state.
pub(crate) const MAX_STATES: usize = 1 << 16;

/// States decoded at a time.
const BLOCK: usize = 4096;

/// Decoder outputs for all states.
pub(crate) struct StateTable {
    states: usize,
    kept: Kept,
}

enum Kept {
    /// Of a linear likelihood.
    Linear(Box<Linear>),
    /// Of any other: T, `[states, pixels]`, a block at a time.
    Outputs(Vec<Host>),
}

struct Linear {
    /// T, or what the last layer makes it of: `[states, pixels]` or `[states, features]`.
    features: Tensor<2>,
    /// The last layer: `[features, pixels]` and `[pixels]`.
    layer: Option<(Tensor<2>, Tensor<1>)>,
    /// Losses of a black image `[states]`.
    black: Vec<f32>,
}

/// The number of states of a latent with a table: one variable with values, or as many states as are enumerated.
pub(crate) fn states<S: Structure>(structure: &S) -> Option<usize> {
    match structure.is_single() {
        true => Some(structure.unary()),
        false => structure.states().filter(|s| *s <= MAX_STATES),
    }
}

/// Codes `[states, U]` of a range of states.
pub(crate) fn codes<S: Structure>(structure: &S, states: std::ops::Range<usize>) -> Vec<f32> {
    let (mut z, width) = (vec![0; structure.variables()], structure.unary());
    let mut codes = vec![0.0; states.len() * width];
    for (s, code) in states.zip(codes.chunks_exact_mut(width)) {
        structure.state(s, &mut z);
        structure.encode(&z, code);
    }
    codes
}

impl StateTable {
    /// Decodes all `states` with a decoder that records nothing.
    pub(crate) fn new<D: Decoder, S: Structure>(
        decoder: &D,
        structure: &S,
        likelihood: &dyn Likelihood,
        states: usize,
        device: &Device,
    ) -> Self {
        let width = structure.unary();
        let blocks = (0..states).step_by(BLOCK).map(|start| {
            let block = start..states.min(start + BLOCK);
            let codes = codes(structure, block.clone());
            host::tensor(codes, [block.len(), width], device)
        });
        if !likelihood.is_linear() {
            let outputs = blocks.map(|codes| host::read(decoder.outputs(codes))).collect();
            return StateTable { states, kept: Kept::Outputs(outputs) };
        }
        let mut black = vec![0.0; states];
        let (mut parts, mut last) = (vec![], None);
        for (codes, black) in blocks.zip(black.chunks_mut(BLOCK)) {
            let head = decoder.head(codes.clone());
            let outputs = head.as_ref().map_or_else(|| decoder.outputs(codes), Head::outputs);
            let [_, pixels] = outputs.dims();
            let values = host::read(outputs.clone());
            likelihood.losses(&values, &vec![0.0; pixels], black.len(), black);
            parts.push(head.as_ref().map_or(outputs, |h| h.features.clone()));
            last = head;
        }
        let layer = last.map(|h| (h.weight, h.bias));
        let features = Tensor::cat(parts, 0);
        StateTable { states, kept: Kept::Linear(Box::new(Linear { features, layer, black })) }
    }

    /// Losses `[batch, states]` of images `[batch, pixels]`, which are also `x` on the plain device.
    pub(crate) fn losses(&self, likelihood: &dyn Likelihood, images: &[f32], x: Tensor<2>) -> Vec<f32> {
        let ([batch, pixels], states) = (x.dims(), self.states);
        match &self.kept {
            Kept::Linear(linear) => {
                let Linear { features, layer, black } = &**linear;
                let (mut constants, mut of_black) = (vec![0.0; batch], [0.0]);
                likelihood.constants(images, &mut constants);
                likelihood.constants(&vec![0.0; pixels], &mut of_black);
                constants.iter_mut().for_each(|c| *c -= of_black[0]);
                let features = features.clone().transpose();
                let products = match layer.clone() {
                    None => x.matmul(features),
                    Some((weight, bias)) => {
                        let of_bias = host::read(x.clone().matmul(bias.unsqueeze_dim(1)));
                        constants.iter_mut().zip(of_bias.iter()).for_each(|(c, b)| *c -= b);
                        x.matmul(weight.transpose()).matmul(features)
                    }
                };
                let mut losses = host::take(products);
                losses.par_chunks_mut(states).zip(&constants).for_each(|(row, constant)| {
                    row.iter_mut().zip(black).for_each(|(p, s)| *p = s + constant - *p);
                });
                losses
            }
            Kept::Outputs(outputs) => {
                let mut losses = vec![0.0; batch * states];
                for (row, image) in losses.chunks_exact_mut(states).zip(images.chunks_exact(pixels)) {
                    for (losses, outputs) in row.chunks_mut(BLOCK).zip(outputs) {
                        likelihood.losses(outputs, image, losses.len(), losses);
                    }
                }
                losses
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mlp;
    use crate::testing::{Gaussian, Quartic};
    use burn::module::Module;
    use gumbel::likelihood::Bernoulli;
    use gumbel::noise::{Noise, Purpose};
    use gumbel::structure::{AnyStructure, Categorical, Pairwise, Subset};

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut x = vec![0.0; len];
        Noise::new(seed, Purpose::User(0), 0).zero_mean_gumbel(&mut x);
        x
    }

    #[test]
    fn losses_of_all_states_are_those_of_plain_decoding() {
        let device = Device::flex();
        let (batch, pixels) = (3, 29);
        let x: Vec<f32> = random(batch * pixels, 3).iter().map(|v| (*v > 0.0) as u8 as f32).collect();
        let structures: [AnyStructure; 4] = [
            Categorical::new(6).unwrap().into(),
            Pairwise::new(5).unwrap().into(),
            Subset::new(6, 2).unwrap().into(),
            Categorical::binary(13).unwrap().into(), // more than one block of states
        ];
        let likelihoods: [&dyn Likelihood; 3] = [&Bernoulli, &Gaussian, &Quartic];
        for (structure, likelihood) in structures.iter().flat_map(|s| likelihoods.map(|l| (s, l))) {
            for hidden in [&[][..], &[7], &[40, 31]] {
                let widths = [&[structure.unary()], hidden, &[pixels]].concat();
                let decoder = Mlp::new(&widths, 1, 1, &device).valid();
                let states = states(structure).unwrap();
                let table = StateTable::new(&decoder, structure, likelihood, states, &device);
                let found = table.losses(likelihood, &x, host::tensor(x.clone(), [batch, pixels], &device));
                let all = codes(structure, 0..states);
                let outputs = decoder.outputs(host::tensor(all, [states, structure.unary()], &device));
                let outputs = host::read(outputs);
                for (x, found) in x.chunks(pixels).zip(found.chunks(states)) {
                    let mut expected = vec![0.0; states];
                    likelihood.losses(&outputs, x, states, &mut expected);
                    let near = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4);
                    assert!(near, "{}", likelihood.name());
                }
            }
        }
    }
}
