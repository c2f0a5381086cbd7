//! What may be sent: values of any length, and no type that could not be read.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use multiproc::{EncodeError, Frozen, Message, Pool, Process, Queue, SendError, Sender, TaskError};
use multiproc_tests::whole;
use serde::de::{Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

const DEADLINE: Duration = Duration::from_secs(60);

/// What comes of the first value of a type: its name and the part that cannot be read, if it is refused.
fn refusal<T: Message + fmt::Debug>(value: T) -> Option<(String, String)> {
    let (mut tx, mut rx) = Queue::<T>::builder().message_size(1000).build().unwrap();
    match tx.send(value) {
        Ok(()) => {
            rx.recv_timeout(DEADLINE).unwrap();
            None
        }
        Err(SendError::Encode { error, .. }) => match error {
            EncodeError::Unreadable { of, part } => Some((of, part)),
            other => panic!("{other}"),
        },
        Err(other) => panic!("{other}"),
    }
}

/// As `serde_json::Value` is: written as what it holds, read as what it is told.
#[derive(Debug, Clone, PartialEq)]
enum Any {
    Number(u64),
    Text(String),
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Any::Number(number) => serializer.serialize_u64(*number),
            Any::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Any, D::Error> {
        struct Told;

        impl Visitor<'_> for Told {
            type Value = Any;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Any, E> {
                Ok(Any::Number(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Any, E> {
                Ok(Any::Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Told)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Number { number: u64 },
    Nothing,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "content")]
enum Adjacent {
    Number(u64),
    Pair { name: String, number: u64 },
    Nothing,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    name: String,
    tags: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    meta: Meta,
    payload: Option<Any>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Command {
    Quit,
    Resize { width: u32, height: u32 },
    Set(String, BTreeMap<String, Any>),
}

#[test]
fn what_could_not_be_read_is_refused_with_the_first_value_and_named() {
    let place = |value: Option<(String, String)>| {
        let (of, part) = value.expect("it is refused");
        (of.replace("values::", ""), part.replace("values::", ""))
    };
    let named = |of: &str, part: &str| (of.to_owned(), part.to_owned());
    assert_eq!(place(refusal(Any::Number(1))), named("Any", "`Any`"));
    assert_eq!(
        place(refusal(Untagged::Text("a".into()))),
        named("Untagged", "")
    );
    assert_eq!(place(refusal(Untagged::Number(1))), named("Untagged", ""));
    assert_eq!(place(refusal(Tagged::Nothing)), named("Tagged", ""));
    assert_eq!(
        place(refusal(Tagged::Number { number: 1 })),
        named("Tagged", "")
    );
    let pair = Adjacent::Pair {
        name: "a".to_owned(),
        number: 1,
    };
    for adjacent in [Adjacent::Number(1), Adjacent::Nothing, pair] {
        assert_eq!(place(refusal(adjacent)).0, "Adjacent");
    }
    // Also where this value has nothing of the kind.
    let meta = || Meta {
        name: "a".to_owned(),
        tags: Vec::new(),
    };
    let order = Order {
        meta: meta(),
        payload: None,
    };
    assert_eq!(
        place(refusal(order)),
        named("Order", "`Any` in `payload` of `Order`")
    );
    let part = "`Any` in `Set` of `Command`";
    assert_eq!(place(refusal(Command::Quit)), named("Command", part));
    let sized = Command::Resize {
        width: 1,
        height: 2,
    };
    assert_eq!(place(refusal(sized)), named("Command", part));
    let set = Command::Set("a".to_owned(), BTreeMap::new());
    assert_eq!(place(refusal(set)), named("Command", part));
    assert_eq!(place(refusal((1_u8, Vec::<Any>::new()))).1, "`Any`");
    assert_eq!(
        place(refusal(("text".to_owned(), [1_u8; 3], None::<Tagged>))).1,
        ""
    );
    assert_eq!(place(refusal(HashMap::<u32, Untagged>::new())).1, "");
}

#[test]
fn pools_and_processes_refuse_it_before_anything_runs() {
    let pool = Pool::new(1).unwrap();
    let named = |error: &dyn Error| {
        let text = whole(error);
        assert!(
            text.contains("values::Any") && text.contains("JSON in a String"),
            "{text}"
        );
    };
    let error = pool.apply(|_: Any| (), (Any::Number(1),)).unwrap_err();
    assert!(matches!(error, TaskError::Encode { .. }), "{error:?}");
    named(&error);
    let error = pool.map(|_: Any| (), [Any::Number(1)]).unwrap_err();
    named(&error);
    let error = pool.apply(|| Any::Number(1), ()).unwrap_err();
    named(&error);
    let error = Process::spawn(|_: Any| (), (Any::Number(1),))
        .map(drop)
        .unwrap_err();
    named(&error);
    pool.close();
    pool.join().unwrap();
}

/// Holds itself, in several ways.
#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Node(Box<Tree>, Box<Tree>),
    Many {
        children: Vec<Tree>,
        parent: Option<Box<Tree>>,
    },
    Leaf(NonZeroU32),
}

#[derive(Debug, Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

#[derive(Debug, Serialize, Deserialize)]
struct Generic<T> {
    one: (T, String),
    #[serde(default, rename = "b", alias = "c")]
    two: Vec<(T, [u8; 3])>,
    three: Result<T, std::net::IpAddr>,
}

#[test]
fn what_can_be_read_is_sent() {
    let leaf = || Tree::Leaf(NonZeroU32::MIN);
    assert_eq!(refusal(Tree::Node(leaf().into(), leaf().into())), None);
    let many = Tree::Many {
        children: vec![leaf()],
        parent: Some(leaf().into()),
    };
    assert_eq!(refusal(many), None);
    assert_eq!(refusal(Chain(Some(Chain(None).into()))), None);
    let generic = Generic {
        one: (Duration::MAX, "a".to_owned()),
        two: vec![(Duration::ZERO, [1, 2, 3])],
        three: Err([127, 0, 0, 1].into()),
    };
    assert_eq!(refusal(generic), None);
    assert_eq!(refusal(()), None);
    assert_eq!(
        refusal((std::path::PathBuf::from("/"), 'x', 1.5_f32, 1_u128)),
        None
    );
    assert_eq!(refusal(vec![std::time::SystemTime::now()]), None);
}

static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Counts.
#[derive(Debug, Serialize, Deserialize)]
struct Counted(String);

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Several {
    first: Counted,
    second: Counted,
    last: Option<u8>,
}

#[test]
fn to_find_out_is_seen_by_nobody() {
    let (mut tx, mut rx) = Queue::<(Counted, Several)>::new(4).unwrap();
    let counted = || Counted("a".to_owned());
    let several = Several {
        first: counted(),
        second: counted(),
        last: None,
    };
    tx.send((counted(), several)).unwrap();
    // The sender's own.
    assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
    drop(rx.recv().unwrap());
    assert_eq!(DROPPED.load(Ordering::Relaxed), 6);
    // Nor is an end attached.
    let (tx, mut rx) = Queue::<u64>::builder().senders(1).build().unwrap();
    let (mut ends, mut others) = Queue::<(Sender<u64>, u8)>::new(4).unwrap();
    ends.send((tx, 1)).unwrap();
    let (mut tx, _) = others.recv().unwrap();
    tx.send(7).unwrap();
    assert_eq!(rx.recv(), Ok(7));
}

// Values of any length.

/// A text that tells its length and seed, wherever it is cut or mixed with another.
fn text(length: usize, seed: usize) -> String {
    let mut text = format!("{length} {seed} ").repeat(length / 4 + 1);
    text.truncate(length);
    text
}

/// Lengths that fit and lengths that do not.
const LENGTHS: [usize; 9] = [0, 5, 255, 256, 257, 300, 5_000, 100_000, 3_000_000];

#[test]
fn a_queue_of_texts_takes_any_in_order_with_all_of_them_in_flight() {
    let (mut tx, mut rx) = Queue::<String>::new(100).unwrap();
    let texts: Vec<String> = (0..100)
        .map(|n| text(LENGTHS[n % LENGTHS.len()], n))
        .collect();
    for _ in 0..2 {
        for text in &texts {
            tx.try_send(text.clone()).unwrap();
        }
        assert!(matches!(tx.try_send(text(300, 0)), Err(SendError::Full(_))));
        for text in &texts[..40] {
            assert_eq!(rx.try_recv().as_ref(), Ok(text));
        }
        let mut rest = Vec::new();
        while rest.len() < 60 {
            rest.extend(rx.recv_many(7).unwrap());
        }
        assert_eq!(rest, texts[40..]);
    }
    // Also many at once.
    assert_eq!(tx.send_many(texts.clone()).unwrap(), 100);
    drop(tx);
    assert!(rx.iter().eq(texts));
}

#[test]
fn values_cross_processes_whatever_their_length() {
    type Value = (u32, Vec<String>, Option<Vec<u64>>);
    let echo = |mut rx: multiproc::Receiver<Value>, mut tx: Sender<Value>| {
        for value in rx.iter() {
            tx.send(value).unwrap();
        }
    };
    let (mut there, rx) = Queue::<Value>::new(4).unwrap();
    let (tx, mut back) = Queue::<Value>::new(4).unwrap();
    let child = Process::spawn(echo, (rx, tx)).unwrap();
    for (n, length) in LENGTHS.into_iter().enumerate() {
        let numbers = (n % 2 == 0).then(|| vec![n as u64; length / 8]);
        let value = (n as u32, vec![text(length, n), text(3, n)], numbers);
        there.send(value.clone()).unwrap();
        assert_eq!(back.recv_timeout(DEADLINE).unwrap(), value);
    }
    drop(there);
    assert!(child.join_timeout(DEADLINE).unwrap().is_some());
}

#[test]
fn the_limit_is_kept_and_named_and_the_value_comes_back() {
    let (mut tx, mut rx) = Queue::<String>::new(4).unwrap();
    let whole = "x".repeat((64 << 20) - 8);
    tx.send(whole.clone()).unwrap();
    assert!(rx.recv().unwrap() == whole);
    let error = tx.send("x".repeat((64 << 20) + 1)).unwrap_err();
    assert!(matches!(error, SendError::TooLarge { limit, .. } if limit == 64 << 20));
    assert!(error.to_string().contains("`message_limit`"), "{error}");
    assert_eq!(error.into_value().len(), (64 << 20) + 1);
    tx.send("short".to_owned()).unwrap();
    assert_eq!(rx.recv().unwrap(), "short");

    // Who says what room there is gets no more, unless he says that too.
    let builder = || Queue::<String>::builder().message_size(100);
    let (mut tx, _rx) = builder().build().unwrap();
    assert!(matches!(
        tx.send(text(101, 0)),
        Err(SendError::TooLarge { limit: 100, .. })
    ));
    let (mut tx, mut rx) = builder().message_limit(1000).build().unwrap();
    tx.send(text(1000, 0)).unwrap();
    assert_eq!(rx.recv().unwrap(), text(1000, 0));
    assert!(matches!(
        tx.send(text(1001, 0)),
        Err(SendError::TooLarge { limit: 1000, .. })
    ));
    let error = builder().message_limit(99).build().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("invalid message limit of 99 bytes"),
        "{error}"
    );
    assert!(builder().message_limit(usize::MAX).build().is_err());
}

/// Bytes that the queues of this process have.
fn memory() -> u64 {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let queues = files.filter_map(|file| {
        let file = file.unwrap().path();
        let name = std::fs::read_link(&file).ok()?;
        let is_queue = name.to_str()?.contains("multiproc:queue");
        is_queue.then(|| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&file).unwrap()))
    });
    queues.sum::<u64>() * 512
}

fn memory_is_taken_when_used() {
    const MIB: u64 = 1 << 20;
    let (mut tx, mut rx) = Queue::<String>::new(100).unwrap();
    assert!(memory() < MIB, "{}", memory());
    for _ in 0..10 {
        tx.send(text(MIB as usize, 0)).unwrap();
    }
    assert!(memory() > 10 * MIB);
    for _ in 0..9 {
        rx.recv().unwrap();
    }
    // With the next of them; the one that nobody has received stays.
    tx.send(text(300, 0)).unwrap();
    let now = memory();
    assert!((MIB..2 * MIB).contains(&now), "{now}");
    assert_eq!(rx.recv().unwrap(), text(MIB as usize, 0));
    assert_eq!(rx.recv().unwrap(), text(300, 0));
    let (other, _) = (tx.try_clone().unwrap(), drop(tx));
    assert!(memory() < MIB, "{}", memory());
    // What one leaves behind that is killed, goes when another has its lane.
    let send = |mut tx: Sender<String>| {
        (0..10).for_each(|_| tx.send(text(MIB as usize, 0)).unwrap());
        std::thread::sleep(DEADLINE);
    };
    let child = Process::spawn(send, (other.try_clone().unwrap(),)).unwrap();
    for _ in 0..10 {
        assert_eq!(rx.recv_timeout(DEADLINE).unwrap(), text(MIB as usize, 0));
    }
    child.kill().unwrap();
    child.join_timeout(DEADLINE).unwrap_err();
    let _next = other.try_clone().unwrap();
    assert!(memory() < MIB, "{}", memory());
}

#[test]
fn memory_is_had_by_long_messages_in_flight_alone() {
    let child = Process::spawn(memory_is_taken_when_used, ()).unwrap();
    assert!(child.join_timeout(DEADLINE).unwrap().is_some());
}

#[test]
fn there_is_room_for_all_the_ends_of_a_large_machine() {
    let (tx, rx) = Queue::<String>::new(8).unwrap();
    let ends = |_| (tx.try_clone().unwrap(), rx.try_clone().unwrap());
    let mut all: Vec<_> = (0..255).map(ends).collect();
    for (n, (tx, _)) in all.iter_mut().enumerate() {
        tx.send(text(300, n)).unwrap();
    }
    let texts: std::collections::HashSet<_> =
        all.iter_mut().map(|(_, rx)| rx.recv().unwrap()).collect();
    assert!(texts == (0..255).map(|n| text(300, n)).collect());
    let error = tx.try_clone().unwrap_err();
    assert!(
        error.to_string().contains("set `senders` to more"),
        "{error}"
    );
    let error = rx.try_clone().unwrap_err();
    assert!(
        error.to_string().contains("set `receivers` to more"),
        "{error}"
    );
}

/// Too large for a slot whatever it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Large {
    numbers: [[u64; 8]; 4],
    text: String,
}

#[test]
fn what_lies_in_blocks_may_be_longer_as_well() {
    let (mut tx, mut rx) = Queue::<Large>::new(4).unwrap();
    let large = |length: usize| Large {
        numbers: [[7; 8]; 4],
        text: text(length, 1),
    };
    for length in LENGTHS {
        for _ in 0..4 {
            tx.try_send(large(length)).unwrap();
        }
        assert_eq!(rx.recv().unwrap(), large(length));
        assert_eq!(rx.recv_many(2).unwrap()[0], large(length));
        while rx.try_recv().is_ok() {}
    }
    let builder = Queue::<Vec<u8>>::builder().message_size(1000).in_place(4);
    let (mut tx, mut rx) = builder.message_limit(1 << 20).build().unwrap();
    let bytes = text(100_000, 3).into_bytes();
    tx.send(bytes.clone()).unwrap();
    tx.send(b"short".to_vec()).unwrap();
    let lease = rx.lease().unwrap();
    assert_eq!(lease.get(), bytes);
    assert_eq!(rx.lease().unwrap().read().unwrap(), b"short");
    // Not done with: it comes again, as it was.
    drop(lease);
    let lease = rx.lease().unwrap();
    assert!(lease.redelivered());
    assert_eq!(lease.read().unwrap(), bytes);
    lease.ack();
}

struct Parts(String, Sender<u64>, Frozen<u8>);

impl From<(String, Box<Sender<u64>>, Frozen<u8>)> for Parts {
    fn from((text, numbers, frozen): (String, Box<Sender<u64>>, Frozen<u8>)) -> Parts {
        Parts(text, *numbers, frozen)
    }
}

impl From<(String, Sender<u64>, Frozen<u8>)> for Parts {
    fn from((text, numbers, frozen): (String, Sender<u64>, Frozen<u8>)) -> Parts {
        Parts(text, numbers, frozen)
    }
}

#[test]
fn what_a_long_message_names_goes_along() {
    // In slots, and (since a sender is large) in blocks.
    type InSlots = (String, Box<Sender<u64>>, Frozen<u8>);
    names_go_along::<InSlots>(|(text, numbers, frozen)| (text, numbers.into(), frozen));
    names_go_along::<(String, Sender<u64>, Frozen<u8>)>(|parts| parts);
}

fn names_go_along<T>(make: impl Fn((String, Sender<u64>, Frozen<u8>)) -> T)
where
    T: Message + fmt::Debug + Into<Parts>,
{
    let (mut tx, mut rx) = Queue::<T>::new(4).unwrap();
    for n in 0..20 {
        let (numbers, mut received) = Queue::<u64>::builder().senders(1).build().unwrap();
        let frozen = Frozen::from_slice(&[n as u8; 100]).unwrap();
        tx.send(make((text(10_000, n), numbers, frozen))).unwrap();
        let parts = rx.recv_timeout(DEADLINE).unwrap().into();
        let Parts(text_received, mut numbers, frozen) = parts;
        assert_eq!(text_received, text(10_000, n));
        assert_eq!(frozen[..], [n as u8; 100]);
        numbers.send(n as u64).unwrap();
        assert_eq!(received.recv(), Ok(n as u64));
    }
}

#[test]
fn a_queue_with_a_name_takes_them_too() {
    let name = format!("test-values-{}", std::process::id());
    let builder = Queue::<String>::builder;
    let (_tx, mut rx) = builder().create(&name).unwrap();
    let (mut tx, _rx) = builder().open(&name).unwrap();
    for length in LENGTHS {
        tx.send(text(length, 2)).unwrap();
        assert_eq!(rx.recv_timeout(DEADLINE).unwrap(), text(length, 2));
    }
    assert!(builder().message_limit(1000).open(&name).is_err());
}

/// Sends long and short ones without end, each with its number.
fn send_for_ever(mut tx: Sender<(u64, String)>) {
    for n in 0.. {
        let length = if n % 3 == 0 { 3 } else { 50_000 + n as usize };
        if tx.send((n, text(length, n as usize))).is_err() {
            return;
        }
    }
}

/// Receives without end, and checks each.
fn receive_for_ever(mut rx: multiproc::Receiver<(u64, String)>) {
    while let Ok((n, found)) = rx.recv() {
        let length = if n % 3 == 0 { 3 } else { 50_000 + n as usize };
        assert!(found == text(length, n as usize), "{n}");
    }
}

#[test]
fn who_is_killed_in_a_long_message_costs_others_nothing() {
    let (tx, mut rx) = Queue::<(u64, String)>::builder()
        .capacity(4)
        .senders(2)
        .build()
        .unwrap();
    for round in 0..30_u64 {
        // The lane that this one leaves is the next one's.
        let sender = Process::spawn(send_for_ever, (tx.try_clone().unwrap(),)).unwrap();
        let receiver = Process::spawn(receive_for_ever, (rx.try_clone().unwrap(),)).unwrap();
        let mut last = None;
        for _ in 0..20 + round {
            let (n, found) = rx.recv_timeout(DEADLINE).unwrap();
            let length = if n % 3 == 0 { 3 } else { 50_000 + n as usize };
            assert!(found == text(length, n as usize), "{n}");
            assert!(last.is_none_or(|last| last < n), "{last:?}, {n}");
            last = Some(n);
            std::thread::sleep(Duration::from_micros(round * 37 % 500));
        }
        match round % 2 {
            0 => sender.kill().unwrap(),
            _ => receiver.kill().unwrap(),
        }
        sender.kill().unwrap();
        sender.join_timeout(DEADLINE).unwrap_err();
        receiver.kill().unwrap();
        receiver.join_timeout(DEADLINE).unwrap_err();
        // What was sent before is received, whole.
        while let Ok((n, found)) = rx.try_recv() {
            let length = if n % 3 == 0 { 3 } else { 50_000 + n as usize };
            assert!(found == text(length, n as usize), "{n}");
        }
    }
    drop(tx);
    assert_eq!(rx.recv_timeout(DEADLINE), Err(multiproc::RecvError::Closed));
}
