//! The code of an assignment: its unary statistics, which a decoder reads, and their one-coordinate changes.
//!
//! An arg max estimator replaces the loss of a decoder by a separable one around the sample z*, `sum_u s_u(z)
//! losses[u]` over the unary statistics (paper Section 4.1). What `losses` are depends on the code:
//!
//! - [`OneHot`](Code::OneHot): `losses[i, k]` is the loss of z* with variable i changed to the value k. Such changes
//!   stay in Z, whatever couples the variables, and the sum is the first-order expansion of the loss around z*, up to a
//!   constant that moves no arg max.
//! - [`Indicators`](Code::Indicators): a single change may leave Z (a subset with one element too many), but the
//!   decoder reads any code of zeros and ones. `losses[u]` is the loss of the code of z* with indicator u on, less that
//!   with it off, all other indicators as in z*. Again the sum is the first-order expansion up to a constant: switching
//!   u on costs `losses[u]`, switching it off gains as much.
//!
//! A space that is neither (one item per group under a budget: one-hot rows, of which not all combinations are
//! assignments) has the code of [`Indicators`](Code::Indicators), with one indicator for each item of each group. Its
//! changes add an item to a group or take one away, whatever the budget says: the decoder reads codes that are no
//! assignments, as it does for subsets. `OneHot` would promise that every change of one row is an assignment, and that
//! all `K^n` combinations are. [`testing`](crate::testing) has this space as an example.

use super::Structure;

/// What the unary statistics of the assignments of a structure look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// One-hot rows `[n, values]`, one for each variable: every combination of values is an assignment.
    OneHot {
        /// Values of a variable, K >= 1.
        values: usize,
    },
    /// U zeros and ones, of which not every combination is an assignment; there are no potentials but the unary ones,
    /// and the code is all the statistics.
    Indicators,
}

/// A change of a code in one coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The statistic that becomes 0.
    pub off: Option<usize>,
    /// The statistic that becomes 1.
    pub on: Option<usize>,
}

impl Code {
    /// Number of one-coordinate changes of a code with `unary` entries: n (K - 1), or U.
    pub fn changes(self, unary: usize) -> usize {
        match self {
            Code::OneHot { values } => unary - unary / values,
            Code::Indicators => unary,
        }
    }

    /// Calls `each` with all one-coordinate changes: by variable and new value, or by indicator.
    pub fn for_each_change(self, code: &[f32], mut each: impl FnMut(Change)) {
        match self {
            Code::OneHot { values } => {
                for (i, row) in code.chunks_exact(values).enumerate() {
                    let present = i * values + row.iter().position(|c| *c != 0.0).unwrap_or(0);
                    let others = (i * values..(i + 1) * values).filter(|u| *u != present);
                    others.for_each(|u| each(Change { off: Some(present), on: Some(u) }));
                }
            }
            Code::Indicators => code.iter().enumerate().for_each(|(u, c)| match *c != 0.0 {
                true => each(Change { off: Some(u), on: None }),
                false => each(Change { off: None, on: Some(u) }),
            }),
        }
    }

    /// Writes the losses of the separable approximation around a code (U values), from its own loss and those of its
    /// changes in the order of [`for_each_change`](Code::for_each_change).
    pub fn neighbour_losses(self, code: &[f32], own: f32, changed: &[f32], losses: &mut [f32]) {
        match self {
            Code::OneHot { .. } => {
                let mut changed = changed.iter();
                for (loss, c) in losses.iter_mut().zip(code) {
                    let other = if *c != 0.0 { None } else { changed.next() };
                    *loss = *other.unwrap_or(&own);
                }
            }
            Code::Indicators => {
                for ((loss, c), changed) in losses.iter_mut().zip(code).zip(changed) {
                    *loss = if *c != 0.0 { own - changed } else { changed - own };
                }
            }
        }
    }
}

/// The losses of the separable approximation around an assignment (U values), from the loss of any code: one call for
/// the assignment and one for each of its [changes](Code::changes).
///
/// ```
/// use gumbel::structure::{Categorical, neighbour_losses};
/// let z = Categorical::product(2, 2)?;
/// let loss = |code: &[f32]| 3.0 * code[1] + 5.0 * code[3]; // 3 if z_1 = 1, 5 if z_2 = 1
/// assert_eq!(neighbour_losses(&z, &[1, 0], loss), [0.0, 3.0, 3.0, 8.0]);
/// # Ok::<(), gumbel::Error>(())
/// ```
pub fn neighbour_losses<S: Structure + ?Sized>(
    structure: &S,
    assignment: &[u32],
    mut loss: impl FnMut(&[f32]) -> f32,
) -> Vec<f32> {
    let mut code = vec![0.0; structure.unary()];
    structure.encode(assignment, &mut code);
    let (own, mut next) = (loss(&code), code.clone());
    let mut changed = Vec::with_capacity(structure.code().changes(code.len()));
    structure.code().for_each_change(&code, |Change { off, on }| {
        off.iter().for_each(|u| next[*u] = 0.0);
        on.iter().for_each(|u| next[*u] = 1.0);
        changed.push(loss(&next));
        off.iter().chain(&on).for_each(|u| next[*u] = code[*u]);
    });
    let mut losses = vec![0.0; code.len()];
    structure.code().neighbour_losses(&code, own, &changed, &mut losses);
    losses
}

#[cfg(test)]
mod tests {
    use crate::structure::{Arborescence, Chain, Pairwise, Permutation, SpanningTree, Structure, Subset};

    /// For a loss that is linear in the code the approximation is exact on all of Z, up to a constant.
    fn check<S: Structure>(structure: &S) {
        let (u, n) = (structure.unary(), structure.variables());
        let weights: Vec<f32> = (0..u).map(|i| (i * 7 % 11) as f32 - 4.0).collect();
        let loss = |code: &[f32]| code.iter().zip(&weights).map(|(c, w)| c * w).sum::<f32>() + 3.0;
        let (mut z, mut code, mut other) = (vec![0; n], vec![0.0; u], vec![0.0; u]);
        let states = structure.states().unwrap();
        for s in 0..states {
            structure.state(s, &mut z);
            structure.encode(&z, &mut code);
            let mut changed = vec![];
            structure.code().for_each_change(&code, |change| {
                let mut next = code.clone();
                if let Some(off) = change.off {
                    assert_eq!(std::mem::replace(&mut next[off], 0.0), 1.0);
                }
                if let Some(on) = change.on {
                    assert_eq!(std::mem::replace(&mut next[on], 1.0), 0.0);
                }
                changed.push(loss(&next));
            });
            assert_eq!(changed.len(), structure.code().changes(u));
            let mut losses = vec![f32::NAN; u];
            structure.code().neighbour_losses(&code, loss(&code), &changed, &mut losses);
            assert_eq!(super::neighbour_losses(structure, &z, loss), losses);
            let separable = |code: &[f32]| code.iter().zip(&losses).map(|(c, l)| c * l).sum::<f32>();
            for t in 0..states {
                structure.state(t, &mut z);
                structure.encode(&z, &mut other);
                let (moved, found) = (loss(&other) - loss(&code), separable(&other) - separable(&code));
                assert!((moved - found).abs() < 1e-4, "{s} to {t}: {moved}, {found}");
            }
        }
    }

    #[test]
    fn the_separable_approximation_is_exact_for_linear_losses() {
        check(&Pairwise::new(4).unwrap());
        check(&Chain::new(3, 3).unwrap());
        check(&Subset::new(5, 2).unwrap());
        check(&Permutation::new(4).unwrap());
        check(&SpanningTree::complete(4).unwrap());
        check(&Arborescence::new(4, 0).unwrap());
    }
}
