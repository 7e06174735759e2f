//! What the engine answers against the plain path: a perceptron in double precision from its parameters.

#[allow(dead_code, reason = "every test uses some of it")]
mod common;

use common::{Case, Pictures};
use gumbel::continuous::Draw;
use gumbel::engine::{Engine, Images, Shape, StepOptions};
use gumbel::estimator::{Direct, Estimator, Exact, Recorder, estimate, estimators};
use gumbel::network::{Named, Snapshot};
use gumbel::noise::{Noise, Purpose};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Structure, latents};
use gumbel_fused::Isa;

fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::User(0), 0).uniform(&mut x);
    x
}

/// Outputs of a perceptron, and the derivative of `<outputs, direction>` in its input.
fn perceptron(layers: &[Named], input: &[f64], direction: impl Fn(&[f64]) -> Vec<f64>) -> (Vec<f64>, Vec<f64>) {
    let mut activations = vec![input.to_vec()];
    for pair in layers.chunks(2) {
        let (inputs, outputs) = (pair[0].shape[0], pair[0].shape[1]);
        let last = activations.len() == layers.len() / 2;
        let x = activations.last().unwrap();
        let y = (0..outputs).map(|o| {
            let sum: f64 = (0..inputs).map(|i| x[i] * pair[0].values[i * outputs + o] as f64).sum();
            let y = sum + pair[1].values[o] as f64;
            if last { y } else { y.max(0.0) }
        });
        let y = y.collect();
        activations.push(y);
    }
    let outputs = activations.pop().unwrap();
    let mut gradient = direction(&outputs);
    for (pair, x) in layers.chunks(2).zip(&activations).rev() {
        let (inputs, outputs) = (pair[0].shape[0], pair[0].shape[1]);
        let back = |i: usize| (0..outputs).map(|o| gradient[o] * pair[0].values[i * outputs + o] as f64).sum::<f64>();
        let below = (0..inputs).map(|i| if x[i] > 0.0 { back(i) } else { 0.0 });
        let first = std::ptr::eq(x, &activations[0]);
        gradient = if first { (0..inputs).map(back).collect() } else { below.collect() };
    }
    (outputs, gradient)
}

/// Loss and slope of an image at a code.
fn loss(model: &Snapshot, x: &[f32], code: &[f32]) -> (f64, Vec<f64>) {
    loss_at(model, x, &code.iter().map(|c| *c as f64).collect::<Vec<_>>())
}

fn loss_at(model: &Snapshot, x: &[f32], code: &[f64]) -> (f64, Vec<f64>) {
    let derivative = |t: &[f64]| t.iter().zip(x).map(|(t, x)| 1.0 / (1.0 + (-t).exp()) - *x as f64).collect::<Vec<_>>();
    let (logits, slope) = perceptron(&model.parameters.decoder, code, derivative);
    let pixel = |(t, x): (&f64, &f32)| t.max(0.0) + (-t.abs()).exp().ln_1p() - *x as f64 * t;
    (logits.iter().zip(x).map(pixel).sum(), slope)
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0f64, |m, e| m.max(e.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((*f as f64 - e).abs() < 1e-5 * scale, "{what}, {i}: {f}, not {e}");
    }
}

/// A model with larger weights than at the beginning: its losses differ from state to state.
fn grown(case: &Case<'_>, shape: Shape, estimator: &dyn Estimator) -> gumbel_fused::Fused {
    let mut fused = case.fused(shape, estimator);
    let mut model = fused.snapshot();
    for named in model.parameters.encoder.iter_mut().chain(&mut model.parameters.decoder) {
        named.values.iter_mut().for_each(|v| *v *= 2.0);
    }
    fused.restore(&model).unwrap();
    assert_eq!(fused.snapshot(), model);
    fused
}

#[test]
fn every_answer_is_that_of_the_plain_perceptron() {
    for (seed, latent) in [
        "categorical:5",
        "categorical:37",
        "binary:7",
        "categorical:3x4",
        "pairwise:6",
        "pairwise:9",
        "supermodular:4",
        "chain:3x3",
        "subset:7,3",
        "permutation:4",
        "spanning-tree:4",
    ]
    .iter()
    .enumerate()
    {
        let structure: AnyStructure = latents().parse(latent).unwrap().structure;
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let states = structure.states().unwrap();
        let (hidden, height) = [("16", 3), ("23", 13), ("40,7", 5), ("9,33,17", 10)][seed % 4];
        let shape = Shape::grey(height, 11);
        let count = 21;
        let bytes: Vec<u8> = uniform(count * shape.len(), seed as u64).iter().map(|v| (*v < 0.3) as u8).collect();
        let images = Pictures::new(bytes, shape);
        let all: Vec<u32> = (0..count as u32).rev().collect();
        let x: Vec<f32> = {
            let mut x = vec![0.0; count * shape.len()];
            images.fill(&all, &mut x).unwrap();
            x
        };
        let x = |b: usize| &x[b * shape.len()..][..shape.len()];
        let direct = Direct::new(1.0).unwrap();
        // One estimator that has a table of all states, one that has not where there are several variables.
        let made: [&dyn Estimator; 2] = [&direct, &Exact];
        for (which, estimator) in made.into_iter().enumerate() {
            for isa in Isa::all() {
                let case = Case { hidden, seed: seed as u64, threads: 1 + which, ..Case::new(&structure) };
                let mut fused = grown(&case, shape, estimator);
                fused.set_isa(isa);
                let model = fused.snapshot();
                let what = format!("{latent}, hidden {hidden}, estimator {which}, {}", isa.name());

                let mut z = vec![0; n];
                let mut code = vec![0.0; u];
                let mut codes = vec![];
                let mut assignments = vec![];
                let of: Vec<u32> = (0..2 * count as u32).map(|r| r * 7 % count as u32).collect();
                for r in 0..of.len() {
                    structure.state((r * 31 + 5) % states, &mut z);
                    structure.encode(&z, &mut code);
                    assignments.extend_from_slice(&z);
                    codes.extend_from_slice(&code);
                }

                let mut asked = fused.ask(&images, &all, Draw::Mean).unwrap();
                for b in 0..count {
                    let input: Vec<f64> = x(b).iter().map(|v| *v as f64).collect();
                    let (raw, _) = perceptron(&model.parameters.encoder, &input, |t| vec![0.0; t.len()]);
                    let mut expected: Vec<f32> = raw.iter().map(|v| *v as f32).collect();
                    structure.to_potentials(&mut expected);
                    let expected: Vec<f64> = expected.iter().map(|v| *v as f64).collect();
                    assert_close(&format!("{what}: potentials"), &asked.potentials[b * p..][..p], &expected);
                }

                let expected: Vec<f64> =
                    of.iter().zip(codes.chunks(u)).map(|(b, code)| loss(&model, x(*b as usize), code).0).collect();
                let mut losses = vec![0.0; of.len()];
                asked.oracle.losses(&of, &assignments, &mut losses).unwrap();
                assert_close(&format!("{what}: losses"), &losses, &expected);

                let (mut own, mut around) = (vec![0.0; of.len()], vec![0.0; of.len() * u]);
                asked.oracle.around(&of, &assignments, &mut own, &mut around).unwrap();
                assert_close(&format!("{what}: own losses"), &own, &expected);
                for (r, b) in of.iter().enumerate().step_by(5) {
                    let code = &codes[r * u..][..u];
                    let mut changed = vec![];
                    structure.code().for_each_change(code, |change| {
                        let mut next = code.to_vec();
                        change.off.into_iter().for_each(|u| next[u] = 0.0);
                        change.on.into_iter().for_each(|u| next[u] = 1.0);
                        changed.push(loss(&model, x(*b as usize), &next).0 as f32);
                    });
                    let mut expected_losses = vec![0.0; u];
                    structure.code().neighbour_losses(code, expected[r] as f32, &changed, &mut expected_losses);
                    let expected: Vec<f64> = expected_losses.iter().map(|v| *v as f64).collect();
                    // Differences of losses have the rounding of the losses.
                    let found: Vec<f32> = around[r * u..][..u].to_vec();
                    let scale = expected_losses.iter().chain(&changed).fold(1.0f32, |m, v| m.max(v.abs()));
                    for (f, e) in found.iter().zip(&expected) {
                        assert!((*f as f64 - e).abs() < 1e-5 * scale as f64, "{what}: around, {f}, not {e}");
                    }
                }

                let mut table = vec![0.0; 3 * states];
                asked.oracle.states(&[2, 0, 9], &mut table).unwrap();
                for (b, row) in [2, 0, 9].into_iter().zip(table.chunks(states)) {
                    for s in (0..states).step_by(1 + states / 60) {
                        structure.state(s, &mut z);
                        structure.encode(&z, &mut code);
                        let expected = loss(&model, x(b), &code).0;
                        assert_close(&format!("{what}: state {s}"), &row[s..s + 1], &[expected]);
                    }
                }

                // Relaxed codes.
                let soft: Vec<f32> = codes.iter().zip(uniform(codes.len(), 9)).map(|(c, v)| 0.5 * (c + v)).collect();
                let (mut losses, mut slopes) = (vec![0.0; of.len()], vec![0.0; of.len() * u]);
                asked.oracle.slopes(&of, &soft, &mut losses, &mut slopes).unwrap();
                for (r, b) in of.iter().enumerate() {
                    let (value, slope) = loss(&model, x(*b as usize), &soft[r * u..][..u]);
                    assert_close(&format!("{what}: loss at a relaxed code"), &losses[r..=r], &[value]);
                    assert_close(&format!("{what}: slopes"), &slopes[r * u..][..u], &slope);
                }

                // How they change along directions, of which one is none: differences in double precision.
                let mut along: Vec<f32> = uniform(codes.len(), 10).iter().map(|v| v - 0.5).collect();
                along[..u].fill(0.0);
                let mut tangents = vec![7.0; of.len() * u];
                asked.oracle.tangents(&of, &soft, &along, &mut tangents).unwrap();
                let mut largest = 0.0f64;
                for (r, b) in of.iter().enumerate() {
                    let at = |step: f64| -> Vec<f64> {
                        let moved = soft[r * u..].iter().zip(&along[r * u..][..u]);
                        let moved: Vec<f64> = moved.map(|(c, d)| *c as f64 + step * *d as f64).collect();
                        loss_at(&model, x(*b as usize), &moved).1
                    };
                    let expected: Vec<f64> = at(1e-6).iter().zip(at(-1e-6)).map(|(a, b)| (a - b) / 2e-6).collect();
                    assert_close(&format!("{what}: tangents"), &tangents[r * u..][..u], &expected);
                    largest = expected.iter().fold(largest, |largest, e| largest.max(e.abs()));
                }
                assert!(tangents[..u].iter().all(|t| *t == 0.0) && largest > 1e-2, "{what}: {largest}");
                drop(asked);

                let mut means = vec![0.0; of.len() * shape.len()];
                fused.means(&soft, &mut means).unwrap();
                for (code, means) in soft.chunks(u).zip(means.chunks(shape.len())) {
                    let code: Vec<f64> = code.iter().map(|c| *c as f64).collect();
                    let (logits, _) = perceptron(&model.parameters.decoder, &code, |t| vec![0.0; t.len()]);
                    let expected: Vec<f64> = logits.iter().map(|t| 1.0 / (1.0 + (-t).exp())).collect();
                    assert_close(&format!("{what}: means"), means, &expected);
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let noise = Noise::new(0, Purpose::User(0), 0);
    let structure: AnyStructure = latents().parse("binary:4").unwrap().structure;
    let direct = Direct::new(1.0).unwrap();
    let mut fused = Case::new(&structure).fused(Shape::grey(4, 4), &direct);
    let mut model = fused.snapshot();
    model.parameters.decoder[2].shape[1] = 17;
    let message = fused.restore(&model).unwrap_err().to_string();
    assert!(message.contains("layers.1.weight") && message.contains("decoder"), "{message}");
    let mut model = fused.snapshot();
    model.moments = vec![Default::default(); 3];
    assert!(fused.restore(&model).unwrap_err().to_string().contains("moments"));
    assert!(fused.means(&[0.0; 9], &mut [0.0; 16]).is_err());
    let images = Pictures::new(vec![0; 50], Shape::grey(5, 5));
    assert!(fused.ask(&images, &[0], Draw::Mean).err().unwrap().to_string().contains("16 pixels, found 25"));
    let grey = Pictures::new(vec![100; 16], Shape::grey(4, 4));
    assert!(fused.ask(&grey, &[0], Draw::Mean).err().unwrap().to_string().contains("other levels"));
    assert!(fused.means(&[0.0; 8], &mut [0.0; 15]).unwrap_err().to_string().contains("means has 15 values"));
    fused.means(&[], &mut []).unwrap();

    // Questions: about no rows, about images that are not there, of wrong lengths.
    let images = Pictures::new(vec![0; 3 * 16], Shape::grey(4, 4));
    let mut oracle = fused.ask(&images, &[0, 2], Draw::Mean).unwrap().oracle;
    oracle.losses(&[], &[], &mut []).unwrap();
    oracle.around(&[], &[], &mut [], &mut []).unwrap();
    oracle.states(&[], &mut []).unwrap();
    oracle.slopes(&[], &[], &mut [], &mut []).unwrap();
    oracle.tangents(&[], &[], &[], &mut []).unwrap();
    let (z, codes) = ([0; 4], [0.5; 8]);
    let (mut one, mut eight) = ([0.0; 1], [0.0; 8]);
    assert!(oracle.losses(&[2], &z, &mut one).unwrap_err().to_string().contains("image 2 of a batch of 2"));
    assert!(oracle.losses(&[0], &z[..3], &mut one).is_err() && oracle.losses(&[0], &z, &mut eight).is_err());
    assert!(
        oracle.around(&[0], &z, &mut [], &mut eight).is_err() && oracle.around(&[0], &z, &mut one, &mut []).is_err()
    );
    assert!(oracle.states(&[0], &mut eight).is_err());
    assert!(oracle.slopes(&[0], &codes[1..], &mut one, &mut eight).is_err());
    assert!(oracle.slopes(&[0], &codes, &mut one, &mut eight[1..]).is_err());
    assert!(oracle.tangents(&[0], &codes, &codes[1..], &mut eight).is_err());
    drop(oracle);

    // Steps: of images that are not there, and of an estimator that enumerates too much.
    let options = StepOptions::discrete(0.0, &noise, 1);
    let step = |fused: &mut gumbel_fused::Fused, batch: &[u32]| {
        fused.step(&images, batch, &mut Direct::new(1.0).unwrap(), &options).map(drop)
    };
    assert!(step(&mut fused, &[3]).unwrap_err().to_string().contains("images below 3, found 3"));
    assert!(step(&mut fused, &[0; 10_000]).unwrap_err().to_string().contains("images in a step"));
    step(&mut fused, &[0, 2]).unwrap();
    let many: AnyStructure = latents().parse("binary:40").unwrap().structure;
    let mut fused = Case::new(&many).fused(Shape::grey(4, 4), &direct);
    let error = fused.step(&images, &[0], &mut Exact, &options).map(drop).unwrap_err().to_string();
    assert!(error.contains("states"), "{error}");
}

/// Those that ask for losses at assignments and slopes at codes, or go on with slopes there: the gradient at the
/// biases of the potentials and of the pixels, which stands in the first moments after one step, for any number of
/// threads.
#[test]
fn a_step_of_any_estimator_that_asks_is_the_estimate_by_hand() {
    const BATCH: usize = 53;
    let shape = Shape::grey(6, 7);
    let bytes = uniform(BATCH * shape.len(), 1).iter().map(|v| (*v < 0.3) as u8).collect();
    let images = Pictures::new(bytes, shape);
    let batch: Vec<u32> = (0..BATCH as u32).rev().collect();
    let mut x = vec![0.0; BATCH * shape.len()];
    images.fill(&batch, &mut x).unwrap();
    let mut tried = 0;
    for latent in ["categorical:2", "categorical:6", "binary:5", "pairwise:6", "chain:3x3", "subset:7,3"] {
        let structure: AnyStructure = latents().parse(latent).unwrap().structure;
        let (p, u) = (structure.potentials(), structure.unary());
        let score = ["reinforce", "rloo", "arm", "disarm", "rebar", "relax", "direct-rebar", "arsm", "vimco"];
        let relaxed =
            ["straight-through", "reinmax", "gumbel-rao", "decoupled-straight-through", "simple", "softmax-trick"];
        let perturbed = ["imle", "adaptive-imle", "perturbed"];
        for name in score.into_iter().chain(relaxed).chain(perturbed) {
            let all = estimators();
            let entry = all.get(name).unwrap();
            let Ok(mut estimator) = entry.build(&Settings::defaults(entry.settings()), &structure) else { continue };
            tried += 1;
            // With one hidden layer, images may share the rows of states.
            for (samples, hidden) in
                [(estimator.least_samples(), "23"), (estimator.least_samples(), "23,9"), (3, "23,9")]
            {
                let case = Case { hidden, batch: BATCH, samples, ..Case::new(&structure) };
                let stream = Noise::new(4, Purpose::Noise, 2);
                let mut noise = vec![0.0; samples * BATCH * estimator.noise(&structure).unwrap()];
                stream.gumbel(&mut noise);
                let mut fused = grown(&case, shape, estimator.as_ref());
                let model = fused.snapshot();
                let mut asked = fused.ask(&images, &batch, Draw::Mean).unwrap();
                let rows = estimator.rows(samples);
                let mut recorder = Recorder::new(&structure, &mut *asked.oracle, rows, BATCH);
                let found = estimate(&*estimator, &structure, &asked.potentials, &noise, &mut recorder).unwrap();
                let mut potentials = vec![0.0; p];
                for (i, g) in found.gradient.iter().enumerate() {
                    potentials[i % p] += *g as f64 / BATCH as f64;
                }
                let mut pixels = vec![0.0; shape.len()];
                for (r, (code, weight)) in recorder.codes.chunks_exact(u).zip(&recorder.weights).enumerate() {
                    let code: Vec<f64> = code.iter().map(|c| *c as f64).collect();
                    let (logits, _) = perceptron(&model.parameters.decoder, &code, |t| vec![0.0; t.len()]);
                    let image = &x[r % BATCH * shape.len()..][..shape.len()];
                    for ((g, t), x) in pixels.iter_mut().zip(logits).zip(image) {
                        *g += (1.0 / (1.0 + (-t).exp()) - *x as f64) * *weight as f64 / BATCH as f64;
                    }
                }
                drop(asked);
                let learned = estimator.state();
                let mut after = vec![];
                for threads in [1, 2, 5] {
                    let mut fused = grown(&Case { threads, ..case.clone() }, shape, estimator.as_ref());
                    estimator.restore(&learned).unwrap();
                    let options = StepOptions::discrete(0.0, &stream, samples);
                    let report = fused.step(&images, &batch, estimator.as_mut(), &options).unwrap();
                    // What is measured behind the decoder's pass is told too.
                    for (told, found) in report.tallies.iter().zip(&found.tallies) {
                        let close = (told.mean() - found.mean()).abs() < 1e-3 * (1.0 + found.mean());
                        assert!(told.count == found.count && close, "{latent}, {name}: {told:?} {found:?}");
                    }
                    after.push((fused.snapshot(), estimator.state()));
                }
                estimator.restore(&learned).unwrap();
                let what = format!("{latent}, {name}, {samples} samples, hidden {hidden}");
                assert!(after[0] == after[1] && after[0] == after[2], "{what}: threads");
                let moments = &after[0].0.moments;
                let gradient = |slot: usize| moments[slot].first.iter().map(|m| 10.0 * m).collect::<Vec<_>>();
                let last = model.parameters.encoder.len() - 1;
                assert_close(&format!("{what}: potentials"), &gradient(last), &potentials);
                assert_close(&format!("{what}: pixels"), &gradient(moments.len() - 1), &pixels);
                assert!(potentials.iter().any(|g| g.abs() > 1e-3), "{what}");
            }
        }
    }
    assert_eq!(tried, 6 * 8 + 2 * 2 + 3 * 8);
}
