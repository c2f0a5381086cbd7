//! Who works on a chunk of a job: claim, commit, and what a death leaves behind.
//!
//! The pool offers chunks and pushes *tickets*, which only say where to look. A worker leases a chunk with
//! one compare-and-swap, works, and commits with another. Tickets and positions of the cursor are hints:
//! they may be lost or doubled, for the lease decides.
//!
//! | state | generation | seat | attempt | who may change it |
//! |---|---|---|---|---|
//! | idle | – | – | – | the pool |
//! | ready | of the job | – | deaths before | a worker, to leased; the pool, to withdrawn |
//! | leased | of the job | who works | deaths before | that worker, to done; the pool, after its proven death, to died |
//! | done | of the job | who worked | deaths before | the pool, for the next job |
//! | died, withdrawn | of the job | – | – | the pool |
//!
//! A *generation* tells a job from all others that ever stood in its cell, so whoever comes with a ticket
//! of an earlier one can lease nothing.
//!
//! Edges, with both ends named:
//!
//! | edge | release | acquire | what it carries |
//! |---|---|---|---|
//! | P | [`offer`] | [`lease`] | the job's words and its arguments |
//! | Q | [`commit`] | [`is_settled`] | the results |
//! | R | [`open`], [`rewind`] | [`claim`] | that the chunks of the generation are offered |
//! | S | [`tire`], [`take_up`], before a look for tickets | [`hunters`], after a ticket was pushed | that somebody sees the ticket: a fence on each side |
//!
//! What a dead worker wrote is seen by whoever has the proof of its death.

use std::time::Duration;

use crate::layout::Chunk;
use crate::sync::{AtomicU64, Ordering, fence};

const KIND: u64 = 0xf;
const READY: u64 = 1;
const LEASED: u64 = 2;
const DONE: u64 = 3;
const DIED: u64 = 4;
const WITHDRAWN: u64 = 5;

const SEAT_SHIFT: u32 = 4;
const ATTEMPT_SHIFT: u32 = 16;
const GENERATION_SHIFT: u32 = 24;

/// Seats that a lease can name.
pub(crate) const SEATS: usize = 1 << (ATTEMPT_SHIFT - SEAT_SHIFT);

/// Which of the jobs that ever stood in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Generation(u64);

impl Generation {
    const MASK: u64 = (1 << (64 - GENERATION_SHIFT)) - 1;

    /// The one after it; the first again after 2^40.
    pub(crate) fn next(self) -> Generation {
        Generation((self.0 + 1) & Self::MASK)
    }

    fn above(word: u64) -> Generation {
        Generation(word >> GENERATION_SHIFT)
    }
}

/// Where to look for work: a cell, and which job of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) cell: u16,
    pub(crate) generation: Generation,
}

impl Ticket {
    /// Tells tickets from the other things a worker may be at.
    const MARK: u64 = 1 << 63;

    pub(crate) fn word(self) -> u64 {
        Self::MARK | self.generation.0 << 16 | u64::from(self.cell)
    }

    pub(crate) fn from_word(word: u64) -> Option<Ticket> {
        (word & Self::MARK != 0).then_some(Ticket {
            cell: word as u16,
            generation: Generation(word >> 16 & Generation::MASK),
        })
    }
}

/// A chunk that this worker works on.
#[derive(Debug)]
#[must_use = "a lease that is not committed is work that nobody does"]
pub(crate) struct Lease {
    word: u64,
}

impl Lease {
    /// How many workers have died in its first item before.
    #[cfg(test)]
    pub(crate) fn attempt(&self) -> u8 {
        attempt(self.word)
    }
}

fn attempt(word: u64) -> u8 {
    (word >> ATTEMPT_SHIFT) as u8
}

fn word(generation: Generation, kind: u64, seat: u16, attempt: u8) -> u64 {
    generation.0 << GENERATION_SHIFT
        | u64::from(attempt) << ATTEMPT_SHIFT
        | u64::from(seat) << SEAT_SHIFT
        | kind
}

fn is(word: u64, generation: Generation, kind: u64) -> bool {
    Generation::above(word) == generation && word & KIND == kind
}

/// Lets workers lease the chunk. Only for a chunk that nobody has leased or can lease.
pub(crate) fn offer(state: &AtomicU64, generation: Generation, attempt: u8) {
    // Edge P, the pool's end.
    state.store(word(generation, READY, 0, attempt), Ordering::Release);
}

/// Takes the chunk, if it is on offer in this generation. What it holds may be read only then.
pub(crate) fn lease(state: &AtomicU64, generation: Generation, seat: u16) -> Option<Lease> {
    let seen = state.load(Ordering::Relaxed);
    if !is(seen, generation, READY) {
        return None;
    }
    let leased = word(generation, LEASED, seat, attempt(seen));
    // Edge P, the worker's end.
    state
        .compare_exchange(seen, leased, Ordering::Acquire, Ordering::Relaxed)
        .ok()
        .map(|_| Lease { word: leased })
}

/// Says that all results of the chunk are written: the moment from which they count.
///
/// False if the pool has taken the chunk away, which it does from the dead only.
pub(crate) fn commit(state: &AtomicU64, lease: Lease) -> bool {
    let done = lease.word & !KIND | DONE;
    // Edge Q, the worker's end.
    state
        .compare_exchange(lease.word, done, Ordering::Release, Ordering::Relaxed)
        .is_ok()
}

/// Whether nobody will work on the chunk any more: done, or withdrawn.
pub(crate) fn is_settled(state: &AtomicU64, generation: Generation) -> bool {
    // Edge Q, the pool's end.
    let seen = state.load(Ordering::Acquire);
    is(seen, generation, DONE) || is(seen, generation, WITHDRAWN)
}

/// Says that nothing is left of a chunk that was taken from the dead.
pub(crate) fn settle(state: &AtomicU64, generation: Generation) {
    state.store(word(generation, DONE, 0, 0), Ordering::Relaxed);
}

/// Takes the chunk from a worker that is proven dead; how many died in its first item before, if it had it.
pub(crate) fn bury(state: &AtomicU64, generation: Generation, seat: u16) -> Option<u8> {
    let seen = state.load(Ordering::Acquire);
    let leased = word(generation, LEASED, seat, attempt(seen));
    (seen == leased
        && state
            .compare_exchange(
                leased,
                leased & !KIND | DIED,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok())
    .then(|| attempt(seen))
}

/// Takes the offer back; false if a worker has the chunk, or had it.
pub(crate) fn withdraw(state: &AtomicU64, generation: Generation) -> bool {
    let seen = state.load(Ordering::Relaxed);
    is(seen, generation, READY)
        && state
            .compare_exchange(
                seen,
                seen & !KIND | WITHDRAWN,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
}

/// Whether the chunk waits for a worker.
pub(crate) fn is_ready(state: &AtomicU64, generation: Generation) -> bool {
    is(state.load(Ordering::Relaxed), generation, READY)
}

/// Lets workers claim the chunks of a job, from the first on. All of them are on offer.
pub(crate) fn open(cursor: &AtomicU64, generation: Generation) {
    rewind(cursor, generation, 0);
}

/// Lets workers claim the chunks from `index` on once more. Those that are taken cannot be leased again.
pub(crate) fn rewind(cursor: &AtomicU64, generation: Generation, index: usize) {
    // Edge R, the pool's end. What is claimed at this moment is lost from the cursor, not from its claimant.
    cursor.swap(
        generation.0 << GENERATION_SHIFT | index as u64,
        Ordering::Release,
    );
}

/// The next chunk to try, and whose: it may be that of a later job than the ticket's, and then it is the
/// claimant's all the same, for nobody else is sent there.
pub(crate) fn claim(cursor: &AtomicU64) -> (Generation, usize) {
    // Edge R, the worker's end.
    let seen = cursor.fetch_add(1, Ordering::Acquire);
    (
        Generation::above(seen),
        (seen & ((1 << GENERATION_SHIFT) - 1)) as usize,
    )
}

/// The first chunk on offer, and how many there are: after a death some of them may be behind the cursor,
/// claimed and never leased.
pub(crate) fn left(chunks: &[Chunk], generation: Generation) -> Option<(usize, usize)> {
    let mut ready = chunks
        .iter()
        .enumerate()
        .filter(|(_, chunk)| is_ready(&chunk.state, generation))
        .map(|(index, _)| index);
    let first = ready.next()?;
    Some((first, 1 + ready.count()))
}

/// What a worker is at: asleep, or not there.
pub(crate) const ABSENT: u64 = 0;
/// Looks for a ticket all the time, and need not be woken.
pub(crate) const HUNTING: u64 = 1;
/// Has taken a ticket, or is about to.
pub(crate) const AT_WORK: u64 = 2;

/// This worker looks for tickets all the time.
pub(crate) fn hunt(now: &AtomicU64) {
    now.store(HUNTING, Ordering::Relaxed);
}

/// This worker will sleep, unless it finds a ticket when it looks once more, now.
pub(crate) fn tire(now: &AtomicU64) {
    now.store(ABSENT, Ordering::Relaxed);
    // Edge S, the worker's end.
    fence();
}

/// This worker has taken a ticket. If it sees another when it looks once more, now, it wakes somebody.
pub(crate) fn take_up(now: &AtomicU64) {
    now.store(AT_WORK, Ordering::Relaxed);
    // Edge S, the worker's end.
    fence();
}

/// How many workers look for tickets all the time. To be asked after tickets were pushed: each of the others
/// will look once more before it sleeps, or wake somebody if it has work.
pub(crate) fn hunters<'a>(rows: impl Iterator<Item = &'a AtomicU64>) -> usize {
    // Edge S, the pool's end.
    fence();
    rows.filter(|now| now.load(Ordering::Relaxed) == HUNTING)
        .count()
}

/// How long a worker has worked, in one word: nanoseconds, or while it works the moment from which it would have
/// worked that long without a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy(u64);

impl Busy {
    /// The word counts from a moment.
    const SINCE: u64 = 1 << 63;

    /// A worker that has not worked yet.
    pub(crate) const NEVER: Busy = Busy(0);

    pub(crate) fn word(self) -> u64 {
        self.0
    }

    pub(crate) fn from_word(word: u64) -> Busy {
        Busy(word)
    }

    /// How long it has worked until `now`.
    pub(crate) fn until(self, now: Duration) -> Duration {
        let now = nanoseconds(now);
        Duration::from_nanos(match self.0 & Self::SINCE {
            0 => self.0,
            _ => now.saturating_sub(self.0 & !Self::SINCE),
        })
    }

    /// It begins to work.
    pub(crate) fn begun(self, now: Duration) -> Busy {
        let since = now.saturating_sub(self.until(now));
        Busy(Self::SINCE | nanoseconds(since))
    }

    /// It works no more.
    pub(crate) fn ended(self, now: Duration) -> Busy {
        Busy(nanoseconds(self.until(now)))
    }
}

/// 292 years of them at most.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) & !Busy::SINCE
}

/// Items of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl Span {
    pub(crate) fn word(self) -> u64 {
        u64::from(self.start) | u64::from(self.count) << 32
    }

    /// What others wrote may go beyond the last number that an item can have: that part is left out.
    pub(crate) fn from_word(word: u64) -> Span {
        let start = word as u32;
        let count = (word >> 32) as u32;
        Span {
            start,
            count: count.min(u32::MAX - start),
        }
    }

    /// The items behind `item`.
    pub(crate) fn after(self, item: u32) -> Span {
        let end = self.start + self.count;
        let start = item.saturating_add(1).min(end);
        Span {
            start,
            count: end - start,
        }
    }

    fn contains(self, item: u32) -> bool {
        item.wrapping_sub(self.start) < self.count
    }
}

/// What a worker says it is running, in its own row: the item, and how many it has begun before.
///
/// It is said before the item begins and, as *none*, before another ticket is taken. So an item that a
/// worker never named in this job was never begun by it, and the one named last is the one it died in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Naming {
    pub(crate) item: u32,
    pub(crate) turn: u32,
}

impl Naming {
    /// No item has this index.
    pub(crate) const NONE: u32 = u32::MAX;

    pub(crate) fn word(self) -> u64 {
        u64::from(self.turn) << 32 | u64::from(self.item)
    }

    pub(crate) fn from_word(word: u64) -> Naming {
        Naming {
            item: word as u32,
            turn: (word >> 32) as u32,
        }
    }

    /// The item of this chunk that was begun last, if any was.
    pub(crate) fn begun(self, chunk: Span) -> Option<u32> {
        (self.item != Self::NONE && chunk.contains(self.item)).then_some(self.item)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_keep_what_they_are_made_of() {
        let generation = Generation(Generation::MASK);
        let ticket = Ticket {
            cell: 0xabcd,
            generation,
        };
        assert_eq!(Ticket::from_word(ticket.word()), Some(ticket));
        assert_eq!(Ticket::from_word(0), None);
        assert_eq!(generation.next(), Generation(0));
        let span = Span {
            start: 7,
            count: u32::MAX - 7,
        };
        assert_eq!(Span::from_word(span.word()), span);
        assert_eq!(
            span.after(9),
            Span {
                start: 10,
                count: u32::MAX - 10
            }
        );
        assert_eq!(span.after(u32::MAX - 1).count, 0);
        let naming = Naming {
            item: 3,
            turn: u32::MAX,
        };
        assert_eq!(Naming::from_word(naming.word()), naming);
        let last = word(generation, LEASED, SEATS as u16 - 1, 255);
        assert_eq!((attempt(last), last & KIND), (255, LEASED));
    }

    #[test]
    fn a_lease_is_given_once_and_only_to_the_generation() {
        let state = AtomicU64::new(0);
        let now = Generation::default().next();
        offer(&state, now, 3);
        assert!(lease(&state, now.next(), 1).is_none());
        assert!(lease(&state, Generation::default(), 1).is_none());
        let mine = lease(&state, now, 1).expect("it is on offer");
        assert_eq!(mine.attempt(), 3);
        assert!(lease(&state, now, 2).is_none());
        assert!(!withdraw(&state, now));
        assert!(!is_settled(&state, now));
        assert!(commit(&state, mine));
        assert!(is_settled(&state, now) && !is_settled(&state, now.next()));
    }

    #[test]
    fn the_dead_and_the_pool_cannot_both_win() {
        let state = AtomicU64::new(0);
        let now = Generation::default().next();
        offer(&state, now, 0);
        let lost = lease(&state, now, 1).expect("it is on offer");
        assert_eq!(bury(&state, now, 2), None);
        assert_eq!(bury(&state, now, 1), Some(0));
        assert_eq!(bury(&state, now, 1), None);
        assert!(!commit(&state, lost));
        offer(&state, now, 1);
        let kept = lease(&state, now, 2).expect("it is on offer again");
        assert!(commit(&state, kept));
        assert_eq!(bury(&state, now, 2), None);
    }

    #[test]
    fn a_claim_of_a_later_job_is_not_lost() {
        let cursor = AtomicU64::new(0);
        let old = Generation::default().next();
        open(&cursor, old);
        assert_eq!(claim(&cursor), (old, 0));
        open(&cursor, old.next());
        assert_eq!(claim(&cursor), (old.next(), 0));
        assert_eq!(claim(&cursor), (old.next(), 1));
        rewind(&cursor, old.next(), 0);
        assert_eq!(claim(&cursor), (old.next(), 0));
    }

    #[test]
    fn time_at_work_is_added_up_and_the_breaks_are_not() {
        let at = Duration::from_millis;
        let busy = Busy::NEVER.begun(at(1_000));
        assert_eq!(busy.until(at(1_007)), at(7));
        let busy = busy.ended(at(1_010));
        assert_eq!(busy.until(at(5_000)), at(10));
        let busy = busy.begun(at(6_000));
        assert_eq!(Busy::from_word(busy.word()).until(at(6_005)), at(15));
        assert_eq!(busy.ended(at(6_020)).until(at(9_000)), at(30));
    }

    #[test]
    fn only_what_was_named_in_the_chunk_was_begun() {
        let chunk = Span {
            start: 10,
            count: 5,
        };
        let naming = |item| Naming { item, turn: 1 }.begun(chunk);
        assert_eq!(naming(9), None);
        assert_eq!(naming(10), Some(10));
        assert_eq!(naming(14), Some(14));
        assert_eq!(naming(15), None);
        assert_eq!(naming(Naming::NONE), None);
    }
}
