//! What both ends of a queue share: the header, the lanes, the seats, and who is there.
//!
//! # Coming and going
//!
//! A sender owns a lane, a receiver a seat, by an owner word each (see [`roster`]). Nobody
//! counts them, since counts drift when processes are killed. The header's `state` word says what has been *concluded*:
//!
//! | bits of `state` | meaning |
//! |---|---|
//! | 0 | no sender is left, and none may come: receivers say `Closed` when all is empty |
//! | 1 | no receiver is left, and none may come: senders say `Closed` |
//! | 2 | of a named queue: others than its maker have come |
//! | 3.. | count of comings: goes up after every end that was attached |
//!
//! To conclude: read `state`, find no owner alive (and, for bit 0, then find all lanes empty), and set
//! the bit by one compare-and-swap from the word read. If anybody came meanwhile, perhaps to a lane
//! already passed over, the count has changed and nothing is concluded. Edge I: an end that came raises
//! the count ([`Hub::come`]) before the one it came from lets go of its word (edge E); who sees that word free sees the count.
//!
//! Of a named queue nothing is concluded before bit 2 is set, since the others find it when they please; and bits 0
//! and 1 are taken back when somebody comes to that side.

use std::time::Instant;

use crate::error::{Corrupt, SegmentError};
use crate::handle::{self, Carriage, Over, Travelling};
use crate::kin;
use crate::layout::{LaneHeader, QueueHeader};
use crate::message::{self, Message};
use crate::named;
use crate::roster::{self, Life, Owner};
use crate::segment::{Bytes, Segment, View, Words};
use crate::sync::{self, AtomicU64, Futex, Ordering};

use super::blocks::Shelf;
use super::error::QueueError;
use super::plan::Plan;

const NO_SENDERS: u64 = 1;
const NO_RECEIVERS: u64 = 2;
const MET: u64 = 4;
const COMING: u64 = 8;

/// Bytes of a lane that are made present when its sender comes; the rest at first touch.
const POPULATE: u64 = 8 << 20;

/// Which ends are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Senders,
    Receivers,
}

impl Side {
    fn gone(self) -> u64 {
        match self {
            Side::Senders => NO_SENDERS,
            Side::Receivers => NO_RECEIVERS,
        }
    }
}

/// A look that found nobody on one side; worth something only if [`Hub::conclude`] confirms it.
#[derive(Debug)]
pub(super) struct Nobody {
    side: Side,
    state: u64,
}

/// One lane, as this process sees it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) header: View<LaneHeader>,
    pub(super) slots: Words,
    /// No bytes if messages lie in the slots.
    pub(super) blocks: Bytes,
    /// The queue's own header, and the plan that says where blocks lie.
    pub(super) queue: View<QueueHeader>,
    /// Whether the receiver of each seat has a message in hand that names handles.
    pub(super) hands: Words,
    pub(super) plan: Plan,
    number: u32,
}

impl Shelf for Lane {
    #[inline]
    fn count(&self) -> u32 {
        self.plan.blocks
    }

    #[inline]
    fn state(&self, block: u32) -> &AtomicU64 {
        self.blocks.word(self.plan.block_at(block))
    }

    #[inline]
    fn length(&self, block: u32) -> &AtomicU64 {
        self.blocks.word(self.plan.block_at(block) + 8)
    }
}

impl Lane {
    fn segment(&self) -> &Segment {
        self.blocks.segment()
    }

    /// Writes a message that does not fit in its slot or block into the annex of that.
    pub(super) fn write_annex(&self, index: u64, message: &[u8]) -> Result<(), SegmentError> {
        let at = self.plan.annex_at(self.number, index);
        self.segment().write_tail(at, message)
    }

    /// Reads a message out of the annex of its slot or block.
    pub(super) fn read_annex(&self, index: u64, to: &mut [u8]) -> Result<(), Corrupt> {
        let at = self.plan.annex_at(self.number, index);
        let read = self.segment().read_tail(at, to);
        read.map_err(|_| Corrupt("the memory of a long message cannot be read"))
    }

    /// Gives the memory of so many annexes back to the system, of those behind the last the first ones.
    pub(super) fn empty_annexes(&self, first: u64, count: u64) {
        let all = self.plan.annexes();
        let behind = (first + count).saturating_sub(all);
        for (first, count) in [(first, count - behind), (0, behind)] {
            let at = self.plan.annex_at(self.number, first);
            // What is not given back now is when something else lies there, or the queue is gone.
            let _ = self.segment().punch_tail(at, count * self.plan.annex());
        }
    }

    /// Closes the hand of a seat, until what is returned is dropped: to be called before a message that names
    /// handles is taken, for what has been decoded then need not be held by its sender any more.
    pub(super) fn hand(&self, seat: u32) -> Hand<'_> {
        let word = self.hands.get(seat as usize);
        if let Some(word) = word {
            // Edge Q, receiver's end: the release that takes the message comes after it. Odd also if the last owner
            // of the seat died with its hand closed.
            word.store(
                word.load(Ordering::Relaxed).wrapping_add(2) | 1,
                Ordering::Relaxed,
            );
        }
        Hand(word)
    }
}

/// A closed hand; see [`Lane::hand`].
#[derive(Debug)]
pub(super) struct Hand<'a>(Option<&'a AtomicU64>);

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        if let Some(word) = self.0 {
            // Edge Q: what it had in hand is decoded.
            word.store(
                word.load(Ordering::Relaxed).wrapping_add(1),
                Ordering::Release,
            );
        }
    }
}

/// A queue, as this process sees it.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    pub(super) plan: Plan,
    pub(super) header: View<QueueHeader>,
    seats: Words,
    pub(super) segment: Segment,
    me: u32,
    /// The tree's count of deaths.
    pub(super) deaths: &'static Futex,
}

/// The text that tells a queue of `T` from anything else.
pub(super) fn shape<T: Message>() -> String {
    format!("queue of {}", message::shape_name::<T>())
}

impl Hub {
    /// A new queue that nobody else knows yet.
    pub(super) fn build<T: Message>(plan: Plan) -> Result<Hub, QueueError> {
        let first = plan.commit();
        Hub::lay_out(
            Segment::build("queue", &shape::<T>(), plan.bytes(), first)?,
            plan,
        )
    }

    /// A new queue of that name, in which `attach` has its ends before anybody else can find it.
    pub(super) fn create<T: Message, R>(
        name: &str,
        plan: Plan,
        attach: impl FnOnce(Hub) -> Result<R, QueueError>,
    ) -> Result<R, QueueError> {
        let (first, deadline) = (plan.commit(), named::patience());
        named::create(
            name,
            &shape::<T>(),
            plan.bytes(),
            first,
            deadline,
            |segment| attach(Hub::lay_out(segment.clone(), plan)?),
        )
    }

    /// The queue of that name; others than its maker have come when `attach` has its ends.
    pub(super) fn open<T: Message, R>(
        name: &str,
        deadline: Instant,
        attach: impl FnOnce(Hub) -> Result<R, QueueError>,
    ) -> Result<R, QueueError> {
        Hub::join::<T, R>(named::open(name, deadline)?, attach)
    }

    /// As [`open`](Hub::open), or as [`create`](Hub::create) if no living process has that name.
    pub(super) fn open_or_create<T: Message, R>(
        name: &str,
        plan: Plan,
        open: impl FnOnce(Hub) -> Result<R, QueueError>,
        create: impl Fn(Hub) -> Result<R, QueueError>,
    ) -> Result<R, QueueError> {
        let first = plan.commit();
        named::open_or_create(
            name,
            &shape::<T>(),
            plan.bytes(),
            first,
            |segment| Hub::join::<T, R>(segment, open),
            |segment| create(Hub::lay_out(segment.clone(), plan)?),
        )
    }

    fn join<T: Message, R>(
        segment: Segment,
        attach: impl FnOnce(Hub) -> Result<R, QueueError>,
    ) -> Result<R, QueueError> {
        let hub = Hub::attach::<T>(segment)?;
        let ends = attach(hub.clone())?;
        hub.meet();
        Ok(ends)
    }

    fn lay_out(segment: Segment, plan: Plan) -> Result<Hub, QueueError> {
        let hub = Hub::over(segment, plan)?;
        plan.write(&hub.header);
        Ok(hub)
    }

    /// The queue that lies in a segment.
    pub(super) fn attach<T: Message>(segment: Segment) -> Result<Hub, QueueError> {
        segment.expect_shape(&shape::<T>())?;
        let header = segment.view::<QueueHeader>(0)?;
        let plan = Plan::read::<T>(&header, segment.len() as u64, segment.tail()).ok_or(
            SegmentError::Corrupt(Corrupt("a queue's numbers do not fit its segment")),
        )?;
        // Lanes get their memory when they are taken.
        segment.expect_allocated(plan.front())?;
        Hub::over(segment, plan)
    }

    fn over(segment: Segment, plan: Plan) -> Result<Hub, QueueError> {
        Ok(Hub {
            plan,
            header: segment.view(0)?,
            seats: segment.slots(plan.seats_at(), u64::from(plan.seats))?,
            deaths: kin::kin().map_err(SegmentError::Io)?.deaths(),
            me: segment.life().me(),
            segment,
        })
    }

    /// Whether the queue holds its messages in blocks.
    #[inline]
    pub(super) fn is_in_place(&self) -> bool {
        self.plan.blocks != 0
    }

    /// This process's number in the segment's roster.
    #[inline]
    pub(super) fn me(&self) -> u32 {
        self.me
    }

    /// Lanes that were ever taken.
    pub(super) fn used(&self) -> u32 {
        // Edge I: who sees a lane counted sees its memory committed.
        self.header
            .used
            .load(Ordering::Acquire)
            .min(self.plan.lanes)
    }

    fn lane_header(&self, number: u32) -> Result<&LaneHeader, SegmentError> {
        self.segment.part(self.plan.lane(number).0)
    }

    /// Where a message lies that was sent at a position of a lane, in its slot or in that block.
    pub(super) fn carriage(&self, number: u32, position: u64, block: Option<u32>) -> Carriage {
        let (lane, _) = self.plan.lane(number);
        let (at, over) = match block {
            // The head is the first word of a lane.
            None => (lane, Over::Reached(position.wrapping_add(1))),
            Some(block) => {
                let at = self.plan.blocks().0 + self.plan.block_at(block) as u64;
                (lane + at, Over::Block(position))
            }
        };
        Carriage {
            segment: Travelling(self.segment.clone()),
            at,
            over,
            readers: (self.plan.seats_at(), self.plan.seats),
            hands: self.plan.hands_at(),
        }
    }

    /// A lane that was ever taken.
    pub(super) fn lane(&self, number: u32) -> Result<Lane, SegmentError> {
        let (at, _) = self.plan.lane(number);
        let (blocks_at, blocks_len) = self.plan.blocks();
        Ok(Lane {
            header: self.segment.view(at)?,
            slots: self
                .segment
                .slots(at + self.plan.slots_at(), self.plan.geometry().words())?,
            blocks: self.segment.bytes(at + blocks_at, blocks_len)?,
            queue: self.header.clone(),
            hands: self
                .segment
                .slots(self.plan.hands_at(), u64::from(self.plan.seats))?,
            plan: self.plan,
            number,
        })
    }

    /// Makes the pages of a lane present in this process, but for those of many or large blocks.
    pub(super) fn populate_lane(&self, number: u32) {
        let (at, bytes) = self.plan.lane(number);
        self.segment.populate(at, bytes.min(POPULATE));
    }

    /// Takes a free lane, or one whose owner is dead, and gives it memory if it never had any.
    pub(super) fn take_lane(&self, owner: Owner) -> Result<u32, QueueError> {
        let used = self.used();
        for number in 0..self.plan.lanes {
            let (at, bytes) = self.plan.lane(number);
            if number >= used {
                self.segment.commit(at, bytes)?;
            }
            let header = self.lane_header(number)?;
            if roster::claim(&header.owner, owner, self.segment.life()) {
                // Edge I, coming end.
                self.header.used.fetch_max(number + 1, Ordering::Release);
                self.come(Side::Senders);
                return Ok(number);
            }
        }
        Err(QueueError::TooManySenders {
            limit: self.plan.lanes,
        })
    }

    /// Takes a free seat, or one whose owner is dead.
    pub(super) fn take_seat(&self, owner: Owner) -> Result<u32, QueueError> {
        let taken = self
            .seats
            .iter()
            .position(|seat| roster::claim(seat, owner, self.segment.life()));
        match taken {
            Some(seat) => {
                self.come(Side::Receivers);
                Ok(seat as u32)
            }
            None => Err(QueueError::TooManyReceivers {
                limit: self.plan.seats,
            }),
        }
    }

    /// Takes over a lane or a seat that was on its way here; false if it has been freed meanwhile.
    pub(super) fn arrive(&self, side: Side, number: u32, tag: u32) -> Result<bool, SegmentError> {
        let to = Owner::Held(self.me());
        let arrived = self.with_owner(side, number, |word| roster::arrive(word, tag, to))?;
        if arrived {
            self.come(side);
        }
        Ok(arrived)
    }

    /// Changes who holds a lane or a seat, if it is held by `from`.
    pub(super) fn hand_over(&self, side: Side, number: u32, from: Owner, to: Owner) -> bool {
        self.with_owner(side, number, |word| roster::hand_over(word, from, to))
            .is_ok_and(|done| done)
    }

    /// Offset of the owner word of a lane or a seat.
    pub(super) fn owner_at(&self, side: Side, number: u32) -> u64 {
        match side {
            Side::Senders => {
                self.plan.lane(number).0 + std::mem::offset_of!(LaneHeader, owner) as u64
            }
            Side::Receivers => self.plan.seats_at() + 8 * u64::from(number),
        }
    }

    /// Edge I, coming end: counted before the end is used, or the one it came from is given up.
    fn come(&self, side: Side) {
        if !self.segment.is_named() {
            self.header.state.fetch_add(COMING, Ordering::AcqRel);
            return;
        }
        let mut seen = self.header.state.load(Ordering::Relaxed);
        while let Err(now) = self.header.state.compare_exchange(
            seen,
            (seen & !side.gone()).wrapping_add(COMING),
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            seen = now;
        }
    }

    /// Notes that others than the maker of a named queue have come, and have their ends.
    pub(super) fn meet(&self) {
        if self.segment.is_named() {
            self.header.state.fetch_or(MET, Ordering::AcqRel);
        }
    }

    fn with_owner<R>(
        &self,
        side: Side,
        number: u32,
        act: impl FnOnce(&AtomicU64) -> R,
    ) -> Result<R, SegmentError> {
        const OUTSIDE: SegmentError = SegmentError::Corrupt(Corrupt("an end outside its queue"));
        match side {
            Side::Senders if number < self.used() => Ok(act(&self.lane_header(number)?.owner)),
            Side::Receivers => self.seats.get(number as usize).map(act).ok_or(OUTSIDE),
            Side::Senders => Err(OUTSIDE),
        }
    }

    /// Gives a lane or a seat back. If it was the last of its side, the other side hears of it.
    pub(super) fn leave(&self, side: Side, number: u32, owner: Owner) {
        if self
            .with_owner(side, number, |word| roster::release(word, owner))
            .is_err()
        {
            return;
        }
        // Of two that leave at once, the later sees both gone.
        sync::fence();
        if let Some(nobody) = self.nobody(side) {
            match side {
                // Receivers conclude for themselves, when they have taken what is there.
                Side::Senders => self.header.empty.notify_all(),
                Side::Receivers => _ = self.conclude(nobody),
            }
        }
        if side == Side::Receivers {
            // What nobody will read any more, nobody need hold.
            handle::look();
        }
    }

    /// Looks whether anybody is left on a side, asking the system about each owner until one lives.
    pub(super) fn nobody(&self, side: Side) -> Option<Nobody> {
        self.look_round(side, self.segment.life())
    }

    /// As [`nobody`](Hub::nobody), but asks the system only if `ask`; else whoever has not left is there.
    pub(super) fn nobody_if(&self, ask: bool, side: Side) -> Option<Nobody> {
        match ask {
            true => self.nobody(side),
            false => self.look_round(side, &Unasked),
        }
    }

    fn look_round(&self, side: Side, life: &impl Life) -> Option<Nobody> {
        // Edge I, looking end: before the owners are looked at.
        let state = self.header.state.load(Ordering::Acquire);
        if state & MET == 0 && self.segment.is_named() {
            return None;
        }
        let somebody = match side {
            Side::Receivers => self.seats.iter().any(|seat| roster::is_held(seat, life)),
            Side::Senders => (0..self.used()).any(|number| {
                self.lane_header(number)
                    .is_ok_and(|header| roster::is_held(&header.owner, life))
            }),
        };
        (!somebody).then_some(Nobody { side, state })
    }

    /// Makes it final that nobody is left on a side; false if somebody has come since the look.
    pub(super) fn conclude(&self, nobody: Nobody) -> bool {
        let Nobody { side, state } = nobody;
        // Edge I, looking end: unchanged since before the owners were looked at.
        let done = self
            .header
            .state
            .compare_exchange(
                state,
                state | side.gone(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok();
        if done {
            match side {
                Side::Senders => self.header.empty.notify_all(),
                Side::Receivers => (0..self.used())
                    .filter_map(|number| self.lane_header(number).ok())
                    .for_each(|header| header.full.notify_all()),
            }
        }
        done
    }

    /// Whether it is final that nobody is left on a side.
    #[inline]
    pub(super) fn is_gone(&self, side: Side) -> bool {
        self.header.state.load(Ordering::Acquire) & side.gone() != 0
    }

    /// Whether a send has a chance: neither side is known to be gone.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.header.state.load(Ordering::Relaxed) & (NO_SENDERS | NO_RECEIVERS) == 0
    }

    /// Whether others have taken this process for dead.
    pub(super) fn is_evicted(&self) -> bool {
        self.segment.life().is_evicted()
    }

    /// Refuses to work in a process forked by the user.
    pub(super) fn check_fork(&self) -> Result<(), SegmentError> {
        match kin::forked() {
            true => Err(SegmentError::Forked),
            false => Ok(()),
        }
    }

    /// Tells receivers that a block was given back.
    pub(super) fn announce_returned(&self) {
        announce_returned(&self.header);
    }

    /// Counts an end that goes to sleep.
    pub(super) fn count_wait(&self) {
        self.header.waits.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells receivers that a block was given back. Edge H, counting end: after the block's own word.
pub(super) fn announce_returned(header: &QueueHeader) {
    header.returned.fetch_add(1, Ordering::Release);
    header.empty.notify_one();
}

/// Holds everybody alive, without asking.
struct Unasked;

impl Life for Unasked {
    fn me(&self) -> u32 {
        0
    }

    fn is_dead(&self, _: u32) -> bool {
        false
    }

    fn is_evicted(&self) -> bool {
        false
    }
}
