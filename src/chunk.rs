//! How the chunks of a pool's jobs are shared out: four words, each fact in one of them, each changed by one atomic step.
//!
//! A job stands in a *cell* and has up to 64 *chunks*. A worker claims a chunk from the cell's cursor,
//! leases it by its state, runs its items, and sets its bit of `done`. Everything else that processes
//! tell each other (which cells are open, where to look next, who may be asleep) is a hint, which may
//! be late, lost or wrong: the lease decides.
//!
//! | word | of | meaning | changed by |
//! |---|---|---|---|
//! | `cursor` | cell | the next chunk to try | pool: store; a worker: [`claim`] |
//! | `state` | chunk | [`offer`]ed, leased by a seat, withdrawn | pool: [`offer`], [`withdraw`]; a worker: [`lease`]; the pool, with the proof of a worker's death: [`reclaim`] |
//! | `done` | cell | one bit a chunk: nobody will touch it again | who holds the lease: [`finish`]; the pool, for what it withdrew or gave up: [`give_up`] |
//! | `at` | row | the cell that a worker is about to look at, or in | the worker, before it claims, and when it has nothing there any more |
//!
//! A cell takes another job only when all bits of the last are set, and a bit is set only under a
//! lease. So no late worker can write into a job that it has no lease of, and no word needs to say which
//! job of the cell it is of.
//!
//! | it died after | what [`reclaim`] and the cursor show | what the pool does |
//! |---|---|---|
//! | naming the cell | nothing | nothing |
//! | claiming | a chunk on offer behind the cursor | the cursor goes back to it |
//! | leasing | a leased chunk whose bit is not set | what was finished counts; the rest is offered again |
//! | setting its bit | the bit | wakes the owner once more |
//!
//! Edges, with both ends named:
//!
//! | edge | release | acquire | what it carries |
//! |---|---|---|---|
//! | P | [`offer`] | [`lease`] | the job's words and its arguments |
//! | Q | [`finish`] | [`is_done`] | results and failures |
//! | R | [`set_cursor`] | [`claim`] | that the chunks behind it are on offer |
//! | L | [`lease`] | [`holder`] | that `at` names the cell |
//! | N | [`set`] of an open cell | [`around`] | that there is something to claim |
//! | T | [`set`] of a cell whose job has ended | [`take_all`] | that all its chunks are done |
//! | O | [`finish`], fence, look at the owner | [`own`], fence, look at `done` | one of the two sees the other |
//! | S | [`set_idle`], [`set_busy`], fence, look for work | work is published, fence, [`searching`] | one of the two sees the other |
//!
//! What a dead worker wrote is seen by whoever has the proof of its death.

use std::time::Duration;

use crate::layout::{CHUNKS, PoolChunk};
use crate::sync::{AtomicU64, Ordering, fence};

const READY: u64 = 1;
const LEASED: u64 = 2;
const WITHDRAWN: u64 = 3;
const SEAT_SHIFT: u32 = 4;

/// A chunk that this worker works on, by its index.
#[derive(Debug)]
#[must_use = "a lease that is not finished is work that nobody does"]
pub(crate) struct Lease(usize);

impl Lease {
    pub(crate) fn index(&self) -> usize {
        self.0
    }
}

fn leased(seat: u16) -> u64 {
    u64::from(seat) << SEAT_SHIFT | LEASED
}

/// Lets workers lease the chunk. Only for a chunk that nobody has leased or can lease.
pub(crate) fn offer(chunk: &PoolChunk) {
    // Edge P, the pool's end.
    chunk.state.store(READY, Ordering::Release);
}

/// Whether the chunk waits for a worker.
pub(crate) fn is_ready(chunk: &PoolChunk) -> bool {
    chunk.state.load(Ordering::Relaxed) == READY
}

/// Takes the chunk, if it is on offer. What its job is may be read only then.
pub(crate) fn lease(chunks: &[PoolChunk], index: usize, seat: u16) -> Option<Lease> {
    let state = &chunks.get(index)?.state;
    if state.load(Ordering::Relaxed) != READY {
        return None;
    }
    // Acquire: edge P, the worker's end. Release: edge L, for the worker named the cell before.
    let taken = state.compare_exchange(READY, leased(seat), Ordering::AcqRel, Ordering::Relaxed);
    taken.is_ok().then_some(Lease(index))
}

/// Takes the offer back; false if a worker has the chunk, or had it.
pub(crate) fn withdraw(chunk: &PoolChunk) -> bool {
    let state = &chunk.state;
    let taken = state.compare_exchange(READY, WITHDRAWN, Ordering::Relaxed, Ordering::Relaxed);
    taken.is_ok()
}

/// The seat that has leased the chunk, or had it last.
pub(crate) fn holder(chunk: &PoolChunk) -> Option<u16> {
    // Edge L, the pool's end.
    let state = chunk.state.load(Ordering::Acquire);
    let seat = (state >> SEAT_SHIFT) as u16;
    // A word that no lease writes is of nobody.
    (state == leased(seat)).then_some(seat)
}

/// Whether a worker that is proven dead has left this chunk unfinished. The pool has it then.
///
/// `done` is read with the chunk's bit: a chunk that was finished stays so.
pub(crate) fn reclaim(chunk: &PoolChunk, done: &AtomicU64, index: usize, seat: u16) -> bool {
    // The proof of death is the other end.
    chunk.state.load(Ordering::Relaxed) == leased(seat)
        && done.load(Ordering::Relaxed) & bit(index) == 0
}

/// The bit of a chunk.
pub(crate) fn bit(index: usize) -> u64 {
    1 << (index % 64)
}

/// The bits of so many chunks.
pub(crate) fn all(chunks: usize) -> u64 {
    match chunks {
        64.. => u64::MAX,
        _ => (1 << chunks) - 1,
    }
}

/// Says that everything of the chunk is written; true if it was the last of so many. From here on the
/// cell may be another job's.
pub(crate) fn finish(done: &AtomicU64, lease: Lease, chunks: usize) -> bool {
    let bit = bit(lease.0);
    // Edge Q, the worker's end.
    let seen = done.fetch_or(bit, Ordering::Release) | bit;
    seen & all(chunks) == all(chunks)
}

/// Says the same of chunks that the pool has withdrawn, or given up after a death.
pub(crate) fn give_up(done: &AtomicU64, bits: u64) {
    // Relaxed: what the pool knows of them stands behind its own lock.
    done.fetch_or(bits, Ordering::Relaxed);
}

/// Whether all of so many chunks are done.
#[inline]
pub(crate) fn is_done(done: &AtomicU64, chunks: usize) -> bool {
    // Edge Q, the pool's end.
    done.load(Ordering::Acquire) & all(chunks) == all(chunks)
}

/// Lets workers claim the chunks from `next` on. Those that are taken cannot be leased again.
pub(crate) fn set_cursor(cursor: &AtomicU64, chunks: usize, next: usize) {
    // Edge R, the pool's end. A claim of this moment is lost from the cursor, not from who made it.
    cursor.swap((chunks as u64) << 32 | next as u64, Ordering::Release);
}

/// Whether the cursor has chunks to claim.
pub(crate) fn may_claim(cursor: &AtomicU64) -> bool {
    claimed(cursor.load(Ordering::Relaxed)).is_some()
}

/// The same of the cursor of so many chunks; one of another number was written over.
pub(crate) fn may_claim_of(cursor: &AtomicU64, chunks: usize) -> bool {
    let seen = cursor.load(Ordering::Relaxed);
    seen >> 32 == chunks as u64 && claimed(seen).is_some()
}

/// The chunk that whoever counts this cursor on has claimed. Behind the last that a job can have nobody looks.
fn claimed(cursor: u64) -> Option<usize> {
    let next = cursor & u64::from(u32::MAX);
    (next < (cursor >> 32).min(CHUNKS as u64)).then_some(next as usize)
}

/// The next chunk to try.
pub(crate) fn claim(cursor: &AtomicU64) -> Option<usize> {
    // Edge R, the worker's end.
    claimed(cursor.fetch_add(1, Ordering::Acquire))
}

/// The first chunk on offer of so many; those behind the cursor were claimed by a worker that died.
pub(crate) fn first_ready(chunks: &[PoolChunk]) -> Option<usize> {
    chunks.iter().position(is_ready)
}

/// The owner of a job whose caller will look at it of itself, or own it before it waits for it.
pub(crate) const NOBODY: u64 = u64::MAX;

/// Who is woken when a job ends; to be asked after [`finish`] said that it was the last chunk.
pub(crate) fn owner(owner: &AtomicU64) -> u64 {
    // Edge O, the worker's end.
    fence();
    owner.load(Ordering::Relaxed)
}

/// Takes a job over: whoever finishes it later wakes `me`. Look at `done` once more, now.
pub(crate) fn own(owner: &AtomicU64, me: u64) {
    owner.store(me, Ordering::Relaxed);
    // Edge O, the new owner's end.
    fence();
}

/// Sets the bit of a cell or a worker; true if none beside it was set.
pub(crate) fn set(bitmap: &[AtomicU64], number: usize) -> bool {
    bitmap.get(number / 64).is_some_and(|word| {
        // Edges N and T, the end of who sets it.
        word.fetch_or(bit(number), Ordering::Release) == 0
    })
}

/// Clears it.
pub(crate) fn clear(bitmap: &[AtomicU64], number: usize) {
    if let Some(word) = bitmap.get(number / 64) {
        word.fetch_and(!bit(number), Ordering::Relaxed);
    }
}

/// The numbers whose bits are set, from `from` on and around.
#[inline]
pub(crate) fn around(bitmap: &[AtomicU64], from: usize) -> impl Iterator<Item = usize> {
    let words = bitmap.len().max(1);
    let load = |at: usize| {
        bitmap
            .get(at)
            .map_or(0, |word| word.load(Ordering::Acquire))
    };
    let (mut at, high) = (from / 64 % words, u64::MAX << (from % 64));
    let mut word = load(at) & high;
    // The first word is seen twice: from its bit on, and at the end what lies below that.
    let mut left = words;
    std::iter::from_fn(move || {
        while word == 0 {
            left = left.checked_sub(1)?;
            at = if at + 1 < words { at + 1 } else { 0 };
            word = load(at) & if left == 0 { !high } else { u64::MAX };
        }
        let bit = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(at * 64 + bit)
    })
}

/// Takes all bits out of a bitmap: their numbers.
pub(crate) fn take_all(bitmap: &[AtomicU64]) -> impl Iterator<Item = usize> {
    bitmap.iter().enumerate().flat_map(|(at, word)| {
        let seen = match word.load(Ordering::Relaxed) {
            0 => 0,
            _ => word.swap(0, Ordering::Acquire),
        };
        bits(seen).map(move |bit| at * 64 + bit)
    })
}

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        bit
    })
}

/// What a worker does: nothing, or it is not there.
pub(crate) const IDLE: u64 = 0;
/// It looks for work all the time, and need not be woken.
pub(crate) const SEARCHING: u64 = 1;
/// It has work.
pub(crate) const BUSY: u64 = 2;

/// This worker looks for work all the time.
pub(crate) fn set_searching(activity: &AtomicU64) {
    activity.store(SEARCHING, Ordering::Relaxed);
}

/// This worker will sleep, unless it finds work when it looks once more, now.
pub(crate) fn set_idle(activity: &AtomicU64) {
    activity.store(IDLE, Ordering::Relaxed);
    // Edge S, the worker's end.
    fence();
}

/// This worker has work. If it sees more when it looks once more, now, it wakes another.
pub(crate) fn set_busy(activity: &AtomicU64) {
    activity.store(BUSY, Ordering::Relaxed);
    // Edge S, the worker's end.
    fence();
}

/// How many workers look for work all the time, counted as far as `most`. To be asked after work was
/// published: each of the others looks once more before it sleeps, or wakes another if it has work
/// already.
pub(crate) fn searching<'a>(rows: impl Iterator<Item = &'a AtomicU64>, most: usize) -> usize {
    // Edge S, the pool's end.
    fence();
    rows.filter(|activity| activity.load(Ordering::Relaxed) == SEARCHING)
        .take(most)
        .count()
}

/// How long a worker has worked, in one word: nanoseconds, or while it works the moment from which it
/// would have worked that long without a break.
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
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) & !Busy::SINCE
}

/// Items of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

    /// The item behind the last.
    pub(crate) fn end(self) -> u32 {
        self.start + self.count
    }

    /// The items from `item` on.
    pub(crate) fn from(self, item: u32) -> Span {
        let start = item.clamp(self.start, self.end());
        Span {
            start,
            count: self.end() - start,
        }
    }

    pub(crate) fn contains(self, item: u32) -> bool {
        item.wrapping_sub(self.start) < self.count
    }
}

/// What a worker says it runs, in its own row: the item, and how many it has begun before.
///
/// It is said before the item begins and, as *none*, before a chunk of another job is leased. So an item
/// that a worker never named was never begun by it, and the one named last is the one it died in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Naming {
    pub(crate) item: u32,
    pub(crate) turn: u32,
}

impl Naming {
    /// No item has this index.
    pub(crate) const NONE: u32 = u32::MAX;

    #[inline(always)]
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

    fn chunks(count: usize) -> Vec<PoolChunk> {
        std::iter::repeat_with(PoolChunk::default)
            .take(count)
            .collect()
    }

    #[test]
    fn words_keep_what_they_are_made_of() {
        let span = Span {
            start: 7,
            count: u32::MAX - 7,
        };
        assert_eq!(Span::from_word(span.word()), span);
        assert_eq!(Span::from_word(u64::MAX).count, 0);
        assert_eq!(span.from(10).count, u32::MAX - 10);
        assert_eq!(span.from(0), span);
        assert_eq!(span.from(u32::MAX).count, 0);
        let naming = Naming {
            item: 3,
            turn: u32::MAX,
        };
        assert_eq!(Naming::from_word(naming.word()), naming);
        assert_eq!((all(1), all(63), all(64)), (1, u64::MAX >> 1, u64::MAX));
    }

    #[test]
    fn a_lease_is_given_once() {
        let chunks = chunks(2);
        assert!(lease(&chunks, 0, 1).is_none() && lease(&chunks, 2, 1).is_none());
        offer(&chunks[0]);
        let mine = lease(&chunks, 0, 1).expect("it is on offer");
        assert!(lease(&chunks, 0, 2).is_none());
        assert!(!withdraw(&chunks[0]));
        assert_eq!(holder(&chunks[0]), Some(1));
        let done = AtomicU64::new(0);
        assert!(reclaim(&chunks[0], &done, 0, 1) && !reclaim(&chunks[0], &done, 0, 2));
        assert!(!finish(&done, mine, 2));
        assert!(!reclaim(&chunks[0], &done, 0, 1), "it was finished");
        assert!(!is_done(&done, 2));
        offer(&chunks[1]);
        assert!(withdraw(&chunks[1]) && !withdraw(&chunks[1]));
        assert!(lease(&chunks, 1, 1).is_none());
        give_up(&done, bit(1));
        assert!(is_done(&done, 2));
    }

    #[test]
    fn the_cursor_gives_each_chunk_once_until_it_goes_back() {
        let cursor = AtomicU64::new(0);
        assert!(!may_claim(&cursor) && claim(&cursor).is_none());
        set_cursor(&cursor, 2, 0);
        assert!(may_claim(&cursor));
        assert_eq!([claim(&cursor), claim(&cursor)], [Some(0), Some(1)]);
        assert_eq!([claim(&cursor), claim(&cursor)], [None, None]);
        set_cursor(&cursor, 2, 1);
        assert_eq!([claim(&cursor), claim(&cursor)], [Some(1), None]);
    }

    #[test]
    fn words_that_nobody_wrote_are_of_nobody() {
        let chunks = chunks(1);
        for word in [READY | 1 << 60, leased(3) | 1 << 20, 5, u64::MAX] {
            chunks[0].state.store(word, Ordering::Relaxed);
            assert!(!is_ready(&chunks[0]) && holder(&chunks[0]).is_none());
            assert!(lease(&chunks, 0, 3).is_none() && !withdraw(&chunks[0]));
        }
        for word in [u64::MAX, u64::MAX << 32 | CHUNKS as u64, 2 << 32 | 3] {
            let cursor = AtomicU64::new(word);
            assert!(!may_claim(&cursor) && claim(&cursor).is_none());
        }
        let cursor = AtomicU64::new(9 << 32 | 1);
        assert!(may_claim_of(&cursor, 9) && !may_claim_of(&cursor, 8));
    }

    #[test]
    fn bitmaps_are_walked_around() {
        let bitmap = [const { AtomicU64::new(0) }; 2];
        for number in [0, 5, 63, 64, 127] {
            set(&bitmap, number);
        }
        let from = |from| around(&bitmap, from).collect::<Vec<_>>();
        assert_eq!(from(0), [0, 5, 63, 64, 127]);
        assert_eq!(from(6), [63, 64, 127, 0, 5]);
        assert_eq!(from(128), [0, 5, 63, 64, 127]);
        assert_eq!(from(127), [127, 0, 5, 63, 64]);
        clear(&bitmap, 5);
        assert_eq!(take_all(&bitmap).collect::<Vec<_>>(), [0, 63, 64, 127]);
        assert_eq!(take_all(&bitmap).count(), 0);
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
