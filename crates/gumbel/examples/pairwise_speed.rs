//! Times of the pairwise arg max on random instances: percentiles in milliseconds, one thread.
//!
//! `cargo run --release -p gumbel --example pairwise_speed [-- NAME-PART [INSTANCES]]`

use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Pairwise, Structure, argmax_batch};
use std::time::{Duration, Instant};

/// A stream of uniform numbers.
struct Stream(std::vec::IntoIter<f32>);

impl Stream {
    fn new(seed: u64, count: usize) -> Self {
        let mut numbers = vec![0.0; count];
        Noise::new(seed, Purpose::User(1), 0).uniform(&mut numbers);
        Stream(numbers.into_iter())
    }

    fn uniform(&mut self) -> f32 {
        self.0.next().expect("enough numbers")
    }

    fn normal(&mut self) -> f32 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f32::consts::TAU * self.uniform()).cos()
    }

    fn gumbel(&mut self) -> f32 {
        -(-self.uniform().ln()).ln()
    }

    fn integer(&mut self, low: i32, high: i32) -> f32 {
        (low as f32 + (self.uniform() * (high - low + 1) as f32).floor()).min(high as f32)
    }
}

/// Dense: unary normal with Gumbel noise, weights `sigma * normal`.
fn gaussian(n: usize, sigma: f32, seed: u64) -> Vec<f32> {
    let mut s = Stream::new(seed, 8 * n + n * n);
    let mut h: Vec<f32> = (0..n).flat_map(|_| [s.gumbel(), s.normal() + s.gumbel()]).collect();
    h.extend((0..n * (n - 1) / 2).map(|_| sigma * s.normal()));
    h
}

/// `z'Qz` with integers: diagonal and off-diagonal in the given ranges, the latter counted twice and with a density.
fn integers(n: usize, diagonal: (i32, i32), pairs: (i32, i32), density: f32, seed: u64) -> Vec<f32> {
    let mut s = Stream::new(seed, n + n * n);
    let mut h: Vec<f32> = (0..n).flat_map(|_| [0.0, s.integer(diagonal.0, diagonal.1)]).collect();
    let mut pair = || if s.uniform() < density { 2.0 * s.integer(pairs.0, pairs.1) } else { 0.0 };
    h.extend((0..n * (n - 1) / 2).map(|_| pair()));
    h
}

/// Integer weights on a square torus, no fields.
fn torus(side: usize, seed: u64) -> Vec<f32> {
    let n = side * side;
    let mut s = Stream::new(seed, 2 * n);
    let model = Pairwise::new(n).unwrap();
    let mut h = vec![0.0; model.potentials()];
    let mut add = |a: usize, b: usize| {
        let w = if s.uniform() < 0.5 { 4.0 } else { -4.0 };
        h[model.pair(a.min(b), a.max(b))] += w;
        h[2 * a + 1] -= 0.5 * w;
        h[2 * b + 1] -= 0.5 * w;
    };
    for y in 0..side {
        for x in 0..side {
            add(y * side + x, y * side + (x + 1) % side);
            add(y * side + x, (y + 1) % side * side + x);
        }
    }
    h
}

fn main() {
    let part = std::env::args().nth(1).unwrap_or_default();
    let instances = std::env::args().nth(2).map(|x| x.parse().expect("a number of instances"));
    println!(
        "{:24} {:>6} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>8}",
        "instances", "count", "p10", "median", "p90", "max", "proved", "again", "gap"
    );
    let run = |name: &str, n: usize, count: usize, make: &dyn Fn(u64) -> Vec<f32>| {
        if !name.contains(&part) {
            return;
        }
        let count = instances.unwrap_or(count);
        let model = Pairwise::new(n).unwrap().with_limit((n >= 40).then_some(Duration::from_secs(10)));
        let mut scratch = model.scratch();
        let mut z = vec![0; n];
        let (mut times, mut again, mut proved, mut gap) = (vec![], vec![], 0, 0.0f64);
        for seed in 0..count as u64 {
            let mut h = make(seed);
            let start = Instant::now();
            let found = model.argmax(&h, &mut z, &mut scratch).unwrap();
            times.push(start.elapsed().as_secs_f64() * 1e3);
            proved += found.is_proved() as usize;
            gap = gap.max((found.bound - found.value) / found.value.abs());
            if !found.is_proved() {
                continue;
            }
            // A small change of the unary potentials, as of direct optimisation with a small epsilon.
            let mut s = Stream::new(seed + 1_000_000, 4 * n);
            h.iter_mut().take(2 * n).for_each(|h| *h += 0.1 * s.normal());
            let start = Instant::now();
            model.resolve(&h, &mut z, &mut scratch).unwrap();
            again.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        again.sort_by(f64::total_cmp);
        let at = |times: &[f64], q: f64| {
            times.get((q * (times.len().max(1) - 1) as f64) as usize).copied().unwrap_or(f64::NAN)
        };
        println!(
            "{name:24} {count:6} {:9.4} {:9.4} {:9.4} {:9.4} {proved:7} {:9.4} {:7.2}%",
            at(&times, 0.1),
            at(&times, 0.5),
            at(&times, 0.9),
            at(&times, 1.0),
            at(&again, 0.5),
            gap * 100.0
        );
    };
    for (n, count) in
        [(10, 1000), (15, 1000), (20, 1000), (25, 500), (30, 300), (40, 100), (50, 40), (60, 10), (80, 2), (100, 1)]
    {
        run(&format!("gaussian 1.0 n={n}"), n, count, &|seed| gaussian(n, 1.0, seed));
    }
    for (n, count) in [(15, 1000), (30, 300), (40, 100), (60, 20), (100, 3)] {
        run(&format!("gaussian 0.3 n={n}"), n, count, &|seed| gaussian(n, 0.3, seed));
    }
    run("bqp50", 50, 20, &|seed| integers(50, (-100, 100), (-100, 100), 0.1, seed));
    run("bqp100", 100, 3, &|seed| integers(100, (-100, 100), (-100, 100), 0.1, seed));
    for n in [50, 60, 70] {
        run(&format!("gka a n={n}"), n, 10, &|seed| integers(n, (-100, 100), (-100, 100), 0.1, seed));
    }
    for n in [20, 40, 60] {
        run(&format!("gka b n={n}"), n, 10, &|seed| integers(n, (-63, 0), (0, 100), 1.0, seed));
        run(&format!("gka b negated n={n}"), n, 10, &|seed| integers(n, (0, 63), (-100, 0), 1.0, seed));
    }
    for side in [8, 10] {
        run(&format!("torus {side}x{side}"), side * side, 5, &|seed| torus(side, seed));
    }
    if "batch".contains(&part) {
        threads(30, 100);
    }
}

/// Milliseconds of a batch with one and with two threads, the shortest of rounds that take turns.
fn threads(n: usize, batch: usize) {
    let potentials: Vec<f32> = (0..batch as u64).flat_map(|seed| gaussian(n, 1.0, seed)).collect();
    let model = Pairwise::new(n).unwrap();
    let pools = [1, 2].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    let mut shortest = [f64::INFINITY; 2];
    let mut z = vec![0; batch * n];
    for _ in 0..101 {
        for (pool, shortest) in pools.iter().zip(&mut shortest) {
            let start = Instant::now();
            pool.install(|| argmax_batch(&model, &potentials, &mut z)).unwrap();
            *shortest = shortest.min(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [one, two] = shortest;
    println!("batch of {batch}, n={n}: {one:.2} ms with one thread, {two:.2} with two, {:.2} times as fast", one / two);
}
