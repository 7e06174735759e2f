//! The multi-layer perceptron: encoder and decoder of the paper.

use super::{Decoder, Encoded, Encoder, Head, changes};
use crate::host;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use gumbel::network::{self, Named};
use gumbel::noise::Noise;
use gumbel::structure::{Change, Code};

/// A fully connected layer, `x W + b`.
#[derive(Module, Debug)]
pub struct Layer {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Layer {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        burn::tensor::module::linear(x, self.weight.val(), Some(self.bias.val()))
    }
}

/// A multi-layer perceptron with rectifiers between its layers: ReLU, or with a slope where they are negative.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
    /// The slope.
    leak: f64,
}

impl Mlp {
    /// Layers of the given widths, at least two, with the initial parameters of [`network::perceptron`]: by convention
    /// stream 0 is the encoder's and stream 1 the decoder's. `device` is a plain device: parameters live on its
    /// autodiff side.
    pub fn new(widths: &[usize], seed: u64, stream: u64, device: &Device) -> Self {
        Mlp::from_parameters(network::perceptron(widths, seed, stream), device)
    }

    /// Layers with given parameters, in the order of [`network::perceptron`].
    pub(crate) fn from_parameters(named: Vec<Named>, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let (mut layers, mut named) = (vec![], named.into_iter());
        while let (Some(weight), Some(bias)) = (named.next(), named.next()) {
            let shape = [weight.shape[0], weight.shape[1]];
            let weight = host::tensor(weight.values, shape, &device).require_grad();
            let bias = host::tensor(bias.values, [shape[1]], &device).require_grad();
            let (weight, bias) = (Param::initialized(ParamId::new(), weight), Param::initialized(ParamId::new(), bias));
            layers.push(Layer { weight, bias });
        }
        Mlp { layers, leak: 0.0 }
    }

    /// The same with a slope of the rectifiers where they are negative.
    pub fn with_leak(self, leak: f32) -> Self {
        Mlp { leak: f64::from(leak), ..self }
    }

    fn activation(&self, x: Tensor<2>) -> Tensor<2> {
        if self.leak == 0.0 { activation::relu(x) } else { activation::leaky_relu(x, self.leak) }
    }

    /// The layers from the second to the `last`, exclusive, on the first one's output.
    fn after_first(&self, mut x: Tensor<2>, last: usize) -> Tensor<2> {
        for layer in &self.layers[1..last] {
            x = layer.forward(self.activation(x));
        }
        x
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.after_first(self.layers[0].forward(x), self.layers.len())
    }

    /// The same with a mask `[rows, width]` on what goes into the last layer: of a single layer, on what it reads.
    pub(crate) fn masked(&self, x: Tensor<2>, mask: impl FnOnce([usize; 2]) -> Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        let mut x = x;
        if last > 0 {
            x = self.activation(self.after_first(self.layers[0].forward(x), last));
        }
        let mask = mask(x.dims());
        self.layers[last].forward(x * mask)
    }
}

impl Encoder for Mlp {
    fn encode(&self, images: Tensor<2>, _dropout: Option<&Noise>) -> Encoded {
        self.forward(images).into()
    }
}

impl Decoder for Mlp {
    fn outputs(&self, inputs: Tensor<2>) -> Tensor<2> {
        self.forward(inputs)
    }

    /// The first layer is computed once per example and moved by its rows.
    fn neighbour_outputs(&self, inputs: &[f32], width: usize, unary: usize, kind: Code, device: &Device) -> Tensor<2> {
        let (batch, first) = (inputs.len() / width, &self.layers[0]);
        let [_, hidden] = first.weight.dims();
        let own = host::tensor(inputs.to_vec(), [batch, width], device);
        let base = first.forward(own).reshape([batch, 1, hidden]);
        let moves = match kind {
            Code::OneHot { .. } => {
                let moves = changes(inputs, width, unary, kind);
                let rows = |f: fn(&Change) -> Option<usize>| {
                    let index: Vec<i64> = moves.iter().filter_map(|(_, c)| Some(f(c)? as i64)).collect();
                    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [moves.len()]), device);
                    first.weight.val().select(0, index)
                };
                (rows(|c| c.on) - rows(|c| c.off)).reshape([batch, kind.changes(unary), hidden])
            }
            Code::Indicators => {
                let codes = inputs.chunks_exact(width).flat_map(|input| &input[..unary]);
                let sign = codes.map(|c| 1.0 - 2.0 * c).collect();
                let sign: Tensor<3> = host::tensor(sign, [batch, unary, 1], device);
                first.weight.val().slice([0..unary, 0..hidden]).reshape([1, unary, hidden]) * sign
            }
        };
        self.after_first((base + moves).reshape([batch * kind.changes(unary), hidden]), self.layers.len())
    }

    /// Of each block the first layer has D rows only.
    fn block_outputs(&self, samples: Tensor<2>, blocks: usize) -> Tensor<2> {
        let ([rows, width], first) = (samples.dims(), &self.layers[0]);
        let ([_, hidden], dim) = (first.weight.dims(), width / blocks);
        let samples = samples.reshape([rows, blocks, dim]).swap_dims(0, 1);
        let products = samples.matmul(first.weight.val().reshape([blocks, dim, hidden]));
        let products = products.swap_dims(0, 1).reshape([rows * blocks, hidden]) + first.bias.val().unsqueeze_dim(0);
        self.after_first(products, self.layers.len())
    }

    fn head(&self, codes: Tensor<2>) -> Option<Head> {
        let (last, count) = (self.layers.last()?, self.layers.len());
        let features = match count {
            1 => codes,
            _ => self.activation(self.after_first(self.layers[0].forward(codes), count - 1)),
        };
        Some(Head { features, weight: last.weight.val(), bias: last.bias.val() })
    }
}
