//! A question and its answer: both sides always busy, both waiting as they do by default, and both asleep.

use crate::peer::{array_queue, channel, os, ringfire, rtrb, shaq};
use crate::rig::roles::{Both, Think};
use crate::rig::row::{Group, Row};
use crate::rig::runs::{Link, roundtrip, roundtrip_threads};
use crate::rig::units::Unit;
use ::ringfire::{BusySpin, FutexWait};
use std::time::Duration;

const CAPACITY: usize = 1024;

/// Long enough for anybody who spins a little to have gone to sleep.
const THOUGHT: Duration = Duration::from_micros(60);

const BUSY: Think = Think {
    ping: Duration::ZERO,
    pong: Duration::ZERO,
};
const ASLEEP: Think = Think {
    ping: THOUGHT,
    pong: THOUGHT,
};

/// Name, and what each side does before it sends.
pub const ROWS: [(&str, Think); 3] = [
    ("8 B, both busy", BUSY),
    ("8 B, waiting as by default, back to back", BUSY),
    ("8 B, both asleep", ASLEEP),
];

pub fn rows() -> Vec<Row> {
    let row = |name: &str| {
        Row::new(Group::Roundtrip, name, Unit::Time)
            .beside("p99")
            .cpus(2)
    };
    let (busy, asleep) = (BUSY, ASLEEP);
    let rings = || [0, 1].map(|_| ringfire::Ring::new(CAPACITY as u64));
    vec![
        row(ROWS[0].0)
            .rival("ringfire")
            .cell("ringfire", move |pace| {
                let rings = rings();
                roundtrip(true, busy, pace, |side| {
                    ringfire::Pair::side(&rings, side, BusySpin)
                })
            })
            .cell("shaq", move |pace| {
                let queues = [0, 1].map(|_| shaq::Single::<u64>::new(CAPACITY));
                roundtrip(true, busy, pace, |side| {
                    Both(queues[side].tx(0), queues[1 - side].rx(0))
                })
            })
            .cell("rtrb (threads)", move |pace| {
                let rings = [0, 1].map(|_| rtrb::Ring::<u64>::new(CAPACITY));
                let side = |side: usize| Both(rings[side].tx(0), rings[1 - side].rx(0));
                roundtrip_threads(busy, pace, side(0), side(1))
            })
            .cell("ArrayQueue (threads)", move |pace| {
                let queues = [0, 1].map(|_| array_queue::Queue::<u64>::new(CAPACITY));
                let side = |side: usize| Both(queues[side].clone(), queues[1 - side].clone());
                roundtrip_threads(busy, pace, side(0), side(1))
            }),
        row(ROWS[1].0)
            .rival("OS pipe")
            .cell("OS pipe", move |pace| {
                roundtrip(true, busy, pace, os::pipes())
            })
            .cell("socketpair", move |pace| {
                roundtrip(true, busy, pace, os::sockets())
            })
            .cell("ringfire", move |pace| {
                let rings = rings();
                roundtrip(true, busy, pace, |side| {
                    ringfire::Pair::side(&rings, side, FutexWait::default())
                })
            })
            .cell("crossbeam channel (threads)", move |pace| {
                let (there, back) = (
                    channel::Channel::new(CAPACITY, 1).ends(),
                    channel::Channel::new(CAPACITY, 1).ends(),
                );
                roundtrip_threads(busy, pace, Both(there.0, back.1), Both(back.0, there.1))
            }),
        row(ROWS[2].0)
            .rival("OS pipe")
            .cell("OS pipe", move |pace| {
                roundtrip(true, asleep, pace, os::pipes())
            })
            .cell("socketpair", move |pace| {
                roundtrip(true, asleep, pace, os::sockets())
            })
            .cell("ringfire", move |pace| {
                let rings = rings();
                roundtrip(true, asleep, pace, |side| {
                    ringfire::Pair::side(&rings, side, FutexWait::default())
                })
            })
            .cell("crossbeam channel (threads)", move |pace| {
                let (there, back) = (
                    channel::Channel::new(CAPACITY, 1).ends(),
                    channel::Channel::new(CAPACITY, 1).ends(),
                );
                roundtrip_threads(asleep, pace, Both(there.0, back.1), Both(back.0, there.1))
            }),
    ]
}
