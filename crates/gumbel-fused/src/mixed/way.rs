//! What the decoder follows: forward once more, then the way back through everything.

use super::layer::{Backward, Derive, Lists, Losses, Memory, Rows, Weigh};
use super::perceptron::{Pass, Work, room};
use super::seat::{Context, Layers, Parameters, Seat, Site, every, runs, total};
use crate::simd::{Lane, flat, flat_mut};
use gumbel::structure::Structure;

/// What is followed, and what the way back leaves for the gradients of the weights.
#[derive(Default)]
pub struct Way {
    followed: Vec<Row>,
    /// Codes of rows that are not those of one state, or that want slopes at all of them `[rows, U]`.
    soft: Vec<f32>,
    decoder: Pass,
    /// Losses of the decoder's rows, in sixteen parts, without the codes' terms.
    sums: Vec<Lane>,
    /// The states of the images that are decoded, one each, before anyone follows them.
    ready: Vec<u32>,
    shared: Pass,
    /// Images and states of the codes that are followed, by states, and the images alone.
    pairs: Vec<(u32, u32)>,
    images: Vec<u32>,
    /// Gradient at the codes' parts `[pairs, width]`.
    parts: Vec<Lane>,
    /// Gradient at the samples `[count, K, D]`, and the weights of the codes' KL `[count, K]`.
    at_samples: Vec<f32>,
    at_kl: Vec<f32>,
    /// Which codes have a gradient: the bits of an image's states.
    used: Vec<u64>,
    /// The weighted sum of the losses with the codes' KL.
    pub reconstruction: f64,
}

/// A code of an image.
struct Row {
    /// Which of the estimator's rows, where it has some.
    number: usize,
    image: u32,
    /// Of one state.
    state: Option<u32>,
    weight: f32,
    /// Where its code stands, if it does.
    soft: Option<usize>,
}

impl Way {
    /// Forgets what was followed.
    pub fn clear(&mut self) {
        self.followed.clear();
        self.soft.clear();
        self.ready.clear();
    }

    /// Whether what is followed is decoded: one state of every image.
    fn is_ready(&self) -> bool {
        let states = self.ready.iter().map(|k| (Some(*k), None));
        !self.ready.is_empty()
            && self.followed.iter().map(|row| (row.state, row.soft)).eq(states)
            && self.followed.iter().zip(0..).all(|(row, b)| row.image == b)
    }

    /// Decodes what the decoder's lists hold, with the derivatives at the logits.
    fn decode(&mut self, cx: Context<'_>, images: &[Lane], of: &[u32], (memory, out): (&mut Memory, &mut Vec<Lane>)) {
        let net = &cx.layers.decoder;
        self.decoder.hidden(cx.isa, net, memory, out);
        let sums = room(&mut self.sums, of.len());
        sums.fill(Lane::ZERO);
        let losses = Losses { sums, places: None, images, width: net.last().width(), of };
        self.decoder.derive(cx, memory, losses);
    }

    /// A row that is followed anew takes the old one's place.
    pub fn replace(&mut self, number: usize) {
        self.followed.retain(|row| row.number != number);
    }

    /// Follows a code of an image, or that of a state.
    pub fn follow(&mut self, number: usize, (image, state): (usize, Option<u32>), weight: f32, code: &[f32]) {
        let soft = (!code.is_empty()).then_some(self.soft.len());
        self.soft.extend_from_slice(code);
        self.followed.push(Row { number, image: image as u32, state, weight, soft });
    }

    /// The states of which pairs have a code.
    fn pairs_of(&self, state: usize) -> std::ops::Range<usize> {
        let place = |state: usize| self.pairs.partition_point(|(_, k)| (*k as usize) < state);
        place(state)..place(state + 1)
    }
}

/// A row of the decoder at a code: what it reads of the samples `[K, D]`.
fn push_code(cx: Context<'_>, lists: &mut Lists, code: &[f32], samples: &[f32], row: &mut Vec<f32>) {
    let states = cx.states();
    row.resize(states + samples.len(), 0.0);
    let (weights, input) = row.split_at_mut(states);
    cx.inputs.weights(code, weights);
    cx.inputs.input(code, weights, samples, input);
    lists.push(0, input);
}

impl Seat {
    fn samples_of(&self, cx: Context<'_>, image: usize) -> &[f32] {
        let size = cx.inputs.samples();
        &self.codes.samples[image * size..][..size]
    }

    fn terms_of(&self, cx: Context<'_>, image: usize) -> &[f32] {
        &self.codes.terms[image * cx.states()..][..cx.states()]
    }

    /// Losses and slopes of some rows at codes `[rows, U]`.
    pub fn slopes(&mut self, cx: Context<'_>, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) {
        let (u, net) = (cx.structure.unary(), &cx.layers.decoder);
        self.draw(cx, |b| if of.contains(&(b as u32)) { every(cx.states()) } else { 0 });
        let seat = &*self;
        cx.pool.with(|Work { decoder: pass, memory, out, sums, slopes: at_inputs, mask: row, .. }| {
            let lists = pass.begin(net);
            for (b, code) in of.iter().zip(codes.chunks_exact(u)) {
                push_code(cx, lists, code, seat.samples_of(cx, *b as usize), row);
            }
            pass.hidden(cx.isa, net, memory, out);
            let sums = room(sums, of.len());
            sums.fill(Lane::ZERO);
            let (images, width) = (&seat.images[..], net.last().width());
            pass.derive(cx, memory, Losses { sums, places: None, images, width, of });
            pass.backward(cx.isa, net, 1.0, (memory, at_inputs));
            pass.slopes(cx.isa, net, pass.rows_of(0), (memory, at_inputs));
            let answers = losses.iter_mut().zip(slopes.chunks_exact_mut(u)).zip(sums);
            let rows = of.iter().zip(codes.chunks_exact(u)).zip(at_inputs.chunks_exact(cx.inputs.width()));
            for (((loss, slopes), sum), ((b, code), at_input)) in answers.zip(rows) {
                let (samples, terms) = (seat.samples_of(cx, *b as usize), seat.terms_of(cx, *b as usize));
                row.resize(cx.states(), 0.0);
                cx.inputs.weights(code, row);
                *loss = total(sum) + row.iter().zip(terms).map(|(w, t)| w * t).sum::<f32>();
                cx.inputs.code_slopes(code, samples, terms, at_input, slopes);
            }
        });
    }

    /// Decodes one state of every image, so that they need not be decoded again where they are followed, and leaves
    /// the losses without the codes' terms.
    pub fn ready(&mut self, cx: Context<'_>, states: &[u32]) -> &[Lane] {
        self.draw(cx, |b| 1 << states[b]);
        let mut way = std::mem::take(&mut self.way);
        cx.pool.with(|Work { memory, out, images: of, .. }| {
            let (lists, dim) = (way.decoder.begin(&cx.layers.decoder), cx.dim());
            for (b, state) in states.iter().enumerate() {
                let place = *state as usize * dim;
                lists.push(place, &self.samples_of(cx, b)[place..][..dim]);
            }
            of.clear();
            of.extend(0..states.len() as u32);
            way.decode(cx, &self.images, of, (memory, out));
        });
        way.ready.extend_from_slice(states);
        self.way = way;
        &self.way.sums[..states.len()]
    }

    /// Whether [`ready`](Seat::ready) may be called.
    pub fn is_free(&self) -> bool {
        self.way.ready.is_empty()
    }

    /// Decodes what is followed and goes back to its codes. The slopes of the estimator's rows `[rows, count, U]` are
    /// left where there is room for them.
    pub fn follow(&mut self, cx: Context<'_>, slopes: &mut [f32]) {
        let (u, states, dim, net) = (cx.structure.unary(), cx.states(), cx.dim(), &cx.layers.decoder);
        let mut way = std::mem::take(&mut self.way);
        let used = &mut way.used;
        used.clear();
        used.resize(self.count, 0);
        for row in &way.followed {
            let states = row.state.filter(|_| row.soft.is_none()).map_or(every(states), |state| 1 << state);
            used[row.image as usize] |= states;
        }
        self.draw(cx, |b| used[b]);
        let seat = &*self;
        cx.pool.with(|Work { memory, out, slopes: at_inputs, mask: numbers, images: of, weights, .. }| {
            if !way.is_ready() {
                let Way { followed, soft, decoder, .. } = &mut way;
                let lists = decoder.begin(net);
                of.clear();
                for row in &*followed {
                    let samples = seat.samples_of(cx, row.image as usize);
                    match (row.soft, row.state) {
                        (Some(at), _) => push_code(cx, lists, &soft[at..at + u], samples, numbers),
                        (_, state) => {
                            let place = state.unwrap_or(0) as usize * dim;
                            lists.push(place, &samples[place..][..dim]);
                        }
                    }
                    of.push(row.image);
                }
                way.decode(cx, &seat.images, of, (memory, out));
            }
            let Way { followed, soft, decoder: pass, sums, at_samples, at_kl, used, reconstruction, .. } = &mut way;
            weights.clear();
            weights.extend(followed.iter().map(|row| row.weight));
            cx.isa.run(Weigh { derivative: pass.gradient(net), width: net.last().width(), weights });
            pass.backward(cx.isa, net, 1.0, (memory, at_inputs));
            pass.slopes(cx.isa, net, pass.rows_of(0), (memory, at_inputs));

            for (numbers, len) in [(&mut *at_samples, dim), (at_kl, 1)] {
                numbers.clear();
                numbers.resize(seat.count * states * len, 0.0);
            }
            used.fill(0);
            *reconstruction = 0.0;
            let mut rest = &at_inputs[..];
            for (row, sum) in followed.iter().zip(&*sums) {
                let (b, weight) = (row.image as usize, row.weight);
                let (at_samples, at_kl) = (&mut at_samples[b * states * dim..], &mut at_kl[b * states..][..states]);
                let kl = &seat.codes.kl[b * states..][..states];
                let Some(at) = row.soft else {
                    let (at_input, left) = rest.split_at(dim);
                    rest = left;
                    let k = row.state.unwrap_or(0) as usize;
                    at_samples[k * dim..].iter_mut().zip(at_input).for_each(|(sum, g)| *sum += g);
                    at_kl[k] += weight;
                    used[b] |= 1 << k;
                    *reconstruction += weight as f64 * (total(sum) + kl[k]) as f64;
                    continue;
                };
                let (at_input, left) = rest.split_at(cx.inputs.width());
                rest = left;
                let code = &soft[at..at + u];
                numbers.resize(states, 0.0);
                cx.inputs.weights(code, numbers);
                cx.inputs.add_sample_slopes(numbers, at_input, &mut at_samples[..states * dim]);
                for (k, y) in numbers.iter().enumerate().filter(|(_, y)| **y != 0.0) {
                    at_kl[k] += weight * y;
                    used[b] |= 1 << k;
                }
                let own: f32 = numbers.iter().zip(kl).map(|(y, kl)| y * kl).sum();
                *reconstruction += weight as f64 * (total(sum) + own) as f64;
                if !slopes.is_empty() {
                    // The weight is in the derivative at the input; the terms get it here.
                    let terms = numbers.iter_mut().zip(seat.terms_of(cx, b));
                    terms.for_each(|(own, term)| *own = term * weight);
                    let out = &mut slopes[(row.number * seat.count + b) * u..][..u];
                    cx.inputs.code_slopes(code, seat.samples_of(cx, b), numbers, at_input, out);
                }
            }
        });
        self.way = way;
    }

    /// Goes back through the codes and the encoder, from the gradient at the raw potentials `[count, P]`.
    pub fn back(&mut self, cx: Context<'_>, at_potentials: &[f32]) {
        let Layers { trunk, head, parts, shared, .. } = cx.layers;
        let (isa, states, dim) = (cx.isa, cx.states(), cx.dim());
        let Seat { first, count, trunk: trunk_pass, head: head_pass, codes, way, .. } = self;
        let Way { shared: pass, pairs, images, parts: at_parts, at_samples, at_kl, used, .. } = way;
        pairs.clear();
        for k in 0..states as u32 {
            let own = used.iter().zip(0..).filter(|(used, _)| **used >> k & 1 == 1);
            pairs.extend(own.map(|(_, b)| (b, k)));
        }
        images.clear();
        images.extend(pairs.iter().map(|(b, _)| *b));
        let width = parts[0].width();
        let at_parts = room(at_parts, pairs.len() * width);
        cx.pool.with(|Work { memory, out, slopes, part, mask, .. }| {
            let features = &head_pass.lists[0];
            let emitted = Parameters { cx, first: *first, pairs, images, features };
            let emitted = emitted.emit(pass, memory, (out, part, mask));
            let lanes = shared.last().width();
            let gradient = pass.gradient(shared);
            gradient.fill(Lane::ZERO);
            let rows = emitted.chunks_exact(lanes).zip(gradient.chunks_exact_mut(lanes));
            for ((b, k), (parameters, gradient)) in pairs.iter().zip(rows) {
                let at = *b as usize * states + *k as usize;
                let (at_sample, noise) = (&at_samples[at * dim..][..dim], &codes.noise[at * dim..][..dim]);
                let (mean, log_variance) = flat(parameters)[..2 * dim].split_at(dim);
                let (at_mean, at_log_variance) = flat_mut(gradient)[..2 * dim].split_at_mut(dim);
                let weight = cx.kl.followed * at_kl[at];
                for d in 0..dim {
                    let deviation = (0.5 * log_variance[d]).exp();
                    at_mean[d] = at_sample[d] + weight * mean[d];
                    at_log_variance[d] =
                        0.5 * (at_sample[d] * noise[d] * deviation + weight * (deviation * deviation - 1.0));
                }
            }
            pass.backward(isa, shared, cx.kept(), (memory, slopes));
            pass.slopes(isa, shared, pass.rows_of(0), (memory, slopes));
            // With one shared layer dropout is on the parts themselves.
            let scale = if shared.layers.len() == 1 { cx.kept() } else { 1.0 };
            at_parts.fill(Lane::ZERO);
            let mut rest = &slopes[..];
            for (row, out) in at_parts.chunks_exact_mut(width).enumerate() {
                let entries = pass.lists[0].of(row);
                let (own, left) = rest.split_at(entries.len());
                rest = left;
                let out = flat_mut(out);
                entries.iter().zip(own).for_each(|(entry, slope)| out[entry.place as usize] = scale * slope);
            }

            let p = head.last().outputs;
            let lanes = head.last().width();
            let gradient = head_pass.gradient(head);
            for (row, g) in gradient.chunks_exact_mut(lanes).zip(at_potentials.chunks_exact(p)) {
                row.fill(Lane::ZERO);
                flat_mut(row)[..p].copy_from_slice(g);
            }
            head_pass.backward(isa, head, 1.0, (memory, slopes));
            head_pass.slopes(isa, head, head_pass.rows_of(0), (memory, slopes));
            // The gradient at what the trunk emits: the head's, then that of each code.
            let (lanes, size) = (trunk.last().width(), trunk.last().outputs);
            let at_features = trunk_pass.gradient(trunk);
            at_features.fill(Lane::ZERO);
            for (row, own) in at_features.chunks_exact_mut(lanes).zip(slopes.chunks_exact(size)) {
                flat_mut(row)[..size].copy_from_slice(own);
            }
            let mut rows = &*at_parts;
            for (k, images) in runs(pairs, images) {
                let (gradient, rest) = rows.split_at(images.len() * width);
                rows = rest;
                let of = Rows { lists: &head_pass.lists[0], of: Some(images) };
                isa.run(Backward { layer: &parts[k], rows: of, gradient, memory, slopes });
                for (b, own) in images.iter().zip(slopes.chunks_exact(size)) {
                    let row = flat_mut(&mut at_features[*b as usize * lanes..][..lanes]);
                    row.iter_mut().zip(own).for_each(|(sum, g)| *sum += g);
                }
            }
            trunk_pass.backward(isa, trunk, 1.0, (memory, slopes));
        });
        debug_assert!(at_potentials.len() == *count * head.last().outputs);
    }

    /// What a layer has read on the way that is gone back.
    pub fn rows_of(&self, site: Site) -> Rows<'_> {
        match site {
            Site::Trunk(l) => self.trunk.rows_of(l),
            Site::Head(l) => self.head.rows_of(l),
            Site::Part(k) => Rows { lists: &self.head.lists[0], of: Some(&self.way.images[self.way.pairs_of(k)]) },
            Site::Shared(l) => self.way.shared.rows_of(l),
            Site::Decoder(l) => self.way.decoder.rows_of(l),
        }
    }

    /// The gradient at the outputs of a layer `[rows, width]`.
    pub fn gradient_of(&self, site: Site, width: usize) -> &[Lane] {
        let of = |pass: &'_ Pass, l: usize| -> std::ops::Range<usize> { 0..pass.rows_of(l).count() * width };
        match site {
            Site::Trunk(l) => &self.trunk.gradients[l][of(&self.trunk, l)],
            Site::Head(l) => &self.head.gradients[l][of(&self.head, l)],
            Site::Part(k) => {
                let pairs = self.way.pairs_of(k);
                &self.way.parts[pairs.start * width..pairs.end * width]
            }
            Site::Shared(l) => &self.way.shared.gradients[l][of(&self.way.shared, l)],
            Site::Decoder(l) => &self.way.decoder.gradients[l][of(&self.way.decoder, l)],
        }
    }
}

impl Pass {
    /// The decoder's last layer with the derivatives of losses at its logits.
    fn derive(&mut self, cx: Context<'_>, memory: &mut Memory, losses: Losses<'_>) {
        let net = &cx.layers.decoder;
        self.gradient(net);
        let last = net.layers.len() - 1;
        let mut derivative = std::mem::take(&mut self.gradients[last]);
        self.last(cx.isa, net, memory, Derive { losses, derivative: &mut derivative });
        self.gradients[last] = derivative;
    }
}
