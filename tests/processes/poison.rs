//! Messages that kill who reads them.

use std::time::{Duration, Instant};

use multiproc::{Child, JoinError, Queue, Receiver, RecvError, Sender};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::help::{spawn, tests};

tests![
    what_is_received_by_value_kills_one_receiver,
    what_is_leased_kills_as_many_as_it_may,
];

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(60);

/// A text that ends the process that reads it, at once, if it is "poison".
#[derive(Debug, Clone, PartialEq)]
struct Deadly(String);

impl Serialize for Deadly {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Deadly {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "poison" {
            // As a segmentation fault would.
            std::process::abort();
        }
        Ok(Deadly(text))
    }
}

/// Receives until the queue is closed: how many messages.
fn receive(mut rx: Receiver<Deadly>, many: bool) -> u64 {
    let mut received = 0;
    loop {
        let found = match many {
            false => rx.recv_timeout(LONG).map(|_| 1),
            true => rx.recv_many(1).map(|values| values.len() as u64),
        };
        match found {
            Ok(count) => received += count,
            Err(RecvError::Closed) => return received,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Leases, reads and acknowledges until the queue is closed or a message is given up: how many, and
/// what was given up.
fn lease(mut rx: Receiver<Deadly>) -> (u64, Vec<(u32, Vec<u8>)>) {
    let (mut received, mut given_up) = (0, Vec::new());
    loop {
        match rx.lease_timeout(LONG) {
            Ok(lease) => {
                lease.read().unwrap();
                lease.ack();
                received += 1;
            }
            Err(RecvError::Undeliverable(lost)) => {
                given_up.push((lost.failures(), lost.message().to_vec()));
            }
            Err(RecvError::Closed) => return (received, given_up),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What became of the children: how many died by a signal, and what the others said.
fn join<R>(children: Vec<Child<R>>) -> (usize, Vec<R>)
where
    R: multiproc::Message,
{
    let (mut dead, mut said) = (0, Vec::new());
    for child in children {
        match child.join() {
            Ok(result) => said.push(result),
            Err(JoinError::Signalled(_)) => dead += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (dead, said)
}

fn send(tx: &mut Sender<Deadly>, text: &str) {
    tx.send_timeout(Deadly(text.to_string()), LONG).unwrap();
}

fn what_is_received_by_value_kills_one_receiver() {
    for (in_place, many) in [(false, false), (true, false), (false, true), (true, true)] {
        let builder = Queue::<Deadly>::builder().capacity(16);
        let built = match in_place {
            false => builder.build(),
            true => builder.in_place(16).build(),
        };
        let (mut tx, rx) = built.unwrap();
        let children: Vec<_> = (0..3)
            .map(|_| spawn(receive, (rx.try_clone().unwrap(), many)).unwrap())
            .collect();
        drop(rx);
        send(&mut tx, "poison");
        for _ in 0..100 {
            send(&mut tx, "good");
        }
        drop(tx);
        let (dead, received) = join(children);
        assert_eq!(dead, 1, "in place: {in_place}, many: {many}");
        assert_eq!(received.iter().sum::<u64>(), 100);
    }
}

fn what_is_leased_kills_as_many_as_it_may() {
    const LIMIT: usize = 3;
    let builder = Queue::<Deadly>::builder().capacity(16).in_place(16);
    let (mut tx, rx) = builder.delivery_limit(LIMIT).build().unwrap();
    send(&mut tx, "poison");
    for _ in 0..10 {
        send(&mut tx, "good");
    }
    drop(tx);
    // More than it may kill: those are left, whatever the order in which they come.
    let children: Vec<_> = (0..LIMIT + 2)
        .map(|_| spawn(lease, (rx.try_clone().unwrap(),)).unwrap())
        .collect();
    drop(rx);
    let start = Instant::now();
    let (dead, said) = join(children);
    assert!(start.elapsed() < LONG);
    assert_eq!(dead, LIMIT);
    let received: u64 = said.iter().map(|(received, _)| received).sum();
    let given_up: Vec<_> = said
        .into_iter()
        .flat_map(|(_, given_up)| given_up)
        .collect();
    // A text inside another type: its length is in front.
    assert_eq!(given_up, [(LIMIT as u32, b"\x06poison".to_vec())]);
    // A receiver may have died before it could say what it had received.
    assert!(received <= 10);
}
