//! Convolutions of stride 2, for images of any number of channels, with or without Gaussian codes; trained by automatic
//! differentiation.

use super::mlp::MIXED;
use gumbel::Error;
use gumbel::engine::{Engine, ModelEntry, ModelOptions};
use gumbel::registry::{Kind, Setting};

/// Settings of its own; the others are those of perceptrons with Gaussian codes.
const OWN: [Setting; 2] = [
    Setting {
        name: "channels",
        kind: Kind::Whole(1, 1 << 12),
        default: "32",
        value: "N",
        help: "channels behind the first convolution; each further one doubles them",
    },
    Setting {
        name: "hidden",
        kind: Kind::Text,
        default: "256",
        value: "WIDTHS",
        help: "layers of the encoder behind the convolutions",
    },
];

/// Convolutions in the registry.
pub fn entry() -> ModelEntry {
    let help = "convolutions of stride 2, down to 4 x 4 or an odd size, with perceptrons between encoder and decoder";
    ModelEntry::new("conv", help, &[&OWN[..], &MIXED].concat(), build).fitting(fits)
}

#[cfg(feature = "burn")]
fn fits(options: &ModelOptions<'_>) -> Result<(), Error> {
    gumbel_vae::device(options.device).map(drop)
}

#[cfg(not(feature = "burn"))]
fn fits(options: &ModelOptions<'_>) -> Result<(), Error> {
    build(options).map(drop)
}

#[cfg(feature = "burn")]
fn build(options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    gumbel_vae::convolutions(options)
}

#[cfg(not(feature = "burn"))]
fn build(_: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    Err(Error::setting("model", "conv", "mlp: this build has no autodiff engine (feature `burn`)"))
}
