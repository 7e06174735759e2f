//! Categorical, chain, tree and subset: arg max, marginals, KL with its gradient, and samples, one instance after the
//! other.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gumbel::noise::{Noise, Purpose, below};
use gumbel::structure::{Categorical, Chain, Subset, Sums, Tree};
use std::hint::black_box;

/// Instances gone through in turn, so that no branch predictor learns one by heart.
const INSTANCES: usize = 16;

fn operations<S: Sums>(c: &mut Criterion, name: &str, structure: &S) {
    let p = structure.potentials();
    let mut potentials = vec![0.0; INSTANCES * p];
    Noise::new(0, Purpose::User(0), 0).gumbel(&mut potentials);
    let mut z = vec![0; structure.variables()];
    let (mut scratch, mut out) = (structure.scratch(), vec![0.0; p]);
    let mut generator = Noise::new(0, Purpose::User(1), 0).generator_at(0);

    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    let mut bench = |operation: &str, run: &mut dyn FnMut(&[f32])| {
        let mut instances = potentials.chunks_exact(p).cycle();
        group.bench_function(BenchmarkId::from_parameter(operation), |b| {
            b.iter(|| run(black_box(instances.next().unwrap())))
        });
    };
    bench("argmax", &mut |h| {
        structure.argmax(h, &mut z, &mut scratch).unwrap();
    });
    bench("log-partition", &mut |h| {
        structure.log_partition(h).unwrap();
    });
    bench("marginals", &mut |h| {
        structure.marginals(h, &mut out).unwrap();
    });
    bench("kl", &mut |h| {
        structure.kl_to_uniform(h, 1.0, &mut out).unwrap();
    });
    bench("sample", &mut |h| structure.sample(h, &mut generator, &mut z).unwrap());
    group.finish();
}

fn sequences(c: &mut Criterion) {
    operations(c, "categorical n=1 K=50", &Categorical::new(50).unwrap());
    operations(c, "categorical n=20 K=10", &Categorical::product(20, 10).unwrap());
    operations(c, "chain T=100 K=32", &Chain::new(100, 32).unwrap());
    operations(c, "chain T=100 K=4", &Chain::new(100, 4).unwrap());
    let mut generator = Noise::new(0, Purpose::User(2), 0).generator_at(0);
    let edges: Vec<(usize, usize)> = (1..100).map(|i| (below(&mut generator, i as u64) as usize, i)).collect();
    operations(c, "tree n=100 K=8", &Tree::new(100, 8, &edges).unwrap());
    operations(c, "subset n=100 k=10", &Subset::new(100, 10).unwrap());
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(std::time::Duration::from_secs(2)).without_plots();
    targets = sequences
}
criterion_main!(benches);
