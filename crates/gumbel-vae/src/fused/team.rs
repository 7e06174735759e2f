//! A team of threads that share many short pieces of work.
//!
//! A training step takes a quarter of a millisecond and has four phases: too short for threads that sleep between them.
//! The helpers of a team spin for a moment before they sleep. Pieces are claimed one by one, so that a helper that comes
//! late, or not at all because another program holds its core, costs nothing but its help; if one is interrupted inside
//! a piece, the others wait for it, and the team works without helpers for a while.
//!
//! Which thread does which piece is left to chance: results must not depend on it, and do not, because every piece
//! owns what it writes.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Pieces of work, numbered from 0, that may run at the same time.
///
/// # Safety
/// [`run`](Work::run) must be sound when every piece is run at most once, on any thread, at the same time as the others.
pub unsafe trait Work: Sync {
    fn pieces(&self) -> usize;

    /// # Safety
    /// Not more than once for each piece during the life of `self`.
    unsafe fn run(&self, piece: usize);
}

/// One piece for each item of a slice.
pub struct Each<'a, T, F> {
    items: *mut T,
    len: usize,
    work: F,
    slice: PhantomData<&'a mut [T]>,
}

/// `work(i, &mut items[i])` for each item.
pub fn each<T: Send, F: Fn(usize, &mut T) + Sync>(items: &mut [T], work: F) -> Each<'_, T, F> {
    Each { items: items.as_mut_ptr(), len: items.len(), work, slice: PhantomData }
}

// SAFETY: threads get at the items only through `run`, each item on one thread, and `T: Send` lets it go there; `work`
// is shared and `Sync`.
unsafe impl<T: Send, F: Fn(usize, &mut T) + Sync> Sync for Each<'_, T, F> {}

// SAFETY: a piece touches its own item and nothing else through the pointer.
unsafe impl<T: Send, F: Fn(usize, &mut T) + Sync> Work for Each<'_, T, F> {
    fn pieces(&self) -> usize {
        self.len
    }

    unsafe fn run(&self, piece: usize) {
        assert!(piece < self.len);
        // SAFETY: in bounds; the slice is borrowed mutably for 'a, and nobody else runs this piece.
        (self.work)(piece, unsafe { &mut *self.items.add(piece) });
    }
}

type Job = [&'static dyn Work];

struct Shared {
    /// Generation in the high half, pieces not yet claimed in the low half.
    ticket: AtomicU64,
    /// The job of the generation: valid while one of its claimed pieces is not done.
    job: AtomicUsize,
    job_len: AtomicUsize,
    done: AtomicUsize,
    failed: AtomicBool,
    stop: AtomicBool,
}

struct Helper {
    asleep: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

/// Threads that work together; see the [module](self).
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<Helper>,
    /// No helpers are woken before this moment.
    alone_until: Option<Instant>,
}

/// Rounds of waiting before a thread looks at the clock or goes to sleep: some tens of microseconds.
const SPINS: u32 = 4000;

impl Team {
    /// A team of `threads` >= 1 threads: the caller and its helpers.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            job: AtomicUsize::new(0),
            job_len: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let helpers = (1..threads).filter_map(|_| {
            let (shared, asleep) = (shared.clone(), Arc::new(AtomicBool::new(false)));
            let flag = asleep.clone();
            // A system that gives no more threads gives a smaller team.
            let handle = thread::Builder::new().name("gumbel-team".into()).spawn(move || help(&shared, &flag)).ok()?;
            Some(Helper { asleep, handle: Some(handle) })
        });
        let helpers = helpers.collect();
        Team { shared, helpers, alone_until: None }
    }

    /// Runs every piece of all kinds of work once, in no fixed order, and returns when all are done.
    pub fn run(&mut self, work: &[&dyn Work]) {
        let total: usize = work.iter().map(|w| w.pieces()).sum();
        if self.helpers.is_empty() || total < 2 || self.alone() {
            for w in work {
                // SAFETY: each piece once.
                (0..w.pieces()).for_each(|i| unsafe { w.run(i) });
            }
            return;
        }
        let shared = &*self.shared;
        let generation = (shared.ticket.load(Relaxed) >> 32).wrapping_add(1);
        shared.done.store(0, Relaxed);
        shared.job.store(work.as_ptr() as usize, Relaxed);
        shared.job_len.store(work.len(), Relaxed);
        assert!(total < 1 << 31, "too many pieces of work");
        shared.ticket.store(generation << 32 | total as u64, SeqCst);
        for helper in &self.helpers {
            if helper.asleep.load(SeqCst)
                && let Some(handle) = &helper.handle
            {
                handle.thread().unpark();
            }
        }
        while step(shared) {}
        let mut spins = 0u32;
        let mut waiting: Option<Instant> = None;
        while shared.done.load(Acquire) < total {
            spins += 1;
            if spins.is_multiple_of(SPINS) {
                waiting.get_or_insert_with(Instant::now);
                thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        // A helper lost its core inside a piece. To hope for better next time would cost as much again: work alone for
        // twenty times as long.
        if let Some(lost) = waiting.map(|w| w.elapsed()).filter(|w| *w > Duration::from_micros(200)) {
            self.alone_until = Some(Instant::now() + lost * 20);
        }
        if shared.failed.swap(false, AcqRel) {
            panic!("a piece of work panicked");
        }
    }

    fn alone(&mut self) -> bool {
        match self.alone_until {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.alone_until = None;
                false
            }
            None => false,
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for helper in &mut self.helpers {
            if let Some(handle) = helper.handle.take() {
                handle.thread().unpark();
                handle.join().ok();
            }
        }
    }
}

/// Claims one piece and runs it; false if there is none.
fn step(shared: &Shared) -> bool {
    let mut ticket = shared.ticket.load(SeqCst);
    loop {
        let left = ticket as u32;
        if left == 0 {
            return false;
        }
        match shared.ticket.compare_exchange_weak(ticket, ticket - 1, AcqRel, Acquire) {
            Ok(_) => break,
            Err(now) => ticket = now,
        }
    }
    let (job, len) = (shared.job.load(Relaxed), shared.job_len.load(Relaxed));
    // SAFETY: the claimed piece belongs to the generation that stored this slice before its ticket, and `Team::run`, which
    // borrows the slice and all work in it, does not return before this piece is counted as done.
    let job: &Job = unsafe { std::slice::from_raw_parts(job as *const &'static dyn Work, len) };
    let total: usize = job.iter().map(|w| w.pieces()).sum();
    let mut piece = total - (ticket as u32) as usize;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for w in job {
            if piece < w.pieces() {
                // SAFETY: the ticket was counted down by one: nobody else has this piece.
                unsafe { w.run(piece) };
                return;
            }
            piece -= w.pieces();
        }
    }));
    if outcome.is_err() {
        shared.failed.store(true, Release);
    }
    shared.done.fetch_add(1, AcqRel);
    true
}

fn help(shared: &Shared, asleep: &AtomicBool) {
    let mut idle = 0u32;
    while !shared.stop.load(Relaxed) {
        if step(shared) {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle < SPINS {
            std::hint::spin_loop();
        } else {
            asleep.store(true, SeqCst);
            // Work that came between the last look and the flag would not wake anyone.
            if shared.ticket.load(SeqCst) as u32 == 0 && !shared.stop.load(SeqCst) {
                thread::park();
            }
            asleep.store(false, SeqCst);
            idle = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_once_for_any_team() {
        for threads in [1, 2, 3, 8] {
            let mut team = Team::new(threads);
            let (mut a, mut b) = (vec![0u64; 37], vec![0u64; 5]);
            for round in 0..2000 {
                let first = each(&mut a, |i, x| *x += i as u64);
                let second = each(&mut b, |i, x| *x += 100 + i as u64);
                team.run(&[&first, &second]);
                if round % 500 == 0 {
                    thread::sleep(Duration::from_millis(2)); // the helpers fall asleep
                }
            }
            assert!(a.iter().enumerate().all(|(i, x)| *x == 2000 * i as u64), "{threads} threads");
            assert!(b.iter().enumerate().all(|(i, x)| *x == 2000 * (100 + i as u64)), "{threads} threads");
            team.run(&[]);
        }
    }

    #[test]
    fn a_panic_in_a_piece_reaches_the_caller_and_the_team_survives() {
        let mut team = Team::new(3);
        let mut items = vec![0; 64];
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            team.run(&[&each(&mut items, |i, _| assert!(i != 40))]);
        }));
        assert!(outcome.is_err());
        team.run(&[&each(&mut items, |_, x| *x = 1)]);
        assert!(items.iter().all(|x| *x == 1));
    }
}
