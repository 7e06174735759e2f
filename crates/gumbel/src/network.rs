//! Parameters of networks in host memory: how they begin, how they are stored, and how engines exchange them.

use crate::Error;
use crate::noise::{Noise, Purpose};

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
