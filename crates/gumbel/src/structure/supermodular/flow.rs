//! Minimum cut of the core by blocking flows on a dense array.
//!
//! The residual capacities are a square matrix. Source and sink have no vertices: what is left of the edge to the
//! source is a positive *excess* of a vertex, what is left of the edge to the sink a negative one, a *deficit*. Any
//! flow between vertices within their capacities is a valid start, which makes warm starts simple.
//!
//! Dinic (1970): levels by breadth-first search from the excesses, stopping at the first deficits; then augmenting
//! paths along the levels, every vertex trying its neighbours in turn, until none is left; again until no deficit can
//! be reached. What can be reached then is the source's side: ones. As the graph is dense most paths have length one,
//! and the search is through the list of unvisited vertices, which is soon empty. O(k^4) at worst, near O(k^2) in
//! practice.
//!
//! It ends in floating point too: every augmentation sets an excess, a deficit or a capacity to zero exactly, and the
//! number of levels grows with every phase.
//!
//! Measured on whole arg maxes of dense random instances in which gains and weights balance (100 instances of n = 50,
//! of n = 100; ms), gains as large as the weights can carry: this 1.5, 8.8; push-relabel (first in first out, exact
//! distances at the start and every k relabellings) 1.6, 9.8; the search trees of Boykov and Kolmogorov (on the dense
//! array, origins found by walking) 8.5, 118. With small gains: 1.0, 2.8; 1.6, 4.8; 10, 50.

use super::closure::{Closure, Fate};
use super::{Pairs, Real};

/// The level of a vertex that was not reached, or leads nowhere; the position of a variable without vertex.
const NONE: u32 = u32::MAX;

/// After this many solutions from changed excesses they are computed anew from the flow.
const MAX_KEPT: usize = 64;

/// A flow and the cut that it proves.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// The variables of the vertices, `[k]`, ascending: the core when the graph was built.
    vertices: Vec<u32>,
    /// The fates of all variables when the graph was built, `[n]`: undecided are those in the graph.
    fates: Vec<Fate>,
    /// The gains for which the excesses hold, `[k]`.
    gain: Vec<f64>,
    /// What a gain may be without drowning the flow, which is of the size of the weights, in its rounding, `[k]`.
    limit: Vec<f64>,
    /// Residual capacities, `[k, k]`; those of a pair add up to twice its weight.
    residual: Vec<f64>,
    /// What is left of the edges to the source (positive) or the sink (negative), `[k]`.
    excess: Vec<f64>,
    /// Distance from the excesses, `[k]`; of the last search, the finite ones are the source's side.
    level: Vec<u32>,
    /// The neighbour to try next, `[k]`.
    arc: Vec<u32>,
    /// Whether the cut belongs to the answer; else there is no core.
    used: bool,
    kept: usize,
    // Work.
    queue: Vec<u32>,
    unvisited: Vec<u32>,
    path: Vec<u32>,
    old_vertices: Vec<u32>,
    old_residual: Vec<f64>,
    position: Vec<u32>,
}

impl Flow {
    /// The variables that the cut decides, with their values.
    pub(super) fn decided(&self) -> impl Iterator<Item = (usize, u32)> {
        let cut = if self.used { &self.vertices[..] } else { &[] };
        cut.iter().zip(&self.level).map(|(i, level)| (*i as usize, (*level != NONE) as u32))
    }

    /// Solves the core.
    pub(super) fn start<T: Real>(&mut self, closure: &Closure, pairs: Pairs<'_, T>) {
        self.vertices.clear();
        self.restart(closure, pairs);
    }

    /// Solves the core from the last flow.
    pub(super) fn restart<T: Real>(&mut self, closure: &Closure, pairs: Pairs<'_, T>) {
        self.used = !closure.core.is_empty();
        if !self.used {
            return;
        }
        if self.fits(closure) {
            self.kept += 1;
            for ((e, before), i) in self.excess.iter_mut().zip(&mut self.gain).zip(&self.vertices) {
                let now = closure.gain[*i as usize];
                *e += 2.0 * (now - *before);
                *before = now;
            }
        } else {
            self.kept = 0;
            self.build(closure, pairs);
        }
        self.solve();
    }

    /// Whether the graph is good for the new gains: nothing changed outside. It may decide more than the core.
    fn fits(&self, closure: &Closure) -> bool {
        (1..=2 * closure.core.len()).contains(&self.vertices.len())
            && self.kept < MAX_KEPT
            && self.vertices.iter().zip(&self.limit).all(|(i, limit)| closure.gain[*i as usize].abs() <= *limit)
            && self.fates.iter().zip(&closure.fate).all(|(then, now)| *then == Fate::Undecided || then == now)
    }

    /// Builds the graph of the core, with the last flow between vertices that stay.
    fn build<T: Real>(&mut self, closure: &Closure, pairs: Pairs<'_, T>) {
        std::mem::swap(&mut self.vertices, &mut self.old_vertices);
        std::mem::swap(&mut self.residual, &mut self.old_residual);
        let Flow { vertices, fates, gain, limit, residual, excess, old_vertices, old_residual, position, .. } = self;
        vertices.clone_from(&closure.core);
        fates.clone_from(&closure.fate);
        let (k, old) = (vertices.len(), old_vertices.len());
        gain.clear();
        gain.extend(vertices.iter().map(|i| closure.gain[*i as usize]));
        // The gain of a core variable is less than `high` in magnitude.
        limit.clear();
        limit.extend(vertices.iter().map(|i| 4.0 * closure.high[*i as usize]));
        // c_i = 2 u_i + (twice the weights to ones) + (the weights in the core).
        excess.clear();
        excess.extend(
            vertices.iter().map(|&i| i as usize).map(|i| 2.0 * closure.gain[i] + closure.low[i] + closure.high[i]),
        );
        position.clear();
        position.resize(pairs.variables, NONE);
        old_vertices.iter().zip(0..).for_each(|(&i, a)| position[i as usize] = a);

        if residual.len() < k * k {
            residual.resize(k * k, 0.0);
        }
        for (a, &i) in vertices.iter().enumerate() {
            let row = pairs.row(i as usize);
            residual[a * k + a] = 0.0;
            let before = match position[i as usize] {
                NONE => None,
                before => Some(&old_residual[before as usize * old..][..old]),
            };
            for (b, &j) in vertices.iter().enumerate().skip(a + 1) {
                let w = row[(j - i) as usize - 1].wide();
                let flow = match (before, position[j as usize]) {
                    (None, _) | (_, NONE) => 0.0,
                    (Some(before), to) => w - before[to as usize],
                };
                residual[a * k + b] = w - flow;
                residual[b * k + a] = (w + flow).max(0.0);
                excess[a] -= flow;
                excess[b] += flow;
            }
        }
    }

    /// Maximum flow from the flow that is there.
    fn solve(&mut self) {
        let k = self.vertices.len();
        while let Some(last) = self.levels(k) {
            self.arc.clear();
            self.arc.resize(k, 0);
            for source in 0..k {
                if self.excess[source] > 0.0 {
                    self.augment(source, k, last);
                }
            }
        }
    }

    /// Distances from the excesses up to the nearest deficits, whose distance is returned; on that level only deficits
    /// have a distance.
    fn levels(&mut self, k: usize) -> Option<u32> {
        let Flow { residual, excess, level, queue, unvisited, .. } = self;
        level.clear();
        queue.clear();
        unvisited.clear();
        for (v, e) in (0..).zip(excess.iter()) {
            let source = *e > 0.0;
            level.push(if source { 0 } else { NONE });
            if source { &mut *queue } else { &mut *unvisited }.push(v);
        }
        let mut last = None;
        let mut head = 0;
        while head < queue.len() && !unvisited.is_empty() {
            let v = queue[head] as usize;
            head += 1;
            let next = level[v] + 1;
            if last.is_some_and(|last| next > last) {
                break;
            }
            let row = &residual[v * k..][..k];
            unvisited.retain(|&j| {
                let reached = row[j as usize] > 0.0;
                if reached {
                    level[j as usize] = next;
                    queue.push(j);
                    if excess[j as usize] < 0.0 {
                        last = Some(next);
                    }
                }
                !reached
            });
        }
        if let Some(last) = last {
            let farthest = queue.iter().rev().map(|v| *v as usize).take_while(|v| level[*v] == last).count();
            for v in queue[queue.len() - farthest..].iter().map(|v| *v as usize).filter(|v| excess[*v] >= 0.0) {
                level[v] = NONE;
            }
        }
        last
    }

    /// Sends the excess of a vertex along the levels until it is used up or nothing more gets through.
    fn augment(&mut self, source: usize, k: usize, last: u32) {
        let Flow { residual, excess, level, arc, path, .. } = self;
        path.clear();
        path.push(source as u32);
        while let Some(&v) = path.last() {
            let v = v as usize;
            if level[v] < last {
                let row = &residual[v * k..][..k];
                let next = level[v] + 1;
                let tried = arc[v] as usize;
                let found = row[tried..].iter().zip(&level[tried..]).position(|(r, l)| *l == next && *r > 0.0);
                match found {
                    Some(further) => {
                        arc[v] = (tried + further) as u32;
                        path.push(arc[v]);
                    }
                    None => {
                        level[v] = NONE;
                        path.pop();
                    }
                }
                continue;
            }
            // A path to a deficit. The least of its capacities becomes zero, without rounding.
            let steps = || path.windows(2).map(|step| (step[0] as usize, step[1] as usize));
            let amount = steps().fold(excess[source].min(-excess[v]), |least, (a, b)| least.min(residual[a * k + b]));
            let mut keep = path.len();
            for (at, (a, b)) in steps().enumerate() {
                residual[a * k + b] -= amount;
                residual[b * k + a] += amount;
                if residual[a * k + b] <= 0.0 {
                    keep = keep.min(at + 1);
                }
            }
            excess[source] -= amount;
            excess[v] += amount;
            if excess[v] >= 0.0 {
                level[v] = NONE;
                keep = keep.min(path.len() - 1);
            }
            if excess[source] <= 0.0 {
                return;
            }
            path.truncate(keep);
        }
    }
}
