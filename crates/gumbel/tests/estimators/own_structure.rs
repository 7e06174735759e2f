//! A structure of one's own, through [`AnyStructure`]: windows of neighbouring places on a ring.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Direct, DirectJoint, Estimator, Exact, Marginal, Memory, Perturbation, estimate_with};
use gumbel::oracle::Closure;
use gumbel::structure::{AnyStructure, Code, Maximum, Structure, Sums};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// One window of `length` places among `places` on a ring; its assignment is where it begins.
#[derive(Debug, Clone, Copy)]
struct Window {
    places: usize,
    length: usize,
}

impl Window {
    fn cover(self, start: usize) -> impl Iterator<Item = usize> {
        (0..self.length).map(move |i| (start + i) % self.places)
    }

    fn total(self, potentials: &[f32], start: usize) -> f64 {
        self.cover(start).map(|u| potentials[u] as f64).sum()
    }
}

impl Structure for Window {
    type Scratch = ();

    fn potentials(&self) -> usize {
        self.places
    }

    fn unary(&self) -> usize {
        self.places
    }

    fn variables(&self) -> usize {
        1
    }

    fn ln_states(&self) -> f64 {
        (self.places as f64).ln()
    }

    fn states(&self) -> Option<usize> {
        Some(self.places)
    }

    fn state(&self, index: usize, assignment: &mut [u32]) {
        assignment[0] = index as u32;
    }

    fn code(&self) -> Code {
        Code::Indicators
    }

    fn scratch(&self) {}

    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], _: &mut ()) -> Result<Maximum, Error> {
        if let Some(index) = potentials.iter().position(|h| h.is_nan()) {
            return Err(Error::NotANumber { what: "potential", index });
        }
        let (mut best, mut value) = (0, f64::NEG_INFINITY);
        for start in 0..self.places {
            let total = self.total(potentials, start);
            if total > value {
                (best, value) = (start, total);
            }
        }
        assignment[0] = best as u32;
        Ok(Maximum::proved(value))
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        self.cover(assignment[0] as usize).for_each(|u| out[u] += scale);
    }
}

impl Sums for Window {
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        let scores: Vec<f64> = (0..self.places).map(|s| self.total(potentials, s)).collect();
        marginals.fill(0.0);
        for (s, q) in softmax64(scores.iter().copied()).into_iter().enumerate() {
            self.add_statistics(&[s as u32], q as f32, marginals);
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln())
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        let q = softmax64((0..self.places).map(|s| self.total(potentials, s)));
        let kl = self.ln_states() + q.iter().map(|q| q * q.ln()).sum::<f64>();
        for (s, q) in q.iter().enumerate() {
            let weight = q * (q.ln() + self.ln_states() - kl);
            self.add_statistics(&[s as u32], scale * weight as f32, gradient);
        }
        Ok(kl)
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        let mut left = generator.next_u32() as f64 / 2f64.powi(32);
        let q = softmax64((0..self.places).map(|s| self.total(potentials, s)));
        assignment[0] = (self.places - 1) as u32;
        for (s, q) in q.iter().enumerate() {
            if left < *q {
                assignment[0] = s as u32;
                break;
            }
            left -= q;
        }
        Ok(())
    }
}

const WINDOW: Window = Window { places: 7, length: 3 };
const BATCH: usize = 14;

/// Every example wants the window that begins at its own place, and pays for each place that is missed or covered in
/// vain.
fn loss(b: usize, code: &[f32]) -> f32 {
    let wanted = |u: usize| (u + WINDOW.places - b % WINDOW.places) % WINDOW.places < WINDOW.length;
    code.iter().enumerate().map(|(u, c)| (c - wanted(u) as u8 as f32).powi(2)).sum()
}

/// Potentials after some steps from nothing, and how many examples have found their window.
fn train<S: Structure>(structure: &S, estimator: &dyn Estimator<S>) -> (Vec<f32>, usize) {
    let (mut h, mut memory) = (vec![0.0; BATCH * structure.potentials()], Memory::default());
    let mut oracle = Closure::new(structure, loss);
    let width = estimator.noise(structure).unwrap();
    for step in 0..200 {
        let noise = gumbel(BATCH * width, 230, step);
        let found = estimate_with(estimator, structure, &h, &noise, &mut oracle, &mut memory).unwrap();
        h.iter_mut().zip(&found.gradient).for_each(|(h, g)| *h -= 0.3 * g);
    }
    let (mut z, mut scratch) = ([0], structure.scratch());
    let right = h.chunks(structure.potentials()).enumerate().filter(|(b, h)| {
        structure.argmax(h, &mut z, &mut scratch).unwrap();
        z[0] as usize == b % WINDOW.places
    });
    let right = right.count();
    (h, right)
}

#[test]
fn a_structure_of_ones_own_trains_with_and_without_sums() {
    let with = AnyStructure::with_sums(WINDOW);
    let without = AnyStructure::without_sums(WINDOW, "windows", "nobody has written them");
    let direct = Direct::new(0.5).unwrap();
    fn all<S: Structure>(direct: Direct) -> Vec<(&'static str, Box<dyn Estimator<S>>)> {
        vec![
            ("direct", Box::new(direct)),
            ("joint", Box::new(DirectJoint::new(direct, Perturbation::Unary))),
            ("full noise", Box::new(DirectJoint::new(direct, Perturbation::Full))),
            ("exact", Box::new(Exact)),
            ("marginal", Box::new(Marginal)),
        ]
    }
    for ((name, bare), (_, any)) in all::<Window>(direct).iter().zip(all::<AnyStructure>(direct)) {
        let (h, right) = train(&WINDOW, &**bare);
        assert_eq!(right, BATCH, "{name}");
        // Behind the table of functions it is the same structure.
        assert_eq!(train(&with, &*any), (h.clone(), right), "{name}");
        assert_eq!(train(&without, &*any), (h, right), "{name}");
    }
}

#[test]
fn its_sums_are_its_own_or_an_error_with_its_words() {
    let with = AnyStructure::with_sums(WINDOW);
    let without = AnyStructure::without_sums(WINDOW, "windows", "nobody has written them");
    let h = random(WINDOW.places, 1.0, 240);
    assert!(with.has_sums() && !without.has_sums());
    let mut found = vec![0.0; WINDOW.places];
    with.marginals(&h, &mut found).unwrap();
    let expected = marginals(&WINDOW, &h, &[0.0; WINDOW.places], 0.0);
    assert!(distance(&expected, &found) < 1e-6);

    // The gradient of the KL, by differences.
    let mut gradient = vec![0.0; WINDOW.places];
    with.kl_to_uniform(&h, 1.0, &mut gradient).unwrap();
    for i in 0..WINDOW.places {
        let at = |d: f32| {
            let mut x = h.clone();
            x[i] += d;
            with.kl_to_uniform(&x, 0.0, &mut [0.0; WINDOW.places]).unwrap()
        };
        let numeric = (at(1.0 / 64.0) - at(-1.0 / 64.0)) * 32.0;
        assert!((numeric - gradient[i] as f64).abs() < 1e-3, "{numeric} {}", gradient[i]);
    }

    // The covariance along the potentials is that gradient: by default, all states are enumerated.
    let mut along = vec![0.5; WINDOW.places];
    with.covariance(&h, &h, -2.0, &mut along).unwrap();
    assert!(along.iter().zip(&gradient).all(|(a, g)| (a - (0.5 - 2.0 * g)).abs() < 1e-5), "{along:?} {gradient:?}");

    // Samples have its marginals.
    let (mut generator, draws) = (ChaCha8Rng::seed_from_u64(1), 20_000);
    let mut z = vec![0; draws];
    with.samples(&h, &mut generator, &mut z).unwrap();
    let mut mean = vec![0.0; WINDOW.places];
    z.iter().for_each(|z| WINDOW.add_statistics(&[*z], 1.0 / draws as f32, &mut mean));
    assert!(distance(&expected, &mean) < 0.02, "{mean:?} {expected:?}");

    assert!(matches!(without.covariance(&h, &h, 1.0, &mut along), Err(Error::NoSums { .. })));
    let message = without.log_partition(&h).unwrap_err().to_string();
    assert_eq!(message, "sums over windows are not tractable: nobody has written them");
}
