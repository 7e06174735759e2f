//! Encoders and decoders, and the multi-layer perceptron that is both.

use crate::host;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Change, Code};

/// Emits the potentials of a batch of images.
pub trait Encoder: Module {
    /// `[batch, pixels]` to potentials `[batch, P]`.
    fn potentials(&self, images: Tensor<2>) -> Tensor<2>;
}

/// Reads assignments, emits the logits of the pixels. It never sees the image.
///
/// What it reads of an assignment is its [code](gumbel::structure::Structure::encode), `[rows, U]` zeros and ones: one-hot
/// rows for variables with values; an indicator per element of a subset, edge of a spanning tree, `[row, column]` of a
/// permutation, `[parent, child]` of an arborescence.
pub trait Decoder: Module {
    /// Codes `[rows, U]` to Bernoulli logits `[rows, pixels]`.
    fn logits(&self, codes: Tensor<2>) -> Tensor<2>;

    /// Logits of all one-coordinate changes of a batch of codes `[batch, width]`, in the order of [`changes`].
    ///
    /// The default decodes every changed code in full. A decoder whose first layer is linear can do better: a change
    /// moves that layer by one row, or by the difference of two.
    fn neighbour_logits(&self, codes: &[f32], width: usize, kind: Code, device: &Device) -> Tensor<2> {
        let moves = changes(codes, width, kind);
        let mut changed = vec![0.0; moves.len() * width];
        for ((example, change), code) in moves.iter().zip(changed.chunks_exact_mut(width)) {
            code.copy_from_slice(&codes[example * width..][..width]);
            change.off.into_iter().for_each(|u| code[u] = 0.0);
            change.on.into_iter().for_each(|u| code[u] = 1.0);
        }
        self.logits(host::tensor(changed, [moves.len(), width], device))
    }

    /// A decoder that ends in a linear layer may give what goes into it and the layer: losses of many images at all
    /// states then cost less. The default has none.
    fn head(&self, _codes: Tensor<2>) -> Option<Head> {
        None
    }
}

/// The last layer of a decoder: `logits = features weight + bias`.
#[derive(Debug, Clone)]
pub struct Head {
    /// What goes in, `[rows, features]`.
    pub features: Tensor<2>,
    /// `[features, pixels]`.
    pub weight: Tensor<2>,
    /// `[pixels]`.
    pub bias: Tensor<1>,
}

impl Head {
    /// `[rows, pixels]`.
    pub fn logits(&self) -> Tensor<2> {
        burn::tensor::module::linear(self.features.clone(), self.weight.clone(), Some(self.bias.clone()))
    }
}

/// All one-coordinate changes of a batch of codes `[batch, width]`, with the examples that they belong to.
pub fn changes(codes: &[f32], width: usize, kind: Code) -> Vec<(usize, Change)> {
    let mut out = Vec::with_capacity(codes.len());
    for (example, code) in codes.chunks_exact(width).enumerate() {
        kind.for_each_change(code, |change| out.push((example, change)));
    }
    out
}

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

/// A multi-layer perceptron with ReLU between its layers: encoder and decoder of the paper.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
}

impl Mlp {
    /// Layers of the given widths, at least two. Weights and biases are uniform in ±1/sqrt(inputs); the numbers depend
    /// on `(seed, stream)` only. `device` is a plain device: parameters live on its autodiff side.
    pub fn new(widths: &[usize], seed: u64, stream: u64, device: &Device) -> Self {
        assert!(widths.len() >= 2, "a perceptron needs an input and an output width");
        let device = device.clone().autodiff();
        let layers = widths.windows(2).enumerate().map(|(l, pair)| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let bound = 1.0 / (inputs as f32).sqrt();
            let draw = |part: u64, len: usize| {
                let mut x = vec![0.0; len];
                Noise::new(seed, Purpose::Init, stream << 32 | (l as u64) << 1 | part).uniform(&mut x);
                x.iter_mut().for_each(|v| *v = (2.0 * *v - 1.0) * bound);
                x
            };
            let weight = host::tensor(draw(0, inputs * outputs), [inputs, outputs], &device).require_grad();
            let bias = host::tensor(draw(1, outputs), [outputs], &device).require_grad();
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
    fn potentials(&self, images: Tensor<2>) -> Tensor<2> {
        self.forward(images)
    }
}

impl Decoder for Mlp {
    fn logits(&self, codes: Tensor<2>) -> Tensor<2> {
        self.forward(codes)
    }

    /// The first layer is computed once per example and moved by its rows.
    fn neighbour_logits(&self, codes: &[f32], width: usize, kind: Code, device: &Device) -> Tensor<2> {
        let (batch, first) = (codes.len() / width, &self.layers[0]);
        let [_, hidden] = first.weight.dims();
        let base = first.forward(host::tensor(codes.to_vec(), [batch, width], device)).reshape([batch, 1, hidden]);
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
                first.weight.val().reshape([1, width, hidden]) * sign
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

/// A named parameter in host memory: how models are stored and exchanged between engines.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Path in the module, such as `layers.0.weight`.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

/// Reads all float parameters of a module in the order of its traversal.
pub fn parameters<M: Module>(module: &M) -> Vec<Named> {
    #[derive(Default)]
    struct Reader {
        path: Vec<String>,
        out: Vec<Named>,
    }
    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val().inner();
            let shape = tensor.dims().to_vec();
            self.out.push(Named { name: self.path.join("."), shape, values: host::read(tensor).to_vec() });
        }
    }
    let mut reader = Reader::default();
    module.visit(&mut reader);
    reader.out
}

/// Replaces all float parameters of a module by stored ones; `Err` names the first that does not fit.
pub fn with_parameters<M: Module>(module: M, stored: &[Named]) -> Result<M, String> {
    struct Writer<'a> {
        path: Vec<String>,
        stored: std::slice::Iter<'a, Named>,
        problem: Option<String>,
    }
    impl ModuleMapper for Writer<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (name, shape) = (self.path.join("."), param.dims());
            match self.stored.next() {
                Some(s) if s.name == name && s.shape == shape => param.map(|old| {
                    let new = host::tensor(s.values.clone(), shape, &old.device());
                    if old.is_require_grad() { new.require_grad() } else { new }
                }),
                found => {
                    let found = found.map_or("nothing".into(), |s| format!("{} {:?}", s.name, s.shape));
                    self.problem.get_or_insert(format!("{found} in place of parameter {name} {shape:?}"));
                    param
                }
            }
        }
    }
    let mut writer = Writer { path: vec![], stored: stored.iter(), problem: None };
    let module = module.map(&mut writer);
    match (writer.problem, writer.stored.next()) {
        (Some(problem), _) => Err(problem),
        (None, Some(extra)) => Err(format!("one parameter too many, {} {:?}", extra.name, extra.shape)),
        (None, None) => Ok(module),
    }
}
