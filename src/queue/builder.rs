//! What a queue can be asked to be.

use std::fmt;
use std::marker::PhantomData;

use crate::message::Message;

use super::error::QueueError;
use super::hub::Hub;
use super::plan::{Plan, Wishes};
use super::receiver::Receiver;
use super::sender::Sender;

/// Messages in flight per sender, unless asked otherwise.
const CAPACITY: usize = 1024;

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
        let wishes = Wishes {
            capacity: CAPACITY,
            ..Wishes::default()
        };
        QueueBuilder {
            wishes,
            _values: PhantomData,
        }
    }

    /// Messages that each sender may have in flight: 1024 unless set.
    #[doc(alias = "maxsize")]
    #[must_use]
    pub fn capacity(mut self, messages: usize) -> Self {
        self.wishes.capacity = messages;
        self
    }

    /// Bytes that a message may have.
    ///
    /// Unless set: the size of the type if all its values have the same, else what suits it; at least 256
    /// for types like `String`. Messages up to 256 bytes lie in the queue's slots, larger ones in blocks.
    #[must_use]
    pub fn message_size(mut self, bytes: usize) -> Self {
        self.wishes.message_size = Some(bytes);
        self
    }

    /// Senders there may be at once: 16 unless set.
    #[must_use]
    pub fn senders(mut self, max: usize) -> Self {
        self.wishes.senders = Some(max);
        self
    }

    /// Receivers there may be at once: 64 unless set.
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

    /// Makes the queue: its first sender and its first receiver.
    ///
    /// # Errors
    ///
    /// A number that is not possible, with those that are; [`QueueError::Segment`] when there is no memory.
    pub fn build(self) -> Result<(Sender<T>, Receiver<T>), QueueError> {
        let hub = Hub::build::<T>(Plan::new::<T>(self.wishes)?)?;
        // The sender first, so that the receiver starts at its lane.
        let sender = Sender::attach(hub.clone())?;
        Ok((sender, Receiver::attach(hub)?))
    }
}

impl<T> fmt::Debug for QueueBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueBuilder").field(&self.wishes).finish()
    }
}
