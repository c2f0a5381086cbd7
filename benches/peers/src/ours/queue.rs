//! Queues: one call each, batches, bytes in place, and both directions of a round trip.

use super::Ours;
use super::part::Part;
use crate::group::{borrow, crowded, many, oneway, roundtrip};
use crate::rig::board::Board;
use crate::rig::place::Place;
use crate::rig::roles::*;
use crate::rig::row::{Ask, Group};
use crate::rig::runs::{answered, rate};
use crate::rig::{Pace, Sample};
use anyhow::Result;
use bytemuck::Pod;
use multiproc::{Message, Plain, Process, Queue, Receiver, Sender};
use std::time::Duration;

pub fn add(ours: &mut Ours) {
    let one = oneway::ONE;
    let mut oneway = |name: String,
                      ask,
                      run: fn(Shape, usize, usize, &Pace) -> Result<Sample>,
                      capacity,
                      batch| {
        ours.cell(Group::Oneway, &name, "Queue", ask, move |pace| {
            run(one, capacity, batch, pace)
        });
    };
    let values = |size| oneway::capacity(size);
    oneway(
        oneway::single("8 B"),
        Some(Ask::Times(0.9)),
        stream::<u64>,
        values(8),
        1,
    );
    oneway(
        oneway::batched("8 B"),
        None,
        stream::<u64>,
        values(8),
        oneway::BATCH,
    );
    oneway(
        oneway::single("64 B"),
        None,
        stream::<[u64; 8]>,
        values(64),
        1,
    );
    oneway(
        oneway::batched("64 B"),
        None,
        stream::<[u64; 8]>,
        values(64),
        oneway::BATCH,
    );
    oneway(
        oneway::single("1 KiB"),
        None,
        stream::<Plain<[u64; 128]>>,
        values(1024),
        1,
    );
    oneway(
        oneway::batched("1 KiB"),
        None,
        stream::<Plain<[u64; 128]>>,
        values(1024),
        oneway::BATCH,
    );
    for (name, size) in oneway::LARGE {
        let name = oneway::copied(name);
        let count = oneway::large_capacity(size);
        ours.cell(
            Group::Oneway,
            &name,
            "Queue, loans copied into and out of",
            None,
            move |pace| large(size, count, pace),
        );
    }
    for shape in many::SHAPES {
        let asked = |size| (shape.receivers == 2 && size == 8).then_some(Ask::Times(3.0));
        let mut many =
            |name: String, ask, run: fn(Shape, usize, usize, &Pace) -> Result<Sample>, batch| {
                ours.cell(Group::Many, &name, "Queue", ask, move |pace| {
                    run(shape, many::CAPACITY, batch, pace)
                });
            };
        many(many::single(shape, "8 B"), asked(8), stream::<u64>, 1);
        many(
            many::batched(shape, "8 B"),
            None,
            stream::<u64>,
            many::BATCH,
        );
        many(
            many::single(shape, "64 B"),
            asked(64),
            stream::<[u64; 8]>,
            1,
        );
        many(
            many::batched(shape, "64 B"),
            None,
            stream::<[u64; 8]>,
            many::BATCH,
        );
    }
    for (name, size, touch) in borrow::SIZES {
        ours.cell(Group::Borrow, name, "Queue", None, move |pace| {
            loans(size, touch, pace)
        });
    }
    for (name, pause) in roundtrip::ROWS {
        let ask = match pause.pong.is_zero() {
            true => Ask::Times(1.0),
            false => Ask::Times(1.0 / 1.2),
        };
        ours.cell(Group::Roundtrip, name, "Queue", Some(ask), move |pace| {
            answers(Place::Apart, pause, pace)
        });
    }
    for (name, place) in crowded::ROWS {
        let ask = Ask::Times(1.0 / 1.5);
        ours.cell(Group::Crowded, name, "Queue", Some(ask), move |pace| {
            answers(place, Think::default(), pace)
        });
    }
}

impl<M: Message> Tx<M> for Sender<M> {
    fn send(&mut self, message: M) {
        if Sender::send(self, message).is_err() {
            panic!("the queue took no message");
        }
    }

    fn send_many(&mut self, messages: &[M])
    where
        M: Copy,
    {
        if Sender::send_many(self, messages.iter().copied()).is_err() {
            panic!("the queue took no messages");
        }
    }
}

impl<M: Message> Rx<M> for Receiver<M> {
    fn recv(&mut self, _: &impl End) -> Option<M> {
        Receiver::recv(self).ok()
    }

    fn recv_many(&mut self, into: &mut Vec<M>, most: usize, _: &impl End) {
        into.extend(Receiver::recv_many(self, most).unwrap_or_default());
    }
}

impl<const N: usize> Body for Plain<[u64; N]>
where
    [u64; N]: Pod,
{
    const SIZE: usize = 8 * N;

    fn make(stamp: u64) -> Self {
        Plain(<[u64; N]>::make(stamp))
    }

    fn stamp(&self) -> u64 {
        self.0.stamp()
    }
}

fn sends<M: Body + Message>(part: Part, mut tx: Sender<M>) {
    produce(&part.enter(), part.seat, &mut tx, part.measure);
}

fn receives<M: Body + Message>(part: Part, mut rx: Receiver<M>) {
    consume(
        &part.enter(),
        part.shape(),
        part.seat,
        &mut rx,
        part.measure,
    );
}

fn stream<M: Body + Message>(
    shape: Shape,
    capacity: usize,
    batch: usize,
    pace: &Pace,
) -> Result<Sample> {
    let board = Board::new()?;
    let (tx, rx) = Queue::<M>::new(capacity)?;
    let mut children = Vec::new();
    for part in Part::all(&board, shape, batch)? {
        children.push(match part.seat < shape.senders {
            true => Process::spawn(sends::<M>, (part, tx.try_clone()?))?,
            false => Process::spawn(receives::<M>, (part, rx.try_clone()?))?,
        });
    }
    drop((tx, rx));
    let sample = rate(&board, shape, pace)?;
    for child in children {
        child.join()?;
    }
    Ok(sample)
}

/// Loans and leases of `Vec<u8>` queues are bytes.
impl TxLoan for Sender<Vec<u8>> {
    fn send(&mut self, size: usize, fill: impl FnOnce(&mut [u8])) {
        let mut loan = self.loan().expect("a loan");
        fill(&mut loan[..size]);
        loan.commit().expect("a receiver");
    }
}

impl RxLease for Receiver<Vec<u8>> {
    fn recv(&mut self, _: &impl End, look: impl FnOnce(&[u8])) -> bool {
        let Ok(lease) = self.lease() else {
            return false;
        };
        look(lease.get());
        lease.ack();
        true
    }
}

impl TxBytes for Sender<Vec<u8>> {
    fn send(&mut self, message: &[u8]) {
        TxLoan::send(self, message.len(), |loan| loan.copy_from_slice(message));
    }
}

impl RxBytes for Receiver<Vec<u8>> {
    fn recv(&mut self, into: &mut [u8], end: &impl End) -> bool {
        RxLease::recv(self, end, |lease| into.copy_from_slice(lease))
    }
}

fn bytes(count: usize, size: usize) -> Result<(Sender<Vec<u8>>, Receiver<Vec<u8>>)> {
    Ok(Queue::<Vec<u8>>::builder()
        .capacity(count)
        .message_size(size)
        .in_place(count)
        .build()?)
}

fn sends_bytes(part: Part, mut tx: Sender<Vec<u8>>) {
    produce_bytes(&part.enter(), part.seat, &mut tx, part.measure);
}

fn receives_bytes(part: Part, mut rx: Receiver<Vec<u8>>) {
    consume_bytes(
        &part.enter(),
        part.shape(),
        part.seat,
        &mut rx,
        part.measure,
    );
}

fn large(size: usize, count: usize, pace: &Pace) -> Result<Sample> {
    let board = Board::new()?;
    let (tx, rx) = bytes(count, size)?;
    let mut parts = Part::all(&board, oneway::ONE, size)?.into_iter();
    let (first, second) = (parts.next().expect("two"), parts.next().expect("two"));
    let receiver = Process::spawn(receives_bytes, (second, rx))?;
    let sender = Process::spawn(sends_bytes, (first, tx))?;
    let sample = rate(&board, oneway::ONE, pace)?;
    sender.join()?;
    receiver.join()?;
    Ok(Sample::plain(sample.value * size as f64))
}

fn lends(part: Part, whole: bool, mut tx: Sender<Vec<u8>>) {
    let touch = if whole { Touch::Whole } else { Touch::Ends };
    produce_loans(&part.enter(), part.seat, &mut tx, part.measure, touch);
}

fn borrows(part: Part, whole: bool, mut rx: Receiver<Vec<u8>>) {
    let touch = if whole { Touch::Whole } else { Touch::Ends };
    consume_leases(&part.enter(), part.shape(), part.seat, &mut rx, touch);
}

fn loans(size: usize, touch: Touch, pace: &Pace) -> Result<Sample> {
    let board = Board::new()?;
    let (tx, rx) = bytes(borrow::capacity(touch), size)?;
    let mut parts = Part::all(&board, oneway::ONE, size)?.into_iter();
    let (first, second) = (parts.next().expect("two"), parts.next().expect("two"));
    let whole = touch == Touch::Whole;
    let receiver = Process::spawn(borrows, (second, whole, rx))?;
    let sender = Process::spawn(lends, (first, whole, tx))?;
    let sample = rate(&board, oneway::ONE, pace)?;
    sender.join()?;
    receiver.join()?;
    Ok(sample)
}

fn asks(
    part: Part,
    pause: (Duration, Duration),
    pace: (Duration, Duration),
    tx: Sender<u64>,
    rx: Receiver<u64>,
) {
    let pause = Think {
        ping: pause.0,
        pong: pause.1,
    };
    ping(
        &part.enter(),
        &mut Both(tx, rx),
        pause,
        Pace {
            warm: pace.0,
            window: pace.1,
        },
    );
}

fn replies(part: Part, pause: (Duration, Duration), tx: Sender<u64>, rx: Receiver<u64>) {
    pong(
        &part.enter(),
        &mut Both(tx, rx),
        Think {
            ping: pause.0,
            pong: pause.1,
        },
    );
}

fn answers(place: Place, pause: Think, pace: &Pace) -> Result<Sample> {
    let board = Board::new()?;
    let _crowd = place.crowd(&board)?;
    let (there, back) = (Queue::<u64>::new(1024)?, Queue::<u64>::new(1024)?);
    let mut parts = Part::on(&board, oneway::ONE, 1, place.seats()?).into_iter();
    let (first, second) = (parts.next().expect("two"), parts.next().expect("two"));
    let times = (pause.ping, pause.pong);
    let asking = Process::spawn(
        asks,
        (first, times, (pace.warm, pace.window), there.0, back.1),
    )?;
    let replying = Process::spawn(replies, (second, times, back.0, there.1))?;
    let sample = answered(&board)?;
    asking.join()?;
    replying.join()?;
    Ok(sample)
}
