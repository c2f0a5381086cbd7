//! The pure protocols from their own sources, on the heap, among threads: for tools that cannot follow shared memory.
//!
//! ```text
//! cargo test --release --test pure
//! MIRIFLAGS=-Zmiri-many-seeds=0..16 cargo +nightly miri test --test pure
//! RUSTFLAGS=-Zsanitizer=thread cargo +nightly test -Zbuild-std --target x86_64-unknown-linux-gnu --test pure
//! ```

#![cfg(not(loom))]
#![allow(unsafe_code)]

mod error {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Corrupt(pub(crate) &'static str);
}
#[path = "../../src/chunk.rs"]
#[allow(dead_code, reason = "these threads do not need all of the chunks")]
mod chunk;
#[path = "../../src/latch.rs"]
#[allow(dead_code, reason = "these threads do not need all of the latch")]
mod latch;
#[path = "../../src/layout.rs"]
#[allow(dead_code, reason = "the protocols need some of the layout")]
mod layout;
#[path = "../../src/ring.rs"]
#[allow(dead_code, reason = "these threads do not need all of the ring")]
mod ring;
#[path = "../../src/roster.rs"]
#[allow(dead_code, reason = "these threads do not need all of the roster")]
mod roster;
#[path = "../../src/signal.rs"]
#[allow(dead_code, reason = "these threads do not need all of the signal")]
mod signal;
#[path = "../../src/stream.rs"]
#[allow(dead_code, reason = "these threads do not need all of the stream")]
mod stream;
mod sync;

use std::cell::{Cell, UnsafeCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use error::Corrupt;
use latch::{Left, Limit, Visitor};
use layout::{LaneHeader, LatchWords, PoolChunk, SignalWords, StreamHeader};
use ring::{Geometry, Reader, Writer};
use roster::{Life, Owner};
use signal::Patience;
use stream::{Bulk, Lines, Next, Ring};
use sync::Futex;

/// Messages of one test: few for an interpreter, many for a processor.
const MESSAGES: u64 = if cfg!(miri) { 40 } else { 200_000 };

/// Participants whose threads have ended without a word.
#[derive(Default)]
struct Graves(AtomicU32);

/// One who asks about the dead.
struct Asks(Arc<Graves>, u32);

impl Life for Asks {
    fn me(&self) -> u32 {
        self.1
    }

    fn is_dead(&self, participant: u32) -> bool {
        self.0.0.load(Ordering::Acquire) & 1 << participant != 0
    }

    fn is_evicted(&self) -> bool {
        false
    }
}

struct Lane {
    geometry: Geometry,
    header: LaneHeader,
    slots: Vec<AtomicU64>,
    empty: SignalWords,
    deaths: Futex,
}

impl Lane {
    fn new(capacity: u64, payload: usize) -> Arc<Lane> {
        let geometry = Geometry {
            capacity,
            stride: 1 + payload,
        };
        Arc::new(Lane {
            geometry,
            header: LaneHeader::default(),
            slots: (0..geometry.words()).map(|_| AtomicU64::new(0)).collect(),
            empty: SignalWords::default(),
            deaths: Futex::default(),
        })
    }

    /// Sends numbers from `from` on until `to`, waiting for room.
    fn send(&self, from: u64, to: u64) {
        let mut writer = Writer::attach(self.geometry, &self.header, &self.slots);
        let mut patience = Patience::new();
        let mut next = from;
        while next < to {
            let header = &self.header;
            let look = || -> Result<_, Corrupt> {
                let room = writer.room(header);
                Ok((room != 0).then_some(room))
            };
            // The same look before a sleep.
            let room = header
                .full
                .wait(&mut patience, None, &self.deaths, look, |_| Ok(None));
            let room = room.unwrap().unwrap();
            let batch = room.min(to - next).min(3);
            for ahead in 0..batch {
                for word in writer.payload(&self.slots, ahead) {
                    word.store(next + ahead, Ordering::Relaxed);
                }
            }
            writer.publish(&self.slots, batch);
            next += batch;
            self.empty.notify_one();
        }
    }

    /// Receives until one of the numbers is `last`, which is for the others too.
    fn receive(&self, taken: &AtomicU64, last: u64) -> Vec<u64> {
        let mut reader = Reader::attach(self.geometry, &self.header);
        let mut patience = Patience::new();
        let mut numbers = Vec::new();
        while taken.load(Ordering::Acquire) < last {
            let look = || -> Result<_, Corrupt> {
                if taken.load(Ordering::Acquire) >= last {
                    return Ok(Some(None));
                }
                let Some(payload) = reader.peek(&self.header, &self.slots)? else {
                    return Ok(None);
                };
                let copy: Vec<u64> = payload
                    .iter()
                    .map(|word| word.load(Ordering::Relaxed))
                    .collect();
                Ok(reader.take(&self.header, 1).then_some(Some(copy)))
            };
            let found = self
                .empty
                .wait(&mut patience, None, &self.deaths, look, |_| Ok(None));
            let Some(Some(copy)) = found.unwrap() else {
                break;
            };
            assert!(copy.iter().all(|word| *word == copy[0]), "torn: {copy:?}");
            numbers.push(copy[0]);
            taken.fetch_add(1, Ordering::Release);
        }
        self.empty.notify_all();
        numbers
    }
}

#[test]
fn a_lane_loses_and_repeats_nothing() {
    for (capacity, payload) in [(1, 1), (3, 2), (8, 1), (64, 3)] {
        let lane = Lane::new(capacity, payload);
        let taken = Arc::new(AtomicU64::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (lane, taken) = (Arc::clone(&lane), Arc::clone(&taken));
                thread::spawn(move || lane.receive(&taken, MESSAGES))
            })
            .collect();
        // Three senders, one after the other.
        let third = MESSAGES / 3;
        for (from, to) in [(0, third), (third, 2 * third), (2 * third, MESSAGES)] {
            let lane = Arc::clone(&lane);
            thread::spawn(move || lane.send(from, to)).join().unwrap();
        }
        let mut all = Vec::new();
        for reader in readers {
            let numbers = reader.join().unwrap();
            assert!(numbers.is_sorted_by(|a, b| a < b));
            all.extend(numbers);
        }
        all.sort_unstable();
        assert_eq!(all, (0..MESSAGES).collect::<Vec<_>>());
    }
}

#[test]
fn a_lock_excludes_and_tells_of_the_dead() {
    struct Locked {
        words: LatchWords,
        deaths: Futex,
        /// Not atomic: the tools see two who are inside.
        value: UnsafeCell<[u64; 2]>,
    }
    // SAFETY: the value is touched only by whoever is inside, which is what is under test.
    unsafe impl Sync for Locked {}

    let locked = Arc::new(Locked {
        words: LatchWords::default(),
        deaths: Futex::default(),
        value: UnsafeCell::new([0, 0]),
    });
    let graves = Arc::new(Graves::default());
    let times = MESSAGES / 4;
    let visit = |participant: u32, dies: bool| {
        let (locked, graves) = (Arc::clone(&locked), Arc::clone(&graves));
        thread::spawn(move || {
            let me = Visitor {
                pid: 4711,
                participant,
                thread: 1,
            };
            let asks = Asks(Arc::clone(&graves), participant);
            let mut abandoned = 0;
            for time in 0..times {
                let left = match locked.words.try_enter(me) {
                    true => Left::Finished,
                    false => locked
                        .words
                        .enter(me, Limit::Never, &asks, &locked.deaths)
                        .unwrap(),
                };
                // SAFETY: this thread is inside.
                let value = unsafe { &mut *locked.value.get() };
                match left {
                    Left::Finished => assert_eq!(value[0], value[1], "half changed"),
                    Left::Unfinished => {
                        abandoned += 1;
                        value[1] = value[0];
                    }
                }
                value[0] += 1;
                if dies && time == times / 2 {
                    // Never to leave.
                    graves.0.fetch_or(1 << participant, Ordering::Release);
                    locked.deaths.fetch_add(1, Ordering::Release);
                    locked.deaths.wake(u32::MAX);
                    return abandoned;
                }
                value[1] += 1;
                locked.words.leave(participant, Left::Finished);
            }
            abandoned
        })
    };
    let threads = [
        visit(1, false),
        visit(2, true),
        visit(3, false),
        visit(4, true),
    ];
    let told: u64 = threads.map(|thread| thread.join().unwrap()).iter().sum();
    // Who dies last may have nobody left to tell.
    assert!((1..=2).contains(&told), "{told} times somebody was told");
}

#[test]
fn an_owner_word_has_one_owner() {
    let word = Arc::new(AtomicU64::new(0));
    let graves = Arc::new(Graves::default());
    // The dead one's; each of the others wants it, once.
    word.store(Owner::Held(1).word(), Ordering::Relaxed);
    graves.0.fetch_or(1 << 1, Ordering::Release);
    let threads: Vec<_> = (2..6)
        .map(|me| {
            let (word, asks) = (Arc::clone(&word), Asks(Arc::clone(&graves), me));
            thread::spawn(move || roster::claim(&word, Owner::Held(me), &asks))
        })
        .collect();
    let won = threads.into_iter().map(|thread| thread.join().unwrap());
    assert_eq!(won.filter(|won| *won).count(), 1);
}

#[test]
fn a_chunk_is_done_once() {
    struct Table {
        cursor: AtomicU64,
        done: AtomicU64,
        chunks: Vec<PoolChunk>,
        /// Not atomic: the tools see two who work on a chunk, and a result that is read before it is there.
        results: Vec<UnsafeCell<u64>>,
    }
    // SAFETY: a result is touched only by whoever has leased its chunk, and then by the pool, which is under test.
    unsafe impl Sync for Table {}

    const CHUNKS: usize = 8;
    const DEAD: u16 = 1;
    let table = Arc::new(Table {
        cursor: AtomicU64::new(0),
        done: AtomicU64::new(0),
        chunks: (0..CHUNKS).map(|_| PoolChunk::default()).collect(),
        results: (0..CHUNKS).map(|_| UnsafeCell::new(0)).collect(),
    });
    for round in 0..MESSAGES / 40 {
        table.done.store(0, Ordering::Relaxed);
        table.chunks.iter().for_each(chunk::offer);
        chunk::set_cursor(&table.cursor, CHUNKS, 0);
        let work = |seat: u16| {
            let table = Arc::clone(&table);
            move || {
                while let Some(index) = chunk::claim(&table.cursor) {
                    let Some(lease) = chunk::lease(&table.chunks, index, seat) else {
                        continue;
                    };
                    // SAFETY: the chunk is leased by this thread.
                    unsafe { *table.results[index].get() = round * 100 + index as u64 };
                    if seat == DEAD {
                        // Never to finish.
                        return;
                    }
                    chunk::finish(&table.done, lease, CHUNKS);
                }
            }
        };
        let workers = [1, 2, 3].map(|seat| thread::spawn(work(seat)));
        let [dead, others @ ..] = workers;
        // The proof of a death, and what the dead had written.
        dead.join().unwrap();
        for (index, chunk) in table.chunks.iter().enumerate() {
            if chunk::reclaim(chunk, &table.done, index, DEAD) {
                chunk::offer(chunk);
            }
        }
        if let Some(first) = chunk::first_ready(&table.chunks) {
            chunk::set_cursor(&table.cursor, CHUNKS, first);
        }
        // Whoever comes to it late works on it too.
        work(4)();
        while !chunk::is_done(&table.done, CHUNKS) {
            thread::yield_now();
        }
        for (index, result) in table.results.iter().enumerate() {
            // SAFETY: it is done: nobody works on it any more.
            let result = unsafe { *result.get() };
            assert_eq!(result, round * 100 + index as u64);
        }
        for other in others {
            other.join().unwrap();
        }
    }
}

/// Bytes of a ring, which the protocol hands from one thread to the other.
struct Bytes(UnsafeCell<Vec<u8>>);

// SAFETY: only whoever the protocol lets touches a range, which is what is under test.
unsafe impl Sync for Bytes {}
// SAFETY: as above.
unsafe impl Send for Bytes {}

impl Bytes {
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        // SAFETY: the vector itself is never changed.
        let bytes = unsafe { &*self.0.get() };
        assert!(at + len <= bytes.len());
        // SAFETY: inside the vector.
        unsafe { bytes.as_ptr().add(at).cast_mut() }
    }
}

impl Bulk for Bytes {
    fn copy_in(&self, at: usize, from: &[u8]) {
        // SAFETY: the range is inside, and nobody else touches it now: the tools tell if that is not so.
        unsafe {
            self.at(at, from.len())
                .copy_from_nonoverlapping(from.as_ptr(), from.len());
        }
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) {
        // SAFETY: as in `copy_in`.
        unsafe {
            self.at(at, to.len())
                .copy_to_nonoverlapping(to.as_mut_ptr(), to.len());
        }
    }

    fn append(&self, at: usize, len: usize, to: &mut Vec<u8>) {
        let end = to.len();
        to.resize(end + len, 0);
        self.copy_out(at, &mut to[end..]);
    }
}

#[test]
fn a_stream_carries_messages_of_all_sizes() {
    // Beside the words the bytes of runs lie in memory of their own: here no short run is used, which lies in words.
    const SIZES: [usize; 7] = [8, 0, 56, 300, 600, 8, 1024];
    let lines = Lines::of_bytes(4096).unwrap();
    let header = Arc::new(StreamHeader::default());
    let words: Arc<Vec<AtomicU64>> = Arc::new((0..512).map(|_| AtomicU64::new(0)).collect());
    let bytes = Arc::new(Bytes(UnsafeCell::new(vec![0; 4096])));
    let count = MESSAGES / 2;
    let content = |n: u64| -> Vec<u8> {
        let size = SIZES[(n % 7) as usize];
        (0..size as u64).map(|at| (n + at) as u8).collect()
    };
    let writer = {
        let (header, words, bytes) = (header.clone(), words.clone(), bytes.clone());
        thread::spawn(move || {
            let ring = Ring {
                header: &header,
                words: &words,
                bytes: &*bytes,
            };
            let mut writer = stream::Writer::new(lines);
            for n in 0..count {
                let message = content(n);
                while !writer.has_room_exactly(&header, lines.ahead(message.len())) {
                    thread::yield_now();
                }
                if message.len() <= stream::SMALL {
                    let mut padded = message.clone();
                    padded.resize(message.len().div_ceil(8).max(1) * 8, 0);
                    let words_of: Vec<u64> = padded
                        .chunks_exact(8)
                        .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
                        .collect();
                    writer.put_small(&words, &words_of, message.len());
                } else {
                    writer.put_run(&ring, &message, true);
                }
            }
        })
    };
    let ring = Ring {
        header: &header,
        words: &words,
        bytes: &*bytes,
    };
    let mut reader = stream::Reader::new(lines);
    for n in 0..count {
        let found = loop {
            match reader.next(&header, &words).unwrap() {
                Next::Nothing => {
                    reader.settle(&header);
                    thread::yield_now();
                }
                found => break found,
            }
        };
        let mut message = Vec::new();
        match found {
            Next::Small(bytes) => {
                let mut words_of = [0; stream::CONTENT];
                reader.take_small(&header, &words, bytes, &mut words_of);
                message = words_of
                    .iter()
                    .flat_map(|word| word.to_ne_bytes())
                    .collect();
                message.truncate(bytes);
            }
            Next::Run { bytes, last: true } => reader.append_run(&ring, bytes, &mut message),
            other => panic!("{other:?}"),
        }
        assert_eq!(message, content(n), "message {n}");
    }
    writer.join().unwrap();
}

/// One wait that somebody on `waker` ends, after this thread fell asleep on processor 7; how often it looked.
fn looks_of_one_wait(signal: &SignalWords, patience: &mut Patience, waker: u32) -> usize {
    let (mut looks, is_there) = (0, Cell::new(false));
    let look = || {
        looks += 1;
        Ok::<_, Corrupt>(is_there.get().then_some(()))
    };
    // Everything is announced by now: the waker comes between that and the sleep.
    let check = |_| {
        sync::move_to(waker);
        is_there.set(true);
        signal.notify_one();
        sync::move_to(7);
        Ok(None)
    };
    let found = signal.wait(patience, None, &Futex::default(), look, check);
    assert_eq!(found, Ok(Some(())));
    looks
}

/// A wait without a spin looks when it is announced, and when it wakes.
const WITHOUT_A_SPIN: usize = 2;

/// Who is woken from his own processor spins no more, but for a try after 2, 4, .. 256 waits.
#[test]
fn nobody_spins_while_the_other_side_needs_the_processor() {
    let (signal, mut patience) = (SignalWords::default(), Patience::new());
    for rest in [2, 4, 8, 16, 32, 64, 128, 256, 256] {
        assert!(looks_of_one_wait(&signal, &mut patience, 7) > WITHOUT_A_SPIN);
        for _ in 0..rest {
            assert_eq!(looks_of_one_wait(&signal, &mut patience, 7), WITHOUT_A_SPIN);
        }
    }
}

/// Who is woken from another processor spins, and does so at once when he rested before.
#[test]
fn a_spin_is_for_those_whose_other_side_runs_meanwhile() {
    let (signal, mut patience) = (SignalWords::default(), Patience::new());
    for _ in 0..10 {
        assert!(looks_of_one_wait(&signal, &mut patience, 8) > WITHOUT_A_SPIN);
    }
    for _ in 0..2 {
        looks_of_one_wait(&signal, &mut patience, 7);
    }
    assert_eq!(looks_of_one_wait(&signal, &mut patience, 8), WITHOUT_A_SPIN);
    assert!(looks_of_one_wait(&signal, &mut patience, 8) > WITHOUT_A_SPIN);
}

/// Nobody sleeps longer than 80 ms, however long the wait is, and every sleep that nobody ended is followed by
/// the question who is dead, as soon as its time has come.
#[test]
fn the_dead_are_asked_for_after_every_slice() {
    let (signal, mut patience) = (SignalWords::default(), Patience::new());
    let end = Instant::now() + Duration::from_millis(300);
    let mut asked = Vec::new();
    let check = |ask| {
        asked.push(ask);
        Ok::<Option<()>, Corrupt>(None)
    };
    let found = signal.wait(
        &mut patience,
        Some(end),
        &Futex::default(),
        || Ok(None),
        check,
    );
    assert_eq!(found, Ok(None));
    assert!(sync::longest_sleep() <= Duration::from_millis(80));
    // After 20, 60, 140 and 220 ms, and at first. Other tests' wakes end sleeps here too, and then it is too early
    // to ask.
    let times = asked.iter().filter(|ask| **ask).count();
    assert!(times > 3, "{times} times");
}

/// A death that was counted is asked for at once, and only once.
#[test]
fn a_counted_death_is_asked_for_once() {
    let (signal, mut patience) = (SignalWords::default(), Patience::new());
    let deaths = Futex::default();
    let mut ask = || {
        let end = Instant::now();
        let mut asked = None;
        let check = |ask| {
            asked = Some(ask);
            Ok::<Option<()>, Corrupt>(None)
        };
        let found = signal.wait(&mut patience, Some(end), &deaths, || Ok(None), check);
        assert_eq!(found, Ok(None));
        asked.unwrap()
    };
    assert!(ask(), "never asked before");
    deaths.fetch_add(1, Ordering::Release);
    assert!(ask(), "somebody died");
    deaths.fetch_add(1, Ordering::Release);
    assert!(ask(), "another one died");
}
