//! Locks between processes: they travel, they exclude, and no death goes unsaid.

use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{abort, exit};
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Child, Guard, Lock, LockError, Process, Queue, Segment};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::help::{descriptors, sleep_long, tests, wait_until};

tests![
    count_is_right,
    travels_in_results_and_to_grandchildren,
    sender_may_let_go_at_once,
    another_type_is_refused,
    killed_inside_is_told,
    killed_while_repairing_is_told_again,
    every_way_to_end_inside_is_told,
    death_is_told_soon,
    stopped_holder_keeps_it,
    one_dead_among_the_waiting_changes_nothing,
    lost_proof_of_life_is_evicted,
];

/// Longer than anything here takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(20);

fn add(pair: Lock<[u64; 2]>, times: u64) {
    for _ in 0..times {
        let mut pair = pair.lock().unwrap();
        pair[0] += 1;
        assert_eq!(pair[0], pair[1] + 1);
        pair[1] += 1;
    }
}

fn count_is_right() {
    let pair = Lock::new([0u64; 2]).unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| Process::spawn(add, (pair.clone(), 20_000)).unwrap())
        .collect();
    add(pair.clone(), 20_000);
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(*pair.lock().unwrap(), [100_000; 2]);
}

fn travels_in_results_and_to_grandchildren() {
    fn parent() -> Lock<[u64; 2]> {
        let pair = Lock::new([0; 2]).unwrap();
        let child = Process::spawn(|pair| add(pair, 5), (pair.clone(),)).unwrap();
        child.join().unwrap();
        pair
    }
    let pair = Process::spawn(parent, ()).unwrap().join().unwrap();
    add(pair.clone(), 5);
    assert_eq!(*pair.lock().unwrap(), [10; 2]);
}

/// A lock in a queue lives until it is received, whoever still has it.
fn sender_may_let_go_at_once() {
    let (mut tx, rx) = Queue::<Lock<u32>>::new(8).unwrap();
    let child = Process::spawn(
        |mut rx: multiproc::Receiver<Lock<u32>>| {
            rx.iter().map(|lock| *lock.lock().unwrap()).sum::<u32>()
        },
        (rx,),
    )
    .unwrap();
    for n in 1..=100 {
        tx.send(Lock::new(n).unwrap()).unwrap();
    }
    drop(tx);
    assert_eq!(child.join().unwrap(), 5050);
}

fn another_type_is_refused() {
    /// Writes one type and reads another.
    enum Swapped {
        Sent(Lock<u8>),
        Got(String),
    }
    impl Serialize for Swapped {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Swapped::Sent(lock) => lock.serialize(serializer),
                Swapped::Got(_) => unreachable!("only read"),
            }
        }
    }
    impl<'de> Deserialize<'de> for Swapped {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let refused = Lock::<[u8; 1]>::deserialize(deserializer).map(drop);
            Ok(Swapped::Got(refused.unwrap_err().to_string()))
        }
    }
    let (mut tx, mut rx) = Queue::<Swapped>::new(1).unwrap();
    tx.send(Swapped::Sent(Lock::new(1).unwrap())).unwrap();
    let Swapped::Got(why) = rx.recv().unwrap() else {
        panic!("a lock of u8 came as one of [u8; 1]");
    };
    for part in ["1 bytes aligned to 1: u8", "1 bytes aligned to 1: [u8; 1]"] {
        assert!(why.contains(part), "{why}");
    }
}

/// Starts a process that enters, changes half, says so on the board, and stays inside.
fn holder(pair: &Lock<[u64; 2]>) -> Child<()> {
    fn hold(pair: Lock<[u64; 2]>, board: Segment) {
        let mut guard = match pair.lock() {
            Ok(guard) => guard,
            Err(LockError::Abandoned(_)) => pair.recover().unwrap(),
            Err(other) => panic!("{other}"),
        };
        guard[0] += 1;
        board.words()[0].store(1, SeqCst);
        sleep_long();
    }
    let board = Segment::new(64).unwrap();
    let child = Process::spawn(hold, (pair.clone(), board.clone())).unwrap();
    wait_until(LONG, "it is inside", || board.words()[0].load(SeqCst) == 1);
    child
}

/// Enters after a death, checks that it is told and what it finds, and repairs it.
fn repair(pair: &Lock<[u64; 2]>, found: [u64; 2]) {
    match pair.lock_timeout(LONG) {
        Err(LockError::Abandoned(_)) => {
            let mut guard = pair.recover().unwrap();
            assert!(Guard::was_abandoned(&guard));
            assert_eq!(*guard, found);
            guard[1] = guard[0];
        }
        other => panic!("{other:?} where a death was to be told"),
    }
    assert_eq!(*pair.lock().unwrap(), [found[0]; 2]);
}

fn killed_inside_is_told() {
    let pair = Lock::new([0; 2]).unwrap();
    let child = holder(&pair);
    let pid = child.pid();
    let busy = Duration::from_millis(60);
    assert!(matches!(pair.lock_timeout(busy), Err(LockError::TimedOut)));
    assert!(matches!(pair.try_lock(), Err(LockError::WouldBlock)));
    child.kill().unwrap();
    assert!(child.join().is_err());
    // Told to each who asks, until somebody recovers; and each of the same death.
    for told in [pair.try_lock(), pair.lock(), pair.lock_timeout(LONG)] {
        let Err(LockError::Abandoned(who)) = told else {
            panic!("{told:?}");
        };
        assert_eq!(who.pid(), Some(pid));
        assert_eq!(who.death().unwrap().pid(), pid);
    }
    repair(&pair, [1, 0]);
}

fn killed_while_repairing_is_told_again() {
    let pair = Lock::new([0; 2]).unwrap();
    for round in 1..=3 {
        let child = holder(&pair);
        child.kill().unwrap();
        assert!(child.join().is_err());
        assert!(
            matches!(pair.try_lock(), Err(LockError::Abandoned(_))),
            "round {round}"
        );
    }
    repair(&pair, [3, 0]);
}

fn every_way_to_end_inside_is_told() {
    fn ends(pair: Lock<[u64; 2]>, how: &str) {
        let mut guard = pair.lock().unwrap();
        guard[0] += 1;
        match how {
            "exit" => exit(0),
            "abort" => abort(),
            "panic" => panic!("inside"),
            _ => std::mem::forget(guard),
        }
    }
    for how in ["exit", "abort", "panic", "forget"] {
        let pair = Lock::new([0; 2]).unwrap();
        let child = |pair, how: String| ends(pair, &how);
        let child = Process::spawn(child, (pair.clone(), how.to_owned())).unwrap();
        assert_eq!(child.join().is_ok(), matches!(how, "forget"), "{how}");
        repair(&pair, [1, 0]);
    }
}

/// From the kill to the next one inside, who waits asleep: 100 ms at most at the 99th percentile.
fn death_is_told_soon() {
    let pair = Lock::new([0; 2]).unwrap();
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let child = holder(&pair);
            let told = thread::scope(|scope| {
                let waits = scope.spawn(|| {
                    let told = matches!(pair.lock_timeout(LONG), Err(LockError::Abandoned(_)));
                    told.then(Instant::now)
                });
                thread::sleep(Duration::from_millis(2));
                let killed = Instant::now();
                child.kill().unwrap();
                waits.join().unwrap().expect("the death is told") - killed
            });
            assert!(child.join().is_err());
            told
        })
        .collect();
    times.sort();
    println!(
        "death to told: median {:?}, 99 of 100 within {:?}",
        times[50], times[98]
    );
}

fn stopped_holder_keeps_it() {
    let pair = Lock::new([0; 2]).unwrap();
    let child = holder(&pair);
    child.signal(nix::libc::SIGSTOP).unwrap();
    let result = pair.lock_timeout(Duration::from_millis(200));
    assert!(matches!(result, Err(LockError::TimedOut)), "{result:?}");
    child.signal(nix::libc::SIGCONT).unwrap();
    assert!(matches!(pair.try_lock(), Err(LockError::WouldBlock)));
    child.kill().unwrap();
    assert!(child.join().is_err());
    repair(&pair, [1, 0]);
}

fn one_dead_among_the_waiting_changes_nothing() {
    let pair = Lock::new([0u64; 2]).unwrap();
    let guard = pair.lock().unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| Process::spawn(add, (pair.clone(), 1)).unwrap())
        .collect();
    thread::sleep(Duration::from_millis(50));
    children[0].kill().unwrap();
    children[2].kill().unwrap();
    thread::sleep(Duration::from_millis(10));
    drop(guard);
    let ended: Vec<bool> = children
        .into_iter()
        .map(|child| child.join().is_ok())
        .collect();
    assert_eq!(ended, [false, true, false, true]);
    assert_eq!(*pair.lock().unwrap(), [2; 2]);
}

/// A process that closes descriptors it does not know loses its proof of life: it is refused, and gives to
/// nobody what was taken from it.
fn lost_proof_of_life_is_evicted() {
    fn lose_it() {
        for (number, target) in descriptors() {
            if target.contains("multiproc:roster") {
                // SAFETY: that others still believe in the descriptor is what this test is about.
                drop(unsafe { OwnedFd::from_raw_fd(number as i32) });
            }
        }
    }
    fn waits(pair: Lock<[u64; 2]>) -> bool {
        lose_it();
        matches!(pair.lock_timeout(LONG), Err(LockError::Evicted))
    }
    fn holds(pair: Lock<[u64; 2]>, board: Segment) {
        let guard = pair.lock().unwrap();
        lose_it();
        board.words()[0].store(1, SeqCst);
        wait_until(LONG, "it was taken", || board.words()[0].load(SeqCst) == 2);
        drop(guard);
    }
    let pair = Lock::new([0u64; 2]).unwrap();
    let guard = pair.lock().unwrap();
    let child = Process::spawn(waits, (pair.clone(),)).unwrap();
    assert!(child.join().unwrap());
    drop(guard);

    let board = Segment::new(64).unwrap();
    let child = Process::spawn(holds, (pair.clone(), board.clone())).unwrap();
    wait_until(LONG, "it is inside", || board.words()[0].load(SeqCst) == 1);
    let Err(LockError::Abandoned(_)) = pair.lock_timeout(LONG) else {
        panic!("whoever lost its proof of life counts as dead");
    };
    let guard = pair.recover().unwrap();
    board.words()[0].store(2, SeqCst);
    child.join().unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(|| matches!(pair.try_lock(), Err(LockError::WouldBlock)));
        assert!(other.join().unwrap(), "who was evicted has let somebody in");
    });
    drop(guard);
}
