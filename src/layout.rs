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
pub(crate) const VERSION: u32 = 3;
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
    /// Bytes of the whole segment, header included.
    pub(crate) length: AtomicU64,
    /// Random; tells this segment from any other that ever was.
    pub(crate) cookie: [AtomicU64; 2],
    /// What the segment holds, as UTF-8 padded with zeroes: kind, type, geometry.
    pub(crate) shape: [AtomicU64; SHAPE_WORDS],
    _unused: AtomicU32,
    /// Next participant of a named segment; a kin segment's participants are the tree's.
    pub(crate) next: AtomicU32,
    pub(crate) reserved: [AtomicU64; 4],
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
    /// Messages a lane holds at most. This and the next five are written once, before anyone else
    /// looks.
    pub(crate) capacity: AtomicU64,
    /// Bytes a message may have.
    pub(crate) message_size: AtomicU64,
    /// Lanes there may be: one for each sender.
    pub(crate) lanes: AtomicU32,
    /// Seats there are: one for each receiver.
    pub(crate) seats: AtomicU32,
    /// Blocks of each lane; 0 if messages lie in the slots.
    pub(crate) blocks: AtomicU32,
    /// Receivers that may fail with the same message in their hands.
    pub(crate) delivery_limit: AtomicU32,
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
    _pad: AtomicU32,
    /// Which thread is inside, by participant (upper half) and thread (lower half); 0 for none.
    pub(crate) thread: AtomicU64,
}

/// Jobs of one chunk that a pool's segment holds; few in that of a fuzzer, who makes one for each input.
pub(crate) const SINGLES: usize = if cfg!(fuzzing) { 8 } else { 256 };
/// Jobs of many chunks that a pool's segment holds; as above.
pub(crate) const TABLES: usize = if cfg!(fuzzing) { 4 } else { 32 };
/// Chunks of one job.
pub(crate) const CHUNKS: usize = 256;
/// Tickets on their way to a pool's workers.
pub(crate) const TICKETS: u64 = 1024;
/// Words of a slot of the ticket lane.
pub(crate) const TICKET_STRIDE: usize = 2;
/// Notices of one worker on their way to its pool.
pub(crate) const NOTICES: u64 = 256;
/// Words of a slot of a notice lane.
pub(crate) const NOTICE_STRIDE: usize = 4;
/// Segments of a pool's arena.
pub(crate) const EXTENTS: usize = 64;
/// Bytes of arguments that stand beside the job's own words.
pub(crate) const SMALL: usize = 32;
/// Bytes of arguments, or of a result, that a job of one chunk holds itself.
pub(crate) const INLINE: usize = 192;

/// What a pool's segment begins with; the seats of its workers follow, then its tables.
///
/// ```text
///  +-------+---------+-------+---------+--------+---------------+------------------+
///  | tasks | results | phase | extents | lane   | ticket slots  | singles          |
///  +-------+---------+-------+---------+--------+---------------+------------------+
/// ```
#[repr(C)]
#[derive(Debug)]
pub(crate) struct PoolPage {
    /// Where workers sleep.
    pub(crate) tasks: SignalWords,
    _pad: [AtomicU64; APART / 8 - 2],
    /// Where the pool sleeps.
    pub(crate) results: SignalWords,
    _pad2: [AtomicU64; APART / 8 - 2],
    /// Not 0: workers are to end.
    pub(crate) closing: AtomicU64,
    /// Goes up when an extent is given back, so that workers let go of it.
    pub(crate) epoch: AtomicU64,
    _pad3: [AtomicU64; APART / 8 - 2],
    /// The arena's segments.
    pub(crate) extents: [Extent; EXTENTS],
    /// The tickets' lane: written by the pool, read by all workers.
    pub(crate) lane: LaneHeader,
    pub(crate) tickets: [AtomicU64; TICKETS as usize * TICKET_STRIDE],
    pub(crate) singles: [Single; SINGLES],
}

/// A segment of the arena, as the pool's workers find it.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Extent {
    /// Changes whenever another segment takes this place.
    pub(crate) stamp: AtomicU64,
    /// The segment's handle, as a message.
    pub(crate) handle: [AtomicU64; 7],
}

/// What is to be done with the items of a job.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Job {
    /// The name of the function.
    pub(crate) task: [AtomicU64; 3],
    /// Where the context stands that the function is given with each item; 0 for none.
    pub(crate) context: AtomicU64,
}

/// Items that one worker claims together: where they, and their results, are.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Who works on it; see `pool::job`.
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
    _pad: AtomicU64,
}

/// A job of one chunk, small arguments and a small result included.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Single {
    pub(crate) job: Job,
    pub(crate) small: [AtomicU64; SMALL / 8],
    pub(crate) chunk: Chunk,
    pub(crate) input: [AtomicU64; INLINE / 8],
    pub(crate) output: [AtomicU64; INLINE / 8],
}

/// A job of many chunks.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Table {
    /// The next chunk to claim, and of which generation; see `pool::job`.
    pub(crate) cursor: AtomicU64,
    _pad: [AtomicU64; APART / 8 - 1],
    pub(crate) job: Job,
    _pad2: [AtomicU64; APART / 8 - 4],
    pub(crate) chunks: [Chunk; CHUNKS],
}

/// One worker's own words: what it is doing, and what it tells the pool.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Seat {
    /// 0 asleep or not there, 1 hunting for a ticket, 2 at work.
    pub(crate) now: AtomicU64,
    /// The ticket it is about to take, works on, or worked on last.
    pub(crate) ticket: AtomicU64,
    /// The item it runs, or is about to run (low half), and how many it has begun before (high half).
    pub(crate) item: AtomicU64,
    /// How long it has worked; see `pool::job`.
    pub(crate) busy: AtomicU64,
    _pad: [AtomicU64; APART / 8 - 4],
    /// Where the worker sleeps that has asked for room.
    pub(crate) granted: SignalWords,
    /// How many requests have been answered, and the place given last.
    pub(crate) grants: AtomicU64,
    pub(crate) grant: AtomicU64,
    _pad2: [AtomicU64; APART / 8 - 4],
    /// The notices' lane: written by the worker, read by the pool.
    pub(crate) lane: LaneHeader,
    pub(crate) notices: [AtomicU64; NOTICES as usize * NOTICE_STRIDE],
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
    assert!(size_of::<Extent>() == 64);
    assert!(size_of::<Job>() == 32);
    assert!(size_of::<Chunk>() == 64);
    assert!(size_of::<Single>() == 512);
    assert!(offset_of!(Single, chunk) == 64);
    assert!(offset_of!(Single, output) == 320);
    assert!(offset_of!(PoolPage, results) == APART);
    assert!(offset_of!(PoolPage, closing) == 2 * APART);
    assert!(offset_of!(PoolPage, extents) == 3 * APART);
    assert!(offset_of!(PoolPage, lane) % APART == 0);
    assert!(offset_of!(PoolPage, singles) % APART == 0);
    assert!(size_of::<PoolPage>() % APART == 0);
    assert!(offset_of!(Table, job) == APART);
    assert!(offset_of!(Table, chunks) == 2 * APART);
    assert!(size_of::<Table>() % APART == 0);
    assert!(offset_of!(Seat, granted) == APART);
    assert!(offset_of!(Seat, lane) == 2 * APART);
    assert!(size_of::<Seat>() % APART == 0);
};
