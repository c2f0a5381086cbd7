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
/// Changes whenever a size, an offset or a meaning below does, or how a value is written in a
/// message.
pub(crate) const VERSION: u32 = 4;
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
/// Bytes before the contents of sealed memory, which come next where their alignment allows.
pub(crate) const SEALED_HEADER: usize = 64;
/// `frozn` and a newline that text-mode transfers break.
const SEALED_MAGIC: u64 = u64::from_le_bytes(*b"frozn\0\r\n");
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
    /// Bytes of the segment, header included, as far as it is mapped.
    pub(crate) length: AtomicU64,
    /// Random; tells this segment from any other that ever was.
    pub(crate) cookie: [AtomicU64; 2],
    /// What the segment holds, as UTF-8 padded with zeroes: kind, type, geometry.
    pub(crate) shape: [AtomicU64; SHAPE_WORDS],
    _unused: AtomicU32,
    /// Next participant of a named segment; a kin segment's participants are the tree's.
    pub(crate) next: AtomicU32,
    /// Bytes of the file behind that, which are read and written and never mapped.
    pub(crate) tail: AtomicU64,
    pub(crate) reserved: [AtomicU64; 3],
}

/// The start of sealed memory: plain words, since nobody can change them any more. The rest of what there is to
/// know stands in the header of the segment beside it, which has the same cookie.
pub(crate) fn sealed_header(length: u64, cookie: [u64; 2]) -> [u64; 4] {
    [SEALED_MAGIC, length, cookie[0], cookie[1]]
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
    /// The processor on which the last one to wake somebody ran, plus one: a hint.
    pub(crate) processor: AtomicU32,
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

/// The start of a queue's body; seats, the seats' hands, then lanes follow it.
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
    /// Messages a lane holds at most. This and the next six are written once, before anyone else
    /// looks.
    pub(crate) capacity: AtomicU64,
    /// Bytes of a message that fits in its slot or block.
    pub(crate) message_size: AtomicU64,
    /// Bytes a message may have: what does not fit lies in the segment's tail.
    pub(crate) message_limit: AtomicU64,
    /// Lanes there may be: one for each sender.
    pub(crate) lanes: AtomicU32,
    /// Seats there are: one for each receiver.
    pub(crate) seats: AtomicU32,
    /// Blocks of each lane; 0 if messages lie in the slots.
    pub(crate) blocks: AtomicU32,
    /// Receivers that may fail with the same message in their hands.
    pub(crate) delivery_limit: AtomicU32,
    _pad1: [AtomicU64; APART / 8 - 5],
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

/// One direction of a pipe; see [`stream`](crate::stream). Both of them, then their rings, are a pipe's body.
///
/// ```text
///  0       16               128              256     384                512     3840 (a page)
///  +-------+-------+--------+-------+--------+-------+----------+-------+-------+--------+--------+
///  | ready | owner |        | freed | room   | taken | writer,  |       | the   | ring 0 | ring 1 |
///  | signal|       |        |       | signal |       | reader   |       | other |        |        |
///  +-------+-------+--------+-------+--------+-------+----------+-------+-------+--------+--------+
/// ```
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct StreamHeader {
    /// Where the reader sleeps when there is nothing. The writer looks at it with every message.
    pub(crate) ready: SignalWords,
    /// Who has the end that reads here (and writes the other direction): see [`roster`](crate::roster).
    pub(crate) owner: AtomicU64,
    _pad: [AtomicU64; APART / 8 - 3],
    /// A lazy copy of `taken`, always at or behind it.
    pub(crate) freed: AtomicU64,
    /// Where the writer sleeps when there is no room.
    pub(crate) room: SignalWords,
    _pad2: [AtomicU64; APART / 8 - 3],
    /// The reader's control line: all before it may be written again.
    pub(crate) taken: AtomicU64,
    /// How far the reader has decoded what it took: for the writer, which holds what handles lead to until then.
    pub(crate) decoded: AtomicU64,
    _pad3: [AtomicU64; APART / 8 - 2],
    /// Where the writer was when its end was sent to another process: line and word, next control line.
    pub(crate) writer: [AtomicU64; 2],
    /// The same of the reader.
    pub(crate) reader: [AtomicU64; 2],
    /// The most bytes a message may have. Written once, before anyone else looks.
    pub(crate) message_limit: AtomicU64,
    _pad4: [AtomicU64; APART / 8 - 5],
}

/// The words of a lock, its value right behind them. Written only by who enters, leaves or waits.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct LatchWords {
    /// Who is inside; the table of its values is in [`latch`](crate::latch).
    pub(crate) owner: Futex,
    /// Process ID of the one inside, or of the last one who did not finish; the top bit says that it died.
    pub(crate) holder: AtomicU32,
    /// Which thread is inside, by participant (upper half) and thread (lower half); 0 for none.
    pub(crate) thread: AtomicU64,
}

/// Cells of a pool; few in that of a fuzzer, who makes one for each input, and all is small in a model.
pub(crate) const CELLS: usize = if cfg!(loom) {
    4
} else if cfg!(fuzzing) {
    8
} else {
    1024
};
/// Words of a bitmap of cells.
pub(crate) const CELL_WORDS: usize = if cfg!(loom) { 1 } else { 16 };
/// Chunks of a job at most.
pub(crate) const CHUNKS: usize = if cfg!(loom) { 3 } else { 64 };
/// Event counts that callers of a pool wait at.
pub(crate) const SIGNALS: usize = if cfg!(loom) { 4 } else { 64 };
/// Workers of a pool at most.
pub(crate) const SEATS: usize = if cfg!(loom) { 64 } else { 4096 };
/// Bytes of arguments that a cell holds itself.
pub(crate) const INLINE_INPUT: usize = 192;
/// Bytes of results that a cell holds itself.
pub(crate) const INLINE_OUTPUT: usize = 160;

/// What a pool's segment begins with; the rows of its workers follow, then its cells, then the bytes
/// of items and results.
///
/// ```text
///  +-------+------------+------+-------+------+---------+------+-------+---------- .. -+
///  | tasks | supervisor | open | ended | mail | signals | rows | cells | items, results |
///  +-------+------------+------+-------+------+---------+------+-------+---------- .. -+
/// ```
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct PoolPage {
    /// Where workers sleep.
    pub(crate) tasks: SignalWords,
    /// Not 0: a worker that finds nothing to do ends.
    pub(crate) closing: AtomicU64,
    _pad: [AtomicU64; APART / 8 - 3],
    /// Where the pool's supervisor sleeps.
    pub(crate) supervisor: SignalWords,
    _pad2: [AtomicU64; APART / 8 - 2],
    /// One bit a cell: a job stands there. Written by the pool alone.
    pub(crate) open: [AtomicU64; CELL_WORDS],
    /// The cell that a worker looks at first: a hint, written by whoever has leased a chunk.
    pub(crate) next: AtomicU64,
    _pad3: [AtomicU64; APART / 8 - 1],
    /// One bit a cell: a job that the supervisor settles has ended there.
    pub(crate) ended: [AtomicU64; CELL_WORDS],
    /// One bit a worker: it has asked for something.
    pub(crate) mail: [AtomicU64; SEATS / 64],
    /// Where callers sleep. The first is never used: a job without a caller has that number.
    pub(crate) signals: [PoolSignal; SIGNALS],
}

/// An event count on lines of its own.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct PoolSignal {
    pub(crate) words: SignalWords,
    _pad: [AtomicU64; APART / 8 - 2],
}

/// What one worker is doing, and what it asks of the pool. Only the worker writes the first lines.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct PoolRow {
    /// The cell it is about to look at, or in, plus 1; kept until it names another.
    pub(crate) at: AtomicU64,
    /// The item it runs, or is about to run (low half), and how many it has begun (high half).
    pub(crate) item: AtomicU64,
    /// Idle, searching or busy; see [`chunk`](crate::chunk).
    pub(crate) activity: AtomicU64,
    /// How long it has worked; see [`chunk`](crate::chunk).
    pub(crate) busy: AtomicU64,
    _pad: [AtomicU64; APART / 8 - 4],
    /// The mailbox: how many requests it has made, and the last one.
    pub(crate) asked: AtomicU64,
    pub(crate) request: [AtomicU64; 3],
    /// How many were answered, and the last answer: written by the pool.
    pub(crate) answered: AtomicU64,
    pub(crate) answer: AtomicU64,
    /// Where the worker sleeps that waits for an answer.
    pub(crate) answers: SignalWords,
    _pad2: [AtomicU64; APART / 8 - 8],
}

/// Where a job stands while workers may take its chunks.
///
/// ```text
///  0      64      256             384    416            640
///  +------+-------+--------+------+------+--------------+--------------+
///  | head | input | cursor |      | done | output |     | chunks  0 .. |
///  +------+-------+--------+------+------+--------------+--------------+
///   pool           workers         workers               state: both
/// ```
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct PoolCell {
    /// The name of the function.
    pub(crate) task: [AtomicU64; 3],
    /// Where the context stands that the function is given with each item; 0 for none.
    pub(crate) context: AtomicU64,
    /// Chunks of the job (low half) and its flags (high half).
    pub(crate) shape: AtomicU64,
    /// Which of the page's signals its caller waits at; 0 if the supervisor settles it, all ones if its
    /// caller will look of itself.
    pub(crate) owner: AtomicU64,
    /// Items from this one on need not be begun.
    pub(crate) stop: AtomicU64,
    _pad: AtomicU64,
    /// Arguments that need no more room than this.
    pub(crate) input: [AtomicU64; INLINE_INPUT / 8],
    /// The next chunk to try (low half), and how many there are (high half).
    pub(crate) cursor: AtomicU64,
    _pad2: [AtomicU64; APART / 8 - 1],
    /// One bit a chunk: nobody will touch it again, and its results and failures are written.
    pub(crate) done: AtomicU64,
    /// When its first chunk was begun, and the longest that a chunk took, in nanoseconds.
    pub(crate) begun: AtomicU64,
    pub(crate) longest: AtomicU64,
    /// Not 0: a chunk of it has failures.
    pub(crate) has_failures: AtomicU64,
    /// Results that need no more room than this.
    pub(crate) output: [AtomicU64; INLINE_OUTPUT / 8],
    _pad3: [AtomicU64; 8],
    pub(crate) chunks: [PoolChunk; CHUNKS],
}

/// Items that one worker takes together: where they, and their results, are.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct PoolChunk {
    /// Who works on it; see [`chunk`](crate::chunk).
    pub(crate) state: AtomicU64,
    /// First item (low half) and number of items (high half).
    pub(crate) span: AtomicU64,
    /// Place and bytes of the arguments.
    pub(crate) input: AtomicU64,
    pub(crate) input_len: AtomicU64,
    /// Place and bytes of room for the results.
    pub(crate) output: AtomicU64,
    pub(crate) room: AtomicU64,
    /// Bytes of results that are complete.
    pub(crate) used: AtomicU64,
    /// Place of the last record of a failure; 0 for none.
    pub(crate) failures: AtomicU64,
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<SegmentHeader>() == HEADER);
    assert!(offset_of!(SegmentHeader, cookie) == 24);
    assert!(offset_of!(SegmentHeader, shape) == 40);
    assert!(offset_of!(SegmentHeader, next) == 220);
    assert!(size_of::<SignalWords>() == 16);
    assert!(size_of::<LatchWords>() == 16);
    assert!(offset_of!(LatchWords, holder) == 4);
    assert!(offset_of!(LatchWords, thread) == 8);
    assert!(size_of::<TreePage>() == 2 * APART);
    assert!(offset_of!(TreePage, deaths) == APART);
    assert!(size_of::<LaneHeader>() == 3 * APART);
    assert!(offset_of!(LaneHeader, owner) == APART);
    assert!(offset_of!(LaneHeader, freed) == 2 * APART);
    assert!(size_of::<StreamHeader>() == 4 * APART);
    assert!(offset_of!(StreamHeader, owner) == 16);
    assert!(offset_of!(StreamHeader, freed) == APART);
    assert!(offset_of!(StreamHeader, room) == APART + 8);
    assert!(offset_of!(StreamHeader, taken) == 2 * APART);
    assert!(offset_of!(StreamHeader, decoded) == 2 * APART + 8);
    assert!(offset_of!(StreamHeader, writer) == 3 * APART);
    assert!(size_of::<QueueHeader>() == 3 * APART);
    assert!(offset_of!(QueueHeader, empty) == APART);
    assert!(offset_of!(QueueHeader, redelivered) == 2 * APART);
    assert!(size_of::<PoolChunk>() == 64);
    assert!(size_of::<PoolSignal>() == APART);
    assert!(offset_of!(PoolPage, supervisor) == APART);
    assert!(offset_of!(PoolPage, open) == 2 * APART);
    assert!(offset_of!(PoolPage, next) == 3 * APART);
    assert!(offset_of!(PoolPage, ended) == 4 * APART);
    assert!(offset_of!(PoolPage, signals) % APART == 0);
    assert!(size_of::<PoolPage>() % APART == 0);
    assert!(CELLS <= CELL_WORDS * 64);
    assert!(offset_of!(PoolRow, asked) == APART);
    assert!(size_of::<PoolRow>() == 2 * APART);
    assert!(offset_of!(PoolCell, input) == 64);
    assert!(offset_of!(PoolCell, cursor) == 2 * APART);
    assert!(offset_of!(PoolCell, done) == 3 * APART);
    assert!(offset_of!(PoolCell, chunks) == 5 * APART);
    assert!(size_of::<PoolCell>() % APART == 0);
};
