//! Mappings of whole files, on huge pages where the machine has them.
//!
//! A huge page is mapped by one fault instead of hundreds and takes one place in the processor's table of
//! addresses. The kernel makes them of a file's pages only where the mapping's addresses are aligned like the
//! file, so a large mapping is placed inside a reserved region of addresses.
//!
//! # Why this file may use `unsafe`
//!
//! It maps a file over addresses that it has reserved itself, and asks the kernel to gather pages, which
//! changes no byte of them.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::libc;
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Bytes of a huge page. On a machine with others nothing is gained and nothing lost.
pub(crate) const HUGE: usize = 2 << 20;

/// `MADV_COLLAPSE`, which libc has for glibc alone; every architecture that Rust knows has this number.
const COLLAPSE: libc::c_int = 25;

/// A mapping of a whole file, kept out of core dumps.
#[derive(Debug)]
pub(crate) struct Large {
    /// Addresses that are this mapping's own, given back when it is dropped.
    region: MmapRaw,
    /// Where in it the file starts.
    start: usize,
    len: usize,
}

impl Large {
    /// For reading only.
    pub(crate) fn for_reading(file: impl AsFd, len: usize) -> io::Result<Large> {
        Large::new(file, len, ProtFlags::READ)
    }

    /// For writing; not inherited by a process forked meanwhile.
    pub(crate) fn for_writing(file: impl AsFd, len: usize) -> io::Result<Large> {
        let map = Large::new(file, len, ProtFlags::READ | ProtFlags::WRITE)?;
        map.region.advise(Advice::DontFork)?;
        Ok(map)
    }

    fn new(file: impl AsFd, len: usize, access: ProtFlags) -> io::Result<Large> {
        // Room for the file wherever in the first huge page it has to start, if it has any.
        let room = len.saturating_add(if len < HUGE { 0 } else { HUGE });
        let region: MmapRaw = MmapOptions::new()
            .len(room)
            .no_reserve_swap()
            .map_anon()?
            .into();
        let start = match len < HUGE {
            true => 0,
            false => region.as_ptr().align_offset(HUGE),
        };
        let at = region.as_mut_ptr().wrapping_add(start);
        // SAFETY: `at..at + len` lies inside the region, since `start` is less than what it is longer; the region was mapped
        // just now and nothing else knows it, so what is replaced there is nobody's.
        unsafe {
            mmap(
                at.cast(),
                len,
                access,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                0,
            )
        }?;
        // Best effort: an old kernel only makes core dumps larger.
        let _ = region.advise(Advice::DontDump);
        Ok(Large { region, start, len })
    }

    pub(crate) fn as_mut_ptr(&self) -> *mut u8 {
        self.region.as_mut_ptr().wrapping_add(self.start)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Gathers the file's pages into huge ones, where there is a page for each to start with; best effort.
    pub(crate) fn gather(&self) {
        if self.len >= HUGE {
            let at = self.as_mut_ptr().cast();
            // SAFETY: the range is this mapping's own; its bytes stay what they are. What comes of it does not
            // matter: kernels before 6.1 refuse, and a machine may have no huge page left.
            unsafe { libc::madvise(at, self.len, COLLAPSE) };
        }
    }
}
