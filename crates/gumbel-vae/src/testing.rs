//! What tests share.

use gumbel::likelihood::Likelihood;

/// A likelihood that is not linear in the image: the loss of a pixel is `(t - x)^4 / 4`.
#[derive(Debug)]
pub struct Quartic;

impl Likelihood for Quartic {
    fn name(&self) -> &'static str {
        "quartic"
    }

    fn is_linear(&self) -> bool {
        false
    }

    fn needs_binary(&self) -> bool {
        false
    }

    fn losses(&self, outputs: &[f32], images: &[f32], per_image: usize, losses: &mut [f32]) {
        let pixels = outputs.len() / losses.len();
        for (r, (loss, t)) in losses.iter_mut().zip(outputs.chunks_exact(pixels)).enumerate() {
            let x = &images[r / per_image * pixels..][..pixels];
            *loss = t.iter().zip(x).map(|(t, x)| (t - x).powi(4) / 4.0).sum();
        }
    }

    fn losses_and_slopes(
        &self,
        outputs: &[f32],
        images: &[f32],
        scales: &[f32],
        losses: &mut [f32],
        slopes: &mut [f32],
    ) {
        self.losses(outputs, images, 1, losses);
        let pixels = outputs.len() / losses.len();
        for (i, (slope, (t, x))) in slopes.iter_mut().zip(outputs.iter().zip(images)).enumerate() {
            *slope = scales[i / pixels] * (t - x).powi(3);
        }
    }

    fn log_normalisers(&self, _: &[f32], _: &mut [f32], _: &mut [f32]) {
        unreachable!("it is not linear")
    }

    fn means(&self, outputs: &[f32], means: &mut [f32]) {
        means.iter_mut().zip(outputs).for_each(|(mean, t)| *mean = t.clamp(0.0, 1.0));
    }
}

/// The unit Gaussian without its constant: linear, `A(t) = t^2 / 2`, with a term `c(x) = x^2 / 2` of the image alone.
#[derive(Debug)]
pub struct Gaussian;

impl Likelihood for Gaussian {
    fn name(&self) -> &'static str {
        "gaussian"
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn needs_binary(&self) -> bool {
        false
    }

    fn losses(&self, outputs: &[f32], images: &[f32], per_image: usize, losses: &mut [f32]) {
        let pixels = outputs.len() / losses.len();
        for (r, (loss, t)) in losses.iter_mut().zip(outputs.chunks_exact(pixels)).enumerate() {
            let x = &images[r / per_image * pixels..][..pixels];
            *loss = t.iter().zip(x).map(|(t, x)| 0.5 * (t - x) * (t - x)).sum();
        }
    }

    fn losses_and_slopes(
        &self,
        outputs: &[f32],
        images: &[f32],
        scales: &[f32],
        losses: &mut [f32],
        slopes: &mut [f32],
    ) {
        self.losses(outputs, images, 1, losses);
        let pixels = outputs.len() / losses.len();
        for (i, (slope, (t, x))) in slopes.iter_mut().zip(outputs.iter().zip(images)).enumerate() {
            *slope = scales[i / pixels] * (t - x);
        }
    }

    fn log_normalisers(&self, outputs: &[f32], sums: &mut [f32], slopes: &mut [f32]) {
        let pixels = outputs.len() / sums.len();
        let rows = sums.iter_mut().zip(outputs.chunks_exact(pixels));
        rows.for_each(|(sum, t)| *sum = t.iter().map(|t| 0.5 * t * t).sum());
        slopes.copy_from_slice(outputs);
    }

    fn means(&self, outputs: &[f32], means: &mut [f32]) {
        means.iter_mut().zip(outputs).for_each(|(mean, t)| *mean = t.clamp(0.0, 1.0));
    }
}
