//! Several senders or several receivers at one queue.

use crate::peer::{array_queue, channel, os, shaq};
use crate::rig::roles::{Body, Shape};
use crate::rig::row::{Group, Row};
use crate::rig::runs::{stream, stream_threads};
use crate::rig::units::Unit;
use bytemuck::Pod;

pub const BATCH: usize = 16;
pub const CAPACITY: usize = 4096;

pub const SHAPES: [Shape; 3] = [
    Shape {
        senders: 2,
        receivers: 2,
    },
    Shape {
        senders: 3,
        receivers: 1,
    },
    Shape {
        senders: 1,
        receivers: 3,
    },
];

pub fn single(shape: Shape, size: &str) -> String {
    format!(
        "{} → {}, {size}, one call each",
        shape.senders, shape.receivers
    )
}

pub fn batched(shape: Shape, size: &str) -> String {
    format!(
        "{} → {}, {size}, {BATCH} in a call",
        shape.senders, shape.receivers
    )
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for shape in SHAPES {
        rows.extend(values::<u64>(shape, "8 B"));
        rows.extend(values::<[u64; 8]>(shape, "64 B"));
    }
    rows
}

fn values<M: Body + Pod>(shape: Shape, size: &str) -> [Row; 2] {
    let row = |name: String| Row::new(Group::Many, name, Unit::Rate).cpus(shape.seats());
    let plain = row(single(shape, size))
        .rival("ArrayQueue (threads)")
        .cell("shaq", move |pace| {
            stream::<M, _>(&shaq::Several::<M>::new(CAPACITY), shape, 1, pace)
        })
        .cell("OS pipe", move |pace| {
            stream::<M, _>(&os::Pipe::new(), shape, 1, pace)
        })
        .cell("ArrayQueue (threads)", move |pace| {
            stream_threads::<M, _>(&array_queue::Queue::<M>::new(CAPACITY), shape, 1, pace)
        })
        .cell("crossbeam channel (threads)", move |pace| {
            stream_threads::<M, _>(
                &channel::Channel::<M>::new(CAPACITY, shape.senders),
                shape,
                1,
                pace,
            )
        });
    let batches = row(batched(shape, size))
        .rival("shaq")
        .cell("shaq", move |pace| {
            stream::<M, _>(&shaq::Several::<M>::new(CAPACITY), shape, BATCH, pace)
        });
    [plain, batches]
}
