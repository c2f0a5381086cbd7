//! A queue: many senders, many receivers, bounded, lossless.
//!
//! | file | what it holds |
//! |---|---|
//! | `builder`, `plan` | what was asked for, and where everything lies because of it |
//! | `hub` | the header, lanes and seats; who comes, who is left, what is concluded |
//! | `sender`, `receiver`, `desk` | the two ends, and where a receiver looks |
//! | `words` | messages in slots |
//! | `batch` | messages that were taken and are not decoded yet |
//! | `plan`, `sender`, `desk` | messages in annexes: too long for a slot or block, read before they are taken |
//! | `blocks`, `claim`, `loan` | messages in blocks: their states, a held one, borrowing |
//! | `travel` | ends inside messages |

mod batch;
mod blocks;
mod builder;
mod claim;
mod desk;
mod error;
mod hub;
mod loan;
mod plan;
mod receiver;
mod sender;
mod stats;
mod travel;
mod words;

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::handle::Time;
use crate::message::Message;

pub use self::builder::QueueBuilder;
pub use self::error::{LoanError, QueueError};
pub use self::loan::{InPlace, Lease, Loan};
pub use self::receiver::{Iter, Receiver};
pub use self::sender::Sender;
pub use self::stats::QueueStats;

/// A queue of values between threads and processes: many senders, many receivers, bounded, lossless.
///
/// **Order is per sender**: what one sender sends is received in that order; between two senders there is
/// none. If A sends, tells B, and B sends, a receiver may get B's first. **Capacity is per sender**: each may have
/// `capacity` messages in flight, and one may be full while the queue is nearly empty. A sender that sends little may
/// wait behind busy ones, for a bounded number of messages. Memory is senders times capacity times message
/// size; a sender's part is allocated when it first comes.
///
/// **Length is bounded by a setting**: a `String` or other value of no fixed size may have up to 64 MiB
/// ([`message_limit`](QueueBuilder::message_limit)). What is longer than the room that each message has in the queue
/// ([`message_size`](QueueBuilder::message_size), 256 bytes for a `String`) goes through memory of its own, as long as it
/// is in flight. There may be 256 [`senders`](QueueBuilder::senders) and 256 [`receivers`](QueueBuilder::receivers).
///
/// Each message goes to one receiver. [`Sender`] and [`Receiver`] can be sent to other processes of the
/// tree, as arguments, in results and inside messages; one on its way counts as there, as long as the process that
/// sent it lives.
///
/// A queue with a [name](QueueBuilder::create) is shared with other programs of this user.
///
/// # If a process dies
///
/// At any instruction: the others go on, nothing is torn or repeated, and at most the message in its
/// hands is lost. What a dead sender had sent is received. When the last sender is gone and everything received,
/// receivers get `Closed`; when the last receiver is gone, senders do.
///
/// # Examples
///
/// ```
/// use multiproc::Queue;
///
/// let (mut tx, mut rx) = Queue::new(100)?;
/// let mut other = tx.try_clone()?;
/// std::thread::spawn(move || other.send("from a thread".to_string()));
/// tx.send("from here".to_string())?;
/// drop(tx);
/// assert_eq!(rx.iter().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "SimpleQueue")]
#[doc(alias = "JoinableQueue")]
pub struct Queue<T> {
    _values: PhantomData<fn(T) -> T>,
}

// The bounds stand at the functions: the compiler says what is wrong with a type there, and not at an `impl`.
impl<T> Queue<T> {
    /// A queue in which each sender may have `capacity` messages in flight.
    ///
    /// For everything else the [`builder`](Queue::builder)'s defaults hold: values of any length up to 64 MiB, 256
    /// senders and 256 receivers.
    ///
    /// # Errors
    ///
    /// [`QueueError::Capacity`] for 0, [`QueueError::Segment`] when there is no memory.
    #[expect(clippy::new_ret_no_self, reason = "a queue is its two ends")]
    pub fn new(capacity: usize) -> Result<(Sender<T>, Receiver<T>), QueueError>
    where
        T: Message,
    {
        Queue::builder().capacity(capacity).build()
    }

    /// A queue with more to choose.
    pub fn builder() -> QueueBuilder<T>
    where
        T: Message,
    {
        QueueBuilder::new()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

/// How long a call waits.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    /// Not at all.
    Not,
    /// Until then, or for ever.
    Until(Option<Instant>),
}

impl From<Waiting> for Time {
    fn from(waiting: Waiting) -> Time {
        match waiting {
            Waiting::Not => Time::AtMost(Duration::ZERO),
            Waiting::Until(None) => Time::Any,
            Waiting::Until(Some(end)) => Time::Until(end),
        }
    }
}
