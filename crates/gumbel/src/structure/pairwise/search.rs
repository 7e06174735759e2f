//! Branch and bound on one connected component, in signs `s = 2z - 1`: maximise `g's + sum_{i<j} J_ij s_i s_j`.
//!
//! The variables are put into a static order; the last position is fixed first, so that what remains is always a
//! leading block. Four bounds decide at a node with k variables left:
//!
//! 1. persistency: `|g_p| >= sum_i |J_pi|` fixes `s_p`;
//! 2. the concave quadratic bound of [`bound`](super::bound), tracked along the path in O(k);
//! 3. `sum_i |g_i| + sum_{i<j} |J_ij|` after each of the two choices of `s_p`;
//! 4. the concave bound again, renewed in O(k^2) every few levels with a diagonal made for that level.

use super::bound::{Anchor, Diagonal, dot};
use super::dense::{Chunk, LANES, Square};
use std::time::Instant;

/// Components of this size on are searched with anchors, unless a probe solves them.
pub(super) const ANCHORED: usize = 26;
/// Above this size a component gets no anchors: one Newton step, O(m^3), would take too long, and there is no hope.
const LARGEST: usize = 256;
/// Up to this size the search is so short that fewer and weaker anchors, which cost less, are better.
const EASY: usize = 44;
/// The least and the most Newton steps for the first anchor, of easy components and of others, and for each of the
/// anchors that follow, which start from the one before.
const FIRST_STEPS: [[usize; 2]; 2] = [[4, 8], [6, 8]];
const LATER_STEPS: [usize; 2] = [1; 2];
/// Weight of the barrier at the end, per value of a variable.
const FINAL_MU: f64 = 0.05;
/// Rounding of the bounds, in units of the sum of all magnitudes.
pub(super) const SLACK: f64 = 1e-13;
/// Nodes between two looks at the clock.
const CLOCK: u32 = 128;
/// A probe goes on while it is thought to need at most so many times the nodes that it may visit.
const HOPE: f64 = 4.0;

/// Choices that cost or save time and never change an answer.
#[derive(Debug)]
pub(super) struct Settings {
    /// Components of this size on are searched with anchors.
    pub(super) anchored: usize,
    /// There are anchors for the multiples of this number of remaining variables, in easy components and in others.
    pub(super) spacing: [usize; 2],
    /// No anchors below this number of remaining variables.
    pub(super) smallest: usize,
    /// The most nodes visited without anchors where there are to be some.
    pub(super) probe: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { anchored: ANCHORED, spacing: [LANES, 6], smallest: 12, probe: 20_000 }
    }
}

/// One component: its problem in search order, and what depends on pair weights only.
#[derive(Debug, Default)]
pub(super) struct Component {
    /// Variable at each position.
    pub(super) variables: Vec<usize>,
    size: usize,
    /// Couplings, symmetric with a zero diagonal.
    j: Square,
    /// Those to the positions before: the lower triangle.
    before: Square,
    /// Fields.
    g: Vec<f64>,
    /// `sum_{i<p} |J_pi|` of each position.
    below: Vec<f64>,
    /// `sum |J|` among the first k positions, `[m + 1]`.
    inside: Vec<f64>,
    anchors: Vec<Anchor>,
    /// Index of the anchor of each number of remaining variables, or NONE.
    anchor_at: Vec<u8>,
    /// Best signs known.
    best: Vec<f64>,
    integral: bool,
}

const NONE: u8 = u8::MAX;

/// Working memory shared by all components.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) settings: Settings,
    diagonal: Diagonal,
    /// `E[gg']` of the level at hand.
    moments: Square,
    fields: Vec<f64>,
    signs: Vec<f64>,
    local: Vec<f64>,
    tabu: Vec<u32>,
    /// Fields of the nodes on the path, one row for each number of remaining variables, as long as those of `j`; zero
    /// behind the remaining ones.
    g: Vec<Chunk>,
    /// `L^-1 g` likewise, of no meaning behind the remaining ones.
    y: Vec<Chunk>,
    /// The same for a new anchor, before the sign of the variable fixed last.
    renewed: Vec<Chunk>,
    path: Vec<f64>,
    nodes: Vec<Node>,
    keys: Vec<f64>,
    order: Vec<usize>,
}

/// How a search ended: how much the bound exceeds the value of the best signs.
pub(super) struct Outcome {
    pub(super) gap: f64,
}

impl Component {
    /// Takes a component of a problem in `z`: unary gains `u` and weights `w` (`[n, n]`, symmetric).
    pub(super) fn load(&mut self, variables: &[usize], u: &[f64], (w, n): (&[f64], usize), buffers: &mut Buffers) {
        let m = variables.len();
        self.size = m;
        // Room at once for the largest component that there may be, where that is little.
        let most = n.min(64);
        let (rows, chunks) = (most.div_ceil(LANES) * LANES, most.div_ceil(LANES));
        for path in [&mut buffers.g, &mut buffers.y, &mut buffers.renewed] {
            path.reserve(((most + 1) * chunks).saturating_sub(path.len()));
        }
        self.j.reserve(rows);
        self.before.reserve(rows);
        order(variables, w, n, buffers);
        self.variables.clear();
        self.variables.extend(buffers.order.iter().rev());
        self.j.clear(m);
        self.before.clear(m);
        self.below.clear();
        self.inside.clear();
        self.inside.push(0.0);
        let mut integral = true;
        let mut inside = 0.0;
        for (p, &v) in self.variables.iter().enumerate() {
            let row = &w[v * n..][..n];
            let out = &mut self.j.row_mut(p)[..m];
            out.iter_mut().zip(&self.variables).for_each(|(o, &q)| *o = 0.25 * row[q]);
            self.before.row_mut(p)[..p].copy_from_slice(&out[..p]);
            let below: f64 = out[..p].iter().map(|j| j.abs()).sum();
            self.below.push(below);
            inside += below;
            self.inside.push(inside);
            integral = integral && self.variables.iter().all(|&q| row[q].fract() == 0.0);
        }
        // Beyond this, rounding errors of the bounds are no longer small beside 1.
        self.integral = integral && inside < 1e6;
        self.anchors.clear();
        self.anchor_at.clear();
        self.best.clear();
        self.fields(u);
    }

    /// Takes new unary gains.
    #[inline(always)]
    pub(super) fn fields(&mut self, u: &[f64]) {
        let m = self.size;
        self.g.clear();
        for (p, &v) in self.variables.iter().enumerate() {
            self.g.push(0.5 * u[v] + self.j.row(p)[..m].iter().sum::<f64>());
        }
    }

    /// The sign found for the variable at a position.
    pub(super) fn is_one(&self, position: usize) -> bool {
        self.best[position] > 0.0
    }

    /// Finds the best signs. `start` gives values to begin with; with `again`, anchors of the last search are tried.
    pub(super) fn solve(
        &mut self,
        u: &[f64],
        start: Option<&[u32]>,
        again: bool,
        deadline: Option<Instant>,
        buffers: &mut Buffers,
    ) -> Outcome {
        crate::vectorised!(self.solve_inlined(u, start, again, deadline, buffers))
    }

    #[inline(always)]
    fn solve_inlined(
        &mut self,
        u: &[f64],
        start: Option<&[u32]>,
        again: bool,
        deadline: Option<Instant>,
        buffers: &mut Buffers,
    ) -> Outcome {
        let m = self.size;
        let scale = self.g.iter().map(|g| g.abs()).sum::<f64>() + self.inside[m];
        let integral = self.integral && scale < 1e6 && self.variables.iter().all(|&v| u[v].fract() == 0.0);
        let mut value = self.initial(start, again, buffers);
        // Nothing above the best value within this is looked for.
        let slack = if integral { 1.0 - 1e-6 } else { SLACK * scale };
        let chunks = self.j.stride() / LANES;
        for rows in [&mut buffers.g, &mut buffers.y, &mut buffers.renewed] {
            rows.resize((m + 1) * chunks, [0.0; LANES]);
        }
        buffers.path.resize(m, 0.0);
        buffers.nodes.resize(m + 1, Node::default());
        if self.anchors.is_empty() {
            self.anchor_at.clear();
            self.anchor_at.resize(m + 1, NONE);
        }
        // Factors cost some m^3 operations: an easy instance is solved in that time without any, or, if its fields have
        // not changed much, with those of the last search.
        let Settings { anchored, probe, .. } = buffers.settings;
        let nodes = if m < anchored && deadline.is_none() { None } else { Some((m * m * m / 16).min(probe) as u64) };
        if nodes != Some(0) && self.search(&mut value, slack, None, nodes, buffers).is_none() {
            return Outcome { gap: 0.0 };
        }
        self.make_anchors(value, deadline, buffers);
        let open = self.search(&mut value, slack, deadline, None, buffers);
        let mut gap = 0.0;
        if let Some(open) = open
            && open > value
        {
            gap = (self.root_bound(value, buffers).min(open) - value).max(0.0);
            if integral && gap < 1.0 - 1e-6 {
                gap = 0.0;
            }
        }
        Outcome { gap }
    }

    /// Searches for better signs than `best`, whose value is given and updated. If time or allowed nodes run out before
    /// the end, returns a bound of what was left out.
    #[inline(always)]
    fn search(
        &mut self,
        value: &mut f64,
        slack: f64,
        deadline: Option<Instant>,
        allowed: Option<u64>,
        buffers: &mut Buffers,
    ) -> Option<f64> {
        let m = self.size;
        let chunks = self.j.stride() / LANES;
        let fields = buffers.g[m * chunks..][..chunks].as_flattened_mut();
        fields[..m].copy_from_slice(&self.g);
        fields[m..].fill(0.0);
        let mut search = Search {
            m,
            chunks,
            before: &self.before,
            below: &self.below,
            inside: &self.inside,
            anchors: &self.anchors,
            anchor_at: &self.anchor_at,
            g: &mut buffers.g,
            y: &mut buffers.y,
            renewed: &mut buffers.renewed,
            sums: [[0.0; LANES]; 2],
            path: &mut buffers.path,
            nodes: &mut buffers.nodes,
            best: &mut self.best,
            value: *value,
            slack,
            deadline,
            allowed,
            visited: 0,
            clock: CLOCK,
        };
        let open = search.run();
        *value = search.value;
        open
    }

    /// Leaves good signs in `best` and returns their value: given ones improved by flips, and without those a short
    /// tabu search.
    #[inline(always)]
    fn initial(&mut self, start: Option<&[u32]>, again: bool, buffers: &mut Buffers) -> f64 {
        let m = self.size;
        let Buffers { signs, local, tabu, .. } = buffers;
        signs.clear();
        match start {
            Some(z) => signs.extend(self.variables.iter().map(|&v| if z[v] == 1 { 1.0 } else { -1.0 })),
            None => signs.extend(self.g.iter().map(|g| if *g >= 0.0 { 1.0 } else { -1.0 })),
        }
        local.clear();
        local.extend((0..m).map(|i| self.g[i] + dot(self.j.row(i), signs)));
        let mut value = 0.0;
        for i in 0..m {
            value += 0.5 * signs[i] * (self.g[i] + local[i]);
        }
        self.best.clear();
        self.best.extend_from_slice(signs);
        let mut best = value;
        // Flip the best variable that is not forbidden for the moment, also downhill, until that has not helped for
        // long.
        tabu.clear();
        tabu.resize(m, 0);
        let patience = if again || m < ANCHORED { 1 } else { 2 * m as u32 };
        let (mut step, mut idle) = (1u32, 0);
        while idle < patience {
            let (mut chosen, mut gain) = (m, f64::NEG_INFINITY);
            for i in 0..m {
                let g = -2.0 * signs[i] * local[i];
                if g > gain && tabu[i] < step {
                    (chosen, gain) = (i, g);
                }
            }
            if chosen == m || (patience == 1 && gain <= 0.0) {
                break;
            }
            value += gain;
            signs[chosen] = -signs[chosen];
            let change = 2.0 * signs[chosen];
            let row = self.j.row(chosen);
            local.iter_mut().zip(row).for_each(|(l, j)| *l += change * j);
            tabu[chosen] = if patience == 1 { 0 } else { step + 4 + m as u32 / 8 + (step * 7919) % 5 };
            step += 1;
            idle += 1;
            if value > best + 1e-12 * best.abs() {
                best = value;
                self.best.copy_from_slice(signs);
                idle = 0;
            }
        }
        // Afresh, without the rounding errors of the updates.
        self.value_of_best()
    }

    #[inline(always)]
    fn value_of_best(&self) -> f64 {
        let m = self.size;
        (0..m).map(|i| self.best[i] * (self.g[i] + dot(self.j.row(i), &self.best[..i]))).sum()
    }

    /// Second moments of the fields of the first k positions, with the others fixed: around the fields at the best
    /// signs known, each fixed sign adds a variance of one.
    #[inline(always)]
    fn moments(&self, k: usize, buffers: &mut Buffers) {
        let m = self.size;
        let fields = &mut buffers.fields;
        fields.clear();
        fields.extend((0..k).map(|i| self.g[i] + dot(&self.j.row(i)[k..m], &self.best[k..])));
        buffers.moments.outer(fields, &self.j, k..m);
    }

    #[inline(always)]
    fn make_anchors(&mut self, value: f64, deadline: Option<Instant>, buffers: &mut Buffers) {
        let m = self.size;
        self.anchor_at.clear();
        self.anchor_at.resize(m + 1, NONE);
        self.anchors.clear();
        let Settings { anchored, spacing, smallest, .. } = buffers.settings;
        if m < anchored || m > LARGEST {
            return;
        }
        let hard = (m > EASY) as usize;
        let Some(unit) = self.start_diagonal(m, value, buffers) else { return };
        let mut mu = unit;
        let mut steps = FIRST_STEPS[hard];
        let spacing = spacing[hard];
        let mut k = (m - 1) / spacing * spacing;
        while k >= smallest && !is_past(deadline) {
            self.moments(k, buffers);
            let mut anchor = Anchor::default();
            let problem = (&self.j, &buffers.moments);
            if !buffers.diagonal.improve(problem, k, (mu, FINAL_MU * unit), steps, &mut anchor) {
                return;
            }
            let mut step = std::mem::take(&mut anchor.step);
            step.resize(anchor.inverse.stride(), 0.0);
            anchor.inverse.apply_transposed(&self.j.row(k)[..k], &mut step);
            anchor.step_norm = dot(&step, &step);
            anchor.step = step;
            self.anchor_at[k] = self.anchors.len() as u8;
            self.anchors.push(anchor);
            (mu, steps) = (FINAL_MU * unit, LATER_STEPS);
            k = k.saturating_sub(spacing);
        }
    }

    /// A diagonal that dominates its rows, and the unit of mu: the value per variable.
    #[inline(always)]
    fn start_diagonal(&self, k: usize, value: f64, buffers: &mut Buffers) -> Option<f64> {
        let m = self.size;
        let d = &mut buffers.diagonal.d;
        d.clear();
        d.extend((0..k).map(|i| self.j.row(i)[..k].iter().map(|j| j.abs()).sum::<f64>()));
        let max = d.iter().copied().fold(0.0, f64::max);
        let unit = (value / m as f64).max(1e-3 * max);
        d.iter_mut().for_each(|d| *d += 0.05 * max);
        (unit.is_finite() && unit > f64::MIN_POSITIVE).then_some(unit)
    }

    /// The concave quadratic bound of the whole component at its own fields.
    #[inline(always)]
    fn root_bound(&self, value: f64, buffers: &mut Buffers) -> f64 {
        let m = self.size;
        if m > LARGEST {
            return f64::INFINITY;
        }
        self.moments(m, buffers);
        let Some(unit) = self.start_diagonal(m, value, buffers) else { return f64::INFINITY };
        let mut anchor = Anchor::default();
        let problem = (&self.j, &buffers.moments);
        if !buffers.diagonal.improve(problem, m, (unit, 1e-3 * unit), [12; 2], &mut anchor) {
            return f64::INFINITY;
        }
        let mut y = vec![0.0; m];
        anchor.inverse.apply_transposed(&self.g, &mut y);
        0.5 * dot(&y, &y) + anchor.half_trace[m]
    }
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|d| Instant::now() >= d)
}

/// Puts the order of branching into `buffers.order`: always the variable that is coupled most to those not yet taken.
fn order(variables: &[usize], w: &[f64], n: usize, buffers: &mut Buffers) {
    let Buffers { keys, order, .. } = buffers;
    let m = variables.len();
    order.clear();
    order.extend_from_slice(variables);
    keys.clear();
    keys.extend(variables.iter().map(|&v| variables.iter().map(|&q| w[v * n + q].abs()).sum::<f64>()));
    for i in 0..m {
        let mut chosen = i;
        for q in i + 1..m {
            if keys[q] > keys[chosen] {
                chosen = q;
            }
        }
        order.swap(i, chosen);
        keys.swap(i, chosen);
        let row = &w[order[i] * n..][..n];
        for q in i + 1..m {
            keys[q] -= row[order[q]].abs();
        }
    }
}

/// `sum_i |g_i + j_i|` and `sum_i |g_i - j_i|`. The sums of the lanes are left in memory: only so the compiler keeps
/// them in vectors.
#[inline(always)]
fn magnitudes(g: &[Chunk], j: &[Chunk], sums: &mut [Chunk; 2]) -> (f64, f64) {
    let (mut plus, mut minus) = ([0.0; LANES], [0.0; LANES]);
    for (g, j) in g.iter().zip(j) {
        for lane in 0..LANES {
            plus[lane] += (g[lane] + j[lane]).abs();
        }
        for lane in 0..LANES {
            minus[lane] += (g[lane] - j[lane]).abs();
        }
    }
    *sums = [plus, minus];
    let across = |x: &Chunk| ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
    (across(std::hint::black_box(&sums[0])), across(std::hint::black_box(&sums[1])))
}

/// `a + factor * b` into `out`.
#[inline(always)]
fn add(out: &mut [Chunk], a: &[Chunk], factor: f64, b: &[Chunk]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        let (a, b) = (*a, *b);
        let mut sum = [0.0; LANES];
        for lane in 0..LANES {
            sum[lane] = a[lane] + factor * b[lane];
        }
        *out = sum;
    }
}

/// A choice for the sign of the variable fixed last.
#[derive(Debug, Clone, Copy, Default)]
struct Child {
    sign: f64,
    /// The best of all bounds of what follows.
    bound: f64,
    /// What the fixed variables give.
    value: f64,
    /// The bound of the anchor in charge.
    tracked: f64,
}

/// A node on the path: its choices, the likelier first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Node {
    children: [Child; 2],
    /// Choices taken.
    taken: u8,
    /// Index of the anchor in charge, or NONE.
    anchor: u8,
}

/// A depth-first search in progress.
struct Search<'a> {
    m: usize,
    /// Chunks of a row.
    chunks: usize,
    before: &'a Square,
    below: &'a [f64],
    inside: &'a [f64],
    anchors: &'a [Anchor],
    anchor_at: &'a [u8],
    g: &'a mut [Chunk],
    y: &'a mut [Chunk],
    renewed: &'a mut [Chunk],
    sums: [Chunk; 2],
    path: &'a mut [f64],
    /// The nodes on the path, by number of remaining variables.
    nodes: &'a mut [Node],
    best: &'a mut [f64],
    value: f64,
    slack: f64,
    deadline: Option<Instant>,
    /// Nodes that may be visited, `None`: as many as it takes.
    allowed: Option<u64>,
    visited: u64,
    clock: u32,
}

impl Search<'_> {
    /// Visits all nodes that are not bounded away. If time or nodes run out before the end, the largest bound of what
    /// was left out.
    #[inline(always)]
    fn run(&mut self) -> Option<f64> {
        let m = self.m;
        let root = Child { bound: f64::INFINITY, tracked: f64::INFINITY, ..Child::default() };
        let mut k = if self.expand(m, root, NONE) { m } else { m + 1 };
        while k <= m {
            let node = &mut self.nodes[k];
            let Some(child) = node.children.get(node.taken as usize).copied() else {
                k += 1;
                continue;
            };
            node.taken += 1;
            let anchor = node.anchor;
            if child.bound <= self.value + self.slack {
                continue;
            }
            self.enter(k, child, anchor);
            if k == 1 {
                if child.value > self.value {
                    self.value = child.value;
                    self.best.copy_from_slice(self.path);
                }
                continue;
            }
            self.clock -= 1;
            if self.clock == 0 && self.is_out(k) {
                return Some(self.left_out(k));
            }
            let in_charge = if self.anchor_at[k - 1] != NONE { self.anchor_at[k - 1] } else { anchor };
            if self.expand(k - 1, child, in_charge) {
                k -= 1;
            }
        }
        None
    }

    /// Bounds the choices at the node with the first k positions free, whose fields are row k of `g`, the y of the
    /// anchor in charge row k of `y`; `false` if there is nothing to be found.
    #[inline(always)]
    fn expand(&mut self, k: usize, here: Child, anchor: u8) -> bool {
        let (p, chunks) = (k - 1, (k - 1).div_ceil(LANES));
        let g = &mut self.g[k * self.chunks..][..self.chunks];
        let field = g[p / LANES][p % LANES];
        // From here on that of a fixed variable.
        g[p / LANES][p % LANES] = 0.0;
        let g = &g[..chunks];
        let (value_up, value_down) = (here.value + field, here.value - field);
        let (mut up, mut down) = (f64::INFINITY, f64::INFINITY);
        // 1. Persistency.
        if field.abs() >= self.below[p] {
            if field >= 0.0 { down = f64::NEG_INFINITY } else { up = f64::NEG_INFINITY }
        }
        let limit = self.value + self.slack;
        // 2. The concave bound of the present anchor, if the next level has no new one.
        let next = self.anchor_at[p];
        let mut tracked = (f64::INFINITY, f64::INFINITY);
        if next == NONE && anchor != NONE {
            let a = &self.anchors[anchor as usize];
            let l = a.factor.at(p, p);
            let y = self.y[k * self.chunks + p / LANES][p % LANES];
            tracked = (here.tracked - 0.5 * (l - y) * (l - y), here.tracked - 0.5 * (l + y) * (l + y));
            (up, down) = (up.min(tracked.0), down.min(tracked.1));
            if up <= limit && down <= limit {
                return false;
            }
        }
        // 3. The plain bound.
        let (sum_up, sum_down) = magnitudes(g, self.before.chunks(p), &mut self.sums);
        up = up.min(value_up + self.inside[p] + sum_up);
        down = down.min(value_down + self.inside[p] + sum_down);
        if up <= limit && down <= limit {
            return false;
        }
        // 4. The concave bound of a new anchor.
        if next != NONE {
            let a = &self.anchors[next as usize];
            let y = &mut self.renewed[p * self.chunks..][..chunks];
            a.inverse.apply_transposed(&g.as_flattened()[..p], y.as_flattened_mut());
            let y = &y.as_flattened()[..p];
            let base = 0.5 * (dot(y, y) + a.step_norm) + a.half_trace[p];
            let slope = dot(y, &a.step);
            tracked = (value_up + base + slope, value_down + base - slope);
            (up, down) = (up.min(tracked.0), down.min(tracked.1));
        }
        let plus = Child { sign: 1.0, bound: up, value: value_up, tracked: tracked.0 };
        let minus = Child { sign: -1.0, bound: down, value: value_down, tracked: tracked.1 };
        let children = if up >= down { [plus, minus] } else { [minus, plus] };
        self.nodes[k] = Node { children, taken: 0, anchor };
        true
    }

    /// Fixes the last of k free positions: its sign, and the fields and y of the others.
    #[inline(always)]
    fn enter(&mut self, k: usize, child: Child, anchor: u8) {
        let (p, chunks, sign) = (k - 1, (k - 1).div_ceil(LANES), child.sign);
        self.path[p] = sign;
        let (rest, here) = self.g.split_at_mut(k * self.chunks);
        let out = &mut rest[p * self.chunks..][..chunks];
        add(out, here, sign, self.before.chunks(p));
        let next = self.anchor_at[p];
        if next != NONE {
            let step = self.anchors[next as usize].step.as_chunks().0;
            let (y, renewed) = (&mut self.y[p * self.chunks..][..chunks], &self.renewed[p * self.chunks..]);
            add(y, renewed, sign, step);
        } else if anchor != NONE {
            let (rest, here) = self.y.split_at_mut(k * self.chunks);
            let out = &mut rest[p * self.chunks..][..chunks];
            add(out, here, -sign, self.anchors[anchor as usize].factor.chunks(p));
        }
    }

    /// The largest bound of the choices not taken on the path and of the one just taken at k.
    fn left_out(&self, k: usize) -> f64 {
        let untaken =
            |node: &Node| node.children[node.taken as usize..].iter().fold(f64::NEG_INFINITY, |a, c| a.max(c.bound));
        let last = self.nodes[k].children[self.nodes[k].taken as usize - 1].bound;
        self.nodes[k..].iter().map(untaken).fold(last, f64::max)
    }

    /// Whether time or nodes are used up at the node with the first k positions free, or these nodes will not do.
    fn is_out(&mut self, k: usize) -> bool {
        self.clock = CLOCK;
        if let Some(nodes) = self.allowed {
            self.visited += CLOCK as u64;
            // The share of the tree that lies behind, if all choices that are left at a node are as much work.
            let (mut share, mut behind) = (1.0, 0.0);
            for node in self.nodes[k..].iter().rev() {
                let worth = |c: &Child| c.bound > self.value + self.slack;
                if worth(&node.children[0]) && worth(&node.children[1]) {
                    share *= 0.5;
                    behind += if node.taken == 2 { share } else { 0.0 };
                }
            }
            if self.visited >= nodes || self.visited as f64 > HOPE * behind * nodes as f64 {
                return true;
            }
        }
        is_past(self.deadline)
    }
}
