//! The loop over the items of a chunk, compiled for each function.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::arguments::Arguments;
use super::state::WorkerState;
use crate::chunk::{Naming, Span};
use crate::handle::{self, Carriage, Over, Passed, Transport, Travelling};
use crate::message::{self, Count, EncodeError, Message, Sink};
use crate::pool::error::{Failure, Payload};
use crate::pool::record::{self, CARRIES, NO_RESULT, Stretch, record_len};
use crate::pool::step::Step;
use crate::process::task::Body;
use crate::process::{Function, caught, keep_noting, task};
use crate::sync::Ordering;
use crate::trace;

/// The loop over a chunk whose arguments come from `G`.
pub(in crate::pool) struct ChunkRunner<S, G>(PhantomData<fn() -> (S, G)>);

impl<S: Step, G: Arguments<S::In>> Body for ChunkRunner<S, G> {
    type Port = WorkerState;

    fn run(worker: &mut WorkerState) {
        let span = worker.current.span;
        let cell = worker.wire.cell(worker.current.cell);
        let place = cell.map_or(0, |cell| cell.context.load(Ordering::Relaxed));
        let context = worker
            .values
            .context::<S::Context>(&worker.wire.bytes, place);
        let (context, arguments) = match context.and_then(|context| Ok((context, G::open(worker)?)))
        {
            Ok(both) => both,
            Err(failure) => return worker.fail(span, failure),
        };
        let mut walk = Walk {
            context,
            arguments,
            next: span.start,
            turns: worker
                .finder
                .turn
                .get()
                .wrapping_add(1)
                .wrapping_sub(span.start),
            used: 0,
            out_size: message::fixed_size::<S::Out>().map(|size| size as u64),
            passed: Vec::new(),
        };
        let end = span.end();
        while walk.next < end {
            let go = || trace::task(S::function(), || walk.go::<S>(worker, end));
            let ended = catch_unwind(AssertUnwindSafe(go));
            if let Err(payload) = ended {
                let item = walk.next;
                let failure = panicked(payload);
                walk.without_result(worker, item, failure);
                walk.next += 1;
            }
        }
        if !walk.passed.is_empty() {
            walk.hold(worker);
        }
        let turn = naming(walk.turns, walk.next).turn.wrapping_sub(1);
        worker.finder.turn.set(turn);
        walk.arguments.close(worker);
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> Failure {
    let panic = caught(payload);
    Failure::Panicked {
        message: panic.message,
        location: panic.location,
        backtrace: panic.backtrace,
    }
}

/// Where the loop is.
struct Walk<C, G> {
    context: Rc<C>,
    arguments: G,
    /// The item being run, or to be run next.
    next: u32,
    /// Turn of an item less its index.
    turns: u32,
    /// Bytes of output written.
    used: u64,
    out_size: Option<u64>,
    /// What results name, with the words that stand behind those: where in the output, and which.
    passed: Vec<(u64, u64, Passed)>,
}

/// Where a loop is, for those who go on when it panics.
struct At<'a> {
    item: u32,
    next: &'a mut u32,
}

impl Drop for At<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.next = self.item;
    }
}

#[inline(always)]
fn naming(turns: u32, item: u32) -> Naming {
    let turn = turns.wrapping_add(item);
    Naming { item, turn }
}

fn one(item: u32) -> Span {
    Span {
        start: item,
        count: 1,
    }
}

impl<C: Message, G> Walk<C, G> {
    /// Runs items until the end. A panic leaves `next` at the item that panicked.
    fn go<S: Step<Context = C>>(&mut self, worker: &mut WorkerState, end: u32)
    where
        G: Arguments<S::In>,
    {
        if let Some(size) = self.out_size {
            return self.go_fixed::<S>(worker, end, size);
        }
        while self.next < end {
            let item = self.next;
            if worker.is_stopped(item) {
                self.next = end;
                return;
            }
            // Before anything of the item's own runs, its decoding included.
            worker.begin(naming(self.turns, item));
            let argument = match self.arguments.run(item, item + 1) {
                Ok(mut one) => one.next().unwrap_or_else(|| Err(no_room())),
                Err(failure) => Err(failure),
            };
            let done = argument.and_then(|argument| {
                let result = S::step(&self.context, argument);
                self.put(worker, &result)?;
                Ok(S::is_last(&result))
            });
            match done {
                Ok(false) => {}
                Ok(true) => worker.stop_behind(item),
                Err(failure) => self.without_result(worker, item, failure),
            }
            self.next += 1;
        }
    }

    /// Results of a known size: nothing is looked up between two of them.
    fn go_fixed<S: Step<Context = C>>(&mut self, worker: &mut WorkerState, end: u32, size: u64)
    where
        G: Arguments<S::In>,
    {
        let current = worker.current;
        let needed = u64::from(current.span.count) * size;
        let wire = Rc::clone(&worker.wire);
        let bytes = &wire.bytes;
        let size = size as usize;
        let base = record::inside(bytes, current.output, needed);
        let Some(base) = base.filter(|_| needed <= current.room) else {
            worker.fail(current.span.from(self.next), no_room());
            self.next = end;
            return;
        };
        let Some(row) = wire.rows.get(usize::from(worker.finder.seat)) else {
            return;
        };
        let cell = wire.cell(current.cell).filter(|_| current.fails_fast);
        let place = |item: u32| {
            let before = (item - current.span.start) as usize * size;
            Stretch::new(bytes, base + before, needed as usize - before)
        };
        let is_stopped = |item: u32| {
            cell.is_some_and(|cell| u64::from(item) > cell.stop.load(Ordering::Relaxed))
        };
        let turns = self.turns;
        // In a register as long as no panic looks for it.
        let mut at = At {
            item: self.next,
            next: &mut self.next,
        };
        while at.item < end && !is_stopped(at.item) {
            let mut run = match self.arguments.run(at.item, end) {
                Ok(run) => run,
                Err(failure) => {
                    worker.begin(naming(turns, at.item));
                    worker.fail(one(at.item), failure);
                    at.item += 1;
                    continue;
                }
            };
            let mut to = place(at.item);
            let until = at.item + run.len() as u32;
            while at.item < until && !is_stopped(at.item) {
                // As in `WorkerState::begin`.
                row.item
                    .store(naming(turns, at.item).word(), Ordering::Release);
                let Some(argument) = run.next() else { break };
                let done = argument.and_then(|argument| {
                    let result = S::step(&self.context, argument);
                    message::encode(&result, &mut to).map_err(unwritable)?;
                    Ok(S::is_last(&result))
                });
                at.item += 1;
                match done {
                    Ok(false) => {}
                    Ok(true) => worker.stop_behind(at.item - 1),
                    Err(failure) => {
                        worker.fail(one(at.item - 1), failure);
                        to = place(at.item);
                    }
                }
            }
        }
        at.item = end;
    }

    /// Writes a result, whose size is not fixed, behind the others.
    fn put<T: Message>(&mut self, worker: &mut WorkerState, result: &T) -> Result<(), Failure> {
        loop {
            let Some(room) = worker.current.room.checked_sub(self.used + 8) else {
                let (needed, _) = encode(result, &mut Count).map_err(unwritable)?;
                self.grow(worker, record_len(needed as u64))?;
                continue;
            };
            let base = self.output(worker, self.used, room + 8)?;
            let output = &worker.wire.bytes;
            let mut to = Stretch::new(output, base + 8, room as usize);
            let (needed, passed) = encode(result, &mut to).map_err(unwritable)?;
            let carries = !passed.is_empty();
            let head = needed as u64 | if carries { CARRIES } else { 0 };
            // What lies in the cell is copied out and the cell used again, before the handles are taken.
            let may_stay = !(carries && self.is_in_cell(worker));
            if may_stay && record_len(head) <= room + 8 {
                output.copy_in(base, &head.to_ne_bytes());
                self.used += record_len(head);
                if carries {
                    let mark = record::mark();
                    let at = base + record_len(head) as usize - 8;
                    output.copy_in(at, &mark.to_ne_bytes());
                    self.passed.push((at as u64, mark, passed));
                }
                self.say_used(worker);
                return Ok(());
            }
            drop(passed);
            self.grow(worker, record_len(head))?;
        }
    }

    fn is_in_cell(&self, worker: &WorkerState) -> bool {
        worker.current.output < worker.wire.arena()
    }

    /// Says how much output there is, and whether anything in it names handles.
    fn say_used(&self, worker: &WorkerState) {
        let carries = if self.passed.is_empty() { 0 } else { CARRIES };
        if let Some(chunk) = worker.chunk() {
            // Release: who sees so many bytes sees what stands in them.
            chunk.used.store(self.used | carries, Ordering::Release);
        }
    }

    /// The chunk's results stay where they are: what their handles lead to is held until the pool has them.
    fn hold(&mut self, worker: &mut WorkerState) {
        for (at, mark, passed) in std::mem::take(&mut self.passed) {
            passed.sent(|| Carriage {
                segment: Travelling(worker.wire.segment().clone()),
                at,
                over: Over::Wiped(mark),
                readers: (0, 0),
                hands: 0,
            });
        }
    }

    /// Moves the chunk's results to where so many bytes more fit.
    fn grow(&mut self, worker: &mut WorkerState, more: u64) -> Result<(), Failure> {
        let span = worker.current.span;
        let done = u64::from(self.next - span.start);
        // As much for each of the others as this one and those before it took.
        let others = u64::from(span.count) - done - 1;
        let guess = others.saturating_mul((self.used + more) / (done + 1));
        let bytes = (self.used + more).saturating_add(guess.min(self.used.max(64 * 1024)));
        let Some(place) = worker.more_room(bytes) else {
            let why = format!("{bytes} bytes for results");
            return Err(Failure::NoMemory(why));
        };
        let from = self.output(worker, 0, self.used)?;
        let to = record::inside(&worker.wire.bytes, place, bytes).ok_or_else(no_room)?;
        record::copy(&worker.wire.bytes, from, to, self.used as usize);
        for (at, _, _) in &mut self.passed {
            *at = *at - from as u64 + place;
        }
        worker.current.output = place;
        worker.current.room = bytes;
        if let Some(chunk) = worker.chunk() {
            // From here on a death finds the results in the new place, from before in the old one.
            chunk.room.store(bytes, Ordering::Relaxed);
            chunk.output.store(place, Ordering::Release);
        }
        Ok(())
    }

    /// Where in the memory a part of the output begins.
    fn output(&self, worker: &WorkerState, at: u64, len: u64) -> Result<usize, Failure> {
        let current = worker.current;
        let is_inside = at.saturating_add(len) <= current.room;
        record::inside(&worker.wire.bytes, current.output.saturating_add(at), len)
            .filter(|_| is_inside)
            .ok_or_else(no_room)
    }

    /// Puts a failure in the place of a result.
    fn without_result(&mut self, worker: &mut WorkerState, item: u32, failure: Failure) {
        worker.fail(one(item), failure);
        if self.out_size.is_some() {
            return;
        }
        if worker.current.room < self.used + 8 && self.grow(worker, 8).is_err() {
            // Records that are missing at the end are those of failed items: so all the others fail too.
            worker.fail(worker.current.span.from(item + 1), no_room());
            self.next = worker.current.span.end() - 1;
            return;
        }
        if let Ok(base) = self.output(worker, self.used, 8) {
            worker.wire.bytes.copy_in(base, &NO_RESULT.to_ne_bytes());
            self.used += 8;
            self.say_used(worker);
        }
    }
}

fn no_room() -> Failure {
    Failure::NoMemory("there is no room for the results".to_owned())
}

fn unwritable(error: EncodeError) -> Failure {
    Failure::Encode(Payload::Result, error)
}

/// The bytes of a value for shared memory, and the segments named in it.
fn encode<T: Message, S: Sink>(value: &T, sink: &mut S) -> Result<(usize, Passed), EncodeError> {
    let (len, passed) = handle::collect(Transport::Ring, || message::encode(value, sink));
    len.map(|len| (len, passed))
}

/// A call of the initializer.
pub(in crate::pool) struct Prepare<F, A>(PhantomData<fn(A) -> F>);

impl<F, A> Body for Prepare<F, A>
where
    F: Function<A>,
    A: Message,
{
    type Port = WorkerState;

    fn run(worker: &mut WorkerState) {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let arguments = message::decode::<A>(&worker.initial)
                .map_err(|error| Failure::Decode(Payload::Arguments, error))?;
            task::function::<F>().call(arguments);
            // It may have set a hook of its own.
            keep_noting();
            Ok(())
        }));
        worker.failed = match ended {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(payload) => Some(panicked(payload)),
        };
    }
}
