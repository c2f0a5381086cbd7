//! A handle lives as long as what carries it: however often it is decoded, and if nobody decodes it.

use std::collections::BTreeSet;
use std::time::Duration;

use multiproc::{
    Frozen, Lock, OnDeath, Pipe, Pool, Process, Queue, Receiver, RecvError, Segment, SendError,
    Sender,
};
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::help::{isolated, sleep_long, tests, wait_until};
use crate::strangers::fresh;

tests![
    handed_out_again_and_again,
    receivers_that_die_between_reading_and_acknowledging,
    items_that_are_begun_again,
    memory_comes_back_when_all_is_read,
    memory_comes_back_when_nothing_is_read,
    memory_comes_back_from_a_pipe,
    memory_of_cancelled_calls_comes_back,
    results_of_workers_are_let_go,
    a_stopped_receiver_has_time,
    what_cannot_be_decoded_holds_nothing,
    descriptors_short_for_a_while,
    a_lock_is_no_segment,
    no_other_format_carries_handles,
    a_name_that_nobody_asked_for,
];

const LONG: Duration = Duration::from_secs(30);

type Numbered = (u64, Frozen<u8>);

fn numbered(number: u64) -> Numbered {
    (number, Frozen::from_slice(&[number as u8; 100]).unwrap())
}

/// The files in memory of arrays that this process holds.
fn arrays() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().contains("multiproc:sealed"))
        .count()
}

fn until_none_is_held() {
    wait_until(LONG, "no array is held any more", || arrays() == 0);
}

fn send_twice(mut tx: Sender<Numbered>, mut go: Receiver<()>) {
    for round in 0..2 {
        for number in 0..20 {
            tx.send(numbered(round * 20 + number)).unwrap();
        }
        go.recv().unwrap();
    }
}

fn handed_out_again_and_again() {
    let build = Queue::builder().message_size(512).in_place(64).build();
    let (tx, mut rx) = build.unwrap();
    let (mut go, wait) = Queue::<()>::new(4).unwrap();
    let child = Process::spawn(send_twice, (tx, wait)).unwrap();
    for _ in 0..5 {
        let leases: Vec<_> = (0..20)
            .map(|_| {
                let lease = rx.lease_timeout(LONG).unwrap();
                for _ in 0..2 {
                    let (number, array) = lease.read().unwrap();
                    assert_eq!(*array, [number as u8; 100]);
                }
                lease
            })
            .collect();
        drop(leases);
    }
    // The sender sends on, and looks at what it holds.
    go.send(()).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let lease = rx.lease_timeout(LONG).unwrap();
        let (number, array) = lease.read().unwrap();
        assert_eq!(*array, [number as u8; 100]);
        assert!(seen.insert(number));
        lease.ack();
    }
    go.send(()).unwrap();
    child.join().unwrap();
    assert_eq!(seen.len(), 40);
}

fn kill_myself() {
    std::process::abort();
}

fn receivers_that_die_between_reading_and_acknowledging() {
    isolated(|| {
        let build = Queue::builder().message_size(512).in_place(4).build();
        let (mut tx, mut rx) = build.unwrap();
        tx.send(numbered(7)).unwrap();
        for _ in 0..5 {
            let read_and_die = |mut rx: Receiver<Numbered>| {
                let lease = rx.lease_timeout(LONG).unwrap();
                assert_eq!(*lease.read().unwrap().1, [7; 100]);
                kill_myself();
            };
            let child = Process::spawn(read_and_die, (rx.try_clone().unwrap(),)).unwrap();
            let error = child.join().unwrap_err().to_string();
            assert!(error.contains("signal"), "{error}");
        }
        let lease = rx.lease_timeout(LONG).unwrap();
        assert_eq!(*lease.read().unwrap().1, [7; 100]);
        lease.ack();
        until_none_is_held();
    });
}

fn fragile((number, array, deaths): (u64, Frozen<u8>, Lock<u64>)) -> u64 {
    let mut left = deaths.lock().unwrap();
    if *left > 0 {
        *left -= 1;
        drop(left);
        std::process::abort();
    }
    number + u64::from(array[0])
}

fn items_that_are_begun_again() {
    isolated(|| {
        let build = Pool::builder()
            .workers(2)
            .on_worker_death(OnDeath::Retry(5));
        let pool = build.build().unwrap();
        let items = (0..6).map(|number| {
            let (number, array) = numbered(number);
            // The first dies five times.
            let deaths = Lock::new(if number == 0 { 5 } else { number % 2 }).unwrap();
            (number, array, deaths)
        });
        let results: Result<Vec<_>, _> = pool.imap(fragile, items).collect();
        assert_eq!(results.unwrap(), [0, 2, 4, 6, 8, 10]);
        until_none_is_held();
    });
}

fn memory_comes_back_when_all_is_read() {
    isolated(|| {
        let (mut tx, mut rx) = Queue::<Frozen<u8>>::new(8).unwrap();
        for _ in 0..7 {
            tx.send(Frozen::from_slice(&[1; 4096]).unwrap()).unwrap();
            drop(rx.recv().unwrap());
        }
        // Nothing more is sent, and nothing dropped.
        until_none_is_held();
        drop((tx, rx));
    });
}

fn memory_comes_back_when_nothing_is_read() {
    isolated(|| {
        for in_place in [false, true] {
            let mut build = Queue::<Frozen<u8>>::builder().message_size(128);
            build = match in_place {
                false => build.capacity(1000),
                true => build.in_place(1000),
            };
            let (mut tx, rx) = build.build().unwrap();
            let few = 200;
            for _ in 0..few {
                tx.send(Frozen::from_slice(&[1; 4096]).unwrap()).unwrap();
            }
            assert_eq!(arrays(), few);
            drop((tx, rx));
            until_none_is_held();
        }
        // The receiver is killed.
        let (mut tx, rx) = Queue::<Frozen<u8>>::new(8).unwrap();
        let child = Process::spawn(|_: Receiver<Frozen<u8>>| sleep_long(), (rx,)).unwrap();
        tx.send(Frozen::from_slice(&[1; 4096]).unwrap()).unwrap();
        child.kill().unwrap();
        child.join().unwrap_err();
        until_none_is_held();
    });
}

fn memory_comes_back_from_a_pipe() {
    isolated(|| {
        let (mut a, mut b) = Pipe::<Vec<Frozen<u8>>, ()>::new().unwrap();
        let array = || Frozen::from_slice(&[1; 4096]).unwrap();
        // Small ones, many in a line, and larger than a line.
        for count in [0, 1, 1, 2, 50] {
            a.send((0..count).map(|_| array()).collect()).unwrap();
            assert_eq!(arrays(), count);
            assert_eq!(b.recv().unwrap().len(), count);
            until_none_is_held();
        }
        a.send(vec![array()]).unwrap();
        drop(b);
        until_none_is_held();
    });
}

fn memory_of_cancelled_calls_comes_back() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        let slow = |array: Frozen<u8>| {
            std::thread::sleep(Duration::from_millis(20));
            array.len()
        };
        let tasks: Vec<_> = (0..50)
            .map(|_| pool.apply_async(slow, (Frozen::from_slice(&[1; 4096]).unwrap(),)))
            .collect();
        for task in &tasks {
            task.cancel();
        }
        drop(tasks);
        until_none_is_held();
        assert_eq!(pool.apply(|x: u64| x, (1,)).unwrap(), 1);
    });
}

fn results_of_workers_are_let_go() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        for many in [1, 300] {
            let make = |number: u64| numbered(number);
            let made = pool.map(make, 0..many).unwrap();
            for (number, array) in &made {
                assert_eq!(**array, [*number as u8; 100]);
            }
            // Taken from results that were looked at late, and from some that nobody looked at.
            let late = pool.map_async(make, 0..many);
            drop(pool.map_async(make, 0..many));
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(late.get().unwrap().len() as u64, many);
        }
        let held = |(): ()| arrays();
        wait_until(LONG, "the worker holds no array any more", || {
            pool.apply(held, ((),)).unwrap() == 0
        });
    });
}

fn a_stopped_receiver_has_time() {
    // What a receiver has taken it may decode later: when the sender has looked many times.
    isolated(|| {
        let (mut tx, mut rx) = Queue::<(Slow, Frozen<u8>)>::new(4).unwrap();
        tx.send((Slow, Frozen::from_slice(&[3; 10]).unwrap()))
            .unwrap();
        assert_eq!(*rx.recv().unwrap().1, [3; 10]);
        until_none_is_held();
        let (mut a, mut b) = Pipe::<(Slow, Frozen<u8>), ()>::new().unwrap();
        a.send((Slow, Frozen::from_slice(&[3; 10]).unwrap()))
            .unwrap();
        assert_eq!(*b.recv().unwrap().1, [3; 10]);
        until_none_is_held();
    });
}

/// Something that takes its time to be decoded.
struct Slow;

impl Serialize for Slow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        0_u8.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Slow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Slow, D::Error> {
        u8::deserialize(deserializer)?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(Slow)
    }
}

/// Something that is refused where it arrives.
struct Bad;

impl Serialize for Bad {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        0_u8.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bad {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Bad, D::Error> {
        Err(de::Error::custom("bad"))
    }
}

fn what_cannot_be_decoded_holds_nothing() {
    isolated(|| {
        let array = || Frozen::from_slice(&[1; 10]).unwrap();
        let is_bad = |error| match error {
            RecvError::Decode(error) => assert!(error.to_string().contains("bad"), "{error}"),
            other => panic!("{other}"),
        };
        // In front of a handle, behind one, and between two.
        let (mut tx, mut rx) = Queue::<(Bad, Frozen<u8>)>::new(4).unwrap();
        tx.send((Bad, array())).unwrap();
        is_bad(rx.recv().map(drop).unwrap_err());
        until_none_is_held();
        let (mut tx, mut rx) = Queue::<(Frozen<u8>, Bad, Frozen<u8>)>::new(4).unwrap();
        tx.send((array(), Bad, array())).unwrap();
        is_bad(rx.recv().map(drop).unwrap_err());
        until_none_is_held();
        let (mut a, mut b) = Pipe::<(Frozen<u8>, Bad), ()>::new().unwrap();
        a.send((array(), Bad)).unwrap();
        is_bad(b.recv().map(drop).unwrap_err());
        until_none_is_held();
    });
}

fn descriptors_short_for_a_while() {
    isolated(|| {
        setrlimit(Resource::RLIMIT_NOFILE, 128, 128).unwrap();
        let pool = Pool::new(2).unwrap();
        let make = |number: u64| Frozen::from_slice(&[number; 100]).map_err(|e| e.to_string());
        let results: Vec<_> = pool.imap(make, 0..400).collect();
        assert_eq!(results.len(), 400);
        let kept: Vec<_> = results.into_iter().filter_map(|r| r.ok()?.ok()).collect();
        assert!((10..400).contains(&kept.len()), "{}", kept.len());
        drop(kept);
        // Now there are enough, here; and there, as soon as the workers have looked.
        assert_eq!(pool.map(|x: u32| x + 1, 0..10).unwrap().len(), 10);
        wait_until(
            LONG,
            "workers have descriptors again",
            || matches!(pool.map(make, 0..10), Ok(made) if made.iter().all(Result::is_ok)),
        );
    });
}

fn a_lock_is_no_segment() {
    let lock = Lock::new(7_u64).unwrap();
    let (mut a, mut b) = Pipe::<Lock<u64>, ()>::new().unwrap();
    a.send(lock.clone()).unwrap();
    let handle = b.recv_bytes().unwrap();
    let (mut c, mut d) = Pipe::<(), Segment>::new().unwrap();
    d.send_bytes(&handle).unwrap();
    let error = c.recv().unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("segment holds lock"), "{why}");
    // Nor is a queue, or an array.
    let (mut a, mut b) = Pipe::<Frozen<u8>, ()>::new().unwrap();
    a.send(Frozen::from_slice(&[1]).unwrap()).unwrap();
    let handle = b.recv_bytes().unwrap();
    d.send_bytes(&handle).unwrap();
    assert!(matches!(c.recv(), Err(RecvError::Decode(_))));
    let segment = Segment::new(64).unwrap();
    let (mut a, mut b) = Pipe::<Segment, Segment>::new().unwrap();
    a.send(segment).unwrap();
    assert_eq!(b.recv().unwrap().len(), 64);
}

/// A segment whose handle stands in a text of another format.
struct Hidden(Segment);

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = postcard::to_allocvec(&self.0).map_err(ser::Error::custom)?;
        bytes.serialize(serializer)
    }
}

/// What another format makes of the bytes of a handle of ours.
struct Uncovered;

impl<'de> Deserialize<'de> for Uncovered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Uncovered, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let segment = postcard::from_bytes::<Segment>(&bytes);
        match segment {
            Ok(_) => Ok(Uncovered),
            Err(_) => Err(de::Error::custom("postcard has refused it")),
        }
    }
}

impl Serialize for Uncovered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Hidden, D::Error> {
        Err(de::Error::custom("never sent"))
    }
}

fn no_other_format_carries_handles() {
    isolated(|| {
        let (mut tx, _rx) = Queue::<Hidden>::builder()
            .message_size(512)
            .build()
            .unwrap();
        match tx.send(Hidden(Segment::new(64).unwrap())) {
            Err(SendError::Encode { .. }) => {}
            other => panic!("{other:?}"),
        }
        let (mut a, mut b) = Pipe::<(u8, Segment), Uncovered>::new().unwrap();
        a.send((0, Segment::new(64).unwrap())).unwrap();
        let message = b.recv_bytes().unwrap();
        let handle = &message[1..];
        assert!(postcard::from_bytes::<Segment>(handle).is_err());
        // As a sequence of bytes inside a message.
        let mut bytes = vec![handle.len() as u8];
        bytes.extend_from_slice(handle);
        b.send_bytes(&bytes).unwrap();
        match a.recv() {
            Err(RecvError::Decode(error)) => {
                assert!(
                    error.to_string().contains("postcard has refused it"),
                    "{error}"
                );
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("another format was given a segment"),
        }
    });
}

fn a_name_that_nobody_asked_for() {
    let name = fresh("unasked");
    let lock = Lock::create(&name, 5_u64).unwrap();
    let (mut tx, rx) = Queue::<Lock<u64>>::new(4).unwrap();
    tx.send(lock.clone()).unwrap();
    tx.send(lock.clone()).unwrap();
    let receive = |mut rx: Receiver<Lock<u64>>, name: String| {
        match rx.recv_timeout(LONG) {
            Err(RecvError::Decode(error)) => {
                assert!(error.to_string().contains("has not asked"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        let asked = Lock::<u64>::open(&name).unwrap();
        let received = rx.recv_timeout(LONG).unwrap();
        *received.lock().unwrap() += 1;
        drop(asked);
    };
    Process::spawn(receive, (rx, name)).unwrap().join().unwrap();
    // A parent may give what it likes.
    let given = |lock: Lock<u64>| *lock.lock().unwrap() += 1;
    Process::spawn(given, (lock.clone(),))
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(*lock.lock().unwrap(), 7);
}
