//! Coupled variables, by enumeration.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{
    Direct, DirectJoint, Estimator, Marginal, Memory, Perturbation, Piece, Search, Sides, estimate, estimate_with,
    estimators,
};
use gumbel::noise::EULER_GAMMA;
use gumbel::oracle::{Closure, Kept, Oracle, Questions};
use gumbel::registry::{Entry, Settings};
use gumbel::structure::{AnyStructure, Code, Maximum, Structure, perturbed_argmax};
use std::ops::Range;

#[test]
fn with_full_noise_the_mean_of_direct_is_a_difference_of_marginals() {
    let epsilon = 0.6;
    for (i, structure) in structured().iter().enumerate() {
        let h = potentials(structure, 500 + i as u64);
        let loss = Loss::new(structure, 0.5, 600 + 2 * i as u64);
        let oracle = &mut Table::of(structure, |code| loss.of(code));
        for (sides, back) in [(Sides::One, 0.0), (Sides::Two, epsilon)] {
            let direct = Direct::new(epsilon as f32).unwrap().sides(sides);
            let joint = DirectJoint::new(direct, Perturbation::Full);
            let found = mean_of(&joint, structure, &h, oracle, 1, 800_000, 700 + i as u64);
            let at = |shift| marginals(structure, &h, oracle.all(), shift);
            let ends = at(back).into_iter().zip(at(-epsilon));
            let expected: Vec<f64> = ends.map(|(a, b)| (a - b) / (back + epsilon)).collect();
            assert!(expected.iter().any(|e| e.abs() > 0.02), "{structure:?}: nothing to compare");
            assert_within_four_standard_errors(&format!("{structure:?}, {sides:?}"), &found, &expected);
        }
    }
}

/// As epsilon vanishes, the difference of marginals is the derivative of the expected loss.
#[test]
fn exact_is_the_limit_of_the_difference_of_marginals() {
    for (i, structure) in structured().iter().enumerate() {
        let h = potentials(structure, 520 + i as u64);
        let loss = Loss::new(structure, 0.5, 620 + 2 * i as u64);
        let table = Table::of(structure, |code| loss.of(code)).all().to_vec();
        let mut oracle = Closure::new(structure, |_, code| loss.of(code));
        let gradient = exact(structure, &h, &mut oracle);
        let step = 1e-4;
        let ends = marginals(structure, &h, &table, step).into_iter().zip(marginals(structure, &h, &table, -step));
        for (g, (a, b)) in gradient.iter().zip(ends) {
            assert!((*g as f64 - (a - b) / (2.0 * step)).abs() < 1e-4, "{structure:?}: {g} {}", (a - b) / (2.0 * step));
        }
        let [Kept::States(weights)] = &oracle.followed[..] else { panic!("{:?}", oracle.followed) };
        assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);

        // Marginal: the encoder's gradient is a difference of marginals, the posterior's is that of the losses alone.
        let gradient = estimate(&Marginal, structure, &h, &[], &mut oracle).unwrap().gradient;
        let q = marginals(structure, &h, &table, 0.0);
        let posterior = marginals(structure, &vec![0.0; h.len()], &table, -1.0);
        for ((g, q), p) in gradient.iter().zip(q).zip(posterior) {
            assert!((*g as f64 - (q - p)).abs() < 1e-5, "{structure:?}: {g} {}", q - p);
        }
    }
}

/// A structure that forgets where its solver stood: whatever is asked is solved from scratch.
#[derive(Debug, Clone)]
struct Cold(AnyStructure);

impl Structure for Cold {
    type Scratch = ();

    fn potentials(&self) -> usize {
        self.0.potentials()
    }

    fn unary(&self) -> usize {
        self.0.unary()
    }

    fn variables(&self) -> usize {
        self.0.variables()
    }

    fn ln_states(&self) -> f64 {
        self.0.ln_states()
    }

    fn states(&self) -> Option<usize> {
        self.0.states()
    }

    fn state(&self, index: usize, assignment: &mut [u32]) {
        self.0.state(index, assignment)
    }

    fn code(&self) -> Code {
        self.0.code()
    }

    fn block(&self, variable: usize) -> Option<Range<usize>> {
        self.0.block(variable)
    }

    fn scratch(&self) {}

    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], _: &mut ()) -> Result<Maximum, Error> {
        self.0.argmax(potentials, assignment, &mut self.0.scratch())
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        self.0.add_statistics(assignment, scale, out)
    }
}

/// Every draw of direct with unary noise follows its definition, from a solver that starts at z* or from scratch; with
/// the joint loss likewise. For linear losses both are the same. With the KL inside, the second arg max, and that to
/// the other side, are of scaled scores; z* is not.
#[test]
fn with_unary_noise_every_draw_is_the_definition() {
    const BATCH: usize = 150;
    let epsilon = 0.7;
    for (i, structure) in structured().iter().enumerate() {
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let cases = [
            (Sides::One, 0.5, 0.0),
            (Sides::Two, 0.5, 0.0),
            (Sides::One, 0.0, 0.0),
            (Sides::One, 0.5, 0.9),
            (Sides::Two, 0.5, 0.9),
        ];
        for (sides, curvature, kl) in cases {
            let direct = Direct::new(epsilon).unwrap().sides(sides).with_kl(kl);
            let loss = Loss::new(structure, curvature, 800 + i as u64);
            let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(structure, (1000 * i + b) as u64)).collect();
            let noise = gumbel(BATCH * u, 3, i as u64);
            fn run<S: Structure>(
                estimator: &dyn Estimator<S>,
                structure: &S,
                (h, noise): (&[f32], &[f32]),
                loss: &Loss,
            ) -> (Vec<u32>, Vec<f32>, Vec<u32>, f64) {
                let (oracle, mut memory) = (&mut Table::of(structure, |code| loss.of(code)), Memory::default());
                let found = estimate_with(estimator, structure, h, noise, oracle, &mut memory).unwrap();
                assert_eq!(found.tallies[0].count, BATCH as f64);
                (memory.assignments, found.gradient, memory.moved, found.tallies[0].sum)
            }
            let inputs = (&h[..], &noise[..]);
            let (z, gradient, moved, unmoved) = run(&direct, structure, inputs, &loss);
            let cold = run(&direct, &Cold(structure.clone()), inputs, &loss);
            assert_eq!((&z, &gradient, &moved, unmoved), (&cold.0, &cold.1, &cold.2, cold.3), "{structure:?}");

            let joint = DirectJoint::new(direct, Perturbation::Unary);
            let (same, _, joint, _) = run(&joint, structure, inputs, &loss);
            assert_eq!(z, same);
            let (mut differ, mut equal) = (0, 0);
            for b in 0..BATCH {
                let row = |x: &[f32], width: usize| x[b * width..(b + 1) * width].to_vec();
                let (star, h, gamma) = (&z[b * n..(b + 1) * n], row(&h, p), row(&noise, u));
                let losses = neighbours(structure, &loss, star);
                let perturbed = |shift: f32, z: &[u32]| {
                    let (code, keep) = (code(structure, z), (1.0 + shift * kl) as f64);
                    keep * structure.score(&h, z) + code.iter().zip(&gamma).map(|(c, g)| (c * g) as f64).sum::<f64>()
                };
                let separable =
                    |z: &[u32]| code(structure, z).iter().zip(&losses).map(|(c, l)| (c * l) as f64).sum::<f64>();
                assert!(perturbed(0.0, star) > enumerated_argmax(structure, |z| perturbed(0.0, z)).1 - 1e-5);
                let objective = |shift: f32, z: &[u32]| perturbed(shift, z) + shift as f64 * separable(z);
                let at = |shift: f32| enumerated_argmax(structure, |z| objective(shift, z)).0;
                let span = if sides == Sides::One { epsilon } else { 2.0 * epsilon };
                let from = if sides == Sides::One { star.to_vec() } else { at(epsilon) };
                let to = at(-epsilon);
                equal += (from == to) as usize;
                let mut expected = vec![0.0; p];
                structure.add_statistics(&from, 1.0 / span, &mut expected);
                structure.add_statistics(&to, -1.0 / span, &mut expected);
                assert!(
                    row(&gradient, p).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5),
                    "{structure:?} {b}"
                );
                assert_eq!(moved[b * n..(b + 1) * n], to, "{structure:?} {b}");

                let full = |z: &[u32]| perturbed(-epsilon, z) - (epsilon * loss.at(structure, z)) as f64;
                let best = enumerated_argmax(structure, full).1;
                assert!(full(&joint[b * n..(b + 1) * n]) > best - 1e-4);
                differ += (joint[b * n..(b + 1) * n] != to) as usize;
            }
            assert_eq!(unmoved, equal as f64, "{structure:?}");
            match curvature {
                0.0 => assert_eq!(differ, 0, "{structure:?}"),
                _ => assert!(differ > 0, "{structure:?}: the approximation is never wrong"),
            }
        }
    }
}

/// Who says nothing of moves has those of one-hot rows by its scores; where there are none, the registry refuses.
#[test]
fn without_moves_of_its_own_a_structure_is_searched_by_its_scores_or_refused() {
    const BATCH: usize = 50;
    let entries = estimators();
    let entry = entries.get("direct").unwrap();
    let joint = entry.settings().iter().find(|s| s.name == "joint").unwrap();
    let settings = Settings::defaults(entry.settings()).with(joint, "search").unwrap();
    for (i, structure) in structured().iter().enumerate() {
        let cold = Cold(structure.clone());
        let one_hot = structure.code() != Code::Indicators;
        assert_eq!((structure.has_moves(), cold.has_moves()), (true, one_hot), "{structure:?}");
        match entry.build(&settings, &AnyStructure::without_sums(cold.clone(), "cold structures", "they forget")) {
            Ok(_) => assert!(one_hot, "{structure:?} is not refused"),
            Err(e) => assert!(!one_hot && e.to_string().contains("lists no moves"), "{structure:?}: {e}"),
        }
        if !one_hot {
            continue;
        }
        let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(structure, (1000 * i + b) as u64)).collect();
        let noise = gumbel(BATCH * structure.unary(), 8, i as u64);
        let loss = Loss::new(structure, 0.5, 860 + 2 * i as u64);
        let search = Search::new(Direct::new(1.5).unwrap().with_kl(0.5));
        let own = estimate(&search, structure, &h, &noise, &mut Closure::new(structure, |_, code| loss.of(code)));
        let by_score = estimate(&search, &cold, &h, &noise, &mut Closure::new(&cold, |_, code| loss.of(code)));
        let (own, by_score) = (own.unwrap(), by_score.unwrap());
        assert!(own.gradient.iter().any(|g| *g != 0.0));
        assert_eq!(own.gradient, by_score.gradient, "{structure:?}");
    }
}

/// The losses around an assignment, by their definition.
fn neighbours(structure: &AnyStructure, loss: &Loss, z: &[u32]) -> Vec<f32> {
    let code = code(structure, z);
    let mut changed = vec![];
    structure.code().for_each_change(&code, |change| {
        let mut next = code.clone();
        change.off.into_iter().for_each(|u| next[u] = 0.0);
        change.on.into_iter().for_each(|u| next[u] = 1.0);
        changed.push(loss.of(&next));
    });
    let mut losses = vec![0.0; code.len()];
    structure.code().neighbour_losses(&code, loss.of(&code), &changed, &mut losses);
    losses
}

/// Draws, and keeps as much noise again for itself.
struct Wide;

impl Estimator for Wide {
    fn questions(&self, _: &AnyStructure) -> Questions {
        Questions::NONE
    }

    fn noise(&self, structure: &AnyStructure) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn estimate(&self, piece: &mut Piece<'_, AnyStructure>, _: &mut dyn Oracle) -> Result<(), Error> {
        piece.draw(0)
    }
}

/// Noise that an estimator has for other purposes does not reach the potentials of pairs.
#[test]
fn a_draw_perturbs_unary_potentials_only() {
    const BATCH: usize = 50;
    for (i, structure) in structured().iter().enumerate() {
        let u = structure.unary();
        let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(structure, (1000 * i + b) as u64)).collect();
        let noise = gumbel(2 * BATCH * u, 6, i as u64);
        let (oracle, mut memory) = (&mut Closure::new(structure, |_, _| 0.0), Memory::default());
        estimate_with(&Wide, structure, &h, &noise, oracle, &mut memory).unwrap();
        let first: Vec<f32> = noise.chunks(2 * u).flat_map(|row| row[..u].to_vec()).collect();
        let mut z = vec![0; BATCH * structure.variables()];
        perturbed_argmax(structure, &h, &first, &mut z).unwrap();
        assert_eq!(memory.assignments, z, "{structure:?}");
    }
}

/// What the joint estimator measures of the separable approximation: how often it misses, and by how much.
#[test]
fn the_joint_loss_measures_what_the_separable_one_misses() {
    const BATCH: usize = 200;
    let epsilon = 0.7;
    for (i, structure) in structured().iter().enumerate() {
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let loss = Loss::new(structure, 0.5, 800 + i as u64);
        let h: Vec<f32> = (0..BATCH).flat_map(|b| potentials(structure, (1000 * i + b) as u64)).collect();
        // With the KL inside for every second structure.
        let kl = (i % 2) as f32;
        let (noise, direct) = (gumbel(BATCH * u, 4, i as u64), Direct::new(epsilon).unwrap().with_kl(kl));
        let moved = |estimator: &dyn Estimator| {
            let (oracle, mut memory) = (&mut Table::of(structure, |code| loss.of(code)), Memory::default());
            let found = estimate_with(estimator, structure, &h, &noise, oracle, &mut memory).unwrap();
            (memory.moved, found.tallies)
        };
        let (joint, tallies) = moved(&DirectJoint::new(direct, Perturbation::Unary));
        let (separable, _) = moved(&direct);
        let (mut missed, mut gap) = (0.0, 0.0);
        for b in 0..BATCH {
            let mut perturbed: Vec<f32> = h[b * p..][..p].iter().map(|h| (1.0 - epsilon * kl) * h).collect();
            perturbed.iter_mut().zip(&noise[b * u..][..u]).for_each(|(h, g)| *h += g);
            let value = |z: &[u32]| structure.score(&perturbed, z) - (epsilon * loss.at(structure, z)) as f64;
            let lost = value(&joint[b * n..][..n]) - value(&separable[b * n..][..n]);
            assert!(lost > -1e-4, "{structure:?}: {lost}");
            if lost > 1e-3 {
                missed += 1.0;
                gap += lost;
            }
        }

        assert!(missed > 0.0 && missed < BATCH as f64, "{structure:?}: {missed}");
        assert_eq!((tallies[1].sum, tallies[1].count, tallies[2].count), (missed, BATCH as f64, missed));
        assert!((tallies[2].sum - gap).abs() < 1e-3, "{structure:?}: {} {gap}", tallies[2].sum);
    }
}

/// The entropy of a perturbed arg max is at most the mean of the noise that it collects, where every value of every
/// variable has noise; for independent variables it is equal (Maji, Hazan, Jaakkola 2014). Not so for indicators
/// without noise on "off".
#[test]
fn the_noise_at_the_sample_bounds_its_entropy() {
    let draws = 200_000;
    // Of indicators, those of permutations and arborescences have noise wherever something is chosen.
    let without = |s: &AnyStructure| ["Subset", "SpanningTree"].iter().any(|name| format!("{s:?}").contains(name));
    let mut independent = 0;
    for (i, structure) in structured().iter().filter(|s| !without(s)).enumerate() {
        let (u, n) = (structure.unary(), structure.variables());
        let h = potentials(structure, 900 + i as u64);
        let noise = gumbel(draws * u, 5, i as u64);
        let mut z = vec![0; draws * n];
        perturbed_argmax(structure, &h.repeat(draws), &noise, &mut z).unwrap();
        let mut counts = std::collections::HashMap::new();
        let (mut mean, mut square) = (0.0, 0.0);
        for (z, gamma) in z.chunks(n).zip(noise.chunks(u)) {
            *counts.entry(z).or_insert(0usize) += 1;
            let code = code(structure, z);
            let collected: f64 = code.iter().zip(gamma).map(|(c, g)| (c * (g - EULER_GAMMA)) as f64).sum();
            mean += collected / draws as f64;
            square += collected * collected / draws as f64;
        }
        let q = counts.values().map(|c| *c as f64 / draws as f64);
        let entropy: f64 = q.map(|q| -q * q.ln()).sum();
        let error = ((square - mean * mean) / draws as f64).sqrt();
        assert!(entropy < mean + 4.0 * error, "{structure:?}: entropy {entropy}, noise {mean} ± {error}");
        if structure.is_independent() {
            independent += 1;
            assert!((entropy - mean).abs() < 4.0 * error + 1e-3, "entropy {entropy}, noise {mean} ± {error}");
        }
    }
    assert_eq!(independent, 1);
}
