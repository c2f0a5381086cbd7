//! The sending end: the one writer of one lane.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::SendError;
use crate::handle::{self, Passed, Time, Transport};
use crate::kin;
use crate::message::{self, EncodeError, Message, Sink};
use crate::ring::Writer;
use crate::roster::Owner;
use crate::signal::{Patience, Vigil};
use crate::sync::{AtomicU64, Ordering};

use super::Waiting;
use super::blocks;
use super::error::{QueueError, Refusal};
use super::hub::{Hub, Lane, Side};
use super::plan::{CARRIES, LONG};
use super::stats::QueueStats;
use super::travel::Whereabouts;
use super::words::Fill;

/// Bytes of messages that [`Sender::send_many`] publishes at once.
const BATCH_BYTES: usize = 4096;
/// While it spins, a sender looks at the true head only this often: the line is the receivers'.
const HEAD_EVERY: u32 = 32;

/// The sending end of a [`Queue`](crate::Queue).
///
/// Each sender has its own lane, so its messages are received in the order it sent them, and up to
/// `capacity` of them may be in flight whatever other senders do. [`try_clone`](Sender::try_clone) makes another one, for
/// another thread or, inside a message or an argument, for another process.
///
/// # If a process dies
///
/// What it has sent is received. A send that had not returned has sent its value or has not. Its lane
/// serves the next sender at once.
pub struct Sender<T> {
    writer: Writer,
    lane: Lane,
    hub: Hub,
    number: u32,
    /// The block that the next message will be in, if it is free.
    block: u32,
    patience: Patience,
    vigil: Vigil,
    /// Set when it was moved in a message, which was sent or not.
    away: OnceLock<Whereabouts>,
    /// Whether there may be memory in the annexes of the lane.
    has_annexes: bool,
    _values: PhantomData<fn(T)>,
}

/// Why a value's bytes are not in their place.
enum Unwritten {
    TooLarge(usize),
    Encode(EncodeError),
}

impl Unwritten {
    #[cold]
    fn of<T>(self, value: T, limit: usize) -> SendError<T> {
        match self {
            Unwritten::TooLarge(needed) => SendError::TooLarge {
                value,
                needed,
                limit,
            },
            Unwritten::Encode(error) => SendError::Encode { value, error },
        }
    }
}

impl<T: Message> Sender<T> {
    /// Attaches a new sender to a lane of its own.
    pub(super) fn attach(hub: Hub) -> Result<Sender<T>, QueueError> {
        let number = hub.take_lane(Owner::Held(hub.me()))?;
        Sender::in_lane(hub, number)
    }

    /// The sender of a lane that this process owns already.
    pub(super) fn in_lane(hub: Hub, number: u32) -> Result<Sender<T>, QueueError> {
        let lane = hub.lane(number)?;
        hub.populate_lane(number);
        let writer = Writer::attach(hub.plan.geometry(), &lane.header, &lane.slots);
        blocks::adopt(&lane, writer.position());
        let mut sender = Sender {
            writer,
            lane,
            hub,
            number,
            block: 0,
            patience: Patience::new(),
            vigil: Vigil::new(),
            away: OnceLock::new(),
            has_annexes: true,
            _values: PhantomData,
        };
        // Who had the lane before may have been killed.
        sender.empty_annexes();
        sender.has_annexes = false;
        Ok(sender)
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// My lane, and whether I am here.
    pub(super) fn place(&self) -> (u32, &Whereabouts) {
        (self.number, self.away.get_or_init(Whereabouts::default))
    }

    /// Another sender of the same queue, with a lane of its own.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooManySenders`] when the queue has as many as it was built for, or no memory for
    /// another lane.
    pub fn try_clone(&self) -> Result<Sender<T>, QueueError> {
        self.hub.check_fork()?;
        Sender::attach(self.hub.clone())
    }

    /// Sends a value; waits while this sender's lane is full.
    ///
    /// # Blocking
    ///
    /// Until a receiver has made room, or none is left.
    ///
    /// # Errors
    ///
    /// The value comes back in [`SendError::Closed`] when no receiver is left, [`SendError::TooLarge`] or
    /// [`SendError::Encode`] when it cannot be a message of this queue.
    ///
    /// # Panics
    ///
    /// If the value's own `Serialize` does: nothing is sent.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::Queue;
    /// let (mut tx, mut rx) = Queue::new(16)?;
    /// tx.send("hello".to_string())?;
    /// assert_eq!(rx.recv()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "put")]
    #[inline]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.send_within(value, || Waiting::Until(None))
    }

    /// Sends a value if there is room now.
    ///
    /// To call it again and again until there is room takes the receivers' attention away from receiving;
    /// [`send`](Sender::send) waits without that.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when there is no room, else as [`send`](Sender::send).
    #[doc(alias = "put_nowait")]
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), SendError<T>> {
        let time = Time::AtMost(Duration::ZERO);
        message::in_time::<T, _>(time, || self.send_within(value, || Waiting::Not))
    }

    /// Sends a value; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`] when there was no room in that time, else as [`send`](Sender::send).
    #[inline]
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        message::in_time::<T, _>(Time::AtMost(timeout), || {
            self.send_within(value, || Waiting::at_most(timeout))
        })
    }

    /// Sends all values in order and returns how many there were; waits while the lane is full.
    ///
    /// As many as the iterator's size hint promises and as there is room for are published at once
    /// (a `Vec`'s in batches of up to 4 KiB; each alone if it promises none), which is several
    /// times faster than to send them one by one.
    ///
    /// # Errors
    ///
    /// As [`send`](Sender::send), with the value that could not be sent. All before it are sent; those
    /// after it are still in the iterator, if it was passed by reference.
    ///
    /// # Panics
    ///
    /// If the iterator, or a value's `Serialize`, does: all values before are sent.
    pub fn send_many(
        &mut self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<usize, SendError<T>> {
        let mut values = values.into_iter();
        let mut sent = 0;
        while let Some(first) = values.next() {
            if let Err(refusal) = self.ready(|| Waiting::Until(None)) {
                return Err(refusal.of(first));
            }
            if self.hub.is_in_place() {
                self.write_block(first)?;
                sent += 1;
            } else {
                sent += self.write_batch(first, &mut values)?;
            }
        }
        Ok(sent)
    }

    /// Whether every further send fails with `Closed`: nobody is left to receive.
    ///
    /// False may be outdated at once; true stays true, but for a queue with a name, which another program may open
    /// again.
    pub fn is_closed(&self) -> bool {
        if !self.hub.is_open() {
            return true;
        }
        // A forked copy concludes nothing: that would change what its parent sees.
        if kin::forked() {
            return false;
        }
        self.hub
            .nobody(Side::Receivers)
            .is_some_and(|nobody| self.hub.conclude(nobody))
    }

    /// Messages this sender may have in flight.
    pub fn capacity(&self) -> usize {
        self.hub.plan.in_flight() as usize
    }

    /// Messages that are sent and not received yet, of all senders. Outdated at once.
    pub fn len(&self) -> usize {
        self.hub.len()
    }

    /// Whether all that was sent, by anyone, has been received. Outdated at once.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What has gone through the queue, of all senders.
    pub fn stats(&self) -> QueueStats {
        self.hub.stats()
    }

    #[inline]
    fn send_within(
        &mut self,
        value: T,
        waiting: impl FnOnce() -> Waiting,
    ) -> Result<(), SendError<T>> {
        if let Err(refusal) = self.ready(waiting) {
            return Err(refusal.of(value));
        }
        if self.hub.is_in_place() {
            return self.write_block(value);
        }
        let payload = self.writer.payload(&self.lane.slots, 0);
        match write(payload, self.hub.plan.message_size, &value) {
            Ok(passed) => {
                self.publish(1);
                if let Some(passed) = passed {
                    self.hold(passed, self.writer.position().wrapping_sub(1), None);
                }
                Ok(())
            }
            Err(unwritten) => self.send_otherwise(value, unwritten),
        }
    }

    /// Sends a value that does not fit in its slot or block, if it may be that long.
    #[cold]
    fn send_otherwise(&mut self, value: T, unwritten: Unwritten) -> Result<(), SendError<T>> {
        let limit = self.hub.plan.message_limit;
        match unwritten {
            Unwritten::TooLarge(needed) if needed <= limit => self.send_long(value),
            unwritten => Err(unwritten.of(value, limit)),
        }
    }

    /// Sends a value through the annex of the next slot or block.
    ///
    /// Killed in here, the sender has sent nothing, and what it wrote is given back by the next who has its lane.
    fn send_long(&mut self, value: T) -> Result<(), SendError<T>> {
        let plan = self.hub.plan;
        let mut bytes = Vec::new();
        let (written, passed) = encode(&value, &mut bytes);
        match written {
            Ok(needed) if needed <= plan.message_limit => {}
            Ok(needed) => {
                return Err(Unwritten::TooLarge(needed).of(value, plan.message_limit));
            }
            Err(error) => return Err(Unwritten::Encode(error).of(value, plan.message_limit)),
        }
        self.empty_annexes();
        self.has_annexes = true;
        let (position, in_place) = (self.writer.position(), self.hub.is_in_place());
        let annex = match in_place {
            true => u64::from(self.block),
            false => plan.annex_of(position),
        };
        if let Err(error) = self.lane.write_annex(annex, &bytes) {
            let error = EncodeError::Refused(error.to_string());
            return Err(SendError::Encode { value, error });
        }
        let carries = if passed.is_some() { CARRIES } else { 0 };
        let length = bytes.len() as u64 | LONG | carries;
        let block = in_place.then_some(self.block);
        if in_place {
            self.publish_block(length);
        } else {
            if let Some(word) = self.writer.payload(&self.lane.slots, 0).first() {
                word.store(length, Ordering::Relaxed);
            }
            self.publish(1);
        }
        if let Some(passed) = passed {
            self.hold(passed, position, block);
        }
        Ok(())
    }

    /// Sees to it that a message can be written; waits for that as it is told to.
    #[inline]
    pub(super) fn ready(&mut self, waiting: impl FnOnce() -> Waiting) -> Result<(), Refusal> {
        match self.is_clear() {
            true => Ok(()),
            false => self.wait_for_room(waiting()),
        }
    }

    /// Whether a message can be written now, from what is known without asking anyone.
    #[inline]
    fn is_clear(&mut self) -> bool {
        !kin::forked()
            && self.away.get().is_none()
            && self.hub.is_open()
            && self.writer.room_hint(&self.lane.header) != 0
            && (!self.hub.is_in_place() || blocks::is_free(&self.lane, self.block))
    }

    #[inline]
    fn publish(&mut self, n: u64) {
        self.writer.publish(&self.lane.slots, n);
        self.hub.header.empty.notify_one();
    }

    /// Writes `first` and as many of the others as are ready and find room, and publishes them together.
    fn write_batch(
        &mut self,
        first: T,
        others: &mut impl Iterator<Item = T>,
    ) -> Result<usize, SendError<T>> {
        let limit = self.hub.plan.message_size;
        let room = self.writer.room_hint(&self.lane.header);
        let some = (BATCH_BYTES / limit.max(8)).max(1) as u64;
        // A hint may say anything.
        let ready = (others.size_hint().0 as u64).saturating_add(1);
        let most = room.min(some).min(ready);
        let mut batch = Batch {
            sender: self,
            written: 0,
            on_their_way: Vec::new(),
        };
        let mark = kin::fork_mark().ok();
        let (writer, slots) = (&batch.sender.writer, &*batch.sender.lane.slots);
        let (mut value, mut written) = (first, 0);
        loop {
            match write(writer.payload(slots, written), limit, &value) {
                Ok(passed) => {
                    let passed = passed.map(|passed| (written, passed));
                    batch.on_their_way.extend(passed);
                }
                Err(unwritten) => {
                    // Those before it go first.
                    drop(batch);
                    return self
                        .send_otherwise(value, unwritten)
                        .map(|()| written as usize + 1);
                }
            }
            written += 1;
            batch.written = written;
            if written >= most {
                break;
            }
            match others.next() {
                Some(next) => value = next,
                None => break,
            }
            // The iterator may return in a forked copy as well: the slots are not its own.
            if mark.is_some_and(|mark| mark.load(Ordering::Relaxed) == 0) {
                return Err(Refusal::Forked.of(value));
            }
        }
        Ok(written as usize)
    }

    fn write_block(&mut self, value: T) -> Result<(), SendError<T>> {
        let limit = self.hub.plan.message_size;
        let at = self.hub.plan.message_at(self.block);
        let mut sink = IntoBlock {
            bytes: &self.lane.blocks,
            at,
            end: at + limit,
        };
        let (written, passed) = encode(&value, &mut sink);
        match written {
            Ok(needed) if needed <= limit => {
                let (block, position) = (self.block, self.writer.position());
                match passed {
                    None => self.publish_block(needed as u64),
                    Some(passed) => {
                        self.publish_block(needed as u64 | CARRIES);
                        self.hold(passed, position, Some(block));
                    }
                }
                Ok(())
            }
            Ok(needed) => {
                // What it names goes with the bytes that are sent.
                drop(passed);
                self.send_otherwise(value, Unwritten::TooLarge(needed))
            }
            Err(error) => self.send_otherwise(value, Unwritten::Encode(error)),
        }
    }

    /// Where the block of the next message lies.
    #[inline]
    pub(super) fn next_block(&self) -> *mut u8 {
        self.lane.blocks.at(
            self.hub.plan.message_at(self.block),
            self.hub.plan.message_size,
        )
    }

    /// Copies a message into the block of the next message.
    pub(super) fn fill_block(&self, message: &[u8]) {
        self.lane
            .blocks
            .copy_in(self.hub.plan.message_at(self.block), message);
    }

    /// Holds what a message names until it is over.
    #[cold]
    fn hold(&self, passed: Passed, position: u64, block: Option<u32>) {
        passed.sent(|| self.hub.carriage(self.number, position, block));
    }

    /// Publishes the block that was made ready, with so many bytes in it.
    pub(super) fn publish_block(&mut self, length: u64) {
        let block = self.block;
        blocks::mark_sent(&self.lane, block, length, self.writer.position());
        if let Some(word) = self.writer.payload(&self.lane.slots, 0).first() {
            word.store(u64::from(block), Ordering::Relaxed);
        }
        self.publish(1);
        self.block = if block + 1 == self.hub.plan.blocks {
            0
        } else {
            block + 1
        };
    }

    /// Waits until there is a slot and a block, if the queue has any, for one message.
    #[cold]
    fn wait_for_room(&mut self, waiting: Waiting) -> Result<(), Refusal> {
        if kin::forked() {
            return Err(Refusal::Forked);
        }
        if let Some(whereabouts) = self.away.take() {
            if whereabouts.is_away() {
                self.away = OnceLock::from(whereabouts);
                return Err(Refusal::Closed);
            }
        }
        let Sender {
            writer,
            lane,
            hub,
            block,
            patience,
            vigil,
            ..
        } = self;
        let header = &*lane.header;
        // Looks at the true head only when told to; everything else is cheap to poll.
        let room = RefCell::new(|exactly: bool| {
            if !hub.is_open() {
                return Err(Refusal::Closed);
            }
            let slot = match exactly {
                true => writer.room(header),
                false => writer.room_hint(header),
            };
            if slot == 0 {
                return Ok(None);
            }
            if hub.is_in_place() && !blocks::is_free(lane, *block) {
                // Blocks become free in order, but for those that are leased for long.
                match exactly.then(|| blocks::find_free(lane, *block)).flatten() {
                    Some(free) => *block = free,
                    None => return Ok(None),
                }
            }
            Ok(Some(()))
        });
        if (room.borrow_mut())(true)?.is_some() {
            return Ok(());
        }
        let nobody = |ask: bool| {
            if ask && blocks::recover(lane, hub.segment.life()) {
                hub.announce_returned();
            }
            let nobody = hub.nobody_if(ask, Side::Receivers);
            nobody.is_some_and(|nobody| hub.conclude(nobody))
        };
        let Waiting::Until(deadline) = waiting else {
            return Err(match nobody(vigil.is_due(hub.deaths)) {
                true => Refusal::Closed,
                false => Refusal::Full,
            });
        };
        let mut looks = 0_u32;
        let look = || {
            looks = looks.wrapping_add(1);
            (room.borrow_mut())(looks % HEAD_EVERY == 0)
        };
        let check = |ask: bool| {
            if let Some(()) = (room.borrow_mut())(true)? {
                return Ok(Some(()));
            }
            if ask && hub.is_evicted() {
                return Err(Refusal::Evicted);
            }
            if nobody(ask) {
                return Err(Refusal::Closed);
            }
            hub.count_wait();
            Ok(None)
        };
        match header
            .full
            .wait(patience, deadline, hub.deaths, look, check)?
        {
            Some(()) => Ok(()),
            None => Err(Refusal::TimedOut),
        }
    }
}

impl<T> Sender<T> {
    /// Gives back the memory of long messages that have been received.
    fn empty_annexes(&mut self) {
        let plan = self.hub.plan;
        // Others who take this process for dead may have the lane.
        if !self.has_annexes || plan.annex() == 0 || self.hub.is_evicted() {
            return;
        }
        if self.hub.is_in_place() {
            // Who receives a message empties its annex. What is left there is of a sender that was killed.
            let mut from = 0;
            for block in 0..=plan.blocks {
                if block == plan.blocks || !blocks::is_free(&self.lane, block) {
                    let free = u64::from(block - from);
                    self.lane.empty_annexes(u64::from(from), free);
                    from = block + 1;
                }
            }
            return;
        }
        // From the slot of the next message to that of the first one which nobody has received.
        let first = self.writer.first_in_flight(&self.lane.header);
        let next = self.writer.position();
        let free = plan.annexes() - next.wrapping_sub(first).min(plan.annexes());
        self.lane.empty_annexes(plan.annex_of(next), free);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // A forked copy owns nothing.
        let is_here = || self.away.get().is_none_or(Whereabouts::drop_here);
        if !kin::forked() && is_here() {
            self.empty_annexes();
            self.hub
                .leave(Side::Senders, self.number, Owner::Held(self.hub.me()));
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("lane", &self.number)
            .finish_non_exhaustive()
    }
}

/// Messages that are written, in the slots from the sender's position on, and not published yet.
///
/// It publishes them when it is dropped: also if the iterator they come from, a value's `Serialize`
/// or its `Drop` panics, since nobody has these values any more.
struct Batch<'a, T: Message> {
    sender: &'a mut Sender<T>,
    written: u64,
    /// What each of them names, by how many come before it.
    on_their_way: Vec<(u64, Passed)>,
}

impl<T: Message> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        // A forked copy of the iterator's making owns nothing.
        if self.written > 0 && !kin::forked() {
            let first = self.sender.writer.position();
            self.sender.publish(self.written);
            for (ahead, passed) in self.on_their_way.drain(..) {
                self.sender.hold(passed, first.wrapping_add(ahead), None);
            }
        }
    }
}

/// Encodes a value, and collects the handles inside if there can be any.
#[inline]
fn encode<T: Message>(
    value: &T,
    sink: &mut impl Sink,
) -> (Result<usize, EncodeError>, Option<Passed>) {
    if message::is_raw::<T>() {
        return (message::encode(value, sink), None);
    }
    let (written, passed) = handle::collect(Transport::Ring, || message::encode(value, sink));
    (written, (!passed.is_empty()).then_some(passed))
}

/// Writes a value into the payload words of a slot.
#[inline]
fn write<T: Message>(
    payload: &[AtomicU64],
    limit: usize,
    value: &T,
) -> Result<Option<Passed>, Unwritten> {
    if message::fixed_size::<T>().is_some() {
        // Every value has the size the queue was built for.
        let mut fill = Fill::new(payload);
        let (written, passed) = encode(value, &mut fill);
        fill.finish();
        return written.map(|_| passed).map_err(Unwritten::Encode);
    }
    let Some((length, words)) = payload.split_first() else {
        return Err(Unwritten::TooLarge(0));
    };
    let mut fill = Fill::new(words);
    let (written, passed) = encode(value, &mut fill);
    fill.finish();
    match written {
        Ok(needed) if needed <= limit => {
            let carries = if passed.is_some() { CARRIES } else { 0 };
            length.store(needed as u64 | carries, Ordering::Relaxed);
            Ok(passed)
        }
        Ok(needed) => Err(Unwritten::TooLarge(needed)),
        Err(error) => Err(Unwritten::Encode(error)),
    }
}

/// Copies a message's bytes into a block that only this sender touches.
struct IntoBlock<'a> {
    bytes: &'a crate::segment::Bytes,
    at: usize,
    end: usize,
}

impl Sink for IntoBlock<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.end - self.at);
        self.bytes.copy_in(self.at, &bytes[..fits]);
        self.at += fits;
    }

    #[inline(always)]
    fn put_word(&mut self, word: u64, size: usize) {
        match self.end - self.at {
            // As a whole, which is one store: what it leaves behind the number is not of the
            // message, or written over by what comes next.
            8.. => {
                self.bytes.copy_in(self.at, &word.to_ne_bytes());
                self.at += size;
            }
            _ => self.put(&word.to_ne_bytes()[..size]),
        }
    }
}

impl Waiting {
    /// The end of a wait that starts now.
    pub(super) fn at_most(timeout: Duration) -> Waiting {
        Waiting::Until(Instant::now().checked_add(timeout))
    }
}
