//! Eight processes change two counters behind one lock; one of them is killed every 0 to 1.5 ms and replaced.
//!
//! The counters are kept equal, and a word beside the lock says who is inside. So it shows when two are inside
//! at once, when a death inside is not told to the next one, and when nobody gets in any more.
//!
//! With `RUSTFLAGS="--cfg planted"` a death inside is not told, and this must fail.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::thread::{self, sleep};
use std::time::Duration;

use libtest_mimic::Failed;
use multiproc::{Child, Guard, Lock, LockError, Process, Segment};

use crate::{LONG, Random, Toll, Watch, give_way};

pub(crate) const TESTS: &[crate::Test] = &[("lock", || torture(&Toll::of(10_000)))];

const LOCKERS: usize = 8;
/// Threads that kill and replace, each its own share of the lockers.
const HERDS: usize = 2;

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
    give_way();
    let board = board.words();
    let count = |at: usize| _ = board[at].fetch_add(1, Relaxed);
    let mut random = Random(me << 1 | 1);
    while board[at::STOP].load(Relaxed) == 0 {
        let (mut guard, told) = match pair.lock() {
            Ok(guard) => (guard, false),
            Err(LockError::Abandoned(_)) => {
                let guard = pair.recover().unwrap();
                // Another that was told may have been quicker.
                let told = Guard::was_abandoned(&guard);
                (guard, told)
            }
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

pub(crate) fn torture(toll: &Toll) -> Result<(), Failed> {
    let pair = Lock::new([0; 2]).unwrap();
    let board = Segment::new(at::WORDS * 8).unwrap();
    let read = |at: usize| board.words()[at].load(Relaxed);
    let (killed, started) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = || -> Child<()> {
        let me = started.fetch_add(1, Relaxed) + 1;
        Process::spawn(locker, (me, pair.clone(), board.clone())).unwrap()
    };
    let watched = board.clone();
    let watch = Watch::start(move || watched.words()[at::ENTERED].load(Relaxed));
    // As many kill and start as it takes to keep up.
    let herd = || -> Result<(), Failed> {
        let mut random = Random::new();
        let mut lockers: Vec<_> = (0..LOCKERS / HERDS).map(|_| start()).collect();
        while toll.take_one() {
            sleep(Duration::from_nanos(random.below(1_500_000 * HERDS as u64)));
            watch.check("inside", killed.fetch_add(1, Relaxed))?;
            let one = random.below(lockers.len() as u64) as usize;
            lockers[one].kill().unwrap();
            // Replaced; the dead one is reaped when it is dropped.
            lockers[one] = start();
        }
        board.words()[at::STOP].store(1, Relaxed);
        for locker in lockers {
            match locker.join_timeout(LONG) {
                Ok(Some(())) => {}
                other => return Err(format!("at the end: {other:?}").into()),
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let herds: Vec<_> = (0..HERDS).map(|_| scope.spawn(herd)).collect();
        herds
            .into_iter()
            .try_for_each(|herd| herd.join().expect("a herd has not panicked"))
    })?;
    let longest = watch.longest();
    let (entered, told) = (read(at::ENTERED), read(at::TOLD));
    let (double, untold) = (read(at::DOUBLE), read(at::UNTOLD));
    let summary = format!(
        "lock: {killed:?} kills, {entered} times inside, {told} deaths told, {untold} untold, {double} double, \
         longest pause {longest:?}"
    );
    eprintln!("{summary}");
    match (double, untold) == (0, 0) && told > 0 {
        true => Ok(()),
        false => Err(summary.into()),
    }
}
