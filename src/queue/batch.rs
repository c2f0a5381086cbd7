//! Messages that a receiver has taken and not decoded yet.
//!
//! A batch is copied and taken in one step; then the types' own code decodes it, which may panic.
//! So the bytes stay here until all of them are decoded: a panic costs the message that it came
//! from, and the next call goes on with the others.

use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};

use crate::error::{Corrupt, RecvError};
use crate::message::{self, Message};
use crate::sync::{AtomicU64, Ordering};

use super::claim::Claim;
use super::words::copy;

/// Words copied at most before one step of a lane's head: about 4 KiB.
const WORDS: usize = 512;
/// Words of messages in blocks that are gathered at most before any is decoded: about 64 KiB.
const BLOCK_WORDS: usize = 8192;

pub(super) const TOO_LONG: Corrupt = Corrupt("a message is longer than its queue allows");

#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Each message as it lay in its slot: behind a word with its length, unless that is fixed.
    words: Vec<u64>,
    /// The first word that was not read.
    at: usize,
    /// Messages that were not read.
    count: usize,
    /// Whether lengths are there though the type's is fixed: it came from blocks.
    from_blocks: bool,
}

/// What [`Batch::read`] read.
#[derive(Debug)]
pub(super) struct Values<T> {
    pub(super) values: Vec<T>,
    /// The first message that was no value.
    pub(super) failure: Option<RecvError>,
}

impl Batch {
    /// Whether nothing is left to be read.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Copies messages out of slots, as many as there is room for; they count as here once they are
    /// [taken](Batch::taken). Everything was read before.
    #[inline]
    pub(super) fn copy<'a, T: Message>(
        &mut self,
        run: impl Iterator<Item = &'a [AtomicU64]>,
        stride: usize,
        limit: usize,
    ) -> usize {
        self.words
            .resize(self.words.len().max(stride).max(WORDS), 0);
        // Each word is read once: what is checked is what is used.
        match message::fixed_size::<T>() {
            Some(size) => copy_fixed(run, size.div_ceil(8), &mut self.words),
            None => copy_prefixed(run, limit, &mut self.words),
        }
    }

    /// So many of the messages that were copied have been taken.
    #[inline]
    pub(super) fn taken(&mut self, count: usize) {
        (self.at, self.count, self.from_blocks) = (0, count, false);
    }

    /// Copies a message out of its block and finishes with that; false if no more should be
    /// gathered.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] when its length is none.
    pub(super) fn push(&mut self, claim: Claim) -> Result<bool, Corrupt> {
        if self.is_empty() {
            self.words.clear();
            self.at = 0;
            self.from_blocks = true;
        }
        let length = claim.length();
        if let Ok(length) = length {
            self.words.push(length as u64);
            let from = self.words.len();
            self.words.resize(from + length.div_ceil(8), 0);
            let to: &mut [u8] = cast_slice_mut(&mut self.words[from..]);
            if let Err(corrupt) = claim.copy_out(&mut to[..length]) {
                self.words.truncate(from - 1);
                claim.finish();
                return Err(corrupt);
            }
            self.count += 1;
        }
        // The type's own code comes afterwards: what it does, it does to this receiver alone.
        claim.finish();
        length.map(|_| self.words.len() < BLOCK_WORDS)
    }

    /// Reads up to `most` messages.
    #[inline]
    pub(super) fn read<T: Message>(&mut self, most: usize, limit: usize) -> Values<T> {
        let fixed = match self.from_blocks {
            true => None,
            false => message::fixed_size::<T>(),
        };
        let count = self.count.min(most);
        if let Some(size) = fixed.filter(|size| size % 8 == 0) {
            let words = count * size / 8;
            // Numbers all at once: that cannot panic.
            if message::runs_no_code::<T>() {
                let bytes = cast_slice(&self.words[self.at..][..words]);
                if let Ok(values) = message::decode_vec(bytes, count) {
                    self.at += words;
                    self.count -= count;
                    return Values {
                        values,
                        failure: None,
                    };
                }
            }
        }
        let mut values = Vec::with_capacity(count);
        let mut failure = None;
        let mut reading = Reading {
            first: self.at,
            message: self.at..self.at,
            batch: self,
        };
        for _ in 0..count {
            let value = match reading.next(fixed, limit) {
                Some(bytes) => message::decode(bytes).map_err(RecvError::Decode),
                None => Err(TOO_LONG.into()),
            };
            match value {
                Ok(value) => values.push(value),
                Err(error) => _ = failure.get_or_insert(error),
            }
        }
        reading.done(count);
        Values { values, failure }
    }

    /// Lets go of memory that only large messages need. To be called when all is read.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() && self.words.capacity() > 2 * BLOCK_WORDS {
            self.words = Vec::new();
        }
    }
}

/// Messages being read. Dropped before it is [`done`](Reading::done), which only a panic does, it
/// leaves all of them to be read but the one in which the panic began: the values of those before
/// went with the call.
struct Reading<'a> {
    batch: &'a mut Batch,
    /// Where the first message begins.
    first: usize,
    /// Where the one lies that is being read.
    message: Range<usize>,
}

impl Reading<'_> {
    /// The bytes of the next message; `None` if it says that it is longer than one may be.
    #[inline]
    fn next(&mut self, fixed: Option<usize>, limit: usize) -> Option<&[u8]> {
        let start = self.message.end;
        let (length, from) = match fixed {
            Some(size) => (size, start),
            None => (self.batch.words[start] as usize, start + 1),
        };
        let end = from + length.min(limit).div_ceil(8);
        self.message = start..end;
        cast_slice(&self.batch.words[from..end]).get(..length)
    }

    #[inline]
    fn done(self, count: usize) {
        self.batch.at = self.message.end;
        self.batch.count -= count;
        std::mem::forget(self);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let Range { start, end } = self.message;
        self.batch.words.copy_within(end.., start);
        self.batch.at = self.first;
        self.batch.count = self.batch.count.saturating_sub(1);
    }
}

/// Copies messages of so many words each; how many there were room for.
#[inline]
fn copy_fixed<'a>(
    run: impl Iterator<Item = &'a [AtomicU64]>,
    words: usize,
    to: &mut [u64],
) -> usize {
    let mut count = 0;
    match words {
        1 => {
            for (word, to) in run.zip(to) {
                *to = word[0].load(Ordering::Relaxed);
                count += 1;
            }
        }
        _ => {
            for (payload, to) in run.zip(to.chunks_exact_mut(words.max(1))) {
                copy(payload, to);
                count += 1;
            }
        }
    }
    count
}

/// Copies messages that begin with their length; how many there was room for.
#[inline]
fn copy_prefixed<'a>(
    run: impl Iterator<Item = &'a [AtomicU64]>,
    limit: usize,
    to: &mut [u64],
) -> usize {
    let mut count = 0;
    let mut room = to;
    for payload in run {
        // Until the messages are taken their lengths are as doubtful as their bytes.
        let length = length_of(payload);
        let words = 1 + length.min(limit).div_ceil(8);
        // One that names handles is taken alone.
        if words > room.len() || length > limit {
            break;
        }
        let (to, rest) = room.split_at_mut(words);
        to[0] = length as u64;
        copy(&payload[1..], &mut to[1..]);
        room = rest;
        count += 1;
    }
    count
}

/// The length that a message begins with.
#[inline]
pub(super) fn length_of(payload: &[AtomicU64]) -> usize {
    let length = payload
        .first()
        .map_or(0, |word| word.load(Ordering::Relaxed));
    usize::try_from(length).unwrap_or(usize::MAX)
}
