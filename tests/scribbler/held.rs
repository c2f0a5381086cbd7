//! A text that is being decoded does not change, whatever somebody writes at that very moment.
//!
//! The type here writes over all that its process shares while its own decoding holds a text, as another process
//! could, and looks at the text again. So every road is shown at once, without waiting for a race.

use std::fmt;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use multiproc::{Pipe, Pool, Queue, Receiver};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::shared;
use crate::texts::{MARK, SPOILT, messages};

/// A text of so many marks; once decoded, whether it stayed what it was meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    OfMarks(usize),
    Stayed,
    Changed,
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Text::OfMarks(length) => serializer.serialize_str(&marks(*length)),
            Text::Stayed => serializer.serialize_str("stayed"),
            Text::Changed => serializer.serialize_str("changed"),
        }
    }
}

fn marks(length: usize) -> String {
    String::from_utf8(vec![MARK; length]).unwrap()
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Held)
    }
}

struct Held;

impl de::Visitor<'_> for Held {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        match text {
            "stayed" => return Ok(Text::Stayed),
            "changed" => return Ok(Text::Changed),
            _ => {}
        }
        let before = text.to_owned();
        let mut written = Vec::new();
        for path in shared(std::process::id()) {
            let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else {
                continue;
            };
            for (at, length) in messages(&file) {
                let _ = file.write_all_at(&vec![SPOILT; length], at);
                written.push((file.try_clone().map_err(E::custom)?, at, length));
            }
        }
        let stayed = black_box(text.as_bytes()) == before.as_bytes();
        for (file, at, length) in written {
            let _ = file.write_all_at(&vec![MARK; length], at);
        }
        Ok(if stayed { Text::Stayed } else { Text::Changed })
    }
}

/// Short ones too: as large as a slot of the ring, a small message of a pipe, a run.
const LENGTHS: [usize; 4] = [300, 1_000, 30_000, 300_000];

#[test]
fn what_a_queue_decodes_does_not_change() {
    for length in LENGTHS {
        let builder = Queue::<Text>::builder()
            .capacity(4)
            .message_size(length + 16);
        let (mut tx, mut rx) = builder.build().unwrap();
        let ways: [fn(&mut Receiver<Text>) -> Text; 4] = [
            |rx| rx.recv().unwrap(),
            |rx| rx.try_recv().unwrap(),
            |rx| rx.recv_many(1).unwrap()[0],
            |rx| rx.iter().next().unwrap(),
        ];
        for receive in ways {
            tx.send(Text::OfMarks(length)).unwrap();
            assert_eq!(receive(&mut rx), Text::Stayed, "of {length} bytes");
        }
    }
}

#[test]
fn what_is_decoded_from_blocks_does_not_change() {
    for length in LENGTHS {
        let builder = Queue::<Text>::builder()
            .capacity(4)
            .message_size(length + 16);
        let (mut tx, mut rx) = builder.in_place(4).build().unwrap();
        tx.send(Text::OfMarks(length)).unwrap();
        assert_eq!(rx.recv().unwrap(), Text::Stayed, "of {length} bytes");
        tx.send(Text::OfMarks(length)).unwrap();
        let lease = rx.lease().unwrap();
        assert_eq!(lease.read().unwrap(), Text::Stayed, "of {length} bytes");
        lease.ack();
    }
}

#[test]
fn what_a_pipe_decodes_does_not_change() {
    for length in LENGTHS {
        let builder = Pipe::<Text, Text>::builder().size(1 << 20);
        let (mut here, mut there) = builder.build().unwrap();
        here.send(Text::OfMarks(length)).unwrap();
        assert_eq!(there.recv().unwrap(), Text::Stayed, "of {length} bytes");
        there.send(Text::OfMarks(length)).unwrap();
        assert_eq!(here.try_recv().unwrap(), Text::Stayed, "of {length} bytes");
    }
}

#[test]
fn what_a_pool_decodes_does_not_change() {
    let pool = Pool::new(1).unwrap();
    let back = |text: Text| text;
    let made = |length: usize| Text::OfMarks(length);
    // One at a time: nobody else writes meanwhile, who would be written over.
    for length in LENGTHS {
        // As an argument: the worker tells what it saw.
        let seen = pool.apply(back, (Text::OfMarks(length),)).unwrap();
        assert_eq!(seen, Text::Stayed, "an argument of {length} bytes");
        let seen = pool.apply(made, (length,)).unwrap();
        assert_eq!(seen, Text::Stayed, "a result of {length} bytes");
    }
}
