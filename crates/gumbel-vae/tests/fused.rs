//! The fused engine against the autodiff engine.

use burn::tensor::Device;
use gumbel::estimator::{Direct, Exact, LocalExpectation, Marginal, Sides};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Structure, Subset,
    Supermodular, Tree,
};
use gumbel_vae::adam::Moments;
use gumbel_vae::engine::{Autodiff, Method, StepOptions};
use gumbel_vae::fused::{Bits, Fused, Isa, Model, Options};
use gumbel_vae::model::{Mlp, Named, parameters, with_parameters};

fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::User(0), 0).uniform(&mut x);
    x
}

/// Independent variables of all kinds, and one of every structure.
fn structures() -> Vec<AnyStructure> {
    vec![
        Categorical::new(2).unwrap().into(),
        Categorical::new(10).unwrap().into(),
        Categorical::new(37).unwrap().into(),
        Categorical::binary(9).unwrap().into(),
        Categorical::product(3, 4).unwrap().into(),
        Pairwise::new(1).unwrap().into(),
        Pairwise::new(8).unwrap().into(),
        Pairwise::new(17).unwrap().into(),
        Supermodular::new(8).unwrap().into(),
        Supermodular::new(15).unwrap().into(),
        Chain::new(4, 3).unwrap().into(),
        Tree::new(4, 5, &[(2, 0), (2, 3), (1, 3)]).unwrap().into(),
        Subset::new(20, 3).unwrap().into(),
        Permutation::new(4).unwrap().into(),
        SpanningTree::complete(5).unwrap().into(),
        Arborescence::new(5, 1).unwrap().into(),
    ]
}

/// A model and its batches.
struct Case {
    pixels: usize,
    hidden: Vec<usize>,
    structure: AnyStructure,
    batch: usize,
    samples: usize,
    density: f32,
}

impl Case {
    fn random(seed: u64) -> Self {
        let u = uniform(8, seed);
        let pick = |i: usize, from: &[usize]| from[(u[i] * from.len() as f32) as usize];
        let width = pick(0, &[5, 16, 31, 48]);
        let hidden = match pick(1, &[1, 1, 2, 3]) {
            1 => vec![width],
            2 => vec![width, 20],
            _ => vec![width, 7, 33],
        };
        let structure = structures().swap_remove((u[2] * structures().len() as f32) as usize);
        Case {
            pixels: pick(3, &[1, 23, 64, 131]),
            hidden,
            structure,
            batch: pick(4, &[1, 7, 16, 40]),
            samples: pick(5, &[1, 1, 3]),
            density: u[6],
        }
    }

    fn images(&self, seed: u64) -> Vec<f32> {
        uniform(self.batch * self.pixels, seed).iter().map(|u| (*u < self.density) as u8 as f32).collect()
    }

    fn autodiff(&self, seed: u64) -> Autodiff<Mlp, Mlp> {
        let device = Device::flex();
        let mut widths = vec![self.pixels];
        widths.extend(&self.hidden);
        widths.push(self.structure.potentials());
        let encoder = Mlp::new(&widths, seed, 0, &device);
        widths.reverse();
        widths[0] = self.structure.unary();
        let decoder = Mlp::new(&widths, seed, 1, &device);
        Autodiff::new(encoder, decoder, self.structure.clone(), 1e-3, &device)
    }

    fn fused(&self, method: &Method, threads: usize) -> Fused {
        let model = Model {
            pixels: self.pixels,
            hidden: &self.hidden,
            structure: self.structure.clone(),
            method,
            batch: self.batch,
            samples: self.samples,
            lr: 1e-3,
            threads,
        };
        Fused::new(&model).unwrap()
    }
}

fn all(engine: &Autodiff<Mlp, Mlp>) -> Vec<Named> {
    [parameters(engine.encoder()), parameters(engine.decoder())].concat()
}

fn methods(structure: &AnyStructure) -> Vec<(&'static str, Method)> {
    let direct = Direct::new(0.7).unwrap();
    let mut all = vec![
        ("direct", Method::Seam(Box::new(direct))),
        ("two-sided", Method::Seam(Box::new(direct.sides(Sides::Two)))),
        ("kl by perturbation", Method::Seam(Box::new(direct.with_kl(0.6)))),
        ("search", Method::Search(direct)),
    ];
    if structure.block(0).is_some() {
        all.push(("rao-blackwell", Method::Seam(Box::new(direct.rao_blackwell()))));
        all.push(("local-expectation", Method::Seam(Box::new(LocalExpectation))));
        all.push(("gumbel-softmax", Method::Relaxed { temperature: 0.6, straight_through: false }));
        all.push(("straight-through", Method::Relaxed { temperature: 0.6, straight_through: true }));
    }
    if structure.states().is_some_and(|s| s <= 1024) {
        all.push(("exact", Method::Seam(Box::new(Exact))));
        all.push(("marginal", Method::Seam(Box::new(Marginal))));
    }
    all
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32], scale: f32, tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}, {i}: {a}, not {b} (scale {scale})");
    }
}

/// The mean gradient stands in the first moments after one step.
#[test]
fn gradients_equal_those_of_automatic_differentiation() {
    for seed in 0..160 {
        let case = Case::random(seed);
        let images = case.images(seed + 1000);
        let bits = Bits::new(&images, case.pixels).unwrap();
        let batch: Vec<u32> = (0..case.batch as u32).collect();
        for (name, method) in methods(&case.structure) {
            let what = format!(
                "seed {seed}, {name}, {:?}, {} pixels, hidden {:?}, batch {}, {} samples",
                case.structure, case.pixels, case.hidden, case.batch, case.samples
            );
            let kl_weight = if case.structure.has_sums() { [0.0, 0.3, 1.0][seed as usize % 3] } else { 0.0 };
            let mut plain = case.autodiff(seed);
            let start = all(&plain);
            let noise = Noise::new(seed, Purpose::Noise, 3);
            let mut gumbel = vec![0.0; case.samples * case.batch * case.structure.unary()];
            noise.gumbel(&mut gumbel);
            let options = StepOptions { method: &method, kl_weight, noise: &gumbel };
            let expected = plain.step(&images, case.pixels, &options).unwrap();
            let isas = if seed % 4 == 0 { Isa::all() } else { vec![Isa::detect()] };
            for isa in isas {
                let mut fused = case.fused(&method, 1);
                fused.set_isa(isa);
                fused.load(&start, &[], 0);
                let options = Options { method: &method, kl_weight, noise: &noise };
                let found = fused.step(&bits, &batch, &options).unwrap();
                assert_eq!(found.unmoved, expected.unmoved, "{what}");
                assert_eq!(found.missed.map(|m| m.examples), expected.missed.map(|m| m.examples), "{what}");
                let error = (found.reconstruction - expected.reconstruction).abs();
                assert!(error < 1e-5 * expected.reconstruction.abs().max(1.0), "{what}: {found:?}, not {expected:?}");
                let mut out = start.clone();
                let moments = fused.store(&mut out);
                let largest = |m: &[Moments]| m.iter().flat_map(|m| &m.first).fold(0.0f32, |a, b| a.max(b.abs()));
                let scale = largest(plain.adam.moments());
                for (slot, (f, p)) in moments.iter().zip(plain.adam.moments()).enumerate() {
                    let at = format!("{what}, {}, parameter {slot} {}", isa.name(), start[slot].name);
                    if !p.first.is_empty() {
                        assert_close(&at, &f.first, &p.first, scale, 1e-5);
                    }
                }
            }
        }
    }
}

/// A run of some steps on changing batches, the last one smaller.
fn train(case: &Case, method: &Method, threads: usize, steps: u64) -> (Vec<Named>, Vec<Moments>) {
    let images = case.images(77);
    let bits = Bits::new(&images, case.pixels).unwrap();
    let start = all(&case.autodiff(5));
    let mut fused = case.fused(method, threads);
    fused.load(&start, &[], 0);
    for step in 0..steps {
        let order = Noise::new(6, Purpose::Shuffle, step).permutation(case.batch);
        let batch = &order[..case.batch - (step % 3 == 2) as usize * (case.batch / 2)];
        let noise = Noise::new(6, Purpose::Noise, step);
        let kl_weight = if case.structure.has_sums() { 1.0 } else { 0.0 };
        fused.step(&bits, batch, &Options { method, kl_weight, noise: &noise }).unwrap();
    }
    let mut out = start;
    let moments = fused.store(&mut out);
    (out, moments)
}

#[test]
fn steps_do_not_depend_on_threads() {
    let [single, several]: [AnyStructure; 2] =
        [Categorical::new(37).unwrap().into(), Categorical::binary(9).unwrap().into()];
    let [pairs, subset]: [AnyStructure; 2] = [Pairwise::new(12).unwrap().into(), Subset::new(12, 5).unwrap().into()];
    let order: AnyStructure = Permutation::new(4).unwrap().into();
    let wide = vec![40, 300];
    for (structure, hidden) in
        [(single, vec![300]), (several, wide.clone()), (pairs, vec![300]), (subset, wide), (order, vec![300])]
    {
        let case = Case { pixels: 784, hidden, structure, batch: 50, samples: 1, density: 0.2 };
        for (name, method) in methods(&case.structure) {
            let one = train(&case, &method, 1, 7);
            let same = one == train(&case, &method, 2, 7) && one == train(&case, &method, 5, 7);
            assert!(same, "{name}, {:?}", case.structure);
        }
    }
}

/// Both engines from the same state, back and forth: what one has left the other goes on with.
#[test]
fn engines_take_turns() {
    for seed in [3, 8, 21] {
        let structure = Categorical::product(3, 4).unwrap().into();
        let case = Case { samples: 1, structure, ..Case::random(seed) };
        let images = case.images(seed);
        let bits = Bits::new(&images, case.pixels).unwrap();
        let batch: Vec<u32> = (0..case.batch as u32).collect();
        let method = Method::Relaxed { temperature: 0.9, straight_through: false };
        let noise = |step| Noise::new(seed, Purpose::Noise, step);
        let gumbel = |step| {
            let mut gumbel = vec![0.0; case.batch * case.structure.unary()];
            noise(step).gumbel(&mut gumbel);
            gumbel
        };
        let mut plain = case.autodiff(seed);
        let mut mixed = case.autodiff(seed);
        let mut fused = case.fused(&method, 2);
        for step in 0..6 {
            let gumbel = gumbel(step);
            let options = StepOptions { method: &method, kl_weight: 1.0, noise: &gumbel };
            plain.step(&images, case.pixels, &options).unwrap();
            if step % 2 == 0 {
                mixed.step(&images, case.pixels, &options).unwrap();
                continue;
            }
            let mut state = all(&mixed);
            fused.load(&state, mixed.adam.moments(), mixed.adam.steps());
            fused.step(&bits, &batch, &Options { method: &method, kl_weight: 1.0, noise: &noise(step) }).unwrap();
            let moments = fused.store(&mut state);
            mixed.adam.restore(fused.steps(), moments, &state).unwrap();
            let decoder = state.split_off(2 * case.hidden.len() + 2);
            let modules = (mixed.encoder().clone(), mixed.decoder().clone());
            mixed.set_modules(
                with_parameters(modules.0, &state).unwrap(),
                with_parameters(modules.1, &decoder).unwrap(),
            );
        }
        for (a, b) in all(&mixed).iter().zip(all(&plain)) {
            // Adam divides by the gradient's size: where that is rounding, so is the step, at most lr each.
            assert_close(&format!("seed {seed}, {}", a.name), &a.values, &b.values, 1e-3, 0.2);
        }
    }
}
