//! How the memory of a process that ends with its work is given back to the system: hardly, since
//! what is given back comes again as new, page by page, each cleared by the kernel.
//!
//! Must not be asked for by a process that stays: it would keep what its largest job took.

use std::num::NonZero;
use std::thread::available_parallelism;

/// What may lie free at the end of an arena.
const KEPT_BYTES: i32 = 256 << 20;
/// Pieces up to so large come from arenas; glibc takes no more.
const LARGEST_BYTES: i32 = 32 << 20;

/// Has the allocator keep what is freed, in few arenas, so that threads find what others let go of.
/// Buffers of megabytes are a mapping each otherwise. Nothing where the C library is another.
pub fn keep_freed() {
    let arenas = available_parallelism().map_or(2, NonZero::get).clamp(2, 8) as i32;
    tune(arenas);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn tune(arenas: i32) {
    let settings = [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, LARGEST_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
    ];
    for (setting, value) in settings {
        // SAFETY: mallopt only sets a number of the allocator, and takes its lock; one that it does not
        // know stays as it was.
        unsafe { libc::mallopt(setting, value) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn tune(_arenas: i32) {
    let _ = (KEPT_BYTES, LARGEST_BYTES);
}
