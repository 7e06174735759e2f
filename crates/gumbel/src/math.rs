//! Small numerical functions on slices: softmax, log-sum-exp.

/// Evaluates an expression compiled for the vector instructions of the machine, which are looked for when it runs.
/// What it calls must be inlined (`#[inline(always)]`) to be compiled so too.
///
/// A closure that can be called once only: that of any other kind is called through a function of the standard library,
/// which is compiled without those instructions.
#[doc(hidden)]
#[macro_export]
macro_rules! vectorised {
    ($value:expr) => {{
        struct Once;
        let once = Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _once: Once = once;
                $value
            },
        )
    }};
}

/// `ln sum_k exp(x_k)` in nats, stable for any finite input; `-inf` for an empty slice or one of `-inf` only.
pub fn log_sum_exp(x: &[f32]) -> f32 {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return max;
    }
    max + x.iter().map(|v| (v - max).exp()).sum::<f32>().ln()
}

/// Writes `softmax(x)` into `out` (same length) and returns `ln sum_k exp(x_k)`.
///
/// `-inf` gets probability zero; if all values are `-inf` the result is all zeros.
pub fn softmax(x: &[f32], out: &mut [f32]) -> f32 {
    out.copy_from_slice(x);
    softmax_in_place(out)
}

/// Replaces `x` by `softmax(x)` and returns `ln sum_k exp(x_k)`.
pub fn softmax_in_place(x: &mut [f32]) -> f32 {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        x.fill(0.0);
        return max;
    }
    x.iter_mut().for_each(|v| *v = exp_nonpositive(*v - max));
    // Several partial sums, which the compiler can keep in one vector.
    let mut sums = [0.0; 8];
    let (eights, rest) = x.as_chunks::<8>();
    eights.iter().for_each(|eight| sums.iter_mut().zip(eight).for_each(|(s, v)| *s += v));
    sums.iter_mut().zip(rest).for_each(|(s, v)| *s += v);
    let sum: f32 = sums.iter().sum();
    let inverse = 1.0 / sum;
    x.iter_mut().for_each(|v| *v *= inverse);
    max + sum.ln()
}

/// Index of the largest value, the first one among equals; `None` for an empty slice.
///
/// NaN values are never chosen unless there is nothing else: check for them before.
#[inline]
pub fn argmax(x: &[f32]) -> Option<usize> {
    // First the maximum, several at a time, then its place.
    let mut lanes = [f32::NEG_INFINITY; 8];
    let (eights, rest) = x.as_chunks::<8>();
    let greater = |lane: &mut f32, v: f32| *lane = if v > *lane { v } else { *lane };
    eights.iter().for_each(|eight| lanes.iter_mut().zip(eight).for_each(|(lane, v)| greater(lane, *v)));
    lanes.iter_mut().zip(rest).for_each(|(lane, v)| greater(lane, *v));
    let best = lanes.into_iter().fold(f32::NEG_INFINITY, |best, v| if v > best { v } else { best });
    if x.is_empty() { None } else { Some(x.iter().position(|v| *v == best).unwrap_or(0)) }
}

/// `exp(x)` for `x <= 0`, to the rounding of f32 (2 ulp), zero below -87 where f32 turns subnormal; written so that
/// loops over it are vectorised.
#[inline(always)]
pub fn exp_nonpositive(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_145_75; // 15 bits: its products with small integers are exact
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    // Adding 1.5 * 2^23 rounds to an integer n, which then stands in the low bits.
    let clamped = if x > -88.0 { x } else { -88.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW; // |r| <= ln 2 / 2
    // Taylor's series to the order 7: remainder under 6e-9.
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x >= -87.0 { sum * power } else { 0.0 }
}

/// ln(1 + y) for 0 <= y <= 1, through the series of atanh: ln(1 + y) = 2 atanh(y / (2 + y)).
#[inline(always)]
fn ln_1p_of_fraction(y: f32) -> f32 {
    let s = y / (2.0 + y);
    let t = s * s;
    let mut p = 1.0 / 13.0f32;
    for c in [1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        p = p * t + c;
    }
    2.0 * s * p
}

/// `ln(1 + exp(t))`, finite for every finite t, to a few units in the last place.
#[inline(always)]
pub fn softplus(t: f32) -> f32 {
    t.max(0.0) + ln_1p_of_fraction(exp_nonpositive(-t.abs()))
}

/// `1 / (1 + exp(-t))`, to a few units in the last place.
#[inline(always)]
pub fn sigmoid(t: f32) -> f32 {
    let e = exp_nonpositive(-t.abs());
    let r = 1.0 / (1.0 + e);
    if t >= 0.0 { r } else { e * r }
}

/// `ln(x)` for normal x > 0, to about one unit in the last place, also near 1; written so that loops over it are
/// vectorised.
#[inline(always)]
pub(crate) fn ln_positive(x: f32) -> f32 {
    const ROOT_HALF: u32 = 0x3f35_04f3;
    // x = 2^e m with m in [sqrt(1/2), sqrt(2)): m - 1 is exact.
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF);
    let e = ((shifted as i32) >> 23) as f32;
    let f = f32::from_bits((shifted & 0x007f_ffff) + ROOT_HALF) - 1.0;
    // Minimax polynomial of Cephes' logf (Moshier).
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * f + c;
    }
    let square = f * f;
    let y = f * square * p - 2.121_944_4e-4 * e - 0.5 * square;
    f + y + 0.693_359_4 * e
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> impl Iterator<Item = f32> {
        (-200_000..=200_000).map(|i| i as f32 * 5e-4).chain([0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 3e38, -3e38])
    }

    #[test]
    fn approximations_are_accurate_everywhere() {
        for t in grid() {
            let exact = (t as f64).max(0.0) + (-(t as f64).abs()).exp().ln_1p();
            let error = (softplus(t) as f64 - exact).abs();
            assert!(error <= 4e-7 * exact + 1e-37, "softplus({t}) = {}, expected {exact}", softplus(t));
            let exact = 1.0 / (1.0 + (-(t as f64)).exp());
            let error = (sigmoid(t) as f64 - exact).abs();
            assert!(error <= 4e-7 * exact + 1e-37, "sigmoid({t}) = {}, expected {exact}", sigmoid(t));
        }
    }

    #[test]
    fn the_logarithm_is_exact_to_the_rounding() {
        let near_one = (0..1000).flat_map(|i| [1.0 - i as f32 * 6e-8, 1.0 + i as f32 * 1.2e-7]);
        let everywhere = (0..2_000_000u32).map(|i| f32::from_bits(0x0080_0000 + i * 1060));
        for x in everywhere.chain(near_one) {
            let exact = (x as f64).ln();
            assert!((ln_positive(x) as f64 - exact).abs() <= 1.2e-7 * exact.abs(), "{x}: {}, {exact}", ln_positive(x));
        }
        assert_eq!(ln_positive(1.0), 0.0);
    }

    #[test]
    fn softmax_is_stable_and_normalised() {
        let mut p = [0.0; 3];
        let lse = softmax(&[1000.0, 1000.0, f32::NEG_INFINITY], &mut p);
        assert_eq!(p, [0.5, 0.5, 0.0]);
        assert!((lse - (1000.0 + 2f32.ln())).abs() < 1e-3);
        assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
        assert_eq!(softmax(&[f32::NEG_INFINITY; 2], &mut p[..2]), f32::NEG_INFINITY);
        assert_eq!(p[..2], [0.0, 0.0]);
    }

    #[test]
    fn the_exponential_of_negative_numbers_is_exact_to_the_rounding() {
        for i in 0..=870_000 {
            let x = i as f32 * -1e-4;
            let exact = (x as f64).exp();
            assert!((exp_nonpositive(x) as f64 - exact).abs() <= 1.5e-7 * exact, "{x}");
        }
        assert_eq!([0.0, -0.0, -1e-30].map(exp_nonpositive), [1.0; 3]);
        assert_eq!([-87.5, -1e30, f32::NEG_INFINITY].map(exp_nonpositive), [0.0; 3]);
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[2.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), Some(0));
    }
}
