//! Long random schedules of the pure protocols, in which participants die at any step and are declared dead.
//!
//! Loom (`tests/loom.rs`) looks at every order of few steps and at what weak memory may show; here one thread runs
//! at a time, but there are many steps, and deaths. The stepper kills true processes, one at a time.
//!
//! ```text
//! cargo test --release --manifest-path tests/shuttle/Cargo.toml
//! ```
//!
//! `SCHEDULES` sets how many instead of 10,000 each. With `RUSTFLAGS="--cfg planted"`, those of the lane and the lock
//! must fail; the bugs of the pool are planted by a test of their own.

#![cfg(test)]

#[path = "../../src/chunk.rs"]
#[allow(dead_code, reason = "this pool does not need all of the chunks")]
mod chunk;
mod death;
mod error {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Corrupt(pub(crate) &'static str);
}
#[path = "../../src/latch.rs"]
#[allow(dead_code, reason = "these threads do not need all of the latch")]
mod latch;
#[path = "../../src/layout.rs"]
#[allow(dead_code, reason = "the protocols need some of the layout")]
mod layout;
mod pool;
#[path = "../../src/ring.rs"]
#[allow(dead_code, reason = "these threads do not need all of the ring")]
mod ring;
#[path = "../../src/roster.rs"]
#[allow(dead_code, reason = "these threads do not need all of the roster")]
mod roster;
#[path = "../../src/signal.rs"]
#[allow(dead_code, reason = "these threads do not need all of the signal")]
mod signal;
#[allow(dead_code, reason = "as in the sources themselves")]
mod sync;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64 as Count;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::Arc;
use shuttle::{Config, Runner};

use death::{Member, Tree};
use error::Corrupt;
use latch::{Left, Limit, Visitor};
use layout::{LaneHeader, LatchWords, SignalWords};
use ring::{Geometry, Reader, Writer};
use roster::Owner;
use signal::Patience;
use sync::{AtomicU64, Ordering};

/// Runs a test in many schedules: random ones, and ones with few switches at random places.
fn schedules(test: fn()) {
    run_some(1, test);
}

/// The same in one of so many schedules: for a test that is long.
fn run_some(of: usize, test: impl Fn() + Clone + Send + Sync + 'static) {
    let count: usize = match std::env::var("SCHEDULES") {
        Ok(text) => text.parse().expect("SCHEDULES is a number"),
        Err(_) => 10_000,
    };
    run(RandomScheduler::new(count / of), test.clone());
    run(PctScheduler::new(3, count / of), test);
}

fn run(scheduler: impl Scheduler + 'static, test: impl Fn() + Send + Sync + 'static) {
    Runner::new(scheduler, Config::new()).run(test);
}

/// Messages of all senders together.
const MESSAGES: u64 = 12;
const CAPACITY: u64 = 3;
/// More steps than a participant has: some of the mortal live.
const STEPS: u32 = 150;

/// A lane, and what went through it.
struct Line {
    geometry: Geometry,
    header: LaneHeader,
    slots: Vec<AtomicU64>,
    empty: SignalWords,
    over: AtomicU64,
    /// One past the last message whose sending had returned.
    sent: Count,
    came: Mutex<Vec<u64>>,
}

impl Line {
    fn new() -> Arc<Line> {
        let geometry = Geometry {
            capacity: CAPACITY,
            stride: 3,
        };
        Arc::new(Line {
            geometry,
            header: LaneHeader::default(),
            slots: (0..geometry.words()).map(|_| AtomicU64::new(0)).collect(),
            empty: SignalWords::default(),
            over: AtomicU64::new(0),
            sent: Count::new(0),
            came: Mutex::default(),
        })
    }

    /// Sends what is left to send, if nobody else does.
    fn send(&self, member: &Member) {
        let me = Owner::Held(member.participant);
        if !roster::claim(&self.header.owner, me, member) {
            return;
        }
        let mut writer = Writer::attach(self.geometry, &self.header, &self.slots);
        let mut patience = Patience::new();
        while writer.position() < MESSAGES {
            let look = || -> Result<_, Corrupt> {
                let room = writer.room(&self.header);
                Ok((room != 0).then_some(room))
            };
            let full = &self.header.full;
            let room = full.wait(&mut patience, None, &member.tree.deaths, look, |_| Ok(None));
            let room = room.unwrap().unwrap();
            let first = writer.position();
            let batch = room.min(MESSAGES - first).min(2);
            for ahead in 0..batch {
                for word in writer.payload(&self.slots, ahead) {
                    word.store(first + ahead, Ordering::Relaxed);
                }
            }
            writer.publish(&self.slots, batch);
            self.sent.store(writer.position(), Ordering::Relaxed);
            self.empty.notify_one();
        }
        roster::release(&self.header.owner, me);
    }

    /// Receives until it is over.
    fn receive(&self, member: &Member) {
        let mut reader = Reader::attach(self.geometry, &self.header);
        let mut patience = Patience::new();
        let mut before = None;
        loop {
            let look = || -> Result<_, Corrupt> {
                loop {
                    // Asked first: what was published before the end is there then.
                    let over = self.over.load(Ordering::Acquire) != 0;
                    let Some(payload) = reader.peek(&self.header, &self.slots)? else {
                        return Ok(over.then_some(None));
                    };
                    let copy: Vec<u64> = payload
                        .iter()
                        .map(|word| word.load(Ordering::Relaxed))
                        .collect();
                    // Whoever comes too late for this one looks for the next before it sleeps.
                    if reader.take(&self.header, 1) {
                        return Ok(Some(Some(copy)));
                    }
                }
            };
            let deaths = &member.tree.deaths;
            let found = self
                .empty
                .wait(&mut patience, None, deaths, look, |_| Ok(None));
            let Some(copy) = found.unwrap().unwrap() else {
                return;
            };
            assert!(copy.iter().all(|word| *word == copy[0]), "torn: {copy:?}");
            assert!(before < Some(copy[0]), "out of order");
            before = Some(copy[0]);
            self.came.lock().unwrap().push(copy[0]);
        }
    }
}

/// Senders die, one after the other, and so does one of two receivers.
#[test]
fn a_lane_outlives_its_ends() {
    schedules(|| {
        let line = Line::new();
        let tree = Arc::new(Tree::default());
        let receiver = |participant, mortal| {
            let line = line.clone();
            Member::new(&tree, participant).spawn(mortal, move |me| line.receive(me))
        };
        let receivers = [receiver(1, None), receiver(2, Some(STEPS))];
        let mut participant = 3;
        // Two want the lane each time; those that come last do not die.
        for mortal in [Some(STEPS), Some(STEPS), None] {
            let senders = [(); 2].map(|()| {
                let line = line.clone();
                participant += 1;
                Member::new(&tree, participant).spawn(mortal, move |me| line.send(me))
            });
            for sender in senders {
                sender.join().unwrap();
            }
        }
        line.over.store(1, Ordering::Release);
        line.empty.notify_all();
        let ended = receivers.map(|receiver| receiver.join().unwrap());
        let died = ended.iter().filter(|ended| ended.is_none()).count();

        let came = line.came.lock().unwrap();
        let once: BTreeSet<u64> = came.iter().copied().collect();
        assert_eq!(once.len(), came.len(), "repeated: {came:?}");
        assert_eq!(line.sent.load(Ordering::Relaxed), MESSAGES);
        let missing = MESSAGES as usize - once.len();
        assert!(missing <= died, "{missing} missing, {died} died: {came:?}");
    });
}

/// What a lock guards: two numbers that are equal whenever nobody is inside, and who is.
#[derive(Default)]
struct Locked {
    words: LatchWords,
    pair: [AtomicU64; 2],
    inside: Count,
}

impl Locked {
    /// Enters and leaves a few times, raising both numbers.
    fn visit(&self, member: &Member) {
        let me = Visitor {
            pid: 4711,
            participant: member.participant,
            thread: 1,
        };
        for _ in 0..3 {
            let left = match self.words.try_enter(me) {
                true => Left::Finished,
                false => {
                    let deaths = &member.tree.deaths;
                    self.words.enter(me, Limit::Never, member, deaths).unwrap()
                }
            };
            let before = self
                .inside
                .swap(u64::from(me.participant), Ordering::Relaxed);
            let pair = || {
                self.pair
                    .each_ref()
                    .map(|word| word.load(Ordering::Relaxed))
            };
            let [first, second] = pair();
            match left {
                Left::Finished => {
                    assert_eq!(before, 0, "two are inside, or nobody was told of a death");
                    assert_eq!(first, second, "half changed, and nobody was told");
                }
                Left::Unfinished => self.pair[1].store(first, Ordering::Relaxed),
            }
            for word in &self.pair {
                word.fetch_add(1, Ordering::Relaxed);
            }
            let [first, second] = pair();
            assert_eq!(first, second, "two are inside");
            let inside = self.inside.swap(0, Ordering::Relaxed);
            assert_eq!(inside, u64::from(me.participant), "two are inside");
            self.words.leave(me.participant, Left::Finished);
        }
    }
}

/// Some of those who want a lock die, inside or in front of it.
#[test]
fn a_lock_outlives_its_holders() {
    schedules(|| {
        let locked = Arc::new(Locked::default());
        let tree = Arc::new(Tree::default());
        let mortal = [None, Some(STEPS), Some(STEPS), None];
        let visitors: Vec<_> = (1..)
            .zip(mortal)
            .map(|(participant, mortal)| {
                let locked = locked.clone();
                Member::new(&tree, participant).spawn(mortal, move |me| locked.visit(me))
            })
            .collect();
        for visitor in visitors {
            visitor.join().unwrap();
        }
        // Whoever died last is no hindrance either.
        let last = Member::new(&tree, 9).spawn(None, move |me| locked.visit(me));
        assert!(last.join().unwrap().is_some());
    });
}
