//! Pipes: one call each, bytes of any size, and a round trip.

use super::Ours;
use super::part::Part;
use crate::group::{crowded, oneway, roundtrip};
use crate::rig::board::Board;
use crate::rig::place::Place;
use crate::rig::roles::*;
use crate::rig::row::{Ask, Group};
use crate::rig::runs::{answered, rate};
use crate::rig::{Pace, Sample};
use anyhow::Result;
use multiproc::{Message, Pipe, PipeEnd, Plain, Process};
use std::time::Duration;

pub fn add(ours: &mut Ours) {
    let asked = Some(Ask::Times(1.5));
    let mut cell = |size, ask, run: fn(&Pace) -> Result<Sample>| {
        ours.cell(Group::Oneway, &oneway::single(size), "Pipe", ask, run);
    };
    cell("8 B", asked, stream::<u64>);
    cell("64 B", asked, stream::<[u64; 8]>);
    cell("1 KiB", asked, stream::<Plain<[u64; 128]>>);
    for (name, size) in oneway::LARGE {
        let ask = Ask::Figure((8u64 << 30) as f64);
        ours.cell(
            Group::Oneway,
            &oneway::copied(name),
            "Pipe",
            Some(ask),
            move |pace| large(size, pace),
        );
    }
    for (name, pause) in roundtrip::ROWS {
        let ask = match pause.pong.is_zero() {
            true => Ask::Times(1.0),
            false => Ask::Times(1.0 / 1.2),
        };
        ours.cell(Group::Roundtrip, name, "Pipe", Some(ask), move |pace| {
            answers(Place::Apart, pause, pace)
        });
    }
    for (name, place) in crowded::ROWS {
        let ask = Ask::Times(1.0 / 1.5);
        ours.cell(Group::Crowded, name, "Pipe", Some(ask), move |pace| {
            answers(place, Think::default(), pace)
        });
    }
}

/// Nothing comes back.
type Out<M> = PipeEnd<M, u8>;
type In<M> = PipeEnd<u8, M>;

impl<M: Message> Tx<M> for Out<M> {
    fn send(&mut self, message: M) {
        if PipeEnd::send(self, message).is_err() {
            panic!("the pipe took no message");
        }
    }
}

impl<M: Message> Rx<M> for In<M> {
    fn recv(&mut self, _: &impl End) -> Option<M> {
        PipeEnd::recv(self).ok()
    }
}

fn sends<M: Body + Message>(part: Part, mut tx: Out<M>) {
    produce(&part.enter(), part.seat, &mut tx, 1);
}

fn receives<M: Body + Message>(part: Part, mut rx: In<M>) {
    consume(&part.enter(), part.shape(), part.seat, &mut rx, 1);
}

fn stream<M: Body + Message>(pace: &Pace) -> Result<Sample> {
    let board = Board::new()?;
    let (tx, rx) = Pipe::<M, u8>::new()?;
    let mut parts = Part::all(&board, oneway::ONE, 1)?.into_iter();
    let (first, second) = (parts.next().expect("two"), parts.next().expect("two"));
    let receiver = Process::spawn(receives::<M>, (second, rx))?;
    let sender = Process::spawn(sends::<M>, (first, tx))?;
    let sample = rate(&board, oneway::ONE, pace)?;
    sender.join()?;
    receiver.join()?;
    Ok(sample)
}

/// Bytes of any size, whatever the type of the pipe's values.
struct Bytes(PipeEnd<u8, u8>);

impl TxBytes for Bytes {
    fn send(&mut self, message: &[u8]) {
        self.0.send_bytes(message).expect("a receiver");
    }
}

impl RxBytes for Bytes {
    fn recv(&mut self, into: &mut [u8], _: &impl End) -> bool {
        self.0
            .recv_bytes_into(into)
            .is_ok_and(|size| size == into.len())
    }
}

fn sends_bytes(part: Part, tx: PipeEnd<u8, u8>) {
    produce_bytes(&part.enter(), part.seat, &mut Bytes(tx), part.measure);
}

fn receives_bytes(part: Part, rx: PipeEnd<u8, u8>) {
    consume_bytes(
        &part.enter(),
        part.shape(),
        part.seat,
        &mut Bytes(rx),
        part.measure,
    );
}

fn large(size: usize, pace: &Pace) -> Result<Sample> {
    let board = Board::new()?;
    let (tx, rx) = Pipe::<u8, u8>::new()?;
    let mut parts = Part::all(&board, oneway::ONE, size)?.into_iter();
    let (first, second) = (parts.next().expect("two"), parts.next().expect("two"));
    let receiver = Process::spawn(receives_bytes, (second, rx))?;
    let sender = Process::spawn(sends_bytes, (first, tx))?;
    let sample = rate(&board, oneway::ONE, pace)?;
    sender.join()?;
    receiver.join()?;
    Ok(Sample::plain(sample.value * size as f64))
}

impl Duplex for PipeEnd<u64, u64> {
    fn send(&mut self, value: u64) {
        PipeEnd::send(self, value).expect("the other side");
    }

    fn recv(&mut self) -> u64 {
        PipeEnd::recv(self).expect("the other side")
    }
}

fn asks(
    part: Part,
    pause: (Duration, Duration),
    pace: (Duration, Duration),
    mut end: PipeEnd<u64, u64>,
) {
    let pause = Think {
        ping: pause.0,
        pong: pause.1,
    };
    ping(
        &part.enter(),
        &mut end,
        pause,
        Pace {
            warm: pace.0,
            window: pace.1,
        },
    );
}

fn replies(part: Part, pause: (Duration, Duration), mut end: PipeEnd<u64, u64>) {
    pong(
        &part.enter(),
        &mut end,
        Think {
            ping: pause.0,
            pong: pause.1,
        },
    );
}

fn answers(place: Place, pause: Think, pace: &Pace) -> Result<Sample> {
    let board = Board::new()?;
    let _crowd = place.crowd(&board)?;
    let (one, other) = Pipe::<u64, u64>::new()?;
    let mut parts = Part::on(&board, oneway::ONE, 1, place.seats()?).into_iter();
    let (first, second) = (parts.next().expect("two"), parts.next().expect("two"));
    let times = (pause.ping, pause.pong);
    let asking = Process::spawn(asks, (first, times, (pace.warm, pace.window), one))?;
    let replying = Process::spawn(replies, (second, times, other))?;
    let sample = answered(&board)?;
    asking.join()?;
    replying.join()?;
    Ok(sample)
}
