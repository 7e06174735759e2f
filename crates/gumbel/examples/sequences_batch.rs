//! Solves a file of chain, tree or subset instances: the Rust side of `peers/sequences.py`.
//!
//! ```text
//! sequences_batch FILE OPERATION ROUNDS THREADS OUT        OPERATION: argmax | marginals | sample
//! ```
//!
//! FILE, little-endian: the ASCII name of the structure padded to 8 bytes; u32 batch, variables n, values K (for a
//! subset the k of n), number of edges; the edges as u32 pairs (for a tree); f32 potentials `[batch, P]`. OUT
//! receives, in f64, per instance the value of the arg max, or the log-partition and the marginals, or nothing for
//! samples. Prints the fastest round in seconds.

use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{Chain, Subset, Sums, Tree, argmax_batch};
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, operation, rounds, threads, out] = arguments.as_slice() else {
        return Err("usage: sequences_batch FILE OPERATION ROUNDS THREADS OUT".into());
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    let bytes = std::fs::read(file)?;
    let (name, rest) = bytes.split_at_checked(8).ok_or("a short file")?;
    let words: Vec<u32> = rest.as_chunks().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
    let &[batch, n, k, edges, ref words @ ..] = words.as_slice() else { return Err("a short file".into()) };
    let (n, k) = (n as usize, k as usize);
    let (edges, potentials) = words.split_at_checked(2 * edges as usize).ok_or("edges are missing")?;
    let edges: Vec<(usize, usize)> = edges.chunks_exact(2).map(|e| (e[0] as usize, e[1] as usize)).collect();
    let potentials: Vec<f32> = potentials.iter().map(|w| f32::from_bits(*w)).collect();
    let run = Run { batch: batch as usize, potentials, operation, rounds: rounds.parse()?, out };
    match name {
        b"chain   " => run.measure(&Chain::new(n, k)?),
        b"tree    " => run.measure(&Tree::new(n, k, &edges)?),
        b"subset  " => run.measure(&Subset::new(n, k)?),
        _ => Err("an unknown structure".into()),
    }
}

struct Run<'a> {
    batch: usize,
    potentials: Vec<f32>,
    operation: &'a str,
    rounds: usize,
    out: &'a str,
}

impl Run<'_> {
    fn measure<S: Sums>(&self, structure: &S) -> Result<(), Failure> {
        let (p, n) = (structure.potentials(), structure.variables());
        if self.potentials.len() != self.batch * p {
            return Err(format!("{} potentials: expected {}", self.potentials.len(), self.batch * p).into());
        }
        let instances = || self.potentials.chunks_exact(p);
        let mut z = vec![0; self.batch * n];
        let mut marginals = vec![0.0; self.batch * p];
        let mut log_partitions = vec![0.0; self.batch];
        let mut seconds = f64::INFINITY;
        for round in 0..self.rounds {
            let start = Instant::now();
            match self.operation {
                "argmax" => argmax_batch(structure, &self.potentials, &mut z)?,
                "marginals" => {
                    let rows = instances().zip(marginals.chunks_exact_mut(p)).zip(&mut log_partitions);
                    for ((h, marginals), log_partition) in rows {
                        *log_partition = structure.marginals(h, marginals)?;
                    }
                }
                "sample" => {
                    let mut generator = Noise::new(0, Purpose::User(0), round as u64).generator_at(0);
                    for (h, z) in instances().zip(z.chunks_exact_mut(n)) {
                        structure.sample(h, &mut generator, z)?;
                    }
                }
                other => return Err(format!("{other}: expected argmax, marginals or sample").into()),
            }
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        println!("{seconds}");
        let numbers: Vec<f64> = match self.operation {
            "argmax" => instances().zip(z.chunks_exact(n)).map(|(h, z)| structure.score(h, z)).collect(),
            "marginals" => log_partitions.into_iter().chain(marginals.into_iter().map(f64::from)).collect(),
            _ => vec![],
        };
        std::fs::write(self.out, numbers.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
        Ok(())
    }
}
