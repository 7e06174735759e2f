//! Solves a file of super-modular instances one after the other on one thread and prints times and values as JSON.
//!
//! `supermodular_batch FILE [REPEATS]`. The file is little-endian: n and the number of instances as u32; their
//! potentials, f32 `[batch, P]`; changed unary potentials for a second solution, f32 `[batch, 2n]`. The times are in
//! milliseconds for the whole batch, the shortest of REPEATS (default 20): `argmax_ms` for the instances, `again_ms`
//! for the changed ones from scratch, `resolve_ms` for them from the solution of the first.
//!
//! `peers/maxflow.py` writes such files and compares.

use gumbel::structure::{Structure, Supermodular};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: supermodular_batch FILE [REPEATS]")?;
    let repeats: usize = arguments.next().map_or(Ok(20), |text| text.parse())?;
    let words: Vec<[u8; 4]> = std::fs::read(&file)?.as_chunks().0.to_vec();
    let [n, batch, numbers @ ..] = &words[..] else { return Err(format!("{file}: no header").into()) };
    let (n, batch) = (u32::from_le_bytes(*n) as usize, u32::from_le_bytes(*batch) as usize);
    let s = Supermodular::new(n)?;
    let (p, u) = (s.potentials(), s.unary());
    if numbers.len() != batch * (p + u) {
        return Err(format!("{file}: {} numbers, expected {}", numbers.len(), batch * (p + u)).into());
    }
    let numbers: Vec<f32> = numbers.iter().map(|w| f32::from_le_bytes(*w)).collect();
    let first: Vec<&[f32]> = numbers[..batch * p].chunks_exact(p).collect();
    let changed = numbers[batch * p..].chunks_exact(u);
    let second: Vec<Vec<f32>> = first.iter().zip(changed).map(|(h, c)| [c, &h[u..]].concat()).collect();

    let mut times = [f64::INFINITY; 3];
    let mut values = vec![[0.0; 3]; batch];
    let mut scratch = s.scratch();
    let mut scratches: Vec<_> = first.iter().map(|_| s.scratch()).collect();
    let mut z = vec![vec![0; n]; batch];
    for _ in 0..repeats {
        let began = Instant::now();
        for ((h, z), v) in first.iter().zip(&mut z).zip(&mut values) {
            v[0] = s.argmax(h, z, &mut scratch)?.value;
        }
        times[0] = times[0].min(began.elapsed().as_secs_f64());
        // Every instance has a scratch of its own in both, so that they differ in nothing else.
        let began = Instant::now();
        for (((h, z), v), scratch) in second.iter().zip(&mut z).zip(&mut values).zip(&mut scratches) {
            v[1] = s.argmax(h, z, scratch)?.value;
        }
        times[1] = times[1].min(began.elapsed().as_secs_f64());
        for ((h, z), scratch) in first.iter().zip(&mut z).zip(&mut scratches) {
            s.argmax(h, z, scratch)?;
        }
        let began = Instant::now();
        for (((h, z), v), scratch) in second.iter().zip(&mut z).zip(&mut values).zip(&mut scratches) {
            v[2] = s.resolve(h, z, scratch)?.value;
        }
        times[2] = times[2].min(began.elapsed().as_secs_f64());
    }
    let [argmax, again, resolve] = times.map(|t| 1e3 * t);
    println!(
        r#"{{"argmax_ms": {argmax:.6}, "again_ms": {again:.6}, "resolve_ms": {resolve:.6}, "values": {values:?}}}"#
    );
    Ok(())
}
