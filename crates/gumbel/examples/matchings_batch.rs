//! Solves a file of instances on one thread and prints how long it took and what came out: the Rust side of
//! `peers/matchings.py`.
//!
//! `matchings_batch FILE [REPETITIONS]`. The file holds three little-endian u32 (structure: 0 permutation, 1 spanning
//! tree of the complete graph, 2 arborescence rooted at 0; nodes n; number of instances) and the potentials of all
//! instances as f32. The first line printed is the time per instance in microseconds (of every few instances the least
//! over the repetitions, then the mean); the others are the values of the maxima. For permutations the second line is
//! the time of solving again after a change of one row.

use gumbel::structure::{Arborescence, Permutation, SpanningTree, Structure};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: matchings_batch FILE [REPETITIONS]")?;
    let repetitions = arguments.next().map_or(Ok(20), |r| r.parse())?;
    let bytes = std::fs::read(path)?;
    let (words, _) = bytes.as_chunks::<4>();
    let [kind, nodes, count] = [0, 1, 2].map(|w| u32::from_le_bytes(words[w]) as usize);
    let potentials: Vec<f32> = words[3..].iter().map(|w| f32::from_le_bytes(*w)).collect();
    let values = match kind {
        0 => {
            let permutation = Permutation::new(nodes)?;
            let values = run(&permutation, nodes, &potentials, count, repetitions)?;
            again(&permutation, &potentials, repetitions)?;
            values
        }
        1 => run(&SpanningTree::complete(nodes)?, nodes, &potentials, count, repetitions)?,
        2 => run(&Arborescence::new(nodes, 0)?, nodes, &potentials, count, repetitions)?,
        kind => return Err(format!("structure {kind}: expected 0, 1 or 2").into()),
    };
    values.iter().for_each(|v| println!("{v:?}"));
    Ok(())
}

/// Prints the time per instance; returns the values.
fn run<S: Structure>(
    structure: &S,
    nodes: usize,
    potentials: &[f32],
    count: usize,
    repetitions: usize,
) -> Result<Vec<f64>, gumbel::Error> {
    let (mut scratch, mut z) = (structure.scratch(), vec![0; structure.variables()]);
    let mut values = vec![0.0; count];
    // Short pieces find quiet moments on a busy machine, where a whole batch would not.
    let piece = (400 / nodes).max(1);
    let mut least = vec![f64::INFINITY; count.div_ceil(piece)];
    for _ in 0..repetitions {
        let pieces = potentials.chunks(piece * structure.potentials()).zip(values.chunks_mut(piece));
        for ((potentials, values), least) in pieces.zip(&mut least) {
            let start = Instant::now();
            for (h, value) in potentials.chunks_exact(structure.potentials()).zip(values) {
                *value = structure.argmax(h, &mut z, &mut scratch)?.value;
            }
            *least = least.min(start.elapsed().as_secs_f64());
        }
    }
    println!("{:.3}", least.iter().sum::<f64>() / count as f64 * 1e6);
    Ok(values)
}

/// Prints the median time of solving again after the first row has changed.
fn again(permutation: &Permutation, potentials: &[f32], repetitions: usize) -> Result<(), gumbel::Error> {
    let n = permutation.variables();
    let (mut scratch, mut z) = (permutation.scratch(), vec![0; n]);
    let mut times = Vec::new();
    for h in potentials.chunks_exact(n * n) {
        let mut changed = h.to_vec();
        permutation.argmax(h, &mut z, &mut scratch)?;
        for r in 0..repetitions {
            changed[..n].rotate_right(1 + r % 3);
            let start = Instant::now();
            permutation.resolve(&changed, &mut z, &mut scratch)?;
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    println!("{:.3}", times[times.len() / 2] * 1e6);
    Ok(())
}
