//! Maximum flow.
use super::Pairs;
use super::closure::Closure;

const NONE: u32 = u32::MAX;
pub static ALGO: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(2);

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
    tree: Vec<u8>,
    active: std::collections::VecDeque<u32>,
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
        match ALGO.load(std::sync::atomic::Ordering::Relaxed) {
            0 => self.dinic(),
            1 => self.push_relabel(),
            _ => self.bk(),
        }
    }

    fn dinic(&mut self) {
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

    fn distances(&mut self, k: usize) {
        let Flow { residual, excess, level, queue, unvisited, .. } = self;
        level.clear();
        queue.clear();
        unvisited.clear();
        for (v, e) in (0..).zip(excess.iter()) {
            level.push(if *e < 0.0 { 0 } else { k as u32 });
            if *e < 0.0 { &mut *queue } else { &mut *unvisited }.push(v);
        }
        let mut head = 0;
        while head < queue.len() && !unvisited.is_empty() {
            let v = queue[head] as usize;
            head += 1;
            let next = level[v] + 1;
            unvisited.retain(|&j| {
                if residual[j as usize * k + v] > 0.0 {
                    level[j as usize] = next;
                    queue.push(j);
                    return false;
                }
                true
            });
        }
    }

    fn push_relabel(&mut self) {
        let k = self.core.len();
        loop {
            self.distances(k);
            self.arc.clear();
            self.arc.resize(k, 0);
            self.active.clear();
            for v in 0..k {
                if self.excess[v] > 0.0 && (self.level[v] as usize) < k {
                    self.active.push_back(v as u32);
                }
            }
            if self.active.is_empty() {
                break;
            }
            let mut relabels = 0;
            let Flow { residual, excess, level, arc, active, .. } = self;
            while let Some(v) = active.pop_front() {
                let v = v as usize;
                'discharge: loop {
                    let mut a = arc[v] as usize;
                    while a < k {
                        let r = residual[v * k + a];
                        if r > 0.0 && level[a] + 1 == level[v] {
                            let amount = r.min(excess[v]);
                            residual[v * k + a] -= amount;
                            residual[a * k + v] += amount;
                            let before = excess[a];
                            excess[a] += amount;
                            excess[v] -= amount;
                            if before <= 0.0 && excess[a] > 0.0 {
                                active.push_back(a as u32);
                            }
                            if excess[v] <= 0.0 {
                                break 'discharge;
                            }
                        }
                        a += 1;
                        arc[v] = a as u32;
                    }
                    let row = &residual[v * k..][..k];
                    let mut best = k as u32;
                    for (r, l) in row.iter().zip(level.iter()) {
                        if *r > 0.0 {
                            best = best.min(l + 1);
                        }
                    }
                    level[v] = best;
                    arc[v] = 0;
                    relabels += 1;
                    if best >= k as u32 {
                        break;
                    }
                }
                if relabels > k {
                    break;
                }
            }
        }
        for l in &mut self.level {
            *l = if *l >= k as u32 { 0 } else { NONE };
        }
    }

    fn bk(&mut self) {
        const FREE: u8 = 0;
        const S: u8 = 1;
        const T: u8 = 2;
        const ROOT: u32 = NONE - 1;
        let k = self.core.len();
        let Flow { residual: r, excess: e, level, tree, arc: parent, active, path, queue: orphans, .. } = self;
        tree.clear();
        parent.clear();
        active.clear();
        orphans.clear();
        for (v, x) in (0..).zip(e.iter()) {
            tree.push(if *x > 0.0 { S } else if *x < 0.0 { T } else { FREE });
            parent.push(if *x != 0.0 { ROOT } else { NONE });
            if *x > 0.0 {
                active.push_back(v);
            }
        }
        for (v, x) in (0..).zip(e.iter()) {
            if *x < 0.0 {
                active.push_back(v);
            }
        }
        while let Some(&v) = active.front() {
            let v = v as usize;
            if tree[v] == FREE {
                active.pop_front();
                continue;
            }
            let mut found = None;
            let mine = tree[v];
            for j in 0..k {
                let cap = if mine == S { r[v * k + j] } else { r[j * k + v] };
                if cap > 0.0 && tree[j] != mine {
                    if tree[j] == FREE {
                        tree[j] = mine;
                        parent[j] = v as u32;
                        active.push_back(j as u32);
                    } else {
                        found = Some(if mine == S { (v, j) } else { (j, v) });
                        break;
                    }
                }
            }
            let Some((a, b)) = found else {
                active.pop_front();
                continue;
            };
            // Augment.
            path.clear();
            let mut x = a;
            let mut amount = r[a * k + b];
            while parent[x] != ROOT {
                let p = parent[x] as usize;
                amount = amount.min(r[p * k + x]);
                x = p;
            }
            let source = x;
            amount = amount.min(e[x]);
            x = b;
            while parent[x] != ROOT {
                let p = parent[x] as usize;
                amount = amount.min(r[x * k + p]);
                x = p;
            }
            let sink = x;
            amount = amount.min(-e[x]);
            r[a * k + b] -= amount;
            r[b * k + a] += amount;
            x = a;
            while parent[x] != ROOT {
                let p = parent[x] as usize;
                r[p * k + x] -= amount;
                r[x * k + p] += amount;
                if r[p * k + x] <= 0.0 {
                    parent[x] = NONE;
                    orphans.push(x as u32);
                }
                x = p;
            }
            x = b;
            while parent[x] != ROOT {
                let p = parent[x] as usize;
                r[x * k + p] -= amount;
                r[p * k + x] += amount;
                if r[x * k + p] <= 0.0 {
                    parent[x] = NONE;
                    orphans.push(x as u32);
                }
                x = p;
            }
            e[source] -= amount;
            e[sink] += amount;
            for t in [source, sink] {
                if e[t] == 0.0 {
                    parent[t] = NONE;
                    orphans.push(t as u32);
                }
            }
            while let Some(x) = orphans.pop() {
                let x = x as usize;
                let mine = tree[x];
                let mut new = NONE;
                for j in 0..k {
                    if tree[j] == mine && (if mine == S { r[j * k + x] } else { r[x * k + j] }) > 0.0 {
                        let mut y = j;
                        while parent[y] != ROOT && parent[y] != NONE {
                            y = parent[y] as usize;
                        }
                        if parent[y] == ROOT {
                            new = j as u32;
                            break;
                        }
                    }
                }
                parent[x] = new;
                if new == NONE {
                    for j in 0..k {
                        if tree[j] == mine {
                            if (if mine == S { r[j * k + x] } else { r[x * k + j] }) > 0.0 {
                                active.push_back(j as u32);
                            }
                            if parent[j] == x as u32 {
                                parent[j] = NONE;
                                orphans.push(j as u32);
                            }
                        }
                    }
                    tree[x] = FREE;
                }
            }
        }
        level.clear();
        level.extend(tree.iter().map(|t| if *t == S { 0 } else { NONE }));
    }
}

fn terminal(closure: &Closure, i: u32) -> f64 {
    let i = i as usize;
    (closure.gain[i] + closure.low[i]) + (closure.gain[i] + closure.high[i])
}
