//! Pairwise binary model: arg max (cold and warm) and sums, per instance.
//!
//! Dense instances: unary potentials normal plus Gumbel noise, weights `sigma` times normal.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Pairwise, Structure, Sums};
use std::hint::black_box;
use std::time::Duration;

fn instances(n: usize, sigma: f32, count: u64) -> Vec<Vec<f32>> {
    let make = |seed| {
        let (mut gumbel, mut uniform) = (vec![0.0; 2 * n], vec![0.0; 2 * n + n * n]);
        Noise::new(seed, Purpose::User(0), 0).gumbel(&mut gumbel);
        Noise::new(seed, Purpose::User(1), 0).uniform(&mut uniform);
        let mut normal =
            uniform.chunks_exact(2).map(|u| (-2.0 * u[0].ln()).sqrt() * (std::f32::consts::TAU * u[1]).cos());
        for pair in gumbel.chunks_exact_mut(2) {
            pair[1] += normal.next().unwrap();
        }
        gumbel.extend(normal.take(n * (n - 1) / 2).map(|x| sigma * x));
        gumbel
    };
    (0..count).map(make).collect()
}

fn argmax(c: &mut Criterion) {
    let mut group = c.benchmark_group("pairwise");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1500));
    for (n, sigma, count) in [(15, 1.0, 100), (30, 1.0, 30), (40, 1.0, 20), (50, 1.0, 10), (30, 0.3, 30), (40, 0.3, 20)]
    {
        let model = Pairwise::new(n).unwrap();
        let cold = instances(n, sigma, count);
        let mut scratch = model.scratch();
        let mut z = vec![0; n];
        group.throughput(Throughput::Elements(count));
        let name = format!("n={n} sigma={sigma}");
        group.bench_function(BenchmarkId::new("argmax", &name), |b| {
            b.iter(|| {
                for h in &cold {
                    black_box(model.argmax(h, &mut z, &mut scratch).unwrap());
                }
            })
        });
        // Every instance again with slightly changed unary potentials, each time from its own solved state.
        let mut warm: Vec<_> = cold
            .iter()
            .map(|h| {
                let (mut scratch, mut z, mut changed) = (model.scratch(), vec![0; n], h.clone());
                model.argmax(h, &mut z, &mut scratch).unwrap();
                let mut noise = vec![0.0; 2 * n];
                Noise::new(9, Purpose::User(2), 0).zero_mean_gumbel(&mut noise);
                changed.iter_mut().zip(&noise).for_each(|(h, e)| *h += 0.1 * e);
                (scratch, z, [changed, h.clone()])
            })
            .collect();
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("resolve", &name), |b| {
            b.iter(|| {
                for (scratch, z, potentials) in &mut warm {
                    black_box(model.resolve(&potentials[turn], z, scratch).unwrap());
                }
                turn = 1 - turn;
            })
        });
    }
    group.finish();
}

fn sums(c: &mut Criterion) {
    let mut group = c.benchmark_group("pairwise sums");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1000));
    for n in [10, 15, 20] {
        let model = Pairwise::new(n).unwrap();
        let h = &instances(n, 1.0, 1)[0];
        let mut out = vec![0.0; model.potentials()];
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("marginals", n), |b| b.iter(|| model.marginals(h, &mut out).unwrap()));
        group.bench_function(BenchmarkId::new("kl", n), |b| b.iter(|| model.kl_to_uniform(h, 1.0, &mut out).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, argmax, sums);
criterion_main!(benches);
