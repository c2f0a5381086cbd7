//! One sender, one receiver, as fast as they go: one call for each message, batches, and messages too large to pass by value.

use crate::peer::{array_queue, channel, os, ringfire, rtrb, shaq};
use crate::rig::roles::{Body, Shape};
use crate::rig::row::{Group, Row};
use crate::rig::runs::{stream, stream_bytes, stream_bytes_threads, stream_threads};
use crate::rig::units::Unit;
use bytemuck::Pod;

pub const ONE: Shape = Shape {
    senders: 1,
    receivers: 1,
};

/// Messages in one call of a batch.
pub const BATCH: usize = 32;

/// Messages that may be on their way.
pub fn capacity(size: usize) -> usize {
    if size <= 64 { 4096 } else { 1024 }
}

/// Large messages that may be on their way, 1 to 4 MiB of them.
pub fn large_capacity(size: usize) -> usize {
    if size <= 64 << 10 { 16 } else { 4 }
}

pub fn single(size: &str) -> String {
    format!("{size}, one call each")
}

pub fn batched(size: &str) -> String {
    format!("{size}, {BATCH} in a call")
}

pub fn copied(size: &str) -> String {
    format!("{size}, copied in and out")
}

pub const LARGE: [(&str, usize); 2] = [("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(values::<u64>("8 B"));
    rows.extend(values::<[u64; 8]>("64 B"));
    rows.extend(values::<[u64; 128]>("1 KiB"));
    rows.extend(LARGE.map(|(name, size)| bytes(name, size)));
    rows
}

fn values<M: Body + Pod>(size: &str) -> [Row; 2] {
    let capacity = capacity(M::SIZE);
    let row = |name: String| {
        Row::new(Group::Oneway, name, Unit::Rate)
            .cpus(2)
            .rival("ringfire")
    };
    let plain = row(single(size))
        .cell("ringfire", move |pace| {
            stream::<M, _>(&ringfire::Ring::new(capacity as u64), ONE, 1, pace)
        })
        .cell("shaq", move |pace| {
            stream::<M, _>(&shaq::Single::<M>::new(capacity), ONE, 1, pace)
        })
        .cell("OS pipe", move |pace| {
            stream::<M, _>(&os::Pipe::new(), ONE, 1, pace)
        })
        .cell("rtrb (threads)", move |pace| {
            stream_threads::<M, _>(&rtrb::Ring::<M>::new(capacity), ONE, 1, pace)
        })
        .cell("ArrayQueue (threads)", move |pace| {
            stream_threads::<M, _>(&array_queue::Queue::<M>::new(capacity), ONE, 1, pace)
        })
        .cell("crossbeam channel (threads)", move |pace| {
            stream_threads::<M, _>(&channel::Channel::<M>::new(capacity, 1), ONE, 1, pace)
        });
    let batches = row(batched(size))
        .rival("shaq")
        .cell("ringfire", move |pace| {
            stream::<M, _>(&ringfire::Ring::new(capacity as u64), ONE, BATCH, pace)
        })
        .cell("shaq", move |pace| {
            stream::<M, _>(&shaq::Single::<M>::new(capacity), ONE, BATCH, pace)
        })
        .cell("rtrb (threads)", move |pace| {
            stream_threads::<M, _>(&rtrb::Ring::<M>::new(capacity), ONE, BATCH, pace)
        });
    [plain, batches]
}

fn bytes(name: &str, size: usize) -> Row {
    let count = large_capacity(size);
    let row = Row::new(Group::Oneway, copied(name), Unit::Bandwidth)
        .cpus(2)
        .rival("shaq")
        .cell("shaq", move |pace| match size {
            65536 => stream_bytes(&shaq::Slots::<shaq::Medium>::new(count), size, pace),
            _ => stream_bytes(&shaq::Slots::<shaq::Large>::new(count), size, pace),
        })
        .cell("ringfire", move |pace| {
            stream_bytes(&ringfire::Blobs::new(count as u64, size), size, pace)
        })
        .cell("OS pipe", move |pace| {
            stream_bytes(&os::Pipe::new(), size, pace)
        })
        .cell("rtrb (threads)", move |pace| {
            stream_bytes_threads(&rtrb::Ring::<u8>::new(count * size), size, pace)
        })
        .cell("ArrayQueue of boxes (threads)", move |pace| {
            stream_bytes_threads(&array_queue::Boxes::new(count, size), size, pace)
        });
    #[cfg(feature = "iceoryx2")]
    let row = row.cell("iceoryx2", move |pace| {
        stream_bytes(
            &crate::peer::iceoryx2::Service::new(count, size),
            size,
            pace,
        )
    });
    row
}
