//! Bad input is an error that says what and where.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{
    Direct, DirectJoint, Estimator, Exact, Flips, GumbelSoftmax, LocalExpectation, Memory, Perturbation, Search,
    StraightThrough, estimate,
};
use gumbel::oracle::{Closure, Oracle};
use gumbel::structure::{AnyStructure, Categorical, Pairwise};

#[test]
fn bad_input_is_an_error() {
    assert!(Direct::new(0.0).is_err() && Direct::new(f32::NAN).is_err() && Direct::new(-1.0).is_err());
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(GumbelSoftmax::new(bad).is_err() && StraightThrough::new(bad).is_err());
    }
    let structure = Categorical::new(2).unwrap();
    let both = |potentials: &[f32], noise: &[f32], losses: &[f32]| {
        let oracle = &mut Closure::new(&structure, |b, code| losses[2 * b + index(&structure, code)]);
        let direct = estimate(&Direct::new(1.0).unwrap(), &structure, potentials, noise, oracle);
        let exact = estimate(&Exact, &structure, potentials, noise, oracle);
        (direct.map(drop), exact.map(drop))
    };
    let agreed = |potentials: &[f32], losses: &[f32]| {
        let (direct, exact) = both(potentials, &vec![0.0; potentials.len()], losses);
        assert_eq!(direct.is_err(), exact.is_err());
        direct
    };
    assert!(agreed(&[0.0, 1.0], &[1.0, 2.0]).is_ok());
    let message = agreed(&[0.0, 1.0, 0.0, 1.0], &[1.0, 2.0, 1.0, f32::NAN]).unwrap_err().to_string();
    assert_eq!(message, "example 1 of the batch: loss 1 is NaN: expected a finite number");
    assert!(agreed(&[0.0, f32::NAN], &[1.0, 2.0]).is_err());
    assert!(agreed(&[0.0, 1.0, 2.0], &[1.0, 2.0, 1.0, 2.0]).is_err());
    assert!(agreed(&[0.0, f32::INFINITY], &[1.0, 2.0]).is_err());
    assert!(agreed(&[0.0, 1.0], &[1.0, f32::INFINITY]).is_err());
    let (direct, exact) = both(&[f32::NEG_INFINITY; 2], &[0.0; 2], &[1.0, 2.0]);
    for forbidden in [direct, exact] {
        let Err(Error::Example { example: 0, source }) = &forbidden else { panic!("{forbidden:?}") };
        assert!(matches!(**source, Error::Infeasible { .. }), "{forbidden:?}");
    }
    for potentials in [[0.0, f32::NAN], [f32::INFINITY, 0.0], [f32::NAN; 2]] {
        let oracle = &mut Closure::new(&structure, |_, code| code[1]);
        let error =
            estimate(&GumbelSoftmax::new(1.0).unwrap(), &structure, &potentials, &[0.0; 2], oracle).unwrap_err();
        assert!(error.to_string().contains("potential"), "{error}");
    }
    // Noise of another length; where nothing is random, none is looked at.
    for noise in [&[][..], &[0.0], &[0.0; 3]] {
        let (direct, exact) = both(&[0.0, 1.0], noise, &[1.0, 2.0]);
        assert!(matches!(direct, Err(Error::Length { what: "noise", .. })) && exact.is_ok(), "{direct:?} {exact:?}");
    }
    // The place of an example in its batch, not in its piece.
    let second = ByHand { samples: 1, scale: 1.0, parallel: false, first: 32 };
    let oracle = &mut Closure::new(&structure, |b, _| if b == 1 { f32::NAN } else { 0.0 });
    let (h, memory, gradient) = ([0.0; 4], &mut Memory::default(), &mut [0.0; 4]);
    let direct = Direct::new(1.0).unwrap();
    let found = piece(&direct, &structure, (&h, &[0.0; 4]), &second, oracle, memory, gradient).unwrap_err();
    assert_eq!(found.to_string(), "example 33 of the batch: loss 0 is NaN: expected a finite number");

    let large = Categorical::binary(40).unwrap();
    let oracle = &mut Closure::new(&large, |_, _| 0.0);
    let error = estimate(&Exact, &large, &[0.0; 80], &[], oracle).unwrap_err();
    assert_eq!(error.to_string(), "1099511627776 states are too many to enumerate: at most 32768");
}

/// Answers belong to rows: an oracle refuses slices that are no rows.
#[test]
fn a_closure_refuses_slices_of_wrong_lengths() {
    let structure = Categorical::new(2).unwrap();
    let mut oracle = Closure::new(&structure, |_, code| code[1]);
    let (mut one, mut two, mut three) = ([0.0; 1], [0.0; 2], [0.0; 3]);
    let of = &[0];
    assert!(oracle.losses(of, &[0], &mut one).is_ok());
    assert!(oracle.losses(of, &[0], &mut two).is_err());
    assert!(oracle.losses(of, &[0, 1], &mut one).is_err());
    assert!(oracle.around(of, &[0], &mut one, &mut two).is_ok());
    assert!(oracle.around(of, &[0, 1], &mut one, &mut two).is_err());
    assert!(oracle.around(of, &[0], &mut [], &mut two).is_err());
    assert!(oracle.around(of, &[0], &mut one, &mut three).is_err());
    assert!(oracle.states(of, &mut two).is_ok());
    assert!(oracle.states(of, &mut three).is_err());
    assert!(oracle.slopes(of, &[1.0, 0.0], &mut one, &mut two).is_ok());
    assert!(oracle.slopes(of, &[1.0], &mut one, &mut two).is_err());
    assert!(oracle.slopes(of, &[1.0, 0.0], &mut two.clone(), &mut two).is_err());
    assert!(oracle.slopes(of, &[1.0, 0.0], &mut one, &mut three).is_err());
}

/// An example may be named several times, or not at all.
#[test]
fn a_closure_answers_for_the_examples_that_are_named() {
    let structure = Categorical::new(2).unwrap();
    let mut oracle = Closure::new(&structure, |b, code| 10.0 * b as f32 + code[1]);
    let mut losses = [0.0; 3];
    oracle.losses(&[7, 0, 7], &[1, 0, 0], &mut losses).unwrap();
    assert_eq!(losses, [71.0, 0.0, 70.0]);
}

#[test]
fn an_empty_batch_has_an_empty_estimate() {
    let structure = Categorical::new(2).unwrap();
    let direct = Direct::new(1.0).unwrap();
    let relaxed = GumbelSoftmax::new(1.0).unwrap();
    let (search, flips) = (Search::new(direct), Flips::new(direct));
    for estimator in [&direct as &dyn Estimator<Categorical>, &Exact, &LocalExpectation, &relaxed, &search, &flips] {
        let oracle = &mut Closure::new(&structure, |_, _| -> f32 { unreachable!("there is no example") });
        let found = estimate(estimator, &structure, &[], &[], oracle).unwrap();
        assert!(found.gradient.is_empty() && found.tallies[0].count == 0.0);
    }
}

#[test]
fn estimators_of_independent_variables_refuse_coupled_ones() {
    let structure: AnyStructure = Pairwise::new(2).unwrap().into();
    let refused = |estimator: &dyn Estimator| {
        let oracle = &mut Closure::new(&structure, |_, _| 0.0);
        estimate(estimator, &structure, &[0.0; 5], &[0.0; 4], oracle).map(drop)
    };
    let local = refused(&LocalExpectation).unwrap_err();
    assert!(matches!(&local, Error::Example { source, .. } if matches!(**source, Error::Coupled { .. })), "{local}");
    refused(&Direct::new(1.0).unwrap().rao_blackwell()).unwrap(); // has an expectation for them too
    let search = Search::new(Direct::new(1.0).unwrap());
    assert!(matches!(refused(&search.rao_blackwell()), Err(Error::Coupled { .. })));
    refused(&search).unwrap();
    assert!(matches!(refused(&GumbelSoftmax::new(1.0).unwrap()), Err(Error::Coupled { .. })));
    assert!(matches!(refused(&StraightThrough::new(1.0).unwrap()), Err(Error::Coupled { .. })));
    refused(&Direct::new(1.0).unwrap()).unwrap();
    let large: AnyStructure = Pairwise::new(30).unwrap().into();
    let full = DirectJoint::new(Direct::new(1.0).unwrap(), Perturbation::Full);
    assert!(full.noise(&large).unwrap_err().to_string().contains("too many to enumerate"));
}
