//! A step of the fused engine allocates nothing.
//!
//! A program of its own: the threads of a test harness allocate too.

use gumbel::estimator::{Direct, Exact, LocalExpectation};
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::Categorical;
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

fn main() {
    let images: Vec<u8> = (0..40 * 784u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24 < 40) as u8).collect();
    let bits = Bits::new(&images, 784).unwrap();
    let direct = Direct::new(1.0).unwrap();
    let batch: Vec<u32> = (0..30).collect();
    for structure in [Categorical::new(50), Categorical::binary(6), Categorical::product(3, 5)] {
        let structure = structure.unwrap();
        for method in [
            Method::Seam(Box::new(direct)),
            Method::Seam(Box::new(direct.rao_blackwell())),
            Method::Seam(Box::new(LocalExpectation)),
            Method::Seam(Box::new(Exact)),
            Method::Relaxed { temperature: 0.5, straight_through: false },
            Method::Relaxed { temperature: 0.5, straight_through: true },
        ] {
            for (hidden, samples, threads) in [(&[30][..], 1, 2), (&[30, 20][..], 2, 1)] {
                let model =
                    Model { pixels: 784, hidden, structure, method: &method, batch: 30, samples, lr: 1e-3, threads };
                let mut fused = Fused::new(&model).unwrap();
                let mut step = |i| {
                    let noise = Noise::new(0, Purpose::Noise, i);
                    fused.step(&bits, &batch, &Options { method: &method, kl_weight: 1.0, noise: &noise }).unwrap();
                };
                (0..3).for_each(&mut step);
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                (3..60).for_each(&mut step);
                assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{structure:?}, {hidden:?}");
            }
        }
    }
    println!("a step allocates nothing");
}
