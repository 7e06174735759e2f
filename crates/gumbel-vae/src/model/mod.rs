//! Encoders and decoders: modules of Burn. The [multi-layer perceptron](Mlp) is both, [`MixedMlp`] and [`ConvEncoder`]
//! emit parameters of Gaussian codes too, [`ConvDecoder`] reads anything.

mod conv;
mod mixed;
mod mlp;

use crate::host;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use gumbel::Error;
use gumbel::network::Named;
use gumbel::noise::Noise;
use gumbel::structure::{Change, Code};

pub use conv::{ConvDecoder, ConvEncoder};
pub use mixed::MixedMlp;
pub use mlp::{Layer, Mlp};

/// What an encoder emits for a batch of images.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Raw potentials `[batch, P]`: any real numbers, which [`Structure::to_potentials`] turns into potentials.
    ///
    /// [`Structure::to_potentials`]: gumbel::structure::Structure::to_potentials
    pub potentials: Tensor<2>,
    /// Parameters of Gaussian codes `[batch, blocks * 2 * D]`: for each code its means, then its log-variances
    /// ([`Inputs::parameters`](gumbel::continuous::Inputs::parameters)).
    pub continuous: Option<Tensor<2>>,
}

impl From<Tensor<2>> for Encoded {
    /// Potentials alone.
    fn from(potentials: Tensor<2>) -> Self {
        Encoded { potentials, continuous: None }
    }
}

/// Emits the potentials of a batch of images.
pub trait Encoder: Module {
    /// Images `[batch, height * width * channels]` with numbers in [0, 1] to potentials `[batch, P]`. In a training
    /// step `dropout` is the stream of what is left out, of an encoder that leaves something out.
    fn encode(&self, images: Tensor<2>, dropout: Option<&Noise>) -> Encoded;
}

/// Reads codes, emits what the likelihood reads of them. It never sees the image.
///
/// A [code](gumbel::structure::Structure::encode) is `[rows, U]` zeros and ones: one-hot rows for variables with
/// values; an indicator per element of a subset, edge of a spanning tree, `[row, column]` of a permutation, `[parent,
/// child]` of an arborescence. Some estimators relax it to numbers in [0, 1]. Of a model with Gaussian codes it reads
/// what [`Inputs`](gumbel::continuous::Inputs) make of both: `[rows, width]`.
pub trait Decoder: Module {
    /// Inputs `[rows, width]` to outputs `[rows, outputs * height * width * channels]`: for Bernoulli pixels, logits.
    fn outputs(&self, inputs: Tensor<2>) -> Tensor<2>;

    /// Outputs of all one-coordinate changes of the codes in a batch of inputs `[batch, width]`, whose first `unary`
    /// numbers are the code, in the order of [`changes`].
    ///
    /// The default decodes every changed input in full. A decoder whose first layer is linear can do better: a change
    /// moves that layer by one row, or by the difference of two.
    fn neighbour_outputs(&self, inputs: &[f32], width: usize, unary: usize, kind: Code, device: &Device) -> Tensor<2> {
        let moves = changes(inputs, width, unary, kind);
        let mut changed = vec![0.0; moves.len() * width];
        for ((example, change), input) in moves.iter().zip(changed.chunks_exact_mut(width)) {
            input.copy_from_slice(&inputs[example * width..][..width]);
            change.off.into_iter().for_each(|u| input[u] = 0.0);
            change.on.into_iter().for_each(|u| input[u] = 1.0);
        }
        self.outputs(host::tensor(changed, [moves.len(), width], device))
    }

    /// Outputs `[rows * blocks, outputs]` of inputs that are zero but for one block each: for every row of samples
    /// `[rows, blocks * D]` and every block the input with that block alone.
    ///
    /// The default decodes them in full. A decoder whose first layer is linear can do better: of a block it needs D
    /// rows of that layer.
    fn block_outputs(&self, samples: Tensor<2>, blocks: usize) -> Tensor<2> {
        let ([rows, width], device) = (samples.dims(), samples.device());
        let dim = width / blocks;
        let mask: Tensor<2> = Tensor::eye(blocks, &device);
        let mask = mask.reshape([1, blocks, blocks, 1]);
        let inputs = samples.reshape([rows, 1, blocks, dim]) * mask;
        self.outputs(inputs.reshape([rows * blocks, blocks * dim]))
    }

    /// A decoder that ends in a linear layer may give what goes into it and the layer: losses of many images at all
    /// states then cost less. The default has none.
    fn head(&self, _codes: Tensor<2>) -> Option<Head> {
        None
    }
}

/// The last layer of a decoder: `outputs = features weight + bias`.
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
    pub fn outputs(&self) -> Tensor<2> {
        burn::tensor::module::linear(self.features.clone(), self.weight.clone(), Some(self.bias.clone()))
    }
}

/// All one-coordinate changes of the codes in a batch of inputs `[batch, width]`, whose first `unary` numbers are the
/// code, with the examples that they belong to.
pub fn changes(inputs: &[f32], width: usize, unary: usize, kind: Code) -> Vec<(usize, Change)> {
    let mut out = Vec::with_capacity(inputs.len());
    for (example, input) in inputs.chunks_exact(width).enumerate() {
        kind.for_each_change(&input[..unary], |change| out.push((example, change)));
    }
    out
}

/// Reads all float parameters of a module in the order of its traversal.
pub fn parameters<M: Module>(module: &M) -> Vec<Named> {
    read(module, None)
}

/// Reads the gradients at all float parameters of a module, zeros where there is none, in the same form.
pub(crate) fn gradients<M: Module>(module: &M, of: &Gradients) -> Vec<Named> {
    read(module, Some(of))
}

fn read<M: Module>(module: &M, of: Option<&Gradients>) -> Vec<Named> {
    struct Reader<'a> {
        of: Option<&'a Gradients>,
        path: Vec<String>,
        out: Vec<Named>,
    }
    impl ModuleVisitor for Reader<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            let values = match self.of {
                None => host::read(tensor).to_vec(),
                Some(of) => {
                    let zeros = || vec![0.0; shape.iter().product()];
                    tensor.grad(of).map_or_else(zeros, |gradient| host::read(gradient).to_vec())
                }
            };
            self.out.push(Named { name: self.path.join("."), shape, values });
        }
    }
    let mut reader = Reader { of, path: vec![], out: vec![] };
    module.visit(&mut reader);
    reader.out
}

/// Replaces all float parameters of a module by stored ones.
///
/// # Errors
/// [`Error::Failed`] names the first that does not fit.
pub fn with_parameters<M: Module>(module: M, stored: &[Named]) -> Result<M, Error> {
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
            let count: usize = shape.iter().product();
            let fits = |s: &&Named| s.name == name && s.shape == shape && s.values.len() == count;
            let next = self.stored.next();
            match next.filter(fits) {
                Some(s) => param.map(|old| {
                    let new = host::tensor(s.values.clone(), shape, &old.device());
                    if old.is_require_grad() { new.require_grad() } else { new }
                }),
                None => {
                    let found = next.map_or("nothing".into(), |s| format!("{} {:?}", s.name, s.shape));
                    self.problem.get_or_insert(format!("{found} in place of parameter {name} {shape:?}"));
                    param
                }
            }
        }
    }
    let mut writer = Writer { path: vec![], stored: stored.iter(), problem: None };
    let module = module.map(&mut writer);
    let extra = writer.stored.next().map(|s| format!("one parameter too many, {} {:?}", s.name, s.shape));
    match writer.problem.or(extra) {
        Some(problem) => Err(Error::Failed { detail: format!("a model with {problem}") }),
        None => Ok(module),
    }
}
