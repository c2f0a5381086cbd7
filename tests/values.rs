//! What may be sent: values of any length, and no type that could not be read.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use multiproc::{EncodeError, Message, Pool, Process, Queue, SendError, Sender, TaskError};
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
    let named = |error: &dyn fmt::Display| {
        let text = error.to_string();
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
