//! A block that this end holds, and must finish with or give back.

use std::sync::Arc;
use std::thread::panicking;

use crate::error::{Corrupt, RecvError, Undeliverable};
use crate::kin;
use crate::sync::Ordering;

use super::blocks::{self, Hold, Shelf};
use super::hub::{self, Lane};
use super::plan::{CARRIES, LONG};

/// A held block. Dropped unfinished, its message goes to another receiver.
#[derive(Debug)]
pub(super) struct Claim {
    lane: Arc<Lane>,
    block: u32,
    /// The word with the message's length, as it was when the block was claimed.
    word: u64,
    /// None once it is finished.
    hold: Option<Hold>,
}

impl Claim {
    pub(super) fn new(lane: Arc<Lane>, block: u32, hold: Hold) -> Claim {
        let word = lane.length(block).load(Ordering::Relaxed);
        Claim {
            lane,
            block,
            word,
            hold: Some(hold),
        }
    }

    #[inline]
    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The same, for whoever needs it when the claim is over.
    #[inline]
    pub(super) fn shared_lane(&self) -> Arc<Lane> {
        Arc::clone(&self.lane)
    }

    /// Whether the message names handles, as its sender says.
    #[inline]
    pub(super) fn carries(&self) -> bool {
        self.word & CARRIES != 0
    }

    /// Whether the message lies in the annex of its block.
    #[inline]
    pub(super) fn is_long(&self) -> bool {
        self.word & LONG != 0
    }

    /// Where the message lies among its lane's blocks.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.lane.plan.message_at(self.block)
    }

    /// Bytes of the message.
    #[inline]
    pub(super) fn length(&self) -> Result<usize, Corrupt> {
        let limit = match self.is_long() {
            true => self.lane.plan.message_limit,
            false => self.lane.plan.message_size,
        };
        usize::try_from(self.word & !(CARRIES | LONG))
            .ok()
            .filter(|&length| length <= limit)
            .ok_or(Corrupt("a message is longer than its queue allows"))
    }

    /// Copies the first bytes of the message, or of its block.
    #[inline]
    pub(super) fn copy_out(&self, to: &mut [u8]) -> Result<(), Corrupt> {
        if self.is_long() {
            return self.lane.read_annex(u64::from(self.block), to);
        }
        self.lane.blocks.copy_out(self.at(), to);
        Ok(())
    }

    /// Copies the message behind what is in `to`.
    #[inline]
    pub(super) fn append_to(&self, length: usize, to: &mut Vec<u8>) -> Result<(), Corrupt> {
        if self.is_long() {
            let from = to.len();
            to.resize(from + length, 0);
            return self.copy_out(&mut to[from..]);
        }
        self.lane.blocks.append_to(self.at(), length, to);
        Ok(())
    }

    /// Whether another receiver had the message before.
    pub(super) fn is_again(&self) -> bool {
        self.hold.as_ref().is_some_and(Hold::is_again)
    }

    /// Receivers that have failed with the message in their hands.
    pub(super) fn failures(&self) -> u32 {
        self.hold.as_ref().map_or(0, Hold::failures)
    }

    /// Takes the message out of the queue because too many have failed with it.
    #[cold]
    pub(super) fn give_up(self) -> RecvError {
        let failures = self.failures();
        let mut message = Vec::new();
        let copied = self
            .length()
            .and_then(|length| self.append_to(length, &mut message));
        self.finish();
        match copied {
            Ok(()) => RecvError::Undeliverable(Box::new(Undeliverable { failures, message })),
            Err(corrupt) => corrupt.into(),
        }
    }

    /// Done with the message: its sender may use the block.
    #[inline]
    pub(super) fn finish(mut self) {
        // A forked copy holds nothing.
        if let Some(hold) = self.hold.take().filter(|_| !kin::forked()) {
            if self.is_long() {
                self.lane.empty_annexes(u64::from(self.block), 1);
            }
            blocks::finish(&*self.lane, self.block, hold);
            self.lane.header.full.notify_one();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A forked copy holds nothing.
        if let Some(hold) = self.hold.take().filter(|_| !kin::forked()) {
            blocks::give_back(&*self.lane, self.block, hold, panicking());
            hub::announce_returned(&self.lane.queue);
        }
    }
}
