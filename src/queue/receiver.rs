//! The receiving end: takes from all lanes.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::RecvError;
use crate::handle::{self, Time};
use crate::kin;
use crate::message::{self, Message};
use crate::roster::Owner;
use crate::signal::Patience;

use super::Waiting;
use super::batch::Values;
use super::claim::Claim;
use super::desk::{Desk, Took};
use super::error::QueueError;
use super::hub::{Hub, Side};
use super::loan::Lease;
use super::stats::QueueStats;
use super::travel::Whereabouts;

/// Bytes of memory that are kept for the next message out of a block: 1 MiB, and what may stand
/// beside it in one value.
const KEEP: usize = (1 << 20) + (4 << 10);

/// The receiving end of a [`Queue`](crate::Queue).
///
/// Each message goes to one receiver. [`try_clone`](Receiver::try_clone) makes another one, for another thread or, inside
/// a message or an argument, for another process.
///
/// # If a process dies
///
/// A message that a call had taken and not yet returned is lost with the receiver, at most one (or one
/// batch of [`recv_many`](Receiver::recv_many)); the others go on. With [`lease`](Receiver::lease) nothing is lost.
pub struct Receiver<T> {
    desk: Desk,
    hub: Hub,
    seat: u32,
    patience: Patience,
    /// Memory for a message out of a block.
    spare: Vec<u8>,
    /// A message in a batch that could not be read, to be told by the next call.
    failure: Option<RecvError>,
    /// Set when it was moved in a message, which was sent or not.
    away: OnceLock<Whereabouts>,
    _values: PhantomData<fn() -> T>,
}

impl<T: Message> Receiver<T> {
    /// Attaches a new receiver.
    pub(super) fn attach(hub: Hub) -> Result<Receiver<T>, QueueError> {
        let seat = hub.take_seat(Owner::Held(hub.me()))?;
        Ok(Receiver::in_seat(hub, seat))
    }

    /// The receiver of a seat that this process owns already.
    pub(super) fn in_seat(hub: Hub, seat: u32) -> Receiver<T> {
        Receiver {
            desk: Desk::new(&hub, seat),
            hub,
            seat,
            patience: Patience::new(),
            spare: Vec::new(),
            failure: None,
            away: OnceLock::new(),
            _values: PhantomData,
        }
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// My seat, and whether I am here.
    pub(super) fn place(&self) -> (u32, &Whereabouts) {
        (self.seat, self.away.get_or_init(Whereabouts::default))
    }

    /// Another receiver of the same queue.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooManyReceivers`] when the queue has as many as it was built for.
    pub fn try_clone(&self) -> Result<Receiver<T>, QueueError> {
        self.hub.check_fork()?;
        Receiver::attach(self.hub.clone())
    }

    /// Receives a value; waits while there is none.
    ///
    /// # Blocking
    ///
    /// Until a value is there, or nobody is left who could send one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] when every sender is gone (dropped, exited or killed) and all they
    /// sent has been received; [`RecvError::Decode`] when a message was not a value of the type;
    /// [`RecvError::Undeliverable`] when too many receivers have failed with a message that they
    /// had [leased](Receiver::lease).
    ///
    /// # Panics
    ///
    /// If the type's own `Deserialize` does: that message is gone, the next call goes on behind it.
    ///
    /// # If a process dies
    ///
    /// The message is copied, and out of the queue, before it is decoded: one that kills who
    /// decodes it kills one receiver.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::{Queue, RecvError};
    /// let (mut tx, mut rx) = Queue::new(16)?;
    /// tx.send(1)?;
    /// drop(tx);
    /// assert_eq!(rx.recv(), Ok(1));
    /// assert_eq!(rx.recv(), Err(RecvError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get")]
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        match self.take_here() {
            Some(found) => found,
            None => self.value(Waiting::Until(None)),
        }
    }

    /// Receives a value if there is one now.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`] when there is none, else as [`recv`](Receiver::recv).
    #[doc(alias = "get_nowait")]
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        match self.take_here_in(Duration::ZERO) {
            Some(found) => found,
            None => self.value(Waiting::Not),
        }
    }

    /// Receives a value; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`] when there was none in that time, else as [`recv`](Receiver::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        match self.take_here_in(timeout) {
            Some(found) => found,
            None => self.value(Waiting::at_most(timeout)),
        }
    }

    /// Receives at least one value and at most `max`; waits while there is none.
    ///
    /// What is there of one sender is taken in one step, up to about 4 KiB (64 KiB of messages in
    /// blocks), which is several times faster than one by one. It does not wait for more to come.
    /// No value for a `max` of 0.
    ///
    /// # Errors
    ///
    /// As [`recv`](Receiver::recv). When only some of the messages cannot be read, the others are returned
    /// and the next call that finds nothing at once says so.
    ///
    /// # Panics
    ///
    /// If the type's own `Deserialize` does: that message is gone, the next call begins with the
    /// others.
    pub fn recv_many(&mut self, max: usize) -> Result<Vec<T>, RecvError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        if self.desk.has_unread() {
            // Left by a call that ended in a panic.
            self.check_fork()?;
            return self.read(max);
        }
        if self.hub.is_in_place() {
            let first = self.claim(Waiting::Until(None))?;
            let lane = first.shared_lane();
            // Until all is decoded, if there may be handles in it.
            let _hand = (!message::is_raw::<T>()).then(|| lane.hand(self.seat));
            self.gather(first, max)?;
            return handle::with_names(self.hub.segment.is_named(), || self.read(max));
        }
        let find = |desk: &mut Desk, hub: &Hub| desk.find_batch::<T>(hub, max);
        match self.wait_for(Waiting::Until(None), find)? {
            Took::Batch(_) => self.read(max),
            Took::Rare(value) => Ok(vec![value]),
        }
    }

    /// Receives values until the queue is closed, or one cannot be received.
    ///
    /// What it ended for, if not that the queue is closed, the next call that finds nothing at once says.
    pub fn iter(&mut self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// Receives a message without taking it for good: only [`Lease::ack`] does; waits while there is none.
    ///
    /// A lease that is dropped, or whose process dies, goes to another receiver, marked as
    /// [`redelivered`](Lease::redelivered): each message is received *at least* once. While another receiver has a lease, the
    /// queue does not say `Closed`, since what is leased may come back; only a receiver that has leases
    /// itself does not wait for those of others.
    ///
    /// # Errors
    ///
    /// [`RecvError::NotInPlace`] when the queue was not built with `in_place`;
    /// [`RecvError::Undeliverable`] when as many receivers as
    /// [`delivery_limit`](crate::QueueBuilder::delivery_limit) says have died, or panicked, with
    /// the message; else as [`recv`](Receiver::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::Queue;
    /// let (mut tx, mut rx) = Queue::<Vec<u8>>::builder().message_size(1 << 20).in_place(4).build()?;
    /// let mut loan = tx.loan()?;
    /// loan[..5].copy_from_slice(b"hello");
    /// loan.truncate(5);
    /// loan.commit()?;
    ///
    /// let lease = rx.lease()?;
    /// assert_eq!(lease.get(), b"hello");
    /// assert!(!lease.redelivered());
    /// lease.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn lease(&mut self) -> Result<Lease<T>, RecvError> {
        self.lease_within(Waiting::Until(None))
    }

    /// Leases a message if there is one now.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`] when there is none, else as [`lease`](Receiver::lease).
    pub fn try_lease(&mut self) -> Result<Lease<T>, RecvError> {
        self.lease_within(Waiting::Not)
    }

    /// Leases a message; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`] when there was none in that time, else as [`lease`](Receiver::lease).
    pub fn lease_timeout(&mut self, timeout: Duration) -> Result<Lease<T>, RecvError> {
        self.lease_within(Waiting::at_most(timeout))
    }

    /// Whether every further receive fails with `Closed`: nobody is left to send, and everything that was sent has
    /// been received.
    ///
    /// False may be outdated at once; true stays true, but for a queue with a name, which another program may open
    /// again. Every end of a queue or pipe has this call, and with the same meaning: closed is what answers
    /// `Closed` from now on.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::{Queue, RecvError};
    ///
    /// let (mut tx, mut rx) = Queue::<u64>::new(4)?;
    /// tx.send(1)?;
    /// drop(tx);
    /// assert!(!rx.is_closed());
    /// assert_eq!(rx.recv(), Ok(1));
    /// assert!(rx.is_closed());
    /// assert_eq!(rx.recv(), Err(RecvError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_closed(&mut self) -> bool {
        // A forked copy finds and concludes nothing: that would change what its parent sees.
        if kin::forked() {
            return false;
        }
        let Receiver { desk, hub, .. } = self;
        let look = |desk: &mut Desk, hub: &Hub| Ok(desk.has_more(hub).then_some(()));
        matches!(look(desk, hub), Ok(None))
            && close(desk, hub, true, look) == Err(RecvError::Closed)
    }

    /// Messages each sender may have in flight.
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

    /// What has gone through the queue, of all receivers.
    pub fn stats(&self) -> QueueStats {
        self.hub.stats()
    }

    /// Part of the caller, so that what is received stays in registers.
    #[inline(always)]
    fn take_here(&mut self) -> Option<Result<T, RecvError>> {
        if kin::forked() || self.hub.is_in_place() || self.away.get().is_some() {
            return None;
        }
        self.desk.take_here(&self.hub)
    }

    #[inline(always)]
    fn take_here_in(&mut self, timeout: Duration) -> Option<Result<T, RecvError>> {
        message::in_time::<T, _>(Time::AtMost(timeout), || self.take_here())
    }

    fn value(&mut self, waiting: Waiting) -> Result<T, RecvError> {
        message::in_time::<T, _>(waiting.into(), || self.value_in_time(waiting))
    }

    fn value_in_time(&mut self, waiting: Waiting) -> Result<T, RecvError> {
        if self.desk.has_unread() {
            self.check_fork()?;
            let value = self.read(1)?.pop();
            return value.ok_or(RecvError::Empty);
        }
        if self.hub.is_in_place() {
            return self.read_block(waiting);
        }
        self.wait_for(waiting, Desk::find_value)
    }

    fn check_fork(&self) -> Result<(), RecvError> {
        match kin::forked() {
            true => Err(RecvError::Forked),
            false => Ok(()),
        }
    }

    /// The value of a block, which is its sender's again before the type's own code sees the bytes.
    ///
    /// So nobody can change them while they are decoded, and a message that kills or panics who
    /// decodes it does so once.
    fn read_block(&mut self, waiting: Waiting) -> Result<T, RecvError> {
        let claim = self.claim(waiting)?;
        let (blocks, at) = (&claim.lane().blocks, claim.at());
        let length = match claim.length() {
            Ok(length) => length,
            Err(corrupt) => {
                claim.finish();
                return Err(corrupt.into());
            }
        };
        let value = (!claim.is_long()).then(|| message::read_from(blocks, at, length));
        if let Some(value) = value.flatten() {
            claim.finish();
            return value.map_err(RecvError::Decode);
        }
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        if let Err(corrupt) = claim.append_to(length, &mut bytes) {
            claim.finish();
            return Err(corrupt.into());
        }
        let lane = claim.shared_lane();
        // Until it is decoded, if there are handles in it.
        let _hand = claim.carries().then(|| lane.hand(self.seat));
        claim.finish();
        let value = handle::with_names(self.hub.segment.is_named(), || message::decode(&bytes));
        bytes.shrink_to(KEEP);
        self.spare = bytes;
        value.map_err(RecvError::Decode)
    }

    /// Reads up to `max` of the messages that were taken; there is at least one.
    fn read(&mut self, max: usize) -> Result<Vec<T>, RecvError> {
        let Values { values, failure } = self.desk.read(&self.hub, max);
        if let Some(failure) = failure {
            if values.is_empty() {
                return Err(failure);
            }
            self.failure = Some(failure);
        }
        Ok(values)
    }

    /// Takes the first and others, at most `max` in all, out of their blocks.
    fn gather(&mut self, first: Claim, max: usize) -> Result<(), RecvError> {
        let mut more = self.desk.gather(first)?;
        for _ in 1..max {
            if !more {
                break;
            }
            let next = self
                .desk
                .find_claim(&self.hub)
                .and_then(|claim| match claim {
                    Some(claim) => Ok(self.desk.gather(claim)?),
                    None => Ok(false),
                });
            // What is here already comes first.
            more = next.unwrap_or_else(|failure| {
                self.failure = Some(failure);
                false
            });
        }
        Ok(())
    }

    #[inline(always)]
    fn lease_within(&mut self, waiting: Waiting) -> Result<Lease<T>, RecvError> {
        if !self.hub.is_in_place() {
            return Err(RecvError::NotInPlace);
        }
        Lease::of(self.claim(waiting)?)
    }

    #[inline(always)]
    fn claim(&mut self, waiting: Waiting) -> Result<Claim, RecvError> {
        if !kin::forked() && self.away.get().is_none() {
            if let Some(found) = self.desk.claim_here(&self.hub) {
                return found;
            }
        }
        self.wait_for(waiting, Desk::find_claim)
    }

    /// Finds something, or waits for it.
    fn wait_for<R>(
        &mut self,
        waiting: Waiting,
        find: impl Fn(&mut Desk, &Hub) -> Result<Option<R>, RecvError>,
    ) -> Result<R, RecvError> {
        if kin::forked() {
            return Err(RecvError::Forked);
        }
        if let Some(whereabouts) = self.away.take() {
            if whereabouts.is_away() {
                self.away = OnceLock::from(whereabouts);
                return Err(RecvError::Closed);
            }
        }
        if let Some(found) = find(&mut self.desk, &self.hub)? {
            return Ok(found);
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match waiting {
            Waiting::Not => {
                let ask = self.desk.vigil.is_due(self.hub.deaths);
                close(&mut self.desk, &self.hub, ask, find)?.ok_or(RecvError::Empty)
            }
            Waiting::Until(deadline) => {
                let Receiver {
                    desk,
                    hub,
                    patience,
                    ..
                } = self;
                let desk = RefCell::new(desk);
                let look = || find(&mut desk.borrow_mut(), hub);
                let mut announced = false;
                let check = |ask: bool| {
                    announced = true;
                    if ask && hub.is_evicted() {
                        return Err(RecvError::Evicted);
                    }
                    let found = close(&mut desk.borrow_mut(), hub, ask, &find)?;
                    if found.is_none() {
                        hub.count_wait();
                    }
                    Ok(found)
                };
                let found = hub
                    .header
                    .empty
                    .wait(patience, deadline, hub.deaths, look, check)?;
                // One wake brings one receiver; who took it and leaves work behind brings the next.
                if found.is_some() && announced && desk.borrow_mut().has_more(hub) {
                    hub.header.empty.notify_one();
                }
                found.ok_or(RecvError::TimedOut)
            }
        }
    }
}

/// After a round found nothing: `Closed`, if nobody is left and another round finds nothing either.
///
/// That order makes it final: who left had published before. If `ask`, the system is asked who is dead.
fn close<R>(
    desk: &mut Desk,
    hub: &Hub,
    ask: bool,
    find: impl Fn(&mut Desk, &Hub) -> Result<Option<R>, RecvError>,
) -> Result<Option<R>, RecvError> {
    if ask && hub.is_in_place() {
        desk.recover(hub);
    }
    let gone = hub.is_gone(Side::Senders) || hub.is_gone(Side::Receivers);
    let nobody = if gone {
        None
    } else {
        hub.nobody_if(ask, Side::Senders)
    };
    let left = if ask || gone || nobody.is_some() {
        find(desk, hub)?
    } else {
        None
    };
    if left.is_some() || !(gone || nobody.is_some()) {
        return Ok(left);
    }
    let hands = desk.in_hand(hub);
    if hands.others && !hands.mine {
        return Ok(None);
    }
    // Those that wait for my leases are not told that all is over.
    let over = hands.mine || nobody.is_none_or(|nobody| hub.conclude(nobody));
    match over {
        true => Err(RecvError::Closed),
        false => Ok(None),
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // A forked copy owns nothing.
        let is_here = || self.away.get().is_none_or(Whereabouts::drop_here);
        if !kin::forked() && is_here() {
            self.hub
                .leave(Side::Receivers, self.seat, Owner::Held(self.hub.me()));
        }
    }
}

/// As [`iter`](Receiver::iter): `for value in &mut rx`.
impl<'a, T: Message> IntoIterator for &'a mut Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("seat", &self.seat)
            .finish_non_exhaustive()
    }
}

/// The values of a queue, until it is closed; see [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T> {
    receiver: &'a mut Receiver<T>,
}

impl<T: Message> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self.receiver.recv() {
            Ok(value) => Some(value),
            Err(RecvError::Closed) => None,
            Err(failure) => {
                self.receiver.failure = Some(failure);
                None
            }
        }
    }
}
