//! A job as its caller holds it: what was sent, and what came of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::thread::Thread;

use super::arena::{Block, Place};
use super::context::Context;
use super::engine::{Engine, lock};
use super::error::{TaskError, What};
use super::job::{Span, Ticket};
use super::station::truncated;
use super::step::{CARRIES, NO_RESULT, record_len};
use crate::handle::Passed;
use crate::kin;
use crate::layout::INLINE;
use crate::message::{self, DecodeError, Message};
use crate::process::task::TaskName;
use crate::segment::Bytes;

/// Bytes of results of a fixed size that are copied out of shared memory at a time.
const BATCH: u64 = 16 * 1024;

/// Why a job as a whole has ended without its results.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    Closed,
    Broken(Arc<str>),
    Cancelled,
    NoMemory(String),
}

impl Ending {
    pub(super) fn error(&self, item: usize) -> TaskError {
        match self {
            Ending::Closed => TaskError::PoolClosed { item },
            Ending::Broken(why) => TaskError::PoolBroken {
                item,
                why: why.to_string(),
            },
            Ending::Cancelled => TaskError::Cancelled { item },
            Ending::NoMemory(why) => TaskError::NoMemory {
                item,
                why: why.clone(),
            },
        }
    }
}

/// The encoded items of a job.
pub(super) enum Input {
    /// In the arena, in a block of the job's.
    Placed(Place),
    /// So few bytes that a cell may hold them itself.
    Small([u8; INLINE], u8),
    /// In an array: where its handle is, and which of its items is the job's first.
    InArray(Place, u64),
}

/// A job on its way into a cell.
pub(super) struct Parcel {
    pub(super) work: Arc<Work>,
    pub(super) task: TaskName,
    /// The job's chunks; empty if there is one only.
    pub(super) spans: Vec<Span>,
    /// Where the items of each of these begin in the input, and where those of the last end.
    pub(super) starts: Vec<u64>,
    /// Bytes of the input.
    pub(super) len: u64,
    pub(super) input: Input,
    /// Bytes that a result may take, if their size is not fixed.
    pub(super) guess: u64,
    pub(super) passed: Option<Vec<Passed>>,
}

/// Results that lie together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) span: Span,
    pub(super) place: Place,
    pub(super) used: u64,
    /// Whether any of them names handles, behind which its worker looks for a wiped word.
    pub(super) carries: bool,
}

/// What is told when several jobs have all ended.
pub(super) struct Group {
    left: AtomicUsize,
    then: Mutex<Then>,
}

#[derive(Default)]
struct Then {
    ended: bool,
    waker: Option<Waker>,
    callback: Option<Box<dyn FnOnce() + Send>>,
}

impl Group {
    /// One that waits for whoever submits; who has submitted all calls [`one_ended`](Group::one_ended) too.
    pub(super) fn new() -> Arc<Group> {
        Arc::new(Group {
            left: AtomicUsize::new(1),
            then: Mutex::default(),
        })
    }

    /// There is one job more.
    pub(super) fn add(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// One of the jobs has ended; true if it was the last.
    pub(super) fn one_ended(&self) -> bool {
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        let (waker, callback) = {
            let mut then = lock(&self.then);
            then.ended = true;
            (then.waker.take(), then.callback.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(callback) = callback {
            callback();
        }
        true
    }

    /// Wakes `waker` when all have ended; false if they have.
    pub(super) fn wake(&self, waker: &Waker) -> bool {
        let mut then = lock(&self.then);
        if !then.ended {
            match &mut then.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        !then.ended
    }

    /// Calls `callback` when all have ended, or gives it back if they have.
    pub(super) fn call(
        &self,
        callback: Box<dyn FnOnce() + Send>,
    ) -> Option<Box<dyn FnOnce() + Send>> {
        let mut then = lock(&self.then);
        if then.ended {
            return Some(callback);
        }
        then.callback = Some(callback);
        None
    }
}

/// A job.
pub(super) struct Work {
    /// Index of its first item in the call.
    pub(super) first: usize,
    pub(super) items: u32,
    pub(super) in_size: Option<u64>,
    pub(super) out_size: Option<u64>,
    chunks: usize,
    context: Option<Arc<Context>>,
    /// Handle of the array that the items lie in.
    array: Option<Arc<Context>>,
    pub(super) group: Option<Arc<Group>>,
    outcome: OnceLock<Outcome>,
    inner: Mutex<Inner>,
}

/// What came of a job; changes no more.
#[derive(Default)]
struct Outcome {
    ending: Option<Ending>,
    failures: BTreeMap<u32, TaskError>,
    /// Where the results lie, all together if their size is fixed.
    output: Place,
    /// Where they lie if it is not, in the items' order.
    pieces: Vec<Piece>,
    /// What lies in the cell itself, for results that do.
    inline: Inline,
}

struct Inline([u8; INLINE]);

impl Default for Inline {
    fn default() -> Inline {
        Inline([0; INLINE])
    }
}

struct Inner {
    ticket: Option<Ticket>,
    blocks: Vec<Block>,
    /// What is known so far.
    outcome: Outcome,
    committed: u32,
    cancelled: bool,
    caller: Option<Thread>,
    /// Nobody will ask for its results.
    abandoned: bool,
    /// What handles in its items lead to: workers may decode them as often as they must.
    passed: Vec<Passed>,
}

impl Work {
    pub(super) fn new(
        first: usize,
        items: u32,
        sizes: (Option<u64>, Option<u64>),
        chunks: usize,
        [context, array]: [Option<Arc<Context>>; 2],
        group: Option<Arc<Group>>,
    ) -> Work {
        Work {
            first,
            items,
            in_size: sizes.0,
            out_size: sizes.1,
            chunks,
            context,
            array,
            group,
            outcome: OnceLock::new(),
            inner: Mutex::new(Inner {
                ticket: None,
                blocks: Vec::new(),
                outcome: Outcome::default(),
                committed: 0,
                cancelled: false,
                caller: None,
                abandoned: false,
                passed: Vec::new(),
            }),
        }
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    pub(super) fn context(&self) -> Option<Place> {
        self.context.as_ref().map(|context| context.place)
    }

    /// Whether it has ended: nothing of it will change any more.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub(super) fn ticket(&self) -> Option<Ticket> {
        lock(&self.inner).ticket
    }

    /// Memory that is given back with the job.
    pub(super) fn own(&self, block: Block) {
        lock(&self.inner).blocks.push(block);
    }

    pub(super) fn placed(
        &self,
        ticket: Ticket,
        output: Place,
        blocks: impl Iterator<Item = Block>,
    ) {
        let mut inner = lock(&self.inner);
        inner.ticket = Some(ticket);
        inner.outcome.output = output;
        inner.blocks.extend(blocks);
    }

    /// Says that so many chunks more are committed; whether these were the last.
    pub(super) fn committed(&self, chunks: u32) -> bool {
        if chunks as usize >= self.chunks {
            return true;
        }
        let mut inner = lock(&self.inner);
        inner.committed = inner.committed.saturating_add(chunks);
        inner.committed as usize >= self.chunks
    }

    /// Says that so many chunks were withdrawn; whether these were the last.
    pub(super) fn withdrawn(&self, chunks: u32) -> bool {
        lock(&self.inner).cancelled |= chunks > 0;
        self.committed(chunks)
    }

    /// An item has failed. The first reason given is the one that counts; of what is no item of this job, none.
    pub(super) fn fail(&self, item: u32, error: TaskError) {
        if item >= self.items {
            return;
        }
        lock(&self.inner)
            .outcome
            .failures
            .entry(item)
            .or_insert(error);
    }

    pub(super) fn has_failed(&self, item: u32) -> bool {
        lock(&self.inner).outcome.failures.contains_key(&item)
    }

    /// Holds what handles in its items lead to, until it has ended.
    pub(super) fn hold(&self, passed: Vec<Passed>) {
        lock(&self.inner).passed.extend(passed);
    }

    /// What was held.
    pub(super) fn held(&self) -> Vec<Passed> {
        std::mem::take(&mut lock(&self.inner).passed)
    }

    /// Tells the workers that the handles in the results are taken, or never will be.
    pub(super) fn wipe(&self, memory: impl Fn(Place) -> Option<Bytes>) {
        let pieces = self
            .outcome
            .get()
            .map_or(&[][..], |outcome| &outcome.pieces);
        for piece in pieces.iter().filter(|piece| piece.carries) {
            if let Some(bytes) = memory(piece.place) {
                wipe_records(&bytes, piece.place, piece.used);
            }
        }
    }

    /// What a dead worker had finished.
    pub(super) fn keep(&self, piece: Piece) {
        if piece.span.count > 0 {
            lock(&self.inner).outcome.pieces.push(piece);
        }
    }

    /// Takes down where the results are, and the results themselves if they lie in the cell.
    pub(super) fn harvest(&self, inline: &Bytes, pieces: impl Iterator<Item = Piece>) {
        let mut inner = lock(&self.inner);
        let outcome = &mut inner.outcome;
        if outcome.output.extent == 0 {
            inline.copy_out(outcome.output.offset as usize, &mut outcome.inline.0);
        }
        if self.out_size.is_none() {
            let pieces = pieces.filter(|piece| piece.span.count > 0);
            outcome.pieces.extend(pieces);
            outcome
                .pieces
                .sort_unstable_by_key(|piece| piece.span.start);
        }
    }

    /// Ends it. How many items have failed, and its memory if nobody will ask for the results.
    pub(super) fn settle(&self, ending: Option<Ending>) -> (u64, Option<Vec<Block>>) {
        let mut inner = lock(&self.inner);
        let mut outcome = std::mem::take(&mut inner.outcome);
        if inner.cancelled {
            outcome.ending = Some(Ending::Cancelled);
        }
        if ending.is_some() {
            outcome.ending = ending;
        }
        let failed = match outcome.ending {
            Some(_) => u64::from(self.items),
            None => outcome.failures.len() as u64,
        };
        let left_behind = inner.abandoned.then(|| std::mem::take(&mut inner.blocks));
        let caller = inner.caller.take();
        // Set under the lock: whoever was not seen waiting by then sees that it has ended. Only here.
        let _ = self.outcome.set(outcome);
        drop(inner);
        if let Some(caller) = caller {
            caller.unpark();
        }
        (failed, left_behind)
    }

    /// Unparks `caller` when it ends; false if it has.
    pub(super) fn call(&self, caller: Thread) -> bool {
        let mut inner = lock(&self.inner);
        if self.has_ended() {
            return false;
        }
        inner.caller = Some(caller);
        true
    }

    /// Its owner has read its results, or will never ask for them: gives its memory back, now or when it
    /// ends.
    pub(super) fn let_go(&self, engine: &Engine) {
        // A forked copy has no jobs, and the lock may have been held at the fork.
        if kin::forked() {
            return;
        }
        let blocks = {
            let mut inner = lock(&self.inner);
            if !self.has_ended() {
                inner.abandoned = true;
                engine.unwatched.fetch_add(1, Ordering::SeqCst);
                drop(inner);
                return engine.watch();
            }
            std::mem::take(&mut inner.blocks)
        };
        self.wipe(|place| engine.bytes(place));
        engine.give_back(blocks);
    }

    /// It was not taken in: gives its memory back.
    pub(super) fn never(&self, engine: &Engine) {
        let blocks = std::mem::take(&mut lock(&self.inner).blocks);
        engine.give_back(blocks);
    }

    /// Bytes that a result took on the average.
    pub(super) fn average(&self) -> Option<u64> {
        let outcome = self.outcome.get()?;
        let bytes: u64 = outcome.pieces.iter().map(|piece| piece.used).sum();
        (self.out_size.is_none() && self.items > 0).then(|| bytes.div_ceil(u64::from(self.items)))
    }

    /// Whether somebody is to be told, or something given back, when it has ended.
    pub(super) fn has_more_to_end(&self) -> bool {
        self.group.is_some() || self.context.is_some() || self.array.is_some()
    }

    /// The result of a job of one item.
    pub(super) fn only<R: Message>(&self, engine: &Engine) -> Result<R, TaskError> {
        match self.outcome.get() {
            Some(outcome) if outcome.is_inline() && outcome.failures.is_empty() => {
                let inline = &outcome.inline.0[..];
                let result = match self.out_size {
                    Some(size) => fixed(inline, 0, size),
                    None => record(inline, &mut 0, 0),
                };
                result.map_err(|unreadable| unreadable.error(self.first))
            }
            _ => {
                let closed = || Err(Ending::Closed.error(self.first));
                self.each(engine).pop().unwrap_or_else(closed)
            }
        }
    }

    /// The results, in order, if no item has failed; else the first error.
    pub(super) fn append_to<R: Message>(
        &self,
        engine: &Engine,
        results: &mut Vec<R>,
    ) -> Result<(), TaskError> {
        let Some(outcome) = self.outcome.get() else {
            return Err(Ending::Closed.error(self.first));
        };
        if let Some(ending) = &outcome.ending {
            return Err(ending.error(self.first));
        }
        if let Some((_, error)) = outcome.failures.first_key_value() {
            return Err(error.clone().moved(self.first));
        }
        if let Some(size) = self.out_size {
            let from = engine.bytes(outcome.output);
            let at = outcome.output.offset as usize;
            let count = self.items as usize;
            if from.is_some_and(|from| message::append_from(&from, at, count, results)) {
                return Ok(());
            }
            results.reserve(self.items as usize);
            let batch = (BATCH / size.max(1)).clamp(1, u64::from(self.items).max(1)) as u32;
            let mut bytes = Vec::new();
            for item in (0..self.items).step_by(batch as usize) {
                let count = batch.min(self.items - item);
                let place = outcome.output.after(u64::from(item) * size);
                let len = u64::from(count) * size;
                let read = outcome.read(engine, place, len, &mut bytes).and_then(|()| {
                    message::append_vec(&bytes, count as usize, results).or_else(|_| {
                        // Which item it is, says the slow way.
                        let each = (0..count).map(|item| fixed(&bytes, item, size));
                        results.append(&mut each.collect::<Result<Vec<R>, _>>()?);
                        Ok(())
                    })
                });
                let moved = self.first + item as usize;
                read.map_err(|unreadable| unreadable.error(moved))?;
            }
            return Ok(());
        }
        results.reserve(self.items as usize);
        for result in self.records(engine, outcome) {
            results.push(result?);
        }
        Ok(())
    }

    /// The results, in order, each for itself.
    pub(super) fn each<R: Message>(&self, engine: &Engine) -> Vec<Result<R, TaskError>> {
        let unended = Outcome {
            ending: Some(Ending::Closed),
            ..Outcome::default()
        };
        let outcome = self.outcome.get().unwrap_or(&unended);
        if let Some(ending) = &outcome.ending {
            let items = self.first..self.first + self.items as usize;
            return items.map(|item| Err(ending.error(item))).collect();
        }
        let Some(size) = self.out_size else {
            return self.records(engine, outcome);
        };
        let mut bytes = Vec::new();
        let read = outcome.read(
            engine,
            outcome.output,
            size * u64::from(self.items),
            &mut bytes,
        );
        (0..self.items)
            .map(|item| {
                if let Some(error) = outcome.failures.get(&item) {
                    return Err(error.clone().moved(self.first));
                }
                let read = read.clone().map_err(|unreadable| unreadable.at(item));
                read.and_then(|()| fixed(&bytes, item, size))
                    .map_err(|unreadable| unreadable.error(self.first))
            })
            .collect()
    }

    fn records<R: Message>(&self, engine: &Engine, outcome: &Outcome) -> Vec<Result<R, TaskError>> {
        let mut results = Vec::with_capacity(self.items as usize);
        let mut pieces = outcome.pieces.iter().peekable();
        let mut item = 0;
        let mut bytes = Vec::new();
        while item < self.items {
            if let Some(piece) = pieces.next_if(|piece| piece.span.start == item) {
                let read = outcome.read(engine, piece.place, piece.used, &mut bytes);
                let mut at = 0;
                let end = item.saturating_add(piece.span.count).min(self.items);
                for item in item..end {
                    let result = match &read {
                        Ok(()) => record(&bytes, &mut at, item),
                        Err(unreadable) => Err(unreadable.clone().at(item)),
                    };
                    results.push(match outcome.failures.get(&item) {
                        Some(error) => Err(error.clone().moved(self.first)),
                        None => result.map_err(|unreadable| unreadable.error(self.first)),
                    });
                }
                item = end;
            } else {
                let error = outcome.failures.get(&item).map_or_else(
                    || Unreadable::new(item, truncated(8, 0)).error(self.first),
                    |error| error.clone().moved(self.first),
                );
                results.push(Err(error));
                item += 1;
            }
        }
        results
    }
}

impl Outcome {
    /// Whether it has results, in the cell itself, as one piece.
    fn is_inline(&self) -> bool {
        let is_whole = |piece: &Piece| piece.place == self.output;
        self.ending.is_none() && self.output.extent == 0 && self.pieces.iter().all(is_whole)
    }

    /// Copies `len` bytes of results from a place.
    fn read(
        &self,
        engine: &Engine,
        place: Place,
        len: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        let missing = || Unreadable::new(0, truncated(len, 0));
        bytes.clear();
        let len_here = usize::try_from(len).map_err(|_| missing())?;
        if place.extent == 0 {
            let from = place.offset.wrapping_sub(self.output.offset);
            let from = usize::try_from(from).map_err(|_| missing())?;
            let part = self
                .inline
                .0
                .get(from..)
                .and_then(|part| part.get(..len_here));
            bytes.extend_from_slice(part.ok_or_else(missing)?);
        } else {
            let from = engine.bytes(place).ok_or_else(missing)?;
            let inside = place.offset.checked_add(len);
            inside
                .filter(|end| *end <= from.len() as u64)
                .ok_or_else(missing)?;
            from.append_to(place.offset as usize, len_here, bytes);
        }
        Ok(())
    }
}

/// A result whose bytes are wrong.
#[derive(Debug, Clone)]
struct Unreadable {
    item: u32,
    error: DecodeError,
}

impl Unreadable {
    fn new(item: u32, error: DecodeError) -> Unreadable {
        Unreadable { item, error }
    }

    fn at(self, item: u32) -> Unreadable {
        Unreadable { item, ..self }
    }

    fn error(self, first: usize) -> TaskError {
        TaskError::Decode {
            item: first + self.item as usize,
            pid: None,
            name: None,
            what: What::Result,
            error: self.error,
        }
    }
}

fn fixed<R: Message>(bytes: &[u8], item: u32, size: u64) -> Result<R, Unreadable> {
    let at = item as usize * size as usize;
    let missing = || Unreadable::new(item, truncated(size, 0));
    let bytes = bytes.get(at..at + size as usize).ok_or_else(missing)?;
    message::decode(bytes).map_err(|error| Unreadable::new(item, error))
}

fn record<R: Message>(bytes: &[u8], at: &mut usize, item: u32) -> Result<R, Unreadable> {
    let missing = |needed: u64| Unreadable::new(item, truncated(needed, 0));
    let rest = bytes.get(*at..).ok_or_else(|| missing(8))?;
    let (head, rest) = rest.split_first_chunk().ok_or_else(|| missing(8))?;
    let head = u64::from_ne_bytes(*head);
    if head == NO_RESULT {
        *at += 8;
        return Err(missing(0));
    }
    let len = head & !CARRIES;
    let body = usize::try_from(len).ok().and_then(|len| rest.get(..len));
    let body = body.ok_or_else(|| missing(len))?;
    *at += record_len(head) as usize;
    message::decode(body).map_err(|error| Unreadable::new(item, error))
}

/// Bytes that the first `count` records of a chunk take: those that a dead worker had finished.
pub(super) fn records_len(bytes: &Bytes, place: Place, room: u64, count: u32) -> Option<u64> {
    let mut used = 0;
    for _ in 0..count {
        if used + 8 > room {
            return None;
        }
        let at = place.offset.checked_add(used)?;
        let end = at.checked_add(8)?;
        if end > bytes.len() as u64 {
            return None;
        }
        let mut word = [0; 8];
        bytes.copy_out(at as usize, &mut word);
        let len = u64::from_ne_bytes(word);
        used = if len == NO_RESULT {
            used + 8
        } else if len & !CARRIES <= room {
            used + record_len(len)
        } else {
            return None;
        };
    }
    (used <= room).then_some(used)
}

/// Wipes the word behind each record that names handles.
fn wipe_records(bytes: &Bytes, place: Place, used: u64) {
    let mut at = place.offset;
    let Some(end) = at
        .checked_add(used)
        .filter(|end| *end <= bytes.len() as u64)
    else {
        return;
    };
    while end - at >= 8 {
        let mut head = [0; 8];
        bytes.copy_out(at as usize, &mut head);
        let head = u64::from_ne_bytes(head);
        let len = match head {
            NO_RESULT => 8,
            head if head & !CARRIES <= used => record_len(head),
            _ => return,
        };
        if len > end - at {
            return;
        }
        at += len;
        if head != NO_RESULT && head & CARRIES != 0 {
            bytes.copy_in(at as usize - 8, &[0; 8]);
        }
    }
}
