//! A team of threads that share many short pieces of work.
//!
//! A training step takes a quarter of a millisecond and has four phases: too short for threads that sleep between them.
//! The helpers of a team spin for a moment before they sleep. Every thread has its share of the pieces, the same in
//! every step, so that what they own stays in the cache of its core; who has finished takes from the others. A helper
//! that comes late, or not at all because another program holds its core, costs nothing but its help; if one is
//! interrupted inside a piece, the others wait for it, and the team works without helpers for a while.
//!
//! Which thread does which piece is left to chance: results must not depend on it, and do not, because every piece
//! owns what it writes.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Pieces of work, numbered from 0, that may run at the same time.
///
/// # Safety
/// [`run`](Work::run) must be sound when every piece is run at most once, on any thread, at the same time as the
/// others.
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

/// One piece for each item of a slice, which also owns a part of a buffer.
pub struct EachWith<'a, T, U, F> {
    items: Each<'a, T, F>,
    buffer: *mut U,
    len: usize,
    part: usize,
}

/// `work(i, &mut items[i], &mut buffer[i * part..])`, with `part` places of the buffer, fewer for the last.
pub fn each_with<'a, T: Send, U: Send, F: Fn(usize, &mut T, &mut [U]) + Sync>(
    items: &'a mut [T],
    buffer: &'a mut [U],
    part: usize,
    work: F,
) -> EachWith<'a, T, U, F> {
    let items = Each { items: items.as_mut_ptr(), len: items.len(), work, slice: PhantomData };
    EachWith { items, buffer: buffer.as_mut_ptr(), len: buffer.len(), part }
}

// SAFETY: as for `Each`; the parts of the buffer do not overlap.
unsafe impl<T: Send, U: Send, F: Fn(usize, &mut T, &mut [U]) + Sync> Sync for EachWith<'_, T, U, F> {}

// SAFETY: a piece touches its own item and its own part of the buffer.
unsafe impl<T: Send, U: Send, F: Fn(usize, &mut T, &mut [U]) + Sync> Work for EachWith<'_, T, U, F> {
    fn pieces(&self) -> usize {
        self.items.len
    }

    unsafe fn run(&self, piece: usize) {
        assert!(piece < self.items.len);
        let first = (piece * self.part).min(self.len);
        let part = self.part.min(self.len - first);
        // SAFETY: both in bounds, both borrowed mutably for 'a, and nobody else runs this piece.
        let (item, part) = unsafe {
            (&mut *self.items.items.add(piece), std::slice::from_raw_parts_mut(self.buffer.add(first), part))
        };
        (self.items.work)(piece, item, part);
    }
}

/// One piece for each of some parts of a slice.
pub struct Parts<'a, T, F> {
    items: Each<'a, T, F>,
    parts: usize,
}

/// `work(i, part)` for `parts` parts of a slice that are as equal as they can be.
pub fn parts<T: Send, F: Fn(usize, &mut [T]) + Sync>(items: &mut [T], parts: usize, work: F) -> Parts<'_, T, F> {
    Parts { items: Each { items: items.as_mut_ptr(), len: items.len(), work, slice: PhantomData }, parts }
}

// SAFETY: as for `Each`; the parts do not overlap.
unsafe impl<T: Send, F: Fn(usize, &mut [T]) + Sync> Sync for Parts<'_, T, F> {}

// SAFETY: a piece touches its own part.
unsafe impl<T: Send, F: Fn(usize, &mut [T]) + Sync> Work for Parts<'_, T, F> {
    fn pieces(&self) -> usize {
        self.parts
    }

    unsafe fn run(&self, piece: usize) {
        assert!(piece < self.parts);
        let part = share(self.items.len, piece, self.parts);
        // SAFETY: in bounds, borrowed mutably for 'a, and nobody else runs this piece.
        let items = unsafe { std::slice::from_raw_parts_mut(self.items.items.add(part.start), part.len()) };
        (self.items.work)(piece, items);
    }
}

type Job = [&'static dyn Work];

struct Board {
    /// The pieces of each thread that nobody has claimed: see [`claim`]. Each on cache lines of its own.
    ranges: Vec<Range>,
    generation: AtomicU32,
    /// The job of the generation: valid while one of its claimed pieces is not done.
    job: AtomicUsize,
    job_len: AtomicUsize,
    done: AtomicUsize,
    failed: AtomicBool,
    stop: AtomicBool,
}

/// Generation in the high half, then the first unclaimed piece, then the one behind the last.
#[repr(align(128))]
struct Range(AtomicU64);

struct Helper {
    asleep: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

/// Threads that work together; see the [module](self).
pub struct Team {
    shared: Arc<Board>,
    helpers: Vec<Helper>,
    /// No helpers are woken before this moment.
    alone_until: Option<Instant>,
    /// How many times as long as a helper was late the others work alone: a core that is taken now and then is soon
    /// asked for again, one that another program keeps is not.
    alone_for: u32,
    /// When a helper was late.
    late: Option<Instant>,
}

/// Rounds of waiting before a thread goes to sleep or lets others run: some tens of microseconds.
const SPINS: u32 = 4000;
/// Rounds of waiting between looks at the clock.
const LOOK: u32 = 256;
/// What a helper may be late without having lost its core.
const PATIENCE: Duration = Duration::from_micros(30);
/// The least and the most times that a helper is left alone for as long as it was late.
const ALONE: [u32; 2] = [4, 64];

impl Team {
    /// How many threads it has.
    pub fn threads(&self) -> usize {
        self.shared.ranges.len()
    }

    /// A team of `threads` >= 1 threads: the caller and its helpers.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Board {
            ranges: (0..threads).map(|_| Range(AtomicU64::new(0))).collect(),
            generation: AtomicU32::new(0),
            job: AtomicUsize::new(0),
            job_len: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let helpers = (1..threads).filter_map(|thread| {
            let (shared, asleep) = (shared.clone(), Arc::new(AtomicBool::new(false)));
            let flag = asleep.clone();
            let builder = thread::Builder::new().name("gumbel-team".into());
            // A system that gives no more threads gives a smaller team: the others take its pieces.
            let handle = builder.spawn(move || help(&shared, thread, &flag)).ok()?;
            Some(Helper { asleep, handle: Some(handle) })
        });
        let helpers = helpers.collect();
        Team { shared, helpers, alone_until: None, alone_for: ALONE[0], late: None }
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
        let generation = shared.generation.load(Relaxed).wrapping_add(1);
        shared.done.store(0, Relaxed);
        shared.job.store(work.as_ptr() as usize, Relaxed);
        shared.job_len.store(work.len(), Relaxed);
        let threads = shared.ranges.len();
        for (thread, range) in shared.ranges.iter().enumerate() {
            let count: usize = work.iter().map(|w| share(w.pieces(), thread, threads).len()).sum();
            assert!(count < 1 << 16, "too many pieces of work");
            range.0.store((generation as u64) << 32 | count as u64, Release);
        }
        shared.generation.store(generation, SeqCst);
        for helper in &self.helpers {
            if helper.asleep.load(SeqCst)
                && let Some(handle) = &helper.handle
            {
                handle.thread().unpark();
            }
        }
        let began = Instant::now();
        take_part(shared, 0, generation);
        let busy = began.elapsed();
        let mut spins = 0u32;
        let mut lost = None;
        while shared.done.load(Acquire) < total {
            std::hint::spin_loop();
            spins += 1;
            if spins.is_multiple_of(LOOK) {
                lost = Some(began.elapsed() - busy).filter(|waited| *waited > busy / 2 + PATIENCE);
            }
            if spins.is_multiple_of(SPINS) {
                thread::yield_now();
            }
        }
        // Nobody's last piece takes as long as half of ours together: a helper has lost its core inside of one. To
        // hope for better next time may cost as much again, so work alone for a while, longer whenever it was in vain.
        if let Some(lost) = lost {
            let now = Instant::now();
            let again = self.late.is_some_and(|late| now < late + lost * (2 * self.alone_for));
            self.alone_for = if again { (2 * self.alone_for).min(ALONE[1]) } else { ALONE[0] };
            (self.late, self.alone_until) = (Some(now), Some(now + lost * self.alone_for));
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

/// The pieces of one kind of work that belong to a thread: always the same, so that what they own stays in its cache.
fn share(pieces: usize, thread: usize, threads: usize) -> std::ops::Range<usize> {
    pieces * thread / threads..pieces * (thread + 1) / threads
}

/// Claims a piece of a thread's range in a generation: the first for the thread itself, the last for the others.
fn claim(range: &Range, generation: u32, own: bool) -> Option<usize> {
    let mut now = range.0.load(Acquire);
    loop {
        let (of, first, end) = ((now >> 32) as u32, now >> 16 & 0xffff, now & 0xffff);
        if of != generation || first == end {
            return None;
        }
        let (next, piece) = if own { (now + (1 << 16), first) } else { (now - 1, end - 1) };
        match range.0.compare_exchange_weak(now, next, AcqRel, Acquire) {
            Ok(_) => return Some(piece as usize),
            Err(other) => now = other,
        }
    }
}

/// Does pieces of a generation until none is left: first the thread's own, then those of others.
fn take_part(shared: &Board, thread: usize, generation: u32) {
    let threads = shared.ranges.len();
    for owner in (0..threads).map(|i| (thread + i) % threads) {
        while let Some(piece) = claim(&shared.ranges[owner], generation, owner == thread) {
            let (job, len) = (shared.job.load(Relaxed), shared.job_len.load(Relaxed));
            // SAFETY: the claimed piece belongs to the generation that stored this slice before its ranges, and
            // `Team::run`, which borrows the slice and all work in it, does not return before this piece is counted
            // as done.
            let job: &Job = unsafe { std::slice::from_raw_parts(job as *const &'static dyn Work, len) };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let mut left = piece;
                for work in job {
                    let share = share(work.pieces(), owner, threads);
                    if left < share.len() {
                        // SAFETY: shares do not overlap, and the piece was claimed by this thread alone.
                        unsafe { work.run(share.start + left) };
                        return;
                    }
                    left -= share.len();
                }
            }));
            if outcome.is_err() {
                shared.failed.store(true, Release);
            }
            shared.done.fetch_add(1, AcqRel);
        }
    }
}

fn help(shared: &Board, thread: usize, asleep: &AtomicBool) {
    let (mut seen, mut idle) = (0, 0u32);
    while !shared.stop.load(Relaxed) {
        let generation = shared.generation.load(SeqCst);
        if generation != seen {
            seen = generation;
            take_part(shared, thread, generation);
            idle = 0;
            continue;
        }
        idle += 1;
        if idle < SPINS {
            std::hint::spin_loop();
        } else {
            asleep.store(true, SeqCst);
            // Work that came between the last look and the flag would not wake anyone.
            if shared.generation.load(SeqCst) == seen && !shared.stop.load(SeqCst) {
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
            let (mut a, mut b, mut parts) = (vec![0u64; 37], vec![0u64; 5], vec![0; 14]);
            let mut c = vec![0u64; 7];
            for round in 0..2000 {
                let first = each(&mut a, |i, x| *x += i as u64);
                let second = each_with(&mut b, &mut parts, 3, |i, x, part| {
                    *x += 100 + i as u64;
                    part.iter_mut().for_each(|p| *p += i);
                });
                let third = super::parts(&mut c, 3, |i, part| {
                    assert_eq!(part.len(), [2, 2, 3][i]);
                    part.iter_mut().for_each(|x| *x += 1 + i as u64);
                });
                team.run(&[&first, &second, &third]);
                if round % 500 == 0 {
                    thread::sleep(Duration::from_millis(2)); // the helpers fall asleep
                }
            }
            assert!(a.iter().enumerate().all(|(i, x)| *x == 2000 * i as u64), "{threads} threads");
            assert!(b.iter().enumerate().all(|(i, x)| *x == 2000 * (100 + i as u64)), "{threads} threads");
            assert_eq!(c, [1, 1, 2, 2, 3, 3, 3].map(|x| 2000 * x), "{threads} threads");
            assert!(parts.iter().enumerate().all(|(i, x)| *x == 2000 * (i / 3)), "{threads} threads");
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
