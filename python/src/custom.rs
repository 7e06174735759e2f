//! Structures written in Python: what the estimators ask of them is asked of the object.

use crate::failed;
use gumbel::Error;
use gumbel::structure::{AnyStructure, Code, Maximum, Structure};
use numpy::PyUntypedArrayMethods;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyReferenceError, PyValueError};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Statistics that are kept, of assignments that are asked for again soon.
const KEPT: usize = 1024;

/// What Python has raised, for who has called; the first of several.
#[derive(Clone, Default)]
pub struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    fn lock(&self) -> MutexGuard<'_, Option<PyErr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it away.
    pub fn take(&self) -> Option<PyErr> {
        self.lock().take()
    }

    fn put(&self, error: PyErr) {
        self.lock().get_or_insert(error);
    }
}

/// What is known of a structure without asking for it.
pub struct Sizes {
    pub potentials: usize,
    pub unary: usize,
    pub variables: usize,
    /// Values of each variable, if codes are one-hot rows.
    pub values: Option<usize>,
    /// All assignments `[states, variables]`, if they are listed.
    pub states: Option<Vec<u32>>,
}

/// An object with `_argmax(theta [P]) -> (assignment [n], value)` and `_statistics(z [n]) -> [P]`.
pub struct Custom {
    /// A weak reference: the object owns what this belongs to.
    object: Py<PyAny>,
    sizes: Arc<Sizes>,
    kept: Mutex<HashMap<Vec<u32>, Arc<[f32]>>>,
    raised: Raised,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").finish_non_exhaustive()
    }
}

/// A structure of one's own, of which each user makes an instance: exceptions go to who has called.
pub struct Kind {
    object: Py<PyAny>,
    sizes: Arc<Sizes>,
}

impl Kind {
    /// # Errors
    /// Sizes that contradict each other.
    pub fn new(object: Py<PyAny>, sizes: Sizes) -> PyResult<Self> {
        let Sizes { potentials: p, unary: u, variables: n, values, .. } = sizes;
        let bad = |what: String| Err(PyValueError::new_err(what));
        if n == 0 || u == 0 {
            return bad(format!("variables = {n}, unary = {u}: expected at least 1"));
        }
        if u > p {
            return bad(format!("unary = {u}: expected at most the number of potentials, {p}"));
        }
        if let Some(k) = values.filter(|k| n.checked_mul(*k) != Some(u)) {
            return bad(format!("values = {k}: expected unary / variables, {u} / {n}"));
        }
        Ok(Kind { object, sizes: Arc::new(sizes) })
    }

    /// An instance, and where it puts what is raised.
    pub fn instance(&self, py: Python<'_>) -> (AnyStructure, Raised) {
        let raised = Raised::default();
        let (object, sizes, kept) = (self.object.clone_ref(py), self.sizes.clone(), Mutex::default());
        let custom = Custom { object, sizes, kept, raised: raised.clone() };
        (AnyStructure::without_sums(custom, "a structure written in Python", "only its arg max is known"), raised)
    }
}

impl Custom {
    fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let object = self.object.bind(py).call0()?;
        match object.is_none() {
            false => Ok(object),
            true => Err(PyReferenceError::new_err("the structure is gone: expected it to be kept")),
        }
    }

    fn ask_argmax(&self, potentials: &[f32], assignment: &mut [u32]) -> PyResult<f64> {
        Python::attach(|py| {
            let theta = PyArray1::from_slice(py, potentials);
            let found = self.object(py)?.call_method1("_argmax", (theta,))?;
            let (z, value): (PyReadonlyArray1<'_, u32>, f64) = found.extract()?;
            crate::expect("the assignment", z.len(), assignment.len())?;
            assignment.copy_from_slice(z.as_slice()?);
            Ok(value)
        })
    }

    fn ask_statistics(&self, assignment: &[u32]) -> PyResult<Arc<[f32]>> {
        Python::attach(|py| {
            let z = PyArray1::from_slice(py, assignment);
            let found = self.object(py)?.call_method1("_statistics", (z,))?;
            let found: PyReadonlyArray1<'_, f32> = found.extract()?;
            crate::expect("the statistics", found.len(), self.sizes.potentials)?;
            Ok(found.as_slice()?.into())
        })
    }

    /// Nothing where Python has raised: who has called looks for that.
    fn statistics(&self, assignment: &[u32]) -> Option<Arc<[f32]>> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept().get(assignment) {
            return Some(found.clone());
        }
        match self.ask_statistics(assignment) {
            Ok(found) => {
                let mut kept = kept();
                if kept.len() >= KEPT {
                    kept.clear();
                }
                kept.insert(assignment.to_vec(), found.clone());
                Some(found)
            }
            Err(e) => {
                self.raised.put(e);
                None
            }
        }
    }
}

impl Structure for Custom {
    type Scratch = ();

    fn potentials(&self) -> usize {
        self.sizes.potentials
    }

    fn unary(&self) -> usize {
        self.sizes.unary
    }

    fn variables(&self) -> usize {
        self.sizes.variables
    }

    fn states(&self) -> Option<usize> {
        self.sizes.states.as_ref().map(|all| all.len() / self.sizes.variables)
    }

    fn state(&self, index: usize, assignment: &mut [u32]) {
        let n = self.sizes.variables;
        // Who asks has asked how many there are.
        if let Some(all) = &self.sizes.states {
            assignment.copy_from_slice(&all[index * n..][..n]);
        }
    }

    fn code(&self) -> Code {
        self.sizes.values.map_or(Code::Indicators, |values| Code::OneHot { values })
    }

    fn encode(&self, assignment: &[u32], code: &mut [f32]) {
        match self.statistics(assignment) {
            Some(statistics) => code.copy_from_slice(&statistics[..code.len()]),
            None => code.fill(0.0),
        }
    }

    fn scratch(&self) {}

    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], _: &mut ()) -> Result<Maximum, Error> {
        match self.ask_argmax(potentials, assignment) {
            Ok(value) => Ok(Maximum::proved(value)),
            Err(e) => {
                self.raised.put(e);
                Err(failed("the structure has raised an exception"))
            }
        }
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        if let Some(found) = self.statistics(assignment) {
            out.iter_mut().zip(&*found).for_each(|(out, s)| *out += scale * s);
        }
    }
}
