//! From a caller's items to jobs: encoded once, straight into the pool's memory, a window at a time.

use std::any::TypeId;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::error::{Payload, TaskError};
use super::items::Source;
use super::job::{Group, Input, Job, Part, Record};
use super::memory::{Block, Memory, Short, rounded};
use super::outcome::Failures;
use super::plan::Cut;
use super::record::{Stretch, record_len};
use super::shared::PoolShared;
use super::step::Step;
use super::worker::{Arguments, ChunkRunner, Encoded};
use crate::chunk::Span;
use crate::handle::{self, Passed, Transport};
use crate::layout::{INLINE_INPUT, INLINE_OUTPUT};
use crate::message::{self, Count, EncodeError, Message, Sink};
use crate::process::task::{self, TaskName};
use crate::sys;

/// Bytes of the first job's items: small, so that the workers begin early.
const FIRST_WINDOW: u64 = 32 * 1024;
/// Bytes of the later jobs' items: some of them, and their results, stay in the processors' caches.
const WINDOW: u64 = 256 * 1024;
/// Bytes of items of a fixed size that are encoded in one go.
const BATCH: u64 = 8 * 1024;
/// Bytes that a result is taken to need before one is known.
const FIRST_GUESS: u64 = 64;
/// The most that it is taken to need because the one before did.
const MOST_GUESSED: u64 = 4 << 20;

/// How a call's items become jobs.
#[derive(Clone)]
pub(super) struct Shares {
    pub(super) cut: Cut,
    /// Items of a job at most.
    pub(super) per_job: usize,
    pub(super) context: Option<Arc<Context>>,
    pub(super) limit: Option<Duration>,
    /// The first failure of a job ends it.
    pub(super) fails_fast: bool,
}

/// The items of a call on their way into jobs.
pub(super) struct Feed<A, I> {
    shared: Arc<PoolShared>,
    task: TaskName,
    shares: Shares,
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
    /// The items of the next job, for whose results there was no memory.
    unplaced: Option<Filled>,
    /// Others of the call are under way: their results are to find memory.
    is_ahead: bool,
    of: PhantomData<fn(A)>,
}

/// Why there is no next job.
pub(super) enum Unfed {
    /// An item cannot be sent. Those behind it still can.
    Item(TaskError),
    /// There is no memory now.
    Short(TaskError),
}

impl Unfed {
    pub(super) fn error(self) -> TaskError {
        match self {
            Unfed::Item(error) | Unfed::Short(error) => error,
        }
    }
}

thread_local! {
    /// The loop whose name was asked for last, and its name: making one takes longer than a task may.
    static LAST: Cell<Option<(TypeId, TaskName)>> = const { Cell::new(None) };
    /// The step that was called last for one item, and how many bytes its result had: so much room
    /// the next one is given at once.
    static LAST_SIZE: Cell<Option<(TypeId, u64)>> = const { Cell::new(None) };
}

/// Remembers how many bytes a result of a step had.
pub(super) fn remember<S: Step>(job: &Job) {
    if let Some(size) = job.average() {
        LAST_SIZE.set(Some((TypeId::of::<S>(), size.min(MOST_GUESSED))));
    }
}

/// Bytes that a result of a step is taken to need.
fn guess<S: Step>() -> u64 {
    match LAST_SIZE.get() {
        Some((step, size)) if step == TypeId::of::<S>() => size.max(FIRST_GUESS),
        _ => FIRST_GUESS,
    }
}

/// The name of a step's loop, over arguments from `G`.
fn task_of<S: Step, G: Arguments<S::In>>() -> Result<TaskName, TaskError> {
    let step = TypeId::of::<ChunkRunner<S, G>>();
    match LAST.get() {
        Some((last, name)) if last == step => Ok(name),
        _ => {
            let name = task::name::<ChunkRunner<S, G>>();
            let name = name.map_err(|error| TaskError::NoFunction {
                item: 0,
                why: error.to_string(),
            })?;
            LAST.set(Some((step, name)));
            Ok(name)
        }
    }
}

fn sizes<S: Step>() -> (Option<u64>, Option<u64>) {
    (
        message::fixed_size::<S::In>().map(|size| size as u64),
        message::fixed_size::<S::Out>().map(|size| size as u64),
    )
}

fn unsendable(item: usize, error: EncodeError) -> Unfed {
    Unfed::Item(TaskError::Encode {
        item,
        pid: None,
        name: None,
        what: Payload::Arguments,
        error,
    })
}

fn short(item: usize, short: Short) -> Unfed {
    match short {
        Short::Never(why) => Unfed::Item(TaskError::NoMemory { item, why }),
        Short::Now(why) => Unfed::Short(TaskError::NoMemory { item, why }),
    }
}

/// The bytes of a value for shared memory, and the segments named in it.
fn encode<T: Message, S: Sink>(value: &T, sink: &mut S) -> Result<(usize, Passed), EncodeError> {
    let (len, passed) = handle::collect(Transport::Ring, || message::encode(value, sink));
    len.map(|len| (len, passed))
}

impl<A: Message, I: Source<A>> Feed<A, I> {
    pub(super) fn new<S: Step<In = A>>(
        shared: &Arc<PoolShared>,
        shares: Shares,
        items: I,
    ) -> Result<Self, TaskError> {
        let task = task_of::<S, I::Arguments>()?;
        let take = |len| shared.take_patiently(len);
        let array = items
            .array()
            .map(|array| Context::place(&shared.memory, take, array.key().cookie, array))
            .transpose()?;
        Ok(Feed {
            shared: Arc::clone(shared),
            task,
            shares,
            items,
            array,
            first: 0,
            window: FIRST_WINDOW,
            largest: 0,
            guess: FIRST_GUESS,
            unplaced: None,
            is_ahead: false,
            of: PhantomData,
        })
    }

    /// How many items there are at least, those fed included.
    pub(super) fn at_least(&self) -> usize {
        self.first.saturating_add(self.items.size_hint().0)
    }

    /// Asks for items again after there seemed to be no more.
    pub(super) fn ask_again(&mut self) {
        self.items.ask_again();
    }

    /// Index of the next item.
    pub(super) fn next_index(&self) -> usize {
        self.first
    }

    /// The next job; `None` when the items are used up. `is_ahead` of others of the same call, it takes memory only
    /// while half of it is left for results.
    ///
    /// # Errors
    ///
    /// [`Unfed`]. Without memory, nothing was taken from the items; what cannot be sent is passed over.
    pub(super) fn next<S: Step<In = A>>(
        &mut self,
        group: Option<&Arc<Group>>,
        is_ahead: bool,
    ) -> Result<Option<Box<Record>>, Unfed> {
        self.is_ahead = is_ahead;
        let first = self.first;
        let made = self.make::<S>(group);
        if matches!(made, Err(Unfed::Item(_))) && self.first == first {
            self.pass_over();
        }
        made
    }

    /// Passes over what could not be sent.
    pub(super) fn pass_over(&mut self) {
        self.first += match self.unplaced.take() {
            Some(filled) => filled.items,
            None => {
                self.items.advance(1);
                1
            }
        };
    }

    fn make<S: Step<In = A>>(
        &mut self,
        group: Option<&Arc<Group>>,
    ) -> Result<Option<Box<Record>>, Unfed> {
        let (in_size, out_size) = sizes::<S>();
        let filled = match (self.unplaced.take(), &self.array, in_size) {
            (Some(filled), ..) => Some(filled),
            (None, Some(array), _) => {
                let handle = array.at();
                self.fill_from_array::<S>(handle)
            }
            (None, None, Some(size)) => self.fill_fixed::<S>(size)?,
            (None, None, None) => self.fill_records::<S>()?,
        };
        let Some(filled) = filled else {
            return Ok(None);
        };
        let in_size = if self.array.is_some() {
            Some(0)
        } else {
            in_size
        };
        let items = filled.items;
        let each = out_size.unwrap_or(self.guess);
        let output = match Output::take(items as u64, each, |len| {
            self.shared.take_beside(len, self.is_ahead)
        }) {
            Ok(output) => output,
            Err(why) => {
                self.unplaced = Some(filled);
                return Err(short(self.first, why));
            }
        };
        self.window = (self.window * 2).min(WINDOW);
        let cut = self.shares.cut;
        let job = Job::new(
            self.first,
            items as u32,
            (in_size, out_size),
            cut.chunks(items).count(),
            S::function(),
            self.shares.limit,
            self.shares.fails_fast,
            group.cloned(),
        );
        self.first += items;
        let kept = [self.shares.context.clone(), self.array.clone()];
        let spans = cut.chunks(items);
        Ok(Some(Record::build(
            job, self.task, filled, spans, output, kept,
        )))
    }

    /// Items of a job of the current window, each of which takes at least so many bytes.
    fn fit(&self, each: u64) -> usize {
        let fit = (self.window / each.max(1)).clamp(1, u64::from(u32::MAX / 2));
        (fit as usize).min(self.shares.per_job)
    }

    fn fill_from_array<S: Step<In = A>>(&mut self, handle: u64) -> Option<Filled> {
        let (_, out_size) = sizes::<S>();
        let each = out_size.unwrap_or(self.guess);
        let limit = self.fit(each.max(size_of::<A>() as u64));
        let items = self.items.peek(limit).len();
        self.items.advance(items);
        let input = Input::InArray(handle, self.first as u64);
        (items > 0).then(|| Filled::fixed(items, input, None))
    }

    fn fill_fixed<S: Step<In = A>>(&mut self, size: u64) -> Result<Option<Filled>, Unfed> {
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
        if is_all && items as u64 * size <= INLINE_INPUT as u64 {
            let mut here = [0; INLINE_INPUT];
            message::encode_slice(some, &mut &mut here[..]).map_err(unsendable)?;
            self.items.advance(items);
            let input = Input::Small(here, (items as u64 * size) as u8);
            return Ok(Some(Filled::fixed(items, input, None)));
        }
        // No more than there can be; whoever said less gets another job.
        let len = limit.min(most.unwrap_or(limit)).max(items) as u64 * size;
        let room = Room::take(&self.shared, len, self.is_ahead);
        let mut room = room.map_err(|why| short(first, why))?;
        let limit = limit.min((room.block.len / size.max(1)) as usize);
        items = 0;
        loop {
            let some = self.items.peek(batch.min(limit - items));
            if some.is_empty() {
                break;
            }
            let bytes = some.len() as u64 * size;
            let mut to = room.stretch(0);
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

    fn fill_records<S: Step<In = A>>(&mut self) -> Result<Option<Filled>, Unfed> {
        let Some(item) = self.items.peek(1).first() else {
            return Ok(None);
        };
        let index = self.first;
        if self.shares.per_job == 1 {
            let (shared, is_ahead) = (&self.shared, self.is_ahead);
            let take = |len| shared.take_beside(len, is_ahead);
            let one = encode_one::<S>(shared, item, index, take);
            if !matches!(one, Err(Unfed::Short(_))) {
                self.items.advance(1);
            }
            if matches!(one, Err(Unfed::Item(_))) {
                self.first += 1;
            }
            return one.map(Some);
        }
        // Said of the first of a job only, which is then passed over.
        let mut unsent = None;
        // A large item gets exactly what it needs, and is written once; many small ones share a window.
        let mut len = self.window;
        if self.largest > self.window / 2 {
            match encode(item, &mut Count) {
                Ok((needed, _)) => len = record_len(needed as u64),
                Err(error) => unsent = Some(error),
            }
        }
        let room = Room::take(&self.shared, len, self.is_ahead);
        let mut room = room.map_err(|why| short(index, why))?;
        let mut ends: Vec<u64> = Vec::new();
        let mut passed = Vec::new();
        self.largest = 0;
        while unsent.is_none() && ends.len() < self.shares.per_job {
            let Some(item) = self.items.peek(1).first() else {
                break;
            };
            match room.put(item) {
                Ok(Put::Done(its)) => {
                    if !its.is_empty() {
                        passed.push(its);
                    }
                    self.largest = self.largest.max(room.used - ends.last().unwrap_or(&0));
                    ends.push(room.used);
                    self.items.advance(1);
                }
                Ok(Put::Needs(bytes)) if ends.is_empty() => {
                    drop(room);
                    let larger = Room::take(&self.shared, bytes, self.is_ahead);
                    room = larger.map_err(|why| short(index, why))?;
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
            passed,
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
    passed: Vec<Passed>,
}

impl Filled {
    fn fixed(items: usize, input: Input, block: Option<Block>) -> Filled {
        Filled {
            items,
            input,
            block,
            ends: Vec::new(),
            passed: Vec::new(),
        }
    }
}

/// Room for the results of a job.
struct Output {
    /// `None` if the cell has room for them.
    block: Option<Block>,
    /// Bytes for each.
    each: u64,
}

impl Output {
    fn take(
        items: u64,
        each: u64,
        take: impl FnOnce(u64) -> Result<Block, Short>,
    ) -> Result<Output, Short> {
        let room = items.saturating_mul(each);
        let block = (room > INLINE_OUTPUT as u64)
            .then(|| take(room))
            .transpose()?;
        Ok(Output { block, each })
    }
}

impl Record {
    /// What the board is given of a job: its chunks, and room for their results.
    fn build(
        job: Arc<Job>,
        task: TaskName,
        filled: Filled,
        spans: impl Iterator<Item = Span>,
        output: Output,
        kept: [Option<Arc<Context>>; 2],
    ) -> Box<Record> {
        let end_of = |items: u32| match (job.in_size, items) {
            (Some(size), items) => u64::from(items) * size,
            (None, 0) => 0,
            (None, items) => filled.ends[items as usize - 1],
        };
        let each = output.each;
        let mut parts: Vec<Part> = Vec::with_capacity(job.chunks);
        for span in spans {
            let from = end_of(span.start);
            parts.push(Part {
                span,
                input: (from, end_of(span.end()) - from),
                output: (u64::from(span.start) * each, u64::from(span.count) * each),
                ..Part::default()
            });
        }
        if let [only] = &mut parts[..] {
            // It may have all that there is.
            only.output.1 = output
                .block
                .as_ref()
                .map_or(INLINE_OUTPUT as u64, |block| block.len);
        }
        let output_is_inline = output.block.is_none();
        let place = output.block.as_ref().map_or(0, |block| block.place);
        Box::new(Record {
            job,
            task,
            parts,
            input: filled.input,
            blocks: filled.block.into_iter().chain(output.block).collect(),
            kept,
            _passed: filled.passed,
            output: place,
            output_is_inline,
            pieces: Vec::new(),
            failures: Failures::default(),
            cancelled: false,
            was_begun: false,
            is_killed: false,
            killed: None,
            submitted: sys::now(),
            owner: 0,
            waiters: 0,
        })
    }
}

/// A block that is being filled.
struct Room<'p> {
    memory: &'p Memory,
    block: Block,
    used: u64,
}

enum Put {
    Done(Passed),
    /// So many bytes are needed, more than are left.
    Needs(u64),
}

impl<'p> Room<'p> {
    fn take(shared: &'p PoolShared, len: u64, is_ahead: bool) -> Result<Room<'p>, Short> {
        Ok(Room {
            memory: &shared.memory,
            block: shared.take_beside(len, is_ahead)?,
            used: 0,
        })
    }

    /// What is left, but for the first `skip` bytes.
    fn stretch(&self, skip: u64) -> Stretch<'_> {
        let left = self.block.len - self.used - skip;
        let at = self.block.place + self.used + skip;
        Stretch::new(&self.memory.bytes, at as usize, left as usize)
    }

    fn put<T: Message>(&mut self, item: &T) -> Result<Put, EncodeError> {
        let left = self.block.len - self.used;
        if left < 8 {
            return Ok(Put::Needs(rounded(8)));
        }
        let (len, passed) = encode(item, &mut self.stretch(8))?;
        let len = len as u64;
        if record_len(len) > left {
            return Ok(Put::Needs(record_len(len)));
        }
        let at = (self.block.place + self.used) as usize;
        self.memory.bytes.copy_in(at, &len.to_ne_bytes());
        self.used += record_len(len);
        Ok(Put::Done(passed))
    }

    /// The block, without what is left of it.
    fn finish(mut self) -> Block {
        self.block.truncate(self.used);
        self.block
    }
}

/// One item, encoded: a small one in private memory, another in the pool's.
#[inline]
fn encode_one<S: Step>(
    shared: &PoolShared,
    item: &S::In,
    index: usize,
    take: impl FnOnce(u64) -> Result<Block, Short>,
) -> Result<Filled, Unfed> {
    let is_fixed = message::fixed_size::<S::In>().is_some();
    let head = if is_fixed { 0 } else { 8 };
    let end_of = |len: usize| match is_fixed {
        true => len as u64,
        false => record_len(len as u64),
    };
    let failed = |error| unsendable(index, error);
    let mut here = [0; INLINE_INPUT];
    let mut to = &mut here[head..];
    let (len, passed) = encode(item, &mut to).map_err(failed)?;
    let end = end_of(len);
    if !is_fixed {
        here[..8].copy_from_slice(&(len as u64).to_ne_bytes());
    }
    let all = |passed: Passed| {
        if passed.is_empty() {
            Vec::new()
        } else {
            vec![passed]
        }
    };
    let ends = || if is_fixed { Vec::new() } else { vec![end] };
    if end <= INLINE_INPUT as u64 {
        return Ok(Filled {
            items: 1,
            input: Input::Small(here, end as u8),
            block: None,
            ends: ends(),
            passed: all(passed),
        });
    }
    drop(passed);
    let room = Room {
        memory: &shared.memory,
        block: take(end).map_err(|why| short(index, why))?,
        used: 0,
    };
    let at = room.block.place as usize;
    shared.memory.bytes.copy_in(at, &here[..head]);
    let (written, passed) = encode(item, &mut room.stretch(head as u64)).map_err(failed)?;
    if written != len {
        let needed = len;
        return Err(failed(EncodeError::WrongLength { written, needed }));
    }
    Ok(Filled {
        items: 1,
        input: Input::Placed(room.block.place),
        ends: ends(),
        passed: all(passed),
        block: Some(room.block),
    })
}

/// One item as a job of its own.
pub(super) fn single<S: Step>(
    shared: &Arc<PoolShared>,
    shares: &Shares,
    item: &S::In,
    group: Option<&Arc<Group>>,
) -> Result<Box<Record>, TaskError> {
    let task = task_of::<S, Encoded>()?;
    let take = |len| shared.take_patiently(len);
    let filled = encode_one::<S>(shared, item, 0, take).map_err(Unfed::error)?;
    let job = Job::new(
        0,
        1,
        sizes::<S>(),
        1,
        S::function(),
        shares.limit,
        false,
        group.cloned(),
    );
    // As much as the last one needed only if that is to be had at once.
    let likely = Output::take(1, guess::<S>(), |len| shared.take(len));
    let output = match (job.out_size, likely) {
        (None, Ok(output)) => output,
        (size, _) => Output::take(1, size.unwrap_or(FIRST_GUESS), |len| {
            shared.take_patiently(len)
        })
        .map_err(|why| short(0, why).error())?,
    };
    let spans = std::iter::once(Span { start: 0, count: 1 });
    let kept = [shares.context.clone(), None];
    Ok(Record::build(job, task, filled, spans, output, kept))
}
