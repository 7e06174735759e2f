//! The decoder at all states of a latent: their losses for many images, by a product over the width of its last layer.
//!
//! `loss[b, s] = sum_d softplus(T[s, d]) - <x_b, T_s>` with the logits `T_s = W f_s + bias`. So `<x_b, T_s> = <W^T
//! x_b, f_s> + <x_b, bias>`: the logits are needed for the sums alone, and an image needs the sum of the rows of W at
//! its ones.

use super::ask::{DecoderLayers, Scratch};
use super::bits::Bits;
use super::dense::rows_in;
use super::simd::{Isa, Kernel, LANES, Lane, Vector, lanes};
use super::team::{Team, each};
use super::tile::{by_rows, rows_by_lanes, transpose};
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
    /// `[groups of units, states]`.
    features: Vec<Lane>,
    /// `[chunks of states]`.
    sums: Vec<Lane>,
}

/// States in a block: their features stay in the cache while images pass.
const STATES: usize = 256;
/// Images that pass together.
const IMAGES: usize = 128;

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
                let (features, sums) = (vec![Lane::ZERO; lanes(width) * rows], vec![Lane::ZERO; lanes(count)]);
                let mut block = Block { first, count, scratch, assignments, features, sums };
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
        let Block { count, scratch, assignments, features, sums, .. } = self.block;
        let (n, width) = (self.structure.variables(), self.decoder.output.units);
        let rows = lanes(*count) * LANES;
        let mut logits = [Lane::ZERO; super::bits::BLOCK];
        for (c, (z, sums)) in assignments.chunks(LANES * n).zip(sums).enumerate() {
            scratch.decode(w, self.structure, self.decoder, z);
            let last = scratch.units.last().expect("a decoder has a hidden layer");
            let mut sum = w.zero();
            for block in &self.decoder.output.blocks {
                sum = w.add(sum, block.decode(w, last, width, &mut logits));
            }
            w.store(sums, sum);
            for (g, tile) in last.chunks_exact(LANES).enumerate() {
                transpose(tile, &mut features[g * rows + c * LANES..][..LANES]);
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
    fn run<W: Vector>(self, w: W) {
        let output = self.decoder.output;
        let (groups, all) = (lanes(output.units), self.states.count);
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
            let stride = lanes(block.count) * LANES;
            for c in 0..chunks {
                let images = rows_in(self.of.len(), c);
                let sums = &sums[c * groups * LANES..][..groups * LANES];
                let bias = w.load(&biases[c]);
                for s in 0..lanes(block.count) {
                    let mut tile = [Lane::ZERO; LANES];
                    by_rows!(W, LANES, |first, R| {
                        let mut acc = [w.zero(); R];
                        for g in 0..groups {
                            let features = &block.features[g * stride + s * LANES + first..];
                            let n = rows_in(output.units, g);
                            rows_by_lanes(w, &mut acc, features, &sums[g * LANES..][..n]);
                        }
                        for (q, acc) in acc.into_iter().enumerate() {
                            let sum = w.splat(block.sums[s].0[first + q]);
                            w.store(&mut tile[first + q], w.sub(w.sub(sum, bias), acc));
                        }
                    });
                    let mut by_image = [Lane::ZERO; LANES];
                    transpose(&tile, &mut by_image);
                    let n = rows_in(block.count, s);
                    for (l, lane) in by_image.iter().enumerate().take(images) {
                        let at = (c * LANES + l) * all + block.first + s * LANES;
                        self.losses[at..at + n].copy_from_slice(&lane.0[..n]);
                    }
                }
            }
        }
    }
}
