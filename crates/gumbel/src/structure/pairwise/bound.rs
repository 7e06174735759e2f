//! Concave quadratic bounds: `g's + s'Js/2` over signs, bounded by a Cholesky factor.
//!
//! For any diagonal D with `A = D - J` positive definite, `s_i^2 = 1` gives
//! `g's + s'Js/2 = tr(D)/2 + g's - s'As/2 <= tr(D)/2 + |L^-1 g|^2 / 2` with `A = LL'`. Fixing the *last* variable
//! leaves a leading block, whose factor is the leading block of L: with `y = L^-1 g`, fixing `s_p` loses exactly
//! `(L_pp s_p - y_p)^2 / 2` of the bound and leaves `y - s_p L_p` for the rest. So one factor serves a whole subtree at
//! a cost per node that is linear. The D that is best for one g is the semidefinite bound; a subtree has many g, so D
//! minimises the expected bound over them: `tr(D) + tr(A^-1 G)` with `G = E[gg']`, convex, by Newton's method.

use super::dense::Square;

/// Dot product of the common length, in two-lane-friendly order.
#[inline(always)]
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len());
    let (a, b) = (a[..n].chunks_exact(4), b[..n].chunks_exact(4));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    let mut sum = [0.0; 4];
    for (x, y) in a.zip(b) {
        for lane in 0..4 {
            sum[lane] += x[lane] * y[lane];
        }
    }
    (sum[0] + sum[1]) + (sum[2] + sum[3]) + rest
}

/// The factor for one number k of remaining variables and all smaller ones.
#[derive(Debug, Default)]
pub(super) struct Anchor {
    /// L, lower triangle.
    pub(super) factor: Square,
    /// L^-1, transposed.
    pub(super) inverse: Square,
    /// `tr(D_j)/2` of the first j variables, `[k + 1]`.
    pub(super) half_trace: Vec<f64>,
    /// `L^-1 J_k`: how y depends on the sign of the variable fixed just before; `[k]`.
    pub(super) step: Vec<f64>,
    /// `|step|^2`.
    pub(super) step_norm: f64,
}

/// Working memory and state of the choice of D.
#[derive(Debug, Default)]
pub(super) struct Diagonal {
    /// D, kept from one anchor to the next as a starting point.
    pub(super) d: Vec<f64>,
    /// The factor U of the present A, and of another one.
    factor: Square,
    other: Square,
    /// L^-1 of the present A.
    lower: Square,
    inverse: Square,
    half: Square,
    hessian: Square,
    step: Vec<f64>,
    trial: Vec<f64>,
}

/// What a step may still change of a diagonal that is good enough.
const SETTLED: f64 = 0.1;

impl Diagonal {
    /// Minimises `tr(D) + tr(A^-1 G) - mu ln det A` for the leading k variables by Newton steps from the present D,
    /// with mu shrinking from `mu.0` to `mu.1`, and leaves the factors of the D reached in `anchor`. The least of
    /// `steps` are made in any case, more, up to the most, while one still changes the trace of D by more than
    /// [`SETTLED`].
    ///
    /// D must make A positive definite; if it does not, `false` is returned.
    #[inline(always)]
    pub(super) fn improve(
        &mut self,
        (j, g): (&Square, &Square),
        k: usize,
        mu: (f64, f64),
        steps: [usize; 2],
        anchor: &mut Anchor,
    ) -> bool {
        self.trial.clear();
        self.trial.extend_from_slice(&self.d[..k]);
        if !factorise(j, &self.trial, &mut self.factor) {
            return false;
        }
        let (mut mu_now, mut settled) = (mu.0, false);
        for step in 0..steps[1] {
            if step >= steps[0] && settled {
                break;
            }
            self.lower.invert_transposed(&self.factor);
            self.direction(g, k, mu_now);
            // The longest of a few steps that stays inside the cone.
            let (mut length, mut accepted) = (1.0, false);
            for _ in 0..8 {
                for i in 0..k {
                    self.trial[i] = self.d[i] - length * self.step[i];
                }
                length *= 0.6;
                accepted = factorise(j, &self.trial, &mut self.other);
                if accepted {
                    break;
                }
            }
            if !accepted {
                break;
            }
            let (before, after) = (self.d[..k].iter().sum::<f64>(), self.trial.iter().sum::<f64>());
            settled = (after - before).abs() <= SETTLED * before;
            self.d[..k].copy_from_slice(&self.trial);
            std::mem::swap(&mut self.factor, &mut self.other);
            mu_now = (0.3 * mu_now).max(mu.1);
        }
        self.lower.invert_transposed(&self.factor);
        anchor.factor.transpose(&self.factor, false);
        anchor.inverse.transpose(&self.lower, true);
        anchor.half_trace.clear();
        anchor.half_trace.push(0.0);
        let mut sum = 0.0;
        for d in &self.d[..k] {
            sum += d;
            anchor.half_trace.push(0.5 * sum);
        }
        true
    }

    /// Newton's direction into `self.step`: with `B = A^-1` and `M = BGB`, the gradient is `1 - M_ii - mu B_ii` and the
    /// Hessian `2 M_ij B_ij + mu B_ij^2`.
    #[inline(always)]
    fn direction(&mut self, g: &Square, k: usize, mu: f64) {
        let Diagonal { inverse, half, hessian, .. } = self;
        inverse.gram(&self.lower);
        half.multiply(g, inverse, false);
        hessian.multiply(inverse, half, true);
        self.step.clear();
        self.step.resize(inverse.stride(), 0.0);
        for i in 0..inverse.stride() {
            let (row, b) = (hessian.row_mut(i), inverse.row(i));
            if i < k {
                self.step[i] = 1.0 - row[i] - mu * b[i];
            }
            row.iter_mut().zip(b).for_each(|(m, b)| *m = 2.0 * *m * b + mu * b * b);
            row[i] *= 1.0 + 1e-9;
        }
        match hessian.factorise() {
            true => hessian.solve(&mut self.step),
            false => self.step.fill(0.0),
        }
    }
}

/// The factor U of `diag(d) - J`; `false` if it is not safely positive definite.
#[inline(always)]
fn factorise(j: &Square, d: &[f64], out: &mut Square) -> bool {
    out.clear(d.len());
    for i in 0..out.stride() {
        let row = out.row_mut(i);
        match d.get(i) {
            Some(value) => {
                row[..d.len()].iter_mut().zip(j.row(i)).for_each(|(o, j)| *o = -j);
                row[i] = *value;
            }
            None => row[i] = 1.0,
        }
    }
    out.factorise()
}
