//! Memory: counters of a BPF array, mapped into this process, and what the allocator keeps. The only module of the crate
//! with `unsafe` in it.
//!
//! The kernel's programs add to the counters while they are read here. Every counter is one aligned 64-bit word and is
//! only ever touched as an atomic, so that no value is seen half written.

#![allow(
    unsafe_code,
    reason = "mapping memory, reading what another party writes to it, and calling the allocator by its own name cannot \
              be said in safe Rust; this module does nothing else and what it offers is safe"
)]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

/// The words of a map. `WRITABLE` tells whether the memory may also be written.
#[derive(Debug)]
pub(crate) struct Mapping<const WRITABLE: bool> {
    start: NonNull<AtomicU64>,
    words: usize,
    /// In bytes: whole pages.
    length: usize,
}

/// How many bytes are mapped for so many words: whole pages of the running machine, which are 4, 16 or 64 KiB. `None` beyond
/// what can be addressed.
fn mapped_length(words: usize, page: usize) -> Option<usize> {
    words
        .checked_mul(size_of::<u64>())?
        .checked_next_multiple_of(page)
}

impl<const WRITABLE: bool> Mapping<WRITABLE> {
    /// Maps the first `words` words of an array made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// When the kernel refuses, also because the array is shorter.
    pub(crate) fn new(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let access = if WRITABLE {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        let length = mapped_length(words, page_size()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: with a null hint and without MAP_FIXED the kernel chooses addresses that nothing else uses. The
        // kernel refuses to map beyond the last page of a BPF array, so every word is backed by memory while it is mapped.
        let start = unsafe { mmap(ptr::null_mut(), length, access, MapFlags::SHARED, map, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            words,
            length,
        })
    }

    /// The value of one word.
    pub(crate) fn load(&self, word: usize) -> u64 {
        self.words()[word].load(Ordering::Acquire)
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is aligned to a page and valid for `words` words as long as `self` lives. All bit patterns
        // are values. What others write at the same time is allowed for by the element type; a plain load of an atomic
        // is allowed on memory that may not be written, and nothing but `store` below writes.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Mapping<true> {
    /// Sets one word.
    pub(crate) fn store(&self, word: usize, value: u64) {
        self.words()[word].store(value, Ordering::Release);
    }
}

impl<const WRITABLE: bool> Drop for Mapping<WRITABLE> {
    fn drop(&mut self) {
        // SAFETY: the range is what `new` was given, and no reference into it outlives `self`. That the call could fail
        // is ignored: nothing is to be done about it, and the memory then only stays mapped.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

// SAFETY: the memory belongs to no thread, and is only reached through atomics.
unsafe impl<const WRITABLE: bool> Send for Mapping<WRITABLE> {}
// SAFETY: as above; a shared reference gives only atomic loads and stores.
unsafe impl<const WRITABLE: bool> Sync for Mapping<WRITABLE> {}

/// Makes all threads share one heap. glibc gives a thread a heap of its own when others are in use, up to eight for each
/// processor, and what is free in one is of no use to another: the more threads a pool has had, the more memory stays. To
/// be called before there are threads. A setting of the user's own, `MALLOC_ARENA_MAX`, stands.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    {
        use std::ffi::c_int;

        /// From glibc's malloc.h.
        const M_ARENA_MAX: c_int = -8;
        unsafe extern "C" {
            /// mallopt(3); 0 on error.
            fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
            // SAFETY: declared as in malloc.h; it sets a number under the allocator's own lock. That it could fail is ignored:
            // the heaps are then as many as glibc makes.
            unsafe { mallopt(M_ARENA_MAX, 1) };
        }
    }
}

/// Gives free memory back to the system. The description of the kernel's types, once read, is some 25 MB in small
/// pieces, which glibc would keep for good.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            /// malloc_trim(3); whether anything was given back.
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: declared as in malloc.h; it touches only what the allocator holds free, and takes the allocator's
        // own locks.
        unsafe { malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// arm64 kernels have pages of 4, 16 or 64 KiB, x86-64 of 4.
    #[test]
    fn whole_pages_are_mapped_whatever_their_size() {
        const KIB: usize = 1024;
        for (page, three_words, all_ports) in [
            (4 * KIB, 4 * KIB, 2048 * KIB),
            (16 * KIB, 16 * KIB, 2048 * KIB),
            (64 * KIB, 64 * KIB, 2048 * KIB),
        ] {
            assert_eq!(mapped_length(3, page), Some(three_words));
            assert_eq!(mapped_length(2 * 65_536 * 2, page), Some(all_ports));
            assert_eq!(mapped_length(page / 8 + 1, page), Some(2 * page));
            assert_eq!(mapped_length(0, page), Some(0));
            assert_eq!(mapped_length(usize::MAX / 8, page), None);
            assert_eq!(mapped_length(usize::MAX, page), None);
        }
    }

    #[test]
    fn the_running_machines_pages_are_one_of_those() {
        assert!([4096, 16_384, 65_536].contains(&page_size()));
    }
}
