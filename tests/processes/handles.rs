//! Segments travel in arguments, in results and inside messages, also from a process that has ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use multiproc::{Frozen, Lock, Process, Queue, Receiver, RecvError, Segment, Sender};

use crate::help::{self, isolated, sleep_long, spawn, tests};

tests![
    in_arguments,
    in_results,
    many_at_once,
    from_one_that_has_ended,
    from_a_grandchild_when_both_have_ended,
    from_one_that_was_killed,
    lost_ones_do_not_pile_up,
];

const LONG: Duration = Duration::from_secs(30);

fn in_arguments() {
    let segment = Segment::new(4096).unwrap();
    let child = spawn(|given: Segment| given.len(), (segment,)).unwrap();
    assert_eq!(child.join().unwrap(), 4096);
}

fn in_results() {
    let child = spawn(|| Segment::new(8192).unwrap(), ()).unwrap();
    assert_eq!(child.join().unwrap().len(), 8192);
}

fn many_at_once() {
    let segments: Vec<_> = (1..=40).map(|n| Segment::new(n * 8).unwrap()).collect();
    let reversed = |given: Vec<Segment>| given.into_iter().rev().collect::<Vec<_>>();
    let back = spawn(reversed, (segments,)).unwrap().join().unwrap();
    let sizes: Vec<_> = back.iter().map(Segment::len).collect();
    assert_eq!(sizes, (1..=40).rev().map(|n| n * 8).collect::<Vec<_>>());
}

type Things = (Segment, Lock<u64>, Frozen<u64>, Sender<u64>);

/// Makes one of each, sends them, and has no more to do.
fn leave(mut carrier: Sender<Things>, number: u64) {
    let segment = Segment::new(64).unwrap();
    segment.words()[0].store(number, Ordering::Relaxed);
    let lock = Lock::new(number).unwrap();
    let frozen = Frozen::from_slice(&[number; 1000]).unwrap();
    let (sender, _) = Queue::new(4).unwrap();
    carrier.send((segment, lock, frozen, sender)).unwrap();
}

fn is_whole(things: Things, number: u64) {
    let (segment, lock, frozen, _) = things;
    assert_eq!(segment.words()[0].load(Ordering::Relaxed), number);
    assert_eq!(*lock.lock().unwrap(), number);
    assert_eq!(*frozen, [number; 1000]);
}

fn from_one_that_has_ended() {
    isolated(|| {
        let (carrier, mut carried) = Queue::<Things>::new(4).unwrap();
        let mut before = Vec::new();
        for number in 0..50 {
            let child = Process::spawn(leave, (carrier.try_clone().unwrap(), number)).unwrap();
            child.join().unwrap();
            is_whole(carried.recv_timeout(LONG).unwrap(), number);
            if number == 5 {
                before = help::descriptors();
            }
        }
        assert!(help::descriptors().len() <= before.len() + 5);
        // At the very end, while its parent hears of it.
        let child = Process::spawn(leave, (carrier, 50)).unwrap();
        is_whole(carried.recv_timeout(LONG).unwrap(), 50);
        child.join().unwrap();
    });
}

fn from_a_grandchild_when_both_have_ended() {
    isolated(|| {
        let (carrier, mut carried) = Queue::<Things>::new(4).unwrap();
        let between = |carrier: Sender<Things>| {
            Process::spawn(leave, (carrier, 7)).unwrap().join().unwrap();
        };
        Process::spawn(between, (carrier,)).unwrap().join().unwrap();
        let sibling =
            |mut carried: Receiver<Things>| is_whole(carried.recv_timeout(LONG).unwrap(), 7);
        let found = Process::spawn(sibling, (carried.try_clone().unwrap(),));
        found.unwrap().join().unwrap();
        assert_eq!(carried.recv_timeout(LONG).err(), Some(RecvError::Closed));
    });
}

fn from_one_that_was_killed() {
    let (carrier, mut carried) = Queue::<Lock<u64>>::new(4).unwrap();
    let known = Lock::new(1_u64).unwrap();
    let send_and_wait = |mut carrier: Sender<Lock<u64>>, known: Lock<u64>, mut sent: Sender<()>| {
        carrier.send(known.clone()).unwrap();
        carrier.send(Lock::new(2_u64).unwrap()).unwrap();
        carrier.send(known).unwrap();
        sent.send(()).unwrap();
        sleep_long();
    };
    let (sent, mut is_sent) = Queue::<()>::new(1).unwrap();
    let child = Process::spawn(send_and_wait, (carrier, known.clone(), sent)).unwrap();
    is_sent.recv_timeout(LONG).unwrap();
    child.kill().unwrap();
    child.join().unwrap_err();
    let sibling = |mut carried: Receiver<Lock<u64>>| {
        // This process has it, so it is found; the next is lost with its only holder; the queue goes on.
        *carried.recv_timeout(LONG).unwrap().lock().unwrap() += 1;
        match carried.recv_timeout(LONG) {
            Err(RecvError::Decode(error)) => {
                assert!(error.to_string().contains("is gone"), "{error}")
            }
            other => panic!("{other:?}"),
        }
        *carried.recv_timeout(LONG).unwrap().lock().unwrap() += 1;
    };
    let child = Process::spawn(sibling, (carried.try_clone().unwrap(),)).unwrap();
    child.join().unwrap();
    assert_eq!(*known.lock().unwrap(), 3);
    assert_eq!(carried.recv_timeout(LONG).err(), Some(RecvError::Closed));
}

fn lost_ones_do_not_pile_up() {
    isolated(|| {
        let before = help::after_first_child().len();
        for _ in 0..30 {
            let (carrier, carried) = Queue::<Things>::new(4).unwrap();
            Process::spawn(leave, (carrier, 1)).unwrap().join().unwrap();
            drop(carried);
        }
        // The reaper, a thread of its own, takes up what each of them left.
        help::wait_until(LONG, "no more are held than may be lost", || {
            help::descriptors().len() <= before + 2 * 32
        });
    });
}
