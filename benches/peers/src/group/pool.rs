//! Four workers: many small tasks, single ones, large ones, and the life of a whole pool.

use crate::peer::words::{Asleep, Bell};
use crate::peer::{procspawn, python, rayon};
use crate::rig::Sample;
use crate::rig::board::Shared;
use crate::rig::roles::Think;
use crate::rig::row::{Group, Row};
use crate::rig::runs::{roundtrip, shared};
use crate::rig::units::Unit;
use crate::rig::{Pace, row};
use anyhow::Result;
use std::time::Duration;

pub const ITEMS: u64 = 1_000_000;
pub const SINGLES: u64 = 100_000;

/// Long enough for a worker that spins a little to have parked.
pub const PAUSE: Duration = Duration::from_micros(100);

pub const MAP: &str = "1 M squares";
pub const CHUNK_1: &str = "squares in chunks of 1, for each item";
pub const HOT: &str = "one task, workers hot";
pub const PARKED: &str = "one task, workers parked";
pub const LARGE: &str = "sums of 256 x 1 MiB";
pub const LIFE: &str = "create, 4 tasks, shut down";

pub const COLD: &str = "create, 1 M squares, drop";
pub const OUTSTANDING: &str = "10,000 tasks outstanding, for each";
pub const THREE: &str = "one of three callers, tasks of 300 µs";
pub const OUTSTANDING_TASKS: u64 = 10_000;

/// The names of rayon's cells that our own are held against.
pub const COPIED: &str = "rayon (threads), results copied";
pub const BOTH_COPIED: &str = "rayon (threads), both copied";

pub fn items(count: u64) -> Vec<u64> {
    (0..count).collect()
}

pub fn large() -> Vec<Vec<u8>> {
    (0..=255).map(|byte| vec![byte; 1 << 20]).collect()
}

pub fn rows() -> Vec<row::Row> {
    let row = |name: &str| Row::new(Group::Pool, name, Unit::Time).rival("rayon (threads)");
    vec![
        row(MAP)
            .cell("rayon (threads)", |pace| rayon::map(&items(ITEMS), pace))
            .cell(COPIED, |pace| rayon::copied_map(&items(ITEMS), false, pace))
            .cell(BOTH_COPIED, |pace| {
                rayon::copied_map(&items(ITEMS), true, pace)
            })
            .cell("plain loop", |pace| rayon::serial_map(&items(ITEMS), pace))
            .cell("procspawn, 16 chunks by hand", |pace| {
                procspawn::map(&items(ITEMS), pace)
            })
            .cell("Python Pool.map", |_| {
                let code = "
with ctx.Pool(4) as pool:
    for _ in range(3):
        at = now(); pool.map(square, range(1_000_000)); times.append(now() - at)";
                python::script(&python::pool(code))
            }),
        row(CHUNK_1)
            .cell("rayon (threads)", |pace| {
                rayon::singles(&items(SINGLES), pace)
            })
            .cell("procspawn", |pace| procspawn::singles(1000, pace))
            .cell("Python Pool.map", |_| {
                let code = "
with ctx.Pool(4) as pool:
    for _ in range(3):
        at = now(); pool.map(square, range(4000), 1); times.append((now() - at) / 4000)";
                python::script(&python::pool(code))
            }),
        row(HOT)
            .beside("p99")
            .cell("rayon (threads)", |pace| rayon::apply(Duration::ZERO, pace))
            .cell("futex", |pace| futex(Duration::ZERO, pace))
            .cell("procspawn", |pace| procspawn::apply(Duration::ZERO, pace))
            .cell("Python Pool.apply", |_| {
                let code = "
with ctx.Pool(4) as pool:
    for n in range(500):
        at = now(); pool.apply(square, (n,)); times.append(now() - at)";
                python::script(&python::pool(code))
            }),
        row(PARKED)
            .rival("futex")
            .beside("p99")
            .cell("rayon (threads)", |pace| rayon::apply(PAUSE, pace))
            .cell("futex", |pace| futex(PAUSE, pace))
            .cell("procspawn", |pace| procspawn::apply(PAUSE, pace)),
        row(LARGE)
            .cell("rayon (threads)", |pace| rayon::large(&large(), pace))
            .cell("plain loop", |pace| rayon::serial_large(&large(), pace))
            .cell("procspawn, 4 at a time", |pace| {
                procspawn::large(&large(), pace)
            })
            .cell("Python Pool.map", |_| {
                let code = "
data = [bytes([n]) * (1 << 20) for n in range(256)]
with ctx.Pool(4) as pool:
    for _ in range(2):
        at = now(); pool.map(total, data); times.append(now() - at)";
                python::script(&python::pool(code))
            }),
        row(COLD).cell("rayon (threads)", |pace| rayon::cold(&items(ITEMS), pace)),
        row(OUTSTANDING).cell("rayon (threads)", |pace| {
            rayon::outstanding(OUTSTANDING_TASKS, pace)
        }),
        row(THREE)
            .beside("p99")
            .cell("rayon (threads)", rayon::three),
        row(LIFE)
            .cell("rayon (threads)", rayon::four)
            .cell("procspawn", procspawn::four)
            .cell("Python Pool, fork", |_| {
                let code = "
for _ in range(5):
    at = now(); four(ctx); times.append(now() - at)";
                python::script(&python::pool(code))
            }),
    ]
}

/// A bare futex there and back between two processes, wherever the system puts them.
fn futex(pause: Duration, pace: &Pace) -> Result<Sample> {
    let bells: Shared<[Bell; 2]> = shared()?;
    roundtrip(
        false,
        Think {
            ping: pause,
            pong: Duration::ZERO,
        },
        pace,
        |side| Asleep::side(&bells, side),
    )
}
