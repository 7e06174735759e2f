//! Models with Gaussian codes against the plain path: the same model in double precision, one number after the other.

#[allow(dead_code, reason = "every test uses some of it")]
mod common;

use gumbel::Error;
use gumbel::continuous::{Continuous, Draw, Inputs, KlWeights};
use gumbel::engine::{Engine, Images, ModelOptions, Shape, StepOptions, StepReport};
use gumbel::estimator::{Estimator, MEASURES, Memory, Moment, Noises, Piece, Slopes, Tally, estimators};
use gumbel::likelihood::Bernoulli;
use gumbel::network::{MixedWidths, Named, Snapshot};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::{Followed, Oracle, Questions};
use gumbel::registry::{Entry, Settings, Value};
use gumbel::structure::{AnyStructure, Structure, latents};
use gumbel::supervision::{Loss, Supervision, Taught, UNKNOWN};
use gumbel_fused::{Isa, Mixed};
use std::sync::Arc;

fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::User(0), 0).uniform(&mut x);
    x
}

/// Grey or binary images.
struct Pictures {
    values: Vec<f32>,
    shape: Shape,
}

impl Images for Pictures {
    fn count(&self) -> usize {
        self.values.len() / self.shape.len()
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn key(&self) -> u64 {
        self.values.len() as u64
    }

    fn is_binary(&self) -> bool {
        self.values.iter().all(|v| *v == 0.0 || *v == 1.0)
    }

    fn fill(&self, indices: &[u32], out: &mut [f32]) -> Result<(), Error> {
        let d = self.shape.len();
        let rows = indices.iter().zip(out.chunks_exact_mut(d));
        rows.for_each(|(i, out)| out.copy_from_slice(&self.values[*i as usize * d..][..d]));
        Ok(())
    }

    fn bytes(&self) -> Result<Vec<u8>, Error> {
        Ok(self.values.iter().map(|v| *v as u8).collect())
    }
}

#[derive(Clone, Copy)]
struct Case {
    latent: &'static str,
    /// Trunk, head, shared, decoder.
    hidden: [&'static str; 4],
    part: u64,
    dim: usize,
    leaks: [f64; 2],
    dropout: f64,
    pixels: [usize; 2],
    grey: bool,
    batch: usize,
    samples: usize,
    kl: KlWeights,
}

/// Nothing in the losses that are asked for.
const AUTHORS: KlWeights = KlWeights { asked: 0.0, followed: 1.0 };

const CASES: [Case; 5] = [
    Case {
        latent: "categorical:10",
        hidden: ["9,7", "6", "5", "12"],
        part: 8,
        dim: 3,
        leaks: [0.2, 0.5],
        dropout: 0.5,
        pixels: [5, 7],
        grey: false,
        batch: 37,
        samples: 1,
        kl: AUTHORS,
    },
    Case {
        latent: "categorical:3",
        hidden: ["4", "", "", ""],
        part: 2,
        dim: 5,
        leaks: [0.2, 0.5],
        dropout: 0.3,
        pixels: [3, 3],
        grey: true,
        batch: 5,
        samples: 2,
        kl: KlWeights::BOUND,
    },
    Case {
        latent: "categorical:4",
        hidden: ["20,130", "17,5", "19,6", "33,18"],
        part: 21,
        dim: 2,
        leaks: [0.1, 0.0],
        dropout: 0.0,
        pixels: [4, 16],
        grey: true,
        batch: 16,
        samples: 1,
        kl: KlWeights { asked: 2.5, followed: 2.5 },
    },
    Case {
        latent: "binary:3",
        hidden: ["6", "5", "4", "9"],
        part: 3,
        dim: 2,
        leaks: [0.0, 0.3],
        dropout: 0.5,
        pixels: [4, 5],
        grey: false,
        batch: 9,
        samples: 2,
        kl: KlWeights::BOUND,
    },
    Case {
        latent: "subset:4,2",
        hidden: ["6", "", "4", "9"],
        part: 3,
        dim: 2,
        leaks: [0.0, 0.3],
        dropout: 0.5,
        pixels: [4, 5],
        grey: false,
        batch: 7,
        samples: 1,
        kl: KlWeights { asked: 0.0, followed: 0.25 },
    },
];

impl Case {
    fn structure(&self) -> AnyStructure {
        latents().parse(self.latent).unwrap().structure
    }

    fn with_options<T>(&self, estimator: &dyn Estimator, threads: usize, f: impl Fn(&ModelOptions<'_>) -> T) -> T {
        let mut settings = Settings::default();
        for (name, value) in ["hidden", "head", "shared", "decoder-hidden"].into_iter().zip(self.hidden) {
            settings.set(name, Value::Text(value.into()));
        }
        settings.set("part", Value::Whole(self.part));
        settings.set("leak", Value::Real(self.leaks[0]));
        settings.set("shared-leak", Value::Real(self.leaks[1]));
        settings.set("dropout", Value::Real(self.dropout));
        f(&ModelOptions {
            continuous: Continuous::Rows(self.dim),
            settings: &settings,
            shape: self.shape(),
            binary: !self.grey,
            structure: self.structure(),
            likelihood: Arc::new(Bernoulli),
            estimator,
            batch: self.batch,
            samples: self.samples,
            lr: 1e-3,
            seed: 3,
            threads,
            engine: "fused",
            device: "cpu",
        })
    }

    fn shape(&self) -> Shape {
        Shape::grey(self.pixels[0], self.pixels[1])
    }

    fn images(&self, count: usize) -> Pictures {
        let values = uniform(count * self.shape().len(), 7);
        let value = |u: f32| match self.grey {
            true => (2.0 * u - 0.8).clamp(0.0, 1.0),
            false => f32::from(u < 0.3),
        };
        Pictures { values: values.into_iter().map(value).collect(), shape: self.shape() }
    }

    /// The model, with larger parameters than at the beginning: losses and codes differ from state to state.
    fn engine(&self, estimator: &dyn Estimator, threads: usize) -> Mixed {
        let mut engine = self.with_options(estimator, threads, |options| Mixed::new(options).unwrap());
        let mut model = engine.snapshot();
        for named in model.parameters.encoder.iter_mut().chain(&mut model.parameters.decoder) {
            named.values.iter_mut().for_each(|v| *v *= 1.7);
        }
        engine.restore(&model).unwrap();
        assert_eq!(engine.snapshot(), model);
        engine
    }

    fn plain(&self, estimator: &dyn Estimator, model: &Snapshot) -> Plain {
        let structure = self.structure();
        let inputs = Inputs::new(Continuous::Rows(self.dim), &structure).unwrap();
        let widths = self.with_options(estimator, 1, |options| MixedWidths::new(options, &inputs).unwrap());
        let parameters = model.parameters.all().map(|p| p.values.iter().map(|v| *v as f64).collect()).collect();
        Plain { structure, inputs, widths, parameters, kl: self.kl }
    }
}

/// The model, written down once more.
struct Plain {
    structure: AnyStructure,
    inputs: Inputs,
    widths: MixedWidths,
    parameters: Vec<Vec<f64>>,
    kl: KlWeights,
}

/// What an image's codes are drawn with.
#[derive(Clone)]
struct Chance {
    /// `[K, D]`.
    normal: Vec<f32>,
    /// `[K, width]`.
    mask: Vec<f64>,
}

impl Plain {
    fn chances(&self, count: usize, gaussian: Option<&Noise>, dropout: Option<&Noise>) -> Vec<Chance> {
        let (width, before) = (self.inputs.samples(), self.widths.shared[self.widths.shared.len() - 2]);
        let size = self.inputs.blocks() * before;
        let mut uniform = vec![0.0; count * size];
        if let Some(noise) = dropout {
            noise.uniform(&mut uniform);
        }
        let p = self.widths.dropout;
        let kept = |u: &f32| match dropout {
            Some(_) if *u < p => 0.0,
            Some(_) => 1.0 / (1.0 - p as f64),
            None => 1.0,
        };
        let chance = |b: usize| {
            let mut normal = vec![0.0; width];
            if let Some(noise) = gaussian {
                noise.at_row(b).normal(&mut normal);
            }
            Chance { normal, mask: uniform[b * size..][..size].iter().map(kept).collect() }
        };
        (0..count).map(chance).collect()
    }

    /// A perceptron whose parameters begin at `slot`.
    fn perceptron(&self, slot: usize, widths: &[usize], x: &[f64], leak: f64, mask: &[f64]) -> Vec<f64> {
        let mut x = x.to_vec();
        for l in 0..widths.len() - 1 {
            let (inputs, outputs) = (widths[l], widths[l + 1]);
            let (weight, bias) = (&self.parameters[slot + 2 * l], &self.parameters[slot + 2 * l + 1]);
            let last = l + 2 == widths.len();
            if last && !mask.is_empty() {
                x.iter_mut().zip(mask).for_each(|(x, m)| *x *= m);
            }
            let y = |o: usize| {
                let y = bias[o] + (0..inputs).map(|i| x[i] * weight[i * outputs + o]).sum::<f64>();
                if last || y > 0.0 { y } else { leak * y }
            };
            x = (0..outputs).map(y).collect();
        }
        x
    }

    /// Raw potentials, samples `[K, D]`, KL `[K]`, log-variances `[K, D]`.
    fn encode(&self, x: &[f32], chance: &Chance) -> (Vec<f64>, Vec<f64>, Vec<f64>, Vec<f64>) {
        let w = &self.widths;
        let x: Vec<f64> = x.iter().map(|v| *v as f64).collect();
        let (leak, dim) = (w.leak as f64, self.inputs.kind().dim());
        let trunk = self.perceptron(0, &w.trunk, &x, leak, &[]);
        let slot = 2 * (w.trunk.len() - 1);
        let raw = self.perceptron(slot, &w.head, &trunk, leak, &[]);
        let slot = slot + 2 * (w.head.len() - 1);
        let parts = self.perceptron(slot, &w.parts(), &trunk, 1.0, &[]);
        let (mut samples, mut kl, mut variances) = (vec![], vec![], vec![]);
        for (k, part) in parts.chunks(w.shared[0]).enumerate() {
            let before = w.shared[w.shared.len() - 2];
            let mask = &chance.mask[k * before..][..before];
            let parameters = self.perceptron(slot + 2, &w.shared, part, w.shared_leak as f64, mask);
            let (mean, v) = parameters.split_at(dim);
            let noise = &chance.normal[k * dim..];
            samples.extend((0..dim).map(|d| mean[d] + (0.5 * v[d]).exp() * noise[d] as f64));
            kl.push((0..dim).map(|d| 0.5 * (mean[d] * mean[d] + v[d].exp() - 1.0 - v[d])).sum());
            variances.extend_from_slice(v);
        }
        (raw, samples, kl, variances)
    }

    fn weights(&self, code: &[f64]) -> Vec<f64> {
        let (u, n) = (self.structure.unary(), self.structure.variables());
        let (mut z, mut state) = (vec![0; n], vec![0.0; u]);
        let indicators = self.structure.code() == gumbel::structure::Code::Indicators;
        let weight = |k: usize| {
            self.structure.state(k, &mut z);
            self.structure.encode(&z, &mut state);
            let factors = code.iter().zip(&state).filter(|(_, on)| indicators || **on != 0.0);
            factors.map(|(c, on)| if *on != 0.0 { *c } else { 1.0 - *c }).product()
        };
        (0..self.inputs.blocks()).map(weight).collect()
    }

    fn logits(&self, input: &[f64]) -> Vec<f64> {
        let slot = self.parameters.len() - 2 * (self.widths.decoder.len() - 1);
        self.perceptron(slot, &self.widths.decoder, input, 0.0, &[])
    }

    /// The loss of an image at a code, with terms of the codes `[K]`.
    fn loss(&self, x: &[f32], code: &[f64], samples: &[f64], terms: &[f64]) -> f64 {
        let (weights, dim) = (self.weights(code), self.inputs.kind().dim());
        let input: Vec<f64> = samples.iter().enumerate().map(|(i, c)| weights[i / dim] * c).collect();
        let pixel = |(t, x): (f64, &f32)| t.max(0.0) + (-t.abs()).exp().ln_1p() - *x as f64 * t;
        let own: f64 = weights.iter().zip(terms).map(|(w, t)| w * t).sum();
        self.logits(&input).into_iter().zip(x).map(pixel).sum::<f64>() + own
    }

    fn slopes(&self, x: &[f32], code: &[f64], samples: &[f64], terms: &[f64]) -> Vec<f64> {
        const STEP: f64 = 1e-5;
        let slope = |u: usize| {
            let at = |step: f64| {
                let mut code = code.to_vec();
                code[u] += step;
                self.loss(x, &code, samples, terms)
            };
            (at(STEP) - at(-STEP)) / (2.0 * STEP)
        };
        (0..code.len()).map(slope).collect()
    }

    fn code(&self, z: &[u32]) -> Vec<f64> {
        let mut code = vec![0.0; self.structure.unary()];
        self.structure.encode(z, &mut code);
        code.into_iter().map(f64::from).collect()
    }
}

/// What an estimator asks of the plain model.
struct Answers<'a> {
    plain: &'a Plain,
    images: Vec<&'a [f32]>,
    /// Samples, and the codes' part of losses, of each image.
    codes: Vec<(Vec<f64>, Vec<f64>)>,
    /// Images, codes and weights, with their rows.
    followed: Vec<(usize, usize, Vec<f64>, f64)>,
}

fn wide(code: &[f32]) -> Vec<f64> {
    code.iter().map(|c| *c as f64).collect()
}

impl Answers<'_> {
    fn loss(&self, b: u32, code: &[f64]) -> f64 {
        let (samples, terms) = &self.codes[b as usize];
        self.plain.loss(self.images[b as usize], code, samples, terms)
    }
}

impl Oracle for Answers<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let rows = of.iter().zip(assignments.chunks(self.plain.structure.variables())).zip(losses);
        rows.for_each(|((b, z), loss)| *loss = self.loss(*b, &self.plain.code(z)) as f32);
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let (n, u, kind) =
            (self.plain.structure.variables(), self.plain.structure.unary(), self.plain.structure.code());
        self.losses(of, assignments, own)?;
        let rows = of.iter().zip(assignments.chunks(n)).zip(own).zip(losses.chunks_mut(u));
        for (((b, z), own), losses) in rows {
            let code: Vec<f32> = self.plain.code(z).iter().map(|c| *c as f32).collect();
            let mut changed = vec![];
            kind.for_each_change(&code, |change| {
                let mut next = code.clone();
                change.off.into_iter().for_each(|u| next[u] = 0.0);
                change.on.into_iter().for_each(|u| next[u] = 1.0);
                // A change that leaves the states has the loss of the first one.
                let mut next = wide(&next);
                if !self.plain.weights(&next).contains(&1.0) {
                    let mut z = vec![0; n];
                    self.plain.structure.state(0, &mut z);
                    next = self.plain.code(&z);
                }
                changed.push(self.loss(*b, &next) as f32);
            });
            kind.neighbour_losses(&code, *own, &changed, losses);
        }
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = self.plain.inputs.blocks();
        let mut z = vec![0; self.plain.structure.variables()];
        for (b, losses) in of.iter().zip(losses.chunks_mut(states)) {
            for (s, loss) in losses.iter_mut().enumerate() {
                self.plain.structure.state(s, &mut z);
                *loss = self.loss(*b, &self.plain.code(&z)) as f32;
            }
        }
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let u = self.plain.structure.unary();
        for (r, (b, code)) in of.iter().zip(codes.chunks(u)).enumerate() {
            let code = wide(code);
            losses[r] = self.loss(*b, &code) as f32;
            let (samples, terms) = &self.codes[*b as usize];
            let found = self.plain.slopes(self.images[*b as usize], &code, samples, terms);
            slopes[r * u..][..u].iter_mut().zip(found).for_each(|(s, f)| *s = f as f32);
        }
        Ok(())
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        let (n, u, states) =
            (self.plain.structure.variables(), self.plain.structure.unary(), self.plain.inputs.blocks());
        match followed {
            Followed::Assignments { row, assignments, weights } => {
                for (b, (z, weight)) in assignments.chunks(n).zip(weights).enumerate() {
                    self.followed.push((row, b, self.plain.code(z), *weight as f64));
                }
            }
            Followed::Codes { row, codes, weights } => {
                for (b, (code, weight)) in codes.chunks(u).zip(weights).enumerate() {
                    self.followed.push((row, b, wide(code), *weight as f64));
                }
            }
            Followed::States(weights) => {
                let mut z = vec![0; n];
                for (place, weight) in weights.iter().enumerate() {
                    self.plain.structure.state(place % states, &mut z);
                    self.followed.push((0, place / states, self.plain.code(&z), *weight as f64));
                }
            }
        }
        Ok(())
    }
}

/// A step's noise.
struct Streams([Noise; 3]);

impl Streams {
    fn new(step: u64) -> Self {
        Streams([Purpose::Noise, Purpose::Gaussian, Purpose::Dropout].map(|purpose| Noise::new(5, purpose, step)))
    }

    fn options(&self, kl_weight: f32, case: &Case, samples: usize) -> StepOptions<'_> {
        let [noise, gaussian, dropout] = &self.0;
        StepOptions { kl_weight, continuous_kl: case.kl, noise, samples, gaussian, dropout, rate: 1.0 }
    }
}

/// Estimators that a latent can have.
fn all_estimators(structure: &AnyStructure, batch: usize) -> Vec<(String, Box<dyn Estimator>)> {
    let mut all: Vec<(String, Box<dyn Estimator>)> = vec![];
    for entry in estimators().iter() {
        let mut settings = Settings::defaults(entry.settings());
        for (name, value) in [("epsilon", 0.7), ("temperature", 0.6)] {
            if settings.get(name).is_some() {
                settings.set(name, Value::Real(value));
            }
        }
        all.extend(entry.build(&settings, structure).ok().map(|built| (entry.name().to_string(), built)));
    }
    assert!(all.len() >= 2);
    // An estimator is an object that a step may change: the labels are those of one batch.
    let supervision = Supervision::new(Loss::Argmax { epsilon: 0.5 }, 1.0).unwrap();
    let n = structure.variables();
    let mut known: Vec<u32> = vec![];
    let mut z = vec![0; n];
    for b in 0..batch {
        structure.state(b * 7 % structure.states().unwrap(), &mut z);
        let unknown = b % 3 == 2;
        known.extend(z.iter().map(|z| if unknown { UNKNOWN } else { *z }));
    }
    all.push(("taught".into(), Box::new(Taught::new(supervision, known))));
    all
}

fn begin(estimator: &mut dyn Estimator) {
    estimator.begin(&Moment { step: 0, kl_weight: 0.0 }).unwrap();
}

/// The gradient of a step by differences, parameter by parameter, and what the step tells.
fn expected(
    case: &Case,
    plain: &mut Plain,
    images: &Pictures,
    batch: &[u32],
    estimator: &dyn Estimator,
    (streams, kl_weight): (&Streams, f32),
) -> (Vec<Vec<f64>>, StepReport) {
    let (structure, d, count) = (plain.structure.clone(), images.shape.len(), batch.len());
    let x: Vec<&[f32]> = batch.iter().map(|b| &images.values[*b as usize * d..][..d]).collect();
    let chances = plain.chances(count, Some(&streams.0[1]), Some(&streams.0[2]));
    let encoded: Vec<_> = x.iter().zip(&chances).map(|(x, chance)| plain.encode(x, chance)).collect();
    let (p, u) = (structure.potentials(), structure.unary());
    let mut potentials: Vec<f32> = encoded.iter().flat_map(|(raw, ..)| raw.iter().map(|h| *h as f32)).collect();
    potentials.chunks_mut(p).for_each(|h| structure.to_potentials(h));
    let mut gradient = vec![0.0; potentials.len()];
    if kl_weight != 0.0 {
        for (h, g) in potentials.chunks(p).zip(gradient.chunks_mut(p)) {
            gumbel::structure::Sums::kl_to_uniform(&structure, h, kl_weight / count as f32, g).unwrap();
        }
    }
    let (samples, width) = match estimator.is_random() {
        true => (case.samples, estimator.noise(&structure).unwrap()),
        false => (1, 0),
    };
    let mut noise = vec![0.0; samples * count * width];
    streams.0[0].gumbel(&mut noise);
    let of: Vec<u32> = (0..count as u32).collect();
    let (mut tallies, mut sums) = ([Tally::default(); MEASURES], vec![0.0; estimator.sums()]);
    let kl = plain.kl;
    let codes = |(_, samples, terms, _): &(_, Vec<f64>, Vec<f64>, _)| {
        (samples.clone(), terms.iter().map(|t| kl.asked as f64 * t).collect())
    };
    let mut oracle = Answers { plain, images: x.clone(), codes: encoded.iter().map(codes).collect(), followed: vec![] };
    let mut memory = Memory::default();
    let mut piece = Piece {
        structure: &structure,
        potentials: &potentials,
        noise: Noises { values: &noise, width, stride: count },
        samples,
        scale: 1.0 / (count * samples) as f32,
        first: 0,
        of: &of,
        gradient: &mut gradient,
        tallies: &mut tallies,
        sums: &mut sums,
        memory: &mut memory,
        parallel: false,
    };
    estimator.estimate(&mut piece, &mut oracle).unwrap();
    if estimator.wants_slopes() {
        let mut slopes = vec![0.0; estimator.rows(samples) * count * u];
        for (row, b, code, weight) in &oracle.followed {
            let (samples, terms) = &oracle.codes[*b];
            let found = oracle.plain.slopes(x[*b], code, samples, terms);
            let out = &mut slopes[(row * count + b) * u..][..u];
            out.iter_mut().zip(found).for_each(|(s, f)| *s = (weight * f) as f32);
        }
        estimator.resume(&mut piece, Slopes { values: &slopes, stride: count }).unwrap();
    }
    potentials.chunks(p).zip(gradient.chunks_mut(p)).for_each(|(h, g)| structure.to_raw_gradient(h, g));
    let followed = oracle.followed;
    // The gradient's objective weighs the KL; what is reported does not.
    let objective = |plain: &Plain, potentials: bool| -> f64 {
        let weight_of_kl = if potentials { kl.followed as f64 } else { 1.0 };
        let encoded: Vec<_> = x.iter().zip(&chances).map(|(x, chance)| plain.encode(x, chance)).collect();
        let follow = followed.iter().filter(|(.., weight)| *weight != 0.0).map(|(_, b, code, weight)| {
            let (_, samples, kl, _) = &encoded[*b];
            let kl: Vec<f64> = kl.iter().map(|kl| weight_of_kl * kl).collect();
            weight * plain.loss(x[*b], code, samples, &kl)
        });
        let raw = encoded.iter().flat_map(|(raw, ..)| raw).zip(&gradient).map(|(h, g)| h * *g as f64);
        follow.sum::<f64>() + if potentials { raw.sum::<f64>() } else { 0.0 }
    };
    let report = StepReport { reconstruction: objective(plain, false), tallies };
    const STEP: f64 = 1e-6;
    let mut all = vec![];
    for slot in 0..plain.parameters.len() {
        let mut own = vec![];
        // Of the larger ones some places.
        let len = plain.parameters[slot].len();
        for i in 0..len {
            if len > 60 && (i * 7 + slot) % (len / 40) != 0 {
                own.push(f64::NAN);
                continue;
            }
            let start = plain.parameters[slot][i];
            plain.parameters[slot][i] = start + STEP;
            let above = objective(plain, true);
            plain.parameters[slot][i] = start - STEP;
            let below = objective(plain, true);
            plain.parameters[slot][i] = start;
            own.push((above - below) / (2.0 * STEP));
        }
        all.push(own);
    }
    (all, report)
}

/// The gradient stands in the first moments after one step.
#[test]
fn a_step_follows_the_gradient_of_the_plain_model() {
    for (number, case) in CASES.iter().enumerate() {
        let structure = case.structure();
        let images = case.images(case.batch + 3);
        let batch: Vec<u32> = (0..case.batch as u32).map(|b| b + 2).collect();
        for (name, mut estimator) in all_estimators(&structure, case.batch) {
            begin(estimator.as_mut());
            let case = &Case { samples: case.samples.max(estimator.least_samples()), ..*case };
            let learned = estimator.state();
            let streams = Streams::new(number as u64);
            let sums = gumbel::structure::Sums::tractable(&structure).is_ok();
            let kl_weight = if sums { [0.0, 0.5, 1.0, 0.3, 0.0][number] } else { 0.0 };
            let start = case.engine(estimator.as_ref(), 1).snapshot();
            let mut plain = case.plain(estimator.as_ref(), &start);
            let (gradients, report) =
                expected(case, &mut plain, &images, &batch, estimator.as_ref(), (&streams, kl_weight));
            let isas = if number < 2 { Isa::all() } else { vec![Isa::all()[0]] };
            for isa in isas {
                let what = format!("case {number}, {name}, {}", isa.name());
                let mut engine = case.engine(estimator.as_ref(), 1);
                engine.set_isa(isa);
                let options = streams.options(kl_weight, case, case.samples);
                estimator.restore(&learned).unwrap();
                let found = engine.step(&images, &batch, estimator.as_mut(), &options).unwrap();
                let error = (found.reconstruction - report.reconstruction).abs();
                assert!(error < 1e-5 * report.reconstruction.abs().max(1.0), "{what}: {found:?}, not {report:?}");
                for (f, e) in found.tallies.iter().zip(&report.tallies) {
                    assert_eq!(f.count, e.count, "{what}");
                    assert!((f.sum - e.sum).abs() < 1e-3 * e.sum.abs().max(1.0), "{what}: {found:?}, not {report:?}");
                }
                let model = engine.snapshot();
                let names: Vec<&str> = model.parameters.all().map(|p| p.name.as_str()).collect();
                let scale = gradients.iter().flatten().filter(|g| g.is_finite()).fold(0.0f64, |m, g| m.max(g.abs()));
                for ((moments, expected), name) in model.moments.iter().zip(&gradients).zip(names) {
                    for (i, (m, e)) in moments.first.iter().zip(expected).enumerate().filter(|(_, (_, e))| !e.is_nan())
                    {
                        let g = *m as f64 * 10.0;
                        assert!((g - e).abs() < 2e-5 * scale.max(0.1), "{what}, {name} {i}: {g}, not {e} ({scale})");
                    }
                }
            }
        }
    }
}

#[track_caller]
fn assert_close(what: &str, found: f32, expected: f64) {
    assert!((found as f64 - expected).abs() < 2e-5 * expected.abs().max(1.0), "{what}: {found}, not {expected}");
}

#[test]
fn every_answer_is_that_of_the_plain_model() {
    for (number, case) in CASES.iter().enumerate() {
        let structure = case.structure();
        let (p, n, u) = (structure.potentials(), structure.variables(), structure.unary());
        let states = structure.states().unwrap();
        let (count, d) = (45, case.shape().len());
        let images = case.images(count);
        let batch: Vec<u32> = (0..count as u32).rev().collect();
        let x = |b: usize| &images.values[batch[b] as usize * d..][..d];
        let estimator = estimators().get("direct").unwrap().clone();
        let estimator = estimator.build(&Settings::defaults(estimator.settings()), &structure).unwrap();
        let mut engine = case.engine(estimator.as_ref(), 2);
        let plain = case.plain(estimator.as_ref(), &engine.snapshot());
        let noise = Noise::new(8, Purpose::Evaluation, 1);
        for (kind, draw) in [Draw::Mean, Draw::Sample(&noise), Draw::Weight(&noise)].into_iter().enumerate() {
            let what = format!("case {number}, draw {kind}");
            let chances = plain.chances(count, (kind > 0).then_some(&noise), None);
            let encoded: Vec<_> = (0..count).map(|b| plain.encode(x(b), &chances[b])).collect();
            let dim = case.dim;
            let terms: Vec<Vec<f64>> = encoded
                .iter()
                .zip(&chances)
                .map(|((_, c, kl, v), chance)| {
                    let weight = |k: usize| {
                        let one = |d: usize| c[d] * c[d] - (chance.normal[d] as f64).powi(2) - v[d];
                        0.5 * (k * dim..(k + 1) * dim).map(one).sum::<f64>()
                    };
                    (0..states).map(|k| [0.0, kl[k], if kind == 2 { weight(k) } else { 0.0 }][kind]).collect()
                })
                .collect();
            let mut asked = engine.ask(&images, &batch, draw).unwrap();
            let codes = asked.codes.take().unwrap();
            for (b, (raw, samples, kl, _)) in encoded.iter().enumerate() {
                let mut potentials: Vec<f32> = raw.iter().map(|h| *h as f32).collect();
                structure.to_potentials(&mut potentials);
                for (f, e) in asked.potentials[b * p..].iter().zip(&potentials) {
                    assert_close(&format!("{what}: potentials"), *f, *e as f64);
                }
                for (f, e) in codes.samples[b * states * dim..].iter().zip(samples) {
                    assert_close(&format!("{what}: samples"), *f, *e);
                }
                for (f, e) in codes.kl[b * states..].iter().zip(kl) {
                    assert_close(&format!("{what}: KL"), *f, *e);
                }
            }
            let loss =
                |b: u32, code: &[f64]| plain.loss(x(b as usize), code, &encoded[b as usize].1, &terms[b as usize]);
            let of: Vec<u32> = (0..70u32).map(|r| r * 11 % count as u32).collect();
            let (mut assignments, mut z) = (vec![], vec![0; n]);
            for r in 0..of.len() {
                structure.state((r * 31 + 5) % states, &mut z);
                assignments.extend_from_slice(&z);
            }
            let mut losses = vec![0.0; of.len()];
            asked.oracle.losses(&of, &assignments, &mut losses).unwrap();
            for ((b, z), found) in of.iter().zip(assignments.chunks(n)).zip(&losses) {
                assert_close(&format!("{what}: losses"), *found, loss(*b, &plain.code(z)));
            }
            let mut answers = Answers {
                plain: &plain,
                images: (0..count).map(x).collect(),
                codes: encoded.iter().zip(&terms).map(|((_, c, ..), t)| (c.clone(), t.clone())).collect(),
                followed: vec![],
            };
            let (mut own, mut around) = (vec![0.0; of.len()], vec![0.0; of.len() * u]);
            asked.oracle.around(&of, &assignments, &mut own, &mut around).unwrap();
            assert_eq!(own, losses);
            let mut expected = (vec![0.0; of.len()], vec![0.0; of.len() * u]);
            answers.around(&of, &assignments, &mut expected.0, &mut expected.1).unwrap();
            for (f, e) in around.iter().zip(expected.1) {
                assert!((f - e).abs() < 2e-5 * e.abs().max(losses[0].abs()), "{what}: around, {f}, not {e}");
            }
            let (mut table, mut expected) = (vec![0.0; 3 * states], vec![0.0; 3 * states]);
            asked.oracle.states(&[40, 0, 40], &mut table).unwrap();
            answers.states(&[40, 0, 40], &mut expected).unwrap();
            table.iter().zip(expected).for_each(|(f, e)| assert_close(&format!("{what}: states"), *f, e as f64));
            // Relaxed codes.
            let soft = uniform(of.len() * u, 9);
            let (mut losses, mut slopes) = (vec![0.0; of.len()], vec![0.0; of.len() * u]);
            asked.oracle.slopes(&of, &soft, &mut losses, &mut slopes).unwrap();
            for (r, b) in of.iter().enumerate() {
                let code = wide(&soft[r * u..][..u]);
                assert_close(&format!("{what}: relaxed"), losses[r], loss(*b, &code));
                let (samples, terms) = &answers.codes[*b as usize];
                let expected = plain.slopes(x(*b as usize), &code, samples, terms);
                for (f, e) in slopes[r * u..].iter().zip(expected) {
                    assert!((*f as f64 - e).abs() < 1e-4 * e.abs().max(1.0), "{what}: slopes, {f}, not {e}");
                }
            }
            assert!(asked.oracle.losses(&[count as u32], &assignments[..n], &mut [0.0]).is_err());
            assert!(asked.oracle.states(&[0], &mut [0.0]).is_err());
        }
        // Enough rows for two pieces of work.
        let rows = 140;
        let width = engine.inputs().width();
        let inputs: Vec<f32> = uniform(rows * width, 4).iter().map(|v| if *v < 0.3 { 0.0 } else { v - 0.6 }).collect();
        let mut means = vec![0.0; rows * d];
        engine.means(&inputs, &mut means).unwrap();
        for (input, means) in inputs.chunks(width).zip(means.chunks(d)) {
            for (f, t) in means.iter().zip(plain.logits(&wide(input))) {
                assert_close("means", *f, 1.0 / (1.0 + (-t).exp()));
            }
        }
        assert!(engine.means(&inputs[1..], &mut means).is_err());
    }
}

/// A run of some steps on changing batches, the last one smaller.
fn train(case: &Case, name: &str, threads: usize, again: bool) -> Snapshot {
    let structure = case.structure();
    let images = case.images(310);
    let mut all = all_estimators(&structure, 290);
    let at = all.iter().position(|(n, _)| n == name).unwrap();
    let mut estimator = all.swap_remove(at).1;
    let samples = case.samples.max(estimator.least_samples());
    let case = Case { batch: 290, samples, ..*case };
    begin(estimator.as_mut());
    let mut engine = case.engine(estimator.as_ref(), threads);
    for step in 0..4 {
        let order = Noise::new(6, Purpose::Shuffle, step).permutation(310);
        let batch = &order[..if step % 3 == 2 { 133 } else { 290 }];
        let streams = Streams::new(step);
        engine.prepare(&images, batch).unwrap();
        engine.step(&images, batch, estimator.as_mut(), &streams.options(0.0, &case, case.samples)).unwrap();
        if again && step == 1 {
            let snapshot = engine.snapshot();
            engine = case.engine(estimator.as_ref(), threads);
            engine.restore(&snapshot).unwrap();
        }
    }
    engine.snapshot()
}

#[test]
fn steps_do_not_depend_on_threads_and_go_on_from_a_snapshot() {
    for case in &CASES {
        for (name, _) in all_estimators(&case.structure(), 290) {
            let one = train(case, &name, 1, false);
            assert_eq!(one.steps, 4);
            assert!(one == train(case, &name, 2, false), "{name}, {}: 2 threads", case.latent);
            assert!(one == train(case, &name, 3, true), "{name}, {}: 3 threads, from a snapshot", case.latent);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = CASES[1];
    let structure = case.structure();
    let (_, estimator) = all_estimators(&structure, 5).remove(0);
    let mut engine = case.engine(estimator.as_ref(), 1);
    let mut model = engine.snapshot();
    model.parameters.encoder[2].shape[1] = 17;
    let message = engine.restore(&model).unwrap_err().to_string();
    assert!(message.contains("layers.0.weight") && message.contains("encoder"), "{message}");
    let mut model = engine.snapshot();
    model.moments = vec![Default::default(); 3];
    assert!(engine.restore(&model).unwrap_err().to_string().contains("moments"));
    let images = Pictures { values: vec![0.0; 50], shape: Shape::grey(5, 5) };
    assert!(engine.ask(&images, &[0], Draw::Mean).err().unwrap().to_string().contains("9 pixels, found 25"));
    assert!(engine.ask(&case.images(3), &[], Draw::Mean).is_err());

    let refusal = |case: &Case, change: &dyn Fn(&mut ModelOptions<'_>)| {
        case.with_options(estimator.as_ref(), 1, |options| {
            let mut options = options.clone();
            change(&mut options);
            let found = gumbel_fused::refusal(&options);
            assert_eq!(found.is_some(), gumbel_fused::model(&options).is_err());
            found
        })
    };
    assert_eq!(refusal(&case, &|_| ()), None);
    assert_eq!(refusal(&Case { latent: "binary:6", ..case }, &|_| ()), None);
    let many = refusal(&Case { latent: "categorical:65", ..case }, &|_| ()).unwrap();
    assert!(many.contains("at most 64 states"), "{many}");
    let joint = refusal(&case, &|options| options.continuous = Continuous::Joint(2)).unwrap();
    assert!(joint.contains("rows:D"), "{joint}");
    assert_eq!(refusal(&case, &|options| options.device = "wgpu").unwrap(), "device = cpu");
}

/// Asks for the least of losses less slack before it asks for all of them.
struct Least(f32);

impl Estimator for Least {
    fn questions(&self, _: &AnyStructure) -> Questions {
        Questions::AROUND
    }

    fn estimate(&self, piece: &mut Piece<'_, AnyStructure>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (count, u) = (piece.count(), piece.structure.unary());
        piece.draw(0)?;
        let z = piece.memory.assignments[..count].to_vec();
        // From more than any loss to nothing.
        let slack = uniform(count * u, 17 + piece.first as u64);
        let mut slack: Vec<f32> = slack.iter().map(|v| 1.5 * self.0 * (0.05 - v)).collect();
        slack.chunks_mut(u).zip(&z).for_each(|(slack, z)| slack[*z as usize] = 0.0);
        let (mut own, mut near) = (vec![0.0; count], vec![0.0; count * u]);
        oracle.least(piece.of, &z, &slack, &mut own, &mut near)?;
        let (mut again, mut all) = (vec![0.0; count], vec![0.0; count * u]);
        oracle.around(piece.of, &z, &mut again, &mut all)?;
        assert_eq!(own, again);
        let mut bounds = 0;
        for b in 0..count {
            let row = b * u..(b + 1) * u;
            let best = |losses: &[f32]| {
                let left = losses.iter().zip(&slack[row.clone()]).map(|(l, s)| l - s).enumerate();
                left.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
            };
            assert_eq!(best(&near[row.clone()]), best(&all[row.clone()]));
            for (near, all) in near[row.clone()].iter().zip(&all[row]) {
                assert!(*near <= all + 1e-4);
                bounds += usize::from(near != all);
            }
        }
        assert!(bounds > 0);
        piece.follow_sample(0, oracle)
    }
}

#[test]
fn bounds_do_not_hide_the_least_loss() {
    for case in CASES.iter().filter(|case| case.latent.starts_with("categorical")) {
        let images = case.images(case.batch);
        let batch: Vec<u32> = (0..case.batch as u32).collect();
        let mut least = Least(case.shape().len() as f32);
        let mut engine = case.engine(&least, 1);
        engine.step(&images, &batch, &mut least, &Streams::new(1).options(0.0, case, 1)).unwrap();
    }
}

/// Parameters that are no numbers are an error, not a step.
#[test]
fn a_loss_that_is_not_finite_stops_the_step() {
    let case = CASES[0];
    let structure = case.structure();
    for (name, mut estimator) in all_estimators(&structure, case.batch) {
        begin(estimator.as_mut());
        let mut engine = case.engine(estimator.as_ref(), 1);
        let mut model = engine.snapshot();
        let last: &mut Named = model.parameters.decoder.last_mut().unwrap();
        last.values[3] = f32::NAN;
        engine.restore(&model).unwrap();
        let images = case.images(case.batch);
        let batch: Vec<u32> = (0..case.batch as u32).collect();
        let streams = Streams::new(0);
        let found = engine.step(&images, &batch, estimator.as_mut(), &streams.options(0.0, &case, 1));
        assert!(found.is_err(), "{name}");
        assert_eq!(engine.snapshot().steps, 0);
    }
}
