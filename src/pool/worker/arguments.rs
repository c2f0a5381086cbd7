//! How a worker gets the arguments of a chunk's items: decoded from the job's input, or out of an array.

use std::rc::Rc;

use super::state::{Current, WorkerState};
use crate::frozen::Frozen;
use crate::message::{self, DecodeError, Message, PlainData};
use crate::pool::error::{Failure, Payload};
use crate::pool::record::{self, record_len, truncated};
use crate::pool::wire::Wire;

/// Bytes of arguments of a fixed size that are copied out of shared memory at a time.
const BATCH: u64 = 16 * 1024;

/// How a worker gets the arguments of a chunk's items.
pub trait Arguments<A>: Sized + 'static {
    /// Arguments that are to be had without the worker.
    type Run<'a>: ExactSizeIterator<Item = Result<A, Failure>>;

    /// Those of the worker's current chunk.
    fn open(worker: &mut WorkerState) -> Result<Self, Failure>;

    /// Those of items from `item` on: one at least, none from `end` on. The items are asked for in
    /// order, each once; nothing of the user's runs before an argument is taken.
    fn run(&mut self, item: u32, end: u32) -> Result<Self::Run<'_>, Failure>;

    /// Gives back what it has of the worker's.
    fn close(self, _: &mut WorkerState) {}
}

fn unreadable(error: DecodeError) -> Failure {
    Failure::Decode(Payload::Arguments, error)
}

/// Arguments that stand encoded in the job's input.
#[derive(Debug)]
pub struct Encoded {
    wire: Rc<Wire>,
    current: Current,
    /// Bytes of records read.
    read: u64,
    /// Copies of some arguments of a fixed size, or of a record.
    scratch: Vec<u8>,
}

impl<A: Message> Arguments<A> for Encoded {
    type Run<'a> = Copied<'a, A>;

    fn open(worker: &mut WorkerState) -> Result<Encoded, Failure> {
        let current = worker.current;
        let least = message::fixed_size::<A>().unwrap_or(8) as u64;
        let needed = u64::from(current.span.count).saturating_mul(least);
        if needed > current.input_len {
            return Err(unreadable(truncated(needed, current.input_len)));
        }
        Ok(Encoded {
            wire: Rc::clone(&worker.wire),
            current,
            read: 0,
            scratch: std::mem::take(&mut worker.scratch),
        })
    }

    fn run(&mut self, item: u32, end: u32) -> Result<Copied<'_, A>, Failure> {
        match message::fixed_size::<A>() {
            Some(size) => self.some(item, end, size),
            None => self.record(),
        }
    }

    fn close(self, worker: &mut WorkerState) {
        worker.scratch = self.scratch;
    }
}

impl Encoded {
    /// Copies the arguments from `item` on, as many as are copied at a time.
    fn some<A>(&mut self, item: u32, end: u32, size: usize) -> Result<Copied<'_, A>, Failure> {
        let current = &self.current;
        let each = size as u64;
        let items = (BATCH / each.max(1)).clamp(1, u64::from(end - item));
        let from = u64::from(item - current.span.start) * each;
        let place = current.input.saturating_add(from);
        let missing = || unreadable(truncated(each, 0));
        let at = record::inside(&self.wire.bytes, place, items * each)
            .filter(|_| from + items * each <= current.input_len)
            .ok_or_else(missing)?;
        self.scratch.clear();
        let bytes = &self.wire.bytes;
        bytes.append_to(at, (items * each) as usize, &mut self.scratch);
        Ok(Copied {
            rest: &self.scratch,
            size,
            left: items as usize,
            owned: None,
        })
    }

    /// Copies the next record.
    fn record<A: Message>(&mut self) -> Result<Copied<'_, A>, Failure> {
        let current = &self.current;
        let bytes = &self.wire.bytes;
        let left = current.input_len.saturating_sub(self.read);
        let place = current.input.saturating_add(self.read);
        let len = record::head(bytes, place, left).map_err(unreadable)?;
        let owned = record::body(bytes, place, len, left, &mut self.scratch).map_err(unreadable)?;
        self.read = (self.read + record_len(len)).min(current.input_len);
        Ok(Copied {
            rest: &self.scratch,
            size: len as usize,
            left: 1,
            owned,
        })
    }
}

/// Arguments that were copied out of the job's input.
#[derive(Debug)]
pub struct Copied<'a, A> {
    rest: &'a [u8],
    /// Bytes of each.
    size: usize,
    left: usize,
    /// The only one, if it is its bytes.
    owned: Option<Result<A, DecodeError>>,
}

impl<A: Message> Iterator for Copied<'_, A> {
    type Item = Result<A, Failure>;

    #[inline(always)]
    fn next(&mut self) -> Option<Result<A, Failure>> {
        self.left = self.left.checked_sub(1)?;
        let value = match self.owned.take() {
            Some(owned) => owned,
            None => {
                let (one, rest) = self.rest.split_at_checked(self.size)?;
                self.rest = rest;
                message::decode(one)
            }
        };
        Some(value.map_err(unreadable))
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<A: Message> ExactSizeIterator for Copied<'_, A> {}

/// Arguments that are the items of an array.
#[derive(Debug)]
pub struct InArray<A> {
    array: Rc<Frozen<A>>,
    /// Which of them is the job's first.
    first: usize,
}

impl<A: PlainData> Arguments<A> for InArray<A> {
    type Run<'a> = Borrowed<'a, A>;

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

    fn run(&mut self, item: u32, end: u32) -> Result<Self::Run<'_>, Failure> {
        let items = self.first + item as usize..self.first + end as usize;
        let missing = || unreadable(truncated(size_of::<A>() as u64, 0));
        let items = self.array.get(items).ok_or_else(missing)?;
        Ok(Borrowed(items.iter()))
    }
}

/// Arguments that are copied when they are taken.
#[derive(Debug)]
pub struct Borrowed<'a, A>(std::slice::Iter<'a, A>);

impl<A: Copy> Iterator for Borrowed<'_, A> {
    type Item = Result<A, Failure>;

    #[inline(always)]
    fn next(&mut self) -> Option<Result<A, Failure>> {
        self.0.next().map(|item| Ok(*item))
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<A: Copy> ExactSizeIterator for Borrowed<'_, A> {}
