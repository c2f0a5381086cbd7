//! Why a pipe could not be had.

use crate::error::{EVICTED, SegmentError, equal_by_debug};

/// Why a pipe could not be made.
///
/// # Examples
///
/// ```
/// use multiproc::Pipe;
///
/// let error = Pipe::<u8, u8>::builder().size(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "invalid size of 0 bytes (1 to 1099511627776)");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// A direction has 1 to `largest` bytes of memory.
    #[error("invalid size of {asked} bytes (1 to {largest})")]
    Size {
        /// What was asked for.
        asked: usize,
        /// The largest size.
        largest: usize,
    },
    /// Messages cannot be limited to so many bytes.
    #[error(
        "invalid message limit of {asked} bytes ({smallest} to {largest} bytes for these types)"
    )]
    MessageLimit {
        /// What was asked for.
        asked: usize,
        /// Bytes that every message of one of the types has.
        smallest: usize,
        /// The largest limit.
        largest: usize,
    },
    /// Nobody connected, or accepted, before the time was up.
    #[error("no other process connected before the time was up")]
    TimedOut,
    /// The listener went away: dropped, exited or killed.
    #[error("the listener is gone")]
    Closed,
    /// As many processes as can wait are already waiting to be accepted.
    #[error("{limit} other processes are already waiting to be accepted")]
    TooManyCallers {
        /// How many may wait.
        limit: u32,
    },
    /// Others have seen this process dead: something in it closed all descriptors, or unlocked them.
    #[error("{EVICTED}")]
    Evicted,
    /// The memory could not be had, or is not a pipe of these types.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

equal_by_debug!(PipeError);
