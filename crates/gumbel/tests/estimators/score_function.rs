//! The estimator of the documentation's example, which asks for losses at assignments alone.

use crate::common::*;
use gumbel::estimator::{Estimator, Follows};
use gumbel::oracle::Questions;
use gumbel::structure::Categorical;
use leave_one_out::LeaveOneOut;

#[path = "../../examples/leave_one_out.rs"]
mod leave_one_out;

#[test]
fn leave_one_out_averages_to_the_exact_gradient() {
    for k in [2usize, 5] {
        let structure = Categorical::new(k).unwrap();
        let (h, losses) = (random(k, 1.0, 180 + k as u64), random(k, 2.0, 190 + k as u64));
        let oracle = &mut Table::categorical(&structure, &losses);
        let expected = doubles(&exact(&structure, &h, oracle));
        for samples in [2, 5] {
            let found = mean_of(&LeaveOneOut, &structure, &h, oracle, samples, 200_000, (k * samples) as u64);
            assert!(found.error.iter().all(|e| *e > 0.0));
            assert_within_four_standard_errors(&format!("K = {k}, {samples} samples"), &found, &expected);
        }
    }
    // Independent variables are samples of q as well.
    let structure = Categorical::product(2, 3).unwrap();
    let (h, losses) = (random(6, 1.0, 200), random(9, 2.0, 201));
    let oracle = &mut Table::categorical(&structure, &losses);
    let expected = doubles(&exact(&structure, &h, oracle));
    let found = mean_of(&LeaveOneOut, &structure, &h, oracle, 3, 200_000, 202);
    assert_within_four_standard_errors("two variables", &found, &expected);
}

#[test]
fn it_asks_for_losses_and_follows_every_sample() {
    let structure = Categorical::new(3).unwrap();
    let estimator: &dyn Estimator<Categorical> = &LeaveOneOut;
    assert_eq!((estimator.questions(&structure), estimator.follows()), (Questions::LOSSES, Follows::Assignments));
    let oracle = &mut Table::categorical(&structure, &[0.0, 1.0, 2.0]);
    mean_of(estimator, &structure, &[0.0; 3], oracle, 4, CHUNK, 0);
    assert_eq!(oracle.followed, 4 * CHUNK);
}
