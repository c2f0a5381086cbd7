//! An immutable array that every process borrows in place.
//!
//! # Why this file may use `unsafe`
//!
//! It borrows memory of a file as a slice: for writing while nobody else knows of the file, and for reading
//! once the kernel has sealed it. What is sealed can be changed by nobody, so a reference to it is like one to
//! a constant.

#![allow(unsafe_code)]

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::ptr::NonNull;
use std::slice;

use bytemuck::{Zeroable, cast_slice, checked};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Corrupt, SegmentError, cannot_read};
use crate::handle;
use crate::message::{self, PlainData};
use crate::sealed::Draft;
use crate::segment::Segment;
use crate::sys;

/// An immutable array that every process borrows in place.
///
/// It is built once, then sealed by the kernel against writing and resizing, before anyone else can have it. A
/// clone is another handle to the same array; so is a `Frozen` that arrives inside a message or an argument, in
/// any process of the same tree. Each process maps it once, however often it is sent, and never copies it. It
/// is a slice: `len`, `iter`, indexing and the rest are those of `[T]`.
///
/// The items are [plain data](crate::PlainData). Where a type has bits that are no value, like `bool`, a process checks the array once, when it first gets it.
///
/// # If a process dies
///
/// The memory lives as long as any process holds the array; the kernel frees it after the last.
///
/// # Examples
///
/// ```
/// use multiproc::Frozen;
///
/// let squares = Frozen::build(1000, |items| {
///     for (n, item) in items.iter_mut().enumerate() {
///         *item = (n * n) as u64;
///     }
/// })?;
/// assert_eq!(squares[30], 900);
/// assert_eq!(squares.iter().max(), Some(&998_001));
/// # Ok::<(), multiproc::SegmentError>(())
/// ```
#[doc(alias("Array", "SharedMemory", "shared_memory"))]
pub struct Frozen<T> {
    /// Into the sealed memory of `segment`.
    items: NonNull<[T]>,
    segment: Segment,
}

// SAFETY: it is a shared slice of `T`, which nobody changes, and a handle that may be shared.
unsafe impl<T: Sync> Send for Frozen<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Frozen<T> {}

impl<T: PlainData> Frozen<T> {
    /// Refused when compiling: items without bytes could not be counted, and mappings are aligned to pages.
    const FITS: () = assert!(
        size_of::<T>() > 0 && align_of::<T>() <= 4096,
        "items of a Frozen have a size, and are aligned to a page at most"
    );

    /// A copy of `items`.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NoSpace`] when there is not that much memory, [`SegmentError::FileTooLarge`],
    /// [`SegmentError::TooManyDescriptors`].
    ///
    /// # Examples
    ///
    /// ```
    /// let primes = multiproc::Frozen::from_slice(&[2u32, 3, 5, 7])?;
    /// assert_eq!(primes.len(), 4);
    /// # Ok::<(), multiproc::SegmentError>(())
    /// ```
    pub fn from_slice(items: &[T]) -> Result<Frozen<T>, SegmentError> {
        let mut draft = Self::draft()?;
        let bytes = cast_slice::<T, u8>(items);
        if bytes.len() < sys::HUGE {
            draft.append(bytes)?;
        } else {
            write(&mut draft, bytes.len(), |place| {
                place.copy_from_slice(bytes)
            })?;
        }
        Self::seal(draft)
    }

    /// The items of an iterator, however many there are.
    ///
    /// # Errors
    ///
    /// As [`from_slice`](Frozen::from_slice).
    ///
    /// # Examples
    ///
    /// ```
    /// let halves = multiproc::Frozen::from_iter((0..10).map(|n| f64::from(n) / 2.0))?;
    /// assert_eq!(halves[9], 4.5);
    /// # Ok::<(), multiproc::SegmentError>(())
    /// ```
    #[expect(clippy::should_implement_trait, reason = "it can fail")]
    pub fn from_iter(items: impl IntoIterator<Item = T>) -> Result<Frozen<T>, SegmentError> {
        let mut items = items.into_iter();
        let mut draft = Self::draft()?;
        let mut some = Vec::with_capacity((AT_ONCE / size_of::<T>()).max(1));
        loop {
            some.extend(items.by_ref().take(some.capacity()));
            if some.is_empty() {
                return Self::seal(draft);
            }
            draft.append(cast_slice(&some))?;
            some.clear();
        }
    }

    /// An array of `len` items, written in place by `fill`, which finds them all zero.
    ///
    /// # Errors
    ///
    /// As [`from_slice`](Frozen::from_slice).
    pub fn build(len: usize, fill: impl FnOnce(&mut [T])) -> Result<Frozen<T>, SegmentError>
    where
        T: Zeroable,
    {
        let mut draft = Self::draft()?;
        write(&mut draft, len.saturating_mul(size_of::<T>()), |place| {
            // Zeroes are values of `T`; a check of that is no code for types without invalid bits.
            fill(checked::cast_slice_mut(place))
        })?;
        Self::seal(draft)
    }

    fn draft() -> Result<Draft, SegmentError> {
        () = Self::FITS;
        Draft::new(align_of::<T>())
    }

    fn seal(draft: Draft) -> Result<Frozen<T>, SegmentError> {
        Frozen::attach(Segment::build_sealed("frozen", &shape::<T>(), draft)?)
    }

    /// The array that a segment stands for.
    fn attach(segment: Segment) -> Result<Frozen<T>, SegmentError> {
        () = Self::FITS;
        segment.expect(&shape::<T>())?;
        let sealed = segment.sealed().ok_or(SegmentError::Unsealed)?;
        let (start, bytes) = sealed.contents(align_of::<T>());
        if bytes % size_of::<T>() != 0 {
            return Err(Corrupt("an array ends in the middle of an item").into());
        }
        let start = NonNull::new(start.cast_mut().cast()).unwrap_or(NonNull::dangling());
        let bits = Frozen::<T::Bits> {
            items: NonNull::slice_from_raw_parts(start, bytes / size_of::<T>()),
            segment: segment.clone(),
        };
        // Always true, and no code, for types without invalid bits.
        if !sealed.holds::<T>(|| bits.iter().all(T::is_valid_bit_pattern)) {
            return Err(Corrupt("an array has bits that its type never has").into());
        }
        let items = NonNull::slice_from_raw_parts(bits.items.cast(), bits.len());
        Ok(Frozen { items, segment })
    }
}

/// Adds `bytes` bytes to a draft, written in place by `fill`, which finds them all zero.
fn write(
    draft: &mut Draft,
    bytes: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Result<(), SegmentError> {
    let start = draft.len();
    let map = draft.extend(bytes as u64)?;
    // SAFETY: the mapping has `start + bytes` bytes; nobody else has the file yet, and `map` outlives the slice.
    fill(unsafe { slice::from_raw_parts_mut(map.as_mut_ptr().add(start), bytes) });
    Ok(())
}

impl<T> Frozen<T> {
    /// What travels for the array.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }
}

/// What a segment that travels for an array says it holds.
fn shape<T>() -> String {
    format!("array of {}", message::plain_name::<T>())
}

/// Bytes that [`Frozen::from_iter`] gathers before it writes them.
const AT_ONCE: usize = 64 << 10;

impl<T> Deref for Frozen<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the items lie in sealed memory, aligned, and are values of `T` (both seen to in `attach`); the
        // segment keeps it mapped, and nobody can write there.
        unsafe { self.items.as_ref() }
    }
}

impl<T> Clone for Frozen<T> {
    fn clone(&self) -> Self {
        Frozen {
            items: self.items,
            segment: self.segment.clone(),
        }
    }
}

impl<T: PartialEq> PartialEq for Frozen<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Frozen<T> {}

impl<T: Hash> Hash for Frozen<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<'a, T> IntoIterator for &'a Frozen<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> slice::Iter<'a, T> {
        self.iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for Frozen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Serialize for Frozen<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(&self.segment, serializer)
    }
}

impl<'de, T: PlainData> Deserialize<'de> for Frozen<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Frozen::attach(handle::deserialize(deserializer)?).map_err(cannot_read)
    }
}
