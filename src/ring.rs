//! A lane: slots in order, written by exactly one process, read by any number.
//!
//! Positions are 64-bit, start at 0 and never wrap. A slot is a *stamp* and payload words; the
//! stamp is position + 1 of the message the slot holds. Only the lane's writer ever stores stamps
//! and payload.
//!
//! | what | who changes it | how |
//! |---|---|---|
//! | stamp, payload | the writer | payload relaxed, then the stamp with release |
//! | `head` | readers | one compare-and-swap from *p* to *p + n*: the moment of consumption |
//! | `freed` | the reader whose step crossed an eighth of the lane | a store with release; a hint, always at or behind `head`; then it wakes the writer |
//!
//! A reader copies the payload *first* and then moves `head`. If that fails, somebody else took the
//! message and the copy, perhaps torn by then, is thrown away unseen. If it succeeds, nobody had
//! moved `head` away from *p*, so the writer could not have reused the slot before: the copy is
//! whole. A process that is killed or stopped anywhere in here leaves nothing half done; no repair
//! exists because none is needed. This is the "steal" of Chase and Lev's deque used as a queue: one
//! owner at one end, thieves at the other.
//!
//! Edges, with both ends named:
//!
//! | edge | release | acquire | what it carries |
//! |---|---|---|---|
//! | A | the stamp in [`Writer::publish`] | the stamp in [`Reader::peek`] and [`Reader::run`] | the payload |
//! | A through `head` | `head` in [`Reader::take`] | `head` in [`Reader::attach`] and [`Reader::peek`] | the stamps that the taker had seen: none that is found there is of two laps before |
//! | B | `head` in [`Reader::take`], directly or through `freed` | `freed` or `head` in [`Writer::room`] | that the copy is finished before the slot is overwritten |
//!
//! Nothing here trusts what it reads: positions are only compared and masked, every loop has a
//! bound.

use crate::error::Corrupt;
use crate::layout::LaneHeader;
use crate::sync::{AtomicU64, Ordering};

/// The shape of a lane, private to each process and checked when it attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Messages the lane holds at most.
    pub(crate) capacity: u64,
    /// Words of one slot: the stamp and the payload.
    pub(crate) stride: usize,
}

impl Geometry {
    /// Slots of the lane: the capacity, rounded up so that a position is masked, not divided.
    pub(crate) const fn slots(self) -> u64 {
        self.capacity.next_power_of_two()
    }

    /// Words of all slots together.
    pub(crate) const fn words(self) -> u64 {
        self.slots() * self.stride as u64
    }

    fn track(self) -> Track {
        Track {
            mask: self.slots() - 1,
            stride: self.stride,
        }
    }

    /// `freed` is stored when `head` crosses a multiple of two to the power of this.
    fn step(self) -> u32 {
        (self.slots() / 8).max(1).trailing_zeros()
    }
}

/// Where a position's slot is: worked out once, since every message needs it.
#[derive(Debug, Clone, Copy)]
struct Track {
    mask: u64,
    stride: usize,
}

impl Track {
    #[inline]
    fn slot(self, slots: &[AtomicU64], position: u64) -> &[AtomicU64] {
        let index = (position & self.mask) as usize * self.stride;
        &slots[index..][..self.stride]
    }
}

/// Whether the message at `position` has been published, and not overwritten since: to count, not
/// to read it.
fn is_published(track: Track, slots: &[AtomicU64], position: u64) -> bool {
    track.slot(slots, position)[0].load(Ordering::Relaxed) == position.wrapping_add(1)
}

/// Messages published from `head` on: a search by halves, since they lie without a gap.
///
/// Stale at once; a batch that is being published, last stamp first, may be counted or not.
pub(crate) fn published(geometry: Geometry, slots: &[AtomicU64], head: u64) -> u64 {
    let track = geometry.track();
    let (mut some, mut none) = (0, geometry.capacity + 1);
    while none - some > 1 {
        let middle = some + (none - some) / 2;
        if is_published(track, slots, head.wrapping_add(middle - 1)) {
            some = middle;
        } else {
            none = middle;
        }
    }
    some
}

/// The writing end: at most one alive per lane, which [`roster`](crate::roster) sees to.
#[derive(Debug)]
pub(crate) struct Writer {
    track: Track,
    capacity: u64,
    /// The next position to write.
    position: u64,
    /// The last `head` I know of; the true one is at or beyond it.
    head: u64,
    /// One past the last position that may be written without another look at `head`.
    end: u64,
}

impl Writer {
    /// Takes up a lane where its last writer left it; every message published stays in order.
    ///
    /// The caller owns the lane. Stamps of a batch that was never completed are set back to the lap
    /// before, so that a later single message cannot expose an old slot behind it, and a reader who
    /// still is at that lap finds there what it would have found. To be killed in here and done
    /// again is harmless.
    pub(crate) fn attach(geometry: Geometry, header: &LaneHeader, slots: &[AtomicU64]) -> Writer {
        // Edge B: what earlier readers copied is copied.
        let head = header.head.load(Ordering::Acquire);
        let track = geometry.track();
        let stamp = |position: u64| &track.slot(slots, position)[0];
        let is_at =
            |position: u64| stamp(position).load(Ordering::Relaxed) == position.wrapping_add(1);
        let mut tail = head;
        while tail.wrapping_sub(head) < geometry.capacity && is_at(tail) {
            tail = tail.wrapping_add(1);
        }
        let mut position = tail;
        while position.wrapping_sub(head) < geometry.slots() {
            if is_at(position) {
                let lap_before = position.wrapping_add(1).saturating_sub(geometry.slots());
                stamp(position).store(lap_before, Ordering::Relaxed);
            }
            position = position.wrapping_add(1);
        }
        Writer {
            track,
            capacity: geometry.capacity,
            position: tail,
            head,
            end: head.wrapping_add(geometry.capacity),
        }
    }

    /// The position of the next message.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// How many messages fit, judged by what I know and, if that says none, by the lazy `freed`.
    ///
    /// Cheap enough to poll: readers' line stays with the readers.
    #[inline]
    pub(crate) fn room_hint(&mut self, header: &LaneHeader) -> u64 {
        let room = self.end.wrapping_sub(self.position);
        if room != 0 {
            room
        } else {
            self.learn(header.freed.load(Ordering::Acquire))
        }
    }

    /// How many messages fit, exactly: 0 means that the lane was full a moment ago.
    #[inline]
    pub(crate) fn room(&mut self, header: &LaneHeader) -> u64 {
        match self.room_hint(header) {
            0 => self.learn(header.head.load(Ordering::Acquire)),
            room => room,
        }
    }

    /// The first position that may not have been taken yet, as it was a moment ago.
    pub(crate) fn first_in_flight(&mut self, header: &LaneHeader) -> u64 {
        self.learn(header.head.load(Ordering::Acquire));
        self.head
    }

    /// Edge B, writer's end: `head` was stored after the copies it accounts for.
    #[cold]
    fn learn(&mut self, head: u64) -> u64 {
        // A head outside what I published is a lie or stale; believing only what lies between keeps
        // `end - position` within the capacity whatever a peer writes.
        if head.wrapping_sub(self.head) <= self.position.wrapping_sub(self.head) {
            self.head = head;
            self.end = head.wrapping_add(self.capacity);
        }
        self.end.wrapping_sub(self.position)
    }

    /// The payload words of the slot `ahead` messages from here; the caller has seen that much
    /// room.
    #[inline]
    pub(crate) fn payload<'a>(&self, slots: &'a [AtomicU64], ahead: u64) -> &'a [AtomicU64] {
        &self.track.slot(slots, self.position.wrapping_add(ahead))[1..]
    }

    /// Makes the next `n` messages visible, the last one first: a reader looks at one line until
    /// all are there.
    #[inline]
    pub(crate) fn publish(&mut self, slots: &[AtomicU64], n: u64) {
        for ahead in (0..n).rev() {
            let position = self.position.wrapping_add(ahead);
            // Edge A, writer's end.
            self.track.slot(slots, position)[0].store(position.wrapping_add(1), Ordering::Release);
        }
        self.position = self.position.wrapping_add(n);
    }
}

/// How often a reader that was overtaken looks for its place; a model has no time for as many.
const ROUNDS: usize = if cfg!(loom) { 4 } else { 1_000 };

/// A reading end: a private position, good for any number of readers of the same lane.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    track: Track,
    step: u32,
    position: u64,
}

impl Reader {
    /// Starts at the lane's head.
    pub(crate) fn attach(geometry: Geometry, header: &LaneHeader) -> Reader {
        Reader {
            track: geometry.track(),
            step: geometry.step(),
            // Edge A through `head`.
            position: header.head.load(Ordering::Acquire),
        }
    }

    /// The position this reader looks at.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The payload words of the message at my position, if there is one; if I was overtaken I first
    /// catch up with `head`. To be copied by relaxed loads; the copy means something only after
    /// [`take`](Reader::take) has succeeded.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] when `head` and the stamps contradict each other again and again.
    #[inline(always)]
    pub(crate) fn peek<'a>(
        &mut self,
        header: &LaneHeader,
        slots: &'a [AtomicU64],
    ) -> Result<Option<&'a [AtomicU64]>, Corrupt> {
        let (stamp, payload) = self.look(slots);
        if stamp == self.position.wrapping_add(1) {
            return Ok(Some(payload));
        }
        if self.is_older(stamp) || !self.catch_up(header, slots)? {
            return Ok(None);
        }
        Ok(Some(&self.track.slot(slots, self.position)[1..]))
    }

    /// The stamp and the payload of the slot of my position.
    #[inline(always)]
    fn look<'a>(&self, slots: &'a [AtomicU64]) -> (u64, &'a [AtomicU64]) {
        let slot = self.track.slot(slots, self.position);
        // Edge A, reader's end.
        (slot[0].load(Ordering::Acquire), &slot[1..])
    }

    /// Whether a stamp found at my position is of a lap before: nothing is published here yet.
    #[inline]
    fn is_older(&self, stamp: u64) -> bool {
        stamp == 0 || self.position.wrapping_sub(stamp) <= self.track.mask
    }

    #[cold]
    fn catch_up(&mut self, header: &LaneHeader, slots: &[AtomicU64]) -> Result<bool, Corrupt> {
        // Each round in which a living writer laps me means that other readers moved on by a whole
        // lane.
        for _ in 0..ROUNDS {
            // Edge A through `head`: without it an old stamp, of two laps before, might contradict
            // the new `head`.
            self.position = header.head.load(Ordering::Acquire);
            let (stamp, _) = self.look(slots);
            if stamp == self.position.wrapping_add(1) {
                return Ok(true);
            }
            if self.is_older(stamp) {
                return Ok(false);
            }
        }
        Err(Corrupt("a lane's stamps do not belong to its head"))
    }

    /// The payload words of the messages published from my position on, as far as the lane's memory
    /// goes before it starts over. To be copied by relaxed loads; the copies mean something only
    /// after
    /// [`take`](Reader::take) has succeeded.
    #[inline]
    pub(crate) fn run<'a>(
        &self,
        slots: &'a [AtomicU64],
    ) -> impl Iterator<Item = &'a [AtomicU64]> + use<'a> {
        let first = (self.position & self.track.mask) as usize * self.track.stride;
        let mut stamp = self.position;
        slots[first..]
            .chunks_exact(self.track.stride)
            .map_while(move |slot| {
                stamp = stamp.wrapping_add(1);
                // Edge A, reader's end.
                (slot[0].load(Ordering::Acquire) == stamp).then_some(&slot[1..])
            })
    }

    /// Takes `n` messages from my position: true if they are mine, false if somebody was quicker.
    ///
    /// A writer that sleeps for room is woken by the step that crosses an eighth of the lane, not
    /// by each: otherwise a full lane would cost both sides a system call for every message.
    #[inline]
    pub(crate) fn take(&mut self, header: &LaneHeader, n: u64) -> bool {
        let next = self.position.wrapping_add(n);
        // Edge B, reader's end: release orders the copy before the step; acquire chains it to all
        // earlier steps, since the writer may learn of them through this one alone.
        match header
            .head
            .compare_exchange(self.position, next, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => {
                if (self.position ^ next) >> self.step != 0 {
                    header.freed.store(next, Ordering::Release);
                    header.full.notify_one();
                }
                self.position = next;
                true
            }
            Err(head) => {
                // If what is found there contradicts it, `catch_up` judges.
                self.position = head;
                // The tests of killed processes must find it if a message is taken twice.
                cfg!(planted)
            }
        }
    }
}
