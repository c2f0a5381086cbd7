//! Eight processes change two counters behind one lock; one of them is killed every 0 to 1.5 ms and replaced.
//!
//! The counters are kept equal, and a word beside the lock says who is inside. So it shows when two are inside
//! at once, when a death inside is not told to the next one, and when nobody gets in any more.
//!
//! Run: `cargo test --test kill_lock`; `KILLS=100000 LIMIT=600` for a longer run. With
//! `RUSTFLAGS="--cfg planted"` a death inside is not told, and this must fail.

use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use multiproc::{Child, Lock, LockError, Process, Segment};

const LOCKERS: usize = 8;
/// Threads that kill and replace, each its own share of the lockers.
const HERDS: usize = 2;
/// Nobody entered for so long, with all lockers alive: it hangs.
const HUNG: Duration = Duration::from_secs(1);

/// Words of the board.
mod at {
    pub(super) const STOP: usize = 0;
    /// Who is inside.
    pub(super) const INSIDE: usize = 16;
    pub(super) const ENTERED: usize = 32;
    /// Deaths inside that the next one was told of.
    pub(super) const TOLD: usize = 33;
    /// Deaths inside that it was not told of.
    pub(super) const UNTOLD: usize = 34;
    /// Two inside at once.
    pub(super) const DOUBLE: usize = 35;
    pub(super) const WORDS: usize = 36;
}

fn locker(me: u64, pair: Lock<[u64; 2]>, board: Segment) {
    let board = board.words();
    let count = |at: usize| _ = board[at].fetch_add(1, Relaxed);
    let mut random = Random(me);
    while board[at::STOP].load(Relaxed) == 0 {
        let (mut guard, told) = match pair.lock() {
            Ok(guard) => (guard, false),
            Err(LockError::Abandoned(abandoned)) => (abandoned.recover(), true),
            Err(other) => panic!("{other}"),
        };
        let before = board[at::INSIDE].swap(me, AcqRel);
        if told {
            count(at::TOLD);
            guard[1] = guard[0];
        } else if guard[0] != guard[1] {
            count(at::UNTOLD);
            guard[1] = guard[0];
        } else if before != 0 {
            count(at::DOUBLE);
        }
        guard[0] += 1;
        for _ in 0..random.below(64) {
            std::hint::spin_loop();
        }
        guard[1] += 1;
        if board[at::INSIDE].swap(0, AcqRel) != me {
            count(at::DOUBLE);
        }
        count(at::ENTERED);
    }
}

fn main() -> ExitCode {
    let setting = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    };
    let kills = setting("KILLS", 10_000);
    let limit = Duration::from_secs(setting("LIMIT", 40));
    let pair = Lock::new([0; 2]).unwrap();
    let board = Segment::new(at::WORDS * 8).unwrap();
    let read = |at: usize| board.words()[at].load(Relaxed);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let begin = Instant::now();
    let (killed, started, hung) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let start = || -> Child<()> {
        let me = started.fetch_add(1, Relaxed) + 1;
        Process::spawn(locker, (me, pair.clone(), board.clone())).unwrap()
    };
    // As many kill and start as it takes to keep up.
    let herd = |number: u64| {
        let mut random = Random(seed + number);
        let mut lockers: Vec<_> = (0..LOCKERS / HERDS).map(|_| start()).collect();
        let mut progress = Progress::new();
        while killed.fetch_add(1, Relaxed) < kills && begin.elapsed() < limit {
            sleep(Duration::from_nanos(random.below(1_500_000 * HERDS as u64)));
            let one = random.below(lockers.len() as u64) as usize;
            lockers[one].kill().unwrap();
            // Replaced; the dead one is reaped when it is dropped.
            lockers[one] = start();
            if progress.stopped(read(at::ENTERED)) {
                hung.fetch_add(1, Relaxed);
                break;
            }
        }
        board.words()[at::STOP].store(1, Relaxed);
        for locker in lockers {
            match locker.join_timeout(Duration::from_secs(5)) {
                Ok(Some(())) => {}
                Ok(None) => _ = hung.fetch_add(1, Relaxed),
                Err(error) => panic!("{error}"),
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..HERDS as u64 {
            scope.spawn(move || herd(number));
        }
    });

    let took = begin.elapsed();
    // Each herd counted one more than it killed.
    let killed = killed.into_inner() - HERDS as u64;
    let (double, untold, hung) = (read(at::DOUBLE), read(at::UNTOLD), hung.into_inner());
    println!(
        "{killed} kills in {took:.1?}: {} times inside, {} deaths told, {untold} untold, {double} double, {hung} hung",
        read(at::ENTERED),
        read(at::TOLD),
    );
    let well = (double, untold, hung) == (0, 0, 0) && read(at::TOLD) > 0;
    ExitCode::from(if well { 0 } else { 1 })
}

/// Watches a count that must not stand still. Time in which the watcher itself was kept from running, as on
/// a crowded machine, counts for little.
struct Progress {
    last: u64,
    still: Duration,
    looked: Instant,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            last: 0,
            still: Duration::ZERO,
            looked: Instant::now(),
        }
    }

    fn stopped(&mut self, count: u64) -> bool {
        let passed = self.looked.elapsed().min(Duration::from_millis(20));
        self.looked = Instant::now();
        self.still = if count == self.last {
            self.still + passed
        } else {
            Duration::ZERO
        };
        self.last = count;
        self.still >= HUNG
    }
}

/// A linear congruential generator; its high bits are good enough for mischief.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 32) * limit) >> 32
    }
}
