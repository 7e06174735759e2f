//! A step of the fused engine allocates nothing.
//!
//! A program of its own: the threads of a test harness allocate too.

use gumbel::estimator::{Direct, Exact, LocalExpectation};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{
    AnyStructure, Categorical, Chain, Pairwise, Permutation, SpanningTree, Structure, Subset, Supermodular,
};
use gumbel_vae::engine::Method;
use gumbel_vae::fused::{Bits, Fused, Model, Options};
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

const WARM_UP: u64 = 20;
const STEPS: u64 = 60;

fn main() {
    let images: Vec<u8> = (0..40 * 784u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24 < 40) as u8).collect();
    let bits = Bits::new(&images, 784).unwrap();
    let direct = Direct::new(1.0).unwrap();
    let batch: Vec<u32> = (0..30).collect();
    let structures: [AnyStructure; 9] = [
        Categorical::new(50).unwrap().into(),
        Categorical::binary(6).unwrap().into(),
        Categorical::product(3, 5).unwrap().into(),
        Pairwise::new(10).unwrap().into(),
        Supermodular::new(10).unwrap().into(),
        Chain::new(4, 3).unwrap().into(),
        Subset::new(12, 4).unwrap().into(),
        Permutation::new(5).unwrap().into(),
        SpanningTree::complete(5).unwrap().into(),
    ];
    for structure in structures {
        let independent = structure.block(0).is_some();
        // The sums of coupled variables have tables of their own.
        let kl_weight = independent as u8 as f32;
        let mut methods = vec![Method::Seam(Box::new(direct)), Method::Search(direct)];
        if independent {
            methods.push(Method::Seam(Box::new(direct.rao_blackwell())));
            methods.push(Method::Seam(Box::new(LocalExpectation)));
            methods.push(Method::Seam(Box::new(Exact)));
            methods.push(Method::Relaxed { temperature: 0.5, straight_through: false });
            methods.push(Method::Relaxed { temperature: 0.5, straight_through: true });
        }
        for method in methods {
            for (hidden, samples, threads) in [(&[30][..], 1, 2), (&[30, 20][..], 2, 1)] {
                let structure = structure.clone();
                let model =
                    Model { pixels: 784, hidden, structure, method: &method, batch: 30, samples, lr: 1e-3, threads };
                let mut fused = Fused::new(&model).unwrap();
                let mut step = |i| {
                    let noise = Noise::new(0, Purpose::Noise, i);
                    fused.step(&bits, &batch, &Options { method: &method, kl_weight, noise: &noise }).unwrap();
                };
                // Working memory of solvers grows to what the hardest instance so far has needed.
                (0..WARM_UP).for_each(&mut step);
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                (WARM_UP..WARM_UP + STEPS).for_each(&mut step);
                let found = ALLOCATIONS.load(Ordering::Relaxed) - before;
                // A graph cut that is harder than all before may still ask for more: far from once in a step of 60 cuts.
                let growing = matches!(model.structure, AnyStructure::Supermodular(_));
                let most = if growing { STEPS as usize / 2 } else { 0 };
                assert!(found <= most, "{:?}, {hidden:?}: {found} allocations", model.structure);
            }
        }
    }
    println!("a step allocates nothing");
}
