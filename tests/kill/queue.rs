//! Four senders and four receivers in eight processes, one of them killed and replaced all the time.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytemuck::{AnyBitPattern, NoUninit};
use libtest_mimic::Failed;

use multiproc::{Child, Plain, Process, Queue, Receiver, RecvError, Segment, Sender};
use serde::{Deserialize, Serialize};

use crate::{LONG, Random, Toll, Watch, give_way, kills};

pub(crate) const TESTS: &[crate::Test] = &[
    ("queue_of_capacity_2", || {
        torture(2, Way::Take, &Toll::of(3_400))
    }),
    ("queue_of_capacity_8", || {
        torture(8, Way::Take, &Toll::of(3_300))
    }),
    ("queue_of_capacity_1024", || {
        torture(1024, Way::Take, &Toll::of(3_300))
    }),
    ("queue_in_place", || {
        torture(16, Way::Lease, &Toll::of(2_000))
    }),
    ("queue_leases_of_the_dead", leases_of_the_dead),
    ("queue_last_words", last_words),
];

/// How messages are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// For good: a receiver that is killed may take one message with it.
    Take,
    /// On lease: what a killed receiver had goes to another.
    Lease,
}

const SENDERS: usize = 4;
const RECEIVERS: usize = 4;
/// Killed processes that may be unburied.
const GRAVES: usize = 8;
/// One message: who sent it, its number, and words that depend on both, to see whether it is torn.
#[derive(Clone, Copy, NoUninit, AnyBitPattern)]
#[repr(C)]
struct Record {
    life: u64,
    number: u64,
    proof: [u64; 6],
}

impl Record {
    fn new(life: u64, number: u64) -> Record {
        let mut word = life.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number;
        let proof = std::array::from_fn(|_| {
            word = (word ^ (word >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word
        });
        Record {
            life,
            number,
            proof,
        }
    }

    fn is_whole(&self) -> bool {
        self.proof == Record::new(self.life, self.number).proof
    }
}

/// What all processes write down, in shared memory.
///
/// Each sender that ever lived (a *life*) has a row: a bit for each of its messages that was received, and
/// how many of its sends returned. Rows are used again in turn.
struct Board(Segment);

const ROWS: u64 = 64;
const ROW_BITS: u64 = 1 << 21;
const ROW_WORDS: usize = (ROW_BITS / 64) as usize + 2;
const FAULTS: usize = 4;
const COUNTS: usize = 16;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Torn,
    Repeated,
    OutOfOrder,
    Stray,
}

impl Board {
    fn new() -> Board {
        Board(Segment::new((COUNTS + ROWS as usize * ROW_WORDS) * 8).unwrap())
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0.words()[index]
    }

    fn fault(&self, fault: Fault) {
        self.word(fault as usize).fetch_add(1, Ordering::Relaxed);
    }

    fn faults(&self) -> [u64; FAULTS] {
        std::array::from_fn(|fault| self.word(fault).load(Ordering::Relaxed))
    }

    fn received(&self) -> &AtomicU64 {
        self.word(FAULTS)
    }

    fn stop(&self) -> &AtomicU64 {
        self.word(FAULTS + 1)
    }

    fn row(&self, life: u64) -> &[AtomicU64] {
        let start = COUNTS + (life % ROWS) as usize * ROW_WORDS;
        &self.0.words()[start..start + ROW_WORDS]
    }

    /// Whose row it is.
    fn owner(&self, life: u64) -> &AtomicU64 {
        &self.row(life)[0]
    }

    /// Sends of this life that returned.
    fn sent(&self, life: u64) -> &AtomicU64 {
        &self.row(life)[1]
    }

    /// Writes down a message that was received, for the first time or, if `again`, perhaps not.
    fn mark(&self, record: &Record, again: bool) {
        if self.owner(record.life).load(Ordering::Relaxed) != record.life {
            return self.fault(Fault::Stray);
        }
        let word = &self.row(record.life)[2 + (record.number / 64) as usize];
        let bit = 1 << (record.number % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 && !again {
            self.fault(Fault::Repeated);
        }
        self.received().fetch_add(1, Ordering::Relaxed);
    }

    /// Begins a life's row, and says how many messages of the life that had it were never received.
    fn turn(&self, life: u64) -> u64 {
        let row = self.row(life);
        let sent = row[1].load(Ordering::Relaxed);
        let bits = row[2..]
            .iter()
            .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()));
        let received: u64 = bits.sum();
        // The last send may have been killed after it had published.
        if received > sent + 1 {
            self.fault(Fault::Stray);
        }
        row.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.owner(life).store(life, Ordering::Relaxed);
        sent.saturating_sub(received)
    }
}

fn send(mut tx: Sender<Plain<Record>>, board: Segment, life: u64) {
    give_way();
    let board = Board(board);
    for number in 0..ROW_BITS {
        if board.stop().load(Ordering::Relaxed) != 0 {
            break;
        }
        tx.send(Plain(Record::new(life, number))).unwrap();
        board.sent(life).store(number + 1, Ordering::Relaxed);
    }
    // A life that has used its row up waits to be killed.
    while board.stop().load(Ordering::Relaxed) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
}

fn receive(mut rx: Receiver<Plain<Record>>, board: Segment, way: Way) {
    give_way();
    let board = Board(board);
    let mut last: HashMap<u64, u64> = HashMap::new();
    let mut note = |record: &Record, again: bool| {
        if !record.is_whole() {
            return board.fault(Fault::Torn);
        }
        board.mark(record, again);
        let next = record.number + 1;
        if !again
            && last
                .insert(record.life, next)
                .is_some_and(|before| before >= next)
        {
            board.fault(Fault::OutOfOrder);
        }
    };
    loop {
        let received = match way {
            Way::Take => rx.recv().map(|Plain(record)| note(&record, false)),
            Way::Lease => rx.lease().map(|lease| {
                note(&lease, lease.redelivered());
                lease.ack();
            }),
        };
        match received {
            Ok(()) => {}
            Err(RecvError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// One of the eight, and how to make it again.
enum Member {
    Sender(Child<()>),
    Receiver(Child<()>),
}

impl Member {
    fn child(self) -> Child<()> {
        match self {
            Member::Sender(child) | Member::Receiver(child) => child,
        }
    }
}

/// Joins a killed process: its end is an error, as it must be.
fn bury(child: Option<Child<()>>) {
    child.map(|child| child.join().unwrap_err());
}

pub(crate) fn torture(capacity: usize, way: Way, toll: &Toll) -> Result<(), Failed> {
    let builder = Queue::<Plain<Record>>::builder().capacity(capacity);
    let built = match way {
        Way::Take => builder.build(),
        Way::Lease => builder.in_place(capacity).build(),
    };
    let (tx, rx) = built.unwrap();
    let board = Board::new();
    let mut lives = 0;
    let mut missing = 0;
    let mut new_sender = || {
        lives += 1;
        missing += board.turn(lives);
        let arguments = (tx.try_clone().unwrap(), board.0.clone(), lives);
        Member::Sender(Process::spawn(send, arguments).unwrap())
    };
    let new_receiver = || {
        let arguments = (rx.try_clone().unwrap(), board.0.clone(), way);
        Member::Receiver(Process::spawn(receive, arguments).unwrap())
    };
    let mut members: Vec<Member> = Vec::new();
    members.extend((0..SENDERS).map(|_| new_sender()));
    members.extend((0..RECEIVERS).map(|_| new_receiver()));

    let mut random = Random::new();
    let mut kills = 0_u64;
    let mut killed_receivers = 0;
    // They are joined later, so that the next one need not wait for the end of the one before.
    let mut graves = VecDeque::new();
    let watched = Board(board.0.clone());
    let watch = Watch::start(move || watched.received().load(Ordering::Relaxed));
    while toll.take_one() {
        thread::sleep(Duration::from_micros(random.below(1_500)));
        watch.check("a message", kills)?;
        kills += 1;
        let victim = random.below(members.len() as u64) as usize;
        let member = members.swap_remove(victim);
        let was_sender = matches!(member, Member::Sender(_));
        let child = member.child();
        child.kill().unwrap();
        graves.push_back(child);
        if graves.len() > GRAVES {
            bury(graves.pop_front());
        }
        members.push(match was_sender {
            true => new_sender(),
            false => {
                killed_receivers += 1;
                new_receiver()
            }
        });
    }
    let longest = watch.longest();
    graves.into_iter().map(Some).for_each(bury);

    // Nobody is killed any more: the senders end, and the receivers when all is received.
    board.stop().store(1, Ordering::Relaxed);
    drop(tx);
    drop(rx);
    for member in members {
        let child = member.child();
        match child.join_timeout(LONG) {
            Ok(Some(())) => {}
            other => return Err(format!("at the end: {other:?}").into()),
        }
    }
    missing += (1..=ROWS).map(|row| board.turn(lives + row)).sum::<u64>();
    let received = board.received().load(Ordering::Relaxed);
    let [torn, repeated, out_of_order, stray] = board.faults();
    let summary = format!(
        "capacity {capacity}, {way:?}: {kills} kills ({killed_receivers} receivers), {received} received, \
         {missing} missing, {torn} torn, {repeated} repeated, {out_of_order} out of order, {stray} stray, \
         longest pause {longest:?}"
    );
    eprintln!("{summary}");
    let may_miss = match way {
        Way::Take => killed_receivers,
        Way::Lease => 0,
    };
    match torn + repeated + out_of_order + stray == 0 && missing <= may_miss {
        true => Ok(()),
        false => Err(summary.into()),
    }
}

/// A lease whose process is killed reaches another receiver, marked, every time.
fn leases_of_the_dead() -> Result<(), Failed> {
    fn lease(mut rx: Receiver<Plain<Record>>, mut told: Sender<u64>) {
        let lease = rx.lease().unwrap();
        told.send(lease.number).unwrap();
        thread::sleep(LONG);
    }
    let builder = Queue::<Plain<Record>>::builder();
    let (mut tx, mut rx) = builder.in_place(2).build().unwrap();
    let (told, mut hears) = Queue::<u64>::new(1).unwrap();
    let kills = kills(1_000);
    for number in 0..kills {
        tx.send(Plain(Record::new(1, number))).unwrap();
        let arguments = (rx.try_clone().unwrap(), told.try_clone().unwrap());
        let child = Process::spawn(lease, arguments).unwrap();
        assert_eq!(hears.recv_timeout(LONG), Ok(number));
        child.kill().unwrap();
        let lease = rx.lease_timeout(LONG).unwrap();
        assert!(lease.redelivered() && lease.number == number && lease.is_whole());
        lease.ack();
        bury(Some(child));
    }
    assert_eq!(rx.stats().redelivered, kills);
    Ok(())
}

/// A sender that ends in any way right after its last send loses nothing, and is known to be gone.
fn last_words() -> Result<(), Failed> {
    fn speak(mut tx: Sender<u64>, words: u64) {
        for word in 0..words {
            tx.send(word).unwrap();
        }
        match words % 4 {
            0 => drop(tx),
            1 => std::process::exit(0),
            2 => std::process::abort(),
            _ => nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap(),
        }
    }
    const AT_ONCE: u64 = 4;
    for round in 0..kills(1_000) / AT_ONCE {
        let speakers: Vec<_> = (0..AT_ONCE)
            .map(|speaker| {
                let words = 1 + (round + speaker) % 9;
                let (tx, rx) = Queue::<u64>::new(4).unwrap();
                (words, rx, Process::spawn(speak, (tx, words)).unwrap())
            })
            .collect();
        for (words, mut rx, child) in speakers {
            for word in 0..words {
                assert_eq!(rx.recv_timeout(LONG), Ok(word));
            }
            assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
            let _ = child.join();
        }
    }
    Ok(())
}
