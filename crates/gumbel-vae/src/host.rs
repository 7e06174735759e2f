//! Between tensors and slices of f32.

use burn::tensor::{Device, Tensor, TensorData};
use std::ops::Deref;

/// A tensor's values in host memory, row-major.
pub(crate) struct Host(TensorData);

impl Deref for Host {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice::<f32>().expect("all our tensors hold f32")
    }
}

/// Reads a tensor; without a copy where its memory is the host's and not shared.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Host {
    Host(tensor.inner().into_data())
}

/// Takes a tensor's values out of it, row-major.
pub(crate) fn take<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().try_into_vec::<f32>().expect("all our tensors hold f32")
}

/// A tensor from values in row-major order.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
