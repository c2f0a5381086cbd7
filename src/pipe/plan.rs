//! Where everything lies in a pipe's segment.

use crate::error::SegmentError;
use crate::layout::{HEADER, StreamHeader};
use crate::message::{self, Message};
use crate::segment::Segment;
use crate::stream::{Lines, Reader, Writer};
use crate::sync::Ordering;

use super::error::PipeError;

/// The smallest and the largest ring, in bytes.
const LEAST: usize = 4096;
const LARGEST: usize = 1 << 40;
/// The most bytes a message may have, unless asked otherwise.
pub(super) const MESSAGE_LIMIT: usize = 1 << 30;
/// The least that limit may be: the short ways, which do not ask for it, are for messages up to
/// that.
const LEAST_LIMIT: usize = Lines::LEAST_PIECE;

/// Where the first ring lies: the second page of the segment. The other one follows it.
const RINGS: u64 = (4096 - HEADER) as u64;
const _: () = assert!(2 * size_of::<StreamHeader>() as u64 <= RINGS);

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
    /// The most bytes a message may have, either way.
    pub(super) message_limit: usize,
    ring: u64,
}

impl Plan {
    /// The plan of a pipe that exists; `None` if none has that length.
    ///
    /// Each number is read once. A peer may have written any limit: it is kept within what a maker
    /// can ask for.
    pub(super) fn of(segment: &Segment) -> Option<Plan> {
        let header = segment.view::<StreamHeader>(0).ok()?;
        let limit = header.message_limit.load(Ordering::Relaxed);
        Plan::with_limit(segment, usize::try_from(limit).unwrap_or(LARGEST))
    }

    fn with_limit(segment: &Segment, limit: usize) -> Option<Plan> {
        let rings = (segment.len() as u64).checked_sub(RINGS)?;
        let ring = rings / 2;
        let lines = Lines::of_bytes(ring).filter(|_| rings % 2 == 0)?;
        Some(Plan {
            lines,
            message_limit: limit.clamp(LEAST_LIMIT, LARGEST),
            ring,
        })
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

/// Bytes of the segment of a pipe with so many in each direction.
pub(super) fn bytes(size: usize) -> Result<u64, PipeError> {
    if size == 0 || size > LARGEST {
        return Err(PipeError::Size {
            asked: size,
            largest: LARGEST,
        });
    }
    let ring = size.max(LEAST).next_power_of_two() as u64;
    Ok(RINGS + 2 * ring)
}

/// The most bytes a message may have in a pipe of these types.
pub(super) fn message_limit<Up: Message, Down: Message>(asked: usize) -> Result<usize, PipeError> {
    let fixed = [message::fixed_size::<Up>(), message::fixed_size::<Down>()];
    let smallest = fixed.into_iter().flatten().fold(1, usize::max);
    match asked >= smallest && asked <= LARGEST {
        true => Ok(asked.max(LEAST_LIMIT)),
        false => Err(PipeError::MessageLimit {
            asked,
            smallest,
            largest: LARGEST,
        }),
    }
}

/// Makes two empty streams of a new segment.
pub(super) fn lay_out(segment: &Segment, message_limit: usize) -> Result<Plan, SegmentError> {
    let needed = segment.len() as u64;
    let plan = Plan::with_limit(segment, message_limit).ok_or(SegmentError::NoSpace { needed })?;
    for side in [Side::First, Side::Second] {
        let header = segment.view::<StreamHeader>(plan.header(side))?;
        let limit = plan.message_limit as u64;
        header.message_limit.store(limit, Ordering::Relaxed);
        Writer::new(plan.lines).park(&header);
        Reader::new(plan.lines).park(&header);
    }
    Ok(plan)
}
