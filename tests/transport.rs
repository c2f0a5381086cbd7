//! What a peer, an iterator, or a type's own `Serialize`, `Deserialize` and `Drop` may do to a
//! queue or a pipe: nothing but what they do to their own message.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{
    DecodeError, EncodeError, Message, Pipe, PipeError, Plain, Queue, QueueError, Receiver,
    RecvError, SendError, Sender,
};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(60);
/// Short enough to wait for what does not happen.
const SHORT: Duration = Duration::from_millis(50);

/// Whether `act` panics. The message is printed, which does no harm.
fn panics(act: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(act)).is_err()
}

/// A queue whose messages lie in slots, and one whose messages lie in blocks.
fn both<T: Message>(capacity: usize) -> [(Sender<T>, Receiver<T>); 2] {
    let builder = || Queue::<T>::builder().capacity(capacity);
    [
        builder().build().unwrap(),
        builder().in_place(capacity).build().unwrap(),
    ]
}

// Iterators.

#[test]
fn an_endless_iterator_overwrites_nothing() {
    const CAPACITY: u64 = 8;
    for (mut tx, mut rx) in both::<u64>(CAPACITY as usize) {
        (0..5).for_each(|n| tx.try_send(n).unwrap());
        let received = Arc::new(AtomicU64::new(0));
        let seen = received.clone();
        let sender = thread::spawn(move || {
            // One in the hands of `send_many`, the rest in the lane.
            let ahead = move |n: &u64| {
                let most = seen.load(Ordering::SeqCst) + CAPACITY + 1;
                assert!(
                    *n <= most,
                    "{n} taken from the iterator, {most} at most find room"
                );
            };
            tx.send_many((5_u64..).inspect(ahead)).map_err(drop)
        });
        for n in 0..10_000 {
            received.store(n, Ordering::SeqCst);
            assert_eq!(rx.recv_timeout(LONG), Ok(n));
        }
        drop(rx);
        assert_eq!(sender.join().expect("no panic"), Err(()), "closed");
    }
}

#[test]
fn a_size_hint_may_say_anything() {
    struct Hint<I>(I, (usize, Option<usize>));
    impl<I: Iterator> Iterator for Hint<I> {
        type Item = I::Item;
        fn next(&mut self) -> Option<I::Item> {
            self.0.next()
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            self.1
        }
    }

    for least in [0, 1, 3, 1000, usize::MAX - 1, usize::MAX] {
        for (mut tx, mut rx) in both::<u64>(16) {
            tx.try_send(100).unwrap();
            assert_eq!(tx.send_many(Hint(0..10, (least, None))).unwrap(), 10);
            assert_eq!(rx.recv_timeout(LONG), Ok(100));
            (0..10).for_each(|n| assert_eq!(rx.recv_timeout(LONG), Ok(n)));
            assert_eq!(rx.try_recv(), Err(RecvError::Empty));
        }
    }
}

#[test]
fn what_was_taken_from_an_iterator_that_panics_is_sent() {
    for (mut tx, mut rx) in both::<u64>(64) {
        let mut values = (0..50_u64).inspect(|n| assert_ne!(*n, 20, "planned"));
        assert!(panics(|| drop(tx.send_many(&mut values))));
        (0..20).for_each(|n| assert_eq!(rx.try_recv(), Ok(n)));
        assert_eq!(rx.try_recv(), Err(RecvError::Empty));
        // 20 went with the panic.
        assert_eq!(tx.send_many(values).unwrap(), 29);
        (21..50).for_each(|n| assert_eq!(rx.try_recv(), Ok(n)));
    }
}

/// A text that panics when it is written, read or dropped, if it says so.
#[derive(Debug, PartialEq)]
struct Explosive(String);

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(self.0 != "dropped" || thread::panicking(), "planned");
    }
}

impl Serialize for Explosive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, "written", "planned");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Explosive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        assert!(!text.starts_with("read"), "planned");
        Ok(Explosive(text))
    }
}

fn explosives(texts: &[&str]) -> Vec<Explosive> {
    texts
        .iter()
        .map(|text| Explosive(text.to_string()))
        .collect()
}

#[test]
fn what_was_written_before_a_panic_in_serialize_or_drop_is_sent() {
    for fatal in ["written", "dropped"] {
        for (mut tx, mut rx) in both::<Explosive>(16) {
            let values = explosives(&["a", "b", fatal, "c"]);
            assert!(panics(|| drop(tx.send_many(values))));
            tx.try_send(Explosive("d".into())).unwrap();
            let mut found = Vec::new();
            while let Ok(value) = rx.try_recv() {
                found.push(value.0.clone());
                std::mem::forget(value);
            }
            let sent = match fatal {
                "dropped" => &["a", "b", "dropped", "d"][..],
                _ => &["a", "b", "d"],
            };
            assert_eq!(found, sent, "{fatal}");
        }
    }
}

// Types that panic while they are read.

#[test]
fn a_message_that_panics_who_reads_it_is_gone() {
    for (mut tx, mut rx) in both::<Explosive>(16) {
        tx.send_many(explosives(&["a", "read", "b"])).unwrap();
        assert_eq!(rx.try_recv().unwrap().0, "a");
        assert!(panics(|| drop(rx.try_recv())));
        assert_eq!(rx.try_recv().unwrap().0, "b");
        assert_eq!(rx.try_recv(), Err(RecvError::Empty));
        assert_eq!(rx.stats().received, 3);
    }
    // Of any size, for each way through a pipe has its own size.
    for length in [0, 50, 200, 100_000, 3 << 20] {
        let (mut a, mut b) = Pipe::<Explosive, ()>::builder().size(4096).build().unwrap();
        let sender = thread::spawn(move || {
            for text in ["read".to_string() + &"x".repeat(length), "b".into()] {
                a.send_timeout(Explosive(text), LONG).unwrap();
            }
        });
        assert!(panics(|| drop(b.recv_timeout(LONG))));
        assert_eq!(b.recv_timeout(LONG).unwrap().0, "b", "{length}");
        assert_eq!(b.try_recv(), Err(RecvError::Closed));
        sender.join().unwrap();
    }
}

#[test]
fn a_panic_in_a_batch_costs_its_own_message() {
    let texts: Vec<String> = (0..12)
        .map(|n| match n {
            3 | 4 | 9 => format!("read {n}"),
            _ => n.to_string(),
        })
        .collect();
    for (mut tx, mut rx) in both::<Explosive>(16) {
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        tx.send_many(explosives(&texts)).unwrap();
        // What is lost ends in an error, not in a wait.
        drop(tx);
        let mut panicked = 0;
        let mut found = Vec::new();
        while found.len() < 9 {
            // One by one, some at once, all at once.
            let most = 1 + found.len() % 3 * 6;
            let received = catch_unwind(AssertUnwindSafe(|| match most {
                1 => rx.try_recv().map(|value| vec![value]),
                most => rx.recv_many(most),
            }));
            match received {
                Ok(values) => found.extend(values.unwrap()),
                Err(_) => panicked += 1,
            }
        }
        assert_eq!(panicked, 3);
        let found: Vec<_> = found.iter().map(|value| value.0.as_str()).collect();
        assert_eq!(found, ["0", "1", "2", "5", "6", "7", "8", "10", "11"]);
        assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
    }
}

/// A `Plain` that panics if its first byte is 255.
#[derive(Debug, PartialEq)]
struct PlainExplosive(Plain<[u8; 16]>);

impl Serialize for PlainExplosive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PlainExplosive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Plain::<[u8; 16]>::deserialize(deserializer)?;
        assert_ne!(value.0[0], 255, "planned");
        Ok(PlainExplosive(value))
    }
}

#[test]
fn a_panic_in_a_batch_of_fixed_size_costs_its_own_message() {
    for (mut tx, mut rx) in both::<PlainExplosive>(16) {
        let value = |n: u8| PlainExplosive(Plain([n; 16]));
        tx.send_many([1, 2, 255, 3, 255, 4].map(value)).unwrap();
        assert!(panics(|| drop(rx.recv_many(16))));
        assert!(!rx.is_closed());
        assert_eq!(rx.try_recv(), Ok(value(1)));
        assert!(panics(|| drop(rx.recv_many(16))));
        assert_eq!(rx.recv_many(16), Ok([2, 3, 4].map(value).into()));
        drop(tx);
        assert!(rx.is_closed());
    }
}

// Types that write something else than they read.

thread_local! {
    /// The parts that the next [`Liar`] writes, by their lengths; none for the truth.
    static PARTS: Cell<&'static [usize]> = const { Cell::new(&[]) };
}

/// Reads as `Plain<[u8; N]>`, and writes what [`PARTS`] says.
#[derive(Debug, PartialEq)]
struct Liar<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Liar<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Part<'a>(&'a [u8]);
        impl Serialize for Part<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // One number a byte: a `Plain` of each length does not exist.
                match self.0 {
                    [byte] => serializer.serialize_u8(*byte),
                    bytes => serializer.serialize_newtype_struct("multiproc::Plain", &Bare(bytes)),
                }
            }
        }
        struct Bare<'a>(&'a [u8]);
        impl Serialize for Bare<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.0)
            }
        }
        let parts = PARTS.get();
        if parts.is_empty() {
            return Plain(self.0).serialize(serializer);
        }
        let mut bytes: &[u8] = &vec![self.0[0]; parts.iter().sum()];
        let mut tuple = serializer.serialize_tuple(parts.len())?;
        for part in parts {
            let (now, rest) = bytes.split_at(*part);
            tuple.serialize_element(&Part(now))?;
            bytes = rest;
        }
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Liar<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Plain::<[u8; N]>::deserialize(deserializer).map(|plain| Liar(plain.0))
    }
}

type TrySend<T> = Box<dyn FnMut(T) -> Result<(), SendError<T>>>;
type TryRecv<T> = Box<dyn FnMut() -> Result<T, RecvError>>;

/// Each list of lengths in turn, between honest messages; the lists with the right sum arrive.
fn lie<const N: usize>(lies: &[&'static [usize]]) {
    let queues = both::<Liar<N>>(4);
    let (mut a, mut b) = Pipe::<Liar<N>, ()>::builder().size(4096).build().unwrap();
    let mut ways: Vec<(TrySend<Liar<N>>, TryRecv<Liar<N>>)> = Vec::new();
    for (mut tx, mut rx) in queues {
        ways.push((
            Box::new(move |value| tx.try_send(value)),
            Box::new(move || rx.try_recv()),
        ));
    }
    if N <= 1024 {
        ways.push((
            Box::new(move |value| a.try_send(value)),
            Box::new(move || b.try_recv()),
        ));
    }
    for (send, recv) in &mut ways {
        for (turn, parts) in lies.iter().enumerate() {
            let written = parts.iter().sum();
            let [before, odd, after] = [1, 2, 3].map(|n| n + 3 * turn as u8);
            send(Liar([before; N])).unwrap();
            PARTS.set(parts);
            let sent = send(Liar([odd; N]));
            PARTS.set(&[]);
            send(Liar([after; N])).unwrap();
            assert_eq!(recv(), Ok(Liar([before; N])), "{N}: {parts:?}");
            if written == N {
                sent.unwrap();
                assert_eq!(recv(), Ok(Liar([odd; N])), "{N}: {parts:?}");
            } else {
                let error = EncodeError::WrongLength { written, needed: N };
                let Err(SendError::Encode {
                    value,
                    error: found,
                }) = sent
                else {
                    panic!("{N}: {parts:?}: {sent:?}");
                };
                assert_eq!((value, found), (Liar([odd; N]), error));
            }
            assert_eq!(recv(), Ok(Liar([after; N])), "{N}: {parts:?}");
            assert_eq!(recv(), Err(RecvError::Empty), "{N}: {parts:?}");
        }
    }
}

#[test]
fn another_length_than_the_type_reads_is_refused_and_nothing_is_sent() {
    lie::<4>(&[&[1], &[8], &[2, 2], &[1, 1, 1, 1], &[4, 1], &[1, 4], &[300]]);
    // Lengths whose tag would mean something else in a stream.
    lie::<8>(&[
        &[1],
        &[8],
        &[1, 7],
        &[9],
        &[1; 8],
        &[126],
        &[127],
        &[128],
        &[129],
        &[300],
    ]);
    lie::<40>(&[
        &[8],
        &[40],
        &[8, 32],
        &[40, 1],
        &[1, 40],
        &[48, 8],
        &[57],
        &[56],
        &[4000],
    ]);
    lie::<64>(&[
        &[8],
        &[64],
        &[8, 56],
        &[64, 1],
        &[1, 64],
        &[64, 64],
        &[63],
        &[65],
        &[9000],
    ]);
    lie::<300>(&[
        &[8],
        &[300],
        &[8, 292],
        &[300, 1],
        &[1, 300],
        &[300, 300],
        &[9000],
    ]);
    lie::<1024>(&[
        &[8],
        &[1024],
        &[24, 1000],
        &[1024, 1],
        &[1, 1024],
        &[1024, 1024],
        &[3000],
    ]);
    lie::<3000>(&[
        &[8],
        &[3000],
        &[1000, 2000],
        &[3000, 1],
        &[1, 3000],
        &[9000],
    ]);
}

#[test]
fn another_length_is_refused_in_the_middle_of_a_stream() {
    // Many times the ring, so most of it is on its way when the rest turns out to be wrong.
    const N: usize = 20_000;
    let (mut a, mut b) = Pipe::<Liar<N>, ()>::builder().size(4096).build().unwrap();
    let receiver = thread::spawn(move || {
        let first = [b.recv_timeout(LONG), b.recv_timeout(LONG)];
        (
            first.map(|value| value.map(|value| value.0[0])),
            b.try_recv().unwrap_err(),
        )
    });
    a.send_timeout(Liar([1; N]), LONG).unwrap();
    for parts in [&[N, 1][..], &[1, N], &[N - 1], &[N, N]] {
        PARTS.set(parts);
        let sent = a.send_timeout(Liar([2; N]), LONG);
        PARTS.set(&[]);
        let written = parts.iter().sum();
        let error = EncodeError::WrongLength { written, needed: N };
        assert!(matches!(sent, Err(SendError::Encode { error: found, .. }) if found == error));
    }
    a.send_timeout(Liar([3; N]), LONG).unwrap();
    drop(a);
    let (received, end) = receiver.join().unwrap();
    assert_eq!((received, end), ([Ok(1), Ok(3)], RecvError::Closed));
}

// Bytes that change while they are read.

/// Sees bytes as they lie while they are decoded, changes them in shared memory, and sees them
/// again.
#[derive(Debug)]
struct Watched;

/// How often the mark was written over.
static SCRIBBLED: AtomicU64 = AtomicU64::new(0);

const MARK: &[u8] = b"the mark of the message that is watched";

impl Serialize for Watched {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(MARK)
    }
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Watch;
        impl de::Visitor<'_> for Watch {
            type Value = Watched;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the mark")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Watched, E> {
                if bytes != MARK {
                    return Err(E::custom("not the mark"));
                }
                SCRIBBLED.fetch_add(scribble(), Ordering::SeqCst);
                // A volatile look: the compiler may believe that a slice does not change.
                let now: Vec<u8> = std::hint::black_box(bytes).to_vec();
                assert_eq!(now, MARK, "changed while it was decoded");
                Ok(Watched)
            }
        }
        deserializer.deserialize_bytes(Watch)
    }
}

/// Writes over the mark wherever it is in a queue's memory of this process, as a peer may; how
/// often.
fn scribble() -> u64 {
    let mut found = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        // Not the others: to open and close them may cost this process its proof of life.
        let is_queue = fs::read_link(&path)
            .is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:multiproc:queue"));
        if !is_queue {
            continue;
        }
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        for at in 0..bytes.len().saturating_sub(MARK.len()) {
            if bytes[at..].starts_with(MARK) {
                file.write_all_at(&[0xFF; MARK.len()], at as u64).unwrap();
                found += 1;
            }
        }
    }
    found
}

#[test]
fn what_is_decoded_is_private() {
    let builder = Queue::<Watched>::builder().capacity(4).senders(1);
    let (mut tx, mut rx) = builder.message_size(64).in_place(4).build().unwrap();
    let scribbled = || SCRIBBLED.load(Ordering::SeqCst);
    tx.send(Watched).unwrap();
    rx.recv_timeout(LONG).unwrap();
    assert_eq!(scribbled(), 1);
    // The other one, which was gathered before, too.
    tx.send_many([Watched, Watched]).unwrap();
    assert_eq!(rx.recv_many(2).unwrap().len(), 2);
    assert_eq!(scribbled(), 3);
    tx.send(Watched).unwrap();
    let lease = rx.lease_timeout(LONG).unwrap();
    lease.read().unwrap();
    assert_eq!(scribbled(), 4);
    // It was scribbled over, which the lease that reads it again sees.
    assert!(lease.read().is_err());
    lease.ack();
}

// Messages that receivers fail with.

fn delivery_limit(limit: usize) -> (Sender<String>, Receiver<String>) {
    let builder = Queue::<String>::builder().capacity(4).in_place(4);
    builder.delivery_limit(limit).build().unwrap()
}

#[test]
fn a_message_that_fails_its_receivers_is_given_up() {
    let (mut tx, mut rx) = delivery_limit(3);
    tx.send("poison".into()).unwrap();
    tx.send("good".into()).unwrap();
    for failures in 0..3 {
        // To be dropped without a panic counts for nothing.
        for _ in 0..20 {
            let lease = rx.try_lease().unwrap();
            assert_eq!(
                (lease.failures(), lease.read().as_deref()),
                (failures, Ok("poison"))
            );
        }
        assert!(panics(|| {
            let _lease = rx.try_lease().unwrap();
            panic!("planned");
        }));
    }
    let Err(RecvError::Undeliverable(given_up)) = rx.try_lease().map(drop) else {
        panic!("handed out a fourth time");
    };
    assert_eq!(
        (given_up.failures(), given_up.message()),
        (3, &b"poison"[..])
    );
    let lease = rx.try_lease().unwrap();
    assert_eq!((lease.failures(), lease.read().as_deref()), (0, Ok("good")));
    lease.ack();
    assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    assert_eq!(rx.stats().received, 2);
}

#[test]
fn who_receives_by_value_is_told_too() {
    let (mut tx, mut rx) = delivery_limit(1);
    tx.send("poison".into()).unwrap();
    let mut other = rx.try_clone().unwrap();
    assert!(panics(|| {
        let _lease = other.try_lease().unwrap();
        panic!("planned");
    }));
    drop(tx);
    assert!(!rx.is_closed());
    let told = rx.recv_timeout(LONG).unwrap_err();
    assert_eq!(
        told.to_string(),
        "1 receivers failed with the same message in their hands"
    );
    assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
}

#[test]
fn a_delivery_limit_is_1_to_255() {
    for asked in [0, 256, usize::MAX] {
        let error = Queue::<u8>::builder()
            .delivery_limit(asked)
            .build()
            .unwrap_err();
        assert!(
            matches!(error, QueueError::DeliveryLimit { asked: a, largest: 255 } if a == asked)
        );
    }
    delivery_limit(1);
    let (mut tx, mut rx) = delivery_limit(255);
    tx.send("poison".into()).unwrap();
    for _ in 0..255 {
        assert!(panics(|| {
            let _lease = rx.try_lease().unwrap();
            std::panic::resume_unwind(Box::new("planned"));
        }));
    }
    assert!(matches!(rx.try_lease(), Err(RecvError::Undeliverable(_))));
}

// Messages larger than a pipe allows.

#[test]
fn a_message_beyond_the_limit_is_refused_when_it_is_sent() {
    const LIMIT: usize = 100_000;
    let builder = Pipe::<Vec<u8>, (u32, String)>::builder().size(1 << 20);
    let (mut a, mut b) = builder.message_limit(LIMIT).build().unwrap();
    let expected = |error: SendError<Vec<u8>>| match error {
        SendError::TooLarge {
            value,
            needed,
            limit,
        } => (value.len(), needed, limit),
        other => panic!("{other:?}"),
    };
    let much = LIMIT + 1;
    let error = a.send(vec![1; much]).unwrap_err();
    assert_eq!(expected(error), (much, much, LIMIT));
    let error = a.try_send(vec![1; much]).unwrap_err();
    assert_eq!(expected(error), (much, much, LIMIT));
    assert!(matches!(
        a.send_bytes(&vec![1; much]),
        Err(SendError::TooLarge { limit: LIMIT, .. })
    ));
    a.try_send(vec![2; LIMIT]).unwrap();
    assert_eq!(b.try_recv(), Ok(vec![2; LIMIT]));
    // Of a type whose bytes are gathered piece by piece.
    for much in [LIMIT, 10 * LIMIT] {
        let sent = b.send_timeout((7, "x".repeat(much)), LONG);
        assert!(matches!(
            sent,
            Err(SendError::TooLarge { limit: LIMIT, .. })
        ));
    }
    b.send((7, "y".into())).unwrap();
    assert_eq!(a.try_recv(), Ok((7, "y".into())));
}

#[test]
fn a_message_beyond_the_limit_is_told_once_and_costs_no_memory() {
    const LIMIT: usize = 64 << 10;
    let name = format!("test-limit-{}", std::process::id());
    let mut listener = Pipe::<(), Vec<u8>>::builder()
        .message_limit(LIMIT)
        .listen(&name)
        .unwrap();
    // The caller has its own idea.
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let (stop, has_stopped) = std::sync::mpsc::channel::<()>();
    let caller = thread::spawn(move || {
        let mut end = Pipe::<(), Vec<u8>>::builder().connect(&name).unwrap();
        end.send_timeout(vec![1; LIMIT], LONG).unwrap();
        end.send_timeout(vec![2; 100 * LIMIT], LONG).unwrap();
        end.send_timeout(vec![3; LIMIT + 1], LONG).unwrap();
        end.send_timeout(vec![4; 10], LONG).unwrap();
        // Half of one that does not end: nobody reads meanwhile.
        let stopped = end.send_timeout(vec![5; 100 << 20], SHORT);
        assert!(matches!(stopped, Err(SendError::TimedOut(_))));
        stop.send(()).unwrap();
        told.recv().unwrap();
    });
    let mut end = listener.accept_timeout(LONG).unwrap();
    let too_large = RecvError::TooLarge { limit: LIMIT };
    assert_eq!(end.recv_timeout(LONG), Ok(vec![1; LIMIT]));
    assert_eq!(end.recv_timeout(LONG), Err(too_large.clone()));
    assert_eq!(
        end.recv_bytes_into(&mut vec![0; 2 * LIMIT]),
        Err(too_large.clone())
    );
    assert_eq!(end.recv_timeout(LONG), Ok(vec![4; 10]));
    has_stopped.recv_timeout(LONG).unwrap();
    assert_eq!(end.recv_timeout(LONG), Err(too_large));
    let start = Instant::now();
    assert_eq!(end.recv_timeout(SHORT), Err(RecvError::TimedOut));
    assert!(start.elapsed() < LONG);
    assert_eq!(end.try_recv(), Err(RecvError::Empty));
    tell.send(()).unwrap();
    caller.join().unwrap();
    assert_eq!(end.recv_timeout(LONG), Err(RecvError::Closed));
}

#[test]
fn a_message_limit_is_one_that_the_types_can_keep() {
    type Large = Plain<[u8; 2000]>;
    for asked in [0, 1999, (1 << 40) + 1] {
        let error = Pipe::<u8, Large>::builder()
            .message_limit(asked)
            .build()
            .unwrap_err();
        assert!(matches!(
            error,
            PipeError::MessageLimit { asked: a, smallest: 2000, largest } if a == asked && largest == 1 << 40
        ));
    }
    let (mut a, mut b) = Pipe::<Large, u8>::builder()
        .message_limit(2000)
        .build()
        .unwrap();
    a.send(Plain([1; 2000])).unwrap();
    assert_eq!(b.recv_timeout(LONG), Ok(Plain([1; 2000])));
}

// Values that are large at each of many levels.

#[derive(Serialize, Deserialize)]
struct Node {
    large: [[u64; 32]; 32],
    next: Option<Box<Node>>,
}

impl Node {
    fn chain(nodes: usize) -> Box<Node> {
        let node = |next| {
            Box::new(Node {
                large: [[1; 32]; 32],
                next,
            })
        };
        (1..nodes).fold(node(None), |next, _| node(Some(next)))
    }

    fn len(&self) -> usize {
        1 + self.next.as_ref().map_or(0, |next| next.len())
    }
}

#[test]
fn no_nesting_uses_up_the_stack() {
    fn with_stack<R: Send + 'static>(bytes: usize, act: impl FnOnce() -> R + Send + 'static) -> R {
        let thread = thread::Builder::new().stack_size(bytes);
        thread.spawn(act).unwrap().join().unwrap()
    }
    let (mut a, mut b) = Pipe::<Box<Node>, ()>::builder()
        .size(8 << 20)
        .build()
        .unwrap();
    // The most levels there may be: two for each node and four for the numbers in it.
    let a = with_stack(64 << 20, move || {
        (0..3).for_each(|_| a.try_send(Node::chain(120)).unwrap());
        a.try_send(Node::chain(2)).unwrap();
        a
    });
    let (mut b, received) = with_stack(2 << 20, move || {
        let received = b.try_recv().map(|node| node.len());
        (b, received)
    });
    let reserve = 64 << 10;
    let refused = Err(RecvError::Decode(DecodeError::NoStack { reserve }));
    assert_eq!(received, refused);
    let (mut b, received) = with_stack(256 << 10, move || {
        let received = b.try_recv().map(|node| node.len());
        (b, received)
    });
    assert_eq!(received, refused);
    // Where there is room it is read, as before.
    let mut b = with_stack(256 << 20, move || {
        assert_eq!(b.try_recv().map(|node| node.len()), Ok(120));
        b
    });
    assert_eq!(b.try_recv().map(|node| node.len()), Ok(2));
    drop(a);
}
