//! Single changes of an assignment that stay in Z: what a local search is made of.

use super::{Code, Structure};

/// A single change of an assignment: what `place` and `value` mean is the structure's own affair, see
/// [`Structure::moves`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Move {
    /// What the score gains by it alone.
    pub gain: f32,
    /// Where: a variable, an element, a row, an edge, a node.
    pub place: u32,
    /// What becomes of it: a value, the element or edge that takes its place, the row to swap with, the new parent.
    pub value: u32,
}

/// Lists the best of the other values of a place, with what each of them gains.
pub(super) fn best(moves: &mut Vec<Move>, place: usize, others: impl Iterator<Item = (usize, f64)>) {
    let best = others.fold((f64::NEG_INFINITY, None), |best, (value, gain)| match gain > best.0 {
        true => (gain, Some(value)),
        false => best,
    });
    if let (gain, Some(value)) = best {
        moves.push(Move { gain: gain as f32, place: place as u32, value: value as u32 });
    }
}

/// The moves of one-hot rows from the scores of whole assignments.
pub(super) fn by_score<S: Structure + ?Sized>(structure: &S, potentials: &[f32], z: &[u32], moves: &mut Vec<Move>) {
    let Code::OneHot { values } = structure.code() else { return };
    let (now, mut other) = (structure.score(potentials, z), z.to_vec());
    for i in 0..z.len() {
        let others = (0..values).filter(|k| *k != z[i] as usize);
        let gains = others.map(|k| {
            other[i] = k as u32;
            (k, structure.score(potentials, &other) - now)
        });
        best(moves, i, gains);
        other[i] = z[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::brute_force::{self, Random, Values, magnitude};
    use crate::structure::{
        Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Subset, Supermodular, Tree,
    };

    /// Checks the moves from some states against enumeration. The neighbours of a state are all others that differ in
    /// as many places as a single change touches: one, or two that exchange something.
    fn check<S: Structure>(structure: &S, values: Values, touched: usize, random: &mut Random, what: &str) {
        let mut h = values.vector(structure.potentials(), random);
        structure.to_potentials(&mut h);
        // Of the forbidden pairs of some structures only unary potentials make potentials again.
        h.iter_mut().filter(|h| h.is_nan()).for_each(|h| *h = 0.0);
        let states = structure.states().unwrap();
        let (n, mut z, mut other) = (structure.variables(), vec![0; structure.variables()], vec![]);
        structure.state(random.below(states), &mut z);
        let now = structure.score(&h, &z);
        if now == f64::NEG_INFINITY {
            return; // no search stands there
        }
        let what = format!("{what}, {values:?}: {z:?} at {h:?}");
        let close = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-6 * a.abs() + 1e-12 * magnitude(&h);
        // The best of all neighbours, and of those that differ in a variable.
        let (mut best, mut there) = (f64::NEG_INFINITY, vec![f64::NEG_INFINITY; n]);
        other.resize(n, 0);
        for s in 0..states {
            structure.state(s, &mut other);
            let differ = |i: &usize| z[*i] != other[*i];
            if (0..n).filter(differ).count() == touched {
                let gain = structure.score(&h, &other) - now;
                best = best.max(gain);
                (0..n).filter(differ).for_each(|i| there[i] = there[i].max(gain));
            }
        }
        let kept = Move { gain: 0.0, place: u32::MAX, value: 0 };
        let mut moves = vec![kept];
        structure.moves(&h, &z, &mut moves);
        assert_eq!(moves.remove(0), kept, "{what}: moves are added to a list");
        assert!(moves.len() <= structure.unary(), "{what}: {moves:?}");
        let mut found = f64::NEG_INFINITY;
        let mut found_there = vec![f64::NEG_INFINITY; n];
        for (i, change) in moves.iter().enumerate() {
            let repeated = moves[..i].iter().any(|m| m.place == change.place);
            assert!(!repeated, "{what}: two moves of place {}: {moves:?}", change.place);
            other.copy_from_slice(&z);
            assert!(structure.make(*change, &mut other), "{what}: {change:?}");
            let differ = |i: &usize| z[*i] != other[*i];
            assert_eq!((0..n).filter(differ).count(), touched, "{what}: {change:?} makes {other:?}");
            let gain = structure.score(&h, &other) - now;
            assert!(close(change.gain as f64, gain), "{what}: {change:?}, by the scores {gain}");
            found = f64::max(found, gain);
            (0..n).filter(differ).for_each(|i| found_there[i] = found_there[i].max(gain));
        }
        assert!(close(found, best), "{what}: the best move gains {found}, the best neighbour {best}");
        if touched == 1 {
            let all = found_there.iter().zip(&there).all(|(a, b)| close(*a, *b));
            assert!(all, "{what}: place by place the moves gain {found_there:?}, the neighbours {there:?}");
        }
    }

    /// Calls `f` with the instances of a property test.
    fn each(test: u32, mut f: impl FnMut(Values, &mut Random, &str)) {
        for case in 0..brute_force::cases() {
            f(Values::ALL[case as usize % 5], &mut Random::new(test, case), &format!("case {case}"));
        }
    }

    #[test]
    fn the_best_value_of_every_variable_is_listed() {
        each(700, |values, random, what| {
            let c = Categorical::product(1 + random.below(4), 1 + random.below(4)).unwrap();
            check(&c, values, 1, random, what);
            check(&Chain::new(random.below(5), 1 + random.below(3)).unwrap(), values, 1, random, what);
            check(&Pairwise::new(random.below(6)).unwrap(), values, 1, random, what);
        });
    }

    /// Supermodular potentials are made of raw numbers, which are finite.
    #[test]
    fn the_best_value_of_every_supermodular_variable_is_listed() {
        each(701, |values, random, what| {
            let values = if values == Values::Forbidden { Values::Normal } else { values };
            check(&Supermodular::new(random.below(6)).unwrap(), values, 1, random, what);
        });
    }

    #[test]
    fn the_best_value_of_every_variable_of_a_forest_is_listed() {
        each(702, |values, random, what| {
            let variables = 1 + random.below(4);
            let mut edges = vec![];
            for i in 1..variables {
                let (a, b) = (i, random.below(i));
                match random.below(4) {
                    0 => {}
                    1 => edges.push((b, a)),
                    _ => edges.push((a, b)),
                }
            }
            check(&Tree::new(variables, 1 + random.below(3), &edges).unwrap(), values, 1, random, what);
        });
    }

    #[test]
    fn the_best_exchange_of_two_elements_is_listed() {
        each(703, |values, random, what| {
            let n = random.below(7);
            check(&Subset::new(n, random.below(n + 1)).unwrap(), values, 2, random, what);
        });
    }

    #[test]
    fn the_best_swap_of_two_rows_is_listed() {
        each(704, |values, random, what| {
            check(&Permutation::new(random.below(6)).unwrap(), values, 2, random, what);
        });
    }

    /// Parallel edges among them.
    #[test]
    fn the_best_exchange_of_two_edges_is_listed() {
        each(705, |values, random, what| {
            let nodes = 1 + random.below(5);
            let mut edges: Vec<_> = (1..nodes).map(|i| (i, random.below(i))).collect();
            for _ in 0..random.below(5) * (nodes > 1) as usize {
                let i = random.below(nodes);
                edges.push((i, (i + 1 + random.below(nodes - 1)) % nodes));
            }
            check(&SpanningTree::new(nodes, &edges).unwrap(), values, 2, random, what);
        });
    }

    #[test]
    fn the_best_parent_of_every_node_is_listed() {
        each(706, |values, random, what| {
            let nodes = 1 + random.below(5);
            check(&Arborescence::new(nodes, random.below(nodes)).unwrap(), values, 1, random, what);
        });
    }

    /// A structure that says nothing of its moves has those of its one-hot rows, and none of indicators.
    #[test]
    fn moves_by_score_are_those_of_the_structure_itself() {
        for case in 0..200 {
            let random = &mut Random::new(707, case);
            let tree = Tree::new(4, 3, &[(0, 1), (0, 2), (2, 3)]).unwrap();
            let h = Values::Normal.vector(tree.potentials(), random);
            let z: Vec<u32> = (0..4).map(|_| random.below(3) as u32).collect();
            let (mut own, mut general) = (vec![], vec![]);
            tree.moves(&h, &z, &mut own);
            by_score(&tree, &h, &z, &mut general);
            assert_eq!(own.len(), general.len());
            for (a, b) in own.iter().zip(&general) {
                assert!((a.place, a.value) == (b.place, b.value) && (a.gain - b.gain).abs() < 1e-5, "{a:?} {b:?}");
            }
        }
        let mut none = vec![];
        by_score(&Subset::new(4, 2).unwrap(), &[0.0; 4], &[1, 1, 0, 0], &mut none);
        assert!(none.is_empty());
    }
}
