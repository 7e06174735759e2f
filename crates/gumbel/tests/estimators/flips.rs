//! The search by exact flips against its definition, by brute force.

use crate::common::*;
use gumbel::estimator::{Direct, Flips, Memory, Sides, estimate_with};
use gumbel::oracle::Closure;
use gumbel::structure::{AnyStructure, Categorical, Chain, Pairwise, Structure, Supermodular, Tree};

const BATCH: usize = 120;
/// What counts as better, in nats.
const ROUNDING: f64 = 1e-3;

fn structures() -> Vec<AnyStructure> {
    vec![
        Categorical::product(4, 3).unwrap().into(),
        Categorical::binary(6).unwrap().into(),
        Categorical::new(5).unwrap().into(),
        Pairwise::new(5).unwrap().into(),
        Supermodular::new(5).unwrap().into(),
        Chain::new(4, 3).unwrap().into(),
        Tree::new(4, 2, &[(0, 1), (0, 2), (2, 3)]).unwrap().into(),
    ]
}

/// One of the examples, with its own potentials, noise and loss.
struct Example<'a> {
    structure: &'a AnyStructure,
    perturbed: Vec<f32>,
    /// The same with the KL inside.
    kept: Vec<f32>,
    epsilon: f32,
    loss: &'a Loss,
}

/// What the definition says of an example.
struct Expected {
    star: Vec<u32>,
    separable: Vec<u32>,
    moved: Vec<u32>,
    gain: f64,
    /// Whether the search began at z*, and how many steps it took.
    from_star: bool,
    steps: usize,
}

impl Example<'_> {
    fn perturbed(&self, z: &[u32]) -> f64 {
        self.structure.score(&self.perturbed, z)
    }

    /// `(1 - eps kl) h + gamma`.
    fn kept(&self, z: &[u32]) -> f64 {
        self.structure.score(&self.kept, z)
    }

    /// `(1 - eps kl) h + gamma - eps loss`.
    fn value(&self, z: &[u32]) -> f64 {
        self.kept(z) - (self.epsilon * self.loss.at(self.structure, z)) as f64
    }

    /// All assignments that differ in one variable.
    fn around(&self, z: &[u32]) -> Vec<Vec<u32>> {
        let values = (self.structure.unary() / self.structure.variables()) as u32;
        let change = |i: usize, k: u32| {
            let mut z = z.to_vec();
            z[i] = k;
            z
        };
        let all = (0..z.len()).flat_map(|i| (0..values).map(move |k| (i, k)));
        all.filter(|(i, k)| z[*i] != *k).map(|(i, k)| change(i, k)).collect()
    }

    fn solve(&self) -> Expected {
        let star = enumerated_argmax(self.structure, |z| self.perturbed(z)).0;
        // The separable approximation: every variable's change counts as if it were alone.
        let own = self.loss.at(self.structure, &star);
        let alone = |z: &[u32]| -> f64 {
            let one = |i: usize| {
                let mut one = star.clone();
                one[i] = z[i];
                (self.loss.at(self.structure, &one) - own) as f64
            };
            (0..z.len()).map(one).sum()
        };
        let objective = |z: &[u32]| self.kept(z) - self.epsilon as f64 * alone(z);
        let separable = enumerated_argmax(self.structure, objective).0;
        let from_star = self.value(&star) - self.value(&separable) > ROUNDING;
        let mut moved = if from_star { star.clone() } else { separable.clone() };
        let mut steps = 0;
        loop {
            let now = self.value(&moved);
            let best = self.around(&moved).into_iter().map(|z| (self.value(&z), z)).max_by(|a, b| a.0.total_cmp(&b.0));
            match best {
                Some((value, z)) if value > now + ROUNDING => moved = z,
                _ => break,
            }
            steps += 1;
        }
        let gain = self.value(&moved) - self.value(&separable);
        Expected { star, separable, moved, gain, from_star, steps }
    }
}

#[test]
fn every_draw_of_the_flips_is_its_definition() {
    every_draw_is_its_definition(1.5, 0.0);
}

/// The scores of the second arg max, and of the search for it, are those of `(1 - eps kl) h`.
#[test]
fn every_draw_of_the_flips_with_the_kl_inside_is_its_definition() {
    every_draw_is_its_definition(0.9, 0.8);
}

fn every_draw_is_its_definition(epsilon: f32, kl: f32) {
    let flips = Flips::new(Direct::new(epsilon).unwrap().with_kl(kl));
    // Over all structures: how often it began at z*, took more than one step, ended in another place than the best one.
    let mut seen = [0; 3];
    for (i, structure) in structures().iter().enumerate() {
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(structure, (1000 * i + b) as u64)).collect();
        let noise = gumbel(BATCH * u, 11, i as u64);
        let losses: Vec<Loss> = (0..BATCH).map(|b| Loss::new(structure, 1.0, 5000 + 2 * b as u64)).collect();
        let (oracle, mut memory) = (&mut Closure::new(structure, |b, code| losses[b].of(code)), Memory::default());
        let found = estimate_with(&flips, structure, &h, &noise, oracle, &mut memory).unwrap();
        let (mut zeros, mut improved, mut gains) = (0.0, 0.0, 0.0);
        for b in 0..BATCH {
            let with_noise = |keep: f32| {
                let mut row: Vec<f32> = h[b * p..][..p].iter().map(|h| keep * h).collect();
                row.iter_mut().zip(&noise[b * u..][..u]).for_each(|(h, g)| *h += g);
                row
            };
            let (perturbed, kept) = (with_noise(1.0), with_noise(1.0 - epsilon * kl));
            let example = Example { structure, perturbed, kept, epsilon, loss: &losses[b] };
            let expected = example.solve();
            let moved = &memory.moved[b * n..][..n];
            let what = format!("{structure:?}, example {b}");
            assert_eq!(memory.assignments[b * n..][..n], expected.star, "{what}");
            assert_eq!(moved, expected.moved, "{what}");

            // Never worse than the better of both starts, and nothing around it is better.
            let value = example.value(moved);
            let starts = [&expected.star, &expected.separable].map(|z| example.value(z));
            assert!(value >= starts[0].max(starts[1]) - ROUNDING, "{what}: {value} {starts:?}");
            assert!(example.around(moved).iter().all(|z| example.value(z) <= value + ROUNDING), "{what}");

            let mut gradient = vec![0.0; p];
            structure.add_statistics(&expected.star, 1.0 / epsilon, &mut gradient);
            structure.add_statistics(moved, -1.0 / epsilon, &mut gradient);
            let close = found.gradient[b * p..][..p].iter().zip(&gradient).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "{what}: {:?} {gradient:?}", &found.gradient[b * p..][..p]);
            zeros += (moved == expected.star) as u8 as f64;
            if expected.gain > ROUNDING {
                improved += 1.0;
                gains += expected.gain;
            }
            seen[0] += expected.from_star as usize;
            seen[1] += (expected.steps > 1) as usize;
            seen[2] += (enumerated_argmax(structure, |z| example.value(z)).1 > value + ROUNDING) as usize;
        }
        let [rate, moves, gain, ..] = found.tallies;
        assert_eq!((rate.sum, rate.count), (zeros, BATCH as f64), "{structure:?}");
        assert_eq!((moves.sum, moves.count, gain.count), (improved, BATCH as f64, improved), "{structure:?}");
        assert!((gain.sum - gains).abs() < 1e-2, "{structure:?}: {} {gains}", gain.sum);
        // For one variable the separable approximation is the loss itself.
        assert_eq!(improved == 0.0, n == 1, "{structure:?}");
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

/// Examples do not know of each other: neither how many they are, nor who else still moves.
#[test]
fn a_batch_is_searched_as_one_example_at_a_time() {
    let flips = Flips::new(Direct::new(1.5).unwrap());
    for (i, structure) in structures().iter().enumerate() {
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(structure, (2000 * i + b) as u64)).collect();
        let noise = gumbel(2 * BATCH * u, 12, i as u64); // two samples
        let losses: Vec<Loss> = (0..BATCH).map(|b| Loss::new(structure, 1.0, 7000 + 2 * b as u64)).collect();
        let mut memory = Memory::default();
        let all = {
            let oracle = &mut Closure::new(structure, |b, code| losses[b].of(code));
            estimate_with(&flips, structure, &h, &noise, oracle, &mut memory).unwrap()
        };
        let (moved, mut single) = (memory.moved.clone(), Memory::default());
        let mut tallies = [0.0; 6];
        for b in 0..BATCH {
            let rows = [0, 1].map(|m| &noise[(m * BATCH + b) * u..][..u]).concat();
            let oracle = &mut Closure::new(structure, |_, code| losses[b].of(code));
            let one = estimate_with(&flips, structure, &h[b * p..][..p], &rows, oracle, &mut single).unwrap();
            assert_eq!(one.gradient, all.gradient[b * p..][..p], "{structure:?}, example {b}");
            assert_eq!(single.moved, moved[b * n..][..n], "{structure:?}, example {b}");
            let now = one.tallies[..3].iter().flat_map(|t| [t.sum, t.count]);
            tallies.iter_mut().zip(now).for_each(|(sum, t)| *sum += t);
        }
        for (one, all) in tallies.iter().zip(all.tallies[..3].iter().flat_map(|t| [t.sum, t.count])) {
            assert!((one - all).abs() < 1e-9 * (1.0 + all.abs()), "{structure:?}: {one} {all}");
        }
    }
}

/// Flips compare true losses to one side, whatever `direct` they are made of.
#[test]
fn flips_are_one_sided() {
    let structure: AnyStructure = Categorical::binary(3).unwrap().into();
    let direct = Direct::new(0.8).unwrap().with_kl(0.7);
    let (h, noise) = (random(6, 1.0, 90), gumbel(6, 91, 0));
    let loss = Loss::new(&structure, 1.0, 92);
    let run = |flips: Flips| {
        let oracle = &mut Closure::new(&structure, |_, code| loss.of(code));
        estimate_with(&flips, &structure, &h, &noise, oracle, &mut Memory::default()).unwrap()
    };
    assert_eq!(run(Flips::new(direct.sides(Sides::Two))), run(Flips::new(direct)));
}
