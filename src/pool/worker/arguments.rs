//! How a worker gets the arguments of a chunk's items: decoded from the job's input, or out of an array.

use std::ops::Range;
use std::rc::Rc;

use super::state::WorkerState;
use crate::frozen::Frozen;
use crate::message::{self, DecodeError, Message, PlainData};
use crate::pool::error::{Failure, Payload};
use crate::pool::record::{self, record_len, truncated};

/// Bytes of arguments of a fixed size that are copied out of shared memory at a time.
const BATCH: u64 = 16 * 1024;

/// How a worker gets the arguments of a chunk's items.
pub trait Arguments<A>: Sized + 'static {
    /// Those of the worker's current chunk.
    fn open(worker: &mut WorkerState) -> Result<Self, Failure>;

    /// That of an item; the items are asked for in order, each once.
    fn take(&mut self, worker: &mut WorkerState, item: u32) -> Result<A, Failure>;
}

fn unreadable(error: DecodeError) -> Failure {
    Failure::Decode(Payload::Arguments, error)
}

/// Arguments that stand encoded in the job's input.
#[derive(Debug)]
pub struct Encoded {
    /// Bytes of records read.
    read: u64,
    /// The items whose arguments, of a fixed size, are in the scratch.
    loaded: Range<u32>,
}

impl<A: Message> Arguments<A> for Encoded {
    fn open(worker: &mut WorkerState) -> Result<Encoded, Failure> {
        let current = &worker.current;
        let least = message::fixed_size::<A>().unwrap_or(8) as u64;
        let needed = u64::from(current.span.count).saturating_mul(least);
        if needed > current.input_len {
            return Err(unreadable(truncated(needed, current.input_len)));
        }
        Ok(Encoded {
            read: 0,
            loaded: 0..0,
        })
    }

    #[inline(always)]
    fn take(&mut self, worker: &mut WorkerState, item: u32) -> Result<A, Failure> {
        let Some(size) = message::fixed_size::<A>() else {
            return self.record(worker);
        };
        if !self.loaded.contains(&item) {
            self.load(worker, item, size as u64)?;
        }
        let at = (item - self.loaded.start) as usize * size;
        message::decode(&worker.scratch[at..at + size]).map_err(unreadable)
    }
}

impl Encoded {
    /// Copies the arguments from `item` on into the scratch, as many as are copied at a time.
    #[cold]
    fn load(&mut self, worker: &mut WorkerState, item: u32, size: u64) -> Result<(), Failure> {
        let current = worker.current;
        let from = item - current.span.start;
        let left = u64::from(current.span.count - from);
        let items = (BATCH / size.max(1)).clamp(1, left);
        let at = u64::from(from) * size;
        let is_there = at + items * size <= current.input_len
            && worker.load(current.input.saturating_add(at), items * size);
        if !is_there {
            return Err(unreadable(truncated(size, 0)));
        }
        self.loaded = item..item + items as u32;
        Ok(())
    }

    fn record<A: Message>(&mut self, worker: &mut WorkerState) -> Result<A, Failure> {
        let current = worker.current;
        let left = current.input_len.saturating_sub(self.read);
        let place = current.input.saturating_add(self.read);
        let len = (left >= 8)
            .then(|| record::word(&worker.wire.bytes, place))
            .flatten()
            .filter(|len| *len <= left - 8)
            .ok_or_else(|| unreadable(truncated(8, left)))?;
        self.read = (self.read + record_len(len)).min(current.input_len);
        let bytes = &worker.wire.bytes;
        let at =
            record::inside(bytes, place + 8, len).ok_or_else(|| unreadable(truncated(len, 0)))?;
        let owned = message::decode_owned(|| {
            let mut owned = Vec::new();
            bytes.append_to(at, len as usize, &mut owned);
            owned
        });
        owned
            .unwrap_or_else(|| {
                worker.scratch.clear();
                bytes.append_to(at, len as usize, &mut worker.scratch);
                message::decode(&worker.scratch)
            })
            .map_err(unreadable)
    }
}

/// Arguments that are the items of an array.
#[derive(Debug)]
pub struct InArray<A> {
    array: Rc<Frozen<A>>,
    /// Which of them is the job's first.
    first: usize,
}

impl<A: PlainData> Arguments<A> for InArray<A> {
    fn open(worker: &mut WorkerState) -> Result<InArray<A>, Failure> {
        let array: Rc<Frozen<A>> = worker
            .values
            .array(&worker.wire.bytes, worker.current.input)?;
        let first = worker.current.input_len as usize;
        let end = first.checked_add(worker.current.span.end() as usize);
        if end.is_none_or(|end| end > array.len()) {
            return Err(unreadable(truncated(u64::MAX, array.len() as u64)));
        }
        Ok(InArray { array, first })
    }

    #[inline(always)]
    fn take(&mut self, _: &mut WorkerState, item: u32) -> Result<A, Failure> {
        let at = self.first.wrapping_add(item as usize);
        let item = self.array.get(at);
        item.copied()
            .ok_or_else(|| unreadable(truncated(size_of::<A>() as u64, 0)))
    }
}
