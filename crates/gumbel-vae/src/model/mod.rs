//! Encoders and decoders: modules of Burn, and the [multi-layer perceptron](Mlp) that is both.
//!
//! Both traits leave a door open: an encoder may also emit continuous parameters, a decoder may also read continuous
//! samples. No engine walks through it yet: an encoder that emits some is refused by the first step.

mod mlp;

use crate::host;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use gumbel::Error;
use gumbel::network::Named;
use gumbel::structure::{Change, Code};

pub use mlp::{Layer, Mlp};

/// What an encoder emits for a batch of images.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Raw potentials `[batch, P]`: any real numbers, which [`Structure::to_potentials`] turns into potentials.
    ///
    /// [`Structure::to_potentials`]: gumbel::structure::Structure::to_potentials
    pub potentials: Tensor<2>,
    /// Parameters of continuous variables `[batch, C]`.
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
    /// Images `[batch, height * width * channels]` with numbers in [0, 1] to potentials `[batch, P]`.
    fn encode(&self, images: Tensor<2>) -> Encoded;
}

/// Reads codes, emits what the likelihood reads of them. It never sees the image.
///
/// A [code](gumbel::structure::Structure::encode) is `[rows, U]` zeros and ones: one-hot rows for variables with
/// values; an indicator per element of a subset, edge of a spanning tree, `[row, column]` of a permutation, `[parent,
/// child]` of an arborescence. Some estimators relax it to numbers in [0, 1].
pub trait Decoder: Module {
    /// Codes `[rows, U]`, and continuous samples `[rows, C]` where there are any, to outputs
    /// `[rows, height * width * channels]`: for Bernoulli pixels, logits.
    fn outputs(&self, codes: Tensor<2>, continuous: Option<Tensor<2>>) -> Tensor<2>;

    /// Outputs of all one-coordinate changes of a batch of codes `[batch, width]`, in the order of [`changes`], each
    /// with the continuous samples `[batch, C]` of its example.
    ///
    /// The default decodes every changed code in full. A decoder whose first layer is linear can do better: a change
    /// moves that layer by one row, or by the difference of two.
    fn neighbour_outputs(
        &self,
        codes: &[f32],
        width: usize,
        kind: Code,
        continuous: Option<Tensor<2>>,
        device: &Device,
    ) -> Tensor<2> {
        let moves = changes(codes, width, kind);
        let mut changed = vec![0.0; moves.len() * width];
        for ((example, change), code) in moves.iter().zip(changed.chunks_exact_mut(width)) {
            code.copy_from_slice(&codes[example * width..][..width]);
            change.off.into_iter().for_each(|u| code[u] = 0.0);
            change.on.into_iter().for_each(|u| code[u] = 1.0);
        }
        let continuous = continuous.map(|samples| {
            let of: Vec<i64> = moves.iter().map(|(example, _)| *example as i64).collect();
            samples.select(0, Tensor::<1, Int>::from_data(TensorData::new(of, [moves.len()]), device))
        });
        self.outputs(host::tensor(changed, [moves.len(), width], device), continuous)
    }

    /// A decoder that ends in a linear layer may give what goes into it and the layer: losses of many images at all
    /// states then cost less. The default has none. Decoders that read continuous samples are not asked.
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

/// All one-coordinate changes of a batch of codes `[batch, width]`, with the examples that they belong to.
pub fn changes(codes: &[f32], width: usize, kind: Code) -> Vec<(usize, Change)> {
    let mut out = Vec::with_capacity(codes.len());
    for (example, code) in codes.chunks_exact(width).enumerate() {
        kind.for_each_change(code, |change| out.push((example, change)));
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
