//! Threads of our own: one pool for each number of threads that somebody asked for.

use pyo3::PyResult;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// More threads than this are a slip of the pen.
const MOST: usize = 1024;

struct Pools {
    /// A forked child has the pools of its parent, but none of their threads: it begins anew.
    process: u32,
    made: Vec<(usize, Arc<ThreadPool>)>,
}

static POOLS: Mutex<Pools> = Mutex::new(Pools { process: 0, made: vec![] });

/// The pool with so many threads; 0: one for each core.
///
/// # Errors
/// Too many threads; a system that gives none.
pub fn of(threads: usize) -> PyResult<Arc<ThreadPool>> {
    if threads > MOST {
        return Err(PyValueError::new_err(format!("threads = {threads}: expected 0 (all cores) to {MOST}")));
    }
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.process != process {
        // Dropping a pool would wake threads that are not there.
        mem::forget(mem::take(&mut pools.made));
        pools.process = process;
    }
    if let Some((_, pool)) = pools.made.iter().find(|(n, _)| *n == threads) {
        return Ok(pool.clone());
    }
    let named = |i| format!("gumbel-argmax-{i}");
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build();
    let pool = Arc::new(pool.map_err(|e| PyRuntimeError::new_err(format!("no thread pool: {e}")))?);
    pools.made.push((threads, pool.clone()));
    Ok(pool)
}
