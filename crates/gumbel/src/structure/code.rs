//! The code of an assignment: its unary statistics, which a decoder reads, and their one-coordinate changes.
//!
//! An arg max estimator replaces the loss of a decoder by a separable one around the sample z*, `sum_u s_u(z) losses[u]`
//! over the unary statistics (paper Section 4.1). What `losses` are depends on the code:
//!
//! - [`OneHot`](Code::OneHot): `losses[i, k]` is the loss of z* with variable i changed to the value k. Such changes stay
//!   in Z, whatever couples the variables, and the sum is the first-order expansion of the loss around z*, up to a
//!   constant that moves no arg max.
//! - [`Indicators`](Code::Indicators): a single change may leave Z (a subset with one element too many), but the decoder
//!   reads any code of zeros and ones. `losses[u]` is the loss of the code of z* with indicator u on, less that with it
//!   off, all other indicators as in z*. Again the sum is the first-order expansion up to a constant: switching u on
//!   costs `losses[u]`, switching it off gains as much.

/// What the unary statistics of the assignments of a structure look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// One-hot rows `[n, values]`, one for each variable: every combination of values is an assignment.
    OneHot {
        /// Values of a variable, K >= 1.
        values: usize,
    },
    /// U zeros and ones, of which not every combination is an assignment; there are no potentials but the unary ones.
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
