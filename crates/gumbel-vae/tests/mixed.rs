//! Models with Gaussian codes against the plain path: the whole objective by automatic differentiation, and finite
//! differences of what the oracle answers.

mod common;

use burn::tensor::Tensor;
use common::{noise, tensor, uniform, values};
use gumbel::continuous::{Continuous, Draw, KlWeights};
use gumbel::engine::{Engine, ModelOptions, Shape, StepOptions};
use gumbel::estimator::{Exact, estimators};
use gumbel::likelihood::{Bernoulli, Gaussian, Likelihood, Logistic};
use gumbel::network::MixedWidths;
use gumbel::noise::{Noise, Purpose};
use gumbel::registry::{Kind, Setting, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Structure, Subset};
use gumbel_vae::Autodiff;
use gumbel_vae::model::{ConvEncoder, Decoder, Encoder, MixedMlp};
use std::sync::Arc;

const BATCH: usize = 4;
const DIM: usize = 3;

/// Images in memory, of any shape.
struct Pictures(Vec<f32>, Shape);

impl gumbel::engine::Images for Pictures {
    fn count(&self) -> usize {
        self.0.len() / self.1.len()
    }
    fn shape(&self) -> Shape {
        self.1
    }
    fn key(&self) -> u64 {
        1
    }
    fn is_binary(&self) -> bool {
        false
    }
    fn fill(&self, indices: &[u32], out: &mut [f32]) -> Result<(), gumbel::Error> {
        let d = self.1.len();
        let rows = indices.iter().zip(out.chunks_exact_mut(d));
        rows.for_each(|(i, row)| row.copy_from_slice(&self.0[*i as usize * d..][..d]));
        Ok(())
    }
    fn bytes(&self) -> Result<Vec<u8>, gumbel::Error> {
        unreachable!("nobody packs them")
    }
}

const fn setting(name: &'static str, kind: Kind, default: &'static str) -> Setting {
    Setting { name, kind, default, value: "X", help: "of a test" }
}

const SETTINGS: [Setting; 9] = [
    setting("hidden", Kind::Text, "9,8"),
    setting("head", Kind::Text, "7"),
    setting("part", Kind::Whole(1, 100), "6"),
    setting("shared", Kind::Text, "5"),
    setting("decoder-hidden", Kind::Text, "10"),
    setting("leak", Kind::Real(|_| true, ""), "0.2"),
    setting("shared-leak", Kind::Real(|_| true, ""), "0.5"),
    setting("dropout", Kind::Real(|_| true, ""), "0.4"),
    setting("channels", Kind::Whole(1, 100), "2"),
];

fn options<'a>(
    settings: &'a Settings,
    structure: AnyStructure,
    continuous: Continuous,
    likelihood: Arc<dyn Likelihood>,
    shape: Shape,
) -> ModelOptions<'a> {
    ModelOptions {
        settings,
        shape,
        binary: false,
        structure,
        continuous,
        likelihood,
        estimator: &Exact,
        batch: BATCH,
        samples: 1,
        lr: 1e-3,
        seed: 5,
        threads: 1,
        engine: "auto",
        device: "cpu",
    }
}

fn perceptron(
    structure: impl Into<AnyStructure>,
    continuous: Continuous,
    likelihood: impl Likelihood + 'static,
) -> (Autodiff<MixedMlp, gumbel_vae::model::Mlp>, Pictures) {
    let (settings, shape, device) = (Settings::defaults(&SETTINGS), Shape::grey(3, 4), common::device());
    let options = options(&settings, structure.into(), continuous, Arc::new(likelihood), shape);
    let inputs = gumbel::continuous::Inputs::new(continuous, &options.structure).unwrap();
    let (encoder, decoder) = MixedMlp::new(&MixedWidths::new(&options, &inputs).unwrap(), 5, &device);
    (made(encoder, decoder, &options), pictures(shape))
}

fn made<E: Encoder, D: Decoder>(encoder: E, decoder: D, options: &ModelOptions<'_>) -> Autodiff<E, D> {
    let (structure, likelihood) = (options.structure.clone(), options.likelihood.clone());
    let engine = Autodiff::new(encoder, decoder, structure, likelihood, 1e-3, &common::device());
    engine.with_continuous(options.continuous).unwrap()
}

fn pictures(shape: Shape) -> Pictures {
    let levels = uniform(BATCH * shape.len(), 2).iter().map(|u| (u * 255.0).round() / 255.0).collect();
    Pictures(levels, shape)
}

fn stream(purpose: Purpose) -> Noise {
    Noise::new(3, purpose, 0)
}

/// Losses of rows as a tensor whose derivative is that of the likelihood.
fn losses_of(likelihood: &dyn Likelihood, outputs: Tensor<2>, x: &[f32]) -> Tensor<2> {
    let [rows, width] = outputs.dims();
    let (mut losses, mut slopes) = (vec![0.0; rows], vec![0.0; rows * width]);
    likelihood.losses_and_slopes(&values(outputs.clone()), x, &vec![1.0; rows], &mut losses, &mut slopes);
    let linear = (outputs * tensor(slopes, [rows, width])).sum_dim(1);
    linear.clone() - linear.detach() + tensor(losses, [rows, 1])
}

/// The whole objective `mean_b sum_z q(z|x) (-ln p(x|z, c) + w KL)`, by differentiation through everything.
fn plain<E: Encoder, D: Decoder>(engine: &Autodiff<E, D>, pictures: &Pictures, kl_weight: f32) -> Tensor<1> {
    let (structure, inputs) = (engine.structure().clone(), engine.inputs().clone());
    let (states, u, blocks) = (structure.states().unwrap(), structure.unary(), inputs.blocks());
    let x = tensor(pictures.0.clone(), [BATCH, pictures.1.len()]);
    let encoded = engine.encoder().encode(x, Some(&stream(Purpose::Dropout)));
    let parameters = encoded.continuous.unwrap().reshape([BATCH, blocks, 2, DIM]);
    let mean = parameters.clone().slice([0..BATCH, 0..blocks, 0..1, 0..DIM]).reshape([BATCH, blocks, DIM]);
    let log_variance = parameters.slice([0..BATCH, 0..blocks, 1..2, 0..DIM]).reshape([BATCH, blocks, DIM]);
    let mut normal = vec![0.0; BATCH * blocks * DIM];
    let rows = normal.chunks_exact_mut(blocks * DIM).enumerate();
    rows.for_each(|(b, row)| stream(Purpose::Gaussian).at_row(b).normal(row));
    let c = mean.clone() + (log_variance.clone() * 0.5).exp() * tensor(normal, [BATCH, blocks, DIM]);
    let kl: Tensor<3> =
        (mean.powi_scalar(2) + log_variance.clone().exp() - log_variance - 1.0).sum_dim(2) * (0.5 * kl_weight);
    let (mut z, mut code) = (vec![0; structure.variables()], vec![0.0; u]);
    let mut table = vec![]; // [batch, 1] of every state
    let mut statistics = vec![0.0; structure.potentials() * states];
    for s in 0..states {
        structure.state(s, &mut z);
        structure.encode(&z, &mut code);
        structure.add_statistics(&z, 1.0, &mut statistics[s * structure.potentials()..][..structure.potentials()]);
        let (read, own) = match inputs.kind() {
            Continuous::Joint(_) => {
                let codes = tensor(code.repeat(BATCH), [BATCH, u]);
                (Tensor::cat(vec![codes, c.clone().reshape([BATCH, DIM])], 1), kl.clone().reshape([BATCH, 1]))
            }
            _ => {
                let mut mask = vec![0.0; blocks];
                mask[s] = 1.0;
                let mask: Tensor<3> = tensor(mask, [1, blocks, 1]);
                let read = (c.clone() * mask.clone()).reshape([BATCH, blocks * DIM]);
                (read, (kl.clone() * mask).sum_dim(1).reshape([BATCH, 1]))
            }
        };
        table.push(losses_of(engine.likelihood(), engine.decoder().outputs(read), &pictures.0) + own);
    }
    let table = Tensor::cat(table, 1);
    let raw = encoded.potentials;
    let scores = raw.matmul(tensor(statistics, [states, structure.potentials()]).transpose());
    let q = burn::tensor::activation::softmax(scores, 1);
    (q * table).sum() / BATCH as f32
}

fn found<E: Encoder, D: Decoder>(engine: &mut Autodiff<E, D>, pictures: &Pictures, kl: f32) -> Vec<Vec<f32>> {
    let batch: Vec<u32> = (0..BATCH as u32).collect();
    let (gaussian, dropout, unused) = (stream(Purpose::Gaussian), stream(Purpose::Dropout), noise(0));
    let options = StepOptions {
        continuous_kl: KlWeights { asked: kl, followed: kl },
        gaussian: &gaussian,
        dropout: &dropout,
        ..StepOptions::discrete(0.0, &unused, 1)
    };
    let found = engine.gradients(pictures, &batch, &Exact, &options).unwrap();
    found.gradients.all().map(|p| p.values.clone()).collect()
}

#[track_caller]
fn assert_same<E: Encoder, D: Decoder>(what: &str, engine: &mut Autodiff<E, D>, pictures: &Pictures) {
    assert_weighted(what, engine, pictures, 1.0);
}

#[track_caller]
fn assert_weighted<E: Encoder, D: Decoder>(what: &str, engine: &mut Autodiff<E, D>, pictures: &Pictures, kl: f32) {
    let loss = plain(engine, pictures, kl);
    let gradients = loss.backward();
    let expected =
        [common::of_module(engine.encoder(), &gradients), common::of_module(engine.decoder(), &gradients)].concat();
    let found = found(engine, pictures, kl);
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().flatten().map(|v| v.abs()).fold(0.0, f32::max);
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(a.len(), b.len());
        assert!(b.iter().any(|v| *v != 0.0), "{what}, parameter {i}: nothing to compare");
        let near = a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-4 * scale);
        assert!(
            near,
            "{what}, parameter {i} of {}: {:?} {:?}",
            found.len(),
            &a[..4.min(a.len())],
            &b[..4.min(b.len())]
        );
    }
}

#[test]
fn gradients_are_those_of_the_whole_objective() {
    let (rows, joint) = (Continuous::Rows(DIM), Continuous::Joint(DIM));
    let (mut engine, pictures) = perceptron(Categorical::new(4).unwrap(), rows, Bernoulli);
    assert_same("rows of a category", &mut engine, &pictures);
    let (mut engine, pictures) = perceptron(Categorical::binary(3).unwrap(), rows, Logistic);
    assert_same("rows of bits, logistic", &mut engine, &pictures);
    let (mut engine, pictures) = perceptron(Pairwise::new(3).unwrap(), joint, Gaussian);
    assert_same("beside coupled bits, gaussian", &mut engine, &pictures);
    let (mut engine, pictures) = perceptron(Chain::new(2, 3).unwrap(), rows, Bernoulli);
    assert_same("rows of a chain", &mut engine, &pictures);
    let (mut engine, pictures) = perceptron(Subset::new(4, 2).unwrap(), joint, Bernoulli);
    assert_same("beside a subset", &mut engine, &pictures);
}

#[test]
fn so_they_are_where_the_codes_kl_has_a_weight() {
    for continuous in [Continuous::Rows(DIM), Continuous::Joint(DIM)] {
        for weight in [0.0, 7.0] {
            let (mut engine, pictures) = perceptron(Categorical::binary(2).unwrap(), continuous, Bernoulli);
            assert_weighted(&format!("{continuous}, weight {weight}"), &mut engine, &pictures, weight);
        }
    }
}

#[test]
fn so_are_those_of_convolutions() {
    let device = common::device();
    let settings = Settings::defaults(&SETTINGS);
    let likelihoods: [Arc<dyn Likelihood>; 2] = [Arc::new(Bernoulli), Arc::new(Logistic)];
    for (likelihood, channels) in likelihoods.into_iter().zip([1, 3]) {
        for continuous in [Continuous::Rows(DIM), Continuous::Joint(DIM)] {
            let shape = Shape { height: 8, width: 12, channels };
            let structure = Categorical::new(3).unwrap().into();
            let options = options(&settings, structure, continuous, likelihood.clone(), shape);
            let inputs = gumbel::continuous::Inputs::new(continuous, &options.structure).unwrap();
            let (encoder, decoder) = ConvEncoder::new(&options, &inputs, &device).unwrap();
            let mut engine = made(encoder, decoder, &options);
            assert_same(&format!("{continuous}, {channels} channels"), &mut engine, &pictures(shape));
        }
    }
}

/// An image with its channels one after the other: channels, side, numbers.
type Planes = (usize, usize, Vec<f64>);

/// A convolution by its definition: kernels of 4 x 4, stride 2, padding 1; up, every number is spread over sixteen.
fn convolved(weight: &[f32], bias: &[f32], up: bool, (channels, side, x): &Planes) -> Planes {
    const KERNEL: usize = 4;
    let (outs, to) = (bias.len(), if up { 2 * side } else { side / 2 });
    let mut out: Vec<f64> = bias.iter().flat_map(|b| vec![f64::from(*b); to * to]).collect();
    let (wide, narrow) = if up { (to, *side) } else { (*side, to) };
    let pairs = |n: usize, m: usize| (0..n).flat_map(move |i| (0..m).map(move |j| (i, j)));
    for (o, c) in pairs(outs, *channels) {
        let kernel = if up { c * outs + o } else { o * channels + c };
        for ((row, column), (i, j)) in
            pairs(narrow, narrow).flat_map(|at| pairs(KERNEL, KERNEL).map(move |tap| (at, tap)))
        {
            let (y, x_at) = (2 * row + i, 2 * column + j);
            if !(1..=wide).contains(&y) || !(1..=wide).contains(&x_at) {
                continue;
            }
            let w = f64::from(weight[(kernel * KERNEL + i) * KERNEL + j]);
            let (large, small) = ((y - 1) * wide + x_at - 1, row * narrow + column);
            match up {
                true => out[o * to * to + large] += w * x[c * side * side + small],
                false => out[o * to * to + small] += w * x[c * side * side + large],
            }
        }
    }
    (outs, to, out)
}

/// Images of the faces' size and colour, against loops that know nothing of tensors: what is convolved, and in which
/// order the numbers of an image stand.
#[test]
fn convolutions_are_those_of_loops() {
    const SIDE: usize = 64;
    let (device, settings) = (common::device(), Settings::defaults(&SETTINGS));
    let shape = Shape { height: SIDE, width: SIDE, channels: 3 };
    let structure = Categorical::binary(3).unwrap().into();
    let options = options(&settings, structure, Continuous::Joint(DIM), Arc::new(Logistic), shape);
    let inputs = gumbel::continuous::Inputs::new(options.continuous, &options.structure).unwrap();
    let (encoder, decoder) = ConvEncoder::new(&options, &inputs, &device).unwrap();
    // The perceptrons between the convolutions, which have tests of their own.
    let features = 16 * 4 * 4;
    let widths = MixedWidths::between(&options, &inputs, features, features).unwrap();
    let (heads, first) = MixedMlp::new(&widths, options.seed, &device);
    let mut engine = made(encoder, decoder, &options);
    let parameters = engine.snapshot().parameters;
    let levels = |all: &[gumbel::network::Named]| -> Vec<[Vec<f32>; 2]> {
        all.chunks(2).map(|pair| [0, 1].map(|i| pair[i].values.clone())).collect()
    };
    let down = levels(&parameters.encoder[..8]);
    let up = levels(&parameters.decoder[parameters.decoder.len() - 8..]);
    let leaky = |x: &mut Planes| x.2.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.2 * *x } else { *x });
    let assert_close = |found: Vec<f32>, expected: Vec<f64>| {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
        let far = found.iter().zip(&expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
        assert!(largest > 0.01 && far < 1e-4 * largest, "{far} of {largest}");
    };

    let pictures = pictures(shape);
    let mut read = vec![];
    for image in pictures.0.chunks(shape.len()) {
        // The channels of a pixel stand beside each other.
        let planes = (0..3).flat_map(|c| image.iter().skip(c).step_by(3).map(|x| f64::from(*x)));
        let mut x: Planes = (3, SIDE, planes.collect());
        for [weight, bias] in &down {
            x = convolved(weight, bias, false, &x);
            leaky(&mut x);
        }
        assert_eq!((x.0, x.1), (16, 4));
        read.extend(x.2.iter().map(|x| *x as f32));
    }
    let found = engine.encoder().encode(tensor(pictures.0.clone(), [BATCH, shape.len()]), None);
    let expected = heads.encode(tensor(read, [BATCH, features]), None);
    let doubles = |t| values(t).into_iter().map(f64::from).collect::<Vec<f64>>();
    assert_close(values(found.potentials), doubles(expected.potentials));
    assert_close(values(found.continuous.unwrap()), doubles(expected.continuous.unwrap()));

    let width = options.structure.unary() + DIM;
    let codes: Tensor<2> = tensor(uniform(BATCH * width, 7), [BATCH, width]);
    let mut expected = vec![];
    for numbers in values(first.outputs(codes.clone())).chunks(features) {
        let mut x: Planes = (16, 4, numbers.iter().map(|x| f64::from(*x)).collect());
        for [weight, bias] in &up {
            leaky(&mut x);
            x = convolved(weight, bias, true, &x);
        }
        // Means of all numbers, then log-scales; of each the channels of a pixel beside each other.
        assert_eq!((x.0, x.1), (2 * 3, SIDE));
        for (output, pixel) in (0..2).flat_map(|o| (0..SIDE * SIDE).map(move |p| (o, p))) {
            expected.extend((0..3).map(|c| x.2[(output * 3 + c) * SIDE * SIDE + pixel]));
        }
    }
    assert_close(values(engine.decoder().outputs(codes)), expected);
}

/// What an oracle says at codes.
fn slopes_at(engine: &mut dyn Engine, pictures: &Pictures, codes: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let gaussian = stream(Purpose::Gaussian);
    let batch: Vec<u32> = (0..BATCH as u32).collect();
    let mut asked = engine.ask(pictures, &batch, Draw::Sample(&gaussian)).unwrap();
    let (mut losses, mut slopes) = (vec![0.0; BATCH], vec![0.0; codes.len()]);
    asked.oracle.slopes(&batch, codes, &mut losses, &mut slopes).unwrap();
    (losses, slopes)
}

#[test]
fn slopes_are_finite_differences_and_all_questions_agree() {
    let structures: [AnyStructure; 4] = [
        Categorical::new(4).unwrap().into(),
        Categorical::binary(3).unwrap().into(),
        Pairwise::new(3).unwrap().into(),
        Subset::new(4, 2).unwrap().into(),
    ];
    for structure in structures {
        for continuous in [Continuous::Rows(DIM), Continuous::Joint(DIM)] {
            let (mut engine, pictures) = perceptron(structure.clone(), continuous, Bernoulli);
            let u = structure.unary();
            let codes = uniform(BATCH * u, 8);
            let (_, slopes) = slopes_at(&mut engine, &pictures, &codes);
            for i in 0..u {
                let at = |engine: &mut dyn Engine, step: f32| {
                    let mut codes = codes.clone();
                    codes.chunks_exact_mut(u).for_each(|code| code[i] += step);
                    slopes_at(engine, &pictures, &codes).0
                };
                let (up, down) = (at(&mut engine, 0.01), at(&mut engine, -0.01));
                for b in 0..BATCH {
                    let (expected, found) = ((up[b] - down[b]) / 0.02, slopes[b * u + i]);
                    assert!((expected - found).abs() < 0.02 * (1.0 + found.abs()), "{continuous}: {expected} {found}");
                }
            }
            // Losses at states, at assignments, of changes, and with slopes, are the same numbers.
            let (states, n) = (structure.states().unwrap(), structure.variables());
            let of: Vec<u32> = (0..BATCH as u32).collect();
            let gaussian = stream(Purpose::Gaussian);
            let mut asked = engine.ask(&pictures, &of, Draw::Sample(&gaussian)).unwrap();
            let mut all = vec![0.0; BATCH * states];
            asked.oracle.states(&of, &mut all).unwrap();
            let (mut z, mut code) = (vec![0; n], vec![0.0; u]);
            for s in 0..states {
                structure.state(s, &mut z);
                structure.encode(&z, &mut code);
                let (mut losses, mut own, mut slopes) = (vec![0.0; BATCH], vec![0.0; BATCH], vec![0.0; BATCH * u]);
                asked.oracle.losses(&of, &z.repeat(BATCH), &mut losses).unwrap();
                asked.oracle.around(&of, &z.repeat(BATCH), &mut own, &mut slopes).unwrap();
                let mut with_slopes = vec![0.0; BATCH];
                let mut unused = vec![0.0; BATCH * u];
                asked.oracle.slopes(&of, &code.repeat(BATCH), &mut with_slopes, &mut unused).unwrap();
                for b in 0..BATCH {
                    let expected = all[b * states + s];
                    for found in [losses[b], own[b], with_slopes[b]] {
                        assert!((found - expected).abs() < 1e-4 * expected.abs(), "{continuous}: {found} {expected}");
                    }
                    if n == 1 {
                        let row = &all[b * states..][..states];
                        let near = slopes[b * u..][..u].iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-4 * b.abs());
                        assert!(near, "{continuous}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_estimator_steps_and_steps_are_reproducible() {
    for entry in estimators().iter() {
        for continuous in [Continuous::Rows(2), Continuous::Joint(2)] {
            let run = || {
                let (engine, pictures) = perceptron(Categorical::binary(2).unwrap(), continuous, Bernoulli);
                let mut engine = engine;
                let structure = engine.structure().clone();
                let settings = Settings::defaults(gumbel::registry::Entry::settings(entry));
                let mut estimator = entry.build(&settings, &structure).unwrap();
                let batch: Vec<u32> = (0..BATCH as u32).collect();
                let (before, samples) = (engine.snapshot(), estimator.least_samples());
                for step in 0..3 {
                    let [a, b, c] =
                        [Purpose::Noise, Purpose::Gaussian, Purpose::Dropout].map(|p| Noise::new(1, p, step));
                    let options = StepOptions { gaussian: &b, dropout: &c, ..StepOptions::discrete(0.0, &a, samples) };
                    engine.step(&pictures, &batch, &mut *estimator, &options).unwrap();
                }
                let after = engine.snapshot();
                assert_ne!(after.parameters, before.parameters);
                after
            };
            assert!(run() == run());
        }
    }
}
