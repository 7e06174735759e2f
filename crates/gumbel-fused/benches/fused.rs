//! Kernels of the fused engine, and whole steps: the paper's sizes, random images with 13 % ones, one thread.
//!
//! `cargo bench -p gumbel-fused --bench fused`; `GUMBEL_SIMD=avx2` or `portable` for less than the machine can do.

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod common;

use common::{Case, Pictures};
use criterion::{Criterion, criterion_group, criterion_main};
use gumbel::engine::{Engine, Shape, StepOptions};
use gumbel::estimator::{Direct, Estimator, Exact, GumbelSoftmax};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{AnyStructure, Categorical};
use gumbel_fused::bits::Members;
use gumbel_fused::dense::{self, Dense};
use gumbel_fused::first::{self, First};
use gumbel_fused::output::{self, Output, Role};
use gumbel_fused::simd::{LANES, Lane};
use gumbel_fused::tile::Rates;
use gumbel_fused::{Bits, Isa};

const PIXELS: usize = 784;
const HIDDEN: usize = 300;
const BATCH: usize = 100;
const RATES: Rates = Rates { rate: 1e-3, root: 1.0 };

fn images() -> Vec<u8> {
    let mut u = vec![0.0; 2000 * PIXELS];
    Noise::new(0, Purpose::User(0), 0).uniform(&mut u);
    u.iter().map(|u| (*u < 0.13) as u8).collect()
}

/// Lanes of small numbers, about half of them zero as after ReLU.
fn units(count: usize) -> Vec<Lane> {
    let mut u = vec![0.0; count * LANES];
    Noise::new(1, Purpose::User(0), 0).uniform(&mut u);
    u.chunks_exact(LANES).map(|c| Lane(std::array::from_fn(|l| (c[l] - 0.5).max(0.0) * 0.1))).collect()
}

fn kernels(c: &mut Criterion) {
    let isa = Isa::detect().expect("an instruction set of this machine");
    let bits = Bits::new(&images(), PIXELS).expect("zeros and ones");
    let batch: Vec<u32> = (0..BATCH as u32).collect();
    let mut members = Members::new(PIXELS, BATCH);
    c.bench_function("images by pixel", |b| b.iter(|| members.fill(&bits, &batch)));

    let mut layer = First::new(PIXELS, HIDDEN, BATCH);
    let First { groups, slices, .. } = &mut layer;
    c.bench_function("first layer, forward", |b| {
        b.iter(|| {
            for (number, group) in groups.iter_mut().enumerate() {
                isa.run(first::Forward { number, group, slices, bits: &bits, batch: &batch });
            }
        })
    });
    let gradients = units(HIDDEN.div_ceil(LANES) * BATCH);
    let touched = vec![true; PIXELS / 2];
    c.bench_function("first layer, gradient and Adam", |b| {
        b.iter(|| {
            for slice in slices.iter_mut() {
                let gradient = |g: usize| &gradients[g * BATCH..][..BATCH];
                isa.run(first::Update { slice, gradient, members: &members, touched: &touched, rates: RATES });
            }
        })
    });

    let rows = 7 * LANES;
    let x = units(HIDDEN.div_ceil(LANES) * rows);
    for k in [10, 50] {
        let mut last = Dense::new(HIDDEN, k, BATCH);
        let gradients = units(k.div_ceil(LANES) * rows);
        c.bench_function(&format!("encoder's last layer, gradient and Adam, K = {k}"), |b| {
            b.iter(|| {
                for (g, slab) in last.slabs.iter_mut().enumerate() {
                    let x = |c: usize| &x[g * rows + c * LANES..][..LANES];
                    let gradient = |o: usize, c: usize| &gradients[o * rows + c * LANES..][..LANES];
                    isa.run(dense::Backward { slab, outputs: k, x, gradient, rows: BATCH, rates: RATES });
                }
            })
        });

        let mut layer = Output::new(PIXELS, HIDDEN, k);
        let chunks = k.div_ceil(LANES);
        let hidden = units(HIDDEN.div_ceil(LANES) * chunks * LANES);
        let tile = |g: usize, c: usize| &hidden[(g * chunks + c) * LANES..][..LANES];
        let Output { blocks, logits, .. } = &mut layer;
        let part = Output::part(k);
        c.bench_function(&format!("output layer, table forward, K = {k}"), |b| {
            b.iter(|| {
                for (block, logits) in blocks.iter_mut().zip(logits.chunks_mut(part)) {
                    let (transposed, units) = (tile, tile);
                    isa.run(output::Forward { block, logits, transposed, units, width: HIDDEN, rows: k });
                }
            })
        });
        let chosen: Vec<u32> = (0..BATCH as u32).map(|b| b * 7 % k as u32).collect();
        let role = Role::Chosen { chosen: &chosen, weights: &[0.01; BATCH] };
        let totals = vec![Lane([0.1; LANES]); chunks];
        c.bench_function(&format!("output layer, gradient and Adam, K = {k}"), |b| {
            b.iter(|| {
                for (block, logits) in blocks.iter_mut().zip(logits.chunks(part)) {
                    let (role, totals, bits, batch) = (&role, &totals, &bits, &batch);
                    let (width, rows, rates, units) = (HIDDEN, k, RATES, tile);
                    isa.run(output::Backward { block, logits, units, width, rows, totals, role, bits, batch, rates });
                }
            })
        });
    }
}

fn steps(c: &mut Criterion) {
    let images = Pictures::new(images(), Shape::grey(28, 28));
    let direct = || -> Box<dyn Estimator> { Box::new(Direct::new(1.0).expect("a positive epsilon")) };
    for (name, structure, mut estimator) in [
        ("direct, K = 10", Categorical::new(10), direct()),
        ("direct, K = 50", Categorical::new(50), direct()),
        ("exact, K = 50", Categorical::new(50), Box::new(Exact)),
        ("direct, 15 binary variables", Categorical::binary(15), direct()),
        ("gumbel-softmax, K = 10", Categorical::new(10), Box::new(GumbelSoftmax::new(1.0).expect("a temperature"))),
    ] {
        let structure: AnyStructure = structure.expect("a small structure").into();
        let case = Case { hidden: "300", batch: BATCH, ..Case::new(&structure) };
        let mut fused = case.fused(images.shape, estimator.as_ref());
        let mut step = 0;
        c.bench_function(&format!("step: {name}"), |b| {
            b.iter(|| {
                let first = step as u32 % 20 * BATCH as u32;
                let batch: [u32; BATCH] = std::array::from_fn(|b| first + b as u32);
                let noise = Noise::new(0, Purpose::Noise, step);
                step += 1;
                let options = StepOptions::discrete(1.0, &noise, 1);
                fused.step(&images, &batch, estimator.as_mut(), &options).expect("finite losses")
            })
        });
    }
}

criterion_group!(benches, kernels, steps);
criterion_main!(benches);
