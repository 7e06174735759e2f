//! Arg max of `Supermodular` beside the maximum flows of petgraph and pathfinding on the same instances.
//!
//! Throughput is in instances. Ours starts from the potentials; the peers' graphs are built outside the measurement.
//! The peers get integer capacities, scaled: pathfinding takes no floating-point ones. The values are compared once
//! before.
//!
//! Instances: `u ~ N(0,1) +` difference of two Gumbels, weights `sigma |N(0,1)|`. "balanced" takes half of a variable's
//! weights from its u (sigma = 1), and "hard" with u multiplied by sqrt(n).

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Structure, Supermodular};
use pathfinding::directed::edmonds_karp::edmonds_karp_dense;
use petgraph::algo::{dinics, ford_fulkerson};
use petgraph::graph::{DiGraph, NodeIndex};
use std::hint::black_box;
use std::time::Duration;

const BATCH: usize = 20;
/// Integer capacities are multiples of this.
const UNIT: f64 = 1.0 / (1u64 << 30) as f64;

/// From, to, capacity.
type Edge = ((usize, usize), i64);

fn normal(count: usize, index: u64) -> Vec<f32> {
    let mut uniform = vec![0.0; 2 * count];
    Noise::new(0, Purpose::User(0), index).uniform(&mut uniform);
    let pairs = uniform.as_chunks().0.iter();
    pairs.map(|[a, b]| (-2.0 * a.ln()).sqrt() * (std::f32::consts::TAU * b).cos()).collect()
}

fn instance(s: &Supermodular, family: &str, index: u64) -> Vec<f32> {
    let (n, u) = (s.variables(), s.unary());
    let (sigma, scale) = match family {
        "0.3" => (0.3, 1.0),
        "3/n" => (3.0 / n as f32, 1.0),
        "hard" => (1.0, (n as f32).sqrt()),
        _ => (1.0, 1.0),
    };
    let mut h = vec![0.0; s.potentials()];
    Noise::new(1, Purpose::Noise, index).gumbel(&mut h[..u]);
    normal(n, 2 * index).iter().enumerate().for_each(|(i, x)| h[2 * i + 1] += x);
    h[..u].iter_mut().for_each(|x| *x *= scale);
    h[u..].iter_mut().zip(normal(s.potentials() - u, 2 * index + 1)).for_each(|(w, x)| *w = sigma * x.abs());
    if matches!(family, "balanced" | "hard") {
        for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
            let half = 0.5 * h[s.pair(i, j)];
            h[2 * i + 1] -= half;
            h[2 * j + 1] -= half;
        }
    }
    h
}

/// The edges of the flow problem, and the objective at a flow of zero; source n, sink n + 1.
fn network(s: &Supermodular, h: &[f32]) -> (Vec<Edge>, f64) {
    let n = s.variables();
    let mut c: Vec<f64> = (0..n).map(|i| 2.0 * (h[2 * i + 1] as f64 - h[2 * i] as f64)).collect();
    let mut edges = Vec::new();
    for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
        let w = h[s.pair(i, j)] as f64;
        c[i] += w;
        c[j] += w;
        edges.extend([((i, j), w), ((j, i), w)]);
    }
    edges.extend((0..n).map(|i| if c[i] > 0.0 { ((n, i), c[i]) } else { ((i, n + 1), -c[i]) }));
    let all: f64 = c.iter().map(|c| c.max(0.0)).sum();
    let zeros: f64 = (0..n).map(|i| h[2 * i] as f64).sum();
    (edges.into_iter().map(|(e, w)| (e, (w / UNIT).round() as i64)).collect(), zeros + 0.5 * all)
}

fn graph(n: usize, edges: &[Edge]) -> DiGraph<(), u64> {
    let mut graph = DiGraph::new();
    let nodes: Vec<NodeIndex> = (0..n + 2).map(|_| graph.add_node(())).collect();
    for ((i, j), capacity) in edges {
        graph.add_edge(nodes[*i], nodes[*j], *capacity as u64);
    }
    graph
}

fn bench(criterion: &mut Criterion) {
    for n in [15, 50, 100] {
        for family in ["1", "0.3", "3/n", "balanced", "hard"] {
            let s = Supermodular::new(n).unwrap();
            let instances: Vec<_> = (0..BATCH as u64).map(|i| instance(&s, family, i)).collect();
            let networks: Vec<_> = instances.iter().map(|h| network(&s, h)).collect();
            let graphs: Vec<_> = networks.iter().map(|(edges, _)| graph(n, edges)).collect();
            let (source, sink) = (NodeIndex::new(n), NodeIndex::new(n + 1));
            let nodes: Vec<usize> = (0..n + 2).collect();

            let (mut z, mut scratch) = (vec![0; n], s.scratch());
            for ((h, (_, most)), g) in instances.iter().zip(&networks).zip(&graphs) {
                let ours = s.argmax(h, &mut z, &mut scratch).unwrap().value;
                let theirs = most - 0.5 * dinics(g, source, sink).0 as f64 * UNIT;
                assert!((ours - theirs).abs() < 1e-3, "{ours}, petgraph {theirs}");
            }

            let mut group = criterion.benchmark_group(format!("supermodular/n={n}"));
            group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
            group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
            group.bench_function(BenchmarkId::new("argmax", family), |b| {
                b.iter(|| instances.iter().for_each(|h| drop(s.argmax(black_box(h), &mut z, &mut scratch))))
            });
            // To unaries with changed noise and back: two solutions of every instance, half the throughput shown.
            let changed: Vec<_> = instances.iter().zip(0..).map(|(h, i)| change(&s, h, i)).collect();
            let mut warm: Vec<_> = instances.iter().map(|_| (vec![0; n], s.scratch())).collect();
            for (h, (z, scratch)) in instances.iter().zip(&mut warm) {
                s.argmax(h, z, scratch).unwrap();
            }
            group.bench_function(BenchmarkId::new("resolve twice", family), |b| {
                b.iter(|| {
                    for batch in [&changed, &instances] {
                        for (h, (z, scratch)) in batch.iter().zip(&mut warm) {
                            s.resolve(black_box(h), z, scratch).unwrap();
                        }
                    }
                })
            });
            group.bench_function(BenchmarkId::new("petgraph dinics", family), |b| {
                b.iter(|| graphs.iter().for_each(|g| drop(dinics(black_box(g), source, sink))))
            });
            if n > 50 {
                continue; // the others take seconds here
            }
            group.bench_function(BenchmarkId::new("petgraph ford_fulkerson", family), |b| {
                b.iter(|| graphs.iter().for_each(|g| drop(ford_fulkerson(black_box(g), source, sink))))
            });
            group.bench_function(BenchmarkId::new("pathfinding edmonds_karp_dense", family), |b| {
                b.iter(|| {
                    for (edges, _) in &networks {
                        black_box(edmonds_karp_dense(&nodes, &n, &(n + 1), edges.iter().copied()));
                    }
                })
            });
        }
    }
}

/// The instance with unaries changed by 0.1 N(0,1).
fn change(s: &Supermodular, h: &[f32], index: u64) -> Vec<f32> {
    let mut changed = h.to_vec();
    changed.iter_mut().zip(normal(s.unary(), 1_000_000 + index)).for_each(|(h, x)| *h += 0.1 * x);
    changed
}

criterion_group!(benches, bench);
criterion_main!(benches);
