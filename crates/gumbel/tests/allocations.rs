//! Estimators allocate nothing in a step: an engine's pieces are small, and run side by side.
//!
//! Allocations are counted for each thread of its own, so that those of the test harness do not matter.

use gumbel::Error;
use gumbel::estimator::{Estimator, Follows, MEASURES, Memory, Noises, Piece, Slopes, Tally, estimators};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::{Followed, Oracle};
use gumbel::registry::{Entry, Settings, Value};
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Code, Pairwise, Permutation, SpanningTree, Structure, Subset,
    Supermodular, Tree,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator; the counter needs no memory of its own.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCH: usize = 16;
const SAMPLES: usize = 2;
/// Steps until coupled variables see the same instances again.
const CYCLE: u64 = 10;
const WARM_UP: u64 = 10 * CYCLE;
const STEPS: u64 = 60;

/// Losses that look random, of anything, without any memory.
struct Hashed;

impl Hashed {
    fn of(bits: impl Iterator<Item = u32>) -> f32 {
        let hash = bits.fold(0x811c_9dc5u32, |hash, bits| (hash ^ bits).wrapping_mul(0x0100_0193).rotate_left(7));
        (hash % 1000) as f32 * 0.004
    }
}

impl Oracle for Hashed {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let rows = of.iter().zip(assignments.chunks_exact(assignments.len() / of.len()));
        rows.zip(losses).for_each(|((b, z), loss)| *loss = Hashed::of([*b].into_iter().chain(z.iter().copied())));
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let (n, u) = (assignments.len() / of.len(), losses.len() / of.len());
        let values = (u / n) as u32;
        self.losses(of, assignments, own)?;
        let rows = of.iter().zip(assignments.chunks_exact(n)).zip(losses.chunks_exact_mut(u));
        for ((b, z), losses) in rows {
            for (at, loss) in (0u32..).zip(losses) {
                let changed = (0u32..).zip(z).map(|(i, z)| if i == at / values { at % values } else { *z });
                *loss = Hashed::of([*b].into_iter().chain(changed));
            }
        }
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = losses.len() / of.len();
        let rows = of.iter().zip(losses.chunks_exact_mut(states));
        rows.for_each(|(b, row)| (0u32..).zip(row).for_each(|(s, loss)| *loss = Hashed::of([*b, s].into_iter())));
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let u = codes.len() / of.len();
        let rows = of.iter().zip(codes.chunks_exact(u)).zip(losses).zip(slopes.chunks_exact_mut(u));
        for (((b, code), loss), slopes) in rows {
            let bits = |at: u32| [*b, at].into_iter().chain(code.iter().map(|c| c.to_bits()));
            *loss = Hashed::of(bits(u as u32));
            (0u32..).zip(slopes).for_each(|(at, slope)| *slope = Hashed::of(bits(at)));
        }
        Ok(())
    }

    fn follow(&mut self, _: Followed<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Allocations of the steps after the first ones. The memory of a solver grows to what its instances need, and
/// some solvers exchange two of their lists: coupled variables see the same instances again and again.
fn allocations(estimator: &dyn Estimator, structure: &AnyStructure) -> usize {
    let width = if estimator.is_random() { estimator.noise(structure).unwrap() } else { 0 };
    let (p, u) = (structure.potentials(), structure.unary());
    let of: Vec<u32> = (0..BATCH as u32).collect();
    let (mut potentials, mut noise) = (vec![0.0; BATCH * p], vec![0.0; SAMPLES * BATCH * width]);
    let (mut gradient, slopes) = (vec![0.0; BATCH * p], vec![0.5; estimator.rows(SAMPLES) * BATCH * u]);
    let (mut memory, mut sums) = (Memory::default(), vec![0.0; estimator.sums()]);
    let mut count = 0;
    for step in 0..WARM_UP + STEPS {
        let seed = if structure.is_independent() { step } else { step % CYCLE };
        Noise::new(seed, Purpose::User(0), 0).zero_mean_gumbel(&mut potentials);
        potentials.chunks_exact_mut(p).for_each(|h| structure.to_potentials(h));
        Noise::new(seed, Purpose::Noise, 0).gumbel(&mut noise);
        let mut tallies = [Tally::default(); MEASURES];
        sums.fill(0.0);
        let mut piece = Piece {
            structure,
            potentials: &potentials,
            noise: Noises { values: &noise, width, stride: BATCH },
            samples: if estimator.is_random() { SAMPLES } else { 1 },
            scale: 1.0 / (BATCH * SAMPLES) as f32,
            first: 0,
            of: &of,
            gradient: &mut gradient,
            tallies: &mut tallies,
            sums: &mut sums,
            memory: &mut memory,
            parallel: false,
        };
        // Not those of the noise, of which much is drawn on all threads.
        let before = ALLOCATIONS.with(Cell::get);
        estimator.estimate(&mut piece, &mut Hashed).unwrap();
        if estimator.wants_slopes() {
            estimator.resume(&mut piece, Slopes { values: &slopes, stride: BATCH }).unwrap();
        }
        if step >= WARM_UP {
            count += ALLOCATIONS.with(Cell::get) - before;
        }
    }
    count
}

#[test]
fn a_step_of_any_estimator_allocates_nothing() {
    let structures: [AnyStructure; 12] = [
        Categorical::new(50).unwrap().into(),
        Categorical::binary(6).unwrap().into(),
        Categorical::product(3, 5).unwrap().into(),
        Pairwise::new(10).unwrap().into(),
        Supermodular::new(10).unwrap().into(),
        Chain::new(4, 3).unwrap().into(),
        Tree::new(4, 2, &[(0, 1), (0, 2), (2, 3)]).unwrap().into(),
        Subset::new(12, 4).unwrap().into(),
        Permutation::new(5).unwrap().into(),
        SpanningTree::complete(5).unwrap().into(),
        Arborescence::new(4, 0).unwrap().into(),
        Categorical::binary(10).unwrap().into(),
    ];
    for structure in structures {
        for entry in estimators().iter() {
            let defaults = Settings::defaults(entry.settings());
            let learned = [("baseline", Value::Text("learned".into()))];
            // All but the joint loss, which compares itself with the separable one.
            let variants: &[&[(&str, Value)]] = match entry.name() {
                "direct" => &[
                    &[],
                    &[("two-sided", Value::Switch(true))],
                    &[("rao-blackwell", Value::Switch(true))],
                    &[("rao-blackwell", Value::Switch(true)), ("two-sided", Value::Switch(true))],
                    &[("zero-gradient-target", Value::Real(0.5))],
                ],
                "reinforce" => &[&[], &learned],
                "imle" => &[&[], &[("two-sided", Value::Switch(true))]],
                _ => &[&[]],
            };
            let (joint, rao) =
                (|name: &str| ("joint", Value::Text(name.into())), ("rao-blackwell", Value::Switch(true)));
            let (search, flips, expectation) = ([joint("search")], [joint("flips")], [joint("search"), rao]);
            // What a run has by default.
            let changes = [joint("search"), ("first", Value::Text("changes".into())), ("rounds", Value::Whole(1))];
            let all: [&[(&str, Value)]; 4] = [&search, &changes, &flips, &expectation];
            let gamma: &[&[(&str, Value)]] = &[&[("imle-noise", Value::Text("sum-of-gamma".into()))]];
            let further = match entry.name() {
                "direct" => &all[..],
                "imle" | "adaptive-imle" => gamma,
                _ => &[],
            };
            for variant in variants.iter().chain(further) {
                let mut settings = defaults.clone();
                variant.iter().for_each(|(name, value)| settings.set(name, value.clone()));
                let Ok(estimator) = entry.build(&settings, &structure) else { continue };
                // Structures of indicators make each of their states anew.
                if estimator.follows() == Follows::States && structure.code() == Code::Indicators {
                    continue;
                }
                // Exact sums and samples of coupled variables have tables of their own.
                let sums = ["reinforce", "rloo", "simple", "softmax-trick", "vimco"];
                if sums.contains(&entry.name()) && !structure.is_independent() {
                    continue;
                }
                let count = allocations(&*estimator, &structure);
                assert_eq!(count, 0, "{} {variant:?} of {structure:?}", entry.name());
            }
        }
    }
}
