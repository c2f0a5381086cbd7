//! Why a queue, an end or a loan could not be had.

use crate::error::{EVICTED, FORKED, SegmentError, SendError, equal_by_debug};

/// Why a queue could not be made, or another end of it.
///
/// # Examples
///
/// ```
/// use multiproc::{Queue, QueueError};
///
/// let error = Queue::<u64>::new(0).unwrap_err();
/// assert!(matches!(error, QueueError::Capacity { asked: 0, .. }));
/// assert_eq!(error.to_string(), "invalid capacity 0 (1 to 4294967296 messages)");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// A capacity is 1 to `largest` messages.
    #[error("invalid capacity {asked} (1 to {largest} messages)")]
    Capacity {
        /// What was asked for.
        asked: usize,
        /// The largest capacity.
        largest: u64,
    },
    /// A message size is `smallest` to `largest` bytes.
    #[error("invalid message size of {asked} bytes ({smallest} to {largest} bytes for this type)")]
    MessageSize {
        /// What was asked for.
        asked: usize,
        /// Bytes every message of the type has.
        smallest: usize,
        /// The largest message there may be.
        largest: usize,
    },
    /// A limit of messages is at least the message size, and leaves room for one of that length in each slot.
    #[error(
        "invalid message limit of {asked} bytes ({smallest}, the message size, to {largest} bytes for this \
         capacity and number of senders)"
    )]
    MessageLimit {
        /// What was asked for.
        asked: usize,
        /// The message size.
        smallest: usize,
        /// The largest limit.
        largest: usize,
    },
    /// A queue is built for 1 to `largest` senders.
    #[error("invalid number of senders {asked} (1 to {largest})")]
    Senders {
        /// What was asked for.
        asked: usize,
        /// The largest number.
        largest: u32,
    },
    /// A queue is built for 1 to `largest` receivers.
    #[error("invalid number of receivers {asked} (1 to {largest})")]
    Receivers {
        /// What was asked for.
        asked: usize,
        /// The largest number.
        largest: u32,
    },
    /// Each sender has 1 to `largest` blocks.
    #[error("invalid number of blocks per sender {asked} (1 to {largest})")]
    Blocks {
        /// What was asked for.
        asked: usize,
        /// The largest number.
        largest: u32,
    },
    /// A message is handed out to 1 to `largest` receivers that fail.
    #[error("invalid delivery limit {asked} (1 to {largest})")]
    DeliveryLimit {
        /// What was asked for.
        asked: usize,
        /// The largest number.
        largest: u32,
    },
    /// Every lane has a living sender: build the queue with more `senders`.
    #[error("the queue already has all {limit} senders it was built for: set `senders` to more")]
    TooManySenders {
        /// Senders the queue was built for.
        limit: u32,
    },
    /// Every seat has a living receiver: build the queue with more `receivers`.
    #[error(
        "the queue already has all {limit} receivers it was built for: set `receivers` to more"
    )]
    TooManyReceivers {
        /// Receivers the queue was built for.
        limit: u32,
    },
    /// The memory could not be had, or is not a queue of this type.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

equal_by_debug!(QueueError);

/// Why there is no place to write a message in, or why it was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoanError {
    /// There is no place now; the call was one that does not wait.
    #[error("there is no room now")]
    Full,
    /// There was no place before the time was up.
    #[error("there was no room before the time was up")]
    TimedOut,
    /// Nobody is left who could receive it: dropped, exited or killed.
    #[error("nobody is left to receive")]
    Closed,
    /// The queue was not built with `in_place`, so its messages cannot be written in place.
    #[error("the queue was not built with in_place, so its messages cannot be written in place")]
    NotInPlace,
    /// This process was forked by the user; what it inherited belongs to its parent.
    #[error("{FORKED}")]
    Forked,
    /// Others have seen this process dead: something in it closed all descriptors, or unlocked them.
    #[error("{EVICTED}")]
    Evicted,
}

/// Why there is no sending now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    TimedOut,
    Closed,
    Forked,
    Evicted,
}

impl Refusal {
    #[cold]
    pub(super) fn of<T>(self, value: T) -> SendError<T> {
        match self {
            Refusal::Full => SendError::Full(value),
            Refusal::TimedOut => SendError::TimedOut(value),
            Refusal::Closed => SendError::Closed(value),
            Refusal::Forked => SendError::Forked(value),
            Refusal::Evicted => SendError::Evicted(value),
        }
    }
}

impl From<Refusal> for LoanError {
    fn from(refusal: Refusal) -> LoanError {
        match refusal {
            Refusal::Full => LoanError::Full,
            Refusal::TimedOut => LoanError::TimedOut,
            Refusal::Closed => LoanError::Closed,
            Refusal::Forked => LoanError::Forked,
            Refusal::Evicted => LoanError::Evicted,
        }
    }
}
