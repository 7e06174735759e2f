//! Maximum flow.
use super::Pairs;
use super::closure::Closure;

const NONE: u32 = u32::MAX;

/// A flow on the core and the cut that it proves.
#[derive(Debug, Default)]
pub(super) struct Flow {
    core: Vec<u32>,
    residual: Vec<f64>,
    excess: Vec<f64>,
    level: Vec<u32>,
    arc: Vec<u32>,
    queue: Vec<u32>,
    unvisited: Vec<u32>,
    path: Vec<u32>,
    old_residual: Vec<f64>,
    old_core: Vec<u32>,
    position: Vec<u32>,
}

impl Flow {
    pub(super) fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        self.core.iter().zip(&self.level).filter(|(_, l)| **l != NONE).map(|(i, _)| *i)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.core.is_empty()
    }

    pub(super) fn start(&mut self, closure: &Closure, pairs: Pairs<'_>) {
        self.core.clone_from(&closure.core);
        if self.core.is_empty() {
            return;
        }
        let k = self.core.len();
        self.residual.clear();
        self.residual.resize(k * k, 0.0);
        for (a, &i) in self.core.iter().enumerate() {
            let row = pairs.row(i as usize);
            for (b, &j) in self.core.iter().enumerate().skip(a + 1) {
                let w = row[(j - i) as usize - 1] as f64;
                self.residual[a * k + b] = w;
                self.residual[b * k + a] = w;
            }
        }
        self.excess.clear();
        self.excess.extend(self.core.iter().map(|&i| terminal(closure, i)));
        self.solve();
    }

    pub(super) fn restart(&mut self, closure: &Closure, pairs: Pairs<'_>) {
        if closure.core.is_empty() || self.core.is_empty() {
            return self.start(closure, pairs);
        }
        std::mem::swap(&mut self.core, &mut self.old_core);
        std::mem::swap(&mut self.residual, &mut self.old_residual);
        self.core.clone_from(&closure.core);
        let (k, old) = (self.core.len(), self.old_core.len());
        self.position.clear();
        self.position.resize(pairs.variables, NONE);
        self.old_core.iter().zip(0..).for_each(|(&i, a)| self.position[i as usize] = a);
        self.residual.clear();
        self.residual.resize(k * k, 0.0);
        self.excess.clear();
        self.excess.extend(self.core.iter().map(|&i| terminal(closure, i)));
        for (a, &i) in self.core.iter().enumerate() {
            let row = pairs.row(i as usize);
            let before = self.position[i as usize];
            for (b, &j) in self.core.iter().enumerate().skip(a + 1) {
                let w = row[(j - i) as usize - 1] as f64;
                let to = self.position[j as usize];
                let flow = if before == NONE || to == NONE {
                    0.0
                } else {
                    w - self.old_residual[before as usize * old + to as usize]
                };
                self.residual[a * k + b] = w - flow;
                self.residual[b * k + a] = (w + flow).max(0.0);
                self.excess[a] -= flow;
                self.excess[b] += flow;
            }
        }
        self.solve();
    }

    fn solve(&mut self) {
        let k = self.core.len();
        while let Some(last) = self.levels(k) {
            self.arc.clear();
            self.arc.resize(k, 0);
            for s in 0..k {
                if self.excess[s] > 0.0 {
                    self.augment_from(s, k, last);
                }
            }
        }
    }

    fn levels(&mut self, k: usize) -> Option<u32> {
        let Flow { residual, excess, level, queue, unvisited, .. } = self;
        level.clear();
        queue.clear();
        unvisited.clear();
        for (v, e) in (0..).zip(excess.iter()) {
            level.push(if *e > 0.0 { 0 } else { NONE });
            if *e > 0.0 { &mut *queue } else { &mut *unvisited }.push(v);
        }
        let mut head = 0;
        let mut last = None;
        while head < queue.len() && !unvisited.is_empty() {
            let v = queue[head] as usize;
            head += 1;
            let next = level[v] + 1;
            if last.is_some_and(|last| next > last) {
                break;
            }
            let row = &residual[v * k..][..k];
            unvisited.retain(|&j| {
                if row[j as usize] > 0.0 {
                    level[j as usize] = next;
                    if excess[j as usize] < 0.0 {
                        last = Some(next);
                    }
                    queue.push(j);
                    return false;
                }
                true
            });
        }
        last
    }

    fn augment_from(&mut self, s: usize, k: usize, last: u32) {
        let Flow { residual, excess, level, arc, path, .. } = self;
        path.clear();
        path.push(s as u32);
        while let Some(&v) = path.last() {
            let v = v as usize;
            if level[v] == last {
                if excess[v] < 0.0 {
                    let mut amount = excess[s].min(-excess[v]);
                    for p in path.windows(2) {
                        amount = amount.min(residual[p[0] as usize * k + p[1] as usize]);
                    }
                    let mut keep = path.len();
                    for (at, p) in path.windows(2).enumerate().rev() {
                        let (a, b) = (p[0] as usize, p[1] as usize);
                        residual[a * k + b] -= amount;
                        residual[b * k + a] += amount;
                        if residual[a * k + b] <= 0.0 {
                            keep = at + 1;
                        }
                    }
                    excess[s] -= amount;
                    excess[v] += amount;
                    if excess[s] <= 0.0 {
                        return;
                    }
                    path.truncate(keep);
                    continue;
                }
                path.pop();
                arc[*path.last().unwrap() as usize] += 1;
                continue;
            }
            let row = &residual[v * k..][..k];
            let next = level[v] + 1;
            let mut a = arc[v] as usize;
            while a < k && !(level[a] == next && row[a] > 0.0) {
                a += 1;
            }
            arc[v] = a as u32;
            if a < k {
                path.push(a as u32);
            } else {
                path.pop();
                if let Some(&p) = path.last() {
                    arc[p as usize] += 1;
                }
            }
        }
    }
}

fn terminal(closure: &Closure, i: u32) -> f64 {
    let i = i as usize;
    (closure.gain[i] + closure.low[i]) + (closure.gain[i] + closure.high[i])
}
