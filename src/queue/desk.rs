//! Where a receiver looks for messages: its private positions in all lanes.

use std::sync::Arc;

use bytemuck::cast_slice;

use crate::error::{Corrupt, RecvError};
use crate::handle;
use crate::message::{self, Message};
use crate::ring::Reader;
use crate::signal::Vigil;
use crate::sync::Ordering;

use super::batch::{Batch, TOO_LONG, Values, length_of};
use super::blocks::{self, Holder, InHand, Taken};
use super::claim::Claim;
use super::hub::{Hub, Lane};
use super::plan::{CARRIES, LONG, Plan};
use super::words::copy;

/// Messages a receiver takes from one lane before it looks at the next.
const STAY: u64 = 64;
/// The same in batches.
const STAY_BATCHES: u64 = 8;
/// Rounds over all lanes in which others were quicker, before this thread lets others run.
const ROUNDS: usize = 100;
/// How often it does so before it is told that those others do not exist. In each round somebody
/// moved a head, so no receiver of this crate is that unlucky; a peer that scribbles over heads
/// must not keep it for ever.
const YIELDS: usize = 100;

/// What came of a look at one lane.
pub(super) enum Look<R> {
    Found(Result<R, RecvError>),
    Nothing,
    /// Somebody else was quicker.
    Lost,
}

/// A lane and my place in it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) lane: Arc<Lane>,
    reader: Reader,
    /// My own seat.
    seat: u32,
}

#[derive(Debug)]
pub(super) struct Desk {
    lanes: Vec<Seen>,
    current: usize,
    /// Messages I may still take here before I look at the next lane.
    left: u64,
    /// Copies of what was in slots.
    scratch: Vec<u64>,
    /// Messages that were taken and are not read yet.
    batch: Batch,
    seat: u32,
    /// The count of returned blocks when I last found none.
    returned: u64,
    pub(super) vigil: Vigil,
}

impl Desk {
    pub(super) fn new(hub: &Hub, seat: u32) -> Desk {
        let slot = hub.plan.geometry().stride;
        let mut desk = Desk {
            lanes: Vec::new(),
            current: 0,
            left: 0,
            scratch: vec![0; slot],
            batch: Batch::default(),
            seat,
            returned: 0,
            vigil: Vigil::new(),
        };
        // A lane that cannot be seen now is reported by the first receive.
        let _ = desk.see_new_lanes(hub);
        // Receivers start at different lanes.
        desk.current = (seat as usize).checked_rem(desk.lanes.len()).unwrap_or(0);
        desk
    }

    /// A value from the lane where the last one came from, if one is there and it is not time to move on.
    #[inline(always)]
    pub(super) fn take_here<T: Message>(&mut self, hub: &Hub) -> Option<Result<T, RecvError>> {
        if self.left == 0 {
            return None;
        }
        let seen = self.lanes.get_mut(self.current)?;
        match take_value(seen, &mut self.scratch, hub.plan.message_size) {
            Look::Found(found) => {
                self.left -= 1;
                Some(found)
            }
            Look::Nothing => None,
            Look::Lost => {
                // Others are at this lane; the next may be quieter.
                self.left = 0;
                None
            }
        }
    }

    /// A held block from the lane where the last one came from, as [`take_here`](Desk::take_here).
    #[inline(always)]
    pub(super) fn claim_here(&mut self, hub: &Hub) -> Option<Result<Claim, RecvError>> {
        if self.left == 0 || hub.header.returned.load(Ordering::Relaxed) != self.returned {
            return None;
        }
        let holder = self.holder(hub);
        match take_block(self.lanes.get_mut(self.current)?, holder) {
            Look::Found(found) => {
                self.left -= 1;
                Some(found)
            }
            Look::Nothing => None,
            Look::Lost => {
                self.left = 0;
                None
            }
        }
    }

    /// A value from any lane.
    #[inline]
    pub(super) fn find_value<T: Message>(&mut self, hub: &Hub) -> Result<Option<T>, RecvError> {
        let limit = hub.plan.message_size;
        self.find(
            hub,
            STAY,
            |seen, scratch| take_value(seen, scratch, limit),
            |_| 1,
        )
    }

    /// Takes up to `most` messages from one lane, to be [read](Desk::read) afterwards.
    pub(super) fn find_batch<T: Message>(
        &mut self,
        hub: &Hub,
        most: usize,
    ) -> Result<Option<Took<T>>, RecvError> {
        let stay = STAY.max(STAY_BATCHES.saturating_mul(most as u64));
        let mut batch = std::mem::take(&mut self.batch);
        let found = self.find(
            hub,
            stay,
            |seen, scratch| take_batch(seen, &mut batch, &hub.plan, most, scratch),
            |took| match took {
                Took::Batch(count) => *count as u64,
                Took::Rare(_) => 1,
            },
        );
        self.batch = batch;
        found
    }

    /// Takes a message out of its block, to be [read](Desk::read) afterwards; whether there may be
    /// more.
    pub(super) fn gather(&mut self, claim: Claim) -> Result<bool, Corrupt> {
        self.batch.push(claim)
    }

    /// Whether there are messages that were taken and not read.
    #[inline]
    pub(super) fn has_unread(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Reads up to `most` of the messages that were taken.
    pub(super) fn read<T: Message>(&mut self, hub: &Hub, most: usize) -> Values<T> {
        // As long as any is unread, none is received past it.
        let left = std::mem::take(&mut self.left);
        let values = self.batch.read(most, hub.plan.message_limit);
        if self.batch.is_empty() {
            self.left = left;
            self.batch.shrink();
        }
        values
    }

    /// A held block from any lane; first those that another receiver gave back.
    pub(super) fn find_claim(&mut self, hub: &Hub) -> Result<Option<Claim>, RecvError> {
        if self.left == 0 && self.vigil.has_news(hub.deaths) && self.vigil.is_due(hub.deaths) {
            self.recover(hub);
        }
        // Edge G: a block is given back before it is counted.
        let returned = hub.header.returned.load(Ordering::Acquire);
        if returned != self.returned {
            self.see_new_lanes(hub)?;
            let holder = self.holder(hub);
            for seen in &self.lanes {
                if let Some((block, hold)) = blocks::claim_returned(&*seen.lane, holder) {
                    hub.header.redelivered.fetch_add(1, Ordering::Relaxed);
                    let claim = Claim::new(seen.lane.clone(), block, hold);
                    return match claim.failures() < hub.plan.delivery_limit {
                        true => Ok(Some(claim)),
                        false => Err(claim.give_up()),
                    };
                }
            }
            self.returned = returned;
        }
        let holder = self.holder(hub);
        self.find(hub, STAY, |seen, _| take_block(seen, holder), |_| 1)
    }

    /// Gives back what dead receivers held, also in lanes that only they have seen.
    pub(super) fn recover(&mut self, hub: &Hub) {
        // A lane that cannot be seen is reported by the next receive.
        let _ = self.see_new_lanes(hub);
        let life = hub.segment.life();
        let mut any = false;
        for seen in &self.lanes {
            any |= blocks::recover(&*seen.lane, life);
        }
        if any {
            hub.announce_returned();
        }
    }

    /// Whose hands messages are in.
    pub(super) fn in_hand(&self, hub: &Hub) -> InHand {
        let me = self.holder(hub);
        self.lanes.iter().fold(InHand::default(), |all, seen| {
            let here = blocks::in_hand(&*seen.lane, me);
            InHand {
                mine: all.mine | here.mine,
                others: all.others | here.others,
            }
        })
    }

    /// Whether a lane has anything for me now; it may be somebody else's at once.
    pub(super) fn has_more(&mut self, hub: &Hub) -> bool {
        // A lane that cannot be seen is reported by the next receive.
        let unseen = self.see_new_lanes(hub).is_err();
        unseen
            || self.has_unread()
            || self.lanes.iter_mut().any(|seen| {
                seen.reader
                    .peek(&seen.lane.header, &seen.lane.slots)
                    .map_or(true, |payload| payload.is_some())
            })
    }

    fn holder(&self, hub: &Hub) -> Holder {
        Holder {
            participant: hub.me(),
            seat: self.seat,
        }
    }

    /// Looks at lanes taken since I last looked.
    fn see_new_lanes(&mut self, hub: &Hub) -> Result<(), RecvError> {
        for number in self.lanes.len() as u32..hub.used() {
            let lane = hub
                .lane(number)
                .map_err(|_| Corrupt("a lane lies outside its queue"))?;
            let reader = Reader::attach(hub.plan.geometry(), &lane.header);
            self.lanes.push(Seen {
                lane: Arc::new(lane),
                reader,
                seat: self.seat,
            });
        }
        Ok(())
    }

    /// Goes round the lanes, from this one or, if I have been here long, from the next. `None`
    /// means that each was empty when it was looked at: a round in which somebody was quicker says
    /// nothing of the kind.
    fn find<R>(
        &mut self,
        hub: &Hub,
        stay: u64,
        mut take: impl FnMut(&mut Seen, &mut [u64]) -> Look<R>,
        taken: impl FnOnce(&R) -> u64,
    ) -> Result<Option<R>, RecvError> {
        self.see_new_lanes(hub)?;
        let count = self.lanes.len();
        for round in 1..=ROUNDS * YIELDS {
            let mut lost = false;
            let mut next = self.current + usize::from(self.left == 0);
            for _ in 0..count {
                let at = if next < count { next } else { 0 };
                next = at + 1;
                match take(&mut self.lanes[at], &mut self.scratch) {
                    Look::Found(found) => {
                        if at != self.current || self.left == 0 {
                            (self.current, self.left) = (at, stay);
                        }
                        let used = found.as_ref().map_or(1, taken);
                        self.left = self.left.saturating_sub(used);
                        return found.map(Some);
                    }
                    Look::Nothing => {}
                    Look::Lost => lost = true,
                }
            }
            if !lost {
                return Ok(None);
            }
            if round % ROUNDS == 0 {
                std::thread::yield_now();
            }
        }
        Err(Corrupt("a lane's head moves on without end").into())
    }
}

/// Takes the next value of a lane whose messages lie in slots.
#[inline(always)]
fn take_value<T: Message>(seen: &mut Seen, scratch: &mut [u64], limit: usize) -> Look<T> {
    let Seen { lane, reader, .. } = seen;
    let header = &*lane.header;
    let payload = match reader.peek(header, &lane.slots) {
        Ok(Some(payload)) => payload,
        Ok(None) => return Look::Nothing,
        Err(corrupt) => return Look::Found(Err(corrupt.into())),
    };
    let decoded = match message::fixed_size::<T>() {
        Some(size) if size <= 8 => {
            let word = payload
                .first()
                .map_or(0, |word| word.load(Ordering::Relaxed));
            if !reader.take(header, 1) {
                return Look::Lost;
            }
            message::decode(&word.to_ne_bytes()[..size])
        }
        Some(size) => {
            let words = &mut scratch[..size.div_ceil(8)];
            copy(payload, words);
            if !reader.take(header, 1) {
                return Look::Lost;
            }
            message::decode(&cast_slice(words)[..size])
        }
        None => {
            // Until the message is taken its length is as doubtful as its bytes.
            let length = length_of(payload);
            if length > limit {
                return take_rare(seen, scratch, limit);
            }
            let words = &mut scratch[..length.div_ceil(8)];
            copy(&payload[1..], words);
            if !reader.take(header, 1) {
                return Look::Lost;
            }
            message::decode(&cast_slice(words)[..length])
        }
    };
    Look::Found(decoded.map_err(RecvError::Decode))
}

/// As [`take_value`], for a message that names handles or lies in the annex of its slot, or one whose length is
/// nonsense.
#[cold]
fn take_rare<T: Message>(seen: &mut Seen, scratch: &mut [u64], limit: usize) -> Look<T> {
    let Seen { lane, reader, seat } = seen;
    let header = &*lane.header;
    let payload = match reader.peek(header, &lane.slots) {
        Ok(Some(payload)) => payload,
        Ok(None) => return Look::Nothing,
        Err(corrupt) => return Look::Found(Err(corrupt.into())),
    };
    let word = payload
        .first()
        .map_or(0, |word| word.load(Ordering::Relaxed));
    let length = usize::try_from(word & !(CARRIES | LONG)).unwrap_or(usize::MAX);
    let (is_long, limit) = match word & LONG != 0 {
        true => (true, lane.plan.message_limit),
        false => (false, limit),
    };
    let mut long = Vec::new();
    let mut read = Ok(());
    let words = &mut scratch[..if is_long {
        0
    } else {
        length.min(limit).div_ceil(8)
    }];
    if is_long && length <= limit {
        // Before it is taken: afterwards its sender may write there again. Somebody else may be quicker meanwhile.
        long.resize(length, 0);
        read = lane.read_annex(lane.plan.annex_of(reader.position()), &mut long);
    }
    copy(&payload[1..], words);
    // Until it is decoded.
    let _hand = lane.hand(*seat);
    if !reader.take(header, 1) {
        return Look::Lost;
    }
    if length > limit {
        return Look::Found(Err(TOO_LONG.into()));
    }
    if let Err(corrupt) = read {
        return Look::Found(Err(corrupt.into()));
    }
    let bytes = match is_long {
        true => &long[..],
        false => &cast_slice(words)[..length],
    };
    let decoded = handle::with_names(lane.blocks.segment().is_named(), || message::decode(bytes));
    Look::Found(decoded.map_err(RecvError::Decode))
}

/// What [`Desk::find_batch`] took.
#[derive(Debug)]
pub(super) enum Took<T> {
    /// So many messages, to be [read](Desk::read).
    Batch(usize),
    /// One that names handles, or lies in the annex of its slot.
    Rare(T),
}

/// Takes up to `most` messages of a lane whose messages lie in slots, with one step of its head.
fn take_batch<T: Message>(
    seen: &mut Seen,
    batch: &mut Batch,
    plan: &Plan,
    most: usize,
    scratch: &mut [u64],
) -> Look<Took<T>> {
    let limit = plan.message_size;
    let Seen { lane, reader, .. } = seen;
    let header = &*lane.header;
    match reader.peek(header, &lane.slots) {
        Ok(Some(payload)) => {
            if message::fixed_size::<T>().is_none() && length_of(payload) > limit {
                return match take_rare(seen, scratch, limit) {
                    Look::Found(found) => Look::Found(found.map(Took::Rare)),
                    Look::Nothing => Look::Nothing,
                    Look::Lost => Look::Lost,
                };
            }
        }
        Ok(None) => return Look::Nothing,
        Err(corrupt) => return Look::Found(Err(corrupt.into())),
    }
    let run = reader.run(&lane.slots).take(most);
    let count = batch.copy::<T>(run, plan.geometry().stride, plan.message_size);
    // None at all if I have been overtaken since.
    if count == 0 || !reader.take(header, count as u64) {
        return Look::Lost;
    }
    batch.taken(count);
    Look::Found(Ok(Took::Batch(count)))
}

/// Takes the next block of a lane whose messages lie in blocks.
#[inline(always)]
fn take_block(seen: &mut Seen, holder: Holder) -> Look<Claim> {
    let Seen { lane, reader, .. } = seen;
    match blocks::take(&**lane, &lane.header, &lane.slots, reader, holder) {
        Ok(Taken::Block(block, hold)) => Look::Found(Ok(Claim::new(lane.clone(), block, hold))),
        Ok(Taken::Nothing) => Look::Nothing,
        Ok(Taken::Lost) => Look::Lost,
        Err(corrupt) => Look::Found(Err(corrupt.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::plan::Wishes;
    use crate::queue::sender::Sender;

    #[test]
    fn a_lost_round_is_not_an_empty_one() {
        let hub = Hub::build::<u64>(Plan::new::<u64>(Wishes::default()).unwrap()).unwrap();
        let _sender = Sender::<u64>::attach(hub.clone()).unwrap();
        let mut desk = Desk::new(&hub, 0);
        // So many times others are quicker, and then there is a message, or none.
        let mut find = |lost: usize, then: fn() -> Look<u64>| {
            let mut rounds = 0;
            let take = |_: &mut Seen, _: &mut [u64]| {
                rounds += 1;
                if rounds <= lost { Look::Lost } else { then() }
            };
            desk.find(&hub, STAY, take, |_| 1)
        };
        for lost in [0, 1, 99, 100, 101, 1000, 9999] {
            assert_eq!(find(lost, || Look::Found(Ok(7))), Ok(Some(7)), "{lost}");
            assert_eq!(find(lost, || Look::Nothing), Ok(None), "{lost}");
        }
        // No one is that slow: it is told, and it ends.
        let error = find(usize::MAX, || Look::Nothing);
        assert!(matches!(error, Err(RecvError::Corrupt(_))), "{error:?}");
    }
}
