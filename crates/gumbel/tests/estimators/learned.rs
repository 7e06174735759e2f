//! An estimator with a parameter of its own: REINFORCE whose baseline is learned by Adam, and goes on after a kill.

use crate::common::*;
use gumbel::Error;
use gumbel::estimator::{Estimator, EstimatorEntry, Piece, estimate, estimators};
use gumbel::oracle::{Closure, Followed, Oracle, Questions};
use gumbel::registry::{Entry, Kind, Setting, Settings};
use gumbel::structure::{AnyStructure, Categorical, Structure, Sums};

const RATE: Setting = Setting {
    name: "baseline-lr",
    kind: Kind::Real(|v| v.is_finite() && v > 0.0, "a finite number greater than 0"),
    default: "0.1",
    value: "X",
    help: "learning rate of the baseline",
};

/// `(loss - baseline) (s(z) - E_q[s])`; the baseline is fitted to the mean loss.
#[derive(Debug, Clone, PartialEq)]
struct Baseline {
    rate: f32,
    value: f32,
    /// Moments of Adam, and its steps.
    first: f32,
    second: f32,
    steps: f32,
}

impl Baseline {
    fn new(rate: f32, value: f32) -> Self {
        Baseline { rate, value, first: 0.0, second: 0.0, steps: 0.0 }
    }
}

impl<S: Sums> Estimator<S> for Baseline {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, of, scale) = (piece.structure, piece.of, piece.scale);
        let (p, n) = (structure.potentials(), structure.variables());
        let (mut losses, mut q) = (vec![0.0; of.len()], vec![0.0; p]);
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            let z = &piece.memory.assignments[..of.len() * n];
            oracle.losses(of, z, &mut losses)?;
            oracle.follow(Followed::Assignments { row: sample, assignments: z, weights: &vec![scale; of.len()] })?;
            for (b, loss) in losses.iter().enumerate() {
                let gradient = &mut piece.gradient[b * p..][..p];
                structure.marginals(&piece.potentials[b * p..][..p], &mut q)?;
                let weight = scale * (loss - self.value);
                structure.add_statistics(&z[b * n..][..n], weight, gradient);
                gradient.iter_mut().zip(&q).for_each(|(g, q)| *g -= weight * q);
                piece.sums[0] += loss;
                piece.sums[1] += 1.0;
            }
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        2
    }

    fn learn(&mut self, sums: &[f32]) {
        let gradient = self.value - sums[0] / sums[1];
        self.steps += 1.0;
        self.first += 0.1 * (gradient - self.first);
        self.second += 0.001 * (gradient * gradient - self.second);
        let (first, second) =
            (self.first / (1.0 - 0.9f32.powf(self.steps)), self.second / (1.0 - 0.999f32.powf(self.steps)));
        self.value -= self.rate * first / (second.sqrt() + 1e-8);
    }

    fn state(&self) -> Vec<f32> {
        vec![self.value, self.first, self.second, self.steps]
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        let &[value, first, second, steps] = state else {
            return Err(Error::Length { what: "the state of the baseline", expected: 4, found: state.len() });
        };
        *self = Baseline { rate: self.rate, value, first, second, steps };
        Ok(())
    }
}

fn entry() -> EstimatorEntry {
    EstimatorEntry::new("learned-baseline", "REINFORCE with a learned baseline", |settings, _| {
        Ok(Box::new(Baseline::new(settings.real("baseline-lr") as f32, 0.0)))
    })
    .with_settings([RATE])
}

/// Whatever the baseline is, the mean is the exact gradient; a good one leaves less variance.
#[test]
fn the_mean_does_not_depend_on_the_baseline() {
    let structure = Categorical::new(4).unwrap();
    let (h, losses) = (random(4, 1.0, 210), random(4, 2.0, 211));
    let losses: Vec<f32> = losses.iter().map(|l| l + 20.0).collect();
    let oracle = &mut Table::categorical(&structure, &losses);
    let expected = doubles(&exact(&structure, &h, oracle));
    let [none, good] = [0.0, 20.0].map(|value| {
        let found = mean_of(&Baseline::new(0.1, value), &structure, &h, oracle, 2, 200_000, 212);
        assert_within_four_standard_errors(&format!("baseline {value}"), &found, &expected);
        assert_eq!(found.sums[1], 400_000.0);
        found
    });
    assert!(none.error.iter().zip(&good.error).all(|(none, good)| *none > 3.0 * good));
}

const BATCH: usize = 16;
const SAMPLES: usize = 2;

/// Potentials of all examples learn for some steps, and the estimator with them.
fn train(estimator: &mut dyn Estimator, h: &mut [f32], steps: std::ops::Range<u64>) {
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    let losses: Vec<Loss> = (0..BATCH).map(|b| Loss::new(&structure, 0.5, 4000 + 2 * b as u64)).collect();
    let mut oracle = Closure::new(&structure, |b, code| 30.0 + losses[b].of(code));
    for step in steps {
        let noise = gumbel(SAMPLES * BATCH * structure.unary(), 220, step);
        let found = estimate(estimator, &structure, h, &noise, &mut oracle).unwrap();
        h.iter_mut().zip(&found.gradient).for_each(|(h, g)| *h -= 0.3 * g);
        estimator.learn(&found.sums);
    }
}

#[test]
fn what_it_has_learned_survives_a_restart_to_the_bit() {
    let mut registry = estimators();
    registry.add(entry());
    let structure: AnyStructure = Categorical::product(2, 3).unwrap().into();
    let build = || {
        let entry = registry.get("learned-baseline").unwrap();
        let settings = Settings::defaults(entry.settings()).with(&RATE, "0.5").unwrap();
        entry.build(&settings, &structure).unwrap()
    };
    let mut through = build();
    let mut h = vec![0.0; BATCH * structure.potentials()];
    train(&mut *through, &mut h, 0..150);

    let mut first = build();
    let mut again = vec![0.0; h.len()];
    train(&mut *first, &mut again, 0..70);
    let state = first.state();
    drop(first);
    let mut second = build();
    assert_ne!(second.state(), state);
    second.restore(&state).unwrap();
    train(&mut *second, &mut again, 70..150);

    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&h), bits(&again));
    assert_eq!(bits(&through.state()), bits(&second.state()));
    // It has learned, and without its state it would have gone elsewhere.
    let value = through.state()[0];
    assert!((20.0..40.0).contains(&value), "{value}");
    let mut fresh = (build(), vec![0.0; h.len()]);
    train(&mut *build(), &mut fresh.1, 0..70);
    train(&mut *fresh.0, &mut fresh.1, 70..150);
    assert_ne!(bits(&h), bits(&fresh.1));

    assert!(matches!(second.restore(&[0.0; 3]), Err(Error::Length { expected: 4, found: 3, .. })));
}

/// Those of the registry own nothing, but for the average of `reinforce`, learned controls and an adaptive lambda:
/// their state is empty, and another one is refused.
#[test]
fn estimators_without_parameters_refuse_a_state() {
    let structure: AnyStructure = Categorical::new(2).unwrap().into();
    let learns = ["reinforce", "rebar", "relax", "direct-rebar", "adaptive-imle"];
    for entry in estimators().iter().filter(|entry| !learns.contains(&entry.name())) {
        let mut estimator = entry.build(&Settings::defaults(entry.settings()), &structure).unwrap();
        assert_eq!((estimator.sums(), estimator.state()), (0, vec![]), "{}", entry.name());
        estimator.restore(&[]).unwrap();
        assert!(matches!(estimator.restore(&[1.0]), Err(Error::Length { .. })), "{}", entry.name());
    }
}
