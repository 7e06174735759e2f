//! Leave-one-out REINFORCE (Kool, van Hoof, Welling 2019): every sample's loss is compared with the mean of the others.

use gumbel::Error;
use gumbel::estimator::{Estimator, Piece, estimate};
use gumbel::oracle::{Closure, Followed, Oracle, Questions};
use gumbel::structure::{Categorical, Structure};

/// Leave-one-out REINFORCE, for at least two samples.
pub struct LeaveOneOut;

impl<S: Structure> Estimator<S> for LeaveOneOut {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, of, samples, scale) = (piece.structure, piece.of, piece.samples, piece.scale);
        let (p, n) = (structure.potentials(), structure.variables());
        let mut drawn = vec![];
        for sample in 0..samples {
            piece.draw(sample)?;
            let (z, weights) = (piece.memory.assignments[..of.len() * n].to_vec(), vec![scale; of.len()]);
            let mut losses = vec![0.0; of.len()];
            oracle.losses(of, &z, &mut losses)?;
            oracle.follow(Followed::Assignments { row: sample, assignments: &z, weights: &weights })?;
            drawn.push((z, losses));
        }
        for b in 0..of.len() {
            let mean = drawn.iter().map(|(_, losses)| losses[b]).sum::<f32>() / samples as f32;
            for (z, losses) in &drawn {
                // d ln q / d h = s(z) - E_q[s]; the second part cancels in the sum over the samples.
                let weight = scale * (losses[b] - mean) * samples as f32 / (samples as f32 - 1.0);
                structure.add_statistics(&z[b * n..][..n], weight, &mut piece.gradient[b * p..][..p]);
            }
        }
        Ok(())
    }
}

#[allow(dead_code, reason = "a test includes this file")]
fn main() -> Result<(), Error> {
    let latent = Categorical::new(3)?;
    let mut oracle = Closure::new(&latent, |_, code| 9.0 * code[0] + code[1] + 5.0 * code[2]);
    let noise = [0.3, 0.1, 0.9, 2.0, 0.4, -0.7]; // [samples = 2, batch = 1, K = 3]
    let found = estimate(&LeaveOneOut, &latent, &[0.2, -0.1, 0.4], &noise, &mut oracle)?;
    assert_eq!(found.gradient, [2.0, 0.0, -2.0]); // z = 2 and z = 0 were drawn
    Ok(())
}
