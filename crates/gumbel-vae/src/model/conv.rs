//! Convolutions of stride 2 around the perceptrons of a mixed model: for images of any number of channels whose sides
//! can be halved.
//!
//! The encoder halves an image while its sides are even and longer than four, 64 to 4 and 28 to 7, each time with
//! kernels of 4 x 4 and twice the channels; what is left is what the perceptrons of [`MixedMlp`] read. The decoder goes
//! the same way back. There is no normalisation: what an image becomes does not depend on the others of its batch.

use super::{Decoder, Encoded, Encoder, MixedMlp, Mlp};
use crate::host;
use burn::module::{Module, Param, ParamId};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Device, Tensor, activation, module};
use gumbel::Error;
use gumbel::continuous::Inputs;
use gumbel::engine::{ModelOptions, Shape};
use gumbel::network::{MixedWidths, perceptron};
use gumbel::noise::Noise;
use gumbel::structure::Structure;

/// Side of a kernel: with stride 2 and padding 1 it halves exactly.
const KERNEL: usize = 4;
/// Slope of the rectifiers between convolutions where they are negative.
const LEAK: f64 = 0.2;

/// A convolution of stride 2, or the transposed one.
#[derive(Module, Debug)]
struct Conv {
    /// `[out, in, 4, 4]`, of a transposed one `[in, out, 4, 4]`.
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    transposed: bool,
}

impl Conv {
    /// Weights uniform with the variance that keeps that of rectified signals (He et al., ICCV 2015), biases uniform in
    /// ±1/sqrt(inputs).
    fn new([from, to]: [usize; 2], transposed: bool, seed: u64, stream: u64, device: &Device) -> Self {
        // Each output of a transposed one sees every second row and column of a kernel.
        let inputs = from * KERNEL * KERNEL / if transposed { 4 } else { 1 };
        let outputs = to * if transposed { 4 } else { 1 };
        let [weight, bias] = <[_; 2]>::try_from(perceptron(&[inputs, outputs], seed, stream)).expect("one layer");
        let scale = (6.0 / (1.0 + LEAK * LEAK)).sqrt() as f32;
        let weight = weight.values.iter().map(|w| w * scale).collect();
        let device = device.clone().autodiff();
        let shape = if transposed { [from, to, KERNEL, KERNEL] } else { [to, from, KERNEL, KERNEL] };
        let weight: Tensor<4> = host::tensor(weight, shape, &device).require_grad();
        let bias: Tensor<1> = host::tensor(bias.values[..to].to_vec(), [to], &device).require_grad();
        let (weight, bias) = (Param::initialized(ParamId::new(), weight), Param::initialized(ParamId::new(), bias));
        Conv { weight, bias, transposed }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), Some(self.bias.val()));
        match self.transposed {
            false => module::conv2d(x, weight, bias, ConvOptions::new([2, 2], [1, 1], [1, 1], 1)),
            true => {
                let options = ConvTransposeOptions::new([2, 2], [1, 1], [0, 0], [1, 1], 1);
                module::conv_transpose2d(x, weight, bias, options)
            }
        }
    }
}

/// Channels on the way from an image to its least size, `[image, first, ...]`, and that size.
fn levels(shape: Shape, first: usize) -> Result<(Vec<usize>, [usize; 2]), Error> {
    let (mut channels, mut sides) = (vec![shape.channels], [shape.height, shape.width]);
    while sides.iter().all(|s| s % 2 == 0 && *s > 4) {
        sides = sides.map(|s| s / 2);
        channels.push(first << (channels.len() - 1));
    }
    match channels.len() {
        1 => {
            let found = format!("images of {} x {}", shape.height, shape.width);
            Err(Error::setting("model", "conv", format!("images of even sides beyond 4, found {found}")))
        }
        _ => Ok((channels, sides)),
    }
}

/// Convolutions, then perceptrons.
#[derive(Module, Debug)]
pub struct ConvEncoder {
    convolutions: Vec<Conv>,
    heads: MixedMlp,
    shape: [usize; 3],
}

/// A perceptron, then transposed convolutions.
#[derive(Module, Debug)]
pub struct ConvDecoder {
    first: Mlp,
    convolutions: Vec<Conv>,
    /// Channels, height and width where the convolutions begin.
    start: [usize; 3],
    /// Outputs of a number.
    outputs: usize,
}

impl ConvEncoder {
    /// The encoder and the decoder of a model's options, with settings `channels` (of the first convolution) and those
    /// of [`MixedWidths`]. `device` is a plain device.
    ///
    /// # Errors
    /// Images that cannot be halved, sizes that cannot be.
    pub fn new(options: &ModelOptions<'_>, inputs: &Inputs, device: &Device) -> Result<(Self, ConvDecoder), Error> {
        let (shape, seed) = (options.shape, options.seed);
        let (channels, sides) = levels(shape, options.settings.whole("channels") as usize)?;
        let last = *channels.last().expect("the image's at least");
        let features = last * sides[0] * sides[1];
        let widths = MixedWidths::between(options, inputs, features, features)?;
        debug_assert_eq!(*widths.head.last().expect("potentials"), options.structure.potentials());
        let (heads, first) = MixedMlp::new(&widths, seed, device);
        let stream = |level: usize| 16 + level as u64;
        let pairs = || channels.windows(2).map(|pair| [pair[0], pair[1]]).enumerate();
        let down = pairs().map(|(l, pair)| Conv::new(pair, false, seed, stream(l), device)).collect();
        let outputs = options.likelihood.outputs();
        let up = pairs().rev().map(|(l, [to, from])| {
            let to = if l == 0 { to * outputs } else { to };
            Conv::new([from, to], true, seed, stream(channels.len() + l), device)
        });
        let decoder = ConvDecoder { first, convolutions: up.collect(), start: [last, sides[0], sides[1]], outputs };
        let encoder = ConvEncoder { convolutions: down, heads, shape: [shape.height, shape.width, shape.channels] };
        Ok((encoder, decoder))
    }
}

impl Encoder for ConvEncoder {
    fn encode(&self, images: Tensor<2>, dropout: Option<&Noise>) -> Encoded {
        let ([rows, _], [height, width, channels]) = (images.dims(), self.shape);
        let mut x = images.reshape([rows, height, width, channels]).permute([0, 3, 1, 2]);
        for convolution in &self.convolutions {
            x = activation::leaky_relu(convolution.forward(x), LEAK);
        }
        let features = x.dims()[1..].iter().product();
        self.heads.encode(x.reshape([rows, features]), dropout)
    }
}

impl ConvDecoder {
    /// From the perceptron's output.
    fn convolve(&self, x: Tensor<2>) -> Tensor<2> {
        let ([rows, _], [channels, height, width]) = (x.dims(), self.start);
        let mut x = x.reshape([rows, channels, height, width]);
        for convolution in &self.convolutions {
            x = convolution.forward(activation::leaky_relu(x, LEAK));
        }
        let [_, channels, height, width] = x.dims();
        let channels = channels / self.outputs;
        let x = x.reshape([rows, self.outputs, channels, height, width]).permute([0, 1, 3, 4, 2]);
        x.reshape([rows, self.outputs * channels * height * width])
    }
}

impl Decoder for ConvDecoder {
    fn outputs(&self, inputs: Tensor<2>) -> Tensor<2> {
        self.convolve(self.first.outputs(inputs))
    }

    fn neighbour_outputs(
        &self,
        inputs: &[f32],
        width: usize,
        unary: usize,
        kind: gumbel::structure::Code,
        device: &Device,
    ) -> Tensor<2> {
        self.convolve(self.first.neighbour_outputs(inputs, width, unary, kind, device))
    }

    fn block_outputs(&self, samples: Tensor<2>, blocks: usize) -> Tensor<2> {
        self.convolve(self.first.block_outputs(samples, blocks))
    }
}
