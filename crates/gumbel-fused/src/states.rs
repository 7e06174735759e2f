//! The decoder at all states of a latent: their losses for many images, by a product over the width of its last layer.
//!
//! `loss[b, s] = sum_d softplus(T[s, d]) - <x_b, T_s>` with the logits `T_s = W f_s + bias`. So `<x_b, T_s> = <W^T
//! x_b, f_s> + <x_b, bias>`: the logits are needed for the sums alone, and an image needs the sum of the rows of W at
//! its ones. Of eight states that follow each other a third of the units or more are zero in all: these are left out.

use super::ask::{DecoderLayers, Scratch};
use super::bits::Bits;
use super::dense::rows_in;
use super::simd::{Isa, Kernel, LANES, Lane, Vector, lanes};
use super::team::{Team, each};
use super::tile::transpose;
use gumbel::structure::{AnyStructure, Structure};

/// Last hidden units and sums of all states under some parameters.
#[derive(Default)]
pub struct States {
    count: usize,
    blocks: Vec<Block>,
    /// Steps of the optimiser behind the parameters; 0 blocks: nothing yet.
    steps: u64,
}

/// Some states that follow each other.
struct Block {
    first: usize,
    count: usize,
    scratch: Scratch,
    assignments: Vec<u32>,
    /// For each group of states the units that are not zero in at least one of them: how many come before their end, by
    /// number, and their values.
    ends: Vec<usize>,
    used: Vec<u32>,
    features: Vec<[f32; GROUP]>,
    /// `[chunks of states]`.
    sums: Vec<Lane>,
}

impl Block {
    /// The units of a group of states.
    #[inline(always)]
    fn group(&self, group: usize) -> impl Iterator<Item = (usize, &[f32; GROUP])> {
        let first = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        let units = first..self.ends[group];
        self.used[units.clone()].iter().map(|unit| *unit as usize).zip(&self.features[units])
    }
}

/// States whose common zeros are left out.
const GROUP: usize = 8;

/// States in a block: their features stay in the cache while images pass.
const STATES: usize = 256;
/// Images that pass together.
const IMAGES: usize = 64;

impl States {
    /// Decodes all states with the parameters of a step, if that has not been done.
    pub fn refresh(
        &mut self,
        team: &mut Team,
        isa: Isa,
        structure: &AnyStructure,
        decoder: DecoderLayers<'_>,
        steps: u64,
    ) {
        let states = structure.states().expect("the states are enumerated");
        if self.count == states && self.steps == steps {
            return;
        }
        if self.count != states {
            let hidden: Vec<usize> =
                std::iter::once(decoder.codes.units).chain(decoder.dense.iter().map(|l| l.outputs)).collect();
            let width = decoder.output.units;
            let block = |first: usize| {
                let count = STATES.min(states - first);
                let scratch = Scratch::new(structure, &hidden);
                let assignments = vec![0; count * structure.variables()];
                let rows = lanes(count) * LANES;
                let groups = rows / GROUP;
                // Room for all units, so that no later parameters need more.
                let (used, features) = (Vec::with_capacity(groups * width), Vec::with_capacity(groups * width));
                let (ends, sums) = (Vec::with_capacity(groups), vec![Lane::ZERO; lanes(count)]);
                let mut block = Block { first, count, scratch, assignments, ends, used, features, sums };
                for (s, z) in block.assignments.chunks_exact_mut(structure.variables()).enumerate() {
                    structure.state(first + s, z);
                }
                block
            };
            self.blocks = (0..states).step_by(STATES).map(block).collect();
            self.count = states;
        }
        self.steps = steps;
        team.run(&[&each(&mut self.blocks, |_, block| isa.run(Fill { block, structure, decoder }))]);
    }

    /// Forgets what it knows: the parameters were set from outside.
    pub fn forget(&mut self) {
        self.steps = u64::MAX;
    }

    /// Losses `[images, states]` of some images.
    pub fn losses(
        &self,
        team: &mut Team,
        isa: Isa,
        decoder: DecoderLayers<'_>,
        bits: &Bits,
        of: &[u32],
        losses: &mut [f32],
    ) {
        let mut items: Vec<_> = of.chunks(IMAGES).zip(losses.chunks_mut(IMAGES * self.count)).collect();
        team.run(&[&each(&mut items, |_, (of, losses)| {
            isa.run(Products { states: self, decoder, bits, of, losses });
        })]);
    }

    /// The same for up to sixteen images on one thread.
    pub fn losses_of_few(&self, isa: Isa, decoder: DecoderLayers<'_>, bits: &Bits, of: &[u32], losses: &mut [f32]) {
        isa.run(Products { states: self, decoder, bits, of, losses });
    }
}

struct Fill<'a> {
    block: &'a mut Block,
    structure: &'a AnyStructure,
    decoder: DecoderLayers<'a>,
}

impl Kernel for Fill<'_> {
    #[inline(always)]
    fn run<W: Vector>(self, w: W) {
        let Block { scratch, assignments, ends, used, features, sums, .. } = self.block;
        let (n, width) = (self.structure.variables(), self.decoder.output.units);
        ends.clear();
        used.clear();
        features.clear();
        let mut logits = [Lane::ZERO; super::bits::BLOCK];
        for (z, sums) in assignments.chunks(LANES * n).zip(sums) {
            scratch.decode(w, self.structure, self.decoder, z);
            let last = scratch.units.last().expect("a decoder has a hidden layer");
            let mut sum = w.zero();
            for block in &self.decoder.output.blocks {
                sum = w.add(sum, block.decode(w, last, width, &mut logits));
            }
            w.store(sums, sum);
            for group in 0..LANES / GROUP {
                for (unit, values) in last.iter().enumerate().take(width) {
                    let values = &values.0.as_chunks().0[group];
                    if *values != [0.0; GROUP] {
                        used.push(unit as u32);
                        features.push(*values);
                    }
                }
                ends.push(used.len());
            }
        }
    }
}

struct Products<'a> {
    states: &'a States,
    decoder: DecoderLayers<'a>,
    bits: &'a Bits,
    of: &'a [u32],
    losses: &'a mut [f32],
}

impl Kernel for Products<'_> {
    #[inline(always)]
    fn run<W: Vector>(mut self, w: W) {
        let output = self.decoder.output;
        let groups = lanes(output.units);
        let chunks = lanes(self.of.len());
        // For each chunk of images the sums of weights `[units, images in the lanes]`, and of biases.
        let (mut sums, mut biases) = (vec![Lane::ZERO; chunks * groups * LANES], vec![Lane::ZERO; chunks]);
        let mut rows = vec![Lane::ZERO; groups * LANES];
        let mut row = vec![Lane::ZERO; groups];
        for (c, of) in self.of.chunks(LANES).enumerate() {
            rows.fill(Lane::ZERO);
            for (l, image) in of.iter().enumerate() {
                row.fill(Lane::ZERO);
                for (b, block) in output.blocks.iter().enumerate() {
                    biases[c].0[l] += block.add_weights(w, self.bits.ones(*image as usize, b), output.units, &mut row);
                }
                row.iter().enumerate().for_each(|(g, sum)| rows[g * LANES + l] = *sum);
            }
            let tiles = sums[c * groups * LANES..][..groups * LANES].chunks_exact_mut(LANES);
            rows.chunks_exact(LANES).zip(tiles).for_each(|(tile, out)| transpose(tile, out));
        }
        for block in &self.states.blocks {
            let mut chunk = 0;
            // Two chunks of images share the numbers of the states where there are registers for both.
            while W::ROWS >= 16 && chunk + 2 <= chunks {
                self.block::<W, GROUP, 2>(w, block, chunk, &sums, &biases);
                chunk += 2;
            }
            while chunk < chunks {
                match W::ROWS {
                    16.. => self.block::<W, GROUP, 1>(w, block, chunk, &sums, &biases),
                    4.. => self.block::<W, 4, 1>(w, block, chunk, &sums, &biases),
                    _ => self.block::<W, 2, 1>(w, block, chunk, &sums, &biases),
                }
                chunk += 1;
            }
        }
    }
}

impl Products<'_> {
    /// Losses of N chunks of images, from `chunk` on, at the states of a block, R of them at once.
    #[inline(always)]
    fn block<W: Vector, const R: usize, const N: usize>(
        &mut self,
        w: W,
        block: &Block,
        chunk: usize,
        sums: &[Lane],
        biases: &[Lane],
    ) {
        let all = self.states.count;
        let units = sums.len() / biases.len();
        let image_sums: [&[Lane]; N] = std::array::from_fn(|i| &sums[(chunk + i) * units..][..units]);
        let mut tiles = [[Lane::ZERO; LANES]; N];
        let mut by_image = [Lane::ZERO; LANES];
        for s in 0..lanes(block.count) {
            for first in (0..LANES).step_by(R) {
                let (group, place) = ((s * LANES + first) / GROUP, first % GROUP);
                let mut acc = [[w.zero(); R]; N];
                for (unit, values) in block.group(group) {
                    let values: &[f32; R] = values[place..].first_chunk().expect("R divides a group");
                    let images: [W::V; N] = std::array::from_fn(|i| w.load(&image_sums[i][unit]));
                    for q in 0..R {
                        let value = w.splat(values[q]);
                        for i in 0..N {
                            acc[i][q] = w.fma(value, images[i], acc[i][q]);
                        }
                    }
                }
                for i in 0..N {
                    let bias = w.load(&biases[chunk + i]);
                    for q in 0..R {
                        let sum = w.splat(block.sums[s].0[first + q]);
                        w.store(&mut tiles[i][first + q], w.sub(w.sub(sum, bias), acc[i][q]));
                    }
                }
            }
            let n = rows_in(block.count, s);
            for (i, tile) in tiles.iter().enumerate() {
                transpose(tile, &mut by_image);
                for (l, lane) in by_image.iter().enumerate().take(rows_in(self.of.len(), chunk + i)) {
                    let at = ((chunk + i) * LANES + l) * all + block.first + s * LANES;
                    self.losses[at..at + n].copy_from_slice(&lane.0[..n]);
                }
            }
        }
    }
}
