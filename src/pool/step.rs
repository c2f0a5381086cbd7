//! What is done with each item, and the loop over the items of a chunk that is compiled for it.
//!
//! Items and results of a fixed size lie back to back. All others are *records*: a word with the number
//! of bytes, then those, up to a multiple of eight.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::arguments::Arguments;
use super::error::{Failure, What};
use super::job::Naming;
use super::station::{Station, Stretch};
use crate::handle::{self, Carriage, Over, Passed, Transport, Travelling};
use crate::message::{self, Count, EncodeError, Message, Sink};
use crate::process::task::Body;
use crate::process::{Function, caught, task};
use crate::sync::{AtomicU64, Ordering};

/// Stands where a record's length would, for an item that has no result.
pub(super) const NO_RESULT: u64 = u64::MAX;

/// Set in the length of a result that names handles. A word stands behind it that no other result has: its worker
/// holds what the handles lead to until the pool has wiped it.
pub(super) const CARRIES: u64 = 1 << 62;

/// Bytes of the record of a result whose length word this is.
pub(super) fn record_len(head: u64) -> u64 {
    let mark = if head & CARRIES != 0 { 8 } else { 0 };
    8 + (head & !CARRIES).next_multiple_of(8) + mark
}

/// A word for a result that names handles.
fn mark() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Never zero, and in no two processes the same by chance.
    let own = u64::from(std::process::id()) << 32;
    own | NEXT.fetch_add(1, Ordering::Relaxed) & u64::from(u32::MAX)
}

/// What is done with each item.
pub(super) trait Step: 'static {
    type Context: Message;
    type In: Message;
    type Out: Message;

    fn step(context: &Self::Context, item: Self::In) -> Self::Out;
}

/// A function of one argument.
pub(super) struct Each<F, A, R>(PhantomData<(F, A, R)>);

impl<F, A, R> Step for Each<F, A, R>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Message,
    R: Message,
{
    type Context = ();
    type In = A;
    type Out = R;

    #[inline(always)]
    fn step(_: &(), item: A) -> R {
        task::function::<F>()(item)
    }
}

/// A function of a tuple of arguments.
pub(super) struct Spread<F, A>(PhantomData<fn(A) -> F>);

impl<F, A> Step for Spread<F, A>
where
    F: Function<A, Output: Message>,
    A: Message,
{
    type Context = ();
    type In = A;
    type Out = F::Output;

    #[inline(always)]
    fn step(_: &(), item: A) -> F::Output {
        task::function::<F>().call(item)
    }
}

/// A function of a context and one argument.
pub(super) struct Within<F, C, A, R>(PhantomData<(F, C, A, R)>);

impl<F, C, A, R> Step for Within<F, C, A, R>
where
    F: Fn(&C, A) -> R + Copy + Send + Sync + 'static,
    C: Message,
    A: Message,
    R: Message,
{
    type Context = C;
    type In = A;
    type Out = R;

    #[inline(always)]
    fn step(context: &C, item: A) -> R {
        task::function::<F>()(context, item)
    }
}

/// The loop over a chunk whose arguments come from `G`.
pub(super) struct Loop<S, G>(PhantomData<fn() -> (S, G)>);

impl<S: Step, G: Arguments<S::In>> Body for Loop<S, G> {
    type Port = Station;

    fn run(station: &mut Station) {
        let context = station.context::<S::Context>();
        let (context, arguments) =
            match context.and_then(|context| Ok((context, G::open(station)?))) {
                Ok(both) => both,
                Err(failure) => return fail_all(station, &failure),
            };
        let mut walk = Walk {
            context,
            arguments,
            next: station.current.span.start,
            turns: station.turns(),
            used: 0,
            out_size: message::fixed_size::<S::Out>().map(|size| size as u64),
            passed: Vec::new(),
        };
        let end = station.items().end;
        while walk.next < end {
            let ended = catch_unwind(AssertUnwindSafe(|| walk.go::<S>(station, end)));
            if let Err(payload) = ended {
                let item = walk.next;
                let failure = panicked(payload);
                walk.without_result(station, item, failure);
                walk.next += 1;
            }
        }
        walk.hold(station);
        station.begun(walk.naming(end));
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

impl<C: Message, G> Walk<C, G> {
    #[inline(always)]
    fn naming(&self, item: u32) -> Naming {
        let turn = self.turns.wrapping_add(item);
        Naming { item, turn }
    }

    /// Runs items until the end. A panic leaves `next` at the item that panicked.
    fn go<S: Step<Context = C>>(&mut self, station: &mut Station, end: u32)
    where
        G: Arguments<S::In>,
    {
        if let Some(size) = self.out_size {
            return self.go_fixed::<S>(station, end, size);
        }
        while self.next < end {
            let item = self.next;
            // Before anything of the item's own runs, its decoding included.
            station.begin(self.naming(item));
            let done = self.arguments.take(station, item).and_then(|argument| {
                let result = S::step(&self.context, argument);
                self.put(station, &result)
            });
            if let Err(failure) = done {
                self.without_result(station, item, failure);
            }
            self.next += 1;
        }
    }

    /// Results of a known size: nothing is looked up between two of them.
    fn go_fixed<S: Step<Context = C>>(&mut self, station: &mut Station, end: u32, size: u64)
    where
        G: Arguments<S::In>,
    {
        let current = station.current;
        let needed = u64::from(current.span.count) * size;
        let size = size as usize;
        let Some((output, base)) = station
            .bytes(current.output, needed)
            .filter(|_| needed <= current.room)
        else {
            return self.rest_fails(station, end, &no_room());
        };
        let row = station.row();
        let place = |item: u32| {
            let before = (item - current.span.start) as usize * size;
            Stretch::new(&output, base + before, needed as usize - before)
        };
        let mut item = self.next;
        let mut to = place(item);
        while item < end {
            // For a panic to find. Never loaded here, for that would wait for the store.
            self.next = item;
            // As in `Station::begin`.
            row.item.store(self.naming(item).word(), Ordering::Release);
            let done = self.arguments.take(station, item).and_then(|argument| {
                let result = S::step(&self.context, argument);
                message::encode(&result, &mut to)
                    .map(drop)
                    .map_err(unwritable)
            });
            item += 1;
            if let Err(failure) = done {
                station.fail(item - 1, failure);
                to = place(item);
            }
        }
        self.next = end;
    }

    /// Writes a result, whose size is not fixed, behind the others.
    fn put<T: Message>(&mut self, station: &mut Station, result: &T) -> Result<(), Failure> {
        loop {
            let Some(room) = station.current.room.checked_sub(self.used + 8) else {
                let (needed, _) = encode(result, &mut Count).map_err(unwritable)?;
                self.grow(station, record_len(needed as u64))?;
                continue;
            };
            let (output, base) = self.output(station, self.used, room + 8)?;
            let mut to = Stretch::new(&output, base + 8, room as usize);
            let (needed, passed) = encode(result, &mut to).map_err(unwritable)?;
            let carries = !passed.is_empty();
            let head = needed as u64 | if carries { CARRIES } else { 0 };
            // What lies in the cell is copied out and the cell used again, before the handles are taken.
            let may_stay = !(carries && station.current.output.extent == 0);
            if may_stay && record_len(head) <= room + 8 {
                output.copy_in(base, &head.to_ne_bytes());
                self.used += record_len(head);
                if carries {
                    let mark = mark();
                    let at = base + record_len(head) as usize - 8;
                    output.copy_in(at, &mark.to_ne_bytes());
                    self.passed.push((self.used - 8, mark, passed));
                }
                let used = self.used_word();
                station.chunk().used.store(used, Ordering::Release);
                return Ok(());
            }
            drop(passed);
            self.grow(station, record_len(head))?;
        }
    }

    /// What is said of the output: how much there is, and whether anything in it names handles.
    fn used_word(&self) -> u64 {
        self.used | if self.passed.is_empty() { 0 } else { CARRIES }
    }

    /// The chunk's results stay where they are: what their handles lead to is held until the pool has them.
    fn hold(&mut self, station: &mut Station) {
        let place = station.current.output;
        for (at, mark, passed) in std::mem::take(&mut self.passed) {
            let Ok((output, base)) = self.output(station, at, 8) else {
                continue;
            };
            debug_assert_eq!(base as u64, place.offset + at);
            passed.sent(|| Carriage {
                segment: Travelling(output.segment().clone()),
                at: base as u64,
                over: Over::Wiped(mark),
                readers: (0, 0),
                hands: 0,
            });
        }
    }

    /// Moves the chunk's results to where so many bytes more fit.
    fn grow(&mut self, station: &mut Station, more: u64) -> Result<(), Failure> {
        let span = station.current.span;
        let done = u64::from(self.next - span.start);
        // As much for each of the others as this one and those before it took.
        let others = u64::from(span.count) - done - 1;
        let guess = others.saturating_mul((self.used + more) / (done + 1));
        let bytes = (self.used + more).saturating_add(guess.min(self.used.max(64 * 1024)));
        let Some(place) = station.room(bytes) else {
            let why = format!("{bytes} bytes for results");
            return Err(Failure::NoMemory(why));
        };
        let current = station.current;
        let (from, from_at) = self.output(station, 0, self.used)?;
        station.current.output = place;
        station.current.room = bytes;
        let moved = self
            .output(station, 0, bytes)
            .map(|(to, to_at)| copy(&from, from_at, &to, to_at, self.used as usize));
        if moved.is_err() {
            station.current = current;
            return moved;
        }
        let chunk = station.chunk();
        // From here on a death finds the results in the new place, from before in the old one.
        chunk.room.store(bytes, Ordering::Relaxed);
        chunk.output.store(place.word(), Ordering::Release);
        Ok(())
    }

    fn output(
        &self,
        station: &mut Station,
        at: u64,
        len: u64,
    ) -> Result<(crate::segment::Bytes, usize), Failure> {
        let current = station.current;
        let inside = at.saturating_add(len) <= current.room;
        station
            .bytes(current.output.after(at), len)
            .filter(|_| inside)
            .ok_or_else(no_room)
    }

    /// Puts a failure in the place of a result.
    fn without_result(&mut self, station: &mut Station, item: u32, failure: Failure) {
        station.fail(item, failure);
        if self.out_size.is_some() {
            return;
        }
        if station.current.room < self.used + 8 && self.grow(station, 8).is_err() {
            // Records that are missing at the end are those of failed items: so all the others fail too.
            for item in self.next + 1..station.items().end {
                station.fail(item, no_room());
            }
            self.next = station.items().end - 1;
            return;
        }
        if let Ok((output, base)) = self.output(station, self.used, 8) {
            output.copy_in(base, &NO_RESULT.to_ne_bytes());
            self.used += 8;
            let used = self.used_word();
            station.chunk().used.store(used, Ordering::Release);
        }
    }

    fn rest_fails(&mut self, station: &mut Station, end: u32, failure: &Failure) {
        while self.next < end {
            station.fail(self.next, failure.clone());
            self.next += 1;
        }
    }
}

fn no_room() -> Failure {
    Failure::NoMemory("there is no room for the results".to_owned())
}

fn unwritable(error: EncodeError) -> Failure {
    Failure::Encode(What::Result, error)
}

fn fail_all(station: &mut Station, failure: &Failure) {
    for item in station.items() {
        station.fail(item, failure.clone());
    }
}

/// The bytes of a value for shared memory, and the segments named in it.
pub(super) fn encode<T: Message, S: Sink>(
    value: &T,
    sink: &mut S,
) -> Result<(usize, Passed), EncodeError> {
    let (len, passed) = handle::collect(Transport::Ring, || message::encode(value, sink));
    len.map(|len| (len, passed))
}

fn copy(
    from: &crate::segment::Bytes,
    from_at: usize,
    to: &crate::segment::Bytes,
    to_at: usize,
    len: usize,
) {
    let mut between = [0; 4096];
    let mut done = 0;
    while done < len {
        let step = (len - done).min(between.len());
        from.copy_out(from_at + done, &mut between[..step]);
        to.copy_in(to_at + done, &between[..step]);
        done += step;
    }
}

/// A call of the initializer.
pub(super) struct Prepare<F, A>(PhantomData<fn(A) -> F>);

impl<F, A> Body for Prepare<F, A>
where
    F: Function<A>,
    A: Message,
{
    type Port = Station;

    fn run(station: &mut Station) {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let arguments = message::decode::<A>(&station.initial)
                .map_err(|error| Failure::Decode(What::Arguments, error))?;
            task::function::<F>().call(arguments);
            Ok(())
        }));
        station.failed = match ended {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(payload) => Some(panicked(payload)),
        };
    }
}
