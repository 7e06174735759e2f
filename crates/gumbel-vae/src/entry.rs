//! How models enter the registry.

use crate::engine::Autodiff;
use crate::model::{ConvEncoder, Decoder, Encoder, MixedMlp, Mlp};
use burn::tensor::Device;
use gumbel::Error;
use gumbel::continuous::Inputs;
use gumbel::engine::{Engine, ModelEntry, ModelOptions};
use gumbel::network::{MAX_WEIGHTS, MixedWidths, weights, widths};
use gumbel::registry::Setting;
use gumbel::structure::Structure;

/// A model of one's own for the registry: `make` constructs an encoder and a decoder, whose parameters live on the
/// autodiff side of the device; the engine does the rest. See the [crate's page](crate) for an example.
pub fn model<E, D>(
    name: &'static str,
    help: &'static str,
    settings: &[Setting],
    make: impl Fn(&ModelOptions<'_>, &Device) -> Result<(E, D), Error> + Send + Sync + 'static,
) -> ModelEntry
where
    E: Encoder + 'static,
    D: Decoder + 'static,
{
    ModelEntry::new(name, help, settings, move |options| build(options, &make))
}

/// The paper's model: an encoder pixels-hidden-P and a decoder U-hidden-pixels, whose hidden layers, in reverse order
/// in the decoder, are the text of the setting `hidden`, such as `300` or `400,200`.
///
/// # Errors
/// Layers or devices that cannot be, another engine.
pub fn perceptron(options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    build(options, |options, device| {
        let text = options.settings.text("hidden");
        let (pixels, structure) = (options.shape.len(), &options.structure);
        let hidden = widths(text)?;
        let layers = |from: usize, hidden: &[usize], to: usize| [&[from], hidden, &[to]].concat();
        let encoder = layers(pixels, &hidden, structure.potentials());
        let outputs = pixels * options.likelihood.outputs();
        let decoder = layers(structure.unary(), &hidden.iter().rev().copied().collect::<Vec<_>>(), outputs);
        for widths in [&encoder, &decoder] {
            let weights = weights(widths);
            if weights > MAX_WEIGHTS {
                let expected = format!("at most {MAX_WEIGHTS} weights in a network, found {weights}");
                return Err(Error::setting("hidden", text, expected));
            }
        }
        Ok((Mlp::new(&encoder, options.seed, 0, device), Mlp::new(&decoder, options.seed, 1, device)))
    })
}

/// The authors' perceptrons with Gaussian codes, [`MixedWidths`] and its settings.
///
/// # Errors
/// Layers or devices that cannot be, another engine.
pub fn mixed(options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    build(options, |options, device| {
        let inputs = Inputs::new(options.continuous, &options.structure)?;
        Ok(MixedMlp::new(&MixedWidths::new(options, &inputs)?, options.seed, device))
    })
}

/// [Convolutions](ConvEncoder), with or without Gaussian codes.
///
/// # Errors
/// Images, layers or devices that cannot be, another engine.
pub fn convolutions(options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    build(options, |options, device| {
        ConvEncoder::new(options, &Inputs::new(options.continuous, &options.structure)?, device)
    })
}

fn build<E: Encoder + 'static, D: Decoder + 'static>(
    options: &ModelOptions<'_>,
    make: impl Fn(&ModelOptions<'_>, &Device) -> Result<(E, D), Error>,
) -> Result<Box<dyn Engine>, Error> {
    if !["auto", "autodiff"].contains(&options.engine) {
        let expected = "auto or autodiff, the engine that this model is written for";
        return Err(Error::setting("engine", options.engine, expected));
    }
    let device = device(options.device)?;
    let (encoder, decoder) = make(options, &device)?;
    let (structure, likelihood) = (options.structure.clone(), options.likelihood.clone());
    let engine = Autodiff::new(encoder, decoder, structure, likelihood, options.lr, &device);
    Ok(Box::new(engine.with_continuous(options.continuous)?))
}

/// A device of Burn by its name, without automatic differentiation: `cpu` is the backend `flex`, `wgpu` any graphics
/// API, in builds with the feature of that name.
///
/// # Errors
/// [`Error::Setting`] for devices that this build does not have.
pub fn device(name: &str) -> Result<Device, Error> {
    match name {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(Default::default())),
        #[cfg(not(feature = "wgpu"))]
        "wgpu" => Err(Error::setting("device", name, "cpu (this build has no wgpu: build with `--features wgpu`)")),
        _ => {
            let names = ["cpu", "wgpu"];
            Err(Error::setting("device", name, gumbel::registry::one_of(name, &names)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_a_build_does_not_have_say_so() {
        device("cpu").unwrap();
        let message = device("gpu").unwrap_err().to_string();
        assert_eq!(message, "device = gpu: expected one of cpu, wgpu (did you mean cpu?)");
        #[cfg(not(feature = "wgpu"))]
        assert!(device("wgpu").unwrap_err().to_string().contains("this build has no wgpu"));
    }
}
