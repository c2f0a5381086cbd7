//! How items, results and failures of no fixed size lie in the pool's memory.
//!
//! Items and results of a fixed size lie back to back. All others are *records*: a word with the number
//! of bytes, then those, up to a multiple of eight.
//!
//! Failures are a list: each record names the one before it, the items it is about, and the bytes of a
//! [`Report`](super::error::Report).

use crate::message::{self, DecodeError, Message, Sink};
use crate::segment::Bytes;
use crate::sync::{AtomicU64, Ordering};

/// Stands where a record's length would, for an item that has no result.
pub(super) const NO_RESULT: u64 = u64::MAX;

/// Set in the length of a result that names handles. A word stands behind it that no other result has: its
/// worker holds what the handles lead to until the pool has wiped it.
pub(super) const CARRIES: u64 = 1 << 62;

/// Words in front of a report: the place of the one before, the items, and the number of bytes.
pub(super) const REPORT_HEAD: u64 = 24;

/// Tells a value that workers decode once, a context or an array, from every other.
pub(super) type Name = [u64; 2];

/// Bytes in front of such a value: its name and its length.
pub(super) const VALUE_HEAD: u64 = 24;

/// Bytes of the record of a result whose length word this is.
pub(super) fn record_len(head: u64) -> u64 {
    let mark = if head & CARRIES != 0 { 8 } else { 0 };
    8 + (head & !CARRIES).next_multiple_of(8) + mark
}

/// A word for a result that names handles.
pub(super) fn mark() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Never zero, and in no two processes the same by chance.
    let own = u64::from(std::process::id()) << 32;
    own | NEXT.fetch_add(1, Ordering::Relaxed) & u64::from(u32::MAX)
}

/// The word at a place, if it is there.
pub(super) fn word(bytes: &Bytes, place: u64) -> Option<u64> {
    let mut word = [0; 8];
    let at = inside(bytes, place, 8)?;
    bytes.copy_out(at, &mut word);
    Some(u64::from_ne_bytes(word))
}

/// Where so many bytes begin, if all of them are there.
pub(super) fn inside(bytes: &Bytes, place: u64, len: u64) -> Option<usize> {
    let end = place.checked_add(len)?;
    (end <= bytes.len() as u64).then_some(place as usize)
}

/// The first word of a record, of which `left` bytes may be.
pub(super) fn head(bytes: &Bytes, place: u64, left: u64) -> Result<u64, DecodeError> {
    word(bytes, place)
        .filter(|_| left >= 8)
        .ok_or_else(|| truncated(8, left))
}

/// Copies the `len` bytes of a record at a place, once: to where the value has them, if it is no more
/// than that, or into `scratch`.
pub(super) fn body<T: Message>(
    bytes: &Bytes,
    place: u64,
    len: u64,
    left: u64,
    scratch: &mut Vec<u8>,
) -> Result<Option<Result<T, DecodeError>>, DecodeError> {
    let at = inside(bytes, place.saturating_add(8), len)
        .filter(|_| len <= left.saturating_sub(8))
        .ok_or_else(|| truncated(len, left))?;
    let append = |to: &mut Vec<u8>| bytes.append_to(at, len as usize, to);
    scratch.clear();
    let value = message::decode_owned(|| {
        let mut owned = Vec::new();
        append(&mut owned);
        owned
    });
    if value.is_none() {
        append(scratch);
    }
    Ok(value)
}

/// Bytes that the first `count` records take, if they end within `room`.
pub(super) fn records_len(bytes: &Bytes, place: u64, room: u64, count: u32) -> Option<u64> {
    let mut used = 0;
    for _ in 0..count {
        let left = room.checked_sub(used)?;
        let head = word(bytes, place.checked_add(used)?).filter(|_| left >= 8)?;
        used += match head {
            NO_RESULT => 8,
            head if head & !CARRIES <= left => record_len(head),
            _ => return None,
        };
    }
    (used <= room).then_some(used)
}

/// Wipes the word behind each record that names handles: its worker need not hold them any more.
pub(super) fn wipe_records(bytes: &Bytes, place: u64, used: u64) {
    let mut at = 0;
    while used - at >= 8 {
        let Some(head) = word(bytes, place.saturating_add(at)) else {
            return;
        };
        let len = match head {
            NO_RESULT => 8,
            head if head & !CARRIES <= used => record_len(head),
            _ => return,
        };
        if len > used - at {
            return;
        }
        at += len;
        if head != NO_RESULT && head & CARRIES != 0 {
            if let Some(mark) = inside(bytes, place + at - 8, 8) {
                bytes.copy_in(mark, &[0; 8]);
            }
        }
    }
}

/// Copies from one place of a pool's memory to another.
pub(super) fn copy(bytes: &Bytes, from: usize, to: usize, len: usize) {
    let mut between = [0; 4096];
    let mut done = 0;
    while done < len {
        let step = (len - done).min(between.len());
        bytes.copy_out(from + done, &mut between[..step]);
        bytes.copy_in(to + done, &between[..step]);
        done += step;
    }
}

/// Writes one after another into a stretch of shared memory, as far as it goes.
pub(super) struct Stretch<'a> {
    bytes: &'a Bytes,
    at: usize,
    left: usize,
}

impl<'a> Stretch<'a> {
    /// `len` bytes from `at` on; the caller has checked that they are inside.
    pub(super) fn new(bytes: &'a Bytes, at: usize, len: usize) -> Stretch<'a> {
        Stretch {
            bytes,
            at,
            left: len,
        }
    }
}

impl Sink for Stretch<'_> {
    #[inline(always)]
    fn put(&mut self, from: &[u8]) {
        let fits = from.len().min(self.left);
        self.bytes.copy_in(self.at, &from[..fits]);
        self.at += fits;
        self.left -= fits;
    }

    #[inline(always)]
    fn put_word(&mut self, word: u64, size: usize) {
        if size <= self.left {
            self.bytes.put_word(self.at, word, size);
            self.at += size;
            self.left -= size;
        } else {
            self.put(&word.to_ne_bytes()[..size]);
        }
    }
}

/// The bytes ended before they should.
pub(super) fn truncated(needed: u64, left: u64) -> DecodeError {
    DecodeError::Truncated {
        needed: usize::try_from(needed).unwrap_or(usize::MAX),
        left: usize::try_from(left).unwrap_or(usize::MAX),
    }
}
