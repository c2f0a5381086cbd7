//! Every byte that lives in shared memory: the only file with its numbers.
//!
//! Atomics and plain integers only; no pointer, no `usize`; every bit pattern is valid, so a hostile or
//! broken peer can give wrong numbers but nothing worse. Words written by different processes are
//! [`APART`] bytes apart. Offsets elsewhere are counted from the end of the [`SegmentHeader`].
//!
//! ```text
//!  a segment
//!  0                     256                                              length
//!  +---------------------+------------------------------------------------+
//!  | SegmentHeader       | body: TreePage, or a queue, pipe, lock, array  |
//!  +---------------------+------------------------------------------------+
//! ```

use crate::sync::{AtomicU32, AtomicU64, Futex};

/// `multi` and a newline that text-mode transfers break.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"multpr\r\n");
/// Changes whenever a size, an offset or a meaning below does.
pub(crate) const VERSION: u32 = 1;
/// Pointer width and byte order of the writer; another one is another layout.
pub(crate) const WORD: u32 = usize::BITS
    | if cfg!(target_endian = "big") {
        1 << 31
    } else {
        0
    };
/// Distance between words written by different processes: a pair of cache lines, since they are fetched in pairs.
pub(crate) const APART: usize = 128;
/// Bytes of a segment's header.
pub(crate) const HEADER: usize = 256;
/// Words of the text that says what a segment holds.
pub(crate) const SHAPE_WORDS: usize = 22;

/// The start of every segment. Written once, `magic` last; attachers copy it once and use only the copy.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct SegmentHeader {
    /// [`MAGIC`], stored with release when everything else is complete.
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) word: AtomicU32,
    /// Bytes of the whole segment, header included.
    pub(crate) length: AtomicU64,
    /// Random; tells this segment from any other that ever was.
    pub(crate) cookie: [AtomicU64; 2],
    /// What the segment holds, as UTF-8 padded with zeroes: kind, type, geometry.
    pub(crate) shape: [AtomicU64; SHAPE_WORDS],
    /// Handles to this segment that are on their way. Too high after a death: costs only memory.
    pub(crate) in_transit: AtomicU32,
    /// Next participant of a named segment; a kin segment's participants are the tree's.
    pub(crate) next: AtomicU32,
    pub(crate) reserved: [AtomicU64; 4],
}

/// The page that all processes of one tree map.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct TreePage {
    /// The number the next process gets; numbers are never used twice.
    pub(crate) next: AtomicU32,
    _pad: [AtomicU32; APART / 4 - 1],
    /// Goes up when a process of the tree has died; sleepers sleep on it beside their own word.
    pub(crate) deaths: Futex,
    _pad2: [AtomicU32; APART / 4 - 1],
}

/// A place to sleep. Read by every waker, written only by those who sleep or wake.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct SignalWords {
    /// See [`signal`](crate::signal): bit 0 somebody may sleep, bit 1 fences needed, then a count that only grows.
    pub(crate) announce: AtomicU64,
    /// What the sleepers sleep on; goes up with every wake.
    pub(crate) seq: Futex,
    _pad: AtomicU32,
}

/// The control words of one lane; see [`ring`](crate::ring).
///
/// ```text
///  0        8                 128              256                384
///  +--------+-----------------+-------+--------+-------+----------+
///  | head   | full: a signal  | owner |        | freed |          |
///  +--------+-----------------+-------+--------+-------+----------+
/// ```
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct LaneHeader {
    /// Position of the next message to take. Only grows, only by compare-and-swap.
    pub(crate) head: AtomicU64,
    /// Where the lane's sender sleeps when the lane is full.
    pub(crate) full: SignalWords,
    _pad: [AtomicU64; APART / 8 - 3],
    /// Who may write this lane: see [`roster`](crate::roster) for the word.
    pub(crate) owner: AtomicU64,
    _pad2: [AtomicU64; APART / 8 - 1],
    /// A lazy copy of `head`, always at or behind it.
    pub(crate) freed: AtomicU64,
    _pad3: [AtomicU64; APART / 8 - 1],
}

/// The start of a queue's body; seats, then lanes follow it.
///
/// ```text
///  0            128                               256               384     pages
///  +------------+---------------------------------+-----------------+-------+--------+------
///  | constants  | empty: a signal, state, used,   | returned again, | seats | lane 0 | lane 1
///  |            | returned                        | waits           |       |        |
///  +------------+---------------------------------+-----------------+-------+--------+------
///
///  a lane
///  0            384     pairs of lines
///  +------------+-------+--------------------+    a slot:   | stamp | length, if not fixed | bytes
///  | LaneHeader | slots | blocks, if in place |        or:   | stamp | block
///  +------------+-------+--------------------+    a block:  | state | length | bytes
/// ```
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct QueueHeader {
    /// Messages a lane holds at most. This and the next four are written once, before anyone else looks.
    pub(crate) capacity: AtomicU64,
    /// Bytes a message may have.
    pub(crate) message_size: AtomicU64,
    /// Lanes there may be: one for each sender.
    pub(crate) lanes: AtomicU32,
    /// Seats there are: one for each receiver.
    pub(crate) seats: AtomicU32,
    /// Blocks of each lane; 0 if messages lie in the slots.
    pub(crate) blocks: AtomicU32,
    _pad: AtomicU32,
    _pad1: [AtomicU64; APART / 8 - 4],
    /// Where receivers sleep when all lanes are empty.
    pub(crate) empty: SignalWords,
    /// Who is gone, and a count of comings: see `queue::roll`. Every send reads it, beside `empty`.
    pub(crate) state: AtomicU64,
    /// Goes up when a block is given back by a receiver that did not finish with it.
    pub(crate) returned: AtomicU64,
    /// Lanes that were ever taken; those beyond have no memory yet. Only grows.
    pub(crate) used: AtomicU32,
    _pad2: AtomicU32,
    _pad3: [AtomicU64; APART / 8 - 5],
    /// Messages handed out a second time.
    pub(crate) redelivered: AtomicU64,
    /// How often an end of the queue went to sleep.
    pub(crate) waits: AtomicU64,
    _pad4: [AtomicU64; APART / 8 - 2],
}

/// The words of a lock, its value right behind them. Written only by who enters, leaves or waits.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct LatchWords {
    /// Who is inside; the table of its values is in [`latch`](crate::latch).
    pub(crate) owner: Futex,
    _pad: AtomicU32,
    /// Which thread is inside, by participant (upper half) and thread (lower half); 0 for none.
    pub(crate) thread: AtomicU64,
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<SegmentHeader>() == HEADER);
    assert!(offset_of!(SegmentHeader, cookie) == 24);
    assert!(offset_of!(SegmentHeader, shape) == 40);
    assert!(offset_of!(SegmentHeader, in_transit) == 216);
    assert!(size_of::<SignalWords>() == 16);
    assert!(size_of::<LatchWords>() == 16);
    assert!(offset_of!(LatchWords, thread) == 8);
    assert!(size_of::<TreePage>() == 2 * APART);
    assert!(offset_of!(TreePage, deaths) == APART);
    assert!(size_of::<LaneHeader>() == 3 * APART);
    assert!(offset_of!(LaneHeader, owner) == APART);
    assert!(offset_of!(LaneHeader, freed) == 2 * APART);
    assert!(size_of::<QueueHeader>() == 3 * APART);
    assert!(offset_of!(QueueHeader, empty) == APART);
    assert!(offset_of!(QueueHeader, redelivered) == 2 * APART);
};
