//! The multi-layer perceptron with ReLU between its layers: encoder and decoder of the paper.

use super::{Decoder, Encoded, Encoder, Head, changes};
use crate::host;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use gumbel::network;
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

/// A multi-layer perceptron with ReLU between its layers.
///
/// As a decoder it reads continuous samples behind the code: its first width is then U + C.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
}

impl Mlp {
    /// Layers of the given widths, at least two, with the initial parameters of [`network::perceptron`]: by convention
    /// stream 0 is the encoder's and stream 1 the decoder's. `device` is a plain device: parameters live on its
    /// autodiff side.
    pub fn new(widths: &[usize], seed: u64, stream: u64, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let mut named = network::perceptron(widths, seed, stream).into_iter();
        let mut next = || named.next().expect("every layer has a weight and a bias").values;
        let layers = widths.windows(2).map(|pair| {
            let weight = host::tensor(next(), [pair[0], pair[1]], &device).require_grad();
            let bias = host::tensor(next(), [pair[1]], &device).require_grad();
            Layer { weight: Param::initialized(ParamId::new(), weight), bias: Param::initialized(ParamId::new(), bias) }
        });
        Mlp { layers: layers.collect() }
    }

    /// The layers from the second to the `last`, exclusive, on the first one's output.
    fn after_first(&self, mut x: Tensor<2>, last: usize) -> Tensor<2> {
        for layer in &self.layers[1..last] {
            x = layer.forward(activation::relu(x));
        }
        x
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.after_first(self.layers[0].forward(x), self.layers.len())
    }
}

impl Encoder for Mlp {
    fn encode(&self, images: Tensor<2>) -> Encoded {
        self.forward(images).into()
    }
}

/// Codes with continuous samples behind them.
fn joined(codes: Tensor<2>, continuous: Option<Tensor<2>>) -> Tensor<2> {
    match continuous {
        None => codes,
        Some(samples) => Tensor::cat(vec![codes, samples], 1),
    }
}

impl Decoder for Mlp {
    fn outputs(&self, codes: Tensor<2>, continuous: Option<Tensor<2>>) -> Tensor<2> {
        self.forward(joined(codes, continuous))
    }

    /// The first layer is computed once per example and moved by its rows.
    fn neighbour_outputs(
        &self,
        codes: &[f32],
        width: usize,
        kind: Code,
        continuous: Option<Tensor<2>>,
        device: &Device,
    ) -> Tensor<2> {
        let (batch, first) = (codes.len() / width, &self.layers[0]);
        let [_, hidden] = first.weight.dims();
        let own = joined(host::tensor(codes.to_vec(), [batch, width], device), continuous);
        let base = first.forward(own).reshape([batch, 1, hidden]);
        let moves = match kind {
            Code::OneHot { .. } => {
                let moves = changes(codes, width, kind);
                let rows = |f: fn(&Change) -> Option<usize>| {
                    let index: Vec<i64> = moves.iter().filter_map(|(_, c)| Some(f(c)? as i64)).collect();
                    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [moves.len()]), device);
                    first.weight.val().select(0, index)
                };
                (rows(|c| c.on) - rows(|c| c.off)).reshape([batch, kind.changes(width), hidden])
            }
            Code::Indicators => {
                let sign = codes.iter().map(|c| 1.0 - 2.0 * c).collect();
                let sign: Tensor<3> = host::tensor(sign, [batch, width, 1], device);
                first.weight.val().slice([0..width, 0..hidden]).reshape([1, width, hidden]) * sign
            }
        };
        self.after_first((base + moves).reshape([batch * kind.changes(width), hidden]), self.layers.len())
    }

    fn head(&self, codes: Tensor<2>) -> Option<Head> {
        let (last, count) = (self.layers.last()?, self.layers.len());
        let features = match count {
            1 => codes,
            _ => activation::relu(self.after_first(self.layers[0].forward(codes), count - 1)),
        };
        Some(Head { features, weight: last.weight.val(), bias: last.bias.val() })
    }
}
