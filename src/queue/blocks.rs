//! Blocks: where messages lie that are too large for a slot, or that are to be borrowed.
//!
//! Each lane has blocks of its own; only its sender allots them, so nothing marks a block that is being
//! filled: if its sender dies, it is free as it was. A block begins with two words, *state* and *length*, in the
//! same cache line as the first bytes of its message: a small message costs one line moving there and one back.
//!
//! | state | bits | changes to | by |
//! |---|---|---|---|
//! | FREE | 0 | SENT | the lane's sender, before it publishes the slot that names the block |
//! | SENT(position) | 1, position from bit 2 | HELD | a receiver: *the moment of consumption* |
//! | HELD(participant, seat, again, failures) | 2, again bit 2, failures bits 3 to 10, seat bits 11 to 31, participant from bit 32 | FREE, RETURNED | the receiver that holds it; RETURNED also by whoever finds it dead |
//! | RETURNED(failures) | 3, failures bits 3 to 10 | HELD, again | any receiver |
//!
//! *Failures* are the receivers that died, or panicked, with the message in their hands: it says
//! when to give the message up.
//!
//! Every change but the first is one compare-and-swap from the exact word seen. A position is never used
//! twice in a lane and a participant never twice in a tree, so none can succeed on a word that merely looks the same.
//! The lane's `head` follows behind: a receiver that finds at the head a block which is not SENT(head)
//! moves the head on for whoever took it, so a receiver killed in between holds nobody up.
//!
//! | edge | release | acquire | what it carries |
//! |---|---|---|---|
//! | G | [`finish`], [`give_back`] | [`is_free`] | that the holder has read before the sender fills the block again |
//! | H | [`mark_sent`] | [`claim_returned`] | what the sender wrote, to a second holder: every step between is a read-modify-write, so the chain holds |
//!
//! To the first holder edge A (see [`ring`](crate::ring)) carries it: the state is stored before the stamp.

use crate::error::Corrupt;
use crate::layout::LaneHeader;
use crate::ring::Reader;
use crate::roster::Life;
use crate::sync::{AtomicU64, Ordering};

const FREE: u64 = 0;
const SENT: u64 = 1;
const HELD: u64 = 2;
const RETURNED: u64 = 3;
const KIND: u64 = 3;
const AGAIN: u64 = 4;
/// Where the count of failures is, and how far it goes.
const FAILURES: u32 = 3;
pub(super) const MAX_FAILURES: u32 = 255;
/// Where the seat is.
const SEAT: u32 = 11;

/// The blocks of one lane.
pub(super) trait Shelf {
    /// How many there are.
    fn count(&self) -> u32;
    fn state(&self, block: u32) -> &AtomicU64;
    /// Bytes of the message in it: stored by the sender before it is sent.
    fn length(&self, block: u32) -> &AtomicU64;
}

/// Who holds a block: stored in its state while it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) participant: u32,
    pub(super) seat: u32,
}

/// Proof that this end holds a block; used up by [`finish`] or [`give_back`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hold(u64);

impl Hold {
    fn first(holder: Holder) -> Hold {
        Hold(u64::from(holder.participant) << 32 | u64::from(holder.seat) << SEAT | HELD)
    }

    /// The hold on a message that was given back in that state.
    fn again(holder: Holder, returned: u64) -> Hold {
        let failures = u64::from(failures(returned)) << FAILURES;
        Hold(Hold::first(holder).0 | AGAIN | failures)
    }

    /// Receivers that have failed with the message in their hands.
    pub(super) fn failures(&self) -> u32 {
        failures(self.0)
    }

    /// Whether the message had been handed to another receiver before.
    pub(super) fn is_again(&self) -> bool {
        self.0 & AGAIN != 0
    }
}

/// The failures that a state counts.
fn failures(state: u64) -> u32 {
    (state >> FAILURES) as u32 & MAX_FAILURES
}

/// The state of a message that is given back by who held it in `held`, perhaps because he failed.
fn returned(held: u64, failed: bool) -> u64 {
    let failures = failures(held) + u32::from(failed);
    u64::from(failures.min(MAX_FAILURES)) << FAILURES | RETURNED
}

const fn sent(position: u64) -> u64 {
    position << 2 | SENT
}

/// Whether the lane's sender may fill the block. Edge G, sender's end.
#[inline]
pub(super) fn is_free(shelf: &impl Shelf, block: u32) -> bool {
    shelf.state(block).load(Ordering::Acquire) == FREE
}

/// The first free block from `from` on, round the end.
pub(super) fn find_free(shelf: &impl Shelf, from: u32) -> Option<u32> {
    let count = shelf.count();
    (from..count)
        .chain(0..from.min(count))
        .find(|&block| is_free(shelf, block))
}

/// Marks a filled block; the sender publishes the slot right after. Edge H, sender's end.
#[inline]
pub(super) fn mark_sent(shelf: &impl Shelf, block: u32, length: u64, position: u64) {
    shelf.length(block).store(length, Ordering::Relaxed);
    shelf.state(block).store(sent(position), Ordering::Release);
}

/// What came of a look at the lane's next message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Block(u32, Hold),
    Nothing,
    /// Somebody else was quicker.
    Lost,
}

/// Takes the block of the lane's next message.
///
/// # Errors
///
/// When the slot names a block that the lane does not have, or see [`Reader::peek`].
#[inline(always)]
pub(super) fn take(
    shelf: &impl Shelf,
    header: &LaneHeader,
    slots: &[AtomicU64],
    reader: &mut Reader,
    holder: Holder,
) -> Result<Taken, Corrupt> {
    let Some(payload) = reader.peek(header, slots)? else {
        return Ok(Taken::Nothing);
    };
    let block = payload
        .first()
        .map_or(0, |word| word.load(Ordering::Relaxed));
    let Some(block) = u32::try_from(block)
        .ok()
        .filter(|&block| block < shelf.count())
    else {
        reader.take(header, 1);
        return Err(Corrupt(
            "a message lies in a block that its lane does not have",
        ));
    };
    let hold = claim(shelf, block, reader.position(), holder);
    // Mine or another's, the message is taken; whoever took it may not live to move the head.
    reader.take(header, 1);
    Ok(match hold {
        Some(hold) => Taken::Block(block, hold),
        None => Taken::Lost,
    })
}

/// Takes the message of `position` in its block, unless somebody has.
#[inline]
fn claim(shelf: &impl Shelf, block: u32, position: u64, holder: Holder) -> Option<Hold> {
    let hold = Hold::first(holder);
    shelf
        .state(block)
        .compare_exchange(sent(position), hold.0, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
        .then_some(hold)
}

/// Takes a message that was given back, the first there is.
pub(super) fn claim_returned(shelf: &impl Shelf, holder: Holder) -> Option<(u32, Hold)> {
    (0..shelf.count()).find_map(|block| {
        let state = shelf.state(block);
        let seen = state.load(Ordering::Relaxed);
        let hold = Hold::again(holder, seen);
        // Edge H, receiver's end.
        let won = seen & KIND == RETURNED
            && state
                .compare_exchange(seen, hold.0, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        won.then_some((block, hold))
    })
}

/// The message is done with: its block is its sender's again. Edge G, holder's end.
#[inline]
pub(super) fn finish(shelf: &impl Shelf, block: u32, hold: Hold) {
    let _ = shelf
        .state(block)
        .compare_exchange(hold.0, FREE, Ordering::Release, Ordering::Relaxed);
}

/// The message is not done with, perhaps because its holder failed: another receiver gets it. Edge
/// G, holder's end.
pub(super) fn give_back(shelf: &impl Shelf, block: u32, hold: Hold, failed: bool) {
    let _ = shelf.state(block).compare_exchange(
        hold.0,
        returned(hold.0, failed),
        Ordering::Release,
        Ordering::Relaxed,
    );
}

/// Gives back what dead receivers held; whether anything is there to be handed out again.
pub(super) fn recover(shelf: &impl Shelf, life: &impl Life) -> bool {
    let mut any = false;
    for block in 0..shelf.count() {
        let state = shelf.state(block);
        let seen = state.load(Ordering::Relaxed);
        if seen & KIND == HELD && life.is_dead((seen >> 32) as u32) {
            // The dead read no more: their proof of life went after all that they did.
            let returned = returned(seen, true);
            let _ = state.compare_exchange(seen, returned, Ordering::Relaxed, Ordering::Relaxed);
        }
        any |= state.load(Ordering::Relaxed) & KIND == RETURNED;
    }
    any
}

/// Who has messages in hand that may yet be given back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct InHand {
    pub(super) mine: bool,
    pub(super) others: bool,
}

/// Looks whose hands messages are in; what was given back counts as in others'.
pub(super) fn in_hand(shelf: &impl Shelf, me: Holder) -> InHand {
    let mine = Hold::first(me).0;
    let either = AGAIN | u64::from(MAX_FAILURES) << FAILURES;
    let mut found = InHand::default();
    for block in 0..shelf.count() {
        let seen = shelf.state(block).load(Ordering::Relaxed);
        match seen & KIND {
            HELD if seen & !either == mine => found.mine = true,
            HELD | RETURNED => found.others = true,
            _ => {}
        }
    }
    found
}

/// Frees what a dead sender had marked but not published: everything sent outside `head..tail`.
///
/// For the lane's new sender, before it publishes anything.
pub(super) fn adopt(shelf: &impl Shelf, tail: u64) {
    for block in 0..shelf.count() {
        let state = shelf.state(block);
        let seen = state.load(Ordering::Relaxed);
        if seen & KIND == SENT && seen >> 2 >= tail {
            state.store(FREE, Ordering::Relaxed);
        }
    }
}
