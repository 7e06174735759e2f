//! Vectors of sixteen numbers on every machine, chosen at run time: AVX-512, AVX2 with FMA, NEON, or plain Rust.
//!
//! All buffers of the engine are made of [`Lane`]s, and every kernel is written once over [`Vector`]. The number of
//! lanes is the same everywhere, so that layouts and orders of summation are too; machines differ only by fused
//! multiply-add and its absence.

use bytemuck::{Pod, Zeroable};
use pulp::WithSimd;

/// Numbers in a vector.
pub const LANES: usize = 16;

/// Sixteen numbers on a cache line of their own.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Lane(pub [f32; LANES]);

impl Lane {
    pub const ZERO: Lane = Lane([0.0; LANES]);
}

/// The same numbers one by one.
pub fn flat(lanes: &[Lane]) -> &[f32] {
    bytemuck::cast_slice(lanes)
}

/// The same numbers one by one.
pub fn flat_mut(lanes: &mut [Lane]) -> &mut [f32] {
    bytemuck::cast_slice_mut(lanes)
}

/// Lanes that hold `count` numbers.
pub const fn lanes(count: usize) -> usize {
    count.div_ceil(LANES)
}

/// Arithmetic on sixteen numbers at a time.
pub trait Vector: Copy {
    type V: Copy;
    /// Rows that fit into the registers of a product of tiles, with one vector each.
    const ROWS: usize;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &Lane) -> Self::V;
    fn store(self, x: &mut Lane, v: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// `a b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` where `x > y`, else `b`.
    fn choose(self, x: Self::V, y: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// `2^n` from the number `n + 1.5 * 2^23`, -126 <= n <= 127.
    fn power(self, shifted: Self::V) -> Self::V;

    /// About 1 / x, with an error of at most 2^-11.
    fn rough_reciprocal(self, x: Self::V) -> Self::V;
    /// The sum of the lanes.
    fn sum(self, a: Self::V) -> f32;

    /// The sums of the lanes of four vectors, in whichever order is fast.
    #[inline(always)]
    fn sums(self, a: [Self::V; 4]) -> [f32; 4] {
        [self.sum(a[0]), self.sum(a[1]), self.sum(a[2]), self.sum(a[3])]
    }

    /// 1 / x for normal x > 0 to about one unit in the last place. A division would wait for the square root before it.
    #[inline(always)]
    fn reciprocal(self, x: Self::V) -> Self::V {
        let y = self.rough_reciprocal(x);
        let e = self.fma(self.sub(self.zero(), x), y, self.splat(1.0));
        self.fma(y, e, y)
    }

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// exp(x) for x <= 0 to about 1.5 units in the last place; exp(-87) below -87.
    #[inline(always)]
    fn exp_of_negative(self, x: Self::V) -> Self::V {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
        let x = self.max(x, self.splat(-87.0));
        let shifted = self.fma(x, self.splat(std::f32::consts::LOG2_E), self.splat(ROUND));
        let n = self.sub(shifted, self.splat(ROUND));
        // ln 2 in two parts, so that the remainder keeps its digits.
        let r = self.fma(n, self.splat(-0.693_145_75), x);
        let r = self.fma(n, self.splat(-1.428_606_8e-6), r);
        let mut p = self.splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = self.fma(p, r, self.splat(c));
        }
        self.mul(p, self.power(shifted))
    }

    /// `ln(1 + exp(t))` and `1 / (1 + exp(-t))`.
    #[inline(always)]
    fn softplus_and_sigmoid(self, t: Self::V) -> (Self::V, Self::V) {
        let one = self.splat(1.0);
        let e = self.exp_of_negative(self.sub(self.zero(), self.abs(t)));
        let r = self.div(one, self.add(one, e));
        let sigmoid = self.choose(self.zero(), t, self.mul(e, r), r);
        (self.add(self.max(t, self.zero()), self.ln_1p(e)), sigmoid)
    }

    /// `ln(1 + exp(t))`.
    #[inline(always)]
    fn softplus(self, t: Self::V) -> Self::V {
        let e = self.exp_of_negative(self.sub(self.zero(), self.abs(t)));
        self.add(self.max(t, self.zero()), self.ln_1p(e))
    }

    /// ln(1 + y) for 0 <= y <= 1 through the series of atanh: ln(1 + y) = 2 atanh(y / (2 + y)).
    #[inline(always)]
    fn ln_1p(self, y: Self::V) -> Self::V {
        let s = self.div(y, self.add(self.splat(2.0), y));
        let t = self.mul(s, s);
        let mut p = self.splat(1.0 / 13.0);
        for c in [1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
            p = self.fma(p, t, self.splat(c));
        }
        self.mul(self.add(s, s), p)
    }
}

/// A piece of work that is compiled for every instruction set.
pub trait Kernel {
    fn run<W: Vector>(self, w: W);
}

/// Vectors of an instruction set of `pulp` with fused multiply-add: `N` of its vectors are sixteen numbers.
#[derive(Debug, Clone, Copy)]
pub struct Wide<S, const N: usize>(S);

macro_rules! lanewise {
    ($($name:ident($($arg:ident),+) => $op:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::V),+) -> Self::V {
            std::array::from_fn(
                #[inline(always)]
                |i| self.0.$op($($arg[i]),+),
            )
        }
    )+};
}

/// An approximate reciprocal with an error of at most 2^-11, in one instruction where there is one.
pub trait Rough: pulp::Simd {
    fn rough(self, x: Self::f32s) -> Self::f32s;

    /// The sums of the lanes of four vectors.
    #[inline(always)]
    fn four_sums(self, a: [Self::f32s; 4]) -> [f32; 4] {
        [self.reduce_sum_f32s(a[0]), self.reduce_sum_f32s(a[1]), self.reduce_sum_f32s(a[2]), self.reduce_sum_f32s(a[3])]
    }
}

#[cfg(target_arch = "x86_64")]
impl Rough for pulp::x86::V4 {
    #[inline(always)]
    fn rough(self, x: Self::f32s) -> Self::f32s {
        bytemuck::cast(self.avx512f._mm512_rcp14_ps(bytemuck::cast(x)))
    }

    /// The four are turned within each quarter of a vector, so that one addition is for all of them.
    #[inline(always)]
    fn four_sums(self, a: [Self::f32s; 4]) -> [f32; 4] {
        use std::arch::x86_64::{__m512, __m512d};
        let x = self.avx512f;
        let [a, b, c, d] = a;
        let (a, b): (__m512, __m512) = (bytemuck::cast(a), bytemuck::cast(b));
        let (c, d): (__m512, __m512) = (bytemuck::cast(c), bytemuck::cast(d));
        let ab = x._mm512_add_ps(x._mm512_unpacklo_ps(a, b), x._mm512_unpackhi_ps(a, b));
        let cd = x._mm512_add_ps(x._mm512_unpacklo_ps(c, d), x._mm512_unpackhi_ps(c, d));
        let (ab, cd): (__m512d, __m512d) = (bytemuck::cast(ab), bytemuck::cast(cd));
        let low: __m512 = bytemuck::cast(x._mm512_unpacklo_pd(ab, cd));
        let high: __m512 = bytemuck::cast(x._mm512_unpackhi_pd(ab, cd));
        let quarters: [[f32; 4]; 4] = bytemuck::cast(x._mm512_add_ps(low, high));
        std::array::from_fn(
            #[inline(always)]
            |i| (quarters[0][i] + quarters[1][i]) + (quarters[2][i] + quarters[3][i]),
        )
    }
}

#[cfg(target_arch = "x86_64")]
impl Rough for pulp::x86::V3 {
    #[inline(always)]
    fn rough(self, x: Self::f32s) -> Self::f32s {
        self.approx_reciprocal_f32x8(x)
    }
}

#[cfg(target_arch = "aarch64")]
impl Rough for pulp::aarch64::Neon {
    #[inline(always)]
    fn rough(self, x: Self::f32s) -> Self::f32s {
        pulp::Simd::div_f32s(self, pulp::Simd::splat_f32s(self, 1.0), x)
    }
}

impl<S: Rough, const N: usize> Vector for Wide<S, N> {
    type V = [S::f32s; N];
    const ROWS: usize = if N == 1 { 16 } else { 4 };

    lanewise! {
        add(a, b) => add_f32s;
        sub(a, b) => sub_f32s;
        mul(a, b) => mul_f32s;
        div(a, b) => div_f32s;
        max(a, b) => max_f32s;
        sqrt(a) => sqrt_f32s;
        abs(a) => abs_f32s;
        fma(a, b, c) => mul_add_e_f32s;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [self.0.splat_f32s(x); N]
    }

    #[inline(always)]
    fn load(self, x: &Lane) -> Self::V {
        let (parts, _) = S::as_simd_f32s(&x.0);
        std::array::from_fn(
            #[inline(always)]
            |i| parts[i],
        )
    }

    #[inline(always)]
    fn store(self, x: &mut Lane, v: Self::V) {
        let (parts, _) = S::as_mut_simd_f32s(&mut x.0);
        parts[..N].copy_from_slice(&v);
    }

    #[inline(always)]
    fn choose(self, x: Self::V, y: Self::V, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(
            #[inline(always)]
            |i| self.0.select_f32s(self.0.greater_than_f32s(x[i], y[i]), a[i], b[i]),
        )
    }

    #[inline(always)]
    fn rough_reciprocal(self, x: Self::V) -> Self::V {
        x.map(
            #[inline(always)]
            |x| self.0.rough(x),
        )
    }

    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        let mut sum = a[0];
        for part in &a[1..] {
            sum = self.0.add_f32s(sum, *part);
        }
        self.0.reduce_sum_f32s(sum)
    }

    #[inline(always)]
    fn sums(self, a: [Self::V; 4]) -> [f32; 4] {
        self.0.four_sums(a.map(
            #[inline(always)]
            |a| {
                let mut sum = a[0];
                for part in &a[1..] {
                    sum = self.0.add_f32s(sum, *part);
                }
                sum
            },
        ))
    }

    #[inline(always)]
    fn power(self, shifted: Self::V) -> Self::V {
        let s = self.0;
        let (bits, bias) = (s.splat_u32s(23), s.splat_u32s(1.0f32.to_bits()));
        std::array::from_fn(
            #[inline(always)]
            |i| {
                let n = s.wrapping_dyn_shl_u32s(s.transmute_u32s_f32s(shifted[i]), bits);
                s.transmute_f32s_u32s(s.add_u32s(n, bias))
            },
        )
    }
}

/// Plain Rust: what the compiler makes of loops over sixteen numbers for the machine it builds for.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

macro_rules! plain {
    ($($name:ident($($arg:ident),+) => $value:expr;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::V),+) -> Self::V {
            let mut out = [0.0; LANES];
            for (i, out) in out.iter_mut().enumerate() {
                $(let $arg = $arg[i];)+
                *out = $value;
            }
            out
        }
    )+};
}

impl Vector for Plain {
    type V = [f32; LANES];
    const ROWS: usize = 2;

    plain! {
        add(a, b) => a + b;
        sub(a, b) => a - b;
        mul(a, b) => a * b;
        div(a, b) => a / b;
        max(a, b) => if a > b { a } else { b };
        sqrt(a) => a.sqrt();
        abs(a) => a.abs();
        fma(a, b, c) => a * b + c;
        choose(x, y, a, b) => if x > y { a } else { b };
        power(n) => f32::from_bits((n.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    }

    #[inline(always)]
    fn rough_reciprocal(self, x: Self::V) -> Self::V {
        self.div([1.0; LANES], x)
    }

    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        let quarters: [f32; 4] = std::array::from_fn(|i| (a[i] + a[i + 4]) + (a[i + 8] + a[i + 12]));
        (quarters[0] + quarters[1]) + (quarters[2] + quarters[3])
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &Lane) -> Self::V {
        x.0
    }

    #[inline(always)]
    fn store(self, x: &mut Lane, v: Self::V) {
        x.0 = v;
    }
}

/// The instruction set in use.
#[derive(Debug, Clone, Copy)]
pub enum Isa {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    /// Arm's vectors.
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
}

impl Isa {
    /// The environment variable that holds the engine to less than the machine can do, for comparisons: `portable` or
    /// `avx2`.
    pub const VARIABLE: &'static str = "GUMBEL_SIMD";

    /// The best that this machine has, unless the environment asks for less.
    ///
    /// # Errors
    /// A name that is none of those that this machine has.
    pub fn detect() -> Result<Self, gumbel::Error> {
        let all = Self::all();
        match std::env::var(Self::VARIABLE) {
            Ok(name) if !name.is_empty() => {
                let names: Vec<&str> = all.iter().map(|isa| isa.name()).collect();
                let found = all.iter().find(|isa| isa.name() == name);
                let expected = || gumbel::registry::one_of(&name, &names);
                found.copied().ok_or_else(|| gumbel::Error::setting(Self::VARIABLE, format!("{name:?}"), expected()))
            }
            _ => Ok(all[0]),
        }
    }

    /// All that this machine has, the best first.
    pub fn all() -> Vec<Self> {
        let mut all = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(pulp::x86::V4::try_new().map(Isa::Avx512));
            all.extend(pulp::x86::V3::try_new().map(Isa::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(pulp::aarch64::Neon::try_new().map(Isa::Neon));
        all.push(Isa::Portable);
        all
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
        }
    }

    /// Runs a kernel compiled for this instruction set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) {
        struct Op<K, W>(K, W);
        impl<K: Kernel, W: Vector> WithSimd for Op<K, W> {
            type Output = ();

            // The type of the vectors is known already; the token only proves that we are inside of a function with
            // the instructions enabled.
            #[inline(always)]
            fn with_simd<T: pulp::Simd>(self, _: T) {
                self.0.run(self.1);
            }
        }
        match self {
            Isa::Portable => kernel.run(Plain),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(s) => pulp::Simd::vectorize(s, Op(kernel, Wide::<_, 2>(s))),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(s) => pulp::Simd::vectorize(s, Op(kernel, Wide::<_, 1>(s))),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(s) => pulp::Simd::vectorize(s, Op(kernel, Wide::<_, 4>(s))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Functions<'a>(&'a [Lane], &'a mut [Lane], &'a mut [Lane], &'a mut [Lane], &'a mut [Lane]);

    impl Kernel for Functions<'_> {
        #[inline(always)]
        fn run<W: Vector>(self, w: W) {
            for (i, t) in self.0.iter().enumerate() {
                let t = w.load(t);
                let (softplus, sigmoid) = w.softplus_and_sigmoid(t);
                w.store(&mut self.1[i], softplus);
                w.store(&mut self.2[i], sigmoid);
                w.store(&mut self.3[i], w.exp_of_negative(w.sub(w.zero(), w.abs(t))));
                w.store(&mut self.4[i], w.reciprocal(w.max(w.abs(t), w.splat(1e-8))));
            }
        }
    }

    #[test]
    fn functions_are_accurate_everywhere_on_every_instruction_set() {
        let grid = (-200_000..=200_000).map(|i| i as f32 * 5e-4);
        let grid: Vec<f32> = grid.chain([0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 3e38, -3e38, 1.0, 2.0, 3.0]).collect();
        let x: Vec<Lane> = grid.chunks_exact(LANES).map(|c| Lane(c.try_into().unwrap())).collect();
        for isa in Isa::all() {
            let [mut a, mut b, mut c, mut d] = [const { vec![] }; 4].map(|_: Vec<Lane>| vec![Lane::ZERO; x.len()]);
            isa.run(Functions(&x, &mut a, &mut b, &mut c, &mut d));
            for (i, t) in flat(&x).iter().enumerate() {
                let t = *t as f64;
                let check = |what: &str, found: f32, exact: f64| {
                    let error = (found as f64 - exact).abs();
                    assert!(error <= 4e-7 * exact + 2e-38, "{}: {what}({t}) = {found}, not {exact}", isa.name());
                };
                check("softplus", flat(&a)[i], t.max(0.0) + (-t.abs()).exp().ln_1p());
                check("sigmoid", flat(&b)[i], 1.0 / (1.0 + (-t).exp()));
                check("exp -|t|", flat(&c)[i], (-t.abs()).exp());
                if t.abs() < 1e30 {
                    check("1 / |t|", flat(&d)[i], 1.0 / t.abs().max(1e-8f32 as f64));
                }
            }
        }
    }
}
