//! Mapped memory that others write to, seen as atomics.
//!
//! # Why this file may use `unsafe`
//!
//! It turns checked offsets into references to atomics. A mapping never moves, never shrinks (its file is
//! sealed against that, or is a named file of this user that nobody truncates) and lives as long as its
//! [`Mapped`]. Only types made of atomics are ever seen by reference, so whatever a peer writes is a value,
//! not undefined behaviour.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use memmap2::MmapRaw;

use crate::layout::{
    LaneHeader, LatchWords, PoolCell, PoolPage, PoolRow, QueueHeader, SegmentHeader, SignalWords,
    StreamHeader, TreePage,
};
use crate::sync::{AtomicU32, AtomicU64, Futex};
use crate::sys;

/// A type that may be seen by reference in shared memory.
///
/// # Safety
///
/// It consists of atomics and padding-free arrays of them only, is `repr(C)` or `repr(transparent)`, is
/// valid for every bit pattern and does not depend on its address.
pub(crate) unsafe trait Shared: Sync + 'static {}

/// Lists the types of `layout` (and of the public atomics) that may be seen in shared memory.
macro_rules! shared {
    ($($ty:ty),* $(,)?) => {$(
        // SAFETY: see its definition: `repr(C)`, atomics only, every bit pattern valid.
        unsafe impl Shared for $ty {}
    )*};
}
shared!(
    AtomicU32,
    AtomicU64,
    Futex,
    SegmentHeader,
    TreePage,
    SignalWords,
    LaneHeader,
    QueueHeader,
    StreamHeader,
    LatchWords,
    PoolPage,
    PoolRow,
    PoolCell
);

/// A file mapped whole, for reading and writing.
#[derive(Debug)]
pub(crate) struct Mapped(MmapRaw);

impl Mapped {
    /// Maps the first `length` bytes of a file, which must have them.
    pub(crate) fn new(file: impl AsFd, length: usize) -> io::Result<Mapped> {
        sys::map(file, length).map(Mapped)
    }

    /// Bytes that are mapped.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The address of `len` bytes from `offset`, if they lie inside and are aligned.
    pub(crate) fn at(&self, offset: usize, len: usize, align: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.0.len() || offset % align != 0 {
            return None;
        }
        // A mapping begins on a page, so what is aligned in it is aligned.
        NonNull::new(self.0.as_mut_ptr().wrapping_add(offset))
    }

    /// One structure, if it lies inside and is aligned.
    pub(crate) fn part<T: Shared>(&self, offset: usize) -> Option<&T> {
        let at = self.at(offset, size_of::<T>(), align_of::<T>())?;
        // SAFETY: because `at` found the structure inside and aligned, `T: Shared` is valid for any bits and
        // made of atomics, and the mapping stays as long as `self` is borrowed, the reference is good.
        Some(unsafe { at.cast::<T>().as_ref() })
    }

    /// One structure, mapped for as long as this process lives.
    pub(crate) fn part_for_ever<T: Shared>(self, offset: usize) -> Option<&'static T> {
        let at = self.at(offset, size_of::<T>(), align_of::<T>())?;
        std::mem::forget(self);
        // SAFETY: as in `part`, and nobody is left who could give the mapping up.
        Some(unsafe { at.cast::<T>().as_ref() })
    }

    /// So many structures in a row, if they lie inside and are aligned.
    pub(crate) fn array<T: Shared>(&self, offset: usize, count: usize) -> Option<&[T]> {
        let len = size_of::<T>().checked_mul(count)?;
        let at = self.at(offset, len, align_of::<T>())?;
        // SAFETY: as in `part`, for each of them: `at` found them all inside.
        Some(unsafe { NonNull::slice_from_raw_parts(at.cast::<T>(), count).as_ref() })
    }

    /// Leaves it out of core dumps; best effort.
    pub(crate) fn leave_out_of_dumps(&self) {
        sys::leave_out_of_dumps(&self.0);
    }

    /// Makes the pages of a part present in this process; best effort.
    pub(crate) fn populate(&self, offset: usize, len: usize) {
        sys::populate(&self.0, offset, len);
    }
}
