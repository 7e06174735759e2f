//! Parameters of networks in host memory: how they begin, how they are stored, and how engines exchange them.

use crate::Error;
use crate::continuous::Inputs;
use crate::engine::ModelOptions;
use crate::noise::{Noise, Purpose};
use crate::structure::Structure;

/// A named parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Path in the module, such as `layers.0.weight`.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

/// Parameters of an encoder and a decoder, each in the order of its layers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    /// Those of the encoder.
    pub encoder: Vec<Named>,
    /// Those of the decoder.
    pub decoder: Vec<Named>,
}

impl Parameters {
    /// All, the encoder's first: the order of the optimiser.
    pub fn all(&self) -> impl Iterator<Item = &Named> {
        self.encoder.iter().chain(&self.decoder)
    }

    /// Number of trained numbers.
    pub fn count(&self) -> usize {
        self.all().map(|p| p.values.len()).sum()
    }
}

/// Decay of the first moment in Adam (Kingma and Ba, ICLR 2015).
pub const BETA1: f32 = 0.9;
/// Decay of the second moment in Adam.
pub const BETA2: f32 = 0.999;
/// What is added to the root of the second moment in Adam.
pub const EPSILON: f32 = 1e-8;

/// First and second moment of one parameter in Adam.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// Mean of the gradients.
    pub first: Vec<f32>,
    /// Mean of the squared gradients.
    pub second: Vec<f32>,
}

/// Everything that training changes in a model: what a checkpoint holds of an engine.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// The parameters.
    pub parameters: Parameters,
    /// Moments in the order of [`Parameters::all`]; empty before the first step.
    pub moments: Vec<Moments>,
    /// Steps of the optimiser.
    pub steps: u64,
}

/// Initial parameters of a multi-layer perceptron with layers of the given widths, at least two: weights `[inputs,
/// outputs]` and biases, uniform in ±1/sqrt(inputs). The numbers depend on `(seed, stream)` only.
pub fn perceptron(widths: &[usize], seed: u64, stream: u64) -> Vec<Named> {
    assert!(widths.len() >= 2, "a perceptron needs an input and an output width");
    let layers = widths.windows(2).enumerate().flat_map(|(l, pair)| {
        let (inputs, outputs) = (pair[0], pair[1]);
        let bound = 1.0 / (inputs as f32).sqrt();
        let draw = |part: u64, len: usize| {
            let mut x = vec![0.0; len];
            Noise::new(seed, Purpose::Init, stream << 32 | (l as u64) << 1 | part).uniform(&mut x);
            x.iter_mut().for_each(|v| *v = (2.0 * *v - 1.0) * bound);
            x
        };
        let name = |part: &str| format!("layers.{l}.{part}");
        [
            Named { name: name("weight"), shape: vec![inputs, outputs], values: draw(0, inputs * outputs) },
            Named { name: name("bias"), shape: vec![outputs], values: draw(1, outputs) },
        ]
    });
    layers.collect()
}

/// The perceptrons of a model with Gaussian codes (the authors' sizes: paper, Section 4.2 and their code).
///
/// The trunk reads the images. From its last layer, a linear one, the head emits the potentials, and a linear layer
/// `blocks`, one part for each Gaussian code; a perceptron `shared` over the codes turns each part into means and
/// log-variances.
#[derive(Debug, Clone, PartialEq)]
pub struct MixedWidths {
    /// Pixels, hidden layers, last layer.
    pub trunk: Vec<usize>,
    /// From the trunk's last layer to the potentials.
    pub head: Vec<usize>,
    /// Number of Gaussian codes.
    pub blocks: usize,
    /// From a part to twice the dimensions of a code.
    pub shared: Vec<usize>,
    /// From the decoder's inputs to the outputs.
    pub decoder: Vec<usize>,
    /// Slope of the activation of trunk and head where it is negative.
    pub leak: f32,
    /// The same of the shared layers.
    pub shared_leak: f32,
    /// Probability with which a unit before the last shared layer is left out in training.
    pub dropout: f32,
}

impl MixedWidths {
    /// Those of a model's options: the settings `hidden` (the trunk with its last layer), `head`, `part`, `shared`,
    /// `decoder-hidden`, `leak`, `shared-leak` and `dropout`.
    ///
    /// # Errors
    /// Widths that cannot be, networks beyond [`MAX_WEIGHTS`].
    pub fn new(options: &ModelOptions<'_>, inputs: &Inputs) -> Result<Self, Error> {
        let pixels = options.shape.len();
        MixedWidths::between(options, inputs, pixels, pixels * options.likelihood.outputs())
    }

    /// The same for a trunk that reads `from` numbers and a decoder that ends in `to`, as where convolutions stand
    /// before and behind.
    ///
    /// # Errors
    /// As [`new`](MixedWidths::new).
    pub fn between(options: &ModelOptions<'_>, inputs: &Inputs, from: usize, to: usize) -> Result<Self, Error> {
        let settings = options.settings;
        let list = |name: &'static str| {
            widths(settings.text(name)).map_err(|_| {
                let expected = "at most 16 widths from 1 to 65536, such as 300 or 400,200";
                Error::setting(name, settings.text(name), expected)
            })
        };
        let trunk = [&[from], &list("hidden")?[..]].concat();
        let last = *trunk.last().expect("the inputs at least");
        if trunk.len() < 2 {
            return Err(Error::setting("hidden", settings.text("hidden"), "at least one layer, which the heads read"));
        }
        let found = MixedWidths {
            trunk,
            head: [&[last], &list("head")?[..], &[options.structure.potentials()]].concat(),
            blocks: inputs.blocks(),
            shared: [&[settings.whole("part") as usize], &list("shared")?[..], &[2 * inputs.kind().dim()]].concat(),
            decoder: [&[inputs.width()], &list("decoder-hidden")?[..], &[to]].concat(),
            leak: settings.real("leak") as f32,
            shared_leak: settings.real("shared-leak") as f32,
            dropout: settings.real("dropout") as f32,
        };
        for (prefix, widths) in found.networks() {
            let weights = weights(&widths);
            if weights > MAX_WEIGHTS {
                let (name, what) = match prefix {
                    "head." => ("head", "the head"),
                    "parts." => ("part", "the layer that emits the parts"),
                    "shared." => ("shared", "the shared layers"),
                    "" => ("decoder-hidden", "the decoder"),
                    _ => ("hidden", "the encoder"),
                };
                let value = settings.get(name).map_or_else(String::new, ToString::to_string);
                let expected = format!("at most {MAX_WEIGHTS} weights in a network, found {weights} in {what}");
                return Err(Error::setting(name, value, expected));
            }
        }
        Ok(found)
    }

    /// Widths of the layer that emits the parts.
    pub fn parts(&self) -> [usize; 2] {
        [*self.trunk.last().expect("a trunk has layers"), self.blocks * self.shared[0]]
    }

    /// The perceptrons in the order of their parameters: the encoder's, with the prefix of their names, then the
    /// decoder's. Without Gaussian codes there are no parts.
    pub fn networks(&self) -> Vec<(&'static str, Vec<usize>)> {
        let mut all = vec![("trunk.", self.trunk.clone()), ("head.", self.head.clone())];
        if self.blocks > 0 {
            all.extend([("parts.", self.parts().to_vec()), ("shared.", self.shared.clone())]);
        }
        all.push(("", self.decoder.clone()));
        all
    }

    /// The parameters at the beginning.
    pub fn initial(&self, seed: u64) -> Parameters {
        let named = |prefix: &str, widths: &[usize], stream: u64| -> Vec<Named> {
            let layers = perceptron(widths, seed, stream).into_iter();
            layers.map(|p| Named { name: format!("{prefix}{}", p.name), ..p }).collect()
        };
        let mut networks = self.networks();
        let decoder = networks.pop().map(|(_, widths)| named("", &widths, 1)).unwrap_or_default();
        let encoder = networks.iter().zip([0, 2, 3, 4]);
        let encoder = encoder.flat_map(|((prefix, widths), stream)| named(prefix, widths, stream)).collect();
        Parameters { encoder, decoder }
    }
}

/// Widths of hidden layers from a text such as `300` or `400,200`; none from an empty one.
///
/// # Errors
/// Anything but whole numbers from 1 to 65,536, at most sixteen of them.
pub fn widths(text: &str) -> Result<Vec<usize>, Error> {
    let refused = || Error::setting("hidden", text, "at most 16 widths from 1 to 65536, such as 300 or 400,200");
    if text.trim().is_empty() {
        return Ok(vec![]);
    }
    let parse = |width: &str| width.trim().parse().ok().filter(|w| (1..=1 << 16).contains(w)).ok_or_else(refused);
    let widths: Vec<usize> = text.split(',').map(parse).collect::<Result<_, _>>()?;
    if widths.len() > 16 { Err(refused()) } else { Ok(widths) }
}

/// Most weights of a network: half a gigabyte, of which training needs four times as much.
pub const MAX_WEIGHTS: usize = 1 << 27;

/// Weights of a perceptron with layers of the given widths; the largest integer if there are more.
pub fn weights(layers: &[usize]) -> usize {
    layers.windows(2).map(|w| w[0].saturating_mul(w[1])).fold(0, usize::saturating_add)
}

/// Checks that stored parameters are those of a perceptron with layers of the given widths.
///
/// # Errors
/// [`Error::Failed`] names the first that does not fit.
pub fn fits(what: &str, stored: &[Named], widths: &[usize]) -> Result<(), Error> {
    let expected = widths.windows(2).enumerate().flat_map(|(l, pair)| {
        [(format!("layers.{l}.weight"), pair.to_vec()), (format!("layers.{l}.bias"), vec![pair[1]])]
    });
    let mut stored = stored.iter();
    for (name, shape) in expected {
        match stored.next() {
            Some(s) if s.name == name && s.shape == shape && s.values.len() == shape.iter().product() => {}
            found => {
                let found = found.map_or("nothing".into(), |s| format!("{} {:?}", s.name, s.shape));
                let detail = format!("a model with {found} in place of parameter {name} {shape:?} of the {what}");
                return Err(Error::Failed { detail });
            }
        }
    }
    match stored.next() {
        None => Ok(()),
        Some(s) => Err(Error::Failed {
            detail: format!("a model with one parameter too many in the {what}, {} {:?}", s.name, s.shape),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_read_from_text() {
        assert_eq!(widths("300").unwrap(), [300]);
        assert_eq!(widths("400,200").unwrap(), [400, 200]);
        assert_eq!(widths(" 400, 200 ").unwrap(), [400, 200]);
        assert!(widths("").unwrap().is_empty());
        for text in ["0", "-3", "300,", "ten", "65537", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", "99999999999999999999"] {
            let message = widths(text).unwrap_err().to_string();
            assert!(message.starts_with(&format!("hidden = {text}: expected at most 16 widths")), "{message}");
        }
    }
}
