//! Every public error, in families by what the caller can do.
//!
//! The rule for texts: an error says what was wrong and what would be right in its own words. What it was
//! caused by, it returns as its `source()` and does not say again; an error that has nothing to add is
//! `transparent` and says what the other says. So whoever prints the whole chain reads nothing twice.

mod codec;
mod death;
mod same;

use std::error::Error;
use std::fmt;

use rustix::process::Resource;

pub use self::codec::{DecodeError, EncodeError};
pub use self::death::{Death, WorkerExit};
pub(crate) use self::same::{equal_by_debug, os};

/// Shared memory says something that no process of this crate writes.
///
/// The handle that reports it should be dropped: a peer has scribbled over the segment, or it belongs to
/// another version. Nothing outside the segment is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shared memory is corrupt: {0}")]
pub struct Corrupt(pub(crate) &'static str);

/// Why a value was not sent; every kind gives it back.
///
/// # Examples
///
/// ```
/// use multiproc::{Queue, SendError};
///
/// let (mut tx, rx) = Queue::<u64>::new(1)?;
/// tx.send(1)?;
/// assert!(matches!(tx.try_send(2), Err(SendError::Full(2))));
/// drop(rx);
/// assert!(matches!(tx.send(3), Err(SendError::Closed(3))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError<T> {
    /// There is no room now; the call was one that does not wait.
    Full(T),
    /// There was no room before the time was up.
    TimedOut(T),
    /// Nobody is left who could receive it: dropped, exited or killed.
    Closed(T),
    /// The value's bytes are more than a message may have.
    TooLarge {
        /// The value.
        value: T,
        /// Bytes it has.
        needed: usize,
        /// Bytes a message may have.
        limit: usize,
    },
    /// The value cannot be written as a message.
    Encode {
        /// The value.
        value: T,
        /// Why not.
        error: EncodeError,
    },
    /// This process was forked by the user; what it inherited belongs to its parent.
    Forked(T),
    /// Others have seen this process dead: something in it closed all descriptors, or unlocked them.
    Evicted(T),
}

impl<T> SendError<T> {
    /// The value that was not sent.
    pub fn into_value(self) -> T {
        match self {
            SendError::Full(value)
            | SendError::TimedOut(value)
            | SendError::Closed(value)
            | SendError::TooLarge { value, .. }
            | SendError::Encode { value, .. }
            | SendError::Forked(value)
            | SendError::Evicted(value) => value,
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Full(_) => f.write_str("there is no room now"),
            SendError::TimedOut(_) => f.write_str("there was no room before the time was up"),
            SendError::Closed(_) => f.write_str("nobody is left to receive"),
            SendError::TooLarge { needed, limit, .. } => {
                write!(
                    f,
                    "the value has {needed} bytes, a message may have {limit} (set `message_limit` to more)"
                )
            }
            SendError::Encode { .. } => f.write_str("the value cannot be sent"),
            SendError::Forked(_) => f.write_str(FORKED),
            SendError::Evicted(_) => f.write_str(EVICTED),
        }
    }
}

/// Shows the kind and the numbers, not the value: so it asks nothing of its type.
impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Full(_) => f.write_str("Full(..)"),
            SendError::TimedOut(_) => f.write_str("TimedOut(..)"),
            SendError::Closed(_) => f.write_str("Closed(..)"),
            SendError::TooLarge { needed, limit, .. } => f
                .debug_struct("TooLarge")
                .field("needed", needed)
                .field("limit", limit)
                .finish_non_exhaustive(),
            SendError::Encode { error, .. } => f
                .debug_struct("Encode")
                .field("error", error)
                .finish_non_exhaustive(),
            SendError::Forked(_) => f.write_str("Forked(..)"),
            SendError::Evicted(_) => f.write_str("Evicted(..)"),
        }
    }
}

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SendError::Encode { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why nothing was received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// There is nothing now; the call was one that does not wait.
    #[error("there is nothing to receive now")]
    Empty,
    /// There was nothing before the time was up.
    #[error("there was nothing to receive before the time was up")]
    TimedOut,
    /// Everybody who could send is gone, and all that was sent has been received.
    #[error("nobody is left to send, and all that was sent has been received")]
    Closed,
    /// A message arrived that is no value of the type; it is gone, the next call goes on behind it.
    #[error("a message could not be read")]
    Decode(#[source] DecodeError),
    /// See [`Corrupt`].
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// This process was forked by the user; what it inherited belongs to its parent.
    #[error("{FORKED}")]
    Forked,
    /// Others have seen this process dead: something in it closed all descriptors, or unlocked them.
    #[error("{EVICTED}")]
    Evicted,
    /// The message is longer than the buffer; it is kept for the next call.
    #[error("the message has {needed} bytes, the buffer {given}")]
    TooSmall {
        /// Bytes the message has.
        needed: usize,
        /// Bytes the buffer has.
        given: usize,
    },
    /// A message has more bytes than one may have, which no sender of this crate sends: it is
    /// thrown away, the next call goes on behind it.
    #[error("a message of more than {limit} bytes came, which is the most one may have")]
    TooLarge {
        /// Bytes a message may have.
        limit: usize,
    },
    /// As many receivers as the queue allows have died, or panicked, with this message in their
    /// hands: it is taken out of the queue and handed out no more. See
    /// [`QueueBuilder::delivery_limit`].
    ///
    /// [`QueueBuilder::delivery_limit`]: crate::QueueBuilder::delivery_limit
    #[error("{} receivers failed with the same message in their hands", .0.failures())]
    Undeliverable(Box<Undeliverable>),
    /// The queue was not built with `in_place`, so its messages cannot be leased.
    #[error("the queue was not built with in_place, so its messages cannot be leased")]
    NotInPlace,
}

/// A message that was taken out of its queue because receivers kept failing with it; see
/// [`RecvError::Undeliverable`].
#[derive(Clone, PartialEq, Eq)]
pub struct Undeliverable {
    pub(crate) failures: u32,
    pub(crate) message: Vec<u8>,
}

impl Undeliverable {
    /// Receivers that died, or panicked, with the message in their hands.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The message's bytes: of a number, a `String`, a `Vec` of numbers or a
    /// [`Plain`](crate::Plain) value its own, of other types those of the message format.
    pub fn message(&self) -> &[u8] {
        &self.message
    }
}

/// Shows how many bytes there are, not which.
impl fmt::Debug for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undeliverable")
            .field("failures", &self.failures)
            .field("bytes", &self.message.len())
            .finish()
    }
}

impl From<DecodeError> for RecvError {
    fn from(error: DecodeError) -> RecvError {
        RecvError::Decode(error)
    }
}

pub(crate) const FORKED: &str =
    "this process was forked by the user; what it inherited belongs to its parent";
pub(crate) const EVICTED: &str = "this program has closed or unlocked descriptors that are not its \
     own (of multiproc), so others see this process dead: close only what you have opened";

/// Says that the program has closed descriptors of this crate.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{EVICTED}")]
pub(crate) struct Evicted;

impl Evicted {
    /// Whether that is why something failed.
    pub(crate) fn is_in(error: &std::io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Evicted>())
    }
}

/// Says that a system call is refused that a sandbox may forbid.
#[derive(Debug, thiserror::Error)]
#[error(
    "the system call {call} was refused: allow it in the sandbox (such as a seccomp profile) that this program \
     runs in"
)]
pub(crate) struct Forbidden {
    call: &'static str,
    errno: i32,
}

impl Forbidden {
    pub(crate) fn error(call: &'static str, error: std::io::Error) -> std::io::Error {
        match error.raw_os_error() {
            Some(errno) => std::io::Error::new(error.kind(), Forbidden { call, errno }),
            None => error,
        }
    }

    /// The call, and what the system said, if that is why something failed.
    pub(crate) fn of(
        error: std::io::Error,
    ) -> Result<(&'static str, std::io::Error), std::io::Error> {
        let found = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Forbidden>());
        match found {
            Some(its) => Ok((its.call, std::io::Error::from_raw_os_error(its.errno))),
            None => Err(error),
        }
    }
}

/// Says that there is nothing to give to a process in place of a stream.
#[derive(Debug, thiserror::Error)]
#[error("/dev/null cannot be opened: {0}")]
pub(crate) struct NoNull(pub(crate) std::io::Error);

impl NoNull {
    /// What the system said, if that is why something failed.
    pub(crate) fn of(error: std::io::Error) -> Result<std::io::Error, std::io::Error> {
        error.downcast::<NoNull>().map(|NoNull(its)| its)
    }
}

/// An error and all that it was caused by, in one text: for those who can pass on no more than that.
pub(crate) fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// An error of this crate as one of a `Serialize`.
pub(crate) fn cannot_write<E: serde::ser::Error>(error: impl Error) -> E {
    E::custom(whole(&error))
}

/// An error of this crate as one of a `Deserialize`.
pub(crate) fn cannot_read<E: serde::de::Error>(error: impl Error) -> E {
    E::custom(whole(&error))
}

/// Why a segment could not be made or attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A segment of no bytes was asked for.
    #[error("a segment needs at least 1 byte, 0 were asked for")]
    Empty,
    /// There is not that much memory: the file system in memory is full, or a memory limit is reached.
    #[error("no space for a segment of {needed} bytes")]
    NoSpace {
        /// Bytes that were asked for.
        needed: u64,
    },
    /// Files of this process may not be that long.
    #[error(
        "a segment of {needed} bytes is longer than files of this process may be: the limit \
         (RLIMIT_FSIZE, `ulimit -f`) is {limit} bytes"
    )]
    FileTooLarge {
        /// Bytes that were asked for.
        needed: u64,
        /// The limit in force, in bytes.
        limit: u64,
    },
    /// The process may not open more files.
    #[error("too many open descriptors, the limit (RLIMIT_NOFILE) is {limit}")]
    TooManyDescriptors {
        /// The limit in force.
        limit: u64,
    },
    /// Nobody has made a segment of that name, or everybody who had it is gone.
    #[error("no segment is named {name:?}")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// A living process holds that name.
    #[error("a segment named {name:?} exists already")]
    AlreadyExists {
        /// The name asked for.
        name: String,
    },
    /// The name is not 1 to 64 letters, digits, dots, dashes and underscores, or starts with a dot.
    #[error(
        "{name:?} is not a segment name: 1 to 64 of A-Z a-z 0-9 . _ - are, not starting with a dot"
    )]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// What stands at that name belongs to somebody else, or is not a plain file of this user alone.
    #[error("{name:?} is not this user's own segment: {why}")]
    Foreign {
        /// The name asked for.
        name: String,
        /// Which file it is, what is wrong with it, and who can take it away.
        why: String,
    },
    /// There is no folder in memory in which this user can keep names.
    #[error("{name:?} can be kept nowhere: {why}")]
    NoFolder {
        /// The name asked for.
        name: String,
        /// Which folders there are, and what is wrong with them.
        why: String,
    },
    /// Another process was in the middle of attaching or removing that name all the time allowed.
    #[error("another process kept the segment named {name:?} busy for too long")]
    Busy {
        /// The name asked for.
        name: String,
    },
    /// Another version of this crate, or a program of another word size, made it.
    #[error("segment has layout version {}.{}, this program needs {}.{}", found.0, found.1, wanted.0, wanted.1)]
    WrongVersion {
        /// Layout version and word size of the segment.
        found: (u32, u32),
        /// Layout version and word size of this program.
        wanted: (u32, u32),
    },
    /// It holds something else.
    #[error("segment holds {found}, not {wanted}")]
    WrongShape {
        /// What it holds.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// It is shorter or longer than it says.
    #[error("segment has {found} bytes where {wanted} are needed")]
    Truncated {
        /// Bytes it has.
        found: u64,
        /// Bytes it should have.
        wanted: u64,
    },
    /// It has holes: not all of its bytes have memory, so that whoever touches them would have to find it.
    #[error(
        "segment has memory for {found} bytes only, {wanted} are needed: it was not made by this crate"
    )]
    Sparse {
        /// Bytes that have memory.
        found: u64,
        /// Bytes that should have.
        wanted: u64,
    },
    /// Its size, or the items of an array, could still be changed by others.
    #[error("segment is not sealed against change")]
    Unsealed,
    /// The descriptor is something else.
    #[error("descriptor is not a segment")]
    NotASegment,
    /// A handle leads to something by its name, which this process has not opened itself.
    #[error(
        "this handle leads to {name:?} by its name, and this process has not asked for that: open the name here \
         before it is received, or send something that has no name"
    )]
    NotOpen {
        /// The name.
        name: String,
    },
    /// The process that sent the handle ended before the handle was taken.
    #[error(
        "the process that sent this handle (pid {pid}) is gone and nobody else keeps the segment"
    )]
    Gone {
        /// The sender.
        pid: i32,
    },
    /// The system does not let this process open what the sender of a handle holds, and no process between has it.
    #[error(
        "the memory behind a handle of process {pid} cannot be opened through /proc, and the processes \
         between, which were asked, {others}: let both processes have the same user, capabilities and namespaces, \
         or give it to the receiver as an argument when that is started"
    )]
    Refused {
        /// The sender.
        pid: i32,
        /// What the system said.
        #[source]
        errno: std::io::Error,
        /// What came of asking the processes between, in words.
        others: &'static str,
    },
    /// Handles of this kind belong to the process that made them: this is a forked copy of it.
    #[error("this process was forked by the user; handles of its parent cannot be used here")]
    Forked,
    /// The program has closed descriptors of this crate; what it has opened since is left alone.
    #[error("{EVICTED}")]
    Evicted,
    /// See [`Corrupt`].
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// A system call that shared memory needs is forbidden here.
    #[error(
        "the system refused the call {call}: allow it in the sandbox (such as a seccomp profile) that this \
         program runs in"
    )]
    Forbidden {
        /// The system call.
        call: &'static str,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// The operating system refused.
    #[error("the operating system refused memory to share")]
    Io(#[source] std::io::Error),
}

equal_by_debug!(SegmentError);

impl From<std::io::Error> for SegmentError {
    fn from(error: std::io::Error) -> SegmentError {
        match error.raw_os_error() {
            Some(nix::libc::EMFILE | nix::libc::EBADF) | None => SegmentError::from_io(error, 0),
            _ => SegmentError::Io(error),
        }
    }
}

impl SegmentError {
    /// Names the limit behind an error of the operating system.
    pub(crate) fn from_io(error: std::io::Error, needed: u64) -> SegmentError {
        use nix::libc::{EBADF, EDQUOT, EFBIG, EMFILE, ENOMEM, ENOSPC};
        match error.raw_os_error() {
            Some(ENOSPC | ENOMEM | EDQUOT) => SegmentError::NoSpace { needed },
            Some(EFBIG) => match limit(Resource::Fsize) {
                limit if limit < needed => SegmentError::FileTooLarge { needed, limit },
                // No file of this machine is that long.
                _ => SegmentError::NoSpace { needed },
            },
            Some(EMFILE) => SegmentError::TooManyDescriptors {
                limit: limit(Resource::Nofile),
            },
            // Ours are closed when nobody uses them any more, and not before.
            Some(EBADF) => SegmentError::Evicted,
            _ if Evicted::is_in(&error) => SegmentError::Evicted,
            _ => match Forbidden::of(error) {
                Ok((call, error)) => SegmentError::Forbidden { call, error },
                Err(error) => SegmentError::Io(error),
            },
        }
    }
}

fn limit(of: Resource) -> u64 {
    rustix::process::getrlimit(of).current.unwrap_or(u64::MAX)
}
