//! Mutual exclusion around two counters, which are exact at the end.

use crate::peer::mutex::{ParkingLot, Pthread, RawPlace};
use crate::rig::row::{Group, Row};
use crate::rig::runs::{contention, contention_threads, free};
use crate::rig::units::Unit;
use std::time::Duration;

/// Name, processes, and work of its own that each does between two times.
pub const CONTENDED: [(&str, usize, Duration); 3] = [
    ("2 processes", 2, Duration::ZERO),
    ("4 processes", 4, Duration::ZERO),
    (
        "4 processes, 100 ns of other work between",
        4,
        Duration::from_nanos(100),
    ),
];

pub const FREE: &str = "free, lock and unlock";

pub fn rows() -> Vec<Row> {
    let alone = Row::new(Group::Lock, FREE, Unit::Time)
        .rival("pthread robust")
        .cell("pthread robust", |pace| free(pace, &Pthread::new()?))
        .cell("raw_sync", |pace| free(pace, RawPlace::new()?.join()))
        .cell("parking_lot (threads)", |pace| {
            free(pace, ParkingLot::default())
        });
    let mut rows = vec![alone];
    for (name, seats, own) in CONTENDED {
        rows.push(
            Row::new(Group::Lock, name, Unit::Rate)
                .rival("pthread robust")
                .beside("least share")
                .cpus(seats)
                .cell("pthread robust", move |pace| {
                    let mutex = Pthread::new()?;
                    contention(seats, own, pace, || &mutex, || mutex.total())
                })
                .cell("raw_sync", move |pace| {
                    let place = RawPlace::new()?;
                    contention(seats, own, pace, || place.join(), || place.total())
                })
                .cell("parking_lot (threads)", move |pace| {
                    let mutex = ParkingLot::default();
                    contention_threads(seats, own, pace, || mutex.clone(), || mutex.total())
                }),
        );
    }
    rows
}
