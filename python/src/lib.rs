//! The native module of the Python package `gumbel-argmax`: what is worth computing outside of the interpreter.
//!
//! It knows arrays of two forms only, contiguous `[batch, width]` and flat ones; shapes, defaults, names and everything
//! that a user reads are Python's (`gumbel_argmax/`). The interpreter is released while anything is computed, and
//! taken back for a question to a user's loss function. It needs no lock of the interpreter: what changes in its
//! classes is behind locks of its own.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod custom;
mod estimator;
mod oracle;
mod pool;
mod structure;

use gumbel::noise::{Noise, Purpose};
use numpy::PyReadwriteArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;

/// What Python raises for an error of the library: a `ValueError` with its message.
fn refused(error: gumbel::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// An error of this module, as one of the library.
fn failed(detail: impl Into<String>) -> gumbel::Error {
    gumbel::Error::Failed { detail: detail.into() }
}

/// Refuses an array whose number of values is not the one that the others ask for: a mistake of the Python side.
fn expect(what: &str, found: usize, expected: usize) -> PyResult<()> {
    match found == expected {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!("{what} has {found} values: expected {expected}"))),
    }
}

/// Fills `out` with standard Gumbel variables, those of the stream (seed, index) of the library's training noise.
#[pyfunction]
fn gumbel_noise(py: Python<'_>, mut out: PyReadwriteArray1<'_, f32>, seed: u64, index: u64) -> PyResult<()> {
    let out = out.as_slice_mut()?;
    let pool = gumbel::batch::pool(0).map_err(refused)?;
    py.detach(|| pool.install(|| Noise::new(seed, Purpose::Noise, index).gumbel(out)));
    Ok(())
}

/// The program `gumbel` with these arguments, the first of which is its name: its exit code. `program` is the file that
/// starts it again, and the words before its arguments.
#[pyfunction]
fn command(py: Python<'_>, args: Vec<OsString>, program: (PathBuf, Vec<OsString>)) -> u8 {
    let (file, words) = program;
    py.detach(|| gumbel_cli::run(args, Some(gumbel_cli::Program { file, words })))
}

#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::estimator::{Estimator, estimators};
    #[pymodule_export]
    use super::structure::Structure;
    #[pymodule_export]
    use super::{command, gumbel_noise};

    /// The version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
