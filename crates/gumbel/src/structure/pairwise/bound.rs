//! Concave quadratic bounds: `g's + s'Js/2` over signs, bounded by a Cholesky factor.
//!
//! For any diagonal D with `A = D - J` positive definite, `s_i^2 = 1` gives
//! `g's + s'Js/2 = tr(D)/2 + g's - s'As/2 <= tr(D)/2 + |L^-1 g|^2 / 2` with `A = LL'`. Fixing the *last* variable
//! leaves a leading block, whose factor is the leading block of L: with `y = L^-1 g`, fixing `s_p` loses exactly
//! `(L_pp s_p - y_p)^2 / 2` of the bound and leaves `y - s_p L_p` for the rest. So one factor serves a whole subtree at
//! a cost per node that is linear. The D that is best for one g is the semidefinite bound; a subtree has many g, so D
//! minimises the expected bound over them: `tr(D) + tr(A^-1 G)` with `G = E[gg']`, convex, by Newton's method.

/// Dot product of the common length, in two-lane-friendly order.
#[inline]
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

/// `y += scale * x`.
#[inline]
fn axpy(y: &mut [f64], x: &[f64], scale: f64) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += scale * x);
}

/// The factor for one number k of remaining variables and all smaller ones.
#[derive(Debug, Default)]
pub(super) struct Anchor {
    /// Number of variables, k.
    pub(super) size: usize,
    /// L, lower triangle, `[k, k]`.
    pub(super) factor: Vec<f64>,
    /// L^-1, lower triangle, `[k, k]`.
    pub(super) inverse: Vec<f64>,
    /// `tr(D_j)/2` of the first j variables, `[k + 1]`.
    pub(super) half_trace: Vec<f64>,
    /// `L^-1 J_k`: how y depends on the sign of the variable fixed just before; `[k]`.
    pub(super) step: Vec<f64>,
    /// `|step|^2`.
    pub(super) step_norm: f64,
}

impl Anchor {
    /// `y = L^-1 g`.
    #[inline]
    pub(super) fn solve(&self, g: &[f64], y: &mut [f64]) {
        let k = self.size;
        for (i, y) in y[..k].iter_mut().enumerate() {
            *y = dot(&self.inverse[i * k..=i * k + i], g);
        }
    }
}

/// Working memory and state of the choice of D.
#[derive(Debug, Default)]
pub(super) struct Diagonal {
    /// D, kept from one anchor to the next as a starting point.
    pub(super) d: Vec<f64>,
    inverse: Vec<f64>,
    product: Vec<f64>,
    half: Vec<f64>,
    hessian: Vec<f64>,
    step: Vec<f64>,
    trial: Vec<f64>,
    factor: Vec<f64>,
    row: Vec<f64>,
}

impl Diagonal {
    /// Minimises `tr(D) + tr(A^-1 G) - mu ln det A` for the leading k variables by Newton steps from the present D,
    /// with mu shrinking from `mu.0` to `mu.1`, and leaves the factors of the D reached in `anchor`.
    ///
    /// `j` and `g` (for G) have rows of `stride`. D must make A positive definite; if it does not, `false` is returned.
    pub(super) fn improve(
        &mut self,
        (j, g, stride): (&[f64], &[f64], usize),
        k: usize,
        mu: (f64, f64),
        steps: usize,
        anchor: &mut Anchor,
    ) -> bool {
        let square = k * k;
        for buffer in [&mut self.inverse, &mut self.product, &mut self.half, &mut self.hessian, &mut self.factor] {
            buffer.clear();
            buffer.resize(square, 0.0);
        }
        self.step.resize(k, 0.0);
        self.trial.resize(k, 0.0);
        self.row.resize(k, 0.0);
        anchor.size = k;
        anchor.factor.resize(square, 0.0);
        anchor.inverse.resize(square, 0.0);
        if !factorise(j, stride, &self.d[..k], &mut anchor.factor, k) {
            return false;
        }
        let mut mu_now = mu.0;
        for _ in 0..steps {
            invert_lower(&anchor.factor, &mut anchor.inverse, k);
            self.direction((g, stride), k, mu_now, &anchor.inverse);
            // The longest of a few steps that stays inside the cone.
            let mut length = 1.0;
            let accepted = (0..8).any(|_| {
                for i in 0..k {
                    self.trial[i] = self.d[i] - length * self.step[i];
                }
                length *= 0.6;
                factorise(j, stride, &self.trial[..k], &mut self.factor, k)
            });
            if !accepted {
                break;
            }
            self.d[..k].copy_from_slice(&self.trial[..k]);
            anchor.factor[..square].copy_from_slice(&self.factor[..square]);
            mu_now = (0.3 * mu_now).max(mu.1);
        }
        invert_lower(&anchor.factor, &mut anchor.inverse, k);
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
    fn direction(&mut self, (g, stride): (&[f64], usize), k: usize, mu: f64, lower: &[f64]) {
        let inverse = &mut self.inverse;
        inverse.fill(0.0);
        for r in 0..k {
            let row = &lower[r * k..r * k + r + 1];
            for i in 0..=r {
                axpy(&mut inverse[i * k..i * k + i + 1], row, row[i]);
            }
        }
        for i in 0..k {
            for q in 0..i {
                inverse[q * k + i] = inverse[i * k + q];
            }
        }
        for i in 0..k {
            for q in 0..k {
                self.half[i * k + q] = dot(&g[q * stride..q * stride + k], &inverse[i * k..i * k + k]);
            }
        }
        let hessian = &mut self.hessian;
        for i in 0..k {
            let row = &inverse[i * k..i * k + k];
            for q in 0..=i {
                let (m, b) = (dot(row, &self.half[q * k..q * k + k]), row[q]);
                hessian[i * k + q] = 2.0 * m * b + mu * b * b;
                if q == i {
                    self.step[i] = 1.0 - m - mu * b;
                    hessian[i * k + i] *= 1.0 + 1e-9;
                }
            }
        }
        if !cholesky(hessian, k) {
            self.step.fill(0.0);
            return;
        }
        let p = &mut self.step;
        for i in 0..k {
            p[i] = (p[i] - dot(&hessian[i * k..i * k + i], p)) / hessian[i * k + i];
        }
        for i in (0..k).rev() {
            p[i] /= hessian[i * k + i];
            let c = -p[i];
            axpy(&mut p[..i], &hessian[i * k..i * k + i], c);
        }
    }
}

/// Cholesky factor of `diag(d) - J`; `false` if it is not safely positive definite.
fn factorise(j: &[f64], stride: usize, d: &[f64], out: &mut [f64], k: usize) -> bool {
    for i in 0..k {
        for q in 0..i {
            out[i * k + q] = -j[i * stride + q];
        }
        out[i * k + i] = d[i];
    }
    cholesky(out, k)
}

/// Cholesky factor of the lower triangle, in place; `false` if a pivot is too small beside its diagonal.
fn cholesky(a: &mut [f64], k: usize) -> bool {
    for i in 0..k {
        let (above, rest) = a.split_at_mut(i * k);
        let row = &mut rest[..=i];
        for q in 0..i {
            let other = &above[q * k..=q * k + q];
            row[q] = (row[q] - dot(&row[..q], other)) / other[q];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        // The negation also refuses NaN.
        if !(pivot > 1e-9 * row[i] && pivot > f64::MIN_POSITIVE) {
            return false;
        }
        row[i] = pivot.sqrt();
    }
    true
}

/// Inverse of a lower triangle.
fn invert_lower(l: &[f64], out: &mut [f64], k: usize) {
    for i in 0..k {
        let (above, rest) = out.split_at_mut(i * k);
        let row = &mut rest[..k];
        row.fill(0.0);
        let pivot = 1.0 / l[i * k + i];
        row[i] = pivot;
        for q in 0..i {
            axpy(&mut row[..=q], &above[q * k..=q * k + q], -l[i * k + q] * pivot);
        }
    }
}
