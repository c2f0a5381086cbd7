//! Histories: six processes write down when each of their operations began, when it ended and what came of it, while
//! some of them are killed; then the record is searched for what no queue and no lock in one piece could have done.
//!
//! All take their times from one shared clock that counts, so "before" means before. An operation that a death cut
//! short may have taken effect or not.
//!
//! `HISTORIES` sets how many instead of 60 of each kind. With `RUSTFLAGS="--cfg planted"` they must fail.

#![cfg(not(loom))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{
    Child, Guard, Lock, LockError, Process, Queue, Receiver, RecvError, Segment, SendError, Sender,
};
use serde::{Deserialize, Serialize};

/// Longer than any wait that ends.
const LONG: Duration = Duration::from_secs(30);
const PROCESSES: usize = 6;
/// Operations of each process.
const OPERATIONS: u64 = 40;
/// How long a lock is held.
const INSIDE: Duration = Duration::from_micros(5);
/// Messages a sender may have in flight.
const CAPACITY: u64 = 3;

fn histories() -> u64 {
    match std::env::var("HISTORIES") {
        Ok(text) => text.parse().expect("HISTORIES is a number"),
        Err(_) => 60,
    }
}

/// What an operation was, as it stands in the record: it asks, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Send = 1,
    Full,
    Receive,
    Empty,
    Hold,
    HoldAbandoned,
    Busy,
    Leave,
}

const ALL: [What; 8] = [
    What::Send,
    What::Full,
    What::Receive,
    What::Empty,
    What::Hold,
    What::HoldAbandoned,
    What::Busy,
    What::Leave,
];

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operation {
    process: usize,
    what: What,
    value: u64,
    begin: u64,
    /// `u64::MAX` if a death came first.
    end: u64,
}

/// Where everybody writes: a clock, and the operations of each process.
#[derive(Clone, Serialize, Deserialize)]
struct Record(Segment);

/// Words of one operation: what, value, begin, end.
const WORDS: usize = 4;
/// One process more: the survivor, which looks what is left.
const ROW: usize = (OPERATIONS as usize + PROCESSES * OPERATIONS as usize) * WORDS;

impl Record {
    fn new() -> Record {
        Record(Segment::new((2 + (PROCESSES + 1) * ROW) * 8).unwrap())
    }

    /// Says that this process is there.
    fn line_up(&self) {
        self.0.words()[1].fetch_add(1, SeqCst);
    }

    /// Waits until all are there: only then does the first begin, so that no sender follows another in its lane and
    /// finds messages there.
    fn wait_for_all(&self) {
        let end = Instant::now() + LONG;
        while self.0.words()[1].load(SeqCst) < PROCESSES as u64 {
            assert!(Instant::now() < end, "somebody does not come");
            thread::yield_now();
        }
    }

    fn tick(&self) -> u64 {
        self.0.words()[0].fetch_add(1, SeqCst) + 1
    }

    fn operation(&self, process: usize, number: u64) -> &[AtomicU64] {
        let first = 2 + process * ROW + number as usize * WORDS;
        &self.0.words()[first..first + WORDS]
    }

    fn all(&self) -> Vec<Operation> {
        let mut all = Vec::new();
        for process in 0..=PROCESSES {
            for number in 0..(ROW / WORDS) as u64 {
                let words = self.operation(process, number);
                let [what, value, begin, end] = [0, 1, 2, 3].map(|word| words[word].load(SeqCst));
                if begin == 0 {
                    break;
                }
                all.push(Operation {
                    process,
                    what: ALL[what as usize - 1],
                    value,
                    begin,
                    end: if end == 0 { u64::MAX } else { end },
                });
            }
        }
        all
    }
}

/// One process' hand at the record.
struct Pen {
    record: Record,
    process: usize,
    number: u64,
}

impl Pen {
    fn new(record: Record, process: usize) -> Pen {
        Pen {
            record,
            process,
            number: 0,
        }
    }

    /// Writes an operation down: before, what it is to be; behind, what came of it.
    fn note<R>(&mut self, what: What, value: u64, operation: impl FnOnce() -> (R, What, u64)) -> R {
        let words = self.record.operation(self.process, self.number);
        self.number += 1;
        words[0].store(what as u64, SeqCst);
        words[1].store(value, SeqCst);
        words[2].store(self.record.tick(), SeqCst);
        let (result, what, value) = operation();
        let end = self.record.tick();
        words[0].store(what as u64, SeqCst);
        words[1].store(value, SeqCst);
        words[3].store(end, SeqCst);
        result
    }
}

/// A message: whose, and its number.
fn message(process: usize, number: u64) -> u64 {
    (process as u64) << 32 | number
}

fn send(mut tx: Sender<u64>, record: Record, process: usize) {
    record.line_up();
    record.wait_for_all();
    let mut pen = Pen::new(record, process);
    let mut number = 0;
    for turn in 0..OPERATIONS {
        let value = message(process, number);
        let waits = turn % 3 != process as u64 % 3;
        let sent = pen.note(What::Send, value, || {
            let sent = match waits {
                true => tx.send(value),
                false => tx.try_send(value),
            };
            match sent {
                Ok(()) => (true, What::Send, value),
                Err(SendError::Full(value)) => (false, What::Full, value),
                Err(error) => panic!("{error}"),
            }
        });
        number += u64::from(sent);
    }
}

fn receive(mut rx: Receiver<u64>, record: Record, process: usize) {
    record.line_up();
    record.wait_for_all();
    let mut pen = Pen::new(record, process);
    for turn in 0..OPERATIONS {
        let waits = turn % 4 != process as u64 % 4;
        let result = pen.note(What::Receive, u64::MAX, || {
            let result = match waits {
                true => rx.recv_timeout(Duration::from_millis(1)),
                false => rx.try_recv(),
            };
            match result {
                Ok(value) => (Ok(()), What::Receive, value),
                Err(error) => (Err(error), What::Empty, 0),
            }
        });
        match result {
            Ok(()) | Err(RecvError::Empty | RecvError::TimedOut) => {}
            Err(RecvError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
    // Whoever sends needs somebody who receives.
    thread::sleep(LONG);
}

/// What is wrong with the history of a queue.
fn check_queue(all: &[Operation], survivor: usize) -> Result<(), String> {
    let of = |what: What| all.iter().filter(move |operation| operation.what == what);
    let sends: BTreeMap<u64, &Operation> = of(What::Send).map(|send| (send.value, send)).collect();
    let mut receipts = BTreeMap::new();
    let mut cut_short = BTreeSet::new();
    for receipt in of(What::Receive) {
        if receipt.end == u64::MAX {
            cut_short.insert(receipt.process);
        } else if let Some(other) = receipts.insert(receipt.value, receipt) {
            return Err(format!("received twice: {other:?} and {receipt:?}"));
        }
    }
    for receipt in receipts.values() {
        match sends.get(&receipt.value) {
            Some(send) if send.begin < receipt.end => {}
            other => return Err(format!("{receipt:?} of {other:?}")),
        }
    }
    let is_missing =
        |send: &&&Operation| send.end != u64::MAX && !receipts.contains_key(&send.value);
    let missing: Vec<_> = sends.values().filter(is_missing).collect();
    if missing.len() > cut_short.len() {
        return Err(format!(
            "lost: {missing:?}, killed in the act: {cut_short:?}"
        ));
    }
    for (value, send) in &sends {
        let next = sends.get(&(value + 1)).zip(receipts.get(&(value + 1)));
        if let (Some(receipt), Some((_, next))) = (receipts.get(value), next) {
            if next.end < receipt.begin {
                return Err(format!("out of order: {receipt:?}, {next:?}"));
            }
        }
        // Room for a message is made by the one that was sent so many before.
        if let Some(before) = receipts.get(&value.wrapping_sub(CAPACITY)) {
            let same = before.value >> 32 == value >> 32;
            if same && before.begin > send.end {
                return Err(format!("more room than there is: {send:?}, {before:?}"));
            }
        }
    }
    for full in of(What::Full) {
        let surely_taken = |receipt: &&&Operation| {
            receipt.value >> 32 == full.value >> 32 && receipt.end < full.begin
        };
        let taken = receipts.values().filter(surely_taken).count() as u64;
        let sent = full.value & u64::from(u32::MAX);
        if sent - taken < CAPACITY {
            return Err(format!("{full:?}, of {sent} sent and {taken} taken"));
        }
    }
    // What a dead receiver took is not known, so it is left out.
    for empty in of(What::Empty) {
        let stayed = sends.values().find(|send| {
            let taken = receipts.get(&send.value);
            send.end < empty.begin && taken.is_some_and(|taken| taken.begin > empty.end)
        });
        if let Some(stayed) = stayed {
            // The survivor asks last: nobody takes anything meanwhile.
            return Err(format!("{empty:?} (survivor: {survivor}), but {stayed:?}"));
        }
    }
    Ok(())
}

fn queue_history(kills: bool, seed: u64) -> Result<(), String> {
    let (tx, mut rx) = Queue::<u64>::builder()
        .capacity(CAPACITY as usize)
        .senders(8)
        .build()
        .unwrap();
    let record = Record::new();
    let mut children: Vec<Child<()>> = Vec::new();
    for process in 0..PROCESSES {
        children.push(match process % 2 {
            0 => {
                let ends = (tx.try_clone().unwrap(), record.clone(), process);
                Process::spawn(send, ends).unwrap()
            }
            _ => {
                let ends = (rx.try_clone().unwrap(), record.clone(), process);
                Process::spawn(receive, ends).unwrap()
            }
        });
    }
    drop(tx);
    record.wait_for_all();
    if kills {
        for victim in [seed % 3 * 2, seed / 3 % 3 * 2 + 1] {
            thread::sleep(Duration::from_micros(seed * 37 % 400));
            children[victim as usize].kill().unwrap();
        }
    }
    let mut pen = Pen::new(record.clone(), PROCESSES);
    // The survivor takes what the others leave, until nobody is there to send.
    loop {
        let result = pen.note(What::Receive, u64::MAX, || match rx.recv_timeout(LONG) {
            Ok(value) => (Ok(()), What::Receive, value),
            Err(error) => (Err(error), What::Empty, 0),
        });
        match result {
            Ok(()) => {}
            Err(RecvError::Closed) => break,
            Err(error) => return Err(format!("the survivor: {error}")),
        }
    }
    for (process, child) in children.into_iter().enumerate() {
        if process % 2 == 1 {
            let _ = child.kill();
        }
        let _ = child.join();
    }
    check_queue(&record.all(), PROCESSES)
}

fn lock(pair: Lock<[u64; 2]>, record: Record, process: usize) {
    record.line_up();
    record.wait_for_all();
    let mut pen = Pen::new(record, process);
    // Each turn is two operations.
    for turn in 0..OPERATIONS / 2 {
        let waits = turn % 3 != process as u64 % 3;
        let guard = pen.note(What::Hold, 0, || {
            let result = match waits {
                true => pair.lock(),
                false => pair.try_lock(),
            };
            match result {
                Ok(mut guard) => {
                    guard[0] += 1;
                    let value = guard[0];
                    (Some(guard), What::Hold, value)
                }
                Err(LockError::Abandoned(_)) => {
                    let mut guard = pair.recover().unwrap();
                    guard[0] += 1;
                    let value = guard[0];
                    // Another may have been quicker, and have left it whole.
                    let what = match Guard::was_abandoned(&guard) {
                        true => What::HoldAbandoned,
                        false => What::Hold,
                    };
                    (Some(guard), what, value)
                }
                Err(LockError::WouldBlock) => (None, What::Busy, 0),
                Err(error) => panic!("{error}"),
            }
        });
        if let Some(mut guard) = guard {
            // Long enough for a kill to come meanwhile.
            let end = Instant::now() + INSIDE;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            guard[1] += 1;
            let value = guard[0];
            pen.note(What::Leave, value, || (drop(guard), What::Leave, value));
        }
    }
}

/// What is wrong with the history of a lock, whose holders count.
fn check_lock(all: &[Operation]) -> Result<(), String> {
    let is_hold = |what| matches!(what, What::Hold | What::HoldAbandoned);
    let mut holds: Vec<_> = all
        .iter()
        .filter(|operation| is_hold(operation.what) && operation.end != u64::MAX)
        .collect();
    holds.sort_unstable_by_key(|hold| hold.value);
    let leave_of = |hold: &Operation| {
        let is_its = |leave: &&Operation| {
            leave.what == What::Leave && leave.process == hold.process && leave.begin > hold.end
        };
        all.iter().filter(is_its).min_by_key(|leave| leave.begin)
    };
    // Those that were cut short in front of the door, or just inside: they may have counted, unseen.
    let unseen = all
        .iter()
        .filter(|operation| is_hold(operation.what) && operation.end == u64::MAX)
        .count() as u64;
    let mut skipped = 0;
    for two in holds.windows(2) {
        let [first, second] = [two[0], two[1]];
        if second.value <= first.value {
            return Err(format!("two counted alike: {first:?}, {second:?}"));
        }
        skipped += second.value - first.value - 1;
        let left = leave_of(first);
        let is_told = second.what == What::HoldAbandoned;
        match left {
            Some(left) if left.begin > second.end => {
                return Err(format!("two inside: {first:?} to {left:?}, {second:?}"));
            }
            None if !is_told && second.value == first.value + 1 => {
                return Err(format!("{first:?} died inside, {second:?} was not told"));
            }
            Some(left)
                if left.end != u64::MAX
                    && is_told
                    && second.value == first.value + 1
                    && unseen == 0 =>
            {
                return Err(format!("{first:?} left, {second:?} was told of a death"));
            }
            _ => {}
        }
        if first.begin > second.end {
            return Err(format!("counted against time: {first:?}, {second:?}"));
        }
    }
    if skipped > unseen {
        return Err(format!(
            "{skipped} counts of nobody, {unseen} killed in the act"
        ));
    }
    for busy in all.iter().filter(|operation| operation.what == What::Busy) {
        let may_hold = |hold: &&Operation| {
            let end = match leave_of(hold) {
                Some(leave) => leave.end,
                None => u64::MAX,
            };
            is_hold(hold.what) && hold.begin < busy.end && end > busy.begin
        };
        if !all.iter().any(|hold| may_hold(&hold)) {
            return Err(format!("nobody was inside: {busy:?}"));
        }
    }
    Ok(())
}

fn lock_history(kills: bool, seed: u64) -> Result<(), String> {
    let pair = Lock::new([0; 2]).unwrap();
    let record = Record::new();
    let children: Vec<Child<()>> = (0..PROCESSES)
        .map(|process| Process::spawn(lock, (pair.clone(), record.clone(), process)).unwrap())
        .collect();
    record.wait_for_all();
    if kills {
        for victim in [seed % 6, (seed % 6 + 1 + seed / 6 % 5) % 6] {
            thread::sleep(Duration::from_micros(seed * 37 % 300));
            children[victim as usize].kill().unwrap();
        }
    }
    for child in children {
        match child.join_timeout(LONG) {
            Ok(Some(())) => {}
            Ok(None) => return Err("somebody hangs".to_owned()),
            Err(_) if kills => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    check_lock(&record.all())
}

fn run(history: fn(bool, u64) -> Result<(), String>) {
    for seed in 0..histories() {
        let result = history(seed % 2 == 1, seed);
        assert_eq!(result, Ok(()), "history {seed}");
    }
}

#[test]
fn a_queue_does_what_one_in_one_piece_could_do() {
    run(queue_history);
}

#[test]
fn a_lock_does_what_one_in_one_piece_could_do() {
    run(lock_history);
}

fn operation(what: What, value: u64, begin: u64, end: u64) -> Operation {
    Operation {
        process: 0,
        what,
        value,
        begin,
        end,
    }
}

/// What is wrong with a history must be found: each of these is.
#[test]
fn impossible_queues_are_recognised() {
    use What::{Empty, Full, Receive, Send};
    let never = u64::MAX;
    let good = [
        operation(Send, 0, 1, 3),
        operation(Send, 1, 4, never),
        operation(Empty, 0, 2, 5),
        operation(Receive, 1, 6, 9),
        operation(Receive, 0, 7, 8),
    ];
    assert_eq!(check_queue(&good, 9), Ok(()));
    let bad: [&[Operation]; 7] = [
        &[operation(Receive, 0, 1, 2)],
        &[operation(Receive, 0, 1, 2), operation(Send, 0, 3, 4)],
        &[operation(Send, 0, 1, 2)],
        &[
            operation(Send, 0, 1, 2),
            operation(Receive, 0, 3, 4),
            operation(Receive, 0, 5, 6),
        ],
        &[
            operation(Send, 0, 1, 2),
            operation(Send, 1, 3, 4),
            operation(Receive, 1, 5, 6),
            operation(Receive, 0, 7, 8),
        ],
        &[
            operation(Send, 0, 1, 2),
            operation(Empty, 0, 3, 4),
            operation(Receive, 0, 5, 6),
        ],
        &[
            operation(Send, 0, 1, 2),
            operation(Full, 1, 3, 4),
            operation(Receive, 0, 5, 6),
        ],
    ];
    for history in bad {
        assert!(check_queue(history, 9).is_err(), "{history:?}");
    }
}

#[test]
fn impossible_locks_are_recognised() {
    use What::{Busy, Hold, HoldAbandoned, Leave};
    let never = u64::MAX;
    let at = |process, operation| Operation {
        process,
        ..operation
    };
    let good = [
        at(0, operation(Hold, 1, 1, 2)),
        at(1, operation(Busy, 0, 3, 4)),
        at(0, operation(Leave, 1, 5, 7)),
        at(1, operation(Hold, 2, 6, 8)),
        at(2, operation(HoldAbandoned, 3, 9, 10)),
        at(2, operation(Leave, 3, 11, never)),
    ];
    assert_eq!(check_lock(&good), Ok(()));
    let bad: [&[Operation]; 5] = [
        &[
            at(0, operation(Hold, 1, 1, 2)),
            at(1, operation(Hold, 2, 3, 4)),
            at(0, operation(Leave, 1, 5, 6)),
        ],
        &[
            at(0, operation(Hold, 1, 1, 2)),
            at(1, operation(Hold, 2, 3, 4)),
        ],
        &[
            at(0, operation(Hold, 1, 1, 2)),
            at(0, operation(Leave, 1, 3, 4)),
            at(1, operation(Hold, 1, 5, 6)),
        ],
        &[
            at(0, operation(Hold, 1, 1, 2)),
            at(0, operation(Leave, 1, 3, 4)),
            at(1, operation(HoldAbandoned, 2, 5, 6)),
        ],
        &[at(0, operation(Busy, 0, 1, 2))],
    ];
    for history in bad {
        assert!(check_lock(history).is_err(), "{history:?}");
    }
}
