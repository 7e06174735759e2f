//! The encoder of the authors' mixed model: potentials, and Gaussian codes by layers that all codes share.

use super::{Encoded, Encoder, Mlp};
use crate::host;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use gumbel::network::{MixedWidths, Named};
use gumbel::noise::Noise;

/// Trunk, head and parts of [`MixedWidths`], perceptrons all of them.
#[derive(Module, Debug)]
pub struct MixedMlp {
    trunk: Mlp,
    head: Mlp,
    /// None without Gaussian codes.
    parts: Option<Mlp>,
    shared: Option<Mlp>,
    blocks: usize,
    dropout: f32,
}

impl MixedMlp {
    /// The encoder and the decoder of these widths, with the parameters of [`MixedWidths::initial`]. `device` is a
    /// plain device.
    pub fn new(widths: &MixedWidths, seed: u64, device: &Device) -> (Self, Mlp) {
        let initial = widths.initial(seed);
        let network = |prefix: &str| {
            let own = |p: &&Named| p.name.starts_with(prefix);
            Mlp::from_parameters(initial.encoder.iter().filter(own).cloned().collect(), device)
        };
        let encoder = MixedMlp {
            trunk: network("trunk.").with_leak(widths.leak),
            head: network("head.").with_leak(widths.leak),
            parts: (widths.blocks > 0).then(|| network("parts.")),
            shared: (widths.blocks > 0).then(|| network("shared.").with_leak(widths.shared_leak)),
            blocks: widths.blocks,
            dropout: widths.dropout,
        };
        (encoder, Mlp::from_parameters(initial.decoder, device))
    }
}

/// A mask `[rows, width]` of zeros with the given probability, else of `1 / (1 - probability)`.
pub(crate) fn dropout_mask(shape: [usize; 2], probability: f32, noise: &Noise, device: &Device) -> Tensor<2> {
    let mut mask = vec![0.0; shape[0] * shape[1]];
    noise.uniform(&mut mask);
    mask.iter_mut().for_each(|m| *m = if *m < probability { 0.0 } else { 1.0 / (1.0 - probability) });
    host::tensor(mask, shape, device)
}

impl Encoder for MixedMlp {
    fn encode(&self, images: Tensor<2>, dropout: Option<&Noise>) -> Encoded {
        let ([rows, _], device) = (images.dims(), images.device());
        let trunk = self.trunk.forward(images);
        let potentials = self.head.forward(trunk.clone());
        let (Some(parts), Some(shared)) = (&self.parts, &self.shared) else { return potentials.into() };
        let parts = parts.forward(trunk);
        let [_, width] = parts.dims();
        let parts = parts.reshape([rows * self.blocks, width / self.blocks]);
        let parameters = match dropout.filter(|_| self.dropout > 0.0) {
            Some(noise) => shared.masked(parts, |shape| dropout_mask(shape, self.dropout, noise, &device)),
            None => shared.forward(parts),
        };
        let [_, width] = parameters.dims();
        let continuous = parameters.reshape([rows, self.blocks * width]);
        Encoded { potentials, continuous: Some(continuous) }
    }
}
