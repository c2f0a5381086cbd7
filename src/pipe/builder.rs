//! What a pipe can be asked to be, and where everything lies because of it.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::error::{EVICTED, SegmentError};
use crate::layout::{HEADER, StreamHeader};
use crate::message::{self, Message};
use crate::segment::{Commit, Segment};
use crate::stream::{Lines, Reader, Writer};

use super::call;
use super::end::PipeEnd;
use super::link::Link;

/// Bytes each direction has, unless asked otherwise: measured, see `size`.
const SIZE: usize = 1 << 20;
const LEAST: usize = 4096;
const LARGEST: usize = 1 << 40;

/// Where the first ring lies: the second page of the segment. The other one follows it.
const RINGS: u64 = (4096 - HEADER) as u64;

/// Why a pipe could not be made.
///
/// # Examples
///
/// ```
/// use multiproc::Pipe;
///
/// let error = Pipe::<u8, u8>::builder().size(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "a size of 0 bytes is not possible, 1 to 1099511627776 are");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// A direction cannot have so much memory.
    #[error("a size of {asked} bytes is not possible, 1 to {largest} are")]
    Size {
        /// What was asked for.
        asked: usize,
        /// The largest size.
        largest: usize,
    },
    /// Nobody connected, or accepted, before the time was up.
    #[error("nobody was there before the time was up")]
    TimedOut,
    /// The listener went away: dropped, exited or killed.
    #[error("the listener is gone")]
    Closed,
    /// So many are waiting to be accepted already.
    #[error("{limit} are waiting to be accepted already")]
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

/// A pipe to be; see [`Pipe::builder`](crate::Pipe::builder).
///
/// # Examples
///
/// ```
/// use multiproc::Pipe;
///
/// let (parent, child) = Pipe::<Vec<f64>, f64>::builder().size(4 << 20).build()?;
/// # Ok::<(), multiproc::PipeError>(())
/// ```
pub struct PipeBuilder<Up, Down> {
    size: usize,
    _values: PhantomData<fn(Up, Down) -> (Up, Down)>,
}

impl<Up: Message, Down: Message> PipeBuilder<Up, Down> {
    pub(super) fn new() -> PipeBuilder<Up, Down> {
        PipeBuilder {
            size: SIZE,
            _values: PhantomData,
        }
    }

    /// Bytes of memory for each of the two directions: 1 MiB unless set. At least 4 KiB are taken, and
    /// always a power of two.
    ///
    /// So much can be sent before it is received; of large messages it decides how fast they stream, and 1 MiB or a
    /// little more is best for most machines. For many pipes with little to say 16 KiB are enough.
    #[must_use]
    pub fn size(mut self, bytes: usize) -> Self {
        self.size = bytes;
        self
    }

    /// Makes the pipe.
    ///
    /// # Errors
    ///
    /// [`PipeError::Size`] for a size that is not possible, [`PipeError::Segment`] when there is no memory.
    pub fn build(self) -> Result<(PipeEnd<Up, Down>, PipeEnd<Down, Up>), PipeError> {
        let shape = shape::<Up, Down>(Side::First);
        let segment = Segment::build("pipe", &shape, self.bytes()?, Commit::All)?;
        let plan = lay_out(&segment)?;
        let first = PipeEnd::over(Link::take(&segment, plan, Side::First)?)?;
        let second = PipeEnd::over(Link::take(&segment, plan, Side::Second)?)?;
        Ok((first, second))
    }

    /// Connects to the [`Listener`](crate::Listener) of that name; see [`Pipe::connect`](crate::Pipe::connect).
    ///
    /// # Errors
    ///
    /// As [`Pipe::connect`](crate::Pipe::connect), and [`PipeError::Size`].
    pub fn connect(self, name: &str) -> Result<PipeEnd<Down, Up>, PipeError> {
        call::connect::<Up, Down>(name, self.bytes()?, None)
    }

    /// As [`connect`](PipeBuilder::connect), but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`PipeError::TimedOut`] when it was not accepted in that time, else as [`connect`](PipeBuilder::connect).
    pub fn connect_timeout(
        self,
        name: &str,
        timeout: Duration,
    ) -> Result<PipeEnd<Down, Up>, PipeError> {
        call::connect::<Up, Down>(name, self.bytes()?, Instant::now().checked_add(timeout))
    }

    /// Bytes of the segment.
    fn bytes(&self) -> Result<u64, PipeError> {
        if self.size == 0 || self.size > LARGEST {
            return Err(PipeError::Size {
                asked: self.size,
                largest: LARGEST,
            });
        }
        let ring = self.size.max(LEAST).next_power_of_two() as u64;
        Ok(RINGS + 2 * ring)
    }
}

/// Makes two empty streams of a new segment.
pub(super) fn lay_out(segment: &Segment) -> Result<Plan, SegmentError> {
    let needed = segment.len() as u64;
    let plan = Plan::of(segment).ok_or(SegmentError::NoSpace { needed })?;
    for side in [Side::First, Side::Second] {
        let header = segment.view::<StreamHeader>(plan.header(side))?;
        Writer::new(plan.lines).park(&header);
        Reader::new(plan.lines).park(&header);
    }
    Ok(plan)
}

impl<Up, Down> fmt::Debug for PipeBuilder<Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeBuilder")
            .field("size", &self.size)
            .finish()
    }
}

/// Which end, and the direction it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    First,
    Second,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::First => Side::Second,
            Side::Second => Side::First,
        }
    }
}

/// The text that tells a pipe from anything else, for an end that sends `S` and receives `R`.
pub(super) fn shape<S: Message, R: Message>(side: Side) -> String {
    let (sends, receives) = (message::shape_name::<S>(), message::shape_name::<R>());
    match side {
        Side::First => format!("pipe of {sends} and {receives}"),
        Side::Second => format!("pipe of {receives} and {sends}"),
    }
}

/// Where everything lies. Offsets are of the segment's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) lines: Lines,
    ring: u64,
}

impl Plan {
    /// The plan of a pipe in a segment; `None` if none has that length.
    pub(super) fn of(segment: &Segment) -> Option<Plan> {
        let rings = (segment.len() as u64).checked_sub(RINGS)?;
        let ring = rings / 2;
        let lines = Lines::of_bytes(ring).filter(|_| rings % 2 == 0)?;
        Some(Plan { lines, ring })
    }

    /// The header of the direction that a side writes.
    pub(super) fn header(self, side: Side) -> u64 {
        match side {
            Side::First => 0,
            Side::Second => size_of::<StreamHeader>() as u64,
        }
    }

    /// The ring of the direction that a side writes: where it begins, and its bytes.
    pub(super) fn ring(self, side: Side) -> (u64, u64) {
        match side {
            Side::First => (RINGS, self.ring),
            Side::Second => (RINGS + self.ring, self.ring),
        }
    }
}

const _: () = assert!(2 * size_of::<StreamHeader>() as u64 <= RINGS);
