//! Eight processes change two counters behind one lock; one of them is killed every 0 to 1.5 ms and replaced.
//!
//! The counters are kept equal, and a word beside the lock says who is inside. So it shows when two are inside
//! at once, when a death inside is not told to the next one, and when nobody gets in any more.
//!
//! Run: `cargo test --test kill_lock`; `KILLS=100000 LIMIT=600` for a longer run. With
//! `RUSTFLAGS="--cfg planted"` a death inside is not told, and this must fail.

use std::process::ExitCode;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use multiproc::{Child, Lock, LockError, Process, Segment};

const LOCKERS: usize = 8;
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
    let (kills, seconds) = (setting("KILLS", 10_000), setting("LIMIT", 40));
    let pair = Lock::new([0; 2]).unwrap();
    let board = Segment::new(at::WORDS * 8).unwrap();
    let read = |at: usize| board.words()[at].load(Relaxed);
    let mut started = 0;
    let mut start = || -> Child<()> {
        started += 1;
        Process::spawn(locker, (started, pair.clone(), board.clone())).unwrap()
    };
    let mut lockers: Vec<_> = (0..LOCKERS).map(|_| start()).collect();

    let mut random = Random(u64::from(std::process::id()));
    println!("seed {}", random.0);
    let begin = Instant::now();
    let (mut killed, mut hung) = (0, 0);
    let mut progress = Progress::new(HUNG);
    while killed < kills && begin.elapsed() < Duration::from_secs(seconds) {
        sleep(Duration::from_nanos(random.below(1_500_000)));
        let one = random.below(LOCKERS as u64) as usize;
        lockers[one].kill().unwrap();
        killed += 1;
        // Replaced; the dead one is reaped when it is dropped.
        lockers[one] = start();
        if progress.stopped(read(at::ENTERED)) {
            hung += 1;
            break;
        }
    }
    let took = begin.elapsed();
    board.words()[at::STOP].store(1, Relaxed);
    for locker in lockers {
        match locker.join_timeout(Duration::from_secs(5)) {
            Ok(Some(())) => {}
            Ok(None) => hung += 1,
            Err(error) => panic!("{error}"),
        }
    }

    let (double, untold) = (read(at::DOUBLE), read(at::UNTOLD));
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
    limit: Duration,
    last: u64,
    still: Duration,
    looked: Instant,
}

impl Progress {
    fn new(limit: Duration) -> Progress {
        Progress {
            limit,
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
        self.still >= self.limit
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
