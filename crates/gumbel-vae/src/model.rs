//! Encoders and decoders, and the multi-layer perceptron that is both.

use crate::host;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use gumbel::noise::{Noise, Purpose};

/// Emits the potentials of a batch of images.
pub trait Encoder: Module {
    /// `[batch, pixels]` to potentials `[batch, P]`.
    fn potentials(&self, images: Tensor<2>) -> Tensor<2>;
}

/// Reads assignments, emits the logits of the pixels. It never sees the image.
pub trait Decoder: Module {
    /// Codes (unary statistics of assignments, one-hot rows) `[rows, U]` to Bernoulli logits `[rows, pixels]`.
    fn logits(&self, codes: Tensor<2>) -> Tensor<2>;

    /// Logits of all one-coordinate changes of a batch of assignments of `variables` variables with `values` values:
    /// `[batch * variables * (values - 1), pixels]`, in the order of [`changes`].
    ///
    /// The default decodes every changed code in full. A decoder whose first layer is linear can do better: a change
    /// moves that layer by the difference of two rows.
    fn neighbour_logits(&self, assignment: &[u32], variables: usize, values: usize, device: &Device) -> Tensor<2> {
        let width = variables * values;
        let moves = changes(assignment, variables, values);
        let mut codes = vec![0.0; moves.len() * width];
        for (change, code) in moves.iter().zip(codes.chunks_exact_mut(width)) {
            let z = &assignment[change.example * variables..][..variables];
            z.iter().enumerate().for_each(|(i, z)| code[i * values + *z as usize] = 1.0);
            code[change.from] = 0.0;
            code[change.to] = 1.0;
        }
        self.logits(host::tensor(codes, [moves.len(), width], device))
    }
}

/// One changed variable of one example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Index in the batch.
    pub example: usize,
    /// Unary potential of the present value.
    pub from: usize,
    /// Unary potential of the new value.
    pub to: usize,
}

/// All one-coordinate changes of a batch of assignments `[batch, variables]`: by example, variable, new value.
pub fn changes(assignment: &[u32], variables: usize, values: usize) -> Vec<Change> {
    let mut out = Vec::with_capacity(assignment.len() * (values - 1));
    for (j, z) in assignment.iter().enumerate() {
        let (example, first) = (j / variables, j % variables * values);
        let others = (0..values).filter(|k| *k != *z as usize);
        out.extend(others.map(|k| Change { example, from: first + *z as usize, to: first + k }));
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

    fn after_first(&self, mut x: Tensor<2>) -> Tensor<2> {
        for layer in &self.layers[1..] {
            x = layer.forward(activation::relu(x));
        }
        x
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.after_first(self.layers[0].forward(x))
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

    /// The first layer is computed once per example and moved by the difference of two of its rows per change.
    fn neighbour_logits(&self, assignment: &[u32], variables: usize, values: usize, device: &Device) -> Tensor<2> {
        let (batch, moves) = (assignment.len() / variables, changes(assignment, variables, values));
        let per_example = variables * (values - 1);
        let first = &self.layers[0];
        let [_, width] = first.weight.dims();
        let mut codes = vec![0.0; batch * variables * values];
        for (j, z) in assignment.iter().enumerate() {
            codes[j * values + *z as usize] = 1.0;
        }
        let base = first.forward(host::tensor(codes, [batch, variables * values], device));
        let rows = |f: fn(&Change) -> usize| {
            let index: Vec<i64> = moves.iter().map(|c| f(c) as i64).collect();
            let index = Tensor::<1, Int>::from_data(TensorData::new(index, [moves.len()]), device);
            first.weight.val().select(0, index)
        };
        let moved =
            (rows(|c| c.to) - rows(|c| c.from)).reshape([batch, per_example, width]) + base.reshape([batch, 1, width]);
        self.after_first(moved.reshape([batch * per_example, width]))
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
