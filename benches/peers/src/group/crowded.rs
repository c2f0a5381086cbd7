//! A question and its answer where the CPU is not one's own: what a wait costs those who could run meanwhile.

use crate::peer::{os, ringfire};
use crate::rig::place::Place;
use crate::rig::row::{Group, Row};
use crate::rig::runs::roundtrip_at;
use crate::rig::units::Unit;
use ::ringfire::FutexWait;

const CAPACITY: u64 = 1024;

/// Name, and where both sides run.
pub const ROWS: [(&str, Place); 3] = [
    ("8 B, one CPU", Place::Together),
    ("8 B, one CPU and a busy process on it", Place::TogetherBusy),
    ("8 B, two CPUs and a busy process on each", Place::ApartBusy),
];

pub fn rows() -> Vec<Row> {
    let row = |(name, place): (&str, Place)| {
        let cpus = if place == Place::ApartBusy { 2 } else { 1 };
        Row::new(Group::Crowded, name, Unit::Time)
            .beside("p99")
            .cpus(cpus)
            .rival("OS pipe")
            .cell("OS pipe", move |pace| {
                roundtrip_at(place, pace, os::pipes())
            })
            .cell("socketpair", move |pace| {
                roundtrip_at(place, pace, os::sockets())
            })
            .cell("ringfire", move |pace| {
                let rings = [0, 1].map(|_| ringfire::Ring::new(CAPACITY));
                roundtrip_at(place, pace, |side| {
                    ringfire::Pair::side(&rings, side, FutexWait::default())
                })
            })
    };
    ROWS.map(row).into()
}
