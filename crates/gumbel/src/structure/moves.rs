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

/// The best assignment that is known for every variable and every other value of it than the present one: see
/// [`Structure::max_marginals`]. Made once, reused.
#[derive(Debug, Default, Clone)]
pub struct MaxMarginals {
    variables: usize,
    /// Other values of a variable.
    others: usize,
    /// `[n, K - 1, n]`.
    states: Vec<u32>,
    /// `[n, K - 1]`.
    gains: Vec<f64>,
    moves: Vec<Move>,
    potentials: Vec<f32>,
    pub(super) numbers: Vec<f64>,
}

impl MaxMarginals {
    /// Number of rows, one for each variable and other value in this order, `n (K - 1)`.
    pub fn rows(&self) -> usize {
        self.gains.len()
    }

    /// The row of a value, `None` for the present one.
    pub fn row(&self, variable: usize, value: usize, present: usize) -> Option<usize> {
        (value != present).then(|| variable * self.others + value - (value > present) as usize)
    }

    /// The assignment of a row.
    pub fn state(&self, row: usize) -> &[u32] {
        &self.states[row * self.variables..][..self.variables]
    }

    /// What the score gains from the present assignment to that of a row: at most 0 if the present one is the arg max.
    pub fn gain(&self, row: usize) -> f64 {
        self.gains[row]
    }

    /// The present assignment in all rows, but for their values.
    pub(super) fn begin(&mut self, assignment: &[u32], values: usize) {
        (self.variables, self.others) = (assignment.len(), values - 1);
        let rows = self.variables * self.others;
        self.states.clear();
        self.gains.clear();
        self.gains.resize(rows, 0.0);
        for row in 0..rows {
            let (variable, other) = (row / self.others, row % self.others);
            let value = other as u32 + (other as u32 >= assignment[variable]) as u32;
            self.states.extend_from_slice(assignment);
            self.states[row * self.variables + variable] = value;
        }
    }

    /// Calls `climb` with the variable of each row and its assignment, and keeps the gains that it returns.
    pub(super) fn each(&mut self, mut climb: impl FnMut(usize, &mut [u32]) -> f64) {
        let states = self.states.chunks_exact_mut(self.variables.max(1));
        for (row, (z, gain)) in states.zip(&mut self.gains).enumerate() {
            *gain = climb(row / self.others, z);
        }
    }

    /// Takes over what another row has found, where it has the value of this one and is better.
    pub(super) fn share(&mut self) {
        let n = self.variables;
        for row in 0..self.rows() {
            let place = row / self.others;
            let value = self.states[row * n + place];
            let better = (0..self.rows()).filter(|r| self.states[r * n + place] == value);
            if let Some(best) = better.max_by(|a, b| self.gains[*a].total_cmp(&self.gains[*b]))
                && self.gains[best] > self.gains[row]
            {
                self.states.copy_within(best * n..(best + 1) * n, row * n);
                self.gains[row] = self.gains[best];
            }
        }
    }
}

/// Gains up to this are rounding: no climb makes them.
pub(super) const LEVEL: f64 = 1e-6;

/// [`Structure::max_marginals`] by the moves of one-hot rows.
pub(super) fn climb<S: Structure + ?Sized>(structure: &S, potentials: &[f32], z: &[u32], found: &mut MaxMarginals) {
    let Code::OneHot { values } = structure.code() else { return found.begin(&[], 1) };
    let now = structure.score(potentials, z);
    found.begin(z, values);
    let mut moves = std::mem::take(&mut found.moves);
    found.each(|variable, z| {
        // Every change gains, so that it ends; no climb is that long.
        for _ in 0..4 * z.len() {
            moves.clear();
            structure.moves(potentials, z, &mut moves);
            let gaining = moves.iter().filter(|m| m.place as usize != variable && m.gain as f64 > LEVEL);
            match gaining.max_by(|a, b| a.gain.total_cmp(&b.gain)) {
                Some(best) => structure.make(*best, z),
                None => break,
            };
        }
        structure.score(potentials, z) - now
    });
    found.moves = moves;
    found.share();
}

/// [`Structure::max_marginals`] by an arg max for each row, which is exact.
pub(super) fn solve<S: Structure>(
    structure: &S,
    potentials: &[f32],
    z: &[u32],
    scratch: &mut S::Scratch,
    found: &mut MaxMarginals,
) {
    let Code::OneHot { values } = structure.code() else { return found.begin(&[], 1) };
    let now = structure.score(potentials, z);
    found.begin(z, values);
    let mut conditioned = std::mem::take(&mut found.potentials);
    conditioned.clear();
    conditioned.extend_from_slice(potentials);
    found.each(|variable, z| {
        let block = variable * values..(variable + 1) * values;
        let value = z[variable] as usize;
        let others = conditioned[block.clone()].iter_mut().enumerate().filter(|(k, _)| *k != value);
        others.for_each(|(_, h)| *h = f32::NEG_INFINITY);
        let solved = structure.argmax(&conditioned, z, scratch);
        conditioned[block.clone()].copy_from_slice(&potentials[block]);
        if solved.is_err() {
            z[variable] = value as u32; // nothing that is allowed has this value
            return f64::NEG_INFINITY;
        }
        structure.score(potentials, z) - now
    });
    found.potentials = conditioned;
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

    /// Checks max-marginals of the arg max against enumeration; returns how many there are, and how many are the best.
    fn check_max_marginals<S: Structure>(structure: &S, values: Values, random: &mut Random, what: &str) -> [usize; 2] {
        let mut h = values.vector(structure.potentials(), random);
        structure.to_potentials(&mut h);
        h.iter_mut().filter(|h| h.is_nan()).for_each(|h| *h = 0.0);
        let n = structure.variables();
        let (mut z, mut other) = (vec![0; n], vec![0; n]);
        if structure.argmax(&h, &mut z, &mut structure.scratch()).is_err() {
            return [0, 0]; // everything is forbidden
        }
        let Code::OneHot { values } = structure.code() else { panic!("{what}: one-hot rows") };
        let now = structure.score(&h, &z);
        let what = format!("{what}: {z:?} at {h:?}");
        let close = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-5 * a.abs() + 1e-6 + 1e-12 * magnitude(&h);
        let (mut found, mut plain) = (MaxMarginals::default(), MaxMarginals::default());
        structure.max_marginals(&h, &z, &mut structure.scratch(), &mut found);
        climb(structure, &h, &z, &mut plain);
        assert_eq!((found.rows(), plain.rows()), (n * (values - 1), n * (values - 1)), "{what}");
        let mut counts = [0, 0];
        for (i, present) in z.iter().enumerate() {
            assert_eq!(found.row(i, *present as usize, *present as usize), None);
            for value in (0..values).filter(|value| *value != *present as usize) {
                let row = found.row(i, value, *present as usize).unwrap();
                let (state, gain) = (found.state(row), found.gain(row));
                let at = format!("{what}, variable {i} as {value}: {state:?} gains {gain}");
                assert_eq!(state[i] as usize, value, "{at}");
                assert!(
                    close(gain, structure.score(&h, state) - now),
                    "{at}, by the score {}",
                    structure.score(&h, state) - now
                );
                other.copy_from_slice(&z);
                other[i] = value as u32;
                let single = structure.score(&h, &other) - now;
                assert!(gain >= single || close(gain, single), "{at}, a single change {single}");
                let best = (0..structure.states().unwrap()).fold(f64::NEG_INFINITY, |best, s| {
                    structure.state(s, &mut other);
                    if other[i] as usize == value { best.max(structure.score(&h, &other) - now) } else { best }
                });
                assert!(gain <= best || close(gain, best), "{at}, the best {best}");
                counts[0] += 1;
                counts[1] += close(gain, best) as usize;
            }
        }
        counts
    }

    #[test]
    fn max_marginals_are_good_states_with_other_values() {
        let mut counts = [0, 0];
        each(707, |values, random, what| {
            let mut count = |[all, best]: [usize; 2]| counts = [counts[0] + all, counts[1] + best];
            count(check_max_marginals(&Pairwise::new(random.below(9)).unwrap(), values, random, what));
            count(check_max_marginals(&Supermodular::new(random.below(6)).unwrap(), values, random, what));
            count(check_max_marginals(
                &Chain::new(random.below(5), 1 + random.below(3)).unwrap(),
                values,
                random,
                what,
            ));
            let c = Categorical::product(1 + random.below(4), 1 + random.below(4)).unwrap();
            count(check_max_marginals(&c, values, random, what));
        });
        let [all, best] = counts;
        assert!(best * 20 > all * 19, "{best} of {all} are the best");
        let mut none = MaxMarginals::default();
        let subset = Subset::new(4, 2).unwrap();
        subset.max_marginals(&[0.0; 4], &[0, 1, 1, 0], &mut subset.scratch(), &mut none);
        assert_eq!(none.rows(), 0);
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
