//! Threads of our own: one pool for each number of threads that somebody asked for.

use pyo3::PyResult;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::mem;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More threads than this are a slip of the pen.
const MOST: usize = 1024;

struct Pools {
    /// A forked child has the pools of its parent, but none of their threads: it begins anew.
    process: u32,
    /// For work that never waits: shared by all who ask for as many threads.
    shared: Vec<(usize, Arc<ThreadPool>)>,
    /// For work that waits for answers of Python: lent to one at a time, as its threads may be the last ones that the
    /// answer itself would need.
    idle: Vec<(usize, ThreadPool)>,
}

static POOLS: Mutex<Pools> = Mutex::new(Pools { process: 0, shared: vec![], idle: vec![] });

/// The pools of this process.
fn pools() -> MutexGuard<'static, Pools> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.process != process {
        // Dropping a pool would wake threads that are not there.
        mem::forget(mem::take(&mut pools.shared));
        mem::forget(mem::take(&mut pools.idle));
        pools.process = process;
    }
    pools
}

fn make(threads: usize) -> PyResult<ThreadPool> {
    let named = |i| format!("gumbel-argmax-{i}");
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build();
    pool.map_err(|e| PyRuntimeError::new_err(format!("no thread pool: {e}")))
}

fn check(threads: usize) -> PyResult<()> {
    match threads <= MOST {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!("threads = {threads}: expected 0 (all cores) to {MOST}"))),
    }
}

/// The pool with so many threads; 0: one for each core. Nothing in it may wait for Python.
///
/// # Errors
/// Too many threads; a system that gives none.
pub fn of(threads: usize) -> PyResult<Arc<ThreadPool>> {
    check(threads)?;
    let mut pools = pools();
    if let Some((_, pool)) = pools.shared.iter().find(|(n, _)| *n == threads) {
        return Ok(pool.clone());
    }
    let pool = Arc::new(make(threads)?);
    pools.shared.push((threads, pool.clone()));
    Ok(pool)
}

/// A pool for work that waits for Python, until it is dropped.
pub struct Lent(usize, Option<ThreadPool>);

impl Deref for Lent {
    type Target = ThreadPool;

    fn deref(&self) -> &ThreadPool {
        self.1.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        pools().idle.extend(self.1.take().map(|pool| (self.0, pool)));
    }
}

/// Lends a pool with so many threads; 0: one for each core.
///
/// # Errors
/// As [`of`].
pub fn lent(threads: usize) -> PyResult<Lent> {
    check(threads)?;
    let mut pools = pools();
    let pool = match pools.idle.iter().position(|(n, _)| *n == threads) {
        Some(at) => pools.idle.swap_remove(at).1,
        None => make(threads)?,
    };
    Ok(Lent(threads, Some(pool)))
}
