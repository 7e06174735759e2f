//! Arborescences: directed spanning trees with a given root.
//!
//! Every node but the root chooses a parent, so that all come from the root in the end: `z[child] = parent` and
//! `z[root] = root`. `h(z) = sum over c != root of potentials[z_c, c]`; the potentials are `[n, n]`, `[parent][child]`,
//! all of them unary. The diagonal and the column of the root belong to no choice: they may hold any finite number or
//! `-inf`, are ignored, and have marginals and gradients of zero. `-inf` forbids a choice.
//!
//! **Arg max**: every node takes its best parent; a cycle becomes one node, whose choices are those of its members less
//! what they give up (Chu and Liu, Edmonds). Here along one growing path, with dense rows, as Gabow et al. and Tarjan
//! do: O(n^2), since every contraction is a pass over the rows that it does away with. The contractions are undone from
//! the outside in.
//!
//! **Sums**: the directed matrix-tree theorem, O(n^3); samples by Wilson's algorithm. They are exact to rounding for
//! any potentials: where a child's potentials differ by more than 300 (or a product would underflow) logarithms are
//! used, about fifty times slower. See `matrix_tree.rs`.
//!
//! Enumeration order: by Pruefer codes, in which the root is the last label; there are n^(n-2).
//!
//! References: J. Edmonds, "Optimum branchings", 1967; R. E. Tarjan, "Finding optimum branchings", Networks 7, 1977;
//! H. N. Gabow, Z. Galil, T. Spencer, R. E. Tarjan, "Efficient algorithms for finding minimum spanning trees in
//! undirected and directed graphs", Combinatorica 6, 1986; T. Koo, A. Globerson, X. Carreras, M. Collins, "Structured
//! prediction models via the matrix-tree theorem", 2007.

use super::condition;
use super::latent::LatentEntry;
use super::matrix_tree::{self, Along, Arc};
use super::moves;
use super::precise::{Real, with_rounding_of_sums};
use super::{Code, Maximum, Move, Precise, PreciseSums, Structure, Sums, check_numbers};
use crate::Error;
use rand_chacha::rand_core::Rng;

/// The spanning arborescences of the complete directed graph from a root.
///
/// ```
/// use gumbel::structure::{Arborescence, Structure, Sums};
/// let z = Arborescence::new(3, 0)?;
/// let scores = [
///     0.0, 1.0, 2.0, // 0 as the parent of each
///     0.0, 0.0, 5.0,
///     0.0, 6.0, 0.0, // 1 and 2 would like to be each other's parents
/// ];
/// let mut parent = [0; 3];
/// let maximum = z.argmax(&scores, &mut parent, &mut z.scratch())?;
/// assert_eq!((parent, maximum.value), ([0, 2, 0], 8.0));
/// assert!((z.log_partition(&[0.0; 9])? - 3f64.ln()).abs() < 1e-12);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arborescence {
    nodes: usize,
    root: usize,
}

/// Working memory of [`Arborescence`]. Contracted cycles get ids from n on.
#[derive(Debug, Clone)]
pub struct ArborescenceScratch {
    /// `[child][parent]`: what a choice gains over those given up; contracted nodes use the row of a member.
    gain: Vec<f64>,
    /// The node that would get the parent, in the same order.
    head: Vec<u32>,
    /// By id: what has become of it.
    state: Vec<State>,
    /// By id: its row.
    row: Vec<u32>,
    /// By id: the best choice (parent, child) and its gain.
    best: Vec<(u32, u32, f64)>,
    /// By id: the cycle it was contracted into, or [`NONE`].
    outer: Vec<u32>,
    /// By node: the id of the largest contracted cycle it is in.
    id: Vec<u32>,
    /// By node: the next member of that cycle, in a ring.
    next: Vec<u32>,
    path: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    New,
    OnPath,
    /// Comes from the root by best choices.
    Joined,
}

const NONE: u32 = u32::MAX;

impl Arborescence {
    /// The largest `n * n`.
    pub const MAX_POTENTIALS: usize = 1 << 24;

    /// Arborescences on `nodes` >= 1 nodes from `root`.
    ///
    /// # Errors
    ///
    /// No node, more than [`MAX_POTENTIALS`](Arborescence::MAX_POTENTIALS), or a root that is none of them.
    pub fn new(nodes: usize, root: usize) -> Result<Self, Error> {
        if nodes == 0 || nodes.checked_mul(nodes).is_none_or(|p| p > Self::MAX_POTENTIALS) {
            let expected = format!("at least 1, and n * n at most {}", Self::MAX_POTENTIALS);
            return Err(Error::range("nodes", nodes, expected));
        }
        if root >= nodes {
            return Err(Error::range("root", root, format!("one of the {nodes} nodes, counted from 0")));
        }
        Ok(Arborescence { nodes, root })
    }

    /// The root.
    pub fn root(&self) -> usize {
        self.root
    }

    /// Exchanges the root and another node: its own inverse.
    fn exchange(&self, node: usize, other: usize) -> usize {
        match node {
            v if v == self.root => other,
            v if v == other => self.root,
            v => v,
        }
    }

    /// All allowed choices, with the root as node 0, and their potentials' indices.
    fn arcs<T: Real>(&self, potentials: &[T]) -> Result<(Vec<Arc>, Vec<usize>), Error> {
        check_numbers("potential", potentials)?;
        let pairs = potentials.iter().enumerate().filter(|(i, h)| {
            let (parent, child) = (i / self.nodes, i % self.nodes);
            parent != child && child != self.root && **h > T::NEG_INFINITY
        });
        Ok(pairs
            .map(|(i, h)| {
                let parent = self.exchange(i / self.nodes, 0) as u32;
                let child = self.exchange(i % self.nodes, 0) as u32;
                (Arc { parent, child, log_weight: h.wide() }, i)
            })
            .unzip())
    }

    /// Contracts the cycle that the end of the path from `position` on has closed; returns the new id.
    fn contract(&self, position: usize, id: u32, s: &mut ArborescenceScratch) {
        let n = self.nodes;
        let first = s.path[position];
        let kept = s.row[first as usize] as usize;
        let given_up = s.best[first as usize].2;
        s.gain[kept * n..][..n].iter_mut().for_each(|g| *g -= given_up);
        for k in position + 1..s.path.len() {
            let member = s.path[k] as usize;
            let (row, given_up) = (s.row[member] as usize, s.best[member].2);
            let [to, from] = s.gain.get_disjoint_mut([kept * n..kept * n + n, row * n..row * n + n]).expect("two rows");
            let [to_head, from_head] =
                s.head.get_disjoint_mut([kept * n..kept * n + n, row * n..row * n + n]).expect("two rows");
            for p in 0..n {
                let gain = from[p] - given_up;
                to_head[p] = if gain > to[p] { from_head[p] } else { to_head[p] };
                to[p] = if gain > to[p] { gain } else { to[p] };
            }
            s.outer[member] = id;
            // Two rings become one.
            s.next.swap(kept, row);
        }
        s.outer[first as usize] = id;
        s.path.truncate(position);
        // Members are no parents of the cycle.
        let mut v = kept;
        loop {
            s.id[v] = id;
            s.gain[kept * n + v] = f64::NEG_INFINITY;
            v = s.next[v] as usize;
            if v == kept {
                break;
            }
        }
        s.row[id as usize] = kept as u32;
        s.state[id as usize] = State::OnPath;
        s.path.push(id);
    }
}

/// Position of the largest value, the first among equals.
pub(super) fn largest(x: &[f64]) -> (usize, f64) {
    const LANES: usize = 8;
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut most = [f64::NEG_INFINITY; LANES];
    let larger = |a: f64, b: f64| if b > a { b } else { a };
    chunks.iter().for_each(|c| (0..LANES).for_each(|l| most[l] = larger(most[l], c[l])));
    let most = most.iter().chain(rest).copied().fold(f64::NEG_INFINITY, larger);
    (x.iter().position(|v| *v == most).expect("it is there"), most)
}

impl Arborescence {
    /// The arg max of potentials of either kind.
    fn solve<T: Real>(
        &self,
        potentials: &[T],
        assignment: &mut [u32],
        s: &mut ArborescenceScratch,
    ) -> Result<(), Error> {
        check_numbers("potential", potentials)?;
        let n = self.nodes;
        for (p, row) in potentials.chunks_exact(n).enumerate() {
            row.iter().enumerate().for_each(|(c, h)| s.gain[c * n + p] = h.wide());
        }
        for c in 0..n {
            s.gain[c * n + c] = f64::NEG_INFINITY;
            s.head[c * n..][..n].fill(c as u32);
            (s.id[c], s.next[c], s.row[c]) = (c as u32, c as u32, c as u32);
        }
        s.state.fill(State::New);
        s.outer.fill(NONE);
        s.state[self.root] = State::Joined;
        let mut ids = n;
        for start in 0..n {
            if s.state[s.id[start] as usize] != State::New {
                continue;
            }
            s.path.clear();
            s.path.push(start as u32);
            s.state[start] = State::OnPath;
            while let Some(&last) = s.path.last() {
                let row = s.row[last as usize] as usize;
                let (parent, gain) = largest(&s.gain[row * n..][..n]);
                if gain == f64::NEG_INFINITY {
                    return Err(Error::Infeasible { detail: format!("no parents lead from the root to node {row}") });
                }
                s.best[last as usize] = (parent as u32, s.head[row * n + parent], gain);
                let id = s.id[parent];
                match s.state[id as usize] {
                    State::New => {
                        s.state[id as usize] = State::OnPath;
                        s.path.push(id);
                    }
                    State::OnPath => {
                        let position = s.path.iter().rposition(|p| *p == id).expect("it is on the path");
                        self.contract(position, ids as u32, s);
                        ids += 1;
                    }
                    State::Joined => s.path.drain(..).for_each(|id| s.state[id as usize] = State::Joined),
                }
            }
        }
        // From the outside in: a choice of a cycle is one of a member, in which it replaces the member's own.
        assignment[self.root] = self.root as u32;
        for id in (0..ids).rev() {
            if s.state[id] == State::New || id == self.root {
                continue; // decided by an outer cycle
            }
            let (parent, child, _) = s.best[id];
            assignment[child as usize] = parent;
            let mut inner = child as usize;
            while inner != id {
                s.state[inner] = State::New;
                inner = s.outer[inner] as usize;
            }
        }
        Ok(())
    }

    fn marginals_of<T: Real>(&self, potentials: &[T], marginals: &mut [f32]) -> Result<f64, Error> {
        let (arcs, index) = self.arcs(potentials)?;
        let (log_partition, found) = matrix_tree::marginals(self.nodes, &arcs, Along::Nothing)?;
        marginals.fill(0.0);
        index.iter().zip(found).for_each(|(i, m)| marginals[*i] = m.probability as f32);
        Ok(log_partition)
    }
}

impl Arborescence {
    /// Whether a node hangs below another one, or is the same.
    fn descends(&self, assignment: &[u32], mut node: usize, from: usize) -> bool {
        while node != from && node != self.root {
            node = assignment[node] as usize;
        }
        node == from
    }
}

impl Structure for Arborescence {
    type Scratch = ArborescenceScratch;

    fn potentials(&self) -> usize {
        self.nodes * self.nodes
    }

    fn unary(&self) -> usize {
        self.potentials()
    }

    fn variables(&self) -> usize {
        self.nodes
    }

    fn ln_states(&self) -> f64 {
        self.nodes.saturating_sub(2) as f64 * (self.nodes as f64).ln()
    }

    fn states(&self) -> Option<usize> {
        self.nodes.checked_pow(self.nodes.saturating_sub(2) as u32)
    }

    fn state(&self, mut index: usize, assignment: &mut [u32]) {
        // The Pruefer code of a tree lists, leaf by leaf from the smallest label, whom the leaf hangs on. The largest
        // label is never taken away: with the root in its place, the list is that of the parents.
        let (n, last) = (self.nodes, self.nodes - 1);
        let label = |v: usize| self.exchange(v, last);
        assignment[self.root] = self.root as u32;
        let mut code = vec![last; n - 1];
        for digit in code.iter_mut().take(n.saturating_sub(2)).rev() {
            (*digit, index) = (index % n, index / n);
        }
        let mut left = vec![0usize; n]; // how often a node is still to be a parent
        code.iter().for_each(|p| left[*p] += 1);
        let mut removed = vec![false; n];
        for parent in code {
            let leaf = (0..last).find(|v| left[*v] == 0 && !removed[*v]).expect("a tree has two leaves");
            removed[leaf] = true;
            left[parent] -= 1;
            assignment[label(leaf)] = label(parent) as u32;
        }
    }

    fn code(&self) -> Code {
        Code::Indicators
    }

    fn scratch(&self) -> ArborescenceScratch {
        let n = self.nodes;
        ArborescenceScratch {
            gain: vec![0.0; n * n],
            head: vec![0; n * n],
            state: vec![State::New; 2 * n],
            row: vec![0; 2 * n],
            best: vec![(0, 0, 0.0); 2 * n],
            outer: vec![NONE; 2 * n],
            id: vec![0; n],
            next: vec![0; n],
            path: Vec::with_capacity(n),
        }
    }

    fn argmax(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        s: &mut ArborescenceScratch,
    ) -> Result<Maximum, Error> {
        self.solve(potentials, assignment, s)?;
        Ok(Maximum::proved(self.score(potentials, assignment)))
    }

    fn has_moves(&self) -> bool {
        true
    }

    /// Another parent: for each node the best that is none of its descendants. O(n^2) and the walks to the root.
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        let n = self.nodes;
        for child in (0..n).filter(|c| *c != self.root) {
            let now = assignment[child] as usize;
            let score = |parent: usize| potentials[parent * n + child] as f64;
            // A walk to the root for those only that would be the best.
            let mut best = (f64::NEG_INFINITY, None);
            for parent in (0..n).filter(|p| *p != now && *p != child) {
                if score(parent) > best.0 && !self.descends(assignment, parent, child) {
                    best = (score(parent), Some(parent));
                }
            }
            let (best, parent) = best;
            moves::best(moves, child, parent.map(|p| (p, best - score(now))).into_iter());
        }
    }

    fn make(&self, change: Move, assignment: &mut [u32]) -> bool {
        let (child, parent) = (change.place as usize, change.value as usize);
        let possible = !self.descends(assignment, parent, child);
        if possible {
            assignment[child] = parent as u32;
        }
        possible
    }

    /// Forbids the other parents of the known nodes. The root is its own parent, and no other node is.
    fn condition(&self, known: &[u32], potentials: &mut [f32]) -> Result<f64, Error> {
        let n = self.nodes;
        for (child, parent) in condition::known_values(known, n, n)? {
            if (child == self.root) != (child == parent) {
                let detail = format!("{parent} cannot be the parent of {child} where {} is the root", self.root);
                return Err(Error::Infeasible { detail });
            }
            if child != self.root {
                (0..n).filter(|p| *p != parent).for_each(|p| potentials[p * n + child] = f32::NEG_INFINITY);
            }
        }
        Ok(0.0)
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        for (child, parent) in assignment.iter().enumerate().filter(|(c, _)| *c != self.root) {
            out[*parent as usize * self.nodes + child] += scale;
        }
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        let choices = assignment.iter().enumerate().filter(|(c, _)| *c != self.root);
        choices.map(|(c, p)| potentials[*p as usize * self.nodes + c] as f64).sum()
    }
}

impl Precise for Arborescence {
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        s: &mut ArborescenceScratch,
    ) -> Result<Maximum, Error> {
        self.solve(potentials, assignment, s)?;
        let choices = assignment.iter().enumerate().filter(|(c, _)| *c != self.root);
        let value = choices.map(|(c, p)| potentials[*p as usize * self.nodes + c]).sum();
        Ok(with_rounding_of_sums(Maximum::proved(value), potentials, self.nodes))
    }
}

impl PreciseSums for Arborescence {
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }
}

impl Sums for Arborescence {
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        matrix_tree::log_partition(self.nodes, &self.arcs(potentials)?.0)
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        let (arcs, index) = self.arcs(potentials)?;
        let along = if scale != 0.0 { Along::Weights } else { Along::Nothing };
        let (log_partition, found) = matrix_tree::marginals(self.nodes, &arcs, along)?;
        if scale != 0.0 {
            index.iter().zip(&found).for_each(|(i, m)| gradient[*i] += scale * m.derivative as f32);
        }
        let mean: f64 = arcs.iter().zip(&found).map(|(arc, m)| m.probability * arc.log_weight).sum();
        Ok(self.ln_states() - log_partition + mean)
    }

    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        check_numbers("direction", direction)?;
        let (arcs, index) = self.arcs(potentials)?;
        let of_arcs: Vec<f64> = index.iter().map(|i| direction[*i] as f64).collect();
        let (_, found) = matrix_tree::marginals(self.nodes, &arcs, Along::Direction(&of_arcs))?;
        index.iter().zip(&found).for_each(|(i, m)| out[*i] += scale * m.derivative as f32);
        Ok(())
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        let (arcs, index) = self.arcs(potentials)?;
        assignment[self.root] = self.root as u32;
        for arc in &matrix_tree::sample(self.nodes, &arcs, generator)?[1..] {
            let (parent, child) = (index[*arc] / self.nodes, index[*arc] % self.nodes);
            assignment[child] = parent as u32;
        }
        Ok(())
    }
}

/// `arborescence:N` in the registry.
pub(super) fn entry() -> LatentEntry {
    LatentEntry::new("arborescence", "N", "directed spanning trees of N nodes from node 0", |sizes| {
        let n = sizes.whole(sizes.as_str())?;
        sizes.at_least(3, n)?;
        sizes.at_most(n.checked_mul(n))?;
        Ok((Arborescence::new(n, 0).map_err(|e| sizes.explain(e))?.into(), n.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Noise, Purpose};
    use crate::structure::argmax_batch;
    use crate::structure::brute_force::{self, Random, Values};

    #[test]
    fn agrees_with_brute_force() {
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(50, case);
            let nodes = 1 + random.below(if case % 8 == 0 { 5 } else { 4 });
            let a = Arborescence::new(nodes, random.below(nodes)).unwrap();
            let values = Values::ALL[random.below(5)];
            let mut potentials = values.vector(nodes * nodes, random);
            // What is ignored may be forbidden.
            (0..nodes).filter(|_| case % 3 == 0).for_each(|i| potentials[i * nodes + i] = f32::NEG_INFINITY);
            let what = (case, values, a);
            brute_force::check_argmax(&a, &potentials, &mut a.scratch(), &what);
            brute_force::check_sums(&a, &potentials, &what);
            if values != Values::Extreme {
                brute_force::check_kl(&a, &potentials, &what);
                brute_force::check_covariance(&a, &potentials, &what);
            } else {
                let mut gradient = vec![0.0; potentials.len()];
                let kl = a.kl_to_uniform(&potentials, 1.0, &mut gradient).unwrap();
                assert!(!kl.is_nan() && !gradient.iter().any(|g| g.is_nan()), "{what:?}: {kl} {gradient:?}");
            }
        }
    }

    #[test]
    fn arg_max_with_nested_cycles() {
        for case in 0..brute_force::cases() / 10 {
            let random = &mut Random::new(51, case);
            let a = Arborescence::new(6, random.below(6)).unwrap();
            let values = Values::ALL[random.below(5)];
            let mut potentials = values.vector(36, random);
            // Strong cycles of cycles: neighbours attract each other more the nearer they are.
            if random.below(2) == 0 {
                let near = |i: usize| [[8.0, 5.0], [2.0, 0.0]][(i / 6 / 2 != i % 6 / 2) as usize][i % 6 / 4];
                potentials.iter_mut().enumerate().for_each(|(i, h)| *h += near(i));
            }
            brute_force::check_argmax(&a, &potentials, &mut a.scratch(), &(case, values, a));
        }
    }

    #[test]
    fn states_are_the_arborescences() {
        for (nodes, root) in (1..6).flat_map(|n| (0..n).map(move |r| (n, r))) {
            let a = Arborescence::new(nodes, root).unwrap();
            let mut z = vec![0; nodes];
            let mut seen = std::collections::HashSet::new();
            for s in 0..a.states().unwrap() {
                a.state(s, &mut z);
                assert_eq!(z[root] as usize, root);
                for start in 0..nodes {
                    let end = (0..nodes).fold(start, |v, _| z[v] as usize);
                    assert_eq!(end, root, "{z:?}");
                }
                assert!(seen.insert(z.clone()));
            }
            assert!((a.ln_states() - (seen.len() as f64).ln()).abs() < 1e-12);
        }
        assert_eq!(Arborescence::new(100, 0).unwrap().states(), None);
    }

    #[test]
    fn samples_follow_the_distribution() {
        let mut h = Values::Normal.vector(16, &mut Random::new(52, 0));
        brute_force::check_samples(&Arborescence::new(4, 2).unwrap(), &h, 40_000, 53);
        h[1] = f32::NEG_INFINITY;
        brute_force::check_samples(&Arborescence::new(4, 0).unwrap(), &h, 40_000, 54);
    }

    #[test]
    fn sums_of_large_potentials() {
        for case in 0..2000 {
            let random = &mut Random::new(55, case);
            let a = Arborescence::new(2 + random.below(3), 0).unwrap();
            let spread = [100.0, 400.0, 1e4][random.below(3)];
            let h: Vec<f32> = (0..a.potentials()).map(|_| spread * (2.0 * random.uniform() - 1.0)).collect();
            brute_force::check_sums(&a, &h, &(case, a, &h));
            brute_force::check_kl(&a, &h, &(case, a, &h));
            brute_force::check_covariance(&a, &h, &(case, a, &h));
        }
    }

    /// Every node prefers its left neighbour by far, and the root can only come from the right.
    fn chain(n: usize, right: f32) -> (Arborescence, Vec<f32>) {
        let mut h = vec![f32::NEG_INFINITY; n * n];
        for i in 0..n - 1 {
            h[(i + 1) * n + i] = right;
            h[i * n + i + 1] = 0.0;
        }
        (Arborescence::new(n, n - 1).unwrap(), h)
    }

    #[test]
    fn nothing_is_lost_near_the_end_of_the_range() {
        for n in 4..14 {
            for right in 55..250 {
                let (a, h) = chain(n, -(right as f32));
                let log_partition = a.log_partition(&h).unwrap();
                assert!((log_partition + (right * (n - 1)) as f64).abs() < 1e-9, "{n} {right}: {log_partition}");
            }
        }
    }

    #[test]
    fn a_long_chain_needs_logarithms() {
        let n = 40;
        let (a, h) = chain(n, -100.0);
        let mut marginals = vec![0.0; n * n];
        let log_partition = a.marginals(&h, &mut marginals).unwrap();
        assert!((log_partition + 3900.0).abs() < 1e-9, "{log_partition}");
        assert!((0..n - 1).all(|i| (marginals[(i + 1) * n + i] - 1.0).abs() < 1e-6));
        let (mut z, mut generator) = (vec![0; n], Noise::new(0, Purpose::User(0), 0).generator_at(0));
        a.sample(&h, &mut generator, &mut z).unwrap();
        assert!((0..n - 1).all(|i| z[i] == i as u32 + 1));
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(Arborescence::new(0, 0).is_err());
        assert!(Arborescence::new(3, 3).is_err());
        assert!(Arborescence::new(usize::MAX, 0).is_err());
        let a = Arborescence::new(2, 1).unwrap();
        let (mut z, mut s) = ([7; 2], a.scratch());
        let nan = a.argmax(&[0.0, 0.0, 0.0, f32::NAN], &mut z, &mut s).unwrap_err();
        assert_eq!(nan, Error::NotANumber { what: "potential", index: 3 });
        assert!(a.marginals(&[0.0, 0.0, f32::INFINITY, 0.0], &mut [0.0; 4]).is_err());
        let cut = [0.0, 0.0, f32::NEG_INFINITY, 0.0];
        assert!(matches!(a.argmax(&cut, &mut z, &mut s), Err(Error::Infeasible { .. })));
        assert!(matches!(a.log_partition(&cut), Err(Error::Infeasible { .. })));
        assert_eq!(a.argmax(&[f32::NEG_INFINITY, 9.0, 2.0, 9.0], &mut z, &mut s).unwrap().value, 2.0);
        assert_eq!(z, [1, 1]);
        assert!(argmax_batch(&a, &[0.0; 3], &mut z).is_err());
        let alone = Arborescence::new(1, 0).unwrap();
        assert_eq!(alone.argmax(&[f32::NEG_INFINITY], &mut z[..1], &mut alone.scratch()).unwrap().value, 0.0);
        assert_eq!((z[0], alone.states()), (0, Some(1)));
    }
}
