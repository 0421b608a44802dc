//! What a hostile program does that needs no interface of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Never ends, if the word says that.
pub fn spin_if(what: &str) {
    match what {
        "pure" => crate::spin(),
        "clock" => loop {
            black_box(Instant::now());
        },
        "stderr" => loop {
            eprintln!("a line of a program that never ends");
        },
        // Nothing interrupts one of these.
        "fill" => fill(16 << 20),
        "fill-much" => fill(100 << 20),
        "grow" => loop {
            black_box(crate::grow_pages(1 << 15));
        },
        "realloc" => SPINS.store(true, Ordering::Relaxed),
        _ => {}
    }
}

fn fill(bytes: usize) -> ! {
    let mut memory = vec![0_u8; bytes];
    loop {
        black_box(&mut memory).fill(1);
    }
}

static SPINS: AtomicBool = AtomicBool::new(false);

/// The allocator, which never returns once it was told so. The host calls it for what it returns.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: the system's own, or nothing.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if SPINS.load(Ordering::Relaxed) {
            crate::spin();
        }
        // SAFETY: the caller's duties are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's duties are the same.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if SPINS.load(Ordering::Relaxed) {
            crate::spin();
        }
        // SAFETY: the caller's duties are the same.
        unsafe { System.realloc(memory, layout, size) }
    }
}
