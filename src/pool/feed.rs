//! From a caller's items to jobs: encoded once, straight into the arena, a window at a time.

use std::any::TypeId;
use std::cell::Cell;
use std::sync::Arc;

use super::arena::{Arena, Block};
use super::engine::Engine;
use super::error::{TaskError, What};
use super::plan::Cut;
use super::station::Stretch;
use super::step::{Loop, Step, encode, record_len};
use super::work::{Context, Group, Input, Parcel, Work};
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
    /// An item that did not fit into the last job.
    held: Option<S::In>,
    over: bool,
    /// Index of the next item.
    first: usize,
    window: u64,
    /// Bytes of the largest record of the last job.
    largest: u64,
    /// Bytes that a result may take.
    pub(super) guess: u64,
    staged: Vec<S::In>,
}

thread_local! {
    /// The step whose name was asked for last, and its name: making one takes longer than a task may.
    static LAST: Cell<Option<(TypeId, TaskName)>> = const { Cell::new(None) };
}

/// The name of a step's loop.
pub(super) fn task_of<S: Step>() -> Result<TaskName, TaskError> {
    let step = TypeId::of::<S>();
    match LAST.get() {
        Some((last, name)) if last == step => Ok(name),
        _ => {
            let name = task::name::<Loop<S>>().map_err(|error| TaskError::NoFunction {
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
        pid: 0,
        name: String::new(),
        what: What::Arguments,
        error,
    }
}

fn no_memory(item: usize) -> impl Fn(String) -> TaskError {
    move |why| TaskError::NoMemory { item, why }
}

impl<'p, S: Step, I: Iterator<Item = S::In>> Feed<'p, S, I> {
    pub(super) fn new(
        engine: &'p Arc<Engine>,
        shares: Shares,
        context: Option<Arc<Context>>,
        items: I,
    ) -> Result<Self, TaskError> {
        Ok(Feed {
            engine,
            task: task_of::<S>()?,
            shares,
            context,
            items,
            held: None,
            over: false,
            first: 0,
            window: FIRST_WINDOW,
            largest: 0,
            guess: FIRST_GUESS,
            staged: Vec::new(),
        })
    }

    /// How many items there are at least.
    pub(super) fn at_least(&self) -> usize {
        self.items.size_hint().0
    }

    /// The next job; `None` when the items are used up.
    ///
    /// # Errors
    ///
    /// That the item at its index cannot be sent. Those behind it still can.
    pub(super) fn next(&mut self, group: Option<&Arc<Group>>) -> Result<Option<Parcel>, TaskError> {
        if self.over && self.held.is_none() {
            return Ok(None);
        }
        let (in_size, out_size) = sizes::<S>();
        let filled = match in_size {
            Some(size) => self.fill_fixed(size)?,
            None => self.fill_records()?,
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
            self.context.clone(),
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

    fn take(&mut self) -> Option<S::In> {
        if self.over {
            return None;
        }
        let item = self.items.next();
        self.over = item.is_none();
        item
    }

    fn fill_fixed(&mut self, size: u64) -> Result<Option<Filled>, TaskError> {
        let fit = (self.window / size.max(1)).clamp(1, u64::from(u32::MAX / 2)) as usize;
        let limit = fit.min(self.shares.per_job);
        self.stage(size, limit);
        let mut items = self.staged.len();
        if items == 0 {
            return Ok(None);
        }
        let first = self.first;
        let unsendable = |error| unsendable(first, error);
        let is_all = self.over || items == limit;
        if is_all && items as u64 * size <= INLINE as u64 {
            let mut here = [0; INLINE];
            message::encode_slice(&self.staged, &mut &mut here[..]).map_err(unsendable)?;
            let input = Input::Small(here, (items as u64 * size) as u8);
            return Ok(Some(Filled::fixed(items, input, None)));
        }
        // No more than there can be; whoever said less gets another job.
        let expected = self.items.size_hint().1.map_or(limit, |more| more + items);
        let len = limit.min(expected) as u64 * size;
        let mut room = Room::take(self.engine, len).map_err(no_memory(first))?;
        let limit = limit.min((room.len / size.max(1)) as usize);
        while !self.staged.is_empty() {
            let bytes = self.staged.len() as u64 * size;
            let at = (room.at + room.used) as usize;
            let mut to = Stretch::new(&room.bytes, at, bytes as usize);
            message::encode_slice(&self.staged, &mut to).map_err(unsendable)?;
            room.used += bytes;
            self.stage(size, limit - items);
            items += self.staged.len();
        }
        let block = room.finish();
        let input = Input::Placed(block.place);
        Ok(Some(Filled::fixed(items, input, Some(block))))
    }

    /// Reads as many items as are encoded in one go.
    fn stage(&mut self, size: u64, limit: usize) {
        let batch = ((BATCH / size.max(1)).max(1) as usize).min(limit);
        self.staged.clear();
        self.staged.extend(self.items.by_ref().take(batch));
        self.over |= self.staged.len() < batch;
    }

    fn fill_records(&mut self) -> Result<Option<Filled>, TaskError> {
        let Some(mut item) = self.held.take().or_else(|| self.take()) else {
            return Ok(None);
        };
        if self.shares.per_job == 1 {
            let One {
                input,
                block,
                end,
                passed,
            } = One::encode::<S>(self.engine, &item, self.first)
                .inspect_err(|_| self.first += 1)?;
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
            len = record_len(self.measure(&item)?);
        }
        let mut room = Room::take(self.engine, len).map_err(no_memory(self.first))?;
        let mut ends = Vec::new();
        let mut all_passed = Vec::new();
        self.largest = 0;
        loop {
            match room.put(&item) {
                Ok(Put::Done(passed)) => {
                    if !passed.is_empty() {
                        all_passed.push(passed);
                    }
                    self.largest = self.largest.max(room.used - ends.last().unwrap_or(&0));
                    ends.push(room.used);
                }
                Ok(Put::Needs(bytes)) if ends.is_empty() => {
                    room.give_back();
                    room = Room::take(self.engine, bytes).map_err(no_memory(self.first))?;
                    continue;
                }
                Ok(Put::Needs(bytes)) => {
                    self.largest = bytes;
                    self.held = Some(item);
                    break;
                }
                Err(error) if ends.is_empty() => {
                    room.give_back();
                    let index = self.first;
                    self.first += 1;
                    return Err(unsendable(index, error));
                }
                Err(_) => {
                    // Said when it is the first of its own job.
                    self.held = Some(item);
                    break;
                }
            }
            if ends.len() >= self.shares.per_job {
                break;
            }
            match self.take() {
                Some(next) => item = next,
                None => break,
            }
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

    fn measure(&mut self, item: &S::In) -> Result<u64, TaskError> {
        let (len, _) = encode(item, &mut Count).map_err(|error| {
            let index = self.first;
            self.first += 1;
            unsendable(index, error)
        })?;
        Ok(len as u64)
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
            Ok((again, passed)) if end_of(again) <= end => Ok(One {
                input: Input::Placed(place),
                block: Some(block),
                end,
                passed,
            }),
            Ok(_) => {
                engine.give_back([block]);
                Err(failed(EncodeError::UnknownLength))
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
    let task = task_of::<S>()?;
    let One {
        input,
        block,
        end,
        passed,
    } = One::encode::<S>(engine, item, 0)?;
    let work = Work::new(0, 1, sizes::<S>(), 1, context, group.cloned());
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
