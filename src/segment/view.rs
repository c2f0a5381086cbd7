//! Parts of a segment: one structure, words, bulk bytes. Each holds its segment.
//!
//! # Why this file may use `unsafe`
//!
//! It turns addresses that the segment has checked into references to atomics ([`View`], [`Words`]) and
//! copies bulk bytes ([`Bytes`]). The memory stays mapped as long as the [`Segment`] that each part holds.
//!
//! # Copies, and who else writes
//!
//! A copy is made of plain loads and stores, since those are several times faster than atomic ones.
//! Nothing of this crate touches the bytes meanwhile: a protocol gives each stretch to one end at a
//! time (a claimed block, the free lines of a pipe, a leased chunk, a held lock), and the edge that
//! hands it over is named where it is. What is not excluded is a process that has the memory and
//! breaks the protocol. Rust's memory model knows nothing of other processes; what they can do to a
//! copy is to make its bytes any bytes. To make that all they can do, every copy out is to private
//! memory, no reference into the shared bytes is made for it, and a compiler fence behind it
//! forbids to read them again: whatever is checked afterwards is what is used.

#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

use bytemuck::CheckedBitPattern;

use crate::error::{Corrupt, SegmentError};
use crate::layout::HEADER;
use crate::mapped::Shared;
use crate::sync::AtomicU64;

use super::Segment;

const OUTSIDE: SegmentError = SegmentError::Corrupt(Corrupt("a part lies outside its segment"));

impl Segment {
    /// One structure of the body.
    pub(crate) fn view<T: Shared>(&self, offset: u64) -> Result<View<T>, SegmentError> {
        let at = self.check(offset, size_of::<T>(), align_of::<T>())?;
        Ok(View {
            at: Address(at.cast()),
            segment: self.clone(),
        })
    }

    /// One structure of the body, for a short look.
    pub(crate) fn part<T: Shared>(&self, offset: u64) -> Result<&T, SegmentError> {
        self.0.map.part(in_file(offset)?).ok_or(OUTSIDE)
    }

    /// An array of words of the body.
    pub(crate) fn slots(&self, offset: u64, count: u64) -> Result<Words, SegmentError> {
        let count = usize::try_from(count).map_err(|_| OUTSIDE)?;
        let len = count.checked_mul(8).ok_or(OUTSIDE)?;
        let at = self.check(offset, len, 8)?;
        Ok(Words {
            at: Address(NonNull::slice_from_raw_parts(at.cast(), count)),
            _segment: self.clone(),
        })
    }

    /// A part of the body to copy in and out of.
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> Result<Bytes, SegmentError> {
        let len = usize::try_from(len).map_err(|_| OUTSIDE)?;
        Ok(Bytes {
            at: Address(self.check(offset, len, 1)?),
            len,
            segment: self.clone(),
        })
    }

    /// The address of `len` bytes from `offset` of the body, if they lie inside and are aligned.
    fn check(&self, offset: u64, len: usize, align: usize) -> Result<NonNull<u8>, SegmentError> {
        let at = self.0.map.at(in_file(offset)?, len, align);
        at.ok_or(OUTSIDE)
    }
}

/// Where in the file an offset of the body is.
fn in_file(offset: u64) -> Result<usize, SegmentError> {
    let offset = usize::try_from(offset).ok();
    offset
        .and_then(|offset| offset.checked_add(HEADER))
        .ok_or(OUTSIDE)
}

/// An address in shared memory, which is nobody's own and stays where it is.
struct Address<T: ?Sized>(NonNull<T>);

// SAFETY: it gives no more than a `&T` would, or, to `Bytes`, copies of bytes and words; that two
// threads do not copy the same bytes to and fro is seen to by the protocol that is between any two
// processes as well.
unsafe impl<T: ?Sized + Sync> Send for Address<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for Address<T> {}

impl<T: ?Sized> Clone for Address<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Address<T> {}

/// A structure in a segment; holds the segment.
pub(crate) struct View<T: Shared> {
    at: Address<T>,
    segment: Segment,
}

/// Words in a segment; holds the segment.
#[derive(Clone)]
pub(crate) struct Words {
    at: Address<[AtomicU64]>,
    /// Keeps them mapped.
    _segment: Segment,
}

impl<T: Shared> Deref for View<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `Segment::view` checked bounds and alignment, the mapping stays as long as `segment`,
        // and `T: Shared` is valid for any bits and made of atomics.
        unsafe { self.at.0.as_ref() }
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: as for `View`, checked in `Segment::slots`.
        unsafe { self.at.0.as_ref() }
    }
}

impl<T: Shared> Clone for View<T> {
    fn clone(&self) -> Self {
        View {
            at: self.at,
            segment: self.segment.clone(),
        }
    }
}

impl<T: Shared + fmt::Debug> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} words", self.len())
    }
}

/// Bulk bytes in a segment, only ever copied; holds the segment.
///
/// A protocol (a claimed block, a free stretch of a pipe) says who may touch which bytes when; see
/// the head of this file for one who breaks it.
#[derive(Clone)]
pub(crate) struct Bytes {
    at: Address<u8>,
    len: usize,
    segment: Segment,
}

impl Bytes {
    /// The segment they are a part of.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Bytes of the part.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies `from` to `offset`.
    ///
    /// # Panics
    ///
    /// If it does not fit: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) {
        assert!(
            offset <= self.len && from.len() <= self.len - offset,
            "a copy beyond its part"
        );
        assert!(
            self.is_apart(from.as_ptr(), from.len()),
            "a copy of a part to itself"
        );
        // SAFETY: the range lies inside the part (asserted), which lies inside the mapping (checked
        // at `Segment::bytes`), is written by nobody but its owner (see the head of this file), and
        // is apart from `from` (asserted).
        unsafe {
            self.at
                .0
                .add(offset)
                .as_ptr()
                .copy_from_nonoverlapping(from.as_ptr(), from.len())
        }
    }

    /// Stores the first `size` bytes of a word at `offset`.
    ///
    /// # Panics
    ///
    /// As [`copy_in`](Bytes::copy_in), and if a word has not so many.
    #[inline(always)]
    pub(crate) fn put_word(&self, offset: usize, word: u64, size: usize) {
        let word = word.to_ne_bytes();
        assert!(
            size <= word.len() && offset <= self.len && size <= self.len - offset,
            "a word beyond its part"
        );
        // SAFETY: as in `copy_in`; `word` has so many bytes (asserted), and lies on this function's own
        // stack, where no mapping is.
        unsafe {
            self.at
                .0
                .add(offset)
                .as_ptr()
                .copy_from_nonoverlapping(word.as_ptr(), size)
        }
    }

    /// Copies from `offset` into `to`.
    ///
    /// # Panics
    ///
    /// If it lies outside: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) {
        assert!(
            offset <= self.len && to.len() <= self.len - offset,
            "a copy beyond its part"
        );
        assert!(
            self.is_apart(to.as_ptr(), to.len()),
            "a copy of a part to itself"
        );
        // SAFETY: as in `copy_in`, the other way round; any bytes are right for `to`.
        unsafe {
            self.at
                .0
                .add(offset)
                .as_ptr()
                .copy_to_nonoverlapping(to.as_mut_ptr(), to.len())
        }
        // Nothing is read a second time.
        compiler_fence(Ordering::SeqCst);
    }

    /// Whether none of `len` bytes from `at` are of this part.
    #[inline]
    fn is_apart(&self, at: *const u8, len: usize) -> bool {
        let (here, there) = (self.at.0.addr().get(), at.addr());
        there.wrapping_sub(here) >= self.len && here.wrapping_sub(there) >= len
    }

    /// Appends `len` bytes from `offset` to `to`.
    ///
    /// # Panics
    ///
    /// If they lie outside: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn append_to(&self, offset: usize, len: usize, to: &mut Vec<u8>) {
        assert!(
            self.append_values(offset, len, to),
            "a copy beyond its part"
        );
    }

    /// Appends the `count` values from `offset` to `to`; nothing and false if they are not all there, or one of them
    /// is no value.
    pub(crate) fn append_values<T: CheckedBitPattern>(
        &self,
        offset: usize,
        count: usize,
        to: &mut Vec<T>,
    ) -> bool {
        let len = count.saturating_mul(size_of::<T>());
        if offset > self.len || len > self.len - offset {
            return false;
        }
        to.reserve(count);
        // SAFETY: the range lies inside the part (just checked); `reserve` made room for `count`
        // values behind the vector's length, in private memory that no mapping overlaps, since an
        // allocator gave it. Their bytes are initialised by the copy, are read as `Bits`, for which
        // any bits are right and which has the layout of `T`, and become part of the vector if each
        // is a value of `T`: what is checked is the copy, behind a fence.
        unsafe {
            let end = to.as_mut_ptr().add(to.len());
            let from = self.at.0.add(offset).as_ptr();
            from.copy_to_nonoverlapping(end.cast(), len);
            compiler_fence(Ordering::SeqCst);
            let bits = std::slice::from_raw_parts(end.cast::<T::Bits>(), count);
            let are_values = bits.iter().all(T::is_valid_bit_pattern);
            if are_values {
                to.set_len(to.len() + count);
            }
            are_values
        }
    }

    /// The word at `offset`.
    ///
    /// # Panics
    ///
    /// If it lies outside or across words: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        let at = self.at(offset, 8).cast::<AtomicU64>();
        assert!(at.is_aligned(), "a word across words");
        // SAFETY: because the word lies inside the part (`at`) and is aligned (asserted), the
        // mapping lives as long as `self`, any bits are a value, and no geometry copies a stretch
        // that has words in it, the reference is good.
        unsafe { &*at }
    }

    /// The address of `len` bytes from `offset`, for the places that may borrow (a held block).
    /// Whether nobody else writes there is theirs to prove.
    ///
    /// # Panics
    ///
    /// If they lie outside: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "a borrow beyond its part"
        );
        self.at.0.as_ptr().wrapping_add(offset)
    }

    /// The address, for the two places that may borrow (a held lock, a sealed array). Whether
    /// nobody else writes there is theirs to prove.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.at.0.as_ptr()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {:?}", self.len, self.segment)
    }
}

#[cfg(test)]
mod tests {
    use crate::segment::Segment;

    #[test]
    fn values_are_appended_if_all_are_there_and_are_values() {
        let segment = Segment::new(64).unwrap();
        let bytes = segment.bytes(0, 64).unwrap();
        bytes.copy_in(0, &[1, 0, 2]);
        let mut values = vec![true];
        assert!(bytes.append_values(0, 2, &mut values));
        assert_eq!(values, [true, true, false]);
        assert!(!bytes.append_values(0, 3, &mut values), "2 is no bool");
        assert!(!bytes.append_values(63, 2, &mut values), "beyond the end");
        assert!(!bytes.append_values(65, 0, &mut values), "beyond the end");
        assert!(!bytes.append_values(0, usize::MAX, &mut vec![0_u64]));
        assert_eq!(values, [true, true, false]);
    }
}
