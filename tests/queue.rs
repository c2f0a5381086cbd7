//! What `Queue` promises, in one process: threads stand for processes wherever death is not the matter.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{
    EncodeError, Lease, LoanError, Message, Plain, Queue, QueueError, Receiver, RecvError,
    SendError, Sender,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(30);
/// Short enough to wait for what does not happen.
const SHORT: Duration = Duration::from_millis(50);

/// A value that cannot be written if it is odd, or read if it is 13 times something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Picky(u32);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 2 {
            0 => self.0.serialize(serializer),
            _ => Err(serde::ser::Error::custom("odd")),
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            value if value % 13 == 0 && value != 0 => Err(serde::de::Error::custom("unlucky")),
            value => Ok(Picky(value)),
        }
    }
}

fn round_trip<T: Message + PartialEq + Clone + std::fmt::Debug>(values: &[T]) {
    for in_place in [false, true] {
        let builder = Queue::<T>::builder().capacity(values.len());
        let built = match in_place {
            false => builder.build(),
            true => builder.in_place(values.len()).build(),
        };
        let (mut tx, mut rx) = built.unwrap();
        for value in values {
            tx.try_send(value.clone()).unwrap();
        }
        for value in values {
            assert_eq!(rx.try_recv().as_ref(), Ok(value));
        }
        assert_eq!(tx.send_many(values.to_vec()).unwrap(), values.len());
        let mut received = Vec::new();
        while received.len() < values.len() {
            received.extend(rx.recv_many(2).unwrap());
        }
        assert_eq!(received, values);
        assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    }
}

#[test]
fn all_kinds_of_values_travel() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Order {
        Stop,
        Move { x: f32, y: f32 },
        Say(String),
    }
    round_trip(&[0_u8, 255]);
    round_trip(&[u64::MAX, 0, 1]);
    round_trip(&[i128::MIN, 7]);
    round_trip(&[true, false]);
    round_trip(&['a', '\u{10ffff}']);
    round_trip(&[(), ()]);
    round_trip(&[[1.5_f64, -0.5], [0.0, 1.0]]);
    round_trip(&[String::new(), "x".repeat(256), "seven é".to_string()]);
    round_trip(&[vec![], vec![1_u8, 2, 3], vec![9; 256]]);
    round_trip(&[vec![1_u32, 2], vec![u32::MAX; 64]]);
    round_trip(&[(1_u8, "a".to_string(), Some(2.5)), (2, String::new(), None)]);
    round_trip(&[
        Order::Stop,
        Order::Move { x: 1.0, y: 2.0 },
        Order::Say("hi".into()),
    ]);
    round_trip(&[Plain([1_u64; 32]), Plain([2; 32])]);
    round_trip(&[Plain([1_u16; 1024]), Plain([2; 1024])]);
}

#[test]
fn messages_of_every_size_around_the_limits() {
    for limit in [1, 7, 8, 9, 255, 256, 257, 4096, 70_000] {
        let (mut tx, mut rx) = Queue::<Vec<u8>>::builder()
            .capacity(2)
            .message_size(limit)
            .build()
            .unwrap();
        for size in [0, 1, limit / 2, limit - 1, limit] {
            let value: Vec<u8> = (0..size).map(|n| n as u8).collect();
            tx.send(value.clone()).unwrap();
            assert_eq!(rx.recv(), Ok(value));
        }
        match tx.send(vec![7; limit + 1]) {
            Err(SendError::TooLarge {
                value,
                needed,
                limit: told,
            }) => {
                assert_eq!((value.len(), needed, told), (limit + 1, limit + 1, limit));
            }
            other => panic!("{other:?}"),
        }
        // Nothing of it is left.
        tx.send(vec![1]).unwrap();
        assert_eq!(rx.recv(), Ok(vec![1]));
        assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    }
}

#[test]
fn order_is_kept_per_sender_and_each_message_goes_to_one_receiver() {
    const EACH: u64 = 20_000;
    for (capacity, senders, receivers, batch) in [
        (1, 2, 2, 1),
        (2, 3, 2, 1),
        (3, 1, 3, 2),
        (8, 4, 4, 3),
        (1000, 2, 3, 40),
    ] {
        let (tx, rx) = Queue::<(u64, u64)>::new(capacity).unwrap();
        let mut threads = Vec::new();
        for sender in 0..senders {
            let mut tx = tx.try_clone().unwrap();
            threads.push(thread::spawn(move || match batch {
                1 => (0..EACH).for_each(|n| tx.send((sender, n)).unwrap()),
                _ => assert_eq!(
                    tx.send_many((0..EACH).map(|n| (sender, n))).unwrap() as u64,
                    EACH
                ),
            }));
        }
        let receivers: Vec<_> = (0..receivers)
            .map(|_| {
                let mut rx = rx.try_clone().unwrap();
                thread::spawn(move || {
                    let mut seen: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
                    loop {
                        match rx.recv_many(batch) {
                            Ok(values) => {
                                assert!((1..=batch).contains(&values.len()));
                                for (sender, n) in values {
                                    seen.entry(sender).or_default().push(n);
                                }
                            }
                            Err(RecvError::Closed) => return seen,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        drop((tx, rx));
        let mut all: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for receiver in receivers {
            for (sender, numbers) in receiver.join().unwrap() {
                assert!(numbers.is_sorted_by(|a, b| a < b), "out of order");
                all.entry(sender).or_default().extend(numbers);
            }
        }
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(all.len() as u64, senders);
        for numbers in all.values_mut() {
            numbers.sort_unstable();
            assert!(numbers.iter().copied().eq(0..EACH), "lost or repeated");
        }
    }
}

#[test]
fn full_is_exact_and_gives_the_value_back() {
    for capacity in [1, 2, 3, 5, 8, 100] {
        let (mut tx, mut rx) = Queue::<String>::new(capacity).unwrap();
        assert_eq!(tx.capacity(), capacity);
        assert_eq!(rx.capacity(), capacity);
        for round in 0..3 {
            for n in 0..capacity {
                tx.try_send(format!("{round} {n}")).unwrap();
            }
            match tx.try_send("one more".to_string()) {
                Err(SendError::Full(value)) => assert_eq!(value, "one more"),
                other => panic!("{other:?}"),
            }
            assert_eq!(tx.len(), capacity);
            assert_eq!(rx.recv().unwrap(), format!("{round} 0"));
            tx.try_send("one more".to_string()).unwrap();
            for n in 1..capacity {
                assert_eq!(rx.recv().unwrap(), format!("{round} {n}"));
            }
            assert_eq!(rx.recv().unwrap(), "one more");
            assert_eq!(rx.try_recv(), Err(RecvError::Empty));
            assert!(rx.is_empty() && tx.is_empty());
        }
    }
}

#[test]
fn timed_calls_end_in_time() {
    let (mut tx, mut rx) = Queue::<u64>::new(1).unwrap();
    let start = Instant::now();
    assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
    assert!(start.elapsed() >= SHORT);
    tx.send_timeout(1, SHORT).unwrap();
    let start = Instant::now();
    assert_eq!(tx.send_timeout(2, SHORT), Err(SendError::TimedOut(2)));
    assert!(start.elapsed() >= SHORT);
    assert_eq!(
        tx.send_timeout(2, Duration::ZERO),
        Err(SendError::TimedOut(2))
    );
    assert_eq!(rx.recv_timeout(LONG), Ok(1));
    assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvError::TimedOut));
    tx.send(3).unwrap();
    assert_eq!(rx.recv_timeout(Duration::MAX), Ok(3));
    assert!(start.elapsed() < LONG);
}

#[test]
fn waits_end_when_there_is_something() {
    let (mut tx, mut rx) = Queue::<u64>::new(1).unwrap();
    let receiver = thread::spawn(move || {
        let first = rx.recv();
        (first, rx)
    });
    thread::sleep(SHORT);
    tx.send(1).unwrap();
    let (first, mut rx) = receiver.join().unwrap();
    assert_eq!(first, Ok(1));

    tx.send(2).unwrap();
    let sender = thread::spawn(move || tx.send(3).map(|()| tx));
    thread::sleep(SHORT);
    assert_eq!(rx.recv(), Ok(2));
    assert_eq!(rx.recv(), Ok(3));
    sender.join().unwrap().unwrap();
}

#[test]
fn a_sender_blocked_on_a_large_lane_goes_on_after_one_receive() {
    let (mut tx, mut rx) = Queue::<u64>::new(1024).unwrap();
    tx.send_many(0..1024).unwrap();
    let start = Instant::now();
    let sender = thread::spawn(move || tx.send(1024).map(|()| tx));
    thread::sleep(SHORT);
    assert_eq!(rx.recv(), Ok(0));
    sender.join().unwrap().unwrap();
    assert!(start.elapsed() < LONG);
}

#[test]
fn closed_after_the_last_sender_and_the_last_message() {
    let (mut tx, mut rx) = Queue::<u64>::new(8).unwrap();
    let mut other = tx.try_clone().unwrap();
    tx.send(1).unwrap();
    drop(tx);
    assert!(!rx.is_closed());
    assert_eq!(rx.recv(), Ok(1));
    assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    other.send(2).unwrap();
    drop(other);
    assert!(!rx.is_closed());
    assert_eq!(rx.try_recv(), Ok(2));
    assert!(rx.is_closed());
    assert_eq!(rx.try_recv(), Err(RecvError::Closed));
    assert_eq!(rx.recv(), Err(RecvError::Closed));
    assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
    assert_eq!(rx.recv_many(3), Err(RecvError::Closed));
    assert_eq!(rx.iter().next(), None);
    let mut late = rx.try_clone().unwrap();
    assert_eq!(late.recv(), Err(RecvError::Closed));
}

#[test]
fn closed_only_when_nothing_is_in_lanes_that_came_later() {
    let (tx, mut rx) = Queue::<u64>::new(8).unwrap();
    let mut late = tx.try_clone().unwrap();
    late.send(1).unwrap();
    drop((tx, late));
    assert!(!rx.is_closed());
    assert_eq!(rx.recv(), Ok(1));
    assert!(rx.is_closed());
}

#[test]
fn closed_after_the_last_receiver() {
    let (mut tx, rx) = Queue::<String>::new(8).unwrap();
    let other = rx.try_clone().unwrap();
    drop(rx);
    assert!(!tx.is_closed());
    tx.send("received or not".to_string()).unwrap();
    drop(other);
    assert!(tx.is_closed());
    for result in [
        tx.send("a".to_string()),
        tx.try_send("a".to_string()),
        tx.send_timeout("a".to_string(), LONG),
    ] {
        assert_eq!(result, Err(SendError::Closed("a".to_string())));
    }
    let mut left = ["a".to_string(), "b".to_string()].into_iter();
    assert_eq!(
        tx.send_many(&mut left),
        Err(SendError::Closed("a".to_string()))
    );
    assert_eq!(left.next().as_deref(), Some("b"));
    let mut late = tx.try_clone().unwrap();
    assert_eq!(
        late.send("b".to_string()),
        Err(SendError::Closed("b".to_string()))
    );
}

#[test]
fn those_who_wait_hear_that_the_others_are_gone() {
    let (tx, rx) = Queue::<u64>::new(1).unwrap();
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let mut rx = rx.try_clone().unwrap();
            thread::spawn(move || rx.recv())
        })
        .collect();
    thread::sleep(SHORT);
    let start = Instant::now();
    drop(tx);
    for receiver in receivers {
        assert_eq!(receiver.join().unwrap(), Err(RecvError::Closed));
    }
    assert!(start.elapsed() < LONG);

    let (tx, rx) = Queue::<u64>::new(1).unwrap();
    let senders: Vec<_> = (0..3)
        .map(|_| {
            let mut tx = tx.try_clone().unwrap();
            tx.send(1).unwrap();
            thread::spawn(move || tx.send(2))
        })
        .collect();
    thread::sleep(SHORT);
    let start = Instant::now();
    drop(rx);
    for sender in senders {
        assert_eq!(sender.join().unwrap(), Err(SendError::Closed(2)));
    }
    assert!(start.elapsed() < LONG);
}

#[test]
fn cloning_and_dropping_senders_never_looks_like_the_end() {
    // A scan that passes a lane before a clone comes to it, and the next after its original left, sees nobody.
    let (mut tx, mut rx) = Queue::<u64>::new(4).unwrap();
    let relay = thread::spawn(move || {
        for n in 0..20_000 {
            let mut next = tx.try_clone().unwrap();
            next.send(n).unwrap();
            tx = next;
        }
    });
    let mut received: Vec<u64> = (0..20_000).map(|_| rx.recv().unwrap()).collect();
    relay.join().unwrap();
    assert_eq!(rx.recv(), Err(RecvError::Closed));
    received.sort_unstable();
    assert!(received.into_iter().eq(0..20_000));
}

#[test]
fn ends_are_limited_and_their_places_used_again() {
    let (tx, rx) = Queue::<u64>::builder()
        .senders(2)
        .receivers(3)
        .build()
        .unwrap();
    for _ in 0..10 {
        let mut second = tx.try_clone().unwrap();
        assert!(matches!(
            tx.try_clone(),
            Err(QueueError::TooManySenders { limit: 2 })
        ));
        second.send(1).unwrap();
        let others = (rx.try_clone().unwrap(), rx.try_clone().unwrap());
        assert!(matches!(
            rx.try_clone(),
            Err(QueueError::TooManyReceivers { limit: 3 })
        ));
        drop(others);
    }
    assert_eq!(tx.len(), 10);
}

#[test]
fn a_place_taken_up_keeps_what_the_last_one_sent() {
    let (tx, mut rx) = Queue::<u64>::builder()
        .capacity(4)
        .senders(2)
        .build()
        .unwrap();
    for n in 0..4 {
        let mut short_lived = tx.try_clone().unwrap();
        short_lived.try_send(n).unwrap();
    }
    let mut fifth = tx.try_clone().unwrap();
    assert_eq!(fifth.try_send(4), Err(SendError::Full(4)));
    assert_eq!(rx.recv(), Ok(0));
    fifth.try_send(4).unwrap();
    drop((tx, fifth));
    assert_eq!(rx.iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn impossible_numbers_are_refused_by_name() {
    let text = |error: QueueError| error.to_string();
    let builder = Queue::<u64>::builder;
    assert_eq!(
        text(builder().capacity(0).build().unwrap_err()),
        "invalid capacity 0 (1 to 4294967296 messages)"
    );
    assert!(matches!(
        builder().message_size(7).build(),
        Err(QueueError::MessageSize {
            asked: 7,
            smallest: 8,
            ..
        })
    ));
    assert!(matches!(
        Queue::<String>::builder().message_size(usize::MAX).build(),
        Err(QueueError::MessageSize {
            asked: usize::MAX,
            smallest: 0,
            ..
        })
    ));
    assert!(matches!(
        builder().senders(0).build(),
        Err(QueueError::Senders { asked: 0, .. })
    ));
    assert!(matches!(
        builder().senders(1 << 40).build(),
        Err(QueueError::Senders {
            largest: 65_536,
            ..
        })
    ));
    assert!(matches!(
        builder().receivers(0).build(),
        Err(QueueError::Receivers { .. })
    ));
    assert!(matches!(
        builder().in_place(0).build(),
        Err(QueueError::Blocks { asked: 0, .. })
    ));
    // Possible numbers, but no machine has the memory: an error, not a crash later.
    for huge in [
        Queue::<String>::builder()
            .capacity(1 << 32)
            .message_size(1 << 40),
        Queue::<String>::builder()
            .capacity(1 << 30)
            .message_size(256)
            .senders(65_536),
    ] {
        let error = huge.build().unwrap_err();
        assert!(matches!(error, QueueError::Segment(_)), "{error}");
    }
}

#[test]
fn memory_is_allocated_when_a_lane_is_taken() {
    /// Bytes allocated to the one queue that this test's thread has just made.
    fn allocated(mark: &str) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        fds.filter_map(|fd| {
            let target = std::fs::read_link(fd.path()).ok()?;
            let file = std::fs::metadata(fd.path()).ok()?;
            let wanted =
                target.to_str()?.contains("multiproc:queue") && file.len().to_string() == mark;
            wanted.then(|| file.blocks() * 512)
        })
        .sum()
    }
    // A length that no other test's queue has.
    let (tx, _rx) = Queue::<u64>::builder()
        .capacity(100_003)
        .senders(7)
        .build()
        .unwrap();
    let lane = 131_072 * 16 + 4096;
    // In front of the lanes, two pages.
    let length = (lane * 7 + 8192).to_string();
    let one = allocated(&length);
    assert!((lane..lane + 12288).contains(&one), "{one}");
    let _second = tx.try_clone().unwrap();
    let two = allocated(&length);
    assert!((2 * lane..2 * lane + 12288).contains(&two), "{two}");
    // A place used again needs no more.
    drop(_second);
    let _third = tx.try_clone().unwrap();
    assert_eq!(allocated(&length), two);
}

#[test]
fn what_cannot_be_written_is_given_back() {
    let (mut tx, mut rx) = Queue::<Picky>::new(4).unwrap();
    match tx.send(Picky(1)) {
        Err(SendError::Encode {
            value: Picky(1),
            error: EncodeError::Refused(why),
        }) => {
            assert_eq!(why, "odd");
        }
        other => panic!("{other:?}"),
    }
    // What came before it is sent, what comes after is still there.
    let mut values = [2, 4, 5, 6].map(Picky).into_iter();
    assert_eq!(
        tx.send_many(&mut values).unwrap_err().into_value(),
        Picky(5)
    );
    assert_eq!(values.next(), Some(Picky(6)));
    assert_eq!(rx.recv(), Ok(Picky(2)));
    assert_eq!(rx.recv(), Ok(Picky(4)));
    assert_eq!(rx.try_recv(), Err(RecvError::Empty));
}

#[test]
fn what_cannot_be_read_is_told_once_and_the_rest_received() {
    for in_place in [false, true] {
        let builder = Queue::<Picky>::builder().capacity(8);
        let (mut tx, mut rx) = match in_place {
            false => builder.build().unwrap(),
            true => builder.in_place(8).build().unwrap(),
        };
        tx.send_many([2, 26, 4].map(Picky)).unwrap();
        assert_eq!(rx.recv(), Ok(Picky(2)));
        assert!(matches!(rx.recv(), Err(RecvError::Decode(_))));
        assert_eq!(rx.recv(), Ok(Picky(4)));

        tx.send_many([2, 26, 4, 52].map(Picky)).unwrap();
        let mut good = Vec::new();
        let mut bad = 0;
        while good.len() < 2 || bad == 0 {
            match rx.recv_many(8) {
                Ok(values) => good.extend(values),
                Err(RecvError::Decode(_)) => bad += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(good, [Picky(2), Picky(4)]);

        while !matches!(rx.try_recv(), Err(RecvError::Empty)) {}
        tx.send_many([2, 26].map(Picky)).unwrap();
        assert_eq!(rx.iter().collect::<Vec<_>>(), [Picky(2)]);
        assert!(matches!(rx.try_recv(), Err(RecvError::Decode(_))));
    }
}

#[test]
fn many_are_sent_and_received_at_once() {
    let (mut tx, mut rx) = Queue::<u64>::new(1000).unwrap();
    assert_eq!(tx.send_many(Vec::new()).unwrap(), 0);
    assert_eq!(tx.send_many(0..1000).unwrap(), 1000);
    assert_eq!(rx.recv_many(0), Ok(vec![]));
    let some = rx.recv_many(10).unwrap();
    assert_eq!(some, (0..10).collect::<Vec<_>>());
    let mut rest = Vec::new();
    while rest.len() < 990 {
        let more = rx.recv_many(usize::MAX).unwrap();
        assert!(!more.is_empty());
        rest.extend(more);
    }
    assert_eq!(rest, (10..1000).collect::<Vec<_>>());

    // An iterator that promises nothing may itself wait for what was sent: each value goes at once.
    let (mut tx, mut rx) = Queue::<u64>::new(1000).unwrap();
    let mut next = 0;
    let echo = std::iter::from_fn(|| {
        if next > 0 {
            assert_eq!(rx.recv(), Ok(next - 1));
        }
        next += 1;
        (next <= 10).then_some(next - 1)
    });
    assert_eq!(tx.send_many(echo).unwrap(), 10);
}

#[test]
fn stats_count_what_went_through() {
    let (mut tx, mut rx) = Queue::<u64>::new(4).unwrap();
    let mut other = tx.try_clone().unwrap();
    tx.send_many(0..4).unwrap();
    other.send(9).unwrap();
    rx.recv().unwrap();
    rx.recv().unwrap();
    let stats = rx.stats();
    assert_eq!((stats.sent, stats.received, stats.redelivered), (5, 2, 0));
    assert_eq!((tx.len(), rx.len()), (3, 3));
    let waits = stats.waits;
    while tx.try_send(1).is_ok() {}
    assert_eq!(tx.send_timeout(3, SHORT), Err(SendError::TimedOut(3)));
    assert!(tx.stats().waits > waits);
}

/// A queue whose messages lie in blocks, as many as may be in flight.
fn in_place<T: Message>(blocks: usize) -> (Sender<T>, Receiver<T>) {
    Queue::<T>::builder()
        .capacity(blocks)
        .in_place(blocks)
        .build()
        .unwrap()
}

#[test]
fn loans_are_sent_when_committed() {
    let (mut tx, mut rx) = in_place::<Plain<[u64; 64]>>(2);
    let mut loan = tx.loan().unwrap();
    loan[0] = 7;
    loan[63] = 8;
    assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    loan.commit().unwrap();
    drop(tx.loan().unwrap());
    let lease = rx.lease().unwrap();
    assert_eq!((lease[0], lease.get()[63]), (7, 8));
    assert!(!lease.redelivered());
    lease.ack();
    assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    assert_eq!(tx.stats().sent, 1);

    // Sent by loan or by value, received by lease or by value.
    tx.send(Plain([3; 64])).unwrap();
    assert_eq!(rx.lease().map(|lease| lease[5]), Ok(3));
    let mut rx = rx;
    assert_eq!(rx.recv().map(|Plain(values)| values[5]), Ok(3));
}

#[test]
fn a_slice_is_lent_whole_and_sent_as_long_as_it_was_left() {
    let (mut tx, mut rx) = Queue::<Vec<u32>>::builder()
        .message_size(1003)
        .in_place(2)
        .build()
        .unwrap();
    let mut loan = tx.loan().unwrap();
    assert_eq!(loan.len(), 250);
    loan.fill(5);
    loan.truncate(1000);
    loan.truncate(3);
    assert_eq!(*loan, [5, 5, 5]);
    loan.commit().unwrap();
    assert_eq!(rx.recv(), Ok(vec![5, 5, 5]));
    let mut loan = tx.loan().unwrap();
    loan.truncate(0);
    loan.commit().unwrap();
    let lease = rx.lease().unwrap();
    assert_eq!(*lease, []);
    assert_eq!(lease.read(), Ok(vec![]));
    lease.ack();
}

#[test]
fn loans_are_aligned_for_their_type() {
    #[derive(Clone, Copy, PartialEq, Debug, bytemuck::NoUninit, bytemuck::AnyBitPattern)]
    #[repr(C, align(128))]
    struct Lines([u8; 128]);

    let (mut tx, mut rx) = in_place::<Plain<Lines>>(3);
    for n in 0..7 {
        let mut loan = tx.loan().unwrap();
        assert_eq!((&raw const *loan).addr() % 128, 0);
        loan.0[127] = n;
        loan.commit().unwrap();
        let lease = rx.lease().unwrap();
        assert_eq!((&raw const *lease).addr() % 128, 0);
        assert_eq!(lease.0[127], n);
        lease.ack();
    }
}

#[test]
fn a_lease_not_acknowledged_goes_to_another_receiver() {
    let (mut tx, mut rx) = in_place::<u64>(4);
    let mut other = rx.try_clone().unwrap();
    tx.send_many(0..3).unwrap();
    let first = rx.lease().unwrap();
    let second = rx.lease().unwrap();
    drop(first);
    // What was given back comes first.
    let again = other.lease().unwrap();
    assert_eq!((*again, again.redelivered()), (0, true));
    drop(again);
    let again = other.lease().unwrap();
    assert_eq!((*again, again.redelivered()), (0, true));
    again.ack();
    assert_eq!(other.recv(), Ok(2));
    assert_eq!(*second, 1);
    second.ack();
    assert_eq!(other.stats().redelivered, 2);
    // A value received by `recv` was given back before; it is received like any other.
    tx.send(7).unwrap();
    drop(rx.lease().unwrap());
    assert_eq!(other.recv(), Ok(7));
    drop(tx);
    assert_eq!(rx.recv(), Err(RecvError::Closed));
}

#[test]
fn someone_who_sleeps_is_woken_by_what_is_given_back() {
    let (mut tx, mut rx) = in_place::<u64>(4);
    let mut other = rx.try_clone().unwrap();
    tx.send(5).unwrap();
    let lease = rx.lease().unwrap();
    let sleeper = thread::spawn(move || other.recv());
    thread::sleep(SHORT);
    drop(lease);
    assert_eq!(sleeper.join().unwrap(), Ok(5));
}

#[test]
fn leased_blocks_are_not_written_and_the_others_are_used() {
    let (mut tx, mut rx) = in_place::<u64>(3);
    tx.send_many([1, 2, 3]).unwrap();
    let kept = rx.lease().unwrap();
    assert_eq!(rx.recv(), Ok(2));
    assert_eq!(rx.recv(), Ok(3));
    for n in 0..100 {
        tx.try_send(n).unwrap();
        tx.try_send(n + 1).unwrap();
        assert!(matches!(tx.try_send(0), Err(SendError::Full(0))));
        assert!(matches!(tx.try_loan(), Err(LoanError::Full)));
        assert!(matches!(
            tx.loan_timeout(Duration::ZERO),
            Err(LoanError::TimedOut)
        ));
        assert_eq!(rx.recv(), Ok(n));
        assert_eq!(rx.recv(), Ok(n + 1));
    }
    assert_eq!(*kept, 1);
    tx.send_many([4, 5]).unwrap();
    let waiting = thread::spawn(move || tx.send(6).map(|()| tx));
    thread::sleep(SHORT);
    kept.ack();
    waiting.join().unwrap().unwrap();
    assert_eq!(rx.recv_many(9).unwrap(), [4, 5, 6]);
}

#[test]
fn any_message_can_be_leased() {
    let (mut tx, mut rx) = in_place::<(u32, String)>(2);
    tx.send((1, "task".to_string())).unwrap();
    drop(rx.lease().unwrap());
    let lease: Lease<_> = rx.lease_timeout(LONG).unwrap();
    assert!(lease.redelivered());
    assert_eq!(lease.read(), Ok((1, "task".to_string())));
    lease.ack();
    assert!(matches!(rx.try_lease(), Err(RecvError::Empty)));
    assert!(matches!(
        rx.lease_timeout(Duration::ZERO),
        Err(RecvError::TimedOut)
    ));
}

#[test]
fn only_queues_in_place_lend() {
    let (mut tx, mut rx) = Queue::<u64>::new(2).unwrap();
    assert!(matches!(tx.loan(), Err(LoanError::NotInPlace)));
    assert!(matches!(rx.lease(), Err(RecvError::NotInPlace)));
}

#[test]
fn the_end_waits_for_what_others_have_leased() {
    let (mut tx, mut rx) = in_place::<u64>(4);
    let mut other = rx.try_clone().unwrap();
    tx.send(1).unwrap();
    let lease = rx.lease().unwrap();
    drop(tx);
    // It may come back.
    assert_eq!(other.try_recv(), Err(RecvError::Empty));
    assert!(!other.is_closed());
    // Who has it does not wait for himself.
    assert_eq!(rx.recv(), Err(RecvError::Closed));
    drop(lease);
    assert_eq!(other.recv(), Ok(1));
    assert_eq!(other.recv(), Err(RecvError::Closed));

    let (mut tx, mut rx) = in_place::<u64>(4);
    let mut other = rx.try_clone().unwrap();
    tx.send(1).unwrap();
    let lease = rx.lease().unwrap();
    drop(tx);
    let waiting = thread::spawn(move || other.recv());
    thread::sleep(SHORT);
    lease.ack();
    assert_eq!(waiting.join().unwrap(), Err(RecvError::Closed));
}

#[test]
fn a_loan_is_refused_when_nobody_is_left() {
    let (mut tx, rx) = in_place::<u64>(4);
    let loan = tx.loan().unwrap();
    drop(rx);
    assert_eq!(loan.commit(), Err(LoanError::Closed));
    assert!(matches!(tx.loan(), Err(LoanError::Closed)));
}

#[test]
fn blocks_under_load_lose_and_repeat_nothing() {
    const EACH: u64 = 20_000;
    let (tx, rx) = Queue::<Vec<u64>>::builder()
        .capacity(16)
        .message_size(800)
        .in_place(5)
        .build()
        .unwrap();
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            let mut tx = tx.try_clone().unwrap();
            thread::spawn(move || {
                for n in 0..EACH {
                    let mut loan = tx.loan().unwrap();
                    loan.truncate(1 + (n % 100) as usize);
                    loan.fill(sender * EACH + n);
                    loan.commit().unwrap();
                }
            })
        })
        .collect();
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let mut rx = rx.try_clone().unwrap();
            thread::spawn(move || {
                let mut done = Vec::new();
                let mut dropped = 0;
                loop {
                    let lease = match rx.lease() {
                        Ok(lease) => lease,
                        Err(RecvError::Closed) => return (done, dropped),
                        Err(error) => panic!("{error}"),
                    };
                    let n = lease[0];
                    assert_eq!(lease.len() as u64, 1 + (n % EACH) % 100);
                    assert!(lease.iter().all(|&word| word == n), "torn");
                    if n % 7 == 0 && !lease.redelivered() {
                        dropped += 1;
                        continue;
                    }
                    lease.ack();
                    done.push(n);
                }
            })
        })
        .collect();
    drop((tx, rx));
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
    let mut all = Vec::new();
    let mut dropped = 0;
    for receiver in receivers {
        let (done, given_back) = receiver.join().unwrap();
        all.extend(done);
        dropped += given_back;
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..2 * EACH), "lost or repeated");
    assert_eq!(dropped, (0..2 * EACH).filter(|n| n % 7 == 0).count());
}

#[test]
fn ends_travel_in_messages() {
    let (mut ends_tx, mut ends_rx) = Queue::<(Sender<u64>, Receiver<String>)>::new(2).unwrap();
    let (numbers, mut told) = Queue::<u64>::new(4).unwrap();
    let (mut texts, text) = Queue::<String>::new(4).unwrap();
    ends_tx.send((numbers, text)).unwrap();
    // The originals are gone, and nobody sees the end: both are on their way.
    assert_eq!(told.try_recv(), Err(RecvError::Empty));
    assert!(!told.is_closed() && !texts.is_closed());
    texts.send("hello".to_string()).unwrap();

    let (mut numbers, mut text) = ends_rx.recv().unwrap();
    numbers.send(5).unwrap();
    assert_eq!(told.recv(), Ok(5));
    assert_eq!(text.recv().as_deref(), Ok("hello"));
    drop((numbers, text));
    assert_eq!(told.recv(), Err(RecvError::Closed));
    assert!(texts.is_closed());
}

#[test]
fn an_end_that_is_not_sent_leaves_nothing_behind() {
    let (mut ends, ends_rx) = Queue::<Sender<u64>>::builder().capacity(1).build().unwrap();
    let (tx, mut rx) = Queue::<u64>::builder().senders(4).build().unwrap();
    ends.send(tx.try_clone().unwrap()).unwrap();
    for _ in 0..10 {
        let back = ends.try_send(tx.try_clone().unwrap()).unwrap_err();
        drop(back.into_value());
    }
    // Encoded, but too large.
    let (mut small, _small_rx) = Queue::<Sender<u64>>::builder()
        .message_size(4)
        .build()
        .unwrap();
    for _ in 0..10 {
        let back = small.send(tx.try_clone().unwrap()).unwrap_err();
        assert!(matches!(back, SendError::TooLarge { limit: 4, .. }));
    }
    // Outside a message there is no way to send it.
    for _ in 0..10 {
        assert!(serde_like_outside(&tx).is_err());
    }
    drop(tx.try_clone().unwrap());
    drop(tx);
    // One is still on its way.
    assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    // And is given back when nobody is left who could take it.
    drop(ends_rx);
    assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
}

fn serde_like_outside<T: Serialize>(value: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_allocvec(value)
}

#[test]
fn a_panic_while_writing_leaves_the_queue_usable() {
    struct Panics(Option<Sender<u64>>);

    impl Serialize for Panics {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match &self.0 {
                Some(tx) => (tx, Explodes).serialize(serializer),
                None => ().serialize(serializer),
            }
        }
    }

    struct Explodes;

    impl Serialize for Explodes {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("while writing")
        }
    }

    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            <()>::deserialize(deserializer).map(|()| Panics(None))
        }
    }

    let (mut tx, mut rx) = Queue::<Panics>::new(2).unwrap();
    let (inner, mut inner_rx) = Queue::<u64>::new(2).unwrap();
    let bad = Panics(Some(inner));
    catch_unwind(AssertUnwindSafe(|| tx.send(bad).is_ok())).unwrap_err();
    // The sender inside was dropped by the panic, and what was reserved for its copy was given back.
    assert_eq!(inner_rx.try_recv(), Err(RecvError::Closed));
    tx.send(Panics(None)).unwrap();
    rx.recv().unwrap();
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
}

#[test]
fn ends_may_be_moved_to_threads_and_shown() {
    fn is_send<T: Send + Sync>(_: &T) {}
    let (tx, rx) = Queue::<u64>::new(2).unwrap();
    is_send(&tx);
    is_send(&rx);
    assert_eq!(
        format!("{tx:?} {rx:?}"),
        "Sender { lane: 0, .. } Receiver { seat: 0, .. }"
    );
    assert_eq!(format!("{:?}", SendError::Full(vec![1])), "Full(..)");
    let too_large = SendError::TooLarge {
        value: 1,
        needed: 300,
        limit: 256,
    };
    assert_eq!(
        too_large.to_string(),
        "the value has 300 bytes, a message may have 256 (set `message_limit` to more)"
    );
}
