use super::*;
use crate::structure::oracle::{self, Random, Values, cases};

/// Potentials whose pairs are drawn apart from the unary ones.
fn instance(n: usize, unary: Values, pairs: Values, random: &mut Random) -> Vec<f32> {
    let mut h = unary.vector(2 * n, random);
    h.extend(pairs.vector(n * n.saturating_sub(1) / 2, random));
    h
}

#[test]
fn argmax_agrees_with_enumeration() {
    let mut scratch = PairwiseScratch::default();
    for case in 0..cases() {
        let mut random = Random::new(1, case);
        let n = random.below(11);
        let unary = Values::ALL[case as usize % 5];
        let pairs = Values::ALL[case as usize / 5 % 5];
        let h = instance(n, unary, pairs, &mut random);
        let model = Pairwise::new(n).unwrap();
        oracle::check_argmax(&model, &h, &mut scratch, &(case, unary, pairs, &h));
    }
}

#[test]
fn sums_agree_with_enumeration() {
    for case in 0..cases() / 4 {
        let mut random = Random::new(2, case);
        let n = random.below(8);
        let (unary, pairs) = (Values::ALL[case as usize % 5], Values::ALL[case as usize / 5 % 5]);
        let h = instance(n, unary, pairs, &mut random);
        let model = Pairwise::new(n).unwrap();
        oracle::check_sums(&model, &h, &(case, unary, pairs, &h));
        if unary != Values::Extreme && pairs != Values::Extreme {
            oracle::check_kl(&model, &h, &(case, unary, pairs, &h));
        }
    }
}
