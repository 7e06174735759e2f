//! The fast paths of a training step against the plain path: automatic differentiation through everything.

mod common;
#[path = "../src/testing.rs"]
mod testing;

use burn::module::Module;
use burn::tensor::{Tensor, activation};
use common::{BATCH, Pictures, device, engine, engine_with, gumbel, images, noise, tensor, uniform, values};
use gumbel::engine::{Engine, StepOptions};
use gumbel::estimator::{
    Direct, DirectJoint, Estimator, Exact, Flips, GumbelSoftmax, LocalExpectation, Marginal, Perturbation, Sides,
    StraightThrough,
};
use gumbel::likelihood::Bernoulli;
use gumbel::likelihood::Likelihood;
use gumbel::structure::{
    AnyStructure, Categorical, Chain, Code, Pairwise, Permutation, Structure, Subset, Supermodular, Tree,
    perturbed_argmax,
};
use gumbel_vae::Autodiff;
use gumbel_vae::model::{Decoder, Encoder, Mlp};
use std::sync::Arc;
use testing::{Gaussian, Quartic};

use common::PIXELS;

type Perceptron = Autodiff<Mlp, Mlp>;

/// The same for binary variables with a decoder that sees how many of them are 1, and explains the images better, by
/// dark pixels, where they are four: from three or five every single change to four helps, and all together go too far.
fn counting(variables: usize) -> Perceptron {
    let hidden = 11;
    let mut engine = engine(Pairwise::new(variables).unwrap(), &[hidden]);
    let mut snapshot = engine.snapshot();
    let named = &mut snapshot.parameters.decoder;
    // Unit j is the excess of the number over j - 1/4: never at the kink of its ReLU.
    named[0].values.iter_mut().enumerate().for_each(|(i, w)| *w = (i / hidden % 2) as f32);
    named[1].values.iter_mut().enumerate().for_each(|(j, b)| *b = 0.25 - j as f32);
    let tent = |j: usize| [(3, -1.0), (4, 2.0), (5, -1.0)].into_iter().find(|(k, _)| *k == j).map_or(0.0, |(_, w)| w);
    named[2].values.iter_mut().enumerate().for_each(|(i, w)| *w = tent(i / PIXELS));
    named[3].values.fill(-0.1); // not zero, the kink of the plain softplus
    engine.restore(&snapshot).unwrap();
    engine
}

/// Gradients of all parameters of both modules, by automatic differentiation.
fn gradients(engine: &Perceptron, loss: Tensor<1>) -> Vec<Vec<f32>> {
    common::gradients(&[engine.encoder(), engine.decoder()], loss)
}

/// The same as the engine estimates them, with the noise of [`gumbel`].
fn estimated(
    engine: &mut Perceptron,
    x: &[f32],
    estimator: &dyn Estimator,
    kl_weight: f32,
    (samples, seed): (usize, u64),
) -> Vec<Vec<f32>> {
    let noise = noise(seed);
    let options = StepOptions::discrete(kl_weight, &noise, samples);
    let batch: Vec<u32> = (0..BATCH as u32).collect();
    let found = engine.gradients(&Pictures::new(x), &batch, estimator, &options).unwrap();
    found.gradients.all().map(|p| p.values.clone()).collect()
}

#[track_caller]
fn assert_close(what: &str, fast: &[Vec<f32>], plain: &[Vec<f32>], tolerance: f32) {
    assert_eq!(fast.len(), plain.len());
    // Both ways round in single precision; errors are relative to the largest component of the whole gradient.
    let scale = plain.iter().flatten().map(|v| v.abs()).fold(0.0, f32::max);
    assert!(scale > 1e-3, "{what}: nothing to compare");
    for (i, (f, p)) in fast.iter().zip(plain).enumerate() {
        for (a, b) in f.iter().zip(p) {
            assert!((a - b).abs() <= tolerance * scale, "{what}, parameter {i}: {a} {b} (scale {scale})");
        }
    }
}

/// -ln p(x | outputs) per row, by operations of Burn that automatic differentiation knows: `[rows]`.
fn plain_losses(engine: &Perceptron, outputs: Tensor<2>, x: Tensor<2>) -> Tensor<1> {
    let pixels = match engine.likelihood().name() {
        "quartic" => (outputs - x).powi_scalar(4).div_scalar(4.0),
        "gaussian" => (outputs - x).powi_scalar(2).div_scalar(2.0),
        _ => activation::relu(outputs.clone()) + outputs.clone().abs().neg().exp().log1p() - x * outputs,
    };
    pixels.sum_dim(1).flatten(0, 1)
}

/// Codes of assignments, on the autodiff device.
fn codes(structure: &AnyStructure, z: &[u32]) -> Tensor<2> {
    let (n, u) = (structure.variables(), structure.unary());
    let mut codes = vec![0.0; z.len() / n * u];
    z.chunks(n).zip(codes.chunks_mut(u)).for_each(|(z, code)| structure.encode(z, code));
    tensor(codes, [z.len() / n, u])
}

/// Losses of every example at every state, by decoding batch * states rows: `[batch, states]`.
fn plain_table(engine: &Perceptron, x: &[f32]) -> Tensor<2> {
    let structure = engine.structure();
    let states = structure.states().unwrap();
    let mut z = vec![0; structure.variables()];
    let mut all = vec![];
    let mut rows = vec![];
    for image in x.chunks(PIXELS) {
        for s in 0..states {
            structure.state(s, &mut z);
            all.extend_from_slice(&z);
            rows.extend_from_slice(image);
        }
    }
    let outputs = engine.decoder().outputs(codes(structure, &all));
    plain_losses(engine, outputs, tensor(rows, [BATCH * states, PIXELS])).reshape([BATCH, states])
}

/// The encoder's outputs `[batch, P]`.
fn plain_raw(engine: &Perceptron, x: &[f32]) -> Tensor<2> {
    engine.encoder().encode(tensor(x.to_vec(), [BATCH, PIXELS]), None).potentials
}

/// ln q of every state: `[batch, states]`.
fn plain_log_q(engine: &Perceptron, structure: &Categorical, x: &[f32]) -> Tensor<2> {
    let (n, k, states) = (structure.variables(), structure.values(), structure.states().unwrap());
    let h = plain_raw(engine, x);
    let log_q = activation::log_softmax(h.reshape([BATCH * n, k]), 1).reshape([BATCH, n * k]);
    let mut statistics = vec![0.0; states * n * k];
    let mut z = vec![0; n];
    for (s, row) in statistics.chunks_exact_mut(n * k).enumerate() {
        structure.state(s, &mut z);
        structure.add_statistics(&z, 1.0, row);
    }
    log_q.matmul(tensor(statistics, [states, n * k]).transpose())
}

fn structures() -> [Categorical; 4] {
    let product = |n, k| Categorical::product(n, k).unwrap();
    [product(1, 2), product(1, 10), product(3, 2), product(2, 4)]
}

#[test]
fn exact_equals_autodiff_through_the_softmax() {
    for (structure, hidden) in structures().into_iter().zip([&[11][..], &[11], &[9, 8], &[]]) {
        for kl_weight in [0.0, 0.3, 1.0] {
            let mut engine = engine(structure, hidden);
            let x = images();
            let fast = estimated(&mut engine, &x, &Exact, kl_weight, (1, 2));
            let log_q = plain_log_q(&engine, &structure, &x);
            let q = log_q.clone().exp();
            let kl = (q.clone() * (log_q + structure.ln_states() as f32)).sum();
            let plain = ((q * plain_table(&engine, &x)).sum() + kl.mul_scalar(kl_weight)).div_scalar(BATCH as f32);
            assert_close(&format!("{structure:?}"), &fast, &gradients(&engine, plain), 1e-5);
        }
    }
}

#[test]
fn marginal_equals_autodiff_of_its_objective() {
    for structure in structures() {
        let mut engine = engine(structure, &[11]);
        let x = images();
        let fast = estimated(&mut engine, &x, &Marginal, 0.0, (1, 2));
        let table = plain_table(&engine, &x);
        let posterior = activation::softmax(table.clone().detach().neg(), 1);
        // -ln p(x) for the decoder; cross-entropy of q with the posterior for the encoder.
        let nll = activation::log_softmax(table.clone().neg(), 1) + table; // -ln sum exp(-loss), in every column
        let nll = nll.mean_dim(1).sum();
        let cross = (posterior * plain_log_q(&engine, &structure, &x)).sum().neg();
        let plain = (nll + cross).div_scalar(BATCH as f32);
        assert_close(&format!("{structure:?}"), &fast, &gradients(&engine, plain), 1e-5);
    }
}

#[test]
fn direct_follows_its_definition_with_plainly_decoded_losses() {
    let epsilon = 0.8;
    for structure in structures() {
        for samples in [1, 3] {
            let mut engine = engine(structure, &[11]);
            let (n, k, width) = (structure.variables(), structure.values(), structure.unary());
            let x = images();
            let noise = gumbel(samples * BATCH * width, 5);
            let fast = estimated(&mut engine, &x, &Direct::new(epsilon).unwrap(), 0.0, (samples, 5));

            let h = plain_raw(&engine, &x);
            let table = plain_table(&engine, &x);
            let losses = values(table.clone());
            let (potentials, states) = (values(h.clone()), structure.states().unwrap());
            let mut at_potentials = vec![0.0; BATCH * width];
            let mut at_table = vec![0.0; BATCH * states];
            let scale = 1.0 / (BATCH * samples) as f32;
            for noise in noise.chunks(BATCH * width) {
                let mut z = vec![0; BATCH * n];
                perturbed_argmax(&structure, &potentials, noise, &mut z).unwrap();
                let index = |z: &[u32]| z.iter().fold(0, |i, z| i * k + *z as usize);
                for b in 0..BATCH {
                    let star = &z[b * n..(b + 1) * n];
                    at_table[b * states + index(star)] += scale;
                    for i in 0..n {
                        let score = |value: usize| {
                            let mut changed = star.to_vec();
                            changed[i] = value as u32;
                            let at = b * width + i * k + value;
                            potentials[at] + noise[at] - epsilon * losses[b * states + index(&changed)]
                        };
                        let moved = (0..k).max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap();
                        at_potentials[b * width + i * k + star[i] as usize] += scale / epsilon;
                        at_potentials[b * width + i * k + moved] -= scale / epsilon;
                    }
                }
            }
            let plain =
                (h * tensor(at_potentials, [BATCH, width])).sum() + (table * tensor(at_table, [BATCH, states])).sum();
            assert_close(&format!("{structure:?}, {samples}"), &fast, &gradients(&engine, plain), 1e-5);
        }
    }
}

/// The same perceptron without the shared first layer: the trait's own way.
#[derive(Module, Debug)]
struct Plain {
    inner: Mlp,
}

impl Decoder for Plain {
    fn outputs(&self, codes: Tensor<2>) -> Tensor<2> {
        self.inner.outputs(codes)
    }
}

#[test]
fn the_shared_first_layer_gives_the_same_neighbours() {
    let structures: [AnyStructure; 5] = [
        Categorical::product(3, 2).unwrap().into(),
        Categorical::product(2, 4).unwrap().into(),
        Pairwise::new(15).unwrap().into(),
        Subset::new(6, 2).unwrap().into(),
        Permutation::new(3).unwrap().into(),
    ];
    for (structure, hidden) in structures.into_iter().zip([&[11][..], &[9, 8], &[], &[11], &[9, 8]]) {
        let engine = engine(structure, hidden);
        let structure = engine.structure();
        let (n, p, u) = (structure.variables(), structure.potentials(), structure.unary());
        let mut z = vec![0; BATCH * n];
        perturbed_argmax(structure, &vec![0.0; BATCH * p], &gumbel(BATCH * u, 8), &mut z).unwrap();
        let (codes, kind) = (values(codes(structure, &z)), structure.code());
        let fast = engine.decoder().valid();
        let plain = Plain { inner: fast.clone() };
        let (a, b) = (
            values(fast.neighbour_outputs(&codes, u, u, kind, engine.device())),
            values(plain.neighbour_outputs(&codes, u, u, kind, engine.device())),
        );
        assert_eq!((a.len(), b.len()), (b.len(), BATCH * kind.changes(u) * PIXELS));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn local_expectation_runs_with_one_and_with_several_variables() {
    // Its mean is tested in the crate gumbel; here: for one variable the step is that of `exact` at the encoder.
    let structure = Categorical::new(6).unwrap();
    let (mut engine, x) = (engine(structure, &[11]), images());
    let local = estimated(&mut engine, &x, &LocalExpectation, 1.0, (1, 4));
    let exact = estimated(&mut engine, &x, &Exact, 1.0, (1, 4));
    assert_close("encoder", &local[..4], &exact[..4], 1e-6);
    assert_ne!(local[4..], exact[4..]);
    let mut engine = common::engine(Categorical::product(3, 2).unwrap(), &[11]);
    let several = estimated(&mut engine, &x, &LocalExpectation, 1.0, (2, 4));
    assert!(several.iter().flatten().any(|v| v.abs() > 1e-3));
}

#[test]
fn relaxed_estimators_equal_autodiff_through_the_decoder() {
    let temperature = 0.7;
    for structure in structures() {
        for straight_through in [false, true] {
            let mut engine = engine(structure, &[11]);
            let (n, k, width) = (structure.variables(), structure.values(), structure.unary());
            let (x, noise) = (images(), gumbel(2 * BATCH * width, 6));
            let estimator: Box<dyn Estimator> = match straight_through {
                true => Box::new(StraightThrough::new(temperature).unwrap()),
                false => Box::new(GumbelSoftmax::new(temperature).unwrap()),
            };
            let fast = estimated(&mut engine, &x, &*estimator, 0.0, (2, 6));

            let h = plain_raw(&engine, &x);
            let mut total: Option<Tensor<1>> = None;
            for noise in noise.chunks(BATCH * width) {
                let perturbed = h.clone() + tensor(noise.to_vec(), [BATCH, width]);
                let soft = activation::softmax(perturbed.clone().div_scalar(temperature).reshape([BATCH * n, k]), 1);
                let code = if straight_through {
                    let scores = perturbed.reshape([BATCH * n, k]);
                    let hard = scores.clone().equal(scores.max_dim(1).expand([BATCH * n, k])).float();
                    soft.clone() + (hard - soft).detach()
                } else {
                    soft
                };
                let outputs = engine.decoder().outputs(code.reshape([BATCH, width]));
                let loss = plain_losses(&engine, outputs, tensor(x.clone(), [BATCH, PIXELS])).sum();
                total = Some(total.map_or(loss.clone(), |t| t + loss));
            }
            let plain = total.unwrap().div_scalar((2 * BATCH) as f32);
            assert_close(&format!("{structure:?}"), &fast, &gradients(&engine, plain), 1e-5);
        }
    }
}

#[test]
fn steps_do_not_depend_on_threads() {
    let train = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let structure = Categorical::new(10).unwrap();
            let device = device();
            let encoder = Mlp::new(&[784, 300, 10], 1, 0, &device);
            let decoder = Mlp::new(&[10, 300, 784], 1, 1, &device);
            let mut engine = Autodiff::new(encoder, decoder, structure.into(), Arc::new(Bernoulli), 1e-3, &device);
            let x: Vec<f32> = uniform(100 * 784, 9).iter().map(|u| (*u < 0.13) as u8 as f32).collect();
            let (pictures, batch): (_, Vec<u32>) = (Pictures::of(&x, 784), (0..100).collect());
            let estimators: [Box<dyn Estimator>; 4] = [
                Box::new(Direct::new(1.0).unwrap()),
                Box::new(Exact),
                Box::new(GumbelSoftmax::new(1.0).unwrap()),
                Box::new(StraightThrough::new(1.0).unwrap()),
            ];
            for (i, mut estimator) in estimators.into_iter().enumerate() {
                let noise = noise(i as u64);
                let options = StepOptions::discrete(1.0, &noise, 1);
                engine.step(&pictures, &batch, &mut *estimator, &options).unwrap();
            }
            engine.snapshot()
        })
    };
    let one = train(1);
    assert!(one == train(2) && one == train(3));
}

/// Latents with couplings, and codes of both kinds.
fn structured() -> Vec<AnyStructure> {
    vec![
        Pairwise::new(4).unwrap().into(),
        Supermodular::new(4).unwrap().into(),
        Chain::new(3, 3).unwrap().into(),
        Tree::new(4, 2, &[(0, 1), (0, 2), (2, 3)]).unwrap().into(),
        Subset::new(5, 2).unwrap().into(),
    ]
}

/// Potentials by operations of Burn: softplus on the pairs of a super-modular model.
fn plain_potentials(engine: &Perceptron, x: &[f32]) -> Tensor<2> {
    let (raw, structure) = (plain_raw(engine, x), engine.structure());
    let (u, p) = (structure.unary(), structure.potentials());
    let mut probe = vec![-1.0; p];
    structure.to_potentials(&mut probe);
    if probe[p - 1] == -1.0 {
        return raw;
    }
    let pairs = raw.clone().slice([0..BATCH, u..p]);
    Tensor::cat(vec![raw.slice([0..BATCH, 0..u]), pairs.exp().add_scalar(1.0).log()], 1)
}

/// Scores of all states, `[batch, states]`.
fn plain_scores(structure: &AnyStructure, h: Tensor<2>) -> Tensor<2> {
    let (p, states) = (structure.potentials(), structure.states().unwrap());
    let mut statistics = vec![0.0; states * p];
    let mut z = vec![0; structure.variables()];
    for (s, row) in statistics.chunks_exact_mut(p).enumerate() {
        structure.state(s, &mut z);
        structure.add_statistics(&z, 1.0, row);
    }
    h.matmul(tensor(statistics, [states, p]).transpose())
}

#[test]
fn exact_with_couplings_equals_autodiff_through_the_gibbs_distribution() {
    for structure in structured() {
        for kl_weight in [0.0, 0.7] {
            let (mut engine, x) = (engine(structure.clone(), &[11]), images());
            let fast = estimated(&mut engine, &x, &Exact, kl_weight, (1, 2));
            let log_q = activation::log_softmax(plain_scores(&structure, plain_potentials(&engine, &x)), 1);
            let q = log_q.clone().exp();
            let kl = (q.clone() * (log_q + structure.ln_states() as f32)).sum();
            let plain = ((q * plain_table(&engine, &x)).sum() + kl.mul_scalar(kl_weight)).div_scalar(BATCH as f32);
            assert_close(&format!("{structure:?}, KL {kl_weight}"), &fast, &gradients(&engine, plain), 1e-5);
        }
    }
}

/// What the second arg max of a definition is, from the perturbed scores of all states and their losses.
type Second<'a> = &'a dyn Fn(&[f64], &[f32], usize, f32) -> usize;

/// Compares an estimator that takes the difference of two arg maxima with its definition by enumeration: `second` says
/// which state the second one is.
fn check_difference(structure: &AnyStructure, direct: &dyn Estimator, sides: Sides, epsilon: f32, second: Second<'_>) {
    check_difference_of(&mut engine(structure.clone(), &[11]), direct, sides, epsilon, second);
}

fn check_difference_of(
    engine: &mut Perceptron,
    estimator: &dyn Estimator,
    sides: Sides,
    epsilon: f32,
    second: Second<'_>,
) {
    let (structure, x, samples) = (&engine.structure().clone(), images(), 2);
    let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
    let states = structure.states().unwrap();
    let width = estimator.noise(structure).unwrap();
    let noise = gumbel(samples * BATCH * width, 5);
    let fast = estimated(engine, &x, estimator, 0.0, (samples, 5));

    let h = plain_potentials(engine, &x);
    let (scores, potentials) = (values(plain_scores(structure, h.clone())), values(h.clone()));
    let table = plain_table(engine, &x);
    let losses = values(table.clone());
    let (mut at_potentials, mut at_table) = (vec![0.0; BATCH * p], vec![0.0; BATCH * states]);
    let scale = 1.0 / (BATCH * samples) as f32;
    let (mut z, mut code) = (vec![0; n], vec![0.0; u]);
    for (noise, b) in noise.chunks(BATCH * width).flat_map(|noise| (0..BATCH).map(move |b| (noise, b))) {
        let gamma = &noise[b * width..][..width];
        let perturbed: Vec<f64> = (0..states)
            .map(|s| {
                structure.state(s, &mut z);
                structure.encode(&z, &mut code);
                let unary: f64 = code.iter().zip(gamma).map(|(c, g)| (c * g) as f64).sum();
                let noise = if width == states { gamma[s] as f64 } else { unary };
                assert!((structure.score(&potentials[b * p..][..p], &z) - scores[b * states + s] as f64).abs() < 1e-4);
                scores[b * states + s] as f64 + noise
            })
            .collect();
        let row = &losses[b * states..][..states];
        let star = (0..states).max_by(|a, b| perturbed[*a].total_cmp(&perturbed[*b])).unwrap();
        at_table[b * states + star] += scale;
        let (from, span) = match sides {
            Sides::One => (star, epsilon),
            Sides::Two => (second(&perturbed, row, star, epsilon), 2.0 * epsilon),
        };
        for (s, sign) in [(from, 1.0), (second(&perturbed, row, star, -epsilon), -1.0)] {
            structure.state(s, &mut z);
            structure.add_statistics(&z, sign * scale / span, &mut at_potentials[b * p..][..p]);
        }
    }
    let plain = (h * tensor(at_potentials, [BATCH, p])).sum() + (table * tensor(at_table, [BATCH, states])).sum();
    assert_close(&format!("{structure:?}"), &fast, &gradients(engine, plain), 1e-5);
}

fn best(states: usize, value: impl Fn(usize) -> f64) -> usize {
    (0..states).max_by(|a, b| value(*a).total_cmp(&value(*b))).unwrap()
}

/// The indices of the states that differ from state s in one variable.
fn one_change(structure: &AnyStructure, s: usize) -> Vec<usize> {
    let n = structure.variables();
    let (mut a, mut b) = (vec![0; n], vec![0; n]);
    structure.state(s, &mut a);
    (0..structure.states().unwrap())
        .filter(|t| {
            structure.state(*t, &mut b);
            a.iter().zip(&b).filter(|(a, b)| a != b).count() == 1
        })
        .collect()
}

#[test]
fn direct_with_couplings_follows_its_definition() {
    let epsilon = 0.8;
    for structure in structured() {
        if structure.code() == Code::Indicators {
            continue; // its changes are no states: see `direct_reads_codes_that_are_no_states`
        }
        let (n, states) = (structure.variables(), structure.states().unwrap());
        let separable = |perturbed: &[f64], losses: &[f32], star: usize, shift: f32| {
            let (mut a, mut b) = (vec![0; n], vec![0; n]);
            structure.state(star, &mut a);
            // loss(z*) + the sum of the losses of single changes less loss(z*).
            let mut of_change = std::collections::HashMap::new();
            for t in one_change(&structure, star) {
                structure.state(t, &mut b);
                let i = (0..n).find(|i| a[*i] != b[*i]).unwrap();
                of_change.insert((i, b[i]), (losses[t] - losses[star]) as f64);
            }
            best(states, |s| {
                let mut z = vec![0; n];
                structure.state(s, &mut z);
                let changes = (0..n).filter(|i| z[*i] != a[*i]).map(|i| of_change[&(i, z[i])]);
                perturbed[s] + shift as f64 * changes.sum::<f64>()
            })
        };
        for sides in [Sides::One, Sides::Two] {
            let direct = Direct::new(epsilon).unwrap().sides(sides);
            check_difference(&structure, &direct, sides, epsilon, &separable);
        }
    }
}

#[test]
fn joint_losses_and_full_noise_follow_their_definition() {
    let epsilon = 0.8;
    for structure in structured() {
        let states = structure.states().unwrap();
        let joint = |perturbed: &[f64], losses: &[f32], _: usize, shift: f32| {
            best(states, |s| perturbed[s] + (shift * losses[s]) as f64)
        };
        for sides in [Sides::One, Sides::Two] {
            for perturbation in [Perturbation::Unary, Perturbation::Full] {
                let direct = Direct::new(epsilon).unwrap().sides(sides);
                check_difference(&structure, &DirectJoint::new(direct, perturbation), sides, epsilon, &joint);
            }
        }
    }
}

#[test]
fn the_search_starts_from_the_better_one_and_takes_best_steps_until_none_is_better() {
    let (mut moved, mut overshot) = (0, 0);
    let epsilon = 3.0; // large, so that there is something to improve
    let mut engines: Vec<_> = structured().into_iter().map(|s| engine(s, &[11])).collect();
    engines.push(counting(9));
    for mut engine in engines {
        let structure = engine.structure().clone();
        if structure.code() == Code::Indicators {
            continue;
        }
        let n = structure.variables();
        let (count, left) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let searched = |perturbed: &[f64], losses: &[f32], star: usize, shift: f32| {
            let value = |s: usize| perturbed[s] + (shift * losses[s]) as f64;
            let (mut a, mut b) = (vec![0; n], vec![0; n]);
            structure.state(star, &mut a);
            let near = one_change(&structure, star);
            let separable = |s: usize| {
                let mut z = vec![0; n];
                structure.state(s, &mut z);
                let mut sum = perturbed[s];
                for t in &near {
                    structure.state(*t, &mut b);
                    let i = (0..n).find(|i| a[*i] != b[*i]).unwrap();
                    sum += if z[i] == b[i] { (shift * (losses[*t] - losses[star])) as f64 } else { 0.0 };
                }
                sum
            };
            let mut values: Vec<f64> = vec![];
            let mut separable = separable;
            (0..perturbed.len()).for_each(|s| values.push(separable(s)));
            let mut s = best(values.len(), |s| values[s]);
            if value(star) > value(s) + 1e-3 {
                left.set(left.get() + 1);
                s = star;
            }
            loop {
                let near = one_change(&structure, s);
                let next = near[best(near.len(), |i| value(near[i]))];
                if value(next) <= value(s) + 1e-3 {
                    return s;
                }
                count.set(count.get() + 1);
                s = next;
            }
        };
        let search = Flips::new(Direct::new(epsilon).unwrap());
        check_difference_of(&mut engine, &search, Sides::One, epsilon, &searched);
        moved += count.get();
        overshot += left.get();
    }
    assert!(moved > 0 && overshot > 0, "{moved} steps, {overshot} starts from z*");
}

/// For a subset the changes of one indicator lead to codes with one element too many or too few.
#[test]
fn direct_reads_codes_that_are_no_states() {
    let epsilon = 0.8;
    let structure: AnyStructure = Subset::new(5, 2).unwrap().into();
    let (mut engine, x) = (engine(structure.clone(), &[11]), images());
    let noise = gumbel(BATCH * 5, 5);
    let fast = estimated(&mut engine, &x, &Direct::new(epsilon).unwrap(), 0.0, (1, 5));
    let h = plain_potentials(&engine, &x);
    let potentials = values(h.clone());
    let two_largest = |scores: &[f32]| {
        let mut order: Vec<usize> = (0..5).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        (0..5).map(|i| order[..2].contains(&i) as u8 as f32).collect::<Vec<_>>()
    };
    let mut at_potentials = vec![];
    let mut codes = vec![];
    for b in 0..BATCH {
        let perturbed: Vec<f32> = (0..5).map(|i| potentials[5 * b + i] + noise[5 * b + i]).collect();
        let star = two_largest(&perturbed);
        let image = tensor(x[b * PIXELS..][..PIXELS].to_vec(), [1, PIXELS]);
        let loss = |code: Vec<f32>| {
            let outputs = engine.decoder().outputs(tensor(code, [1, 5]));
            values(plain_losses(&engine, outputs, image.clone()))[0]
        };
        let moved: Vec<f32> = (0..5)
            .map(|i| {
                let (mut on, mut off) = (star.clone(), star.clone());
                (on[i], off[i]) = (1.0, 0.0);
                perturbed[i] - epsilon * (loss(on) - loss(off))
            })
            .collect();
        let scale = 1.0 / (BATCH as f32 * epsilon);
        at_potentials.extend(star.iter().zip(two_largest(&moved)).map(|(a, b)| scale * (a - b)));
        codes.extend(star);
    }
    let outputs = engine.decoder().outputs(tensor(codes, [BATCH, 5]));
    let losses = plain_losses(&engine, outputs, tensor(x, [BATCH, PIXELS]));
    let plain = (h * tensor(at_potentials, [BATCH, 5])).sum() + losses.mean();
    assert_close("subset", &fast, &gradients(&engine, plain), 1e-5);
}

/// One likelihood that is not linear in the image: every row of the decoder, and every state, is read for every image.
/// And one that is, with a term of the image alone.
#[test]
fn any_likelihood_is_followed() {
    check_likelihood(Arc::new(Quartic));
    check_likelihood(Arc::new(Gaussian));
}

fn check_likelihood(likelihood: Arc<dyn Likelihood>) {
    let epsilon = 0.8;
    let model = |structure: AnyStructure| engine_with(structure, &[11], likelihood.clone());
    let structures: [AnyStructure; 3] = [
        Categorical::new(5).unwrap().into(),
        Categorical::product(3, 2).unwrap().into(),
        Pairwise::new(4).unwrap().into(),
    ];
    for structure in structures {
        let states = structure.states().unwrap();
        let joint = |perturbed: &[f64], losses: &[f32], _: usize, shift: f32| {
            best(states, |s| perturbed[s] + (shift * losses[s]) as f64)
        };
        let direct = Direct::new(epsilon).unwrap();
        let estimator = DirectJoint::new(direct, Perturbation::Unary);
        check_difference_of(&mut model(structure.clone()), &estimator, Sides::One, epsilon, &joint);
        if structure.variables() == 1 {
            check_difference_of(&mut model(structure.clone()), &direct, Sides::One, epsilon, &joint);
        }

        let (mut engine, x) = (model(structure.clone()), images());
        let fast = estimated(&mut engine, &x, &Exact, 0.5, (1, 2));
        let log_q = activation::log_softmax(plain_scores(&structure, plain_potentials(&engine, &x)), 1);
        let q = log_q.clone().exp();
        let kl = (q.clone() * (log_q + structure.ln_states() as f32)).sum();
        let plain = ((q * plain_table(&engine, &x)).sum() + kl.mul_scalar(0.5)).div_scalar(BATCH as f32);
        assert_close(&format!("{likelihood:?}, {structure:?}"), &fast, &gradients(&engine, plain), 1e-5);
    }
    let (mut engine, x, k) = (model(Categorical::product(2, 3).unwrap().into()), images(), 3);
    let fast = estimated(&mut engine, &x, &GumbelSoftmax::new(0.7).unwrap(), 0.0, (1, 6));
    let perturbed = plain_raw(&engine, &x) + tensor(gumbel(BATCH * 2 * k, 6), [BATCH, 2 * k]);
    let code = activation::softmax(perturbed.div_scalar(0.7).reshape([BATCH * 2, k]), 1).reshape([BATCH, 2 * k]);
    let outputs = engine.decoder().outputs(code);
    let losses = plain_losses(&engine, outputs, tensor(x, [BATCH, PIXELS]));
    assert_close("relaxed", &fast, &gradients(&engine, losses.mean()), 1e-5);
}
