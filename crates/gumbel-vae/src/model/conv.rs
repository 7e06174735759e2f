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
        self.heads.encode(self.convolve(images), dropout)
    }
}

impl ConvEncoder {
    /// To what the perceptrons read.
    fn convolve(&self, images: Tensor<2>) -> Tensor<2> {
        let ([rows, _], [height, width, channels]) = (images.dims(), self.shape);
        let mut x = images.reshape([rows, height, width, channels]).permute([0, 3, 1, 2]);
        for convolution in &self.convolutions {
            x = activation::leaky_relu(convolution.forward(x), LEAK);
        }
        let features = x.dims()[1..].iter().product();
        x.reshape([rows, features])
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

/// Faces, as Figure 5 has them, against loops that know nothing of tensors.
#[cfg(test)]
mod tests {
    use super::*;
    use gumbel::continuous::Continuous;
    use gumbel::estimator::Exact;
    use gumbel::likelihood::Logistic;
    use gumbel::registry::{Kind, Setting, Settings};
    use gumbel::structure::Categorical;
    use std::sync::Arc;

    const SIDE: usize = 64;

    const fn setting(name: &'static str, kind: Kind, default: &'static str) -> Setting {
        Setting { name, kind, default, value: "X", help: "of a test" }
    }

    const SETTINGS: [Setting; 9] = [
        setting("hidden", Kind::Text, "9"),
        setting("head", Kind::Text, "7"),
        setting("part", Kind::Whole(1, 100), "6"),
        setting("shared", Kind::Text, "5"),
        setting("decoder-hidden", Kind::Text, "10"),
        setting("leak", Kind::Real(|_| true, ""), "0.2"),
        setting("shared-leak", Kind::Real(|_| true, ""), "0.5"),
        setting("dropout", Kind::Real(|_| true, ""), "0.4"),
        setting("channels", Kind::Whole(1, 100), "2"),
    ];

    fn made() -> (ConvEncoder, ConvDecoder) {
        let settings = Settings::defaults(&SETTINGS);
        let options = ModelOptions {
            settings: &settings,
            shape: Shape { height: SIDE, width: SIDE, channels: 3 },
            binary: false,
            structure: Categorical::binary(3).unwrap().into(),
            continuous: Continuous::Joint(4),
            likelihood: Arc::new(Logistic),
            estimator: &Exact,
            batch: 2,
            samples: 1,
            lr: 1e-3,
            seed: 3,
            threads: 1,
            engine: "auto",
            device: "cpu",
        };
        let inputs = Inputs::new(options.continuous, &options.structure).unwrap();
        ConvEncoder::new(&options, &inputs, &device()).unwrap()
    }

    fn device() -> Device {
        crate::device("cpu").unwrap()
    }

    fn some(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).sin()).collect()
    }

    fn leaky(x: f64) -> f64 {
        if x < 0.0 { LEAK * x } else { x }
    }

    /// An image with its channels one after the other: channels, side, numbers.
    type Planes = (usize, usize, Vec<f64>);

    /// A convolution of the definition: stride 2, padding 1; back, every number is spread over sixteen.
    fn plain(conv: &Conv, (channels, side, x): &Planes) -> Planes {
        let (weight, bias) = (host::take(conv.weight.val()), host::take(conv.bias.val()));
        let (outs, to) = (bias.len(), if conv.transposed { 2 * side } else { side / 2 });
        let mut out: Vec<f64> = bias.iter().flat_map(|b| vec![f64::from(*b); to * to]).collect();
        let (wide, narrow) = if conv.transposed { (to, *side) } else { (*side, to) };
        for (o, c) in (0..outs).flat_map(|o| (0..*channels).map(move |c| (o, c))) {
            let kernel = if conv.transposed { c * outs + o } else { o * channels + c };
            for (row, column) in (0..narrow).flat_map(|r| (0..narrow).map(move |c| (r, c))) {
                for (i, j) in (0..KERNEL).flat_map(|i| (0..KERNEL).map(move |j| (i, j))) {
                    let (Some(y), Some(x_at)) = ((2 * row + i).checked_sub(1), (2 * column + j).checked_sub(1)) else {
                        continue;
                    };
                    if y >= wide || x_at >= wide {
                        continue;
                    }
                    let w = f64::from(weight[(kernel * KERNEL + i) * KERNEL + j]);
                    let (large, small) = (y * wide + x_at, row * narrow + column);
                    match conv.transposed {
                        true => out[o * to * to + large] += w * x[c * side * side + small],
                        false => out[o * to * to + small] += w * x[c * side * side + large],
                    }
                }
            }
        }
        (outs, to, out)
    }

    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
        assert!(largest > 0.1, "nothing to compare");
        let far = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
        assert!(far < 1e-4 * largest, "{far} of {largest}");
    }

    #[test]
    fn the_encoder_is_that_of_loops() {
        let (encoder, _) = made();
        let pixels = some(2 * 3 * SIDE * SIDE);
        let images: Tensor<2> = host::tensor(pixels.clone(), [2, 3 * SIDE * SIDE], &device().autodiff());
        let found = host::take(encoder.convolve(images));
        let mut expected = vec![];
        for image in pixels.chunks(3 * SIDE * SIDE) {
            // The channels of a pixel stand beside each other.
            let planes = (0..3).flat_map(|c| image.iter().skip(c).step_by(3).map(|x| f64::from(*x)));
            let mut x: Planes = (3, SIDE, planes.collect());
            for conv in &encoder.convolutions {
                x = plain(conv, &x);
                x.2.iter_mut().for_each(|x| *x = leaky(*x));
            }
            assert_eq!((x.0, x.1), (16, 4));
            expected.extend(x.2);
        }
        assert_close(&found, &expected);
    }

    #[test]
    fn the_decoder_is_that_of_loops() {
        let (_, decoder) = made();
        let numbers = some(2 * 16 * 16);
        let found = host::take(decoder.convolve(host::tensor(numbers.clone(), [2, 256], &device().autodiff())));
        let mut expected = vec![];
        for image in numbers.chunks(256) {
            let mut x: Planes = (16, 4, image.iter().map(|x| f64::from(*x)).collect());
            for conv in &decoder.convolutions {
                x.2.iter_mut().for_each(|x| *x = leaky(*x));
                x = plain(conv, &x);
            }
            // Means of all numbers, then log-scales; of each the channels of a pixel beside each other.
            assert_eq!((x.0, x.1), (2 * 3, SIDE));
            for output in 0..2 {
                for pixel in 0..SIDE * SIDE {
                    expected.extend((0..3).map(|c| x.2[(output * 3 + c) * SIDE * SIDE + pixel]));
                }
            }
        }
        assert_close(&found, &expected);
    }
}
