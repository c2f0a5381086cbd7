//! Models of the pure protocols: every interleaving and every reordering that loom can find.
//!
//! The protocols are compiled here from their own sources, on loom's atomics; that they can be is the
//! proof that they depend on nothing but words. One model per edge of `src/ring.rs`, `src/signal.rs`,
//! `src/roster.rs`, `src/latch.rs`, `src/stream.rs`, `src/queue/blocks.rs` and `src/chunk.rs`; `tests/mutants`
//! weakens each ordering in turn and expects one of these to fail.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test --release --test loom`

#![cfg(loom)]

mod error {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Corrupt(pub(crate) &'static str);
}
#[path = "../src/queue/blocks.rs"]
#[allow(dead_code, reason = "a model needs some of the blocks")]
mod blocks;
#[path = "../src/chunk.rs"]
#[allow(dead_code, reason = "a model needs some of the chunks")]
mod chunk;
#[path = "../src/latch.rs"]
#[allow(dead_code, reason = "a model needs some of the latch")]
mod latch;
#[path = "../src/layout.rs"]
#[allow(dead_code, reason = "a model needs some of the layout")]
mod layout;
#[path = "../src/ring.rs"]
#[allow(dead_code, reason = "a model needs some of the ring")]
mod ring;
#[path = "../src/roster.rs"]
#[allow(dead_code, reason = "a model needs some of the roster")]
mod roster;
#[path = "../src/signal.rs"]
#[allow(dead_code, reason = "a model needs some of the signal")]
mod signal;
#[path = "../src/stream.rs"]
#[allow(dead_code, reason = "a model needs some of the stream")]
mod stream;
#[path = "../src/sync.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "a model needs some of the atomics"
)]
mod sync;

use blocks::{Hold, Holder, Shelf, Taken};
use latch::{Left, Limit, Refused, Visitor};
use layout::{LaneHeader, LatchWords, PoolChunk, SignalWords, StreamHeader};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use ring::{Geometry, Reader, Writer};
use roster::{Life, Owner};
use signal::Patience;
use stream::{Bulk, Lines, Next, Ring};
use sync::{Barrier, Futex};

struct Lane {
    geometry: Geometry,
    header: LaneHeader,
    slots: Vec<AtomicU64>,
    /// Stand beside the slots where no two processes may meet: loom reports two that do. It cannot show
    /// a relaxed load a store from its future, so the payload words alone would not betray a slot that is
    /// overwritten too early.
    turns: Vec<UnsafeCell<()>>,
}

impl Lane {
    fn new(capacity: u64, payload: usize) -> Arc<Lane> {
        let geometry = Geometry {
            capacity,
            stride: payload + 1,
        };
        let slots = (0..geometry.words()).map(|_| AtomicU64::new(0)).collect();
        let turns = (0..geometry.slots()).map(|_| UnsafeCell::new(())).collect();
        Arc::new(Lane {
            geometry,
            header: LaneHeader::default(),
            slots,
            turns,
        })
    }

    fn writer(&self) -> Writer {
        Writer::attach(self.geometry, &self.header, &self.slots)
    }

    fn reader(&self) -> Reader {
        Reader::attach(self.geometry, &self.header)
    }

    /// Fills the payload of message `n`, each word telling which it is.
    fn fill(&self, writer: &Writer, ahead: u64, n: u64) {
        for (at, word) in writer.payload(&self.slots, ahead).iter().enumerate() {
            word.store(content(n, at), Ordering::Relaxed);
        }
    }

    fn turn(&self, position: u64) -> &UnsafeCell<()> {
        &self.turns[(position % self.geometry.slots()) as usize]
    }

    /// As [`fill`](Lane::fill), where every reader of the slot must be done with it.
    fn fill_alone(&self, writer: &Writer, n: u64) {
        self.turn(writer.position()).with_mut(|_| ());
        self.fill(writer, 0, n);
    }

    /// As [`receive`](Lane::receive), where no other reader competes for this message.
    fn receive_alone(&self, reader: &mut Reader) -> Option<u64> {
        if reader.peek(&self.header, &self.slots).unwrap().is_some() {
            self.turn(reader.position()).with(|_| ());
        }
        self.receive(reader)
    }

    /// Copies first and takes then, as the queue does; None if empty or lost to another reader.
    fn receive(&self, reader: &mut Reader) -> Option<u64> {
        let payload = reader.peek(&self.header, &self.slots).unwrap()?;
        let position = reader.position();
        let copy: Vec<u64> = payload.iter().map(|w| w.load(Ordering::Relaxed)).collect();
        if !reader.take(&self.header, 1) {
            return None;
        }
        for (at, &word) in copy.iter().enumerate() {
            assert_eq!(
                word,
                content(position, at),
                "message {position} is torn or stale"
            );
        }
        Some(position)
    }
}

fn content(n: u64, at: usize) -> u64 {
    (n + 1) * 100 + at as u64
}

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// Edge A: who sees a stamp sees the payload.
#[test]
fn stamp_publishes_payload() {
    model(3, || {
        let lane = Lane::new(2, 2);
        let mut writer = lane.writer();
        let sender = thread::spawn({
            let lane = lane.clone();
            move || {
                for n in 0..2 {
                    assert!(writer.room(&lane.header) > 0);
                    lane.fill(&writer, 0, n);
                    writer.publish(&lane.slots, 1);
                }
            }
        });
        let mut reader = lane.reader();
        for n in 0..2 {
            loop {
                match lane.receive(&mut reader) {
                    Some(position) => break assert_eq!(position, n),
                    None => thread::yield_now(),
                }
            }
        }
        sender.join().unwrap();
    });
}

/// Edge B through `head`: a slot is overwritten only after it was copied.
#[test]
fn head_frees_the_slot() {
    model(3, || {
        let lane = Lane::new(1, 2);
        let mut writer = lane.writer();
        let receiver = thread::spawn({
            let lane = lane.clone();
            let mut reader = lane.reader();
            move || {
                for n in 0..2 {
                    while lane
                        .receive_alone(&mut reader)
                        .is_none_or(|position| position != n)
                    {
                        thread::yield_now();
                    }
                }
            }
        });
        for n in 0..2 {
            while writer.room(&lane.header) == 0 {
                thread::yield_now();
            }
            lane.fill_alone(&writer, n);
            writer.publish(&lane.slots, 1);
        }
        receiver.join().unwrap();
    });
}

/// Edge B through `freed`: the writer believes only the lazy copy, which the reader stores after its step.
#[test]
fn freed_frees_the_slot() {
    model(3, || {
        let lane = Lane::new(1, 2);
        let mut writer = lane.writer();
        let receiver = thread::spawn({
            let lane = lane.clone();
            let mut reader = lane.reader();
            move || {
                while lane.receive_alone(&mut reader).is_none() {
                    thread::yield_now();
                }
            }
        });
        lane.fill_alone(&writer, 0);
        writer.publish(&lane.slots, 1);
        while writer.room_hint(&lane.header) == 0 {
            thread::yield_now();
        }
        lane.fill_alone(&writer, 1);
        writer.publish(&lane.slots, 1);
        receiver.join().unwrap();
    });
}

/// Edge B through two readers: the second one's step vouches for the first one's copy as well.
#[test]
fn steps_are_chained() {
    model(3, || {
        let lane = Lane::new(2, 1);
        let mut writer = lane.writer();
        for n in 0..2 {
            lane.fill_alone(&writer, n);
            writer.publish(&lane.slots, 1);
        }
        let first = thread::spawn({
            let lane = lane.clone();
            let mut reader = lane.reader();
            move || assert_eq!(lane.receive_alone(&mut reader), Some(0))
        });
        let second = thread::spawn({
            let lane = lane.clone();
            move || {
                // Comes to the second message only when the first is taken, and never copies the first.
                let mut reader = lane.reader();
                if reader.position() == 1 {
                    assert_eq!(lane.receive_alone(&mut reader), Some(1));
                }
            }
        });
        // Taken up again by a fresh writer, since one that knows of room for one does not look further.
        drop(writer);
        let mut writer = lane.writer();
        if writer.room(&lane.header) == 2 {
            lane.fill_alone(&writer, 2);
            writer.publish(&lane.slots, 1);
        }
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// Edge B at attach: a new writer overwrites only what was copied.
#[test]
fn attach_sees_the_copies_done() {
    model(3, || {
        let lane = Lane::new(1, 2);
        let mut first = lane.writer();
        lane.fill_alone(&first, 0);
        first.publish(&lane.slots, 1);
        drop(first);
        let receiver = thread::spawn({
            let lane = lane.clone();
            let mut reader = lane.reader();
            move || assert_eq!(lane.receive_alone(&mut reader), Some(0))
        });
        let mut second = lane.writer();
        if second.room(&lane.header) > 0 {
            lane.fill_alone(&second, 1);
            second.publish(&lane.slots, 1);
        }
        receiver.join().unwrap();
    });
}

/// Each message is taken once, whole, by one of two readers; a batch is published backwards.
#[test]
fn readers_share_a_batch() {
    model(2, || {
        let lane = Lane::new(2, 1);
        let mut writer = lane.writer();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let lane = lane.clone();
                let mut reader = lane.reader();
                thread::spawn(move || {
                    let mut mine = Vec::new();
                    for _ in 0..2 {
                        mine.extend(lane.receive(&mut reader));
                        thread::yield_now();
                    }
                    mine
                })
            })
            .collect();
        for n in 0..2 {
            lane.fill(&writer, n, n);
        }
        writer.publish(&lane.slots, 2);
        let mut taken: Vec<u64> = readers
            .into_iter()
            .flat_map(|reader| reader.join().unwrap())
            .collect();
        let mut last = lane.reader();
        while let Some(position) = lane.receive(&mut last) {
            taken.push(position);
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
    });
}

/// A reader that takes a whole batch sees the payload of each of its messages.
#[test]
fn batch_is_taken_whole() {
    model(3, || {
        let lane = Lane::new(2, 1);
        let mut writer = lane.writer();
        let sender = thread::spawn({
            let lane = lane.clone();
            move || {
                for n in 0..2 {
                    lane.fill(&writer, 0, n);
                    writer.publish(&lane.slots, 1);
                }
            }
        });
        let mut reader = lane.reader();
        while reader.peek(&lane.header, &lane.slots).unwrap().is_none() {
            thread::yield_now();
        }
        if let Some(second) = reader.run(&lane.slots).nth(1) {
            let word = second[0].load(Ordering::Relaxed);
            assert_eq!(
                word,
                content(1, 0),
                "the second message of the batch is stale"
            );
        }
        sender.join().unwrap();
    });
}

/// A reader that was overtaken by a whole lap catches up and sees what it finds there.
#[test]
fn overtaken_reader_catches_up() {
    model(3, || {
        let lane = Lane::new(1, 1);
        let mut late = lane.reader();
        let mut writer = lane.writer();
        let mut other = lane.reader();
        for n in 0..2 {
            lane.fill(&writer, 0, n);
            writer.publish(&lane.slots, 1);
            assert_eq!(lane.receive(&mut other), Some(n));
            assert!(writer.room(&lane.header) > 0);
        }
        let sender = thread::spawn({
            let lane = lane.clone();
            move || {
                lane.fill(&writer, 0, 2);
                writer.publish(&lane.slots, 1);
            }
        });
        loop {
            match lane.receive(&mut late) {
                Some(position) => break assert_eq!(position, 2),
                None => thread::yield_now(),
            }
        }
        sender.join().unwrap();
    });
}

/// Edge A through `head`: a late reader that sees where the others are sees no stamp from before the lap that
/// they have taken, so the two never contradict each other.
#[test]
fn late_reader_sees_no_old_stamp() {
    model(2, || {
        let lane = Lane::new(1, 1);
        let mut late = lane.reader();
        let others = thread::spawn({
            let lane = lane.clone();
            let (mut writer, mut reader) = (lane.writer(), lane.reader());
            move || {
                for n in 0..4 {
                    assert!(writer.room(&lane.header) > 0);
                    lane.fill(&writer, 0, n);
                    writer.publish(&lane.slots, 1);
                    if n < 3 {
                        // The last one is left to the late reader, who may have taken the first.
                        lane.receive(&mut reader);
                    }
                }
            }
        });
        // Panics if they contradict each other.
        let early = lane.receive(&mut late);
        others.join().unwrap();
        let left = lane.receive(&mut late);
        assert!(early == Some(3) || left == Some(3), "{early:?}, {left:?}");
    });
}

/// A new writer takes up a lane whose last one died in the middle of a batch, while a reader reads on.
#[test]
fn lane_is_taken_up_after_a_death() {
    model(2, || {
        let lane = Lane::new(2, 1);
        let mut first = lane.writer();
        lane.fill(&first, 0, 0);
        first.publish(&lane.slots, 1);
        // The batch 1, 2 dies after the stamp of 2, which is stored before that of 1. Room for 2 exists
        // only once 0 is taken.
        let mut reader = lane.reader();
        assert_eq!(lane.receive(&mut reader), Some(0));
        lane.fill(&first, 0, 1);
        lane.fill(&first, 1, 2);
        let stamp = 2 % 2 * lane.geometry.stride;
        lane.slots[stamp].store(3, Ordering::Release);
        drop(first);

        let receiver = thread::spawn({
            let lane = lane.clone();
            move || {
                loop {
                    match lane.receive(&mut reader) {
                        Some(position) => break assert_eq!(position, 1),
                        None => thread::yield_now(),
                    }
                }
                lane.receive(&mut reader)
            }
        });
        let mut second = lane.writer();
        assert_eq!(second.position(), 1);
        assert!(second.room(&lane.header) > 0);
        lane.fill(&second, 0, 1);
        second.publish(&lane.slots, 1);
        assert_eq!(
            receiver.join().unwrap(),
            None,
            "a message of the unfinished batch was exposed"
        );
    });
}

/// Edge C: a message published before, during or after the sleeper goes to sleep is always seen.
/// Loom reports a lost wake-up as a deadlock, since its futex never times out.
#[test]
fn no_wake_is_lost() {
    model(3, || {
        let place = Arc::new((SignalWords::default(), AtomicU64::new(0)));
        let waker = thread::spawn({
            let place = place.clone();
            move || {
                place.1.store(1, Ordering::Release);
                place.0.notify_one();
            }
        });
        let look = || Ok::<_, ()>((place.1.load(Ordering::Acquire) == 1).then_some(()));
        let found = place
            .0
            .wait(&mut Patience::new(), None, &Futex::default(), look, |_| {
                Ok(None)
            });
        assert_eq!(found, Ok(Some(())));
        waker.join().unwrap();
    });
}

/// Edge C where another takes what was published: the waker has seen the announcement, found nobody asleep, and
/// cleared it. Whoever announced himself must not sleep on what `seq` has become by that.
#[test]
fn no_wake_is_lost_when_another_takes_the_message() {
    fn take(tokens: &AtomicU64) -> Option<()> {
        let left = tokens.load(Ordering::Acquire);
        let less = left.checked_sub(1)?;
        let step = tokens.compare_exchange(left, less, Ordering::AcqRel, Ordering::Relaxed);
        step.ok().map(drop)
    }
    model(3, || {
        let place = Arc::new((SignalWords::default(), AtomicU64::new(0)));
        let waker = thread::spawn({
            let place = place.clone();
            move || {
                place.1.fetch_add(1, Ordering::Release);
                place.0.notify_one();
                // It may be gone already: then the sleeper is happy.
                let _ = take(&place.1);
                place.1.fetch_add(1, Ordering::Release);
                place.0.notify_one();
            }
        });
        // "Nothing" may be said only without a lost race, as in the queue.
        let look = || {
            while place.1.load(Ordering::Acquire) != 0 {
                if take(&place.1).is_some() {
                    return Ok::<_, ()>(Some(()));
                }
            }
            Ok(None)
        };
        let found = place
            .0
            .wait(&mut Patience::new(), None, &Futex::default(), look, |_| {
                Ok(None)
            });
        assert_eq!(found, Ok(Some(())));
        waker.join().unwrap();
    });
}

/// One that counts what it takes of what a waker publishes, one by one.
fn take_all(place: &(SignalWords, AtomicU64), patience: &mut Patience, from: u64, to: u64) {
    for taken in from..to {
        let look = || Ok::<_, ()>((place.1.load(Ordering::Acquire) > taken).then_some(()));
        let found = place
            .0
            .wait(patience, None, &Futex::default(), look, |_| Ok(None));
        assert_eq!(found, Ok(Some(())));
    }
}

/// Publishes one more, and wakes.
fn publish(place: &(SignalWords, AtomicU64)) {
    let before = place.1.load(Ordering::Relaxed);
    place.1.store(before + 1, Ordering::Release);
    place.0.notify_one();
}

/// Edge U: an announcement that stands holds for the next waits, whoever clears what.
#[test]
fn no_wake_is_lost_while_an_announcement_stands() {
    model(3, || {
        let place = Arc::new((SignalWords::default(), AtomicU64::new(0)));
        let mut patience = Patience::resting();
        let waker = thread::spawn({
            let place = place.clone();
            move || (0..3).for_each(|_| publish(&place))
        });
        take_all(&place, &mut patience, 0, 3);
        waker.join().unwrap();
    });
}

/// Edge U with two wakers: one of them has yet to clear what it saw when the other has done it all.
#[test]
fn no_wake_is_lost_between_two_wakers_while_an_announcement_stands() {
    model(3, || {
        let place = Arc::new((SignalWords::default(), AtomicU64::new(0)));
        let mut patience = Patience::resting();
        // It was announced before, and found without a sleep.
        let now = || Ok::<_, ()>(Some(()));
        let first = place
            .0
            .wait(&mut patience, None, &Futex::default(), now, |_| Ok(None));
        assert_eq!(first, Ok(Some(())));
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let place = place.clone();
                thread::spawn(move || {
                    place.1.fetch_add(1, Ordering::Release);
                    place.0.notify_one();
                })
            })
            .collect();
        take_all(&place, &mut patience, 0, 2);
        for waker in wakers {
            waker.join().unwrap();
        }
    });
}

/// Edge U, what it carries: a waker's own barrier is not needed where an announcement stands.
#[test]
fn who_sees_a_wake_sees_what_it_is_for() {
    model(3, || {
        let place = Arc::new((SignalWords::default(), AtomicU64::new(0)));
        let mut patience = Patience::resting();
        let now = || Ok::<_, ()>(Some(()));
        let first = place
            .0
            .wait(&mut patience, None, &Futex::default(), now, |_| Ok(None));
        assert_eq!(first, Ok(Some(())));
        let waker = thread::spawn({
            let place = place.clone();
            move || {
                sync::have(Barrier::Unreached);
                publish(&place);
            }
        });
        take_all(&place, &mut patience, 0, 1);
        waker.join().unwrap();
    });
}

/// Edge U: who stops resting takes what stood along, and whoever it was for is woken no less.
#[test]
fn no_wake_is_lost_when_an_announcement_stands_no_more() {
    model(3, || {
        let place = Arc::new((SignalWords::default(), AtomicU64::new(0)));
        let waker = thread::spawn({
            let place = place.clone();
            move || (0..3).for_each(|_| publish(&place))
        });
        take_all(&place, &mut Patience::resting(), 0, 1);
        take_all(&place, &mut Patience::new(), 1, 3);
        waker.join().unwrap();
    });
}

/// Edge C with a sleeper whose barrier is refused: it has told wakers to use a fence, and no wake is lost.
#[test]
fn no_wake_is_lost_without_the_sleepers_barrier() {
    model(3, || {
        let place = Arc::new((SignalWords::default(), AtomicU64::new(0)));
        sync::have(Barrier::Refused);
        // A first wait, which ends as soon as it is announced, says it; the first wake clears what it left.
        let mut looks = 0;
        let second = || {
            looks += 1;
            Ok::<_, ()>((looks == 2).then_some(()))
        };
        let deaths = Futex::default();
        let first = place
            .0
            .wait(&mut Patience::new(), None, &deaths, second, |_| Ok(None));
        assert_eq!(first, Ok(Some(())));
        place.0.notify_one();
        let waker = thread::spawn({
            let place = place.clone();
            move || {
                sync::have(Barrier::Unreached);
                place.1.store(1, Ordering::Release);
                place.0.notify_one();
            }
        });
        let look = || Ok::<_, ()>((place.1.load(Ordering::Acquire) == 1).then_some(()));
        let found = place
            .0
            .wait(&mut Patience::new(), None, &deaths, look, |_| Ok(None));
        assert_eq!(found, Ok(Some(())));
        waker.join().unwrap();
    });
}

/// Two sleepers, one wake each: who clears the announcement of one never clears that of the other.
#[test]
fn no_wake_is_lost_among_two_sleepers() {
    model(2, || {
        let place = Arc::new((SignalWords::default(), AtomicU64::new(0)));
        let sleepers: Vec<_> = (0..2)
            .map(|_| {
                let place = place.clone();
                thread::spawn(move || {
                    let look = || {
                        // "Nothing" may be said only without a lost race, as in the queue.
                        loop {
                            let left = place.1.load(Ordering::Acquire);
                            if left == 0 {
                                return Ok::<_, ()>(None);
                            }
                            let taken = place.1.compare_exchange(
                                left,
                                left - 1,
                                Ordering::AcqRel,
                                Ordering::Relaxed,
                            );
                            if taken.is_ok() {
                                return Ok(Some(()));
                            }
                        }
                    };
                    place
                        .0
                        .wait(&mut Patience::new(), None, &Futex::default(), look, |_| {
                            Ok(None)
                        })
                })
            })
            .collect();
        for _ in 0..2 {
            place.1.fetch_add(1, Ordering::Release);
            place.0.notify_one();
        }
        for sleeper in sleepers {
            assert_eq!(sleeper.join().unwrap(), Ok(Some(())));
        }
    });
}

struct Alive {
    me: u32,
    dead: &'static [u32],
}

impl Life for Alive {
    fn me(&self) -> u32 {
        self.me
    }

    fn is_dead(&self, participant: u32) -> bool {
        self.dead.contains(&participant)
    }

    fn is_evicted(&self) -> bool {
        false
    }
}

/// Edge E: what an owner wrote before it let go is seen by who takes over, and only one takes over.
#[test]
fn owner_hands_over() {
    model(3, || {
        let shared = Arc::new((AtomicU64::new(Owner::Held(1).word()), AtomicU64::new(0)));
        let takers: Vec<_> = [2, 3]
            .into_iter()
            .map(|me| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let won = roster::claim(&shared.0, Owner::Held(me), &Alive { me, dead: &[] });
                    if won {
                        assert_eq!(
                            shared.1.load(Ordering::Relaxed),
                            7,
                            "what the owner left is not there"
                        );
                    }
                    won
                })
            })
            .collect();
        shared.1.store(7, Ordering::Relaxed);
        roster::release(&shared.0, Owner::Held(1));
        let won = takers
            .into_iter()
            .map(|taker| taker.join().unwrap())
            .filter(|&won| won)
            .count();
        assert!(won <= 1, "two took over at once");
    });
}

/// Edge E: "nobody is left, and then it was empty" sees everything that was published.
#[test]
fn gone_then_empty_is_final() {
    model(3, || {
        let lane = Lane::new(1, 1);
        lane.header
            .owner
            .store(Owner::Held(1).word(), Ordering::Relaxed);
        let mut writer = lane.writer();
        let sender = thread::spawn({
            let lane = lane.clone();
            move || {
                lane.fill(&writer, 0, 0);
                writer.publish(&lane.slots, 1);
                roster::release(&lane.header.owner, Owner::Held(1));
            }
        });
        let life = Alive { me: 2, dead: &[] };
        let mut reader = lane.reader();
        if !roster::is_held(&lane.header.owner, &life) {
            assert_eq!(
                lane.receive(&mut reader),
                Some(0),
                "closed before the last message"
            );
        }
        sender.join().unwrap();
    });
}

/// Edge E: what travels with an end is there when the end arrives.
#[test]
fn end_arrives_with_what_was_written() {
    model(3, || {
        let travelling = Owner::OnItsWay { from: 1, tag: 3 };
        let shared = Arc::new((AtomicU64::new(Owner::Held(1).word()), AtomicU64::new(0)));
        let taker = thread::spawn({
            let shared = shared.clone();
            move || {
                while !roster::hand_over(&shared.0, travelling, Owner::Held(2)) {
                    thread::yield_now();
                }
                assert_eq!(
                    shared.1.load(Ordering::Relaxed),
                    7,
                    "what was written before is not there"
                );
            }
        });
        shared.1.store(7, Ordering::Relaxed);
        assert!(roster::hand_over(&shared.0, Owner::Held(1), travelling));
        taker.join().unwrap();
    });
}

/// A word whose owner is dead is held by nobody; one on its way is held by its sender.
#[test]
fn dead_owner_holds_nothing() {
    model(1, || {
        let word = AtomicU64::new(Owner::Held(9).word());
        assert!(roster::is_held(&word, &Alive { me: 2, dead: &[] }));
        assert!(!roster::is_held(&word, &Alive { me: 2, dead: &[9] }));
        let word = AtomicU64::new(Owner::OnItsWay { from: 9, tag: 1 }.word());
        assert!(roster::is_held(&word, &Alive { me: 2, dead: &[] }));
        assert!(!roster::is_held(&word, &Alive { me: 2, dead: &[9] }));
    });
}

/// A dead owner's word goes to exactly one of those who see that it is dead.
#[test]
fn dead_owner_is_succeeded_once() {
    model(3, || {
        let word = Arc::new(AtomicU64::new(Owner::OnItsWay { from: 9, tag: 5 }.word()));
        let heirs: Vec<_> = [2, 3]
            .into_iter()
            .map(|me| {
                let word = word.clone();
                thread::spawn(move || {
                    roster::claim(&word, Owner::Held(me), &Alive { me, dead: &[9] })
                })
            })
            .collect();
        let won = heirs
            .into_iter()
            .map(|heir| heir.join().unwrap())
            .filter(|&won| won)
            .count();
        assert_eq!(won, 1);
        assert_ne!(
            Owner::from_word(word.load(Ordering::Relaxed)).participant(),
            Some(9)
        );
    });
}

/// A lock, what it guards, and who is dead.
#[derive(Default)]
struct Locked {
    words: LatchWords,
    /// Loom reports two that are in here at once, or one that does not see what the last one did.
    guarded: UnsafeCell<u32>,
    deaths: Futex,
    dead: AtomicU64,
}

impl Life for Locked {
    fn me(&self) -> u32 {
        unreachable!("a latch is told who enters")
    }

    /// Its release is at the end of a process: [`Locked::die`].
    fn is_dead(&self, participant: u32) -> bool {
        self.dead.load(Ordering::Acquire) == u64::from(participant)
    }

    fn is_evicted(&self) -> bool {
        false
    }
}

impl Locked {
    fn enter(&self, me: Visitor, limit: Limit) -> Result<Left, Refused> {
        match self.words.try_enter(me) {
            true => Ok(Left::Finished),
            false => self.words.enter(me, limit, self, &self.deaths),
        }
    }

    /// Enters, counts, and leaves.
    fn count(&self, me: Visitor) -> Left {
        let left = self.enter(me, Limit::Never).unwrap();
        self.guarded.with_mut(|_| ());
        self.words.leave(me.participant, Left::Finished);
        left
    }

    fn die(&self, participant: u32) {
        self.dead.store(u64::from(participant), Ordering::Release);
    }
}

fn visitor(participant: u32, thread: u32) -> Visitor {
    Visitor {
        participant,
        thread,
        pid: participant,
    }
}

/// Edge D: one at a time, and each sees what was done before. Nobody sleeps for ever.
#[test]
fn lock_excludes() {
    model(3, || {
        let lock = Arc::new(Locked::default());
        let other = thread::spawn({
            let lock = lock.clone();
            move || {
                for _ in 0..2 {
                    assert_eq!(lock.count(visitor(2, 1)), Left::Finished);
                }
            }
        });
        for _ in 0..2 {
            assert_eq!(lock.count(visitor(1, 1)), Left::Finished);
        }
        other.join().unwrap();
    });
}

/// Of two sleepers each is woken, also when the first to be woken leaves at once.
#[test]
fn lock_wakes_every_sleeper() {
    model(2, || {
        let lock = Arc::new(Locked::default());
        let others: Vec<_> = [2, 3]
            .into_iter()
            .map(|me| {
                let lock = lock.clone();
                thread::spawn(move || assert_eq!(lock.count(visitor(me, 1)), Left::Finished))
            })
            .collect();
        assert_eq!(lock.count(visitor(1, 1)), Left::Finished);
        for other in others {
            other.join().unwrap();
        }
    });
}

/// One who gives up takes no wake away from one who sleeps on.
#[test]
fn lock_outlasts_one_who_gives_up() {
    model(2, || {
        let lock = Arc::new(Locked::default());
        let hasty = thread::spawn({
            let lock = lock.clone();
            move || match lock.enter(visitor(2, 1), Limit::For(Default::default())) {
                Ok(left) => {
                    assert_eq!(left, Left::Finished);
                    lock.guarded.with_mut(|_| ());
                    lock.words.leave(2, Left::Finished);
                }
                Err(refused) => assert_eq!(refused, Refused::TimedOut),
            }
        });
        let patient = thread::spawn({
            let lock = lock.clone();
            move || assert_eq!(lock.count(visitor(3, 1)), Left::Finished)
        });
        assert_eq!(lock.count(visitor(1, 1)), Left::Finished);
        hasty.join().unwrap();
        patient.join().unwrap();
    });
}

/// Threads of one process exclude each other as well, and none is taken for another.
#[test]
fn lock_tells_threads_apart() {
    model(3, || {
        let lock = Arc::new(Locked::default());
        let other = thread::spawn({
            let lock = lock.clone();
            move || assert_eq!(lock.count(visitor(1, 2)), Left::Finished)
        });
        for _ in 0..2 {
            assert_eq!(lock.count(visitor(1, 1)), Left::Finished);
        }
        other.join().unwrap();
    });
}

/// A thread that would wait for itself is told so; others wait for it.
#[test]
fn lock_does_not_wait_for_itself() {
    model(1, || {
        let lock = Locked::default();
        let me = visitor(1, 1);
        assert_eq!(lock.enter(me, Limit::Never), Ok(Left::Finished));
        assert_eq!(lock.enter(me, Limit::Never), Err(Refused::Deadlock));
        assert_eq!(lock.enter(me, Limit::Now), Err(Refused::Held));
        assert_eq!(lock.enter(visitor(1, 2), Limit::Now), Err(Refused::Held));
        lock.words.leave(1, Left::Finished);
        assert_eq!(lock.enter(visitor(1, 2), Limit::Now), Ok(Left::Finished));
    });
}

/// Edge E: exactly one takes over from the dead, is told, and sees what the dead did.
#[test]
fn lock_of_the_dead_is_taken_once() {
    model(3, || {
        let lock = Arc::new(Locked::default());
        assert_eq!(lock.enter(visitor(9, 1), Limit::Never), Ok(Left::Finished));
        let heirs: Vec<_> = [2, 3]
            .into_iter()
            .map(|me| {
                let lock = lock.clone();
                thread::spawn(move || {
                    // Not an acquire: what the dead did is seen by whoever takes over, not by who hears of it.
                    let heard = lock.dead.load(Ordering::Relaxed) == 9;
                    heard.then(|| lock.count(visitor(me, 1)))
                })
            })
            .collect();
        lock.guarded.with_mut(|_| ());
        lock.die(9);
        let came: Vec<Left> = heirs
            .into_iter()
            .filter_map(|heir| heir.join().unwrap())
            .collect();
        let told = came
            .iter()
            .filter(|&&left| left == Left::Unfinished)
            .count();
        assert_eq!(told, came.len().min(1), "exactly one is told of the death");
    });
}

/// Who leaves unfinished is told of to exactly one, who sees what was done.
#[test]
fn lock_left_unfinished_is_told_once() {
    model(2, || {
        let lock = Arc::new(Locked::default());
        assert_eq!(lock.enter(visitor(1, 1), Limit::Never), Ok(Left::Finished));
        let heirs: Vec<_> = [2, 3]
            .into_iter()
            .map(|me| {
                let lock = lock.clone();
                thread::spawn(move || lock.count(visitor(me, 1)))
            })
            .collect();
        lock.guarded.with_mut(|_| ());
        lock.words.leave(1, Left::Unfinished);
        let told = heirs
            .into_iter()
            .map(|heir| heir.join().unwrap())
            .filter(|&left| left == Left::Unfinished);
        assert_eq!(told.count(), 1, "exactly one is told");
    });
}

/// A process whose place was taken lets nobody in when it leaves.
#[test]
fn lock_is_not_left_for_another() {
    model(1, || {
        let lock = Locked::default();
        assert_eq!(lock.enter(visitor(9, 1), Limit::Never), Ok(Left::Finished));
        lock.die(9);
        assert_eq!(
            lock.enter(visitor(1, 1), Limit::Never),
            Ok(Left::Unfinished)
        );
        lock.words.leave(9, Left::Finished);
        assert_eq!(lock.enter(visitor(2, 1), Limit::Now), Err(Refused::Held));
    });
}

/// Chunks of the job in the model's cell.
const CHUNKS: usize = 2;
/// The seat of the model's own thread; those of the workers beside it come first.
const OWN: u16 = 2;

/// Steps of a worker, after each of which it may die.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Named,
    Claimed,
    Leased,
    Ran,
    Finished,
}

/// A cell with the job that stands in it, and the rows of three workers.
#[derive(Default)]
struct Cell {
    chunks: [PoolChunk; CHUNKS],
    cursor: AtomicU64,
    done: AtomicU64,
    owner: AtomicU64,
    at: [AtomicU64; 3],
    arguments: [AtomicU64; CHUNKS],
    results: [AtomicU64; CHUNKS],
    /// Who may touch the two: loom reports when two do at once.
    turns: [UnsafeCell<()>; CHUNKS],
    /// The owner was woken.
    woken: AtomicU64,
}

impl Cell {
    /// The pool's part: places a job, when all bits of the last are set.
    fn place(&self, n: u64) {
        for (index, turn) in self.turns.iter().enumerate() {
            turn.with_mut(|_| ());
            self.arguments[index].store(content(n, index), Ordering::Relaxed);
        }
        self.woken.store(0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        for chunk in &self.chunks {
            chunk::offer(chunk);
        }
        chunk::set_cursor(&self.cursor, CHUNKS, 0);
    }

    /// A worker's part: a chunk, if there is one; it dies behind a step. Whether it did a chunk.
    fn work(&self, seat: u16, dies: Option<Step>) -> bool {
        let at = &self.at[usize::from(seat)];
        at.store(1, Ordering::Release);
        if dies == Some(Step::Named) {
            return false;
        }
        while let Some(index) = chunk::claim(&self.cursor) {
            if dies == Some(Step::Claimed) {
                return false;
            }
            let Some(lease) = chunk::lease(&self.chunks, index, seat) else {
                continue;
            };
            if dies == Some(Step::Leased) {
                return false;
            }
            self.turns[index].with_mut(|_| ());
            let argument = self.arguments[index].load(Ordering::Relaxed);
            self.results[index].store(argument + 1, Ordering::Relaxed);
            if dies == Some(Step::Ran) {
                return false;
            }
            let is_last = chunk::finish(&self.done, lease, CHUNKS);
            if dies == Some(Step::Finished) {
                return false;
            }
            if is_last {
                assert_eq!(chunk::owner(&self.owner), 0);
                self.woken.store(1, Ordering::Relaxed);
            }
            at.store(0, Ordering::Release);
            return true;
        }
        at.store(0, Ordering::Release);
        false
    }

    /// The supervisor's lines: reclaims chunks, sets the cursor back, wakes the owner; the caller works on.
    fn recover(&self, seat: u16) {
        if self.at[usize::from(seat)].load(Ordering::Acquire) == 0 {
            return;
        }
        for (index, chunk) in self.chunks.iter().enumerate() {
            if chunk::reclaim(chunk, &self.done, index, seat) {
                // What its worker had done to it is seen with the proof of its death.
                self.turns[index].with_mut(|_| ());
                self.results[index].store(0, Ordering::Relaxed);
                chunk::offer(chunk);
            }
        }
        if let Some(first) = chunk::first_ready(&self.chunks) {
            chunk::set_cursor(&self.cursor, CHUNKS, first);
        }
        self.woken.store(1, Ordering::Relaxed);
    }

    /// Works until the job is done, and looks at its results.
    fn work_until_done(&self, n: u64) {
        loop {
            while self.work(OWN, None) {}
            if chunk::is_done(&self.done, CHUNKS) {
                break;
            }
            thread::yield_now();
        }
        for (index, turn) in self.turns.iter().enumerate() {
            turn.with_mut(|_| ());
            let result = self.results[index].load(Ordering::Relaxed);
            assert_eq!(result, content(n, index) + 1, "chunk {index}");
        }
    }
}

/// A worker dies at any step while another works: each chunk is done, once, and the owner woken; the next job stands
/// in the same words, where the late one of the first may meet it.
#[test]
fn a_death_at_any_step_loses_no_chunk() {
    use Step::{Claimed, Finished, Leased, Named, Ran};
    for dies in [Named, Claimed, Leased, Ran, Finished] {
        model(2, move || {
            let it = Arc::new(Cell::default());
            it.place(1);
            let [dead, late] = [Some(dies), None].map(|dies| {
                let it = it.clone();
                thread::spawn(move || it.work(u16::from(dies.is_none()), dies))
            });
            // The proof of its death.
            dead.join().unwrap();
            it.recover(0);
            it.work_until_done(1);
            it.place(2);
            it.work_until_done(2);
            late.join().unwrap();
            assert_eq!(it.woken.load(Ordering::Relaxed), 1);
        });
    }
}

/// Edges P, Q and R: of two workers each chunk is one's, who sees the job; who sees it done sees the results.
#[test]
fn chunks_go_out_and_their_results_come_back() {
    model(3, || {
        let it = Arc::new(Cell::default());
        it.place(1);
        let worker = thread::spawn({
            let it = it.clone();
            move || it.work(0, None)
        });
        it.work_until_done(1);
        it.place(2);
        it.work_until_done(2);
        worker.join().unwrap();
    });
}

/// Edge R alone: what is claimed can be leased, if nobody else can have leased it.
#[test]
fn a_claimed_chunk_can_be_leased() {
    model(3, || {
        let it = Arc::new(Cell::default());
        it.place(1);
        it.work_until_done(1);
        let worker = thread::spawn({
            let it = it.clone();
            move || {
                let claimed = chunk::claim(&it.cursor);
                claimed.map(|index| chunk::lease(&it.chunks, index, 0).is_some())
            }
        });
        it.place(2);
        assert_ne!(worker.join().unwrap(), Some(false));
    });
}

/// Edge P alone: a worker that has not claimed sees the job by its lease.
#[test]
fn an_offer_publishes_the_job() {
    model(3, || {
        let it = Arc::new(Cell::default());
        let worker = thread::spawn({
            let it = it.clone();
            move || {
                let lease = chunk::lease(&it.chunks, 0, 0);
                if let Some(lease) = &lease {
                    it.turns[lease.index()].with_mut(|_| ());
                    assert_eq!(it.arguments[0].load(Ordering::Relaxed), content(1, 0));
                }
            }
        });
        it.place(1);
        worker.join().unwrap();
    });
}

/// Edge A: who sees a lease sees where its worker is.
#[test]
fn who_holds_a_chunk_is_at_its_cell() {
    model(3, || {
        let it = Arc::new(Cell::default());
        it.place(1);
        let pool = thread::spawn({
            let it = it.clone();
            move || {
                if chunk::holder(&it.chunks[0]) == Some(OWN) {
                    assert_eq!(it.at[usize::from(OWN)].load(Ordering::Relaxed), 1);
                }
            }
        });
        it.at[usize::from(OWN)].store(1, Ordering::Relaxed);
        assert!(chunk::lease(&it.chunks, 0, OWN).is_some());
        pool.join().unwrap();
    });
}

/// A withdrawal and a lease exclude each other.
#[test]
fn a_withdrawal_and_a_lease_exclude_each_other() {
    model(3, || {
        let it = Arc::new(Cell::default());
        it.place(1);
        let worker = thread::spawn({
            let it = it.clone();
            move || it.work(0, None)
        });
        for (index, chunk) in it.chunks.iter().enumerate() {
            if chunk::withdraw(chunk) {
                it.turns[index].with_mut(|_| ());
                chunk::give_up(&it.done, chunk::bit(index));
            }
        }
        let has_worked = worker.join().unwrap();
        assert!(chunk::is_done(&it.done, CHUNKS));
        let withdrawn = it
            .chunks
            .iter()
            .filter(|chunk| chunk::holder(chunk).is_none());
        assert_eq!(withdrawn.count(), CHUNKS - usize::from(has_worked));
    });
}

/// Edge O: who takes a job over sees it done, or is woken by who finishes it.
#[test]
fn a_late_owner_sees_the_end_or_is_woken() {
    const ME: u64 = 7;
    model(3, || {
        let it = Arc::new(Cell::default());
        it.place(1);
        assert!(it.work(OWN, None));
        let worker = thread::spawn({
            let it = it.clone();
            move || {
                let index = chunk::claim(&it.cursor).unwrap();
                let lease = chunk::lease(&it.chunks, index, 0).unwrap();
                assert!(chunk::finish(&it.done, lease, CHUNKS), "it was the last");
                chunk::owner(&it.owner) == ME
            }
        });
        chunk::own(&it.owner, ME);
        let sees = chunk::is_done(&it.done, CHUNKS);
        assert!(worker.join().unwrap() || sees);
    });
}

/// Edge E: who takes the bit of a job that has ended sees it done.
#[test]
fn a_job_that_is_said_to_have_ended_is_done() {
    model(3, || {
        let it = Arc::new((Cell::default(), [AtomicU64::new(0)]));
        it.0.place(1);
        let worker = thread::spawn({
            let it = it.clone();
            move || {
                while it.0.work(0, None) {}
                chunk::set(&it.1, 5);
            }
        });
        if chunk::take_all(&it.1).next().is_some() {
            assert!(chunk::is_done(&it.0.done, CHUNKS));
        }
        worker.join().unwrap();
    });
}

/// Edge N: who sees that a cell is open sees that there is something to claim.
#[test]
fn an_open_cell_has_something_to_claim() {
    model(3, || {
        let it = Arc::new((Cell::default(), [AtomicU64::new(0)]));
        let worker = thread::spawn({
            let it = it.clone();
            move || {
                if chunk::around(&it.1, 0).next() == Some(5) {
                    assert!(chunk::may_claim(&it.0.cursor));
                }
            }
        });
        it.0.place(1);
        chunk::set(&it.1, 5);
        worker.join().unwrap();
    });
}

/// Edge S: a worker that will sleep, or has work, sees what else there is, or the pool sees that it does not search.
#[test]
fn work_is_seen_or_somebody_is_woken() {
    for stop in [chunk::set_idle, chunk::set_busy] {
        model(3, move || {
            let words = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
            chunk::set_searching(&words.0);
            let worker = thread::spawn({
                let words = words.clone();
                move || {
                    stop(&words.0);
                    words.1.load(Ordering::Relaxed) == 1
                }
            });
            words.1.store(1, Ordering::Release);
            let wakes = chunk::searching([&words.0].into_iter(), 1) == 0;
            assert!(worker.join().unwrap() || wakes);
        });
    }
}

/// A lane whose messages lie in blocks; loom reports two that meet in one.
struct Blocks {
    lane: Arc<Lane>,
    words: Vec<[AtomicU64; 2]>,
    /// A message, and the turn to touch it: see [`Lane::turns`].
    messages: Vec<(UnsafeCell<()>, AtomicU64)>,
}

impl Shelf for Blocks {
    fn count(&self) -> u32 {
        self.words.len() as u32
    }

    fn state(&self, block: u32) -> &AtomicU64 {
        &self.words[block as usize][0]
    }

    fn length(&self, block: u32) -> &AtomicU64 {
        &self.words[block as usize][1]
    }
}

impl Blocks {
    fn new(capacity: u64, blocks: usize) -> Arc<Blocks> {
        Arc::new(Blocks {
            lane: Lane::new(capacity, 1),
            words: (0..blocks)
                .map(|_| [AtomicU64::new(0), AtomicU64::new(0)])
                .collect(),
            messages: (0..blocks)
                .map(|_| (UnsafeCell::new(()), AtomicU64::new(0)))
                .collect(),
        })
    }

    /// Sends message `n`, once there is room and a block.
    fn send(&self, writer: &mut Writer, n: u64) {
        let block = loop {
            let free = blocks::find_free(self, 0);
            match free.filter(|_| writer.room(&self.lane.header) > 0) {
                Some(free) => break free,
                None => thread::yield_now(),
            }
        };
        let (turn, message) = &self.messages[block as usize];
        turn.with_mut(|_| message.store(n, Ordering::Relaxed));
        blocks::mark_sent(self, block, 8, writer.position());
        writer.payload(&self.lane.slots, 0)[0].store(u64::from(block), Ordering::Relaxed);
        writer.publish(&self.lane.slots, 1);
    }

    fn take(&self, reader: &mut Reader, participant: u32) -> Option<(u32, Hold)> {
        let holder = Holder {
            participant,
            seat: 0,
        };
        let taken = blocks::take(self, &self.lane.header, &self.lane.slots, reader, holder);
        match taken.unwrap() {
            Taken::Block(block, hold) => Some((block, hold)),
            Taken::Nothing | Taken::Lost => None,
        }
    }

    fn read(&self, block: u32) -> u64 {
        let (turn, message) = &self.messages[block as usize];
        turn.with(|_| message.load(Ordering::Relaxed))
    }
}

/// Edges A and G: one block goes to and fro, and is never written while it is read.
#[test]
fn block_goes_to_and_fro() {
    model(2, || {
        let blocks = Blocks::new(2, 1);
        let mut writer = blocks.lane.writer();
        let receiver = thread::spawn({
            let blocks = blocks.clone();
            let mut reader = blocks.lane.reader();
            move || {
                for n in 0..2 {
                    let (block, hold) = loop {
                        match blocks.take(&mut reader, 1) {
                            Some(taken) => break taken,
                            None => thread::yield_now(),
                        }
                    };
                    assert_eq!(blocks.read(block), n);
                    blocks::finish(&*blocks, block, hold);
                }
            }
        });
        for n in 0..2 {
            blocks.send(&mut writer, n);
        }
        receiver.join().unwrap();
    });
}

/// Each block goes to one receiver; the head goes on whoever of them moves it.
#[test]
fn block_is_taken_once() {
    model(2, || {
        let blocks = Blocks::new(2, 2);
        let mut writer = blocks.lane.writer();
        let receivers: Vec<_> = (1..3)
            .map(|participant| {
                let blocks = blocks.clone();
                let mut reader = blocks.lane.reader();
                thread::spawn(move || {
                    let taken = blocks.take(&mut reader, participant);
                    taken.map(|(block, _hold)| blocks.read(block))
                })
            })
            .collect();
        blocks.send(&mut writer, 0);
        blocks.send(&mut writer, 1);
        let mut taken: Vec<u64> = receivers
            .into_iter()
            .filter_map(|receiver| receiver.join().unwrap())
            .collect();
        let mut last = blocks.lane.reader();
        while last
            .peek(&blocks.lane.header, &blocks.lane.slots)
            .unwrap()
            .is_some()
        {
            taken.extend(
                blocks
                    .take(&mut last, 3)
                    .map(|(block, _hold)| blocks.read(block)),
            );
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
    });
}

/// Edge H: what is given back is read whole by another, and edge G still holds for the first.
#[test]
fn block_given_back_is_read_by_another() {
    model(3, || {
        let blocks = Blocks::new(1, 1);
        let first = thread::spawn({
            let blocks = blocks.clone();
            let mut reader = blocks.lane.reader();
            move || {
                if let Some((block, hold)) = blocks.take(&mut reader, 1) {
                    assert_eq!(blocks.read(block), 7);
                    blocks::give_back(&*blocks, block, hold, false);
                }
            }
        });
        let second = thread::spawn({
            let blocks = blocks.clone();
            move || {
                let holder = Holder {
                    participant: 2,
                    seat: 0,
                };
                if let Some((block, hold)) = blocks::claim_returned(&*blocks, holder) {
                    assert!(hold.is_again());
                    assert_eq!(blocks.read(block), 7);
                    blocks::finish(&*blocks, block, hold);
                }
            }
        });
        let mut writer = blocks.lane.writer();
        blocks.send(&mut writer, 7);
        thread::yield_now();
        if blocks::is_free(&*blocks, 0) {
            let (turn, message) = &blocks.messages[0];
            turn.with_mut(|_| message.store(8, Ordering::Relaxed));
        }
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// What a dead receiver held is handed out again to one, once.
#[test]
fn block_of_the_dead_is_handed_out_once() {
    model(2, || {
        let blocks = Blocks::new(1, 1);
        let mut writer = blocks.lane.writer();
        blocks.send(&mut writer, 7);
        let (block, dead) = blocks.take(&mut blocks.lane.reader(), 9).unwrap();
        let heirs: Vec<_> = (1..3)
            .map(|me| {
                let blocks = blocks.clone();
                thread::spawn(move || {
                    blocks::recover(&*blocks, &Alive { me, dead: &[9] });
                    let holder = Holder {
                        participant: me,
                        seat: 0,
                    };
                    blocks::claim_returned(&*blocks, holder).map(|(block, hold)| {
                        assert_eq!(blocks.read(block), 7);
                        assert_eq!(hold.failures(), 1, "a death counts once");
                        blocks::finish(&*blocks, block, hold);
                    })
                })
            })
            .collect();
        let handed_out = heirs.into_iter().filter_map(|heir| heir.join().unwrap());
        assert_eq!(handed_out.count(), 1);
        // The dead one's own word means nothing any more.
        blocks::finish(&*blocks, block, dead);
        assert!(blocks::is_free(&*blocks, 0));
    });
}

/// Edge H: who takes over from a dead receiver sees what the sender wrote, through the dead one's step.
#[test]
fn block_of_the_dead_is_read_whole() {
    model(3, || {
        let blocks = Blocks::new(1, 1);
        let sender = thread::spawn({
            let blocks = blocks.clone();
            move || blocks.send(&mut blocks.lane.writer(), 7)
        });
        let dies = thread::spawn({
            let blocks = blocks.clone();
            move || {
                thread::yield_now();
                blocks.take(&mut blocks.lane.reader(), 9).is_some()
            }
        });
        let life = Alive { me: 1, dead: &[9] };
        // The others go first, mostly.
        thread::yield_now();
        thread::yield_now();
        if blocks::recover(&*blocks, &life) {
            let holder = Holder {
                participant: 1,
                seat: 0,
            };
            let (block, hold) = blocks::claim_returned(&*blocks, holder).unwrap();
            assert_eq!(blocks.read(block), 7);
            blocks::finish(&*blocks, block, hold);
        }
        sender.join().unwrap();
        dies.join().unwrap();
    });
}

/// A stream of the fewest lines there are.
struct Flow {
    lines: Lines,
    header: StreamHeader,
    words: Vec<AtomicU64>,
    runs: Runs,
}

/// Runs without their bytes: loom reports two ends that meet in a line.
struct Runs(Vec<UnsafeCell<()>>);

impl Runs {
    fn lines(&self, at: usize, len: usize) -> &[UnsafeCell<()>] {
        &self.0[at / stream::LINE..(at + len).div_ceil(stream::LINE)]
    }
}

impl Bulk for Runs {
    fn copy_in(&self, at: usize, from: &[u8]) {
        for line in self.lines(at, from.len()) {
            line.with_mut(|_| ());
        }
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) {
        for line in self.lines(at, to.len()) {
            line.with(|_| ());
        }
    }

    fn append(&self, at: usize, len: usize, to: &mut Vec<u8>) {
        to.resize(to.len() + len, 0);
        self.copy_out(at, &mut vec![0; len]);
    }
}

/// A run that is copied as bytes, but not the last of its control line.
const SOME: [u8; 300] = [0; 300];
/// One that is: with its control line it takes an eighth of the stream, and one line more.
const MUCH: [u8; 500] = [0; 500];
/// So many of these fill the stream.
const FULL: usize = 7;

impl Flow {
    fn new() -> Arc<Flow> {
        let lines = Lines::of_bytes(Lines::LEAST * stream::LINE as u64).unwrap();
        // What was there before may be anything: here it is messages of eight bytes everywhere.
        let words: Vec<_> = (0..Lines::LEAST * 8)
            .map(|_| AtomicU64::new(0x0909_0909_0909_0909))
            .collect();
        words[stream::CONTENT].store(0, Ordering::Relaxed);
        Arc::new(Flow {
            lines,
            header: StreamHeader::default(),
            words,
            runs: Runs((0..Lines::LEAST).map(|_| UnsafeCell::new(())).collect()),
        })
    }

    fn ring(&self) -> Ring<'_, Runs> {
        Ring {
            header: &self.header,
            words: &self.words,
            bytes: &self.runs,
        }
    }

    /// A message of so many words, each telling which it is.
    fn put(&self, writer: &mut stream::Writer, n: u64, words: usize) {
        let message: Vec<u64> = (0..words).map(|at| content(n, at)).collect();
        writer.put_small(&self.words, &message, words * 8);
    }

    fn next(&self, reader: &mut stream::Reader) -> Next {
        loop {
            match reader.next(&self.header, &self.words).unwrap() {
                Next::Nothing => thread::yield_now(),
                found => return found,
            }
        }
    }

    fn take(&self, reader: &mut stream::Reader, n: u64, words: usize) {
        assert_eq!(self.next(reader), Next::Small(words * 8));
        let mut message = [0; stream::CONTENT];
        reader.take_small(&self.header, &self.words, words * 8, &mut message);
        for (at, &word) in message[..words].iter().enumerate() {
            assert_eq!(word, content(n, at), "message {n} is torn or stale");
        }
    }

    fn take_run(&self, reader: &mut stream::Reader, bytes: usize) {
        assert_eq!(self.next(reader), Next::Run { bytes, last: true });
        reader.append_run(&self.ring(), bytes, &mut Vec::new());
    }
}

fn model_of_a_stream(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(body);
}

/// Edge A, with words: who sees a tag sees the message, and where a line ends the next begins with nothing.
#[test]
fn tags_publish_words() {
    model_of_a_stream(|| {
        let flow = Flow::new();
        let sender = thread::spawn({
            let flow = flow.clone();
            move || {
                let mut writer = stream::Writer::new(flow.lines);
                for n in 0..3 {
                    flow.put(&mut writer, n, 3);
                }
            }
        });
        let mut reader = stream::Reader::new(flow.lines);
        for n in 0..3 {
            flow.take(&mut reader, n, 3);
        }
        sender.join().unwrap();
    });
}

/// Edge A, the shortest way.
#[test]
fn tags_publish_one_word() {
    model_of_a_stream(|| {
        let flow = Flow::new();
        let sender = thread::spawn({
            let flow = flow.clone();
            move || {
                let mut writer = stream::Writer::new(flow.lines);
                for n in 0..2 {
                    assert!(writer.put_word(&flow.header, &flow.words, content(n, 0), 8));
                }
            }
        });
        let mut reader = stream::Reader::new(flow.lines);
        for n in 0..2 {
            let word = loop {
                match reader.take_word(&flow.header, &flow.words, 8) {
                    Some(word) => break word,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(word, content(n, 0), "message {n} is stale");
        }
        sender.join().unwrap();
    });
}

/// Edge A, with a run; the control line behind it begins with nothing.
#[test]
fn tags_publish_a_run() {
    model_of_a_stream(|| {
        let flow = Flow::new();
        let sender = thread::spawn({
            let flow = flow.clone();
            move || {
                let mut writer = stream::Writer::new(flow.lines);
                flow.put(&mut writer, 0, 1);
                writer.put_run(&flow.ring(), &SOME, true);
                flow.put(&mut writer, 2, 6);
            }
        });
        let mut reader = stream::Reader::new(flow.lines);
        flow.take(&mut reader, 0, 1);
        flow.take_run(&mut reader, SOME.len());
        flow.take(&mut reader, 2, 6);
        sender.join().unwrap();
    });
}

/// Edge B: a line is written again only after it was copied. `has_room`: how the writer learns of it.
fn lines_are_given_back(
    has_room: impl Fn(&mut stream::Writer, &StreamHeader, u64) -> bool + Copy + Sync + Send + 'static,
    resumed: bool,
) {
    model_of_a_stream(move || {
        let flow = Flow::new();
        let mut writer = stream::Writer::new(flow.lines);
        for _ in 0..FULL {
            writer.put_run(&flow.ring(), &MUCH, true);
        }
        let mut reader = stream::Reader::new(flow.lines);
        let sender = thread::spawn({
            let flow = flow.clone();
            move || {
                let ahead = flow.lines.ahead(MUCH.len());
                while !has_room(&mut writer, &flow.header, ahead) {
                    thread::yield_now();
                    if resumed {
                        writer.park(&flow.header);
                        writer = stream::Writer::resume(flow.lines, &flow.ring()).unwrap();
                    }
                }
                writer.put_run(&flow.ring(), &MUCH, true);
            }
        });
        for _ in 0..=FULL {
            flow.take_run(&mut reader, MUCH.len());
        }
        sender.join().unwrap();
    });
}

/// Edge B through `freed`.
#[test]
fn freed_gives_lines_back() {
    lines_are_given_back(stream::Writer::has_room, false);
}

/// Edge B through `taken`.
#[test]
fn taken_gives_lines_back() {
    lines_are_given_back(stream::Writer::has_room_exactly, false);
}

/// Edge B through `taken`, for whoever takes up the stream.
#[test]
fn lines_are_given_back_to_a_successor() {
    // What it begins with is all it learns.
    let nothing = |writer: &mut stream::Writer, _: &StreamHeader, ahead| {
        writer.has_room(&StreamHeader::default(), ahead)
    };
    lines_are_given_back(nothing, true);
}
