//! Perceptrons of [layers](super::layer), and what rows leave on their way through one.

use super::layer::{Backward, Entry, Finish, Forward, Layer, Lists, Memory, Rows, Store};
use crate::simd::{Isa, Lane, flat, flat_mut};
use std::sync::{Mutex, PoisonError};

/// Layers with rectifiers between them.
pub struct Perceptron {
    pub layers: Vec<Layer>,
    /// Slope of the rectifiers where they are negative.
    pub leak: f32,
}

impl Perceptron {
    /// Layers of the given widths, zeros all of them.
    pub fn new(widths: &[usize], leak: f32) -> Self {
        Perceptron { layers: widths.windows(2).map(|w| Layer::new(w[0], w[1])).collect(), leak }
    }

    /// The same whose outputs are the logits of pixels.
    pub fn of_logits(mut self) -> Self {
        self.layers = match self.layers.pop() {
            Some(last) => self.layers.into_iter().chain([last.of_logits()]).collect(),
            None => vec![],
        };
        self
    }

    /// The last layer.
    pub fn last(&self) -> &Layer {
        self.layers.last().expect("a perceptron has a layer")
    }
}

/// Working memory for whoever has rows to compute.
#[derive(Default)]
pub struct Work {
    pub memory: Memory,
    /// Outputs of a layer `[rows, width]`.
    pub out: Vec<Lane>,
    /// Gradients at the entries of a layer's rows.
    pub slopes: Vec<f32>,
    /// Losses of rows, in sixteen parts.
    pub sums: Vec<Lane>,
    /// Rows that are not left out.
    pub places: Vec<u32>,
    /// Ways through the shared layers and the decoder that nobody goes back.
    pub shared: Pass,
    pub decoder: Pass,
    /// The parts of codes `[rows, width]`.
    pub part: Vec<Lane>,
    /// What dropout leaves of a row, or weights of the states.
    pub mask: Vec<f32>,
    /// Weights of rows.
    pub weights: Vec<f32>,
    /// Images and states, and the images alone.
    pub pairs: Vec<(u32, u32)>,
    pub images: Vec<u32>,
    /// Most that the losses of rows may be.
    pub limits: Vec<f32>,
}

/// Working memory for as many threads as come: the last used is the next, it is in the cache.
#[derive(Default)]
pub struct Pool(Mutex<Vec<Work>>);

impl Pool {
    /// Calls `f` with working memory.
    pub fn with<T>(&self, f: impl FnOnce(&mut Work) -> T) -> T {
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut work = all().pop().unwrap_or_default();
        let found = f(&mut work);
        all().push(work);
        found
    }
}

/// `[rows, width]` lanes of a buffer that grows.
pub fn room(buffer: &mut Vec<Lane>, lanes: usize) -> &mut [Lane] {
    if buffer.len() < lanes {
        buffer.resize(lanes, Lane::ZERO);
    }
    &mut buffer[..lanes]
}

/// What rows leave on their way through a perceptron.
#[derive(Default)]
pub struct Pass {
    /// What each layer reads.
    pub lists: Vec<Lists>,
    /// Gradients at the outputs of each layer `[rows, width]`.
    pub gradients: Vec<Vec<Lane>>,
}

impl Pass {
    /// Begins: the rows that the first layer reads, to be filled.
    pub fn begin(&mut self, net: &Perceptron) -> &mut Lists {
        self.lists.resize_with(net.layers.len(), Lists::default);
        self.gradients.resize_with(net.layers.len(), Vec::new);
        self.lists.iter_mut().for_each(Lists::clear);
        &mut self.lists[0]
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.lists.first().map_or(0, Lists::rows)
    }

    /// The rows of a layer.
    pub fn rows_of(&self, layer: usize) -> Rows<'_> {
        Rows::all(&self.lists[layer])
    }

    /// All layers but the last: what that one reads. Behind a ReLU zeros are left out, they have no gradient.
    pub fn hidden(&mut self, isa: Isa, net: &Perceptron, memory: &mut Memory, out: &mut Vec<Lane>) {
        for (l, layer) in net.layers.iter().enumerate().take(net.layers.len() - 1) {
            let (width, rows) = (layer.width(), Rows::all(&self.lists[l]));
            let out = room(out, rows.count() * width);
            isa.run(Forward { blocks: &layer.blocks, rows, memory, finish: Store { out, width, leak: net.leak } });
            let lists = &mut self.lists[l + 1];
            for row in out.chunks_exact(width) {
                let row = &flat(row)[..layer.outputs];
                if net.leak == 0.0 { lists.push_some(row) } else { lists.push(0, row) }
            }
        }
    }

    /// The last layer.
    pub fn last(&self, isa: Isa, net: &Perceptron, memory: &mut Memory, finish: impl Finish) {
        let rows = Rows::all(&self.lists[net.layers.len() - 1]);
        isa.run(Forward { blocks: &net.last().blocks, rows, memory, finish });
    }

    /// The last layer's outputs as they are `[rows, width]`.
    pub fn outputs<'a>(
        &self,
        isa: Isa,
        net: &Perceptron,
        memory: &mut Memory,
        out: &'a mut Vec<Lane>,
    ) -> &'a mut [Lane] {
        let width = net.last().width();
        let out = room(out, self.rows() * width);
        self.last(isa, net, memory, Store { out, width, leak: 1.0 });
        out
    }

    /// Room for the gradient at the outputs `[rows, width]`.
    pub fn gradient(&mut self, net: &Perceptron) -> &mut [Lane] {
        let (last, lanes) = (net.layers.len() - 1, self.rows() * net.last().width());
        room(&mut self.gradients[last], lanes)
    }

    /// From the gradient at the outputs down to that at the first layer's outputs. What the last layer reads was scaled
    /// by `scale`.
    pub fn backward(&mut self, isa: Isa, net: &Perceptron, scale: f32, work: (&mut Memory, &mut Vec<f32>)) {
        let (memory, slopes) = work;
        for l in (1..net.layers.len()).rev() {
            let scale = if l + 1 == net.layers.len() { scale } else { 1.0 };
            let [below, gradient] = self.gradients.get_disjoint_mut([l - 1, l]).expect("two layers");
            let (layer, width) = (&net.layers[l], net.layers[l - 1].width());
            let rows = Rows::all(&self.lists[l]);
            isa.run(Backward { layer, rows, gradient, memory, slopes });
            let below = room(below, rows.count() * width);
            below.fill(Lane::ZERO);
            let mut slopes = &slopes[..];
            for (r, out) in below.chunks_exact_mut(width).enumerate() {
                let entries = rows.entries(r);
                let (own, rest) = slopes.split_at(entries.len());
                slopes = rest;
                scatter(entries, own, net.leak, scale, flat_mut(out));
            }
        }
    }

    /// The gradient at what the first layer reads, one number for each entry.
    pub fn slopes(&self, isa: Isa, net: &Perceptron, rows: Rows<'_>, work: (&mut Memory, &mut Vec<f32>)) {
        let (memory, slopes) = work;
        isa.run(Backward { layer: &net.layers[0], rows, gradient: &self.gradients[0], memory, slopes });
    }
}

/// The gradient before a rectifier, from that at the entries behind it.
#[inline]
fn scatter(entries: &[Entry], slopes: &[f32], leak: f32, scale: f32, out: &mut [f32]) {
    for (entry, slope) in entries.iter().zip(slopes) {
        let factor = if entry.value > 0.0 { scale } else { leak * scale };
        out[entry.place as usize] = factor * slope;
    }
}
