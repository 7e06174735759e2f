//! Spanning trees of an undirected graph.
//!
//! `z[e]` says whether edge e belongs to the tree; `h(z) = sum_e potentials[e] z_e` with one potential per edge, all of
//! them unary, of any sign. `-inf` forbids an edge. The graph is connected; parallel edges are allowed, self loops are
//! not.
//!
//! **Arg max**: comparisons only, hence exact. Kruskal's algorithm, O(E log E); on the complete graph Prim's with dense
//! rows, O(n^2).
//!
//! **Sums**: the matrix-tree theorem (Kirchhoff), O(n^3 + E). An undirected tree is an arborescence from node 0, so
//! that all is shared with [`Arborescence`](super::Arborescence): elimination without subtraction, marginals of edges
//! (weight times effective resistance) as the sums of those of both directions, samples by Wilson's algorithm. Exact to
//! rounding for any potentials: where a node's potentials differ by more than 300 (or a product would underflow)
//! logarithms are used, about fifty times slower. See `matrix_tree.rs`.
//!
//! Enumeration order: lexicographic, an edge outside the tree before the same edge inside; found by counting the trees
//! that a choice leaves.
//!
//! References: J. B. Kruskal, "On the shortest spanning subtree of a graph and the traveling salesman problem", 1956;
//! R. C. Prim, "Shortest connection networks and some generalizations", 1957; the sums: see `matrix_tree.rs`.

use super::arborescence::largest;
use super::condition;
use super::latent::{self, LatentEntry};
use super::matrix_tree::{self, Along, Arc};
use super::moves;
use super::precise::{self, Real};
use super::{Code, Maximum, Move, Precise, PreciseSums, Structure, Sums, check_numbers};
use crate::Error;
use rand_chacha::rand_core::Rng;
use std::cell::RefCell;

/// The spanning trees of a connected graph.
///
/// ```
/// use gumbel::structure::{SpanningTree, Structure, Sums};
/// let z = SpanningTree::new(4, &[(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])?;
/// let mut tree = [0; 5];
/// let maximum = z.argmax(&[1.0, -3.0, 2.0, -1.0, -2.0], &mut tree, &mut z.scratch())?;
/// assert_eq!((tree, maximum.value), ([1, 0, 1, 1, 0], 2.0));
/// assert_eq!(z.states(), Some(8));
/// let mut marginals = [0.0; 5];
/// z.marginals(&[0.0; 5], &mut marginals)?;
/// assert!((marginals[4] - 0.5).abs() < 1e-6); // the diagonal is in every second tree
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SpanningTree {
    nodes: usize,
    edges: Vec<(usize, usize)>,
    ln_states: f64,
    /// All pairs in lexicographic order.
    complete: bool,
}

/// The way from a node to the root of a tree.
#[derive(Debug, Clone, Copy)]
struct Up {
    parent: usize,
    edge: usize,
    depth: usize,
}

/// Working memory of a walk: a search asks often, and must not ask for memory every time.
#[derive(Default)]
struct Walk {
    up: Vec<Up>,
    open: Vec<usize>,
    /// Edges of the tree node by node, and where those of a node begin.
    edges: Vec<(usize, usize)>,
    starts: Vec<usize>,
}

thread_local! {
    static WALK: RefCell<Walk> = RefCell::default();
}

impl SpanningTree {
    /// Calls `f` with the tree as it hangs from node 0.
    fn with_ways_up<T>(&self, assignment: &[u32], f: impl FnOnce(&[Up]) -> T) -> T {
        WALK.with_borrow_mut(|walk| {
            let Walk { up, open, edges, starts } = walk;
            let taken = || self.edges.iter().enumerate().filter(|(e, _)| assignment[*e] != 0);
            starts.clear();
            starts.resize(self.nodes + 2, 0);
            for (_, (i, j)) in taken() {
                starts[*i + 2] += 1;
                starts[*j + 2] += 1;
            }
            (2..self.nodes + 2).for_each(|v| starts[v] += starts[v - 1]);
            edges.clear();
            edges.resize(2 * taken().count(), (0, 0));
            for (e, (i, j)) in taken() {
                for (node, other) in [(*i, *j), (*j, *i)] {
                    edges[starts[node + 1]] = (other, e);
                    starts[node + 1] += 1;
                }
            }
            up.clear();
            up.resize(self.nodes, Up { parent: 0, edge: 0, depth: 0 });
            open.clear();
            open.push(0);
            while let Some(node) = open.pop() {
                for (other, edge) in &edges[starts[node]..starts[node + 1]] {
                    // Whoever has been reached is the root, or has a depth.
                    if *other != 0 && up[*other].depth == 0 {
                        up[*other] = Up { parent: node, edge: *edge, depth: up[node].depth + 1 };
                        open.push(*other);
                    }
                }
            }
            f(up)
        })
    }
}

/// Working memory of [`SpanningTree`].
#[derive(Debug, Clone)]
pub struct SpanningTreeScratch {
    /// Edges by descending potential, as integers.
    order: Vec<u64>,
    /// Union-find: a node of the same component.
    parent: Vec<u32>,
    /// The best edge from the tree to each node, and the tree's end of it.
    best: Vec<f32>,
    from: Vec<u32>,
}

impl SpanningTree {
    /// The largest number of edges; n * n is limited to the same.
    pub const MAX_POTENTIALS: usize = 1 << 24;

    /// The largest number of trees that is enumerated: counts have to be exact in f64.
    const MAX_STATES: f64 = (1u64 << 32) as f64;

    /// Spanning trees of the connected graph with these edges; nodes are counted from 0.
    ///
    /// # Errors
    ///
    /// No node, too many nodes or edges, an edge out of range, or a graph that is not connected.
    pub fn new(nodes: usize, edges: &[(usize, usize)]) -> Result<Self, Error> {
        if nodes == 0 || nodes.checked_mul(nodes).is_none_or(|p| p > Self::MAX_POTENTIALS) {
            let expected = format!("at least 1, and n * n at most {}", Self::MAX_POTENTIALS);
            return Err(Error::range("nodes", nodes, expected));
        }
        if edges.len() > Self::MAX_POTENTIALS {
            return Err(Error::range("edges", edges.len(), format!("at most {}", Self::MAX_POTENTIALS)));
        }
        if let Some((i, j)) = edges.iter().find(|(i, j)| i == j || *i.max(j) >= nodes) {
            let expected = format!("two different nodes out of {nodes}, counted from 0");
            return Err(Error::range("edge", format!("({i}, {j})"), expected));
        }
        let mut parent: Vec<u32> = (0..nodes as u32).collect();
        let joined = edges.iter().filter(|(i, j)| join(&mut parent, *i, *j)).count();
        if joined + 1 < nodes {
            return Err(Error::range("edges", format!("{} components", nodes - joined), "a connected graph"));
        }
        let pairs = (0..nodes).flat_map(|i| (i + 1..nodes).map(move |j| (i, j)));
        let complete = edges.len() == nodes * (nodes - 1) / 2 && pairs.eq(edges.iter().copied());
        let mut tree = SpanningTree { nodes, edges: edges.to_vec(), ln_states: 0.0, complete };
        tree.ln_states = match complete {
            true => nodes.saturating_sub(2) as f64 * (nodes as f64).ln(), // Cayley
            false => matrix_tree::log_partition(nodes, &tree.arcs(&vec![0.0f32; edges.len()])?.0)?,
        };
        Ok(tree)
    }

    /// Spanning trees of the complete graph; its edges are (0, 1), (0, 2), ..., (0, n - 1), (1, 2), ...
    ///
    /// # Errors
    ///
    /// No node, or too many.
    pub fn complete(nodes: usize) -> Result<Self, Error> {
        let pairs = (0..nodes.min(1 << 12)).flat_map(|i| (i + 1..nodes.min(1 << 12)).map(move |j| (i, j)));
        SpanningTree::new(nodes, &pairs.collect::<Vec<_>>())
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The edges, in the order of the potentials.
    pub fn edges(&self) -> &[(usize, usize)] {
        &self.edges
    }

    /// The allowed edges in both directions, less those into node 0, and the indices of their edges.
    fn arcs<T: Real>(&self, potentials: &[T]) -> Result<(Vec<Arc>, Vec<usize>), Error> {
        check_numbers("potential", potentials)?;
        let allowed = self.edges.iter().zip(potentials).enumerate().filter(|(_, (_, h))| **h > T::NEG_INFINITY);
        Ok(allowed
            .flat_map(|(e, ((i, j), h))| {
                let arc = |parent: &usize, child: &usize| Arc {
                    parent: *parent as u32,
                    child: *child as u32,
                    log_weight: h.wide(),
                };
                [(arc(i, j), e), (arc(j, i), e)]
            })
            .filter(|(arc, _)| arc.child != 0)
            .unzip())
    }

    fn kruskal(&self, potentials: &[f32], assignment: &mut [u32], s: &mut SpanningTreeScratch) -> usize {
        self.sort(potentials, |h| *h, s);
        self.join_in_order(assignment, s)
    }

    /// Puts the allowed edges into descending order of their potentials, rounded to f32.
    fn sort<T: Real>(&self, potentials: &[T], rounded: impl Fn(&T) -> f32, s: &mut SpanningTreeScratch) {
        s.order.clear();
        // Descending potentials as ascending integers: the bits of an f32 are ordered but for the sign. Zeros of both
        // signs need not be equal here.
        let key = |h: f32| if h.is_sign_negative() { h.to_bits() } else { !h.to_bits() & (u32::MAX >> 1) };
        let allowed = potentials.iter().enumerate().filter(|(_, h)| **h > T::NEG_INFINITY);
        s.order.extend(allowed.map(|(e, h)| (key(rounded(h)) as u64) << 32 | e as u64));
        s.order.sort_unstable();
    }

    /// Takes the edges in order, but for those that would close a cycle.
    fn join_in_order(&self, assignment: &mut [u32], s: &mut SpanningTreeScratch) -> usize {
        s.parent.iter_mut().enumerate().for_each(|(i, p)| *p = i as u32);
        let mut joined = 0;
        for key in &s.order {
            if joined + 1 == self.nodes {
                break;
            }
            let edge = *key as u32 as usize;
            if join(&mut s.parent, self.edges[edge].0, self.edges[edge].1) {
                assignment[edge] = 1;
                joined += 1;
            }
        }
        joined
    }

    /// `best` holds the best edge from the tree to each node; `largest` finds the place of its largest value.
    fn prim<T: Real>(
        &self,
        potentials: &[T],
        assignment: &mut [u32],
        best: &mut [T],
        largest: impl Fn(&[T]) -> Option<usize>,
        s: &mut SpanningTreeScratch,
    ) -> usize {
        let n = self.nodes;
        // The edges of i to j > i begin behind those of all smaller nodes.
        let start = |i: usize| i * (2 * n - i - 1) / 2;
        let edge = |i: usize, j: usize| start(i.min(j)) + i.max(j) - i.min(j) - 1;
        // Nodes outside the tree, with the best edges to them: the first `left` entries.
        let (from, outside) = (&mut s.from, &mut s.parent);
        best.fill(T::NEG_INFINITY);
        outside.iter_mut().enumerate().for_each(|(i, o)| *o = i as u32 + 1);
        let mut newest = 0;
        for left in (1..n).rev() {
            for ((best, from), o) in best.iter_mut().zip(from.iter_mut()).zip(&*outside).take(left) {
                let h = potentials[edge(newest, *o as usize)];
                (*best, *from) = if h > *best { (h, newest as u32) } else { (*best, *from) };
            }
            let next = largest(&best[..left]).expect("a node is left");
            if best[next] == T::NEG_INFINITY {
                return n - 1 - left;
            }
            newest = outside[next] as usize;
            assignment[edge(from[next] as usize, newest)] = 1;
            best.swap(next, left - 1);
            from.swap(next, left - 1);
            outside.swap(next, left - 1);
        }
        n - 1
    }

    /// Number of trees that contain the edges chosen so far (whose components are given) and other edges from `first`
    /// on.
    fn count(&self, component: &[u32], first: usize) -> usize {
        // Components by number, that of node 0 first.
        let mut number = vec![u32::MAX; self.nodes];
        let mut count = 0;
        for c in component {
            if number[*c as usize] == u32::MAX {
                number[*c as usize] = count;
                count += 1;
            }
        }
        let node = |v: usize| number[component[v] as usize];
        let arcs = self.edges[first..].iter().flat_map(|(i, j)| [(node(*i), node(*j)), (node(*j), node(*i))]);
        let arcs: Vec<Arc> = arcs
            .filter(|(p, c)| p != c && *c != 0)
            .map(|(parent, child)| Arc { parent, child, log_weight: 0.0 })
            .collect();
        matrix_tree::log_partition(count as usize, &arcs).map_or(0, |log| log.exp().round() as usize)
    }
}

/// Joins the components of two nodes; whether they were different.
fn join(parent: &mut [u32], i: usize, j: usize) -> bool {
    let mut find = |mut v: usize| {
        while parent[v] as usize != v {
            parent[v] = parent[parent[v] as usize]; // halves the path
            v = parent[v] as usize;
        }
        v
    };
    let (i, j) = (find(i), find(j));
    parent[i.max(j)] = i.min(j) as u32;
    i != j
}

impl Structure for SpanningTree {
    type Scratch = SpanningTreeScratch;

    fn potentials(&self) -> usize {
        self.edges.len()
    }

    fn unary(&self) -> usize {
        self.edges.len()
    }

    fn variables(&self) -> usize {
        self.edges.len()
    }

    fn ln_states(&self) -> f64 {
        self.ln_states
    }

    fn states(&self) -> Option<usize> {
        let states = self.ln_states.exp().round();
        (states <= Self::MAX_STATES).then_some(states as usize)
    }

    /// O(E) eliminations: for enumeration, not for loops that are hot.
    fn state(&self, mut index: usize, assignment: &mut [u32]) {
        let mut parent: Vec<u32> = (0..self.nodes as u32).collect();
        assignment.fill(0);
        for (e, (i, j)) in self.edges.iter().enumerate() {
            let component: Vec<u32> = (0..self.nodes)
                .map(|mut v| {
                    while parent[v] as usize != v {
                        v = parent[v] as usize;
                    }
                    v as u32
                })
                .collect();
            if component.iter().all(|c| *c == 0) {
                break; // a tree already
            }
            if component[*i] == component[*j] {
                continue; // would close a cycle
            }
            let without = self.count(&component, e + 1);
            if index >= without {
                index -= without;
                assignment[e] = 1;
                join(&mut parent, *i, *j);
            }
        }
    }

    fn code(&self) -> Code {
        Code::Indicators
    }

    fn scratch(&self) -> SpanningTreeScratch {
        SpanningTreeScratch {
            order: Vec::with_capacity(if self.complete { 0 } else { self.edges.len() }),
            parent: vec![0; self.nodes],
            best: vec![0.0; self.nodes],
            from: vec![0; self.nodes],
        }
    }

    fn argmax(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut SpanningTreeScratch,
    ) -> Result<Maximum, Error> {
        check_numbers("potential", potentials)?;
        assignment.fill(0);
        let joined = match self.complete {
            true => {
                let mut best = std::mem::take(&mut scratch.best);
                let joined = self.prim(potentials, assignment, &mut best, crate::math::argmax, scratch);
                scratch.best = best;
                joined
            }
            false => self.kruskal(potentials, assignment, scratch),
        };
        if joined + 1 < self.nodes {
            return Err(self.not_joined());
        }
        Ok(Maximum::proved(self.score(potentials, assignment)))
    }

    fn has_moves(&self) -> bool {
        true
    }

    /// An edge for another: each that is not in the tree takes the place of the worst on the path between its ends.
    /// O(E n).
    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        self.with_ways_up(assignment, |up| {
            for (e, (i, j)) in self.edges.iter().enumerate().filter(|(e, _)| assignment[*e] == 0) {
                let (mut a, mut b) = (*i, *j);
                let mut worst = (f64::INFINITY, e);
                while a != b {
                    // The deeper end goes up.
                    let end = if up[a].depth >= up[b].depth { &mut a } else { &mut b };
                    let Up { parent, edge, .. } = up[*end];
                    let potential = potentials[edge] as f64;
                    if potential < worst.0 {
                        worst = (potential, edge);
                    }
                    *end = parent;
                }
                moves::best(moves, e, [(worst.1, potentials[e] as f64 - worst.0)].into_iter());
            }
        })
    }

    fn make(&self, change: Move, assignment: &mut [u32]) -> bool {
        let (into, out) = (change.place as usize, change.value as usize);
        if assignment[out] == 0 || assignment[into] == 1 {
            return false;
        }
        // The path between the ends of the new edge must lead over the old one.
        let closes = self.with_ways_up(assignment, |up| {
            let (mut a, mut b) = self.edges[into];
            while a != b {
                let end = if up[a].depth >= up[b].depth { &mut a } else { &mut b };
                if up[*end].edge == out {
                    return true;
                }
                *end = up[*end].parent;
            }
            false
        });
        if closes {
            (assignment[out], assignment[into]) = (0, 1);
        }
        closes
    }

    /// Edges that must be there get a better potential than all others.
    fn condition(&self, known: &[u32], potentials: &mut [f32]) -> Result<f64, Error> {
        let lost = condition::elements(known, potentials)?;
        let mut sure = self.edges.iter().zip(known).filter(|(_, value)| **value == 1).map(|(edge, _)| edge).peekable();
        if sure.peek().is_some() {
            let mut parent: Vec<u32> = (0..self.nodes as u32).collect();
            if let Some((i, j)) = sure.find(|(i, j)| !join(&mut parent, *i, *j)) {
                let detail = format!("the edge ({i}, {j}) closes a cycle of edges that must be there");
                return Err(Error::Infeasible { detail });
            }
        }
        Ok(lost)
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        out.iter_mut().zip(assignment).filter(|(_, z)| **z != 0).for_each(|(o, _)| *o += scale);
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        potentials.iter().zip(assignment).map(|(h, z)| if *z != 0 { *h as f64 } else { 0.0 }).sum()
    }
}

/// Comparisons only: always proved.
impl Precise for SpanningTree {
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        scratch: &mut SpanningTreeScratch,
    ) -> Result<Maximum, Error> {
        check_numbers("potential", potentials)?;
        assignment.fill(0);
        let joined = match self.complete {
            true => self.prim(potentials, assignment, &mut vec![0.0; self.nodes], |x| Some(largest(x).0), scratch),
            false => {
                // Rounding keeps the order: only among equals of f32 the rest of the digits decides.
                self.sort(potentials, |h| *h as f32, scratch);
                let of = |key: &u64| potentials[*key as u32 as usize];
                for equal in scratch.order.chunk_by_mut(|a, b| a >> 32 == b >> 32).filter(|equal| equal.len() > 1) {
                    equal.sort_by(|a, b| of(b).total_cmp(&of(a)));
                }
                self.join_in_order(assignment, scratch)
            }
        };
        if joined + 1 < self.nodes {
            return Err(self.not_joined());
        }
        let chosen = || potentials.iter().zip(assignment.iter()).map(|(h, z)| if *z != 0 { *h } else { 0.0 });
        Ok(Maximum::proved(precise::careful(chosen().sum(), potentials, chosen())))
    }
}

impl PreciseSums for SpanningTree {
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }
}

impl SpanningTree {
    fn not_joined(&self) -> Error {
        Error::Infeasible { detail: "the allowed edges do not join all nodes".into() }
    }

    fn marginals_of<T: Real>(&self, potentials: &[T], marginals: &mut [f32]) -> Result<f64, Error> {
        let (arcs, edge) = self.arcs(potentials)?;
        let (log_partition, found) = matrix_tree::marginals(self.nodes, &arcs, Along::Nothing)?;
        marginals.fill(0.0);
        edge.iter().zip(found).for_each(|(e, m)| marginals[*e] += m.probability as f32);
        marginals.iter_mut().for_each(|m| *m = m.min(1.0));
        Ok(log_partition)
    }
}

impl Sums for SpanningTree {
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        matrix_tree::log_partition(self.nodes, &self.arcs(potentials)?.0)
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        let (arcs, edge) = self.arcs(potentials)?;
        let along = if scale != 0.0 { Along::Weights } else { Along::Nothing };
        let (log_partition, found) = matrix_tree::marginals(self.nodes, &arcs, along)?;
        if scale != 0.0 {
            edge.iter().zip(&found).for_each(|(e, m)| gradient[*e] += scale * m.derivative as f32);
        }
        let mean: f64 = arcs.iter().zip(&found).map(|(arc, m)| m.probability * arc.log_weight).sum();
        Ok(self.ln_states - log_partition + mean)
    }

    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        check_numbers("direction", direction)?;
        let (arcs, edge) = self.arcs(potentials)?;
        let of_arcs: Vec<f64> = edge.iter().map(|i| direction[*i] as f64).collect();
        let (_, found) = matrix_tree::marginals(self.nodes, &arcs, Along::Direction(&of_arcs))?;
        edge.iter().zip(&found).for_each(|(i, m)| out[*i] += scale * m.derivative as f32);
        Ok(())
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        let (arcs, edge) = self.arcs(potentials)?;
        assignment.fill(0);
        matrix_tree::sample(self.nodes, &arcs, generator)?[1..].iter().for_each(|arc| assignment[edge[*arc]] = 1);
        Ok(())
    }
}

/// `spanning-tree:N` in the registry.
pub(super) fn entry() -> LatentEntry {
    LatentEntry::new("spanning-tree", "N", "spanning trees of the complete graph with N nodes", |sizes| {
        let n = sizes.whole(sizes.as_str())?;
        sizes.at_least(3, n)?;
        sizes.at_most(latent::pairs(n))?;
        Ok((SpanningTree::complete(n).map_err(|e| sizes.explain(e))?.into(), n.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::argmax_batch;
    use crate::structure::brute_force::{self, Random, Values};

    /// A random connected graph with up to five nodes (rarely): a random tree and other edges, parallel ones among
    /// them.
    fn graph(random: &mut Random) -> SpanningTree {
        let most = if random.below(8) == 0 { 5 } else { 4 };
        let nodes = 1 + random.below(most);
        if random.below(3) == 0 {
            return SpanningTree::complete(nodes).unwrap();
        }
        let mut edges: Vec<_> = (1..nodes).map(|i| (i, random.below(i))).collect();
        for _ in 0..random.below(4) * (nodes > 1) as usize {
            let i = random.below(nodes);
            edges.push((i, (i + 1 + random.below(nodes - 1)) % nodes));
        }
        for i in (1..edges.len()).rev() {
            edges.swap(i, random.below(i + 1));
        }
        SpanningTree::new(nodes, &edges).unwrap()
    }

    #[test]
    fn agrees_with_brute_force() {
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(43, case);
            let (tree, values) = (graph(random), Values::ALL[random.below(5)]);
            let potentials = values.vector(tree.potentials(), random);
            let what = (case, values, &tree);
            brute_force::check_argmax(&tree, &potentials, &mut tree.scratch(), &what);
            brute_force::check_sums(&tree, &potentials, &what);
            if values != Values::Extreme {
                brute_force::check_kl(&tree, &potentials, &what);
                brute_force::check_covariance(&tree, &potentials, &what);
            } else {
                let mut gradient = vec![0.0; potentials.len()];
                let kl = tree.kl_to_uniform(&potentials, 1.0, &mut gradient).unwrap();
                assert!(!kl.is_nan() && !gradient.iter().any(|g| g.is_nan()), "{what:?}: {kl} {gradient:?}");
            }
        }
    }

    #[test]
    fn states_are_the_spanning_trees() {
        for case in 0..500 {
            let tree = graph(&mut Random::new(44, case));
            let mut z = vec![0; tree.variables()];
            let states: Vec<_> = (0..tree.states().unwrap())
                .map(|s| {
                    tree.state(s, &mut z);
                    z.clone()
                })
                .collect();
            assert!(states.is_sorted_by(|a, b| a < b));
            let spans = |z: u32| {
                let mut parent: Vec<u32> = (0..tree.nodes as u32).collect();
                let chosen = tree.edges.iter().enumerate().filter(|(e, _)| z >> e & 1 == 1);
                z.count_ones() as usize + 1 == tree.nodes && { chosen }.all(|(_, (i, j))| join(&mut parent, *i, *j))
            };
            assert_eq!(states.len(), (0..1u32 << tree.variables()).filter(|z| spans(*z)).count(), "{tree:?}");
            let code = |z: &Vec<u32>| z.iter().enumerate().map(|(e, z)| z << e).sum();
            assert!(states.iter().all(|z| spans(code(z))));
        }
        assert_eq!(SpanningTree::complete(7).unwrap().states(), Some(16807));
        assert_eq!(SpanningTree::complete(100).unwrap().states(), None);
    }

    #[test]
    fn prim_and_kruskal_agree_on_larger_graphs() {
        for case in 0..200 {
            let random = &mut Random::new(45, case);
            let prim = SpanningTree::complete(2 + random.below(40)).unwrap();
            let mut edges = prim.edges.clone();
            edges.reverse();
            let kruskal = SpanningTree::new(prim.nodes, &edges).unwrap();
            assert!(prim.nodes < 3 || !kruskal.complete);
            assert!((prim.ln_states - kruskal.ln_states).abs() < 1e-9);
            let values = Values::ALL[random.below(5)];
            let mut potentials = values.vector(edges.len(), random);
            let mut z = vec![0; edges.len()];
            let a = prim.argmax(&potentials, &mut z, &mut prim.scratch());
            potentials.reverse();
            let b = kruskal.argmax(&potentials, &mut z, &mut kruskal.scratch());
            match (a, b) {
                (Ok(a), Ok(b)) => {
                    let tolerance = 1e-12 * brute_force::magnitude(&potentials);
                    assert!((a.value - b.value).abs() <= tolerance, "{case} {values:?}");
                }
                (a, b) => assert!(a.is_err() && b.is_err(), "{case}"),
            }
        }
    }

    #[test]
    fn samples_follow_the_distribution() {
        let tree = SpanningTree::new(4, &[(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (2, 0)]).unwrap();
        brute_force::check_samples(&tree, &[0.3, -1.0, 0.7, 1.5, f32::NEG_INFINITY, 0.0], 40_000, 46);
        brute_force::check_samples(&SpanningTree::complete(5).unwrap(), &[0.0; 10], 40_000, 47);
    }

    #[test]
    fn sums_of_large_potentials() {
        for case in 0..2000 {
            let random = &mut Random::new(49, case);
            let tree = graph(random);
            let spread = [100.0, 400.0, 1e4][random.below(3)];
            let h: Vec<f32> = (0..tree.potentials()).map(|_| spread * (2.0 * random.uniform() - 1.0)).collect();
            brute_force::check_sums(&tree, &h, &(case, &tree, &h));
            brute_force::check_kl(&tree, &h, &(case, &tree, &h));
            brute_force::check_covariance(&tree, &h, &(case, &tree, &h));
        }
    }

    #[test]
    fn large_graphs_have_consistent_sums() {
        let tree = SpanningTree::complete(30).unwrap();
        let random = &mut Random::new(48, 0);
        for spread in [1.0f32, 30.0, 1e3] {
            let h: Vec<f32> = (0..tree.potentials()).map(|_| spread * random.normal()).collect();
            let mut marginals = vec![0.0; h.len()];
            tree.marginals(&h, &mut marginals).unwrap();
            let total: f64 = marginals.iter().map(|m| *m as f64).sum();
            assert!((total - 29.0).abs() < 1e-5, "{spread}: {total} edges");
        }
        let mut marginals = vec![0.0; tree.potentials()];
        let ln_states = tree.marginals(&vec![0.0; tree.potentials()], &mut marginals).unwrap();
        assert!((ln_states - tree.ln_states()).abs() < 1e-10);
        assert!(marginals.iter().all(|m| (m - 2.0 / 30.0).abs() < 1e-7));
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(SpanningTree::new(0, &[]).is_err());
        assert!(SpanningTree::new(2, &[]).is_err(), "not connected");
        assert!(SpanningTree::new(4, &[(0, 1), (2, 3), (3, 2)]).is_err(), "not connected");
        assert!(SpanningTree::new(2, &[(0, 1), (1, 1)]).is_err(), "self loop");
        assert!(SpanningTree::new(2, &[(0, 2)]).is_err());
        assert!(SpanningTree::complete(usize::MAX).is_err());
        assert!(SpanningTree::complete(5000).is_err());
        let tree = SpanningTree::complete(3).unwrap();
        let (mut z, mut s) = ([0; 3], tree.scratch());
        let nan = tree.argmax(&[0.0, f32::NAN, 0.0], &mut z, &mut s).unwrap_err();
        assert_eq!(nan, Error::NotANumber { what: "potential", index: 1 });
        assert!(tree.marginals(&[0.0, 0.0, f32::INFINITY], &mut [0.0; 3]).is_err());
        let cut = [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0];
        assert!(matches!(tree.argmax(&cut, &mut z, &mut s), Err(Error::Infeasible { .. })));
        assert!(matches!(tree.log_partition(&cut), Err(Error::Infeasible { .. })));
        let mut generator = crate::noise::Noise::new(0, crate::noise::Purpose::User(0), 0).generator_at(0);
        assert!(matches!(tree.sample(&cut, &mut generator, &mut z), Err(Error::Infeasible { .. })));
        assert!(argmax_batch(&tree, &[0.0; 4], &mut z).is_err());
        let alone = SpanningTree::complete(1).unwrap();
        assert_eq!((alone.states(), alone.potentials()), (Some(1), 0));
        assert_eq!(alone.argmax(&[], &mut [], &mut alone.scratch()).unwrap().value, 0.0);
        assert_eq!(alone.marginals(&[], &mut []).unwrap(), 0.0);
    }
}
