//! Pools of threads for work that waits for answers of Python.

use crate::refused;
use pyo3::PyResult;
use rayon::ThreadPool;
use std::mem;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

struct Pools {
    /// A forked child has the pools of its parent, but none of their threads: it begins anew.
    process: u32,
    /// Lent to one at a time, as its threads may be the last ones that the answer itself would need.
    idle: Vec<(usize, ThreadPool)>,
}

static POOLS: Mutex<Pools> = Mutex::new(Pools { process: 0, idle: vec![] });

/// The pools of this process.
fn pools() -> MutexGuard<'static, Pools> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.process != process {
        // Dropping a pool would wake threads that are not there.
        mem::forget(mem::take(&mut pools.idle));
        pools.process = process;
    }
    pools
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
/// Too many threads; a system that gives none.
pub fn lent(threads: usize) -> PyResult<Lent> {
    let mut pools = pools();
    let pool = match pools.idle.iter().position(|(n, _)| *n == threads) {
        Some(at) => pools.idle.swap_remove(at).1,
        None => gumbel::batch::new_pool(threads).map_err(refused)?,
    };
    Ok(Lent(threads, Some(pool)))
}
