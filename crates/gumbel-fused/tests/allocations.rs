//! A step of the fused engine allocates nothing.
//!
//! A program of its own: the threads of a test harness allocate too.

#[path = "common/mod.rs"]
#[allow(dead_code, reason = "every test uses some of it")]
mod common;

use gumbel::engine::{Engine, Shape, StepOptions};
use gumbel::estimator::{Estimator, KlTerm, Moment};
use gumbel::noise::{Noise, Purpose};
use gumbel::registry::{Entry, Settings, Value};
use gumbel::structure::{AnyStructure, Structure, latents};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

const STEPS: u64 = 60;

/// Estimators that a latent can have, by their names and settings.
fn estimators(structure: &AnyStructure) -> Vec<(String, Box<dyn Estimator>)> {
    let registry = gumbel::estimator::estimators();
    let mut all = vec![];
    for entry in registry.iter() {
        let defaults = Settings::defaults(entry.settings());
        let mut settings = vec![defaults.clone()];
        if entry.name() == "direct" {
            let with = |name: &str, value| {
                let mut settings = defaults.clone();
                settings.set(name, value);
                settings
            };
            settings.push(with("joint", Value::Text("flips".into())));
            let mut search = with("joint", Value::Text("search".into()));
            settings.push(search.clone());
            // What a run with a search has by default.
            let mut changes = search.clone();
            changes.set("first", Value::Text("changes".into()));
            changes.set("rounds", Value::Whole(1));
            settings.push(changes);
            search.set("rao-blackwell", Value::Switch(true));
            settings.push(search);
            settings.push(with("rao-blackwell", Value::Switch(true)));
            settings.push(with("two-sided", Value::Switch(true)));
        }
        for settings in settings {
            if let Ok(estimator) = entry.build(&settings, structure) {
                let values: Vec<String> = settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
                all.push((format!("{} {}", entry.name(), values.join(", ")), estimator));
            }
        }
    }
    all
}

fn main() {
    let images: Vec<u8> = (0..40 * 784u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24 < 40) as u8).collect();
    let images = common::Pictures::new(images, Shape::grey(28, 28));
    let batch: Vec<u32> = (0..30).collect();
    let mut tried = 0;
    for latent in [
        "categorical:50",
        "binary:6",
        "categorical:3x5",
        "pairwise:10",
        "supermodular:10",
        "chain:4x3",
        "subset:12,4",
        "permutation:5",
        "spanning-tree:5",
    ] {
        let structure = latents().parse(latent).unwrap().structure;
        let independent = structure.is_independent();
        // The sums of coupled variables have tables of their own.
        let kl_weight = independent as u8 as f32;
        for (name, mut estimator) in estimators(&structure) {
            for (hidden, samples, threads) in [("30", 1, 2), ("30,20", 2, 1)] {
                // An enumeration of coupled variables finds their states anew in every step, with memory of its own.
                if !estimator.is_random() && !independent {
                    continue;
                }
                // So have exact samples and sums.
                let samples_exactly = ["reinforce", "rloo", "vimco", "simple", "softmax-trick"]
                    .iter()
                    .any(|start| name.starts_with(start));
                if !independent && samples_exactly {
                    continue;
                }
                let samples = estimator.least_samples().max(samples);
                let case = common::Case { hidden, samples, threads, batch: 30, ..common::Case::new(&structure) };
                let mut fused = case.fused(images.shape, estimator.as_ref());
                let mut step = |i| {
                    let noise = Noise::new(0, Purpose::Noise, i);
                    let inside = estimator.kl(&structure) != KlTerm::Apart;
                    let (kl_weight, added) = if inside { (kl_weight, 0.0) } else { (0.0, kl_weight) };
                    estimator.begin(&Moment { step: i, kl_weight }).unwrap();
                    let options = StepOptions::discrete(added, &noise, samples);
                    fused.step(&images, &batch, estimator.as_mut(), &options).unwrap();
                };
                // Working memory of branch and bound and of graph cuts grows to what the hardest instance so far has
                // needed; that of all others is there after the first step of every thread.
                let warm_up =
                    if latent.starts_with("pairwise") || latent.starts_with("supermodular") { 200 } else { 20 };
                (0..warm_up).for_each(&mut step);
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                (warm_up..warm_up + STEPS).for_each(&mut step);
                let found = ALLOCATIONS.load(Ordering::Relaxed) - before;
                // A graph cut or a branch and bound that is harder than all before may still ask for more: at most
                // once in a step of 30 or 60 instances.
                let most = match latent.split_once(':') {
                    // With the whole slope of the loss, or what all changes say of it, instances are of another size in
                    // every step: they fall into more components, whose vectors grow, than all before.
                    Some((coupled @ ("pairwise" | "supermodular"), _))
                        if ["imle", "first changes", "rao-blackwell true"].iter().any(|part| name.contains(part)) =>
                    {
                        if coupled == "pairwise" {
                            STEPS as usize
                        } else {
                            4 * STEPS as usize
                        }
                    }
                    Some(("supermodular", _)) => STEPS as usize,
                    Some(("pairwise", _)) => 3,
                    // Much noise is drawn on all threads, whose queue is made of blocks of 63 jobs.
                    _ if name.starts_with("gumbel-rao") => 4,
                    _ => 0,
                };
                assert!(found <= most, "{latent}, {name}, {hidden}: {found} allocations");
                tried += 1;
            }
        }
    }
    assert!(tried >= 60, "{tried} cases only");
    println!("a step allocates nothing: {tried} cases");
}
