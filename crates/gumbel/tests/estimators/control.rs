//! Learned control variates: REBAR, RELAX, and direct optimisation as a control variate.
//!
//! What they estimate is compared with a plain form of their definitions in f64 ([`Reference`]), whose gradients are
//! finite differences of the control at the potentials: nothing of the derivatives written out in the estimators.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{
    DirectRebar, Estimator, Memory, Moment, Piece, Rebar, Recorder, Reinforce, Relax, estimate, estimate_with,
    estimators,
};
use gumbel::oracle::{Closure, Followed, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Structure, Subset};

const NAMES: [&str; 3] = ["rebar", "relax", "direct-rebar"];

/// `offset + <a, c> + curvature <b, c>² + height sin <d, c>`, with its derivatives.
#[derive(Debug, Clone)]
struct Smooth {
    offset: f64,
    linear: Vec<f64>,
    square: Vec<f64>,
    wave: Vec<f64>,
    curvature: f64,
    height: f64,
}

impl Smooth {
    fn new(u: usize, seed: u64) -> Self {
        let vector = |i: u64| doubles(&random(u, 1.0, seed + i));
        let (linear, square, wave) = (vector(0), vector(1), vector(2));
        Smooth { offset: 0.0, linear, square, wave, curvature: 0.5, height: 1.0 }
    }

    fn dots(&self, c: impl Iterator<Item = f64>) -> [f64; 3] {
        let mut dots = [0.0; 3];
        for ((a, b, d), c) in self.linear.iter().zip(&self.square).zip(&self.wave).map(|((a, b), d)| (a, b, d)).zip(c) {
            [a, b, d].iter().zip(&mut dots).for_each(|(w, dot)| *dot += *w * c);
        }
        dots
    }

    fn loss(&self, c: impl Iterator<Item = f64>) -> f64 {
        let [a, b, d] = self.dots(c);
        self.offset + a + self.curvature * b * b + self.height * d.sin()
    }

    fn slope(&self, c: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
        let [_, b, d] = self.dots(c);
        let (square, wave) = (2.0 * self.curvature * b, self.height * d.cos());
        (0..self.linear.len()).map(move |i| self.linear[i] + square * self.square[i] + wave * self.wave[i])
    }

    fn tangent(&self, c: impl Iterator<Item = f64>, v: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
        let ([_, _, d], [_, square, wave]) = (self.dots(c), self.dots(v));
        let (square, wave) = (2.0 * self.curvature * square, -self.height * d.sin() * wave);
        (0..self.linear.len()).map(move |i| square * self.square[i] + wave * self.wave[i])
    }
}

fn wide(x: &[f32]) -> impl Iterator<Item = f64> + Clone {
    x.iter().map(|x| *x as f64)
}

/// An oracle of such a loss, the same for all examples, that counts what it is asked.
struct Answers<'a> {
    structure: &'a Categorical,
    smooth: &'a Smooth,
    /// Rows of losses, slopes, tangents.
    asked: [usize; 3],
    code: Vec<f32>,
}

impl<'a> Answers<'a> {
    fn new(structure: &'a Categorical, smooth: &'a Smooth) -> Self {
        Answers { structure, smooth, asked: [0; 3], code: vec![0.0; structure.unary()] }
    }
}

impl Oracle for Answers<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.asked[0] += of.len();
        for (z, loss) in assignments.chunks_exact(self.structure.variables()).zip(losses) {
            self.structure.encode(z, &mut self.code);
            *loss = self.smooth.loss(wide(&self.code)) as f32;
        }
        Ok(())
    }

    fn around(&mut self, _: &[u32], _: &[u32], _: &mut [f32], _: &mut [f32]) -> Result<(), Error> {
        panic!("nobody asks for one-coordinate changes here")
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        Closure::new(self.structure, |_, code| self.smooth.loss(wide(code)) as f32).states(of, losses)
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        self.asked[1] += of.len();
        let u = self.structure.unary();
        for ((code, loss), slopes) in codes.chunks_exact(u).zip(losses).zip(slopes.chunks_exact_mut(u)) {
            *loss = self.smooth.loss(wide(code)) as f32;
            slopes.iter_mut().zip(self.smooth.slope(wide(code))).for_each(|(s, d)| *s = d as f32);
        }
        Ok(())
    }

    fn tangents(&mut self, of: &[u32], codes: &[f32], along: &[f32], tangents: &mut [f32]) -> Result<(), Error> {
        self.asked[2] += of.len();
        let u = self.structure.unary();
        for ((code, v), tangents) in codes.chunks_exact(u).zip(along.chunks_exact(u)).zip(tangents.chunks_exact_mut(u))
        {
            let found = self.smooth.tangent(wide(code), wide(v));
            tangents.iter_mut().zip(found).for_each(|(t, d)| *t = d as f32);
        }
        Ok(())
    }

    fn follow(&mut self, _: Followed<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// The same without tangents of its own.
struct Differenced<'a>(Answers<'a>);

impl Oracle for Differenced<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.0.losses(of, assignments, losses)
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        self.0.around(of, assignments, own, losses)
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.0.states(of, losses)
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        self.0.slopes(of, codes, losses, slopes)
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        self.0.follow(followed)
    }
}

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// The control's value without its gradients.
    NoGradients,
    /// Without the gradient at zeta~.
    NoGradientGivenZ,
    /// Without the gradient at zeta.
    NoGradientAtZeta,
    /// zeta~ moves as zeta does, one for one.
    Unmoved,
    /// zeta in the place of zeta~: the noise that z was drawn with.
    SameDraw,
    /// zeta~ made with the noise of zeta.
    SameNoise,
    /// The control added to the loss, its gradients as they are.
    Sign,
    /// Twice the control, its gradients as they are.
    Twice,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// `tau`, and the parameters of the network of `units`.
    Relaxed {
        tau: f64,
        network: Vec<f64>,
        units: usize,
    },
    Direct {
        epsilon: f64,
    },
}

/// The definition, in f64, for one example.
#[derive(Debug, Clone)]
struct Reference<'a> {
    smooth: &'a Smooth,
    k: usize,
    eta: f64,
    kind: Kind,
    wrong: Wrong,
}

fn lse(x: impl Iterator<Item = f64>) -> f64 {
    x.map(f64::exp).sum::<f64>().ln()
}

fn largest(x: impl Iterator<Item = f64>) -> f64 {
    x.fold(f64::NEG_INFINITY, f64::max)
}

fn differences(h: &[f64], step: f64, objective: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = h.to_vec();
    let mut out = vec![];
    for i in 0..h.len() {
        let mut at = |d: f64| {
            x[i] = h[i] + d;
            objective(&x)
        };
        out.push((at(step) - at(-step)) / (2.0 * step));
        x[i] = h[i];
    }
    out
}

impl Reference<'_> {
    fn mean_code(&self, h: &[f64], tau: f64) -> Vec<f64> {
        h.chunks(self.k).flat_map(|h| softmax64(h.iter().map(|h| h / tau))).collect()
    }

    /// phi: constant in what is differentiated.
    fn phi(&self, h: &[f64]) -> Vec<f64> {
        let q = self.mean_code(h, 1.0);
        let mut phi: Vec<f64> = self.smooth.slope(q.iter().copied()).collect();
        for (phi, q) in phi.chunks_mut(self.k).zip(q.chunks(self.k)) {
            let mean: f64 = phi.iter().zip(q).map(|(p, q)| p * q).sum();
            phi.iter_mut().for_each(|p| *p -= mean);
        }
        phi
    }

    fn network(&self, s: &[f64]) -> f64 {
        let Kind::Relaxed { network, units, .. } = &self.kind else { return 0.0 };
        let (u, m) = (s.len(), *units);
        if m == 0 {
            return 0.0;
        }
        let unit = |j: usize| {
            let sum: f64 = network[j * u..][..u].iter().zip(s).map(|(a, s)| a * s).sum();
            (sum + network[m * u + j]).tanh()
        };
        (0..m).map(|j| network[m * u + m + j] * unit(j)).sum::<f64>() + network[m * u + 2 * m]
    }

    fn control(&self, phi: &[f64], zeta: &[f64]) -> f64 {
        match &self.kind {
            Kind::Relaxed { tau, .. } => {
                let s = self.mean_code(zeta, *tau);
                self.eta * self.smooth.loss(s.iter().copied()) + self.network(&s)
            }
            Kind::Direct { epsilon } => {
                let blocks = zeta.chunks(self.k).zip(phi.chunks(self.k));
                let of = |(zeta, phi): (&[f64], &[f64])| {
                    largest(zeta.iter().copied()) - largest(zeta.iter().zip(phi).map(|(z, p)| z - epsilon * p))
                };
                self.eta * blocks.map(of).sum::<f64>() / epsilon
            }
        }
    }

    fn given(&self, h: &[f64], z: &[usize], fresh: &[f32]) -> Vec<f64> {
        let mut out = vec![];
        for ((h, fresh), z) in h.chunks(self.k).zip(fresh.chunks(self.k)).zip(z) {
            let most = lse(h.iter().copied()) + fresh[*z] as f64;
            for (i, (h, g)) in h.iter().zip(fresh).enumerate() {
                let cut = -((-(h + *g as f64)).exp() + (-most).exp()).ln();
                out.push(if i == *z { most } else { cut });
            }
        }
        out
    }

    fn estimate(&self, h: &[f64], noise: &[f32]) -> Vec<f64> {
        let (gamma, fresh) = noise.split_at(h.len());
        let add = |h: &[f64], g: &[f32]| -> Vec<f64> { h.iter().zip(g).map(|(h, g)| h + *g as f64).collect() };
        let zeta = add(h, gamma);
        let place = |block: &[f64]| (0..self.k).max_by(|a, b| block[*a].total_cmp(&block[*b])).unwrap();
        let z: Vec<usize> = zeta.chunks(self.k).map(place).collect();
        let mut code = vec![0.0; h.len()];
        z.iter().enumerate().for_each(|(i, z)| code[i * self.k + z] = 1.0);
        let (q, phi) = (self.mean_code(h, 1.0), self.phi(h));
        let second = |at: &[f64]| match self.wrong {
            Wrong::SameDraw => add(at, gamma),
            Wrong::SameNoise => self.given(at, &z, gamma),
            Wrong::Unmoved => {
                let fast = self.given(h, &z, fresh);
                fast.iter().zip(at.iter().zip(h)).map(|(zeta, (at, h))| zeta + at - h).collect()
            }
            _ => self.given(at, &z, fresh),
        };
        let constant = match self.kind {
            Kind::Direct { .. } => self.smooth.loss(q.iter().copied()),
            _ => 0.0,
        };
        let times = match self.wrong {
            Wrong::Sign => -1.0,
            Wrong::Twice => 2.0,
            _ => 1.0,
        };
        let weight = self.smooth.loss(code.iter().copied()) - constant - times * self.control(&phi, &second(h));
        let first = differences(h, 1e-6, |h| match self.kind {
            Kind::Relaxed { .. } => self.control(&phi, &add(h, gamma)),
            Kind::Direct { epsilon } => {
                let blocks = h.chunks(self.k).zip(phi.chunks(self.k));
                let of = |(h, phi): (&[f64], &[f64])| {
                    lse(h.iter().copied()) - lse(h.iter().zip(phi).map(|(h, p)| h - epsilon * p))
                };
                self.eta * blocks.map(of).sum::<f64>() / epsilon
            }
        });
        let second = differences(h, 1e-6, |h| self.control(&phi, &second(h)));
        let (with_first, with_second) = match self.wrong {
            Wrong::NoGradients => (0.0, 0.0),
            Wrong::NoGradientGivenZ => (1.0, 0.0),
            Wrong::NoGradientAtZeta => (0.0, 1.0),
            _ => (1.0, 1.0),
        };
        let all = code.iter().zip(&q).zip(first.iter().zip(&second));
        all.map(|((z, q), (a, b))| weight * (z - q) + with_first * a - with_second * b).collect()
    }
}

/// As an estimator, for the statistical tests of what is wrong.
impl Estimator<Categorical> for Reference<'_> {
    fn questions(&self, _: &Categorical) -> Questions {
        Questions::NONE
    }

    fn noise(&self, structure: &Categorical) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn estimate(&self, piece: &mut Piece<'_, Categorical>, _: &mut dyn Oracle) -> Result<(), Error> {
        let u = piece.structure.unary();
        for b in 0..piece.count() {
            let found = Reference::estimate(self, &doubles(&piece.potentials[b * u..][..u]), piece.noise.of(0, b));
            piece.gradient[b * u..][..u].iter_mut().zip(found).for_each(|(g, f)| *g += piece.scale * f as f32);
        }
        Ok(())
    }
}

/// A state of given parameters.
fn state(parameters: &[f32]) -> Vec<f32> {
    [parameters, &vec![0.0; 2 * parameters.len() + 1]].concat()
}

/// RELAX with these parameters: eta, tau, those of the network.
fn relax(structure: &Categorical, [eta, tau]: [f32; 2], network: &[f32], rate: f32) -> Relax {
    let units = (network.len() - 1) / (structure.unary() + 2);
    let mut relax = Relax::new(structure, 1.0, 1.0, rate, units).unwrap();
    let parameters = [&[eta, tau.ln()], network].concat();
    Estimator::<Categorical>::restore(&mut relax, &state(&parameters)).unwrap();
    relax
}

fn problem(n: usize, k: usize, seed: u64) -> (Categorical, Vec<f32>, Smooth) {
    (Categorical::product(n, k).unwrap(), random(n * k, 0.8, seed), Smooth::new(n * k, seed + 1))
}

/// The three, as they are built by default.
fn built(structure: &AnyStructure) -> Vec<Box<dyn Estimator>> {
    let all = estimators();
    let build = |name: &&str| {
        let entry = all.get(name).unwrap();
        entry.build(&Settings::defaults(entry.settings()), structure).unwrap()
    };
    NAMES.iter().map(build).collect()
}

/// Learns from some batches.
fn teach<E: Estimator<Categorical> + ?Sized>(
    estimator: &mut E,
    structure: &Categorical,
    h: &[f32],
    smooth: &Smooth,
    steps: u64,
) {
    let batch = h.repeat(64);
    for step in 0..steps {
        let noise = gumbel(batch.len() * 2, 8900, step);
        let found = estimate(estimator, structure, &batch, &noise, &mut Answers::new(structure, smooth)).unwrap();
        assert_eq!(found.sums.last(), Some(&64.0));
        estimator.learn(&found.sums);
    }
}

#[test]
fn controls_leave_the_mean_as_it_is() {
    for (case, (n, k)) in [(1, 2), (1, 3), (1, 5), (3, 2), (3, 3), (3, 5)].into_iter().enumerate() {
        let (structure, h, smooth) = problem(n, k, 8000 + 10 * case as u64);
        let expected = doubles(&exact(&structure, &h, &mut Answers::new(&structure, &smooth)));
        let network = random(5 * (n * k + 2) + 1, 1.0, 8100);
        let estimators: [(&str, Box<dyn Estimator<Categorical>>); 3] = [
            ("rebar", Box::new(Rebar::new(0.5, 1.0, 0.0).unwrap())),
            ("relax", Box::new(relax(&structure, [0.8, 0.7], &network, 0.0))),
            ("direct-rebar", Box::new(DirectRebar::new(0.7, 1.0, 0.0).unwrap())),
        ];
        for (name, estimator) in &estimators {
            let oracle = &mut Answers::new(&structure, &smooth);
            let found = mean_of(&**estimator, &structure, &h, oracle, 1, 200_000, 8101 + case as u64);
            assert_within_four_standard_errors(&format!("{name}, n = {n}, K = {k}"), &found, &expected);
            assert!(found.error.iter().all(|e| *e > 0.0));
            // Neither learning nor tangents that are differenced change an estimate.
            assert_eq!(oracle.asked[2], 0);
        }
    }
}

/// eta, tau, epsilon, and a network that could not be further from the loss.
#[test]
fn absurd_controls_leave_the_mean_as_it_is() {
    for (case, (n, k)) in [(1, 3), (3, 2)].into_iter().enumerate() {
        let (structure, h, smooth) = problem(n, k, 8200 + 10 * case as u64);
        let expected = doubles(&exact(&structure, &h, &mut Answers::new(&structure, &smooth)));
        let huge = random(20 * (n * k + 2) + 1, 10.0, 8210);
        let estimators: [Box<dyn Estimator<Categorical>>; 8] = [
            Box::new(Rebar::new(0.5, -3.0, 0.0).unwrap()),
            Box::new(Rebar::new(20.0, 1.0, 0.0).unwrap()),
            Box::new(Rebar::new(0.1, 2.0, 0.0).unwrap()),
            Box::new(Rebar::new(20.0, -3.0, 0.0).unwrap()),
            Box::new(relax(&structure, [-3.0, 2.0], &huge, 0.0)),
            Box::new(DirectRebar::new(0.7, -3.0, 0.0).unwrap()),
            Box::new(DirectRebar::new(30.0, 2.0, 0.0).unwrap()),
            Box::new(DirectRebar::new(0.02, 1.0, 0.0).unwrap()),
        ];
        for (i, estimator) in estimators.iter().enumerate() {
            let oracle = &mut Answers::new(&structure, &smooth);
            let found = mean_of(&**estimator, &structure, &h, oracle, 1, 200_000, 8220 + i as u64);
            assert_within_four_standard_errors(&format!("absurd {i}, n = {n}, K = {k}"), &found, &expected);
        }
    }
}

#[test]
fn what_is_learned_leaves_the_mean_as_it_is_and_less_variance() {
    for (n, k) in [(1, 3), (3, 2)] {
        let (structure, h, mut smooth) = problem(n, k, 8300 + k as u64);
        (smooth.offset, smooth.height) = (3.0, 3.0);
        let expected = doubles(&exact(&structure, &h, &mut Answers::new(&structure, &smooth)));
        let starts: [Box<dyn Estimator<Categorical>>; 3] = [
            Box::new(Rebar::new(3.0, 0.2, 0.05).unwrap()),
            Box::new(Relax::new(&structure, 3.0, 0.2, 0.05, 16).unwrap()),
            Box::new(DirectRebar::new(0.7, -2.0, 0.05).unwrap()),
        ];
        for (mut estimator, name) in starts.into_iter().zip(NAMES) {
            let variance = |estimator: &dyn Estimator<Categorical>, draws: usize| -> f64 {
                let oracle = &mut Answers::new(&structure, &smooth);
                let found = mean_of(estimator, &structure, &h, oracle, 1, draws, 8310);
                if draws == 200_000 {
                    assert_within_four_standard_errors(&format!("{name}, n = {n}, K = {k}"), &found, &expected);
                }
                draws as f64 * found.error.iter().map(|e| e * e).sum::<f64>()
            };
            let before = variance(&*estimator, 20_000);
            teach(&mut *estimator, &structure, &h, &smooth, 300);
            let after = variance(&*estimator, 200_000);
            assert!(after < 0.8 * before, "{name}, n = {n}, K = {k}: {after}, {before} before");
        }
    }
}

/// Where the loss of relaxed codes has little to do with that of hard ones, the network says what it does not.
#[test]
fn the_network_of_relax_learns_more_than_a_scale_and_a_temperature() {
    let (structure, h, mut smooth) = problem(2, 3, 8350);
    (smooth.offset, smooth.height) = (5.0, 3.0);
    smooth.wave.iter_mut().for_each(|d| *d *= 8.0);
    let variance = |estimator: &mut dyn Estimator<Categorical>| -> f64 {
        teach(estimator, &structure, &h, &smooth, 500);
        let found = mean_of(estimator, &structure, &h, &mut Answers::new(&structure, &smooth), 1, 20_000, 8351);
        found.error.iter().map(|e| e * e).sum()
    };
    let rebar = variance(&mut Rebar::new(0.5, 1.0, 0.02).unwrap());
    let relax = variance(&mut Relax::new(&structure, 0.5, 1.0, 0.02, 16).unwrap());
    assert!(relax < 0.8 * rebar, "{relax} {rebar}");
}

#[test]
fn controls_vary_less_than_the_score_function_alone() {
    let (structure, h, mut smooth) = problem(3, 3, 8400);
    smooth.offset = 30.0;
    let variance = |estimator: &dyn Estimator<Categorical>| -> f64 {
        let found = mean_of(estimator, &structure, &h, &mut Answers::new(&structure, &smooth), 1, 20_000, 8401);
        found.error.iter().map(|e| e * e).sum()
    };
    let plain = variance(&Reinforce::new());
    for estimator in [
        &Rebar::new(0.5, 1.0, 0.0).unwrap() as &dyn Estimator<Categorical>,
        &Relax::new(&structure, 0.5, 1.0, 0.0, 4).unwrap(),
        &DirectRebar::new(0.3, 1.0, 0.0).unwrap(),
    ] {
        let found = variance(estimator);
        assert!(found < 0.05 * plain, "{found} {plain}");
    }
}

/// Every draw, and what is learned from it: |g|² by finite differences in the parameters, at the same noise.
#[test]
fn draws_and_what_is_learned_are_those_of_the_definition() {
    const BATCH: usize = 12;
    for (n, k) in [(1, 2), (1, 5), (3, 2), (2, 3)] {
        let (structure, _, mut smooth) = problem(n, k, 8500 + (10 * n + k) as u64);
        smooth.offset = 1.5;
        let u = n * k;
        let (h, noise) = (random(BATCH * u, 1.0, 8501), gumbel(BATCH * 2 * u, 8502, k as u64));
        let network = random(3 * (u + 2) + 1, 0.7, 8503);
        let [eta, tau, epsilon] = [0.8f32, 0.7, 0.6];
        let relaxed = |network: &[f32]| {
            let units = network.len() / (u + 2);
            Kind::Relaxed { tau: tau as f64, network: doubles(network), units }
        };
        let rebar = Rebar::new(tau, eta, 0.01).unwrap();
        let relax = relax(&structure, [eta, tau], &network, 0.01);
        let direct = DirectRebar::new(epsilon, eta, 0.01).unwrap();
        let cases: [(&dyn Estimator<Categorical>, Kind); 3] =
            [(&rebar, relaxed(&[])), (&relax, relaxed(&network)), (&direct, Kind::Direct { epsilon: epsilon as f64 })];
        for (estimator, kind) in cases {
            let what = format!("{kind:?}, n = {n}, K = {k}");
            let reference = Reference { smooth: &smooth, k, eta: eta as f64, kind, wrong: Wrong::Nothing };
            let each = |reference: &Reference<'_>| -> Vec<Vec<f64>> {
                let row = |b: usize| reference.estimate(&doubles(&h[b * u..][..u]), &noise[b * 2 * u..][..2 * u]);
                (0..BATCH).map(row).collect()
            };
            let expected = each(&reference);
            let found = estimate(estimator, &structure, &h, &noise, &mut Answers::new(&structure, &smooth)).unwrap();
            for (g, e) in found.gradient.iter().zip(expected.iter().flatten()) {
                assert!((*g as f64 - e).abs() < 2e-4 * (1.0 + e.abs()), "{what}: {g} {e}");
            }
            let parameters: Vec<f64> = match &reference.kind {
                Kind::Relaxed { tau, network, .. } => [&[reference.eta, tau.ln()], &network[..]].concat(),
                Kind::Direct { .. } => vec![reference.eta],
            };
            let squares = |parameters: &[f64]| -> f64 {
                let mut at = reference.clone();
                at.eta = parameters[0];
                if let Kind::Relaxed { tau, network, .. } = &mut at.kind {
                    *tau = parameters[1].exp();
                    network.copy_from_slice(&parameters[2..]);
                }
                each(&at).iter().flatten().map(|g| g * g).sum()
            };
            let numeric = differences(&parameters, 1e-4, squares);
            assert!(numeric.iter().all(|d| d.abs() > 1e-4), "{what}: nothing to compare in {numeric:?}");
            let differenced = &mut Differenced(Answers::new(&structure, &smooth));
            let by_slopes = estimate(estimator, &structure, &h, &noise, differenced).unwrap();
            assert_eq!(by_slopes.gradient, found.gradient);
            for (sums, tolerance) in [(&found.sums, 1e-3), (&by_slopes.sums, 1e-2)] {
                assert_eq!((sums.len(), sums[sums.len() - 1]), (parameters.len() + 1, BATCH as f32));
                let scale = numeric.iter().map(|d| d.abs()).sum::<f64>() / numeric.len() as f64;
                for (i, (s, d)) in sums.iter().zip(&numeric).enumerate() {
                    let close = (*s as f64 - d).abs() < tolerance * (0.1 * scale + d.abs());
                    assert!(close, "{what}, parameter {i}: {s} {d}");
                }
            }
        }
    }
}

/// What the tests above are worth.
#[test]
fn wrong_controls_are_caught() {
    use Wrong::*;
    let (structure, h, mut smooth) = problem(1, 3, 8600);
    smooth.offset = 1.0;
    let expected = doubles(&exact(&structure, &h, &mut Answers::new(&structure, &smooth)));
    for kind in [Kind::Relaxed { tau: 0.5, network: vec![], units: 0 }, Kind::Direct { epsilon: 1.0 }] {
        for wrong in
            [Nothing, NoGradients, NoGradientGivenZ, NoGradientAtZeta, Unmoved, SameDraw, SameNoise, Sign, Twice]
        {
            let mutant = Reference { smooth: &smooth, k: 3, eta: 1.0, kind: kind.clone(), wrong };
            let draws = if wrong == Nothing { 200_000 } else { 60_000 };
            let found = mean_of(&mutant, &structure, &h, &mut Answers::new(&structure, &smooth), 1, draws, 8601);
            assert_eq!(is_within_four_standard_errors(&found, &expected), wrong == Nothing, "{kind:?}, {wrong:?}");
        }
    }
}

#[test]
fn the_decoder_follows_the_sample() {
    for n in [1, 3] {
        let structure: AnyStructure = Categorical::product(n, 3).unwrap().into();
        let h = random(structure.potentials(), 1.0, 8700);
        for (estimator, name) in built(&structure).iter().zip(NAMES) {
            assert_follows_q(name, (&**estimator, &structure), &h, 1, 8701);
        }
        assert_follows_q("rebar", (&*built(&structure)[0], &structure), &h, 3, 8702);
    }
}

/// Without a control it is REINFORCE; a hot code is always the same; a small epsilon makes MuProp.
#[test]
fn limits_are_what_they_should_be() {
    let (structure, h, smooth) = problem(2, 3, 8800);
    let (u, batch) = (6, 500);
    let (potentials, noise) = (h.repeat(batch), gumbel(batch * 2 * u, 8801, 0));
    let run = |estimator: &dyn Estimator<Categorical>, noise: &[f32]| {
        estimate(estimator, &structure, &potentials, noise, &mut Answers::new(&structure, &smooth)).unwrap().gradient
    };
    let first: Vec<f32> = noise.chunks(2 * u).flat_map(|noise| &noise[..u]).copied().collect();
    let plain = run(&Reinforce::new(), &first);
    let without = run(&Rebar::new(0.5, 0.0, 0.0).unwrap(), &noise);
    assert!(plain.iter().zip(&without).all(|(a, b)| (a - b).abs() < 1e-5));

    let q: Vec<f64> = h.chunks(3).flat_map(|h| softmax64(wide(h))).collect();
    let uniform = smooth.loss([1.0 / 3.0; 6].into_iter());
    let hot = run(&Rebar::new(100.0, 1.0, 0.0).unwrap(), &noise);
    let reference =
        Reference { smooth: &smooth, k: 3, eta: 1.0, kind: Kind::Direct { epsilon: 1.0 }, wrong: Wrong::Nothing };
    let phi = reference.phi(&doubles(&h));
    let muprop = run(&DirectRebar::new(0.01, 1.0, 0.0).unwrap(), &noise);
    let mut moved = 0;
    for (b, noise) in noise.chunks(2 * u).enumerate() {
        let mut z = vec![0; 2];
        gumbel::structure::perturbed_argmax(&structure, &h, &noise[..u], &mut z).unwrap();
        let code = code(&structure, &z);
        let loss = smooth.loss(wide(&code));
        let linear: f64 = phi.iter().zip(&code).map(|(p, c)| p * *c as f64).sum();
        let at_mean = smooth.loss(q.iter().copied());
        let mut differs = false;
        for i in 0..u {
            let score = code[i] as f64 - q[i];
            let found = hot[b * u + i] as f64;
            assert!((found - (loss - uniform) * score).abs() < 0.1, "{found} {}", (loss - uniform) * score);
            // phi has no mean under q.
            let expected = (loss - at_mean - linear) * score + q[i] * phi[i];
            differs |= (muprop[b * u + i] as f64 - expected).abs() > 0.02 * (1.0 + expected.abs());
        }
        moved += differs as usize;
    }
    // Where the second arg max is another one after all.
    assert!(moved < batch / 20, "{moved}");
}

#[test]
fn they_ask_what_they_say() {
    let structure = Categorical::product(2, 3).unwrap();
    let smooth = Smooth::new(6, 8850);
    let (h, noise) = (random(60, 1.0, 8851), gumbel(2 * 120, 8852, 0));
    let learning = |rate: f32| -> [Box<dyn Estimator<Categorical>>; 3] {
        [
            Box::new(Rebar::new(0.5, 1.0, rate).unwrap()),
            Box::new(Relax::new(&structure, 0.5, 1.0, rate, 4).unwrap()),
            Box::new(DirectRebar::new(0.5, 1.0, rate).unwrap()),
        ]
    };
    for (rate, tangents) in [(0.0, 0), (0.01, 40)] {
        for (estimator, name) in learning(rate).iter().zip(NAMES) {
            let mut oracle = Answers::new(&structure, &smooth);
            let found = estimate(&**estimator, &structure, &h, &noise, &mut oracle).unwrap();
            let relaxed = name != "direct-rebar";
            let expected = if relaxed { [20, 40, tangents] } else { [20, 10, 0] };
            assert_eq!(oracle.asked, expected, "{name}");
            assert_eq!(found.sums.is_empty(), rate == 0.0);
            let names: Vec<_> = estimator.measures().iter().map(|m| m.name).collect();
            assert_eq!(names, ["control_scale", "control_temperature"][..1 + relaxed as usize]);
            let means: Vec<_> = found.tallies[..names.len()].iter().map(|t| (t.mean() as f32, t.count)).collect();
            assert_eq!(means, [(1.0, 20.0), (0.5, 20.0)][..names.len()]);
            let asked = estimator.questions(&structure);
            assert_eq!(asked, Questions::LOSSES.and(Questions::SLOPES));
        }
        // Learning changes no estimate, nor does memory of other sizes.
        let mut memory = Memory::default();
        for (learned, fixed) in learning(0.01).iter().zip(&learning(0.0)) {
            let mut run = |estimator: &dyn Estimator<Categorical>, noise: &[f32], h: &[f32]| {
                let oracle = &mut Answers::new(&structure, &smooth);
                estimate_with(estimator, &structure, h, noise, oracle, &mut memory).unwrap().gradient
            };
            let few = run(&**learned, &noise[..12], &h[..6]);
            assert_eq!(run(&**learned, &noise, &h), run(&**fixed, &noise, &h));
            assert_eq!(run(&**fixed, &noise[..12], &h[..6]), few);
        }
    }
}

/// Potentials learn for some steps, and the control with them.
fn train(estimator: &mut dyn Estimator, h: &mut [f32], steps: std::ops::Range<u64>) {
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    let loss = Loss::new(&structure, 0.5, 8950);
    let mut oracle = Closure::new(&structure, |b, code| 5.0 + b as f32 + loss.of(code));
    let (samples, batch) = (2, h.len() / structure.potentials());
    for step in steps {
        estimator.begin(&Moment { step, kl_weight: 0.0 }).unwrap();
        let noise = gumbel(samples * batch * estimator.noise(&structure).unwrap(), 8951, step);
        let found = estimate(estimator, &structure, h, &noise, &mut oracle).unwrap();
        h.iter_mut().zip(&found.gradient).for_each(|(h, g)| *h -= 0.1 * g);
        estimator.learn(&found.sums);
    }
}

#[test]
fn what_controls_have_learned_survives_a_restart_to_the_bit() {
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for (i, name) in NAMES.into_iter().enumerate() {
        let build = || built(&structure).swap_remove(i);
        let start = vec![0.0; 8 * structure.potentials()];
        let (mut whole, mut h) = (build(), start.clone());
        train(&mut *whole, &mut h, 0..40);
        let (mut first, mut again) = (build(), start);
        train(&mut *first, &mut again, 0..15);
        let mut second = build();
        assert_ne!(second.state(), first.state());
        second.restore(&first.state()).unwrap();
        assert_eq!(bits(&second.state()), bits(&first.state()));
        train(&mut *second, &mut again, 15..40);
        assert_eq!((bits(&h), bits(&whole.state())), (bits(&again), bits(&second.state())), "{name}");
        let len = whole.state().len();
        assert_eq!(len, [7, 3 * (2 + 32 * 8 + 1) + 1, 4][i]);
        for wrong in [0, 1, len - 1, len + 1] {
            let error = second.restore(&vec![0.0; wrong]).unwrap_err();
            assert!(matches!(error, Error::Length { expected, found, .. } if (expected, found) == (len, wrong)));
        }
        assert_eq!(bits(&whole.state()), bits(&second.state()));
        // Nothing is learned from nothing, nor from what has overflown.
        let nothing = vec![0.0; second.sums()];
        second.learn(&nothing);
        for bad in [f32::NAN, f32::INFINITY, 1e30] {
            let mut sums = vec![1.0; second.sums()];
            sums[0] = bad;
            second.learn(&sums);
        }
        assert_eq!(bits(&whole.state()), bits(&second.state()));
    }
}

/// However hard it is pushed.
#[test]
fn the_temperature_stays_in_its_range() {
    for (push, expected) in [(1.0, 0.01), (-1.0, 100.0)] {
        let mut rebar = Rebar::new(0.5, 1.0, 0.5).unwrap();
        (0..100).for_each(|_| Estimator::<Categorical>::learn(&mut rebar, &[0.0, push, 1.0]));
        assert!((rebar.temperature() / expected - 1.0).abs() < 1e-5, "{}", rebar.temperature());
    }
}

#[test]
fn what_controls_cannot_have_is_an_error() {
    for (made, expected) in [
        (Rebar::new(0.0, 1.0, 0.1).map(drop), "control-temperature = 0: expected a number from 0.01 to 100"),
        (Rebar::new(f32::NAN, 1.0, 0.1).map(drop), "control-temperature = NaN: expected a number from 0.01 to 100"),
        (Rebar::new(0.5, f32::INFINITY, 0.1).map(drop), "control-scale = inf: expected a finite number"),
        (Rebar::new(0.5, 1.0, -0.1).map(drop), "control-lr = -0.1: expected a finite number, 0 or greater"),
        (DirectRebar::new(0.0, 1.0, 0.1).map(drop), "epsilon = 0: expected a finite number greater than 0"),
        (DirectRebar::new(0.5, f32::NAN, 0.1).map(drop), "control-scale = NaN: expected a finite number"),
        (DirectRebar::new(0.5, 1.0, f32::NAN).map(drop), "control-lr = NaN: expected a finite number, 0 or greater"),
    ] {
        assert_eq!(made.unwrap_err().to_string(), expected);
    }
    let structure = Categorical::new(2).unwrap();
    for units in [0, 5000] {
        let error = Relax::new(&structure, 0.5, 1.0, 0.1, units).unwrap_err().to_string();
        assert_eq!(error, format!("control-units = {units}: expected a whole number from 1 to 4096"));
    }
    let all = estimators();
    for name in NAMES {
        for setting in all.get(name).unwrap().settings().iter().filter(|s| s.name.starts_with("control-")) {
            for bad in ["x", "inf", "NaN", "-inf"] {
                let error = setting.parse(bad).unwrap_err().to_string();
                assert!(error.starts_with(&format!("{} = {bad}: expected ", setting.name)), "{error}");
            }
        }
    }

    // Codes of another width than the network's.
    let relax = Relax::new(&structure, 0.5, 1.0, 0.1, 3).unwrap();
    let three = Categorical::new(3).unwrap();
    let error = estimate(&relax, &three, &[0.0; 3], &[0.0; 6], &mut Closure::new(&three, |_, _| 1.0)).unwrap_err();
    assert!(matches!(error, Error::Length { expected: 2, found: 3, .. }), "{error}");

    let others: [AnyStructure; 3] =
        [Pairwise::new(3).unwrap().into(), Chain::new(3, 2).unwrap().into(), Subset::new(4, 2).unwrap().into()];
    let two: AnyStructure = Categorical::product(2, 2).unwrap().into();
    for (estimator, name) in built(&two).iter().zip(NAMES) {
        for other in &others {
            let entry = all.get(name).unwrap();
            let refused = entry.build(&Settings::defaults(entry.settings()), other).err().unwrap();
            assert_eq!(refused.to_string(), format!("{name} needs variables that are independent of each other"));
            let (h, noise) = (vec![0.0; other.potentials()], vec![0.0; 2 * other.unary()]);
            let error = estimate(&**estimator, other, &h, &noise, &mut Closure::new(other, |_, _| 1.0));
            assert!(matches!(error, Err(Error::Coupled { .. })));
        }
        for loss in [f32::NAN, f32::INFINITY] {
            let oracle = &mut Closure::new(&two, |b, _| if b == 1 { loss } else { 1.0 });
            let error = estimate(&**estimator, &two, &[0.0; 8], &[0.0; 16], oracle).unwrap_err().to_string();
            assert!(error.starts_with("example 1 of the batch: loss 0 is "), "{error}");
        }
        // A loss that is no number at relaxed codes alone.
        let oracle = &mut Closure::new(&two, |_, code| if code.contains(&1.0) { 1.0 } else { f32::NAN });
        assert!(estimate(&**estimator, &two, &[0.0; 4], &[0.3; 8], oracle).is_err());
        let oracle = &mut Closure::new(&two, |_, code| 3.0 * code[1] + code[3] * code[1]);
        assert!(estimate(&**estimator, &two, &[0.0, 1.0, f32::NAN, 0.0], &[0.0; 8], oracle).is_err());
        assert!(estimate(&**estimator, &two, &[f32::NEG_INFINITY; 4], &[0.0; 8], oracle).is_err());
        assert!(estimate(&**estimator, &two, &[0.0; 4], &[0.0; 4], oracle).is_err());
        assert!(estimate(&**estimator, &two, &[], &[], oracle).unwrap().gradient.is_empty());
    }
}

/// A value that is forbidden is not drawn, and nothing is learned about it; potentials may be as large as they like.
#[test]
fn forbidden_values_have_no_gradient() {
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    let oracle = &mut Closure::new(&structure, |_, code| 3.0 * code[0] + code[2] * code[3] + 2.0 * code[1] * code[4]);
    let (h, noise) = ([0.3, f32::NEG_INFINITY, -0.2, 0.1, 0.5, -0.7].repeat(100), gumbel(1200, 8960, 0));
    for estimator in built(&structure) {
        let found = estimate(&*estimator, &structure, &h, &noise, oracle).unwrap();
        assert!(found.gradient.chunks(6).all(|g| g[1] == 0.0) && found.gradient.iter().any(|g| *g != 0.0));
        assert!(found.gradient.iter().chain(&found.sums).all(|g| g.is_finite()));
        let large: Vec<f32> = random(600, 1.0, 8961).iter().map(|h| 300.0 * h).collect();
        let found = estimate(&*estimator, &structure, &large, &noise, oracle).unwrap();
        assert!(found.gradient.iter().chain(&found.sums).all(|g| g.is_finite()));
    }
}

/// Second derivatives from slopes, of an oracle that has nothing better.
#[test]
fn tangents_are_differences_of_slopes() {
    let (structure, _, smooth) = problem(2, 3, 8970);
    let (codes, of) = (random(30, 0.3, 8971), [0, 1, 2, 1, 0]);
    let mut along = random(30, 1.0, 8972);
    along[6..12].fill(0.0);
    along[12..18].iter_mut().for_each(|d| *d *= 1e-6);
    let (mut own, mut found, mut through) = (vec![0.0; 30], vec![7.0; 30], vec![0.0; 30]);
    Answers::new(&structure, &smooth).tangents(&of, &codes, &along, &mut own).unwrap();
    let mut differenced = Differenced(Answers::new(&structure, &smooth));
    differenced.tangents(&of, &codes, &along, &mut found).unwrap();
    assert_eq!(differenced.0.asked, [0, 10, 0]);
    for (row, (own, found)) in own.chunks(6).zip(found.chunks(6)).enumerate() {
        let scale = own.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        assert_eq!(scale == 0.0, row == 1);
        assert!(own.iter().zip(found).all(|(a, b)| (a - b).abs() <= 1e-3 * scale), "{own:?} {found:?}");
    }
    // What stands between does not hide what an oracle has.
    let mut answers = Answers::new(&structure, &smooth);
    Recorder::new(&structure, &mut answers, 1, 3).tangents(&of, &codes, &along, &mut through).unwrap();
    assert_eq!((through, answers.asked), (own, [0, 0, 5]));
    for (c, d, t) in [(29, 29, 29), (30, 29, 30), (30, 30, 29), (0, 0, 0)] {
        let error = differenced.tangents(&of, &codes[..c], &along[..d], &mut found[..t]).unwrap_err();
        assert!(matches!(error, Error::Length { .. }), "{error}");
    }
    differenced.tangents(&[], &[], &[], &mut []).unwrap();
}
