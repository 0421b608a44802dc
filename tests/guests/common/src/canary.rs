//! A pattern that one instance leaves in its memory, and the next one looks for.

use crate::grow_pages;
use std::sync::atomic::{AtomicU64, Ordering};

/// The canary is these two, one xor the other, so that it never stands in the program's own data.
const HALF: u64 = 0x9f1d_6c3a_52e8_b407;
const OTHER: u64 = 0x31c7_04f2_8ad9_6e5b;

/// In the part of memory that exists from the start.
static EARLY: [AtomicU64; 8192] = [const { AtomicU64::new(0) }; 8192];

/// Fills old and new memory with the canary.
pub fn fill() -> String {
    let canary = std::hint::black_box(HALF) ^ std::hint::black_box(OTHER);
    for word in &EARLY {
        word.store(canary, Ordering::Relaxed);
    }
    let mut heap = vec![0_u64; 1 << 17];
    heap.fill(canary);
    let mut filled = 0;
    // 24 MiB that no allocator knows of.
    while filled < 24
        && let Some((start, length)) = grow_pages(16)
    {
        // SAFETY: this memory is new and only ours.
        let grown = unsafe { std::slice::from_raw_parts_mut(start.cast::<u64>(), length / 8) };
        grown.fill(canary);
        filled += 1;
    }
    std::hint::black_box(heap);
    format!("filled {filled} MiB\n")
}

/// Looks through all memory there is, and through as much new memory.
pub fn look() -> String {
    let mut found = search(1024, size());
    let before = size();
    let mut grown = 0;
    while grown < 32
        && let Some((start, length)) = grow_pages(16)
    {
        found += search(start as usize, start as usize + length);
        grown += 1;
    }
    match found {
        0 => format!("clean {before} bytes and {grown} MiB\n"),
        _ => format!("found {found} times\n"),
    }
}

/// How often the canary stands between two addresses.
fn search(from: usize, to: usize) -> usize {
    let half = std::hint::black_box(HALF);
    (from..to)
        .step_by(8)
        .filter(|at| {
            // SAFETY: the address is inside of memory, and reading what others wrote is the point.
            let word = unsafe { std::ptr::with_exposed_provenance::<u64>(*at).read_volatile() };
            word ^ half == OTHER
        })
        .count()
}

fn size() -> usize {
    #[cfg(target_arch = "wasm32")]
    {
        core::arch::wasm32::memory_size(0) << 16
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        0
    }
}
