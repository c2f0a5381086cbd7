//! What a queue can be asked to be.

use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

use crate::message::Message;
use crate::named;

use super::error::QueueError;
use super::hub::Hub;
use super::plan::{Plan, Wishes};
use super::receiver::Receiver;
use super::sender::Sender;

/// A queue to be; see [`Queue::builder`](crate::Queue::builder).
///
/// # Examples
///
/// ```
/// use multiproc::Queue;
///
/// let (tx, rx) = Queue::<String>::builder()
///     .capacity(64)
///     .message_size(1000)
///     .senders(4)
///     .build()?;
/// # Ok::<(), multiproc::QueueError>(())
/// ```
pub struct QueueBuilder<T> {
    wishes: Wishes,
    _values: PhantomData<fn(T) -> T>,
}

impl<T: Message> QueueBuilder<T> {
    pub(super) fn new() -> QueueBuilder<T> {
        QueueBuilder {
            wishes: Wishes::default(),
            _values: PhantomData,
        }
    }

    /// Messages that each sender may have in flight: 1024 unless set.
    #[doc(alias = "maxsize")]
    #[must_use]
    pub fn capacity(mut self, messages: usize) -> Self {
        self.wishes.capacity = Some(messages);
        self
    }

    /// Bytes of a message that there is room for in the queue itself; if it is set, a message may have no more, unless
    /// [`message_limit`](QueueBuilder::message_limit) is set as well.
    ///
    /// Unless set: the size of the type if all its values have the same, else what suits it; at least 256
    /// for types like `String`. Up to 256 bytes lie in the queue's slots, more in blocks.
    #[must_use]
    pub fn message_size(mut self, bytes: usize) -> Self {
        self.wishes.message_size = Some(bytes);
        self
    }

    /// Bytes that a message may have: 64 MiB unless this or [`message_size`](QueueBuilder::message_size) is set.
    ///
    /// What is longer than `message_size` goes through memory of its own, which is taken when it is sent, and given
    /// back when its sender sends the next such message or is dropped. That costs a few system calls and copies for
    /// such a message, and nothing for others. For types whose values all have one size it means nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::{Queue, SendError};
    ///
    /// let (mut tx, mut rx) = Queue::<String>::builder().message_limit(1 << 20).build()?;
    /// tx.send("x".repeat(100_000))?;
    /// assert_eq!(rx.recv()?.len(), 100_000);
    ///
    /// let error = tx.send("x".repeat(2 << 20)).unwrap_err();
    /// assert!(matches!(error, SendError::TooLarge { limit, .. } if limit == 1 << 20));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.wishes.message_limit = Some(bytes);
        self
    }

    /// Senders there may be at once: 256 unless set (16 if so many would take more than 16 GiB of address space).
    ///
    /// Those that are not there take no memory.
    #[must_use]
    pub fn senders(mut self, max: usize) -> Self {
        self.wishes.senders = Some(max);
        self
    }

    /// Receivers there may be at once: 256 unless set.
    #[must_use]
    pub fn receivers(mut self, max: usize) -> Self {
        self.wishes.receivers = Some(max);
        self
    }

    /// Messages lie in blocks, so many for each sender, where they are written and read without copying.
    ///
    /// See [`Sender::loan`] and [`Receiver::lease`]. A block is in use from its loan until its message is
    /// received or its lease is over, so there should be a few more than are leased at once.
    #[must_use]
    pub fn in_place(mut self, blocks: usize) -> Self {
        self.wishes.blocks = Some(blocks);
        self
    }

    /// Receivers that may fail with the same message leased: 16 unless set, 255 at most.
    ///
    /// A receiver fails with a message when its process dies, or a panic drops the
    /// [lease](Receiver::lease). When as many have, the next receiver gets
    /// [`RecvError::Undeliverable`] with the message's bytes in place of the message, which is then
    /// out of the queue: what kills everyone who looks at it kills no more. A lease that is dropped
    /// otherwise does not count, and may be as often as one likes.
    ///
    /// [`RecvError::Undeliverable`]: crate::RecvError::Undeliverable
    #[must_use]
    pub fn delivery_limit(mut self, receivers: usize) -> Self {
        self.wishes.delivery_limit = Some(receivers);
        self
    }

    /// Makes the queue: its first sender and its first receiver.
    ///
    /// # Errors
    ///
    /// The variant that names the invalid number and the valid ones; [`QueueError::Segment`] when there is no memory.
    pub fn build(self) -> Result<(Sender<T>, Receiver<T>), QueueError> {
        ends(Hub::build::<T>(Plan::new::<T>(self.wishes)?)?)
    }

    /// Makes a queue of that name, which other programs of this user [`open`](QueueBuilder::open).
    ///
    /// It does not say `Closed` before somebody else has come to it, and whoever comes later opens it again: a
    /// receive fails with `Closed` while no sender is there and all is received, a send while no receiver is.
    /// Its messages are always copied, also those of a [loan](Sender::loan) or a [lease](Receiver::lease), since the
    /// memory is open to every program of this user.
    ///
    /// # Errors
    ///
    /// As [`build`](QueueBuilder::build), and in [`QueueError::Segment`]: [`SegmentError::BadName`],
    /// [`SegmentError::AlreadyExists`] when a living process has the name, [`SegmentError::Foreign`] when something
    /// that is not ours stands there.
    ///
    /// # If a process dies
    ///
    /// The queue lives as long as any process has an end of it. When none is left, killed or not, the name is
    /// free for the next.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::Queue;
    /// # let name = &format!("doc-queue-{}", std::process::id());
    ///
    /// let (_, mut rx) = Queue::<String>::builder().create(name)?;
    /// // In another program:
    /// let (mut tx, _) = Queue::<String>::builder().open(name)?;
    /// tx.send("hello".to_string())?;
    ///
    /// assert_eq!(rx.recv()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`SegmentError::BadName`]: crate::SegmentError::BadName
    /// [`SegmentError::AlreadyExists`]: crate::SegmentError::AlreadyExists
    /// [`SegmentError::Foreign`]: crate::SegmentError::Foreign
    pub fn create(self, name: &str) -> Result<(Sender<T>, Receiver<T>), QueueError> {
        Hub::create::<T, _>(name, Plan::new::<T>(self.wishes)?, ends)
    }

    /// Opens the queue that a living process has made with that name: a sender and a receiver of it.
    ///
    /// What is not set here is as its maker set it.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooManySenders`], [`QueueError::TooManyReceivers`], and in [`QueueError::Segment`]:
    /// [`SegmentError::NotFound`], [`SegmentError::WrongShape`] when it holds values of another type or what is
    /// set here differs, [`SegmentError::WrongVersion`], [`SegmentError::Foreign`].
    ///
    /// [`SegmentError::NotFound`]: crate::SegmentError::NotFound
    /// [`SegmentError::WrongShape`]: crate::SegmentError::WrongShape
    /// [`SegmentError::WrongVersion`]: crate::SegmentError::WrongVersion
    /// [`SegmentError::Foreign`]: crate::SegmentError::Foreign
    pub fn open(self, name: &str) -> Result<(Sender<T>, Receiver<T>), QueueError> {
        Hub::open::<T, _>(name, named::patience(), |hub| self.join(hub))
    }

    /// Opens the queue of that name, or makes it when no living process has it.
    ///
    /// Of any number of processes that call this at once, one makes the queue.
    ///
    /// # Errors
    ///
    /// As [`create`](QueueBuilder::create) and [`open`](QueueBuilder::open), but for `AlreadyExists` and
    /// `NotFound`.
    pub fn open_or_create(self, name: &str) -> Result<(Sender<T>, Receiver<T>), QueueError> {
        let plan = Plan::new::<T>(self.wishes)?;
        Hub::open_or_create::<T, _>(name, plan, |hub| self.join(hub), ends)
    }

    /// As [`open`](QueueBuilder::open), but a sender alone, and others may be busy with the name until `deadline`.
    pub(crate) fn open_sender(
        self,
        name: &str,
        deadline: Instant,
    ) -> Result<Sender<T>, QueueError> {
        Hub::open::<T, _>(name, deadline, |hub| {
            hub.plan.check::<T>(self.wishes)?;
            Sender::attach(hub)
        })
    }

    fn join(&self, hub: Hub) -> Result<(Sender<T>, Receiver<T>), QueueError> {
        hub.plan.check::<T>(self.wishes)?;
        ends(hub)
    }
}

/// A new sender and a new receiver; the sender first, so that the receiver starts at its lane.
fn ends<T: Message>(hub: Hub) -> Result<(Sender<T>, Receiver<T>), QueueError> {
    let sender = Sender::attach(hub.clone())?;
    Ok((sender, Receiver::attach(hub)?))
}

impl<T> Clone for QueueBuilder<T> {
    fn clone(&self) -> Self {
        QueueBuilder {
            wishes: self.wishes,
            _values: PhantomData,
        }
    }
}

impl<T> fmt::Debug for QueueBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueBuilder").field(&self.wishes).finish()
    }
}
