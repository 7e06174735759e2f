//! Throughput of permutations, spanning trees and arborescences on one thread: arg max, solving again, sums, samples.
//!
//! `cargo bench -p gumbel --bench matchings`. Spanning trees stand beside petgraph's Kruskal on the same instances; its
//! graph is built outside the clock. Peers in Python: `peers/matchings.py`.

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Arborescence, Permutation, SpanningTree, Structure, Sums};
use petgraph::algo::min_spanning_tree;
use petgraph::graph::UnGraph;
use std::hint::black_box;

/// Instances of a batch.
const BATCH: usize = 16;

/// `[BATCH, P]` Gumbel variables.
fn instances<S: Structure>(structure: &S) -> Vec<f32> {
    let mut potentials = vec![0.0; BATCH * structure.potentials()];
    Noise::new(0, Purpose::User(0), 0).gumbel(&mut potentials);
    potentials
}

fn argmax<S: Structure>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, structure: &S, potentials: &[f32]) {
    let (mut scratch, mut z) = (structure.scratch(), vec![0; structure.variables()]);
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            for h in potentials.chunks_exact(structure.potentials()) {
                black_box(structure.argmax(black_box(h), &mut z, &mut scratch).unwrap());
            }
        })
    });
}

fn sums<S: Sums>(group: &mut BenchmarkGroup<'_, WallTime>, structure: &S, potentials: &[f32]) {
    let p = structure.potentials();
    let (mut out, mut z) = (vec![0.0; p], vec![0; structure.variables()]);
    let mut generator = Noise::new(0, Purpose::User(1), 0).generator_at(0);
    group.throughput(Throughput::Elements(1));
    group.bench_function("log-partition", |b| b.iter(|| structure.log_partition(black_box(&potentials[..p]))));
    group.bench_function("marginals", |b| b.iter(|| structure.marginals(black_box(&potentials[..p]), &mut out)));
    group.bench_function("kl", |b| b.iter(|| structure.kl_to_uniform(black_box(&potentials[..p]), 1.0, &mut out)));
    group
        .bench_function("sample", |b| b.iter(|| structure.sample(black_box(&potentials[..p]), &mut generator, &mut z)));
    let wide: Vec<f32> = potentials[..p].iter().map(|h| h * 1e3).collect();
    group.bench_function("marginals in logarithms", |b| b.iter(|| structure.marginals(black_box(&wide), &mut out)));
}

fn permutations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("permutation");
    for n in [10, 50, 100, 200] {
        let permutation = Permutation::new(n).unwrap();
        let potentials = instances(&permutation);
        argmax(&mut group, &format!("argmax/{n}"), &permutation, &potentials);
        let ties: Vec<f32> = potentials.iter().map(|h| h.round()).collect();
        argmax(&mut group, &format!("argmax, ties/{n}"), &permutation, &ties);

        let (mut scratch, mut z) = (permutation.scratch(), vec![0; n]);
        let mut changed = potentials[..n * n].to_vec();
        permutation.argmax(&changed, &mut z, &mut scratch).unwrap();
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("resolve, one row/{n}"), |b| {
            b.iter(|| {
                changed[..n].rotate_right(1);
                permutation.resolve(black_box(&changed), &mut z, &mut scratch).unwrap()
            })
        });
    }
}

fn spanning_trees(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spanning tree, complete, 100 nodes");
    let tree = SpanningTree::complete(100).unwrap();
    let potentials = instances(&tree);
    argmax(&mut group, "argmax", &tree, &potentials);
    let reversed: Vec<_> = tree.edges().iter().rev().copied().collect();
    argmax(&mut group, "argmax as a sparse graph", &SpanningTree::new(100, &reversed).unwrap(), &potentials);

    let graph = |h: &[f32]| {
        let edges = tree.edges().iter().zip(h).map(|((i, j), h)| (*i as u32, *j as u32, -h));
        UnGraph::<(), f32>::from_edges(edges)
    };
    let graphs: Vec<_> = potentials.chunks_exact(tree.potentials()).map(graph).collect();
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("petgraph min_spanning_tree", |b| {
        b.iter(|| graphs.iter().map(|g| min_spanning_tree(black_box(g)).count()).sum::<usize>())
    });
    sums(&mut group, &tree, &potentials);
}

fn arborescences(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("arborescence, 100 nodes");
    let arborescence = Arborescence::new(100, 0).unwrap();
    let potentials = instances(&arborescence);
    argmax(&mut group, "argmax", &arborescence, &potentials);
    sums(&mut group, &arborescence, &potentials);
}

criterion_group!(benches, permutations, spanning_trees, arborescences);
criterion_main!(benches);
