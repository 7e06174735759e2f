//! Batches for callers from outside of Rust: threads of pools of their own, and working memory that is kept between
//! calls. The Python package and the C interface stand on it.
//!
//! Every example is solved for itself: answers do not depend on the number of threads.

use crate::Error;
use crate::error::check_len;
use crate::structure::{AnyScratch, AnyStructure, Pairwise, Structure, Sums};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// More threads than this are a slip of the pen.
const MOST_THREADS: usize = 1024;

/// The pools of a process, by their number of threads.
struct Pools {
    process: u32,
    shared: Vec<(usize, Arc<ThreadPool>)>,
}

static POOLS: Mutex<Pools> = Mutex::new(Pools { process: 0, shared: vec![] });

/// The pool with so many threads, shared by all who ask for as many; 0: one for each core. Nothing in it may wait for
/// who might need it too.
///
/// # Errors
/// More than 1024 threads; a system that gives none.
pub fn pool(threads: usize) -> Result<Arc<ThreadPool>, Error> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.process != process {
        // A forked child has the pools of its parent, but none of their threads: it begins anew, and as dropping a pool
        // would wake threads that are not there, they are forgotten.
        mem::forget(mem::take(&mut pools.shared));
        pools.process = process;
    }
    if let Some((_, pool)) = pools.shared.iter().find(|(n, _)| *n == threads) {
        return Ok(pool.clone());
    }
    let pool = Arc::new(new_pool(threads)?);
    pools.shared.push((threads, pool.clone()));
    Ok(pool)
}

/// A pool with so many threads for one owner; 0: one for each core.
///
/// # Errors
/// As [`pool`].
pub fn new_pool(threads: usize) -> Result<ThreadPool, Error> {
    check_threads(threads)?;
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("gumbel-{i}")).build();
    pool.map_err(|e| Error::Failed { detail: format!("no thread pool: {e}") })
}

fn check_threads(threads: usize) -> Result<(), Error> {
    match threads <= MOST_THREADS {
        true => Ok(()),
        false => Err(Error::setting("threads", threads, format!("0 (all cores) to {MOST_THREADS}"))),
    }
}

/// A structure that solves batches, from any number of threads at once.
///
/// ```
/// use gumbel::batch::Batch;
/// use gumbel::structure::Categorical;
/// let batch = Batch::new(Categorical::new(3)?)?;
/// let theta = [0.0, 2.0, 1.0, 5.0, 0.0, 0.0]; // [2, P = 3]
/// let (mut z, mut values, mut proved) = ([0; 2], [0.0; 2], [false; 2]);
/// batch.solve(&theta, &mut z, &mut values, &mut proved, None, 1)?;
/// assert_eq!((z, values, proved), ([1, 0], [2.0, 5.0], [true; 2]));
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug)]
pub struct Batch {
    structure: AnyStructure,
    /// Only the search of a pairwise model may end early.
    pairwise: Option<Pairwise>,
    /// Working memory that nobody uses at the moment.
    idle: Mutex<Vec<AnyScratch>>,
}

/// Working memory that goes back when it is dropped, unless a panic has left it as it was in the middle of something.
struct Borrowed<'a>(&'a Batch, Option<AnyScratch>);

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.1.take());
        }
    }
}

impl Batch {
    /// Batches of any structure.
    ///
    /// # Errors
    /// One without potentials.
    pub fn new(structure: impl Into<AnyStructure>) -> Result<Self, Error> {
        let structure = structure.into();
        match structure.potentials() {
            0 => Err(Error::Failed { detail: "a structure without potentials: expected at least one choice".into() }),
            _ => Ok(Batch { structure, pairwise: None, idle: Mutex::new(vec![]) }),
        }
    }

    /// Batches of a pairwise model, whose [`solve`](Batch::solve) keeps a time limit.
    ///
    /// # Errors
    /// As [`new`](Batch::new).
    pub fn pairwise(structure: Pairwise) -> Result<Self, Error> {
        Ok(Batch { pairwise: Some(structure), ..Batch::new(structure)? })
    }

    /// The structure.
    pub fn structure(&self) -> &AnyStructure {
        &self.structure
    }

    fn borrow(&self) -> Borrowed<'_> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Borrowed(self, Some(idle.unwrap_or_else(|| self.structure.scratch())))
    }

    /// Number of examples of `[batch, P]`.
    fn examples(&self, theta: &[f32]) -> Result<usize, Error> {
        let (p, found) = (self.structure.potentials(), theta.len());
        check_len("theta", found, found / p * p)?;
        Ok(found / p)
    }

    /// Calls `each` for every row, with its index and working memory of the structure, on so many threads (0: all
    /// cores).
    ///
    /// # Errors
    /// [`Error::Example`]: of several bad rows the first is named. Too many threads.
    pub fn run<T: Send>(
        &self,
        threads: usize,
        mut rows: Vec<T>,
        each: impl Fn(usize, &mut T, &mut AnyScratch) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        check_threads(threads)?;
        // Examples that are worth a thread's while: of independent variables, each of which takes nanoseconds, many.
        let piece = match self.structure.is_independent() {
            true => (8192 / self.structure.potentials()).max(32),
            false => (512 / self.structure.potentials()).clamp(1, 32),
        };
        let solve = |borrowed: &mut Borrowed<'_>, first: usize, rows: &mut [T]| {
            let scratch = borrowed.1.as_mut()?;
            let mut rows = rows.iter_mut().enumerate();
            rows.find_map(|(i, row)| each(first + i, row, scratch).err().map(|e| (first + i, e)))
        };
        let bad = if threads == 1 || rows.len() <= piece {
            solve(&mut self.borrow(), 0, &mut rows)
        } else {
            pool(threads)?.install(|| {
                let pieces = rows.par_chunks_mut(piece).enumerate();
                let bad = pieces.map_init(|| self.borrow(), |work, (c, rows)| solve(work, c * piece, rows));
                bad.flatten().min_by_key(|(b, _)| *b)
            })
        };
        bad.map_or(Ok(()), |(b, e)| Err(e.in_example(b)))
    }

    /// Solves `theta` `[batch, P]`: assignments `[batch, n]`, their scores `[batch]`, and whether no other is better
    /// `[batch]`. `limit` is the time after which the search of a pairwise model ends without a proof.
    ///
    /// # Errors
    /// A wrong length; in an example those of [`Structure::argmax`].
    pub fn solve(
        &self,
        theta: &[f32],
        z: &mut [u32],
        values: &mut [f64],
        proved: &mut [bool],
        limit: Option<Duration>,
        threads: usize,
    ) -> Result<(), Error> {
        let (batch, p, n) = (self.examples(theta)?, self.structure.potentials(), self.structure.variables());
        check_len("assignments", z.len(), batch * n)?;
        check_len("values", values.len(), batch)?;
        check_len("proved", proved.len(), batch)?;
        let limited = limit.and(self.pairwise).map(|p| AnyStructure::from(p.with_limit(limit)));
        let structure = limited.as_ref().unwrap_or(&self.structure);
        let rows = theta.chunks_exact(p).zip(z.chunks_exact_mut(n)).zip(values).zip(proved);
        self.run(threads, rows.collect(), |_, (((theta, z), value), proved), scratch| {
            let found = structure.argmax(theta, z, scratch)?;
            **value = found.value;
            **proved = found.is_proved();
            Ok(())
        })
    }

    /// Log-partitions `[batch]` of `theta` `[batch, P]`, in nats.
    ///
    /// # Errors
    /// A wrong length; [`Error::NoSums`]; in an example those of [`Sums::log_partition`].
    pub fn log_partition(&self, theta: &[f32], out: &mut [f64], threads: usize) -> Result<(), Error> {
        self.each_sum(theta, out, threads, |theta| self.structure.log_partition(theta))
    }

    /// Entropies `[batch]` of `theta` `[batch, P]`, in nats.
    ///
    /// # Errors
    /// As [`log_partition`](Batch::log_partition).
    pub fn entropy(&self, theta: &[f32], out: &mut [f64], threads: usize) -> Result<(), Error> {
        self.each_sum(theta, out, threads, |theta| self.structure.entropy(theta))
    }

    fn each_sum(
        &self,
        theta: &[f32],
        out: &mut [f64],
        threads: usize,
        sum: impl Fn(&[f32]) -> Result<f64, Error> + Sync,
    ) -> Result<(), Error> {
        self.structure.tractable()?;
        check_len("out", out.len(), self.examples(theta)?)?;
        let rows = theta.chunks_exact(self.structure.potentials()).zip(out);
        self.run(threads, rows.collect(), |_, (theta, out), _| {
            **out = sum(theta)?;
            Ok(())
        })
    }

    /// Marginals `[batch, P]` and log-partitions `[batch]` of `theta` `[batch, P]`.
    ///
    /// # Errors
    /// As [`log_partition`](Batch::log_partition).
    pub fn marginals(
        &self,
        theta: &[f32],
        marginals: &mut [f32],
        log_partition: &mut [f64],
        threads: usize,
    ) -> Result<(), Error> {
        self.structure.tractable()?;
        let (batch, p) = (self.examples(theta)?, self.structure.potentials());
        check_len("marginals", marginals.len(), batch * p)?;
        check_len("log_partition", log_partition.len(), batch)?;
        let rows = theta.chunks_exact(p).zip(marginals.chunks_exact_mut(p)).zip(log_partition);
        self.run(threads, rows.collect(), |_, ((theta, marginals), sum), _| {
            **sum = self.structure.marginals(theta, marginals)?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::{Chain, Permutation};

    #[test]
    fn threads_change_nothing_and_of_bad_examples_the_first_is_named() {
        let batch = Batch::pairwise(Pairwise::new(6).unwrap()).unwrap();
        let (p, n, size) = (batch.structure().potentials(), 6, 500);
        let mut theta: Vec<f32> = (0..size * p).map(|i| ((i * 7919) % 1009) as f32 / 300.0 - 1.5).collect();
        let solve = |theta: &[f32], threads| {
            let (mut z, mut values, mut proved) = (vec![0; size * n], vec![0.0; size], vec![false; size]);
            batch.solve(theta, &mut z, &mut values, &mut proved, None, threads)?;
            let (mut marginals, mut sums) = (vec![0.0; size * p], vec![0.0; size]);
            batch.marginals(theta, &mut marginals, &mut sums, threads)?;
            let mut again = vec![0.0; size];
            batch.log_partition(theta, &mut again, threads)?;
            assert!(sums.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-9));
            assert!(proved.iter().all(|p| *p));
            Ok::<_, Error>((z, values, marginals, sums))
        };
        let one = solve(&theta, 1).unwrap();
        assert_eq!(solve(&theta, 3).unwrap(), one);
        assert_eq!(solve(&theta, 0).unwrap(), one);
        for (b, (theta, (z, value))) in
            theta.chunks_exact(p).zip(one.0.chunks_exact(n).zip(&one.1)).enumerate().step_by(50)
        {
            assert!((batch.structure().score(theta, z) - value).abs() < 1e-6, "{b}");
        }
        theta[400 * p] = f32::NAN;
        theta[77 * p + 2] = f32::NAN;
        for threads in [1, 3] {
            let message = solve(&theta, threads).unwrap_err().to_string();
            assert_eq!(message, "example 77 of the batch: potential 2 is NaN: expected a finite number");
        }
    }

    #[test]
    fn what_cannot_be_says_so() {
        let none = Batch::new(Chain::new(0, 2).unwrap()).unwrap_err().to_string();
        assert_eq!(none, "a structure without potentials: expected at least one choice");
        let order = Batch::new(Permutation::new(3).unwrap()).unwrap();
        let sums = order.log_partition(&[0.0; 9], &mut [0.0], 1).unwrap_err().to_string();
        assert!(sums.contains("permanent"), "{sums}");
        let solve = |theta: &[f32], threads| {
            order.solve(theta, &mut [0; 3], &mut [0.0], &mut [false], None, threads).map_err(|e| e.to_string())
        };
        assert_eq!(solve(&[0.0; 10], 1).unwrap_err(), "theta has 10 values: expected 9");
        assert_eq!(solve(&[0.0; 18], 1).unwrap_err(), "assignments has 3 values: expected 6");
        assert_eq!(solve(&[0.0; 9], 1025).unwrap_err(), "threads = 1025: expected 0 (all cores) to 1024");
        assert!(solve(&[0.0; 9], 1).is_ok());
    }
}
