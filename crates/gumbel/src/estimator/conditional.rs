//! Perturbed potentials given their arg max: what Rao-Blackwellised and control-variate estimators share.
//!
//! Of one variable with potentials h and Gumbel noise, `z = argmax(h + gamma)` and the maximum are independent, and
//! the others are Gumbel variables cut off at the maximum:
//!
//! ```text
//! zeta_z = ln sum_k exp(h_k) + g_z,   zeta_k = -ln(exp(-h_k - g_k) + exp(-zeta_z))   (k != z),   g fresh
//! ```
//!
//! has the distribution of `h + gamma` given z (Maddison, Tarlow, Minka, "A* sampling", NeurIPS 2014; Tucker et al.,
//! "REBAR", NeurIPS 2017, appendix).

use crate::math::log_sum_exp;

/// Writes `h + gamma` of one variable, given that `chosen` is its arg max, as a function of fresh Gumbel noise.
///
/// `chosen` must not be forbidden; what is forbidden stays `-inf`.
pub(super) fn given_argmax(potentials: &[f32], chosen: usize, fresh: &[f32], zeta: &mut [f32]) {
    let most = log_sum_exp(potentials) + fresh[chosen];
    for (zeta, (h, g)) in zeta.iter_mut().zip(potentials.iter().zip(fresh)) {
        // -ln(exp(-a) + exp(-b)), where an exponential of the larger one cannot overflow.
        let own = h + g;
        *zeta = own.min(most) - (-(own - most).abs()).exp().ln_1p();
    }
    zeta[chosen] = most;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::argmax;
    use crate::noise::{Noise, Purpose};

    const DRAWS: usize = 200_000;

    fn gumbel(len: usize, index: u64) -> Vec<f32> {
        let mut noise = vec![0.0; len];
        Noise::new(17, Purpose::Noise, index).gumbel(&mut noise);
        noise
    }

    /// Numbers that tell joint distributions of z and perturbed potentials apart, of the values that are not forbidden.
    fn features(z: usize, zeta: &[f32]) -> Vec<f64> {
        let k = zeta.len();
        let mut out = vec![0.0; k * (1 + k + k + k * k)];
        let mut at = z * (1 + k + k + k * k);
        let mut push = |value: f32| {
            out[at] = if value.is_finite() { value as f64 } else { 0.0 };
            at += 1;
        };
        push(1.0);
        zeta.iter().for_each(|v| push(*v));
        zeta.iter().for_each(|v| push((-(-v).exp()).exp()));
        zeta.iter().for_each(|v| zeta.iter().for_each(|w| push((v - w).tanh() + 0.1 * v * w)));
        out
    }

    /// The largest distance of the means of two samples, in standard errors of the distance.
    fn distance(mut one: impl FnMut(usize) -> Vec<f64>, mut other: impl FnMut(usize) -> Vec<f64>) -> f64 {
        let len = one(0).len();
        let mut sums = vec![[0.0; 4]; len];
        for draw in 0..DRAWS {
            for ((sums, a), b) in sums.iter_mut().zip(one(draw)).zip(other(draw)) {
                [a, a * a, b, b * b].iter().zip(sums).for_each(|(x, s)| *s += x / DRAWS as f64);
            }
        }
        let distance = |[a, aa, b, bb]: &[f64; 4]| {
            let error = (((aa - a * a) + (bb - b * b)) / DRAWS as f64).sqrt();
            if error > 0.0 { (a - b).abs() / error } else { 0.0 }
        };
        sums.iter().map(distance).fold(0.0, f64::max)
    }

    #[test]
    fn the_conditional_has_the_joint_distribution_of_the_arg_max_and_what_was_perturbed() {
        let cases: [&[f32]; 4] =
            [&[0.3, -0.8], &[1.5, 0.2, -1.0], &[0.1, f32::NEG_INFINITY, 2.0], &[3.0, 2.0, 2.5, -1.0, 0.0]];
        for (case, h) in cases.into_iter().enumerate() {
            let k = h.len();
            let noises: Vec<Vec<f32>> = (0..3).map(|i| gumbel(DRAWS * k, (10 * case + i) as u64)).collect();
            let perturbed = |noise: usize, draw: usize| -> Vec<f32> {
                h.iter().zip(&noises[noise][draw * k..]).map(|(h, g)| h + g).collect()
            };
            let direct = |draw: usize| {
                let zeta = perturbed(0, draw);
                features(argmax(&zeta).unwrap(), &zeta)
            };
            // z of other noise, and the rest given z.
            let given = |wrong: usize, draw: usize| {
                let z = argmax(&perturbed(1, draw)).unwrap();
                let (fresh, mut zeta) = (&noises[2][draw * k..][..k], vec![0.0; k]);
                given_argmax(h, z, fresh, &mut zeta);
                assert!(zeta.iter().all(|v| *v <= zeta[z]) && zeta[z].is_finite());
                match wrong {
                    1 => zeta[z] = fresh[z],        // without the log-partition
                    2 => zeta[z] = h[z] + fresh[z], // its own potential in the place of the log-partition
                    3 => (0..k).filter(|i| *i != z).for_each(|i| zeta[i] = h[i] + fresh[i]), // not cut off
                    _ => {}
                }
                features(z, &zeta)
            };
            // More coordinates than usual: five standard errors.
            let right = distance(direct, |draw| given(0, draw));
            assert!(right < 5.0, "{h:?}: {right}");
            for wrong in 1..4 {
                let found = distance(direct, |draw| given(wrong, draw));
                assert!(found > 8.0, "{h:?}: wrong in the way {wrong} is not seen: {found}");
            }
        }
    }

    #[test]
    fn large_potentials_and_single_values_are_defined() {
        let mut zeta = [0.0; 3];
        given_argmax(&[300.0, -300.0, f32::NEG_INFINITY], 1, &[0.5, 0.25, 1.0], &mut zeta);
        assert_eq!(zeta[1], 300.25); // however unlikely it was
        assert!(zeta[0] < 300.25 && zeta[0] > 299.0 && zeta[2] == f32::NEG_INFINITY);
        given_argmax(&[2.0], 0, &[0.5], &mut zeta[..1]);
        assert_eq!(zeta[0], 2.5);
    }
}
