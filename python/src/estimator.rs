//! Estimators of the registry, by name.

use crate::custom::Raised;
use crate::oracle::{Answer, Asker, Keeper, Linear, Question};
use crate::structure::Structure;
use crate::{expect, failed, pool, refused};
use gumbel::Error;
use gumbel::estimator::{self as heart, EstimatorEntry, Follows, KlTerm, MEASURES, Memory, Moment, Tally};
use gumbel::oracle::Oracle;
use gumbel::registry::{Entry as _, Settings, one_of};
use gumbel::structure::{AnyStructure, Structure as _};
use numpy::PyUntypedArrayMethods;
use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, TryLockError, mpsc};

/// Names, lines of help, and settings with defaults, ranges and help, of all estimators.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "a table for Python")]
pub fn estimators() -> Vec<(String, String, Vec<(String, String, String, String)>)> {
    let text = |entry: &EstimatorEntry| {
        let settings = entry.settings().iter().map(|s| {
            let auto = entry.auto_settings().contains(&s.name);
            let default = if auto { "auto" } else { s.default };
            (s.name.into(), default.into(), s.range(), s.help.into())
        });
        (entry.name().into(), entry.help().into(), settings.collect())
    };
    heart::estimators().iter().map(text).collect()
}

/// What changes from step to step.
struct State {
    estimator: Box<dyn heart::Estimator>,
    memory: Memory<AnyStructure>,
}

/// An estimator for a structure: it keeps its working memory, and what it learns.
#[pyclass(frozen, module = "gumbel_argmax._native")]
pub struct Estimator {
    structure: AnyStructure,
    /// What a structure written in Python raises.
    raised: Option<Raised>,
    settings: Vec<(String, String)>,
    state: Mutex<State>,
}

/// Gradient `[batch * P]`, codes `[rows * batch * U]`, weights, what was measured.
type Found<'py> =
    (Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>, HashMap<&'static str, f64>);

/// The same before it is Python's.
struct Raw {
    gradient: Vec<f32>,
    codes: Vec<f32>,
    weights: Vec<f32>,
    tallies: [Tally; MEASURES],
}

/// The user's functions.
struct Functions {
    /// `losses(codes [rows, U], of [rows])`, flat arrays.
    losses: Py<PyAny>,
    /// The same with slopes.
    slopes: Option<Py<PyAny>>,
}

impl Functions {
    fn answer(&self, question: Question, width: usize) -> PyResult<(Vec<f32>, Vec<f32>)> {
        Python::attach(|py| {
            let rows = question.of.len();
            let arrays = (PyArray1::from_vec(py, question.codes), PyArray1::from_vec(py, question.of));
            let copy = |what: &str, array: Bound<'_, PyAny>, len: usize| -> PyResult<Vec<f32>> {
                let array: PyReadonlyArray1<'_, f32> = array.extract()?;
                expect(what, array.len(), len)?;
                Ok(array.as_slice()?.to_vec())
            };
            if !question.slopes {
                return Ok((copy("losses", self.losses.bind(py).call1(arrays)?, rows)?, vec![]));
            }
            let slopes = self.slopes.as_ref().ok_or_else(|| {
                PyValueError::new_err("this estimator asks for slopes of the loss: expected a function for them")
            })?;
            let (losses, slopes): (Bound<'_, PyAny>, Bound<'_, PyAny>) = slopes.bind(py).call1(arrays)?.extract()?;
            Ok((copy("losses", losses, rows)?, copy("slopes", slopes, rows * width)?))
        })
    }
}

impl Estimator {
    fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(state)) => Ok(state.into_inner()),
            Err(TryLockError::WouldBlock) => Err(PyRuntimeError::new_err(
                "the estimator is in use: expected one estimator for each thread, and no use of it by the loss",
            )),
        }
    }

    /// What a structure written in Python has raised.
    fn raised(&self) -> Option<PyErr> {
        self.raised.as_ref().and_then(Raised::take)
    }

    /// A pool for work that waits for Python: of one thread where the structure does, one example at a time.
    fn pool(&self, threads: usize) -> PyResult<pool::Lent> {
        pool::lent(if self.raised.is_some() { 1 } else { threads })
    }

    /// Number of samples in the noise.
    fn samples(&self, state: &State, batch: usize, noise: usize) -> Result<usize, Error> {
        let width = match state.estimator.is_random() {
            true => state.estimator.noise(&self.structure)?,
            false => return Ok(1),
        };
        let each = batch * width;
        if each == 0 {
            return Ok(1);
        }
        let samples = noise / each;
        if samples * each != noise || samples < state.estimator.least_samples() {
            let least = state.estimator.least_samples();
            return Err(failed(format!(
                "noise has {noise} values: expected [samples, {batch}, {width}] with at least {least} samples"
            )));
        }
        Ok(samples)
    }

    /// Estimates, at a moment if one is given, and learns from it if that is asked for.
    fn estimate_with(
        &self,
        state: &mut State,
        theta: &[f32],
        noise: &[f32],
        oracle: &mut dyn Oracle,
        moment: Option<Moment>,
        learn: bool,
    ) -> Result<Raw, Error> {
        let batch = theta.len() / self.structure.potentials();
        if batch == 0 {
            let (gradient, codes, weights) = (vec![], vec![], vec![]);
            return Ok(Raw { gradient, codes, weights, tallies: [Tally::default(); MEASURES] });
        }
        let samples = self.samples(state, batch, noise.len())?;
        if let Some(moment) = &moment {
            state.estimator.begin(moment)?;
        }
        let (codes, weights) = match state.estimator.follows() {
            Follows::States => (vec![], vec![]),
            _ => {
                let rows = state.estimator.rows(samples) * batch;
                (vec![0.0; rows * self.structure.unary()], vec![0.0; rows])
            }
        };
        let mut keeper = Keeper { inner: oracle, structure: &self.structure, examples: batch, codes, weights };
        let State { estimator, memory } = state;
        let found = heart::estimate_with(&**estimator, &self.structure, theta, noise, &mut keeper, memory);
        let Keeper { codes, weights, .. } = keeper;
        let found = match found {
            Ok(found) => found,
            Err(e) => {
                // Half of a step stands in it.
                *memory = Memory::default();
                return Err(e);
            }
        };
        if learn {
            estimator.learn(&found.sums);
        }
        Ok(Raw { gradient: found.gradient, codes, weights, tallies: found.tallies })
    }

    fn to_python<'py>(&self, py: Python<'py>, state: &State, raw: Raw) -> Found<'py> {
        let measured = state.estimator.measures().iter().zip(&raw.tallies).filter(|(_, t)| t.count > 0.0);
        let measured = measured.map(|(m, t)| (m.name, t.mean())).collect();
        let array = |v| PyArray1::from_vec(py, v);
        (array(raw.gradient), array(raw.codes), array(raw.weights), measured)
    }
}

#[pymethods]
impl Estimator {
    /// The estimator of a name; settings are texts, as on the command line.
    #[new]
    fn new(py: Python<'_>, structure: &Structure, name: &str, settings: Vec<(String, String)>) -> PyResult<Self> {
        let all = heart::estimators();
        let entry = all.get(name).map_err(refused)?;
        let mut values = Settings::defaults(entry.settings());
        let mut chosen = HashMap::new();
        for (key, text) in settings {
            let Some(setting) = entry.settings().iter().find(|s| s.name == key) else {
                let names: Vec<&str> = entry.settings().iter().map(|s| s.name).collect();
                let expected = match names.is_empty() {
                    true => "none".into(),
                    false => one_of(&key, &names),
                };
                let message = format!("{key} is no setting of {name}: expected {expected}");
                return Err(PyValueError::new_err(message));
            };
            if text == "auto" && entry.auto_settings().contains(&setting.name) {
                continue;
            }
            values = values.with(setting, &text).map_err(refused)?;
            chosen.insert(setting.name, text);
        }
        for (key, text) in entry.auto(&structure.any, &|key| chosen.get(key).map(String::as_str)) {
            if let Some(setting) = entry.settings().iter().find(|s| s.name == key && !chosen.contains_key(key)) {
                values = values.with(setting, &text).map_err(refused)?;
            }
        }
        let made = entry.build(&values, &structure.any).map_err(refused)?;
        // What cannot be asked of this latent is said now, not in the first step.
        made.noise(&structure.any).map_err(refused)?;
        let (any, raised) = structure.instance(py);
        Ok(Estimator {
            structure: any,
            raised,
            settings: values.iter().map(|(name, value)| (name.into(), value.to_string())).collect(),
            state: Mutex::new(State { estimator: made, memory: Memory::default() }),
        })
    }

    /// Names and values of all settings, chosen or not.
    #[getter]
    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    /// `assignments`, `codes` or `states`.
    #[getter]
    fn follows(&self) -> PyResult<&'static str> {
        Ok(match self.lock()?.estimator.follows() {
            Follows::Assignments => "assignments",
            Follows::Codes => "codes",
            Follows::States => "states",
        })
    }

    #[getter]
    fn kl(&self) -> PyResult<&'static str> {
        Ok(match self.lock()?.estimator.kl(&self.structure) {
            KlTerm::Apart => "apart",
            KlTerm::Either => "either",
            KlTerm::Within => "within",
        })
    }

    #[getter]
    fn least_samples(&self) -> PyResult<usize> {
        Ok(self.lock()?.estimator.least_samples())
    }

    /// Gumbel variables of one example and sample; 0 where nothing is random.
    #[getter]
    fn noise_width(&self) -> PyResult<usize> {
        let state = self.lock()?;
        match state.estimator.is_random() {
            true => state.estimator.noise(&self.structure).map_err(refused),
            false => Ok(0),
        }
    }

    fn rows(&self, samples: usize) -> PyResult<usize> {
        Ok(self.lock()?.estimator.rows(samples))
    }

    /// The estimate of the gradient at `theta` `[batch, P]` with flat noise `[samples * batch * width]`.
    #[expect(clippy::too_many_arguments, reason = "arrays and functions of one call")]
    fn estimate<'py>(
        &self,
        py: Python<'py>,
        theta: PyReadonlyArray2<'_, f32>,
        noise: PyReadonlyArray1<'_, f32>,
        losses: Py<PyAny>,
        slopes: Option<Py<PyAny>>,
        chunk: usize,
        step: Option<u64>,
        kl_weight: f32,
        learn: bool,
        threads: usize,
    ) -> PyResult<Found<'py>> {
        expect("the last axis of theta", theta.shape()[1], self.structure.potentials())?;
        let (theta, noise, pool) = (theta.as_slice()?, noise.as_slice()?, self.pool(threads)?);
        let functions = Functions { losses, slopes };
        let moment = step.map(|step| Moment { step, kl_weight });
        let mut guard = self.lock()?;
        let state = &mut *guard;
        let width = self.structure.unary();
        let (found, raised) = py.detach(|| {
            let (questions, asked) = mpsc::channel::<Question>();
            let (replies, answers) = mpsc::channel::<Answer>();
            let mut asker = Asker { structure: &self.structure, questions, answers, chunk: chunk.max(1) };
            let (mut found, mut raised) = (None, None);
            pool.in_place_scope(|scope| {
                let (found, state) = (&mut found, &mut *state);
                scope.spawn(move |_| *found = Some(self.estimate_with(state, theta, noise, &mut asker, moment, learn)));
                // Ends when the asker is gone.
                for question in asked {
                    let answer = match functions.answer(question, width) {
                        Ok(answer) => Some(answer),
                        Err(e) => {
                            raised = Some(e);
                            None
                        }
                    };
                    if replies.send(answer).is_err() {
                        break;
                    }
                }
            });
            (found, raised)
        });
        if let Some(raised) = raised.or_else(|| self.raised()) {
            return Err(raised);
        }
        let found = found.ok_or_else(|| PyRuntimeError::new_err("the estimator has not answered"))?;
        Ok(self.to_python(py, state, found.map_err(refused)?))
    }

    /// The same for losses that are linear in the code, `<slopes [batch, U], code>`.
    #[expect(clippy::too_many_arguments, reason = "arrays of one call")]
    fn estimate_linear<'py>(
        &self,
        py: Python<'py>,
        theta: PyReadonlyArray2<'_, f32>,
        noise: PyReadonlyArray1<'_, f32>,
        slopes: PyReadonlyArray2<'_, f32>,
        step: Option<u64>,
        learn: bool,
        threads: usize,
    ) -> PyResult<Found<'py>> {
        expect("the last axis of theta", theta.shape()[1], self.structure.potentials())?;
        let batch = theta.shape()[0];
        let (theta, noise, slopes) = (theta.as_slice()?, noise.as_slice()?, slopes.as_slice()?);
        expect("slopes", slopes.len(), batch * self.structure.unary())?;
        let moment = step.map(|step| Moment { step, kl_weight: 0.0 });
        let mut guard = self.lock()?;
        let state = &mut *guard;
        let mut oracle = Linear { structure: &self.structure, slopes };
        let work = || self.estimate_with(state, theta, noise, &mut oracle, moment, learn);
        let found = match &self.raised {
            None => {
                let pool = gumbel::batch::pool(threads).map_err(refused)?;
                py.detach(|| pool.install(work))
            }
            // It waits for Python, one example at a time.
            Some(_) => {
                let pool = self.pool(1)?;
                py.detach(|| pool.install(work))
            }
        };
        if let Some(raised) = self.raised() {
            return Err(raised);
        }
        Ok(self.to_python(py, state, found.map_err(refused)?))
    }

    /// What it has learned.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        Ok(PyArray1::from_vec(py, self.lock()?.estimator.state()))
    }

    /// Puts that back.
    fn restore(&self, state: PyReadonlyArray1<'_, f32>) -> PyResult<()> {
        self.lock()?.estimator.restore(state.as_slice()?).map_err(refused)
    }
}
