//! How deep a value may nest: by levels, which both sides count alike, and by the stack that is
//! left, which no level may use up.
//!
//! A level takes as much stack as the type's own code and its value on the way out of there need,
//! and a value of some KiB at each of 256 levels is more than a thread has. So every 16 KiB further
//! down the system's word on where the stack ends is asked for.

use crate::sys;

use super::LEVEL_LIMIT;

/// Bytes of stack between two looks at where it ends.
const STRIDE: usize = 16 << 10;
/// Bytes of stack that are left untouched: for what runs between two levels, and for the type's own
/// code.
pub(super) const RESERVE: usize = 64 << 10;
/// Bytes of stack to use where nobody knows how much there is.
const UNKNOWN: usize = 256 << 10;
/// A frame may be followed by another like it; a larger one is believed to be alone until there are
/// two.
const ALONE: usize = 256 << 10;

/// Why a value may not nest deeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooDeep {
    Levels,
    Stack,
}

/// Where a value is that is being written or read.
#[derive(Debug)]
pub(super) struct Depth {
    levels: usize,
    /// Where it began.
    start: usize,
    /// The lowest address that needs no look.
    floor: usize,
    /// Bytes of the last frames between two looks.
    frame: usize,
}

impl Depth {
    #[inline(always)]
    pub(super) fn new() -> Depth {
        let start = here();
        Depth {
            levels: LEVEL_LIMIT,
            start,
            floor: start.saturating_sub(STRIDE),
            frame: 0,
        }
    }

    /// One level down.
    #[inline(always)]
    pub(super) fn enter(&mut self) -> Result<(), TooDeep> {
        self.levels = self.levels.checked_sub(1).ok_or(TooDeep::Levels)?;
        let here = here();
        match here < self.floor {
            true => self.look(here),
            false => Ok(()),
        }
    }

    /// One level up.
    #[inline(always)]
    pub(super) fn leave(&mut self) {
        self.levels += 1;
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, here: usize) -> Result<(), TooDeep> {
        let frame = (self.floor + STRIDE).saturating_sub(here);
        // What has come twice comes again, and whatever is below that as well.
        let next = (2 * frame.min(self.frame)).max(frame.min(ALONE));
        let left = match sys::stack_end(here) {
            Some(end) => here - end,
            None => UNKNOWN.saturating_sub(self.start.saturating_sub(here)),
        };
        if left < RESERVE + next {
            return Err(TooDeep::Stack);
        }
        self.frame = frame;
        self.floor = here.saturating_sub(STRIDE);
        Ok(())
    }
}

/// An address on the stack.
#[inline(always)]
fn here() -> usize {
    let mark = 0_u8;
    (&raw const mark).addr()
}
