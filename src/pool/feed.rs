//! From a caller's items to jobs: encoded once, straight into the arena, a window at a time.

use std::any::TypeId;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use super::arena::{Arena, Block, Place};
use super::arguments::{Arguments, Encoded};
use super::context::Context;
use super::engine::Engine;
use super::error::{TaskError, What};
use super::items::Source;
use super::plan::Cut;
use super::station::Stretch;
use super::step::{Loop, Step, encode, record_len};
use super::work::{Group, Input, Parcel, Work};
use crate::handle::Passed;
use crate::layout::INLINE;
use crate::message::{self, Count, EncodeError};
use crate::process::task::{self, TaskName};
use crate::segment::Bytes;

/// Bytes of the first job's items: small, so that the workers begin early.
const FIRST_WINDOW: u64 = 64 * 1024;
/// Bytes of the later jobs' items.
const WINDOW: u64 = 1 << 20;
/// Bytes of items of a fixed size that are encoded in one go.
const BATCH: u64 = 8 * 1024;
/// Bytes that a result is taken to need before one is known.
const FIRST_GUESS: u64 = 64;

/// How the items of a call are shared out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    pub(super) cut: Cut,
    /// Items of a job at most.
    pub(super) per_job: usize,
}

/// The items of a call on their way into jobs.
pub(super) struct Feed<'p, S: Step, I> {
    engine: &'p Arc<Engine>,
    task: TaskName,
    shares: Shares,
    context: Option<Arc<Context>>,
    items: I,
    /// Handle of the array that the items lie in.
    array: Option<Arc<Context>>,
    /// Index of the next item.
    first: usize,
    window: u64,
    /// Bytes of the largest record of the last job.
    largest: u64,
    /// Bytes that a result may take.
    pub(super) guess: u64,
    step: PhantomData<fn() -> S>,
}

thread_local! {
    /// The loop whose name was asked for last, and its name: making one takes longer than a task may.
    static LAST: Cell<Option<(TypeId, TaskName)>> = const { Cell::new(None) };
}

/// The name of a step's loop, over arguments from `G`.
fn task_of<S: Step, G: Arguments<S::In>>() -> Result<TaskName, TaskError> {
    let step = TypeId::of::<Loop<S, G>>();
    match LAST.get() {
        Some((last, name)) if last == step => Ok(name),
        _ => {
            let name = task::name::<Loop<S, G>>().map_err(|error| TaskError::NoFunction {
                item: 0,
                why: error.to_string(),
            })?;
            LAST.set(Some((step, name)));
            Ok(name)
        }
    }
}

pub(super) fn sizes<S: Step>() -> (Option<u64>, Option<u64>) {
    (
        message::fixed_size::<S::In>().map(|size| size as u64),
        message::fixed_size::<S::Out>().map(|size| size as u64),
    )
}

fn unsendable(item: usize, error: EncodeError) -> TaskError {
    TaskError::Encode {
        item,
        pid: None,
        name: None,
        what: What::Arguments,
        error,
    }
}

fn no_memory(item: usize) -> impl Fn(String) -> TaskError {
    move |why| TaskError::NoMemory { item, why }
}

impl<'p, S: Step, I: Source<S::In>> Feed<'p, S, I> {
    pub(super) fn new(
        engine: &'p Arc<Engine>,
        shares: Shares,
        context: Option<Arc<Context>>,
        items: I,
    ) -> Result<Self, TaskError> {
        let task = task_of::<S, I::Arguments>()?;
        let array = items
            .array()
            .map(|array| Context::place(engine, array.key().cookie, array))
            .transpose()?;
        Ok(Feed {
            engine,
            task,
            shares,
            context,
            items,
            array,
            first: 0,
            window: FIRST_WINDOW,
            largest: 0,
            guess: FIRST_GUESS,
            step: PhantomData,
        })
    }

    /// How many items there are at least, those fed included.
    pub(super) fn at_least(&self) -> usize {
        self.first.saturating_add(self.items.size_hint().0)
    }

    /// The next job; `None` when the items are used up.
    ///
    /// # Errors
    ///
    /// That the item at its index cannot be sent. Those behind it still can.
    pub(super) fn next(&mut self, group: Option<&Arc<Group>>) -> Result<Option<Parcel>, TaskError> {
        let (mut in_size, out_size) = sizes::<S>();
        let filled = match (&self.array, in_size) {
            (Some(array), _) => {
                let handle = array.place;
                in_size = Some(0);
                self.fill_from_array(handle)
            }
            (None, Some(size)) => self.fill_fixed(size)?,
            (None, None) => self.fill_records()?,
        };
        let Some(Filled {
            items,
            input,
            block,
            ends,
            passed,
        }) = filled
        else {
            return Ok(None);
        };
        self.window = (self.window * 2).min(WINDOW);
        let end_of = |items: u32| match (in_size, items) {
            (Some(size), items) => u64::from(items) * size,
            (None, 0) => 0,
            (None, items) => ends[items as usize - 1],
        };
        let len = end_of(items as u32);
        let mut spans = Vec::new();
        let mut starts = Vec::new();
        if items > self.shares.cut.first(items) {
            spans.extend(self.shares.cut.chunks(items));
            starts.extend(spans.iter().map(|span| end_of(span.start)));
            starts.push(len);
        }
        let work = Work::new(
            self.first,
            items as u32,
            (in_size, out_size),
            spans.len().max(1),
            [self.context.clone(), self.array.clone()],
            group.cloned(),
        );
        if let Some(block) = block {
            work.own(block);
        }
        self.first += items;
        Ok(Some(Parcel {
            work: Arc::new(work),
            task: self.task,
            spans,
            starts,
            len,
            input,
            guess: self.guess,
            passed,
        }))
    }

    /// Items of a job of the current window, each of which takes at least so many bytes.
    fn fit(&self, each: u64) -> usize {
        let fit = (self.window / each.max(1)).clamp(1, u64::from(u32::MAX / 2));
        (fit as usize).min(self.shares.per_job)
    }

    fn fill_from_array(&mut self, handle: Place) -> Option<Filled> {
        let (_, out_size) = sizes::<S>();
        let each = out_size.unwrap_or(self.guess);
        let limit = self.fit(each.max(size_of::<S::In>() as u64));
        let items = self.items.peek(limit).len();
        self.items.advance(items);
        let input = Input::InArray(handle, self.first as u64);
        (items > 0).then(|| Filled::fixed(items, input, None))
    }

    fn fill_fixed(&mut self, size: u64) -> Result<Option<Filled>, TaskError> {
        let (_, out_size) = sizes::<S>();
        let limit = self.fit(size.max(out_size.unwrap_or(0)));
        let batch = (BATCH / size.max(1)).max(1) as usize;
        let first = self.first;
        let unsendable = |error| unsendable(first, error);
        let most = self.items.size_hint().1;
        let some = self.items.peek(batch.min(limit));
        let mut items = some.len();
        if items == 0 {
            return Ok(None);
        }
        let is_all = items == limit || items < batch.min(limit);
        if is_all && items as u64 * size <= INLINE as u64 {
            let mut here = [0; INLINE];
            message::encode_slice(some, &mut &mut here[..]).map_err(unsendable)?;
            self.items.advance(items);
            let input = Input::Small(here, (items as u64 * size) as u8);
            return Ok(Some(Filled::fixed(items, input, None)));
        }
        // No more than there can be; whoever said less gets another job.
        let len = limit.min(most.unwrap_or(limit)).max(items) as u64 * size;
        let mut room = Room::take(self.engine, len).map_err(no_memory(first))?;
        let limit = limit.min((room.len / size.max(1)) as usize);
        items = 0;
        loop {
            let some = self.items.peek(batch.min(limit - items));
            if some.is_empty() {
                break;
            }
            let bytes = some.len() as u64 * size;
            let at = (room.at + room.used) as usize;
            let mut to = Stretch::new(&room.bytes, at, bytes as usize);
            message::encode_slice(some, &mut to).map_err(unsendable)?;
            room.used += bytes;
            let taken = some.len();
            self.items.advance(taken);
            items += taken;
        }
        let block = room.finish();
        let input = Input::Placed(block.place);
        Ok(Some(Filled::fixed(items, input, Some(block))))
    }

    fn fill_records(&mut self) -> Result<Option<Filled>, TaskError> {
        let Some(item) = self.items.peek(1).first() else {
            return Ok(None);
        };
        let index = self.first;
        // Said of the first of a job only, which is then passed over.
        let mut unsent = None;
        if self.shares.per_job == 1 {
            let one = One::encode::<S>(self.engine, item, index);
            self.items.advance(1);
            let One {
                input,
                block,
                end,
                passed,
            } = one.inspect_err(|_| self.first += 1)?;
            return Ok(Some(Filled {
                items: 1,
                input,
                block,
                ends: vec![end],
                passed: (!passed.is_empty()).then(|| vec![passed]),
            }));
        }
        // A large item gets exactly what it needs, and is written once; many small ones share a window.
        let mut len = self.window;
        if self.largest > self.window / 2 {
            match encode(item, &mut Count) {
                Ok((needed, _)) => len = record_len(needed as u64),
                Err(error) => unsent = Some(error),
            }
        }
        let mut room = Room::take(self.engine, len).map_err(no_memory(index))?;
        let mut ends = Vec::new();
        let mut all_passed = Vec::new();
        self.largest = 0;
        while unsent.is_none() && ends.len() < self.shares.per_job {
            let Some(item) = self.items.peek(1).first() else {
                break;
            };
            match room.put(item) {
                Ok(Put::Done(passed)) => {
                    if !passed.is_empty() {
                        all_passed.push(passed);
                    }
                    self.largest = self.largest.max(room.used - ends.last().unwrap_or(&0));
                    ends.push(room.used);
                    self.items.advance(1);
                }
                Ok(Put::Needs(bytes)) if ends.is_empty() => {
                    room.give_back();
                    room = Room::take(self.engine, bytes).map_err(no_memory(index))?;
                }
                Ok(Put::Needs(bytes)) => {
                    self.largest = bytes;
                    break;
                }
                Err(error) => unsent = Some(error),
            }
        }
        match unsent {
            Some(error) if ends.is_empty() => {
                self.items.advance(1);
                self.first += 1;
                return Err(unsendable(index, error));
            }
            // Said when it is the first of its own job.
            _ => {}
        }
        let block = room.finish();
        Ok(Some(Filled {
            items: ends.len(),
            input: Input::Placed(block.place),
            block: Some(block),
            ends,
            passed: (!all_passed.is_empty()).then_some(all_passed),
        }))
    }
}

/// The items of one job, encoded.
struct Filled {
    items: usize,
    input: Input,
    block: Option<Block>,
    /// Where the record of each item ends.
    ends: Vec<u64>,
    passed: Option<Vec<Passed>>,
}

/// A block that is being filled with records.
struct Room<'p> {
    engine: &'p Engine,
    block: Option<Block>,
    bytes: Bytes,
    at: u64,
    len: u64,
    used: u64,
}

enum Put {
    Done(Passed),
    /// So many bytes are needed, more than are left.
    Needs(u64),
}

impl Filled {
    fn fixed(items: usize, input: Input, block: Option<Block>) -> Filled {
        Filled {
            items,
            input,
            block,
            ends: Vec::new(),
            passed: None,
        }
    }
}

impl<'p> Room<'p> {
    fn take(engine: &'p Engine, len: u64) -> Result<Room<'p>, String> {
        let (block, bytes) = engine.take_block(len)?;
        Ok(Room {
            engine,
            bytes,
            at: block.place.offset,
            len: block.len,
            block: Some(block),
            used: 0,
        })
    }

    fn put<T: message::Message>(&mut self, item: &T) -> Result<Put, EncodeError> {
        let left = self.len - self.used;
        if left < 8 {
            return Ok(Put::Needs(Arena::rounded(8)));
        }
        let at = (self.at + self.used) as usize;
        let mut to = Stretch::new(&self.bytes, at + 8, left as usize - 8);
        let (len, passed) = encode(item, &mut to)?;
        let len = len as u64;
        if record_len(len) > left {
            return Ok(Put::Needs(record_len(len)));
        }
        self.bytes.copy_in(at, &len.to_ne_bytes());
        self.used += record_len(len);
        Ok(Put::Done(passed))
    }

    fn give_back(&mut self) {
        self.engine.give_back(self.block.take());
    }

    /// The block, without what is left of it.
    fn finish(mut self) -> Block {
        match self.block.take() {
            Some(block) => {
                let (block, rest) = block.split(self.used);
                self.engine.give_back(rest);
                block
            }
            // Given back only where another is taken in its place.
            None => Block::nothing(),
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// One item, encoded: small ones in private memory, others in the arena.
struct One {
    input: Input,
    block: Option<Block>,
    end: u64,
    passed: Passed,
}

impl One {
    #[inline]
    fn encode<S: Step>(engine: &Engine, item: &S::In, index: usize) -> Result<One, TaskError> {
        let fixed = message::fixed_size::<S::In>().is_some();
        let head = if fixed { 0 } else { 8 };
        let end_of = |len: usize| match fixed {
            true => len as u64,
            false => record_len(len as u64),
        };
        let failed = |error| unsendable(index, error);
        let mut here = [0; INLINE];
        let mut to = &mut here[head..];
        let (len, passed) = encode(item, &mut to).map_err(failed)?;
        let end = end_of(len);
        if !fixed {
            here[..8].copy_from_slice(&(len as u64).to_ne_bytes());
        }
        if end <= INLINE as u64 {
            return Ok(One {
                input: Input::Small(here, end as u8),
                block: None,
                end,
                passed,
            });
        }
        drop(passed);
        let (block, bytes) = engine.take_block(end).map_err(no_memory(index))?;
        let place = block.place;
        let at = place.offset as usize;
        bytes.copy_in(at, &here[..head]);
        let mut to = Stretch::new(&bytes, at + head, end as usize - head);
        match encode(item, &mut to) {
            Ok((again, passed)) if again == len => Ok(One {
                input: Input::Placed(place),
                block: Some(block),
                end,
                passed,
            }),
            Ok((written, _)) => {
                engine.give_back([block]);
                let needed = len;
                Err(failed(EncodeError::WrongLength { written, needed }))
            }
            Err(error) => {
                engine.give_back([block]);
                Err(failed(error))
            }
        }
    }
}

/// One item as a job of its own.
pub(super) fn single<S: Step>(
    engine: &Arc<Engine>,
    context: Option<Arc<Context>>,
    item: &S::In,
    group: Option<&Arc<Group>>,
) -> Result<Parcel, TaskError> {
    let task = task_of::<S, Encoded>()?;
    let One {
        input,
        block,
        end,
        passed,
    } = One::encode::<S>(engine, item, 0)?;
    let work = Work::new(0, 1, sizes::<S>(), 1, [context, None], group.cloned());
    if let Some(block) = block {
        work.own(block);
    }
    Ok(Parcel {
        work: Arc::new(work),
        task,
        spans: Vec::new(),
        starts: Vec::new(),
        len: end,
        input,
        guess: FIRST_GUESS,
        passed: (!passed.is_empty()).then(|| vec![passed]),
    })
}
