//! Adam (Kingma and Ba, ICLR 2015), one pass over each parameter.
//!
//! ```text
//! m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g²
//! p = p - lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + 1e-8)
//! ```
//!
//! Parameters, gradients and moments are read and written once each, in host memory. On a device other than the CPU
//! the parameters travel there and back in every step.

use crate::host;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Gradients, Tensor};
use gumbel::Error;
use gumbel::network::{BETA1, BETA2, EPSILON, Moments, Named};
use gumbel::vectorised;
use rayon::prelude::*;

/// Values per piece of parallel work; fixed.
const CHUNK: usize = 16_384;

/// The optimiser's state: moments of each parameter in the order of the modules' traversal, and the step count.
#[derive(Debug, Clone, PartialEq)]
pub struct Adam {
    lr: f64,
    steps: u64,
    moments: Vec<Moments>,
}

impl Adam {
    /// Learning rate > 0; beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8.
    pub fn new(lr: f64) -> Self {
        Adam { lr, steps: 0, moments: vec![] }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The moments, empty before the first step.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// Puts a stored state back; `parameters` are the model's, in order.
    ///
    /// # Errors
    /// [`Error::Failed`] for moments of other parameters.
    pub fn restore<'a>(
        &mut self,
        steps: u64,
        moments: &[Moments],
        parameters: impl Iterator<Item = &'a Named>,
    ) -> Result<(), Error> {
        let expected: Vec<usize> = parameters.map(|p| p.values.len()).collect();
        let fits = |(m, len): (&Moments, &usize)| m.first.len() == *len && m.second.len() == *len;
        if !moments.is_empty() && (moments.len() != expected.len() || !moments.iter().zip(&expected).all(fits)) {
            return Err(Error::Failed { detail: "moments of another model".into() });
        }
        self.steps = steps;
        self.moments = moments.to_vec();
        Ok(())
    }

    /// Begins a step with `share` of the learning rate: its gradients are applied by [`update`](Update::update) to
    /// every module, in a fixed order.
    pub fn step(&mut self, share: f32) -> Update<'_> {
        self.steps += 1;
        let t = self.steps.min(i32::MAX as u64) as i32;
        let rate = self.lr * share as f64 / (1.0 - (BETA1 as f64).powi(t));
        let root = 1.0 / (1.0 - (BETA2 as f64).powi(t)).sqrt();
        Update { adam: self, rate: rate as f32, root: root as f32, next: 0 }
    }
}

/// One step of [`Adam`] in progress.
pub struct Update<'a> {
    adam: &'a mut Adam,
    rate: f32,
    root: f32,
    next: usize,
}

impl Update<'_> {
    /// Applies the gradients of one module; parameters without a gradient stay as they are.
    pub fn update<M: Module>(&mut self, module: M, gradients: &mut Gradients) -> M {
        module.map(&mut Mapper { update: self, gradients })
    }
}

struct Mapper<'a, 'b> {
    update: &'a mut Update<'b>,
    gradients: &'a mut Gradients,
}

impl ModuleMapper for Mapper<'_, '_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let (rate, root) = (self.update.rate, self.update.root);
        let slot = self.update.next;
        self.update.next += 1;
        let all = &mut self.update.adam.moments;
        if all.len() <= slot {
            all.resize_with(slot + 1, Moments::default);
        }
        let moments = &mut all[slot];
        let count = tensor.dims().iter().product();
        moments.first.resize(count, 0.0);
        moments.second.resize(count, 0.0);
        let tensor = match tensor.grad_remove(self.gradients) {
            None => tensor,
            Some(gradient) => {
                let (device, gradient) = (tensor.device(), host::read(gradient));
                let mut data = tensor.inner().into_data();
                let values = data.as_mut_slice::<f32>().expect("all our tensors hold f32");
                apply(values, &gradient, moments, rate, root);
                Tensor::from_data(data, &device).require_grad()
            }
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

fn apply(values: &mut [f32], gradient: &[f32], moments: &mut Moments, rate: f32, root: f32) {
    let pieces = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
    let moments = moments.first.par_chunks_mut(CHUNK).zip(moments.second.par_chunks_mut(CHUNK));
    pieces.zip(moments).for_each(|((p, g), (m, v))| {
        vectorised!({
            let n = p.len();
            let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
            for i in 0..n {
                m[i] = BETA1 * m[i] + (1.0 - BETA1) * g[i];
                v[i] = BETA2 * v[i] + (1.0 - BETA2) * g[i] * g[i];
                p[i] -= rate * m[i] / (v[i].sqrt() * root + EPSILON);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_in_double_precision() {
        let n = 3 * CHUNK + 5;
        let mut p: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut moments = Moments { first: vec![0.0; n], second: vec![0.0; n] };
        let mut exact: Vec<[f64; 3]> = p.iter().map(|p| [*p as f64, 0.0, 0.0]).collect();
        for t in 1..=20 {
            let g: Vec<f32> =
                (0..n).map(|i| ((i * t) as f32 * 0.11).cos() * if i % 7 == 0 { 0.0 } else { 1.0 }).collect();
            let rate = 1e-2 / (1.0 - 0.9f64.powi(t as i32));
            let root = 1.0 / (1.0 - 0.999f64.powi(t as i32)).sqrt();
            apply(&mut p, &g, &mut moments, rate as f32, root as f32);
            for (e, g) in exact.iter_mut().zip(&g) {
                let g = *g as f64;
                e[1] = 0.9 * e[1] + 0.1 * g;
                e[2] = 0.999 * e[2] + 0.001 * g * g;
                e[0] -= rate * e[1] / (e[2].sqrt() * root + 1e-8);
            }
        }
        for (p, e) in p.iter().zip(&exact) {
            assert!((*p as f64 - e[0]).abs() < 2e-5, "{p} {}", e[0]);
        }
    }
}
