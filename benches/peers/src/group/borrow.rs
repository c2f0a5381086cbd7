//! Messages written and read where they lie. Touched at both ends, the rate shows the price of a loan and must not depend on
//! the size; written and read as a whole, it shows what the memory gives.

use crate::peer::{ringfire, shaq};
use crate::rig::roles::Touch;
use crate::rig::row::{Group, Row};
use crate::rig::runs::stream_loans;
use crate::rig::units::Unit;

/// Messages that may be on their way; fewer where all of them are touched, so that they stay in a cache.
pub fn capacity(touch: Touch) -> usize {
    match touch {
        Touch::Ends => 64,
        Touch::Whole => 4,
    }
}

pub const SIZES: [(&str, usize, Touch); 4] = [
    ("8 B", 8, Touch::Ends),
    ("4 KiB, both ends touched", 4 << 10, Touch::Ends),
    ("1 MiB, both ends touched", 1 << 20, Touch::Ends),
    ("1 MiB, all of it written and read", 1 << 20, Touch::Whole),
];

pub fn rows() -> Vec<Row> {
    SIZES
        .into_iter()
        .map(|(name, size, touch)| row(name, size, touch))
        .collect()
}

fn row(name: &str, size: usize, touch: Touch) -> Row {
    let count = capacity(touch);
    let row = Row::new(Group::Borrow, name, Unit::Rate)
        .cpus(2)
        .rival("shaq")
        .cell("ringfire", move |pace| {
            stream_loans(&ringfire::Blobs::new(count as u64, size), size, touch, pace)
        })
        .cell("shaq", move |pace| match size {
            8 => stream_loans(&shaq::Slots::<u64>::new(count), size, touch, pace),
            4096 => stream_loans(&shaq::Slots::<[u64; 512]>::new(count), size, touch, pace),
            _ => stream_loans(&shaq::Slots::<shaq::Large>::new(count), size, touch, pace),
        });
    #[cfg(feature = "iceoryx2")]
    let row = row.cell("iceoryx2", move |pace| {
        stream_loans(
            &crate::peer::iceoryx2::Service::new(count, size),
            size,
            touch,
            pace,
        )
    });
    row
}
